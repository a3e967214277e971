//! ICE restarts over PATCH (RFC 9725 §4.3.3): what the client gets, which tags count, and what the media core is told.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::Duration;

use media_core::{CoreEvent, IceMode, IceRestart, SessionId};
use signaling::SignalingConfig;
use support::{App, Reply, golden, now};

const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A session, published or watched.
struct Client {
    app: App,
    url: String,
    etag: String,
    answer: String,
    id: SessionId,
}

impl Client {
    async fn new(path: &str, offer: &str, config: SignalingConfig) -> Client {
        let app = App::new(config);
        if path == "/whep/s" {
            assert_eq!(app.post("/whip/s", &golden("chromium-publish")).await.status, 201);
        }
        let reply = app.post(path, &golden(offer)).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let (url, etag) = (reply.header("location").to_owned(), reply.header("etag").to_owned());
        let id = app.core.last().id;
        Client { app, url, etag, answer: reply.body, id }
    }

    async fn publisher() -> Client {
        Client::new("/whip/s", "chromium-publish", SignalingConfig::default()).await
    }

    async fn patch(&self, if_match: &str, fragment: &str) -> Reply {
        self.app.patch(&self.url, if_match, fragment).await
    }

    fn restarts(&self) -> Vec<IceRestart> {
        self.app.core.recorded().restarts.iter().map(|(_, restart)| restart.clone()).collect()
    }

    /// The media core is done with a restart.
    fn over(&self, restart: &IceRestart, completed: bool) {
        let (session, local_ufrag) = (self.id, restart.local.ufrag.clone());
        let event = CoreEvent::IceRestartOver { session, local_ufrag, completed };
        self.app.signaling.registry().apply(now(), event);
    }
}

/// A client's fragment with credentials of this name and so many candidates.
fn fragment(name: &str, candidates: usize) -> String {
    let mut text =
        format!("a=ice-ufrag:{name}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n", name.repeat(6));
    for port in 0..candidates {
        text.push_str(&format!("a=candidate:1 1 udp 2122260223 192.0.2.1 {} typ host ufrag {name}\r\n", 2_000 + port));
    }
    text
}

/// The values of an attribute in a description or fragment.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("a={name}");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|rest| rest.trim_start_matches(':')).collect()
}

fn is_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{}", reply.body);
}

// TRK-09, TRK-10, TRK-11, WHIP-05, WHIP-17
#[tokio::test]
async fn a_restart_is_answered_with_new_credentials_a_new_tag_and_all_candidates() {
    for (path, offer, ice_mode) in [
        ("/whip/s", "chromium-publish", IceMode::Lite),
        ("/whip/s", "obs", IceMode::Full),
        ("/whep/s", "chromium-watch", IceMode::Lite),
        ("/whep/s", "firefox-watch", IceMode::Full),
    ] {
        let config = SignalingConfig { ice_mode, ..SignalingConfig::default() };
        for if_match in ["*", "\"*\"", "the tag"] {
            let client = Client::new(path, offer, config.clone()).await;
            let if_match = if if_match == "the tag" { client.etag.as_str() } else { if_match };
            let reply = client.patch(if_match, &fragment("abcd", 3)).await;
            assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, FRAGMENT), "{}", reply.body);
            assert_eq!(reply.header("cache-control"), "no-store");
            let etag = reply.header("etag");
            assert!(etag != client.etag && etag.starts_with('"') && etag.ends_with('"') && etag.len() > 8, "{etag}");

            let [restart] = &client.restarts()[..] else { panic!("one restart") };
            let first = client.app.core.last();
            assert_eq!(
                (restart.remote.ufrag.as_str(), restart.remote.pwd.as_str()),
                ("abcd", "abcd".repeat(6).as_str())
            );
            assert_ne!(restart.local.ufrag, first.ice.local.ufrag);
            assert_ne!(restart.local.pwd, first.ice.local.pwd);
            assert_eq!(restart.remote_candidates.len(), 3, "they take the place of the former ones");

            let body = &reply.body;
            assert_eq!(values(body, "ice-ufrag"), [restart.local.ufrag.as_str()]);
            assert_eq!(values(body, "ice-pwd"), [restart.local.pwd.as_str()]);
            for name in ["ice-lite", "ice-options", "ice-pacing", "group"] {
                assert_eq!(values(body, name), values(&client.answer, name), "{name} is that of the answer");
            }
            let section = client.answer.lines().find(|line| line.starts_with("m=")).unwrap();
            let line = body.lines().find(|line| line.starts_with("m=")).unwrap();
            assert!(section.starts_with(line), "{line} for {section}");
            assert_eq!(values(body, "mid"), values(&client.answer, "mid")[..1]);
            let candidates = values(body, "candidate");
            assert_eq!(candidates, values(&client.answer, "candidate")[..candidates.len()]);
            assert!(candidates.len() == 2 && body.ends_with("a=end-of-candidates\r\n"), "{body}");
            assert!(body.split_terminator('\n').all(|line| line.ends_with('\r')));
        }
    }
}

