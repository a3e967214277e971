//! The clients' offers and the servers' answers.

mod answer;
mod format;
mod offer;

pub use answer::{Answer, AnswerError, AnsweredSection};
pub use format::{PayloadTypes, Ssrcs};
pub use offer::{CONSTRAINED_BASELINE, Imitation, Offer, OfferedSection, Setup};
