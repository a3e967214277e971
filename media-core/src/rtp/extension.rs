//! RTP header extensions: the elements of both forms (RFC 8285 §4), and the data of those that Sluice reads.

/// "defined by profile" of the one-byte form (RFC 8285 §4.2).
pub const ONE_BYTE_PROFILE: u16 = 0xbede;
/// "defined by profile" of the two-byte form with appbits 0 (RFC 8285 §4.3).
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The elements of one header extension, as (id, data). A truncated element ends it, as does id 15 of the one-byte form.
#[derive(Clone, Debug)]
pub struct ExtensionIter<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> ExtensionIter<'a> {
    /// Reads the body of an extension; a profile other than those of RFC 8285 has no elements.
    #[inline]
    pub fn new(profile: u16, body: &'a [u8]) -> ExtensionIter<'a> {
        match profile {
            ONE_BYTE_PROFILE => ExtensionIter { rest: body, two_byte: false },
            _ if profile & 0xfff0 == TWO_BYTE_PROFILE => ExtensionIter { rest: body, two_byte: true },
            _ => ExtensionIter::empty(),
        }
    }

    /// No elements.
    #[inline]
    pub fn empty() -> ExtensionIter<'static> {
        ExtensionIter { rest: &[], two_byte: false }
    }
}

impl<'a> Iterator for ExtensionIter<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let (&first, after) = self.rest.split_first()?;
            if first == 0 {
                self.rest = after;
                continue;
            }
            let (id, len, after) = if self.two_byte {
                let (&len, after) = after.split_first()?;
                (first, usize::from(len), after)
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1, after)
            };
            // In the one-byte form id 15, and id 0 with a length, end the extension (RFC 8285 §4.2).
            let complete = after.split_at_checked(len).filter(|_| self.two_byte || !matches!(id, 0 | 15));
            let Some((data, after)) = complete else {
                self.rest = &[];
                return None;
            };
            self.rest = after;
            return Some((id, data));
        }
    }
}

/// The transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2).
#[inline]
pub fn transport_cc(data: &[u8]) -> Option<u16> {
    data.try_into().ok().map(u16::from_be_bytes)
}

/// The send time in 2⁻¹⁸ s, modulo 64 s.
#[inline]
pub fn abs_send_time(data: &[u8]) -> Option<u32> {
    let &[high, middle, low] = data else { return None };
    Some(u32::from_be_bytes([0, high, middle, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(profile: u16, body: &[u8]) -> Vec<(u8, Vec<u8>)> {
        ExtensionIter::new(profile, body).map(|(id, data)| (id, data.to_vec())).collect()
    }

    #[test]
    fn one_byte_elements_and_padding_are_told_apart() {
        // EXT-H01
        let body = [0x10, 0xaa, 0, 0, 0xe1, 0xbb, 0xcc, 0];
        assert_eq!(elements(0xbede, &body), [(1, vec![0xaa]), (14, vec![0xbb, 0xcc])]);
    }

    #[test]
    fn id_15_and_a_long_id_0_end_the_one_byte_form() {
        // EXT-H01
        assert_eq!(elements(0xbede, &[0x10, 1, 0xf0, 2, 0x20, 3]), [(1, vec![1])]);
        assert_eq!(elements(0xbede, &[0x10, 1, 0x01, 2, 0x20, 3]), [(1, vec![1])]);
    }

    #[test]
    fn two_byte_elements_may_be_empty_or_long() {
        // EXT-H01
        let mut body = vec![15, 0, 0, 255, 200];
        body.extend([7; 200]);
        for profile in [0x1000, 0x100f] {
            assert_eq!(elements(profile, &body), [(15, vec![]), (255, vec![7; 200])]);
        }
    }

    #[test]
    fn a_truncated_element_ends_the_extension() {
        // EXT-H01
        assert_eq!(elements(0xbede, &[0x10, 1, 0x23, 2]), [(1, vec![1])]);
        assert_eq!(elements(0x1000, &[1, 1, 1, 2]), [(1, vec![1])]);
        assert_eq!(elements(0x1000, &[1, 1, 1, 2, 4, 1]), [(1, vec![1])]);
        assert_eq!(elements(0x1234, &[0x10, 1]), []);
    }

    #[test]
    fn numbers_are_read_only_at_their_right_length() {
        assert_eq!(transport_cc(&[1, 2]), Some(0x0102));
        assert_eq!(transport_cc(&[1]), None);
        assert_eq!(abs_send_time(&[1, 2, 3]), Some(0x01_0203));
        assert_eq!(abs_send_time(&[1, 2, 3, 4]), None);
    }
}
