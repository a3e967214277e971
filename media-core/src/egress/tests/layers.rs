//! A viewer of several encodings over a path whose rate changes, in virtual time: 25 ms each way, feedback every 50 ms.

use std::collections::{HashSet, VecDeque};

use super::layered::{Coding, Decoder, FRAME_INTERVAL, Publisher, frame_of};
use super::numbered::{AUDIO_SSRC, NUMBER, VIDEO_SSRC, numbered_tracks};
use super::*;
use crate::bwe::tests::{Link, feedback_messages};
use crate::layers::{LayerSelection, OperatingPoint};
use crate::rtcp::{RtcpPacket, RtcpPackets};

/// µs: a longer queue at the bottleneck drops its tail.
const MAX_QUEUE: u64 = 250_000;
/// Of 32 kbit/s.
const AUDIO_BYTES: usize = 80;
/// ms: the viewer misses a packet when the next one has come, and asks again after a round trip.
const NACK_AFTER: u64 = 100;
const NACK_AGAIN: u64 = 100;
/// IPv4 and UDP.
const HEADERS: usize = 28;

const LOW: Coding = Coding { rate: 150_000, width: 320, temporal: 3, keyframe: 4.0 };
const MIDDLE: Coding = Coding { rate: 500_000, width: 640, temporal: 3, keyframe: 4.0 };
const HIGH: Coding = Coding { rate: 2_200_000, width: 1_280, temporal: 3, keyframe: 4.0 };

/// A viewer, its path and the publisher. One flat list of state and record.
struct Simulation {
    viewer: Viewer,
    receiver: SrtpReceiver,
    publisher: Publisher,
    link: Link,
    /// ms.
    time: u64,
    next_audio: u64,
    is_lagging: bool,
    /// Arrival in µs, transport-wide number, and the packet as repaired, with its header.
    in_transit: VecDeque<(u64, u16, RtpHeader, Vec<u8>)>,
    feedback: VecDeque<(u64, Vec<u8>)>,
    feedback_count: u8,
    /// When keyframes are due that were requested, by encoding.
    requested: Vec<Option<u64>>,
    /// The encoder makes keyframes of all encodings when one is requested; the others' come first.
    answers_by_all: bool,
    requests: u64,
    decoder: Decoder,
    /// Packets that the bottleneck dropped: when the viewer asks for them, in ms, their numbers and their frames.
    nacks: VecDeque<(u64, u16, usize)>,
    /// The frames of packets that were given up.
    lost: Vec<usize>,
    /// Arrival and age of audio packets, in ms.
    audio: Vec<(u64, u64)>,
    /// Where the viewer was at each ms.
    points: Vec<(OperatingPoint, bool)>,
}

/// The packet that a retransmission has in it (RFC 4588 §4); any other one as it is.
fn repaired(mut header: RtpHeader, mut packet: Vec<u8>) -> (RtpHeader, Vec<u8>) {
    if header.ssrc == VIDEO_SSRC + 1
        && let Some(&number) = header.payload(&packet).first_chunk()
    {
        let start = packet.len() - header.payload(&packet).len();
        packet.drain(start..start + 2);
        (header.ssrc, header.sequence_number) = (VIDEO_SSRC, u16::from_be_bytes(number));
    }
    (header, packet)
}

