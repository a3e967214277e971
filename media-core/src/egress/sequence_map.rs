//! The record of which of the stream's packets a viewer was sent under which sequence number.
//!
//! The viewer's numbers grow without a gap but for packets that are lost or late before they reach the server. Where packets
//! are not sent on purpose, where the viewer moves to other layers, and where it restarts from the cache, a new run begins,
//! and the numbers go on by one.
//!
//! No number stands for two packets (SRTP-09): a new run begins past all numbers that were given out. Inside an encoding a
//! packet that is dropped gives up its own number and no other: one that was lost before it keeps the number that it had in
//! its run, so that it can still come. What a packet of a run looks like is fixed for the run: whatever changes it begins a
//! new one.

use std::collections::VecDeque;

use crate::layers::OperatingPoint;
use crate::rtp::layers::DescriptorOffsets;

use super::fast_start::Compression;

/// After a longer gap the numbers go on without it, and what lies further back is not sent any more: a receiver could take a
/// step of half the circle for one in the other direction, and so could our own SRTP, which would then use an index twice
/// (SRTP-08, SRTP-09).
const MAX_GAP: u16 = 1 << 14;
/// Earlier runs that are kept for retransmissions. NACKs rarely reach further back than a second or two, in which a stream of
/// 60 frames a second that is thinned to half of them has so many.
const MAX_EARLIER: usize = 128;
/// Viewers that are sent everything have few.
const FEW_EARLIER: usize = 8;

/// How the packets of a run are changed, besides their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// How timestamps are compressed.
    pub(super) compression: Option<Compression>,
    /// What is added to the numbers of payload and dependency descriptors.
    pub(super) offsets: DescriptorOffsets,
}

impl Changes {
    fn is_none(&self) -> bool {
        *self == Changes::default()
    }
}

/// The layers of a run's packets, and whether they carry the MID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) point: OperatingPoint,
    pub(super) with_mid: bool,
}

/// What separates a run from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Boundary {
    /// A packet that is not sent, or another look of what follows: packets of both are sent as they come.
    Thinned,
    /// Another encoding, with numbers of its own: none of the one before is sent for the first time any more.
    Switched,
    /// The numbers of one side may stand for other packets on the other, or what was sent cannot be made again: no packet of an
    /// earlier run is sent for the first time, or bit for bit as it was.
    Discontinuity,
}

/// Packets with consecutive numbers in an encoding and towards the viewer.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The encoding's number of the first packet.
    first: u64,
    /// One past the last that has a number.
    end: u64,
    changes: Changes,
    /// The viewer's number of `first`.
    number: u16,
    shape: Shape,
    begins: Boundary,
}

impl Run {
    fn number_of(&self, sequence: u64) -> u16 {
        self.number.wrapping_add(sequence.wrapping_sub(self.first) as u16)
    }

    /// The encoding's number of the packet that has this number, which lies at most [`MAX_GAP`] back.
    fn sequence_of(&self, number: u16) -> Option<u64> {
        let back = u64::from(self.number_of(self.end).wrapping_sub(1).wrapping_sub(number));
        (back < self.end - self.first).then(|| self.end - 1 - back)
    }
}

/// A packet's number towards the viewer, and what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) number: u16,
    pub(super) shape: Shape,
    pub(super) changes: Changes,
}

impl Assigned {
    fn of(run: &Run, number: u16) -> Assigned {
        Assigned { number, shape: run.shape, changes: run.changes }
    }

    /// The viewer's timestamp for one of the stream's.
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        self.changes.compression.map_or(timestamp, |compression| compression.timestamp(timestamp))
    }
}

/// Where a number that a viewer names was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The encoding's number of the packet.
    pub(super) sequence: u64,
    /// As it was sent.
    pub(super) assigned: Assigned,
    /// Written once more with the present settings, the packet is the same to the last bit.
    pub(super) is_reproducible: bool,
}

impl Found {
    /// The encoding of the packet.
    pub(super) fn encoding(&self) -> u8 {
        self.assigned.shape.point.encoding
    }

    #[cfg(test)]
    fn timestamp(&self, timestamp: u32) -> u32 {
        self.assigned.timestamp(timestamp)
    }
}

/// Runs before the present one, the newest last.
struct EarlierRuns(VecDeque<Run>);

impl EarlierRuns {
    fn push(&mut self, run: Run) {
        match self.0.len() {
            MAX_EARLIER => drop(self.0.pop_front()),
            FEW_EARLIER if self.0.capacity() < MAX_EARLIER => self.0.reserve_exact(MAX_EARLIER - FEW_EARLIER),
            _ => {}
        }
        self.0.push_back(run);
    }
}

