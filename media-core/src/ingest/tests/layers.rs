//! Which layers a track has, as it is observed, and what is spared where nobody watches one.

use super::simulcast::with_rids;
use super::*;
use crate::layers::{LayerReport, OperatingPoint};
use crate::stream::CacheBudget;

/// A publisher of three encodings at 40 frames a second, measured as a shard does.
struct Publisher {
    harness: Harness,
    rids: [&'static str; 3],
    /// Bytes of a frame; none while it is paused.
    frames: [usize; 3],
    sequences: [u16; 3],
    /// Keyframes that were requested, by encoding.
    requested: [usize; 3],
}

impl Publisher {
    fn new(rids: [&'static str; 3], frames: [usize; 3]) -> Publisher {
        let harness = Harness::new(&[audio(), with_rids(&rids)]);
        let mut publisher = Publisher { harness, rids, frames, sequences: [0; 3], requested: [0; 3] };
        publisher.publish();
        publisher
    }

    /// As the shard does when the publisher is connected.
    fn publish(&mut self) {
        let tracks = self.harness.ingest.tracks();
        let published: Vec<_> = tracks.map(|(id, section)| crate::stream::PublishedTrack::new(id, section)).collect();
        self.harness.tracks.set_publisher(Some(&published));
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            if self.harness.ms.is_multiple_of(25) {
                for encoding in 0..3 {
                    if self.frames[encoding] > 0 {
                        self.frame(encoding);
                    }
                }
            }
            if self.harness.ms.is_multiple_of(100) {
                let now = self.harness.now();
                self.harness.tracks.measure(now);
            }
            self.harness.ms += 5;
        }
    }

    /// A frame in one packet, a keyframe if one is requested.
    fn frame(&mut self, encoding: usize) {
        let now = self.harness.now();
        let wanted = self.harness.tracks.encoding_mut(TrackId::VIDEO, encoding as u8).unwrap();
        let is_requested = wanted.poll_keyframe_request(now);
        self.requested[encoding] += usize::from(is_requested);
        let begins = self.sequences[encoding] == 0 || is_requested;
        let mut payload = vec![0; self.frames[encoding].max(50)];
        payload[..2].copy_from_slice(if begins { &KEYFRAME[..2] } else { &DELTA[..2] });
        let timestamp = (self.harness.ms * 90) as u32;
        let packet = Packet { timestamp, ..Packet::video(1 + encoding as u32, self.sequences[encoding], &payload) };
        self.sequences[encoding] += 1;
        let element = [(6, self.rids[encoding].as_bytes())];
        if let Ok(Accepted::Forward { encoding, keyframe: true, .. }) = self.harness.receive(&packet.with(&element)) {
            let encoding = self.harness.tracks.encoding_mut(TrackId::VIDEO, encoding).unwrap();
            encoding.keyframe_requests.on_keyframe();
        }
    }

    /// The next packet of an encoding is lost.
    fn lose(&mut self, encoding: usize) {
        self.sequences[encoding] += 1;
    }

    /// Encoding, kbit/s and frames a second of the layers, from the lowest quality.
    fn layers(&self) -> Vec<(u8, u64, u32)> {
        let layers = self.harness.tracks.get(TrackId::VIDEO).unwrap().layers();
        layers
            .iter()
            .map(|layer| (layer.point.encoding, layer.bitrate / 1_000, layer.frame_rate.round() as u32))
            .collect()
    }

    fn reports(&self) -> Vec<LayerReport> {
        self.harness.tracks.get(TrackId::VIDEO).unwrap().layer_reports()
    }

    fn changed(&mut self) -> bool {
        self.harness.tracks.get_mut(TrackId::VIDEO).unwrap().take_layers_changed()
    }

