//! Where a viewer's fast start ends: its latencies count from there.
//!
//! A server may give a viewer who joins what it has kept since the last keyframe. Those packets are as old as their
//! keyframe, which says nothing of how fast the server forwards; and until they are through, what is live is queued after
//! them. A start takes no longer than what it makes up for, if it comes at twice real time or faster. So it ends, of each
//! source, as long after its first packet arrived as that packet was old by then, and latencies count of packets that the
//! publisher sent after all of these ends. A server without a cache has a start of no length. One that never makes up for it
//! has the delay that it leaves the viewer with counted in full.

/// The start of one viewer. Times are those of [`crate::clock::nanos`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FastStart {
    ends: u64,
}

impl FastStart {
    /// The first packet of a source arrived.
    pub(super) fn on_first(&mut self, arrived: u64, sent: u64) {
        self.ends = self.ends.max(arrived.saturating_add(arrived.saturating_sub(sent)));
    }

    /// True if a packet that was sent then belongs to the live stream.
    pub(super) fn is_over(&self, sent: u64) -> bool {
        sent > self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINS: u64 = 10_000;
    /// The last keyframe before the join.
    const KEYFRAME: u64 = 8_200;
    /// From one packet to the next, and what the server takes to forward one, in ms as all of these.
    const INTERVAL: u64 = 10;
    const DELAY: u64 = 1;

    /// The latencies that count of a viewer who gets the stream from `first` on, by a server that has caught up with it at
    /// `speed` times real time; never if that is 1.
    fn counted(first: u64, speed: u64) -> Vec<u64> {
        let mut start = FastStart::default();
        (first..JOINS + 20_000)
            .step_by(INTERVAL as usize)
            .filter_map(|sent| {
                let arrived = (JOINS + (sent - first) / speed).max(sent) + DELAY;
                if sent == first {
                    start.on_first(arrived, sent);
                }
                start.is_over(sent).then(|| arrived - sent)
            })
            .collect()
    }

    #[test]
    fn packets_of_a_start_do_not_count_and_all_live_ones_do() {
        for speed in [2, 4, 1_000_000] {
            let latencies = counted(KEYFRAME, speed);
            assert!(latencies.iter().all(|latency| *latency == DELAY), "{speed}: {latencies:?}");
            assert!(latencies.len() as u64 > (20_000 - (JOINS - KEYFRAME)) / INTERVAL - 2, "{speed}");
        }
    }

    #[test]
    fn without_a_cache_everything_counts_but_the_first_packet() {
        let latencies = counted(JOINS, 1);
        assert_eq!(latencies.len() as u64, 20_000 / INTERVAL - 1);
        assert!(latencies.iter().all(|latency| *latency == DELAY));
    }

    #[test]
    fn a_delay_that_the_server_never_makes_up_for_counts() {
        let latencies = counted(KEYFRAME, 1);
        assert!(latencies.len() > 1000);
        assert!(latencies.iter().all(|latency| *latency == JOINS - KEYFRAME + DELAY), "{latencies:?}");
    }

    #[test]
    fn the_source_that_starts_furthest_back_decides() {
        let mut start = FastStart::default();
        start.on_first(1_000, 999);
        start.on_first(1_002, 402);
        assert!(!start.is_over(1_602) && start.is_over(1_603));
        start.on_first(1_003, 1_002);
        assert!(!start.is_over(1_602));
    }
}
