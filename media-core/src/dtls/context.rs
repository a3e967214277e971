//! What all handshakes of a process share: the certificate, versions, cipher suites, groups, SRTP profiles.

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion};

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

/// X25519 first: any 32 bytes are a key of it, where OpenSSL multiplies a peer's point on P-256 once more to check it.
/// P-256 must be among them for its certificate. No hybrid group: the own ClientHello has to fit one datagram.
const GROUPS: &str = "X25519:P-256:P-384";

/// OpenSSL refused something that does not depend on any peer.
#[derive(Debug, thiserror::Error)]
#[error("OpenSSL: {0}")]
pub struct DtlsError(#[from] ErrorStack);

/// The settings of all associations that show one certificate. Cloning shares them.
#[derive(Clone)]
pub struct DtlsContext {
    ssl: SslContext,
    check: CheckIndex,
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
        builder.set_groups_list(GROUPS)?;
        builder.set_certificate(certificate.x509())?;
        builder.set_private_key(certificate.key())?;
        builder.check_private_key()?;
        let names: Vec<_> = profiles.iter().map(|profile| profile.openssl_name()).collect();
        if !names.is_empty() {
            builder.set_tlsext_use_srtp(&names.join(":"))?;
        }

        let check = PeerCheck::index()?;
        let demand = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        builder.set_verify_callback(demand, move |_, store| check::verify(check, store));
        let ours = profiles.to_vec();
        builder.set_client_hello_callback(move |ssl, alert| check::client_hello(check, &ours, ssl, alert));
        Ok(DtlsContext { ssl: builder.build(), check })
    }

    pub(super) fn ssl(&self) -> &SslContext {
        &self.ssl
    }

    pub(super) fn check_index(&self) -> CheckIndex {
        self.check
    }
}
