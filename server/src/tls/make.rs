//! Makes certificates: self-signed ones, and requests to a certificate authority.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder, X509Req};

use super::identity::{Identity, Unusable};

/// Clients' clocks may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// The extension of an answer to a challenge (RFC 8737 §6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// An answer to a challenge is of use for minutes.
const CHALLENGE_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

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

/// The certificate that answers a challenge of a name: it has the digest of the key authorization (RFC 8737 §3).
///
/// # Errors
/// As [`self_signed`].
pub fn challenge(name: &str, digest: &[u8]) -> Result<Identity, MakeError> {
    let key = new_key()?;
    let names = Names { dns: vec![name.to_owned()], ip: Vec::new() };
    let mut builder = begin(&names, &key, CHALLENGE_LIFETIME)?;
    // DER of the OCTET STRING inside of the extension's own.
    let length = u8::try_from(digest.len()).map_err(|_| MakeError("a digest of more than 255 bytes".to_owned()))?;
    let value = [&[4, length], digest].concat();
    let oid = Asn1Object::from_str(ACME_IDENTIFIER)?;
    let value = Asn1OctetString::new_from_bytes(&value)?;
    builder.append_extension(X509Extension::new_from_der(&oid, true, &value)?)?;
    finish(builder, key)
}

/// A new key, and the request for a certificate of it for these names, as DER (RFC 8555 §7.4).
///
/// # Errors
/// As [`self_signed`].
pub fn request(names: &[String]) -> Result<(PKey<Private>, Vec<u8>), MakeError> {
    let key = new_key()?;
    let mut builder = X509Req::builder()?;
    builder.set_version(0)?;
    builder.set_subject_name(&X509NameBuilder::new()?.build())?;
    builder.set_pubkey(&key)?;
    let mut alternative = SubjectAlternativeName::new();
    for name in names {
        alternative.dns(name);
    }
    let mut extensions = Stack::new()?;
    extensions.push(alternative.build(&builder.x509v3_context(None))?)?;
    builder.add_extensions(&extensions)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((key, builder.build().to_der()?))
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

    #[test]
    fn an_answer_to_a_challenge_has_the_digest_in_a_critical_extension() {
        let identity = challenge("media.example", &[7; 32]).unwrap();
        let text = String::from_utf8(identity.chain()[0].to_text().unwrap()).unwrap();
        assert!(text.contains("1.3.6.1.5.5.7.1.31: critical"), "{text}");
        let der = identity.chain()[0].to_der().unwrap();
        let value = [&[4, 34, 4, 32][..], &[7; 32]].concat();
        assert!(der.windows(value.len()).any(|window| window == value));
        assert_eq!(identity.names(), ["media.example"]);
    }

    #[test]
    fn a_request_names_all_domains_and_is_signed_by_its_key() {
        let (key, der) = request(&["a.example".to_owned(), "b.example".to_owned()]).unwrap();
        let request = X509Req::from_der(&der).unwrap();
        assert!(request.verify(&key).unwrap());
        let text = String::from_utf8(request.to_text().unwrap()).unwrap();
        assert!(text.contains("DNS:a.example, DNS:b.example"), "{text}");
    }
}
