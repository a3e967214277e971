//! One session's record.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media_core::ledger::{Ledger, Reason, Stage, StageChange, StageEvent, StageState, Warning};
use media_core::media::{MediaSection, Role};
use media_core::stats::SessionStats;
use media_core::{SessionId, ShardIndex, StreamId};

use super::log_line::{LogLine, What};
use crate::auth::Grant;
use crate::ice_generations::IceGenerations;
use crate::limits::{Limit, RESTART_BURST, RESTARTS_PER_SECOND};
use crate::rates::{Rate, TooFast, Used};
use crate::view::{SessionState, SessionView, StageView};

/// What is known of a session when its answer is ready.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    /// The unguessable part of its URL.
    pub(crate) secret: String,
    pub(crate) stream: String,
    pub(crate) stream_id: StreamId,
    pub(crate) role: Role,
    /// The right that it was opened by.
    pub(crate) grant: Grant,
    pub(crate) shard: ShardIndex,
    /// Tags and credentials of its ICE.
    pub(crate) ice: IceGenerations,
    /// Mids of the offer by m-line index; empty where there is none.
    pub(crate) mids: Vec<String>,
    /// M-line of a viewer's video, if it has one.
    pub(crate) video_line: Option<usize>,
    /// A publisher's live sections of the answer.
    pub(crate) sections: Vec<MediaSection>,
    /// When the request was received.
    pub(crate) created: Instant,
    /// SHA-256 of the answer that it began with, where the server offered.
    pub(crate) answer_digest: Option<[u8; 32]>,
    /// Facts for the ledger's first stage.
    pub(crate) detail: String,
    /// What the answer leaves out of the offer, for the same.
    pub(crate) warnings: Vec<Warning>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) at: Instant,
    pub(crate) unix_ms: u64,
    pub(crate) reason: Reason,
}

/// A session, live or ended.
#[derive(Debug)]
pub(crate) struct SessionRecord {
    pub(crate) new: NewSession,
    pub(crate) created_unix_ms: u64,
    pub(crate) ledger: Ledger,
    pub(crate) stats: SessionStats,
    /// A publisher's: since when nothing came from it, if that is long enough to count.
    pub(crate) silent_since: Option<Instant>,
    /// Set when the media core was told to end it.
    pub(crate) closing: Option<Reason>,
    pub(crate) ended: Option<End>,
    /// It gave place to another, for want of room under this limit.
    pub(crate) evicted_for: Option<Limit>,
    /// How fast PATCH and DELETE come.
    pub(crate) requests: Used,
    /// How fast ICE restarts come.
    restarts: Used,
}

impl SessionRecord {
    /// A session whose first stage is done at `now`.
    pub(crate) fn new(mut new: NewSession, now: Instant) -> SessionRecord {
        let mut ledger = Ledger::new(new.created);
        let detail = std::mem::take(&mut new.detail);
        let event = |at, change, detail| StageEvent { at, stage: Stage::Signaling, change, detail };
        ledger.apply(&event(new.created, StageChange::Begin, String::new()));
        ledger.apply(&event(now, StageChange::Done, detail));
        for Warning { key, detail } in std::mem::take(&mut new.warnings) {
            ledger.apply(&event(now, StageChange::Warned(key), detail));
        }
        SessionRecord {
            created_unix_ms: unix_ms(),
            ledger,
            stats: SessionStats::default(),
            silent_since: None,
            closing: None,
            ended: None,
            evicted_for: None,
            requests: Used::default(),
            restarts: Used::default(),
            new,
        }
    }

    /// Counts an ICE restart, or refuses it for coming too fast.
    pub(crate) fn take_restart(&mut self, now: Instant) -> Result<(), TooFast> {
        let taken = self.restarts.try_take(now, Rate::new(RESTARTS_PER_SECOND, RESTART_BURST));
        taken.map_err(|wait| TooFast { limit: Limit::RestartRatePerSession, wait })
    }

    /// It has ended: what was agreed is of no use any more, and is the largest part of it. Small blocks that stay for minutes keep
    /// the pages around them from going back to the system.
    pub(crate) fn forget_agreement(&mut self) {
        (self.new.sections, self.new.mids) = (Vec::new(), Vec::new());
        self.new.ice.forget();
    }

