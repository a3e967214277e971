//! The open HTTP connections: how many there may be, of whom, and which of them gives place to another.
//!
//! A connection is quiet while no request of it is in progress, or none whose body is complete: who sends a body by the byte
//! does not use it. Where the bounds or the file descriptors are reached, a quiet one is closed: whoever holds connections
//! without using them shuts nobody out. Who holds the most gives place first.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use media_core::MediaCore;
use signaling::ClientAddress;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{Closed, Metrics};

/// A connection that is quiet for less may just be beginning, or its answer be on its way: it gives no place to another one of
/// its address.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Where the bound of a listener is reached, an address with so many times more quiet connections than the newcomer's gives
/// place at once, even if they may just be beginning.
const GREED: usize = 4;

/// Files that connections of the public listener leave to the admin listener (half of them) and to everything else that
/// opens one while the server runs: scrapes, look-ups of names, reloads.
const RESERVED_FILES: usize = 128;

/// Bytes that may come between the heads of two requests. The largest body that is read has 64 KiB; what is far beyond are
/// frames that ask for nothing, such as SETTINGS, PING or CONTINUATION of HTTP/2.
const MAX_UNASKED: u64 = 1024 * 1024;

/// Requests that a client may abandon beyond those that it lets be answered (rapid reset of HTTP/2, CVE-2023-44487). A page
/// that is left abandons a handful.
const MAX_ABANDONED: u64 = 100;

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
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

/// How many connections there may be, and for how long one may be of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of the public listener, at a time.
    pub total: usize,
    /// Of them from one IPv4 address, or from one /64 of IPv6, which is one customer's.
    pub per_address: usize,
    /// Of the admin listener.
    pub admin: usize,
    /// Deadlines of each.
    pub times: Times,
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A request's head must be complete in this time, counted from the connection's begin or from the end of the request
    /// before (HTTP-07). Over HTTP/1.1 this bounds idle connections as well.
    pub head: Duration,
    /// A connection without request for this long is told to end, by GOAWAY over HTTP/2. Browsers keep one for minutes.
    pub idle: Duration,
    /// One that was told to end, and still has an answer that the client does not read, is closed after this time.
    pub linger: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits { total: 8192, per_address: 2048, admin: 64, times: Times::default() }
    }
}

impl Default for Times {
    fn default() -> Times {
        Times { head: Duration::from_secs(10), idle: Duration::from_secs(60), linger: Duration::from_secs(30) }
    }
}

impl ConnectionLimits {
    /// What of it there is room for where the process can open so many files more.
    #[must_use]
    pub fn within_files(self, free: usize) -> ConnectionLimits {
        let reserved = RESERVED_FILES.min(free / 2);
        let admin = self.admin.min(reserved / 2).max(1);
        ConnectionLimits { total: self.total.min(free - reserved).max(1), admin, ..self }
    }

    fn total_of(&self, listener: Listener) -> usize {
        match listener {
            Listener::Public => self.total,
            Listener::Admin => self.admin,
        }
    }
}

/// Whether an address is that of a trusted proxy, whose connections are many clients'.
pub type IsProxy = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The open connections of both listeners.
pub struct Connections {
    limits: ConnectionLimits,
    is_proxy: IsProxy,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
    /// Told when a connection has ended.
    ended: Notify,
    /// The admin listener has a client and no file for it.
    admin_waits: AtomicBool,
    /// Where connections of the public listener go that carry media.
    media: OnceLock<MediaCore>,
}

/// A place in the order of quiet connections.
type Quiet = (Instant, u64);

#[derive(Default)]
struct Open {
    next: u64,
    entries: HashMap<u64, Entry>,
    /// Of addresses that are no proxies'.
    addresses: HashMap<(Listener, IpAddr), OfAddress>,
    listeners: [OfListener; 2],
}

#[derive(Default)]
struct OfAddress {
    count: usize,
    /// The longest quiet one first.
    quiet: BTreeSet<Quiet>,
}

#[derive(Default)]
struct OfListener {
    total: usize,
    /// The longest quiet one first.
    quiet: BTreeSet<Quiet>,
    /// Addresses by their number of quiet connections.
    ranking: BTreeSet<(usize, IpAddr)>,
}

struct Entry {
    listener: Listener,
    /// `None` of a proxy.
    address: Option<IpAddr>,
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
    /// Bytes received since the last request's head.
    unasked: AtomicU64,
    /// Requests abandoned, less those answered.
    abandoned: AtomicU64,
}

impl Connections {
    /// None yet, and no proxies.
    pub fn new(limits: ConnectionLimits, metrics: Arc<Metrics>) -> Arc<Connections> {
        Connections::behind_proxies(limits, metrics, Box::new(|_| false))
    }

    /// None yet; addresses of proxies have no bound of their own.
    pub fn behind_proxies(limits: ConnectionLimits, metrics: Arc<Metrics>, is_proxy: IsProxy) -> Arc<Connections> {
        let (open, ended, admin_waits) = (Mutex::default(), Notify::new(), AtomicBool::new(false));
        Arc::new(Connections { limits, is_proxy, metrics, open, ended, admin_waits, media: OnceLock::new() })
    }

