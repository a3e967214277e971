//! What can be said on the command line, and what it means.

mod attack;
mod conformance;
mod layers;
mod soak;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use loadtest::Scalability;
use loadtest::client::{ClientOptions, ClockFaults, PublisherOptions, Verify};
use loadtest::floor::{FloorArgs, Srtp};
use loadtest::relay::RelayArgs;
use loadtest::run::{Campaign, Plan, RunError, Scenario};
use loadtest::seconds::seconds;
use media_core::internals::srtp::SrtpProfile;
use media_core::media::Codec;

use attack::AttackArgs;
use conformance::ConformanceArgs;
use layers::LayersArgs;
use soak::SoakArgs;

const STATUS: &str = "\
Exit status:
  0  the test passed: of `run` every payload arrived once and whole at every viewer, of `storm` all viewers joined and the
     standing ones lost nothing, of `narrow` the others received everything, of `layers` each viewer was at the
     right layer for long enough, of `knee` a step was good, of `soak` nothing failed and nothing was left behind, of `attack`
     every bound held
  1  it did not pass
  2  it could not start, or a report could not be written
  3  it did not pass, but the load test or its machine was a bottleneck: it says nothing about the server

Examples:
  sluice-loadtest run --whip http://HOST:8080/whip/s{i} --whep http://HOST:8080/whep/s{i} --publishers 2 --viewers 100
  sluice-loadtest storm --whip URL --whep URL --viewers 10 --joins 500 --server-pid PID --html storm.html
  sluice-loadtest narrow --whip URL --whep URL --viewers 100 --narrow 1 --loss 5
  sluice-loadtest layers --whip URL --whep URL --simulcast 3 --bitrate 2500 --links 3000:34,600:33,250:33
  sluice-loadtest knee --whip URL --whep URL --viewers 100 --step 100 --video h264 --bitrate 2500 --server-pid PID
  sluice-loadtest soak --whip URL --whep URL --seconds 600 --server-pid PID --sessions-url URL
  sluice-loadtest attack --whip http://127.0.0.1:8080/whip/s{i} --whep http://127.0.0.1:8080/whep/s{i} --datagrams 100000
";

const CONFORMANCE: &str = "\
Exit status:
  0  no row of level MUST failed
  1  one did
  2  it could not start, or a report could not be written

Examples:
  sluice-loadtest conformance --whip http://HOST/whip/conformance{i} --whep http://HOST/whep/conformance{i}
  sluice-loadtest conformance --whip https://HOST/whip/s --token TOKEN --level MUST --junit conformance.xml
  sluice-loadtest conformance --whep URL --only WHEP,CORS --skip WHEP-07
";

/// Publishers and viewers for any WHIP and WHEP server, with real ICE, DTLS and SRTP.
#[derive(Parser)]
#[command(name = "sluice-loadtest", version, after_help = STATUS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Steady: all join, all stay, all leave. Reports losses, latency, join times and what a packet costs.
    #[command(after_help = STATUS)]
    Run(RunArgs),
    /// Many viewers join at once, and a few that stood before tell what it did to them.
    #[command(after_help = STATUS)]
    Storm(StormArgs),
    /// A few viewers on paths that do not carry the stream, and what they do to the others.
    #[command(after_help = STATUS)]
    Narrow(NarrowArgs),
    /// Viewers on links of different rates watch a stream with layers. Tells which layer each saw for how long, and how long it
    /// took to the right one.
    #[command(after_help = STATUS)]
    Layers(LayersArgs),
    /// More and more viewers until the server no longer keeps up. Tells the last step at which it did.
    #[command(after_help = STATUS)]
    Knee(KneeArgs),
    /// Viewers and publishers come and go. Tells what is left of them when all have gone.
    // `make soak` has settings of its own, and whoever runs it others.
    #[command(after_help = STATUS, args_override_self = true)]
    Soak(SoakArgs),
    /// Hostile inputs beside honest viewers, one kind after the other: from strangers, from authenticated peers, and by HTTP.
    /// Tells what each cost whom. Only for servers of your own.
    #[command(after_help = STATUS)]
    Attack(AttackArgs),
    /// Checks row by row what the standards of WHIP, WHEP, ICE, DTLS, SRTP and RTCP demand of any server. One line a row: id,
    /// level, result, and what was sent and came back.
    #[command(after_help = CONFORMANCE)]
    Conformance(ConformanceArgs),
    /// Sends the same packets to as many viewers, and does nothing else: sockets of its own, no server. Prints as JSON
    /// what a packet costs; no server on this machine can come below it at that pace.
    Floor(FloorArgs),
    /// Stands between clients and a server, and impairs what passes: loss, bursts of loss, delay, jitter, reordering,
    /// duplicates, a bottleneck with a queue, ports that change.
    Relay(RelayArgs),
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Video {
    Vp8,
    Vp9,
    H264,
    None,
}

