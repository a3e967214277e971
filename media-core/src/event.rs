//! Events of the core for control.

use std::time::Instant;

use crate::layers::LayerReport;
use crate::ledger::{Reason, StageEvent};
use crate::media::TrackId;
use crate::rtp::profile::FormatInUse;
use crate::spec::SessionId;
use crate::stats::SessionStats;

/// An event of one session.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a handful of events a session, and each is moved once")]
pub enum CoreEvent {
    /// A stage of a session began, progressed, succeeded or failed.
    Stage {
        /// The session.
        session: SessionId,
        /// The change, for [`Ledger::apply`](crate::ledger::Ledger::apply).
        event: StageEvent,
    },
    /// A publisher's section began to send in this format or changed to it, or its stream has another profile now.
    FormatInUse {
        /// The publisher's session.
        session: SessionId,
        /// The track of the section.
        track: TrackId,
        /// Payload type and profile.
        in_use: FormatInUse,
    },
    /// The layers that a publisher sends of a track: when others are sent than before, and with new figures every few seconds.
    Layers {
        /// The publisher's session.
        session: SessionId,
        /// The track.
        track: TrackId,
        /// All of them, the lowest quality first.
        layers: Vec<LayerReport>,
    },
    /// A publisher fell silent: nothing authentic came from it for [`PUBLISHER_SILENCE`](crate::PUBLISHER_SILENCE). Or it is
    /// heard again.
    PublisherSilence {
        /// The publisher's session.
        session: SessionId,
        /// When it was last heard; `None` if it is heard again.
        since: Option<Instant>,
    },
    /// An ICE restart is over; each one ends in either way, or with its session.
    IceRestartOver {
        /// The session.
        session: SessionId,
        /// The server's username fragment of the restart.
        local_ufrag: String,
        /// It has a nominated pair, and media follow it. Else the session goes on as before it.
        completed: bool,
    },
    /// The session is over and everything of it in the core is freed.
    Ended {
        /// The session.
        session: SessionId,
        /// Why it ended.
        reason: Reason,
        /// Its last figures.
        stats: SessionStats,
    },
}
