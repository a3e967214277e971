//! What was sent to one viewer, by transport-wide sequence number
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2), until feedback says what became of it.

use super::Micros;

/// Entries at first.
const MIN_ENTRIES: usize = 128;
/// Most entries, 16 KiB: 500 ms of 40 Mbit/s. Only a viewer with so many packets in flight needs them.
pub(super) const MAX_ENTRIES: usize = 2048;
/// A packet that nobody reported for so long is no reason to keep more of them, in µs.
const MAX_UNREPORTED: i32 = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    /// Feedback has passed it without naming it: the message was lost.
    Unreported,
    Lost,
    Received,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sent: Micros,
    bytes: u16,
    cluster: u8,
    state: State,
}

const _: () = assert!(size_of::<Entry>() == 8);

/// A packet as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentPacket {
    pub(super) sent: Micros,
    pub(super) bytes: u16,
    /// Probe cluster, 0 for none.
    pub(super) cluster: u8,
}

/// What feedback newly says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reported {
    Received(SentPacket),
    /// It arrived after all; an earlier message had called it lost.
    Recovered(SentPacket),
    Lost,
}

/// A ring that doubles while the entries that it would drop are of packets in flight.
#[derive(Debug, Default)]
pub(super) struct SentHistory {
    /// Empty, or a power of two.
    entries: Box<[Entry]>,
    next: u16,
    kept: u16,
    /// Nothing before this number is in flight.
    in_flight_from: u16,
}

impl SentHistory {
    /// Notes a packet and returns its number. Sizes beyond 65535 bytes saturate.
    #[inline]
    pub(super) fn push(&mut self, sent: Micros, bytes: usize, cluster: u8) -> u16 {
        if usize::from(self.kept) == self.entries.len() {
            self.make_room(sent);
        }
        let sequence = self.next;
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        let index = self.index(sequence);
        self.entries[index] = Entry { sent, bytes, cluster, state: State::InFlight };
        self.next = sequence.wrapping_add(1);
        self.kept += 1;
        sequence
    }

    fn index(&self, sequence: u16) -> usize {
        usize::from(sequence) & (self.entries.len() - 1)
    }

    fn make_room(&mut self, now: Micros) {
        if self.entries.is_empty() {
            return self.grow(MIN_ENTRIES);
        }
        let oldest = self.next.wrapping_sub(self.kept);
        let entry = self.entries[self.index(oldest)];
        let in_flight = entry.state == State::InFlight && now.since(entry.sent) < MAX_UNREPORTED;
        if in_flight && self.entries.len() < MAX_ENTRIES {
            return self.grow(2 * self.entries.len());
        }
        self.settle(oldest.wrapping_add(1));
        self.kept -= 1;
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let empty = Entry { sent: Micros(0), bytes: 0, cluster: 0, state: State::Unreported };
        let mut entries = vec![empty; len].into_boxed_slice();
        for back in 1..=self.kept {
            let sequence = self.next.wrapping_sub(back);
            entries[usize::from(sequence) & (len - 1)] = self.entries[self.index(sequence)];
        }
        self.entries = entries;
    }

    /// The number of the first packet that is remembered.
    pub(super) fn oldest(&self) -> u16 {
        self.next.wrapping_sub(self.kept)
    }

    /// Packets that there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// How many numbers from this one on were sent; 0 if it lies ahead of them all.
    pub(super) fn sent_from(&self, sequence: u16) -> usize {
        let sent = self.next.wrapping_sub(sequence);
        if sent < 1 << 15 { usize::from(sent) } else { 0 }
    }

    /// Takes one status of a feedback message. `None` if it repeats what is known, or if the number is too old or was
    /// never sent.
    pub(super) fn report(&mut self, sequence: u16, received: bool) -> Option<Reported> {
        let back = self.next.wrapping_sub(sequence);
        if back == 0 || back > self.kept {
            return None;
        }
        let index = self.index(sequence);
        let entry = self.entries.get_mut(index)?;
        let before = entry.state;
        let packet = SentPacket { sent: entry.sent, bytes: entry.bytes, cluster: entry.cluster };
        let reported = match (before, received) {
            (State::Received, _) | (State::Lost, false) => return None,
            (State::Lost, true) => Reported::Recovered(packet),
            (_, true) => Reported::Received(packet),
            (_, false) => Reported::Lost,
        };
        entry.state = if received { State::Received } else { State::Lost };
        Some(reported)
    }

