//! The clients against a small server of this file: it hands every packet of the publisher to all viewers.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used)]

mod scenarios;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use loadtest::client::{
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, Verify, Viewer, ViewerOptions,
};
use loadtest::sdp::Answer;
use media_core::demux::{PacketKind, classify};
use media_core::dtls::{Certificate, DtlsContext, DtlsEndpoint, DtlsEvent};
use media_core::ice::{IceLite, IceOutput, candidate_line, host_priority, peek_ufrag, random_credentials};
use media_core::ledger::{Reason, Stage};
use media_core::media::Codec;
use media_core::session::{DtlsParameters, DtlsRole, LocalCandidate};
use media_core::srtp::{MAX_TRAILER, SrtpProfile, SrtpReceiver, SrtpSender};
use tokio::net::UdpSocket;

struct Session {
    publishes: bool,
    ufrag: String,
    ice: IceLite,
    dtls: DtlsEndpoint,
    keys: Option<(SrtpReceiver, SrtpSender)>,
    peer: Option<SocketAddr>,
    failure: Option<Reason>,
    unauthentic: u64,
}

/// What the server does to packets on their way.
#[derive(Default)]
struct Faults {
    corrupt: AtomicBool,
    /// Answers DELETE, but keeps a session in its list.
    forgetful: AtomicBool,
    /// Gives a new viewer all RTP packets that came before.
    keeps: AtomicBool,
    kept: Mutex<Vec<Vec<u8>>>,
}

struct Reflector {
    sessions: Mutex<HashMap<usize, Session>>,
    next: AtomicUsize,
    context: DtlsContext,
    certificate: Certificate,
    candidate: SocketAddr,
    faults: Faults,
}

type Shared = Arc<Reflector>;

struct Server {
    base: String,
    reflector: Shared,
}

impl Server {
    async fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let certificate = Certificate::generate().unwrap();
        let reflector = Arc::new(Reflector {
            sessions: Mutex::default(),
            next: AtomicUsize::new(1),
            context: DtlsContext::new(&certificate).unwrap(),
            certificate,
            candidate: socket.local_addr().unwrap(),
            faults: Faults::default(),
        });
        let routes = axum::Router::new()
            .route("/whip/{stream}", post(publish))
            .route("/whep/{stream}", post(watch))
            .route("/session/{id}", delete(end))
            .route("/sessions", get(list))
            .with_state(reflector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        tokio::spawn(serve_media(reflector.clone(), socket));
        Server { base, reflector }
    }

    fn endpoint(&self, path: &str) -> Endpoint {
        let http = reqwest::Client::new();
        Endpoint { http, url: format!("{}/{path}", self.base), token: Some("secret".into()) }
    }

    async fn publisher(&self, media: PublisherOptions, options: ClientOptions) -> Result<Publisher, ClientError> {
        let identity = Identity::new(&options)?;
        let publisher = Publisher::start(&self.endpoint("whip/stream"), &identity, media, options).await?;
        publisher.connected().await.map(|_| publisher)
    }

    async fn viewer(&self, media: ViewerOptions, options: ClientOptions) -> Result<Viewer, ClientError> {
        let identity = Identity::new(&options)?;
        let viewer = Viewer::start(&self.endpoint("whep/stream"), &identity, media, options).await?;
        viewer.connected().await.map(|_| viewer)
    }

    fn failures(&self) -> Vec<Reason> {
        self.reflector.sessions.lock().unwrap().values().filter_map(|session| session.failure).collect()
    }
}

async fn publish(State(reflector): State<Shared>, offer: String) -> impl IntoResponse {
    answer(&reflector, &offer, true)
}

async fn watch(State(reflector): State<Shared>, offer: String) -> impl IntoResponse {
    answer(&reflector, &offer, false)
}

async fn list(State(reflector): State<Shared>) -> String {
    let mut ids: Vec<usize> = reflector.sessions.lock().unwrap().keys().copied().collect();
    if reflector.faults.forgetful.load(Ordering::Relaxed) {
        ids.extend(0..reflector.next.load(Ordering::Relaxed));
    }
    format!("{ids:?}")
}

