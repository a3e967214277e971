//! Where viewers that wait for a keyframe begin: at the first packet of its frame, whenever it is known for a keyframe.

use super::*;

/// Admits a packet of a frame; `keyframe`: it makes the frame a keyframe.
fn admit(published: &mut Published, sequence: u64, frame: u32, keyframe: bool) {
    let arrived = published.at(u64::from(frame));
    let info = PacketInfo {
        sequence,
        timestamp: frame * 3_000,
        arrived,
        payload_type: 96,
        marker: false,
        keyframe,
        layer: PacketLayer::ONLY,
    };
    assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[sequence as u8]));
}

/// What a viewer is sent in a pass at the time of a frame: the stream's numbers of the packets, which have no gap.
fn sent(viewer: &mut Viewer, receiver: &mut SrtpReceiver, published: &mut Published, frame: u64) -> Vec<u8> {
    let (served, packets) = published.serve(published.at(frame), viewer, false);
    assert!(!served.is_lagging);
    let packets = packets.into_iter().map(|packet| open(receiver, packet));
    packets.map(|(header, packet)| header.payload(&packet)[0]).collect()
}

// F-03, WHEP-16: sets and slice in packets of their own, each of which makes a pass.
#[test]
fn a_viewer_that_waits_is_sent_the_parameter_sets_of_an_earlier_pass_with_their_keyframe() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    // The last packet of the frame before.
    admit(&mut published, 3, 9, false);
    for (sequence, keyframe) in [(4, false), (5, false), (6, true), (7, false)] {
        admit(&mut published, sequence, 10, keyframe);
        let expected: &[u8] = match sequence {
            6 => &[4, 5, 6],
            7 => &[7],
            _ => &[],
        };
        assert_eq!(sent(&mut viewer, &mut receiver, &mut published, 10), expected);
        assert_eq!(video(&mut viewer).awaits_keyframe(), sequence < 6);
    }
}

// F-03: as often as they are repeated.
#[test]
fn parameter_sets_without_a_keyframe_start_nobody() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    for frame in 0..20 {
        for part in 0..3 {
            admit(&mut published, u64::from(3 * frame + part), frame, false);
        }
        assert!(sent(&mut viewer, &mut receiver, &mut published, u64::from(frame)).is_empty());
    }
    assert!(video(&mut viewer).awaits_keyframe());
    assert_eq!(video(&mut viewer).lacks_keyframe(), Some(0));
    admit(&mut published, 60, 20, false);
    admit(&mut published, 61, 20, true);
    assert_eq!(sent(&mut viewer, &mut receiver, &mut published, 20), [60, 61]);
}

// COD-17: the packet that was missing when it joined comes.
#[test]
fn a_viewer_that_waits_begins_once_everything_since_the_keyframe_is_there() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    for sequence in [0, 1, 3, 4] {
        admit(&mut published, sequence, sequence as u32, sequence == 0);
    }
    assert!(!video(&mut viewer).join(published.at(4), published.video()));
    assert!(sent(&mut viewer, &mut receiver, &mut published, 4).is_empty());
    admit(&mut published, 2, 2, false);
    let mut all = Vec::new();
    for ms in 0..200 {
        let now = published.at(4) + Duration::from_millis(ms);
        let packets = published.serve(now, &mut viewer, false).1;
        all.extend(packets.into_iter().map(|packet| {
            let (header, packet) = open(&mut receiver, packet);
            (header.sequence_number, header.payload(&packet)[0])
        }));
    }
    assert_eq!(all, (0..5).map(|packet| (0x7fff + packet, packet as u8)).collect::<Vec<_>>());
}

// RTCP-17: what it was sent before it lost its place is of no use to it any more.
#[test]
fn a_viewer_that_lost_its_place_does_not_go_back_to_the_keyframe_that_it_had() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    admit(&mut published, 0, 0, true);
    assert_eq!(sent(&mut viewer, &mut receiver, &mut published, 0), [0]);
    (1..30).for_each(|frame| admit(&mut published, u64::from(frame), frame, false));
    let (served, packets) = published.serve(published.at(60), &mut viewer, true);
    assert_eq!((served.needs_keyframe, packets.len()), (Some((TrackId::VIDEO, 0)), 0));
    admit(&mut published, 30, 61, false);
    assert!(sent(&mut viewer, &mut receiver, &mut published, 61).is_empty());
    admit(&mut published, 31, 62, false);
    assert!(sent(&mut viewer, &mut receiver, &mut published, 62).is_empty());
    admit(&mut published, 32, 62, true);
    assert_eq!(sent(&mut viewer, &mut receiver, &mut published, 62), [31, 32]);
}

// M4: the cache shrinks under a viewer that lags.
#[test]
fn a_viewer_whose_packets_were_given_up_goes_on_at_the_keyframe_without_a_gap() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    // Large packets, and a path that takes few of them.
    let packet = |sequence: u64| PacketInfo {
        sequence,
        timestamp: sequence as u32 * 18,
        arrived: published.start + Duration::from_micros(200 * sequence),
        payload_type: 96,
        marker: true,
        keyframe: [0, 600].contains(&sequence),
        layer: PacketLayer::ONLY,
    };
    let packets: Vec<PacketInfo> = (0..700).map(packet).collect();
    viewer.congestion_mut().on_remb(published.start, 1_000_000, 500_000);
    let mut first = Vec::new();
    for &info in &packets {
        assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[info.sequence as u8; 1_200]));
        if [0, 699].contains(&info.sequence) {
            first.extend(shown(&mut receiver, published.serve(info.arrived, &mut viewer, false).1));
        }
    }
    let now = packets[699].arrived;
    assert!(!first.is_empty() && first.len() < 600, "{} packets", first.len());
    published.tracks.begin_pass();
    assert!(published.encoding(TrackId::VIDEO).save_memory(false));
    let dropped = viewer.sent().dropped;
    let next = shown(&mut receiver, published.serve(now + Duration::from_millis(30), &mut viewer, false).1);
    assert_eq!(next[0], (first.len() as u16, 600_u64 as u8), "the keyframe, under the next number");
    assert!(viewer.sent().dropped > dropped);
    assert!(!video(&mut viewer).awaits_keyframe());
}
