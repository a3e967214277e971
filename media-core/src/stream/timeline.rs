//! The stream's own sequence numbers and timestamps, continuous over a restart of the publisher and over steps and drift of
//! its RTP clock. Padding-only packets take no number, and numbers can be reserved for packets that the server inserts.
//!
//! Done once per stream, so that a restart costs viewers nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::media::MediaKind;
use crate::rtp::sequence::{timestamp_distance, timestamp_is_newer};

use super::encoding::Standing;
use super::rtp_clock::{ClockSteps, RtpClock};

/// Shifts of the numbers that are remembered, for packets received out of order.
const MAX_SHIFTS: usize = 64;
/// Time bases that are remembered, likewise.
const MAX_TIME_BASES: usize = 64;
/// A longer gap is closed: it is an outage of many seconds, or a sender that restarted (RFC 3550 A.1), and nobody waits for
/// the packets in it. A receiver could even take a much longer one for a step back (SRTP-08).
const MAX_GAP: u64 = 3_000;

/// Maps one RTP stream after another onto one time line.
#[derive(Debug)]
pub struct Timeline {
    clock_rate: u32,
    clock: RtpClock,
    segment: Option<Segment>,
    /// The timestamp of the next segment's first packet, as the track's other encodings have it.
    next_timestamp: Option<u32>,
    /// Ticks by which the present segment is to be moved.
    misaligned: i64,
    /// Highest sequence number given out.
    last_sequence: Option<u64>,
    /// Timestamp of that packet, and when it was received.
    last_timestamp: u32,
    last_arrival: Option<Instant>,
}

/// The part of the time line that one RTP stream fills.
#[derive(Debug)]
struct Segment {
    /// The RTP stream's extended sequence number that became `base`.
    first: u64,
    base: u64,
    timestamp_offset: u32,
    /// Of that, what brought it into line with the track's other encodings after its begin.
    aligned: u32,
    /// Where that offset changed, ascending.
    time_bases: VecDeque<TimeBase>,
    /// The sender's RTP time of the newest packet.
    newest_time: u32,
    /// Where the numbers were shifted, ascending: each applies up to the next.
    shifts: VecDeque<Shift>,
    /// The one that applies before `shifts`.
    oldest: Shift,
    /// Highest extended sequence number that was given a place.
    highest: u64,
    /// Highest extended sequence number received, padding included.
    newest: u64,
}

/// What is added to the numbers from one packet on.
#[derive(Clone, Copy, Debug)]
struct Shift {
    /// Extended sequence number.
    from: u64,
    by: i64,
}

/// A packet from which on timestamps have another offset: the sender's RTP clock paused, stepped or drifted.
#[derive(Clone, Copy, Debug)]
struct TimeBase {
    /// Its extended sequence number.
    from: u64,
    /// The sender's RTP time of the newest packet before, and of this one.
    times: (u32, u32),
    offset_before: u32,
}

/// A packet's place on the time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream's sequence number.
    pub sequence: u64,
    /// The stream's RTP timestamp.
    pub timestamp: u32,
}

impl Timeline {
    /// A time line without packets; `clock_rate` in Hz.
    pub fn new(kind: MediaKind, clock_rate: u32) -> Timeline {
        let clock = RtpClock::new(kind, clock_rate);
        Timeline {
            clock_rate,
            clock,
            segment: None,
            next_timestamp: None,
            misaligned: 0,
            last_sequence: None,
            last_timestamp: 0,
            last_arrival: None,
        }
    }

    /// Goes on after these numbers of another shard, which knows them from before this one lost its own.
    pub fn resume(&mut self, &Standing { end, timestamp, arrived }: &Standing) {
        (self.last_sequence, self.last_timestamp, self.last_arrival) = (end.checked_sub(1), timestamp, Some(arrived));
        self.end_segment();
    }

    /// The next packet is of another RTP stream (other SSRC, restart), or of another clock.
    pub fn end_segment(&mut self) {
        self.segment = None;
    }

    /// What is on time now has this timestamp; with it, when the newest packet arrived. `None` if nothing was received.
    pub fn present(&self, now: Instant) -> Option<(u32, Instant)> {
        let (timestamp, arrival) = self.newest()?;
        let present = if self.segment.is_some() { self.clock.present_at(now) } else { None };
        let passed = ticks_between(arrival, now, self.clock_rate);
        Some((present.unwrap_or(timestamp.wrapping_add(passed)), arrival))
    }

