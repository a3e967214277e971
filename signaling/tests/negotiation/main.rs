//! Every client's offer gets a right answer. golden/README.md says which offers are recorded, and of which version.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod ccfb;
mod simulcast;

use media_core::media::{Codec, Extension, MediaKind, TrackId};
use media_core::negotiation::{FormatInUse, H264ProfileLevel, Profile, Sent, compatible};
use media_core::{CoreEvent, DtlsRole, IceMode, SessionSpec};
use signaling::SignalingConfig;
use support::{App, PUBLISH_OFFERS, Sdp, WATCH_OFFERS, golden, has, lint, media_line, values};

fn numbers(app: &App, kind: MediaKind) -> Vec<(u8, Codec)> {
    let spec = app.core.last();
    let section = spec.sections.iter().find(|section| section.kind == kind).unwrap();
    section.formats.iter().map(|format| (format.payload_type, format.codec)).collect()
}

/// The media core sees that a publisher sends this; of H264 the parameter sets name the profile.
fn in_use(publisher: &SessionSpec, track: TrackId, payload_type: u8, profile: Option<&str>) -> CoreEvent {
    let profile = profile.and_then(H264ProfileLevel::parse).map(Profile::H264);
    CoreEvent::FormatInUse { session: publisher.id, track, in_use: FormatInUse { payload_type, profile } }
}

// SDP-01, SDP-07, SDP-08, SDP-10 to SDP-32, Q-15, Q-24
// WHIP-01, WHIP-02, WHIP-07, WHIP-08, WHIP-28, WHIP-34
#[tokio::test]
async fn every_publisher_gets_an_answer_that_lints() {
    for mode in [IceMode::Lite, IceMode::Full] {
        for name in PUBLISH_OFFERS {
            let app = App::new(SignalingConfig { ice_mode: mode, ..SignalingConfig::default() });
            for offer in [golden(name), golden(name).replace("\r\n", "\n")] {
                let reply = app.post(&format!("/whip/{name}{}", offer.len()), &offer).await;
                assert_eq!(reply.status, 201, "{name}: {}", reply.body);
                lint(&offer, &reply.body, "recvonly", mode == IceMode::Lite);
            }
        }
    }
}

// WHEP-01, WHEP-03, WHEP-14, WHEP-17
#[tokio::test]
async fn every_viewer_of_every_publisher_gets_an_answer_that_lints() {
    for publisher in PUBLISH_OFFERS {
        let app = App::new(SignalingConfig::default());
        assert_eq!(app.post("/whip/s", &golden(publisher)).await.status, 201);
        let published = app.core.last();
        for name in WATCH_OFFERS {
            let offer = golden(name);
            let reply = app.post("/whep/s", &offer).await;
            // FFmpeg says H.264 High, which only a viewer that names High, or more than High, gets.
            if (publisher, reply.code_if_refused().as_deref()) == ("ffmpeg-video-only", Some("sdp-no-common-codec")) {
                continue;
            }
            assert_eq!(reply.status, 201, "{publisher} to {name}: {}", reply.body);
            lint(&offer, &reply.body, "sendonly", true);
            let spec = app.core.last();
            assert_eq!(spec.stream, published.stream);
            for section in &spec.sections {
                let source = published.sections.iter().find(|source| source.kind == section.kind).unwrap();
                // What comes first carries what the publisher may send; the others are for publishers to come.
                let may_send =
                    |format| source.formats.iter().any(|of| compatible(Sent { format: of, profile: None }, format));
                assert!(section.formats.first().is_some_and(may_send), "{publisher} to {name}");
            }
        }
    }
}

trait Refused {
    fn code_if_refused(&self) -> Option<String>;
}

impl Refused for support::Reply {
    fn code_if_refused(&self) -> Option<String> {
        self.status.is_client_error().then(|| self.code())
    }
}

