//! Clients that open TCP connections and say nothing.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{LONG, Sluice, viewer_sees};

/// The time for a request's head, and some for a busy machine.
const HEAD_TIME: Duration = Duration::from_secs(15);

// F-09
#[tokio::test]
async fn silent_connections_neither_shut_others_out_nor_stay_open_when_files_run_out() {
    let server = Sluice::start_with_files(64, &[]).await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let silent: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let begun = Instant::now();
    // Behind all of them in the system's queue: the server has no file left when its turn comes.
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 20).await;
    let metrics = server.metrics().await;
    assert!(metrics.sum("sluice_http_accept_failures_total", &[]) > 0.0);
    assert!(metrics.sum("sluice_http_connections_closed_total", &[("reason", "evicted")]) > 0.0);
    assert!(begun.elapsed() < HEAD_TIME, "{:?}", begun.elapsed());
    let lines = server.log().into_iter().filter(|entry| entry["message"].as_str().unwrap_or("").contains("accept"));
    assert!(lines.count() <= 2, "one a listener and minute: {:?}", server.log());

    for mut stream in silent {
        let left = HEAD_TIME.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).unwrap();
        // A reset is an end as well.
        let end = stream.read(&mut [0; 1]).or_else(|error| match error.kind() {
            std::io::ErrorKind::ConnectionReset => Ok(0),
            _ => Err(error),
        });
        assert_eq!(end.unwrap(), 0);
    }
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}
