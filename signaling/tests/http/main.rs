//! The HTTP face of WHIP and WHEP: statuses, headers, every problem that can be provoked, and their order.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use media_core::ledger::{Reason, Stage, StageChange, StageEvent};
use media_core::stats::SessionStats;
use media_core::{CoreEvent, SessionId};
use signaling::{AllowedOrigins, Limits, SignalingConfig, Tokens};
use support::{App, Reply, golden, now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CANDIDATE: &str = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host";

fn tokens() -> Tokens {
    let mut tokens = Tokens::default();
    tokens.add("cam", "secret-of-cam").unwrap();
    tokens.add("other", "secret-of-other").unwrap();
    tokens
}

fn guarded() -> App {
    App::new(SignalingConfig { tokens: tokens(), ..SignalingConfig::default() })
}

/// A published stream `s` and the publisher's session URL and ETag.
async fn published(app: &App) -> (String, String) {
    let reply = app.post("/whip/s", &golden("chromium-publish")).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    (reply.header("location").to_owned(), reply.header("etag").to_owned())
}

fn event(app: &App, session: SessionId, stage: Stage, change: StageChange) {
    let event = StageEvent { at: now(), stage, change, detail: String::new() };
    app.signaling.registry().apply(now(), CoreEvent::Stage { session, event });
}

fn ended(app: &App, session: SessionId, reason: Reason, at: Instant) {
    let stats = SessionStats { rtp_received: 7, ..SessionStats::default() };
    app.signaling.registry().apply(at, CoreEvent::Ended { session, reason, stats });
}

// WHIP-02, WHIP-03, WHIP-04, WHIP-05, WHIP-06, HTTP-08, HTTP-09
#[tokio::test]
async fn a_201_carries_what_a_client_needs() {
    let app = App::new(SignalingConfig::default());
    let headers = [("content-type", "Application/SDP; charset=UTF-8"), ("accept", "text/html")];
    let mut seen = std::collections::HashSet::new();
    for path in ["/whip/a", "/whip/b", "/whep/a", "/whep/a"] {
        let offer = golden(if path.starts_with("/whip") { "chromium-publish" } else { "chromium-watch" });
        let reply = app.send("POST", path, &headers, offer).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        assert_eq!(reply.header("content-type"), "application/sdp");
        assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag");
        assert_eq!(reply.header("cache-control"), "no-store");
        let (location, etag) = (reply.header("location").to_owned(), reply.header("etag").to_owned());
        let secret = location.strip_prefix(&format!("{path}/")).unwrap();
        assert!(secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 8);
        assert!(seen.insert(secret.to_owned()) && seen.insert(etag));
        assert!(!app.core.last().id.to_string().contains(&secret[..16]));
    }
    let app = App::new(SignalingConfig {
        public_base_url: Some("https://live.example/sluice/".to_owned()),
        ..SignalingConfig::default()
    });
    let (location, _) = published(&app).await;
    assert!(location.starts_with("https://live.example/sluice/whip/s/"), "{location}");
}

// HTTP-03, HTTP-04, HTTP-05, CORS-01, CORS-02, CORS-03, CORS-05, CORS-06, Q-28
#[tokio::test]
async fn endpoints_and_sessions_answer_every_method() {
    let app = guarded();
    for path in ["/whip/cam", "/whep/cam"] {
        let get = app.send("GET", path, &[], "").await;
        let head = app.send("HEAD", path, &[], "").await;
        assert_eq!((get.status.as_u16(), get.body.as_str(), get.header("content-length")), (200, "", "0"));
        assert_eq!(get.headers, head.headers);
        assert_eq!(head.header("content-type"), if path == "/whep/cam" { "application/sdp" } else { "" });
        let preflight = [("origin", "https://page.example"), ("access-control-request-method", "POST")];
        let options = app.send("OPTIONS", path, &preflight, "").await;
        assert_eq!((options.status.as_u16(), options.body.as_str()), (200, ""));
        assert_eq!(options.header("accept-post"), "application/sdp");
        assert_eq!(options.header("allow"), "OPTIONS, GET, HEAD, POST");
        assert_eq!(options.header("access-control-allow-origin"), "*");
        assert_eq!(options.header("access-control-allow-methods"), "OPTIONS, GET, HEAD, POST, PATCH, DELETE");
        assert_eq!(options.header("access-control-allow-headers"), "Authorization, Content-Type, If-Match, Link");
        assert_eq!(options.header("access-control-max-age"), "86400");
        assert!(!options.headers.contains_key("access-control-allow-credentials"));
        for method in ["PUT", "PATCH", "DELETE", "BREW"] {
            let reply = app.send(method, path, &[], "").await;
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (405, "method-not-allowed"));
            assert_eq!(reply.header("allow"), "OPTIONS, GET, HEAD, POST");
        }
    }
    let app = App::new(SignalingConfig::default());
    let (session, _) = published(&app).await;
    for method in ["GET", "HEAD"] {
        let reply = app.send(method, &session, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (204, ""));
    }
    let options = app.send("OPTIONS", &session, &[], "").await;
    assert_eq!(options.header("accept-patch"), "application/trickle-ice-sdpfrag");
    for method in ["POST", "PUT"] {
        let reply = app.send(method, &session, &[], "").await;
        assert_eq!(reply.code(), "method-not-allowed");
        assert_eq!(reply.header("allow"), "OPTIONS, GET, HEAD, PATCH, DELETE");
    }
}

