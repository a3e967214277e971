//! Transport-wide feedback of a viewer: as many messages as fit into a datagram, each of which claims to tell of 65,535
//! packets (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use rand::Rng;
use rand::rngs::SmallRng;

use super::peer::Formats;
use super::peers::{Kind, MAX_PACKET, Packets};
use super::reports::message;

/// Chunks of one message: run lengths of 8,191 packets each that were not received, but for the last.
const RUNS: usize = 8;
/// Packets of a message that tells of none that was lost.
const DENSE: u16 = 1000;

const _: () = assert!(RUNS * 8191 + 7 == u16::MAX as usize);

#[derive(Default)]
pub(super) struct Feedback {
    count: u8,
    base: u16,
}

impl Packets for Feedback {
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        let dense = noise.random_ratio(1, 2);
        while packet.len() < MAX_PACKET {
            self.base = self.base.wrapping_add(noise.random_range(1..100));
            let body = if dense { self.dense(peer.video.media) } else { self.sparse(peer.video.media) };
            if packet.len() + 4 + body.len() > MAX_PACKET {
                break;
            }
            message(packet, 15, 205, &body);
        }
        Kind::Rtcp
    }
}

impl Feedback {
    /// What stands before the chunks: SSRCs, the first number, how many numbers, the time, and the count of messages.
    fn fixed(&mut self, media: u32, statuses: u16) -> Vec<u8> {
        self.count = self.count.wrapping_add(1);
        let mut body = vec![0, 0, 0, 1];
        body.extend_from_slice(&media.to_be_bytes());
        body.extend_from_slice(&self.base.to_be_bytes());
        body.extend_from_slice(&statuses.to_be_bytes());
        body.extend_from_slice(&[0, 1, self.count, self.count]);
        body
    }

    /// 65,535 packets of which the last seven came.
    fn sparse(&mut self, media: u32) -> Vec<u8> {
        let mut body = self.fixed(media, u16::MAX);
        body.extend(std::iter::repeat_n([0x1f, 0xff], RUNS).flatten());
        body.extend_from_slice(&[0x20, 0x07, 1, 1, 1, 1, 1, 1, 1, 0]);
        body.resize(body.len().next_multiple_of(4), 0);
        body
    }

    /// Packets that all came, each a quarter of a millisecond after the one before.
    fn dense(&mut self, media: u32) -> Vec<u8> {
        let mut body = self.fixed(media, DENSE);
        body.extend_from_slice(&(0x2000 | DENSE).to_be_bytes());
        body.extend(std::iter::repeat_n(1, DENSE.into()));
        body.resize(body.len().next_multiple_of(4), 0);
        body
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};

    use super::*;

    #[test]
    fn feedback_is_well_formed() {
        let mut feedback = Feedback::default();
        for (body, received) in [(feedback.sparse(7), 7), (feedback.dense(7), usize::from(DENSE))] {
            let mut packet = Vec::new();
            message(&mut packet, 15, 205, &body);
            let Some(Ok(RtcpPacket::TransportFeedback(told))) = RtcpPackets::new(&packet).next() else {
                panic!("no feedback: {:?}", RtcpPackets::new(&packet).next());
            };
            assert_eq!(told.packets().filter(|(_, arrival)| arrival.is_some()).count(), received);
        }
    }
}
