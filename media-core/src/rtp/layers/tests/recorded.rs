//! Recorded streams of Chromium, and what viewers at each of their layers are sent of them. `tests/recorded/layers/make.py`
//! recorded the streams and had what is sent judged by a depacketiser of its own and by libvpx, dav1d and FFmpeg.

use std::path::{Path, PathBuf};
use std::{env, fs};

use super::*;
use crate::layers::MAX_TEMPORAL_LAYERS;
use crate::rtp::codec::{Start, start};
use crate::rtp::layers::points::DecodablePoints;
use crate::rtp::{HeaderFields, RtpHeader, write_header};

/// Ids of the extensions in the recordings.
const RID: u8 = 10;
const DESCRIPTOR: u8 = 13;

const STREAMS: [(&str, Codec); 18] = [
    ("vp8-L1T3", Codec::Vp8),
    ("vp8-L1T3-described", Codec::Vp8),
    ("vp8-simulcast", Codec::Vp8),
    ("h264-L1T3", Codec::H264),
    ("vp9-L1T2", Codec::Vp9),
    ("vp9-L1T3", Codec::Vp9),
    ("vp9-L2T1", Codec::Vp9),
    ("vp9-L3T3", Codec::Vp9),
    ("vp9-L3T3_KEY", Codec::Vp9),
    ("vp9-L3T3_KEY-described", Codec::Vp9),
    ("vp9-S2T1", Codec::Vp9),
    ("av1-L1T2", Codec::Av1),
    ("av1-L1T3", Codec::Av1),
    ("av1-L2T1", Codec::Av1),
    ("av1-L3T3", Codec::Av1),
    ("av1-L3T3_KEY", Codec::Av1),
    ("av1-S2T1", Codec::Av1),
    ("av1-simulcast", Codec::Av1),
];

/// A packet of a recording, on a time line that all encodings have in common.
struct Recorded {
    encoding: u8,
    timestamp: u32,
    marker: bool,
    descriptor: Option<Vec<u8>>,
    payload: Vec<u8>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/layers")
}

fn recorded(name: &str) -> Vec<Recorded> {
    let bytes = fs::read(folder().join(format!("{name}.rtp"))).unwrap();
    let mut rest = &bytes[..];
    // By SSRC: rid, and RTP time of the first frame.
    let mut streams: Vec<(u32, Vec<u8>, u32)> = Vec::new();
    let mut packets = Vec::new();
    while let Some((&length, after)) = rest.split_first_chunk::<2>() {
        let (bytes, after) = after.split_at(usize::from(u16::from_be_bytes(length)));
        rest = after;
        let header = RtpHeader::parse(bytes).unwrap();
        let element = |id| header.extensions(bytes).find(|(found, _)| *found == id).map(|(_, data)| data.to_vec());
        if !streams.iter().any(|(ssrc, ..)| *ssrc == header.ssrc) {
            streams.push((header.ssrc, element(RID).unwrap_or_default(), header.timestamp));
        }
        packets.push((header.ssrc, element(DESCRIPTOR), header, bytes));
    }
    // From the smallest to the largest.
    streams.sort_by_key(|(_, rid, _)| ["l", "m", "h"].iter().position(|known| known.as_bytes() == rid));
    let of = |(ssrc, descriptor, header, bytes): (u32, Option<Vec<u8>>, RtpHeader, &[u8])| {
        let encoding = streams.iter().position(|(known, ..)| *known == ssrc).unwrap();
        Recorded {
            encoding: encoding as u8,
            timestamp: header.timestamp.wrapping_sub(streams[encoding].2),
            marker: header.marker,
            descriptor,
            payload: header.payload(bytes).to_vec(),
        }
    };
    packets.into_iter().map(of).collect()
}

/// One that wants to be at a point, as a viewer's egress would serve it.
struct Viewer {
    codec: Codec,
    at: Option<OperatingPoint>,
    decodable: DecodablePoints,
    offsets: DescriptorOffsets,
    targets: Option<DecodeTargets>,
    /// What was sent last, as it was sent.
    sent: DescriptorPosition,
    /// Time and spatial layer of the frame before.
    frame: Option<(u32, u8)>,
    /// Time of the picture that was sent last.
    time: Option<u32>,
    out: Vec<Vec<u8>>,
}

impl Viewer {
    fn new(codec: Codec) -> Viewer {
        Viewer {
            codec,
            at: None,
            decodable: DecodablePoints::NONE,
            offsets: DescriptorOffsets::IDENTITY,
            targets: None,
            sent: DescriptorPosition::default(),
            frame: None,
            time: None,
            out: Vec::new(),
        }
    }

    fn take(&mut self, packet: &Recorded, layer: PacketLayer, wanted: OperatingPoint) {
        let descriptor = packet.descriptor.as_deref();
        let position = DescriptorPosition::of(self.codec, &packet.payload, descriptor);
        let is_first = self.frame != Some((packet.timestamp, layer.spatial));
        let is_here = self.at.is_some_and(|at| at.encoding == packet.encoding);
        let is_newer = self.time.is_none_or(|time| packet.timestamp.wrapping_sub(time) as i32 > 0);
        if packet.encoding == wanted.encoding && start(self.codec, &packet.payload) == Start::Keyframe && is_newer {
            if !is_here {
                self.offsets = DescriptorOffsets::after_switch(self.sent, position);
            }
            self.at = Some(wanted);
            self.decodable = DecodablePoints::AT_KEYFRAME;
        } else if !is_here {
            return;
        }
        let Some(mut at) = self.at else { return };
        if is_first {
            self.frame = Some((packet.timestamp, layer.spatial));
            if at.encoding == wanted.encoding {
                at = self.decodable.go(&layer, at, wanted);
            }
            self.at = Some(at);
        }
        self.targets = descriptor.and_then(DecodeTargets::of).or(self.targets);
        if layer.present & at.bit() == 0 {
            self.decodable.leave_out(&layer);
            if is_first {
                self.offsets = self.offsets.after_dropped_frame(self.codec);
            }
            return;
        }
        self.time = Some(packet.timestamp);
        let offsets = self.offsets.with_targets(self.targets.map(|targets| targets.at(at)));
        self.sent = position.shifted(&offsets);
        self.write(packet, packet.marker || (layer.frame_end && layer.spatial == at.spatial), &offsets);
    }

