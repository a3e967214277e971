//! Simulcast: several encodings of one section, told apart by rid or by SSRC.

use super::*;
use crate::media::SimulcastEncoding;

const RID: u8 = 6;
const REPAIRED: u8 = 7;
const MID_ELEMENT: (u8, &[u8]) = (MID, b"video");

/// Video whose encodings have these rids, on RTP streams of which nothing was declared.
pub(super) fn with_rids(rids: &[&str]) -> MediaSection {
    let mut section = video();
    section.extensions.set(Extension::RtpStreamId, RID);
    section.extensions.set(Extension::RepairedRtpStreamId, REPAIRED);
    let encoding = |rid: &&str| SimulcastEncoding { rid: Some((*rid).into()), ..SimulcastEncoding::default() };
    section.simulcast = rids.iter().map(encoding).collect();
    section
}

/// Video whose encodings have these SSRCs, each with that of its RTX (`a=ssrc-group:SIM`, `a=ssrc-group:FID`).
fn with_ssrcs(ssrcs: &[(u32, u32)]) -> MediaSection {
    let encoding = |&(ssrc, _): &(u32, u32)| SimulcastEncoding { ssrc: Some(ssrc), ..SimulcastEncoding::default() };
    MediaSection {
        simulcast: ssrcs.iter().map(encoding).collect(),
        declared_ssrcs: ssrcs.iter().map(|&(media, rtx)| (media, Some(rtx))).collect(),
        ..video()
    }
}

fn rtx<'a>(ssrc: u32, sequence: u16, payload: &'a [u8]) -> Packet<'a> {
    Packet { payload_type: 97, ..Packet::video(ssrc, sequence, payload) }
}

