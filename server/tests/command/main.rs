//! The command `sluice` as an operator meets it.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn sluice(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SLUICE_")) {
            command.env_remove(name);
        }
    }
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = sluice(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn help_and_version_are_answers_and_no_errors() {
    let (code, out, err) = run(&["--version"]);
    assert_eq!((code, out.trim(), err.as_str()), (Some(0), concat!("sluice ", env!("CARGO_PKG_VERSION")), ""));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("--http-listen <ADDR:PORT>") && out.contains("[default: 127.0.0.1:8080]"), "{out}");
}

#[test]
fn a_wrong_configuration_ends_with_code_2_and_says_what_is_allowed() {
    for (args, text) in [
        (vec!["--ice", "half"], "allowed: lite or full"),
        (vec!["--listen", "1"], "--listen"),
        (vec!["--config", "/nonexistent/sluice.toml"], "cannot read the configuration /nonexistent/sluice.toml"),
        (vec!["--http-listen", "0.0.0.0:8080"], "--open"),
        // F-14
        (vec!["--public-ip", "name.invalid"], "public_ip: name.invalid cannot be looked up"),
        (vec!["--public-ip", "fe80::1"], "public_ip: fe80::1 is link-local"),
        (vec!["--public-ip", "203.0.113.7:0"], "clients cannot send to port 0"),
        // Nobody answers at the port of "discard".
        (
            vec!["--public-ip", "auto:stun:127.0.0.1:9"],
            "public_ip: no IPv4 address from auto:stun:127.0.0.1:9 (127.0.0.1:9): its port is closed",
        ),
        (vec!["--public-ip", "auto:turn:a.example"], "neither an address nor a host name"),
    ] {
        let (code, out, err) = run(&args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        assert!(err.starts_with("sluice: ") && err.contains(text), "{args:?}: {err}");
    }
    let output = sluice(&[]).env("SLUICE_TYPO", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn check_config_shows_what_counts_and_stops() {
    let (code, out, _) = run(&["--check-config", "--media-port", "41000", "--token", "*=hunter2"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("media_port = 41000") && out.contains("# flag"), "{out}");
    assert!(!out.contains("hunter2"), "{out}");
}

#[test]
fn a_reader_that_closes_the_pipe_early_is_no_error() {
    for arg in ["--check-config", "--help", "--version"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let Output { status, stderr, .. } = sluice(&[arg]).stdout(writer).output().unwrap();
        assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""), "{arg}");
    }
}

#[test]
fn an_address_in_use_is_named_with_the_setting_to_change() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    for (flag, key) in [("--http-listen", "http_listen"), ("--admin-listen", "admin_listen")] {
        let other = if flag == "--http-listen" { "--admin-listen" } else { "--http-listen" };
        let (code, _, err) = run(&[flag, &address, other, "127.0.0.1:0"]);
        assert_eq!(code, Some(1));
        assert!(err.contains(&format!("cannot listen on {key} {address}")) && err.contains(flag), "{err}");
    }
}

// OPS-06
#[test]
fn a_started_server_says_where_it_is_and_stops_in_order_on_sigterm() {
    let args =
        ["--http-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--media-port", "0", "--log-format", "json"];
    let mut child = sluice(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(ready["message"], "sluice is ready");
    assert!(ready["pages"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
    assert!(ready["candidates"].as_str().unwrap().contains("127.0.0.1:"), "{ready}");

    let began = Instant::now();
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let last = lines.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{last}");
    assert!(last.contains("\"stopped\""), "{last}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
