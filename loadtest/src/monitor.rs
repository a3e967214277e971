//! Figures over time: what viewers received, what the server used for it, and whether the load test kept up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::client::SharedHistogram;
use crate::fleet::{Roster, Totals};
use crate::process::{self, Switches, Usage};

/// A thread of the load test that is busier than this delays what it measures.
const BUSY: f64 = 0.85;
/// So many late frames disturb the server's pace.
const LATE_FRAMES: f64 = 0.01;
/// A machine that is busier than this has nothing left for bursts.
const MACHINE_BUSY: f64 = 0.95;

/// Percentiles of some times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// The smallest.
    pub min: f64,
    /// Half are below.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of these values; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Percentiles> {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get(((values.len() - 1) as f64 * share).round() as usize).copied();
        let (min, max) = (*values.first()?, *values.last()?);
        let count = values.len() as u64;
        Some(Percentiles { count, min, p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, p999: at(0.999)?, max })
    }
}

/// One-way latencies of all viewers.
#[derive(Clone, Default)]
pub struct Latency(Option<Histogram<u64>>);

impl Latency {
    /// Adds those of some viewers.
    pub fn add(&mut self, other: &Histogram<u64>) {
        match &mut self.0 {
            // All have the same bounds, so that no value falls outside.
            Some(all) => drop(all.add(other)),
            all => *all = Some(other.clone()),
        }
    }

    fn clear(&mut self) {
        if let Some(all) = &mut self.0 {
            all.reset();
        }
    }

    /// In milliseconds.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let all = self.0.as_ref().filter(|all| !all.is_empty())?;
        let at = |share: f64| all.value_at_quantile(share) as f64 / 1000.0;
        let (min, max) = (all.min() as f64 / 1000.0, all.max() as f64 / 1000.0);
        let (p50, p95, p99, p999) = (at(0.5), at(0.95), at(0.99), at(0.999));
        Some(Percentiles { count: all.len(), min, p50, p95, p99, p999, max })
    }
}

/// A short interval of a test.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Its end, in seconds since the test's begin.
    pub at: f64,
    /// Viewers that were connected.
    pub viewers: usize,
    /// RTP packets that viewers received, a second.
    pub packets_per_second: f64,
    /// Payload that they received.
    pub mbit_per_second: f64,
    /// Packets that standing viewers lost in it; those that came late after all are taken back.
    pub lost: i64,
    /// Median of the one-way latencies of standing viewers, in ms.
    pub latency_p50_ms: Option<f64>,
    /// 99 of 100 are below.
    pub latency_p99_ms: Option<f64>,
    /// The largest.
    pub latency_max_ms: Option<f64>,
    /// CPU of the server; 1.0 is one core.
    pub server_cores: Option<f64>,
    /// Resident memory of the server, in bytes.
    pub server_resident_bytes: Option<u64>,
    /// CPU of the load test.
    pub generator_cores: f64,
}

/// What the server used in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerFigures {
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// User time.
    pub user_seconds: f64,
    /// System time.
    pub system_seconds: f64,
    /// CPU time by time: 1.0 is all of one core.
    pub cores: f64,
    /// CPU time for each packet that a viewer received, in µs.
    pub cpu_us_per_packet: Option<f64>,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// Threads at the end.
    pub threads: u64,
    /// Context switches because a thread waited.
    pub voluntary_switches: u64,
    /// Context switches because another thread had its turn.
    pub involuntary_switches: u64,
}

impl ServerFigures {
    /// From readings at the begin and the end, and the packets that viewers received between them.
    pub fn new(from: (Usage, Switches), to: (Usage, Switches), packets: u64, elapsed: Duration) -> ServerFigures {
        let seconds = |of: fn(&Usage) -> Duration| of(&to.0).saturating_sub(of(&from.0)).as_secs_f64();
        let cpu_seconds = seconds(Usage::cpu);
        ServerFigures {
            cpu_seconds,
            user_seconds: seconds(|usage| usage.user),
            system_seconds: seconds(|usage| usage.system),
            cores: cpu_seconds / elapsed.as_secs_f64().max(0.001),
            cpu_us_per_packet: (packets > 0).then(|| cpu_seconds * 1e6 / packets as f64),
            resident_bytes: to.0.resident,
            threads: to.0.threads,
            voluntary_switches: to.1.voluntary.saturating_sub(from.1.voluntary),
            involuntary_switches: to.1.involuntary.saturating_sub(from.1.involuntary),
        }
    }
}

