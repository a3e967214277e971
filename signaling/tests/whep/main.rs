//! What a server lets a viewer do that is a matter of its settings, and where it sends those whom another node serves.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use signaling::{RedirectStatus, Redirects, SignalingConfig, Tokens};
use support::{App, golden};

async fn publish(app: &App, offer: &str) -> String {
    let reply = app.post("/whip/s", offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.header("location").to_owned()
}

fn named(name: &str) -> Tokens {
    let mut tokens = Tokens::default();
    tokens.add(name, "secret-of-cam").unwrap();
    tokens
}

fn redirects(rules: &[&str]) -> Redirects {
    Redirects { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(), ..Redirects::default() }
}

// WHIP-19, WHEP-11
#[tokio::test]
async fn a_post_for_a_stream_of_another_node_is_sent_there_and_nothing_else_is() {
    let rules = redirects(&["watch:far-*=https://edge.example/sluice", "s=https://b.example"]);
    let app = App::new(SignalingConfig { redirects: rules.clone(), ..SignalingConfig::default() });
    // The body is not looked at.
    let reply = app.send("POST", "/whep/far-1?x=y", &[("origin", "https://page.example")], "no offer").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (307, ""));
    assert_eq!(reply.header("location"), "https://edge.example/sluice/whep/far-1?x=y");
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert!(reply.header("access-control-expose-headers").contains("Location"));
    assert_eq!(app.post("/whip/far-1", &golden("obs")).await.status, 201, "the rule is for viewers");
    for path in ["/whip/s", "/whep/s"] {
        let reply = app.post(path, &golden("obs")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("location")),
            (307, format!("https://b.example{path}").as_str())
        );
        for (method, status) in [("OPTIONS", 200), ("GET", 200), ("HEAD", 200), ("PUT", 405)] {
            assert_eq!(app.send(method, path, &[], "").await.status, status, "{method}");
        }
    }
    // A session stays with its node, whatever becomes of the rules.
    let app = App::new(SignalingConfig::default());
    let session = publish(&app, &golden("obs")).await;
    app.signaling.reconfigure(SignalingConfig { redirects: rules, ..SignalingConfig::default() });
    let etag = "*";
    assert_eq!(app.patch(&session, etag, "a=end-of-candidates").await.status, 204);
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    assert_eq!(app.post("/whip/s", &golden("obs")).await.status, 307);
}

// WHIP-19, WHIP-20, ERR-04
#[tokio::test]
async fn a_redirect_comes_after_the_token_and_takes_it_along_if_told_so() {
    let redirects =
        Redirects { status: RedirectStatus::Permanent, with_token: true, ..redirects(&["*=https://b.example"]) };
    let config =
        SignalingConfig { redirects, tokens: named("cam"), protect_viewers: true, ..SignalingConfig::default() };
    let app = App::new(config);
    for path in ["/whip/cam", "/whep/cam"] {
        assert_eq!(app.post(path, &golden("obs")).await.status, 401);
        let own = ("authorization", "Bearer secret-of-cam");
        let reply = app.send("POST", path, &[own, ("content-type", "text/plain")], "").await;
        assert_eq!(reply.status, 308);
        assert_eq!(reply.header("location"), format!("https://b.example{path}?access_token=secret-of-cam"));
        assert_eq!(reply.header("cache-control"), "no-store");
    }
}
