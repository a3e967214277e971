//! The certificate of HTTPS.

use std::time::SystemTime;

use prometheus::Gauge;

use super::process::unix_seconds;
use super::{Declare, Metrics};

pub(super) struct TlsMetrics {
    certificate_expires: Gauge,
}

impl TlsMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<TlsMetrics> {
        let metrics = TlsMetrics {
            certificate_expires: d.add(Gauge::new(
                "sluice_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of HTTPS expires; 0 without HTTPS.",
            ))?,
        };
        Ok(metrics)
    }
}

impl Metrics {
    /// The certificate that new connections are shown; `None` without HTTPS.
    pub fn tls_certificate_expires(&self, at: Option<SystemTime>) {
        self.tls.certificate_expires.set(at.map_or(0.0, unix_seconds));
    }
}
