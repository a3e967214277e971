use std::collections::HashMap;

use super::*;
use crate::media::{Codec, Feedback, SendSsrcs};
use crate::publication::cache::PacketInfo;
use crate::rtp::{RtpHeader, rtx};
use crate::session::DtlsRole;
use crate::srtp::{KeyingMaterial, SrtpProfile, SrtpReceiver};

fn format(payload_type: u8, codec: Codec, rtx_payload_type: Option<u8>) -> Format {
    Format {
        payload_type,
        codec,
        clock_rate: 90_000,
        channels: 0,
        fmtp: String::new(),
        rtx_payload_type,
        feedback: Feedback::default(),
    }
}

/// A viewer that knows VP8 as 100 (RTX 101), and its own end of SRTP.
fn viewer(rtx_payload_type: Option<u8>) -> (Subscription, SrtpReceiver) {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, 4);
    extensions.set(Extension::VideoOrientation, 9);
    let section = MediaSection {
        mid: "video".into(),
        kind: MediaKind::Video,
        formats: vec![format(100, Codec::Vp8, rtx_payload_type)],
        extensions,
        reduced_size_rtcp: true,
        declared_ssrcs: Vec::new(),
        send_ssrcs: Some(SendSsrcs { media: 0xaaaa, rtx: 0xbbbb }),
    };
    let profile = SrtpProfile::AeadAes128Gcm;
    let exported: Vec<u8> = (0..56).collect();
    let (_, sender) = KeyingMaterial::new(profile, &exported).unwrap().contexts(DtlsRole::Server).unwrap();
    let (receiver, _) = KeyingMaterial::new(profile, &exported).unwrap().contexts(DtlsRole::Client).unwrap();
    let mut outgoing = Outgoing::new(&section, 0x0005_7fff).unwrap();
    outgoing.set_publisher_formats(&[format(96, Codec::Vp8, None), format(97, Codec::H264, None)]);
    let path = Path { remote: "127.0.0.1:9".parse().unwrap(), local: None };
    let subscription = Subscription::new(Instant::now(), 0, path, sender, [None, Some(outgoing)]);
    (subscription, receiver)
}

struct Published {
    cache: PacketCache,
}

impl Published {
    fn new() -> Published {
        Published { cache: PacketCache::new(MediaKind::Video) }
    }

    fn packet(&mut self, sequence: u64, payload_type: u8, keyframe: bool) -> u64 {
        let info = PacketInfo { sequence, timestamp: sequence as u32 * 3000, payload_type, marker: true, keyframe };
        let stored = [Extension::VideoOrientation as u8, 1, 0x02, Extension::AudioLevel as u8, 1, 0x7f];
        let payload = vec![sequence as u8; 50 + (sequence % 7) as usize];
        assert!(self.cache.insert(info, &stored, &payload));
        sequence
    }
}

fn forward(viewer: &mut Subscription, published: &Published, sequence: u64) -> Result<Vec<u8>, WriteError> {
    let mut out = SendBatch::new(false);
    let packet = published.cache.get(sequence).unwrap();
    viewer.forward(MediaKind::Video, &packet, &mut out)?;
    Ok(out.written().to_vec())
}

fn resend(viewer: &mut Subscription, published: &Published, now: Instant, number: u16) -> Option<Vec<u8>> {
    let mut out = SendBatch::new(false);
    viewer.resend(now, MediaKind::Video, number, &published.cache, &mut out).then(|| out.written().to_vec())
}

fn open(receiver: &mut SrtpReceiver, mut packet: Vec<u8>) -> (RtpHeader, Vec<u8>) {
    let length = packet.len();
    let length = receiver.unprotect_rtp(&mut packet, length).unwrap();
    packet.truncate(length);
    (RtpHeader::parse(&packet).unwrap(), packet)
}

