//! Congestion control feedback (RFC 8888 §3.1): which packets of each RTP stream were received, when, and how the network
//! marked them.

use super::{RtcpFull, RtcpWriter, TRANSPORT_FEEDBACK, split_u32};
use crate::ecn::Ecn;

pub(super) const FORMAT: u8 = 11;

/// The packet was received: the upper bit of its report.
const RECEIVED: u16 = 0x8000;
/// Where its ECN field stands.
const ECN_SHIFT: u16 = 13;
/// The arrival time offset.
const OFFSET: u16 = 0x1fff;
/// It is longer than can be said.
const OFFSET_TOO_LONG: u16 = 0x1ffe;
/// Bytes of a message without reports: the header, the reporter's SSRC and the report timestamp.
const MESSAGE_LEN: usize = 4 + 4 + 4;
/// Bytes in front of a stream's reports.
const STREAM_HEADER_LEN: usize = 8;

/// A feedback message whose blocks were checked to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionControlFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// When the message was made: the middle 32 bits of the reporter's NTP time, in units of 1/65536 s.
    pub report_timestamp: u32,
    streams: &'a [u8],
}

impl<'a> CongestionControlFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<CongestionControlFeedback<'a>> {
        let (sender_ssrc, rest) = split_u32(body)?;
        let (streams, timestamp) = rest.split_last_chunk::<4>()?;
        let mut left = streams;
        while !left.is_empty() {
            left = StreamFeedback::cut(left)?.1;
        }
        Some(CongestionControlFeedback { sender_ssrc, report_timestamp: u32::from_be_bytes(*timestamp), streams })
    }

    /// What is said of each RTP stream.
    pub fn streams(&self) -> impl Iterator<Item = StreamFeedback<'a>> + Clone {
        let mut left = self.streams;
        std::iter::from_fn(move || {
            let (stream, rest) = StreamFeedback::cut(left)?;
            left = rest;
            Some(stream)
        })
    }
}

/// The reports of one RTP stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFeedback<'a> {
    /// The RTP stream.
    pub ssrc: u32,
    /// RTP sequence number of the first report.
    pub begin_sequence: u16,
    reports: &'a [[u8; 2]],
}

impl<'a> StreamFeedback<'a> {
    /// Cuts the reports of one stream off, with the padding that brings them to whole words.
    fn cut(bytes: &'a [u8]) -> Option<(StreamFeedback<'a>, &'a [u8])> {
        let (ssrc, rest) = split_u32(bytes)?;
        let (&[s0, s1, n0, n1], rest) = rest.split_first_chunk::<4>()?;
        let count = usize::from(u16::from_be_bytes([n0, n1]));
        let (reports, rest) = rest.split_at_checked(2 * count.next_multiple_of(2))?;
        let reports = reports.as_chunks::<2>().0.get(..count)?;
        Some((StreamFeedback { ssrc, begin_sequence: u16::from_be_bytes([s0, s1]), reports }, rest))
    }

    /// How many packets are reported, lost ones included.
    pub fn len(&self) -> usize {
        self.reports.len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Every reported packet, in order of its RTP sequence number; `None` if it was not received.
    pub fn packets(&self) -> impl Iterator<Item = (u16, Option<PacketReport>)> + use<'a> {
        let begin = self.begin_sequence;
        self.reports.iter().enumerate().map(move |(index, report)| {
            let word = u16::from_be_bytes(*report);
            let received = word & RECEIVED != 0;
            (begin.wrapping_add(index as u16), received.then(|| PacketReport::from_word(word)))
        })
    }
}

/// A received packet as it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketReport {
    /// How it was marked when it was received.
    pub ecn: Ecn,
    /// How long before the report timestamp it was received, in units of 1/1024 s; `None` if that is unknown, or 8 s or more.
    pub offset: Option<u16>,
}

impl PacketReport {
    fn from_word(word: u16) -> PacketReport {
        let offset = Some(word & OFFSET).filter(|&offset| offset < OFFSET_TOO_LONG);
        PacketReport { ecn: Ecn::from_bits((word >> ECN_SHIFT) as u8), offset }
    }
}

/// A packet as it was received, for [`RtcpWriter::congestion_control_feedback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedPacket {
    /// When, in µs on any clock.
    pub at: u64,
    /// How it was marked.
    pub ecn: Ecn,
}

impl ReceivedPacket {
    /// Its report at `now` on the same clock.
    fn word(self, now: u64) -> u16 {
        let offset = u128::from(now.saturating_sub(self.at)) * 1024 / 1_000_000;
        let offset = u16::try_from(offset).unwrap_or(u16::MAX).min(OFFSET_TOO_LONG);
        RECEIVED | (u16::from(self.ecn.bits()) << ECN_SHIFT) | offset
    }
}

/// What is to be reported of one RTP stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamReport<'a> {
    /// The RTP stream.
    pub ssrc: u32,
    /// RTP sequence number of the first packet.
    pub begin_sequence: u16,
    /// The packets in order of their numbers, without a gap; `None` for those that were not received.
    pub packets: &'a [Option<ReceivedPacket>],
}

