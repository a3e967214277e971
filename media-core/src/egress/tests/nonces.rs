//! No nonce twice (SRTP-09), whatever publisher, network, machine and viewers do: a whole stream in virtual time, from
//! received packets to datagrams, watched by an oracle that decrypts on its own.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::clock::WallClock;
use crate::ecn::Ecn;
use crate::ingest::{Accepted, Arrival, Ingest};
use crate::media::{Feedback, MediaKind};
use crate::nonce_oracle::{NonceOracle, Seen};
use crate::rtp::{HeaderFields, write_header};
use crate::spec::StreamId;
use crate::stream::PublishedTrack;

const MID: u8 = 4;
const WIDE: u8 = 5;
const VIDEO: u32 = 0xaaaa;
const AUDIO: u32 = 0xcccc;
const STREAM: StreamId = StreamId(1);

fn with_feedback(payload_type: u8, codec: Codec, rtx_payload_type: Option<u8>, transport_cc: bool) -> Format {
    let feedback = Feedback { nack: true, pli: true, transport_cc, ..Feedback::default() };
    Format { feedback, ..format(payload_type, codec, rtx_payload_type) }
}

fn sections(rtx: bool, transport_cc: bool) -> Vec<(TrackId, MediaSection)> {
    let section = |kind: MediaKind, formats, media| {
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::Mid, MID);
        extensions.set(Extension::VideoOrientation, 9);
        if transport_cc {
            extensions.set(Extension::TransportCc, WIDE);
        }
        let send_ssrcs = Some(SendSsrcs { media, rtx: media + 1 });
        MediaSection { extensions, send_ssrcs, ..MediaSection::new(kind.as_str(), kind, formats) }
    };
    let rtx = |payload_type| rtx.then_some(payload_type);
    let vp8 = |payload_type, rtx| with_feedback(payload_type, Codec::Vp8, rtx, transport_cc);
    vec![
        (TrackId::AUDIO, section(MediaKind::Audio, vec![format(111, Codec::Opus, None)], AUDIO)),
        (TrackId::VIDEO, section(MediaKind::Video, vec![vp8(96, rtx(97)), vp8(98, rtx(99))], VIDEO)),
    ]
}

/// A viewer and the oracle that sees all that it is sent.
struct Watcher {
    viewer: Viewer,
    oracle: NonceOracle,
    /// The numbers sent last, of video and of audio.
    newest: [u16; 2],
    on_home: bool,
    packets: u64,
    repeats: u64,
}

impl Watcher {
    fn see(&mut self, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            let header = RtpHeader::parse(&datagram).unwrap();
            match self.oracle.see(&datagram) {
                Ok(Seen::New) => self.packets += 1,
                Ok(Seen::Again) => self.repeats += 1,
                other => panic!("{other:?}"),
            }
            if let Some(track) = [VIDEO, AUDIO].iter().position(|&ssrc| ssrc == header.ssrc) {
                let newest = &mut self.newest[track];
                if header.sequence_number.wrapping_sub(*newest) < 0x8000 {
                    *newest = header.sequence_number;
                }
            }
        }
    }
}

/// One of the publisher's RTP streams, as its sender numbers it.
#[derive(Clone, Copy)]
struct Source {
    ssrc: u32,
    payload_type: u8,
    number: u16,
    timestamp: u32,
}

