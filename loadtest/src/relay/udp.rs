//! The UDP side: a port for each candidate of the server, and behind it a socket and a pair of links for each client.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use media_core::internals::net::RunBatch;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::link::Link;
use super::link_options::LinkOptions;
use super::options::{RelayCounts, RelayError, RelayOptions};
use crate::client::open_socket;

/// Ports at one time; each leads to one address of the server.
const MAX_PORTS: usize = 256;
/// A client that is silent for so long is forgotten. Its consent checks come every few seconds (RFC 7675 §5.1).
const FLOW_IDLE: Duration = Duration::from_secs(60);
/// A port that nobody uses for so long is closed.
const PORT_IDLE: Duration = Duration::from_secs(120);
/// How often silence is looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Timers go off up to a millisecond late, on average by half of it; so much early they are right on average.
const EARLY: Duration = Duration::from_micros(500);
/// Calls of the system before other sockets and timers get their turn.
const BATCH: usize = 16;

thread_local! {
    /// RelayState by all sockets, which receive by turns on the relay's thread.
    static RECEIVED: RefCell<RunBatch> = RefCell::default();
}

/// What every flow looks at.
#[derive(Clone, Copy)]
struct Settings {
    up: LinkOptions,
    down: LinkOptions,
    /// Times that all flows were to get another port.
    rebinds: u64,
}

/// A port that leads to one address of the server.
struct Port {
    /// As clients reach it.
    address: SocketAddr,
    /// When it was last asked for or served a client.
    used: Instant,
}

/// What the relay's sockets share.
pub(super) struct RelayState {
    settings: watch::Sender<Settings>,
    counts: Mutex<RelayCounts>,
    /// By the server's address.
    ports: Mutex<HashMap<SocketAddr, Port>>,
    runtime: Handle,
    bind: IpAddr,
    media_ip: IpAddr,
    seed: u64,
    max_flows: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RelayState {
    pub(super) fn new(options: &RelayOptions, media_ip: IpAddr, runtime: Handle) -> RelayState {
        let settings = Settings { up: options.up, down: options.down, rebinds: 0 };
        RelayState {
            settings: watch::Sender::new(settings),
            counts: Mutex::default(),
            ports: Mutex::default(),
            runtime,
            bind: options.listen.ip(),
            media_ip,
            seed: options.seed,
            max_flows: options.max_flows,
        }
    }

    pub(super) fn counts(&self) -> RelayCounts {
        RelayCounts { ports: lock(&self.ports).len(), ..lock(&self.counts).clone() }
    }

    /// The address in candidates.
    pub(super) fn media_ip(&self) -> IpAddr {
        self.media_ip
    }

    /// Those up, then those down.
    pub(super) fn links(&self) -> (LinkOptions, LinkOptions) {
        let settings = self.settings.borrow();
        (settings.up, settings.down)
    }

    pub(super) fn set_links(&self, change: impl FnOnce(&mut LinkOptions, &mut LinkOptions)) {
        // The longest wait is that of the links as they are.
        let mut counts = lock(&self.counts);
        (counts.up.longest_queue_us, counts.down.longest_queue_us) = (0, 0);
        drop(counts);
        self.settings.send_modify(|settings| change(&mut settings.up, &mut settings.down));
    }

    pub(super) fn rebind(&self) {
        self.settings.send_modify(|settings| settings.rebinds += 1);
    }

    /// The relay's port in front of an address of the server.
    pub(super) fn port_to(self: &Arc<RelayState>, server: SocketAddr) -> Result<SocketAddr, RelayError> {
        let mut ports = lock(&self.ports);
        if let Some(port) = ports.get_mut(&server) {
            port.used = Instant::now();
            return Ok(port.address);
        }
        if ports.len() >= MAX_PORTS {
            return Err(RelayError::Ports(MAX_PORTS));
        }
        // The socket belongs to the relay's runtime, whoever asks for it.
        let _inside = self.runtime.enter();
        let socket = UdpSocket::from_std(open_socket(self.bind)?)?;
        let address = SocketAddr::new(self.media_ip, socket.local_addr()?.port());
        ports.insert(server, Port { address, used: Instant::now() });
        tracing::debug!(%server, relay = %address, "a port for a candidate");
        self.runtime.spawn(serve_port(Arc::clone(self), Arc::new(socket), server));
        Ok(address)
    }

    /// Closes the port in front of this address if it was not used for long.
    fn retire(&self, server: SocketAddr) -> bool {
        let mut ports = lock(&self.ports);
        let idle = ports.get(&server).is_none_or(|port| port.used.elapsed() >= PORT_IDLE);
        if idle {
            ports.remove(&server);
        }
        idle
    }

    fn tally(&self, change: impl FnOnce(&mut RelayCounts)) {
        change(&mut lock(&self.counts));
    }
}

/// One client address as its port sees it. Dropping it ends the flow.
struct Flow {
    uplink: Arc<Uplink>,
    last_received: Instant,
    shared: Arc<RelayState>,
    task: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.tally(|counts| counts.flows -= 1);
    }
}

