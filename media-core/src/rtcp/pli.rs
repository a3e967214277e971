//! Picture loss indication (RFC 4585 §6.3.1).

use super::{PAYLOAD_FEEDBACK, RtcpFull, RtcpWriter, split_u32};

pub(super) const FORMAT: u8 = 1;

/// Asks a sender for a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Whose keyframe.
    pub media_ssrc: u32,
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Option<Pli> {
        let (sender_ssrc, rest) = split_u32(body)?;
        let (media_ssrc, _) = split_u32(rest)?;
        Some(Pli { sender_ssrc, media_ssrc })
    }
}

impl RtcpWriter<'_> {
    /// Adds a picture loss indication.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit.
    pub fn pli(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Result<(), RtcpFull> {
        let body = self.packet(FORMAT, PAYLOAD_FEEDBACK, 8)?;
        body[..4].copy_from_slice(&sender_ssrc.to_be_bytes());
        body[4..].copy_from_slice(&media_ssrc.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indication_has_two_sources_and_nothing_else() {
        // RTCP-11
        let mut buffer = [0; 12];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.pli(1, 2).unwrap();
        assert_eq!(writer.as_bytes(), [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(Pli::parse(&writer.as_bytes()[4..]), Some(Pli { sender_ssrc: 1, media_ssrc: 2 }));
        assert_eq!(Pli::parse(&[0; 7]), None);
    }
}
