//! How much STUN one session may send.

use std::time::Instant;

use crate::token_bucket::TokenBucket;

/// STUN messages a second that one session may send.
const PER_SECOND: f64 = 50.0;
/// Burst: every pair of a client with many interfaces checks at the start.
const BURST: f64 = 100.0;

/// The limit on STUN messages.
#[derive(Debug)]
pub(super) struct StunLimit(TokenBucket);

impl StunLimit {
    pub(super) fn new() -> StunLimit {
        StunLimit(TokenBucket::new(PER_SECOND, BURST))
    }

    /// Takes one token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.0.take(now)
    }
}
