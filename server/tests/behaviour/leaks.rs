//! Nothing of a session stays behind (OPS-08).

use std::time::{Duration, Instant};

use loadtest::client::{ClientOptions, PublisherOptions};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// What the process holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holdings {
    files: usize,
    threads: u64,
    resident_kib: u64,
}

fn holdings(server: &Sluice) -> Holdings {
    let process = server.process();
    let status = process.status().unwrap();
    Holdings { files: process.fd_count().unwrap(), threads: status.threads, resident_kib: status.vmrss.unwrap() }
}

/// The ways to leave.
#[derive(Clone, Copy)]
enum Leave {
    Delete,
    CloseNotify,
    Silence,
}

/// One client joins and leaves; every fifth publishes.
async fn visit(server: &Sluice, number: usize, leave: Leave) {
    let options = ClientOptions { delete: matches!(leave, Leave::Delete), ..ClientOptions::default() };
    if number.is_multiple_of(5) {
        let publisher = server.publisher_with(&format!("p{number}"), PublisherOptions::default(), options).await;
        match leave {
            Leave::Silence => drop(publisher),
            _ => drop(publisher.stop().await.unwrap()),
        }
    } else {
        let viewer = server.post_viewer("s", options).await.unwrap();
        viewer.connected().await.unwrap();
        match leave {
            Leave::Silence => drop(viewer),
            _ => drop(viewer.stop().await.unwrap()),
        }
    }
}