async fn end(State(reflector): State<Shared>, Path(id): Path<usize>) -> StatusCode {
    match reflector.sessions.lock().unwrap().remove(&id) {
        Some(_) => StatusCode::OK,
        None => StatusCode::NOT_FOUND,
    }
}

/// The answer echoes the offer's sections with the transport lines replaced.
fn answer(reflector: &Reflector, offer: &str, publishes: bool) -> impl IntoResponse + use<> {
    let read = Answer::parse(&offer.replace("a=setup:actpass", "a=setup:active")).unwrap();
    let local = random_credentials();
    let candidate = LocalCandidate { address: reflector.candidate, priority: host_priority(0, false), foundation: 1 };
    let mut text = String::new();
    for line in offer.lines() {
        let line = match line {
            _ if line.starts_with("a=ice-ufrag:") => format!("a=ice-ufrag:{}", local.ufrag),
            _ if line.starts_with("a=ice-pwd:") => format!("a=ice-pwd:{}", local.pwd),
            _ if line.starts_with("a=fingerprint:") => {
                format!("a=fingerprint:{}", reflector.certificate.fingerprint().to_sdp())
            }
            _ if line.starts_with("a=setup:") => format!("a=setup:passive\r\na={}", candidate_line(&candidate)),
            _ if line.starts_with("a=ssrc") => continue,
            "a=sendonly" => "a=recvonly".into(),
            "a=recvonly" => "a=sendonly".into(),
            line => line.into(),
        };
        text += &line;
        text += "\r\n";
    }
    let parameters = DtlsParameters { role: DtlsRole::Server, fingerprints: read.fingerprints };
    let session = Session {
        publishes,
        ufrag: local.ufrag.clone(),
        ice: IceLite::new(local, read.ice),
        dtls: DtlsEndpoint::new(&reflector.context, parameters).unwrap(),
        keys: None,
        peer: None,
        failure: None,
        unauthentic: 0,
    };
    let id = reflector.next.fetch_add(1, Ordering::Relaxed);
    reflector.sessions.lock().unwrap().insert(id, session);
    let headers = [(header::CONTENT_TYPE, "application/sdp".to_owned()), (header::LOCATION, format!("/session/{id}"))];
    (StatusCode::CREATED, headers, text)
}

async fn serve_media(reflector: Shared, socket: UdpSocket) {
    let mut buffer = vec![0; 2048];
    loop {
        let received = tokio::time::timeout(Duration::from_millis(20), socket.recv_from(&mut buffer)).await;
        let mut out = Vec::new();
        {
            let mut sessions = reflector.sessions.lock().unwrap();
            if let Ok(Ok((len, source))) = received {
                take(&mut sessions, &reflector.faults, source, &mut buffer, len, &mut out);
            }
            for session in sessions.values_mut() {
                drive(session, &reflector.faults, &mut out);
            }
        }
        for (to, datagram) in out {
            let _ = socket.send_to(&datagram, to).await;
        }
    }
}

type Datagrams = Vec<(SocketAddr, Vec<u8>)>;

