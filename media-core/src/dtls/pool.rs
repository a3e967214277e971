//! The threads beside the shards that run DTLS associations.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{fmt, io};

use tokio::sync::mpsc::UnboundedSender;

use super::{Connection, DtlsContext, DtlsEndpoint, DtlsEvent, DtlsFailure, Source};
use crate::ledger::{Reason, Stage};
use crate::pulse::{BEAT, CoreThread, Pulse, Vital};
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
    /// Send this datagram.
    Transmit {
        /// The address with which the handshake is under way; otherwise it goes to the peer's current one.
        to: Option<SocketAddr>,
        /// What to send.
        datagram: Vec<u8>,
    },
    /// The peer has shown that it receives at this address.
    Proven(SocketAddr),
    /// The handshake ended well. The pool keeps the association, for the peer's repeated flights and its close_notify.
    Connected(Box<Connection>),
    /// The association failed, and the pool dropped it. Its fatal alert was transmitted before.
    Failed(DtlsFailure),
    /// The peer sent close_notify, and the pool dropped the association.
    PeerClosed,
}

/// The thread's queue is full, or the pool has stopped: the datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handshake queue is full")]
pub struct Full;

enum Command {
    Open(SessionId, Box<Opening>),
    Datagram {
        session: SessionId,
        source: Source,
        datagram: Vec<u8>,
    },
    Start(SessionId),
    Close(SessionId),
    Stop,
    /// To strike when something is done for this session, or for any whose handshake is under way.
    #[cfg(feature = "fault-injection")]
    Fault(Option<SessionId>, crate::pulse::Fault),
}

/// What an association begins with.
struct Opening {
    context: DtlsContext,
    parameters: DtlsParameters,
    outputs: UnboundedSender<DtlsOutput>,
}

/// The place of one thread. A thread that does not come back gives it to another, which has a queue of its own.
struct Lane {
    queue: RwLock<Queue>,
    pulse: Arc<Pulse>,
}

/// The queue of one thread. Commands are as many as sessions, and always taken; only datagrams are bounded.
struct Queue {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What a thread and those who use it know of its work.
#[derive(Default)]
struct Shared {
    /// Datagrams that wait.
    queued: AtomicUsize,
    /// Whom to tell if the thread does not come back: handshakes under way.
    handshakes: Mutex<HashMap<SessionId, UnboundedSender<DtlsOutput>>>,
}

impl Shared {
    fn begin(&self, session: SessionId, outputs: UnboundedSender<DtlsOutput>) {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).insert(session, outputs);
    }

    /// True if it was under way.
    fn end(&self, session: SessionId) -> bool {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).remove(&session).is_some()
    }

    #[cfg(feature = "fault-injection")]
    fn is_under_way(&self, session: SessionId) -> bool {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&session)
    }
}

/// Threads that run handshakes. Dropping it stops them, after the commands that were given before.
pub struct HandshakePool {
    handle: PoolHandle,
    threads: Vec<JoinHandle<()>>,
}

impl HandshakePool {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(threads: usize) -> io::Result<HandshakePool> {
        let (mut lanes, mut threads_running) = (Vec::new(), Vec::new());
        for index in 0..threads.max(1) {
            let pulse = Arc::<Pulse>::default();
            // Where a later one fails, those that run end with their queues.
            let (queue, thread) = spawn(index, &pulse)?;
            lanes.push(Lane { queue: RwLock::new(queue), pulse });
            threads_running.push(thread);
        }
        Ok(HandshakePool { handle: PoolHandle { lanes: lanes.into() }, threads: threads_running })
    }

    /// A handle for a shard.
    pub fn handle(&self) -> PoolHandle {
        self.handle.clone()
    }

    /// Gives the place of a thread that does not come back to a new one. Its handshakes end with
    /// [`Reason::HandshakeThreadFailed`]; sessions whose handshake had ended go on, but without close_notify. The old thread ends as
    /// soon as it comes back.
    ///
    /// # Errors
    /// The new thread could not be started; nothing has changed.
    pub fn replace(&mut self, index: usize) -> io::Result<()> {
        let (Some(lane), Some(thread)) = (self.handle.lanes.get(index), self.threads.get_mut(index)) else {
            return Ok(());
        };
        let (queue, new_thread) = spawn(index, &lane.pulse)?;
        // Nobody waits for the old one any more.
        *thread = new_thread;
        let old = std::mem::replace(&mut *lane.queue.write().unwrap_or_else(PoisonError::into_inner), queue);
        let handshakes = std::mem::take(&mut *old.shared.handshakes.lock().unwrap_or_else(PoisonError::into_inner));
        for (session, outputs) in handshakes {
            let failure = thread_failure("the thread of the handshake did not come back");
            // The owner is gone: it needs no report.
            let _told = outputs.send(DtlsOutput { session, kind: DtlsOutputKind::Failed(failure) });
        }
        Ok(())
    }
}

