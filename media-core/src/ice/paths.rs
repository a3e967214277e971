//! The addresses from which a peer proved itself, and which of them gets media.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::IceOutput;

/// Validated addresses that a session remembers; a peer that sprays source ports only crowds out its own.
pub(super) const MAX_ADDRESSES: usize = 16;

/// About one round trip: within it, an old client that nominates every pair would make media jump to and fro.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// No check for so long: consent is asked for every 4 to 6 s (RFC 7675 §5.1).
const ABANDONED: Duration = Duration::from_secs(7);

#[derive(Debug)]
struct Path {
    address: SocketAddr,
    last_check: Instant,
}

#[derive(Debug)]
struct Selection {
    address: SocketAddr,
    since: Instant,
    nominated: bool,
}

/// The validated addresses of one session.
#[derive(Debug, Default)]
pub(super) struct Paths {
    paths: Vec<Path>,
    selection: Option<Selection>,
    /// A nomination that came within [`DEBOUNCE`] of the one before.
    pending: Option<SocketAddr>,
    last_valid: Option<Instant>,
}

impl Paths {
    /// Notes an authenticated check from `source`; `nominates` says that it selects this pair.
    ///
    /// The latest nomination wins: clients nominate anew when their network changes (RFC 8445 §8.1.1). Before any
    /// nomination media follows the latest check (RFC 8445 §12.1.1), and again when the nominated address has fallen
    /// silent: behind a NAT that forgot its mapping a client checks its old pair, which has a new address here.
    pub(super) fn validate(&mut self, now: Instant, source: SocketAddr, nominates: bool, out: &mut Vec<IceOutput>) {
        self.last_valid = Some(now);
        let known = self.paths.iter_mut().find(|path| path.address == source);
        let is_new = known.is_none();
        match known {
            Some(path) => path.last_check = now,
            None => {
                self.make_room(out);
                self.paths.push(Path { address: source, last_check: now });
                out.push(IceOutput::Validated(source));
            }
        }
        self.tick(now, out);
        let abandoned = self.selected().is_some_and(|selected| self.is_abandoned(now, selected));
        match &mut self.selection {
            Some(selection) if selection.address == source => {
                selection.nominated |= nominates;
                if nominates {
                    self.pending = None;
                }
            }
            Some(selection) if selection.nominated && !nominates && !abandoned => {}
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

    /// Carries out a delayed nomination whose time has come.
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
        self.selection.as_ref().map(|selection| selection.address)
    }

    pub(super) fn is_validated(&self, address: SocketAddr) -> bool {
        self.paths.iter().any(|path| path.address == address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.paths.iter().map(|path| path.address)
    }

    fn is_abandoned(&self, now: Instant, address: SocketAddr) -> bool {
        let mut paths = self.paths.iter().filter(|path| path.address == address);
        paths.all(|path| now.saturating_duration_since(path.last_check) > ABANDONED)
    }

    fn select(&mut self, now: Instant, address: SocketAddr, nominated: bool, out: &mut Vec<IceOutput>) {
        self.selection = Some(Selection { address, since: now, nominated });
        self.pending = None;
        out.push(IceOutput::Selected(address));
    }

    fn make_room(&mut self, out: &mut Vec<IceOutput>) {
        if self.paths.len() < MAX_ADDRESSES {
            return;
        }
        let selected = self.selected();
        let oldest = self
            .paths
            .iter()
            .enumerate()
            .filter(|(_, path)| Some(path.address) != selected)
            .min_by_key(|(_, path)| path.last_check)
            .map(|(index, _)| index);
        if let Some(index) = oldest {
            let path = self.paths.swap_remove(index);
            if self.pending == Some(path.address) {
                self.pending = None;
            }
            out.push(IceOutput::Forgotten(path.address));
        }
    }
}
