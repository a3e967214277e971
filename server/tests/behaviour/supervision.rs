//! Parts of the process that fail: they are seen, what can be mended is, and the process ends where nothing else helps.

use std::time::Duration;

use loadtest::client::{ClientError, ClientOptions, Publisher, Viewer};

use crate::ledger::assert_ended;
use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// Waits until both health checks say this of a part.
async fn is_failing(server: &Sluice, part: &str, fault: &str) {
    for path in ["/healthz", "/readyz"] {
        eventually(&format!("{path} says {part}: {fault}"), LONG, async || {
            let (status, body) = server.ask(path).await;
            (status == 503 && body.contains("part-failed") && body.contains(&format!("{part}: {fault}"))).then_some(())
        })
        .await;
    }
}

async fn is_well(server: &Sluice) {
    for path in ["/healthz", "/readyz"] {
        eventually("all is well", LONG, async || (server.ask(path).await.0 == 200).then_some(())).await;
    }
}

/// A server of two shards, and on each of them a publisher, of `s` and of `t`, with its viewer. Where a stream's shard has been busy,
/// as on a slow machine, its viewer is placed on the other one, and all begins anew.
async fn a_stream_on_each_shard() -> (Sluice, [(Publisher, Viewer); 2]) {
    for _ in 0..5 {
        let server = Sluice::start(&["--shards", "2"]).await;
        let pair = async |stream| (server.publisher(stream).await, server.viewer(stream).await);
        let pairs = [pair("s").await, pair("t").await];
        let shard = async |stream, role| server.session(stream, role).await["shard"].clone();
        let is_at_home = async |stream| shard(stream, "viewer").await == shard(stream, "publisher").await;
        if is_at_home("s").await && is_at_home("t").await {
            return (server, pairs);
        }
    }
    panic!("no viewer is placed on its stream's shard");
}

// C2
#[tokio::test]
async fn a_shard_that_panics_is_seen_ends_its_sessions_so_and_serves_again() {
    let (server, [(publisher, viewer), (_other_publisher, other)]) = a_stream_on_each_shard().await;
    server.expects_errors();
    for viewer in [&viewer, &other] {
        viewer_sees("media", viewer, LONG, |figures| figures.video.keyframes > 0).await;
    }
    let shard = server.session("s", "publisher").await["shard"].as_u64().unwrap();
    assert_ne!(server.session("t", "publisher").await["shard"].as_u64().unwrap(), shard);
    server.fault(&format!("shard/{shard}/panic")).await;
    is_failing(&server, &format!("shard-{shard}"), "panicked").await;
    let part = format!("shard-{shard}");
    assert_eq!(server.metric("sluice_part_up", &[("part", &part)]).await, 0.0);
    server.counts("sluice_part_panics_total", &[("part", &part)], 1.0).await;
    server.counts("sluice_panics_total", &[], 1.0).await;
    for role in ["publisher", "viewer"] {
        let session = eventually("the session has ended", LONG, async || {
            let session = server.session("s", role).await;
            (session["state"] == "closed").then_some(session)
        })
        .await;
        assert_eq!(session["reason"], "shard-failed");
        assert_eq!(session["stages"][5]["reason"], "shard-failed");
        assert_ended(&server, session["id"].as_str().unwrap(), role, "shard-failed").await;
    }
    // The clients were told.
    for end in [publisher.ended().await, viewer.ended().await] {
        assert!(matches!(end, ClientError::ClosedByServer), "{end}");
    }
    // Others did not notice, and the shard serves again.
    let seen = other.figures().video.keyframes;
    viewer_sees("more media", &other, LONG, |figures| figures.video.keyframes > seen).await;
    assert!(other.figures().is_intact(), "{:?}", other.figures());
    let (_publisher, viewer) = (server.publisher("s").await, server.viewer("s").await);
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    is_well(&server).await;
    // Two shards, a handshake thread at least, the registry and control.
    assert!(server.metric("sluice_part_up", &[]).await >= 5.0);
}

// C2
#[tokio::test]
async fn a_shard_that_does_not_come_back_is_seen_and_ends_the_process() {
    let mut server = Sluice::start(&["--shards", "2"]).await;
    server.expects_errors();
    server.fault("shard/1/freeze").await;
    is_failing(&server, "shard-1", "no sign of life").await;
    assert_eq!(server.metric("sluice_part_up", &[("part", "shard-1")]).await, 0.0);
    assert_eq!(server.metric("sluice_part_up", &[("part", "shard-0")]).await, 1.0);
    assert_eq!(server.exited(LONG).await.code(), Some(70));
    for text in [
        "no sign of life: it is stuck, or the machine is overloaded",
        "does not come back: the process ends, to be started again",
    ] {
        let is_said = |entry: &serde_json::Value| entry["message"] == text && entry["part"] == "shard-1";
        eventually(text, LONG, async || server.log().iter().any(is_said).then_some(())).await;
    }
}

/// Watches without a publisher, and waits how it ends.
async fn handshake_ends(server: &Sluice) -> String {
    let options = ClientOptions { connect_timeout: LONG, ..ClientOptions::default() };
    let viewer = server.post_viewer("s", options).await.unwrap();
    let session = eventually("the session has ended", LONG, async || {
        let session = server.session("s", "viewer").await;
        (session["state"] == "closed").then_some(session)
    })
    .await;
    drop(viewer);
    assert_eq!(session["stages"][2]["reason"], session["reason"], "{session}");
    session["reason"].as_str().unwrap().to_owned()
}

// C2
#[tokio::test]
async fn a_handshake_thread_that_panics_or_does_not_come_back_ends_its_handshakes_and_the_next_ones_succeed() {
    let server = Sluice::start(&["--handshake-threads", "1"]).await;
    server.expects_errors();
    let publisher = server.publisher("s").await;
    server.fault("handshake-thread/0/panic").await;
    assert_eq!(handshake_ends(&server).await, "handshake-thread-failed");
    is_failing(&server, "handshake-thread-0", "panicked").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    viewer.stop().await.unwrap();
    server.fault("handshake-thread/0/freeze").await;
    assert_eq!(handshake_ends(&server).await, "handshake-thread-failed");
    server.counts("sluice_handshake_threads_replaced_total", &[], 1.0).await;
    is_well(&server).await;
    // Whoever was connected before goes on.
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    assert!(publisher.failure().is_none());
}

// C2: a process that was paused as a whole has no part that failed.
#[tokio::test]
async fn a_process_that_was_paused_goes_on() {
    let server = Sluice::start(&[]).await;
    let _publisher = server.publisher("s").await;
    server.signal("STOP");
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal("CONT");
    assert_eq!(server.ask("/healthz").await.0, 200);
    assert_eq!(server.ask("/readyz").await.0, 200);
    let silent = |entry: &serde_json::Value| entry["message"].as_str().is_some_and(|text| text.starts_with("no sign"));
    assert!(!server.log().iter().any(silent));
}
