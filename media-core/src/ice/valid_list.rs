//! The valid list of a session (RFC 8445 §6.1.2, §7.3.1.5) and its selected pair. All pairs have the same local candidate,
//! the socket, so that a remote address stands for a pair.
//!
//! A check proves who sent it, but not that its source address is true. So an address is *proven* only once the peer has
//! shown that it receives there; until then nothing is selected there, what is sent there is paid for by what came from
//! there, and the peer's life is not told by it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::IceOutput;
use super::credit::{Credit, OwnCheckLog};

/// Pairs of one session; a peer with many source ports only displaces its own.
pub(super) const MAX_PAIRS: usize = 16;

/// Least time between two nominations, about one round trip: aggressive nomination (RFC 5245 §8.1.1.2) nominates every
/// pair.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A pair without a check for so long is no longer in use: consent is checked every 4 to 6 s (RFC 7675 §5.1).
const UNUSED: Duration = Duration::from_secs(7);

#[derive(Debug)]
struct Pair {
    remote: SocketAddr,
    /// The last sign of the peer from there.
    last_seen: Instant,
    /// A check was authentic, of the peer's or of ours: DTLS and media from there are accepted.
    is_valid: bool,
    /// When the peer nominated it last, by a check or by sending its media from there.
    nominated: Option<Instant>,
    /// The peer receives there.
    is_proven: bool,
    credit: Credit,
    own_checks: OwnCheckLog,
    /// Authentic media came from there: an own check is paid for, whatever its size.
    sent_media: bool,
}

#[derive(Debug)]
struct Selection {
    remote: SocketAddr,
    since: Instant,
    nominated: Option<Instant>,
}

/// The pairs of one session.
#[derive(Debug, Default)]
pub(super) struct ValidList {
    pairs: Vec<Pair>,
    selection: Option<Selection>,
    /// A nomination within [`DEBOUNCE`] of the one before.
    pending: Option<SocketAddr>,
    last_check: Option<Instant>,
    last_valid: Option<Instant>,
    /// The peer has answered a check of ours, so that it can do so anywhere.
    answers: bool,
}

impl ValidList {
    /// A datagram of `length` bytes came from `source`, whatever it is.
    pub(super) fn receive(&mut self, source: SocketAddr, length: usize) {
        if let Some(pair) = self.find(source) {
            pair.credit.earn(length);
        }
    }

    /// Notes an authenticated check of `length` bytes from `source`, of a transaction of its own, perhaps with a nomination.
    ///
    /// Among proven addresses the latest nomination wins: clients nominate again when their network changes (RFC 8445
    /// §8.1.1). Before any nomination media follows the latest check (RFC 8445 §12.1.1), and again when the nominated pair is
    /// unused: after a NAT rebinding the client checks the same pair, which has another remote address here.
    pub(super) fn check(
        &mut self,
        now: Instant,
        source: SocketAddr,
        nominates: bool,
        length: usize,
        out: &mut Vec<IceOutput>,
    ) {
        self.last_check = Some(now);
        let pair = self.find_or_insert(now, source, length, out);
        pair.last_seen = now;
        if !std::mem::replace(&mut pair.is_valid, true) {
            out.push(IceOutput::Validated(source));
        }
        if nominates {
            pair.nominated = Some(now);
        }
        if pair.is_proven {
            self.last_valid = Some(now);
            self.follow(now, source, nominates.then_some(now), false, out);
        }
    }

    /// The peer has shown that it receives at `source`. A nomination from there acts now, unless there was a later one.
    pub(super) fn prove(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        let Some(pair) = self.find(source) else { return };
        if std::mem::replace(&mut pair.is_proven, true) {
            return;
        }
        pair.last_seen = now;
        if !std::mem::replace(&mut pair.is_valid, true) {
            out.push(IceOutput::Validated(source));
        }
        let nominated = pair.nominated;
        out.push(IceOutput::Proven(source));
        self.last_valid = Some(now);
        let latest = self.selection.as_ref().and_then(|selection| selection.nominated);
        self.follow(now, source, nominated.filter(|&at| latest.is_none_or(|latest| latest <= at)), true, out);
    }

    /// True if an own check of this transaction was sent to `remote`.
    pub(super) fn has_asked(&self, remote: SocketAddr, transaction: [u8; 12]) -> bool {
        self.pairs.iter().any(|pair| pair.remote == remote && pair.own_checks.is(transaction))
    }

