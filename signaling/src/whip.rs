//! WHIP (RFC 9725): a publisher's POST.

use axum::extract::{Request, State};
use axum::response::Response;

use crate::client_address::ClientAddress;
use crate::clock;
use crate::establish::{self, Join};
use crate::extract::StreamName;
use crate::problem::Problem;
use crate::sdp::negotiate;
use crate::state::RouterState;

/// Answers a publisher's offer with 201, or says why not.
pub(crate) async fn post(
    State(state): State<RouterState>,
    StreamName(stream): StreamName,
    request: Request,
) -> Result<Response, Problem> {
    let identity = state.authorize(&stream, request.headers(), request.uri().query())?;
    let address = ClientAddress::of(request.extensions());
    state.signaling.take_post(state.role, address, &identity)?;
    let received = clock::now();
    let offer = establish::read_offer(request).await?;
    let agreement = negotiate::publisher(&offer)?;
    establish::open(&state, Join { stream, identity, address, received, offer, agreement })
}
