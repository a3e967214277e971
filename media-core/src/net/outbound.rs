//! Where datagrams leave a shard: one batch, and the socket that takes it.
//!
//! Everything that is sent passes here, whatever its transport: the protocol of the tuple says which way a datagram takes.

use std::ops::AddAssign;
use std::rc::Rc;

use super::{MediaSocket, SendBatch, SendReport, TransportTuple};

/// The send batch and its socket. What does not fit into the batch makes it leave at once.
pub struct Outbound {
    batch: SendBatch,
    udp: Option<Rc<MediaSocket>>,
    /// What became of all batches so far.
    total: SendReport,
}

impl Outbound {
    /// Sends through this socket.
    pub fn new(udp: Rc<MediaSocket>) -> Outbound {
        Outbound { batch: SendBatch::new(udp.is_ipv6()), udp: Some(udp), total: SendReport::default() }
    }

    /// Sends nothing: a batch that is full is emptied, and [`Outbound::batch`] shows what was written. For measurements and
    /// simulations.
    pub fn disconnected() -> Outbound {
        Outbound { batch: SendBatch::new(false), udp: None, total: SendReport::default() }
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

    /// Takes the first `length` bytes of what [`Outbound::reserve`] gave as one datagram.
    #[inline]
    pub fn commit(&mut self, tuple: TransportTuple, length: usize) {
        self.batch.commit(tuple, length);
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
        if self.batch.is_empty() {
            return;
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
