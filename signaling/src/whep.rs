//! WHEP (draft-ietf-wish-whep): a viewer's POST, and what it gets while the stream has no publisher.

use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use media_core::media::Role;

use crate::auth::Identity;
use crate::config::UnknownStream;
use crate::establish::{self, Join};
use crate::problem::{Problem, Slug};
use crate::random;
use crate::registry::Published;
use crate::sdp::negotiate;
use crate::service::Signaling;

/// Answers a viewer's offer with 201, or says why not.
pub(crate) async fn post(
    signaling: &Signaling,
    stream: &str,
    identity: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let received = Instant::now();
    // An unknown name is a matter of the route; whether a known stream is live is the last thing to look at.
    let known = signaling.registry.published(stream).is_some() || signaling.config.tokens.names(stream);
    if !known && signaling.config.unknown_stream == UnknownStream::NotFound {
        return Err(Problem::new(Slug::NotFound, "nobody has published a stream of this name"));
    }
    let offer = establish::read_offer(signaling, request).await?;
    let published = published(signaling, stream)?;
    let agreement = negotiate::viewer(&offer, &published, random::ssrcs()?)?;
    establish::open(signaling, Join { role: Role::Viewer, stream, identity, received, offer, agreement })
}

/// What the stream offers, or 409 (WHEP-05). Without `require_live` a stream that was published before is enough: its
/// formats are known, and media comes when its publisher does.
fn published(signaling: &Signaling, stream: &str) -> Result<Published, Problem> {
    match signaling.registry.published(stream) {
        Some(published) if published.live || !signaling.config.require_live => Ok(published),
        _ => {
            let seconds = signaling.config.retry_after.as_secs();
            Err(Problem::new(Slug::StreamNotLive, "the stream has no publisher now").retry_after(seconds))
        }
    }
}
