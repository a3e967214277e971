//! ICE of one session over its restarts, and the addresses of its peer.
//!
//! Each pair of credentials is a *generation* (RFC 8838 §2) with a valid list of its own. A restart begins a second one beside
//! that which media follows. With its first nominated pair it takes over, and the one before is served on for a moment
//! (RFC 8445 §9); without one it is given up and nothing has changed. What the peer has shown of an address in one generation is
//! true in the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::CoreConfig;
use crate::dtls::Source;
use crate::ice::{self, AgentOptions, AgentTransmit, Ice, IceOutput, OwnChecks, Refusals};
use crate::net::TransportTuple;
use crate::spec::{DtlsRole, IceMode, IceParameters, IceRestart, RemoteCandidate, SessionId, SessionSpec};

/// Once a restart has a nominated pair, the generation before is served on for this long: what is under way on its pairs is to
/// arrive, and the peer stops checking them when it knows.
const RETIREMENT: Duration = Duration::from_secs(5);

/// Where a peer can be reached, as far as its connectivity checks have proven.
pub(crate) struct Connectivity {
    /// The one that media follows.
    serving: Generation,
    /// Around a restart, the other one.
    other: Option<Box<Other>>,
    /// The addresses that passed a check, with the local address that each of them uses.
    pub(crate) validated: Vec<TransportTuple>,
    setting: Setting,
    /// A restart that has just taken over.
    completed: Option<Completed>,
}

struct Generation {
    number: u32,
    ice: Ice,
    local_ufrag: String,
}

struct Other {
    generation: Generation,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has no nominated pair yet.
    Pending { since: Instant },
    /// Another one has taken over.
    Retired { since: Instant },
}

/// What stays over restarts.
struct Setting {
    owner: SessionId,
    mode: IceMode,
    remote_is_lite: bool,
    local_address: SocketAddr,
    agents: mpsc::Sender<AgentTransmit>,
    options: AgentOptions,
}

/// A restart has a nominated pair.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) local_ufrag: String,
    pub(crate) address: SocketAddr,
    /// Since the restart.
    pub(crate) took: Duration,
    /// How many restarts there were.
    pub(crate) number: u32,
}

