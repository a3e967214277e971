//! Simulcast of publishers: which encodings are received, and what the answer says of them.

use media_core::media::{Extension, MediaSection, SimulcastEncoding};
use signaling::SignalingConfig;

use super::support::{App, Sdp, golden, has, lint, values};

/// The answer to a publisher's offer, its video section, and what the media core is told of that.
async fn answered(config: SignalingConfig, offer: &str) -> (App, Vec<String>, MediaSection) {
    let app = App::new(config);
    let reply = app.post("/whip/s", offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    lint(offer, &reply.body, "recvonly", true);
    let answer = Sdp::read(&reply.body);
    let video = answer.sections.into_iter().find(|section| section[0].starts_with("m=video")).unwrap();
    let spec = app.core.last();
    let section = spec.sections.iter().find(|section| section.kind == media_core::media::MediaKind::Video).unwrap();
    (app, video, section.clone())
}

fn rids(section: &MediaSection) -> Vec<&str> {
    section.simulcast.iter().map(|encoding| encoding.rid.as_deref().unwrap()).collect()
}

/// OBS with these lines in place of its rids.
fn obs(lines: &str) -> String {
    let offer = golden("obs-simulcast");
    let (from, to) = (offer.find("a=rid:0").unwrap(), offer.find("a=simulcast").unwrap());
    let end = to + offer[to..].find('\n').unwrap() + 1;
    format!("{}{lines}{}", &offer[..from], &offer[end..])
}

fn detail(app: &App) -> String {
    app.signaling.registry().session(app.core.last().id).unwrap().stages[0].detail.clone()
}

// WHIP-29, SDP-40, SDP-41, SDP-42, SDP-45, Q-06
#[tokio::test]
async fn every_layer_of_a_client_is_answered_in_its_order_with_the_extensions_that_name_it() {
    for (name, expected, repaired) in [
        ("chromium-simulcast-data", ["q", "h", "f"], true),
        ("firefox-simulcast", ["q", "h", "f"], true),
        ("obs-simulcast", ["0", "1", "2"], false),
        ("gstreamer-simulcast", ["0", "1", "2"], true),
    ] {
        let (app, video, section) = answered(SignalingConfig::default(), &golden(name)).await;
        assert_eq!(values(&video, "simulcast"), [format!("recv {}", expected.join(";"))], "{name}");
        assert_eq!(rids(&section), expected, "{name}");
        assert!(section.simulcast.iter().all(|encoding| encoding.ssrc.is_none()), "learnt from packets: {name}");
        let id = |extension| section.extensions.id(extension).is_some();
        assert!(id(Extension::Mid) && id(Extension::RtpStreamId), "{name}");
        assert_eq!(id(Extension::RepairedRtpStreamId), repaired, "{name}");
        assert!(detail(&app).contains("simulcast of 3 layers"), "{}", detail(&app));
    }
}

// SDP-42: Firefox declares the SSRCs beside its rids, without saying which is whose; their RTX pairs serve.
#[tokio::test]
async fn ssrcs_that_are_declared_beside_rids_stay_known_with_their_retransmissions() {
    let (_, _, section) = answered(SignalingConfig::default(), &golden("firefox-simulcast")).await;
    assert_eq!(section.declared_ssrcs.len(), 3);
    assert!(section.declared_ssrcs.iter().all(|(_, rtx)| rtx.is_some()));
}

// SDP-42
#[tokio::test]
async fn layers_that_no_header_extension_would_name_are_answered_without() {
    let offer = golden("chromium-simulcast-data");
    let without = |uri: &str| -> String {
        offer.split_inclusive('\n').filter(|line| !line.ends_with(&format!("{uri}\r\n"))).collect()
    };
    for stripped in [
        without("sdes:rtp-stream-id"),
        without("sdes:mid"),
        offer.replace("a=extmap:10 ", "a=extmap:10/recvonly "),
        offer.replace("a=simulcast:send q;h;f\r\n", ""),
        offer.replace("a=simulcast:send", "a=simulcast:recv"),
    ] {
        assert_ne!(stripped, offer);
        let (app, video, section) = answered(SignalingConfig::default(), &stripped).await;
        assert!(!has(&video, "rid") && !has(&video, "simulcast") && section.simulcast.is_empty(), "{stripped}");
        assert_eq!(section.extensions.id(Extension::RepairedRtpStreamId), None);
        let is_offered = stripped.contains("a=simulcast:send");
        assert_eq!(detail(&app).contains("simulcast of 3 layers answered without"), is_offered, "{}", detail(&app));
    }
    // A video section that is alone is told by the rid.
    let (session, video) = offer.split_at(offer.find("m=audio").unwrap());
    let video = &video[video.find("m=video").unwrap()..video.find("m=application").unwrap()];
    let alone = format!("{}{video}", session.replace("BUNDLE 0 1 2", "BUNDLE 1"));
    let alone: String = alone.split_inclusive('\n').filter(|line| !line.contains("sdes:mid")).collect();
    let app = App::new(SignalingConfig::default());
    assert_eq!(app.post("/whip/s", &alone).await.status, 201);
    assert_eq!(rids(&app.core.last().sections[0]), ["q", "h", "f"]);
}

// SDP-40, SDP-44
#[tokio::test]
async fn alternatives_are_reduced_to_the_first_usable_and_bad_rids_are_ignored() {
    let long = "x".repeat(256);
    for (lines, expected, list) in [
        // Neither a line of its own, nor one to send, nor characters of a rid.
        ("a=rid:a send\r\na=rid:b recv\r\na=rid:c! send\r\na=simulcast:send a;b;c!;d\r\n", &["a"][..], "a"),
        ("a=rid:a send\r\na=rid:b send\r\na=simulcast:send x,b;~a\r\n", &["b", "a"], "b;~a"),
        ("a=rid:a send\r\na=rid:b send\r\na=rid:c send\r\na=simulcast:recv x send ~a,b;c\r\n", &["a", "c"], "~a;c"),
        // Payload type 97 was not offered, so that the first alternative could send nothing.
        ("a=rid:a send pt=97\r\na=rid:b send pt=96,97\r\na=simulcast:send a,b\r\n", &["b"], "b"),
        ("a=rid:a send\r\na=rid:b send\r\na=simulcast:send a;a,b;b\r\n", &["a", "b"], "a;b"),
    ] {
        let (_, video, section) = answered(SignalingConfig::default(), &obs(lines)).await;
        assert_eq!(values(&video, "simulcast"), [format!("recv {list}")], "{lines}");
        assert_eq!(rids(&section), expected, "{lines}");
    }
    for lines in [
        &format!("a=rid:{long} send\r\na=simulcast:send {long}\r\n"),
        "a=simulcast:send a;b\r\n",
        "a=rid:a send pt=97\r\na=simulcast:send a\r\n",
        "a=rid:a send\r\na=simulcast:\r\n",
        "a=rid:a send\r\na=simulcast:send\r\n",
        "a=rid:a send\r\na=simulcast:send ;,~;\r\n",
    ] {
        let (_, video, section) = answered(SignalingConfig::default(), &obs(lines)).await;
        assert!(!has(&video, "simulcast") && section.simulcast.is_empty(), "{lines}");
    }
}

// SDP-44
#[tokio::test]
async fn restrictions_are_understood_and_repeated_and_unknown_ones_passed_over() {
    let lines = "a=rid:a send pt=96,97;max-width=1280;max-height=720;max-fps=30;max-br=2500000\r\n\
                 a=rid:b send max-width=many;max-fps=15;max-bpp=0.1;depend=a\r\na=simulcast:send a;b\r\n";
    let (_, video, section) = answered(SignalingConfig::default(), &obs(lines)).await;
    let whole = "a recv pt=96;max-width=1280;max-height=720;max-fps=30;max-br=2500000";
    assert_eq!(values(&video, "rid"), [whole, "b recv max-fps=15"]);
    let first = SimulcastEncoding {
        rid: Some("a".to_owned()),
        ssrc: None,
        payload_types: vec![96],
        max_width: Some(1280),
        max_height: Some(720),
        max_frame_rate: Some(30),
        max_bitrate: Some(2_500_000),
    };
    let second =
        SimulcastEncoding { rid: Some("b".to_owned()), max_frame_rate: Some(15), ..SimulcastEncoding::default() };
    assert_eq!(section.simulcast, [first, second]);
}

// SDP-41, SDP-06
#[tokio::test]
async fn of_more_layers_than_the_limit_the_first_are_received() {
    let offer = |count: usize| {
        let rids: Vec<String> = (0..count).map(|index| index.to_string()).collect();
        let lines: String = rids.iter().map(|rid| format!("a=rid:{rid} send\r\n")).collect();
        obs(&format!("{lines}a=simulcast:send {}\r\n", rids.join(";")))
    };
    for (max_layers, offered, received) in [(4, 4, 4), (4, 6, 4), (3, 4, 3), (1, 3, 1)] {
        let config = SignalingConfig { max_layers, ..SignalingConfig::default() };
        let (app, _, section) = answered(config, &offer(offered)).await;
        assert_eq!(rids(&section), ["0", "1", "2", "3"][..received]);
        let said = if offered == received { String::new() } else { format!(" of {offered}") };
        assert!(detail(&app).contains(&format!("simulcast of {received}{said} layers")), "{}", detail(&app));
    }
    let (app, ..) = answered(SignalingConfig::default(), &offer(40)).await;
    assert!(detail(&app).contains("24 fingerprints, SSRCs and layers too many"), "{}", detail(&app));
}

// SDP-43
#[tokio::test]
async fn a_group_of_ssrcs_is_simulcast_without_rids() {
    let offer = golden("chromium-simulcast-munged");
    let (app, video, section) = answered(SignalingConfig::default(), &offer).await;
    assert!(!has(&video, "rid") && !has(&video, "simulcast"), "the answer cannot say it");
    let ssrcs: Vec<Option<u32>> = section.simulcast.iter().map(|encoding| encoding.ssrc).collect();
    assert_eq!(ssrcs, [Some(2_458_706_162), Some(2_458_706_163), Some(2_458_706_164)]);
    let pairs: Vec<_> = (0..3).map(|index| (2_458_706_162 + index, Some(1_219_378_715 + index))).collect();
    assert_eq!(section.declared_ssrcs, pairs);
    assert_eq!(section.extensions.id(Extension::RtpStreamId), None);
    assert!(detail(&app).contains("simulcast of 3 layers"), "{}", detail(&app));
    // One SSRC twice is no group; rids say more than a group does.
    let single = offer.replace("SIM 2458706162 2458706163 2458706164", "SIM 2458706162 2458706162");
    assert!(answered(SignalingConfig::default(), &single).await.2.simulcast.is_empty());
    let both = golden("chromium-simulcast-data").replace("a=rid:q send", "a=ssrc-group:SIM 1 2 3\r\na=rid:q send");
    assert_eq!(rids(&answered(SignalingConfig::default(), &both).await.2), ["q", "h", "f"]);
}

// EXT-H11
#[tokio::test]
async fn what_describes_layers_is_answered_to_publishers_and_their_descriptor_alone_to_viewers() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("chromium-simulcast-data")).await;
    let publisher = &app.core.last().sections[1];
    assert_eq!(publisher.extensions.id(Extension::DependencyDescriptor), Some(12));
    assert_eq!(publisher.extensions.id(Extension::VideoLayersAllocation), Some(9));
    // A page that wants them adds the lines: Chromium offers neither to watch.
    let lines = [Extension::DependencyDescriptor, Extension::VideoLayersAllocation].map(Extension::uri);
    let lines = format!("a=extmap:12 {}\r\na=extmap:13 {}\r\na=extmap:1 ", lines[0], lines[1]);
    let offer = golden("chromium-watch").replacen("a=extmap:1 ", &lines, 1);
    let reply = app.post("/whep/s", &offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    lint(&offer, &reply.body, "sendonly", true);
    let viewer = &app.core.last().sections[0];
    assert_eq!(viewer.extensions.id(Extension::DependencyDescriptor), Some(12));
    assert_eq!(viewer.extensions.id(Extension::VideoLayersAllocation), None);
    assert!(viewer.simulcast.is_empty() && viewer.extensions.id(Extension::RtpStreamId).is_none());
}
