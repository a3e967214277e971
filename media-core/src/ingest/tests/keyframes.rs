//! H.264: where keyframes start, the parameter sets that are inserted, and B-frames.

use super::*;

/// Sends H.264; of each packet that is cached it returns the number, whether viewers can start there, and the payload.
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
        let end = self.harness.tracks.encoding(TrackId::VIDEO, 0).unwrap().end();
        let accepted = self.harness.receive(&Packet { timestamp, ..Packet::video(1, sequence, payload) });
        let Ok(Accepted::Forward { sequence, keyframe, .. }) = accepted else { return Vec::new() };
        self.events += u32::from(keyframe);
        let cached = (end.min(sequence)..=sequence).filter_map(|sequence| self.harness.video(sequence));
        cached.map(|packet| (packet.info.sequence, packet.info.keyframe, packet.payload.to_vec())).collect()
    }

    /// Sends one packet that is forwarded unchanged; true if viewers can start there.
    fn plain(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) -> bool {
        let cached = self.send(sequence, timestamp, payload);
        assert_eq!(cached.len(), 1);
        assert_eq!(cached[0].2, payload);
        cached[0].1
    }
}

const AUD: &[u8] = &[0x09, 0x10];
const SEI: &[u8] = &[0x06, 0x05, 0x80];
const SPS: &[u8] = &[0x67, 0x42, 0, 0x1e, 0x80];
const PPS: &[u8] = &[0x68, 0xce];
const IDR: &[u8] = &[0x65, 0x88];
const IDR_SECOND_SLICE: &[u8] = &[0x65, 0x08];
const SLICE: &[u8] = &[0x41, 0x9a];

/// A keyframe in one packet (STAP-A).
fn with_sets() -> Vec<u8> {
    [&[0x78, 0, 5][..], SPS, &[0, 2], PPS, &[0, 2], IDR].concat()
}

// COD-10: OBS sends sets and slices in packets of their own.
#[test]
fn a_keyframe_in_several_packets_is_one_and_starts_at_its_parameter_sets() {
    let mut h264 = H264::new("");
    let packets = [(AUD, false), (SEI, false), (SPS, true), (PPS, false), (IDR, false), (IDR_SECOND_SLICE, false)];
    assert!(h264.plain(0, 0, SPS) && !h264.plain(1, 0, PPS) && !h264.plain(2, 0, IDR));
    for (keyframe, timestamp) in [(1, 3_000), (2, 6_000)] {
        for (index, (payload, starts)) in (0..).zip(packets) {
            assert_eq!(h264.plain(10 * keyframe + index, timestamp, payload), starts, "{index}");
        }
        assert_eq!(h264.events, 1 + u32::from(keyframe));
        assert!(!h264.plain(10 * keyframe + 6, timestamp + 1_500, SLICE));
    }
    // All in one packet, as browsers send it.
    assert!(h264.plain(40, 9_000, &with_sets()) && !h264.plain(41, 9_000, IDR_SECOND_SLICE));
}

// COD-10, RTCP-10: parameter sets are received out of order, after their frame.
#[test]
fn parameter_sets_received_out_of_order_become_the_start() {
    let mut h264 = H264::new("");
    h264.plain(0, 0, SPS);
    h264.plain(1, 0, PPS);
    h264.plain(2, 0, IDR);
    assert!(h264.plain(5, 3_000, IDR), "the sets may have been lost, and none are inserted");
    assert!(!h264.plain(4, 3_000, PPS));
    assert!(h264.plain(3, 3_000, SPS));
    assert_eq!(h264.events, 2);
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
    assert_eq!(h264.send(5, 9_000, &sps), [(9, true, sps.clone())]);
    assert_eq!(h264.send(6, 9_000, IDR), [(10, false, IDR.to_vec())]);
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
    assert_eq!(accepted, Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO }));
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
