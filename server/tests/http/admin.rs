//! The operator's listener.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use media_core::CoreEvent;
use media_core::ledger::Reason;
use media_core::stats::SessionStats;
use openssl::sha::sha256;
use server::admin_access::AdminAccess;
use server::connections::{ConnectionLimits, Connections, Listener};
use server::listener;
use server::metrics::Metrics;
use server::socket::UnixSocket;
use signaling::SignalingConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::common::{OFFER, get, rig, send};

#[tokio::test]
async fn metrics_are_text_of_prometheus() {
    let rig = rig(SignalingConfig::default());
    let reply = get(&rig.operator, "/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in ["sluice_streams 0", "sluice_shard_sessions{shard=\"0\"} 0", "process_threads "] {
        assert!(reply.body.contains(line), "{line}");
    }
}

#[tokio::test]
async fn readiness_follows_start_and_drain() {
    let rig = rig(SignalingConfig::default());
    assert_eq!(get(&rig.operator, "/healthz").await.status, 200);
    get(&rig.operator, "/readyz").await.assert_problem(503, "overloaded");
    rig.admin.set_serving();
    assert_eq!(get(&rig.operator, "/readyz").await.status, 200);
    rig.signaling.registry().drain();
    let reply = get(&rig.operator, "/readyz").await;
    reply.assert_problem(503, "overloaded");
    assert_eq!(reply.header("retry-after"), "5"); // ERR-06
    assert_eq!(get(&rig.operator, "/healthz").await.status, 200);
}

#[tokio::test]
async fn an_empty_server_lists_nothing() {
    let rig = rig(SignalingConfig::default());
    for path in ["/api/v1/sessions", "/api/v1/sessions?state=live&stream=a", "/api/v1/streams"] {
        let reply = get(&rig.operator, path).await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "[]"), "{path}");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let version = get(&rig.operator, "/api/v1/version").await.json();
    assert_eq!(version["name"], "sluice");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_bad_filter_says_what_is_allowed() {
    let rig = rig(SignalingConfig::default());
    let reply = get(&rig.operator, "/api/v1/sessions?state=happy").await;
    reply.assert_problem(400, "bad-request");
    assert!(reply.body.contains("ice-checking"));
    get(&rig.operator, "/api/v1/sessions?name=a").await.assert_problem(400, "bad-request");
}

// ERR-01, HTTP-05
#[tokio::test]
async fn errors_of_the_router_are_problems_too() {
    let rig = rig(SignalingConfig::default());
    for path in ["/", "/api/v2", "/api/v1/sessions/0000000000000001", "/api/v1/sessions/not-an-id"] {
        get(&rig.operator, path).await.assert_problem(404, "not-found");
    }
    let reply = send(&rig.operator, Request::post("/api/v1/sessions").body(Body::empty()).unwrap()).await;
    reply.assert_problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), "GET,HEAD");
    let reply = send(&rig.operator, Request::delete("/api/v1/sessions/01").body(Body::empty()).unwrap()).await;
    reply.assert_problem(404, "not-found");
}