    /// As the shard does several times a second.
    fn watch(&mut self, encodings: u8) {
        let now = self.harness.now();
        self.harness.tracks.get_mut(TrackId::VIDEO).unwrap().set_watched(now, encodings, true);
    }
}

/// Whether every figure is within a tenth.
fn close(layers: &[(u8, u64, u32)], expected: &[(u8, u64, u32)]) -> bool {
    let near = |one: u64, other: u64| 10 * one.abs_diff(other) <= other;
    let is_near = |one: &(u8, u64, u32), other: &(u8, u64, u32)| {
        one.0 == other.0 && near(one.1, other.1) && near(one.2.into(), other.2.into())
    };
    layers.len() == expected.len() && layers.iter().zip(expected).all(|(one, other)| is_near(one, other))
}

// SDP-45: OBS names its full layer 0, browsers' come in any order.
#[test]
fn layers_are_ordered_by_what_is_observed_of_them() {
    for (rids, frames, order) in
        [(["q", "h", "f"], [100, 400, 1_300], [0, 1, 2]), (["0", "1", "2"], [1_300, 400, 100], [2, 1, 0])]
    {
        let mut publisher = Publisher::new(rids, frames);
        publisher.run(3_000);
        let kbits = |encoding: u8| frames[usize::from(encoding)] as u64 * 8 * 40 / 1_000;
        let expected = order.map(|encoding| (encoding, kbits(encoding), 40));
        assert!(close(&publisher.layers(), &expected), "{:?}", publisher.layers());
        let reports = publisher.reports();
        let named: Vec<_> = reports.iter().map(|report| report.rid.as_deref().unwrap()).collect();
        assert_eq!(named, order.map(|encoding| rids[usize::from(encoding)]));
        let track = publisher.harness.tracks.get(TrackId::VIDEO).unwrap();
        assert_eq!((track.encoding_named(rids[1]), track.encoding_named("x")), (Some(1), None));
        let audio = publisher.harness.tracks.get(TrackId::AUDIO).unwrap();
        assert!(audio.layers().is_empty() && audio.layer_reports().is_empty());
    }
}

// SDP-45: where sizes are known they count before bits: a small picture may need more of them than a large one that rests.
#[test]
fn a_larger_picture_is_a_higher_layer_whatever_it_carries() {
    let mut publisher = Publisher::new(["q", "h", "f"], [900, 400, 100]);
    for (encoding, size) in [(0, (320, 180)), (1, (640, 360)), (2, (1_280, 720))] {
        publisher.harness.tracks.encoding_mut(TrackId::VIDEO, encoding).unwrap().described.sizes[0] = Some(size);
    }
    publisher.run(1_000);
    assert_eq!(publisher.layers().iter().map(|layer| layer.0).collect::<Vec<_>>(), [0, 1, 2]);
    let report = &publisher.reports()[1];
    assert_eq!((report.layer.width, report.layer.height, report.layer.point.encoding), (640, 360, 1));
    let layer = publisher.harness.tracks.get(TrackId::VIDEO).unwrap().layers()[2];
    assert_eq!((layer.point, layer.width), (OperatingPoint { encoding: 2, spatial: 0, temporal: 0 }, 1_280));
}

// Chromium stops its upper layers where its uplink is narrow.
#[test]
fn layers_start_late_pause_and_return() {
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 0, 0]);
    publisher.run(1_000);
    assert!(close(&publisher.layers(), &[(0, 32, 40)]), "{:?}", publisher.layers());
    assert!(publisher.changed() && !publisher.changed());
    let reports = publisher.reports();
    assert_eq!(
        reports.iter().map(|report| (report.layer.point.encoding, report.layer.bitrate > 0)).collect::<Vec<_>>(),
        [(0, true), (1, false), (2, false)]
    );
    publisher.frames = [100, 400, 1_300];
    publisher.run(1_500);
    assert!(publisher.changed());
    assert!(close(&publisher.layers(), &[(0, 32, 40), (1, 128, 40), (2, 416, 40)]), "{:?}", publisher.layers());
    publisher.frames[2] = 0;
    publisher.run(700);
    assert_eq!(publisher.layers().iter().map(|layer| layer.0).collect::<Vec<_>>(), [0, 1], "within 0.7 s");
    assert!(publisher.changed());
    let (_, reception) = publisher.harness.ingest.receptions().last().unwrap();
    assert_eq!(reception.undecodable_since, None);
    publisher.run(10_000);
    assert!(!publisher.changed());
    // What it carries is known soon after its return, and it goes on without a keyframe.
    publisher.frames[2] = 1_300;
    publisher.run(400);
    assert!(close(&[publisher.layers()[2]], &[(2, 416, publisher.layers()[2].2)]), "{:?}", publisher.layers());
    assert!(publisher.changed());
    assert_eq!(publisher.requested, [0; 3]);
}

