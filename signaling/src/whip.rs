//! WHIP (RFC 9725): a publisher's POST.

use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use media_core::media::Role;

use crate::auth::Identity;
use crate::establish::{self, Join};
use crate::problem::Problem;
use crate::sdp::negotiate;
use crate::service::Signaling;

/// Answers a publisher's offer with 201, or says why not.
pub(crate) async fn post(
    signaling: &Signaling,
    stream: &str,
    identity: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let received = Instant::now();
    let offer = establish::read_offer(signaling, request).await?;
    let agreement = negotiate::publisher(&offer)?;
    establish::open(signaling, Join { role: Role::Publisher, stream, identity, received, offer, agreement })
}