// WHEP-16, SRTP-07, RTP-10, EXT-H02, EXT-H03
#[test]
fn a_viewer_begins_at_a_keyframe_with_its_own_numbers() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    let early = published.packet(40, 96, false);
    assert_eq!(forward(&mut viewer, &published, early), Err(WriteError::NotForThisViewer));
    let keyframe = published.packet(41, 96, true);
    let (header, packet) = open(&mut receiver, forward(&mut viewer, &published, keyframe).unwrap());
    assert_eq!((header.payload_type, header.ssrc, header.sequence_number), (100, 0xaaaa, 0x7fff));
    assert_eq!(header.timestamp, 41 * 3000);
    let elements: Vec<_> = header.extensions(&packet).collect();
    // The audio level was not negotiated.
    assert_eq!(elements, [(4, &b"video"[..]), (9, &[2][..])]);
    let late = published.packet(39, 96, false);
    assert_eq!(forward(&mut viewer, &published, late), Err(WriteError::NotForThisViewer));
}

// WHEP-15
#[test]
fn a_format_that_was_not_negotiated_is_never_sent() {
    let (mut viewer, _) = viewer(None);
    let mut published = Published::new();
    let keyframe = published.packet(0, 97, true);
    assert_eq!(forward(&mut viewer, &published, keyframe), Err(WriteError::NotForThisViewer));
    assert!(viewer.outgoing[1].as_ref().unwrap().is_waiting());
}

// EXT-H03
#[test]
fn mid_stops_after_the_first_report_except_on_keyframes() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    let mut has_mid = |viewer: &mut Subscription, published: &mut Published, sequence, keyframe| {
        let sequence = published.packet(sequence, 96, keyframe);
        let (header, packet) = open(&mut receiver, forward(viewer, published, sequence).unwrap());
        header.extension(&packet, 4).is_some()
    };
    assert!(has_mid(&mut viewer, &mut published, 0, true));
    assert!(has_mid(&mut viewer, &mut published, 1, false));
    viewer.outgoing[1].as_mut().unwrap().on_receipt();
    assert!(!has_mid(&mut viewer, &mut published, 2, false));
    assert!(has_mid(&mut viewer, &mut published, 3, true));
}

// SRTP-09, RTCP-08
#[test]
fn a_plain_retransmission_is_the_same_to_the_last_bit() {
    let (mut viewer, _) = viewer(None);
    let mut published = Published::new();
    let start = Instant::now();
    let mut sent = Vec::new();
    for sequence in 0..200 {
        published.packet(sequence, 96, sequence % 50 == 0);
        sent.push(forward(&mut viewer, &published, sequence).unwrap());
        if sequence == 100 {
            viewer.outgoing[1].as_mut().unwrap().on_receipt();
        }
    }
    for (sequence, original) in sent.iter().enumerate() {
        let number = 0x7fff_u16.wrapping_add(sequence as u16);
        let again = resend(&mut viewer, &published, start + Duration::from_secs(sequence as u64), number).unwrap();
        assert_eq!(&again, original, "packet {sequence}");
    }
}

// SRTP-08, SRTP-09
#[test]
fn no_index_ever_stands_for_two_packets_over_wraps_losses_and_retransmissions() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    let mut seen: HashMap<(u32, u64), Vec<u8>> = HashMap::new();
    let mut rollover: HashMap<u32, (u64, u16)> = HashMap::new();
    let start = Instant::now();
    for sequence in 0..70_000_u64 {
        if sequence % 97 == 13 {
            continue;
        }
        published.packet(sequence, 96, sequence % 3000 == 0);
        let mut packets = vec![forward(&mut viewer, &published, sequence).unwrap()];
        if sequence % 11 == 5 {
            let number = 0x7fff_u16.wrapping_add(sequence as u16).wrapping_sub(2);
            packets.extend(resend(&mut viewer, &published, start + Duration::from_secs(sequence), number));
        }
        for packet in packets {
            let header = RtpHeader::parse(&packet).unwrap();
            let (rollovers, last) = rollover.entry(header.ssrc).or_insert((0, header.sequence_number));
            if header.sequence_number < *last && *last - header.sequence_number > 0x8000 {
                *rollovers += 1;
            }
            *last = header.sequence_number;
            let index = (*rollovers << 16) | u64::from(header.sequence_number);
            assert!(seen.insert((header.ssrc, index), packet.clone()).is_none());
            open(&mut receiver, packet);
        }
    }
    assert!(rollover[&0xaaaa].0 >= 1);
}

