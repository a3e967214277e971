//! The smoothed round-trip time to a peer (RFC 6298 §2), and the interval between repeated requests.

use std::time::{Duration, Instant};

/// Assumed before anything was measured.
const INITIAL: Duration = Duration::from_millis(100);
/// Requests for one packet are at least this far apart, however short the round trip.
pub const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// … and at most this far, so that a second one still finds its time.
pub const MAX_INTERVAL: Duration = Duration::from_millis(500);
/// A longer sample is a peer that paused, no round trip.
const MAX_SAMPLE: Duration = Duration::from_secs(2);
/// The longest wait in terms of the first one.
const MAX_BACKOFF: u32 = 8;

/// A smoothed round-trip time with its variation.
#[derive(Clone, Debug)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Factor on the interval: doubled while there is no sample (Karn's algorithm).
    backoff: u32,
    last_change: Option<Instant>,
}

impl Default for RoundTrip {
    fn default() -> RoundTrip {
        RoundTrip::new()
    }
}

impl RoundTrip {
    /// Nothing measured yet.
    pub fn new() -> RoundTrip {
        RoundTrip { smoothed: None, variation: Duration::ZERO, backoff: 1, last_change: None }
    }

    /// Takes a sample: from a request to its retransmission, or from a report (RFC 3611 §4.5). A retransmission after
    /// several requests is no sample, as it cannot be attributed to one of them (Karn's algorithm).
    pub fn on_sample(&mut self, now: Instant, sample: Duration) {
        if sample > MAX_SAMPLE {
            return;
        }
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                // RFC 6298 takes half of it; but a lost packet has no more than a second.
                self.variation = sample / 4;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
        self.backoff = 1;
        self.last_change = Some(now);
    }

    /// A request sent at `asked` is about to be repeated. Without a sample since then the interval may be shorter than the
    /// round trip, so that every retransmission would follow several requests and none could be a sample: back off.
    pub fn on_repeat(&mut self, now: Instant, asked: Instant) {
        if self.last_change.is_none_or(|at| at <= asked) {
            self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
            self.last_change = Some(now);
        }
    }

    /// The smoothed round-trip time; `None` before the first measurement.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The interval before a request is repeated, between [`MIN_INTERVAL`] and [`MAX_INTERVAL`].
    pub fn interval(&self) -> Duration {
        let wait = self.smoothed.map_or(INITIAL, |smoothed| smoothed + 4 * self.variation);
        (wait.max(MIN_INTERVAL) * self.backoff).min(MAX_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_round_trip_is_found_and_hardly_waited_beyond() {
        let now = Instant::now();
        let mut round_trip = RoundTrip::new();
        assert_eq!((round_trip.smoothed(), round_trip.interval()), (None, millis(100)));
        for _ in 0..20 {
            round_trip.on_sample(now, millis(200));
        }
        assert_eq!(round_trip.smoothed(), Some(millis(200)));
        assert!(round_trip.interval() < millis(202), "{:?}", round_trip.interval());
    }

    #[test]
    fn a_varying_round_trip_is_waited_for_longer() {
        let now = Instant::now();
        let mut round_trip = RoundTrip::new();
        for index in 0..100 {
            round_trip.on_sample(now, millis(if index % 2 == 0 { 40 } else { 80 }));
        }
        assert!((millis(130)..millis(160)).contains(&round_trip.interval()), "{:?}", round_trip.interval());
    }

    #[test]
    fn the_wait_stays_within_its_bounds() {
        let now = Instant::now();
        let mut round_trip = RoundTrip::new();
        round_trip.on_sample(now, millis(1));
        assert_eq!(round_trip.interval(), MIN_INTERVAL);
        round_trip.on_sample(now, Duration::from_secs(60));
        assert_eq!(round_trip.smoothed(), Some(millis(1)), "not believed");
        for _ in 0..50 {
            round_trip.on_sample(now, Duration::from_secs(2));
        }
        assert_eq!(round_trip.interval(), MAX_INTERVAL);
    }

    #[test]
    fn repeats_without_any_measurement_double_the_wait_once_each() {
        let start = Instant::now();
        let mut round_trip = RoundTrip::new();
        round_trip.on_repeat(start + millis(100), start);
        assert_eq!(round_trip.interval(), millis(200));
        // A second packet of the same burst does not double it again.
        round_trip.on_repeat(start + millis(100), start + millis(5));
        assert_eq!(round_trip.interval(), millis(200));
        round_trip.on_sample(start + millis(300), millis(90));
        // The round trip is known to be short: the repeat is for a lost request.
        round_trip.on_repeat(start + millis(310), start + millis(200));
        assert_eq!(round_trip.interval(), millis(180));
        for n in 1..10 {
            round_trip.on_repeat(start + millis(400 * n), start + millis(400 * n));
        }
        assert_eq!(round_trip.interval(), MAX_INTERVAL);
    }
}