fn take(
    sessions: &mut HashMap<usize, Session>,
    faults: &Faults,
    source: SocketAddr,
    buffer: &mut [u8],
    len: usize,
    out: &mut Datagrams,
) {
    let now = Instant::now();
    let Ok(kind) = classify(&buffer[..len]) else { return };
    if kind == PacketKind::Stun {
        let Some(ufrag) = peek_ufrag(&buffer[..len]) else { return };
        let Some(session) = sessions.values_mut().find(|session| session.ufrag == ufrag) else { return };
        let mut outputs = Vec::new();
        session.ice.handle(now, source, &buffer[..len], &mut outputs);
        for output in outputs {
            match output {
                IceOutput::Transmit { to, datagram } => out.push((to, datagram)),
                IceOutput::Selected(address) => session.peer = Some(address),
                _ => {}
            }
        }
        return;
    }
    let Some(session) = sessions.values_mut().find(|session| session.peer == Some(source)) else { return };
    let publishes = session.publishes;
    let rtcp = kind == PacketKind::Rtcp;
    let plain = match (kind, &mut session.keys) {
        (PacketKind::Dtls, _) => return session.dtls.handle_datagram(now, &buffer[..len]),
        (PacketKind::Rtp, Some((srtp, _))) => srtp.unprotect_rtp(buffer, len),
        (_, Some((srtp, _))) => srtp.unprotect_rtcp(buffer, len),
        (_, None) => return,
    };
    let Ok(len) = plain else {
        session.unauthentic += 1;
        return;
    };
    if publishes && !rtcp && faults.keeps.load(Ordering::Relaxed) {
        faults.kept.lock().unwrap().push(buffer[..len].to_vec());
    }
    // Media goes from the publisher to the viewers, feedback the other way; numbers and SSRCs stay as they are.
    for other in sessions.values_mut().filter(|other| other.publishes != publishes) {
        let (Some((_, srtp)), Some(peer)) = (&mut other.keys, other.peer) else { continue };
        let mut packet = buffer[..len].to_vec();
        if !rtcp && faults.corrupt.load(Ordering::Relaxed) {
            packet[len / 2] ^= 1;
        }
        out.extend(protect(srtp, packet, rtcp).map(|packet| (peer, packet)));
    }
}

fn protect(srtp: &mut SrtpSender, mut packet: Vec<u8>, rtcp: bool) -> Option<Vec<u8>> {
    let len = packet.len();
    packet.resize(len + MAX_TRAILER, 0);
    let protected = if rtcp { srtp.protect_rtcp(&mut packet, len) } else { srtp.protect_rtp(&mut packet, len) };
    packet.truncate(protected.ok()?);
    Some(packet)
}

fn drive(session: &mut Session, faults: &Faults, out: &mut Datagrams) {
    session.dtls.handle_timeout(Instant::now());
    while let Some(event) = session.dtls.poll_event() {
        match event {
            DtlsEvent::Connected(connection) => {
                let (receiver, mut sender) = connection.keying.contexts(DtlsRole::Server).unwrap();
                if let Some(peer) = session.peer.filter(|_| !session.publishes) {
                    let kept = faults.kept.lock().unwrap();
                    let packets = kept.iter().filter_map(|packet| protect(&mut sender, packet.clone(), false));
                    out.extend(packets.map(|packet| (peer, packet)));
                }
                session.keys = Some((receiver, sender));
            }
            DtlsEvent::Failed(failure) => session.failure = Some(failure.reason),
            DtlsEvent::PeerClosed => session.failure = Some(Reason::PeerClosed),
            DtlsEvent::HandshakeStarted | DtlsEvent::ApplicationData(_) => {}
        }
    }
    while let Some(datagram) = session.dtls.poll_transmit() {
        out.extend(session.peer.map(|peer| (peer, datagram)));
    }
}

fn short() -> ClientOptions {
    ClientOptions { connect_timeout: Duration::from_secs(2), ..ClientOptions::default() }
}

#[tokio::test]
async fn viewers_get_everything_once_and_whole() {
    for video in [Codec::Vp8, Codec::H264] {
        let server = Server::start().await;
        let media = PublisherOptions { video: Some(video), bitrate: 2000, ..PublisherOptions::default() };
        let publisher = server.publisher(media, short()).await.unwrap();
        let mut viewers = Vec::new();
        for _ in 0..3 {
            viewers.push(server.viewer(ViewerOptions::default(), short()).await.unwrap());
        }
        assert_eq!(viewers[0].connected().await.unwrap(), SrtpProfile::AeadAes128Gcm);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for viewer in viewers {
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{figures:?}");
            assert!(figures.audio.delivered > 50 && figures.video.delivered > 200, "{figures:?}");
            assert!(figures.first_keyframe.is_some_and(|time| time < 1.9), "{figures:?}");
            assert!(figures.sender_reports > 0);
        }
        let figures = publisher.stop().await.unwrap();
        assert!(figures.keyframes >= 1 && figures.refused == 0, "{figures:?}");
        assert!(server.reflector.sessions.lock().unwrap().is_empty(), "DELETE ends sessions");
    }
}

