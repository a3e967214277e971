//! An operator's own service that is asked by HTTP POST who may do what.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{StatusCode, Uri};
use lru::LruCache;
use media_core::SessionId;
use openssl::base64::{decode_block, encode_block};
use openssl::sha::Sha256;
use ring::hmac;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};
use tokio::sync::Semaphore;

use super::client::{Client, FetchError};
use super::grant::{Action, Ask, Basis, Denial, Grant, GrantLimits, Identity, TokenDigest};
use super::verdict::Verdict;
use crate::clock;
use crate::limits::{MAX_WEBHOOK_ANSWER, MAX_WEBHOOK_CALLS, MAX_WEBHOOK_DECISIONS, WEBHOOK_DENIAL_CACHE, WEBHOOK_KEEP};
use crate::observer::{AccessSource, Observer};
use crate::random;
use crate::redirect::is_target;

/// How the service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// http or https.
    pub url: String,
    /// Signs what is sent.
    pub secret: Option<WebhookSecret>,
    /// For an answer; beyond it the service counts as away.
    pub timeout: Duration,
    /// For how long a right that it gave is given again without asking.
    pub cache: Duration,
    /// What happens while it is away.
    pub away: WebhookAway,
}

/// What happens while the service does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum WebhookAway {
    /// Nobody gets a right from it: POST gets 503.
    #[default]
    Deny,
    /// Rights that it gave within the last hour are given again; everybody else gets 503.
    Cached,
}

/// The key of the signature. Its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Reads the text of a file: `whsec_` and Base64 as libraries of Standard Webhooks write it, or else the bytes themselves.
    /// `None` if there are fewer than 24 bytes, the least of Standard Webhooks.
    pub fn read(text: &str) -> Option<WebhookSecret> {
        let text = text.trim();
        let bytes = match text.strip_prefix("whsec_") {
            Some(encoded) => decode_block(encoded).ok()?,
            None => text.as_bytes().to_vec(),
        };
        (bytes.len() >= 24).then_some(WebhookSecret(bytes))
    }

    /// The header `webhook-signature` of Standard Webhooks.
    fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let signature = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", encode_block(signature.as_ref()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// What is asked.
#[derive(Serialize)]
struct Question<'a> {
    action: Action,
    stream: &'a str,
    /// As it was shown, or null where nothing was.
    token: Option<&'a str>,
    address: IpAddr,
    session: SessionId,
}

/// What is answered with 200.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Answer {
    allow: bool,
    /// Whose sessions these are; without it those of the token's holder.
    identity: Option<String>,
    /// Seconds from now until the right ends.
    expires_in: Option<u64>,
    /// Bits a second.
    max_bitrate: Option<u64>,
    max_sessions: Option<NonZeroUsize>,
    /// URL of the endpoint of another node.
    redirect: Option<String>,
}

/// What an answer means.
#[derive(Clone, Debug)]
enum Decision {
    Granted(Granted),
    Denied(Denial),
}

#[derive(Clone, Debug)]
struct Granted {
    identity: Identity,
    expires: Option<Instant>,
    limits: GrantLimits,
    redirect: Option<Arc<str>>,
}

/// Asks the service.
pub(crate) struct Webhook {
    config: WebhookConfig,
    client: Client,
    /// Bounds the calls under way; the others wait within their time.
    calls: Semaphore,
    cache: Mutex<Cache>,
    observer: Arc<dyn Observer>,
}

/// What it said, by what it was asked. What was denied has a table of its own: whoever is denied much must not push out what
/// was granted.
struct Cache {
    granted: LruCache<[u8; 32], (Instant, Granted)>,
    denied: LruCache<[u8; 32], (Instant, Denial)>,
    failing: bool,
}

impl Cache {
    fn new() -> Cache {
        Cache {
            granted: LruCache::sparse(MAX_WEBHOOK_DECISIONS),
            denied: LruCache::sparse(MAX_WEBHOOK_DECISIONS),
            failing: false,
        }
    }

    /// What was said within `cache`.
    fn fresh(&mut self, now: Instant, key: &[u8; 32], cache: Duration) -> Option<Decision> {
        if let Some(granted) = self.granted_within(now, key, cache) {
            return Some(Decision::Granted(granted));
        }
        let (at, denial) = self.denied.get(key)?;
        let is_fresh = now.saturating_duration_since(*at) < cache.min(WEBHOOK_DENIAL_CACHE);
        is_fresh.then(|| Decision::Denied(denial.clone()))
    }

