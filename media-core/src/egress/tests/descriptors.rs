//! What viewers get of descriptors in packets: running numbers, and which decode targets are sent.

use super::layered::{Coding, FRAME_INTERVAL, Publisher};
use super::*;
use crate::layers::OperatingPoint;
use crate::rtp::dependency_descriptor::tests::{L1T3, L2T1, Written};

/// The viewer's id of the dependency descriptor.
const DESCRIPTOR: u8 = 12;

fn picture_ids(receiver: &mut SrtpReceiver, packets: Vec<Vec<u8>>) -> Vec<u16> {
    let of = |packet: Vec<u8>| {
        let (header, packet) = open(receiver, packet);
        let payload = header.payload(&packet);
        u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff
    };
    packets.into_iter().map(of).collect()
}

// COD-06, EXT-H12: what comes next may have any number, and receivers drop what lies behind.
#[test]
fn picture_ids_do_not_go_back_with_another_publication_or_a_restart_from_the_cache() {
    let coding = Coding { rate: 100_000, width: 320, temporal: 1, keyframe: 1.0 };
    let mut publisher = Publisher::new(&[coding]);
    let (mut viewer, mut receiver) =
        viewer_of(TrackId::VIDEO, vec![format(100, Codec::Vp8, None)], &[format(96, Codec::Vp8, None)]);
    let mut random = rand::rng();
    let (mut ms, mut last) = (0, None);
    for round in 0..40 {
        for _ in 0..10 {
            publisher.encode(ms).iter().for_each(|packet| assert!(publisher.receive(packet)));
            publisher.tracks.begin_pass();
            let mut out = Outbound::disconnected();
            let pass = FanOutPass { now: publisher.at(ms), tracks: &publisher.tracks, overloaded: false };
            viewer.serve(&pass, tuple(), &mut out);
            for id in picture_ids(&mut receiver, out.batch().datagrams().map(<[u8]>::to_vec).collect()) {
                let ahead = last.map_or(1, |last| id.wrapping_sub(last) & 0x7fff);
                assert!((1..0x4000).contains(&ahead), "{last:?}, then {id} in round {round}");
                last = Some(id);
            }
            ms += FRAME_INTERVAL;
        }
        let now = publisher.at(ms + 1_000);
        if round % 2 == 0 {
            assert!(video(&mut viewer).restart(now, publisher.tracks.encoding(TrackId::VIDEO, 0).unwrap()));
            ms += 2_000;
            continue;
        }
        viewer.note_positions(&publisher.tracks);
        publisher.tracks.set_publisher(None);
        video(&mut viewer).end_publication(publisher.tracks.encoding(TrackId::VIDEO, 0).unwrap());
        publisher.restart(&mut random);
    }
    assert!(last.is_some());
}

// EXT-H12
#[test]
fn decode_targets_are_those_of_the_structure_that_holds() {
    let at = |temporal| OperatingPoint { encoding: 0, spatial: 0, temporal };
    let formats = vec![format(100, Codec::Av1, None)];
    let (mut viewer, mut receiver) = viewer_of(TrackId::VIDEO, formats, &[format(96, Codec::Av1, None)]);
    let mut published = Published::new();
    let begun = published.start;
    let mut sequence = 0;
    let mut sent = |viewer: &mut Viewer, number: u64, keyframe: bool, descriptor: Vec<u8>| {
        let stored = [&[Extension::DependencyDescriptor as u8, descriptor.len() as u8][..], &descriptor].concat();
        let info = PacketInfo {
            sequence,
            timestamp: number as u32 * 3_000,
            arrived: published.at(number),
            payload_type: 96,
            marker: true,
            keyframe,
            layer: PacketLayer::ONLY,
        };
        sequence += 1;
        assert!(published.encoding(TrackId::VIDEO).admit(info, &stored, &[0x10]));
        let now = published.at(number);
        let (header, packet) = open(&mut receiver, published.serve(now, viewer, false).1.pop().unwrap());
        header.extension(&packet, DESCRIPTOR).unwrap().to_vec()
    };
    let with_mask = |bytes: Vec<u8>, mask: u32, count: u32| {
        let fields = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        Written::default().put(fields, 24).put(0x08, 5).put(mask, count).bytes()
    };
    // It begins at the lowest layer, of which nobody told it but the structure.
    video(&mut viewer).go_to(begun, at(0), None, None);
    let first = sent(&mut viewer, 0, true, L2T1.with_structure(0, 100, None));
    assert_eq!(first, L2T1.with_structure(0, 100, Some(0b10)));
    assert_eq!(sent(&mut viewer, 1, false, L2T1.packet(1, 101)), with_mask(L2T1.packet(1, 101), 0b10, 2));
    // A structure of three targets, with frame numbers that lie behind.
    let next = sent(&mut viewer, 2, true, L1T3.with_structure(0, 7, None));
    assert_eq!(next, L1T3.with_structure(0, 102, Some(0b100)));
    assert_eq!(sent(&mut viewer, 3, false, L1T3.packet(1, 8)), with_mask(L1T3.packet(1, 103), 0b100, 3));
    // At the top nothing has to be said from the next structure on.
    video(&mut viewer).go_to(begun, at(2), None, None);
    sent(&mut viewer, 4, false, L1T3.packet(1, 9));
    assert_eq!(sent(&mut viewer, 5, false, L1T3.packet(1, 10)), with_mask(L1T3.packet(1, 105), 0b111, 3));
    assert_eq!(sent(&mut viewer, 6, true, L1T3.with_structure(0, 11, None)), L1T3.with_structure(0, 106, None));
    assert_eq!(sent(&mut viewer, 7, false, L1T3.packet(1, 12)), L1T3.packet(1, 107));
    // Decoders start at parameter sets and at the picture behind them: that is one frame.
    video(&mut viewer).go_to(begun, at(0), None, None);
    for round in 0..2 {
        let number = 13 + round;
        let first = sent(&mut viewer, 8 + u64::from(round), true, L1T3.with_structure(0, number, None));
        assert_eq!(first, L1T3.with_structure(0, 95 + number, Some(0b100)));
        let second = L1T3.fields(0, number, (false, true)).bytes();
        let expected = L1T3.fields(0, 95 + number, (false, true)).bytes();
        assert_eq!(sent(&mut viewer, 8 + u64::from(round), true, second), expected);
    }
}