    fn write(&mut self, packet: &Recorded, marker: bool, offsets: &DescriptorOffsets) {
        let fields = HeaderFields {
            marker,
            padding: false,
            payload_type: 96,
            sequence_number: self.out.len() as u16,
            timestamp: packet.timestamp,
            ssrc: 1,
        };
        let mut descriptor = [0; MAX_DESCRIPTOR];
        let written = packet.descriptor.as_deref().map(|bytes| rewrite_descriptor(bytes, offsets, &mut descriptor));
        let mut bytes = vec![0; 2_000];
        let header = write_header(&mut bytes, &fields, written.map(|bytes| (DESCRIPTOR, bytes))).unwrap();
        bytes[header..header + packet.payload.len()].copy_from_slice(&packet.payload);
        bytes.truncate(header + packet.payload.len());
        rewrite_payload(self.codec, &mut bytes[header..], offsets);
        self.out.push(bytes);
    }
}

/// All packets with their layers, and the points of each encoding, the lowest first.
fn layers_of(codec: Codec, packets: &[Recorded]) -> (Vec<PacketLayer>, Vec<OperatingPoint>) {
    let mut readers: [LayerReader; 4] = Default::default();
    let mut points = [0; 4];
    let mut layers = Vec::new();
    for packet in packets {
        let encoding = usize::from(packet.encoding);
        layers.push(readers[encoding].read(codec, &packet.payload, packet.descriptor.as_deref()));
        points[encoding] |= readers[encoding].points();
    }
    let points = (0..4u8).flat_map(|encoding| {
        let bits = (0..16u8).filter(move |bit| points[usize::from(encoding)] >> bit & 1 == 1);
        bits.map(move |bit| OperatingPoint {
            encoding,
            spatial: bit / MAX_TEMPORAL_LAYERS,
            temporal: bit % MAX_TEMPORAL_LAYERS,
        })
    });
    let encodings = packets.iter().map(|packet| packet.encoding).max().unwrap();
    (layers, points.filter(|point| point.encoding <= encodings).collect())
}

/// What viewers are sent of a recording, by their names: one at each point, one that wants everything, and two that want to
/// be at another point every few pictures.
fn viewers(name: &str, codec: Codec) -> Vec<(String, Vec<Vec<u8>>)> {
    let packets = recorded(name);
    let (layers, points) = layers_of(codec, &packets);
    let top = *points.last().unwrap();
    let mut scripts: Vec<(String, Vec<OperatingPoint>)> = Vec::new();
    for point in &points {
        scripts.push((format!("e{}s{}t{}", point.encoding, point.spatial, point.temporal), vec![*point]));
    }
    scripts.push(("everything".into(), vec![OperatingPoint::all_of(top.encoding)]));
    scripts.push(("climbing".into(), points.clone()));
    scripts.push(("up-and-down".into(), vec![points[0], top, points[points.len() / 2], top, points[0]]));
    let served = scripts.into_iter().map(|(name, script)| {
        let mut viewer = Viewer::new(codec);
        // A third of a second at each.
        let wanted = |time: u32| script[(time / 30_000) as usize % script.len()];
        for (packet, layer) in packets.iter().zip(&layers) {
            viewer.take(packet, *layer, wanted(packet.timestamp));
        }
        (name, viewer.out)
    });
    served.collect()
}

fn file(packets: &[Vec<u8>]) -> Vec<u8> {
    packets.iter().flat_map(|packet| [&(packet.len() as u16).to_be_bytes()[..], packet].concat()).collect()
}

// COD-06, COD-07, COD-09, EXT-H12, RTP-05, RTP-07, RTP-08
#[test]
fn every_viewer_of_a_real_stream_is_sent_what_a_decoder_takes() {
    for (name, codec) in STREAMS {
        let served = viewers(name, codec);
        if let Ok(written) = env::var("SLUICE_WRITE_LAYERS") {
            for (viewer, packets) in &served {
                fs::write(Path::new(&written).join(format!("{name}.{viewer}.rtp")), file(packets)).unwrap();
            }
            continue;
        }
        let account = fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
        assert_eq!(account.lines().count(), served.len(), "{name}");
        for (viewer, packets) in &served {
            let line = account.lines().find(|line| line.split(' ').next() == Some(viewer)).unwrap();
            let fields: Vec<&str> = line.splitn(5, ' ').collect();
            let digest = ring::digest::digest(&ring::digest::SHA256, &file(packets));
            let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((packets.len().to_string(), digest), (fields[1].into(), fields[3].into()), "{name} {viewer}");
            assert_eq!(fields[4], "clean", "{name} {viewer}");
        }
    }
}
