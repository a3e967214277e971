//! RTP of a viewer: well-formed, authentic, and none of its business.

use media_core::internals::rtp::packet::{HeaderFields, write_header};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use super::peer::Formats;
use super::peers::{Kind, Packets};

/// Payload of a video packet.
const PAYLOAD: usize = 1000;

#[derive(Default)]
pub(super) struct ViewerRtp {
    sequence: u16,
}

impl Packets for ViewerRtp {
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind {
        self.sequence = self.sequence.wrapping_add(1);
        // As many SSRCs as a byte has values.
        let ssrc = peer.video.media.wrapping_add(noise.random_range(1..=256));
        let rtp = Rtp { payload_type: peer.types.media, sequence: self.sequence, timestamp: noise.random(), ssrc };
        rtp.write(packet, PAYLOAD, noise);
        Kind::Rtp
    }
}

/// The header of a packet that an attacker makes.
pub(super) struct Rtp {
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
}

/// Id and value of `sdes:mid` of the video in the offers.
const MID: (u8, &[u8]) = (4, b"1");

impl Rtp {
    /// Writes the packet with a random payload.
    pub(super) fn write(&self, packet: &mut Vec<u8>, payload: usize, noise: &mut SmallRng) {
        let fields = HeaderFields {
            marker: noise.random(),
            padding: false,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        packet.resize(64 + payload, 0);
        let header = write_header(packet, &fields, Some(MID)).unwrap_or(0);
        packet.truncate(header + payload);
        noise.fill_bytes(&mut packet[header..]);
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::rtp::packet::RtpHeader;
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_packet_has_the_header_that_was_asked_for() {
        let (mut packet, mut noise) = (Vec::new(), SmallRng::seed_from_u64(1));
        Rtp { payload_type: 96, sequence: 7, timestamp: 8, ssrc: 9 }.write(&mut packet, 100, &mut noise);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!((header.payload_type, header.sequence_number, header.timestamp, header.ssrc), (96, 7, 8, 9));
        assert_eq!(header.payload(&packet).len(), 100);
    }
}
