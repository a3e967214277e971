//! ICE of one session, and the addresses of its peer.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use crate::config::CoreConfig;
use crate::dtls::Source;
use crate::ice::{AgentOptions, AgentTransmit, Ice, OwnChecks};
use crate::net::TransportTuple;
use crate::spec::{DtlsRole, SessionSpec};

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
        config: &CoreConfig,
    ) -> Connectivity {
        let own_checks = match spec.dtls.role {
            DtlsRole::Server => OwnChecks::Beside,
            DtlsRole::Client => OwnChecks::First,
        };
        let options = AgentOptions {
            deadline: config.ice_timeout,
            own_checks,
            private_candidates: config.ice_private_candidates,
            ..AgentOptions::default()
        };
        Connectivity {
            ice: Ice::start(&spec.ice, spec.id, local_address, agents, options),
            local_ufrag: spec.ice.local.ufrag.clone(),
            validated: Vec::new(),
        }
    }

    /// The tuple of one of the validated addresses.
    pub(crate) fn tuple_to(&self, remote: SocketAddr) -> Option<TransportTuple> {
        self.validated.iter().copied().find(|tuple| tuple.remote == remote)
    }

    /// True if the session has the tuple's remote address by another transport or connection. An address stands for one of them, so
    /// that what is proven of one says nothing of another.
    pub(crate) fn has_otherwise(&self, tuple: TransportTuple) -> bool {
        self.tuple_to(tuple.remote)
            .is_some_and(|known| (known.protocol, known.connection) != (tuple.protocol, tuple.connection))
    }

    /// An address is no longer valid; the tuple that it had.
    pub(crate) fn forget(&mut self, remote: SocketAddr) -> Option<TransportTuple> {
        let index = self.validated.iter().position(|tuple| tuple.remote == remote)?;
        Some(self.validated.remove(index))
    }

    /// A DTLS datagram of `length` bytes came from a validated address: it pays for the answer, as far as its source is unproven.
    pub(crate) fn dtls_source(&mut self, remote: SocketAddr, length: usize) -> Source {
        self.ice.receive(remote, length);
        Source { address: remote, room: self.ice.room(remote) }
    }
}
