//! State of the two routers, and who may use them.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use media_core::media::Role;

use crate::auth::{Access, Identity, misplaced_token};
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

    /// Which names streams may have.
    pub(crate) fn name_rule(&self) -> NameRule {
        NameRule { slashes: self.signaling.config().slash_names }
    }

    /// Judges the token of a request for a stream. Watching needs none unless viewers are protected. `query` is that of the
    /// request: a token there is told to be in the wrong place.
    pub(crate) fn authorize(
        &self,
        stream: &str,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Identity, Problem> {
        let config = self.signaling.config();
        if self.role == Role::Viewer && !config.protect_viewers {
            return Ok(Identity::Anyone);
        }
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let unauthorized =
            |detail| Problem::new(Slug::Unauthorized, misplaced_token(authorization, query).unwrap_or(detail));
        match config.tokens.check(stream, authorization) {
            Access::Granted(identity) => Ok(identity),
            Access::Missing => {
                Err(unauthorized("no Authorization header: send `Authorization: Bearer TOKEN`").challenge(None))
            }
            Access::Invalid => Err(unauthorized("the token is not known").challenge(Some("invalid_token"))),
            Access::OtherStream => Err(Problem::new(Slug::Forbidden, "the token does not cover this stream")
                .challenge(Some("insufficient_scope"))),
        }
    }
}
