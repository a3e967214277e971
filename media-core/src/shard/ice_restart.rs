//! ICE restarts (RFC 8445 §9): a second generation of credentials beside the one that media follows, until it has a nominated pair.

use std::time::Instant;

use crate::event::CoreEvent;
use crate::session::{Completed, GenerationOver};
use crate::spec::{IceRestart, SessionId};

use super::Shard;

impl Shard {
    /// Begins a restart. Sessions that have just ended need none.
    pub(super) fn restart_ice(&mut self, now: Instant, id: SessionId, restart: IceRestart) {
        let Some(key) = self.sessions.find(id) else { return };
        let session = &mut self.sessions.slab[key];
        let over = session.connectivity.restart(now, restart);
        let detail = match session.selected {
            Some(tuple) => {
                format!("ICE restart: {} serves until a pair of the new credentials is nominated", tuple.remote)
            }
            None => "ICE restart before any pair was selected".to_owned(),
        };
        session.lifecycle.on_ice_restart(now, detail);
        self.counters.ice_restarts += 1;
        if let Some(over) = over {
            self.forget_generation(key, &over);
        }
        self.sessions.map_ufrags(key);
        self.publish_events(key);
    }

    /// A restart has a nominated pair, and media follow it.
    pub(super) fn on_restart_completed(&mut self, now: Instant, key: usize, completed: &Completed) {
        let Completed { local_ufrag, address, took, number } = completed;
        let session = &mut self.sessions.slab[key];
        session.stats.ice_restarts += 1;
        let detail = format!("ICE restart {number}: nominated {address} after {} ms", took.as_millis());
        session.lifecycle.on_ice_restart(now, detail);
        self.counters.ice_restarts_completed += 1;
        self.say_over(key, local_ufrag, true);
        self.publish_events(key);
    }

    /// A generation's time is over: one that never had a nominated pair, or one after which another had.
    pub(super) fn end_generation(&mut self, now: Instant, key: usize, over: &GenerationOver) {
        if let Some(failure) = &over.failure {
            let session = &mut self.sessions.slab[key];
            let serving = session.selected.map_or_else(|| "nothing".to_owned(), |tuple| tuple.remote.to_string());
            let detail = format!("ICE restart failed: {failure}; {serving} serves as before");
            session.lifecycle.on_ice_restart(now, detail);
        }
        self.forget_generation(key, over);
        self.publish_events(key);
    }

    fn forget_generation(&mut self, key: usize, over: &GenerationOver) {
        self.sessions.forget_ufrag(&over.local_ufrag);
        for &remote in &over.addresses {
            if let Some(tuple) = self.sessions.slab[key].connectivity.forget(remote) {
                self.sessions.forget_peer(key, tuple);
                self.close_connection(tuple);
            }
        }
        if over.failure.is_some() {
            self.say_over(key, &over.local_ufrag, false);
        }
    }

    fn say_over(&self, key: usize, local_ufrag: &str, completed: bool) {
        let (session, local_ufrag) = (self.sessions.slab[key].id, local_ufrag.to_owned());
        // Control has stopped listening only when the server ends.
        let _ = self.events.send(CoreEvent::IceRestartOver { session, local_ufrag, completed });
    }
}
