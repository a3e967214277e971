//! Each stage made to fail for real, and found under its own reason code (OPS-03, OPS-04).

use loadtest::client::{ClientOptions, Publisher, PublisherOptions, Viewer, bare_check, binding_request};
use loadtest::sdp::{Imitation, Setup};
use media_core::media::Codec;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode};
use serde_json::Value;

use crate::raw::RawClient;
use crate::support::{LONG, Sluice, eventually};

const STAGES: [&str; 6] = ["signaling", "ice", "dtls", "fingerprint", "srtp", "media"];
pub(crate) const MODES: [&str; 2] = ["lite", "full"];

/// Whether a stage's failure is the session's.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Ends,
    Lives,
}

/// Clients of both roles with one fault.
struct Broken {
    _good: Publisher,
    // They stay until the failure is found: their going would be another one.
    _publisher: Option<Publisher>,
    _viewer: Option<Viewer>,
}

pub(crate) fn state<'a>(session: &'a Value, stage: &str) -> &'a Value {
    session["stages"].as_array().unwrap().iter().find(|entry| entry["stage"] == stage).unwrap()
}

/// Waits until the session of this stream and role has failed in this stage, and checks all places where it must show, and
/// that nothing else shows there.
pub(crate) async fn assert_failed(
    server: &Sluice,
    stream: &str,
    role: &str,
    stage: &str,
    reason: &str,
    then: Then,
) -> String {
    assert_failed_meanwhile(server, (stream, role), stage, reason, then, || {}).await
}

