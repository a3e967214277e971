//! Forged SRTP and SRTCP of strangers, under payload types that sessions use.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::flood::Datagrams;
use super::{AttackError, Flood, Target};

pub(super) fn start(target: &Target) -> Result<Flood, AttackError> {
    let forged = Forged { random: SmallRng::seed_from_u64(0x7372_7470), turn: 0 };
    Ok(Flood::start("srtp", target.strangers()?, forged, target.datagrams)?)
}

struct Forged {
    random: SmallRng,
    turn: usize,
}

impl Datagrams for Forged {
    fn next(&mut self, _: usize, buffer: &mut [u8]) -> usize {
        self.turn += 1;
        let length = self.random.random_range(28..1200);
        self.random.fill_bytes(&mut buffer[..length]);
        buffer[0] = 0x80 | buffer[0] & 0x3f;
        buffer[1] = match self.turn % 4 {
            // Receiver report, payload-specific feedback, transport feedback: of RTCP only the header is clear.
            0 => 201 + buffer[1] % 6,
            1 => 111,
            _ => 96 + buffer[1] % 8,
        };
        length
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::demux::{PacketKind, classify};

    use super::*;

    #[test]
    fn it_looks_like_rtp_and_rtcp() {
        let mut forged = Forged { random: SmallRng::seed_from_u64(1), turn: 0 };
        let mut buffer = [0; 1500];
        let mut kinds = [0; 2];
        for _ in 0..100 {
            let length = forged.next(0, &mut buffer);
            match classify(&buffer[..length]) {
                Ok(PacketKind::Rtp) => kinds[0] += 1,
                Ok(PacketKind::Rtcp) => kinds[1] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(kinds, [75, 25]);
    }
}
