//! What viewers are told of their stream while they watch it (WHEP's core extensions).

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod layers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use http::Request;
use media_core::ledger::Reason;
use media_core::stats::SessionStats;
use media_core::{CoreEvent, SessionId};
use signaling::{SignalingConfig, Tokens};
use support::{App, Reply, golden, now};
use tokio::sync::mpsc;
use tower::ServiceExt;

const JSON: (&str, &str) = ("content-type", "application/json");
const ALL: &str = "active,inactive,layers,reconnect,viewercount";

/// A stream `s` with a publisher; its URL and session.
async fn publish(app: &App) -> (String, SessionId) {
    let reply = app.post("/whip/s", &golden("chromium-publish")).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    (reply.header("location").to_owned(), app.core.last().id)
}

/// A viewer's reply.
async fn watch(app: &App) -> Reply {
    let reply = app.post("/whep/s", &golden("chromium-watch")).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply
}

/// The targets of a reply's `Link`s by their `rel`, and what they say besides.
fn links(reply: &Reply) -> HashMap<String, (String, String)> {
    let values = reply.headers.get_all("link").iter().map(|value| value.to_str().unwrap());
    let link = |value: &str| {
        let (target, parameters) = value.strip_prefix('<').unwrap().split_once(">; rel=\"").unwrap();
        let (rel, more) = parameters.split_once('"').unwrap();
        (rel.rsplit(':').next().unwrap().to_owned(), (target.to_owned(), more.to_owned()))
    };
    values.map(link).collect()
}

/// Where a viewer makes event streams.
fn sse(reply: &Reply) -> String {
    links(reply).remove("server-sent-events").unwrap().0
}

/// Makes an event stream of these kinds, or of all.
async fn listen(app: &App, sse: &str, kinds: Option<&str>) -> String {
    let reply = match kinds {
        Some(kinds) => app.send("POST", sse, &[JSON], kinds.to_owned()).await,
        None => app.send("POST", sse, &[], "").await,
    };
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.header("location").to_owned()
}

async fn end(app: &App, session: SessionId) {
    let stats = SessionStats::default();
    app.signaling.registry().apply(now(), CoreEvent::Ended { session, reason: Reason::PeerClosed, stats });
}

/// A reader of an event stream.
struct Events(BodyDataStream);

impl Events {
    async fn of(app: &App, path: &str) -> Events {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("access-control-allow-origin"), "*");
        Events(response.into_body().into_data_stream())
    }

    /// The next part as it is sent; `None` at the end.
    async fn part(&mut self) -> Option<String> {
        let part = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await.expect("nothing comes");
        part.map(|part| String::from_utf8(part.unwrap().to_vec()).unwrap())
    }

    /// The next event: its name and its data.
    async fn next(&mut self) -> (String, serde_json::Value) {
        let part = self.part().await.expect("the events are over");
        let lines: Vec<&str> = part.strip_suffix("\n\n").unwrap().split('\n').collect();
        let [name, data] = lines[..] else { panic!("{part:?}") };
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), data)
    }

    /// The names of the next events.
    async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.next().await.0);
        }
        names
    }
}

// EXT-01, WHEP-12
#[tokio::test]
async fn a_viewers_answer_says_where_events_are_unless_it_is_switched_off() {
    let app = App::new(SignalingConfig::default());
    let publisher = app.post("/whip/s", &golden("chromium-publish")).await;
    assert!(links(&publisher).is_empty());
    let reply = watch(&app).await;
    let (target, more) = links(&reply)["server-sent-events"].clone();
    assert_eq!(target, format!("{}/sse", reply.header("location")));
    assert_eq!(more, format!("; events=\"{ALL}\""));

    let public_base_url = Some("https://live.example/base".to_owned());
    let app = App::new(SignalingConfig { public_base_url, ..SignalingConfig::default() });
    publish(&app).await;
    let reply = watch(&app).await;
    assert_eq!(sse(&reply), format!("{}/sse", reply.header("location")));
    assert!(sse(&reply).starts_with("https://live.example/base/whep/s/"));

    let app = App::new(SignalingConfig { whep_extensions: false, ..SignalingConfig::default() });
    publish(&app).await;
    let reply = watch(&app).await;
    assert!(links(&reply).is_empty());
    for method in ["POST", "OPTIONS", "GET"] {
        let path = format!("{}/sse", reply.header("location"));
        assert_eq!(app.send(method, &path, &[], "").await.code(), "not-found");
    }
}