    /// The next packet begins a segment, at this timestamp.
    pub fn begin_at(&mut self, timestamp: Option<u32>) {
        self.next_timestamp = timestamp;
    }

    /// The timestamps of the present segment are found to be so many ticks too low. From the next frame on they are right.
    pub fn set_misaligned(&mut self, ticks: i64) {
        self.misaligned = ticks;
    }

    /// True until the first packet of the next RTP stream is placed.
    pub fn is_between_segments(&self) -> bool {
        self.segment.is_none()
    }

    /// The RTP clock of the present segment, in Hz.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The RTP clock of the next segment, in Hz.
    pub fn set_clock_rate(&mut self, clock_rate: u32) {
        self.clock_rate = clock_rate;
    }

    /// Timestamp and arrival of the newest packet.
    pub fn newest(&self) -> Option<(u32, Instant)> {
        Some((self.last_timestamp, self.last_arrival?))
    }

    /// What to add to a timestamp of the present RTP stream.
    pub fn timestamp_offset(&self) -> Option<u32> {
        self.segment.as_ref().map(|segment| segment.timestamp_offset)
    }

    /// Of the offset, what brought it into line with the track's other encodings: no step of the sender's clock.
    pub fn aligned(&self) -> u32 {
        self.segment.as_ref().map_or(0, |segment| segment.aligned)
    }

    /// Which wall-clock time belongs to its timestamps, by the arrival of the fastest frames; `unix` is when the newest frame
    /// arrived.
    pub fn arrival(&self, unix: Duration) -> Option<ClockPoint> {
        Some(ClockPoint { unix, rtp: self.clock.present()?, clock_rate: self.clock_rate })
    }

    /// The sender's RTP time of the newest packet.
    pub fn newest_time(&self) -> Option<u32> {
        self.segment.as_ref().map(|segment| segment.newest_time)
    }

    /// The sender sends frames in another order than they are shown.
    pub fn set_reorders(&mut self, reorders: bool) {
        self.clock.set_reorders(reorders);
    }

    /// True if numbers can be reserved in front of this packet: the one before it was received, or none is expected.
    pub fn can_insert_before(&self, extended: u64) -> bool {
        let fits = |segment: &Segment| extended == segment.newest + 1 || extended > segment.highest + MAX_GAP;
        self.segment.as_ref().is_none_or(fits)
    }

    /// The place of a packet with extended sequence number `extended` and RTP time `timestamp`; `None` if it lies
    /// before the first packet of its RTP stream, where no number is free.
    /// `duration` of an audio packet is in ticks, if it is known; `steps` are those of the publisher's clock. With `inserted` numbers reserved in front, only where
    /// [`can_insert_before`](Self::can_insert_before) says so.
    pub fn place_after_inserted(
        &mut self,
        now: Instant,
        (extended, timestamp, duration): (u64, u32, Option<u32>),
        inserted: u8,
        steps: &mut ClockSteps,
    ) -> Option<Place> {
        if self.segment.as_ref().is_none_or(|segment| extended > segment.highest + MAX_GAP) {
            self.begin(now, extended, timestamp);
        }
        let segment = self.segment.as_mut()?;
        // The first packet of a new frame.
        if extended > segment.highest && timestamp != segment.newest_time {
            // What was lost in front of it lasted as long.
            let packets = extended - segment.highest;
            let duration = duration.and_then(|each| each.checked_mul(packets.try_into().ok()?));
            let mut shift = self.clock.on_frame(now, timestamp.wrapping_add(segment.timestamp_offset), duration, steps);
            if self.misaligned != 0 && shift == 0 {
                let moved = self.clock.align(self.misaligned, timestamp_distance(timestamp, segment.newest_time));
                self.misaligned -= moved;
                segment.aligned = segment.aligned.wrapping_add(moved as u32);
                shift = moved;
            }
            if shift != 0 {
                segment.move_time(extended, timestamp, shift as u32);
            }
            segment.newest_time = timestamp;
        }
        if inserted > 0 {
            segment.shift(extended, i64::from(inserted));
        }
        let distance = extended.checked_sub(segment.first)?;
        let place = Place {
            sequence: segment.base + distance.checked_add_signed(segment.shift_of(extended)?)?,
            timestamp: timestamp.wrapping_add(segment.offset_of(extended, timestamp)),
        };
        segment.highest = segment.highest.max(extended);
        segment.newest = segment.newest.max(extended);
        if self.last_sequence.is_none_or(|last| place.sequence > last) {
            self.last_sequence = Some(place.sequence);
            self.last_timestamp = place.timestamp;
            self.last_arrival = Some(now);
        }
        Some(place)
    }

