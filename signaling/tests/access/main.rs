//! Who may: the sources of rights over the routers, and what becomes of sessions when rights end.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/jwt.rs"]
mod jwt;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use jwt::{SigningKey, unix_now};
use media_core::SessionLimits;
use media_core::ledger::Reason;
use serde_json::{Value, json};
use signaling::{ClientAddress, JwtConfig, KeySet, SignalingConfig, Tokens};
use support::{App, Reply, golden};
use tower::ServiceExt;

fn tokens(lines: &[&str]) -> Tokens {
    let mut tokens = Tokens::default();
    lines.iter().for_each(|line| tokens.push(line.parse().unwrap()));
    tokens
}

/// A server with these tokens, whose viewers need one, too.
fn guarded(lines: &[&str]) -> SignalingConfig {
    SignalingConfig { tokens: tokens(lines), protect_viewers: true, ..SignalingConfig::default() }
}

/// A request with a token, from an address.
async fn send_from(app: &App, address: &str, method: &str, path: &str, token: &str, body: String) -> Reply {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/sdp")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body))
        .unwrap();
    request.extensions_mut().insert(ClientAddress(address.parse().unwrap()));
    let response = app.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn publish(app: &App, stream: &str, token: &str) -> Reply {
    send_from(app, "192.0.2.1", "POST", &format!("/whip/{stream}"), token, golden("obs")).await
}

async fn watch(app: &App, stream: &str, token: &str) -> Reply {
    send_from(app, "192.0.2.1", "POST", &format!("/whep/{stream}"), token, golden("chromium-watch")).await
}

/// The sessions that the media plane was told to end, with the reasons.
fn closed(app: &App) -> Vec<Reason> {
    app.core.recorded().closed.iter().map(|(_, _, reason)| *reason).collect()
}

// AUTH-01
#[tokio::test]
async fn rights_to_publish_and_to_watch_are_apart_on_the_endpoints() {
    let app = App::new(guarded(&["publish:show=pub", "watch:show=view", "watch:live-*=many", "all@*=both"]));
    assert_eq!(publish(&app, "show", "view").await.code(), "forbidden");
    assert_eq!(publish(&app, "show", "pub").await.status, 201);
    assert_eq!(watch(&app, "show", "pub").await.code(), "forbidden");
    assert_eq!(watch(&app, "show", "view").await.status, 201);
    assert_eq!(publish(&app, "live-1", "both").await.status, 201);
    assert_eq!(watch(&app, "live-1", "view").await.code(), "forbidden");
    assert_eq!(watch(&app, "live-1", "many").await.status, 201);
}

// AUTH-03
#[tokio::test]
async fn a_session_is_its_holders_whichever_of_its_tokens_is_shown() {
    let app = App::new(guarded(&["studio@show=old", "studio@show=new", "guest@show=guest", "watch:show=view"]));
    for (token, status) in [("old", 200), ("new", 200), ("guest", 403), ("view", 403), ("wrong", 401)] {
        let session = publish(&app, "show", "old").await.header("location").to_owned();
        assert_ne!(session, "");
        let view = app.signaling.registry().sessions().pop().unwrap();
        assert_eq!(view.identity.as_deref(), Some("token:studio"));
        let reply = send_from(&app, "192.0.2.1", "PATCH", &session, token, String::new()).await;
        let passed = reply.status.as_u16() == 415;
        assert_eq!(passed, status == 200, "{token}: {}", reply.body);
        let reply = send_from(&app, "192.0.2.1", "DELETE", &session, token, String::new()).await;
        assert_eq!(reply.status, status, "{token}");
        // The URL alone is enough.
        assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn guesses_are_slowed_down_and_nobody_else_is() {
    let app = App::new(guarded(&["show=good-one", "show=good-two"]));
    let post =
        async |address: &str, token: &str| send_from(&app, address, "POST", "/whip/show", token, String::new()).await;
    // A good one passes to the check of the body, which is empty.
    let is_good = |reply: &Reply| reply.code() == "empty-body";
    assert!(is_good(&post("192.0.2.1", "good-one").await));
    for n in 0..30 {
        assert_eq!(post("192.0.2.1", &format!("guess-{n}")).await.status, 401, "{n}");
    }
    let refused = post("192.0.2.1", "guess-30").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "too-many-failures"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    // No oracle: a good token that was never shown from there is refused like a bad one.
    let unproven = post("192.0.2.1", "good-two").await;
    assert_eq!((unproven.status, unproven.body), (refused.status, refused.body.clone()));
    assert!(is_good(&post("192.0.2.1", "good-one").await), "whoever was there before goes on");
    assert!(is_good(&post("192.0.2.2", "good-two").await), "others are not concerned");
    // A customer of IPv6 has 2^64 addresses.
    for n in 0..40 {
        post(&format!("2001:db8::{n:x}"), &format!("guess-{n}")).await;
    }
    assert_eq!(post("2001:db8::ffff", "guess").await.status, 429);
    assert!(is_good(&post("2001:db8:0:1::1", "good-one").await));
    tokio::time::advance(Duration::from_secs(wait)).await;
    assert!(is_good(&post("192.0.2.1", "good-two").await), "Retry-After is true");
}

#[tokio::test]
async fn an_encoder_that_retries_with_an_old_token_locks_nobody_out() {
    let app = App::new(guarded(&["show=good"]));
    for _ in 0..200 {
        assert_eq!(publish(&app, "show", "revoked-last-week").await.status, 401);
    }
    assert_eq!(publish(&app, "show", "good").await.status, 201);
}

// AUTH-01: rights that the new settings do not give, where that is asked for
#[tokio::test]
async fn a_reload_ends_the_sessions_of_removed_tokens_only_where_asked() {
    for end_revoked in [false, true] {
        let before = SignalingConfig { end_revoked, ..guarded(&["a=stays", "b=goes", "watch:a=viewer"]) };
        let app = App::new(before);
        assert_eq!(publish(&app, "a", "stays").await.status, 201);
        assert_eq!(publish(&app, "b", "goes").await.status, 201);
        assert_eq!(watch(&app, "a", "viewer").await.status, 201);
        // `viewer` may still publish another stream, and `stays` stands as its digest.
        let digest = signaling::hashed_line("a", "stays").unwrap();
        let after = SignalingConfig { end_revoked, ..guarded(&[&digest, "publish:c=viewer"]) };
        app.signaling.reconfigure(after);
        let expected = if end_revoked { vec![Reason::AccessRevoked; 2] } else { Vec::new() };
        assert_eq!(closed(&app), expected);
        assert_eq!(app.signaling.registry().counts().publishers, if end_revoked { 1 } else { 2 });
        assert_eq!(publish(&app, "b", "goes").await.status, 401, "no new session either way");
        assert_eq!(publish(&app, "c", "viewer").await.status, 201);
    }
}

#[tokio::test]
async fn the_sessions_of_a_holder_end_at_once() {
    let app = App::new(guarded(&["studio@*=one", "studio@*=two", "guest@*=three"]));
    for (stream, token) in [("a", "one"), ("b", "two"), ("c", "three")] {
        assert_eq!(publish(&app, stream, token).await.status, 201);
    }
    assert_eq!(app.signaling.end_sessions_of("token:nobody"), 0);
    assert_eq!(app.signaling.end_sessions_of("token:studio"), 2);
    assert_eq!(app.signaling.end_sessions_of("token:studio"), 0);
    assert_eq!(closed(&app), [Reason::AccessRevoked; 2]);
    assert_eq!(app.signaling.registry().counts().publishers, 1);
}

/// A server that takes JWTs of this key.
fn with_jwt(key: &SigningKey) -> SignalingConfig {
    let keys = KeySet::from_file(key.pem().as_bytes()).unwrap();
    let jwt = JwtConfig { keys, require_exp: true, ..JwtConfig::default() };
    SignalingConfig { jwt: Some(jwt), protect_viewers: true, ..SignalingConfig::default() }
}

fn claims(subject: &str, changes: &[(&str, Value)]) -> Value {
    let mut claims =
        json!({"sub": subject, "exp": unix_now() + 3600, "streams": ["*"], "action": ["publish", "watch"]});
    changes.iter().for_each(|(name, value)| claims[*name] = value.clone());
    claims
}

// AUTH-05
#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_token_unless_expiry_is_enforced() {
    let key = SigningKey::es256();
    for enforce_expiry in [false, true] {
        let app = App::new(SignalingConfig { enforce_expiry, ..with_jwt(&key) });
        let short = key.token(None, &claims("alice", &[("exp", json!(unix_now() + 60))]));
        let long = key.token(None, &claims("bob", &[]));
        let session = publish(&app, "a", &short).await.header("location").to_owned();
        assert_ne!(session, "");
        assert_eq!(publish(&app, "b", &long).await.status, 201);
        let following = tokio::spawn(Arc::clone(&app.signaling).follow_access());
        tokio::time::sleep(Duration::from_secs(85)).await;
        assert_eq!(closed(&app), [], "the leeway belongs to the token");
        tokio::time::sleep(Duration::from_secs(10)).await;
        following.abort();
        let expected = if enforce_expiry { vec![Reason::AccessExpired] } else { Vec::new() };
        assert_eq!(closed(&app), expected);
        // The token that opened the session still ends it.
        let reply = send_from(&app, "192.0.2.1", "DELETE", &session, &short, String::new()).await;
        assert_eq!(reply.status, 200);
    }
}

// AUTH-01, AUTH-04
#[tokio::test]
async fn sources_are_asked_in_order_and_the_first_that_knows_a_token_decides() {
    let key = SigningKey::eddsa();
    let app = App::new(SignalingConfig { tokens: tokens(&["show=static"]), ..with_jwt(&key) });
    assert_eq!(publish(&app, "show", "static").await.status, 201);
    assert_eq!(publish(&app, "other", "static").await.code(), "forbidden");
    assert_eq!(publish(&app, "other", &key.token(None, &claims("alice", &[]))).await.status, 201);
    let expired = publish(&app, "x", &key.token(None, &claims("alice", &[("exp", json!(unix_now() - 100))]))).await;
    assert_eq!((expired.status.as_u16(), expired.code().as_str()), (401, "unauthorized"));
    assert!(
        expired.body.contains("expired") && expired.header("www-authenticate").ends_with("error=\"invalid_token\"")
    );
    let foreign = publish(&app, "x", &SigningKey::eddsa().token(None, &claims("alice", &[]))).await;
    assert!(foreign.status == 401 && foreign.body.contains("the token is not known"), "{}", foreign.body);
    // ERR-04: before the media type.
    let authorization = format!("Bearer {}", SigningKey::eddsa().token(None, &claims("alice", &[])));
    let reply = app.send("POST", "/whip/x", &[("authorization", &authorization)], "x".repeat(70_000)).await;
    assert_eq!(reply.code(), "unauthorized");
}

// AUTH-03
#[tokio::test]
async fn a_session_is_its_subjects_and_of_nobody_else() {
    let key = SigningKey::es256();
    let app = App::new(with_jwt(&key));
    let (alice, again, bob) = (
        key.token(None, &claims("alice", &[])),
        key.token(None, &claims("alice", &[("exp", json!(unix_now() + 7200))])),
        key.token(None, &claims("bob", &[])),
    );
    let session = publish(&app, "show", &alice).await.header("location").to_owned();
    assert_eq!(app.signaling.registry().sessions()[0].identity.as_deref(), Some("jwt:alice"));
    let delete = async |token: &str| send_from(&app, "192.0.2.1", "DELETE", &session, token, String::new()).await;
    assert_eq!(delete(&bob).await.status, 403);
    assert_eq!(delete(&again).await.status, 200);
}

#[tokio::test]
async fn a_holder_has_as_many_sessions_as_its_token_allows() {
    let key = SigningKey::es256();
    let app = App::new(with_jwt(&key));
    let limited = key.token(None, &claims("alice", &[("max_sessions", json!(2))]));
    let first = publish(&app, "a", &limited).await;
    assert_eq!(publish(&app, "b", &limited).await.status, 201);
    let refused = publish(&app, "c", &limited).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "too-many-sessions"));
    assert_ne!(refused.header("retry-after"), "");
    // Its own session gives way, as one that never connected does.
    assert_eq!(publish(&app, "b", &limited).await.status, 201);
    assert_eq!(publish(&app, "c", &key.token(None, &claims("bob", &[]))).await.status, 201, "another holder");
    assert_eq!(app.send("DELETE", first.header("location"), &[], "").await.status, 200);
    assert_eq!(publish(&app, "d", &limited).await.status, 201);
}

