//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which packets of
//! a transport arrived, and when.

use super::{RtcpFull, RtcpWriter, TRANSPORT_FEEDBACK, split_u32};

pub(super) const FORMAT: u8 = 15;

/// Unit of an arrival delta in µs.
const TICK: i64 = 250;
/// Ticks of the 64 ms in which the reference time counts.
const REFERENCE_TICKS: i64 = 256;
/// Most packets that one message written here reports, so that it fits into 1200 bytes in the worst case: 20 bytes of
/// header, a chunk for every 7 packets, 2 bytes for every arrival.
pub const MAX_STATUSES: usize = 512;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// A feedback message whose chunks and deltas were checked to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// One of the sources of the transport; without meaning.
    pub media_ssrc: u32,
    /// Transport-wide number of the first packet.
    pub base_sequence: u16,
    /// How many packets are reported, lost ones included; at least 1.
    pub status_count: u16,
    /// In units of 64 ms, 24 bits with sign, wrapping.
    pub reference_time: i32,
    /// Number of this message, modulo 256.
    pub feedback_count: u8,
    chunks_and_deltas: &'a [u8],
    chunks_len: usize,
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<TransportFeedback<'a>> {
        let (sender_ssrc, rest) = split_u32(body)?;
        let (media_ssrc, rest) = split_u32(rest)?;
        let (&[s0, s1, c0, c1, r0, r1, r2, feedback_count], rest) = rest.split_first_chunk::<8>()?;
        let status_count = u16::from_be_bytes([c0, c1]);
        let mut feedback = TransportFeedback {
            sender_ssrc,
            media_ssrc,
            base_sequence: u16::from_be_bytes([s0, s1]),
            status_count,
            reference_time: i32::from_be_bytes([r0, r1, r2, 0]) >> 8,
            feedback_count,
            chunks_and_deltas: rest,
            chunks_len: 0,
        };
        let (mut left, mut deltas_len) = (usize::from(status_count), 0);
        let mut chunks = rest.as_chunks::<2>().0.iter();
        while left > 0 {
            let chunk = Chunk::parse(*chunks.next()?);
            let covered = chunk.len().min(left);
            deltas_len += chunk.deltas_len(covered)?;
            left -= covered;
            feedback.chunks_len += 2;
        }
        (status_count > 0 && feedback.chunks_len + deltas_len <= rest.len()).then_some(feedback)
    }

    /// Every reported packet, in order: its transport-wide number, and if it arrived, when, in µs on the reporter's clock
    /// (whose zero is unknown and which wraps with the reference time).
    pub fn packets(&self) -> Arrivals<'a> {
        let (chunks, deltas) = self.chunks_and_deltas.split_at_checked(self.chunks_len).unwrap_or_default();
        Arrivals {
            next_sequence: self.base_sequence,
            left: self.status_count,
            ticks: i64::from(self.reference_time) * REFERENCE_TICKS,
            chunk: Chunk::RunLength { symbol: NOT_RECEIVED, len: 0 },
            position: 0,
            chunks,
            deltas,
        }
    }
}

/// The packets of a [`TransportFeedback`].
#[derive(Clone, Debug)]
pub struct Arrivals<'a> {
    next_sequence: u16,
    left: u16,
    ticks: i64,
    chunk: Chunk,
    position: usize,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl Iterator for Arrivals<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<(u16, Option<i64>)> {
        self.left = self.left.checked_sub(1)?;
        if self.position == self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first_chunk::<2>()?;
            (self.chunk, self.chunks, self.position) = (Chunk::parse(*chunk), rest, 0);
        }
        let symbol = self.chunk.symbol(self.position);
        self.position += 1;
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        let delta = match symbol {
            NOT_RECEIVED => return Some((sequence, None)),
            SMALL_DELTA => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(delta)
            }
            _ => {
                let (delta, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*delta))
            }
        };
        self.ticks += delta;
        Some((sequence, Some(self.ticks * TICK)))
    }
}

