//! Publishers whose RTP clock is wrong, and uplinks that stall: RTP time towards viewers keeps to the wall clock.

use std::time::Duration;

use loadtest::client::{ClientOptions, ClockFaults, PublisherOptions};

use crate::support::{LONG, Sluice, viewer_sees};

/// Packets of audio of about twelve seconds.
const AUDIO: u64 = 600;
/// Seconds, with all that a busy machine adds.
const OFF: f64 = 0.5;

// F-04, F-05, F-06
#[tokio::test]
async fn rtp_time_keeps_to_the_wall_clock_whatever_the_publisher_s_clock_says() {
    let server = Sluice::start(&[]).await;
    let every = Duration::from_secs(4);
    let step = |step| ClockFaults { step, every, ..ClockFaults::default() };
    let drift = |drift| ClockFaults { drift, ..ClockFaults::default() };
    let stall = |ms| ClockFaults { stall: Duration::from_millis(ms), every, ..ClockFaults::default() };
    // With how far RTP time may be off: packets that waited in a stall are late, of course.
    let all = [
        (step(-5.0), OFF),
        (step(30.0), OFF),
        (drift(0.2), OFF),
        (drift(-0.1), OFF),
        (stall(500), 0.5 + OFF),
        (ClockFaults { step: -20.0, ..stall(200) }, 0.2 + OFF),
    ];
    let mut running = Vec::new();
    for (index, (faults, limit)) in all.into_iter().enumerate() {
        let stream = format!("s{index}");
        let media = PublisherOptions { bitrate: 300, faults, ..PublisherOptions::default() };
        let publisher = server.publisher_with(&stream, media, ClientOptions::default()).await;
        let viewer = server.viewer(&stream).await;
        running.push((faults, limit, publisher, viewer));
    }
    for (faults, limit, publisher, viewer) in running {
        viewer_sees("twelve seconds", &viewer, LONG, |figures| figures.audio.delivered > AUDIO).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{faults}: {figures:?}");
        assert_eq!(figures.time_steps_back, 0, "{faults}: {figures:?}");
        assert!(figures.longest_time_error < limit, "{faults}: {figures:?}");
        // A sender report names the time of its moment, the last packet that of its frame.
        assert!(figures.longest_report_step < limit, "{faults}: {figures:?}");
        publisher.stop().await.unwrap();
    }
}
