//! Addresses: those that change, those of both families, and those of strangers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use loadtest::client::{ClientOptions, PublisherOptions, bare_check};
use media_core::IceCredentials;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

async fn remote(server: &Sluice, role: &str) -> String {
    server.session("s", role).await["stats"]["remote_address"].as_str().unwrap_or_default().to_owned()
}

// ICE-19, DTLS-15
#[tokio::test]
async fn a_viewer_that_moves_to_a_new_address_is_followed() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        for _ in 0..3 {
            let (before, delivered) = (remote(&server, "viewer").await, viewer.figures().video.delivered);
            viewer.change_address();
            eventually("the new address", LONG, async || (remote(&server, "viewer").await != before).then_some(()))
                .await;
            viewer_sees("media there", &viewer, LONG, |figures| figures.video.delivered > delivered + 150).await;
        }
        // What went to the old address, until the new one was proven, is asked for again; audio has no such request. Each move
        // takes a repeated check (H1).
        viewer_sees("no gap in the video", &viewer, LONG, |figures| figures.video.lost == 0).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.video.is_intact() && figures.audio.lost < 30 && figures.refused == 0, "{figures:?}");
        assert_eq!(server.sessions("s", "viewer").await.len(), 1);
        publisher.stop().await.unwrap();
    }
}

// ICE-19, DTLS-15
#[tokio::test]
async fn a_publisher_that_moves_to_a_new_address_is_followed() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        let (before, delivered) = (remote(&server, "publisher").await, viewer.figures().video.delivered);
        publisher.change_address();
        eventually("the new address", LONG, async || (remote(&server, "publisher").await != before).then_some(()))
            .await;
        viewer_sees("media from there", &viewer, LONG, |figures| figures.video.delivered > delivered + 150).await;
        viewer_sees("no gap in the video", &viewer, LONG, |figures| figures.video.lost == 0).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.video.is_intact() && figures.audio.lost < 10, "{figures:?}");
        assert_eq!(publisher.stop().await.unwrap().refused, 0);
    }
}

/// Sends every datagram from a socket of its own kind of stranger, a few at a time: the stream is to be disturbed by what
/// they say, not by a full socket buffer.
async fn pelt(server: &Sluice, datagrams: impl Iterator<Item = Vec<u8>>) -> usize {
    let strangers: Vec<UdpSocket> = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut count = 0;
    for (datagram, stranger) in datagrams.zip(strangers.iter().cycle()) {
        stranger.send_to(&datagram, server.candidates[0]).unwrap();
        count += 1;
        if count % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    count
}

// DMX-01, DMX-03, DMX-05, STUN-05, ICE-09
#[tokio::test]
async fn garbage_from_strangers_is_counted_by_reason_and_disturbs_nobody() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        let dropped = |reason: &'static str| {
            let server = &server;
            async move { server.metric("sluice_shard_dropped_datagrams_total", &[("reason", reason)]).await }
        };

        let mut random = StdRng::seed_from_u64(1);
        let mut fill = move |head: &[u8], length: usize| {
            let mut datagram = head.to_vec();
            datagram.resize_with(length.max(head.len()), || random.random());
            datagram
        };
        let rounds = 200;
        let us = IceCredentials { ufrag: "stranger".into(), pwd: "a-password-of-a-stranger".into() };
        let nobody = IceCredentials { ufrag: "nobody-has-this".into(), pwd: us.pwd.clone() };
        // The fragment is public; only the password is not.
        let forged = IceCredentials { ufrag: viewer.answer().ice.ufrag.clone(), pwd: us.pwd.clone() };
        let kinds: [(&str, Vec<Vec<u8>>); 6] = [
            ("unknown-protocol", (0..rounds).map(|n| fill(&[200 + (n % 50) as u8], 200)).collect()),
            ("unvalidated-address", {
                let dtls = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50];
                let heads: [&[u8]; 3] = [&dtls, &[0x80, 96], &[0x80, 201, 0, 7]];
                (0..rounds).map(|n| fill(heads[n % 3], 300)).collect()
            }),
            ("malformed-stun", (0..rounds).map(|_| fill(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 60)).collect()),
            ("unknown-ufrag", (0..rounds).map(|_| bare_check(&us, &nobody, *b"transactions").unwrap()).collect()),
            ("too-long", (0..rounds).map(|_| fill(&[0x80, 96], 3000)).collect()),
            ("too-short", (0..rounds).map(|_| fill(&[0x80], 4)).collect()),
        ];
        for (reason, datagrams) in kinds {
            let before = dropped(reason).await;
            let sent = pelt(&server, datagrams.into_iter()).await as f64;
            eventually(reason, LONG, async || (dropped(reason).await == before + sent).then_some(())).await;
        }
        // Of forged checks only some are looked at, so that they cost little.
        let sent = pelt(&server, (0..rounds).map(|_| bare_check(&us, &forged, *b"transactions").unwrap())).await;
        eventually("forged checks", LONG, async || {
            let (forged, rate) = (dropped("stun-integrity").await, dropped("stun-rate").await);
            (forged > 0.0 && forged + rate == sent as f64).then_some(())
        })
        .await;

        let delivered = viewer.figures().video.delivered;
        viewer_sees("media goes on", &viewer, LONG, |figures| figures.video.delivered > delivered + 50).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
        assert_eq!((figures.refused, figures.nacked, publisher.stop().await.unwrap().resent), (0, 0, 0));
    }
}

/// True where the machine has no IPv6 at all: nothing can be shown there.
fn without_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err()
}

fn from(ip: impl Into<IpAddr>) -> ClientOptions {
    ClientOptions { bind: Some(ip.into()), ..ClientOptions::default() }
}

// ICE-21, SDP-31
#[tokio::test]
async fn media_flows_over_ipv6() {
    if without_ipv6() {
        return;
    }
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode, "--media-ip", "::1", "--public-ip", "::1"]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 100).await;
        assert!(remote(&server, "viewer").await.starts_with("[::1]:"));
        assert!(viewer.answer().candidates.iter().all(|candidate| candidate.address.is_ipv6()));
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
        publisher.stop().await.unwrap();
    }
}

// ICE-21
#[tokio::test]
async fn one_wildcard_socket_serves_both_families() {
    if without_ipv6() {
        return;
    }
    for mode in ["lite", "full"] {
        let arguments = ["--ice", mode, "--media-ip", "::", "--public-ip", "127.0.0.1,::1"];
        let server = Sluice::start(&arguments).await;
        let families: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for publishes in families {
            let publisher = server.publisher_with("s", PublisherOptions::default(), from(publishes)).await;
            for watches in families {
                let viewer = server.post_viewer("s", from(watches)).await.unwrap();
                viewer.connected().await.unwrap();
                viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 50).await;
                let address: std::net::SocketAddr = remote(&server, "viewer").await.parse().unwrap();
                assert_eq!(address.ip(), watches);
                let figures = viewer.stop().await.unwrap();
                assert!(figures.is_intact(), "{publishes} to {watches}: {figures:?}");
            }
            publisher.stop().await.unwrap();
        }
    }
}
