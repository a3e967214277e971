//! What the server shows of itself over TLS: a certificate chain with its key.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

const DAY: u64 = 86_400;

/// A certificate chain, the server's own first, with the key of that one. Cloning shares them.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<X509>,
    key: PKey<Private>,
    begins: SystemTime,
    expires: SystemTime,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

/// Why a certificate and a key are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The certificates.
    #[error("{0}")]
    Certificate(String),
    /// The key.
    #[error("{0}")]
    Key(String),
}

impl Identity {
    /// Reads a chain and its key, both as PEM; other PEM blocks are passed over, so that one file may have both.
    ///
    /// # Errors
    /// A file without certificate or key, a key that is encrypted, or one of another certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, Unusable> {
        let chain = X509::stack_from_pem(chain).map_err(|error| Unusable::Certificate(plain(&error)))?;
        if chain.is_empty() {
            return Err(Unusable::Certificate("has no certificate".to_owned()));
        }
        if key.windows(9).any(|word| word == b"ENCRYPTED") {
            return Err(Unusable::Key("the key is encrypted, and nobody is there to ask for its password".to_owned()));
        }
        let key = PKey::private_key_from_pem(key).map_err(|_| Unusable::Key("has no private key".to_owned()))?;
        Identity::new(chain, key)
    }

    /// A chain with its key.
    ///
    /// # Errors
    /// The key is of another certificate than the first one.
    pub fn new(chain: Vec<X509>, key: PKey<Private>) -> Result<Identity, Unusable> {
        let Some(own) = chain.first() else { return Err(Unusable::Certificate("has no certificate".to_owned())) };
        let of_certificate = own.public_key().map_err(|error| Unusable::Certificate(plain(&error)))?;
        if !of_certificate.public_eq(&key) {
            return Err(Unusable::Key("is not the key of the first certificate".to_owned()));
        }
        let (begins, expires) = (system_time(own.not_before()), system_time(own.not_after()));
        Ok(Identity { chain, key, begins, expires })
    }

    /// Reads both files.
    ///
    /// # Errors
    /// The text names the setting, the file and what is allowed.
    pub fn read(certificate: &Path, key: &Path) -> Result<Identity, String> {
        let read = |setting: &str, path: &Path, allowed: &str| {
            std::fs::read(path).map_err(|error| format!("{setting}: {}: {error}\n  allowed: {allowed}", path.display()))
        };
        const CHAIN: &str =
            "a readable PEM file with the server's certificate, and after it those that lead to its root";
        const KEY: &str = "a readable PEM file with the private key of the certificate, without password";
        let (chain_pem, key_pem) = (read("tls_cert", certificate, CHAIN)?, read("tls_key", key, KEY)?);
        Identity::from_pem(&chain_pem, &key_pem).map_err(|error| match error {
            Unusable::Certificate(why) => format!("tls_cert: {}: {why}\n  allowed: {CHAIN}", certificate.display()),
            Unusable::Key(why) => format!("tls_key: {}: {why}\n  allowed: {KEY}", key.display()),
        })
    }

    /// The chain, the server's own certificate first.
    pub fn chain(&self) -> &[X509] {
        &self.chain
    }

    /// The key of the first certificate.
    pub fn key(&self) -> &PKey<Private> {
        &self.key
    }

    /// When the server's own certificate begins to be valid.
    pub fn begins(&self) -> SystemTime {
        self.begins
    }

    /// When it ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// When an ACME certificate is renewed: with a third of its time left, as certificate authorities advise.
    pub fn renew_at(&self) -> SystemTime {
        let lifetime = self.expires.duration_since(self.begins).unwrap_or_default();
        self.expires - lifetime / 3
    }

    /// SHA-256 of the server's own certificate, as browsers show it.
    pub fn fingerprint(&self) -> String {
        let Ok(digest) = self.chain[0].digest(MessageDigest::sha256()) else { return String::new() };
        let mut text = String::new();
        for byte in digest.iter() {
            let _ = write!(text, "{}{byte:02X}", if text.is_empty() { "" } else { ":" });
        }
        text
    }

    /// The names that the certificate is for, in lower case.
    pub fn names(&self) -> Vec<String> {
        let names = self.chain[0].subject_alt_names().into_iter().flatten();
        names.filter_map(|name| name.dnsname().map(str::to_ascii_lowercase)).collect()
    }

    /// What deserves a word in the log: a certificate that is not valid now, or not for long.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let days = |span: Duration| span.as_secs() / DAY;
        if now < self.begins {
            return Some("the TLS certificate is not valid yet: is the clock right?".to_owned());
        }
        match self.expires.duration_since(now) {
            Err(since) => Some(format!("the TLS certificate expired {} days ago: renew it", days(since.duration()))),
            Ok(left) if days(left) < 7 => Some(format!("the TLS certificate expires in {} days: renew it", days(left))),
            Ok(_) => None,
        }
    }
}

