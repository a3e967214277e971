//! When the next client's turn is.

use std::time::{Duration, Instant};

/// Spreads joins over time.
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// So many turns a second; all at once if `None`.
    pub(super) fn new(rate: Option<f64>) -> Pace {
        let interval =
            rate.filter(|rate| *rate > 0.0).map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Pace { interval, next: Instant::now() }
    }

    /// How long to wait for the next turn, if at all. Turns that were missed are not made up for.
    pub(super) fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let wait = self.next.saturating_duration_since(now);
        self.next = self.next.max(now) + self.interval;
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_without_a_rate_do_not_wait() {
        let mut pace = Pace::new(None);
        assert!((0..1000).all(|_| pace.next().is_none()));
        let mut pace = Pace::new(Some(10.0));
        assert_eq!(pace.next(), None);
        assert!(pace.next().unwrap() > Duration::from_millis(50));
    }
}
