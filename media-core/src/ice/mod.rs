//! ICE (RFC 8445, RFC 8839): connectivity checks, the valid pairs of a session, and the selected one.
//!
//! [`IceLite`] answers checks; [`FullAgent`] gives the agent of `webrtc-ice` the same interface. Both own the same checks
//! (`checks`) and valid list (`valid_list`), so that the proof of addresses, nomination, address changes and consent behave
//! alike in both modes. Media never passes through either of them.

mod agent;
mod candidate;
mod check;
#[cfg(any(test, feature = "fuzzing"))]
mod check_builder;
mod checks;
mod credit;
mod lite;
mod mux;
mod rate;
mod recent;
mod reflexive;
mod refusals;
#[cfg(test)]
mod tests;
mod unheard;
mod valid_list;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use agent::{AgentOptions, AgentRole, AgentStart, FullAgent};
pub use candidate::{
    MAX_REMOTE_CANDIDATES, candidate_line, candidate_ufrag, host_priority, is_check_target, parse_candidate,
    parse_passive_candidate, tcp_host_priority,
};
pub use check::{is_request, is_response, peek_ufrag, peek_ufrags, transaction_id};
#[cfg(any(test, feature = "fuzzing"))]
pub use check_builder::{CheckBuilder, answer_check};
pub use lite::IceLite;
pub use mux::AgentTransmit;
pub use reflexive::{QUERY_TIME, QueryRefused, QueryStep, ReflexiveQuery};
pub use refusals::{CheckRefusal, Refusals};

use checks::Checks;

use crate::spec::{IceCredentials, IceMode, IceParameters, RemoteCandidate, SessionId};
use crate::stats::DropReason;

/// Length of generated username fragments: 72 random bits, so that no two sessions of a node share one.
const UFRAG_LEN: usize = 12;
/// Length of generated passwords: 144 random bits (RFC 8839 §5.4 wants at least 128).
const PWD_LEN: usize = 24;

/// The ice-chars of RFC 8839 §5.4: exactly 64, so that six random bits choose one without bias.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Fresh credentials for the server's side of a session, from OpenSSL's random generator.
pub fn random_credentials() -> IceCredentials {
    let mut bytes = [0_u8; UFRAG_LEN + PWD_LEN];
    // It fails only on a system without any source of randomness, where no DTLS could run either.
    openssl::rand::rand_bytes(&mut bytes).expect("the system has a source of randomness");
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)])).collect();
    let (ufrag, pwd) = bytes.split_at(UFRAG_LEN);
    IceCredentials { ufrag: text(ufrag), pwd: text(pwd) }
}

/// An address as the media socket tells it: IPv4 is never written as IPv4-mapped IPv6.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// An output of ICE. Addresses have the form of the input: IPv4-mapped ones stay IPv4-mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IceOutput {
    /// Send this datagram.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// A whole STUN message.
        datagram: Vec<u8>,
    },
    /// The first authenticated check from this address, or answer to one of ours: DTLS and SRTP from it belong to this
    /// session (RFC 8445 §12).
    Validated(SocketAddr),
    /// The peer has shown that it receives at this address: what is sent there is not bounded any more.
    Proven(SocketAddr),
    /// Newer addresses displaced this one, or its connection is gone: nothing from it is accepted any more.
    Forgotten(SocketAddr),
    /// The remote address of the selected pair, to which media is sent from now on (RFC 8445 §12.1).
    Selected(SocketAddr),
    /// The datagram was dropped.
    CheckRefused(DropReason),
}

/// Whether checks of our own prove a new address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnChecks {
    /// They do, as soon as the address has sent as much as they cost beside the answer to its own check.
    #[default]
    Beside,
    /// They do, and no check from there is answered before: a peer that waits for our ClientHello sends nothing more once
    /// it has its answer.
    First,
    /// None is sent: of a client, whose own checks reach the server.
    None,
}

/// The server's side of ICE in one session, whichever implementation runs it.
pub enum Ice {
    /// Answers checks.
    Lite(Box<IceLite>),
    /// The agent of `webrtc-ice`.
    Full(Box<FullAgent>),
}

impl Ice {
    /// Starts what `parameters` ask for, on the server's side.
    ///
    /// `owner` and `transmit` are of use only to the full agent, whose tasks run on the current tokio runtime; without
    /// a selected pair it stops after `deadline`. A client that is lite itself leaves the choice of the pair to us
    /// (RFC 8445 §6.1.1).
    pub fn start(
        parameters: &IceParameters,
        owner: SessionId,
        local_address: SocketAddr,
        transmit: &mpsc::Sender<AgentTransmit>,
        options: AgentOptions,
    ) -> Ice {
        let (local, remote) = (parameters.local.clone(), parameters.remote.clone());
        match parameters.mode {
            IceMode::Lite => Ice::Lite(Box::new(IceLite::new(local, remote, options.own_checks))),
            IceMode::Full => Ice::Full(Box::new(FullAgent::start(AgentStart {
                owner,
                role: if parameters.remote_is_lite { AgentRole::Controlling } else { AgentRole::Controlled },
                local,
                remote,
                remote_candidates: parameters.remote_candidates.clone(),
                local_address,
                transmit: transmit.clone(),
                options,
            }))),
        }
    }

