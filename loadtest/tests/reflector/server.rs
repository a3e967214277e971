//! A small server that hands every packet of the publisher to all viewers.

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
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, Viewer, ViewerOptions,
};
use loadtest::sdp::Answer;
use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{Certificate, DtlsContext, DtlsEndpoint, DtlsEvent};
use media_core::internals::ice::{
    IceLite, IceOutput, OwnChecks, candidate_line, host_priority, peek_ufrag, random_credentials,
};
use media_core::internals::srtp::{MAX_TRAILER, SrtpReceiver, SrtpSender};
use media_core::ledger::Reason;
use media_core::{DtlsParameters, DtlsRole, LocalCandidate, Protocol};
use tokio::net::UdpSocket;

pub(super) struct Session {
    pub(super) publishes: bool,
    pub(super) ufrag: String,
    pub(super) ice: IceLite,
    pub(super) dtls: DtlsEndpoint,
    pub(super) keys: Option<(SrtpReceiver, SrtpSender)>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) failure: Option<Reason>,
    pub(super) unauthentic: u64,
}

/// What the server does to packets on their way.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) corrupt: AtomicBool,
    /// Answers DELETE, but keeps a session in its list.
    pub(super) forgetful: AtomicBool,
    /// Gives a new viewer all RTP packets received before.
    pub(super) keeps: AtomicBool,
    pub(super) kept: Mutex<Vec<Vec<u8>>>,
}

pub(super) struct Reflector {
    pub(super) sessions: Mutex<HashMap<usize, Session>>,
    pub(super) next: AtomicUsize,
    pub(super) context: DtlsContext,
    pub(super) certificate: Certificate,
    pub(super) candidate: SocketAddr,
    pub(super) faults: Faults,
}

type Shared = Arc<Reflector>;

pub(super) struct Server {
    pub(super) base: String,
    pub(super) reflector: Shared,
}

impl Server {
    pub(super) async fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Room for what comes while the machine pauses.
        socket2::SockRef::from(&socket).set_recv_buffer_size(2 << 20).unwrap();
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

    pub(super) fn endpoint(&self, path: &str) -> Endpoint {
        let http = reqwest::Client::new();
        Endpoint { http, url: format!("{}/{path}", self.base), token: Some("secret".into()) }
    }

    pub(super) async fn publisher(
        &self,
        media: PublisherOptions,
        options: ClientOptions,
    ) -> Result<Publisher, ClientError> {
        let identity = Identity::new(&options)?;
        let publisher = Publisher::start(&self.endpoint("whip/stream"), &identity, media, options).await?;
        publisher.connected().await.map(|_| publisher)
    }

    pub(super) async fn viewer(&self, media: ViewerOptions, options: ClientOptions) -> Result<Viewer, ClientError> {
        let identity = Identity::new(&options)?;
        let viewer = Viewer::start(&self.endpoint("whep/stream"), &identity, media, options).await?;
        viewer.connected().await.map(|_| viewer)
    }

    pub(super) fn failures(&self) -> Vec<Reason> {
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
    let (address, priority) = (reflector.candidate, host_priority(0, false));
    let candidate = LocalCandidate { protocol: Protocol::Udp, address, priority, foundation: 1 };
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
        ice: IceLite::new(local, read.ice, OwnChecks::None),
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
                take(&mut sessions, &reflector.faults, source, buffer[..len].to_vec(), &mut out);
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

/// Takes a datagram; what is to be sent because of it goes into `out`.
fn take(
    sessions: &mut HashMap<usize, Session>,
    faults: &Faults,
    source: SocketAddr,
    mut datagram: Vec<u8>,
    out: &mut Datagrams,
) {
    let now = Instant::now();
    let Ok(kind) = classify(&datagram) else { return };
    if kind == PacketKind::Stun {
        return take_stun(sessions, source, &datagram, out);
    }
    let Some(session) = sessions.values_mut().find(|session| session.peer == Some(source)) else { return };
    let publishes = session.publishes;
    let rtcp = kind == PacketKind::Rtcp;
    let len = datagram.len();
    let plain = match (kind, &mut session.keys) {
        (PacketKind::Dtls, _) => return session.dtls.handle_datagram(now, &datagram),
        (PacketKind::Rtp, Some((srtp, _))) => srtp.unprotect_rtp(&mut datagram, len),
        (_, Some((srtp, _))) => srtp.unprotect_rtcp(&mut datagram, len),
        (_, None) => return,
    };
    let Ok(len) = plain else {
        session.unauthentic += 1;
        return;
    };
    datagram.truncate(len);
    if publishes && !rtcp && faults.keeps.load(Ordering::Relaxed) {
        faults.kept.lock().unwrap().push(datagram.clone());
    }
    // Media goes from the publisher to the viewers, feedback the other way; numbers and SSRCs stay as they are.
    for other in sessions.values_mut().filter(|other| other.publishes != publishes) {
        let (Some((_, srtp)), Some(peer)) = (&mut other.keys, other.peer) else { continue };
        let mut packet = datagram.clone();
        if !rtcp && faults.corrupt.load(Ordering::Relaxed) {
            packet[len / 2] ^= 1;
        }
        out.extend(protect(srtp, packet, rtcp).map(|packet| (peer, packet)));
    }
}

fn take_stun(sessions: &mut HashMap<usize, Session>, source: SocketAddr, datagram: &[u8], out: &mut Datagrams) {
    let Some(ufrag) = peek_ufrag(datagram) else { return };
    let Some(session) = sessions.values_mut().find(|session| session.ufrag == ufrag) else { return };
    let mut outputs = Vec::new();
    session.ice.handle(Instant::now(), source, datagram, &mut outputs);
    // Nobody forges anything here.
    session.ice.on_proof(Instant::now(), source, &mut outputs);
    for output in outputs {
        match output {
            IceOutput::Transmit { to, datagram } => out.push((to, datagram)),
            IceOutput::Selected(address) => session.peer = Some(address),
            _ => {}
        }
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
            DtlsEvent::HandshakeStarted | DtlsEvent::AddressProven(_) | DtlsEvent::ApplicationData(_) => {}
        }
    }
    while let Some(datagram) = session.dtls.poll_transmit() {
        out.extend(session.peer.map(|peer| (peer, datagram)));
    }
}