// AUTH-01
#[tokio::test]
async fn a_publisher_may_send_what_its_token_and_the_settings_allow() {
    let key = SigningKey::es256();
    for (own, of_all, expected) in [
        (Some(2_000_000), None, Some(2_000_000)),
        (Some(2_000_000), Some(1_000_000), Some(1_000_000)),
        (Some(2_000_000), Some(3_000_000), Some(2_000_000)),
        (None, Some(3_000_000), Some(3_000_000)),
        (None, None, None),
    ] {
        let publisher_limits = SessionLimits { bits_per_second: of_all, packets_per_second: None };
        let app = App::new(SignalingConfig { publisher_limits, ..with_jwt(&key) });
        let changes: Vec<_> = own.map(|bits: u64| ("max_bitrate", json!(bits))).into_iter().collect();
        let token = key.token(None, &claims("alice", &changes));
        assert_eq!(publish(&app, "a", &token).await.status, 201);
        assert_eq!(app.core.last().limits.bits_per_second, expected, "{own:?} {of_all:?}");
        // It is about what comes in.
        assert_eq!(watch(&app, "a", &token).await.status, 201);
        assert_eq!(app.core.last().limits, app.signaling.config().viewer_limits);
    }
}

// A key that the operator took out of the file was taken back; one that a URL does not serve any more has retired.
#[tokio::test]
async fn sessions_of_a_removed_key_end_where_asked() {
    let (old, new) = (SigningKey::es256(), SigningKey::es256());
    let app = App::new(SignalingConfig { end_revoked: true, ..with_jwt(&old) });
    assert_eq!(publish(&app, "a", &old.token(None, &claims("alice", &[]))).await.status, 201);
    let keys = KeySet::from_file(format!("{}{}", old.pem(), new.pem()).as_bytes()).unwrap();
    let both = JwtConfig { keys, require_exp: true, ..JwtConfig::default() };
    app.signaling.reconfigure(SignalingConfig { jwt: Some(both), ..with_jwt(&old) });
    app.signaling.reconfigure(SignalingConfig { end_revoked: true, ..with_jwt(&old) });
    assert_eq!(closed(&app), []);
    app.signaling.reconfigure(SignalingConfig { end_revoked: true, ..with_jwt(&new) });
    assert_eq!(closed(&app), [Reason::AccessRevoked]);
}

