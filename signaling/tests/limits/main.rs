//! Limits on how many sessions there are and how fast requests come: who is refused, who gives place, who notices nothing.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use media_core::ledger::{Reason, Stage, StageChange, StageEvent};
use media_core::stats::SessionStats;
use media_core::{CoreEvent, SessionId};
use signaling::{Limits, SignalingConfig, Tokens};
use support::{App, Reply, golden, now};

const SDP: (&str, &str) = ("content-type", "application/sdp");
const ALICE: &str = "192.0.2.1";
const BOB: &str = "192.0.2.2";

fn limited(limits: Limits) -> App {
    App::new(SignalingConfig { limits, ..SignalingConfig::default() })
}

async fn publish(app: &App, client: &str, stream: &str) -> Reply {
    app.send_from(client, "POST", &format!("/whip/{stream}"), &[SDP], golden("obs")).await
}

async fn watch(app: &App, client: &str) -> Reply {
    app.send_from(client, "POST", "/whep/s", &[SDP], golden("chromium-watch")).await
}

fn stage(app: &App, session: SessionId, stage: Stage, change: StageChange) {
    let event = StageEvent { at: now(), stage, change, detail: String::new() };
    app.signaling.registry().apply(now(), CoreEvent::Stage { session, event });
}

/// The session that was opened last connects.
fn secure_last(app: &App) -> SessionId {
    let id = app.core.last().id;
    stage(app, id, Stage::Ice, StageChange::Done);
    stage(app, id, Stage::Fingerprint, StageChange::Done);
    stage(app, id, Stage::Srtp, StageChange::Begin);
    id
}

/// The core closes what it was told to close.
fn end_closed(app: &App) {
    let closed = std::mem::take(&mut app.core.recorded().closed);
    for (_, session, reason) in closed {
        app.signaling.registry().apply(now(), CoreEvent::Ended { session, reason, stats: SessionStats::default() });
    }
}

fn refused(reply: &Reply, status: u16, code: &str) -> u64 {
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{}", reply.body);
    reply.header("retry-after").parse().unwrap()
}

// H3, ERR-06, WHIP-30
#[tokio::test(start_paused = true)]
async fn who_posts_too_fast_is_told_truly_when_to_come_back() {
    let app = limited(Limits { post_rate_per_address: 1, ..Limits::default() });
    assert_eq!(publish(&app, BOB, "s").await.status, 201);
    for _ in 0..20 {
        assert_eq!(watch(&app, ALICE).await.status, 201);
    }
    for wait in [Duration::ZERO, Duration::from_millis(400)] {
        tokio::time::advance(wait).await;
        let seconds = refused(&watch(&app, ALICE).await, 429, "too-many-requests");
        assert_eq!(seconds, 1);
    }
    assert_eq!(watch(&app, BOB).await.status, 201, "another address notices nothing");
    for _ in 0..5 {
        let seconds = refused(&watch(&app, ALICE).await, 429, "too-many-requests");
        tokio::time::advance(Duration::from_secs(seconds)).await;
        assert_eq!(watch(&app, ALICE).await.status, 201);
    }
    // With a rate that takes seconds for one, too.
    let app = limited(Limits { join_rate: 1, ..Limits::default() });
    for stream in ["s", "t", "u", "v"] {
        assert_eq!(publish(&app, ALICE, stream).await.status, 201);
    }
    let seconds = refused(&publish(&app, BOB, "w").await, 429, "too-many-requests");
    tokio::time::advance(Duration::from_secs(seconds)).await;
    assert_eq!(publish(&app, BOB, "w").await.status, 201);
}

// H3, ERR-04: after route, method and token, and before the body is looked at.
#[tokio::test(start_paused = true)]
async fn the_rate_stands_behind_the_token_and_in_front_of_the_body() {
    let mut tokens = Tokens::default();
    tokens.add("s", "secret").unwrap();
    let limits = Limits { post_rate_per_address: 1, ..Limits::default() };
    let app = App::new(SignalingConfig { tokens, limits, ..SignalingConfig::default() });
    let own = ("authorization", "Bearer secret");
    for _ in 0..20 {
        // Refused for its type, it counts all the same.
        assert_eq!(app.send("POST", "/whip/s", &[own], "x").await.code(), "unsupported-media-type");
    }
    for (method, path, headers, code) in [
        ("POST", "/whip/a%20b", &[own][..], "not-found"),
        ("POST", "/whep/t", &[], "not-found"),
        ("PUT", "/whip/s", &[own], "method-not-allowed"),
        ("POST", "/whip/s", &[], "unauthorized"),
        ("POST", "/whip/s", &[own], "too-many-requests"),
    ] {
        assert_eq!(app.send(method, path, headers, "x").await.code(), code, "{method} {path}");
    }
}

