//! A publisher of several encodings with temporal layers, and a decoder that tells by itself what could be decoded: both know
//! what each frame refers to, and nothing of the server.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::rtp::layers::LayerReader;
use crate::stream::PublishedTrack;

/// Bytes of a payload at most.
pub(super) const MTU: usize = 1_100;
/// Of a VP8 descriptor with all fields, and of what says which frame it is.
const DESCRIPTOR: usize = 6;
const MARK: usize = 9;
/// ms.
pub(super) const FRAME_INTERVAL: u64 = 33;

/// What one encoding is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coding {
    /// Bits per second.
    pub(super) rate: u64,
    pub(super) width: u16,
    /// Temporal layers: 1, 2 or 3.
    pub(super) temporal: u8,
    /// How many times larger than another frame a keyframe is.
    pub(super) keyframe: f64,
}

/// A frame as the encoder made it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) encoding: u8,
    pub(super) temporal: u8,
    pub(super) keyframe: bool,
    pub(super) packets: usize,
    /// Frames, by number, without which it cannot be decoded.
    refers_to: Vec<usize>,
}

struct Encoder {
    coding: Coding,
    reader: LayerReader,
    is_active: bool,
    wants_keyframe: bool,
    /// Bytes of the next frame, if it is not one as usual.
    next_bytes: Option<usize>,
    /// Frames since the last keyframe.
    since: u64,
    keyframes: u64,
    picture_id: u16,
    tl0: u8,
    key_idx: u8,
    /// The last frame of each temporal layer since the keyframe.
    last: [Option<usize>; 4],
}

/// Encodes, and puts into the tracks what is received.
pub(super) struct Publisher {
    pub(super) tracks: Tracks,
    pub(super) start: Instant,
    /// ms between two frames.
    pub(super) frame_interval: u64,
    encoders: Vec<Encoder>,
    pub(super) frames: Vec<Frame>,
    next: Vec<u64>,
}

/// A packet on its way to the server.
pub(super) struct Sent {
    pub(super) encoding: u8,
    pub(super) info: PacketInfo,
    pub(super) payload: Vec<u8>,
}

impl Publisher {
    pub(super) fn new(codings: &[Coding]) -> Publisher {
        let mut tracks = Tracks::new(Duration::ZERO);
        tracks.get_or_insert(TrackId::AUDIO);
        tracks.get_or_insert(TrackId::VIDEO).make_encodings(codings.len());
        let encoder = |(index, &coding): (usize, &Coding)| Encoder {
            coding,
            reader: LayerReader::new(),
            is_active: true,
            wants_keyframe: true,
            next_bytes: None,
            since: 0,
            keyframes: 0,
            picture_id: (index as u16 * 9_000) & 0x7fff,
            tl0: index as u8 * 70,
            key_idx: index as u8,
            last: [None; 4],
        };
        let encoders = codings.iter().enumerate().map(encoder).collect();
        let next = vec![1_000; codings.len()];
        let (start, frame_interval) = (Instant::now(), FRAME_INTERVAL);
        let mut publisher = Publisher { tracks, start, frame_interval, encoders, frames: Vec::new(), next };
        publisher.connect();
        publisher
    }

    fn connect(&mut self) {
        let rids = (0..self.encoders.len()).map(|index| Some(index.to_string())).collect();
        let feedback = Feedback { pli: true, ..Feedback::default() };
        let formats = vec![Format { feedback, ..format(96, Codec::Vp8, None) }];
        let video = PublishedTrack { id: TrackId::VIDEO, formats, in_use: None, rids };
        self.tracks.set_publisher(Some(&[video]));
    }

    pub(super) fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    pub(super) fn request_keyframe(&mut self, encoding: u8) {
        self.encoders[usize::from(encoding)].wants_keyframe = true;
    }

    /// The next frame of an encoding has so many bytes, say after a change of scene.
    pub(super) fn overshoot(&mut self, encoding: u8, bytes: usize) {
        self.encoders[usize::from(encoding)].next_bytes = Some(bytes);
    }

