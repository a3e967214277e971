mod descriptors;
mod ecn;
mod formats;
mod keyframes;
mod layered;
mod layers;
mod layers_model;
mod live;
mod narrow;
mod nonces;
mod numbered;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::*;
use crate::layers::PacketLayer;
use crate::media::{Codec, Extension, ExtensionMap, Feedback, Format, MediaSection, SendSsrcs, TrackId};
use crate::net::{Outbound, TransportTuple};
use crate::rtp::{RtpHeader, rtx};
use crate::spec::DtlsRole;
use crate::srtp::{KeyingMaterial, SrtpProfile, SrtpReceiver};
use crate::stream::{CachedPacket, Encoding, PacketInfo, Tracks};

/// What the TLS exporter gave.
const EXPORTED: [u8; 56] = {
    let mut bytes = [0; 56];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = index as u8;
        index += 1;
    }
    bytes
};

fn format(payload_type: u8, codec: Codec, rtx_payload_type: Option<u8>) -> Format {
    Format { rtx_payload_type, ..Format::new(payload_type, codec) }
}

/// A viewer that knows VP8 as 100 (RTX 101), and its own end of SRTP.
fn viewer(rtx_payload_type: Option<u8>) -> (Viewer, SrtpReceiver) {
    let publisher = [format(96, Codec::Vp8, None), format(97, Codec::H264, None)];
    viewer_of(TrackId::VIDEO, vec![format(100, Codec::Vp8, rtx_payload_type)], &publisher)
}

fn viewer_of(track: TrackId, formats: Vec<Format>, publisher: &[Format]) -> (Viewer, SrtpReceiver) {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, 4);
    extensions.set(Extension::VideoOrientation, 9);
    extensions.set(Extension::DependencyDescriptor, 12);
    let section = MediaSection {
        extensions,
        reduced_size_rtcp: true,
        send_ssrcs: Some(SendSsrcs { media: 0xaaaa, rtx: 0xbbbb }),
        ..MediaSection::new(track.kind.as_str(), track.kind, formats)
    };
    let profile = SrtpProfile::AeadAes128Gcm;
    let (_, sender) = KeyingMaterial::new(profile, &EXPORTED).unwrap().contexts(DtlsRole::Server).unwrap();
    let (receiver, _) = KeyingMaterial::new(profile, &EXPORTED).unwrap().contexts(DtlsRole::Client).unwrap();
    let mut egress = EgressTrack::new(track, &section, 0x0005_7fff).unwrap();
    egress.set_publisher_formats(publisher, None);
    (Viewer::new(Instant::now(), sender, vec![egress], 0), receiver)
}

fn tuple() -> TransportTuple {
    TransportTuple::udp("127.0.0.1:9".parse().unwrap(), None)
}

/// The viewer's video track.
fn video(viewer: &mut Viewer) -> &mut EgressTrack {
    viewer.tracks_mut().iter_mut().find(|track| track.id() == TrackId::VIDEO).unwrap()
}

struct Published {
    tracks: Tracks,
    start: Instant,
}

impl Published {
    fn new() -> Published {
        let mut tracks = Tracks::new(Duration::ZERO);
        tracks.get_or_insert(TrackId::AUDIO);
        tracks.get_or_insert(TrackId::VIDEO);
        Published { tracks, start: Instant::now() }
    }

    fn encoding(&mut self, track: TrackId) -> &mut Encoding {
        self.tracks.encoding_mut(track, 0).unwrap()
    }

    fn video(&self) -> &Encoding {
        self.tracks.encoding(TrackId::VIDEO, 0).unwrap()
    }

    /// A packet received `sequence` times 33 ms after the start.
    fn packet(&mut self, sequence: u64, payload_type: u8, keyframe: bool) -> u64 {
        let (timestamp, arrived) = (sequence as u32 * 3000, self.at(sequence));
        let info =
            PacketInfo { sequence, timestamp, arrived, payload_type, marker: true, keyframe, layer: PacketLayer::ONLY };
        let stored = [Extension::VideoOrientation as u8, 1, 0x02, Extension::AudioLevel as u8, 1, 0x7f];
        let payload = vec![sequence as u8; 50 + (sequence % 7) as usize];
        assert!(self.encoding(TrackId::VIDEO).admit(info, &stored, &payload));
        sequence
    }

