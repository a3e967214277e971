//! HTTPS of the public listener: whose certificate it shows, and how that changes while the server runs.

mod acceptor;
pub mod acme;
pub mod identity;
pub mod make;
pub mod redirect;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::acceptor::Accepted;
use self::acceptor::{Acceptor, Challenges};
use self::acme::AcmeOrder;
use self::identity::Identity;
use self::make::{MakeError, Names};
use crate::metrics::Metrics;

/// A self-signed certificate is valid for this long, which is as much as all browsers allow; each start makes a new one.
const SELF_SIGNED_LIFETIME: Duration = Duration::from_secs(397 * 86_400);

/// Until the certificate authority has answered, something has to be shown.
const PLACEHOLDER_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsSource {
    /// From files, which were read.
    Files(Identity),
    /// It is made for these names.
    SelfSigned(Names),
    /// From a certificate authority.
    Acme(AcmeOrder),
}

/// How the public listener speaks TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// Where the certificate comes from.
    pub source: TlsSource,
    /// Seconds for which browsers are told to use nothing but HTTPS (RFC 6797); 0: they are told nothing.
    pub hsts: u64,
}

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// OpenSSL refuses it.
    #[error("the certificate cannot be used: {0}")]
    Refused(#[from] openssl::error::ErrorStack),
    /// None could be made.
    #[error("no certificate could be made: {0}")]
    Made(#[from] MakeError),
    /// What an authority gives could not be kept.
    #[error("acme_state: {folder}: {source}\n  allowed: a folder that the server may write")]
    State {
        /// The folder.
        folder: String,
        /// What the system said.
        source: io::Error,
    },
}

/// TLS as it is served now. Whether there is any, and with which certificate, may change at any time; a connection keeps what it
/// began with.
pub struct Tls {
    current: RwLock<Option<Arc<Current>>>,
    challenges: Challenges,
    metrics: Arc<Metrics>,
}

/// What new connections get.
pub(crate) struct Current {
    settings: TlsSettings,
    identity: Identity,
    acceptor: Acceptor,
    hsts: Option<HeaderValue>,
}

impl Tls {
    /// None at first.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Tls> {
        Arc::new(Tls { current: RwLock::default(), challenges: Challenges::default(), metrics })
    }

    /// Takes new settings; without any, clear text is served. A certificate that was made or obtained stays if it may.
    ///
    /// # Errors
    /// What was served before is served on.
    pub fn set(&self, settings: Option<TlsSettings>) -> Result<(), TlsError> {
        let next = match settings {
            Some(settings) => {
                let identity = self.identity_for(&settings.source)?;
                Some(Current::new(settings, identity, self.challenges.clone())?)
            }
            None => None,
        };
        self.place(next);
        Ok(())
    }

    /// Whether these settings can be served.
    ///
    /// # Errors
    /// OpenSSL refuses the certificate.
    pub fn check(settings: &TlsSettings) -> Result<(), TlsError> {
        if let TlsSource::Files(identity) = &settings.source {
            Acceptor::new(identity, Challenges::default())?;
        }
        Ok(())
    }

    fn identity_for(&self, source: &TlsSource) -> Result<Identity, TlsError> {
        if let Some(current) = self.current().filter(|current| current.settings.source == *source) {
            return Ok(current.identity.clone());
        }
        match source {
            TlsSource::Files(identity) => Ok(identity.clone()),
            TlsSource::SelfSigned(names) => Ok(make::self_signed(names, SELF_SIGNED_LIFETIME)?),
            TlsSource::Acme(order) => {
                let wrong = |source| TlsError::State { folder: order.state.display().to_string(), source };
                order.prepare().map_err(wrong)?;
                let names = Names { dns: order.domains.clone(), ip: Vec::new() };
                match order.stored() {
                    Some(identity) => Ok(identity),
                    None => Ok(make::self_signed(&names, PLACEHOLDER_LIFETIME)?),
                }
            }
        }
    }

    /// Takes the certificate that an order was answered with, unless another order counts by now.
    fn obtained(&self, order: &AcmeOrder, identity: Identity) -> Result<(), TlsError> {
        let Some(current) = self.current() else { return Ok(()) };
        if current.settings.source == TlsSource::Acme(order.clone()) {
            let next = Current::new(current.settings.clone(), identity, self.challenges.clone())?;
            self.place(Some(next));
        }
        Ok(())
    }

    fn place(&self, next: Option<Current>) {
        self.metrics.tls_certificate_expires(next.as_ref().map(|next| next.identity.expires()));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next.map(Arc::new);
    }

    /// What a new connection gets; `None` where clear text is served.
    pub(crate) fn current(&self) -> Option<Arc<Current>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate that is shown, if there is one.
    pub fn identity(&self) -> Option<Identity> {
        self.current().map(|current| current.identity.clone())
    }
}

impl Current {
    fn new(settings: TlsSettings, identity: Identity, challenges: Challenges) -> Result<Current, TlsError> {
        let acceptor = Acceptor::new(&identity, challenges)?;
        let hsts = Some(settings.hsts).filter(|&seconds| seconds > 0);
        let hsts = hsts.and_then(|seconds| HeaderValue::from_str(&format!("max-age={seconds}")).ok());
        Ok(Current { settings, identity, acceptor, hsts })
    }

    /// Does the handshake. The caller bounds the time.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, bytes: S) -> io::Result<Accepted<S>> {
        self.acceptor.accept(bytes).await
    }

    /// The header that every answer over TLS gets (RFC 6797 §7.2: none over clear text).
    pub(crate) fn hsts(&self) -> Option<HeaderValue> {
        self.hsts.clone()
    }
}

/// What deserves a word in the log about a certificate.
pub fn warning(source: &TlsSource, now: SystemTime) -> Option<String> {
    match source {
        TlsSource::Files(identity) => identity.warning(now),
        TlsSource::SelfSigned(_) | TlsSource::Acme(_) => None,
    }
}
