//! The full agent: `webrtc-ice` on a mux of ours.
//!
//! The agent sends and answers checks. The selected pair is decided here: a message is authenticated before the agent
//! sees it, and nomination, address changes, consent, limits and role conflicts are handled here, since the agent selects
//! one pair for ever, measures liveness by the wall clock and is slow when flooded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

use super::IceOutput;
use super::candidate::is_check_target;
use super::check::{self, Binding, Kind};
use super::mux::{AgentTransmit, MuxConn, OneConn, Outbound};
use super::rate::StunLimit;
use super::refusals::{CheckRefusal, Refusals};
use super::valid_list::ValidList;
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

/// The times of an agent.
#[derive(Clone, Copy, Debug)]
pub struct AgentOptions {
    /// Pairs are checked this often until one is selected; at most 200 ms.
    pub check_interval: Duration,
    /// Without a selected pair the agent falls silent after this.
    pub deadline: Duration,
}

impl Default for AgentOptions {
    fn default() -> AgentOptions {
        AgentOptions { check_interval: Duration::from_millis(200), deadline: Duration::from_secs(40) }
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
    /// Its times.
    pub options: AgentOptions,
}

/// A full ICE agent of one session. Dropping it stops its tasks, and nothing is sent any more (RFC 7675 §5.2).
pub struct FullAgent {
    role: AgentRole,
    local: IceCredentials,
    remote: IceCredentials,
    local_address: SocketAddr,
    options: AgentOptions,
    outbound: Arc<Outbound>,
    valid: ValidList,
    limits: [StunLimit; 2],
    pub(super) refusals: Refusals,
    candidates: Vec<SocketAddr>,
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
            role,
            local,
            remote,
            local_address,
            options,
            outbound: Arc::new(Outbound::new(owner, local_address.ip(), transmit)),
            valid: ValidList::default(),
            limits: [StunLimit::new(), StunLimit::new()],
            refusals: Refusals::default(),
            candidates: Vec::new(),
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
        let wanted = is_check_target(address, self.local_address.ip())
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
        if !self.limits[usize::from(self.valid.is_validated(source))].take(now) {
            return Err(self.refuse(CheckRefusal::Rate, source));
        }
        let mut binding = Binding::parse(datagram).inspect_err(|_| {
            if check::is_request(datagram) {
                self.refusals.note(CheckRefusal::Malformed, source);
            }
        })?;
        match binding.kind {
            Kind::Request => {
                if self.on_request(now, source, binding, out)? {
                    self.forward(source, datagram)?;
                }
                Ok(())
            }
            Kind::Success => {
                binding.authenticate(&self.remote.pwd)?;
                self.on_success(now, source, datagram, out)
            }
            // The agent does not handle error responses; its next check is a new transaction anyway.
            Kind::Error => Ok(()),
            Kind::Indication => {
                if binding.authenticate(&self.local.pwd).is_ok() {
                    self.valid.refresh(now);
                }
                Ok(())
            }
        }
    }

    /// Takes a request; true if the agent has to answer it.
    fn on_request(
        &mut self,
        now: Instant,
        source: SocketAddr,
        binding: Binding,
        out: &mut Vec<IceOutput>,
    ) -> Result<bool, DropReason> {
        let request = binding.into_request(&self.local, &self.remote);
        let (request, message) = request.map_err(|refusal| self.refuse(refusal, source))?;
        let password = &self.local.pwd;
        let conflict = match self.role {
            AgentRole::Controlling => request.controlling,
            AgentRole::Controlled => request.controlled,
        };
        // The agent cannot change its role, so the peer has to, whatever the tie-breakers say.
        if let Some((refusal, response)) = request.refusal(&message, conflict, password) {
            self.refusals.note(refusal, source);
            out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
            return Ok(false);
        }
        self.refusals.clear();
        let nominates = request.use_candidate && self.role == AgentRole::Controlled;
        self.valid.validate(now, source, nominates, out);
        let source_form = canonical(source);
        let worker = self.worker(source_form);
        if !worker.sources.contains(&source_form) {
            if worker.sources.len() >= MAX_SOURCES {
                // A peer with so many addresses is answered without the agent.
                let response = check::success(&message, source, &self.local.pwd);
                out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
                return Ok(false);
            }
            worker.sources.push(source_form);
        }
        Ok(true)
    }

    fn refuse(&mut self, refusal: CheckRefusal, source: SocketAddr) -> DropReason {
        self.refusals.note(refusal, source);
        refusal.drop_reason()
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
        self.valid.validate(now, source, sent.nominates, out);
        self.forward(source, datagram)
    }

    /// True if a request with this transaction id was sent by this agent and waits for its response.
    #[cfg(test)]
    pub(super) fn owns_transaction(&self, transaction: [u8; 12], now: Instant) -> bool {
        self.outbound.find(transaction, now).is_some()
    }

    /// Lets time pass; see [`super::Ice::tick`].
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.valid.tick(now, out);
    }

    /// When the peer was last authenticated: by a request, or by answering one of ours.
    pub fn last_valid_check(&self) -> Option<Instant> {
        self.valid.last_valid()
    }

    /// The remote address of the selected pair.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.valid.selected()
    }

    /// The remote addresses of the valid list, at most 16.
    pub fn validated(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.valid.addresses()
    }

    fn worker(&mut self, peer: SocketAddr) -> &mut Worker {
        let FullAgent { role, local, remote, local_address, options, outbound, workers, .. } = self;
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

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