// EXT-02
#[tokio::test]
async fn an_event_stream_is_of_the_kinds_that_were_asked_for() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let sse = sse(&watch(&app).await);
    let of_one = listen(&app, &sse, Some("[\"viewercount\"]")).await;
    let (base, secret) = of_one.rsplit_once('/').unwrap();
    assert_eq!(base, sse);
    // EXT-13: at least 122 random bits.
    assert!(secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
    assert_eq!(
        Events::of(&app, &of_one).await.next().await,
        ("viewercount".into(), serde_json::json!({"viewercount": 1}))
    );
    let of_none = listen(&app, &sse, Some("[]")).await;
    let all = [
        listen(&app, &sse, None).await,
        listen(&app, &sse, Some(&format!("[\"{}\"]", ALL.replace(',', "\",\"")))).await,
    ];
    for path in all {
        let mut events = Events::of(&app, &path).await;
        assert_eq!(events.next().await, ("active".into(), serde_json::json!({})));
        assert_eq!(events.next().await.0, "viewercount");
    }
    let mut silent = Events::of(&app, &of_none).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), silent.part()).await.is_err());
}

// EXT-02
#[tokio::test]
async fn a_list_of_events_that_cannot_be_served_makes_no_event_stream() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let sse = sse(&watch(&app).await);
    for (body, status, code) in [
        ("[\"active\",\"scte35\"]", 400, "unknown-event"),
        ("[\"ACTIVE\"]", 400, "unknown-event"),
        ("[\"\"]", 400, "unknown-event"),
        ("{\"active\":true}", 400, "json-syntax"),
        ("\"active\"", 400, "json-syntax"),
        ("[1]", 400, "json-syntax"),
        ("[\"active\"", 400, "json-syntax"),
        ("\u{0}", 400, "json-syntax"),
    ] {
        let reply = app.send("POST", &sse, &[JSON], body).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{body}");
        assert_eq!(reply.header("location"), "");
    }
    let reply = app.send("POST", &sse, &[("content-type", "text/plain")], "[\"active\"]").await;
    assert_eq!((reply.code().as_str(), reply.header("accept-post")), ("unsupported-media-type", "application/json"));
    let reply = app.send("POST", &sse, &[JSON], format!("[\"{}\"]", "x".repeat(5000))).await;
    assert_eq!(reply.code(), "body-too-large");
    assert_eq!(app.signaling.registry().event_streams(), 0);
    let json = ("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(app.send("POST", &sse, &[json], "[\"active\"]").await.status, 201);
    let absent = sse.replace("/sse", "x/sse");
    assert_eq!(app.send("POST", &absent, &[], "").await.code(), "not-found");
}

// EXT-03
#[tokio::test]
async fn the_resources_of_events_answer_every_method() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let sse = sse(&watch(&app).await);
    let events = listen(&app, &sse, None).await;
    for (path, allow) in [(&sse, "OPTIONS, POST"), (&events, "OPTIONS, GET, HEAD, DELETE")] {
        let options = app.send("OPTIONS", path, &[], "").await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (200, allow));
        for method in ["PUT", "PATCH", "TRACE"] {
            let reply = app.send(method, path, &[], "").await;
            assert_eq!((reply.code().as_str(), reply.header("allow")), ("method-not-allowed", allow));
        }
    }
    let head = app.send("HEAD", &events, &[], "").await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
    let whip = events.replace("/whep/", "/whip/");
    let unknown = format!("{sse}/{}", "0".repeat(32));
    for path in [unknown.as_str(), &whip, &format!("{events}/x")] {
        assert_eq!(app.send("GET", path, &[], "").await.code(), "not-found", "{path}");
    }
    // HEAD took no event.
    assert_eq!(Events::of(&app, &events).await.names(2).await, ["active", "viewercount"]);
}

