//! The layers of a stream's video: what viewers are told of them, and what they may choose.

use media_core::layers::LayerReport;
use media_core::media::TrackId;
use media_core::{SessionId, ShardIndex};
use serde::Serialize;

use super::Registry;
use crate::limits::LAYER_FLUCTUATION;

/// What is known of the layers that a viewer may choose of.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownLayers {
    /// How many m-lines the viewer's description has.
    pub(crate) lines: usize,
    /// That of its video.
    pub(crate) video_line: Option<usize>,
    /// As the media core last reported them, the lowest quality first.
    pub(crate) reports: Vec<LayerReport>,
    /// `a=rid` lines of the publisher, of which there may be no report yet.
    pub(crate) rids: Vec<String>,
}

impl KnownLayers {
    /// Whether an encoding has this name.
    pub(crate) fn has_rid(&self, rid: &str) -> bool {
        self.rids.iter().any(|known| known == rid)
            || self.reports.iter().any(|report| report.rid.as_deref() == Some(rid))
    }

    /// Whether there is such a layer, of the encoding with this name if one is given.
    pub(crate) fn has_layer(&self, rid: Option<&str>, spatial: Option<u32>, temporal: Option<u32>) -> bool {
        let is = |wanted: Option<u32>, layer: u8| wanted.is_none_or(|wanted| wanted == u32::from(layer));
        let is_of = |report: &LayerReport| rid.is_none() || report.rid.as_deref() == rid;
        (spatial.is_none() && temporal.is_none())
            || self.reports.iter().any(|report| {
                is_of(report) && is(spatial, report.layer.point.spatial) && is(temporal, report.layer.point.temporal)
            })
    }
}

/// A layer as the event `layers` has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rid: Option<&'a str>,
    spatial_layer_id: u8,
    temporal_layer_id: u8,
    bitrate: u64,
    #[serde(skip_serializing_if = "is_zero")]
    width: u16,
    #[serde(skip_serializing_if = "is_zero")]
    height: u16,
    /// The draft does not have it; it tells temporal layers apart for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_rate: Option<f32>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// Whether viewers are to be told again: of other layers or sizes, of one that pauses or returns, or of a rate that has changed by
/// more than an encoder's rate fluctuates.
pub(super) fn differ(told: &[LayerReport], layers: &[LayerReport]) -> bool {
    let has_changed = |before: f64, now: f64| before.max(now) > LAYER_FLUCTUATION * before.min(now);
    told.len() != layers.len()
        || told.iter().zip(layers).any(
            |(LayerReport { rid, layer: before }, LayerReport { rid: other, layer: now })| {
                (rid, before.point, before.width, before.height) != (other, now.point, now.width, now.height)
                    || has_changed(before.bitrate as f64, now.bitrate as f64)
                    || has_changed(before.frame_rate.into(), now.frame_rate.into())
            },
        )
}

/// The JSON array of the event `layers`, the highest quality first, as the draft's examples have it.
pub(super) fn array(layers: &[LayerReport]) -> String {
    let told: Vec<Told<'_>> = layers
        .iter()
        .rev()
        .map(|LayerReport { rid, layer }| Told {
            rid: rid.as_deref(),
            spatial_layer_id: layer.point.spatial,
            temporal_layer_id: layer.point.temporal,
            bitrate: layer.bitrate,
            width: layer.width,
            height: layer.height,
            frame_rate: Some((10.0 * layer.frame_rate).round() / 10.0).filter(|rate| *rate > 0.0),
        })
        .collect();
    // Strings and finite numbers always serialise.
    serde_json::to_string(&told).unwrap_or_else(|_| "[]".to_owned())
}

impl Registry {
    /// What a viewer may choose of, and the shard that serves it.
    pub(crate) fn known_layers(&self, id: SessionId) -> Option<(ShardIndex, KnownLayers)> {
        let (shard, stream, lines, video_line) = self.with_live(id, |session| {
            (session.new.shard, session.new.stream.clone(), session.new.mids.len(), session.new.video_line)
        })?;
        let (reports, rids) = self.streams.get(&stream).map(|stream| stream.known_layers()).unwrap_or_default();
        Some((shard, KnownLayers { lines, video_line, reports, rids }))
    }

    /// The layers of a publisher's track, as they are now.
    pub(super) fn layers(&self, id: SessionId, track: TrackId, layers: Vec<LayerReport>) {
        let Some(stream) = self.sessions.get(&id).map(|session| session.new.stream.clone()) else { return };
        if let Some(mut stream) = self.streams.get_mut(&stream) {
            stream.set_layers(id, track, layers);
        }
    }
}