impl Simulation {
    fn new(capacity: f64, codings: &[Coding]) -> Simulation {
        let publisher = Publisher::new(codings);
        let [audio, video] = numbered_tracks();
        let profile = SrtpProfile::AeadAes128Gcm;
        let (_, sender) = KeyingMaterial::new(profile, &EXPORTED).unwrap().contexts(DtlsRole::Server).unwrap();
        let (receiver, _) = KeyingMaterial::new(profile, &EXPORTED).unwrap().contexts(DtlsRole::Client).unwrap();
        let mut viewer = Viewer::new(publisher.start, sender, vec![audio, video], 0);
        viewer.start(publisher.start, &publisher.tracks);
        Simulation {
            viewer,
            receiver,
            publisher,
            link: Link::new(capacity).with_queue(MAX_QUEUE),
            time: 0,
            next_audio: 0,
            is_lagging: false,
            in_transit: VecDeque::new(),
            feedback: VecDeque::new(),
            feedback_count: 0,
            requested: vec![None; codings.len()],
            answers_by_all: false,
            requests: 0,
            decoder: Decoder::default(),
            nacks: VecDeque::new(),
            lost: Vec::new(),
            audio: Vec::new(),
            points: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.publisher.at(self.time)
    }

    fn run(&mut self, seconds: f64) {
        for _ in 0..(seconds * 1_000.0) as u64 {
            self.step();
            self.time += 1;
        }
    }

    fn step(&mut self) {
        let now = self.now();
        let mut due = self.produce() || (self.is_lagging && self.time.is_multiple_of(5));
        due |= self.take_feedback(now);
        if self.time.is_multiple_of(100) {
            self.publisher.tracks.measure(now);
            due |= self.choose(now);
            let (can_probe, media) = (self.viewer.can_pad(), self.viewer.media());
            due |= self.viewer.congestion_mut().poll(now, media, can_probe);
        }
        if due {
            self.serve(now);
        }
        self.repair(now);
        if self.time.is_multiple_of(50) {
            self.arrive();
        }
        self.points.push((video(&mut self.viewer).point(), self.viewer.is_video_paused()));
    }

    fn choose(&mut self, now: Instant) -> bool {
        let chosen = self.viewer.choose_layers(now, &self.publisher.tracks, || true);
        chosen.keyframes.iter().for_each(|&(_, encoding)| self.request(encoding));
        chosen.has_moved
    }

    /// Asks the encoder, which answers the first request after 60 ms, or with the others' keyframes then and its own after 180.
    fn request(&mut self, encoding: u8) {
        self.requests += 1;
        let due = self.time + if self.answers_by_all { 180 } else { 60 };
        self.requested[usize::from(encoding)].get_or_insert(due);
        if self.answers_by_all {
            self.requested.iter_mut().for_each(|due| _ = due.get_or_insert(self.time + 60));
        }
    }

    fn produce(&mut self) -> bool {
        let mut has_packets = false;
        if self.time >= self.next_audio {
            self.next_audio += 20;
            let arrived = self.now();
            let encoding = self.publisher.tracks.encoding_mut(TrackId::AUDIO, 0).unwrap();
            let sequence = encoding.end();
            let info = PacketInfo {
                sequence,
                timestamp: sequence as u32 * 960,
                arrived,
                payload_type: 111,
                marker: false,
                keyframe: true,
                layer: PacketLayer::ONLY,
            };
            assert!(encoding.admit(info, &[], &[0; AUDIO_BYTES]));
            has_packets = true;
        }
        for (encoding, requested) in (0..).zip(&mut self.requested) {
            if requested.take_if(|due| self.time >= *due).is_some() {
                self.publisher.request_keyframe(encoding);
            }
        }
        if self.time.is_multiple_of(self.publisher.frame_interval) {
            for packet in self.publisher.encode(self.time) {
                assert!(self.publisher.receive(&packet));
            }
            has_packets = true;
        }
        has_packets
    }

    fn take_feedback(&mut self, now: Instant) -> bool {
        let mut has_moved = false;
        while self.feedback.front().is_some_and(|&(at, _)| at <= self.time * 1_000) {
            let (_, bytes) = self.feedback.pop_front().unwrap();
            for packet in RtcpPackets::new(&bytes) {
                let Ok(RtcpPacket::TransportFeedback(feedback)) = packet else { panic!("no feedback") };
                let media = self.viewer.media();
                self.viewer.congestion_mut().on_feedback(now, &feedback, media);
                if self.viewer.is_overtaxed() {
                    has_moved |= self.choose(now);
                }
            }
        }
        has_moved
    }

    fn serve(&mut self, now: Instant) {
        self.publisher.tracks.begin_pass();
        let mut out = Outbound::disconnected();
        let pass = FanOutPass { now, tracks: &self.publisher.tracks, overloaded: false };
        let served = self.viewer.serve(&pass, tuple(), &mut out);
        self.is_lagging = served.is_lagging;
        if let Some((_, encoding)) = served.needs_keyframe {
            self.request(encoding);
        }
        self.transmit(&out);
    }

    /// Sends again what the viewer misses.
    fn repair(&mut self, now: Instant) {
        while let Some((_, number, frame)) = self.nacks.pop_front_if(|(due, ..)| *due <= self.time) {
            let mut out = Outbound::disconnected();
            let tracks = &self.publisher.tracks;
            match self.viewer.resend(now, (VIDEO_SSRC, number), tracks, tuple(), &mut out) {
                Resent::Yes => self.transmit(&out),
                Resent::No => self.nacks.push_back((self.time + NACK_AGAIN, number, frame)),
                Resent::BeyondRepair => self.lost.push(frame),
            }
        }
    }

    fn transmit(&mut self, out: &Outbound) {
        let packets: Vec<Vec<u8>> = out.batch().datagrams().map(<[u8]>::to_vec).collect();
        for packet in packets {
            let length = packet.len();
            let (header, packet) = open(&mut self.receiver, packet);
            let number = header.extension(&packet, NUMBER).unwrap();
            let number = u16::from_be_bytes([number[0], number[1]]);
            let (header, packet) = repaired(header, packet);
            match self.link.send(self.time * 1_000, length + HEADERS) {
                Some(arrival) => self.in_transit.push_back((arrival, number, header, packet)),
                None if header.ssrc == VIDEO_SSRC => {
                    let frame = frame_of(header.payload(&packet));
                    self.nacks.push_back((self.time + NACK_AFTER, header.sequence_number, frame));
                }
                None => {}
            }
        }
    }

    fn arrive(&mut self) {
        let mut packets = Vec::new();
        while self.in_transit.front().is_some_and(|&(arrival, ..)| arrival <= self.time * 1_000) {
            let (arrival, number, header, packet) = self.in_transit.pop_front().unwrap();
            packets.push((number, Some(arrival)));
            let ms = arrival / 1_000;
            match header.ssrc {
                VIDEO_SSRC => self.decoder.take(ms, &header, &packet, &self.publisher.frames),
                AUDIO_SSRC => self.audio.push((ms, ms - u64::from(header.timestamp) / 960 * 20)),
                _ => {}
            }
        }
        let arrival = self.time * 1_000 + self.link.one_way;
        let messages = feedback_messages(&packets, &mut self.feedback_count);
        self.feedback.extend(messages.into_iter().map(|message| (arrival, message)));
    }

    /// Frames shown, and the longest time without one, from `from` to `to` in ms; what is shown at the end.
    fn shown(&self, from: u64, to: u64) -> (usize, u64, Option<u8>) {
        let times: Vec<(usize, u64)> =
            self.decoder.shown.iter().copied().filter(|(_, at)| (from..to).contains(at)).collect();
        let longest = times.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or(to - from);
        let last = times.last().map(|&(frame, _)| self.publisher.frames[frame].encoding);
        (times.len(), longest, last)
    }

    /// How long the picture stood still from `from` to `to`, in ms, as WebRTC's statistics count it (`totalFreezesDuration`).
    fn frozen(&self, from: u64, to: u64) -> u64 {
        let times: Vec<u64> = self.decoder.shown.iter().map(|&(_, at)| at).filter(|&at| at < to).collect();
        let mut frozen = 0;
        for window in times.windows(31).filter(|window| window[30] >= from) {
            let mean = (window[29] - window[0]) / 29;
            let interval = window[30] - window[29];
            frozen += if interval > (3 * mean).max(mean + 150) { interval } else { 0 };
        }
        frozen
    }

    /// When after `from` the viewer was at an encoding for good, until `to`, in ms since then.
    fn settled(&self, from: u64, to: u64, encoding: u8) -> Option<u64> {
        let points = &self.points[from as usize..to as usize];
        let last_other = points.iter().rposition(|(point, _)| point.encoding != encoding);
        let since = last_other.map_or(0, |at| at as u64 + 1);
        (since < to - from).then_some(since)
    }

    fn finish(&mut self) {
        self.lost.extend(self.nacks.drain(..).map(|(_, _, frame)| frame));
        // Pictures that were dropped as late count, and a keyframe follows.
        let has_dropped = self.viewer.sent().dropped > 0;
        self.decoder.check(&self.publisher.frames, !has_dropped);
        assert!(self.decoder.missing() <= self.lost.len() as u64, "{} missing", self.decoder.missing());
        let lost: HashSet<usize> = self.lost.iter().copied().collect();
        assert_eq!(self.decoder.undecodable(&self.publisher.frames, &lost), [0; 0]);
    }
}

// RTCP-16, RTP-06, RTP-07, COD-06, COD-16: the whole way down and up again.
#[test]
fn a_viewer_follows_its_path_through_the_encodings() {
    let mut simulation = Simulation::new(3e6, &[HIGH, MIDDLE, LOW]);
    simulation.run(10.0);
    assert!(simulation.settled(0, 10_000, 0).is_some_and(|ms| ms < 4_000));
    for (capacity, encoding) in [(800e3, 1), (330e3, 2), (3e6, 0)] {
        let from = simulation.time;
        simulation.link.set_rate(capacity);
        simulation.run(15.0);
        let settled = simulation.settled(from, simulation.time, encoding);
        let (frames, longest, last) = simulation.shown(from, from + 15_000);
        let case = format!("{capacity}: {settled:?} ms, {frames} frames, {longest} ms, {last:?}");
        assert!(settled.is_some_and(|ms| ms <= 4_000) && last == Some(encoding), "{case}");
        // On the way up half of the frames come first.
        let least = if encoding == 0 { 18 } else { 26 };
        assert!(longest < 1_000 && frames > 15 * least, "{case}");
    }
    simulation.finish();
    let late = simulation.audio.iter().filter(|(at, age)| *age > 400 && *at > 100).count();
    assert!(late * 100 < simulation.audio.len(), "{late} of {} audio packets", simulation.audio.len());
    // A keyframe for every move, and some for those that took too much.
    let keyframes: u64 = (0..3).map(|encoding| simulation.publisher.keyframes(encoding)).sum();
    assert!(keyframes <= 14, "{keyframes}");
}

/// A publisher whose highest encoding has 1 Mbit/s, before a path with a queue of a second.
fn long_queued(frame_interval: u64, temporal: u8, keyframes: [f64; 3]) -> Simulation {
    let coding = |rate, width, keyframe| Coding { rate, width, temporal, keyframe };
    let [high, middle, low] = keyframes;
    let codings = [coding(1_000_000, 960, high), coding(285_000, 480, middle), coding(80_000, 240, low)];
    let mut simulation = Simulation::new(3e6, &codings);
    simulation.publisher.frame_interval = frame_interval;
    simulation.link = Link::new(3e6).with_queue(1_000_000);
    simulation
}

// RTCP-16: the queue that the higher layer leaves in front of a link that breaks is not waited for with the keyframe of the lower.
#[test]
fn behind_a_long_queue_the_lower_picture_comes_within_a_second() {
    for offset in 0..8 {
        let mut simulation = long_queued(FRAME_INTERVAL, 3, [6.0, 10.0, 20.0]);
        simulation.run(10.0 + 0.021 * f64::from(offset));
        for (capacity, encoding) in [(600e3, 1), (150e3, 2), (3e6, 0)] {
            let from = simulation.time;
            simulation.link.set_rate(capacity);
            simulation.run(10.0);
            let (frozen, settled) =
                (simulation.frozen(from, simulation.time), simulation.settled(from, simulation.time, encoding));
            let case = format!("{offset}, {capacity}: stood still for {frozen} ms, settled after {settled:?} ms");
            assert!(frozen < if encoding == 0 { 100 } else { 1_000 }, "{case}");
            assert!(settled.is_some_and(|ms| ms < 4_000), "{case}");
        }
        simulation.finish();
    }
}

// RTCP-16: encoders as those of H.264 and VP8 in Chromium, with many frames a second and with few.
#[test]
fn encoders_that_answer_by_all_keyframes_are_followed_down_within_a_second_and_up_without_a_freeze() {
    for (frame_interval, temporal, keyframes, most) in [
        (60, 1, [5.3, 5.4, 3.0], [0, 300, 0]),
        (33, 1, [5.3, 5.4, 3.0], [0, 300, 0]),
        (60, 3, [6.0, 10.0, 10.0], [350, 1_000, 0]),
        (33, 3, [6.0, 10.0, 10.0], [0, 700, 0]),
    ] {
        for offset in 0..12 {
            let mut simulation = long_queued(frame_interval, temporal, keyframes);
            simulation.answers_by_all = true;
            simulation.run(10.0 + 0.042 * f64::from(offset));
            for (capacity, most) in [600e3, 150e3, 3e6].into_iter().zip(most) {
                let from = simulation.time;
                simulation.link.set_rate(capacity);
                simulation.run(9.0);
                let frozen = simulation.frozen(from, simulation.time);
                let case = format!("{frame_interval} ms, {temporal}, {offset}, {capacity}");
                assert!(frozen <= most, "{case}: stood still for {frozen} ms");
            }
            simulation.finish();
        }
    }
}

// RTCP-16, RTCP-17: what has come since takes the path longer than another keyframe would be waited for.
#[test]
fn who_has_to_go_down_goes_back_to_no_keyframe_from_which_it_would_not_soon_catch_up() {
    for offset in 0..12 {
        let mut simulation = long_queued(60, 3, [6.0, 10.0, 10.0]);
        simulation.run(10.0 + 0.042 * f64::from(offset));
        // Another viewer has gone to that encoding.
        simulation.request(1);
        simulation.run(0.08 * f64::from(offset % 4));
        let from = simulation.time;
        simulation.link.set_rate(600e3);
        simulation.run(9.0);
        let frozen = simulation.frozen(from, simulation.time);
        assert!(frozen <= 350, "{offset}: stood still for {frozen} ms");
        simulation.finish();
    }
}

// RTCP-16: encoders answer a request with keyframes of all encodings, and the largest comes first.
#[test]
fn the_higher_pictures_keyframe_does_not_stand_in_front_of_the_lower_ones() {
    let high = Coding { rate: 1_000_000, width: 960, temporal: 1, keyframe: 8.0 };
    let low = Coding { rate: 280_000, width: 480, temporal: 1, keyframe: 8.0 };
    for offset in 0..4 {
        let mut simulation = Simulation::new(3e6, &[high, low]);
        simulation.answers_by_all = true;
        simulation.link = Link::new(3e6).with_queue(1_000_000);
        simulation.run(10.0 + 0.041 * f64::from(offset));
        let from = simulation.time;
        simulation.link.set_rate(600e3);
        simulation.run(10.0);
        let (frozen, settled) =
            (simulation.frozen(from, simulation.time), simulation.settled(from, simulation.time, 1));
        let case = format!("{offset}: stood still for {frozen} ms, settled after {settled:?} ms");
        assert!(frozen < 400 && settled.is_some_and(|ms| ms < 2_000), "{case}");
        simulation.finish();
    }
}

// RTCP-16: its first packet, say with H.264's parameter sets, was sent before the second one said that it is a keyframe.
#[test]
fn a_keyframe_that_was_begun_does_not_stand_in_front_of_the_lower_picture_s_either() {
    let high = Coding { rate: 1_000_000, width: 960, temporal: 1, keyframe: 8.0 };
    let mut simulation = Simulation::new(3e6, &[high, Coding { temporal: 1, ..LOW }]);
    simulation.run(9.9);
    let now = simulation.now();
    simulation.viewer.congestion_mut().on_remb(now, 300_000, 1_000_000);
    simulation.publisher.request_keyframe(0);
    let mut larger = simulation.publisher.encode(simulation.time);
    larger.retain(|packet| packet.encoding == 0);
    assert!(larger.len() > 25);
    let sent = |simulation: &mut Simulation| {
        let before = simulation.viewer.sent().packets;
        simulation.serve(simulation.now());
        simulation.viewer.sent().packets - before
    };
    assert!(simulation.publisher.receive(&larger[0]));
    assert_eq!(sent(&mut simulation), 1);
    let target = OperatingPoint { encoding: 1, spatial: 0, temporal: 0 };
    let track = video(&mut simulation.viewer);
    track.go_to(now, target, None, Some(250_000));
    assert_eq!(track.take_keyframe_request(now, &simulation.publisher.tracks, || true), Some(1));
    larger[1..].iter().for_each(|packet| assert!(simulation.publisher.receive(packet)));
    simulation.time += 99;
    assert_eq!(sent(&mut simulation), 0, "held back");
    simulation.publisher.request_keyframe(1);
    let mut packets = simulation.publisher.encode(simulation.time);
    packets.retain(|packet| packet.encoding == 1);
    packets.iter().for_each(|packet| assert!(simulation.publisher.receive(packet)));
    assert!((1..=packets.len() as u64).contains(&sent(&mut simulation)), "of the smaller keyframe alone");
    assert_eq!(video(&mut simulation.viewer).point(), target);
}

// RTCP-16: some frames of the same picture are left out before what waits is dropped, after which a keyframe would be needed.
#[test]
fn where_the_path_is_a_little_too_narrow_nothing_is_dropped() {
    let high = Coding { rate: 620_000, width: 960, temporal: 3, keyframe: 8.0 };
    for offset in 0..8 {
        let mut simulation = Simulation::new(3e6, &[high, LOW]);
        simulation.link = Link::new(3e6).with_queue(1_000_000);
        simulation.publisher.frame_interval = 60;
        simulation.run(10.0 + 0.063 * f64::from(offset));
        let (from, requests) = (simulation.time, simulation.requests);
        simulation.link.set_rate(if offset % 2 == 0 { 640e3 } else { 680e3 });
        simulation.run(9.0);
        let (frozen, dropped) = (simulation.frozen(from, simulation.time), simulation.viewer.sent().dropped);
        let requests = simulation.requests - requests;
        assert_eq!((frozen, dropped, requests), (0, 0, 0), "{offset}");
        assert_eq!(video(&mut simulation.viewer).point().encoding, 0, "{offset}");
        simulation.finish();
    }
}

// RTCP-16, RTCP-17: an encoder that overshoots.
#[test]
fn a_frame_that_takes_the_path_seconds_is_not_finished_before_the_lower_picture() {
    let mut simulation = Simulation::new(600e3, &[MIDDLE, LOW]);
    simulation.run(10.0);
    assert_eq!(video(&mut simulation.viewer).point().encoding, 0);
    let from = simulation.time;
    simulation.publisher.overshoot(0, 250_000);
    simulation.run(8.0);
    let (_, longest, _) = simulation.shown(from, simulation.time);
    assert!(longest < 500, "{longest} ms");
    simulation.finish();
}

// RTP-07, RTCP-11
#[test]
fn only_what_the_cache_lacks_is_requested_and_nothing_of_a_layer_that_is_gone() {
    let mut publisher = Publisher::new(&[Coding { temporal: 1, ..MIDDLE }, Coding { temporal: 1, ..LOW }]);
    let run = |publisher: &mut Publisher, from: u64| {
        for ms in (from..from + 2_500).step_by(FRAME_INTERVAL as usize) {
            publisher.encode(ms).iter().for_each(|packet| assert!(publisher.receive(packet)));
            publisher.tracks.measure(publisher.at(ms));
        }
        publisher.at(from + 2_500)
    };
    let now = run(&mut publisher, 0);
    let (mut viewer, _) =
        viewer_of(TrackId::VIDEO, vec![format(100, Codec::Vp8, None)], &[format(96, Codec::Vp8, None)]);
    // The cache has everything since the keyframe.
    assert!(viewer.start(now, &publisher.tracks).is_empty());
    assert!(!video(&mut viewer).awaits_keyframe());
    assert_eq!(video(&mut viewer).point(), OperatingPoint { encoding: 0, spatial: 0, temporal: 0 });
    assert!(viewer.choose_layers(now, &publisher.tracks, || true).keyframes.is_empty());
    // The keyframe of another encoding is too old to go there with.
    let selection = LayerSelection { rid: Some("1".to_owned()), ..LayerSelection::default() };
    viewer.select_layer(TrackId::VIDEO, selection);
    assert_eq!(viewer.choose_layers(now, &publisher.tracks, || true).keyframes.as_slice(), [(TrackId::VIDEO, 1)]);
    assert!(video(&mut viewer).is_moving());
    publisher.set_active(1, false);
    let now = run(&mut publisher, 2_500);
    assert!(viewer.choose_layers(now, &publisher.tracks, || true).keyframes.is_empty());
    assert!(!video(&mut viewer).is_moving());
}

// RTP-07, RTCP-11
#[test]
fn who_waits_to_begin_elsewhere_asks_for_a_keyframe_there() {
    let publisher = Publisher::new(&[MIDDLE, LOW]);
    let (mut viewer, _) =
        viewer_of(TrackId::VIDEO, vec![format(100, Codec::Vp8, None)], &[format(96, Codec::Vp8, None)]);
    assert_eq!(viewer.start(publisher.start, &publisher.tracks).as_slice(), [(TrackId::VIDEO, 0)]);
    let there = OperatingPoint { encoding: 1, spatial: 0, temporal: 0 };
    video(&mut viewer).go_to(publisher.start, there, None, None);
    assert_eq!(video(&mut viewer).lacks_keyframe(), Some(1));
    // One that it may not make yet does not count as made.
    assert_eq!(video(&mut viewer).take_keyframe_request(publisher.start, &publisher.tracks, || false), None);
    assert_eq!(video(&mut viewer).take_keyframe_request(publisher.start, &publisher.tracks, || true), Some(1));
    assert_eq!(video(&mut viewer).take_keyframe_request(publisher.start, &publisher.tracks, || true), None);
}

// RTP-07, RTCP-11: pictures that are rare, as those of a still screen.
#[test]
fn a_viewer_of_everything_goes_to_the_highest_layer_without_a_keyframe() {
    let (mut viewer, _) =
        viewer_of(TrackId::VIDEO, vec![format(100, Codec::Vp8, None)], &[format(96, Codec::Vp8, None)]);
    let mut published = Published::new();
    let highest = OperatingPoint { encoding: 0, spatial: 0, temporal: 2 };
    for number in 0..40 {
        let now = published.at(10 * number);
        let info = PacketInfo {
            sequence: number,
            timestamp: number as u32 * 30_000,
            arrived: now,
            payload_type: 96,
            marker: true,
            keyframe: number == 0,
            layer: PacketLayer::ONLY,
        };
        assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[0x10, 0]));
        published.serve(now, &mut viewer, false);
        if number == 1 {
            assert_eq!(video(&mut viewer).point(), OperatingPoint::all_of(0));
            video(&mut viewer).go_to(now, highest, None, None);
        }
        let later = published.at(10 * number + 9);
        assert_eq!(video(&mut viewer).take_keyframe_request(later, &published.tracks, || true), None, "{number}");
    }
    assert_eq!(video(&mut viewer).point(), highest);
}