fn spawn(index: usize, pulse: &Arc<Pulse>) -> io::Result<(Queue, JoinHandle<()>)> {
    let (commands, receiver) = mpsc::channel();
    let shared = Arc::<Shared>::default();
    let worker = Worker::new(&shared, pulse);
    let thread = thread::Builder::new().name(format!("sluice-dtls-{index}"));
    let thread = thread.spawn(move || worker.run(&receiver))?;
    Ok((Queue { commands, shared }, thread))
}

fn thread_failure(detail: &str) -> DtlsFailure {
    DtlsFailure { reason: Reason::HandshakeThreadFailed, stage: Stage::Dtls, detail: detail.to_owned() }
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
    /// Makes an association that shows the certificate of `context`; what happens to it goes to `outputs`. A server role waits for
    /// datagrams, a client role for [`PoolHandle::start`].
    pub fn open(
        &self,
        session: SessionId,
        context: DtlsContext,
        parameters: DtlsParameters,
        outputs: UnboundedSender<DtlsOutput>,
    ) {
        let Some(lane) = self.lane(session) else { return };
        lane.with(|queue| {
            queue.shared.begin(session, outputs.clone());
            let opening = Box::new(Opening { context, parameters, outputs });
            if queue.commands.send(Command::Open(session, opening)).is_err() {
                queue.shared.end(session);
            }
        });
    }

    /// The path is validated: a client role sends its ClientHello. Repeating it does nothing.
    pub fn start(&self, session: SessionId) {
        self.send(session, Command::Start(session));
    }

    /// Hands over one datagram of the peer.
    ///
    /// # Errors
    /// [`Full`] if too many datagrams wait: it is dropped, and the peer will send it again.
    pub fn datagram(&self, session: SessionId, source: Source, datagram: &[u8]) -> Result<(), Full> {
        let lane = self.lane(session).ok_or(Full)?;
        let taken = lane.with(|Queue { commands, shared }| {
            if shared.queued.fetch_add(1, Ordering::Relaxed) >= QUEUED_DATAGRAMS {
                shared.queued.fetch_sub(1, Ordering::Relaxed);
                return false;
            }
            commands.send(Command::Datagram { session, source, datagram: datagram.to_vec() }).is_ok()
        });
        if taken { Ok(()) } else { Err(Full) }
    }

    /// Sends close_notify, if the handshake was complete, and drops the association.
    pub fn close(&self, session: SessionId) {
        self.send(session, Command::Close(session));
    }

    /// The signs of life of all threads.
    pub(crate) fn vitals(&self) -> impl Iterator<Item = Vital> {
        let lanes = self.lanes.iter().enumerate();
        lanes.map(|(index, lane)| Vital { thread: CoreThread::Handshake(index), pulse: Arc::clone(&lane.pulse) })
    }

    /// Lets a thread fail over the next thing that it does for a handshake.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn inject(&self, index: usize, fault: crate::pulse::Fault) {
        if let Some(lane) = self.lanes.get(index) {
            lane.send(Command::Fault(None, fault));
        }
    }

    /// Lets the thread of a session fail over the next thing that it does for it.
    #[cfg(all(test, feature = "fault-injection"))]
    pub(super) fn inject_over(&self, session: SessionId, fault: crate::pulse::Fault) {
        self.send(session, Command::Fault(Some(session), fault));
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
    /// Uses the queue of the thread that has this place; none takes it meanwhile.
    fn with<R>(&self, use_it: impl FnOnce(&Queue) -> R) -> R {
        use_it(&self.queue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A thread that has ended needs no command.
    fn send(&self, command: Command) {
        let _ = self.with(|queue| queue.commands.send(command));
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
    /// A pool without associations.
    pub(crate) fn new() -> UnthreadedPool {
        let (commands, receiver) = mpsc::channel();
        let (shared, pulse) = (Arc::<Shared>::default(), Arc::<Pulse>::default());
        let worker = Worker::new(&shared, &pulse);
        let queue = RwLock::new(Queue { commands, shared });
        UnthreadedPool { handle: PoolHandle { lanes: Arc::from([Lane { queue, pulse }]) }, worker, commands: receiver }
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
    shared: Arc<Shared>,
    pulse: Arc<Pulse>,
    associations: HashMap<SessionId, Association>,
    timers: BTreeSet<(Instant, SessionId)>,
    #[cfg(feature = "fault-injection")]
    fault: Option<(Option<SessionId>, crate::pulse::Fault)>,
}

impl Worker {
    fn new(shared: &Arc<Shared>, pulse: &Arc<Pulse>) -> Worker {
        Worker {
            shared: Arc::clone(shared),
            pulse: Arc::clone(pulse),
            associations: HashMap::new(),
            timers: BTreeSet::new(),
            #[cfg(feature = "fault-injection")]
            fault: None,
        }
    }

    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        // Of the calling thread alone. A refusal leaves it equal to the shards, which is no fault.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        loop {
            self.pulse.beat();
            let timer = self.timers.first().map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()));
            match commands.recv_timeout(timer.map_or(BEAT, |timer| timer.min(BEAT))) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.obey(command, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.fire_timers(Instant::now());
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open(session, opening) => self.open(session, *opening),
            Command::Datagram { session, source, datagram } => {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                self.with(session, |endpoint| endpoint.handle_datagram_from(now, source, &datagram));
            }
            Command::Start(session) => self.with(session, |endpoint| endpoint.start(now)),
            Command::Close(session) => self.with(session, DtlsEndpoint::close),
            Command::Stop => {}
            #[cfg(feature = "fault-injection")]
            Command::Fault(session, fault) => self.fault = Some((session, fault)),
        }
    }

    fn open(&mut self, session: SessionId, Opening { context, parameters, outputs }: Opening) {
        self.remove(session);
        match DtlsEndpoint::new(&context, parameters) {
            Ok(endpoint) => {
                self.associations.insert(session, Association { endpoint, outputs, timer: None });
            }
            Err(error) => {
                let failure = DtlsFailure { reason: Reason::Internal, stage: Stage::Dtls, detail: error.to_string() };
                // The owner is gone: it needs no report.
                let _told = outputs.send(DtlsOutput { session, kind: DtlsOutputKind::Failed(failure) });
                self.forget(session);
            }
        }
    }

    /// Lets an endpoint do something. A panic ends its handshake and no other; a session that is connected needs its association
    /// for close_notify alone, and goes on without.
    fn with(&mut self, session: SessionId, action: impl FnOnce(&mut DtlsEndpoint)) {
        if catch_unwind(AssertUnwindSafe(|| self.act(session, action))).is_ok() {
            return;
        }
        self.pulse.panicked();
        if let Some(association) = self.associations.get(&session).filter(|_| self.shared.end(session)) {
            let failure = thread_failure("the handshake thread panicked over this handshake");
            // The owner is gone: it needs no report.
            let _told = association.outputs.send(DtlsOutput { session, kind: DtlsOutputKind::Failed(failure) });
        }
        self.forget(session);
    }

    /// Lets an endpoint do something, hands out its outputs, and updates its timer.
    fn act(&mut self, session: SessionId, action: impl FnOnce(&mut DtlsEndpoint)) {
        let Some(association) = self.associations.get_mut(&session) else {
            return;
        };
        #[cfg(feature = "fault-injection")]
        if let Some((over, fault)) = self.fault
            && over.map_or_else(|| self.shared.is_under_way(session), |over| over == session)
        {
            self.fault = None;
            fault.strike();
        }
        action(&mut association.endpoint);
        let delivered = association.hand_out(session, &self.shared);
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
        self.shared.end(session);
        self.remove(session);
    }

    fn remove(&mut self, session: SessionId) {
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

impl Drop for Worker {
    /// Nobody waits for its handshakes any more.
    fn drop(&mut self) {
        self.shared.handshakes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Association {
    /// Proofs of addresses first, since they release datagrams; then those, so that they are sent before a failure or the keys
    /// are handled. False if the owner is gone.
    fn hand_out(&mut self, session: SessionId, shared: &Shared) -> bool {
        let events: Vec<DtlsEvent> = std::iter::from_fn(|| self.endpoint.poll_event()).collect();
        if events.iter().any(|event| matches!(event, DtlsEvent::Connected(_))) {
            shared.end(session);
        }
        let (proofs, others): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| matches!(event, DtlsEvent::AddressProven(_)));
        let to = self.endpoint.destination();
        let proofs = proofs.into_iter().filter_map(output);
        let datagrams = std::iter::from_fn(|| self.endpoint.poll_transmit());
        let datagrams = datagrams.map(|datagram| DtlsOutputKind::Transmit { to, datagram });
        let mut all = proofs.chain(datagrams).chain(others.into_iter().filter_map(output));
        all.all(|kind| self.outputs.send(DtlsOutput { session, kind }).is_ok())
    }
}

/// What the owner is told of an event.
fn output(event: DtlsEvent) -> Option<DtlsOutputKind> {
    match event {
        // No session has data channels.
        DtlsEvent::HandshakeStarted | DtlsEvent::ApplicationData(_) => None,
        DtlsEvent::AddressProven(address) => Some(DtlsOutputKind::Proven(address)),
        DtlsEvent::Connected(connection) => Some(DtlsOutputKind::Connected(Box::new(connection))),
        DtlsEvent::Failed(failure) => Some(DtlsOutputKind::Failed(failure)),
        DtlsEvent::PeerClosed => Some(DtlsOutputKind::PeerClosed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_datagrams_and_takes_commands() {
        let (commands, receiver) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let queue = RwLock::new(Queue { commands, shared: Arc::clone(&shared) });
        let handle = PoolHandle { lanes: Arc::from([Lane { queue, pulse: Arc::default() }]) };
        let source = Source { address: ([192, 0, 2, 1], 5000).into(), room: None };
        for _ in 0..QUEUED_DATAGRAMS {
            handle.datagram(SessionId(7), source, &[22; 13]).unwrap();
        }
        assert_eq!(handle.datagram(SessionId(7), source, &[22; 13]), Err(Full));
        handle.close(SessionId(7));
        assert_eq!(receiver.try_iter().count(), QUEUED_DATAGRAMS + 1);
        assert_eq!(shared.queued.load(Ordering::Relaxed), QUEUED_DATAGRAMS);
    }
}
