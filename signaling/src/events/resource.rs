//! `/whep/{stream}/{secret}/sse`, which makes event streams, and what it makes.

use std::convert::Infallible;

use axum::extract::{Request, State};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{EventKind, EventKinds};
use crate::extract::{EventStreamUrl, SessionUrl};
use crate::limits::{EVENT_HEARTBEAT, MAX_JSON};
use crate::problem::{Problem, Slug};
use crate::random;
use crate::request::{JSON, read_body};
use crate::state::RouterState;

const CREATE_METHODS: &str = "OPTIONS, POST";
const METHODS: &str = "OPTIONS, GET, HEAD, DELETE";

/// Proxies such as nginx hold answers back unless they are told not to.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// OPTIONS of the place where event streams are made.
pub(crate) async fn create_options(State(state): State<RouterState>, _: SessionUrl) -> Result<Response, Problem> {
    state.demand_extensions()?;
    Ok(([(ALLOW, CREATE_METHODS)], [JSON.accept()]).into_response())
}

/// Every method there but POST.
pub(crate) async fn create_method_not_allowed(State(state): State<RouterState>, _: SessionUrl) -> Problem {
    state.demand_extensions().err().unwrap_or_else(|| Problem::method_not_allowed(CREATE_METHODS))
}

/// POST: an event stream, of the kinds that the body lists, else of all.
pub(crate) async fn create(
    State(state): State<RouterState>,
    session: SessionUrl,
    request: Request,
) -> Result<Response, Problem> {
    state.demand_extensions()?;
    let (parts, body) = request.into_parts();
    let id = session.live()?;
    session.admit(&state, &parts).await?;
    let body = read_body(&parts.headers, body, MAX_JSON).await?;
    if !body.is_empty() {
        JSON.demand(&parts.headers)?;
    }
    let kinds = read_kinds(&body)?;
    let secret = random::hex::<16>()?;
    let location = state.url(&format!("{}/sse/{secret}", session.path()))?;
    if !state.signaling.registry.listen(id, secret, kinds) {
        return Err(Problem::session_over());
    }
    Ok((StatusCode::CREATED, [(LOCATION, location), NO_STORE]).into_response())
}

/// The kinds that a body lists: a JSON array of names.
pub(crate) fn read_kinds(body: &[u8]) -> Result<EventKinds, Problem> {
    if body.is_empty() {
        return Ok(EventKinds::all());
    }
    let names = serde_json::from_slice::<Vec<String>>(body);
    let names =
        names.map_err(|error| Problem::new(Slug::JsonSyntax, format!("an array of names of events: {error}")))?;
    let kind = |name: &String| {
        name.parse::<EventKind>()
            .map_err(|_| Problem::new(Slug::UnknownEvent, format!("{name:?} is none of {}", EventKind::names())))
    };
    names.iter().map(kind).collect()
}

/// OPTIONS of an event stream.
pub(crate) async fn options(State(state): State<RouterState>, events: EventStreamUrl) -> Result<Response, Problem> {
    events.stream(&state)?;
    Ok([(ALLOW, METHODS)].into_response())
}

/// GET: the events as they come. The URL alone is what it takes, as browsers' `EventSource` sends no header.
pub(crate) async fn get(State(state): State<RouterState>, events: EventStreamUrl) -> Result<Response, Problem> {
    let stream = events.stream(&state)?;
    let video_line = stream.video_line();
    let events = futures_util::stream::unfold(stream.read(), move |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event.to_sse(video_line)), reader))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(EVENT_HEARTBEAT));
    Ok(([NO_STORE, UNBUFFERED], sse).into_response())
}

/// HEAD, which takes nobody's events.
pub(crate) async fn head(State(state): State<RouterState>, events: EventStreamUrl) -> Result<Response, Problem> {
    events.stream(&state)?;
    Ok([NO_STORE, (CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))].into_response())
}

/// DELETE: what waits is dropped, and who reads is at the end.
pub(crate) async fn delete(
    State(state): State<RouterState>,
    events: EventStreamUrl,
    parts: Parts,
) -> Result<StatusCode, Problem> {
    events.stream(&state)?;
    events.session.admit(&state, &parts).await?;
    match state.signaling.registry.stop_listening(events.session.id(), &events.secret) {
        true => Ok(StatusCode::OK),
        false => Err(Problem::no_such_events()),
    }
}

/// Every other method.
pub(crate) async fn method_not_allowed(State(state): State<RouterState>, events: EventStreamUrl) -> Problem {
    events.stream(&state).err().unwrap_or_else(|| Problem::method_not_allowed(METHODS))
}
