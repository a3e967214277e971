//! Random datagrams of every length, by turns with each first byte: whatever a demultiplexer takes them for (RFC 7983).

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::flood::{Datagrams, MAX_LEN};
use super::{AttackError, Flood, Target};

/// Mostly short ones: they cost the receiver as much, and the sender less.
const SHORT: usize = 200;

pub(super) fn start(target: &Target) -> Result<Flood, AttackError> {
    let noise = Noise { first: 0, random: SmallRng::seed_from_u64(0x006e_6f69_7365) };
    Ok(Flood::start("noise", target.strangers()?, noise, target.datagrams)?)
}

struct Noise {
    first: u8,
    random: SmallRng,
}

impl Datagrams for Noise {
    fn next(&mut self, _: usize, buffer: &mut [u8]) -> usize {
        let longest = if self.random.random_ratio(1, 16) { MAX_LEN } else { SHORT };
        let length = self.random.random_range(1..=longest);
        self.random.fill_bytes(&mut buffer[..length]);
        self.first = self.first.wrapping_add(1);
        buffer[0] = self.first;
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_its_turn() {
        let mut noise = Noise { first: 0, random: SmallRng::seed_from_u64(1) };
        let mut buffer = [0; MAX_LEN];
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..256 {
            assert!((1..=MAX_LEN).contains(&noise.next(0, &mut buffer)));
            seen.insert(buffer[0]);
        }
        assert_eq!(seen.len(), 256);
    }
}
