//! A shard: one thread, one socket, and every session whose candidate names that socket.
//!
//! The way of a packet, top to bottom: [`Shard::receive`] drains the socket, [`Shard::on_datagram`] tells protocols apart,
//! [`Shard::on_rtp`] decrypts and hands to the publisher's ingest, [`Shard::fan_out`] copies, rewrites and protects for every
//! viewer, and one send takes the whole batch away. It takes no lock and logs nothing.

#![deny(clippy::disallowed_types)]

mod checks;
mod connect;
mod fan_out;
mod formats;
mod ice_restart;
mod mailbox;
mod messages;
mod receive_errors;
mod restart;
mod sessions;
#[cfg(feature = "fuzzing")]
pub(crate) mod simulation;
mod stream;
mod tcp;
mod tick;
mod watched;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::WallClock;
use crate::config::CoreConfig;
use crate::demux::{PacketKind, classify};
use crate::dtls::{DtlsOutput, PoolHandle};
use crate::ecn::Ecn;
use crate::event::CoreEvent;
use crate::ice::{AgentTransmit, IceOutput};
use crate::ingest::{Accepted, Arrival};
use crate::load::{BusyMeter, Load};
use crate::media::{MediaKind, Role};
use crate::net::{MediaSocket, Outbound, Poller, ReceiveBatch, TcpConnections, TransportTuple};
use crate::pulse::{BEAT, Pulse};
use crate::session::{RtcpContext, Secure, Unprotected};
use crate::spec::{SessionId, ShardIndex};
use crate::stats::{DropReason, ShardCounters};
use crate::stream::CacheBudget;
use crate::token_bucket::TokenBucket;

use receive_errors::ReceiveErrors;
use sessions::Sessions;
use stream::Streams;
use tcp::TcpInput;
use tick::OverloadReport;

pub(crate) use mailbox::{ShardInbox, ShardMessage, ShardSender, mailbox};
pub(crate) use restart::{run, runtime};
pub(crate) use tcp::HandedOver;

/// Losses are looked for, and feedback is due, at this grain.
const TICK: Duration = Duration::from_millis(10);
/// Viewers that lag are sent their next packets at this grain.
const PACE: Duration = Duration::from_millis(5);
/// Batches from the socket before other work gets its turn.
const RECEIVE_ROUNDS: usize = 4;

/// Checks a second of all full agents of the process to addresses that were only named, and at once: those of a hundred joins a
/// second. Each shard has its share.
const NAMED_PER_SECOND: f64 = 500.0;
const NAMED_BURST: f64 = 1_000.0;

/// What a shard needs to start, and to start again.
pub(crate) struct ShardSetup {
    pub(crate) index: ShardIndex,
    pub(crate) config: Arc<CoreConfig>,
    pub(crate) wall: WallClock,
    pub(crate) socket: std::net::UdpSocket,
    /// Beside it, where peers may connect by TCP.
    pub(crate) listener: Option<std::net::TcpListener>,
    /// The mailboxes of all shards, this one included.
    pub(crate) links: Vec<ShardSender>,
    pub(crate) pool: PoolHandle,
    pub(crate) events: mpsc::UnboundedSender<CoreEvent>,
    /// What control knows of this shard's load.
    pub(crate) load: Arc<Load>,
    pub(crate) pulse: Arc<Pulse>,
    /// What it counted before.
    pub(crate) counters: ShardCounters,
}

/// The state of a shard. Everything here belongs to one thread. Twenty-two fields: each is a part with a job of its own, or a
/// channel by which the shard speaks.
pub(crate) struct Shard {
    index: ShardIndex,
    config: Arc<CoreConfig>,
    wall: WallClock,
    /// Of its socket.
    local_address: SocketAddr,
    outbound: Outbound,
    receive_errors: ReceiveErrors,
    counters: ShardCounters,
    /// Sessions that control opened and was not told the end of.
    roster: HashSet<SessionId>,
    sessions: Sessions,
    streams: Streams,
    /// The mailboxes of all shards.
    links: Vec<ShardSender>,
    handshakes: Handshakes,
    /// Bounds what full agents send to addresses that were only named.
    named_pace: TokenBucket,
    /// Where full agents of ICE send what is to leave.
    agents: mpsc::Sender<AgentTransmit>,
    events: mpsc::UnboundedSender<CoreEvent>,
    load: ShardLoad,
    pulse: Arc<Pulse>,
    /// A publisher is to be told of ECN marks, which the socket does not say yet.
    wants_ecn: bool,
    /// It was told to shut down.
    is_stopping: bool,
    next_slow_tick: Instant,
    /// The last one was held up.
    has_paused: bool,
    /// What ICE said last; empty between calls.
    ice_outputs: Vec<IceOutput>,
    /// The time of a simulation, in place of the system's.
    #[cfg(feature = "fuzzing")]
    virtual_now: Option<Instant>,
}

