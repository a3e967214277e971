//! What decides nothing is accepted, as odd as it may be; what decides media or security is not guessed.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};

use media_core::media::{Codec, MediaKind, Role, TrackId};
use media_core::negotiation::FormatInUse;
use media_core::{CoreEvent, SessionSpec};
use signaling::{Observer, Signaling, SignalingConfig, Tokens, router};
use support::{App, FakeMediaPlane, Reply, Sdp, golden, lint, media_line, values};

const MID: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

/// Posts a publisher's offer; the reply, and the session that it opened.
async fn whip(offer: &str) -> (Reply, Option<SessionSpec>) {
    let app = App::new(SignalingConfig::default());
    let reply = app.post("/whip/s", offer).await;
    let opened = app.core.recorded().opened.pop().map(|(_, spec)| spec);
    (reply, opened)
}

/// Posts a publisher's offer that is taken.
async fn taken(offer: &str) -> (Reply, SessionSpec) {
    let (reply, opened) = whip(offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    (reply, opened.unwrap())
}

// F-20
#[tokio::test]
async fn what_stands_around_the_media_decides_nothing() {
    let offer = golden("obs");
    let (_, expected) = taken(&offer).await;
    let origin = "o=rtc 1768123456 0 IN IP4 127.0.0.1";
    let variants = [
        offer.replace(origin, "o=- 1001 1 IN "),
        offer.replace(origin, "o=-"),
        offer.replace(&format!("{origin}\r\n"), ""),
        offer.replace("m=audio", "\r\nm=audio"),
        offer.replace("m=video", "\r\n\r\nm=video"),
        format!("\r\n{offer}"),
        format!("\u{feff}{offer}"),
        format!("{offer}\0"),
        offer.replace("\r\n", "\n"),
        offer.replace("\r\n", "  \r\n"),
        offer.replace("\r\n", "\r\n  "),
        offer.replace("s=-\r\n", ""),
        offer.replace("t=0 0\r\n", ""),
        offer.replace("c=IN IP4 0.0.0.0\r\n", ""),
        offer.replace("c=IN IP4 0.0.0.0", "c=IN IP6"),
        offer.replace("s=-\r\nt=0 0\r\n", "t=0 0\r\ns=M\u{fc}ller\r\n"),
        offer.replace("t=0 0\r\n", "i=x\r\nu=x\r\ne=x\r\np=x\r\nb=AS:x\r\nt=0 0\r\nr=x\r\nz=x\r\nk=x\r\nx=x\r\n"),
        offer.replace("a=rtcp-mux", "a=rtcp-mux "),
        offer.replace("a=setup:", "a=setup: ").replace("a=ice-ufrag:", "a=ice-ufrag: "),
        offer.replace("s=-\r\nt=0 0\r\n", "") + "s=-\r\nt=0 0\r\n",
    ];
    for variant in variants {
        let (reply, spec) = taken(&variant).await;
        assert_eq!(spec.sections, expected.sections, "{variant}");
        assert_eq!((spec.ice.remote, spec.dtls.fingerprints.len()), (expected.ice.remote.clone(), 1), "{variant}");
        lint(&offer, &reply.body, "recvonly", true);
    }
}

// F-20: the other side of it.
#[tokio::test]
async fn what_decides_media_or_security_is_not_guessed() {
    let offer = golden("obs");
    for (code, from, to) in [
        ("sdp-fingerprint", "a=fingerprint:sha-256 27:", "a=fingerprint:sha-256 27"),
        ("sdp-fingerprint", "a=fingerprint:sha-256", "a=fingerprint sha-256"),
        ("sdp-ice-credentials", "a=ice-pwd:", "a=ice-pwd:\u{fc}"),
        ("sdp-setup", "a=setup:actpass", "a=setup:act pass"),
        ("sdp-rtcp-mux", "a=rtcp-mux", "a=rtcp-multiplex"),
        ("sdp-semantics", "a=mid:1", "a=mid:\u{fc}"),
        ("sdp-syntax", "m=video 9", "m=video nine"),
        ("sdp-syntax", "m=video 9 UDP/TLS/RTP/SAVPF 96", "m=video 9 UDP/TLS/RTP/SAVPF"),
        ("sdp-syntax", "a=mid:1", "a=mid:1\0"),
        ("sdp-syntax", "a=mid:1", "mid:1"),
        ("sdp-syntax", "v=0", "v=1"),
    ] {
        let (reply, opened) = whip(&offer.replace(from, to)).await;
        assert_eq!(reply.code(), code, "{from} -> {to}: {}", reply.body);
        assert!(opened.is_none());
    }
}

/// Candidate lines of a client with this many networks: each with a UDP and a TCP candidate.
fn networks(count: usize) -> String {
    let of = |network| {
        let (udp, tcp) = (format!("172.{network}.0.1"), format!("172.{network}.0.1"));
        format!(
            "a=candidate:{network} 1 udp 2122260223 {udp} 50000 typ host generation 0 network-id {network}\r\n\
             a=candidate:{network}9 1 tcp 1518280447 {tcp} 9 typ host tcptype active generation 0\r\n"
        )
    };
    (0..count).map(of).collect()
}

/// The text with lines at the end of each section.
fn in_each_section(offer: &str, lines: &str) -> String {
    format!("{}{lines}", offer.replace("m=video", &format!("{lines}m=video")))
}

#[derive(Default)]
struct Ignored(Mutex<(usize, usize)>);

impl Observer for Ignored {
    fn candidates_ignored(&self, _: Role, unusable: usize, surplus: usize) {
        let mut counts = self.0.lock().unwrap();
        *counts = (counts.0 + unusable, counts.1 + surplus);
    }
}

// F-08, TRK-04
#[tokio::test]
async fn of_more_candidates_than_are_kept_the_first_usable_ones_are_taken_and_the_others_counted() {
    let ignored = Arc::new(Ignored::default());
    let core = FakeMediaPlane::default();
    let signaling =
        Arc::new(Signaling::new(SignalingConfig::default(), core.clone(), Arc::clone(&ignored) as Arc<dyn Observer>));
    let app = App { core, router: router(Arc::clone(&signaling)), signaling };
    let counted = || std::mem::take(&mut *ignored.0.lock().unwrap());
    let detail = |spec: &SessionSpec| app.signaling.registry().session(spec.id).unwrap().stages[0].detail.clone();

    let reply = app.post("/whip/a", &in_each_section(&golden("obs"), &networks(26))).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let spec = app.core.last();
    assert_eq!((spec.ice.remote_candidates.len(), counted()), (26, (26, 0)));
    assert!(detail(&spec).contains("26 usable client candidates, 26 of no use"), "{}", detail(&spec));

    let names = "a=candidate:1 1 udp 1 0a0b.local 9 typ host\r\n".repeat(120);
    let reply = app.post("/whip/b", &in_each_section(&golden("obs"), &format!("{names}{}", networks(130)))).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let spec = app.core.last();
    let addresses: Vec<String> = spec.ice.remote_candidates.iter().map(|known| known.address.to_string()).collect();
    assert_eq!((addresses.len(), counted()), (100, (250, 30)));
    assert_eq!((addresses[0].as_str(), addresses[99].as_str()), ("172.0.0.1:50000", "172.99.0.1:50000"));
    assert!(detail(&spec).contains("250 of no use (TCP, names or other components), 30 too many"), "{}", detail(&spec));

    // Trickled in one fragment, or in two.
    for counts in [&[101][..], &[60, 60]] {
        let reply = app.post("/whip/c", &golden("obs")).await;
        let (session, etag) = (reply.header("location").to_owned(), reply.header("etag").to_owned());
        app.core.recorded().candidates.clear();
        for (part, count) in counts.iter().enumerate() {
            let lines: String = (0..*count)
                .map(|port| format!("a=candidate:1 1 udp 1 192.0.2.{part} {} typ host\r\n", 1024 + port))
                .collect();
            let reply = app.patch(&session, &etag, &format!("m=audio 9 x 0\r\na=mid:0\r\n{lines}")).await;
            assert_eq!(reply.status, 204, "{}", reply.body);
        }
        assert_eq!(app.core.recorded().candidates.len(), 100);
        assert_eq!(counted(), (0, counts.iter().sum::<usize>() - 100));
        app.send("DELETE", &session, &[], "").await;
    }
}

// F-08, SDP-06
#[tokio::test]
async fn lists_are_as_long_as_the_body_allows() {
    let offer = golden("obs");
    let (_, expected) = taken(&offer).await;
    let fingerprint = offer.lines().find(|line| line.starts_with("a=fingerprint:")).unwrap();
    let foreign = fingerprint.replace("27:A0", "00:11");
    // As many lines as two sections of a body take.
    let numbered = |line: fn(usize) -> String| {
        let room = (64 * 1024 - offer.len()) / 2;
        let mut lines = String::new();
        for number in 0.. {
            let line = line(number);
            if lines.len() + line.len() > room {
                break;
            }
            lines.push_str(&line);
        }
        lines
    };
    for lines in [
        numbered(|number| format!("a=x-{number}:y\r\n")),
        numbered(|number| format!("a=extmap:{} urn:x:{number}\r\n", number % 255)),
        numbered(|number| format!("a=rtcp-fb:{} x\r\n", number % 128)),
        numbered(|number| format!("a=fmtp:{} x=y\r\n", 1 + number % 90)),
        numbered(|number| format!("a=ssrc:{} cname:x\r\n", 3_000_000_000 + number)),
        numbered(|number| format!("a=ssrc-group:FID {number} {}\r\n", number + 1_000_000)),
        numbered(|number| format!("a=msid:uM7yN2cJ8dHs4fGk {number}\r\n")),
        numbered(|number| format!("a=rid:{number} recv\r\n")),
        format!("{fingerprint}\r\n{}", format!("{foreign}\r\n").repeat(250)),
    ] {
        let body = in_each_section(&offer, &lines);
        assert!(body.len() > 30_000 && body.len() <= 64 * 1024, "{}", body.len());
        let (_, spec) = taken(&body).await;
        for (section, expected) in spec.sections.iter().zip(&expected.sections) {
            assert_eq!(section.formats, expected.formats);
            assert_eq!(section.extensions, expected.extensions);
            assert!(section.declared_ssrcs.len() <= 16);
        }
        assert_eq!(spec.dtls.fingerprints[0], expected.dtls.fingerprints[0]);
        assert!(spec.dtls.fingerprints.len() <= 16);
    }
    // Formats: every number, many times over.
    let formats: String = (0..2500).map(|number| format!(" {}", number % 128)).collect();
    let (reply, spec) = taken(&offer.replace("SAVPF 96", &format!("SAVPF 96{formats}"))).await;
    assert_eq!(spec.sections, expected.sections);
    lint(&offer, &reply.body, "recvonly", true);
}

// F-21
#[tokio::test]
async fn opus_with_one_channel_or_none_named_is_opus_on_either_side() {
    let app = App::new(SignalingConfig::default());
    for (stream, rtpmap) in [("two", "opus/48000/2"), ("one", "opus/48000/1"), ("none", "OPUS/48000")] {
        let offer = golden("obs").replace("opus/48000/2", rtpmap);
        let reply = app.post(&format!("/whip/{stream}"), &offer).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        lint(&offer, &reply.body, "recvonly", true);
        let publisher = app.core.last();
        let in_use = FormatInUse { payload_type: 111, profile: None };
        let event = CoreEvent::FormatInUse { session: publisher.id, track: TrackId::AUDIO, in_use };
        app.signaling.registry().apply(support::now(), event);
        for watched in ["OPUS/48000/2", "opus/48000/1", "OPUS/48000"] {
            let offer = golden("webrtcbin-watch").replace("OPUS/48000/2", watched);
            let reply = app.post(&format!("/whep/{stream}"), &offer).await;
            assert_eq!(reply.status, 201, "{}", reply.body);
            lint(&offer, &reply.body, "sendonly", true);
            let spec = app.core.last();
            let audio = spec.sections.iter().find(|section| section.kind == MediaKind::Audio).unwrap();
            assert_eq!(audio.formats[0].codec, Codec::Opus, "{rtpmap} to {watched}");
            let answer = Sdp::read(&reply.body);
            let expected = format!("98 {}", watched.replace("OPUS", "opus"));
            assert_eq!(values(&answer.sections[1], "rtpmap"), [expected], "as it was offered");
        }
    }
}

// F-19, RTP-02
#[tokio::test]
async fn one_payload_type_in_two_sections_needs_something_that_tells_packets_apart() {
    let bare: String = golden("obs")
        .replace("SAVPF 111", "SAVPF 96")
        .replace(":111 ", ":96 ")
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("a=ssrc") && *line != MID)
        .collect();
    let (reply, _) = whip(&bare).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (422, "sdp-semantics"));
    for part in [
        "payload type 96 stands for opus in section `0` (m=audio, line ",
        "and for H264 in section `1` (m=video, line ",
        "urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=ssrc",
        "RFC 9143",
    ] {
        assert!(reply.body.contains(part), "{part} in {}", reply.body);
    }
    // One section alone cannot tell: what names neither may be the other's, or lack it.
    let audio_only = bare.replace("m=video", &format!("{MID}m=video"));
    assert_eq!(whip(&audio_only).await.0.code(), "sdp-semantics");
    let without_mids = in_each_section(&bare, MID).replace("a=mid:1\r\n", "").replace("BUNDLE 0 1", "BUNDLE 0");
    assert_ne!(whip(&without_mids).await.0.status, 201);

    taken(&in_each_section(&bare, MID)).await;
    let ssrcs = |offer: &str| offer.replace("m=video", "a=ssrc:11 cname:x\r\nm=video") + "a=ssrc:12 cname:x\r\n";
    taken(&ssrcs(&bare)).await;
    // MIDs in one section, SSRCs in the other.
    taken(&(audio_only + "a=ssrc:12 cname:x\r\n")).await;
    // A section that is not live takes no packets.
    taken(&bare.replace("m=audio 9", "m=audio 0")).await;
}

