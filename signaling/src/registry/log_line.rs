//! Lines of the log about sessions. They own what they say, and are written when no entry of the registry is held: whatever
//! writing does, nobody waits for an entry behind it.

use std::time::Duration;

use media_core::SessionId;
use media_core::ledger::{Reason, Stage, Warning};
use media_core::media::{MediaKind, Role};
use media_core::stats::SessionStats;

use super::SessionRecord;

/// A line about one session.
#[must_use]
#[derive(Debug)]
pub(crate) struct LogLine {
    session: SessionId,
    stream: String,
    role: Role,
    stage: Option<Stage>,
    detail: String,
    what: What,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum What {
    /// A stage failed, and the session lives on.
    Failed {
        reason: Reason,
        /// It is the publisher's fault, which stands in a line of its own.
        is_publishers: bool,
    },
    /// Such a stage is done again.
    Healed { is_publishers: bool },
    /// Something is less than it could be.
    Warned(Warning),
    /// The one line that a session leaves when it ends.
    Ended { reason: Reason, lasted: Duration, stats: Box<SessionStats> },
}

impl LogLine {
    /// A line about a session, and what stands of this stage in its ledger.
    pub(crate) fn of(session: &SessionRecord, stage: Option<Stage>, what: What) -> LogLine {
        LogLine {
            session: session.new.id,
            stream: session.new.stream.clone(),
            role: session.new.role,
            stage,
            detail: stage.map(|stage| session.ledger.stage(stage).detail.clone()).unwrap_or_default(),
            what,
        }
    }

    /// Writes it.
    pub(crate) fn write(self) {
        let (session, stream, role) = (self.session, self.stream.as_str(), self.role.as_str());
        let (stage, detail) = (self.stage.map_or("", Stage::as_str), self.detail.as_str());
        match self.what {
            What::Failed { reason, is_publishers: true } => {
                let reason = reason.code();
                tracing::debug!(%session, stream, role, stage, reason, detail, "session stage failed");
            }
            What::Failed { reason, is_publishers: false } => {
                let reason = reason.code();
                tracing::warn!(%session, stream, role, stage, reason, detail, "session stage failed");
            }
            What::Healed { is_publishers: true } => {
                tracing::debug!(%session, stream, role, stage, detail, "session stage healed");
            }
            What::Healed { is_publishers: false } => {
                tracing::info!(%session, stream, role, stage, detail, "session stage healed");
            }
            What::Warned(Warning { key: (code, kind), detail }) => {
                let (code, kind) = (code.code(), kind.map_or("", MediaKind::as_str));
                tracing::warn!(%session, %stream, role, stage, code, kind, detail, "session warning");
            }
            What::Ended { reason, lasted, stats } => tracing::info!(
                %session,
                %stream,
                role,
                duration_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
                stage,
                reason = reason.code(),
                detail,
                remote = ?stats.remote_address,
                transport = stats.transport.unwrap_or(""),
                srtp_profile = stats.srtp_profile.unwrap_or(""),
                rtp_received = stats.rtp_received,
                rtp_received_bytes = stats.rtp_received_bytes,
                rtp_sent = stats.rtp_sent,
                rtp_sent_bytes = stats.rtp_sent_bytes,
                retransmitted = stats.retransmitted,
                packets_lost = stats.packets_lost,
                srtp_auth_failures = stats.srtp_auth_failures,
                keyframe_requests = stats.keyframe_requests,
                "session ended"
            ),
        }
    }
}