// H3
#[tokio::test]
async fn a_flood_of_one_address_crowds_out_itself_alone() {
    let app = limited(Limits { max_half_open_per_address: 10, ..Limits::default() });
    publish(&app, BOB, "s").await;
    let publisher = secure_last(&app);
    watch(&app, BOB).await;
    let joining = app.core.last().id;
    watch(&app, ALICE).await;
    let running = secure_last(&app);
    let mut opened = Vec::new();
    for _ in 0..100 {
        assert_eq!(watch(&app, ALICE).await.status, 201);
        opened.push(app.core.last().id);
    }
    let closed: Vec<_> = app.core.recorded().closed.iter().map(|(_, id, reason)| (*id, *reason)).collect();
    assert_eq!(closed, opened[..90].iter().map(|id| (*id, Reason::EvictedHalfOpen)).collect::<Vec<_>>());
    assert!(![publisher, joining, running].iter().any(|id| closed.iter().any(|(gone, _)| gone == id)));
    let counts = app.signaling.registry().counts();
    assert_eq!((counts.publishers, counts.viewers), (1, 12));

    // The ledger of those who went says why.
    stage(&app, opened[0], Stage::Ice, StageChange::Begin);
    end_closed(&app);
    let view = serde_json::to_value(app.signaling.registry().session(opened[0]).unwrap()).unwrap();
    assert_eq!((view["reason"].as_str(), view["state"].as_str()), (Some("evicted-half-open"), Some("closed")));
    let ice = &view["stages"][1];
    assert_eq!((ice["state"].as_str(), ice["reason"].as_str()), (Some("failed"), Some("evicted-half-open")));
    assert!(ice["detail"].as_str().unwrap().contains("half-open-per-address"), "{ice}");
}

// H3
#[tokio::test]
async fn viewers_without_token_leave_room_for_publishers() {
    let app = limited(Limits { max_sessions: 20, max_half_open: 0, ..Limits::default() });
    publish(&app, BOB, "s").await;
    for _ in 0..17 {
        assert_eq!(watch(&app, ALICE).await.status, 201);
    }
    assert_eq!(refused(&watch(&app, ALICE).await, 503, "overloaded"), 5);
    for stream in ["t", "u"] {
        assert_eq!(publish(&app, BOB, stream).await.status, 201);
    }
    assert_eq!(refused(&publish(&app, BOB, "v").await, 503, "overloaded"), 5);
}

// H3, WHIP-30: one client posts 3,000 offers and shuts out nobody, with all limits as they are.
#[tokio::test(start_paused = true)]
async fn three_thousand_offers_of_one_client_shut_nobody_out() {
    let app = App::new(SignalingConfig::default());
    publish(&app, BOB, "s").await;
    secure_last(&app);
    let mut too_fast = 0;
    for _ in 0..3_000 {
        let reply = watch(&app, ALICE).await;
        match reply.status.as_u16() {
            201 => {}
            _ => too_fast += u64::from(refused(&reply, 429, "too-many-requests") == 1),
        }
    }
    assert_eq!(too_fast, 1_000, "a burst of 2,000 is allowed, of one address and of all together");
    assert_eq!(publish(&app, BOB, "t").await.status, 201);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(watch(&app, BOB).await.status, 201);
    assert!(app.signaling.registry().counts().viewers <= 1_001);
}

// H3: the limits are no hindrance where many honest clients share an address.
#[tokio::test(start_paused = true)]
async fn a_thousand_viewers_behind_one_nat_may_join_at_once() {
    let app = App::new(SignalingConfig::default());
    publish(&app, BOB, "s").await;
    secure_last(&app);
    for viewer in 0..1_000 {
        assert_eq!(watch(&app, ALICE).await.status, 201, "{viewer}");
        secure_last(&app);
    }
    assert!(app.core.recorded().closed.is_empty());
}

// H3
#[tokio::test]
async fn a_full_address_is_told_so_and_others_come_in() {
    let app = limited(Limits { max_sessions_per_address: 2, max_viewers_per_stream: 3, ..Limits::default() });
    publish(&app, BOB, "s").await;
    for _ in 0..2 {
        assert_eq!(watch(&app, ALICE).await.status, 201);
        secure_last(&app);
    }
    let reply = watch(&app, ALICE).await;
    assert_eq!(refused(&reply, 429, "too-many-sessions"), 5);
    assert!(reply.body.contains("sessions-per-address"), "{}", reply.body);
    assert_eq!(watch(&app, BOB).await.status, 201);
    let reply = watch(&app, "192.0.2.3").await;
    assert_eq!(refused(&reply, 503, "overloaded"), 5);
    assert!(reply.body.contains("viewer of this stream"), "{}", reply.body);
    let usage = app.signaling.usage();
    let of = |limit| usage.iter().find(|usage| usage.limit == limit).map(|usage| (usage.used, usage.max));
    assert_eq!(of("viewers-per-stream"), Some((3, Some(3))));
    assert_eq!(of("sessions-per-address"), Some((2, Some(2))));
    assert_eq!(of("streams"), Some((1, Some(5_000))));
}

