//! Who is here, and who may come in: live sessions by client address, token and stream, and the half-open ones in the order
//! in which they give place.
//!
//! A half-open session, answered and not yet secured, costs its client one request. So there is a cap on them of which the
//! oldest gives place, and they give place wherever else there is no room; secured ones never do.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Instant;

use media_core::SessionId;
use media_core::media::Role;

use crate::auth::Identity;
use crate::limits::{HALF_OPEN_GRACE, Limit, Limits};
use crate::problem::{Problem, Slug};
use crate::view::LimitUse;

/// Whose token it is, as limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder(u64);

impl Holder {
    #[cfg(test)]
    pub(crate) fn new(number: u64) -> Holder {
        Holder(number)
    }

    /// `None` for requests that needed no token: they are counted by their address alone.
    pub(crate) fn of(identity: &Identity) -> Option<Holder> {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        match identity {
            Identity::Anyone => None,
            holder => Some(Holder(KEY.hash_one(holder))),
        }
    }
}

/// Who gives place to whom: not to those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// A viewer without token.
    Anonymous,
    /// A viewer with a token.
    Holder,
    /// Without it there is nothing to watch.
    Publisher,
}

/// Somebody who wants to come in.
#[derive(Clone, Debug)]
pub(crate) struct Entrant {
    pub(crate) id: SessionId,
    pub(crate) role: Role,
    /// What limits count as one client.
    pub(crate) address: IpAddr,
    pub(crate) holder: Option<Holder>,
    pub(crate) stream: String,
    /// The stream has a publisher, which this one replaces if it may: one goes for one that comes.
    pub(crate) replaces: bool,
}

impl Entrant {
    fn rank(&self) -> Rank {
        match (self.role, self.holder) {
            (Role::Publisher, _) => Rank::Publisher,
            (Role::Viewer, Some(_)) => Rank::Holder,
            (Role::Viewer, None) => Rank::Anonymous,
        }
    }

    fn accounts(&self) -> impl Iterator<Item = Account> {
        let holder = self.holder.map(Account::Holder);
        [Account::All, Account::Address(self.address), Account::Stream(self.stream.clone())].into_iter().chain(holder)
    }
}

/// What sessions are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Account {
    All,
    Address(IpAddr),
    Holder(Holder),
    Stream(String),
}

impl Account {
    fn covers(&self, who: &Entrant) -> bool {
        match self {
            Account::All => true,
            Account::Address(address) => *address == who.address,
            Account::Holder(holder) => Some(*holder) == who.holder,
            Account::Stream(stream) => *stream == who.stream,
        }
    }
}

/// How many sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) publishers: usize,
    pub(crate) viewers: usize,
    /// Of both.
    pub(crate) half_open: usize,
}

impl Tally {
    pub(crate) fn sessions(self) -> usize {
        self.publishers + self.viewers
    }

    fn of_role(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Publisher => &mut self.publishers,
            Role::Viewer => &mut self.viewers,
        }
    }
}

/// What of a tally a cap is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Sessions,
    Publishers,
    Viewers,
    HalfOpen,
}

impl Counted {
    fn of(self, tally: Tally) -> usize {
        match self {
            Counted::Sessions => tally.sessions(),
            Counted::Publishers => tally.publishers,
            Counted::Viewers => tally.viewers,
            Counted::HalfOpen => tally.half_open,
        }
    }

    fn covers(self, role: Role) -> bool {
        match self {
            Counted::Sessions | Counted::HalfOpen => true,
            Counted::Publishers => role == Role::Publisher,
            Counted::Viewers => role == Role::Viewer,
        }
    }
}

/// One cap, as it is for one entrant.
struct Cap {
    limit: Limit,
    account: Account,
    counted: Counted,
    /// `None` if there is no limit.
    max: Option<usize>,
}

impl Cap {
    fn covers(&self, who: &Entrant) -> bool {
        self.account.covers(who) && self.counted.covers(who.role)
    }
}

/// A session that gives place to the entrant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) id: SessionId,
    /// For want of room under this limit.
    pub(crate) limit: Limit,
}

/// Where a half-open session stands among those that give place: low ranks first, and the oldest of one rank.
type Place = (Rank, u64);

