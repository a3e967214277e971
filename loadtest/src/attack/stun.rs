//! Binding requests of strangers: with and without the username of a live session, whole, cut off, with wrong lengths, and
//! with an integrity that nobody can have.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::flood::Datagrams;
use super::{AttackError, Flood, Target};
use crate::client::binding_request;

const HEADER: usize = 20;

pub(super) fn start(target: &Target) -> Result<Flood, AttackError> {
    let victims = target.victims();
    let known = victims.iter().map(|victim| format!("{}:{}", victim.remote.ufrag, victim.local.ufrag));
    let unknown = ["", ":", "abcd:efgh", "a\u{0}b:c"].map(str::to_owned);
    let usernames = known.chain(unknown).chain([format!("{}:x", "y".repeat(512))]);
    // Wrong, as nobody but the two ends knows the password.
    let requests: Result<Vec<Vec<u8>>, _> =
        usernames.map(|username| binding_request(&username, "guessed password", &[(0x25, &[])], [0; 12])).collect();
    let checks = Checks { requests: requests?, random: SmallRng::seed_from_u64(0x7374_756e), turn: 0 };
    Ok(Flood::start("stun", target.strangers()?, checks, target.datagrams)?)
}

struct Checks {
    requests: Vec<Vec<u8>>,
    random: SmallRng,
    turn: usize,
}

impl Datagrams for Checks {
    fn next(&mut self, _: usize, buffer: &mut [u8]) -> usize {
        let request = &self.requests[self.turn % self.requests.len()];
        self.turn += 1;
        let length = request.len();
        buffer[..length].copy_from_slice(request);
        // A transaction of its own; its sums are wrong all the same.
        self.random.fill_bytes(&mut buffer[8..HEADER]);
        match self.turn / self.requests.len() % 4 {
            0 => length,
            // Cut off anywhere.
            1 => self.random.random_range(1..length),
            // A length that is not that of the message.
            2 => {
                self.random.fill_bytes(&mut buffer[2..4]);
                length
            }
            // An attribute that is longer than the message.
            _ => {
                self.random.fill_bytes(&mut buffer[HEADER + 2..HEADER + 4]);
                length
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::demux::{PacketKind, classify};

    use super::*;

    #[test]
    fn whole_requests_come_by_turns_with_broken_ones() {
        let request = binding_request("a:b", "guessed", &[], [0; 12]).unwrap();
        let mut checks = Checks { requests: vec![request.clone()], random: SmallRng::seed_from_u64(1), turn: 0 };
        let mut buffer = [0; 1500];
        let lengths: Vec<usize> = (0..40).map(|_| checks.next(0, &mut buffer)).collect();
        assert!(lengths.iter().filter(|length| **length == request.len()).count() >= 30, "{lengths:?}");
        assert!(lengths.iter().any(|length| *length < request.len()), "{lengths:?}");
        assert_eq!(classify(&buffer[..request.len()]), Ok(PacketKind::Stun));
    }
}
