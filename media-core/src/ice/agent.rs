//! The full agent: `webrtc-ice` on a mux of ours.
//!
//! The agent sends and answers checks. The selected pair is decided here: a message is authenticated before the agent
//! sees it, and nomination, address changes, consent, limits and role conflicts are handled here, since the agent selects
//! one pair for ever, measures liveness by the wall clock and is slow when flooded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stun::message::Message;
use tokio::sync::mpsc;
use webrtc_ice::agent::Agent;
use webrtc_ice::agent::agent_config::AgentConfig;
use webrtc_ice::candidate::candidate_base::CandidateBaseConfig;
use webrtc_ice::candidate::candidate_host::CandidateHostConfig;
use webrtc_ice::candidate::{Candidate, CandidateType};
use webrtc_ice::mdns::MulticastDnsMode;
use webrtc_ice::network_type::NetworkType;
use webrtc_ice::udp_network::UDPNetwork;
use webrtc_util::vnet::net::Net;

use super::candidate::is_check_target;
use super::check::{self, Kind};
use super::checks::{Checks, Next};
use super::mux::{AgentTransmit, MuxConn, OneConn, Outbound};
use super::unheard::Unheard;
use super::{IceOutput, OwnChecks, canonical};
use crate::spec::{IceCredentials, RemoteCandidate, SessionId};
use crate::stats::DropReason;

/// Messages that wait for an agent. It is fed without waiting: a closed agent never empties its queue.
const QUEUE: usize = 32;
/// Candidates of the client that get checks; at the default interval that is one check in 20 ms (RFC 8445 §14.2).
const MAX_CHECKED_CANDIDATES: usize = 10;
/// Source addresses passed to an agent; it keeps each as a candidate and searches them in order.
const MAX_SOURCES: usize = 64;
/// Checks of one pair before it fails: as many as fit in the 40 s of RFC 8863 §4.
const MAX_CHECKS: u16 = 200;
/// The selected pair is checked this often (RFC 7675 §5.1).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Which side chooses the pair (RFC 8445 §6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentRole {
    /// This side nominates.
    Controlling,
    /// The peer nominates.
    Controlled,
}

/// The times of an agent, and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct AgentOptions {
    /// Pairs are checked this often until one is selected; at most 200 ms.
    pub check_interval: Duration,
    /// Without a selected pair the agent falls silent after this.
    pub deadline: Duration,
    /// How new addresses are proven.
    pub own_checks: OwnChecks,
    /// Private and link-local candidates of the peer get checks, too.
    pub private_candidates: bool,
    /// Marks the datagrams of the agent, as its owner does: how many ICE restarts there were before it.
    pub generation: u32,
}

impl Default for AgentOptions {
    fn default() -> AgentOptions {
        AgentOptions {
            check_interval: Duration::from_millis(200),
            deadline: Duration::from_secs(40),
            own_checks: OwnChecks::default(),
            private_candidates: true,
            generation: 0,
        }
    }
}

/// What a full agent needs to start.
pub struct AgentStart {
    /// The session; it only marks the datagrams of the agent.
    pub owner: SessionId,
    /// Who nominates.
    pub role: AgentRole,
    /// Our credentials.
    pub local: IceCredentials,
    /// The peer's.
    pub remote: IceCredentials,
    /// Known candidates of the peer; may be empty.
    pub remote_candidates: Vec<RemoteCandidate>,
    /// Local address of the socket.
    pub local_address: SocketAddr,
    /// Where the agent's datagrams go; several sessions may share it.
    pub transmit: mpsc::Sender<AgentTransmit>,
    /// Its times, and how it behaves.
    pub options: AgentOptions,
}