    fn at(&self, sequence: u64) -> Instant {
        self.start + Duration::from_millis(33 * sequence)
    }

    fn cached(&self, sequence: u64) -> CachedPacket<'_> {
        self.video().packet(sequence).unwrap()
    }

    /// A fan-out pass; what the viewer was sent.
    fn serve(&mut self, now: Instant, viewer: &mut Viewer, overloaded: bool) -> (Served, Vec<Vec<u8>>) {
        self.tracks.begin_pass();
        self.go_on(now, viewer, overloaded)
    }

    /// Serves the viewer in the present pass.
    fn go_on(&self, now: Instant, viewer: &mut Viewer, overloaded: bool) -> (Served, Vec<Vec<u8>>) {
        let mut out = Outbound::disconnected();
        let served = viewer.serve(&FanOutPass { now, tracks: &self.tracks, overloaded }, tuple(), &mut out);
        let sent: Vec<Vec<u8>> = out.batch().datagrams().map(<[u8]>::to_vec).collect();
        assert_eq!(sent.len() as u64, served.packets + served.padding, "the batch is large enough");
        (served, sent)
    }
}

/// The only packet that the viewer gets when `sequence` was received.
fn forward(viewer: &mut Viewer, published: &mut Published, sequence: u64) -> Option<Vec<u8>> {
    let (served, mut sent) = published.serve(published.at(sequence), viewer, false);
    assert_eq!(served.packets, sent.len() as u64);
    assert!(sent.len() <= 1);
    sent.pop()
}

fn resend(viewer: &mut Viewer, published: &Published, now: Instant, number: u16) -> Option<Vec<u8>> {
    let mut out = Outbound::disconnected();
    let resent = viewer.resend(now, (0xaaaa, number), &published.tracks, tuple(), &mut out);
    (resent == Resent::Yes).then(|| out.batch().datagrams().flatten().copied().collect())
}

fn open(receiver: &mut SrtpReceiver, mut packet: Vec<u8>) -> (RtpHeader, Vec<u8>) {
    let length = packet.len();
    let length = receiver.unprotect_rtp(&mut packet, length).unwrap();
    packet.truncate(length);
    (RtpHeader::parse(&packet).unwrap(), packet)
}

// WHEP-16, SRTP-07, RTP-10, EXT-H02, EXT-H03
#[test]
fn a_viewer_starts_at_a_keyframe_with_its_own_numbers() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    let early = published.packet(40, 96, false);
    assert_eq!(forward(&mut viewer, &mut published, early), None);
    let keyframe = published.packet(41, 96, true);
    let (header, packet) = open(&mut receiver, forward(&mut viewer, &mut published, keyframe).unwrap());
    assert_eq!((header.payload_type, header.ssrc, header.sequence_number), (100, 0xaaaa, 0x7fff));
    assert_eq!(header.timestamp, 41 * 3000);
    let elements: Vec<_> = header.extensions(&packet).collect();
    // The audio level was not negotiated.
    assert_eq!(elements, [(4, &b"video"[..]), (9, &[2][..])]);
    let late = published.packet(39, 96, false);
    assert_eq!(forward(&mut viewer, &mut published, late), None);
}

#[test]
fn packets_received_during_a_fan_out_pass_are_for_the_next_one() {
    let (mut viewer, _) = viewer(Some(101));
    let mut published = Published::new();
    published.packet(0, 96, true);
    published.tracks.begin_pass();
    published.packet(1, 96, false);
    let now = published.at(1);
    let served = |viewer: &mut Viewer| published.go_on(now, viewer, false).0.packets;
    assert_eq!((served(&mut viewer), served(&mut viewer)), (1, 0));
    assert_eq!(published.serve(now, &mut viewer, false).0.packets, 1);
}

// WHEP-15
#[test]
fn a_format_that_was_not_negotiated_is_never_sent() {
    let (mut viewer, _) = viewer(None);
    let mut published = Published::new();
    let keyframe = published.packet(0, 97, true);
    assert_eq!(forward(&mut viewer, &mut published, keyframe), None);
    assert!(video(&mut viewer).awaits_keyframe());
}

