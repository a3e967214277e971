//! The configuration is read again while the server runs: all of it counts, or nothing has changed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use loadtest::client::{ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions};
use serde_json::Value;

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// A folder of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-reload-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(config: &Path) -> Sluice {
    Sluice::start(&["--config", config.to_str().unwrap()]).await
}

/// Publishes with a token.
async fn publish(server: &Sluice, stream: &str, token: &str) -> Result<Publisher, ClientError> {
    let options = ClientOptions::default();
    let identity = Identity::new(&options).unwrap();
    let endpoint = Endpoint { token: Some(token.to_owned()), ..server.endpoint(&format!("whip/{stream}")) };
    Publisher::start(&endpoint, &identity, PublisherOptions::default(), options).await
}

fn status(result: Result<Publisher, ClientError>) -> u16 {
    match result.err() {
        Some(ClientError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

/// POST /api/v1/reload
async fn reload(server: &Sluice) -> (u16, Value) {
    let reply = server.http.post(format!("{}/api/v1/reload", server.admin)).send().await.unwrap();
    (reply.status().as_u16(), serde_json::from_str(&reply.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn sighup_changes_the_tokens_and_sessions_go_on() {
    let folder = Folder::new();
    let tokens = folder.write("tokens", "s=first\n");
    let config = folder.write("sluice.toml", &format!("token_file = {tokens:?}\n"));
    let server = start(&config).await;
    let publisher = publish(&server, "s", "first").await.unwrap();
    publisher.connected().await.unwrap();
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    folder.write("tokens", "s=second\nt=third\n");
    server.signal("HUP");
    eventually("the configuration was read again", LONG, async || {
        (server.metric("sluice_config_reloads_total", &[("result", "success")]).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(status(publish(&server, "s", "first").await), 401);
    let other = publish(&server, "t", "third").await.unwrap();
    other.connected().await.unwrap();
    let seen = viewer.figures().video.keyframes;
    viewer_sees("more media", &viewer, LONG, |figures| figures.video.keyframes > seen).await;
    assert!(viewer.figures().is_intact() && publisher.failure().is_none());
    assert_eq!(server.metric("sluice_config_last_reload_successful", &[]).await, 1.0);
}

#[tokio::test]
async fn limits_timeouts_addresses_and_log_level_count_at_once_and_what_needs_a_restart_is_named() {
    let folder = Folder::new();
    let config = folder.write("sluice.toml", "");
    // What a flag says wins over the file, also later.
    let server = start(&config).await;
    let text = "max_sessions = 1\nice_timeout = \"1s\"\nlog = \"debug\"\nhandshake_threads = 2\nhttp_listen = \"127.0.0.1:1\"\n";
    folder.write("sluice.toml", text);
    let (status, report) = reload(&server).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["applied"], serde_json::json!(["max_sessions", "ice_timeout", "log"]), "{report}");
    assert_eq!(report["needs_restart"], serde_json::json!(["handshake_threads"]), "{report}");
    let idle = ClientOptions { send_checks: false, connect_timeout: LONG, ..ClientOptions::default() };
    let _publisher = server.post_publisher("s", PublisherOptions::default(), idle).await.unwrap();
    let refused = server.post_publisher("t", PublisherOptions::default(), ClientOptions::default()).await;
    assert!(matches!(refused.err(), Some(ClientError::Refused { status: 503, .. })));
    eventually("the session ends by the new timeout", LONG, async || {
        (server.session("s", "publisher").await["reason"] == "no-valid-check").then_some(())
    })
    .await;
    let find = async |is_it: fn(&Value) -> bool| {
        eventually("the line", LONG, async || server.log().into_iter().find(is_it)).await
    };
    find(|entry| entry["level"] == "DEBUG").await;
    let said = find(|entry| entry["message"] == "configuration read again").await;
    assert_eq!((&said["needs_restart"], &said["cause"]), (&"handshake_threads".into(), &"the admin API".into()));
    assert_eq!(reload(&server).await.1["applied"], serde_json::json!([]), "nothing has changed since");
}

#[tokio::test]
async fn a_wrong_configuration_is_answered_with_key_and_value_and_changes_nothing() {
    let folder = Folder::new();
    let tokens = folder.write("tokens", "*=good\n");
    let config = folder.write("sluice.toml", &format!("token_file = {tokens:?}\nmax_sessions = 10\n"));
    let server = start(&config).await;
    for (text, said) in [
        ("max_sessions = 2\nice = \"half\"\n".to_owned(), "ice: bad value \"half\""),
        ("max_sessions = 2\nsessions = 3\n".to_owned(), "unknown key sessions"),
        ("max_sessions = 0\n".to_owned(), "max_sessions: bad value 0"),
        (format!("max_sessions = 2\ntoken_file = {:?}\n", folder.0.join("none")), "token_file: cannot read"),
        (
            "max_sessions = 2\nopen = true\ntoken = [\"*=x\"]\n".to_owned(),
            "open: true, and tokens, JWT keys or a webhook are configured",
        ),
    ] {
        folder.write("sluice.toml", &text);
        let (status, problem) = reload(&server).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("invalid-configuration")), "{text}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        assert_eq!(server.metric("sluice_config_last_reload_successful", &[]).await, 0.0);
        eventually("the log says so, too", LONG, async || {
            let is_said = |entry: &Value| entry["level"] == "WARN" && entry["error"].to_string().contains(&said[..10]);
            server.log().iter().any(is_said).then_some(())
        })
        .await;
    }
    assert_eq!(server.metric("sluice_config_reloads_total", &[("result", "failure")]).await, 5.0);
    // More than two sessions, with the token of before.
    for stream in ["a", "b", "c"] {
        publish(&server, stream, "good").await.unwrap();
    }
    assert_eq!(status(publish(&server, "d", "x").await), 401);
}