/// A full ICE agent of one session. Dropping it stops its tasks, and nothing is sent any more (RFC 7675 §5.2).
pub struct FullAgent {
    pub(super) checks: Checks,
    local_address: SocketAddr,
    options: AgentOptions,
    outbound: Arc<Outbound>,
    candidates: Vec<SocketAddr>,
    unheard: Unheard,
    /// One agent for IPv4 and one for IPv6, each started when it is first needed: an agent cannot tell to which of
    /// several local candidates a datagram was sent.
    workers: [Option<Worker>; 2],
}

struct Worker {
    inbound: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    candidates: mpsc::Sender<RemoteCandidate>,
    sources: Vec<SocketAddr>,
}

impl FullAgent {
    /// Starts the agent. Must be called inside the tokio runtime on which its tasks shall run.
    pub fn start(start: AgentStart) -> FullAgent {
        let AgentStart { owner, role, local, remote, remote_candidates, local_address, transmit, options } = start;
        let mut agent = FullAgent {
            checks: Checks::new(role, local, remote, options.own_checks),
            local_address,
            options,
            outbound: Arc::new(Outbound::new(owner, options.generation, local_address.ip(), transmit)),
            candidates: Vec::new(),
            unheard: Unheard::default(),
            workers: [None, None],
        };
        for candidate in remote_candidates {
            agent.add_remote_candidate(candidate);
        }
        agent
    }

    /// Adds a candidate of the peer. Forbidden targets, repetitions and more than ten are ignored (RFC 8445 §19.5).
    pub fn add_remote_candidate(&mut self, candidate: RemoteCandidate) {
        let address = canonical(candidate.address);
        let wanted = is_check_target(address, self.local_address.ip(), self.options.private_candidates)
            && !self.candidates.contains(&address)
            && self.candidates.len() < MAX_CHECKED_CANDIDATES;
        if wanted {
            self.candidates.push(address);
            // The queue has room for all the candidates that pass the line above.
            let _ = self.worker(address).candidates.try_send(RemoteCandidate { address, ..candidate });
        }
    }

