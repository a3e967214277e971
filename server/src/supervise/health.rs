//! How the process is, for whoever asks.

use std::sync::{Arc, PoisonError, RwLock};

use signaling::{Problem, Slug};

/// A part that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Which.
    pub part: String,
    /// What is wrong with it.
    pub fault: String,
}

/// The parts that have failed, as the supervisor last saw them. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<Vec<Failing>>>);

impl Health {
    /// These have failed, and no others.
    pub fn set(&self, failing: Vec<Failing>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = failing;
    }

    /// An error names the parts that have failed.
    ///
    /// # Errors
    /// 503.
    pub fn check(&self) -> Result<(), Problem> {
        let failing = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if failing.is_empty() {
            return Ok(());
        }
        let parts: Vec<_> = failing.iter().map(|Failing { part, fault }| format!("{part}: {fault}")).collect();
        Err(Problem::retry_later(Slug::PartFailed, parts.join("; ")))
    }
}
