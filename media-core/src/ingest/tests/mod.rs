//! What becomes of a publisher's packets, one by one.

mod alignment;
mod continuity;
mod keyframes;
mod layers;
mod loss;
mod recorded;
mod simulcast;
mod takeover;
mod time;

use super::ssrcs::MAX_SSRCS;
use super::*;
use crate::media::{Codec, Extension, ExtensionMap, Feedback, Format};
use crate::rtcp::{NtpTime, RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo};
use crate::rtp::{HeaderFields, write_header};
use crate::stream::{CachedPacket, MAX_EXTENSIONS, stored_extensions};

const START_UNIX: Duration = Duration::from_secs(1_800_000_000);
/// VP8: a payload descriptor with S=1, then the first byte of a keyframe or of another frame.
const KEYFRAME: &[u8] = &[0x10, 0x00, 1, 2, 3];
const DELTA: &[u8] = &[0x10, 0x01, 4, 5];
const MID: u8 = 4;
const WIDE: u8 = 5;
const ROTATION: u8 = 9;

fn format(payload_type: u8, codec: Codec, rtx_payload_type: Option<u8>) -> Format {
    let video = codec.kind() == MediaKind::Video;
    let feedback = Feedback { nack: video, pli: video, transport_cc: true, ..Feedback::default() };
    Format { rtx_payload_type, feedback, ..Format::new(payload_type, codec) }
}

fn section(kind: MediaKind, formats: Vec<Format>) -> MediaSection {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, MID);
    extensions.set(Extension::TransportCc, WIDE);
    extensions.set(Extension::VideoOrientation, ROTATION);
    MediaSection { extensions, reduced_size_rtcp: true, ..MediaSection::new(kind.as_str(), kind, formats) }
}

fn audio() -> MediaSection {
    section(MediaKind::Audio, vec![format(111, Codec::Opus, None)])
}

fn video() -> MediaSection {
    section(MediaKind::Video, vec![format(96, Codec::Vp8, Some(97)), format(98, Codec::Vp8, None)])
}

struct Packet<'a> {
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    elements: &'a [(u8, &'a [u8])],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn video(ssrc: u32, sequence: u16, payload: &'a [u8]) -> Packet<'a> {
        Packet {
            ssrc,
            payload_type: 96,
            sequence,
            timestamp: u32::from(sequence).wrapping_mul(3_000),
            elements: &[],
            payload,
        }
    }

    fn audio(ssrc: u32, sequence: u16) -> Packet<'a> {
        let timestamp = u32::from(sequence) * 960;
        Packet { ssrc, payload_type: 111, sequence, timestamp, elements: &[], payload: b"opus" }
    }

    fn with(self, elements: &'a [(u8, &'a [u8])]) -> Packet<'a> {
        Packet { elements, ..self }
    }
}

/// A publisher's receiving side and the tracks that it fills, in virtual time.
struct Harness {
    ingest: Ingest,
    tracks: Tracks,
    start: Instant,
    ms: u64,
    ecn: Ecn,
}

impl Harness {
    fn new(sections: &[MediaSection]) -> Harness {
        let start = Instant::now();
        let mut tracks = Tracks::new(Duration::from_millis(500));
        Harness { ingest: Ingest::new(start, sections, &mut tracks), tracks, start, ms: 0, ecn: Ecn::NotEct }
    }

    /// Another publisher replaces this one.
    fn restart(&mut self, sections: &[MediaSection]) {
        self.ingest = Ingest::new(self.now(), sections, &mut self.tracks);
        self.tracks.set_publisher(None);
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn unix(&self) -> Duration {
        START_UNIX + Duration::from_millis(self.ms)
    }

    fn arrival(&self) -> Arrival {
        Arrival { now: self.now(), unix: self.unix(), ecn: self.ecn }
    }

    fn receive(&mut self, packet: &Packet<'_>) -> Result<Accepted, DropReason> {
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
        self.ingest.on_rtp(&self.arrival(), &bytes, &mut self.tracks)
    }

    /// The packet with this number in the cache of a track.
    fn cached(&self, track: TrackId, sequence: u64) -> Option<CachedPacket<'_>> {
        self.tracks.encoding(track, 0)?.packet(sequence)
    }

