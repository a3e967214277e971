mod dependencies;
mod recorded;

use super::*;
use crate::layers::{ALL_POINTS, OperatingPoint, point_bit};
use crate::rtp::codec::{PictureId, vp8::Vp8Descriptor};
use crate::rtp::dependency_descriptor::tests::{Example, L1T3, L2T1, Written, indications};

use super::points::{from_layer, from_temporal_of_all};

fn point(spatial: u8, temporal: u8) -> OperatingPoint {
    OperatingPoint { encoding: 0, spatial, temporal }
}

/// A VP8 packet that begins a frame.
fn vp8(temporal: u8, sync: bool, key: bool) -> Vec<u8> {
    let byte = temporal << 6 | u8::from(sync) << 5 | 7;
    let mut payload = vec![0x90, 0xf0, 0x81, 0x23, 9, byte];
    payload.extend([if key { 0x10 } else { 0x11 }, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x40]);
    payload
}

/// A VP9 packet: flags but I and L, layers, payload.
fn vp9(flags: u8, spatial: u8, temporal: u8, up: bool) -> Vec<u8> {
    vec![0xa0 | flags, 0x81, 0x23, temporal << 5 | u8::from(up) << 4 | spatial << 1, 9, 0x86]
}

const P: u8 = 0x40;
const B: u8 = 0x08;
const E: u8 = 0x04;
const Z: u8 = 0x01;

// COD-07
#[test]
fn temporal_layers_of_vp8_are_joined_at_their_sync_frames() {
    let mut reader = LayerReader::new();
    let mut read = |payload: &[u8]| reader.read(Codec::Vp8, payload, None);
    let key = read(&vp8(0, false, true));
    assert_eq!((key.present, key.switch), (ALL_POINTS, ALL_POINTS));
    assert_eq!(read(&vp8(0, false, false)).switch, 0);
    let sync = read(&vp8(1, true, false));
    assert_eq!((sync.present, sync.temporal), (from_temporal_of_all(1), 1));
    assert_eq!(sync.reach(point(0, 0), point(0, 2)), point(0, 1), "of the layer above nothing is said");
    assert_eq!(read(&vp8(2, false, false)).switch, 0);
    let mut rest = vp8(2, true, false);
    rest[0] &= !0x10;
    assert_eq!(read(&rest).switch, 0, "the rest of a frame");
    assert_eq!((reader.size(0), reader.size(1)), (Some((320, 180)), None));
    assert_eq!(reader.points(), point_bit(0, 0) | point_bit(0, 1) | point_bit(0, 2));
    reader.on_new_stream();
    assert_eq!((reader.size(0), reader.points()), (None, 1));
}

#[test]
fn streams_without_layers_have_one_point() {
    for (codec, payload) in [
        (Codec::Vp8, &[0x10, 0x11][..]),
        (Codec::Vp9, &[0x8c, 0x81, 0x23, 0x86]),
        (Codec::H264, &[0x65, 0x88]),
        (Codec::Av1, &[0x10, 0x30]),
        (Codec::Opus, &[0xfc]),
    ] {
        let mut reader = LayerReader::new();
        assert_eq!(reader.read(codec, payload, None), PacketLayer::ONLY, "{codec:?}");
        assert_eq!(reader.points(), 1);
    }
}

// COD-09
#[test]
fn spatial_layers_of_vp9_are_needed_above_unless_they_say_otherwise() {
    let mut reader = LayerReader::new();
    // Three layers of two sizes each, no groups.
    let structure = [&[0x50][..], &[0, 160, 0, 90, 1, 64, 0, 180, 2, 128, 1, 104]].concat();
    let mut first = vp9(B | E | 0x02, 0, 0, true);
    first.splice(5..5, [structure.clone(), vec![]].concat());
    first[5] = 0x50;
    let key = reader.read(Codec::Vp9, &first, None);
    assert_eq!((key.present, key.switch, key.frame_end), (ALL_POINTS, ALL_POINTS, true));
    let mut read = |flags, spatial, temporal, up| reader.read(Codec::Vp9, &vp9(flags, spatial, temporal, up), None);
    assert_eq!(read(B, 1, 0, true).present, from_layer(1, 0), "the key picture of L3T3_KEY");
    assert_eq!(read(B | E | P | Z, 1, 1, true).present, point_bit(1, 1) | point_bit(1, 2) | point_bit(1, 3));
    let top = read(B | E | P | Z, 2, 1, false);
    assert_eq!((top.present, top.spatial, top.temporal), (from_layer(2, 1), 2, 1));
    assert!(top.present & point_bit(3, 3) != 0, "points above the highest stand for it");
    assert_eq!(read(B | E | P, 0, 0, false).present, ALL_POINTS);
}