    /// An own check to `source` was answered from there.
    pub(super) fn on_answer(&mut self, now: Instant, source: SocketAddr, out: &mut Vec<IceOutput>) {
        self.answers = true;
        let Some(pair) = self.find(source) else { return };
        pair.last_seen = now;
        if pair.is_proven {
            self.last_valid = Some(now);
        }
        self.prove(now, source, out);
    }

    /// An authenticated, not replayed packet of media or RTCP of `length` bytes came from an unproven address.
    ///
    /// Its sender need not receive there. A peer that answers checks has to answer one there; of one that never did, media
    /// from an address with a valid check is the only proof that there can be. Without a check from there, the peer sends
    /// from where it always did, through a NAT that gave it another port: as a nomination would say (RFC 8445 §12.1).
    pub(super) fn on_media(&mut self, now: Instant, source: SocketAddr, length: usize, out: &mut Vec<IceOutput>) {
        let answers = self.answers;
        let is_known = self.find(source).is_some();
        let pair = self.find_or_insert(now, source, length, out);
        if is_known {
            pair.credit.earn(length);
        }
        pair.sent_media = true;
        pair.last_seen = now;
        if !pair.is_valid {
            pair.nominated = Some(now);
        } else if !answers {
            self.prove(now, source, out);
        }
    }

    /// True once the peer has answered an own check, wherever.
    pub(super) fn answers(&self) -> bool {
        self.answers
    }

    /// It has done so before an ICE restart.
    pub(super) fn set_answers(&mut self, answers: bool) {
        self.answers |= answers;
    }

    /// The transaction of an own check of `length` bytes that is to be sent to `remote` now, if one is, and `reserve` bytes
    /// can be sent after it.
    pub(super) fn ask(&mut self, now: Instant, remote: SocketAddr, length: usize, reserve: usize) -> Option<[u8; 12]> {
        self.find(remote)?.ask(now, length, reserve)
    }

