//! The service behind the routes.

use std::sync::Arc;
use std::time::Instant;

use media_core::ledger::Reason;
use media_core::session::SessionId;

use crate::config::SignalingConfig;
use crate::core::Core;
use crate::observer::{NoObserver, Observer};
use crate::registry::Registry;

/// Signalling of one process: its settings, the core that it drives, and the registry.
pub struct Signaling {
    pub(crate) config: SignalingConfig,
    pub(crate) core: Box<dyn Core>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Signaling {
    /// Signalling that reports to nobody.
    pub fn new(config: SignalingConfig, core: impl Core) -> Signaling {
        Signaling::with_observer(config, core, Arc::new(NoObserver))
    }

    /// Signalling that reports to `observer`.
    pub fn with_observer(config: SignalingConfig, core: impl Core, observer: Arc<dyn Observer>) -> Signaling {
        let registry = Arc::new(Registry::new(&config, Arc::clone(&observer)));
        Signaling { config, core: Box::new(core), registry, observer }
    }

    /// The streams and sessions. Somebody must drive [`Registry::run`] with the core's events.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The settings.
    pub fn config(&self) -> &SignalingConfig {
        &self.config
    }

    /// Ends a session. Returns false if there is no such live session.
    pub fn close(&self, session: SessionId, reason: Reason) -> bool {
        let Some(shard) = self.registry.closing(Instant::now(), session, reason) else { return false };
        self.core.close(shard, session, reason);
        true
    }
}
