//! Spatial and temporal layers of VP9, by its payload descriptor (RFC 9628 §4.2).

use crate::layers::{ALL_POINTS, MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS, PacketLayer, PointSet, point_bit};
use crate::rtp::codec::vp9::{ScalabilityStructure, Vp9Descriptor};

use super::UNKNOWN;
use super::points::{from_layer, from_temporal};

/// What is known of the stream's layers.
#[derive(Default)]
pub(super) struct Vp9Layers {
    /// The highest spatial layer, as the last scalability structure has it, or the highest that was seen.
    top: u8,
}

impl Vp9Layers {
    /// The layer of a packet. Sizes and points are noted where it tells of them.
    #[inline]
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        sizes: &mut [Option<(u16, u16)>; MAX_SPATIAL_LAYERS as usize],
        points: &mut PointSet,
    ) -> PacketLayer {
        let Some(descriptor) = Vp9Descriptor::parse(payload) else { return UNKNOWN };
        if descriptor.scalability_structure {
            self.learn(payload, &descriptor, sizes);
        }
        let Some(layer) = descriptor.layer else { return PacketLayer::ONLY };
        let spatial = layer.spatial_id.min(MAX_SPATIAL_LAYERS - 1);
        let temporal = layer.temporal_id.min(MAX_TEMPORAL_LAYERS - 1);
        self.top = self.top.max(spatial);
        *points |= point_bit(spatial, temporal);
        // Higher spatial layers need this one if they refer to it. Those above the highest stand for the highest.
        let is_needed_above = !descriptor.not_reference_for_inter_layer || spatial == self.top;
        let present = if is_needed_above { from_layer(spatial, temporal) } else { from_temporal(spatial, temporal) };
        // Pictures above this temporal layer refer to nothing from before this one.
        let up = if layer.switching_up { above(spatial, temporal) } else { 0 };
        let switch = match (descriptor.frame_start, descriptor.inter_picture) {
            (false, _) => 0,
            (true, true) => up,
            // A key picture, of which the layers above are part, too; or a layer that begins anew in the middle.
            (true, false) if spatial == 0 => ALL_POINTS,
            (true, false) => from_temporal(spatial, 0),
        };
        PacketLayer { present, switch, spatial, temporal, frame_end: descriptor.frame_end }
    }

    fn learn(
        &mut self,
        payload: &[u8],
        descriptor: &Vp9Descriptor,
        sizes: &mut [Option<(u16, u16)>; MAX_SPATIAL_LAYERS as usize],
    ) {
        let Some(structure) = ScalabilityStructure::of(payload, descriptor) else { return };
        self.top = (structure.spatial_layers - 1).min(MAX_SPATIAL_LAYERS - 1);
        if let Some(known) = structure.sizes {
            for (spatial, size) in sizes.iter_mut().enumerate() {
                *size = known.get(spatial).copied().filter(|_| spatial < usize::from(structure.spatial_layers));
            }
        }
    }
}

/// The points of one spatial layer above a temporal one.
fn above(spatial: u8, temporal: u8) -> PointSet {
    from_temporal(spatial, temporal) & !point_bit(spatial, temporal)
}