/// A session that is live, or about to be.
#[derive(Debug)]
struct Present {
    who: Entrant,
    /// Until it is secured.
    half_open: Option<Place>,
    since: Instant,
}

/// The live sessions, counted.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    present: HashMap<SessionId, Present>,
    /// Those that can give place.
    half_open: BTreeMap<Place, SessionId>,
    tallies: HashMap<Account, Tally>,
    /// Sessions that came in so far.
    entered: u64,
}

impl Admission {
    /// Lets a session in, half-open; those that give place to it have left. Or says which limit is in the way.
    pub(crate) fn enter(&mut self, now: Instant, limits: &Limits, who: Entrant) -> Result<Vec<Evicted>, Limit> {
        let mut evicted: Vec<Evicted> = Vec::new();
        for cap in caps(limits, &who) {
            let Some(max) = cap.max else { continue };
            let freed =
                evicted.iter().filter(|gone| self.present.get(&gone.id).is_some_and(|gone| cap.covers(&gone.who)));
            let used = cap.counted.of(self.tally(&cap.account)) - freed.count();
            if used < max.saturating_add(usize::from(who.replaces)) {
                continue;
            }
            let id = self.victim(now, &cap, who.rank(), &evicted).ok_or(cap.limit)?;
            evicted.push(Evicted { id, limit: cap.limit });
        }
        for gone in &evicted {
            self.leave(gone.id);
        }
        self.add(now, who);
        Ok(evicted)
    }

    /// A session that was let in is entered everywhere, and can give place from now on.
    pub(crate) fn opened(&mut self, id: SessionId) {
        if let Some(place) = self.present.get(&id).and_then(|present| present.half_open) {
            self.half_open.insert(place, id);
        }
    }

    /// A session is secured: it gives place to nobody any more.
    pub(crate) fn secured(&mut self, id: SessionId) {
        let Some(present) = self.present.get_mut(&id) else { return };
        let Some(place) = present.half_open.take() else { return };
        self.half_open.remove(&place);
        for account in present.who.accounts() {
            if let Some(tally) = self.tallies.get_mut(&account) {
                tally.half_open -= 1;
            }
        }
    }

    /// A session ends, or is told to.
    pub(crate) fn leave(&mut self, id: SessionId) {
        let Some(Present { who, half_open, .. }) = self.present.remove(&id) else { return };
        if let Some(place) = half_open {
            self.half_open.remove(&place);
        }
        for account in who.accounts() {
            let Some(tally) = self.tallies.get_mut(&account) else { continue };
            *tally.of_role(who.role) -= 1;
            tally.half_open -= usize::from(half_open.is_some());
            if tally.sessions() == 0 {
                self.tallies.remove(&account);
            }
        }
    }

    /// All live sessions.
    pub(crate) fn all(&self) -> Tally {
        self.tally(&Account::All)
    }

    /// How full the room is, by each of the limits on numbers.
    pub(crate) fn usage(&self, limits: &Limits) -> Vec<LimitUse> {
        let all = self.all();
        let address = |counted| self.fullest(counted, |account| matches!(account, Account::Address(_)));
        let holder = |counted| self.fullest(counted, |account| matches!(account, Account::Holder(_)));
        let stream = |counted| self.fullest(counted, |account| matches!(account, Account::Stream(_)));
        [
            (Limit::Sessions, all.sessions(), limits.max_sessions),
            (Limit::SessionsPerAddress, address(Counted::Sessions), limits.max_sessions_per_address),
            (Limit::SessionsPerToken, holder(Counted::Sessions), limits.max_sessions_per_token),
            (Limit::ViewersPerStream, stream(Counted::Viewers), limits.max_viewers_per_stream),
            (Limit::Streams, all.publishers, limits.max_streams),
            (Limit::StreamsPerAddress, address(Counted::Publishers), limits.max_streams_per_address),
            (Limit::StreamsPerToken, holder(Counted::Publishers), limits.max_streams_per_token),
            (Limit::HalfOpen, all.half_open, limits.max_half_open),
            (Limit::HalfOpenPerAddress, address(Counted::HalfOpen), limits.max_half_open_per_address),
            (Limit::HalfOpenPerToken, holder(Counted::HalfOpen), limits.max_half_open_per_token),
        ]
        .map(|(limit, used, max)| LimitUse { limit: limit.as_str(), used, max: (max != 0).then_some(max) })
        .into()
    }