// EXT-03
#[tokio::test(start_paused = true)]
async fn an_event_stream_beats_every_15_seconds() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let path = listen(&app, &sse(&watch(&app).await), Some("[\"active\"]")).await;
    let mut events = Events::of(&app, &path).await;
    assert_eq!(events.next().await.0, "active");
    for _ in 0..3 {
        let before = now();
        assert_eq!(events.part().await.as_deref(), Some(":\n\n"));
        assert_eq!(now() - before, Duration::from_secs(15));
    }
}

// EXT-04, EXT-06
#[tokio::test]
async fn a_publication_that_comes_and_goes_is_told_whether_anybody_reads_or_not() {
    let app = App::new(SignalingConfig { require_live: false, ..SignalingConfig::default() });
    let (mut url, mut publisher) = publish(&app).await;
    app.send("DELETE", &url, &[], "").await;
    end(&app, publisher).await;
    let path = listen(&app, &sse(&watch(&app).await), Some("[\"active\",\"inactive\"]")).await;
    // No initial `inactive`.
    (url, publisher) = publish(&app).await;
    app.send("DELETE", &url, &[], "").await;
    end(&app, publisher).await;
    let mut events = Events::of(&app, &path).await;
    assert_eq!(events.names(2).await, ["active", "inactive"]);
    (_, publisher) = publish(&app).await;
    assert_eq!(events.next().await, ("active".into(), serde_json::json!({})));
    end(&app, publisher).await;
    assert_eq!(events.next().await, ("inactive".into(), serde_json::json!({})));
}

// EXT-06
#[tokio::test]
async fn a_publisher_that_takes_its_own_place_changes_nothing_for_viewers() {
    let app = App::new(SignalingConfig::default());
    let (_, first) = publish(&app).await;
    let path = listen(&app, &sse(&watch(&app).await), Some("[\"active\",\"inactive\"]")).await;
    let (_, second) = publish(&app).await;
    end(&app, first).await;
    end(&app, second).await;
    assert_eq!(Events::of(&app, &path).await.names(2).await, ["active", "inactive"]);
}

// EXT-05
#[tokio::test]
async fn an_event_stream_ends_by_delete_and_with_its_session() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let viewer = watch(&app).await;
    let (sse, id) = (sse(&viewer), app.core.last().id);
    let (one, two) = (listen(&app, &sse, None).await, listen(&app, &sse, None).await);
    let mut reader = Events::of(&app, &two).await;
    assert_eq!(app.send("DELETE", &one, &[], "").await.status, 200);
    for method in ["GET", "DELETE", "HEAD", "OPTIONS"] {
        assert_eq!(app.send(method, &one, &[], "").await.status, 404, "{method}");
    }
    assert_eq!(reader.names(2).await, ["active", "viewercount"]);
    end(&app, id).await;
    assert_eq!(reader.part().await, None);
    assert_eq!(app.send("GET", &two, &[], "").await.code(), "not-found");
    assert_eq!(app.send("POST", &sse, &[], "").await.code(), "not-found");
    assert_eq!(app.signaling.registry().event_streams(), 0);

    let viewer = watch(&app).await;
    let mut reader = Events::of(&app, &listen(&app, &self::sse(&viewer), None).await).await;
    assert_eq!(reader.names(2).await, ["active", "viewercount"]);
    assert_eq!(app.send("DELETE", viewer.header("location"), &[], "").await.status, 200);
    assert_eq!(reader.part().await, None);
}

// EXT-03
#[tokio::test]
async fn whoever_comes_back_to_an_event_stream_takes_it_over() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let path = listen(&app, &sse(&watch(&app).await), None).await;
    let mut first = Events::of(&app, &path).await;
    assert_eq!(first.names(2).await, ["active", "viewercount"]);
    let mut second = Events::of(&app, &path).await;
    assert_eq!(first.part().await, None);
    assert_eq!(second.names(2).await, ["active", "viewercount"]);
}

