//! What the core tells control.

use crate::ledger::{Reason, StageEvent};
use crate::media::TrackId;
use crate::spec::SessionId;
use crate::stats::SessionStats;

/// A report of the core.
#[derive(Clone, Debug)]
pub enum CoreEvent {
    /// A stage of a session moved.
    Stage {
        /// The session.
        session: SessionId,
        /// What happened.
        event: StageEvent,
    },
    /// A publisher's section began to send in this format, or changed to it.
    FormatInUse {
        /// The publisher's session.
        session: SessionId,
        /// The section's track.
        track: TrackId,
        /// The payload type of the publisher's answer.
        payload_type: u8,
    },
    /// The session is over and everything of it in the core is freed.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Reason,
        /// Its last figures.
        stats: SessionStats,
    },
}
