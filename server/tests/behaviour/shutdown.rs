//! An orderly end of the process (OPS-06).

use std::time::{Duration, Instant};

use loadtest::client::{ClientError, ClientOptions, PublisherOptions};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

// OPS-06
#[tokio::test]
async fn sigterm_says_close_notify_to_all_takes_no_more_sessions_and_exits_with_0() {
    for (mode, shards) in [("lite", "2"), ("full", "1")] {
        let mut server = Sluice::start(&["--ice", mode, "--shards", shards]).await;
        let publisher = server.publisher("s").await;
        let mut viewers = Vec::new();
        for _ in 0..8 {
            viewers.push(server.viewer("s").await);
        }
        // One that has not even begun must not hold the process.
        let idle = ClientOptions { send_checks: false, connect_timeout: LONG, ..ClientOptions::default() };
        let _idle = server.post_viewer("s", idle).await.unwrap();
        for viewer in &viewers {
            viewer_sees("media", viewer, LONG, |figures| figures.video.keyframes > 0).await;
        }
        let begun = Instant::now();
        server.terminate();
        let end = tokio::time::timeout(LONG, publisher.ended()).await.unwrap();
        assert!(matches!(end, ClientError::ClosedByServer), "{end}");
        // From the first close_notify on nobody gets in: 503, or nobody listens any more.
        match server.post_publisher("t", PublisherOptions::default(), ClientOptions::default()).await.err().unwrap() {
            ClientError::Refused { status, .. } => assert_eq!(status, 503),
            ClientError::Http(_) => {}
            error => panic!("{error}"),
        }
        for viewer in &viewers {
            let end = tokio::time::timeout(LONG, viewer.ended()).await.unwrap();
            assert!(matches!(end, ClientError::ClosedByServer), "{end}");
            assert!(viewer.figures().is_intact(), "{:?}", viewer.figures());
        }
        let status = server.exited(LONG).await;
        assert_eq!(status.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let closed = eventually("every session leaves its closing line", LONG, async || {
            let ended = server.log().into_iter().filter(|entry| entry["message"] == "session ended");
            let reasons: Vec<_> = ended.map(|entry| entry["reason"].clone()).collect();
            (reasons.len() == 10).then_some(reasons)
        })
        .await;
        assert!(closed.iter().all(|reason| reason == "shutdown"), "{closed:?}");
    }
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let mut server = Sluice::start(&[]).await;
    server.terminate();
    assert_eq!(server.exited(Duration::from_secs(5)).await.code(), Some(0));
}

// OPS-06
#[tokio::test]
async fn sessions_get_their_time_after_sigterm_and_the_server_ends_once_none_is_left() {
    let mut server = Sluice::start(&["--drain-timeout", "60s"]).await;
    let (publisher, viewer) = (server.publisher("s").await, server.viewer("s").await);
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    server.terminate();
    eventually("nobody else gets in", LONG, async || {
        let refused = server.post_viewer("s", ClientOptions::default()).await.err();
        matches!(refused, Some(ClientError::Refused { status: 503, .. })).then_some(())
    })
    .await;
    assert_eq!((server.ask("/readyz").await.0, server.ask("/healthz").await.0), (503, 200));
    // SIGHUP ends nothing, either.
    server.signal("HUP");
    let seen = viewer.figures().video.keyframes;
    viewer_sees("more media", &viewer, LONG, |figures| figures.video.keyframes > seen).await;
    let begun = Instant::now();
    viewer.stop().await.unwrap();
    publisher.stop().await.unwrap();
    assert_eq!(server.exited(LONG).await.code(), Some(0));
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
}

/// A viewer that connects to nothing: its session and its events.
async fn listening_viewer(server: &Sluice, stream: &str) -> (String, reqwest::Response) {
    let offer = include_str!("../../../signaling/tests/golden/chromium-watch.sdp");
    let post = server.http.post(format!("{}/whep/{stream}", server.base)).header("content-type", "application/sdp");
    let location = |reply: &reqwest::Response| {
        assert_eq!(reply.status(), 201);
        format!("{}{}", server.base, reply.headers()["location"].to_str().unwrap())
    };
    let session = location(&post.body(offer).send().await.unwrap());
    let made = server.http.post(format!("{session}/sse")).header("content-type", "application/json");
    let events = location(&made.body("[\"reconnect\"]").send().await.unwrap());
    (session, server.http.get(events).send().await.unwrap())
}

// EXT-08
#[tokio::test]
async fn viewers_are_asked_to_go_while_their_sessions_get_ten_seconds_or_more() {
    let args = ["--drain-timeout", "10s", "--reconnect-url", "https://b.example/"];
    let mut server = Sluice::start(&args).await;
    let publisher = server.publisher("s").await;
    let (session, mut events) = listening_viewer(&server, "s").await;
    server.terminate();
    let asked = tokio::time::timeout(LONG, events.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(asked, "event: reconnect\ndata: {\"url\":\"https://b.example/whep/s\"}\n\n");
    assert_eq!(server.http.get(&session).send().await.unwrap().status(), 204, "the session is there still");
    assert_eq!(server.http.delete(&session).send().await.unwrap().status(), 200);
    publisher.stop().await.unwrap();
    assert_eq!(server.exited(LONG).await.code(), Some(0));

    // Where there is not that much time nobody is asked: the event stream only ends.
    let mut server = Sluice::start(&["--drain-timeout", "1s"]).await;
    let _publisher = server.publisher("s").await;
    let (_, mut events) = listening_viewer(&server, "s").await;
    server.terminate();
    assert_eq!(tokio::time::timeout(LONG, events.chunk()).await.unwrap().unwrap(), None);
    assert_eq!(server.exited(LONG).await.code(), Some(0));
}

// OPS-06
#[tokio::test]
async fn the_time_for_sessions_has_a_deadline_and_a_second_signal_ends_at_once() {
    for (timeout, second) in [("1s", false), ("1h", true)] {
        let mut server = Sluice::start(&["--drain-timeout", timeout]).await;
        let publisher = server.publisher("s").await;
        let begun = Instant::now();
        server.terminate();
        if second {
            eventually("the server drains", LONG, async || (server.ask("/readyz").await.0 == 503).then_some(())).await;
            server.signal("INT");
            assert_eq!(server.exited(Duration::from_secs(5)).await.code(), Some(0));
        } else {
            let end = tokio::time::timeout(LONG, publisher.ended()).await.unwrap();
            assert!(matches!(end, ClientError::ClosedByServer), "{end}");
            assert!(begun.elapsed() >= Duration::from_secs(1));
            assert_eq!(server.exited(LONG).await.code(), Some(0));
        }
    }
}