    /// Adds a trickled candidate; a lite side has no use for it.
    pub fn add_remote_candidate(&mut self, candidate: RemoteCandidate) {
        if let Ice::Full(full) = self {
            full.add_remote_candidate(candidate);
        }
    }

    /// Takes one STUN datagram of this session and appends to `out` what follows from it.
    pub fn handle(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], out: &mut Vec<IceOutput>) {
        match self {
            Ice::Lite(lite) => lite.handle(now, source, datagram, out),
            Ice::Full(full) => full.handle(now, source, datagram, out),
        }
    }

    /// A datagram of `length` bytes that is no STUN came from `source`: it pays for what is sent there.
    pub fn receive(&mut self, source: SocketAddr, length: usize) {
        self.checks_mut().valid.receive(source, length);
    }

    /// An authenticated, not replayed packet of media or RTCP came from an address that is not proven, of `length` bytes.
    pub fn on_media(&mut self, now: Instant, source: SocketAddr, length: usize, out: &mut Vec<IceOutput>) {
        self.checks_mut().on_media(now, source, length, out);
    }

    /// The peer showed inside the DTLS handshake that it receives at `source`.
    pub fn on_handshake(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        self.checks_mut().on_handshake(now, source, out);
    }

    /// Whether a datagram of `length` bytes may be sent to `to`; it is paid for then.
    pub fn may_send(&mut self, to: SocketAddr, length: usize) -> bool {
        self.checks_mut().valid.may_send(to, length)
    }

    /// True if something authentic came from this address.
    pub fn is_known(&self, address: SocketAddr) -> bool {
        self.checks().valid.is_known(address)
    }

    /// Whether a datagram of the full agent may be sent; it is paid for then. An address from which nothing was received gets a few
    /// requests.
    pub fn may_agent_send(&mut self, to: SocketAddr, length: usize, is_request: bool) -> bool {
        match self {
            Ice::Full(full) => full.may_transmit(to, length, is_request),
            Ice::Lite(_) => false,
        }
    }

    /// How many bytes may be sent to `to`; `None` for as many as one likes.
    pub fn room(&self, to: SocketAddr) -> Option<usize> {
        self.checks().valid.room(to)
    }

    /// Lets time pass: a nomination that was delayed takes effect, own checks are repeated. Every 100 ms is often enough.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.checks_mut().tick(now, out);
    }

    /// The TCP connection to this address is gone.
    pub fn forget(&mut self, now: Instant, address: SocketAddr, out: &mut Vec<IceOutput>) {
        self.checks_mut().valid.forget(now, address, out);
    }

    /// When the last authenticated check came, from wherever.
    pub fn last_check(&self) -> Option<Instant> {
        self.checks().valid.last_check()
    }

    /// When the peer last showed by STUN at a proven address that it lives (RFC 7675 §5.1).
    pub fn last_valid_check(&self) -> Option<Instant> {
        self.checks().valid.last_valid()
    }

    /// The checks that were refused since the last valid one.
    pub fn refusals(&self) -> &Refusals {
        &self.checks().refusals
    }

    /// Notes a check that names the session in another way than checks do, so that it was not handed in.
    pub fn on_misnamed(&mut self, source: SocketAddr) {
        self.checks_mut().refusals.note(CheckRefusal::Username, source);
    }

    /// The remote address of the selected pair.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.checks().valid.selected()
    }

    /// True if a check was valid from this address: DTLS and SRTP from there are accepted.
    pub fn is_validated(&self, address: SocketAddr) -> bool {
        self.checks().valid.is_validated(address)
    }

    /// The remote address of the selected pair, if the peer nominated it.
    pub fn nominated(&self) -> Option<SocketAddr> {
        self.checks().valid.nominated()
    }

    /// A response of this transaction from `source` would answer a check of this side.
    pub fn awaits(&self, now: Instant, source: SocketAddr, transaction: [u8; 12]) -> bool {
        let is_agents = matches!(self, Ice::Full(full) if full.owns_transaction(transaction, now));
        is_agents || self.checks().valid.has_asked(source, transaction)
    }

    /// The peer has shown elsewhere that it receives at `source`; without a check from there that changes nothing.
    pub fn prove(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        self.checks_mut().valid.prove(now, source, out);
    }

    /// What is known of the peer itself is true after a restart, too.
    pub fn succeed(&mut self, before: &Ice) {
        let answers = before.checks().valid.answers();
        self.checks_mut().valid.set_answers(answers);
    }

    /// True once the peer has shown that it receives at `address`.
    pub fn is_proven(&self, address: SocketAddr) -> bool {
        self.checks().valid.is_proven(address)
    }

    /// True if the peer was seen at `address` within `time` before `now`.
    pub fn is_seen(&self, now: Instant, address: SocketAddr, time: Duration) -> bool {
        self.checks().valid.is_seen(now, address, time)
    }

    /// The remote addresses of the valid list, from which DTLS and SRTP are accepted, at most 16.
    pub fn validated(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.checks().valid.addresses()
    }

    fn checks(&self) -> &Checks {
        match self {
            Ice::Lite(lite) => &lite.checks,
            Ice::Full(full) => &full.checks,
        }
    }

    fn checks_mut(&mut self) -> &mut Checks {
        match self {
            Ice::Lite(lite) => &mut lite.checks,
            Ice::Full(full) => &mut full.checks,
        }
    }
}