#[tokio::test]
async fn a_session_is_shown_with_its_stages_until_the_operator_ends_it() {
    let rig = rig(SignalingConfig::default());
    let post = Request::post("/whip/cam").header("content-type", "application/sdp").body(Body::from(OFFER)).unwrap();
    let reply = send(&rig.public, post).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let secret = reply.header("location").rsplit('/').next().unwrap().to_owned();

    let list = get(&rig.operator, "/api/v1/sessions?stream=cam&state=live").await;
    assert!(!list.body.contains(&secret), "the secret of the URL is none of the API's");
    let list = list.json();
    let session = &list[0];
    assert_eq!((&session["stream"], &session["role"]), (&"cam".into(), &"publisher".into()));
    let stages: Vec<_> = session["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["signaling", "ice", "dtls", "fingerprint", "srtp", "media"]);
    for member in ["stage", "state", "started_ms", "ended_ms", "reason", "detail", "advice"] {
        assert!(session["stages"][0].get(member).is_some(), "{member}");
    }
    assert_eq!(get(&rig.operator, "/api/v1/sessions?stream=other").await.body, "[]");
    let stream = get(&rig.operator, "/api/v1/streams").await.json();
    assert_eq!((&stream[0]["stream"], &stream[0]["live"]), (&"cam".into(), &false.into()));
    assert!(get(&rig.operator, "/metrics").await.body.contains("sluice_publishers 1\n"));

    let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap());
    assert_eq!(get(&rig.operator, &path).await.json()["stream"], "cam");
    let delete = || Request::delete(&path).body(Body::empty()).unwrap();
    assert_eq!(send(&rig.operator, delete()).await.status, 204);
    let (id, reason) = rig.core.closed.lock().unwrap()[0];
    assert_eq!(reason, Reason::Deleted);
    send(&rig.operator, delete()).await.assert_problem(404, "not-found");

    let ended = CoreEvent::Ended { session: id, reason, stats: SessionStats::default() };
    rig.signaling.registry().apply(std::time::Instant::now(), ended);
    let view = get(&rig.operator, &path).await.json();
    assert_eq!((&view["state"], &view["reason"]), (&"closed".into(), &"deleted".into()));
    assert_eq!(get(&rig.operator, "/api/v1/sessions?state=live").await.body, "[]");
    assert_eq!(get(&rig.operator, "/api/v1/sessions?state=closed").await.json().as_array().unwrap().len(), 1);
    let metrics = get(&rig.operator, "/metrics").await.body;
    for line in [
        "sluice_publishers 0",
        "sluice_sessions_opened_total{role=\"publisher\"} 1",
        "sluice_sessions_ended_total{reason=\"deleted\",role=\"publisher\"} 1",
        "sluice_http_responses_total{method=\"POST\",resource=\"whip-endpoint\",status=\"201\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

// OPS-06
#[tokio::test]
async fn a_draining_server_takes_no_session() {
    let rig = rig(SignalingConfig::default());
    rig.signaling.registry().drain();
    let post = Request::post("/whip/cam").header("content-type", "application/sdp").body(Body::from(OFFER)).unwrap();
    send(&rig.public, post).await.assert_problem(503, "overloaded");
}

/// A request with these headers, to all that reads and to what changes something.
async fn with_headers(rig: &crate::common::Rig, headers: &[(&str, &str)]) -> Vec<crate::common::Reply> {
    let mut replies = Vec::new();
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/api/v1/sessions"),
        ("DELETE", "/api/v1/sessions/0000000000000001"),
        ("GET", "/healthz"),
    ] {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        replies.push(send(&rig.operator, request.body(Body::empty()).unwrap()).await);
    }
    replies
}

// M2
#[tokio::test]
async fn names_that_lead_here_without_being_known_are_refused() {
    let rig = rig(SignalingConfig::default());
    rig.admin.set_access(AdminAccess::new(vec!["sluice.internal".to_owned()], None));
    for host in ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "sluice.internal.evil.example"] {
        for reply in with_headers(&rig, &[("host", host)]).await {
            reply.assert_problem(403, "host-not-allowed");
            assert!(reply.body.contains("admin_hosts"), "{}", reply.body);
        }
    }
    for host in ["127.0.0.1:8081", "[::1]:8081", "10.1.2.3", "localhost:8081", "sluice.internal:8081"] {
        let statuses: Vec<_> =
            with_headers(&rig, &[("host", host)]).await.iter().map(|reply| reply.status.as_u16()).collect();
        assert_eq!(statuses, [200, 200, 404, 200], "{host}");
    }
}

