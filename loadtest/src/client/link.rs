//! One client's transport: a socket of its own, the full ICE agent, DTLS and SRTP, and media on top.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::demux::{PacketKind, classify};
use media_core::dtls::{DtlsEndpoint, DtlsEvent};
use media_core::ice::{AgentOptions, AgentRole, AgentStart, AgentTransmit, FullAgent, IceOutput};
use media_core::ledger::Stage;
use media_core::net::{RunBatch, count_overflows, set_run_receiving, stamp_arrivals};
use media_core::session::{DtlsParameters, DtlsRole, IceCredentials, SessionId};
use media_core::srtp::MAX_TRAILER;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};

use super::check::BareChecks;
use super::flow::{DATAGRAM, Dice, Keys, Media, Outgoing, SharedFlow, lock};
use super::reception::{Inflow, Lent, Moment, Reception};
use super::{ClientError, ClientOptions, ClientState, Identity};
use crate::sdp::Answer;

/// Room for what the server sends while this task waits for its turn.
const SOCKET_BUFFER: usize = 2 << 20;
/// Calls of the system before timers get their turn.
const BATCH: usize = 16;
/// How often checks are repeated: a client in a hurry, since its connect time is measured.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

thread_local! {
    /// Shared by the clients of a thread, which receive by turns.
    static RECEIVED: RefCell<RunBatch> = RefCell::default();
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

/// Who reads the socket.
enum Wire {
    /// The link's own task.
    Own(UdpSocket),
    /// A thread that does so for many.
    Lent(Lent),
}

impl Wire {
    /// Waits until there is something to do.
    async fn ready(&self) -> io::Result<()> {
        match self {
            Wire::Own(socket) => socket.readable().await,
            Wire::Lent(lent) => {
                lent.notified().await;
                Ok(())
            }
        }
    }

    /// A datagram waits for room in an own socket: a load test that loses its own packets measures nothing. A viewer,
    /// whose socket is lent, sends some a second, for which there is always room.
    ///
    /// Nothing uses `try_send_to`: a fresh socket says "not ready" until the runtime has looked at it once.
    async fn send(&self, datagram: &[u8], to: SocketAddr) {
        // What cannot be sent is lost, as on any network.
        let _ = match self {
            Wire::Own(socket) => socket.send_to(datagram, to).await,
            Wire::Lent(lent) => lent.socket().send_to(datagram, to),
        };
    }
}

pub(super) struct Link<M> {
    wire: Wire,
    flow: SharedFlow<M>,
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
    connected: bool,
    peer: Option<SocketAddr>,
    give_up: Instant,
    dice: Dice,
    state: watch::Sender<ClientState>,
}

impl<M: Media> Link<M> {
    /// Opens the socket and starts ICE. Must be called inside a tokio runtime.
    pub(super) fn start(
        start: LinkStart,
        flow: SharedFlow<M>,
        state: watch::Sender<ClientState>,
    ) -> Result<Link<M>, ClientError> {
        let LinkStart { options, identity, local, answer, begun, moves } = start;
        let bind = options.bind.or_else(|| answer.candidates.first().map(|candidate| local_ip(candidate.address.ip())));
        let bind = bind.ok_or_else(|| ClientError::Answer("the answer has no usable candidate".into()))?;
        let socket =
            open_socket(bind).and_then(UdpSocket::from_std).map_err(|error| ClientError::Socket(error.to_string()))?;
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
        let seed = local_address.port();
        lock(&flow).dice = Dice::new(options.drop_incoming, seed);
        let mut link = Link {
            wire: Wire::Own(socket),
            flow,
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
            connected: false,
            peer: None,
            give_up: begun + options.connect_timeout,
            dice: Dice::new(options.drop_outgoing, !seed),
            options,
            state,
        };
        if link.options.send_checks && link.options.bare_checks {
            link.check_barely(begun);
        }
        Ok(link)
    }

    /// Runs until `stop` is set or the connection ends, then says close_notify.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.give_up.into()));
        let error = loop {
            // The deadline seldom moves, and a timer that stays costs nothing.
            let deadline = self.deadline().into();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break ClientError::Stopped,
                Some(transmit) = self.agent_out.recv() => {
                    self.checks.push((transmit.to, transmit.datagram));
                }
                ready = self.wire.ready() => {
                    if let Err(error) = ready {
                        break ClientError::Socket(error.to_string());
                    }
                    RECEIVED.with_borrow_mut(|batch| self.receive(batch));
                }
                () = self.moves.notified() => {
                    if let Err(error) = self.relocate() {
                        break ClientError::Socket(error.to_string());
                    }
                }
                () = timer.as_mut() => {}
            }
            let now = Instant::now();
            self.take_aside(now);
            if let Some(checks) = &mut self.bare {
                match checks.poll(now) {
                    Ok(check) => self.checks.extend(check.map(|check| (checks.to, check))),
                    Err(error) => break error,
                }
            }
            self.dtls.handle_timeout(now);
            if let Some(error) = self.advance(now) {
                break error;
            }
            if !self.connected && now >= self.give_up {
                let stage = if self.peer.is_some() { Stage::Dtls } else { Stage::Ice };
                break ClientError::Timeout(self.options.connect_timeout, stage);
            }
            self.tick(now);
            self.flush().await;
        };
        self.dtls.close();
        self.flush().await;
        self.state.send_replace(ClientState::Ended(error));
    }

    fn deadline(&self) -> Instant {
        let phase = if self.connected { lock(&self.flow).media.deadline() } else { self.give_up };
        let check = self.bare.as_ref().map(|checks| checks.next);
        [self.dtls.poll_timeout(), check].into_iter().flatten().fold(phase, Instant::min)
    }

    fn tick(&self, now: Instant) {
        let mut flow = lock(&self.flow);
        let flow = &mut *flow;
        if let Some(keys) = &mut flow.keys
            && now >= flow.media.deadline()
        {
            flow.media.tick(now, &mut keys.out);
        }
    }

    /// Nominates the present socket by checks of our own.
    fn check_barely(&mut self, now: Instant) {
        let (local, remote) = self.credentials.clone();
        self.bare = self.server.map(|server| BareChecks::new(now, server, local, remote));
    }

    /// Goes on from a fresh socket.
    fn relocate(&mut self) -> io::Result<()> {
        self.wire = Wire::Own(UdpSocket::from_std(open_socket(self.local_ip)?)?);
        self.lend()?;
        self.check_barely(Instant::now());
        Ok(())
    }

    /// Lets the thread that receives for many do so, if there is one and there is media.
    fn lend(&mut self) -> io::Result<()> {
        let (Some(reception), Wire::Own(socket), true) = (&self.options.reception, &self.wire, self.connected) else {
            return Ok(());
        };
        // The runtime lets go of the first descriptor when it is closed.
        let socket = socket.as_fd().try_clone_to_owned()?.into();
        self.wire = Wire::Lent(Reception::lend(reception, socket, self.flow.clone(), Arc::default())?);
        Ok(())
    }

    fn receive(&mut self, batch: &mut RunBatch) {
        let Wire::Own(socket) = &self.wire else { return };
        for _ in 0..BATCH {
            let mut received = Ok(false);
            // A batch with room left has emptied the socket: said to the runtime, it saves the call that would find so.
            let emptied = socket.try_io(Interest::READABLE, || {
                received = batch.receive(socket);
                if let Ok(true) = received { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            if received.is_err() {
                return;
            }
            lock(&self.flow).arrived(Moment::read(), batch);
            if emptied.is_err() {
                return;
            }
        }
    }

    /// Takes what is not media of the known peer.
    fn take_aside(&mut self, now: Instant) {
        let aside = lock(&self.flow).take_aside();
        for (source, mut datagram) in aside {
            let Ok(kind) = classify(&datagram) else { continue };
            if kind == PacketKind::Stun {
                self.stun(now, source, &datagram);
                continue;
            }
            let validated = self.peer == Some(source)
                || self.agent.as_ref().is_some_and(|agent| agent.validated().any(|address| address == source));
            match kind {
                _ if !validated => {}
                PacketKind::Dtls => self.dtls.handle_datagram(now, &datagram),
                kind => lock(&self.flow).take_media(now, kind, &mut datagram),
            }
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
        lock(&self.flow).peer = Some(address);
        self.dtls.start(now);
    }

    /// Takes what DTLS has to tell; an error ends the link.
    fn advance(&mut self, now: Instant) -> Option<ClientError> {
        while let Some(event) = self.dtls.poll_event() {
            match event {
                DtlsEvent::HandshakeStarted | DtlsEvent::ApplicationData(_) => {}
                DtlsEvent::Connected(connection) => {
                    let (receiver, srtp) = match connection.keying.contexts(self.role) {
                        Ok(contexts) => contexts,
                        Err(error) => return Some(ClientError::Crypto(error.to_string())),
                    };
                    let packet = vec![0; DATAGRAM + MAX_TRAILER].into_boxed_slice();
                    let ClientOptions { corrupt_srtp: corrupt, send_media: enabled, .. } = self.options;
                    let out = Outgoing { srtp, corrupt, enabled, packet, queue: Vec::new() };
                    let overhead = connection.keying.profile().tag_len();
                    lock(&self.flow).take_keys(now, Keys { receiver, overhead, out });
                    self.connected = true;
                    if let Err(error) = self.lend() {
                        return Some(ClientError::Socket(error.to_string()));
                    }
                    self.state.send_replace(ClientState::Connected(connection.keying.profile()));
                }
                DtlsEvent::Failed(failure) => return Some(ClientError::Dtls(failure)),
                DtlsEvent::PeerClosed => return Some(ClientError::ClosedByServer),
            }
        }
        None
    }

    /// Sends what waits.
    async fn flush(&mut self) {
        for (to, datagram) in self.checks.drain(..) {
            self.wire.send(&datagram, to).await;
        }
        let Some(peer) = self.peer else { return };
        while let Some(datagram) = self.dtls.poll_transmit() {
            self.wire.send(&datagram, peer).await;
        }
        let queue = lock(&self.flow).keys.as_mut().map(|keys| std::mem::take(&mut keys.out.queue));
        for datagram in queue.into_iter().flatten() {
            for _ in 0..=u8::from(self.options.repeat) {
                if !self.dice.drops() {
                    self.wire.send(&datagram, peer).await;
                }
            }
        }
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
pub(crate) fn open_socket(ip: IpAddr) -> io::Result<std::net::UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    // The system may grant less.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // A system that lacks one of them only costs more CPU and tells less.
    let _ = set_run_receiving(&socket, true);
    let _ = count_overflows(&socket);
    let _ = stamp_arrivals(&socket);
    Ok(socket.into())
}
