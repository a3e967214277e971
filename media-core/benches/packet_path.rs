//! What the steps of the packet path cost, each by itself, and the whole fan-out of one batch without sockets.
//!
//! `cargo bench -p media-core`. Loops over hot caches: at the pace of real video every step costs more, see `bench/`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use media_core::DtlsRole;
use media_core::internals::demux::classify;
use media_core::internals::egress::{EgressTrack, FanOutPass, Viewer};
use media_core::internals::net::{Outbound, SendBatch, TransportTuple};
use media_core::internals::rtp::{HeaderFields, RtpHeader, write_header};
use media_core::internals::srtp::{KeyingMaterial, MAX_TRAILER, SrtpProfile, SrtpReceiver, SrtpSender};
use media_core::internals::stream::{PacketInfo, Tracks};
use media_core::layers::PacketLayer;
use media_core::media::{Codec, Extension, ExtensionMap, Format, MediaSection, SendSsrcs, TrackId};

/// Payloads of video and of audio, in bytes.
const PAYLOADS: [usize; 2] = [1150, 160];
/// Video packets of one frame at 2.5 Mbit/s and 30 frames a second.
const FRAME: u64 = 9;
const FRAME_TIME: Duration = Duration::from_micros(33_333);
/// Their rate in bit/s.
const MEDIA: u64 = 2_500_000;
const FIELDS: HeaderFields = HeaderFields {
    marker: false,
    padding: false,
    payload_type: 96,
    sequence_number: 1,
    timestamp: 90_000,
    ssrc: 0x1234_5678,
};

fn contexts(profile: SrtpProfile, seed: u8) -> (SrtpReceiver, SrtpSender) {
    let exported: Vec<u8> = (0..profile.export_len()).map(|index| (index as u8).wrapping_mul(7) ^ seed).collect();
    let keying = KeyingMaterial::new(profile, &exported).expect("the right length");
    let (_, sender) = keying.contexts(DtlsRole::Server).expect("valid keys");
    let (receiver, _) = keying.contexts(DtlsRole::Client).expect("valid keys");
    (receiver, sender)
}

fn tuple(index: usize) -> TransportTuple {
    let [high, low] = (index as u16).to_be_bytes();
    TransportTuple::udp(([10, 0, high, low], 40_000).into(), None)
}

/// An RTP packet with one header extension element, in a buffer with room for the trailer; its length.
fn packet(payload: usize, sequence_number: u16) -> (Vec<u8>, usize) {
    let mut buffer = vec![0x5a; 64 + payload + MAX_TRAILER];
    let fields = HeaderFields { sequence_number, ..FIELDS };
    let header = write_header(&mut buffer, &fields, [(4, &b"0"[..])]).expect("enough room");
    (buffer, header + payload)
}

fn headers(c: &mut Criterion) {
    let (buffer, length) = packet(1150, 1);
    c.bench_function("demux classify", |b| b.iter(|| classify(black_box(&buffer[..length]))));
    c.bench_function("rtp parse", |b| b.iter(|| RtpHeader::parse(black_box(&buffer[..length]))));
    let mut out = [0; 64];
    c.bench_function("rtp rewrite, no extension", |b| {
        b.iter(|| write_header(black_box(&mut out), black_box(&FIELDS), []));
    });
    c.bench_function("rtp rewrite, mid and audio level", |b| {
        let elements = [(4, &b"0"[..]), (1, &[0x55][..])];
        b.iter(|| write_header(black_box(&mut out), black_box(&FIELDS), black_box(elements)));
    });
}