// SDP-24, SDP-25, Q-22
#[tokio::test]
async fn chromium_may_send_every_codec_that_is_forwarded() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("chromium-publish")).await;
    let audio: Vec<_> = numbers(&app, MediaKind::Audio).into_iter().map(|(_, codec)| codec).collect();
    assert_eq!(audio, [Codec::Opus, Codec::Red, Codec::G722, Codec::Pcmu, Codec::Pcma]);
    let video = numbers(&app, MediaKind::Video);
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
        assert!(video.iter().any(|(_, found)| *found == codec), "{codec}");
    }
    let spec = app.core.last();
    let section = &spec.sections[1];
    assert!(section.formats.iter().all(|format| {
        let feedback = format.feedback;
        format.rtx_payload_type.is_some()
            && feedback.nack
            && feedback.pli
            && feedback.fir
            && feedback.transport_cc
            && !feedback.remb
    }));
    assert!(section.extensions.id(Extension::TransportCc).is_some());
    assert!(section.extensions.id(Extension::Mid).is_some());
    assert_eq!(section.extensions.id(Extension::AbsSendTime), None);
    assert_eq!(section.extensions.id(Extension::RtpStreamId), None);
    assert!(matches!(section.declared_ssrcs[..], [(_, Some(_))]));
    assert!(section.reduced_size_rtcp);
    assert_eq!(section.send_ssrcs, None);
    assert_eq!(spec.dtls.role, DtlsRole::Server);
    // TCP candidates are passed over; both UDP ones count.
    assert_eq!(spec.ice.remote_candidates.len(), 2);
}

// COD-04: Chromium sends RED only if it stands in front of Opus in the answer, which it does only if the page wanted that.
#[tokio::test]
async fn red_keeps_its_place_and_goes_to_viewers_that_know_it() {
    let app = App::new(SignalingConfig::default());
    let offer = golden("chromium-publish");
    let order = |formats: Vec<String>| formats.into_iter().take(2).collect::<Vec<_>>();
    let reply = app.post("/whip/s", &offer).await;
    let answer = Sdp::read(&reply.body);
    assert_eq!(order(media_line(&answer.sections[0]).3), ["111", "63"]);
    assert!(values(&answer.sections[0], "fmtp").contains(&"63 111/111"));
    let preferred = offer.replace(" 111 63 9 ", " 63 111 9 ");
    let reply = app.post("/whip/red", &preferred).await;
    lint(&preferred, &reply.body, "recvonly", true);
    assert_eq!(order(media_line(&Sdp::read(&reply.body).sections[0]).3), ["63", "111"]);

    let publisher = app.core.last();
    let event = in_use(&publisher, TrackId::AUDIO, 63, None);
    app.signaling.registry().apply(std::time::Instant::now(), event);
    for (viewer, expected) in
        [("chromium-watch", &[Codec::Opus, Codec::Red][..]), ("firefox-h264-watch", &[Codec::Opus])]
    {
        let offer = golden(viewer);
        let reply = app.post("/whep/red", &offer).await;
        lint(&offer, &reply.body, "sendonly", true);
        let audio: Vec<_> = numbers(&app, MediaKind::Audio).into_iter().map(|(_, codec)| codec).collect();
        assert_eq!(audio[..expected.len()], *expected, "{viewer}");
        assert!(viewer == "chromium-watch" || !audio.contains(&Codec::Red));
    }
    // Nothing is wrapped for a viewer that knows RED when the publisher sends none.
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("firefox-h264-publish")).await;
    app.post("/whep/s", &golden("chromium-watch")).await;
    assert!(!numbers(&app, MediaKind::Audio).iter().any(|(_, codec)| *codec == Codec::Red));
}

// WHIP-12
#[tokio::test]
async fn a_data_channel_is_answered_with_port_0() {
    let app = App::new(SignalingConfig::default());
    let reply = app.post("/whip/s", &golden("chromium-simulcast-data")).await;
    let answer = Sdp::read(&reply.body);
    let (media, port, _, formats) = media_line(answer.sections.last().unwrap());
    assert_eq!((media.as_str(), port, formats), ("application", 0, vec!["webrtc-datachannel".to_owned()]));
}

