//! Receiving runs: UDP_GRO (Linux 5.0) coalesces consecutive datagrams of one peer into a single message.
//!
//! For clients with a socket per session, such as a load test. A shard's socket gets datagrams of many peers interleaved, which
//! never make a run, and reads them with [`super::ReceiveBatch`].

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use super::slots::{Control, Message, Slots};

/// Runs in one call. A client rarely has more than two waiting: a frame and audio.
const RUNS: usize = 4;
/// The longest run that the system makes.
const SLOT: usize = 1 << 16;
/// Switches UDP_GRO of a socket on or off.
///
/// With it on, a sender on the same machine does not have its UDP_SEGMENT runs cut for this socket, which a receiver on
/// another machine does not spare it.
///
/// # Errors
/// The system has no UDP_GRO; the socket receives one datagram at a time then.
pub fn set_run_receiving(socket: &impl AsFd, on: bool) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, on)
}

/// Makes a socket report how many datagrams it dropped (SO_RXQ_OVFL); see [`Run::overflowed`].
///
/// # Errors
/// The system has no SO_RXQ_OVFL.
pub fn count_overflows(socket: &impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, true)
}

/// Makes a socket report when the system received a datagram (SO_TIMESTAMPNS); see [`Run::received`].
///
/// # Errors
/// The system has no SO_TIMESTAMPNS.
pub fn stamp_arrivals(socket: &impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, true)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    // SAFETY: the option value is a live c_int and its size is given.
    let result = unsafe {
        let size = mem::size_of_val(&value) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Datagrams of one peer that arrived in a row, all of the same size except that the last one may be shorter.
pub struct Run<'a> {
    /// Their source.
    pub remote: SocketAddr,
    /// Datagrams that the socket has dropped for lack of room since it was opened, if any; wraps after 2^32.
    pub overflowed: Option<u32>,
    /// When the system received the first of them, since 1970 by its wall clock.
    pub received: Option<Duration>,
    data: &'a mut [u8],
    size: usize,
}

impl Run<'_> {
    /// The UDP payloads in order; they may be changed in place.
    pub fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.data.chunks_mut(self.size)
    }
}

/// Buffers for receiving runs, allocated once: 4 times 64 KiB. One serves any number of sockets by turns.
pub struct RunBatch(Slots);

impl RunBatch {
    /// Allocates the buffers.
    pub fn new() -> RunBatch {
        RunBatch(Slots::new(RUNS, SLOT))
    }

    /// One recvmmsg without waiting. True if every buffer was filled, so that more may be there; false if the socket is
    /// empty now.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` when the socket was empty. The batch is empty then.
    pub fn receive(&mut self, socket: &impl AsFd) -> io::Result<bool> {
        Ok(self.0.receive(socket.as_fd().as_raw_fd())? == RUNS)
    }

    /// The runs of the last call. One of unknown address family is left out.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Run<'_>> {
        self.0.iter_mut().map(|Message { remote, data, header, control, .. }| {
            let RunInfo { size, overflowed, received } = read_control(header, control);
            // Without the control message it is a single datagram.
            let size = size.unwrap_or(data.len()).max(1);
            Run { remote, overflowed, received, data, size }
        })
    }
}

impl Default for RunBatch {
    fn default() -> RunBatch {
        RunBatch::new()
    }
}

/// The control messages of a run.
#[derive(Default)]
struct RunInfo {
    size: Option<usize>,
    overflowed: Option<u32>,
    received: Option<Duration>,
}

