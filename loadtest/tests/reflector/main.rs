//! The load test against a small server of its own.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used)]

mod clients;
mod scenarios;
mod server;

use std::time::Duration;

use loadtest::client::ClientOptions;

/// A client that gives up soon, but not before a server believes what ends a handshake and may be forged: after 2 s.
fn short() -> ClientOptions {
    ClientOptions { connect_timeout: Duration::from_secs(5), ..ClientOptions::default() }
}
