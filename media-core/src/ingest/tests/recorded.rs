//! Recorded RTP of real encoders, and where FFmpeg's decoders could start in it; `tests/recorded/make.py` made both.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::rtp::codec::parameter_sets::ParameterSets;
use crate::rtp::codec::{Start, start};
use crate::stream::Encoding;

/// A frame, in the order of sending.
struct Frame {
    packets: Vec<Vec<u8>>,
    /// A decoder that starts here shows what one does that saw everything.
    is_clean: bool,
    /// FFmpeg calls it a keyframe.
    is_named_keyframe: bool,
}

fn recorded(name: &str) -> Vec<Frame> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let bytes = fs::read(folder.join(name).with_extension("rtp")).unwrap();
    let mut rest = &bytes[..];
    let mut packet = || {
        let (&length, after) = rest.split_first_chunk::<2>().unwrap();
        let (packet, after) = after.split_at(usize::from(u16::from_be_bytes(length)));
        rest = after;
        packet.to_vec()
    };
    let account = fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
    let frame = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let packets: Vec<_> = (0..fields[1].parse().unwrap()).map(|_| packet()).collect();
        let timestamp: u32 = fields[0].parse().unwrap();
        assert!(packets.iter().all(|packet| RtpHeader::parse(packet).unwrap().timestamp == timestamp));
        Frame { packets, is_clean: fields[3] == "clean", is_named_keyframe: fields[2].ends_with('K') }
    };
    let frames = account.lines().map(frame).collect();
    assert!(rest.is_empty(), "the account of {name} is another recording's");
    frames
}

fn receive(harness: &mut Harness, frame: &Frame) -> Vec<Result<Accepted, DropReason>> {
    harness.ms += 66;
    let arrival = harness.arrival();
    frame.packets.iter().map(|packet| harness.ingest.on_rtp(&arrival, packet, &mut harness.tracks)).collect()
}

fn encoding(harness: &Harness) -> &Encoding {
    harness.tracks.encoding(TrackId::VIDEO, 0).unwrap()
}

fn payloads(frame: &Frame) -> impl Iterator<Item = &[u8]> {
    frame.packets.iter().map(|packet| RtpHeader::parse(packet).unwrap().payload(packet))
}

/// Name, codec, keyframes, recovery points that are none.
const STREAMS: [(&str, Codec, usize, usize); 11] = [
    ("x264", Codec::H264, 3, 0),
    ("x264-bframes", Codec::H264, 3, 0),
    ("x264-open-gop", Codec::H264, 1, 2),
    ("x264-intra-refresh", Codec::H264, 1, 2),
    ("x265-idr", Codec::H265, 3, 0),
    ("x265-cra", Codec::H265, 3, 0),
    ("x265-intra-refresh", Codec::H265, 1, 0),
    ("vp8", Codec::Vp8, 3, 0),
    ("vp9", Codec::Vp9, 3, 0),
    ("av1-libaom", Codec::Av1, 3, 0),
    ("av1-svt", Codec::Av1, 3, 0),
];

// F-03, COD-05, COD-08, COD-10, COD-14, COD-15
#[test]
fn viewers_start_where_a_real_decoder_can_and_nowhere_else() {
    for (name, codec, keyframes, recovery_points) in STREAMS {
        let frames = recorded(name);
        let mut harness = Harness::new(&[section(MediaKind::Video, vec![format(96, codec, None)])]);
        let (mut counted, mut next) = (0, 0);
        for (index, frame) in frames.iter().enumerate() {
            let accepted = receive(&mut harness, frame);
            let forwarded = accepted.iter().filter(|got| matches!(got, Ok(Accepted::Forward { .. }))).count();
            // Of the very first frame not the SEI in front.
            assert!(forwarded == accepted.len() || index == 0, "{name} {index}: {accepted:?}");
            let new = accepted.iter().filter(|got| matches!(got, Ok(Accepted::Forward { keyframe: true, .. })));
            assert_eq!(new.count(), usize::from(frame.is_clean), "{name} {index}");
            counted += usize::from(frame.is_clean);
            let first = std::mem::replace(&mut next, encoding(&harness).end());
            let begins_here = encoding(&harness).start(harness.now()).is_some_and(|start| start.sequence == first);
            assert_eq!(begins_here, frame.is_clean, "{name} {index}");
            // With all that a decoder needs: nothing was inserted.
            assert_eq!(next - first, forwarded as u64);
            if let Some(mut sets) = ParameterSets::of(&format(96, codec, None)).filter(|_| frame.is_clean) {
                for payload in payloads(frame) {
                    sets.learn(payload);
                }
                assert!(sets.complete().count() > 0, "{name} {index}");
            }
        }
        assert_eq!(counted, keyframes, "{name}");
        let announced = |frame: &&Frame| payloads(frame).any(|payload| start(codec, payload) == Start::RecoveryPoint);
        let announced: Vec<_> = frames.iter().filter(announced).collect();
        assert_eq!(announced.len(), recovery_points, "{name}");
        assert!(announced.iter().all(|frame| !frame.is_clean), "{name}");
        // FFmpeg takes a recovery point for a keyframe if it holds from its own picture on; its decoder cannot start there.
        let named = frames.iter().filter(|frame| frame.is_named_keyframe).count();
        assert_eq!(named, if name == "x264-open-gop" { 3 } else { keyframes }, "{name}");
    }
}

// F-03: whoever joins later, where the publisher does not answer, starts at a recovery point.
#[test]
fn a_recording_without_its_keyframe_starts_at_a_recovery_point_if_no_keyframe_can_be_had() {
    for name in ["x264-intra-refresh", "x264-open-gop"] {
        for is_ignored in [false, true] {
            let frames = recorded(name);
            let mut harness = Harness::new(&[section(MediaKind::Video, vec![format(96, Codec::H264, None)])]);
            harness.tracks.encoding_mut(TrackId::VIDEO, 0).unwrap().keyframe_requests.set_ignored(is_ignored);
            let mut started = Vec::new();
            for (index, frame) in frames.iter().enumerate().skip(1) {
                let accepted = receive(&mut harness, frame);
                assert!(!accepted.iter().any(|got| matches!(got, Ok(Accepted::Forward { keyframe: true, .. }))));
                if started.is_empty() && encoding(&harness).start(harness.now()).is_some() {
                    let first = encoding(&harness).latest_keyframe().unwrap();
                    assert!(harness.video(first).unwrap().payload == payloads(frame).next().unwrap(), "with its sets");
                    started.push(index);
                }
            }
            let expected = if name == "x264-open-gop" { 13 } else { 15 };
            assert_eq!(started, if is_ignored { vec![expected] } else { vec![] }, "{name}");
        }
    }
}
