//! What the layers inside an encoding carry: which there are, and how much of the encoding's bits and pictures a viewer at each
//! of their points is sent.

use std::time::{Duration, Instant};

use crate::layers::{
    ALL_POINTS, MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS, POINTS, PacketLayer, PointSet, point_bit, point_index,
};

/// The figures are those of about this time.
const WINDOW: Duration = Duration::from_secs(2);

/// The layers of one encoding. Of what it counts older packets weigh less.
#[derive(Debug, Default)]
pub(super) struct LayerRates {
    /// Bytes of all packets, of those that are needed at every point, and of the others by point.
    all: f32,
    shared: f32,
    needed: [f32; POINTS],
    /// Pictures, by temporal layer.
    pictures: [f32; MAX_TEMPORAL_LAYERS as usize],
    /// The layers of packets of the present window and of the one before.
    seen: [PointSet; 2],
    window: Option<Instant>,
    begun: Option<Instant>,
    measured: Option<Instant>,
}

impl LayerRates {
    /// Counts a packet; `ends_picture` by its marker.
    #[inline]
    pub(super) fn on_packet(&mut self, arrived: Instant, layer: &PacketLayer, ends_picture: bool, bytes: usize) {
        self.begun.get_or_insert(arrived);
        self.all += bytes as f32;
        self.seen[0] |= point_bit(layer.spatial, layer.temporal);
        self.pictures[usize::from(layer.temporal.min(MAX_TEMPORAL_LAYERS - 1))] += f32::from(u8::from(ends_picture));
        if layer.present == ALL_POINTS {
            self.shared += bytes as f32;
        } else {
            let needed = self.needed.iter_mut().enumerate().filter(|(point, _)| layer.present & (1 << point) != 0);
            needed.for_each(|(_, needed)| *needed += bytes as f32);
        }
    }

    /// Lets time pass; to be called several times a second.
    pub(super) fn measure(&mut self, now: Instant) {
        let passed = self.measured.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let rest = (-passed.as_secs_f32() / WINDOW.as_secs_f32()).exp();
        let counts = [&mut self.all, &mut self.shared].into_iter().chain(&mut self.needed).chain(&mut self.pictures);
        counts.for_each(|count| *count *= rest);
        let window = *self.window.get_or_insert(now);
        if now.saturating_duration_since(window) >= WINDOW {
            (self.seen, self.window) = ([0, self.seen[0]], Some(now));
        }
    }

    /// What was sent is over: nothing is known of what comes next.
    pub(super) fn clear(&mut self) {
        *self = LayerRates { measured: self.measured, ..LayerRates::default() };
    }

    /// The highest spatial and temporal layers of which packets were received of late.
    pub(super) fn highest(&self) -> (u8, u8) {
        let seen = self.seen[0] | self.seen[1];
        let is_seen = |spatial: u8, temporal: u8| seen & point_bit(spatial, temporal) != 0;
        let mut temporal_layers = 0..MAX_TEMPORAL_LAYERS;
        let spatial = (0..MAX_SPATIAL_LAYERS).rev().find(|&s| temporal_layers.clone().any(|t| is_seen(s, t)));
        let temporal = temporal_layers.rfind(|&t| (0..MAX_SPATIAL_LAYERS).any(|s| is_seen(s, t)));
        (spatial.unwrap_or(0), temporal.unwrap_or(0))
    }

    /// The part of the encoding's bits that are needed at a point.
    pub(super) fn share(&self, spatial: u8, temporal: u8) -> f32 {
        if self.all <= 0.0 {
            return 1.0;
        }
        ((self.shared + self.needed[point_index(spatial, temporal)]) / self.all).min(1.0)
    }

    /// Pictures a second up to a temporal layer; 0 before that can be said.
    pub(super) fn frame_rate(&self, temporal: u8) -> f32 {
        let (Some(begun), Some(measured)) = (self.begun, self.measured) else { return 0.0 };
        let age = measured.saturating_duration_since(begun).as_secs_f32() / WINDOW.as_secs_f32();
        // Of a longer past there is nothing to count.
        let weight = (1.0 - (-age).exp()) * WINDOW.as_secs_f32();
        let pictures: f32 = self.pictures[..=usize::from(temporal.min(MAX_TEMPORAL_LAYERS - 1))].iter().sum();
        if age < 0.1 { 0.0 } else { pictures / weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 pictures a second, each of these packets: layer, bytes.
    fn run(
        rates: &mut LayerRates,
        start: Instant,
        ms: std::ops::Range<u64>,
        picture: impl Fn(u64) -> Vec<(PacketLayer, usize)>,
    ) {
        for ms in ms {
            let now = start + Duration::from_millis(ms);
            if ms % 25 == 0 {
                let packets = picture(ms / 25);
                for (index, (layer, bytes)) in packets.iter().enumerate() {
                    rates.on_packet(now, layer, index + 1 == packets.len(), *bytes);
                }
            }
            if ms % 100 == 99 {
                rates.measure(now);
            }
        }
    }

    /// A packet that all points above need.
    fn layer(spatial: u8, temporal: u8) -> PacketLayer {
        let above = (spatial..4).flat_map(|s| (temporal..4).map(move |t| point_bit(s, t)));
        PacketLayer { present: above.sum(), spatial, temporal, ..PacketLayer::ONLY }
    }

    fn close(left: f32, right: f32) -> bool {
        (left - right).abs() < 0.06 * right
    }

    #[test]
    fn an_encoding_without_layers_is_all_of_itself() {
        let (mut rates, start) = (LayerRates::default(), Instant::now());
        assert_eq!((rates.share(0, 0), rates.frame_rate(0)), (1.0, 0.0));
        run(&mut rates, start, 0..600, |_| vec![(PacketLayer::ONLY, 1_000); 3]);
        assert_eq!((rates.highest(), rates.share(0, 0)), ((0, 0), 1.0));
        assert!(close(rates.frame_rate(0), 40.0), "{}", rates.frame_rate(0));
        run(&mut rates, start, 600..20_000, |picture| {
            if picture % 4 == 0 { vec![(PacketLayer::ONLY, 1_000)] } else { Vec::new() }
        });
        assert!(close(rates.frame_rate(3), 10.0), "{}", rates.frame_rate(3));
    }

    #[test]
    fn each_point_has_the_bits_of_the_packets_that_it_needs() {
        let (mut rates, start) = (LayerRates::default(), Instant::now());
        // L2T2: half of the pictures are of the upper temporal layer.
        run(&mut rates, start, 0..8_000, |picture| {
            let temporal = (picture % 2) as u8;
            vec![(layer(0, temporal), 100), (layer(1, temporal), 300)]
        });
        assert_eq!(rates.highest(), (1, 1));
        let shares = [(0, 0, 0.125), (0, 1, 0.25), (1, 0, 0.5), (1, 1, 1.0), (3, 3, 1.0)];
        for (spatial, temporal, share) in shares {
            assert!(close(rates.share(spatial, temporal), share), "{spatial} {temporal}");
        }
        assert!(close(rates.frame_rate(0), 20.0) && close(rates.frame_rate(1), 40.0));
        // The upper spatial layer is sent no more: after some seconds it is gone.
        run(&mut rates, start, 8_000..13_000, |picture| vec![(layer(0, (picture % 2) as u8), 100)]);
        assert_eq!(rates.highest(), (0, 1));
        rates.clear();
        assert_eq!((rates.highest(), rates.share(0, 1)), ((0, 0), 1.0));
    }
}
