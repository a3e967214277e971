//! The web pages.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::routing::get as on_get;
use axum::{Extension, Router};
use http::Request;
use server::pages;
use signaling::{AllowedOrigins, ClientAddress, SignalingConfig, Tokens};

use crate::common::{Reply, get, rig, send};

/// Addresses that a page's text names in `src` and `href`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    ["src=\"", "href=\""].into_iter().flat_map(|key| text.split(key).skip(1)).filter_map(|rest| rest.split('"').next())
}

fn assert_dressed(reply: &Reply) {
    let policy = reply.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    assert_eq!(reply.header("referrer-policy"), "no-referrer");
}

#[tokio::test]
async fn pages_are_served_with_a_strict_policy_and_without_inline_script() {
    let rig = rig(SignalingConfig::default());
    for (path, title) in [("/", "<title>Sluice"), ("/publish/a", "<title>Publish"), ("/watch/a", "<title>Watch")] {
        let reply = get(&rig.public, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
        assert!(reply.body.contains(title), "{path}");
        assert_dressed(&reply);
        assert!(!reply.body.contains("style=") && !reply.body.contains("<style"), "{path}");
        for script in reply.body.split("<script").skip(1) {
            assert!(script.contains("src=") && script.contains("></script>"), "{path}");
        }
    }
}

#[tokio::test]
async fn everything_that_a_page_names_is_served_from_here() {
    let rig = rig(SignalingConfig::default());
    for path in ["/", "/publish/a", "/watch/a"] {
        let page = get(&rig.public, path).await;
        for link in links(&page.body) {
            assert!(!link.contains("//"), "{link}");
            let target = format!("/{}", link.trim_start_matches("../").trim_start_matches("./"));
            let reply = get(&rig.public, &target).await;
            assert_eq!(reply.status, 200, "{path}: {target}");
            assert_dressed(&reply);
            assert_ne!(reply.body, "", "{target}");
        }
    }
    for script in ["whip.js", "page.js", "network.js", "pattern.js", "ticker.js"] {
        let reply = get(&rig.public, &format!("/assets/{script}")).await;
        assert_eq!(reply.header("content-type"), "text/javascript; charset=utf-8", "{script}");
        assert!(!reply.body.contains("http://") && !reply.body.contains("innerHTML"), "{script}");
        for import in reply.body.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert_eq!(get(&rig.public, &format!("/assets/{import}")).await.status, 200, "{script}: {import}");
        }
    }
}

#[tokio::test]
async fn a_browser_that_has_a_page_gets_it_no_second_time() {
    let rig = rig(SignalingConfig::default());
    let first = get(&rig.public, "/assets/sluice.css").await;
    let tag = first.header("etag");
    assert!(tag.starts_with('"'));
    let request = Request::get("/assets/sluice.css").header("if-none-match", tag).body(Body::empty()).unwrap();
    let again = send(&rig.public, request).await;
    assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""));
}

#[tokio::test]
async fn scripts_may_connect_to_the_public_url() {
    let config =
        SignalingConfig { public_base_url: Some("https://live.example/base".to_owned()), ..SignalingConfig::default() };
    let reply = get(&rig(config).public, "/").await;
    let policy = reply.header("content-security-policy");
    assert!(policy.contains("connect-src 'self' https://live.example;"), "{policy}");
}

// ERR-01, ERR-05
#[tokio::test]
async fn errors_of_the_public_listener_are_problems_that_other_origins_can_read() {
    let rig = rig(SignalingConfig::default());
    for path in ["/nowhere", "/assets/nothing.js", "/publish", "/watch/a/b"] {
        let reply = get(&rig.public, path).await;
        reply.assert_problem(404, "not-found");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
    }
    let reply = send(&rig.public, Request::post("/").body(Body::empty()).unwrap()).await;
    reply.assert_problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn streams_are_listed_where_everything_is_public() {
    let reply = get(&rig(SignalingConfig::default()).public, "/streams.json").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "[]"));
    assert_eq!(reply.header("cache-control"), "no-store");
}

