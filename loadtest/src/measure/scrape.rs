//! What a server's own metrics say of its process, in the Prometheus text format.

use std::time::Duration;

/// One scrape.
pub(crate) struct Scrape(String);

impl Scrape {
    /// Reads the metrics of an admin listener; `None` if it has none.
    pub(crate) async fn read(admin: &str) -> Option<Scrape> {
        let url = format!("{}/metrics", admin.trim_end_matches('/'));
        // A connection of its own: the server's descriptors are counted.
        let client =
            reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(10)).build().ok()?;
        let answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
        Some(Scrape(answer.text().await.ok()?))
    }

    /// The sum of all series of a metric; `None` if there are none.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// CPU time of the process, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        self.sum("process_cpu_seconds_total")
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        self.sum("process_resident_memory_bytes").map(|bytes| bytes as u64)
    }

    /// What is in use of its heap, in bytes.
    pub(crate) fn heap_in_use(&self) -> Option<u64> {
        self.sum("sluice_heap_bytes{state=\"in_use\"}").map(|bytes| bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_added_up() {
        let text =
            "# HELP a x\n# TYPE a gauge\na{shard=\"0\"} 2\na{shard=\"1\"} 3\nab 7\nprocess_cpu_seconds_total 1.5\n";
        let scrape = Scrape(text.to_owned());
        assert_eq!((scrape.sum("a"), scrape.sum("ab"), scrape.sum("b")), (Some(5.0), Some(7.0), None));
        assert_eq!((scrape.cpu_seconds(), scrape.resident_bytes()), (Some(1.5), None));
    }

    #[test]
    fn of_the_heap_what_is_in_use_counts() {
        let text = "sluice_heap_bytes{state=\"free\"} 7\nsluice_heap_bytes{state=\"in_use\"} 5\n";
        assert_eq!(Scrape(text.to_owned()).heap_in_use(), Some(5));
        assert_eq!(Scrape(String::new()).heap_in_use(), None);
    }
}
