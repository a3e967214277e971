//! Goodbye (RFC 3550 §6.6).

use super::{GOODBYE, RtcpFull, RtcpWriter, ssrc_list};

/// Sources that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye<'a> {
    ssrcs: &'a [u8],
}

impl<'a> Bye<'a> {
    /// The reason text after the list is for people and ignored.
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Bye<'a>> {
        Some(Bye { ssrcs: body.get(..4 * usize::from(count))? })
    }

    /// The sources, at most 31.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + 'a {
        ssrc_list(self.ssrcs)
    }
}

impl RtcpWriter<'_> {
    /// Adds a goodbye for up to 31 sources, without a reason text.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit.
    pub fn bye(&mut self, ssrcs: &[u32]) -> Result<(), RtcpFull> {
        if ssrcs.len() > 31 {
            return Err(RtcpFull);
        }
        let body = self.packet(ssrcs.len() as u8, GOODBYE, 4 * ssrcs.len())?;
        for (out, ssrc) in body.as_chunks_mut::<4>().0.iter_mut().zip(ssrcs) {
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
    fn the_sources_come_back() {
        // RTCP-18
        let mut buffer = [0; 64];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.bye(&[1, 0xffff_ffff]).unwrap();
        let Some(Ok(RtcpPacket::Bye(bye))) = RtcpPackets::new(writer.as_bytes()).next() else { panic!("no BYE") };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [1, 0xffff_ffff]);
    }

    #[test]
    fn a_reason_may_follow_and_missing_sources_may_not() {
        let body = [0, 0, 0, 1, 3, b'e', b'n', b'd'];
        assert_eq!(Bye::parse(1, &body).unwrap().ssrcs().collect::<Vec<_>>(), [1]);
        assert_eq!(Bye::parse(3, &body), None);
        assert_eq!(Bye::parse(0, &[]).unwrap().ssrcs().count(), 0);
    }
}
