//! What a test found: a table for people, JSON for programs.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use media_core::media::Codec;
use serde::Serialize;

use crate::client::{PublisherOptions, Verify, ViewerFigures};
use crate::fleet::{Fleet, Group, Join};
use crate::garbage::GarbageFigures;
use crate::leak::Leaks;
use crate::monitor::{GeneratorFigures, Percentiles, Phase, Sample, ServerFigures};
use crate::narrow::NarrowFigures;
use crate::run::{Campaign, Scenario};
use crate::tally::TrackFigures;

/// What a storm did.
#[derive(Clone, Debug, Serialize)]
pub struct StormFigures {
    /// Viewers that were to join.
    pub joins_wanted: usize,
    /// Those that did.
    pub joined: usize,
    /// From the first POST to the last handshake.
    pub seconds: f64,
    /// Joins by that time.
    pub joins_per_second: f64,
    /// The 99th percentile of the standing viewers' latency in the storm, by that before.
    pub p99_ratio: Option<f64>,
    /// The same by that after, when those who joined and stayed are there too.
    pub p99_ratio_after: Option<f64>,
    /// Packets that standing viewers lost, from before the storm to the end.
    pub standing_lost: u64,
}

/// How many viewers a server can serve.
#[derive(Clone, Debug, Serialize)]
pub struct KneeFigures {
    /// Greatest share of losses of a good step.
    pub max_loss: f64,
    /// Highest 99th percentile of the latency of a good step, in ms.
    pub max_p99_ms: f64,
    /// The last good step.
    pub last_good: Option<Phase>,
    /// The step that was too much; `None` if there were no more viewers to be had.
    pub first_bad: Option<Phase>,
    /// Why it was.
    pub reason: Option<String>,
    /// Of the last good step: packets that viewers received, by the server's CPU time. What one core forwards in a second
    /// if it has nothing else to do.
    pub packets_per_cpu_second: Option<f64>,
    /// The most packets a second that viewers received in any step, good or bad.
    pub highest_packets_per_second: f64,
}

impl KneeFigures {
    pub(crate) fn new(max_loss: f64, max_p99_ms: f64) -> KneeFigures {
        KneeFigures {
            max_loss,
            max_p99_ms,
            last_good: None,
            first_bad: None,
            reason: None,
            packets_per_cpu_second: None,
            highest_packets_per_second: 0.0,
        }
    }

    /// Any step.
    pub(crate) fn note(&mut self, phase: &Phase) {
        self.highest_packets_per_second = self.highest_packets_per_second.max(phase.packets_per_second);
    }

    /// A good step.
    pub(crate) fn keep(&mut self, phase: &Phase) {
        let cpu = phase.server.map(|server| server.cpu_seconds).filter(|cpu| *cpu > 0.0);
        self.packets_per_cpu_second = cpu.map(|cpu| phase.packets as f64 / cpu);
        self.last_good = Some(phase.clone());
    }
}

/// What only one kind of test finds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The garbage that was sent, if any was.
    Run(Option<GarbageFigures>),
    /// See [`Scenario::Storm`].
    Storm(StormFigures),
    /// See [`Scenario::Narrow`]; `None` if there could be no narrow paths.
    Narrow(Option<NarrowFigures>),
    /// See [`Scenario::Knee`].
    Knee(Box<KneeFigures>),
    /// See [`Scenario::Soak`].
    Soak(Leaks),
}

/// What was asked for. Tokens are not part of it.
#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    /// Version of the load test.
    pub version: &'static str,
    /// WHIP endpoint.
    pub whip: Option<String>,
    /// WHEP endpoint.
    pub whep: Option<String>,
    /// Publishers.
    pub publishers: usize,
    /// Viewers, of a knee those of its first step.
    pub viewers: usize,
    /// Seconds of running media, of a knee those of each step.
    pub seconds: f64,
    /// Joins a second.
    pub rate: Option<f64>,
    /// What the publishers send, dealt out in turn.
    pub streams: Vec<String>,
    /// SRTP profiles that clients offer.
    pub srtp: Vec<&'static str>,
    /// Which packets are verified.
    pub verify: String,
    /// Viewers receive with UDP_GRO.
    pub receive_runs: bool,
    /// Threads of the viewers.
    pub threads: usize,
    /// The scenario's own settings.
    pub scenario: Scenario,
}

