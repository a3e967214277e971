//! One client's transport: a socket of its own, the full ICE agent, DTLS and SRTP, and media on top.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::demux::{PacketKind, classify};
use media_core::dtls::{DtlsEndpoint, DtlsEvent};
use media_core::ice::{AgentOptions, AgentRole, AgentStart, AgentTransmit, FullAgent, IceOutput};
use media_core::ledger::Stage;
use media_core::net::{RunBatch, count_overflows, set_run_receiving};
use media_core::session::{DtlsParameters, DtlsRole, IceCredentials, SessionId};
use media_core::srtp::{MAX_TRAILER, SrtpReceiver, SrtpSender};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};

use super::check::BareChecks;
use super::{ClientError, ClientOptions, ClientState, Identity};
use crate::sdp::Answer;

/// Room for what the server sends while this task waits for its turn.
const SOCKET_BUFFER: usize = 2 << 20;
/// Calls of the system before timers get their turn.
const BATCH: usize = 16;
const DATAGRAM: usize = 1500;
/// How often checks are repeated: a client in a hurry, since its connect time is measured.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

thread_local! {
    /// Shared by the clients of a thread, which receive by turns.
    static RECEIVED: RefCell<RunBatch> = RefCell::default();
}

/// What a client does with its connection.
pub(super) trait Media: Send + 'static {
    /// Keys are installed.
    fn connected(&mut self, now: Instant);
    /// An RTP packet of the peer as it came, `overhead` bytes of its end are SRTP's. True if it is to be authenticated and
    /// decrypted, for [`Media::rtp`]; false if its header is all that counts.
    fn wants(&mut self, _now: Instant, _packet: &[u8], _overhead: usize) -> bool {
        true
    }
    /// An authenticated RTP packet.
    fn rtp(&mut self, now: Instant, packet: &mut [u8]);
    /// An authenticated compound RTCP packet.
    fn rtcp(&mut self, now: Instant, packet: &[u8], out: &mut Outgoing);
    /// A packet whose authentication failed, or that came before.
    fn refused(&mut self);
    /// The socket has dropped so many datagrams since it was opened.
    fn overflowed(&mut self, _total: u32) {}
    /// Time passed; returns when to call again.
    fn tick(&mut self, now: Instant, out: &mut Outgoing) -> Instant;
    /// When [`Media::tick`] wants to be called at the latest; looked at after received packets.
    fn deadline(&self) -> Instant;
}

/// The way out for media.
pub(super) struct Outgoing {
    srtp: SrtpSender,
    corrupt: bool,
    enabled: bool,
    packet: Box<[u8]>,
    queue: Vec<Vec<u8>>,
}

impl Outgoing {
    /// Protects an RTP packet and sends it after the current call.
    pub(super) fn rtp(&mut self, packet: &[u8]) {
        self.protect(packet, false);
    }

    /// Protects an RTCP packet and sends it after the current call.
    pub(super) fn rtcp(&mut self, packet: &[u8]) {
        self.protect(packet, true);
    }

    fn protect(&mut self, packet: &[u8], rtcp: bool) {
        let fits = self.enabled && packet.len() <= DATAGRAM;
        let Some(room) = self.packet.get_mut(..packet.len()).filter(|_| fits) else { return };
        room.copy_from_slice(packet);
        let protected = if rtcp {
            self.srtp.protect_rtcp(&mut self.packet, packet.len())
        } else {
            self.srtp.protect_rtp(&mut self.packet, packet.len())
        };
        let Ok(len) = protected else { return };
        if self.corrupt {
            // The last byte is part of the authentication tag or of the SRTCP index: the packet never authenticates.
            self.packet[len - 1] ^= 0x55;
        }
        self.queue.push(self.packet[..len].to_vec());
    }
}

