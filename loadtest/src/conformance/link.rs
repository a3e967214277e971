//! The media path of a session: checks, the handshake, SRTP and SRTCP, one datagram at a time.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{DtlsContext, DtlsEndpoint, DtlsEvent};
use media_core::internals::ice::is_request;
use media_core::internals::srtp::{MAX_TRAILER, SrtpProfile, SrtpReceiver, SrtpSender};
use media_core::{DtlsParameters, DtlsRole, IceCredentials};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::case::{Case, Session};
use super::row::{Miss, fail};
use super::stun::{self, Message, Write};
use crate::client::{bare_answer, local_ip, open_socket};

/// From the first check to the end of the handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(12);
/// A request is sent again after this.
const REPEAT: Duration = Duration::from_millis(200);
/// An answer that has not come by then does not come.
pub(super) const SOON: Duration = Duration::from_secs(3);
/// What is not to come has come by then, if it does.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// Past a deadline the socket is looked into for this long, once more.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// A check tells of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const LONGEST: usize = 2048;

/// What came from the server.
#[derive(Debug)]
pub(super) enum Event {
    /// A response.
    Stun(Message),
    /// DTLS, while there is no endpoint that takes it.
    Dtls(Vec<u8>),
    /// An authenticated packet.
    Rtp(Vec<u8>),
    /// An authenticated compound packet.
    Rtcp(Vec<u8>),
    /// An SRTP or SRTCP packet that does not authenticate.
    Unauthentic,
    /// The handshake is complete.
    Connected(SrtpProfile),
    /// The server said close_notify.
    Closed,
    /// The handshake failed, by whoever's fault.
    Failed(String),
}

/// The media path of a session.
pub(super) struct Link {
    socket: UdpSocket,
    pub(super) to: SocketAddr,
    pub(super) local: IceCredentials,
    pub(super) remote: IceCredentials,
    dtls: Option<DtlsEndpoint>,
    role: DtlsRole,
    keys: Option<(SrtpReceiver, SrtpSender)>,
    events: VecDeque<Event>,
    keep_alive: Option<Instant>,
    /// Checks of the server that were answered.
    pub(super) asked: u32,
    /// This datagram of the handshake is lost, by its place among those of its direction.
    pub(super) lose: Option<(Direction, usize)>,
    handshake: [usize; 2],
}

/// Whither a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    ToClient,
}

impl Link {
    /// A path to the first UDP candidate.
    pub(super) async fn open(session: &Session) -> Result<Link, Miss> {
        let candidate = session.read.candidates.first();
        let to = candidate.ok_or_else(|| Miss::Fail("the answer has no UDP candidate".into()))?.address;
        let socket = socket(to).map_err(|error| Miss::Skip(error.to_string()))?;
        let role = if session.read.active { DtlsRole::Server } else { DtlsRole::Client };
        Ok(Link {
            socket,
            to,
            local: session.offered.local.clone(),
            remote: session.read.ice.clone(),
            dtls: None,
            role,
            keys: None,
            events: VecDeque::new(),
            keep_alive: None,
            asked: 0,
            lose: None,
            handshake: [0; 2],
        })
    }

    /// Where it sends from.
    pub(super) fn local_address(&self) -> Result<SocketAddr, Miss> {
        self.socket.local_addr().map_err(|error| Miss::Skip(error.to_string()))
    }

    /// Goes on from a fresh socket; the old one is returned.
    pub(super) fn relocate(&mut self) -> Result<UdpSocket, Miss> {
        let fresh = socket(self.to).map_err(|error| Miss::Skip(error.to_string()))?;
        Ok(std::mem::replace(&mut self.socket, fresh))
    }

    pub(super) async fn send(&self, datagram: &[u8]) {
        // What cannot be sent is lost, as on any network.
        let _ = self.socket.send_to(datagram, self.to).await;
    }

    /// A check as a controlling agent makes it, with USE-CANDIDATE.
    pub(super) fn check(&self) -> Write {
        self.check_with(&[(stun::USE_CANDIDATE, Vec::new())])
    }

    /// The same with other attributes in place of USE-CANDIDATE.
    pub(super) fn check_with(&self, further: &[(u16, Vec<u8>)]) -> Write {
        let username = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        let mut attributes = vec![
            (stun::USERNAME, username.into_bytes()),
            (stun::PRIORITY, vec![0x6e, 0, 1, 0xff]),
            (stun::ICE_CONTROLLING, vec![1; 8]),
        ];
        attributes.extend(further.iter().cloned());
        Write {
            kind: stun::REQUEST,
            transaction: transaction(),
            attributes,
            password: Some(self.remote.pwd.clone()),
            fingerprint: Some(true),
        }
    }

