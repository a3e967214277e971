//! Reads bits of a header from the front, the highest of each byte first.

/// A position in a header.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, position: 0 }
    }

    /// The next `count` bits, 32 at most; `None` beyond the end.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let end = self.position + count as usize;
        let bytes = self.bytes.get(self.position / 8..end.div_ceil(8))?;
        // Five bytes at most.
        let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        self.position = end;
        Some((value >> ((8 - end % 8) % 8) & ((1 << count) - 1)) as u32)
    }

    /// A number in Exp-Golomb code (H.264 §9.1); `None` beyond the end, or if it has more than 32 bits.
    pub(crate) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros == 32 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.take(zeros)?)
    }

    /// Bits that were read.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Passes over bits; `None` beyond the end.
    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        self.position = self.position.checked_add(count).filter(|end| *end <= 8 * self.bytes.len())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_end_with_their_bytes() {
        let mut bits = Bits::new(&[0b1010_0000, 0xff]);
        assert_eq!((bits.take(3), bits.take(5), bits.take(8), bits.take(1)), (Some(5), Some(0), Some(255), None));
        let mut bits = Bits::new(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab]);
        assert_eq!((bits.take(0), bits.take(4), bits.take(32)), (Some(0), Some(0), Some(0x1234_5678)));
        assert_eq!((bits.take(13), bits.take(12), bits.take(0)), (None, Some(0x9ab), Some(0)));
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0001, 0b0101_1111]);
        let numbers: Vec<_> = (0..5).map(|_| bits.exp_golomb()).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2), Some(3), Some(9)]);
        let mut bits = Bits::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bits.exp_golomb(), Some(u32::MAX - 1));
        assert_eq!((Bits::new(&[0; 9]).exp_golomb(), Bits::new(&[0; 2]).exp_golomb()), (None, None));
        let mut bits = Bits::new(&[0]);
        assert_eq!((bits.skip(8), bits.skip(1), bits.skip(usize::MAX)), (Some(()), None, None));
    }
}
