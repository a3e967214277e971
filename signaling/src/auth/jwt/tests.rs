use std::num::NonZeroUsize;

use media_core::SessionId;
use serde_json::{Value, json};

use self::issuer::{SigningKey, base64url, token, unix_now};
use super::*;
use crate::auth::Action;
use crate::client_address::ClientAddress;

#[path = "../../../tests/support/jwt.rs"]
mod issuer;

const SECRET: &[u8] = b"a secret of thirty-two bytes, at least";

struct Quiet;

impl Observer for Quiet {}

fn judge_of(config: &JwtConfig) -> Jwt {
    let observer: Arc<dyn Observer> = Arc::new(Quiet);
    Jwt::new(config, None, &observer)
}

/// Keys of a file, and tokens that must have an expiry.
fn config(keys: &[u8]) -> JwtConfig {
    JwtConfig { keys: KeySet::from_file(keys).unwrap(), require_exp: true, ..JwtConfig::default() }
}

/// Claims to publish `show`.
fn claims() -> Value {
    json!({"sub": "alice", "exp": unix_now() + 60, "stream": "show", "action": "publish"})
}

/// The same with other members.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// What becomes of a token; `None` if it is not known.
async fn judged(jwt: &Jwt, stream: &str, action: Action, token: &str) -> Option<Result<Grant, Denial>> {
    let address = ClientAddress("192.0.2.1".parse().unwrap());
    let ask = Ask { stream, action, authorization: None, address, session: SessionId(1) };
    match jwt.judge(Instant::now(), &ask, token.as_bytes()).await {
        Verdict::Decided(judged) => Some(judged),
        Verdict::Unknown => None,
        Verdict::Away => panic!("no keys"),
    }
}

async fn publish(jwt: &Jwt, token: &str) -> Option<Result<Grant, Denial>> {
    judged(jwt, "show", Action::Publish, token).await
}

/// The reason of a refusal by a token that was verified.
async fn refusal(jwt: &Jwt, token: &str) -> String {
    match publish(jwt, token).await {
        Some(Err(Denial::Refused(why) | Denial::OutOfScope(why))) => why.to_owned(),
        other => panic!("{other:?}"),
    }
}

// AUTH-04
#[tokio::test]
async fn each_algorithm_verifies_its_own_signatures_and_no_others() {
    let keys = [SigningKey::hs256(SECRET), SigningKey::rs256(), SigningKey::es256(), SigningKey::eddsa()];
    for (index, key) in keys.iter().enumerate() {
        let file = if index == 0 { SECRET.to_vec() } else { key.pem().into_bytes() };
        let jwt = judge_of(&config(&file));
        let good = key.token(None, &claims());
        let grant = publish(&jwt, &good).await.unwrap().unwrap();
        assert_eq!(grant.identity.name(), Some("jwt:alice"), "{}", key.algorithm);
        let left = grant.expires.unwrap().saturating_duration_since(Instant::now()).as_secs();
        assert!((85..=91).contains(&left), "60 s and the leeway: {left}");
        for (other, foreign) in keys.iter().enumerate().filter(|(other, _)| *other != index) {
            assert!(publish(&jwt, &foreign.token(None, &claims())).await.is_none(), "{other}");
            // The right algorithm by name, the signature of another key.
            let header = json!({"alg": key.algorithm});
            let forged = token(&header, &claims(), |message| foreign.sign(message));
            assert!(publish(&jwt, &forged).await.is_none(), "{} by {}", key.algorithm, foreign.algorithm);
        }
        // One bit of the claims, one of the signature, and the signature cut.
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (head, body) = message.split_once('.').unwrap();
        let changed = base64url(claims().to_string().replace("show", "shov").as_bytes());
        assert_ne!(changed, body);
        for bad in [
            format!("{head}.{changed}.{signature}"),
            format!("{message}.{}", &signature[..signature.len() - 4]),
            format!("{message}."),
            message.to_owned(),
            format!("{good}.x"),
        ] {
            assert!(publish(&jwt, &bad).await.is_none(), "{bad}");
        }
    }
}