fn read_control(header: &libc::msghdr, _control: &Control) -> RunInfo {
    let mut info = RunInfo::default();
    // SAFETY: the header and its control buffer (borrowed by `_control`) were written by recvmmsg, and the CMSG macros
    // stay inside `msg_controllen`; the data is read unaligned.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    info.size = usize::try_from(ptr::read_unaligned(data.cast::<libc::c_int>())).ok();
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    info.overflowed = Some(ptr::read_unaligned(data.cast::<u32>()));
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = ptr::read_unaligned(data.cast::<libc::timespec>());
                    info.received = Some(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32));
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::{MediaSocket, SendBatch, TransportTuple};
    use super::*;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_run_receiving(&socket, true).unwrap();
        count_overflows(&socket).unwrap();
        socket
    }

    #[tokio::test]
    async fn a_run_arrives_as_one_message_and_is_cut_where_it_was_joined() {
        let sender = MediaSocket::register(MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap()).unwrap();
        let receiver = socket();
        let tuple = TransportTuple::udp(receiver.local_addr().unwrap(), None);
        let mut out = SendBatch::new(sender.is_ipv6());
        let sizes = [1200, 1200, 1200, 700, 90];
        for (index, &size) in sizes.iter().enumerate() {
            out.push(tuple, &vec![index as u8; size]);
        }
        assert_eq!(sender.send(&mut out).sent, 5);
        let mut batch = RunBatch::new();
        assert!(!batch.receive(&receiver).unwrap(), "the socket is empty");
        let mut runs = Vec::new();
        for mut run in batch.iter_mut() {
            assert_eq!((run.remote, run.overflowed), (sender.address(), None));
            runs.push(run.datagrams().map(|datagram| datagram.to_vec()).collect::<Vec<_>>());
        }
        let flat: Vec<(usize, u8)> = runs.iter().flatten().map(|datagram| (datagram.len(), datagram[0])).collect();
        assert_eq!(flat, [(1200, 0), (1200, 1), (1200, 2), (700, 3), (90, 4)]);
        assert_eq!(runs.len(), 2, "1200, 1200, 1200, 700 | 90");
        assert_eq!(batch.receive(&receiver).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(batch.iter_mut().count(), 0);
    }

    #[test]
    fn a_full_batch_says_that_there_may_be_more() {
        let (sender, receiver) = (socket(), socket());
        for index in 0..RUNS as u8 + 1 {
            // Single datagrams are never joined on loopback.
            sender.send_to(&[index; 10], receiver.local_addr().unwrap()).unwrap();
        }
        let mut batch = RunBatch::new();
        assert!(batch.receive(&receiver).unwrap());
        assert_eq!(batch.iter_mut().count(), RUNS);
        assert!(!batch.receive(&receiver).unwrap());
        assert_eq!(batch.iter_mut().next().unwrap().datagrams().next().unwrap(), &[RUNS as u8; 10]);
    }

    #[test]
    fn a_socket_tells_what_it_had_no_room_for() {
        let (sender, receiver) = (socket(), socket());
        socket2::SockRef::from(&receiver).set_recv_buffer_size(1).unwrap();
        for _ in 0..100 {
            sender.send_to(&[1; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        let mut batch = RunBatch::new();
        let mut received = 0;
        while batch.receive(&receiver).is_ok() {
            received += batch.iter_mut().count();
        }
        // The count comes with the next datagram that finds room.
        sender.send_to(&[2; 10], receiver.local_addr().unwrap()).unwrap();
        batch.receive(&receiver).unwrap();
        let overflowed = batch.iter_mut().next().unwrap().overflowed;
        assert_eq!(overflowed.map(|count| count as usize), Some(100 - received));
        assert!(received < 100);
    }

    #[test]
    fn the_system_tells_when_it_received_a_datagram_however_late_it_is_read() {
        let since_1970 = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (sender, receiver) = (socket(), socket());
        stamp_arrivals(&receiver).unwrap();
        let mut batch = RunBatch::new();
        // The system begins to take times only some moments after the first socket has asked for them.
        let begun = since_1970();
        loop {
            sender.send_to(&[1; 10], receiver.local_addr().unwrap()).unwrap();
            let sent = since_1970();
            std::thread::sleep(Duration::from_millis(10));
            batch.receive(&receiver).unwrap();
            let received = batch.iter_mut().next().unwrap().received.unwrap();
            if received <= sent {
                break;
            }
            assert!(sent - begun < Duration::from_secs(10), "{received:?} is the time of reading");
        }
    }

    #[test]
    fn an_empty_datagram_is_a_run_of_nothing() {
        let (sender, receiver) = (socket(), socket());
        sender.send_to(&[], receiver.local_addr().unwrap()).unwrap();
        let mut batch = RunBatch::new();
        batch.receive(&receiver).unwrap();
        assert_eq!(batch.iter_mut().next().unwrap().datagrams().count(), 0);
    }
}