// M2
#[tokio::test]
async fn pages_of_elsewhere_neither_read_nor_change_anything() {
    let rig = rig(SignalingConfig::default());
    let host = ("host", "127.0.0.1:8081");
    for header in [
        ("origin", "http://evil.example"),
        ("origin", "http://127.0.0.1:8080"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for reply in with_headers(&rig, &[host, header]).await {
            reply.assert_problem(403, "cross-origin");
            assert!(!reply.headers.contains_key("access-control-allow-origin"));
        }
    }
    for header in [("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "none"), ("sec-fetch-site", "same-origin")] {
        let statuses: Vec<_> =
            with_headers(&rig, &[host, header]).await.iter().map(|reply| reply.status.as_u16()).collect();
        assert_eq!(statuses, [200, 200, 404, 200], "{header:?}");
    }
}

// M2
#[tokio::test]
async fn a_token_guards_all_but_health() {
    let rig = rig(SignalingConfig::default());
    rig.admin.set_access(AdminAccess::new(Vec::new(), Some(sha256(b"0123456789abcdef"))));
    for headers in [
        vec![],
        vec![("authorization", "Bearer 0123456789abcdeF")],
        vec![("authorization", "Basic 0123456789abcdef")],
        vec![("authorization", "Bearer ")],
    ] {
        let replies = with_headers(&rig, &headers).await;
        for reply in &replies[..3] {
            reply.assert_problem(401, "unauthorized");
            assert!(reply.header("www-authenticate").starts_with("Bearer "));
        }
        assert_eq!(replies[3].status, 200, "load balancers have no token");
    }
    get(&rig.operator, "/readyz").await.assert_problem(503, "overloaded");
    let replies = with_headers(&rig, &[("authorization", "bearer 0123456789abcdef")]).await;
    assert_eq!(replies.iter().map(|reply| reply.status.as_u16()).collect::<Vec<_>>(), [200, 200, 404, 200]);
}

// M2
#[tokio::test]
async fn the_admin_api_is_served_over_a_unix_socket() {
    let directory = std::env::temp_dir().join(format!("sluice-{}-http", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("admin.sock");
    let (stop, stopped) = watch::channel(false);
    let metrics = Arc::new(Metrics::new().unwrap());
    let held = (Connections::new(ConnectionLimits::default(), Arc::clone(&metrics)), metrics);
    let operator = rig(SignalingConfig::default()).operator;
    let task = listener::spawn(Listener::Admin, UnixSocket::bind(&path).unwrap(), operator, held, stopped);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("ok\n"), "{reply}");
    stop.send_replace(true);
    task.await.unwrap();
    assert!(!path.exists(), "its file goes with it");
    std::fs::remove_dir(directory).unwrap();
}

/// The path of `rel="next"`, resolved against that of the request.
fn next_of(path: &str, reply: &crate::common::Reply) -> Option<String> {
    let link = reply.headers.get("link")?.to_str().unwrap();
    let target = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    Some(format!("{}{target}", path.split('?').next().unwrap()))
}

// Low: session lists without pages.
#[tokio::test]
async fn lists_come_in_pages_that_lead_on_to_the_next_one() {
    let rig = rig(SignalingConfig::default());
    for number in 0..7 {
        let post = Request::post(format!("/whip/cam{number}")).header("content-type", "application/sdp");
        assert_eq!(send(&rig.public, post.body(Body::from(OFFER)).unwrap()).await.status, 201);
    }
    for (router, list, key) in [
        (&rig.operator, "/api/v1/sessions?state=live&limit=3", "id"),
        (&rig.operator, "/api/v1/streams?limit=3", "stream"),
        (&rig.public, "/streams.json?limit=3", "stream"),
    ] {
        let (mut seen, mut lengths) = (std::collections::BTreeSet::new(), Vec::new());
        let mut path = Some(list.to_owned());
        while let Some(page) = path {
            let reply = get(router, &page).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            let entries = reply.json().as_array().unwrap().clone();
            lengths.push(entries.len());
            seen.extend(entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()));
            path = next_of(list, &reply);
            assert!(path.as_ref().is_none_or(|path| path.contains("state=live") == list.contains("state=live")));
        }
        assert_eq!((lengths, seen.len()), (vec![3, 3, 1], 7), "{list}");
        get(router, &format!("{list}&nonsense=1")).await.assert_problem(400, "bad-request");
    }
    get(&rig.operator, "/api/v1/sessions?cursor=x").await.assert_problem(400, "bad-request");
    assert!(get(&rig.operator, "/api/v1/sessions").await.headers.get("link").is_none());
}