    pub(crate) fn times(&self) -> Times {
        self.limits.times
    }

    /// From now on connections of the public listener may carry media (RFC 6544).
    pub fn take_media(&self, core: MediaCore) {
        // Once is enough.
        let _ = self.media.set(core);
    }

    /// Takes a connection in; `None` if its listener or its address has all that it may, and none of them gives place.
    pub(crate) fn admit(self: &Arc<Connections>, listener: Listener, remote: ClientAddress) -> Option<Connection> {
        let now = Instant::now();
        let address = self.counted(listener, remote);
        let mut open = self.lock();
        let mine = address.map_or(0, |address| open.count(listener, address));
        if let Some(address) = address.filter(|_| mine >= self.limits.per_address) {
            let oldest = open.longest_quiet_of(listener, address).filter(|quiet| is_over(*quiet, now));
            if !self.evict(&mut open, oldest) {
                return None;
            }
        }
        if open.listeners[listener as usize].total >= self.limits.total_of(listener) {
            let candidate =
                open.of_the_greediest(listener, GREED * (mine + 1)).or_else(|| open.longest_quiet(listener, now));
            if !self.evict(&mut open, candidate) {
                return None;
            }
        }
        let evicted = Arc::new(Notify::new());
        let id = open.insert(now, listener, address, Arc::clone(&evicted));
        drop(open);
        self.metrics.connection_opened(listener);
        Some(Connection {
            id,
            listener,
            connections: Arc::clone(self),
            evicted,
            requested: AtomicBool::new(false),
            unasked: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        })
    }

    /// Whether the listener has all that it may while this address has not: a place may become free in a moment.
    pub(crate) fn is_full_for(&self, listener: Listener, remote: ClientAddress) -> bool {
        let open = self.lock();
        let mine = self.counted(listener, remote).map_or(0, |address| open.count(listener, address));
        open.listeners[listener as usize].total >= self.limits.total_of(listener) && mine < self.limits.per_address
    }

    /// A connection was not taken in.
    pub(crate) fn refused(&self, listener: Listener) {
        self.metrics.connection_closed(listener, Closed::Refused);
    }

    /// Closes a quiet connection of the public listener, as files are short; false if none gives place. Those of the admin
    /// listener stay: they are the operator's eyes.
    pub(crate) fn make_room(&self) -> bool {
        let (mut open, now) = (self.lock(), Instant::now());
        let candidate = open.longest_quiet(Listener::Public, now);
        self.evict(&mut open, candidate)
    }

    /// Waits until some connection has ended, at most so long.
    pub(crate) async fn some_ended(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.ended.notified()).await;
    }

    /// Notes whether the admin listener has a client and no file for it. The next file is then its own.
    pub(crate) fn set_admin_waits(&self, waits: bool) {
        self.admin_waits.store(waits, Ordering::Relaxed);
    }

    pub(crate) fn admin_waits(&self) -> bool {
        self.admin_waits.load(Ordering::Relaxed)
    }

    /// The address that a connection counts for.
    fn counted(&self, listener: Listener, remote: ClientAddress) -> Option<IpAddr> {
        let is_proxy = listener == Listener::Public && (self.is_proxy)(remote.0.to_canonical());
        (!is_proxy).then(|| remote.customer())
    }

    fn evict(&self, open: &mut Open, candidate: Option<Quiet>) -> bool {
        let Some(entry) = candidate.and_then(|(_, id)| open.remove(id)) else { return false };
        entry.evicted.notify_one();
        self.metrics.connection_closed(entry.listener, Closed::Evicted);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection has been quiet for longer than one that is just beginning.
fn is_over((since, _): Quiet, now: Instant) -> bool {
    now.saturating_duration_since(since) >= GRACE
}

impl Open {
    fn count(&self, listener: Listener, address: IpAddr) -> usize {
        self.addresses.get(&(listener, address)).map_or(0, |of| of.count)
    }

    fn longest_quiet_of(&self, listener: Listener, address: IpAddr) -> Option<Quiet> {
        self.addresses.get(&(listener, address))?.quiet.first().copied()
    }

    fn longest_quiet(&self, listener: Listener, now: Instant) -> Option<Quiet> {
        self.listeners[listener as usize].quiet.first().copied().filter(|quiet| is_over(*quiet, now))
    }

    /// The longest quiet connection of the address that has the most of them, if it has more than so many. It gives place at
    /// once, else whoever opens many a second would shut all others out.
    fn of_the_greediest(&self, listener: Listener, more_than: usize) -> Option<Quiet> {
        let &(count, address) = self.listeners[listener as usize].ranking.last()?;
        if count > more_than { self.longest_quiet_of(listener, address) } else { None }
    }

    fn insert(&mut self, now: Instant, listener: Listener, address: Option<IpAddr>, evicted: Arc<Notify>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.entries.insert(id, Entry { listener, address, requests: 0, quiet_since: None, evicted });
        self.listeners[listener as usize].total += 1;
        if let Some(address) = address {
            self.addresses.entry((listener, address)).or_default().count += 1;
        }
        self.set_quiet(id, Some(now));
        id
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.set_quiet(id, None);
        let entry = self.entries.remove(&id)?;
        self.listeners[entry.listener as usize].total -= 1;
        if let Some(address) = entry.address
            && let Some(of) = self.addresses.get_mut(&(entry.listener, address))
        {
            of.count -= 1;
            if of.count == 0 {
                self.addresses.remove(&(entry.listener, address));
            }
        }
        Some(entry)
    }

    /// Moves a connection among the quiet ones, or from there.
    fn set_quiet(&mut self, id: u64, since: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.quiet_since, since);
        let change = |quiet: &mut BTreeSet<Quiet>| {
            if let Some(before) = before {
                quiet.remove(&(before, id));
            }
            quiet.extend(since.map(|since| (since, id)));
        };
        let of_listener = &mut self.listeners[entry.listener as usize];
        change(&mut of_listener.quiet);
        if let Some(address) = entry.address
            && let Some(of) = self.addresses.get_mut(&(entry.listener, address))
        {
            of_listener.ranking.remove(&(of.quiet.len(), address));
            change(&mut of.quiet);
            if !of.quiet.is_empty() {
                of_listener.ranking.insert((of.quiet.len(), address));
            }
        }
    }
}

