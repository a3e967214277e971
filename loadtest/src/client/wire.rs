//! Who reads a client's socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::framed::FramedSocket;
use super::reception::LentSocket;

/// A client's socket, by who reads it.
pub(super) enum Wire {
    /// The client's own task.
    Own(UdpSocket),
    /// A thread that does so for many.
    Lent(LentSocket),
    /// The client's own task, by TCP.
    Framed(FramedSocket),
}

impl Wire {
    /// Waits until there is something to do.
    pub(super) async fn ready(&self) -> io::Result<()> {
        match self {
            Wire::Own(socket) => socket.readable().await,
            Wire::Framed(socket) => socket.readable().await,
            Wire::Lent(lent) => {
                lent.notified().await;
                Ok(())
            }
        }
    }

    /// A datagram waits for room in an own socket: a load test that loses its own packets measures nothing. A viewer,
    /// whose socket is lent, sends some a second, for which there is always room.
    ///
    /// Nothing uses `try_send_to`: a fresh socket says "not ready" until the runtime has looked at it once.
    pub(super) async fn send(&mut self, datagram: &[u8], to: SocketAddr) {
        // What cannot be sent is lost, as on any network.
        let _ = match self {
            Wire::Own(socket) => socket.send_to(datagram, to).await,
            Wire::Lent(lent) => lent.socket().send_to(datagram, to),
            Wire::Framed(socket) => socket.send(datagram).await.map(|()| datagram.len()),
        };
    }
}
