//! The three resources of each side: endpoint, session, and the session's ledger.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use media_core::ledger::Reason;
use media_core::media::Role;
use media_core::session::SessionId;

use super::{ENDPOINT_METHODS, SDP, SDPFRAG, SESSION_METHODS, STAGES_METHODS, authorize, empty};
use crate::auth::is_stream_name;
use crate::problem::{Problem, Slug};
use crate::registry::Found;
use crate::service::Signaling;
use crate::{trickle, whep, whip};

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
pub(crate) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// `/whip/{stream}` or `/whep/{stream}`.
pub(super) async fn endpoint(
    signaling: &Signaling,
    role: Role,
    stream: &str,
    request: Request,
) -> Result<Response, Problem> {
    if !is_stream_name(stream) {
        return Err(Problem::new(Slug::NotFound, "a stream name is 1 to 128 of A-Z a-z 0-9 . _ ~ - :"));
    }
    match *request.method() {
        Method::OPTIONS => {
            let mut response = empty(StatusCode::OK);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(ENDPOINT_METHODS));
            response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(SDP));
            Ok(response)
        }
        Method::GET | Method::HEAD => {
            let mut response = empty(StatusCode::OK);
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            if role == Role::Viewer {
                // By this a player recognises a WHEP URL (HTTP-04).
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
            }
            Ok(response)
        }
        Method::POST => {
            let identity = authorize(signaling, role, stream, request.headers())?;
            match role {
                Role::Publisher => whip::post(signaling, stream, identity, request).await,
                Role::Viewer => whep::post(signaling, stream, identity, request).await,
            }
        }
        _ => Err(Problem::method_not_allowed(ENDPOINT_METHODS)),
    }
}

/// `/whip/{stream}/{secret}` or its WHEP twin.
pub(super) async fn session(
    signaling: &Signaling,
    role: Role,
    stream: &str,
    secret: &str,
    request: Request,
) -> Result<Response, Problem> {
    let found = find(signaling, role, stream, secret)?;
    let live = |found| match found {
        Found::Live(id) => Ok(id),
        Found::Tombstone(_) => Err(Problem::new(Slug::NotFound, "the session is over")),
    };
    match *request.method() {
        Method::OPTIONS => {
            let mut response = empty(StatusCode::OK);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(SESSION_METHODS));
            response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(SDPFRAG));
            Ok(response)
        }
        Method::GET | Method::HEAD => {
            live(found)?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Method::PATCH => {
            let id = live(found)?;
            authorize_session(signaling, role, stream, id, request.headers())?;
            trickle::patch(signaling, id, request).await
        }
        Method::DELETE => {
            let (Found::Live(id) | Found::Tombstone(id)) = found;
            authorize_session(signaling, role, stream, id, request.headers())?;
            // A session that ended by itself is deleted all the same (WHIP-15).
            signaling.close(id, Reason::Deleted);
            Ok(empty(StatusCode::OK))
        }
        _ => Err(Problem::method_not_allowed(SESSION_METHODS)),
    }
}

/// `{session}/stages`: the ledger, for the page that holds the URL. It outlives the session by the tombstone's time, so
/// that the page can tell why it ended.
pub(super) fn stages(
    signaling: &Signaling,
    role: Role,
    stream: &str,
    secret: &str,
    request: &Request,
) -> Result<Response, Problem> {
    let (Found::Live(id) | Found::Tombstone(id)) = find(signaling, role, stream, secret)?;
    match *request.method() {
        Method::OPTIONS => {
            let mut response = empty(StatusCode::OK);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(STAGES_METHODS));
            Ok(response)
        }
        Method::GET | Method::HEAD => {
            authorize_session(signaling, role, stream, id, request.headers())?;
            let view = signaling.registry.session(id).ok_or_else(|| Problem::new(Slug::NotFound, "no such session"))?;
            let json = serde_json::to_vec(&view).map_err(|error| Problem::new(Slug::Internal, error.to_string()))?;
            let mut response = Response::new(Body::from(json));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        _ => Err(Problem::method_not_allowed(STAGES_METHODS)),
    }
}

fn find(signaling: &Signaling, role: Role, stream: &str, secret: &str) -> Result<Found, Problem> {
    let found = signaling.registry.find(std::time::Instant::now(), role, stream, secret);
    found.ok_or_else(|| Problem::new(Slug::NotFound, "no such session"))
}

/// The URL alone suffices, unless configured otherwise; a token that is sent must be the one that opened the session.
fn authorize_session(
    signaling: &Signaling,
    role: Role,
    stream: &str,
    id: SessionId,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    if signaling.config.session_url_suffices && !headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let identity = authorize(signaling, role, stream, headers)?;
    if signaling.registry.identity(id).is_some_and(|owner| owner != identity) {
        let problem = Problem::new(Slug::Forbidden, "the session belongs to the holder of another token");
        return Err(problem.challenge(Some("insufficient_scope")));
    }
    Ok(())
}
