//! Sockets and batches: recvmmsg, sendmmsg, UDP_SEGMENT, UDP_GRO; TCP connections and their framing. The only module with calls of
//! the system that need `unsafe`.

#![deny(clippy::disallowed_types)]
// The system calls take raw pointers; every block states why its pointers live long enough.
#![allow(unsafe_code)]

mod address;
mod buffers;
mod customer;
pub mod framing;
mod gro;
mod outbound;
mod poller;
mod receive;
mod segmentation;
mod send;
mod slots;
mod socket;
mod tcp;
mod traffic_class;

pub use buffers::{HeapUse, heap_use, return_free_memory, return_large_blocks};
pub use customer::customer;
pub use gro::{Run, RunBatch, count_overflows, set_run_receiving, stamp_arrivals};
pub use outbound::Outbound;
pub use poller::Poller;
pub use receive::{Datagram, ReceiveBatch};
pub use send::{SendBatch, SendReport};
pub use socket::{MediaSocket, bind_tcp};
pub(crate) use tcp::Event as TcpEvent;
pub use tcp::{IDLE, QUEUE, ROOM, TcpConnections};
pub use traffic_class::{Dscp, MediaDscp, NoDscp, TrafficClass};

use std::net::{IpAddr, SocketAddr};

/// The transport protocol of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// One datagram a packet.
    Udp,
    /// One frame a packet (RFC 4571), on a connection that the peer opened (RFC 6544).
    Tcp,
}

impl Protocol {
    /// The name in SDP, in the API and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        }
    }
}

/// Protocol, remote and local address of the packets exchanged with a peer. A shard has one UDP socket, so that the local port
/// goes without saying; a TCP connection has a number instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportTuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The number of a TCP connection in its shard, which another one gets once it is closed; 0 for UDP.
    pub connection: u16,
    /// The peer's transport address; IPv4 is never written as IPv4-mapped IPv6.
    pub remote: SocketAddr,
    /// The local address that the peer uses, on wildcard sockets only: replies must leave from it (RFC 8445 §7.3.1).
    pub local: Option<IpAddr>,
}

impl TransportTuple {
    /// A tuple of UDP.
    #[inline]
    pub const fn udp(remote: SocketAddr, local: Option<IpAddr>) -> TransportTuple {
        TransportTuple { protocol: Protocol::Udp, connection: 0, remote, local }
    }

    /// The tuple of a TCP connection.
    #[inline]
    pub const fn tcp(remote: SocketAddr, connection: u16) -> TransportTuple {
        TransportTuple { protocol: Protocol::Tcp, connection, remote, local: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_and_connection_cost_no_room_in_a_tuple() {
        // The fan-out compares a tuple a packet.
        assert_eq!(size_of::<TransportTuple>(), size_of::<(SocketAddr, Option<IpAddr>)>());
    }
}
