//! Giant compounds of receiver reports, extended reports, descriptions, bandwidth estimates and messages of unknown types.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use super::peer::Formats;
use super::peers::{Kind, MAX_PACKET, Packets};

/// Appends an RTCP message; the body is whole words.
pub(super) fn message(packet: &mut Vec<u8>, count: u8, kind: u8, body: &[u8]) {
    packet.extend_from_slice(&[0x80 | count, kind]);
    packet.extend_from_slice(&((body.len() / 4) as u16).to_be_bytes());
    packet.extend_from_slice(body);
}

pub(super) struct Reports;

/// Types: SR, RR, SDES, APP, RTPFB, PSFB, XR, and one that nobody knows. BYE would end the attacker's own session.
const TYPES: [u8; 8] = [200, 201, 202, 204, 205, 206, 207, 210];

impl Packets for Reports {
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        message(packet, 0, 201, &[0, 0, 0, 1]);
        while packet.len() + 16 < MAX_PACKET {
            let words = noise.random_range(1..=64).min((MAX_PACKET - packet.len()) / 4 - 1);
            let mut body = vec![0; 4 * words];
            noise.fill_bytes(&mut body);
            body[..4].copy_from_slice(&[0, 0, 0, 1]);
            if words > 1 {
                // About what the peer receives, so that it is not thrown away at once.
                body[4..8].copy_from_slice(&peer.video.media.to_be_bytes());
            }
            let kind = TYPES[noise.random_range(0..TYPES.len())];
            message(packet, noise.random_range(0..32), kind, &body);
        }
        Kind::Rtcp
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::rtcp::RtcpPackets;
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_message_is_what_parsers_take() {
        let mut packet = Vec::new();
        message(&mut packet, 1, 206, &[0, 0, 0, 1, 0, 0, 0, 9]);
        message(&mut packet, 0, 201, &[0, 0, 0, 1]);
        assert_eq!(RtcpPackets::new(&packet).filter(Result::is_ok).count(), 2);
        let mut noise = SmallRng::seed_from_u64(1);
        assert!(noise.random_range(0..32_u8) < 32);
    }
}