impl Configuration {
    fn of(campaign: &Campaign) -> Configuration {
        let plan = &campaign.plan;
        let mix = if campaign.mix.is_empty() { std::slice::from_ref(&plan.media) } else { &campaign.mix[..] };
        Configuration {
            version: env!("CARGO_PKG_VERSION"),
            whip: plan.whip.clone(),
            whep: plan.whep.clone(),
            publishers: plan.publishers,
            viewers: plan.viewers,
            seconds: plan.duration.as_secs_f64(),
            rate: plan.rate,
            streams: mix.iter().map(describe).collect(),
            srtp: plan.client.srtp_profiles.iter().map(|profile| profile.as_str()).collect(),
            verify: match plan.client.verify {
                Verify::All => "every packet".into(),
                Verify::Sample(one_in) => format!("one packet in {one_in}"),
            },
            receive_runs: plan.client.receive_runs,
            threads: plan.threads,
            scenario: campaign.scenario.clone(),
        }
    }
}

fn describe(media: &PublisherOptions) -> String {
    let video = media.video.map(|codec| {
        let PublisherOptions { bitrate, fps, packet_size, keyframe_factor, .. } = media;
        let gop = media.gop.as_secs_f64();
        format!(
            "{codec} {bitrate} kbit/s, {fps} frames/s, payloads up to {packet_size} bytes, a keyframe of \
             {keyframe_factor} frames every {gop} s"
        )
    });
    let audio = media.audio.then(|| format!("{} 50 packets/s", Codec::Opus));
    video.into_iter().chain(audio).collect::<Vec<_>>().join("; ")
}

/// The outcome of a test. Latency, server and generator are those of its main phase: of a storm the storm, of a knee the
/// last good step, of a soak the churn.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kind of test.
    pub scenario: &'static str,
    /// The test's own condition holds; see the exit status in the manual.
    pub passed: bool,
    /// All clients connected, and every viewer received everything whole, once and without a gap.
    pub integrity: bool,
    /// Why the figures say more about the load test, or the machine, than about the server; empty if all kept up.
    pub bottlenecks: Vec<String>,
    /// Publishers wanted.
    pub publishers: usize,
    /// Publishers that connected.
    pub publishers_connected: usize,
    /// Viewers wanted.
    pub viewers: usize,
    /// Viewers that connected.
    pub viewers_connected: usize,
    /// Viewers that received nothing wrong.
    pub viewers_intact: usize,
    /// Seconds of the main phase.
    pub seconds: f64,
    /// RTP packets that publishers sent.
    pub packets_sent: u64,
    /// Packets that publishers sent again.
    pub packets_resent: u64,
    /// Keyframe requests that publishers received.
    pub keyframe_requests: u64,
    /// Audio of all viewers.
    pub audio: TrackFigures,
    /// Video of all viewers.
    pub video: TrackFigures,
    /// Packets of unknown payload types or SSRCs.
    pub unexpected: u64,
    /// Packets that did not authenticate or were replayed.
    pub refused: u64,
    /// Received payload, all viewers, in Mbit/s of the main phase.
    pub received_mbit_per_second: f64,
    /// POST to the end of the handshake, in ms; of a storm, of those that joined in it.
    pub connect_ms: Option<Percentiles>,
    /// POST to the first RTP packet, in ms.
    pub first_rtp_ms: Option<Percentiles>,
    /// POST to the first keyframe, in ms.
    pub first_keyframe_ms: Option<Percentiles>,
    /// Publisher's send to viewer's receive, in ms.
    pub latency_ms: Option<Percentiles>,
    /// The server process.
    pub server: Option<ServerFigures>,
    /// The load test.
    pub generator: Option<GeneratorFigures>,
    /// Errors of clients, and how often each came.
    pub errors: BTreeMap<String, usize>,
    /// What only this kind of test finds.
    pub outcome: Outcome,
    /// All phases in order.
    pub phases: Vec<Phase>,
    /// What was asked for.
    pub configuration: Configuration,
    /// Every join.
    pub joins: Vec<Join>,
    /// Figures over time.
    pub series: Vec<Sample>,
}

