//! Which of a stream's numbers were filled. A number is filled once, whatever the cache keeps or forgets: viewers that were
//! sent a packet under it may never be sent another (SRTP-09).

/// Numbers below the highest one that may still be filled: two seconds of 20 Mbit/s. A packet that comes later is of no use
/// to anybody.
const WINDOW: u64 = 4096;

/// The record: a floor that only rises, and above it one bit for each number.
pub(super) struct StoredNumbers {
    /// Nothing below it is filled any more.
    floor: u64,
    /// One past the highest number that was filled.
    end: u64,
    /// By number modulo [`WINDOW`]; made with the first packet.
    filled: Box<[u64]>,
}

impl StoredNumbers {
    pub(super) fn new() -> StoredNumbers {
        StoredNumbers { floor: 0, end: 0, filled: Box::default() }
    }

    /// One past the highest number that was filled.
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// True if a packet may be stored under this number.
    #[inline]
    pub(super) fn is_free(&self, sequence: u64) -> bool {
        sequence >= self.end || (sequence >= self.floor && self.filled[word(sequence)] & bit(sequence) == 0)
    }

    /// A packet was stored under this number, which was free.
    pub(super) fn fill(&mut self, sequence: u64) {
        if self.filled.is_empty() {
            self.filled = vec![0; WINDOW as usize / 64].into_boxed_slice();
        }
        if sequence >= self.end {
            // Numbers that are passed over may be filled until the floor has reached them.
            if sequence - self.end >= WINDOW {
                self.filled.fill(0);
            } else {
                (self.end..sequence).for_each(|passed| self.filled[word(passed)] &= !bit(passed));
            }
            self.end = sequence + 1;
            self.floor = self.floor.max(self.end.saturating_sub(WINDOW));
        }
        self.filled[word(sequence)] |= bit(sequence);
    }

    /// Goes on from a number that is past all that were filled.
    pub(super) fn skip_to(&mut self, end: u64) {
        debug_assert!(end >= self.end);
        (self.floor, self.end) = (end, end);
    }

    /// What was passed over stays empty: the next publisher's packets go on from here.
    pub(super) fn close(&mut self) {
        self.floor = self.end;
    }
}

fn word(sequence: u64) -> usize {
    (sequence % WINDOW / 64) as usize
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    // M1
    #[test]
    fn a_number_is_free_once_and_never_again() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut numbers, mut filled, mut floor) = (StoredNumbers::new(), HashSet::new(), 0);
            for _ in 0..20_000 {
                let sequence = match random.random_range(0..100) {
                    0 => numbers.end() + random.random_range(0..3 * WINDOW),
                    1 => numbers.end().saturating_sub(random.random_range(0..2 * WINDOW)),
                    2..30 => numbers.end().saturating_sub(random.random_range(0..20)),
                    _ => numbers.end() + random.random_range(0..3),
                };
                if random.random_ratio(1, 2_000) {
                    numbers.close();
                    floor = numbers.end();
                }
                let expected = sequence >= floor && !filled.contains(&sequence);
                assert_eq!(numbers.is_free(sequence), expected, "{seed}: {sequence} of {}", numbers.end());
                if expected {
                    numbers.fill(sequence);
                    filled.insert(sequence);
                    floor = floor.max(numbers.end().saturating_sub(WINDOW));
                }
            }
        }
    }
}