impl Harness {
    /// The encoding and the number under which a packet is forwarded.
    fn placed(&mut self, packet: &Packet<'_>) -> (u8, u64) {
        match self.receive(packet) {
            Ok(Accepted::Forward { encoding, sequence, .. }) => (encoding, sequence),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// A keyframe of each encoding, from SSRCs 1, 2, …, under their rids.
    fn begin(&mut self, rids: &[&str]) {
        for (ssrc, rid) in (1..).zip(rids) {
            let packet = Packet::video(ssrc, 10, KEYFRAME);
            assert_eq!(self.placed(&packet.with(&[MID_ELEMENT, (RID, rid.as_bytes())])).0, ssrc as u8 - 1);
        }
    }

    fn cached_in(&self, encoding: u8) -> Vec<(u64, Vec<u8>)> {
        let encoding = self.tracks.encoding(TrackId::VIDEO, encoding).unwrap();
        let packets = (0..encoding.end()).filter_map(|sequence| encoding.packet(sequence));
        packets.map(|packet| (packet.info.sequence, packet.payload.to_vec())).collect()
    }

    fn request_of(&self, encoding: u8) -> Option<KeyframeRequest> {
        self.ingest.keyframe_request(TrackId::VIDEO, encoding)
    }
}

// WHIP-29, SDP-45, Q-06, EXT-H04: rids as browsers and as OBS have them.
#[test]
fn each_rid_fills_an_encoding_of_its_own_and_is_learnt_once() {
    for rids in [["q", "h", "f"], ["0", "1", "2"], ["hi", "mid", "lo"]] {
        let mut harness = Harness::new(&[audio(), with_rids(&rids)]);
        harness.begin(&rids);
        // Rids come with the first packets only; each stream has numbers of its own.
        for (ssrc, encoding) in [(3, 2), (1, 0), (2, 1), (3, 2)] {
            let sequence = 11 + harness.cached_in(encoding).len() as u16 - 1;
            let payload = [0x10, 0x01, ssrc as u8, sequence as u8];
            assert_eq!(harness.placed(&Packet::video(ssrc, sequence, &payload)), (encoding, u64::from(sequence) - 10));
        }
        assert_eq!([0, 1, 2].map(|encoding| harness.cached_in(encoding).len()), [2, 2, 3]);
        let packet = harness.tracks.encoding(TrackId::VIDEO, 1).unwrap().packet(0).unwrap();
        assert!(packet.extensions.is_empty(), "a rid is for this hop alone");
        // Reports for each of them.
        let (mut ssrcs, now) = (Vec::new(), harness.now());
        harness.ingest.report_blocks(now, |block| ssrcs.push(block.ssrc));
        assert_eq!(ssrcs, [1, 2, 3]);
    }
}

// WHIP-29
#[test]
fn packets_of_no_known_encoding_are_refused() {
    let mut harness = Harness::new(&[with_rids(&["q", "h"])]);
    let refused = Err(DropReason::UnknownRtpStream);
    assert_eq!(harness.receive(&Packet::video(1, 1, KEYFRAME)), refused, "no rid");
    assert_eq!(harness.receive(&Packet::video(1, 2, KEYFRAME).with(&[(RID, b"x")])), refused, "none of the answer's");
    assert_eq!(harness.receive(&Packet::video(1, 3, KEYFRAME).with(&[(REPAIRED, b"q")])), refused, "that of an RTX");
    assert_eq!(harness.receive(&rtx(9, 1, &[0, 5, 1, 2])), Ok(Accepted::Consumed));
    assert_eq!(harness.placed(&Packet::video(1, 4, KEYFRAME).with(&[(RID, b"h")])), (1, 0));
}

// SDP-44: `pt=` of a rid.
#[test]
fn an_encoding_takes_the_payload_types_of_its_rid_alone() {
    let mut section = with_rids(&["q", "h"]);
    section.simulcast[1].payload_types = vec![98];
    let mut harness = Harness::new(&[section]);
    let packet = Packet::video(1, 1, KEYFRAME).with(&[(RID, b"h")]);
    assert_eq!(harness.receive(&packet), Err(DropReason::UnknownRtpStream));
    assert_eq!(harness.placed(&Packet { payload_type: 98, ..packet }), (1, 0));
}

// SDP-43: a description that has been changed by hand.
#[test]
fn declared_ssrcs_need_no_rid_and_their_rtx_no_name() {
    let mut harness = Harness::new(&[audio(), with_ssrcs(&[(21, 31), (22, 32)])]);
    assert_eq!(harness.placed(&Packet::video(22, 10, KEYFRAME)), (1, 0));
    assert_eq!(harness.placed(&Packet::video(21, 10, KEYFRAME)), (0, 0));
    assert_eq!(harness.placed(&Packet::video(22, 12, DELTA)), (1, 2));
    let payload = [0, 11, 0x10, 0x01, 7];
    assert_eq!(
        harness.receive(&rtx(31, 1, &payload)),
        Ok(Accepted::Forward { track: TrackId::VIDEO, encoding: 0, sequence: 1, keyframe: false, decodable: true })
    );
    assert_eq!(harness.placed(&rtx(32, 1, &payload)), (1, 1));
    assert_eq!(harness.cached_in(1)[1], (1, payload[2..].to_vec()));
}

// WHIP-29, RTCP-09, RTCP-10: by repaired-rtp-stream-id.
#[test]
fn losses_are_requested_and_repaired_encoding_by_encoding() {
    let mut harness = Harness::new(&[with_rids(&["q", "h"])]);
    harness.begin(&["q", "h"]);
    for ssrc in [1, 2] {
        harness.placed(&Packet::video(ssrc, 12, DELTA));
    }
    harness.placed(&Packet::video(1, 14, DELTA));
    harness.ms += 10;
    assert_eq!(harness.nacks(), [(1, vec![11, 13]), (2, vec![11])]);
    let payload = [0, 11, 0x10, 0x01, 7];
    assert_eq!(harness.placed(&rtx(12, 1, &payload).with(&[(REPAIRED, b"h")])), (1, 1));
    assert_eq!(harness.placed(&rtx(11, 1, &payload).with(&[(REPAIRED, b"q")])), (0, 1));
    // Learnt once, as with media.
    assert_eq!(harness.placed(&rtx(11, 2, &[0, 13, 0x10, 0x01, 8])), (0, 3));
    harness.ms += 500;
    assert!(harness.nacks().is_empty());
}

// RTCP-10: RFC 4588 §5.3.
#[test]
fn an_rtx_stream_without_a_name_repairs_the_encoding_that_lacks_its_packet() {
    let mut harness = Harness::new(&[with_rids(&["q", "h"])]);
    harness.begin(&["q", "h"]);
    harness.placed(&Packet::video(1, 12, DELTA));
    harness.placed(&Packet::video(2, 12, DELTA));
    harness.placed(&Packet::video(2, 14, DELTA));
    harness.ms += 10;
    assert_eq!(harness.nacks().len(), 2);
    let payload = |number| [0, number, 0x10, 0x01, 7];
    assert_eq!(harness.receive(&rtx(12, 1, &payload(11))), Ok(Accepted::Consumed), "both lack it");
    assert_eq!(harness.placed(&rtx(12, 2, &payload(13))), (1, 3));
    assert_eq!(harness.placed(&rtx(12, 3, &payload(11))), (1, 1));
    assert_eq!(harness.placed(&rtx(11, 1, &payload(11))), (0, 1), "now only one does");
}

// RTCP-11, WHEP-16
#[test]
fn an_encoding_without_a_keyframe_holds_no_other_one() {
    let mut harness = Harness::new(&[with_rids(&["q", "h", "f"])]);
    let awaiting = |encoding| Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding });
    let delta = |ssrc, sequence| Packet::video(ssrc, sequence, DELTA);
    assert_eq!(harness.receive(&delta(3, 5).with(&[(RID, b"f")])), awaiting(2));
    harness.ms += 10;
    assert_eq!(harness.receive(&delta(2, 5).with(&[(RID, b"h")])), awaiting(1));
    let (_, reception) = harness.ingest.receptions().next().unwrap();
    assert_eq!((reception.last, reception.undecodable_since), (Some(harness.now()), Some(harness.start)));
    assert_eq!(harness.placed(&Packet::video(2, 6, KEYFRAME)), (1, 0));
    assert_eq!(harness.receive(&delta(3, 6)), awaiting(2));
    assert_eq!(harness.placed(&delta(2, 7)), (1, 1));
    let (_, reception) = harness.ingest.receptions().next().unwrap();
    assert_eq!(reception.undecodable_since, None, "the track can be decoded");
    let requests = [0, 1, 2].map(|encoding| harness.request_of(encoding));
    assert_eq!(requests, [None, Some(KeyframeRequest::Pli { ssrc: 2 }), Some(KeyframeRequest::Pli { ssrc: 3 })]);
    assert!(harness.ingest.takes_keyframe_requests(TrackId::VIDEO));
    assert_eq!(harness.placed(&Packet::video(3, 7, KEYFRAME)), (2, 0), "what was withheld leaves no gap");
}