    /// Keyframes that an encoding has had.
    pub(super) fn keyframes(&self, encoding: u8) -> u64 {
        self.encoders[usize::from(encoding)].keyframes
    }

    pub(super) fn set_active(&mut self, encoding: u8, is_active: bool) {
        let encoder = &mut self.encoders[usize::from(encoding)];
        encoder.wants_keyframe |= is_active && !encoder.is_active;
        encoder.is_active = is_active;
    }

    pub(super) fn is_active(&self, encoding: u8) -> bool {
        self.encoders[usize::from(encoding)].is_active
    }

    /// All encodings begin anew, under whatever numbers.
    pub(super) fn restart(&mut self, random: &mut impl rand::Rng) {
        self.connect();
        for encoder in &mut self.encoders {
            (encoder.wants_keyframe, encoder.picture_id) = (true, random.random::<u16>() & 0x7fff);
            encoder.tl0 = random.random();
        }
        for (index, next) in self.next.iter_mut().enumerate() {
            *next = self.tracks.encoding(TrackId::VIDEO, index as u8).unwrap().end().max(*next);
        }
    }

    /// The packets of all encodings' frames of this moment.
    pub(super) fn encode(&mut self, ms: u64) -> Vec<Sent> {
        (0..self.encoders.len()).flat_map(|encoding| self.encode_one(ms, encoding)).collect()
    }

    fn encode_one(&mut self, ms: u64, index: usize) -> Vec<Sent> {
        let arrived = self.at(ms);
        let encoder = &mut self.encoders[index];
        if !encoder.is_active {
            return Vec::new();
        }
        let keyframe = std::mem::take(&mut encoder.wants_keyframe);
        if keyframe {
            (encoder.since, encoder.last) = (0, [None; 4]);
            encoder.keyframes += 1;
            encoder.key_idx = (encoder.key_idx + 1) & 0x1f;
        }
        let pattern: &[u8] = match encoder.coding.temporal {
            1 => &[0],
            2 => &[0, 1],
            _ => &[0, 2, 1, 2],
        };
        let temporal = pattern[encoder.since as usize % pattern.len()];
        encoder.since += 1;
        // Each refers to the last frame of every layer below its own, and the lowest to the last of its own. The first frame
        // of a layer after one of the lowest is a switching point.
        let number = self.frames.len();
        let below = if temporal == 0 { 0..=0 } else { 0..=temporal - 1 };
        let refers_to = below.filter_map(|layer| encoder.last[usize::from(layer)]).collect();
        let has_synced = temporal > 0 && encoder.last[1..usize::from(temporal)].iter().all(Option::is_none);
        encoder.last[usize::from(temporal)] = Some(number);
        if temporal == 0 {
            encoder.last[1..].fill(None);
            encoder.tl0 = encoder.tl0.wrapping_add(1);
        }
        encoder.picture_id = (encoder.picture_id + 1) & 0x7fff;
        let ordinary = encoder.coding.rate as f64 / 8.0 * self.frame_interval as f64 / 1_000.0;
        let usual = if keyframe { encoder.coding.keyframe * ordinary } else { ordinary };
        let bytes = encoder.next_bytes.take().unwrap_or(usual as usize);
        let packets = bytes.div_ceil(MTU).max(1);
        let timestamp = ms as u32 * 90;
        self.frames.push(Frame { encoding: index as u8, temporal, keyframe, packets, refers_to });
        let mut sent = Vec::new();
        for packet in 0..packets {
            let start = if packet == 0 { 0x10 } else { 0 };
            let [high, low] = (encoder.picture_id | 0x8000).to_be_bytes();
            let layer = temporal << 6 | u8::from(has_synced) << 5 | encoder.key_idx;
            let mut payload = vec![0x80 | start, 0xf0, high, low, encoder.tl0, layer];
            payload.push(u8::from(!keyframe));
            payload.extend((number as u32).to_be_bytes());
            payload.extend((packet as u16).to_be_bytes());
            payload.extend([0; 2]);
            payload.resize((bytes / packets).max(DESCRIPTOR + MARK), 0);
            let info = PacketInfo {
                sequence: self.next[index],
                timestamp,
                arrived,
                payload_type: 96,
                marker: packet + 1 == packets,
                keyframe: keyframe && packet == 0,
                layer: encoder.reader.read(Codec::Vp8, &payload, None),
            };
            self.next[index] += 1;
            sent.push(Sent { encoding: index as u8, info, payload });
        }
        sent
    }

