//! Full intra request (RFC 5104 §4.3.1).

use super::{PAYLOAD_FEEDBACK, RtcpFull, RtcpWriter, split_u32};

pub(super) const FORMAT: u8 = 4;

/// Asks senders for a keyframe; a repeat of the same request has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fir<'a> {
    /// The requesting SSRC.
    pub sender_ssrc: u32,
    entries: &'a [[u8; 8]],
}

/// The request to one media sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// The media sender.
    pub ssrc: u32,
    /// Number of the request, modulo 256.
    pub sequence_number: u8,
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Fir<'a>> {
        let (sender_ssrc, rest) = split_u32(body)?;
        // The media SSRC of the common header is unused.
        let entries = rest.get(4..)?.as_chunks::<8>().0;
        (!entries.is_empty()).then_some(Fir { sender_ssrc, entries })
    }

    /// The requests, at least one.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + 'a {
        self.entries.iter().map(|&[a, b, c, d, number, ..]| FirEntry {
            ssrc: u32::from_be_bytes([a, b, c, d]),
            sequence_number: number,
        })
    }
}

impl RtcpWriter<'_> {
    /// Adds a full intra request for one sender.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit.
    pub fn fir(&mut self, sender_ssrc: u32, entry: FirEntry) -> Result<(), RtcpFull> {
        let body = self.packet(FORMAT, PAYLOAD_FEEDBACK, 16)?;
        body.fill(0);
        body[..4].copy_from_slice(&sender_ssrc.to_be_bytes());
        body[8..12].copy_from_slice(&entry.ssrc.to_be_bytes());
        body[12] = entry.sequence_number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_number() {
        // RTCP-11, RTCP-12
        let entry = FirEntry { ssrc: 0x0102_0304, sequence_number: 200 };
        let mut buffer = [0xff; 20];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.fir(9, entry).unwrap();
        let bytes = writer.as_bytes();
        assert_eq!(bytes, [0x84, 206, 0, 4, 0, 0, 0, 9, 0, 0, 0, 0, 1, 2, 3, 4, 200, 0, 0, 0]);
        let fir = Fir::parse(&bytes[4..]).unwrap();
        assert_eq!(fir.entries().collect::<Vec<_>>(), [entry]);
    }

    #[test]
    fn a_request_to_nobody_is_malformed() {
        assert_eq!(Fir::parse(&[0; 8]), None);
        assert_eq!(Fir::parse(&[0; 12]), None);
        assert_eq!(Fir::parse(&[0; 24]).unwrap().entries().count(), 2);
    }
}
