//! Receiver reports and the report blocks that sender reports share (RFC 3550 §6.4).

use super::{RECEIVER_REPORT, RtcpFull, RtcpWriter, split_u32};

/// Most report blocks that one packet can hold.
pub const MAX_REPORT_BLOCKS: usize = 31;

const BLOCK_LEN: usize = 24;

/// Reception statistics of one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Share of packets lost since the report before, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; 24 bits with sign, negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Highest sequence number with the number of wraps above it.
    pub extended_highest_sequence: u32,
    /// Interarrival jitter in ticks of the RTP clock.
    pub jitter: u32,
    /// LSR: the middle 32 bits of the last sender report's NTP time, 0 if none was received.
    pub last_sr: u32,
    /// DLSR: time since that report in 1/65536 s, 0 if none was received.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn parse(bytes: &[u8; BLOCK_LEN]) -> ReportBlock {
        let word = |index: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| bytes[4 * index + byte]));
        let lost = word(1);
        ReportBlock {
            ssrc: word(0),
            fraction_lost: (lost >> 24) as u8,
            // Shifted up and down again, which spreads the sign.
            cumulative_lost: ((lost << 8) as i32) >> 8,
            extended_highest_sequence: word(2),
            jitter: word(3),
            last_sr: word(4),
            delay_since_last_sr: word(5),
        }
    }

    fn write(&self, out: &mut [u8; BLOCK_LEN]) {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        let words = [
            self.ssrc,
            (u32::from(self.fraction_lost) << 24) | lost,
            self.extended_highest_sequence,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ];
        for (chunk, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *chunk = word.to_be_bytes();
        }
    }
}

/// A receiver report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    blocks: &'a [[u8; BLOCK_LEN]],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<ReceiverReport<'a>> {
        let (sender_ssrc, rest) = split_u32(body)?;
        Some(ReceiverReport { sender_ssrc, blocks: split_blocks(count, rest)? })
    }

    /// The report blocks, at most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        read_blocks(self.blocks)
    }
}

/// The first `count` blocks of `bytes`; what follows is a profile's extension and ignored (RFC 3550 §6.4.3).
pub(super) fn split_blocks(count: u8, bytes: &[u8]) -> Option<&[[u8; BLOCK_LEN]]> {
    bytes.as_chunks::<BLOCK_LEN>().0.get(..usize::from(count))
}

pub(super) fn read_blocks(blocks: &[[u8; BLOCK_LEN]]) -> impl Iterator<Item = ReportBlock> + '_ {
    blocks.iter().map(ReportBlock::parse)
}

impl RtcpWriter<'_> {
    /// Adds a receiver report; with no blocks it is the empty report that leads a compound packet.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit, or for more than [`MAX_REPORT_BLOCKS`] blocks.
    pub fn receiver_report(&mut self, sender_ssrc: u32, blocks: &[ReportBlock]) -> Result<(), RtcpFull> {
        self.report(RECEIVER_REPORT, sender_ssrc, &[], blocks)
    }

    pub(super) fn report(
        &mut self,
        packet_type: u8,
        sender_ssrc: u32,
        sender_info: &[u8],
        blocks: &[ReportBlock],
    ) -> Result<(), RtcpFull> {
        if blocks.len() > MAX_REPORT_BLOCKS {
            return Err(RtcpFull);
        }
        let len = 4 + sender_info.len() + BLOCK_LEN * blocks.len();
        let body = self.packet(blocks.len() as u8, packet_type, len)?;
        let (ssrc, rest) = body.split_at_mut(4);
        let (info, rest) = rest.split_at_mut(sender_info.len());
        ssrc.copy_from_slice(&sender_ssrc.to_be_bytes());
        info.copy_from_slice(sender_info);
        for (out, block) in rest.as_chunks_mut::<BLOCK_LEN>().0.iter_mut().zip(blocks) {
            block.write(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 0x1122_3344,
        fraction_lost: 64,
        cumulative_lost: -2,
        extended_highest_sequence: 0x0001_ffff,
        jitter: 900,
        last_sr: 0xb705_2000,
        delay_since_last_sr: 0x0005_4000,
    };

    #[test]
    fn a_report_comes_back_as_it_was_written() {
        // RTCP-03
        let mut buffer = [0; 1200];
        let mut writer = RtcpWriter::new(&mut buffer);
        let blocks = [BLOCK, ReportBlock { cumulative_lost: 0x7f_ffff, ..BLOCK }];
        writer.receiver_report(7, &blocks).unwrap();
        assert_eq!(writer.as_bytes()[..4], [0x82, 201, 0, 13]);
        let Some(Ok(RtcpPacket::ReceiverReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else {
            panic!("no receiver report");
        };
        assert_eq!(report.sender_ssrc, 7);
        assert_eq!(report.blocks().collect::<Vec<_>>(), blocks);
    }

    #[test]
    fn cumulative_loss_saturates_at_24_bits() {
        // RTCP-03
        let mut out = [0; BLOCK_LEN];
        for (lost, written) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000), (-1, -1)] {
            ReportBlock { cumulative_lost: lost, ..BLOCK }.write(&mut out);
            assert_eq!(ReportBlock::parse(&out).cumulative_lost, written);
        }
    }

    #[test]
    fn a_count_beyond_the_packet_is_malformed() {
        assert_eq!(ReceiverReport::parse(2, &[0; 4 + 24]), None);
        assert!(ReceiverReport::parse(1, &[0; 4 + 24 + 8]).is_some(), "a profile's extension may follow");
    }

    #[test]
    fn more_blocks_than_the_count_can_say_are_refused() {
        // RTCP-20
        let mut buffer = [0; 1200];
        assert_eq!(RtcpWriter::new(&mut buffer).receiver_report(1, &[BLOCK; 32]), Err(RtcpFull));
        assert_eq!(RtcpWriter::new(&mut buffer).receiver_report(1, &[BLOCK; 31]), Ok(()));
    }
}
