//! What clients are told of STUN and TURN servers, and who is told.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::Duration;

use signaling::{AllowedOrigins, IceServers, Limits, SignalingConfig, Tokens, TurnCredentials};
use support::{App, Reply, golden};

const STUN: &str = "<stun:stun.example:3478>; rel=\"ice-server\"";

fn servers() -> IceServers {
    let urls = ["stun:stun.example:3478", "turn:turn.example?transport=udp", "turns:turn.example:443?transport=tcp"];
    IceServers {
        urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
        credentials: Some(TurnCredentials::TimeLimited {
            secret: "north-of-the-river".parse().unwrap(),
            lifetime: Duration::from_secs(600),
        }),
    }
}

fn config() -> SignalingConfig {
    SignalingConfig { ice_servers: servers(), ..SignalingConfig::default() }
}

fn guarded() -> App {
    let mut tokens = Tokens::default();
    tokens.add("cam", "secret-of-cam").unwrap();
    tokens.add("other", "secret-of-other").unwrap();
    App::new(SignalingConfig { tokens, protect_viewers: true, ..config() })
}

/// Those of the servers; a viewer's answer has others besides.
fn links(reply: &Reply) -> Vec<&str> {
    let links = reply.headers.get_all("link").iter().map(|link| link.to_str().unwrap());
    links.filter(|link| link.contains("rel=\"ice-server\"")).collect()
}

/// Name and password of a link, read as OBS reads them: by the order of the attributes.
fn credentials<'a>(link: &'a str, url: &str) -> (&'a str, &'a str) {
    let rest = link.strip_prefix(&format!("<{url}>; rel=\"ice-server\"; username=\"")).unwrap();
    let (username, rest) = rest.split_once("\"; credential=\"").unwrap();
    (username, rest.strip_suffix("\"; credential-type=\"password\"").unwrap())
}

// WHIP-22, WHIP-23, WHIP-25, WHEP-11
#[tokio::test]
async fn every_session_is_told_of_the_servers_with_credentials_of_its_own() {
    let app = App::new(config());
    let mut names = HashSet::new();
    for (path, offer) in [("/whip/s", "chromium-publish"), ("/whep/s", "chromium-watch"), ("/whep/s", "firefox-watch")]
    {
        let reply = app.post(path, &golden(offer)).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let [stun, turn, turns] = links(&reply)[..] else { panic!("{reply:?}") };
        assert_eq!(stun, STUN);
        let (name, password) = credentials(turn, "turn:turn.example?transport=udp");
        assert_eq!(credentials(turns, "turns:turn.example:443?transport=tcp"), (name, password));
        assert!(name.ends_with(&format!(":{}", app.core.last().id)) && password.len() == 28, "{turn}");
        // Whoever splits at commas finds none.
        assert!(!turn.contains(',') && reply.header("access-control-expose-headers").contains("Link"));
        assert!(names.insert(name.to_owned()) && names.insert(password.to_owned()));
    }
}

// WHIP-24, CORS-06
#[tokio::test]
async fn options_has_the_servers_and_their_credentials_for_who_may_open_a_session_alone() {
    let app = guarded();
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let reply = app.send("OPTIONS", path, headers, "").await;
        assert_eq!(reply.status, 200);
        let links: Vec<String> = links(&reply).into_iter().map(str::to_owned).collect();
        links
    };
    let own = ("authorization", "Bearer secret-of-cam");
    for path in ["/whip/cam", "/whep/cam"] {
        assert_eq!(ask(path, &[own]).await.len(), 3, "{path}");
        assert_ne!(ask(path, &[own]).await, ask(path, &[own]).await, "nobody else's credentials");
        for headers in [&[][..], &[("authorization", "Bearer secret-of-other")], &[("authorization", "Bearer guess")]] {
            assert_eq!(ask(path, headers).await, [STUN], "{path} {headers:?}");
        }
        let preflight = [("origin", "https://page.example"), ("access-control-request-method", "POST"), own];
        assert!(ask(path, &preflight).await.is_empty(), "{path}");
        // A page may ask of its own accord.
        assert_eq!(ask(path, &[("origin", "https://page.example"), own]).await.len(), 3);
    }
    // Where everybody may watch, every viewer may relay.
    let app = App::new(config());
    assert_eq!(links(&app.send("OPTIONS", "/whep/cam", &[], "").await).len(), 3);
}

// WHIP-24
#[tokio::test]
async fn credentials_are_not_made_faster_than_requests_may_come() {
    let limits = Limits { request_rate_per_address: 1, ..Limits::NONE };
    let app = App::new(SignalingConfig { limits, ..config() });
    let mut asked = 0;
    let refused = loop {
        let reply = app.send_from("192.0.2.1", "OPTIONS", "/whep/cam", &[], "").await;
        if reply.status != 200 {
            break reply;
        }
        asked += 1;
    };
    assert_eq!((asked, refused.code().as_str(), refused.header("retry-after")), (20, "too-many-requests", "1"));
    let preflight = [("origin", "https://page.example"), ("access-control-request-method", "POST")];
    assert_eq!(app.send_from("192.0.2.1", "OPTIONS", "/whep/cam", &preflight, "").await.status, 200);
}

#[tokio::test]
async fn a_page_that_may_not_use_the_server_is_told_of_none() {
    let allowed_origins = AllowedOrigins::Own(Vec::new());
    let app = App::new(SignalingConfig { allowed_origins, ..config() });
    let headers = [("host", "127.0.0.1"), ("origin", "https://evil.example")];
    let reply = app.send("OPTIONS", "/whep/cam", &headers, "").await;
    assert_eq!(links(&reply), [] as [&str; 0]);
}
