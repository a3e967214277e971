//! State of the two routers, and who may use them.

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;
use media_core::SessionId;
use media_core::media::Role;

use crate::auth::{Action, Ask, Denial, Grant, authorization, misplaced_token};
use crate::client_address::ClientAddress;
use crate::names::NameRule;
use crate::problem::{Problem, Slug};
use crate::service::Signaling;

/// State of the router of WHIP, or of that of WHEP.
#[derive(Clone)]
pub(crate) struct RouterState {
    pub(crate) signaling: Arc<Signaling>,
    /// Whose sessions this router opens.
    pub(crate) role: Role,
}

impl RouterState {
    /// Where the router stands.
    pub(crate) fn prefix(&self) -> &'static str {
        match self.role {
            Role::Publisher => "/whip",
            Role::Viewer => "/whep",
        }
    }

    /// The URL of a path below that: absolute where the public base is known, else an absolute path, as clients resolve anything
    /// shorter wrongly (WHIP-03).
    pub(crate) fn url(&self, path: &str) -> Result<HeaderValue, Problem> {
        let config = self.signaling.config();
        let base = config.public_base_url.as_deref().unwrap_or_default().trim_end_matches('/');
        header_value(&format!("{base}{}/{path}", self.prefix()))
    }

    /// Refuses what is part of WHEP's extensions where they are switched off.
    pub(crate) fn demand_extensions(&self) -> Result<(), Problem> {
        match self.signaling.config().whep_extensions {
            true => Ok(()),
            false => Err(Problem::no_such_resource()),
        }
    }

    /// Which names streams may have.
    pub(crate) fn name_rule(&self) -> NameRule {
        NameRule { slashes: self.signaling.config().slash_names }
    }

    /// Judges whether a request may do with a stream what this router is for. Watching needs no right unless viewers are
    /// protected. `session` is the one that it would open, or that it names.
    pub(crate) async fn authorize(&self, stream: &str, parts: &Parts, session: SessionId) -> Result<Grant, Problem> {
        if self.role == Role::Viewer && !self.signaling.config().protect_viewers {
            return Ok(Grant::open());
        }
        self.signaling.authorize(stream, self.role.into(), parts, session).await
    }

    /// Whether a request that opens nothing shows that it may open a session. Without a token nobody is asked: most of those
    /// who only look have none, and it is no guess.
    pub(crate) async fn may_open(&self, stream: &str, parts: &Parts, session: SessionId) -> bool {
        let is_open = match self.role {
            Role::Viewer if !self.signaling.config().protect_viewers => true,
            _ => self.signaling.authorizer.is_open(),
        };
        let shows_token = authorization(parts, &self.signaling.config()).is_some();
        is_open || (shows_token && self.authorize(stream, parts, session).await.is_ok())
    }
}

/// A text as the value of a header.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| Problem::new(Slug::Internal, "a header value is not ASCII"))
}

impl Signaling {
    /// Judges whether a request may know the names of all streams: it takes a right to watch them all.
    ///
    /// # Errors
    ///
    /// The answer to the request.
    pub async fn authorize_listing(&self, parts: &Parts) -> Result<(), Problem> {
        // No stream has the name `*`: only rights for all streams cover it.
        self.authorize("*", Action::Watch, parts, SessionId(0)).await.map(drop)
    }

    async fn authorize(
        &self,
        stream: &str,
        action: Action,
        parts: &Parts,
        session: SessionId,
    ) -> Result<Grant, Problem> {
        let shown = authorization(parts, &self.config());
        let authorization = shown.as_deref();
        let address = ClientAddress::of(&parts.extensions);
        let denial = match self.authorizer.judge(&Ask { stream, action, authorization, address, session }).await {
            Ok(grant) => return Ok(grant),
            Err(denial) => denial,
        };
        let unauthorized = |detail| {
            Problem::new(Slug::Unauthorized, misplaced_token(authorization, parts.uri.query()).unwrap_or(detail))
        };
        Err(match denial {
            Denial::Missing => {
                unauthorized("no Authorization header: send `Authorization: Bearer TOKEN`").challenge(None)
            }
            Denial::Unknown => unauthorized("the token is not known").challenge(Some("invalid_token")),
            Denial::Refused(detail) => Problem::new(Slug::Unauthorized, detail).challenge(Some("invalid_token")),
            Denial::ByWebhook => Problem::new(Slug::Forbidden, "the operator's service does not allow it")
                .challenge(Some("insufficient_scope")),
            Denial::Unavailable => {
                Problem::retry_later(Slug::AccessUnavailable, "those who would know the token do not answer now")
            }
            Denial::TooManyFailures(wait) => Problem::retry_in(Slug::TooManyFailures, wait, |seconds| {
                format!("too many unknown tokens came from this address; the next one is read in {seconds} s")
            }),
            Denial::OutOfScope(detail) => Problem::new(Slug::Forbidden, detail).challenge(Some("insufficient_scope")),
        })
    }
}
