//! CORS (Fetch standard): pages of other origins may use the endpoints; no cookies are involved.
//!
//! A layer of our own: tower-http's answers every OPTIONS by itself, but here OPTIONS says whether the resource exists and
//! what it accepts (HTTP-03), and hand-made ones without the preflight's headers get them all the same.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::config::AllowedOrigins;
use crate::service::Signaling;

impl AllowedOrigins {
    /// Lets pages of `origin` read the reply with these headers, if it is one of the allowed ones; returns whether it is.
    pub fn admit(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        let allowed = match self {
            AllowedOrigins::Any => Some(HeaderValue::from_static("*")),
            AllowedOrigins::List(list) => {
                headers.append(VARY, HeaderValue::from_static("Origin"));
                origin.filter(|origin| list.iter().any(|known| known.as_bytes() == origin.as_bytes())).cloned()
            }
        };
        let Some(allowed) = allowed else { return false };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        true
    }
}

/// Adds the headers to every reply, errors too: without them a page sees neither status nor body (ERR-05).
pub(crate) async fn layer(State(signaling): State<Arc<Signaling>>, request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !signaling.config().allowed_origins.admit(origin.as_ref(), headers) {
        return response;
    }
    let exposed = "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate, Allow";
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    if is_options {
        let methods = "OPTIONS, GET, HEAD, POST, PATCH, DELETE";
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        // By name: `*` does not cover Authorization.
        let request_headers = "Authorization, Content-Type, If-Match, Link";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(request_headers));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    response
}