fn srtp(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp");
    for profile in SrtpProfile::ALL {
        for payload in PAYLOADS {
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(format!("protect {profile}"), payload), |b| {
                let (_, mut sender) = contexts(profile, 1);
                let (mut buffer, length) = packet(payload, 0);
                let mut sequence = 0_u16;
                b.iter(|| {
                    sequence = sequence.wrapping_add(1);
                    buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
                    sender.protect_rtp(black_box(&mut buffer), length)
                });
            });
            group.bench_function(BenchmarkId::new(format!("unprotect {profile}"), payload), |b| {
                let (mut receiver, mut sender) = contexts(profile, 1);
                let mut sequence = 0_u16;
                let mut protected = || {
                    sequence = sequence.wrapping_add(1);
                    let (mut buffer, length) = packet(payload, sequence);
                    let length = sender.protect_rtp(&mut buffer, length).expect("a new number");
                    (buffer, length)
                };
                b.iter_batched(
                    &mut protected,
                    |(mut buffer, length)| receiver.unprotect_rtp(&mut buffer, length).map(|length| (buffer, length)),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch build");
    let mut batch = SendBatch::new(false);
    for viewers in [1, 6] {
        // 6 viewers times 9 packets: the batch is nearly full and nothing is sent.
        group.throughput(Throughput::Elements(viewers * FRAME));
        group.bench_function(BenchmarkId::from_parameter(viewers * FRAME), |b| {
            b.iter(|| {
                for viewer in 0..viewers {
                    for _ in 0..FRAME {
                        batch.commit(tuple(viewer as usize), black_box(1178));
                    }
                }
                batch.discard();
            });
        });
    }
    group.finish();
}

/// A viewer that has received its first packets and named no MID since. Those with transport-wide numbers are paced, at
/// a rate at which nothing waits.
fn viewer(index: usize, transport_wide: bool) -> Viewer {
    let track = |track: TrackId, mut format: Format| {
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::Mid, 4);
        if transport_wide {
            extensions.set(Extension::TransportCc, 3);
            format.feedback.transport_cc = true;
        }
        let section = MediaSection {
            extensions,
            reduced_size_rtcp: true,
            send_ssrcs: Some(SendSsrcs { media: 4 * index as u32 + u32::from(track == TrackId::VIDEO), rtx: u32::MAX }),
            ..MediaSection::new("0", track.kind, vec![format.clone()])
        };
        let mut egress = EgressTrack::new(track, &section, 1).expect("it has SSRCs");
        egress.set_publisher_formats(&[format], None);
        egress
    };
    let audio = track(TrackId::AUDIO, Format::new(111, Codec::Opus));
    let video = track(TrackId::VIDEO, Format::new(96, Codec::Vp8));
    let srtp = contexts(SrtpProfile::AeadAes128Gcm, index as u8).1;
    let now = Instant::now();
    let mut viewer = Viewer::new(now, srtp, vec![audio, video], MEDIA);
    if transport_wide {
        viewer.congestion_mut().on_remb(now, 40 * MEDIA, MEDIA);
    }
    viewer
}

/// A frame of video and one audio packet, put into the tracks under the next numbers.
struct Publisher {
    tracks: Tracks,
    payloads: [Vec<u8>; 2],
    now: Instant,
    /// Of the video of the next frame.
    layer: PacketLayer,
}

impl Publisher {
    fn new() -> Publisher {
        let mut tracks = Tracks::new(Duration::ZERO);
        tracks.get_or_insert(TrackId::AUDIO);
        tracks.get_or_insert(TrackId::VIDEO);
        let payloads = PAYLOADS.map(|length| vec![0x5a; length]);
        Publisher { tracks, payloads, now: Instant::now(), layer: PacketLayer::ONLY }
    }

    /// The same with more encodings of video, of which nobody is sent any.
    fn simulcast() -> Publisher {
        let mut publisher = Publisher::new();
        publisher.tracks.get_or_insert(TrackId::VIDEO).make_encodings(3);
        publisher
    }

    fn publish(&mut self, now: Instant, (track, encoding): (TrackId, u8), count: u64, keyframe: bool) {
        let encoding = self.tracks.encoding_mut(track, encoding).expect("both tracks are there");
        let first = encoding.end();
        let (payload_type, payload) = if track == TrackId::AUDIO { (111, 1) } else { (96, 0) };
        for sequence in first..first + count {
            let info = PacketInfo {
                sequence,
                timestamp: sequence as u32 * 3000,
                arrived: now,
                payload_type,
                marker: sequence + 1 == first + count,
                keyframe: keyframe && sequence == first,
                layer: if track == TrackId::VIDEO { self.layer } else { PacketLayer::ONLY },
            };
            assert!(encoding.admit(info, &[], &self.payloads[payload]));
        }
    }
}

/// The shard's loop: viewer by viewer over the batch. Where the shard would send, the batch is emptied.
fn fan_out(publisher: &mut Publisher, viewers: &mut [Viewer], out: &mut Outbound, keyframe: bool) -> u64 {
    publisher.now += FRAME_TIME;
    let now = publisher.now;
    publisher.publish(now, (TrackId::AUDIO, 0), 1, false);
    publisher.publish(now, (TrackId::VIDEO, 0), FRAME, keyframe);
    // Smaller encodings have fewer packets.
    let others = publisher.tracks.get(TrackId::VIDEO).map_or(0, |video| video.encodings().count() as u8 - 1);
    for (encoding, packets) in (1..=others).zip([3, 1]) {
        publisher.publish(now, (TrackId::VIDEO, encoding), packets, keyframe);
    }
    publisher.tracks.begin_pass();
    let pass = FanOutPass { now, tracks: &publisher.tracks, overloaded: false };
    let mut packets = 0;
    for (index, viewer) in viewers.iter_mut().enumerate() {
        packets += viewer.serve(&pass, tuple(index), out).packets;
    }
    out.flush();
    packets
}

fn whole_fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out of 9 video and 1 audio packets");
    let kinds = [("viewers", false), ("viewers with transport-wide numbers", true)];
    for ((name, transport_wide), count) in
        kinds.into_iter().flat_map(|kind| [1, 10, 100, 1000].map(|count| (kind, count)))
    {
        let mut publisher = Publisher::new();
        let mut viewers: Vec<Viewer> = (0..count).map(|index| viewer(index, transport_wide)).collect();
        let mut out = Outbound::disconnected();
        fan_out(&mut publisher, &mut viewers, &mut out, true);
        viewers.iter_mut().flat_map(|viewer| viewer.tracks_mut()).for_each(EgressTrack::on_receipt);
        group.throughput(Throughput::Elements(count as u64 * (FRAME + 1)));
        group.bench_function(BenchmarkId::new(name, count), |b| {
            b.iter(|| {
                let packets = fan_out(&mut publisher, &mut viewers, &mut out, false);
                assert_eq!(packets, count as u64 * (FRAME + 1));
            });
        });
    }
    group.finish();
}

/// Viewers of streams with layers, beside what viewers of one layer cost: those of one encoding of three, and those of one that
/// is sent half of the frames.
fn layered_fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out with layers, 100 viewers");
    for (name, is_thinned) in [("one encoding of three", false), ("half of the frames", true)] {
        let mut publisher = if is_thinned { Publisher::new() } else { Publisher::simulcast() };
        let mut viewers: Vec<Viewer> = (0..100).map(|index| viewer(index, false)).collect();
        let mut out = Outbound::disconnected();
        fan_out(&mut publisher, &mut viewers, &mut out, true);
        viewers.iter_mut().flat_map(|viewer| viewer.tracks_mut()).for_each(EgressTrack::on_receipt);
        group.throughput(Throughput::Elements(100 * (FRAME + 1 + u64::from(is_thinned))));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut packets = fan_out(&mut publisher, &mut viewers, &mut out, false);
                if is_thinned {
                    // Every other frame belongs to a layer that no viewer is sent.
                    publisher.layer = PacketLayer { present: 0, ..PacketLayer::ONLY };
                    packets += fan_out(&mut publisher, &mut viewers, &mut out, false);
                    publisher.layer = PacketLayer::ONLY;
                }
                packets
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = headers, srtp, batch, whole_fan_out, layered_fan_out
}
criterion_main!(benches);