/// What the load test itself used in a phase, and whether it kept up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GeneratorFigures {
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// CPU time by time: 1.0 is all of one core.
    pub cores: f64,
    /// CPU time for each packet that a viewer received, in µs; joins and publishers included.
    pub cpu_us_per_packet: Option<f64>,
    /// The thread that worked most.
    pub busiest_thread: String,
    /// Share of the time in which it worked.
    pub busiest_share: f64,
    /// Frames that publishers sent.
    pub frames: u64,
    /// Those that left more than 10 ms after their time.
    pub late_frames: u64,
    /// Datagrams that the viewers' own sockets had no room for (SO_RXQ_OVFL).
    pub overflowed: u64,
    /// Datagrams that all other sockets of this machine had no room for; the server's may be among them.
    pub overflowed_elsewhere: Option<u64>,
    /// Share of the time in which the machine's CPUs worked, whoever for.
    pub machine_busy: Option<f64>,
    /// Reasons why the figures say more about the load test, or the machine, than about the server.
    pub bottlenecks: Vec<String>,
}

impl GeneratorFigures {
    /// `known` is the CPU time of the server and the load test in the phase, by that of all CPUs.
    fn judge(&mut self, known: f64) {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut found = Vec::new();
        if self.busiest_share > BUSY {
            found.push(format!(
                "its thread {} was busy {} of the time",
                self.busiest_thread,
                percent(self.busiest_share)
            ));
        }
        if self.late_frames as f64 > LATE_FRAMES * self.frames as f64 {
            let share = percent(self.late_frames as f64 / self.frames as f64);
            found.push(format!("the load test's publishers sent {share} of their frames more than 10 ms late"));
        }
        if self.overflowed > 0 {
            found.push(format!("the load test's sockets had no room for {} datagrams", self.overflowed));
        }
        if let Some(busy) = self.machine_busy.filter(|busy| *busy > MACHINE_BUSY) {
            let (busy, known) = (percent(busy), percent(known));
            found.push(format!("the CPUs here were busy {busy} of the time, server and load test took {known}"));
        }
        self.bottlenecks = found;
    }
}

/// A part of a test in which nothing else changes.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What it was.
    pub name: String,
    /// Its begin, in seconds since the test's begin.
    pub from: f64,
    /// Its length.
    pub seconds: f64,
    /// Viewers at its end.
    pub viewers: usize,
    /// RTP packets that viewers received.
    pub packets: u64,
    /// Payload bytes of those.
    pub bytes: u64,
    /// Packets a second.
    pub packets_per_second: f64,
    /// Packets that standing viewers lost.
    pub lost: u64,
    /// Lost by lost and delivered, of standing viewers.
    pub loss: f64,
    /// One-way latency of standing viewers.
    pub latency_ms: Option<Percentiles>,
    /// The server process.
    pub server: Option<ServerFigures>,
    /// The load test.
    pub generator: GeneratorFigures,
}

/// All that grows, at one moment.
#[derive(Clone)]
struct Reading {
    at: Instant,
    totals: Totals,
    server: Option<(Usage, Switches)>,
    own: Option<Usage>,
    threads: BTreeMap<i32, (String, Duration)>,
    buffer_errors: Option<u64>,
    machine: Option<(u64, u64)>,
}

struct State {
    last: (Instant, Totals, Option<Usage>, Option<Usage>),
    interval: Latency,
    phase: Latency,
    begin: Option<(String, Reading)>,
    series: Vec<Sample>,
}

/// Samples in the background until it is dropped.
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    begun: Instant,
    pid: Option<u32>,
    roster: Arc<Roster>,
    histograms: Vec<SharedHistogram>,
    state: Mutex<State>,
}

