//! The conformance program against the running server: no row that a standard demands may fail, and what becomes of every row is
//! what `results.tsv` says, from which docs/conformance.md takes its last column. `SLUICE_WRITE_CONFORMANCE=1` writes it anew.
//! A binary of its own, so that no other test runs beside it.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use loadtest::conformance::{Level, Options, Outcome, Report, run};
use support::Sluice;

/// Most of a run is waiting for what is not to come.
const JOBS: usize = 8;
const TOKEN: &str = "conformance-token-0123456789";

/// One run at a time: each is timed.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs the program against a server of its own.
async fn checked(arguments: &[&str], token: Option<&str>) -> Report {
    let _alone = ALONE.lock().await;
    let server = Sluice::start(arguments).await;
    let options = Options {
        whip: Some(format!("{}/whip/s{{i}}", server.base)),
        whep: Some(format!("{}/whep/s{{i}}", server.base)),
        token: token.map(str::to_owned),
        jobs: JOBS,
        ..Options::default()
    };
    run(options, |row| println!("{}", row.to_line())).await.unwrap()
}

/// The rows that a standard demands and that were not passed, though they apply.
fn missed(report: &Report) -> Vec<String> {
    let missed = report
        .rows
        .iter()
        .filter(|row| row.level == Level::Must && !matches!(row.result, Outcome::Pass | Outcome::NotApplicable));
    missed.map(|row| row.to_line()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_every_row_is_what_the_page_says() {
    let token = format!("*={TOKEN}");
    let mut arguments = vec!["--token", &token, "--protect-viewers=true"];
    // What is off by default, and is to be right where it is on.
    arguments.extend(["--counter-offer=true", "--turn-secret", "a-secret-of-24-characters"]);
    arguments.extend(["--ice-server", "stun:127.0.0.1:3478,turn:127.0.0.1:3478?transport=udp"]);
    let report = checked(&arguments, Some(TOKEN)).await;
    let line = |row: &loadtest::conformance::RowResult| format!("{}\t{}\t{}\n", row.id, row.level, row.result);
    let results: String = report.rows.iter().map(line).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/results.tsv");
    if std::env::var_os("SLUICE_WRITE_CONFORMANCE").is_some() {
        std::fs::write(&file, &results).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    let different = |(now, then): &(&str, &str)| now != then;
    let changed: Vec<_> = results.lines().zip(expected.lines()).filter(different).collect();
    assert_eq!(results, expected, "now and then: {changed:?}; SLUICE_WRITE_CONFORMANCE=1 writes {}", file.display());
    assert_eq!(missed(&report), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_full_agent_misses_no_row_that_a_standard_demands_either() {
    let report = checked(&["--ice", "full"], None).await;
    assert_eq!(missed(&report), [""; 0]);
    assert!(report.passed && report.count(Level::Must, Outcome::Pass) > 60, "{}", report.summary());
}
