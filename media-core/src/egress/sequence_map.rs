//! The record of which of the stream's packets a viewer was sent under which sequence number.
//!
//! The viewer's numbers grow without a gap but for packets that are lost or late before they reach the server. Where packets
//! are dropped on purpose, and where the viewer restarts from the cache, a new run begins, and the numbers go on by one.
//!
//! No number stands for two packets (SRTP-09): a new run begins past all numbers that were given out, and no packet of an
//! earlier run is sent for the first time any more. What a packet of a run looks like is fixed for the run: whatever changes
//! it begins a new one.

use std::collections::VecDeque;

use super::fast_start::Compression;

/// After a longer gap the numbers go on without it, and what lies further back is not sent any more: a receiver could take a
/// step of half the circle for one in the other direction, and so could our own SRTP, which would then use an index twice
/// (SRTP-08, SRTP-09).
const MAX_GAP: u64 = 1 << 14;
/// Earlier runs that are kept for retransmissions; NACKs rarely reach further back than a second.
const MAX_EARLIER: usize = 16;

/// Packets with consecutive numbers in the stream and towards the viewer.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The stream's number of the first packet.
    first: u64,
    /// One past the stream's highest number that was sent.
    end: u64,
    /// The viewer's number of `first`.
    number: u16,
    /// How timestamps were compressed.
    compression: Option<Compression>,
}

impl Run {
    fn number_of(&self, sequence: u64) -> u16 {
        self.number.wrapping_add(sequence.wrapping_sub(self.first) as u16)
    }
}

/// Where a number that a viewer names was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The stream's number of the packet.
    pub(super) sequence: u64,
    /// The viewer's number of it.
    pub(super) number: u16,
    /// Written once more with the present settings, the packet is the same to the last bit: it belongs to the present run.
    pub(super) is_reproducible: bool,
    /// How timestamps were compressed when it was sent.
    compression: Option<Compression>,
}

impl Found {
    /// The viewer's timestamp for one of the stream's, as it was when the packet was sent.
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        self.compression.map_or(timestamp, |compression| compression.timestamp(timestamp))
    }
}

/// Runs before the present one, the newest last.
struct EarlierRuns(VecDeque<Run>);

impl EarlierRuns {
    fn push(&mut self, run: Run) {
        if self.0.len() == MAX_EARLIER {
            self.0.pop_front();
        }
        self.0.push_back(run);
    }
}

/// The record, the present run in front.
#[repr(C)]
pub(super) struct SequenceMap {
    /// The stream's number of the first packet of the present run, which began if `started`.
    first: u64,
    /// One past the stream's highest number that was sent.
    end: u64,
    /// Made with the first of them: most viewers have none.
    earlier: Option<Box<EarlierRuns>>,
    /// How timestamps of the present run are compressed.
    compression: Option<Compression>,
    /// The viewer's number of `first`.
    number: u16,
    started: bool,
    /// Packets were withheld since `end`: the next one begins a new run.
    discontinuity: bool,
}

impl SequenceMap {
    /// An empty record; the first packet gets `number`. Below 2^15, loss of the first packets cannot mislead the receiver's
    /// rollover count (SRTP-07).
    pub(super) fn new(number: u16) -> SequenceMap {
        SequenceMap {
            first: 0,
            end: 0,
            earlier: None,
            compression: None,
            number: number & 0x7fff,
            started: false,
            discontinuity: false,
        }
    }

    /// True once a packet was given a number.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// One past the stream's highest number that was sent.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// A packet is not sent on purpose: the next one closes its gap (RTP-05).
    pub(super) fn withhold(&mut self, sequence: u64) {
        self.discontinuity |= sequence >= self.end;
    }

    /// The number under which a packet may be sent for the first time; `None` if its place has passed.
    /// [`SequenceMap::sent`] follows.
    #[inline]
    pub(super) fn place(&mut self, sequence: u64) -> Option<u16> {
        let goes_on = self.started && !self.discontinuity;
        let is_near = sequence <= self.end + MAX_GAP && sequence + MAX_GAP >= self.end;
        if !goes_on || sequence < self.first || !is_near {
            self.place_in_new_run(sequence)?;
        }
        Some(self.number_of(sequence))
    }

    #[cold]
    fn place_in_new_run(&mut self, sequence: u64) -> Option<()> {
        // One received out of order from before the present run, from before packets that were withheld, or from too far back:
        // the numbers past it are taken.
        if self.started && sequence < self.end {
            return None;
        }
        self.begin_run(sequence, self.compression);
        Some(())
    }