struct World {
    random: StdRng,
    /// How rare restarts are.
    calm: u32,
    now: Instant,
    unix: Duration,
    wall: WallClock,
    ingest: Ingest,
    home: Tracks,
    away: Tracks,
    feeder: Feeder,
    pool: FeedPool,
    watchers: Vec<Watcher>,
    video: Source,
    audio: Source,
    /// Packets that the network holds back.
    held: Vec<Vec<u8>>,
    /// Packets before the next keyframe.
    until_keyframe: u32,
    joined: u64,
    /// What watchers that have left had been sent.
    packets: u64,
    repeats: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let tracks = || Tracks::new(Duration::from_millis(500));
        let (mut home, mut away) = (tracks(), tracks());
        let publisher: Vec<MediaSection> = sections(true, true).into_iter().map(|(_, section)| section).collect();
        let ingest = Ingest::new(now, &publisher, &mut home);
        for track in [TrackId::AUDIO, TrackId::VIDEO] {
            away.get_or_insert(track);
        }
        let wall = WallClock::now();
        let mut source =
            |ssrc, payload_type| Source { ssrc, payload_type, number: random.random(), timestamp: random.random() };
        let (video, audio) = (source(1, 96), source(2, 111));
        let mut world = World {
            random,
            calm: [1, 8, 25][seed as usize % 3],
            now,
            unix: Duration::from_secs(1_800_000_000),
            wall,
            ingest,
            home,
            away,
            feeder: Feeder::default(),
            pool: FeedPool::new(wall),
            watchers: Vec::new(),
            video,
            audio,
            held: Vec::new(),
            until_keyframe: 0,
            joined: 0,
            packets: 0,
            repeats: 0,
        };
        world.feeder.add(now, 1, (STREAM, &world.home), &mut world.pool, |_| {});
        world.publish();
        for _ in 0..4 {
            world.join();
        }
        world
    }

    fn publisher() -> Vec<MediaSection> {
        sections(true, true).into_iter().map(|(_, section)| section).collect()
    }

    fn published() -> Vec<PublishedTrack> {
        let track = |(id, section): (TrackId, MediaSection)| PublishedTrack::new(id, &section);
        sections(true, true).into_iter().map(track).collect()
    }

    /// A publisher connects, and takes the place of the one before.
    fn publish(&mut self) {
        self.serve(false);
        self.ingest = Ingest::new(self.now, &World::publisher(), &mut self.home);
        for published in [None, Some(World::published())] {
            self.home.set_publisher(published.as_deref());
            self.away.set_publisher(published.as_deref());
            for watcher in &mut self.watchers {
                let tracks = if watcher.on_home { &self.home } else { &self.away };
                for track in watcher.viewer.tracks_mut() {
                    track.end_publication(track.encoding(tracks).unwrap());
                    let published = published.iter().flatten().find(|published| published.id == track.id());
                    if let Some(published) = published {
                        track.set_publisher_formats(&published.formats, None);
                    }
                }
            }
        }
        self.held.clear();
        self.video.number = self.random.random();
        self.until_keyframe = 0;
    }

    /// Another viewer: with RTX and transport-wide numbers, with RTX, or without either; on this shard or on another.
    fn join(&mut self) {
        self.joined += 1;
        let (rtx, wide) = (!self.joined.is_multiple_of(3), self.joined % 3 == 1);
        let on_home = !self.joined.is_multiple_of(4);
        let profile = SrtpProfile::ALL[(self.joined / 3) as usize % SrtpProfile::ALL.len()];
        let exported: Vec<u8> = (0..profile.export_len()).map(|_| self.random.random()).collect();
        let keying = KeyingMaterial::new(profile, &exported).unwrap();
        let (_, srtp) = keying.contexts_with(DtlsRole::Server, !rtx).unwrap();
        let tracks = if on_home { &self.home } else { &self.away };
        let mut egress = Vec::new();
        for (id, section) in sections(rtx, wide) {
            let mut track = EgressTrack::new(id, &section, self.random.random()).unwrap();
            let published = World::published();
            track.set_publisher_formats(&published.iter().find(|track| track.id == id).unwrap().formats, None);
            track.join(self.now, track.encoding(tracks).unwrap());
            egress.push(track);
        }
        let viewer = Viewer::new(self.now, srtp, egress, 2_000_000);
        let oracle = NonceOracle::of_exported(&exported, true);
        self.watchers.push(Watcher { viewer, oracle, newest: [0; 2], on_home, packets: 0, repeats: 0 });
    }

    fn leave(&mut self) {
        let index = self.random.random_range(0..self.watchers.len());
        self.remove(index);
    }

    fn remove(&mut self, index: usize) {
        let watcher = self.watchers.swap_remove(index);
        self.packets += watcher.packets;
        self.repeats += watcher.repeats;
    }

    /// The home shard restarts: its viewers are gone, and its numbers go on from those of the other shard.
    fn restart_home(&mut self) {
        while let Some(index) = self.watchers.iter().position(|watcher| watcher.on_home) {
            self.remove(index);
        }
        self.home = Tracks::new(Duration::from_millis(500));
        for track in [TrackId::AUDIO, TrackId::VIDEO] {
            self.home.get_or_insert(track);
        }
        for (track, index, standing) in self.away.standings() {
            self.home.encoding_mut(track, index).unwrap().resume(&standing);
        }
        self.feeder = Feeder::default();
        self.feeder.add(self.now, 1, (STREAM, &self.home), &mut self.pool, |_| {});
        self.publish();
        while self.watchers.len() < 4 {
            self.join();
        }
    }

    /// A fan-out pass on both shards.
    fn serve(&mut self, overloaded: bool) {
        self.home.begin_pass();
        let (wall, away) = (&self.wall, &mut self.away);
        self.feeder.feed((STREAM, &self.home), &mut self.pool, |feed| {
            for (track, encoding, packet) in feed.packets(wall) {
                let encoding = away.encoding_mut(track, encoding).unwrap();
                encoding.admit(packet.info, packet.extensions, packet.payload);
            }
        });
        self.away.begin_pass();
        for watcher in &mut self.watchers {
            let mut out = Outbound::disconnected();
            let tracks = if watcher.on_home { &self.home } else { &self.away };
            watcher.viewer.serve(&FanOutPass { now: self.now, tracks, overloaded }, tuple(), &mut out);
            watcher.see(out.batch().datagrams().map(<[u8]>::to_vec).collect());
        }
    }

    /// A packet is received.
    fn receive(&mut self, packet: &[u8]) {
        let arrival = Arrival { now: self.now, unix: self.unix, ecn: Ecn::NotEct };
        let accepted = self.ingest.on_rtp(&arrival, packet, &mut self.home);
        if matches!(accepted, Ok(Accepted::AwaitingKeyframe { .. })) && self.random.random_ratio(1, 10) {
            self.until_keyframe = 0;
        }
    }

    fn write(&self, source: Source, number: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1500];
        let fields = HeaderFields {
            marker: true,
            padding: false,
            payload_type: source.payload_type,
            sequence_number: number,
            timestamp: source.timestamp,
            ssrc: source.ssrc,
        };
        let mid = if source.payload_type == 111 { &b"audio"[..] } else { b"video" };
        let header = write_header(&mut bytes, &fields, [(MID, mid)]).unwrap();
        bytes.truncate(header);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A payload that no other packet has.
    fn payload(&mut self, keyframe: bool) -> Vec<u8> {
        let length = if self.random.random_ratio(1, 16) { 40 } else { self.random.random_range(1_250..1_400) };
        let mut payload = vec![0x10, u8::from(!keyframe)];
        payload.extend(self.random.random::<[u8; 16]>());
        payload.resize(length, 7);
        payload
    }

    /// The encoder's next packet; the network may lose, hold back or repeat it.
    fn send(&mut self) {
        let keyframe = self.until_keyframe == 0;
        // Sometimes more than a cache holds at first, so that it grows.
        self.until_keyframe = if keyframe { self.random.random_range(50..1_600) } else { self.until_keyframe - 1 };
        self.video.number = self.video.number.wrapping_add(1);
        self.video.timestamp = self.video.timestamp.wrapping_add(if keyframe { 3_000 } else { 900 });
        // A probe now and then.
        let payload = if self.random.random_ratio(1, 40) && !keyframe { Vec::new() } else { self.payload(keyframe) };
        let packet = self.write(self.video, self.video.number, &payload);
        match self.random.random_range(0..40) {
            0 => {}
            1 => self.held.push(packet),
            2 => {
                self.receive(&packet);
                self.receive(&packet);
            }
            _ => self.receive(&packet),
        }
        if !self.held.is_empty() && self.random.random_ratio(1, 12) {
            let packet = self.held.remove(0);
            self.receive(&packet);
        }
    }

    /// The publisher sends other bytes under a number of its choosing, most likely one that was sent before.
    fn send_anew(&mut self, by_rtx: bool) {
        let back = match self.random.random_range(0..8) {
            // Far ahead, it would be the new highest one, before which all others are too late.
            0 => self.random.random_range(0..0x8000),
            1 => self.random.random_range(0..200_u16).wrapping_neg(),
            2..4 => self.random.random_range(0..64),
            // What a cache had to forget when it grew, while SRTP still takes it.
            4 => self.random.random_range(800..1_024),
            _ => self.random.random_range(0..1_300),
        };
        let number = self.video.number.wrapping_sub(back);
        let mut source = self.video;
        match self.random.random_range(0..3) {
            0 => source.timestamp = self.random.random(),
            1 => source.timestamp = source.timestamp.wrapping_add(70 * 90_000),
            _ => {}
        }
        let keyframe = self.random.random_ratio(1, 6);
        let mut payload = self.payload(keyframe);
        let mut sent_as = number;
        if by_rtx {
            payload.splice(..0, number.to_be_bytes());
            (source.ssrc, source.payload_type) = (source.ssrc + 100, source.payload_type + 1);
            sent_as = self.random.random();
        }
        let packet = self.write(source, sent_as, &payload);
        self.receive(&packet);
    }

    /// Something that an encoder or its network does now and then.
    fn disturb_publisher(&mut self) {
        match self.random.random_range(0..10) {
            0 => self.publish(),
            9 => self.restart_home(),
            1 => self.video.ssrc += 1,
            2 => self.video.number = self.random.random(),
            3 => self.video.number = self.video.number.wrapping_add(self.random.random_range(1..4_000)),
            4 => self.video.timestamp = self.random.random(),
            5 => self.video.timestamp = self.video.timestamp.wrapping_add(100 * 90_000),
            6 => self.video.payload_type = if self.video.payload_type == 96 { 98 } else { 96 },
            7 => {
                let all = self.random.random_ratio(1, 4);
                let tracks = if self.random.random() { &mut self.home } else { &mut self.away };
                tracks.save_memory(all);
            }
            _ => self.until_keyframe = 0,
        }
    }

    /// Something that a viewer does.
    fn disturb_viewer(&mut self) {
        let World { random, calm, now, watchers, home, away, .. } = self;
        let index = random.random_range(0..watchers.len());
        let watcher = &mut watchers[index];
        let tracks = if watcher.on_home { &*home } else { &*away };
        match random.random_range(0..40 * *calm) {
            0 => {
                for track in watcher.viewer.tracks_mut() {
                    track.on_receipt();
                }
            }
            1 => {
                let video = video(&mut watcher.viewer);
                video.restart(*now, video.encoding(tracks).unwrap());
            }
            2 => {
                let rate = if random.random_ratio(1, 3) { 300_000 } else { 50_000_000 };
                watcher.viewer.congestion_mut().on_remb(*now, rate, 2_000_000);
            }
            3 => {
                self.leave();
                self.join();
            }
            _ => {
                let track = usize::from(random.random_ratio(1, 10));
                let back = if random.random_ratio(1, 2) { 40 } else { 1_100 };
                let number = watcher.newest[track].wrapping_sub(random.random_range(0..back));
                let mut out = Outbound::disconnected();
                let name = ([VIDEO, AUDIO][track], number);
                watcher.viewer.resend(*now, name, tracks, tuple(), &mut out);
                watcher.see(out.batch().datagrams().map(<[u8]>::to_vec).collect());
            }
        }
    }

    fn step(&mut self) {
        let passed = match self.random.random_range(0..2_000) {
            0 => 5_000,
            1..6 => 300,
            _ => self.random.random_range(0..6),
        };
        self.now += Duration::from_millis(passed);
        self.unix += Duration::from_millis(passed);
        if self.random.random_ratio(1, 100 * self.calm) {
            self.disturb_publisher();
        }
        match self.random.random_range(0..300) {
            0 => (0..64).for_each(|_| self.send()),
            1..20 => self.send_anew(true),
            20..25 => self.send_anew(false),
            25..60 => {
                self.audio.number = self.audio.number.wrapping_add(1);
                self.audio.timestamp = self.audio.timestamp.wrapping_add(960);
                let payload = self.random.random::<[u8; 16]>();
                let packet = self.write(self.audio, self.audio.number, &payload);
                self.receive(&packet);
            }
            60..150 => self.disturb_viewer(),
            _ => self.send(),
        }
        if self.random.random_ratio(1, 3) {
            let overloaded = self.random.random_ratio(1, 200 * self.calm);
            self.serve(overloaded);
        }
    }
}

