//! The HTTP side: a reverse proxy in front of the server, and the resources of the relay itself.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, LINK, LOCATION, ORIGIN,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::link_options::LinkError;
use super::options::{RelayCounts, RelayError};
use super::rewrite;
use super::udp::RelayState;

/// Bytes of a request's body, and of an answer that is rewritten.
const MAX_BODY: usize = 1 << 20;

/// Those that hold for one connection only (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 8] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE];
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The reverse proxy in front of one server.
#[derive(Clone)]
pub(super) struct Proxy {
    http: Client,
    target: Url,
    shared: Arc<RelayState>,
}

impl Proxy {
    pub(super) fn new(target: Url, shared: Arc<RelayState>) -> Result<Proxy, RelayError> {
        // Redirections are the client's, and the target is to be reached straight. No connection outlives its request: one that the
        // server closes just then, for having been idle, takes the next request with it.
        let http = Client::builder().http1_only().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let http = http.pool_max_idle_per_host(0).build()?;
        Ok(Proxy { http, target, shared })
    }

    /// Serves until the runtime ends.
    pub(super) async fn serve(self, listener: std::net::TcpListener) {
        let routes = Router::new()
            .route("/relay/link", get(links).post(change_links))
            .route("/relay/counts", get(counts))
            .route("/relay/rebind", post(rebind))
            .fallback(forward)
            .with_state(self);
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, routes).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "the relay's HTTP port is gone");
        }
    }

    async fn forward(&self, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // Not by `join`, which would take a path that begins with two slashes for a host.
        let url = Url::parse(&format!("{}{path}", self.target.origin().ascii_serialization()))
            .map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
        let mut body = to_bytes(body, MAX_BODY)
            .await
            .map_err(|_| Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MAX_BODY} bytes")))?;
        if is_sdp(&parts.headers) {
            let text = std::str::from_utf8(&body);
            let text = text.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
            body = rewrite::hidden(text).into();
        }
        let mut headers = end_to_end(&parts.headers);
        // The client sets the first two; what is not compressed can be rewritten; the body is here already.
        for name in [HOST, CONTENT_LENGTH, ACCEPT_ENCODING, EXPECT] {
            headers.remove(name);
        }
        // A page of the relay is one of the server's own, which compares this with the host that it is asked for.
        let own = own_origin(&parts.headers);
        if let Some(origin) = headers.get_mut(ORIGIN).filter(|origin| own.as_ref().is_some_and(|own| *origin == own)) {
            replace(origin, &self.target.origin().ascii_serialization());
        }
        let mut onward = self.http.request(parts.method, url).headers(headers);
        if !body.is_empty() || parts.headers.contains_key(CONTENT_LENGTH) {
            onward = onward.body(body);
        }
        let answer = onward.send().await.map_err(unanswered)?;

        let (status, mut headers) = (answer.status(), end_to_end(answer.headers()));
        self.lead_back(&mut headers, own.as_deref());
        let body = if is_sdp(&headers) {
            headers.remove(CONTENT_LENGTH);
            Body::from(self.lead_through(answer).await?)
        } else {
            Body::new(reqwest::Body::from(answer))
        };
        Ok((status, headers, body).into_response())
    }

    /// Absolute URLs of the server become those of the relay; relative ones are right as they are.
    fn lead_back(&self, headers: &mut HeaderMap, own_origin: Option<&str>) {
        let Some(own) = own_origin else { return };
        let server = self.target.origin().ascii_serialization();
        if let Some(location) = headers.get_mut(LOCATION) {
            let text = location.to_str().unwrap_or_default();
            let url = if text.starts_with("//") { self.target.join(text) } else { Url::parse(text) };
            let path = url.as_ref().ok().and_then(|url| url.as_str().strip_prefix(&server));
            if let Some(path) = path.filter(|path| path.starts_with('/')) {
                replace(location, &format!("{own}{path}"));
            }
        }
        let (theirs, ours) = (format!("<{server}/"), format!("<{own}/"));
        for (_, link) in headers.iter_mut().filter(|(name, _)| **name == LINK) {
            let text = link.to_str().unwrap_or_default().replace(&theirs, &ours);
            replace(link, &text);
        }
    }

    /// Reads a description and makes its candidates ports of the relay.
    async fn lead_through(&self, mut answer: reqwest::Response) -> Result<String, Refusal> {
        let bad = |what: &str| Refusal(StatusCode::BAD_GATEWAY, what.to_owned());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unanswered)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(bad("the server's description is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body).map_err(|_| bad("the server's description is no text"))?;
        let lead = |server: SocketAddr| match self.shared.port_to(server) {
            Ok(port) => Some(port),
            Err(error) => {
                tracing::warn!(%server, %error, "a candidate is left out");
                None
            }
        };
        Ok(rewrite::through(&text, self.shared.media_ip(), lead))
    }
}

fn replace(header: &mut HeaderValue, text: &str) {
    // One that is no text stays as it is.
    if let Ok(value) = HeaderValue::from_str(text)
        && !text.is_empty()
    {
        *header = value;
    }
}

/// Without those of the connection, and those that `Connection` names.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for named in headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()) {
        for name in named.split(',') {
            kept.remove(name.trim());
        }
    }
    for name in &HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// The origin of pages that the relay serves, by the host that the client asked for.
fn own_origin(headers: &HeaderMap) -> Option<String> {
    headers.get(HOST).and_then(|host| host.to_str().ok()).map(|host| format!("http://{host}"))
}

/// True of offers, answers and trickle fragments.
fn is_sdp(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/sdp", "application/trickle-ice-sdpfrag"].iter().any(|sdp| kind.eq_ignore_ascii_case(sdp))
}

/// Why the relay, not the server, says no.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("relay: {}\n", self.1)).into_response()
    }
}

impl From<LinkError> for Refusal {
    fn from(error: LinkError) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, error.to_string())
    }
}

fn unanswered(error: reqwest::Error) -> Refusal {
    // What happened is in the sources alone.
    let causes = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
    let causes = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    Refusal(StatusCode::BAD_GATEWAY, format!("no answer of the server: {causes}"))
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Result<Response, Refusal> {
    proxy.forward(request).await
}

/// Changes of links by the names of the command line: those of both directions first.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Changes {
    both: Map<String, Value>,
    up: Map<String, Value>,
    down: Map<String, Value>,
}

async fn links(State(proxy): State<Proxy>) -> Json<Value> {
    let (up, down) = proxy.shared.links();
    Json(json!({ "up": up, "down": down }))
}

async fn change_links(State(proxy): State<Proxy>, body: Bytes) -> Result<Json<Value>, Refusal> {
    let changes: Changes =
        serde_json::from_slice(&body).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    let (up, down) = proxy.shared.links();
    let up = up.changed(&changes.both)?.changed(&changes.up)?;
    let down = down.changed(&changes.both)?.changed(&changes.down)?;
    proxy.shared.set_links(|old_up, old_down| (*old_up, *old_down) = (up, down));
    Ok(links(State(proxy)).await)
}

async fn counts(State(proxy): State<Proxy>) -> Json<RelayCounts> {
    Json(proxy.shared.counts())
}

async fn rebind(State(proxy): State<Proxy>) -> StatusCode {
    proxy.shared.rebind();
    StatusCode::NO_CONTENT
}
