//! Clients on impaired links, through the load test's relay.

use loadtest::client::{ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, Viewer, ViewerOptions};
use loadtest::relay::{LinkOptions, Relay, RelayOptions};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// A relay in front of the server, with the same link both ways.
pub(crate) fn relay(server: &Sluice, link: LinkOptions) -> Relay {
    let options = RelayOptions { target: server.base.clone(), up: link, down: link, ..RelayOptions::default() };
    Relay::start(options).unwrap()
}

fn endpoint(server: &Sluice, relay: &Relay, path: &str) -> Endpoint {
    Endpoint { url: format!("{}/{path}", relay.url()), ..server.endpoint(path) }
}

async fn viewer(server: &Sluice, relay: &Relay) -> Viewer {
    viewer_with(server, relay, ViewerOptions::default()).await
}

/// A viewer of the stream "s" behind a relay.
pub(crate) async fn viewer_with(server: &Sluice, relay: &Relay, media: ViewerOptions) -> Viewer {
    let options = ClientOptions::default();
    let identity = Identity::new(&options).unwrap();
    let endpoint = endpoint(server, relay, "whep/s");
    let viewer = Viewer::start(&endpoint, &identity, media, options).await.unwrap();
    viewer.connected().await.unwrap();
    viewer
}

async fn publisher(server: &Sluice, relay: &Relay) -> Publisher {
    publisher_with(server, relay, PublisherOptions::default()).await
}

/// A publisher of the stream "s" behind a relay.
pub(crate) async fn publisher_with(server: &Sluice, relay: &Relay, media: PublisherOptions) -> Publisher {
    let options = ClientOptions::default();
    let identity = Identity::new(&options).unwrap();
    let endpoint = endpoint(server, relay, "whip/s");
    let publisher = Publisher::start(&endpoint, &identity, media, options).await.unwrap();
    publisher.connected().await.unwrap();
    publisher
}

// RTCP-07, RTCP-08
#[tokio::test]
async fn a_viewer_behind_loss_and_delay_keeps_receiving_and_disturbs_nobody() {
    let server = Sluice::start(&[]).await;
    let media = PublisherOptions { bitrate: 2000, ..PublisherOptions::default() };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    let bystander = server.viewer("s").await;
    let relay = relay(&server, LinkOptions { loss: 5.0, delay: 25.0, ..LinkOptions::default() });
    let viewer = viewer(&server, &relay).await;
    viewer_sees("much media", &viewer, LONG, |figures| figures.video.delivered > 1500).await;
    // What was lost a moment ago is on its way again.
    viewer_sees("hardly a gap", &viewer, LONG, |figures| figures.video.lost < 10).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.video.recovered > 30, "{figures:?}");
    assert_eq!((figures.video.corrupt, figures.refused, figures.unexpected), (0, 0, 0), "{figures:?}");
    let counts = relay.stop();
    assert!(counts.down.lost > 50 && counts.up.lost > 0, "{counts:?}");
    assert_eq!((counts.ports, counts.overflowed, counts.down.overflowed), (1, 0, 0), "{counts:?}");
    assert!(bystander.stop().await.unwrap().is_intact());
    assert_eq!(publisher.stop().await.unwrap().resent, 0, "the cache answers, not the publisher");
}

// ICE-19, DTLS-15
#[tokio::test]
async fn a_publisher_behind_a_nat_that_forgets_its_port_goes_on() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let relay = relay(&server, LinkOptions { delay: 5.0, ..LinkOptions::default() });
        let publisher = publisher(&server, &relay).await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        relay.rebind();
        eventually("another port", LONG, async || (relay.counts().rebound == 1).then_some(())).await;
        let delivered = viewer.figures().video.delivered;
        // Its next check, at most 5 s later, proves the new address.
        viewer_sees("media goes on", &viewer, LONG, |figures| figures.video.delivered > delivered + 150).await;
        assert_eq!(server.sessions("s", "publisher").await.len(), 1);
        assert_eq!(publisher.stop().await.unwrap().refused, 0);
        assert_eq!(viewer.stop().await.unwrap().video.corrupt, 0);
        let counts = relay.stop();
        assert_eq!((counts.flows_opened, counts.rebound), (1, 1));
    }
}

// ICE-19: its consent checks carry no nomination, and it sends no media that would show its new address.
#[tokio::test]
async fn a_viewer_behind_a_nat_that_forgets_its_port_goes_on() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let relay = relay(&server, LinkOptions { delay: 5.0, ..LinkOptions::default() });
        let viewer = viewer(&server, &relay).await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        relay.rebind();
        eventually("another port", LONG, async || (relay.counts().rebound == 1).then_some(())).await;
        let delivered = viewer.figures().video.delivered;
        viewer_sees("media goes on", &viewer, LONG, |figures| figures.video.delivered > delivered + 150).await;
        assert_eq!(server.sessions("s", "viewer").await.len(), 1);
        assert_eq!(viewer.stop().await.unwrap().video.corrupt, 0);
        relay.stop();
        publisher.stop().await.unwrap();
    }
}