/// What OpenSSL says, in one line.
fn plain(error: &ErrorStack) -> String {
    match error.errors().first().and_then(openssl::error::Error::reason) {
        Some(reason) => format!("does not parse: {reason}"),
        None => "does not parse".to_owned(),
    }
}

/// Seconds of the wall clock. What it cannot hold is the epoch, which is over.
fn system_time(time: &Asn1TimeRef) -> SystemTime {
    let epoch = Asn1Time::from_unix(0);
    let Ok(span) = epoch.and_then(|epoch| epoch.diff(time)) else { return UNIX_EPOCH };
    let seconds = i64::from(span.days) * DAY as i64 + i64::from(span.secs);
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::super::make::{self, Names};
    use super::*;

    fn identity(lifetime: Duration) -> Identity {
        make::self_signed(&Names { dns: vec!["media.example".to_owned()], ip: Vec::new() }, lifetime).unwrap()
    }

    fn pem(identity: &Identity) -> (Vec<u8>, Vec<u8>) {
        (identity.chain[0].to_pem().unwrap(), identity.key.private_key_to_pem_pkcs8().unwrap())
    }

    #[test]
    fn a_pair_is_read_from_two_files_or_from_one_and_a_wrong_one_is_told_apart() {
        let (one, other) = (identity(Duration::from_secs(DAY)), identity(Duration::from_secs(DAY)));
        let ((chain, key), (_, foreign)) = (pem(&one), pem(&other));
        assert_eq!(Identity::from_pem(&chain, &key).unwrap(), one);
        let both = [&chain[..], &key].concat();
        assert_eq!(Identity::from_pem(&both, &both).unwrap(), one);
        let is_key = |result: Result<Identity, Unusable>, text: &str| {
            assert!(matches!(&result, Err(Unusable::Key(why)) if why.contains(text)), "{result:?}");
        };
        is_key(Identity::from_pem(&chain, &foreign), "not the key of the first certificate");
        is_key(Identity::from_pem(&chain, &chain), "no private key");
        is_key(Identity::from_pem(&chain, b""), "no private key");
        let cipher = openssl::symm::Cipher::aes_128_cbc();
        let encrypted = one.key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
        is_key(Identity::from_pem(&chain, &encrypted), "encrypted");
        for text in [&b""[..], b"no PEM", &key] {
            let result = Identity::from_pem(text, &key);
            assert!(matches!(&result, Err(Unusable::Certificate(_))), "{result:?}");
        }
        let cut = [&chain[..chain.len() / 2], b"\n-----END CERTIFICATE-----\n"].concat();
        assert!(matches!(Identity::from_pem(&cut, &key), Err(Unusable::Certificate(_))));
    }

    #[test]
    fn a_certificate_near_its_end_or_outside_its_time_deserves_a_word() {
        let made = SystemTime::now();
        let identity = identity(Duration::from_secs(90 * DAY));
        let at = |days: u64| identity.warning(made + Duration::from_secs(days * DAY + 60));
        assert_eq!(at(0), None);
        assert_eq!(at(80), None);
        assert!(at(85).unwrap().contains("expires in 4 days"));
        assert!(at(92).unwrap().contains("expired 2 days ago"));
        let before = identity.warning(made - Duration::from_secs(2 * DAY)).unwrap();
        assert!(before.contains("not valid yet"), "{before}");
    }

    #[test]
    fn it_is_renewed_with_a_third_of_its_time_left() {
        let identity = identity(Duration::from_secs(90 * DAY));
        let left = identity.expires().duration_since(identity.renew_at()).unwrap();
        let lifetime = identity.expires().duration_since(identity.begins()).unwrap();
        assert_eq!(left, lifetime / 3);
    }
}
