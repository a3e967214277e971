//! Which publisher's session gives way to another POST for its stream, and when to come back otherwise (WHIP-31, WHIP-32).

use std::time::{Duration, Instant};

use media_core::PUBLISHER_SILENCE;

use crate::auth::Identity;
use crate::config::{PublishTakeover, SignalingConfig};
use crate::problem::{Problem, Slug};
use crate::registry::SessionRecord;

/// What the media core notices, control knows this much later: it looks every 100 ms.
const NOTICE: Duration = Duration::from_millis(200);

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeoverRule {
    policy: PublishTakeover,
    ice_timeout: Duration,
    liveness_timeout: Duration,
}

/// The stream's present publisher stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishConflict {
    is_same_identity: bool,
    /// If nothing more comes from it, a POST after this time gets through.
    free_in: Duration,
}

impl TakeoverRule {
    pub(crate) fn of(config: &SignalingConfig) -> TakeoverRule {
        let &SignalingConfig { publish_takeover: policy, ice_timeout, liveness_timeout, .. } = config;
        TakeoverRule { policy, ice_timeout, liveness_timeout }
    }

    /// Whether the session that holds a stream gives way to a POST of this identity.
    pub(crate) fn judge(
        &self,
        now: Instant,
        holder: &SessionRecord,
        identity: &Identity,
    ) -> Result<(), PublishConflict> {
        let is_same_identity = holder.new.grant.identity == *identity;
        let waits_for_silence = is_same_identity && self.policy == PublishTakeover::Silent;
        let is_over = holder.is_half_open()
            || self.policy == PublishTakeover::Always
            || (waits_for_silence && holder.silent_since.is_some());
        if is_same_identity && is_over {
            return Ok(());
        }
        let free_in = if waits_for_silence {
            PUBLISHER_SILENCE
        } else if holder.is_half_open() {
            self.ice_timeout.saturating_sub(now.saturating_duration_since(holder.new.created))
        } else {
            // A packet may have come just now.
            let silent_for = holder.silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            self.liveness_timeout.saturating_sub(silent_for)
        };
        Err(PublishConflict { is_same_identity, free_in: free_in + NOTICE })
    }
}

impl From<PublishConflict> for Problem {
    fn from(conflict: PublishConflict) -> Problem {
        let whose =
            if conflict.is_same_identity { "an earlier session of the same identity" } else { "another publisher" };
        Problem::retry_in(Slug::PublishConflict, conflict.free_in, |seconds| {
            format!("{whose} holds the stream; if it is dead, the stream is free in {seconds} s")
        })
    }
}
