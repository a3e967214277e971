//! How often clients may ask: generic cell rate algorithm (ITU-T I.371) in the caller's time, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::admission::Holder;
use crate::limits::{BURST, JOIN_BURST, Limit, Limits, MAX_RATES};
use crate::problem::{Problem, Slug};

/// So many a second, of which as many may come at once as this time brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    per_second: usize,
    burst: Duration,
}

impl Rate {
    pub(crate) fn new(per_second: usize, burst: Duration) -> Rate {
        Rate { per_second, burst }
    }

    /// The time that one takes; `None` if there is no limit.
    fn interval(self) -> Option<Duration> {
        (self.per_second != 0).then(|| Duration::from_secs(1).div_f64(self.per_second as f64))
    }
}

/// The state of one rate: until when it is used up; a moment that has passed for one that was not used for long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used(Option<Instant>);

impl Used {
    /// How long the next one has to wait. Nothing is taken.
    pub(crate) fn wait(self, now: Instant, rate: Rate) -> Duration {
        let (Some(until), Some(interval)) = (self.0, rate.interval()) else { return Duration::ZERO };
        let burst = rate.burst.max(interval);
        (until + interval).saturating_duration_since(now).saturating_sub(burst)
    }

    /// Takes one.
    fn take(&mut self, now: Instant, rate: Rate) {
        let Some(interval) = rate.interval() else { return };
        self.0 = Some(self.0.map_or(now, |until| until.max(now)) + interval);
    }

    /// Takes one, unless it has to wait.
    pub(crate) fn try_take(&mut self, now: Instant, rate: Rate) -> Result<(), Duration> {
        match self.wait(now, rate) {
            Duration::ZERO => {
                self.take(now, rate);
                Ok(())
            }
            wait => Err(wait),
        }
    }
}

/// Rates by key, in two generations: when the young one is full it becomes the old one, and the old one is forgotten. Who is
/// forgotten may use its burst again; nobody is refused for want of memory.
#[derive(Debug)]
struct Keyed<K> {
    young: HashMap<K, Used>,
    old: HashMap<K, Used>,
}

impl<K: Eq + Hash + Copy> Keyed<K> {
    fn new() -> Keyed<K> {
        Keyed { young: HashMap::new(), old: HashMap::new() }
    }

    /// The rate of a key, which is young from now on.
    fn used(&mut self, key: K) -> &mut Used {
        if !self.young.contains_key(&key) && self.young.len() >= MAX_RATES {
            self.old = std::mem::take(&mut self.young);
        }
        let known = self.old.remove(&key).unwrap_or_default();
        self.young.entry(key).or_insert(known)
    }
}

/// Refused: come back after this time, in which nobody else may use the same rate up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) limit: Limit,
    pub(crate) wait: Duration,
}

impl From<TooFast> for Problem {
    fn from(TooFast { limit, wait }: TooFast) -> Problem {
        Problem::retry_in(Slug::TooManyRequests, wait, |seconds| {
            format!("the limit {} is reached; the next one is due in {seconds} s", limit.as_str())
        })
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// What limits count as one client.
    pub(crate) address: IpAddr,
    pub(crate) holder: Option<Holder>,
    /// A publisher or a holder of a token, which viewers without one must not keep out.
    pub(crate) is_preferred: bool,
}

/// All rates but those of single sessions, which stand in their records.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Of viewers without token, and of all others.
    joins: [Used; 2],
    posts_by_address: Keyed<IpAddr>,
    posts_by_holder: Keyed<Holder>,
    requests_by_address: Keyed<IpAddr>,
}

impl Rates {
    pub(crate) fn new() -> Rates {
        Rates {
            joins: [Used::default(); 2],
            posts_by_address: Keyed::new(),
            posts_by_holder: Keyed::new(),
            requests_by_address: Keyed::new(),
        }
    }

    /// One POST, if all rates allow it; else nothing is used up.
    pub(crate) fn post(&mut self, now: Instant, limits: &Limits, caller: Caller) -> Result<(), TooFast> {
        let Caller { address, holder, is_preferred } = caller;
        let of_address = Rate::new(limits.post_rate_per_address, BURST);
        let of_holder = Rate::new(limits.post_rate_per_token, BURST);
        let of_all = Rate::new(limits.join_rate, JOIN_BURST);
        let joins = usize::from(is_preferred);
        let waits = [
            (Limit::PostRatePerAddress, self.posts_by_address.used(address).wait(now, of_address)),
            (
                Limit::PostRatePerToken,
                holder.map_or(Duration::ZERO, |holder| self.posts_by_holder.used(holder).wait(now, of_holder)),
            ),
            (Limit::JoinRate, self.joins[joins].wait(now, of_all)),
        ];
        // The longest one, so that what it says is true of all.
        if let Some((limit, wait)) = waits.into_iter().max_by_key(|(_, wait)| *wait).filter(|(_, wait)| !wait.is_zero())
        {
            return Err(TooFast { limit, wait });
        }
        self.posts_by_address.used(address).take(now, of_address);
        if let Some(holder) = holder {
            self.posts_by_holder.used(holder).take(now, of_holder);
        }
        self.joins[joins].take(now, of_all);
        Ok(())
    }

