//! Feedback of RFC 8888 over the same bottleneck (RTCP-15): without marks it is as good as transport-wide feedback, and where the
//! bottleneck marks (L4S), there is hardly any queue.

use super::*;

fn with_ccfb(bits_per_second: f64, media: Media) -> Simulation {
    Simulation { ccfb: true, ..Simulation::new(bits_per_second, media) }
}

/// A bottleneck that marks from a queue of so many µs on, and a sender that asks for it.
fn with_marks_from(longest: u64, bits_per_second: f64, media: Media) -> Simulation {
    let mut simulation = Simulation { ect1: true, ..with_ccfb(bits_per_second, media) };
    simulation.link.marks_from = Some(longest);
    simulation.pacer.make_smooth();
    simulation
}

/// As L4S does: from a millisecond on, but no queue of less than two packets, as Linux's DualPI2 has it (RFC 9332).
fn with_marks(bits_per_second: f64, media: Media) -> Simulation {
    let two_packets = (2.0 * MTU as f64 * 8e6 / bits_per_second) as u64;
    with_marks_from(two_packets.max(1_000), bits_per_second, media)
}

#[test]
fn without_marks_the_estimate_is_that_of_transport_wide_feedback() {
    // RTCP-15, RTCP-16
    for media in [Media::Fixed(2e6), Media::UpTo(50e6), Media::Held(3e6)] {
        for drift_ppm in [0, 200] {
            let [mut wide, mut ccfb] = [Simulation::new(2.5e6, media), with_ccfb(2.5e6, media)];
            let [wide, ccfb] = [&mut wide, &mut ccfb].map(|simulation| {
                simulation.drift_ppm = drift_ppm;
                simulation.run(30.0);
                let (lowest, median, highest) = estimates(simulation.since(5.0));
                [lowest, median, highest, 1e4 * queue(simulation.since(5.0), 95)]
            });
            for (wide, ccfb) in wide.iter().zip(ccfb) {
                // Times in units of a millisecond are a little coarser.
                assert!((wide - ccfb).abs() < 0.15 * wide + 2e5, "{media:?}: {wide} and {ccfb}");
            }
        }
    }
}

#[test]
fn a_link_that_drops_to_a_third_is_seen_as_soon() {
    // RTCP-15, RTCP-16: with marks and without.
    for mut simulation in [with_ccfb(2.5e6, Media::UpTo(2e6)), with_marks(2.5e6, Media::UpTo(2e6))] {
        simulation.run(15.0);
        simulation.link.bits_per_second = 0.83e6;
        simulation.run(15.0);
        assert!(simulation.reaches(15.0, 0.0..0.83e6) < 0.7, "{}", simulation.reaches(15.0, 0.0..0.83e6));
        assert!(queue(simulation.between(17.0, 30.0), 100) < 150.0, "two seconds after the drop");
    }
}

#[test]
fn a_bottleneck_that_marks_is_full_and_has_no_queue() {
    // RTCP-15: RFC 9331 §4.3
    for (capacity, longest) in [(1e6, 30.0), (2.5e6, 15.0), (10e6, 10.0)] {
        let mut simulation = with_marks(capacity, Media::UpTo(50e6));
        simulation.run(60.0);
        let (lowest, median, highest) = estimates(simulation.since(5.0));
        assert!(lowest > 0.7 * capacity && highest < 1.15 * capacity, "{capacity}: {lowest} to {highest}");
        assert!((0.9..1.05).contains(&(median / capacity)), "{capacity}: {median}");
        let p95 = queue(simulation.since(5.0), 95);
        assert!(p95 <= longest, "{capacity}: {p95} ms");
        let mut unmarked = with_ccfb(capacity, Media::UpTo(50e6));
        unmarked.run(60.0);
        let without = queue(unmarked.since(5.0), 95);
        assert!(p95 < 0.6 * without, "{capacity}: {p95} ms, and {without} without marks");
        assert_eq!(simulation.lost, 0);
    }
}

#[test]
fn a_stream_that_the_path_carries_is_carried_in_spite_of_marks() {
    // RTCP-15, RTCP-16: 2 Mbit/s over 2.5. The path is taken to carry it from 1.1 times its rate on; keyframes fill it for a moment.
    let mut simulation = with_marks(2.5e6, Media::Fixed(2e6));
    simulation.keyframes = Some((60, 6.0));
    simulation.run(60.0);
    let (lowest, median, _) = estimates(simulation.since(5.0));
    assert!(lowest > 2e6 && median > 1.1 * 2e6, "{lowest}, {median}");
    assert!(simulation.marked > 0 && simulation.lost == 0);
}

#[test]
fn a_router_that_marks_a_long_queue_only_is_answered_as_one_that_does_not_mark() {
    // RTCP-15: RFC 9331 §4.3 on routers of RFC 3168; 40 ms.
    let mut simulation = with_marks_from(40_000, 2.5e6, Media::UpTo(50e6));
    simulation.run(60.0);
    let (lowest, median, highest) = estimates(simulation.since(5.0));
    assert!(lowest > 0.7 * 2.5e6 && highest < 1.3 * 2.5e6, "{lowest} to {highest}");
    assert!((0.9..1.1).contains(&(median / 2.5e6)), "{median}");
    let (p95, longest) = (queue(simulation.since(5.0), 95), queue(simulation.since(5.0), 100));
    assert!(p95 < 100.0 && longest < 150.0, "{p95}, {longest} ms");
}
