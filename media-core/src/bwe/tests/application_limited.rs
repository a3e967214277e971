//! Viewers that are sent much less than their path carries, as on a lower layer: only probes tell whether there is more.

use super::*;

/// A viewer that is sent so much, where a better layer would be of use.
fn on_a_lower_layer(capacity: f64, media: f64) -> Simulation {
    let mut simulation = Simulation::new(capacity, Media::Fixed(media));
    simulation.estimator.set_eager(true);
    simulation.estimator.set_demand(4_000_000);
    simulation
}

#[test]
fn keyframes_and_probes_at_one_time_lower_no_estimate() {
    // RTCP-16: a keyframe every two seconds, as from OBS, leaves together with a probe now and then, or always. The path, of which
    // a quarter is used, is over-used for a moment; what probes found is true all the same.
    for capacity in [0.45e6, 1e6, 2.5e6] {
        for keyframes in [None, Some((60, 6.0)), Some((60, 10.0))] {
            for feedback_interval in [50_000, 100_000] {
                let mut simulation = on_a_lower_layer(capacity, 0.25 * capacity);
                (simulation.keyframes, simulation.feedback_interval) = (keyframes, feedback_interval);
                simulation.run(60.0);
                let (lowest, _, highest) = estimates(simulation.since(5.0));
                let longest = queue(simulation.since(5.0), 100);
                let case = format!("{capacity}, {keyframes:?}, {feedback_interval}");
                assert!(lowest > 0.9 * capacity && highest < 1.1 * capacity, "{case}: {lowest} to {highest}");
                assert!(longest < 80.0, "{case}: {longest} ms");
            }
        }
    }
}

#[test]
fn a_path_that_has_become_wider_is_known_within_two_seconds() {
    // RTCP-16: a probe a second, and from the first that succeeds on one after the other, each twice as fast.
    for narrow in [0.15e6, 0.6e6] {
        for tenths in 0..20 {
            let mut simulation = on_a_lower_layer(narrow, 0.8 * narrow);
            let widened = 10.0 + 0.1 * f64::from(tenths);
            simulation.run(widened);
            simulation.link.bits_per_second = 3e6;
            simulation.run(5.0);
            let known = simulation.reaches(widened, 2.4e6..4e6);
            assert!(known < 1.8, "{narrow}, {widened}: {known} s");
        }
    }
}

#[test]
fn nothing_is_probed_while_a_queue_stands() {
    // RTCP-16: a viewer that joins over a path that carries a third of the stream. Nobody is probed before its first feedback.
    let mut simulation = Simulation::new(0.4e6, Media::Held(1.2e6));
    let limits = EstimatorLimits { start: 3_000_000, ..LIMITS };
    simulation.estimator = SendSideEstimator::new(simulation.start, limits, true);
    let (mut was_probing, mut queued) = (false, 0);
    for _ in 0..10_000 {
        simulation.probes = simulation.estimator.silence.feedback.is_some();
        let is_queued = simulation.estimator.snapshot().queueing_delay > Duration::from_millis(100);
        simulation.run(0.001);
        let is_probing = simulation.estimator.is_probing();
        assert!(!is_queued || was_probing || !is_probing, "at {} ms", simulation.time / 1_000);
        (was_probing, queued) = (is_probing, queued + u32::from(is_queued));
    }
    assert!(queued > 500, "{queued} ms");
}
