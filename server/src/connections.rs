//! The open HTTP connections: how many there may be, of whom, and which of them gives place to another.
//!
//! A connection is quiet while no request of it is in progress. Where the bounds or the file descriptors are reached, the one
//! that has been quiet for the longest time is closed: whoever holds connections without using them shuts nobody out.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signaling::ClientAddress;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{Closed, Metrics};

/// A connection that is quiet for less may just be beginning, or its answer be on its way: it gives no place.
const GRACE: Duration = Duration::from_secs(1);

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Listener {
    /// WHIP, WHEP and the pages.
    Public,
    /// Metrics, health and the admin API.
    Admin,
}

impl Listener {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How many connections each listener holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// At a time.
    pub total: usize,
    /// Of them from one IPv4 address, or from one /64 of IPv6, which is one customer's.
    pub per_address: usize,
}

/// The open connections of both listeners.
pub struct Connections {
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
    /// Told when a connection has ended.
    ended: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    entries: HashMap<u64, Entry>,
    counts: HashMap<(bool, IpAddr), usize>,
    totals: [usize; 2],
    /// Quiet connections, the longest quiet one first.
    quiet: BTreeSet<(Instant, u64)>,
}

struct Entry {
    listener: Listener,
    address: IpAddr,
    requests: usize,
    quiet_since: Option<Instant>,
    evicted: Arc<Notify>,
}

/// One open connection; dropping it takes it out.
pub struct Connection {
    id: u64,
    listener: Listener,
    connections: Arc<Connections>,
    evicted: Arc<Notify>,
    requested: AtomicBool,
}

impl Connections {
    /// None yet.
    pub fn new(limits: ConnectionLimits, metrics: Arc<Metrics>) -> Arc<Connections> {
        Arc::new(Connections { limits, metrics, open: Mutex::default(), ended: Notify::new() })
    }

    /// Takes a connection in; `None` if its listener or its address has all that it may, and none of them gives place.
    pub(crate) fn admit(self: &Arc<Connections>, listener: Listener, remote: ClientAddress) -> Option<Connection> {
        let now = Instant::now();
        let address = remote.customer();
        let mut open = self.lock();
        let of_address = open.counts.get(&key(listener, address)).copied().unwrap_or(0);
        let admitted = (of_address < self.limits.per_address
            || self.evict(&mut open, now, |entry| entry.listener == listener && entry.address == address))
            && (open.totals[listener as usize] < self.limits.total
                || self.evict(&mut open, now, |entry| entry.listener == listener));
        if !admitted {
            drop(open);
            self.metrics.connection_closed(listener, Closed::Refused);
            return None;
        }
        let evicted = Arc::new(Notify::new());
        let id = open.insert(now, listener, address, Arc::clone(&evicted));
        drop(open);
        self.metrics.connection_opened(listener);
        let requested = AtomicBool::new(false);
        Some(Connection { id, listener, connections: Arc::clone(self), evicted, requested })
    }

    /// Closes the connection that has been quiet for the longest time, of whichever listener; false if none gives place.
    pub(crate) fn make_room(&self) -> bool {
        let mut open = self.lock();
        self.evict(&mut open, Instant::now(), |_| true)
    }

    /// Waits until some connection has ended, at most so long.
    pub(crate) async fn some_ended(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.ended.notified()).await;
    }

    fn evict(&self, open: &mut Open, now: Instant, wanted: impl Fn(&Entry) -> bool) -> bool {
        let old_enough = open.quiet.iter().take_while(|(since, _)| now.saturating_duration_since(*since) >= GRACE);
        let mut candidates = old_enough.map(|&(_, id)| id);
        let Some(id) = candidates.find(|id| open.entries.get(id).is_some_and(&wanted)) else { return false };
        let Some(entry) = open.remove(id) else { return false };
        entry.evicted.notify_one();
        self.metrics.connection_closed(entry.listener, Closed::Evicted);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn insert(&mut self, now: Instant, listener: Listener, address: IpAddr, evicted: Arc<Notify>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.entries.insert(id, Entry { listener, address, requests: 0, quiet_since: Some(now), evicted });
        self.quiet.insert((now, id));
        *self.counts.entry(key(listener, address)).or_insert(0) += 1;
        self.totals[listener as usize] += 1;
        id
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(since) = entry.quiet_since {
            self.quiet.remove(&(since, id));
        }
        self.totals[entry.listener as usize] -= 1;
        let key = key(entry.listener, entry.address);
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        Some(entry)
    }
}

