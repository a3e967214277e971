//! RTCP (RFC 3550 §6): reading compound and reduced-size packets, and writing them. One file a message.

#![deny(clippy::disallowed_types)]

pub mod bye;
pub mod ccfb;
pub mod fir;
pub mod nack;
pub mod ntp;
pub mod pli;
pub mod receiver_report;
pub mod remb;
pub mod sdes;
pub mod sender_report;
pub mod transport_feedback;
mod writer;
pub mod xr;

pub use bye::Bye;
pub use ccfb::CongestionControlFeedback;
pub use fir::Fir;
pub use nack::Nack;
pub use ntp::NtpTime;
pub use pli::Pli;
pub use receiver_report::{MAX_REPORT_BLOCKS, ReceiverReport, ReportBlock};
pub use remb::Remb;
pub use sdes::Sdes;
pub use sender_report::{SenderInfo, SenderReport};
pub use transport_feedback::TransportFeedback;
pub use writer::{MAX_RTCP_LEN, RtcpFull, RtcpWriter};
pub use xr::{DelaySinceLastReceiverReport, ExtendedReport};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// RFC 4585 §6.2
const TRANSPORT_FEEDBACK: u8 = 205;
/// RFC 4585 §6.3
const PAYLOAD_FEEDBACK: u8 = 206;
/// RFC 3611 §2
const EXTENDED_REPORT: u8 = 207;

/// What is wrong with an RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// A length reaches beyond the datagram, or bytes are left that are no packet. The rest is dropped.
    #[error("truncated RTCP")]
    Truncated,
    /// The version is not 2. The rest is dropped.
    #[error("RTCP version {0}")]
    Version(u8),
    /// Padding of whole words in a packet that is not the last, or longer than the packet. The rest is dropped.
    #[error("bad RTCP padding")]
    Padding,
    /// The body of one packet is shorter than its own counts say or contradicts itself. Packets after it are still read.
    #[error("malformed RTCP of type {0}")]
    Malformed(u8),
}

