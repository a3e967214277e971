//! Signalling of one process, which the routes serve.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use media_core::SessionId;
use media_core::ledger::Reason;
use media_core::media::Role;

use crate::admission::{Entrant, Holder};
use crate::auth::{Authorizer, Identity};
use crate::client_address::ClientAddress;
use crate::clock;
use crate::config::SignalingConfig;
use crate::counter_offer::CounterOffers;
use crate::limits::Limit;
use crate::media_plane::MediaPlane;
use crate::observer::Observer;
use crate::problem::Problem;
use crate::rates::{Caller, Rates};
use crate::registry::Registry;
use crate::view::LimitUse;

/// Signalling of one process: its settings, the media plane that it drives, and the registry.
pub struct Signaling {
    config: RwLock<Arc<SignalingConfig>>,
    pub(crate) authorizer: Authorizer,
    pub(crate) media_plane: Box<dyn MediaPlane>,
    pub(crate) registry: Arc<Registry>,
    rates: Mutex<Rates>,
    counter_offers: Mutex<CounterOffers>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Signaling {
    /// Signalling that reports to `observer`.
    pub fn new(config: SignalingConfig, media_plane: impl MediaPlane, observer: Arc<dyn Observer>) -> Signaling {
        let registry = Arc::new(Registry::new(Arc::clone(&observer)));
        let authorizer = Authorizer::new(&config, Arc::clone(&observer));
        let config = RwLock::new(Arc::new(config));
        let rates = Mutex::new(Rates::new());
        let (media_plane, counter_offers) = (Box::new(media_plane), Mutex::default());
        Signaling { config, authorizer, media_plane, registry, rates, counter_offers, observer }
    }

    /// The streams and sessions. Somebody must drive [`Registry::run`] with the media core's events.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The settings as they are now. A request reads them once, so that it is judged by one set of them.
    pub fn config(&self) -> Arc<SignalingConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these settings count; sessions go on, but for those without a right where
    /// [`end_revoked`](SignalingConfig::end_revoked) is on. Whether names may have slashes was built into the routes.
    pub fn reconfigure(&self, config: SignalingConfig) {
        let end_revoked = config.end_revoked;
        self.authorizer.reconfigure(&config);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        if end_revoked {
            self.end_revoked();
        }
    }

    /// How full the room is, by each of the limits on numbers.
    pub fn usage(&self) -> Vec<LimitUse> {
        self.registry.usage(&self.config().limits)
    }

    /// Counts a POST, or refuses it for coming too fast. It costs next to nothing, and stands in front of everything that costs
    /// more.
    pub(crate) fn take_post(&self, role: Role, address: ClientAddress, identity: &Identity) -> Result<(), Problem> {
        let holder = Holder::of(identity);
        let is_preferred = role == Role::Publisher || holder.is_some();
        let caller = Caller { address: address.customer(), holder, is_preferred };
        let taken = self.rates().post(clock::now(), &self.config().limits, caller);
        taken.map_err(|refusal| self.refuse(refusal.limit, refusal))
    }

    /// Counts a PATCH or DELETE of a session, likewise.
    pub(crate) fn take_request(&self, address: ClientAddress, session: SessionId) -> Result<(), Problem> {
        let (now, limits) = (clock::now(), &self.config().limits);
        let taken = self.registry.take_request(now, limits, session);
        let taken = taken.and_then(|()| self.rates().request(now, limits, address.customer()));
        taken.map_err(|refusal| self.refuse(refusal.limit, refusal))
    }

    /// Counts a request that makes credentials and opens no session, likewise.
    pub(crate) fn take_look(&self, address: ClientAddress) -> Result<(), Problem> {
        let taken = self.rates().request(clock::now(), &self.config().limits, address.customer());
        taken.map_err(|refusal| self.refuse(refusal.limit, refusal))
    }

    /// Lets a session in, or says which limit is in the way. Half-open ones that give place to it are closed.
    /// `max_sessions` is what the holder's own right allows.
    pub(crate) fn admit(&self, entrant: Entrant, max_sessions: Option<NonZeroUsize>) -> Result<Place<'_>, Problem> {
        let id = entrant.id;
        let mut limits = self.config().limits.clone();
        if let Some(most) = max_sessions {
            let max = NonZeroUsize::new(limits.max_sessions_per_token);
            limits.max_sessions_per_token = max.map_or(most, |max| max.min(most)).get();
        }
        let evicted = self.registry.enter(clock::now(), &limits, entrant);
        let evicted = evicted.map_err(|limit| self.refuse(limit, limit))?;
        for (shard, session) in evicted {
            self.media_plane.close(shard, session, Reason::EvictedHalfOpen);
        }
        Ok(Place { registry: &self.registry, id, kept: false })
    }

    pub(crate) fn refuse(&self, limit: Limit, problem: impl Into<Problem>) -> Problem {
        self.observer.refused(limit);
        problem.into()
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counter_offers(&self) -> MutexGuard<'_, CounterOffers> {
        self.counter_offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a session. Returns false if there is no such live session.
    pub fn close(&self, session: SessionId, reason: Reason) -> bool {
        let Some(shard) = self.registry.closing(clock::now(), session, reason) else { return false };
        self.media_plane.close(shard, session, reason);
        true
    }
}

/// The room of a session that is about to open. It is given back if the session does not open.
pub(crate) struct Place<'a> {
    registry: &'a Registry,
    id: SessionId,
    kept: bool,
}

impl Place<'_> {
    /// The session is open.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.give_place_back(self.id);
        }
    }
}