impl Report {
    /// Sums up what the clients saw.
    pub(crate) fn new(
        campaign: &Campaign,
        fleet: &Fleet<'_>,
        phases: Vec<Phase>,
        series: Vec<Sample>,
        outcome: Outcome,
    ) -> Report {
        let plan = &campaign.plan;
        let mut errors = BTreeMap::new();
        for error in &fleet.errors {
            *errors.entry(error.to_string()).or_insert(0) += 1;
        }
        let viewers = &fleet.viewer_figures;
        let (mut audio, mut video) = (TrackFigures::default(), TrackFigures::default());
        for viewer in viewers {
            audio.add(&viewer.audio);
            video.add(&viewer.video);
        }
        let told = if campaign.scenario.storms() { Group::Joining } else { Group::Standing };
        let joins: Vec<Join> = fleet.joins.iter().filter(|(group, _)| *group == told).map(|(_, join)| *join).collect();
        let times = |value: fn(&Join) -> Option<f64>| Percentiles::of(joins.iter().filter_map(value).collect());
        // Who came while the publisher was away, and left before it was back, missed nothing.
        let missed_nothing = |viewer: &ViewerFigures| fleet.tolerates_ends && viewer.total().delivered == 0;
        let intact = viewers.iter().filter(|viewer| viewer.is_intact() || missed_nothing(viewer)).count();
        let wanted = match &outcome {
            Outcome::Storm(figures) => plan.viewers + figures.joins_wanted,
            Outcome::Run(_) | Outcome::Narrow(_) => plan.viewers,
            Outcome::Knee(_) | Outcome::Soak(_) => fleet.viewers_connected,
        };
        let connected = fleet.viewers_connected;
        let complete = errors.is_empty() && connected == wanted;
        let integrity = complete && intact == wanted && fleet.publishers_connected >= plan.publishers;
        let passed = match &outcome {
            Outcome::Run(_) | Outcome::Narrow(_) => integrity,
            Outcome::Storm(figures) => complete && figures.standing_lost == 0,
            Outcome::Knee(figures) => figures.last_good.is_some(),
            Outcome::Soak(leaks) => errors.is_empty() && leaks.found().is_empty() && audio.corrupt + video.corrupt == 0,
        };
        let main = match &outcome {
            Outcome::Run(_) => phases.last(),
            Outcome::Storm(_) | Outcome::Narrow(_) => phases.get(1),
            Outcome::Knee(figures) => figures.last_good.as_ref(),
            Outcome::Soak(_) => phases.last(),
        };
        let judged: Vec<&Phase> = match &outcome {
            Outcome::Knee(figures) => figures.first_bad.iter().collect(),
            _ => phases.iter().collect(),
        };
        let named = |phase: &Phase, reason: &String| format!("{}: {reason}", phase.name);
        let bottlenecks = judged
            .into_iter()
            .flat_map(|phase| phase.generator.bottlenecks.iter().map(move |reason| named(phase, reason)))
            .collect();
        let sent = &fleet.publisher_figures;
        Report {
            scenario: (&campaign.scenario).into(),
            passed,
            integrity,
            bottlenecks,
            publishers: plan.publishers,
            publishers_connected: fleet.publishers_connected.min(plan.publishers),
            viewers: wanted,
            viewers_connected: connected,
            viewers_intact: intact,
            seconds: main.map_or(0.0, |phase| phase.seconds),
            packets_sent: sent.iter().map(|publisher| publisher.packets).sum(),
            packets_resent: sent.iter().map(|publisher| publisher.resent).sum(),
            keyframe_requests: sent.iter().map(|publisher| publisher.keyframe_requests).sum(),
            audio,
            video,
            unexpected: viewers.iter().map(|viewer| viewer.unexpected).sum(),
            refused: viewers.iter().map(|viewer| viewer.refused).sum(),
            received_mbit_per_second: main.map_or(0.0, |phase| phase.bytes as f64 * 8e-6 / phase.seconds.max(0.001)),
            connect_ms: times(|join| join.connected_ms),
            first_rtp_ms: times(|join| join.first_rtp_ms),
            first_keyframe_ms: times(|join| join.first_keyframe_ms),
            latency_ms: main.and_then(|phase| phase.latency_ms),
            server: main.and_then(|phase| phase.server),
            generator: main.map(|phase| phase.generator.clone()),
            errors,
            outcome,
            phases,
            configuration: Configuration::of(campaign),
            joins,
            series,
        }
    }