    fn video(&self, sequence: u64) -> Option<CachedPacket<'_>> {
        self.cached(TrackId::VIDEO, sequence)
    }

    fn format_changes(&mut self) -> Vec<(TrackId, u8)> {
        let now = self.now();
        let changes = self.ingest.take_format_changes(now);
        changes.into_iter().map(|(track, in_use)| (track, in_use.payload_type)).collect()
    }

    /// The stream's sequence number and timestamp of a packet that is forwarded.
    fn forwarded(&mut self, packet: &Packet<'_>) -> (u64, u32) {
        let accepted = self.receive(packet);
        let Ok(Accepted::Forward { track, sequence, .. }) = accepted else { panic!("not forwarded: {accepted:?}") };
        let cached = self.cached(track, sequence).unwrap();
        assert_eq!(cached.payload, packet.payload);
        (sequence, cached.info.timestamp)
    }

    /// A sender report of an RTP stream.
    fn report(&mut self, ssrc: u32, info: &SenderInfo) -> Result<(), DropReason> {
        let mut bytes = [0; 64];
        let mut writer = RtcpWriter::new(&mut bytes);
        writer.sender_report(ssrc, info, &[]).unwrap();
        let Some(Ok(RtcpPacket::SenderReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else { panic!() };
        let (now, unix) = (self.now(), self.unix());
        self.ingest.on_sender_report(now, unix, &report, &self.tracks)
    }

    fn nacks(&mut self) -> Vec<(u32, Vec<u16>)> {
        let mut requested = Vec::new();
        let now = self.now();
        self.ingest.poll_nack(now, |ssrc, numbers| requested.push((ssrc, numbers.to_vec())));
        requested
    }

    fn arrivals(&mut self) -> Vec<u16> {
        let mut numbers = Vec::new();
        let now = self.now();
        self.ingest.poll_arrivals(now, |_, arrivals| numbers = arrivals.iter().map(|&(number, _)| number).collect());
        numbers
    }
}

// WHEP-16, RTP-07
#[test]
fn video_starts_at_its_first_keyframe_and_audio_at_once() {
    let mut harness = Harness::new(&[audio(), video()]);
    assert_eq!(
        harness.receive(&Packet::video(1, 10, DELTA)),
        Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 })
    );
    assert_eq!(harness.forwarded(&Packet::audio(2, 500)).0, 0);
    let first = Accepted::Forward { track: TrackId::VIDEO, encoding: 0, sequence: 0, keyframe: true, decodable: true };
    assert_eq!(harness.receive(&Packet::video(1, 11, KEYFRAME)), Ok(first));
    assert_eq!(harness.format_changes(), [(TrackId::AUDIO, 111), (TrackId::VIDEO, 96)]);
    assert_eq!(harness.forwarded(&Packet::video(1, 12, DELTA)).0, 1);
    assert_eq!(harness.format_changes(), []);
}

// RTP-02
#[test]
fn packets_find_their_section_by_mid_then_ssrc_then_payload_type() {
    let mut odd = video();
    odd.formats[0].payload_type = 111;
    let mut harness = Harness::new(&[audio(), odd]);
    let ambiguous = Packet { payload_type: 111, ..Packet::video(7, 1, KEYFRAME) };
    assert_eq!(harness.receive(&ambiguous), Err(DropReason::UnknownRtpStream));
    let named = Packet { payload_type: 111, ..Packet::video(7, 2, KEYFRAME) }.with(&[(MID, b"video")]);
    assert!(matches!(harness.receive(&named), Ok(Accepted::Forward { track: TrackId::VIDEO, .. })));
    let known = Packet { payload_type: 111, ..Packet::video(7, 3, DELTA) };
    assert!(matches!(harness.receive(&known), Ok(Accepted::Forward { track: TrackId::VIDEO, .. })));
    assert_eq!(harness.receive(&Packet { payload_type: 50, ..known }), Err(DropReason::UnknownRtpStream));
}

