//! Buffers for recvmmsg, which both kinds of receiving share.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr;

use super::address::{RAW_ADDRESS_LEN, RawAddress};
use crate::srtp::ALIGNMENT;

/// Room for the control messages of one message: an `in6_pktinfo`, or two `int` and a `timespec`.
const CONTROL: usize = 128;

/// Control message buffers must be aligned like `cmsghdr`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; CONTROL]);

/// Room for several messages, allocated once.
pub(super) struct Slots {
    data: Box<[u8]>,
    /// Bytes for one message.
    size: usize,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
    // Points into its neighbours; boxed slices never move.
    headers: Box<[libc::mmsghdr]>,
    _iovecs: Box<[libc::iovec]>,
    filled: usize,
}

// SAFETY: the raw pointers in `headers` and `_iovecs` lead only into boxes that the same value owns.
unsafe impl Send for Slots {}

/// One message that the system wrote.
pub(super) struct Message<'a> {
    pub(super) remote: SocketAddr,
    /// As much of it as there was room for.
    pub(super) data: &'a mut [u8],
    /// Its length on the wire.
    pub(super) length: usize,
    pub(super) header: &'a libc::msghdr,
    /// Where the header's control messages are; whoever reads them by the header holds this.
    pub(super) control: &'a Control,
}

impl Slots {
    /// Room for `count` messages of `size` bytes each.
    pub(super) fn new(count: usize, size: usize) -> Slots {
        let mut data = vec![0; count * size].into_boxed_slice();
        debug_assert!(data.as_ptr().addr().is_multiple_of(ALIGNMENT) && size.is_multiple_of(ALIGNMENT));
        let mut names = vec![RawAddress::zeroed(); count].into_boxed_slice();
        let mut controls = vec![Control([0; CONTROL]); count].into_boxed_slice();
        let mut iovecs: Box<[libc::iovec]> = data
            .chunks_exact_mut(size)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: size })
            .collect();
        let headers = names
            .iter_mut()
            .zip(controls.iter_mut())
            .zip(iovecs.iter_mut())
            .map(|((name, control), iovec)| {
                // SAFETY: all-zero bytes are a valid `mmsghdr`; the pointers follow.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_name = (&raw mut *name).cast();
                header.msg_hdr.msg_iov = &raw mut *iovec;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = (&raw mut *control).cast();
                header
            })
            .collect();
        Slots { data, size, names, controls, headers, _iovecs: iovecs, filled: 0 }
    }

    /// One recvmmsg without waiting; returns the number of messages.
    ///
    /// # Errors
    /// The system's error; there are no messages then.
    pub(super) fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        self.filled = 0;
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = RAW_ADDRESS_LEN;
            header.msg_hdr.msg_controllen = CONTROL as _;
        }
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len());
        // MSG_TRUNC: the length of a datagram that was cut is its length on the wire.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: every header points to buffers that `self` owns and nobody else touches during the call.
        let received = unsafe { libc::recvmmsg(fd, headers, count as _, flags as _, ptr::null_mut()) };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// The messages of the last call. One of unknown address family is left out.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = Message<'_>> {
        let (headers, size) = (&self.headers[..self.filled], self.size);
        let (names, controls) = (&self.names, &self.controls);
        self.data.chunks_exact_mut(size).zip(headers).enumerate().filter_map(move |(index, (slot, header))| {
            let remote = names[index].get()?;
            let length = header.msg_len as usize;
            let data = &mut slot[..length.min(size)];
            Some(Message { remote, data, length, header: &header.msg_hdr, control: &controls[index] })
        })
    }
}
