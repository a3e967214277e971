//! Where UDP_SEGMENT is refused, and for how long it is left alone there.
//!
//! What one path does not take decides nothing for the others: a small MTU, a tunnel or IPsec refuses the runs of its own peer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Peers that are remembered; further ones displace the oldest.
const PEERS: usize = 64;
/// Runs to a peer that refused one are not tried for this long, so that few calls are wasted on it. Paths change.
const PEER_TIME: Duration = Duration::from_secs(60);
/// So many different peers in a row, while no run passes, mean that the kernel or the device does not segment at all …
const ALL: usize = 16;
/// … and nobody's runs are tried for this long.
const ALL_TIME: Duration = Duration::from_secs(60);

/// Who gets runs.
#[derive(Debug, Default)]
pub(super) struct Segmentation {
    refused: Vec<(SocketAddr, Instant)>,
    /// Peers that refused since a run passed.
    in_a_row: usize,
    paused: Option<Instant>,
}

impl Segmentation {
    /// True while everybody gets runs.
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.refused.is_empty() && self.paused.is_none()
    }

    /// True while nobody gets runs.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// True if runs to this peer are to be split.
    pub(super) fn splits(&self, peer: SocketAddr) -> bool {
        self.is_paused() || self.refused.iter().any(|(refused, _)| *refused == peer)
    }

    /// Lets time pass.
    pub(super) fn poll(&mut self, now: Instant) {
        self.refused.retain(|(_, at)| now.saturating_duration_since(*at) < PEER_TIME);
        if self.paused.is_some_and(|since| now.saturating_duration_since(since) >= ALL_TIME) {
            *self = Segmentation::default();
        }
    }

    /// A run passed.
    #[inline]
    pub(super) fn on_passed(&mut self) {
        self.in_a_row = 0;
    }

    /// A run to this peer was refused. True if with it nobody gets runs any more for a while.
    pub(super) fn on_refused(&mut self, now: Instant, peer: SocketAddr) -> bool {
        if self.splits(peer) {
            return false;
        }
        if self.refused.len() == PEERS {
            self.refused.remove(0);
        }
        self.refused.push((peer, now));
        self.in_a_row += 1;
        let pauses = self.in_a_row >= ALL;
        if pauses {
            self.paused = Some(now);
        }
        pauses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    // The finding "one viewer's small MTU turns segmentation off for all for ever".
    #[test]
    fn one_peer_that_refuses_again_and_again_loses_its_own_runs_alone_and_for_a_while() {
        let start = Instant::now();
        let mut segmentation = Segmentation::default();
        for second in 0..50 {
            assert!(!segmentation.on_refused(start + Duration::from_secs(second), peer(1)));
        }
        assert!(segmentation.splits(peer(1)) && !segmentation.splits(peer(2)) && !segmentation.is_paused());
        segmentation.poll(start + Duration::from_secs(59));
        assert!(segmentation.splits(peer(1)));
        segmentation.poll(start + Duration::from_secs(60));
        assert!(segmentation.is_whole());
    }

    #[test]
    fn where_nothing_passes_it_is_tried_again_later() {
        let start = Instant::now();
        let mut segmentation = Segmentation::default();
        let paused = (0..16).filter(|&n| segmentation.on_refused(start, peer(n))).count();
        assert_eq!(paused, 1);
        assert!(segmentation.splits(peer(99)));
        segmentation.poll(start + Duration::from_secs(59));
        assert!(segmentation.is_paused());
        segmentation.poll(start + Duration::from_secs(60));
        assert!(segmentation.is_whole());
    }

    #[test]
    fn peers_that_refuse_while_others_pass_never_stop_it_and_are_bounded() {
        let start = Instant::now();
        let mut segmentation = Segmentation::default();
        for n in 0..1000 {
            assert!(!segmentation.on_refused(start, peer(n)));
            segmentation.on_passed();
        }
        assert_eq!(segmentation.refused.len(), PEERS);
        assert!(segmentation.splits(peer(999)) && !segmentation.splits(peer(0)));
    }
}