// EXT-07
#[tokio::test(start_paused = true)]
async fn viewers_are_told_how_many_they_are_now_and_then() {
    let app = App::new(SignalingConfig::default());
    let (core, events) = mpsc::unbounded_channel();
    tokio::spawn(Arc::clone(app.signaling.registry()).run(events));
    publish(&app).await;
    let path = listen(&app, &sse(&watch(&app).await), Some("[\"viewercount\"]")).await;
    let mut events = Events::of(&app, &path).await;
    assert_eq!(events.next().await.1["viewercount"], 1);
    for _ in 0..4 {
        watch(&app).await;
    }
    let last = app.core.last().id;
    assert_eq!(events.next().await.1["viewercount"], 5, "and not each of them by itself");
    end(&app, last).await;
    assert_eq!(events.next().await.1["viewercount"], 4);
    drop(core);
}

// EXT-08
#[tokio::test]
async fn viewers_are_sent_to_the_node_that_takes_over_part_by_part() {
    for (node, data) in [
        (Some("https://b.example/base"), serde_json::json!({"url": "https://b.example/base/whep/s"})),
        (None, serde_json::json!({})),
    ] {
        let app = App::new(SignalingConfig::default());
        publish(&app).await;
        let path = listen(&app, &sse(&watch(&app).await), Some("[\"reconnect\"]")).await;
        let place = app.core.last().id.0 as f64 / u64::MAX as f64;
        let mut events = Events::of(&app, &path).await;
        app.signaling.registry().send_viewers_away(place * 0.9, node);
        assert!(tokio::time::timeout(Duration::from_millis(20), events.part()).await.is_err());
        app.signaling.registry().send_viewers_away(1.0, node);
        assert_eq!(events.next().await, ("reconnect".into(), data));
    }
}

// EXT-13
#[tokio::test]
async fn an_event_stream_is_made_by_the_viewer_and_read_by_whoever_has_its_url() {
    let mut tokens = Tokens::default();
    tokens.add("s", "secret-of-s").unwrap();
    let session_url_suffices = false;
    let config = SignalingConfig { tokens, protect_viewers: true, session_url_suffices, ..SignalingConfig::default() };
    let app = App::new(config);
    let token = ("authorization", "Bearer secret-of-s");
    let sdp = ("content-type", "application/sdp");
    assert_eq!(app.send("POST", "/whip/s", &[token, sdp], golden("chromium-publish")).await.status, 201);
    let viewer = app.send("POST", "/whep/s", &[token, sdp], golden("chromium-watch")).await;
    let sse = sse(&viewer);
    assert_eq!(app.send("POST", &sse, &[], "").await.code(), "unauthorized");
    let wrong = ("authorization", "Bearer another-token-of-s");
    assert_eq!(app.send("POST", &sse, &[wrong], "").await.status, 401);
    let made = app.send("POST", &sse, &[token], "").await;
    assert_eq!(made.status, 201);
    let path = made.header("location");
    assert_eq!(Events::of(&app, path).await.names(2).await, ["active", "viewercount"]);
    assert_eq!(app.send("DELETE", path, &[], "").await.code(), "unauthorized");
    assert_eq!(app.send("DELETE", path, &[token], "").await.status, 200);
}

// EXT-02
#[tokio::test(start_paused = true)]
async fn event_streams_are_few_and_are_not_made_too_fast() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let sse = sse(&watch(&app).await);
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(listen(&app, &sse, None).await);
    }
    assert_eq!(app.signaling.registry().event_streams(), 4);
    for (path, status) in made.iter().zip([404, 404, 200, 200, 200, 200]) {
        assert_eq!(app.send("HEAD", path, &[], "").await.status, status);
    }
    let mut codes = Vec::new();
    for _ in 0..250 {
        let reply = app.send("POST", &sse, &[], "").await;
        codes.push(reply.status.as_u16());
    }
    assert_eq!((codes[0], codes[249]), (201, 429), "as PATCH and DELETE");
}
