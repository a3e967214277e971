//! What a viewer counts: delivered, lost, duplicated, reordered, corrupt.

use serde::Serialize;

use crate::media::stamp::{Content, Stamp};

/// Numbers below the highest one that are remembered; a packet later than that is a duplicate or as good as lost.
const WINDOW: u64 = 8192;

/// Where a number belongs among those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Higher than all before.
    Next,
    /// It fills a gap, or belongs before all others.
    Late,
    /// It was received before, or is too late to tell.
    Again,
}

/// Counts gaps among sequence numbers, from the first to the highest received.
#[derive(Clone, Debug)]
pub(crate) struct SequenceTally {
    first: Option<u64>,
    highest: u64,
    seen: Box<[u64]>,
    unique: u64,
}

impl Default for SequenceTally {
    fn default() -> SequenceTally {
        SequenceTally { first: None, highest: 0, seen: vec![0; (WINDOW / 64) as usize].into(), unique: 0 }
    }
}

impl SequenceTally {
    /// Notes one number.
    pub(crate) fn note(&mut self, number: u64) -> Place {
        let Some(first) = self.first else {
            self.first = Some(number);
            self.highest = number;
            self.mark(number);
            return Place::Next;
        };
        if number > self.highest {
            let gap = number - self.highest;
            if gap >= WINDOW {
                self.seen.fill(0);
            } else {
                for between in self.highest + 1..number {
                    self.seen[(between % WINDOW / 64) as usize] &= !(1 << (between % 64));
                }
            }
            self.highest = number;
            self.mark(number);
            return Place::Next;
        }
        let known = self.seen[(number % WINDOW / 64) as usize] & (1 << (number % 64)) != 0;
        if self.highest - number >= WINDOW || known {
            return Place::Again;
        }
        // What was repaired may be older than the first packet that came.
        self.first = Some(number.min(first));
        self.mark(number);
        Place::Late
    }

    fn mark(&mut self, number: u64) {
        self.seen[(number % WINDOW / 64) as usize] |= 1 << (number % 64);
        self.unique += 1;
    }

    /// Numbers between the first and the highest that did not come.
    pub(crate) fn missing(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1 - self.unique)
    }

    /// The highest number, and the gaps among the `depth` numbers before it, the oldest first.
    pub(crate) fn gaps(&self, depth: u64) -> impl Iterator<Item = u64> + '_ {
        let from =
            self.first.map_or(self.highest, |first| first.max(self.highest.saturating_sub(depth.min(WINDOW - 1))));
        (from..self.highest).filter(|number| self.seen[(number % WINDOW / 64) as usize] & (1 << (number % 64)) == 0)
    }

    /// The highest number received.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.first.map(|_| self.highest)
    }
}

/// Figures of one track of one viewer, or sums of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrackFigures {
    /// Packets received, each counted once.
    pub delivered: u64,
    /// Payload bytes of those.
    pub bytes: u64,
    /// Packets that did not come, by RTP sequence numbers of the server.
    pub lost: u64,
    /// Packets of the publisher that did not come, by the counters in the payloads: losses before the server count too.
    pub missing: u64,
    /// Packets received again (duplicates), and payloads received under another number as well.
    pub duplicated: u64,
    /// Packets received out of order: after a later one.
    pub reordered: u64,
    /// Of the delivered, those received only after a NACK.
    pub recovered: u64,
    /// Payloads whose checksum is wrong, or that are no payloads of this stream.
    pub corrupt: u64,
    /// Of the delivered, those that were authenticated and whose checksum was verified.
    pub verified: u64,
    /// Keyframes that began, of the verified packets.
    pub keyframes: u64,
    /// Times that the publisher restarted.
    pub restarts: u64,
}

impl TrackFigures {
    /// Adds those of another track or viewer.
    pub fn add(&mut self, other: &TrackFigures) {
        self.delivered += other.delivered;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.missing += other.missing;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.recovered += other.recovered;
        self.corrupt += other.corrupt;
        self.verified += other.verified;
        self.keyframes += other.keyframes;
        self.restarts += other.restarts;
    }

    /// Everything was received, once and whole. Reordering is no fault of integrity.
    pub fn is_intact(&self) -> bool {
        self.lost == 0 && self.missing == 0 && self.duplicated == 0 && self.corrupt == 0
    }
}

/// Counts one track of one viewer.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrackTally {
    figures: TrackFigures,
    sequence: SequenceTally,
    counters: SequenceTally,
    epoch: Option<u32>,
    missing_before: u64,
    /// Extended sequence number and counter of the highest sampled packet.
    sampled: Option<(u64, u64)>,
    /// The counters of each of the publisher's RTP streams by its epoch, of a track with layers: the server leaves out what it likes,
    /// and sends nothing twice.
    layers: Option<Vec<(u32, SequenceTally)>>,
}

