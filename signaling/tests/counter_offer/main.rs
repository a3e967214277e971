//! Offers of the server's own to viewers whose offers it cannot serve (WHEP §4.3.2).

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use media_core::media::{Codec, MediaKind, TrackId};
use media_core::negotiation::{FormatInUse, Profile};
use media_core::{CoreEvent, DtlsRole, IceMode, SessionId};
use signaling::{Limits, SignalingConfig, Tokens};
use support::{App, Reply, golden};

const FRAGMENT: &str = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";

fn config() -> SignalingConfig {
    SignalingConfig { counter_offer: true, ice_mode: IceMode::Full, ..SignalingConfig::default() }
}

/// A stream of Opus and whatever Chromium sends, and its publisher.
async fn published(config: SignalingConfig) -> (App, SessionId) {
    let app = App::new(config);
    let reply = app.post("/whip/s", &golden("chromium-publish")).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let publisher = app.core.last().id;
    (app, publisher)
}

/// An offer with nothing that the stream may be.
fn unservable() -> String {
    golden("chromium-watch").replace("a=rtpmap:", "a=x-rtpmap:").replace(" 0 8 ", " ").replace(" 9 ", " ")
}

async fn refused(app: &App) -> Reply {
    let reply = app.post("/whep/s", &unservable()).await;
    assert_eq!(reply.status, 406, "{}", reply.body);
    reply
}

