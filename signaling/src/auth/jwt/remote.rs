//! Keys from a JWKS URL: fetched, kept, fetched again when a token names one that is not there (RFC 7517, rotation).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{JwksUrl, KeySet};
use crate::auth::client::{Client, FetchError};
use crate::clock;
use crate::limits::{JWKS_FETCH_INTERVAL, JWKS_REFRESH, JWKS_TIMEOUT, MAX_JWKS};
use crate::observer::{AccessSource, Observer};

/// The keys of one URL.
pub(crate) struct RemoteKeys {
    jwks: JwksUrl,
    client: Client,
    cache: Mutex<Cache>,
    /// One fetch at a time; whoever waits for it uses what it brought.
    fetching: tokio::sync::Mutex<()>,
    observer: Arc<dyn Observer>,
}

/// What is known of the URL.
#[derive(Debug, Default)]
struct Cache {
    keys: KeySet,
    /// When the keys were fetched.
    fetched: Option<Instant>,
    /// When the last attempt began.
    tried: Option<Instant>,
    failing: bool,
}

impl Cache {
    /// The keys, as long as they are valid.
    fn keys(&self, now: Instant, jwks: &JwksUrl) -> Option<KeySet> {
        let age = now.saturating_duration_since(self.fetched?);
        (age < JWKS_REFRESH + jwks.keep).then(|| self.keys.clone())
    }

    /// Attempts, whoever asks for them, have this distance.
    fn may_fetch(&self, now: Instant) -> bool {
        self.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= JWKS_FETCH_INTERVAL)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.may_fetch(now) && self.fetched.is_none_or(|fetched| now.saturating_duration_since(fetched) >= JWKS_REFRESH)
    }
}

impl RemoteKeys {
    pub(crate) fn new(jwks: JwksUrl, observer: Arc<dyn Observer>) -> RemoteKeys {
        let client = Client::new(JWKS_TIMEOUT);
        RemoteKeys { jwks, client, cache: Mutex::default(), fetching: tokio::sync::Mutex::default(), observer }
    }

    pub(super) fn serves(&self, jwks: &JwksUrl) -> bool {
        self.jwks == *jwks
    }

    /// The keys. They are fetched if there are none.
    pub(super) async fn keys(self: &Arc<Self>, now: Instant) -> Option<KeySet> {
        let known = self.cache().keys(now, &self.jwks);
        match known {
            Some(keys) => Some(keys),
            None => self.fetch_again(now).await,
        }
    }

    /// Fetches the keys unless that was just done, and returns those that are there then.
    pub(super) async fn fetch_again(self: &Arc<Self>, now: Instant) -> Option<KeySet> {
        // A task of its own: a client that goes away must not end what others wait for.
        let this = Arc::clone(self);
        tokio::spawn(async move { this.fetch(now).await }).await.ok()?;
        self.cache().keys(clock::now(), &self.jwks)
    }

    /// Fetches keys that are due, beside everything else.
    pub(super) fn tend(self: &Arc<Self>, now: Instant) {
        if self.cache().is_due(now) {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.fetch(now).await });
        }
    }

    async fn fetch(&self, asked: Instant) {
        let _one = self.fetching.lock().await;
        {
            let mut cache = self.cache();
            // Also true if another fetch ended while this one waited.
            if !cache.may_fetch(asked) {
                return;
            }
            cache.tried = Some(clock::now());
        }
        let fetched = self.read().await;
        let mut cache = self.cache();
        match fetched {
            Ok(keys) => {
                cache.keys = keys;
                cache.fetched = Some(clock::now());
                if std::mem::take(&mut cache.failing) {
                    tracing::info!("the JWKS URL answers again");
                }
            }
            Err(error) => {
                self.observer.access_source_failed(AccessSource::Jwks);
                if !std::mem::replace(&mut cache.failing, true) {
                    tracing::warn!(%error, "keys cannot be fetched from the JWKS URL: the last ones stay as long as they may");
                }
            }
        }
    }

    async fn read(&self) -> Result<KeySet, FetchError> {
        let (status, body) = self.client.get(&self.jwks.url, MAX_JWKS).await?;
        if status != http::StatusCode::OK {
            return Err(FetchError(format!("status {status}")));
        }
        KeySet::from_url(&body).map_err(|error| FetchError(error.to_string()))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // AUTH-04
    #[test]
    fn keys_are_refreshed_kept_while_their_url_is_away_and_then_forgotten() {
        let jwks = JwksUrl { url: String::new(), keep: Duration::from_secs(3600) };
        let start = Instant::now();
        let mut cache = Cache::default();
        assert!(cache.is_due(start) && cache.keys(start, &jwks).is_none());
        cache.tried = Some(start);
        assert!(!cache.is_due(start) && cache.is_due(start + JWKS_FETCH_INTERVAL));
        cache.fetched = Some(start);
        assert!(!cache.is_due(start + JWKS_REFRESH - Duration::from_secs(1)) && cache.is_due(start + JWKS_REFRESH));
        let last = start + JWKS_REFRESH + jwks.keep;
        assert!(cache.keys(last - Duration::from_secs(1), &jwks).is_some() && cache.keys(last, &jwks).is_none());
    }

    // AUTH-04
    #[test]
    fn unknown_keys_do_not_make_the_url_be_asked_more_often() {
        let start = Instant::now();
        let cache = Cache { tried: Some(start), fetched: Some(start), ..Cache::default() };
        assert!(!cache.may_fetch(start + JWKS_FETCH_INTERVAL - Duration::from_millis(1)));
        assert!(cache.may_fetch(start + JWKS_FETCH_INTERVAL));
    }
}