/// A packet status chunk (§3.1.3, §3.1.4).
#[derive(Clone, Copy, Debug)]
enum Chunk {
    RunLength {
        symbol: u8,
        len: usize,
    },
    /// 14 symbols of one bit.
    OneBit(u16),
    /// 7 symbols of two bits.
    TwoBit(u16),
}

impl Chunk {
    fn parse(bytes: [u8; 2]) -> Chunk {
        let word = u16::from_be_bytes(bytes);
        match word >> 14 {
            0 | 1 => Chunk::RunLength { symbol: ((word >> 13) & 3) as u8, len: usize::from(word & 0x1fff) },
            2 => Chunk::OneBit(word),
            _ => Chunk::TwoBit(word),
        }
    }

    fn len(self) -> usize {
        match self {
            Chunk::RunLength { len, .. } => len,
            Chunk::OneBit(_) => 14,
            Chunk::TwoBit(_) => 7,
        }
    }

    /// The symbol at a position below `len`.
    fn symbol(self, position: usize) -> u8 {
        match self {
            Chunk::RunLength { symbol, .. } => symbol,
            Chunk::OneBit(word) => ((word >> (13 - position)) & 1) as u8,
            Chunk::TwoBit(word) => ((word >> (12 - 2 * position)) & 3) as u8,
        }
    }

    /// Bytes of deltas that the first `count` symbols ask for; `None` if one of them is reserved or the chunk is empty.
    fn deltas_len(self, count: usize) -> Option<usize> {
        if count == 0 {
            return None;
        }
        if let Chunk::RunLength { symbol, .. } = self {
            return (symbol <= LARGE_DELTA).then_some(usize::from(symbol) * count);
        }
        // A symbol is the number of its delta's bytes.
        (0..count).try_fold(0, |sum, position| {
            let symbol = self.symbol(position);
            (symbol <= LARGE_DELTA).then_some(sum + usize::from(symbol))
        })
    }

    /// The chunk that covers most of the front of `symbols`, which is not empty.
    fn pack(symbols: &[u8]) -> (u16, usize) {
        let symbol = symbols[0];
        let run = symbols.iter().take_while(|&&other| other == symbol).count().min(0x1fff);
        let small = symbols.iter().take(14).take_while(|&&other| other <= SMALL_DELTA).count();
        let run_length = ((u16::from(symbol) << 13) | run as u16, run);
        if run >= 14 || run == symbols.len() {
            return run_length;
        }
        if small == 14 || small == symbols.len() {
            let word = symbols[..small].iter().zip((0..14).rev()).fold(0, |word, (&s, at)| word | (u16::from(s) << at));
            return (0x8000 | word, small);
        }
        if run >= 7 {
            return run_length;
        }
        let covered = symbols.len().min(7);
        let word = symbols[..covered]
            .iter()
            .zip((0..14).step_by(2).rev())
            .fold(0, |word, (&s, at)| word | (u16::from(s) << at));
        (0xc000 | word, covered)
    }
}

/// The fields of a feedback message besides the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedbackFields {
    /// Who reports.
    pub sender_ssrc: u32,
    /// One of the sources of the transport.
    pub media_ssrc: u32,
    /// Number of this message, modulo 256; the caller adds one for every message that was written.
    pub feedback_count: u8,
}

