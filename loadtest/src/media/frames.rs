//! Synthetic frames: payloads with the real descriptors of VP8 (RFC 7741) and H.264 (RFC 6184), and Opus.
//!
//! No decoder could show them; to everything that looks at RTP payloads without decoding they are genuine.

use media_core::internals::rtp::codec::vp8;
use media_core::media::Codec;

use crate::media::stamp::{Broken, STAMP_LEN, Stamp};

/// One payload of a frame, not yet sealed.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// The whole RTP payload.
    pub(crate) bytes: Vec<u8>,
    /// Where the part begins that no middle box may change: after VP8's descriptor, else at 0.
    pub(crate) body: usize,
}

/// The smallest payload that holds everything which may stand in front of a stamp.
pub(crate) const MIN_PAYLOAD: usize = 128;

/// 640x360, start code and size of a VP8 keyframe (RFC 6386 §9.1).
const VP8_KEYFRAME: [u8; 10] = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
const VP8_INTERFRAME: [u8; 3] = [0x31, 0x02, 0x00];
/// Constrained baseline, level 3.1, 640x360.
const SPS: [u8; 15] = [0x67, 0x42, 0xe0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84, 0x6a];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
/// SEI with a recovery point: exact from this frame on (H.264 §D.1.8).
const RECOVERY_POINT: [u8; 5] = [0x06, 0x06, 0x01, 0xc4, 0x80];
const STAP_A: u8 = 0x78;
const SEI: u8 = 0x06;
/// SEI message: user data.
const USER_DATA: u8 = 5;
const FU_A_IDR: u8 = 0x7c;
const FU_A_SLICE: u8 = 0x5c;
const IDR: u8 = 0x65;
const SLICE: u8 = 0x41;
/// The first bit says "first macroblock".
const SLICE_HEADER: u8 = 0x88;
/// CELT, full band, 20 ms, stereo, one frame (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0xfc;

/// Cuts frames of one codec into payloads.
#[derive(Debug)]
pub(crate) struct Packetizer {
    codec: Codec,
    /// Longest payload, in bytes.
    size: usize,
    picture_id: u16,
    /// H264's sequence parameter set.
    sps: [u8; SPS.len()],
    filler: Vec<u8>,
    turn: usize,
}

impl Packetizer {
    /// Payloads of at most `size` bytes (at least [`MIN_PAYLOAD`]), of VP8, H.264 or Opus.
    pub(crate) fn new(codec: Codec, size: usize) -> Packetizer {
        // Any content will do as long as shifting or swapping parts of it changes the checksum.
        let mut state = 0x9e37_79b9_u32;
        let filler = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(4096)
        .collect();
        Packetizer { codec, size: size.max(MIN_PAYLOAD), picture_id: 0, sps: SPS, filler, turn: 0 }
    }

    /// H264's parameter sets name this profile from now on: `profile_idc`, constraint flags and `level_idc`, one byte each.
    pub(crate) fn set_profile(&mut self, profile: u32) {
        self.sps[1..4].copy_from_slice(&profile.to_be_bytes()[1..]);
    }

    /// One frame of about `bytes` bytes; of Opus always one packet.
    pub(crate) fn frame(&mut self, keyframe: bool, bytes: usize) -> Vec<Payload> {
        match self.codec {
            Codec::Vp8 => self.vp8(keyframe, bytes),
            Codec::H264 => self.h264(keyframe, bytes),
            _ => vec![self.payload(&[OPUS_TOC], 0, bytes.clamp(MIN_PAYLOAD, self.size))],
        }
    }

    /// An interframe with which a refresh begins: in H.264 behind parameter sets and a recovery point, else like others.
    pub(crate) fn refresh(&mut self, bytes: usize) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if self.codec == Codec::H264 {
            let sps = self.sps;
            payloads.push(self.parameter_sets(&[&sps, &PPS, &RECOVERY_POINT]));
        }
        payloads.extend(self.frame(false, bytes));
        payloads
    }

    fn vp8(&mut self, keyframe: bool, bytes: usize) -> Vec<Payload> {
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let count = bytes.div_ceil(self.size).max(1);
        let size = (bytes / count).clamp(MIN_PAYLOAD, self.size);
        (0..count)
            .map(|index| {
                let start = if index == 0 { 0x10 } else { 0 };
                let mut front = vec![0x80 | start, 0x80, high, low];
                let body = front.len();
                match (index, keyframe) {
                    (0, true) => front.extend(VP8_KEYFRAME),
                    (0, false) => front.extend(VP8_INTERFRAME),
                    _ => {}
                }
                self.payload(&front, body, size)
            })
            .collect()
    }

    fn h264(&mut self, keyframe: bool, bytes: usize) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if keyframe {
            let sps = self.sps;
            payloads.push(self.parameter_sets(&[&sps, &PPS]));
        }
        let count = bytes.div_ceil(self.size).max(1);
        let size = (bytes / count).clamp(MIN_PAYLOAD, self.size);
        let (single, fragment) = if keyframe { (IDR, FU_A_IDR) } else { (SLICE, FU_A_SLICE) };
        for index in 0..count {
            let front = if count == 1 {
                vec![single, SLICE_HEADER]
            } else {
                let start = if index == 0 { 0x80 } else { 0 };
                let end = if index + 1 == count { 0x40 } else { 0 };
                vec![fragment, start | end | (single & 0x1f), SLICE_HEADER]
            };
            payloads.push(self.payload(&front, 0, size));
        }
        payloads
    }

    /// One packet of these units and an SEI unit that has room for the stamp.
    fn parameter_sets(&mut self, units: &[&[u8]]) -> Payload {
        let mut front = vec![STAP_A];
        for unit in units {
            front.extend((unit.len() as u16).to_be_bytes());
            front.extend(*unit);
        }
        let sei = MIN_PAYLOAD - front.len() - 2;
        front.extend((sei as u16).to_be_bytes());
        front.extend([SEI, USER_DATA, (sei - 3) as u8]);
        self.payload(&front, 0, MIN_PAYLOAD)
    }

    fn payload(&mut self, front: &[u8], body: usize, size: usize) -> Payload {
        let size = size.max(front.len() + STAMP_LEN);
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(front);
        self.turn = (self.turn + 1) % 1024;
        bytes.extend_from_slice(&self.filler[self.turn..self.turn + size.min(3000) - front.len()]);
        Payload { bytes, body }
    }
}

