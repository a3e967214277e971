//! Percentiles of times and latencies.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles of some times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// The smallest.
    pub min: f64,
    /// Half are below.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of these values; `None` if there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Percentiles> {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get(((values.len() - 1) as f64 * share).round() as usize).copied();
        let (min, max) = (*values.first()?, *values.last()?);
        let count = values.len() as u64;
        Some(Percentiles { count, min, p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, p999: at(0.999)?, max })
    }
}

/// One-way latencies of all viewers.
#[derive(Clone, Default)]
pub(crate) struct Latency(Option<Histogram<u64>>);

impl Latency {
    /// Adds those of some viewers.
    pub(crate) fn add(&mut self, other: &Histogram<u64>) {
        match &mut self.0 {
            // All have the same bounds, so that no value falls outside.
            Some(all) => drop(all.add(other)),
            all => *all = Some(other.clone()),
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        if let Some(all) = &mut self.0 {
            all.reset();
        }
    }

    /// Adds those of others.
    pub(crate) fn merge(&mut self, other: &Latency) {
        if let Some(latencies) = &other.0 {
            self.add(latencies);
        }
    }

    /// In milliseconds.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let all = self.0.as_ref().filter(|all| !all.is_empty())?;
        let at = |share: f64| all.value_at_quantile(share) as f64 / 1000.0;
        let (min, max) = (all.min() as f64 / 1000.0, all.max() as f64 / 1000.0);
        let (p50, p95, p99, p999) = (at(0.5), at(0.95), at(0.99), at(0.999));
        Some(Percentiles { count: all.len(), min, p50, p95, p99, p999, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_few_values() {
        let percentiles = Percentiles::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((percentiles.min, percentiles.p50, percentiles.max, percentiles.count), (1.0, 2.0, 3.0, 3));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }
}
