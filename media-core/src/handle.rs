//! The handle by which control reaches the shards.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};

use crate::clock::WallClock;
use crate::config::{CoreConfig, PublicAddress};
use crate::dtls::{Certificate, DtlsContext, DtlsError, HandshakePool, PoolHandle};
use crate::event::CoreEvent;
use crate::ice::{host_priority, tcp_host_priority};
use crate::layers::LayerSelection;
use crate::ledger::Reason;
use crate::load::{self, Load};
use crate::media::{Role, TrackId};
use crate::net::{MediaSocket, Protocol, bind_tcp, return_large_blocks};
use crate::pulse::{CoreThread, Pulse, Vital};
use crate::shard::{self, HandedOver, ShardInbox, ShardMessage, ShardSender, ShardSetup};
use crate::spec::{
    Fingerprint, IceRestart, LocalCandidate, RemoteCandidate, SessionId, SessionSpec, ShardIndex, StreamId,
};
use crate::stats::{ShardCounters, ShardSnapshot};

/// Why the core did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A media socket could not be opened.
    #[error("cannot listen on {} {address}: {source}", protocol.as_str().to_uppercase())]
    Listen {
        /// Of the socket.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// OpenSSL or libsrtp refused to start.
    #[error("cannot set up cryptography: {0}")]
    Crypto(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The running core: shards and handshake threads. Cloning gives another handle to the same core. No call panics: one for
/// a shard that the core does not have does nothing.
#[derive(Clone)]
pub struct MediaCore {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<ShardHandle>,
    pool: PoolHandle,
    certificates: RwLock<Certificates>,
    /// What candidates depend on besides the addresses.
    tcp: TcpCandidates,
    /// TCP connections of other listeners that no shard has taken yet.
    handed_over: Arc<AtomicUsize>,
    threads: Mutex<Option<Threads>>,
}

/// The certificates that answers have announced of late.
struct Certificates {
    present: Announced,
    /// An answer may be on its way that names the one before.
    former: Option<Announced>,
}

struct Announced {
    certificate: Certificate,
    context: DtlsContext,
}

impl Announced {
    fn new() -> Result<Announced, DtlsError> {
        let certificate = Certificate::generate()?;
        let context = DtlsContext::new(&certificate)?;
        Ok(Announced { certificate, context })
    }
}

impl Certificates {
    /// The certificate that an answer announced; the present one if that is none of ours.
    fn announced(&self, fingerprint: &Fingerprint) -> &DtlsContext {
        let former = self.former.as_ref().filter(|former| former.certificate.fingerprint() == fingerprint);
        &former.unwrap_or(&self.present).context
    }
}

/// Joined at shutdown: first the shards, then the pool, which sends their last close_notify.
struct Threads {
    shards: Vec<JoinHandle<()>>,
    pool: HandshakePool,
}

struct ShardHandle {
    sender: ShardSender,
    /// Of its socket.
    port: u16,
    candidates: RwLock<Arc<[LocalCandidate]>>,
    load: Arc<Load>,
    pulse: Arc<Pulse>,
}

impl MediaCore {
    /// Opens the sockets and starts the threads. The receiver yields events until the core has shut down.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: CoreConfig) -> Result<(MediaCore, mpsc::UnboundedReceiver<CoreEvent>), StartError> {
        return_large_blocks();
        let present = Announced::new().map_err(|error| StartError::Crypto(error.to_string()))?;
        let pool = HandshakePool::start(config.handshake_threads.max(1)).map_err(StartError::Thread)?;
        let config = Arc::new(config);
        let wall = WallClock::now();
        let (events, event_receiver) = mpsc::unbounded_channel();
        let (senders, inboxes): (Vec<ShardSender>, Vec<_>) =
            (0..config.shards.max(1)).map(|_| shard::mailbox()).unzip();
        // All sockets first: a thread that runs already would keep its own when a later one cannot be had.
        let sockets = (0..inboxes.len()).map(|index| bind(&config, index)).collect::<Result<Vec<_>, _>>()?;
        let mut shards = Vec::new();
        let mut threads = Vec::new();
        let tcp = TcpCandidates { beside_udp: config.ice_tcp, elsewhere: config.ice_tcp_elsewhere };
        for (index, (inbox, (socket, listener, port))) in inboxes.into_iter().zip(sockets).enumerate() {
            let (load, pulse) = (Arc::<Load>::default(), Arc::<Pulse>::default());
            let setup = ShardSetup {
                index,
                config: config.clone(),
                socket,
                listener,
                links: senders.clone(),
                wall,
                pool: pool.handle(),
                events: events.clone(),
                load: load.clone(),
                pulse: pulse.clone(),
                counters: ShardCounters::default(),
            };
            threads.push(spawn(setup, inbox).map_err(StartError::Thread)?);
            let candidates = RwLock::new(candidates(&config.public_addresses, index, port, tcp));
            shards.push(ShardHandle { sender: senders[index].clone(), port, candidates, load, pulse });
        }
        let certificates = RwLock::new(Certificates { present, former: None });
        let pool_handle = pool.handle();
        let threads = Mutex::new(Some(Threads { shards: threads, pool }));
        let inner = Inner { shards, pool: pool_handle, certificates, tcp, handed_over: Arc::default(), threads };
        Ok((MediaCore { inner: Arc::new(inner) }, event_receiver))
    }

    /// SHA-256 fingerprint of the present certificate, for `a=fingerprint` and [`SessionSpec::certificate`].
    pub fn fingerprint(&self) -> Fingerprint {
        let certificates = self.inner.certificates.read().unwrap_or_else(PoisonError::into_inner);
        certificates.present.certificate.fingerprint().clone()
    }

    /// When the present certificate's validity ends.
    pub fn certificate_expires(&self) -> SystemTime {
        let certificates = self.inner.certificates.read().unwrap_or_else(PoisonError::into_inner);
        certificates.present.certificate.expires()
    }

    /// From now on answers announce another certificate, and the sessions that they are for show it. Sessions whose answer
    /// announced the one before go on with that.
    ///
    /// # Errors
    /// OpenSSL refused to make one; the present one stays.
    pub fn renew_certificate(&self) -> Result<(), DtlsError> {
        let next = Announced::new()?;
        let mut certificates = self.inner.certificates.write().unwrap_or_else(PoisonError::into_inner);
        certificates.former = Some(std::mem::replace(&mut certificates.present, next));
        Ok(())
    }

    /// All threads of the core and their signs of life.
    pub fn vitals(&self) -> Vec<Vital> {
        let shards = self.inner.shards.iter().enumerate();
        let shards =
            shards.map(|(index, shard)| Vital { thread: CoreThread::Shard(index), pulse: shard.pulse.clone() });
        shards.chain(self.inner.pool.vitals()).collect()
    }

    /// Gives the place of a thread that does not come back to a new one: false if that cannot be done, as with a shard, which
    /// owns its sessions. Handshakes of the old thread end with [`Reason::HandshakeThreadFailed`].
    pub fn replace_thread(&self, thread: CoreThread) -> bool {
        let CoreThread::Handshake(index) = thread else { return false };
        let mut threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.as_mut().is_some_and(|threads| threads.pool.replace(index).is_ok())
    }

    /// From now on the timeouts of these settings count: for new sessions and streams, and `publisher_wait` for all. Addresses and numbers of
    /// threads stay as they are; see [`MediaCore::set_public_addresses`].
    pub fn set_timeouts(&self, config: &CoreConfig) {
        let config = Arc::new(config.clone());
        for shard in &self.inner.shards {
            shard.sender.send(ShardMessage::Configure(config.clone()));
        }
    }

    /// Lets a thread fail, in a test.
    #[cfg(feature = "fault-injection")]
    pub fn inject(&self, thread: CoreThread, fault: crate::pulse::Fault) {
        match thread {
            CoreThread::Shard(index) => self.send(index, ShardMessage::Fault(fault)),
            CoreThread::Handshake(index) => self.inner.pool.inject(index, fault),
        }
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.inner.shards.len()
    }

    /// Takes a TCP connection that another listener accepted, since it began as media does: with a framed Binding request (RFC 4571,
    /// RFC 6544), of which all is `received`. The shard gets it whose session the request names; without one it is closed, as it
    /// is where too many are on their way.
    pub fn adopt_tcp(&self, stream: TcpStream, received: Vec<u8>) {
        if let Some(connection) = HandedOver::new(stream, received, &self.inner.handed_over) {
            self.send(0, ShardMessage::HandedOver(Box::new(connection)));
        }
    }

    /// Host candidates of a shard, the preferred one first.
    pub fn local_candidates(&self, shard: ShardIndex) -> Arc<[LocalCandidate]> {
        let shard = self.inner.shards.get(shard);
        shard.map_or_else(
            || Arc::from([]),
            |shard| shard.candidates.read().unwrap_or_else(PoisonError::into_inner).clone(),
        )
    }

    /// From now on new sessions are told these addresses. Sessions that exist keep what they know.
    pub fn set_public_addresses(&self, addresses: &[PublicAddress]) {
        for (index, shard) in self.inner.shards.iter().enumerate() {
            let candidates = candidates(addresses, index, shard.port, self.inner.tcp);
            *shard.candidates.write().unwrap_or_else(PoisonError::into_inner) = candidates;
        }
    }

    /// The shard on which a stream's publishers live: always the same one.
    pub fn home_shard(&self, stream: StreamId) -> ShardIndex {
        // Control counts streams up, so that neighbours spread evenly.
        (stream.0 % self.inner.shards.len() as u64) as usize
    }

    /// The shard for a new session: publishers live on their stream's home shard, viewers too until it is a good deal
    /// busier than the least busy one.
    pub fn shard_for(&self, stream: StreamId, role: Role) -> ShardIndex {
        let home = self.home_shard(stream);
        match role {
            Role::Publisher => home,
            Role::Viewer => load::place(home, self.inner.shards.iter().map(|shard| &*shard.load)),
        }
    }

    /// Opens a session on a shard. From here on checks with its credentials are answered.
    pub fn open(&self, shard: ShardIndex, spec: SessionSpec) {
        let home = self.home_shard(spec.stream);
        if let Some(shard) = self.inner.shards.get(shard) {
            let certificates = self.inner.certificates.read().unwrap_or_else(PoisonError::into_inner);
            let certificate = certificates.announced(&spec.certificate).clone();
            shard.load.add_session();
            shard.sender.send(ShardMessage::Open(Box::new(spec), certificate, home));
        }
    }

    /// Ends a session: close_notify, then silence. Unknown sessions are ignored.
    pub fn close(&self, shard: ShardIndex, session: SessionId, reason: Reason) {
        self.send(shard, ShardMessage::Close(session, reason));
    }

    /// Hands trickled candidates to a session (only the full agent uses them).
    pub fn add_remote_candidates(&self, shard: ShardIndex, session: SessionId, candidates: Vec<RemoteCandidate>) {
        self.send(shard, ShardMessage::Candidates(session, candidates));
    }

    /// Restarts a session's ICE with new credentials at both ends: media flow as before until the peer has nominated a pair with
    /// them. [`CoreEvent::IceRestartOver`] tells how it went.
    pub fn restart_ice(&self, shard: ShardIndex, session: SessionId, restart: IceRestart) {
        self.send(shard, ShardMessage::RestartIce(session, Box::new(restart)));
    }

    /// Lets a viewer have another layer of a track. It is sent the one before until the other can be decoded.
    pub fn select_layer(&self, shard: ShardIndex, session: SessionId, track: TrackId, selection: LayerSelection) {
        self.send(shard, ShardMessage::SelectLayer(session, track, Box::new(selection)));
    }

    fn send(&self, shard: ShardIndex, message: ShardMessage) {
        if let Some(shard) = self.inner.shards.get(shard) {
            shard.sender.send(message);
        }
    }

    /// A copy of every shard's figures. A shard that has stopped is left out.
    pub async fn snapshot(&self) -> Vec<ShardSnapshot> {
        let mut replies = Vec::with_capacity(self.inner.shards.len());
        for shard in &self.inner.shards {
            let (reply, receiver) = oneshot::channel();
            shard.sender.send(ShardMessage::Snapshot(reply));
            replies.push(receiver);
        }
        let mut snapshots = Vec::with_capacity(replies.len());
        for reply in replies {
            snapshots.extend(reply.await);
        }
        snapshots
    }

    /// Ends all sessions with close_notify and stops the threads. Further calls do nothing.
    pub async fn shutdown(&self) {
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        for shard in &self.inner.shards {
            shard.sender.send(ShardMessage::Shutdown);
        }
        // A panicked thread has said so already; the others are to end all the same.
        let _ = tokio::task::spawn_blocking(move || {
            for shard in threads.shards {
                let _ = shard.join();
            }
            drop(threads.pool);
        })
        .await;
    }
}

impl Drop for Inner {
    /// The last handle is gone: no other can end the shards.
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.sender.send(ShardMessage::Shutdown);
        }
    }
}

