//! A client's media socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use media_core::internals::net::{count_overflows, set_run_receiving, stamp_arrivals};

/// Room for what the server sends while the reader waits for its turn.
const SOCKET_BUFFER: usize = 2 << 20;

/// The local address for a server there.
pub(crate) fn local_ip(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A non-blocking socket on a free port. It receives in runs if the system can.
pub(crate) fn open_socket(ip: IpAddr) -> io::Result<std::net::UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    // The system may grant less.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // A system that lacks one of them only costs more CPU and tells less.
    let _ = set_run_receiving(&socket, true);
    let _ = count_overflows(&socket);
    let _ = stamp_arrivals(&socket);
    Ok(socket.into())
}
