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
