//! Which layer of its encoding a packet belongs to, for every codec alike, and what has to change in a packet so that a viewer
//! that is sent a part of the packets takes them for a whole stream.
//!
//! The ingest asks a [`LayerReader`] once for every packet. From then on nobody parses a descriptor for the sake of layers: a
//! viewer's point is a bit, and whether a packet is for that viewer an AND.

mod dependencies;
mod offsets;
mod points;
mod vp8;
mod vp9;

use crate::layers::{MAX_SPATIAL_LAYERS, PacketLayer, PointSet};
use crate::media::Codec;

use self::dependencies::Dependencies;
use self::vp9::Vp9Layers;

pub use self::dependencies::{ActiveTargets, DecodeTargets};
pub use self::offsets::{DescriptorOffsets, DescriptorPosition, MAX_DESCRIPTOR, rewrite_descriptor, rewrite_payload};
pub use self::points::DecodablePoints;

/// A packet whose descriptor is not understood, in a stream that may have layers: whoever is there gets it, and nobody goes up
/// at it.
const UNKNOWN: PacketLayer = PacketLayer { switch: 0, ..PacketLayer::ONLY };

/// Reads the layers of the packets of one encoding.
///
/// What a descriptor refers to (a dependency structure, VP9's scalability structure) is kept from the packet that had it on.
#[derive(Default)]
pub struct LayerReader {
    /// Made with the first dependency descriptor that has a structure.
    dependencies: Option<Box<Dependencies>>,
    vp9: Vp9Layers,
    /// Width and height by spatial layer, as the payload or the structure says.
    sizes: [Option<(u16, u16)>; MAX_SPATIAL_LAYERS as usize],
    /// Points at which something was needed.
    points: PointSet,
}

impl LayerReader {
    /// A reader that knows nothing yet.
    pub fn new() -> LayerReader {
        LayerReader::default()
    }

    /// Another RTP stream, or another encoder behind it: nothing that was learnt holds any more.
    pub fn on_new_stream(&mut self) {
        *self = LayerReader::default();
    }

    /// The layer of a packet with this payload and, if it has one, this dependency descriptor, which is preferred. Bytes that
    /// are not understood make a packet of a stream without layers (EXT-H12).
    #[inline]
    pub fn read(&mut self, codec: Codec, payload: &[u8], descriptor: Option<&[u8]>) -> PacketLayer {
        let described = descriptor.and_then(|bytes| self.read_descriptor(bytes));
        match (described, codec) {
            (described, Codec::Vp8) => self.read_vp8(payload, described),
            (Some(layer), _) => layer,
            (None, Codec::Vp9) => self.vp9.read(payload, &mut self.sizes, &mut self.points),
            (None, _) if descriptor.is_some() => UNKNOWN,
            (None, _) => PacketLayer::ONLY,
        }
    }

    /// Width and height in pixels of a spatial layer; `None` where the stream has not said it.
    pub fn size(&self, spatial: u8) -> Option<(u16, u16)> {
        self.sizes.get(usize::from(spatial)).copied().flatten()
    }

    /// The points that the stream has, each with something that the others have not; the lowest one alone for a stream without
    /// layers.
    pub fn points(&self) -> PointSet {
        self.points.max(1)
    }

    fn read_descriptor(&mut self, bytes: &[u8]) -> Option<PacketLayer> {
        let known = match &mut self.dependencies {
            Some(known) => known,
            None if dependencies::has_structure(bytes) => self.dependencies.insert(Box::default()),
            None => return None,
        };
        let layer = known.read(bytes);
        if layer.is_some() && known.take_news() {
            self.points = known.points();
            for spatial in 0..MAX_SPATIAL_LAYERS {
                let size = known.resolution(spatial);
                self.sizes[usize::from(spatial)] = size.or(self.sizes[usize::from(spatial)]);
            }
        }
        layer
    }

    fn read_vp8(&mut self, payload: &[u8], described: Option<PacketLayer>) -> PacketLayer {
        if let Some(size) = vp8::size(payload) {
            self.sizes = [Some(size), None, None, None];
        }
        described.unwrap_or_else(|| {
            let layer = vp8::layer(payload);
            self.points |= 1 << layer.temporal;
            layer
        })
    }
}

#[cfg(test)]
mod tests;
