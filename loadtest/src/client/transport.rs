//! One client's transport: a socket of its own, ICE, DTLS and SRTP, and media on top.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{DtlsEndpoint, DtlsEvent};
use media_core::internals::net::{RunBatch, set_run_receiving};
use media_core::internals::srtp::{KeyingMaterial, MAX_TRAILER};
use media_core::ledger::Stage;
use media_core::{CandidateKind, DtlsParameters, DtlsRole, IceCredentials, RemoteCandidate};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};

use super::error::{ClientError, ClientState};
use super::framed::FramedSocket;
use super::ice::{Ice, IcePeers};
use super::identity::Identity;
use super::inbound::{Keys, MAX_PACKET, MediaHandler, PacketSender, RandomLoss, SharedInbound, lock};
use super::options::ClientOptions;
use super::reception::{DatagramSink, Moment, Reception};
use super::signaling::RestartedIce;
use super::socket::{local_ip, open_socket};
use super::wire::Wire;
use crate::sdp::Answer;

/// Calls of the system before timers get their turn.
const BATCH: usize = 16;

thread_local! {
    /// Shared by the clients of a thread, which receive by turns.
    static RECEIVED: RefCell<RunBatch> = RefCell::default();
}

/// The parts from which a transport starts.
pub(super) struct TransportStart {
    pub(super) options: ClientOptions,
    pub(super) identity: Identity,
    pub(super) local: IceCredentials,
    pub(super) answer: Answer,
    pub(super) begun: Instant,
    /// Each notification moves the transport to a fresh socket.
    pub(super) moves: Arc<Notify>,
    pub(super) restarts: mpsc::UnboundedReceiver<IceRestart>,
}

/// An ICE restart that the server has answered.
pub(super) struct IceRestart {
    pub(super) local: IceCredentials,
    pub(super) remote: RestartedIce,
    /// It goes on from a fresh socket.
    pub(super) has_moved: bool,
}

pub(super) struct ClientTransport<M> {
    wire: Wire,
    /// Its preferred candidate.
    server: SocketAddr,
    inbound: SharedInbound<M>,
    options: ClientOptions,
    ice: Ice,
    local_ip: IpAddr,
    moves: Arc<Notify>,
    restarts: mpsc::UnboundedReceiver<IceRestart>,
    local_address: SocketAddr,
    dtls: DtlsEndpoint,
    role: DtlsRole,
    connected: bool,
    peer: Option<SocketAddr>,
    give_up: Instant,
    loss: RandomLoss,
    state: watch::Sender<ClientState>,
}

