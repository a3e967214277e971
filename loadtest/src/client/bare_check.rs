//! The simplest connectivity checks that a client can make (RFC 8445 §7.2.2): FFmpeg's, and those from a new address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use media_core::IceCredentials;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::error::ClientError;

/// An unanswered check is made again after this.
const INTERVAL: Duration = Duration::from_millis(50);
const HEADER: usize = 20;
const INTEGRITY: usize = 24;
const FINGERPRINT: usize = 8;
/// Types of attributes (RFC 8489 §18.3, RFC 8445 §16.1).
const USERNAME: u16 = 0x0006;
const USE_CANDIDATE: u16 = 0x0025;

/// A Binding request with USERNAME, USE-CANDIDATE, MESSAGE-INTEGRITY and FINGERPRINT only, written byte by byte (RFC 8489).
///
/// # Errors
/// [`ClientError::Crypto`] if OpenSSL refuses the password as a key.
pub fn bare_check(
    local: &IceCredentials,
    remote: &IceCredentials,
    transaction: [u8; 12],
) -> Result<Vec<u8>, ClientError> {
    let username = format!("{}:{}", remote.ufrag, local.ufrag);
    binding_request(&username, &remote.pwd, &[(USE_CANDIDATE, &[])], transaction)
}

/// A Binding request with any USERNAME and password, and further attributes as type and value.
///
/// # Errors
/// [`ClientError::Crypto`] if OpenSSL refuses the password as a key.
pub fn binding_request(
    username: &str,
    password: &str,
    further: &[(u16, &[u8])],
    transaction: [u8; 12],
) -> Result<Vec<u8>, ClientError> {
    let crypto = |error: openssl::error::ErrorStack| ClientError::Crypto(error.to_string());
    let mut message = vec![0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend_from_slice(&transaction);
    for (kind, value) in [(USERNAME, username.as_bytes())].iter().chain(further) {
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&(value.len() as u16).to_be_bytes());
        message.extend_from_slice(value);
        message.resize(message.len().next_multiple_of(4), 0);
    }

    // Each sum counts itself into the header's length, and what follows it not.
    set_length(&mut message, INTEGRITY);
    let key = PKey::hmac(password.as_bytes()).map_err(crypto)?;
    let mut signer = Signer::new(MessageDigest::sha1(), &key).map_err(crypto)?;
    let integrity = signer.sign_oneshot_to_vec(&message).map_err(crypto)?;
    message.extend_from_slice(&[0x00, 0x08, 0, 20]);
    message.extend_from_slice(&integrity);

    set_length(&mut message, FINGERPRINT);
    let fingerprint = crc32fast::hash(&message) ^ 0x5354_554e;
    message.extend_from_slice(&[0x80, 0x28, 0, 4]);
    message.extend_from_slice(&fingerprint.to_be_bytes());
    Ok(message)
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - HEADER + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Checks towards one address, until the first success response.
pub(super) struct BareChecks {
    pub(super) to: SocketAddr,
    local: IceCredentials,
    remote: IceCredentials,
    transaction: Option<[u8; 12]>,
    pub(super) next: Instant,
}

impl BareChecks {
    pub(super) fn new(now: Instant, to: SocketAddr, local: IceCredentials, remote: IceCredentials) -> BareChecks {
        BareChecks { to, local, remote, transaction: None, next: now }
    }

    /// The check that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Result<Option<Vec<u8>>, ClientError> {
        if now < self.next {
            return Ok(None);
        }
        self.next = now + INTERVAL;
        // FFmpeg repeats a check as it is; the answer to any of them will do.
        let transaction = match self.transaction {
            Some(transaction) => transaction,
            None => {
                let mut fresh = [0; 12];
                openssl::rand::rand_bytes(&mut fresh).map_err(|error| ClientError::Crypto(error.to_string()))?;
                *self.transaction.insert(fresh)
            }
        };
        bare_check(&self.local, &self.remote, transaction).map(Some)
    }

    /// True for the success response to one of the checks.
    pub(super) fn is_answer(&self, source: SocketAddr, datagram: &[u8]) -> bool {
        source == self.to
            && datagram.starts_with(&[0x01, 0x01])
            && self.transaction.is_some_and(|transaction| datagram.get(8..HEADER) == Some(&transaction[..]))
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::ice::{IceLite, IceOutput};

    use super::*;

    #[test]
    fn a_server_takes_the_check_for_valid_and_its_answer_is_known() {
        let (client, server) =
            (media_core::internals::ice::random_credentials(), media_core::internals::ice::random_credentials());
        let now = Instant::now();
        let to = "192.0.2.1:50000".parse().unwrap();
        let mut checks = BareChecks::new(now, to, client.clone(), server.clone());
        let check = checks.poll(now).unwrap().unwrap();
        assert_eq!(checks.poll(now).unwrap(), None, "not before the interval is over");
        let mut lite = IceLite::new(server, client);
        let mut out = Vec::new();
        lite.handle(now, "192.0.2.9:4000".parse().unwrap(), &check, &mut out);
        let answered = out.iter().any(|output| match output {
            IceOutput::Transmit { datagram, .. } => checks.is_answer(to, datagram),
            _ => false,
        });
        assert!(answered, "{out:?}");
        assert!(out.iter().any(|output| matches!(output, IceOutput::Selected(_))), "{out:?}");
    }
}
