//! The stream's own sequence numbers and timestamps, which go on without a break when the publisher restarts.
//!
//! Done once per stream, so that a restart costs viewers nothing: what they see is this time line plus a constant.

use std::collections::VecDeque;
use std::time::Instant;

/// Padding-only packets that are remembered, to place late packets rightly.
const MAX_SKIPPED: usize = 64;
/// A longer gap is closed: a receiver could no longer tell it from a step back (SRTP-08).
const MAX_GAP: u64 = 1 << 14;

/// Maps one source after another onto one time line.
#[derive(Debug)]
pub struct Timeline {
    clock_rate: u32,
    source: Option<Source>,
    /// Highest sequence number given out.
    last_sequence: Option<u64>,
    /// Timestamp that belongs to it, and when it came.
    last_timestamp: u32,
    last_arrival: Option<Instant>,
}

#[derive(Debug)]
struct Source {
    /// The source's extended sequence number that became `base`.
    first: u64,
    base: u64,
    timestamp_offset: u32,
    /// Extended sequence numbers of padding-only packets, ascending; they leave no gap.
    skipped: VecDeque<u64>,
    /// Padding-only packets older than `skipped` holds.
    forgotten: u64,
    /// Highest extended sequence number that was given a place.
    highest: u64,
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
    /// A time line without a source; `clock_rate` in Hz.
    pub fn new(clock_rate: u32) -> Timeline {
        Timeline { clock_rate, source: None, last_sequence: None, last_timestamp: 0, last_arrival: None }
    }

    /// The next packet comes from a new source (restart, other SSRC) or after packets that were withheld on purpose.
    pub fn end_source(&mut self) {
        self.source = None;
    }

    /// True between the end of a source and the first packet of the next.
    pub fn is_between_sources(&self) -> bool {
        self.source.is_none()
    }

    /// The RTP clock of the present source, in Hz.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The RTP clock of the coming source, in Hz.
    pub fn set_clock_rate(&mut self, clock_rate: u32) {
        self.clock_rate = clock_rate;
    }

    /// Timestamp and arrival of the newest packet.
    pub fn newest(&self) -> Option<(u32, Instant)> {
        Some((self.last_timestamp, self.last_arrival?))
    }

