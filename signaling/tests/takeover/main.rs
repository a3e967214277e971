//! A publisher that comes again while its earlier session still holds the stream (F-10).

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use media_core::ledger::{Reason, Stage, StageChange, StageEvent};
use media_core::{CoreEvent, PUBLISHER_SILENCE, SessionId};
use signaling::{PublishTakeover, SignalingConfig, Tokens};
use support::{App, Reply, golden, now};

/// The answer to a publisher with this token.
async fn post(app: &App, token: &str) -> Reply {
    let authorization = format!("Bearer {token}");
    let headers = [("content-type", "application/sdp"), ("authorization", authorization.as_str())];
    app.send("POST", "/whip/cam", &headers, golden("obs")).await
}

/// A server with two tokens for `cam`, whose first publisher is connected.
async fn connected(publish_takeover: PublishTakeover) -> (App, SessionId) {
    let mut tokens = Tokens::default();
    tokens.add("cam", "mine").unwrap();
    tokens.add("cam", "other").unwrap();
    let app = App::new(SignalingConfig { tokens, publish_takeover, ..SignalingConfig::default() });
    assert_eq!(post(&app, "mine").await.status, 201);
    let id = app.core.last().id;
    let event = StageEvent { at: now(), stage: Stage::Ice, change: StageChange::Done, detail: String::new() };
    app.signaling.registry().apply(now(), CoreEvent::Stage { session: id, event });
    (app, id)
}

/// The core noticed that nothing comes from a publisher any more, or that it is heard again.
fn silence(app: &App, session: SessionId, silent: bool) {
    let since = silent.then(|| now() - PUBLISHER_SILENCE);
    app.signaling.registry().apply(now(), CoreEvent::PublisherSilence { session, since });
}

fn retry_after(reply: &Reply) -> u64 {
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (409, "publish-conflict"), "{}", reply.body);
    reply.header("retry-after").parse().unwrap()
}

// F-10, WHIP-31
#[tokio::test]
async fn a_silent_publisher_gives_way_to_its_own_next_session_at_once() {
    let (app, first) = connected(PublishTakeover::Silent).await;
    let refused = post(&app, "mine").await;
    assert_eq!(retry_after(&refused), 3, "what the core takes to notice silence");
    assert!(refused.body.contains("an earlier session of the same identity"), "{}", refused.body);
    silence(&app, first, true);
    assert_eq!(post(&app, "mine").await.status, 201);
    assert_eq!(
        app.core.recorded().closed.last().map(|(_, id, reason)| (*id, *reason)),
        Some((first, Reason::Replaced))
    );
    assert_eq!(app.signaling.registry().counts().publishers, 1);
    assert_eq!(app.stream("cam").unwrap().publisher, Some(app.core.last().id));
}

// F-10
#[tokio::test]
async fn one_that_is_heard_again_keeps_the_stream() {
    let (app, first) = connected(PublishTakeover::Silent).await;
    silence(&app, first, true);
    silence(&app, first, false);
    assert_eq!(retry_after(&post(&app, "mine").await), 3);
    assert!(app.core.recorded().closed.is_empty());
}

// F-10, WHIP-32
#[tokio::test(start_paused = true)]
async fn another_identity_waits_for_the_end_and_is_told_how_long() {
    let (app, first) = connected(PublishTakeover::Silent).await;
    assert_eq!(retry_after(&post(&app, "other").await), 31, "the liveness time, and what it takes to notice");
    silence(&app, first, true);
    let refused = post(&app, "other").await;
    assert_eq!(retry_after(&refused), 28, "2.5 s of it are over");
    assert!(refused.body.contains("another publisher"), "{}", refused.body);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(retry_after(&post(&app, "other").await), 18);
    assert!(app.core.recorded().closed.is_empty());

    // One that has not connected ends with the time for that.
    app.signaling.close(first, Reason::Deleted);
    assert_eq!(post(&app, "mine").await.status, 201);
    tokio::time::advance(Duration::from_secs(15)).await;
    assert_eq!(retry_after(&post(&app, "other").await), 26);
}

// F-10
#[tokio::test]
async fn the_policy_may_be_never_or_always() {
    let (app, first) = connected(PublishTakeover::Never).await;
    silence(&app, first, true);
    assert_eq!(retry_after(&post(&app, "mine").await), 28);
    let (app, first) = connected(PublishTakeover::Always).await;
    assert_eq!(retry_after(&post(&app, "other").await), 31);
    assert_eq!(post(&app, "mine").await.status, 201);
    assert_eq!(app.core.recorded().closed.last().map(|(_, id, _)| *id), Some(first));
}

// F-10: without tokens everybody may publish everything, and nothing tells publishers apart.
#[tokio::test]
async fn without_tokens_a_silent_publisher_gives_way_to_anybody() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("obs")).await;
    let first = app.core.last().id;
    let event = StageEvent { at: now(), stage: Stage::Ice, change: StageChange::Done, detail: String::new() };
    app.signaling.registry().apply(now(), CoreEvent::Stage { session: first, event });
    assert_eq!(retry_after(&app.post("/whip/s", &golden("obs")).await), 3);
    silence(&app, first, true);
    assert_eq!(app.post("/whip/s", &golden("obs")).await.status, 201);
}
