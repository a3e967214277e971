//! CORS (Fetch standard): pages of other origins may use the endpoints; no cookies are involved.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue};

use crate::config::AllowedOrigins;

/// Adds the headers to a reply, errors too: without them a page sees neither status nor body (ERR-05). Replies to OPTIONS
/// get the preflight's headers whether it is one or not; some clients ask by hand and read them.
pub(super) fn apply(allowed: &AllowedOrigins, origin: Option<&HeaderValue>, is_options: bool, headers: &mut HeaderMap) {
    match allowed {
        AllowedOrigins::Any => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        AllowedOrigins::List(list) => {
            headers.insert(VARY, HeaderValue::from_static("Origin"));
            let Some(origin) = origin.filter(|origin| list.iter().any(|known| known.as_bytes() == origin.as_bytes()))
            else {
                return;
            };
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate, Allow",
        ),
    );
    if is_options {
        headers
            .insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("OPTIONS, GET, HEAD, POST, PATCH, DELETE"));
        // By name: `*` does not cover Authorization.
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Authorization, Content-Type, If-Match, Link"),
        );
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
}
