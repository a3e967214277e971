//! `/whip/{stream}` and `/whep/{stream}`: everything but POST, which is [`crate::whip`]'s and [`crate::whep`]'s.

use std::time::SystemTime;

use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse, Response};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LINK, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use media_core::SessionId;
use media_core::media::Role;

use crate::client_address::ClientAddress;
use crate::extract::StreamName;
use crate::problem::Problem;
use crate::random;
use crate::request::SDP;
use crate::site::Site;
use crate::state::RouterState;

const METHODS: &str = "OPTIONS, GET, HEAD, POST";

/// OPTIONS. Without the headers of a preflight it has the ICE servers, for clients that cannot take them from the 201 (WHIP-24);
/// those that ask for credentials only for who may open a session.
pub(crate) async fn options(
    State(state): State<RouterState>,
    StreamName(stream): StreamName,
    parts: Parts,
) -> Result<Response, Problem> {
    // A page that may not use the server can read the reply, to learn why.
    let refusal = state.signaling.config().allowed_origins.refusal(&Site::read(&parts.uri, &parts.headers));
    let links = match is_preflight(&parts.headers) || refusal.is_some() {
        true => Vec::new(),
        false => ice_servers(&state, &stream, &parts).await?,
    };
    let links = AppendHeaders(links.into_iter().map(|link| (LINK, link)));
    Ok(([(ALLOW, METHODS), (CACHE_CONTROL, "no-store")], [SDP.accept()], links).into_response())
}

/// A question that a browser asks by itself, without the page's token (Fetch standard).
fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

async fn ice_servers(state: &RouterState, stream: &str, parts: &Parts) -> Result<Vec<HeaderValue>, Problem> {
    let servers = &state.signaling.config().ice_servers;
    // Nobody's session: the number only keeps credentials apart.
    let id = SessionId(random::number()?);
    if !servers.has_credentials() || !state.may_open(stream, parts, id).await {
        return Ok(servers.open_links());
    }
    state.signaling.take_look(ClientAddress::of(&parts.extensions))?;
    Ok(servers.links(id, SystemTime::now()))
}

/// GET and HEAD. By the media type a player recognises a WHEP URL (HTTP-04).
pub(crate) async fn get(State(state): State<RouterState>, _: StreamName) -> Response {
    let length = [(CONTENT_LENGTH, "0")];
    match state.role {
        Role::Publisher => length.into_response(),
        Role::Viewer => (length, [(CONTENT_TYPE, SDP.name)]).into_response(),
    }
}

/// Every other method.
pub(crate) async fn method_not_allowed(_: StreamName) -> Problem {
    Problem::method_not_allowed(METHODS)
}
