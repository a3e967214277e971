//! Encodings that start, stop and begin anew, packets that are lost, late or received out of order, and viewers whose paths,
//! wishes and keyframe requests change, at random: whatever happens, what a viewer is sent is a stream.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::layered::{Coding, Decoder, FRAME_INTERVAL, Publisher, Sent, frame_of};
use super::*;
use crate::layers::LayerSelection;
use crate::nonce_oracle::{NonceOracle, Seen};

const CODINGS: [Coding; 3] = [
    Coding { rate: 100_000, width: 320, temporal: 3, keyframe: 3.0 },
    Coding { rate: 300_000, width: 640, temporal: 2, keyframe: 3.0 },
    Coding { rate: 900_000, width: 1_280, temporal: 3, keyframe: 3.0 },
];

struct Watcher {
    viewer: Viewer,
    receiver: SrtpReceiver,
    oracle: NonceOracle,
    decoder: Decoder,
    newest: u16,
    resent: u64,
    /// Frames of which a packet came after the viewer had gone to another encoding.
    missed: HashSet<usize>,
}

impl Watcher {
    fn new(publisher: &mut Publisher, now: Instant, has_rtx: bool) -> Watcher {
        let theirs = [format(96, Codec::Vp8, None)];
        let (mut viewer, receiver) =
            viewer_of(TrackId::VIDEO, vec![format(100, Codec::Vp8, has_rtx.then_some(101))], &theirs);
        for (_, encoding) in viewer.start(now, &publisher.tracks) {
            publisher.request_keyframe(encoding);
        }
        let oracle = NonceOracle::of_exported(&EXPORTED, true);
        Watcher { viewer, receiver, oracle, decoder: Decoder::default(), newest: 0, resent: 0, missed: HashSet::new() }
    }

    /// Checks what it is sent: every index stands for one packet, which is sent again only if that is `resent`.
    fn take(&mut self, ms: u64, datagrams: Vec<Vec<u8>>, publisher: &Publisher, resent: bool) {
        for datagram in datagrams {
            match self.oracle.see(&datagram) {
                Ok(Seen::New) => {}
                Ok(Seen::Again) if resent => {
                    self.resent += 1;
                    continue;
                }
                other => panic!("{other:?}"),
            }
            let (header, packet) = open(&mut self.receiver, datagram);
            if header.ssrc == 0xaaaa {
                self.newest = header.sequence_number;
                self.decoder.take(ms, &header, &packet, &publisher.frames);
            }
        }
    }
}

