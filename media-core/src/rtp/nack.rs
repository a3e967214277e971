//! Which packets of a publisher to ask for again, and when (RFC 4585 §6.2.1).

use std::time::{Duration, Instant};

/// A gap is given this long to close by itself: reordering on the way is usual.
pub const REORDER_GUARD: Duration = Duration::from_millis(10);
/// Requests for one packet are at least this far apart, however short the round trip.
pub const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Requests for one packet.
pub const MAX_REQUESTS: u8 = 10;
/// A packet that is missing for longer is given up.
pub const MAX_AGE: Duration = Duration::from_secs(1);
/// Packets that may be missing at the same time.
pub const MAX_PENDING: usize = 512;

/// Finds the gaps in one source's sequence numbers and says when to ask for them. Its memory is fixed.
#[derive(Clone, Debug)]
pub struct NackGenerator {
    highest: Option<u64>,
    /// In ascending order of numbers, hence of age.
    missing: Vec<Missing>,
    requests: Vec<u16>,
    keyframe_needed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    since: Instant,
    requested: Option<Instant>,
    requests: u8,
}

impl Default for NackGenerator {
    fn default() -> NackGenerator {
        NackGenerator::new()
    }
}

impl NackGenerator {
    /// Knows of no packet.
    pub fn new() -> NackGenerator {
        NackGenerator {
            highest: None,
            missing: Vec::with_capacity(MAX_PENDING),
            requests: Vec::with_capacity(MAX_PENDING),
            keyframe_needed: false,
        }
    }

    /// Notes a packet by its extended sequence number, a restored retransmission too. A gap that is larger than
    /// [`MAX_PENDING`], or that would make the missing packets more than that, clears them all and asks for a keyframe.
    #[inline]
    pub fn on_packet(&mut self, now: Instant, sequence: u64) {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return;
        };
        if sequence <= highest {
            if !self.missing.is_empty()
                && let Ok(index) = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence)
            {
                self.missing.remove(index);
            }
            return;
        }
        self.highest = Some(sequence);
        let gap = sequence - highest - 1;
        if gap == 0 {
            return;
        }
        if gap > (MAX_PENDING - self.missing.len()) as u64 {
            self.missing.clear();
            self.keyframe_needed = true;
            return;
        }
        let fresh = |sequence| Missing { sequence, since: now, requested: None, requests: 0 };
        self.missing.extend((highest + 1..sequence).map(fresh));
    }

    /// The numbers to ask for now, in ascending order; `rtt` is the round-trip time to the publisher, as far as known.
    /// Packets that were asked for often or long enough are given up, with a keyframe instead.
    pub fn poll(&mut self, now: Instant, rtt: Duration) -> &[u16] {
        self.requests.clear();
        let interval = rtt.max(MIN_INTERVAL);
        let before = self.missing.len();
        self.missing.retain_mut(|missing| {
            let age = now.saturating_duration_since(missing.since);
            if age >= MAX_AGE {
                return false;
            }
            let due = match missing.requested {
                None => age >= REORDER_GUARD,
                Some(at) => now.saturating_duration_since(at) >= interval,
            };
            if due {
                if missing.requests == MAX_REQUESTS {
                    return false;
                }
                missing.requests += 1;
                missing.requested = Some(now);
                self.requests.push(missing.sequence as u16);
            }
            true
        });
        self.keyframe_needed |= self.missing.len() < before;
        &self.requests
    }

    /// True once after packets were given up: only a keyframe mends the picture.
    pub fn take_keyframe_needed(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_needed)
    }

    /// True if no packet is missing, so that there is nothing to poll for.
    pub fn is_idle(&self) -> bool {
        self.missing.is_empty()
    }

    /// Forgets everything, as when the source restarts.
    pub fn reset(&mut self) {
        self.highest = None;
        self.missing.clear();
        self.keyframe_needed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// A generator that misses 101 and 102 since `start`.
    fn with_gap(start: Instant) -> NackGenerator {
        let mut nack = NackGenerator::new();
        nack.on_packet(start, 65_636);
        nack.on_packet(start, 65_639);
        nack
    }

    #[test]
    fn a_gap_is_asked_for_after_the_reorder_guard() {
        // RTCP-09
        let start = Instant::now();
        let mut nack = with_gap(start);
        assert!(nack.poll(at(start, 9), RTT).is_empty());
        assert_eq!(nack.poll(at(start, 10), RTT), [101, 102]);
        assert!(nack.poll(at(start, 11), RTT).is_empty());
    }

    #[test]
    fn packets_that_were_only_late_are_never_asked_for() {
        // RTCP-09
        let start = Instant::now();
        let mut nack = with_gap(start);
        nack.on_packet(at(start, 3), 65_638);
        nack.on_packet(at(start, 4), 65_638);
        assert_eq!(nack.poll(at(start, 10), RTT), [101]);
        nack.on_packet(at(start, 60), 65_637);
        assert!(nack.is_idle());
        assert!(nack.poll(at(start, 500), RTT).is_empty());
        assert!(!nack.take_keyframe_needed());
    }

    #[test]
    fn requests_repeat_once_per_round_trip() {
        // RTCP-09
        let start = Instant::now();
        for (rtt, interval) in [(50, 50), (5, 20)] {
            let mut nack = with_gap(start);
            let times: Vec<_> =
                (0..200).filter(|&ms| !nack.poll(at(start, ms), Duration::from_millis(rtt)).is_empty()).collect();
            let expected: Vec<_> = (0..10).map(|n| 10 + n * interval).filter(|&ms| ms < 200).collect();
            assert_eq!(times, expected);
        }
    }

    #[test]
    fn ten_requests_or_a_second_are_enough_and_then_a_keyframe() {
        // RTCP-09
        let start = Instant::now();
        for (rtt, requests) in [(20, 10), (300, 4)] {
            let mut nack = with_gap(start);
            let mut sent = 0;
            for ms in 0..1_001 {
                assert!(!nack.take_keyframe_needed() || nack.is_idle());
                sent += usize::from(!nack.poll(at(start, ms), Duration::from_millis(rtt)).is_empty());
            }
            assert_eq!(sent, requests);
            assert!(nack.is_idle());
        }
        let mut nack = with_gap(start);
        nack.poll(at(start, 1_000), RTT);
        assert!(nack.take_keyframe_needed());
        assert!(!nack.take_keyframe_needed());
    }

    #[test]
    fn a_gap_too_large_clears_everything_and_needs_a_keyframe() {
        // RTCP-09
        let start = Instant::now();
        let mut nack = with_gap(start);
        nack.on_packet(start, 65_639 + MAX_PENDING as u64);
        assert!(nack.is_idle() && nack.take_keyframe_needed());
        nack.on_packet(start, u64::MAX);
        assert!(nack.is_idle() && nack.take_keyframe_needed());
    }

    #[test]
    fn memory_stays_as_it_was() {
        let start = Instant::now();
        let mut nack = NackGenerator::new();
        for number in 0..10_000u64 {
            nack.on_packet(start, 65_536 + number * 3);
            assert!(nack.missing.len() <= MAX_PENDING);
        }
        nack.poll(at(start, 10), RTT);
        assert_eq!((nack.missing.capacity(), nack.requests.capacity()), (MAX_PENDING, MAX_PENDING));
    }

    #[test]
    fn numbers_from_before_the_first_packet_are_not_missing() {
        let start = Instant::now();
        let mut nack = NackGenerator::new();
        nack.on_packet(start, 65_536);
        nack.on_packet(start, 65_530);
        assert!(nack.is_idle());
        nack.reset();
        nack.on_packet(start, 1);
        assert!(nack.is_idle());
    }
}
