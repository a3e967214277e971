//! Source descriptions (RFC 3550 §6.5).

use super::{RtcpFull, RtcpWriter, SOURCE_DESCRIPTION, split_u32};

/// The item type of the canonical name.
pub const CNAME: u8 = 1;

/// A source description packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sdes<'a> {
    chunks: u8,
    body: &'a [u8],
}

/// One item of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesItem<'a> {
    /// The source.
    pub ssrc: u32,
    /// Item type; [`CNAME`] or one of RFC 3550 §6.5.
    pub kind: u8,
    /// The text as received; it need not be UTF-8.
    pub value: &'a [u8],
}

impl<'a> Sdes<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Sdes<'a>> {
        let sdes = Sdes { chunks: count, body };
        let mut items = sdes.items();
        while items.next().is_some() {}
        (!items.malformed).then_some(sdes)
    }

    /// All items of all sources.
    pub fn items(&self) -> SdesItems<'a> {
        SdesItems { chunks: self.chunks, rest: self.body, ssrc: None, malformed: false }
    }
}

/// The items of a source description.
#[derive(Clone, Debug)]
pub struct SdesItems<'a> {
    /// Chunks not yet begun.
    chunks: u8,
    /// Starts at a chunk when `ssrc` is `None`, else inside one.
    rest: &'a [u8],
    ssrc: Option<u32>,
    malformed: bool,
}

impl<'a> SdesItems<'a> {
    /// One step; the inner `None` is a chunk without a further item.
    fn step(&mut self) -> Option<Option<SdesItem<'a>>> {
        let Some(ssrc) = self.ssrc else {
            let (ssrc, rest) = split_u32(self.rest)?;
            self.chunks -= 1;
            (self.ssrc, self.rest) = (Some(ssrc), rest);
            return Some(None);
        };
        let (&kind, rest) = self.rest.split_first()?;
        if kind == 0 {
            // The list ends with at least one zero byte and is padded to 32 bits. The body is a whole number of words,
            // so the bytes up to its end tell where the chunk ends.
            (self.ssrc, self.rest) = (None, rest.get(rest.len() % 4..)?);
            return Some(None);
        }
        let (&len, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        self.rest = rest;
        Some(Some(SdesItem { ssrc, kind, value }))
    }
}

impl<'a> Iterator for SdesItems<'a> {
    type Item = SdesItem<'a>;

    fn next(&mut self) -> Option<SdesItem<'a>> {
        while !self.malformed && (self.chunks > 0 || self.ssrc.is_some()) {
            match self.step() {
                Some(Some(item)) => return Some(item),
                Some(None) => {}
                None => self.malformed = true,
            }
        }
        None
    }
}

impl RtcpWriter<'_> {
    /// Adds a source description with one CNAME item (RFC 3550 §6.5.1), of at most 255 bytes.
    ///
    /// # Errors
    /// [`RtcpFull`] if it does not fit or the name is longer.
    pub fn sdes_cname(&mut self, ssrc: u32, cname: &str) -> Result<(), RtcpFull> {
        let len = u8::try_from(cname.len()).map_err(|_| RtcpFull)?;
        // SSRC, type, length, name, and one to four zero bytes.
        let end = 6 + cname.len();
        let body = self.packet(1, SOURCE_DESCRIPTION, (end + 1).next_multiple_of(4))?;
        body[..4].copy_from_slice(&ssrc.to_be_bytes());
        body[4..6].copy_from_slice(&[CNAME, len]);
        body[6..end].copy_from_slice(cname.as_bytes());
        body[end..].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};

    #[test]
    fn a_cname_of_any_length_comes_back() {
        // RTP-14
        for len in 0..=255 {
            let name = "n".repeat(len);
            let mut buffer = [0xff; 300];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.sdes_cname(5, &name).unwrap();
            writer.pli(1, 2).unwrap();
            let mut packets = RtcpPackets::new(writer.as_bytes());
            let Some(Ok(RtcpPacket::Sdes(sdes))) = packets.next() else { panic!("no SDES for {len}") };
            let items: Vec<_> = sdes.items().collect();
            assert_eq!(items, [SdesItem { ssrc: 5, kind: CNAME, value: name.as_bytes() }]);
            assert!(matches!(packets.next(), Some(Ok(RtcpPacket::Pli(_)))));
        }
        assert_eq!(RtcpWriter::new(&mut [0; 300]).sdes_cname(5, &"n".repeat(256)), Err(RtcpFull));
    }

    #[test]
    fn several_chunks_and_items_are_read() {
        let body = [
            0, 0, 0, 1, 1, 1, b'a', 2, 1, b'b', 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, b'c', b'd', 0, 0, 0, 0,
        ];
        let items: Vec<_> = Sdes::parse(3, &body).unwrap().items().map(|item| (item.ssrc, item.kind)).collect();
        assert_eq!(items, [(1, 1), (1, 2), (3, 1)]);
    }

    #[test]
    fn chunks_and_items_beyond_the_packet_are_malformed() {
        assert_eq!(Sdes::parse(1, &[0, 0, 0]), None);
        assert_eq!(Sdes::parse(1, &[0, 0, 0, 1]), None, "no end of list");
        assert_eq!(Sdes::parse(1, &[0, 0, 0, 1, 1, 9, b'a', 0]), None);
        assert_eq!(Sdes::parse(2, &[0, 0, 0, 1, 0, 0, 0, 0]), None);
        assert!(Sdes::parse(0, &[]).is_some());
    }
}