/// RTP streams of a track with layers that are told apart: those of a publisher, and of the ones before it.
const MAX_LAYER_STREAMS: usize = 16;

impl TrackTally {
    /// Of a track with layers, of which the server chooses.
    pub(crate) fn of_layers() -> TrackTally {
        TrackTally { layers: Some(Vec::new()), ..TrackTally::default() }
    }

    /// Notes a packet by its extended sequence number. False if it was received before and its payload counts no more.
    pub(crate) fn note_sequence(&mut self, extended: u64, payload_len: usize, recovered: bool) -> bool {
        match self.sequence.note(extended) {
            Place::Again => {
                self.figures.duplicated += 1;
                return false;
            }
            Place::Late if recovered => self.figures.recovered += 1,
            Place::Late => self.figures.reordered += 1,
            Place::Next => {}
        }
        self.figures.delivered += 1;
        self.figures.bytes += payload_len as u64;
        true
    }

    /// Notes the stamp of a packet received for the first time.
    pub(crate) fn note_stamp(&mut self, stamp: &Stamp) {
        if let Some(streams) = &mut self.layers {
            let index = streams.iter().position(|(epoch, _)| *epoch == stamp.epoch).unwrap_or_else(|| {
                if streams.len() == MAX_LAYER_STREAMS {
                    streams.remove(0);
                }
                streams.push((stamp.epoch, SequenceTally::default()));
                streams.len() - 1
            });
            self.figures.duplicated += u64::from(streams[index].1.note(stamp.counter) == Place::Again);
            return self.note_verified(stamp);
        }
        if self.epoch != Some(stamp.epoch) {
            if self.epoch.is_some() {
                self.figures.restarts += 1;
            }
            self.missing_before += self.counters.missing();
            self.counters = SequenceTally::default();
            self.epoch = Some(stamp.epoch);
        }
        if self.counters.note(stamp.counter) == Place::Again {
            // The server sent one payload under two numbers.
            self.figures.duplicated += 1;
        }
        self.note_verified(stamp);
    }

    /// Notes the stamp of one packet of a sample, by its extended sequence number: what the publisher's counter grew more
    /// than the sequence number was lost in front of the server.
    pub(crate) fn note_sampled_stamp(&mut self, stamp: &Stamp, extended: u64) {
        if self.layers.is_some() {
            return self.note_verified(stamp);
        }
        if self.epoch != Some(stamp.epoch) {
            self.figures.restarts += u64::from(self.epoch.is_some());
            self.epoch = Some(stamp.epoch);
            self.sampled = None;
        }
        match self.sampled {
            Some((before, _)) if extended <= before => {}
            Some((before, counter)) => {
                let grown = stamp.counter.saturating_sub(counter);
                self.missing_before += grown.saturating_sub(extended - before);
                self.sampled = Some((extended, stamp.counter));
            }
            None => self.sampled = Some((extended, stamp.counter)),
        }
        self.note_verified(stamp);
    }

    fn note_verified(&mut self, stamp: &Stamp) {
        self.figures.verified += 1;
        if stamp.content == Content::KeyframeStart {
            self.figures.keyframes += 1;
        }
    }

    /// Notes a payload that is not what was sent.
    pub(crate) fn note_corrupt(&mut self) {
        self.figures.corrupt += 1;
    }