    /// The highest count among accounts of one kind.
    fn fullest(&self, counted: Counted, of_kind: impl Fn(&Account) -> bool) -> usize {
        let tallies = self.tallies.iter().filter(|(account, _)| of_kind(account));
        tallies.map(|(_, tally)| counted.of(*tally)).max().unwrap_or_default()
    }

    fn add(&mut self, now: Instant, who: Entrant) {
        let place = (who.rank(), self.entered);
        self.entered += 1;
        for account in who.accounts() {
            let tally = self.tallies.entry(account).or_default();
            *tally.of_role(who.role) += 1;
            tally.half_open += 1;
        }
        self.present.insert(who.id, Present { who, half_open: Some(place), since: now });
    }

    fn tally(&self, account: &Account) -> Tally {
        self.tallies.get(account).copied().unwrap_or_default()
    }

    /// The half-open session that gives place: of the lowest rank, the oldest.
    fn victim(&self, now: Instant, cap: &Cap, rank: Rank, evicted: &[Evicted]) -> Option<SessionId> {
        let may_go = self.half_open.iter().take_while(|((other, _), _)| *other <= rank);
        let mut known = may_go.filter_map(|(_, id)| Some((*id, self.present.get(id)?)));
        let found = known.find(|(id, present)| {
            let age = now.saturating_duration_since(present.since);
            let old_enough = cap.counted == Counted::HalfOpen || age >= HALF_OPEN_GRACE;
            old_enough && cap.covers(&present.who) && evicted.iter().all(|gone| gone.id != *id)
        });
        found.map(|(id, _)| id)
    }
}

/// The caps that count for an entrant, the narrow ones first: whom they send away makes room under the wide ones, too.
fn caps(limits: &Limits, who: &Entrant) -> impl Iterator<Item = Cap> {
    let address = || Account::Address(who.address);
    let stream = || Account::Stream(who.stream.clone());
    let holder = who.holder.map(Account::Holder);
    let cap = |limit, account, counted, max| Cap { limit, account, counted, max: (max != 0).then_some(max) };
    let of_holder = |limit, counted, max| holder.clone().map(|account| cap(limit, account, counted, max));
    let all = [
        Some(cap(Limit::HalfOpenPerAddress, address(), Counted::HalfOpen, limits.max_half_open_per_address)),
        of_holder(Limit::HalfOpenPerToken, Counted::HalfOpen, limits.max_half_open_per_token),
        Some(cap(Limit::StreamsPerAddress, address(), Counted::Publishers, limits.max_streams_per_address)),
        of_holder(Limit::StreamsPerToken, Counted::Publishers, limits.max_streams_per_token),
        Some(cap(Limit::SessionsPerAddress, address(), Counted::Sessions, limits.max_sessions_per_address)),
        of_holder(Limit::SessionsPerToken, Counted::Sessions, limits.max_sessions_per_token),
        Some(cap(Limit::ViewersPerStream, stream(), Counted::Viewers, limits.max_viewers_per_stream)),
        Some(cap(Limit::Streams, Account::All, Counted::Publishers, limits.max_streams)),
        Some(cap(Limit::HalfOpen, Account::All, Counted::HalfOpen, limits.max_half_open)),
        Some(Cap {
            limit: Limit::Sessions,
            account: Account::All,
            counted: Counted::Sessions,
            max: Some(limits.room_for(who.rank())),
        }),
    ];
    let role = who.role;
    all.into_iter().flatten().filter(move |cap| cap.counted.covers(role))
}

impl Limits {
    /// How many sessions there may be before one of this rank comes in.
    fn room_for(&self, rank: Rank) -> usize {
        let reserved =
            self.max_sessions / 100 * self.reserved_percent + self.max_sessions % 100 * self.reserved_percent / 100;
        let reserved = match rank.cmp(&Rank::Holder) {
            Ordering::Less => reserved,
            Ordering::Equal => reserved / 2,
            Ordering::Greater => 0,
        };
        self.max_sessions.saturating_sub(reserved)
    }
}