#[tokio::test]
async fn with_tokens_the_list_of_streams_takes_one_for_all_streams() {
    let mut tokens = Tokens::default();
    tokens.add("cam", "one").unwrap();
    tokens.add("*", "all").unwrap();
    let rig = rig(SignalingConfig { tokens, ..SignalingConfig::default() });
    let reply = get(&rig.public, "/streams.json").await;
    reply.assert_problem(401, "unauthorized");
    assert!(reply.header("www-authenticate").starts_with("Bearer "));
    let with = |token: &str| {
        let authorization = format!("Bearer {token}");
        Request::get("/streams.json").header("authorization", authorization).body(Body::empty()).unwrap()
    };
    assert_eq!(send(&rig.public, with("one")).await.status, 401);
    assert_eq!(send(&rig.public, with("all")).await.status, 200);
}

#[tokio::test]
async fn the_type_of_a_problem_leads_to_its_title() {
    let rig = rig(SignalingConfig::default());
    let reply = get(&rig.public, "/problems/stream-not-live").await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with("stream-not-live (409"), "{}", reply.body);
    get(&rig.public, "/problems/unheard-of").await.assert_problem(404, "not-found");
}

// M3
#[tokio::test]
async fn a_name_that_leads_here_without_being_known_gets_nothing() {
    let host_names = Some(vec!["live.example".to_owned()]);
    let rig = rig(SignalingConfig { host_names, ..SignalingConfig::default() });
    let with_host = |method: &str, path: &str, host: &str| {
        Request::builder().method(method).uri(path).header("host", host).body(Body::empty()).unwrap()
    };
    for (method, path) in
        [("GET", "/"), ("GET", "/streams.json"), ("POST", "/whip/cam"), ("OPTIONS", "/whep/cam"), ("GET", "/x")]
    {
        let reply = send(&rig.public, with_host(method, path, "evil.example:8080")).await;
        reply.assert_problem(403, "host-not-allowed");
        assert!(reply.body.contains("public_url"), "{}", reply.body);
    }
    for host in ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "Live.Example"] {
        assert_eq!(send(&rig.public, with_host("GET", "/streams.json", host)).await.status, 200, "{host}");
    }
}

// M3
#[tokio::test]
async fn pages_of_other_origins_are_refused_and_can_read_why() {
    let rig = rig(SignalingConfig { allowed_origins: AllowedOrigins::Own(Vec::new()), ..SignalingConfig::default() });
    let from = |path: &str, origin: &str| {
        let request = Request::get(path).header("host", "127.0.0.1:8080").header("origin", origin);
        request.body(Body::empty()).unwrap()
    };
    for path in ["/streams.json", "/", "/assets/whip.js", "/nowhere", "/whep/cam"] {
        let reply = send(&rig.public, from(path, "http://evil.example")).await;
        reply.assert_problem(403, "cross-origin");
        assert_eq!(reply.header("access-control-allow-origin"), "http://evil.example", "{path}");
    }
    let own = send(&rig.public, from("/streams.json", "http://127.0.0.1:8080")).await;
    assert_eq!(own.status, 200);
}

// H2
#[tokio::test]
async fn routes_see_the_client_behind_a_trusted_proxy_and_no_made_up_one() {
    let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let rig = rig(SignalingConfig { trusted_proxies, ..SignalingConfig::default() });
    let echo =
        Router::new().route("/", on_get(async |Extension(ClientAddress(ip)): Extension<ClientAddress>| ip.to_string()));
    let routes = pages::guarded(echo, Arc::clone(&rig.signaling));
    for (peer, client) in [([10, 0, 0, 1], "192.0.2.9"), ([198, 51, 100, 1], "198.51.100.1")] {
        let request = Request::get("/").header("x-forwarded-for", "203.0.113.66, 192.0.2.9");
        let request = request.extension(ClientAddress(IpAddr::from(peer)));
        assert_eq!(send(&routes, request.body(Body::empty()).unwrap()).await.body, client);
    }
}
