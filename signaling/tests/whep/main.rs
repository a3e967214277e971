//! What a server lets a viewer do that is a matter of its settings, and where it sends those whom another node serves.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use media_core::CoreEvent;
use media_core::ledger::Reason;
use media_core::media::MediaKind;
use media_core::stats::SessionStats;
use signaling::{RedirectStatus, Redirects, SignalingConfig, Tokens, UnknownStream};
use support::{App, golden, now};

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

// WHEP-05, WHEP-06
#[tokio::test]
async fn how_a_stream_without_publisher_is_told_of_is_a_matter_of_the_settings() {
    let offer = golden("chromium-watch");
    let not_live_retry = Duration::from_millis(2500);
    let app = App::new(SignalingConfig { not_live_retry, tokens: named("cam"), ..SignalingConfig::default() });
    let reply = app.post("/whep/cam", &offer).await;
    assert_eq!((reply.code().as_str(), reply.header("retry-after")), ("stream-not-live", "3"));
    assert_eq!(app.post("/whep/elsewhere", &offer).await.status, 404);

    let unknown_stream = UnknownStream::NotLive;
    let app = App::new(SignalingConfig { unknown_stream, ..SignalingConfig::default() });
    let reply = app.post("/whep/elsewhere", &offer).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (409, "stream-not-live"));
    assert_eq!(reply.header("retry-after"), "5");
    // Nothing of it is kept.
    assert_eq!(app.signaling.registry().known_streams(), 0);
}

// WHEP-05
#[tokio::test]
async fn a_viewer_that_may_wait_is_answered_with_all_that_both_sides_know() {
    let config = || SignalingConfig { require_live: false, ..SignalingConfig::default() };
    let app = App::new(SignalingConfig { tokens: named("s"), ..config() });
    let reply = app.post("/whep/s", &golden("chromium-watch")).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let codecs = |reply: &str| -> Vec<&'static str> {
        ["opus", "VP8", "VP9", "H264", "AV1"].into_iter().filter(|codec| reply.contains(codec)).collect()
    };
    assert_eq!(codecs(&reply.body), ["opus", "VP8", "VP9", "H264", "AV1"]);
    assert_eq!(app.core.last().sections.len(), 2);
    assert_eq!(app.post("/whep/unknown", &golden("chromium-watch")).await.status, 404);

    // What the last publisher sent binds nobody: the next one may send video again.
    let app = App::new(config());
    let audio_only = golden("chromium-publish");
    let audio_only = audio_only[..audio_only.find("m=video").unwrap()].replace("BUNDLE 0 1", "BUNDLE 0");
    let publisher = publish(&app, &audio_only).await;
    let id = app.core.last().id;
    let live = app.post("/whep/s", &golden("chromium-watch")).await;
    assert!(live.body.contains("m=video 0 "), "{}", live.body);
    app.send("DELETE", &publisher, &[], "").await;
    let stats = SessionStats::default();
    app.signaling.registry().apply(now(), CoreEvent::Ended { session: id, reason: Reason::Deleted, stats });
    assert_eq!(app.post("/whep/s", &golden("chromium-watch")).await.status, 201);
    let kinds: Vec<MediaKind> = app.core.last().sections.iter().map(|section| section.kind).collect();
    assert_eq!(kinds, [MediaKind::Video, MediaKind::Audio], "in the order of the offer");
    let reply = app.post("/whep/s", &golden("chromium-watch").replace("a=recvonly", "a=sendonly")).await;
    assert_eq!(reply.code(), "sdp-direction");
}

// WHEP-03
#[tokio::test]
async fn a_second_section_of_a_kind_is_rejected_or_an_error() {
    let offer = golden("firefox-h264-watch");
    let second = offer[offer.find("m=video").unwrap()..].replace("a=mid:1", "a=mid:2");
    let two = format!("{offer}{second}").replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    for (strict_sections, status) in [(false, 201), (true, 422)] {
        let app = App::new(SignalingConfig { strict_sections, ..SignalingConfig::default() });
        publish(&app, &golden("chromium-publish")).await;
        let reply = app.post("/whep/s", &two).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        if strict_sections {
            assert_eq!(reply.code(), "sdp-duplicate-kind");
        }
        assert_eq!(app.post("/whep/s", &offer).await.status, 201);
    }
}

// WHIP-28, SDP-15
#[tokio::test]
async fn rtcp_mux_only_stands_in_answers_unless_it_is_switched_off() {
    for (answer_rtcp_mux_only, lines) in [(true, 2), (false, 0)] {
        let app = App::new(SignalingConfig { answer_rtcp_mux_only, ..SignalingConfig::default() });
        for (path, offer) in [("/whip/s", "chromium-publish"), ("/whep/s", "chromium-watch")] {
            let answer = app.post(path, &golden(offer)).await.body;
            assert_eq!(answer.matches("a=rtcp-mux-only\r\n").count(), lines, "{answer}");
            assert_eq!(answer.matches("a=rtcp-mux\r\n").count(), 2, "{answer}");
        }
    }
}

// WHIP-15, OPS-01
#[tokio::test(start_paused = true)]
async fn a_tombstone_lasts_as_long_as_it_is_set_to() {
    let app = App::new(SignalingConfig { tombstone: Duration::from_secs(7), ..SignalingConfig::default() });
    let session = publish(&app, &golden("obs")).await;
    let (id, stats) = (app.core.last().id, SessionStats::default());
    app.signaling.registry().apply(now(), CoreEvent::Ended { session: id, reason: Reason::PeerClosed, stats });
    tokio::time::advance(Duration::from_millis(6999)).await;
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    for method in ["GET", "PATCH"] {
        assert_eq!(app.send(method, &session, &[], "").await.status, 404, "{method}");
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 404);
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

// WHIP-26, WHEP-12
#[tokio::test]
async fn no_extension_is_advertised_and_none_is_there() {
    // Those of WHEP, which viewers have by default, are tested by themselves.
    let app = App::new(SignalingConfig { whep_extensions: false, ..SignalingConfig::default() });
    for (path, offer) in [("/whip/s", "chromium-publish"), ("/whep/s", "chromium-watch")] {
        let reply = app.post(path, &golden(offer)).await;
        assert_eq!((reply.status.as_u16(), reply.header("link")), (201, ""));
        let session = reply.header("location").to_owned();
        for extension in ["sse", "layer", "ext/anything"] {
            for method in ["GET", "POST", "OPTIONS"] {
                let reply = app.send(method, &format!("{session}/{extension}"), &[], "{}").await;
                assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not-found"), "{method} {extension}");
            }
        }
    }
}

// TRK-18
#[tokio::test]
async fn an_offer_is_good_whether_or_not_more_candidates_may_come() {
    let app = App::new(SignalingConfig::default());
    let trickling = golden("chromium-publish");
    assert!(trickling.contains("a=ice-options:trickle"));
    for (stream, offer) in [("a", trickling.clone()), ("b", trickling.replace("a=ice-options:trickle\r\n", ""))] {
        assert_eq!(app.post(&format!("/whip/{stream}"), &offer).await.status, 201);
        let view = app.signaling.registry().session(app.core.last().id).unwrap();
        assert_eq!(view.stages[0].detail.contains("more may come"), stream == "a", "{}", view.stages[0].detail);
    }
}
