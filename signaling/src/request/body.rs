//! Request bodies, bounded in size and time before anything is kept (HTTP-07).

use std::error::Error;

use axum::body::{self, Body, Bytes};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::LengthLimitError;

use crate::limits::BODY_TIMEOUT;
use crate::problem::{Problem, Slug};

/// Reads a body of at most `limit` bytes. An empty one is no error here: other checks come first.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Slug::BodyTooLarge, format!("at most {limit} bytes"));
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // What is declared too large is not read at all.
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Slug::BadRequest, "the body broke off")),
        Err(_) => {
            let detail = format!("the body did not end within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(Slug::RequestTimeout, detail))
        }
    }
}
