//! Where viewers record one-way latencies.

use std::sync::{Arc, Mutex};

use hdrhistogram::Histogram;

/// The longest latency that is recorded as it is, in µs; longer ones count as this.
const MAX_LATENCY: u64 = 60_000_000;

/// One-way latencies in µs, shared by as many viewers as you like.
pub type SharedHistogram = Arc<Mutex<Histogram<u64>>>;

/// An empty histogram for latencies.
pub fn latency_histogram() -> SharedHistogram {
    // The bounds are constants that satisfy its conditions.
    let histogram = Histogram::new_with_bounds(1, MAX_LATENCY, 3).expect("valid bounds");
    Arc::new(Mutex::new(histogram))
}
