//! Publishers with the manners of real programs that are no browsers.

use std::time::Duration;

use loadtest::client::{ClientOptions, PublisherOptions};
use loadtest::sdp::{Imitation, Setup};
use media_core::media::Codec;

use crate::rig::{LONG, Sluice, viewer_sees};

// WHIP-27, WHIP-33, ICE-16, RTCP-21
#[tokio::test]
async fn a_publisher_like_ffmpeg_outlives_the_liveness_time_by_its_media_alone() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode, "--liveness-timeout", "2s"]).await;
        let options = ClientOptions { setup: Setup::Passive, bare_checks: true, ..ClientOptions::default() };
        let media = PublisherOptions {
            video: Some(Codec::H264),
            gop: Duration::from_secs(1),
            imitates: Imitation::Ffmpeg,
            ..PublisherOptions::default()
        };
        let publisher = server.publisher_with("s", media, options).await;
        assert!(publisher.answer().active, "the server starts the handshake");
        let viewer = server.viewer("s").await;
        // 50 packets a second: twice the liveness time.
        viewer_sees("four seconds of audio", &viewer, LONG, |figures| figures.audio.delivered > 200).await;
        viewer_sees("some pictures", &viewer, LONG, |figures| figures.video.keyframes >= 3).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
        assert!(figures.longest_report_step < 1.0, "{figures:?}");
        let figures = publisher.stop().await.unwrap();
        assert_eq!((figures.keyframe_requests, figures.resent, figures.refused), (0, 0, 0), "it agreed to no feedback");
        assert_eq!(server.session("s", "publisher").await["reason"], "deleted");
    }
}

// RTCP-06, WHIP-34
#[tokio::test]
async fn a_publisher_like_obs_needs_neither_candidates_nor_useful_first_reports() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let media = PublisherOptions {
            video: Some(Codec::H264),
            gop: Duration::from_secs(2),
            imitates: Imitation::Obs,
            ..PublisherOptions::default()
        };
        let options = ClientOptions { setup: Setup::ActPass, ..ClientOptions::default() };
        let publisher = server.publisher_with("s", media, options).await;
        let mut viewers = Vec::new();
        for _ in 0..3 {
            viewers.push(server.viewer("s").await);
        }
        for viewer in &viewers {
            viewer_sees("the next keyframe", viewer, LONG, |figures| figures.video.keyframes >= 2).await;
            viewer_sees("reports", viewer, LONG, |figures| figures.sender_reports >= 4).await;
        }
        for viewer in viewers {
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{figures:?}");
            assert!(figures.longest_report_step < 1.0, "the useless report moved no clock: {figures:?}");
        }
        let figures = publisher.stop().await.unwrap();
        assert!(figures.keyframe_requests > 0, "it is asked, though it does not listen: {figures:?}");
        assert_eq!(figures.refused, 0);
    }
}
