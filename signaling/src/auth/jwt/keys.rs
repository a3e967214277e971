//! Keys that verify JWTs: from PEM, from a JWK set (RFC 7517), or a secret. The algorithm is the key's, never the token's.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header};
use openssl::bn::BigNumContext;
use openssl::ec::PointConversionForm;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey};
use openssl::sha::Sha256;
use serde::Deserialize;

use super::crypto;
use crate::limits::MAX_JWT_KEYS;

/// Bytes of the shortest secret for HS256 (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;

/// Bytes of the shortest RSA modulus (RFC 7518 §3.3: 2048 bits).
const MIN_MODULUS: usize = 256;

/// Keys that verify JWTs.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Arc<[Key]>,
}

/// One of them.
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    digest: KeyDigest,
}

/// SHA-256 of a key with its algorithm: which key it is.
pub(crate) type KeyDigest = [u8; 32];

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// PEM that OpenSSL does not read as public keys.
    #[error("the PEM holds something other than public keys (`BEGIN PUBLIC KEY`)")]
    NoPublicKey,
    /// A key for another algorithm.
    #[error("a key is of another kind than RSA of 2048 bits or more, EC on P-256, and Ed25519")]
    Unsupported,
    /// A secret that can be guessed.
    #[error("the secret has fewer than {MIN_SECRET} bytes (RFC 7518 §3.2)")]
    ShortSecret,
    /// Neither JSON nor a JWK set.
    #[error("it is no JWK set")]
    NoKeySet,
    /// None of the keys can be used.
    #[error("it has no key for RS256, ES256 or EdDSA")]
    NoUsableKey,
    /// More keys than are read.
    #[error("it has more than {MAX_JWT_KEYS} keys")]
    TooMany,
}

/// `{"keys": […]}`, where kinds of keys that are not known are skipped (RFC 7517 §5).
#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a file: PEM with one or several public keys, a JWK set, or else a secret for HS256, at whose end a line break
    /// does not count.
    ///
    /// # Errors
    ///
    /// [`KeyError`], whose text holds nothing of the file.
    pub fn from_file(bytes: &[u8]) -> Result<KeySet, KeyError> {
        let text = bytes.trim_ascii();
        if text.starts_with(b"-----BEGIN") {
            KeySet::from_pem(text)
        } else if text.starts_with(b"{") {
            KeySet::from_jwk_set(text, true)
        } else {
            let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            KeySet::of(vec![Key::secret(None, secret.strip_suffix(b"\r").unwrap_or(secret))?])
        }
    }

    /// Reads what a JWKS URL answers. Secrets in it are skipped: what is served to the world is none.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub fn from_url(bytes: &[u8]) -> Result<KeySet, KeyError> {
        KeySet::from_jwk_set(bytes, false)
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed a token with this header: those of its algorithm, and of its `kid` where both have one.
    pub(super) fn candidates(&self, header: &Header) -> impl Iterator<Item = (&DecodingKey, KeyDigest)> {
        let may_have = move |key: &&Key| {
            let is_other = |kid: &String| key.kid.as_ref().is_some_and(|own| own != kid);
            key.algorithm == header.alg && !header.kid.as_ref().is_some_and(is_other)
        };
        self.keys.iter().filter(may_have).map(|key| (&key.key, key.digest))
    }

    /// One of the keys has this `kid`.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    pub(super) fn has(&self, digest: &KeyDigest) -> bool {
        self.keys.iter().any(|key| key.digest == *digest)
    }

    fn of(keys: Vec<Key>) -> Result<KeySet, KeyError> {
        crypto::install();
        match keys.len() {
            0 => Err(KeyError::NoUsableKey),
            1..=MAX_JWT_KEYS => Ok(KeySet { keys: keys.into() }),
            _ => Err(KeyError::TooMany),
        }
    }

    fn from_pem(text: &[u8]) -> Result<KeySet, KeyError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyError::NoPublicKey)?;
        let blocks = text.split_inclusive("-----END PUBLIC KEY-----").map(str::trim).filter(|block| !block.is_empty());
        KeySet::of(blocks.take(MAX_JWT_KEYS + 1).map(Key::from_pem).collect::<Result<_, _>>()?)
    }

    fn from_jwk_set(text: &[u8], with_secrets: bool) -> Result<KeySet, KeyError> {
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(KeyError::NoKeySet);
        }
        let set: JwkSet = serde_json::from_slice(text).map_err(|_| KeyError::NoKeySet)?;
        if set.keys.len() > MAX_JWT_KEYS {
            return Err(KeyError::TooMany);
        }
        let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        KeySet::of(jwks.filter_map(|jwk| Key::from_jwk(&jwk, with_secrets)).collect())
    }
}

