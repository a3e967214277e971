//! The fuzz corpus, the golden offers, and deterministic mutations of both, through every fuzz target.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signaling::fuzzing::{TARGETS, Target};
use support::{PUBLISH_OFFERS, WATCH_OFFERS, golden, mutate};

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
    let mut samples: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    if target.name == "offer" {
        samples.extend(PUBLISH_OFFERS.iter().chain(&WATCH_OFFERS).map(|name| golden(name).into_bytes()));
    }
    samples
}

fn run(target: &Target, input: &[u8]) {
    if catch_unwind(|| (target.run)(input)).is_err() {
        panic!("target {} fails on {}", target.name, input.escape_ascii());
    }
}

// SDP-06, TRK-01, TRK-06
#[test]
fn no_sample_and_no_mutation_of_one_breaks_a_parser() {
    for target in TARGETS {
        let samples = samples(target);
        run(target, &[]);
        for sample in &samples {
            run(target, sample);
            let ends = (0..sample.len()).filter(|end| sample.len() < 400 || sample[*end] == b'\n');
            ends.for_each(|end| run(target, &sample[..end]));
        }
        let mut random = StdRng::seed_from_u64(1);
        for index in 0..MUTATIONS {
            run(target, &mutate(&mut random, &samples[index % samples.len()]));
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
