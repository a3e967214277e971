//! A client's connectivity checks: those of the full agent, or the bare ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use media_core::internals::ice::{
    AgentOptions, AgentRole, AgentStart, AgentTransmit, FullAgent, IceOutput, OwnChecks, is_request, peek_ufrag,
};
use media_core::{IceCredentials, RemoteCandidate, SessionId};
use tokio::sync::mpsc;

use super::bare_check::{BareChecks, bare_answer};
use super::error::ClientError;

/// How often checks are repeated: a client in a hurry, since its connect time is measured.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Both ends of an ICE session.
pub(super) struct IcePeers {
    pub(super) local: IceCredentials,
    pub(super) local_address: SocketAddr,
    pub(super) remote: IceCredentials,
    pub(super) candidates: Vec<RemoteCandidate>,
}

impl IcePeers {
    /// The server's first address of the socket's family.
    fn server(&self) -> Option<SocketAddr> {
        let mut addresses = self.candidates.iter().map(|candidate| candidate.address);
        addresses.find(|address| address.is_ipv4() == self.local_address.is_ipv4())
    }

    fn start(self, transmit: mpsc::Sender<AgentTransmit>) -> FullAgent {
        let IcePeers { local, local_address, remote, candidates } = self;
        FullAgent::start(AgentStart {
            owner: SessionId(0),
            role: AgentRole::Controlling,
            local,
            remote,
            remote_candidates: candidates,
            local_address,
            transmit,
            options: AgentOptions {
                check_interval: CHECK_INTERVAL,
                own_checks: OwnChecks::None,
                ..AgentOptions::default()
            },
        })
    }
}

/// The ICE side of a client.
pub(super) struct Ice {
    agent: Option<FullAgent>,
    /// Of the ICE session before a restart, until that one has a path.
    former: Option<FullAgent>,
    agent_out: mpsc::Receiver<AgentTransmit>,
    // It keeps the queue open when there is no agent, too.
    agent_in: mpsc::Sender<AgentTransmit>,
    /// In progress until their first answer.
    bare: Option<BareChecks>,
    credentials: (IceCredentials, IceCredentials),
    server: Option<SocketAddr>,
    pending: Vec<(SocketAddr, Vec<u8>)>,
}

impl Ice {
    /// With the full agent, which starts at once, or without any checks.
    pub(super) fn new(peers: IcePeers, with_agent: bool) -> Ice {
        let (agent_in, agent_out) = mpsc::channel(64);
        let credentials = (peers.local.clone(), peers.remote.clone());
        let server = peers.server();
        let agent = with_agent.then(|| peers.start(agent_in.clone()));
        Ice { agent, former: None, agent_out, agent_in, bare: None, credentials, server, pending: Vec::new() }
    }

    /// Goes on with new credentials at both ends (RFC 8445 §9). The ones before serve until these have a path.
    pub(super) fn restart(&mut self, now: Instant, peers: IcePeers, has_moved: bool) {
        self.credentials = (peers.local.clone(), peers.remote.clone());
        self.server = peers.server();
        match self.agent.take() {
            // Without agent, and from a new socket, where the agent's checks of the old one have no place.
            None => self.start_bare_checks(now),
            Some(before) => {
                self.agent = Some(peers.start(self.agent_in.clone()));
                self.former = (!has_moved).then_some(before);
            }
        }
    }

    /// Nominates the present socket by checks of our own.
    pub(super) fn start_bare_checks(&mut self, now: Instant) {
        let (local, remote) = self.credentials.clone();
        self.bare = self.server.map(|server| BareChecks::new(now, server, local, remote));
    }

    /// Waits for the agent's next datagram.
    pub(super) async fn agent_transmits(&mut self) {
        if let Some(transmit) = self.agent_out.recv().await {
            self.pending.push((transmit.to, transmit.datagram));
        }
    }

    /// Makes the bare check that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Result<(), ClientError> {
        if let Some(checks) = &mut self.bare {
            self.pending.extend(checks.poll(now)?.map(|check| (checks.to, check)));
        }
        Ok(())
    }

    /// When [`Ice::poll`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.bare.as_ref().map(|checks| checks.next)
    }

    /// Takes a STUN message; the server's address if the message selects it.
    pub(super) fn handle(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Option<SocketAddr> {
        if let Some(checks) = self.bare.take_if(|checks| checks.is_answer(source, datagram)) {
            return Some(checks.to);
        }
        if self.agent.is_none() && is_request(datagram) {
            // The server asks whether this client receives where it sends from.
            let answer = bare_answer(&self.credentials.0, source, datagram).ok().flatten();
            self.pending.extend(answer.map(|answer| (source, answer)));
            return None;
        }
        let mut out = Vec::new();
        let is_own = peek_ufrag(datagram).is_none_or(|ufrag| ufrag == self.credentials.0.ufrag);
        if let Some(former) = &mut self.former {
            // Of a response that is not its own it takes no notice.
            former.handle(now, source, datagram, &mut out);
            out.retain(|output| matches!(output, IceOutput::Transmit { .. }));
        }
        if is_own {
            self.agent.as_mut()?.handle(now, source, datagram, &mut out);
        }
        let mut selected = None;
        for output in out {
            match output {
                IceOutput::Transmit { to, datagram } => self.pending.push((to, datagram)),
                IceOutput::Selected(address) => selected = Some(address),
                IceOutput::Validated(_)
                | IceOutput::Proven(_)
                | IceOutput::Forgotten(_)
                | IceOutput::CheckRefused(_) => {}
            }
        }
        if selected.is_some() {
            self.former = None;
        }
        selected
    }

    /// True for an address that the agent has validated.
    pub(super) fn is_validated(&self, source: SocketAddr) -> bool {
        let mut agents = self.agent.iter().chain(&self.former);
        agents.any(|agent| agent.validated().any(|address| address == source))
    }

    /// Messages to send.
    pub(super) fn take_pending(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.pending)
    }
}