// EXT-H03
#[test]
fn mid_stops_after_the_first_report_except_on_keyframes() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    let mut has_mid = |viewer: &mut Viewer, published: &mut Published, sequence, keyframe| {
        let sequence = published.packet(sequence, 96, keyframe);
        let (header, packet) = open(&mut receiver, forward(viewer, published, sequence).unwrap());
        header.extension(&packet, 4).is_some()
    };
    assert!(has_mid(&mut viewer, &mut published, 0, true));
    assert!(has_mid(&mut viewer, &mut published, 1, false));
    video(&mut viewer).on_receipt();
    assert!(!has_mid(&mut viewer, &mut published, 2, false));
    assert!(has_mid(&mut viewer, &mut published, 3, true));
}

// SRTP-09, RTCP-08
#[test]
fn a_plain_retransmission_is_the_same_to_the_last_bit() {
    let (mut viewer, _) = viewer(None);
    let mut published = Published::new();
    let start = Instant::now();
    let mut sent = Vec::new();
    for sequence in 0..200 {
        published.packet(sequence, 96, sequence % 50 == 0);
        sent.push(forward(&mut viewer, &mut published, sequence).unwrap());
        if sequence == 100 {
            video(&mut viewer).on_receipt();
        }
    }
    for (sequence, original) in sent.iter().enumerate() {
        let number = 0x7fff_u16.wrapping_add(sequence as u16);
        let again = resend(&mut viewer, &published, start + Duration::from_secs(sequence as u64), number).unwrap();
        assert_eq!(&again, original, "packet {sequence}");
    }
}

// SRTP-08, SRTP-09
#[test]
fn no_index_ever_stands_for_two_packets_over_wraps_losses_and_retransmissions() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    let mut seen: HashMap<(u32, u64), Vec<u8>> = HashMap::new();
    let mut rollover: HashMap<u32, (u64, u16)> = HashMap::new();
    let start = Instant::now();
    for sequence in 0..70_000_u64 {
        if sequence % 97 == 13 {
            continue;
        }
        published.packet(sequence, 96, sequence % 3000 == 0);
        let mut packets = vec![forward(&mut viewer, &mut published, sequence).unwrap()];
        if sequence % 11 == 5 {
            let number = 0x7fff_u16.wrapping_add(sequence as u16).wrapping_sub(2);
            packets.extend(resend(&mut viewer, &published, start + Duration::from_secs(sequence), number));
        }
        for packet in packets {
            let header = RtpHeader::parse(&packet).unwrap();
            let (rollovers, last) = rollover.entry(header.ssrc).or_insert((0, header.sequence_number));
            if header.sequence_number < *last && *last - header.sequence_number > 0x8000 {
                *rollovers += 1;
            }
            *last = header.sequence_number;
            let index = (*rollovers << 16) | u64::from(header.sequence_number);
            assert!(seen.insert((header.ssrc, index), packet.clone()).is_none());
            open(&mut receiver, packet);
        }
    }
    assert!(rollover[&0xaaaa].0 >= 1);
}

// RTCP-08
#[test]
fn rtx_carries_the_viewers_own_number_and_each_packet_at_most_once_per_round_trip() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    for sequence in 0..10 {
        published.packet(sequence, 96, sequence == 0);
        forward(&mut viewer, &mut published, sequence).unwrap();
    }
    let start = Instant::now();
    let number = 0x7fff_u16.wrapping_add(4);
    let (header, packet) = open(&mut receiver, resend(&mut viewer, &published, start, number).unwrap());
    assert_eq!((header.payload_type, header.ssrc), (101, 0xbbbb));
    let (original, payload) = rtx::split_payload(header.payload(&packet)).unwrap();
    assert_eq!((original, payload), (number, published.cached(4).payload));
    assert_eq!(resend(&mut viewer, &published, start + Duration::from_millis(19), number), None);
    // Less the tolerance for what the viewer took to report.
    viewer.set_round_trip_time(Duration::from_millis(100));
    assert_eq!(resend(&mut viewer, &published, start + Duration::from_millis(79), number), None);
    assert!(resend(&mut viewer, &published, start + Duration::from_millis(80), number).is_some());
    // Sent again as often as makes sense, it needs a keyframe, unless one was received since.
    let at = |ms| start + Duration::from_millis(ms);
    assert!(resend(&mut viewer, &published, at(200), number).is_some());
    let mut out = Outbound::disconnected();
    let ask = |viewer: &mut Viewer, published: &Published, out: &mut Outbound| {
        viewer.resend(at(300), (0xaaaa, number), &published.tracks, tuple(), out)
    };
    assert_eq!(ask(&mut viewer, &published, &mut out), Resent::BeyondRepair);
    published.packet(10, 96, true);
    assert_eq!(ask(&mut viewer, &published, &mut out), Resent::No);
    // Never sent: past the newest, and before the first.
    assert_eq!(resend(&mut viewer, &published, start, 0x7fff_u16.wrapping_add(10)), None);
    assert_eq!(resend(&mut viewer, &published, start, 0x7ffe), None);
}

