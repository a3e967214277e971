//! Synthetic frames: payloads with the real descriptors of VP8 (RFC 7741), VP9 (RFC 9628) and H.264 (RFC 6184), and Opus.
//!
//! No decoder could show them; to everything that looks at RTP payloads without decoding they are genuine.

use media_core::internals::rtp::codec::{vp8, vp9};
use media_core::media::Codec;

use crate::media::scalability::Scalability;
use crate::media::sps::sequence_parameter_set;
use crate::media::stamp::{Broken, STAMP_LEN, Stamp};

/// One payload of a frame, not yet sealed.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// The whole RTP payload.
    pub(crate) bytes: Vec<u8>,
    /// Where the part begins that no middle box may change: after the descriptor of VP8 or VP9, else at 0.
    pub(crate) body: usize,
}

/// The frame of one spatial layer of a picture.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LayerFrame {
    /// It is of a picture that refers to none before.
    pub(crate) keyframe: bool,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// It refers to the layer below in the same picture.
    pub(crate) inter_layer: bool,
    /// No layer above refers to it.
    pub(crate) not_reference_for_inter_layer: bool,
    /// It refers to the lowest temporal layer alone.
    pub(crate) sync: bool,
}

/// The smallest payload that holds everything which may stand in front of a stamp.
pub(crate) const MIN_PAYLOAD: usize = 128;

/// Start code of a VP8 keyframe, in front of width and height (RFC 6386 §9.1).
const VP8_KEYFRAME: [u8; 6] = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a];
const VP8_INTERFRAME: [u8; 3] = [0x31, 0x02, 0x00];
/// Frame marker, profile 0, key frame, shown, and the sync code (VP9 bitstream specification §6.2).
const VP9_KEYFRAME: [u8; 4] = [0x82, 0x49, 0x83, 0x42];
const VP9_INTERFRAME: [u8; 1] = [0x86];
/// Constrained baseline, level 3.1.
const PROFILE: u32 = 0x42_e01f;
/// What pictures without layers have.
const SIZE: (u16, u16) = (640, 360);
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
    /// TL0PICIDX and KEYIDX of the codecs that number their layers.
    tl0_pic_idx: u8,
    key_idx: u8,
    scalability: Scalability,
    /// Of the whole picture, in pixels.
    picture_size: (u16, u16),
    profile: u32,
    filler: Vec<u8>,
    turn: usize,
}

impl Packetizer {
    /// Payloads of at most `size` bytes (at least [`MIN_PAYLOAD`]), of VP8, VP9, H.264 or Opus.
    pub(crate) fn new(codec: Codec, size: usize) -> Packetizer {
        // Any content will do as long as shifting or swapping parts of it changes the checksum.
        let mut state = 0x9e37_79b9_u32;
        let filler = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(4096)
        .collect();
        Packetizer {
            codec,
            size: size.max(MIN_PAYLOAD),
            picture_id: 0,
            tl0_pic_idx: 0,
            key_idx: 0,
            scalability: Scalability::ONLY,
            picture_size: SIZE,
            profile: PROFILE,
            filler,
            turn: 0,
        }
    }

    /// Pictures of this size with these layers from now on.
    pub(crate) fn set_layers(&mut self, scalability: Scalability, picture_size: (u16, u16)) {
        (self.scalability, self.picture_size) = (scalability, picture_size);
    }

    /// H264's parameter sets name this profile from now on: `profile_idc`, constraint flags and `level_idc`, one byte each.
    pub(crate) fn set_profile(&mut self, profile: u32) {
        self.profile = profile;
    }

    /// One frame of about `bytes` bytes; of Opus always one packet.
    pub(crate) fn frame(&mut self, keyframe: bool, bytes: usize) -> Vec<Payload> {
        self.layer_frame(&LayerFrame { keyframe, ..LayerFrame::default() }, bytes)
    }

    /// The frame of one spatial layer of a picture; those of a picture follow one another, the lowest first.
    pub(crate) fn layer_frame(&mut self, frame: &LayerFrame, bytes: usize) -> Vec<Payload> {
        match self.codec {
            Codec::Vp8 => self.vp8(frame, bytes),
            Codec::Vp9 => self.vp9(frame, bytes),
            Codec::H264 => self.h264(frame.keyframe, bytes),
            _ => vec![self.payload(&[OPUS_TOC], 0, bytes.clamp(MIN_PAYLOAD, self.size))],
        }
    }

