//! What stands in `deploy/` agrees with the code.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use server::config::load::{Source, load};
use server::config::{SETTINGS, Settings, render};
use server::metrics::Metrics;

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// Compares a file with what the code says; `UPDATE=1` writes it.
fn assert_current(file: &str, expected: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(deploy(file), expected).unwrap();
    }
    let found = fs::read_to_string(deploy(file)).unwrap();
    assert!(found == expected, "deploy/{file} is not what the code says: UPDATE=1 cargo test -p server --test deploy");
}

#[test]
fn the_reference_configuration_has_every_key_with_its_default() {
    assert_current("sluice.toml", &render::reference());
    let args = ["sluice".into(), "--config".into(), deploy("sluice.toml").into_os_string()];
    let loaded = load(args, Vec::<(OsString, OsString)>::new()).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    for info in SETTINGS {
        assert_eq!(loaded.source(info.key), Source::File, "{}", info.key);
    }
}

#[test]
fn the_table_of_settings_is_the_one_of_the_code() {
    assert_current("configuration.md", &render::document());
}

#[test]
fn the_effective_configuration_can_be_read_again_and_hides_tokens() {
    let args = ["sluice", "--shards", "3", "--token", "cam=hunter2", "--ice-timeout", "1500ms"].map(OsString::from);
    let loaded = load(args, [(OsString::from("SLUICE_ICE"), OsString::from("full"))]).unwrap();
    let text = render::effective(&loaded);
    assert!(!text.contains("hunter2"), "{text}");
    for line in ["shards = 3 # flag", "ice = \"full\" # environment", "media_port = 50000 # default"] {
        let found = text.lines().any(|found| found.split_whitespace().eq(line.split_whitespace()));
        assert!(found, "{line} in\n{text}");
    }
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table.len(), SETTINGS.len());
    assert_eq!(table["ice_timeout"].as_str(), Some("1500ms"));
}

/// All words of an expression that begin with `sluice_` or `process_`.
fn metric_names(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("sluice_") || word.starts_with("process_"))
}

fn assert_metrics_exist(expression: &str, known: &BTreeSet<String>) {
    let mut any = false;
    for name in metric_names(expression) {
        assert!(known.contains(name), "{name} in `{expression}` is no metric of Sluice");
        any = true;
    }
    assert!(any, "`{expression}` names no metric");
}

fn known_metrics() -> BTreeSet<String> {
    let metrics = Metrics::new().unwrap();
    let histograms = ["sluice_session_seconds", "sluice_session_stage_seconds"];
    let mut known = BTreeSet::new();
    for name in metrics.names() {
        if histograms.contains(&name.as_str()) {
            known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        } else {
            known.insert(name.clone());
        }
    }
    known
}

/// Every string under a key `expr` or `query`, wherever it stands.
fn expressions<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(members) => {
            for (key, value) in members {
                match value.as_str() {
                    Some(text) if key == "expr" => found.push(text),
                    _ => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_names_only_metrics_that_exist() {
    let text = fs::read_to_string(deploy("grafana/sluice.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 10);
    let known = known_metrics();
    found.iter().for_each(|expression| assert_metrics_exist(expression, &known));
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels {}", panel["id"]);
        assert!(panel["description"].is_string() || panel["type"] == "row", "{}", panel["title"]);
    }
}

#[test]
fn the_alerts_name_only_metrics_that_exist() {
    let text = fs::read_to_string(deploy("alerts.yml")).unwrap();
    let known = known_metrics();
    let found: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(found.len() >= 5);
    found.iter().filter(|expression| !expression.contains("up{")).for_each(|found| assert_metrics_exist(found, &known));
}

#[test]
fn files_of_deploy_use_settings_that_exist() {
    for file in ["Dockerfile", "compose.yaml", "sluice.service"] {
        let text = fs::read_to_string(deploy(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("SLUICE_")) {
            assert!(word == "SLUICE_CONFIG" || SETTINGS.iter().any(|info| info.env == word), "{word} in {file}");
        }
    }
}
