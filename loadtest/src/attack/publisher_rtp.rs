//! A publisher's own stream as a weapon: garbage as payload, numbers and timestamps that jump far, and retransmissions of
//! numbers of its choosing.

use rand::Rng;
use rand::rngs::SmallRng;

use super::peer::Formats;
use super::peers::{Kind, Packets};
use super::viewer_rtp::Rtp;

/// VP8: a payload descriptor with S=1, then the first byte of a keyframe or of another frame (RFC 7741 §4.2, §4.3).
const KEYFRAME: [u8; 2] = [0x10, 0x00];
const DELTA: [u8; 2] = [0x10, 0x01];
const PAYLOAD: usize = 600;

/// Packets that numbers and times jump between.
#[derive(Default)]
pub(super) struct Garbage {
    sequence: u16,
    timestamp: u32,
    turn: u64,
}

impl Packets for Garbage {
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        self.turn += 1;
        self.sequence = self.sequence.wrapping_add(match noise.random_range(0..200) {
            0 => noise.random(),
            1..8 => noise.random_range(2..50),
            _ => 1,
        });
        self.timestamp = self.timestamp.wrapping_add(match noise.random_range(0..200) {
            0 => noise.random(),
            1 => 1 << 31,
            _ => 3000,
        });
        let audio = self.turn.is_multiple_of(5);
        let (payload_type, ssrc) =
            if audio { (peer.audio_type, peer.audio.media) } else { (peer.types.media, peer.video.media) };
        let rtp = Rtp { payload_type, sequence: self.sequence, timestamp: self.timestamp, ssrc };
        rtp.write(packet, PAYLOAD, noise);
        // Every now and then something that begins as a frame does.
        if !audio && noise.random_ratio(1, 4) {
            begin_frame(packet, noise.random_ratio(1, 8));
        }
        Kind::Rtp
    }
}

fn begin_frame(packet: &mut [u8], keyframe: bool) {
    let body = packet.len() - PAYLOAD;
    packet[body..body + 2].copy_from_slice(if keyframe { &KEYFRAME } else { &DELTA });
}

/// A stream with holes, and retransmissions of any number under RTX numbers in order.
#[derive(Default)]
pub(super) struct Rtx {
    sequence: u16,
    repairs: u16,
    turn: u64,
}

impl Packets for Rtx {
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        self.turn += 1;
        let timestamp = (self.turn as u32).wrapping_mul(300);
        let rtx = peer.types.rtx.filter(|_| !self.turn.is_multiple_of(4));
        let Some(payload_type) = rtx else {
            self.sequence = self.sequence.wrapping_add(noise.random_range(1..4));
            let rtp =
                Rtp { payload_type: peer.types.media, sequence: self.sequence, timestamp, ssrc: peer.video.media };
            rtp.write(packet, PAYLOAD, noise);
            begin_frame(packet, self.turn.is_multiple_of(64));
            return Kind::Rtp;
        };
        self.repairs = self.repairs.wrapping_add(1);
        let rtp = Rtp { payload_type, sequence: self.repairs, timestamp, ssrc: peer.video.rtx };
        rtp.write(packet, PAYLOAD, noise);
        // The original number: close behind, ahead, or anywhere.
        let number = match noise.random_range(0..3) {
            0 => self.sequence.wrapping_sub(noise.random_range(0..100)),
            1 => self.sequence.wrapping_add(noise.random_range(0..100)),
            _ => noise.random(),
        };
        let body = packet.len() - PAYLOAD;
        packet[body..body + 2].copy_from_slice(&number.to_be_bytes());
        packet[body + 2..body + 4].copy_from_slice(&KEYFRAME);
        Kind::Rtp
    }
}
