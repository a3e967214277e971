//! Samples a test's figures in the background, and divides it into phases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::figures::{GeneratorFigures, Phase, Sample, ServerFigures};
use super::percentiles::{Latency, Percentiles};
use super::process::{self, Switches, Usage};
use super::roster::{Roster, Totals};
use crate::client::SharedHistogram;

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
        phase.merge(interval);
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
    let mut generator = generator(from, to, packets, seconds);
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

/// What the load test itself used; not yet judged.
fn generator(from: &Reading, to: &Reading, packets: u64, seconds: f64) -> GeneratorFigures {
    let grown = |of: fn(&Totals) -> u64| of(&to.totals).saturating_sub(of(&from.totals));
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
    GeneratorFigures {
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
    }
}
