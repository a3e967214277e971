//! Payload descriptors, as far as a forwarder needs them: where a decoder may start, the layer of a packet, and how
//! long audio lasts. Nothing is decoded.

mod audio;
pub mod av1;
pub mod h264;
pub(crate) mod h264_size;
pub mod h265;
pub mod parameter_sets;
mod sei;
pub mod vp8;
pub mod vp9;

use crate::media::Codec;

pub use audio::duration;

/// What a packet begins, for a decoder that has seen nothing yet. Of several, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// Nothing of use.
    None,
    /// What a decoder needs before anything else, and no picture: sequence and picture parameter sets of H.264, these and
    /// video parameter sets of H.265, sequence headers of AV1. Encoders repeat them without a keyframe behind.
    ParameterSets,
    /// A recovery point (H.264 §D.2.8, H.265 §D.3.8): pictures from here on become right within some time, as intra refresh
    /// goes over them, or the next picture is intra-coded, but those after it may refer to what came before.
    RecoveryPoint,
    /// A decoder can start here: the first packet of an IDR picture of H.264, of an IDR, CRA or BLA picture of H.265, of a key
    /// frame of VP8 or VP9, or the begin of a key frame of AV1 that is shown.
    Keyframe,
}

/// What a packet begins. For every packet of audio [`Start::Keyframe`], for a payload that does not parse [`Start::None`].
#[inline]
pub fn start(codec: Codec, payload: &[u8]) -> Start {
    match codec {
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 => Start::Keyframe,
        Codec::Vp8 => vp8::start(payload),
        Codec::Vp9 => vp9::start(payload),
        Codec::H264 => h264::start(payload),
        Codec::H265 => h265::start(payload),
        Codec::Av1 => av1::start(payload),
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

/// The bytes of a NAL unit without the 3 after each two zeros (H.264 §7.4.1.1, H.265 §7.4.2.1).
pub(super) fn without_emulation_prevention(unit: &[u8]) -> impl Iterator<Item = u8> {
    let mut zeros = 0;
    unit.iter().copied().filter(move |&byte| {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            return false;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_three_after_two_zeros_is_left_out() {
        let bytes: Vec<u8> = without_emulation_prevention(&[3, 0, 3, 0, 0, 3, 0, 0, 3, 1]).collect();
        assert_eq!(bytes, [3, 0, 3, 0, 0, 0, 0, 1]);
        assert_eq!(without_emulation_prevention(&[0, 0, 3, 1]).nth(3), None);
    }

    #[test]
    fn audio_may_start_anywhere_and_video_never_in_nothing() {
        for codec in [Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma, Codec::G722] {
            assert_eq!(start(codec, &[]), Start::Keyframe);
        }
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
            assert_eq!(start(codec, &[]), Start::None);
        }
    }
}
