//! All clients of a test, and the paths and threads that they need.

pub(crate) mod clients;
pub(crate) mod figures;
pub(crate) mod links;
pub(crate) mod narrow;
pub(crate) mod viewer;
mod workers;