    /// The rows of the table of times: name, count, and the values below [`TIMES_HEADER`].
    pub(crate) fn times(&self) -> Vec<(&'static str, u64, [String; 6])> {
        let latency = match self.outcome {
            Outcome::Storm(_) => "one-way latency in the storm",
            Outcome::Narrow(_) => "one-way latency beside narrow paths",
            Outcome::Knee(_) => "one-way latency, last good step",
            _ => "one-way latency",
        };
        let rows = [
            ("join: POST to connected", self.connect_ms),
            ("join: POST to first RTP", self.first_rtp_ms),
            ("join: POST to first keyframe", self.first_keyframe_ms),
            (latency, self.latency_ms),
        ];
        let row = |(name, percentiles): (_, Option<Percentiles>)| {
            let p = percentiles?;
            Some((name, p.count, [p.min, p.p50, p.p95, p.p99, p.p999, p.max].map(|value| format!("{value:.2}"))))
        };
        rows.into_iter().filter_map(row).collect()
    }

    /// The rows of the table of packets: audio, video, all.
    pub(crate) fn packets(&self) -> Vec<(&'static str, [u64; 3])> {
        let mut all = self.audio;
        all.add(&self.video);
        let rows: [(&str, Figure); 9] = [
            ("delivered", |figures| figures.delivered),
            ("of them verified", |figures| figures.verified),
            ("lost", |figures| figures.lost),
            ("missing from publisher", |figures| figures.missing),
            ("duplicated", |figures| figures.duplicated),
            ("reordered", |figures| figures.reordered),
            ("recovered by NACK", |figures| figures.recovered),
            ("corrupt", |figures| figures.corrupt),
            ("verified keyframes", |figures| figures.keyframes),
        ];
        rows.into_iter().map(|(name, value)| (name, [&self.audio, &self.video, &all].map(value))).collect()
    }

