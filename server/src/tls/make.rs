//! Makes self-signed certificates.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use super::identity::{Identity, Unusable};

/// Clients' clocks may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// Whom a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names; the first one is the certificate's common name.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("OpenSSL: {0}")]
pub struct MakeError(String);

impl From<ErrorStack> for MakeError {
    fn from(error: ErrorStack) -> MakeError {
        MakeError(error.to_string())
    }
}

impl From<Unusable> for MakeError {
    fn from(error: Unusable) -> MakeError {
        MakeError(error.to_string())
    }
}

/// A self-signed certificate for these names, with a new key on P-256; valid from yesterday for `lifetime` from now.
///
/// # Errors
/// OpenSSL lacks entropy, or refuses a name.
pub fn self_signed(names: &Names, lifetime: Duration) -> Result<Identity, MakeError> {
    let key = new_key()?;
    let mut builder = begin(names, &key, lifetime)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    finish(builder, key)
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?.as_ref())?)
}

/// What all certificates have.
fn begin(names: &Names, key: &PKey<Private>, lifetime: Duration) -> Result<X509Builder, MakeError> {
    let mut subject = X509NameBuilder::new()?;
    // A common name has 64 characters at most; what counts are the alternative names.
    let common = names.dns.first().map_or("sluice", String::as_str);
    subject.append_entry_by_nid(Nid::COMMONNAME, common.get(..64).unwrap_or(common))?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let serial = Asn1Integer::from_bn(&serial)?;
    let unix = |at: SystemTime| {
        let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Asn1Time::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX))
    };
    let now = SystemTime::now();
    let (not_before, not_after) = (unix(now - BACKDATED)?, unix(now + lifetime)?);

    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(&subject)?;
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    builder.set_pubkey(key)?;
    let mut alternative = SubjectAlternativeName::new();
    for name in &names.dns {
        alternative.dns(name);
    }
    for ip in &names.ip {
        alternative.ip(&ip.to_string());
    }
    let alternative = alternative.build(&builder.x509v3_context(None, None))?;
    builder.append_extension(alternative)?;
    Ok(builder)
}

fn finish(mut builder: X509Builder, key: PKey<Private>) -> Result<Identity, MakeError> {
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(Identity::new(vec![builder.build()], key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_has_all_names_and_addresses() {
        let names = Names {
            dns: vec!["studio.local".to_owned(), "localhost".to_owned()],
            ip: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        };
        let identity = self_signed(&names, Duration::from_secs(86_400)).unwrap();
        assert_eq!(identity.names(), names.dns);
        let own = &identity.chain()[0];
        let found = own.subject_alt_names().unwrap();
        let addresses: Vec<_> = found.iter().filter_map(|name| name.ipaddress().map(<[u8]>::len)).collect();
        assert_eq!(addresses, [4, 16]);
        assert!(own.verify(identity.key()).unwrap());
        assert_eq!(identity.fingerprint().len(), 32 * 3 - 1);
    }
}