#[tokio::test]
async fn what_a_server_kept_for_a_viewers_start_counts_as_received_and_not_as_late() {
    let server = Server::start().await;
    server.reflector.faults.keeps.store(true, Ordering::Relaxed);
    let publisher = server.publisher(PublisherOptions { bitrate: 300, ..PublisherOptions::default() }, short()).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    for verify in [Verify::All, Verify::Sample(16)] {
        let media = ViewerOptions::default();
        let (latency, joined) = (media.latency.clone(), Instant::now());
        let viewer = server.viewer(media, ClientOptions { verify, ..short() }).await.unwrap();
        let counted = || latency.lock().unwrap().len();
        while counted() < 20 {
            assert!(joined.elapsed() < Duration::from_secs(20), "{:?}", viewer.figures());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let figures = viewer.figures();
        assert!(figures.first_rtp.is_some() && figures.first_keyframe.is_some(), "{figures:?}");
        assert!(figures.is_intact() && figures.total().delivered > 80, "its start included: {figures:?}");
        let latest = latency.lock().unwrap().max();
        assert!(latest < 800_000, "the oldest packet is older than a second; the latest that counts {latest} us");
        viewer.stop().await.unwrap();
    }
    publisher.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_blind_viewer_asks_for_a_keyframe_and_gets_it() {
    let server = Server::start().await;
    let media = PublisherOptions { gop: Duration::from_secs(600), ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(viewer.stop().await.unwrap().first_keyframe.is_some());
    assert!(publisher.stop().await.unwrap().keyframe_requests > 0);
}

#[tokio::test]
async fn lost_packets_are_recovered_by_retransmission() {
    let server = Server::start().await;
    let media = PublisherOptions { audio: false, bitrate: 4000, ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    let options = ClientOptions { drop_incoming: 0.05, connect_timeout: Duration::from_secs(5), ..short() };
    let viewer = server.viewer(ViewerOptions::default(), options).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2000)).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.video.recovered > 10, "{figures:?}");
    // What was lost in the last moments could not be asked for any more.
    assert!(figures.video.lost < 15, "{figures:?}");
    assert_eq!((figures.video.corrupt, figures.video.duplicated), (0, 0), "{figures:?}");
    assert!(publisher.stop().await.unwrap().resent > 10);
}

#[tokio::test]
async fn altered_payloads_are_found() {
    let server = Server::start().await;
    server.reflector.faults.corrupt.store(true, Ordering::Relaxed);
    let _publisher = server.publisher(PublisherOptions::default(), short()).await.unwrap();
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let figures = viewer.stop().await.unwrap();
    assert!(!figures.is_intact());
    assert_eq!(figures.total().corrupt, figures.total().delivered, "{figures:?}");
}

#[tokio::test]
async fn without_checks_no_stage_after_ice_begins() {
    let server = Server::start().await;
    let options =
        ClientOptions { send_checks: false, connect_timeout: Duration::from_millis(300), ..ClientOptions::default() };
    let error = server.publisher(PublisherOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Timeout(_, Stage::Ice)), "{error}");
    assert_eq!(server.reflector.sessions.lock().unwrap()[&1].ice.last_valid_check(), None);
}

#[tokio::test]
async fn a_wrong_fingerprint_ends_the_handshake() {
    let server = Server::start().await;
    let options = ClientOptions { corrupt_fingerprint: true, ..short() };
    let error = server.publisher(PublisherOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Dtls(_)), "{error}");
    assert_eq!(server.failures(), [Reason::FingerprintMismatch]);
}

