//! RTP header extensions: the elements of both forms (RFC 8285 §4), and the data of those that Sluice reads or writes.

use crate::rtcp::NtpTime;

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

/// The identification tag of `sdes:mid` (RFC 9143 §15): 1 to 16 bytes of token characters.
#[inline]
pub fn mid(data: &[u8]) -> Option<&str> {
    text(data, |byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte))
}

/// The stream id of `sdes:rtp-stream-id` or `sdes:repaired-rtp-stream-id` (RFC 8852 §3): 1 to 16 letters and digits;
/// `-` and `_`, which RFC 8851 §10 allows, too.
#[inline]
pub fn rid(data: &[u8]) -> Option<&str> {
    text(data, |byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn text(data: &[u8], allowed: impl Fn(u8) -> bool) -> Option<&str> {
    if !(1..=16).contains(&data.len()) || !data.iter().all(|&byte| allowed(byte)) {
        return None;
    }
    std::str::from_utf8(data).ok()
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

/// The data of an abs-send-time element for a packet that leaves at `now`.
#[inline]
pub fn write_abs_send_time(now: NtpTime) -> [u8; 3] {
    let [.., high, middle, low] = ((now.0 >> 14) as u32).to_be_bytes();
    [high, middle, low]
}

/// An audio level (RFC 6464 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// The encoder believes that the packet contains voice.
    pub voice: bool,
    /// In -dBov: 0 is the loudest, 127 is silence.
    pub level: u8,
}

/// The audio level. In the two-byte form a padding byte may follow (RFC 6464 §3).
#[inline]
pub fn audio_level(data: &[u8]) -> Option<AudioLevel> {
    match data {
        &[byte] | &[byte, _] => Some(AudioLevel { voice: byte & 0x80 != 0, level: byte & 0x7f }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn names_are_short_and_plain() {
        // EXT-H03, EXT-H04
        assert_eq!(mid(b"video0"), Some("video0"));
        assert_eq!(mid(b""), None);
        assert_eq!(mid(&[b'a'; 17]), None);
        assert_eq!(mid(b"a b"), None);
        assert_eq!(mid(&[0xc3, 0xa4]), None);
        assert_eq!(rid(b"hi-1_x"), Some("hi-1_x"));
        assert_eq!(rid(b"h;x"), None);
    }

    #[test]
    fn numbers_are_read_only_at_their_right_length() {
        assert_eq!(transport_cc(&[1, 2]), Some(0x0102));
        assert_eq!(transport_cc(&[1]), None);
        assert_eq!(abs_send_time(&[1, 2, 3]), Some(0x01_0203));
        assert_eq!(abs_send_time(&[1, 2, 3, 4]), None);
        assert_eq!(audio_level(&[0x85]), Some(AudioLevel { voice: true, level: 5 })); // EXT-H08
        assert_eq!(audio_level(&[]), None);
    }

    #[test]
    fn abs_send_time_counts_in_fractions_of_a_second() {
        // EXT-H06: half a second after a whole minute modulo 64 s.
        let now = NtpTime::from_unix(Duration::from_millis(64_500));
        let start = NtpTime::from_unix(Duration::from_secs(64));
        let ticks = |time| abs_send_time(&write_abs_send_time(time)).unwrap();
        assert_eq!(ticks(now).wrapping_sub(ticks(start)) & 0xff_ffff, 1 << 17);
    }
}
