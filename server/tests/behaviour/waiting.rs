//! Viewers that come before their publisher and may wait for it.

use crate::support::{LONG, Sluice, eventually, viewer_sees};

// WHEP-05, OPS-01
#[tokio::test]
async fn a_viewer_that_may_wait_has_media_once_a_publisher_comes_and_is_not_kept_for_ever() {
    let args = ["--require-live=false", "--unknown-stream-status", "409", "--publisher-wait", "3s", "--shards", "2"];
    let server = Sluice::start(&args).await;
    let viewer = server.viewer("s").await;
    let publisher = server.publisher("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0 && figures.audio.delivered > 10).await;
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();

    let _alone = server.viewer("nobody-comes").await;
    eventually("the viewer is told that nobody came", LONG, async || {
        (server.session("nobody-comes", "viewer").await["reason"] == "publisher-gone").then_some(())
    })
    .await;
}