impl Monitor {
    /// Must be called inside a tokio runtime.
    pub(crate) fn start(
        begun: Instant,
        pid: Option<u32>,
        roster: Arc<Roster>,
        histograms: Vec<SharedHistogram>,
        interval: Duration,
    ) -> Monitor {
        let last = (begun, Totals::default(), pid.and_then(Usage::of), Usage::of(std::process::id()));
        let state =
            State { last, interval: Latency::default(), phase: Latency::default(), begin: None, series: Vec::new() };
        let shared = Arc::new(Shared { begun, pid, roster, histograms, state: Mutex::new(state) });
        let sampled = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                sampled.sample();
            }
        });
        Monitor { shared, task }
    }

    /// Begins a phase; a phase that was not ended is forgotten.
    pub(crate) fn begin(&self, name: impl Into<String>) {
        self.shared.sample();
        let reading = self.shared.read();
        let mut state = self.shared.state();
        state.phase.clear();
        state.begin = Some((name.into(), reading));
    }

    /// Ends the phase.
    pub(crate) fn end(&self) -> Option<Phase> {
        self.shared.sample();
        let to = self.shared.read();
        let mut state = self.shared.state();
        let (name, from) = state.begin.take()?;
        let latency = state.phase.percentiles();
        drop(state);
        Some(phase(name, self.shared.begun, &from, &to, latency))
    }

    /// The samples so far.
    pub(crate) fn series(&self) -> Vec<Sample> {
        self.shared.state().series.clone()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Reading {
        Reading {
            at: Instant::now(),
            totals: self.roster.totals(),
            server: self.pid.and_then(|pid| Some((Usage::of(pid)?, Switches::of(pid)?))),
            own: Usage::of(std::process::id()),
            threads: process::own_threads(),
            buffer_errors: process::receive_buffer_errors(),
            machine: process::machine_ticks(),
        }
    }

    fn sample(&self) {
        let mut state = self.state();
        let State { interval, phase, series, last, .. } = &mut *state;
        interval.clear();
        for histogram in &self.histograms {
            let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            if !histogram.is_empty() {
                interval.add(&histogram);
                histogram.reset();
            }
        }
        if let Some(latencies) = &interval.0 {
            phase.add(latencies);
        }
        let (now, totals) = (Instant::now(), self.roster.totals());
        let (server, own) = (self.pid.and_then(Usage::of), Usage::of(std::process::id()));
        let (before, totals_before, server_before, own_before) = *last;
        let seconds = now.duration_since(before).as_secs_f64();
        // Two samples in a row say nothing; their packets go into the next one.
        if seconds < 0.02 {
            return;
        }
        let cores = |from: Option<Usage>, to: Option<Usage>| {
            Some(to?.cpu().saturating_sub(from?.cpu()).as_secs_f64() / seconds)
        };
        let latency = interval.percentiles();
        let grown = |of: fn(&Totals) -> u64| of(&totals).saturating_sub(of(&totals_before)) as f64 / seconds;
        series.push(Sample {
            at: now.duration_since(self.begun).as_secs_f64(),
            viewers: totals.viewers,
            packets_per_second: grown(|totals| totals.received.delivered),
            mbit_per_second: grown(|totals| totals.received.bytes) * 8e-6,
            lost: totals.standing.lost as i64 - totals_before.standing.lost as i64,
            latency_p50_ms: latency.map(|latency| latency.p50),
            latency_p99_ms: latency.map(|latency| latency.p99),
            latency_max_ms: latency.map(|latency| latency.max),
            server_cores: cores(server_before, server),
            server_resident_bytes: server.map(|usage| usage.resident),
            generator_cores: cores(own_before, own).unwrap_or_default(),
        });
        *last = (now, totals, server, own);
    }
}

