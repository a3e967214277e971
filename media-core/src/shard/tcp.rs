//! TCP connections of a shard: what comes by them, and what their end means for sessions.
//!
//! A connection is an address like any other, to checks, proof and nomination; before its first authentic check nothing but STUN
//! is taken from it, and after it nothing of another session.

// A counter of connections on their way bounds them; shards touch it once a connection, not once a packet.
#![allow(clippy::disallowed_types)]

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::demux::{PacketKind, classify};
use crate::ecn::Ecn;
use crate::ice;
use crate::net::framing::{Deframer, MAX_FRAME};
use crate::net::{Protocol, TcpEvent, TransportTuple};
use crate::stats::{ConnectionEnd, DropReason};

use super::mailbox::ShardMessage;
use super::{Shard, sessions::CLOSE_NOTIFY};

/// Bytes of one read.
const READ: usize = 32 << 10;
/// Reads of one connection in one turn, so that the others get theirs.
const READS: usize = 4;
/// Connections that may be on their way to the shard whose session they are for.
const MAX_HANDED_OVER: usize = 256;

/// Buffers for what comes by the connections, which take turns.
pub(super) struct TcpInput {
    bytes: Box<[u8]>,
    packet: Box<Packet>,
    events: Vec<TcpEvent>,
}

/// Aligned as SRTP wants it.
#[repr(align(8))]
struct Packet([u8; MAX_FRAME]);

impl TcpInput {
    pub(super) fn new() -> TcpInput {
        TcpInput {
            bytes: vec![0; READ].into_boxed_slice(),
            packet: Box::new(Packet([0; MAX_FRAME])),
            events: Vec::new(),
        }
    }
}

/// A connection that another listener accepted, on its way to the shard that has its session.
pub(crate) struct HandedOver {
    stream: TcpStream,
    /// What was read from it so far.
    received: Vec<u8>,
    /// Shards that do not know its session.
    asked: usize,
    _counted: Counted,
}

/// One of those that are on their way.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HandedOver {
    /// `None` if there are too many already; `on_their_way` counts them.
    pub(crate) fn new(stream: TcpStream, received: Vec<u8>, on_their_way: &Arc<AtomicUsize>) -> Option<HandedOver> {
        let before = on_their_way.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(on_their_way));
        (before < MAX_HANDED_OVER).then_some(HandedOver { stream, received, asked: 0, _counted: counted })
    }
}

/// The username fragment of ours that the first packet names, if that is a Binding request.
fn first_ufrag<'a>(received: &[u8], packet: &'a mut [u8; MAX_FRAME]) -> Option<&'a str> {
    let mut rest = received;
    let length = Deframer::default().next(&mut rest, packet).ok()??;
    ice::peek_ufrag(&packet[..length])
}

impl Shard {
    /// Takes what the connections have, and forwards it at once; while a fan-out pass is in progress it is only taken. True if there
    /// may be more.
    pub(super) fn receive_tcp(&mut self, input: &mut TcpInput) -> bool {
        let now = self.now();
        let mut events = std::mem::take(&mut input.events);
        if let Some(tcp) = self.outbound.tcp() {
            tcp.look(&mut events);
        }
        let is_busy = !events.is_empty();
        for event in events.drain(..) {
            match event {
                TcpEvent::Incoming => {
                    if let Some(tcp) = self.outbound.tcp() {
                        tcp.accept(now);
                    }
                }
                TcpEvent::Input(slot) => self.read_connection(slot, input),
            }
        }
        input.events = events;
        is_busy
    }

    fn read_connection(&mut self, slot: u16, input: &mut TcpInput) {
        let in_progress = !self.streams.due.is_empty();
        for _ in 0..READS {
            let now = self.now();
            let Some(tcp) = self.outbound.tcp() else { return };
            let length = tcp.read(now, slot, &mut input.bytes);
            if length == 0 {
                return;
            }
            self.take_bytes(now, slot, &input.bytes[..length], &mut input.packet);
            if !in_progress {
                self.fan_out();
            }
            if length < input.bytes.len() {
                return;
            }
        }
    }

