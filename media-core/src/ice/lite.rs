//! ICE-lite (RFC 8445 §2.5): answers checks, and asks new addresses alone. No clock, no socket.

use std::net::SocketAddr;
use std::time::Instant;

use super::agent::AgentRole;
use super::check;
use super::checks::{Checks, Next};
use super::{IceOutput, OwnChecks};
use crate::spec::IceCredentials;
use crate::stats::DropReason;

/// The lite side of one session. Its checks are none of RFC 8445's, which a lite side does not send: they choose no pair, and
/// only prove that the peer receives at an address from which it sent.
#[derive(Debug)]
pub struct IceLite {
    pub(super) checks: Checks,
}

impl IceLite {
    /// Answers checks to the credentials `local` from the peer with `remote`.
    pub fn new(local: IceCredentials, remote: IceCredentials, own_checks: OwnChecks) -> IceLite {
        // A lite side never controls, so the peer has to (RFC 8445 §6.1.1).
        IceLite { checks: Checks::new(AgentRole::Controlled, local, remote, own_checks) }
    }

    /// Takes one STUN datagram and appends the outputs to `out` (RFC 8445 §7.3).
    pub fn handle(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], out: &mut Vec<IceOutput>) {
        match self.checks.handle(now, source, datagram, out) {
            Ok(Next::Answer(message)) => {
                let response = check::success(&message, source, &self.checks.local.pwd);
                let response = response.filter(|response| self.checks.valid.may_send(source, response.len()));
                out.extend(response.map(|datagram| IceOutput::Transmit { to: source, datagram }));
            }
            Ok(Next::Nothing) => {}
            // A response to nothing.
            Ok(Next::Response(_)) => out.push(IceOutput::CheckRefused(DropReason::MalformedStun)),
            Err(reason) => out.push(IceOutput::CheckRefused(reason)),
        }
    }

    /// The peer has shown in another way that it receives at `source`, from which a check was valid.
    pub fn on_proof(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        self.checks.valid.prove(now, source, out);
    }

    /// Lets time pass; see [`super::Ice::tick`].
    pub fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        self.checks.tick(now, out);
    }

    /// When the peer last showed at a proven address that it lives.
    pub fn last_valid_check(&self) -> Option<Instant> {
        self.checks.valid.last_valid()
    }

    /// The remote address of the selected pair.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.checks.valid.selected()
    }

    /// The remote addresses of the valid list, at most 16.
    pub fn validated(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.checks.valid.addresses()
    }
}
