//! What a test is to do, and how it is carried out.

mod attack;
mod campaign;
mod layers;
mod pace;
mod rotation;
mod scenarios;
mod soak;
mod stage;

pub use crate::attack::{Attack, AttackCounts, AttackOptions};
pub use crate::plan::{Campaign, LayersOptions, Plan, Progress, RunError, Scenario, SoakOptions};
pub use campaign::run;
pub use rotation::{RotationFigures, ScrapeFigures};
