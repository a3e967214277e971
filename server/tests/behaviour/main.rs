//! What the server does, seen from outside: the real binary, real clients, and its own admin API, metrics and log.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

mod access;
mod addresses;
mod clients;
mod codecs;
mod congestion;
mod connections;
mod ice_restart;
mod impaired;
mod keyframes;
mod leaks;
mod ledger;
mod ledger_ends;
mod ledger_media;
mod life;
mod limits;
mod logging;
mod loss;
mod paths;
mod privileges;
mod raw;
mod reload;
mod service_manager;
mod shutdown;
mod supervision;
#[path = "../support/mod.rs"]
mod support;
mod tcp;
mod time;
mod waiting;
