//! What became of all rows: a line each, JSON or JUnit.

use std::fmt::Write as _;

use serde::Serialize;

use super::row::{Level, Outcome};

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowResult {
    /// Its name.
    pub id: &'static str,
    /// How strongly it is demanded.
    pub level: Level,
    /// By whom.
    pub from: &'static str,
    /// What is demanded.
    pub text: &'static str,
    /// What became of it.
    pub result: Outcome,
    /// What was sent and what came back, or why it was not.
    pub evidence: String,
    /// How long it took, in ms.
    pub ms: u64,
}

/// What became of all rows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// WHIP endpoint.
    pub whip: Option<String>,
    /// WHEP endpoint.
    pub whep: Option<String>,
    /// No row that must be passed failed.
    pub passed: bool,
    /// Rows in the order of the table.
    pub rows: Vec<RowResult>,
}

impl RowResult {
    /// The line that people read.
    pub fn to_line(&self) -> String {
        format!("{:<9} {:<6} {:<14} {}: {}", self.id, self.level, self.result, self.text, self.evidence)
    }
}

impl Report {
    pub(super) fn new(whip: Option<String>, whep: Option<String>, rows: Vec<RowResult>) -> Report {
        let failed = |row: &RowResult| row.level == Level::Must && row.result == Outcome::Fail;
        Report { whip, whep, passed: !rows.iter().any(failed), rows }
    }

    /// How many rows of a level had an outcome.
    pub fn count(&self, level: Level, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.level == level && row.result == outcome).count()
    }

    /// The last line for people.
    pub fn summary(&self) -> String {
        let of = |level| {
            let count = |outcome| self.count(level, outcome);
            format!(
                "{level}: {} passed, {} failed, {} skipped, {} not applicable",
                count(Outcome::Pass),
                count(Outcome::Fail),
                count(Outcome::Skip),
                count(Outcome::NotApplicable)
            )
        };
        [Level::Must, Level::Should, Level::May].map(of).join("; ")
    }

    /// As a JUnit file: one suite, one case a row. A failed SHOULD or MAY is a skipped case: it fails no build.
    pub fn to_junit(&self) -> String {
        let failed = self.count(Level::Must, Outcome::Fail);
        let passed = self.rows.iter().filter(|row| row.result == Outcome::Pass).count();
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let seconds = |ms: u64| ms as f64 / 1000.0;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<testsuite name=\"conformance\" tests=\"{}\" failures=\"{failed}\" skipped=\"{}\" time=\"{:.3}\">",
            self.rows.len(),
            self.rows.len() - failed - passed,
            seconds(self.rows.iter().map(|row| row.ms).sum())
        );
        for row in &self.rows {
            let (text_of, evidence) = (escape(row.text), escape(&row.evidence));
            let _ = write!(
                text,
                "  <testcase classname=\"{}\" name=\"{} {text_of}\" time=\"{:.3}\">",
                row.level,
                row.id,
                seconds(row.ms)
            );
            let _ = match (row.result, row.level) {
                (Outcome::Pass, _) => write!(text, "<system-out>{evidence}</system-out>"),
                (Outcome::Fail, Level::Must) => write!(text, "<failure message=\"{evidence}\"/>"),
                (outcome, _) => write!(text, "<skipped message=\"{outcome}: {evidence}\"/>"),
            };
            text += "</testcase>\n";
        }
        text + "</testsuite>\n"
    }
}

/// Text as XML takes it; control characters have no place in it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(level: Level, result: Outcome) -> RowResult {
        let evidence = "POST <\"a\"> & \u{1} more".to_owned();
        RowResult { id: "WHIP-02", level, from: "RFC 9725 §4.2", text: "it answers", result, evidence, ms: 1500 }
    }

    #[test]
    fn only_a_failed_must_fails() {
        let report = |rows| Report::new(None, None, rows);
        assert!(report(vec![row(Level::Should, Outcome::Fail), row(Level::Must, Outcome::Skip)]).passed);
        assert!(!report(vec![row(Level::Must, Outcome::Fail)]).passed);
    }

    #[test]
    fn a_junit_file_has_a_case_for_each_row() {
        let rows =
            vec![row(Level::Must, Outcome::Pass), row(Level::Must, Outcome::Fail), row(Level::Should, Outcome::Fail)];
        let text = Report::new(None, None, rows).to_junit();
        assert!(text.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"4.500\""), "{text}");
        assert!(text.contains("<failure message=\"POST &lt;&quot;a&quot;&gt; &amp;   more\"/>"), "{text}");
        assert_eq!(text.matches("<testcase ").count(), text.matches("</testcase>").count());
    }
}
