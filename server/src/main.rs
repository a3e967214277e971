//! `sluice`: the server's command.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::config::addresses::Found;
use server::config::load::{LoadError, Loaded, load};
use server::config::render;
use server::config::resolve::{Machine, Resolved, resolve};
use server::hash_token::{self, HashTokenError};
use server::run;
use server::telemetry::{LogQueue, Telemetry};

/// The nice value of the control threads: where cores are short, forwarding goes before HTTP, and HTTP before handshakes.
const CONTROL_NICENESS: i32 = 5;

/// At the end the log gets this long to be written; nobody may read it.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The configuration is wrong.
const WRONG_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let log = LogQueue::stderr();
    let code = start(&log);
    log.flush(LAST_LINES);
    code
}

/// Does what the command line says.
fn start(log: &LogQueue) -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "hash-token") {
        return hash_token(log);
    }
    let loaded = match load(std::env::args_os(), std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(LoadError::Information(text)) => return print(log, &text),
        Err(LoadError::Wrong(text)) => return complain(log, &text, WRONG_CONFIGURATION),
    };
    let resolved = match resolve(&loaded.settings, &Machine::look()) {
        Ok(resolved) => resolved,
        Err(error) => return complain(log, &error.to_string(), WRONG_CONFIGURATION),
    };
    if loaded.check_only {
        return print(log, &effective(&loaded, &resolved));
    }
    let telemetry = Telemetry::start(log.clone(), &loaded.settings.log, loaded.settings.log_format);
    raise_file_limit(2 * loaded.settings.max_connections);
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        // Of the starting thread alone: the shards are started by this one, which stays as it is. A refusal leaves all
        // threads equal, which is no fault.
        .on_thread_start(|| {
            let _ = rustix::process::setpriority_process(None, CONTROL_NICENESS);
        })
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(log, &format!("cannot start the control threads: {error}"), 1),
    };
    let result = runtime.block_on(run::run(&loaded.settings, resolved, telemetry));
    // What still waits for a client must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(log, &error.to_string(), 1),
    }
}

/// The command `hash-token`.
fn hash_token(log: &LogQueue) -> ExitCode {
    match hash_token::run(std::env::args_os().skip(1), io::stdin().lock()) {
        Ok(hashed) => {
            if let Some(token) = hashed.token {
                log.push(format!("token: {token}\n").as_bytes());
            }
            print(log, &format!("{}\n", hashed.line))
        }
        Err(HashTokenError::Information(text)) => print(log, &text),
        Err(error) => complain(log, &error.to_string(), WRONG_CONFIGURATION),
    }
}

/// The soft limit of open files is for programs that use select(2); up to the hard one a process may have more. `wanted` are
/// those of connections.
fn raise_file_limit(wanted: usize) {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        tracing::warn!("the soft limit of open files could not be raised to the hard one");
    }
    if let Some(files) = getrlimit(Resource::Nofile).current
        && files < wanted as u64
    {
        tracing::warn!(files, wanted, "the limit of open files is below what connections may take: raise LimitNOFILE");
    }
}

fn complain(log: &LogQueue, text: &str, code: u8) -> ExitCode {
    log.push(format!("sluice: {text}\n").as_bytes());
    ExitCode::from(code)
}

/// Writes an answer to stdout. A reader that has seen enough, such as `head`, is no error.
fn print(log: &LogQueue, text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(log, &format!("cannot write to stdout: {error}"), 1),
    }
}

/// What `--check-config` prints.
fn effective(loaded: &Loaded, resolved: &Resolved) -> String {
    let ports = |port| format!(" at port {port} and up");
    let addresses = resolved.reading.found.iter();
    let addresses: Vec<_> = addresses
        .map(|Found { address, from }| {
            format!("{}{} ({from})", address.ip, address.port.map_or_else(String::new, ports))
        })
        .collect();
    let mut text = render::effective(loaded);
    let _ = writeln!(
        text,
        "\n# On this machine: {} shards, media on {}, advertised {}.",
        resolved.core.shards,
        resolved.core.media_ip,
        addresses.join(", ")
    );
    for warning in &resolved.warnings {
        let _ = writeln!(text, "# Warning: {warning}.");
    }
    text
}