// CORS-03, CORS-04
#[tokio::test]
async fn listed_origins_are_echoed_and_others_get_no_cors() {
    let allowed_origins = AllowedOrigins::List(vec!["https://a.example".to_owned()]);
    let app = App::new(SignalingConfig { allowed_origins, ..SignalingConfig::default() });
    let reply = app.send("OPTIONS", "/whip/s", &[("origin", "https://a.example")], "").await;
    assert_eq!(reply.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(reply.header("vary"), "Origin");
    assert!(reply.header("access-control-expose-headers").contains("Location, ETag"));
    let reply = app.send("OPTIONS", "/whip/s", &[("origin", "https://b.example")], "").await;
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")));
}

// M3
#[tokio::test]
async fn where_only_own_pages_may_others_are_refused_and_can_read_why() {
    let allowed_origins = AllowedOrigins::Own(vec!["https://live.example".to_owned()]);
    let app = App::new(SignalingConfig { allowed_origins, ..SignalingConfig::default() });
    let (evil, host) = (("origin", "http://evil.example"), ("host", "127.0.0.1:8080"));
    let preflight = app.send("OPTIONS", "/whep/s", &[host, evil], "").await;
    assert_eq!(preflight.status, 200, "the page is to reach the answer that tells why");
    assert_eq!(preflight.header("access-control-allow-origin"), "http://evil.example");
    for (method, path) in
        [("POST", "/whip/s"), ("POST", "/whep/s"), ("GET", "/whep/s"), ("DELETE", "/whip/s/x"), ("GET", "/whip")]
    {
        let reply = app
            .send(method, path, &[host, evil, ("content-type", "application/sdp")], golden("chromium-publish"))
            .await;
        assert_eq!(reply.status, 403, "{method} {path}");
        assert!(reply.body.contains("\"code\":\"cross-origin\""), "{}", reply.body);
        assert_eq!(reply.header("access-control-allow-origin"), "http://evil.example");
        assert_eq!(reply.header("vary"), "Origin");
        assert!(reply.body.contains("cors_origins"), "{}", reply.body);
    }
    assert!(app.signaling.registry().sessions().is_empty());
    for origin in ["http://127.0.0.1:8080", "https://live.example"] {
        let reply = app.send("GET", "/whep/s", &[host, ("origin", origin)], "").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("access-control-allow-origin"), origin);
    }
    let reply =
        app.send("POST", "/whip/s", &[host, ("content-type", "application/sdp")], golden("chromium-publish")).await;
    assert_eq!(reply.status, 201, "encoders are no pages");
    assert!(!reply.headers.contains_key("access-control-allow-origin"));
}

