//! ICE restarts over PATCH, with media flowing (RFC 9725 §4.3.3, RFC 8445 §9).

use std::time::Duration;

use loadtest::client::{ClientOptions, PublisherOptions, Running, Viewer};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// Waits until the newest session of a role has completed so many restarts, and its stage says so; returns it.
async fn restarted(server: &Sluice, role: &str, times: u64) -> serde_json::Value {
    let said = format!("ICE restart {times}: nominated 127.0.0.1:");
    let session = async || {
        let session = server.session("s", role).await;
        let is_said = ice(&session)["detail"].as_str().is_some_and(|detail| detail.starts_with(&said));
        (session["stats"]["ice_restarts"] == times && is_said).then_some(session)
    };
    eventually("the restart is complete", LONG, session).await
}

/// The stage `ice` of a session.
fn ice(session: &serde_json::Value) -> &serde_json::Value {
    session["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "ice").unwrap()
}

async fn more(viewer: &Viewer) {
    let delivered = viewer.figures().video.delivered;
    viewer_sees("more video", viewer, LONG, |figures| figures.video.delivered > delivered + 100).await;
}

// TRK-09, TRK-10, TRK-12, DTLS-15
#[tokio::test]
async fn publishers_and_viewers_restart_ice_and_not_a_packet_is_lost() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        let clients: [(&str, &Running); 2] = [("publisher", &publisher), ("viewer", &viewer)];
        for times in 1..=2 {
            for (role, client) in clients {
                client.restart_ice(false).await.unwrap();
                let session = restarted(&server, role, times).await;
                let stage = ice(&session);
                assert_eq!((stage["state"].as_str(), stage["reopened"].as_u64()), (Some("done"), Some(0)), "{stage}");
                assert_eq!(session["state"], "media");
                more(&viewer).await;
            }
        }
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{mode}: {figures:?}");
        assert_eq!((figures.refused, figures.nacked, figures.audio.lost), (0, 0, 0), "{mode}: {figures:?}");
        let sent = publisher.stop().await.unwrap();
        assert_eq!((sent.refused, sent.resent), (0, 0), "{mode}");
        assert_eq!(server.metric("sluice_shard_dtls_handshakes_completed_total", &[]).await, 2.0, "no new handshake");
        for name in ["sluice_shard_ice_restarts_total", "sluice_shard_ice_restarts_completed_total"] {
            assert_eq!(server.metric(name, &[]).await, 4.0, "{name}");
        }
    }
}

// TRK-12, ICE-19
#[tokio::test]
async fn a_restart_from_a_new_address_takes_media_there() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        let clients: [(&str, &Running); 2] = [("publisher", &publisher), ("viewer", &viewer)];
        for (role, client) in clients {
            let before = server.session("s", role).await["stats"]["remote_address"].clone();
            client.restart_ice(true).await.unwrap();
            let session = restarted(&server, role, 1).await;
            assert_ne!(session["stats"]["remote_address"], before);
            more(&viewer).await;
        }
        // What was under way to the old socket is asked for again; audio has no such request.
        viewer_sees("no gap in the video", &viewer, LONG, |figures| figures.video.lost == 0).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.video.is_intact() && figures.audio.lost < 10 && figures.refused == 0, "{mode}: {figures:?}");
        publisher.stop().await.unwrap();
    }
}

// TRK-13: the client never uses the new credentials, and whoever sees the session is told so.
#[tokio::test]
async fn a_restart_that_nobody_follows_up_is_given_up_and_media_flow_on() {
    let server = Sluice::start(&["--ice-timeout", "4s"]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    let fragment = format!("a=ice-ufrag:abcd\r\na=ice-pwd:{}\r\n", "p".repeat(24));
    let patch = server.http.patch(viewer.session_url()).header("if-match", "*");
    let patch = patch.header("content-type", "application/trickle-ice-sdpfrag").body(fragment);
    assert_eq!(patch.send().await.unwrap().status(), 200);
    let session = eventually("the restart is given up", LONG, async || {
        let session = server.session("s", "viewer").await;
        let is_over = ice(&session)["detail"].as_str().is_some_and(|detail| detail.starts_with("ICE restart failed"));
        is_over.then_some(session)
    })
    .await;
    assert_eq!((session["state"].as_str(), ice(&session)["state"].as_str()), (Some("media"), Some("done")));
    assert_eq!(session["stats"]["ice_restarts"], 0);
    // The next one is another, and succeeds.
    viewer.restart_ice(false).await.unwrap();
    restarted(&server, "viewer", 1).await;
    more(&viewer).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.is_intact() && figures.nacked == 0, "{figures:?}");
    publisher.stop().await.unwrap();
}

// TRK-12: a client that makes its checks as FFmpeg does, and answers none.
#[tokio::test]
async fn a_client_with_the_simplest_checks_restarts_ice_as_well() {
    let server = Sluice::start(&[]).await;
    let options = ClientOptions { bare_checks: true, ..ClientOptions::default() };
    let publisher = server.publisher_with("s", PublisherOptions::default(), options).await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    publisher.restart_ice(false).await.unwrap();
    restarted(&server, "publisher", 1).await;
    more(&viewer).await;
    // Past the time for which the credentials before are served.
    tokio::time::sleep(Duration::from_secs(6)).await;
    more(&viewer).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.is_intact(), "{figures:?}");
    publisher.stop().await.unwrap();
}