    /// A padding-only or withheld packet takes no number: later packets close the gap (RTP-05, RTP-09).
    pub fn skip(&mut self, extended: u64) {
        let Some(segment) = &mut self.segment else { return };
        // Received out of order it leaves its gap: later packets have their numbers already.
        if extended > segment.highest && extended >= segment.shifts.back().map_or(0, |last| last.from) {
            segment.shift(extended + 1, -1);
            segment.newest = segment.newest.max(extended);
        }
    }

    fn begin(&mut self, now: Instant, extended: u64, timestamp: u32) {
        let aligned = self.next_timestamp.take();
        self.misaligned = 0;
        let (base, first) = match (self.last_sequence, self.last_arrival) {
            (Some(last), Some(arrival)) => {
                // RTP time advances by the time that passed, and by at least one tick (RTP-06).
                let elapsed = ticks_between(arrival, now, self.clock_rate).max(1);
                let least = self.last_timestamp.wrapping_add(1);
                let aligned = aligned.map(|other| if timestamp_is_newer(least, other) { least } else { other });
                (last + 1, aligned.unwrap_or(self.last_timestamp.wrapping_add(elapsed)))
            }
            _ => (0, aligned.unwrap_or(timestamp)),
        };
        let timestamp_offset = first.wrapping_sub(timestamp);
        self.clock.begin(now, timestamp.wrapping_add(timestamp_offset), self.clock_rate);
        self.segment = Some(Segment {
            first: extended,
            base,
            timestamp_offset,
            aligned: 0,
            time_bases: VecDeque::with_capacity(MAX_TIME_BASES),
            newest_time: timestamp,
            shifts: VecDeque::with_capacity(MAX_SHIFTS),
            oldest: Shift { from: extended, by: 0 },
            highest: extended,
            newest: extended,
        });
    }
}

/// Ticks of a clock between two moments.
fn ticks_between(earlier: Instant, later: Instant, clock_rate: u32) -> u32 {
    (later.saturating_duration_since(earlier).as_secs_f64() * f64::from(clock_rate)) as u64 as u32
}

impl Segment {
    /// Timestamps from this packet on are `shift` ticks later.
    #[cold]
    fn move_time(&mut self, from: u64, timestamp: u32, shift: u32) {
        if self.time_bases.len() == MAX_TIME_BASES {
            self.time_bases.pop_front();
        }
        let times = (self.newest_time, timestamp);
        self.time_bases.push_back(TimeBase { from, times, offset_before: self.timestamp_offset });
        self.timestamp_offset = self.timestamp_offset.wrapping_add(shift);
    }

    /// The offset of a packet's timestamp. One received out of order, from around the begin of a time base, is of that which
    /// its timestamp is closer to: the packet with which it began need not be the first one of its frame.
    fn offset_of(&self, extended: u64, timestamp: u32) -> u32 {
        let distance = |time| timestamp_distance(timestamp, time).unsigned_abs();
        let is_before = |base: &&TimeBase| extended < base.from && distance(base.times.0) <= distance(base.times.1);
        let first = self.time_bases.iter().rev().take_while(is_before).last();
        first.map_or(self.timestamp_offset, |base| base.offset_before)
    }

    /// Shifts the numbers of the packets from `from` on, which lies after all earlier shifts.
    fn shift(&mut self, from: u64, by: i64) {
        let last = self.shifts.back_mut().unwrap_or(&mut self.oldest);
        let by = last.by + by;
        if last.from == from {
            last.by = by;
            return;
        }
        if self.shifts.len() == MAX_SHIFTS
            && let Some(oldest) = self.shifts.pop_front()
        {
            self.oldest = oldest;
        }
        self.shifts.push_back(Shift { from, by });
    }