/// One packet of a datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RtcpPacket<'a> {
    /// RFC 3550 §6.4.1
    SenderReport(SenderReport<'a>),
    /// RFC 3550 §6.4.2
    ReceiverReport(ReceiverReport<'a>),
    /// RFC 3550 §6.5
    Sdes(Sdes<'a>),
    /// RFC 3550 §6.6
    Bye(Bye<'a>),
    /// RFC 4585 §6.2.1
    Nack(Nack<'a>),
    /// draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1
    TransportFeedback(TransportFeedback<'a>),
    /// RFC 8888 §3.1
    CongestionControlFeedback(CongestionControlFeedback<'a>),
    /// RFC 4585 §6.3.1
    Pli(Pli),
    /// RFC 5104 §4.3.1
    Fir(Fir<'a>),
    /// draft-alvestrand-rmcat-remb-03
    Remb(Remb<'a>),
    /// RFC 3611
    ExtendedReport(ExtendedReport<'a>),
}

/// The packets of one datagram, compound (RFC 3550 §6.1) or reduced-size (RFC 5506). Types that Sluice does not know are
/// passed over.
#[derive(Clone, Debug)]
pub struct RtcpPackets<'a> {
    rest: &'a [u8],
}

impl<'a> RtcpPackets<'a> {
    /// Reads a decrypted datagram.
    pub fn new(datagram: &'a [u8]) -> RtcpPackets<'a> {
        RtcpPackets { rest: datagram }
    }

    /// Cuts the next packet off; returns its count or format field, its type, and its body without padding.
    fn cut(&mut self) -> Result<(u8, u8, &'a [u8]), RtcpError> {
        let rest = std::mem::take(&mut self.rest);
        let Some((&[first, packet_type, l0, l1], _)) = rest.split_first_chunk::<4>() else {
            return Err(RtcpError::Truncated);
        };
        if first >> 6 != 2 {
            return Err(RtcpError::Version(first >> 6));
        }
        let len = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
        let (packet, rest) = rest.split_at_checked(len).ok_or(RtcpError::Truncated)?;
        let mut body = packet.get(4..).unwrap_or_default();
        if first & 0x20 != 0 {
            let padding = body.last().map_or(0, |&count| usize::from(count));
            // Transport-wide feedback pads itself to the next word at any place, and libwebrtc sends several in one
            // datagram (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1); RFC 3550 §6.4.1 knows whole words only.
            let fills_word = (1..4).contains(&padding);
            if !fills_word && (!rest.is_empty() || padding == 0 || padding % 4 != 0) {
                return Err(RtcpError::Padding);
            }
            let kept = body.len().checked_sub(padding).ok_or(RtcpError::Padding)?;
            body = body.get(..kept).unwrap_or_default();
        }
        self.rest = rest;
        Ok((first & 0x1f, packet_type, body))
    }
}

impl<'a> Iterator for RtcpPackets<'a> {
    type Item = Result<RtcpPacket<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (count, packet_type, body) = match self.cut() {
                Ok(parts) => parts,
                Err(error) => return Some(Err(error)),
            };
            if let Some(packet) = read_body(count, packet_type, body) {
                return Some(packet.ok_or(RtcpError::Malformed(packet_type)));
            }
        }
        None
    }
}

/// `None` for an unknown type, `Some(None)` for a malformed body.
fn read_body(count: u8, packet_type: u8, body: &[u8]) -> Option<Option<RtcpPacket<'_>>> {
    Some(match (packet_type, count) {
        (SENDER_REPORT, _) => SenderReport::parse(count, body).map(RtcpPacket::SenderReport),
        (RECEIVER_REPORT, _) => ReceiverReport::parse(count, body).map(RtcpPacket::ReceiverReport),
        (SOURCE_DESCRIPTION, _) => Sdes::parse(count, body).map(RtcpPacket::Sdes),
        (GOODBYE, _) => Bye::parse(count, body).map(RtcpPacket::Bye),
        (TRANSPORT_FEEDBACK, nack::FORMAT) => Nack::parse(body).map(RtcpPacket::Nack),
        (TRANSPORT_FEEDBACK, transport_feedback::FORMAT) => {
            TransportFeedback::parse(body).map(RtcpPacket::TransportFeedback)
        }
        (TRANSPORT_FEEDBACK, ccfb::FORMAT) => {
            CongestionControlFeedback::parse(body).map(RtcpPacket::CongestionControlFeedback)
        }
        (PAYLOAD_FEEDBACK, pli::FORMAT) => Pli::parse(body).map(RtcpPacket::Pli),
        (PAYLOAD_FEEDBACK, fir::FORMAT) => Fir::parse(body).map(RtcpPacket::Fir),
        // Application layer feedback of another kind than REMB is not ours.
        (PAYLOAD_FEEDBACK, remb::FORMAT) if Remb::is_remb(body) => Remb::parse(body).map(RtcpPacket::Remb),
        (EXTENDED_REPORT, _) => ExtendedReport::parse(body).map(RtcpPacket::ExtendedReport),
        _ => return None,
    })
}

/// Splits a big-endian u32 off the front.
fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*value), rest))
}

/// The SSRC list of `bytes`, whose length is a multiple of 4.
fn ssrc_list(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone {
    bytes.as_chunks::<4>().0.iter().map(|ssrc| u32::from_be_bytes(*ssrc))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RR: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 1];
    const PLI: [u8; 12] = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];

    fn read(datagram: &[u8]) -> Vec<Result<RtcpPacket<'_>, RtcpError>> {
        RtcpPackets::new(datagram).collect()
    }

    #[test]
    fn compound_and_reduced_size_packets_are_read() {
        // RTCP-01
        let compound = [&RR[..], &PLI].concat();
        let packets = read(&compound);
        assert!(matches!(packets[..], [Ok(RtcpPacket::ReceiverReport(_)), Ok(RtcpPacket::Pli(_))]));
        assert_eq!(read(&PLI), [Ok(RtcpPacket::Pli(Pli { sender_ssrc: 1, media_ssrc: 2 }))]);
        assert!(read(&[]).is_empty());
    }

    #[test]
    fn unknown_types_and_formats_are_passed_over() {
        // RTCP-01, RTCP-19
        let rsi = [0x80, 209, 0, 1, 0, 0, 0, 1];
        let app = [0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'];
        let tmmbr = [0x83, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let sli = [0x82, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let afb = [0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'A', b'B', b'C', b'D'];
        let datagram = [&rsi[..], &app, &tmmbr, &sli, &afb, &PLI].concat();
        assert_eq!(read(&datagram).len(), 1);
    }

    #[test]
    fn a_truncated_packet_drops_the_rest() {
        // RTCP-01
        let compound = [&RR[..], &PLI].concat();
        for end in 9..compound.len() {
            let packets = read(&compound[..end]);
            assert!(packets[0].is_ok());
            assert_eq!(packets[1..], [Err(RtcpError::Truncated)], "cut at {end}");
        }
        assert_eq!(read(&[0x80, 201, 0xff, 0xff, 0, 0, 0, 1]), [Err(RtcpError::Truncated)]);
        assert_eq!(read(&[0x40, 201, 0, 1, 0, 0, 0, 1]), [Err(RtcpError::Version(1))]);
    }

    #[test]
    fn a_malformed_body_does_not_hide_its_neighbours() {
        // RTCP-01
        let short_rr = [0x81, 201, 0, 1, 0, 0, 0, 1];
        let datagram = [&short_rr[..], &PLI].concat();
        assert_eq!(read(&datagram)[0], Err(RtcpError::Malformed(201)));
        assert!(read(&datagram)[1].is_ok());
        assert_eq!(read(&[0x81, 206, 0, 1, 0, 0, 0, 1]), [Err(RtcpError::Malformed(206))]);
    }

    #[test]
    fn padding_belongs_to_the_last_packet_only() {
        // RTCP-01
        let padded = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
        assert_eq!(read(&padded), [Ok(RtcpPacket::Pli(Pli { sender_ssrc: 1, media_ssrc: 2 }))]);
        assert_eq!(read(&[&padded[..], &RR].concat()), [Err(RtcpError::Padding)]);
        for count in [0, 5, 16] {
            let mut bad = padded;
            bad[15] = count;
            assert_eq!(read(&bad), [Err(RtcpError::Padding)], "count {count}");
        }
        assert_eq!(read(&[0xa0, 201, 0, 0]), [Err(RtcpError::Padding)]);
    }

    #[test]
    fn transport_wide_feedback_pads_itself_to_the_next_word() {
        // RTCP-01: n packets that all arrived, a tick apart, as libwebrtc writes it; all n but one in four need padding.
        for count in 1..=14u8 {
            let padding = (4 - (2 + count) % 4) % 4;
            let words = (4 + 16 + 2 + count + padding) / 4 - 1;
            let mut feedback = vec![if padding > 0 { 0xaf } else { 0x8f }, 205, 0, words];
            feedback.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0, count, 0, 0, 1, 3, 0x20, count]);
            feedback.resize(feedback.len() + usize::from(count), 1);
            feedback.resize(feedback.len() + usize::from(padding), 0);
            if let Some(last) = feedback.last_mut().filter(|_| padding > 0) {
                *last = padding;
            }
            let datagram = [&feedback[..], &feedback, &RR].concat();
            let packets = read(&datagram);
            assert_eq!(packets.len(), 3, "{count}: {packets:?}");
            for packet in &packets[..2] {
                let Ok(RtcpPacket::TransportFeedback(feedback)) = packet else { panic!("{count}: {packet:?}") };
                assert_eq!(feedback.packets().filter(|(_, arrival)| arrival.is_some()).count(), usize::from(count));
            }
        }
    }
}
