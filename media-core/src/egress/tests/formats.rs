//! A viewer's formats when what the publisher sends changes.

use super::*;
use crate::rtp::profile::{FormatInUse, H264ProfileLevel, Profile};

// F-01, F-13, SRTP-09
#[test]
fn another_profile_in_mid_stream_goes_out_as_the_format_that_takes_it() {
    let h264 = |payload_type, id: &str| Format {
        fmtp: format!("packetization-mode=1;profile-level-id={id}"),
        ..format(payload_type, Codec::H264, None)
    };
    let publisher = [h264(96, "42e01f")];
    let formats = vec![h264(100, "42e01f"), h264(102, "64001f")];
    let (mut viewer, mut receiver) = viewer_of(TrackId::VIDEO, formats, &publisher);
    let mut published = Published::new();
    let now_sends = |viewer: &mut Viewer, id: &str| {
        let profile = H264ProfileLevel::parse(id).map(Profile::H264);
        video(viewer).set_publisher_formats(&publisher, Some(FormatInUse { payload_type: 96, profile }));
    };
    let mut send = |viewer: &mut Viewer, published: &mut Published, sequence, keyframe| {
        let sequence = published.packet(sequence, 96, keyframe);
        let header = open(&mut receiver, forward(viewer, published, sequence)?).0;
        Some((header.payload_type, header.sequence_number))
    };
    now_sends(&mut viewer, "42c01f");
    assert_eq!(send(&mut viewer, &mut published, 0, true), Some((100, 0x7fff)));
    assert_eq!(send(&mut viewer, &mut published, 1, false), Some((100, 0x8000)));
    let now = published.at(10);
    assert!(resend(&mut viewer, &published, now, 0x8000).is_some());
    now_sends(&mut viewer, "640028");
    // With another payload type it would be another packet under the same number.
    assert_eq!(resend(&mut viewer, &published, now + Duration::from_secs(1), 0x8000), None);
    assert_eq!(send(&mut viewer, &mut published, 2, true), Some((102, 0x8001)));
    now_sends(&mut viewer, "42c01f");
    assert_eq!(send(&mut viewer, &mut published, 3, true), Some((102, 0x8002)), "High takes it: nothing need change");
    now_sends(&mut viewer, "f4001f");
    assert!(!video(&mut viewer).carries(96));
    assert_eq!(send(&mut viewer, &mut published, 4, true), None);
    now_sends(&mut viewer, "42c01f");
    assert_eq!(send(&mut viewer, &mut published, 5, true), Some((100, 0x8003)));
}

// COD-04, RTP-10
#[test]
fn red_goes_to_each_viewer_in_its_own_payload_types_or_as_plain_opus() {
    let opus = |payload_type| format(payload_type, Codec::Opus, None);
    let red = |payload_type, fmtp: &str| Format { fmtp: fmtp.into(), ..format(payload_type, Codec::Red, None) };
    let publisher = [opus(111), red(63, "111/111")];
    let payload = [0x80 | 111, 0x0f, 0x00, 2, 111, 1, 1, 3, 3, 3];
    let remapped = [0x80 | 96, 0x0f, 0x00, 2, 96, 1, 1, 3, 3, 3];
    for (formats, payload_type, expected) in
        [(vec![opus(96), red(97, "96/96")], 97, &remapped[..]), (vec![opus(96)], 96, &[3, 3, 3])]
    {
        let (mut viewer, mut receiver) = viewer_of(TrackId::AUDIO, formats, &publisher);
        let mut published = Published::new();
        let arrived = published.start;
        let info = PacketInfo {
            sequence: 5,
            timestamp: 960,
            arrived,
            payload_type: 63,
            marker: false,
            keyframe: true,
            layer: PacketLayer::ONLY,
        };
        published.encoding(TrackId::AUDIO).admit(info, &[], &payload);
        published.encoding(TrackId::AUDIO).admit(
            PacketInfo { sequence: 6, timestamp: 1920, payload_type: 111, ..info },
            &[],
            &[4, 4],
        );
        let sent = published.serve(arrived, &mut viewer, false).1;
        for first in &sent {
            let number = RtpHeader::parse(first).unwrap().sequence_number;
            let mut again = Outbound::disconnected();
            assert_eq!(viewer.resend(arrived, (0xaaaa, number), &published.tracks, tuple(), &mut again), Resent::Yes);
            assert!(again.batch().datagrams().eq([&first[..]]), "SRTP-09");
        }
        let mut sent = sent.into_iter();
        let mut next = || open(&mut receiver, sent.next().unwrap());
        let (header, packet) = next();
        assert_eq!((header.payload_type, header.sequence_number, header.timestamp), (payload_type, 0x7fff, 960));
        assert_eq!(header.payload(&packet), expected);
        // The publisher may leave redundancy out at any time.
        let (header, packet) = next();
        assert_eq!((header.payload_type, header.sequence_number, header.timestamp), (96, 0x8000, 1920));
        assert_eq!(header.payload(&packet), [4, 4]);
    }
}
