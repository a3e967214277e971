//! Request bodies, bounded in size and time before anything is kept (HTTP-07).

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

use crate::problem::{Problem, Slug};

/// Reads a body of at most `limit` bytes. An empty one is no error here: other checks come first.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize, time: Duration) -> Result<Vec<u8>, Problem> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(time, collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => {
            let detail = format!("the body did not end within {} s", time.as_secs());
            Err(Problem::new(Slug::RequestTimeout, detail))
        }
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| Problem::new(Slug::BadRequest, "the body broke off"))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Slug::BodyTooLarge, format!("at most {limit} bytes"))
}
