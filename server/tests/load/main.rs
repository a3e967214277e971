//! The server under the load that the first release promises. A binary of its own, so that no other test runs beside it.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use loadtest::client::PublisherOptions;
use loadtest::run::Plan;
use support::Sluice;

const VIEWERS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_viewers_lose_nothing_on_one_shard_and_on_two() {
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
