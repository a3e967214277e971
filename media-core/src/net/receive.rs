//! Receiving: up to 64 datagrams in one recvmmsg.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::ptr;

use super::TransportTuple;
use super::slots::{Control, Message, Slots};
use crate::ecn::Ecn;

/// Datagrams in one call.
const BATCH: usize = 64;
/// Bytes for one datagram: [`crate::demux::MAX_DATAGRAM`] and some more, so that longer ones are seen as such.
const SLOT: usize = 2048;

/// One received datagram.
pub struct Datagram<'a> {
    /// Its source, and the local address on which it was received.
    pub tuple: TransportTuple,
    /// How the network marked it, if the socket was asked to say so ([`super::MediaSocket::receive_ecn`]).
    pub ecn: Ecn,
    /// The UDP payload, or as much of it as there is room for; the buffer may be changed in place.
    pub data: &'a mut [u8],
    /// Length of the whole UDP payload.
    pub length: usize,
}

/// Buffers for recvmmsg, allocated once.
pub struct ReceiveBatch(Slots);

impl ReceiveBatch {
    /// Allocates the buffers: 64 times 2 KiB.
    pub fn new() -> ReceiveBatch {
        ReceiveBatch(Slots::new(BATCH, SLOT))
    }

    /// One recvmmsg; returns the number of datagrams.
    pub(super) fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        self.0.receive(fd)
    }

    /// The datagrams of the last call. One of unknown address family is left out.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.0.iter_mut().map(|Message { remote, data, length, header, control }| {
            let (local, ecn) = read_control(header, control);
            Datagram { tuple: TransportTuple::udp(remote, local), ecn, data, length }
        })
    }
}

impl Default for ReceiveBatch {
    fn default() -> ReceiveBatch {
        ReceiveBatch::new()
    }
}

/// Reads the control messages: the packet info, which wildcard sockets get, and the ECN field.
fn read_control(header: &libc::msghdr, _control: &Control) -> (Option<IpAddr>, Ecn) {
    let (mut local, mut ecn) = (None, Ecn::NotEct);
    // SAFETY: the header and its control buffer (borrowed by `_control`) were written by recvmmsg, and the CMSG macros
    // stay inside `msg_controllen`; the data is read unaligned.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    local = Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    local = Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())));
                }
                // One byte in IPv4, an int in IPv6.
                (libc::IPPROTO_IP, libc::IP_TOS) => ecn = Ecn::from_bits(*data),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    ecn = Ecn::from_bits(ptr::read_unaligned(data.cast::<libc::c_int>()) as u8);
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    (local, ecn)
}

#[cfg(test)]
mod tests {
    use super::super::MediaSocket;
    use super::*;

    // F-16
    #[tokio::test]
    async fn a_datagram_that_is_too_long_for_its_buffer_is_received_with_its_true_length() {
        let receiver = MediaSocket::register(MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap()).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sizes = [100, 1500, 1501, 2048, 2049, 9000];
        for size in sizes {
            sender.send_to(&vec![7; size], receiver.address()).unwrap();
        }
        let mut batch = ReceiveBatch::new();
        let mut received = Vec::new();
        while received.len() < sizes.len() {
            receiver.readable().await.unwrap();
            if receiver.receive(&mut batch).is_ok() {
                received.extend(batch.iter_mut().map(|datagram| (datagram.length, datagram.data.len())));
            }
        }
        assert_eq!(received, sizes.map(|size| (size, size.min(SLOT))));
    }
}