/// The same, while something is to be done again and again.
pub(crate) async fn assert_failed_meanwhile(
    server: &Sluice,
    (stream, role): (&str, &str),
    stage: &str,
    reason: &str,
    then: Then,
    mut meanwhile: impl FnMut(),
) -> String {
    let what = format!("{role} fails in {stage} with {reason}");
    let session = eventually(&what, LONG, async || {
        meanwhile();
        let session = server.sessions(stream, role).await.into_iter().last()?;
        let failed = state(&session, stage)["state"] == "failed";
        (failed && (then == Then::Lives || session["state"] == "closed")).then_some(session)
    })
    .await;
    let id = session["id"].as_str().unwrap();
    let session = server.get(&format!("/api/v1/sessions/{id}")).await;
    let failed = state(&session, stage);
    assert_eq!(failed["reason"], reason, "{session:#}");
    for text in ["detail", "advice"] {
        assert!(failed[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {session:#}");
    }
    let only_one = session["stages"].as_array().unwrap().iter().filter(|entry| entry["state"] == "failed").count() == 1;
    assert!(only_one, "{session:#}");
    assert_eq!(state(&session, "signaling")["state"], "done");
    let labels = [("role", role), ("stage", stage), ("reason", reason)];
    server.counts("sluice_session_stage_failures_total", &labels, 1.0).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("sluice_session_stage_failures_total", &labels[..1]), 1.0, "{what}, and in nothing else");
    let detail = failed["detail"].as_str().unwrap().to_owned();
    match then {
        Then::Ends => {
            assert_eq!(session["reason"], reason, "{session:#}");
            assert_ended(server, id, role, reason).await;
            let line = &server.closing_lines(id)[0];
            assert_eq!((line["stage"].as_str(), &line["detail"]), (Some(stage), &failed["detail"]));
        }
        Then::Lives => {
            assert_eq!(metrics.sum("sluice_sessions_failing", &labels), 1.0, "{what}");
            assert_eq!(session["reason"], Value::Null);
            // What is the publisher's fault has a line at level debug alone.
            if !(role == "viewer" && ["media-stopped", "no-keyframe"].contains(&reason)) {
                let lines = stage_lines(server, "session stage failed", id).await;
                assert_eq!(lines.len(), 1, "{lines:?}");
                assert_eq!((&lines[0]["stage"], &lines[0]["reason"]), (&stage.into(), &reason.into()));
                assert_eq!((&lines[0]["stream"], &lines[0]["role"]), (&stream.into(), &role.into()));
            }
        }
    }
    detail
}

/// Checks the closing line and the counter of a session that ended for this reason.
pub(crate) async fn assert_ended(server: &Sluice, id: &str, role: &str, reason: &str) {
    // The log line is written before the API says so, but read by another thread.
    let lines =
        eventually("the closing line", LONG, async || Some(server.closing_lines(id)).filter(|lines| !lines.is_empty()))
            .await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["reason"], reason);
    server.counts("sluice_sessions_ended_total", &[("role", role), ("reason", reason)], 1.0).await;
}

/// Lines of a session with this message, of which there has to be one.
pub(crate) async fn stage_lines(server: &Sluice, message: &str, id: &str) -> Vec<Value> {
    eventually(message, LONG, async || {
        let of_session = |entry: &Value| entry["message"] == message && entry["session"] == id;
        let lines: Vec<Value> = server.log().into_iter().filter(of_session).collect();
        (!lines.is_empty()).then_some(lines)
    })
    .await
}

/// Waits until all stages of the session are done again after this one had failed, and checks the places where that must show.
pub(crate) async fn assert_healed(
    server: &Sluice,
    (stream, role): (&str, &str),
    stage: &str,
    mut meanwhile: impl FnMut(),
) {
    eventually("the stage is healed", LONG, async || {
        meanwhile();
        (states(server, stream, role).await == ["done"; 6]).then_some(())
    })
    .await;
    let session = server.session(stream, role).await;
    let healed = state(&session, stage);
    assert_eq!((&session["state"], &healed["reason"]), (&"media".into(), &Value::Null), "{session:#}");
    server.counts("sluice_session_stage_healed_total", &[("role", role), ("stage", stage)], 1.0).await;
    assert_eq!(server.metric("sluice_sessions_failing", &[("role", role)]).await, 0.0, "{stream} {role} {stage}");
    if role == "publisher" {
        let lines = stage_lines(server, "session stage healed", session["id"].as_str().unwrap()).await;
        assert_eq!((lines.len(), &lines[0]["stage"]), (1, &stage.into()));
        assert_eq!(lines[0]["detail"], healed["detail"]);
    }
}

/// The states of all stages, in order.
pub(crate) async fn states(server: &Sluice, stream: &str, role: &str) -> Vec<String> {
    let session = server.session(stream, role).await;
    STAGES.iter().map(|stage| state(&session, stage)["state"].as_str().unwrap().to_owned()).collect()
}

/// A good publisher of `good`, one with a fault of `broken`, and a viewer of `good` with that fault.
async fn broken(server: &Sluice, options: &ClientOptions) -> Broken {
    let good = server.publisher("good").await;
    let media = PublisherOptions::default();
    let publisher = server.post_publisher("broken", media, options.clone()).await.unwrap();
    let viewer = server.post_viewer("good", options.clone()).await.unwrap();
    Broken { _good: good, _publisher: Some(publisher), _viewer: Some(viewer) }
}

/// Lets both roles fail by one fault, in both ICE modes.
async fn both_fail(args: &[&str], options: ClientOptions, stage: &str, reason: &str, then: Then) {
    let options = ClientOptions { connect_timeout: LONG, ..options };
    for mode in MODES {
        let server = Sluice::start(&[args, &["--ice", mode]].concat()).await;
        let _clients = broken(&server, &options).await;
        assert_failed(&server, "broken", "publisher", stage, reason, then).await;
        assert_failed(&server, "good", "viewer", stage, reason, then).await;
        eventually("media of the good one, which is not concerned", LONG, async || {
            (server.session("good", "publisher").await["state"] == "media").then_some(())
        })
        .await;
    }
}

// OPS-01
#[tokio::test]
async fn a_client_that_never_checks_fails_in_ice() {
    let options = ClientOptions { send_checks: false, ..ClientOptions::default() };
    both_fail(&["--ice-timeout", "4s"], options, "ice", "no-valid-check", Then::Ends).await;
}

// DTLS-08
#[tokio::test]
async fn a_certificate_other_than_announced_fails_in_fingerprint() {
    let options = ClientOptions { corrupt_fingerprint: true, ..ClientOptions::default() };
    both_fail(&[], options, "fingerprint", "fingerprint-mismatch", Then::Ends).await;
}

// DTLS-16
#[tokio::test]
async fn a_client_without_srtp_profile_fails_in_dtls() {
    let options = ClientOptions { srtp_profiles: Vec::new(), ..ClientOptions::default() };
    both_fail(&[], options, "dtls", "no-srtp-profile", Then::Ends).await;
}

// SRTP-04
#[tokio::test]
async fn packets_that_never_authenticate_fail_in_srtp() {
    let options = ClientOptions { corrupt_srtp: true, ..ClientOptions::default() };
    // M6: anybody can forge packets, so that they end nothing.
    both_fail(&[], options, "srtp", "srtp-authentication", Then::Lives).await;
}

#[tokio::test]
async fn a_publisher_without_keyframe_fails_in_media_and_a_late_keyframe_heals_it() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--keyframe-timeout", "1s"]).await;
        let media = PublisherOptions { keyframes: false, ..PublisherOptions::default() };
        let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
        let viewer = server.viewer("s").await;
        let detail = assert_failed(&server, "s", "publisher", "media", "no-keyframe", Then::Lives).await;
        let (text, requests) = detail.rsplit_once("; video is received, for 1 s without a keyframe; ").unwrap();
        assert_eq!(text, "audio is received");
        let sent = server.metric("sluice_shard_keyframe_requests_sent_total", &[]).await;
        let counted: f64 = requests.split(' ').next().unwrap().parse().unwrap();
        assert!(counted > 0.0 && counted <= sent, "{requests}, {sent}");
        assert_eq!(states(&server, "s", "publisher").await, ["done", "done", "done", "done", "done", "failed"]);
        assert_eq!(viewer.figures().video.delivered, 0, "no decoder could use it");

        publisher.allow_keyframes();
        assert_healed(&server, ("s", "publisher"), "media", || {}).await;
        let session = server.session("s", "publisher").await;
        crate::support::viewer_sees("the late keyframe", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        publisher.stop().await.unwrap();
        let id = session["id"].as_str().unwrap();
        let lines = eventually("the closing line", LONG, async || {
            Some(server.closing_lines(id)).filter(|lines| !lines.is_empty())
        })
        .await;
        assert_eq!((lines[0]["reason"].as_str(), lines[0]["stage"].as_str()), (Some("deleted"), Some("media")));
    }
}

