//! Clients of all manners: those of real programs that are no browsers, and every choice that an offer leaves.

use std::time::Duration;

use loadtest::client::{ClientOptions, PublisherOptions, ViewerOptions};
use loadtest::sdp::{Imitation, Setup};
use media_core::internals::dtls::CertificateKey;
use media_core::internals::srtp::SrtpProfile;
use media_core::media::Codec;

use crate::support::{LONG, Sluice, eventually, viewer_sees};

// STUN-07, WHIP-27, WHIP-33, ICE-16, RTCP-21
#[tokio::test]
async fn a_publisher_like_ffmpeg_outlives_the_liveness_time_by_its_media_alone() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode, "--liveness-timeout", "5s"]).await;
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
        // 50 packets a second: far more than the liveness time.
        viewer_sees("eight seconds of audio", &viewer, LONG, |figures| figures.audio.delivered > 400).await;
        viewer_sees("some keyframes", &viewer, LONG, |figures| figures.video.keyframes >= 3).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
        // A pause of the machine is in the time of a packet as well.
        assert!(figures.longest_report_step < 1.0 + figures.longest_time_step, "{figures:?}");
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
        assert_eq!(publisher.stop().await.unwrap().refused, 0);
    }
}

// COD-17, RTCP-22
#[tokio::test]
async fn viewers_of_a_publisher_that_ignores_keyframe_requests_begin_at_its_last_keyframe() {
    let server = Sluice::start(&["--shards", "2"]).await;
    // One keyframe, and no other while the test lasts.
    let media = PublisherOptions {
        video: Some(Codec::H264),
        gop: Duration::from_secs(600),
        imitates: Imitation::Obs,
        ..PublisherOptions::default()
    };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    eventually("two seconds of media", LONG, async || (publisher.figures().frames > 60).then_some(())).await;
    for _ in 0..3 {
        let viewer = server.viewer("s").await;
        viewer_sees("video and audio", &viewer, LONG, |figures| {
            figures.video.keyframes == 1 && figures.video.delivered > 300 && figures.audio.delivered > 10
        })
        .await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
    }
    assert_eq!(publisher.stop().await.unwrap().keyframes, 1);
}

// WHIP-27, DTLS-12
#[tokio::test]
async fn either_end_may_start_the_handshake() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        for setup in [Setup::ActPass, Setup::Active, Setup::Passive] {
            let options = ClientOptions { setup, ..ClientOptions::default() };
            let publisher = server.publisher_with("s", PublisherOptions::default(), options.clone()).await;
            let viewer = server.post_viewer("s", options).await.unwrap();
            viewer.connected().await.unwrap();
            let active = setup == Setup::Passive;
            assert_eq!((publisher.answer().active, viewer.answer().active), (active, active));
            viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 30).await;
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{setup:?}: {figures:?}");
            publisher.stop().await.unwrap();
        }
    }
}

// SRTP-01, DTLS-18
#[tokio::test]
async fn every_leg_has_the_srtp_profile_of_its_own_client() {
    let server = Sluice::start(&[]).await;
    let only = |profile| ClientOptions { srtp_profiles: vec![profile], ..ClientOptions::default() };
    for published in SrtpProfile::ALL {
        let publisher = server.publisher_with("s", PublisherOptions::default(), only(published)).await;
        assert_eq!(publisher.connected().await.unwrap(), published);
        for watched in SrtpProfile::ALL {
            let viewer = server.post_viewer("s", only(watched)).await.unwrap();
            assert_eq!(viewer.connected().await.unwrap(), watched);
            viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 30).await;
            assert_eq!(server.session("s", "viewer").await["stats"]["srtp_profile"], watched.as_str());
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{published} to {watched}: {figures:?}");
        }
        publisher.stop().await.unwrap();
    }
}

// WHEP-04
#[tokio::test]
async fn a_viewer_gets_what_it_asks_for_of_what_there_is() {
    let server = Sluice::start(&[]).await;
    let audio = || ViewerOptions { video: Vec::new(), ..ViewerOptions::default() };
    let video = || ViewerOptions { audio: false, ..ViewerOptions::default() };
    let radio = PublisherOptions { video: None, ..PublisherOptions::default() };
    let silent = PublisherOptions { audio: false, ..PublisherOptions::default() };
    let cases = [
        (PublisherOptions::default(), audio(), true, false),
        (PublisherOptions::default(), video(), false, true),
        (radio.clone(), ViewerOptions::default(), true, false),
        (silent.clone(), ViewerOptions::default(), false, true),
    ];
    for (published, asked, hears, sees) in cases {
        let publisher = server.publisher_with("s", published, ClientOptions::default()).await;
        let viewer = server.post_viewer_with("s", asked, ClientOptions::default()).await.unwrap();
        viewer_sees("media", &viewer, LONG, |figures| figures.total().delivered > 30).await;
        viewer_sees("each kind", &viewer, LONG, |figures| {
            (figures.audio.delivered > 0) == hears && (figures.video.delivered > 0) == sees
        })
        .await;
        assert!(viewer.stop().await.unwrap().is_intact());
        publisher.stop().await.unwrap();
    }
    // Nothing in common.
    let publisher = server.publisher_with("s", radio, ClientOptions::default()).await;
    let error = server.post_viewer_with("s", video(), ClientOptions::default()).await.err().unwrap();
    assert!(error.to_string().contains("422") && error.to_string().contains("sdp-no-common-codec"), "{error}");
    publisher.stop().await.unwrap();
}

// F-25
#[tokio::test]
async fn clients_with_certificates_of_every_kind_connect_in_both_roles() {
    use CertificateKey::{Ed25519, P224, P256, P384, P521, Rsa2048, Rsa4096};
    let server = Sluice::start(&[]).await;
    for certificate in [P224, P256, P384, P521, Rsa2048, Rsa4096, Ed25519] {
        for setup in [Setup::Active, Setup::Passive] {
            if certificate == Ed25519 && setup == Setup::Passive {
                // OpenSSL 3.0, on which the client runs, has these for a server of TLS 1.2, and not of DTLS 1.2.
                continue;
            }
            let options = ClientOptions { setup, certificate, ..ClientOptions::default() };
            let publisher = server.publisher_with("s", PublisherOptions::default(), options.clone()).await;
            let viewer = server.post_viewer("s", options).await.unwrap();
            viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 20).await;
            assert!(viewer.stop().await.unwrap().is_intact(), "{certificate:?} {setup:?}");
            publisher.stop().await.unwrap();
        }
    }
}
