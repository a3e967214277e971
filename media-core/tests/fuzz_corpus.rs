//! The fuzz corpus and deterministic mutations of it, through every fuzz target.

use media_core::fuzzing::{Corpus, TARGETS};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Mutations of each target's corpus.
const MUTATIONS: usize = 20_000;
/// A slow target gets one of so many.
const SLOW: usize = 50;
/// Longer than any datagram that comes through the demultiplexer.
const MAX_LEN: usize = 2_000;

fn corpus() -> Corpus {
    Corpus::of(env!("CARGO_MANIFEST_DIR"))
}

/// Changes `input` in one of the ways that parsers mind.
fn mutate(input: &mut Vec<u8>, samples: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..input.len().max(1));
    match random.random_range(0..8) {
        0 => input.truncate(at),
        1 => {
            let added = random.random_range(0..24);
            input.extend((0..added).map(|_| random.random::<u8>()));
        }
        2 if !input.is_empty() => input[at] ^= 1 << random.random_range(0..8),
        3 if !input.is_empty() => input[at] = [0x00, 0x01, 0x7f, 0x80, 0xbe, 0xff][random.random_range(0..6)],
        4 if !input.is_empty() => input[at] = random.random(),
        5 if !input.is_empty() => {
            input.remove(at);
        }
        6 => {
            let other = &samples[random.random_range(0..samples.len())];
            let from = random.random_range(0..other.len().max(1));
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let repeated = input[at..].to_vec();
            input.extend_from_slice(&repeated[..repeated.len().min(64)]);
        }
    }
    input.truncate(MAX_LEN);
}

#[test]
fn no_sample_and_no_mutation_of_one_breaks_a_parser() {
    // RTP-01, RTCP-01, EXT-H01, DMX-01
    for target in TARGETS {
        let slowness = if target.is_slow { SLOW } else { 1 };
        let samples = corpus().samples(target);
        target.try_on(&[]);
        for sample in &samples {
            target.try_on(sample);
            for end in (0..sample.len()).step_by(slowness) {
                target.try_on(&sample[..end]);
            }
        }
        let mut random = StdRng::seed_from_u64(1);
        for round in 0..MUTATIONS / slowness {
            let mut input = samples[round % samples.len()].clone();
            for _ in 0..=random.random_range(0..6) {
                mutate(&mut input, &samples, &mut random);
            }
            target.try_on(&input);
        }
    }
}

#[test]
fn every_target_has_a_binary_and_every_binary_a_target() {
    corpus().check_targets(TARGETS);
}
