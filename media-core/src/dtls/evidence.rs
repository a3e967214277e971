//! What speaks for the end of a handshake, though anybody may have sent it: plaintext alerts, and certificates that are not the
//! peer's.

use std::time::{Duration, Instant};

use super::alert;
use super::failure::DtlsFailure;
use super::screen::Alert;
use crate::ledger::{Reason, Stage};

/// What is not authenticated ends a handshake only if nothing better comes for this long: a plaintext alert, if the handshake
/// does not go on; a certificate that is not the peer's, if the peer's does not come. Longer than a client waits before it repeats
/// a flight.
const EVIDENCE_TIME: Duration = Duration::from_secs(2);

/// The level of alerts that end an association (RFC 5246 §7.2).
const FATAL: u8 = 2;

/// What speaks for a handshake that has failed, though it may be forged.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    since: Option<Instant>,
    alert: Option<Alert>,
    /// Records with a certificate that is not the peer's, and with what follows it.
    suspect: Option<Vec<Vec<u8>>>,
}

/// How an alert ends a handshake.
#[derive(Debug)]
pub(super) enum End {
    /// The peer said close_notify.
    Closed,
    /// The peer said something fatal.
    Failed(DtlsFailure),
}

impl Evidence {
    /// Adds what [`Screen::take`](super::screen::Screen::take) found.
    pub(super) fn add(&mut self, now: Instant, alert: Option<Alert>, suspect: Option<Vec<Vec<u8>>>) {
        if alert.is_none() && suspect.is_none() {
            return;
        }
        self.since.get_or_insert(now);
        self.alert = alert.or(self.alert);
        self.suspect = suspect.or(self.suspect.take());
    }

    /// When it is believed, if nothing better comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + EVIDENCE_TIME)
    }

    /// What to do if it is believed: OpenSSL gets the datagrams, and refuses them in its own words; if the handshake still goes on,
    /// the alert ends it. A warning ends nothing.
    pub(super) fn judgement(self) -> (Vec<Vec<u8>>, Option<End>) {
        let end = match self.alert {
            Some(Alert { description: 0, .. }) => Some(End::Closed),
            Some(Alert { level: FATAL, description }) => {
                let detail = format!("alert {} ({description})", alert::name(description));
                Some(End::Failed(DtlsFailure { reason: Reason::DtlsAlertReceived, stage: Stage::Dtls, detail }))
            }
            _ => None,
        };
        (self.suspect.unwrap_or_default(), end)
    }
}