    /// Feedback begins at this number: whatever before it is still in flight is reported no more.
    pub(super) fn settle(&mut self, before: u16) {
        let ahead = self.next.wrapping_sub(before);
        let open = self.next.wrapping_sub(self.in_flight_from);
        if ahead > open {
            return;
        }
        for back in (ahead + 1..=open).rev() {
            let index = self.index(self.next.wrapping_sub(back));
            if let Some(entry) = self.entries.get_mut(index)
                && entry.state == State::InFlight
            {
                entry.state = State::Unreported;
            }
        }
        self.in_flight_from = before;
    }

    /// Bytes on the heap.
    pub(super) fn heap_size(&self) -> usize {
        size_of_val(&*self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sent: u32, bytes: u16) -> SentPacket {
        SentPacket { sent: Micros(sent), bytes, cluster: 0 }
    }

    #[test]
    fn numbers_count_up_and_wrap() {
        // EXT-H05
        let mut history = SentHistory::default();
        for n in 0..70_000u32 {
            assert_eq!(history.push(Micros(n * 1_000), 1_000, 0), n as u16);
            if n >= 10 {
                let old = n - 10;
                assert_eq!(history.report(old as u16, true), Some(Reported::Received(packet(old * 1_000, 1_000))));
            }
        }
        assert_eq!(history.heap_size(), MIN_ENTRIES * 8, "a viewer with little in flight stays small");
    }

    #[test]
    fn a_status_counts_once_and_a_late_arrival_takes_a_loss_back() {
        // RTCP-14
        let mut history = SentHistory::default();
        for n in 0..3 {
            history.push(Micros(n), 100, 0);
        }
        assert_eq!(history.report(1, false), Some(Reported::Lost));
        assert_eq!(history.report(1, false), None);
        assert_eq!(history.report(1, true), Some(Reported::Recovered(packet(1, 100))));
        assert_eq!(history.report(1, true), None);
        assert_eq!(history.report(1, false), None);
    }

    #[test]
    fn unknown_numbers_are_ignored() {
        // RTCP-14
        let mut history = SentHistory::default();
        assert_eq!(history.report(0, true), None);
        history.settle(7);
        history.push(Micros(0), 100, 0);
        for sequence in 1..=u16::MAX {
            assert_eq!(history.report(sequence, true), None, "{sequence}");
        }
        history.settle(9);
        history.settle(0x9000);
        assert_eq!([0, 1, 2, 0x9000].map(|sequence| history.sent_from(sequence)), [1, 0, 0, 0x7001]);
    }

    #[test]
    fn memory_grows_with_the_packets_in_flight_up_to_its_bound() {
        let mut history = SentHistory::default();
        for n in 0..300u32 {
            history.push(Micros(n), 100, 0);
        }
        assert_eq!(history.heap_size(), 512 * 8);
        for n in 300..100_000u32 {
            history.push(Micros(n), 100, 0);
        }
        assert_eq!(history.heap_size(), MAX_ENTRIES * 8);
        let first = (100_000u32 - MAX_ENTRIES as u32) as u16;
        assert_eq!(history.report(first.wrapping_sub(1), true), None);
        assert!(history.report(first, true).is_some());
    }

    #[test]
    fn a_viewer_that_never_reports_keeps_two_seconds() {
        let mut history = SentHistory::default();
        for n in 0..10_000u32 {
            history.push(Micros(n * 4_000), 100, 0);
        }
        assert_eq!(history.heap_size(), 512 * 8);
    }

    #[test]
    fn what_feedback_passed_over_is_in_flight_no_more() {
        let mut history = SentHistory::default();
        for n in 0..MIN_ENTRIES as u32 {
            history.push(Micros(n), 10, 0);
        }
        history.settle(40);
        history.settle(20);
        assert_eq!(history.report(39, true), Some(Reported::Received(packet(39, 10))), "but may still be reported");
        for n in 0..40 {
            history.push(Micros(n), 10, 0);
        }
        assert_eq!(history.heap_size(), MIN_ENTRIES * 8);
        history.push(Micros(40), 10, 0);
        assert_eq!(history.heap_size(), 2 * MIN_ENTRIES * 8);
    }
}