/// The parts from which a link starts.
pub(super) struct LinkStart {
    pub(super) options: ClientOptions,
    pub(super) identity: Identity,
    pub(super) local: IceCredentials,
    pub(super) answer: Answer,
    pub(super) begun: Instant,
    /// Each notification moves the link to a fresh socket.
    pub(super) moves: Arc<Notify>,
}

pub(super) struct Link {
    socket: UdpSocket,
    options: ClientOptions,
    agent: Option<FullAgent>,
    agent_out: mpsc::Receiver<AgentTransmit>,
    checks: Vec<(SocketAddr, Vec<u8>)>,
    /// Under way until their first answer.
    bare: Option<BareChecks>,
    credentials: (IceCredentials, IceCredentials),
    server: Option<SocketAddr>,
    local_ip: IpAddr,
    moves: Arc<Notify>,
    // Keeps the queue open when there is no agent.
    _agent_in: mpsc::Sender<AgentTransmit>,
    dtls: DtlsEndpoint,
    role: DtlsRole,
    keys: Option<(SrtpReceiver, Outgoing)>,
    /// Bytes that SRTP adds to an RTP packet.
    overhead: usize,
    peer: Option<SocketAddr>,
    give_up: Instant,
    dice: u64,
    state: watch::Sender<ClientState>,
}

impl Link {
    /// Opens the socket and starts ICE. Must be called inside a tokio runtime.
    pub(super) fn start(start: LinkStart, state: watch::Sender<ClientState>) -> Result<Link, ClientError> {
        let LinkStart { options, identity, local, answer, begun, moves } = start;
        let bind = options.bind.or_else(|| answer.candidates.first().map(|candidate| local_ip(candidate.address.ip())));
        let bind = bind.ok_or_else(|| ClientError::Answer("the answer has no usable candidate".into()))?;
        let socket = open_socket(bind).map_err(|error| ClientError::Socket(error.to_string()))?;
        if !options.receive_runs {
            let _ = set_run_receiving(&socket, false);
        }
        let local_address = socket.local_addr().map_err(|error| ClientError::Socket(error.to_string()))?;
        let role = if answer.active { DtlsRole::Server } else { DtlsRole::Client };
        let parameters = DtlsParameters { role, fingerprints: answer.fingerprints };
        let dtls =
            DtlsEndpoint::new(&identity.context, parameters).map_err(|error| ClientError::Crypto(error.to_string()))?;
        let (agent_in, agent_out) = mpsc::channel(64);
        let credentials = (local.clone(), answer.ice.clone());
        let mut addresses = answer.candidates.iter().map(|candidate| candidate.address);
        let server = addresses.find(|address| address.is_ipv4() == bind.is_ipv4());
        let agent = (options.send_checks && !options.bare_checks).then(|| {
            FullAgent::start(AgentStart {
                owner: SessionId(0),
                role: AgentRole::Controlling,
                local,
                remote: answer.ice,
                remote_candidates: answer.candidates,
                local_address,
                transmit: agent_in.clone(),
                options: AgentOptions { check_interval: CHECK_INTERVAL, ..AgentOptions::default() },
            })
        });
        let mut link = Link {
            socket,
            agent,
            agent_out,
            checks: Vec::new(),
            bare: None,
            credentials,
            server,
            local_ip: bind,
            moves,
            _agent_in: agent_in,
            dtls,
            role,
            keys: None,
            overhead: 0,
            peer: None,
            give_up: begun + options.connect_timeout,
            dice: u64::from(local_address.port()) | 0x9e37_79b9_0000_0000,
            options,
            state,
        };
        if link.options.send_checks && link.options.bare_checks {
            link.check_barely(begun);
        }
        Ok(link)
    }

