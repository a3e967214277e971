//! Receiving: up to 64 datagrams in one recvmmsg.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::ptr;

use super::Path;
use super::address::{RAW_ADDRESS_LEN, RawAddress};

/// Datagrams in one call.
const BATCH: usize = 64;
/// Bytes for one datagram: [`crate::demux::MAX_DATAGRAM`] and some more, so that longer ones are seen as such.
const SLOT: usize = 2048;
/// Room for one in6_pktinfo control message.
const CONTROL: usize = 64;

/// Control message buffers must be aligned like `cmsghdr`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// One received datagram.
pub struct Datagram<'a> {
    /// Where it came from, and on which local address.
    pub path: Path,
    /// The UDP payload; the buffer may be changed in place.
    pub data: &'a mut [u8],
}

/// Buffers for recvmmsg, allocated once.
pub struct ReceiveBatch {
    data: Box<[u8]>,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
    // Points into `headers`' neighbours below; boxed slices never move.
    headers: Box<[libc::mmsghdr]>,
    _iovecs: Box<[libc::iovec]>,
    count: usize,
}

impl ReceiveBatch {
    /// Allocates the buffers: 64 times 2 KiB.
    pub fn new() -> ReceiveBatch {
        let mut data = vec![0u8; BATCH * SLOT].into_boxed_slice();
        let mut names = vec![RawAddress::zeroed(); BATCH].into_boxed_slice();
        let mut controls = vec![Control([0; CONTROL]); BATCH].into_boxed_slice();
        let mut iovecs: Box<[libc::iovec]> = data
            .chunks_exact_mut(SLOT)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT })
            .collect();
        let headers = (0..BATCH)
            .map(|index| {
                // SAFETY: all-zero bytes are a valid `mmsghdr`; the pointers follow.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_name = (&raw mut names[index]).cast();
                header.msg_hdr.msg_iov = &raw mut iovecs[index];
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = (&raw mut controls[index]).cast();
                header
            })
            .collect();
        ReceiveBatch { data, names, controls, headers, _iovecs: iovecs, count: 0 }
    }

    /// One recvmmsg; returns the number of datagrams.
    pub(super) fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = RAW_ADDRESS_LEN;
            header.msg_hdr.msg_controllen = CONTROL as _;
        }
        // SAFETY: every header points to buffers that `self` owns and nobody else touches during the call.
        let received = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), BATCH as _, libc::MSG_DONTWAIT as _, ptr::null_mut())
        };
        self.count = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.count)
    }

    /// The datagrams of the last call. One of unknown address family is left out.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let headers = &self.headers[..self.count];
        let names = &self.names;
        let controls = &self.controls;
        self.data.chunks_exact_mut(SLOT).zip(headers).enumerate().filter_map(move |(index, (slot, header))| {
            let remote = names[index].get()?;
            let local = local_address(&header.msg_hdr, &controls[index]);
            let length = (header.msg_len as usize).min(SLOT);
            Some(Datagram { path: Path { remote, local }, data: &mut slot[..length] })
        })
    }
}

impl Default for ReceiveBatch {
    fn default() -> ReceiveBatch {
        ReceiveBatch::new()
    }
}

/// Reads the packet-info control message, which wildcard sockets get.
fn local_address(header: &libc::msghdr, _control: &Control) -> Option<IpAddr> {
    // SAFETY: the header and its control buffer (borrowed by `_control`) were written by recvmmsg, and the CMSG macros
    // stay inside `msg_controllen`; the data is read unaligned.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    return Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                    return Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())));
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
    }
    None
}