    /// One line for each thing that was found, the verdict last.
    pub(crate) fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.unexpected + self.refused > 0 {
            lines.push(format!("unexpected packets {}   refused by SRTP {}", self.unexpected, self.refused));
        }
        if let Some(server) = &self.server {
            lines.push(format!(
                "server: {:.1} s of CPU, {:.1} user + {:.1} system ({:.0} % of one core), {} per forwarded packet, \
                 {:.1} MB resident, {} threads, context switches {} voluntary, {} involuntary",
                server.cpu_seconds,
                server.user_seconds,
                server.system_seconds,
                server.cores * 100.0,
                server.cpu_us_per_packet.map_or("-".into(), |cost| format!("{cost:.1} us")),
                server.resident_bytes as f64 / 1e6,
                server.threads,
                server.voluntary_switches,
                server.involuntary_switches,
            ));
        }
        if let Some(generator) = &self.generator {
            lines.push(format!(
                "load test: {:.1} s of CPU ({:.0} % of one core), {} per received packet; busiest thread {} {:.0} %",
                generator.cpu_seconds,
                generator.cores * 100.0,
                generator.cpu_us_per_packet.map_or("-".into(), |cost| format!("{cost:.1} us")),
                generator.busiest_thread,
                generator.busiest_share * 100.0,
            ));
        }
        lines.extend(self.outcome_lines());
        lines.extend(self.errors.iter().map(|(error, count)| format!("error, {count} times: {error}")));
        if self.latency_ms.is_some() {
            lines.push(
                "latency: to the arrival in the viewer's socket, by the system's clock, not until it was read; of packets sent \
                 after the viewer's start: as long after its first packet came as that was old"
                    .into(),
            );
        }
        lines.push(match self.configuration.verify.as_str() {
            "every packet" => {
                "checked: every packet's sequence number, SRTP tag, payload and publisher's counter".into()
            }
            some => {
                format!("checked: every packet's sequence number; SRTP tag, payload and publisher's counter of {some}")
            }
        });
        if self.bottlenecks.is_empty() {
            lines.push("no bottleneck was found beside the server".into());
        }
        lines.extend(self.bottlenecks.iter().map(|reason| format!("BOTTLENECK beside the server: {reason}")));
        lines.push(if self.integrity { "integrity: held".into() } else { "integrity: BROKEN".into() });
        if !matches!(self.outcome, Outcome::Run(_)) {
            lines.push(format!("{}: {}", self.scenario, if self.passed { "passed" } else { "FAILED" }));
        }
        lines
    }

    fn outcome_lines(&self) -> Vec<String> {
        let option = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        match &self.outcome {
            Outcome::Run(garbage) => garbage
                .iter()
                .map(|garbage| {
                    format!(
                        "garbage: {} datagrams, {:.0} a second, and {} more that the load test's own sockets refused",
                        garbage.sent, garbage.per_second, garbage.refused
                    )
                })
                .collect(),
            Outcome::Storm(storm) => vec![format!(
                "storm: {} of {} joined in {:.2} s ({:.0} a second); the standing viewers' p99 was {} times that before \
                 and {} times that after, they lost {} packets",
                storm.joined,
                storm.joins_wanted,
                storm.seconds,
                storm.joins_per_second,
                option(storm.p99_ratio, 2),
                option(storm.p99_ratio_after, 2),
                storm.standing_lost,
            )],
            Outcome::Narrow(figures) => figures
                .iter()
                .map(|narrow| {
                    format!(
                        "narrow: {} viewers with {:.0} kbit/s each, who received {} packets and lost {}; the others' p99 was \
                         {} times that before and {} times that after, their p50 {} and {} times, they lost {} packets",
                        narrow.viewers,
                        narrow.kbit_per_second,
                        narrow.narrow.delivered,
                        narrow.narrow.lost,
                        option(narrow.p99_ratio, 2),
                        option(narrow.p99_ratio_after, 2),
                        option(narrow.p50_ratio, 2),
                        option(narrow.p50_ratio_after, 2),
                        narrow.standing_lost,
                    )
                })
                .collect(),
            Outcome::Knee(knee) => {
                let good = knee.last_good.as_ref().map_or("knee: no step was good".to_owned(), |phase| {
                    let server = phase.server.zip(knee.packets_per_cpu_second);
                    let server = server.map_or(String::new(), |(server, pace)| {
                        format!("; server {:.2} cores, {pace:.0} packets for each second of CPU", server.cores)
                    });
                    let (viewers, pace) = (phase.viewers, phase.packets_per_second);
                    let highest = knee.highest_packets_per_second;
                    format!("knee: {viewers} viewers, {pace:.0} packets/s, at most {highest:.0} in any step{server}")
                });
                let end = match (&knee.first_bad, &knee.reason) {
                    (Some(phase), Some(reason)) => format!("at {} viewers {reason}", phase.viewers),
                    _ => "no step was too much: the server can take more".into(),
                };
                vec![good, end]
            }
            Outcome::Soak(leaks) => {
                let row = |what: &str, before: Option<u64>, after: Option<u64>| {
                    let text = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
                    format!("{what} {} -> {}", text(before), text(after))
                };
                let (from, to) = (leaks.before, leaks.after);
                let kilo = |bytes: Option<u64>| bytes.map(|bytes| bytes / 1000);
                let mut lines = vec![
                    format!(
                        "soak: {} joins, {} restarts of publishers; while they restarted, the server ended {} sessions and \
                         refused {} joins",
                        leaks.joins, leaks.restarts, leaks.ended_by_server, leaks.refused_in_restarts
                    ),
                    [
                        row("left behind: resident kB", kilo(from.resident_bytes), kilo(to.resident_bytes)),
                        format!("({} bytes a join)", option(leaks.bytes_per_join(), 0)),
                        row("  descriptors", from.descriptors, to.descriptors),
                        row("  threads", from.threads, to.threads),
                        row("  sessions", from.sessions, to.sessions),
                    ]
                    .join(" "),
                ];
                lines.extend(leaks.found().into_iter().map(|leak| format!("LEAK: {leak}")));
                lines
            }
        }
    }

    /// The report as text of several lines.
    pub fn to_table(&self) -> String {
        let mut packets = table(&["packets", "audio", "video", "all"]);
        for (name, values) in self.packets() {
            packets.add_row(std::iter::once(Cell::new(name)).chain(values.map(|value| number(value.to_string()))));
        }
        let mut times = table(&[&["ms"], &TIMES_HEADER[..]].concat());
        for (name, _, values) in self.times() {
            times.add_row(std::iter::once(Cell::new(name)).chain(values.map(number)));
        }
        let mut text = format!(
            "publishers {}/{}   viewers {}/{}, intact {}   {:.1} s   {:.1} Mbit/s received\n\n{packets}\n\n{times}\n\n",
            self.publishers_connected,
            self.publishers,
            self.viewers_connected,
            self.viewers,
            self.viewers_intact,
            self.seconds,
            self.received_mbit_per_second,
        );
        if self.phases.len() > 1 {
            let mut phases = table(&PHASE_HEADER);
            for phase in &self.phases {
                let mut cells = phase_row(phase).into_iter();
                let name = Cell::new(cells.next().unwrap_or_default());
                phases.add_row(std::iter::once(name).chain(cells.map(number)));
            }
            text += &format!("{phases}\n\n");
        }
        text + &self.findings().join("\n")
    }
}

/// The percentiles in the table of times.
pub(crate) const TIMES_HEADER: [&str; 6] = ["min", "p50", "p95", "p99", "p99.9", "max"];

/// The columns of the table of phases.
pub(crate) const PHASE_HEADER: [&str; 11] = [
    "phase",
    "s",
    "viewers",
    "packets/s",
    "lost",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "server cores",
    "us/packet",
    "own cores",
];

/// The values of a phase, in the order of [`PHASE_HEADER`].
pub(crate) fn phase_row(phase: &Phase) -> Vec<String> {
    let option = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    vec![
        phase.name.clone(),
        format!("{:.1}", phase.seconds),
        phase.viewers.to_string(),
        format!("{:.0}", phase.packets_per_second),
        phase.lost.to_string(),
        option(phase.latency_ms.map(|latency| latency.p50)),
        option(phase.latency_ms.map(|latency| latency.p99)),
        option(phase.latency_ms.map(|latency| latency.p999)),
        option(phase.server.map(|server| server.cores)),
        option(phase.server.and_then(|server| server.cpu_us_per_packet)),
        format!("{:.2}", phase.generator.cores),
    ]
}

/// One figure of a track.
type Figure = fn(&TrackFigures) -> u64;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