/// What a browser answers.
fn answer(offer: &str) -> String {
    let dropped = ["a=ssrc", "a=msid:", "a=candidate", "a=end-of-candidates", "a=ice-lite"];
    let lines = offer.split("\r\n").filter(|line| !dropped.iter().any(|start| line.starts_with(start)));
    let lines = lines.map(|line| match line.split(':').next().unwrap() {
        "a=ice-ufrag" => "a=ice-ufrag:EsAw".to_owned(),
        "a=ice-pwd" => "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1".to_owned(),
        "a=setup" => "a=setup:active".to_owned(),
        "a=sendonly" => "a=recvonly".to_owned(),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

async fn patch(app: &App, path: &str, body: &str) -> Reply {
    app.send("PATCH", path, &[("content-type", "application/sdp")], body.to_owned()).await
}

// WHEP-07, WHEP-08, WHEP-09, CORS-02
#[tokio::test]
async fn an_offer_that_cannot_be_served_is_answered_with_one_that_can() {
    let (app, _) = published(config()).await;
    let reply = refused(&app).await;
    let (media_type, valid_until) = reply.header("content-type").split_once("; valid-until=\"").unwrap();
    assert!(media_type == "application/sdp" && valid_until.ends_with(" GMT\""), "{reply:?}");
    assert!(reply.header("etag").starts_with('"') && reply.header("cache-control") == "no-store");
    let session = reply.header("location").to_owned();
    let both = "application/sdp, application/trickle-ice-sdpfrag";
    assert_eq!(reply.header("accept-patch"), both);
    let offer = reply.body;
    assert!(offer.starts_with("v=0\r\n") && offer.len() < 8192, "{offer}");
    for (line, times) in [
        ("a=ice-lite\r\n", 1),
        ("a=group:BUNDLE 0 1\r\n", 1),
        ("a=setup:actpass\r\n", 2),
        ("a=sendonly\r\n", 2),
        ("a=rtcp-mux\r\n", 2),
        ("a=end-of-candidates\r\n", 2),
        ("a=candidate:", 4),
        ("a=ssrc-group:FID ", 1),
        ("m=audio 9 UDP/TLS/RTP/SAVPF ", 1),
        ("m=video 9 UDP/TLS/RTP/SAVPF ", 1),
        ("opus/48000/2\r\n", 1),
        ("red/48000", 0),
    ] {
        assert_eq!(offer.matches(line).count(), times, "{line} in {offer}");
    }
    // Nothing has begun.
    assert_eq!((app.core.recorded().opened.len(), app.signaling.registry().counts().viewers), (1, 0));
    for method in ["GET", "HEAD"] {
        assert_eq!(app.send(method, &session, &[], "").await.status, 204);
    }
    let options = app.send("OPTIONS", &session, &[], "").await;
    assert_eq!((options.status.as_u16(), options.header("accept-patch")), (200, both));

    let answer = answer(&offer);
    let taken = patch(&app, &session, &answer).await;
    assert_eq!((taken.status.as_u16(), taken.body.as_str()), (204, ""), "{taken:?}");
    let spec = app.core.last();
    assert!(session.starts_with("/whep/s/") && spec.ice.mode == IceMode::Lite && spec.dtls.role == DtlsRole::Server);
    assert!(offer.contains(&format!("a=ice-ufrag:{}\r\n", spec.ice.local.ufrag)));
    assert_eq!(spec.ice.remote.ufrag, "EsAw");
    let kinds: Vec<MediaKind> = spec.sections.iter().map(|section| section.kind).collect();
    assert_eq!(kinds, [MediaKind::Audio, MediaKind::Video]);
    for section in &spec.sections {
        let ssrcs = section.send_ssrcs.unwrap();
        assert!(offer.contains(&format!("a=ssrc:{} cname:{}\r\n", ssrcs.media, spec.cname)), "{offer}");
    }
    assert_eq!(app.signaling.registry().counts().viewers, 1);

    // The reply was lost: the same answer is fine, another one comes too late.
    assert_eq!(patch(&app, &session, &answer).await.status, 204);
    let other = patch(&app, &session, &answer.replace("EsAw", "WaEs")).await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (409, "already-answered"));
    assert_eq!(app.core.recorded().opened.len(), 2);
    // It is a session as any other now.
    assert_eq!(app.patch(&session, reply.headers["etag"].to_str().unwrap(), FRAGMENT).await.status, 204);
    assert_eq!(app.core.recorded().candidates.len(), 1);
    assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    assert_eq!(patch(&app, &session, &answer).await.status, 404);
}

// WHEP-09
#[tokio::test]
async fn an_answer_must_fit_the_offer() {
    let (app, _) = published(config()).await;
    let reply = refused(&app).await;
    let session = reply.header("location").to_owned();
    let good = answer(&reply.body);
    let video = good.find("m=video").unwrap();
    let emptied = good.split("\r\n").map(|line| match line.split_once("SAVPF ") {
        Some((media, _)) => format!("{media}SAVPF 126"),
        None => line.to_owned(),
    });
    let without_formats = emptied.collect::<Vec<_>>().join("\r\n");
    for (body, status, code) in [
        (String::new(), 400, "empty-body"),
        ("v=0".to_owned(), 400, "sdp-syntax"),
        (good.replace("a=setup:active", "a=setup:actpass"), 422, "sdp-setup"),
        (good.replace("a=setup:active\r\n", ""), 422, "sdp-setup"),
        (good.replace("a=recvonly", "a=sendrecv"), 422, "sdp-direction"),
        (good.replace("a=recvonly", "a=sendonly"), 422, "sdp-direction"),
        (good.replace("a=recvonly", "a=inactive"), 422, "sdp-semantics"),
        (good[..video].to_owned(), 422, "sdp-semantics"),
        (good.replace("a=mid:1", "a=mid:x"), 422, "sdp-semantics"),
        (good.replace("m=video", "m=audio"), 422, "sdp-semantics"),
        (good.replace("a=rtcp-mux\r\n", "").replace("a=rtcp-mux-only\r\n", ""), 422, "sdp-rtcp-mux"),
        (without_formats, 422, "sdp-no-common-codec"),
        (good.replace("a=ice-pwd", "a=x-ice-pwd"), 422, "sdp-ice-credentials"),
        (good.replace("a=fingerprint", "a=x-fingerprint"), 422, "sdp-fingerprint"),
    ] {
        let reply = patch(&app, &session, &body).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{body:.60}");
    }
    let reply = app.send("PATCH", &session, &[("content-type", "text/plain")], good.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (415, "unsupported-media-type"));
    assert!(reply.header("accept-patch").starts_with("application/sdp, "));
    let early = app.patch(&session, "*", FRAGMENT).await;
    assert_eq!((early.status.as_u16(), early.code().as_str()), (409, "answer-missing"));
    assert_eq!(app.send("PUT", &session, &[], "").await.status, 405);
    assert_eq!(app.core.recorded().opened.len(), 1);

    // One that takes less than was offered is good; what it invents is passed over.
    let (head, tail) = good.split_at(video);
    let dtls_client =
        format!("{head}{}", tail.replace("a=recvonly", "a=inactive")).replace("setup:active", "setup:passive");
    let invented = dtls_client.replace(
        "a=mid:0\r\n",
        "a=mid:0\r\na=rtpmap:126 PCMA/8000\r\na=extmap:13 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
    );
    assert_eq!(patch(&app, &session, &invented).await.status, 204);
    let spec = app.core.last();
    assert_eq!((spec.sections.len(), spec.dtls.role), (1, DtlsRole::Client));
    assert!(spec.sections[0].formats.iter().all(|format| format.payload_type != 126));
    assert!(spec.sections[0].extensions.iter().all(|(_, id)| id < 8));
}

// WHEP-08, OPS-01
#[tokio::test(start_paused = true)]
async fn a_counter_offer_lasts_30_seconds_and_may_be_taken_back() {
    let (app, _) = published(config()).await;
    for (wait, status) in [(29, 204), (30, 404)] {
        let reply = refused(&app).await;
        tokio::time::advance(Duration::from_secs(wait)).await;
        assert_eq!(patch(&app, reply.header("location"), &answer(&reply.body)).await.status, status, "{wait} s");
    }
    let reply = refused(&app).await;
    assert_eq!(app.send("DELETE", reply.header("location"), &[], "").await.status, 200);
    assert_eq!(patch(&app, reply.header("location"), &answer(&reply.body)).await.status, 404);
    let config = SignalingConfig { counter_offer_timeout: Duration::from_secs(2), ..config() };
    let (app, _) = published(config).await;
    let reply = refused(&app).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(app.send("GET", reply.header("location"), &[], "").await.status, 404);
}

// WHEP-07, WHEP-10, HTTP-08
#[tokio::test]
async fn there_is_none_where_it_is_off_or_nothing_can_be_offered_or_the_offer_is_no_sdp() {
    let (app, _) = published(SignalingConfig::default()).await;
    assert_eq!(app.post("/whep/s", &unservable()).await.code(), "sdp-no-common-codec");
    let (app, _) = published(config()).await;
    assert_eq!(app.post("/whep/s", "v=0").await.code(), "sdp-syntax");
    assert_eq!(app.post("/whip/other", &unservable()).await.code(), "sdp-direction", "publishers get none");
    assert_eq!(app.post("/whep/s", &golden("chromium-watch")).await.status, 201);
    let mut tokens = Tokens::default();
    tokens.add("known", "secret-of-known").unwrap();
    let app = App::new(SignalingConfig { require_live: false, tokens, ..config() });
    assert_eq!(app.post("/whep/known", &unservable()).await.code(), "sdp-no-common-codec", "no track is known");
    let (app, _) = published(config()).await;
    app.signaling.registry().drain();
    assert_eq!(app.post("/whep/s", &unservable()).await.code(), "overloaded");
}

// WHEP-07, WHEP-14
#[tokio::test]
async fn the_format_in_use_is_offered_first_and_as_the_stream_says_it_is() {
    let (app, publisher) = published(config()).await;
    let sections = app.core.recorded().opened[0].1.sections.clone();
    let h264 = sections.iter().flat_map(|section| &section.formats).find(|format| format.codec == Codec::H264).unwrap();
    let mut high = h264.clone();
    high.fmtp = "profile-level-id=640c1f".to_owned();
    let profile = Profile::described(&high).unwrap();
    let in_use = FormatInUse { payload_type: h264.payload_type, profile };
    let event = CoreEvent::FormatInUse { session: publisher, track: TrackId::VIDEO, in_use };
    app.signaling.registry().apply(support::now(), event);
    let reply = refused(&app).await;
    let video = &reply.body[reply.body.find("m=video").unwrap()..];
    let first = video.split(' ').nth(3).unwrap();
    assert!(video.contains(&format!("a=rtpmap:{first} H264/90000\r\n")), "{video}");
    let fmtp = video.split("\r\n").find(|line| line.starts_with(&format!("a=fmtp:{first} "))).unwrap();
    assert!(fmtp.contains("profile-level-id=640c1f"), "{fmtp}");
    assert_eq!(patch(&app, reply.header("location"), &answer(&reply.body)).await.status, 204);
}

// AUTH-03, WHIP-21
#[tokio::test]
async fn a_counter_offer_is_its_viewers_and_counts_as_a_session_once_it_is_answered() {
    let mut tokens = Tokens::default();
    for line in ["s=secret-of-s", "s=another-of-s"] {
        tokens.push(line.parse().unwrap());
    }
    let limits = Limits { max_sessions: 1, ..Limits::NONE };
    let config = SignalingConfig { tokens, protect_viewers: true, limits, ..config() };
    let app = App::new(config);
    let send = async |method: &str, path: &str, token: &str, body: String| {
        let headers = [("content-type", "application/sdp"), ("authorization", token)];
        app.send(method, path, &headers, body).await
    };
    let (own, foreign) = ("Bearer secret-of-s", "Bearer another-of-s");
    assert_eq!(send("POST", "/whip/s", own, golden("chromium-publish")).await.status, 201);
    let reply = send("POST", "/whep/s", own, unservable()).await;
    assert_eq!(reply.status, 406, "{}", reply.body);
    let (session, answer) = (reply.header("location"), answer(&reply.body));
    assert_eq!(send("PATCH", session, foreign, answer.clone()).await.code(), "forbidden");
    assert_eq!(send("DELETE", session, foreign, String::new()).await.code(), "forbidden");
    assert_eq!(send("PATCH", session, "Bearer guess", answer.clone()).await.code(), "unauthorized");
    // There is no room: the offer waits on.
    assert_eq!(send("PATCH", session, own, answer).await.code(), "overloaded");
    assert_eq!(send("GET", session, own, String::new()).await.status, 204);
}

// OPS-08
#[tokio::test]
async fn offers_that_nobody_answers_push_out_those_of_their_own_address() {
    let limits = Limits::NONE;
    let (app, _) = published(SignalingConfig { limits, ..config() }).await;
    let post = async |address: &str| {
        let headers = [("content-type", "application/sdp")];
        let reply = app.send_from(address, "POST", "/whep/s", &headers, unservable()).await;
        assert_eq!(reply.status, 406, "{}", reply.body);
        reply.header("location").to_owned()
    };
    let other = post("198.51.100.1").await;
    let first = post("192.0.2.1").await;
    for _ in 0..500 {
        post("192.0.2.1").await;
    }
    assert_eq!(app.send("GET", &first, &[], "").await.status, 404);
    assert_eq!(app.send("GET", &other, &[], "").await.status, 204);
}

// WHEP-08, WHIP-16
#[tokio::test]
async fn the_answer_is_taken_by_patch_where_fragments_are_not() {
    let (app, _) = published(SignalingConfig { trickle: false, ice_restart: false, ..config() }).await;
    let reply = refused(&app).await;
    assert_eq!(reply.header("accept-patch"), "application/sdp");
    let session = reply.header("location").to_owned();
    let options = app.send("OPTIONS", &session, &[], "").await;
    assert_eq!(options.header("accept-patch"), "application/sdp");
    assert_eq!(options.header("allow"), "OPTIONS, GET, HEAD, PATCH, DELETE");
    let answer = answer(&reply.body);
    assert_eq!(patch(&app, &session, &answer).await.status, 204);
    assert_eq!(patch(&app, &session, &answer).await.status, 204, "once more, as the reply may have been lost");
    assert_eq!(app.patch(&session, "*", "a=end-of-candidates\r\n").await.code(), "method-not-allowed");
}