// WHIP-27, Q-12, Q-13, SDP-12
#[tokio::test]
async fn ffmpeg_makes_the_server_the_dtls_client() {
    for (name, sections) in [("ffmpeg", 2), ("ffmpeg-video-only", 1)] {
        let app = App::new(SignalingConfig::default());
        let reply = app.post("/whip/s", &golden(name)).await;
        let spec = app.core.last();
        assert_eq!((spec.dtls.role, spec.sections.len()), (DtlsRole::Client, sections));
        assert!(spec.ice.remote_candidates.is_empty());
        // No feedback and no extension was offered, so none is answered.
        let video = Sdp::read(&reply.body).sections.pop().unwrap();
        assert!(!has(&video, "rtcp-fb") && !has(&video, "extmap"), "SDP-21");
        let offered = Sdp::read(&golden(name)).sections.pop().unwrap();
        assert_eq!(values(&video, "fmtp"), values(&offered, "fmtp"));
    }
}

// SDP-04, SDP-05, WHIP-34
#[tokio::test]
async fn obs_needs_no_candidates_and_old_libdatachannel_no_media_level_credentials() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/obs", &golden("obs")).await;
    let obs = app.core.last();
    assert!(obs.ice.remote_candidates.is_empty());
    assert_eq!(obs.sections[1].formats[0].rtx_payload_type, None);
    app.post("/whip/old", &golden("libdatachannel-old")).await;
    let old = app.core.last();
    assert_eq!((old.ice.remote.ufrag.as_str(), old.ice.remote.pwd.as_str()), ("p9Kd", "LxV7s2Qm4RnZ8tYb6CwFgA"));
    assert_eq!(old.dtls.fingerprints.len(), 1);
    let view = app.signaling.registry().session(old.id).unwrap();
    assert!(view.stages[0].detail.contains("more may come"), "{}", view.stages[0].detail);
}

// Q-20, DTLS-06
#[tokio::test]
async fn aiortc_fingerprints_are_all_kept() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("aiortc-publish")).await;
    assert_eq!(app.core.last().dtls.fingerprints.len(), 3);
    assert_eq!(app.core.last().ice.remote_candidates.len(), 1);
}

// Q-19, SDP-11, SDP-13
#[tokio::test]
async fn gstreamer_bundles_or_is_told_how_to() {
    let app = App::new(SignalingConfig::default());
    let offer = golden("gstreamer-whipsink");
    app.post("/whip/s", &offer).await;
    assert_eq!(app.core.last().sections.len(), 2);
    let reply = app.post("/whip/t", &offer.replace("a=group:BUNDLE video0 audio1\r\n", "")).await;
    assert_eq!(reply.code(), "sdp-bundle");
    assert!(reply.body.contains("bundle-policy=max-bundle"));
}