    /// `None` for a packet from before the shifts that are remembered.
    fn shift_of(&self, extended: u64) -> Option<i64> {
        let end = self.shifts.partition_point(|shift| shift.from <= extended);
        let shift = end.checked_sub(1).and_then(|index| self.shifts.get(index)).unwrap_or(&self.oldest);
        (shift.from <= extended).then_some(shift.by)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use std::time::Duration;

    impl Timeline {
        /// Of a publisher's only track, with `inserted` numbers in front.
        fn insert(&mut self, now: Instant, extended: u64, timestamp: u32, inserted: u8) -> Option<Place> {
            self.place_after_inserted(now, (extended, timestamp, None), inserted, &mut ClockSteps::default())
        }

        fn place(&mut self, now: Instant, extended: u64, timestamp: u32) -> Option<Place> {
            self.insert(now, extended, timestamp, 0)
        }
    }

    fn place(sequence: u64, timestamp: u32) -> Option<Place> {
        Some(Place { sequence, timestamp })
    }

    // RTP-05
    #[test]
    fn lost_packets_leave_gaps_which_packets_received_out_of_order_fill() {
        let now = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        assert_eq!(timeline.place(now, 70_000, 5), place(0, 5));
        assert_eq!(timeline.place(now, 70_003, 6), place(3, 6));
        assert_eq!(timeline.place(now, 70_001, 5), place(1, 5));
        assert_eq!(timeline.place(now, 69_999, 5), None);
    }

    // RTP-06, RTCP-04
    #[test]
    fn a_pause_that_the_sender_does_not_count_is_counted_here() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timeline = Timeline::new(MediaKind::Audio, 48_000);
        assert_eq!(timeline.place(start, 10, 0), place(0, 0));
        assert_eq!(timeline.place(at(20), 11, 960), place(1, 960));
        // Eight seconds later its RTP time has advanced by 40 ms, over the loss of one packet.
        let after = 960 + 8 * 48_000;
        assert_eq!(timeline.place(at(8_020), 13, 2_880), place(3, after));
        assert_eq!(timeline.place(at(8_040), 14, 3_840), place(4, after + 960));
        // The missing one is received out of order: it is from before the pause.
        assert_eq!(timeline.place(at(8_060), 12, 1_920), place(2, 1_920));
        assert_eq!(timeline.timestamp_offset(), Some(after - 2_880));
    }