// COD-09
#[test]
fn vp9_goes_up_in_time_at_u_and_in_space_where_nothing_older_is_referred_to() {
    let mut reader = LayerReader::new();
    let mut read = |flags, spatial, temporal, up| reader.read(Codec::Vp9, &vp9(flags, spatial, temporal, up), None);
    let up = read(B | P, 0, 0, true);
    assert_eq!(up.reach(point(0, 0), point(0, 2)), point(0, 2));
    assert_eq!(up.reach(point(0, 0), point(1, 2)), point(0, 0));
    let higher = read(B | P, 0, 1, true);
    assert_eq!(higher.reach(point(0, 1), point(0, 2)), point(0, 2));
    assert_eq!(higher.reach(point(0, 0), point(0, 2)), point(0, 0), "its own layer may refer to what was left out");
    assert_eq!(read(P, 0, 0, true).switch, 0, "the middle of a frame");
    assert_eq!(read(B, 1, 0, false).reach(point(0, 2), point(1, 2)), point(1, 2));
    assert_eq!(read(B | P, 1, 0, false).reach(point(0, 2), point(1, 2)), point(0, 2));
}

// EXT-H12
#[test]
fn temporal_layers_by_dependency_descriptor_need_its_structure() {
    for codec in [Codec::Av1, Codec::H264, Codec::Vp8] {
        let mut reader = LayerReader::new();
        // A VP8 payload without picture id, as libwebrtc sends it beside a descriptor.
        let payload = [0x10, 0x31];
        let before = reader.read(codec, &payload, Some(&L1T3.packet(1, 0)));
        let expected = if codec == Codec::Vp8 { PacketLayer::ONLY } else { UNKNOWN };
        assert_eq!(before, expected, "of which nothing is known yet");
        let mut read = |bytes: &[u8]| reader.read(codec, &payload, Some(bytes));
        let key = read(&L1T3.with_structure(0, 4, None));
        assert_eq!((key.present, key.switch, key.frame_end), (ALL_POINTS, ALL_POINTS, false));
        assert_eq!(read(&L1T3.packet(3, 5)).present, from_temporal_of_all(2));
        let second = read(&L1T3.packet(2, 6));
        assert_eq!((second.present, second.temporal, second.frame_end), (from_temporal_of_all(1), 1, true));
        assert_eq!(second.reach(point(0, 1), point(0, 2)), point(0, 2));
        assert_eq!(second.reach(point(0, 0), point(0, 2)), point(0, 0));
        assert_eq!(read(&L1T3.packet(1, 8)).reach(point(0, 0), point(0, 2)), point(0, 2));
        assert_eq!(reader.points(), point_bit(0, 0) | point_bit(0, 1) | point_bit(0, 2));
    }
}

// EXT-H12, COD-09
#[test]
fn a_spatial_layer_is_joined_where_its_frames_refer_to_lower_ones_alone() {
    let mut reader = LayerReader::new();
    let mut read = |bytes: &[u8]| reader.read(Codec::Av1, &[0x10, 0x30], Some(bytes));
    let to = |layer: PacketLayer| layer.reach(point(0, 0), point(1, 0)) == point(1, 0);
    assert!(to(read(&L2T1.with_structure(0, 0, None))));
    read(&L2T1.packet(3, 1));
    assert!(!to(read(&L2T1.packet(1, 2))), "the layer above goes on as it was");
    assert!(!to(read(&L2T1.packet(4, 3))));
    assert!(to(read(&L2T1.packet(2, 4))), "the layer above begins anew");
    let upper = read(&L2T1.packet(3, 5));
    assert!(to(upper));
    assert_eq!((upper.present & point_bit(0, 3), upper.present & point_bit(1, 0)), (0, point_bit(1, 0)));
    assert_eq!(reader.points(), point_bit(0, 0) | point_bit(1, 0));
    assert_eq!((reader.size(0), reader.size(1), reader.size(2)), (Some((320, 180)), Some((640, 360)), None));
}