struct World {
    random: StdRng,
    publisher: Publisher,
    watchers: Vec<Watcher>,
    gone: Vec<Watcher>,
    ms: u64,
    /// Packets that the network holds back, and until when.
    held: Vec<(u64, Sent)>,
    /// Frames of which a packet never came, or too late.
    lost: HashSet<usize>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut publisher = Publisher::new(&CODINGS);
        let start = publisher.start;
        let watchers = (0..3).map(|index| Watcher::new(&mut publisher, start, index != 0)).collect();
        World {
            random: StdRng::seed_from_u64(seed),
            publisher,
            watchers,
            gone: Vec::new(),
            ms: 0,
            held: Vec::new(),
            lost: HashSet::new(),
        }
    }

    fn receive(&mut self, packet: &Sent) {
        if !self.publisher.receive(packet) {
            self.lost.insert(frame_of(&packet.payload));
        }
    }

    /// What the network still holds back never comes.
    fn lose_held(&mut self) {
        self.lost.extend(self.held.drain(..).map(|(_, packet)| frame_of(&packet.payload)));
    }

    /// A frame of every encoding that is active, over a network that loses, delays and reorders.
    fn publish(&mut self, is_lossy: bool) {
        let mut packets = self.publisher.encode(self.ms);
        if self.random.random_ratio(1, 8) && packets.len() > 1 {
            let index = self.random.random_range(1..packets.len());
            packets.swap(index - 1, index);
        }
        for packet in packets {
            match self.random.random_range(0..100) {
                0 if is_lossy => {
                    self.lost.insert(frame_of(&packet.payload));
                }
                1..4 if is_lossy => self.held.push((self.ms + self.random.random_range(5..120), packet)),
                _ => self.receive(&packet),
            }
            if self.random.random_ratio(1, 12) {
                self.serve();
            }
        }
    }

    fn serve(&mut self) {
        let ms = self.ms;
        self.publisher.tracks.begin_pass();
        for watcher in &mut self.watchers {
            let mut out = Outbound::disconnected();
            let pass = FanOutPass { now: self.publisher.at(ms), tracks: &self.publisher.tracks, overloaded: false };
            let served = watcher.viewer.serve(&pass, tuple(), &mut out);
            assert_eq!(served.refused, 0, "no packet comes twice to SRTP");
            watcher.take(ms, out.batch().datagrams().map(<[u8]>::to_vec).collect(), &self.publisher, false);
            if let Some((_, encoding)) = served.needs_keyframe {
                self.publisher.request_keyframe(encoding);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.publisher.at(self.ms);
        self.publisher.tracks.measure(now);
        for watcher in &mut self.watchers {
            for (_, encoding) in watcher.viewer.choose_layers(now, &self.publisher.tracks, || true).keyframes {
                self.publisher.request_keyframe(encoding);
            }
            let media = watcher.viewer.media();
            watcher.viewer.congestion_mut().poll(now, media, false);
            if let Some(encoding) = watcher.viewer.tracks().iter().find_map(EgressTrack::lacks_keyframe) {
                self.publisher.request_keyframe(encoding);
            }
        }
    }

    fn disturb(&mut self) {
        let now = self.publisher.at(self.ms);
        let index = self.random.random_range(0..self.watchers.len());
        let encoding = self.random.random_range(0..CODINGS.len() as u8);
        match self.random.random_range(0..12) {
            0 | 1 => {
                let active = !self.publisher.is_active(encoding);
                let others = (0..CODINGS.len() as u8).any(|other| other != encoding && self.publisher.is_active(other));
                self.publisher.set_active(encoding, active || !others);
            }
            2 => self.publisher.request_keyframe(encoding),
            3..6 => {
                let rate = [60_000, 130_000, 250_000, 500_000, 5_000_000][self.random.random_range(0..5)];
                let watcher = &mut self.watchers[index];
                let media = watcher.viewer.media();
                watcher.viewer.congestion_mut().on_remb(now, rate, media);
            }
            6 => {
                let mut selection = LayerSelection::default();
                let value = self.random.random_range(0..3);
                match self.random.random_range(0..3) {
                    0 => selection.rid = Some(value.to_string()),
                    1 => selection.max_temporal = Some(value),
                    _ => selection.max_width = Some(400 * u16::from(value)),
                }
                self.watchers[index].viewer.select_layer(TrackId::VIDEO, selection);
            }
            7 => {
                let watcher = &mut self.watchers[index];
                let track = video(&mut watcher.viewer);
                if let Some(encoding) = track.encoding(&self.publisher.tracks) {
                    track.restart(now, encoding);
                }
            }
            8 => video(&mut self.watchers[index].viewer).on_receipt(),
            9 => {
                let has_rtx = self.random.random();
                let next = Watcher::new(&mut self.publisher, now, has_rtx);
                self.gone.push(std::mem::replace(&mut self.watchers[index], next));
            }
            _ => {
                for _ in 0..20 {
                    let watcher = &mut self.watchers[index];
                    let number = watcher.newest.wrapping_sub(self.random.random_range(0..300));
                    let mut out = Outbound::disconnected();
                    watcher.viewer.resend(now, (0xaaaa, number), &self.publisher.tracks, tuple(), &mut out);
                    let datagrams = out.batch().datagrams().map(<[u8]>::to_vec).collect();
                    watcher.take(self.ms, datagrams, &self.publisher, true);
                }
            }
        }
    }

    /// Another publisher.
    fn restart(&mut self) {
        self.serve();
        for watcher in &mut self.watchers {
            watcher.viewer.note_positions(&self.publisher.tracks);
        }
        self.publisher.tracks.set_publisher(None);
        for watcher in &mut self.watchers {
            let track = video(&mut watcher.viewer);
            if let Some(encoding) = track.encoding(&self.publisher.tracks) {
                track.end_publication(encoding);
            }
        }
        self.lose_held();
        self.publisher.restart(&mut self.random);
    }

    fn run(&mut self, seconds: u64, (is_lossy, restarts): (bool, bool)) {
        let end = self.ms + seconds * 1_000;
        while self.ms < end {
            if self.ms.is_multiple_of(FRAME_INTERVAL) {
                self.publish(is_lossy);
            }
            let due = self.held.extract_if(.., |(until, _)| *until <= self.ms).collect::<Vec<_>>();
            for (_, packet) in &due {
                for watcher in &mut self.watchers {
                    if video(&mut watcher.viewer).encoding_index() != packet.encoding {
                        watcher.missed.insert(frame_of(&packet.payload));
                    }
                }
                self.receive(packet);
            }
            if self.ms.is_multiple_of(100) {
                self.tick();
            }
            if self.random.random_ratio(1, 250) {
                self.disturb();
            }
            if restarts && self.random.random_ratio(1, 9_000) {
                self.restart();
            }
            if self.random.random_ratio(1, 3) || self.ms.is_multiple_of(FRAME_INTERVAL) {
                self.serve();
            }
            self.ms += 3;
        }
        self.lose_held();
    }
}

// RTP-05, RTP-06, RTP-07, RTP-08, COD-06, COD-07, SRTP-08, SRTP-09
#[test]
fn what_a_viewer_is_sent_is_a_stream_whatever_layers_network_and_viewers_do() {
    let mut all_shown = 0;
    for seed in 0..12 {
        let (is_lossy, restarts) = (seed % 3 != 0, seed % 4 == 3);
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| {
            world.run(30, (is_lossy, restarts));
            for watcher in world.watchers.iter().chain(&world.gone) {
                watcher.decoder.check(&world.publisher.frames, !is_lossy && !restarts);
            }
            // What is still held back those that have gone do not get.
            for watcher in &world.watchers {
                let lost = world.lost.union(&watcher.missed).copied().collect();
                let undecodable = watcher.decoder.undecodable(&world.publisher.frames, &lost);
                let first = undecodable.first();
                assert_eq!(first.map(|&frame| watcher.decoder.describe(frame, &world.publisher.frames)), None);
                assert!(is_lossy || watcher.decoder.missing() == 0, "{} missing", watcher.decoder.missing());
            }
        });
        if let Err(failure) = std::panic::catch_unwind(run) {
            let text = failure.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("seed {seed}: {text}");
        }
        let watchers = world.watchers.iter().chain(&world.gone);
        all_shown += watchers.map(|watcher| watcher.decoder.shown.len()).sum::<usize>();
    }
    // A viewer that lost a packet here sees nothing before the next keyframe, whenever that comes: some worlds show little.
    assert!(all_shown > 12_000, "{all_shown} frames in twelve times half a minute");
}
