//! What a path names. An extractor that finds nothing is 404, which comes before every other check (ERR-04).

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use media_core::SessionId;

use crate::auth::{Grant, TokenDigest, authorization, bearer};
use crate::client_address::ClientAddress;
use crate::clock;
use crate::events::EventStream;
use crate::names::is_secret;
use crate::problem::{Problem, Slug};
use crate::registry::Found;
use crate::state::RouterState;

/// `{stream}` of an endpoint.
pub(crate) struct StreamName(pub(crate) String);

impl FromRequestParts<RouterState> for StreamName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RouterState) -> Result<StreamName, Problem> {
        let Ok(Path(stream)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(Problem::no_such_resource());
        };
        if !state.name_rule().allows(&stream) {
            return Err(Problem::new(Slug::NotFound, state.name_rule().in_words()));
        }
        Ok(StreamName(stream))
    }
}

/// `{stream}/{secret}`: a session, live or ended a short while ago.
pub(crate) struct SessionUrl {
    stream: String,
    secret: String,
    found: Found,
}

impl FromRequestParts<RouterState> for SessionUrl {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RouterState) -> Result<SessionUrl, Problem> {
        let Ok(Path((stream, secret))) = Path::<(String, String)>::from_request_parts(parts, state).await else {
            return Err(Problem::no_such_resource());
        };
        SessionUrl::find(state, stream, secret)
    }
}

/// `{stream}/{secret}/sse/{secret}`: an event stream of a session.
pub(crate) struct EventStreamUrl {
    pub(crate) session: SessionUrl,
    /// The unguessable part of its own.
    pub(crate) secret: String,
}

impl FromRequestParts<RouterState> for EventStreamUrl {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RouterState) -> Result<EventStreamUrl, Problem> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((stream, secret, events))) = path else { return Err(Problem::no_such_resource()) };
        Ok(EventStreamUrl { session: SessionUrl::find(state, stream, secret)?, secret: events })
    }
}

impl EventStreamUrl {
    /// The event stream, if there still is one.
    pub(crate) fn stream(&self, state: &RouterState) -> Result<Arc<EventStream>, Problem> {
        state.demand_extensions()?;
        let id = self.session.live()?;
        state.signaling.registry.event_stream(id, &self.secret).ok_or_else(Problem::no_such_events)
    }
}

impl SessionUrl {
    fn find(state: &RouterState, stream: String, secret: String) -> Result<SessionUrl, Problem> {
        let tombstone = state.signaling.config().tombstone;
        match state.signaling.registry.find(clock::now(), (state.role, &stream, &secret), tombstone) {
            Some(found) => Ok(SessionUrl { stream, secret, found }),
            None if is_secret(&secret) => Err(Problem::new(Slug::NotFound, "no such session")),
            // Rather a name with a slash than a session (F-22).
            None => Err(Problem::new(Slug::NotFound, format!("no such session; {}", state.name_rule().in_words()))),
        }
    }

    /// Its path below that of the protocol.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.stream, self.secret)
    }

    /// The session, live or not.
    pub(crate) fn id(&self) -> SessionId {
        let (Found::Live(id) | Found::Tombstone(id)) = self.found;
        id
    }

    /// The session, if it is live.
    pub(crate) fn live(&self) -> Result<SessionId, Problem> {
        match self.found {
            Found::Live(id) => Ok(id),
            Found::Tombstone(_) => Err(Problem::session_over()),
        }
    }

    /// Whether a request may do what it wants with the session.
    pub(crate) async fn authorize(&self, state: &RouterState, parts: &Parts) -> Result<(), Problem> {
        let id = self.id();
        authorize_holder(state, &self.stream, parts, id, state.signaling.registry.grant(id).as_ref()).await
    }

    /// The same of a request that counts: of those a session takes so many.
    pub(crate) async fn admit(&self, state: &RouterState, parts: &Parts) -> Result<(), Problem> {
        self.authorize(state, parts).await?;
        state.signaling.take_request(ClientAddress::of(&parts.extensions), self.id())
    }
}

/// The URL alone suffices unless it is said otherwise: it holds 128 random bits, and many clients send their token with the
/// POST only (AUTH-03). A token that is sent all the same must be its holder's. That which opened the session always is:
/// nobody is asked about it again, and it may have expired since.
pub(crate) async fn authorize_holder(
    state: &RouterState,
    stream: &str,
    parts: &Parts,
    id: SessionId,
    grant: Option<&Grant>,
) -> Result<(), Problem> {
    let config = state.signaling.config();
    let shown = authorization(parts, &config);
    if shown.is_none() && config.session_url_suffices {
        return Ok(());
    }
    let token = shown.as_deref().and_then(bearer).map(TokenDigest::of);
    if token.is_some() && grant.is_some_and(|grant| grant.credential == token) {
        return Ok(());
    }
    let holder = state.authorize(stream, parts, id).await?.identity;
    if grant.is_some_and(|grant| grant.identity != holder) {
        let problem = Problem::new(Slug::Forbidden, "the session belongs to the holder of another token");
        return Err(problem.challenge(Some("insufficient_scope")));
    }
    Ok(())
}
