//! Encoders with intra refresh: one keyframe, and parameter sets as often as others send keyframes.

use std::time::Duration;

use loadtest::client::{ClientOptions, PublisherOptions};
use loadtest::sdp::Imitation;
use media_core::media::Codec;
use serde_json::Value;

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// Parameter sets twice a second.
fn intra_refresh() -> PublisherOptions {
    PublisherOptions {
        video: Some(Codec::H264),
        gop: Duration::from_millis(500),
        intra_refresh: true,
        ..PublisherOptions::default()
    }
}

/// Keyframes that the server counted of the publisher.
async fn keyframes(server: &Sluice) -> Value {
    server.session("s", "publisher").await["stats"]["keyframes"].clone()
}

// F-03, COD-17
#[tokio::test]
async fn late_viewers_of_an_encoder_with_intra_refresh_begin_with_its_only_keyframe() {
    let server = Sluice::start(&["--shards", "2"]).await;
    for imitates in [Imitation::Browser, Imitation::Obs] {
        let media = PublisherOptions { imitates, ..intra_refresh() };
        let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
        eventually("three refreshes", LONG, async || (publisher.figures().frames > 150).then_some(())).await;
        for _ in 0..3 {
            let viewer = server.viewer("s").await;
            viewer_sees("the keyframe and what follows", &viewer, LONG, |figures| {
                figures.video.keyframes == 1 && figures.video.delivered > 300
            })
            .await;
            assert!(viewer.stop().await.unwrap().is_intact());
        }
        assert_eq!(keyframes(&server).await, 1, "parameter sets are none");
        let figures = publisher.stop().await.unwrap();
        assert_eq!((figures.keyframes, figures.keyframe_requests), (1, 0));
    }
}

// F-03, RTCP-11, RTCP-22: it has no keyframe at first, as if its first one had been lost.
#[tokio::test]
async fn where_no_keyframe_is_to_be_had_viewers_begin_at_a_recovery_point_and_the_ledger_says_so() {
    let server = Sluice::start(&["--shards", "2", "--keyframe-timeout", "1s"]).await;
    let media = PublisherOptions { keyframes: false, ..intra_refresh() };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    let viewers = [server.viewer("s").await, server.viewer("s").await];
    let media = async || {
        let session = server.session("s", "publisher").await;
        session["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "media").unwrap().clone()
    };
    eventually("the stage fails", LONG, async || (media().await["reason"] == "no-keyframe").then_some(())).await;
    for viewer in &viewers {
        viewer_sees("video", viewer, LONG, |figures| figures.video.delivered > 30).await;
        assert_eq!(viewer.figures().video.keyframes, 0);
    }
    let asked = publisher.figures().keyframe_requests;
    assert!(asked >= 3, "it was asked {asked} times");
    assert_eq!((keyframes(&server).await, &media().await["state"]), (0.into(), &"failed".into()));

    publisher.allow_keyframes();
    for viewer in &viewers {
        viewer_sees("the keyframe", viewer, LONG, |figures| figures.video.keyframes == 1).await;
    }
    eventually("the stage is healed", LONG, async || (media().await["state"] == "done").then_some(())).await;
    assert_eq!(keyframes(&server).await, 1);
    for viewer in viewers {
        // With each report it asked for the keyframe that it lacked, and was served from the recovery point once more.
        let video = viewer.stop().await.unwrap().video;
        assert_eq!((video.lost, video.missing, video.corrupt), (0, 0, 0), "{video:?}");
    }
    publisher.stop().await.unwrap();
}
