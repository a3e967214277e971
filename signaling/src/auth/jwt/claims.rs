//! What a JWT says: its rights to streams, and their limits.

use std::num::NonZeroUsize;

use jsonwebtoken::Validation;
use serde::Deserialize;

use super::JwtConfig;
use crate::auth::grant::{Action, Denial, GrantLimits};
use crate::auth::pattern::StreamPattern;
use crate::limits::{JWT_LEEWAY, MAX_CLAIM_STREAMS};

/// The claims that count here. `nbf` and the values of `iss` and `aud` are judged by the crate before.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    /// RFC 7519 §4.1.4: seconds since 1970, perhaps with a fraction.
    pub(super) exp: Option<f64>,
    pub(super) sub: Option<String>,
    pub(super) iss: Option<String>,
    aud: Option<serde_json::Value>,
    /// One stream, by its name.
    stream: Option<String>,
    /// Streams by name or pattern.
    streams: Option<Vec<String>>,
    /// `publish`, `watch`, or both in a list.
    action: Option<OneOrMore>,
    /// Bits a second.
    max_bitrate: Option<u64>,
    max_sessions: Option<NonZeroUsize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// What the crate judges. The algorithm is set by key.
pub(super) fn validation(config: &JwtConfig) -> Validation {
    let mut validation = Validation::default();
    validation.leeway = JWT_LEEWAY.as_secs();
    validation.validate_nbf = true;
    validation.required_spec_claims.clear();
    // Where the crate finds a claim that it does not require, of a wrong type, it passes it over.
    let mut require = |claim: &str| validation.required_spec_claims.insert(claim.to_owned());
    if config.require_exp {
        require("exp");
    }
    if !config.issuers.is_empty() {
        require("iss");
    }
    if !config.audiences.is_empty() {
        require("aud");
    }
    if !config.issuers.is_empty() {
        validation.set_issuer(&config.issuers);
    }
    if !config.audiences.is_empty() {
        validation.set_audience(&config.audiences);
    }
    validation
}

impl Claims {
    /// Whether they give this right.
    pub(super) fn judge(&self, config: &JwtConfig, stream: &str, action: Action) -> Result<(), Denial> {
        // RFC 7519 §4.1.3: who does not know itself in it must refuse.
        if config.audiences.is_empty() && self.aud.is_some() {
            return Err(Denial::Refused("the token is for an audience, and jwt_audience is not set"));
        }
        if self.streams.as_ref().is_some_and(|streams| streams.len() > MAX_CLAIM_STREAMS) {
            return Err(Denial::Refused("the token names too many streams"));
        }
        if self.stream.is_none() && self.streams.is_none() {
            return Err(Denial::OutOfScope("the token has neither a claim `stream` nor `streams`"));
        }
        let covers = |pattern: &String| pattern.parse::<StreamPattern>().is_ok_and(|pattern| pattern.covers(stream));
        let is_named = self.stream.as_deref() == Some(stream);
        if !is_named && !self.streams.iter().flatten().any(covers) {
            return Err(Denial::OutOfScope("the token does not cover this stream"));
        }
        let allows = |allowed: &String| allowed == action.as_str();
        match &self.action {
            Some(OneOrMore::One(allowed)) if allows(allowed) => Ok(()),
            Some(OneOrMore::More(allowed)) if allowed.iter().any(allows) => Ok(()),
            Some(_) if action == Action::Publish => Err(Denial::OutOfScope("the token does not allow to publish")),
            Some(_) => Err(Denial::OutOfScope("the token does not allow to watch")),
            None => Err(Denial::OutOfScope("the token has no claim `action`")),
        }
    }

    pub(super) fn limits(&self) -> GrantLimits {
        GrantLimits { max_bitrate: self.max_bitrate, max_sessions: self.max_sessions }
    }
}
