//! A publisher and viewers, each of them alone.

use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loadtest::LayerId;
use loadtest::client::{
    ClientError, ClientOptions, Identity, PublisherOptions, Verify, Viewer, ViewerFigures, ViewerOptions,
};
use media_core::internals::srtp::SrtpProfile;
use media_core::ledger::{Reason, Stage};
use media_core::media::Codec;

use crate::server::Server;
use crate::short;

/// Waits until figures say what they have to.
async fn until<T: Debug>(what: &str, figures: impl Fn() -> T, holds: impl Fn(&T) -> bool) {
    let begun = Instant::now();
    while !holds(&figures()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}: {:?}", figures());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn viewers_get_everything_once_and_whole() {
    for video in [Codec::Vp8, Codec::H264] {
        let server = Server::start().await;
        // A viewer gets its first keyframe by a request, and not by waiting.
        let gop = Duration::from_secs(600);
        let media = PublisherOptions { video: Some(video), bitrate: 2000, gop, ..PublisherOptions::default() };
        let publisher = server.publisher(media, short()).await.unwrap();
        let mut viewers = Vec::new();
        for _ in 0..3 {
            viewers.push(server.viewer(ViewerOptions::default(), short()).await.unwrap());
        }
        assert_eq!(viewers[0].connected().await.unwrap(), SrtpProfile::AeadAes128Gcm);
        for viewer in viewers {
            let enough = |figures: &ViewerFigures| figures.audio.delivered > 50 && figures.video.delivered > 200;
            until("media", || viewer.figures(), enough).await;
            until("a keyframe", || viewer.figures(), |figures| figures.first_keyframe.is_some()).await;
            until("a sender report", || viewer.figures(), |figures| figures.sender_reports > 0).await;
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{figures:?}");
        }
        let figures = publisher.stop().await.unwrap();
        assert!(figures.keyframes >= 1 && figures.refused == 0, "{figures:?}");
        assert!(server.reflector.sessions.lock().unwrap().is_empty(), "DELETE ends sessions");
    }
}

