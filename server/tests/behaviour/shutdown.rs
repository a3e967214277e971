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