fn phase(name: String, begun: Instant, from: &Reading, to: &Reading, latency_ms: Option<Percentiles>) -> Phase {
    let elapsed = to.at.duration_since(from.at);
    let seconds = elapsed.as_secs_f64().max(0.001);
    let grown = |of: fn(&Totals) -> u64| of(&to.totals).saturating_sub(of(&from.totals));
    let packets = grown(|totals| totals.received.delivered);
    let (delivered, lost) = (grown(|totals| totals.standing.delivered), grown(|totals| totals.standing.lost));
    let cpu_seconds = match (from.own, to.own) {
        (Some(from), Some(to)) => to.cpu().saturating_sub(from.cpu()).as_secs_f64(),
        _ => 0.0,
    };
    let busiest = to.threads.iter().map(|(id, (name, cpu))| {
        let before = from.threads.get(id).map_or(Duration::ZERO, |(_, cpu)| *cpu);
        (cpu.saturating_sub(before), name.clone())
    });
    let (busiest_time, busiest_thread) = busiest.max().unwrap_or_default();
    let overflowed = grown(|totals| totals.overflowed);
    let mut generator = GeneratorFigures {
        cpu_seconds,
        cores: cpu_seconds / seconds,
        cpu_us_per_packet: (packets > 0).then(|| cpu_seconds * 1e6 / packets as f64),
        busiest_thread,
        busiest_share: busiest_time.as_secs_f64() / seconds,
        frames: grown(|totals| totals.frames),
        late_frames: grown(|totals| totals.late_frames),
        overflowed,
        overflowed_elsewhere: from
            .buffer_errors
            .zip(to.buffer_errors)
            .map(|(from, to)| to.saturating_sub(from).saturating_sub(overflowed)),
        machine_busy: from
            .machine
            .zip(to.machine)
            .filter(|(from, to)| to.1 > from.1)
            .map(|(from, to)| to.0.saturating_sub(from.0) as f64 / (to.1 - from.1) as f64),
        bottlenecks: Vec::new(),
    };
    let server = from.server.zip(to.server).map(|(from, to)| ServerFigures::new(from, to, packets, elapsed));
    let cpus = std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64);
    generator.judge((generator.cores + server.map_or(0.0, |server| server.cores)) / cpus);
    Phase {
        name,
        from: from.at.duration_since(begun).as_secs_f64(),
        seconds: elapsed.as_secs_f64(),
        viewers: to.totals.viewers,
        packets,
        bytes: grown(|totals| totals.received.bytes),
        packets_per_second: packets as f64 / seconds,
        lost,
        loss: lost as f64 / (lost + delivered).max(1) as f64,
        latency_ms,
        server,
        generator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_few_values() {
        let percentiles = Percentiles::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((percentiles.min, percentiles.p50, percentiles.max, percentiles.count), (1.0, 2.0, 3.0, 3));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn the_cost_of_a_packet_is_cpu_time_by_packets() {
        let usage = |millis, resident, switches| {
            let (user, system) = (Duration::from_millis(millis), Duration::from_millis(millis / 2));
            (
                Usage { user, system, precise: Duration::ZERO, resident, threads: 3 },
                Switches { voluntary: switches, involuntary: 1 },
            )
        };
        let figures = ServerFigures::new(usage(100, 1, 5), usage(600, 2, 9), 100_000, Duration::from_secs(1));
        assert_eq!((figures.cpu_us_per_packet, figures.resident_bytes), (Some(7.5), 2));
        assert_eq!((figures.voluntary_switches, figures.involuntary_switches), (4, 0));
        assert!((figures.cores - 0.75).abs() < 1e-9 && (figures.user_seconds - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_load_test_that_cannot_keep_up_says_why() {
        let mut figures = GeneratorFigures { frames: 1000, late_frames: 10, ..GeneratorFigures::default() };
        figures.judge(0.25);
        assert!(figures.bottlenecks.is_empty(), "{:?}", figures.bottlenecks);
        let mut figures = GeneratorFigures {
            busiest_thread: "viewers-0".into(),
            busiest_share: 0.97,
            late_frames: 50,
            overflowed: 7,
            machine_busy: Some(0.99),
            ..figures
        };
        figures.judge(0.25);
        let found = figures.bottlenecks.join("; ");
        for words in [
            "viewers-0 was busy 97 %",
            "5 % of their frames",
            "7 datagrams",
            "99 % of the time, server and load test took 25 %",
        ] {
            assert!(found.contains(words), "{found}");
        }
    }
}
