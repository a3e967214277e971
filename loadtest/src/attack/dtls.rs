//! Records of strangers: halves of ClientHellos, fragments that never end, alerts, and records of later epochs.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::flood::Datagrams;
use super::{AttackError, Flood, Target};

/// Record and handshake headers (RFC 6347 §4.1, §4.2.2).
const RECORD: usize = 13;
const HANDSHAKE: usize = 12;

pub(super) fn start(target: &Target) -> Result<Flood, AttackError> {
    let records = Records { random: SmallRng::seed_from_u64(0x6474_6c73), turn: 0 };
    Ok(Flood::start("dtls", target.strangers()?, records, target.datagrams)?)
}

struct Records {
    random: SmallRng,
    turn: usize,
}

/// A record's header, of this type, epoch and length.
fn record(buffer: &mut [u8], kind: u8, epoch: u16, length: usize) {
    buffer[..3].copy_from_slice(&[kind, 0xfe, 0xfd]);
    buffer[3..5].copy_from_slice(&epoch.to_be_bytes());
    buffer[11..13].copy_from_slice(&(length as u16).to_be_bytes());
}

impl Datagrams for Records {
    fn next(&mut self, _: usize, buffer: &mut [u8]) -> usize {
        self.turn += 1;
        let body = self.random.random_range(16..400);
        let length = RECORD + HANDSHAKE + body;
        self.random.fill_bytes(&mut buffer[..length]);
        match self.turn % 4 {
            // A ClientHello of 16 MiB, of which some bytes come.
            0 => {
                record(buffer, 22, 0, HANDSHAKE + body);
                buffer[RECORD] = 1;
                buffer[RECORD + 1..RECORD + 4].fill(0xff);
                buffer[RECORD + 9..RECORD + 12].copy_from_slice(&(body as u32).to_be_bytes()[1..]);
                length
            }
            // Half of a ClientHello.
            1 => {
                record(buffer, 22, 0, HANDSHAKE + 2 * body);
                buffer[RECORD] = 1;
                length
            }
            // An alert: fatal, handshake_failure.
            2 => {
                record(buffer, 21, 0, 2);
                buffer[RECORD..RECORD + 2].copy_from_slice(&[2, 40]);
                RECORD + 2
            }
            // Application data under keys that nobody has.
            _ => {
                record(buffer, 23, 1, HANDSHAKE + body);
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
    fn all_of_it_is_taken_for_dtls() {
        let mut records = Records { random: SmallRng::seed_from_u64(1), turn: 0 };
        let mut buffer = [0; 1500];
        for _ in 0..100 {
            let length = records.next(0, &mut buffer);
            assert_eq!(classify(&buffer[..length]), Ok(PacketKind::Dtls));
        }
    }
}
