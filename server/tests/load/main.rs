//! The server under the load that the first release promises. A binary of its own, so that no other test runs beside it.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use loadtest::LinkClass;
use loadtest::client::PublisherOptions;
use loadtest::report::{Outcome, Report};
use loadtest::run::{Campaign, LayersOptions, Plan, Scenario};
use media_core::media::Codec;
use support::Sluice;
use tokio::sync::Mutex;

const VIEWERS: usize = 100;

/// One run at a time: each is timed.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_viewers_lose_nothing_on_one_shard_and_on_two() {
    let _alone = ALONE.lock().await;
    for shards in [1, 2] {
        let server = Sluice::start(&["--shards", &shards.to_string()]).await;
        let plan = Plan {
            viewers: VIEWERS,
            duration: Duration::from_secs(10),
            media: PublisherOptions { bitrate: 1000, ..PublisherOptions::default() },
            server_pid: Some(server.pid()),
            ..server.plan()
        };
        let report = loadtest::run::run(&plan, |_| {}, std::future::pending()).await.unwrap();
        println!("{shards} shards\n{}", report.to_table());
        assert!(report.integrity, "{}", report.to_table());
        assert_eq!(report.viewers_intact, VIEWERS);
        let mut all = report.audio;
        all.add(&report.video);
        assert_eq!((all.lost, all.missing, all.duplicated, all.corrupt), (0, 0, 0, 0));
        assert!(report.video.bytes * 8 / 10 >= 900_000 * VIEWERS as u64, "a Mbit/s each: {}", report.video.bytes);

        let metrics = server.metrics().await;
        let of = |name: &str, shard: &str| metrics.sum(&format!("sluice_shard_{name}"), &[("shard", shard)]);
        assert_eq!(metrics.sum("sluice_shard_send_dropped_datagrams_total", &[]), 0.0);
        assert_eq!(metrics.sum("sluice_shard_batches_refused_total", &[]), 0.0);
        // Publishers live on the home shard of their stream, whichever that is.
        let received = ["0", "1"].map(|shard| of("rtp_received_packets_total", shard));
        let (home, other) = if received[0] > 0.0 { ("0", "1") } else { ("1", "0") };
        let handed_over = of("batches_handed_over_total", home);
        if shards == 1 {
            assert_eq!(handed_over, 0.0);
            continue;
        }
        assert_eq!(of("rtp_received_packets_total", other), 0.0);
        let forwarded = [home, other].map(|shard| of("rtp_forwarded_packets_total", shard));
        assert!(forwarded.iter().all(|&packets| packets > 0.2 * (forwarded[0] + forwarded[1])), "{forwarded:?}");
        // The other shard has dozens of viewers, and gets each batch of the socket at most once.
        assert!(handed_over > 100.0 && handed_over <= of("receive_calls_total", home), "{handed_over}");
        assert!(forwarded[1] > 10.0 * handed_over, "{forwarded:?} {handed_over}");
        assert_eq!(of("batches_handed_over_total", other), 0.0);
    }
}

// SDP-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_on_mixed_links_see_the_layer_that_their_link_carries() {
    let _alone = ALONE.lock().await;
    let mode = "L3T1_KEY".parse().unwrap();
    for (video, simulcast, svc) in [(Codec::Vp8, 3, None), (Codec::Vp9, 0, Some(mode))] {
        let server = Sluice::start(&["--shards", "1"]).await;
        // 60, 200 and 1,000 kbit/s, each with half the width of the next.
        let media = PublisherOptions { video: Some(video), simulcast, svc, ..PublisherOptions::default() };
        let links = [2000.0, 450.0, 220.0].map(|kbit_per_second| LinkClass { kbit_per_second, viewers: 2 }).to_vec();
        let settle = Duration::from_secs(8);
        let options = LayersOptions { links, loss: 0.0, settle, least_share: 0.8, compare: false };
        let plan = Plan { viewers: 6, duration: Duration::from_secs(6), media, ..server.plan() };
        let campaign = Campaign { plan, mix: Vec::new(), scenario: Scenario::Layers(options) };
        // A pause of the machine looks like a narrow link, and a layer that was left is not tried again for as long as this lasts:
        // one of three has to pass, and a fault of the server spoils all.
        let mut runs = Vec::new();
        while runs.len() < 3 && !runs.last().is_some_and(|report: &Report| report.passed) {
            let report = campaign.clone().run(|_| {}, std::future::pending()).await.unwrap();
            println!("{}", report.to_table());
            runs.push(report);
        }
        let report = runs.pop().unwrap();
        let Outcome::Layers(layers) = &report.outcome else { panic!("{:?}", report.outcome) };
        assert!(report.passed, "{}", report.to_table());
        let heights: Vec<u16> = layers.classes.iter().map(|class| layers.ladder[class.right.unwrap()].height).collect();
        assert_eq!(heights, [720, 360, 180], "what fits is another layer on each link");
        assert!(report.to_html().contains("Layers on 450 kbit/s"));
    }
}
