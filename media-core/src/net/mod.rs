//! Sockets and batches: recvmmsg, sendmmsg, UDP_SEGMENT, UDP_GRO. The only room with socket calls.

// The system calls take raw pointers; every block states why its pointers live long enough.
#![allow(unsafe_code)]

mod address;
mod gro;
mod receive;
mod send;
mod slots;
mod socket;

pub use gro::{Run, RunBatch, count_overflows, set_run_receiving, stamp_arrivals};
pub use receive::{Datagram, ReceiveBatch};
pub use send::{SendBatch, SendReport};
pub use socket::MediaSocket;

use std::net::{IpAddr, SocketAddr};

/// The way of a datagram to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The peer's transport address; IPv4 is never written as IPv4-mapped IPv6.
    pub remote: SocketAddr,
    /// The local address that the peer uses, on wildcard sockets only: replies must leave from it (RFC 8445 §7.3.1).
    pub local: Option<IpAddr>,
}
