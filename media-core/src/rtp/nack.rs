//! Which lost packets of a publisher to request by NACK, and when (RFC 4585 §6.2.1).

use std::time::{Duration, Instant};

use super::rtt::RoundTrip;

/// A gap may close by itself for so long: packets are reordered on the path.
pub const REORDER_GUARD: Duration = Duration::from_millis(10);
/// Requests for one packet.
pub const MAX_REQUESTS: u8 = 10;
/// A packet that is missing for longer counts as lost.
pub const MAX_AGE: Duration = Duration::from_secs(1);
/// Packets that may be missing at the same time.
pub const MAX_PENDING: usize = 512;
/// After so many lost packets in a row that were requested and not retransmitted, the source counts as unresponsive: each
/// packet is requested once only, until a retransmission is received. Some clients negotiate NACK for all layers and
/// retransmit packets of one.
pub const MAX_UNANSWERED: u8 = 5;

/// Finds the gaps in one source's sequence numbers and schedules the requests. Its memory is fixed.
#[derive(Clone, Debug)]
pub struct NackGenerator {
    highest: Option<u64>,
    /// In ascending order of numbers, hence of age.
    missing: Vec<Missing>,
    requests: Vec<u16>,
    /// Number of the last keyframe's first packet: a loss before it needs no further keyframe.
    keyframe: Option<u64>,
    keyframe_needed: bool,
    /// Packets requested and lost since the last retransmission received.
    unanswered: u8,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    since: Instant,
    requested: Option<Requested>,
}

#[derive(Clone, Copy, Debug)]
struct Requested {
    last: Instant,
    times: u8,
}

/// A packet received after it was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Time since the request, if there was only one.
    pub round_trip: Option<Duration>,
}

impl Default for NackGenerator {
    fn default() -> NackGenerator {
        NackGenerator::new()
    }
}

impl NackGenerator {
    /// Before the first packet.
    pub fn new() -> NackGenerator {
        NackGenerator {
            highest: None,
            missing: Vec::with_capacity(MAX_PENDING),
            requests: Vec::with_capacity(MAX_PENDING),
            keyframe: None,
            keyframe_needed: false,
            unanswered: 0,
        }
    }