/// A picture of two spatial layers, one packet each. `builds`: the upper layer needs the lower one in every picture, not in
/// keyframes alone.
fn picture(published: &mut Published, number: u64, keyframe: bool, builds: bool) {
    let upper = 0xfff0;
    for spatial in 0..2 {
        let present = match (spatial, builds || keyframe) {
            (0, true) => 0xffff,
            (0, false) => !upper,
            _ => upper,
        };
        let layer =
            PacketLayer { present, switch: if keyframe { present } else { 0 }, spatial, temporal: 0, frame_end: true };
        let info = PacketInfo {
            sequence: 2 * number + u64::from(spatial),
            timestamp: number as u32 * 3_000,
            arrived: published.at(number),
            payload_type: 96,
            marker: spatial == 1,
            keyframe: keyframe && spatial == 0,
            layer,
        };
        assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[number as u8, spatial]));
    }
}

// RTP-07, RTP-08, COD-09
#[test]
fn spatial_layers_are_left_at_a_picture_or_a_keyframe_and_the_highest_one_has_the_marker() {
    for builds in [true, false] {
        let formats = vec![format(100, Codec::Av1, Some(101))];
        let (mut viewer, mut receiver) = viewer_of(TrackId::VIDEO, formats, &[format(96, Codec::Av1, None)]);
        let mut published = Published::new();
        let at = |spatial| OperatingPoint { encoding: 0, spatial, temporal: 0 };
        let mut next = 0x7fff_u16;
        let mut sent = |viewer: &mut Viewer, published: &mut Published, number: u64, keyframe: bool| {
            picture(published, number, keyframe, builds);
            let packets = published.serve(published.at(number), viewer, false).1;
            let packets = packets.into_iter().map(|packet| {
                let (header, packet) = open(&mut receiver, packet);
                assert_eq!((header.sequence_number, header.payload(&packet)[0]), (next, number as u8));
                next = next.wrapping_add(1);
                (header.payload(&packet)[1], header.marker)
            });
            packets.collect::<Vec<_>>()
        };
        let lower: &[(u8, bool)] = &[(0, true)];
        let both: &[(u8, bool)] = &[(0, false), (1, true)];
        let ordinary = |is_lower: bool| match (is_lower, builds) {
            (true, _) => lower,
            (false, true) => both,
            (false, false) => &both[1..],
        };
        video(&mut viewer).go_to(published.start, at(1), None, None);
        assert_eq!(sent(&mut viewer, &mut published, 0, true), both);
        assert_eq!(sent(&mut viewer, &mut published, 1, false), ordinary(false));
        // Down: at the next picture, if the lower layer was sent all the time.
        video(&mut viewer).go_to(published.at(1), at(0), None, None);
        sent(&mut viewer, &mut published, 2, false);
        assert_eq!(sent(&mut viewer, &mut published, 3, false), ordinary(builds));
        // What it was not sent it can go down to at a keyframe alone.
        let requested = video(&mut viewer).take_keyframe_request(published.at(3), &published.tracks, || true);
        assert_eq!(requested, (!builds).then_some(0));
        assert_eq!(sent(&mut viewer, &mut published, 4, true), lower);
        assert_eq!(sent(&mut viewer, &mut published, 5, false), lower);
        // Up: at a keyframe.
        video(&mut viewer).go_to(published.at(5), at(1), None, None);
        assert_eq!(sent(&mut viewer, &mut published, 6, false), lower);
        assert_eq!(video(&mut viewer).take_keyframe_request(published.at(9), &published.tracks, || true), Some(0));
        assert_eq!(sent(&mut viewer, &mut published, 7, true), both);
        assert_eq!(sent(&mut viewer, &mut published, 8, false), ordinary(false));
        assert_eq!(video(&mut viewer).take_keyframe_request(published.at(20), &published.tracks, || true), None);
    }
}

