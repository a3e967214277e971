//! Clients that send and receive by TCP alone (RFC 6544).

use loadtest::client::{ClientOptions, PublisherOptions};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

fn by_tcp() -> ClientOptions {
    ClientOptions { ice_tcp: true, ..ClientOptions::default() }
}

async fn transport(server: &Sluice, role: &str) -> String {
    server.session("s", role).await["stats"]["transport"].as_str().unwrap_or_default().to_owned()
}

// ICE-20
#[tokio::test]
async fn what_is_published_and_watched_over_tcp_is_whole_and_the_server_says_that_it_is_tcp() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher_with("s", PublisherOptions::default(), by_tcp()).await;
        let by_udp = server.viewer("s").await;
        let by_tcp = server.post_viewer("s", by_tcp()).await.unwrap();
        for viewer in [&by_udp, &by_tcp] {
            viewer_sees("three seconds", viewer, LONG, |figures| figures.audio.delivered > 150).await;
        }
        assert_eq!(transport(&server, "publisher").await, "tcp");
        let live = async |transport| server.metric("sluice_sessions_by_transport", &[("transport", transport)]).await;
        assert_eq!((live("tcp").await, live("udp").await), (2.0, 1.0));
        for viewer in [by_udp, by_tcp] {
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{mode}: {figures:?}");
        }
        assert_eq!(publisher.stop().await.unwrap().refused, 0);
        eventually("connections end with their sessions", LONG, async || {
            (server.metric("sluice_shard_tcp_connections", &[]).await == 0.0).then_some(())
        })
        .await;
    }
}

// ICE-20
#[tokio::test]
async fn a_viewer_whose_connection_is_replaced_by_another_goes_on() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.post_viewer("s", by_tcp()).await.unwrap();
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    let delivered = viewer.figures().video.delivered;
    viewer.change_address();
    viewer_sees("media by the other one", &viewer, LONG, |figures| figures.video.delivered > delivered + 150).await;
    assert_eq!(server.sessions("s", "viewer").await.len(), 1);
    viewer.stop().await.unwrap();
    publisher.stop().await.unwrap();
}

// ICE-20
#[tokio::test]
async fn media_may_come_by_the_port_of_http_to_whichever_shard_has_the_session() {
    let server = Sluice::start(&["--ice-tcp=false", "--ice-tcp-on-http", "--shards", "3"]).await;
    let http = server.base.trim_start_matches("http://").parse().unwrap();
    let mut clients = Vec::new();
    // Streams count up, and each lives on the shard of its number.
    for stream in ["a", "b", "c"] {
        let publisher = server.publisher_with(stream, PublisherOptions::default(), by_tcp()).await;
        assert_eq!(publisher.answer().passive, [http]);
        let viewer = server.post_viewer(stream, by_tcp()).await.unwrap();
        viewer_sees("media", &viewer, LONG, |figures| figures.audio.delivered > 20).await;
        clients.push((publisher, viewer));
    }
    for shard in ["0", "1", "2"] {
        assert_eq!(server.metric("sluice_shard_tcp_connections", &[("shard", shard)]).await, 2.0, "shard {shard}");
    }
    assert_eq!(
        server.metric("sluice_shard_tcp_accepted_total", &[]).await,
        0.0,
        "the shards listen nowhere themselves"
    );
    for (publisher, viewer) in clients {
        assert!(viewer.stop().await.unwrap().is_intact());
        publisher.stop().await.unwrap();
    }
}