// SRTP-08, SRTP-09, RTP-05: a codec that the viewer does not know is on air for a while.
#[test]
fn packets_that_are_withheld_leave_no_gap_and_bring_no_index_back() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    let (mut expected, mut next) = (0x7fff_u16, 0);
    // Over half the circle, a whole circle, and a little less than one.
    for (run, withheld) in [40_000_u64, 65_536, 65_000, 1].into_iter().enumerate() {
        let start = next + withheld;
        if run > 0 {
            published.packet(start - 1, 97, true);
            assert_eq!(forward(&mut viewer, &mut published, start - 1), None);
        }
        next = start + 600;
        for sequence in start..next {
            published.packet(sequence, 96, sequence == start);
            let (header, _) = open(&mut receiver, forward(&mut viewer, &mut published, sequence).unwrap());
            assert_eq!(header.sequence_number, expected, "run {run}");
            expected = expected.wrapping_add(1);
        }
    }
}

// SRTP-09: the number of a packet from before the withheld ones may stand for another packet now.
#[test]
fn nothing_from_before_withheld_packets_is_sent_or_resent() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    for sequence in [0, 1, 2, 4] {
        published.packet(sequence, 96, sequence == 0);
        open(&mut receiver, forward(&mut viewer, &mut published, sequence).unwrap());
    }
    published.packet(5, 97, true);
    assert_eq!(forward(&mut viewer, &mut published, 5), None);
    published.packet(3, 96, false);
    assert_eq!(forward(&mut viewer, &mut published, 3), None);
    published.packet(6, 96, true);
    let (header, _) = open(&mut receiver, forward(&mut viewer, &mut published, 6).unwrap());
    assert_eq!(header.sequence_number, 0x7fff_u16.wrapping_add(5));
    assert_eq!(forward(&mut viewer, &mut published, 3), None);
    for back in 1..=5 {
        let number = header.sequence_number.wrapping_sub(back);
        assert_eq!(resend(&mut viewer, &published, Instant::now(), number), None);
    }
    assert!(resend(&mut viewer, &published, Instant::now(), header.sequence_number).is_some());
}

// SRTP-08: a shard that lost the stream for long.
#[test]
fn a_gap_beyond_a_quarter_of_the_circle_is_closed() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    for (sequence, number) in [(10, 0x7fff), (10 + 16_385, 0xc000), (10 + 16_385 + 16_386, 0xc001)] {
        published.packet(sequence, 96, true);
        let (header, _) = open(&mut receiver, forward(&mut viewer, &mut published, sequence).unwrap());
        assert_eq!(header.sequence_number, number);
    }
}

// COD-17, RTP-05
#[test]
fn a_viewer_that_joins_between_keyframes_starts_with_the_last_one_and_catches_up() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    // Four seconds since the keyframe; a keyframe every four seconds.
    for sequence in 0..241 {
        published.packet(sequence, 96, sequence % 120 == 0);
    }
    let joined = published.at(240) + Duration::from_millis(5);
    published.packet(241, 96, false);
    let (mut next, mut last, mut caught_up) = (241, None, None);
    for ms in 0..2_000 {
        let now = joined + Duration::from_millis(ms);
        if ms == 0 {
            assert!(video(&mut viewer).join(now, published.video()));
        }
        while published.at(next + 1) <= now {
            next += 1;
            published.packet(next, 96, false);
        }
        let (served, packets) = published.serve(now, &mut viewer, false);
        for packet in packets {
            let (header, packet) = open(&mut receiver, packet);
            let (number, timestamp) = (header.sequence_number, header.timestamp);
            let payload = header.payload(&packet)[0];
            match last {
                None => assert_eq!((number, payload), (0x7fff, 240)),
                Some((before, earlier)) => {
                    assert_eq!(number, before + 1);
                    assert!((1..=3_000).contains(&(timestamp - earlier)), "{timestamp} after {earlier}");
                }
            }
            last = Some((number, timestamp));
        }
        if !served.is_lagging {
            caught_up.get_or_insert(ms);
        }
        if ms > 100 {
            assert_eq!(last.unwrap().1, next as u32 * 3_000, "lags at {ms} ms");
        }
    }
    assert!(caught_up.is_some_and(|ms| ms <= 50), "{caught_up:?}");
}