    /// A packet is received, and its encoding described as the ingest does.
    pub(super) fn receive(&mut self, packet: &Sent) -> bool {
        let encoding = self.tracks.encoding_mut(TrackId::VIDEO, packet.encoding).unwrap();
        let Encoder { coding: Coding { width, .. }, reader, .. } = &self.encoders[usize::from(packet.encoding)];
        encoding.described.points = reader.points();
        encoding.described.sizes[0] = Some((*width, width / 16 * 9));
        encoding.admit(packet.info, &[], &packet.payload)
    }
}

/// The frame of a payload, by number.
pub(super) fn frame_of(payload: &[u8]) -> usize {
    let number = payload[DESCRIPTOR + 1..].first_chunk().unwrap();
    u32::from_be_bytes(*number) as usize
}

/// A packet that a viewer has got.
#[derive(Clone, Copy, Debug)]
struct Got {
    frame: usize,
    packet: usize,
    timestamp: u32,
    marker: bool,
    picture_id: u16,
    tl0: u8,
    temporal: u8,
}

/// Takes a viewer's packets for what they are, and checks that they are a stream that a receiver accepts.
#[derive(Default)]
pub(super) struct Decoder {
    highest: Option<u64>,
    /// By extended number; `None` for padding.
    got: HashMap<u64, Option<Got>>,
    parts: HashMap<usize, HashSet<usize>>,
    /// Frames that could be decoded, in the order in which they could.
    pub(super) shown: Vec<(usize, u64)>,
    decoded: HashSet<usize>,
}

impl Decoder {
    /// A packet of the media stream, decrypted, at `ms`. False for one that has come before.
    pub(super) fn take(&mut self, ms: u64, header: &RtpHeader, packet: &[u8], frames: &[Frame]) {
        let number = u64::from(header.sequence_number);
        let highest = self.highest.unwrap_or(1 << 32 | number);
        let extended =
            highest.wrapping_add_signed(i64::from(header.sequence_number.wrapping_sub(highest as u16) as i16));
        self.highest = Some(highest.max(extended));
        let payload = header.payload(packet);
        if payload.is_empty() {
            assert!(self.got.insert(extended, None).is_none_or(|before| before.is_none()));
            return;
        }
        assert_eq!(payload[..2], [0x80 | payload[0] & 0x10, 0xf0]);
        let rest = &payload[DESCRIPTOR + 1..];
        let frame = frame_of(payload);
        let part = usize::from(u16::from_be_bytes(rest[4..6].try_into().unwrap()));
        let got = Got {
            frame,
            packet: part,
            timestamp: header.timestamp,
            marker: header.marker,
            picture_id: u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff,
            tl0: payload[4],
            temporal: payload[5] >> 6,
        };
        if let Some(Some(before)) = self.got.insert(extended, Some(got)) {
            assert_eq!((before.frame, before.packet), (frame, part), "a number for two packets");
            return;
        }
        let parts = self.parts.entry(frame).or_default();
        parts.insert(part);
        if parts.len() == frames[frame].packets {
            self.complete(ms, frame, frames);
        }
    }

    fn complete(&mut self, ms: u64, frame: usize, frames: &[Frame]) {
        let has_all = |frame: usize| frames[frame].refers_to.iter().all(|other| self.decoded.contains(other));
        if !self.decoded.contains(&frame) && has_all(frame) {
            self.decoded.insert(frame);
            self.shown.push((frame, ms));
            // Those that came before what they refer to.
            let waiting: Vec<usize> = self
                .parts
                .keys()
                .copied()
                .filter(|&other| {
                    other > frame
                        && frames[other].refers_to.contains(&frame)
                        && self.parts[&other].len() == frames[other].packets
                })
                .collect();
            waiting.into_iter().for_each(|other| self.complete(ms, other, frames));
        }
    }

