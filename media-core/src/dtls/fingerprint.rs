//! Certificate fingerprints: as SDP writes them (RFC 8122 §5), and compared with a certificate.

use std::fmt::{self, Write};
use std::str::FromStr;

use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};

use crate::spec::{Fingerprint, FingerprintHash};

/// Why the value of an `a=fingerprint` line was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// A hash function that Sluice does not use, such as sha-1 or md5. RFC 8122 §5: skip the line, look at the others.
    #[error("unsupported hash function {0:?}")]
    UnknownHash(String),
    /// No hash function, or a digest that is not colon-separated hex of the right length.
    #[error("malformed fingerprint")]
    Malformed,
}

impl FingerprintHash {
    /// The name in SDP.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Length of the digest, in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            FingerprintHash::Sha256 => 32,
            FingerprintHash::Sha384 => 48,
            FingerprintHash::Sha512 => 64,
        }
    }

    fn message_digest(self) -> MessageDigest {
        match self {
            FingerprintHash::Sha256 => MessageDigest::sha256(),
            FingerprintHash::Sha384 => MessageDigest::sha384(),
            FingerprintHash::Sha512 => MessageDigest::sha512(),
        }
    }
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(hash_function: FingerprintHash, certificate_der: &[u8]) -> Result<Fingerprint, ErrorStack> {
        let digest = hash(hash_function.message_digest(), certificate_der)?.to_vec();
        Ok(Fingerprint { hash: hash_function, digest })
    }

    /// True if this is the fingerprint of that certificate (DER). False also if OpenSSL cannot compute the hash.
    pub fn matches(&self, certificate_der: &[u8]) -> bool {
        Fingerprint::of(self.hash, certificate_der).is_ok_and(|actual| actual == *self)
    }

    /// The value of an `a=fingerprint` line: `sha-256 AB:CD:…`, upper-case.
    pub fn to_sdp(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.as_str())?;
        for (index, byte) in self.digest.iter().enumerate() {
            f.write_char(if index == 0 { ' ' } else { ':' })?;
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads the value of an `a=fingerprint` line. Upper and lower case are equal, in the name and in the digest.
    fn from_str(value: &str) -> Result<Fingerprint, FingerprintError> {
        let mut words = value.split_ascii_whitespace();
        let (Some(name), Some(digits), None) = (words.next(), words.next(), words.next()) else {
            return Err(FingerprintError::Malformed);
        };
        let hash: FingerprintHash =
            name.parse().map_err(|_| FingerprintError::UnknownHash(name.chars().take(32).collect()))?;
        let mut digest = Vec::with_capacity(hash.digest_len());
        for byte in digits.split(':') {
            if digest.len() == hash.digest_len() || byte.len() != 2 || !byte.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(FingerprintError::Malformed);
            }
            digest.push(u8::from_str_radix(byte, 16).map_err(|_| FingerprintError::Malformed)?);
        }
        if digest.len() != hash.digest_len() {
            return Err(FingerprintError::Malformed);
        }
        Ok(Fingerprint { hash, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdp_text_round_trips_in_upper_case() {
        // DTLS-09
        for hash in [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512] {
            let fingerprint = Fingerprint::of(hash, b"certificate").unwrap();
            assert_eq!(fingerprint.digest.len(), hash.digest_len());
            let text = fingerprint.to_sdp();
            assert_eq!(text.parse(), Ok(fingerprint.clone()));
            assert_eq!(text.to_ascii_lowercase().parse(), Ok(fingerprint.clone()));
            assert_eq!(text.to_ascii_uppercase().parse(), Ok(fingerprint.clone()));
            assert!(fingerprint.matches(b"certificate"));
            assert!(!fingerprint.matches(b"certificatf"));
        }
    }

    #[test]
    fn a_known_digest_is_written_as_rfc_8122_shows_it() {
        // SHA-256 of the empty string.
        let fingerprint = Fingerprint::of(FingerprintHash::Sha256, b"").unwrap();
        assert_eq!(
            fingerprint.to_sdp(),
            "sha-256 E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55"
        );
    }

    #[test]
    fn unknown_hashes_and_malformed_digests_are_told_apart() {
        // DTLS-08, DTLS-09
        let sha1 = format!("sha-1 {}", ["AB"; 20].join(":"));
        assert_eq!(sha1.parse::<Fingerprint>(), Err(FingerprintError::UnknownHash("sha-1".into())));
        assert_eq!("md5 AA".parse::<Fingerprint>(), Err(FingerprintError::UnknownHash("md5".into())));
        let right = ["AB"; 32].join(":");
        let wrong = [
            String::new(),
            "sha-256".into(),
            "sha-256 ".into(),
            format!("sha-256 {right}:AB"),
            format!("sha-256 {right} more"),
            format!("sha-256 {}", ["AB"; 31].join(":")),
            format!("sha-256 {}", ["AG"; 32].join(":")),
            format!("sha-256 {}", ["+A"; 32].join(":")),
            format!("sha-256 {}", ["é"; 32].join(":")),
            format!("sha-256 {}", "AB".repeat(32)),
            format!("sha-384 {right}"),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError::Malformed), "{text:?}");
        }
        let long = "x".repeat(1_000_000) + " AB";
        let Err(FingerprintError::UnknownHash(name)) = long.parse::<Fingerprint>() else { panic!("accepted") };
        assert_eq!(name.len(), 32);
    }
}