    /// Runs until `stop` is set or the connection ends, then says close_notify.
    pub(super) async fn run(mut self, mut media: impl Media, mut stop: watch::Receiver<bool>) {
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.give_up.into()));
        let error = loop {
            // The deadline seldom moves, and a timer that stays costs nothing.
            let deadline = self.deadline(&media).into();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break ClientError::Stopped,
                Some(transmit) = self.agent_out.recv() => {
                    self.checks.push((transmit.to, transmit.datagram));
                }
                ready = self.socket.readable() => {
                    if let Err(error) = ready {
                        break ClientError::Socket(error.to_string());
                    }
                    RECEIVED.with_borrow_mut(|batch| self.receive(batch, &mut media));
                }
                () = self.moves.notified() => match open_socket(self.local_ip) {
                    Ok(socket) => {
                        self.socket = socket;
                        self.check_barely(Instant::now());
                    }
                    Err(error) => break ClientError::Socket(error.to_string()),
                },
                () = timer.as_mut() => {}
            }
            let now = Instant::now();
            if let Some(checks) = &mut self.bare {
                match checks.poll(now) {
                    Ok(check) => self.checks.extend(check.map(|check| (checks.to, check))),
                    Err(error) => break error,
                }
            }
            self.dtls.handle_timeout(now);
            if let Some(error) = self.advance(now, &mut media) {
                break error;
            }
            if self.keys.is_none() && now >= self.give_up {
                let stage = if self.peer.is_some() { Stage::Dtls } else { Stage::Ice };
                break ClientError::Timeout(self.options.connect_timeout, stage);
            }
            if let Some((_, out)) = &mut self.keys
                && now >= media.deadline()
            {
                media.tick(now, out);
            }
            self.flush().await;
        };
        self.dtls.close();
        self.flush().await;
        self.state.send_replace(ClientState::Ended(error));
    }

    fn deadline(&self, media: &impl Media) -> Instant {
        let phase = if self.keys.is_some() { media.deadline() } else { self.give_up };
        let check = self.bare.as_ref().map(|checks| checks.next);
        [self.dtls.poll_timeout(), check].into_iter().flatten().fold(phase, Instant::min)
    }

    /// Nominates the present socket by checks of our own.
    fn check_barely(&mut self, now: Instant) {
        let (local, remote) = self.credentials.clone();
        self.bare = self.server.map(|server| BareChecks::new(now, server, local, remote));
    }

    fn receive(&mut self, batch: &mut RunBatch, media: &mut impl Media) {
        for _ in 0..BATCH {
            let socket = &self.socket;
            let mut received = Ok(false);
            // A batch with room left has emptied the socket: said to the runtime, it saves the call that would find so.
            let emptied = socket.try_io(Interest::READABLE, || {
                received = batch.receive(socket);
                if let Ok(true) = received { Ok(()) } else { Err(std::io::ErrorKind::WouldBlock.into()) }
            });
            if received.is_err() {
                return;
            }
            let now = Instant::now();
            for mut run in batch.iter_mut() {
                let remote = run.remote;
                if let Some(total) = run.overflowed {
                    media.overflowed(total);
                }
                for datagram in run.datagrams() {
                    self.take(now, remote, datagram, media);
                }
            }
            if emptied.is_err() {
                return;
            }
        }
    }

    fn take(&mut self, now: Instant, source: SocketAddr, datagram: &mut [u8], media: &mut impl Media) {
        if self.is_dropped(self.options.drop_incoming) {
            return;
        }
        let Ok(kind) = classify(datagram) else { return };
        if kind == PacketKind::Stun {
            return self.stun(now, source, datagram);
        }
        let validated = self.peer == Some(source)
            || self.agent.as_ref().is_some_and(|agent| agent.validated().any(|address| address == source));
        if !validated {
            return;
        }
        let len = datagram.len();
        match (kind, &mut self.keys) {
            (PacketKind::Dtls, _) => self.dtls.handle_datagram(now, datagram),
            (PacketKind::Rtp, Some((srtp, _))) if media.wants(now, datagram, self.overhead) => {
                match srtp.unprotect_rtp(datagram, len) {
                    Ok(len) => media.rtp(now, &mut datagram[..len]),
                    Err(_) => media.refused(),
                }
            }
            (PacketKind::Rtcp, Some((srtp, out))) => match srtp.unprotect_rtcp(datagram, len) {
                Ok(len) => media.rtcp(now, &datagram[..len], out),
                Err(_) => media.refused(),
            },
            _ => {}
        }
    }

    fn stun(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        if let Some(checks) = self.bare.take_if(|checks| checks.is_answer(source, datagram)) {
            self.select(now, checks.to);
            return;
        }
        let Some(agent) = &mut self.agent else { return };
        let mut selected = None;
        let mut out = Vec::new();
        agent.handle(now, source, datagram, &mut out);
        for output in out {
            match output {
                IceOutput::Transmit { to, datagram } => self.checks.push((to, datagram)),
                IceOutput::Selected(address) => {
                    selected = Some(address);
                }
                IceOutput::Validated(_) | IceOutput::Forgotten(_) | IceOutput::CheckRefused(_) => {}
            }
        }
        if let Some(address) = selected {
            self.select(now, address);
        }
    }

    fn select(&mut self, now: Instant, address: SocketAddr) {
        if self.peer.is_none() {
            self.state.send_replace(ClientState::Handshaking);
        }
        self.peer = Some(address);
        self.dtls.start(now);
    }

    /// Takes what DTLS has to tell; an error ends the link.
    fn advance(&mut self, now: Instant, media: &mut impl Media) -> Option<ClientError> {
        while let Some(event) = self.dtls.poll_event() {
            match event {
                DtlsEvent::HandshakeStarted => {}
                DtlsEvent::Connected(connection) => {
                    let (receiver, srtp) = match connection.keying.contexts(self.role) {
                        Ok(contexts) => contexts,
                        Err(error) => return Some(ClientError::Crypto(error.to_string())),
                    };
                    let packet = vec![0; DATAGRAM + MAX_TRAILER].into_boxed_slice();
                    let ClientOptions { corrupt_srtp: corrupt, send_media: enabled, .. } = self.options;
                    self.keys = Some((receiver, Outgoing { srtp, corrupt, enabled, packet, queue: Vec::new() }));
                    self.overhead = connection.keying.profile().tag_len();
                    media.connected(now);
                    self.state.send_replace(ClientState::Connected(connection.keying.profile()));
                }
                DtlsEvent::Failed(failure) => return Some(ClientError::Dtls(failure)),
                DtlsEvent::PeerClosed => return Some(ClientError::ClosedByServer),
            }
        }
        None
    }

    /// Sends what waits. Media waits for room in the socket: a load test that loses its own packets measures nothing.
    ///
    /// Nothing uses `try_send_to`: a fresh socket says "not ready" until the runtime has looked at it once.
    async fn flush(&mut self) {
        for (to, datagram) in self.checks.drain(..) {
            let _ = self.socket.send_to(&datagram, to).await;
        }
        let Some(peer) = self.peer else { return };
        while let Some(datagram) = self.dtls.poll_transmit() {
            let _ = self.socket.send_to(&datagram, peer).await;
        }
        let Some((_, out)) = &mut self.keys else { return };
        for datagram in std::mem::take(&mut out.queue) {
            for _ in 0..=u8::from(self.options.repeat) {
                if !self.is_dropped(self.options.drop_outgoing) {
                    let _ = self.socket.send_to(&datagram, peer).await;
                }
            }
        }
    }

    fn is_dropped(&mut self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as f64 / (1_u64 << 53) as f64 <= share
    }
}

/// The local address for a server there.
fn local_ip(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A client's media socket. It receives in runs if the system can.
pub(crate) fn open_socket(ip: IpAddr) -> std::io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    // The system may grant less.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // A system that lacks either only costs more CPU and tells less.
    let _ = set_run_receiving(&socket, true);
    let _ = count_overflows(&socket);
    UdpSocket::from_std(socket.into())
}