    /// Takes one STUN datagram: a request with our username fragment, or a response whose transaction is ours.
    pub fn handle(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], out: &mut Vec<IceOutput>) {
        if let Err(reason) = self.try_handle(now, source, datagram, out) {
            out.push(IceOutput::CheckRefused(reason));
        }
    }

    fn try_handle(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut Vec<IceOutput>,
    ) -> Result<(), DropReason> {
        match self.checks.handle(now, source, datagram, out)? {
            Next::Nothing => Ok(()),
            Next::Answer(message) => self.answer(source, &message, out),
            Next::Response(mut binding) if binding.kind == Kind::Success => {
                binding.authenticate(&self.checks.remote.pwd)?;
                self.on_success(now, source, datagram, out)
            }
            // The agent does not handle error responses; its next check is a new transaction anyway.
            Next::Response(_) => Ok(()),
        }
    }

    /// Lets the agent answer a valid check.
    fn answer(&mut self, source: SocketAddr, message: &Message, out: &mut Vec<IceOutput>) -> Result<(), DropReason> {
        let source_form = canonical(source);
        let worker = self.worker(source_form);
        if !worker.sources.contains(&source_form) {
            if worker.sources.len() >= MAX_SOURCES {
                // A peer with so many addresses is answered without the agent.
                let response = check::success(message, source, &self.checks.local.pwd);
                let response = response.filter(|response| self.checks.valid.may_send(source, response.len()));
                out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
                return Ok(());
            }
            worker.sources.push(source_form);
        }
        self.forward(source, &message.raw)
    }

    /// Passes an authenticated message to the agent.
    fn forward(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<(), DropReason> {
        let source_form = canonical(source);
        let message = (source_form, datagram.to_vec());
        self.worker(source_form).inbound.try_send(message).map_err(|_| DropReason::StunRate)
    }

    fn on_success(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut Vec<IceOutput>,
    ) -> Result<(), DropReason> {
        let sent = check::transaction_id(datagram).and_then(|transaction| self.outbound.find(transaction, now));
        // A response from elsewhere than the request went to proves a path that works one way only (RFC 8445 §7.2.5.2.1).
        let source_form = canonical(source);
        let sent = sent.filter(|sent| sent.to == source_form).ok_or(DropReason::MalformedStun)?;
        self.outbound.settle(sent.transaction);
        self.checks.valid.check(now, source, sent.nominates, datagram.len(), out);
        self.checks.valid.prove(now, source, out);
        self.forward(source, datagram)
    }

    /// Whether a datagram of the agent may be sent to `to`, an address of the peer's valid list or one that it only named.
    pub(super) fn may_transmit(&mut self, to: SocketAddr, length: usize, is_request: bool) -> bool {
        if self.checks.valid.is_known(to) {
            return self.checks.valid.may_send(to, length);
        }
        is_request && self.unheard.ask(to)
    }

    /// True if a request with this transaction id was sent by this agent and waits for its response.
    pub(super) fn owns_transaction(&self, transaction: [u8; 12], now: Instant) -> bool {
        self.outbound.find(transaction, now).is_some()
    }

    /// Lets time pass; see [`super::Ice::tick`].
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.checks.tick(now, out);
    }

    /// When the peer last showed at a proven address that it lives.
    pub fn last_valid_check(&self) -> Option<Instant> {
        self.checks.valid.last_valid()
    }

    /// The remote address of the selected pair.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.checks.valid.selected()
    }

    /// The remote addresses of the valid list, at most 16.
    pub fn validated(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.checks.valid.addresses()
    }

    fn worker(&mut self, peer: SocketAddr) -> &mut Worker {
        let FullAgent { checks: Checks { role, local, remote, .. }, local_address, options, outbound, workers, .. } =
            self;
        workers[usize::from(peer.is_ipv6())].get_or_insert_with(|| {
            let (inbound_sender, inbound) = mpsc::channel(QUEUE);
            let (candidate_sender, candidates) = mpsc::channel(MAX_CHECKED_CANDIDATES);
            let task = Task {
                role: *role,
                local: local.clone(),
                remote: remote.clone(),
                local_address: *local_address,
                options: *options,
                ipv6: peer.is_ipv6(),
                outbound: Arc::clone(outbound),
            };
            tokio::spawn(async move {
                if let Err(error) = task.run(inbound, candidates).await {
                    tracing::error!(%error, "the ICE agent stopped");
                }
            });
            Worker { inbound: inbound_sender, candidates: candidate_sender, sources: Vec::new() }
        })
    }
}

/// What runs one agent of `webrtc-ice`.
struct Task {
    role: AgentRole,
    local: IceCredentials,
    remote: IceCredentials,
    local_address: SocketAddr,
    options: AgentOptions,
    ipv6: bool,
    outbound: Arc<Outbound>,
}

impl Task {
    /// Runs until the sender of `candidates` is dropped.
    async fn run(
        self,
        inbound: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
        mut candidates: mpsc::Receiver<RemoteCandidate>,
    ) -> Result<(), webrtc_ice::Error> {
        let net = Arc::new(Net::new(None));
        let ip = nominal_ip(&net, self.local_address.ip().to_canonical(), self.ipv6).await;
        let local = SocketAddr::new(ip, self.local_address.port());
        let conn = MuxConn { outbound: self.outbound, local, inbound: tokio::sync::Mutex::new(inbound) };
        let agent = Agent::new(AgentConfig {
            udp_network: UDPNetwork::Muxed(Arc::new(OneConn(Arc::new(conn)))),
            local_ufrag: self.local.ufrag,
            local_pwd: self.local.pwd,
            multicast_dns_mode: MulticastDnsMode::Disabled,
            // With `failed_timeout` 0 a connected agent never fails; this one is then only the deadline of connecting.
            disconnected_timeout: Some(self.options.deadline),
            failed_timeout: Some(Duration::ZERO),
            keepalive_interval: Some(KEEPALIVE_INTERVAL),
            check_interval: self.options.check_interval,
            max_binding_requests: Some(MAX_CHECKS),
            // Peer-reflexive candidates are the normal case here, no last resort to wait a second for.
            prflx_acceptance_min_wait: Some(Duration::ZERO),
            srflx_acceptance_min_wait: Some(Duration::ZERO),
            network_types: vec![if self.ipv6 { NetworkType::Udp6 } else { NetworkType::Udp4 }],
            candidate_types: vec![CandidateType::Host],
            is_controlling: self.role == AgentRole::Controlling,
            ip_filter: Arc::new(Some(Box::new(move |candidate| candidate == ip))),
            include_loopback: true,
            net: Some(net),
            ..AgentConfig::default()
        })
        .await?;
        let result = drive(&agent, self.role, self.remote, &mut candidates).await;
        // It fails only if the agent is closed already.
        let _ = agent.close().await;
        result
    }
}

