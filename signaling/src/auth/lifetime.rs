//! How long a right lasts: sessions that outlive it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::ledger::Reason;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::service::Signaling;

/// Rights end by the second.
const TICK: Duration = Duration::from_secs(1);

impl Signaling {
    /// Follows what lasts only so long: keeps the keys of a JWKS URL fresh, and ends sessions whose rights have ended, where
    /// [`enforce_expiry`](crate::SignalingConfig::enforce_expiry) is on. It ends only with its task.
    pub async fn follow_access(self: Arc<Signaling>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.end_expired(clock::now());
            self.authorizer.tend(clock::now());
        }
    }

    /// Ends all live sessions of a holder, by the name that the admin API shows, and returns how many there were. The holder
    /// may come again as long as its token is good.
    pub fn end_sessions_of(&self, identity: &str) -> usize {
        let sessions = self.registry.live_where(|session| session.grant.identity.name() == Some(identity));
        sessions.into_iter().filter(|session| self.close(*session, Reason::AccessRevoked)).count()
    }

    /// Ends the sessions whose rights the settings of now do not give.
    pub(crate) fn end_revoked(&self) {
        for session in self.registry.live_where(|session| !self.authorizer.stands(session)) {
            self.close(session, Reason::AccessRevoked);
        }
    }

    fn end_expired(&self, now: Instant) {
        if self.config().enforce_expiry {
            let is_over = |expires: Instant| expires <= now;
            for session in self.registry.live_where(|session| session.grant.expires.is_some_and(is_over)) {
                self.close(session, Reason::AccessExpired);
            }
        }
    }
}
