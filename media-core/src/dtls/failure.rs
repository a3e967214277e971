//! Why an association failed, in the words of the ledger.

use std::fmt;

use openssl::error::{Error, ErrorStack};

use super::alert;
use super::check::{PeerCheck, Verdict};
use crate::ledger::{Reason, Stage};
use crate::spec::{DtlsRole, Fingerprint};

/// The number of libssl in OpenSSL's error stack, and reason codes of its sslerr.h.
const ERR_LIB_SSL: i32 = 20;
const PEER_DID_NOT_RETURN_A_CERTIFICATE: i32 = 199;
const READ_TIMEOUT_EXPIRED: i32 = 312;
/// Reason codes from here on are fatal alerts of the peer, plus the alert's number.
const RECEIVED_ALERT: i32 = openssl_sys::SSL_AD_REASON_OFFSET;

/// Why an association failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsFailure {
    /// The reason.
    pub reason: Reason,
    /// The stage that failed: [`Stage::Dtls`] or [`Stage::Fingerprint`].
    pub stage: Stage,
    /// The facts of the case.
    pub detail: String,
}

impl DtlsFailure {
    /// The failure of a verdict, if it is one.
    pub(super) fn of_verdict(verdict: &Verdict, check: &PeerCheck, role: DtlsRole) -> Option<DtlsFailure> {
        match verdict {
            Verdict::Pending | Verdict::Matched(_) => None,
            Verdict::Mismatch(actual) => {
                let announced: Vec<_> = check.announced().iter().take(4).map(Fingerprint::to_sdp).collect();
                let announced = if announced.is_empty() { "none".to_owned() } else { announced.join(", ") };
                let actual = actual.as_ref().map_or_else(|| "unknown".to_owned(), Fingerprint::to_sdp);
                Some(DtlsFailure {
                    reason: Reason::FingerprintMismatch,
                    stage: Stage::Fingerprint,
                    detail: format!("certificate {actual}; announced in SDP: {announced}"),
                })
            }
            Verdict::NoSrtpProfile(offered) => {
                let detail = match (offered, role) {
                    (Some(ids), _) => {
                        let ids: Vec<_> = ids.iter().map(|id| format!("{id:#06x}")).collect();
                        format!("the client offers only the profiles {}", ids.join(", "))
                    }
                    (None, DtlsRole::Server) => "the client sent no use_srtp extension".to_owned(),
                    (None, DtlsRole::Client) => "the DTLS server chose no SRTP profile".to_owned(),
                };
                Some(DtlsFailure { reason: Reason::NoSrtpProfile, stage: Stage::Dtls, detail })
            }
        }
    }

    /// That of OpenSSL's error stack.
    pub(super) fn of_stack(stack: &ErrorStack, role: DtlsRole) -> DtlsFailure {
        let codes = || stack.errors().iter().filter(|error| error.library_code() == ERR_LIB_SSL);
        for code in codes().map(Error::reason_code) {
            let (reason, detail) = match code {
                PEER_DID_NOT_RETURN_A_CERTIFICATE if role == DtlsRole::Server => {
                    (Reason::NoClientCertificate, "the client's Certificate message is empty".to_owned())
                }
                READ_TIMEOUT_EXPIRED => (Reason::DtlsTimeout, "too many retransmissions without an answer".to_owned()),
                code => match u8::try_from(code - RECEIVED_ALERT) {
                    Ok(number) => (Reason::DtlsAlertReceived, format!("alert {} ({number})", alert::name(number))),
                    Err(_) => continue,
                },
            };
            return DtlsFailure { reason, stage: Stage::Dtls, detail };
        }
        let facts: Vec<_> = stack.errors().iter().filter_map(Error::reason).collect();
        DtlsFailure { reason: Reason::DtlsProtocolError, stage: Stage::Dtls, detail: facts.join("; ") }
    }

    /// A bug.
    pub(super) fn internal(fact: impl fmt::Display) -> DtlsFailure {
        DtlsFailure { reason: Reason::Internal, stage: Stage::Dtls, detail: fact.to_string() }
    }
}