/// What the port puts in and the flow takes out.
struct Uplink {
    link: Mutex<Link>,
    wake: Notify,
}

/// Receives for all clients of a port until it is idle.
async fn serve_port(shared: Arc<RelayState>, front: Arc<UdpSocket>, server: SocketAddr) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut overflows = Overflows::default();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            ready = front.readable() => {
                if ready.is_err() {
                    // The runtime is ending.
                    return;
                }
                let now = Instant::now();
                let dropped = receive(&front, &mut overflows, |client, datagram| {
                    let flow = match flows.entry(client) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => match Flow::open(&shared, &front, client, server) {
                            Some(flow) => new.insert(flow),
                            None => return shared.tally(|counts| counts.refused += 1),
                        },
                    };
                    flow.last_received = now;
                    lock(&flow.uplink.link).push(now, datagram);
                    flow.uplink.wake.notify_one();
                });
                shared.tally(|counts| counts.overflowed += dropped.overflowed);
            }
            _ = sweep.tick() => {
                flows.retain(|_, flow| flow.last_received.elapsed() < FLOW_IDLE);
                if !flows.is_empty() {
                    lock(&shared.ports).entry(server).and_modify(|port| port.used = Instant::now());
                } else if shared.retire(server) {
                    return;
                }
            }
        }
    }
}

impl Flow {
    /// A socket and links for a client; `None` if there are too many of them or the system gives no socket.
    fn open(shared: &Arc<RelayState>, front: &Arc<UdpSocket>, client: SocketAddr, server: SocketAddr) -> Option<Flow> {
        let upstream = open_socket(any(server)).and_then(UdpSocket::from_std).ok()?;
        let mut number = None;
        shared.tally(|counts| {
            if counts.flows < shared.max_flows {
                counts.flows += 1;
                counts.flows_opened += 1;
                number = Some(counts.flows_opened);
            }
        });
        let seed = shared.seed.wrapping_add(2 * number?);
        let settings = shared.settings.subscribe();
        let Settings { up, down, rebinds } = *settings.borrow();
        let uplink = Arc::new(Uplink { link: Mutex::new(Link::new(up, seed)), wake: Notify::new() });
        let end = FlowEnd {
            uplink: Arc::clone(&uplink),
            down: Link::new(down, seed.wrapping_add(1)),
            shared: Arc::clone(shared),
            front: Arc::clone(front),
            client: answer_address(front, client),
            server,
            upstream,
            overflows: Overflows::default(),
            settings,
            rebinds,
        };
        let task = shared.runtime.spawn(end.run());
        Some(Flow { uplink, last_received: Instant::now(), shared: Arc::clone(shared), task })
    }
}

/// The far end of a flow: its socket towards the server, and both links.
struct FlowEnd {
    uplink: Arc<Uplink>,
    down: Link,
    shared: Arc<RelayState>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    server: SocketAddr,
    upstream: UdpSocket,
    overflows: Overflows,
    settings: watch::Receiver<Settings>,
    rebinds: u64,
}