/// What a publisher returns with.
#[derive(Clone, Copy, ValueEnum)]
enum ReturnedVideo {
    Vp8,
    H264,
}

impl ReturnedVideo {
    fn codec(self) -> Codec {
        match self {
            ReturnedVideo::Vp8 => Codec::Vp8,
            ReturnedVideo::H264 => Codec::H264,
        }
    }
}

impl Video {
    fn codec(self) -> Option<Codec> {
        match self {
            Video::Vp8 => Some(Codec::Vp8),
            Video::Vp9 => Some(Codec::Vp9),
            Video::H264 => Some(Codec::H264),
            Video::None => None,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Verification {
    /// SRTP tag, payload and publisher's counter of every packet
    All,
    /// Those of one packet in so many (--sample); sequence numbers of all
    Sample,
}

#[derive(Args)]
#[command(next_help_heading = "Target")]
struct Target {
    /// WHIP endpoint of a stream; {i} stands for the publisher's number, from 0
    #[arg(long, value_name = "URL")]
    whip: Option<String>,
    /// WHEP endpoint of a stream; {i} stands for the stream's number; viewers are dealt out in turn
    #[arg(long, value_name = "URL")]
    whep: Option<String>,
    /// Number of publishers
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Bearer token
    #[arg(long, env = "SLUICE_LOADTEST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Process id of the server, to report its CPU time, memory and context switches
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Args)]
#[command(next_help_heading = "Media")]
struct Media {
    /// Video codec to publish; several are dealt out to the publishers in turn
    #[arg(long, value_enum, default_value = "vp8", value_delimiter = ',')]
    video: Vec<Video>,
    /// Publish so many encodings of the video beside each other, under rids: the last with --bitrate, and each other one with half
    /// the width and height of the next
    #[arg(long, default_value_t = 0, value_name = "ENCODINGS", value_parser = clap::value_parser!(u8).range(0..=4))]
    simulcast: u8,
    /// Publish each encoding in spatial (VP9) and temporal (VP8, VP9) layers: L1T2, L1T3, L2T1, L3T3, L3T3_KEY and the like
    #[arg(long, value_name = "MODE")]
    svc: Option<Scalability>,
    /// Publish Opus, 50 packets a second
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    audio: bool,
    /// Video payload in kbit/s; several are dealt out to the publishers in turn
    #[arg(long, default_value = "1000", value_delimiter = ',', value_name = "KBIT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    bitrate: Vec<u32>,
    /// Longest RTP payload in bytes; several are dealt out to the publishers in turn
    #[arg(long, default_value = "1100", value_delimiter = ',', value_name = "BYTES", value_parser = clap::value_parser!(u16).range(128..=1200))]
    packet_size: Vec<u16>,
    /// Video frames a second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// Seconds from one keyframe to the next
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    gop: Duration,
    /// A keyframe is so many times as big as the other frames; the bit rate stays
    #[arg(long, default_value_t = 5.0, value_name = "TIMES")]
    keyframe_factor: f64,
    /// H264 encoders with intra refresh: one keyframe, and on request; in place of the others of --gop parameter sets and a
    /// recovery point in front of an ordinary frame
    #[arg(long)]
    intra_refresh: bool,
    #[command(flatten)]
    faults: Faults,
}

/// What is wrong with the publishers' clocks and uplinks.
#[derive(Args)]
struct Faults {
    /// Publishers' RTP time runs so much faster than real time, in %; negative: slower
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", allow_negative_numbers = true)]
    clock_drift: f64,
    /// Publishers' RTP time steps by so many seconds every --fault-every seconds, under the same SSRC and with sequence
    /// numbers that go on
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS", allow_negative_numbers = true)]
    clock_step: f64,
    /// Publishers' uplinks carry nothing for so long every --fault-every seconds; then what waited leaves at once
    #[arg(long, default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    stall: Duration,
    /// Seconds from one step or stall to the next
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    fault_every: Duration,
}

impl Faults {
    fn clock(&self) -> Result<ClockFaults, RunError> {
        if !(-90.0..=900.0).contains(&self.clock_drift) || !(-86_400.0..=86_400.0).contains(&self.clock_step) {
            return Err(RunError::Plan("--clock-drift is from -90 to 900 %, --clock-step at most a day"));
        }
        if self.fault_every <= self.stall {
            return Err(RunError::Plan("--fault-every is longer than --stall"));
        }
        let (drift, step) = (self.clock_drift / 100.0, self.clock_step);
        Ok(ClockFaults { drift, step, stall: self.stall, every: self.fault_every })
    }
}

#[derive(Args)]
#[command(next_help_heading = "Clients")]
struct Clients {
    /// The only SRTP profile that the clients offer; all of them if not given
    #[arg(long, value_enum)]
    srtp: Option<Srtp>,
    /// Which packets viewers authenticate, decrypt and compare with what was sent
    #[arg(long, value_enum, default_value = "sample")]
    verify: Verification,
    /// With --verify sample: one packet in so many
    #[arg(long, default_value_t = 16, value_name = "PACKETS", value_parser = clap::value_parser!(u16).range(1..))]
    sample: u16,
    /// Receive with UDP_GRO; on the server's own machine this spares the server the cutting of its UDP_SEGMENT runs
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    gro: bool,
    /// All clients send and receive by TCP, to the passive candidates of the answers (RFC 6544)
    #[arg(long)]
    ice_tcp: bool,
    /// Viewers give transport-wide feedback, as browsers do: the server paces what it sends them
    #[arg(long, default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    transport_cc: bool,
    /// Threads of the viewers; publishers have one of their own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

/// Where the report goes.
#[derive(Args, Clone)]
#[command(next_help_heading = "Report")]
pub(crate) struct Output {
    /// Write the report as JSON to this file, or to standard output, instead of the table, if it is "-"
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the report as a page with plots that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    media: Media,
    #[command(flatten)]
    clients: Clients,
    #[command(flatten)]
    output: Output,
}

type Planned = Result<(Campaign, Output), RunError>;

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Number of viewers
    #[arg(long, default_value_t = 1)]
    viewers: usize,
    /// Seconds of running media, counted from the last join
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Joins a second; all at once if not given
    #[arg(long)]
    rate: Option<f64>,
    /// Spread the joins over so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "rate")]
    ramp: Option<f64>,
    /// After the quiet seconds as many with this: datagrams a second, from strangers, to the server's media ports: noise,
    /// and what looks like STUN, DTLS and RTP
    #[arg(long, value_name = "DATAGRAMS", value_parser = clap::value_parser!(u32).range(1..))]
    garbage: Option<u32>,
    /// At last the publishers leave and return with this video codec, for as many seconds: viewers are to go on
    #[arg(long, value_enum, value_name = "CODEC")]
    return_with: Option<ReturnedVideo>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct StormArgs {
    /// Viewers that stand before the storm
    #[arg(long, default_value_t = 10)]
    viewers: usize,
    /// Viewers that join in it
    #[arg(long, default_value_t = 100)]
    joins: usize,
    /// Joins a second; as fast as possible if not given
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds to measure before the storm, and after it
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    calm: Duration,
    /// Those who join leave with their first packet, so that the server has no more to forward than before
    #[arg(long)]
    leave: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct NarrowArgs {
    /// Viewers on good paths
    #[arg(long, default_value_t = 50)]
    viewers: usize,
    /// Viewers on narrow paths, who give transport-wide feedback
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    narrow: usize,
    /// A narrow path carries this part of the stream's bit rate, in %
    #[arg(long, default_value_t = 50.0, value_name = "PERCENT")]
    share: f64,
    /// Of the datagrams towards narrow viewers this part is lost besides, in %
    #[arg(long, default_value_t = 2.0, value_name = "PERCENT")]
    loss: f64,
    /// Seconds to measure without, with and again without them
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Joins a second; all at once if not given
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct KneeArgs {
    /// Viewers of the first step
    #[arg(long, default_value_t = 50)]
    viewers: usize,
    /// More viewers at each step
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    step: usize,
    /// Viewers of the last step
    #[arg(long, default_value_t = 2000)]
    max_viewers: usize,
    /// Seconds to measure at each step
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Joins a second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// A step is too much if more than this share of the packets is lost, in %
    #[arg(long, default_value_t = 0.1, value_name = "PERCENT")]
    max_loss: f64,
    /// A step is too much if the 99th percentile of the one-way latency is above this, in ms
    #[arg(long, default_value_t = 50.0, value_name = "MS")]
    max_p99: f64,
    #[command(flatten)]
    common: Common,
}

impl RunArgs {
    pub(crate) fn campaign(self) -> Planned {
        let rate = match self.ramp {
            Some(ramp) if ramp > 0.0 => Some(self.viewers as f64 / ramp),
            _ => self.rate,
        };
        let scenario =
            Scenario::Run { garbage: self.garbage, returns_with: self.return_with.map(ReturnedVideo::codec) };
        if self.garbage.is_some() || self.return_with.is_some() {
            return self.common.watched(self.viewers, self.seconds, rate, scenario);
        }
        self.common.campaign(self.viewers, self.seconds, rate, scenario)
    }
}

impl StormArgs {
    pub(crate) fn campaign(self) -> Planned {
        let scenario = Scenario::Storm { joins: self.joins, calm: self.calm, leave: self.leave };
        self.common.watched(self.viewers, self.calm.saturating_mul(2), self.rate, scenario)
    }
}

impl NarrowArgs {
    pub(crate) fn campaign(self) -> Planned {
        let parts = 0.0..=100.0;
        if self.share == 0.0 || !parts.contains(&self.share) || !parts.contains(&self.loss) {
            return Err(RunError::Plan("--share and --loss are parts of 100, and --share is not 0"));
        }
        let scenario = Scenario::Narrow { narrow: self.narrow, share: self.share / 100.0, loss: self.loss };
        self.common.watched(self.viewers, self.seconds, self.rate, scenario)
    }
}

impl KneeArgs {
    pub(crate) fn campaign(self) -> Planned {
        let scenario = Scenario::Knee {
            step: self.step,
            max_viewers: self.max_viewers,
            max_loss: self.max_loss / 100.0,
            max_p99_ms: self.max_p99,
        };
        self.common.watched(self.viewers, self.seconds, Some(self.rate), scenario)
    }
}

impl Common {
    /// A test that makes no sense without viewers.
    fn watched(self, viewers: usize, duration: Duration, rate: Option<f64>, scenario: Scenario) -> Planned {
        if self.target.whep.is_none() || viewers == 0 {
            return Err(RunError::Plan("this test needs --whep and at least one viewer"));
        }
        self.campaign(viewers, duration, rate, scenario)
    }

    fn campaign(self, viewers: usize, duration: Duration, rate: Option<f64>, scenario: Scenario) -> Planned {
        let Common { target, media, clients, output } = self;
        let publishers = if target.whip.is_some() { target.publishers } else { 0 };
        let viewers = if target.whep.is_some() { viewers } else { 0 };
        if publishers + viewers == 0 {
            return Err(RunError::Plan("nothing to do: give --whip, --whep or both"));
        }
        let mix = media.mix(publishers)?;
        let plan = Plan {
            whip: target.whip,
            whep: target.whep,
            token: target.token,
            publishers,
            viewers,
            duration,
            rate,
            media: mix.first().cloned().unwrap_or_default(),
            client: ClientOptions {
                srtp_profiles: clients.srtp.map_or(SrtpProfile::ALL.to_vec(), |srtp| vec![srtp.profile()]),
                receive_runs: clients.gro,
                ice_tcp: clients.ice_tcp,
                verify: match clients.verify {
                    Verification::All => Verify::All,
                    Verification::Sample => Verify::Sample(clients.sample),
                },
                ..ClientOptions::default()
            },
            server_pid: target.server_pid,
            transport_cc: clients.transport_cc,
            threads: usize::from(clients.threads),
        };
        if plan.server_pid.is_some_and(|pid| loadtest::process::Usage::of(pid).is_none()) {
            return Err(RunError::Plan("--server-pid: there is no such process on this machine"));
        }
        Ok((Campaign { plan, mix, scenario }, output))
    }
}

impl Media {
    /// Codecs without a descriptor of layers in their payload have none.
    fn check_layers(&self, video: Option<Codec>) -> Result<(), RunError> {
        let Some(mode) = self.svc else { return Ok(()) };
        match video {
            Some(Codec::Vp9) => Ok(()),
            Some(Codec::Vp8) if mode.spatial == 1 => Ok(()),
            _ => Err(RunError::Plan("--svc is for vp9, and without spatial layers for vp8")),
        }
    }

    /// The kinds of streams; with several values of one option, the first publisher gets the first of each, and so on.
    fn mix(&self, publishers: usize) -> Result<Vec<PublisherOptions>, RunError> {
        if !(1.0..=100.0).contains(&self.keyframe_factor) {
            return Err(RunError::Plan("--keyframe-factor must be from 1 to 100"));
        }
        let faults = self.faults.clock()?;
        if self.intra_refresh && !self.video.contains(&Video::H264) {
            return Err(RunError::Plan("--intra-refresh is for --video h264"));
        }
        let longest = [self.video.len(), self.bitrate.len(), self.packet_size.len()];
        if publishers > 0 && longest.iter().any(|count| *count > publishers) {
            return Err(RunError::Plan("there are more kinds of media than publishers"));
        }
        // Beyond the least common multiple of the counts kinds repeat; so many are never more than the publishers.
        (0..publishers.max(1))
            .map(|index| {
                let video = self.video[index % self.video.len()].codec();
                self.check_layers(video)?;
                if video.is_none() && !self.audio {
                    return Err(RunError::Plan("there is neither audio nor video to publish"));
                }
                Ok(PublisherOptions {
                    video,
                    audio: self.audio,
                    simulcast: self.simulcast,
                    svc: self.svc,
                    bitrate: self.bitrate[index % self.bitrate.len()],
                    packet_size: self.packet_size[index % self.packet_size.len()].into(),
                    fps: self.fps,
                    gop: self.gop,
                    keyframe_factor: self.keyframe_factor,
                    intra_refresh: self.intra_refresh && video == Some(Codec::H264),
                    faults,
                    ..PublisherOptions::default()
                })
            })
            .take(longest.iter().product())
            .collect()
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
