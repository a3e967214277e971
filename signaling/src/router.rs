//! The routes, and what every reply gets on its way out: the rest of its problem document, CORS, a count.
//!
//! The order of checks is that of ERR-04: route, method, authentication, authorisation, rate, Content-Type, size, If-Match,
//! syntax, semantics, capacity.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use http::header::CONNECTION;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use media_core::media::Role;
use tower::util::MapRequest;

use crate::observer::Resource;
use crate::problem::{Problem, Slug};
use crate::service::Signaling;
use crate::site::Site;
use crate::state::RouterState;
use crate::{cors, counter_offer, endpoint, events, layer_selection, names, session_resource, trickle, whep, whip};

/// `/whip/{stream}` and `/whep/{stream}`, sessions below them. Merge it with other routers: outside `/whip` and `/whep` it
/// has no fallback.
pub fn router(signaling: Arc<Signaling>) -> Router {
    // `any` with the answer to every other method: a plain fallback would get `Allow` beside a 404, too.
    let endpoint = || any(endpoint::method_not_allowed).options(endpoint::options).get(endpoint::get);
    let publisher = RouterState { signaling: Arc::clone(&signaling), role: Role::Publisher };
    let viewer = RouterState { signaling, role: Role::Viewer };
    Router::new()
        .nest_service("/whip", protocol(publisher, endpoint().post(whip::post)))
        .nest_service("/whep", protocol(viewer, endpoint().post(whep::post)))
}

/// One of the two protocols. Names with `/` are joined before the routes look at the path.
fn protocol(state: RouterState, endpoint: MethodRouter<RouterState>) -> MapRequest<Router, fn(Request) -> Request> {
    let joined = if state.name_rule().slashes { names::join_parts } else { |request| request };
    MapRequest::new(routes(state, endpoint), joined)
}

fn routes(state: RouterState, endpoint: MethodRouter<RouterState>) -> Router {
    let session = any(session_resource::method_not_allowed)
        .options(session_resource::options)
        .get(session_resource::get)
        .patch(trickle::patch)
        .delete(session_resource::delete);
    let session = match state.role {
        Role::Publisher => session,
        Role::Viewer => session.layer(from_fn_with_state(state.clone(), counter_offer::layer)),
    };
    let stages = any(session_resource::stages_method_not_allowed)
        .options(session_resource::stages_options)
        .get(session_resource::stages);
    let event_streams = any(events::create_method_not_allowed).options(events::create_options).post(events::create);
    let event_stream = any(events::method_not_allowed)
        .options(events::options)
        .get(events::get)
        .head(events::head)
        .delete(events::delete);
    let layer = any(layer_selection::method_not_allowed).options(layer_selection::options).post(layer_selection::post);
    let (endpoint_resource, session_resource) = match state.role {
        Role::Publisher => (Resource::WhipEndpoint, Resource::WhipSession),
        Role::Viewer => (Resource::WhepEndpoint, Resource::WhepSession),
    };
    let finish = |resource| from_fn_with_state((state.clone(), resource), finish);
    let routes = Router::new()
        .route("/{stream}", endpoint.layer(finish(endpoint_resource)))
        .route("/{stream}/{secret}", session.layer(finish(session_resource)))
        .route("/{stream}/{secret}/stages", stages.layer(finish(session_resource)));
    let routes = match state.role {
        Role::Publisher => routes,
        Role::Viewer => routes
            .route("/{stream}/{secret}/layer", layer.layer(finish(session_resource)))
            .route("/{stream}/{secret}/sse", event_streams.layer(finish(session_resource)))
            .route("/{stream}/{secret}/sse/{events}", event_stream.layer(finish(session_resource))),
    };
    routes
        .fallback(any(unknown).layer(finish(Resource::Unknown)))
        .layer(from_fn_with_state(Arc::clone(&state.signaling), cors::layer))
        .with_state(state)
}

/// 404 of a path that no route knows: what a stream may be called is what people ask then (F-22).
async fn unknown(State(state): State<RouterState>, uri: Uri) -> Problem {
    let (prefix, rule) = (state.prefix(), state.name_rule().in_words());
    match uri.path().trim_matches('/') {
        "" => Problem::new(Slug::NotFound, format!("the path ends without a stream: {prefix}/{{stream}}; {rule}")),
        name if uri.path().ends_with('/') && state.name_rule().allows(name) => {
            Problem::new(Slug::NotFound, format!("the path ends with `/`; without it, {prefix}/{name} is a stream's"))
        }
        _ => Problem::new(Slug::NotFound, format!("no such resource; {rule}")),
    }
}

/// Completes a problem, logs it, and counts the reply.
async fn finish(State((state, resource)): State<(RouterState, Resource)>, request: Request, next: Next) -> Response {
    let (method, version) = (request.method().clone(), request.version());
    // The nested router has cut its own prefix off, and a name's parts were joined.
    let instance = format!("{}{}", state.prefix(), request.uri().path().replace("%2F", "/"));
    let signaling = &state.signaling;
    let config = signaling.config();
    let mut response = match config.allowed_origins.refusal(&Site::of(&request)) {
        // A preflight changes nothing, and what follows it is refused with an answer that the page can read.
        Some(problem) if method != Method::OPTIONS => problem.into_response(),
        _ => next.run(request).await,
    };
    if let Some(problem) = Problem::complete(&mut response, config.public_base_url.as_deref(), &instance) {
        let (path, code, detail) = (resource.as_str(), problem.slug.as_str(), problem.detail);
        tracing::debug!(path, %method, code, %detail, "request refused");
    }
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE && version < Version::HTTP_2 {
        // The rest of the body is not wanted.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    signaling.observer.http_response(resource, method_label(&method), response.status().as_u16());
    response
}

/// Methods as metric labels: clients may invent any.
pub fn method_label(method: &Method) -> &'static str {
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
