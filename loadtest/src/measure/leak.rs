//! What is left of clients that have gone.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::LINK;
use serde::Serialize;
use serde_json::Value;

use super::figures::Sample;
use super::process::{self, Usage};
use super::scrape::Scrape;
use crate::run::{RotationFigures, ScrapeFigures};

/// Memory that allocators keep for later is no leak: growth below both counts as none.
const MEMORY_SHARE: f64 = 0.1;
const MEMORY_BYTES: u64 = 8 << 20;
/// Memory is flat if it grows by no more than that.
const FLAT: f64 = 0.02;

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
    /// Sessions in the maps of its shards, by its metrics.
    pub shard_sessions: Option<u64>,
}

impl Footprint {
    /// Reads it from `/proc` and from the server's list of sessions.
    pub(crate) async fn read(pid: Option<u32>, sessions_url: Option<&str>, admin: Option<&str>) -> Footprint {
        let usage = pid.and_then(Usage::of);
        let sessions = match sessions_url {
            Some(url) => count_sessions(url).await,
            None => None,
        };
        let scrape = match admin {
            Some(admin) => Scrape::read(admin).await,
            None => None,
        };
        let shard_sessions = scrape.and_then(|scrape| scrape.sum("sluice_shard_sessions"));
        Footprint {
            resident_bytes: usage.map(|usage| usage.resident),
            descriptors: match pid {
                Some(pid) => fewest_descriptors(pid).await,
                None => None,
            },
            threads: usage.map(|usage| usage.threads),
            sessions,
            shard_sessions: shard_sessions.map(|count| count as u64),
        }
    }
}

/// Open file descriptors over a second: connections that asked for the figures are about to be closed.
async fn fewest_descriptors(pid: u32) -> Option<u64> {
    let mut fewest = process::descriptors(pid);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fewest = fewest.min(process::descriptors(pid));
    }
    fewest
}

async fn count_sessions(url: &str) -> Option<u64> {
    let http = reqwest::Client::new();
    let (mut url, mut sessions) = (Url::parse(url).ok()?, 0);
    loop {
        let request = http.get(url.clone()).timeout(Duration::from_secs(10));
        let reply = request.send().await.ok()?.error_for_status().ok()?;
        let next = reply.headers().get(LINK).and_then(|link| next_page(&url, link.to_str().ok()?));
        sessions += count(&serde_json::from_str(&reply.text().await.ok()?).ok()?)?;
        match next {
            Some(next) => url = next,
            None => return Some(sessions),
        }
    }
}

/// Where `rel="next"` of a `Link` header leads (RFC 8288).
fn next_page(base: &Url, link: &str) -> Option<Url> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.contains("rel=\"next\"").then(|| base.join(target).ok())?
}

/// The length of a list, or of the first list in an object.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Array(list) => Some(list.len() as u64),
        Value::Object(map) => map.values().find_map(|value| value.as_array().map(|list| list.len() as u64)),
        _ => None,
    }
}

/// The server's resident memory while clients came and went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MemoryTrend {
    /// Seconds between both.
    pub seconds: f64,
    /// The mean of a window from when it was to be flat, in bytes.
    pub from_bytes: f64,
    /// The mean of the last of them, in bytes.
    pub to_bytes: f64,
    /// What it grew by: 0.01 is 1 %.
    pub growth: f64,
    /// In the same windows what was in use of the server's heap, by its own account, in bytes.
    pub heap_in_use: Option<(f64, f64)>,
}

