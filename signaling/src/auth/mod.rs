//! Who may publish a stream and who may watch it.
//!
//! Without any source of rights everybody may do everything. With one, publishing needs a right, and watching too if
//! `protect_viewers` is on. The sources are asked in this order, and the first one that knows the token decides: static tokens, JWTs, the
//! webhook. A JWT is known by its signature: one that is expired or for another stream is not asked about elsewhere.

mod bearer;
mod client;
mod failures;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod grant;
mod jwt;
mod lifetime;
mod pattern;
mod shown;
mod tokens;
mod verdict;
mod webhook;

use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

pub(crate) use self::bearer::{bearer, misplaced_token};
use self::failures::Failures;
#[cfg(feature = "fuzzing")]
pub(crate) use self::fuzzing::{fuzz_authorization, fuzz_webhook_answer};
pub use self::grant::{Action, Identity, TokenDigest};
pub(crate) use self::grant::{Ask, Basis, Denial, Grant};
use self::jwt::Jwt;
pub use self::jwt::{JwksUrl, JwtConfig, KeyError, KeySet};
pub use self::pattern::{BadPattern, StreamPattern};
pub(crate) use self::shown::authorization;
pub use self::tokens::{AccessToken, TokenError, Tokens, hashed_line};
use self::verdict::Verdict;
use self::webhook::Webhook;
pub use self::webhook::{WebhookAway, WebhookConfig, WebhookSecret};
use crate::clock;
use crate::config::SignalingConfig;
use crate::observer::{AccessOutcome, Observer};
use crate::registry::NewSession;

/// Judges requests by the sources of a configuration, which may be replaced.
pub(crate) struct Authorizer {
    sources: RwLock<Arc<Sources>>,
    failures: Failures,
    observer: Arc<dyn Observer>,
}

/// Where rights come from.
struct Sources {
    tokens: Tokens,
    jwt: Option<Jwt>,
    webhook: Option<Arc<Webhook>>,
    /// Unknown tokens of a customer that are forgiven in a minute; without it they are not counted.
    failures_per_minute: Option<NonZeroUsize>,
    protect_viewers: bool,
}

impl Authorizer {
    pub(crate) fn new(config: &SignalingConfig, observer: Arc<dyn Observer>) -> Authorizer {
        let sources = RwLock::new(Arc::new(Sources::of(config, None, &observer)));
        Authorizer { sources, failures: Failures::new(), observer }
    }

    /// From now on the sources are those of this configuration.
    pub(crate) fn reconfigure(&self, config: &SignalingConfig) {
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        *sources = Arc::new(Sources::of(config, Some(&sources), &self.observer));
    }

    /// Does what is due beside all requests.
    pub(crate) fn tend(&self, now: Instant) {
        if let Some(jwt) = &self.sources().jwt {
            jwt.tend(now);
        }
    }

    /// Nobody needs to show anything.
    pub(crate) fn is_open(&self) -> bool {
        self.sources().is_empty()
    }

    /// Judges a request.
    pub(crate) async fn judge(&self, ask: &Ask<'_>) -> Result<Grant, Denial> {
        let sources = self.sources();
        if sources.is_empty() {
            return Ok(Grant::open());
        }
        let judged = self.judge_by(&sources, ask).await;
        self.observer.access_judged(ask.action, AccessOutcome::of(&judged));
        judged
    }

    /// Whether the sources of now still give a session the right that it was opened by.
    pub(crate) fn stands(&self, session: &NewSession) -> bool {
        self.sources().stands(session)
    }

    async fn judge_by(&self, sources: &Sources, ask: &Ask<'_>) -> Result<Grant, Denial> {
        let token = match ask.authorization {
            Some(value) => Some(bearer(value).ok_or(Denial::Unknown)?),
            // It may know by the address.
            None if sources.webhook.is_some() => None,
            None => return Err(Denial::Missing),
        };
        let Some(per_minute) = sources.failures_per_minute else { return sources.judge(ask, token).await };
        let shown = token.map(TokenDigest::of);
        let (customer, credential) = (ask.address.customer(), TokenDigest::credential(shown.as_ref(), ask.stream));
        self.failures.admit(clock::now(), per_minute, customer, credential).map_err(Denial::TooManyFailures)?;
        let judged = sources.judge(ask, token).await;
        match &judged {
            Ok(_) => self.failures.proven(customer, credential),
            Err(denial) if denial.is_guess() => self.failures.failed(clock::now(), per_minute, customer, credential),
            Err(_) => {}
        }
        judged
    }

    fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sources {
    /// What `before` has learnt stays as far as its settings do.
    fn of(config: &SignalingConfig, before: Option<&Sources>, observer: &Arc<dyn Observer>) -> Sources {
        let (jwt, webhook) = (before.and_then(|old| old.jwt.as_ref()), before.and_then(|old| old.webhook.as_ref()));
        Sources {
            tokens: config.tokens.clone(),
            jwt: config.jwt.as_ref().map(|config| Jwt::new(config, jwt, observer)),
            webhook: config.webhook.as_ref().map(|config| Webhook::new(config, webhook, observer)),
            failures_per_minute: NonZeroUsize::new(config.auth_failures),
            protect_viewers: config.protect_viewers,
        }
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.jwt.is_none() && self.webhook.is_none()
    }

    async fn judge(&self, ask: &Ask<'_>, token: Option<&[u8]>) -> Result<Grant, Denial> {
        let mut is_away = false;
        if let Some(token) = token {
            if let Some(judged) = self.tokens.judge(ask.stream, ask.action, &TokenDigest::of(token)) {
                return judged;
            }
            if let Some(jwt) = &self.jwt {
                match jwt.judge(clock::now(), ask, token).await {
                    Verdict::Decided(judged) => return judged,
                    Verdict::Unknown => {}
                    Verdict::Away => is_away = true,
                }
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.judge(clock::now(), ask, token).await {
                Verdict::Decided(Ok(grant)) => return Ok(grant),
                // Another source might have known it.
                Verdict::Decided(Err(denial)) if !is_away => return Err(denial),
                Verdict::Decided(Err(_)) | Verdict::Unknown => {}
                Verdict::Away => is_away = true,
            }
        }
        match token {
            _ if is_away => Err(Denial::Unavailable),
            Some(_) => Err(Denial::Unknown),
            None => Err(Denial::Missing),
        }
    }

    fn stands(&self, session: &NewSession) -> bool {
        let action = session.role.into();
        if self.is_empty() || action == Action::Watch && !self.protect_viewers {
            return true;
        }
        match session.grant.basis {
            Basis::Open => false,
            Basis::Jwt(key) => self.jwt.as_ref().is_some_and(|jwt| jwt.trusts(&key)),
            Basis::Webhook => self.webhook.is_some(),
            Basis::Token(digest) => matches!(self.tokens.judge(&session.stream, action, &digest), Some(Ok(_))),
        }
    }
}
