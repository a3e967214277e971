//! `/whip/{stream}` and `/whep/{stream}`: everything but POST, which is [`crate::whip`]'s and [`crate::whep`]'s.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use media_core::media::Role;

use crate::extract::StreamName;
use crate::problem::Problem;
use crate::request::SDP;
use crate::state::RouterState;

const METHODS: &str = "OPTIONS, GET, HEAD, POST";

/// OPTIONS, with or without the headers of a preflight.
pub(crate) async fn options(_: StreamName) -> Response {
    ([(ALLOW, METHODS)], [SDP.accept()]).into_response()
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
