//! A shard without a socket, threads and a clock: it gets datagrams and the time from its owner, who sees what it would send.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock::WallClock;
use crate::config::CoreConfig;
use crate::dtls::{Certificate, Connection, DtlsContext, DtlsOutput, DtlsOutputKind, UnthreadedPool};
use crate::ecn::Ecn;
use crate::event::CoreEvent;
use crate::ice::AgentTransmit;
use crate::ledger::Reason;
use crate::load::{BusyMeter, Load};
use crate::net::{Outbound, TransportTuple};
use crate::spec::{Fingerprint, FingerprintHash, IceRestart, SessionId, SessionSpec};
use crate::srtp::KeyingMaterial;
use crate::stats::ShardCounters;
use crate::stream::CacheBudget;
use crate::token_bucket::TokenBucket;

use super::mailbox::ShardMessage;
use super::receive_errors::ReceiveErrors;
use super::sessions::Sessions;
use super::stream::Streams;
use super::tick::OverloadReport;
use super::{Handshakes, NAMED_BURST, NAMED_PER_SECOND, Shard, ShardLoad, TICK};

/// A shard in virtual time.
pub(crate) struct Simulation {
    shard: Shard,
    now: Instant,
    pool: UnthreadedPool,
    dtls: mpsc::UnboundedReceiver<DtlsOutput>,
    events: mpsc::UnboundedReceiver<CoreEvent>,
    next_tick: Instant,
    /// Keeps the channel of full agents open.
    _agents: mpsc::Receiver<AgentTransmit>,
    open: HashSet<SessionId>,
    /// Why the last session ended that has.
    #[cfg(test)]
    last_reason: Option<Reason>,
}

thread_local! {
    /// To make a key takes longer than a whole simulation.
    static DTLS: DtlsContext = {
        let certificate = Certificate::generate().expect("OpenSSL makes keys");
        DtlsContext::new(&certificate).expect("OpenSSL takes its own key")
    };
}

impl Simulation {
    /// A shard without sessions.
    pub(crate) fn new(config: CoreConfig) -> Simulation {
        let now = Instant::now();
        let pool = UnthreadedPool::new();
        let (dtls_outputs, dtls) = mpsc::unbounded_channel();
        let (events_to, events) = mpsc::unbounded_channel();
        let (agents_to, agents) = mpsc::channel(1);
        let wall = WallClock::now();
        let load = Arc::<Load>::default();
        let config = Arc::new(config);
        let shard = Shard {
            index: 0,
            config: config.clone(),
            wall,
            local_address: ([127, 0, 0, 1], 50_000).into(),
            outbound: Outbound::keeping(),
            receive_errors: ReceiveErrors::default(),
            named_pace: TokenBucket::new(NAMED_PER_SECOND, NAMED_BURST),
            counters: ShardCounters::default(),
            roster: HashSet::new(),
            sessions: Sessions::default(),
            streams: Streams::new(wall, CacheBudget::new(config.cache_bytes)),
            links: Vec::new(),
            handshakes: Handshakes { pool: pool.handle(), outputs: dtls_outputs },
            agents: agents_to,
            events: events_to,
            load: ShardLoad { shared: load, meter: BusyMeter::new(now), report: OverloadReport::default() },
            pulse: Arc::default(),
            wants_ecn: false,
            is_stopping: false,
            next_slow_tick: now,
            has_paused: false,
            ice_outputs: Vec::new(),
            virtual_now: Some(now),
        };
        Simulation {
            shard,
            now,
            pool,
            dtls,
            events,
            next_tick: now + TICK,
            _agents: agents,
            open: HashSet::new(),
            #[cfg(test)]
            last_reason: None,
        }
    }

    /// Opens a session whose stream lives here.
    pub(crate) fn open(&mut self, spec: SessionSpec) {
        self.open.insert(spec.id);
        self.shard.load.shared.add_session();
        self.shard.on_message(ShardMessage::Open(Box::new(spec), DTLS.with(Clone::clone), 0));
        self.settle();
    }