    /// A right that was given in this time and has not expired.
    fn granted_within(&mut self, now: Instant, key: &[u8; 32], time: Duration) -> Option<Granted> {
        let (at, granted) = self.granted.get(key)?;
        let lasts = granted.expires.is_none_or(|expires| now < expires);
        (now.saturating_duration_since(*at) < time && lasts).then(|| granted.clone())
    }

    /// The last word counts.
    fn put(&mut self, now: Instant, key: [u8; 32], decision: &Decision) {
        match decision {
            Decision::Granted(granted) => {
                self.denied.pop(&key);
                self.granted.put(key, (now, granted.clone()));
            }
            Decision::Denied(denial) => {
                self.granted.pop(&key);
                self.denied.put(key, (now, denial.clone()));
            }
        }
    }
}

impl Webhook {
    /// What `before` knows stays if it asked the same service.
    pub(crate) fn new(
        config: &WebhookConfig,
        before: Option<&Arc<Webhook>>,
        observer: &Arc<dyn Observer>,
    ) -> Arc<Webhook> {
        if let Some(known) = before.filter(|before| before.config == *config) {
            return Arc::clone(known);
        }
        Arc::new(Webhook {
            client: Client::new(config.timeout),
            config: config.clone(),
            calls: Semaphore::new(MAX_WEBHOOK_CALLS),
            cache: Mutex::new(Cache::new()),
            observer: Arc::clone(observer),
        })
    }

    pub(crate) async fn judge(&self, now: Instant, ask: &Ask<'_>, token: Option<&[u8]>) -> Verdict {
        let text = match token.map(std::str::from_utf8) {
            Some(Err(_)) => return Verdict::Unknown,
            Some(Ok(text)) => Some(text),
            None => None,
        };
        let shown = token.map(TokenDigest::of);
        let key = key(ask, shown.as_ref());
        let known = self.cache().fresh(now, &key, self.config.cache);
        let decision = match known {
            Some(decision) => Some(decision),
            None => self.ask(ask, text, shown.as_ref(), key).await,
        };
        match decision {
            Some(Decision::Granted(Granted { identity, expires, limits, redirect })) => {
                let basis = Basis::Webhook;
                Verdict::Decided(Ok(Grant { identity, basis, credential: shown, expires, limits, redirect }))
            }
            Some(Decision::Denied(denial)) => Verdict::Decided(Err(denial)),
            None => Verdict::Away,
        }
    }

    /// Asks the service; while it is away, what it said before may count.
    async fn ask(
        &self,
        ask: &Ask<'_>,
        token: Option<&str>,
        shown: Option<&TokenDigest>,
        key: [u8; 32],
    ) -> Option<Decision> {
        let called = tokio::time::timeout(self.config.timeout, self.call(ask, token)).await;
        let called = called.unwrap_or_else(|_| Err(FetchError("no answer in time".to_owned())));
        let decided = called.and_then(|(status, body)| decide(clock::now(), status, &body, shown));
        let mut cache = self.cache();
        match decided {
            Ok(decision) => {
                cache.put(clock::now(), key, &decision);
                if std::mem::take(&mut cache.failing) {
                    tracing::info!("the access webhook answers again");
                }
                Some(decision)
            }
            Err(error) => {
                self.observer.access_source_failed(AccessSource::Webhook);
                if !std::mem::replace(&mut cache.failing, true) {
                    tracing::warn!(%error, away = %self.config.away, "the access webhook does not answer as it should");
                }
                match self.config.away {
                    WebhookAway::Deny => None,
                    WebhookAway::Cached => {
                        cache.granted_within(clock::now(), &key, WEBHOOK_KEEP).map(Decision::Granted)
                    }
                }
            }
        }
    }

