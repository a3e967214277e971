//! The TCP connections of a shard (RFC 6544): its passive candidate beside the UDP socket, and those that another listener handed
//! over.
//!
//! Nothing waits without bound: what a slow peer has not taken stands in a queue of its connection, up to [`QUEUE`] bytes. A frame of
//! video is begun only while less than [`ROOM`] bytes wait, so that the others wait in the stream's cache, where whole frames
//! are dropped that are late.

mod admission;

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::SockRef;

use admission::{Admission, Verdict};

use super::framing::{Deframer, MAX_FRAME, PREFIX, prefix};
use super::poller::{Poller, Ready, Wanted};
use super::{Protocol, SendReport, TransportTuple};
use crate::spec::SessionId;
use crate::stats::{ConnectionEnd, TcpCounters};

/// The most that waits for one peer in the server, in bytes: what no longer fits is dropped, packet by packet.
pub const QUEUE: usize = 256 << 10;
/// Video waits elsewhere while so much waits for its peer: 200 ms of 2.5 Mbit/s.
pub const ROOM: usize = 64 << 10;
/// What the kernel keeps of a connection beside what is on its way, in bytes: more would only wait there, out of reach.
const UNSENT: u32 = 32 << 10;
/// A peer that acknowledges nothing for this long is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// A connection by which nothing came for this long is closed: consent is over then (RFC 7675 §5.1).
pub const IDLE: Duration = Duration::from_secs(30);
/// Packets of a connection that are refused before its first authentic check, until it is closed.
const REFUSED: u8 = 8;
/// Bytes of a connection before it, likewise: empty frames are no packets. So many packets have fewer.
const UNCHECKED: usize = 16 << 10;
/// Connections accepted in one turn.
const ACCEPTED: usize = 64;
/// Where none can be accepted for want of file descriptors, it is tried again after this time …
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// … doubled each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The log has it this often.
const REPORT: Duration = Duration::from_secs(60);

/// The listener among the tokens of connections, which are their slots.
const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    remote: SocketAddr,
    deframer: Deframer,
    /// Framed packets that wait to be written.
    queue: VecDeque<u8>,
    /// Whose authentic check came first by it.
    session: Option<SessionId>,
    last_received: Instant,
    /// Bytes received before the first authentic check.
    unchecked: usize,
    refused: u8,
    /// Its session has ended: it is closed then.
    ends: Option<Instant>,
    closed: Option<ConnectionEnd>,
    /// It is in `dirty`.
    is_dirty: bool,
    waits_for_room: bool,
}

/// The connections of one shard.
pub struct TcpConnections {
    poller: Rc<Poller>,
    listener: Option<TcpListener>,
    /// By the number in their tuples.
    slots: Slab<Connection>,
    admission: Admission,
    /// Connections with packets to write.
    dirty: Vec<u16>,
    /// Connections that are to be removed.
    closing: Vec<u16>,
    ready: Vec<Ready>,
    pause: AcceptPause,
    counters: TcpCounters,
}

/// What one look at a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The listener has a connection.
    Incoming,
    /// This one has something to be read.
    Input(u16),
}

/// Why no connection is accepted at present.
struct AcceptPause {
    until: Option<Instant>,
    length: Duration,
    reported: Option<Instant>,
}

impl TcpConnections {
    /// None yet, and room for `total` of them.
    ///
    /// # Errors
    /// The system refused to watch the listener.
    pub fn new(poller: Rc<Poller>, listener: Option<TcpListener>, total: usize) -> io::Result<TcpConnections> {
        if let Some(listener) = &listener {
            poller.add(listener, LISTENER, Wanted::Input)?;
        }
        Ok(TcpConnections {
            poller,
            listener,
            slots: Slab::new(),
            // A slot is a number of 16 bits.
            admission: Admission::new(total.min(usize::from(u16::MAX))),
            dirty: Vec::new(),
            closing: Vec::new(),
            ready: Vec::new(),
            pause: AcceptPause { until: None, length: FIRST_PAUSE, reported: None },
            counters: TcpCounters::default(),
        })
    }