// RFC 9143 §7.1.3: a bundle-only section takes its transport from the tagged one.
#[tokio::test]
async fn bundle_only_sections_need_no_transport_of_their_own() {
    let mut offer = golden("gstreamer-whipsink");
    let audio = offer.split_off(offer.find("m=audio").unwrap());
    for line in audio.lines() {
        if !["a=ice-", "a=fingerprint", "a=setup", "a=rtcp-mux", "a=rtcp-rsize"].iter().any(|of| line.starts_with(of)) {
            offer.push_str(&format!("{line}\r\n"));
        }
    }
    let app = App::new(SignalingConfig::default());
    let reply = app.post("/whip/s", &offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    assert!(app.core.last().sections.iter().all(|section| section.reduced_size_rtcp));
}

// WHEP-15, WHEP-14: what the publisher really sends decides.
#[tokio::test]
async fn a_viewer_without_the_codec_in_use_gets_no_video_but_audio() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("chromium-publish")).await;
    let publisher = app.core.last();
    let number = |codec| {
        publisher.sections[1].formats.iter().find(|format| format.codec == codec).map(|format| format.payload_type)
    };
    let in_use = |codec| {
        let payload_type = number(codec).unwrap();
        let event = self::in_use(&publisher, TrackId::VIDEO, payload_type, None);
        app.signaling.registry().apply(std::time::Instant::now(), event);
    };
    // This one knows VP8, VP9 and H.264.
    in_use(Codec::Av1);
    let offer = golden("webrtcbin-watch");
    let reply = app.post("/whep/s", &offer).await;
    lint(&offer, &reply.body, "sendonly", true);
    let answer = Sdp::read(&reply.body);
    // Nothing is sent in it, and it carries the transport: the audio section has none of its own.
    assert!(has(&answer.sections[0], "inactive") && has(&answer.sections[1], "sendonly"));
    assert_eq!(values(&answer.sections[0], "candidate").len(), 2);
    // With one of its own, the transport moves there, with the candidates.
    let own = offer.clone() + "a=candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host\r\n";
    let reply = app.post("/whep/s", &own).await;
    lint(&own, &reply.body, "sendonly", true);
    let answer = Sdp::read(&reply.body);
    assert_eq!(media_line(&answer.sections[0]).1, 0);
    assert_eq!(values(&answer.sections[1], "candidate").len(), 2);
    let video_only = &offer[..offer.find("m=audio").unwrap()];
    let reply = app.post("/whep/s", video_only).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (422, "sdp-no-common-codec"));
    // The codec in use comes first, the others stay.
    in_use(Codec::Vp9);
    app.post("/whep/s", &offer).await;
    let video: Vec<_> = numbers(&app, MediaKind::Video).into_iter().map(|(_, codec)| codec).collect();
    assert_eq!((video[0], video[1]), (Codec::Vp9, Codec::Vp8));
}