    async fn call(&self, ask: &Ask<'_>, token: Option<&str>) -> Result<(StatusCode, Vec<u8>), FetchError> {
        let _permit = self.calls.acquire().await.map_err(|error| FetchError(error.to_string()))?;
        let question = Question {
            action: ask.action,
            stream: ask.stream,
            token,
            address: ask.address.0.to_canonical(),
            session: ask.session,
        };
        let body = serde_json::to_string(&question).map_err(|error| FetchError(error.to_string()))?;
        let mut headers = vec![("content-type", "application/json".to_owned())];
        if let Some(secret) = &self.config.secret {
            let id = random::hex::<16>().map_err(|error| FetchError(error.to_string()))?;
            let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            headers.push(("webhook-signature", secret.sign(&id, timestamp, &body)));
            headers.push(("webhook-timestamp", timestamp.to_string()));
            headers.push(("webhook-id", id));
        }
        self.client.post(&self.config.url, headers, body, MAX_WEBHOOK_ANSWER).await
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer depends on. The session is none of it.
fn key(ask: &Ask<'_>, shown: Option<&TokenDigest>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(ask.action.as_str().as_bytes());
    hash.update(&[0]);
    hash.update(ask.stream.as_bytes());
    hash.update(&[0]);
    hash.update(ask.address.0.to_canonical().to_string().as_bytes());
    hash.update(&[0, u8::from(shown.is_some())]);
    hash.update(&shown.map_or([0; 32], |digest| digest.0));
    hash.finish()
}

/// What an answer means; one that means nothing is none.
fn decide(now: Instant, status: StatusCode, body: &[u8], shown: Option<&TokenDigest>) -> Result<Decision, FetchError> {
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED if shown.is_none() => return Ok(Decision::Denied(Denial::Missing)),
        StatusCode::UNAUTHORIZED => return Ok(Decision::Denied(Denial::Unknown)),
        StatusCode::FORBIDDEN => return Ok(Decision::Denied(Denial::ByWebhook)),
        other => return Err(FetchError(format!("status {other}"))),
    }
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| FetchError("an answer that is not of the stated form".to_owned()))?;
    if !answer.allow {
        return Ok(Decision::Denied(Denial::ByWebhook));
    }
    let redirect = answer.redirect.as_deref().map(|url| url.parse::<Uri>().ok().filter(is_target));
    if redirect == Some(None) {
        return Err(FetchError("a redirect to something that is no http or https URL".to_owned()));
    }
    let identity = match (&answer.identity, shown) {
        (Some(name), _) => Identity::of("webhook", Some(name), &TokenDigest::of(name.as_bytes())),
        (None, Some(shown)) => Identity::of("webhook", None, shown),
        (None, None) => Identity::Anyone,
    };
    Ok(Decision::Granted(Granted {
        identity,
        expires: answer.expires_in.and_then(|seconds| now.checked_add(Duration::from_secs(seconds))),
        limits: GrantLimits { max_bitrate: answer.max_bitrate, max_sessions: answer.max_sessions },
        redirect: answer.redirect.map(Arc::from),
    }))
}

