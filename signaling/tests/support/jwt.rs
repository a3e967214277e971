//! An issuer of JWTs with a key of each kind, made by OpenSSL: nothing of it is the code under test.

// Each test binary uses its own part, and a test may panic.
#![allow(dead_code, clippy::unwrap_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use openssl::base64::encode_block;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};

/// A key, as the issuer has it.
pub(crate) struct SigningKey {
    pub(crate) algorithm: &'static str,
    key: PKey<Private>,
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    encode_block(bytes).replace('+', "-").replace('/', "_").replace(['=', '\n'], "")
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The three parts of a token, whatever they say.
pub(crate) fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", base64url(&signature))
}

impl SigningKey {
    pub(crate) fn hs256(secret: &[u8]) -> SigningKey {
        SigningKey { algorithm: "HS256", key: PKey::hmac(secret).unwrap() }
    }

    pub(crate) fn rs256() -> SigningKey {
        SigningKey { algorithm: "RS256", key: PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap() }
    }

    pub(crate) fn es256() -> SigningKey {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        SigningKey { algorithm: "ES256", key: PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap() }
    }

    pub(crate) fn eddsa() -> SigningKey {
        SigningKey { algorithm: "EdDSA", key: PKey::generate_ed25519().unwrap() }
    }

    /// The public half, or nothing of a secret.
    pub(crate) fn pem(&self) -> String {
        String::from_utf8(self.key.public_key_to_pem().unwrap()).unwrap()
    }

    /// The public half as a JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self.key.id() {
            Id::RSA => {
                let rsa = self.key.rsa().unwrap();
                json!({"kty": "RSA", "n": base64url(&rsa.n().to_vec()), "e": base64url(&rsa.e().to_vec())})
            }
            Id::EC => {
                let ec = self.key.ec_key().unwrap();
                let (mut x, mut y, mut context) =
                    (BigNum::new().unwrap(), BigNum::new().unwrap(), BigNumContext::new().unwrap());
                ec.public_key().affine_coordinates(ec.group(), &mut x, &mut y, &mut context).unwrap();
                let [x, y] = [x, y].map(|number| base64url(&number.to_vec_padded(32).unwrap()));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            }
            _ => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&self.key.raw_public_key().unwrap())}),
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm.into();
        jwk
    }

    /// A token with these claims.
    pub(crate) fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        token(&header, claims, |message| self.sign(message))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self.key.id() {
            Id::EC => {
                let signature = EcdsaSig::sign(&sha256(message), &self.key.ec_key().unwrap()).unwrap();
                let halves = [signature.r().to_vec_padded(32).unwrap(), signature.s().to_vec_padded(32).unwrap()];
                halves.concat()
            }
            Id::ED25519 => Signer::new_without_digest(&self.key).unwrap().sign_oneshot_to_vec(message).unwrap(),
            _ => {
                let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
                signer.sign_oneshot_to_vec(message).unwrap()
            }
        }
    }
}