    /// Ends a session as control does.
    pub(crate) fn close(&mut self, session: SessionId) {
        self.shard.on_message(ShardMessage::Close(session, Reason::Deleted));
        self.settle();
    }

    /// A session's ICE restarts.
    pub(crate) fn restart_ice(&mut self, session: SessionId, restart: IceRestart) {
        self.shard.on_message(ShardMessage::RestartIce(session, Box::new(restart)));
        self.settle();
    }

    /// A session's handshake ends with these keys, from where its flights were sent; if a check from there was valid.
    pub(crate) fn connect(&mut self, session: SessionId, address: SocketAddr, keying: KeyingMaterial) {
        let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, digest: vec![0; 32] };
        let connection = Connection { keying, version: "DTLSv1.2", cipher: "", fingerprint };
        self.shard.on_dtls(DtlsOutput { session, kind: DtlsOutputKind::Proven(address) });
        self.shard.on_dtls(DtlsOutput { session, kind: DtlsOutputKind::Connected(Box::new(connection)) });
        self.settle();
    }

    /// A datagram is received.
    pub(crate) fn receive(&mut self, tuple: TransportTuple, datagram: &mut [u8]) {
        if let Err(reason) = self.shard.on_datagram(self.now, (tuple, Ecn::NotEct), datagram) {
            self.shard.on_dropped(tuple, reason, datagram, datagram.len());
        }
        self.shard.fan_out();
        self.settle();
    }

    /// Lets time pass, with the ticks that fall into it.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_tick <= end {
            self.set_now(self.next_tick);
            self.shard.resume(self.now);
            self.shard.tick(self.now);
            self.settle();
            // Long silences are looked at at a coarser grain.
            self.next_tick += if end - self.now > Duration::from_millis(300) { 10 * TICK } else { TICK };
            if self.sessions() == 0 {
                break;
            }
        }
        self.set_now(end);
        self.next_tick = self.next_tick.max(end);
    }

    /// The process stands still: time passes, and nothing is done until the first tick after it, which is due at once.
    #[cfg(test)]
    pub(crate) fn pause(&mut self, time: Duration) {
        self.set_now(self.now + time);
        self.next_tick = self.now;
    }

    /// What was sent since the last call, and where to.
    pub(crate) fn take_sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let sent = self.shard.outbound.take_kept().into_iter();
        sent.map(|(tuple, datagram)| (tuple.remote, datagram)).collect()
    }

    /// As if the keys of all sessions were used up.
    #[cfg(test)]
    pub(crate) fn wear_keys(&mut self) {
        self.shard.sessions.slab.iter_mut().for_each(|(_, session)| session.wear_keys());
    }

    /// Sessions that have not ended, as their events tell.
    pub(crate) fn open_sessions(&self) -> usize {
        self.open.len()
    }

    /// Why the last session ended that has.
    #[cfg(test)]
    pub(crate) fn last_reason(&self) -> Option<Reason> {
        self.last_reason
    }

    /// Sessions of the shard itself.
    pub(crate) fn sessions(&self) -> usize {
        self.shard.sessions.slab.len()
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.shard.virtual_now = Some(now);
    }

    /// Lets handshakes, fan-out passes and events come to rest.
    fn settle(&mut self) {
        self.pool.run(self.now);
        while let Ok(output) = self.dtls.try_recv() {
            self.shard.on_dtls(output);
            self.pool.run(self.now);
        }
        while !self.shard.streams.due.is_empty() {
            self.shard.fan_out();
        }
        while let Ok(event) = self.events.try_recv() {
            if let CoreEvent::Ended { session, reason, .. } = event {
                assert!(self.open.remove(&session), "a session ends once");
                assert_ne!(reason, Reason::Internal, "whatever peers send");
                #[cfg(test)]
                {
                    self.last_reason = Some(reason);
                }
            }
        }
    }
}