/// 100 joins and leaves, ten at a time; returns when only the one publisher is left.
async fn hundred_visits(server: &Sluice) -> Holdings {
    for ten in 0..10 {
        let visits = (0..10).map(|one| {
            let leave = [Leave::Delete, Leave::CloseNotify, Leave::Silence][(ten + one) % 3];
            visit(server, ten * 10 + one, leave)
        });
        let mut visits: Vec<_> = visits.map(Box::pin).collect();
        // All at once, on this task: the server is shared by reference.
        std::future::poll_fn(|context| {
            visits.retain_mut(|visit| visit.as_mut().poll(context).is_pending());
            if visits.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
    eventually("all visitors are gone", LONG, async || {
        let metrics = server.metrics().await;
        let left = metrics.sum("sluice_viewers", &[]) + metrics.sum("sluice_publishers", &[]);
        (left == 1.0 && metrics.sum("sluice_shard_sessions", &[]) == 1.0).then_some(())
    })
    .await;
    holdings(server)
}

// WHIP-14, WHIP-33, OPS-08
#[tokio::test]
async fn two_hundred_joins_and_leaves_leave_nothing_behind() {
    for mode in ["lite", "full"] {
        // One arena, and large blocks given back at once: what is resident is what is in use.
        let environment = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536")];
        let arguments = ["--ice", mode, "--shards", "2", "--liveness-timeout", "5s"];
        let server = Sluice::start_in(&environment, &arguments).await;
        // So slow that its packet cache hardly grows meanwhile.
        let media = PublisherOptions { bitrate: 50, ..PublisherOptions::default() };
        let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
        let before = holdings(&server);
        let warm = hundred_visits(&server).await;
        hundred_visits(&server).await;
        hundred_visits(&server).await;
        let after = eventually("sockets and threads are as before", LONG, async || {
            let now = holdings(&server);
            (now.files <= before.files && now.threads <= before.threads).then_some(now)
        })
        .await;
        // What stays of an ended session is its record for the admin API, some 6 KiB of names, formats and figures, and of
        // those there are 1000 at most. One OpenSSL association alone would cost several times as much.
        let grown = after.resident_kib.saturating_sub(warm.resident_kib);
        println!("{mode}: {before:?}, warm: {warm:?}, after 200 more: {after:?}");
        assert!(grown < 200 * 20, "{grown} KiB for 200 sessions: {before:?} {warm:?} {after:?}");

        for (role, live) in [("publisher", 1.0), ("viewer", 0.0)] {
            let opened = server.metric("sluice_sessions_opened_total", &[("role", role)]).await;
            server.counts("sluice_sessions_ended_total", &[("role", role)], opened - live).await;
        }
        let metrics = server.metrics().await;
        for reason in ["deleted", "peer-closed", "consent-lost"] {
            assert!(metrics.sum("sluice_sessions_ended_total", &[("reason", reason)]) > 40.0, "{reason}");
        }
        let viewer = server.viewer("s").await;
        viewer_sees("media as ever", &viewer, LONG, |figures| figures.video.delivered > 100).await;
        assert!(viewer.stop().await.unwrap().is_intact());
        publisher.stop().await.unwrap();
        eventually("nobody is left", LONG, async || {
            let metrics = server.metrics().await;
            let left = ["sluice_sessions", "sluice_streams", "sluice_shard_sessions"];
            (left.iter().map(|name| metrics.sum(name, &[])).sum::<f64>() == 0.0).then_some(())
        })
        .await;
        assert_eq!(server.get("/api/v1/sessions?state=live").await, serde_json::json!([]));
    }
}

/// Posts the offer of a publisher that never makes a check.
async fn post_only(server: &Sluice, stream: &str) {
    let offer = include_str!("../../../signaling/tests/golden/chromium-publish.sdp");
    let request = server.http.post(format!("{}/whip/{stream}", server.base)).header("content-type", "application/sdp");
    assert_eq!(request.body(offer).send().await.unwrap().status(), 201);
}

async fn nobody_is_left(server: &Sluice) {
    eventually("nobody is left", LONG, async || {
        let metrics = server.metrics().await;
        (metrics.sum("sluice_sessions", &[]) + metrics.sum("sluice_shard_sessions", &[]) == 0.0).then_some(())
    })
    .await;
}

/// The least that is resident over 21 s: every 20 s the server gives what is free back to the system.
async fn lowest_resident(server: &Sluice) -> u64 {
    let (begun, mut lowest) = (Instant::now(), u64::MAX);
    while begun.elapsed() < Duration::from_secs(21) {
        lowest = lowest.min(holdings(server).resident_kib);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lowest
}

// F-11
#[tokio::test]
async fn sessions_without_media_take_some_kib_and_give_them_back() {
    // One arena: what is free of it is given back.
    let environment = [("MALLOC_ARENA_MAX", "1")];
    let server = Sluice::start_in(&environment, &["--ice-timeout", "5s", "--shards", "2"]).await;
    let resident = || holdings(&server).resident_kib;
    post_only(&server, "first").await;
    let before = resident();
    for round in 0..3 {
        let begun = resident();
        for number in 0..300 {
            post_only(&server, &format!("round-{round}-{number}")).await;
        }
        let each = resident().saturating_sub(begun) / 300;
        assert!(each < 32, "{each} KiB for a POST in round {round}");
        nobody_is_left(&server).await;
    }
    // Their records in the admin API, 1000 at most, are what stays.
    let posts = resident();
    assert!(posts < before + (16 << 10), "{posts} KiB after 900 POSTs, {before} before");

    // Connected, but silent.
    let begun = resident();
    let options = ClientOptions { send_media: false, ..ClientOptions::default() };
    let mut publishers = Vec::new();
    for number in 0..50 {
        publishers.push(
            server.publisher_with(&format!("silent-{number}"), PublisherOptions::default(), options.clone()).await,
        );
    }
    let silent = resident().saturating_sub(begun) / 50;
    for publisher in publishers {
        publisher.stop().await.unwrap();
    }
    nobody_is_left(&server).await;

    // With media, which fills caches: they go back to the system, and what stays does not grow with every round.
    let mut after = Vec::new();
    for round in 0..3 {
        let mut publishers = Vec::new();
        for number in 0..20 {
            publishers.push(server.publisher(&format!("loud-{round}-{number}")).await);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let loud = resident();
        for publisher in publishers {
            publisher.stop().await.unwrap();
        }
        nobody_is_left(&server).await;
        after.push(lowest_resident(&server).await);
        println!("before {before}, after POSTs {posts}, {silent} for a silent one, loud {loud}, after {after:?} KiB");
    }
    assert!(silent < 120, "{silent} KiB for a connected publisher without media");
    // Records of ended sessions, 1000 at most, and what OpenSSL and each thread keep of the busiest moment.
    assert!(after[2] < before + (20 << 10), "{after:?} KiB after all, {before} before");
    assert!(after[2] < after[1] + (2 << 10), "{after:?} KiB after each round");
}