/// The handshake threads, and where they answer.
struct Handshakes {
    pool: PoolHandle,
    outputs: mpsc::UnboundedSender<DtlsOutput>,
}

/// How busy the shard is.
struct ShardLoad {
    shared: Arc<Load>,
    meter: BusyMeter,
    report: OverloadReport,
}

impl ShardLoad {
    fn new(shared: Arc<Load>) -> ShardLoad {
        ShardLoad { shared, meter: BusyMeter::new(Instant::now()), report: OverloadReport::default() }
    }
}

impl Shard {
    /// A shard without sessions, its socket, and what watches its TCP connections.
    fn new(
        setup: &ShardSetup,
        dtls_outputs: mpsc::UnboundedSender<DtlsOutput>,
        agents: mpsc::Sender<AgentTransmit>,
    ) -> std::io::Result<(Shard, Rc<MediaSocket>, Rc<Poller>)> {
        let socket = Rc::new(MediaSocket::register(setup.socket.try_clone()?)?);
        let poller = Rc::new(Poller::new()?);
        let listener = setup.listener.as_ref().map(std::net::TcpListener::try_clone).transpose()?;
        let tcp = TcpConnections::new(poller.clone(), listener, setup.config.tcp_connections_of_shard())?;
        let caches = CacheBudget::new(setup.config.cache_bytes / setup.config.shards.max(1));
        let share = setup.links.len().max(1) as f64;
        let shard = Shard {
            index: setup.index,
            config: setup.config.clone(),
            wall: setup.wall,
            local_address: socket.address(),
            outbound: Outbound::new(socket.clone(), tcp),
            receive_errors: ReceiveErrors::default(),
            named_pace: TokenBucket::new(NAMED_PER_SECOND / share, NAMED_BURST / share),
            counters: setup.counters.clone(),
            roster: HashSet::new(),
            sessions: Sessions::default(),
            streams: Streams::new(setup.wall, caches),
            links: setup.links.clone(),
            handshakes: Handshakes { pool: setup.pool.clone(), outputs: dtls_outputs },
            agents,
            events: setup.events.clone(),
            load: ShardLoad::new(setup.load.clone()),
            pulse: setup.pulse.clone(),
            wants_ecn: false,
            is_stopping: false,
            next_slow_tick: Instant::now(),
            has_paused: false,
            ice_outputs: Vec::new(),
            #[cfg(feature = "fuzzing")]
            virtual_now: None,
        };
        Ok((shard, socket, poller))
    }

    /// The time, for what no caller gives it to.
    fn now(&self) -> Instant {
        #[cfg(feature = "fuzzing")]
        if let Some(now) = self.virtual_now {
            return now;
        }
        Instant::now()
    }

