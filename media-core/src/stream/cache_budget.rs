//! The memory that all caches of a shard may take together. The process has one budget, of which every shard has the same
//! share: so no lock is needed where packets are stored.

use std::cell::Cell;
use std::rc::Rc;

/// The budget of one shard's caches, which they share.
#[derive(Clone, Debug)]
pub struct CacheBudget(Rc<Account>);

#[derive(Debug)]
struct Account {
    /// Bytes.
    limit: usize,
    used: Cell<usize>,
    /// A cache did without memory that it wanted.
    is_short: Cell<bool>,
}

impl CacheBudget {
    /// Caches may take so many bytes together.
    pub fn new(limit: usize) -> CacheBudget {
        CacheBudget(Rc::new(Account { limit, used: Cell::new(0), is_short: Cell::new(false) }))
    }

    /// Each cache has its own bounds, and no other.
    pub fn unlimited() -> CacheBudget {
        CacheBudget::new(usize::MAX)
    }

    /// Bytes that caches take.
    pub fn used(&self) -> usize {
        self.0.used.get()
    }

    /// True if a cache did without memory since the last call.
    pub fn take_shortage(&self) -> bool {
        self.0.is_short.take()
    }

    /// True if so little is left that caches are to give memory back.
    pub fn is_tight(&self) -> bool {
        self.used() > self.0.limit - self.0.limit / 8
    }

    /// A cache wants to grow; false if it has to do without.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let used = self.used().saturating_add(bytes);
        let fits = used <= self.0.limit;
        if fits {
            self.0.used.set(used);
        } else {
            self.0.is_short.set(true);
        }
        fits
    }

    /// A cache takes what it cannot do without.
    pub(super) fn take_least(&self, bytes: usize) {
        self.0.used.set(self.used().saturating_add(bytes));
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.0.used.set(self.used().saturating_sub(bytes));
    }
}