// F-19, RTP-02
#[test]
fn declared_ssrcs_tell_packets_of_one_payload_type_apart() {
    let (mut shared, mut other) = (video(), audio());
    shared.formats[0].payload_type = other.formats[0].payload_type;
    (shared.declared_ssrcs, other.declared_ssrcs) = (vec![(1, None)], vec![(2, None)]);
    let payload_type = shared.formats[0].payload_type;
    let mut harness = Harness::new(&[other, shared]);
    for (packet, expected) in [
        (Packet { payload_type, ..Packet::video(1, 1, KEYFRAME) }, TrackId::VIDEO),
        (Packet { payload_type, ..Packet::audio(2, 1) }, TrackId::AUDIO),
        (Packet { payload_type, ..Packet::video(1, 2, DELTA) }, TrackId::VIDEO),
    ] {
        assert!(matches!(harness.receive(&packet), Ok(Accepted::Forward { track, .. }) if track == expected));
    }
    let stranger = Packet { payload_type, ..Packet::video(3, 1, KEYFRAME) };
    assert_eq!(harness.receive(&stranger), Err(DropReason::UnknownRtpStream));
}

#[test]
fn a_publisher_of_one_kind_is_accepted_and_packets_of_the_other_kind_are_unknown() {
    let mut harness = Harness::new(&[audio()]);
    assert_eq!(harness.forwarded(&Packet::audio(2, 1)).0, 0);
    assert_eq!(harness.receive(&Packet::video(1, 1, KEYFRAME)), Err(DropReason::UnknownRtpStream));
    assert!(harness.ingest.keyframe_request(TrackId::VIDEO, 0).is_none());
    let mut harness = Harness::new(&[video()]);
    assert_eq!(harness.forwarded(&Packet::video(1, 1, KEYFRAME)).0, 0);
    assert_eq!(harness.receive(&Packet::audio(2, 1)), Err(DropReason::UnknownRtpStream));
    assert_eq!(harness.ingest.keyframe_request(TrackId::VIDEO, 0), Some(KeyframeRequest::Pli { ssrc: 1 }));
}

// RTP-15, RTP-06
#[test]
fn numbers_and_time_are_continuous_over_a_restart_of_the_publisher() {
    let mut harness = Harness::new(&[video()]);
    assert_eq!(harness.forwarded(&Packet::video(1, 65_535, KEYFRAME)).0, 0);
    let (last, time) = harness.forwarded(&Packet::video(1, 0, DELTA));
    assert_eq!(last, 1);
    harness.restart(&[video()]);
    assert!(harness.video(1).is_none());
    harness.ms += 2_000;
    assert_eq!(
        harness.receive(&Packet::video(9, 40_000, DELTA)),
        Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 })
    );
    let next = harness.forwarded(&Packet::video(9, 40_001, KEYFRAME));
    assert_eq!(next, (2, time.wrapping_add(180_000)));
}

// RTP-03
#[test]
fn a_new_ssrc_is_accepted_by_its_mid_or_after_silence_of_the_old_one() {
    let mut harness = Harness::new(&[video()]);
    harness.forwarded(&Packet::video(1, 10, KEYFRAME));
    assert_eq!(harness.receive(&Packet::video(2, 900, DELTA)), Err(DropReason::UnknownRtpStream));
    assert_eq!(harness.forwarded(&Packet::video(3, 7, KEYFRAME).with(&[(MID, b"video")])).0, 1);
    harness.ms += 200;
    assert_eq!(harness.forwarded(&Packet::video(2, 901, KEYFRAME)).0, 2);
}

