//! Rights from elsewhere: a webhook and a JWKS URL on loopback, and the real server between.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use loadtest::client::{
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, Viewer, ViewerOptions,
};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::{Value, json};

use self::issuer::{SigningKey, unix_now};
use crate::ledger::assert_ended;
use crate::support::{LONG, Sluice, eventually};

#[path = "../../../signaling/tests/support/jwt.rs"]
mod issuer;

/// A service of the operator, whose answer a test sets. It keeps what it was asked.
#[derive(Clone)]
struct Service {
    address: SocketAddr,
    answer: Arc<Mutex<(StatusCode, Value)>>,
    asked: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Service {
    async fn start() -> Service {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Service {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new((StatusCode::INTERNAL_SERVER_ERROR, Value::Null))),
            asked: Arc::default(),
        };
        let routes = Router::new().route("/", post(Service::serve)).route("/", get(Service::serve));
        let serving = axum::serve(listener, routes.with_state(service.clone()));
        tokio::spawn(async move { serving.await });
        service
    }

    async fn serve(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
        service.asked.lock().unwrap().push((headers, body));
        let (status, answer) = service.answer.lock().unwrap().clone();
        (status, axum::Json(answer)).into_response()
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn answers(&self, status: u16, answer: Value) {
        *self.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), answer);
    }

    fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// A file with this text in the temporary directory, gone at the end.
struct TextFile(std::path::PathBuf);