// RTCP-08
#[test]
fn rtx_carries_the_viewers_own_number_and_each_packet_at_most_once_per_round_trip() {
    let (mut viewer, mut receiver) = viewer(Some(101));
    let mut published = Published::new();
    for sequence in 0..10 {
        published.packet(sequence, 96, sequence == 0);
        forward(&mut viewer, &published, sequence).unwrap();
    }
    let start = Instant::now();
    let number = 0x7fff_u16.wrapping_add(4);
    let (header, packet) = open(&mut receiver, resend(&mut viewer, &published, start, number).unwrap());
    assert_eq!((header.payload_type, header.ssrc), (101, 0xbbbb));
    let (original, payload) = rtx::split_payload(header.payload(&packet)).unwrap();
    assert_eq!((original, payload), (number, published.cache.get(4).unwrap().payload));
    assert_eq!(resend(&mut viewer, &published, start + Duration::from_millis(19), number), None);
    viewer.round_trip_time = Some(Duration::from_millis(100));
    assert_eq!(resend(&mut viewer, &published, start + Duration::from_millis(99), number), None);
    assert!(resend(&mut viewer, &published, start + Duration::from_millis(100), number).is_some());
    // Never sent: behind the newest, and before the first.
    assert_eq!(resend(&mut viewer, &published, start, 0x7fff_u16.wrapping_add(10)), None);
    assert_eq!(resend(&mut viewer, &published, start, 0x7ffe), None);
}

// SRTP-08, SRTP-09, RTP-05: a codec that the viewer does not know is on air for a while.
#[test]
fn packets_that_are_withheld_leave_no_gap_and_bring_no_index_back() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    let mut expected = 0x7fff_u16;
    // Over half the circle, a whole circle, and a little less than one.
    for (round, withheld) in [40_000_u64, 65_536, 65_000, 1].into_iter().enumerate() {
        let start = viewer.outgoing[1].as_ref().unwrap().next + withheld;
        if round > 0 {
            published.packet(start - 1, 97, true);
            assert_eq!(forward(&mut viewer, &published, start - 1), Err(WriteError::NotForThisViewer));
        }
        for sequence in start..start + 600 {
            published.packet(sequence, 96, sequence == start);
            let (header, _) = open(&mut receiver, forward(&mut viewer, &published, sequence).unwrap());
            assert_eq!(header.sequence_number, expected, "round {round}");
            expected = expected.wrapping_add(1);
        }
    }
}

// SRTP-09: the number of a packet from before the withheld ones may stand for another packet now.
#[test]
fn nothing_from_before_withheld_packets_is_sent_or_resent() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    for sequence in [0, 1, 2, 4] {
        published.packet(sequence, 96, sequence == 0);
        open(&mut receiver, forward(&mut viewer, &published, sequence).unwrap());
    }
    published.packet(5, 97, true);
    assert_eq!(forward(&mut viewer, &published, 5), Err(WriteError::NotForThisViewer));
    published.packet(3, 96, false);
    assert_eq!(forward(&mut viewer, &published, 3), Err(WriteError::NotForThisViewer));
    published.packet(6, 96, true);
    let (header, _) = open(&mut receiver, forward(&mut viewer, &published, 6).unwrap());
    assert_eq!(header.sequence_number, 0x7fff_u16.wrapping_add(5));
    assert_eq!(forward(&mut viewer, &published, 3), Err(WriteError::NotForThisViewer));
    for behind in 1..=5 {
        let number = header.sequence_number.wrapping_sub(behind);
        assert_eq!(resend(&mut viewer, &published, Instant::now(), number), None);
    }
    assert!(resend(&mut viewer, &published, Instant::now(), header.sequence_number).is_some());
}

// SRTP-08: a shard that lost the stream for long.
#[test]
fn a_gap_beyond_a_quarter_of_the_circle_is_closed() {
    let (mut viewer, mut receiver) = viewer(None);
    let mut published = Published::new();
    for (sequence, number) in [(10, 0x7fff), (10 + 16_385, 0xc000), (10 + 16_385 + 16_386, 0xc001)] {
        published.packet(sequence, 96, true);
        let (header, _) = open(&mut receiver, forward(&mut viewer, &published, sequence).unwrap());
        assert_eq!(header.sequence_number, number);
    }
}
