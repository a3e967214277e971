//! Hostile inputs of every kind beside honest viewers, at a small rate: nobody honest loses anything, and no address that
//! proved nothing gets more than it sent. A binary of its own, so that no other test runs beside it.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use loadtest::client::PublisherOptions;
use loadtest::report::Outcome;
use loadtest::report::attack::AttackRow;
use loadtest::run::{Attack, AttackOptions, Campaign, Plan, Scenario};
use support::Sluice;

const VIEWERS: usize = 6;

/// One attack at a time on this machine: each is measured.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Attacks a server of its own.
async fn attacked(arguments: &[&str], attacks: &[Attack]) -> Vec<AttackRow> {
    let _alone = ALONE.lock().await;
    let server = Sluice::start(arguments).await;
    let options = AttackOptions {
        attacks: attacks.to_vec(),
        datagrams: 2000,
        requests: 50,
        connections: 300,
        each: Duration::from_secs(1),
        admin: Some(server.admin.clone()),
        ..AttackOptions::default()
    };
    let media = PublisherOptions { bitrate: 300, ..PublisherOptions::default() };
    let plan = Plan {
        viewers: VIEWERS,
        duration: Duration::from_secs(1),
        media,
        server_pid: Some(server.pid()),
        ..server.plan()
    };
    let campaign = Campaign { plan, mix: Vec::new(), scenario: Scenario::Attack(options) };
    let report = campaign.run(|_| {}, std::future::pending()).await.unwrap();
    println!("{}", report.to_table());
    let Outcome::Attack(figures) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(figures.attacks.len(), attacks.len());
    figures.attacks
}

/// Nobody honest noticed, and every attack was one.
fn assert_harmless(rows: &[AttackRow]) {
    for row in rows {
        assert_eq!(row.not_done, None, "{}", row.attack);
        let counts = &row.counts;
        assert!(counts.datagrams + counts.requests + counts.connections > 20, "{}: {counts:?}", row.attack);
        assert_eq!((row.sessions_lost, row.packets_lost), (0, 0), "{}: {row:?}", row.attack);
        assert!(counts.amplification <= 1.0, "{}: {counts:?}", row.attack);
        assert_eq!(row.broken, [""; 0], "{}", row.attack);
    }
}

const STRANGERS: [Attack; 5] = [Attack::Noise, Attack::Stun, Attack::Replay, Attack::Dtls, Attack::Srtp];

// H1, H4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cost_honest_viewers_nothing_and_get_no_more_than_they_sent() {
    for mode in ["lite", "full"] {
        assert_harmless(&attacked(&["--ice", mode], &STRANGERS).await);
    }
}

// H4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_in_an_offer_get_no_more_than_the_offer_cost() {
    for mode in ["lite", "full"] {
        let rows = attacked(&["--ice", mode], &[Attack::Candidates]).await;
        let row = &rows[0];
        assert!(row.counts.requests > 5 && row.counts.amplification <= 1.0, "{row:?}");
        assert_eq!((row.sessions_lost, row.packets_lost), (0, 0), "{row:?}");
    }
}

// H5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authenticated_viewers_cannot_disturb_others() {
    let attacks = [Attack::Feedback, Attack::Nack, Attack::KeyframeRequests, Attack::Reports, Attack::ViewerRtp];
    assert_harmless(&attacked(&[], &attacks).await);
}

// M1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authenticated_publishers_cannot_disturb_other_streams() {
    assert_harmless(&attacked(&[], &[Attack::PublisherRtp, Attack::Rtx, Attack::Ssrcs]).await);
}

// H2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_take_their_time_shut_nobody_out() {
    let attacks = [
        Attack::SilentConnections,
        Attack::SlowHeads,
        Attack::SlowBodies,
        Attack::HalfPrefaces,
        Attack::Pings,
        Attack::BigBodies,
    ];
    assert_harmless(&attacked(&[], &attacks).await);
}

// H2, ICE-20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_media_ports_cost_honest_viewers_nothing() {
    let rows = attacked(&[], &[Attack::MediaConnections]).await;
    assert_harmless(&rows);
    assert!(rows[0].counts.closed > 20, "{:?}", rows[0].counts);
}

// H3, M4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_requests_shut_nobody_out() {
    assert_harmless(&attacked(&[], &[Attack::HalfOpen, Attack::Names, Attack::Resources, Attack::Tokens]).await);
}

// M2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_pages_end_no_session_by_the_admin_api() {
    assert_harmless(&attacked(&[], &[Attack::Admin]).await);
}
