//! A small server that keeps the rows that the tests name, but for the one fault that it is told to have.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use loadtest::sdp::Answer;
use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{Certificate, DtlsContext, DtlsEndpoint};
use media_core::internals::ice::{
    IceLite, IceOutput, OwnChecks, candidate_line, host_priority, is_request, peek_ufrag, random_credentials,
};
use media_core::{DtlsParameters, DtlsRole, IceCredentials, LocalCandidate, Protocol};
use tokio::net::UdpSocket;

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    OkInsteadOfCreated,
    NoLocation,
    AnyType,
    TypesWithCase,
    ContentOfGet,
    NoAllow,
    VagueRetryAfter,
    NoOptions,
    CredentialsForAll,
    NoChallenge,
    ErrorsInPlainText,
    WeakTag,
    AnyDirection,
    Undying,
    NoRtcpMux,
    SwappedSections,
    ForeignFormat,
    SurplusFeedback,
    NoBundle,
    PortZero,
    NoFingerprintNeeded,
    SameCredentials,
    NoCandidates,
    TagOfTrickle,
    IgnoresIfMatch,
    SameCredentialsAfterRestart,
    TakesAnyPassword,
    IgnoresUnknownAttributes,
    AnswersAfterEnd,
    AnotherCertificate,
    SilentAfterHello,
    ForgetsOverHttp2,
}

struct Session {
    local: IceCredentials,
    remote: IceCredentials,
    ice: IceLite,
    dtls: DtlsEndpoint,
    tag: usize,
    peer: Option<SocketAddr>,
    ended: bool,
}

struct Shared {
    fault: Fault,
    sessions: Mutex<HashMap<usize, Session>>,
    next: Mutex<usize>,
    certificate: Certificate,
    context: DtlsContext,
    candidate: SocketAddr,
    fixed: IceCredentials,
}

pub(super) const TOKEN: &str = "secret";

/// Starts it and tells where it is.
pub(super) async fn start(fault: Fault) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (certificate, other) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
    let shown = if fault == Fault::AnotherCertificate { &other } else { &certificate };
    let shared = Arc::new(Shared {
        fault,
        sessions: Mutex::default(),
        next: Mutex::new(1),
        context: DtlsContext::new(shown).unwrap(),
        certificate,
        candidate: socket.local_addr().unwrap(),
        fixed: random_credentials(),
    });
    let routes = axum::Router::new()
        .route("/{role}/{stream}", any(endpoint))
        .route("/{role}/{stream}/{id}", any(session))
        .with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    tokio::spawn(serve_media(shared, socket));
    base
}

fn problem(shared: &Shared, status: StatusCode) -> Response {
    let (kind, body) = match shared.fault {
        Fault::ErrorsInPlainText => ("text/plain", "no".to_owned()),
        _ => ("application/problem+json", format!("{{\"type\":\"about:blank\",\"status\":{}}}", status.as_u16())),
    };
    with(&[("content-type", kind), ("access-control-allow-origin", "*")], (status, body))
}

