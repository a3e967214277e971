//! Viewers without transport-wide feedback: REMB, and the loss of receiver reports.

use super::*;

/// Sends 1 kB packets at a rate and hears a receiver report every second.
struct Reporter {
    estimator: SendSideEstimator,
    now: Instant,
}

impl Reporter {
    fn new(transport_wide: bool) -> Reporter {
        let now = Instant::now();
        Reporter { estimator: SendSideEstimator::new(now, LIMITS, transport_wide), now }
    }

    fn send(&mut self, seconds: u32, rate: f64) {
        for _ in 0..seconds * 40 {
            for _ in 0..(rate / 8e3 / 40.0) as u32 {
                self.estimator.on_sent(self.now, 1_000);
            }
            self.now += Duration::from_millis(25);
            self.estimator.poll(self.now);
        }
    }

    fn run(&mut self, seconds: u32, rate: f64, fraction_lost: f64, remb: Option<u64>) -> f64 {
        for _ in 0..seconds {
            self.send(1, rate);
            let round_trip = Some(Duration::from_millis(50));
            self.estimator.on_receiver_report(self.now, fraction_lost, round_trip);
            if let Some(remb) = remb {
                self.estimator.on_remb(self.now, remb);
            }
        }
        self.estimator.estimate() as f64
    }
}

#[test]
fn reports_without_loss_let_the_estimate_rise_with_the_media() {
    // RTCP-16
    let mut viewer = Reporter::new(false);
    assert!(viewer.run(2, 2e6, 0.0, None) >= 1.9e6, "what is sent arrives");
    let estimate = viewer.run(60, 2e6, 0.01, None);
    assert!((2.8e6..3.1e6).contains(&estimate), "and not much more is believed: {estimate}");
    assert_eq!(viewer.estimator.round_trip.get(), Duration::from_millis(50));
    assert_eq!(memory(&viewer.estimator), size_of::<SendSideEstimator>(), "no history is kept");
}

#[test]
fn reported_loss_holds_and_lowers() {
    // RTCP-16
    let mut viewer = Reporter::new(false);
    let before = viewer.run(5, 2e6, 0.0, None);
    let held = viewer.run(10, 2e6, 0.05, None);
    assert!((held / before - 1.0).abs() < 0.05, "{held} after {before}");
    let lowered = viewer.run(10, 2e6, 0.4, None);
    assert!((1.1e6..1.35e6).contains(&lowered), "what arrives: {lowered}");
    let risen = viewer.run(5, 1e6, 0.0, None);
    assert!(risen > 1.3 * lowered, "{risen}");
}

#[test]
fn a_remb_caps_for_five_seconds() {
    // RTCP-13
    let mut viewer = Reporter::new(false);
    viewer.run(5, 2e6, 0.0, None);
    let before = viewer.estimator.estimate();
    viewer.estimator.on_remb(viewer.now, 500_000);
    assert_eq!(viewer.estimator.estimate(), 500_000);
    assert_eq!(viewer.estimator.remb.map(|(_, remb)| remb), Some(500e3));
    viewer.send(4, 2e6);
    assert_eq!(viewer.estimator.estimate(), 500_000);
    viewer.send(2, 2e6);
    assert_eq!(viewer.estimator.estimate(), before);
    assert_eq!(viewer.estimator.remb, None);
}

#[test]
fn a_remb_lifts_where_nothing_better_is_known() {
    // RTCP-13
    let mut viewer = Reporter::new(false);
    assert_eq!(viewer.run(1, 0.5e6, 0.0, Some(4_000_000)), 4e6);
    let with_loss = viewer.run(5, 0.5e6, 0.3, Some(8_000_000));
    assert!(with_loss < 4e6, "but not against heavy loss: {with_loss}");
    for remb in [0, 1, u64::MAX] {
        viewer.estimator.on_remb(viewer.now, remb);
        assert!((LIMITS.min..=LIMITS.max).contains(&viewer.estimator.estimate()));
    }
    let mut simulation = Simulation::new(2.5e6, Media::Fixed(2e6));
    simulation.run(10.0);
    let now = simulation.now();
    simulation.estimator.on_remb(now, 10_000_000);
    assert!(simulation.estimator.estimate() < 3_000_000, "transport-wide feedback knows better");
    simulation.estimator.on_remb(now, 1_500_000);
    assert_eq!(simulation.estimator.estimate(), 1_500_000, "yet a REMB caps");
}

