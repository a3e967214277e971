//! The RTP header (RFC 3550 §5.1): parsed once into a small value, and written for every viewer.

use super::extension::{ExtensionIter, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};

/// Length of the header without CSRCs and extension, in bytes.
pub const FIXED_HEADER_LEN: usize = 12;

/// Why a packet is no RTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than the fixed header.
    #[error("shorter than an RTP header")]
    TooShort,
    /// The version is not 2.
    #[error("RTP version {0}")]
    Version(u8),
    /// The CSRC list or the header extension reaches beyond the packet.
    #[error("the RTP header reaches beyond the packet")]
    TruncatedHeader,
    /// The padding length is zero or reaches into the header.
    #[error("bad RTP padding")]
    Padding,
}

/// The header of one packet, with the places of its parts. It does not borrow the packet: hand the same bytes to the
/// methods that read parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// M bit.
    pub marker: bool,
    /// 0..=127.
    pub payload_type: u8,
    /// RTP sequence number.
    pub sequence_number: u16,
    /// In ticks of the payload type's clock.
    pub timestamp: u32,
    /// The source.
    pub ssrc: u32,
    /// Bytes before the payload: fixed header, CSRC list and extension.
    pub header_len: usize,
    /// Bytes of padding at the end, its count byte included; 0 if there is none, or it is encrypted.
    pub padding_len: usize,
    /// The "defined by profile" field of the header extension, if there is one (RFC 8285 §4).
    pub extension_profile: Option<u16>,
    /// Bytes of the extension's body, which ends where the payload begins.
    pub extension_len: usize,
}

impl RtpHeader {
    /// Reads the header and checks that all its parts lie inside the packet (RFC 3550 A.1).
    ///
    /// # Errors
    /// See [`RtpError`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<RtpHeader, RtpError> {
        let header = RtpHeader::parse_encrypted(packet)?;
        let mut padding_len = 0;
        if packet.first().is_some_and(|first| first & 0x20 != 0) {
            padding_len = packet.last().map_or(0, |&count| usize::from(count));
            if padding_len == 0 || padding_len > packet.len() - header.header_len {
                return Err(RtpError::Padding);
            }
        }
        Ok(RtpHeader { padding_len, ..header })
    }

    /// The same of an SRTP packet: all after the header is encrypted, the count of the padding, too (RFC 3711 §3.1).
    ///
    /// # Errors
    /// See [`RtpError`].
    #[inline]
    pub fn parse_encrypted(packet: &[u8]) -> Result<RtpHeader, RtpError> {
        let Some(&[first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]) = packet.first_chunk::<FIXED_HEADER_LEN>()
        else {
            return Err(RtpError::TooShort);
        };
        if first >> 6 != 2 {
            return Err(RtpError::Version(first >> 6));
        }
        let mut header_len = FIXED_HEADER_LEN + 4 * usize::from(first & 0x0f);
        let mut extension_profile = None;
        let mut extension_len = 0;
        if first & 0x10 != 0 {
            let Some(&[p0, p1, l0, l1]) = packet.get(header_len..).and_then(|rest| rest.first_chunk::<4>()) else {
                return Err(RtpError::TruncatedHeader);
            };
            extension_profile = Some(u16::from_be_bytes([p0, p1]));
            extension_len = 4 * usize::from(u16::from_be_bytes([l0, l1]));
            header_len += 4 + extension_len;
        }
        if header_len > packet.len() {
            return Err(RtpError::TruncatedHeader);
        }
        Ok(RtpHeader {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence_number: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            header_len,
            padding_len: 0,
            extension_profile,
            extension_len,
        })
    }

    /// The payload without padding; empty for a padding-only packet. `packet` is what was parsed.
    #[inline]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.header_len..packet.len().saturating_sub(self.padding_len)).unwrap_or_default()
    }

    /// The elements of the header extension, in their order. `packet` is what was parsed.
    #[inline]
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> ExtensionIter<'a> {
        match self.extension_profile {
            None => ExtensionIter::empty(),
            Some(profile) => {
                let start = self.header_len.saturating_sub(self.extension_len);
                ExtensionIter::new(profile, packet.get(start..self.header_len).unwrap_or_default())
            }
        }
    }

    /// The data of the first extension element with this id. `packet` is what was parsed.
    #[inline]
    pub fn extension<'a>(&self, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
        self.extensions(packet).find(|&(found, _)| found == id).map(|(_, data)| data)
    }
}

/// What [`write_header`] writes besides extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// M bit.
    pub marker: bool,
    /// P bit: the caller ends the packet with padding, whose last byte counts it (RFC 3550 §5.1).
    pub padding: bool,
    /// 0..=127.
    pub payload_type: u8,
    /// RTP sequence number.
    pub sequence_number: u16,
    /// In ticks of the payload type's clock.
    pub timestamp: u32,
    /// The source.
    pub ssrc: u32,
}

