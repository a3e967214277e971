//! What the peer must show inside the handshake: a common SRTP profile, and the certificate that the SDP announced.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ClientHelloResponse, Ssl, SslAlert, SslRef};
use openssl::x509::{X509StoreContext, X509StoreContextRef, X509VerifyResult};

use super::ffi;
use super::hello::Cookie;
use crate::spec::{Fingerprint, FingerprintHash};
use crate::srtp::SrtpProfile;

/// The use_srtp extension (RFC 5764 §4.1.1).
const USE_SRTP: u16 = 14;

/// How many offered profiles the refusal names.
const NAMED_PROFILES: usize = 8;

/// One handshake's check, shared by the endpoint and OpenSSL's callbacks.
pub(super) struct PeerCheck {
    fingerprints: Vec<Fingerprint>,
    verdict: Mutex<Verdict>,
    /// The cookie that the source of the datagram at hand owes.
    cookie: Mutex<Cookie>,
}

/// What the check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The certificate was not received yet.
    Pending,
    /// The certificate has this fingerprint, and the SDP announced it.
    Matched(Fingerprint),
    /// The SDP announced other fingerprints than this one.
    Mismatch(Option<Fingerprint>),
    /// No SRTP profile in common; the numbers that a client offered, `None` if it sent no use_srtp.
    NoSrtpProfile(Option<Vec<u16>>),
}

/// The slot of an `Ssl` that holds its check.
pub(super) type CheckIndex = Index<Ssl, Arc<PeerCheck>>;

impl PeerCheck {
    pub(super) fn new(fingerprints: Vec<Fingerprint>) -> PeerCheck {
        PeerCheck { fingerprints, verdict: Mutex::new(Verdict::Pending), cookie: Mutex::default() }
    }

    /// The slot; made once in a process, as OpenSSL never frees one.
    pub(super) fn index() -> Result<CheckIndex, ErrorStack> {
        static INDEX: OnceLock<Result<CheckIndex, ErrorStack>> = OnceLock::new();
        INDEX.get_or_init(Ssl::new_ex_index).clone()
    }

    /// The fingerprints that the SDP announced.
    pub(super) fn announced(&self) -> &[Fingerprint] {
        &self.fingerprints
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next datagram's source owes this cookie.
    pub(super) fn expect_cookie(&self, cookie: Cookie) {
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = cookie;
    }

    fn cookie(&self) -> Cookie {
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
    }

    /// True for the certificate that the SDP announced.
    pub(super) fn is_the_peers(&self, certificate_der: Option<&[u8]>) -> bool {
        certificate_der.is_some_and(|der| self.fingerprints.iter().any(|announced| announced.matches(der)))
    }

    /// RFC 8122 §5: one line that matches is enough.
    fn judge(&self, certificate_der: &[u8]) -> Verdict {
        match self.fingerprints.iter().find(|announced| announced.matches(certificate_der)) {
            Some(announced) => Verdict::Matched(announced.clone()),
            None => {
                let hash = self.fingerprints.first().map_or(FingerprintHash::Sha256, |announced| announced.hash);
                Verdict::Mismatch(Fingerprint::of(hash, certificate_der).ok())
            }
        }
    }
}

/// Certificate callback: chain, names and dates count for nothing, only the leaf's fingerprint does (RFC 5763 §5).
/// `false` makes OpenSSL send a fatal alert and end the handshake before it derives any key.
pub(super) fn verify(index: CheckIndex, curves: &CStr, store: &mut X509StoreContextRef) -> bool {
    if store.error_depth() != 0 {
        return true;
    }
    let Some(ssl) = X509StoreContext::ssl_idx().ok().and_then(|ssl_index| store.ex_data(ssl_index)) else {
        return false;
    };
    // The key exchange has its group by now. Where OpenSSL refuses the list, the certificate meets the one before.
    let _widened = ssl.is_server() && ffi::set_groups(ssl, curves);
    let Some(check) = ssl.ex_data(index).cloned() else {
        return false;
    };
    // A client learns here that the server chose no profile: OpenSSL by itself would go on without SRTP.
    let has_profile = ssl.selected_srtp_profile().is_some();
    let verdict = match store.current_cert().and_then(|certificate| certificate.to_der().ok()) {
        _ if !has_profile => Verdict::NoSrtpProfile(None),
        Some(der) => check.judge(&der),
        None => Verdict::Mismatch(None),
    };
    let (result, passed) = match verdict {
        Verdict::Matched(_) => (X509VerifyResult::OK, true),
        // OpenSSL turns these into the alerts handshake_failure and bad_certificate.
        Verdict::NoSrtpProfile(_) => (X509VerifyResult::APPLICATION_VERIFICATION, false),
        Verdict::Pending | Verdict::Mismatch(_) => (ffi::certificate_rejected(), false),
    };
    store.set_error(result);
    check.set(verdict);
    passed
}

/// Callback of the server role that demands a cookie; its length.
pub(super) fn demand_cookie(index: CheckIndex, ssl: &SslRef, room: &mut [u8]) -> Result<usize, ErrorStack> {
    let Some((check, room)) = ssl.ex_data(index).zip(room.first_chunk_mut()) else { return Err(ErrorStack::get()) };
    *room = check.cookie();
    Ok(room.len())
}

/// Callback of the server role that judges a cookie.
pub(super) fn is_cookie(index: CheckIndex, ssl: &SslRef, cookie: &[u8]) -> bool {
    ssl.ex_data(index).is_some_and(|check| check.cookie() == cookie)
}

/// ClientHello callback of the server role: no common SRTP profile ends the handshake at once (RFC 5764 §4.1).
pub(super) fn client_hello(
    index: CheckIndex,
    ours: &[SrtpProfile],
    ssl: &SslRef,
    alert: &mut SslAlert,
) -> Result<ClientHelloResponse, ErrorStack> {
    let offered = ffi::client_hello_extension(ssl, USE_SRTP).map(offered_profiles);
    let common = offered.iter().flatten().any(|id| ours.iter().any(|profile| profile.dtls_id() == *id));
    if common {
        return Ok(ClientHelloResponse::SUCCESS);
    }
    if let Some(check) = ssl.ex_data(index) {
        let offered = offered.map(|ids| ids.into_iter().take(NAMED_PROFILES).collect());
        check.set(Verdict::NoSrtpProfile(offered));
    }
    *alert = SslAlert::HANDSHAKE_FAILURE;
    Err(ErrorStack::get())
}

/// The numbers in a use_srtp extension: a list with a length in bytes before it (an MKI follows and is ignored).
fn offered_profiles(extension: &[u8]) -> Vec<u16> {
    let Some((len, rest)) = extension.split_first_chunk() else {
        return Vec::new();
    };
    let list = rest.get(..usize::from(u16::from_be_bytes(*len))).unwrap_or_default();
    list.chunks_exact(2).map(|id| u16::from_be_bytes([id[0], id[1]])).collect()
}
