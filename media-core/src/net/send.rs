//! Sending: datagrams are written straight into one contiguous buffer; neighbours to one peer and of one size form a
//! run, which leaves as one message with UDP_SEGMENT; all runs of a batch leave in few sendmmsg.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Instant;

use super::address::{RawAddress, pktinfo_v6};
use super::segmentation::Segmentation;
use super::{TrafficClass, TransportTuple};
use crate::srtp::ALIGNMENT;

/// Bytes of the buffer, at least 40 datagrams: more would delay the first of them, and fall out of the processor's cache
/// before it is sent.
const BUFFER: usize = 64 << 10;
/// Messages in one sendmmsg.
const MESSAGES: usize = 64;
/// The kernel's UDP_MAX_SEGMENTS.
const MAX_SEGMENTS: usize = 64;
/// Larger datagrams travel alone: where a segment does not fit the path's MTU the kernel refuses the whole message, and
/// 1452 bytes fit an Ethernet frame in IPv6.
const MAX_SEGMENT: usize = 1452;
/// Largest UDP payload of one message, segments together.
const MAX_MESSAGE: usize = 65_507;
/// Room for the control messages of UDP_SEGMENT, of the packet info and of the traffic class.
const CONTROL: usize = 96;

/// One message: datagrams of equal size (the last may be shorter) to one peer.
#[derive(Clone, Copy)]
struct Run {
    tuple: TransportTuple,
    offset: usize,
    length: usize,
    /// Size of each datagram but the last.
    segment: usize,
    count: usize,
    class: TrafficClass,
}

/// The result of sending a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Datagrams that the socket took.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Calls of sendmmsg.
    pub calls: u64,
    /// Messages that carried several datagrams.
    pub segmented: u64,
    /// Datagrams that the socket refused.
    pub dropped: u64,
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Datagrams on their way to the socket.
pub struct SendBatch {
    buffer: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
    ipv6: bool,
    segmentation: Segmentation,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl SendBatch {
    /// Allocates the buffers for a socket of the given family.
    pub fn new(ipv6_socket: bool) -> SendBatch {
        // SAFETY: all-zero bytes are valid values of both plain-data types.
        let (iovec, header): (libc::iovec, libc::mmsghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let buffer = vec![0; BUFFER].into_boxed_slice();
        debug_assert!(buffer.as_ptr().addr().is_multiple_of(ALIGNMENT));
        SendBatch {
            buffer,
            used: 0,
            runs: Vec::with_capacity(BUFFER / 64),
            ipv6: ipv6_socket,
            segmentation: Segmentation::default(),
            names: vec![RawAddress::zeroed(); MESSAGES].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); MESSAGES].into_boxed_slice(),
            iovecs: vec![iovec; MESSAGES].into_boxed_slice(),
            headers: vec![header; MESSAGES].into_boxed_slice(),
        }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes that can still be written.
    pub fn room(&self) -> usize {
        // The list of runs never grows past its allocation.
        if self.runs.len() == self.runs.capacity() { 0 } else { self.buffer.len() - self.next() }
    }

    /// The free end of the buffer, from where a packet may begin for SRTP ([`ALIGNMENT`]): write one datagram to its front, then
    /// [`SendBatch::commit`] its length.
    pub fn spare(&mut self) -> &mut [u8] {
        let next = self.next();
        &mut self.buffer[next..]
    }

    /// Where the next datagram is written.
    #[inline]
    fn next(&self) -> usize {
        self.used.next_multiple_of(ALIGNMENT).min(self.buffer.len())
    }

    /// Takes the first `length` bytes of [`SendBatch::spare`], or all if there are fewer, as one datagram to `tuple`. An
    /// empty datagram is none.
    pub fn commit(&mut self, tuple: TransportTuple, length: usize) {
        self.commit_marked(tuple, length, TrafficClass::DEFAULT);
    }

    /// The same with a traffic class.
    #[inline]
    pub fn commit_marked(&mut self, tuple: TransportTuple, length: usize, class: TrafficClass) {
        let offset = self.next();
        let length = length.min(self.buffer.len() - offset);
        if length == 0 {
            return;
        }
        if !self.segmentation.is_paused()
            && let Some(run) = self.runs.last_mut()
            && run.tuple == tuple
            && run.class == class
            // A shorter datagram has closed the run.
            && run.length == run.segment * run.count
            && length <= run.segment
            && run.segment <= MAX_SEGMENT
            && run.count < MAX_SEGMENTS
            && run.length + length <= MAX_MESSAGE
        {
            // Segments have no gaps between them. To move this one costs less than to give the kernel each by itself.
            if offset != self.used {
                self.buffer.copy_within(offset..offset + length, self.used);
            }
            self.used += length;
            run.length += length;
            run.count += 1;
            return;
        }
        self.used = offset + length;
        self.runs.push(Run { tuple, offset, length, segment: length, count: 1, class });
    }

    /// Messages that the waiting datagrams make: neighbours to one peer share one.
    pub fn messages(&self) -> usize {
        self.runs.len()
    }

    /// Empties the batch without sending it.
    pub fn discard(&mut self) {
        self.runs.clear();
        self.used = 0;
    }

    /// The datagrams that wait.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.addressed().map(|(_, datagram)| datagram)
    }

