//! A token bucket in the caller's time.

#![deny(clippy::disallowed_types)]

use std::time::{Duration, Instant};

/// A sustained rate and a burst.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, burst: f64) -> TokenBucket {
        TokenBucket { per_second, burst, tokens: burst, filled: None }
    }

    /// Takes one token; false if there is none.
    #[inline]
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_many(now, 1.0)
    }

    /// Takes so many tokens; false if there are fewer.
    #[inline]
    pub(crate) fn take_many(&mut self, now: Instant, tokens: f64) -> bool {
        let enough = self.available(now) >= tokens;
        if enough {
            self.tokens -= tokens;
        }
        enough
    }

    /// Takes tokens that are [available](Self::available).
    pub(crate) fn spend(&mut self, tokens: f64) {
        self.tokens -= tokens;
    }

    /// The tokens that there are.
    #[inline]
    pub(crate) fn available(&mut self, now: Instant) -> f64 {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(self.filled.map_or(now, |filled| filled.max(now)));
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.burst);
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_steady_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(50.0, 100.0);
        assert_eq!((0..500).filter(|_| bucket.take(start)).count(), 100);
        let second = start + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| bucket.take(second)).count(), 50);
        assert!(!bucket.take(start), "time that steps back gives nothing");
    }
}
