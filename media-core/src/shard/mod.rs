//! A shard: one thread, one socket, and every session whose candidate names that socket.
//!
//! The way of a packet, top to bottom: [`Shard::receive`] drains the socket, [`Shard::on_datagram`] tells protocols
//! apart, [`Shard::on_rtp`] decrypts and hands to the publication, [`Shard::fan_out`] copies, rewrites and protects for
//! every viewer, and one send takes the whole batch away. It takes no lock and logs nothing.

mod control;
mod feedback;
mod session;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::demux::{PacketKind, classify};
use crate::dtls::{DtlsOutput, PoolHandle};
use crate::ice::{self, AgentTransmit, IceOutput};
use crate::load::{BusyMeter, Load};
use crate::media::{MediaKind, Role};
use crate::net::{MediaSocket, ReceiveBatch, SendBatch, TransportTuple};
use crate::publication::Accepted;
use crate::publication::clock::WallClock;
use crate::router::{Feeds, ShardInbox, ShardMessage, ShardSender, Stream};
use crate::session::{CoreConfig, CoreEvent, SessionId, ShardIndex, StreamId};
use crate::srtp::SrtpError;
use crate::stats::{DropReason, ShardCounters};
use crate::subscription::Round;

use session::Session;

/// Losses are looked for, and feedback is due, at this grain.
const TICK: Duration = Duration::from_millis(10);
/// Timeouts and reports are looked at at this grain.
const SLOW_TICK: Duration = Duration::from_millis(100);
/// Batches from the socket before other work gets its turn.
const RECEIVE_ROUNDS: usize = 4;
/// Packets to viewers before the socket gets its turn: some 4 ms of work.
const SLICE: u64 = 1024;
/// Viewers that are served by and by get their next packets at this grain.
const PACE: Duration = Duration::from_millis(5);
/// Messages before the socket gets its turn.
const MESSAGE_ROUNDS: usize = 256;

/// Streams for which lists have room from the start.
const ROOM: usize = 64;

type Map<K, V> = HashMap<K, V, RandomState>;

/// What a shard needs to start.
pub(crate) struct ShardSetup {
    pub(crate) index: ShardIndex,
    pub(crate) config: Arc<CoreConfig>,
    pub(crate) socket: std::net::UdpSocket,
    pub(crate) inbox: ShardInbox,
    /// The ways to all shards, this one included.
    pub(crate) shards: Vec<ShardSender>,
    pub(crate) pool: PoolHandle,
    pub(crate) events: mpsc::UnboundedSender<CoreEvent>,
    /// What control knows of this shard's load.
    pub(crate) load: Arc<Load>,
}

/// The state of a shard. Everything here belongs to one thread.
pub(crate) struct Shard {
    index: ShardIndex,
    config: Arc<CoreConfig>,
    wall: WallClock,
    socket: MediaSocket,
    outbox: SendBatch,
    counters: ShardCounters,
    sessions: Slab<Session>,
    streams: Slab<Stream>,
    by_id: Map<SessionId, usize>,
    by_ufrag: Map<String, usize>,
    by_address: Map<SocketAddr, usize>,
    by_stream: Map<StreamId, usize>,
    /// Transactions of full agents: whose response it will be, and until when it is awaited.
    transactions: Map<[u8; 12], (usize, Instant)>,
    /// Ended sessions whose close_notify is still to be sent.
    farewells: Map<SessionId, (TransportTuple, Instant)>,
    /// Streams whose publisher is connected here.
    publishing: Vec<usize>,
    /// Streams whose viewers have packets to get, the first one's perhaps half done.
    due: VecDeque<usize>,
    /// Streams with viewers whose next packets are not due yet.
    behind: Vec<usize>,
    feeds: Feeds,
    /// Streams of other shards of which a keyframe is wanted; told once a tick, however many viewers want it.
    wishes: Vec<StreamId>,
    ice_outputs: Vec<IceOutput>,
    /// Keys of the sessions whose time passes; empty between ticks.
    ticking: Vec<usize>,
    shards: Vec<ShardSender>,
    pool: PoolHandle,
    dtls_outputs: mpsc::UnboundedSender<DtlsOutput>,
    agent_outputs: mpsc::Sender<AgentTransmit>,
    events: mpsc::UnboundedSender<CoreEvent>,
    load: Arc<Load>,
    meter: BusyMeter,
    next_slow_tick: Instant,
    /// When the log was told of shed packets, and how many there were by then.
    shed_reported: (Option<Instant>, u64),
}

