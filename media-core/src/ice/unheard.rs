//! Checks to addresses that the peer only named: anybody's, perhaps.

use std::net::SocketAddr;

/// Checks to one such address. The first opens the way through a NAT or firewall in front of the server, which stays open for
/// 30 s at least (RFC 4787 §4.3), the second serves where the first is lost. The peer's own checks do the rest.
const CHECKS_PER_ADDRESS: u8 = 2;
/// Checks of one session to all of them: those of four candidates, as many as clients have.
const CHECKS_PER_SESSION: u8 = 8;

/// The addresses from which nothing was received, with the checks that each of them got.
#[derive(Debug, Default)]
pub(super) struct Unheard(Vec<(SocketAddr, u8)>);

impl Unheard {
    /// True if one more check may be sent to `to`.
    pub(super) fn ask(&mut self, to: SocketAddr) -> bool {
        let total: u8 = self.0.iter().map(|&(_, checks)| checks).sum();
        if total >= CHECKS_PER_SESSION {
            return false;
        }
        match self.0.iter_mut().find(|(address, _)| *address == to) {
            Some((_, checks)) if *checks >= CHECKS_PER_ADDRESS => false,
            Some((_, checks)) => {
                *checks += 1;
                true
            }
            None => {
                self.0.push((to, 1));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H4
    #[test]
    fn addresses_that_were_only_named_get_a_few_checks_and_a_session_makes_eight() {
        let mut unheard = Unheard::default();
        let addresses = (9000..9100).map(|port| SocketAddr::from(([198, 51, 100, 1], port)));
        let mut sent = Vec::new();
        for _ in 0..100 {
            for address in addresses.clone() {
                if unheard.ask(address) {
                    sent.push(address);
                }
            }
        }
        assert_eq!(sent.len(), usize::from(CHECKS_PER_SESSION));
        let mut one = Unheard::default();
        let address = sent[0];
        assert_eq!((0..100).filter(|_| one.ask(address)).count(), usize::from(CHECKS_PER_ADDRESS));
    }
}
