//! A publisher that sends every packet under a new SSRC, within a section that is its own by its MID.

use rand::Rng;
use rand::rngs::SmallRng;

use super::peer::Formats;
use super::peers::{Kind, Packets};
use super::viewer_rtp::Rtp;

const PAYLOAD: usize = 100;

pub(super) struct Ssrcs;

impl Packets for Ssrcs {
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        let rtp = Rtp {
            payload_type: peer.types.media,
            sequence: noise.random(),
            timestamp: noise.random(),
            ssrc: noise.random(),
        };
        rtp.write(packet, PAYLOAD, noise);
        Kind::Rtp
    }
}
