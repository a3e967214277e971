//! The sessions of a shard, and how datagrams find theirs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ahash::RandomState;
use slab::Slab;
use smallvec::SmallVec;

use crate::ice;
use crate::net::{Protocol, TransportTuple};
use crate::session::{Secure, Session};
use crate::spec::SessionId;
use crate::stats::DropReason;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Ended sessions whose close_notify is still to be sent: where to, and until when.
pub(super) type CloseNotify = Map<SessionId, (TransportTuple, Instant)>;

/// How long an ended session's tuple is kept for its close_notify.
pub(super) const CLOSE_NOTIFY: Duration = Duration::from_secs(1);
/// An address stays with the session whose media goes there while its peer proved itself within this time, and with one that
/// has not proven it yet while its peer is seen there. A check proves the password of the new session, but not that its source
/// address is true.
const ADDRESS_HELD: Duration = Duration::from_secs(2);
/// Sessions behind one IP address whose keys are tried on media from a port of it that is nobody's.
const STRAY_CANDIDATES: usize = 4;
/// How long a full agent's transaction is remembered; a response that took longer is of no use.
const TRANSACTION: Duration = Duration::from_secs(5);
/// Transactions that are remembered at most.
const MAX_TRANSACTIONS: usize = 65_536;

/// All sessions of a shard, by keys that stay.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) slab: Slab<Session>,
    by_id: Map<SessionId, usize>,
    by_ufrag: Map<String, usize>,
    by_peer: Map<Peer, usize>,
    /// Sessions by the IP addresses that they have proven: a NAT that forgets a port keeps its own address as a rule.
    by_ip: Map<IpAddr, SmallVec<[usize; 2]>>,
    /// Transactions of full agents: whose response it will be, and until when it is awaited.
    transactions: Map<[u8; 12], (usize, Instant)>,
    pub(super) pending_close_notify: CloseNotify,
}

impl Sessions {
    /// True if no timer can have anything to do.
    pub(super) fn is_idle(&self) -> bool {
        self.slab.is_empty() && self.pending_close_notify.is_empty()
    }

    /// True if a close_notify is still to be sent.
    pub(super) fn has_pending_close_notify(&self) -> bool {
        !self.pending_close_notify.is_empty()
    }

