//! Where the running numbers of the descriptors stand, and packets with other ones.
//!
//! A viewer that changes between encodings, or that is sent a part of the frames, is to see numbers that go on. What is added
//! to them is constant for a run of its sequence numbers, so that a packet can be made again bit for bit (SRTP-09).

use crate::media::Codec;
use crate::rtp::codec::PictureId;
use crate::rtp::codec::vp8::Vp8Descriptor;
use crate::rtp::codec::vp9::Vp9Descriptor;
use crate::rtp::dependency_descriptor::{Fields, with_active_targets};

use super::ActiveTargets;

/// Bytes of a dependency descriptor at most: an element of a header extension has no more (RFC 8285 §4.3).
pub const MAX_DESCRIPTOR: usize = 255;
/// Picture ids are compared and counted in 15 bits; of a narrow one the lowest seven are written.
const PICTURE_ID: u16 = 0x7fff;
/// KEYIDX has five bits (RFC 7741 §4.2).
const KEY_IDX: u8 = 0x1f;

/// The running numbers of one packet's descriptors, as far as it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorPosition {
    /// Picture id of VP8 or VP9.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX of VP8, or of VP9 in non-flexible mode.
    pub tl0_pic_idx: Option<u8>,
    /// KEYIDX of VP8.
    pub key_idx: Option<u8>,
    /// Frame number of the dependency descriptor.
    pub frame_number: Option<u16>,
}

impl DescriptorPosition {
    /// That of a packet with this payload and this dependency descriptor.
    pub fn of(codec: Codec, payload: &[u8], descriptor: Option<&[u8]>) -> DescriptorPosition {
        let frame_number = descriptor.and_then(Fields::parse).map(|fields| fields.frame_number);
        let position = DescriptorPosition { frame_number, ..DescriptorPosition::default() };
        match codec {
            Codec::Vp8 => Vp8Descriptor::parse(payload).map_or(position, |vp8| DescriptorPosition {
                picture_id: vp8.picture_id,
                tl0_pic_idx: vp8.tl0_pic_idx,
                key_idx: vp8.key_idx,
                ..position
            }),
            Codec::Vp9 => Vp9Descriptor::parse(payload).map_or(position, |vp9| DescriptorPosition {
                picture_id: vp9.picture_id,
                tl0_pic_idx: vp9.layer.and_then(|layer| layer.tl0_pic_idx),
                ..position
            }),
            _ => position,
        }
    }

    /// As a viewer was sent it.
    pub fn shifted(self, offsets: &DescriptorOffsets) -> DescriptorPosition {
        DescriptorPosition {
            picture_id: self.picture_id.map(|id| offsets.picture_id(id)),
            tl0_pic_idx: self.tl0_pic_idx.map(|index| index.wrapping_add(offsets.tl0_pic_idx)),
            key_idx: self.key_idx.map(|index| index.wrapping_add(offsets.key_idx) & KEY_IDX),
            frame_number: self.frame_number.map(|number| number.wrapping_add(offsets.frame_number)),
        }
    }

    /// True if `next`, as a viewer would be sent it, lies before this one, or too far ahead to tell.
    pub fn is_past(&self, next: &DescriptorPosition) -> bool {
        let goes_back = |ahead: u16, half: u16| ahead == 0 || ahead >= half;
        let picture = self.picture_id.zip(next.picture_id).is_some_and(|(sent, next)| {
            let mask = if next.wide { PICTURE_ID } else { 0x7f };
            goes_back(next.value.wrapping_sub(sent.value) & mask, mask / 2 + 1)
        });
        let frame = self.frame_number.zip(next.frame_number);
        picture || frame.is_some_and(|(sent, next)| goes_back(next.wrapping_sub(sent), 1 << 15))
    }
}

/// What is added to the running numbers towards one viewer, and which decode targets it is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorOffsets {
    picture_id: u16,
    frame_number: u16,
    tl0_pic_idx: u8,
    key_idx: u8,
    targets: Option<ActiveTargets>,
}

impl DescriptorOffsets {
    /// Packets stay as they are.
    pub const IDENTITY: DescriptorOffsets =
        DescriptorOffsets { picture_id: 0, frame_number: 0, tl0_pic_idx: 0, key_idx: 0, targets: None };

    /// True if packets stay as they are.
    #[inline]
    pub fn is_identity(&self) -> bool {
        *self == DescriptorOffsets::IDENTITY
    }

