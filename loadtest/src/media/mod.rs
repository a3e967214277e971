//! Synthetic media, and the stamp by which each payload is known again.

pub(crate) mod frames;
pub(crate) mod scalability;
mod sps;
pub(crate) mod stamp;
