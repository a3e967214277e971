//! Sends clients of clear text to HTTPS.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderValue, StatusCode, Uri, header};
use signaling::{Problem, Signaling, Site, Slug};

use crate::pages;

/// Where HTTPS is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// At the port that the request came to.
    SamePort,
    /// At this port of the same host, or at the public URL if that is one of HTTPS.
    Port(u16),
}

/// Answers every request with 308 to the same resource over HTTPS (RFC 9110 §15.4.9: method and body stay), without reading
/// its body.
pub fn router(signaling: Arc<Signaling>, target: Target) -> Router {
    let state = (Arc::clone(&signaling), target);
    pages::guarded(Router::new().fallback(redirect).with_state(state), signaling)
}

async fn redirect(State((signaling, target)): State<(Arc<Signaling>, Target)>, request: Request) -> Response {
    let base = signaling.config().public_base_url.clone();
    let location = location(&Site::of(&request), request.uri(), target, base.as_deref());
    match location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        Some(location) => (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response(),
        None => {
            let detail = "this is served over https only, and the request names no host to send the client to";
            let mut response = Problem::new(Slug::BadRequest, detail).into_response();
            Problem::complete(&mut response, base.as_deref(), request.uri().path());
            response
        }
    }
}

fn location(site: &Site, uri: &Uri, target: Target, public_url: Option<&str>) -> Option<String> {
    let asked = site.authority()?;
    let authority = match target {
        Target::SamePort => asked.as_str().to_owned(),
        Target::Port(port) => match public_url.and_then(https_authority) {
            Some(public) => public,
            None if port == 443 => asked.host().to_owned(),
            None => format!("{}:{port}", asked.host()),
        },
    };
    // Of an asterisk (`OPTIONS *`) there is no path.
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    Some(format!("https://{authority}{path}"))
}

fn https_authority(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let authority = uri.authority().map(Authority::to_string);
    if uri.scheme_str() == Some("https") { authority } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_to(host: &str, uri: &str, target: Target, public_url: Option<&str>) -> Option<String> {
        let request = http::Request::get(uri).header(header::HOST, host).body(()).unwrap();
        location(&Site::of(&request), request.uri(), target, public_url)
    }

    #[test]
    fn a_client_is_sent_to_the_same_resource_of_the_same_host() {
        let same = |host, uri| sent_to(host, uri, Target::SamePort, None).unwrap();
        assert_eq!(same("192.0.2.7:8443", "/whip/s?a=b"), "https://192.0.2.7:8443/whip/s?a=b");
        assert_eq!(same("[2001:db8::7]:8443", "/"), "https://[2001:db8::7]:8443/");
        assert_eq!(same("media.example", "*"), "https://media.example/");
        let other = |host, port| sent_to(host, "/x", Target::Port(port), None).unwrap();
        assert_eq!(other("media.example:80", 443), "https://media.example/x");
        assert_eq!(other("[2001:db8::7]", 8443), "https://[2001:db8::7]:8443/x");
        let public = |url| sent_to("inner:80", "/x", Target::Port(8443), Some(url)).unwrap();
        assert_eq!(public("https://media.example/base"), "https://media.example/x");
        assert_eq!(public("http://media.example"), "https://inner:8443/x");
        assert_eq!(sent_to("no host", "/", Target::SamePort, None), None);
    }
}