// AUTH-04: RFC 8725 §2.1 and §3.1
#[tokio::test]
async fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let rsa = SigningKey::rs256();
    let jwt = judge_of(&config(rsa.pem().as_bytes()));
    // No signature at all.
    for algorithm in ["none", "None", "NONE", ""] {
        for signature in [&b""[..], b"x"] {
            let forged = token(&json!({"alg": algorithm}), &claims(), |_| signature.to_vec());
            assert!(publish(&jwt, &forged).await.is_none(), "{algorithm:?}");
        }
    }
    // The public key as the secret of an HMAC, in every form that it has.
    let pem = rsa.pem();
    let mut jwk = rsa.jwk("k");
    let set = json!({"keys": [jwk.clone()]}).to_string();
    for public in [pem.as_bytes(), pem.trim().as_bytes(), set.as_bytes()] {
        let forged = SigningKey::hs256(public).token(None, &claims());
        assert!(publish(&jwt, &forged).await.is_none());
    }
    // The same algorithm with a longer hash.
    let header = json!({"alg": "RS512"});
    assert!(publish(&jwt, &token(&header, &claims(), |message| rsa.sign(message))).await.is_none());
    // A key, a URL of keys, or an extension that the token brings along.
    let own = SigningKey::rs256();
    for header in [
        json!({"alg": "RS256", "jwk": own.jwk("k")}),
        json!({"alg": "RS256", "jku": "https://evil.example/jwks"}),
        json!({"alg": "RS256", "x5u": "https://evil.example/cert"}),
    ] {
        assert!(publish(&jwt, &token(&header, &claims(), |message| own.sign(message))).await.is_none(), "{header}");
    }
    let header = json!({"alg": "RS256", "crit": ["b64"], "b64": "false"});
    assert!(publish(&jwt, &token(&header, &claims(), |message| rsa.sign(message))).await.is_none());
    // A key whose own `alg` is another one is for nothing here.
    jwk["alg"] = "RS384".into();
    assert_eq!(KeySet::from_url(json!({"keys": [jwk]}).to_string().as_bytes()), Err(KeyError::NoUsableKey));
}

// AUTH-04: RFC 8725 §3.8 and §3.9
#[tokio::test]
async fn claims_of_time_issuer_and_audience_are_judged() {
    let key = SigningKey::es256();
    let mut config = config(key.pem().as_bytes());
    config.issuers = vec!["https://id.example".to_owned()];
    config.audiences = vec!["sluice".to_owned()];
    let jwt = judge_of(&config);
    let good = json!({"iss": "https://id.example", "aud": "sluice"});
    let of = |changes: Value| {
        let mut all = good.clone();
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key.token(None, &with(all))
    };
    let now = unix_now();
    for fine in [
        json!({}),
        json!({"aud": ["other", "sluice"]}),
        json!({"exp": now - 15}),
        json!({"nbf": now + 15}),
        json!({"exp": now as f64 + 30.5, "nbf": now - 1000, "iat": now}),
        json!({"exp": 1e300}),
    ] {
        let judged = publish(&jwt, &of(fine.clone())).await;
        // A number that no clock reaches is no time.
        let is_time = fine["exp"] != json!(1e300);
        assert_eq!(judged.is_some_and(|judged| judged.is_ok()), is_time, "{fine}");
    }
    for (bad, why) in [
        (json!({"exp": now - 45}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"exp": null}), "lacks a claim"),
        (json!({"exp": (now + 60).to_string()}), "wrong type"),
        (json!({"exp": -1}), "lacks a claim"),
        (json!({"nbf": now + 45}), "not valid yet"),
        (json!({"nbf": (now - 60).to_string()}), "wrong type"),
        (json!({"iss": "https://evil.example"}), "another issuer"),
        (json!({"iss": null}), "lacks a claim"),
        (json!({"iss": 5}), "wrong type"),
        (json!({"aud": "other"}), "another audience"),
        (json!({"aud": []}), "another audience"),
        (json!({"aud": null}), "lacks a claim"),
        (json!({"aud": 5}), "lacks a claim"),
    ] {
        let told = refusal(&jwt, &of(bad.clone())).await;
        assert!(told.contains(why), "{bad}: {told}");
    }
    // Without the settings: any issuer, and no audience, as a token for another service must not count here.
    config.issuers.clear();
    config.audiences.clear();
    config.require_exp = false;
    let jwt = judge_of(&config);
    let grant = publish(&jwt, &key.token(None, &with(json!({"iss": "any", "exp": null})))).await.unwrap().unwrap();
    assert_eq!((grant.expires, grant.identity.name()), (None, Some("jwt:alice@any")));
    for audience in [json!("sluice"), json!(["sluice"]), json!([]), json!(5)] {
        let token = key.token(None, &with(json!({"aud": audience})));
        assert!(refusal(&jwt, &token).await.contains("audience"), "{audience}");
    }
}