    /// Runs until it is told to shut down.
    async fn run(
        &mut self,
        (socket, poller): (&MediaSocket, &Poller),
        inbox: &mut ShardInbox,
        dtls: &mut mpsc::UnboundedReceiver<DtlsOutput>,
        agents: &mut mpsc::Receiver<AgentTransmit>,
    ) {
        let mut received = ReceiveBatch::new();
        let mut tcp_input = TcpInput::new();
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_beat = tokio::time::interval(BEAT);
        idle_beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first time the runtime makes room for those who yield.
        tokio::task::yield_now().await;
        let mut running = true;
        while running || self.sessions.has_pending_close_notify() {
            let (mut goes_on, mut busy) = (true, false);
            tokio::select! {
                ready = socket.readable(), if self.receive_errors.pause().is_none() => {
                    // A session that control opened before its peer could know of it must be there for the first check.
                    (goes_on, busy) = self.on_messages(inbox, None);
                    if ready.is_ok() {
                        busy |= self.receive(socket, &mut received);
                    }
                }
                ready = poller.ready() => {
                    (goes_on, busy) = self.on_messages(inbox, None);
                    if ready.is_ok() {
                        busy |= self.receive_tcp(&mut tcp_input);
                    }
                }
                () = until(self.receive_errors.pause()), if self.receive_errors.pause().is_some() => {
                    self.receive_errors.resume();
                }
                Some(message) = inbox.recv() => (goes_on, busy) = self.on_messages(inbox, Some(message)),
                Some(output) = dtls.recv() => {
                    self.on_dtls(output);
                    while let Ok(output) = dtls.try_recv() {
                        self.on_dtls(output);
                    }
                }
                Some(transmit) = agents.recv() => self.on_agent_transmit(transmit),
                () = std::future::ready(()), if !self.streams.due.is_empty() => {
                    self.fan_out();
                    busy = true;
                }
                _ = pace.tick(), if !self.streams.lagging.is_empty() => self.resume(Instant::now()),
                _ = ticker.tick(), if !self.is_idle() => self.tick(Instant::now()),
                _ = idle_beat.tick(), if self.is_idle() => self.pulse.beat(),
            }
            running &= goes_on;
            self.outbound.flush();
            self.remove_connections();
            if busy {
                // Timers fire and agents run only while this task waits, which it never does if there is always work.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Waits for a moment, if there is one to wait for.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Shard {
    /// Takes what the socket has, batch by batch, and forwards each batch at once; while a fan-out pass is in progress they
    /// are only taken: checks and RTCP queue after media in the socket, which has to be emptied. True if there may be more.
    fn receive(&mut self, socket: &MediaSocket, received: &mut ReceiveBatch) -> bool {
        let in_progress = !self.streams.due.is_empty();
        if std::mem::take(&mut self.wants_ecn) {
            self.receive_ecn(socket);
        }
        for _ in 0..RECEIVE_ROUNDS {
            let count = match socket.receive(received) {
                Ok(count) => count,
                Err(error) => {
                    self.on_receive_error(&error);
                    return false;
                }
            };
            self.receive_errors.clear();
            self.counters.receive_calls += 1;
            self.counters.datagrams_received += count as u64;
            let now = Instant::now();
            for datagram in received.iter_mut() {
                self.counters.bytes_received += datagram.data.len() as u64;
                if let Err(reason) = self.on_datagram(now, (datagram.tuple, datagram.ecn), datagram.data) {
                    self.on_dropped(datagram.tuple, reason, datagram.data, datagram.length);
                }
            }
            if in_progress {
                continue;
            }
            self.fan_out();
            if !self.streams.due.is_empty() {
                break;
            }
        }
        true
    }

    /// From now on the socket says how datagrams were marked; until a publisher is told, none pays for that.
    #[cold]
    fn receive_ecn(&mut self, socket: &MediaSocket) {
        if let Err(error) = socket.receive_ecn() {
            tracing::warn!(shard = self.index, %error, "the media socket does not say how datagrams were marked (ECN)");
        }
    }

    /// The socket has nothing, or cannot be read.
    fn on_receive_error(&mut self, error: &std::io::Error) {
        if receive_errors::is_passing(error) {
            return;
        }
        self.counters.receive_errors += 1;
        if self.receive_errors.note(Instant::now()) {
            tracing::error!(shard = self.index, %error, "the media socket cannot be read; it is tried again up to every 100 ms");
        }
    }

    /// Counts a datagram that was dropped, and notes it for the ledger of the session that it came from.
    #[cold]
    fn on_dropped(&mut self, tuple: TransportTuple, reason: DropReason, datagram: &[u8], length: usize) {
        self.counters.drop(reason);
        if let Ok(key) = self.sessions.at(tuple) {
            self.sessions.slab[key].on_dropped(reason, datagram, length);
        }
    }

    fn on_datagram(
        &mut self,
        now: Instant,
        (tuple, ecn): (TransportTuple, Ecn),
        data: &mut [u8],
    ) -> Result<(), DropReason> {
        match classify(data)? {
            PacketKind::Stun => self.on_stun(now, tuple, data),
            PacketKind::Dtls => {
                let key = self.sessions.at(tuple)?;
                let session = &mut self.sessions.slab[key];
                session.inbound.dtls_received = session.inbound.dtls_received.saturating_add(1);
                if !session.inbound.dtls_limit.take(now) {
                    return Err(DropReason::DtlsRate);
                }
                let source = session.connectivity.dtls_source(tuple.remote, data.len());
                self.handshakes.pool.datagram(session.id, source, data).map_err(|_| DropReason::HandshakeBacklog)
            }
            PacketKind::Rtp => self.on_rtp(now, (tuple, ecn), data),
            PacketKind::Rtcp => self.on_rtcp(now, tuple, data),
        }
    }

    /// Decrypts a publisher's packet and hands it to its ingest.
    fn on_rtp(&mut self, now: Instant, (tuple, ecn): (TransportTuple, Ecn), data: &mut [u8]) -> Result<(), DropReason> {
        let Ok(key) = self.sessions.at(tuple) else { return Err(self.on_stray(now, tuple, data, Secure::Rtp)) };
        let datagram = data.len();
        let unprotected = self.sessions.slab[key].unprotect(now, (tuple, ecn), data, Secure::Rtp)?;
        let Some(Unprotected { length, is_proven }) = unprotected else { return Ok(()) };
        if !is_proven {
            self.on_media_elsewhere(now, key, tuple, datagram);
        }
        let session = &mut self.sessions.slab[key];
        session.stats.rtp_received += 1;
        session.stats.rtp_received_bytes += length as u64;
        self.counters.rtp_received += 1;
        if !session.inbound.budgets.take_media(now, length) {
            return Err(DropReason::MediaRate);
        }
        let tracks = &mut self.streams.slab[session.stream].tracks;
        let Some(ingest) = session.ingest_mut() else { return Err(DropReason::UnknownRtpStream) };
        let mut is_keyframe = false;
        match ingest.on_rtp(&Arrival { now, unix: self.wall.unix(now), ecn }, &data[..length], tracks)? {
            Accepted::Forward { track, encoding, keyframe, decodable, .. } => {
                is_keyframe = keyframe && track.kind == MediaKind::Video;
                if is_keyframe {
                    session.stats.keyframes += 1;
                    if let Some(encoding) = tracks.encoding_mut(track, encoding) {
                        encoding.keyframe_requests.on_keyframe();
                    }
                }
                session.lifecycle.on_media(now, track, decodable);
                self.streams.enqueue(now, session.stream);
            }
            Accepted::AwaitingKeyframe { track, encoding } => {
                session.lifecycle.on_media(now, track, false);
                if let Some(track) = tracks.get_mut(track) {
                    track.lacks_keyframe(encoding);
                }
            }
            Accepted::Consumed => {}
        }
        if session.lifecycle.has_events() {
            self.publish_events(key);
        }
        if is_keyframe {
            // Viewers are to know what it is before they are sent it.
            self.take_format_changes(now, key);
        }
        Ok(())
    }

    /// Decrypts RTCP and acts on it.
    fn on_rtcp(&mut self, now: Instant, tuple: TransportTuple, data: &mut [u8]) -> Result<(), DropReason> {
        let Ok(key) = self.sessions.at(tuple) else { return Err(self.on_stray(now, tuple, data, Secure::Rtcp)) };
        let datagram = data.len();
        let unprotected = self.sessions.slab[key].unprotect(now, (tuple, Ecn::NotEct), data, Secure::Rtcp)?;
        let Some(Unprotected { length, is_proven }) = unprotected else { return Ok(()) };
        if !is_proven {
            self.on_media_elsewhere(now, key, tuple, datagram);
        }
        let session = &mut self.sessions.slab[key];
        let is_selected = session.selected.is_some_and(|selected| selected.remote == tuple.remote);
        if !is_proven && !is_selected && session.role == Role::Viewer {
            // What it asks for would go to the address that it has left, and count as sent again.
            return Ok(());
        }
        let stream = session.stream;
        let mut context = RtcpContext {
            now,
            unix: self.wall.unix(now),
            tracks: &self.streams.slab[stream].tracks,
            out: &mut self.outbound,
            counters: &mut self.counters,
        };
        let (result, needed) = session.on_rtcp(&data[..length], &mut context);
        self.publish_events(key);
        if needed.restarted {
            self.streams.enqueue(now, stream);
        }
        for encoding in needed.encodings {
            self.request_keyframe(now, stream, encoding);
        }
        result
    }
}
