//! What a row of the table is, and what may become of it.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use super::case::Case;

/// How strongly a row is demanded (RFC 2119). What only deployed clients or safety ask for is a SHOULD.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display, strum::EnumString, clap::ValueEnum,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
#[value(rename_all = "UPPERCASE")]
pub enum Level {
    /// Optional; where it is there, it has to be right.
    May,
    /// Recommended.
    Should,
    /// Required.
    Must,
}

/// Why a row was not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The server does something else.
    Fail(String),
    /// It could not be tried.
    Skip(String),
    /// The row has no meaning for this server, or for how it was run.
    NotApplicable(String),
}

/// What a check found: what it saw, or why the row was not passed.
pub(crate) type Verdict = Result<String, Miss>;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    /// The server does it.
    Pass,
    /// It does something else.
    Fail,
    /// It could not be tried.
    Skip,
    /// The row has no meaning for this server, or for how it was run.
    NotApplicable,
}

pub(super) type Finding<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;

/// One demand, and how it is checked.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name, such as `WHIP-02`.
    pub id: &'static str,
    /// How strongly it is demanded.
    pub level: Level,
    /// By whom: RFC and section, or `practice`.
    pub from: &'static str,
    /// What is demanded.
    pub text: &'static str,
    pub(super) check: for<'a> fn(&'a Case<'a>) -> Finding<'a>,
}

/// Fails a check.
pub(super) fn fail<T>(what: impl Into<String>) -> Result<T, Miss> {
    Err(Miss::Fail(what.into()))
}

/// The row does not apply.
pub(super) fn not_applicable<T>(why: impl Into<String>) -> Result<T, Miss> {
    Err(Miss::NotApplicable(why.into()))
}

/// Fails a check unless something holds.
pub(super) fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Miss> {
    if holds { Ok(()) } else { Err(Miss::Fail(otherwise())) }
}

/// Rows of a table: `ID Level "from" "text" check`, where `check` is an async function of a [`Case`].
macro_rules! rows {
    ($($id:literal $level:ident $from:literal $text:literal $check:expr;)*) => {
        &[$($crate::conformance::row::Row {
            id: $id,
            level: $crate::conformance::row::Level::$level,
            from: $from,
            text: $text,
            check: |case| Box::pin($check(case)),
        }),*]
    };
}
pub(super) use rows;
