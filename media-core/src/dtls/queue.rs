//! Datagrams between OpenSSL and the caller: one a read, one a write, boundaries kept.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// OpenSSL's side of the wire. A memory BIO would merge datagrams.
#[derive(Default)]
pub(super) struct DatagramQueue {
    inbound: Option<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

impl DatagramQueue {
    /// The datagram that OpenSSL reads next. It must not be empty: OpenSSL takes that for the end of the stream.
    pub(super) fn put(&mut self, datagram: &[u8]) {
        self.inbound = Some(datagram.to_vec());
    }

    /// Forgets what OpenSSL did not read.
    pub(super) fn clear(&mut self) {
        self.inbound = None;
    }

    /// Adds a datagram to those that OpenSSL wants to send.
    pub(super) fn send(&mut self, datagram: Vec<u8>) {
        self.outbound.push_back(datagram);
    }

    /// What waits to be sent.
    pub(super) fn unsent(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.outbound.iter()
    }

    /// The next datagram to send.
    #[cfg(test)]
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.outbound.pop_front()
    }

    /// The next datagrams to send, as one of at most `limit` bytes. OpenSSL puts a flight into as few as it can, and each message
    /// of one that it repeats into its own: the more there are, the more surely one of them is lost.
    pub(super) fn pop_joined(&mut self, limit: usize) -> Option<Vec<u8>> {
        let mut joined = self.outbound.pop_front()?;
        while self.outbound.front().is_some_and(|next| joined.len() + next.len() <= limit) {
            joined.extend(self.outbound.pop_front().into_iter().flatten());
        }
        Some(joined)
    }
}

impl Read for DatagramQueue {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbound.take().ok_or(io::ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buf.len());
        buf[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for DatagramQueue {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outbound.push_back(buf.to_vec());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
