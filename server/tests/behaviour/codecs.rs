//! Codecs, profiles and tracks that differ between publishers and viewers, and that change while viewers watch.

use std::time::{Duration, Instant};

use loadtest::client::{ClientError, ClientOptions, Publisher, PublisherOptions, Viewer, ViewerOptions};
use loadtest::run::{Campaign, Plan, Scenario};
use media_core::media::Codec;
use serde_json::Value;

use crate::ledger::{Then, assert_failed, state};
use crate::life::viewers_everywhere;
use crate::support::{LONG, Sluice, eventually, viewer_sees};

const SECOND: Duration = Duration::from_secs(1);

fn h264(described: &str, profile: u32) -> PublisherOptions {
    PublisherOptions {
        video: Some(Codec::H264),
        described_profile: described.to_owned(),
        profile,
        ..PublisherOptions::default()
    }
}

fn vp8() -> PublisherOptions {
    PublisherOptions::default()
}

/// A viewer that offers H264 in these profiles, and VP8 if `vp8`.
fn offering(vp8: bool, profiles: &[&str]) -> ViewerOptions {
    let codecs = [(Codec::Vp8, vp8), (Codec::H264, !profiles.is_empty())];
    ViewerOptions {
        video: codecs.into_iter().filter(|(_, offered)| *offered).map(|(codec, _)| codec).collect(),
        profiles: profiles.iter().map(|&profile| profile.to_owned()).collect(),
        ..ViewerOptions::default()
    }
}

async fn watch(server: &Sluice, offers: ViewerOptions) -> Viewer {
    let viewer = server.post_viewer_with("s", offers, ClientOptions::default()).await.unwrap();
    viewer.connected().await.unwrap();
    viewer
}

async fn publish(server: &Sluice, media: PublisherOptions) -> Publisher {
    eventually("the stream is free", LONG, async || {
        (server.metric("sluice_publishers", &[]).await == 0.0).then_some(())
    })
    .await;
    server.publisher_with("s", media, ClientOptions::default()).await
}

/// The viewer gets a keyframe within a second after `since`.
async fn goes_on(what: &str, viewer: &Viewer, since: Instant, keyframes_before: u64) {
    let left = SECOND.saturating_sub(since.elapsed());
    viewer_sees(what, viewer, left, |figures| figures.video.keyframes > keyframes_before).await;
}

/// The server ends the viewer within a second after `since`.
async fn is_ended(what: &str, viewer: &Viewer, since: Instant) {
    let ended = tokio::time::timeout(SECOND.saturating_sub(since.elapsed()), viewer.ended()).await;
    assert!(matches!(ended, Ok(ClientError::ClosedByServer)), "{what}: {ended:?}");
}

/// Code and detail of the warnings of a stage of the newest session.
async fn warnings(server: &Sluice, role: &str, stage: &str) -> Vec<(String, String)> {
    let session = server.session("s", role).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = state(&session, stage)["warnings"].as_array().unwrap();
    list.iter().map(|warning| (text(&warning["code"]), text(&warning["detail"]))).collect()
}

// F-02
#[tokio::test]
async fn viewers_go_on_when_a_publisher_returns_with_another_codec_profile_or_payload_type() {
    let server = Sluice::start(&[]).await;
    let mut publisher = server.publisher_with("s", h264("42e01f", 0x42_e01f), ClientOptions::default()).await;
    let mut viewers = Vec::new();
    for _ in 0..2 {
        viewers.push(watch(&server, offering(true, &["42e01f", "64001f"])).await);
    }
    for viewer in &viewers {
        viewer_sees("media", viewer, LONG, |figures| figures.video.keyframes > 0).await;
    }
    let returns = [
        ("VP8", vp8()),
        ("VP8 under another payload type", PublisherOptions { payload_type_shift: 8, ..vp8() }),
        ("High", h264("64001f", 0x64_001f)),
        (
            "Constrained High under another payload type",
            PublisherOptions { payload_type_shift: 4, ..h264("640c1f", 0x64_0c1f) },
        ),
        ("Baseline", h264("42001f", 0x42_001f)),
    ];
    for (what, media) in returns {
        let before: Vec<u64> = viewers.iter().map(|viewer| viewer.figures().video.keyframes).collect();
        publisher.stop().await.unwrap();
        publisher = publish(&server, media).await;
        let connected = Instant::now();
        for (viewer, before) in viewers.iter().zip(before) {
            goes_on(what, viewer, connected, before).await;
        }
    }
    for viewer in viewers {
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
        assert_eq!((figures.sources, figures.time_steps_back), (2, 0), "{figures:?}");
    }
    publisher.stop().await.unwrap();
}

