//! The committed samples of the fuzz targets, for the ordinary tests of every crate that has some.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use super::Target;

/// The folder `fuzz` of a crate.
pub struct Corpus {
    directory: PathBuf,
}

impl Corpus {
    /// That of the crate whose manifest is in this folder.
    pub fn of(manifest_directory: &str) -> Corpus {
        Corpus { directory: Path::new(manifest_directory).join("fuzz") }
    }

    /// The samples of a target.
    ///
    /// # Panics
    /// If they cannot be read, or there are none.
    pub fn samples(&self, target: &Target) -> Vec<Vec<u8>> {
        let directory = self.directory.join("corpus").join(target.name);
        let mut files: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.expect("the directory can be listed").path())
            .collect();
        // The order decides the mutations; the file system must not.
        files.sort();
        assert!(!files.is_empty(), "{} has no samples", target.name);
        files.iter().map(|file| fs::read(file).expect("a sample can be read")).collect()
    }

    /// Every target has a binary and every binary a target.
    ///
    /// # Panics
    /// If one has not.
    pub fn check_targets(&self, targets: &[Target]) {
        let manifest = fs::read_to_string(self.directory.join("Cargo.toml")).expect("the manifest can be read");
        for Target { name, .. } in targets {
            assert!(manifest.contains(&format!("\npath = \"fuzz_targets/{name}.rs\"\n")), "no [[bin]] for {name}");
            assert!(self.directory.join(format!("fuzz_targets/{name}.rs")).exists(), "no file for {name}");
        }
        for directory in ["corpus", "fuzz_targets"] {
            let entries = fs::read_dir(self.directory.join(directory)).expect("the directory can be listed");
            assert_eq!(entries.count(), targets.len(), "{directory} holds something that no target names");
        }
        assert!(targets.is_sorted_by_key(|target| target.name));
    }
}

impl Target {
    /// Runs it over an input.
    ///
    /// # Panics
    /// If it does, with the input.
    pub fn try_on(&self, input: &[u8]) {
        if catch_unwind(|| (self.run)(input)).is_err() {
            panic!("target {} fails on {}", self.name, input.escape_ascii());
        }
    }
}
