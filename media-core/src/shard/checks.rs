//! Connectivity checks, and what ICE says about them.

use std::net::SocketAddr;
use std::time::Instant;

use crate::egress::PACKET_ROOM;
use crate::ice::{self, AgentTransmit, IceOutput};
use crate::net::{Protocol, TransportTuple};
use crate::session::Secure;
use crate::spec::DtlsRole;
use crate::stats::DropReason;

use super::Shard;

impl Shard {
    /// A STUN message.
    pub(super) fn on_stun(&mut self, now: Instant, tuple: TransportTuple, data: &[u8]) -> Result<(), DropReason> {
        let key = self.sessions.of_stun(tuple, data).inspect_err(|_| {
            if let Some(key) = self.sessions.of_misnamed(data) {
                self.sessions.slab[key].connectivity.on_misnamed(tuple.remote);
            }
        })?;
        let session = self.sessions.slab.get_mut(key).ok_or(DropReason::UnknownUfrag)?;
        if session.connectivity.has_otherwise(tuple) {
            return Err(DropReason::StunOtherTransport);
        }
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        session.connectivity.handle(now, tuple.remote, data, &mut outputs);
        if ice::is_request(data) && session.connectivity.last_check() == Some(now) {
            self.counters.stun_checks_answered += 1;
        }
        let result = self.apply_ice(now, key, Some(tuple), &mut outputs);
        self.ice_outputs = outputs;
        result
    }

    /// Lets time pass for a session's ICE.
    pub(super) fn tick_ice(&mut self, now: Instant, key: usize) {
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        let over = self.sessions.slab[key].connectivity.tick(now, &mut outputs);
        let _ = self.apply_ice(now, key, None, &mut outputs);
        if let Some(over) = over {
            self.end_generation(now, key, &over);
        }
        self.ice_outputs = outputs;
    }

    /// The peer showed inside the handshake that it receives at an address.
    pub(super) fn on_address_proven(&mut self, now: Instant, key: usize, remote: SocketAddr) {
        let session = &mut self.sessions.slab[key];
        let Some(tuple) = session.connectivity.tuple_to(remote) else { return };
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        session.connectivity.on_handshake(now, remote, &mut outputs);
        let _ = self.apply_ice(now, key, Some(tuple), &mut outputs);
        self.ice_outputs = outputs;
    }

    /// Authentic media of `length` bytes came from an address that is not proven.
    #[cold]
    pub(super) fn on_media_elsewhere(&mut self, now: Instant, key: usize, tuple: TransportTuple, length: usize) {
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        self.sessions.slab[key].connectivity.on_media(now, tuple.remote, length, &mut outputs);
        let _ = self.apply_ice(now, key, Some(tuple), &mut outputs);
        self.ice_outputs = outputs;
    }

    /// Media or RTCP from an address that is nobody's: perhaps that of a peer whose NAT gave it another port. It is dropped, but
    /// if it is authentic the peer is asked there, long before its own next check.
    #[cold]
    pub(super) fn on_stray(&mut self, now: Instant, tuple: TransportTuple, data: &[u8], secure: Secure) -> DropReason {
        let stray =
            (tuple.protocol == Protocol::Udp).then(|| self.sessions.of_stray(now, tuple, data, secure)).flatten();
        if let Some(key) = stray {
            self.on_media_elsewhere(now, key, tuple, data.len());
        }
        DropReason::UnvalidatedAddress
    }

