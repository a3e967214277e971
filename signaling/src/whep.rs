//! WHEP (draft-ietf-wish-whep): a viewer's POST, and what it gets while the stream has no publisher.

use axum::extract::{Request, State};
use axum::response::Response;
use media_core::SessionId;

use crate::client_address::ClientAddress;
use crate::clock;
use crate::config::UnknownStream;
use crate::counter_offer::{self, Refused};
use crate::establish::{self, Join};
use crate::extract::StreamName;
use crate::problem::{Problem, Slug};
use crate::random;
use crate::redirect;
use crate::sdp::negotiate;
use crate::state::RouterState;

/// Answers a viewer's offer with 201, or says why not.
pub(crate) async fn post(
    State(state): State<RouterState>,
    StreamName(stream): StreamName,
    request: Request,
) -> Result<Response, Problem> {
    let id = SessionId(random::number()?);
    let (parts, body) = request.into_parts();
    let grant = state.authorize(&stream, &parts, id).await?;
    let received = clock::now();
    let address = ClientAddress::of(&parts.extensions);
    if let Some(redirect) = redirect::elsewhere(&state, &stream, &parts, &grant)? {
        state.signaling.take_post(state.role, address, &grant.identity)?;
        return Ok(redirect);
    }
    let (signaling, config) = (&state.signaling, state.signaling.config());
    // An unknown name is a matter of the route (WHEP-06: deployed players look for 404); whether a known stream is live is
    // the last thing to look at.
    let is_known = signaling.registry.published(&stream).is_some() || config.tokens.names(&stream);
    if !is_known && config.unknown_stream == UnknownStream::NotFound {
        return Err(Problem::new(Slug::NotFound, "nobody has published a stream of this name"));
    }
    signaling.take_post(state.role, address, &grant.identity)?;
    let offer = establish::read_offer(Request::from_parts(parts, body)).await?;
    let published = signaling.registry.published(&stream).unwrap_or_default();
    if config.require_live && !published.live {
        let detail = |_| "the stream has no publisher now".to_owned();
        return Err(Problem::retry_in(Slug::StreamNotLive, config.not_live_retry, detail));
    }
    if config.strict_sections {
        negotiate::one_of_each_kind(&offer)?;
    }
    let agreement = match negotiate::viewer(&offer, &published, random::ssrcs()?) {
        Ok(agreement) => agreement,
        Err(error) if config.counter_offer => {
            return counter_offer::make(&state, &published, Refused { id, stream, grant, address, received, error });
        }
        Err(error) => return Err(error.into()),
    };
    establish::open(&state, Join { id, stream, grant, address, received, offer, agreement })
}