    fn parameter_set(&self) -> Vec<u8> {
        sequence_parameter_set(self.profile, self.picture_size)
    }

    /// An interframe with which a refresh begins: in H.264 behind parameter sets and a recovery point, else like others.
    pub(crate) fn refresh(&mut self, bytes: usize) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if self.codec == Codec::H264 {
            let sps = self.parameter_set();
            payloads.push(self.parameter_sets(&[&sps, &PPS, &RECOVERY_POINT]));
        }
        payloads.extend(self.frame(false, bytes));
        payloads
    }

    /// The numbers that the first frame of a picture moves on.
    fn begin_picture(&mut self, frame: &LayerFrame) {
        if frame.spatial == 0 {
            self.picture_id = (self.picture_id + 1) & 0x7fff;
            self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(u8::from(frame.temporal == 0));
            self.key_idx = (self.key_idx + u8::from(frame.keyframe)) & 0x1f;
        }
    }

    /// How many payloads a frame needs, and how big each is.
    fn cut(&self, bytes: usize) -> (usize, usize) {
        let count = bytes.div_ceil(self.size).max(1);
        (count, (bytes / count).clamp(MIN_PAYLOAD, self.size))
    }

    fn vp8(&mut self, frame: &LayerFrame, bytes: usize) -> Vec<Payload> {
        self.begin_picture(frame);
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let (count, size) = self.cut(bytes);
        (0..count)
            .map(|index| {
                let start = if index == 0 { 0x10 } else { 0 };
                let mut front = vec![0x80 | start, 0x80, high, low];
                if self.scalability.temporal > 1 {
                    // I, L, T and K.
                    front[1] = 0xf0;
                    let layer = frame.temporal << 6 | u8::from(frame.sync) << 5 | self.key_idx;
                    front.extend([self.tl0_pic_idx, layer]);
                }
                let body = front.len();
                match (index, frame.keyframe) {
                    (0, true) => {
                        front.extend(VP8_KEYFRAME);
                        let (width, height) = self.picture_size;
                        front.extend(width.to_le_bytes().into_iter().chain(height.to_le_bytes()));
                    }
                    (0, false) => front.extend(VP8_INTERFRAME),
                    _ => {}
                }
                self.payload(&front, body, size)
            })
            .collect()
    }

    /// In non-flexible mode, with the structure in front of keyframes.
    fn vp9(&mut self, frame: &LayerFrame, bytes: usize) -> Vec<Payload> {
        self.begin_picture(frame);
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let (count, size) = self.cut(bytes);
        let starts_key_picture = frame.keyframe && frame.spatial == 0;
        (0..count)
            .map(|index| {
                let (starts, ends) = (index == 0, index + 1 == count);
                let has_structure = starts && starts_key_picture;
                // I, P, L, F, B, E, V, Z.
                let first = 0xa0
                    | u8::from(!frame.keyframe) << 6
                    | u8::from(starts) << 3
                    | u8::from(ends) << 2
                    | u8::from(has_structure) << 1
                    | u8::from(frame.not_reference_for_inter_layer);
                let layer = frame.temporal << 5 | 1 << 4 | frame.spatial << 1 | u8::from(frame.inter_layer);
                let mut front = vec![first, high, low, layer, self.tl0_pic_idx];
                if has_structure {
                    front.extend(self.vp9_structure());
                }
                let body = front.len();
                match (starts, starts_key_picture) {
                    (true, true) => front.extend(VP9_KEYFRAME),
                    (true, false) => front.extend(VP9_INTERFRAME),
                    _ => {}
                }
                self.payload(&front, body, size)
            })
            .collect()
    }

    /// The scalability structure: sizes of the layers and the pictures of a period (RFC 9628 §4.2.1).
    fn vp9_structure(&self) -> Vec<u8> {
        let Scalability { spatial: layers, .. } = self.scalability;
        let mut structure = vec![(layers - 1) << 5 | 0x10 | 0x08];
        for spatial in 0..layers {
            let halvings = layers - 1 - spatial;
            let (width, height) = (self.picture_size.0 >> halvings, self.picture_size.1 >> halvings);
            structure.extend(width.to_be_bytes().into_iter().chain(height.to_be_bytes()));
        }
        let pattern = self.scalability.pattern();
        structure.push(pattern.len() as u8);
        for (position, temporal) in pattern.iter().enumerate() {
            structure.extend([temporal << 5 | 1 << 4 | 1 << 2, self.scalability.distance(position) as u8]);
        }
        structure
    }

    fn h264(&mut self, keyframe: bool, bytes: usize) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if keyframe {
            let sps = self.parameter_set();
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
        Codec::Vp9 => vp9::Vp9Descriptor::parse(payload).ok_or(Broken::Foreign)?.len,
        _ => 0,
    };
    Stamp::open(payload.get(body..).ok_or(Broken::Foreign)?)
}

