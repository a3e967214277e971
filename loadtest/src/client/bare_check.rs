//! The simplest connectivity checks that a client can make and answer (RFC 8445 §7.2.2, §7.3): FFmpeg's, and those from a new
//! address.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use media_core::IceCredentials;
use media_core::internals::ice::peek_ufrag;
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
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

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

    sign(&mut message, password).map_err(crypto)?;
    Ok(message)
}

/// The success response to a Binding request that names `local`, which it does not authenticate; `None` for anything else
/// (RFC 8445 §7.3.1.2).
///
/// # Errors
/// [`ClientError::Crypto`] if OpenSSL refuses the password as a key.
pub(crate) fn bare_answer(
    local: &IceCredentials,
    source: SocketAddr,
    request: &[u8],
) -> Result<Option<Vec<u8>>, ClientError> {
    let crypto = |error: openssl::error::ErrorStack| ClientError::Crypto(error.to_string());
    if peek_ufrag(request) != Some(&local.ufrag) {
        return Ok(None);
    }
    let Some(ids) = request.get(4..HEADER) else { return Ok(None) };
    let mut message = vec![0x01, 0x01, 0, 0];
    message.extend_from_slice(ids);
    let (family, ip) = match source.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    message.extend_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    message.extend_from_slice(&[0, (4 + ip.len()) as u8, 0, family]);
    // Port and address are masked by the magic cookie and the transaction id (RFC 8489 §14.2).
    message.extend(source.port().to_be_bytes().iter().zip(ids).map(|(byte, mask)| byte ^ mask));
    message.extend(ip.iter().zip(ids).map(|(byte, mask)| byte ^ mask));
    sign(&mut message, &local.pwd).map_err(crypto)?;
    Ok(Some(message))
}

/// Adds MESSAGE-INTEGRITY and FINGERPRINT.
fn sign(message: &mut Vec<u8>, password: &str) -> Result<(), openssl::error::ErrorStack> {
    // Each sum counts itself into the header's length, and what follows it not.
    set_length(message, INTEGRITY);
    let key = PKey::hmac(password.as_bytes())?;
    let integrity = Signer::new(MessageDigest::sha1(), &key)?.sign_oneshot_to_vec(message)?;
    message.extend_from_slice(&[0x00, 0x08, 0, 20]);
    message.extend_from_slice(&integrity);

    set_length(message, FINGERPRINT);
    let fingerprint = crc32fast::hash(message) ^ 0x5354_554e;
    message.extend_from_slice(&[0x80, 0x28, 0, 4]);
    message.extend_from_slice(&fingerprint.to_be_bytes());
    Ok(())
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
    use media_core::internals::ice::{IceLite, IceOutput, OwnChecks, is_request, random_credentials};

    use super::*;

    #[test]
    fn a_server_takes_the_check_for_valid_and_its_answer_is_known() {
        let (client, server) = (random_credentials(), random_credentials());
        let now = Instant::now();
        let (here, to): (SocketAddr, _) = ("192.0.2.9:4000".parse().unwrap(), "192.0.2.1:50000".parse().unwrap());
        let mut checks = BareChecks::new(now, to, client.clone(), server.clone());
        let check = checks.poll(now).unwrap().unwrap();
        assert_eq!(checks.poll(now).unwrap(), None, "not before the interval is over");
        let mut lite = IceLite::new(server, client.clone(), OwnChecks::First);
        let mut out = Vec::new();
        // It is answered once the server has asked back, and that answer is understood.
        for _ in 0..3 {
            lite.handle(now, here, &check, &mut out);
        }
        let sent: Vec<Vec<u8>> = out
            .iter()
            .filter_map(|output| match output {
                IceOutput::Transmit { datagram, .. } => Some(datagram.clone()),
                _ => None,
            })
            .collect();
        assert!(sent.iter().any(|datagram| checks.is_answer(to, datagram)), "{out:?}");
        let asked = sent.iter().find(|datagram| is_request(datagram)).unwrap();
        for source in [to, "[2001:db8::1]:50000".parse().unwrap()] {
            let mut selected = Vec::new();
            let answer = bare_answer(&client, source, asked).unwrap().unwrap();
            lite.handle(now, here, &answer, &mut selected);
            assert!(source != to || selected.contains(&IceOutput::Selected(here)), "{selected:?}");
            assert!(!selected.iter().any(|output| matches!(output, IceOutput::CheckRefused(_))), "{selected:?}");
        }
        assert_eq!(bare_answer(&random_credentials(), to, asked).unwrap(), None);
    }
}
