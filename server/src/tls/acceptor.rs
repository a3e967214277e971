//! The TLS side of a connection, by OpenSSL: versions, ciphers, protocols, and the answers to challenges.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, NameType, Ssl, SslAcceptor, SslContext, SslMethod, SslOptions, SslRef, SslSessionCacheMode,
    select_next_proto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use super::identity::Identity;

/// What is served, the preferred one first (RFC 7301 §3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// What a certificate authority speaks to see an answer to its challenge (RFC 8737 §6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// TLS 1.2's suites, each with an ephemeral key on a curve: over a prime field that costs far more than a client pays for it
/// (CVE-2002-20001).
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
                       ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// Answers to the challenges of an order, by name. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Challenges(Arc<RwLock<HashMap<String, Identity>>>);

impl Challenges {
    pub(super) fn answer(&self, name: &str, identity: Identity) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_ascii_lowercase(), identity);
    }

    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn get(&self, name: &str) -> Option<Identity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&name.to_ascii_lowercase()).cloned()
    }
}

/// Takes TLS connections with one certificate.
pub(super) struct Acceptor(SslContext);

/// A connection whose handshake is complete.
pub(crate) enum Accepted<S> {
    /// For HTTP.
    Http(SslStream<S>),
    /// A certificate authority has seen its answer.
    Challenge,
}

impl Acceptor {
    /// TLS 1.2 and 1.3, as Mozilla's intermediate recommendation has it, without resumption: a ticket's key would open what was
    /// sent under it for as long as the process lives.
    ///
    /// # Errors
    /// OpenSSL refuses the certificate, such as for a key that is too short.
    pub(super) fn new(identity: &Identity, challenges: Challenges) -> Result<Acceptor, ErrorStack> {
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
        builder.set_alpn_select_callback(move |ssl, offered| select(ssl, offered, &challenges));
        Ok(Acceptor(builder.build().into_context()))
    }

    /// Does the handshake. The caller bounds the time.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, bytes: S) -> io::Result<Accepted<S>> {
        let ssl = Ssl::new(&self.0).map_err(io::Error::other)?;
        let mut stream = SslStream::new(ssl, bytes).map_err(io::Error::other)?;
        Pin::new(&mut stream).accept().await.map_err(|error| error.into_io_error().unwrap_or_else(io::Error::other))?;
        match stream.ssl().selected_alpn_protocol() {
            Some(ACME_TLS) => Ok(Accepted::Challenge),
            _ => Ok(Accepted::Http(stream)),
        }
    }
}

/// Chooses the protocol, and with it the certificate. A client that offers none is served HTTP/1.1.
fn select<'a>(ssl: &mut SslRef, offered: &'a [u8], challenges: &Challenges) -> Result<&'a [u8], AlpnError> {
    if !offers(offered, ACME_TLS) {
        return select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL);
    }
    let answer = ssl.servername(NameType::HOST_NAME).and_then(|name| challenges.get(name));
    let Some(answer) = answer else { return Err(AlpnError::ALERT_FATAL) };
    // In place of the other one, whose key is of the same kind: over TLS 1.2 OpenSSL has chosen the signature by now.
    let placed = ssl.set_certificate(&answer.chain()[0]).and_then(|()| ssl.set_private_key(answer.key()));
    placed.map(|()| ACME_TLS).map_err(|_| AlpnError::ALERT_FATAL)
}

/// Whether a list of protocols, each after its length, has one.
fn offers(mut list: &[u8], protocol: &[u8]) -> bool {
    while let [length, rest @ ..] = list {
        let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else { return false };
        if name == protocol {
            return true;
        }
        list = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_in_a_list_whatever_its_lengths_say() {
        for (list, found) in [
            (&b"\x0aacme-tls/1"[..], true),
            (b"\x02h2\x0aacme-tls/1", true),
            (b"\x0bacme-tls/1x", false),
            (b"\x02h2\xffacme-tls/1", false),
            (b"\x00\x0aacme-tls/1", true),
            (b"", false),
            (b"\x0a", false),
        ] {
            assert_eq!(offers(list, ACME_TLS), found, "{list:?}");
        }
    }
}
