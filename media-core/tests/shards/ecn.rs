//! Congestion control feedback (RFC 8888) and the marks that it is about, over real sockets.

use std::time::Instant;

use media_core::internals::ecn::Ecn;
use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};
use media_core::media::{MediaSection, Role};
use socket2::SockRef;

use crate::support::*;

/// A section that agreed to feedback of RFC 8888.
fn with_ccfb(mut section: MediaSection) -> MediaSection {
    for format in &mut section.formats {
        (format.feedback.ccfb, format.feedback.transport_cc, format.feedback.remb) = (true, false, false);
    }
    section.extensions.set(media_core::media::Extension::TransportCc, 0);
    section
}

/// What a publisher was told: SSRC, sequence number, and the mark if the packet was received.
fn told(publisher: &Peer) -> Vec<(u32, u16, Option<Ecn>)> {
    let mut told = Vec::new();
    for packet in publisher.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram)) {
        match packet.unwrap() {
            RtcpPacket::CongestionControlFeedback(feedback) => {
                for stream in feedback.streams() {
                    told.extend(stream.packets().map(|(number, packet)| {
                        assert!(packet.is_none_or(|packet| packet.offset.is_some_and(|offset| offset < 4_096)));
                        (stream.ssrc, number, packet.map(|packet| packet.ecn))
                    }));
                }
            }
            RtcpPacket::TransportFeedback(_) | RtcpPacket::Remb(_) => panic!("one kind of feedback is enough"),
            _ => {}
        }
    }
    told
}

// RTCP-15
#[tokio::test]
async fn a_publisher_is_told_when_its_packets_were_received_and_how_they_were_marked() {
    let server = Server::start(1);
    let mut publisher = server.open(0, 0, Role::Publisher, vec![with_ccfb(video(None, true))]);
    publisher.connect();
    let marks = [Ecn::NotEct, Ecn::Ect1, Ecn::Ce, Ecn::Ect0, Ecn::Ect1];
    let mut expected = Vec::new();
    for (sequence, ecn) in (100u16..).zip(marks) {
        // 103 is lost.
        if sequence == 103 {
            expected.push((PUBLISHER_VIDEO, sequence, None));
            continue;
        }
        SockRef::from(&publisher.socket).set_tos_v4(u32::from(ecn.bits())).unwrap();
        publisher.video(sequence, u32::from(sequence) * 3_000, KEYFRAME);
        expected.push((PUBLISHER_VIDEO, sequence, Some(ecn)));
    }
    publisher.until("all is told", |publisher| told(publisher).len() >= expected.len());
    assert_eq!(told(&publisher), expected);
    server.core.shutdown().await;
}

// RTCP-15
#[tokio::test]
async fn feedback_goes_on_for_as_long_as_packets_come() {
    let server = Server::start(1);
    let mut publisher = server.open(0, 0, Role::Publisher, vec![with_ccfb(video(None, true))]);
    publisher.connect();
    let (begun, mut sequence) = (Instant::now(), 0u16);
    while told(&publisher).len() < 200 {
        assert!(begun.elapsed() < PATIENCE);
        publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
        sequence += 1;
        publisher.turn();
    }
    let numbers: Vec<u16> = told(&publisher).iter().map(|&(_, number, _)| number).collect();
    assert_eq!(numbers, (0..numbers.len() as u16).collect::<Vec<_>>(), "each number once, without a gap");
    server.core.shutdown().await;
}
