//! What a test is to do, and how it is carried out.

mod campaign;
mod pace;
mod scenarios;
mod soak;
mod stage;

pub use crate::plan::{Campaign, Plan, Progress, RunError, Scenario};
pub use campaign::run;