impl<M: MediaHandler> ClientTransport<M> {
    /// Opens the socket and starts ICE. Must be called inside a tokio runtime.
    pub(super) fn start(
        start: TransportStart,
        inbound: SharedInbound<M>,
        state: watch::Sender<ClientState>,
    ) -> Result<ClientTransport<M>, ClientError> {
        let TransportStart { options, identity, local, mut answer, begun, moves, restarts } = start;
        let failed = |error: io::Error| ClientError::Socket(error.to_string());
        if options.ice_tcp {
            answer.candidates = answer.passive.first().copied().into_iter().map(connected_candidate).collect();
        }
        let server = answer.candidates.first().map(|candidate| candidate.address);
        let server = server.ok_or_else(|| ClientError::Answer("the answer has no usable candidate".into()))?;
        let bind = options.bind.unwrap_or_else(|| local_ip(server.ip()));
        let (wire, local_address) = open_wire(&options, bind, server).map_err(failed)?;
        let role = if answer.active { DtlsRole::Server } else { DtlsRole::Client };
        let parameters = DtlsParameters { role, fingerprints: answer.fingerprints };
        let dtls =
            DtlsEndpoint::new(&identity.context, parameters).map_err(|error| ClientError::Crypto(error.to_string()))?;
        let peers = IcePeers { local, local_address, remote: answer.ice, candidates: answer.candidates };
        let mut ice = Ice::new(peers, options.send_checks && !options.bare_checks);
        if options.send_checks && options.bare_checks {
            ice.start_bare_checks(begun);
        }
        let seed = local_address.port();
        lock(&inbound).loss = RandomLoss::new(options.drop_incoming, seed);
        Ok(ClientTransport {
            wire,
            server,
            inbound,
            ice,
            local_ip: bind,
            moves,
            restarts,
            local_address,
            dtls,
            role,
            connected: false,
            peer: None,
            give_up: begun + options.connect_timeout,
            loss: RandomLoss::new(options.drop_outgoing, !seed),
            options,
            state,
        })
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
                () = self.ice.agent_transmits() => {}
                ready = self.wire.ready() => {
                    if let Err(error) = ready {
                        break ClientError::Socket(error.to_string());
                    }
                    if let Err(error) = RECEIVED.with_borrow_mut(|batch| self.receive(batch)) {
                        break ClientError::Socket(error.to_string());
                    }
                }
                Some(restart) = self.restarts.recv() => {
                    if let Err(error) = self.restart_ice(restart) {
                        break ClientError::Socket(error.to_string());
                    }
                }
                () = self.moves.notified() => {
                    if let Err(error) = self.relocate() {
                        break ClientError::Socket(error.to_string());
                    }
                }
                () = timer.as_mut() => {}
            }
            if let Err(error) = self.advance(Instant::now()) {
                break error;
            }
            self.flush().await;
        };
        self.dtls.close();
        self.flush().await;
        self.state.send_replace(ClientState::Ended(error));
    }

    /// Handles what was received or is due; an error ends the transport.
    fn advance(&mut self, now: Instant) -> Result<(), ClientError> {
        self.take_aside(now);
        self.ice.poll(now)?;
        self.dtls.handle_timeout(now);
        while let Some(event) = self.dtls.poll_event() {
            match event {
                DtlsEvent::HandshakeStarted | DtlsEvent::AddressProven(_) | DtlsEvent::ApplicationData(_) => {}
                DtlsEvent::Connected(connection) => self.on_connected(now, &connection.keying)?,
                DtlsEvent::Failed(failure) => return Err(ClientError::Dtls(failure)),
                DtlsEvent::PeerClosed => return Err(ClientError::ClosedByServer),
            }
        }
        if !self.connected && now >= self.give_up {
            let stage = if self.peer.is_some() { Stage::Dtls } else { Stage::Ice };
            return Err(ClientError::Timeout(self.options.connect_timeout, stage));
        }
        self.tick(now);
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let phase = if self.connected { lock(&self.inbound).media.deadline() } else { self.give_up };
        [self.dtls.poll_timeout(), self.ice.deadline()].into_iter().flatten().fold(phase, Instant::min)
    }

    fn tick(&self, now: Instant) {
        let mut inbound = lock(&self.inbound);
        let inbound = &mut *inbound;
        if let Some(keys) = &mut inbound.keys
            && now >= inbound.media.deadline()
        {
            inbound.media.tick(now, &mut keys.out);
        }
    }

    /// Goes on with new ICE credentials at both ends.
    fn restart_ice(&mut self, restart: IceRestart) -> io::Result<()> {
        let IceRestart { local, remote: RestartedIce { credentials: remote, candidates }, has_moved } = restart;
        if has_moved {
            self.renew_wire()?;
        }
        let candidates = if self.options.ice_tcp { vec![connected_candidate(self.server)] } else { candidates };
        let peers = IcePeers { local, local_address: self.local_address, remote, candidates };
        self.ice.restart(Instant::now(), peers, has_moved);
        Ok(())
    }

    fn renew_wire(&mut self) -> io::Result<()> {
        (self.wire, self.local_address) = open_wire(&self.options, self.local_ip, self.server)?;
        self.lend()
    }

    /// Goes on from a fresh socket.
    fn relocate(&mut self) -> io::Result<()> {
        self.renew_wire()?;
        self.ice.start_bare_checks(Instant::now());
        Ok(())
    }

    /// Lets the thread that receives for many do so, if there is one and there is media.
    fn lend(&mut self) -> io::Result<()> {
        let (Some(reception), Wire::Own(socket), true) = (&self.options.reception, &self.wire, self.connected) else {
            return Ok(());
        };
        // The runtime deregisters the first descriptor when it is closed.
        let socket = socket.as_fd().try_clone_to_owned()?.into();
        self.wire = Wire::Lent(Reception::lend(reception, socket, self.inbound.clone(), Arc::default())?);
        Ok(())
    }

    fn receive(&mut self, batch: &mut RunBatch) -> io::Result<()> {
        let socket = match &mut self.wire {
            Wire::Own(socket) => socket,
            Wire::Framed(socket) => {
                let (now, mut inbound) = (Instant::now(), lock(&self.inbound));
                let result = socket.receive(BATCH, |remote, packet| inbound.take_datagram(now, remote, packet));
                inbound.media.end_of_batch();
                return result;
            }
            Wire::Lent(_) => return Ok(()),
        };
        for _ in 0..BATCH {
            let mut received = Ok(false);
            // A batch with room left has emptied the socket: said to the runtime, it saves the call that would find so.
            let emptied = socket.try_io(Interest::READABLE, || {
                received = batch.receive(socket);
                if let Ok(true) = received { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            if received.is_err() {
                break;
            }
            lock(&self.inbound).take_batch(Moment::read(), batch);
            if emptied.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes what is not media of the known peer.
    fn take_aside(&mut self, now: Instant) {
        let aside = lock(&self.inbound).take_aside();
        for (source, mut datagram) in aside {
            let Ok(kind) = classify(&datagram) else { continue };
            if kind == PacketKind::Stun {
                if let Some(address) = self.ice.handle(now, source, &datagram) {
                    self.select(now, address);
                }
                continue;
            }
            let validated = self.peer == Some(source) || self.ice.is_validated(source);
            match kind {
                _ if !validated => {}
                PacketKind::Dtls => self.dtls.handle_datagram(now, &datagram),
                kind => lock(&self.inbound).take_media(now, kind, &mut datagram),
            }
        }
    }

    fn select(&mut self, now: Instant, address: SocketAddr) {
        if self.peer.is_none() {
            self.state.send_replace(ClientState::Handshaking);
        }
        self.peer = Some(address);
        lock(&self.inbound).peer = Some(address);
        self.dtls.start(now);
    }

    /// The handshake is done: keys for media, and from then on the reception thread reads.
    fn on_connected(&mut self, now: Instant, keying: &KeyingMaterial) -> Result<(), ClientError> {
        let contexts = keying.contexts(self.role);
        let (receiver, srtp) = contexts.map_err(|error| ClientError::Crypto(error.to_string()))?;
        let packet = vec![0; MAX_PACKET + MAX_TRAILER].into_boxed_slice();
        let ClientOptions { corrupt_srtp: corrupt, send_media: enabled, .. } = self.options;
        let out = PacketSender { srtp, corrupt, enabled, packet, queue: Vec::new() };
        let overhead = keying.profile().tag_len();
        lock(&self.inbound).take_keys(now, Keys { receiver, overhead, out });
        self.connected = true;
        self.lend().map_err(|error| ClientError::Socket(error.to_string()))?;
        self.state.send_replace(ClientState::Connected(keying.profile()));
        Ok(())
    }

    /// Sends what waits.
    async fn flush(&mut self) {
        for (to, datagram) in self.ice.take_pending() {
            self.wire.send(&datagram, to).await;
        }
        let Some(peer) = self.peer else { return };
        while let Some(datagram) = self.dtls.poll_transmit() {
            self.wire.send(&datagram, peer).await;
        }
        let queue = lock(&self.inbound).keys.as_mut().map(|keys| std::mem::take(&mut keys.out.queue));
        for datagram in queue.into_iter().flatten() {
            for _ in 0..=u8::from(self.options.repeat) {
                if !self.loss.drops() {
                    self.wire.send(&datagram, peer).await;
                }
            }
        }
    }
}

/// A socket for a client, and its address: by TCP it begins to connect.
fn open_wire(options: &ClientOptions, ip: IpAddr, server: SocketAddr) -> io::Result<(Wire, SocketAddr)> {
    if options.ice_tcp {
        let socket = FramedSocket::connect(server)?;
        let address = socket.local_addr()?;
        return Ok((Wire::Framed(socket), address));
    }
    let socket = UdpSocket::from_std(open_socket(ip)?)?;
    if !options.receive_runs {
        let _ = set_run_receiving(&socket, false);
    }
    let address = socket.local_addr()?;
    Ok((Wire::Own(socket), address))
}

/// What the agent is to send its checks to, which leave by the connection.
fn connected_candidate(address: SocketAddr) -> RemoteCandidate {
    RemoteCandidate { address, priority: 1, foundation: "1".into(), kind: CandidateKind::Host }
}
