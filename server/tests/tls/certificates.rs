//! The certificate: from files, read again, wrong, and near its end.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clients::start;
use crate::support::{LONG, Sluice, eventually};
use crate::{A_MONTH, Folder, authority, shown};

async fn reloads(server: &Sluice, result: &str) -> f64 {
    server.metric("sluice_config_reloads_total", &[("result", result)]).await
}

async fn expiry(server: &Sluice) -> f64 {
    server.metric("sluice_tls_certificate_expiry_timestamp_seconds", &[]).await
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn a_new_pair_counts_after_sighup_and_its_expiry_is_a_metric() {
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let (address, first) = (authority(&server.base).to_owned(), folder.identity());
    assert_eq!(shown(&address, &[]).await, first.fingerprint());
    assert_eq!(expiry(&server).await, seconds(first.expires()));
    let second = folder.write_pair(2 * A_MONTH);
    assert_eq!(shown(&address, &[]).await, first.fingerprint(), "nobody said so yet");
    server.signal("HUP");
    eventually("the pair was read again", LONG, async || (reloads(&server, "success").await == 1.0).then_some(()))
        .await;
    assert_eq!(shown(&address, &[]).await, second);
    assert_eq!(expiry(&server).await, seconds(folder.identity().expires()));
}

#[tokio::test]
async fn a_wrong_pair_is_refused_on_a_reload_while_the_former_one_is_shown() {
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let (address, good) = (authority(&server.base).to_owned(), folder.identity());
    let key = std::fs::read(folder.path("key.pem")).unwrap();
    folder.write_pair(A_MONTH);
    folder.write("key.pem", &key);
    let reply = server.http.post(format!("{}/api/v1/reload", server.admin)).send().await.unwrap();
    assert_eq!(reply.status(), 422);
    let problem: serde_json::Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("tls_key: ") && detail.contains("not the key of the first certificate"), "{detail}");
    assert!(detail.contains("allowed: "), "{detail}");
    assert_eq!(reloads(&server, "failure").await, 1.0);
    assert_eq!(shown(&address, &[]).await, good.fingerprint());
    assert_eq!(expiry(&server).await, seconds(good.expires()));
}

#[test]
fn a_wrong_pair_stops_the_start_with_key_value_and_what_is_allowed() {
    let folder = Folder::new();
    folder.write_pair(A_MONTH);
    let (certificate, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let empty = folder.write("empty.pem", b"");
    for (certificate, key, text) in [
        (&certificate, &certificate, format!("tls_key: {certificate}: has no private key\n  allowed: a readable PEM")),
        (&key, &key, format!("tls_cert: {key}: has no certificate\n  allowed: a readable PEM")),
        (&empty, &key, format!("tls_cert: {empty}: has no certificate\n  allowed: ")),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(["--http-listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&text), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_near_its_end_is_said_in_the_log() {
    let folder = Folder::new();
    folder.write_pair(Duration::from_secs(2 * 86_400 + 3600));
    let pair = folder.pair();
    let server = Sluice::start(&pair.each_ref().map(String::as_str)).await;
    let warned = server.log().into_iter().any(|entry| {
        entry["message"].as_str().is_some_and(|text| text.contains("the TLS certificate expires in 2 days"))
    });
    assert!(warned, "{:?}", server.log());
}
