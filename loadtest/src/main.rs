//! The command line of the load test.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use loadtest::client::{ClientOptions, PublisherOptions};
use loadtest::floor::{self, FloorArgs, Srtp};
use loadtest::run::{Plan, Progress, RunError};
use media_core::media::Codec;
use media_core::srtp::SrtpProfile;

/// Publishers and viewers for WHIP and WHEP servers, with real ICE, DTLS and SRTP.
#[derive(Parser)]
#[command(name = "sluice-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publishes synthetic streams, watches them, and reports. The exit status is 0 only if every payload arrived once
    /// and whole at every viewer, 1 if not, 2 if the run could not start.
    Run(RunArgs),
    /// Sends the same packets to as many viewers, and does nothing else: sockets of its own, no server. Prints as JSON
    /// what a packet costs; no server on this machine can come below it at that pace.
    Floor(FloorArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Video {
    Vp8,
    H264,
    None,
}

#[derive(Args)]
struct RunArgs {
    /// WHIP endpoint of a stream; {i} stands for the publisher's number, from 0
    #[arg(long, value_name = "URL")]
    whip: Option<String>,
    /// WHEP endpoint of a stream; {i} stands for the stream's number; viewers are dealt out in turn
    #[arg(long, value_name = "URL")]
    whep: Option<String>,
    /// Number of publishers
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Number of viewers
    #[arg(long, default_value_t = 1)]
    viewers: usize,
    /// Seconds of running media, counted from the last join
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Video codec to publish
    #[arg(long, value_enum, default_value = "vp8")]
    video: Video,
    /// Publish Opus, 50 packets a second
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    audio: bool,
    /// Video payload in kbit/s
    #[arg(long, default_value_t = 1000)]
    bitrate: u32,
    /// Video frames a second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// Longest RTP payload in bytes
    #[arg(long, default_value_t = 1100, value_parser = clap::value_parser!(u16).range(128..=1200))]
    packet_size: u16,
    /// Seconds from one keyframe to the next
    #[arg(long, default_value_t = 2.0)]
    gop: f64,
    /// The only SRTP profile that the clients offer; all of them if not given
    #[arg(long, value_enum)]
    srtp: Option<Srtp>,
    /// Bearer token
    #[arg(long, env = "SLUICE_LOADTEST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Joins a second; all at once if not given
    #[arg(long)]
    rate: Option<f64>,
    /// Write the report as JSON to this file, or to standard output if it is "-"
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Process id of the server, to report its CPU time for each forwarded packet
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Threads for the clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

impl RunArgs {
    fn plan(&self) -> Result<Plan, RunError> {
        let seconds = |value: f64, what| Duration::try_from_secs_f64(value).map_err(|_| RunError::Plan(what));
        let video = match self.video {
            Video::Vp8 => Some(Codec::Vp8),
            Video::H264 => Some(Codec::H264),
            Video::None => None,
        };
        if video.is_none() && !self.audio {
            return Err(RunError::Plan("there is neither audio nor video to publish"));
        }
        Ok(Plan {
            whip: self.whip.clone(),
            whep: self.whep.clone(),
            token: self.token.clone(),
            publishers: if self.whip.is_some() { self.publishers } else { 0 },
            viewers: if self.whep.is_some() { self.viewers } else { 0 },
            duration: seconds(self.seconds, "--seconds is no duration")?,
            rate: self.rate,
            media: PublisherOptions {
                video,
                audio: self.audio,
                bitrate: self.bitrate,
                fps: self.fps,
                packet_size: usize::from(self.packet_size),
                gop: seconds(self.gop, "--gop is no duration")?,
                ..PublisherOptions::default()
            },
            client: ClientOptions {
                srtp_profiles: self.srtp.map_or(SrtpProfile::ALL.to_vec(), |srtp| vec![srtp.profile()]),
                ..ClientOptions::default()
            },
            server_pid: self.server_pid,
            threads: usize::from(self.threads),
        })
    }
}

fn main() -> ExitCode {
    let args = match Cli::parse().command {
        Command::Run(args) => args,
        Command::Floor(args) => {
            return floor::command(&args).map_or_else(
                |error| {
                    eprintln!("sluice-loadtest: {error}");
                    ExitCode::from(2)
                },
                |()| ExitCode::SUCCESS,
            );
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()))
        .with_writer(std::io::stderr)
        .init();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sluice-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if integrity held.
fn run(args: &RunArgs) -> Result<bool, RunError> {
    let plan = args.plan()?;
    if plan.publishers + plan.viewers == 0 {
        return Err(RunError::Plan("nothing to do: give --whip, --whep or both"));
    }
    let files = loadtest::process::raise_file_limit();
    if files.is_some_and(|files| files < 2 * (plan.publishers + plan.viewers) as u64 + 50) {
        return Err(RunError::Plan("too many clients for the limit of open files; raise it with `ulimit -n`"));
    }
    let start = |error: std::io::Error| RunError::Start(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(1) } else { ProgressBar::hidden() };
    // The template is a constant that parses.
    bar.set_style(ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len}").expect("a valid template"));
    let show = |progress| {
        let (message, position, length) = match progress {
            Progress::Publishers(done, all) => ("publishers", done as u64, all as u64),
            Progress::Viewers(done, all) => ("viewers", done as u64, all as u64),
            Progress::Running(elapsed, all) => ("seconds", elapsed.as_secs(), all.as_secs()),
            Progress::Leaving => ("leaving", 1, 1),
        };
        bar.set_message(message);
        bar.set_length(length);
        bar.set_position(position);
    };
    let interrupt = async {
        // Without a handler the signal ends the process, which is no worse.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = runtime.block_on(loadtest::run::run(&plan, show, interrupt))?;
    bar.finish_and_clear();
    // A report holds only numbers, strings and lists, which JSON can say.
    let json = serde_json::to_string_pretty(&report).map_err(|error| RunError::Start(error.to_string()))?;
    match &args.json {
        Some(file) if file.as_os_str() == "-" => println!("{json}"),
        file => {
            println!("{}", report.to_table());
            if let Some(file) = file {
                std::fs::write(file, json + "\n").map_err(start)?;
            }
        }
    }
    Ok(report.integrity)
}
