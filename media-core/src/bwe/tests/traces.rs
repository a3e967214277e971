//! Traces over the bottleneck, with 50 ms of round trip and feedback every 50 ms where nothing else is said. What is
//! stated of each is what is held: rates in bit/s, times in s, queues in ms.

use super::*;

#[test]
fn a_steady_link_that_is_not_full() {
    // RTCP-16: 2 Mbit/s of media over 2.5 Mbit/s. The probes find the path at once; from then on the estimate covers the
    // media and does not run away from the link.
    let mut simulation = Simulation::new(2.5e6, Media::Fixed(2e6));
    simulation.run(60.0);
    assert!(simulation.reaches(0.0, 2e6..3e6) < 0.5);
    let (lowest, median, highest) = estimates(simulation.since(0.5));
    assert!(lowest >= 2e6 && highest < 2.75e6, "{lowest} to {highest}");
    assert!((2.2e6..2.6e6).contains(&median), "{median}");
    assert!(queue(simulation.since(0.5), 95) < 40.0 && queue(simulation.since(0.5), 100) < 80.0);
    assert_eq!(simulation.lost, 0);
    assert!(simulation.pacer_wait < 150, "{}", simulation.pacer_wait);
}

#[test]
fn without_probes_the_estimate_follows_the_media_and_half_of_it_more() {
    // RTCP-16
    let mut simulation = Simulation::new(20e6, Media::Fixed(2e6));
    simulation.probes = false;
    simulation.run(3.0);
    assert!(simulation.reaches(0.0, 1.9e6..3.1e6) < 2.0);
    simulation.run(60.0);
    let (_, _, highest) = estimates(simulation.since(0.0));
    assert!(highest < 1.6 * 2e6, "{highest}");
}

#[test]
fn a_link_that_is_always_full() {
    // RTCP-16: media as the estimate allows. It swings around the link, and the queue stays short.
    for capacity in [0.3e6, 1e6, 2.5e6, 10e6] {
        let mut simulation = Simulation::new(capacity, Media::UpTo(50e6));
        simulation.run(60.0);
        let (lowest, median, highest) = estimates(simulation.since(5.0));
        assert!(lowest > 0.75 * capacity && highest < 1.3 * capacity, "{capacity}: {lowest} to {highest}");
        assert!((0.9..1.1).contains(&(median / capacity)), "{capacity}: {median}");
        let (p95, longest) = (queue(simulation.since(5.0), 95), queue(simulation.since(5.0), 100));
        assert!(p95 < 100.0 && longest < 150.0, "{capacity}: {p95}, {longest} ms");
    }
}

#[test]
fn a_link_that_drops_to_a_third() {
    // RTCP-16
    let mut simulation = Simulation::new(2.5e6, Media::UpTo(2e6));
    simulation.run(15.0);
    simulation.link.bits_per_second = 0.83e6;
    simulation.run(15.0);
    // Down within 0.7 s, and no further than to a third of the new rate while the queue drains.
    assert!(simulation.reaches(15.0, 0.0..0.83e6) < 0.7);
    let (lowest, ..) = estimates(simulation.between(15.0, 30.0));
    assert!(lowest > 0.83e6 / 3.0, "{lowest}");
    assert!(queue(simulation.between(15.0, 17.0), 100) < 800.0);
    assert!(queue(simulation.between(17.0, 30.0), 100) < 150.0, "two seconds after the drop");
    assert!(queue(simulation.between(18.0, 30.0), 95) < 80.0);
    let (lowest, median, highest) = estimates(simulation.between(18.0, 30.0));
    assert!(lowest > 0.6e6 && highest < 1.1e6 && (0.7e6..0.95e6).contains(&median), "{lowest} {median} {highest}");
    // Back when the link is back: by the next probe.
    simulation.link.bits_per_second = 2.5e6;
    simulation.run(20.0);
    assert!(simulation.reaches(30.0, 2e6..3e6) < 6.0);
    let (lowest, _, highest) = estimates(simulation.since(36.0));
    assert!(lowest > 2e6 && highest < 2.8e6, "{lowest} to {highest}");
}

#[test]
fn a_drop_that_is_soon_over_is_probed_for() {
    // RTCP-16
    let mut simulation = Simulation::new(5e6, Media::UpTo(4e6));
    simulation.run(12.0);
    simulation.link.bits_per_second = 1.5e6;
    simulation.run(1.5);
    simulation.link.bits_per_second = 5e6;
    simulation.run(10.0);
    assert!(simulation.reaches(13.5, 3e6..6e6) < 4.0, "{}", simulation.reaches(13.5, 3e6..6e6));
}