// HTTP-03, WHIP-04
#[tokio::test]
async fn unknown_resources_are_404() {
    let app = App::new(SignalingConfig::default());
    let (session, _) = published(&app).await;
    let secret = session.rsplit('/').next().unwrap();
    let long = format!("/whip/{}", "x".repeat(129));
    for path in [
        "/whip/a%20b",
        "/whip/..",
        "/whip/%ff",
        long.as_str(),
        "/whip",
        "/whip/s/x/y/z",
        &format!("/whip/s/{}", "0".repeat(32)),
        // The secret of a publisher opens no viewer's session, nor another stream's.
        &format!("/whep/s/{secret}"),
        &format!("/whip/t/{secret}"),
    ] {
        for method in ["GET", "POST", "OPTIONS", "DELETE"] {
            let reply = app.send(method, path, &[], "").await;
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not-found"), "{method} {path}");
        }
        for (method, empty) in [("HEAD", true), ("BREW", false)] {
            let reply = app.send(method, path, &[], "").await;
            assert_eq!((reply.status.as_u16(), reply.body.is_empty()), (404, empty), "{method} {path}");
            assert_eq!(reply.header("allow"), "", "{method} {path}");
        }
    }
}

// AUTH-01, CORS-06, ERR-04
#[tokio::test]
async fn publishing_needs_the_streams_token() {
    let app = guarded();
    let offer = golden("obs");
    let post = |path: &'static str, token: &'static str| {
        let (app, offer) = (&app, offer.clone());
        async move {
            let headers = [("content-type", "application/sdp"), ("authorization", token)];
            app.send("POST", path, &headers, offer).await
        }
    };
    let missing = app.post("/whip/cam", &offer).await;
    assert_eq!((missing.status.as_u16(), missing.code().as_str()), (401, "unauthorized"));
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"sluice\"");
    let invalid = post("/whip/cam", "Bearer wrong").await;
    assert_eq!(invalid.status, 401);
    assert!(invalid.header("www-authenticate").ends_with("error=\"invalid_token\""));
    let other = post("/whip/cam", "Bearer secret-of-other").await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (403, "forbidden"));
    assert!(other.header("www-authenticate").ends_with("error=\"insufficient_scope\""));
    assert!(!other.body.contains("secret-of"));
    assert_eq!(post("/whip/cam", "bearer secret-of-cam").await.status, 201);
    // Watching is free unless viewers are protected.
    assert_eq!(app.post("/whep/cam", &golden("chromium-watch")).await.status, 201);
    let app = App::new(SignalingConfig { tokens: tokens(), protect_viewers: true, ..SignalingConfig::default() });
    assert_eq!(app.post("/whep/cam", &golden("chromium-watch")).await.code(), "unauthorized");
}

// AUTH-03
#[tokio::test]
async fn a_session_url_suffices_but_a_foreign_token_does_not() {
    let app = guarded();
    let own = ("authorization", "Bearer secret-of-cam");
    for headers in [&[][..], &[own]] {
        let reply = app.send("POST", "/whip/cam", &[("content-type", "application/sdp"), own], golden("obs")).await;
        let session = reply.header("location").to_owned();
        for (token, status) in [("Bearer secret-of-other", 403), ("Bearer wrong", 401)] {
            for (method, path) in [("DELETE", session.clone()), ("GET", format!("{session}/stages"))] {
                let reply = app.send(method, &path, &[("authorization", token)], "").await;
                assert_eq!(reply.status, status);
            }
        }
        assert_eq!(app.send("GET", &format!("{session}/stages"), headers, "").await.status, 200);
        assert_eq!(app.send("DELETE", &session, headers, "").await.status, 200);
    }
}

