//! H.264: where keyframes start, the parameter sets that are inserted, and B-frames.

use super::*;
use crate::stream::Encoding;

/// Sends H.264; of each packet that is cached it returns the number, whether it makes a
/// keyframe, and the payload.
struct H264 {
    harness: Harness,
    events: u32,
}

impl H264 {
    fn new(fmtp: &str) -> H264 {
        let format = Format { fmtp: fmtp.into(), ..format(96, Codec::H264, Some(97)) };
        H264 { harness: Harness::new(&[section(MediaKind::Video, vec![format])]), events: 0 }
    }

    fn send(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<(u64, bool, Vec<u8>)> {
        let end = self.encoding().end();
        let accepted = self.harness.receive(&Packet { timestamp, ..Packet::video(1, sequence, payload) });
        let Ok(Accepted::Forward { sequence, keyframe, .. }) = accepted else { return Vec::new() };
        self.events += u32::from(keyframe);
        let cached = (end.min(sequence)..=sequence).filter_map(|sequence| self.harness.video(sequence));
        cached.map(|packet| (packet.info.sequence, packet.info.keyframe, packet.payload.to_vec())).collect()
    }

    /// Sends one packet that is forwarded unchanged. Where viewers start then.
    fn plain(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) -> Option<u64> {
        let cached = self.send(sequence, timestamp, payload);
        assert_eq!(cached.len(), 1);
        assert_eq!(cached[0].2, payload);
        self.start()
    }

    fn encoding(&self) -> &Encoding {
        self.harness.tracks.encoding(TrackId::VIDEO, 0).unwrap()
    }

    /// Where viewers start.
    fn start(&self) -> Option<u64> {
        self.encoding().latest_keyframe()
    }

    /// The publisher leaves requests for a keyframe unanswered until it counts as one that ignores them.
    fn ignore_requests(&mut self) {
        let requests = &mut self.harness.tracks.encoding_mut(TrackId::VIDEO, 0).unwrap().keyframe_requests;
        while !requests.are_ignored() {
            requests.request();
            self.harness.ms += 2_000;
            let now = self.harness.start + Duration::from_millis(self.harness.ms);
            assert!(requests.poll(now, 0, 0));
        }
    }
}

const AUD: &[u8] = &[0x09, 0x10];
const SEI: &[u8] = &[0x06, 0x05, 0x80];
const RECOVERY_POINT: &[u8] = &[0x06, 0x06, 0x01, 0x84, 0x80];
const SPS: &[u8] = &[0x67, 0x42, 0, 0x1e, 0x80];
const PPS: &[u8] = &[0x68, 0xce];
const IDR: &[u8] = &[0x65, 0x88];
const IDR_SECOND_SLICE: &[u8] = &[0x65, 0x08];
const SLICE: &[u8] = &[0x41, 0x9a];

/// A keyframe in one packet (STAP-A).
fn with_sets() -> Vec<u8> {
    [&[0x78, 0, 5][..], SPS, &[0, 2], PPS, &[0, 2], IDR].concat()
}

/// Parameter sets and a recovery point in front of a frame that is refreshed bit by bit, in one packet.
fn refresh() -> Vec<u8> {
    let units = [SPS, PPS, RECOVERY_POINT, SLICE].map(|unit| [&[0, unit.len() as u8][..], unit].concat());
    [&[0x78][..], &units.concat()].concat()
}

// COD-10, F-03: OBS sends sets and slices in packets of their own.
#[test]
fn a_keyframe_in_several_packets_is_one_and_starts_with_what_stands_in_front_of_it() {
    let mut h264 = H264::new("");
    assert_eq!([h264.plain(0, 0, SPS), h264.plain(1, 0, PPS), h264.plain(2, 0, IDR)], [None, None, Some(0)]);
    let mut sequence = 2;
    for (keyframe, timestamp) in [(1, 3_000), (2, 6_000)] {
        let (before, begin) = (h264.start(), h264.encoding().end());
        for payload in [AUD, SEI, SPS, PPS, IDR, IDR_SECOND_SLICE] {
            sequence += 1;
            let is_known = payload == IDR || payload == IDR_SECOND_SLICE;
            let expected = if is_known { Some(begin) } else { before };
            assert_eq!(h264.plain(sequence, timestamp, payload), expected, "{payload:x?}");
            assert_eq!(h264.events, keyframe + u32::from(is_known));
        }
        sequence += 1;
        assert_eq!(h264.plain(sequence, timestamp + 1_500, SLICE), Some(begin));
    }
    // All in one packet, as browsers send it.
    let begin = h264.encoding().end();
    assert_eq!(h264.plain(sequence + 1, 9_000, &with_sets()), Some(begin));
    assert_eq!(h264.plain(sequence + 2, 9_000, IDR_SECOND_SLICE), Some(begin));
}

// COD-10, RTCP-10, F-03: parameter sets are received out of order, after their frame.
#[test]
fn parameter_sets_received_out_of_order_become_the_start() {
    let mut h264 = H264::new("");
    h264.send(0, 0, SPS);
    h264.send(1, 0, PPS);
    h264.send(2, 0, IDR);
    assert_eq!(h264.plain(5, 3_000, IDR), Some(5), "the sets may have been lost, and none are inserted");
    assert_eq!(h264.plain(4, 3_000, PPS), Some(4));
    assert_eq!(h264.plain(3, 3_000, SPS), Some(3));
    assert_eq!(h264.events, 2);
}

// F-03: an encoder with intra refresh has one keyframe, and repeats its parameter sets as often as others send keyframes.
#[test]
fn parameter_sets_without_a_keyframe_are_none() {
    let mut h264 = H264::new("");
    h264.plain(0, 0, &with_sets());
    let mut sequence = 0;
    for second in 1..5 {
        h264.harness.ms += 1_000;
        // In packets of their own, and then in one.
        for (frame, payloads) in [&[SPS, PPS, RECOVERY_POINT, SLICE][..], &[SLICE], &[&refresh()]].iter().enumerate() {
            for payload in *payloads {
                sequence += 1;
                let timestamp = second * 90_000 + frame as u32 * 3_000;
                assert_eq!(h264.plain(sequence, timestamp, payload), Some(0), "{second} s, {payload:x?}");
            }
        }
    }
    assert_eq!(h264.events, 1);
    let start = h264.encoding().start(h264.harness.now()).map(|start| start.sequence);
    assert_eq!(start, Some(0), "everything since the keyframe is there");
}

// F-03: without requests there is nothing better; with a keyframe in the cache there is.
#[test]
fn a_recovery_point_is_a_start_only_where_nothing_better_is_to_be_had() {
    let mut h264 = H264::new("");
    let mut sequence = 0;
    let mut next = |h264: &mut H264, payload: &[u8]| {
        sequence += 1;
        h264.harness.ms += 100;
        let accepted = h264.send(sequence, u32::from(sequence) * 9_000, payload);
        (accepted.len(), h264.start())
    };
    assert_eq!(next(&mut h264, &refresh()), (0, None), "the publisher may answer");
    h264.ignore_requests();
    assert_eq!(next(&mut h264, SLICE), (0, None));
    assert_eq!(next(&mut h264, &refresh()), (1, Some(0)));
    assert_eq!(next(&mut h264, SLICE), (1, Some(0)));
    assert_eq!(
        next(&mut h264, &refresh()),
        (1, Some(0)),
        "everything since the first is there, and it is farther along"
    );
    assert_eq!(h264.events, 0, "it is no keyframe for that");
    assert!(h264.harness.tracks.encoding(TrackId::VIDEO, 0).unwrap().keyframe_requests.are_ignored());
    // Older than viewers are started from.
    h264.harness.ms += 11_000;
    assert_eq!(next(&mut h264, &refresh()), (1, Some(3)));
    assert_eq!(next(&mut h264, &with_sets()), (1, Some(4)));
    assert_eq!((next(&mut h264, &refresh()), h264.events), ((1, Some(4)), 1));
}

// COD-10, F-03: of a stream that has not begun nothing but parameter sets is forwarded.
#[test]
fn a_stream_that_begins_with_parameter_sets_alone_waits_for_its_keyframe() {
    let mut h264 = H264::new("");
    for (sequence, payload) in (0..).zip([SPS, PPS, RECOVERY_POINT, SLICE, SLICE]) {
        let forwarded = h264.send(sequence, 0, payload).len();
        assert_eq!(forwarded, usize::from(payload == SPS || payload == PPS), "{payload:x?}");
    }
    let slice = Packet { timestamp: 3_000, ..Packet::video(1, 5, SLICE) };
    assert_eq!(h264.harness.receive(&slice), Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 }));
    // The sets may be older than their keyframe: it is given them once more.
    assert_eq!(h264.send(6, 6_000, IDR).iter().map(|packet| packet.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((h264.plain(7, 9_000, SLICE), h264.events), (Some(2), 1));
}

// COD-11
#[test]
fn parameter_sets_of_the_description_are_inserted_before_a_keyframe_without() {
    let mut h264 = H264::new("packetization-mode=1;sprop-parameter-sets=Z0IAHoA=,aM4=");
    let with_sets =
        |first: u64| [(first, true, SPS.to_vec()), (first + 1, false, PPS.to_vec()), (first + 2, false, IDR.to_vec())];
    assert_eq!(h264.send(0, 0, IDR), with_sets(0));
    assert_eq!(h264.send(1, 0, IDR_SECOND_SLICE), [(3, false, IDR_SECOND_SLICE.to_vec())]);
    assert_eq!(h264.send(3, 3_000, SLICE), [(5, false, SLICE.to_vec())]);
    assert_eq!(h264.send(4, 6_000, IDR), with_sets(6));
    let cached: Vec<_> = (6..9).map(|sequence| h264.harness.video(sequence).unwrap().info).collect();
    assert!(cached.iter().all(|info| (info.timestamp, info.payload_type) == (6_000, 96)));
    assert_eq!(cached.iter().map(|info| info.marker).collect::<Vec<_>>(), [false, false, true]);
    // A packet lost before keeps its place.
    assert_eq!(h264.send(2, 1_500, SLICE), [(4, false, SLICE.to_vec())]);
    assert_eq!(h264.events, 2);
    // The stream's own sets are newer than the description's.
    let sps = [&SPS[..4], &[0xff]].concat();
    assert_eq!(h264.send(5, 9_000, &sps), [(9, false, sps.clone())]);
    assert_eq!(h264.send(6, 9_000, IDR), [(10, true, IDR.to_vec())]);
    assert_eq!(h264.start(), Some(9));
    let later = h264.send(7, 12_000, IDR);
    assert_eq!(later.iter().map(|packet| &packet.2[..]).collect::<Vec<_>>(), [&sps[..], PPS, IDR]);
    assert_eq!(later[0].0, 11);
}

// COD-11, RTP-03: parameter sets of the old encoder are not sent with another one's keyframes.
#[test]
fn another_ssrc_does_not_inherit_parameter_sets() {
    let mut h264 = H264::new("");
    for (sequence, payload) in (0..).zip([SPS, PPS, IDR]) {
        h264.plain(sequence, 0, payload);
    }
    assert_eq!(h264.send(3, 3_000, IDR).len(), 3);
    h264.harness.ingest.on_bye(1);
    let accepted = h264.harness.receive(&Packet { timestamp: 0, ..Packet::video(2, 0, IDR) });
    // Without parameter sets no decoder could start.
    assert_eq!(accepted, Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 }));
    let accepted = h264.harness.receive(&Packet { timestamp: 3_000, ..Packet::video(2, 1, &with_sets()) });
    assert!(matches!(accepted, Ok(Accepted::Forward { sequence: 6, .. })), "{accepted:?}");
}

