//! Sets of points, and which of them a viewer's decoder can go on at.

use crate::layers::{
    ALL_POINTS, MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS, OperatingPoint, PacketLayer, PointSet, point_bit,
};

/// The lowest temporal layer of every spatial one.
pub(super) const LOWEST_TEMPORAL: PointSet = 0x1111;

/// The points of one spatial layer from a temporal one on up.
#[inline]
pub(super) const fn from_temporal(spatial: u8, temporal: u8) -> PointSet {
    let lowest = point_bit(spatial, temporal);
    let beyond = point_bit(spatial, MAX_TEMPORAL_LAYERS - 1) << 1;
    // The highest bit has none beyond.
    beyond.wrapping_sub(lowest)
}

/// The points of all spatial layers from a temporal one on up.
#[inline]
pub(super) const fn from_temporal_of_all(temporal: u8) -> PointSet {
    from_temporal(0, temporal) * LOWEST_TEMPORAL
}

/// The points of spatial layers from this one on up, with temporal layers from this one on up.
#[inline]
pub(super) fn from_layer(spatial: u8, temporal: u8) -> PointSet {
    from_temporal_of_all(temporal) & !(point_bit(spatial, 0) - 1)
}

/// The points of an encoding at which a viewer's decoder could go on, by what it was sent: it had all that is needed there.
///
/// Lower temporal layers are always among them. Lower spatial layers are where layers build on each other; they are not where
/// each stands for itself between keyframes (L3T3_KEY, S2T1), as their frames were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodablePoints(PointSet);

impl DecodablePoints {
    /// A viewer that was sent nothing yet, or too little.
    pub const NONE: DecodablePoints = DecodablePoints(0);

    /// A viewer at the beginning of a keyframe.
    pub const AT_KEYFRAME: DecodablePoints = DecodablePoints(ALL_POINTS);

    /// A packet is left out on purpose, or is given up for lost.
    #[inline]
    pub fn leave_out(&mut self, layer: &PacketLayer) {
        self.0 &= !layer.present;
    }

    /// True if a decoder could go on at some point with the spatial layer of `target`, of the same encoding.
    pub fn has_picture(&self, target: OperatingPoint) -> bool {
        self.0 & from_temporal(target.spatial, 0) != 0
    }

    /// Where a viewer at `from` that wants to be at `target`, of the same encoding, may go on with the first packet of a frame,
    /// this one: `target`, or as near to it as this frame allows. To be asked before the packet is sent or left out.
    pub fn go(&mut self, layer: &PacketLayer, from: OperatingPoint, target: OperatingPoint) -> OperatingPoint {
        let is_down =
            target.spatial < from.spatial || (target.spatial == from.spatial && target.temporal <= from.temporal);
        if is_down && self.0 & target.bit() != 0 {
            return target;
        }
        let reached = layer.reach(from, target);
        if reached != from {
            // What is needed at a point is needed at those with more temporal layers; the others are told by what follows.
            for temporal in 0..=reached.temporal {
                self.0 |= point_bit(reached.spatial, temporal);
            }
        }
        reached
    }
}

impl PacketLayer {
    /// How far a decoder at `from` gets on the way to `target`, of the same encoding, with the frame that begins with this
    /// packet; `from` if it gets nowhere. Down by temporal layers alone it always gets.
    pub fn reach(&self, from: OperatingPoint, target: OperatingPoint) -> OperatingPoint {
        let spatial = target.spatial.min(MAX_SPATIAL_LAYERS - 1);
        let wanted = target.temporal.min(MAX_TEMPORAL_LAYERS - 1);
        let is_same = from.spatial.min(MAX_SPATIAL_LAYERS - 1) == spatial;
        if is_same && wanted <= from.temporal {
            return target;
        }
        let first = if is_same { from.temporal + 1 } else { 0 };
        let steps =
            (first..=wanted).take_while(|&temporal| self.switch & point_bit(spatial, temporal) != 0).count() as u8;
        match steps {
            0 => from,
            _ => OperatingPoint { encoding: target.encoding, spatial, temporal: first + steps - 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(spatial: u8, temporal: u8) -> OperatingPoint {
        OperatingPoint { encoding: 0, spatial, temporal }
    }

    #[test]
    fn sets_of_points_hold_what_they_are_named_for() {
        for (spatial, temporal) in (0..4).flat_map(|spatial| (0..4).map(move |temporal| (spatial, temporal))) {
            for (s, t) in (0..4).flat_map(|s| (0..4).map(move |t| (s, t))) {
                let holds = |set: PointSet| set & point_bit(s, t) != 0;
                assert_eq!(holds(from_temporal(spatial, temporal)), s == spatial && t >= temporal);
                assert_eq!(holds(from_temporal_of_all(temporal)), t >= temporal);
                assert_eq!(holds(from_layer(spatial, temporal)), s >= spatial && t >= temporal);
            }
        }
    }

    // RTP-07, COD-07
    #[test]
    fn a_decoder_goes_up_as_far_as_every_step_is_allowed() {
        let layer = |switch| PacketLayer { switch, ..PacketLayer::ONLY };
        let steps = layer(point_bit(0, 1) | point_bit(0, 2) | point_bit(1, 0) | point_bit(1, 2));
        assert_eq!(steps.reach(point(0, 0), point(0, 3)), point(0, 2));
        assert_eq!(steps.reach(point(0, 1), point(0, 2)), point(0, 2));
        assert_eq!(steps.reach(point(0, 2), point(0, 3)), point(0, 2), "nowhere");
        assert_eq!(steps.reach(point(0, 2), point(1, 3)), point(1, 0), "with what is allowed of the layer above");
        assert_eq!(steps.reach(point(0, 3), point(2, 0)), point(0, 3));
        assert_eq!(steps.reach(point(0, 3), point(0, 1)), point(0, 1), "down in time");
        assert_eq!(PacketLayer::ONLY.reach(point(1, 1), point(3, 3)), point(3, 3));
    }

    #[test]
    fn a_decoder_goes_down_at_once_where_it_had_what_is_needed_there() {
        let frame = |present| PacketLayer { present, switch: 0, ..PacketLayer::ONLY };
        let mut built_on = DecodablePoints::AT_KEYFRAME;
        let mut apart = DecodablePoints::AT_KEYFRAME;
        // The viewer is at spatial layer 1: the lower one is needed there, or is not.
        apart.leave_out(&frame(from_temporal(0, 0)));
        let upper = frame(from_temporal(1, 0));
        assert_eq!(built_on.go(&upper, point(1, 2), point(0, 1)), point(0, 1));
        assert_eq!(apart.go(&upper, point(1, 2), point(0, 1)), point(1, 2));
        assert_eq!(apart.go(&upper, point(1, 2), point(1, 0)), point(1, 0));
        let key = PacketLayer { switch: ALL_POINTS, ..upper };
        assert_eq!(apart.go(&key, point(1, 2), point(0, 1)), point(0, 1), "the key picture");
        assert_eq!(apart.go(&upper, point(0, 1), point(0, 0)), point(0, 0));
    }
}
