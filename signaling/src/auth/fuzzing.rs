//! What the fuzz targets drive.

use std::sync::{Arc, LazyLock};

use media_core::SessionId;
use tokio::runtime::{Builder, Runtime};

use super::grant::Ask;
use super::{Action, Authorizer, Basis, JwtConfig, KeySet, bearer, misplaced_token, webhook};
use crate::client_address::ClientAddress;
use crate::config::SignalingConfig;
use crate::observer::Observer;

/// The secret that the samples are signed with, as in the corpus.
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

struct Quiet;

impl Observer for Quiet {}

static JUDGE: LazyLock<(Authorizer, Runtime)> = LazyLock::new(|| {
    let mut config = SignalingConfig { auth_failures: 0, ..SignalingConfig::default() };
    config.tokens.add("show", "s3cret").expect("a fixed token");
    let keys = KeySet::from_file(SECRET).expect("a secret of 32 bytes");
    config.jwt = Some(JwtConfig { keys, ..JwtConfig::default() });
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    (Authorizer::new(&config, Arc::new(Quiet)), runtime)
});

/// An Authorization header: no token but the known one, and no JWT but one that the secret signed, gives a right.
pub(crate) fn fuzz_authorization(data: &[u8]) {
    let told = misplaced_token(Some(data), None);
    let token = bearer(data);
    assert!(token.is_some() || told.is_some(), "whoever shows no token is told what is wrong");
    let (judge, runtime) = &*JUDGE;
    let ask = Ask {
        stream: "show",
        action: Action::Publish,
        authorization: Some(data),
        address: ClientAddress([192, 0, 2, 1].into()),
        session: SessionId(1),
    };
    let Ok(grant) = runtime.block_on(judge.judge(&ask)) else { return };
    let token = token.expect("nothing is granted without a token");
    match grant.basis {
        Basis::Token(_) => assert_eq!(token, b"s3cret"),
        Basis::Jwt(_) => assert!(is_signed(token), "{}", token.escape_ascii()),
        Basis::Open | Basis::Webhook => unreachable!("neither is configured"),
    }
}

/// HMAC-SHA256 over all before the last dot, by another library than the one under test.
fn is_signed(token: &[u8]) -> bool {
    let text = std::str::from_utf8(token).expect("ASCII");
    let (message, signature) = text.rsplit_once('.').expect("three parts");
    let key = openssl::pkey::PKey::hmac(SECRET).expect("a key");
    let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).expect("a signer");
    let expected = signer.sign_oneshot_to_vec(message.as_bytes()).expect("a signature");
    let written = openssl::base64::encode_block(&expected).replace('+', "-").replace('/', "_");
    written.trim_end_matches('=') == signature
}

/// What the webhook answers with 200.
pub(crate) fn fuzz_webhook_answer(data: &[u8]) {
    webhook::read_answer(data);
}