impl RtcpWriter<'_> {
    /// Adds one feedback message for the front of `packets`: transport-wide numbers in ascending order (modulo 65536),
    /// each with its arrival in µs on any clock, or `None` if it is missing. Numbers left out count as missing.
    ///
    /// Returns how many of `packets` are dealt with; the caller goes on with the rest in another message. Packets at the
    /// front of which none arrived are dealt with by writing nothing, as there is no time to refer to.
    ///
    /// # Errors
    /// [`RtcpFull`] if the message does not fit; with an empty writer of 1200 bytes it always does.
    pub fn transport_feedback(
        &mut self,
        fields: &FeedbackFields,
        packets: &[(u16, Option<u64>)],
    ) -> Result<usize, RtcpFull> {
        let mut report = Report::new();
        let taken = report.take_front(packets);
        if report.deltas_len == 0 {
            return Ok(taken);
        }
        let symbols = &report.symbols[..report.symbols_len];
        let chunks_len = 2 * Chunks(symbols).count();
        let end = 16 + chunks_len + report.deltas_len;
        let body = self.packet(FORMAT, TRANSPORT_FEEDBACK, end.next_multiple_of(4))?;
        body[..4].copy_from_slice(&fields.sender_ssrc.to_be_bytes());
        body[4..8].copy_from_slice(&fields.media_ssrc.to_be_bytes());
        body[8..10].copy_from_slice(&report.base_sequence.to_be_bytes());
        body[10..12].copy_from_slice(&(symbols.len() as u16).to_be_bytes());
        body[12..15].copy_from_slice(&(report.reference_time as u32).to_be_bytes()[1..]);
        body[15] = fields.feedback_count;
        for (out, word) in body[16..16 + chunks_len].as_chunks_mut::<2>().0.iter_mut().zip(Chunks(symbols)) {
            *out = word.to_be_bytes();
        }
        body[16 + chunks_len..end].copy_from_slice(&report.deltas[..report.deltas_len]);
        body[end..].fill(0);
        Ok(taken)
    }
}

/// The chunk words for a list of symbols.
struct Chunks<'a>(&'a [u8]);

impl Iterator for Chunks<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.0.is_empty() {
            return None;
        }
        let (word, covered) = Chunk::pack(self.0);
        self.0 = &self.0[covered..];
        Some(word)
    }
}

/// Symbols and deltas of one message under construction.
struct Report {
    base_sequence: u16,
    reference_time: i64,
    /// Time of the last arrival in ticks; `None` before the first one.
    ticks: Option<i64>,
    symbols: [u8; MAX_STATUSES],
    symbols_len: usize,
    deltas: [u8; 2 * MAX_STATUSES],
    deltas_len: usize,
}

impl Report {
    fn new() -> Report {
        Report {
            base_sequence: 0,
            reference_time: 0,
            ticks: None,
            symbols: [NOT_RECEIVED; MAX_STATUSES],
            symbols_len: 0,
            deltas: [0; 2 * MAX_STATUSES],
            deltas_len: 0,
        }
    }

    /// Takes packets until one fits no more; returns how many.
    fn take_front(&mut self, packets: &[(u16, Option<u64>)]) -> usize {
        self.base_sequence = packets.first().map_or(0, |&(sequence, _)| sequence);
        for (index, &(sequence, arrival)) in packets.iter().enumerate() {
            let position = usize::from(sequence.wrapping_sub(self.base_sequence));
            if position >= MAX_STATUSES || !self.take(position, arrival) {
                return index;
            }
        }
        packets.len()
    }