async fn drive(
    agent: &Agent,
    role: AgentRole,
    remote: IceCredentials,
    candidates: &mut mpsc::Receiver<RemoteCandidate>,
) -> Result<(), webrtc_ice::Error> {
    let (gathered_sender, mut gathered) = mpsc::channel::<()>(1);
    agent.on_candidate(Box::new(move |candidate| {
        if candidate.is_none() {
            let _ = gathered_sender.try_send(());
        }
        Box::pin(async {})
    }));
    agent.gather_candidates()?;
    // Checks that begin without a local candidate would only be missed.
    let _ = gathered.recv().await;
    while let Ok(candidate) = candidates.try_recv() {
        agent.add_remote_candidate(&remote_candidate(&candidate)?)?;
    }
    let (_cancel, cancelled) = mpsc::channel(1);
    let connect = async {
        match role {
            AgentRole::Controlling => agent.dial(cancelled, remote.ufrag, remote.pwd).await.map(drop),
            AgentRole::Controlled => agent.accept(cancelled, remote.ufrag, remote.pwd).await.map(drop),
        }
    };
    let mut connect = std::pin::pin!(connect);
    let mut connecting = true;
    loop {
        tokio::select! {
            result = &mut connect, if connecting => {
                result?;
                connecting = false;
            }
            candidate = candidates.recv() => match candidate {
                Some(candidate) => agent.add_remote_candidate(&remote_candidate(&candidate)?)?,
                None => return Ok(()),
            },
        }
    }
}

fn remote_candidate(candidate: &RemoteCandidate) -> Result<Arc<dyn Candidate + Send + Sync>, webrtc_ice::Error> {
    // The kind shows in nothing but the priority, and that one is stated.
    let config = CandidateHostConfig {
        base_config: CandidateBaseConfig {
            network: "udp".to_owned(),
            address: candidate.address.ip().to_string(),
            port: candidate.address.port(),
            component: 1,
            priority: candidate.priority,
            foundation: candidate.foundation.clone(),
            ..CandidateBaseConfig::default()
        },
        ..CandidateHostConfig::default()
    };
    Ok(Arc::new(config.new_candidate_host()?))
}

/// The one interface address that the agent gets to see: the socket's own if it has one, else any of the family.
///
/// It names the agent's only local candidate and nothing else; the socket decides how datagrams travel.
async fn nominal_ip(net: &Net, local: IpAddr, ipv6: bool) -> IpAddr {
    let addresses: Vec<IpAddr> = net
        .get_interfaces()
        .await
        .iter()
        .flat_map(|interface| interface.addrs().iter().map(|network| network.addr()).collect::<Vec<_>>())
        .filter(|ip| ip.is_ipv6() == ipv6)
        .collect();
    let loopback = if ipv6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    addresses
        .iter()
        .find(|&&ip| ip == local)
        .or_else(|| addresses.iter().find(|&&ip| ip == loopback))
        .or_else(|| addresses.first())
        .copied()
        .unwrap_or(loopback)
}