// WHIP-05
#[tokio::test(start_paused = true)]
async fn every_ice_session_has_a_tag_and_credentials_of_its_own() {
    let client = Client::publisher().await;
    let mut tags = HashSet::from([client.etag.clone()]);
    let mut ufrags = HashSet::from([client.app.core.last().ice.local.ufrag]);
    for name in ["aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff"] {
        let reply = client.patch("*", &fragment(name, 0)).await;
        assert_eq!(reply.status, 200);
        assert!(tags.insert(reply.header("etag").to_owned()));
        assert!(ufrags.insert(client.restarts().last().unwrap().local.ufrag.clone()));
        client.over(client.restarts().last().unwrap(), true);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Going back to credentials that were used is a restart like any other.
    assert_eq!(client.patch("*", &fragment("aaaa", 0)).await.status, 200);
}

// TRK-06, TRK-10, TRK-14
#[tokio::test]
async fn after_a_restart_only_the_new_tag_counts() {
    let client = Client::publisher().await;
    let lone = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";
    is_problem(&client.patch("\"x\"", &fragment("abcd", 0)).await, 412, "precondition-failed");
    is_problem(&client.patch(&format!("W/{}", client.etag), &fragment("abcd", 0)).await, 412, "precondition-failed");
    let headers = [("content-type", FRAGMENT)];
    let missing = client.app.send("PATCH", &client.url, &headers, fragment("abcd", 0)).await;
    is_problem(&missing, 428, "precondition-required");
    assert!(client.restarts().is_empty());

    let reply = client.patch(&client.etag, &fragment("abcd", 1)).await;
    let etag = reply.header("etag").to_owned();
    for stale in [lone, "a=end-of-candidates\r\n", "", "nonsense", &fragment("other", 1)] {
        is_problem(&client.patch(&client.etag, stale).await, 412, "precondition-failed");
    }
    for if_match in [etag.as_str(), &format!("{}, {etag}", client.etag), "*"] {
        let reply = client.patch(if_match, lone).await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (204, ""), "{if_match}");
        assert!(!reply.headers.contains_key("etag"));
    }
    assert_eq!(client.app.core.recorded().candidates.len(), 3);

    // What was under way for long is of the generation before, and no restart.
    let remote = client.app.core.last().ice.remote;
    let old = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n{lone}", remote.ufrag, remote.pwd);
    for if_match in ["*", etag.as_str(), client.etag.as_str()] {
        is_problem(&client.patch(if_match, &old).await, 412, "precondition-failed");
    }
    assert_eq!(client.restarts().len(), 1);
}

// TRK-14
#[tokio::test]
async fn requests_in_any_order_leave_one_restart_and_the_candidates_of_its_generation() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        let client = Client::publisher().await;
        let remote = client.app.core.last().ice.remote;
        let old = format!(
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=candidate:1 1 udp 1 192.0.2.9 9000 typ host\r\n",
            remote.ufrag, remote.pwd
        );
        let mut statuses = [0; 3];
        for which in order {
            let restart = fragment("abcd", 2);
            let body = [old.as_str(), &restart, &restart][which];
            statuses[which] = client.patch(&client.etag, body).await.status.as_u16();
        }
        let trickle_first = order.iter().position(|&which| which == 0) == Some(0);
        assert_eq!(statuses, [if trickle_first { 204 } else { 412 }, 200, 200], "{order:?}");
        assert_eq!(client.restarts().len(), 1, "the second one repeats the first");
    }
    // At the same time, too.
    let client = Client::publisher().await;
    let (one, two) = (fragment("aaaa", 0), fragment("bbbb", 0));
    let (first, second) = tokio::join!(client.patch(&client.etag, &one), client.patch(&client.etag, &two));
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!((statuses, client.restarts().len()), ([200, 412], 1));
}

// TRK-15
#[tokio::test]
async fn a_restart_whose_answer_was_lost_gets_the_same_answer_again() {
    for if_match in ["*", "the tag"] {
        let client = Client::publisher().await;
        let if_match = if if_match == "the tag" { client.etag.as_str() } else { if_match };
        let first = client.patch(if_match, &fragment("abcd", 1)).await;
        for candidates in [1, 2] {
            let again = client.patch(if_match, &fragment("abcd", candidates)).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body));
            assert_eq!(again.header("etag"), first.header("etag"));
            assert_eq!(again.header("content-type"), FRAGMENT);
        }
        assert_eq!(client.restarts().len(), 1);
        // Once it is complete the client has had the answer: what it says now is of its candidates.
        client.over(&client.restarts()[0], true);
        assert_eq!(client.patch(first.header("etag"), &fragment("abcd", 1)).await.status, 204);
        assert_eq!(client.patch("*", &fragment("abcd", 1)).await.status, 204);
        is_problem(&client.patch(&client.etag, &fragment("abcd", 1)).await, 412, "precondition-failed");
    }
}

