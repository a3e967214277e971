//! JSON Web Tokens (RFC 7519), by the rules of RFC 8725.

mod claims;
mod crypto;
mod keys;
mod remote;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};

use self::claims::{Claims, validation};
pub(crate) use self::keys::KeyDigest;
pub use self::keys::{KeyError, KeySet};
use self::remote::RemoteKeys;
use super::grant::{Ask, Basis, Denial, Grant, Identity, TokenDigest};
use super::verdict::Verdict;
use crate::limits::{JWT_LEEWAY, MAX_JWT};
use crate::observer::Observer;

/// How JWTs are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtConfig {
    /// Keys of a file.
    pub keys: KeySet,
    /// Where further keys are fetched.
    pub remote: Option<JwksUrl>,
    /// Accepted values of `iss`; with none of them any is.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`; with none of them a token must not have any.
    pub audiences: Vec<String>,
    /// Tokens without `exp` are refused.
    pub require_exp: bool,
}

/// A JWK set that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    /// http or https.
    pub url: String,
    /// While it does not answer, its last keys stay valid for this long.
    pub keep: Duration,
}

/// Judges JWTs.
pub(crate) struct Jwt {
    config: JwtConfig,
    remote: Option<Arc<RemoteKeys>>,
    validation: Validation,
}

/// A token whose signature no key verified, or one that was verified and is not good.
enum Refusal {
    Unverified,
    Denied(Denial),
}

impl Jwt {
    /// Keys that `before` has fetched from the same URL stay.
    pub(crate) fn new(config: &JwtConfig, before: Option<&Jwt>, observer: &Arc<dyn Observer>) -> Jwt {
        let remote = config.remote.as_ref().map(|jwks| {
            let known = before.and_then(|before| before.remote.as_ref()).filter(|remote| remote.serves(jwks));
            known.map_or_else(|| Arc::new(RemoteKeys::new(jwks.clone(), Arc::clone(observer))), Arc::clone)
        });
        Jwt { validation: validation(config), config: config.clone(), remote }
    }

    /// Fetches keys that are due.
    pub(crate) fn tend(&self, now: Instant) {
        if let Some(remote) = &self.remote {
            remote.tend(now);
        }
    }

    /// Whether a key may still verify: those of a URL come and go by themselves, which takes nothing back.
    pub(crate) fn trusts(&self, key: &KeyDigest) -> bool {
        self.remote.is_some() || self.config.keys.has(key)
    }

    /// Judges what may be a JWT.
    pub(crate) async fn judge(&self, now: Instant, ask: &Ask<'_>, token: &[u8]) -> Verdict {
        if token.len() > MAX_JWT {
            return Verdict::Unknown;
        }
        let Ok(header) = decode_header(token) else { return Verdict::Unknown };
        // RFC 7515 §4.1.11: no extension is understood here.
        if header.crit.is_some() {
            return Verdict::Unknown;
        }
        match self.judge_by(&self.config.keys, &header, ask, token) {
            Err(Refusal::Unverified) => {}
            judged => return judged.into(),
        }
        let Some(remote) = &self.remote else { return Verdict::Unknown };
        let Some(keys) = remote.keys(now).await else { return Verdict::Away };
        match self.judge_by(&keys, &header, ask, token) {
            Err(Refusal::Unverified) => {}
            judged => return judged.into(),
        }
        // A key that is new since the last time.
        if header.kid.as_ref().is_some_and(|kid| !keys.knows(kid))
            && let Some(keys) = remote.fetch_again(now).await
        {
            return self.judge_by(&keys, &header, ask, token).into();
        }
        Verdict::Unknown
    }

    fn judge_by(&self, keys: &KeySet, header: &Header, ask: &Ask<'_>, token: &[u8]) -> Result<Grant, Refusal> {
        for (key, digest) in keys.candidates(header) {
            match self.verify(key, header, token) {
                Err(Refusal::Unverified) => {}
                Err(denied) => return Err(denied),
                Ok(claims) => {
                    claims.judge(&self.config, ask.stream, ask.action).map_err(Refusal::Denied)?;
                    return Ok(self.grant(&claims, digest, token));
                }
            }
        }
        Err(Refusal::Unverified)
    }

    fn verify(&self, key: &DecodingKey, header: &Header, token: &[u8]) -> Result<Claims, Refusal> {
        // `header` is the token's, and the key was chosen as one of its algorithm.
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        decode(token, key, &validation).map(|data| data.claims).map_err(|error| {
            Refusal::Denied(Denial::Refused(match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token is not valid yet",
                ErrorKind::InvalidIssuer => "the token is of another issuer",
                ErrorKind::InvalidAudience => "the token is for another audience",
                ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim that is required: exp, iss or aud",
                ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => "a claim of the token has a wrong type",
                _ => return Refusal::Unverified,
            }))
        })
    }

    fn grant(&self, claims: &Claims, key: KeyDigest, token: &[u8]) -> Grant {
        let digest = TokenDigest::of(token);
        // Where several issuers count, each has names of its own.
        let name = claims.sub.as_ref().map(|sub| match &claims.iss {
            Some(issuer) if self.config.issuers.len() != 1 => format!("{sub}@{issuer}"),
            _ => sub.clone(),
        });
        Grant {
            identity: Identity::of("jwt", name.as_deref(), &digest),
            basis: Basis::Jwt(key),
            credential: Some(digest),
            expires: claims.exp.and_then(expires),
            limits: claims.limits(),
            redirect: None,
        }
    }
}

/// When a right ends that has this `exp`: as late as the token is accepted. `None` where the clock does not reach.
fn expires(exp: f64) -> Option<Instant> {
    let exp = Duration::try_from_secs_f64(exp).ok()?.checked_add(JWT_LEEWAY)?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    crate::clock::now().checked_add(exp.saturating_sub(since_epoch))
}

impl From<Result<Grant, Refusal>> for Verdict {
    fn from(judged: Result<Grant, Refusal>) -> Verdict {
        match judged {
            Ok(grant) => Verdict::Decided(Ok(grant)),
            Err(Refusal::Denied(denial)) => Verdict::Decided(Err(denial)),
            Err(Refusal::Unverified) => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