// EXT-H12
#[test]
fn bad_bits_make_a_stream_without_layers_until_the_next_structure() {
    let mut reader = LayerReader::new();
    let mut read = |bytes: &[u8]| reader.read(Codec::Av1, &[0x10, 0x30], Some(bytes));
    read(&L1T3.with_structure(0, 0, None));
    let mut bad = L1T3.with_structure(0, 4, None);
    bad.truncate(9);
    assert_eq!(read(&bad), UNKNOWN);
    assert_eq!(read(&L1T3.packet(3, 5)), UNKNOWN);
    assert_eq!(read(&[]), UNKNOWN);
    read(&L1T3.with_structure(0, 8, None));
    assert_eq!(read(&L1T3.packet(3, 9)).temporal, 2);
    // One that is late does not replace a newer one.
    let late = Example { offset: 20, ..L1T3 };
    read(&late.with_structure(0, 7, None));
    assert_eq!(read(&L1T3.packet(3, 10)).temporal, 2);
    read(&late.with_structure(0, 12, None));
    assert_eq!(read(&L1T3.packet(3, 13)), UNKNOWN);
    assert_eq!(read(&late.packet(3, 13)).temporal, 2);
}

// EXT-H12, COD-16
#[test]
fn points_stand_for_the_layers_that_are_sent_at_present() {
    let mut reader = LayerReader::new();
    let mut read = |bytes: &[u8]| reader.read(Codec::Av1, &[0x10, 0x30], Some(bytes));
    // Decode target 0 is the upper layer; a viewer of everything gets what there is.
    read(&L2T1.with_structure(0, 0, Some(0b10)));
    assert_eq!(read(&L2T1.packet(1, 2)).present, ALL_POINTS);
    assert_eq!(read(&L2T1.packet(4, 3)).present, 0);
    assert_eq!(reader.points(), 1);
    let mut read = |bytes: &[u8]| reader.read(Codec::Av1, &[0x10, 0x30], Some(bytes));
    read(&L2T1.fields(2, 4, (true, true)).put(0x08, 5).put(0b11, 2).bytes());
    assert_eq!(read(&L2T1.packet(3, 5)).present, from_layer(1, 0));
    assert_eq!(reader.points(), point_bit(0, 0) | point_bit(1, 0));
}

// EXT-H12
#[test]
fn a_frame_may_have_indications_of_its_own() {
    let mut reader = LayerReader::new();
    let mut read = |bytes: &[u8]| reader.read(Codec::Av1, &[0x10, 0x30], Some(bytes));
    read(&L1T3.with_structure(0, 0, None));
    let own = indications("SS-", L1T3.fields(2, 2, (true, true)).put(0x04, 5)).bytes();
    let layer = read(&own);
    assert_eq!(layer.present, from_temporal_of_all(1));
    assert_eq!(layer.reach(point(0, 0), point(0, 2)), point(0, 2), "refers to the base layer alone");
}

#[test]
fn active_targets_are_those_of_which_a_viewer_gets_everything() {
    let targets = DecodeTargets::of(&L2T1.with_structure(0, 0, None)).unwrap();
    assert_eq!(targets.at(point(0, 0)), ActiveTargets { mask: 0b10, count: 2 });
    assert_eq!(targets.at(point(1, 3)), ActiveTargets { mask: 0b11, count: 2 });
    let targets = DecodeTargets::of(&L1T3.with_structure(0, 0, None)).unwrap();
    assert_eq!([0, 1, 2, 3].map(|temporal| targets.at(point(0, temporal)).mask), [0b100, 0b110, 0b111, 0b111]);
    assert_eq!(DecodeTargets::of(&L2T1.packet(1, 0)), None);
}

fn id(value: u16, wide: bool) -> Option<PictureId> {
    Some(PictureId { value, wide })
}

// COD-06
#[test]
fn vp8_numbers_go_on_over_a_switch_and_over_frames_that_are_left_out() {
    let mut payload = vp8(0, false, true);
    let next = DescriptorPosition::of(Codec::Vp8, &payload, None);
    assert_eq!((next.picture_id, next.tl0_pic_idx, next.key_idx), (id(0x0123, true), Some(9), Some(7)));
    let sent = DescriptorPosition {
        picture_id: id(0x7fff, true),
        tl0_pic_idx: Some(255),
        key_idx: Some(31),
        frame_number: None,
    };
    let offsets = DescriptorOffsets::after_switch(sent, next);
    assert!(!offsets.is_identity());
    rewrite_payload(Codec::Vp8, &mut payload, &offsets);
    let written = Vp8Descriptor::parse(&payload).unwrap();
    assert_eq!((written.picture_id, written.tl0_pic_idx, written.key_idx), (id(0, true), Some(0), Some(0)));
    assert_eq!(DescriptorPosition::of(Codec::Vp8, &payload, None), next.shifted(&offsets));
    assert_eq!(payload[5] & 0xe0, vp8(0, false, true)[5] & 0xe0, "its neighbours stay");
    assert_eq!(payload[6..], vp8(0, false, true)[6..]);
    // Two frames are left out.
    let offsets = offsets.after_dropped_frame(Codec::Vp8).after_dropped_frame(Codec::Vp8);
    let mut behind = vp8(0, false, false);
    behind[3] = 0x26;
    rewrite_payload(Codec::Vp8, &mut behind, &offsets);
    assert_eq!(Vp8Descriptor::parse(&behind).unwrap().picture_id, id(1, true));
}