// F-19: numbers of RTX are worth less than the other section's media.
#[tokio::test]
async fn a_payload_type_of_rtx_that_another_section_uses_is_given_up() {
    let offer: String = golden("obs")
        .replace("SAVPF 96", "SAVPF 96 111")
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("a=ssrc") && *line != MID)
        .collect();
    let rtx = "a=rtpmap:111 rtx/90000\r\na=fmtp:111 apt=96\r\n";
    let (reply, spec) = taken(&format!("{offer}{rtx}")).await;
    assert_eq!(spec.sections[1].formats[0].rtx_payload_type, None);
    assert_eq!(media_line(&Sdp::read(&reply.body).sections[1]).3, ["96"]);
    let (_, spec) = taken(&in_each_section(&format!("{offer}{rtx}"), MID)).await;
    assert_eq!(spec.sections[1].formats[0].rtx_payload_type, Some(111), "MIDs tell them apart");
}

// F-22
#[tokio::test]
async fn a_path_that_is_no_streams_says_what_a_name_may_be() {
    let app = App::new(SignalingConfig::default());
    for (path, what) in [
        ("/whip/live/cam1", "without `/` unless the server is set to slash_names"),
        ("/whip/live%2Fcam1", "without `/` unless the server is set to slash_names"),
        ("/whip/a/b/c/d", "a stream name is 1 to 128 of A-Z a-z 0-9 . _ ~ - :"),
        ("/whip/a%20b", "a stream name is 1 to 128 of A-Z a-z 0-9 . _ ~ - :"),
        ("/whip/show/", "without it, /whip/show is a stream's"),
        ("/whep/show/", "without it, /whep/show is a stream's"),
        ("/whip", "/whip/{stream}"),
        ("/whip/", "/whip/{stream}"),
    ] {
        let reply = app.post(path, &golden("obs")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not-found"), "{path}");
        assert!(reply.body.contains(what), "{path}: {}", reply.body);
        let instance = serde_json::from_str::<serde_json::Value>(&reply.body).unwrap()["instance"].clone();
        assert_eq!(instance.as_str().unwrap().trim_end_matches('/'), path.replace("%2F", "/").trim_end_matches('/'));
    }
    let gone = app.post(&format!("/whip/s/{}", "0".repeat(32)), "").await;
    assert!(gone.body.contains("\"detail\":\"no such session\""), "{}", gone.body);
}

// F-22
#[tokio::test]
async fn names_with_slashes_work_where_the_setting_allows_them() {
    let mut tokens = Tokens::default();
    tokens.add("live/cam1", "s3cret").unwrap();
    tokens.add("live", "other").unwrap();
    let app = App::new(SignalingConfig { slash_names: true, tokens, ..SignalingConfig::default() });
    let bearer = |token| ("authorization", token);
    let sdp = ("content-type", "application/sdp");
    for path in ["/whip/live/cam1", "/whip/live%2Fcam1", "/whip/live/cam1?x=y"] {
        let foreign = app.send("POST", path, &[sdp, bearer("Bearer other")], golden("obs")).await;
        assert_eq!(foreign.code(), "forbidden");
        let reply = app.send("POST", path, &[sdp, bearer("Bearer s3cret")], golden("obs")).await;
        assert_eq!(reply.status, 201, "{path}: {}", reply.body);
        let (session, etag) = (reply.header("location").to_owned(), reply.header("etag").to_owned());
        assert!(session.starts_with("/whip/live/cam1/") && session.len() == "/whip/live/cam1/".len() + 32, "{session}");
        assert!(app.stream("live/cam1").unwrap().publisher.is_some() && app.stream("live").is_none());
        assert_eq!(app.post("/whep/live/cam1", &golden("chromium-watch")).await.status, 201);
        assert_eq!(app.send("OPTIONS", "/whip/live/cam1", &[], "").await.header("accept-post"), "application/sdp");
        assert_eq!(app.send("OPTIONS", &session, &[], "").await.header("allow"), "OPTIONS, GET, HEAD, PATCH, DELETE");
        assert_eq!(app.send("GET", &session, &[], "").await.status, 204);
        assert_eq!(app.patch(&session, &etag, "a=end-of-candidates").await.status, 204);
        assert_eq!(app.send("GET", &format!("{session}/stages"), &[], "").await.status, 200);
        // The secret belongs to this stream alone.
        let secret = session.rsplit('/').next().unwrap();
        for other in
            [format!("/whip/live/{secret}"), format!("/whip/cam1/{secret}"), format!("/whep/live/cam1/{secret}")]
        {
            assert_eq!(app.send("DELETE", &other, &[], "").await.status, 404, "{other}");
        }
        assert_eq!(app.send("DELETE", &session, &[], "").await.status, 200);
    }
    for path in ["/whip/live/cam1/", "/whip/live//cam1", "/whip/live/.."] {
        let reply = app.send("POST", path, &[sdp, bearer("Bearer s3cret")], golden("obs")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.body.contains("with single `/`")),
            (404, true),
            "{path}: {}",
            reply.body
        );
    }
    assert_eq!(app.send("GET", "/whip/live", &[], "").await.status, 200, "plain names are as before");
}