/// Writes a header without CSRCs and with these extension elements, as (id 1..=255, data of at most 255 bytes), and
/// returns its length in bytes; `None` if `out` is too small or an element cannot be expressed.
///
/// The one-byte form is taken unless an id above 14 or a length of 0 or above 16 needs the two-byte form (RFC 8285 §4).
/// Without elements there is no extension (X=0).
#[inline]
pub fn write_header<'d, I>(out: &mut [u8], fields: &HeaderFields, extensions: I) -> Option<usize>
where
    I: IntoIterator<Item = (u8, &'d [u8])>,
    I::IntoIter: Clone,
{
    let elements = extensions.into_iter();
    let fixed = out.first_chunk_mut::<FIXED_HEADER_LEN>()?;
    fixed[0] = 0x80 | (u8::from(fields.padding) << 5);
    fixed[1] = (u8::from(fields.marker) << 7) | (fields.payload_type & 0x7f);
    fixed[2..4].copy_from_slice(&fields.sequence_number.to_be_bytes());
    fixed[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
    fixed[8..12].copy_from_slice(&fields.ssrc.to_be_bytes());

    // One pass in the common form; only an element that does not fit it starts over in the other.
    const BODY: usize = FIXED_HEADER_LEN + 4;
    let mut end = BODY;
    let mut profile = ONE_BYTE_PROFILE;
    for (id, data) in elements.clone() {
        if !(1..=14).contains(&id) || !(1..=16).contains(&data.len()) {
            profile = TWO_BYTE_PROFILE;
            break;
        }
        let element = out.get_mut(end..end + 1 + data.len())?;
        element[0] = (id << 4) | (data.len() - 1) as u8;
        element[1..].copy_from_slice(data);
        end += element.len();
    }
    if profile == TWO_BYTE_PROFILE {
        end = BODY;
        for (id, data) in elements {
            if id == 0 {
                return None;
            }
            let len = u8::try_from(data.len()).ok()?;
            let element = out.get_mut(end..end + 2 + data.len())?;
            element[..2].copy_from_slice(&[id, len]);
            element[2..].copy_from_slice(data);
            end += element.len();
        }
    }
    if end == BODY {
        return Some(FIXED_HEADER_LEN);
    }
    let padded = end.next_multiple_of(4);
    out.get_mut(end..padded)?.fill(0);
    let words = u16::try_from((padded - BODY) / 4).ok()?;
    out[0] |= 0x10;
    out[FIXED_HEADER_LEN..FIXED_HEADER_LEN + 2].copy_from_slice(&profile.to_be_bytes());
    out[FIXED_HEADER_LEN + 2..BODY].copy_from_slice(&words.to_be_bytes());
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: HeaderFields = HeaderFields {
        marker: true,
        padding: false,
        payload_type: 96,
        sequence_number: 0x1234,
        timestamp: 0x89ab_cdef,
        ssrc: 0xdead_beef,
    };

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0xe0, 0x12, 0x34, 0x89, 0xab, 0xcd, 0xef, 0xde, 0xad, 0xbe, 0xef];
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn fields_are_read_from_their_places() {
        let packet = packet(0x80, b"payload");
        let header = RtpHeader::parse(&packet).unwrap();
        assert!(header.marker);
        assert_eq!((header.payload_type, header.sequence_number), (96, 0x1234));
        assert_eq!((header.timestamp, header.ssrc), (0x89ab_cdef, 0xdead_beef));
        assert_eq!(header.payload(&packet), b"payload");
        assert_eq!(header.extensions(&packet).count(), 0);
    }

    #[test]
    fn csrcs_extension_and_padding_are_kept_out_of_the_payload() {
        let packet = packet(0xb1, &[1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x30, 0x61, 0, 0, 9, 9, 0, 2]);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!((header.header_len, header.padding_len), (24, 2));
        assert_eq!(header.payload(&packet), [9, 9]);
        assert_eq!(header.extension(&packet, 3), Some(&b"a"[..]));
        assert_eq!(header.extension(&packet, 4), None);
    }

    #[test]
    fn a_padding_only_packet_has_an_empty_payload() {
        // RTP-09
        let packet = packet(0xa0, &[0, 0, 0, 4]);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(header.padding_len, 4);
        assert!(header.payload(&packet).is_empty());
    }

    #[test]
    fn encrypted_padding_is_not_read() {
        // RTP-09
        let packet = packet(0xa0, &[0x5c, 0xff]);
        assert_eq!(RtpHeader::parse(&packet), Err(RtpError::Padding));
        let header = RtpHeader::parse_encrypted(&packet).unwrap();
        assert_eq!((header.header_len, header.padding_len, header.sequence_number), (12, 0, 0x1234));
    }

    #[test]
    fn malformed_headers_are_refused() {
        // RTP-01
        assert_eq!(RtpHeader::parse(&[0x80; 11]), Err(RtpError::TooShort));
        assert_eq!(RtpHeader::parse(&packet(0x40, &[])), Err(RtpError::Version(1)));
        assert_eq!(RtpHeader::parse(&packet(0x81, &[0; 3])), Err(RtpError::TruncatedHeader));
        assert_eq!(RtpHeader::parse(&packet(0x90, &[0xbe, 0xde, 0])), Err(RtpError::TruncatedHeader));
        assert_eq!(RtpHeader::parse(&packet(0x90, &[0xbe, 0xde, 0, 1, 0, 0, 0])), Err(RtpError::TruncatedHeader));
        assert_eq!(RtpHeader::parse(&packet(0x90, &[0xbe, 0xde, 0xff, 0xff])), Err(RtpError::TruncatedHeader));
        assert_eq!(RtpHeader::parse(&packet(0xa0, &[1, 0])), Err(RtpError::Padding));
        assert_eq!(RtpHeader::parse(&packet(0xa0, &[1, 3])), Err(RtpError::Padding));
        assert_eq!(RtpHeader::parse(&packet(0xa0, &[])), Err(RtpError::Padding));
    }

    #[test]
    fn header_and_packet_of_different_lengths_do_no_harm() {
        let long = packet(0xb0, &[0xbe, 0xde, 0, 1, 0x10, 7, 0, 0, 1, 1]);
        let header = RtpHeader::parse(&long).unwrap();
        assert!(header.payload(&long[..13]).is_empty());
        assert_eq!(header.extensions(&long[..13]).count(), 0);
    }

    #[test]
    fn a_header_without_elements_has_no_extension() {
        // EXT-H02
        let mut out = [0xff; 32];
        assert_eq!(write_header(&mut out, &FIELDS, []), Some(12));
        let header = RtpHeader::parse(&out[..12]).unwrap();
        assert_eq!(header.extension_profile, None);
        assert_eq!(header.ssrc, FIELDS.ssrc);
    }

    #[test]
    fn small_elements_take_the_one_byte_form() {
        // EXT-H02
        let mut out = [0xff; 64];
        let len = write_header(&mut out, &FIELDS, [(1, &b"0"[..]), (14, &[7; 16])]).unwrap();
        assert_eq!(len, 12 + 4 + 20);
        let header = RtpHeader::parse(&out[..len]).unwrap();
        assert_eq!(header.extension_profile, Some(0xbede));
        let elements: Vec<_> = header.extensions(&out[..len]).collect();
        assert_eq!(elements, [(1, &b"0"[..]), (14, &[7; 16])]);
        assert_eq!(out[35], 0, "padded with zeros");
    }

    #[test]
    fn elements_beyond_the_one_byte_form_take_the_two_byte_form() {
        // EXT-H02
        for odd in [(15, &[1u8][..]), (200, &[1]), (3, &[]), (3, &[9; 17])] {
            let mut out = [0xff; 64];
            let len = write_header(&mut out, &FIELDS, [(1, &b"0"[..]), odd]).unwrap();
            assert_eq!(len % 4, 0);
            let header = RtpHeader::parse(&out[..len]).unwrap();
            assert_eq!(header.extension_profile, Some(0x1000));
            let elements: Vec<_> = header.extensions(&out[..len]).collect();
            assert_eq!(elements, [(1, &b"0"[..]), odd]);
        }
    }

    #[test]
    fn a_header_that_does_not_fit_is_not_written() {
        let mut out = [0; 19];
        assert_eq!(write_header(&mut out[..11], &FIELDS, []), None);
        assert_eq!(write_header(&mut out, &FIELDS, [(1, &[0u8; 1][..])]), None);
        assert_eq!(write_header(&mut out, &FIELDS, [(1, &[][..])]), None);
        assert_eq!(write_header(&mut [0; 64], &FIELDS, [(0, &[1u8][..])]), None);
        assert_eq!(write_header(&mut [0; 512], &FIELDS, [(1, &[0; 256][..])]), None);
    }

    #[test]
    fn the_padding_bit_is_the_callers() {
        let mut out = [0; 16];
        let len = write_header(&mut out, &HeaderFields { padding: true, ..FIELDS }, []).unwrap();
        out[len + 3] = 4;
        assert_eq!(RtpHeader::parse(&out).unwrap().padding_len, 4);
    }
}
