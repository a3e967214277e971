//! Layers: which encodings, spatial and temporal layers a publisher sends, how big they are, and which frame needs which.

use std::fmt;
use std::str::FromStr;

/// Simulcast encodings of one publisher, and spatial or temporal layers inside one, at most.
pub(crate) const MAX_LAYERS: u8 = 4;

/// What the encodings of a simulcast, or the spatial layers of an encoding with those below them, have of the bit rate of the
/// highest: each has half the width and height of the next one. About what libwebrtc gives layers of 720p.
const SHARES: [f64; MAX_LAYERS as usize] = [0.02, 0.06, 0.2, 1.0];

/// What temporal layers have of the bit rate with those below them, as libwebrtc divides it.
const TEMPORAL_SHARES: [&[f64]; 3] = [&[1.0], &[0.6, 1.0], &[0.4, 0.6, 1.0]];

/// Temporal layers of the pictures of a period.
const PATTERNS: [&[u8]; 3] = [&[0], &[0, 1], &[0, 2, 1, 2]];

/// Where something is among the layers of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct LayerId {
    /// Encoding of a simulcast, the smallest one first.
    pub encoding: u8,
    /// Spatial layer inside it.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
}

/// Spatial and temporal layers of one encoding (the modes `LxTy` and `LxTy_KEY` of W3C's webrtc-svc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalability {
    /// Spatial layers, 1..=3.
    pub spatial: u8,
    /// Temporal layers, 1..=3.
    pub temporal: u8,
    /// Spatial layers refer to each other in keyframes only.
    pub key_only: bool,
}

impl Scalability {
    /// One layer.
    pub const ONLY: Scalability = Scalability { spatial: 1, temporal: 1, key_only: false };

    /// Period of the temporal layers, in pictures.
    pub(crate) fn pattern(self) -> &'static [u8] {
        PATTERNS[usize::from(self.temporal.clamp(1, 3) - 1)]
    }

    /// How big a picture of this temporal layer is, by the average picture.
    pub(crate) fn weight(self, temporal: u8) -> f64 {
        let shares = TEMPORAL_SHARES[usize::from(self.temporal.clamp(1, 3) - 1)];
        let (index, pattern) = (usize::from(temporal).min(shares.len() - 1), self.pattern());
        let own = shares[index] - index.checked_sub(1).map_or(0.0, |below| shares[below]);
        let pictures = pattern.iter().filter(|id| usize::from(**id) == index).count();
        own * pattern.len() as f64 / pictures.max(1) as f64
    }

    /// What the frame of this spatial layer has of the bytes of its picture.
    pub(crate) fn own_share(self, spatial: u8) -> f64 {
        share(self.spatial, spatial) - spatial.checked_sub(1).map_or(0.0, |below| share(self.spatial, below))
    }

    /// Of picture `position` of the period: how many pictures back the one is that it refers to.
    pub(crate) fn distance(self, position: usize) -> u32 {
        match (self.temporal, position) {
            (3, 0) => 4,
            (3, 2) | (2, 0) => 2,
            _ => 1,
        }
    }

    /// What a viewer gets up to a layer of this encoding, by its bit rate and by its frame rate.
    fn parts(self, spatial: u8, temporal: u8) -> (f64, f64) {
        let shares = TEMPORAL_SHARES[usize::from(self.temporal.clamp(1, 3) - 1)];
        let pattern = self.pattern();
        let pictures = pattern.iter().filter(|id| **id <= temporal).count();
        let rate = shares[usize::from(temporal).min(shares.len() - 1)];
        (share(self.spatial, spatial) * rate, pictures as f64 / pattern.len() as f64)
    }
}

/// The part of the bit rate that layer `index` of `count` has.
pub(crate) fn share(count: u8, index: u8) -> f64 {
    let missing = MAX_LAYERS.saturating_sub(count.max(1));
    SHARES[usize::from((missing + index).min(MAX_LAYERS - 1))]
}

/// Pixels of a layer: the highest one has 1280x720.
pub(crate) fn picture_size(count: u8, index: u8) -> (u16, u16) {
    let halvings = count.saturating_sub(index + 1);
    (1280 >> halvings, 720 >> halvings)
}