// COD-17
#[test]
fn the_fast_start_of_a_long_group_of_pictures_is_paced_and_shows_the_first_frame_at_once() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    for sequence in 0..120 {
        published.packet(sequence, 96, sequence == 0);
    }
    let joined = published.at(119);
    assert!(video(&mut viewer).join(joined, published.video()));
    let mut times = Vec::new();
    for ms in (0..2_000).step_by(5) {
        let now = joined + Duration::from_millis(ms);
        let sequence = published.video().end();
        if published.at(sequence) <= now {
            published.packet(sequence, 96, false);
        }
        for packet in published.serve(now, &mut viewer, false).1 {
            let (header, _) = open(&mut receiver, packet);
            // What the receiver's clock makes of it: the frame is as old as the way takes, at no time older.
            let shown = i64::from(header.timestamp) / 90 - 119 * 1000 / 30;
            times.push((ms as i64, shown));
        }
    }
    assert_eq!(times[0], (0, 0));
    let late = times.iter().map(|&(sent, shown)| sent - shown).max().unwrap();
    assert!(late <= 40, "{late} ms");
    let most = (0..20).map(|slot| times.iter().filter(|(sent, _)| sent / 100 == slot).count()).max().unwrap();
    assert!(most <= 16, "{most} packets in 100 ms");
}

// SRTP-09: a packet that is read from the cache a second time is the same to the last bit, compressed timestamps included.
#[test]
fn a_resent_packet_of_a_fast_start_is_the_same_to_the_last_bit() {
    let (mut viewer, _) = viewer(None);
    let mut published = Published::new();
    for sequence in 0..60 {
        published.packet(sequence, 96, sequence == 0);
    }
    let joined = published.at(59);
    assert!(video(&mut viewer).join(joined, published.video()));
    let mut sent = Vec::new();
    for ms in (0..1_000).step_by(5) {
        sent.extend(published.serve(joined + Duration::from_millis(ms), &mut viewer, false).1);
    }
    assert_eq!(sent.len(), 60);
    for (sequence, original) in sent.iter().enumerate() {
        let number = 0x7fff_u16.wrapping_add(sequence as u16);
        let again = resend(&mut viewer, &published, joined + Duration::from_secs(2 + sequence as u64), number);
        assert_eq!(again.as_ref(), Some(original), "packet {sequence}");
    }
}

// RTCP-22, SRTP-09
#[test]
fn a_viewer_that_restarts_from_the_cache_goes_on_in_numbers_and_time() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    for sequence in 0..60 {
        published.packet(sequence, 96, sequence == 0);
    }
    let joined = published.at(59);
    assert!(video(&mut viewer).join(joined, published.video()));
    let mut got: Vec<(u16, u32, u8)> = Vec::new();
    for ms in (0..3_000).step_by(5) {
        let now = joined + Duration::from_millis(ms);
        // In the middle of its fast start, and after it.
        if ms == 200 || ms == 1_500 {
            assert!(video(&mut viewer).restart(now, published.video()));
        }
        let sequence = published.video().end();
        if published.at(sequence) <= now {
            published.packet(sequence, 96, false);
        }
        for packet in published.serve(now, &mut viewer, false).1 {
            let (header, packet) = open(&mut receiver, packet);
            got.push((header.sequence_number, header.timestamp, header.payload(&packet)[0]));
        }
    }
    assert_eq!(got.iter().filter(|&&(_, _, payload)| payload == 0).count(), 3, "three times from the keyframe on");
    for pair in got.windows(2) {
        assert_eq!(pair[1].0, pair[0].0 + 1);
        assert!(pair[1].1 > pair[0].1 && pair[1].1 - pair[0].1 <= 6_000, "{pair:?}");
    }
}