// RTP-03
#[test]
fn another_ssrc_under_the_same_rid_takes_its_place_at_once() {
    let mut harness = Harness::new(&[with_rids(&["q", "h"])]);
    harness.begin(&["q", "h"]);
    assert_eq!(harness.placed(&Packet::video(7, 500, KEYFRAME).with(&[(RID, b"h")])), (1, 1));
    assert_eq!(harness.receive(&Packet::video(2, 11, DELTA)), Err(DropReason::UnknownRtpStream));
    assert_eq!(harness.placed(&Packet::video(7, 501, DELTA)), (1, 2));
    assert_eq!(harness.placed(&Packet::video(1, 11, DELTA)), (0, 1));
    assert_eq!(harness.request_of(1), Some(KeyframeRequest::Pli { ssrc: 7 }));
    harness.ingest.on_bye(1);
    assert_eq!((harness.request_of(0), harness.request_of(1).is_some()), (None, true), "BYE ends one alone");
}

// Q-07, RTCP-09: OBS 32 answers for its top layer only.
#[test]
fn a_layer_whose_losses_are_not_repaired_is_given_up_early_and_needs_a_keyframe() {
    let rids = ["0", "1"];
    let mut harness = Harness::new(&[with_rids(&rids)]);
    harness.begin(&rids);
    let mut requested = [0, 0];
    let mut late = [0, 0];
    let mut keyframes_needed = Vec::new();
    for number in 11..4_000_u16 {
        // One packet in forty is lost, of either layer.
        for ssrc in [1, 2] {
            if number % 40 != 0 {
                let _ = harness.receive(&Packet::video(ssrc, number, DELTA));
            }
        }
        harness.ms += 10;
        for (ssrc, numbers) in harness.nacks() {
            let counts = if number < 2_000 { &mut requested } else { &mut late };
            counts[ssrc as usize - 1] += numbers.len();
            for sequence in numbers.into_iter().filter(|_| ssrc == 1) {
                harness.placed(&Packet::video(1, sequence, DELTA));
            }
        }
        keyframes_needed.extend(harness.ingest.take_keyframes_needed());
    }
    let [answered, given_up] = requested;
    assert!(answered == 49 && given_up > 54, "several requests at first: {answered} {given_up}");
    assert_eq!(late, [50, 50], "one each");
    assert!(keyframes_needed.len() >= 95 && keyframes_needed.iter().all(|needed| *needed == (TrackId::VIDEO, 1)));
}

// RTP-15
#[test]
fn the_numbers_of_every_encoding_go_on_with_another_publisher() {
    let mut harness = Harness::new(&[with_rids(&["q", "h"])]);
    harness.begin(&["q", "h"]);
    harness.placed(&Packet::video(2, 11, DELTA));
    harness.ms += 1_000;
    harness.restart(&[video()]);
    assert_eq!(harness.placed(&Packet::video(5, 70, KEYFRAME)), (0, 1), "one without simulcast");
    harness.ms += 1_000;
    harness.restart(&[with_rids(&["f", "h", "q"])]);
    harness.begin(&["f", "h", "q"]);
    let ends = [0, 1, 2].map(|encoding| harness.tracks.encoding(TrackId::VIDEO, encoding).unwrap().end());
    assert_eq!(ends, [3, 3, 1]);
    assert!(harness.tracks.encoding(TrackId::VIDEO, 3).is_none());
}
