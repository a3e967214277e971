//! Reads bits of a header from the front, the highest of each byte first.

/// A position in a header.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, position: 0 }
    }

    /// The next `count` bits, 32 at most; `None` beyond the end.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            let byte = self.bytes.get(self.position / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Some(value)
    }

    /// Passes over bits; `None` beyond the end.
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.position = self.position.checked_add(count).filter(|end| *end <= 8 * self.bytes.len())?;
        Some(())
    }
}

/// The first `N` bytes of a NAL unit without the bytes that keep start codes out of it (H.265 §7.3.1.1): a 3 after two zeros.
pub(super) fn without_emulation_prevention<const N: usize>(unit: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let (mut length, mut zeros) = (0, 0);
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        *out.get_mut(length)? = byte;
        length += 1;
        if length == N {
            return Some(out);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_end_with_their_bytes() {
        let mut bits = Bits::new(&[0b1010_0000, 0xff]);
        assert_eq!((bits.take(3), bits.take(5), bits.take(8), bits.take(1)), (Some(5), Some(0), Some(255), None));
        let mut bits = Bits::new(&[0]);
        assert_eq!((bits.skip(8), bits.skip(1), bits.skip(usize::MAX)), (Some(()), None, None));
    }

    #[test]
    fn only_a_three_after_two_zeros_is_left_out() {
        assert_eq!(without_emulation_prevention(&[3, 0, 3, 0, 0, 3, 0, 0, 3, 1]), Some([3, 0, 3, 0, 0, 0, 0, 1]));
        assert_eq!(without_emulation_prevention::<4>(&[0, 0, 3, 1]), None);
    }
}