// AUTH-01, AUTH-04
#[tokio::test]
async fn a_token_gives_the_rights_of_its_claims_and_nothing_without() {
    let key = SigningKey::es256();
    let jwt = judge_of(&config(key.pem().as_bytes()));
    let allowed = async |changes: Value, stream: &str, action: Action| {
        let token = key.token(None, &with(changes));
        matches!(judged(&jwt, stream, action, &token).await, Some(Ok(_)))
    };
    let (publish, watch) = (Action::Publish, Action::Watch);
    assert!(allowed(json!({}), "show", publish).await);
    assert!(!allowed(json!({}), "show", watch).await && !allowed(json!({}), "other", publish).await);
    let both = json!({"action": ["publish", "watch"]});
    assert!(allowed(both.clone(), "show", publish).await && allowed(both, "show", watch).await);
    let many = json!({"stream": null, "streams": ["live/*", "show"], "action": "watch"});
    for (stream, covered) in [("live/a", true), ("show", true), ("live", false), ("show2", false)] {
        assert_eq!(allowed(many.clone(), stream, watch).await, covered, "{stream}");
    }
    assert!(allowed(json!({"stream": null, "streams": ["*"]}), "anything", publish).await);
    assert!(!allowed(json!({"stream": "*"}), "anything", publish).await, "`stream` is exact");
    for nothing in [
        json!({"action": null}),
        json!({"action": "Publish"}),
        json!({"action": "admin"}),
        json!({"action": []}),
        json!({"action": true}),
        json!({"stream": null}),
        json!({"stream": null, "streams": []}),
        json!({"stream": ["show"]}),
        json!({"stream": null, "streams": "show"}),
        json!({"streams": vec!["a"; 65]}),
        json!({"max_bitrate": -1}),
        json!({"max_bitrate": "2000"}),
        json!({"max_sessions": 1.5}),
        json!({"max_sessions": 0}),
    ] {
        assert!(!allowed(nothing.clone(), "show", publish).await, "{nothing}");
    }
    let limited = key.token(None, &with(json!({"max_bitrate": 2_500_000, "max_sessions": 3, "sub": null})));
    let grant = judged(&jwt, "show", publish, &limited).await.unwrap().unwrap();
    assert_eq!((grant.limits.max_bitrate, grant.limits.max_sessions), (Some(2_500_000), NonZeroUsize::new(3)));
    assert!(grant.identity.name().unwrap().starts_with("jwt:~"), "without `sub` each token is a holder");
}

// AUTH-04
#[tokio::test]
async fn keys_are_chosen_by_kid_and_kinds_that_are_not_known_are_skipped() {
    let (one, two, unnamed) = (SigningKey::es256(), SigningKey::es256(), SigningKey::rs256());
    let mut plain = unnamed.jwk("x");
    plain.as_object_mut().unwrap().remove("kid");
    let mut encrypts = SigningKey::es256().jwk("enc");
    encrypts["use"] = "enc".into();
    let set = json!({"keys": [
        {"kty": "AKP", "alg": "unheard-of", "pub": "AAAA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"},
        {"kty": "oct", "k": base64url(SECRET), "kid": "secret"},
        "no key", encrypts, one.jwk("one"), two.jwk("two"), plain,
    ]});
    let file = judge_of(&config(set.to_string().as_bytes()));
    assert!(matches!(publish(&file, &one.token(Some("one"), &claims())).await, Some(Ok(_))));
    assert!(matches!(publish(&file, &two.token(None, &claims())).await, Some(Ok(_))), "all are tried");
    assert!(publish(&file, &one.token(Some("two"), &claims())).await.is_none(), "the key of another name");
    assert!(publish(&file, &one.token(Some("enc"), &claims())).await.is_none());
    assert!(matches!(publish(&file, &unnamed.token(Some("any"), &claims())).await, Some(Ok(_))));
    let secret = SigningKey::hs256(SECRET);
    assert!(matches!(publish(&file, &secret.token(Some("secret"), &claims())).await, Some(Ok(_))));
    // What a URL serves is no secret.
    let served = KeySet::from_url(set.to_string().as_bytes()).unwrap();
    let url = judge_of(&JwtConfig { keys: served, require_exp: true, ..JwtConfig::default() });
    assert!(matches!(publish(&url, &one.token(Some("one"), &claims())).await, Some(Ok(_))));
    assert!(publish(&url, &secret.token(Some("secret"), &claims())).await.is_none());
}

#[test]
fn files_without_usable_keys_say_why() {
    let small = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(1024).unwrap()).unwrap();
    let private = openssl::pkey::PKey::generate_ed25519().unwrap().private_key_to_pem_pkcs8().unwrap();
    let p384 = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).unwrap();
    let p384 = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&p384).unwrap()).unwrap();
    let many: Vec<Value> = (0..33).map(|n| json!({"kid": n.to_string()})).collect();
    for (file, why) in [
        (&b"short"[..], KeyError::ShortSecret),
        (b"", KeyError::ShortSecret),
        (&private, KeyError::NoPublicKey),
        (&small.public_key_to_pem().unwrap(), KeyError::Unsupported),
        (&p384.public_key_to_pem().unwrap(), KeyError::Unsupported),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", KeyError::NoPublicKey),
        (b"{", KeyError::NoKeySet),
        (b"{\"keys\": []}", KeyError::NoUsableKey),
        (json!({"keys": many}).to_string().as_bytes(), KeyError::TooMany),
    ] {
        assert_eq!(KeySet::from_file(file), Err(why));
    }
    let both = format!("{}{}", SigningKey::es256().pem(), SigningKey::rs256().pem());
    assert_eq!(format!("{:?}", KeySet::from_file(both.as_bytes()).unwrap()), "KeySet { count: 2 }");
}
