//! Transactions of the peer that were seen of late: a captured check is of no use to whoever sends it again.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Transactions that are remembered: those of some 15 s of a client with several pairs, and of minutes once one is selected.
/// One that was forgotten is worth no more than any check from an unproven address.
const REMEMBERED: usize = 32;

/// What an authenticated message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Its transaction was not seen before.
    Fresh,
    /// It came from the same address before: a retransmission, which changes nothing (RFC 8489 §6.2.1).
    Repeated,
    /// It came from another address before: a replay.
    Replayed,
}

/// The last transactions of one peer.
#[derive(Debug, Default)]
pub(super) struct RecentTransactions(VecDeque<([u8; 12], SocketAddr)>);

impl RecentTransactions {
    /// Notes an authenticated message from `source`.
    pub(super) fn note(&mut self, transaction: [u8; 12], source: SocketAddr) -> Freshness {
        if let Some((_, known)) = self.0.iter().find(|(known, _)| *known == transaction) {
            return if *known == source { Freshness::Repeated } else { Freshness::Replayed };
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((transaction, source));
        Freshness::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H1
    #[test]
    fn repetitions_are_told_from_replays_and_the_memory_is_bounded() {
        let mut recent = RecentTransactions::default();
        let [one, two] = [5000, 5001].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        assert_eq!(recent.note([1; 12], one), Freshness::Fresh);
        assert_eq!(recent.note([1; 12], one), Freshness::Repeated);
        assert_eq!(recent.note([1; 12], two), Freshness::Replayed);
        assert_eq!(recent.note([1; 12], one), Freshness::Repeated, "a replay does not take it over");
        for n in 2..200 {
            assert_eq!(recent.note([n; 12], two), Freshness::Fresh);
        }
        assert_eq!(recent.0.len(), REMEMBERED);
    }
}
