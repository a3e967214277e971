//! The conformance program against a small server that does one thing wrong: the row that it breaks fails, and passes without the
//! fault. Rows that no such fault breaks are shown to pass by the server's own test.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used)]

mod server;

use loadtest::conformance::{Level, Options, Outcome, Report, rows, run};
use server::{Fault, TOKEN};

async fn checked(fault: Fault, only: &[&str]) -> Report {
    let base = server::start(fault).await;
    // It forwards nothing, so that there is nothing to watch.
    let whep = only.contains(&"ERR-06").then(|| format!("{base}/whep/s{{i}}"));
    let options = Options {
        whip: Some(format!("{base}/whip/s{{i}}")),
        whep,
        token: Some(TOKEN.into()),
        only: only.iter().map(|id| (*id).to_owned()).collect(),
        ..Options::default()
    };
    run(options, |_| {}).await.unwrap()
}

/// Each fault fails its row, which passes without it.
async fn fails(faults: &[(Fault, &'static str)]) {
    let cases = async {
        // A few at a time: all of them share a thread, and the program waits for a reply no longer than for anybody's.
        for some in faults.chunks(2) {
            let both = some.iter().flat_map(|(fault, id)| [(Fault::None, *id), (*fault, *id)]);
            let running: Vec<_> = both.map(|(fault, id)| tokio::task::spawn_local(is_found(fault, id))).collect();
            for case in running {
                case.await.unwrap();
            }
        }
    };
    tokio::task::LocalSet::new().run_until(cases).await;
}

async fn is_found(fault: Fault, id: &'static str) {
    let wanted = if fault == Fault::None { Outcome::Pass } else { Outcome::Fail };
    let report = checked(fault, &[id]).await;
    let [row] = &report.rows[..] else { panic!("{id}: {:?}", report.rows) };
    assert_eq!(row.result, wanted, "{fault:?}: {}", row.to_line());
    assert!(!row.evidence.is_empty() && !row.evidence.contains('\n'));
    assert_eq!(report.passed, row.level != Level::Must || wanted == Outcome::Pass);
}

#[tokio::test]
async fn faults_of_http_are_found() {
    fails(&[
        (Fault::OkInsteadOfCreated, "WHIP-02"),
        (Fault::NoLocation, "WHIP-02"),
        (Fault::AnyType, "WHIP-01"),
        (Fault::TypesWithCase, "HTTP-06"),
        (Fault::ForgetsOverHttp2, "HTTP-02"),
        (Fault::ContentOfGet, "HTTP-03"),
        (Fault::NoAllow, "HTTP-05"),
        (Fault::VagueRetryAfter, "ERR-06"),
        (Fault::ErrorsInPlainText, "ERR-01"),
        (Fault::NoOptions, "CORS-01"),
        (Fault::CredentialsForAll, "CORS-05"),
        (Fault::NoChallenge, "AUTH-01"),
        (Fault::WeakTag, "WHIP-05"),
        (Fault::Undying, "WHIP-14"),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_answers_are_found() {
    fails(&[
        (Fault::AnyDirection, "WHIP-08"),
        (Fault::NoRtcpMux, "WHIP-28"),
        (Fault::SwappedSections, "SDP-10"),
        (Fault::ForeignFormat, "SDP-20"),
        (Fault::SurplusFeedback, "SDP-21"),
        (Fault::NoBundle, "SDP-11"),
        (Fault::PortZero, "SDP-14"),
        (Fault::NoFingerprintNeeded, "SDP-17"),
        (Fault::SameCredentials, "SDP-19"),
        (Fault::NoCandidates, "WHIP-07"),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_trickling_and_restarts_are_found() {
    fails(&[
        (Fault::TagOfTrickle, "TRK-03"),
        (Fault::IgnoresIfMatch, "TRK-06"),
        (Fault::IgnoresIfMatch, "TRK-07"),
        (Fault::SameCredentialsAfterRestart, "TRK-10"),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_checks_are_found() {
    fails(&[
        (Fault::TakesAnyPassword, "STUN-03"),
        (Fault::TakesAnyPassword, "STUN-04"),
        (Fault::IgnoresUnknownAttributes, "STUN-06"),
        (Fault::AnswersAfterEnd, "ICE-17"),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_the_handshake_are_found() {
    fails(&[(Fault::AnotherCertificate, "DTLS-08"), (Fault::SilentAfterHello, "DTLS-01")]).await;
}

#[tokio::test]
async fn a_server_that_never_reports_fails_the_row_of_reports() {
    let report = checked(Fault::None, &["RTCP-03"]).await;
    assert!(!report.passed && report.rows[0].result == Outcome::Fail, "{}", report.rows[0].to_line());
}

#[tokio::test]
async fn rows_are_chosen_by_level_and_by_the_beginnings_of_their_ids() {
    let options = Options {
        whip: Some("http://127.0.0.1:9/whip/s".into()),
        only: vec!["WHIP".into(), "SDP-1".into()],
        skip: vec!["WHIP-0".into()],
        level: Level::Must,
        ..Options::default()
    };
    // Nobody listens there: what needs the server fails with what happened.
    let report = run(options, |_| {}).await.unwrap();
    let expected = rows().into_iter().filter(|row| {
        let wanted = row.id.starts_with("WHIP-") && !row.id.starts_with("WHIP-0") || row.id.starts_with("SDP-1");
        wanted && row.level == Level::Must
    });
    assert!(report.rows.iter().map(|row| row.id).eq(expected.map(|row| row.id)));
    assert!(report.rows.iter().any(|row| row.result == Outcome::Fail && row.evidence.contains("no HTTP reply")));
    let nothing = Options { whip: Some("http://127.0.0.1:9/".into()), only: vec!["NO".into()], ..Options::default() };
    assert!(run(nothing, |_| {}).await.is_err());
}
