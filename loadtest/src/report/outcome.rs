//! What only one kind of test finds.

use serde::Serialize;

use super::attack::AttackFigures;
use super::layers::LayersFigures;
use crate::fleet::narrow::NarrowFigures;
use crate::garbage::GarbageFigures;
use crate::measure::figures::Phase;
use crate::measure::leak::Leaks;

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
    /// See [`crate::run::Scenario::Storm`].
    Storm(StormFigures),
    /// See [`crate::run::Scenario::Narrow`]; `None` if there could be no narrow paths.
    Narrow(Option<NarrowFigures>),
    /// See [`crate::run::Scenario::Layers`].
    Layers(Box<LayersFigures>),
    /// See [`crate::run::Scenario::Knee`].
    Knee(Box<KneeFigures>),
    /// See [`crate::run::Scenario::Soak`].
    Soak(Box<Leaks>),
    /// See [`crate::run::Scenario::Attack`].
    Attack(AttackFigures),
}

impl StormFigures {
    fn line(&self) -> String {
        format!(
            "storm: {} of {} joined in {:.2} s ({:.0} a second); the standing viewers' p99 was {} times that before \
             and {} times that after, they lost {} packets",
            self.joined,
            self.joins_wanted,
            self.seconds,
            self.joins_per_second,
            optional(self.p99_ratio, 2),
            optional(self.p99_ratio_after, 2),
            self.standing_lost,
        )
    }
}

impl KneeFigures {
    fn lines(&self) -> Vec<String> {
        let good = self.last_good.as_ref().map_or("knee: no step was good".to_owned(), |phase| {
            let server = phase.server.zip(self.packets_per_cpu_second);
            let server = server.map_or(String::new(), |(server, pace)| {
                format!("; server {:.2} cores, {pace:.0} packets for each second of CPU", server.cores)
            });
            let (viewers, pace) = (phase.viewers, phase.packets_per_second);
            let highest = self.highest_packets_per_second;
            format!("knee: {viewers} viewers, {pace:.0} packets/s, at most {highest:.0} in any step{server}")
        });
        let end = match (&self.first_bad, &self.reason) {
            (Some(phase), Some(reason)) => format!("at {} viewers {reason}", phase.viewers),
            _ => "no step was too much: the server can take more".into(),
        };
        vec![good, end]
    }
}

fn garbage_line(garbage: &GarbageFigures) -> String {
    format!(
        "garbage: {} datagrams, {:.0} a second, and {} more that the load test's own sockets refused",
        garbage.sent, garbage.per_second, garbage.refused
    )
}

fn narrow_line(narrow: &NarrowFigures) -> String {
    format!(
        "narrow: {} viewers with {:.0} kbit/s each, who received {} packets and lost {}; the others' p99 was \
         {} times that before and {} times that after, their p50 {} and {} times, they lost {} packets",
        narrow.viewers,
        narrow.kbit_per_second,
        narrow.narrow.delivered,
        narrow.narrow.lost,
        optional(narrow.p99_ratio, 2),
        optional(narrow.p99_ratio_after, 2),
        optional(narrow.p50_ratio, 2),
        optional(narrow.p50_ratio_after, 2),
        narrow.standing_lost,
    )
}

fn soak_lines(leaks: &Leaks) -> Vec<String> {
    let row = |what: &str, before: Option<u64>, after: Option<u64>| {
        let text = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        format!("{what} {} -> {}", text(before), text(after))
    };
    let (from, to) = (leaks.before, leaks.after);
    let kilo = |bytes: Option<u64>| bytes.map(|bytes| bytes / 1000);
    let mut lines = vec![
        format!(
            "soak: {} joins, {} of them on impaired paths, {} viewers vanished, {} restarts of publishers; while they \
             restarted, the server ended {} sessions and refused {} joins",
            leaks.joins,
            leaks.impaired,
            leaks.vanished,
            leaks.restarts,
            leaks.ended_by_server,
            leaks.refused_in_restarts
        ),
        [
            row("left behind: resident kB", kilo(from.resident_bytes), kilo(to.resident_bytes)),
            format!("({} bytes a join)", optional(leaks.bytes_per_join(), 0)),
            row("  descriptors", from.descriptors, to.descriptors),
            row("  threads", from.threads, to.threads),
            row("  sessions", from.sessions, to.sessions),
            row("  in shards", from.shard_sessions, to.shard_sessions),
        ]
        .join(" "),
    ];
    lines.extend(leaks.memory.map(|memory| {
        let heap = memory
            .heap_in_use
            .map(|(from, to)| format!("; in use of its heap {:.1} and {:.1} MB", from / 1e6, to / 1e6));
        format!(
            "memory: {:.1} MB, and {:.1} MB {:.1} minutes later ({:+.2} %){}",
            memory.from_bytes / 1e6,
            memory.to_bytes / 1e6,
            memory.seconds / 60.0,
            memory.growth * 100.0,
            heap.unwrap_or_default()
        )
    }));
    lines.extend(leaks.attacks.iter().flat_map(|attacks| {
        let counts = &attacks.counts;
        let sums = format!(
            "attacks: {} turns, {} datagrams, {} connections, {} requests; at most {:.2} times what an address sent came back",
            attacks.turns, counts.datagrams, counts.connections, counts.requests, counts.amplification
        );
        let refused = attacks.refused.iter().map(|(what, count)| format!("attackers refused, {count} times: {what}"));
        std::iter::once(sums).chain(refused)
    }));
    lines.extend(leaks.scrapes.map(|scrapes| {
        let (answered, failed, slowest) = (scrapes.answered, scrapes.failed, scrapes.slowest_ms);
        format!("scrapes: {answered} answered, {failed} not, the slowest after {slowest:.0} ms")
    }));
    lines.extend(leaks.found().into_iter().map(|leak| format!("LEAK: {leak}")));
    lines
}

impl Outcome {
    /// What was found, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Outcome::Run(garbage) => garbage.iter().map(garbage_line).collect(),
            Outcome::Storm(storm) => vec![storm.line()],
            Outcome::Narrow(narrow) => narrow.iter().map(narrow_line).collect(),
            Outcome::Layers(layers) => layers.lines(),
            Outcome::Knee(knee) => knee.lines(),
            Outcome::Soak(leaks) => soak_lines(leaks),
            Outcome::Attack(figures) => figures.lines(),
        }
    }

    /// The name of the latency that the report shows.
    pub(super) fn latency_name(&self) -> &'static str {
        match self {
            Outcome::Storm(_) => "one-way latency in the storm",
            Outcome::Narrow(_) => "one-way latency beside narrow paths",
            Outcome::Knee(_) => "one-way latency, last good step",
            Outcome::Attack(_) => "one-way latency in the last attack",
            Outcome::Run(_) | Outcome::Soak(_) | Outcome::Layers(_) => "one-way latency",
        }
    }

    /// The phase whose figures the report shows.
    pub(super) fn main_phase<'a>(&'a self, phases: &'a [Phase]) -> Option<&'a Phase> {
        match self {
            Outcome::Storm(_) | Outcome::Narrow(_) => phases.get(1),
            Outcome::Knee(figures) => figures.last_good.as_ref(),
            Outcome::Run(_) | Outcome::Soak(_) | Outcome::Attack(_) | Outcome::Layers(_) => phases.last(),
        }
    }
}

/// A number, or a dash.
pub(super) fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}