#[test]
fn all_layers_of_a_track_rest_together() {
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 400, 1_300]);
    publisher.run(2_000);
    assert!(publisher.changed());
    publisher.frames = [0; 3];
    publisher.run(5_000);
    assert!(publisher.layers().len() == 3 && !publisher.changed());
}

#[test]
fn an_encoding_of_few_pictures_is_not_taken_for_paused() {
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 0, 0]);
    for second in 0..30 {
        publisher.frame(1);
        publisher.run(1_000);
        if second > 3 {
            assert_eq!(publisher.layers().len(), 2, "one picture a second");
        }
    }
}

#[test]
fn another_publisher_s_layers_are_its_own() {
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 400, 1_300]);
    publisher.run(2_000);
    assert!(publisher.changed());
    publisher.harness.restart(&[audio(), video()]);
    publisher.publish();
    assert!(publisher.layers().is_empty() && publisher.reports().is_empty());
    publisher.harness.tracks.measure(publisher.harness.now());
    assert!(publisher.layers().is_empty() && !publisher.changed());
    publisher.frames = [700, 0, 0];
    publisher.sequences = [0; 3];
    publisher.run(1_000);
    assert!(publisher.changed());
    assert_eq!(
        publisher.reports().iter().map(|report| (report.layer.point.encoding, report.rid.clone())).collect::<Vec<_>>(),
        [(0, None)]
    );
}

// RTCP-11: layers that nobody watches get no requests, unless nothing could be decoded at all.
#[test]
fn losses_of_a_layer_that_nobody_watches_ask_for_no_keyframe() {
    for (watched, expected) in [(0b111, [true; 3]), (0b010, [false, true, false]), (0, [true, false, false])] {
        let mut publisher = Publisher::new(["q", "h", "f"], [100, 400, 1_300]);
        publisher.run(1_000);
        publisher.watch(watched);
        for encoding in 0..3 {
            publisher.lose(encoding);
        }
        // Nothing is sent again.
        for _ in 0..40 {
            publisher.run(50);
            publisher.harness.nacks();
            let needed: Vec<_> = publisher.harness.ingest.take_keyframes_needed().collect();
            for (track, encoding) in needed {
                publisher.harness.tracks.get_mut(track).unwrap().lacks_keyframe(encoding);
            }
        }
        assert_eq!(publisher.requested.map(|requested| requested > 0), expected, "{watched:b}");
    }
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 400, 1_300]);
    publisher.watch(0b001);
    let track = publisher.harness.tracks.get_mut(TrackId::VIDEO).unwrap();
    track.lacks_keyframe(2);
    assert!(
        track.encoding_mut(2).unwrap().poll_keyframe_request(publisher.harness.start),
        "nothing can be decoded yet"
    );
}

// M4
#[test]
fn the_cache_of_a_layer_that_nobody_watches_shrinks_and_grows_again() {
    let budget = CacheBudget::unlimited();
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 400, 1_300]);
    let tracks = Tracks::within(budget.clone(), Duration::from_millis(500));
    publisher.harness.tracks = tracks;
    let sections = [audio(), with_rids(&publisher.rids)];
    publisher.harness.ingest = Ingest::new(publisher.harness.now(), &sections, &mut publisher.harness.tracks);
    publisher.publish();
    let step = |publisher: &mut Publisher, ms: u64, watched: u8| {
        for _ in 0..ms / 100 {
            publisher.run(100);
            publisher.watch(watched);
        }
        let now = publisher.harness.now();
        let encoding = |encoding| publisher.harness.tracks.encoding(TrackId::VIDEO, encoding).unwrap();
        (budget.used() >> 10, [0, 1, 2].map(|index| encoding(index).start(now).is_some()))
    };
    let (all, starts) = step(&mut publisher, 8_000, 0b111);
    assert_eq!(starts, [true; 3]);
    for encoding in 0..3 {
        publisher.harness.tracks.encoding_mut(TrackId::VIDEO, encoding).unwrap().keyframe_requests.request();
    }
    // Viewers that come back to a layer a moment later find it as it was.
    let (still, starts) = step(&mut publisher, 1_000, 0b001);
    assert!(still == all && starts == [true; 3]);
    let (small, starts) = step(&mut publisher, 6_000, 0b001);
    assert!(small < all - 1_500, "{small} of {all} KiB");
    assert_eq!(starts, [true, true, false], "the largest has no room for all since its keyframe");
    let (nobody, _) = step(&mut publisher, 6_000, 0);
    assert_eq!(nobody, small, "the lowest is kept for the next viewer");
    // Watched again, it has its keyframe soon.
    publisher.harness.tracks.encoding_mut(TrackId::VIDEO, 2).unwrap().keyframe_requests.request();
    let (again, starts) = step(&mut publisher, 4_000, 0b100);
    assert!(starts[2] && again > small, "{starts:?} {again}");
}