// RTP-11
#[test]
fn b_frames_are_detected_by_rtp_time_that_goes_back() {
    let mut h264 = H264::new("");
    // A packet received out of order, and a clock that is set once, are no B-frames.
    for (sequence, timestamp) in [(0, 9_000), (2, 15_000), (1, 12_000), (3, 18_000), (4, 3_000), (5, 6_000)] {
        h264.send(sequence, timestamp, &with_sets());
    }
    assert!(!h264.harness.ingest.has_b_frames());
    for group in 1..4 {
        let time = u32::from(group) * 12_000;
        for (index, timestamp) in [(0, time + 9_000), (1, time + 3_000), (2, time + 6_000)] {
            h264.send(group * 3 + index + 3, timestamp, SLICE);
        }
    }
    assert!(h264.harness.ingest.has_b_frames());
}

// F-13
#[test]
fn what_the_stream_says_of_its_profile_is_reported_when_it_changes() {
    let fmtp = "packetization-mode=1;profile-level-id=4d001f";
    let mut h264 = H264::new(fmtp);
    let reported = |h264: &mut H264| -> Vec<String> {
        let now = h264.harness.now();
        let changes = h264.harness.ingest.take_format_changes(now);
        changes
            .into_iter()
            .map(|(_, in_use)| in_use.profile.map_or_else(String::new, |profile| profile.to_string()))
            .collect()
    };
    let keyframe = |sps: &[u8]| [&[0x78, 0, sps.len() as u8][..], sps, &[0, 2], PPS, &[0, 2], IDR].concat();
    let (constrained, high) = ([0x67, 0x42, 0xc0, 0x1e, 0x80], [0x67, 0x64, 0, 0x28, 0x80]);
    h264.plain(0, 0, &keyframe(&constrained));
    assert_eq!(reported(&mut h264), ["Constrained Baseline (42c01e)"], "whatever the description says");
    h264.plain(1, 3_000, SLICE);
    h264.plain(2, 6_000, &keyframe(&constrained));
    assert!(reported(&mut h264).is_empty());
    h264.plain(3, 9_000, &keyframe(&high));
    assert_eq!(reported(&mut h264), ["High (640028)"]);
    // Until the stream has said anything, the parameter sets of the description stand for it.
    let mut h264 = H264::new("sprop-parameter-sets=Z0LAHukDgSgA,aM4BqDUg;profile-level-id=640028");
    h264.send(0, 0, IDR);
    assert_eq!(reported(&mut h264), ["Constrained Baseline (42c01e)"]);
}

// F-13: each report concerns all viewers.
#[test]
fn a_stream_whose_profile_changes_all_the_time_is_reported_now_and_then() {
    let mut h264 = H264::new("");
    let mut reports = 0;
    for keyframe in 0..400_u16 {
        h264.harness.ms = 25 * u64::from(keyframe);
        let sps = [0x67, 0x42, 0xc0, 0x10 + (keyframe % 2) as u8, 0x80];
        let packet = [&[0x78, 0, 5][..], &sps, &[0, 2], PPS, &[0, 2], IDR].concat();
        h264.plain(keyframe, 3_000 * u32::from(keyframe), &packet);
        let now = h264.harness.now();
        reports += h264.harness.ingest.take_format_changes(now).len();
    }
    assert!((40..=50).contains(&reports), "in ten seconds: {reports}");
}
