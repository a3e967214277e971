//! Floods of offers, as the real server takes them (H3, M4).

use std::time::{Duration, Instant};

use http::StatusCode;
use loadtest::client::{ClientOptions, PublisherOptions};

use crate::ledger::assert_ended;
use crate::support::{LONG, Sluice, eventually, viewer_sees};

const PUBLISH: &str = include_str!("../../../signaling/tests/golden/chromium-publish.sdp");
const WATCH: &str = include_str!("../../../signaling/tests/golden/chromium-watch.sdp");

/// Posts an offer whose client never makes a check.
async fn post(http: &reqwest::Client, url: String, offer: &'static str) -> reqwest::Response {
    http.post(url).header("content-type", "application/sdp").body(offer).send().await.unwrap()
}

// H3: 3,000 offers over one connection.
#[tokio::test]
async fn a_flood_of_viewers_offers_keeps_no_publisher_out_and_running_viewers_do_not_notice() {
    let server = Sluice::start(&["--max-sessions", "1000", "--max-half-open-per-address", "900"]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 50).await;

    let one_connection = reqwest::Client::builder().pool_max_idle_per_host(1).build().unwrap();
    let (mut taken, mut too_fast, mut no_room) = (0, 0, 0);
    for _ in 0..3_000 {
        let reply = post(&one_connection, format!("{}/whep/s", server.base), WATCH).await;
        match reply.status() {
            StatusCode::CREATED => taken += 1,
            StatusCode::TOO_MANY_REQUESTS => too_fast += 1,
            StatusCode::SERVICE_UNAVAILABLE => no_room += 1,
            status => panic!("{status}"),
        }
        // To its end, so that the connection serves the next one, too.
        reply.bytes().await.unwrap();
    }
    println!("{taken} taken, {too_fast} too fast, {no_room} without room");
    assert!(taken >= 800, "{taken}");
    // The room is full of half-open viewers: another publisher comes in all the same, and goes live. From the flood's own address
    // it may have to wait until its rate has something left.
    let second = eventually("a publisher comes in", LONG, async || {
        server.post_publisher("t", PublisherOptions::default(), ClientOptions::default()).await.ok()
    })
    .await;
    second.connected().await.unwrap();
    let joined = server.post_viewer("t", ClientOptions::default());
    // A viewer, too, once those of the flood have had their time to connect.
    let joined = match joined.await {
        Ok(viewer) => viewer,
        Err(_) => {
            eventually("a viewer finds room", LONG, async || {
                server.post_viewer("t", ClientOptions::default()).await.ok()
            })
            .await
        }
    };
    joined.connected().await.unwrap();
    viewer_sees("media of the second", &joined, LONG, |figures| figures.video.delivered > 50).await;
    let before = viewer.figures().video.delivered;
    viewer_sees("media as ever", &viewer, LONG, |figures| figures.video.delivered > before + 50).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.is_intact(), "{figures:?}");
    assert!(joined.stop().await.unwrap().is_intact());
    for publisher in [publisher, second] {
        publisher.stop().await.unwrap();
    }
    let refused = server.metric("sluice_requests_refused_total", &[]).await;
    assert!(refused >= f64::from(too_fast + no_room), "{refused}");
}

