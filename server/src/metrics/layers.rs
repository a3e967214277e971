//! Which layers viewers are sent, at the moment of a scrape.

use media_core::stats::SessionStats;
use prometheus::{IntGauge, IntGaugeVec, Opts};

use super::{Declare, signed};

/// Heights of frames that are told apart, in pixels; each stands for those up to it.
const HEIGHTS: [u16; 7] = [180, 270, 360, 540, 720, 1080, 2160];

/// What stands for all above.
const ABOVE: &str = "above";

/// Viewers by what they are sent of the video.
pub(super) struct LayerMetrics {
    heights: IntGaugeVec,
    paused: IntGauge,
}

impl LayerMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<LayerMetrics> {
        let heights =
            "Viewers by the height of the frames that they are sent, in pixels, up to which each value counts.";
        let paused = "Viewers whose path does not carry the lowest layer, so that their video pauses.";
        Ok(LayerMetrics {
            heights: d.add(IntGaugeVec::new(Opts::new("sluice_viewers_by_frame_height", heights), &["height"]))?,
            paused: d.add(IntGauge::new("sluice_viewers_video_paused", paused))?,
        })
    }

    pub(super) fn set<'a>(&self, sessions: impl Iterator<Item = &'a SessionStats>) {
        let (mut heights, mut paused) = ([0_u64; HEIGHTS.len() + 1], 0);
        for stats in sessions {
            paused += u64::from(stats.video_paused);
            let sent = stats.layer.map(|sent| sent.layer);
            if let Some(layer) = sent.filter(|layer| layer.height > 0 && !stats.video_paused) {
                heights[HEIGHTS.iter().position(|most| layer.height <= *most).unwrap_or(HEIGHTS.len())] += 1;
            }
        }
        for (index, count) in heights.into_iter().enumerate() {
            let label = HEIGHTS.get(index).map_or_else(|| ABOVE.to_owned(), ToString::to_string);
            self.heights.with_label_values(&[&label]).set(signed(count));
        }
        self.paused.set(signed(paused));
    }
}
