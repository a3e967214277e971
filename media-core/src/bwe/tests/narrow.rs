//! Viewers that join over a path that does not carry the stream, with a short queue that drops its tail: it is full
//! before the first feedback is there, so that the delay has grown already and grows no more.

use super::*;

const START: f64 = 3e6;

/// A path and a stream that is too much for it.
#[derive(Clone, Copy, Debug)]
struct Case {
    media: f64,
    capacity: f64,
    /// µs.
    max_queue: u64,
    loss: f64,
    /// µs.
    one_way: u64,
    /// The stream begins with so many bytes at once: what is kept since the last keyframe.
    replay: usize,
    seed: u64,
}

/// What became of it.
#[derive(Debug)]
struct Outcome {
    /// Seconds from the first feedback until the estimate was 1.1 times the path at most.
    found: f64,
    /// Seconds until the queue was below 100 ms for the first time thereafter.
    drained: f64,
    /// Parts of what was sent that were lost, in the first five seconds and later.
    lost: [f64; 2],
    /// From ten seconds on, estimates as parts of the path: the 5th percentile, the median, the 95th percentile.
    steady: [f64; 3],
    /// 95th percentile of the queue from ten seconds on, in ms.
    queue: f64,
}

fn join(case: &Case) -> Outcome {
    let mut simulation = Simulation::new(case.capacity, Media::Held(case.media));
    let limits = EstimatorLimits { start: START as u64, min: 50_000, max: 100_000_000 };
    simulation.estimator = SendSideEstimator::new(simulation.start, limits, true);
    simulation.estimator.set_demand((3.0 * case.media) as u64);
    simulation.pacer = Pacer::new(simulation.start, (PACING_FACTOR * START) as u64);
    simulation.link.max_queue = case.max_queue;
    simulation.link.loss = case.loss;
    simulation.link.one_way = case.one_way;
    simulation.link.random = Random(case.seed * 7_919);
    simulation.paced.extend((0..case.replay / MTU).map(|_| (0, MTU)));
    simulation.run(5.0);
    let beginning = (simulation.lost, simulation.sent);
    simulation.run(35.0);
    let later = (simulation.lost - beginning.0, simulation.sent - beginning.1);
    let lost = [beginning, later].map(|(lost, sent)| lost as f64 / sent as f64);
    // The first packet is there after it has been served; the feedback about it after the next multiple of 50 ms.
    let first = (2 * case.one_way + 50_000) as f64 / 1e6;
    let found = simulation.reaches(first, 0.0..1.1 * case.capacity);
    let drained = simulation.since(first + found).find(|sample| sample.queue < 100);
    let drained = drained.map_or(f64::INFINITY, |sample| sample.time as f64 / 1e3);
    let steady = [5, 50, 95].map(|n| percentile(simulation.since(10.0), n, |sample| sample.estimate) / case.capacity);
    Outcome { found, drained, lost, steady, queue: queue(simulation.since(10.0), 95) }
}

fn cases() -> Vec<Case> {
    let paths = [(1e6, 0.5e6), (2.5e6, 0.5e6), (2.5e6, 1e6)];
    let queues = [100_000, 300_000, 1_000_000];
    let others = [(0.0, 20_000, 0), (0.02, 20_000, 0), (0.02, 20_000, 60_000), (0.0, 100_000, 60_000)];
    let mut cases = vec![];
    for (media, capacity) in paths {
        for max_queue in queues {
            for (loss, one_way, replay) in others {
                let seeds = if loss > 0.0 { 1..=4 } else { 1..=1 };
                cases.extend(seeds.map(|seed| Case { media, capacity, max_queue, loss, one_way, replay, seed }));
            }
        }
    }
    cases
}

#[test]
fn a_viewer_that_joins_over_a_narrow_path_is_found_out_within_a_second() {
    // RTCP-16: half a second more where the queue takes a second to fill, as nothing is lost until then. The queue of the
    // beginning is gone two seconds later, and afterwards next to nothing is lost but by chance.
    for case in cases() {
        let outcome = join(&case);
        let slow = case.max_queue == 1_000_000;
        let (found, drained) = if slow { (1.5, 3.5) } else { (1.0, 2.0) };
        let Outcome { steady: [low, median, high], lost: [_, lost], queue, .. } = outcome;
        let stated = format!("{case:?}: {outcome:.2?}");
        assert!(outcome.found <= found && outcome.drained <= drained, "{stated}");
        assert!(low > 0.7 && median > 0.85 && high < 1.1, "{stated}");
        assert!(lost < case.loss + 0.015 && queue < 60.0, "{stated}");
    }
}
