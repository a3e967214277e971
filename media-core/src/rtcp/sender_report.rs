//! Sender reports (RFC 3550 §6.4.1).

use super::receiver_report::{read_blocks, split_blocks};
use super::{NtpTime, ReportBlock, RtcpFull, RtcpWriter, SENDER_REPORT, split_u32};

/// The sender info of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Wall clock at the moment of sending.
    pub ntp: NtpTime,
    /// The same moment on the RTP clock.
    pub rtp_timestamp: u32,
    /// RTP packets sent since the beginning.
    pub packet_count: u32,
    /// Payload bytes of those, without headers and padding.
    pub octet_count: u32,
}

/// A sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport<'a> {
    /// Who sends.
    pub sender_ssrc: u32,
    /// Its sender info.
    pub info: SenderInfo,
    blocks: &'a [[u8; 24]],
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<SenderReport<'a>> {
        let (sender_ssrc, rest) = split_u32(body)?;
        let (ntp, rest) = rest.split_first_chunk::<8>()?;
        let (rtp_timestamp, rest) = split_u32(rest)?;
        let (packet_count, rest) = split_u32(rest)?;
        let (octet_count, rest) = split_u32(rest)?;
        let info = SenderInfo { ntp: NtpTime(u64::from_be_bytes(*ntp)), rtp_timestamp, packet_count, octet_count };
        Some(SenderReport { sender_ssrc, info, blocks: split_blocks(count, rest)? })
    }

    /// Report blocks about what the sender receives, at most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        read_blocks(self.blocks)
    }
}

impl RtcpWriter<'_> {
    /// Adds a sender report.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit, or for more than 31 blocks.
    pub fn sender_report(
        &mut self,
        sender_ssrc: u32,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Result<(), RtcpFull> {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&info.ntp.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&info.rtp_timestamp.to_be_bytes());
        bytes[12..16].copy_from_slice(&info.packet_count.to_be_bytes());
        bytes[16..].copy_from_slice(&info.octet_count.to_be_bytes());
        self.report(SENDER_REPORT, sender_ssrc, &bytes, blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};

    #[test]
    fn a_report_comes_back_as_it_was_written() {
        // RTCP-04
        let mut buffer = [0; 1200];
        let mut writer = RtcpWriter::new(&mut buffer);
        let info = SenderInfo {
            ntp: NtpTime(0x0123_4567_89ab_cdef),
            rtp_timestamp: 0xdead_beef,
            packet_count: 12,
            octet_count: 3_456,
        };
        let block = ReportBlock { ssrc: 9, jitter: 5, ..ReportBlock::default() };
        writer.sender_report(7, &info, &[block]).unwrap();
        assert_eq!(writer.as_bytes()[..4], [0x81, 200, 0, 12]);
        let Some(Ok(RtcpPacket::SenderReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else {
            panic!("no sender report");
        };
        assert_eq!((report.sender_ssrc, report.info), (7, info));
        assert_eq!(report.blocks().collect::<Vec<_>>(), [block]);
    }

    #[test]
    fn a_short_report_is_malformed() {
        for len in 0..24 {
            assert_eq!(SenderReport::parse(0, &[0; 24][..len]), None);
        }
        assert_eq!(SenderReport::parse(1, &[0; 24 + 23]), None);
    }
}
