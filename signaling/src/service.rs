//! Signalling of one process, which the routes serve.

use std::sync::{Arc, PoisonError, RwLock};

use media_core::SessionId;
use media_core::ledger::Reason;

use crate::clock;
use crate::config::SignalingConfig;
use crate::media_plane::MediaPlane;
use crate::observer::Observer;
use crate::registry::Registry;

/// Signalling of one process: its settings, the media plane that it drives, and the registry.
pub struct Signaling {
    config: RwLock<Arc<SignalingConfig>>,
    pub(crate) media_plane: Box<dyn MediaPlane>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Signaling {
    /// Signalling that reports to `observer`.
    pub fn new(config: SignalingConfig, media_plane: impl MediaPlane, observer: Arc<dyn Observer>) -> Signaling {
        let registry = Arc::new(Registry::new(Arc::clone(&observer)));
        let config = RwLock::new(Arc::new(config));
        Signaling { config, media_plane: Box::new(media_plane), registry, observer }
    }

    /// The streams and sessions. Somebody must drive [`Registry::run`] with the media core's events.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The settings as they are now. A request reads them once, so that it is judged by one set of them.
    pub fn config(&self) -> Arc<SignalingConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these settings count; sessions go on. Whether names may have slashes was built into the routes.
    pub fn reconfigure(&self, config: SignalingConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Ends a session. Returns false if there is no such live session.
    pub fn close(&self, session: SessionId, reason: Reason) -> bool {
        let Some(shard) = self.registry.closing(clock::now(), session, reason) else { return false };
        self.media_plane.close(shard, session, reason);
        true
    }
}