/// Reads an answer, for the fuzz target.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_answer(body: &[u8]) {
    let decided = decide(clock::now(), StatusCode::OK, body, None);
    if let Ok(Decision::Granted(granted)) = decided {
        assert!(granted.identity.name().is_none_or(|name| name.len() <= 160 && name.starts_with("webhook:")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_address::ClientAddress;

    fn ask<'a>(stream: &'a str, address: &str) -> Ask<'a> {
        Ask {
            stream,
            action: Action::Publish,
            authorization: None,
            address: ClientAddress(address.parse().unwrap()),
            session: SessionId(1),
        }
    }

    fn decision(status: u16, body: &str, shown: Option<&TokenDigest>) -> Result<Decision, FetchError> {
        decide(Instant::now(), StatusCode::from_u16(status).unwrap(), body.as_bytes(), shown)
    }

    #[test]
    fn answers_allow_deny_or_are_none() {
        let token = TokenDigest::of(b"token");
        let full =
            r#"{"allow":true,"identity":"alice","expires_in":60,"max_bitrate":2500000,"max_sessions":2,"more":1}"#;
        let Ok(Decision::Granted(granted)) = decision(200, full, Some(&token)) else { panic!() };
        assert_eq!(granted.identity.name(), Some("webhook:alice"));
        assert_eq!(granted.limits, GrantLimits { max_bitrate: Some(2_500_000), max_sessions: NonZeroUsize::new(2) });
        assert!(granted.expires.is_some());
        for (status, body, with_token, expected) in [
            (200, r#"{"allow":false}"#, true, Denial::ByWebhook),
            (401, "", true, Denial::Unknown),
            (401, "", false, Denial::Missing),
            (403, "<html>", true, Denial::ByWebhook),
        ] {
            let Ok(Decision::Denied(denial)) = decision(status, body, with_token.then_some(&token)) else { panic!() };
            assert_eq!(denial, expected);
        }
        for (status, body) in [
            (200, ""),
            (200, "true"),
            (200, "{}"),
            (200, r#"{"allow":"true"}"#),
            (200, r#"{"allow":1}"#),
            (200, r#"{"allow":true,"max_bitrate":-1}"#),
            (200, r#"{"allow":true,"max_sessions":0}"#),
            (200, r#"{"allow":true,"expires_in":"60"}"#),
            (200, r#"{"allow":true,"redirect":""}"#),
            (200, r#"{"allow":true,"redirect":"/whep/cam"}"#),
            (200, r#"{"allow":true,"redirect":"https://me:secret@b.example/whep/cam"}"#),
            (201, r#"{"allow":true}"#),
            (204, ""),
            (302, ""),
            (404, ""),
            (500, r#"{"allow":true}"#),
        ] {
            assert!(decision(status, body, Some(&token)).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn what_was_said_counts_for_its_time_and_denials_for_less() {
        let (cache_time, start) = (Duration::from_secs(30), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        let (one, two) = ([1; 32], [2; 32]);
        let granted = Granted {
            identity: Identity::Anyone,
            expires: Some(later(20)),
            limits: GrantLimits::default(),
            redirect: None,
        };
        let mut cache = Cache::new();
        cache.put(start, one, &Decision::Granted(granted.clone()));
        cache.put(start, two, &Decision::Denied(Denial::Unknown));
        assert!(matches!(cache.fresh(later(19), &one, cache_time), Some(Decision::Granted(_))));
        assert!(cache.fresh(later(20), &one, cache_time).is_none(), "the right has expired");
        assert!(matches!(cache.fresh(later(4), &two, cache_time), Some(Decision::Denied(_))));
        assert!(cache.fresh(later(5), &two, cache_time).is_none(), "whoever was let in since need not wait");
        // While the service is away.
        let lasting = Granted { expires: None, ..granted };
        cache.put(start, one, &Decision::Granted(lasting));
        assert!(cache.fresh(later(30), &one, cache_time).is_none());
        assert!(cache.granted_within(later(3599), &one, WEBHOOK_KEEP).is_some());
        assert!(cache.granted_within(later(3600), &one, WEBHOOK_KEEP).is_none());
        // It took the right back.
        cache.put(later(40), one, &Decision::Denied(Denial::Unknown));
        assert!(cache.granted_within(later(41), &one, WEBHOOK_KEEP).is_none());
    }

    #[test]
    fn an_answer_is_for_one_question_only() {
        let (token, other) = (TokenDigest::of(b"token"), TokenDigest::of(b"other"));
        let asked = ask("show", "192.0.2.1");
        let same = Ask { session: SessionId(2), ..asked };
        assert_eq!(key(&asked, Some(&token)), key(&same, Some(&token)));
        let watching = Ask { action: Action::Watch, ..asked };
        for different in [
            key(&asked, Some(&other)),
            key(&asked, None),
            key(&watching, Some(&token)),
            key(&ask("show2", "192.0.2.1"), Some(&token)),
            key(&ask("show", "192.0.2.2"), Some(&token)),
        ] {
            assert_ne!(key(&asked, Some(&token)), different);
        }
    }

    #[test]
    fn memory_is_bounded_and_denials_push_no_grant_out() {
        let now = Instant::now();
        let mut cache = Cache::new();
        let granted =
            Granted { identity: Identity::Anyone, expires: None, limits: GrantLimits::default(), redirect: None };
        cache.put(now, [7; 32], &Decision::Granted(granted));
        for n in 0..50_000u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            cache.put(now, key, &Decision::Denied(Denial::Unknown));
        }
        assert_eq!(cache.denied.len(), MAX_WEBHOOK_DECISIONS.get());
        assert!(cache.fresh(now, &[7; 32], Duration::from_secs(1)).is_some());
    }

    // The example of https://github.com/standard-webhooks/standard-webhooks
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = WebhookSecret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let body = r#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "<redacted>");
        assert!(WebhookSecret::read("too short").is_none() && WebhookSecret::read("whsec_!!!").is_none());
    }
}
