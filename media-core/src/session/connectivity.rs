//! ICE of one session, and the addresses of its peer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ice::{AgentTransmit, Ice};
use crate::net::TransportTuple;
use crate::spec::SessionSpec;

/// Where a peer can be reached, as far as its connectivity checks have proven.
pub(crate) struct Connectivity {
    pub(crate) ice: Ice,
    pub(crate) local_ufrag: String,
    /// The addresses that passed a check, with the local address that each of them uses.
    pub(crate) validated: Vec<TransportTuple>,
}

impl Connectivity {
    /// Starts ICE; a full agent sends through `agents`.
    pub(super) fn new(
        spec: &SessionSpec,
        local_address: SocketAddr,
        agents: &mpsc::Sender<AgentTransmit>,
        timeout: Duration,
    ) -> Connectivity {
        Connectivity {
            ice: Ice::start(&spec.ice, spec.id, local_address, agents, timeout),
            local_ufrag: spec.ice.local.ufrag.clone(),
            validated: Vec::new(),
        }
    }

    /// The tuple of one of the validated addresses.
    pub(crate) fn tuple_to(&self, remote: SocketAddr) -> Option<TransportTuple> {
        self.validated.iter().copied().find(|tuple| tuple.remote == remote)
    }
}