impl From<Limit> for Problem {
    fn from(limit: Limit) -> Problem {
        match limit {
            Limit::Sessions | Limit::HalfOpen => Problem::retry_later(Slug::Overloaded, "no room for another session"),
            Limit::Streams => Problem::retry_later(Slug::Overloaded, "no room for another stream"),
            Limit::ViewersPerStream => {
                Problem::retry_later(Slug::Overloaded, "no room for another viewer of this stream")
            }
            limit => {
                let detail = format!("the limit {} is reached; room comes with the end of a session", limit.as_str());
                Problem::retry_later(Slug::TooManySessions, detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    /// A viewer without token.
    fn viewer(id: u64, address: u32) -> Entrant {
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        let (role, stream) = (Role::Viewer, "s".to_owned());
        Entrant { id: SessionId(id), role, address, holder: None, stream, replaces: false }
    }

    fn publisher(id: u64, address: u32) -> Entrant {
        Entrant { role: Role::Publisher, stream: format!("s{id}"), ..viewer(id, address) }
    }

    /// Lets one in and opens it; who gave place.
    fn open(admission: &mut Admission, now: Instant, limits: &Limits, who: Entrant) -> Result<Vec<u64>, Limit> {
        let id = who.id;
        let evicted = admission.enter(now, limits, who)?;
        admission.opened(id);
        Ok(evicted.into_iter().map(|gone| gone.id.0).collect())
    }

    // H3
    #[test]
    fn the_oldest_half_open_session_gives_place_and_secured_ones_never_do() {
        let limits = Limits { max_half_open: 3, ..Limits::NONE };
        let (mut admission, now) = (Admission::default(), Instant::now());
        for id in 0..4 {
            let evicted = open(&mut admission, now, &limits, viewer(id, 1)).unwrap();
            assert!(evicted.is_empty(), "{id}");
            if id == 0 {
                admission.secured(SessionId(0));
            }
        }
        assert_eq!(open(&mut admission, now, &limits, viewer(4, 1)), Ok(vec![1]));
        admission.secured(SessionId(2));
        assert_eq!(open(&mut admission, now, &limits, viewer(5, 1)), Ok(vec![]));
        assert_eq!(open(&mut admission, now, &limits, viewer(6, 1)), Ok(vec![3]));
        assert_eq!(admission.all(), Tally { publishers: 0, viewers: 5, half_open: 3 });
    }

    // H3
    #[test]
    fn an_address_and_a_token_crowd_out_only_their_own() {
        let limits = Limits { max_half_open_per_address: 2, max_half_open_per_token: 3, ..Limits::NONE };
        let (mut admission, now) = (Admission::default(), Instant::now());
        assert_eq!(open(&mut admission, now, &limits, viewer(0, 7)), Ok(vec![]));
        for (id, gone) in [(1, vec![]), (2, vec![]), (3, vec![1]), (4, vec![2])] {
            assert_eq!(open(&mut admission, now, &limits, viewer(id, 1)), Ok(gone));
        }
        let with_token = |id| Entrant { holder: Some(Holder::new(9)), ..viewer(id, id as u32) };
        for (id, gone) in [(10, vec![]), (11, vec![]), (12, vec![]), (13, vec![10])] {
            assert_eq!(open(&mut admission, now, &limits, with_token(id)), Ok(gone));
        }
    }

    // H3
    #[test]
    fn viewers_do_not_send_publishers_away() {
        let limits = Limits { max_half_open: 3, ..Limits::NONE };
        let (mut admission, now) = (Admission::default(), Instant::now());
        for id in 0..2 {
            open(&mut admission, now, &limits, publisher(id, 1)).unwrap();
        }
        open(&mut admission, now, &limits, viewer(2, 1)).unwrap();
        assert_eq!(open(&mut admission, now, &limits, viewer(3, 2)), Ok(vec![2]));
        assert_eq!(open(&mut admission, now, &limits, publisher(4, 1)), Ok(vec![3]));
        assert_eq!(open(&mut admission, now, &limits, viewer(5, 2)), Err(Limit::HalfOpen));
        assert_eq!(open(&mut admission, now, &limits, publisher(6, 1)), Ok(vec![0]));
    }

    // H3
    #[test]
    fn where_there_is_no_room_an_old_half_open_session_gives_place_and_a_young_one_does_not() {
        let limits = Limits { max_sessions: 2, ..Limits::NONE };
        let (mut admission, start) = (Admission::default(), Instant::now());
        open(&mut admission, start, &limits, viewer(0, 1)).unwrap();
        admission.secured(SessionId(0));
        open(&mut admission, start, &limits, viewer(1, 1)).unwrap();
        let early = start + HALF_OPEN_GRACE - Duration::from_millis(1);
        assert_eq!(open(&mut admission, early, &limits, viewer(2, 2)), Err(Limit::Sessions));
        assert_eq!(open(&mut admission, start + HALF_OPEN_GRACE, &limits, viewer(2, 2)), Ok(vec![1]));
        admission.secured(SessionId(2));
        assert_eq!(open(&mut admission, start + Duration::from_secs(60), &limits, viewer(3, 2)), Err(Limit::Sessions));
    }

    // H3
    #[test]
    fn room_is_kept_for_publishers_and_for_holders_of_tokens() {
        let limits = Limits { max_sessions: 20, reserved_percent: 20, ..Limits::NONE };
        let (mut admission, now) = (Admission::default(), Instant::now());
        let mut ids = 0..;
        let mut fill = |holder, role| {
            let id = ids.next().unwrap();
            let who = Entrant { holder, role, stream: format!("s{id}"), ..viewer(id, 1) };
            open(&mut admission, now, &limits, who).map(|_| admission.secured(SessionId(id)))
        };
        let mut filled = |holder, role| (0..).take_while(|_| fill(holder, role).is_ok()).count();
        assert_eq!(filled(None, Role::Viewer), 16);
        assert_eq!(filled(Some(Holder::new(1)), Role::Viewer), 2);
        assert_eq!(filled(None, Role::Publisher), 2);
    }

    // H3, M4
    #[test]
    fn streams_sessions_and_viewers_are_capped_each_by_its_own_account() {
        let limits = Limits {
            max_streams: 3,
            max_streams_per_address: 2,
            max_sessions_per_address: 4,
            max_viewers_per_stream: 3,
            max_sessions_per_token: 1,
            ..Limits::NONE
        };
        let (mut admission, now) = (Admission::default(), Instant::now());
        let mut open = |who: Entrant| {
            let id = who.id;
            open(&mut admission, now, &limits, who).map(|_| admission.secured(id))
        };
        assert_eq!(open(publisher(0, 1)), Ok(()));
        assert_eq!(open(publisher(1, 1)), Ok(()));
        assert_eq!(open(publisher(2, 1)), Err(Limit::StreamsPerAddress));
        assert_eq!(open(Entrant { replaces: true, ..publisher(2, 1) }), Ok(()), "another one goes for it");
        assert_eq!(open(publisher(3, 2)), Err(Limit::Streams));
        assert_eq!(open(viewer(4, 1)), Ok(()));
        assert_eq!(open(viewer(5, 1)), Err(Limit::SessionsPerAddress));
        assert_eq!(open(viewer(5, 2)), Ok(()));
        let holder = Some(Holder::new(1));
        assert_eq!(open(Entrant { holder, ..viewer(6, 3) }), Ok(()));
        assert_eq!(open(viewer(7, 4)), Err(Limit::ViewersPerStream));
        assert_eq!(open(Entrant { holder, stream: "other".to_owned(), ..viewer(8, 3) }), Err(Limit::SessionsPerToken));
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let limits = Limits { max_half_open: 50, ..Limits::default() };
        let (mut admission, now) = (Admission::default(), Instant::now());
        for id in 0..200 {
            let who = if id % 3 == 0 { publisher(id, id as u32) } else { viewer(id, id as u32 % 5) };
            let who = Entrant { holder: (id % 2 == 0).then(|| Holder::new(id % 7)), ..who };
            // Once all half-open ones are publishers, viewers are refused.
            let _ = open(&mut admission, now, &limits, who);
            if id % 5 == 0 {
                admission.secured(SessionId(id));
            }
        }
        // One that was let in and did not open.
        admission.enter(now, &limits, publisher(200, 1)).unwrap();
        for id in (0..=200).rev() {
            admission.leave(SessionId(id));
            admission.leave(SessionId(id));
        }
        assert!(admission.present.is_empty() && admission.half_open.is_empty() && admission.tallies.is_empty());
    }
}