    /// Notes a packet by its extended sequence number, a restored retransmission too; `Some` if it was requested. A gap
    /// larger than [`MAX_PENDING`], alone or with the packets missing before, clears them all and needs a keyframe.
    #[inline]
    pub fn on_packet(&mut self, now: Instant, sequence: u64) -> Option<Answer> {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return None;
        };
        if sequence <= highest {
            if self.missing.is_empty() {
                return None;
            }
            let index = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence).ok()?;
            let requested = self.missing.remove(index).requested?;
            self.unanswered = 0;
            let only = (requested.times == 1).then(|| now.saturating_duration_since(requested.last));
            return Some(Answer { round_trip: only });
        }
        self.highest = Some(sequence);
        let gap = sequence - highest - 1;
        if gap == 0 {
            return None;
        }
        if gap > (MAX_PENDING - self.missing.len()) as u64 {
            self.missing.clear();
            self.keyframe_needed = true;
            return None;
        }
        let fresh = |sequence| Missing { sequence, since: now, requested: None };
        self.missing.extend((highest + 1..sequence).map(fresh));
        None
    }

    /// True if the packet was requested and has not come since.
    pub fn has_requested(&self, sequence: u64) -> bool {
        let found = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence);
        found.is_ok_and(|index| self.missing[index].requested.is_some())
    }

    /// Notes that a keyframe begins with this packet.
    pub fn on_keyframe(&mut self, sequence: u64) {
        self.keyframe = self.keyframe.max(Some(sequence));
    }

    /// The numbers to request now, in ascending order. Packets that were requested too often, or are missing for too long,
    /// count as lost and need a keyframe.
    pub fn poll(&mut self, now: Instant, round_trip: &mut RoundTrip) -> &[u16] {
        self.requests.clear();
        let max_requests = if self.is_answered() { MAX_REQUESTS } else { 1 };
        let interval = round_trip.interval();
        self.missing.retain_mut(|missing| {
            let age = now.saturating_duration_since(missing.since);
            let wait = match missing.requested {
                None => age < REORDER_GUARD,
                Some(requested) => now.saturating_duration_since(requested.last) < interval,
            };
            let times = missing.requested.map_or(0, |requested| requested.times);
            if age >= MAX_AGE || (!wait && times >= max_requests) {
                self.unanswered = self.unanswered.saturating_add(u8::from(times > 0));
                self.keyframe_needed |= self.keyframe < Some(missing.sequence);
                return false;
            }
            if !wait {
                if let Some(requested) = missing.requested {
                    round_trip.on_repeat(now, requested.last);
                }
                missing.requested = Some(Requested { last: now, times: times + 1 });
                self.requests.push(missing.sequence as u16);
            }
            true
        });
        &self.requests
    }

    /// False while the source is unresponsive to requests.
    pub fn is_answered(&self) -> bool {
        self.unanswered < MAX_UNANSWERED
    }

    /// True once after packets were lost: only a keyframe repairs the video.
    pub fn take_keyframe_needed(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_needed)
    }

    /// True if no packet is missing, so that there is nothing to poll for.
    pub fn is_idle(&self) -> bool {
        self.missing.is_empty()
    }

    /// Forgets everything but whether the source responds, as when it restarts.
    pub fn reset(&mut self) {
        self.highest = None;
        self.missing.clear();
        self.keyframe = None;
        self.keyframe_needed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// A settled round-trip time.
    fn round_trip(start: Instant, millis: u64) -> RoundTrip {
        let mut round_trip = RoundTrip::new();
        for _ in 0..100 {
            round_trip.on_sample(start, Duration::from_millis(millis));
        }
        round_trip
    }

    /// A generator that misses 101 and 102 since `start`.
    fn with_gap(start: Instant) -> NackGenerator {
        let mut nack = NackGenerator::new();
        nack.on_packet(start, 65_636);
        nack.on_packet(start, 65_639);
        nack
    }

    #[test]
    fn a_gap_is_requested_after_the_reorder_guard() {
        // RTCP-09
        let start = Instant::now();
        let (mut nack, mut rtt) = (with_gap(start), round_trip(start, 50));
        assert!(nack.poll(at(start, 9), &mut rtt).is_empty());
        assert_eq!(nack.poll(at(start, 10), &mut rtt), [101, 102]);
        assert!(nack.poll(at(start, 11), &mut rtt).is_empty());
    }

    #[test]
    fn packets_received_out_of_order_are_never_requested() {
        // RTCP-09
        let start = Instant::now();
        let (mut nack, mut rtt) = (with_gap(start), round_trip(start, 50));
        assert_eq!(nack.on_packet(at(start, 3), 65_638), None);
        assert_eq!(nack.on_packet(at(start, 4), 65_638), None);
        assert_eq!(nack.poll(at(start, 10), &mut rtt), [101]);
        assert!(nack.on_packet(at(start, 60), 65_637).is_some());
        assert!(nack.is_idle());
        assert!(nack.poll(at(start, 500), &mut rtt).is_empty());
        assert!(!nack.take_keyframe_needed());
    }

    #[test]
    fn only_a_retransmission_after_a_single_request_is_a_sample() {
        // RTCP-09
        let start = Instant::now();
        let (mut nack, mut rtt) = (with_gap(start), round_trip(start, 50));
        nack.poll(at(start, 10), &mut rtt);
        let first = Answer { round_trip: Some(Duration::from_millis(43)) };
        assert_eq!(nack.on_packet(at(start, 53), 65_637), Some(first));
        assert_eq!(nack.on_packet(at(start, 54), 65_637), None, "a second copy");
        assert_eq!(nack.poll(at(start, 70), &mut rtt), [102]);
        assert_eq!(nack.on_packet(at(start, 80), 65_638), Some(Answer { round_trip: None }));
    }

    #[test]
    fn requests_repeat_once_per_round_trip() {
        // RTCP-09
        let start = Instant::now();
        for (rtt, interval) in [(50, 50), (5, 20)] {
            let (mut nack, mut rtt) = (with_gap(start), round_trip(start, rtt));
            rtt.on_sample(at(start, 11), rtt.smoothed().unwrap());
            let times: Vec<_> = (0..200).filter(|&ms| !nack.poll(at(start, ms), &mut rtt).is_empty()).collect();
            assert_eq!(times[..3], [10, 10 + interval, 10 + 2 * interval]);
            // Nothing is received at all: the interval grows.
            assert_eq!(times.get(3).copied().unwrap_or(10 + 4 * interval), 10 + 4 * interval);
        }
    }

    #[test]
    fn requests_are_bounded_in_number_and_in_time() {
        // RTCP-09
        let start = Instant::now();
        for (millis, most) in [(1, 10), (20, 10), (300, 4)] {
            let (mut nack, mut rtt) = (with_gap(start), round_trip(start, millis));
            let mut sent = 0;
            for ms in 0..1_001 {
                // Other packets are retransmitted, so that the interval stays what it is.
                rtt.on_sample(at(start, ms), Duration::from_millis(millis));
                assert!(!nack.take_keyframe_needed() || nack.is_idle());
                sent += usize::from(!nack.poll(at(start, ms), &mut rtt).is_empty());
            }
            assert_eq!(sent, most);
            assert!(nack.is_idle());
        }
        let (mut nack, mut rtt) = (with_gap(start), round_trip(start, 50));
        nack.poll(at(start, 1_000), &mut rtt);
        assert!(nack.take_keyframe_needed());
        assert!(!nack.take_keyframe_needed());
    }

    #[test]
    fn a_keyframe_received_since_needs_no_other_one() {
        // RTCP-09, RTCP-11
        let start = Instant::now();
        let (mut nack, mut rtt) = (with_gap(start), round_trip(start, 50));
        nack.on_packet(at(start, 5), 65_640);
        nack.on_keyframe(65_640);
        nack.poll(at(start, 1_000), &mut rtt);
        assert!(nack.is_idle() && !nack.take_keyframe_needed());
    }

    #[test]
    fn an_unresponsive_source_gets_one_request_a_packet_until_it_responds() {
        // Q-07, RTCP-09
        let start = Instant::now();
        let mut nack = NackGenerator::new();
        let mut rtt = round_trip(start, 50);
        let mut asked = Vec::new();
        // One packet in twenty is lost, every 200 ms.
        for ms in (0..20_000).step_by(10) {
            let number = ms / 10;
            if number % 20 != 19 {
                nack.on_packet(at(start, ms), 65_536 + number);
            }
            asked.extend_from_slice(nack.poll(at(start, ms), &mut rtt));
        }
        let times = |number: u16| asked.iter().filter(|&&asked| asked == number).count();
        assert!(times(19) >= 3, "{}", times(19));
        assert!((400..1_900).step_by(20).all(|number| times(number + 19) == 1));
        assert!(!nack.is_answered());
        nack.on_packet(at(start, 20_000), 65_536 + 2_001);
        nack.poll(at(start, 20_010), &mut rtt);
        assert!(nack.on_packet(at(start, 20_020), 65_536 + 2_000).is_some());
        assert!(nack.is_answered());
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
        nack.poll(at(start, 10), &mut RoundTrip::new());
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
