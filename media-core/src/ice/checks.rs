//! What both kinds of agent do with a STUN message before it is answered: limits, authentication, replays, the valid list,
//! and the checks of our own by which a new address is proven.

use std::net::SocketAddr;
use std::time::Instant;

use stun::message::Message;

use super::agent::AgentRole;
use super::check::{self, Binding, Kind, Request};
use super::rate::StunLimit;
use super::recent::{Freshness, RecentTransactions};
use super::refusals::{CheckRefusal, Refusals};
use super::valid_list::ValidList;
use super::{IceOutput, OwnChecks};
use crate::spec::IceCredentials;
use crate::stats::DropReason;

/// The longest success response: one to an IPv6 address, in bytes.
const RESPONSE: usize = 76;

/// The checks of one session.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) role: AgentRole,
    pub(super) local: IceCredentials,
    pub(super) remote: IceCredentials,
    pub(super) valid: ValidList,
    pub(super) refusals: Refusals,
    own: OwnChecks,
    /// One for all other addresses, one for those of the valid list: a third party that learnt the username fragment
    /// cannot use up the peer's.
    limits: [StunLimit; 2],
    recent: RecentTransactions,
    /// The last check that was not answered, as ours went there first.
    unanswered: Option<(SocketAddr, Message)>,
}

/// What is left to do with a message.
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// A valid check: it is to be answered.
    Answer(Message),
    /// A response, not authenticated, to a check that is not one of [`Checks`].
    Response(Binding),
}

impl Checks {
    pub(super) fn new(role: AgentRole, local: IceCredentials, remote: IceCredentials, own: OwnChecks) -> Checks {
        Checks {
            role,
            local,
            remote,
            valid: ValidList::default(),
            refusals: Refusals::default(),
            own,
            limits: [StunLimit::new(), StunLimit::new()],
            recent: RecentTransactions::default(),
            unanswered: None,
        }
    }