impl Key {
    fn new(kid: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Key {
        let mut hash = Sha256::new();
        hash.update(format!("{algorithm:?}").as_bytes());
        match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => hash.update(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => [n, e].into_iter().for_each(|number| hash.update(number)),
        }
        Key { kid, algorithm, key, digest: hash.finish() }
    }

    fn secret(kid: Option<String>, secret: &[u8]) -> Result<Key, KeyError> {
        if secret.len() < MIN_SECRET {
            return Err(KeyError::ShortSecret);
        }
        Ok(Key::new(kid, Algorithm::HS256, DecodingKey::from_secret(secret)))
    }

    fn rsa(kid: Option<String>, n: &[u8], e: &[u8]) -> Option<Key> {
        // Some write leading zeros, which ring does not take.
        let strip = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (n, e) = (strip(n), strip(e));
        (n.len() >= MIN_MODULUS).then(|| Key::new(kid, Algorithm::RS256, DecodingKey::from_rsa_raw_components(&n, &e)))
    }

    fn from_pem(block: &str) -> Result<Key, KeyError> {
        let key = PKey::public_key_from_pem(block.as_bytes()).map_err(|_| KeyError::NoPublicKey)?;
        let found = match key.id() {
            Id::RSA => {
                let rsa = key.rsa().map_err(|_| KeyError::NoPublicKey)?;
                Key::rsa(None, &rsa.n().to_vec(), &rsa.e().to_vec())
            }
            Id::EC => {
                let ec = key.ec_key().map_err(|_| KeyError::NoPublicKey)?;
                let is_p256 = ec.group().curve_name() == Some(Nid::X9_62_PRIME256V1);
                let point = BigNumContext::new().and_then(|mut context| {
                    ec.public_key().to_bytes(ec.group(), PointConversionForm::UNCOMPRESSED, &mut context)
                });
                let point = point.ok().filter(|_| is_p256);
                point.map(|point| Key::new(None, Algorithm::ES256, DecodingKey::from_ec_der(&point)))
            }
            Id::ED25519 => {
                let raw = key.raw_public_key().ok();
                raw.map(|raw| Key::new(None, Algorithm::EdDSA, DecodingKey::from_ed_der(&raw)))
            }
            _ => None,
        };
        found.ok_or(KeyError::Unsupported)
    }

    /// `None` for keys that are for something else.
    fn from_jwk(jwk: &Jwk, with_secrets: bool) -> Option<Key> {
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let decoded = DecodingKey::from_jwk(jwk).ok()?;
        let kid = common.key_id.clone();
        let (algorithm, key) = match (&jwk.algorithm, decoded.kind()) {
            (AlgorithmParameters::RSA(_), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                (KeyAlgorithm::RS256, Key::rsa(kid, n, e)?)
            }
            (AlgorithmParameters::EllipticCurve(ec), _) if ec.curve == EllipticCurve::P256 => {
                (KeyAlgorithm::ES256, Key::new(kid, Algorithm::ES256, decoded))
            }
            (AlgorithmParameters::OctetKeyPair(pair), _) if pair.curve == EllipticCurve::Ed25519 => {
                (KeyAlgorithm::EdDSA, Key::new(kid, Algorithm::EdDSA, decoded))
            }
            (AlgorithmParameters::OctetKey(_), DecodingKeyKind::SecretOrDer(secret)) if with_secrets => {
                (KeyAlgorithm::HS256, Key::secret(kid, secret).ok()?)
            }
            _ => return None,
        };
        common.key_algorithm.is_none_or(|named| named == algorithm).then_some(key)
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &KeySet) -> bool {
        self.keys.iter().map(|key| (&key.kid, key.digest)).eq(other.keys.iter().map(|key| (&key.kid, key.digest)))
    }
}

impl Eq for KeySet {}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A digest of a weak secret would tell it.
        f.debug_struct("KeySet").field("count", &self.keys.len()).finish()
    }
}