// HTTP-06, HTTP-07, WHIP-01, Q-31
#[tokio::test]
async fn bodies_are_judged_by_type_size_and_presence() {
    let app = App::new(SignalingConfig::default());
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/sdpx")]] {
        let reply = app.send("POST", "/whip/s", headers, golden("obs")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (415, "unsupported-media-type"));
        assert_eq!(reply.header("accept-post"), "application/sdp");
    }
    let sdp = ("content-type", "application/sdp");
    let declared = app.send("POST", "/whip/s", &[sdp, ("content-length", "65537")], "").await;
    assert_eq!((declared.status.as_u16(), declared.code().as_str()), (413, "body-too-large"));
    assert_eq!(declared.header("connection"), "close");
    let undeclared = app.send("POST", "/whip/s", &[sdp], "x".repeat(65 * 1024)).await;
    assert_eq!(undeclared.code(), "body-too-large");
    assert_eq!(app.post("/whip/s", "").await.code(), "empty-body");
    let garbage = app.post("/whip/s", "hello").await;
    assert_eq!((garbage.status.as_u16(), garbage.code().as_str()), (400, "sdp-syntax"));
    assert!(garbage.body.contains("line 1"));
}

// HTTP-07
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_not_waited_for() {
    let app = App::new(SignalingConfig::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app.router).await });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /whip/s HTTP/1.1\r\nhost: s\r\ncontent-type: application/sdp\r\ncontent-length: 9\r\n\r\nv=0";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = [0; 16];
    let answered = tokio::time::timeout(Duration::from_secs(11), stream.read_exact(&mut reply)).await;
    answered.expect("an answer within 11 s").unwrap();
    assert_eq!(String::from_utf8_lossy(&reply), "HTTP/1.1 408 Req");
    server.abort();
}

/// An offer with one thing changed, and what becomes of it.
async fn whip(change: impl Fn(String) -> String) -> Reply {
    App::new(SignalingConfig::default()).post("/whip/s", &change(golden("obs"))).await
}

// WHIP-08, WHIP-09, WHIP-10, WHIP-11, WHIP-12, WHIP-27; SDP-07, SDP-10, SDP-16, SDP-17, SDP-18
#[tokio::test]
async fn offers_that_cannot_be_served_say_why() {
    for (code, from, to) in [
        ("sdp-direction", "a=sendonly", "a=recvonly"),
        ("sdp-direction", "a=sendonly", "a=inactive"),
        ("sdp-bundle", "a=group:BUNDLE 0 1\r\n", ""),
        ("sdp-bundle", "a=group:BUNDLE 0 1", "a=group:BUNDLE 0"),
        ("sdp-rtcp-mux", "a=rtcp-mux\r\n", ""),
        ("sdp-duplicate-kind", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 111"),
        ("sdp-multiple-streams", "a=msid:uM7yN2cJ8dHs4fGk uM7yN2cJ8dHs4fGk-video", "a=msid:x y"),
        ("sdp-no-common-codec", "H264/90000", "H266/90000"),
        ("sdp-no-common-codec", "packetization-mode=1", "packetization-mode=2"),
        ("sdp-setup", "a=setup:actpass", "a=setup:holdconn"),
        ("sdp-fingerprint", "a=fingerprint:sha-256", "a=fingerprint:md5"),
        ("sdp-ice-credentials", "a=ice-ufrag:r4Zt", "a=ice-ufrag:r4Z"),
        ("sdp-ice-credentials", "a=ice-ufrag:r4Zt", "a=ice-ufrag:r4Z!"),
        ("sdp-ice-credentials", "a=ice-pwd:8bV1nQxKcW5mYfLzT7hJpD", "a=ice-pwd:8bV1nQxKcW5mYfLzT7hJp"),
        ("sdp-ice-credentials", "a=ice-pwd:8bV1nQxKcW5mYfLzT7hJpD\r\n", ""),
        ("sdp-semantics", "UDP/TLS/RTP/SAVPF", "RTP/AVPF"),
        ("sdp-semantics", "a=mid:1", "a=mid:0"),
        ("sdp-semantics", "a=mid:1", "a=mid:seventeen-letters"),
        ("sdp-semantics", "m=video 9", "m=text 9"),
    ] {
        let reply = whip(|offer| offer.replace(from, to)).await;
        if to == "m=text 9" {
            // Unknown media is answered with port 0; audio goes on.
            assert_eq!(reply.status, 201);
            continue;
        }
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (422, code), "{from} -> {to}: {}", reply.body);
    }
    let reply = whip(|offer| offer.replace("m=video 9", "m=text 9").replace("m=audio 9", "m=text 9")).await;
    assert_eq!(reply.code(), "sdp-semantics");
    for (from, to) in [
        // No direction means sendrecv.
        ("a=sendonly\r\n", ""),
        ("a=setup:actpass\r\n", ""),
        ("a=setup:actpass", "a=setup:active"),
        ("a=rtcp-mux\r\n", "a=rtcp-mux-only\r\n"),
        ("a=msid:uM7yN2cJ8dHs4fGk", "a=msid:-"),
        ("a=rtcp-fb:96", "a=rtcp-fb:*"),
        ("UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF"),
        ("a=mid:0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\na=mid:0"),
    ] {
        let reply = whip(|offer| offer.replace(from, to)).await;
        assert_eq!(reply.status, 201, "{from} -> {to}: {}", reply.body);
    }
    // One section needs no BUNDLE.
    let reply = whip(|offer| offer[..offer.find("m=video").unwrap()].replace("a=group:BUNDLE 0 1\r\n", "")).await;
    assert_eq!(reply.status, 201);
    assert!(!reply.body.contains("a=group"));
    // A rejected section stays rejected.
    let reply = whip(|offer| offer.replace("m=video 9", "m=video 0")).await;
    assert!(reply.body.contains("m=video 0 ") && reply.body.contains("a=group:BUNDLE 0\r\n"));
}

