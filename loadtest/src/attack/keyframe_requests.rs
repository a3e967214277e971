//! PLI and FIR, as many as fit into a datagram (RFC 4585 §6.3.1, RFC 5104 §4.3.1).

use rand::rngs::SmallRng;

use super::peer::Formats;
use super::peers::{Kind, MAX_PACKET, Packets};
use super::reports::message;

const PLI: usize = 12;
const FIR: usize = 20;

#[derive(Default)]
pub(super) struct KeyframeRequests {
    command: u8,
}

impl Packets for KeyframeRequests {
    fn next(&mut self, peer: &Formats, _: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        let media = peer.video.media.to_be_bytes();
        while packet.len() + PLI + FIR <= MAX_PACKET {
            message(packet, 1, 206, &[&[0, 0, 0, 1], &media[..]].concat());
            self.command = self.command.wrapping_add(1);
            message(packet, 4, 206, &[&[0, 0, 0, 1, 0, 0, 0, 0], &media[..], &[self.command, 0, 0, 0]].concat());
        }
        Kind::Rtcp
    }
}
