//! How sessions begin, move and end.

use std::time::{Duration, Instant};

use media_core::internals::rtcp::ReportBlock;
use media_core::ledger::{Reason, Stage, StageChange};
use media_core::media::{Role, SendSsrcs};
use media_core::stats::DropReason;
use media_core::{CoreConfig, CoreEvent, DtlsRole, IceMode};

use crate::support::*;

// DMX-05, ICE-09
#[tokio::test]
async fn media_and_dtls_from_an_unproven_address_are_dropped_and_counted() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    let proven = std::mem::replace(&mut publisher.socket, socket());
    publisher.video(1, 3_000, DELTA);
    let mut hello = vec![22, 254, 253];
    hello.resize(200, 0);
    publisher.send(&hello);
    publisher.rtcp(|writer| writer.receiver_report(1, &[]).unwrap());
    publisher.socket = proven;
    publisher.video(2, 6_000, DELTA);
    viewer.until("the next packet comes", |viewer| viewer.rtp.len() >= 2);
    let headers = viewer.headers(VIEWER_VIDEO);
    assert_eq!(headers[1].sequence_number.wrapping_sub(headers[0].sequence_number), 2);
    let begun = Instant::now();
    while server.dropped(0, DropReason::UnvalidatedAddress).await < 3 {
        assert!(begun.elapsed() < PATIENCE);
    }
    server.core.shutdown().await;
}

// ICE-19
#[tokio::test]
async fn peers_that_move_to_another_port_keep_their_session() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    for peer in [&mut viewer, &mut publisher] {
        peer.socket = socket();
        peer.validate();
    }
    for sequence in 1..20 {
        publisher.video(sequence, u32::from(sequence) * 3_000, DELTA);
    }
    viewer.until("video goes on", |viewer| viewer.rtp.len() >= 20);
    assert_eq!(server.counters(0).await.handshakes_completed, 2);
    server.core.shutdown().await;
}

// ICE-19: without USE-CANDIDATE a new address is only validated.
#[tokio::test]
async fn an_address_that_is_not_nominated_takes_no_media() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    let other = std::mem::replace(&mut viewer.socket, socket());
    let before = viewer.answers;
    while viewer.answers == before {
        viewer.check(false);
        viewer.turn();
    }
    publisher.video(0, 0, KEYFRAME);
    // RTCP from the second address is this session's.
    viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    publisher.until("the keyframe request arrives", |publisher| publisher.plis() > 0);
    assert!(viewer.rtp.is_empty());
    viewer.socket = other;
    viewer.until("video comes to the first", |viewer| !viewer.rtp.is_empty());
    server.core.shutdown().await;
}

// ICE-17, DTLS-41
#[tokio::test]
async fn an_ended_session_says_close_notify_and_nothing_else() {
    let mut server = Server::start(2);
    for (shard, reason) in [(0, Reason::Deleted), (1, Reason::Deleted)] {
        let mut viewer = server.viewer(shard, 2, true);
        server.core.close(shard, viewer.id, reason);
        viewer.until("close_notify comes", |viewer| viewer.closed);
        assert_eq!(server.ended(viewer.id).await, reason);
        let answers = viewer.answers;
        let unknown = server.dropped(shard, DropReason::UnknownUfrag).await;
        viewer.check(true);
        let begun = Instant::now();
        while server.dropped(shard, DropReason::UnknownUfrag).await == unknown {
            assert!(begun.elapsed() < PATIENCE);
            viewer.turn();
        }
        assert_eq!(viewer.answers, answers);
    }
    server.core.shutdown().await;
}

// DTLS-41
#[tokio::test]
async fn a_peer_that_says_close_notify_is_gone_at_once() {
    let mut server = Server::start(1);
    let mut publisher = server.publisher(0);
    publisher.dtls.close();
    publisher.turn();
    assert_eq!(server.ended(publisher.id).await, Reason::PeerClosed);
    assert!(server.core.snapshot().await[0].sessions.is_empty());
    server.core.shutdown().await;
}

