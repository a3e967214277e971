//! The figures of a test, and what they say in words.

use std::collections::BTreeMap;

use serde::Serialize;

use super::configuration::Configuration;
use super::outcome::{Outcome, optional};
use crate::client::ViewerFigures;
use crate::fleet::figures::FleetFigures;
use crate::measure::figures::{GeneratorFigures, Phase, Sample, ServerFigures};
use crate::measure::join::Join;
use crate::measure::percentiles::Percentiles;
use crate::measure::roster::Group;
use crate::plan::{Campaign, Plan};
use crate::tally::TrackFigures;

/// The outcome of a test. Latency, server and generator are those of its main phase: of a storm the storm, of a knee the
/// last good step, of a soak the churn.
///
/// More fields than fifteen: it is the JSON of `--json`, flat for those who read it.
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
    /// Packets that did not authenticate, from SSRCs of no answer: of sessions that had a viewer's port before, and whose viewers
    /// vanished.
    pub strays: u64,
    /// How far RTP time was from the time of arrival at most at any viewer, after its fast start, in seconds: what steps and
    /// drift of the publisher's clock, and stalls, came to.
    pub longest_time_error: f64,
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
    /// Errors of clients, and how often each happened.
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
        fleet: FleetFigures,
        phases: Vec<Phase>,
        series: Vec<Sample>,
        outcome: Outcome,
    ) -> Report {
        let plan = &campaign.plan;
        let (mut audio, mut video) = (TrackFigures::default(), TrackFigures::default());
        for viewer in &fleet.viewers {
            audio.add(&viewer.audio);
            video.add(&viewer.video);
        }
        let errors = fleet.errors.iter().fold(BTreeMap::new(), |mut errors, error| {
            *errors.entry(error.to_string()).or_insert(0) += 1;
            errors
        });
        let verdict = Verdict::of(plan, &fleet, &outcome);
        let shown = if campaign.scenario.has_joins() { Group::Joining } else { Group::Standing };
        let joins: Vec<Join> = fleet.joins.iter().filter(|(group, _)| *group == shown).map(|(_, join)| *join).collect();
        let times = |value: fn(&Join) -> Option<f64>| Percentiles::of(joins.iter().filter_map(value).collect());
        let main = outcome.main_phase(&phases).cloned();
        let main = main.as_ref();
        Report {
            scenario: (&campaign.scenario).into(),
            passed: verdict.passed,
            integrity: verdict.integrity,
            bottlenecks: bottlenecks(&outcome, &phases),
            publishers: plan.publishers,
            publishers_connected: fleet.publishers_connected.min(plan.publishers),
            viewers: verdict.wanted,
            viewers_connected: fleet.viewers_connected,
            viewers_intact: verdict.intact,
            seconds: main.map_or(0.0, |phase| phase.seconds),
            packets_sent: fleet.publishers.iter().map(|publisher| publisher.packets).sum(),
            packets_resent: fleet.publishers.iter().map(|publisher| publisher.resent).sum(),
            keyframe_requests: fleet.publishers.iter().map(|publisher| publisher.keyframe_requests).sum(),
            audio,
            video,
            unexpected: fleet.viewers.iter().map(|viewer| viewer.unexpected).sum(),
            refused: fleet.viewers.iter().map(|viewer| viewer.refused).sum(),
            strays: fleet.viewers.iter().map(|viewer| viewer.strays).sum(),
            longest_time_error: fleet.viewers.iter().map(|viewer| viewer.longest_time_error).fold(0.0, f64::max),
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
    pub(super) fn times(&self) -> Vec<(&'static str, u64, [String; 6])> {
        let rows = [
            ("join: POST to connected", self.connect_ms),
            ("join: POST to first RTP", self.first_rtp_ms),
            ("join: POST to first keyframe", self.first_keyframe_ms),
            (self.outcome.latency_name(), self.latency_ms),
        ];
        let row = |(name, percentiles): (_, Option<Percentiles>)| {
            let p = percentiles?;
            Some((name, p.count, [p.min, p.p50, p.p95, p.p99, p.p999, p.max].map(|value| format!("{value:.2}"))))
        };
        rows.into_iter().filter_map(row).collect()
    }

    /// The rows of the table of packets: audio, video, all.
    pub(super) fn packets(&self) -> Vec<(&'static str, [u64; 3])> {
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
    pub(super) fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.unexpected + self.refused > 0 {
            lines.push(format!("unexpected packets {}   refused by SRTP {}", self.unexpected, self.refused));
        }
        if self.strays > 0 {
            lines.push(format!("packets to viewers that had the same port before: {}", self.strays));
        }
        if self.viewers > 0 {
            let error = self.longest_time_error;
            lines.push(format!("RTP time: off by at most {error:.3} s from the time of arrival, at any viewer"));
        }
        lines.extend(self.usage_lines());
        lines.extend(self.outcome.lines());
        lines.extend(self.errors.iter().map(|(error, count)| format!("error, {count} times: {error}")));
        if self.latency_ms.is_some() {
            lines.push(
                "latency: to the arrival in the viewer's socket, by the system's clock, not until it was read; of packets sent \
                 after the viewer's fast start: as long after its first packet came as that was old"
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

    /// What server and load test used.
    fn usage_lines(&self) -> Vec<String> {
        let cost = |cost: Option<f64>| cost.map_or("-".to_owned(), |cost| format!("{cost:.1} us"));
        let server = self.server.iter().map(|server| {
            format!(
                "server: {:.1} s of CPU, {:.1} user + {:.1} system ({:.0} % of one core), {} per forwarded packet, \
                 {:.1} MB resident, {} threads, context switches {} voluntary, {} involuntary",
                server.cpu_seconds,
                server.user_seconds,
                server.system_seconds,
                server.cores * 100.0,
                cost(server.cpu_us_per_packet),
                server.resident_bytes as f64 / 1e6,
                server.threads,
                server.voluntary_switches,
                server.involuntary_switches,
            )
        });
        let generator = self.generator.iter().map(|generator| {
            format!(
                "load test: {:.1} s of CPU ({:.0} % of one core), {} per received packet; busiest thread {} {:.0} %",
                generator.cpu_seconds,
                generator.cores * 100.0,
                cost(generator.cpu_us_per_packet),
                generator.busiest_thread,
                generator.busiest_share * 100.0,
            )
        });
        server.chain(generator).collect()
    }
}

/// Whether a test passed.
struct Verdict {
    /// Viewers that were to connect.
    wanted: usize,
    /// Viewers that received nothing wrong.
    intact: usize,
    integrity: bool,
    passed: bool,
}

impl Verdict {
    fn of(plan: &Plan, fleet: &FleetFigures, outcome: &Outcome) -> Verdict {
        // Who joined while the publisher was away, and left before it was back, missed nothing.
        let missed_nothing = |viewer: &ViewerFigures| fleet.tolerates_ends && viewer.total().delivered == 0;
        let intact = fleet.viewers.iter().filter(|viewer| viewer.is_intact() || missed_nothing(viewer)).count();
        let wanted = match outcome {
            Outcome::Storm(figures) => plan.viewers + figures.joins_wanted,
            Outcome::Run(_) | Outcome::Narrow(_) => plan.viewers,
            Outcome::Layers(figures) => {
                let linked: usize = figures.classes.iter().map(|class| class.link.viewers).sum();
                if figures.ratio.is_some() { 3 * linked } else { linked }
            }
            Outcome::Knee(_) | Outcome::Soak(_) | Outcome::Attack(_) => fleet.viewers_connected,
        };
        let complete = fleet.errors.is_empty() && fleet.viewers_connected == wanted;
        // Links that carry less than the stream lose some of it, and what they delay is repaired and comes twice.
        let is_whole = |viewer: &ViewerFigures| viewer.total().corrupt + viewer.unexpected == 0;
        let impaired = matches!(outcome, Outcome::Layers(_));
        let whole = if impaired { fleet.viewers.iter().all(is_whole) } else { intact == wanted };
        let integrity = complete && whole && fleet.publishers_connected >= plan.publishers;
        let corrupt = || fleet.narrow.corrupt > 0 || fleet.viewers.iter().any(|viewer| viewer.total().corrupt > 0);
        let passed = match outcome {
            Outcome::Run(_) | Outcome::Narrow(_) => integrity,
            Outcome::Storm(figures) => complete && figures.standing_lost == 0,
            Outcome::Layers(figures) => integrity && figures.failure().is_none(),
            Outcome::Knee(figures) => figures.last_good.is_some(),
            Outcome::Attack(figures) => complete && figures.broken().is_empty(),
            Outcome::Soak(leaks) => fleet.errors.is_empty() && leaks.found().is_empty() && !corrupt(),
        };
        Verdict { wanted, intact, integrity, passed }
    }
}

/// Of a knee only the step that was too much is asked why.
fn bottlenecks(outcome: &Outcome, phases: &[Phase]) -> Vec<String> {
    let judged: Vec<&Phase> = match outcome {
        Outcome::Knee(figures) => figures.first_bad.iter().collect(),
        _ => phases.iter().collect(),
    };
    let named = |phase: &Phase, reason: &String| format!("{}: {reason}", phase.name);
    let reasons = |phase: &'_ &Phase| -> Vec<String> {
        phase.generator.bottlenecks.iter().map(|reason| named(phase, reason)).collect()
    };
    judged.iter().flat_map(reasons).collect()
}

/// The percentiles in the table of times.
pub(super) const TIMES_HEADER: [&str; 6] = ["min", "p50", "p95", "p99", "p99.9", "max"];

/// The columns of the table of phases.
pub(super) const PHASE_HEADER: [&str; 11] = [
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
pub(super) fn phase_row(phase: &Phase) -> Vec<String> {
    let option = |value| optional(value, 2);
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