impl Connection {
    /// Resolves when it has to give place.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// The head of some request was complete.
    pub(crate) fn has_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// No request came in time.
    pub(crate) fn closed_without_request(&self) {
        self.connections.metrics.connection_closed(self.listener, Closed::NoRequest);
    }

    /// A request begins; it ends with the value.
    pub(crate) fn request(self: &Arc<Connection>) -> RequestInProgress {
        self.requested.store(true, Ordering::Relaxed);
        let mut open = self.connections.lock();
        if let Some(entry) = open.entries.get_mut(&self.id) {
            entry.requests += 1;
            if let Some(since) = entry.quiet_since.take() {
                open.quiet.remove(&(since, self.id));
            }
        }
        RequestInProgress(Arc::clone(self))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
        self.connections.metrics.connection_ended(self.listener);
        self.connections.ended.notify_one();
    }
}

/// A request that is being answered.
pub(crate) struct RequestInProgress(Arc<Connection>);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut open = self.0.connections.lock();
        let id = self.0.id;
        let Some(entry) = open.entries.get_mut(&id) else { return };
        entry.requests -= 1;
        if entry.requests == 0 {
            entry.quiet_since = Some(now);
            open.quiet.insert((now, id));
        }
    }
}

fn key(listener: Listener, address: IpAddr) -> (bool, IpAddr) {
    (listener == Listener::Admin, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_address: usize) -> Arc<Connections> {
        Connections::new(ConnectionLimits { total, per_address }, Arc::new(Metrics::new().unwrap()))
    }

    fn ip(text: &str) -> ClientAddress {
        ClientAddress(text.parse().unwrap())
    }

    // F-09
    #[tokio::test(start_paused = true)]
    async fn the_longest_quiet_connection_of_an_address_gives_place_to_its_next_one() {
        let connections = connections(100, 2);
        let one = Arc::new(connections.admit(Listener::Public, ip("2001:db8::1")).unwrap());
        let busy = one.request();
        let _two = connections.admit(Listener::Public, ip("2001:db8::2")).unwrap();
        assert!(connections.admit(Listener::Public, ip("2001:db8::3")).is_none(), "both may just be beginning");
        tokio::time::advance(GRACE).await;
        let three = connections.admit(Listener::Public, ip("2001:db8::3")).unwrap();
        assert!(connections.admit(Listener::Public, ip("2001:db8:0:1::1")).is_some(), "another customer");
        assert!(connections.admit(Listener::Admin, ip("2001:db8::1")).is_some(), "another listener");
        tokio::time::advance(GRACE).await;
        let four = connections.admit(Listener::Public, ip("2001:db8::4"));
        assert!(four.is_some(), "the third one gave place");
        three.evicted().await;
        assert!(connections.admit(Listener::Public, ip("2001:db8::5")).is_none(), "one is busy, one is new");
        drop(busy);
        tokio::time::advance(GRACE).await;
        assert!(connections.admit(Listener::Public, ip("2001:db8::5")).is_some());
    }

    // F-09
    #[tokio::test(start_paused = true)]
    async fn the_total_is_bounded_for_each_listener() {
        let connections = connections(3, 2);
        let held: Vec<_> = (1..=3).map(|n| connections.admit(Listener::Public, ip(&format!("192.0.2.{n}")))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(connections.admit(Listener::Public, ip("192.0.2.4")).is_none());
        assert!(connections.admit(Listener::Admin, ip("192.0.2.4")).is_some());
        tokio::time::advance(GRACE).await;
        let next = connections.admit(Listener::Public, ip("192.0.2.4"));
        assert!(next.is_some());
        held[0].as_ref().unwrap().evicted().await;
        drop((held, next));
        let open = connections.lock();
        assert!(open.entries.is_empty() && open.quiet.is_empty() && open.counts.is_empty());
        assert_eq!(open.totals, [0, 0]);
    }
}