// DTLS-42: a forged plaintext alert and a ClientHello in epoch 0 change nothing.
#[tokio::test]
async fn forged_records_do_not_end_a_session() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    publisher.send(&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]);
    publisher.send(&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 10, 0, 2, 1, 0]);
    let mut hello = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 11, 0, 50];
    hello.resize(63, 1);
    publisher.send(&hello);
    publisher.validate();
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    assert_eq!(server.core.snapshot().await[0].sessions.len(), 2);
    server.core.shutdown().await;
}

// WHIP-33: either kind of proof keeps a peer, and none ends it.
#[tokio::test]
async fn media_alone_or_checks_alone_keep_a_session_and_silence_ends_it() {
    let liveness_timeout = Duration::from_secs(4);
    let mut server = Server::with(CoreConfig { media_port: 0, liveness_timeout, ..CoreConfig::default() });
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    let begun = Instant::now();
    let mut sequence = 0_u16;
    let mut last = begun;
    while begun.elapsed() < 3 * liveness_timeout {
        last = Instant::now();
        publisher.audio(sequence, u32::from(sequence) * 960);
        sequence += 1;
        viewer.check(true);
        viewer.turn();
        publisher.turn();
    }
    assert_eq!(server.core.snapshot().await[0].sessions.len(), 2);
    assert_eq!(server.ended(publisher.id).await, Reason::ConsentLost);
    assert!(last.elapsed() >= liveness_timeout / 2);
    assert!(server.core.snapshot().await[0].sessions.is_empty());
    server.core.shutdown().await;
}

// WHIP-33: unauthentic datagrams from the right address are no sign of life.
#[tokio::test]
async fn noise_does_not_keep_a_session() {
    let liveness_timeout = Duration::from_secs(2);
    let mut server = Server::with(CoreConfig { media_port: 0, liveness_timeout, ..CoreConfig::default() });
    let publisher = server.publisher(0);
    let begun = Instant::now();
    loop {
        publisher.send(&[0x80; 60]);
        publisher.send(&[22; 60]);
        match tokio::time::timeout(Duration::from_millis(5), server.events.get_mut().recv()).await {
            Ok(Some(CoreEvent::Ended { reason, .. })) => {
                assert_eq!(reason, Reason::ConsentLost);
                break;
            }
            _ => assert!(begun.elapsed() < PATIENCE),
        }
    }
    server.core.shutdown().await;
}

#[tokio::test]
async fn a_dtls_flood_of_one_peer_leaves_the_handshakes_of_others_alone() {
    let server = Server::start(1);
    let flooder = {
        let mut peer = server.open(0, 0, Role::Viewer, vec![video(None, false)]);
        peer.validate();
        peer
    };
    let mut record = vec![22, 254, 253, 0, 0];
    record.resize(1200, 7);
    for round in 0..20_u64 {
        for _ in 0..500 {
            flooder.send(&record);
        }
        drop(server.viewer(0, 1 + round, true));
    }
    assert_eq!(server.dropped(0, DropReason::HandshakeBacklog).await, 0);
    assert!(server.dropped(0, DropReason::DtlsRate).await > 1_000);
    assert_eq!(server.counters(0).await.handshakes_completed, 20);
    server.core.shutdown().await;
}

// A second session on the address of a live one, as a forged source address would make it, takes nothing away.
#[tokio::test]
async fn an_address_stays_with_the_session_that_uses_it() {
    let mut server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    let mut intruder = server.open(0, 7, Role::Viewer, vec![video(None, false)]);
    intruder.socket = publisher.socket.try_clone().unwrap();
    intruder.validate();
    for sequence in 0..5 {
        publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
    }
    viewer.until("video comes", |viewer| viewer.rtp.len() >= 5);
    // Once it is free, the next check takes it.
    server.core.close(0, publisher.id, Reason::Deleted);
    assert_eq!(server.ended(publisher.id).await, Reason::Deleted);
    intruder.connect();
    server.core.close(0, intruder.id, Reason::Deleted);
    assert_eq!(server.ended(intruder.id).await, Reason::Deleted);
    server.core.shutdown().await;
}