// F-02
#[tokio::test]
async fn a_viewer_that_cannot_take_what_a_publisher_returns_with_is_told_and_joins_anew() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher_with("s", vp8(), ClientOptions::default()).await;
    let viewer = watch(&server, offering(true, &[])).await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    publisher.stop().await.unwrap();
    let publisher = publish(&server, h264("42e01f", 0x42_e01f)).await;
    is_ended("it knows no H264", &viewer, Instant::now()).await;
    assert_failed(&server, "s", "viewer", "media", "unsupported-codec", Then::Ends).await;
    let session = server.session("s", "viewer").await;
    let detail = state(&session, "media")["detail"].as_str().unwrap();
    assert!(detail.contains("H264 Constrained Baseline (42e01f)") && detail.contains("VP8"), "{detail}");
    // What is left is sound, and why.
    let viewer = watch(&server, offering(true, &[])).await;
    viewer_sees("audio", &viewer, LONG, |figures| figures.audio.delivered > 10).await;
    assert_eq!(viewer.figures().video.delivered, 0);
    let warned = warnings(&server, "viewer", "signaling").await;
    assert_eq!((warned.len(), warned[0].0.as_str()), (1, "codec-refused"));
    assert!(warned[0].1.contains("H264") && warned[0].1.contains("VP8"), "{warned:?}");
    // The publisher returns with what it takes: it joins anew once more.
    publisher.stop().await.unwrap();
    let publisher = publish(&server, vp8()).await;
    is_ended("it could have video now", &viewer, Instant::now()).await;
    eventually("the reason", LONG, async || {
        (server.session("s", "viewer").await["reason"] == "track-added").then_some(())
    })
    .await;
    let viewer = watch(&server, offering(true, &[])).await;
    viewer_sees("video", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}

