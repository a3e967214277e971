//! What may be sent to an address before it has shown that it receives.

use std::time::{Duration, Instant};

/// Own checks towards one address: the last of them follows the first after some 6 s.
const MAX_OWN_CHECKS: u8 = 8;
/// The first own check is repeated after this time, each further one after twice the time before.
const FIRST_REPETITION: Duration = Duration::from_millis(50);

/// Bytes of UDP payload: what came from an address pays for what is sent to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit(usize);

impl Credit {
    /// A datagram of `length` bytes came.
    pub(super) fn earn(&mut self, length: usize) {
        self.0 = self.0.saturating_add(length);
    }

    /// Pays for a datagram of `length` bytes; false if it costs more than there is.
    pub(super) fn spend(&mut self, length: usize) -> bool {
        let left = self.0.checked_sub(length);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// What is left, in bytes.
    pub(super) fn left(self) -> usize {
        self.0
    }
}

/// The own checks towards one address, all of one transaction (RFC 8489 §6.2.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnCheckLog {
    transaction: Option<[u8; 12]>,
    sent: u8,
    next: Option<Instant>,
}

impl OwnCheckLog {
    /// True if none was sent yet.
    pub(super) fn is_unasked(&self) -> bool {
        self.sent == 0
    }

    /// True if one may be sent now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.sent < MAX_OWN_CHECKS && self.next.is_none_or(|next| now >= next)
    }

    /// The transaction of the one that is sent now. Its id is random: only who received it can repeat it.
    pub(super) fn send(&mut self, now: Instant) -> [u8; 12] {
        self.next = Some(now + FIRST_REPETITION * (1 << self.sent));
        self.sent += 1;
        *self.transaction.get_or_insert_with(|| {
            let mut id = [0; 12];
            // It fails only on a system without any source of randomness, where there are no credentials either.
            openssl::rand::rand_bytes(&mut id).expect("the system has a source of randomness");
            id
        })
    }

    /// True for the transaction of those that were sent.
    pub(super) fn is(&self, transaction: [u8; 12]) -> bool {
        self.transaction == Some(transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H1
    #[test]
    fn never_more_is_spent_than_was_earned() {
        let mut credit = Credit::default();
        assert!(!credit.spend(1));
        credit.earn(100);
        assert!(credit.spend(64) && !credit.spend(37) && credit.spend(36) && !credit.spend(1));
        credit.earn(usize::MAX);
        credit.earn(usize::MAX);
        assert_eq!(credit.left(), usize::MAX);
    }

    // H1
    #[test]
    fn own_checks_are_few_and_grow_rare() {
        let start = Instant::now();
        let mut checks = OwnCheckLog::default();
        let mut times = Vec::new();
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            if checks.is_due(now) {
                let id = checks.send(now);
                assert!(checks.is(id));
                times.push(ms);
            }
        }
        assert_eq!(times, [0, 50, 150, 350, 750, 1550, 3150, 6350]);
        assert_ne!(OwnCheckLog::default().send(start), checks.send(start), "ids are random");
    }
}