// RTCP-16, RTCP-17: an encoder that overshoots, in layers that are left at a keyframe only.
#[test]
fn who_has_to_leave_a_layer_neither_waits_for_its_next_picture_nor_finishes_the_present_one() {
    let formats = vec![format(100, Codec::Av1, Some(101))];
    let (mut viewer, _) = viewer_of(TrackId::VIDEO, formats, &[format(96, Codec::Av1, None)]);
    let mut published = Published::new();
    let at = |spatial| OperatingPoint { encoding: 0, spatial, temporal: 0 };
    viewer.congestion_mut().on_remb(published.start, 300_000, 1_000_000);
    video(&mut viewer).go_to(published.start, at(1), None, None);
    picture(&mut published, 0, true, false);
    assert_eq!(published.serve(published.start, &mut viewer, false).1.len(), 2);
    // Of the upper layer 200 packets, which take the path six seconds.
    let begun = published.at(1);
    for sequence in 2..202 {
        let layer =
            PacketLayer { present: at(1).bit(), switch: 0, spatial: 1, temporal: 0, frame_end: sequence == 201 };
        let info = PacketInfo {
            sequence,
            timestamp: 3_000,
            arrived: begun,
            payload_type: 96,
            marker: sequence == 201,
            keyframe: false,
            layer,
        };
        assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[1; 1_100]));
    }
    let mut sent = published.serve(begun, &mut viewer, false).1.len();
    video(&mut viewer).go_to(begun, at(0), None, Some(300_000));
    let (mut requested, mut dropped) = (None, 0);
    for ms in (5..400).step_by(5) {
        let now = begun + Duration::from_millis(ms);
        let is_requested = video(&mut viewer).take_keyframe_request(now, &published.tracks, || true).is_some();
        requested = requested.or(is_requested.then_some(ms));
        let (served, packets) = published.serve(now, &mut viewer, false);
        (sent, dropped) = (sent + packets.len(), dropped + served.dropped);
    }
    assert_eq!(requested, Some(150));
    assert!((5..20).contains(&sent), "{sent} packets");
    assert_eq!(sent as u64 + dropped, 200);
    assert_eq!(video(&mut viewer).lacks_keyframe(), Some(0));
}

