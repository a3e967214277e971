//! The fuzz corpus, the golden offers, and deterministic mutations of both, through every fuzz target.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use media_core::fuzzing::Corpus;
use rand::SeedableRng;
use rand::rngs::StdRng;
use signaling::fuzzing::TARGETS;
use support::{PUBLISH_OFFERS, WATCH_OFFERS, golden, mutate};

/// Mutations of each target's samples.
const MUTATIONS: usize = 3_000;

fn corpus() -> Corpus {
    Corpus::of(env!("CARGO_MANIFEST_DIR"))
}

// SDP-06, TRK-01, TRK-06
#[test]
fn no_sample_and_no_mutation_of_one_breaks_a_parser() {
    for target in TARGETS {
        let mut samples = corpus().samples(target);
        if target.name == "offer" {
            samples.extend(PUBLISH_OFFERS.iter().chain(&WATCH_OFFERS).map(|name| golden(name).into_bytes()));
        }
        target.try_on(&[]);
        for sample in &samples {
            target.try_on(sample);
            let ends = (0..sample.len()).filter(|end| sample.len() < 400 || sample[*end] == b'\n');
            ends.for_each(|end| target.try_on(&sample[..end]));
        }
        let mut random = StdRng::seed_from_u64(1);
        for index in 0..MUTATIONS {
            target.try_on(&mutate(&mut random, &samples[index % samples.len()]));
        }
    }
}

#[test]
fn every_target_has_a_binary_and_every_binary_a_target() {
    corpus().check_targets(TARGETS);
}
