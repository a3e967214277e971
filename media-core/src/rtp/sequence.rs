//! Arithmetic on numbers that wrap: RTP sequence numbers and timestamps (RFC 3550 A.1, RFC 1982).

/// `a - b` on the circle, in -32768..=32767.
#[inline]
pub fn sequence_distance(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

/// True if sequence number `a` is later than `b`.
#[inline]
pub fn sequence_is_newer(a: u16, b: u16) -> bool {
    sequence_distance(a, b) > 0
}

/// `a - b` on the circle, in ticks.
#[inline]
pub fn timestamp_distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// True if timestamp `a` is later than `b`.
#[inline]
pub fn timestamp_is_newer(a: u32, b: u32) -> bool {
    timestamp_distance(a, b) > 0
}

/// Turns 16-bit sequence numbers into ones that do not wrap.
///
/// The first number becomes 65536 plus itself, so that packets from before it still have a place below it. A number counts
/// as late if it lies at most 32768 below the highest, else as newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceExtender {
    highest: Option<u64>,
}

impl SequenceExtender {
    /// Has seen nothing.
    pub fn new() -> SequenceExtender {
        SequenceExtender::default()
    }

    /// The extended number; the low 16 bits equal `sequence_number`.
    #[inline]
    pub fn extend(&mut self, sequence_number: u16) -> u64 {
        let extended = self.peek(sequence_number);
        self.highest = Some(self.highest.map_or(extended, |highest| highest.max(extended)));
        extended
    }

    /// What [`extend`](Self::extend) would return, without noting it.
    #[inline]
    pub fn peek(&self, sequence_number: u16) -> u64 {
        match self.highest {
            None => (1 << 16) + u64::from(sequence_number),
            Some(highest) => highest.wrapping_add_signed(i64::from(sequence_distance(sequence_number, highest as u16))),
        }
    }

    /// The highest extended number so far.
    #[inline]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_wraps() {
        assert!(sequence_is_newer(0, 0xffff));
        assert!(!sequence_is_newer(0xffff, 0));
        assert!(!sequence_is_newer(5, 5));
        assert!(timestamp_is_newer(10, u32::MAX));
        assert!(!timestamp_is_newer(u32::MAX, 10));
        assert_eq!(timestamp_distance(1, u32::MAX), 2);
    }

    #[test]
    fn numbers_grow_over_several_wraps() {
        let mut extender = SequenceExtender::new();
        let first = extender.extend(65_000);
        for step in 1..200_000u64 {
            assert_eq!(extender.extend((65_000 + step) as u16), first + step);
        }
    }

    #[test]
    fn reordering_across_a_wrap_keeps_every_place() {
        let mut extender = SequenceExtender::new();
        let order = [65_534, 1, 65_535, 0, 3, 65_533, 2];
        let extended: Vec<_> = order.map(|number| extender.extend(number)).into();
        let base = 65_536 + 65_533;
        assert_eq!(extended, [1, 4, 2, 3, 6, 0, 5].map(|offset| base + offset));
        assert_eq!(extender.highest(), Some(base + 6));
    }

    #[test]
    fn packets_before_the_first_do_not_underflow() {
        let mut extender = SequenceExtender::new();
        assert_eq!(extender.extend(0), 65_536);
        assert_eq!(extender.extend(65_535), 65_535);
        assert_eq!(extender.extend(32_768), 32_768);
        assert_eq!(extender.highest(), Some(65_536));
    }

    #[test]
    fn peeking_changes_nothing() {
        let mut extender = SequenceExtender::new();
        extender.extend(100);
        assert_eq!(extender.peek(200), 65_736);
        assert_eq!(extender.highest(), Some(65_636));
    }
}