// H3: one that takes its own stream over needs no further room.
#[tokio::test]
async fn a_publisher_comes_back_to_its_stream_where_all_streams_are_taken() {
    let limits =
        Limits { max_streams: 1, max_streams_per_address: 1, max_half_open_per_address: 1, ..Limits::default() };
    let app = limited(limits);
    assert_eq!(publish(&app, ALICE, "s").await.status, 201);
    assert_eq!(publish(&app, ALICE, "s").await.status, 201);
    assert_eq!(app.signaling.registry().counts().publishers, 1);
    assert_eq!(refused(&publish(&app, BOB, "t").await, 503, "overloaded"), 5);
    secure_last(&app);
    assert_eq!(publish(&app, ALICE, "s").await.code(), "publish-conflict");
    assert_eq!(app.signaling.registry().counts().publishers, 1, "the one that was refused left nothing");
}

// H3, TRK-17, WHIP-04
#[tokio::test(start_paused = true)]
async fn patch_and_delete_have_their_rates() {
    let app = limited(Limits { request_rate_per_session: 1, request_rate_per_address: 2, ..Limits::default() });
    let reply = publish(&app, ALICE, "s").await;
    let (session, etag) = (reply.header("location").to_owned(), reply.header("etag").to_owned());
    let headers = [("content-type", "application/trickle-ice-sdpfrag"), ("if-match", etag.as_str())];
    let candidate = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";
    for _ in 0..20 {
        assert_eq!(app.send_from(ALICE, "PATCH", &session, &headers, candidate).await.status, 204);
    }
    let seconds =
        refused(&app.send_from(ALICE, "PATCH", &session, &headers, candidate).await, 429, "too-many-requests");
    assert_eq!(refused(&app.send_from(BOB, "DELETE", &session, &[], "").await, 429, "too-many-requests"), seconds);
    tokio::time::advance(Duration::from_secs(seconds)).await;
    assert_eq!(app.send_from(ALICE, "DELETE", &session, &[], "").await.status, 200);

    // Of one address, over many sessions.
    let mut passed = 0;
    for stream in 0..50 {
        let reply = publish(&app, ALICE, &format!("t{stream}")).await;
        let reply = app.send_from(ALICE, "DELETE", reply.header("location"), &[], "").await;
        passed += usize::from(reply.status == 200);
    }
    assert!((18..=22).contains(&passed), "{passed}: 40, less the 21 for the first session");
}

// H3
#[tokio::test]
async fn new_limits_count_from_the_next_request_on() {
    let app = limited(Limits::default());
    publish(&app, BOB, "s").await;
    for _ in 0..3 {
        assert_eq!(watch(&app, ALICE).await.status, 201);
        secure_last(&app);
    }
    let limits = Limits { max_sessions_per_address: 2, ..Limits::default() };
    app.signaling.reconfigure(SignalingConfig { limits, ..SignalingConfig::default() });
    refused(&watch(&app, ALICE).await, 429, "too-many-sessions");
    assert!(app.core.recorded().closed.is_empty());
}

// M4
#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_connected_to_is_forgotten() {
    let app = limited(Limits::NONE);
    let known = || app.signaling.registry().known_streams();
    let driver = tokio::spawn({
        let registry = std::sync::Arc::clone(app.signaling.registry());
        let (events, inbox) = tokio::sync::mpsc::unbounded_channel();
        async move {
            let _open = events;
            registry.run(inbox).await;
        }
    });
    publish(&app, ALICE, "connected").await;
    let connected = secure_last(&app);
    let number = app.core.last().stream;
    for stream in 0..100 {
        publish(&app, ALICE, &format!("n{stream}")).await;
    }
    assert_eq!(known(), 101);
    let ids: Vec<_> = app.core.recorded().opened.iter().map(|(_, spec)| spec.id).collect();
    for id in ids {
        app.signaling.close(id, Reason::NoValidCheck);
    }
    end_closed(&app);
    assert_eq!(watch(&app, ALICE).await.status, 404);
    let reply = app.post("/whep/n7", &golden("chromium-watch")).await;
    assert_eq!(reply.code(), "stream-not-live", "for a short while");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(known(), 1);
    assert_eq!(app.post("/whep/n7", &golden("chromium-watch")).await.code(), "not-found");
    publish(&app, ALICE, "connected").await;
    assert_eq!(app.core.last().stream, number, "a stream that had media keeps its number");
    assert_ne!(app.core.last().id, connected);
    driver.abort();
}

// M4
#[tokio::test]
async fn a_refused_offer_leaves_no_name() {
    let app = limited(Limits { max_streams: 1, ..Limits::default() });
    publish(&app, ALICE, "s").await;
    for stream in 0..50 {
        refused(&publish(&app, ALICE, &format!("n{stream}")).await, 503, "overloaded");
    }
    assert_eq!(app.signaling.registry().known_streams(), 1);
}
