//! ICE-lite (RFC 8445 §2.5): answers checks, sends none. No clock, no socket, no state per transaction.

use std::net::SocketAddr;
use std::time::Instant;

use super::IceOutput;
use super::check::{self, Binding, Kind};
use super::rate::StunLimit;
use super::refusals::{CheckRefusal, Refusals};
use super::valid_list::ValidList;
use crate::spec::IceCredentials;
use crate::stats::DropReason;

/// The lite side of one session.
#[derive(Debug)]
pub struct IceLite {
    local: IceCredentials,
    remote: IceCredentials,
    valid: ValidList,
    /// One for all other addresses, one for those of the valid list: a third party that learnt the username fragment
    /// cannot use up the peer's.
    limits: [StunLimit; 2],
    pub(super) refusals: Refusals,
}

impl IceLite {
    /// Answers checks to the credentials `local` from the peer with `remote`.
    pub fn new(local: IceCredentials, remote: IceCredentials) -> IceLite {
        let limits = [StunLimit::new(), StunLimit::new()];
        IceLite { local, remote, valid: ValidList::default(), limits, refusals: Refusals::default() }
    }

    /// Takes one STUN datagram and appends the outputs to `out` (RFC 8445 §7.3).
    ///
    /// Unauthenticated requests get no error response, which would only serve scanners.
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
            Kind::Request => {}
            Kind::Indication => {
                // An indication is never answered, and one without proof changes nothing (RFC 8445 §11).
                if binding.authenticate(&self.local.pwd).is_ok() {
                    self.valid.refresh(now);
                }
                return Ok(());
            }
            // A response to nothing: this side asks nothing.
            Kind::Success | Kind::Error => return Err(DropReason::MalformedStun),
        }
        let request = binding.into_request(&self.local, &self.remote);
        let (request, message) = request.map_err(|refusal| self.refuse(refusal, source))?;
        let password = &self.local.pwd;
        // A lite side never controls, so the peer has to (RFC 8445 §6.1.1).
        if let Some((refusal, response)) = request.refusal(&message, request.controlled, password) {
            self.refusals.note(refusal, source);
            out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
            return Ok(());
        }
        self.refusals.clear();
        let response = check::success(&message, source, password);
        out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
        self.valid.validate(now, source, request.use_candidate, out);
        Ok(())
    }

    fn refuse(&mut self, refusal: CheckRefusal, source: SocketAddr) -> DropReason {
        self.refusals.note(refusal, source);
        refusal.drop_reason()
    }

    /// Lets time pass; see [`super::Ice::tick`].
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.valid.tick(now, out);
    }

    /// When the peer was last authenticated.
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
}
