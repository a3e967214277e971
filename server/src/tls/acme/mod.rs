//! Certificates by ACME (RFC 8555): obtained, renewed and kept, with the challenge answered on the TLS port itself (RFC 8737).

mod client;
mod order;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use self::order::OrderError;
use self::store::Store;
use super::identity::Identity;
use super::{Tls, TlsSource};
use crate::metrics::Metrics;

/// Let's Encrypt.
pub const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Its test server: certificates that no client trusts, and no narrow limits.
pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// After a failure it is tried again in this time …
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// … doubled each time, up to this: Let's Encrypt lets five validations of a name fail in an hour.
const LAST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// How often it is looked at whether a renewal is due. The wall clock decides, which may step.
const LOOK: Duration = Duration::from_secs(3600);

/// What is ordered, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeOrder {
    /// The names, the first one is the common name.
    pub domains: Vec<String>,
    /// URL of the directory (RFC 8555 §7.1.1).
    pub directory: String,
    /// Folder of the account and of the certificate.
    pub state: PathBuf,
}

impl AcmeOrder {
    /// The certificate of a former order of these names at this authority, if it is kept and has not expired.
    pub(super) fn stored(&self) -> Option<Identity> {
        let kept = Store::of(self).certificate()?;
        let names = kept.names();
        let is_for_all = self.domains.iter().all(|domain| names.contains(domain));
        (is_for_all && kept.expires() > SystemTime::now()).then_some(kept)
    }

    /// Makes the folder, and tries to write there.
    pub(super) fn prepare(&self) -> std::io::Result<()> {
        Store::of(self).prepare()
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    /// There is a new certificate.
    Success,
    /// The authority refused: the challenge failed, a name is not allowed, or a limit was reached.
    Refused,
    /// The authority does not answer as it should.
    Away,
    /// The certificate could not be kept or used.
    Failed,
}

impl Outcome {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Obtains and renews the certificate whenever TLS is to have one by ACME; ends only with its task. `again` says that the
/// configuration was read again, which is a reason to try at once.
pub async fn keep(tls: Arc<Tls>, mut again: watch::Receiver<()>, metrics: Arc<Metrics>) {
    let mut pause = FIRST_PAUSE;
    loop {
        again.mark_unchanged();
        let wait = match wanted(&tls) {
            None => LOOK,
            Some(order) => {
                let due = order.stored().map_or_else(SystemTime::now, |kept| kept.renew_at());
                match due.duration_since(SystemTime::now()) {
                    Ok(left) if !left.is_zero() => left.min(LOOK),
                    _ => match attempt(&tls, &order, &metrics).await {
                        Outcome::Success => {
                            pause = FIRST_PAUSE;
                            continue;
                        }
                        _ => {
                            let wait = pause;
                            pause = (pause * 2).min(LAST_PAUSE);
                            wait
                        }
                    },
                }
            }
        };
        if let Ok(Err(_)) = tokio::time::timeout(wait, again.changed()).await {
            return;
        }
    }
}

/// What TLS is to have, as far as it comes from an authority.
fn wanted(tls: &Tls) -> Option<AcmeOrder> {
    match &tls.current()?.settings.source {
        TlsSource::Acme(order) => Some(order.clone()),
        TlsSource::Files(_) | TlsSource::SelfSigned(_) => None,
    }
}

/// Tries once, and says how it ended.
async fn attempt(tls: &Tls, order: &AcmeOrder, metrics: &Metrics) -> Outcome {
    let domains = order.domains.join(" ");
    let result = order::obtain(order, &tls.challenges).await;
    tls.challenges.clear();
    let outcome = match result {
        Ok(identity) => match tls.obtained(order, identity.clone()) {
            Ok(()) => {
                let fingerprint = identity.fingerprint();
                tracing::info!(domains, fingerprint, "new connections get a new TLS certificate");
                Outcome::Success
            }
            Err(error) => {
                tracing::error!(domains, %error, "the TLS certificate that was obtained cannot be used");
                Outcome::Failed
            }
        },
        Err(error) => {
            let directory = &order.directory;
            tracing::warn!(domains, directory, %error, "no TLS certificate was obtained; it is tried again");
            match error {
                OrderError::Refused(_) => Outcome::Refused,
                OrderError::Away(_) => Outcome::Away,
                OrderError::Store { .. } | OrderError::Make(_) | OrderError::Unusable(_) => Outcome::Failed,
            }
        }
    };
    metrics.acme_attempt(outcome);
    outcome
}