/// The H264 formats of a golden offer replaced by these profiles, in their order.
fn with_profiles(offer: &str, profiles: &[&str]) -> String {
    let (head, video) = offer.split_at(offer.find("m=video").unwrap());
    let (video, tail) = match video[1..].find("\nm=") {
        Some(end) => video.split_at(end + 2),
        None => (video, ""),
    };
    let mut lines: Vec<String> = video.lines().map(str::to_owned).collect();
    let numbers: Vec<String> = (0..profiles.len()).map(|index| (100 + index).to_string()).collect();
    let protocol = lines[0].split(' ').take(3).collect::<Vec<_>>().join(" ");
    lines[0] = format!("{protocol} {}", numbers.join(" "));
    lines.retain(|line| !["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().any(|name| line.starts_with(name)));
    for (number, profile) in numbers.iter().zip(profiles) {
        lines.push(format!("a=rtpmap:{number} H264/90000"));
        if !profile.is_empty() {
            lines.push(format!("a=fmtp:{number} packetization-mode=1;profile-level-id={profile}"));
        }
        lines.push(format!("a=rtcp-fb:{number} nack pli"));
    }
    format!("{head}{}\r\n{tail}", lines.join("\r\n"))
}

/// Whether the viewer's video is answered, and the warnings of its ledger.
async fn watched(app: &App, offer: &str) -> (bool, Vec<(&'static str, String)>) {
    let reply = app.post("/whep/s", offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    lint(offer, &reply.body, "sendonly", true);
    let spec = app.core.last();
    let view = app.signaling.registry().session(spec.id).unwrap();
    let warnings = view.stages[0].warnings.iter().map(|warning| (warning.code, warning.detail.clone())).collect();
    (spec.sections.iter().any(|section| section.kind == MediaKind::Video), warnings)
}

const CHROME: [&str; 4] = ["42001f", "42e01f", "4d001f", "64001f"];
const FIREFOX: [&str; 1] = ["42e01f"];

// F-01, F-12, F-26
#[tokio::test]
async fn a_viewer_is_sent_h264_that_its_decoder_takes_and_is_told_of_what_it_does_not() {
    for (published, viewer, sees) in [
        ("640c1f", &CHROME[..], true),
        ("640c1f", &FIREFOX, false),
        ("42001f", &FIREFOX, true),
        ("42e01f", &["42001f"], true),
        ("4d001f", &["640c1f"], true),
        ("4d001f", &FIREFOX, false),
        ("", &FIREFOX, true),
        ("42e01f", &[""], true),
    ] {
        let app = App::new(SignalingConfig::default());
        let reply = app.post("/whip/s", &with_profiles(&golden("obs"), &[published])).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let (video, warnings) = watched(&app, &with_profiles(&golden("firefox-h264-watch"), viewer)).await;
        assert_eq!(video, sees, "{published} to {viewer:?}");
        assert_eq!(warnings.is_empty(), sees, "{warnings:?}");
        if let Some((code, detail)) = warnings.first() {
            assert_eq!(*code, "codec-refused");
            assert!(detail.contains(published) && detail.contains("42e01f"), "both sides: {detail}");
            let refused = &app.core.last().refused;
            assert_eq!((refused.len(), refused[0].kind, refused[0].formats.len()), (1, MediaKind::Video, 1));
        }
    }
}

// F-13
#[tokio::test]
async fn the_stream_decides_over_its_description_and_the_lint_says_it() {
    for (described, stream, sees) in
        [("4d001f", "42c01f", true), ("42e01f", "640028", false), ("42e01f", "42c02a", true)]
    {
        let app = App::new(SignalingConfig::default());
        app.post("/whip/s", &with_profiles(&golden("obs"), &[described])).await;
        let publisher = app.core.last();
        let registry = app.signaling.registry();
        registry.apply(support::now(), in_use(&publisher, TrackId::VIDEO, 100, Some(stream)));
        let (video, warnings) = watched(&app, &with_profiles(&golden("firefox-h264-watch"), &FIREFOX)).await;
        assert_eq!(video, sees, "{described}, really {stream}");
        assert!(sees || warnings[0].1.contains(stream), "{warnings:?}");
        let lint = |app: &App| {
            let view = app.signaling.registry().session(publisher.id).unwrap();
            view.stages[5].warnings.iter().map(|warning| (warning.code, warning.detail.clone())).collect::<Vec<_>>()
        };
        let found = lint(&app);
        let contradicts = described != "42e01f" || stream == "640028";
        assert_eq!(found.len(), usize::from(contradicts), "{found:?}");
        assert!(found.iter().all(|(code, detail)| {
            *code == "profile-mismatch" && detail.contains(described) && detail.contains(stream)
        }));
        let track = serde_json::to_value(app.stream("s").unwrap()).unwrap()["tracks"][1].clone();
        assert!(track["profile"].as_str().unwrap().contains(stream), "{track}");
        assert!(track["described_profile"].as_str().unwrap().contains(described), "{track}");
        // The encoder is set right: nothing is left of the warning.
        registry.apply(support::now(), in_use(&publisher, TrackId::VIDEO, 100, Some(described)));
        assert!(lint(&app).is_empty());
    }
}

// F-12
#[tokio::test]
async fn a_profile_that_does_not_parse_is_refused_and_named() {
    let app = App::new(SignalingConfig::default());
    let reply = app.post("/whip/s", &with_profiles(&golden("obs"), &["TeAo"])).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (422, "sdp-bad-parameter"));
    assert!(reply.body.contains("profile-level-id=TeAo"), "{}", reply.body);
    // Beside formats that can be served it is left out.
    let reply = app.post("/whip/s", &with_profiles(&golden("obs"), &["TeAo", "42e01f"])).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let publisher = app.core.last();
    assert_eq!(numbers(&app, MediaKind::Video), [(101, Codec::H264)]);
    let view = app.signaling.registry().session(publisher.id).unwrap();
    assert_eq!(view.stages[0].warnings[0].code, "format-ignored");
    assert!(view.stages[0].warnings[0].detail.contains("profile-level-id=TeAo"));
    let offer = with_profiles(&golden("firefox-h264-watch"), &["x"]);
    let (video, warnings) = watched(&app, &offer).await;
    assert!(!video && warnings[0].0 == "format-ignored" && warnings[0].1.contains("profile-level-id=x"));
    let video_only =
        offer.split_at(offer.find("m=audio").unwrap()).0.to_owned() + &offer[offer.find("m=video").unwrap()..];
    assert_eq!(app.post("/whep/s", &video_only).await.code(), "sdp-bad-parameter");
}

// F-01: what the publishers of the field send first reaches the most viewers.
#[tokio::test]
async fn publishers_are_answered_with_the_h264_profile_first_that_most_viewers_decode() {
    for (name, first) in [
        ("chromium-publish", Some("42e01f")),
        ("firefox-h264-publish", Some("42e01f")),
        ("safari-publish", Some("42e01f")),
        ("aiortc-publish", Some("42e01f")),
        ("obs", Some("42e01f")),
    ] {
        let app = App::new(SignalingConfig::default());
        let offer = golden(name);
        app.post("/whip/s", &offer).await;
        let spec = app.core.last();
        let video = spec.sections.iter().find(|section| section.kind == MediaKind::Video).unwrap();
        let h264 = video.formats.iter().find(|format| format.codec == Codec::H264);
        let expected = first.map(|first| format!("profile-level-id={first}"));
        assert!(h264.zip(expected).is_some_and(|(format, id)| format.fmtp.contains(&id)), "{name}: {h264:?}");
        assert!(h264.unwrap().fmtp.contains("packetization-mode=1"), "{name}");
        // Codecs keep the publisher's order: only profiles of H264 change places.
        let offered = Sdp::read(&offer).sections.into_iter().find(|section| section[0].starts_with("m=video")).unwrap();
        let name_of = |number: &String| {
            let map =
                values(&offered, "rtpmap").into_iter().find(|map| map.starts_with(&format!("{number} "))).unwrap();
            map.split([' ', '/']).nth(1).unwrap().to_ascii_uppercase()
        };
        let forwarded = ["VP8", "VP9", "H264", "H265", "AV1"];
        let mut theirs: Vec<String> = media_line(&offered).3.iter().map(name_of).collect();
        theirs.retain(|codec| forwarded.contains(&codec.as_str()));
        let ours: Vec<String> = video.formats.iter().map(|format| format.codec.to_string()).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

// F-26: Chromium with `max-bundle` has no other transport than that of the first section.
#[tokio::test]
async fn a_refused_section_that_carries_the_transport_stays_though_nothing_is_sent_in_it() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &with_profiles(&golden("obs"), &["64001f"])).await;
    let offer = with_profiles(&golden("chromium-watch"), &FIREFOX);
    // The watch page has video in front.
    let at = |line: &str| offer.find(line).unwrap();
    assert!(at("m=video") < at("m=audio"));
    let without_candidates = |line: &&str| !line.starts_with("a=candidate");
    let offer: String = offer.split_inclusive('\n').filter(without_candidates).collect();
    let (sees, warnings) = watched(&app, &offer).await;
    assert!(!sees && warnings[0].0 == "codec-refused", "{warnings:?}");
    let reply = app.post("/whep/s", &offer).await;
    let answer = Sdp::read(&reply.body);
    assert_eq!(answer.of_session("group"), ["BUNDLE 0 1"]);
    assert_eq!(media_line(&answer.sections[0]).1, 9);
    assert!(has(&answer.sections[0], "inactive") && has(&answer.sections[1], "sendonly"));
    assert_eq!(app.core.last().sections.len(), 1, "the media core knows nothing of it");
}

// F-26
#[tokio::test]
async fn an_offer_of_which_nothing_can_be_served_is_refused_with_both_sides_codecs() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &with_profiles(&golden("ffmpeg-video-only"), &["64001f"])).await;
    let reply = app.post("/whep/s", &with_profiles(&golden("firefox-h264-watch"), &FIREFOX)).await;
    assert_eq!(reply.code(), "sdp-no-common-codec");
    for part in ["H264 High (64001f)", "H264 Constrained Baseline (42e01f)", "the stream has no audio"] {
        assert!(reply.body.contains(part), "{part}: {}", reply.body);
    }
    // A data channel is no medium to forward, and the publisher is told.
    app.post("/whip/t", &golden("chromium-simulcast-data")).await;
    let view = app.signaling.registry().session(app.core.last().id).unwrap();
    let warning = &view.stages[0].warnings[0];
    assert_eq!((warning.code, warning.detail.as_str()), ("media-type-refused", "m=application is not forwarded"));
}

// WHEP-04
#[tokio::test]
async fn a_viewer_gets_what_the_stream_has() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("ffmpeg-video-only").replace("64000d", "42e01f")).await;
    let reply = app.post("/whep/s", &golden("firefox-h264-watch")).await;
    assert_eq!(reply.status, 201);
    let answer = Sdp::read(&reply.body);
    // Its audio section has the only transport, so that it stays, though the stream has no audio.
    assert!(has(&answer.sections[0], "inactive") && has(&answer.sections[1], "sendonly"));
    assert_eq!(answer.of_session("group"), ["BUNDLE 0 1"]);
    assert_eq!(app.core.last().sections.len(), 1);
    let video = numbers(&app, MediaKind::Video);
    assert_eq!(video[0], (126, Codec::H264));
    // F-02: the next publisher may send what this one does not.
    let codecs: Vec<Codec> = video.iter().map(|(_, codec)| *codec).collect();
    assert!(codecs.contains(&Codec::Vp8) && codecs.contains(&Codec::Vp9), "{codecs:?}");
    let spec = app.core.last();
    let ssrcs = spec.sections[0].send_ssrcs.unwrap();
    assert!(ssrcs.media != ssrcs.rtx && ssrcs.media != 0);
    assert!(reply.body.contains(&format!("a=ssrc-group:FID {} {}\r\n", ssrcs.media, ssrcs.rtx)));
    assert!(reply.body.contains(&format!("a=ssrc:{} cname:{}\r\n", ssrcs.media, spec.cname)));
}

