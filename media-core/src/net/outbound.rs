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
    /// What would have been sent, if that is kept.
    #[cfg(feature = "fuzzing")]
    kept: Option<Vec<(TransportTuple, Vec<u8>)>>,
    /// What became of all batches so far.
    total: SendReport,
}

impl Outbound {
    /// Sends through this socket.
    pub fn new(udp: Rc<MediaSocket>) -> Outbound {
        let batch = SendBatch::new(udp.is_ipv6());
        Outbound { udp: Some(udp), batch, ..Outbound::disconnected() }
    }

    /// Sends nothing: a batch that is full is emptied, and [`Outbound::batch`] shows what was written. For measurements and
    /// simulations.
    pub fn disconnected() -> Outbound {
        Outbound {
            batch: SendBatch::new(false),
            udp: None,
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
