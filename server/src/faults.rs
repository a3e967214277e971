//! Faults that tests let the running server have. No release has this.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use http::StatusCode;
use media_core::{CoreThread, Fault, MediaCore};

/// A program that tests have built may be run by others: it has the faults only where its environment says so.
const ALLOWED_BY: &str = "FAULT_INJECTION";

/// `POST /api/v1/faults/{thread}/{number}/{fault}`
pub(crate) fn router(core: MediaCore) -> Router {
    if std::env::var_os(ALLOWED_BY).is_none() {
        return Router::new();
    }
    Router::new().route("/api/v1/faults/{thread}/{number}/{fault}", post(inject)).with_state(core)
}

async fn inject(
    State(core): State<MediaCore>,
    Path((thread, number, fault)): Path<(String, usize, String)>,
) -> StatusCode {
    let thread = match thread.as_str() {
        "shard" => CoreThread::Shard(number),
        "handshake-thread" => CoreThread::Handshake(number),
        _ => return StatusCode::NOT_FOUND,
    };
    match fault.parse::<Fault>() {
        Ok(fault) => core.inject(thread, fault),
        Err(_) => return StatusCode::NOT_FOUND,
    }
    StatusCode::NO_CONTENT
}
