//! The load test against a small server of its own.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used)]

mod clients;
mod scenarios;
mod server;

use std::time::Duration;

use loadtest::client::ClientOptions;

/// A client that gives up soon.
fn short() -> ClientOptions {
    ClientOptions { connect_timeout: Duration::from_secs(2), ..ClientOptions::default() }
}
