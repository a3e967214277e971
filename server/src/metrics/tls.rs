//! The certificate of HTTPS, and how it is obtained.

use std::time::SystemTime;

use prometheus::{Gauge, IntCounterVec, Opts};
use strum::VariantArray;

use super::process::unix_seconds;
use super::{Declare, Metrics};
use crate::tls::acme::Outcome;

pub(super) struct TlsMetrics {
    certificate_expires: Gauge,
    acme_attempts: IntCounterVec,
}

impl TlsMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<TlsMetrics> {
        let metrics = TlsMetrics {
            certificate_expires: d.add(Gauge::new(
                "sluice_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of HTTPS expires; 0 without HTTPS.",
            ))?,
            acme_attempts: d.add(IntCounterVec::new(
                Opts::new("sluice_acme_attempts_total", "Attempts to obtain a certificate by ACME, by how they ended."),
                &["outcome"],
            ))?,
        };
        for &outcome in Outcome::VARIANTS {
            metrics.acme_attempts.with_label_values(&[outcome.as_str()]);
        }
        Ok(metrics)
    }
}

impl Metrics {
    /// The certificate that new connections are shown; `None` without HTTPS.
    pub fn tls_certificate_expires(&self, at: Option<SystemTime>) {
        self.tls.certificate_expires.set(at.map_or(0.0, unix_seconds));
    }

    /// An attempt to obtain a certificate has ended.
    pub fn acme_attempt(&self, outcome: Outcome) {
        self.tls.acme_attempts.with_label_values(&[outcome.as_str()]).inc();
    }
}
