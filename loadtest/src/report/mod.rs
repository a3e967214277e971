//! What a test found: a table for people, JSON for programs, and a page.

pub mod attack;
mod configuration;
mod html;
pub(crate) mod layers;
pub(crate) mod outcome;
mod plot;
mod summary;
mod text;

pub use layers::{LayersFigures, LayersRatio};
pub use outcome::Outcome;
pub use summary::Report;
