//! The certificate that this process shows in every handshake.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::DtlsError;
use crate::spec::{Fingerprint, FingerprintHash};

const DAY: i64 = 86_400;

/// A certificate is valid for this long: what browsers make lives as long (RFC 8827 §6.5 wants keys that change).
const LIFETIME: Duration = Duration::from_secs(30 * DAY as u64);

/// The kind of a certificate's key. The server's own is always on P-256; clients come with any of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum CertificateKey {
    /// ECDSA on P-256, as browsers make it.
    #[default]
    P256,
    /// ECDSA on P-224, as FFmpeg makes it with GnuTLS.
    P224,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// ECDSA on secp256k1.
    Secp256k1,
    /// ECDSA on brainpoolP256r1 (RFC 7027).
    BrainpoolP256,
    /// ECDSA on brainpoolP384r1 (RFC 7027).
    BrainpoolP384,
    /// ECDSA on brainpoolP512r1 (RFC 7027).
    BrainpoolP512,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 4096 bits.
    Rsa4096,
    /// Ed25519 (RFC 8422 §5.1.3).
    Ed25519,
    /// Ed448 (RFC 8422 §5.1.3).
    Ed448,
}

impl CertificateKey {
    fn generate(self) -> Result<PKey<Private>, ErrorStack> {
        let curve = match self {
            CertificateKey::P256 => Nid::X9_62_PRIME256V1,
            CertificateKey::P224 => Nid::SECP224R1,
            CertificateKey::P384 => Nid::SECP384R1,
            CertificateKey::P521 => Nid::SECP521R1,
            CertificateKey::Secp256k1 => Nid::SECP256K1,
            CertificateKey::BrainpoolP256 => Nid::BRAINPOOL_P256R1,
            CertificateKey::BrainpoolP384 => Nid::BRAINPOOL_P384R1,
            CertificateKey::BrainpoolP512 => Nid::BRAINPOOL_P512R1,
            CertificateKey::Rsa2048 => return PKey::from_rsa(Rsa::generate(2048)?),
            CertificateKey::Rsa4096 => return PKey::from_rsa(Rsa::generate(4096)?),
            CertificateKey::Ed25519 => return PKey::generate_ed25519(),
            CertificateKey::Ed448 => return PKey::generate_ed448(),
        };
        PKey::from_ec_key(EcKey::generate(EcGroup::from_curve_name(curve)?.as_ref())?)
    }
}

/// A self-signed certificate with its key. Both live in memory only; cloning shares them.
#[derive(Clone)]
pub struct Certificate {
    x509: X509,
    key: PKey<Private>,
    fingerprint: Fingerprint,
    expires: SystemTime,
}

impl Certificate {
    /// A certificate for a new key on P-256 (RFC 8827 §6.5), since some clients offer no other kind of cipher suite than
    /// ECDSA; see [`Certificate::generate_with`].
    ///
    /// # Errors
    /// Only if OpenSSL lacks entropy or these algorithms.
    pub fn generate() -> Result<Certificate, DtlsError> {
        Certificate::generate_with(CertificateKey::P256)
    }

    /// Makes a new key and signs a certificate for it with SHA-256: valid from yesterday for the next 30 days. Serial number
    /// and name are random, since Firefox confuses certificates that share both.
    ///
    /// # Errors
    /// As [`Certificate::generate`].
    pub fn generate_with(key: CertificateKey) -> Result<Certificate, DtlsError> {
        let key = key.generate()?;
        let mut name_bits = BigNum::new()?;
        name_bits.rand(64, MsbOption::MAYBE_ZERO, false)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, &format!("sluice-{}", name_bits.to_hex_str()?.to_ascii_lowercase()))?;
        let name = name.build();

        let mut serial = BigNum::new()?;
        serial.rand(128, MsbOption::MAYBE_ZERO, false)?;

        let expires = SystemTime::now() + LIFETIME;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX - LIFETIME.as_secs() as i64);
        let (not_before, not_after) =
            (Asn1Time::from_unix(now - DAY)?, Asn1Time::from_unix(now + LIFETIME.as_secs() as i64)?);

        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        let serial = Asn1Integer::from_bn(&serial)?;
        builder.set_serial_number(&serial)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_not_before(&not_before)?;
        builder.set_not_after(&not_after)?;
        builder.set_pubkey(&key)?;
        // The Edwards curves come with their own hash (RFC 8410).
        let digest = match key.id() {
            Id::ED25519 | Id::ED448 => MessageDigest::null(),
            _ => MessageDigest::sha256(),
        };
        builder.sign(&key, digest)?;
        let x509 = builder.build();
        let fingerprint = Fingerprint::of(FingerprintHash::Sha256, &x509.to_der()?)?;
        Ok(Certificate { x509, key, fingerprint, expires })
    }

    /// The SHA-256 fingerprint, for `a=fingerprint`.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// When its validity ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    pub(super) fn x509(&self) -> &X509 {
        &self.x509
    }

    pub(super) fn key(&self) -> &PKey<Private> {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_p256_random_and_short_lived() {
        // DTLS-06, Q-24
        let (one, two) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
        assert_ne!(one.fingerprint(), two.fingerprint());
        let serial = |c: &Certificate| c.x509.serial_number().to_bn().unwrap();
        assert_ne!(serial(&one), serial(&two));
        assert!(serial(&one).num_bits() <= 128 && serial(&one).num_bits() > 64);
        let name = |c: &Certificate| c.x509.subject_name().to_der().unwrap();
        assert_ne!(name(&one), name(&two));
        assert_eq!(name(&one), one.x509.issuer_name().to_der().unwrap());
        assert_eq!(one.key.ec_key().unwrap().group().curve_name(), Some(Nid::X9_62_PRIME256V1));
        assert_eq!(one.x509.signature_algorithm().object().nid(), Nid::ECDSA_WITH_SHA256);
        assert!(one.x509.verify(&one.key).unwrap());
        let validity = one.x509.not_before().diff(one.x509.not_after()).unwrap();
        assert_eq!(validity.days, 31);
        let skew = one.x509.not_before().diff(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        assert!(skew.days == 1 || (skew.days == 0 && skew.secs > 86_300));
        assert!(one.fingerprint().matches(&one.x509.to_der().unwrap()));
    }
}