/// A generation is served no more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GenerationOver {
    pub(crate) local_ufrag: String,
    /// The addresses that only this one knew.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Set if it never had a nominated pair: why.
    pub(crate) failure: Option<String>,
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
        let setting = Setting {
            owner: spec.id,
            mode: spec.ice.mode,
            remote_is_lite: spec.ice.remote_is_lite,
            local_address,
            agents: agents.clone(),
            options: AgentOptions {
                deadline: config.ice_timeout,
                own_checks,
                private_candidates: config.ice_private_candidates,
                ..AgentOptions::default()
            },
        };
        let serving = setting.start(0, &spec.ice);
        Connectivity { serving, other: None, validated: Vec::new(), setting, completed: None }
    }

    /// Begins a generation with new credentials at both ends (RFC 8445 §9). One that was not served for media ends with it; the
    /// one that media follows does not.
    pub(crate) fn restart(&mut self, now: Instant, restart: IceRestart) -> Option<GenerationOver> {
        let over = self.end_other("another restart followed");
        let number = self.serving.number.max(over.as_ref().map_or(0, |(number, _)| *number)) + 1;
        let parameters = IceParameters {
            mode: self.setting.mode,
            local: restart.local,
            remote: restart.remote,
            remote_is_lite: self.setting.remote_is_lite,
            remote_candidates: restart.remote_candidates,
        };
        let mut generation = self.setting.start(number, &parameters);
        generation.ice.succeed(&self.serving.ice);
        self.other = Some(Box::new(Other { generation, phase: Phase::Pending { since: now } }));
        over.map(|(_, over)| over)
    }

    /// The username fragments by which the peer's checks name this side.
    pub(crate) fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        self.generations().map(|generation| generation.local_ufrag.as_str())
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

    /// What is known of an address is of no use any more, such as when its connection is closed.
    pub(crate) fn forget_checks(&mut self, now: Instant, remote: SocketAddr, out: &mut Vec<IceOutput>) {
        if let Some(other) = &mut self.other {
            other.generation.ice.forget(now, remote, out);
            out.retain(|output| !matches!(output, IceOutput::Selected(_)));
        }
        self.serving.ice.forget(now, remote, out);
    }

    /// Notes a validated address; each stands there once.
    pub(crate) fn note_validated(&mut self, tuple: TransportTuple) {
        if self.tuple_to(tuple.remote).is_none() {
            self.validated.push(tuple);
        }
    }

    /// A DTLS datagram of `length` bytes came from a validated address: it pays for the answer, as far as its source is unproven.
    pub(crate) fn dtls_source(&mut self, remote: SocketAddr, length: usize) -> Source {
        let is_proven = self.is_proven(remote);
        let ice = &mut self.knowing_mut(remote).ice;
        ice.receive(remote, length);
        Source { address: remote, room: if is_proven { None } else { ice.room(remote) } }
    }

    /// Takes one STUN message of this session.
    pub(crate) fn handle(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], out: &mut Vec<IceOutput>) {
        let other = self.other.as_mut().filter(|other| other.generation.is_named(now, source, datagram));
        match other {
            Some(other) => {
                let ice = &mut other.generation.ice;
                ice.handle(now, source, datagram, out);
                if self.serving.ice.is_proven(source) {
                    ice.prove(now, source, out);
                }
                self.settle_other(out);
                self.promote(now, out);
            }
            None => {
                self.serving.ice.handle(now, source, datagram, out);
                if let Some(other) = &self.other {
                    if other.generation.ice.is_proven(source) {
                        self.serving.ice.prove(now, source, out);
                    }
                    keep_valid(&other.generation.ice, out);
                }
            }
        }
    }

    /// Lets time pass: a generation that has none of it left is over.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) -> Option<GenerationOver> {
        let mut over = None;
        if let Some(other) = &mut self.other {
            other.generation.ice.tick(now, out);
            let phase = other.phase;
            self.settle_other(out);
            self.promote(now, out);
            over = match phase {
                Phase::Pending { since } if now.saturating_duration_since(since) >= self.setting.options.deadline => {
                    // It may have taken over just now.
                    let is_pending = self.other.as_ref().is_some_and(|other| other.phase == phase);
                    is_pending.then(|| self.give_up()).flatten()
                }
                Phase::Retired { since } if now.saturating_duration_since(since) >= RETIREMENT => {
                    self.end_other("").map(|(_, over)| over)
                }
                _ => None,
            };
        }
        let before = out.len();
        self.serving.ice.tick(now, out);
        if let Some(other) = self.other.as_ref().filter(|_| out.len() > before) {
            keep_valid(&other.generation.ice, out);
        }
        over
    }

    /// The restart that has taken over since the last call.
    pub(crate) fn take_completed(&mut self) -> Option<Completed> {
        self.completed.take()
    }

    /// The peer showed inside the DTLS handshake that it receives at `source`.
    pub(crate) fn on_handshake(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        self.by_knowing(now, source, out, |ice, out| ice.on_handshake(now, source, out));
    }

    /// An authentic packet of media or RTCP came from an address that is not proven, of `length` bytes.
    pub(crate) fn on_media(&mut self, now: Instant, source: SocketAddr, length: usize, out: &mut Vec<IceOutput>) {
        self.by_knowing(now, source, out, |ice, out| ice.on_media(now, source, length, out));
    }

    /// Notes a check that names the session in another way than checks do.
    pub(crate) fn on_misnamed(&mut self, source: SocketAddr) {
        let pending = self.other.as_mut().filter(|other| matches!(other.phase, Phase::Pending { .. }));
        pending.map_or(&mut self.serving.ice, |other| &mut other.generation.ice).on_misnamed(source);
    }

    /// Adds a trickled candidate to the newest generation.
    pub(crate) fn add_remote_candidate(&mut self, candidate: RemoteCandidate) {
        let pending = self.other.as_mut().filter(|other| matches!(other.phase, Phase::Pending { .. }));
        pending.map_or(&mut self.serving.ice, |other| &mut other.generation.ice).add_remote_candidate(candidate);
    }

    /// Whether a datagram of `length` bytes may be sent to `to`; it is paid for then.
    pub(crate) fn may_send(&mut self, to: SocketAddr, length: usize) -> bool {
        self.is_proven(to) || self.knowing_mut(to).ice.may_send(to, length)
    }

    /// Whether a datagram of a full agent may be sent; it is paid for then.
    pub(crate) fn may_agent_send(&mut self, transmit: &AgentTransmit) -> bool {
        let AgentTransmit { generation, to, datagram, transaction, .. } = transmit;
        let other = self.other.as_mut().map(|other| &mut other.generation);
        let mut generations = std::iter::once(&mut self.serving).chain(other);
        let generation = generations.find(|known| known.number == *generation);
        let to = ice::canonical(*to);
        generation.is_some_and(|known| known.ice.may_agent_send(to, datagram.len(), transaction.is_some()))
    }

    /// True if something authentic came from this address.
    pub(crate) fn is_known(&self, address: SocketAddr) -> bool {
        self.generations().any(|generation| generation.ice.is_known(address))
    }

    /// True once the peer has shown that it receives at `address`.
    #[inline]
    pub(crate) fn is_proven(&self, address: SocketAddr) -> bool {
        self.generations().any(|generation| generation.ice.is_proven(address))
    }

    /// True if the peer was seen at `address` within `time` before `now`.
    pub(crate) fn is_seen(&self, now: Instant, address: SocketAddr, time: Duration) -> bool {
        self.generations().any(|generation| generation.ice.is_seen(now, address, time))
    }

    /// When the last authenticated check came, from wherever.
    pub(crate) fn last_check(&self) -> Option<Instant> {
        self.generations().filter_map(|generation| generation.ice.last_check()).max()
    }

    /// When the peer last showed by STUN at a proven address that it lives (RFC 7675 §5.1).
    pub(crate) fn last_valid_check(&self) -> Option<Instant> {
        self.generations().filter_map(|generation| generation.ice.last_valid_check()).max()
    }

    /// The checks that were refused since the last valid one, of the generation that media follows.
    pub(crate) fn refusals(&self) -> &Refusals {
        self.serving.ice.refusals()
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&self.serving).chain(self.other.as_ref().map(|other| &other.generation))
    }

    /// The generation that knows an address: the one that media follows, unless only the other does. What is sent to an unproven
    /// address is paid for in one of them only.
    fn knowing_mut(&mut self, address: SocketAddr) -> &mut Generation {
        match &mut self.other {
            Some(other) if !self.serving.ice.is_known(address) && other.generation.ice.is_known(address) => {
                &mut other.generation
            }
            _ => &mut self.serving,
        }
    }

    fn by_knowing(
        &mut self,
        now: Instant,
        source: SocketAddr,
        out: &mut Vec<IceOutput>,
        act: impl FnOnce(&mut Ice, &mut Vec<IceOutput>),
    ) {
        act(&mut self.knowing_mut(source).ice, out);
        let is_others = self.other.is_some() && !self.serving.ice.is_known(source);
        if is_others {
            self.settle_other(out);
            self.promote(now, out);
        } else if let Some(other) = &self.other {
            keep_valid(&other.generation.ice, out);
        }
    }

    /// What the other generation said is true for the session but for what it selects.
    fn settle_other(&self, out: &mut Vec<IceOutput>) {
        out.retain(|output| !matches!(output, IceOutput::Selected(_)));
        keep_valid(&self.serving.ice, out);
    }

    /// A pending generation with a nominated pair takes over; where media goes nowhere yet, the latest check is enough, as before
    /// any nomination (RFC 8445 §12.1.1).
    fn promote(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        let Some(other) = &mut self.other else { return };
        let Phase::Pending { since } = other.phase else { return };
        let ice = &other.generation.ice;
        let latest = ice.selected().filter(|_| self.serving.ice.selected().is_none());
        let Some(address) = ice.nominated().or(latest) else { return };
        std::mem::swap(&mut self.serving, &mut other.generation);
        other.phase = Phase::Retired { since: now };
        out.push(IceOutput::Selected(address));
        self.completed = Some(Completed {
            local_ufrag: self.serving.local_ufrag.clone(),
            address,
            took: now.saturating_duration_since(since),
            number: self.serving.number,
        });
    }

    /// The restart had no nominated pair in time.
    fn give_up(&mut self) -> Option<GenerationOver> {
        let refusals = self.other.as_ref()?.generation.ice.refusals();
        let mut failure = format!("no nominated pair within {} s", self.setting.options.deadline.as_secs_f64());
        if refusals.most_frequent().is_some() {
            failure = format!("{failure}; {refusals}");
        }
        self.end_other(&failure).map(|(_, over)| over)
    }

    /// Serves the other generation no more; `failure` is why, if it was pending. Its number, too.
    fn end_other(&mut self, failure: &str) -> Option<(u32, GenerationOver)> {
        let Other { generation, phase } = *self.other.take()?;
        let addresses = generation.ice.validated().filter(|address| !self.serving.ice.is_validated(*address)).collect();
        let failure = matches!(phase, Phase::Pending { .. }).then(|| failure.to_owned());
        let Generation { number, local_ufrag, .. } = generation;
        Some((number, GenerationOver { local_ufrag, addresses, failure }))
    }
}

impl Setting {
    fn start(&self, number: u32, parameters: &IceParameters) -> Generation {
        let options = AgentOptions { generation: number, ..self.options };
        let ice = Ice::start(parameters, self.owner, self.local_address, &self.agents, options);
        Generation { number, ice, local_ufrag: parameters.local.ufrag.clone() }
    }
}

impl Generation {
    /// True for a request with its username fragment, or a response to a check of its own.
    fn is_named(&self, now: Instant, source: SocketAddr, datagram: &[u8]) -> bool {
        if ice::is_request(datagram) {
            return ice::peek_ufrag(datagram) == Some(&self.local_ufrag);
        }
        let transaction = ice::transaction_id(datagram).filter(|_| ice::is_response(datagram));
        transaction.is_some_and(|transaction| self.ice.awaits(now, source, transaction))
    }
}

/// An address that one generation forgot and that is valid in this one is still the session's.
fn keep_valid(ice: &Ice, out: &mut Vec<IceOutput>) {
    out.retain(|output| !matches!(output, IceOutput::Forgotten(address) if ice.is_validated(*address)));
}

#[cfg(test)]
mod tests;
