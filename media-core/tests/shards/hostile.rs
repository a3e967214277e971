//! What no peer of good will sends, from strangers and from peers with keys.

use std::time::Instant;

use media_core::internals::rtcp::RtcpWriter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::*;

fn bytes(random: &mut StdRng, most: usize) -> Vec<u8> {
    let length = random.random_range(0..=most);
    (0..length).map(|_| random.random()).collect()
}

/// Changes some bytes, and cuts or lengthens now and then.
fn spoil(random: &mut StdRng, datagram: &[u8]) -> Vec<u8> {
    let mut spoilt = datagram.to_vec();
    for _ in 0..=random.random_range(0..4) {
        let index = random.random_range(0..spoilt.len());
        spoilt[index] = random.random();
    }
    match random.random_range(0..8) {
        0 => spoilt.truncate(random.random_range(1..=datagram.len())),
        1 => spoilt.extend(bytes(random, 40)),
        _ => {}
    }
    spoilt
}

/// The server still serves: a keyframe goes from end to end, after the silence that another source's packets may demand.
fn assert_alive(publisher: &mut Peer, viewer: &mut Peer, mut sequence: u16) {
    let seen = viewer.rtp.len();
    publisher.validate();
    viewer.validate();
    let deadline = Instant::now() + PATIENCE;
    while viewer.rtp.len() == seen {
        assert!(Instant::now() < deadline, "no video comes any more");
        publisher.video(sequence, u32::from(sequence) * 3_000, KEYFRAME);
        sequence += 1;
        viewer.turn();
    }
}

// OPS-07
#[tokio::test]
async fn spoilt_datagrams_change_nothing() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    viewer.validate();
    let mut random = StdRng::seed_from_u64(0x5eed);
    // Server datagrams of all four protocols serve as patterns, for strangers and for the peer itself.
    let patterns: Vec<Vec<u8>> = viewer.raw.iter().chain(&publisher.raw).cloned().collect();
    let stranger = socket();
    for round in 0..3_000 {
        let pattern = &patterns[random.random_range(0..patterns.len())];
        // DTLS from the peer's own address is the peer's: what it spoils there is its own loss.
        let own = round % 2 == 0 && !(20..64).contains(&pattern[0]);
        let datagram = spoil(&mut random, pattern);
        if own && !(20..64).contains(&datagram[0]) {
            publisher.send(&datagram);
        } else {
            stranger.send_to(&datagram, publisher.server).unwrap();
        }
        if round % 50 == 0 {
            publisher.turn();
            viewer.turn();
        }
    }
    assert_alive(&mut publisher, &mut viewer, 1);
    let counters = server.counters(0).await;
    assert!(counters.dropped.iter().sum::<u64>() > 1_000, "{:?}", counters.dropped);
    server.core.shutdown().await;
}

// OPS-07
#[tokio::test]
async fn peers_with_keys_may_send_anything() {
    let server = Server::start(2);
    let mut viewer = server.viewer(1, 2, true);
    let mut publisher = server.publisher(2);
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    let mut buffer = vec![0; 1500];
    let mut writer = RtcpWriter::new(&mut buffer);
    writer.receiver_report(PUBLISHER_VIDEO, &[]).unwrap();
    writer.sdes_cname(PUBLISHER_VIDEO, "me").unwrap();
    writer.nack(1, VIEWER_VIDEO, &[1, 2, 3, 500]);
    writer.pli(1, VIEWER_VIDEO).unwrap();
    writer.fir(1, media_core::internals::rtcp::fir::FirEntry { ssrc: VIEWER_VIDEO, sequence_number: 1 }).unwrap();
    writer.bye(&[PUBLISHER_VIDEO]).unwrap();
    writer
        .transport_feedback(
            &media_core::internals::rtcp::transport_feedback::FeedbackFields {
                sender_ssrc: 1,
                media_ssrc: 2,
                feedback_count: 0,
            },
            &[(1, Some(1_000)), (2, None), (3, Some(5_000))],
        )
        .unwrap();
    let rtcp = writer.as_bytes().to_vec();
    // One-byte elements, padding, VP8.
    let rtp: Vec<u8> =
        [0xb0, 96, 0, 9, 0, 0, 0, 0, 0, 0, 0x11, 0x11, 0xbe, 0xde, 0, 2, 0x51, 0, 9, 0x42, b'v', b'i', b'd', 0]
            .into_iter()
            .chain([0x10, 0, 1, 2, 3, 4, 0, 0, 0, 4])
            .collect();
    let mut random = StdRng::seed_from_u64(0xbad);
    for round in 0..4_000_u16 {
        let pattern = if random.random_range(0..3) == 0 { &rtcp } else { &rtp };
        let mut packet = spoil(&mut random, pattern);
        // Mostly the right kind, the section's own source, and a number that moves on, so that it gets far.
        if random.random_range(0..8) > 0 {
            packet.resize(packet.len().max(12), 0);
            packet[0] = 0x80 | (packet[0] & 0x3f);
            packet[1] = pattern[1];
            if pattern[1] == 96 {
                packet[1] = [96, 97, 111][random.random_range(0..3)];
                packet[2..4].copy_from_slice(&(10 + round).to_be_bytes());
                packet[8..12].copy_from_slice(&pattern[8..12]);
            }
        } else if packet.len() >= 12 && packet[8..12] == pattern[8..12] {
            // Numbers far ahead of its own source would be the last that its SRTP sends.
            packet[8] ^= 1;
        }
        publisher.send_protected(&packet);
        if pattern[1] != 96 {
            viewer.send_protected(&packet);
        }
        if round % 50 == 0 {
            publisher.turn();
            viewer.turn();
        }
    }
    assert_alive(&mut publisher, &mut viewer, 5_000);
    server.core.shutdown().await;
}
