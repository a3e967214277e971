//! The fuzz corpus and deterministic mutations of it, through every fuzz target.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::config::fuzzing::{TARGETS, Target};

/// Mutations of each target's samples.
const MUTATIONS: usize = 3_000;

fn fuzz_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn samples(target: &Target) -> Vec<Vec<u8>> {
    let directory = fuzz_directory().join("corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order decides the mutations; the file system must not.
    files.sort();
    assert!(!files.is_empty(), "{} has no samples", target.name);
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn run(target: &Target, input: &[u8]) {
    if catch_unwind(|| (target.run)(input)).is_err() {
        panic!("target {} fails on {}", target.name, input.escape_ascii());
    }
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
        let samples = samples(target);
        run(target, &[]);
        for sample in &samples {
            (0..=sample.len()).for_each(|end| run(target, &sample[..end]));
        }
        let mut random = StdRng::seed_from_u64(1);
        for index in 0..MUTATIONS {
            let mut input = samples[index % samples.len()].clone();
            for _ in 0..=random.random_range(0..6) {
                mutate(&mut input, &mut random);
            }
            run(target, &input);
        }
    }
}

#[test]
fn every_target_has_a_binary_and_every_binary_a_target() {
    let manifest = fs::read_to_string(fuzz_directory().join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        assert!(manifest.contains(&format!("\npath = \"fuzz_targets/{name}.rs\"\n")), "no [[bin]] for {name}");
        assert!(fuzz_directory().join(format!("fuzz_targets/{name}.rs")).exists(), "no file for {name}");
    }
    for directory in ["corpus", "fuzz_targets"] {
        let count = fs::read_dir(fuzz_directory().join(directory)).unwrap().count();
        assert_eq!(count, TARGETS.len(), "{directory} holds something that no target names");
    }
    assert!(TARGETS.is_sorted_by_key(|target| target.name));
}