    /// Numbers that are missing up to the highest.
    pub(super) fn missing(&self) -> u64 {
        let (Some(&lowest), Some(highest)) = (self.got.keys().min(), self.highest) else { return 0 };
        highest + 1 - lowest - self.got.len() as u64
    }

    /// What holds of every stream: within a frame timestamps and picture ids are equal and numbers ascend, the last packet has
    /// the marker, and the next frame is later and has the next picture id, where nothing is missing between them.
    /// `is_seamless`: with an encoding, too.
    pub(super) fn check(&self, frames: &[Frame], is_seamless: bool) {
        let mut numbers: Vec<u64> = self.got.keys().copied().collect();
        numbers.sort_unstable();
        let mut before: Option<(u64, Got)> = None;
        for number in numbers {
            let Some(got) = self.got[&number] else {
                before = None;
                continue;
            };
            assert_eq!(got.temporal, frames[got.frame].temporal);
            if let Some((_, last)) = before {
                let case = format!("{last:?}\n{:?}\n{got:?}\n{:?}", frames[last.frame], frames[got.frame]);
                let step = got.timestamp.wrapping_sub(last.timestamp) as i32;
                // A keyframe that is begun anew, by a restart from the cache, is another one for the receiver.
                let is_again = frames[got.frame].keyframe && got.packet == 0;
                if got.frame == last.frame && !is_again {
                    assert_eq!((step, got.picture_id, got.tl0), (0, last.picture_id, last.tl0), "{case}");
                    assert!(got.packet > last.packet, "{case}");
                } else {
                    assert!(step > 0, "time goes on: {case}");
                }
            }
            if let Some((_, last)) = before.filter(|(at, last)| at + 1 == number && got.frame != last.frame) {
                let case = format!("{last:?}\n{:?}\n{got:?}\n{:?}", frames[last.frame], frames[got.frame]);
                let is_whole = last.packet + 1 == frames[last.frame].packets && got.packet == 0;
                assert!(!is_whole || last.marker, "{case}");
                let is_switch = frames[got.frame].encoding != frames[last.frame].encoding;
                if is_whole && (!frames[got.frame].keyframe || (is_seamless && is_switch)) {
                    assert_eq!((last.picture_id + 1) & 0x7fff, got.picture_id, "{case}");
                    let base = u8::from(got.temporal == 0);
                    assert_eq!(last.tl0.wrapping_add(base), got.tl0, "{case}");
                }
            }
            before = Some((number, got));
        }
    }

    /// Says what was got of a frame and of those to which it refers.
    pub(super) fn describe(&self, frame: usize, frames: &[Frame]) -> String {
        let got = |frame: usize| {
            let numbers = self.got.iter().filter(|(_, got)| got.is_some_and(|got| got.frame == frame));
            let mut numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            format!("{frame} {:?} in {numbers:?}\n", frames[frame])
        };
        std::iter::once(frame).chain(frames[frame].refers_to.iter().copied()).map(got).collect()
    }

    /// Complete frames that could not be decoded, though nothing that they refer to was lost on the way to the server.
    pub(super) fn undecodable(&self, frames: &[Frame], lost: &HashSet<usize>) -> Vec<usize> {
        let is_whole = |frame: &usize| self.parts[frame].len() == frames[*frame].packets;
        let complete = self.parts.keys().copied().filter(is_whole);
        let mut undecodable: Vec<usize> = complete.filter(|frame| !self.decoded.contains(frame)).collect();
        undecodable.sort_unstable();
        // One whose reference was lost cannot be decoded, and neither can what refers to it.
        let mut excused = lost.clone();
        for (number, frame) in frames.iter().enumerate() {
            if frame.refers_to.iter().any(|other| excused.contains(other)) {
                excused.insert(number);
            }
        }
        undecodable.retain(|frame| !excused.contains(frame));
        undecodable
    }
}