    /// The own checks of `length` bytes that are due anywhere; see [`ValidList::ask`].
    pub(super) fn ask_all(
        &mut self,
        now: Instant,
        length: usize,
        reserve: usize,
    ) -> impl Iterator<Item = (SocketAddr, [u8; 12])> + '_ {
        let unproven = self.pairs.iter_mut().filter(|pair| !pair.is_proven);
        unproven.filter_map(move |pair| pair.ask(now, length, reserve).map(|transaction| (pair.remote, transaction)))
    }

    /// True if no own check was sent to this address, proven or not.
    pub(super) fn is_unasked(&self, remote: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.remote == remote && pair.own_checks.is_unasked())
    }

    /// True if something authentic came from this address.
    pub(super) fn is_known(&self, remote: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.remote == remote)
    }

    /// Pays for a datagram of `length` bytes to `remote`; false if it must not be sent.
    pub(super) fn may_send(&mut self, remote: SocketAddr, length: usize) -> bool {
        self.find(remote).is_some_and(|pair| pair.is_proven || pair.credit.spend(length))
    }

    /// How many bytes may be sent to `remote`; `None` for as many as one likes.
    pub(super) fn room(&self, remote: SocketAddr) -> Option<usize> {
        let pair = self.pairs.iter().find(|pair| pair.remote == remote);
        pair.map_or(Some(0), |pair| (!pair.is_proven).then_some(pair.credit.left()))
    }

    /// Notes an authenticated message that validates nothing, such as a Binding indication.
    pub(super) fn refresh(&mut self, now: Instant, source: SocketAddr) {
        if self.is_proven(source) {
            self.last_valid = Some(now);
        }
    }

    /// Applies a delayed nomination that is due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<IceOutput>) {
        let due = self.selection.as_ref().is_none_or(|selection| now >= selection.since + DEBOUNCE);
        if due && let Some(address) = self.pending.take() {
            self.select(now, address, Some(now), out);
        }
    }

    /// Nothing can be sent to this address any more: its connection is gone. Another proven address at which the peer was seen of
    /// late takes its place.
    pub(super) fn forget(&mut self, now: Instant, remote: SocketAddr, out: &mut Vec<IceOutput>) {
        let Some(index) = self.pairs.iter().position(|pair| pair.remote == remote) else { return };
        self.pairs.swap_remove(index);
        self.pending.take_if(|pending| *pending == remote);
        out.push(IceOutput::Forgotten(remote));
        if self.selection.take_if(|selection| selection.remote == remote).is_some() {
            let is_used = |pair: &&Pair| pair.is_proven && now.saturating_duration_since(pair.last_seen) < UNUSED;
            let next = self.pairs.iter().filter(is_used).max_by_key(|pair| (pair.nominated, pair.last_seen));
            if let Some((remote, nominated)) = next.map(|pair| (pair.remote, pair.nominated)) {
                self.select(now, remote, nominated, out);
            }
        }
    }

    /// When the last authenticated check came, from wherever.
    pub(super) fn last_check(&self) -> Option<Instant> {
        self.last_check
    }

    /// When the peer last showed at a proven address that it lives.
    pub(super) fn last_valid(&self) -> Option<Instant> {
        self.last_valid
    }

    pub(super) fn selected(&self) -> Option<SocketAddr> {
        self.selection.as_ref().map(|selection| selection.remote)
    }

    /// The selected address, if it is nominated.
    pub(super) fn nominated(&self) -> Option<SocketAddr> {
        self.selection.as_ref().filter(|selection| selection.nominated.is_some()).map(|selection| selection.remote)
    }

    pub(super) fn is_validated(&self, address: SocketAddr) -> bool {
        self.addresses().any(|valid| valid == address)
    }

    pub(super) fn is_proven(&self, address: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.remote == address && pair.is_proven)
    }

    /// True if the peer was seen at `address` within `time`.
    pub(super) fn is_seen(&self, now: Instant, address: SocketAddr, time: Duration) -> bool {
        let mut pairs = self.pairs.iter().filter(|pair| pair.remote == address);
        pairs.any(|pair| now.saturating_duration_since(pair.last_seen) < time)
    }

    /// The addresses with a valid check.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.pairs.iter().filter(|pair| pair.is_valid).map(|pair| pair.remote)
    }

    /// Something was received from a proven address, `nominated` if the peer wants it.
    fn follow(
        &mut self,
        now: Instant,
        source: SocketAddr,
        nominated: Option<Instant>,
        is_new: bool,
        out: &mut Vec<IceOutput>,
    ) {
        self.tick(now, out);
        let unused = self.selected().is_some_and(|selected| !self.is_seen(now, selected, UNUSED));
        match &mut self.selection {
            Some(selection) if selection.remote == source => {
                selection.nominated = nominated.or(selection.nominated);
                if nominated.is_some() {
                    self.pending = None;
                }
            }
            Some(selection) if selection.nominated.is_some() && nominated.is_none() && !unused => {}
            Some(selection) if selection.nominated.is_some() && !is_new && now < selection.since + DEBOUNCE => {
                self.pending = Some(source);
            }
            _ => self.select(now, source, nominated, out),
        }
    }

    fn select(&mut self, now: Instant, remote: SocketAddr, nominated: Option<Instant>, out: &mut Vec<IceOutput>) {
        self.selection = Some(Selection { remote, since: now, nominated });
        self.pending = None;
        out.push(IceOutput::Selected(remote));
    }

    fn find(&mut self, remote: SocketAddr) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.remote == remote)
    }

    /// The pair of `remote`; a new one has earned `length` bytes.
    fn find_or_insert(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        length: usize,
        out: &mut Vec<IceOutput>,
    ) -> &mut Pair {
        let index = match self.pairs.iter().position(|pair| pair.remote == remote) {
            Some(index) => index,
            None => {
                self.make_room(out);
                let mut credit = Credit::default();
                credit.earn(length);
                self.pairs.push(Pair {
                    remote,
                    last_seen: now,
                    is_valid: false,
                    nominated: None,
                    is_proven: false,
                    credit,
                    own_checks: OwnCheckLog::default(),
                    sent_media: false,
                });
                self.pairs.len() - 1
            }
        };
        &mut self.pairs[index]
    }

    /// Unproven addresses go first: whoever forges sources displaces what was forged before.
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
            .min_by_key(|(_, pair)| (pair.is_proven, pair.last_seen))
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

impl Pair {
    fn ask(&mut self, now: Instant, length: usize, reserve: usize) -> Option<[u8; 12]> {
        if !self.own_checks.is_due(now) {
            return None;
        }
        let is_free = self.is_proven || self.sent_media;
        if !is_free && (self.credit.left() < length.saturating_add(reserve) || !self.credit.spend(length)) {
            return None;
        }
        Some(self.own_checks.send(now))
    }
}
