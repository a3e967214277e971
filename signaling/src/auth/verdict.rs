//! What one source says to a request.

use super::grant::{Denial, Grant};

/// What one source says.
pub(crate) enum Verdict {
    /// It knows the token.
    Decided(Result<Grant, Denial>),
    /// It does not: another one may.
    Unknown,
    /// It cannot say now.
    Away,
}