// WHEP-02, WHEP-03, WHEP-05, WHEP-06
#[tokio::test]
async fn viewers_need_a_stream_and_a_direction() {
    let app = App::new(SignalingConfig::default());
    let offer = golden("firefox-h264-watch");
    assert_eq!(app.post("/whep/s", &offer).await.code(), "not-found");
    let (session, _) = published(&app).await;
    assert_eq!(app.post("/whep/s", &offer).await.status, 201);
    let reply = app.post("/whep/s", &offer.replace("a=recvonly", "a=sendonly")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (422, "sdp-direction"));
    assert_eq!(app.post("/whep/s", &offer.replace("a=recvonly", "a=sendrecv")).await.status, 201);
    let second = offer[offer.find("m=video").unwrap()..].replace("a=mid:1", "a=mid:2");
    let reply = app.post("/whep/s", &format!("{offer}{second}").replace("BUNDLE 0 1", "BUNDLE 0 1 2")).await;
    assert_eq!(reply.body.matches("m=video 0 ").count(), 1, "{}", reply.body);
    // The publisher goes: the stream stays known.
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    let reply = app.post("/whep/s", &offer).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (409, "stream-not-live"));
    assert_eq!(reply.header("retry-after"), "5");

    // A name with a token is known before anybody published it.
    assert_eq!(guarded().post("/whep/cam", &offer).await.code(), "stream-not-live");
    assert_eq!(guarded().post("/whep/elsewhere", &offer).await.code(), "not-found");
}

