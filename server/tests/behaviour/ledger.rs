//! Each stage made to fail for real, and found under its own reason code (OPS-03, OPS-04).

use std::time::Duration;

use loadtest::client::{ClientOptions, Publisher, PublisherOptions, Viewer, bare_check};
use loadtest::sdp::{Answer, Imitation, Offer, OfferedSection, Setup, Ssrcs};
use media_core::media::Codec;
use serde_json::Value;

use crate::support::{LONG, Sluice, eventually};

const STAGES: [&str; 6] = ["signaling", "ice", "dtls", "fingerprint", "srtp", "media"];
const MODES: [&str; 2] = ["lite", "full"];

/// Whether a stage's failure is the session's.
#[derive(Clone, Copy, PartialEq)]
enum Then {
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

fn state<'a>(session: &'a Value, stage: &str) -> &'a Value {
    session["stages"].as_array().unwrap().iter().find(|entry| entry["stage"] == stage).unwrap()
}

/// Waits until the session of this stream and role has failed in this stage, and checks all places where it must show.
async fn assert_failed(server: &Sluice, stream: &str, role: &str, stage: &str, reason: &str, then: Then) {
    let what = format!("{role} fails in {stage} with {reason}");
    let session = eventually(&what, LONG, async || {
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
    assert_eq!(server.metric("sluice_session_stage_failures_total", &labels).await, 1.0, "{what}");
    if then == Then::Ends {
        assert_eq!(session["reason"], reason, "{session:#}");
        // The log line is written before the API says so, but read by another thread.
        let lines = eventually("the closing line", LONG, async || {
            Some(server.closing_lines(id)).filter(|lines| !lines.is_empty())
        })
        .await;
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0]["stage"].as_str(), lines[0]["reason"].as_str()), (Some(stage), Some(reason)));
        assert_eq!(lines[0]["detail"], failed["detail"]);
        assert_eq!(server.metric("sluice_sessions_ended_total", &[("role", role), ("reason", reason)]).await, 1.0);
    }
}

/// The states of all stages, in order.
async fn states(server: &Sluice, stream: &str, role: &str) -> Vec<String> {
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
    both_fail(&["--ice-timeout", "2s"], options, "ice", "no-valid-check", Then::Ends).await;
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
    both_fail(&[], options, "srtp", "srtp-authentication", Then::Ends).await;
}

#[tokio::test]
async fn a_publisher_without_keyframe_fails_in_media_and_a_late_keyframe_heals_it() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--keyframe-timeout", "1s"]).await;
        let media = PublisherOptions { keyframes: false, ..PublisherOptions::default() };
        let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
        let viewer = server.viewer("s").await;
        assert_failed(&server, "s", "publisher", "media", "no-keyframe", Then::Lives).await;
        assert_eq!(states(&server, "s", "publisher").await, ["done", "done", "done", "done", "done", "failed"]);
        assert_eq!(viewer.figures().video.delivered, 0, "no decoder could use it");

        publisher.allow_keyframes();
        eventually("the stage is healed", LONG, async || {
            (states(&server, "s", "publisher").await == ["done"; 6]).then_some(())
        })
        .await;
        let session = server.session("s", "publisher").await;
        assert_eq!((&session["state"], &state(&session, "media")["reason"]), (&"media".into(), &Value::Null));
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
        let server = Sluice::start(&["--ice", mode, "--liveness-timeout", "3s"]).await;
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

/// A publisher that the test plays itself: its offer is posted and its checks are answered, nothing more.
struct Played {
    answer: Answer,
    socket: std::net::UdpSocket,
}

async fn play(server: &Sluice, setup: Setup) -> Played {
    let ice = media_core::internals::ice::random_credentials();
    let certificate = media_core::internals::dtls::Certificate::generate().unwrap();
    let sections = [OfferedSection { codecs: vec![Codec::Opus], sends: Some(Ssrcs { media: 7, rtx: 8 }) }];
    let fingerprint = certificate.fingerprint();
    let imitates = Imitation::Browser;
    let offer = Offer { ice: &ice, fingerprint, setup, imitates, transport_cc: false, sections: &sections };
    let request = server.http.post(format!("{}/whip/played", server.base)).header("Content-Type", "application/sdp");
    let reply = request.body(offer.to_sdp()).send().await.unwrap();
    assert_eq!(reply.status(), 201);
    let answer = Answer::parse(&reply.text().await.unwrap()).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(answer.candidates[0].address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let check = bare_check(&ice, &answer.ice, *b"transactions").unwrap();
    let mut reply = [0; 1500];
    let answered = (0..100).any(|_| {
        socket.send(&check).unwrap();
        // In full mode the server's own checks come in between.
        (0..5).any(|_| socket.recv(&mut reply).is_ok_and(|_| reply.starts_with(&[1, 1])))
    });
    assert!(answered, "the check is answered");
    Played { answer, socket }
}

// OPS-01
#[tokio::test]
async fn a_handshake_that_never_begins_fails_in_dtls() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--dtls-timeout", "1s"]).await;
        let _played = play(&server, Setup::Active).await;
        assert_failed(&server, "played", "publisher", "dtls", "dtls-timeout", Then::Ends).await;
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

// DTLS-07
#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_certificate_fails_in_dtls() {
    use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode};

    let server = Sluice::start(&[]).await;
    let played = play(&server, Setup::Active).await;
    assert!(!played.answer.active);
    let mut context = SslContext::builder(SslMethod::dtls()).unwrap();
    context.set_verify(SslVerifyMode::NONE);
    context.set_tlsext_use_srtp("SRTP_AES128_CM_SHA1_80").unwrap();
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_mtu(1200).unwrap();
    played.socket.set_read_timeout(Some(LONG)).unwrap();
    let mut stream = SslStream::new(ssl, Datagrams(played.socket)).unwrap();
    let handshake = tokio::task::spawn_blocking(move || stream.connect().is_err());
    assert_failed(&server, "played", "publisher", "dtls", "no-client-certificate", Then::Ends).await;
    assert!(handshake.await.unwrap(), "the client is told by an alert");
}
