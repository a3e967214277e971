//! `/whip/{stream}/{secret}` and `/whep/{stream}/{secret}`: a session, and its ledger under `stages`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ALLOW, CACHE_CONTROL};
use http::request::Parts;
use media_core::ledger::Reason;

use crate::config::SignalingConfig;
use crate::extract::SessionUrl;
use crate::problem::{Problem, Slug};
use crate::request::SDPFRAG;
use crate::state::RouterState;

/// While PATCH is of some use.
pub(crate) const METHODS: &str = "OPTIONS, GET, HEAD, PATCH, DELETE";
const METHODS_WITHOUT_PATCH: &str = "OPTIONS, GET, HEAD, DELETE";
const STAGES_METHODS: &str = "OPTIONS, GET, HEAD";

/// OPTIONS, with or without the headers of a preflight.
pub(crate) async fn options(State(state): State<RouterState>, _: SessionUrl) -> Response {
    let config = state.signaling.config();
    (config.takes_fragments().then(|| [SDPFRAG.accept()]), [(ALLOW, methods(&config))]).into_response()
}

/// Those of a session: without trickle and ICE restarts there is nothing to PATCH (WHIP-16).
pub(crate) fn methods(config: &SignalingConfig) -> &'static str {
    if config.takes_fragments() { METHODS } else { METHODS_WITHOUT_PATCH }
}

/// GET and HEAD: whether it lives.
pub(crate) async fn get(session: SessionUrl) -> Result<StatusCode, Problem> {
    session.live().map(|_| StatusCode::NO_CONTENT)
}

/// DELETE. A session that ended by itself is deleted all the same (WHIP-15).
pub(crate) async fn delete(
    State(state): State<RouterState>,
    session: SessionUrl,
    parts: Parts,
) -> Result<StatusCode, Problem> {
    session.admit(&state, &parts).await?;
    state.signaling.close(session.id(), Reason::Deleted);
    Ok(StatusCode::OK)
}

/// Every method but these and PATCH.
pub(crate) async fn method_not_allowed(State(state): State<RouterState>, _: SessionUrl) -> Problem {
    Problem::method_not_allowed(methods(&state.signaling.config()))
}

/// OPTIONS of the ledger.
pub(crate) async fn stages_options(_: SessionUrl) -> Response {
    [(ALLOW, STAGES_METHODS)].into_response()
}

/// The ledger, for the page that holds the URL. It outlives the session by the tombstone's time, so that the page can tell
/// why it ended.
pub(crate) async fn stages(
    State(state): State<RouterState>,
    session: SessionUrl,
    parts: Parts,
) -> Result<Response, Problem> {
    session.authorize(&state, &parts).await?;
    let view = state.signaling.registry.session(session.id());
    let view = view.ok_or_else(|| Problem::new(Slug::NotFound, "no such session"))?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

/// Every other method on the ledger.
pub(crate) async fn stages_method_not_allowed(_: SessionUrl) -> Problem {
    Problem::method_not_allowed(STAGES_METHODS)
}
