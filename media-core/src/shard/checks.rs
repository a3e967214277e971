//! Connectivity checks, and what ICE says about them.

use std::time::Instant;

use crate::egress::PACKET_ROOM;
use crate::ice::{self, AgentTransmit, IceOutput};
use crate::net::TransportTuple;
use crate::spec::DtlsRole;
use crate::stats::DropReason;

use super::Shard;

impl Shard {
    /// A STUN message.
    pub(super) fn on_stun(&mut self, now: Instant, tuple: TransportTuple, data: &[u8]) -> Result<(), DropReason> {
        let key = self.sessions.of_stun(tuple, data).inspect_err(|_| {
            if let Some(key) = self.sessions.of_misnamed(data) {
                self.sessions.slab[key].connectivity.ice.on_misnamed(tuple.remote);
            }
        })?;
        let session = self.sessions.slab.get_mut(key).ok_or(DropReason::UnknownUfrag)?;
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        let ice = &mut session.connectivity.ice;
        ice.handle(now, tuple.remote, data, &mut outputs);
        if ice::is_request(data) && ice.last_valid_check() == Some(now) {
            self.counters.stun_checks_answered += 1;
        }
        let result = self.apply_ice(now, key, Some(tuple), &mut outputs);
        self.ice_outputs = outputs;
        result
    }

    /// Lets time pass for a session's ICE.
    pub(super) fn tick_ice(&mut self, now: Instant, key: usize) {
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        self.sessions.slab[key].connectivity.ice.tick(now, &mut outputs);
        let _ = self.apply_ice(now, key, None, &mut outputs);
        self.ice_outputs = outputs;
    }

    /// Does what ICE said. `tuple` is that of the datagram which led to it, if one did.
    fn apply_ice(
        &mut self,
        now: Instant,
        key: usize,
        tuple: Option<TransportTuple>,
        outputs: &mut Vec<IceOutput>,
    ) -> Result<(), DropReason> {
        let mut result = Ok(());
        let local = tuple.and_then(|tuple| tuple.local);
        for output in outputs.drain(..) {
            let session = &mut self.sessions.slab[key];
            match output {
                IceOutput::Transmit { to, datagram } => {
                    self.outbound.push(TransportTuple::udp(to, local), &datagram);
                }
                IceOutput::Validated(remote) => {
                    session.connectivity.validated.push(TransportTuple::udp(remote, local));
                }
                IceOutput::Forgotten(remote) => {
                    session.connectivity.validated.retain(|tuple| tuple.remote != remote);
                    self.sessions.forget_peer(key, TransportTuple::udp(remote, None));
                }
                IceOutput::Selected(remote) => {
                    session.selected = session.connectivity.tuple_to(remote);
                    session.stats.remote_address = Some(remote);
                }
                IceOutput::CheckRefused(reason) => result = Err(reason),
            }
        }
        // A peer that proved itself by an indication alone has no address that media could be sent to.
        let session = &self.sessions.slab[key];
        if session.connectivity.ice.last_valid_check() == Some(now) && session.selected.is_some() {
            self.on_valid_check(now, key);
            if let Some(tuple) = tuple {
                self.sessions.slab[key].follow_local_address(tuple);
                self.sessions.claim(now, key, tuple.remote);
            }
        }
        result
    }

    /// The peer proved itself: with the first check the handshake may begin.
    fn on_valid_check(&mut self, now: Instant, key: usize) {
        let session = &mut self.sessions.slab[key];
        let (selected, checks) = (session.selected, session.connectivity.validated.len());
        let is_first = session.lifecycle.on_valid_check(now, || match selected {
            Some(tuple) => format!("valid check from {}", tuple.remote),
            None => format!("valid checks from {checks} addresses"),
        });
        if is_first {
            let (pool, outputs) = (&self.handshakes.pool, self.handshakes.outputs.clone());
            pool.open(session.id, session.negotiated.certificate.clone(), session.negotiated.dtls.clone(), outputs);
            if session.negotiated.dtls.role == DtlsRole::Client {
                pool.start(session.id);
            }
        }
        self.publish_events(key);
    }

    /// A datagram of a full agent.
    pub(super) fn on_agent_transmit(&mut self, transmit: AgentTransmit) {
        let now = self.now();
        let Some(key) = self.sessions.find(transmit.owner) else { return };
        if let Some(transaction) = transmit.transaction {
            self.sessions.begin_transaction(now, transaction, key);
        }
        let tuple = self.sessions.slab[key].connectivity.tuple_to(transmit.to);
        if transmit.datagram.len() <= PACKET_ROOM {
            self.outbound.push(tuple.unwrap_or(TransportTuple::udp(transmit.to, None)), &transmit.datagram);
        }
    }
}