/// Ports that are tried where the system chooses: that of UDP may be taken for TCP.
const PORT_ATTEMPTS: usize = 32;

type Sockets = (UdpSocket, Option<TcpListener>, u16);

fn bind(config: &CoreConfig, index: ShardIndex) -> Result<Sockets, StartError> {
    let port = match config.media_port {
        0 => 0,
        first => u16::try_from(index).ok().and_then(|index| first.checked_add(index)).unwrap_or(0),
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        match bind_both(config, port) {
            Err(StartError::Listen { protocol: Protocol::Tcp, source, .. })
                if port == 0 && attempts < PORT_ATTEMPTS && source.kind() == std::io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
}

fn bind_both(config: &CoreConfig, port: u16) -> Result<Sockets, StartError> {
    let address = SocketAddr::new(config.media_ip, port);
    let listen = |source| StartError::Listen { protocol: Protocol::Udp, address, source };
    let socket = MediaSocket::bind(config.media_ip, port).map_err(listen)?;
    let address = socket.local_addr().map_err(listen)?;
    let listen = |source| StartError::Listen { protocol: Protocol::Tcp, address, source };
    let listener = config.ice_tcp.then(|| bind_tcp(address)).transpose().map_err(listen)?;
    Ok((socket, listener, address.port()))
}

/// Where clients may connect by TCP.
#[derive(Clone, Copy)]
struct TcpCandidates {
    beside_udp: bool,
    /// The port of another listener.
    elsewhere: Option<u16>,
}

/// The candidates of one shard, whose sockets have `port`. One whose mapped port would pass the last one is left out.
fn candidates(addresses: &[PublicAddress], shard: ShardIndex, port: u16, tcp: TcpCandidates) -> Arc<[LocalCandidate]> {
    let mapped = |first: u16| u16::try_from(shard).ok().and_then(|shard| first.checked_add(shard));
    let own_port = |address: &PublicAddress| address.port.map_or(Some(port), mapped);
    type PortOf<'a> = &'a dyn Fn(&PublicAddress) -> Option<u16>;
    let ports: [(Protocol, PortOf<'_>); 3] = [
        (Protocol::Udp, &own_port),
        (Protocol::Tcp, &|address: &PublicAddress| own_port(address).filter(|_| tcp.beside_udp)),
        (Protocol::Tcp, &|_: &PublicAddress| tcp.elsewhere),
    ];
    let mut candidates: Vec<LocalCandidate> = Vec::new();
    for (nth, (protocol, port)) in ports.into_iter().enumerate() {
        for (index, address) in addresses.iter().enumerate() {
            let Some(port) = port(address) else { continue };
            let is_ipv6 = address.ip.is_ipv6();
            let (priority, foundation) = match protocol {
                Protocol::Udp => (host_priority(index, is_ipv6), index),
                // Each priority is there once; a foundation for each address and protocol.
                Protocol::Tcp => {
                    let rank = index + (nth - 1) * addresses.len();
                    (tcp_host_priority(rank, is_ipv6), addresses.len() + index)
                }
            };
            let (address, foundation) = (SocketAddr::new(address.ip, port), foundation as u32 + 1);
            candidates.push(LocalCandidate { protocol, address, priority, foundation });
        }
    }
    candidates.into()
}

fn spawn(setup: ShardSetup, inbox: ShardInbox) -> std::io::Result<JoinHandle<()>> {
    let runtime = shard::runtime()?;
    let index = setup.index;
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        if let Err(error) = shard::run(runtime, setup, inbox) {
            tracing::error!(shard = index, %error, "the shard could not use its socket");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // F-14
    #[test]
    fn a_mapped_port_counts_up_with_the_shards() {
        let addresses = [
            PublicAddress { ip: "203.0.113.7".parse().unwrap(), port: Some(31_000) },
            PublicAddress { ip: "2001:db8::1".parse().unwrap(), port: Some(65_535) },
            PublicAddress { ip: "192.0.2.1".parse().unwrap(), port: None },
        ];
        let of = |shard| {
            candidates(&addresses, shard, 50_000 + shard as u16, TcpCandidates { beside_udp: false, elsewhere: None })
                .iter()
                .map(|c| c.address.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["203.0.113.7:31000", "[2001:db8::1]:65535", "192.0.2.1:50000"]);
        assert_eq!(of(3), ["203.0.113.7:31003", "192.0.2.1:50003"]);
    }

    // ICE-20
    #[test]
    fn candidates_of_tcp_follow_those_of_udp_at_the_same_ports_and_at_that_of_another_listener() {
        let addresses = [
            PublicAddress { ip: "203.0.113.7".parse().unwrap(), port: Some(31_000) },
            PublicAddress { ip: "2001:db8::1".parse().unwrap(), port: None },
        ];
        let tcp = TcpCandidates { beside_udp: true, elsewhere: Some(443) };
        let all = candidates(&addresses, 2, 50_002, tcp);
        let written: Vec<String> = all
            .iter()
            .map(|candidate| format!("{} {} {}", candidate.foundation, candidate.protocol.as_str(), candidate.address))
            .collect();
        assert_eq!(
            written,
            [
                "1 udp 203.0.113.7:31002",
                "2 udp [2001:db8::1]:50002",
                "3 tcp 203.0.113.7:31002",
                "4 tcp [2001:db8::1]:50002",
                "3 tcp 203.0.113.7:443",
                "4 tcp [2001:db8::1]:443",
            ]
        );
        let mut priorities: Vec<u32> = all.iter().map(|candidate| candidate.priority).collect();
        assert!(
            all.iter()
                .filter(|c| c.protocol == Protocol::Tcp)
                .all(|tcp| tcp.priority < priorities[0].min(priorities[1]))
        );
        priorities.sort_unstable();
        priorities.dedup();
        assert_eq!(priorities.len(), all.len());
    }
}