/// One of the points of a track at which a viewer can be.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LadderStep {
    /// The highest layer there.
    pub layer: LayerId,
    /// Video payload in kbit/s.
    pub kbit_per_second: f64,
    /// Pictures a second.
    pub frame_rate: f64,
    /// Width of the picture in pixels.
    pub width: u16,
    /// Its height.
    pub height: u16,
}

/// All points of a track, by bit rate.
pub(crate) fn ladder(kbit_per_second: f64, frame_rate: f64, encodings: u8, svc: Scalability) -> Vec<LadderStep> {
    let encodings = encodings.max(1);
    let mut steps = Vec::new();
    for encoding in 0..encodings {
        for spatial in 0..svc.spatial {
            for temporal in 0..svc.temporal {
                let (rate, pictures) = svc.parts(spatial, temporal);
                let (width, height) = picture_size(encodings + svc.spatial - 1, encoding + spatial);
                steps.push(LadderStep {
                    layer: LayerId { encoding, spatial, temporal },
                    kbit_per_second: kbit_per_second * share(encodings, encoding) * rate,
                    frame_rate: frame_rate * pictures,
                    width,
                    height,
                });
            }
        }
    }
    steps.sort_by(|a, b| a.kbit_per_second.total_cmp(&b.kbit_per_second));
    steps
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/S{}T{}", self.encoding, self.spatial, self.temporal)
    }
}

impl fmt::Display for Scalability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}T{}{}", self.spatial, self.temporal, if self.key_only { "_KEY" } else { "" })
    }
}

impl FromStr for Scalability {
    type Err = String;

    fn from_str(text: &str) -> Result<Scalability, String> {
        let (name, key_only) = text.strip_suffix("_KEY").map_or((text, false), |name| (name, true));
        let read = || {
            let (spatial, temporal) = name.strip_prefix('L')?.split_once('T')?;
            Some((spatial.parse().ok()?, temporal.parse().ok()?))
        };
        match read() {
            Some((spatial @ 1..=3, temporal @ 1..=3)) if !key_only || spatial > 1 => {
                Ok(Scalability { spatial, temporal, key_only })
            }
            _ => Err("such as L1T3, L3T3 or L3T3_KEY, up to three layers of a kind".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_written() {
        for text in ["L1T1", "L1T3", "L2T1", "L3T3", "L3T3_KEY"] {
            assert_eq!(text.parse::<Scalability>().unwrap().to_string(), text);
        }
        for text in ["L0T1", "L4T1", "L1T3_KEY", "S2T1", "L3", ""] {
            assert!(text.parse::<Scalability>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_period_are_the_whole() {
        for temporal in 1..=3 {
            let mode = Scalability { temporal, ..Scalability::ONLY };
            let sum: f64 = mode.pattern().iter().map(|id| mode.weight(*id)).sum();
            assert!((sum - mode.pattern().len() as f64).abs() < 1e-9, "{mode}: {sum}");
            // What a picture refers to is of its own layer or a lower one.
            for (position, id) in mode.pattern().iter().enumerate() {
                let back = mode.distance(position) as usize % mode.pattern().len();
                let other = mode.pattern()[(position + mode.pattern().len() - back) % mode.pattern().len()];
                assert!(other <= *id, "{mode} {position}");
            }
        }
        let mode = Scalability { spatial: 3, ..Scalability::ONLY };
        assert!(((0..3).map(|spatial| mode.own_share(spatial)).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_ladder_of_three_encodings_is_that_of_libwebrtc() {
        let ladder = ladder(2500.0, 30.0, 3, Scalability { temporal: 3, ..Scalability::ONLY });
        assert_eq!(ladder.len(), 9);
        assert!(ladder.is_sorted_by(|a, b| a.kbit_per_second <= b.kbit_per_second));
        let of = |encoding, temporal| {
            let layer = LayerId { encoding, spatial: 0, temporal };
            let step = ladder.iter().find(|step| step.layer == layer).unwrap();
            (step.kbit_per_second.round(), step.frame_rate, step.width)
        };
        assert_eq!(of(0, 2), (150.0, 30.0, 320));
        assert_eq!(of(1, 2), (500.0, 30.0, 640));
        assert_eq!(of(2, 0), (1000.0, 7.5, 1280));
        assert_eq!(of(2, 2), (2500.0, 30.0, 1280));
    }
}
