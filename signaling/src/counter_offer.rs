//! 406 with an offer of the server's own, where a viewer's cannot be served, and the PATCH with the answer to it
//! (WHEP §4.3.2). Off by default: players that are deployed take 406 for an error.
//!
//! Until the answer comes nothing of the session stands in registry and media plane. Its URL is answered here, in front of
//! [`crate::session_resource`], and by that from then on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use media_core::media::Role;
use media_core::{IceMode, SessionId};
use openssl::sha::sha256;

use crate::auth::Grant;
use crate::client_address::ClientAddress;
use crate::clock;
use crate::config::SignalingConfig;
use crate::establish::{self, Join, Names};
use crate::extract::authorize_holder;
use crate::limits::{MAX_COUNTER_OFFERS, MAX_COUNTER_OFFERS_PER_ADDRESS, MAX_OFFER};
use crate::problem::{Problem, Slug};
use crate::registry::{Found, Published};
use crate::request::{SDP, SDPFRAG, read_body};
use crate::sdp::negotiate::Agreed;
use crate::sdp::offer::Offer;
use crate::sdp::{SdpError, answer, counter_offer};
use crate::state::RouterState;
use crate::{random, session_resource};

/// While the answer is awaited (CORS-02). It is taken by PATCH even where nothing else is.
fn accept_patch(config: &SignalingConfig) -> (HeaderName, HeaderValue) {
    let types = match config.takes_fragments() {
        true => "application/sdp, application/trickle-ice-sdpfrag",
        false => SDP.name,
    };
    (HeaderName::from_static("accept-patch"), HeaderValue::from_static(types))
}

/// A viewer whose offer was refused.
pub(crate) struct Refused {
    pub(crate) id: SessionId,
    pub(crate) stream: String,
    pub(crate) grant: Grant,
    pub(crate) address: ClientAddress,
    pub(crate) received: Instant,
    pub(crate) error: SdpError,
}

/// An offer that waits for its answer.
#[derive(Clone)]
struct Waiting {
    stream: String,
    names: Names,
    grant: Grant,
    customer: IpAddr,
    sections: Vec<Agreed>,
    ssrcs: [u32; 4],
    expires: Instant,
}

/// All that wait, by the secret of their URL. Bounded: the oldest one of an address gives place, and else the oldest one.
#[derive(Default)]
pub(crate) struct CounterOffers(HashMap<String, Waiting>);

impl CounterOffers {
    fn insert(&mut self, now: Instant, waiting: Waiting) {
        self.0.retain(|_, known| now < known.expires);
        let of_customer = |known: &Waiting| known.customer == waiting.customer;
        if self.0.values().filter(|known| of_customer(known)).count() >= MAX_COUNTER_OFFERS_PER_ADDRESS {
            self.remove_oldest(of_customer);
        } else if self.0.len() >= MAX_COUNTER_OFFERS {
            self.remove_oldest(|_| true);
        }
        self.0.insert(waiting.names.secret.clone(), waiting);
    }

    fn remove_oldest(&mut self, among: impl Fn(&Waiting) -> bool) {
        let of_them = self.0.iter().filter(|(_, waiting)| among(waiting));
        let oldest = of_them.min_by_key(|(_, waiting)| waiting.expires).map(|(secret, _)| secret.clone());
        oldest.and_then(|secret| self.0.remove(&secret));
    }

    fn get(&self, now: Instant, stream: &str, secret: &str) -> Option<&Waiting> {
        self.0.get(secret).filter(|waiting| waiting.stream == stream && now < waiting.expires)
    }
}

/// Answers an offer that cannot be served with one of the stream's own; without a track to offer, with the reason alone
/// (WHEP-10).
pub(crate) fn make(state: &RouterState, published: &Published, refused: Refused) -> Result<Response, Problem> {
    let Refused { id, stream, grant, address, received, error } = refused;
    let signaling = &state.signaling;
    let ssrcs = random::ssrcs()?;
    let sections = counter_offer::sections(published, ssrcs);
    if sections.is_empty() {
        return Err(error.into());
    }
    establish::refuse_while_draining(signaling)?;
    // The side that offers controls, unless it is lite (RFC 8445 §6.1.1): then the client does, as in every other session.
    let names = Names::new(state, id, &stream, received, IceMode::Lite)?;
    let config = signaling.config();
    let text = answer::write_offer(&sections, &names.local(signaling));
    let lifetime = config.counter_offer_timeout;
    let valid_until = httpdate::fmt_http_date(SystemTime::now() + lifetime);
    let content_type = HeaderValue::from_str(&format!("{}; valid-until=\"{valid_until}\"", SDP.name))
        .map_err(|_| Problem::new(Slug::Internal, "a header value is not ASCII"))?;
    let headers = (names.headers(state, &stream)?, [(CONTENT_TYPE, content_type), accept_patch(&config)]);
    tracing::debug!(session = %id, stream, code = error.slug.as_str(), detail = error.detail, "counter-offer made");
    let customer = address.customer();
    let expires = received + lifetime;
    signaling.counter_offers().insert(received, Waiting { stream, names, grant, customer, sections, ssrcs, expires });
    Ok((StatusCode::NOT_ACCEPTABLE, headers, text).into_response())
}