// F-02
#[tokio::test]
async fn a_track_more_makes_viewers_join_anew_and_a_track_less_is_in_the_ledger() {
    let server = Sluice::start(&[]).await;
    let radio = PublisherOptions { video: None, ..PublisherOptions::default() };
    let publisher = server.publisher_with("s", radio.clone(), ClientOptions::default()).await;
    let audio_only = ViewerOptions { video: Vec::new(), ..offering(true, &[]) };
    let hears = watch(&server, audio_only).await;
    let sees = watch(&server, offering(true, &[])).await;
    for viewer in [&sees, &hears] {
        viewer_sees("audio", viewer, LONG, |figures| figures.audio.delivered > 10).await;
    }
    // A player asks for both whatever the stream has: that is no fault.
    assert_eq!(server.metric("sluice_session_warnings_total", &[]).await, 0.0);
    publisher.stop().await.unwrap();
    let publisher = publish(&server, vp8()).await;
    is_ended("it wanted video", &sees, Instant::now()).await;
    assert_failed(&server, "s", "viewer", "media", "track-added", Then::Ends).await;
    let before = hears.figures().audio.delivered;
    viewer_sees("audio goes on", &hears, LONG, |figures| figures.audio.delivered > before + 50).await;
    assert!(hears.stop().await.unwrap().is_intact());

    let viewer = watch(&server, offering(true, &[])).await;
    viewer_sees("video", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    publisher.stop().await.unwrap();
    let publisher = publish(&server, radio).await;
    let before = viewer.figures();
    viewer_sees("audio goes on", &viewer, LONG, |figures| figures.audio.delivered > before.audio.delivered + 10).await;
    let warned = warnings(&server, "viewer", "media").await;
    assert_eq!((warned.len(), warned[0].0.as_str()), (1, "track-missing"));
    assert!(warned[0].1.contains("video"), "{warned:?}");
    server.counts("sluice_session_warnings_total", &[("code", "track-missing")], 1.0).await;
    publisher.stop().await.unwrap();
    let publisher = publish(&server, vp8()).await;
    goes_on("video is back", &viewer, Instant::now(), before.video.keyframes).await;
    eventually("the warning is over", LONG, async || {
        warnings(&server, "viewer", "media").await.is_empty().then_some(())
    })
    .await;
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}

// F-01, F-12, F-13
#[tokio::test]
async fn the_profile_of_the_stream_decides_who_sees_it() {
    let (chrome, firefox) = (&["42001f", "42e01f", "4d001f", "64001f"][..], &["42e01f"][..]);
    for (described, profile, viewer, sees) in [
        ("640c1f", 0x64_0c1f, chrome, true),
        ("640c1f", 0x64_0c1f, firefox, false),
        ("42001f", 0x42_c01f, firefox, true),
        ("42001f", 0x42_001f, firefox, true),
        ("4d001f", 0x42_c01f, firefox, true),
        ("42e01f", 0x64_0028, firefox, false),
        ("42e01f", 0x64_0028, chrome, true),
        ("", 0x42_e01f, firefox, true),
    ] {
        let what = format!("{described}, really {profile:06x}, to {viewer:?}");
        let server = Sluice::start(&[]).await;
        let publisher = server.publisher_with("s", h264(described, profile), ClientOptions::default()).await;
        eventually("the stream's profile is known", LONG, async || {
            let streams = server.get("/api/v1/streams").await;
            streams[0]["tracks"][1]["profile"].as_str().map(str::to_owned)
        })
        .await;
        let viewer = watch(&server, offering(false, viewer)).await;
        viewer_sees("audio", &viewer, LONG, |figures| figures.audio.delivered > 30).await;
        let warned = warnings(&server, "viewer", "signaling").await;
        if sees {
            viewer_sees(&what, &viewer, LONG, |figures| figures.video.keyframes > 0).await;
            assert!(warned.is_empty(), "{what}: {warned:?}");
        } else {
            assert_eq!(viewer.figures().video.delivered, 0, "{what}");
            assert_eq!((warned.len(), warned[0].0.as_str()), (1, "codec-refused"), "{what}");
            let labels = [("role", "viewer"), ("code", "codec-refused")];
            server.counts("sluice_session_warnings_total", &labels, 1.0).await;
            let is_line = |entry: &Value| entry["message"] == "session warning" && entry["code"] == "codec-refused";
            let lines = eventually("the log line", LONG, async || {
                Some(server.log().into_iter().filter(is_line).collect::<Vec<_>>()).filter(|lines| !lines.is_empty())
            })
            .await;
            assert_eq!((lines.len(), lines[0]["detail"].as_str()), (1, Some(warned[0].1.as_str())));
        }
        let real = format!("{profile:06x}");
        let lint = warnings(&server, "publisher", "media").await;
        let contradicts = [("4d001f", "42c01f"), ("42e01f", "640028")].contains(&(described, real.as_str()));
        assert_eq!(lint.len(), usize::from(contradicts), "{what}: {lint:?}");
        assert!(viewer.stop().await.unwrap().is_intact(), "{what}");
        publisher.stop().await.unwrap();
    }
}

// F-13
#[tokio::test]
async fn a_profile_that_changes_in_mid_stream_goes_on_where_it_is_decoded_and_is_told_elsewhere() {
    let server = Sluice::start(&[]).await;
    let media = PublisherOptions { gop: Duration::from_secs(600), ..h264("42e01f", 0x42_e01f) };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    let both = watch(&server, offering(false, &["42e01f", "64001f"])).await;
    let one = watch(&server, offering(false, &["42e01f"])).await;
    for viewer in [&both, &one] {
        viewer_sees("media", viewer, LONG, |figures| figures.video.keyframes > 0).await;
    }
    // Another level, as with another resolution, changes nothing.
    let before = [both.figures().video.keyframes, one.figures().video.keyframes];
    let changed = Instant::now();
    publisher.change_profile(0x42_e033);
    for (viewer, before) in [&both, &one].into_iter().zip(before) {
        goes_on("another level", viewer, changed, before).await;
    }
    let before = both.figures().video.keyframes;
    let changed = Instant::now();
    publisher.change_profile(0x64_0033);
    goes_on("High", &both, changed, before).await;
    is_ended("it decodes no High", &one, changed).await;
    let session = eventually("the ledger", LONG, async || {
        let sessions = server.sessions("s", "viewer").await;
        sessions.into_iter().find(|session| session["reason"] == "unsupported-codec")
    })
    .await;
    let detail = state(&session, "media")["detail"].as_str().unwrap();
    assert!(detail.contains("High (640033)") && detail.contains("(42e01f)"), "{detail}");
    let figures = both.stop().await.unwrap();
    assert!(figures.is_intact() && figures.video.restarts == 0, "{figures:?}");
    publisher.stop().await.unwrap();
}

// F-02, F-13
#[tokio::test]
async fn viewers_on_another_shard_go_on_or_are_told_as_those_at_home() {
    let server = Sluice::start(&["--shards", "2"]).await;
    let publisher = server.publisher_with("s", vp8(), ClientOptions::default()).await;
    let (viewers, _crowd) = viewers_everywhere(&server, 2).await;
    for viewer in &viewers {
        viewer_sees("media", viewer, LONG, |figures| figures.video.keyframes > 0).await;
    }
    let before: Vec<u64> = viewers.iter().map(|viewer| viewer.figures().video.keyframes).collect();
    publisher.stop().await.unwrap();
    let publisher = publish(&server, h264("42e01f", 0x42_e01f)).await;
    let connected = Instant::now();
    for (viewer, before) in viewers.iter().zip(before) {
        goes_on("H264", viewer, connected, before).await;
    }
    let changed = Instant::now();
    publisher.change_profile(0x64_0028);
    for viewer in &viewers {
        is_ended("it decodes no High", viewer, changed).await;
    }
    publisher.stop().await.unwrap();
}

// F-02: anybody can try it on any server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_test_changes_the_codec_at_a_publishers_return() {
    let server = Sluice::start(&[]).await;
    let plan = Plan { publishers: 2, viewers: 4, ..server.plan() };
    let scenario = Scenario::Run { garbage: None, returns_with: Some(Codec::H264) };
    let campaign = Campaign { plan, mix: Vec::new(), scenario };
    let report = campaign.run(|_| {}, std::future::pending()).await.unwrap();
    assert!(report.passed && report.integrity, "{}", report.to_table());
    let [_, returned] = &report.phases[..] else { panic!("{} phases", report.phases.len()) };
    assert_eq!((returned.name.as_str(), returned.lost), ("returned with H264", 0));
    // Audio alone would be 50 packets a second for each viewer.
    assert!(returned.packets_per_second > 4.0 * 80.0, "{}", report.to_table());
}