#[cfg(test)]
mod tests {
    use media_core::internals::rtp::codec::{Start, start};

    use super::*;
    use crate::media::scalability::LayerId;
    use crate::media::stamp::{Content, FramePart};

    const STAMP: Stamp = Stamp {
        stream: 1,
        epoch: 2,
        content: Content::Video,
        part: FramePart {
            layer: LayerId { encoding: 1, spatial: 2, temporal: 1 },
            picture: 9,
            reference: Some(7),
            inter_layer: true,
            packets: 5,
        },
        counter: 3,
        sent: 4,
    };

    #[test]
    fn frames_are_cut_into_sealed_payloads_of_the_right_size() {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
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
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
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
    fn descriptors_name_the_layers_of_their_frames() {
        let frame = LayerFrame { spatial: 1, temporal: 2, inter_layer: true, sync: true, ..LayerFrame::default() };
        let mode = Scalability { spatial: 2, temporal: 3, key_only: false };
        let mut packetizer = Packetizer::new(Codec::Vp9, 1100);
        packetizer.set_layers(mode, (1280, 720));
        let key = packetizer.layer_frame(&LayerFrame { keyframe: true, ..LayerFrame::default() }, 3000);
        let first = vp9::Vp9Descriptor::parse(&key[0].bytes).unwrap();
        assert!(first.scalability_structure && first.frame_start && !first.inter_picture && first.len == key[0].body);
        assert_eq!(start(Codec::Vp9, &key[0].bytes), Start::Keyframe);
        let payloads = packetizer.layer_frame(&frame, 3000);
        let (first, last) = (&payloads[0].bytes, &payloads[2].bytes);
        let (first, last) = (vp9::Vp9Descriptor::parse(first).unwrap(), vp9::Vp9Descriptor::parse(last).unwrap());
        let layer = last.layer.unwrap();
        assert_eq!((layer.spatial_id, layer.temporal_id, layer.inter_layer), (1, 2, true));
        assert!(first.frame_start && !first.frame_end && last.frame_end && last.inter_picture);
        let picture = |payload: &Payload| vp9::Vp9Descriptor::parse(&payload.bytes).unwrap().picture_id.unwrap().value;
        assert_eq!(picture(&key[0]), picture(&payloads[0]), "layers of one picture");

        let mut packetizer = Packetizer::new(Codec::Vp8, 1100);
        packetizer.set_layers(Scalability { spatial: 1, ..mode }, (320, 180));
        let key = packetizer.layer_frame(&LayerFrame { keyframe: true, ..LayerFrame::default() }, 500).remove(0);
        assert_eq!(key.bytes[key.body + 6..key.body + 10], [0x40, 0x01, 0xb4, 0x00], "320x180");
        let payload = packetizer.layer_frame(&LayerFrame { spatial: 0, ..frame }, 500).remove(0);
        let descriptor = vp8::Vp8Descriptor::parse(&payload.bytes).unwrap();
        assert_eq!((descriptor.temporal_id, descriptor.layer_sync, descriptor.key_idx), (Some(2), true, Some(1)));
        assert_eq!(descriptor.tl0_pic_idx, Some(1), "that of the keyframe");
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