impl FlowEnd {
    async fn run(mut self) {
        // A connected socket receives from its server alone, and learns when nobody is there.
        if self.upstream.connect(self.server).await.is_err() {
            self.shared.tally(|counts| counts.unsent += 1);
        }
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let up = lock(&self.uplink.link).next_due();
            let due = [up, self.down.next_due()].into_iter().flatten().min();
            let due = due.map(|due| due.checked_sub(EARLY).unwrap_or(due));
            if let Some(due) = due
                && timer.deadline() != due.into()
            {
                timer.as_mut().reset(due.into());
            }
            tokio::select! {
                () = self.uplink.wake.notified() => {}
                ready = self.upstream.readable() => {
                    if ready.is_err() {
                        // The runtime is ending.
                        return;
                    }
                    let now = Instant::now();
                    let Dropped { overflowed, unsent } =
                        receive(&self.upstream, &mut self.overflows, |_, datagram| self.down.push(now, datagram));
                    self.shared.tally(|counts| {
                        counts.overflowed += overflowed;
                        counts.unsent += unsent;
                    });
                }
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.change().await;
                }
                () = timer.as_mut(), if due.is_some() => {}
            }
            self.deliver().await;
        }
    }

    /// Sends what is due, and counts.
    async fn deliver(&mut self) {
        let now = Instant::now() + EARLY;
        let mut unsent = 0;
        loop {
            let Some(datagram) = lock(&self.uplink.link).poll(now) else { break };
            unsent += u64::from(self.upstream.send(&datagram).await.is_err());
        }
        while let Some(datagram) = self.down.poll(now) {
            unsent += u64::from(self.front.send_to(&datagram, self.client).await.is_err());
        }
        let (up, down) = (lock(&self.uplink.link).take_counts(), self.down.take_counts());
        self.shared.tally(|counts| {
            counts.up.add(&up);
            counts.down.add(&down);
            counts.unsent += unsent;
        });
    }

    /// Does what the settings say now.
    async fn change(&mut self) {
        let Settings { up, down, rebinds } = *self.settings.borrow_and_update();
        lock(&self.uplink.link).set_options(up);
        self.down.set_options(down);
        if std::mem::replace(&mut self.rebinds, rebinds) == rebinds {
            return;
        }
        // A system that gives no other socket leaves the old one.
        let Ok(socket) = open_socket(any(self.server)).and_then(UdpSocket::from_std) else { return };
        if socket.connect(self.server).await.is_ok() {
            (self.upstream, self.overflows) = (socket, Overflows::default());
            self.shared.tally(|counts| counts.rebound += 1);
        }
    }
}

/// Any address of the family of this one.
fn any(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A wildcard IPv6 socket reaches IPv4 addresses under their mapped names only.
fn answer_address(front: &UdpSocket, client: SocketAddr) -> SocketAddr {
    match (front.local_addr(), client.ip()) {
        (Ok(SocketAddr::V6(_)), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), client.port()),
        _ => client,
    }
}

/// What a socket had no room for, by its own count.
#[derive(Default)]
struct Overflows(u32);

/// Datagrams that did not make it, found while receiving.
#[derive(Default)]
struct Dropped {
    overflowed: u64,
    unsent: u64,
}

/// Hands out what waits in the socket, as far as it is this socket's turn.
fn receive(socket: &UdpSocket, overflows: &mut Overflows, mut take: impl FnMut(SocketAddr, &mut [u8])) -> Dropped {
    let mut dropped = Dropped::default();
    RECEIVED.with_borrow_mut(|batch| {
        for _ in 0..BATCH {
            let mut received = Ok(false);
            // A batch with room left has emptied the socket: said to the runtime, it saves the call that would find so.
            let emptied = socket.try_io(Interest::READABLE, || {
                received = batch.receive(socket);
                match &received {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
                    Ok(true) => Ok(()),
                    _ => Err(io::ErrorKind::WouldBlock.into()),
                }
            });
            if let Err(error) = received
                && error.kind() != io::ErrorKind::WouldBlock
            {
                // What an earlier datagram met: nobody listens there.
                dropped.unsent += 1;
            }
            for mut run in batch.iter_mut() {
                if let Some(total) = run.overflowed {
                    dropped.overflowed += u64::from(total.wrapping_sub(overflows.0));
                    overflows.0 = total;
                }
                let source = run.remote;
                run.datagrams().for_each(|datagram| take(source, datagram));
            }
            if emptied.is_err() {
                break;
            }
        }
    });
    dropped
}