/// Takes the requests that the URL of a waiting session gets, and a repeated answer to one that waits no more.
pub(crate) async fn layer(State(state): State<RouterState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = Path::<(String, String)>::from_request_parts(&mut parts, &()).await;
    let Ok(Path((stream, secret))) = path else { return next.run(Request::from_parts(parts, body)).await };
    let waiting = state.signaling.counter_offers().get(clock::now(), &stream, &secret).cloned();
    let is_answer = parts.method == Method::PATCH && SDP.is_of(&parts.headers);
    let request = Request::from_parts(parts, body);
    let taken = match waiting {
        Some(waiting) => take(&state, waiting, request).await,
        None => match answered(&state, &stream, &secret).filter(|_| is_answer) {
            Some((id, digest)) => take_again(&state, &stream, (id, digest), request).await,
            None => return next.run(request).await,
        },
    };
    taken.unwrap_or_else(IntoResponse::into_response)
}

/// The live session of a URL that began with an answer to an offer of ours, and the hash of that answer.
fn answered(state: &RouterState, stream: &str, secret: &str) -> Option<(SessionId, [u8; 32])> {
    let found = state.signaling.registry.find(clock::now(), (Role::Viewer, stream, secret), Duration::ZERO);
    let Some(Found::Live(id)) = found else { return None };
    let digest = state.signaling.registry.with_live(id, |session| session.new.answer_digest)??;
    Some((id, digest))
}

async fn take(state: &RouterState, waiting: Waiting, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let no_store = [(CACHE_CONTROL, "no-store")];
    match parts.method {
        Method::OPTIONS => {
            let accept_patch = accept_patch(&state.signaling.config());
            Ok(([(ALLOW, session_resource::METHODS)], [accept_patch]).into_response())
        }
        Method::GET | Method::HEAD => Ok(StatusCode::NO_CONTENT.into_response()),
        Method::DELETE => {
            admit(state, &waiting.stream, &parts, waiting.names.id, &waiting.grant).await?;
            state.signaling.counter_offers().0.remove(&waiting.names.secret);
            Ok(StatusCode::OK.into_response())
        }
        Method::PATCH => {
            admit(state, &waiting.stream, &parts, waiting.names.id, &waiting.grant).await?;
            if SDPFRAG.is_of(&parts.headers) {
                return Err(Problem::new(Slug::AnswerMissing, "send the answer to the offer of the 406 first"));
            }
            if !SDP.is_of(&parts.headers) {
                let (name, value) = accept_patch(&state.signaling.config());
                return Err(Problem::new(Slug::UnsupportedMediaType, format!("send {}", SDP.name)).with(name, value));
            }
            let body = read_body(&parts.headers, body, MAX_OFFER).await?;
            if body.is_empty() {
                return Err(Problem::new(Slug::EmptyBody, "an SDP answer is needed"));
            }
            let answer = Offer::parse(&body)?;
            open(state, &waiting, ClientAddress::of(&parts.extensions), answer, sha256(&body))?;
            Ok((StatusCode::NO_CONTENT, no_store).into_response())
        }
        _ => Err(Problem::method_not_allowed(session_resource::METHODS)),
    }
}

/// Token and rate, as of every other session.
async fn admit(state: &RouterState, stream: &str, parts: &Parts, id: SessionId, grant: &Grant) -> Result<(), Problem> {
    authorize_holder(state, stream, parts, id, Some(grant)).await?;
    state.signaling.take_request(ClientAddress::of(&parts.extensions), id)
}

/// Opens the session by the answer. The offer waits on if it cannot be, so that the client may answer better.
fn open(
    state: &RouterState,
    waiting: &Waiting,
    address: ClientAddress,
    offer: Offer,
    digest: [u8; 32],
) -> Result<(), Problem> {
    let (signaling, received) = (&state.signaling, clock::now());
    let Waiting { stream, names, grant, sections, ssrcs, .. } = waiting.clone();
    let published = signaling.registry.published(&stream).unwrap_or_default();
    let agreement = counter_offer::agree(&sections, &offer, &published, ssrcs)?;
    // Held until the session is there: of two answers at a time one opens it, and the other one finds it.
    let mut counter_offers = signaling.counter_offers();
    if counter_offers.get(received, &stream, &names.secret).is_none() {
        drop(counter_offers);
        let (_, known) = answered(state, &stream, &names.secret).ok_or_else(Problem::session_over)?;
        return judge_again(known, digest);
    }
    let secret = names.secret.clone();
    let join = Join { id: names.id, stream, grant, address, received, offer, agreement };
    establish::open_answered(state, join, names, digest)?;
    counter_offers.0.remove(&secret);
    Ok(())
}

/// An answer to an offer that has one.
async fn take_again(
    state: &RouterState,
    stream: &str,
    (id, digest): (SessionId, [u8; 32]),
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let grant = state.signaling.registry.grant(id).ok_or_else(Problem::session_over)?;
    admit(state, stream, &parts, id, &grant).await?;
    let body = read_body(&parts.headers, body, MAX_OFFER).await?;
    judge_again(digest, sha256(&body))?;
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
}

/// The same answer once more, from a client that lost the reply, is fine.
fn judge_again(known: [u8; 32], sent: [u8; 32]) -> Result<(), Problem> {
    if known == sent {
        return Ok(());
    }
    Err(Problem::new(Slug::AlreadyAnswered, "the session began with another answer"))
}