// H3
#[tokio::test]
async fn the_oldest_half_open_session_gives_place_and_says_so() {
    let server = Sluice::start(&["--max-half-open", "2"]).await;
    let publisher = server.publisher("s").await;
    let running = server.viewer("s").await;
    eventually("both run", LONG, async || {
        let states = [server.session("s", "publisher").await, server.session("s", "viewer").await];
        states.iter().all(|session| session["state"] == "media").then_some(())
    })
    .await;
    let silent = ClientOptions { send_checks: false, ..ClientOptions::default() };
    let mut joining = Vec::new();
    for _ in 0..3 {
        joining.push(server.post_viewer("s", silent.clone()).await.unwrap());
    }
    let sessions = eventually("the first of them is closed", LONG, async || {
        let sessions = server.sessions("s", "viewer").await;
        sessions.iter().any(|session| session["state"] == "closed").then_some(sessions)
    })
    .await;
    let closed: Vec<usize> = (0..4).filter(|index| sessions[*index]["state"] == "closed").collect();
    assert_eq!(closed, [1], "the oldest one that has not connected");
    let gone = &sessions[1];
    assert_eq!(gone["reason"], "evicted-half-open");
    assert_eq!(gone["stages"][1]["reason"], "evicted-half-open", "{gone:#}");
    assert_ended(&server, gone["id"].as_str().unwrap(), "viewer", "evicted-half-open").await;
    viewer_sees("media as ever", &running, LONG, |figures| figures.video.delivered > 50).await;
    let limits = server.get("/api/v1/limits").await;
    let of = |limit: &str| {
        limits["limits"].as_array().unwrap().iter().find(|usage| usage["limit"] == limit).unwrap().clone()
    };
    assert_eq!((of("half-open")["used"].as_u64(), of("half-open")["max"].as_u64()), (Some(2), Some(2)));
    assert_eq!(of("sessions")["used"], 4);
    assert!(running.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}

// H3: the time that a refusal names is true.
#[tokio::test]
async fn who_comes_back_when_told_is_let_in() {
    let server = Sluice::start(&["--post-rate-per-address", "2"]).await;
    let begun = Instant::now();
    let mut passed = 0;
    let reply = loop {
        let reply = post(&server.http, format!("{}/whip/s{passed}", server.base), PUBLISH).await;
        if reply.status() != StatusCode::CREATED {
            break reply;
        }
        passed += 1;
        assert!(begun.elapsed() < LONG, "{passed} passed");
    };
    assert_eq!(reply.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(passed >= 40, "{passed}");
    let seconds: u64 = reply.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, 1);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let reply = post(&server.http, format!("{}/whip/again", server.base), PUBLISH).await;
    assert_eq!(reply.status(), StatusCode::CREATED);
}

// M4
#[tokio::test]
async fn a_thousand_names_without_a_packet_take_little_and_are_forgotten() {
    // One arena, so that what is resident is what is in use.
    let environment = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536")];
    let server = Sluice::start_in(&environment, &["--ice-timeout", "5s", "--shards", "2"]).await;
    let resident = || server.process().status().unwrap().vmrss.unwrap();
    let kept = async || server.get("/api/v1/limits").await["known_streams"].as_u64().unwrap();
    for name in 0..20 {
        assert_eq!(post(&server.http, format!("{}/whip/warm{name}", server.base), PUBLISH).await.status(), 201);
    }
    let before = resident();
    let mut opened = 0;
    for name in 0..1_000 {
        let reply = post(&server.http, format!("{}/whip/name{name}", server.base), PUBLISH).await;
        opened += u64::from(reply.status() == StatusCode::CREATED);
    }
    let grown = resident().saturating_sub(before);
    println!("{opened} names took {grown} KiB");
    assert!(opened >= 980, "{opened}");
    // Offers, answers and ledgers of sessions that live for 5 s; no caches, no OpenSSL.
    assert!(grown < 24 * 1_024, "{grown} KiB for {opened} names");
    // An address has 1000 streams at most: on a quick machine it comes in when the first names have had their time.
    let publisher = eventually("a publisher comes in", LONG, async || {
        server.post_publisher("real", PublisherOptions::default(), ClientOptions::default()).await.ok()
    })
    .await;
    publisher.connected().await.unwrap();
    eventually("its media", LONG, async || {
        (server.session("real", "publisher").await["state"] == "media").then_some(())
    })
    .await;
    publisher.stop().await.unwrap();
    eventually("names without a connected publisher are forgotten", Duration::from_secs(120), async || {
        (kept().await == 1).then_some(())
    })
    .await;
    let left = resident().saturating_sub(before);
    println!("{left} KiB are left");
    // The records of 1,000 ended sessions in the admin API.
    assert!(left < 16 * 1_024, "{left} KiB are left");
}
