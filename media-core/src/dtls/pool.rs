//! The threads beside the shards that run DTLS associations.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{fmt, io};

use tokio::sync::mpsc::UnboundedSender;

use super::{Certificate, Connection, DtlsContext, DtlsEndpoint, DtlsError, DtlsEvent, DtlsFailure};
use crate::ledger::{Reason, Stage};
use crate::spec::{DtlsParameters, SessionId};

/// Datagrams that may wait for one thread, some 4 MB. More are dropped; peers retransmit.
pub const QUEUED_DATAGRAMS: usize = 4096;

/// The nice value of the threads. Where cores are short, a shard that has packets to forward goes first: a join can wait
/// for some ms, media cannot. Not lower still, since then nobody could join on a full machine.
const NICENESS: i32 = 10;

/// An output of the pool, for the owner of a session.
#[derive(Debug)]
pub struct DtlsOutput {
    /// The session.
    pub session: SessionId,
    /// What happened.
    pub kind: DtlsOutputKind,
}

/// What happened to a session in the pool.
#[derive(Debug)]
pub enum DtlsOutputKind {
    /// Send this datagram to the peer's current address.
    Transmit(Vec<u8>),
    /// The handshake ended well. The pool keeps the association, for the peer's repeated flights and its close_notify.
    Connected(Connection),
    /// The association failed, and the pool dropped it. Its fatal alert was transmitted before.
    Failed(DtlsFailure),
    /// The peer sent close_notify, and the pool dropped the association.
    PeerClosed,
}

/// The thread's queue is full, or the pool has stopped: the datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handshake queue is full")]
pub struct Full;