/// Reads the stamp of a received payload.
///
/// # Errors
/// See [`Broken`].
pub(crate) fn open(codec: Codec, payload: &[u8]) -> Result<Stamp, Broken> {
    let body = match codec {
        Codec::Vp8 => vp8::Vp8Descriptor::parse(payload).ok_or(Broken::Foreign)?.len,
        _ => 0,
    };
    Stamp::open(payload.get(body..).ok_or(Broken::Foreign)?)
}

#[cfg(test)]
mod tests {
    use media_core::internals::rtp::codec::{Start, start};

    use super::*;
    use crate::media::stamp::Content;

    const STAMP: Stamp = Stamp { stream: 1, epoch: 2, content: Content::Video, counter: 3, sent: 4 };

    #[test]
    fn frames_are_cut_into_sealed_payloads_of_the_right_size() {
        for codec in [Codec::Vp8, Codec::H264] {
            for keyframe in [true, false] {
                for bytes in [1, 500, 1100, 1101, 5000, 40_000] {
                    let mut packetizer = Packetizer::new(codec, 1100);
                    let payloads = packetizer.frame(keyframe, bytes);
                    let first = usize::from(keyframe && codec == Codec::H264);
                    assert_eq!(payloads.len() - first, bytes.div_ceil(1100), "{codec} {bytes}");
                    for mut payload in payloads {
                        assert!((MIN_PAYLOAD..=1100).contains(&payload.bytes.len()));
                        STAMP.seal(&mut payload.bytes[payload.body..]);
                        assert_eq!(open(codec, &payload.bytes), Ok(STAMP));
                    }
                }
            }
        }
    }

    #[test]
    fn keyframes_are_seen_as_such_and_nothing_else_is() {
        for codec in [Codec::Vp8, Codec::H264] {
            let mut packetizer = Packetizer::new(codec, 1100);
            let starts = |payloads: &[Payload]| -> Vec<Start> {
                payloads.iter().map(|payload| start(codec, &payload.bytes)).collect()
            };
            let key = starts(&packetizer.frame(true, 5000));
            let front: &[Start] = match codec {
                Codec::H264 => &[Start::ParameterSets, Start::Keyframe],
                _ => &[Start::Keyframe],
            };
            assert_eq!(key[..front.len()], *front, "{codec}");
            assert!(key[front.len()..].iter().all(|start| *start == Start::None), "{codec} {key:?}");
            assert!(starts(&packetizer.frame(false, 5000)).iter().all(|start| *start == Start::None));
        }
    }

    #[test]
    fn a_refresh_has_parameter_sets_and_a_recovery_point_and_is_no_keyframe() {
        for mut payload in Packetizer::new(Codec::H264, 1100).refresh(3000) {
            STAMP.seal(&mut payload.bytes[payload.body..]);
            assert_eq!(open(Codec::H264, &payload.bytes), Ok(STAMP));
        }
        let payloads = Packetizer::new(Codec::H264, 1100).refresh(3000);
        assert_eq!(start(Codec::H264, &payloads[0].bytes), Start::RecoveryPoint);
        assert!(payloads[1..].iter().all(|payload| start(Codec::H264, &payload.bytes) == Start::None));
        assert_eq!(Packetizer::new(Codec::Vp8, 1100).refresh(900).len(), 1);
    }

    #[test]
    fn a_rewritten_vp8_descriptor_leaves_the_stamp_valid() {
        let mut payload = Packetizer::new(Codec::Vp8, 1100).frame(true, 900).remove(0);
        STAMP.seal(&mut payload.bytes[payload.body..]);
        payload.bytes[2..4].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(open(Codec::Vp8, &payload.bytes), Ok(STAMP));
        let at = payload.body + 20;
        payload.bytes[at] ^= 1;
        assert_eq!(open(Codec::Vp8, &payload.bytes), Err(Broken::Checksum));
    }

    #[test]
    fn opus_is_one_packet() {
        let payloads = Packetizer::new(Codec::Opus, 1100).frame(false, 160);
        assert_eq!(payloads.len(), 1);
        let toc = payloads[0].bytes[0];
        let config = toc >> 3;
        assert!(config >= 16 && config & 3 == 3 && toc & 3 == 0, "CELT, one frame of 20 ms (RFC 6716 §3.1)");
    }
}
