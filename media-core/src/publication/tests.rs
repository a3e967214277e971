use super::extensions::MAX_EXTENSIONS;
use super::*;
use crate::media::{Codec, ExtensionMap, Feedback};
use crate::rtcp::{NtpTime, RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo};
use crate::rtp::{HeaderFields, write_header};

pub(super) const START_UNIX: Duration = Duration::from_secs(1_800_000_000);
/// VP8: a payload descriptor with S=1, then the first byte of a keyframe or of another frame.
pub(super) const KEYFRAME: &[u8] = &[0x10, 0x00, 1, 2, 3];
pub(super) const DELTA: &[u8] = &[0x10, 0x01, 4, 5];
const MID: u8 = 4;
const WIDE: u8 = 5;
const ROTATION: u8 = 9;

pub(super) fn format(payload_type: u8, codec: Codec, rtx_payload_type: Option<u8>) -> Format {
    let video = codec.kind() == MediaKind::Video;
    let feedback = Feedback { nack: video, pli: video, transport_cc: true, ..Feedback::default() };
    Format { rtx_payload_type, feedback, ..Format::new(payload_type, codec) }
}

pub(super) fn section(kind: MediaKind, formats: Vec<Format>) -> MediaSection {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, MID);
    extensions.set(Extension::TransportCc, WIDE);
    extensions.set(Extension::VideoOrientation, ROTATION);
    MediaSection {
        mid: kind.as_str().into(),
        kind,
        formats,
        extensions,
        reduced_size_rtcp: true,
        declared_ssrcs: Vec::new(),
        send_ssrcs: None,
    }
}

pub(super) fn audio() -> MediaSection {
    section(MediaKind::Audio, vec![format(111, Codec::Opus, None)])
}

pub(super) fn video() -> MediaSection {
    section(MediaKind::Video, vec![format(96, Codec::Vp8, Some(97)), format(98, Codec::Vp8, None)])
}

pub(super) struct Packet<'a> {
    pub(super) ssrc: u32,
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) elements: &'a [(u8, &'a [u8])],
    pub(super) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    pub(super) fn video(ssrc: u32, sequence: u16, payload: &'a [u8]) -> Packet<'a> {
        Packet {
            ssrc,
            payload_type: 96,
            sequence,
            timestamp: u32::from(sequence).wrapping_mul(3_000),
            elements: &[],
            payload,
        }
    }

    pub(super) fn audio(ssrc: u32, sequence: u16) -> Packet<'a> {
        let timestamp = u32::from(sequence) * 960;
        Packet { ssrc, payload_type: 111, sequence, timestamp, elements: &[], payload: b"opus" }
    }

    pub(super) fn with(self, elements: &'a [(u8, &'a [u8])]) -> Packet<'a> {
        Packet { elements, ..self }
    }
}

pub(super) struct Stage {
    pub(super) publication: Publication,
    pub(super) tracks: [Track; 2],
    pub(super) start: Instant,
    pub(super) ms: u64,
}

impl Stage {
    pub(super) fn new(sections: &[MediaSection]) -> Stage {
        let start = Instant::now();
        let tracks = [Track::new(MediaKind::Audio), Track::new(MediaKind::Video)];
        Stage { publication: Publication::new(start, sections), tracks, start, ms: 0 }
    }