    /// The datagrams that wait, and where each is to go.
    pub(crate) fn addressed(&self) -> impl Iterator<Item = (TransportTuple, &[u8])> {
        let datagrams = self.runs.iter().flat_map(Run::datagrams);
        datagrams.map(|datagram| (datagram.tuple, &self.buffer[datagram.offset..datagram.offset + datagram.length]))
    }

    /// Copies one whole datagram in. False if there is no room for it, so that it is dropped.
    pub fn push(&mut self, tuple: TransportTuple, datagram: &[u8]) -> bool {
        if datagram.len() > self.room() {
            return false;
        }
        self.spare()[..datagram.len()].copy_from_slice(datagram);
        self.commit(tuple, datagram.len());
        true
    }

    /// Sends everything and empties the batch.
    pub(super) fn flush(&mut self, fd: RawFd) -> SendReport {
        let mut report = SendReport::default();
        let mut next = 0;
        if !self.segmentation.is_whole() {
            self.segmentation.poll(Instant::now());
            self.split_refused();
        }
        while next < self.runs.len() {
            let count = self.prepare(next);
            // SAFETY: the first `count` headers were just pointed at buffers that `self` owns.
            let sent = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), count as _, libc::MSG_DONTWAIT as _) };
            report.calls += 1;
            if let Ok(sent) = usize::try_from(sent) {
                for run in &self.runs[next..next + sent] {
                    if run.count > 1 {
                        self.segmentation.on_passed();
                    }
                    report.sent += run.count as u64;
                    report.bytes += run.length as u64;
                    report.segmented += u64::from(run.count > 1);
                }
                next += sent;
                continue;
            }
            let error = io::Error::last_os_error();
            let refused = self.runs[next];
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The MTU of this one path is smaller than the segments, or its device or tunnel cannot cut them: its datagrams
                // leave one by one.
                Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP) if refused.count > 1 => {
                    if self.segmentation.on_refused(Instant::now(), refused.tuple.remote) {
                        tracing::warn!(%error, "UDP segmentation is refused by all; datagrams leave one by one for a minute");
                        self.split_runs(next, self.runs.len());
                    } else {
                        self.split_runs(next, next + 1);
                    }
                }
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    // The socket is full: later runs would only wait longer than they are worth.
                    report.dropped += self.runs[next..].iter().map(|run| run.count as u64).sum::<u64>();
                    break;
                }
                _ => {
                    // One unreachable destination must not block the others.
                    report.dropped += refused.count as u64;
                    next += 1;
                }
            }
        }
        self.discard();
        report
    }

    /// Points the headers at the runs from `first` on; returns how many.
    fn prepare(&mut self, first: usize) -> usize {
        let runs = &self.runs[first..self.runs.len().min(first + MESSAGES)];
        for (index, run) in runs.iter().enumerate() {
            let name_length = self.names[index].set(run.tuple.remote, self.ipv6);
            self.iovecs[index] =
                libc::iovec { iov_base: self.buffer[run.offset..].as_mut_ptr().cast(), iov_len: run.length };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = name_length;
            header.msg_iov = &raw mut self.iovecs[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = write_control(header, run, self.ipv6) as _;
            if header.msg_controllen == 0 {
                header.msg_control = ptr::null_mut();
            }
        }
        runs.len()
    }

    /// Splits the runs to those who refused one of late.
    fn split_refused(&mut self) {
        for index in (0..self.runs.len()).rev() {
            let run = self.runs[index];
            if run.count > 1 && self.segmentation.splits(run.tuple.remote) {
                self.split_runs(index, index + 1);
            }
        }
    }

    /// Turns the runs from `first` to before `end` into single datagrams.
    fn split_runs(&mut self, first: usize, end: usize) {
        let singles: Vec<Run> = self.runs[first..end].iter().flat_map(Run::datagrams).collect();
        self.runs.splice(first..end, singles);
    }
}