#[test]
fn a_sawtooth() {
    // RTCP-16: from 3 down to 1 Mbit/s in 10 s, and up again at once.
    let mut simulation = Simulation::new(3e6, Media::UpTo(4e6));
    let (mut used, mut over) = (0.0, 0);
    for step in 0..600 {
        simulation.link.bits_per_second = 3e6 - 2e6 * f64::from(step % 100) / 100.0;
        simulation.run(0.1);
        let share = simulation.samples.last().unwrap().estimate / simulation.link.bits_per_second;
        used += share / 600.0;
        over += u32::from(share > 1.4);
    }
    assert!((0.75..1.1).contains(&used), "{used}");
    assert!(over < 30, "{over} of 600 moments");
    assert!(queue(simulation.since(1.0), 95) < 120.0 && queue(simulation.since(1.0), 100) < 200.0);
}

/// Lowest, median and highest estimate over 2 minutes of random loss on 2.5 Mbit/s, and the 95th percentile of the queue.
fn with_random_loss(media: Media, percent: u32, seed: u64) -> (f64, f64, f64, f64) {
    let mut simulation = Simulation::new(2.5e6, media);
    simulation.link.random = Random(seed * 7_919);
    simulation.link.loss = f64::from(percent) / 100.0;
    simulation.run(120.0);
    let (lowest, median, highest) = estimates(simulation.since(6.0));
    (lowest, median, highest, queue(simulation.since(6.0), 95))
}

#[test]
fn random_loss_is_no_congestion() {
    // RTCP-16: up to 20 % of random loss leave three quarters of the link, and never less than half of it.
    for percent in [2, 5, 10, 15, 20] {
        for seed in 1..=4 {
            let (lowest, median, highest, p95) = with_random_loss(Media::UpTo(4e6), percent, seed);
            assert!(lowest > 1.25e6 && highest < 3.2e6, "{percent} %, {seed}: {lowest} to {highest}");
            assert!(median > 1.9e6 && p95 < 60.0, "{percent} %, {seed}: {median}, {p95} ms");
        }
    }
}

#[test]
fn random_loss_of_media_that_cannot_follow_costs_no_more_than_what_is_lost() {
    // RTCP-16: it cannot be told from a policer; what arrives is always believed.
    for percent in [2, 5, 10, 15, 20] {
        for seed in 1..=4 {
            let (lowest, median, highest, _) = with_random_loss(Media::Fixed(1.8e6), percent, seed);
            let arrives = 1.8e6 * (1.0 - f64::from(percent) / 100.0);
            assert!(lowest > 0.8 * arrives && highest < 2.8e6, "{percent} %, {seed}: {lowest} to {highest}");
            assert!(median > 0.95 * arrives, "{percent} %, {seed}: {median}");
        }
    }
}

#[test]
fn bursts_of_loss_cost_a_moment() {
    // RTCP-16: everything is lost for 100 ms every 3 s, and for 500 ms every 5 s.
    for (burst, period) in [(100_000, 3_000_000), (500_000, 5_000_000)] {
        let mut simulation = Simulation::new(2.5e6, Media::Fixed(1.8e6));
        simulation.link.loss_bursts = Some((0, burst, period));
        simulation.run(60.0);
        let (lowest, median, _) = estimates(simulation.since(6.0));
        assert!(lowest > 1.4e6 && median > 1.8e6, "{burst}: {lowest}, {median}");
    }
}

#[test]
fn long_round_trips_and_rare_feedback() {
    // RTCP-16
    for round_trip in [200_000, 400_000] {
        for feedback_interval in [50_000, 100_000, 250_000] {
            let mut simulation = Simulation::new(2.5e6, Media::UpTo(2.4e6));
            simulation.link.one_way = round_trip / 2;
            simulation.feedback_interval = feedback_interval;
            simulation.run(30.0);
            let (lowest, median, highest) = estimates(simulation.since(5.0));
            assert!(lowest > 1.9e6 && highest < 2.9e6, "{round_trip}: {lowest} to {highest}");
            assert!((2.2e6..2.7e6).contains(&median));
            simulation.link.bits_per_second = 0.83e6;
            simulation.run(20.0);
            assert!(queue(simulation.between(32.5, 50.0), 95) < 150.0, "{round_trip}, {feedback_interval}");
            let (lowest, median, _) = estimates(simulation.between(34.0, 50.0));
            assert!(lowest > 0.5e6 && (0.65e6..1e6).contains(&median), "{lowest}, {median}");
        }
    }
}