// RTP-03: simulcast that was not negotiated, or two encoders on one section.
#[test]
fn two_ssrcs_that_both_send_do_not_replace_each_other() {
    let mut harness = Harness::new(&[video()]);
    let mid: &[(u8, &[u8])] = &[(MID, b"video")];
    harness.forwarded(&Packet::video(1, 0, KEYFRAME).with(mid));
    harness.forwarded(&Packet::video(2, 0, KEYFRAME).with(mid));
    for sequence in 1..100 {
        harness.ms += 10;
        let old = Packet::video(1, sequence, KEYFRAME).with(mid);
        assert_eq!(harness.receive(&old), Err(DropReason::UnknownRtpStream));
        assert_eq!(harness.forwarded(&Packet::video(2, sequence, DELTA).with(mid)).0, u64::from(sequence) + 1);
    }
    harness.ms += 200;
    assert_eq!(harness.forwarded(&Packet::video(1, 100, KEYFRAME).with(mid)).0, 101);
}

// RTP-07, RTP-05
#[test]
fn another_format_starts_at_its_keyframe_and_withheld_packets_leave_no_gap() {
    let mut harness = Harness::new(&[video()]);
    harness.forwarded(&Packet::video(1, 0, KEYFRAME));
    assert_eq!(harness.format_changes(), [(TrackId::VIDEO, 96)]);
    for sequence in 1..4 {
        let packet = Packet { payload_type: 98, ..Packet::video(1, sequence, DELTA) };
        assert_eq!(harness.receive(&packet), Ok(Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 }));
    }
    assert_eq!(harness.format_changes(), []);
    let first = Accepted::Forward { track: TrackId::VIDEO, encoding: 0, sequence: 1, keyframe: true, decodable: true };
    assert_eq!(harness.receive(&Packet { payload_type: 98, ..Packet::video(1, 4, KEYFRAME) }), Ok(first));
    assert_eq!(harness.format_changes(), [(TrackId::VIDEO, 98)]);
}

// RTP-06
#[test]
fn another_clock_on_the_same_ssrc_advances_time_as_much_as_passed() {
    let g722 = format(9, Codec::G722, None);
    let mut harness = Harness::new(&[section(MediaKind::Audio, vec![format(111, Codec::Opus, None), g722])]);
    let (_, first) = harness.forwarded(&Packet::audio(2, 1));
    harness.ms += 20;
    let other = Packet { payload_type: 9, timestamp: 3_000_000_000, ..Packet::audio(2, 2) };
    assert_eq!(harness.forwarded(&other), (1, first + 160));
    harness.ms += 20;
    assert_eq!(harness.forwarded(&Packet { timestamp: 3_000_000_160, sequence: 3, ..other }), (2, first + 320));
}

// RTP-09
#[test]
fn probes_are_counted_for_feedback_and_leave_no_gap() {
    let mut harness = Harness::new(&[video()]);
    harness.forwarded(&Packet::video(1, 0, KEYFRAME).with(&[(WIDE, &[0, 1])]));
    assert_eq!(harness.receive(&Packet::video(1, 1, &[]).with(&[(WIDE, &[0, 2])])), Ok(Accepted::Consumed));
    let rtx = Packet { payload_type: 97, ..Packet::video(5, 9, &[]) };
    assert_eq!(harness.receive(&rtx.with(&[(WIDE, &[0, 3])])), Ok(Accepted::Consumed));
    assert_eq!(harness.forwarded(&Packet::video(1, 2, DELTA).with(&[(WIDE, &[0, 4])])).0, 1);
    harness.ms += 100;
    assert_eq!(harness.arrivals(), [1, 2, 3, 4]);
}

