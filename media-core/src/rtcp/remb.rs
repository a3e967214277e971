//! Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03 §2.2).

use super::{PAYLOAD_FEEDBACK, RtcpFull, RtcpWriter, split_u32, ssrc_list};

pub(super) const FORMAT: u8 = 15;

const IDENTIFIER: &[u8; 4] = b"REMB";

/// A receiver's estimate of the path's bitrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender_ssrc: u32,
    /// Bits per second over all the sources together; saturates.
    pub bitrate: u64,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    /// True if this application layer feedback is a REMB.
    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(8..12).is_some_and(|identifier| identifier == IDENTIFIER)
    }

    pub(super) fn parse(body: &'a [u8]) -> Option<Remb<'a>> {
        let (sender_ssrc, _) = split_u32(body)?;
        let (&[count, b0, b1, b2], rest) = body.get(12..)?.split_first_chunk::<4>()?;
        let mantissa = u64::from(u32::from_be_bytes([0, b0 & 0x03, b1, b2]));
        let exponent = u32::from(b0 >> 2);
        let bitrate = if mantissa.leading_zeros() >= exponent { mantissa << exponent } else { u64::MAX };
        Some(Remb { sender_ssrc, bitrate, ssrcs: rest.get(..4 * usize::from(count))? })
    }

    /// The sources that the estimate is for, at most 255.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + 'a {
        ssrc_list(self.ssrcs)
    }
}

impl RtcpWriter<'_> {
    /// Adds an estimate in bits per second for up to 255 sources; it is rounded down to 18 significant bits.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit.
    pub fn remb(&mut self, sender_ssrc: u32, bitrate: u64, ssrcs: &[u32]) -> Result<(), RtcpFull> {
        let count = u8::try_from(ssrcs.len()).map_err(|_| RtcpFull)?;
        let exponent = 46u32.saturating_sub(bitrate.leading_zeros());
        let [.., m0, m1, m2] = (bitrate >> exponent).to_be_bytes();
        let body = self.packet(FORMAT, PAYLOAD_FEEDBACK, 16 + 4 * ssrcs.len())?;
        body[..4].copy_from_slice(&sender_ssrc.to_be_bytes());
        body[4..8].fill(0);
        body[8..12].copy_from_slice(IDENTIFIER);
        body[12..16].copy_from_slice(&[count, ((exponent as u8) << 2) | m0, m1, m2]);
        for (out, ssrc) in body[16..].as_chunks_mut::<4>().0.iter_mut().zip(ssrcs) {
            *out = ssrc.to_be_bytes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};

    #[test]
    fn estimates_come_back_within_18_bits() {
        // RTCP-13
        for bitrate in [0, 1, 0x3_ffff, 0x4_0000, 2_500_000, 10_000_000_000, u64::MAX] {
            let mut buffer = [0xff; 100];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.remb(1, bitrate, &[2, 3]).unwrap();
            let Some(Ok(RtcpPacket::Remb(remb))) = RtcpPackets::new(writer.as_bytes()).next() else {
                panic!("no REMB")
            };
            assert!(remb.bitrate <= bitrate && bitrate - remb.bitrate <= bitrate >> 17, "{bitrate}");
            assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [2, 3]);
        }
    }

    #[test]
    fn a_huge_exponent_saturates() {
        // RTCP-13
        let mut body = [0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xff, 0xff, 0xff];
        assert_eq!(Remb::parse(&body).unwrap().bitrate, u64::MAX);
        body[13] = 0xfc;
        (body[14], body[15]) = (0, 0);
        assert_eq!(Remb::parse(&body).unwrap().bitrate, 0);
    }

    #[test]
    fn more_sources_than_the_packet_holds_are_malformed() {
        // RTCP-13
        let body = [0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 2, 0, 0, 1, 0, 0, 0, 9];
        assert_eq!(Remb::parse(&body), None);
        assert_eq!(Remb::parse(&body[..12]), None);
        assert!(Remb::is_remb(&body));
        assert!(!Remb::is_remb(&body[..11]));
    }
}