#[tokio::test]
async fn a_publisher_that_sends_nothing_fails_in_media() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-timeout", "1s"]).await;
        let options = ClientOptions { send_media: false, ..ClientOptions::default() };
        let publisher = server.publisher_with("s", PublisherOptions::default(), options).await;
        assert_failed(&server, "s", "publisher", "media", "no-media", Then::Lives).await;
        publisher.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_viewer_that_never_reports_fails_in_media() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-timeout", "1s"]).await;
        let publisher = server.publisher("s").await;
        let options = ClientOptions { send_media: false, ..ClientOptions::default() };
        let viewer = server.post_viewer("s", options).await.unwrap();
        assert_failed(&server, "s", "viewer", "media", "no-receipt", Then::Lives).await;
        assert_eq!(states(&server, "s", "viewer").await, ["done", "done", "done", "done", "done", "failed"]);
        assert!(viewer.stop().await.unwrap().is_intact(), "it is served all the same");
        publisher.stop().await.unwrap();
    }
}

// WHIP-33, WHEP-13
#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--liveness-timeout", "6s"]).await;
        let good = server.publisher("good").await;
        let publisher = server.publisher("broken").await;
        let viewer = server.viewer("good").await;
        drop((publisher, viewer));
        assert_failed(&server, "broken", "publisher", "ice", "consent-lost", Then::Ends).await;
        assert_failed(&server, "good", "viewer", "ice", "consent-lost", Then::Ends).await;
        assert_eq!(server.session("good", "publisher").await["state"], "media");
        good.stop().await.unwrap();
    }
}

/// A publisher whose offer is posted and whose checks are answered, and nothing more.
async fn play(server: &Sluice, setup: Setup) -> RawClient {
    let mut client = RawClient::post(server, "whip/played", setup, Imitation::Browser, &[Codec::Opus]).await;
    client.validate();
    client
}

// OPS-01
#[tokio::test]
async fn a_handshake_that_never_begins_fails_in_dtls() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--dtls-timeout", "1s"]).await;
        let _played = play(&server, Setup::Active).await;
        let detail = assert_failed(&server, "played", "publisher", "dtls", "dtls-timeout", Then::Ends).await;
        assert!(detail.contains("no DTLS was received"), "{detail}");
        assert_eq!(
            states(&server, "played", "publisher").await,
            ["done", "done", "failed", "waiting", "waiting", "waiting"]
        );
    }
}

/// Datagrams as a stream, for OpenSSL's blocking handshake.
#[derive(Debug)]
struct Datagrams(std::net::UdpSocket);

impl std::io::Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let length = self.0.recv(buffer)?;
            // Checks of a full agent go elsewhere.
            if buffer.first().is_some_and(|first| (20..64).contains(first)) {
                return Ok(length);
            }
        }
    }
}