fn with(headers: &[(&'static str, &str)], reply: impl IntoResponse) -> Response {
    let mut reply = reply.into_response();
    for (name, value) in headers {
        reply.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    reply
}

fn media_type(shared: &Shared, headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match shared.fault {
        Fault::TypesWithCase => value.to_owned(),
        _ => value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
    }
}

/// What both kinds of resources answer to methods other than their own; none if it is one of their own.
fn common(shared: &Shared, method: &Method, headers: &HeaderMap, allow: &'static str) -> Option<Response> {
    let own: &[&str] = if allow.contains("POST") { &["POST"] } else { &["PATCH", "DELETE"] };
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorized = authorization
        .and_then(|value| value.split_once(' '))
        .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token == TOKEN);
    Some(match method.as_str() {
        "OPTIONS" if shared.fault == Fault::NoOptions => problem(shared, StatusCode::METHOD_NOT_ALLOWED),
        "OPTIONS" => {
            let credentials = if shared.fault == Fault::CredentialsForAll { "true" } else { "false" };
            let headers = [
                ("access-control-allow-origin", "*"),
                ("access-control-allow-credentials", credentials),
                ("access-control-allow-methods", "OPTIONS, GET, POST, PATCH, DELETE"),
                ("access-control-allow-headers", "Authorization, Content-Type, If-Match"),
                ("accept-post", "application/sdp"),
                ("accept-patch", "application/trickle-ice-sdpfrag"),
            ];
            with(&headers, StatusCode::OK)
        }
        "GET" if shared.fault == Fault::ContentOfGet => "here I am".into_response(),
        "GET" => StatusCode::NO_CONTENT.into_response(),
        method if !own.contains(&method) => match shared.fault {
            Fault::NoAllow => problem(shared, StatusCode::METHOD_NOT_ALLOWED),
            _ => with(&[("allow", allow)], problem(shared, StatusCode::METHOD_NOT_ALLOWED)),
        },
        _ if !authorized => match shared.fault {
            Fault::NoChallenge => problem(shared, StatusCode::UNAUTHORIZED),
            _ => with(&[("www-authenticate", "Bearer realm=\"x\"")], problem(shared, StatusCode::UNAUTHORIZED)),
        },
        _ => return None,
    })
}

async fn endpoint(
    State(shared): State<Arc<Shared>>,
    Path((role, stream)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(reply) = common(&shared, &method, &headers, "OPTIONS, GET, POST") {
        return reply;
    }
    let offer = String::from_utf8_lossy(&body).into_owned();
    if shared.fault != Fault::AnyType && media_type(&shared, &headers) != "application/sdp" {
        return problem(&shared, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    if !offer.starts_with("v=0") {
        return problem(&shared, StatusCode::BAD_REQUEST);
    }
    // It forwards nothing, so that no stream is live.
    if role == "whep" {
        let when = if shared.fault == Fault::VagueRetryAfter { "soon" } else { "5" };
        return with(&[("retry-after", when)], problem(&shared, StatusCode::CONFLICT));
    }
    let right = if role == "whip" { ["a=sendonly", "a=sendrecv"] } else { ["a=recvonly", "a=sendrecv"] };
    let fits = right.iter().any(|line| offer.contains(line));
    if !fits && shared.fault != Fault::AnyDirection {
        return problem(&shared, StatusCode::UNPROCESSABLE_ENTITY);
    }
    answer(&shared, &role, &stream, &offer)
}

/// The answer echoes the offer with the transport lines replaced.
fn answer(shared: &Shared, role: &str, stream: &str, offer: &str) -> Response {
    let fault = shared.fault;
    let needless = fault == Fault::NoFingerprintNeeded && !offer.contains("a=fingerprint");
    let line = "a=fingerprint:sha-256 ".to_owned() + &["00"; 32].join(":") + "\r\na=setup:";
    let read = if needless { offer.replace("a=setup:", &line) } else { offer.to_owned() };
    let Ok(read) = Answer::parse(&read.replace("a=setup:actpass", "a=setup:active")) else {
        return problem(shared, StatusCode::UNPROCESSABLE_ENTITY);
    };
    let local = if fault == Fault::SameCredentials { shared.fixed.clone() } else { random_credentials() };
    let text = answer_text(shared, offer, &local, if role == "whip" { "recvonly" } else { "sendonly" });
    let parameters = DtlsParameters { role: DtlsRole::Server, fingerprints: read.fingerprints };
    let dtls = DtlsEndpoint::new(&shared.context, parameters).unwrap();
    let id = {
        let mut next = shared.next.lock().unwrap();
        *next += 1;
        *next
    };
    let ice = IceLite::new(local.clone(), read.ice.clone(), OwnChecks::None);
    let session = Session { local, remote: read.ice, ice, dtls, tag: 1, peer: None, ended: false };
    shared.sessions.lock().unwrap().insert(id, session);
    let location = format!("/{role}/{stream}/{id}");
    let tag = if fault == Fault::WeakTag { format!("W/\"{id}-1\"") } else { format!("\"{id}-1\"") };
    let status = if fault == Fault::OkInsteadOfCreated { StatusCode::OK } else { StatusCode::CREATED };
    let headers = [("content-type", "application/sdp"), ("etag", &tag), ("location", &location)];
    let count = if fault == Fault::NoLocation { 2 } else { 3 };
    with(&headers[..count], (status, text))
}

fn answer_text(shared: &Shared, offer: &str, local: &IceCredentials, direction: &str) -> String {
    let fault = shared.fault;
    let (address, priority) = (shared.candidate, host_priority(0, false));
    let candidate = LocalCandidate { protocol: Protocol::Udp, address, priority, foundation: 1 };
    let candidate =
        if fault == Fault::NoCandidates { String::new() } else { format!("\r\na={}", candidate_line(&candidate)) };
    let mut text = String::new();
    for line in offer.lines() {
        let line = match line {
            _ if line.starts_with("a=ice-ufrag:") => format!("a=ice-ufrag:{}", local.ufrag),
            _ if line.starts_with("a=ice-pwd:") => format!("a=ice-pwd:{}", local.pwd),
            _ if line.starts_with("a=fingerprint:") => {
                format!("a=fingerprint:{}", shared.certificate.fingerprint().to_sdp())
            }
            _ if line.starts_with("a=setup:") => format!("a=setup:passive{candidate}"),
            _ if line.starts_with("a=group:") && fault == Fault::NoBundle => continue,
            "a=rtcp-mux" if fault == Fault::NoRtcpMux => continue,
            _ if line.starts_with("m=video") && fault == Fault::PortZero => line.replace(" 9 ", " 0 "),
            _ if line.starts_with("m=video") && fault == Fault::ForeignFormat => format!("{line} 127"),
            _ if line.starts_with("a=mid:1") && fault == Fault::SurplusFeedback => {
                format!("{line}\r\na=rtcp-fb:96 x-new")
            }
            _ if line.starts_with("a=ssrc") => continue,
            "a=sendonly" | "a=recvonly" | "a=sendrecv" | "a=inactive" => format!("a={direction}"),
            line => line.into(),
        };
        text += &line;
        text += "\r\n";
    }
    if fault == Fault::SwappedSections {
        let parts: Vec<&str> = text.split("m=").collect();
        text = format!("{}m={}m={}", parts[0], parts[2], parts[1]);
    }
    text
}

async fn session(
    State(shared): State<Arc<Shared>>,
    Path((_, _, id)): Path<(String, String, usize)>,
    (method, version): (Method, Version),
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if shared.fault == Fault::ForgetsOverHttp2 && version == Version::HTTP_2 {
        return problem(&shared, StatusCode::NOT_FOUND);
    }
    if let Some(reply) = common(&shared, &method, &headers, "OPTIONS, GET, PATCH, DELETE") {
        return reply;
    }
    let mut sessions = shared.sessions.lock().unwrap();
    let found = sessions.get_mut(&id).filter(|session| !session.ended);
    let Some(session) = found else { return problem(&shared, StatusCode::NOT_FOUND) };
    if method == Method::DELETE {
        session.ended = shared.fault != Fault::Undying;
        session.dtls.close();
        return StatusCode::OK.into_response();
    }
    if media_type(&shared, &headers) != "application/trickle-ice-sdpfrag" {
        return problem(&shared, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    patch(&shared, id, session, &headers, &String::from_utf8_lossy(&body))
}

fn patch(shared: &Shared, id: usize, session: &mut Session, headers: &HeaderMap, body: &str) -> Response {
    let tag = format!("\"{id}-{}\"", session.tag);
    let if_match = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
    if shared.fault != Fault::IgnoresIfMatch {
        match if_match {
            None => return problem(shared, StatusCode::PRECONDITION_REQUIRED),
            Some("*") => {}
            Some(list) if list.split(", ").any(|known| known == tag) => {}
            Some(_) => return problem(shared, StatusCode::PRECONDITION_FAILED),
        }
    }
    let value = |name: &str| body.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    match (value("a=ice-ufrag:"), value("a=ice-pwd:")) {
        (Some(ufrag), Some(pwd)) if ufrag != session.remote.ufrag && pwd != session.remote.pwd => {
            session.remote = IceCredentials { ufrag, pwd };
            session.tag += 1;
            let local = match shared.fault {
                Fault::SameCredentialsAfterRestart => session.local.clone(),
                _ => random_credentials(),
            };
            session.local = local.clone();
            session.ice = IceLite::new(local.clone(), session.remote.clone(), OwnChecks::None);
            let tag = format!("\"{id}-{}\"", session.tag);
            let text = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", local.ufrag, local.pwd);
            with(&[("content-type", "application/trickle-ice-sdpfrag"), ("etag", &tag)], text)
        }
        _ if shared.fault == Fault::TagOfTrickle => with(&[("etag", &tag)], StatusCode::NO_CONTENT),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

type Datagrams = Vec<(SocketAddr, Vec<u8>)>;

async fn serve_media(shared: Arc<Shared>, socket: UdpSocket) {
    let mut buffer = vec![0; 2048];
    loop {
        let received = tokio::time::timeout(Duration::from_millis(20), socket.recv_from(&mut buffer)).await;
        let mut out = Vec::new();
        {
            let mut sessions = shared.sessions.lock().unwrap();
            if let Ok(Ok((len, source))) = received {
                take(&shared, &mut sessions, source, &buffer[..len], &mut out);
            }
            for session in sessions.values_mut() {
                session.dtls.handle_timeout(Instant::now());
                while session.dtls.poll_event().is_some() {}
                while let Some(datagram) = session.dtls.poll_transmit() {
                    out.extend(session.peer.map(|peer| (peer, datagram)));
                }
            }
        }
        for (to, datagram) in out {
            let _ = socket.send_to(&datagram, to).await;
        }
    }
}

fn take(
    shared: &Shared,
    sessions: &mut HashMap<usize, Session>,
    source: SocketAddr,
    datagram: &[u8],
    out: &mut Datagrams,
) {
    match classify(datagram) {
        Ok(PacketKind::Stun) => take_stun(shared, sessions, source, datagram, out),
        Ok(PacketKind::Dtls) if shared.fault != Fault::SilentAfterHello => {
            let session = sessions.values_mut().find(|session| session.peer == Some(source));
            if let Some(session) = session {
                session.dtls.handle_datagram(Instant::now(), datagram);
            }
        }
        _ => {}
    }
}

fn take_stun(
    shared: &Shared,
    sessions: &mut HashMap<usize, Session>,
    source: SocketAddr,
    datagram: &[u8],
    out: &mut Datagrams,
) {
    if shared.fault == Fault::TakesAnyPassword && is_request(datagram) {
        // A success without any attribute.
        let mut success = vec![1, 1, 0, 0];
        success.extend(&datagram[4..20]);
        out.push((source, success));
        return;
    }
    let Some(ufrag) = peek_ufrag(datagram) else { return };
    let Some(session) = sessions.values_mut().find(|session| session.local.ufrag == ufrag) else { return };
    if session.ended && shared.fault != Fault::AnswersAfterEnd {
        return;
    }
    let mut outputs = Vec::new();
    session.ice.handle(Instant::now(), source, datagram, &mut outputs);
    // Nobody forges anything here.
    session.ice.on_proof(Instant::now(), source, &mut outputs);
    for output in outputs {
        match output {
            // An error response: 420 is the one that is asked for here.
            IceOutput::Transmit { datagram, .. }
                if shared.fault == Fault::IgnoresUnknownAttributes && datagram.starts_with(&[1, 0x11]) => {}
            IceOutput::Transmit { to, datagram } => out.push((to, datagram)),
            IceOutput::Selected(address) => session.peer = Some(address),
            _ => {}
        }
    }
}
