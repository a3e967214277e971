//! Payload descriptors, as far as a forwarder needs them: where a decoder may start, and the layer of a packet. Nothing
//! is decoded.

pub mod av1;
pub mod h264;
pub mod h265;
pub mod parameter_sets;
pub mod vp8;
pub mod vp9;

use crate::media::Codec;

/// True on the packet at which a decoder may start: the first of a keyframe, or the parameter sets in front of it.
/// True for every packet of audio, false for a payload that does not parse.
#[inline]
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 => true,
        Codec::Vp8 => vp8::starts_keyframe(payload),
        Codec::Vp9 => vp9::starts_keyframe(payload),
        Codec::H264 => h264::starts_keyframe(payload),
        Codec::H265 => h265::starts_keyframe(payload),
        Codec::Av1 => av1::starts_keyframe(payload),
    }
}

/// A picture id of VP8 or VP9, which keeps its width for the whole stream (RFC 7741 §4.2, RFC 9628 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// 0..=127, or 0..=32767 if `wide`.
    pub value: u16,
    /// 15 bits instead of 7.
    pub wide: bool,
}

impl PictureId {
    /// Reads one from the front of `bytes`; returns it with what follows.
    fn parse(bytes: &[u8]) -> Option<(PictureId, &[u8])> {
        let (&first, rest) = bytes.split_first()?;
        if first & 0x80 == 0 {
            return Some((PictureId { value: u16::from(first), wide: false }, rest));
        }
        let (&second, rest) = rest.split_first()?;
        Some((PictureId { value: u16::from_be_bytes([first & 0x7f, second]), wide: true }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_may_start_anywhere_and_video_never_in_nothing() {
        for codec in [Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma, Codec::G722] {
            assert!(starts_keyframe(codec, &[]));
        }
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
            assert!(!starts_keyframe(codec, &[]));
        }
    }
}