    /// Those with which `next`, the first packet of a keyframe, follows on `sent`, what the viewer was sent last, as it was
    /// sent: after a switch of encoding, or after frames that nobody made up for.
    pub fn after_switch(sent: DescriptorPosition, next: DescriptorPosition) -> DescriptorOffsets {
        let mut offsets = DescriptorOffsets::IDENTITY;
        if let (Some(sent), Some(next)) = (sent.picture_id, next.picture_id) {
            offsets.picture_id = sent.value.wrapping_add(1).wrapping_sub(next.value) & PICTURE_ID;
        }
        if let (Some(sent), Some(next)) = (sent.tl0_pic_idx, next.tl0_pic_idx) {
            offsets.tl0_pic_idx = sent.wrapping_add(1).wrapping_sub(next);
        }
        if let (Some(sent), Some(next)) = (sent.key_idx, next.key_idx) {
            offsets.key_idx = sent.wrapping_add(1).wrapping_sub(next) & KEY_IDX;
        }
        if let (Some(sent), Some(next)) = (sent.frame_number, next.frame_number) {
            offsets.frame_number = sent.wrapping_add(1).wrapping_sub(next);
        }
        offsets
    }

    /// Those of the frames behind one that is left out on purpose; to be asked once for every such frame. Receivers take a gap
    /// in the picture ids of VP8 for a lost frame (COD-06); those of VP9 and frame numbers are what references are relative to.
    #[must_use]
    pub fn after_dropped_frame(self, codec: Codec) -> DescriptorOffsets {
        match codec {
            Codec::Vp8 => DescriptorOffsets { picture_id: self.picture_id.wrapping_sub(1) & PICTURE_ID, ..self },
            _ => self,
        }
    }

    /// The same, and the viewer is told that it is sent these decode targets. A structure makes all active until it is told
    /// otherwise: `None` from the next structure on for a viewer that is sent everything; until then it is told so.
    #[must_use]
    pub fn with_targets(self, targets: Option<ActiveTargets>) -> DescriptorOffsets {
        DescriptorOffsets { targets, ..self }
    }

    fn picture_id(&self, id: PictureId) -> PictureId {
        let mask = if id.wide { PICTURE_ID } else { 0x7f };
        PictureId { value: id.value.wrapping_add(self.picture_id) & mask, ..id }
    }

    fn write_picture_id(&self, id: PictureId, out: &mut [u8]) {
        let value = self.picture_id(id).value;
        match out {
            [high, low, ..] if id.wide => [*high, *low] = (value | 0x8000).to_be_bytes(),
            [byte, ..] => *byte = value as u8,
            [] => {}
        }
    }
}

/// Changes a payload for a viewer, in place; its length stays. One whose descriptor is not understood stays as it is.
#[inline]
pub fn rewrite_payload(codec: Codec, payload: &mut [u8], offsets: &DescriptorOffsets) {
    match codec {
        Codec::Vp8 => rewrite_vp8(payload, offsets),
        Codec::Vp9 => rewrite_vp9(payload, offsets),
        _ => {}
    }
}

fn rewrite_vp8(payload: &mut [u8], offsets: &DescriptorOffsets) {
    let Some(descriptor) = Vp8Descriptor::parse(payload) else { return };
    // The fields follow on two bytes of flags, in this order.
    let mut at = 2;
    if let Some(id) = descriptor.picture_id {
        offsets.write_picture_id(id, &mut payload[at..descriptor.len]);
        at += if id.wide { 2 } else { 1 };
    }
    if descriptor.tl0_pic_idx.is_some() {
        payload[at] = payload[at].wrapping_add(offsets.tl0_pic_idx);
        at += 1;
    }
    if let Some(index) = descriptor.key_idx {
        payload[at] = payload[at] & !KEY_IDX | index.wrapping_add(offsets.key_idx) & KEY_IDX;
    }
}

fn rewrite_vp9(payload: &mut [u8], offsets: &DescriptorOffsets) {
    let Some(descriptor) = Vp9Descriptor::parse(payload) else { return };
    let mut at = 1;
    if let Some(id) = descriptor.picture_id {
        offsets.write_picture_id(id, &mut payload[at..descriptor.len]);
        at += if id.wide { 2 } else { 1 };
    }
    if descriptor.layer.is_some_and(|layer| layer.tl0_pic_idx.is_some()) {
        // Behind the byte with the layer's indices.
        payload[at + 1] = payload[at + 1].wrapping_add(offsets.tl0_pic_idx);
    }
}

/// The dependency descriptor that a viewer gets instead of this one.
#[inline]
pub fn rewrite_descriptor<'a>(
    descriptor: &[u8],
    offsets: &DescriptorOffsets,
    out: &'a mut [u8; MAX_DESCRIPTOR],
) -> &'a [u8] {
    let targets = offsets.targets.and_then(|targets| with_active_targets(descriptor, targets.mask, targets.count, out));
    let length = targets.unwrap_or_else(|| {
        let length = descriptor.len().min(MAX_DESCRIPTOR);
        out[..length].copy_from_slice(&descriptor[..length]);
        length
    });
    if let Some(fields) = Fields::parse(descriptor) {
        let number = fields.frame_number.wrapping_add(offsets.frame_number);
        out[1..Fields::LEN].copy_from_slice(&number.to_be_bytes());
    }
    &out[..length]
}