impl MemoryTrend {
    /// Between `from` and `until`, in seconds since the test's begin; `None` if there is not time for two windows. `heap`: what was
    /// in use of it, in bytes, and when.
    pub(crate) fn of(
        series: &[Sample],
        heap: &[(f64, u64)],
        (from, until): (f64, f64),
        window: f64,
    ) -> Option<MemoryTrend> {
        if until < from + 2.0 * window {
            return None;
        }
        let resident: Vec<(f64, u64)> =
            series.iter().filter_map(|sample| Some((sample.at, sample.server_resident_bytes?))).collect();
        let mean = |samples: &[(f64, u64)], begin: f64| {
            let inside = samples.iter().filter(|(at, _)| (begin..begin + window).contains(at));
            let values: Vec<u64> = inside.map(|&(_, bytes)| bytes).collect();
            (!values.is_empty()).then(|| values.iter().sum::<u64>() as f64 / values.len() as f64)
        };
        let both = |samples: &[(f64, u64)]| mean(samples, from).zip(mean(samples, until - window));
        let (from_bytes, to_bytes) = both(&resident)?;
        let growth = to_bytes / from_bytes.max(1.0) - 1.0;
        Some(MemoryTrend { seconds: until - window - from, from_bytes, to_bytes, growth, heap_in_use: both(heap) })
    }
}

