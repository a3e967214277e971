//! The layers of a track: of which encodings (simulcast, RFC 8853) and of which spatial and temporal layers inside them
//! (scalable video coding) it consists, and where among them a viewer is.

use serde::Serialize;

/// Encodings of a track that are sent as RTP streams of their own, at most.
pub const MAX_ENCODINGS: usize = 4;
/// Spatial layers inside an encoding that are told apart; higher ones count as the highest.
pub const MAX_SPATIAL_LAYERS: u8 = 4;
/// Temporal layers inside an encoding that are told apart; higher ones count as the highest.
pub const MAX_TEMPORAL_LAYERS: u8 = 4;

/// Points inside one encoding.
pub const POINTS: usize = (MAX_SPATIAL_LAYERS * MAX_TEMPORAL_LAYERS) as usize;

/// A set of points inside one encoding: bit `spatial * MAX_TEMPORAL_LAYERS + temporal` is the point of a viewer that is sent
/// spatial layers up to `spatial` and temporal layers up to `temporal`.
pub type PointSet = u16;

/// All points of an encoding.
pub const ALL_POINTS: PointSet = PointSet::MAX;

/// The position of a point among the [`POINTS`] of an encoding. Layers above the highest that are told apart count as the highest.
#[inline]
pub const fn point_index(spatial: u8, temporal: u8) -> usize {
    let spatial = if spatial < MAX_SPATIAL_LAYERS { spatial } else { MAX_SPATIAL_LAYERS - 1 };
    let temporal = if temporal < MAX_TEMPORAL_LAYERS { temporal } else { MAX_TEMPORAL_LAYERS - 1 };
    (spatial * MAX_TEMPORAL_LAYERS + temporal) as usize
}

/// The bit of a point inside an encoding, likewise.
#[inline]
pub const fn point_bit(spatial: u8, temporal: u8) -> PointSet {
    1 << point_index(spatial, temporal)
}

/// Which layer of its encoding a packet belongs to, and who needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLayer {
    /// The points at which the packet is needed.
    pub present: PointSet,
    /// The points that a decoder may go up to with the frame that begins with this packet: from the next lower temporal layer
    /// of the same spatial one, and to the lowest temporal layer of a spatial one from all that lie below. See
    /// [`PacketLayer::reach`].
    pub switch: PointSet,
    /// Spatial layer, counted from 0.
    pub spatial: u8,
    /// Temporal layer, counted from 0.
    pub temporal: u8,
    /// The last packet of its frame, which is one spatial layer of a picture.
    pub frame_end: bool,
}

impl PacketLayer {
    /// A packet of an encoding without layers.
    pub const ONLY: PacketLayer =
        PacketLayer { present: ALL_POINTS, switch: ALL_POINTS, spatial: 0, temporal: 0, frame_end: false };

    /// True if the packet is needed at one of these points.
    #[inline]
    pub const fn is_needed_at(&self, points: PointSet) -> bool {
        self.present & points != 0
    }
}

/// Where a viewer is on a track: which encoding it is sent, and of that which layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct OperatingPoint {
    /// The encoding's position among those of the track.
    pub encoding: u8,
    /// The highest spatial layer.
    pub spatial: u8,
    /// The highest temporal layer.
    pub temporal: u8,
}

impl OperatingPoint {
    /// Everything of an encoding.
    pub const fn all_of(encoding: u8) -> OperatingPoint {
        OperatingPoint { encoding, spatial: MAX_SPATIAL_LAYERS - 1, temporal: MAX_TEMPORAL_LAYERS - 1 }
    }

    /// The encoding and the spatial layer: points of which only the temporal layers differ show the same picture.
    #[inline]
    pub const fn picture(self) -> (u8, u8) {
        (self.encoding, self.spatial)
    }

    /// Its bit in the sets of its encoding.
    #[inline]
    pub const fn bit(self) -> PointSet {
        point_bit(self.spatial, self.temporal)
    }
}

/// What a viewer at one point of a track is sent, as it is observed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// The point.
    #[serde(flatten)]
    pub point: OperatingPoint,
    /// Payload bit/s of all packets that are needed there, those of lower layers included; 0 for a layer that is not sent at
    /// present.
    pub bitrate: u64,
    /// Width of the picture in pixels; 0 where nothing says it.
    pub width: u16,
    /// Height of the picture in pixels; 0 where nothing says it.
    pub height: u16,
    /// Pictures a second; 0 where it is not known yet.
    pub frame_rate: f32,
    /// Payload bytes of a keyframe, those of lower layers included; 0 where none was received.
    pub keyframe_bytes: u64,
}

/// A layer as control is told of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// `a=rid` of the encoding (RFC 8851), if it has one.
    pub rid: Option<String>,
    /// The layer itself.
    #[serde(flatten)]
    pub layer: Layer,
}

/// What a viewer wants of a track; all `None` is the automatic choice. Of a layer that is not there at present it gets the nearest
/// below it, of a name or size that no layer has the lowest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerSelection {
    /// This encoding and no other, by its `a=rid`.
    pub rid: Option<String>,
    /// This spatial layer and no other.
    pub spatial: Option<u8>,
    /// This temporal layer and no other.
    pub temporal: Option<u8>,
    /// No spatial layer above this one.
    pub max_spatial: Option<u8>,
    /// No temporal layer above this one.
    pub max_temporal: Option<u8>,
    /// No picture wider than this, in pixels.
    pub max_width: Option<u16>,
    /// No picture higher than this, in pixels.
    pub max_height: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_bit_of_its_own() {
        let bits = (0..MAX_SPATIAL_LAYERS).flat_map(|s| (0..MAX_TEMPORAL_LAYERS).map(move |t| point_bit(s, t)));
        assert_eq!(bits.fold(0, |all, bit| if all & bit == 0 { all | bit } else { panic!("{bit:b}") }), ALL_POINTS);
        assert_eq!(point_bit(7, 7), OperatingPoint::all_of(2).bit(), "the highest stand for those above");
        assert_eq!(PacketLayer::ONLY.present & point_bit(0, 0), point_bit(0, 0));
    }
}