// WHIP-33 and the life of a stream: nothing is left of 100 joins and leaves, whatever their moment.
#[tokio::test]
async fn nothing_is_left_of_ended_sessions() {
    let mut server = Server::start(2);
    let mut publisher = server.publisher(2);
    for round in 0..100_u16 {
        let shard = usize::from(round % 2);
        let mut viewer = match round % 4 {
            // One that ends in the middle of its handshake: what the handshake thread says later is for nobody.
            0 | 1 => {
                let mut viewer = server.open(shard, 2, Role::Viewer, vec![video(None, false)]);
                viewer.validate();
                viewer.dtls.start(Instant::now());
                while let Some(datagram) = viewer.dtls.poll_transmit() {
                    viewer.send(&datagram);
                }
                viewer
            }
            _ => server.viewer(shard, 2, true),
        };
        publisher.video(round, u32::from(round) * 3_000, KEYFRAME);
        server.core.close(shard, viewer.id, Reason::Deleted);
        publisher.video(1_000 + round, u32::from(round) * 3_000, DELTA);
        assert_eq!(server.ended(viewer.id).await, Reason::Deleted);
        viewer.turn();
    }
    server.core.close(0, publisher.id, Reason::Deleted);
    assert_eq!(server.ended(publisher.id).await, Reason::Deleted);
    for shard in server.core.snapshot().await {
        assert!(shard.sessions.is_empty());
    }
    for stream in [2, 3] {
        assert_eq!(server.core.shard_for(media_core::StreamId(stream), Role::Viewer), stream as usize % 2);
    }
    server.core.shutdown().await;
}

// A second publisher that got through replaces the first, whose packets are no part of the stream any more.
#[tokio::test]
async fn a_second_publisher_replaces_the_first() {
    let mut server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut first = server.publisher(0);
    first.video(0, 0, KEYFRAME);
    viewer.until("the first is seen", |viewer| !viewer.rtp.is_empty());
    let mut second = server.publisher(0);
    assert_eq!(server.ended(first.id).await, Reason::Replaced);
    first.video(1, 3_000, DELTA);
    second.video(500, 99_000, KEYFRAME);
    viewer.until("the second is seen", |viewer| viewer.rtp.len() >= 2);
    let headers = viewer.headers(VIEWER_VIDEO);
    assert_eq!(headers[1].sequence_number.wrapping_sub(headers[0].sequence_number), 1);
    first.until("the first is told", |first| first.closed);
    server.core.shutdown().await;
}

// OPS-06
#[tokio::test]
async fn shutdown_says_close_notify_to_everybody() {
    let server = Server::start(2);
    let mut peers = vec![server.publisher(2), server.viewer(0, 2, true), server.viewer(1, 2, true)];
    // One that has no association to close does not hold it up.
    server.open(1, 2, Role::Viewer, vec![video(None, false)]).validate();
    let begun = Instant::now();
    server.core.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    for peer in &mut peers {
        peer.until("close_notify comes", |peer| peer.closed);
    }
    assert!(server.core.snapshot().await.is_empty());
}

// ICE-02, ICE-15: the full agent's checks and ours cross; media goes where the peer nominated, and nothing is left.
#[tokio::test]
async fn a_session_with_the_full_agent_carries_media_and_moves_like_any_other() {
    let mut server = Server::start(1);
    let ssrcs = Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX });
    let mut viewer = server.open_with(IceMode::Full, DtlsRole::Server, 0, 0, Role::Viewer, vec![video(ssrcs, true)]);
    let mut publisher =
        server.open_with(IceMode::Full, DtlsRole::Server, 0, 0, Role::Publisher, vec![video(None, true)]);
    viewer.connect();
    publisher.connect();
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    for peer in [&mut viewer, &mut publisher] {
        peer.socket = socket();
        peer.validate();
    }
    publisher.video(1, 3_000, DELTA);
    viewer.until("video goes on", |viewer| viewer.rtp.len() >= 2);
    for peer in [&mut viewer, &mut publisher] {
        server.core.close(0, peer.id, Reason::Deleted);
        assert_eq!(server.ended(peer.id).await, Reason::Deleted);
        peer.until("close_notify comes", |peer| peer.closed);
    }
    server.core.shutdown().await;
}

