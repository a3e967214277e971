//! An encoder goes on under another SSRC, without MID.

use super::*;

const H264_FRAMES: [&[&[u8]]; 2] = [&[&[0x67, 0x42, 0, 0x1e, 0x80], &[0x68, 0xce], &[0x65, 0x88]], &[&[0x41, 0x9a]]];
const VP8_FRAMES: [&[&[u8]]; 2] = [&[KEYFRAME], &[DELTA]];

/// A keyframe and nine other frames of one SSRC; what became of each packet.
fn send(harness: &mut Harness, ssrc: u32, frames: [&[&[u8]]; 2]) -> Vec<Result<Accepted, DropReason>> {
    let mut accepted = Vec::new();
    let mut sequence = 7_000 * ssrc as u16;
    for frame in 0..10 {
        for payload in frames[usize::from(frame > 0)] {
            let timestamp = (harness.ms * 90) as u32;
            accepted.push(harness.receive(&Packet { timestamp, ..Packet::video(ssrc, sequence, payload) }));
            sequence = sequence.wrapping_add(1);
        }
        harness.ms += 33;
    }
    accepted
}

// F-17, RTP-03: it may be the only keyframe for seconds.
#[test]
fn the_keyframe_with_which_a_new_ssrc_begins_is_used_however_soon_it_comes() {
    for (codec, frames) in [(Codec::Vp8, VP8_FRAMES), (Codec::H264, H264_FRAMES)] {
        let mut harness = Harness::new(&[audio(), section(MediaKind::Video, vec![format(96, codec, Some(97))])]);
        let packets = send(&mut harness, 1, frames).len() as u64;
        for (ssrc, pause) in (2..).zip([0, 1, 30, 199, 5_000]) {
            // The last frame before it came one frame interval less this ago.
            harness.ms = harness.ms - 33 + pause;
            let first = packets * u64::from(ssrc - 1);
            let accepted = send(&mut harness, ssrc, frames);
            let sequence = |accepted: &Result<Accepted, DropReason>| match accepted {
                Ok(Accepted::Forward { sequence, .. }) => *sequence,
                other => panic!("{codec} after {pause} ms: {other:?}"),
            };
            let sequences: Vec<u64> = accepted.iter().map(sequence).collect();
            assert_eq!(sequences, (first..first + packets).collect::<Vec<_>>(), "{codec} after {pause} ms");
            let keyframes = accepted.iter().filter(|got| matches!(got, Ok(Accepted::Forward { keyframe: true, .. })));
            assert_eq!(keyframes.count(), 1);
            let encoding = harness.tracks.encoding(TrackId::VIDEO, 0).unwrap();
            assert_eq!(encoding.start(harness.now()).map(|start| start.sequence), Some(first));
        }
    }
}

// F-17, RTP-03: two encoders on one section.
#[test]
fn two_ssrcs_without_mid_that_both_send_keyframes_replace_each_other_once() {
    let mut harness = Harness::new(&[video()]);
    let mut forwarded = Vec::new();
    for sequence in 0..200 {
        for ssrc in [1, 2] {
            let payload = if sequence % 10 == 0 { KEYFRAME } else { DELTA };
            if harness.receive(&Packet::video(ssrc, sequence, payload)).is_ok() {
                forwarded.push(ssrc);
            }
        }
        harness.ms += 33;
    }
    forwarded.dedup();
    assert_eq!(forwarded, [1, 2]);
}

// F-17: a switch between two sources with SSRCs of their own, whose frames begin with a delimiter.
#[test]
fn an_ssrc_that_comes_back_with_a_keyframe_after_silence_is_taken_at_once() {
    let mut harness = Harness::new(&[section(MediaKind::Video, vec![format(96, Codec::H264, Some(97))])]);
    let frames = [&[&[0x09, 0x10][..], H264_FRAMES[0][0], H264_FRAMES[0][1], H264_FRAMES[0][2]][..], H264_FRAMES[1]];
    let mut keyframes = 0;
    for turn in 0..6 {
        let accepted = send(&mut harness, 1 + turn % 2, frames);
        let refused = accepted.iter().filter(|accepted| accepted.is_err()).count();
        assert!(refused <= 1, "no more than the delimiter: {accepted:?}");
        keyframes += accepted.iter().filter(|got| matches!(got, Ok(Accepted::Forward { keyframe: true, .. }))).count();
        harness.ms -= 30;
    }
    assert_eq!(keyframes, 6);
}

// F-17: where its keyframe was not seen another one is asked for with its first packet.
#[test]
fn a_new_ssrc_that_begins_without_a_keyframe_is_taken_after_silence_and_asked_for_one() {
    let mut harness = Harness::new(&[video()]);
    harness.forwarded(&Packet::video(1, 10, KEYFRAME));
    assert_eq!(harness.receive(&Packet::video(2, 900, DELTA)), Err(DropReason::UnknownRtpStream));
    harness.ms += 200;
    let awaiting = Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 });
    assert_eq!(harness.receive(&Packet::video(2, 901, DELTA)), awaiting);
    assert_eq!(harness.ingest.keyframe_request(TrackId::VIDEO, 0), Some(KeyframeRequest::Pli { ssrc: 2 }));
}

// F-17, RTP-03: a stray packet is no new source, two in order are.
#[test]
fn a_new_audio_ssrc_is_taken_with_its_second_packet_in_order() {
    let mut harness = Harness::new(&[audio()]);
    harness.forwarded(&Packet::audio(1, 10));
    for sequence in [500, 400, 402] {
        assert_eq!(harness.receive(&Packet::audio(2, sequence)), Err(DropReason::UnknownRtpStream));
    }
    assert_eq!(harness.forwarded(&Packet::audio(2, 403)).0, 1);
    assert_eq!(harness.receive(&Packet::audio(1, 11)), Err(DropReason::UnknownRtpStream));
    assert_eq!(harness.receive(&Packet::audio(1, 12)), Err(DropReason::UnknownRtpStream), "it was taken before");
    assert_eq!(harness.forwarded(&Packet::audio(2, 404)).0, 2);
}
