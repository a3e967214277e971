//! The media socket of a shard.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{ReceiveBatch, SendBatch, SendReport};

/// Kernel buffers: a keyframe burst of a few hundred viewers must fit.
const KERNEL_BUFFER: usize = 8 << 20;

/// Connections that wait in the system's queue.
const TCP_BACKLOG: libc::c_int = 1024;

/// A bound, non-blocking UDP socket.
pub struct MediaSocket {
    /// Registered for reading alone: as tokio's own UDP socket it would wake the shard after each send, to say that there
    /// is room again.
    socket: AsyncFd<std::net::UdpSocket>,
    address: SocketAddr,
}

impl MediaSocket {
    /// Opens and binds a socket; [`MediaSocket::register`] then hands it to the runtime that serves it.
    ///
    /// An unspecified IPv6 address serves both families; where the host has no IPv6, IPv4 alone is served.
    pub fn bind(ip: IpAddr, port: u16) -> io::Result<std::net::UdpSocket> {
        match bind(SocketAddr::new(ip, port)) {
            Err(error) if ip.is_unspecified() && ip.is_ipv6() && no_ipv6(&error) => {
                bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
            }
            result => result,
        }
    }

    /// Hands a bound socket to the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn register(socket: std::net::UdpSocket) -> io::Result<MediaSocket> {
        let address = socket.local_addr()?;
        // SAFETY: a std socket names one file descriptor, its own, for as long as it lives; nothing of ours closes it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(MediaSocket { socket, address })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// True if the socket is of the IPv6 family, and so takes IPv4 destinations in mapped form.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Waits until something can be received.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// From now on datagrams are received with their ECN field. That costs a control message each, so that it is switched on
    /// only once somebody wants to know.
    ///
    /// # Errors
    /// The system does not say; the field is then read as [`Ecn::NotEct`](crate::ecn::Ecn::NotEct).
    pub fn receive_ecn(&self) -> io::Result<()> {
        let socket = socket2::SockRef::from(self.socket.get_ref());
        // A socket of IPv6 receives IPv4 as well, whose field comes as in a socket of IPv4.
        enable(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS)?;
        if self.is_ipv6() {
            enable(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
        }
        Ok(())
    }

    /// Fills `batch` with what is there, up to 64 datagrams. `WouldBlock` when there is nothing.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        self.socket.try_io(Interest::READABLE, |socket| batch.receive(socket.as_raw_fd()))
    }

    /// Sends the whole batch and empties it. What the socket does not take is dropped and counted.
    pub fn send(&self, batch: &mut SendBatch) -> SendReport {
        batch.flush(self.socket.as_raw_fd())
    }
}

/// Listens for TCP connections beside a UDP socket of this module: at its address and port.
///
/// # Errors
/// What the system said; `AddrInUse` where another process has the port.
pub fn bind_tcp(beside: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(beside), Type::STREAM, Some(Protocol::TCP))?;
    if beside.is_ipv6() {
        socket.set_only_v6(!beside.ip().is_unspecified())?;
    }
    // Connections of a server before, in TIME_WAIT, do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&beside.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    // The system caps these at its own limits; less is worse under load but no error.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    if address.ip().is_unspecified() {
        let (level, name) = match address {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        enable(&socket, level, name)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn enable(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is a live c_int and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
