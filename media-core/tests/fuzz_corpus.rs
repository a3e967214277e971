//! The fuzz corpus and deterministic mutations of it, through every fuzz target.

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use media_core::fuzzing::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Mutations of each target's corpus.
const MUTATIONS: usize = 20_000;
/// A slow target gets one of so many.
const SLOW: usize = 50;
/// Longer than any datagram that comes through the demultiplexer.
const MAX_LEN: usize = 2_000;

fn fuzz_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = fuzz_directory().join("corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("the directory can be listed").path())
        .collect();
    // The order decides the mutations; the file system must not.
    files.sort();
    assert!(!files.is_empty(), "{} has no samples", target.name);
    files.iter().map(|file| fs::read(file).expect("a sample can be read")).collect()
}

fn run(target: &Target, input: &[u8]) {
    if catch_unwind(|| (target.run)(input)).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("target {} fails on {hex}", target.name);
    }
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
        let samples = corpus(target);
        run(target, &[]);
        for sample in &samples {
            run(target, sample);
            for end in (0..sample.len()).step_by(slowness) {
                run(target, &sample[..end]);
            }
        }
        let mut random = StdRng::seed_from_u64(1);
        for round in 0..MUTATIONS / slowness {
            let mut input = samples[round % samples.len()].clone();
            for _ in 0..=random.random_range(0..6) {
                mutate(&mut input, &samples, &mut random);
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