// WHIP-31, WHIP-32
#[tokio::test]
async fn a_second_publisher_is_refused_unless_the_first_never_connected() {
    let app = App::new(SignalingConfig::default());
    let (first, _) = published(&app).await;
    let first_id = app.core.last().id;
    // The client's retry: the first session never saw a check.
    let (second, _) = published(&app).await;
    assert_eq!(app.core.recorded().closed.last().unwrap().1, first_id);
    assert_eq!(app.core.recorded().closed.last().unwrap().2, Reason::Replaced);
    assert_eq!(app.send("GET", &first, &[], "").await.status, 404);
    assert_eq!(app.signaling.registry().counts().publishers, 1);
    let second_id = app.core.last().id;
    ended(&app, first_id, Reason::Replaced, now());
    assert_eq!(app.stream("s").unwrap().publisher, Some(second_id));
    // Now one is connected.
    event(&app, second_id, Stage::Ice, StageChange::Done);
    let reply = app.post("/whip/s", &golden("obs")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (409, "publish-conflict"));
    assert_eq!(app.send("GET", &second, &[], "").await.status, 204);
    // It leaves, and the stream is free at once.
    app.send("DELETE", &second, &[], "").await;
    assert_eq!(app.post("/whip/s", &golden("obs")).await.status, 201);
}

// WHIP-32: another holder's half-open session is not to be replaced.
#[tokio::test]
async fn a_half_open_session_gives_way_to_its_own_token_only() {
    let mut two = tokens();
    two.add("cam", "second-of-cam").unwrap();
    let app = App::new(SignalingConfig { tokens: two, ..SignalingConfig::default() });
    let post = |token| {
        let app = &app;
        async move {
            app.send(
                "POST",
                "/whip/cam",
                &[("content-type", "application/sdp"), ("authorization", token)],
                golden("obs"),
            )
            .await
        }
    };
    assert_eq!(post("Bearer secret-of-cam").await.status, 201);
    assert_eq!(post("Bearer second-of-cam").await.code(), "publish-conflict");
    assert_eq!(post("Bearer secret-of-cam").await.status, 201);
}

// WHIP-14, WHIP-15, TRK-16, WHEP-13
#[tokio::test(start_paused = true)]
async fn delete_ends_a_session_and_works_for_a_while_after_its_end() {
    let app = App::new(SignalingConfig::default());
    let (session, etag) = published(&app).await;
    let id = app.core.last().id;
    assert_eq!(app.send("DELETE", &session, &[("if-match", "\"stale\"")], "").await.status, 200);
    assert_eq!(app.core.recorded().closed.last().map(|(_, id, reason)| (*id, *reason)), Some((id, Reason::Deleted)));
    assert_eq!(app.send("GET", &session, &[], "").await.code(), "not-found");
    assert_eq!(app.patch(&session, &etag, "a=end-of-candidates").await.code(), "not-found");
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    assert_eq!(app.core.recorded().closed.len(), 1);

    // One that ended by itself.
    let (session, _) = published(&app).await;
    let id = app.core.last().id;
    ended(&app, id, Reason::PeerClosed, now());
    assert_eq!(app.send("GET", &session, &[], "").await.status, 404);
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    let stages = app.send("GET", &format!("{session}/stages"), &[], "").await;
    assert_eq!(stages.status, 200);
    let json: serde_json::Value = serde_json::from_str(&stages.body).unwrap();
    assert_eq!((json["state"].as_str(), json["reason"].as_str()), (Some("closed"), Some("peer-closed")));

    // A minute later nobody asks any more.
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(app.send("DELETE", &session, &[], "").await.code(), "not-found");
}