    fn take(&mut self, position: usize, arrival: Option<u64>) -> bool {
        // A number at or below one that was taken is a duplicate: the first status counts.
        if position < self.symbols_len {
            return true;
        }
        if let Some(arrival) = arrival {
            // Whole ticks since the clock's zero: rounding errors of deltas do not add up.
            let ticks = (arrival / TICK as u64) as i64;
            let last = self.ticks.unwrap_or_else(|| {
                self.reference_time = ticks / REFERENCE_TICKS;
                self.reference_time * REFERENCE_TICKS
            });
            let delta = ticks - last;
            if let Ok(small) = u8::try_from(delta) {
                self.symbols[position] = SMALL_DELTA;
                self.deltas[self.deltas_len] = small;
                self.deltas_len += 1;
            } else if let Ok(large) = i16::try_from(delta) {
                self.symbols[position] = LARGE_DELTA;
                self.deltas[self.deltas_len..self.deltas_len + 2].copy_from_slice(&large.to_be_bytes());
                self.deltas_len += 2;
            } else {
                return false;
            }
            self.ticks = Some(ticks);
        }
        self.symbols_len = position + 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::rtcp::{MAX_RTCP_LEN, RtcpPacket, RtcpPackets};

    const FIELDS: FeedbackFields = FeedbackFields { sender_ssrc: 1, media_ssrc: 2, feedback_count: 3 };

    fn write(packets: &[(u16, Option<u64>)]) -> (Vec<u8>, usize) {
        let mut buffer = [0xff; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let taken = writer.transport_feedback(&FIELDS, packets).unwrap();
        (writer.as_bytes().to_vec(), taken)
    }

    fn read(bytes: &[u8]) -> (TransportFeedback<'_>, Vec<(u16, Option<i64>)>) {
        let Some(Ok(RtcpPacket::TransportFeedback(feedback))) = RtcpPackets::new(bytes).next() else {
            panic!("no feedback in {bytes:x?}");
        };
        (feedback, feedback.packets().collect())
    }

    /// Writes, reads, and compares down to the tick, over as many messages as it takes.
    fn assert_round_trip(packets: &[(u16, Option<u64>)]) {
        let mut rest = packets;
        while !rest.is_empty() {
            let (bytes, taken) = write(rest);
            assert!(taken > 0, "progress");
            let (front, after) = rest.split_at(taken);
            rest = after;
            if front.iter().all(|(_, arrival)| arrival.is_none()) {
                assert!(bytes.is_empty());
                continue;
            }
            let (_, found) = read(&bytes);
            let expected: Vec<_> = front
                .iter()
                .map(|&(sequence, arrival)| (sequence, arrival.map(|at| (at / 250 * 250) as i64 % (1 << 24))))
                .collect();
            let given: Vec<_> = found.into_iter().map(|(s, at)| (s, at.map(|at| at % (1 << 24)))).collect();
            assert_eq!(given, expected);
        }
    }

    #[test]
    fn a_message_made_by_hand_is_read() {
        // RTCP-14: a run of two small deltas, then two-bit symbols: lost, large (negative), small.
        let bytes = [
            0x8f, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0, 5, 0, 0, 2, 9, 0x20, 2, 0xc9, 0x00, 4, 8, 0xff,
            0xfc, 1, 0, 0, 0,
        ];
        let (feedback, packets) = read(&bytes);
        assert_eq!((feedback.sender_ssrc, feedback.media_ssrc, feedback.feedback_count), (1, 2, 9));
        assert_eq!((feedback.base_sequence, feedback.status_count, feedback.reference_time), (0xfffe, 5, 2));
        let base = 128_000;
        assert_eq!(
            packets,
            [
                (0xfffe, Some(base + 1_000)),
                (0xffff, Some(base + 3_000)),
                (0, None),
                (1, Some(base + 2_000)),
                (2, Some(base + 2_250))
            ]
        );
    }

    #[test]
    fn what_is_written_comes_back_down_to_the_tick() {
        // RTCP-14
        assert_round_trip(&[(7, Some(1_000_000))]);
        assert_round_trip(&[(65_535, Some(1_000_100)), (0, None), (1, Some(1_000_020)), (2, Some(1_500_000))]);
        let steady: Vec<_> = (0..200u16).map(|n| (n, Some(64_000 + u64::from(n) * 3_333))).collect();
        assert_round_trip(&steady);
        let lossy: Vec<_> = steady.iter().map(|&(n, at)| (n, at.filter(|_| n % 3 != 0))).collect();
        assert_round_trip(&lossy);
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let mut at = 5_000_000u64;
            let mixed: Vec<_> = (0..700u16)
                .map(|n| {
                    let step = if random.random_ratio(1, 4) { 200_000 } else { 2_000 };
                    at += random.random_range(0..step);
                    (n.wrapping_add(65_300), random.random_ratio(7, 8).then_some(at))
                })
                .collect();
            assert_round_trip(&mixed);
        }
    }

    #[test]
    fn numbers_left_out_count_as_missing() {
        // RTCP-14
        let (bytes, taken) = write(&[(10, Some(0)), (13, Some(250)), (13, Some(500)), (12, Some(750))]);
        assert_eq!(taken, 4);
        assert_eq!(read(&bytes).1, [(10, Some(0)), (11, None), (12, None), (13, Some(250))]);
    }

    #[test]
    fn a_steady_stream_costs_one_chunk() {
        // RTCP-14
        let packets: Vec<_> = (0..100u16).map(|n| (n, Some(u64::from(n) * 1_000))).collect();
        assert_eq!(write(&packets).0.len(), (20 + 2 + 100usize).next_multiple_of(4));
    }

    #[test]
    fn a_pause_or_a_jump_begins_another_message() {
        // RTCP-14
        assert_eq!(write(&[(1, Some(0)), (2, Some(9_000_000))]).1, 1);
        assert_eq!(write(&[(1, Some(0)), (600, Some(1))]).1, 1);
        let (bytes, taken) = write(&[(1, None), (2, None)]);
        assert!(bytes.is_empty() && taken == 2);
        assert_eq!(write(&[]), (vec![], 0));
    }

    #[test]
    fn the_worst_case_fits() {
        // RTCP-20: alternating symbols that no run shortens, every delta large.
        let mut at = 0;
        let packets: Vec<_> = (0..600u16)
            .map(|n| {
                at += 100_000;
                (n, Some(at))
            })
            .collect();
        let (bytes, taken) = write(&packets);
        assert_eq!(taken, MAX_STATUSES);
        assert!(bytes.len() <= MAX_RTCP_LEN);
        let mixed: Vec<_> = packets.iter().map(|&(n, at)| (n, at.map(|at| at - at % 200_000))).collect();
        assert!(write(&mixed).0.len() <= MAX_RTCP_LEN);
    }

    #[test]
    fn the_reference_time_wraps_at_24_bits() {
        // RTCP-14
        let (bytes, _) = write(&[(1, Some((1 << 24) * 64_000 + 64_250))]);
        assert_eq!(read(&bytes).0.reference_time, 1);
        let (bytes, _) = write(&[(1, Some((1 << 23) * 64_000))]);
        assert_eq!(read(&bytes).0.reference_time, -(1 << 23));
    }

    #[test]
    fn chunks_and_deltas_beyond_the_packet_are_refused() {
        // RTCP-14
        let head = |count: u16| [&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0][..], &count.to_be_bytes(), &[0, 0, 0, 0]].concat();
        let parse = |count: u16, rest: &[u8]| TransportFeedback::parse(&[&head(count)[..], rest].concat()).is_some();
        assert!(parse(1, &[0x20, 1, 4, 0]));
        assert!(!parse(0, &[0x20, 1, 4, 0]), "nothing reported");
        assert!(!parse(9, &[0x20, 1, 4, 0]), "chunks end early");
        assert!(!parse(5, &[0x20, 5, 1, 2, 3, 4]), "deltas end early");
        assert!(!parse(1, &[0x60, 1, 4, 0]), "reserved symbol in a run");
        assert!(!parse(1, &[0xf0, 0, 4, 0]), "reserved symbol in a vector");
        assert!(!parse(1, &[0x20, 0, 0x20, 1]), "empty run");
        assert!(parse(
            0xffff,
            &[
                0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0, 7,
                0, 0
            ]
        ));
    }

    #[test]
    fn a_message_that_does_not_fit_is_not_written() {
        let mut buffer = [0; 23];
        assert_eq!(RtcpWriter::new(&mut buffer).transport_feedback(&FIELDS, &[(1, Some(0))]), Err(RtcpFull));
    }
}