    /// Sends a request, again and again, until it is answered.
    pub(super) async fn ask(&mut self, request: &Write, within: Duration) -> Option<Message> {
        let (bytes, end) = (request.to_bytes(), Instant::now() + within);
        while Instant::now() < end {
            self.send(&bytes).await;
            let again = (Instant::now() + REPEAT).min(end);
            let mut aside = Vec::new();
            let mut found = None;
            while let Some(event) = self.next(again).await {
                match event {
                    Event::Stun(message) if message.transaction == request.transaction => found = Some(message),
                    other => aside.push(other),
                }
                if found.is_some() {
                    break;
                }
            }
            self.events.extend(aside);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Validates and nominates the path.
    pub(super) async fn validate(&mut self, case: &Case<'_>) -> Result<Message, Miss> {
        let answer = self.ask(&self.check(), CONNECT).await;
        let answer = answer.ok_or_else(|| Miss::Fail(format!("no answer to checks towards {}", self.to)))?;
        case.note(format!("check to {} → {}", self.to, answer.shown()));
        match answer.kind {
            stun::SUCCESS => {
                self.keep_alive = Some(Instant::now() + KEEP_ALIVE);
                Ok(answer)
            }
            _ => fail(format!("a right check was answered with {}", answer.shown())),
        }
    }

    /// The handshake, after the path is valid.
    pub(super) async fn secure(
        &mut self,
        case: &Case<'_>,
        session: &Session,
        context: &DtlsContext,
    ) -> Result<SrtpProfile, Miss> {
        let parameters = DtlsParameters { role: self.role, fingerprints: session.read.fingerprints.clone() };
        let mut dtls = DtlsEndpoint::new(context, parameters).map_err(|error| Miss::Skip(error.to_string()))?;
        dtls.start(Instant::now());
        for event in std::mem::take(&mut self.events) {
            match event {
                // A server that is the client may have begun already.
                Event::Dtls(datagram) => dtls.handle_datagram(Instant::now(), &datagram),
                other => self.events.push_back(other),
            }
        }
        self.dtls = Some(dtls);
        let end = Instant::now() + CONNECT;
        while let Some(event) = self.next(end).await {
            match event {
                Event::Connected(profile) => {
                    case.note(format!("DTLS → connected, {profile}"));
                    return Ok(profile);
                }
                Event::Failed(why) => return fail(format!("the handshake failed: {why}")),
                Event::Closed => return fail("the server closed the association in the handshake"),
                _ => {}
            }
        }
        fail("the handshake does not end")
    }

    /// Checks and handshake.
    pub(super) async fn connect(case: &Case<'_>, session: &Session) -> Result<Link, Miss> {
        let mut link = Link::open(session).await?;
        link.validate(case).await?;
        link.secure(case, session, &case.probe.identity.context).await?;
        Ok(link)
    }

    /// Protects an RTP or RTCP packet and sends it.
    pub(super) async fn send_protected(&mut self, packet: &[u8], rtcp: bool) {
        if let Some(protected) = self.protect(packet, rtcp) {
            self.send(&protected).await;
        }
    }

    pub(super) fn protect(&mut self, packet: &[u8], rtcp: bool) -> Option<Vec<u8>> {
        let (_, srtp) = self.keys.as_mut()?;
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + MAX_TRAILER, 0);
        let protected = if rtcp {
            srtp.protect_rtcp(&mut buffer, packet.len())
        } else {
            srtp.protect_rtp(&mut buffer, packet.len())
        };
        buffer.truncate(protected.ok()?);
        Some(buffer)
    }

    /// Says close_notify.
    pub(super) async fn close(&mut self) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close();
        }
        self.flush().await;
        self.keep_alive = None;
    }

    /// The next event until then; `None` if there is none.
    pub(super) async fn next(&mut self, until: Instant) -> Option<Event> {
        loop {
            self.flush().await;
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let now = Instant::now();
            // A machine that paused until now has not looked at what came in time. The runtime sees it only while it waits.
            let is_last = now >= until;
            let due = [self.dtls.as_ref().and_then(DtlsEndpoint::poll_timeout), self.keep_alive];
            let next = due.into_iter().flatten().fold(until, Instant::min);
            let wake = if is_last { now + LAST_LOOK } else { next };
            let mut buffer = [0; LONGEST];
            if let Ok(Ok((length, source))) =
                timeout(wake.saturating_duration_since(now), self.socket.recv_from(&mut buffer)).await
            {
                self.take(source, &mut buffer[..length]).await;
            } else if is_last {
                return None;
            }
            self.on_time(Instant::now()).await;
        }
    }

    /// The first event that `wanted` takes, until then; what comes before it is dropped.
    pub(super) async fn find<T>(&mut self, within: Duration, mut wanted: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let end = Instant::now() + within;
        while let Some(event) = self.next(end).await {
            if let Some(found) = wanted(&event) {
                return Some(found);
            }
        }
        None
    }

    async fn on_time(&mut self, now: Instant) {
        if self.keep_alive.is_some_and(|due| now >= due) {
            self.keep_alive = Some(now + KEEP_ALIVE);
            self.send(&self.check().to_bytes()).await;
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        self.take_dtls_events();
    }

    async fn take(&mut self, source: SocketAddr, datagram: &mut [u8]) {
        let length = datagram.len();
        match classify(datagram) {
            Ok(PacketKind::Stun) if is_request(datagram) => {
                if let Ok(Some(answer)) = bare_answer(&self.local, source, datagram) {
                    self.asked += 1;
                    // What cannot be sent is lost, as on any network.
                    let _ = self.socket.send_to(&answer, source).await;
                }
            }
            Ok(PacketKind::Stun) => self.events.extend(Message::read(datagram).map(Event::Stun)),
            Ok(PacketKind::Dtls) if self.dtls.is_some() && self.is_lost(Direction::ToClient) => {}
            Ok(PacketKind::Dtls) => match &mut self.dtls {
                Some(dtls) => {
                    dtls.handle_datagram(Instant::now(), datagram);
                    self.take_dtls_events();
                }
                None => self.events.push_back(Event::Dtls(datagram.to_vec())),
            },
            Ok(kind) => {
                let Some((srtp, _)) = &mut self.keys else { return };
                let rtcp = kind == PacketKind::Rtcp;
                let clear =
                    if rtcp { srtp.unprotect_rtcp(datagram, length) } else { srtp.unprotect_rtp(datagram, length) };
                self.events.push_back(match clear {
                    Ok(length) if rtcp => Event::Rtcp(datagram[..length].to_vec()),
                    Ok(length) => Event::Rtp(datagram[..length].to_vec()),
                    Err(_) => Event::Unauthentic,
                });
            }
            Err(_) => {}
        }
    }

    fn take_dtls_events(&mut self) {
        while let Some(event) = self.dtls.as_mut().and_then(DtlsEndpoint::poll_event) {
            match event {
                DtlsEvent::Connected(connection) => match connection.keying.contexts(self.role) {
                    Ok(keys) => {
                        self.keys = Some(keys);
                        self.events.push_back(Event::Connected(connection.keying.profile()));
                    }
                    Err(error) => self.events.push_back(Event::Failed(error.to_string())),
                },
                DtlsEvent::Failed(failure) => {
                    self.events.push_back(Event::Failed(format!("{} ({})", failure.reason, failure.detail)));
                }
                DtlsEvent::PeerClosed => self.events.push_back(Event::Closed),
                DtlsEvent::HandshakeStarted | DtlsEvent::AddressProven(_) | DtlsEvent::ApplicationData(_) => {}
            }
        }
    }

    /// Counts a datagram of the handshake, and says whether it is the one to lose.
    fn is_lost(&mut self, direction: Direction) -> bool {
        let place = &mut self.handshake[direction as usize];
        *place += 1;
        self.lose == Some((direction, *place - 1))
    }

    async fn flush(&mut self) {
        while let Some(datagram) = self.dtls.as_mut().and_then(DtlsEndpoint::poll_transmit) {
            if !self.is_lost(Direction::ToServer) {
                self.send(&datagram).await;
            }
        }
    }
}

/// A fresh transaction id.
pub(super) fn transaction() -> [u8; 12] {
    random()
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without OpenSSL's generator no session could have been opened.
    let _ = openssl::rand::rand_bytes(&mut bytes);
    bytes
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open_socket(local_ip(to.ip()))?;
    // One datagram a call: what is sent has to be seen as it is.
    let _ = media_core::internals::net::set_run_receiving(&socket, false);
    UdpSocket::from_std(socket)
}
