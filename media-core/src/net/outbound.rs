//! Where packets leave a shard: one batch, and the socket that takes it; or a TCP connection.
//!
//! Everything that is sent passes here, whatever its transport: the protocol of the tuple says which way a packet takes.

use std::ops::AddAssign;
use std::rc::Rc;

use super::{MediaSocket, Protocol, SendBatch, SendReport, TcpConnections, TrafficClass, TransportTuple};

/// The send batch and its socket. What does not fit into the batch makes it leave at once.
pub struct Outbound {
    batch: SendBatch,
    udp: Option<Rc<MediaSocket>>,
    tcp: Option<Box<TcpConnections>>,
    /// What would have been sent, if that is kept.
    #[cfg(feature = "fuzzing")]
    kept: Option<Vec<(TransportTuple, Vec<u8>)>>,
    /// What became of all batches so far.
    total: SendReport,
}

impl Outbound {
    /// Sends through this socket and these connections.
    pub fn new(udp: Rc<MediaSocket>, tcp: TcpConnections) -> Outbound {
        let batch = SendBatch::new(udp.is_ipv6());
        Outbound { udp: Some(udp), tcp: Some(Box::new(tcp)), batch, ..Outbound::disconnected() }
    }

    /// The TCP connections; there are none without sockets.
    pub(crate) fn tcp(&mut self) -> Option<&mut TcpConnections> {
        self.tcp.as_deref_mut()
    }

    /// The TCP connections, to look at.
    pub(crate) fn tcp_ref(&self) -> Option<&TcpConnections> {
        self.tcp.as_deref()
    }

    /// True if video may leave for a peer. Over UDP it always may; a TCP connection whose peer is slow takes no more than the rest of a
    /// frame that was begun.
    #[inline]
    pub fn has_room(&self, tuple: TransportTuple, is_begun: bool) -> bool {
        tuple.protocol == Protocol::Udp || self.tcp.as_ref().is_some_and(|tcp| tcp.has_room(tuple, is_begun))
    }

    /// Sends nothing: a batch that is full is emptied, and [`Outbound::batch`] shows what was written. For measurements and
    /// simulations.
    pub fn disconnected() -> Outbound {
        Outbound {
            batch: SendBatch::new(false),
            udp: None,
            tcp: None,
            #[cfg(feature = "fuzzing")]
            kept: None,
            total: SendReport::default(),
        }
    }

    /// Sends nothing and keeps it for [`Outbound::take_kept`].
    #[cfg(feature = "fuzzing")]
    pub(crate) fn keeping() -> Outbound {
        Outbound { kept: Some(Vec::new()), ..Outbound::disconnected() }
    }

    /// The datagrams that would have been sent since the last call.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn take_kept(&mut self) -> Vec<(TransportTuple, Vec<u8>)> {
        self.flush();
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Room for one datagram of `length` bytes: write it to the front, then [`Outbound::commit`] its length. A batch without
    /// that much room leaves first.
    #[inline]
    pub fn reserve(&mut self, length: usize) -> &mut [u8] {
        if self.batch.room() < length {
            self.flush();
        }
        self.batch.spare()
    }

    /// Takes the first `length` bytes of what [`Outbound::reserve`] gave as one packet.
    #[inline]
    pub fn commit(&mut self, tuple: TransportTuple, length: usize) {
        match tuple.protocol {
            Protocol::Udp => self.batch.commit(tuple, length),
            Protocol::Tcp => self.commit_framed(tuple, length),
        }
    }

    #[cold]
    fn commit_framed(&mut self, tuple: TransportTuple, length: usize) {
        let room = self.batch.spare();
        let packet = &room[..length.min(room.len())];
        let is_taken = self.tcp.as_mut().is_some_and(|tcp| tcp.push(tuple, packet));
        self.total += SendReport::of_packet(packet.len(), is_taken);
    }

    /// The same with a traffic class, which a connection has none of for a packet.
    #[inline]
    pub fn commit_marked(&mut self, tuple: TransportTuple, length: usize, class: TrafficClass) {
        match tuple.protocol {
            Protocol::Udp => self.batch.commit_marked(tuple, length, class),
            Protocol::Tcp => self.commit_framed(tuple, length),
        }
    }

    /// Copies one datagram in; one that no batch has room for is dropped and counted.
    pub fn push(&mut self, tuple: TransportTuple, datagram: &[u8]) {
        match self.reserve(datagram.len()).get_mut(..datagram.len()) {
            Some(room) => {
                room.copy_from_slice(datagram);
                self.commit(tuple, datagram.len());
            }
            None => self.total.dropped += 1,
        }
    }

    /// Sends everything that waits.
    pub fn flush(&mut self) {
        if let Some(tcp) = self.tcp.as_mut().filter(|tcp| tcp.is_dirty()) {
            tcp.flush();
        }
        if self.batch.is_empty() {
            return;
        }
        #[cfg(feature = "fuzzing")]
        if let Some(kept) = &mut self.kept {
            kept.extend(self.batch.addressed().map(|(tuple, datagram)| (tuple, datagram.to_vec())));
        }
        match &self.udp {
            Some(udp) => self.total += udp.send(&mut self.batch),
            None => self.batch.discard(),
        }
    }

    /// The datagrams that wait.
    pub fn batch(&self) -> &SendBatch {
        &self.batch
    }

    /// What became of all batches so far.
    pub fn total(&self) -> SendReport {
        self.total
    }
}

impl AddAssign for SendReport {
    fn add_assign(&mut self, other: SendReport) {
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.calls += other.calls;
        self.segmented += other.segmented;
        self.dropped += other.dropped;
    }
}
