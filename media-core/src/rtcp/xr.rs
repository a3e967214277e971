//! Extended reports (RFC 3611), of which Sluice reads and writes the two that give a receiver its round-trip time: the
//! receiver reference time report (§4.4) and the answer to it, DLRR (§4.5).

use super::{EXTENDED_REPORT, NtpTime, RtcpFull, RtcpWriter, split_u32};

const RECEIVER_REFERENCE_TIME: u8 = 4;
const DELAY_SINCE_LAST_RECEIVER_REPORT: u8 = 5;

/// An extended report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    blocks: &'a [u8],
}

/// The delay since a receiver's reference time was received (RFC 3611 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelaySinceLastReceiverReport {
    /// The receiver that sent the reference time.
    pub ssrc: u32,
    /// LRR: the middle 32 bits of that time, 0 if none was received.
    pub last_rr: u32,
    /// DLRR: time since it was received in 1/65536 s.
    pub delay_since_last_rr: u32,
}

impl<'a> ExtendedReport<'a> {
    /// `None` if a block reaches beyond the packet.
    pub(super) fn parse(body: &'a [u8]) -> Option<ExtendedReport<'a>> {
        let (sender_ssrc, blocks) = split_u32(body)?;
        let mut rest = blocks;
        while !rest.is_empty() {
            (_, _, rest) = split_block(rest)?;
        }
        Some(ExtendedReport { sender_ssrc, blocks })
    }

    fn blocks(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let (kind, body, after) = split_block(rest)?;
            rest = after;
            Some((kind, body))
        })
    }

    /// The receiver's wall clock at the moment of sending.
    pub fn reference_time(&self) -> Option<NtpTime> {
        let (_, body) = self.blocks().find(|&(kind, _)| kind == RECEIVER_REFERENCE_TIME)?;
        Some(NtpTime(u64::from_be_bytes(*body.first_chunk::<8>()?)))
    }

    /// The answers to reference times, at most one for every 12 bytes of the packet.
    pub fn delays(&self) -> impl Iterator<Item = DelaySinceLastReceiverReport> + use<'a> {
        let blocks = self.blocks().filter(|&(kind, _)| kind == DELAY_SINCE_LAST_RECEIVER_REPORT);
        blocks.flat_map(|(_, body)| body.as_chunks::<12>().0).map(
            |&[s0, s1, s2, s3, l0, l1, l2, l3, d0, d1, d2, d3]| DelaySinceLastReceiverReport {
                ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
                last_rr: u32::from_be_bytes([l0, l1, l2, l3]),
                delay_since_last_rr: u32::from_be_bytes([d0, d1, d2, d3]),
            },
        )
    }
}

/// Type, body and what follows of the first block (RFC 3611 §3).
fn split_block(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, _, l0, l1], rest) = bytes.split_first_chunk::<4>()?;
    let (body, rest) = rest.split_at_checked(4 * usize::from(u16::from_be_bytes([l0, l1])))?;
    Some((kind, body, rest))
}

impl RtcpWriter<'_> {
    /// Adds a receiver reference time report, which the peer answers with the delay since it was received.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit.
    pub fn receiver_reference_time(&mut self, sender_ssrc: u32, now: NtpTime) -> Result<(), RtcpFull> {
        let body = self.packet(0, EXTENDED_REPORT, 16)?;
        body[..4].copy_from_slice(&sender_ssrc.to_be_bytes());
        body[4..8].copy_from_slice(&[RECEIVER_REFERENCE_TIME, 0, 0, 2]);
        body[8..].copy_from_slice(&now.0.to_be_bytes());
        Ok(())
    }

    /// Adds the answer to one receiver's reference time.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit.
    pub fn delay_since_last_receiver_report(
        &mut self,
        sender_ssrc: u32,
        delay: &DelaySinceLastReceiverReport,
    ) -> Result<(), RtcpFull> {
        let body = self.packet(0, EXTENDED_REPORT, 20)?;
        body[..4].copy_from_slice(&sender_ssrc.to_be_bytes());
        body[4..8].copy_from_slice(&[DELAY_SINCE_LAST_RECEIVER_REPORT, 0, 0, 3]);
        body[8..12].copy_from_slice(&delay.ssrc.to_be_bytes());
        body[12..16].copy_from_slice(&delay.last_rr.to_be_bytes());
        body[16..].copy_from_slice(&delay.delay_since_last_rr.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpError, RtcpPacket, RtcpPackets};

    fn read(bytes: &[u8]) -> ExtendedReport<'_> {
        let Some(Ok(RtcpPacket::ExtendedReport(report))) = RtcpPackets::new(bytes).next() else { panic!("no XR") };
        report
    }

    // RTCP-19
    #[test]
    fn a_reference_time_and_its_answer_come_back_as_they_were_written() {
        let mut buffer = [0; 100];
        let mut writer = RtcpWriter::new(&mut buffer);
        let time = NtpTime(0x0123_4567_89ab_cdef);
        writer.receiver_reference_time(7, time).unwrap();
        let expected = [0x80, 207, 0, 4, 0, 0, 0, 7, 4, 0, 0, 2, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        assert_eq!(writer.as_bytes(), expected);
        let report = read(writer.as_bytes());
        assert_eq!((report.sender_ssrc, report.reference_time()), (7, Some(time)));
        assert_eq!(report.delays().count(), 0);

        let delay = DelaySinceLastReceiverReport { ssrc: 7, last_rr: time.compact(), delay_since_last_rr: 0x8000 };
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.delay_since_last_receiver_report(9, &delay).unwrap();
        let report = read(writer.as_bytes());
        assert_eq!((report.sender_ssrc, report.reference_time()), (9, None));
        assert_eq!(report.delays().collect::<Vec<_>>(), [delay]);
    }

    // RTCP-19
    #[test]
    fn other_blocks_are_passed_over_and_long_ones_refused() {
        // A loss RLE block of one word, then two answers.
        let mut bytes = vec![0x80, 207, 0, 9, 0, 0, 0, 1, 1, 0, 0, 1, 9, 9, 9, 9, 5, 0, 0, 6];
        bytes.extend([[0, 0, 0, 2], [0, 0, 0, 3], [0, 0, 0, 4]].as_flattened().repeat(2));
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        let delay = DelaySinceLastReceiverReport { ssrc: 2, last_rr: 3, delay_since_last_rr: 4 };
        assert_eq!(read(&bytes).delays().collect::<Vec<_>>(), [delay, delay]);
        bytes[19] = 7;
        assert_eq!(RtcpPackets::new(&bytes).next(), Some(Err(RtcpError::Malformed(207))));
        // A reference time that is too short is none.
        assert_eq!(read(&[0x80, 207, 0, 3, 0, 0, 0, 1, 4, 0, 0, 1, 1, 2, 3, 4]).reference_time(), None);
    }
}
