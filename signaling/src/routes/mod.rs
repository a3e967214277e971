//! The routes: which resource, which method, who may; then CORS and the problem document on whatever comes back.
//!
//! The order of checks is that of ERR-04: route, method, authentication, authorisation, Content-Type, size, If-Match,
//! syntax, semantics, capacity.

mod body;
mod cors;
mod if_match;
mod resource;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use media_core::media::Role;

pub(crate) use self::body::read as read_body;
pub(crate) use self::if_match::{Verdict, judge as judge_if_match};
pub(crate) use self::resource::ACCEPT_PATCH;
use crate::auth::{Access, Identity};
use crate::observer::Resource;
use crate::problem::{Problem, Slug};
use crate::service::Signaling;

/// Content-Type of offers and answers.
pub(crate) const SDP: &str = "application/sdp";
/// Content-Type of trickle fragments.
pub(crate) const SDPFRAG: &str = "application/trickle-ice-sdpfrag";

const ENDPOINT_METHODS: &str = "OPTIONS, GET, HEAD, POST";
const SESSION_METHODS: &str = "OPTIONS, GET, HEAD, PATCH, DELETE";
const STAGES_METHODS: &str = "OPTIONS, GET, HEAD";

/// `/whip/{stream}` and `/whep/{stream}`, sessions below them. Merge it with other routers: outside `/whip` and `/whep` it
/// has no fallback.
pub fn router(signaling: Arc<Signaling>) -> Router {
    Router::new().nest("/whip", side(Role::Publisher)).nest("/whep", side(Role::Viewer)).with_state(signaling)
}

/// What a path names.
enum Target {
    Endpoint { stream: String },
    Session { stream: String, secret: String },
    Stages { stream: String, secret: String },
    Unknown,
}

fn side(role: Role) -> Router<Arc<Signaling>> {
    type PathOf<T> = Result<Path<T>, PathRejection>;
    let endpoint = move |State(signaling): State<Arc<Signaling>>, path: PathOf<String>, request: Request| {
        let target = path.map_or(Target::Unknown, |Path(stream)| Target::Endpoint { stream });
        answer(signaling, role, target, request)
    };
    let session = move |State(signaling): State<Arc<Signaling>>, path: PathOf<(String, String)>, request: Request| {
        let target = path.map_or(Target::Unknown, |Path((stream, secret))| Target::Session { stream, secret });
        answer(signaling, role, target, request)
    };
    let stages = move |State(signaling): State<Arc<Signaling>>, path: PathOf<(String, String)>, request: Request| {
        let target = path.map_or(Target::Unknown, |Path((stream, secret))| Target::Stages { stream, secret });
        answer(signaling, role, target, request)
    };
    let unknown = move |State(signaling): State<Arc<Signaling>>, request: Request| {
        answer(signaling, role, Target::Unknown, request)
    };
    Router::new()
        .route("/{stream}", any(endpoint))
        .route("/{stream}/{secret}", any(session))
        .route("/{stream}/{secret}/stages", any(stages))
        .fallback(unknown)
}

async fn answer(signaling: Arc<Signaling>, role: Role, target: Target, request: Request) -> Response {
    let (method, version) = (request.method().clone(), request.version());
    let origin = request.headers().get(ORIGIN).cloned();
    let side = if role == Role::Publisher { "/whip" } else { "/whep" };
    // The router has cut its own prefix off.
    let instance = format!("{side}{}", request.uri().path());
    let resource = match (&target, role) {
        (Target::Endpoint { .. }, Role::Publisher) => Resource::WhipEndpoint,
        (Target::Endpoint { .. }, Role::Viewer) => Resource::WhepEndpoint,
        (Target::Session { .. } | Target::Stages { .. }, Role::Publisher) => Resource::WhipSession,
        (Target::Session { .. } | Target::Stages { .. }, Role::Viewer) => Resource::WhepSession,
        (Target::Unknown, _) => Resource::Unknown,
    };
    let result = match target {
        Target::Endpoint { stream } => resource::endpoint(&signaling, role, &stream, request).await,
        Target::Session { stream, secret } => resource::session(&signaling, role, &stream, &secret, request).await,
        Target::Stages { stream, secret } => resource::stages(&signaling, role, &stream, &secret, &request),
        Target::Unknown => Err(Problem::new(Slug::NotFound, "no such resource")),
    };
    let mut response = result.unwrap_or_else(|problem| {
        tracing::debug!(
            path = resource.as_str(),
            %method,
            code = problem.slug.as_str(),
            detail = %problem.detail,
            "request refused"
        );
        problem.into_response(signaling.config.problem_base_url.as_deref(), &instance)
    });
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE && version < Version::HTTP_2 {
        // The rest of the body is not wanted.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    cors::apply(&signaling.config.allowed_origins, origin.as_ref(), method == Method::OPTIONS, response.headers_mut());
    signaling.observer.http_response(resource, method_label(&method), response.status().as_u16());
    response
}

/// Judges the token of a request to an endpoint. Watching needs none unless viewers are protected.
pub(crate) fn authorize(
    signaling: &Signaling,
    role: Role,
    stream: &str,
    headers: &HeaderMap,
) -> Result<Identity, Problem> {
    if role == Role::Viewer && !signaling.config.protect_viewers {
        return Ok(Identity::Anyone);
    }
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    match signaling.config.tokens.check(stream, authorization) {
        Access::Granted(identity) => Ok(identity),
        Access::Missing => Err(Problem::new(Slug::Unauthorized, "no Authorization header").challenge(None)),
        Access::Invalid => {
            Err(Problem::new(Slug::Unauthorized, "the token is not known").challenge(Some("invalid_token")))
        }
        Access::OtherStream => {
            Err(Problem::new(Slug::Forbidden, "the token does not cover this stream")
                .challenge(Some("insufficient_scope")))
        }
    }
}

/// True if the request's media type is `wanted`; case and parameters do not matter (HTTP-06).
pub(crate) fn has_media_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
}

/// A reply without body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Methods as metric labels: clients may invent any.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        _ => "other",
    }
}
