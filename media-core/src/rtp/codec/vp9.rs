//! VP9 (RFC 9628): the payload descriptor.

use super::{PictureId, Start};

/// Indices of one packet's layer (RFC 9628 §4.2, flag L).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerIndices {
    /// TID, 0..=7.
    pub temporal_id: u8,
    /// U: from here a receiver may go up to higher temporal layers.
    pub switching_up: bool,
    /// SID, 0..=7.
    pub spatial_id: u8,
    /// D: depends on the spatial layer below in the same picture.
    pub inter_layer: bool,
    /// TL0PICIDX; only in non-flexible mode.
    pub tl0_pic_idx: Option<u8>,
}

/// The payload descriptor in front of the VP9 data (RFC 9628 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// I: PictureID.
    pub picture_id: Option<PictureId>,
    /// P: predicted from an earlier picture.
    pub inter_picture: bool,
    /// L: layer indices.
    pub layer: Option<LayerIndices>,
    /// F: flexible mode.
    pub flexible: bool,
    /// B: first packet of a layer frame.
    pub frame_start: bool,
    /// E: last packet of a layer frame.
    pub frame_end: bool,
    /// V: a scalability structure is present.
    pub scalability_structure: bool,
    /// Z: no higher spatial layer refers to this picture.
    pub not_reference_for_inter_layer: bool,
    /// Bytes of the descriptor.
    pub len: usize,
    /// Where the scalability structure begins, if there is one.
    structure_at: usize,
}

impl Vp9Descriptor {
    /// Reads the descriptor; `None` if it reaches beyond the payload or has more than three reference indices.
    pub fn parse(payload: &[u8]) -> Option<Vp9Descriptor> {
        let (&first, mut rest) = payload.split_first()?;
        let mut descriptor = Vp9Descriptor {
            picture_id: None,
            inter_picture: first & 0x40 != 0,
            layer: None,
            flexible: first & 0x10 != 0,
            frame_start: first & 0x08 != 0,
            frame_end: first & 0x04 != 0,
            scalability_structure: first & 0x02 != 0,
            not_reference_for_inter_layer: first & 0x01 != 0,
            len: 0,
            structure_at: 0,
        };
        if first & 0x80 != 0 {
            let (picture_id, after) = PictureId::parse(rest)?;
            descriptor.picture_id = Some(picture_id);
            rest = after;
        }
        if first & 0x20 != 0 {
            let (&byte, mut after) = rest.split_first()?;
            let mut tl0_pic_idx = None;
            if !descriptor.flexible {
                let (&index, next) = after.split_first()?;
                tl0_pic_idx = Some(index);
                after = next;
            }
            descriptor.layer = Some(LayerIndices {
                temporal_id: byte >> 5,
                switching_up: byte & 0x10 != 0,
                spatial_id: (byte >> 1) & 0x07,
                inter_layer: byte & 0x01 != 0,
                tl0_pic_idx,
            });
            rest = after;
        }
        if descriptor.flexible && descriptor.inter_picture {
            rest = skip_references(rest)?;
        }
        descriptor.structure_at = payload.len() - rest.len();
        if descriptor.scalability_structure {
            rest = skip_scalability_structure(rest)?;
        }
        descriptor.len = payload.len() - rest.len();
        Some(descriptor)
    }
}

/// One to three P_DIFF bytes; the lowest bit says that another follows.
fn skip_references(mut bytes: &[u8]) -> Option<&[u8]> {
    for _ in 0..3 {
        let (&reference, rest) = bytes.split_first()?;
        if reference & 0x01 == 0 {
            return Some(rest);
        }
        bytes = rest;
    }
    None
}

/// What a scalability structure says of the spatial layers (RFC 9628 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalabilityStructure {
    /// N_S and one: spatial layers of the stream, 1..=8.
    pub spatial_layers: u8,
    /// Width and height of each in pixels, if Y is set.
    pub sizes: Option<[(u16, u16); 8]>,
}

impl ScalabilityStructure {
    /// The structure of a payload whose descriptor says that there is one.
    pub fn of(payload: &[u8], descriptor: &Vp9Descriptor) -> Option<ScalabilityStructure> {
        let bytes = payload.get(descriptor.structure_at..).filter(|_| descriptor.scalability_structure)?;
        let (&header, rest) = bytes.split_first()?;
        let spatial_layers = (header >> 5) + 1;
        let mut structure = ScalabilityStructure { spatial_layers, sizes: None };
        if header & 0x10 != 0 {
            let mut sizes = [(0, 0); 8];
            for (size, bytes) in sizes.iter_mut().zip(rest.get(..4 * usize::from(spatial_layers))?.chunks_exact(4)) {
                *size = (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]));
            }
            structure.sizes = Some(sizes);
        }
        Some(structure)
    }
}

/// The scalability structure (RFC 9628 §4.2.1).
fn skip_scalability_structure(bytes: &[u8]) -> Option<&[u8]> {
    let (&header, mut rest) = bytes.split_first()?;
    if header & 0x10 != 0 {
        let layers = usize::from(header >> 5) + 1;
        rest = rest.get(4 * layers..)?;
    }
    if header & 0x08 != 0 {
        let (&pictures, after) = rest.split_first()?;
        rest = after;
        for _ in 0..pictures {
            let (&picture, after) = rest.split_first()?;
            rest = after.get(usize::from((picture >> 2) & 0x03)..)?;
        }
    }
    Some(rest)
}