/// The record, the present run in front.
#[repr(C)]
pub(super) struct SequenceMap {
    /// The encoding's number of the first packet of the present run, which began if `started`.
    first: u64,
    /// One past the encoding's highest number that was sent, or dropped.
    end: u64,
    /// How packets of the present run are changed. Of most viewers they are not.
    changes: Option<Box<Changes>>,
    /// Made with the first of them: most viewers have none.
    earlier: Option<Box<EarlierRuns>>,
    /// The viewer's number of `first`.
    number: u16,
    /// The highest of the viewer's numbers that was sent.
    last: u16,
    shape: Shape,
    started: bool,
    /// Packets were withheld since `end`: the next one begins a new run.
    discontinuity: bool,
    begins: Boundary,
}

impl SequenceMap {
    /// An empty record; the first packet gets `number`. Below 2^15, loss of the first packets cannot mislead the receiver's
    /// rollover count (SRTP-07).
    pub(super) fn new(number: u16) -> SequenceMap {
        let number = number & 0x7fff;
        SequenceMap {
            first: 0,
            end: 0,
            changes: None,
            earlier: None,
            number,
            last: number.wrapping_sub(1),
            shape: Shape { point: OperatingPoint::all_of(0), with_mid: true },
            started: false,
            discontinuity: false,
            begins: Boundary::Discontinuity,
        }
    }

    /// True once a packet was given a number.
    #[inline]
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// The layers of the present run.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// What is added to the numbers of descriptors of the present run's packets.
    #[inline]
    pub(super) fn offsets(&self) -> DescriptorOffsets {
        self.changes.as_deref().map_or(DescriptorOffsets::IDENTITY, |changes| changes.offsets)
    }

    /// How packets of the present run are changed.
    pub(super) fn changes(&self) -> Changes {
        self.changes.as_deref().copied().unwrap_or_default()
    }

    /// A packet is not sent on purpose: the next one closes its gap (RTP-05).
    pub(super) fn withhold(&mut self, sequence: u64) {
        self.discontinuity |= sequence >= self.end;
    }

    /// A packet is not needed at the viewer's point: the next one has its number, and those before that have not come keep
    /// theirs.
    pub(super) fn thin(&mut self, sequence: u64) {
        if !self.started || self.discontinuity || sequence < self.end {
            return;
        }
        if sequence - self.end > u64::from(MAX_GAP) {
            return self.withhold(sequence);
        }
        self.cut(sequence, (sequence + 1, self.number_of(sequence)), Boundary::Thinned);
    }

    /// The number under which the next packet is sent; `None` if its place has passed. [`SequenceMap::sent`] follows.
    #[inline]
    pub(super) fn place(&mut self, sequence: u64) -> Option<u16> {
        let number = self.number_of(sequence);
        let goes_on = self.started && !self.discontinuity && sequence >= self.first;
        let distance = sequence.wrapping_sub(self.end).wrapping_add(u64::from(MAX_GAP));
        if goes_on && distance <= 2 * u64::from(MAX_GAP) && self.is_near(number) {
            return Some(number);
        }
        self.place_in_new_run(sequence)
    }

    /// True if SRTP takes the number for what it is.
    #[inline]
    fn is_near(&self, number: u16) -> bool {
        number.wrapping_sub(self.last).wrapping_add(MAX_GAP) <= 2 * MAX_GAP + 1
    }

    #[cold]
    fn place_in_new_run(&mut self, sequence: u64) -> Option<u16> {
        // One received out of order from before the present run, from before packets that were withheld, or from too far back:
        // the numbers past it are taken.
        if self.started && sequence < self.end {
            return None;
        }
        let changes = self.changes();
        self.begin_run(sequence, changes);
        Some(self.number)
    }

    /// The number of a packet that was received out of order, and which the viewer has passed already; `None` if it has none.
    /// [`SequenceMap::sent_late`] follows.
    pub(super) fn place_late(&self, sequence: u64) -> Option<Assigned> {
        if !self.started || self.discontinuity {
            return None;
        }
        // Nothing was sent yet that came behind it.
        if sequence >= self.end {
            let number = self.number_of(sequence);
            let assigned = Assigned { number, shape: self.shape, changes: self.changes() };
            return (sequence - self.end <= u64::from(MAX_GAP) && self.is_near(number)).then_some(assigned);
        }
        let mut begins = Boundary::Thinned;
        for run in self.runs() {
            if begins != Boundary::Thinned {
                return None;
            }
            if (run.first..run.end).contains(&sequence) {
                let number = run.number_of(sequence);
                return self.is_near(number).then(|| Assigned::of(&run, number));
            }
            begins = run.begins;
        }
        None
    }