    /// Takes the packets of what was read from a connection.
    fn take_bytes(&mut self, now: Instant, slot: u16, mut bytes: &[u8], packet: &mut Packet) {
        while let Some(tcp) = self.outbound.tcp()
            && let Some(tuple) = tcp.tuple(slot)
            && let Some(length) = tcp.next_packet(slot, &mut bytes, &mut packet.0)
        {
            self.counters.datagrams_received += 1;
            self.counters.bytes_received += length as u64;
            let data = &mut packet.0[..length];
            if let Err(reason) = self.on_packet_of_connection(now, tuple, data) {
                if let Some(tcp) = self.outbound.tcp() {
                    tcp.on_refused(tuple);
                }
                self.on_dropped(tuple, reason, data, length);
            }
        }
    }

    fn on_packet_of_connection(
        &mut self,
        now: Instant,
        tuple: TransportTuple,
        data: &mut [u8],
    ) -> Result<(), DropReason> {
        let owner = self.outbound.tcp_ref().and_then(|tcp| tcp.session(tuple));
        let is_stun = classify(data)? == PacketKind::Stun;
        // A stream of bytes has no ECN field for each packet.
        let unmarked = (tuple, Ecn::NotEct);
        let Some(owner) = owner else {
            return if is_stun { self.on_datagram(now, unmarked, data) } else { Err(DropReason::UnvalidatedAddress) };
        };
        // A connection is one session's. What comes after its end is nobody's.
        let key = self.sessions.find(owner).ok_or(DropReason::UnvalidatedAddress)?;
        if is_stun && self.sessions.of_stun(tuple, data)? != key {
            return Err(DropReason::StunOtherTransport);
        }
        self.on_datagram(now, unmarked, data)
    }

    /// Another listener accepted a connection: takes it if its session is here, else another shard may know it.
    pub(super) fn on_handed_over(&mut self, now: Instant, mut connection: HandedOver) {
        let mut packet = Box::new(Packet([0; MAX_FRAME]));
        let is_mine = first_ufrag(&connection.received, &mut packet.0).is_some_and(|ufrag| self.sessions.knows(ufrag));
        if !is_mine {
            connection.asked += 1;
            if connection.asked < self.links.len() {
                let next = (self.index + 1) % self.links.len();
                self.links[next].send(ShardMessage::HandedOver(Box::new(connection)));
            } else {
                self.counters.drop(DropReason::UnknownUfrag);
            }
            return;
        }
        let HandedOver { stream, received, .. } = connection;
        let tuple = self.outbound.tcp().and_then(|tcp| tcp.adopt(now, stream));
        if let Some(tuple) = tuple {
            self.take_bytes(now, tuple.connection, &received, &mut packet);
        }
    }

    /// Removes the connections that ended, in this turn or before: their sessions go on by other addresses, if they have any.
    pub(super) fn remove_connections(&mut self) {
        while let Some((tuple, owner)) = self.outbound.tcp().and_then(|tcp| tcp.take_closed()) {
            if let Some(key) = owner.and_then(|owner| self.sessions.find(owner)) {
                self.on_connection_gone(key, tuple);
            }
        }
    }

    fn on_connection_gone(&mut self, key: usize, tuple: TransportTuple) {
        let now = self.now();
        let connectivity = &mut self.sessions.slab[key].connectivity;
        // ICE may have given the address up before, and have it again by another connection.
        if connectivity.tuple_to(tuple.remote) == Some(tuple) {
            let mut outputs = std::mem::take(&mut self.ice_outputs);
            connectivity.forget_checks(now, tuple.remote, &mut outputs);
            let _ = self.apply_ice(now, key, None, &mut outputs);
            self.ice_outputs = outputs;
        }
    }

    /// A session ends: its connections are kept for its close_notify.
    pub(super) fn close_connections(&mut self, now: Instant, tuples: &[TransportTuple]) {
        for tuple in tuples.iter().filter(|tuple| tuple.protocol == Protocol::Tcp) {
            if let Some(tcp) = self.outbound.tcp() {
                tcp.close_at(*tuple, now + CLOSE_NOTIFY);
            }
        }
    }

    /// ICE has given an address up.
    pub(super) fn close_connection(&mut self, tuple: TransportTuple) {
        if let Some(tcp) = self.outbound.tcp() {
            tcp.close(tuple, ConnectionEnd::Session);
        }
    }

    /// Lets time pass for the connections.
    pub(super) fn tick_connections(&mut self, now: Instant) {
        if let Some(tcp) = self.outbound.tcp() {
            tcp.tick(now);
        }
    }

    /// True if no timer can have anything to do.
    pub(super) fn is_idle(&self) -> bool {
        self.sessions.is_idle() && self.outbound.tcp_ref().is_none_or(|tcp| tcp.is_idle())
    }
}
