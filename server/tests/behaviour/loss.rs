//! Lossy paths: what the server repairs, and what it asks to be repaired.

use std::time::Duration;

use loadtest::client::{ClientOptions, PublisherOptions, ViewerOptions};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

// RTCP-07, RTCP-08
#[tokio::test]
async fn a_lossy_viewer_is_helped_from_the_cache_and_disturbs_nobody() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher_with("s", PublisherOptions { audio: false, ..video() }, good()).await;
    let bystander = server.viewer("s").await;
    let lossy = server.post_viewer("s", ClientOptions { drop_incoming: 0.05, ..good() }).await.unwrap();
    viewer_sees("repaired packets", &lossy, LONG, |figures| figures.video.recovered > 50).await;
    // What was lost a moment ago is on its way again.
    viewer_sees("hardly a gap", &lossy, LONG, |figures| figures.video.lost < 10).await;
    let figures = lossy.stop().await.unwrap();
    assert_eq!((figures.video.corrupt, figures.refused, figures.unexpected), (0, 0, 0), "{figures:?}");
    assert!(bystander.stop().await.unwrap().is_intact());
    assert_eq!(publisher.stop().await.unwrap().resent, 0, "the cache answers, not the publisher");
    assert!(server.metric("sluice_shard_rtp_retransmitted_packets_total", &[]).await > 50.0);
}

// RTCP-09, RTCP-10
#[tokio::test]
async fn loss_before_the_server_is_repaired_once_for_all_viewers() {
    let server = Sluice::start(&[]).await;
    let options = ClientOptions { drop_outgoing: 0.03, ..good() };
    let publisher = server.publisher_with("s", PublisherOptions { audio: false, ..video() }, options).await;
    // They ask for nothing: a retransmission of the server's own must not meet the repaired packet and count as a duplicate.
    let silent = ViewerOptions { nack: false, ..ViewerOptions::default() };
    let mut viewers = Vec::new();
    for _ in 0..3 {
        let viewer = server.post_viewer_with("s", silent.clone(), good()).await.unwrap();
        viewer.connected().await.unwrap();
        viewers.push(viewer);
    }
    eventually("many packets were repaired", LONG, async || (publisher.figures().resent > 50).then_some(())).await;
    for viewer in viewers {
        viewer_sees("hardly a gap", &viewer, LONG, |figures| figures.video.lost < 5).await;
        let figures = viewer.stop().await.unwrap();
        assert_eq!((figures.video.corrupt, figures.video.duplicated), (0, 0), "{figures:?}");
    }
    let figures = publisher.stop().await.unwrap();
    // Three viewers, one request: about one packet in thirty is sent again, and some of those are lost again.
    assert!(figures.resent < figures.packets / 15, "{figures:?}");
}

// SRTP-05
#[tokio::test]
async fn duplicate_packets_are_forwarded_once() {
    let server = Sluice::start(&[]).await;
    let options = ClientOptions { repeat: true, ..good() };
    let publisher = server.publisher_with("s", PublisherOptions::default(), options).await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 200).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.is_intact(), "{figures:?}");
    publisher.stop().await.unwrap();
    assert!(server.metric("sluice_shard_dropped_datagrams_total", &[("reason", "srtp-replay")]).await > 200.0);
    assert_eq!(server.metric("sluice_shard_nacks_sent_total", &[]).await, 0.0);
}

// DTLS-35
#[tokio::test]
async fn handshakes_end_well_though_every_third_datagram_is_lost() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let options = ClientOptions { drop_incoming: 0.33, connect_timeout: Duration::from_secs(25), ..good() };
        let mut viewers = Vec::new();
        for _ in 0..10 {
            viewers.push(server.post_viewer("s", options.clone()).await.unwrap());
        }
        for viewer in &viewers {
            viewer.connected().await.unwrap();
            viewer_sees("media", viewer, LONG, |figures| figures.video.delivered > 0).await;
        }
        publisher.stop().await.unwrap();
    }
}

fn video() -> PublisherOptions {
    PublisherOptions { bitrate: 3000, ..PublisherOptions::default() }
}

fn good() -> ClientOptions {
    ClientOptions::default()
}
