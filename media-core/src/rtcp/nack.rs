//! Generic NACK (RFC 4585 §6.2.1).

use super::{RtcpWriter, TRANSPORT_FEEDBACK, split_u32};

pub(super) const FORMAT: u8 = 1;

/// Sequence numbers that a receiver misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack<'a> {
    /// Who misses them.
    pub sender_ssrc: u32,
    /// Whose they are.
    pub media_ssrc: u32,
    entries: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Nack<'a>> {
        let (sender_ssrc, rest) = split_u32(body)?;
        let (media_ssrc, rest) = split_u32(rest)?;
        let entries = rest.as_chunks::<4>().0;
        (!entries.is_empty()).then_some(Nack { sender_ssrc, media_ssrc, entries })
    }

    /// The missing numbers as they are listed: at most 17 for every 4 bytes of the packet, perhaps with repeats.
    pub fn sequence_numbers(&self) -> impl Iterator<Item = u16> + 'a {
        self.entries.iter().flat_map(|&[p0, p1, b0, b1]| {
            let first = u16::from_be_bytes([p0, p1]);
            let mask = u16::from_be_bytes([b0, b1]);
            let others =
                (0..16u16).filter(move |bit| mask & (1 << bit) != 0).map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(others)
        })
    }
}

impl RtcpWriter<'_> {
    /// Adds one generic NACK for numbers in ascending order (modulo 65536); neighbours share an entry. Returns how many of
    /// them fitted; the caller hands the rest to another datagram.
    pub fn nack(&mut self, sender_ssrc: u32, media_ssrc: u32, sequence_numbers: &[u16]) -> usize {
        let room = self.remaining().saturating_sub(12) / 4;
        let (mut entries, mut taken) = (0, 0);
        for entry in Entries(sequence_numbers).take(room) {
            entries += 1;
            taken += entry.taken;
        }
        if entries == 0 {
            return 0;
        }
        let Ok(body) = self.packet(FORMAT, TRANSPORT_FEEDBACK, 8 + 4 * entries) else { return 0 };
        body[..4].copy_from_slice(&sender_ssrc.to_be_bytes());
        body[4..8].copy_from_slice(&media_ssrc.to_be_bytes());
        for (out, entry) in body[8..].as_chunks_mut::<4>().0.iter_mut().zip(Entries(sequence_numbers)) {
            let ([p0, p1], [b0, b1]) = (entry.first.to_be_bytes(), entry.mask.to_be_bytes());
            *out = [p0, p1, b0, b1];
        }
        taken
    }
}

/// Packs ascending numbers into entries.
struct Entries<'a>(&'a [u16]);

struct Entry {
    first: u16,
    mask: u16,
    taken: usize,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (&first, mut rest) = self.0.split_first()?;
        let mut entry = Entry { first, mask: 0, taken: 1 };
        while let Some((&number, after)) = rest.split_first() {
            let distance = number.wrapping_sub(first);
            if !(1..=16).contains(&distance) {
                break;
            }
            entry.mask |= 1 << (distance - 1);
            entry.taken += 1;
            rest = after;
        }
        self.0 = rest;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};

    fn read(bytes: &[u8]) -> Vec<u16> {
        let Some(Ok(RtcpPacket::Nack(nack))) = RtcpPackets::new(bytes).next() else { panic!("no NACK") };
        nack.sequence_numbers().collect()
    }

    #[test]
    fn the_mask_names_the_sixteen_numbers_after_the_first() {
        // RTCP-08
        let bytes = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0x80, 0x01];
        assert_eq!(read(&bytes), [0xffff, 0, 15]);
        assert_eq!(Nack::parse(&[0; 8]), None);
    }

    #[test]
    fn written_numbers_come_back() {
        // RTCP-09
        let numbers = [65_530, 65_531, 65_535, 0, 10, 11, 27, 28, 500];
        let mut buffer = [0; 100];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert_eq!(writer.nack(1, 2, &numbers), numbers.len());
        assert_eq!(writer.len(), 12 + 4 * 4);
        assert_eq!(read(writer.as_bytes()), numbers);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_caller() {
        // RTCP-20
        let numbers: Vec<u16> = (0..600).map(|index| index * 17).collect();
        let mut buffer = [0; 1200];
        let mut writer = RtcpWriter::new(&mut buffer);
        let taken = writer.nack(1, 2, &numbers);
        assert_eq!((taken, writer.len()), (297, 1200));
        assert_eq!(read(writer.as_bytes()), numbers[..taken]);
        assert_eq!(writer.nack(1, 2, &numbers), 0);
        assert_eq!(RtcpWriter::new(&mut [0; 100]).nack(1, 2, &[]), 0);
    }

    #[test]
    fn repeated_numbers_do_no_harm() {
        let mut buffer = [0; 100];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert_eq!(writer.nack(1, 2, &[5, 5, 6]), 3);
        assert_eq!(read(writer.as_bytes()), [5, 5, 6]);
    }
}