/// Who reports, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CcfbFields {
    /// Who reports.
    pub sender_ssrc: u32,
    /// The middle 32 bits of NTP time, as in sender reports.
    pub report_timestamp: u32,
    /// The same moment on the clock of the packets, in µs.
    pub now: u64,
}

impl RtcpWriter<'_> {
    /// Adds one feedback message with as much of `streams` as fits, from the front; what was written is taken off them, so
    /// that the caller goes on with another message. Nothing is written if nothing is left.
    ///
    /// # Errors
    /// [`RtcpFull`] if not a single report fits; into an empty writer of 1200 bytes several hundred do.
    pub fn congestion_control_feedback(
        &mut self,
        fields: &CcfbFields,
        streams: &mut [StreamReport<'_>],
    ) -> Result<(), RtcpFull> {
        let mut wanted = streams.iter().filter(|stream| !stream.packets.is_empty()).peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        let mut room = self.remaining().checked_sub(MESSAGE_LEN).ok_or(RtcpFull)?;
        let mut body_len = MESSAGE_LEN - 4;
        // How many reports of each stream fit: all of the first ones, and a part of the last.
        let mut fits = |stream: &StreamReport<'_>| {
            let words = room.saturating_sub(STREAM_HEADER_LEN) / 4;
            let count = stream.packets.len().min(2 * words);
            let len = if count > 0 { STREAM_HEADER_LEN + 2 * count.next_multiple_of(2) } else { 0 };
            room -= len;
            body_len += len;
            count
        };
        let total: usize = wanted.map(&mut fits).sum();
        if total == 0 {
            return Err(RtcpFull);
        }
        let body = self.packet(FORMAT, TRANSPORT_FEEDBACK, body_len)?;
        let (sender, rest) = body.split_at_mut(4);
        sender.copy_from_slice(&fields.sender_ssrc.to_be_bytes());
        let timestamp_at = rest.len() - 4;
        let (mut rest, timestamp) = rest.split_at_mut(timestamp_at);
        timestamp.copy_from_slice(&fields.report_timestamp.to_be_bytes());
        for stream in streams.iter_mut().filter(|stream| !stream.packets.is_empty()) {
            let count = stream.packets.len().min(rest.len().saturating_sub(STREAM_HEADER_LEN) / 2);
            if count == 0 {
                break;
            }
            let (block, after) = rest.split_at_mut(STREAM_HEADER_LEN + 2 * count.next_multiple_of(2));
            stream.write_front(block, count, fields.now);
            rest = after;
        }
        Ok(())
    }
}

