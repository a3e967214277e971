//! NACKs of everything: each datagram asks for some 4,000 packets again (RFC 4585 §6.2.1).

use rand::rngs::SmallRng;

use super::peer::Formats;
use super::peers::{Kind, MAX_PACKET, Packets};
use super::reports::message;

/// Bytes before the entries: the header, the sender's SSRC and that of the media.
const FIXED: usize = 12;

#[derive(Default)]
pub(super) struct Nacks {
    next: u16,
}

impl Packets for Nacks {
    fn next(&mut self, peer: &Formats, _: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        let mut body = vec![0, 0, 0, 1];
        body.extend_from_slice(&peer.video.media.to_be_bytes());
        for _ in 0..(MAX_PACKET - FIXED) / 4 {
            body.extend_from_slice(&self.next.to_be_bytes());
            body.extend_from_slice(&[0xff, 0xff]);
            self.next = self.next.wrapping_add(17);
        }
        message(packet, 1, 205, &body);
        Kind::Rtcp
    }
}
