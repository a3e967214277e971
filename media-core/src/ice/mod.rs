//! ICE (RFC 8445, RFC 8839): connectivity checks, the valid pairs of a session, and the selected one.
//!
//! [`IceLite`] only answers checks; [`FullAgent`] gives the agent of `webrtc-ice` the same interface.
//! Both own the same valid list (`valid_list`), so that nomination, address changes and consent behave alike in both
//! modes. Media never passes through either of them.

mod agent;
mod candidate;
mod check;
#[cfg(any(test, feature = "fuzzing"))]
mod check_builder;
mod lite;
mod mux;
mod rate;
mod refusals;
#[cfg(test)]
mod tests;
mod valid_list;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use agent::{AgentOptions, AgentRole, AgentStart, FullAgent};
pub use candidate::{
    MAX_REMOTE_CANDIDATES, candidate_line, candidate_ufrag, host_priority, is_check_target, parse_candidate,
};
pub use check::{is_request, is_response, peek_ufrag, peek_ufrags, transaction_id};
#[cfg(any(test, feature = "fuzzing"))]
pub use check_builder::CheckBuilder;
pub use lite::IceLite;
pub use mux::AgentTransmit;
pub use refusals::{CheckRefusal, Refusals};

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
    /// The first authenticated check from this address: DTLS and SRTP from it belong to this session (RFC 8445 §12).
    Validated(SocketAddr),
    /// Newer addresses displaced this one: nothing from it is accepted any more.
    Forgotten(SocketAddr),
    /// The remote address of the selected pair, to which media is sent from now on (RFC 8445 §12.1).
    Selected(SocketAddr),
    /// The datagram was dropped.
    CheckRefused(DropReason),
}

/// The server's side of ICE in one session, whichever implementation runs it.
pub enum Ice {
    /// Answers checks.
    Lite(IceLite),
    /// The agent of `webrtc-ice`.
    Full(FullAgent),
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
        deadline: Duration,
    ) -> Ice {
        let (local, remote) = (parameters.local.clone(), parameters.remote.clone());
        match parameters.mode {
            IceMode::Lite => Ice::Lite(IceLite::new(local, remote)),
            IceMode::Full => Ice::Full(FullAgent::start(AgentStart {
                owner,
                role: if parameters.remote_is_lite { AgentRole::Controlling } else { AgentRole::Controlled },
                local,
                remote,
                remote_candidates: parameters.remote_candidates.clone(),
                local_address,
                transmit: transmit.clone(),
                options: AgentOptions { deadline, ..AgentOptions::default() },
            })),
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

    /// Lets time pass: a nomination that was delayed takes effect. Every 100 ms is often enough.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        match self {
            Ice::Lite(lite) => lite.tick(now, out),
            Ice::Full(full) => full.tick(now, out),
        }
    }

    /// When the last authenticated STUN message of the peer was received (RFC 7675 §5.1).
    pub fn last_valid_check(&self) -> Option<Instant> {
        match self {
            Ice::Lite(lite) => lite.last_valid_check(),
            Ice::Full(full) => full.last_valid_check(),
        }
    }

    /// The checks that were refused since the last valid one.
    pub fn refusals(&self) -> &Refusals {
        match self {
            Ice::Lite(lite) => &lite.refusals,
            Ice::Full(full) => &full.refusals,
        }
    }

    /// Notes a check that names the session in another way than checks do, so that it was not handed in.
    pub fn on_misnamed(&mut self, source: SocketAddr) {
        let refusals = match self {
            Ice::Lite(lite) => &mut lite.refusals,
            Ice::Full(full) => &mut full.refusals,
        };
        refusals.note(CheckRefusal::Username, source);
    }

    /// The remote address of the selected pair.
    pub fn selected(&self) -> Option<SocketAddr> {
        match self {
            Ice::Lite(lite) => lite.selected(),
            Ice::Full(full) => full.selected(),
        }
    }

    /// The remote addresses of the valid list, from which DTLS and SRTP are accepted, at most 16.
    pub fn validated(&self) -> Vec<SocketAddr> {
        match self {
            Ice::Lite(lite) => lite.validated().collect(),
            Ice::Full(full) => full.validated().collect(),
        }
    }
}
