//! Whole tests, by the library and by the command line.

use std::sync::atomic::Ordering;
use std::time::Duration;

use loadtest::client::PublisherOptions;
use loadtest::report::Outcome;
use loadtest::run::{Attack, AttackOptions, Campaign, Plan, Scenario, SoakOptions};

use crate::server::Server;
use crate::short;

fn plan(server: &Server) -> Plan {
    Plan {
        whip: Some(format!("{}/whip/stream", server.base)),
        whep: Some(format!("{}/whep/stream", server.base)),
        token: None,
        publishers: 1,
        viewers: 5,
        duration: Duration::from_secs(1),
        rate: Some(50.0),
        media: PublisherOptions::default(),
        client: short(),
        transport_cc: false,
        server_pid: Some(std::process::id()),
        threads: 2,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_reports_what_happened() {
    let server = Server::start().await;
    let plan = plan(&server);
    let report = loadtest::run::run(&plan, |_| {}, std::future::pending()).await.unwrap();
    assert!(report.integrity, "{}", report.to_table());
    assert_eq!((report.viewers_intact, report.publishers_connected), (5, 1));
    assert!(report.latency_ms.unwrap().p50 < 100.0);
    assert!(report.server.unwrap().resident_bytes > 0);
    let table = report.to_table();
    for word in ["delivered", "one-way latency", "integrity: held", "per forwarded packet"] {
        assert!(table.contains(word), "{table}");
    }
    assert!(serde_json::to_value(&report).unwrap()["integrity"].as_bool().unwrap());
    assert_eq!((report.joins.len(), report.phases.len()), (5, 1));
    assert!(report.generator.as_ref().unwrap().cpu_seconds > 0.0);
    // As many samples as fit, and between them they have all that the phase has.
    assert!(report.series.len() >= 4);
    let page = report.to_html();
    for word in ["<svg", "One-way latency", "Join times", "integrity: held", "one packet"] {
        assert_eq!(page.contains(word), word != "one packet", "{word}");
    }
    for elsewhere in ["src=", "href=", "@import", "url(", "<script", "NaN"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }

    server.reflector.faults.corrupt.store(true, Ordering::Relaxed);
    let report = loadtest::run::run(&plan, |_| {}, std::future::pending()).await.unwrap();
    assert!(!report.integrity && report.video.corrupt > 0);
}

async fn play(plan: Plan, scenario: Scenario) -> loadtest::report::Report {
    let campaign = Campaign { plan, mix: Vec::new(), scenario };
    campaign.run(|_| {}, std::future::pending()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_tells_what_it_did_to_those_who_stood_before() {
    let server = Server::start().await;
    let standing = Plan { viewers: 2, rate: None, ..plan(&server) };
    let storm = |leave| Scenario::Storm { joins: 8, calm: Duration::from_millis(500), leave };
    let storm_of_visits = storm(true);
    let report = play(standing.clone(), storm(false)).await;
    assert!(report.passed && report.integrity, "{}", report.to_table());
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["before the storm", "storm", "after the storm"]);
    assert!(report.phases.iter().all(|phase| phase.latency_ms.is_some()));
    // Joins count when they happen: nobody receives in one interval the packets of several.
    let busiest = report.series.iter().map(|sample| sample.packets_per_second).fold(0.0, f64::max);
    assert!(busiest < 10_000.0, "10 viewers of a Mbit/s and 50 audio packets: {busiest}");
    assert_eq!((report.phases[0].viewers, report.phases[2].viewers), (2, 10));
    let Outcome::Storm(storm) = &report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!((storm.joined, storm.standing_lost, report.joins.len()), (8, 0, 8));
    assert!(storm.p99_ratio.is_some() && storm.p99_ratio_after.is_some() && report.connect_ms.unwrap().count == 8);
    assert!(report.to_table().contains("8 of 8 joined"), "{}", report.to_table());

    // Those who leave with their first packet are gone before the storm is over.
    let report = play(standing, storm_of_visits).await;
    assert!(report.passed && report.integrity, "{}", report.to_table());
    assert_eq!((report.phases[1].viewers, report.joins.len(), report.viewers_connected), (2, 8, 10));
    assert_eq!(report.first_rtp_ms.unwrap().count, 8);
    assert_eq!(server.reflector.sessions.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_reaches_the_servers_media_port_and_is_counted() {
    let server = Server::start().await;
    let plan = Plan { viewers: 2, rate: None, ..plan(&server) };
    let report = play(plan, Scenario::Run { garbage: Some(2000), returns_with: None }).await;
    assert!(report.passed, "{}", report.to_table());
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["steady", "garbage"]);
    let Outcome::Run(Some(garbage)) = &report.outcome else { panic!("{:?}", report.outcome) };
    assert!(garbage.sent > 0 && garbage.per_second < 2500.0, "{garbage:?}");
    assert!(report.to_table().contains("datagrams"), "{}", report.to_table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_on_narrow_paths_lose_and_the_others_are_compared_without_and_with_them() {
    let server = Server::start().await;
    let plan = Plan { viewers: 3, rate: None, ..plan(&server) };
    // The reflector adapts to nothing: what is too much fills the path's queue, and what one asks for again all get.
    let report = play(plan, Scenario::Narrow { narrow: 2, share: 0.5, loss: 2.0 }).await;
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["without narrow paths", "beside narrow paths", "without them again"]);
    assert_eq!(report.phases.iter().map(|phase| phase.viewers).collect::<Vec<_>>(), [3, 5, 3]);
    assert_eq!((report.viewers, report.viewers_connected, report.joins.len()), (3, 3, 3));
    let Outcome::Narrow(Some(figures)) = &report.outcome else { panic!("{:?}", report.outcome) };
    let ratios = [figures.p50_ratio, figures.p50_ratio_after, figures.p99_ratio, figures.p99_ratio_after];
    assert!(ratios.iter().all(|ratio| ratio.is_some_and(|ratio| ratio > 0.0)), "{figures:?}");
    assert_eq!((figures.viewers, figures.standing_lost), (2, 0), "{figures:?}");
    assert!(figures.path.dropped_by_queue > 0 && figures.path.lost > 0, "{figures:?}");
    assert!(figures.narrow.delivered > 100 && figures.narrow.lost > 0, "{figures:?}");
    assert!(report.to_table().contains("narrow: 2 viewers with 5"), "{}", report.to_table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_knee_is_the_last_step_before_too_much() {
    let server = Server::start().await;
    let steps = Plan { viewers: 2, rate: None, duration: Duration::from_millis(300), ..plan(&server) };
    let knee = |max_p99_ms| Scenario::Knee { step: 2, max_viewers: 5, max_loss: 0.001, max_p99_ms };
    let report = play(steps.clone(), knee(1e6)).await;
    let Outcome::Knee(figures) = &report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(figures.last_good.as_ref().unwrap().viewers, 5);
    assert!(report.passed && figures.first_bad.is_none() && report.phases.len() == 3, "{}", report.to_table());

    let report = play(steps, knee(0.0)).await;
    let Outcome::Knee(figures) = &report.outcome else { panic!("{:?}", report.outcome) };
    assert!(!report.passed && figures.last_good.is_none(), "{}", report.to_table());
    assert!(figures.reason.as_ref().unwrap().contains("p99") && report.phases.len() == 2, "measured twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_tells_what_was_left_behind() {
    let server = Server::start().await;
    let soak = |settle| {
        Scenario::Soak(SoakOptions {
            churn: 20.0,
            restart: Some(Duration::from_millis(400)),
            settle,
            sessions_url: Some(format!("{}/sessions", server.base)),
            ..SoakOptions::default()
        })
    };
    let plan = Plan { viewers: 3, server_pid: None, duration: Duration::from_secs(3), ..plan(&server) };
    let report = play(plan.clone(), soak(Duration::from_millis(50))).await;
    let Outcome::Soak(leaks) = report.outcome.clone() else { panic!("{:?}", report.outcome) };
    assert!(report.passed, "{}", report.to_table());
    assert!(leaks.joins > 10 && leaks.restarts >= 1, "{leaks:?}");
    assert_eq!((leaks.before.sessions, leaks.after.sessions), (Some(0), Some(0)));

    // A server that forgets no session.
    server.reflector.faults.forgetful.store(true, Ordering::Relaxed);
    let report = play(plan, soak(Duration::ZERO)).await;
    assert!(!report.passed && report.to_table().contains("LEAK: sessions grew"), "{}", report.to_table());
}

/// 3 if the machine was so busy that the load test does not vouch for what it measured.
fn failed(status: Option<i32>) -> bool {
    matches!(status, Some(1 | 3))
}

/// Runs the binary; its exit status, standard output and standard error.
async fn cli(arguments: Vec<String>) -> (Option<i32>, String, String) {
    let run = move || std::process::Command::new(env!("CARGO_BIN_EXE_sluice-loadtest")).args(arguments).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_status_says_whether_integrity_held() {
    let server = Server::start().await;
    let arguments = |extra: &[&str]| {
        let (whip, whep) = (format!("{}/whip/s{{i}}", server.base), format!("{}/whep/s{{i}}", server.base));
        let common = ["run", "--whip", &whip, "--whep", &whep, "--seconds", "0.5", "--viewers", "2", "--video", "h264"];
        common.iter().chain(extra).map(|argument| argument.to_string()).collect::<Vec<_>>()
    };
    let (status, table, errors) = cli(arguments(&[])).await;
    assert_eq!(status, Some(0), "{table}{errors}");
    assert!(table.contains("integrity: held") && errors.is_empty(), "{table}{errors}");

    let (status, json, _) = cli(arguments(&["--json", "-", "--audio", "false"])).await;
    assert_eq!(status, Some(0), "{json}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((report["integrity"].as_bool(), report["viewers_intact"].as_u64()), (Some(true), Some(2)));
    assert_eq!(report["audio"]["delivered"], 0);

    let page = std::env::temp_dir().join(format!("loadtest-{}.html", std::process::id()));
    let mixed = ["--publishers", "3", "--bitrate", "300,900,600", "--packet-size", "500,1100", "--html"];
    let (status, table, _) = cli(arguments(&[&mixed[..], &[page.to_str().unwrap()]].concat())).await;
    let html = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_file(&page).unwrap();
    // The reflector gives every viewer all streams, which is not what was asked for.
    assert!(failed(status), "{table}");
    for words in ["H264 300 kbit/s", "H264 900 kbit/s", "up to 500 bytes", "one packet in 16", "Failed."] {
        assert!(html.contains(words), "{words}");
    }

    server.reflector.faults.corrupt.store(true, Ordering::Relaxed);
    let (status, table, _) = cli(arguments(&[])).await;
    assert!(failed(status), "{table}");
    assert!(table.contains("integrity: BROKEN"), "{table}");
}

#[tokio::test]
async fn a_command_line_without_sense_is_a_usage_error() {
    for arguments in [
        &["run"][..],
        &["run", "--whip", "http://h/a", "--video", "none", "--audio", "false"],
        &["run", "--whip", "http://h/a", "--seconds", "-1"],
        &["run", "--packet-size", "9000"],
        &["run", "--whip", "http://h/a", "--bitrate", "500,1000"],
        &["run", "--whip", "http://h/a", "--keyframe-factor", "0.5"],
        &["run", "--whip", "http://h/a", "--server-pid", "4294967295"],
        &["run", "--whip", "http://h/a", "--garbage", "1000"],
        &["storm", "--whip", "http://h/a"],
        &["narrow", "--whep", "http://h/a", "--narrow", "0"],
        &["narrow", "--whep", "http://h/a", "--share", "0"],
        &["knee", "--whep", "http://h/a", "--step", "0"],
        &["soak", "--whep", "http://h/a", "--churn", "0"],
        &["walk"],
    ] {
        let (status, _, errors) = cli(arguments.iter().map(|argument| argument.to_string()).collect()).await;
        assert_eq!(status, Some(2), "{arguments:?}: {errors}");
        assert!(!errors.is_empty());
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_reported() {
    let url = "http://127.0.0.1:9/whip/a".to_owned();
    let (status, table, _) = cli(vec!["run".into(), "--whip".into(), url, "--seconds".into(), "0".into()]).await;
    assert!(failed(status), "{table}");
    assert!(table.contains("error, 1 times: HTTP"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_vanish_in_a_soak_are_left_behind_at_a_server_that_waits_for_ever() {
    let server = Server::start().await;
    let options = SoakOptions {
        churn: 10.0,
        settle: Duration::from_millis(50),
        sessions_url: Some(format!("{}/sessions", server.base)),
        vanish: 1.0,
        ..SoakOptions::default()
    };
    let plan = Plan { viewers: 3, server_pid: None, duration: Duration::from_secs(3), ..plan(&server) };
    let report = play(plan, Scenario::Soak(options)).await;
    let Outcome::Soak(leaks) = &report.outcome else { panic!("{:?}", report.outcome) };
    assert!(leaks.vanished > 2 && !report.passed, "{}", report.to_table());
    assert_eq!(leaks.after.sessions, Some(leaks.vanished), "{}", report.to_table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attack_tells_what_was_sent_and_what_it_cost_the_viewers() {
    let server = Server::start().await;
    let options = AttackOptions {
        attacks: vec![Attack::Noise, Attack::SilentConnections, Attack::Tokens, Attack::Admin],
        datagrams: 1000,
        requests: 50,
        each: Duration::from_millis(800),
        ..AttackOptions::default()
    };
    let report = play(Plan { viewers: 2, rate: None, ..plan(&server) }, Scenario::Attack(options)).await;
    let Outcome::Attack(figures) = &report.outcome else { panic!("{:?}", report.outcome) };
    let [noise, silent, tokens, admin] = &figures.attacks[..] else { panic!("{figures:?}") };
    assert!(noise.counts.datagrams > 100 && noise.counts.datagram_bytes > noise.counts.datagrams, "{noise:?}");
    assert!(silent.counts.connections > 5 && silent.counts.requests == 0, "{silent:?}");
    assert!(tokens.counts.requests > 5 && tokens.counts.answers.values().sum::<u64>() > 5, "{tokens:?}");
    assert_eq!(admin.not_done.as_deref(), Some("it needs --admin"));
    assert!(figures.attacks.iter().all(|row| row.sessions_lost == 0 && row.packets_lost == 0), "{figures:?}");
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["quiet", "noise", "silent-connections", "tokens"]);
    assert!(noise.newcomer_ms.is_some() && noise.server.is_some() && noise.p99_ratio.is_some(), "{noise:?}");
    assert!(report.to_table().contains("silent-connections") && report.to_html().contains("<h2>Attacks</h2>"));
}