// RTCP-17: neither the frame that was begun nor what the viewer is not sent, or soon will not be, is a reason to drop what follows.
#[test]
fn only_frames_that_the_viewer_is_still_to_be_sent_are_late() {
    let at = |temporal| OperatingPoint { encoding: 0, spatial: 0, temporal };
    for goes_down in [false, true] {
        let formats = vec![format(100, Codec::Av1, Some(101))];
        let (mut viewer, _) = viewer_of(TrackId::VIDEO, formats, &[format(96, Codec::Av1, None)]);
        let mut published = Published::new();
        let start = published.start;
        // A packet takes the path 93 ms.
        viewer.congestion_mut().on_remb(start, 100_000, 1_000_000);
        video(&mut viewer).go_to(start, at(u8::from(goes_down)), None, None);
        let mut sequence = 0;
        let mut admit = |published: &mut Published, ms: u64, packets: u64, temporal: u8| {
            for packet in 1..=packets {
                let (present, frame_end) = (if temporal == 0 { 0xffff } else { !at(0).bit() }, packet == packets);
                let info = PacketInfo {
                    sequence,
                    timestamp: ms as u32 * 90,
                    arrived: start + Duration::from_millis(ms),
                    payload_type: 96,
                    marker: frame_end,
                    keyframe: sequence == 0,
                    layer: PacketLayer { present, switch: present, spatial: 0, temporal, frame_end },
                };
                assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[1; 1_100]));
                sequence += 1;
            }
        };
        let (mut sent, mut dropped) = (0, 0);
        // A keyframe, a frame of four packets, one of the upper layer, and another one of the lower.
        for ms in (0..1_000).step_by(5) {
            match ms {
                0 => admit(&mut published, ms, 1, 0),
                100 => admit(&mut published, ms, 4, 0),
                140 => admit(&mut published, ms, 1, 1),
                340 => admit(&mut published, ms, 1, 0),
                _ => {}
            }
            let now = start + Duration::from_millis(ms);
            if ms == 200 {
                video(&mut viewer).go_to(now, at(0), None, None);
            }
            let (served, packets) = published.serve(now, &mut viewer, false);
            (sent, dropped) = (sent + packets.len(), dropped + served.dropped);
        }
        assert_eq!((sent, dropped), (6, 0), "{goes_down}");
        assert!(!video(&mut viewer).awaits_keyframe());
        assert_eq!(video(&mut viewer).point(), at(0));
    }
}