/// A keyframe begins on the first packet of its lowest spatial layer: P=0, B=1, SID=0 or no layers, and a key frame by its own
/// header. Frames that are coded without others (intra-only) have P=0, too, but leave a decoder without what later frames
/// refer to; and some packetizers never set P.
#[inline]
pub fn start(payload: &[u8]) -> Start {
    if payload.first().is_none_or(|first| first & 0x48 != 0x08) {
        return Start::None;
    }
    let Some(descriptor) = Vp9Descriptor::parse(payload) else { return Start::None };
    let is_lowest = descriptor.layer.is_none_or(|layer| layer.spatial_id == 0 && !layer.inter_layer);
    match payload.get(descriptor.len) {
        Some(&first) if is_lowest && is_key_frame(first) => Start::Keyframe,
        _ => Start::None,
    }
}

/// True if the uncompressed header of a frame that begins with this byte is that of a key frame (VP9 specification §6.2):
/// the marker 2, two bits of profile with a reserved one after profile 3, `show_existing_frame` 0, `frame_type` 0.
fn is_key_frame(first: u8) -> bool {
    match first & 0xf0 {
        0xb0 => first & 0x0e == 0,
        0x80..=0xa0 => first & 0x0c == 0,
        _ => false,
    }
}

/// The profile of the keyframe that begins in the packet: the bits after the frame marker, the lowest first (VP9 bit stream
/// specification §6.2).
pub(crate) fn profile(payload: &[u8]) -> Option<u8> {
    if start(payload) != Start::Keyframe {
        return None;
    }
    let first = *payload.get(Vp9Descriptor::parse(payload)?.len)?;
    (first >> 6 == 2).then_some((first >> 5 & 1) | (first >> 3 & 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_with_its_structure_is_read_to_the_end() {
        // COD-08: I L B V in non-flexible mode, two layers with resolutions, one picture group of two.
        let payload = [
            0xaa, 0x92, 0x34, 0x00, 0x07, 0x38, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0x02, 0x00, 0x34, 0x01,
            0x82,
        ];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, wide: true }));
        let layer = descriptor.layer.unwrap();
        assert_eq!((layer.temporal_id, layer.spatial_id, layer.tl0_pic_idx), (0, 0, Some(7)));
        assert!(descriptor.scalability_structure && descriptor.frame_start && !descriptor.frame_end);
        assert_eq!(descriptor.len, payload.len() - 1);
        let structure = ScalabilityStructure::of(&payload, &descriptor).unwrap();
        assert_eq!(
            (structure.spatial_layers, structure.sizes.unwrap()[..2].to_vec()),
            (2, vec![(320, 180), (640, 360)])
        );
        assert_eq!(start(&payload), Start::Keyframe);
        for end in 0..descriptor.len {
            assert_eq!(Vp9Descriptor::parse(&payload[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn flexible_mode_has_references_and_no_tl0_index() {
        // COD-08
        let descriptor = Vp9Descriptor::parse(&[0xfc, 0x05, 0b0101_0011, 0x03, 0x02, 0xee]).unwrap();
        let layer = descriptor.layer.unwrap();
        assert_eq!((layer.temporal_id, layer.spatial_id, layer.tl0_pic_idx), (2, 1, None));
        assert!(layer.switching_up && layer.inter_layer && descriptor.flexible && descriptor.frame_end);
        assert_eq!(descriptor.len, 5);
        assert_eq!(Vp9Descriptor::parse(&[0xdc, 0x05, 0x03, 0x03, 0x03, 0x02]), None, "four references");
    }

    #[test]
    fn only_the_lowest_layer_of_an_independent_picture_starts_a_keyframe() {
        // COD-08
        assert_eq!(start(&[0x08, 0x82]), Start::Keyframe, "no layers");
        assert_eq!(start(&[0x48, 0x82]), Start::None, "P=1");
        assert_eq!(start(&[0x04, 0x82]), Start::None, "B=0");
        assert_eq!(start(&[0x28, 0x00, 0x00, 0x82]), Start::Keyframe, "SID=0");
        assert_eq!(start(&[0x28, 0x03, 0x00, 0x82]), Start::None, "SID=1");
        assert_eq!(start(&[0x28, 0x00]), Start::None, "cut");
        assert_eq!(start(&[0x28, 0x00, 0x00]), Start::None, "no byte of the frame itself");
    }

    // F-03: the frame's own header decides, for intra-only frames and for packetizers that never set P.
    #[test]
    fn frames_that_are_no_key_frames_start_nothing_whatever_the_descriptor_says() {
        for (first, name) in [(0x86, "inter or intra-only"), (0x88, "shows an old one"), (0x42, "no marker")] {
            assert_eq!(start(&[0x08, first]), Start::None, "{name}");
        }
        for first in [0x82, 0x92, 0xa2, 0xb1] {
            assert_eq!(start(&[0x08, first]), Start::Keyframe, "profiles 0 to 3: {first:#x}");
        }
        assert_eq!(start(&[0x08, 0xb2]), Start::None, "inter, profile 3");
    }
}
