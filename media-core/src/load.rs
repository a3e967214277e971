//! How busy a shard is: where new viewers go depends on it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a session adds to the measured work, in millionths of a core: about what a viewer of 2 Mbit/s costs. It
/// spreads those who joined a moment ago, or who wait for a publisher.
const SESSION: u64 = 1_000;
/// A shard takes viewers of its own streams until it has so much more load than the least busy one, in millionths of a
/// core: a stream on two shards is handed over and kept twice.
const SPILL: u64 = 32_000;
/// The work is measured over this time.
const INTERVAL: Duration = Duration::from_millis(500);

/// A shard's load, as control sees it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Sessions that were placed here and have not ended.
    sessions: AtomicUsize,
    /// Millionths of a core that the shard's thread used lately.
    busy: AtomicU32,
}

impl Load {
    /// A session was placed here.
    pub(crate) fn add_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// One has ended.
    pub(crate) fn remove_session(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        let sessions = self.sessions.load(Ordering::Relaxed) as u64;
        sessions * SESSION + u64::from(self.busy.load(Ordering::Relaxed))
    }
}

/// The shard for a new viewer of a stream that lives on `home`: that one, unless it is much busier than the least busy
/// one.
pub(crate) fn place<'a>(home: usize, loads: impl Iterator<Item = &'a Load>) -> usize {
    let totals: Vec<u64> = loads.map(Load::total).collect();
    let Some((least, &total)) = totals.iter().enumerate().min_by_key(|(_, total)| **total) else { return home };
    let at_home = totals.get(home).is_some_and(|&home| home < total + SPILL);
    if at_home { home } else { least }
}

/// Measures the calling thread.
#[derive(Debug)]
pub(crate) struct BusyMeter {
    measured: Instant,
    cpu: Duration,
    busy: f64,
}

impl BusyMeter {
    pub(crate) fn new(now: Instant) -> BusyMeter {
        BusyMeter { measured: now, cpu: thread_cpu_time(), busy: 0.0 }
    }

    /// The share of a core that the thread used lately, 0 to 1.
    pub(crate) fn busy(&self) -> f64 {
        self.busy
    }

    /// Measures if an interval has passed, and publishes the load.
    pub(crate) fn poll(&mut self, now: Instant, load: &Load) {
        let passed = now.saturating_duration_since(self.measured);
        if passed < INTERVAL {
            return;
        }
        let cpu = thread_cpu_time();
        self.busy = cpu.saturating_sub(self.cpu).as_secs_f64() / passed.as_secs_f64();
        (self.measured, self.cpu) = (now, cpu);
        load.busy.store((self.busy * 1e6) as u32, Ordering::Relaxed);
    }

    /// The shard is idle.
    pub(crate) fn idle(&mut self, load: &Load) {
        self.busy = 0.0;
        load.busy.store(0, Ordering::Relaxed);
    }
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(of: &[(usize, u32)]) -> Vec<Load> {
        of.iter()
            .map(|&(sessions, busy)| Load { sessions: AtomicUsize::new(sessions), busy: AtomicU32::new(busy) })
            .collect()
    }

    #[test]
    fn a_viewer_goes_to_its_streams_shard_until_that_is_a_good_deal_busier_than_the_least_busy_one() {
        for (of, home, placed) in [
            (&[(0, 0), (0, 0)][..], 1, 1),
            (&[(31, 0), (0, 0)], 0, 0),
            (&[(32, 0), (0, 0)], 0, 1),
            // Few sessions, but of the heavy kind.
            (&[(5, 700_000), (200, 90_000)], 0, 1),
            (&[(200, 90_000), (5, 700_000)], 0, 0),
            (&[(90, 0), (60, 0), (50, 0)], 0, 2),
        ] {
            assert_eq!(place(home, loads(of).iter()), placed, "{of:?}");
        }
    }

    #[test]
    fn a_thread_that_works_is_seen_to_be_busy() {
        let (load, start) = (Load::default(), Instant::now());
        let mut meter = BusyMeter::new(start);
        while thread_cpu_time() < meter.cpu + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        meter.poll(start + INTERVAL / 2, &load);
        assert_eq!(load.total(), 0);
        meter.poll(start + INTERVAL, &load);
        // 20 ms of 500, and what the loop itself took longer.
        assert!((0.04..0.2).contains(&meter.busy()), "{}", meter.busy());
        assert_eq!(load.total(), (meter.busy() * 1e6) as u64);
        meter.idle(&load);
        assert_eq!((load.total(), meter.busy()), (0, 0.0));
    }
}
