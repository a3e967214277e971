//! A path of 1.1 Mbit/s with a stall of something on the way, at moments in and between probes.

use super::*;

const CAPACITY: f64 = 1.1e6;

/// The effect of a stall.
#[derive(Debug)]
struct Aftermath {
    /// Seconds with an estimate below 80 % of the path, of 20 s after the stall.
    below: f64,
    /// Lowest part of the path from 5 s after it on.
    lowest: f64,
    /// Until the queue was below 300 ms, in s, …
    drained: f64,
    /// … and the longest time that it was above that again.
    again: f64,
}

fn aftermath(media: Media, stall: Stall, seconds: f64, moment: u32) -> Aftermath {
    let mut simulation = Simulation::new(CAPACITY, media);
    simulation.run(15.0 + 0.47 * f64::from(moment));
    if moment.is_multiple_of(3) {
        while !simulation.estimator.is_probing() {
            simulation.run(0.001);
        }
        simulation.run(0.002 * f64::from(moment));
    }
    simulation.stall(stall, seconds);
    simulation.run(seconds);
    let from = simulation.time as f64 / 1e6;
    simulation.run(20.0);
    let time = |samples: usize| samples as f64 / 100.0;
    let below = simulation.since(from).filter(|sample| sample.estimate < 0.8 * CAPACITY).count();
    let (lowest, ..) = estimates(simulation.since(from + 5.0));
    let long: Vec<bool> = simulation.since(from).map(|sample| sample.queue > 300).collect();
    let drained = long.iter().take_while(|&&long| long).count();
    let again = long[drained..].split(|&long| !long).map(<[bool]>::len).max().unwrap_or(0);
    Aftermath { below: time(below), lowest: lowest / CAPACITY, drained: time(drained), again: time(again) }
}

#[test]
fn a_stall_is_over_after_seconds() {
    // RTCP-16: after a stall the estimate is below 80 % of the path for five seconds at most, in sum, and from the fifth
    // second on where it is without one. The queue that the stall has left is below 300 ms within two seconds, and is
    // above that for no more than a second again (the burst when a sender goes on).
    for media in [Media::Held(2e6), Media::Held(0.8e6), Media::UpTo(2e6)] {
        for stall in [Stall::Link, Stall::Viewer, Stall::Loss, Stall::Feedback, Stall::Sender, Stall::Everything] {
            for seconds in [0.1, 0.3, 1.0, 3.0] {
                for moment in 0..12 {
                    let after = aftermath(media, stall, seconds, moment);
                    let case = format!("{media:?}, {stall:?}, {seconds} s, {moment}: {after:?}");
                    assert!(after.below < 5.0 && after.lowest > 0.75, "{case}");
                    assert!(after.drained < 2.0 && after.again < 1.1, "{case}");
                }
            }
        }
    }
}
