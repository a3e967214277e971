//! The valid list of a session (RFC 8445 §6.1.2, §7.3.1.5) and its selected pair. All pairs have the same local candidate,
//! the socket, so that a remote address stands for a pair.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::IceOutput;

/// Pairs of one session; a peer with many source ports only displaces its own.
pub(super) const MAX_PAIRS: usize = 16;

/// Least time between two nominations, about one round trip: aggressive nomination (RFC 5245 §8.1.1.2) nominates every
/// pair.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A pair without a check for so long is no longer in use: consent is checked every 4 to 6 s (RFC 7675 §5.1).
const UNUSED: Duration = Duration::from_secs(7);

#[derive(Debug)]
struct ValidPair {
    remote: SocketAddr,
    last_check: Instant,
}

#[derive(Debug)]
struct Selection {
    remote: SocketAddr,
    since: Instant,
    nominated: bool,
}

/// The valid pairs of one session.
#[derive(Debug, Default)]
pub(super) struct ValidList {
    pairs: Vec<ValidPair>,
    selection: Option<Selection>,
    /// A nomination within [`DEBOUNCE`] of the one before.
    pending: Option<SocketAddr>,
    last_valid: Option<Instant>,
}

impl ValidList {
    /// Notes an authenticated check from `source`, perhaps with a nomination.
    ///
    /// The latest nomination wins: clients nominate again when their network changes (RFC 8445 §8.1.1). Before any
    /// nomination media follows the latest check (RFC 8445 §12.1.1), and again when the nominated pair is unused: after a
    /// NAT rebinding the client checks the same pair, which has another remote address here.
    pub(super) fn validate(&mut self, now: Instant, source: SocketAddr, nominates: bool, out: &mut Vec<IceOutput>) {
        self.last_valid = Some(now);
        let known = self.pairs.iter_mut().find(|pair| pair.remote == source);
        let is_new = known.is_none();
        match known {
            Some(pair) => pair.last_check = now,
            None => {
                self.make_room(out);
                self.pairs.push(ValidPair { remote: source, last_check: now });
                out.push(IceOutput::Validated(source));
            }
        }
        self.tick(now, out);
        let unused = self.selected().is_some_and(|selected| self.is_unused(now, selected));
        match &mut self.selection {
            Some(selection) if selection.remote == source => {
                selection.nominated |= nominates;
                if nominates {
                    self.pending = None;
                }
            }
            Some(selection) if selection.nominated && !nominates && !unused => {}
            Some(selection) if selection.nominated && !is_new && now < selection.since + DEBOUNCE => {
                self.pending = Some(source);
            }
            _ => self.select(now, source, nominates, out),
        }
    }

    /// Notes an authenticated message that validates nothing, such as a Binding indication.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.last_valid = Some(now);
    }

    /// Applies a delayed nomination that is due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        let due = self.selection.as_ref().is_none_or(|selection| now >= selection.since + DEBOUNCE);
        if due && let Some(address) = self.pending.take() {
            self.select(now, address, true, out);
        }
    }

    pub(super) fn last_valid(&self) -> Option<Instant> {
        self.last_valid
    }

    pub(super) fn selected(&self) -> Option<SocketAddr> {
        self.selection.as_ref().map(|selection| selection.remote)
    }

    pub(super) fn is_validated(&self, address: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.remote == address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.pairs.iter().map(|pair| pair.remote)
    }

    fn is_unused(&self, now: Instant, remote: SocketAddr) -> bool {
        let mut pairs = self.pairs.iter().filter(|pair| pair.remote == remote);
        pairs.all(|pair| now.saturating_duration_since(pair.last_check) > UNUSED)
    }

    fn select(&mut self, now: Instant, remote: SocketAddr, nominated: bool, out: &mut Vec<IceOutput>) {
        self.selection = Some(Selection { remote, since: now, nominated });
        self.pending = None;
        out.push(IceOutput::Selected(remote));
    }

    fn make_room(&mut self, out: &mut Vec<IceOutput>) {
        if self.pairs.len() < MAX_PAIRS {
            return;
        }
        let selected = self.selected();
        let oldest = self
            .pairs
            .iter()
            .enumerate()
            .filter(|(_, pair)| Some(pair.remote) != selected)
            .min_by_key(|(_, pair)| pair.last_check)
            .map(|(index, _)| index);
        if let Some(index) = oldest {
            let pair = self.pairs.swap_remove(index);
            if self.pending == Some(pair.remote) {
                self.pending = None;
            }
            out.push(IceOutput::Forgotten(pair.remote));
        }
    }
}
