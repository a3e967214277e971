//! The clock of the registry.

use std::time::Instant;

/// Now, by tokio's clock: a test that pauses it sees retention times pass at once.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