    /// It was half-open and gave place: the stage that it had not passed says so.
    pub(crate) fn fail_as_evicted(&mut self, now: Instant) {
        let Some(limit) = self.evicted_for else { return };
        let stage = if self.is_half_open() { Stage::Ice } else { Stage::Dtls };
        let detail = format!("the oldest half-open session gave place to a newer one; limit: {}", limit.as_str());
        self.ledger.apply(&StageEvent { at: now, stage, change: StageChange::Failed(Reason::EvictedHalfOpen), detail });
    }

    /// Neither over nor told to end.
    pub(crate) fn is_live(&self) -> bool {
        self.ended.is_none() && self.closing.is_none()
    }

    /// No valid connectivity check was received yet.
    pub(crate) fn is_half_open(&self) -> bool {
        self.ledger.stage(Stage::Ice).state != StageState::Done
    }

    /// The handshake is over: it proved an address and a certificate.
    pub(crate) fn is_secured(&self) -> bool {
        SessionState::of(&self.ledger) >= SessionState::Secured
    }

    pub(crate) fn state(&self) -> SessionState {
        if self.ended.is_some() {
            SessionState::Closed
        } else if self.closing.is_some() {
            SessionState::Closing
        } else {
            SessionState::of(&self.ledger)
        }
    }

    /// All media that ever were received of it are received now.
    pub(crate) fn sends_media(&self) -> bool {
        let lacks_one = self.ledger.stage(Stage::Media).reason == Some(Reason::MediumMissing);
        match self.state() {
            SessionState::Media => true,
            SessionState::Secured => lacks_one,
            _ => false,
        }
    }

    pub(crate) fn view(&self) -> SessionView {
        SessionView {
            id: self.new.id,
            stream: self.new.stream.clone(),
            role: self.new.role,
            identity: self.new.grant.identity.name().map(str::to_owned),
            state: self.state(),
            created: self.created_unix_ms,
            ended: self.ended.map(|end| end.unix_ms),
            reason: self.ended.map(|end| end.reason).or(self.closing).map(Reason::code),
            shard: self.new.shard,
            stages: self.ledger.stages().iter().map(StageView::from).collect(),
            stats: self.stats.clone(),
        }
    }

    /// The line of the log for a failure after which the session lives on, and for its end. `before` are the stage's state and
    /// reason before the event.
    pub(crate) fn stage_line(&self, event: &StageEvent, before: (StageState, Option<Reason>)) -> Option<LogLine> {
        let lives_on = matches!(event.stage, Stage::Srtp | Stage::Media);
        // What is the publisher's fault stands in its own line.
        let is_publishers =
            |reason| self.new.role == Role::Viewer && matches!(reason, Reason::MediaStopped | Reason::NoKeyframe);
        let what = match (event.change, before) {
            (StageChange::Failed(reason), _) if is_publishers(reason) => What::Failed { reason, is_publishers: true },
            (StageChange::Failed(reason), _) if lives_on => What::Failed { reason, is_publishers: false },
            (StageChange::Done, (StageState::Failed, reason)) => {
                What::Healed { is_publishers: reason.is_some_and(is_publishers) }
            }
            _ => return None,
        };
        Some(LogLine::of(self, Some(event.stage), what))
    }

    /// The line that a warning leaves in the log when it is new.
    pub(crate) fn warning_line(&self, stage: Stage, warning: Warning) -> LogLine {
        LogLine::of(self, Some(stage), What::Warned(warning))
    }

    /// The one line that a session leaves in the log when it ends.
    pub(crate) fn end_line(&self, reason: Reason, lasted: Duration) -> LogLine {
        // The stage that failed, or else the last one that began.
        let last = self
            .ledger
            .failure()
            .or_else(|| self.ledger.stages().iter().rev().find(|record| record.state != StageState::Waiting));
        let stats = Box::new(self.stats.clone());
        LogLine::of(self, last.map(|record| record.stage), What::Ended { reason, lasted, stats })
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
