//! Threads that fail, and certificates that are renewed: those concerned are told, all others notice nothing.

use std::time::{Duration, Instant, SystemTime};

use media_core::ledger::Reason;
use media_core::media::Role;
use media_core::{BEAT, CoreThread, Fault, Pulse};

use crate::support::*;

/// The signs of life of a thread.
fn pulse(server: &Server, thread: CoreThread) -> std::sync::Arc<Pulse> {
    server.core.vitals().into_iter().find(|vital| vital.thread == thread).unwrap().pulse
}

// C2
#[tokio::test]
async fn a_shard_that_panics_starts_again_and_only_its_own_sessions_end() {
    let mut server = Server::start(2);
    let (mut publisher, mut near, mut far) =
        (server.publisher(0), server.viewer(0, 0, true), server.viewer(1, 0, true));
    let (mut other_publisher, mut other) = (server.publisher(1), server.viewer(1, 1, true));
    publisher.video(0, 0, KEYFRAME);
    other_publisher.video(0, 0, KEYFRAME);
    for viewer in [&mut near, &mut far, &mut other] {
        viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    }
    let before = server.counters(0).await;

    server.core.inject(CoreThread::Shard(0), Fault::Panic);
    for peer in [&mut publisher, &mut near] {
        peer.until("close_notify comes", |peer| peer.closed);
        assert_eq!(server.ended(peer.id).await, Reason::ShardFailed);
    }
    assert_eq!(pulse(&server, CoreThread::Shard(0)).panics(), 1);
    // Nobody else noticed.
    other_publisher.video(1, 3_000, DELTA);
    other.until("the other stream goes on", |viewer| viewer.rtp.len() > 1);
    let carried = server.core.snapshot().await;
    assert_eq!([carried[0].sessions.len(), carried[1].sessions.len()], [0, 3]);
    // What it had counted stays, so that rates stay true.
    assert_eq!(carried[0].counters.handshakes_completed, before.handshakes_completed);
    assert!(carried[0].counters.datagrams_sent >= before.datagrams_sent);

    // For a viewer on another shard its publisher had gone, and comes back.
    let seen = far.rtp.len();
    let mut publisher = server.publisher(0);
    let mut near = server.viewer(0, 0, true);
    publisher.video(100, 90_000, KEYFRAME);
    near.until("video comes again", |viewer| !viewer.rtp.is_empty());
    far.until("video goes on", |viewer| viewer.rtp.len() > seen);
    assert!(!far.closed && !other.closed);
    assert_eq!(server.counters(0).await.handshakes_completed, before.handshakes_completed + 2);
    server.core.shutdown().await;
}

// C2
#[tokio::test]
async fn a_session_that_waits_in_the_mailbox_of_a_shard_that_panics_is_opened_by_the_next_one() {
    let server = Server::start(1);
    server.core.inject(CoreThread::Shard(0), Fault::Panic);
    let viewer = server.viewer(0, 0, true);
    assert_eq!(server.core.snapshot().await[0].sessions[0].id, viewer.id);
    server.core.shutdown().await;
}

// C2
#[tokio::test]
async fn a_shard_that_panics_again_and_again_serves_in_between_and_can_be_stopped() {
    let mut server = Server::start(1);
    for round in 1..=8 {
        let viewer = server.viewer(0, 0, true);
        server.core.inject(CoreThread::Shard(0), Fault::Panic);
        assert_eq!(server.ended(viewer.id).await, Reason::ShardFailed);
        assert_eq!(pulse(&server, CoreThread::Shard(0)).panics(), round);
    }
    server.core.inject(CoreThread::Shard(0), Fault::Panic);
    tokio::time::timeout(PATIENCE, server.core.shutdown()).await.unwrap();
}

// C2
#[test]
fn every_thread_beats_whether_or_not_it_has_work_until_it_does_not_come_back() {
    let server = Server::start(2);
    let _viewer = server.viewer(0, 0, true);
    let vitals = server.core.vitals();
    assert_eq!(vitals.len(), 3);
    let count = || vitals.iter().map(|vital| vital.pulse.beats()).collect::<Vec<_>>();
    let begun = count();
    let deadline = Instant::now() + PATIENCE;
    while count().iter().zip(&begun).any(|(now, begun)| now - begun < 5) {
        assert!(Instant::now() < deadline, "{begun:?} {:?}", count());
        std::thread::sleep(BEAT);
    }
    server.core.inject(CoreThread::Shard(1), Fault::Freeze);
    let mut last = (count()[1], Instant::now());
    while last.1.elapsed() < 10 * BEAT {
        assert!(Instant::now() < deadline);
        if count()[1] != last.0 {
            last = (count()[1], Instant::now());
        }
        std::thread::sleep(BEAT / 10);
    }
    assert!(!server.core.replace_thread(CoreThread::Shard(1)), "it owns its sessions");
}

// DTLS-06
#[tokio::test]
async fn a_renewed_certificate_is_for_new_sessions_and_those_before_keep_theirs() {
    let server = Server::start(1);
    let mut publisher = server.publisher(0);
    let before = (server.core.fingerprint(), server.core.certificate_expires());
    let answered = server.open(0, 1, Role::Publisher, vec![audio(None)]);
    server.core.renew_certificate().unwrap();
    let after = (server.core.fingerprint(), server.core.certificate_expires());
    assert!(after.0 != before.0 && after.1 >= before.1);
    assert!(after.1 > SystemTime::now() + Duration::from_secs(29 * 86_400));
    // Each verifies the fingerprint that its answer announced.
    server.connected(answered);
    let mut viewer = server.viewer(0, 0, true);
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    server.core.shutdown().await;
}

// C2
#[tokio::test]
async fn new_timeouts_are_for_new_sessions() {
    let mut server = Server::start(1);
    let before = server.open(0, 0, Role::Viewer, vec![audio(None)]);
    let ice_timeout = Duration::from_millis(200);
    server.core.set_timeouts(&media_core::CoreConfig { ice_timeout, ..media_core::CoreConfig::default() });
    let after = server.open(0, 0, Role::Viewer, vec![audio(None)]);
    assert_eq!(server.ended(after.id).await, Reason::NoValidCheck);
    assert_eq!(server.core.snapshot().await[0].sessions[0].id, before.id);
    // Also for a shard that starts again.
    server.core.inject(CoreThread::Shard(0), Fault::Panic);
    assert_eq!(server.ended(before.id).await, Reason::ShardFailed);
    let again = server.open(0, 0, Role::Viewer, vec![audio(None)]);
    assert_eq!(server.ended(again.id).await, Reason::NoValidCheck);
    server.core.shutdown().await;
}