/// Runs a shard until it is told to shut down.
pub(crate) async fn run(setup: ShardSetup) -> std::io::Result<()> {
    let socket = MediaSocket::register(setup.socket)?;
    let (dtls_outputs, mut dtls) = mpsc::unbounded_channel();
    let (agent_outputs, mut agents) = mpsc::channel(1024);
    let mut inbox = setup.inbox;
    let mut shard = Shard {
        index: setup.index,
        config: setup.config,
        wall: WallClock::now(),
        outbox: SendBatch::new(socket.is_ipv6()),
        socket,
        counters: ShardCounters::default(),
        sessions: Slab::new(),
        streams: Slab::new(),
        by_id: Map::default(),
        by_ufrag: Map::default(),
        by_address: Map::default(),
        by_stream: Map::default(),
        transactions: Map::default(),
        farewells: Map::default(),
        publishing: Vec::new(),
        due: VecDeque::with_capacity(ROOM),
        behind: Vec::with_capacity(ROOM),
        feeds: Feeds::default(),
        wishes: Vec::new(),
        ice_outputs: Vec::new(),
        ticking: Vec::new(),
        shards: setup.shards,
        pool: setup.pool,
        dtls_outputs,
        agent_outputs,
        events: setup.events,
        load: setup.load,
        meter: BusyMeter::new(Instant::now()),
        next_slow_tick: Instant::now(),
        shed_reported: (None, 0),
    };
    let mut received = ReceiveBatch::new();
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first time the runtime makes room for those who yield.
    tokio::task::yield_now().await;
    let mut running = true;
    while running || !shard.farewells.is_empty() {
        let (mut goes_on, mut busy) = (true, false);
        tokio::select! {
            ready = shard.socket.readable() => {
                // A session that control opened before its peer could know of it must be there for the first check.
                (goes_on, busy) = shard.on_messages(&mut inbox, None);
                if ready.is_ok() {
                    busy |= shard.receive(&mut received);
                }
            }
            Some(message) = inbox.recv() => (goes_on, busy) = shard.on_messages(&mut inbox, Some(message)),
            Some(output) = dtls.recv() => {
                shard.on_dtls(output);
                while let Ok(output) = dtls.try_recv() {
                    shard.on_dtls(output);
                }
            }
            Some(transmit) = agents.recv() => shard.on_agent_transmit(transmit),
            () = std::future::ready(()), if !shard.due.is_empty() => {
                shard.fan_out();
                busy = true;
            }
            _ = pace.tick(), if !shard.behind.is_empty() => shard.resume(Instant::now()),
            _ = ticker.tick(), if !shard.is_idle() => shard.tick(Instant::now()),
        }
        running &= goes_on;
        shard.flush();
        if busy {
            // Timers fire and agents run only while this task waits, which it never does if there is always work.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

impl Shard {
    /// True if no timer can have anything to do.
    fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.farewells.is_empty()
    }

    /// Takes messages, `first` and those that wait. Returns whether the shard goes on, and whether there may be more.
    fn on_messages(&mut self, inbox: &mut ShardInbox, first: Option<ShardMessage>) -> (bool, bool) {
        let mut goes_on = true;
        let mut next = first;
        for _ in 0..MESSAGE_ROUNDS {
            let Some(message) = next.take().or_else(|| inbox.try_recv()) else { return (goes_on, false) };
            goes_on &= self.on_message(message);
        }
        (goes_on, true)
    }

    /// Takes what the socket has, batch by batch, and forwards each batch at once; while a walk is under way they are only
    /// taken, since checks and RTCP wait behind the media in the socket, and it is to be empty. True if there may be more.
    fn receive(&mut self, received: &mut ReceiveBatch) -> bool {
        let walking = !self.due.is_empty();
        for _ in 0..RECEIVE_ROUNDS {
            let Ok(count) = self.socket.receive(received) else { return false };
            self.counters.receive_calls += 1;
            self.counters.datagrams_received += count as u64;
            let now = Instant::now();
            for datagram in received.iter_mut() {
                self.counters.bytes_received += datagram.data.len() as u64;
                if let Err(reason) = self.on_datagram(now, datagram.tuple, datagram.data) {
                    self.counters.drop(reason);
                }
            }
            if walking {
                continue;
            }
            self.fan_out();
            if !self.due.is_empty() {
                break;
            }
        }
        true
    }

    fn on_datagram(&mut self, now: Instant, path: TransportTuple, data: &mut [u8]) -> Result<(), DropReason> {
        match classify(data)? {
            PacketKind::Stun => self.on_stun(now, path, data),
            PacketKind::Dtls => {
                let key = self.session_at(path)?;
                let session = &mut self.sessions[key];
                if !session.dtls_limit.take(now) {
                    return Err(DropReason::DtlsRate);
                }
                self.pool.datagram(session.id, data).map_err(|_| DropReason::HandshakeBacklog)
            }
            PacketKind::Rtp => self.on_rtp(now, path, data),
            PacketKind::Rtcp => self.on_rtcp(now, path, data),
        }
    }

    /// The session that this address has proven to belong to (DMX-05).
    fn session_at(&self, path: TransportTuple) -> Result<usize, DropReason> {
        self.by_address.get(&path.remote).copied().ok_or(DropReason::UnvalidatedAddress)
    }

    /// Connectivity checks: requests are routed by our username fragment, responses by the transaction that we began.
    fn on_stun(&mut self, now: Instant, path: TransportTuple, data: &[u8]) -> Result<(), DropReason> {
        let key = if ice::is_request(data) {
            let ufrag = ice::peek_ufrag(data).ok_or(DropReason::MalformedStun)?;
            *self.by_ufrag.get(ufrag).ok_or(DropReason::UnknownUfrag)?
        } else if ice::is_response(data) {
            let transaction = ice::transaction_id(data).ok_or(DropReason::MalformedStun)?;
            self.transactions.get(&transaction).ok_or(DropReason::UnknownUfrag)?.0
        } else {
            self.session_at(path)?
        };
        let session = self.sessions.get_mut(key).ok_or(DropReason::UnknownUfrag)?;
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        session.ice.handle(now, path.remote, data, &mut outputs);
        if ice::is_request(data) && session.ice.last_valid_check() == Some(now) {
            self.counters.stun_checks_answered += 1;
        }
        let result = self.apply_ice(now, key, Some(path), &mut outputs);
        self.ice_outputs = outputs;
        result
    }

    /// Decrypts a publisher's packet and lets the publication take it.
    fn on_rtp(&mut self, now: Instant, path: TransportTuple, data: &mut [u8]) -> Result<(), DropReason> {
        let key = self.session_at(path)?;
        let session = &mut self.sessions[key];
        let Some(receiver) = &mut session.receiver else { return session.hold(now, path, data) };
        let length = match receiver.unprotect_rtp(data, data.len()) {
            Ok(length) => length,
            Err(error) => return Err(session.on_srtp_error(now, error)),
        };
        session.transport.on_authentic(now);
        if session.role == Role::Viewer {
            return Err(DropReason::UnexpectedRtp);
        }
        session.stats.rtp_received += 1;
        session.stats.rtp_received_bytes += length as u64;
        self.counters.rtp_received += 1;
        let stream = &mut self.streams[session.stream];
        let publisher = stream.publisher.as_mut().filter(|(publisher, _)| *publisher == key);
        let Some((_, publication)) = publisher else { return Err(DropReason::UnknownRtpStream) };
        let accepted = publication.on_rtp(now, self.wall.unix(now), &data[..length], &mut stream.tracks)?;
        match accepted {
            Accepted::Forward { kind, keyframe, new_format, .. } => {
                if keyframe && kind == MediaKind::Video {
                    session.stats.keyframes += 1;
                    stream.keyframes.on_keyframe();
                }
                session.transport.on_rtp_received(now, keyframe && kind == MediaKind::Video);
                if new_format.is_some() {
                    session.new_formats[kind.index()] = new_format;
                }
                if stream.enqueue(now) {
                    self.due.push_back(session.stream);
                }
            }
            Accepted::AwaitingKeyframe => {
                session.transport.on_rtp_received(now, false);
                stream.keyframes.want();
            }
            Accepted::Consumed => {}
        }
        if session.transport.has_events() {
            self.publish_events(key);
        }
        Ok(())
    }

    /// A stream has packets for its viewers.
    fn enqueue(&mut self, now: Instant, key: usize) {
        if self.streams[key].enqueue(now) {
            self.due.push_back(key);
        }
    }

    /// Sends what came to every viewer: viewer by viewer over all that is new, so that a viewer's keys stay in the cache
    /// and its packets form runs. Other shards get it once. It stops after so much work, between two viewers, so that
    /// checks, handshakes and RTCP never wait for long; what comes meanwhile makes the next walk's batch.
    fn fan_out(&mut self) {
        let mut work = 0;
        while let Some(&key) = self.due.front() {
            let now = Instant::now();
            let stream = &mut self.streams[key];
            if stream.begin_walk(now) && !stream.joined.is_empty() {
                let handed_over = stream.hand_over(&mut self.feeds, &self.shards);
                self.counters.batches_handed_over += handed_over.taken;
                self.counters.batches_refused += handed_over.refused;
            }
            let walk = &mut stream.walk;
            let (heads, shedding) = (walk.heads, walk.sheds(now));
            let round = Round { now, tracks: &stream.tracks, heads, late: &walk.late, shedding };
            let mut needs_keyframe = false;
            for viewer in &mut stream.viewers[walk.next..] {
                if work >= SLICE {
                    break;
                }
                let first = viewer.sent.packets == 0;
                let served = viewer.serve(&round, &mut self.outbox, |out| send(&self.socket, out, &mut self.counters));
                self.counters.rtp_forwarded += served.packets;
                self.counters.probe_packets += served.padding;
                self.counters.send_dropped += served.refused;
                if round.shedding {
                    self.counters.rtp_shed += served.shed;
                } else {
                    self.counters.rtp_congested += served.shed;
                }
                if first && served.packets > 0 {
                    self.sessions[viewer.session].transport.on_rtp_sent(now);
                }
                // A bad path of one viewer is not to cost the others' picture its quality.
                needs_keyframe |= served.needs_keyframe
                    && (round.shedding || self.sessions[viewer.session].keyframe_wishes.take(now));
                walk.behind |= served.behind;
                walk.next += 1;
                work += 1 + served.packets;
            }
            let walked = walk.next >= stream.viewers.len();
            if walked {
                if walk.behind {
                    self.behind.push(key);
                }
                self.due.pop_front();
                if stream.end_walk() {
                    self.due.push_back(key);
                }
            }
            if needs_keyframe {
                self.want_keyframe(now, key);
            }
            if !walked || work >= SLICE {
                break;
            }
        }
        self.flush();
    }

    /// Viewers that are served by and by have their next packets due.
    fn resume(&mut self, now: Instant) {
        while let Some(key) = self.behind.pop() {
            self.enqueue(now, key);
        }
        self.fan_out();
    }

    /// Sends everything that waits.
    fn flush(&mut self) {
        if !self.outbox.is_empty() {
            send(&self.socket, &mut self.outbox, &mut self.counters);
        }
    }
}

impl Session {
    /// Notes a packet that SRTP refused, and says under which name it is counted.
    fn on_srtp_error(&mut self, now: Instant, error: SrtpError) -> DropReason {
        match error {
            SrtpError::Authentication | SrtpError::NotEncrypted => {
                self.stats.srtp_auth_failures += 1;
                self.transport.on_auth_failure(now);
                DropReason::SrtpAuthentication
            }
            SrtpError::Replay => {
                self.stats.srtp_replays += 1;
                DropReason::SrtpReplay
            }
            SrtpError::TooShort => DropReason::TooShort,
            _ => DropReason::UnknownRtpStream,
        }
    }
}

fn send(socket: &MediaSocket, outbox: &mut SendBatch, counters: &mut ShardCounters) {
    let report = socket.send(outbox);
    counters.datagrams_sent += report.sent;
    counters.bytes_sent += report.bytes;
    counters.send_calls += report.calls;
    counters.segmented_runs += report.segmented;
    counters.send_dropped += report.dropped;
}
