//! VP8 (RFC 7741): the payload descriptor.

use super::{PictureId, Start};

/// The payload descriptor in front of the VP8 data (RFC 7741 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// N: no other frame refers to this one.
    pub non_reference: bool,
    /// S: the packet begins a partition.
    pub partition_start: bool,
    /// PID: which partition.
    pub partition: u8,
    /// I: PictureID.
    pub picture_id: Option<PictureId>,
    /// L: TL0PICIDX.
    pub tl0_pic_idx: Option<u8>,
    /// T: TID, 0..=3.
    pub temporal_id: Option<u8>,
    /// Y: a layer above may be joined here; false without T.
    pub layer_sync: bool,
    /// K: KEYIDX, 0..=31.
    pub key_idx: Option<u8>,
    /// Bytes of the descriptor.
    pub len: usize,
}

impl Vp8Descriptor {
    /// Reads the descriptor; `None` if it reaches beyond the payload.
    pub fn parse(payload: &[u8]) -> Option<Vp8Descriptor> {
        let (&first, mut rest) = payload.split_first()?;
        let mut descriptor = Vp8Descriptor {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id: None,
            tl0_pic_idx: None,
            temporal_id: None,
            layer_sync: false,
            key_idx: None,
            len: 0,
        };
        if first & 0x80 != 0 {
            let (&present, after) = rest.split_first()?;
            rest = after;
            if present & 0x80 != 0 {
                let (picture_id, after) = PictureId::parse(rest)?;
                descriptor.picture_id = Some(picture_id);
                rest = after;
            }
            if present & 0x40 != 0 {
                let (&index, after) = rest.split_first()?;
                descriptor.tl0_pic_idx = Some(index);
                rest = after;
            }
            if present & 0x30 != 0 {
                let (&byte, after) = rest.split_first()?;
                if present & 0x20 != 0 {
                    descriptor.temporal_id = Some(byte >> 6);
                    descriptor.layer_sync = byte & 0x20 != 0;
                }
                if present & 0x10 != 0 {
                    descriptor.key_idx = Some(byte & 0x1f);
                }
                rest = after;
            }
        }
        descriptor.len = payload.len() - rest.len();
        Some(descriptor)
    }
}

/// A keyframe begins on its first packet: S=1, PID=0 and P=0 in the first byte of the frame (RFC 7741 §4.3).
#[inline]
pub fn start(payload: &[u8]) -> Start {
    // Most packets are in the middle of a frame: two bits decide.
    if payload.first().is_none_or(|first| first & 0x17 != 0x10) {
        return Start::None;
    }
    match Vp8Descriptor::parse(payload).and_then(|descriptor| payload.get(descriptor.len)) {
        Some(first) if first & 0x01 == 0 => Start::Keyframe,
        _ => Start::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_descriptor_is_one_byte() {
        // COD-05
        let descriptor = Vp8Descriptor::parse(&[0x10]).unwrap();
        assert!(descriptor.partition_start && !descriptor.non_reference);
        assert_eq!((descriptor.len, descriptor.picture_id), (1, None));
    }

    #[test]
    fn every_field_is_read() {
        // COD-05
        let descriptor = Vp8Descriptor::parse(&[0xb3, 0xf0, 0x92, 0x34, 0x56, 0b1010_0111, 0xff]).unwrap();
        assert!(descriptor.non_reference && descriptor.partition_start && descriptor.layer_sync);
        assert_eq!(descriptor.partition, 3);
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, wide: true }));
        assert_eq!(descriptor.tl0_pic_idx, Some(0x56));
        assert_eq!(descriptor.temporal_id, Some(2));
        assert_eq!(descriptor.key_idx, Some(7));
        assert_eq!(descriptor.len, 6);
        let narrow = Vp8Descriptor::parse(&[0x80, 0x80, 0x12]).unwrap();
        assert_eq!(narrow.picture_id, Some(PictureId { value: 0x12, wide: false }));
    }

    #[test]
    fn a_descriptor_beyond_the_packet_is_refused() {
        // COD-05
        let whole = [0x90, 0xf0, 0x92, 0x34, 0x56, 0xa7];
        for end in 0..whole.len() {
            assert_eq!(Vp8Descriptor::parse(&whole[..end]), None);
            assert_eq!(start(&whole[..end]), Start::None);
        }
        assert_eq!(start(&whole), Start::None, "no byte of the frame itself");
    }

    #[test]
    fn a_keyframe_starts_on_its_first_partition_only() {
        // COD-05
        assert_eq!(start(&[0x10, 0x50, 0x12, 0x00, 0x9d, 0x01, 0x2a]), Start::Keyframe);
        assert_eq!(start(&[0x90, 0x80, 0x81, 0x00, 0x10]), Start::Keyframe);
        assert_eq!(start(&[0x10, 0x51]), Start::None, "interframe");
        assert_eq!(start(&[0x00, 0x50]), Start::None, "middle of a partition");
        assert_eq!(start(&[0x11, 0x50]), Start::None, "second partition");
    }
}
