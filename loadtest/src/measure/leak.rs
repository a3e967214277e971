//! What is left of clients that have gone.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::process::{self, Usage};

/// Memory that allocators keep for later is no leak: growth below both counts as none.
const MEMORY_SHARE: f64 = 0.1;
const MEMORY_BYTES: u64 = 8 << 20;

/// What a server without clients holds. `None` is what could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Footprint {
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub descriptors: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Live sessions, by the server's own account.
    pub sessions: Option<u64>,
}

impl Footprint {
    /// Reads it from `/proc` and from the server's list of sessions.
    pub(crate) async fn read(pid: Option<u32>, sessions_url: Option<&str>) -> Footprint {
        let usage = pid.and_then(Usage::of);
        let sessions = match sessions_url {
            Some(url) => count_sessions(url).await,
            None => None,
        };
        Footprint {
            resident_bytes: usage.map(|usage| usage.resident),
            descriptors: pid.and_then(process::descriptors),
            threads: usage.map(|usage| usage.threads),
            sessions,
        }
    }
}

async fn count_sessions(url: &str) -> Option<u64> {
    let request = reqwest::Client::new().get(url).timeout(Duration::from_secs(10));
    let text = request.send().await.ok()?.error_for_status().ok()?.text().await.ok()?;
    count(&serde_json::from_str(&text).ok()?)
}

/// The length of a list, or of the first list in an object.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Array(list) => Some(list.len() as u64),
        Value::Object(map) => map.values().find_map(|value| value.as_array().map(|list| list.len() as u64)),
        _ => None,
    }
}

/// What a soak left behind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Leaks {
    /// After a warm-up whose clients have left.
    pub before: Footprint,
    /// After all clients have left.
    pub after: Footprint,
    /// Viewers that joined, those of the warm-up included.
    pub joins: u64,
    /// Publishers that restarted.
    pub restarts: u64,
    /// Viewers whose session the server ended, which many servers do when the publisher leaves.
    pub ended_by_server: u64,
    /// Viewers that were refused because their stream's publisher restarted just then.
    pub refused_in_restarts: u64,
}

impl Leaks {
    /// Memory gained for each join, in bytes; it may have shrunk.
    pub(crate) fn bytes_per_join(&self) -> Option<f64> {
        let (before, after) = (self.before.resident_bytes?, self.after.resident_bytes?);
        Some((after as f64 - before as f64) / self.joins.max(1) as f64)
    }

    /// What grew and should not have.
    pub(crate) fn found(&self) -> Vec<String> {
        let rows = [
            ("file descriptors", self.before.descriptors, self.after.descriptors),
            ("threads", self.before.threads, self.after.threads),
            ("sessions", self.before.sessions, self.after.sessions),
        ];
        let grown = rows.into_iter().filter_map(|(what, before, after)| {
            let (before, after) = (before?, after?);
            (after > before).then(|| format!("{what} grew from {before} to {after}"))
        });
        let memory = self.before.resident_bytes.zip(self.after.resident_bytes).and_then(|(before, after)| {
            let bound = before + MEMORY_BYTES.max((before as f64 * MEMORY_SHARE) as u64);
            (after > bound).then(|| format!("memory grew from {} to {} kB", before / 1000, after / 1000))
        });
        grown.chain(memory).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_in_lists() {
        let count = |text: &str| count(&serde_json::from_str(text).unwrap());
        assert_eq!(count("[{}, {}]"), Some(2));
        assert_eq!(count(r#"{"total": 3, "sessions": [1, 2, 3]}"#), Some(3));
        assert_eq!(count("7"), None);
    }

    #[test]
    fn growth_is_a_leak_and_memory_only_when_it_is_much() {
        let before =
            Footprint { resident_bytes: Some(20 << 20), descriptors: Some(10), threads: Some(4), sessions: Some(0) };
        let leaks =
            |after| Leaks { before, after, joins: 100, restarts: 0, ended_by_server: 0, refused_in_restarts: 0 };
        assert_eq!(leaks(Footprint { descriptors: Some(9), ..before }).found(), [""; 0]);
        assert_eq!(leaks(Footprint { resident_bytes: Some(27 << 20), ..before }).found(), [""; 0]);
        let after = Footprint { resident_bytes: Some(30 << 20), descriptors: Some(11), sessions: Some(1), ..before };
        assert_eq!(leaks(after).found().len(), 3);
        assert_eq!(leaks(after).bytes_per_join(), Some(10.0 * 1048576.0 / 100.0));
        assert_eq!(leaks(Footprint::default()).found(), [""; 0], "what cannot be read does not leak");
    }
}
