//! A client's TCP connection to a media port (RFC 6544), with packets in frames (RFC 4571).

use std::io;
use std::net::SocketAddr;

use media_core::internals::net::framing::{Deframer, MAX_FRAME, prefix};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Bytes of one read.
const READ: usize = 64 << 10;

/// An active candidate's connection. It may still be connecting: what is sent waits for it.
pub(super) struct FramedSocket {
    stream: TcpStream,
    server: SocketAddr,
    deframer: Deframer,
    bytes: Box<[u8]>,
    packet: Box<[u8; MAX_FRAME]>,
}

impl FramedSocket {
    /// Begins to connect. Must be called inside a tokio runtime.
    pub(super) fn connect(server: SocketAddr) -> io::Result<FramedSocket> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(FramedSocket {
            stream: TcpStream::from_std(socket.into())?,
            server,
            deframer: Deframer::default(),
            bytes: vec![0; READ].into_boxed_slice(),
            packet: Box::new([0; MAX_FRAME]),
        })
    }

    /// The local address, which is known once the connection is on its way.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Waits for something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Sends a packet in a frame.
    pub(super) async fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let Some(prefix) = prefix(packet) else { return Ok(()) };
        self.stream.write_all(&[&prefix[..], packet].concat()).await
    }

    /// Hands over the packets that are there; at most so many reads, so that timers get their turn.
    ///
    /// # Errors
    /// The server closed the connection, or what it sent is no frame.
    pub(super) fn receive(&mut self, reads: usize, mut take: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<()> {
        let FramedSocket { stream, server, deframer, bytes, packet } = self;
        for _ in 0..reads {
            let length = match stream.try_read(bytes) {
                Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut rest = &bytes[..length];
            while let Some(length) = deframer.next(&mut rest, packet).map_err(io::Error::other)? {
                take(*server, &mut packet[..length]);
            }
        }
        Ok(())
    }
}