#[tokio::test]
async fn without_a_common_srtp_profile_there_are_no_keys() {
    let server = Server::start().await;
    let options = ClientOptions { srtp_profiles: Vec::new(), ..short() };
    let error = server.publisher(PublisherOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Dtls(_)), "{error}");
    assert_eq!(server.failures(), [Reason::NoSrtpProfile]);
}

#[tokio::test]
async fn every_srtp_profile_carries_media() {
    for profile in SrtpProfile::ALL {
        let server = Server::start().await;
        let options = ClientOptions { srtp_profiles: vec![profile], ..short() };
        let publisher = server.publisher(PublisherOptions::default(), options.clone()).await.unwrap();
        assert_eq!(publisher.connected().await.unwrap(), profile);
        let viewer = server.viewer(ViewerOptions::default(), options).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{profile} {figures:?}");
    }
}

#[tokio::test]
async fn corrupted_srtp_reaches_the_server_and_authenticates_never() {
    let server = Server::start().await;
    let options = ClientOptions { corrupt_srtp: true, ..short() };
    let _publisher = server.publisher(PublisherOptions::default(), options).await.unwrap();
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(viewer.stop().await.unwrap().total().delivered, 0);
    assert!(server.reflector.sessions.lock().unwrap()[&1].unauthentic > 20);
}

#[tokio::test]
async fn a_publisher_without_keyframes_sends_none() {
    let server = Server::start().await;
    let media = PublisherOptions { keyframes: false, ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    let viewer = server.viewer(ViewerOptions::default(), short()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.video.delivered > 0 && figures.video.keyframes == 0, "{figures:?}");
    assert_eq!(publisher.stop().await.unwrap().keyframes, 0);
}

#[tokio::test]
async fn a_sampling_viewer_counts_every_packet_and_verifies_some() {
    let server = Server::start().await;
    let media = PublisherOptions { bitrate: 4000, gop: Duration::from_millis(500), ..PublisherOptions::default() };
    let publisher = server.publisher(media, short()).await.unwrap();
    let viewer = async |verify, drop_incoming| {
        let options = ClientOptions { verify, drop_incoming, ..short() };
        server.viewer(ViewerOptions { nack: drop_incoming == 0.0, ..ViewerOptions::default() }, options).await.unwrap()
    };
    let (all, some) = (viewer(Verify::All, 0.0).await, viewer(Verify::Sample(16), 0.0).await);
    let lossy = viewer(Verify::Sample(16), 0.1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let [all, some, lossy] = [all, some, lossy].map(|viewer| async { viewer.stop().await.unwrap().total() });
    let (all, some, lossy) = (all.await, some.await, lossy.await);
    assert_eq!(all.verified, all.delivered, "{all:?}");
    assert!(some.is_intact() && some.delivered > 400, "{some:?}");
    // What comes before the first keyframe is verified as well.
    assert!(some.verified > some.delivered / 20 && some.verified < some.delivered / 2, "{some:?}");
    // What this viewer threw away is lost, and the publisher's counters say the same.
    let share = lossy.lost as f64 / (lossy.lost + lossy.delivered) as f64;
    assert!((0.05..0.16).contains(&share) && lossy.missing == lossy.lost, "{lossy:?}");
    publisher.stop().await.unwrap();

    server.reflector.faults.corrupt.store(true, Ordering::Relaxed);
    let _publisher = server.publisher(PublisherOptions::default(), short()).await.unwrap();
    let viewer = viewer(Verify::Sample(4), 0.0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let total = viewer.stop().await.unwrap().total();
    assert!(total.corrupt > 0 && !total.is_intact(), "{total:?}");
}

#[tokio::test]
async fn a_refusal_is_told_as_it_was() {
    let server = Server::start().await;
    let options = short();
    let identity = Identity::new(&options).unwrap();
    let endpoint = server.endpoint("nothing/here");
    let error = Viewer::start(&endpoint, &identity, ViewerOptions::default(), options).await.err().unwrap();
    assert!(matches!(error, ClientError::Refused { status: 404, .. }), "{error}");
}
