//! More than one sender on a bottleneck. Shares are of its rate, queues in ms.

use super::*;

/// Two senders send into the link of the first one for so many seconds.
fn share(first: &mut Simulation, second: &mut Simulation, seconds: f64) {
    for _ in 0..(seconds * 1e3) as u64 {
        first.run(0.001);
        std::mem::swap(&mut first.link, &mut second.link);
        second.run(0.001);
        std::mem::swap(&mut first.link, &mut second.link);
    }
}

/// The part of the link's rate at which a sender has sent from so many seconds on.
fn used(simulation: &Simulation, from: f64) -> f64 {
    let departures = &simulation.departures[(from * 1e3) as usize..];
    let bits = departures.iter().sum::<usize>() as f64 * 8.0;
    bits / (departures.len() as f64 / 1e3) / simulation.link.bits_per_second
}

fn mean_queue(simulation: &Simulation, from: f64) -> f64 {
    let queues = simulation.since(from).map(|sample| sample.queue as f64);
    queues.sum::<f64>() / simulation.since(from).count() as f64
}

#[test]
fn two_senders_on_one_bottleneck_each_have_a_usable_share() {
    // RTCP-16: from 30 s on each has a quarter at least, whether both start together or one joins ten seconds later.
    for capacity in [1e6, 2.5e6, 6e6] {
        for media in [Media::UpTo(50e6), Media::Held(1.2 * capacity), Media::Held(0.6 * capacity)] {
            for head_start in [0.0, 10.0] {
                let mut first = Simulation::new(capacity, media);
                let mut second = Simulation::new(capacity, media);
                first.run(head_start);
                (second.start, second.time) = (first.start, first.time);
                share(&mut first, &mut second, 90.0);
                let from = head_start + 30.0;
                let shares = [used(&first, from), used(&second, from)];
                let case = format!("{capacity}, {media:?}, {head_start}: {shares:.2?}");
                let (mean, p95) = (mean_queue(&first, from), queue(first.since(from), 95));
                assert!(shares.iter().all(|&share| share > 0.25), "{case}");
                assert!((0.75..=1.0).contains(&shares.iter().sum()), "{case}");
                assert!(mean < 60.0 && p95 < 200.0, "{case}, {mean} and {p95} ms");
            }
        }
    }
}

#[test]
fn beside_a_stream_of_constant_rate_the_rest_is_used() {
    // RTCP-16: 1 kB packets of 40 % of 2.5 Mbit/s, from the beginning or 20 s later. None of them is lost.
    for media in [Media::UpTo(50e6), Media::Held(2e6), Media::Fixed(1.2e6)] {
        for present in [0..90, 20..90] {
            let mut simulation = Simulation::new(2.5e6, media);
            let mut dropped = 0;
            for ms in 0..90_000 {
                if present.contains(&(ms / 1_000)) && ms % 8 == 0 {
                    dropped += u32::from(simulation.link.send(simulation.time, 1_000).is_none());
                }
                simulation.run(0.001);
            }
            let rest = used(&simulation, 30.0);
            let (mean, p95) = (mean_queue(&simulation, 30.0), queue(simulation.since(30.0), 95));
            let case = format!("{media:?}, {present:?}: {rest:.2}, {mean:.0} and {p95} ms, {dropped} dropped");
            assert!(rest > 0.45 && mean < 40.0 && p95 < 100.0 && dropped == 0, "{case}");
        }
    }
}
