//! What a phase of a test needed, and whether the load test kept up in it.

use std::time::Duration;

use serde::Serialize;

use super::percentiles::Percentiles;
use super::process::{Switches, Usage};

/// A thread of the load test that is busier than this delays what it measures.
const BUSY: f64 = 0.85;
/// So many late frames disturb the server's pace.
const LATE_FRAMES: f64 = 0.01;
/// A machine that is busier than this has nothing left for bursts.
const MACHINE_BUSY: f64 = 0.95;

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
    /// Packets that standing viewers lost in it; those received late after all are taken back.
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
    pub(crate) fn new(
        from: (Usage, Switches),
        to: (Usage, Switches),
        packets: u64,
        elapsed: Duration,
    ) -> ServerFigures {
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
    pub(crate) fn judge(&mut self, known: f64) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