impl std::io::Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> std::io::Result<usize> {
        self.0.send(datagram)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client's handshake by OpenSSL alone, with these settings, after which nothing goes on.
async fn handshake(server: &Sluice, settings: impl FnOnce(&mut SslContextBuilder)) -> tokio::task::JoinHandle<bool> {
    let played = play(server, Setup::Active).await;
    assert!(!played.answer.active);
    let mut context = SslContext::builder(SslMethod::dtls()).unwrap();
    context.set_verify(SslVerifyMode::NONE);
    context.set_tlsext_use_srtp("SRTP_AES128_CM_SHA1_80").unwrap();
    settings(&mut context);
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_mtu(1200).unwrap();
    played.socket.set_read_timeout(Some(LONG)).unwrap();
    let mut stream = SslStream::new(ssl, Datagrams(played.socket)).unwrap();
    tokio::task::spawn_blocking(move || stream.connect().is_err())
}

// DTLS-07
#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_certificate_fails_in_dtls() {
    let server = Sluice::start(&[]).await;
    let handshake = handshake(&server, |_| {}).await;
    assert_failed(&server, "played", "publisher", "dtls", "no-client-certificate", Then::Ends).await;
    assert!(handshake.await.unwrap(), "the client is told by an alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_refuses_the_servers_certificate_fails_in_dtls() {
    let server = Sluice::start(&[]).await;
    // No authority vouches for a certificate of WebRTC.
    let handshake = handshake(&server, |context| context.set_verify(SslVerifyMode::PEER)).await;
    let detail = assert_failed(&server, "played", "publisher", "dtls", "dtls-alert-received", Then::Ends).await;
    assert!(detail.contains("ca") || detail.contains("certificate"), "{detail}");
    assert!(handshake.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_cipher_in_common_fails_in_dtls() {
    let server = Sluice::start(&[]).await;
    let handshake = handshake(&server, |context| context.set_cipher_list("AES128-SHA256").unwrap()).await;
    assert_failed(&server, "played", "publisher", "dtls", "dtls-protocol-error", Then::Ends).await;
    assert!(handshake.await.unwrap());
}

/// Attribute types of checks (RFC 8445 §16.1).
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLED: u16 = 0x8029;
/// A mandatory attribute that nobody knows.
const UNKNOWN: u16 = 0x0032;

// F-15
#[tokio::test]
async fn checks_that_are_refused_fail_in_ice_with_what_the_server_answered() {
    type Check = fn(&RawClient, [u8; 12]) -> Vec<u8>;
    let conflict: Check = |client, transaction| {
        let username = format!("{}:{}", client.answer.ice.ufrag, client.ice.ufrag);
        let further: [(u16, &[u8]); 2] = [(USE_CANDIDATE, &[]), (ICE_CONTROLLED, &[7; 8])];
        binding_request(&username, &client.answer.ice.pwd, &further, transaction).unwrap()
    };
    let password: Check = |client, transaction| {
        let username = format!("{}:{}", client.answer.ice.ufrag, client.ice.ufrag);
        binding_request(&username, &client.ice.pwd, &[(USE_CANDIDATE, &[])], transaction).unwrap()
    };
    let swapped: Check = |client, transaction| bare_check(&client.answer.ice, &client.ice, transaction).unwrap();
    let other_peer: Check = |client, transaction| {
        let username = format!("{}:somebodyElse", client.answer.ice.ufrag);
        binding_request(&username, &client.answer.ice.pwd, &[(USE_CANDIDATE, &[])], transaction).unwrap()
    };
    let lone: Check = |client, transaction| {
        binding_request(&client.answer.ice.ufrag, &client.answer.ice.pwd, &[(USE_CANDIDATE, &[])], transaction).unwrap()
    };
    let unknown: Check = |client, transaction| {
        let username = format!("{}:{}", client.answer.ice.ufrag, client.ice.ufrag);
        binding_request(&username, &client.answer.ice.pwd, &[(UNKNOWN, &[1; 4])], transaction).unwrap()
    };
    let malformed: Check = |client, transaction| {
        let mut check = bare_check(&client.ice, &client.answer.ice, transaction).unwrap();
        *check.last_mut().unwrap() ^= 1;
        check
    };
    let cases = [
        (conflict, "ice-role-conflict", "claimed the server's role (answered 487)"),
        (password, "ice-credentials", "had no or a wrong MESSAGE-INTEGRITY"),
        (swapped, "ice-credentials", "had a wrong USERNAME"),
        (other_peer, "ice-credentials", "had a wrong USERNAME"),
        (lone, "ice-credentials", "had a wrong USERNAME"),
        (unknown, "checks-refused", "had unknown mandatory attributes (answered 420)"),
        (malformed, "checks-refused", "were malformed"),
    ];
    for mode in MODES {
        // All at once: each of them takes the whole timeout.
        let mut clients = Vec::new();
        for (check, reason, cause) in cases {
            let server = Sluice::start(&["--ice", mode, "--ice-timeout", "4s"]).await;
            let client = RawClient::post(&server, "whip/s", Setup::ActPass, Imitation::Browser, &[Codec::Opus]).await;
            for number in 0..20_u8 {
                client.send(&check(&client, [number; 12]));
            }
            clients.push((server, client, reason, cause));
        }
        for (server, client, reason, cause) in clients {
            let detail = assert_failed(&server, "s", "publisher", "ice", reason, Then::Ends).await;
            assert!(detail.contains(&format!("20 checks were refused: 20 {cause}")), "{mode}: {detail}");
            let source = client.socket.local_addr().unwrap();
            assert!(detail.contains(&format!("the last came from {source}")), "{mode}: {detail}");
        }
    }
}
