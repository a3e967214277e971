//! What all handshakes of a process share: the certificate, versions, cipher suites, groups, SRTP profiles.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKeyRef, Public};
use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
};

use super::Certificate;
use super::check::{self, CheckIndex, PeerCheck};
use crate::srtp::SrtpProfile;

/// The longest DTLS datagram that is sent, in bytes of UDP payload: it passes every usual tunnel.
pub const DATAGRAM_SIZE: usize = 1200;

/// AEAD suites first; the CBC suites are for old clients without AEAD. Each has an ephemeral key.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
                       ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
                       ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA";

/// Groups of the key exchange in the server's role. X25519 first: any 32 bytes are a key of it, where OpenSSL multiplies a
/// peer's point on P-256 once more to check it. No hybrid group: the own ClientHello has to fit one datagram.
const EXCHANGE_GROUPS: &str = "X25519:P-256:P-384";

/// All groups, and curves of peers' certificates: OpenSSL takes a certificate only on one of its own groups (`wrong curve`),
/// and shows its own only on one that the ClientHello lists (RFC 8422 §5.1). So the client's role lists them all, and
/// [`is_strong_exchange`] judges what the server made of it; the server's role gets them once the key exchange has its group.
/// Elsewhere OpenSSL may lack some of them.
const GROUPS: [&str; 9] = [
    "X25519",
    "P-256",
    "P-384",
    "P-521",
    "P-224",
    "secp256k1",
    "brainpoolP256r1",
    "brainpoolP384r1",
    "brainpoolP512r1",
];

/// Signatures of the handshake, every kind of key with SHA-256 or better: no SHA-1 (RFC 9155).
const SIGNATURES: &str = "ECDSA+SHA256:ed25519:ECDSA+SHA384:ECDSA+SHA512:ed448:\
                          rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:\
                          rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:\
                          RSA+SHA256:RSA+SHA384:RSA+SHA512";

/// OpenSSL refused something that does not depend on any peer.
#[derive(Debug, thiserror::Error)]
#[error("OpenSSL: {0}")]
pub struct DtlsError(#[from] ErrorStack);

/// The settings of all associations that show one certificate. Cloning shares them.
#[derive(Clone)]
pub struct DtlsContext {
    ssl: SslContext,
    check: CheckIndex,
    groups: Arc<CStr>,
}

impl DtlsContext {
    /// DTLS 1.2 with all SRTP profiles, in the order of [`SrtpProfile::ALL`].
    pub fn new(certificate: &Certificate) -> Result<DtlsContext, DtlsError> {
        DtlsContext::with_profiles(certificate, &SrtpProfile::ALL)
    }

    /// As [`DtlsContext::new`], with these SRTP profiles only, the preferred one first. Of the profiles that both ends
    /// know, the DTLS server's preference decides. Without any, a client sends no use_srtp, and a server refuses everybody:
    /// both are of use only to tests.
    pub fn with_profiles(certificate: &Certificate, profiles: &[SrtpProfile]) -> Result<DtlsContext, DtlsError> {
        let mut builder = SslContext::builder(SslMethod::dtls())?;
        // DTLS 1.0 is deprecated (RFC 8996); OpenSSL 3.0 has no DTLS 1.3.
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        builder.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
        // The `openssl` crate has no name for NO_QUERY_MTU; without it OpenSSL cuts flights to 256 bytes.
        let no_query_mtu = SslOptions::from_bits_retain(openssl_sys::SSL_OP_NO_QUERY_MTU);
        builder.set_options(
            SslOptions::NO_TICKET
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE
                | no_query_mtu,
        );
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_cipher_list(CIPHERS)?;
        let groups = all_groups(&mut builder);
        builder.set_groups_list(EXCHANGE_GROUPS)?;
        builder.set_sigalgs_list(SIGNATURES)?;
        builder.set_certificate(certificate.x509())?;
        builder.set_private_key(certificate.key())?;
        builder.check_private_key()?;
        let names: Vec<_> = profiles.iter().map(|profile| profile.openssl_name()).collect();
        if !names.is_empty() {
            builder.set_tlsext_use_srtp(&names.join(":"))?;
        }

        let check = PeerCheck::index()?;
        let demand = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        let curves = Arc::clone(&groups);
        builder.set_verify_callback(demand, move |_, store| check::verify(check, &curves, store));
        let ours = profiles.to_vec();
        builder.set_client_hello_callback(move |ssl, alert| check::client_hello(check, &ours, ssl, alert));
        // They are asked only in associations that demand cookies; see `ffi::demand_cookies`.
        builder.set_cookie_generate_cb(move |ssl, room| check::demand_cookie(check, ssl, room));
        builder.set_cookie_verify_cb(move |ssl, cookie| check::is_cookie(check, ssl, cookie));
        Ok(DtlsContext { ssl: builder.build(), check, groups })
    }

    pub(super) fn ssl(&self) -> &SslContext {
        &self.ssl
    }

    pub(super) fn check_index(&self) -> CheckIndex {
        self.check
    }

    /// What the client's role offers.
    pub(super) fn groups(&self) -> &CStr {
        &self.groups
    }
}

/// Those of [`GROUPS`] that OpenSSL has here, as it takes a list.
fn all_groups(builder: &mut SslContextBuilder) -> Arc<CStr> {
    let known = GROUPS.into_iter().filter(|group| builder.set_groups_list(group).is_ok());
    let list = known.collect::<Vec<_>>().join(":");
    // The names above hold no zero byte.
    CString::new(list).unwrap_or_default().into()
}

/// A key exchange with this key of the peer is as strong as the certificates of browsers: 128 bits at least.
pub(super) fn is_strong_exchange(key: &PKeyRef<Public>) -> bool {
    match key.id() {
        Id::X25519 | Id::X448 => true,
        Id::EC => key.ec_key().is_ok_and(|key| {
            matches!(key.group().curve_name(), Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1 | Nid::SECP521R1))
        }),
        _ => false,
    }
}