impl StreamReport<'_> {
    /// Writes the first `count` reports and takes them off.
    fn write_front(&mut self, block: &mut [u8], count: usize, now: u64) {
        let (header, reports) = block.split_at_mut(STREAM_HEADER_LEN);
        header[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        header[4..6].copy_from_slice(&self.begin_sequence.to_be_bytes());
        header[6..].copy_from_slice(&(count as u16).to_be_bytes());
        let (front, after) = self.packets.split_at(count);
        let words = front.iter().map(|packet| packet.map_or(0, |packet| packet.word(now))).chain(std::iter::once(0));
        for (out, word) in reports.as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *out = word.to_be_bytes();
        }
        self.packets = after;
        self.begin_sequence = self.begin_sequence.wrapping_add(count as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_RTCP_LEN, RtcpError, RtcpPacket, RtcpPackets};
    use super::*;

    /// One stream of three packets as RFC 8888 §3.1 draws it: received 1 s ago as CE, lost, received at once as ECT(1).
    const MESSAGE: [u8; 28] =
        [0x8b, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0, 3, 0xe4, 0x00, 0, 0, 0xa0, 0x00, 0, 0, 1, 2, 3, 4];

    fn read(datagram: &[u8]) -> Result<CongestionControlFeedback<'_>, RtcpError> {
        match RtcpPackets::new(datagram).next() {
            Some(Ok(RtcpPacket::CongestionControlFeedback(feedback))) => Ok(feedback),
            Some(Err(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    type Packets = Vec<(u32, u16, Option<(Ecn, Option<u16>)>)>;

    fn packets(feedback: &CongestionControlFeedback<'_>) -> Packets {
        let of = |stream: StreamFeedback<'_>| -> Packets {
            let report = |report: PacketReport| (report.ecn, report.offset);
            stream.packets().map(|(number, packet)| (stream.ssrc, number, packet.map(report))).collect()
        };
        feedback.streams().flat_map(of).collect()
    }

    #[test]
    fn a_message_is_read_as_the_rfc_draws_it() {
        // RTCP-15
        let feedback = read(&MESSAGE).unwrap();
        assert_eq!((feedback.sender_ssrc, feedback.report_timestamp), (1, 0x0102_0304));
        let expected = [(9, 65_535, Some((Ecn::Ce, Some(1024)))), (9, 0, None), (9, 1, Some((Ecn::Ect1, Some(0))))];
        assert_eq!(packets(&feedback), expected, "numbers wrap, and the padding is no report");
    }

    #[test]
    fn an_offset_that_is_unknown_or_too_long_is_no_time() {
        // RTCP-15
        let mut message = MESSAGE;
        for (word, offset) in [(0x9fff, None), (0x9ffe, None), (0x9ffd, Some(0x1ffd))] {
            message[16..18].copy_from_slice(&u16::to_be_bytes(word));
            assert_eq!(packets(&read(&message).unwrap())[0].2, Some((Ecn::NotEct, offset)));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_says_more_than_it_has_is_malformed() {
        // RTCP-15
        for words in 1..6u8 {
            let mut cut = MESSAGE[..4 + 4 * usize::from(words)].to_vec();
            cut[3] = words;
            // Three words are who reports, a stream of another message's timestamp, and ours: too short for a stream's header.
            let expected = if words == 2 { Ok(()) } else { Err(RtcpError::Malformed(205)) };
            assert_eq!(read(&cut).map(|_| ()), expected, "{words}");
        }
        let mut message = MESSAGE;
        for count in [4u16, 5, 0x4000, u16::MAX] {
            message[14..16].copy_from_slice(&count.to_be_bytes());
            assert_eq!(read(&message).is_ok(), count == 4, "{count} reports");
        }
    }

    #[test]
    fn a_message_without_reports_is_empty() {
        // RTCP-15: one of no streams, and one of a stream of which nothing is said.
        assert_eq!(read(&[0x8b, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7]).unwrap().streams().count(), 0);
        let message = [0x8b, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 9, 0, 5, 0, 0, 0, 0, 0, 7];
        let feedback = read(&message).unwrap();
        assert!(feedback.streams().all(|stream| stream.is_empty() && stream.begin_sequence == 5));
    }

    #[test]
    fn what_is_written_is_read_again_over_several_messages() {
        // RTCP-15, RTCP-20
        let now = 10_000_000_000;
        let packet = |n: u64| {
            let ecn = Ecn::from_bits(n as u8);
            (!n.is_multiple_of(7)).then_some(ReceivedPacket { at: now - 1_000 * n, ecn })
        };
        let long: Vec<_> = (0..1_501).map(packet).collect();
        let short: Vec<_> = (0..3).map(packet).collect();
        let whole = [
            StreamReport { ssrc: 7, begin_sequence: 65_000, packets: &short },
            StreamReport { ssrc: 8, begin_sequence: 1, packets: &[] },
            StreamReport { ssrc: 9, begin_sequence: 65_000, packets: &long },
        ];
        let fields = CcfbFields { sender_ssrc: 1, report_timestamp: 77, now };
        let (mut left, mut found, mut messages) = (whole, Packets::new(), 0);
        while left.iter().any(|stream| !stream.packets.is_empty()) {
            let mut buffer = [0xff; MAX_RTCP_LEN];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.congestion_control_feedback(&fields, &mut left).unwrap();
            let feedback = read(writer.as_bytes()).unwrap();
            assert_eq!(feedback.report_timestamp, 77);
            found.extend(packets(&feedback));
            messages += 1;
        }
        assert_eq!(messages, 3);
        let expected = whole.iter().flat_map(|stream| {
            stream.packets.iter().enumerate().map(|(index, packet)| {
                let report = |packet: ReceivedPacket| (packet.ecn, Some(((now - packet.at) * 1024 / 1_000_000) as u16));
                (stream.ssrc, stream.begin_sequence.wrapping_add(index as u16), packet.map(report))
            })
        });
        assert!(found.into_iter().eq(expected));
    }

    #[test]
    fn what_finds_no_room_is_left_for_another_message() {
        // RTCP-15
        let packets = [Some(ReceivedPacket { at: 0, ecn: Ecn::NotEct }); 2];
        let mut streams = [StreamReport { ssrc: 7, begin_sequence: 0, packets: &packets }];
        let fields = CcfbFields { sender_ssrc: 1, report_timestamp: 0, now: 20_000_000 };
        for room in 0..24 {
            let mut buffer = [0; 24];
            let mut writer = RtcpWriter::new(&mut buffer[..room]);
            assert_eq!(writer.congestion_control_feedback(&fields, &mut streams), Err(RtcpFull));
            assert_eq!((writer.len(), streams[0].packets.len()), (0, 2));
        }
        let mut buffer = [0; 24];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.congestion_control_feedback(&fields, &mut streams).unwrap();
        assert_eq!((writer.len(), streams[0].packets.len()), (24, 0));
        assert_eq!(
            read(writer.as_bytes()).unwrap().streams().next().unwrap().packets().next(),
            {
                let report = PacketReport { ecn: Ecn::NotEct, offset: None };
                Some((0, Some(report)))
            },
            "20 s ago is more than can be said"
        );
        assert_eq!(writer.congestion_control_feedback(&fields, &mut streams), Ok(()), "nothing is left");
        assert_eq!(writer.len(), 24);
    }
}
