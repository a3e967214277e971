//! Temporal layers of VP8 (RFC 7741 §4.2).

use crate::layers::{ALL_POINTS, PacketLayer};
use crate::rtp::codec::vp8::Vp8Descriptor;

use super::UNKNOWN;
use super::points::{LOWEST_TEMPORAL, from_temporal_of_all};

/// The layer of a packet.
#[inline]
pub(super) fn layer(payload: &[u8]) -> PacketLayer {
    let Some(descriptor) = Vp8Descriptor::parse(payload) else { return UNKNOWN };
    let Some(temporal) = descriptor.temporal_id else { return PacketLayer::ONLY };
    let begins_frame = descriptor.partition_start && descriptor.partition == 0;
    let is_key = payload.get(descriptor.len).is_some_and(|first| first & 0x01 == 0);
    let switch = match (begins_frame, is_key, descriptor.layer_sync) {
        (true, true, _) => ALL_POINTS,
        // Y says that the frame refers to the base layer alone, and nothing of the layers above its own.
        (true, false, true) if temporal > 0 => LOWEST_TEMPORAL << temporal,
        _ => 0,
    };
    PacketLayer { present: from_temporal_of_all(temporal), switch, spatial: 0, temporal, frame_end: false }
}

/// Width and height of a keyframe, in its first packet: behind three bytes and the start code, 14 bits each (RFC 6386 §9.1).
pub(super) fn size(payload: &[u8]) -> Option<(u16, u16)> {
    if payload.first().is_none_or(|first| first & 0x17 != 0x10) {
        return None;
    }
    let frame = payload.get(Vp8Descriptor::parse(payload)?.len..)?;
    let &[first, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = frame.first_chunk()? else { return None };
    let side = |bytes| u16::from_le_bytes(bytes) & 0x3fff;
    (first & 0x01 == 0).then_some((side([w0, w1]), side([h0, h1])))
}
