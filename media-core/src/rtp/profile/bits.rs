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
}