#[test]
fn a_viewer_that_negotiated_feedback_but_sends_none_is_believed_its_reports() {
    // RTCP-16
    let mut viewer = Reporter::new(true);
    assert!(viewer.run(10, 2e6, 0.0, None) >= 1.9e6);
}

#[test]
fn silence_decays_only_after_feedback_was_received() {
    // RTCP-16
    let mut viewer = Reporter::new(false);
    viewer.send(60, 2e6);
    assert_eq!(viewer.estimator.estimate(), LIMITS.start, "a viewer may report nothing at all");
    let before = viewer.run(5, 2e6, 0.0, None);
    viewer.send(9, 2e6);
    assert_eq!(viewer.estimator.estimate() as f64, before);
    viewer.send(4, 2e6);
    let after = viewer.estimator.estimate() as f64;
    assert!((0.4..0.7).contains(&(after / before)), "{after} of {before}");
    let kept = viewer.run(1, 2e6, 0.0, None);
    viewer.send(1, 2e6);
    viewer.send(60, 0.0);
    assert_eq!(viewer.estimator.estimate() as f64, kept, "nothing is sent, so no feedback is due");
}

#[test]
fn a_flood_of_reports_proves_nothing() {
    // RTCP-16
    let mut viewer = Reporter::new(false);
    for _ in 0..200 {
        viewer.send(1, 0.4e6);
        for _ in 0..50 {
            viewer.estimator.on_sent(viewer.now, 1_000);
            viewer.now += Duration::from_millis(1);
            viewer.estimator.on_receiver_report(viewer.now, 0.0, None);
        }
    }
    assert!(viewer.estimator.estimate() <= 1_500_000, "{}", viewer.estimator.estimate());
}

#[test]
fn limits_that_contradict_each_other_are_bent() {
    let now = Instant::now();
    for limits in [
        EstimatorLimits { start: 0, min: 0, max: 0 },
        EstimatorLimits { start: 5, min: 10, max: 1 },
        EstimatorLimits { start: u64::MAX, min: 1, max: u64::MAX },
    ] {
        let mut estimator = SendSideEstimator::new(now, limits, true);
        estimator.set_demand(0);
        estimator.on_sent(now, usize::MAX);
        estimator.on_receiver_report(now, f64::NAN, Some(Duration::MAX));
        estimator.poll(now + Duration::from_secs(1));
        assert!(estimator.estimate() >= 1);
    }
}

#[test]
fn nothing_is_probed_beyond_the_demand() {
    // RTCP-16
    let mut simulation = Simulation::new(20e6, Media::Fixed(1e6));
    simulation.estimator.set_demand(3_000_000);
    simulation.run(30.0);
    let (_, median, highest) = estimates(simulation.since(2.0));
    assert!(median > 2.5e6 && highest < 3.3e6, "{median}, {highest}");
}

#[test]
fn a_report_ahead_of_the_first_feedback_proves_nothing() {
    // RTCP-14: 10 Mbit/s leave at once, and the report about the first packets knows of no loss. A viewer that sends no
    // feedback after all is taken at its reports' word two seconds later.
    let start = Instant::now();
    let mut estimator = SendSideEstimator::new(start, LIMITS, true);
    for ms in 0..3_000 {
        let now = start + Duration::from_millis(ms);
        estimator.on_sent(now, 1_250);
        if ms % 300 == 299 {
            estimator.on_receiver_report(now, 0.0, None);
        }
        assert!(ms >= 2_000 || estimator.estimate() == LIMITS.start, "{ms}: {}", estimator.estimate());
    }
    assert!(estimator.estimate() > 9_000_000, "{}", estimator.estimate());
}
