//! Slows guessing of tokens down: each customer of the network may show so many unknown ones.
//!
//! Behind one address there may be many clients, of which one guesses. So a token that was good from there is let through to
//! its check even while the address is refused: whoever guesses learns nothing, as nothing that was not proven before is
//! checked. And a token that is shown again and again, as by an encoder that retries with an old one, is no new guess.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::limits::{
    FAILURE_BURST_MINUTES, MAX_FAILING_CUSTOMERS, MAX_PROVEN_CREDENTIALS, MAX_REFUSAL, REMEMBERED_GUESSES,
};

/// What a request shows, as numbers that tell nothing about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credential {
    /// The token.
    pub(crate) token: u64,
    /// The token for the stream: one that is tried on another stream is another guess.
    pub(crate) guess: u64,
}

/// Failed attempts by customer. Bounded: the customers and tokens that were quiet for longest are forgotten.
pub(crate) struct Failures {
    table: Mutex<Table>,
}

struct Table {
    customers: LruCache<IpAddr, Customer>,
    /// What was good, by customer and credential.
    proven: LruCache<(IpAddr, u64), ()>,
}

struct Customer {
    /// When the last of its failures is forgiven, each after the ones before.
    forgiven: Instant,
    guesses: VecDeque<u64>,
}

impl Failures {
    pub(crate) fn new() -> Failures {
        let table = Table {
            customers: LruCache::sparse(MAX_FAILING_CUSTOMERS),
            proven: LruCache::sparse(MAX_PROVEN_CREDENTIALS),
        };
        Failures { table: Mutex::new(table) }
    }

    /// Whether a credential may be checked; if not, when the next one may. `per_minute` failures are forgiven in that time.
    pub(crate) fn admit(
        &self,
        now: Instant,
        per_minute: NonZeroUsize,
        customer: IpAddr,
        credential: Credential,
    ) -> Result<(), Duration> {
        let mut table = self.table();
        let Some(forgiven) = table.customers.peek(&customer).map(|known| known.forgiven) else { return Ok(()) };
        let owed = forgiven.saturating_duration_since(now);
        let allowed = burst() - each(per_minute);
        if owed <= allowed || table.proven.get(&(customer, credential.token)).is_some() {
            return Ok(());
        }
        Err(owed - allowed)
    }

    /// A credential was good.
    pub(crate) fn proven(&self, customer: IpAddr, credential: Credential) {
        self.table().proven.put((customer, credential.token), ());
    }

    /// A credential was not known.
    pub(crate) fn failed(&self, now: Instant, per_minute: NonZeroUsize, customer: IpAddr, credential: Credential) {
        let mut table = self.table();
        table.proven.pop(&(customer, credential.token));
        let known = table.customers.get_or_insert_mut(customer, || Customer {
            forgiven: now,
            guesses: VecDeque::with_capacity(REMEMBERED_GUESSES),
        });
        if known.guesses.contains(&credential.guess) {
            return;
        }
        if known.guesses.len() == REMEMBERED_GUESSES {
            known.guesses.pop_front();
        }
        known.guesses.push_back(credential.guess);
        // Guesses that were under way together may exceed what is allowed; they are paid for afterwards, within reason.
        known.forgiven = (known.forgiven.max(now) + each(per_minute)).min(now + burst() + MAX_REFUSAL);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time after which a failure is forgiven.
fn each(per_minute: NonZeroUsize) -> Duration {
    Duration::from_secs_f64(60.0 / per_minute.get() as f64)
}

/// How long the failures of a customer may take to be forgiven before it is refused.
fn burst() -> Duration {
    Duration::from_secs(60 * FAILURE_BURST_MINUTES)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PER_MINUTE: NonZeroUsize = NonZeroUsize::new(10).unwrap();
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn shown(token: u64) -> Credential {
        Credential { token, guess: token }
    }

    fn guess(failures: &Failures, now: Instant, credential: u64) -> Result<(), Duration> {
        failures.admit(now, PER_MINUTE, HERE, shown(credential))?;
        failures.failed(now, PER_MINUTE, HERE, shown(credential));
        Ok(())
    }

    #[test]
    fn guesses_are_refused_beyond_a_burst_and_come_back_at_the_stated_rate() {
        let (failures, start) = (Failures::new(), Instant::now());
        let taken = (0..1000).filter(|&n| guess(&failures, start, n).is_ok()).count();
        assert_eq!(taken, 30);
        let wait = guess(&failures, start, 5000).unwrap_err();
        assert_eq!(wait, Duration::from_secs(6));
        assert!(guess(&failures, start + wait - Duration::from_millis(1), 5000).is_err(), "the wait is true");
        assert_eq!(guess(&failures, start + wait, 5000), Ok(()));
        assert!(guess(&failures, start + wait, 5001).is_err());
        let hour =
            (0..3600 * 4).filter(|n| guess(&failures, start + Duration::from_millis(250 * n), 10_000 + n).is_ok());
        assert_eq!(hour.count(), 598, "10 a minute");
    }

    #[test]
    fn guesses_that_were_under_way_together_are_paid_for_afterwards() {
        let (failures, start) = (Failures::new(), Instant::now());
        (0..50).for_each(|n| failures.failed(start, PER_MINUTE, HERE, shown(n)));
        let wait = failures.admit(start, PER_MINUTE, HERE, shown(100)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(6 * 21));
        (0..100_000).for_each(|n| failures.failed(start, PER_MINUTE, HERE, shown(n)));
        let wait = failures.admit(start, PER_MINUTE, HERE, shown(7)).unwrap_err();
        assert!(wait <= MAX_REFUSAL + Duration::from_secs(6), "{wait:?}");
    }

    #[test]
    fn what_was_good_from_an_address_still_passes_while_guesses_are_refused() {
        let (failures, now) = (Failures::new(), Instant::now());
        failures.proven(HERE, shown(42));
        let refused = (0..1000).filter(|n| guess(&failures, now, 1000 + n).is_err()).count();
        assert_eq!(refused, 970);
        assert_eq!(failures.admit(now, PER_MINUTE, HERE, shown(42)), Ok(()));
        assert!(
            failures.admit(now, PER_MINUTE, HERE, shown(43)).is_err(),
            "a good one that was never shown is not checked"
        );
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(failures.admit(now, PER_MINUTE, elsewhere, shown(43)), Ok(()));
        // It is not good any more.
        failures.failed(now, PER_MINUTE, HERE, shown(42));
        assert!(failures.admit(now, PER_MINUTE, HERE, shown(42)).is_err());
    }

    #[test]
    fn a_token_that_is_shown_again_and_again_counts_once() {
        let (failures, now) = (Failures::new(), Instant::now());
        for _ in 0..1000 {
            (1..=4).for_each(|encoder| guess(&failures, now, encoder).unwrap());
        }
        assert_eq!(failures.admit(now, PER_MINUTE, HERE, shown(99)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let (failures, now) = (Failures::new(), Instant::now());
        for n in 0..200_000u32 {
            let customer = IpAddr::V4(Ipv4Addr::from_bits(n));
            failures.failed(now, PER_MINUTE, customer, shown(u64::from(n)));
            failures.proven(customer, shown(u64::from(n)));
        }
        let table = failures.table();
        assert_eq!(table.customers.len(), MAX_FAILING_CUSTOMERS.get());
        assert_eq!(table.proven.len(), MAX_PROVEN_CREDENTIALS.get());
        assert!(table.customers.iter().all(|(_, customer)| customer.guesses.capacity() <= 2 * REMEMBERED_GUESSES));
    }
}