    /// Another publisher takes the stream over.
    pub(super) fn restart(&mut self, sections: &[MediaSection]) {
        self.publication = Publication::new(self.now(), sections);
        for track in &mut self.tracks {
            track.end_publication();
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    pub(super) fn unix(&self) -> Duration {
        START_UNIX + Duration::from_millis(self.ms)
    }

    pub(super) fn receive(&mut self, packet: &Packet<'_>) -> Result<Accepted, DropReason> {
        let mut bytes = vec![0; 1500];
        let fields = HeaderFields {
            marker: true,
            padding: false,
            payload_type: packet.payload_type,
            sequence_number: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
        };
        let header = write_header(&mut bytes, &fields, packet.elements.iter().copied()).unwrap();
        bytes.truncate(header);
        bytes.extend_from_slice(packet.payload);
        let (now, unix) = (self.now(), self.unix());
        self.publication.on_rtp(now, unix, &bytes, &mut self.tracks)
    }

    /// The stream's number and time of a packet that is forwarded.
    pub(super) fn forwarded(&mut self, packet: &Packet<'_>) -> (u64, u32) {
        let accepted = self.receive(packet);
        let Ok(Accepted::Forward { kind, sequence, .. }) = accepted else { panic!("not forwarded: {accepted:?}") };
        let cached = self.tracks[kind.index()].cache.get(sequence).unwrap();
        assert_eq!(cached.payload, packet.payload);
        (sequence, cached.info.timestamp)
    }

    pub(super) fn nacks(&mut self) -> Vec<(u32, Vec<u16>)> {
        let mut asked = Vec::new();
        let now = self.now();
        self.publication.poll_nack(now, |ssrc, numbers| asked.push((ssrc, numbers.to_vec())));
        asked
    }

    pub(super) fn arrivals(&mut self) -> Vec<u16> {
        let mut numbers = Vec::new();
        let now = self.now();
        self.publication
            .poll_arrivals(now, |_, arrivals| numbers = arrivals.iter().map(|&(number, _)| number).collect());
        numbers
    }
}

// WHEP-16, RTP-07
#[test]
fn video_begins_at_its_first_keyframe_and_audio_at_once() {
    let mut stage = Stage::new(&[audio(), video()]);
    assert_eq!(stage.receive(&Packet::video(1, 10, DELTA)), Ok(Accepted::AwaitingKeyframe));
    assert_eq!(stage.forwarded(&Packet::audio(2, 500)).0, 0);
    let first = Accepted::Forward { kind: MediaKind::Video, sequence: 0, keyframe: true, new_format: Some(96) };
    assert_eq!(stage.receive(&Packet::video(1, 11, KEYFRAME)), Ok(first));
    assert_eq!(stage.forwarded(&Packet::video(1, 12, DELTA)).0, 1);
}

// RTP-02
#[test]
fn packets_find_their_section_by_mid_then_ssrc_then_payload_type() {
    let mut odd = video();
    odd.formats[0].payload_type = 111;
    let mut stage = Stage::new(&[audio(), odd]);
    let ambiguous = Packet { payload_type: 111, ..Packet::video(7, 1, KEYFRAME) };
    assert_eq!(stage.receive(&ambiguous), Err(DropReason::UnknownRtpStream));
    let named = Packet { payload_type: 111, ..Packet::video(7, 2, KEYFRAME) }.with(&[(MID, b"video")]);
    assert!(matches!(stage.receive(&named), Ok(Accepted::Forward { kind: MediaKind::Video, .. })));
    let known = Packet { payload_type: 111, ..Packet::video(7, 3, DELTA) };
    assert!(matches!(stage.receive(&known), Ok(Accepted::Forward { kind: MediaKind::Video, .. })));
    assert_eq!(stage.receive(&Packet { payload_type: 50, ..known }), Err(DropReason::UnknownRtpStream));
}

#[test]
fn a_publisher_of_one_kind_is_taken_and_the_other_kind_is_nobodys() {
    let mut stage = Stage::new(&[audio()]);
    assert_eq!(stage.forwarded(&Packet::audio(2, 1)).0, 0);
    assert_eq!(stage.receive(&Packet::video(1, 1, KEYFRAME)), Err(DropReason::UnknownRtpStream));
    assert!(stage.publication.keyframe_request().is_none());
    let mut stage = Stage::new(&[video()]);
    assert_eq!(stage.forwarded(&Packet::video(1, 1, KEYFRAME)).0, 0);
    assert_eq!(stage.receive(&Packet::audio(2, 1)), Err(DropReason::UnknownRtpStream));
    assert_eq!(stage.publication.keyframe_request(), Some(KeyframeRequest::Pli { ssrc: 1 }));
}

// RTP-15, RTP-06
#[test]
fn a_restarted_publisher_goes_on_in_numbers_and_time() {
    let mut stage = Stage::new(&[video()]);
    assert_eq!(stage.forwarded(&Packet::video(1, 65_535, KEYFRAME)).0, 0);
    let (last, time) = stage.forwarded(&Packet::video(1, 0, DELTA));
    assert_eq!(last, 1);
    stage.restart(&[video()]);
    assert!(stage.tracks[1].cache.get(1).is_none());
    stage.ms += 2_000;
    assert_eq!(stage.receive(&Packet::video(9, 40_000, DELTA)), Ok(Accepted::AwaitingKeyframe));
    let next = stage.forwarded(&Packet::video(9, 40_001, KEYFRAME));
    assert_eq!(next, (2, time.wrapping_add(180_000)));
}

// RTP-03
#[test]
fn a_new_source_is_taken_by_its_mid_or_after_silence_of_the_old_one() {
    let mut stage = Stage::new(&[video()]);
    stage.forwarded(&Packet::video(1, 10, KEYFRAME));
    assert_eq!(stage.receive(&Packet::video(2, 900, KEYFRAME)), Err(DropReason::UnknownRtpStream));
    assert_eq!(stage.forwarded(&Packet::video(3, 7, KEYFRAME).with(&[(MID, b"video")])).0, 1);
    stage.ms += 200;
    assert_eq!(stage.forwarded(&Packet::video(2, 901, KEYFRAME)).0, 2);
}

// RTP-03: simulcast that nobody negotiated, or two encoders on one section.
#[test]
fn two_sources_that_both_send_do_not_take_the_section_from_each_other() {
    let mut stage = Stage::new(&[video()]);
    let mid: &[(u8, &[u8])] = &[(MID, b"video")];
    stage.forwarded(&Packet::video(1, 0, KEYFRAME).with(mid));
    stage.forwarded(&Packet::video(2, 0, KEYFRAME).with(mid));
    for sequence in 1..100 {
        stage.ms += 10;
        let old = Packet::video(1, sequence, KEYFRAME).with(mid);
        assert_eq!(stage.receive(&old), Err(DropReason::UnknownRtpStream));
        assert_eq!(stage.forwarded(&Packet::video(2, sequence, DELTA).with(mid)).0, u64::from(sequence) + 1);
    }
    stage.ms += 200;
    assert_eq!(stage.forwarded(&Packet::video(1, 100, KEYFRAME).with(mid)).0, 101);
}

// RTP-07, RTP-05
#[test]
fn another_format_begins_at_its_keyframe_and_what_was_withheld_leaves_no_gap() {
    let mut stage = Stage::new(&[video()]);
    stage.forwarded(&Packet::video(1, 0, KEYFRAME));
    for sequence in 1..4 {
        let packet = Packet { payload_type: 98, ..Packet::video(1, sequence, DELTA) };
        assert_eq!(stage.receive(&packet), Ok(Accepted::AwaitingKeyframe));
    }
    let first = Accepted::Forward { kind: MediaKind::Video, sequence: 1, keyframe: true, new_format: Some(98) };
    assert_eq!(stage.receive(&Packet { payload_type: 98, ..Packet::video(1, 4, KEYFRAME) }), Ok(first));
}

// RTP-06
#[test]
fn another_clock_on_the_same_source_goes_on_by_the_time_that_passed() {
    let g722 = format(9, Codec::G722, None);
    let mut stage = Stage::new(&[section(MediaKind::Audio, vec![format(111, Codec::Opus, None), g722])]);
    let (_, first) = stage.forwarded(&Packet::audio(2, 1));
    stage.ms += 20;
    let other = Packet { payload_type: 9, timestamp: 3_000_000_000, ..Packet::audio(2, 2) };
    assert_eq!(stage.forwarded(&other), (1, first + 160));
    stage.ms += 20;
    assert_eq!(stage.forwarded(&Packet { timestamp: 3_000_000_160, sequence: 3, ..other }), (2, first + 320));
}

// RTP-09
#[test]
fn probes_are_counted_for_feedback_and_leave_no_gap() {
    let mut stage = Stage::new(&[video()]);
    stage.forwarded(&Packet::video(1, 0, KEYFRAME).with(&[(WIDE, &[0, 1])]));
    assert_eq!(stage.receive(&Packet::video(1, 1, &[]).with(&[(WIDE, &[0, 2])])), Ok(Accepted::Consumed));
    let rtx = Packet { payload_type: 97, ..Packet::video(5, 9, &[]) };
    assert_eq!(stage.receive(&rtx.with(&[(WIDE, &[0, 3])])), Ok(Accepted::Consumed));
    assert_eq!(stage.forwarded(&Packet::video(1, 2, DELTA).with(&[(WIDE, &[0, 4])])).0, 1);
    stage.ms += 100;
    assert_eq!(stage.arrivals(), [1, 2, 3, 4]);
}

// RTCP-09, RTCP-10
#[test]
fn a_lost_packet_is_asked_for_and_its_retransmission_finds_its_place() {
    let mut stage = Stage::new(&[video()]);
    stage.forwarded(&Packet::video(1, 65_534, KEYFRAME));
    stage.forwarded(&Packet::video(1, 1, DELTA));
    stage.ms += 10;
    assert_eq!(stage.nacks(), [(1, vec![65_535, 0])]);
    let mut payload = vec![0xff, 0xff];
    payload.extend_from_slice(DELTA);
    let rtx = Packet { payload_type: 97, timestamp: 65_535 * 3_000, ..Packet::video(5, 77, &payload) };
    let expected = Accepted::Forward { kind: MediaKind::Video, sequence: 1, keyframe: false, new_format: None };
    assert_eq!(stage.receive(&rtx), Ok(expected));
    let restored = stage.tracks[1].cache.get(1).unwrap();
    assert_eq!((restored.payload, restored.info.payload_type), (DELTA, 96));
    assert_eq!(stage.receive(&Packet { sequence: 78, ..rtx }), Ok(Accepted::Consumed), "a duplicate");
    stage.ms += 100;
    assert_eq!(stage.nacks(), [(1, vec![0])]);
}

// RTCP-10
#[test]
fn a_retransmission_of_another_source_is_not_mistaken_for_the_present_ones() {
    let mut section = video();
    section.declared_ssrcs = vec![(1, Some(11)), (2, Some(12))];
    let mut stage = Stage::new(&[section]);
    stage.forwarded(&Packet::video(2, 10, KEYFRAME));
    stage.forwarded(&Packet::video(2, 12, DELTA));
    let payload = [0, 11, 0x10, 0x01, 9];
    let rtx = Packet { payload_type: 97, ..Packet::video(11, 1, &payload) };
    assert_eq!(stage.receive(&rtx), Ok(Accepted::Consumed));
    assert!(stage.tracks[1].cache.get(1).is_none());
    assert!(matches!(stage.receive(&Packet { ssrc: 12, ..rtx }), Ok(Accepted::Forward { sequence: 1, .. })));
}

// COD-04
#[test]
fn red_is_kept_as_it_came_and_broken_red_is_dropped() {
    let red = Format { fmtp: "111/111".into(), ..format(63, Codec::Red, None) };
    let mut stage = Stage::new(&[section(MediaKind::Audio, vec![format(111, Codec::Opus, None), red])]);
    stage.forwarded(&Packet::audio(2, 1));
    let packet = |sequence, payload| Packet { payload_type: 63, payload, ..Packet::audio(2, sequence) };
    assert_eq!(stage.forwarded(&packet(2, &[0x80 | 111, 0x0f, 0, 1, 111, 7, 8])), (1, 1_920));
    for broken in [&[0x80 | 111, 0x0f, 0, 9, 111, 7, 8][..], &[0x80 | 96, 0x0f, 0, 1, 111, 7, 8], &[111]] {
        assert_eq!(stage.receive(&packet(3, broken)), Err(DropReason::MalformedRtp));
    }
    assert_eq!(stage.receive(&packet(4, &[])), Ok(Accepted::Consumed), "padding");
    assert_eq!(stage.forwarded(&packet(5, &[111, 8])), (3, 4_800));
}

// RTCP-18
#[test]
fn bye_lets_the_next_source_in_and_keeps_what_was_lost() {
    let mut stage = Stage::new(&[video()]);
    stage.forwarded(&Packet::video(1, 0, KEYFRAME));
    stage.forwarded(&Packet::video(1, 4, DELTA));
    assert_eq!(stage.publication.packets_lost(), 3);
    stage.publication.on_bye(99);
    assert_eq!(stage.receive(&Packet::video(2, 0, KEYFRAME)), Err(DropReason::UnknownRtpStream));
    stage.publication.on_bye(1);
    assert_eq!(stage.forwarded(&Packet::video(2, 100, KEYFRAME)).0, 5);
    assert_eq!(stage.publication.packets_lost(), 3);
}

/// Sends H.264 and says of each packet that is cached its number, whether viewers may begin there, and its payload.
struct H264 {
    stage: Stage,
    events: u32,
}

impl H264 {
    fn new(fmtp: &str) -> H264 {
        let format = Format { fmtp: fmtp.into(), ..format(96, Codec::H264, Some(97)) };
        H264 { stage: Stage::new(&[section(MediaKind::Video, vec![format])]), events: 0 }
    }

    fn send(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<(u64, bool, Vec<u8>)> {
        let head = self.stage.tracks[1].head();
        let accepted = self.stage.receive(&Packet { timestamp, ..Packet::video(1, sequence, payload) });
        let Ok(Accepted::Forward { sequence, keyframe, .. }) = accepted else { return Vec::new() };
        self.events += u32::from(keyframe);
        let cached = (head.min(sequence)..=sequence).filter_map(|sequence| self.stage.tracks[1].cache.get(sequence));
        cached.map(|packet| (packet.info.sequence, packet.info.keyframe, packet.payload.to_vec())).collect()
    }

    /// Sends one packet that is forwarded as it is; true if viewers may begin there.
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
fn a_keyframe_in_several_packets_is_one_and_begins_at_its_parameter_sets() {
    let mut h264 = H264::new("");
    let packets = [(AUD, false), (SEI, false), (SPS, true), (PPS, false), (IDR, false), (IDR_SECOND_SLICE, false)];
    assert!(h264.plain(0, 0, SPS) && !h264.plain(1, 0, PPS) && !h264.plain(2, 0, IDR));
    for (keyframe, timestamp) in [(1, 3_000), (2, 6_000)] {
        for (index, (payload, begins)) in (0..).zip(packets) {
            assert_eq!(h264.plain(10 * keyframe + index, timestamp, payload), begins, "{index}");
        }
        assert_eq!(h264.events, 1 + u32::from(keyframe));
        assert!(!h264.plain(10 * keyframe + 6, timestamp + 1_500, SLICE));
    }
    // All in one packet, as browsers send it.
    assert!(h264.plain(40, 9_000, &with_sets()) && !h264.plain(41, 9_000, IDR_SECOND_SLICE));
}

// COD-10, RTCP-10: sets that were lost on the way come behind the picture.
#[test]
fn parameter_sets_that_come_late_become_the_start() {
    let mut h264 = H264::new("");
    h264.plain(0, 0, SPS);
    h264.plain(1, 0, PPS);
    h264.plain(2, 0, IDR);
    assert!(h264.plain(5, 3_000, IDR), "the sets may have been lost, and none are made up");
    assert!(!h264.plain(4, 3_000, PPS));
    assert!(h264.plain(3, 3_000, SPS));
    assert_eq!(h264.events, 2);
}

// COD-11
#[test]
fn a_keyframe_without_parameter_sets_gets_those_of_the_description_in_front() {
    let mut h264 = H264::new("packetization-mode=1;sprop-parameter-sets=Z0IAHoA=,aM4=");
    let with_sets =
        |first: u64| [(first, true, SPS.to_vec()), (first + 1, false, PPS.to_vec()), (first + 2, false, IDR.to_vec())];
    assert_eq!(h264.send(0, 0, IDR), with_sets(0));
    assert_eq!(h264.send(1, 0, IDR_SECOND_SLICE), [(3, false, IDR_SECOND_SLICE.to_vec())]);
    assert_eq!(h264.send(3, 3_000, SLICE), [(5, false, SLICE.to_vec())]);
    assert_eq!(h264.send(4, 6_000, IDR), with_sets(6));
    let cached: Vec<_> = (6..9).map(|sequence| h264.stage.tracks[1].cache.get(sequence).unwrap().info).collect();
    assert!(cached.iter().all(|info| (info.timestamp, info.payload_type) == (6_000, 96)));
    assert_eq!(cached.iter().map(|info| info.marker).collect::<Vec<_>>(), [false, false, true]);
    // What was lost before keeps its place.
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

// COD-11, RTP-03: another encoder on the same session does not get the old one's sets.
#[test]
fn another_source_does_not_inherit_parameter_sets() {
    let mut h264 = H264::new("");
    for (sequence, payload) in (0..).zip([SPS, PPS, IDR]) {
        h264.plain(sequence, 0, payload);
    }
    assert_eq!(h264.send(3, 3_000, IDR).len(), 3);
    h264.stage.publication.on_bye(1);
    let accepted = h264.stage.receive(&Packet { timestamp: 0, ..Packet::video(2, 0, IDR) });
    // Without any no decoder could start.
    assert_eq!(accepted, Ok(Accepted::AwaitingKeyframe));
    let accepted = h264.stage.receive(&Packet { timestamp: 3_000, ..Packet::video(2, 1, &with_sets()) });
    assert!(matches!(accepted, Ok(Accepted::Forward { sequence: 6, .. })), "{accepted:?}");
}

// RTP-11
#[test]
fn b_frames_are_found_by_time_that_goes_back() {
    let mut h264 = H264::new("");
    // A lost packet that comes late, and a clock that is set once, are no B-frames.
    for (sequence, timestamp) in [(0, 9_000), (2, 15_000), (1, 12_000), (3, 18_000), (4, 3_000), (5, 6_000)] {
        h264.send(sequence, timestamp, &with_sets());
    }
    assert!(!h264.stage.publication.has_b_frames());
    for group in 1..4 {
        let time = u32::from(group) * 12_000;
        for (index, timestamp) in [(0, time + 9_000), (1, time + 3_000), (2, time + 6_000)] {
            h264.send(group * 3 + index + 3, timestamp, SLICE);
        }
    }
    assert!(h264.stage.publication.has_b_frames());
}

// EXT-H02, EXT-H04
#[test]
fn only_elements_for_viewers_are_kept() {
    let mut stage = Stage::new(&[video()]);
    let packet = Packet::video(1, 0, KEYFRAME).with(&[(MID, b"video"), (WIDE, &[0, 1]), (ROTATION, &[3]), (12, b"?")]);
    stage.forwarded(&packet);
    let cached = stage.tracks[1].cache.get(0).unwrap();
    let kept: Vec<_> = stored_extensions(cached.extensions).collect();
    assert_eq!(kept, [(Extension::VideoOrientation, &[3][..])]);
}

// EXT-H07, EXT-H08, EXT-H10
#[test]
fn what_elements_say_is_kept_and_what_makes_no_sense_is_not() {
    let mut section = video();
    for (extension, id) in [(Extension::AbsCaptureTime, 1), (Extension::AudioLevel, 2), (Extension::PlayoutDelay, 3)] {
        section.extensions.set(extension, id);
    }
    let mut stage = Stage::new(&[section]);
    let mut sequence = 0;
    let mut kept = |elements: &[(u8, &[u8])]| {
        stage.forwarded(&Packet { elements, ..Packet::video(1, sequence, KEYFRAME) });
        let cached = stage.tracks[1].cache.get(u64::from(sequence)).unwrap();
        sequence += 1;
        stored_extensions(cached.extensions).map(|(extension, data)| (extension, data.to_vec())).collect::<Vec<_>>()
    };
    for (id, extension, data) in [
        (1, Extension::AbsCaptureTime, &[0xee, 1, 2, 3, 4, 5, 6, 7][..]),
        (1, Extension::AbsCaptureTime, &[0xee, 1, 2, 3, 4, 5, 6, 7, 0xff, 0, 0, 1, 0, 0, 0, 0]),
        (2, Extension::AudioLevel, &[0x80 | 30]),
        (3, Extension::PlayoutDelay, &[0, 0, 0]),
        (3, Extension::PlayoutDelay, &[0x00, 0xa0, 0x0a]),
        (3, Extension::PlayoutDelay, &[0x00, 0xaf, 0xff]),
    ] {
        assert_eq!(kept(&[(id, data)]), [(extension, data.to_vec())]);
    }
    let senseless: [(u8, &[u8]); 5] =
        [(1, &[1; 9]), (2, &[1, 2, 3]), (3, &[1, 2]), (3, &[0x00, 0xb0, 0x0a]), (ROTATION, &[1, 2])];
    assert_eq!(kept(&senseless), []);
}

// EXT-H09
#[test]
fn the_orientation_is_said_again_at_the_end_of_every_keyframe() {
    let mut stage = Stage::new(&[video()]);
    let mut turned = |sequence, payload, elements| {
        let (number, _) = stage.forwarded(&Packet { elements, ..Packet::video(1, sequence, payload) });
        let cached = stage.tracks[1].cache.get(number).unwrap();
        stored_extensions(cached.extensions).map(|(_, data)| data.to_vec()).collect::<Vec<_>>()
    };
    assert!(turned(0, KEYFRAME, &[]).is_empty(), "nothing is known");
    assert_eq!(turned(1, DELTA, &[(ROTATION, &[1])]), [[1]]);
    assert!(turned(2, DELTA, &[]).is_empty());
    assert_eq!(turned(3, KEYFRAME, &[]), [[1]]);
    assert_eq!(turned(4, KEYFRAME, &[(ROTATION, &[0])]), [[0]]);
    assert_eq!(turned(5, KEYFRAME, &[]), [[0]]);
    stage.publication.on_bye(1);
    let (number, _) = stage.forwarded(&Packet::video(2, 9, KEYFRAME));
    assert!(stage.tracks[1].cache.get(number).unwrap().extensions.is_empty(), "another camera");
}

// OPS-08: repeated elements are bounded by the room that is kept for them.
#[test]
fn a_header_full_of_elements_is_cut() {
    let mut stage = Stage::new(&[video()]);
    let element: (u8, &[u8]) = (ROTATION, &[3]);
    stage.forwarded(&Packet::video(1, 0, KEYFRAME).with(&[element; 400]));
    assert_eq!(stage.tracks[1].cache.get(0).unwrap().extensions.len(), MAX_EXTENSIONS);
}

// RTCP-21
#[test]
fn a_publisher_without_feedback_gets_reports_only() {
    let mut plain = video();
    for format in &mut plain.formats {
        format.feedback = Feedback::default();
    }
    let mut stage = Stage::new(&[plain]);
    stage.forwarded(&Packet::video(1, 0, KEYFRAME).with(&[(WIDE, &[0, 1])]));
    stage.forwarded(&Packet::video(1, 5, DELTA).with(&[(WIDE, &[0, 2])]));
    stage.ms += 200;
    assert!(stage.nacks().is_empty() && stage.arrivals().is_empty());
    assert!(stage.publication.keyframe_request().is_none() && !stage.publication.wants_round_trip());
    let mut blocks = Vec::new();
    let now = stage.now();
    stage.publication.report_blocks(now, |block| blocks.push(block));
    assert_eq!((blocks.len(), blocks[0].ssrc, blocks[0].cumulative_lost), (1, 1, 4));
}

// RTCP-03, RTCP-06, Q-08
#[test]
fn a_report_that_is_not_believed_is_named_with_its_age_and_moves_no_clock() {
    let mut stage = Stage::new(&[video()]);
    let (_, first) = stage.forwarded(&Packet::video(1, 0, KEYFRAME));
    let arrival = stage.publication.clock_point(MediaKind::Video).unwrap();
    assert_eq!((arrival.unix, arrival.rtp), (START_UNIX, first));
    let report = |stage: &mut Stage, ssrc, rtp_timestamp, packet_count| {
        let ntp = NtpTime::from_unix(stage.unix());
        let info = SenderInfo { ntp, rtp_timestamp, packet_count, octet_count: 0 };
        let mut bytes = [0; 64];
        let mut writer = RtcpWriter::new(&mut bytes);
        writer.sender_report(ssrc, &info, &[]).unwrap();
        let Some(Ok(RtcpPacket::SenderReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else { panic!() };
        let (now, unix) = (stage.now(), stage.unix());
        stage.publication.on_sender_report(now, unix, &report, &stage.tracks)
    };
    stage.ms += 1_000;
    assert_eq!(report(&mut stage, 1, u32::MAX, 0), Err(DropReason::ImplausibleSenderReport));
    let named = NtpTime::from_unix(stage.unix()).compact();
    stage.ms += 500;
    assert_eq!(report(&mut stage, 99, 0, 1), Ok(()), "of nobody");
    let mut blocks = Vec::new();
    let now = stage.now();
    stage.publication.report_blocks(now, |block| blocks.push((block.last_sr, block.delay_since_last_sr)));
    assert_eq!(blocks, [(named, 0x8000)]);
    assert_eq!(stage.publication.clock_point(MediaKind::Video), Some(arrival));
    assert_eq!(report(&mut stage, 1, 135_000, 50), Ok(()));
    let point = stage.publication.clock_point(MediaKind::Video).unwrap();
    assert_eq!((point.unix, point.rtp), (START_UNIX + Duration::from_millis(1_500), 135_000));
}

// OPS-07
#[test]
fn nothing_that_a_publisher_sends_makes_more_sources_than_the_bound() {
    let mut stage = Stage::new(&[video()]);
    for ssrc in 0..10_000 {
        let _ = stage.receive(&Packet::video(ssrc, 1, KEYFRAME));
    }
    assert!(stage.publication.sources.len() <= MAX_SOURCES);
    let header = RtpHeader::parse(&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    assert!(stage.publication.source_of(&header, &[]).is_ok());
}