/// Frames of three packets; the timestamp of packet `sequence` is that of its frame.
fn frames(published: &mut Published, range: std::ops::Range<u64>, keyframes: &[u64]) {
    for sequence in range {
        let frame = sequence / 3;
        let info = PacketInfo {
            sequence,
            timestamp: frame as u32 * 3000,
            arrived: published.at(frame),
            payload_type: 96,
            marker: sequence % 3 == 2,
            keyframe: keyframes.contains(&frame) && sequence % 3 == 0,
            layer: PacketLayer::ONLY,
        };
        assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[frame as u8]));
    }
}

fn shown(receiver: &mut SrtpReceiver, packets: Vec<Vec<u8>>) -> Vec<(u16, u8)> {
    let open = |packet| {
        let (header, packet) = open(receiver, packet);
        (header.sequence_number.wrapping_sub(0x7fff), header.payload(&packet)[0])
    };
    packets.into_iter().map(open).collect()
}

// The rule of a shard that cannot keep up.
#[test]
fn what_waited_too_long_is_dropped_in_whole_frames_up_to_the_next_keyframe() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    frames(&mut published, 0..4, &[0]);
    let now = published.at(1);
    assert_eq!(shown(&mut receiver, published.serve(now, &mut viewer, true).1), [(0, 0), (1, 0), (2, 0), (3, 1)]);
    // A frame that was begun is finished; the whole ones after it are dropped, up to a keyframe.
    frames(&mut published, 4..30, &[0, 8]);
    let (served, packets) = published.serve(published.at(9), &mut viewer, true);
    assert_eq!((served.dropped, served.needs_keyframe), (18, None));
    let rest: Vec<(u16, u8)> = vec![(4, 1), (5, 1), (6, 8), (7, 8), (8, 8), (9, 9), (10, 9), (11, 9)];
    assert_eq!(shown(&mut receiver, packets), rest);
    // Without a keyframe all are dropped, and nothing is sent before the next one.
    frames(&mut published, 30..60, &[]);
    let (served, packets) = published.serve(published.at(20), &mut viewer, true);
    assert_eq!((served.dropped, served.needs_keyframe, packets.len()), (30, Some((TrackId::VIDEO, 0)), 0));
    frames(&mut published, 60..63, &[]);
    assert_eq!(published.serve(published.at(20), &mut viewer, false).1.len(), 0);
    assert!(video(&mut viewer).awaits_keyframe());
    frames(&mut published, 63..66, &[21]);
    let (_, packets) = published.serve(published.at(21), &mut viewer, false);
    assert_eq!(shown(&mut receiver, packets), [(12, 21), (13, 21), (14, 21)]);
}

// RTCP-16
#[test]
fn a_pause_of_the_machine_drops_no_frame_where_the_path_carries_the_stream() {
    let (mut viewer, _) = viewer(Some(101));
    let mut published = Published::new();
    viewer.congestion_mut().on_remb(published.at(0), 100_000, 50_000);
    frames(&mut published, 0..12, &[0]);
    let (served, packets) = published.serve(published.at(4), &mut viewer, false);
    assert!(served.is_lagging && packets.len() < 12, "the pacer holds some");
    for step in 0..100 {
        let now = published.at(4) + Duration::from_millis(400 + 5 * step);
        assert_eq!(published.serve(now, &mut viewer, false).0.dropped, 0);
    }
    assert_eq!(viewer.sent().packets, 12);
}

#[test]
fn what_waited_a_little_or_while_nothing_is_dropped_is_sent_whole() {
    for (age, overloaded) in [(Duration::from_millis(190), true), (Duration::from_secs(3), false)] {
        let (mut viewer, _) = viewer(Some(101));
        let mut published = Published::new();
        frames(&mut published, 0..3, &[0]);
        assert_eq!(published.serve(published.at(0), &mut viewer, true).1.len(), 3);
        frames(&mut published, 3..6, &[]);
        assert_eq!(published.serve(published.at(1) + age, &mut viewer, overloaded).1.len(), 3);
    }
}