// TRK-01 to TRK-09, WHIP-13, WHIP-18, Q-27
#[tokio::test]
async fn trickle_takes_candidates_and_passes_over_what_is_not_for_it() {
    let app = App::new(SignalingConfig::default());
    let (session, etag) = published(&app).await;
    let remote = app.core.last().ice.remote;
    let (ufrag, pwd) = (remote.ufrag.as_str(), remote.pwd.as_str());
    let known = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n");
    let fragment = format!("{known}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{CANDIDATE} ufrag {ufrag}\r\n");
    let reply = app.patch(&session, &etag, &fragment).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (204, ""));
    assert!(!reply.headers.contains_key("etag") && reply.header("access-control-allow-origin") == "*");
    assert_eq!(app.core.recorded().candidates.len(), 1);

    // Everything that is not for us is passed over in silence.
    let odd = format!(
        "{known}m=audio RTP/AVP 0\r\na=mid:7\r\n{CANDIDATE}\r\nm=audio 9 x 0\r\na=mid:0\r\n\
        {CANDIDATE} ufrag other\r\n\
        a=candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active\r\na=candidate:1 2 udp 1 192.0.2.1 99 typ host\r\n\
        a=candidate:1 1 udp 1 0a0b.local 99 typ host\r\na=candidate:nonsense\r\na=end-of-candiadates\r\n"
    );
    assert_eq!(app.patch(&session, &etag, &odd).await.status, 204);
    assert_eq!(app.core.recorded().candidates.len(), 1);

    let lone = format!("{CANDIDATE}\r\n");
    for if_match in ["*", "\"*\"", &format!("\"x\", {etag}"), etag.trim_matches('"')] {
        assert_eq!(app.patch(&session, if_match, &lone).await.status, 204, "{if_match}");
    }
    for (if_match, fragment, status, code) in [
        ("\"x\"", lone.clone(), 412, "precondition-failed"),
        (&format!("W/{etag}"), lone.clone(), 412, "precondition-failed"),
        ("\"x", lone.clone(), 400, "bad-request"),
        (&etag, String::new(), 400, "empty-body"),
        (&etag, "m=audio 9 x 0\r\n".to_owned(), 400, "sdpfrag-syntax"),
        (&etag, "a=ice-ufrag:newu\r\n".to_owned(), 400, "sdpfrag-syntax"),
        (&etag, format!("a=ice-ufrag:newu\r\na=ice-pwd:{pwd}\r\n"), 400, "sdpfrag-syntax"),
        (&etag, format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{}\r\n", "p".repeat(24)), 400, "sdpfrag-syntax"),
        (&etag, format!("a=ice-ufrag:newu\r\na=ice-pwd:{}\r\n", "p".repeat(21)), 422, "sdp-ice-credentials"),
        (&etag, format!("a=ice-ufrag:new u\r\na=ice-pwd:{}\r\n", "p".repeat(24)), 422, "sdp-ice-credentials"),
        (&etag, "x".repeat(16 * 1024 + 1), 413, "body-too-large"),
    ] {
        let reply = app.patch(&session, if_match, &fragment).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{if_match} {fragment:.40}");
    }
    let headers = [("content-type", "application/trickle-ice-sdpfrag")];
    let reply = app.send("PATCH", &session, &headers, lone.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (428, "precondition-required"));
    let reply = app.send("PATCH", &session, &[("content-type", "application/sdp")], golden("obs")).await;
    assert_eq!((reply.status.as_u16(), reply.header("accept-patch")), (415, "application/trickle-ice-sdpfrag"));

    // A client cannot grow the list without end.
    let many: String =
        (0..90).map(|port| format!("a=candidate:1 1 udp 1 192.0.2.9 {} typ host\n", 2000 + port)).collect();
    for _ in 0..3 {
        assert_eq!(app.patch(&session, &etag, &many).await.status, 204);
    }
    assert!(app.core.recorded().candidates.len() <= 100);
}

// TRK-19
#[tokio::test]
async fn pacing_that_an_offer_asks_for_is_passed_over() {
    for value in ["5", "50", "4294967296", "soon", ""] {
        let offer = golden("chromium-publish").replacen("t=0 0\r\n", &format!("t=0 0\r\na=ice-pacing:{value}\r\n"), 1);
        assert!(offer.contains("ice-pacing"));
        let reply = App::new(SignalingConfig::default()).post("/whip/s", &offer).await;
        assert_eq!(reply.status, 201, "{value}: {}", reply.body);
        assert!(!reply.body.contains("ice-pacing"));
    }
}