// F-22, AUTH-01
#[tokio::test]
async fn a_token_that_is_not_where_it_belongs_is_told_so() {
    let mut tokens = Tokens::default();
    tokens.add("cam", "s3cret").unwrap();
    let app = App::new(SignalingConfig { tokens, ..SignalingConfig::default() });
    let sdp = ("content-type", "application/sdp");
    for (path, authorization, what) in [
        ("/whip/cam", Some("s3cret"), "the scheme `Bearer ` is missing"),
        ("/whip/cam", Some("Basic czNjcmV0"), "the scheme must be Bearer"),
        ("/whip/cam", Some("Bearer 's3cret'"), "quotes"),
        ("/whip/cam?token=s3cret", None, "in the URL"),
        ("/whip/cam", None, "no Authorization header"),
        ("/whip/cam", Some("Bearer other"), "the token is not known"),
    ] {
        let mut headers = vec![sdp];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let reply = app.send("POST", path, &headers, golden("obs")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "unauthorized"), "{authorization:?}");
        assert!(reply.header("www-authenticate").starts_with("Bearer realm="));
        let detail = serde_json::from_str::<serde_json::Value>(&reply.body).unwrap()["detail"].clone();
        let detail = detail.as_str().unwrap();
        assert!(detail.contains(what) && !detail.contains("s3cret"), "{detail}");
    }
    let headers = [sdp, ("authorization", "bearer  s3cret ")];
    assert_eq!(app.send("POST", "/whip/cam", &headers, golden("obs")).await.status, 201);
}