/// What a soak left behind.
#[derive(Clone, Debug, Serialize)]
pub struct Leaks {
    /// After a warm-up whose clients have left.
    pub before: Footprint,
    /// After all clients have left.
    pub after: Footprint,
    /// Viewers that joined, those of the warm-up included.
    pub joins: u64,
    /// Publishers that restarted.
    pub restarts: u64,
    /// Viewers that vanished without a word.
    pub vanished: u64,
    /// Viewers that were on impaired paths.
    pub impaired: u64,
    /// Viewers whose session the server ended, which many servers do when the publisher leaves.
    pub ended_by_server: u64,
    /// Viewers that were refused because their stream's publisher restarted just then.
    pub refused_in_restarts: u64,
    /// Memory over time; `None` if the soak was too short, or the process unknown.
    pub memory: Option<MemoryTrend>,
    /// What attackers did meanwhile, if there were any.
    pub attacks: Option<RotationFigures>,
    /// What scrapes were like, if there were any.
    pub scrapes: Option<ScrapeFigures>,
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
            ("sessions of shards", self.before.shard_sessions, self.after.shard_sessions),
        ];
        let grown = rows.into_iter().filter_map(|(what, before, after)| {
            let (before, after) = (before?, after?);
            (after > before).then(|| format!("{what} grew from {before} to {after}"))
        });
        // What a server remembers of ended sessions is bounded, but much beside what it had at first: over time the slope tells.
        let ends = self.before.resident_bytes.zip(self.after.resident_bytes).filter(|_| self.memory.is_none());
        let memory = ends.and_then(|(before, after)| {
            let bound = before + MEMORY_BYTES.max((before as f64 * MEMORY_SHARE) as u64);
            (after > bound).then(|| format!("memory grew from {} to {} kB", before / 1000, after / 1000))
        });
        let slope = self.memory.filter(|memory| memory.growth > FLAT).map(|memory| {
            let (minutes, percent) = (memory.seconds / 60.0, memory.growth * 100.0);
            format!("memory grew by {percent:.1} % in {minutes:.1} minutes in which it was to be flat")
        });
        let unanswered = self.scrapes.filter(|scrapes| scrapes.failed > 0);
        let unanswered = unanswered.map(|scrapes| format!("{} scrapes were not answered", scrapes.failed));
        let amplified =
            self.attacks.as_ref().map(|attacks| attacks.counts.amplification).filter(|factor| *factor > 1.0);
        let amplified =
            amplified.map(|factor| format!("an address that proved nothing got {factor:.2} times what it sent"));
        grown.chain(memory).chain(slope).chain(unanswered).chain(amplified).collect()
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

    fn leaks(before: Footprint, after: Footprint) -> Leaks {
        Leaks {
            before,
            after,
            joins: 100,
            restarts: 0,
            vanished: 0,
            impaired: 0,
            ended_by_server: 0,
            refused_in_restarts: 0,
            memory: None,
            attacks: None,
            scrapes: None,
        }
    }

    fn sample(at: f64, resident: u64) -> Sample {
        Sample {
            at,
            viewers: 0,
            packets_per_second: 0.0,
            mbit_per_second: 0.0,
            lost: 0,
            latency_p50_ms: None,
            latency_p99_ms: None,
            latency_max_ms: None,
            server_cores: None,
            server_resident_bytes: Some(resident),
            generator_cores: 0.0,
        }
    }

    #[test]
    fn memory_that_grows_by_more_than_two_percent_is_not_flat() {
        // It settles within ten seconds at 1,000, and grows by 1 every four seconds from then on.
        let memory = |at: u32| if at < 10 { 500 } else { 1_000 + u64::from(at - 10) / 4 };
        let series: Vec<Sample> = (0..200).map(|at| sample(at.into(), memory(at))).collect();
        assert_eq!(MemoryTrend::of(&series, &[], (10.0, 29.0), 10.0), None, "no time for two windows");
        let short = MemoryTrend::of(&series, &[], (10.0, 80.0), 10.0).unwrap();
        assert!((short.growth - 0.015).abs() < 0.001 && short.seconds == 60.0, "{short:?}");
        let heap = [(5.0, 1), (10.0, 5), (75.0, 7), (80.0, 9)];
        let trend = MemoryTrend::of(&series, &heap, (10.0, 80.0), 10.0).unwrap();
        assert_eq!((short.heap_in_use, trend.heap_in_use), (None, Some((5.0, 7.0))));
        let long = MemoryTrend::of(&series, &[], (10.0, 200.0), 10.0).unwrap();
        assert!(long.growth > 0.04, "{long:?}");
        let of = |memory| Leaks { memory: Some(memory), ..leaks(Footprint::default(), Footprint::default()) };
        assert_eq!((of(short).found(), of(long).found().len()), (Vec::new(), 1));
        // What was there before and after does not count beside it.
        let (before, after) = (Some(10 << 20), Some(30 << 20));
        let footprint = |resident_bytes| Footprint { resident_bytes, ..Footprint::default() };
        let ends = leaks(footprint(before), footprint(after));
        assert_eq!((ends.found().len(), Leaks { memory: Some(short), ..ends }.found()), (1, Vec::new()));
        let scrapes = Some(ScrapeFigures { answered: 9, failed: 1, slowest_ms: 1.0 });
        assert_eq!(Leaks { scrapes, ..of(short) }.found(), ["1 scrapes were not answered"]);
    }

    #[test]
    fn lists_by_pages_are_read_to_the_end() {
        let base = Url::parse("http://127.0.0.1:8081/api/v1/sessions?state=live").unwrap();
        let next = next_page(&base, "<?cursor=1-2&limit=500&state=live>; rel=\"next\"").unwrap();
        assert_eq!(next.as_str(), "http://127.0.0.1:8081/api/v1/sessions?cursor=1-2&limit=500&state=live");
        assert_eq!(next_page(&base, "<?cursor=1-2>; rel=\"prev\""), None);
        assert_eq!(next_page(&base, "nonsense"), None);
    }

    #[test]
    fn growth_is_a_leak_and_memory_only_when_it_is_much() {
        let before = Footprint {
            resident_bytes: Some(20 << 20),
            descriptors: Some(10),
            threads: Some(4),
            sessions: Some(0),
            shard_sessions: Some(0),
        };
        let leaks = |after| leaks(before, after);
        assert_eq!(leaks(Footprint { descriptors: Some(9), ..before }).found(), [""; 0]);
        assert_eq!(leaks(Footprint { resident_bytes: Some(27 << 20), ..before }).found(), [""; 0]);
        let after = Footprint { resident_bytes: Some(30 << 20), descriptors: Some(11), sessions: Some(1), ..before };
        assert_eq!(leaks(after).found().len(), 3);
        assert_eq!(leaks(after).bytes_per_join(), Some(10.0 * 1048576.0 / 100.0));
        assert_eq!(leaks(Footprint::default()).found(), [""; 0], "what cannot be read does not leak");
    }
}