// TRK-13
#[tokio::test]
async fn a_restart_that_fails_leaves_the_session_with_the_tag_and_credentials_before_it() {
    let client = Client::publisher().await;
    let remote = client.app.core.last().ice.remote;
    let own = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=end-of-candidates\r\n", remote.ufrag, remote.pwd);
    let short = client.patch("*", &fragment("abc", 0)).await;
    is_problem(&short, 422, "sdp-ice-credentials");
    assert_eq!(client.patch(&client.etag, &own).await.status, 204);
    assert!(client.restarts().is_empty());

    let reply = client.patch("*", &fragment("abcd", 0)).await;
    client.over(&client.restarts()[0], false);
    assert_eq!(client.patch(&client.etag, &own).await.status, 204);
    is_problem(&client.patch(reply.header("etag"), &own).await, 412, "precondition-failed");
    assert_eq!(client.app.send("GET", &client.url, &[], "").await.status, 204);
    // Asked for once more it is another restart.
    let again = client.patch("*", &fragment("abcd", 0)).await;
    assert_eq!(again.status, 200);
    assert_ne!(again.header("etag"), reply.header("etag"));
}

// TRK-13: the media core does not say how the restarts before went.
#[tokio::test(start_paused = true)]
async fn restarts_that_pile_up_are_503_and_change_nothing() {
    let client = Client::publisher().await;
    for name in ["aaaa", "bbbb", "cccc"] {
        assert_eq!(client.patch("*", &fragment(name, 0)).await.status, 200);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let reply = client.patch("*", &fragment("dddd", 0)).await;
    is_problem(&reply, 503, "overloaded");
    assert_eq!((reply.header("retry-after"), client.restarts().len()), ("5", 3));
    client.over(&client.restarts()[2], true);
    assert_eq!(client.patch("*", &fragment("dddd", 0)).await.status, 200);
}

// TRK-17, ERR-06
#[tokio::test(start_paused = true)]
async fn restarts_are_one_a_second_and_five_at_once_and_repetitions_do_not_count() {
    let client = Client::publisher().await;
    let restart = async |name: &str| {
        let reply = client.patch("*", &fragment(name, 0)).await;
        if reply.status == 200 {
            client.over(client.restarts().last().unwrap(), true);
        }
        reply
    };
    for name in ["aaaa", "bbbb", "cccc", "dddd", "eeee"] {
        assert_eq!(restart(name).await.status, 200);
    }
    let reply = restart("ffff").await;
    is_problem(&reply, 429, "too-many-requests");
    assert!(reply.body.contains("restart-rate-per-session"), "{}", reply.body);
    assert_eq!(reply.header("retry-after"), "1");
    tokio::time::advance(Duration::from_secs(1)).await;
    let first = client.patch("*", &fragment("ffff", 0)).await;
    let again = client.patch("*", &fragment("ffff", 0)).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
    is_problem(&client.patch("*", &fragment("gggg", 0)).await, 429, "too-many-requests");
}

// F-08, TRK-11
#[tokio::test]
async fn a_restart_names_as_many_candidates_as_an_offer_and_no_more() {
    let client = Client::publisher().await;
    for _ in 0..2 {
        client.patch(&client.etag, &fragment("abcd", 90).replace("a=ice", "a=x")).await;
    }
    let reply = client.patch("*", &fragment("abcd", 90)).await;
    assert_eq!((reply.status.as_u16(), client.restarts()[0].remote_candidates.len()), (200, 90));
    client.app.core.recorded().candidates.clear();
    assert_eq!(client.patch(reply.header("etag"), &fragment("abcd", 90)).await.status, 204);
    assert_eq!(client.app.core.recorded().candidates.len(), 10);
}

// TRK-16
#[tokio::test]
async fn a_session_that_is_over_is_not_restarted() {
    let client = Client::publisher().await;
    let reply = client.patch("*", &fragment("abcd", 0)).await;
    assert_eq!(client.app.send("DELETE", &client.url, &[], "").await.status, 200);
    for (if_match, name) in [("*", "bbbb"), ("*", "abcd"), (reply.header("etag"), "abcd")] {
        is_problem(&client.patch(if_match, &fragment(name, 0)).await, 404, "not-found");
    }
    let client = Client::publisher().await;
    let body = fragment("abcd", 0);
    let (patched, deleted) = tokio::join!(client.patch("*", &body), client.app.send("DELETE", &client.url, &[], ""));
    assert_eq!(deleted.status, 200);
    assert!([200, 404].contains(&patched.status.as_u16()), "{}", patched.status);
    is_problem(&client.patch("*", &body).await, 404, "not-found");
}

// TRK-07
#[tokio::test]
async fn leniency_about_if_match_is_for_candidates_and_not_for_restarts() {
    let config = SignalingConfig { lenient_if_match: true, ..SignalingConfig::default() };
    let client = Client::new("/whip/s", "chromium-publish", config).await;
    let headers = [("content-type", FRAGMENT)];
    let reply = client.app.send("PATCH", &client.url, &headers, fragment("abcd", 0)).await;
    is_problem(&reply, 428, "precondition-required");
    client.patch("*", &fragment("abcd", 0)).await;
    let reply = client.app.send("PATCH", &client.url, &headers, fragment("abcd", 1)).await;
    assert_eq!(reply.status, 204);
}

/// The switches off that are false.
fn switched(trickle: bool, ice_restart: bool) -> SignalingConfig {
    SignalingConfig { trickle, ice_restart, ..SignalingConfig::default() }
}

// WHIP-16
#[tokio::test]
async fn where_trickle_is_off_candidates_are_422_and_restarts_are_served() {
    for (path, offer) in [("/whip/s", "chromium-publish"), ("/whep/s", "chromium-watch")] {
        let client = Client::new(path, offer, switched(false, true)).await;
        assert_eq!(values(&client.answer, "ice-options"), ["ice2"]);
        let ufrag = client.app.core.last().ice.remote.ufrag;
        for fragment in ["a=end-of-candidates\r\n".to_owned(), fragment(&ufrag, 1).replace("a=ice-pwd", "a=x")] {
            is_problem(&client.patch(&client.etag, &fragment).await, 422, "trickle-unsupported");
        }
        assert!(client.app.core.recorded().candidates.is_empty());
        is_problem(&client.patch("\"other\"", "a=end-of-candidates\r\n").await, 412, "precondition-failed");

        let reply = client.patch("*", &fragment("abcd", 2)).await;
        assert_eq!((reply.status.as_u16(), values(&reply.body, "ice-options")), (200, vec!["ice2"]));
        assert_eq!(client.restarts()[0].remote_candidates.len(), 2, "those of the restart itself are taken");
        let options = client.app.send("OPTIONS", &client.url, &[], "").await;
        assert_eq!(options.header("accept-patch"), FRAGMENT);
    }
}

// WHIP-17
#[tokio::test]
async fn where_restarts_are_off_they_are_422_and_candidates_are_taken() {
    for (path, offer) in [("/whip/s", "chromium-publish"), ("/whep/s", "chromium-watch")] {
        let client = Client::new(path, offer, switched(true, false)).await;
        assert_eq!(values(&client.answer, "ice-options"), ["trickle ice2"]);
        is_problem(&client.patch("*", &fragment("abcd", 1)).await, 422, "restart-unsupported");
        assert!(client.restarts().is_empty());
        let candidate = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        assert_eq!(client.patch(&client.etag, candidate).await.status, 204, "the session goes on");
        assert_eq!(client.app.core.recorded().candidates.len(), 1);
    }
}

// WHIP-16, WHIP-17, HTTP-05, CORS-02, Q-28
#[tokio::test]
async fn where_both_are_off_patch_is_no_method_of_a_session() {
    let app = App::new(switched(false, false));
    let created = app.post("/whip/s", &golden("chromium-publish")).await;
    assert_eq!((created.status.as_u16(), created.header("accept-patch")), (201, ""));
    let url = created.header("location");
    for method in ["PATCH", "PUT"] {
        let reply = app.send(method, url, &[("content-type", FRAGMENT), ("if-match", "*")], fragment("abcd", 0)).await;
        is_problem(&reply, 405, "method-not-allowed");
        assert_eq!((reply.header("allow"), reply.header("accept-patch")), ("OPTIONS, GET, HEAD, DELETE", ""));
    }
    let options = app.send("OPTIONS", url, &[("origin", "https://page.example")], "").await;
    assert_eq!((options.header("allow"), options.header("accept-patch")), ("OPTIONS, GET, HEAD, DELETE", ""));
    assert_eq!(options.header("access-control-allow-methods"), "OPTIONS, GET, HEAD, POST, DELETE");
    let wrong = created.header("location").replace("/s/", "/s/0");
    is_problem(&app.send("PATCH", &wrong, &[], "").await, 404, "not-found");
    assert_eq!(app.send("DELETE", url, &[], "").await.status, 200);
}