/// A VP8 frame of a temporal layer in one packet; a keyframe of 640x360 at first.
fn vp8(temporal: u8, is_keyframe: bool, bytes: usize) -> Vec<u8> {
    // X and S; T; the layer and Y.
    let mut payload = vec![0x90, 0x20, temporal << 6 | 0x20, u8::from(!is_keyframe)];
    if is_keyframe {
        payload.extend([0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
    }
    payload.resize(bytes, 0);
    payload
}

// COD-05, EXT-H11
#[test]
fn layers_inside_an_encoding_have_their_part_of_its_bits_and_pictures() {
    let mut harness = Harness::new(&[video()]);
    for frame in 0..160_u16 {
        let temporal = [0, 2, 1, 2][usize::from(frame % 4)];
        let payload = vp8(temporal, frame == 0, [400, 200, 100][usize::from(temporal)]);
        harness.ms = 25 * u64::from(frame);
        let (number, _) = harness.forwarded(&Packet::video(1, frame, &payload));
        let layer = harness.video(number).unwrap().info.layer;
        assert_eq!((layer.temporal, layer.frame_end), (temporal, true));
        harness.tracks.measure(harness.now());
    }
    let layers = harness.tracks.get(TrackId::VIDEO).unwrap().layers();
    let figures: Vec<_> = layers
        .iter()
        .map(|layer| (layer.point.temporal, layer.bitrate / 1_000, layer.frame_rate.round() as u32))
        .collect();
    assert!(close(&figures, &[(0, 32, 10), (1, 48, 20), (2, 64, 40)]), "{figures:?}");
    assert!(layers.iter().all(|layer| (layer.width, layer.height) == (640, 360) && layer.point.encoding == 0));
    // Another shard learns what it cannot see in the packets.
    let mut other = Tracks::new(Duration::ZERO);
    let described = harness.tracks.get(TrackId::VIDEO).unwrap().described();
    other.get_or_insert(TrackId::VIDEO).set_described(&described);
    for sequence in 0..160 {
        let packet = harness.video(sequence).unwrap();
        other.encoding_mut(TrackId::VIDEO, 0).unwrap().admit(packet.info, packet.extensions, packet.payload);
        other.measure(packet.info.arrived);
    }
    assert_eq!(
        other.get(TrackId::VIDEO).unwrap().layers().iter().map(|layer| (layer.point, layer.width)).collect::<Vec<_>>(),
        layers.iter().map(|layer| (layer.point, layer.width)).collect::<Vec<_>>()
    );
}

// EXT-H11: what the sender says of its layers is known before it can be seen, and is not forwarded.
#[test]
fn a_layers_allocation_tells_sizes_and_pauses() {
    let allocations: [&[u8]; 2] = [
        // Three streams with one spatial layer each: 100, 400 and 1,500 kbit/s; 320x180, 640x360 and 1280x720.
        &[0x21, 0x00, 100, 0x90, 3, 0xdc, 11, 1, 63, 0, 179, 30, 2, 127, 1, 103, 30, 4, 255, 2, 207, 30],
        // Of these only the first is sent.
        &[0x20, 0x10, 0x00, 0x00, 100],
    ];
    let mut publisher = Publisher::new(["q", "h", "f"], [100, 400, 1_300]);
    let mut section = with_rids(&publisher.rids);
    section.extensions.set(Extension::VideoLayersAllocation, 11);
    let now = publisher.harness.now();
    publisher.harness.ingest = Ingest::new(now, &[audio(), section], &mut publisher.harness.tracks);
    publisher.publish();
    publisher.run(1_000);
    assert!(publisher.reports().iter().all(|report| report.layer.width == 0));
    let say = |publisher: &mut Publisher, allocation| {
        let sequence = publisher.sequences[0];
        publisher.sequences[0] += 1;
        let timestamp = (publisher.harness.ms * 90) as u32;
        let packet = Packet { timestamp, ..Packet::video(1, sequence, DELTA) };
        let number = publisher.harness.forwarded(&packet.with(&[(11, allocation)])).0;
        assert!(publisher.harness.video(number).unwrap().extensions.is_empty());
    };
    say(&mut publisher, allocations[0]);
    publisher.run(200);
    assert_eq!(
        publisher.reports().iter().map(|report| (report.layer.width, report.layer.height)).collect::<Vec<_>>(),
        [(320, 180), (640, 360), (1_280, 720)]
    );
    assert!(publisher.changed());
    say(&mut publisher, allocations[1]);
    publisher.frames = [100, 0, 0];
    publisher.run(200);
    assert_eq!(publisher.layers().len(), 1, "at once");
    say(&mut publisher, allocations[0]);
    publisher.frames = [100, 400, 1_300];
    publisher.run(200);
    assert_eq!(publisher.layers().len(), 3);
    // One that was held up on the way is older than what is known.
    let (sequence, timestamp) = (publisher.sequences[0], (publisher.harness.ms * 90) as u32 - 9_000);
    publisher.sequences[0] += 1;
    let late = Packet { timestamp, ..Packet::video(1, sequence, DELTA) };
    publisher.harness.receive(&late.with(&[(11, allocations[1])])).unwrap();
    publisher.frames[1] = 0;
    publisher.run(200);
    assert_eq!(publisher.layers().len(), 3, "none is said to be off");
    publisher.frames[1] = 400;
    publisher.run(200);
    let malformed: [&[u8]; 4] =
        [&[], &[0xff], &[0x21, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x21, 0]];
    malformed.into_iter().for_each(|allocation| say(&mut publisher, allocation));
    publisher.run(200);
    assert_eq!(publisher.layers().len(), 3);
}

/// Of 638 × 362.
const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xea, 0x4c, 0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00,
    0x00, 0x0f, 0x03, 0xc5, 0x8b, 0x65, 0x80,
];

// EXT-09: OBS says the size of its layers in their parameter sets alone.
#[test]
fn the_size_of_h264_is_that_of_its_parameter_sets() {
    let mut harness = Harness::new(&[section(MediaKind::Video, vec![format(96, Codec::H264, Some(97))])]);
    for (sequence, unit) in (0..).zip([SPS, &[0x68, 0xce], &[0x65, 0x88]]) {
        harness.forwarded(&Packet { timestamp: 9, ..Packet::video(1, sequence, unit) });
    }
    let described = harness.tracks.encoding(TrackId::VIDEO, 0).unwrap().described;
    assert_eq!((described.sizes[0], described.points), (Some((638, 362)), 1));
}

// EXT-09, RTP-07: what the codec before had says nothing of the one that follows on the same SSRC.
#[test]
fn size_and_layers_are_those_of_the_codec_in_use() {
    let formats = vec![format(96, Codec::H264, None), format(98, Codec::Vp9, None), format(99, Codec::Vp8, None)];
    let mut harness = Harness::new(&[section(MediaKind::Video, formats)]);
    for (sequence, unit) in (0..).zip([SPS, &[0x68, 0xce], &[0x65, 0x88]]) {
        harness.forwarded(&Packet { timestamp: 9, ..Packet::video(1, sequence, unit) });
    }
    // A keyframe of two spatial layers, and the upper one.
    let vp9: [&[u8]; 2] = [&[0x28, 0x00, 0x01, 0x82], &[0x28, 0x03, 0x01, 0x82]];
    for (sequence, payload) in (10..).zip(vp9) {
        let packet = Packet { payload_type: 98, timestamp: 18, ..Packet::video(1, sequence, payload) };
        harness.receive(&packet).unwrap();
    }
    let points = harness.tracks.encoding(TrackId::VIDEO, 0).unwrap().described.points;
    assert_ne!(points, 1);
    let vp8 = [0x10, 0x00, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00];
    harness.forwarded(&Packet { payload_type: 99, timestamp: 27, ..Packet::video(1, 20, &vp8) });
    let described = harness.tracks.encoding(TrackId::VIDEO, 0).unwrap().described;
    assert_eq!((described.sizes[0], described.points), (Some((320, 180)), 1));
}
