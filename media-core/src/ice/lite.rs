//! ICE-lite (RFC 8445 §2.5): answers checks, sends none. No clock, no socket, no state per transaction.

use std::net::SocketAddr;
use std::time::Instant;

use super::IceOutput;
use super::check::{self, Binding, Kind};
use super::paths::Paths;
use super::rate::StunLimit;
use crate::session::IceCredentials;
use crate::stats::DropReason;

/// The lite side of one session.
#[derive(Debug)]
pub struct IceLite {
    local: IceCredentials,
    remote: IceCredentials,
    paths: Paths,
    /// For addresses that proved themselves before, and for all others: a stranger who learnt the username fragment
    /// cannot starve the peer.
    limits: [StunLimit; 2],
}

impl IceLite {
    /// Answers checks that know `local` and come from the owner of `remote`.
    pub fn new(local: IceCredentials, remote: IceCredentials) -> IceLite {
        let limits = [StunLimit::new(), StunLimit::new()];
        IceLite { local, remote, paths: Paths::default(), limits }
    }

    /// Takes one STUN datagram and appends to `out` what follows from it (RFC 8445 §7.3).
    ///
    /// Nobody who does not know the password gets an answer: errors to strangers would only serve scanners.
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
        if !self.limits[usize::from(self.paths.is_validated(source))].take(now) {
            return Err(DropReason::StunRate);
        }
        let mut binding = Binding::parse(datagram)?;
        match binding.kind {
            Kind::Request => {}
            Kind::Indication => {
                // An indication is never answered, and one without proof changes nothing (RFC 8445 §11).
                if binding.authenticate(&self.local.pwd).is_ok() {
                    self.paths.refresh(now);
                }
                return Ok(());
            }
            // A response to nothing: this side asks nothing.
            Kind::Success | Kind::Error => return Err(DropReason::MalformedStun),
        }
        let (request, message) = binding.into_request(&self.local, &self.remote)?;
        let password = &self.local.pwd;
        // A lite side never controls, so the peer has to (RFC 8445 §6.1.1).
        if let Some(refusal) = request.refusal(&message, request.controlled, password) {
            out.extend(refusal.map(|datagram| IceOutput::Transmit { to: source, datagram }));
            return Ok(());
        }
        let response = check::success(&message, source, password);
        out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
        self.paths.validate(now, source, request.use_candidate, out);
        Ok(())
    }

    /// Lets time pass; see [`super::Ice::tick`].
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.paths.tick(now, out);
    }

    /// When the peer last proved itself.
    pub fn last_valid_check(&self) -> Option<Instant> {
        self.paths.last_valid()
    }

    /// Where media goes.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.paths.selected()
    }

    /// The addresses from which DTLS and SRTP are accepted, at most 16.
    pub fn validated(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.paths.addresses()
    }
}
