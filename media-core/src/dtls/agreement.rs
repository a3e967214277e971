//! What a completed handshake has to have agreed before its keys are worth anything, and those keys.

use openssl::ssl::SslRef;

use super::check::{PeerCheck, Verdict};
use super::context::is_strong_exchange;
use super::failure::DtlsFailure;
use super::ffi;
use crate::ledger::{Reason, Stage};
use crate::spec::{DtlsRole, Fingerprint};
use crate::srtp::{KeyingMaterial, SrtpProfile};

/// RFC 5764 §4.2
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// What a completed handshake agreed.
#[derive(Debug)]
pub struct Connection {
    /// SRTP profile and keys.
    pub keying: KeyingMaterial,
    /// `DTLSv1.2`
    pub version: &'static str,
    /// Cipher suite, by its name in the standard: `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The announced fingerprint that the peer's certificate matched.
    pub fingerprint: Fingerprint,
}

impl Connection {
    /// Exports the keys, which nothing but a fingerprint that matched allows.
    pub(super) fn agreed(ssl: &SslRef, check: &PeerCheck, role: DtlsRole) -> Result<Connection, DtlsFailure> {
        let fingerprint = match check.verdict() {
            Verdict::Matched(fingerprint) => fingerprint,
            verdict => {
                return Err(DtlsFailure::of_verdict(&verdict, check, role)
                    .unwrap_or_else(|| DtlsFailure::internal("the certificate went unchecked")));
            }
        };
        // The server's role chose the group itself.
        if role == DtlsRole::Client && !ssl.peer_tmp_key().is_ok_and(|key| is_strong_exchange(&key)) {
            let detail = "the DTLS server chose a group that is too weak for the key exchange".to_owned();
            return Err(DtlsFailure { reason: Reason::DtlsProtocolError, stage: Stage::Dtls, detail });
        }
        // Without it the keys that SRTP takes from the association may be those of another one (RFC 7627 §1).
        if !ffi::has_extended_master_secret(ssl) {
            let detail = "the peer does not know the extended master secret (RFC 7627)".to_owned();
            return Err(DtlsFailure { reason: Reason::NoExtendedMasterSecret, stage: Stage::Dtls, detail });
        }
        let profile = ssl
            .selected_srtp_profile()
            .and_then(|profile| u16::try_from(profile.id().as_raw()).ok())
            .and_then(SrtpProfile::from_dtls_id)
            .ok_or_else(|| DtlsFailure::internal("OpenSSL chose an SRTP profile that was not offered"))?;
        let mut exported = zeroize::Zeroizing::new([0; SrtpProfile::MAX_EXPORT_LEN]);
        let exported = &mut exported[..profile.export_len()];
        ssl.export_keying_material(exported, EXPORTER_LABEL, None).map_err(DtlsFailure::internal)?;
        let keying = KeyingMaterial::new(profile, exported).map_err(DtlsFailure::internal)?;
        let cipher = ssl.current_cipher();
        Ok(Connection {
            keying,
            version: ssl.version_str(),
            cipher: cipher.map_or("unknown", |cipher| cipher.standard_name().unwrap_or(cipher.name())),
            fingerprint,
        })
    }
}