// COD-06
#[test]
fn picture_ids_keep_the_width_that_they_have() {
    let mut payload = vec![0x90, 0x80, 0x7f, 0x11];
    let offsets = DescriptorOffsets::IDENTITY.after_dropped_frame(Codec::Vp8);
    rewrite_payload(Codec::Vp8, &mut payload, &offsets);
    assert_eq!(payload, [0x90, 0x80, 0x7e, 0x11]);
    let next = DescriptorPosition::of(Codec::Vp8, &payload, None);
    let sent = DescriptorPosition { picture_id: id(300, true), ..DescriptorPosition::default() };
    rewrite_payload(Codec::Vp8, &mut payload, &DescriptorOffsets::after_switch(sent, next));
    assert_eq!(payload, [0x90, 0x80, (301 % 128) as u8, 0x11]);
}

// COD-09
#[test]
fn vp9_numbers_keep_their_distances_and_get_a_constant_at_a_switch() {
    let mut payload = vp9(B, 0, 0, false);
    let next = DescriptorPosition::of(Codec::Vp9, &payload, None);
    assert_eq!((next.picture_id, next.tl0_pic_idx), (id(0x0123, true), Some(9)));
    let sent = DescriptorPosition { picture_id: id(5, true), tl0_pic_idx: Some(1), ..next };
    let offsets = DescriptorOffsets::after_switch(sent, next);
    assert_eq!(offsets.after_dropped_frame(Codec::Vp9), offsets);
    rewrite_payload(Codec::Vp9, &mut payload, &offsets);
    assert_eq!(payload, [0xa8, 0x80, 6, 0, 2, 0x86]);
    let mut flexible = vec![0xbc, 0x81, 0x23, 0, 0x86];
    rewrite_payload(Codec::Vp9, &mut flexible, &offsets);
    assert_eq!(flexible, [0xbc, 0x80, 6, 0, 0x86]);
}

// EXT-H12
#[test]
fn frame_numbers_go_on_over_a_switch_and_what_is_active_is_told() {
    let sent = DescriptorPosition { frame_number: Some(0xffff), ..DescriptorPosition::default() };
    let first = L2T1.with_structure(0, 0x1234, None);
    let next = DescriptorPosition::of(Codec::Av1, &[0x10], Some(&first));
    let offsets = DescriptorOffsets::after_switch(sent, next);
    let mut out = [0; MAX_DESCRIPTOR];
    let mut expected = first.clone();
    expected[1..3].fill(0);
    assert_eq!(rewrite_descriptor(&first, &offsets, &mut out), expected);
    let targets = DecodeTargets::of(&first).unwrap().at(point(0, 0));
    let offsets = offsets.with_targets(Some(targets));
    let written = rewrite_descriptor(&first, &offsets, &mut out).to_vec();
    assert_eq!(written, L2T1.with_structure(0, 0, Some(0b10)));
    assert!(DescriptorOffsets::IDENTITY.is_identity() && !offsets.is_identity());
}

#[test]
fn payloads_that_are_not_understood_stay_as_they_are() {
    let sent = DescriptorPosition { picture_id: id(9, true), ..DescriptorPosition::default() };
    let offsets = DescriptorOffsets::after_switch(sent, DescriptorPosition { picture_id: id(1, true), ..sent });
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus] {
        for bytes in [&[][..], &[0x90], &[0x90, 0xf0], &[0xff, 0xff]] {
            let mut payload = bytes.to_vec();
            rewrite_payload(codec, &mut payload, &offsets);
            assert_eq!(payload, bytes, "{codec:?}");
        }
    }
    let mut out = [0; MAX_DESCRIPTOR];
    for bytes in [&[][..], &[0x80], &[0x80, 1]] {
        assert_eq!(rewrite_descriptor(bytes, &offsets, &mut out), bytes);
    }
}
