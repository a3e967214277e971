//! Random scalable streams: whatever a viewer wants and whatever is lost, it is sent nothing that refers to what was kept from
//! it.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::rtp::dependency_descriptor::tests::Row;

/// How spatial layers refer to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Always (L3T3).
    Full,
    /// In key pictures (L3T3_KEY).
    Key,
    /// Never (S3T3).
    Apart,
}

/// A frame: its layers, what it refers to, and its packet's descriptor.
struct Frame {
    number: u16,
    references: Vec<u16>,
    is_key_picture: bool,
    descriptor: Vec<u8>,
}

struct Model {
    mode: Mode,
    spatial: u8,
    temporal: u8,
    example: Example,
}

impl Model {
    fn new(mode: Mode, spatial: u8, temporal: u8) -> Model {
        let layers = (0..spatial).flat_map(|s| (0..temporal).map(move |t| (s, t)));
        let row = |(s, t): (u8, u8)| -> Row {
            (s, t, Model::indications(mode, (s, t), false, (spatial, temporal)), &[], &[])
        };
        let rows: Vec<Row> = layers.map(row).collect();
        Model {
            mode,
            spatial,
            temporal,
            example: Example { offset: 9, rows: rows.leak(), protected_by: &[], resolutions: &[] },
        }
    }

    /// What a frame is to each decode target, spatial layer by spatial layer.
    fn indications(mode: Mode, (s, t): (u8, u8), is_key: bool, (spatial, temporal): (u8, u8)) -> &'static str {
        let symbol = |target_s: u8, target_t: u8| {
            let is_below = s < target_s && (mode == Mode::Full || (mode == Mode::Key && is_key));
            match (s == target_s, is_below) {
                _ if t > target_t => '-',
                (false, false) => '-',
                (false, true) if !is_key => 'R',
                (true, false) if t == target_t && t > 0 => 'D',
                _ => 'S',
            }
        };
        let text: String =
            (0..spatial).flat_map(|s| (0..temporal).map(move |t| (s, t))).map(|(s, t)| symbol(s, t)).collect();
        text.leak()
    }

    /// The pictures of a stream; a frame refers to the last one of its spatial layer with a lower temporal layer, or to the
    /// last one with the lowest.
    fn pictures(&self, random: &mut StdRng) -> Vec<Vec<Frame>> {
        let mut last: HashMap<(u8, u8), u16> = HashMap::new();
        let (mut number, mut since_key) = (random.random::<u16>(), 0u32);
        let mut pictures = Vec::new();
        for picture in 0..120 {
            let is_key = picture == 0 || random.random_bool(0.04);
            since_key = if is_key { 0 } else { since_key + 1 };
            let t = match (since_key % 4, self.temporal) {
                (0, _) | (_, 1) => 0,
                (2, 3) => 1,
                (2, _) => 0,
                _ => self.temporal - 1,
            };
            let mut frames: Vec<Frame> = Vec::new();
            for s in 0..self.spatial {
                number = number.wrapping_add(1);
                let mut references = Vec::new();
                if !is_key {
                    let highest = if t == 0 { 0 } else { t - 1 };
                    let candidates = (0..=highest).filter_map(|t| last.get(&(s, t)));
                    references.extend(candidates.min_by_key(|candidate| number.wrapping_sub(**candidate)));
                }
                if s > 0 && (self.mode == Mode::Full || (self.mode == Mode::Key && is_key)) {
                    references.push(number.wrapping_sub(1));
                }
                let descriptor = self.describe((s, t), number, &references, is_key);
                frames.push(Frame { number, references, is_key_picture: is_key, descriptor });
            }
            if is_key {
                last.clear();
            }
            for (s, frame) in frames.iter().enumerate() {
                last.insert((s as u8, t), frame.number);
            }
            pictures.push(frames);
        }
        pictures
    }

    fn describe(&self, (s, t): (u8, u8), number: u16, references: &[u16], is_key: bool) -> Vec<u8> {
        let row = usize::from(s * self.temporal + t);
        if is_key && s == 0 {
            return self.example.with_structure_and(row, number, self.own((s, t), is_key));
        }
        let written = self.example.fields(row, number, (true, true)).put(0x06, 5);
        let written = indications(self.own((s, t), is_key), written);
        let difference = |written: Written, reference: &u16| {
            written.put(3, 2).put(u32::from(number.wrapping_sub(*reference)) - 1, 12)
        };
        references.iter().fold(written, difference).put(0, 2).bytes()
    }

    fn own(&self, layers: (u8, u8), is_key: bool) -> &'static str {
        Model::indications(self.mode, layers, is_key, (self.spatial, self.temporal))
    }
}

// EXT-H12, COD-09, RTP-07
#[test]
fn nobody_is_sent_what_refers_to_frames_that_were_kept_from_it() {
    let mut changes = 0;
    for seed in 0..120 {
        let mut random = StdRng::seed_from_u64(seed);
        let mode = [Mode::Full, Mode::Key, Mode::Apart][random.random_range(0..3)];
        let (spatial, temporal) = (random.random_range(1..4u8), random.random_range(1..4u8));
        let model = Model::new(mode, spatial, temporal);
        let is_lossy = random.random_bool(0.5);
        let mut reader = LayerReader::new();
        let mut anywhere = || OperatingPoint {
            encoding: 0,
            spatial: random.random_range(0..spatial),
            temporal: random.random_range(0..temporal),
        };
        let (mut at, mut wanted) = (anywhere(), anywhere());
        let mut decodable = DecodablePoints::NONE;
        let (mut sent, mut lost) = (HashSet::new(), HashSet::new());
        for frames in model.pictures(&mut random) {
            if random.random_bool(0.1) {
                wanted = OperatingPoint {
                    encoding: 0,
                    spatial: random.random_range(0..spatial),
                    temporal: random.random_range(0..temporal),
                };
            }
            for (s, frame) in frames.iter().enumerate() {
                // A key picture that is lost in part is waited for again.
                if is_lossy && !frame.is_key_picture && random.random_bool(0.05) {
                    lost.insert(frame.number);
                    continue;
                }
                let layer = reader.read(Codec::Av1, &[0x10], Some(&frame.descriptor));
                let before = at;
                if frame.is_key_picture && s == 0 {
                    (at, decodable) = (wanted, DecodablePoints::AT_KEYFRAME);
                } else {
                    at = decodable.go(&layer, at, wanted);
                }
                changes += usize::from(at != before);
                if layer.present & at.bit() == 0 {
                    decodable.leave_out(&layer);
                    continue;
                }
                sent.insert(frame.number);
                for reference in &frame.references {
                    let had = sent.contains(reference) || lost.contains(reference);
                    assert!(
                        had,
                        "{seed}: {mode:?} L{spatial}T{temporal}, {at:?}, frame {} refers to {reference}",
                        frame.number
                    );
                }
            }
        }
    }
    assert!(changes > 500, "viewers moved {changes} times");
}