#[tokio::test]
async fn a_viewer_knows_what_it_could_show_of_layers() {
    for (video, mode) in [(Codec::Vp8, "L1T3"), (Codec::Vp9, "L3T3_KEY")] {
        let server = Server::start().await;
        let svc = Some(mode.parse().unwrap());
        let media = PublisherOptions { video: Some(video), svc, ..PublisherOptions::default() };
        let publisher = server.publisher(media, short()).await.unwrap();
        let watched = ViewerOptions { video: vec![video], has_layers: true, ..ViewerOptions::default() };
        let viewer = server.viewer(watched, ClientOptions { verify: Verify::All, ..short() }).await.unwrap();
        until(mode, || viewer.pictures(), |pictures| pictures.shown >= 40).await;
        let (figures, pictures) = (viewer.figures(), viewer.pictures());
        let spatial = if video == Codec::Vp9 { 2 } else { 0 };
        let highest = LayerId { encoding: 0, spatial, temporal: 2 };
        assert_eq!(pictures.changes.last().map(|(_, layer)| *layer), Some(highest), "{mode}");
        assert!(figures.is_intact(), "{mode}: {figures:?}");
        viewer.stop().await.unwrap();
        publisher.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_publisher_of_layers_does_not_start_where_they_are_not_taken() {
    let server = Server::start().await;
    let media = PublisherOptions { simulcast: 3, ..PublisherOptions::default() };
    let error = server.publisher(media, short()).await.err().unwrap();
    assert!(matches!(&error, ClientError::Answer(what) if what.contains("q;h;f")), "{error}");
}

#[tokio::test]
async fn what_a_server_kept_for_a_viewers_start_counts_as_received_and_not_as_late() {
    let server = Server::start().await;
    server.reflector.faults.keeps.store(true, Ordering::Relaxed);
    let publisher = server.publisher(PublisherOptions { bitrate: 300, ..PublisherOptions::default() }, short()).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    for verify in [Verify::All, Verify::Sample(16)] {
        let media = ViewerOptions::default();
        let (latency, joined) = (media.latency.clone(), Instant::now());
        let viewer = server.viewer(media, ClientOptions { verify, ..short() }).await.unwrap();
        let counted = || latency.lock().unwrap().len();
        while counted() < 20 {
            assert!(joined.elapsed() < Duration::from_secs(20), "{:?}", viewer.figures());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let figures = viewer.figures();
        assert!(figures.first_rtp.is_some() && figures.first_keyframe.is_some(), "{figures:?}");
        assert!(figures.is_intact() && figures.total().delivered > 80, "its start included: {figures:?}");
        let latest = latency.lock().unwrap().max();
        assert!(latest < 800_000, "the oldest packet is older than a second; the latest that counts {latest} us");
        viewer.stop().await.unwrap();
    }
    publisher.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_blind_viewer_asks_for_a_keyframe_and_gets_it() {
    let server = Server::start().await;
    let media = PublisherOptions { gop: Duration::from_secs(600), ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    until("the first keyframe is gone", || publisher.figures(), |figures| figures.keyframes > 0).await;
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    until("a keyframe", || viewer.figures(), |figures| figures.first_keyframe.is_some()).await;
    viewer.stop().await.unwrap();
    assert!(publisher.stop().await.unwrap().keyframe_requests > 0);
}

#[tokio::test]
async fn lost_packets_are_recovered_by_retransmission() {
    let server = Server::start().await;
    let media = PublisherOptions { audio: false, bitrate: 4000, ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    let options = ClientOptions { drop_incoming: 0.05, connect_timeout: Duration::from_secs(5), ..short() };
    let viewer = server.viewer(ViewerOptions::default(), options).await.unwrap();
    until("retransmissions", || viewer.figures(), |figures| figures.video.recovered > 30).await;
    let figures = viewer.stop().await.unwrap();
    // What was lost in the last moments could not be asked for any more.
    assert!(figures.video.lost < 15, "{figures:?}");
    assert_eq!((figures.video.corrupt, figures.video.duplicated), (0, 0), "{figures:?}");
    assert!(publisher.stop().await.unwrap().resent > 30);
}

#[tokio::test]
async fn altered_payloads_are_found() {
    let server = Server::start().await;
    server.reflector.faults.corrupt.store(true, Ordering::Relaxed);
    let _publisher = server.publisher(PublisherOptions::default(), short()).await.unwrap();
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let figures = viewer.stop().await.unwrap();
    assert!(!figures.is_intact());
    assert_eq!(figures.total().corrupt, figures.total().delivered, "{figures:?}");
}

#[tokio::test]
async fn without_checks_no_stage_after_ice_begins() {
    let server = Server::start().await;
    let options =
        ClientOptions { send_checks: false, connect_timeout: Duration::from_millis(300), ..ClientOptions::default() };
    let error = server.publisher(PublisherOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Timeout(_, Stage::Ice)), "{error}");
    assert_eq!(server.reflector.sessions.lock().unwrap()[&1].ice.last_valid_check(), None);
}

#[tokio::test]
async fn a_wrong_fingerprint_ends_the_handshake() {
    let server = Server::start().await;
    let options = ClientOptions { corrupt_fingerprint: true, ..short() };
    let error = server.publisher(PublisherOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Dtls(_)), "{error}");
    assert_eq!(server.failures(), [Reason::FingerprintMismatch]);
}

#[tokio::test]
async fn without_a_common_srtp_profile_there_are_no_keys() {
    let server = Server::start().await;
    let options = ClientOptions { srtp_profiles: Vec::new(), ..short() };
    let error = server.publisher(PublisherOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Dtls(_)), "{error}");
    assert_eq!(server.failures(), [Reason::NoSrtpProfile]);
}

#[tokio::test]
async fn every_srtp_profile_carries_media() {
    for profile in SrtpProfile::ALL {
        let server = Server::start().await;
        let options = ClientOptions { srtp_profiles: vec![profile], ..short() };
        let publisher = server.publisher(PublisherOptions::default(), options.clone()).await.unwrap();
        assert_eq!(publisher.connected().await.unwrap(), profile);
        let viewer = server.viewer(ViewerOptions::default(), options).await.unwrap();
        until("media", || viewer.figures(), |figures| figures.total().delivered > 20).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{profile} {figures:?}");
    }
}

#[tokio::test]
async fn corrupted_srtp_reaches_the_server_and_authenticates_never() {
    let server = Server::start().await;
    let options = ClientOptions { corrupt_srtp: true, ..short() };
    let _publisher = server.publisher(PublisherOptions::default(), options).await.unwrap();
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    let unauthentic = || server.reflector.sessions.lock().unwrap()[&1].unauthentic;
    until("unauthentic packets", unauthentic, |&packets| packets > 20).await;
    assert_eq!(viewer.stop().await.unwrap().total().delivered, 0);
}

#[tokio::test]
async fn a_publisher_without_keyframes_sends_none() {
    let server = Server::start().await;
    let media = PublisherOptions { keyframes: false, ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    // Neither by themselves nor for the asking.
    until("a request", || publisher.figures(), |figures| figures.keyframe_requests > 0).await;
    until("video", || viewer.figures(), |figures| figures.video.delivered > 50).await;
    let figures = viewer.stop().await.unwrap();
    assert_eq!(figures.video.keyframes, 0, "{figures:?}");
    assert_eq!(publisher.stop().await.unwrap().keyframes, 0);
}

#[tokio::test]
async fn a_sampling_viewer_counts_every_packet_and_verifies_some() {
    let server = Server::start().await;
    let media = PublisherOptions { bitrate: 4000, gop: Duration::from_millis(500), ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    let viewer = async |verify, drop_incoming| {
        let options = ClientOptions { verify, drop_incoming, ..short() };
        server.viewer(ViewerOptions { nack: drop_incoming == 0.0, ..ViewerOptions::default() }, options).await.unwrap()
    };
    let (all, some) = (viewer(Verify::All, 0.0).await, viewer(Verify::Sample(16), 0.0).await);
    let lossy = viewer(Verify::Sample(16), 0.1).await;
    for viewer in [&all, &some, &lossy] {
        until("media", || viewer.figures(), |figures| figures.total().delivered > 600).await;
    }
    let [all, some, lossy] = [all, some, lossy].map(|viewer| async { viewer.stop().await.unwrap().total() });
    let (all, some, lossy) = (all.await, some.await, lossy.await);
    assert_eq!(all.verified, all.delivered, "{all:?}");
    assert!(some.is_intact(), "{some:?}");
    // What comes before the first keyframe is verified as well.
    assert!(some.verified > some.delivered / 20 && some.verified < some.delivered / 2, "{some:?}");
    // What this viewer threw away is lost, and the publisher's counters say the same.
    let share = lossy.lost as f64 / (lossy.lost + lossy.delivered) as f64;
    assert!((0.05..0.16).contains(&share) && lossy.missing == lossy.lost, "{lossy:?}");
    publisher.stop().await.unwrap();

    server.reflector.faults.corrupt.store(true, Ordering::Relaxed);
    let _publisher = server.publisher(PublisherOptions::default(), short()).await.unwrap();
    let viewer = viewer(Verify::Sample(4), 0.0).await;
    until("corrupt packets", || viewer.figures(), |figures| figures.total().corrupt > 0).await;
    let total = viewer.stop().await.unwrap().total();
    assert!(!total.is_intact(), "{total:?}");
}

#[tokio::test]
async fn a_refusal_is_told_as_it_was() {
    let server = Server::start().await;
    let options = short();
    let identity = Identity::new(&options).unwrap();
    let endpoint = server.endpoint("nothing/here");
    let error = Viewer::start(&endpoint, &identity, ViewerOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Refused { status: 404, .. }), "{error}");
}