// M1, SRTP-09
#[test]
fn an_index_stands_for_one_packet_whatever_everybody_does() {
    for seed in 0..18 {
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| (0..5_000).for_each(|_| world.step()));
        if std::panic::catch_unwind(run).is_err() {
            panic!("seed {seed}");
        }
        while !world.watchers.is_empty() {
            world.leave();
        }
        // It was about something.
        assert!(world.packets > 2_000 && world.repeats > 20, "{seed}: {} and {}", world.packets, world.repeats);
    }
}

// M1, SRTP-09
#[test]
fn a_number_that_the_cache_forgot_as_it_grew_is_not_filled_anew() {
    let (mut viewer, _) = viewer(None);
    let mut published = Published::new();
    let (mut oracle, mut sent) = (NonceOracle::of_exported(&EXPORTED, true), 0);
    let mut see = |packets: Vec<Vec<u8>>| {
        sent += packets.len();
        packets.iter().for_each(|packet| assert!(matches!(oracle.see(packet), Ok(Seen::New))));
    };
    let packet = |published: &Published, sequence: u64, byte: u8| {
        let (timestamp, keyframe) = (sequence as u32 * 3000, [0, 100].contains(&sequence));
        let arrived = published.start + Duration::from_millis(sequence);
        let info = PacketInfo {
            sequence,
            timestamp,
            arrived,
            payload_type: 96,
            marker: true,
            keyframe,
            layer: PacketLayer::ONLY,
        };
        (info, [byte; 1_300])
    };
    for sequence in 0..960 {
        let (info, payload) = packet(&published, sequence, 1);
        assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &payload));
        see(published.serve(info.arrived, &mut viewer, false).1);
    }
    for sequence in 0..960 {
        let (info, payload) = packet(&published, sequence, 2);
        assert!(!published.encoding(TrackId::VIDEO).admit(info, &[], &payload), "{sequence}");
        see(published.serve(published.start + Duration::from_secs(1), &mut viewer, false).1);
    }
    assert_eq!(sent, 960);
}