    // RTP-05
    #[test]
    fn a_pause_that_the_sender_counts_and_a_short_outage_change_nothing() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timeline = Timeline::new(MediaKind::Audio, 48_000);
        assert_eq!(timeline.place(start, 10, 0), place(0, 0));
        // Discontinuous transmission.
        assert_eq!(timeline.place(at(5_030), 11, 5 * 48_000), place(1, 5 * 48_000));
        // Delayed by the network for a second and a half.
        assert_eq!(timeline.place(at(6_530), 12, 5 * 48_000 + 960), place(2, 5 * 48_000 + 960));
    }

    // F-04
    #[test]
    fn a_step_of_the_sender_s_clock_is_a_new_time_base() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timeline = Timeline::new(MediaKind::Audio, 48_000);
        let packets = |timeline: &mut Timeline, from: u64, to: u64, ahead: i64| {
            for packet in from..to {
                let time = (960 * packet as i64 + ahead) as u32;
                assert_eq!(
                    timeline.place(at(20 * packet), packet, time),
                    place(packet, 960 * packet as u32),
                    "{packet}"
                );
            }
        };
        let mut from = 0;
        for (count, seconds) in (1..).zip([0, 90, -5, 25, 5, -20, -3_600, 3_600]) {
            packets(&mut timeline, from, 100 * count, 48_000 * seconds);
            from = 100 * count;
        }
        // Over a loss, and what was lost is received after all: of the old base and of the new one.
        packets(&mut timeline, from + 3, from + 4, 0);
        assert_eq!(
            timeline.place(at(16_100), from + 1, 960 * (from as u32 + 1)),
            place(from + 1, 960 * (from as u32 + 1))
        );
        let old = 960 * from as u32 + 3_600 * 48_000;
        assert_eq!(timeline.place(at(16_100), from, old), place(from, 960 * from as u32));
    }

    // F-04: a frame of several packets whose first one is received after the second.
    #[test]
    fn all_packets_of_a_frame_have_one_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        for frame in 0..60 {
            timeline.place(at(40 * frame), 2 * frame, 3_600 * frame as u32);
            timeline.place(at(40 * frame), 2 * frame + 1, 3_600 * frame as u32);
        }
        for extended in [121, 120] {
            assert_eq!(timeline.place(at(2_400), extended, 7), place(extended, 60 * 3_600));
        }
        assert_eq!(timeline.place(at(2_440), 122, 3_607), place(122, 61 * 3_600));
    }

    // RTP-09
    #[test]
    fn padding_only_packets_leave_no_gap() {
        let now = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        assert_eq!(timeline.place(now, 100, 0), place(0, 0));
        timeline.skip(101);
        timeline.skip(102);
        assert_eq!(timeline.place(now, 104, 0), place(2, 0));
        assert_eq!(timeline.place(now, 103, 0), place(1, 0));
        // Received too late for its gap to be closed.
        timeline.skip(104);
        assert_eq!(timeline.place(now, 105, 0), place(3, 0));
    }

    #[test]
    fn more_padding_than_is_remembered_still_leaves_no_gap() {
        let now = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        timeline.place(now, 0, 0);
        for extended in 1..=200 {
            timeline.skip(extended);
        }
        assert_eq!(timeline.place(now, 201, 0), place(1, 0));
    }

    // COD-11
    #[test]
    fn numbers_reserved_in_front_of_a_packet_shift_later_packets_alone() {
        let now = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        assert!(timeline.can_insert_before(100));
        assert_eq!(timeline.insert(now, 100, 0, 2), place(2, 0));
        assert_eq!(timeline.place(now, 102, 1), place(4, 1));
        assert!(timeline.can_insert_before(103) && !timeline.can_insert_before(104), "103 may still be received");
        assert!(!timeline.can_insert_before(101), "its neighbours have their numbers");
        assert_eq!(timeline.insert(now, 103, 2, 3), place(8, 2));
        assert_eq!(timeline.place(now, 101, 1), place(3, 1));
        // Padding in front of it closes its gap first.
        timeline.skip(104);
        assert!(timeline.can_insert_before(105));
        assert_eq!(timeline.insert(now, 105, 3, 1), place(10, 3));
        assert_eq!(timeline.place(now, 106, 4), place(11, 4));
    }

    // RTP-05, SRTP-09: whatever is received in whatever order, numbers keep the packets' order and none is given twice.
    #[test]
    fn numbers_are_unique_and_in_order_over_losses_reordering_padding_and_insertions() {
        let now = Instant::now();
        let mut random = StdRng::seed_from_u64(99);
        let mut below = |end: u64| random.random_range(0..end);
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        // Arrival order: some lost, some up to 300 late, which is beyond what is remembered of shifts.
        let mut packets = vec![(0, 999)];
        for extended in (1_000..20_000).filter(|extended| extended % 19 != 0) {
            let late = if below(30) == 0 { below(300) } else { 0 };
            packets.push((extended + late, extended));
        }
        packets.sort();
        let mut given = std::collections::BTreeMap::new();
        let (mut late_refused, mut reserved) = (0, 0);
        for (_, extended) in packets {
            if below(5) == 0 {
                timeline.skip(extended);
                continue;
            }
            let inserted = if timeline.can_insert_before(extended) { below(8).saturating_sub(5) as u8 } else { 0 };
            reserved += u64::from(inserted);
            match timeline.insert(now, extended, 0, inserted) {
                Some(place) => assert!(given.insert(extended, (place.sequence - u64::from(inserted), place)).is_none()),
                None => late_refused += 1,
            }
        }
        assert!(reserved > 500 && late_refused < 400, "{reserved} {late_refused}");
        let mut next = 0;
        for (extended, (first, place)) in given {
            assert!(first >= next, "{extended}");
            next = place.sequence + 1;
        }
    }

    // SRTP-08
    #[test]
    fn a_gap_too_long_for_any_receiver_is_closed() {
        let now = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        timeline.place(now, 70_000, 10);
        assert_eq!(timeline.place(now, 70_000 + 3_000, 20), place(3_000, 20));
        assert_eq!(timeline.place(now, 70_000 + 6_001, 30).map(|place| place.sequence), Some(3_001));
    }

    // RTP-15, RTP-06
    #[test]
    fn numbers_and_time_are_continuous_over_a_restart_of_the_publisher() {
        let start = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Video, 90_000);
        timeline.place(start, 65_536 + 10, 1_000);
        timeline.place(start, 65_536 + 11, 4_000);
        timeline.end_segment();
        assert!(timeline.is_between_segments());
        let later = start + Duration::from_secs(2);
        assert_eq!(timeline.place(later, 65_536 + 40_000, 777), place(2, 4_000 + 180_000));
        assert_eq!(timeline.place(later, 65_536 + 40_001, 777 + 3_000), place(3, 4_000 + 183_000));
    }

    #[test]
    fn timestamps_wrap_without_a_discontinuity() {
        let start = Instant::now();
        let mut timeline = Timeline::new(MediaKind::Audio, 48_000);
        timeline.place(start, 65_536, u32::MAX - 100);
        timeline.end_segment();
        let next = timeline.place(start, 90_000, 9).unwrap();
        assert_eq!(next.timestamp, u32::MAX - 99);
    }
}