// RTCP-09, RTCP-10
#[test]
fn a_lost_packet_is_requested_and_its_retransmission_fills_the_gap() {
    let mut harness = Harness::new(&[video()]);
    harness.forwarded(&Packet::video(1, 65_534, KEYFRAME));
    harness.forwarded(&Packet::video(1, 1, DELTA));
    harness.ms += 10;
    assert_eq!(harness.nacks(), [(1, vec![65_535, 0])]);
    let mut payload = vec![0xff, 0xff];
    payload.extend_from_slice(DELTA);
    let rtx = Packet { payload_type: 97, timestamp: 65_535 * 3_000, ..Packet::video(5, 77, &payload) };
    let expected =
        Accepted::Forward { track: TrackId::VIDEO, encoding: 0, sequence: 1, keyframe: false, decodable: true };
    assert_eq!(harness.format_changes(), [(TrackId::VIDEO, 96)]);
    assert_eq!(harness.receive(&rtx), Ok(expected));
    assert_eq!(harness.format_changes(), []);
    let restored = harness.video(1).unwrap();
    assert_eq!((restored.payload, restored.info.payload_type), (DELTA, 96));
    assert_eq!(harness.receive(&Packet { sequence: 78, ..rtx }), Ok(Accepted::Consumed), "a duplicate");
    harness.ms += 100;
    assert_eq!(harness.nacks(), [(1, vec![0])]);
}

// RTCP-10
#[test]
fn a_retransmission_of_another_ssrc_is_not_mistaken_for_the_present_ones() {
    let mut section = video();
    section.declared_ssrcs = vec![(1, Some(11)), (2, Some(12))];
    let mut harness = Harness::new(&[section]);
    harness.forwarded(&Packet::video(2, 10, KEYFRAME));
    harness.forwarded(&Packet::video(2, 12, DELTA));
    let payload = [0, 11, 0x10, 0x01, 9];
    let rtx = Packet { payload_type: 97, ..Packet::video(11, 1, &payload) };
    assert_eq!(harness.receive(&rtx), Ok(Accepted::Consumed));
    assert!(harness.video(1).is_none());
    assert!(matches!(harness.receive(&Packet { ssrc: 12, ..rtx }), Ok(Accepted::Forward { sequence: 1, .. })));
}

// COD-04
#[test]
fn red_is_cached_unchanged_and_malformed_red_is_dropped() {
    let red = Format { fmtp: "111/111".into(), ..format(63, Codec::Red, None) };
    let mut harness = Harness::new(&[section(MediaKind::Audio, vec![format(111, Codec::Opus, None), red])]);
    harness.forwarded(&Packet::audio(2, 1));
    let packet = |sequence, payload| Packet { payload_type: 63, payload, ..Packet::audio(2, sequence) };
    assert_eq!(harness.forwarded(&packet(2, &[0x80 | 111, 0x0f, 0, 1, 111, 7, 8])), (1, 1_920));
    for broken in [&[0x80 | 111, 0x0f, 0, 9, 111, 7, 8][..], &[0x80 | 96, 0x0f, 0, 1, 111, 7, 8], &[111]] {
        assert_eq!(harness.receive(&packet(3, broken)), Err(DropReason::MalformedRtp));
    }
    assert_eq!(harness.receive(&packet(4, &[])), Ok(Accepted::Consumed), "padding");
    assert_eq!(harness.forwarded(&packet(5, &[111, 8])), (3, 4_800));
}

// RTCP-18
#[test]
fn after_bye_another_ssrc_is_accepted_and_losses_stay_counted() {
    let mut harness = Harness::new(&[video()]);
    harness.forwarded(&Packet::video(1, 0, KEYFRAME));
    harness.forwarded(&Packet::video(1, 4, DELTA));
    assert_eq!(harness.ingest.packets_lost(), 3);
    harness.ingest.on_bye(99);
    assert_eq!(harness.receive(&Packet::video(2, 0, DELTA)), Err(DropReason::UnknownRtpStream));
    harness.ingest.on_bye(1);
    assert_eq!(harness.forwarded(&Packet::video(2, 100, KEYFRAME)).0, 5);
    assert_eq!(harness.ingest.packets_lost(), 3);
}

