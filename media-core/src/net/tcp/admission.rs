//! Which TCP connections there may be: bounds in number and time for those that have not shown yet whose they are. No socket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::customer;

/// A connection without an authentic check for this long is closed. A client sends its first one right after the connection stands.
pub(super) const FIRST_CHECK: Duration = Duration::from_secs(10);
/// One part of the connections may be without a check: the others belong to sessions.
const UNCHECKED_PART: usize = 4;
/// Of them from one IPv4 address or one /64 of IPv6: a crowd behind one NAT that comes back after a restart.
const UNCHECKED_PER_ADDRESS: usize = 256;
/// One that is younger may just be beginning, and gives no place to another.
const GRACE: Duration = Duration::from_secs(1);

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is taken.
    Admitted,
    /// It is taken once this one is closed.
    InPlaceOf(usize),
    /// It is not.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    since: Instant,
    customer: IpAddr,
    is_unchecked: bool,
}

/// The connections of one shard by their slots.
#[derive(Debug)]
pub(super) struct Admission {
    total: usize,
    entries: Vec<Option<Entry>>,
    open: usize,
    /// Those without a check, by customer.
    unchecked: HashMap<IpAddr, usize>,
    unchecked_total: usize,
}

impl Admission {
    /// Room for so many connections.
    pub(super) fn new(total: usize) -> Admission {
        Admission { total, entries: Vec::new(), open: 0, unchecked: HashMap::new(), unchecked_total: 0 }
    }

    /// Judges a newcomer. Where one of the bounds is reached, the oldest without a check gives place, of the newcomer's own customer
    /// where it is that one's bound.
    pub(super) fn judge(&self, now: Instant, ip: IpAddr) -> Verdict {
        let customer = customer(ip);
        let unchecked = (self.total / UNCHECKED_PART).max(1);
        let mine = self.unchecked.get(&customer).copied().unwrap_or(0);
        let is_mine = mine >= UNCHECKED_PER_ADDRESS.min(unchecked.div_ceil(2));
        if !is_mine && self.open < self.total && self.unchecked_total < unchecked {
            return Verdict::Admitted;
        }
        let oldest = self.oldest(|entry| !is_mine || entry.customer == customer);
        let is_over = |&(_, since): &(usize, Instant)| now.saturating_duration_since(since) >= GRACE;
        oldest.filter(is_over).map_or(Verdict::Refused, |(slot, _)| Verdict::InPlaceOf(slot))
    }