    /// What to add to a timestamp of the present source.
    pub fn timestamp_offset(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.timestamp_offset)
    }

    /// The place of a packet with extended sequence number `extended` and RTP time `timestamp`; `None` if it lies
    /// before the source's first packet, where no number is free.
    pub fn place(&mut self, now: Instant, extended: u64, timestamp: u32) -> Option<Place> {
        if self.source.as_ref().is_none_or(|source| extended > source.highest + MAX_GAP) {
            self.begin(now, extended, timestamp);
        }
        let source = self.source.as_mut()?;
        let distance = extended.checked_sub(source.first)?;
        let skipped_before = source.forgotten + source.skipped.partition_point(|&skipped| skipped < extended) as u64;
        let place = Place {
            // A late packet from before the forgotten ones may not fit.
            sequence: source.base + distance.checked_sub(skipped_before)?,
            timestamp: timestamp.wrapping_add(source.timestamp_offset),
        };
        source.highest = source.highest.max(extended);
        if self.last_sequence.is_none_or(|last| place.sequence > last) {
            self.last_sequence = Some(place.sequence);
            self.last_timestamp = place.timestamp;
            self.last_arrival = Some(now);
        }
        Some(place)
    }

    /// A padding-only packet takes no place: later packets close the gap (RTP-05, RTP-09).
    pub fn skip(&mut self, extended: u64) {
        let Some(source) = &mut self.source else { return };
        // One that comes late leaves its gap: the packets behind it have their numbers already.
        if extended <= source.highest {
            return;
        }
        if source.skipped.back().is_some_and(|&last| last >= extended) {
            return;
        }
        if source.skipped.len() == MAX_SKIPPED {
            source.skipped.pop_front();
            source.forgotten += 1;
        }
        source.skipped.push_back(extended);
    }

    fn begin(&mut self, now: Instant, extended: u64, timestamp: u32) {
        let (base, timestamp_offset) = match (self.last_sequence, self.last_arrival) {
            (Some(last), Some(arrival)) => {
                // Time advances by what really passed, and by at least one tick (RTP-06).
                let elapsed = now.saturating_duration_since(arrival).as_secs_f64() * f64::from(self.clock_rate);
                let next = self.last_timestamp.wrapping_add((elapsed as u64).max(1) as u32);
                (last + 1, next.wrapping_sub(timestamp))
            }
            _ => (0, 0),
        };
        self.source = Some(Source {
            first: extended,
            base,
            timestamp_offset,
            skipped: VecDeque::with_capacity(MAX_SKIPPED),
            forgotten: 0,
            highest: extended,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn place(sequence: u64, timestamp: u32) -> Option<Place> {
        Some(Place { sequence, timestamp })
    }

    // RTP-05
    #[test]
    fn lost_packets_stay_gaps_and_late_ones_find_their_slot() {
        let now = Instant::now();
        let mut timeline = Timeline::new(90_000);
        assert_eq!(timeline.place(now, 70_000, 5), place(0, 5));
        assert_eq!(timeline.place(now, 70_003, 6), place(3, 6));
        assert_eq!(timeline.place(now, 70_001, 5), place(1, 5));
        assert_eq!(timeline.place(now, 69_999, 5), None);
    }

    // RTP-09
    #[test]
    fn padding_only_packets_leave_no_gap() {
        let now = Instant::now();
        let mut timeline = Timeline::new(90_000);
        assert_eq!(timeline.place(now, 100, 0), place(0, 0));
        timeline.skip(101);
        timeline.skip(102);
        assert_eq!(timeline.place(now, 104, 0), place(2, 0));
        assert_eq!(timeline.place(now, 103, 0), place(1, 0));
        // One that comes too late to be closed.
        timeline.skip(104);
        assert_eq!(timeline.place(now, 105, 0), place(3, 0));
    }

    #[test]
    fn more_padding_than_is_remembered_still_leaves_no_gap() {
        let now = Instant::now();
        let mut timeline = Timeline::new(90_000);
        timeline.place(now, 0, 0);
        for extended in 1..=200 {
            timeline.skip(extended);
        }
        assert_eq!(timeline.place(now, 201, 0), place(1, 0));
    }

    // SRTP-08
    #[test]
    fn a_gap_too_long_for_any_receiver_is_closed() {
        let now = Instant::now();
        let mut timeline = Timeline::new(90_000);
        timeline.place(now, 70_000, 10);
        assert_eq!(timeline.place(now, 70_000 + 16_384, 20), place(16_384, 20));
        assert_eq!(timeline.place(now, 70_000 + 40_000, 30).map(|place| place.sequence), Some(16_385));
    }

    // RTP-15, RTP-06
    #[test]
    fn a_restarted_publisher_goes_on_where_the_old_one_ended() {
        let start = Instant::now();
        let mut timeline = Timeline::new(90_000);
        timeline.place(start, 65_536 + 10, 1_000);
        timeline.place(start, 65_536 + 11, 4_000);
        timeline.end_source();
        assert!(timeline.is_between_sources());
        let later = start + Duration::from_secs(2);
        assert_eq!(timeline.place(later, 65_536 + 40_000, 777), place(2, 4_000 + 180_000));
        assert_eq!(timeline.place(later, 65_536 + 40_001, 777 + 3_000), place(3, 4_000 + 183_000));
    }

    #[test]
    fn timestamps_wrap_without_a_break() {
        let start = Instant::now();
        let mut timeline = Timeline::new(48_000);
        timeline.place(start, 65_536, u32::MAX - 100);
        timeline.end_source();
        let next = timeline.place(start, 90_000, 9).unwrap();
        assert_eq!(next.timestamp, u32::MAX - 99);
    }
}