// EXT-H13: the direction of an extension is respected and mirrored.
#[tokio::test]
async fn extensions_with_a_direction_are_answered_only_where_media_goes_that_way() {
    let app = App::new(SignalingConfig::default());
    let reply = app.post("/whip/s", &golden("firefox-h264-publish")).await;
    // `/recvonly` means nothing to a server that only receives.
    assert!(!reply.body.contains("playout-delay"));
    let reply = app.post("/whep/s", &golden("firefox-h264-watch")).await;
    assert!(reply.body.contains("a=extmap:6/sendonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n"));
}

// SRTP-13, SRTP-14: header extensions stay readable for whoever forwards them.
#[tokio::test]
async fn encrypted_header_extensions_and_cryptex_are_left_out_of_the_answer() {
    let encrypted =
        "a=cryptex\r\na=extmap:13 urn:ietf:params:rtp-hdrext:encrypt urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
    for name in ["chromium-publish", "chromium-watch"] {
        let with_them = golden(name).replace("t=0 0\r\n", "t=0 0\r\na=cryptex\r\n");
        let with_them = with_them.replace("a=rtcp-mux\r\n", &format!("a=rtcp-mux\r\n{encrypted}"));
        assert!(with_them.matches(encrypted).count() >= 2, "{with_them}");
        let mut answered = Vec::new();
        for offer in [golden(name), with_them] {
            let app = App::new(SignalingConfig::default());
            let is_viewer = name == "chromium-watch";
            let mut reply =
                app.post("/whip/s", &if is_viewer { golden("chromium-publish") } else { offer.clone() }).await;
            if is_viewer {
                reply = app.post("/whep/s", &offer).await;
            }
            assert_eq!(reply.status, 201, "{}", reply.body);
            assert!(!reply.body.contains("cryptex") && !reply.body.contains("hdrext:encrypt"), "{}", reply.body);
            let answer = Sdp::read(&reply.body);
            let extensions = answer.sections.iter().map(|section| values(section, "extmap").join("; "));
            answered.push(extensions.collect::<Vec<_>>());
        }
        assert_eq!(answered[0], answered[1], "the others are answered as without");
    }
}