    /// One PATCH or DELETE.
    pub(crate) fn request(&mut self, now: Instant, limits: &Limits, address: IpAddr) -> Result<(), TooFast> {
        let rate = Rate::new(limits.request_rate_per_address, BURST);
        let used = self.requests_by_address.used(address);
        used.try_take(now, rate).map_err(|wait| TooFast { limit: Limit::RequestRatePerAddress, wait })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn caller(last: u32) -> Caller {
        Caller { address: IpAddr::V4(Ipv4Addr::from_bits(last)), holder: None, is_preferred: false }
    }

    /// How many pass at once.
    fn pass(rates: &mut Rates, now: Instant, limits: &Limits, caller: Caller) -> usize {
        (0..).take_while(|_| rates.post(now, limits, caller).is_ok()).count()
    }

    // H3
    #[test]
    fn a_burst_passes_then_the_steady_rate_and_the_wait_is_true() {
        let limits = Limits { post_rate_per_address: 3, ..Limits::NONE };
        let (mut rates, start) = (Rates::new(), Instant::now());
        assert_eq!(pass(&mut rates, start, &limits, caller(1)), 60);
        let TooFast { limit, wait } = rates.post(start, &limits, caller(1)).unwrap_err();
        assert_eq!(limit, Limit::PostRatePerAddress);
        assert!(wait > Duration::from_millis(300) && wait < Duration::from_millis(334), "{wait:?}");
        let almost = start + wait - Duration::from_millis(1);
        assert!(rates.post(almost, &limits, caller(1)).is_err());
        assert_eq!(pass(&mut rates, start + wait, &limits, caller(1)), 1);
        assert_eq!(pass(&mut rates, start + Duration::from_secs(5), &limits, caller(1)), 14);
        assert_eq!(pass(&mut rates, start + Duration::from_secs(500), &limits, caller(1)), 60);
        assert_eq!(pass(&mut rates, start, &limits, caller(2)), 60, "another address");
    }

    // H3
    #[test]
    fn viewers_without_token_do_not_use_up_the_rate_of_the_others() {
        let limits = Limits { join_rate: 10, ..Limits::NONE };
        let (mut rates, now) = (Rates::new(), Instant::now());
        let passed: usize = (0..100).map(|last| usize::from(rates.post(now, &limits, caller(last)).is_ok())).sum();
        assert_eq!(passed, 40);
        let publisher = Caller { is_preferred: true, ..caller(7) };
        assert_eq!(rates.post(now, &limits, publisher), Ok(()));
        assert_eq!(rates.post(now, &limits, caller(7)).unwrap_err().limit, Limit::JoinRate);
    }

    // H3
    #[test]
    fn what_one_rate_refuses_uses_up_no_other() {
        let limits = Limits { post_rate_per_address: 1, post_rate_per_token: 2, ..Limits::NONE };
        let (mut rates, now) = (Rates::new(), Instant::now());
        let with = |last, holder| Caller { holder: Some(Holder::new(holder)), ..caller(last) };
        assert_eq!(pass(&mut rates, now, &limits, with(1, 1)), 20);
        assert_eq!(pass(&mut rates, now, &limits, with(2, 1)), 20, "the token has room for 40");
        assert_eq!(rates.post(now, &limits, with(3, 1)).unwrap_err().limit, Limit::PostRatePerToken);
        assert_eq!(pass(&mut rates, now, &limits, with(3, 2)), 20, "the refused one cost the address nothing");
    }

    // H3
    #[test]
    fn addresses_without_number_take_bounded_memory_and_shut_nobody_out() {
        let limits = Limits { post_rate_per_address: 1, ..Limits::NONE };
        let (mut rates, now) = (Rates::new(), Instant::now());
        for last in 0..100_000 {
            assert_eq!(rates.post(now, &limits, caller(last)), Ok(()));
            assert!(rates.posts_by_address.young.len() <= MAX_RATES && rates.posts_by_address.old.len() <= MAX_RATES);
        }
        // Who asks all the time stays known.
        let mut passed = 0;
        for last in 0..100_000 {
            passed += usize::from(rates.post(now, &limits, caller(u32::MAX)).is_ok());
            assert_eq!(rates.post(now, &limits, caller(last % 50_000)), Ok(()), "{last}");
        }
        assert_eq!(passed, 20);
    }
}