    /// The viewer's timestamp for one of the stream's.
    #[inline]
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        self.compression.map_or(timestamp, |compression| compression.timestamp(timestamp))
    }

    /// Ends a compression that is long over, when this packet is next.
    #[inline]
    pub(super) fn expire_compression(&mut self, sequence: u64, timestamp: u32) {
        if let Some(compression) = self.compression
            && sequence >= self.end
            && compression.is_over(timestamp)
        {
            self.begin_next_run(None);
        }
    }

    /// A packet went out under the number that it was given.
    #[inline]
    pub(super) fn sent(&mut self, sequence: u64) {
        self.end = self.end.max(sequence + 1);
    }

    /// The viewer goes on with this packet, which may lie before those that it was sent, under new numbers, and with these
    /// timestamps.
    pub(super) fn restart_at(&mut self, sequence: u64, compression: Option<Compression>) {
        if self.started {
            self.begin_run(sequence, compression);
        } else {
            self.compression = compression;
        }
    }

    /// Packets from here on are written in another way: those that were sent can be repaired by RTX alone.
    pub(super) fn begin_new_run(&mut self) {
        if self.started {
            self.begin_next_run(self.compression);
        }
    }

    /// Begins a run with the packets that were not sent yet.
    #[cold]
    fn begin_next_run(&mut self, compression: Option<Compression>) {
        if !self.started {
            self.compression = compression;
            return;
        }
        let discontinuity = self.discontinuity;
        self.begin_run(self.end, compression);
        self.discontinuity = discontinuity;
    }

    /// The packet that was sent under a number, if the record still has it. The numbers of all runs follow on each
    /// other.
    pub(super) fn find(&self, number: u16) -> Option<Found> {
        if !self.started {
            return None;
        }
        let present = Run { first: self.first, end: self.end, number: self.number, compression: self.compression };
        let last_number = present.number_of(self.end).wrapping_sub(1);
        let mut back = u64::from(last_number.wrapping_sub(number));
        if back > MAX_GAP {
            return None;
        }
        let earlier = self.earlier.iter().flat_map(|runs| runs.0.iter().rev());
        for (age, run) in std::iter::once(&present).chain(earlier).enumerate() {
            let length = run.end - run.first;
            if back < length {
                let sequence = run.end - 1 - back;
                return Some(Found { sequence, number, is_reproducible: age == 0, compression: run.compression });
            }
            back -= length;
        }
        None
    }

    fn number_of(&self, sequence: u64) -> u16 {
        self.number.wrapping_add(sequence.wrapping_sub(self.first) as u16)
    }

    fn begin_run(&mut self, sequence: u64, compression: Option<Compression>) {
        if self.started {
            let number = self.number_of(self.end);
            if self.end > self.first {
                let run = Run { first: self.first, end: self.end, number: self.number, compression: self.compression };
                let none = || Box::new(EarlierRuns(VecDeque::with_capacity(MAX_EARLIER)));
                self.earlier.get_or_insert_with(none).push(run);
            }
            self.number = number;
        }
        (self.first, self.end, self.compression) = (sequence, sequence, compression);
        self.started = true;
        self.discontinuity = false;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use std::time::{Duration, Instant};

    use super::*;
    use crate::egress::fast_start::FastStart;

    /// Sends a packet for the first time; its number.
    fn send(map: &mut SequenceMap, sequence: u64) -> Option<u16> {
        let number = map.place(sequence)?;
        map.sent(sequence);
        Some(number)
    }

    fn found(map: &SequenceMap, number: u16) -> Option<(u64, bool)> {
        map.find(number).map(|found| (found.sequence, found.is_reproducible))
    }

    // RTP-05
    #[test]
    fn lost_packets_leave_a_gap_and_withheld_ones_none() {
        let mut map = SequenceMap::new(10);
        assert_eq!(found(&map, 10), None);
        assert_eq!([100, 102, 101].map(|sequence| send(&mut map, sequence)), [Some(10), Some(12), Some(11)]);
        map.withhold(103);
        map.withhold(104);
        assert_eq!(send(&mut map, 105), Some(13));
        // Received out of order, from before the discontinuity.
        assert_eq!([99, 103].map(|sequence| send(&mut map, sequence)), [None, None]);
        assert_eq!(send(&mut map, 106), Some(14));
    }

    // RTCP-08, SRTP-09
    #[test]
    fn numbers_of_earlier_runs_are_found_and_only_the_present_one_is_reproducible() {
        let mut map = SequenceMap::new(0x7fff);
        for sequence in 0..10 {
            send(&mut map, sequence);
        }
        map.withhold(10);
        send(&mut map, 20);
        send(&mut map, 22);
        // A restart from a cached keyframe sends packets a second time.
        map.restart_at(8, None);
        for sequence in 8..30 {
            send(&mut map, sequence);
        }
        let number = |offset: u16| 0x7fff_u16.wrapping_add(offset);
        let expected = [(0, Some((0, false))), (9, Some((9, false))), (10, Some((20, false))), (12, Some((22, false)))];
        for (offset, expected) in expected {
            assert_eq!(found(&map, number(offset)), expected, "{offset}");
        }
        for offset in 13..35 {
            assert_eq!(found(&map, number(offset)), Some((u64::from(offset) - 5, true)));
        }
        assert_eq!(found(&map, number(35)), None, "not given out");
        assert_eq!(found(&map, number(0).wrapping_sub(1)), None, "before the first");
    }

    #[test]
    fn the_oldest_runs_are_forgotten() {
        let mut map = SequenceMap::new(0);
        for run in 0..40 {
            send(&mut map, 10 * run);
            map.withhold(10 * run + 1);
        }
        assert_eq!(found(&map, 39), Some((390, true)));
        assert_eq!(found(&map, 39 - 16), Some((230, false)));
        assert_eq!(found(&map, 39 - 17), None);
    }

    // M1, SRTP-08: to SRTP it would lie ahead.
    #[test]
    fn what_is_too_far_back_is_neither_sent_nor_found() {
        let mut map = SequenceMap::new(0);
        for sequence in [0, 1, 10_000, 17_000] {
            assert_eq!(send(&mut map, sequence), Some(sequence as u16));
        }
        assert_eq!((found(&map, 1), found(&map, 10_000)), (None, Some((10_000, true))));
        assert_eq!((send(&mut map, 2), send(&mut map, 10_001)), (None, Some(10_001)));
    }

    // M1, SRTP-09
    #[test]
    fn timestamps_of_a_run_stay_what_they_were_when_a_fast_start_is_long_over() {
        let start = FastStart::new(Instant::now(), 90_000, 0, 900_000, Duration::from_secs(10));
        let mut map = SequenceMap::new(0);
        map.restart_at(5, Some(start.compression));
        let mut timestamps = Vec::new();
        for (sequence, timestamp) in [(5, 0), (6, 90_000), (7, 180_000)] {
            map.expire_compression(sequence, timestamp);
            timestamps.push((send(&mut map, sequence).unwrap(), timestamp, map.timestamp(timestamp)));
        }
        let far = 900_000 + 90_000 * 200;
        // Received out of order, it is no reason; in order, it is, and it has no other number for that.
        map.expire_compression(6, far);
        assert_eq!(map.timestamp(0), 900_000);
        map.expire_compression(9, far);
        assert_eq!((send(&mut map, 9), map.timestamp(far), map.timestamp(0)), (Some(4), far, 0));
        for (number, original, sent) in timestamps {
            let found = map.find(number).unwrap();
            assert_eq!((found.timestamp(original), found.is_reproducible), (sent, false));
        }
    }

    // SRTP-08, SRTP-09
    #[test]
    fn no_number_stands_for_two_packets_over_drops_gaps_and_restarts() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut map = SequenceMap::new(random.random());
            let (mut sequence, mut extended, mut last) = (0_u64, 0_u64, None::<u16>);
            let mut given = std::collections::HashMap::new();
            for step in 0..20_000_u64 {
                match random.random_range(0..100) {
                    0..3 => {
                        map.withhold(sequence);
                        sequence += random.random_range(1..100_000);
                    }
                    3..5 => sequence += random.random_range(1..100_000),
                    5 => {
                        sequence = sequence.saturating_sub(random.random_range(0..500));
                        map.restart_at(sequence, None);
                    }
                    _ => {}
                }
                let wanted = sequence - u64::from(random.random_ratio(1, 20)).min(sequence);
                sequence += 1;
                let Some(number) = map.place(wanted) else { continue };
                let is_new = wanted >= map.end();
                map.sent(wanted);
                // What SRTP makes of it (RFC 3711 §3.3.1).
                let delta = i64::from(number.wrapping_sub(last.unwrap_or(number)) as i16);
                extended = extended.wrapping_add_signed(delta);
                last = Some(number);
                // One received out of order may come a second time here: the same packet under the same number.
                let other = given.insert(extended, (wanted, step));
                assert!(other.is_none_or(|(known, _)| known == wanted && !is_new), "{seed}, {step}");
            }
        }
    }
}