// TRK-07, Q-26
#[tokio::test]
async fn lenient_if_match_wants_the_current_credentials_instead() {
    let app = App::new(SignalingConfig { lenient_if_match: true, ..SignalingConfig::default() });
    let (session, _) = published(&app).await;
    let remote = app.core.last().ice.remote;
    let headers = [("content-type", "application/trickle-ice-sdpfrag")];
    let known = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n{CANDIDATE}\r\n", remote.ufrag, remote.pwd);
    assert_eq!(app.send("PATCH", &session, &headers, known).await.status, 204);
    let reply = app.send("PATCH", &session, &headers, format!("{CANDIDATE}\r\n")).await;
    assert_eq!(reply.code(), "precondition-required");
}

// ERR-04: of two faults the earlier check answers.
#[tokio::test]
async fn the_first_fault_in_order_is_the_one_reported() {
    let app = guarded();
    let sdp = ("content-type", "application/sdp");
    let own = ("authorization", "Bearer secret-of-cam");
    let foreign = ("authorization", "Bearer secret-of-other");
    let large = "x".repeat(65 * 1024);
    for (method, path, headers, body, code) in [
        ("PUT", "/whip/a b".replace(' ', "%20"), &[][..], "", "not-found"),
        ("PUT", "/whip/cam".to_owned(), &[foreign], "", "method-not-allowed"),
        ("POST", "/whip/cam".to_owned(), &[], "", "unauthorized"),
        ("POST", "/whip/cam".to_owned(), &[foreign], "", "forbidden"),
        ("POST", "/whip/cam".to_owned(), &[own], large.as_str(), "unsupported-media-type"),
        ("POST", "/whip/cam".to_owned(), &[own, sdp], large.as_str(), "body-too-large"),
        ("POST", "/whip/cam".to_owned(), &[own, sdp], "", "empty-body"),
        ("POST", "/whip/cam".to_owned(), &[own, sdp], "v=0", "sdp-syntax"),
    ] {
        let reply = app.send(method, &path, headers, body.to_owned()).await;
        assert_eq!(reply.code(), code, "{method} {path}");
    }
    let limits = Limits { max_sessions: 0, ..Limits::default() };
    let app = App::new(SignalingConfig { limits, ..SignalingConfig::default() });
    assert_eq!(app.post("/whip/s", &golden("obs").replace("a=rtcp-mux\r\n", "")).await.code(), "sdp-rtcp-mux");
    assert_eq!(app.post("/whip/s", &golden("obs")).await.code(), "overloaded");
    let app = App::new(SignalingConfig::default());
    let (session, _) = published(&app).await;
    assert_eq!(app.patch(&session, "\"x\"", "").await.code(), "precondition-failed");
    assert_eq!(app.patch(&session, "\"x\"", &large).await.code(), "body-too-large");
}

// OPS-06, WHIP-21, ERR-06
#[tokio::test]
async fn a_draining_server_takes_no_new_sessions() {
    let app = App::new(SignalingConfig::default());
    let (session, _) = published(&app).await;
    app.signaling.registry().drain();
    let reply = app.post("/whep/s", &golden("chromium-watch")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "overloaded"));
    assert_eq!(reply.header("retry-after"), "5");
    assert_eq!(app.send("GET", &session, &[], "").await.status, 204);
}

// ERR-02
#[tokio::test]
async fn problem_types_hang_on_the_kind_alone() {
    let app = App::new(SignalingConfig {
        public_base_url: Some("https://docs.example/".to_owned()),
        ..SignalingConfig::default()
    });
    let read = |reply: Reply| serde_json::from_str::<serde_json::Value>(&reply.body).unwrap();
    let first = read(app.send("GET", "/whip/s/a", &[], "").await);
    let second = read(app.send("GET", "/whep/t/b", &[], "").await);
    assert_eq!(first["type"], "https://docs.example/problems/not-found");
    assert_eq!((&first["type"], &first["title"]), (&second["type"], &second["title"]));
    assert_eq!((first["instance"].as_str(), second["instance"].as_str()), (Some("/whip/s/a"), Some("/whep/t/b")));
}