impl Connection {
    /// Its deadlines.
    pub(crate) fn times(&self) -> Times {
        self.connections.times()
    }

    /// Where it goes if it carries media, unless none may.
    pub(crate) fn media(&self) -> Option<&MediaCore> {
        self.connections.media.get().filter(|_| self.listener == Listener::Public)
    }

    /// Whose it is.
    pub(crate) fn listener(&self) -> Listener {
        self.listener
    }

    /// Resolves when it has to give place.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// The head of some request was complete.
    pub(crate) fn has_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Since when no request is in progress; `None` while one is.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        self.connections.lock().entries.get(&self.id)?.quiet_since
    }

    /// The client took a part of an answer that goes on: as long as it does, the connection is of use, and only as quiet as if a
    /// request had just ended.
    pub(crate) fn listened(&self) {
        let mut open = self.connections.lock();
        if open.entries.get(&self.id).is_some_and(|entry| entry.quiet_since.is_some()) {
            open.set_quiet(self.id, Some(Instant::now()));
        }
    }

    /// The server closes it.
    pub(crate) fn closed(&self, why: Closed) {
        self.connections.metrics.connection_closed(self.listener, why);
    }

    /// Bytes were received. False if they are more than any client sends that asks for something.
    pub(crate) fn received(&self, bytes: usize) -> bool {
        let before = self.unasked.fetch_add(bytes as u64, Ordering::Relaxed);
        let is_flood = before + bytes as u64 > MAX_UNASKED;
        if is_flood && before <= MAX_UNASKED {
            self.closed(Closed::Flood);
        }
        !is_flood
    }

    /// The head of a request is complete; the request ends with the value.
    pub(crate) fn request(self: &Arc<Connection>) -> RequestInProgress {
        self.requested.store(true, Ordering::Relaxed);
        self.unasked.store(0, Ordering::Relaxed);
        let [is_received, is_answered] = [false, false].map(AtomicBool::new);
        RequestInProgress { connection: Arc::clone(self), is_received, is_answered }
    }

    /// A client that lets its requests be answered may abandon as many.
    fn count_outcome(&self, is_answered: bool) {
        if is_answered {
            let less = |abandoned: u64| abandoned.checked_sub(1);
            let _ = self.abandoned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        } else if self.abandoned.fetch_add(1, Ordering::Relaxed) == MAX_ABANDONED {
            self.closed(Closed::Reset);
            self.evicted.notify_one();
        }
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
pub(crate) struct RequestInProgress {
    connection: Arc<Connection>,
    is_received: AtomicBool,
    is_answered: AtomicBool,
}

impl RequestInProgress {
    /// Its body is complete: from now on the connection is not quiet.
    pub(crate) fn received(&self) {
        if self.is_received.swap(true, Ordering::Relaxed) {
            return;
        }
        let (mut open, id) = (self.connection.connections.lock(), self.connection.id);
        if let Some(entry) = open.entries.get_mut(&id) {
            entry.requests += 1;
            open.set_quiet(id, None);
        }
    }

    /// It has its answer.
    pub(crate) fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.count_outcome(*self.is_answered.get_mut());
        let mut open = self.connection.connections.lock();
        let id = self.connection.id;
        let Some(entry) = open.entries.get_mut(&id) else { return };
        entry.requests -= usize::from(*self.is_received.get_mut());
        if entry.requests == 0 {
            open.set_quiet(id, Some(now));
        }
    }
}

#[cfg(test)]
mod tests;
