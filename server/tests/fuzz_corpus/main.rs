//! The fuzz corpus and deterministic mutations of it, through every fuzz target.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

use media_core::fuzzing::Corpus;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::config::fuzzing::TARGETS;

/// Mutations of each target's samples.
const MUTATIONS: usize = 3_000;

fn corpus() -> Corpus {
    Corpus::of(env!("CARGO_MANIFEST_DIR"))
}

/// What parsers of settings look for, and what they do not expect.
const BYTES: &[u8] = b" =:/.,*[]#\"-09azAZ\n\xff";

/// Changes a byte, or what follows it.
fn mutate(input: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..input.len().max(1));
    match random.random_range(0..4) {
        0 => input.truncate(at),
        1 if !input.is_empty() => {
            input.remove(at);
        }
        2 => {
            let repeated = input[at..].to_vec();
            input.extend_from_slice(&repeated[..repeated.len().min(40)]);
        }
        _ if !input.is_empty() => input[at] = BYTES[random.random_range(0..BYTES.len())],
        _ => {}
    }
}

#[test]
fn no_sample_and_no_mutation_of_one_breaks_a_parser() {
    for target in TARGETS {
        let samples = corpus().samples(target);
        target.try_on(&[]);
        for sample in &samples {
            (0..=sample.len()).for_each(|end| target.try_on(&sample[..end]));
        }
        let mut random = StdRng::seed_from_u64(1);
        for index in 0..MUTATIONS {
            let mut input = samples[index % samples.len()].clone();
            for _ in 0..=random.random_range(0..6) {
                mutate(&mut input, &mut random);
            }
            target.try_on(&input);
        }
    }
}

#[test]
fn every_target_has_a_binary_and_every_binary_a_target() {
    corpus().check_targets(TARGETS);
}