    /// The key of a session.
    pub(super) fn find(&self, id: SessionId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Adds a session; its key.
    pub(super) fn insert(&mut self, session: Session) -> usize {
        let id = session.id;
        let key = self.slab.insert(session);
        self.by_id.insert(id, key);
        self.map_ufrags(key);
        key
    }

    /// Lets the username fragments of a session's ICE lead to it: of one, or around a restart of two generations.
    pub(super) fn map_ufrags(&mut self, key: usize) {
        for ufrag in self.slab[key].connectivity.local_ufrags() {
            if !self.by_ufrag.contains_key(ufrag) {
                self.by_ufrag.insert(ufrag.to_owned(), key);
            }
        }
    }

    /// A username fragment leads to no session any more.
    pub(super) fn forget_ufrag(&mut self, ufrag: &str) {
        self.by_ufrag.remove(ufrag);
    }

    /// Takes a session out; nothing leads to it any more but its close_notify.
    pub(super) fn remove(&mut self, now: Instant, key: usize) -> Session {
        let session = self.slab.remove(key);
        self.by_id.remove(&session.id);
        for ufrag in session.connectivity.local_ufrags() {
            self.by_ufrag.remove(ufrag);
        }
        for tuple in &session.connectivity.validated {
            self.forget_peer(key, *tuple);
        }
        self.transactions.retain(|_, (owner, _)| *owner != key);
        if let Some(tuple) = session.selected {
            self.pending_close_notify.insert(session.id, (tuple, now + CLOSE_NOTIFY));
        }
        session
    }

    /// True if some session has this username fragment.
    pub(super) fn knows(&self, ufrag: &str) -> bool {
        self.by_ufrag.contains_key(ufrag)
    }

    /// The session that this address has proven to belong to (DMX-05).
    pub(super) fn at(&self, tuple: TransportTuple) -> Result<usize, DropReason> {
        self.by_peer.get(&peer(tuple)).copied().ok_or(DropReason::UnvalidatedAddress)
    }

    /// The session that a STUN message is for: requests are routed by our username fragment, responses by the transaction
    /// that we began.
    pub(super) fn of_stun(&self, tuple: TransportTuple, data: &[u8]) -> Result<usize, DropReason> {
        if ice::is_request(data) {
            let ufrag = ice::peek_ufrag(data).ok_or(DropReason::MalformedStun)?;
            self.by_ufrag.get(ufrag).copied().ok_or(DropReason::UnknownUfrag)
        } else if ice::is_response(data) {
            let transaction = ice::transaction_id(data).ok_or(DropReason::MalformedStun)?;
            self.transactions.get(&transaction).map(|&(key, _)| key).ok_or(DropReason::UnknownUfrag)
        } else {
            self.at(tuple)
        }
    }

    /// The session that a request names which leads to none: its username is not ours first, or has no second part.
    pub(super) fn of_misnamed(&self, data: &[u8]) -> Option<usize> {
        ice::peek_ufrags(data).find_map(|ufrag| self.by_ufrag.get(ufrag).copied())
    }

    /// A full agent began a transaction.
    pub(super) fn begin_transaction(&mut self, now: Instant, transaction: [u8; 12], key: usize) {
        if self.transactions.len() < MAX_TRANSACTIONS {
            self.transactions.insert(transaction, (key, now + TRANSACTION));
        }
    }

    /// Lets a validated address lead to its session. Every check asks again: the session that held the address may have ended
    /// since. One that has not been proven takes nothing away.
    pub(super) fn claim(&mut self, now: Instant, key: usize, remote: SocketAddr) {
        let Some(tuple) = self.slab[key].connectivity.tuple_to(remote) else { return };
        let is_proven = self.slab[key].connectivity.is_proven(remote);
        if is_proven {
            let there = self.by_ip.entry(remote.ip()).or_default();
            if !there.contains(&key) {
                there.push(key);
            }
        }
        let owner = self.by_peer.get(&peer(tuple)).copied();
        if owner == Some(key) {
            return;
        }
        let is_held = owner.and_then(|owner| self.slab.get(owner)).is_some_and(|owner| {
            let peer = &owner.connectivity;
            match (peer.is_proven(remote), is_proven) {
                (true, true) => {
                    owner.selected.is_some_and(|selected| selected.remote == remote)
                        && owner.lifecycle.is_alive(now, ADDRESS_HELD)
                }
                (true, false) => peer.tuple_to(remote).is_some(),
                (false, true) => false,
                (false, false) => peer.is_seen(now, remote, ADDRESS_HELD),
            }
        });
        if !is_held {
            self.by_peer.insert(peer(tuple), key);
        }
    }

    /// An address is no longer one of the session's.
    pub(super) fn forget_peer(&mut self, key: usize, tuple: TransportTuple) {
        if self.by_peer.get(&peer(tuple)) == Some(&key) {
            self.by_peer.remove(&peer(tuple));
        }
        let ip = tuple.remote.ip();
        let mut others = self.slab.get(key).into_iter().flat_map(|session| &session.connectivity.validated);
        if !others.any(|other| other.remote.ip() == ip)
            && let Some(there) = self.by_ip.get_mut(&ip)
        {
            there.retain(|other| *other != key);
            if there.is_empty() {
                self.by_ip.remove(&ip);
            }
        }
    }

    /// The session whose authentic packet this is, though it came from a port that is nobody's. Among those behind its IP
    /// address the ones that have been silent for longest are tried, each only so often.
    pub(super) fn of_stray(
        &mut self,
        now: Instant,
        tuple: TransportTuple,
        data: &[u8],
        secure: Secure,
    ) -> Option<usize> {
        let there = self.by_ip.get(&tuple.remote.ip())?;
        let mut known: SmallVec<[(Instant, usize); 8]> = SmallVec::new();
        for &key in there {
            let Some(session) = self.slab.get(key).filter(|session| session.knows_source(secure, data)) else {
                continue;
            };
            known.push((session.lifecycle.last_authentic(), key));
        }
        known.sort_unstable();
        let mut tried = known.into_iter().take(STRAY_CANDIDATES);
        tried.find(|&(_, key)| self.slab[key].recognises(now, data, secure)).map(|(_, key)| key)
    }

    /// Where an ended session's close_notify is to be sent, once.
    pub(super) fn take_close_notify(&mut self, id: SessionId) -> Option<TransportTuple> {
        self.pending_close_notify.remove(&id).map(|(tuple, _)| tuple)
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        self.pending_close_notify.retain(|_, (_, until)| now < *until);
        self.transactions.retain(|_, (_, until)| now < *until);
    }
}

/// What identifies a peer on the shard's socket and connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Peer {
    /// 0 for the UDP socket; one number to hash.
    path: u32,
    remote: SocketAddr,
}

fn peer(tuple: TransportTuple) -> Peer {
    let path = match tuple.protocol {
        Protocol::Udp => 0,
        Protocol::Tcp => 1 + u32::from(tuple.connection),
    };
    Peer { path, remote: tuple.remote }
}