/// Why the pool did not start.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// OpenSSL refused the settings.
    #[error(transparent)]
    Dtls(#[from] DtlsError),
    /// A thread could not be started.
    #[error("cannot start a handshake thread: {0}")]
    Thread(#[from] io::Error),
}

enum Command {
    Open { session: SessionId, parameters: DtlsParameters, outputs: UnboundedSender<DtlsOutput> },
    Datagram { session: SessionId, datagram: Vec<u8> },
    Start(SessionId),
    Close(SessionId),
    Stop,
}

/// The queue of one thread. Commands are as many as sessions, and always taken; only datagrams are bounded.
#[derive(Clone)]
struct Lane {
    commands: mpsc::Sender<Command>,
    queued: Arc<AtomicUsize>,
}

/// Threads that run handshakes. Dropping it stops them, after the commands that were given before.
pub struct HandshakePool {
    handle: PoolHandle,
    threads: Vec<JoinHandle<()>>,
}

impl HandshakePool {
    /// Starts `threads` threads, at least one, whose associations show `certificate`.
    pub fn start(threads: usize, certificate: &Certificate) -> Result<HandshakePool, PoolError> {
        let context = DtlsContext::new(certificate)?;
        let threads = threads.max(1);
        let mut pool = HandshakePool { handle: PoolHandle { lanes: Arc::from([]) }, threads: Vec::new() };
        let mut lanes = Vec::new();
        for index in 0..threads {
            let (commands, receiver) = mpsc::channel();
            let queued = Arc::new(AtomicUsize::new(0));
            let worker = Worker {
                context: context.clone(),
                queued: Arc::clone(&queued),
                associations: HashMap::new(),
                timers: BTreeSet::new(),
            };
            lanes.push(Lane { commands, queued });
            // Before the next thread may fail: then dropping the pool stops those that run.
            pool.handle = PoolHandle { lanes: lanes.clone().into() };
            let thread = thread::Builder::new().name(format!("sluice-dtls-{index}"));
            pool.threads.push(thread.spawn(move || worker.run(&receiver))?);
        }
        Ok(pool)
    }

    /// A handle for a shard.
    pub fn handle(&self) -> PoolHandle {
        self.handle.clone()
    }
}

impl Drop for HandshakePool {
    fn drop(&mut self) {
        for lane in self.handle.lanes.iter() {
            lane.send(Command::Stop);
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has already reported it.
            let _ended = thread.join();
        }
    }
}

impl fmt::Debug for HandshakePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakePool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// Queues work for a [`HandshakePool`]. No call blocks. Commands for a session that the pool does not know are
/// ignored, as are all after the pool's end.
#[derive(Clone)]
pub struct PoolHandle {
    lanes: Arc<[Lane]>,
}

impl PoolHandle {
    /// Makes an association; what happens to it goes to `outputs`. A server role waits for datagrams, a client role
    /// for [`PoolHandle::start`].
    pub fn open(&self, session: SessionId, parameters: DtlsParameters, outputs: UnboundedSender<DtlsOutput>) {
        self.send(session, Command::Open { session, parameters, outputs });
    }

    /// The path is validated: a client role sends its ClientHello. Repeating it does nothing.
    pub fn start(&self, session: SessionId) {
        self.send(session, Command::Start(session));
    }

    /// Hands over one datagram of the peer.
    ///
    /// # Errors
    /// [`Full`] if too many datagrams wait: it is dropped, and the peer will send it again.
    pub fn datagram(&self, session: SessionId, datagram: &[u8]) -> Result<(), Full> {
        let lane = self.lane(session).ok_or(Full)?;
        if lane.queued.fetch_add(1, Ordering::Relaxed) >= QUEUED_DATAGRAMS {
            lane.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        if lane.send(Command::Datagram { session, datagram: datagram.to_vec() }) { Ok(()) } else { Err(Full) }
    }

    /// Sends close_notify, if the handshake was complete, and drops the association.
    pub fn close(&self, session: SessionId) {
        self.send(session, Command::Close(session));
    }

    fn send(&self, session: SessionId, command: Command) {
        if let Some(lane) = self.lane(session) {
            lane.send(command);
        }
    }

    fn lane(&self, session: SessionId) -> Option<&Lane> {
        let lanes = u64::try_from(self.lanes.len()).ok().filter(|&lanes| lanes > 0)?;
        self.lanes.get(usize::try_from(session.0 % lanes).ok()?)
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolHandle").field("threads", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Lane {
    /// False if the thread has ended.
    fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}

/// A pool without threads: its work is done when [`UnthreadedPool::run`] is called, in the time that it is told.
#[cfg(feature = "fuzzing")]
pub(crate) struct UnthreadedPool {
    handle: PoolHandle,
    worker: Worker,
    commands: mpsc::Receiver<Command>,
}

#[cfg(feature = "fuzzing")]
impl UnthreadedPool {
    /// A pool whose associations use `context`.
    pub(crate) fn new(context: DtlsContext) -> UnthreadedPool {
        let (commands, receiver) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let handle = PoolHandle { lanes: Arc::from([Lane { commands, queued: Arc::clone(&queued) }]) };
        let worker = Worker { context, queued, associations: HashMap::new(), timers: BTreeSet::new() };
        UnthreadedPool { handle, worker, commands: receiver }
    }

    /// A handle for a shard.
    pub(crate) fn handle(&self) -> PoolHandle {
        self.handle.clone()
    }

    /// Does all that waits.
    pub(crate) fn run(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            self.worker.obey(command, now);
        }
        self.worker.fire_timers(now);
    }
}

/// One association and where its outputs go.
struct Association {
    endpoint: DtlsEndpoint,
    outputs: UnboundedSender<DtlsOutput>,
    /// Its entry in the worker's timers.
    timer: Option<Instant>,
}

/// What one thread owns.
struct Worker {
    context: DtlsContext,
    queued: Arc<AtomicUsize>,
    associations: HashMap<SessionId, Association>,
    timers: BTreeSet<(Instant, SessionId)>,
}

impl Worker {
    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        // Of the calling thread alone. A refusal leaves it equal to the shards, which is no fault.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        loop {
            let command = match self.timers.first() {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(&(deadline, _)) => commands.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match command {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.obey(command, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.fire_timers(Instant::now());
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open { session, parameters, outputs } => self.open(session, parameters, outputs),
            Command::Datagram { session, datagram } => {
                self.queued.fetch_sub(1, Ordering::Relaxed);
                self.with(session, |endpoint| endpoint.handle_datagram(now, &datagram));
            }
            Command::Start(session) => self.with(session, |endpoint| endpoint.start(now)),
            Command::Close(session) => self.with(session, DtlsEndpoint::close),
            Command::Stop => {}
        }
    }

    fn open(&mut self, session: SessionId, parameters: DtlsParameters, outputs: UnboundedSender<DtlsOutput>) {
        self.forget(session);
        match DtlsEndpoint::new(&self.context, parameters) {
            Ok(endpoint) => {
                self.associations.insert(session, Association { endpoint, outputs, timer: None });
            }
            Err(error) => {
                let failure = DtlsFailure { reason: Reason::Internal, stage: Stage::Dtls, detail: error.to_string() };
                // The owner is gone: it needs no report.
                let _told = outputs.send(DtlsOutput { session, kind: DtlsOutputKind::Failed(failure) });
            }
        }
    }

    /// Lets an endpoint do something, hands out its outputs, and updates its timer.
    fn with(&mut self, session: SessionId, action: impl FnOnce(&mut DtlsEndpoint)) {
        let Some(association) = self.associations.get_mut(&session) else {
            return;
        };
        action(&mut association.endpoint);
        let delivered = association.hand_out(session);
        if !delivered || association.endpoint.is_ended() {
            self.forget(session);
            return;
        }
        let timer = association.endpoint.poll_timeout();
        if timer != association.timer {
            if let Some(old) = association.timer {
                self.timers.remove(&(old, session));
            }
            if let Some(new) = timer {
                self.timers.insert((new, session));
            }
            association.timer = timer;
        }
    }

    fn forget(&mut self, session: SessionId) {
        if let Some(timer) = self.associations.remove(&session).and_then(|association| association.timer) {
            self.timers.remove(&(timer, session));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(deadline, session)) = self.timers.first() {
            if deadline > now {
                return;
            }
            self.with(session, |endpoint| endpoint.handle_timeout(now));
        }
    }
}

impl Association {
    /// Datagrams first, so that they are sent before a failure or the keys are handled. False if the owner is gone.
    fn hand_out(&mut self, session: SessionId) -> bool {
        while let Some(datagram) = self.endpoint.poll_transmit() {
            if self.outputs.send(DtlsOutput { session, kind: DtlsOutputKind::Transmit(datagram) }).is_err() {
                return false;
            }
        }
        while let Some(event) = self.endpoint.poll_event() {
            let kind = match event {
                // No session has data channels.
                DtlsEvent::HandshakeStarted | DtlsEvent::ApplicationData(_) => continue,
                DtlsEvent::Connected(connection) => DtlsOutputKind::Connected(connection),
                DtlsEvent::Failed(failure) => DtlsOutputKind::Failed(failure),
                DtlsEvent::PeerClosed => DtlsOutputKind::PeerClosed,
            };
            if self.outputs.send(DtlsOutput { session, kind }).is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_datagrams_and_takes_commands() {
        let (commands, receiver) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let handle = PoolHandle { lanes: Arc::from([Lane { commands, queued: Arc::clone(&queued) }]) };
        for _ in 0..QUEUED_DATAGRAMS {
            handle.datagram(SessionId(7), &[22; 13]).unwrap();
        }
        assert_eq!(handle.datagram(SessionId(7), &[22; 13]), Err(Full));
        handle.close(SessionId(7));
        assert_eq!(receiver.try_iter().count(), QUEUED_DATAGRAMS + 1);
        assert_eq!(queued.load(Ordering::Relaxed), QUEUED_DATAGRAMS);
    }
}