// EXT-H02, EXT-H04
#[test]
fn only_extensions_for_viewers_are_cached() {
    let mut harness = Harness::new(&[video()]);
    let packet = Packet::video(1, 0, KEYFRAME).with(&[(MID, b"video"), (WIDE, &[0, 1]), (ROTATION, &[3]), (12, b"?")]);
    harness.forwarded(&packet);
    let cached = harness.video(0).unwrap();
    let kept: Vec<_> = stored_extensions(cached.extensions).collect();
    assert_eq!(kept, [(Extension::VideoOrientation, &[3][..])]);
}

// EXT-H07, EXT-H08, EXT-H10
#[test]
fn well_formed_extensions_are_cached_and_malformed_ones_are_not() {
    let mut section = video();
    for (extension, id) in [(Extension::AbsCaptureTime, 1), (Extension::AudioLevel, 2), (Extension::PlayoutDelay, 3)] {
        section.extensions.set(extension, id);
    }
    let mut harness = Harness::new(&[section]);
    let mut sequence = 0;
    let mut kept = |elements: &[(u8, &[u8])]| {
        harness.forwarded(&Packet { elements, ..Packet::video(1, sequence, KEYFRAME) });
        let cached = harness.video(u64::from(sequence)).unwrap();
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
    let malformed: [(u8, &[u8]); 5] =
        [(1, &[1; 9]), (2, &[1, 2, 3]), (3, &[1, 2]), (3, &[0x00, 0xb0, 0x0a]), (ROTATION, &[1, 2])];
    assert_eq!(kept(&malformed), []);
}

// EXT-H09
#[test]
fn the_orientation_is_repeated_at_the_end_of_every_keyframe() {
    let mut harness = Harness::new(&[video()]);
    let mut turned = |sequence, payload, elements| {
        let (number, _) = harness.forwarded(&Packet { elements, ..Packet::video(1, sequence, payload) });
        let cached = harness.video(number).unwrap();
        stored_extensions(cached.extensions).map(|(_, data)| data.to_vec()).collect::<Vec<_>>()
    };
    assert!(turned(0, KEYFRAME, &[]).is_empty(), "nothing is known");
    assert_eq!(turned(1, DELTA, &[(ROTATION, &[1])]), [[1]]);
    assert!(turned(2, DELTA, &[]).is_empty());
    assert_eq!(turned(3, KEYFRAME, &[]), [[1]]);
    assert_eq!(turned(4, KEYFRAME, &[(ROTATION, &[0])]), [[0]]);
    assert_eq!(turned(5, KEYFRAME, &[]), [[0]]);
    harness.ingest.on_bye(1);
    let (number, _) = harness.forwarded(&Packet::video(2, 9, KEYFRAME));
    assert!(harness.video(number).unwrap().extensions.is_empty(), "another camera");
}

// OPS-08: repeated extension elements are bounded by the room for them.
#[test]
fn extensions_beyond_the_bound_are_dropped() {
    let mut harness = Harness::new(&[video()]);
    let element: (u8, &[u8]) = (ROTATION, &[3]);
    harness.forwarded(&Packet::video(1, 0, KEYFRAME).with(&[element; 400]));
    assert_eq!(harness.video(0).unwrap().extensions.len(), MAX_EXTENSIONS);
}

// RTCP-21
#[test]
fn a_publisher_without_feedback_gets_reports_only() {
    let mut plain = video();
    for format in &mut plain.formats {
        format.feedback = Feedback::default();
    }
    let mut harness = Harness::new(&[plain]);
    harness.forwarded(&Packet::video(1, 0, KEYFRAME).with(&[(WIDE, &[0, 1])]));
    harness.forwarded(&Packet::video(1, 5, DELTA).with(&[(WIDE, &[0, 2])]));
    harness.ms += 200;
    assert!(harness.nacks().is_empty() && harness.arrivals().is_empty());
    assert!(harness.ingest.keyframe_request(TrackId::VIDEO, 0).is_none() && !harness.ingest.wants_round_trip());
    let mut blocks = Vec::new();
    let now = harness.now();
    harness.ingest.report_blocks(now, |block| blocks.push(block));
    assert_eq!((blocks.len(), blocks[0].ssrc, blocks[0].cumulative_lost), (1, 1, 4));
}

// RTCP-03, RTCP-06, Q-08
#[test]
fn a_report_that_is_not_believed_is_acknowledged_and_moves_no_clock() {
    let mut harness = Harness::new(&[video()]);
    let (_, first) = harness.forwarded(&Packet::video(1, 0, KEYFRAME));
    let arrival = harness.ingest.clock_point(TrackId::VIDEO).unwrap();
    assert_eq!((arrival.unix, arrival.rtp), (START_UNIX, first));
    let report = |harness: &mut Harness, ssrc, rtp_timestamp, packet_count| {
        let ntp = NtpTime::from_unix(harness.unix());
        harness.report(ssrc, &SenderInfo { ntp, rtp_timestamp, packet_count, octet_count: 0 })
    };
    harness.ms += 1_000;
    assert_eq!(report(&mut harness, 1, u32::MAX, 0), Err(DropReason::ImplausibleSenderReport));
    let named = NtpTime::from_unix(harness.unix()).compact();
    harness.ms += 500;
    assert_eq!(report(&mut harness, 99, 0, 1), Ok(()), "of an unknown SSRC");
    let mut blocks = Vec::new();
    let now = harness.now();
    harness.ingest.report_blocks(now, |block| blocks.push((block.last_sr, block.delay_since_last_sr)));
    assert_eq!(blocks, [(named, 0x8000)]);
    assert_eq!(harness.ingest.clock_point(TrackId::VIDEO), Some(arrival));
    assert_eq!(report(&mut harness, 1, 135_000, 50), Ok(()));
    let point = harness.ingest.clock_point(TrackId::VIDEO).unwrap();
    assert_eq!((point.unix, point.rtp), (START_UNIX + Duration::from_millis(1_500), 135_000));
}

// OPS-07
#[test]
fn known_ssrcs_stay_bounded_whatever_a_publisher_sends() {
    let mut harness = Harness::new(&[video()]);
    for ssrc in 0..10_000 {
        let _ = harness.receive(&Packet::video(ssrc, 1, KEYFRAME));
    }
    assert!(harness.ingest.known_ssrcs.len() <= MAX_SSRCS);
    let header = RtpHeader::parse(&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    let now = harness.now();
    let Ingest { known_ssrcs, sections, .. } = &mut harness.ingest;
    assert!(known_ssrcs.find(now, &header, &[], sections).is_ok());
}

// F-18
#[test]
fn of_too_many_ssrcs_the_idle_one_gives_way_and_one_that_sends_keeps_its_section() {
    let video = MediaSection { declared_ssrcs: vec![(7, None)], ..video() };
    let mut harness = Harness::new(&[video]);
    let first = harness.receive(&Packet::video(7, 1, KEYFRAME));
    assert!(matches!(first, Ok(Accepted::Forward { .. })), "{first:?}");
    for ssrc in 1_000..1_200 {
        harness.ms += 1;
        let _ = harness.receive(&Packet::video(ssrc, 1, DELTA));
        let sequence = ssrc as u16 - 998;
        let accepted = harness.receive(&Packet::video(7, sequence, DELTA));
        assert!(matches!(accepted, Ok(Accepted::Forward { .. })), "{ssrc}: {accepted:?}");
    }
    // It was adopted before: without a silence of the present one it does not come back.
    let header = RtpHeader::parse(&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]).unwrap();
    let now = harness.now();
    let Ingest { known_ssrcs, sections, .. } = &mut harness.ingest;
    assert!(known_ssrcs.find(now, &header, &[], sections).unwrap().was_adopted);
}
