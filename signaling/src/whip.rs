//! WHIP (RFC 9725): a publisher's POST.

use axum::extract::{Request, State};
use axum::response::Response;
use media_core::SessionId;

use crate::client_address::ClientAddress;
use crate::clock;
use crate::establish::{self, Join};
use crate::extract::StreamName;
use crate::problem::Problem;
use crate::random;
use crate::redirect;
use crate::sdp::negotiate;
use crate::state::RouterState;

/// Answers a publisher's offer with 201, or says why not.
pub(crate) async fn post(
    State(state): State<RouterState>,
    StreamName(stream): StreamName,
    request: Request,
) -> Result<Response, Problem> {
    let id = SessionId(random::number()?);
    let (parts, body) = request.into_parts();
    let grant = state.authorize(&stream, &parts, id).await?;
    let address = ClientAddress::of(&parts.extensions);
    state.signaling.take_post(state.role, address, &grant.identity)?;
    if let Some(redirect) = redirect::elsewhere(&state, &stream, &parts, &grant)? {
        return Ok(redirect);
    }
    let received = clock::now();
    let offer = establish::read_offer(Request::from_parts(parts, body)).await?;
    let agreement = negotiate::publisher(&offer, state.signaling.config().max_layers)?;
    establish::open(&state, Join { id, stream, grant, address, received, offer, agreement })
}
