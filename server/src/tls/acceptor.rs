//! The TLS side of a connection, by OpenSSL: versions, ciphers, protocols.

use std::io;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, Ssl, SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode, select_next_proto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use super::identity::Identity;

/// What is served, the preferred one first (RFC 7301 §3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// TLS 1.2's suites, each with an ephemeral key on a curve: over a prime field that costs far more than a client pays for it
/// (CVE-2002-20001).
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
                       ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// Takes TLS connections with one certificate.
pub(super) struct Acceptor(SslContext);

impl Acceptor {
    /// TLS 1.2 and 1.3, as Mozilla's intermediate recommendation has it, without resumption: a ticket's key would open what was
    /// sent under it for as long as the process lives.
    ///
    /// # Errors
    /// OpenSSL refuses the certificate, such as for a key that is too short.
    pub(super) fn new(identity: &Identity) -> Result<Acceptor, ErrorStack> {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_cipher_list(CIPHERS)?;
        builder
            .set_options(SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION | SslOptions::CIPHER_SERVER_PREFERENCE);
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_num_tickets(0)?;
        if let [own, intermediate @ ..] = identity.chain() {
            builder.set_certificate(own)?;
            for certificate in intermediate {
                builder.add_extra_chain_cert(certificate.clone())?;
            }
        }
        builder.set_private_key(identity.key())?;
        builder.check_private_key()?;
        // A client that offers none is served HTTP/1.1.
        builder
            .set_alpn_select_callback(|_, offered| select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL));
        Ok(Acceptor(builder.build().into_context()))
    }

    /// Does the handshake. The caller bounds the time.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, bytes: S) -> io::Result<SslStream<S>> {
        let ssl = Ssl::new(&self.0).map_err(io::Error::other)?;
        let mut stream = SslStream::new(ssl, bytes).map_err(io::Error::other)?;
        Pin::new(&mut stream).accept().await.map_err(|error| error.into_io_error().unwrap_or_else(io::Error::other))?;
        Ok(stream)
    }
}