    /// It was taken.
    pub(super) fn insert(&mut self, now: Instant, slot: usize, ip: IpAddr) {
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, None);
        }
        let customer = customer(ip);
        self.entries[slot] = Some(Entry { since: now, customer, is_unchecked: true });
        self.open += 1;
        *self.unchecked.entry(customer).or_default() += 1;
        self.unchecked_total += 1;
    }

    /// An authentic check came by it: from now on it is its session's.
    pub(super) fn on_check(&mut self, slot: usize) {
        let Some(Some(entry)) = self.entries.get_mut(slot) else { return };
        if std::mem::replace(&mut entry.is_unchecked, false) {
            let customer = entry.customer;
            self.forget(customer);
        }
    }

    /// It is gone.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(entry) = self.entries.get_mut(slot).and_then(Option::take) else { return };
        self.open -= 1;
        if entry.is_unchecked {
            self.forget(entry.customer);
        }
    }

    /// The oldest one without a check, whatever its age.
    pub(super) fn oldest_unchecked(&self) -> Option<usize> {
        self.oldest(|_| true).map(|(slot, _)| slot)
    }

    /// One that has been without a check for too long.
    pub(super) fn overdue(&self, now: Instant) -> Option<usize> {
        if self.unchecked_total == 0 {
            return None;
        }
        let oldest = self.oldest(|_| true);
        oldest.filter(|(_, since)| now.saturating_duration_since(*since) >= FIRST_CHECK).map(|(slot, _)| slot)
    }

    fn oldest(&self, which: impl Fn(&Entry) -> bool) -> Option<(usize, Instant)> {
        let entries = self.entries.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)));
        let unchecked = entries.filter(|(_, entry)| entry.is_unchecked && which(entry));
        unchecked.map(|(slot, entry)| (slot, entry.since)).min_by_key(|&(_, since)| since)
    }

    fn forget(&mut self, customer: IpAddr) {
        self.unchecked_total -= 1;
        if let Some(count) = self.unchecked.get_mut(&customer) {
            *count -= 1;
            if *count == 0 {
                self.unchecked.remove(&customer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    /// Connections from these addresses at `now`; how many were taken.
    fn fill(admission: &mut Admission, now: Instant, ips: impl Iterator<Item = IpAddr>) -> usize {
        let mut taken = 0;
        for ip in ips {
            let slot = match admission.judge(now, ip) {
                Verdict::Admitted => admission.open,
                Verdict::InPlaceOf(slot) => {
                    admission.remove(slot);
                    slot
                }
                Verdict::Refused => continue,
            };
            admission.insert(now, slot, ip);
            taken += 1;
        }
        taken
    }

    #[test]
    fn one_address_holds_a_bounded_part_and_shuts_nobody_out() {
        let now = Instant::now();
        let mut admission = Admission::new(400);
        assert_eq!(
            fill(&mut admission, now, (0..1000).map(|_| ip(1))),
            50,
            "half of those that may be without a check"
        );
        assert_eq!(fill(&mut admission, now, (0..10).map(ip).skip(2)), 8);
        // Its own later ones take the place of its earlier ones, once those have had their time.
        assert_eq!(fill(&mut admission, now + GRACE, (0..7).map(|_| ip(1))), 7);
        assert_eq!(admission.unchecked[&ip(1)], 50);
        assert_eq!(admission.unchecked_total, 58);
    }

    #[test]
    fn many_addresses_displace_the_oldest_without_a_check_and_never_a_session() {
        let now = Instant::now();
        let mut admission = Admission::new(40);
        assert_eq!(fill(&mut admission, now, (0..10).map(ip)), 10);
        for slot in 0..5 {
            admission.on_check(slot);
            admission.on_check(slot);
        }
        assert_eq!(fill(&mut admission, now, (100..200).map(ip)), 5, "a quarter of all may be without a check");
        assert_eq!(admission.judge(now + GRACE, ip(300)), Verdict::InPlaceOf(5));
        for slot in 5..10 {
            admission.remove(slot);
        }
        let (mut taken, mut at) = (0, now);
        for n in 0..1000 {
            at += GRACE;
            taken += fill(&mut admission, at, std::iter::once(ip(1000 + n)));
        }
        assert_eq!((taken, admission.open), (1000, 15));
        assert!((0..5).all(|slot| admission.entries[slot].is_some_and(|entry| !entry.is_unchecked)));
    }

    #[test]
    fn who_stays_silent_is_overdue_after_ten_seconds() {
        let now = Instant::now();
        let mut admission = Admission::new(100);
        fill(&mut admission, now, std::iter::once(ip(1)));
        fill(&mut admission, now + GRACE, std::iter::once(ip(2)));
        assert_eq!(admission.overdue(now + FIRST_CHECK - GRACE), None);
        assert_eq!(admission.overdue(now + FIRST_CHECK), Some(0));
        admission.on_check(0);
        assert_eq!(admission.overdue(now + FIRST_CHECK), None);
        assert_eq!(admission.overdue(now + FIRST_CHECK + GRACE), Some(1));
        admission.remove(1);
        admission.remove(1);
        assert_eq!((admission.overdue(now + 9 * FIRST_CHECK), admission.open), (None, 1));
        assert!(admission.unchecked.is_empty());
    }

    #[test]
    fn the_addresses_of_one_customer_are_one() {
        let of = |text: &str| customer(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
