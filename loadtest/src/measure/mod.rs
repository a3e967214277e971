//! What is measured while a test runs.

pub(crate) mod figures;
pub(crate) mod join;
pub(crate) mod layers;
pub(crate) mod leak;
pub(crate) mod monitor;
pub(crate) mod percentiles;
pub mod process;
pub(crate) mod roster;
pub(crate) mod scrape;
