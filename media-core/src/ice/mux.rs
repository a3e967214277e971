//! The socket as an agent of `webrtc-ice` sees it: two bounded queues, and its pending requests.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc;
use webrtc_ice::udp_mux::UDPMux;
use webrtc_util::{Conn, Error};

use super::check;
use crate::spec::SessionId;

/// Requests whose responses are awaited; an agent with all its pairs asks fewer in [`EXPIRY`].
const MAX_SENT: usize = 256;
/// The agent itself drops a request after 4 s.
const EXPIRY: Duration = Duration::from_secs(5);

/// A datagram that an agent sends.
#[derive(Debug)]
pub struct AgentTransmit {
    /// The session whose agent it is.
    pub owner: SessionId,
    /// Which of the session's agents: how many ICE restarts there were before it.
    pub generation: u32,
    /// Where to.
    pub to: SocketAddr,
    /// A whole STUN message.
    pub datagram: Vec<u8>,
    /// Set for requests: the response carries this id and no username, so a socket shared among sessions
    /// routes it by this. Five seconds are long enough to keep it.
    pub transaction: Option<[u8; 12]>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) transaction: [u8; 12],
    pub(super) to: SocketAddr,
    pub(super) nominates: bool,
    at: Instant,
}

/// The outgoing side, shared by the agents of one session.
pub(super) struct Outbound {
    owner: SessionId,
    generation: u32,
    transmit: mpsc::Sender<AgentTransmit>,
    /// The socket is of the IPv6 family, and takes IPv4 destinations in mapped form.
    mapped: bool,
    sent: Mutex<VecDeque<Sent>>,
}

impl Outbound {
    pub(super) fn new(
        owner: SessionId,
        generation: u32,
        local: IpAddr,
        transmit: mpsc::Sender<AgentTransmit>,
    ) -> Outbound {
        Outbound { owner, generation, transmit, mapped: local.is_ipv6(), sent: Mutex::new(VecDeque::new()) }
    }

    /// The form of an address that the socket uses.
    pub(super) fn socket_form(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.mapped => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            _ => address,
        }
    }

    /// The pending request with this id.
    pub(super) fn find(&self, transaction: [u8; 12], now: Instant) -> Option<Sent> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        while sent.front().is_some_and(|sent| now.saturating_duration_since(sent.at) > EXPIRY) {
            sent.pop_front();
        }
        sent.iter().find(|sent| sent.transaction == transaction).copied()
    }

    /// The response was received; a second one is ignored.
    pub(super) fn settle(&self, transaction: [u8; 12]) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).retain(|sent| sent.transaction != transaction);
    }

    fn send(&self, datagram: &[u8], to: SocketAddr) {
        let transaction = check::is_request(datagram).then(|| check::transaction_id(datagram)).flatten();
        if let Some(transaction) = transaction {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            if sent.len() >= MAX_SENT {
                sent.pop_front();
            }
            let nominates = check::nominates(datagram);
            sent.push_back(Sent { transaction, to, nominates, at: Instant::now() });
        }
        let to = self.socket_form(to);
        let (owner, generation) = (self.owner, self.generation);
        let transmit = AgentTransmit { owner, generation, to, datagram: datagram.to_vec(), transaction };
        // A full queue drops the message as a full socket would; checks are sent again.
        let _ = self.transmit.try_send(transmit);
    }
}

/// One agent's socket.
pub(super) struct MuxConn {
    pub(super) outbound: Arc<Outbound>,
    pub(super) local: SocketAddr,
    pub(super) inbound: tokio::sync::Mutex<mpsc::Receiver<(SocketAddr, Vec<u8>)>>,
}

#[async_trait]
impl Conn for MuxConn {
    async fn connect(&self, _: SocketAddr) -> Result<(), Error> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    async fn recv(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.recv_from(buffer).await.map(|(length, _)| length)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        let received = self.inbound.lock().await.recv().await;
        let (source, datagram) = received.ok_or_else(|| Error::from(io::Error::from(io::ErrorKind::BrokenPipe)))?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok((length, source))
    }

    async fn send(&self, _: &[u8]) -> Result<usize, Error> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<usize, Error> {
        self.outbound.send(datagram, to);
        Ok(datagram.len())
    }

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.local)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

/// Gives an agent the one connection made for it.
pub(super) struct OneConn(pub(super) Arc<MuxConn>);

#[async_trait]
impl UDPMux for OneConn {
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn get_conn(self: Arc<Self>, _: &str) -> Result<Arc<dyn Conn + Send + Sync>, Error> {
        Ok(Arc::clone(&self.0) as Arc<dyn Conn + Send + Sync>)
    }

    async fn remove_conn_by_ufrag(&self, _: &str) {}
}
