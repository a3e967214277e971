//! A token bucket in the caller's time.

use std::time::{Duration, Instant};

/// STUN messages a second that one session may send.
const PER_SECOND: f64 = 50.0;
/// How many of them may come at once: every pair of a client with many interfaces checks at the start.
const BURST: f64 = 100.0;

/// The limit on STUN messages.
#[derive(Debug)]
pub(super) struct StunLimit {
    tokens: f64,
    filled: Option<Instant>,
}

impl StunLimit {
    pub(super) fn new() -> StunLimit {
        StunLimit { tokens: BURST, filled: None }
    }

    /// Takes one token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(self.filled.map_or(now, |filled| filled.max(now)));
        self.tokens = (self.tokens + since.as_secs_f64() * PER_SECOND).min(BURST);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_steady_rate() {
        let start = Instant::now();
        let mut limit = StunLimit::new();
        assert_eq!((0..500).filter(|_| limit.take(start)).count(), 100);
        let second = start + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| limit.take(second)).count(), 50);
        assert!(!limit.take(start), "time that steps back gives nothing");
    }
}