    /// The viewer's timestamp for one of the stream's.
    #[inline]
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        let compression = self.changes.as_deref().and_then(|changes| changes.compression);
        compression.map_or(timestamp, |compression| compression.timestamp(timestamp))
    }

    /// Ends a compression that is long over, when this packet is next.
    #[inline]
    pub(super) fn expire_compression(&mut self, sequence: u64, timestamp: u32) {
        if let Some(changes) = self.changes.as_deref()
            && sequence >= self.end
            && changes.compression.is_some_and(|compression| compression.is_over(timestamp))
        {
            let changes = Changes { compression: None, ..*changes };
            self.begin_next_run(changes, Boundary::Discontinuity);
        }
    }

    /// A packet went out under the number that it was given.
    #[inline]
    pub(super) fn sent(&mut self, sequence: u64) {
        if sequence >= self.end {
            self.end = sequence + 1;
            self.last = self.number_of(sequence);
        }
    }

    /// A packet went out that was received out of order.
    pub(super) fn sent_late(&mut self, sequence: u64, number: u16) {
        self.end = self.end.max(sequence + 1);
        if number.wrapping_sub(self.last) <= MAX_GAP {
            self.last = number;
        }
    }

    /// The viewer goes on with this packet, which may lie before those that it was sent, under new numbers, and with these
    /// timestamps.
    pub(super) fn restart_at(&mut self, sequence: u64, compression: Option<Compression>) {
        let changes = Changes { compression, ..self.changes() };
        if self.started {
            self.begin_run(sequence, changes);
        } else {
            self.set_changes(changes);
        }
    }

    /// The viewer goes on with this packet of another encoding.
    pub(super) fn switch_to(&mut self, sequence: u64, point: OperatingPoint, changes: Changes) {
        if self.started {
            self.cut(self.end, (sequence, self.last.wrapping_add(1)), Boundary::Switched);
        }
        self.discontinuity = false;
        self.shape.point = point;
        self.set_changes(changes);
    }

    /// From the next packet on the viewer is sent other layers of the encoding.
    pub(super) fn move_to(&mut self, point: OperatingPoint) {
        self.reshape(Shape { point, ..self.shape });
    }

    /// From the next packet on none carries the MID.
    pub(super) fn omit_mid(&mut self) {
        self.reshape(Shape { with_mid: false, ..self.shape });
    }

    fn reshape(&mut self, shape: Shape) {
        if shape != self.shape {
            self.begin_next_run(self.changes(), Boundary::Thinned);
            self.shape = shape;
        }
    }

    /// The next packets are changed in another way.
    pub(super) fn change(&mut self, changes: Changes) {
        if changes != self.changes() {
            self.begin_next_run(changes, Boundary::Thinned);
        }
    }

    /// Packets from here on are written in another way: those that were sent can be repaired by RTX alone.
    pub(super) fn begin_new_run(&mut self) {
        self.begin_next_run(self.changes(), Boundary::Discontinuity);
    }

    /// Begins a run with the packets that were not sent yet.
    #[cold]
    fn begin_next_run(&mut self, changes: Changes, begins: Boundary) {
        if self.started {
            self.cut(self.end, (self.end, self.number_of(self.end)), begins);
        }
        self.set_changes(changes);
    }

    /// The packet that was sent under a number, if the record still has it.
    pub(super) fn find(&self, number: u16) -> Option<Found> {
        if !self.started || self.last.wrapping_sub(number) > MAX_GAP {
            return None;
        }
        let mut is_reproducible = true;
        for run in self.runs() {
            if let Some(sequence) = run.sequence_of(number) {
                return Some(Found { sequence, assigned: Assigned::of(&run, number), is_reproducible });
            }
            is_reproducible &= run.begins != Boundary::Discontinuity;
        }
        None
    }

    /// The packet with the highest number that was sent.
    pub(super) fn last_sent(&self) -> Option<Found> {
        self.find(self.last)
    }

    /// The present run and those before it.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let &SequenceMap { first, end, number, shape, begins, .. } = self;
        let present = Run { first, end, changes: self.changes(), number, shape, begins };
        std::iter::once(present).chain(self.earlier.iter().flat_map(|runs| runs.0.iter().rev().copied()))
    }

    #[inline]
    fn number_of(&self, sequence: u64) -> u16 {
        self.number.wrapping_add(sequence.wrapping_sub(self.first) as u16)
    }

    fn begin_run(&mut self, sequence: u64, changes: Changes) {
        if self.started {
            self.cut(self.end, (sequence, self.last.wrapping_add(1)), Boundary::Discontinuity);
        }
        (self.first, self.end) = (sequence, sequence);
        self.started = true;
        self.discontinuity = false;
        self.set_changes(changes);
    }

    /// Ends the present run before `end` and begins the next one, given by its first packet and number.
    fn cut(&mut self, end: u64, (first, number): (u64, u16), begins: Boundary) {
        if end > self.first {
            let SequenceMap { first, number, shape, .. } = *self;
            let run = Run { first, end, changes: self.changes(), number, shape, begins: self.begins };
            let none = || Box::new(EarlierRuns(VecDeque::with_capacity(FEW_EARLIER)));
            self.earlier.get_or_insert_with(none).push(run);
            self.begins = begins;
        } else {
            self.begins = self.begins.max(begins);
        }
        (self.first, self.end, self.number) = (first, first, number);
    }

    fn set_changes(&mut self, changes: Changes) {
        match &mut self.changes {
            present if changes.is_none() => *present = None,
            Some(present) => **present = changes,
            None => self.changes = Some(Box::new(changes)),
        }
    }
}

#[cfg(test)]
mod tests;