// DMX-06: the keyframe right after the last flight is there before the keys are.
#[tokio::test]
async fn media_right_after_the_last_flight_is_not_lost() {
    let server = Server::start(1);
    let (mut stream, mut quick) = (0, 0);
    while quick < 10 {
        assert!(stream < 50, "{quick} handshakes were quick enough");
        let dropped = server.dropped(0, DropReason::NoKeys).await;
        let mut viewer = server.viewer(0, stream, true);
        let sections = vec![video(None, true)];
        let mut publisher = server.open_with(IceMode::Lite, DtlsRole::Client, 0, stream, Role::Publisher, sections);
        publisher.connect();
        let begun = Instant::now();
        for sequence in 0..10 {
            publisher.video(sequence, 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
        }
        publisher.until("the server has its keys", |publisher| {
            std::iter::from_fn(|| server.events.borrow_mut().try_recv().ok()).any(|event| match event {
                CoreEvent::Stage { session, event } => {
                    session == publisher.id && event.stage == Stage::Srtp && event.change == StageChange::Begin
                }
                _ => false,
            })
        });
        stream += 1;
        // What waits for the keys for more than 200 ms, as it does where the machine pauses, is dropped: another stream.
        if begun.elapsed() > Duration::from_millis(150) {
            continue;
        }
        viewer.until("all of it comes", |viewer| viewer.rtp.len() == 10);
        assert_eq!(server.dropped(0, DropReason::NoKeys).await, dropped);
        quick += 1;
    }
    server.core.shutdown().await;
}

// DMX-06, OPS-08
#[tokio::test]
async fn what_is_held_before_the_keys_is_bounded() {
    let server = Server::start(1);
    let mut peer = server.open(0, 0, Role::Publisher, vec![video(None, true)]);
    peer.validate();
    for _ in 0..100 {
        peer.send(&[0x80; 200]);
    }
    peer.validate();
    assert_eq!(server.dropped(0, DropReason::NoKeys).await, 36);
    assert!(server.counters(0).await.stun_checks_answered >= 2);
    server.core.shutdown().await;
}

#[tokio::test]
async fn calls_for_a_shard_that_does_not_exist_do_nothing() {
    let server = Server::start(1);
    let spec = server.spec(IceMode::Lite, DtlsRole::Server, 0, Role::Publisher, vec![video(None, false)]);
    let id = spec.id;
    server.core.open(1, spec);
    server.core.add_remote_candidates(1, id, Vec::new());
    server.core.close(1, id, Reason::Deleted);
    assert!(server.core.local_candidates(1).is_empty());
    assert!(server.core.snapshot().await[0].sessions.is_empty());
    server.core.shutdown().await;
}

// F-07
#[tokio::test]
async fn a_viewer_on_another_shard_is_told_that_the_video_stopped_and_that_it_is_back() {
    let media_gap = Duration::from_millis(300);
    let mut server = Server::with(CoreConfig { shards: 2, media_port: 0, media_gap, ..CoreConfig::default() });
    let mut publisher = server.publisher(2);
    let mut viewer = server.viewer(1, 2, true);
    assert_ne!(publisher.shard, viewer.shard);
    let mut sequence = 0;
    for (has_video, expected) in
        [(true, StageChange::Done), (false, StageChange::Failed(Reason::MediaStopped)), (true, StageChange::Done)]
    {
        let begun = Instant::now();
        let mut said = None;
        while said != Some(expected) {
            assert!(begun.elapsed() < PATIENCE, "in vain: {expected:?}; {said:?}");
            sequence += 1;
            publisher.audio(sequence, u32::from(sequence) * 960);
            if has_video {
                publisher.video(sequence, u32::from(sequence) * 3_000, KEYFRAME);
            }
            publisher.turn();
            viewer.turn();
            for ssrc in [VIEWER_AUDIO, VIEWER_VIDEO] {
                let Some(last) = viewer.headers(ssrc).last().map(|header| header.sequence_number) else { continue };
                let block = ReportBlock {
                    ssrc,
                    fraction_lost: 0,
                    cumulative_lost: 0,
                    extended_highest_sequence: last.into(),
                    jitter: 0,
                    last_sr: 0,
                    delay_since_last_sr: 0,
                };
                viewer.rtcp(|writer| writer.receiver_report(1, &[block]).unwrap());
            }
            while let Ok(event) = server.events.get_mut().try_recv() {
                match event {
                    CoreEvent::Stage { session, event } if session == viewer.id && event.stage == Stage::Media => {
                        said = Some(event.change);
                    }
                    _ => {}
                }
            }
        }
    }
    server.core.shutdown().await;
}
