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
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::config::AllowedOrigins;
use crate::problem::{Problem, Slug};
use crate::service::Signaling;
use crate::site::Site;

impl AllowedOrigins {
    /// Why a request is not served; `None` if it is.
    pub fn refusal(&self, site: &Site) -> Option<Problem> {
        let AllowedOrigins::Own(_) = self else { return None };
        let origin = site.origin().filter(|_| !self.covers(site))?;
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let detail = format!(
            "pages of {origin} may not use this server, which asks nobody for a token: allow them by cors_origins, or name \
             the address of a proxy by public_url"
        );
        Some(Problem::new(Slug::CrossOrigin, detail))
    }

    /// Lets pages of the request's origin read the reply with these headers, if they may; returns whether they may.
    pub fn admit(&self, site: &Site, headers: &mut HeaderMap) -> bool {
        if *self == AllowedOrigins::Any {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return true;
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
        match site.origin() {
            Some(origin) if self.covers(site) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                true
            }
            _ => false,
        }
    }

    /// Lets a page whose request is refused read why, and ask by a preflight; returns whether it is such a page. Nothing else
    /// may be said in such a reply.
    pub fn explain(&self, site: &Site, headers: &mut HeaderMap) -> bool {
        let Some(origin) = site.origin().filter(|_| self.refusal(site).is_some()) else { return false };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        true
    }

    fn covers(&self, site: &Site) -> bool {
        let listed = |list: &[String]| {
            site.origin().is_some_and(|origin| list.iter().any(|known| known.as_bytes() == origin.as_bytes()))
        };
        match self {
            AllowedOrigins::Any => true,
            AllowedOrigins::List(list) => listed(list),
            AllowedOrigins::Own(list) => site.is_same_origin() || listed(list),
        }
    }
}

/// Adds the headers to every reply, errors too: without them a page sees neither status nor body (ERR-05).
pub(crate) async fn layer(State(signaling): State<Arc<Signaling>>, request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let site = Site::of(&request);
    let config = signaling.config();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !config.allowed_origins.admit(&site, headers) && !config.allowed_origins.explain(&site, headers) {
        return response;
    }
    let exposed = "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate, Allow";
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    if is_options {
        // Some clients read from it whether they may trickle.
        let methods = match config.takes_fragments() || config.counter_offer {
            true => "OPTIONS, GET, HEAD, POST, PATCH, DELETE",
            false => "OPTIONS, GET, HEAD, POST, DELETE",
        };
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        // By name: `*` does not cover Authorization.
        let request_headers = "Authorization, Content-Type, If-Match, Link";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(request_headers));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    response
}
