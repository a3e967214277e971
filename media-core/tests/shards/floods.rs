//! Peers that send more than they should: the surplus is theirs alone.

use std::time::{Duration, Instant};

use media_core::ledger::{StageChange, WarningCode};
use media_core::stats::DropReason;
use media_core::{CoreEvent, SessionId, SessionLimits};

use crate::support::*;

/// The warnings of a session so far.
fn warnings(server: &Server, id: SessionId) -> Vec<WarningCode> {
    let mut events = server.events.borrow_mut();
    let mut found = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let CoreEvent::Stage { session, event } = event
            && let (true, StageChange::Warned((code, _))) = (session == id, event.change)
        {
            found.push(code);
        }
    }
    found
}

/// Transport-wide feedback that says of as many packets as it can name, in as many messages as fit, that they are lost.
fn worst_feedback() -> Vec<u8> {
    let mut message = vec![0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xff, 0xf8, 0, 0, 1, 0];
    message.extend([0x1f, 0xff].repeat(8));
    message.repeat(1_150 / message.len())
}

// H5: 30 Mbit/s of feedback, as the worst makes work; another viewer of the shard gets all that there is.
#[tokio::test]
async fn a_viewer_that_floods_feedback_costs_only_itself() {
    let server = Server::start(1);
    let mut flooder = server.viewer(0, 0, true);
    let mut other = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    let flood = worst_feedback();
    let (begun, mut sent, mut flooded) = (Instant::now(), 0_u16, 0_u64);
    while begun.elapsed() < Duration::from_secs(3) {
        let due = begun.elapsed().as_millis() as u64;
        while u64::from(sent) * 3 < due {
            publisher.video(sent, u32::from(sent) * 300, if sent == 0 { KEYFRAME } else { DELTA });
            sent += 1;
        }
        while flooded < 3 * due {
            flooder.send_protected(&flood);
            flooded += 1;
        }
        for peer in [&mut flooder, &mut other] {
            peer.turn();
        }
    }
    let counters = server.counters(0).await;
    let received = counters.rtp_received as usize;
    other.until("all that was received", |other| other.headers(VIEWER_VIDEO).len() >= received);
    assert_eq!((counters.rtp_shed, counters.rtp_congested), (0, 0));
    let dropped = |reason| counters.dropped[reason as usize];
    let refused = dropped(DropReason::RtcpRate) + dropped(DropReason::DatagramRate);
    // Of each second 20,000 units of work are done, and a datagram asks for more than a thousand.
    assert!(refused > flooded / 2, "{refused} of {flooded}");
    assert!(warnings(&server, flooder.id).contains(&WarningCode::RtcpExceeded));
    // It still gets what all get.
    assert!(!flooder.headers(VIEWER_VIDEO).is_empty());
    server.core.shutdown().await;
}

// H5
#[tokio::test]
async fn rtp_of_a_viewer_is_dropped_without_a_look() {
    let server = Server::start(1);
    let viewer = server.viewer(0, 0, true);
    for number in 0..50_u8 {
        viewer.send(&[&[0x80, 96, 0, number][..], &[0; 60]].concat());
    }
    let deadline = Instant::now() + PATIENCE;
    while server.dropped(0, DropReason::UnexpectedRtp).await < 50 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(server.dropped(0, DropReason::SrtpAuthentication).await, 0);
    server.core.shutdown().await;
}

// H5
#[tokio::test]
async fn a_publisher_beyond_its_limit_loses_the_surplus_and_is_told() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    server.limits.set(SessionLimits { bits_per_second: Some(400_000), packets_per_second: Some(1_000) });
    let mut publisher = server.publisher(0);
    let frame: Vec<u8> = DELTA.iter().copied().chain([7; 1_000]).collect();
    for sequence in 0..300_u16 {
        publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { &frame });
        if sequence % 20 == 0 {
            viewer.turn();
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut told = Vec::new();
    while !told.contains(&WarningCode::BitrateExceeded) {
        assert!(Instant::now() < deadline, "{told:?}");
        viewer.turn();
        told.extend(warnings(&server, publisher.id));
    }
    let counters = server.counters(0).await;
    let dropped = counters.dropped[DropReason::MediaRate as usize];
    assert!(dropped > 100 && dropped < counters.rtp_received, "{dropped} of {}", counters.rtp_received);
    let passed = counters.rtp_received - dropped;
    viewer.until("the rest", |viewer| viewer.headers(VIEWER_VIDEO).len() as u64 >= passed);
    server.core.shutdown().await;
}