#[test]
fn a_viewers_clock_may_drift() {
    // RTCP-14
    let run = |drift_ppm| {
        let mut simulation = Simulation::new(2.5e6, Media::UpTo(4e6));
        simulation.drift_ppm = drift_ppm;
        simulation.run(60.0);
        (estimates(simulation.since(5.0)).1, queue(simulation.since(5.0), 95))
    };
    let (exact, _) = run(0);
    for drift_ppm in [-1_000, -100, 100, 1_000] {
        let (median, p95) = run(drift_ppm);
        assert!((median / exact - 1.0).abs() < 0.05 && p95 < 60.0, "{drift_ppm} ppm: {median}, {p95} ms");
    }
    for drift_ppm in [-10_000, 10_000] {
        let (median, p95) = run(drift_ppm);
        assert!(median > 1.9e6 && p95 < 60.0, "{drift_ppm} ppm: {median}, {p95} ms");
    }
}

#[test]
fn jitter_is_no_queue() {
    // RTCP-16
    for jitter in [5_000, 20_000, 50_000] {
        for media in [Media::UpTo(4e6), Media::Fixed(1.8e6)] {
            let mut simulation = Simulation::new(2.5e6, media);
            simulation.link.jitter = jitter;
            simulation.run(60.0);
            let (lowest, median, _) = estimates(simulation.since(5.0));
            assert!(lowest > 1.8e6 && (2.1e6..2.7e6).contains(&median), "{jitter}: {lowest}, {median}");
            assert!(queue(simulation.since(5.0), 95) < 70.0);
        }
    }
}

#[test]
fn keyframes_leave_in_small_bursts_and_cost_no_rate() {
    // RTCP-17: 75 kB every 2 s among 1.5 Mbit/s, over 2.5 Mbit/s.
    let mut simulation = Simulation::new(2.5e6, Media::Fixed(1.5e6));
    simulation.keyframes = Some((60, 12.0));
    simulation.run(60.0);
    let (lowest, _, highest) = estimates(simulation.since(1.0));
    assert!(lowest > 1.5e6 && highest < 3e6, "{lowest} to {highest}");
    assert!(queue(simulation.since(1.0), 100) < 200.0);
    assert!(simulation.pacer_wait < 300, "{} ms", simulation.pacer_wait);
    // 10 ms of the rate, another 10 ms of what has run off meanwhile, a packet, and audio.
    let ten_ms = 2.5 * highest / 800.0;
    for window in simulation.departures[1_000..].windows(10) {
        let bytes: usize = window.iter().sum();
        assert!((bytes as f64) < 2.0 * ten_ms + (MTU + AUDIO_BYTES) as f64, "{bytes}");
    }
}

#[test]
fn a_stream_that_cannot_follow() {
    // RTCP-16: 2.5 Mbit/s of media over half of that. The estimate is the link's rate, and says that the queue stands.
    for max_queue in [100_000, 300_000, 1_000_000] {
        let mut simulation = Simulation::new(5e6, Media::Fixed(2.5e6));
        simulation.link.max_queue = max_queue;
        simulation.run(5.0);
        simulation.link.bits_per_second = 1.25e6;
        simulation.run(5.0);
        let queueing = simulation.estimator.snapshot().queueing_delay.as_millis() as u64;
        assert!((max_queue * 8 / 10_000..=max_queue * 12 / 10_000).contains(&queueing), "{queueing} ms");
        simulation.run(50.0);
        let (lowest, median, highest) = estimates(simulation.since(10.0));
        assert!(lowest > 0.5e6 && highest < 1.4e6 && median > 1e6, "{max_queue}: {lowest} {median} {highest}");
    }
}

#[test]
fn silence_lowers_the_estimate_with_care() {
    // RTCP-16: no feedback comes through for 5 s.
    let mut simulation = Simulation::new(5e6, Media::UpTo(4e6));
    simulation.silence = 10_000_000..15_000_000;
    simulation.run(30.0);
    let (before, ..) = estimates(simulation.between(9.0, 10.0));
    let (kept, ..) = estimates(simulation.between(10.0, 12.0));
    assert!(kept > 0.95 * before, "{kept} of {before}");
    let (lowest, ..) = estimates(simulation.between(12.0, 15.0));
    assert!((0.4..0.7).contains(&(lowest / before)), "{lowest} of {before}");
    assert!(simulation.reaches(15.2, 4e6..6e6) < 6.0);
}

#[test]
fn an_ordinary_viewer_costs_little_memory() {
    let mut simulation = Simulation::new(5e6, Media::Fixed(2.5e6));
    simulation.link.one_way = 50_000;
    simulation.run(30.0);
    assert!(memory(&simulation.estimator) <= 4 << 10, "{} bytes", memory(&simulation.estimator));
    let mut simulation = Simulation::new(20e6, Media::Fixed(10e6));
    simulation.link.one_way = 50_000;
    simulation.run(30.0);
    assert!(memory(&simulation.estimator) <= 8 << 10, "{} bytes", memory(&simulation.estimator));
}
