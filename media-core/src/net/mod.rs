//! Sockets and batches: recvmmsg, sendmmsg, UDP_SEGMENT, UDP_GRO. The only module with calls of the system that need `unsafe`.

#![deny(clippy::disallowed_types)]
// The system calls take raw pointers; every block states why its pointers live long enough.
#![allow(unsafe_code)]

mod address;
mod buffers;
mod gro;
mod outbound;
mod receive;
mod segmentation;
mod send;
mod slots;
mod socket;

pub use buffers::return_large_blocks;
pub use gro::{Run, RunBatch, count_overflows, set_run_receiving, stamp_arrivals};
pub use outbound::Outbound;
pub use receive::{Datagram, ReceiveBatch};
pub use send::{SendBatch, SendReport};
pub use socket::MediaSocket;

use std::net::{IpAddr, SocketAddr};

/// The transport protocol of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// One datagram a packet.
    Udp,
}

/// Protocol, remote and local address of the packets exchanged with a peer. A shard has one socket a protocol, so that
/// the local port goes without saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportTuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The peer's transport address; IPv4 is never written as IPv4-mapped IPv6.
    pub remote: SocketAddr,
    /// The local address that the peer uses, on wildcard sockets only: replies must leave from it (RFC 8445 §7.3.1).
    pub local: Option<IpAddr>,
}

impl TransportTuple {
    /// A tuple of UDP.
    #[inline]
    pub const fn udp(remote: SocketAddr, local: Option<IpAddr>) -> TransportTuple {
        TransportTuple { protocol: Protocol::Udp, remote, local }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_costs_no_room_in_a_tuple() {
        // The fan-out compares a tuple a packet.
        assert_eq!(size_of::<TransportTuple>(), size_of::<(SocketAddr, Option<IpAddr>)>());
    }
}