// AUTH-02
#[tokio::test]
async fn a_token_in_the_url_is_read_where_that_is_allowed() {
    let line = "cam=a+b/c==";
    let query = "access_token=a%2Bb%2Fc%3D%3D";
    let app = App::new(guarded(&[line]));
    assert_eq!(app.post(&format!("/whip/cam?{query}"), &golden("obs")).await.status, 401);
    let app = App::new(SignalingConfig { url_tokens: true, ..guarded(&[line]) });
    let reply = app.post(&format!("/whip/cam?{query}"), &golden("obs")).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let session = reply.header("location").to_owned();
    assert!(!session.contains('?'), "the URL of a session needs no query");
    assert_eq!(app.post(&format!("/whep/cam?token={}", &query[13..]), &golden("chromium-watch")).await.status, 201);
    let wrong = app.post("/whep/cam?token=guess", &golden("chromium-watch")).await;
    assert_eq!((wrong.status.as_u16(), wrong.code().as_str()), (401, "unauthorized"));
    assert!(!wrong.body.contains("guess"), "{}", wrong.body);
    let foreign = app.send("DELETE", &format!("{session}?token=guess"), &[], "").await;
    assert_eq!(foreign.status, 401, "what is shown must be the holder's");
    assert_eq!(app.send("DELETE", &format!("{session}?{query}"), &[], "").await.status, 200);
}

// AUTH-03
#[tokio::test]
async fn where_the_url_does_not_suffice_a_session_asks_for_its_holders_token() {
    let config = SignalingConfig { session_url_suffices: false, ..guarded(&["cam=secret-of-cam", "cam=another"]) };
    let app = App::new(config);
    let reply = publish(&app, "cam", "secret-of-cam").await;
    let (session, etag) = (reply.header("location").to_owned(), reply.header("etag").to_owned());
    let fragment = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host";
    assert_eq!(app.patch(&session, &etag, fragment).await.code(), "unauthorized");
    let reply = app.send("DELETE", &session, &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, "Bearer realm=\"sluice\""));
    assert_eq!(send_from(&app, "192.0.2.1", "DELETE", &session, "another", String::new()).await.status, 403);
    assert_eq!(send_from(&app, "192.0.2.1", "DELETE", &session, "secret-of-cam", String::new()).await.status, 200);
    // Where nobody needs a token, nobody needs one here either.
    let app = App::new(SignalingConfig { session_url_suffices: false, ..SignalingConfig::default() });
    let session = app.post("/whip/cam", &golden("obs")).await.header("location").to_owned();
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
}