    /// Numbers that are missing among the latest ones.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = u64> + '_ {
        self.sequence.gaps(256)
    }

    /// A keyframe began.
    pub(crate) fn has_keyframe(&self) -> bool {
        self.figures.keyframes > 0
    }

    /// The highest extended sequence number.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.sequence.highest()
    }

    /// The figures so far.
    pub(crate) fn figures(&self) -> TrackFigures {
        let lost = self.sequence.missing();
        // A sample's counters say nothing of what was lost after the server; the sequence numbers do.
        let after = if self.sampled.is_some() || self.layers.is_some() { lost } else { self.counters.missing() };
        TrackFigures { lost, missing: self.missing_before + after, ..self.figures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::stamp::FramePart;

    fn stamp(epoch: u32, counter: u64) -> Stamp {
        Stamp { stream: 1, epoch, content: Content::Video, part: FramePart::default(), counter, sent: 0 }
    }

    #[test]
    fn losses_count_from_the_first_packet_to_the_last() {
        let mut tally = SequenceTally::default();
        for number in [100, 101, 103, 107] {
            assert_eq!(tally.note(number), Place::Next);
        }
        assert_eq!(tally.missing(), 4);
        assert_eq!(tally.gaps(256).collect::<Vec<_>>(), [102, 104, 105, 106]);
        assert_eq!(tally.note(105), Place::Late);
        assert_eq!(tally.note(105), Place::Again);
        assert_eq!(tally.note(97), Place::Late, "before the first one");
        assert_eq!(tally.missing(), 5);
        assert_eq!(tally.gaps(256).collect::<Vec<_>>(), [98, 99, 102, 104, 106]);
        assert_eq!(tally.note(97), Place::Again);
        assert_eq!(SequenceTally::default().missing(), 0);
    }

    #[test]
    fn a_gap_wider_than_the_window_is_all_lost() {
        let mut tally = SequenceTally::default();
        tally.note(0);
        tally.note(20_000);
        assert_eq!(tally.missing(), 19_999);
        assert_eq!(tally.note(1), Place::Again);
        assert_eq!(tally.note(20_000 - WINDOW + 1), Place::Late);
        for number in 20_001..60_000 {
            assert_eq!(tally.note(number), Place::Next);
        }
        assert_eq!(tally.missing(), 19_998);
    }

    #[test]
    fn a_track_tells_its_faults_apart() {
        let mut track = TrackTally::default();
        for (extended, counter) in [(10, 0), (11, 1), (13, 3)] {
            assert!(track.note_sequence(extended, 100, false));
            track.note_stamp(&stamp(1, counter));
        }
        assert!(track.note_sequence(12, 100, true));
        track.note_stamp(&stamp(1, 2));
        assert!(track.figures().is_intact());
        assert!(!track.note_sequence(12, 100, false));
        // Sequence numbers without a gap hide what was lost before the server.
        assert!(track.note_sequence(14, 100, false));
        track.note_stamp(&stamp(1, 6));
        let figures = track.figures();
        assert_eq!((figures.delivered, figures.lost, figures.missing), (5, 0, 2));
        assert_eq!((figures.duplicated, figures.recovered, figures.reordered), (1, 1, 0));
        assert!(!figures.is_intact());
    }

    #[test]
    fn repairs_of_a_publishers_first_packets_are_received_once() {
        // A viewer whose address changed as another publisher began: the start comes by RTX, after what followed it.
        let mut track = TrackTally::default();
        track.note_sequence(10, 1, false);
        track.note_stamp(&stamp(1, 500));
        for (extended, counter, recovered) in [(14, 3, false), (11, 0, true), (13, 2, true), (15, 4, false)] {
            assert!(track.note_sequence(extended, 1, recovered));
            track.note_stamp(&stamp(2, counter));
        }
        let figures = track.figures();
        assert_eq!((figures.recovered, figures.duplicated, figures.lost, figures.missing), (2, 0, 1, 1));
        // The same payload under another number is none that was repaired.
        assert!(track.note_sequence(16, 1, false));
        track.note_stamp(&stamp(2, 0));
        assert_eq!(track.figures().duplicated, 1);
    }

    #[test]
    fn a_sample_tells_what_was_lost_in_front_of_the_server() {
        let mut track = TrackTally::default();
        // The publisher's packet 7 never reached the server; the server's 113 was never received.
        let counter = |extended: u64| if extended < 107 { extended - 100 } else { extended - 99 };
        for extended in (100..=120).filter(|number| *number != 113) {
            track.note_sequence(extended, 1, false);
            if extended % 4 == 0 {
                track.note_sampled_stamp(&stamp(1, counter(extended)), extended);
            }
        }
        let figures = track.figures();
        assert_eq!((figures.delivered, figures.verified, figures.lost, figures.missing), (20, 6, 1, 2));
        // A late packet of the sample changes nothing, a restart counts from 0.
        track.note_sampled_stamp(&stamp(1, 13), 113);
        track.note_sampled_stamp(&stamp(2, 0), 124);
        assert_eq!((track.figures().missing, track.figures().restarts), (2, 1));
    }

    #[test]
    fn what_is_left_out_of_layers_is_not_missing_and_what_comes_twice_is_counted() {
        let mut track = TrackTally::of_layers();
        let packets = [(1, 1, 0), (2, 1, 3), (3, 2, 70), (4, 2, 71), (6, 1, 90), (7, 1, 3)];
        for (extended, epoch, counter) in packets {
            assert!(track.note_sequence(extended, 1, false));
            track.note_stamp(&stamp(epoch, counter));
        }
        let figures = track.figures();
        assert_eq!((figures.lost, figures.missing, figures.restarts, figures.duplicated), (1, 1, 0, 1));
    }

    #[test]
    fn a_restarted_publisher_counts_from_zero() {
        let mut track = TrackTally::default();
        for (extended, epoch, counter) in [(1, 1, 500), (2, 1, 502), (3, 2, 0), (4, 2, 1)] {
            track.note_sequence(extended, 1, false);
            track.note_stamp(&stamp(epoch, counter));
        }
        let figures = track.figures();
        assert_eq!((figures.missing, figures.restarts, figures.duplicated), (1, 1, 0));
    }
}
