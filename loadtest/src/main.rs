//! The command line of the load test.

mod arguments;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use loadtest::floor;
use loadtest::relay;
use loadtest::report::Report;
use loadtest::run::{Campaign, Progress, RunError};

use arguments::{Cli, Command, Output};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // The relay's log is all that it shows while it runs.
    let log = if matches!(command, Command::Relay(_)) { "error,loadtest=info" } else { "error" };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| log.into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let planned = match command {
        Command::Floor(args) => {
            return match floor::command(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error.to_string()),
            };
        }
        Command::Relay(args) => {
            return match relay::command(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error.to_string()),
            };
        }
        Command::Conformance(args) => return args.carry_out().unwrap_or_else(|error| failed(&error)),
        Command::Run(args) => args.campaign(),
        Command::Storm(args) => args.campaign(),
        Command::Narrow(args) => args.campaign(),
        Command::Layers(args) => args.campaign(),
        Command::Knee(args) => args.campaign(),
        Command::Soak(args) => args.campaign(),
        Command::Attack(args) => args.campaign(),
    };
    let report = planned.and_then(|(campaign, output)| {
        let report = carry_out(&campaign)?;
        publish(&report, &output).map(|()| report)
    });
    match report {
        Ok(report) if report.passed => ExitCode::SUCCESS,
        Ok(report) if report.bottlenecks.is_empty() => ExitCode::from(1),
        Ok(_) => ExitCode::from(3),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("sluice-loadtest: {error}");
    ExitCode::from(2)
}

fn carry_out(campaign: &Campaign) -> Result<Report, RunError> {
    let files = loadtest::process::raise_file_limit();
    if files.is_some_and(|files| files < 2 * campaign.most_clients() as u64 + 50) {
        return Err(RunError::Plan("too many clients for the limit of open files; raise it with `ulimit -n`"));
    }
    let start = |error: std::io::Error| RunError::Start(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(1) } else { ProgressBar::hidden() };
    // The template is a constant that parses.
    bar.set_style(ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len}").expect("a valid template"));
    let show = |Progress { what, done, all }| {
        bar.set_message(what);
        bar.set_length(all);
        bar.set_position(done);
    };
    let interrupt = async {
        // Without a handler the signal ends the process, which is no worse.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = runtime.block_on(campaign.run(show, interrupt))?;
    bar.finish_and_clear();
    Ok(report)
}

fn publish(report: &Report, output: &Output) -> Result<(), RunError> {
    let write = |file: &Path, text: &str| {
        std::fs::write(file, text).map_err(|error| RunError::Start(format!("{}: {error}", file.display())))
    };
    // A report holds only numbers, strings and lists, which JSON can say.
    let json = serde_json::to_string_pretty(report).map_err(|error| RunError::Start(error.to_string()))?;
    match &output.json {
        Some(file) if file.as_os_str() == "-" => println!("{json}"),
        file => {
            println!("{}", report.to_table());
            if let Some(file) = file {
                write(file, &(json + "\n"))?;
            }
        }
    }
    match &output.html {
        Some(file) => write(file, &report.to_html()),
        None => Ok(()),
    }
}