    /// Takes one STUN datagram (RFC 8445 §7.3) and appends the outputs to `out`.
    ///
    /// Unauthenticated requests get no error response, which would only serve scanners.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut Vec<IceOutput>,
    ) -> Result<Next, DropReason> {
        if !self.limits[usize::from(self.valid.is_validated(source))].take(now) {
            return Err(self.refuse(CheckRefusal::Rate, source));
        }
        let mut binding = Binding::parse(datagram).inspect_err(|_| {
            if check::is_request(datagram) {
                self.refusals.note(CheckRefusal::Malformed, source);
            }
        })?;
        let transaction = binding.transaction();
        match binding.kind {
            Kind::Request => {
                let request = binding.into_request(&self.local, &self.remote);
                let (request, message) = request.map_err(|refusal| self.refuse(refusal, source))?;
                self.on_request(now, source, datagram.len(), (&request, message), out)
            }
            Kind::Indication => {
                // An indication is never answered, and one without proof changes nothing (RFC 8445 §11).
                let is_authentic = binding.authenticate(&self.local.pwd).is_ok();
                if is_authentic && self.recent.note(transaction, source) == Freshness::Fresh {
                    self.valid.refresh(now, source);
                }
                Ok(Next::Nothing)
            }
            Kind::Success | Kind::Error if !self.valid.has_asked(source, transaction) => Ok(Next::Response(binding)),
            Kind::Success => {
                binding.authenticate(&self.remote.pwd)?;
                self.valid.on_answer(now, source, out);
                let unanswered = self.unanswered.take_if(|(from, _)| *from == source);
                Ok(unanswered.map_or(Next::Nothing, |(_, message)| Next::Answer(message)))
            }
            // What the peer refuses is not answered with the proof of its password.
            Kind::Error => Ok(Next::Nothing),
        }
    }

    fn on_request(
        &mut self,
        now: Instant,
        source: SocketAddr,
        length: usize,
        (request, message): (&Request, Message),
        out: &mut Vec<IceOutput>,
    ) -> Result<Next, DropReason> {
        let freshness = self.recent.note(message.transaction_id.0, source);
        if freshness == Freshness::Replayed {
            return Err(DropReason::StunReplay);
        }
        let conflict = match self.role {
            AgentRole::Controlling => request.controlling,
            AgentRole::Controlled => request.controlled,
        };
        // Our role cannot change, so the peer's has to, whatever the tie-breakers say.
        if let Some((refusal, response)) = request.refusal(&message, conflict, &self.local.pwd) {
            self.refusals.note(refusal, source);
            let response = response.filter(|response| response.len() <= length);
            out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
            return Ok(Next::Nothing);
        }
        self.refusals.clear();
        self.valid.receive(source, length);
        if freshness == Freshness::Fresh {
            let nominates = request.use_candidate && self.role == AgentRole::Controlled;
            self.valid.check(now, source, nominates, length, out);
        }
        // Our check goes before the answer: a peer that takes one after the other answers it before it begins its handshake. It
        // goes in place of the answer, until it is answered itself, where the peer is known to do so, or may have nothing more to
        // say once it has its answer.
        let goes_first = match self.own {
            OwnChecks::First => true,
            OwnChecks::Beside => self.valid.answers(),
            OwnChecks::None => false,
        };
        let is_first = goes_first && self.valid.is_unasked(source);
        self.ask(now, source, if is_first { 0 } else { RESPONSE }, out);
        // A short check pays for ours only when it is repeated.
        if is_first && !self.valid.is_proven(source) {
            self.unanswered = Some((source, message));
            return Ok(Next::Nothing);
        }
        Ok(Next::Answer(message))
    }

    fn refuse(&mut self, refusal: CheckRefusal, source: SocketAddr) -> DropReason {
        self.refusals.note(refusal, source);
        refusal.drop_reason()
    }

    /// An authentic packet of media came from an unproven address; see [`ValidList::on_media`].
    pub(super) fn on_media(&mut self, now: Instant, source: SocketAddr, length: usize, out: &mut Vec<IceOutput>) {
        self.valid.on_media(now, source, length, out);
        self.ask(now, source, 0, out);
    }

    /// The peer showed inside the handshake that it receives at `source`. It is asked once all the same: whether it answers
    /// checks counts when its address changes.
    pub(super) fn on_handshake(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        self.valid.prove(now, source, out);
        if self.valid.is_unasked(source) {
            self.push_own_check(now, source, 0, out);
        }
    }

    /// Lets time pass; see [`super::Ice::tick`].
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.valid.tick(now, out);
        if self.own != OwnChecks::None {
            let due: Vec<_> = self.valid.ask_all(now, self.own_check_length(), RESPONSE).collect();
            out.extend(due.into_iter().filter_map(|(to, transaction)| self.own_check(to, transaction)));
        }
    }

    /// Sends an own check to an address that has not been proven, if one is due and paid for.
    fn ask(&mut self, now: Instant, to: SocketAddr, reserve: usize, out: &mut Vec<IceOutput>) {
        if !self.valid.is_proven(to) {
            self.push_own_check(now, to, reserve, out);
        }
    }

    fn push_own_check(&mut self, now: Instant, to: SocketAddr, reserve: usize, out: &mut Vec<IceOutput>) {
        if self.own != OwnChecks::None {
            let transaction = self.valid.ask(now, to, self.own_check_length(), reserve);
            out.extend(transaction.and_then(|transaction| self.own_check(to, transaction)));
        }
    }

    fn own_check(&self, to: SocketAddr, transaction: [u8; 12]) -> Option<IceOutput> {
        let controlling = self.role == AgentRole::Controlling;
        let datagram = check::request(&self.local, &self.remote, controlling, transaction)?;
        Some(IceOutput::Transmit { to, datagram })
    }

    fn own_check_length(&self) -> usize {
        check::request_length(&self.local, &self.remote)
    }
}