impl Run {
    /// The run as runs of one datagram each.
    fn datagrams(&self) -> impl Iterator<Item = Run> + use<> {
        let run = *self;
        (0..run.length).step_by(run.segment.max(1)).map(move |offset| {
            let length = run.segment.min(run.length - offset);
            Run { offset: run.offset + offset, length, segment: length, count: 1, ..run }
        })
    }
}

/// Writes the control messages of a run to where the header points; returns their length.
fn write_control(header: &mut libc::msghdr, run: &Run, ipv6_socket: bool) -> usize {
    header.msg_controllen = CONTROL as _;
    // SAFETY: `msg_control` points to CONTROL bytes aligned like `cmsghdr`; all messages together are shorter.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        let mut length = 0;
        if run.count > 1 {
            length += put(message, libc::SOL_UDP, libc::UDP_SEGMENT, run.segment as u16);
        }
        if let Some(local) = run.tuple.local {
            let message = message.byte_add(length);
            if ipv6_socket {
                length += put(message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, pktinfo_v6(local));
            } else if let std::net::IpAddr::V4(v4) = local {
                let address = libc::in_addr { s_addr: u32::from_ne_bytes(v4.octets()) };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
                length += put(message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
        }
        if run.class != TrafficClass::DEFAULT {
            // What counts is the family of the packet: a socket of IPv6 sends IPv4, too.
            let (level, name) = match run.tuple.remote {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            length += put(message.byte_add(length), level, name, libc::c_int::from(run.class.byte()));
        }
        length
    }
}

/// Writes one control message; returns the room that it takes.
///
/// # Safety
/// `message` must point to aligned room for `CMSG_SPACE(size_of::<T>())` bytes.
unsafe fn put<T>(message: *mut libc::cmsghdr, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    // SAFETY: the caller vouches for the room.
    unsafe {
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(mem::size_of::<T>() as _) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast::<T>(), value);
        libc::CMSG_SPACE(mem::size_of::<T>() as _) as usize
    }
}

const _: () = {
    // SAFETY: the macro computes with sizes alone.
    let longest = unsafe {
        libc::CMSG_SPACE(size_of::<u16>() as _)
            + libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as _)
            + libc::CMSG_SPACE(size_of::<libc::c_int>() as _)
    };
    assert!(longest as usize <= CONTROL, "the control messages of a run need more room");
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecn::Ecn;
    use crate::net::{MediaSocket, ReceiveBatch};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

    fn receive_all(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        (0..count)
            .map(|_| {
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer).unwrap();
                buffer[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn no_length_breaks_a_batch() {
        let tuple = TransportTuple::udp("127.0.0.1:9".parse().unwrap(), None);
        let mut batch = SendBatch::new(false);
        batch.commit(tuple, 0);
        assert!(batch.push(tuple, &[]) && batch.is_empty());
        assert!(batch.push(tuple, &[1; 1200]));
        batch.commit(tuple, usize::MAX);
        assert_eq!(batch.room(), 0);
        assert!(!batch.push(tuple, &[2]));
        batch.commit(tuple, 1);
        let lengths: Vec<_> = batch.datagrams().map(<[u8]>::len).collect();
        assert_eq!(lengths, [1200, BUFFER - 1200]);
    }

    #[tokio::test]
    async fn runs_arrive_as_the_datagrams_that_were_written() {
        let socket = MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        let peers: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut batch = SendBatch::new(socket.is_ipv6());
        let sizes = [1200, 1200, 1200, 700, 1200, 90];
        for peer in &peers {
            let tuple = TransportTuple::udp(peer.local_addr().unwrap(), None);
            for (index, &size) in sizes.iter().enumerate() {
                batch.push(tuple, &vec![index as u8; size]);
            }
        }
        let report = socket.send(&mut batch);
        assert_eq!((report.sent, report.dropped, report.calls), (18, 0, 1));
        // 1200, 1200, 1200, 700 | 1200, 90
        assert_eq!(report.segmented, 6);
        for peer in &peers {
            let got = receive_all(peer, sizes.len());
            for (index, datagram) in got.iter().enumerate() {
                assert_eq!(datagram, &vec![index as u8; sizes[index]]);
            }
        }
        assert!(batch.is_empty());
    }

    // M5
    #[tokio::test]
    async fn every_datagram_begins_where_srtp_wants_it_and_none_is_altered() {
        let socket = MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        let peers: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut batch = SendBatch::new(false);
        let sizes = [1178, 1178, 1178, 1177, 1177, 91, 90, 90, 3];
        for peer in &peers {
            let tuple = TransportTuple::udp(peer.local_addr().unwrap(), None);
            for (index, &size) in sizes.iter().enumerate() {
                assert!(batch.spare().as_ptr().addr().is_multiple_of(ALIGNMENT));
                batch.spare()[..size].fill(index as u8);
                batch.commit(tuple, size);
            }
        }
        // 1178, 1178, 1178, 1177 | 1177, 91 | 90, 90, 3
        assert_eq!(batch.messages(), 6);
        let report = socket.send(&mut batch);
        assert_eq!((report.sent, report.dropped), (18, 0));
        for peer in &peers {
            for (index, datagram) in receive_all(peer, sizes.len()).iter().enumerate() {
                assert_eq!(datagram, &vec![index as u8; sizes[index]]);
            }
        }
    }

    #[tokio::test]
    async fn one_bad_destination_skips_only_itself() {
        let socket = MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let good = TransportTuple::udp(peer.local_addr().unwrap(), None);
        let bad = TransportTuple::udp("127.0.0.1:0".parse().unwrap(), None);
        let mut batch = SendBatch::new(false);
        batch.push(good, b"first");
        batch.push(bad, b"nowhere");
        batch.push(good, b"second");
        let report = socket.send(&mut batch);
        assert_eq!((report.sent, report.dropped), (2, 1));
        assert_eq!(receive_all(&peer, 2), vec![b"first".to_vec(), b"second".to_vec()]);
    }

    #[tokio::test]
    async fn splitting_a_refused_run_keeps_every_datagram() {
        let socket = MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tuple = TransportTuple::udp(peer.local_addr().unwrap(), None);
        let mut batch = SendBatch::new(false);
        for size in [500, 500, 120] {
            batch.push(tuple, &vec![7; size]);
        }
        let refused = batch.segmentation.on_refused(Instant::now(), tuple.remote);
        assert!(!refused);
        let report = socket.send(&mut batch);
        assert_eq!((report.sent, report.segmented), (3, 0));
        let sizes: Vec<usize> = receive_all(&peer, 3).iter().map(Vec::len).collect();
        assert_eq!(sizes, [500, 500, 120]);
    }

    // The finding "one viewer's small MTU turns segmentation off for all for ever".
    #[tokio::test]
    async fn a_peer_that_refused_a_run_gets_single_datagrams_and_the_others_runs() {
        let socket = MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        let peers: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut batch = SendBatch::new(false);
        let refused = peers[1].local_addr().unwrap();
        for _ in 0..100 {
            assert!(!batch.segmentation.on_refused(Instant::now(), refused));
        }
        for peer in &peers {
            for size in [500, 500, 120] {
                batch.push(TransportTuple::udp(peer.local_addr().unwrap(), None), &vec![7; size]);
            }
        }
        let report = socket.send(&mut batch);
        assert_eq!((report.sent, report.segmented), (9, 2));
        for peer in &peers {
            assert_eq!(receive_all(peer, 3).iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 120]);
        }
    }

    // What one peer sends or one path takes decides nothing for the others.
    #[tokio::test]
    async fn one_refused_run_is_split_and_the_others_stay_segmented() {
        let socket = MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        let peers: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut batch = SendBatch::new(false);
        for peer in &peers {
            for size in [500, 500, 120] {
                batch.push(TransportTuple::udp(peer.local_addr().unwrap(), None), &vec![7; size]);
            }
        }
        batch.split_runs(1, 2);
        let report = socket.send(&mut batch);
        assert_eq!((report.sent, report.segmented), (9, 2));
        for peer in &peers {
            assert_eq!(receive_all(peer, 3).iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 120]);
        }
        let tuple = TransportTuple::udp(peers[0].local_addr().unwrap(), None);
        batch.push(tuple, &[1; 1453]);
        batch.push(tuple, &[1; 1453]);
        assert_eq!(batch.runs.len(), 2);
        socket.send(&mut batch);
    }

    // RTCP-15: marks leave and are read over both families, through sockets of one and of both.
    #[tokio::test]
    async fn the_ecn_field_is_sent_and_read_packet_by_packet() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pairs = [
            (v4, v4),
            (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), v4),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        for (bound, through) in pairs {
            let [sender, receiver] =
                [(); 2].map(|()| MediaSocket::register(MediaSocket::bind(bound, 0).unwrap()).unwrap());
            let tuple = TransportTuple::udp(SocketAddr::new(through, receiver.address().port()), None);
            let mut batch = SendBatch::new(sender.is_ipv6());
            let mut send = |ecns: &[Ecn]| {
                for (index, &ecn) in ecns.iter().enumerate() {
                    batch.spare()[..100].fill(index as u8);
                    batch.commit_marked(tuple, 100, ecn.into());
                }
                assert_eq!(sender.send(&mut batch).sent, ecns.len() as u64);
            };
            let ecns = [Ecn::Ect1, Ecn::Ect1, Ecn::NotEct, Ecn::Ce, Ecn::Ect0, Ecn::Ect1];
            send(&[Ecn::Ce]);
            assert_eq!(receive_marks(&receiver, 1).await, [(0, Ecn::NotEct)], "nobody has asked");
            receiver.receive_ecn().unwrap();
            send(&ecns);
            let expected: Vec<_> = (0u8..).zip(ecns).collect();
            assert_eq!(receive_marks(&receiver, ecns.len()).await, expected, "{bound} to {through}");
        }
    }

    /// The first bytes of so many datagrams, and their marks.
    async fn receive_marks(socket: &MediaSocket, count: usize) -> Vec<(u8, Ecn)> {
        let (mut received, mut batch) = (Vec::new(), ReceiveBatch::new());
        while received.len() < count {
            socket.readable().await.unwrap();
            if socket.receive(&mut batch).is_ok() {
                received.extend(batch.iter_mut().map(|datagram| (datagram.data[0], datagram.ecn)));
            }
        }
        received
    }

    // ICE-21: on a wildcard socket a reply leaves from the address that the request reached.
    #[tokio::test]
    async fn replies_leave_from_the_address_that_was_reached() {
        let socket = MediaSocket::bind(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0).unwrap();
        let socket = MediaSocket::register(socket).unwrap();
        for (client, server) in [("127.0.0.1:0", "127.0.0.5"), ("127.0.0.1:0", "127.0.0.1")] {
            let client = UdpSocket::bind(client).unwrap();
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            client.send_to(b"ping", (server, socket.address().port())).unwrap();
            let mut received = ReceiveBatch::new();
            let tuple = loop {
                socket.readable().await.unwrap();
                match socket.receive(&mut received) {
                    Ok(_) => break received.iter_mut().next().unwrap().tuple,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!(tuple.local, Some(server.parse().unwrap()));
            let mut batch = SendBatch::new(socket.is_ipv6());
            batch.push(tuple, b"pong");
            batch.push(tuple, b"pong");
            assert_eq!(socket.send(&mut batch).sent, 2);
            let mut buffer = [0; 16];
            let (_, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from.ip(), server.parse::<IpAddr>().unwrap());
        }
    }
}