    /// Does what ICE said. `tuple` is that of the datagram which led to it, if one did.
    pub(super) fn apply_ice(
        &mut self,
        now: Instant,
        key: usize,
        tuple: Option<TransportTuple>,
        outputs: &mut Vec<IceOutput>,
    ) -> Result<(), DropReason> {
        let mut result = Ok(());
        for output in outputs.drain(..) {
            let session = &mut self.sessions.slab[key];
            match output {
                IceOutput::Transmit { to, datagram } => {
                    if ice::is_request(&datagram)
                        && let Some(transaction) = ice::transaction_id(&datagram)
                    {
                        self.sessions.begin_transaction(now, transaction, key);
                    }
                    let known = self.sessions.slab[key].connectivity.tuple_to(to);
                    let tuple = tuple.filter(|tuple| tuple.remote == to).or(known);
                    self.outbound.push(tuple.unwrap_or(TransportTuple::udp(to, None)), &datagram);
                }
                IceOutput::Validated(remote) => {
                    let tuple = tuple.filter(|tuple| tuple.remote == remote);
                    session.connectivity.note_validated(tuple.unwrap_or(TransportTuple::udp(remote, None)));
                }
                IceOutput::Proven(remote) => self.sessions.claim(now, key, remote),
                IceOutput::Forgotten(remote) => {
                    if let Some(tuple) = session.connectivity.forget(remote) {
                        self.sessions.forget_peer(key, tuple);
                        self.close_connection(tuple);
                    }
                }
                IceOutput::Selected(remote) => {
                    let is_first = session.selected.is_none();
                    session.selected = session.connectivity.tuple_to(remote);
                    session.stats.remote_address = Some(remote);
                    session.stats.transport = session.selected.map(|tuple| tuple.protocol.as_str());
                    if is_first {
                        self.start_handshake(key);
                    }
                }
                IceOutput::CheckRefused(reason) => result = Err(reason),
            }
        }
        let connectivity = &mut self.sessions.slab[key].connectivity;
        let completed = connectivity.take_completed();
        let (has_checked, is_alive) =
            (connectivity.last_check() == Some(now), connectivity.last_valid_check() == Some(now));
        if has_checked && let Some(tuple) = tuple {
            self.on_valid_check(now, key, tuple);
        }
        if is_alive {
            self.sessions.slab[key].lifecycle.on_alive(now);
        }
        if let Some(completed) = completed {
            self.on_restart_completed(now, key, &completed);
        }
        result
    }

    /// A check of the peer was valid: with the first one the handshake may begin.
    fn on_valid_check(&mut self, now: Instant, key: usize, tuple: TransportTuple) {
        let session = &mut self.sessions.slab[key];
        if tuple.protocol == Protocol::Tcp
            && let Some(tcp) = self.outbound.tcp()
        {
            tcp.on_check(tuple, session.id);
        }
        let detail = || format!("valid check from {} over {}", tuple.remote, tuple.protocol.as_str().to_uppercase());
        if session.lifecycle.on_valid_check(now, detail) {
            let (pool, outputs) = (&self.handshakes.pool, self.handshakes.outputs.clone());
            pool.open(session.id, session.negotiated.certificate.clone(), session.negotiated.dtls.clone(), outputs);
            if session.selected.is_some() {
                self.start_handshake(key);
            }
        }
        self.sessions.slab[key].follow_local_address(tuple);
        self.sessions.claim(now, key, tuple.remote);
        self.publish_events(key);
    }

    /// A DTLS client's ClientHello is longer than any check: it waits for an address that is proven.
    fn start_handshake(&mut self, key: usize) {
        let session = &self.sessions.slab[key];
        if session.negotiated.dtls.role == DtlsRole::Client {
            self.handshakes.pool.start(session.id);
        }
    }

    /// A datagram of a full agent.
    pub(super) fn on_agent_transmit(&mut self, transmit: AgentTransmit) {
        let now = self.now();
        let Some(key) = self.sessions.find(transmit.owner) else { return };
        let to = ice::canonical(transmit.to);
        let connectivity = &mut self.sessions.slab[key].connectivity;
        let is_named_only = !connectivity.is_known(to);
        if !connectivity.may_agent_send(&transmit) || is_named_only && !self.named_pace.take(now) {
            self.counters.unproven_withheld += 1;
            return;
        }
        let tuple = connectivity.tuple_to(to);
        if let Some(transaction) = transmit.transaction {
            self.sessions.begin_transaction(now, transaction, key);
        }
        if transmit.datagram.len() <= PACKET_ROOM {
            self.outbound.push(tuple.unwrap_or(TransportTuple::udp(to, None)), &transmit.datagram);
        }
    }
}