    /// True if time changes nothing here.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.pause.until.is_none()
    }

    /// What was counted, and how many there are.
    pub(crate) fn counters(&self) -> TcpCounters {
        let queued = self.slots.iter().map(|(_, connection)| connection.queue.len()).sum();
        TcpCounters { open: self.slots.len(), queued, ..self.counters }
    }

    /// Looks once which connections are ready, writes where there is room again, and appends the rest to `events`.
    pub(crate) fn look(&mut self, events: &mut Vec<Event>) {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.look(&mut ready);
        for Ready { token, input, room } in ready.drain(..) {
            let Ok(slot) = u16::try_from(token) else {
                events.push(Event::Incoming);
                continue;
            };
            if room {
                self.write(slot);
            }
            if input {
                events.push(Event::Input(slot));
            }
        }
        self.ready = ready;
    }

    /// Accepts what the listener has.
    pub(crate) fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED {
            let Some(listener) = self.listener.as_ref().filter(|_| self.pause.until.is_none()) else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    self.pause.length = FIRST_PAUSE;
                    self.counters.accepted += 1;
                    let _ = self.adopt(now, stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client went away before it was accepted.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(error) => return self.on_accept_failed(now, &error),
            }
        }
    }

    /// File descriptors or memory are short. Who waits in the system's queue gets the place of one that has shown nothing yet.
    fn on_accept_failed(&mut self, now: Instant, error: &io::Error) {
        self.counters.accept_errors += 1;
        if self.pause.reported.is_none_or(|reported| now.saturating_duration_since(reported) >= REPORT) {
            tracing::warn!(%error, "cannot accept media connections; is the limit of open files too low?");
            self.pause.reported = Some(now);
        }
        if let Some(oldest) = self.admission.oldest_unchecked() {
            self.close_slot(oldest as u16, ConnectionEnd::Displaced);
        }
        self.pause.until = Some(now + self.pause.length);
        self.pause.length = (2 * self.pause.length).min(LONGEST_PAUSE);
        self.watch_listener(Wanted::Nothing);
    }

    fn watch_listener(&self, wanted: Wanted) {
        if let Some(listener) = &self.listener {
            // It fails only for want of memory; the listener is looked at again after the next pause then.
            let _ = self.poller.modify(listener, LISTENER, wanted);
        }
    }

    /// Takes a connection in, unless there are too many.
    pub(crate) fn adopt(&mut self, now: Instant, stream: TcpStream) -> Option<TransportTuple> {
        let taken = self.try_adopt(now, stream);
        self.counters.refused += u64::from(taken.is_none());
        taken
    }

    fn try_adopt(&mut self, now: Instant, stream: TcpStream) -> Option<TransportTuple> {
        // It may be gone already.
        let remote = stream.peer_addr().ok()?;
        let remote = match remote.ip().to_canonical() {
            ip if ip.is_ipv4() => SocketAddr::new(ip, remote.port()),
            _ => remote,
        };
        match self.admission.judge(now, remote.ip()) {
            Verdict::Admitted => {}
            Verdict::InPlaceOf(oldest) => {
                // Its slot is free only at the end of the turn.
                self.close_slot(u16::try_from(oldest).ok()?, ConnectionEnd::Displaced);
                self.admission.remove(oldest);
            }
            Verdict::Refused => return None,
        }
        set_options(&stream).ok()?;
        let entry = self.slots.vacant_entry();
        let slot = u16::try_from(entry.key()).ok()?;
        self.poller.add(&stream, u64::from(slot), Wanted::Input).ok()?;
        entry.insert(Connection {
            stream,
            remote,
            deframer: Deframer::default(),
            queue: VecDeque::new(),
            session: None,
            last_received: now,
            unchecked: 0,
            refused: 0,
            ends: None,
            closed: None,
            is_dirty: false,
            waits_for_room: false,
        });
        self.admission.insert(now, usize::from(slot), remote.ip());
        Some(TransportTuple::tcp(remote, slot))
    }

    /// The tuple of an open connection.
    pub(crate) fn tuple(&self, slot: u16) -> Option<TransportTuple> {
        let connection = self.slots.get(usize::from(slot)).filter(|connection| connection.closed.is_none())?;
        Some(TransportTuple::tcp(connection.remote, slot))
    }

    /// Reads what a connection has into `buffer`; 0 if there is nothing more now.
    pub(crate) fn read(&mut self, now: Instant, slot: u16, buffer: &mut [u8]) -> usize {
        let Some(connection) = self.slots.get_mut(usize::from(slot)).filter(|open| open.closed.is_none()) else {
            return 0;
        };
        match connection.stream.read(buffer) {
            Ok(0) => self.close_slot(slot, ConnectionEnd::ByPeer),
            Ok(length) => {
                connection.last_received = now;
                self.counters.reads += 1;
                if connection.session.is_none() {
                    connection.unchecked += length;
                    if connection.unchecked > UNCHECKED {
                        self.close_slot(slot, ConnectionEnd::Refused);
                        return 0;
                    }
                }
                return length;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.close_slot(slot, ConnectionEnd::ByPeer),
        }
        0
    }

    /// The next packet of what was read from a connection; see [`Deframer::next`]. A connection that cannot be understood is closed.
    pub(crate) fn next_packet(&mut self, slot: u16, input: &mut &[u8], packet: &mut [u8; MAX_FRAME]) -> Option<usize> {
        let connection = self.slots.get_mut(usize::from(slot)).filter(|open| open.closed.is_none())?;
        match connection.deframer.next(input, packet) {
            Ok(length) => length,
            Err(_) => {
                self.close_slot(slot, ConnectionEnd::Framing);
                None
            }
        }
    }

    /// The session whose check came first by a connection; `None` before it, and for one that is not open.
    pub(crate) fn session(&self, tuple: TransportTuple) -> Option<SessionId> {
        self.connection(tuple)?.session
    }

    /// An authentic check of this session came by a connection that is nobody's yet.
    pub(crate) fn on_check(&mut self, tuple: TransportTuple, session: SessionId) {
        if let Some(connection) = self.connection_mut(tuple) {
            connection.session = Some(session);
            self.admission.on_check(usize::from(tuple.connection));
        }
    }

    /// A packet was refused. Before its first authentic check a connection is closed after a few of them.
    pub(crate) fn on_refused(&mut self, tuple: TransportTuple) {
        let Some(connection) = self.connection_mut(tuple).filter(|open| open.session.is_none()) else { return };
        connection.refused += 1;
        if connection.refused >= REFUSED {
            self.close_slot(tuple.connection, ConnectionEnd::Refused);
        }
    }

    /// True if video may be written to a connection: less of a new frame than of one that was begun.
    #[inline]
    pub(crate) fn has_room(&self, tuple: TransportTuple, is_begun: bool) -> bool {
        let most = if is_begun { QUEUE - 2 * (PREFIX + MAX_FRAME) } else { ROOM };
        self.connection(tuple).is_some_and(|connection| connection.queue.len() < most)
    }

    /// Takes a packet that [`TcpConnections::flush`] will write. False if it is dropped, as whole packets are: the connection is
    /// gone, or its peer too slow.
    pub(crate) fn push(&mut self, tuple: TransportTuple, packet: &[u8]) -> bool {
        let Some(prefix) = prefix(packet) else { return false };
        let Some(connection) = self.connection_mut(tuple) else { return false };
        if connection.queue.len() + prefix.len() + packet.len() > QUEUE {
            self.counters.dropped += 1;
            return false;
        }
        connection.queue.extend(&prefix);
        connection.queue.extend(packet);
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(tuple.connection);
        }
        true
    }

    /// True if there is something to write.
    #[inline]
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Writes what was pushed, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let connection = self.slots.get_mut(usize::from(slot)).filter(|connection| connection.is_dirty);
            let Some(connection) = connection else { continue };
            connection.is_dirty = false;
            // Where there was no room before, the next look tells when there is.
            if !connection.waits_for_room {
                self.write(slot);
            }
        }
    }

    fn write(&mut self, slot: u16) {
        let Some(connection) = self.slots.get_mut(usize::from(slot)).filter(|open| open.closed.is_none()) else {
            return;
        };
        while !connection.queue.is_empty() {
            let (front, back) = connection.queue.as_slices();
            match connection.stream.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(length) => {
                    self.counters.writes += 1;
                    connection.queue.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.close_slot(slot, ConnectionEnd::ByPeer),
            }
        }
        let waits = !connection.queue.is_empty();
        if waits != connection.waits_for_room {
            connection.waits_for_room = waits;
            let wanted = if waits { Wanted::InputAndRoom } else { Wanted::Input };
            if self.poller.modify(&connection.stream, u64::from(slot), wanted).is_err() {
                self.close_slot(slot, ConnectionEnd::ByPeer);
            }
        }
    }

    /// Closes a connection at the end of the turn.
    pub(crate) fn close(&mut self, tuple: TransportTuple, why: ConnectionEnd) {
        if self.connection(tuple).is_some() {
            self.close_slot(tuple.connection, why);
        }
    }

    /// Closes a connection some time after its session: close_notify is still to go.
    pub(crate) fn close_at(&mut self, tuple: TransportTuple, at: Instant) {
        if let Some(connection) = self.connection_mut(tuple) {
            connection.ends = Some(at);
        }
    }

    fn close_slot(&mut self, slot: u16, why: ConnectionEnd) {
        let Some(connection) = self.slots.get_mut(usize::from(slot)) else { return };
        if connection.closed.is_none() {
            connection.closed = Some(why);
            self.counters.closed[why as usize] += 1;
            self.closing.push(slot);
        }
    }

    /// Takes a closed connection out; its tuple, and whose it was.
    pub(crate) fn take_closed(&mut self) -> Option<(TransportTuple, Option<SessionId>)> {
        let slot = self.closing.pop()?;
        let connection = self.slots.try_remove(usize::from(slot))?;
        self.admission.remove(usize::from(slot));
        Some((TransportTuple::tcp(connection.remote, slot), connection.session))
    }

    /// Lets time pass: silent and slow connections end, and the listener's pause.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(slot) = self.admission.overdue(now) {
            self.close_slot(slot as u16, ConnectionEnd::NoCheck);
            self.admission.remove(slot);
        }
        for slot in 0..self.slots.capacity() {
            let Some(connection) = self.slots.get(slot) else { continue };
            if connection.ends.is_some_and(|at| at <= now) {
                self.close_slot(slot as u16, ConnectionEnd::Session);
            } else if now.saturating_duration_since(connection.last_received) >= IDLE {
                self.close_slot(slot as u16, ConnectionEnd::Idle);
            }
        }
        if self.pause.until.is_some_and(|until| until <= now) {
            self.pause.until = None;
            self.watch_listener(Wanted::Input);
        }
    }

    fn connection(&self, tuple: TransportTuple) -> Option<&Connection> {
        let connection = self.slots.get(usize::from(tuple.connection))?;
        let is_it = tuple.protocol == Protocol::Tcp && connection.remote == tuple.remote && connection.closed.is_none();
        is_it.then_some(connection)
    }

    fn connection_mut(&mut self, tuple: TransportTuple) -> Option<&mut Connection> {
        self.connection(tuple)?;
        self.slots.get_mut(usize::from(tuple.connection))
    }
}

impl SendReport {
    /// One packet that a connection took, or did not.
    pub(super) fn of_packet(length: usize, is_taken: bool) -> SendReport {
        match is_taken {
            true => SendReport { sent: 1, bytes: length as u64, ..SendReport::default() },
            false => SendReport { dropped: 1, ..SendReport::default() },
        }
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // A packet must not wait for the acknowledgement of the one before (RFC 6544 §4.1 would have media without delay).
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests;