impl TextFile {
    fn new(name: &str, text: &str) -> TextFile {
        let path = std::env::temp_dir().join(format!("sluice-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        TextFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn endpoint(server: &Sluice, path: &str, token: &str) -> Endpoint {
    Endpoint { token: Some(token.to_owned()), ..server.endpoint(path) }
}

async fn publish(server: &Sluice, stream: &str, token: &str) -> Result<Publisher, ClientError> {
    let options = ClientOptions::default();
    let identity = Identity::new(&options)?;
    let endpoint = endpoint(server, &format!("whip/{stream}"), token);
    let publisher = Publisher::start(&endpoint, &identity, PublisherOptions::default(), options).await?;
    publisher.connected().await?;
    Ok(publisher)
}

async fn watch(server: &Sluice, stream: &str, token: &str) -> Result<Viewer, ClientError> {
    let options = ClientOptions::default();
    let identity = Identity::new(&options)?;
    let endpoint = endpoint(server, &format!("whep/{stream}"), token);
    let viewer = Viewer::start(&endpoint, &identity, ViewerOptions::default(), options).await?;
    viewer.connected().await?;
    Ok(viewer)
}

/// The status and code of a publisher's POST that is refused.
async fn refused(server: &Sluice, stream: &str, token: &str) -> (u16, String) {
    let request = server.http.post(format!("{}/whip/{stream}", server.base)).bearer_auth(token);
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    let problem: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    (status, problem["code"].as_str().unwrap().to_owned())
}

/// Nothing that the server writes or shows holds a token or a secret.
async fn assert_silent(server: &Sluice, secrets: &[&str]) {
    let shown = format!("{:?}{}", server.log(), server.get("/api/v1/sessions").await);
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

fn claims(stream: &str, action: &str, seconds: u64) -> Value {
    json!({"sub": "alice", "exp": unix_now() + seconds, "stream": stream, "action": action})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_asked_once_with_all_that_it_needs_and_its_answer_counts() {
    let service = Service::start().await;
    let secret = TextFile::new("webhook-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let server = Sluice::start(&[
        "--webhook-url",
        &service.url(),
        "--webhook-secret-file",
        secret.path(),
        "--protect-viewers",
        "--log",
        "debug",
    ])
    .await;
    service.answers(200, json!({"allow": true, "identity": "alice"}));
    let _publisher = publish(&server, "show", "tok-s3cret").await.unwrap();
    let session = server.session("show", "publisher").await;
    assert_eq!(session["identity"], "webhook:alice");

    let (headers, body) = service.asked.lock().unwrap()[0].clone();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!({
        "action": "publish", "stream": "show", "token": "tok-s3cret", "address": "127.0.0.1", "session": session["id"],
    });
    assert_eq!(asked, expected);
    // Standard Webhooks: the receiver's side of it.
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), String::from_utf8_lossy(&body));
    let key = openssl::base64::decode_block("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &PKey::hmac(&key).unwrap()).unwrap();
    let signature = signer.sign_oneshot_to_vec(signed.as_bytes()).unwrap();
    assert_eq!(header("webhook-signature"), format!("v1,{}", openssl::base64::encode_block(&signature)));
    assert!(header("webhook-timestamp").parse::<u64>().unwrap().abs_diff(unix_now()) < 60);

    // Watching is another question, and asked once for two viewers.
    let _one = watch(&server, "show", "tok-s3cret").await.unwrap();
    let _two = watch(&server, "show", "tok-s3cret").await.unwrap();
    assert_eq!(service.calls(), 2);
    for (status, answer, expected) in [
        (401, Value::Null, (401, "unauthorized")),
        (403, Value::Null, (403, "forbidden")),
        (200, json!({"allow": false}), (403, "forbidden")),
    ] {
        service.answers(status, answer);
        let (status, code) = refused(&server, "other", &format!("token-{}", service.calls())).await;
        assert_eq!((status, code.as_str()), expected);
    }
    assert_silent(&server, &["tok-s3cret", "MfKQ9r8GKYq", "token-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_webhook_is_away_nobody_new_gets_in_and_with_cached_those_who_were_known_do() {
    for away in ["deny", "cached"] {
        let service = Service::start().await;
        let url = service.url();
        let args = ["--webhook-url", &url, "--webhook-away", away, "--webhook-cache", "1ms"];
        let server = Sluice::start(&args).await;
        service.answers(200, json!({"allow": true}));
        let publisher = publish(&server, "show", "known").await.unwrap();
        publisher.stop().await.unwrap();
        for (status, answer) in [(500, json!({"allow": true})), (200, json!({"allowed": true})), (302, Value::Null)] {
            service.answers(status, answer);
            assert_eq!(refused(&server, "show", "new").await, (503, "access-unavailable".to_owned()), "{status}");
            let known = refused(&server, "show", "known").await;
            // With a right it is the empty body that is refused.
            let expected = if away == "deny" { (503, "access-unavailable") } else { (415, "unsupported-media-type") };
            assert_eq!((known.0, known.1.as_str()), expected, "{away} {status}");
        }
        // It has taken the right back, and that stands.
        service.answers(401, Value::Null);
        assert_eq!(refused(&server, "show", "known").await.0, 401);
        service.answers(500, Value::Null);
        // For the millisecond of the cache it is denied as before.
        eventually("the webhook is asked again", LONG, async || {
            let status = refused(&server, "show", "known").await.0;
            assert!(status == 401 || status == 503, "{status}");
            (status == 503).then_some(())
        })
        .await;
        assert!(server.metric("sluice_access_source_failures_total", &[("source", "webhook")]).await >= 6.0);
        let labels = [("action", "publish"), ("outcome", "unavailable")];
        assert!(server.metric("sluice_access_judged_total", &labels).await >= 3.0);
        // Once for each time that it went away.
        let warnings = || {
            let lines = server.log().into_iter().filter(|entry| entry["level"] == "WARN");
            lines.filter(|entry| entry["message"].as_str().unwrap().contains("webhook")).count()
        };
        eventually("both warnings", LONG, async || (warnings() >= 2).then_some(())).await;
        assert_eq!(warnings(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_jwks_url_are_fetched_rotate_and_stay_while_it_is_away() {
    let (service, first, second) = (Service::start().await, SigningKey::es256(), SigningKey::rs256());
    // A key is used as soon as it is published: attempts are ten seconds apart.
    let server = Sluice::start(&["--jwt-jwks-url", &service.url(), "--log", "debug"]).await;
    let old = first.token(Some("first"), &claims("show", "publish", 600));
    let new = second.token(Some("second"), &claims("show", "publish", 600));
    // Without any key nobody can say: the token may be good.
    assert_eq!(refused(&server, "show", &old).await, (503, "access-unavailable".to_owned()));
    service.answers(200, json!({"keys": [first.jwk("first")]}));
    let is_good = async |token: &str| refused(&server, "show", token).await.0 == 415;
    let until_good = async |token: &str| {
        eventually("the key is there", LONG, async || is_good(token).await.then_some(())).await;
    };
    until_good(&old).await;
    let publisher = publish(&server, "show", &old).await.unwrap();
    assert_eq!(server.session("show", "publisher").await["identity"], "jwt:alice");
    publisher.stop().await.unwrap();
    // Rotation: a token names a key that is not there.
    service.answers(200, json!({"keys": [first.jwk("first"), second.jwk("second")]}));
    until_good(&new).await;
    let calls = service.calls();
    for n in 0..20 {
        let unknown = first.token(Some(&format!("made-up-{n}")), &claims("show", "publish", 600));
        assert_ne!(refused(&server, "show", &unknown).await.0, 415);
    }
    assert!(service.calls() <= calls + 1, "made-up names of keys cause no fetches");
    // It is away: the keys stay.
    service.answers(500, Value::Null);
    assert!(is_good(&old).await && is_good(&new).await);
    assert_silent(&server, &[&old, &new]).await;
}

// AUTH-05
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_right_where_that_is_enforced() {
    let secret = "a secret of thirty-two bytes, at least";
    let (file, key) = (TextFile::new("jwt-secret", secret), SigningKey::hs256(secret.as_bytes()));
    let server = Sluice::start(&["--jwt-key-file", file.path(), "--enforce-expiry"]).await;
    let lasting = key.token(None, &claims("lasting", "publish", 3600));
    let _other = publish(&server, "lasting", &lasting).await.unwrap();
    // The leeway of 30 s belongs to the right.
    let mut short = claims("show", "publish", 0);
    short["exp"] = (unix_now() - 24).into();
    let _publisher = publish(&server, "show", &key.token(None, &short)).await.unwrap();
    let ended = eventually("the right has expired", LONG, async || {
        let session = server.session("show", "publisher").await;
        (session["state"] == "closed").then_some(session)
    })
    .await;
    assert_eq!(ended["reason"], "access-expired");
    assert_ended(&server, ended["id"].as_str().unwrap(), "publisher", "access-expired").await;
    assert_eq!(server.session("lasting", "publisher").await["state"], "media");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_the_sessions_of_a_holder() {
    let server = Sluice::start(&["--token", "studio@*=one,guest@*=two"]).await;
    let (_one, _two) = (publish(&server, "a", "one").await.unwrap(), publish(&server, "b", "one").await.unwrap());
    let _guest = publish(&server, "c", "two").await.unwrap();
    let reply = server.http.delete(format!("{}/api/v1/identities/token:studio", server.admin)).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), r#"{"ended":2}"#);
    for stream in ["a", "b"] {
        let ended = eventually("the session is over", LONG, async || {
            let session = server.session(stream, "publisher").await;
            (session["state"] == "closed").then_some(session)
        })
        .await;
        assert_eq!(ended["reason"], "access-revoked");
        let id = ended["id"].as_str().unwrap();
        let line = eventually("the closing line", LONG, async || server.closing_lines(id).into_iter().next()).await;
        assert_eq!(line["reason"], "access-revoked");
    }
    assert_eq!(server.get("/api/v1/sessions?identity=token:guest&state=live").await.as_array().unwrap().len(), 1);
    let labels = [("role", "publisher"), ("reason", "access-revoked")];
    server.counts("sluice_sessions_ended_total", &labels, 2.0).await;
}

// AUTH-01
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_the_sessions_of_a_token_that_left_the_file_where_asked() {
    let goes = "b=goes-and-is-long-enough";
    let digest = signaling::hashed_line("a", "stays-and-is-long-enough").unwrap();
    let file = TextFile::new("tokens-reload", &format!("{digest}\n{goes}\n"));
    let server = Sluice::start(&["--token-file", file.path(), "--end-revoked"]).await;
    let _stays = publish(&server, "a", "stays-and-is-long-enough").await.unwrap();
    let _goes = publish(&server, "b", "goes-and-is-long-enough").await.unwrap();
    std::fs::write(&file.0, &digest).unwrap();
    let pid = server.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let ended = eventually("the session is over", LONG, async || {
        let session = server.session("b", "publisher").await;
        (session["state"] == "closed").then_some(session)
    })
    .await;
    assert_eq!(ended["reason"], "access-revoked");
    assert_eq!(server.session("a", "publisher").await["state"], "media");
    assert_eq!(refused(&server, "b", "goes-and-is-long-enough").await, (401, "unauthorized".to_owned()));
}
