//! Layers and descriptors.

use crate::layers::{MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS, OperatingPoint};
use crate::media::Codec;
use crate::rtp::dependency_descriptor::{Descriptor, Fields, MAX_TEMPLATES, Structure};
use crate::rtp::layers::{
    DecodablePoints, DecodeTargets, DescriptorOffsets, DescriptorPosition, LayerReader, MAX_DESCRIPTOR,
    rewrite_descriptor, rewrite_payload,
};
use crate::rtp::video_layers_allocation::VideoLayersAllocation;

const CODECS: [Codec; 5] = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::Opus];

/// Dependency descriptors of one stream, each behind a byte with its length; each is told its active targets.
pub fn dependency_descriptor(mut data: &[u8]) {
    let mut known: Option<Structure> = None;
    while let Some(bytes) = take(&mut data) {
        let mut fresh = None;
        let parsed = Descriptor::parse(bytes, known.as_ref(), &mut fresh);
        let active = DecodeTargets::of(bytes).map(|targets| targets.at(OperatingPoint::all_of(0)));
        if let Ok(parsed) = parsed {
            let offsets = DescriptorOffsets::IDENTITY.with_targets(active);
            let mut out = [0; MAX_DESCRIPTOR];
            let told = rewrite_descriptor(bytes, &offsets, &mut out);
            let mut again = None;
            let told = Descriptor::parse(told, known.as_ref(), &mut again).expect("what was written can be read");
            assert_eq!((told.fields, told.indications), (parsed.fields, parsed.indications));
            assert!(told.references == parsed.references && again == fresh);
            assert!(active.is_none() || bytes.len() > MAX_DESCRIPTOR - 5 || told.active_targets.is_some());
        }
        if let Some(structure) = fresh {
            assert!(
                (1..=MAX_TEMPLATES).contains(&structure.templates().len()) && (1..=32).contains(&structure.targets())
            );
            known = parsed.is_ok().then_some(structure).or(known);
        }
    }
}

/// Packets of one encoding: a byte for the codec, then the dependency descriptor, none if it is empty, and the payload, each
/// behind a byte with its length. A viewer wants all points one after the other.
pub fn layers(mut data: &[u8]) {
    let Some(codec) = data.split_off_first() else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    let (mut reader, mut offsets) = (LayerReader::new(), DescriptorOffsets::IDENTITY);
    let (mut decodable, mut viewer) = (DecodablePoints::NONE, OperatingPoint { encoding: 0, spatial: 0, temporal: 0 });
    let mut count = 0u8;
    while let (Some(descriptor), Some(payload)) = (take(&mut data), take(&mut data)) {
        let descriptor = Some(descriptor).filter(|bytes| !bytes.is_empty());
        let layer = reader.read(codec, payload, descriptor);
        assert!(reader.points() != 0 && layer.spatial < MAX_SPATIAL_LAYERS && layer.temporal < MAX_TEMPORAL_LAYERS);
        let target = OperatingPoint { encoding: 0, spatial: count / 4 % 4, temporal: count % 4 };
        viewer = decodable.go(&layer, viewer, target);
        if !layer.is_needed_at(viewer.bit()) {
            decodable.leave_out(&layer);
            offsets = offsets.after_dropped_frame(codec);
        }
        let position = DescriptorPosition::of(codec, payload, descriptor);
        let mut written = payload.to_vec();
        rewrite_payload(codec, &mut written, &offsets);
        let mut out = [0; MAX_DESCRIPTOR];
        let told = descriptor.map(|bytes| rewrite_descriptor(bytes, &offsets, &mut out));
        assert_eq!(DescriptorPosition::of(codec, &written, told), position.shifted(&offsets));
        assert!(told.is_none_or(|told| Fields::parse(told).is_some() == descriptor.and_then(Fields::parse).is_some()));
        offsets = DescriptorOffsets::after_switch(position.shifted(&offsets), position);
        count = count.wrapping_add(1);
    }
}

/// A layers allocation.
pub fn video_layers_allocation(data: &[u8]) {
    if let Ok(allocation) = VideoLayersAllocation::parse(data) {
        assert!(allocation.encoding < allocation.encodings && allocation.encodings <= 4);
        assert!(allocation.layers.len() <= 16);
        assert!(allocation.layers.iter().all(|layer| (1..=4).contains(&layer.bitrates.len())));
    }
}

/// Bytes behind one that has their length.
fn take<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(*data.split_off_first()?).min(data.len());
    data.split_off(..length)
}
