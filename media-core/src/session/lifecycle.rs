//! The session lifecycle: through ICE, DTLS, fingerprint and SRTP to media. The stage machine that writes the ledger.
//!
//! Sans-IO: the shard tells it what happened and when; it answers with [`StageEvent`]s and says when to give up.

use std::time::{Duration, Instant};

use crate::config::CoreConfig;
use crate::ledger::{Reason, Stage, StageChange, StageEvent};
use crate::media::Role;

/// Unauthentic packets that prove wrong keys, if not one authentic packet was received …
const AUTH_FAILURES: u64 = 5;
/// … within this time after the first of them.
const AUTH_FAILURE_TIME: Duration = Duration::from_secs(3);

/// How far a session has come. Media is impossible before `Secured` (OPS-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Checking,
    Handshaking,
    Secured,
    Ended,
}

/// The stage machine of one session.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    role: Role,
    has_video: bool,
    created: Instant,
    phase: Phase,
    phase_since: Instant,
    last_authentic: Instant,
    authentic_media: bool,
    first_auth_failure: Option<Instant>,
    auth_failures: u64,
    media: Media,
    limits: Limits,
    events: Vec<StageEvent>,
}

/// The timeouts of the stages.
#[derive(Clone, Copy, Debug)]
struct Limits {
    ice: Duration,
    dtls: Duration,
    liveness: Duration,
    media: Duration,
    keyframe: Duration,
}

/// Progress inside the last stage.
#[derive(Debug, Default)]
struct Media {
    first_rtp: Option<Instant>,
    done: bool,
    failed: bool,
}

impl Lifecycle {
    /// A session at its creation: stage `ice` begins.
    pub(crate) fn new(now: Instant, role: Role, has_video: bool, config: &CoreConfig) -> Lifecycle {
        let mut lifecycle = Lifecycle {
            role,
            has_video,
            created: now,
            phase: Phase::Checking,
            phase_since: now,
            last_authentic: now,
            authentic_media: false,
            first_auth_failure: None,
            auth_failures: 0,
            media: Media::default(),
            limits: Limits {
                ice: config.ice_timeout,
                dtls: config.dtls_timeout,
                liveness: config.liveness_timeout,
                media: config.media_timeout,
                keyframe: config.keyframe_timeout,
            },
            events: Vec::new(),
        };
        lifecycle.event(now, Stage::Ice, StageChange::Begin, String::new());
        lifecycle
    }

    /// When the session was created.
    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// True if the peer proved itself within `time` before `now`.
    pub(crate) fn is_alive(&self, now: Instant, time: Duration) -> bool {
        now.saturating_duration_since(self.last_authentic) < time
    }

    /// The events since the last call, oldest first.
    pub(crate) fn take_events(&mut self) -> std::vec::Drain<'_, StageEvent> {
        self.events.drain(..)
    }

    /// True if [`Lifecycle::take_events`] has something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// A connectivity check from this address was valid. Returns true at the first one: DTLS may begin.
    pub(crate) fn on_valid_check(&mut self, now: Instant, detail: impl FnOnce() -> String) -> bool {
        self.last_authentic = now;
        if self.phase != Phase::Checking {
            return false;
        }
        self.enter(now, Phase::Handshaking);
        self.event(now, Stage::Ice, StageChange::Done, detail());
        self.event(now, Stage::Dtls, StageChange::Begin, String::new());
        true
    }

    /// The handshake ended well, and with it the fingerprint check.
    pub(crate) fn on_handshake(&mut self, now: Instant, detail: String, profile: &str) {
        if self.phase != Phase::Handshaking {
            return;
        }
        self.last_authentic = now;
        self.enter(now, Phase::Secured);
        self.event(now, Stage::Dtls, StageChange::Done, detail);
        self.event(now, Stage::Fingerprint, StageChange::Done, String::new());
        self.event(now, Stage::Srtp, StageChange::Begin, profile.to_owned());
        if self.role == Role::Viewer {
            // A viewer's first packet of its own is a report on media: the next stage.
            self.event(now, Stage::Srtp, StageChange::Done, profile.to_owned());
            self.event(now, Stage::Media, StageChange::Begin, "waiting for the publisher".into());
        }
    }

    /// A stage failed for good; the session is to end with this reason.
    pub(crate) fn on_failure(&mut self, now: Instant, stage: Stage, reason: Reason, detail: String) {
        if stage == Stage::Fingerprint {
            // The certificate arrives inside the handshake, which so far went well.
            self.event(now, Stage::Dtls, StageChange::Done, "the handshake reached the peer's certificate".into());
            self.event(now, Stage::Fingerprint, StageChange::Begin, String::new());
        }
        self.event(now, stage, StageChange::Failed(reason), detail);
        self.enter(now, Phase::Ended);
    }

    /// An SRTP or SRTCP packet was authentic.
    pub(crate) fn on_authentic(&mut self, now: Instant) {
        self.last_authentic = now;
        if !self.authentic_media {
            self.authentic_media = true;
            if self.role == Role::Publisher {
                self.event(now, Stage::Srtp, StageChange::Done, String::new());
                self.event(now, Stage::Media, StageChange::Begin, String::new());
            }
        }
    }

    /// An SRTP or SRTCP packet did not authenticate.
    pub(crate) fn on_auth_failure(&mut self, now: Instant) {
        self.auth_failures += 1;
        self.first_auth_failure.get_or_insert(now);
    }

    /// A publisher's RTP packet was accepted.
    pub(crate) fn on_rtp_received(&mut self, now: Instant, keyframe: bool) {
        if self.media.done {
            return;
        }
        if self.media.first_rtp.is_none() {
            self.media.first_rtp = Some(now);
            self.event(now, Stage::Media, StageChange::Progress, "first RTP received".into());
        }
        if keyframe || !self.has_video {
            self.finish_media(now, if self.has_video { "first keyframe received" } else { "first RTP received" });
        }
    }

    /// A viewer's RTP packet was sent.
    pub(crate) fn on_rtp_sent(&mut self, now: Instant) {
        if self.media.first_rtp.is_none() {
            self.media.first_rtp = Some(now);
            self.event(now, Stage::Media, StageChange::Progress, "first RTP sent".into());
        }
    }

    /// A viewer reported that RTP arrived.
    pub(crate) fn on_receipt(&mut self, now: Instant) {
        if !self.media.done && self.media.first_rtp.is_some() {
            self.finish_media(now, "first receipt reported");
        }
    }

    /// Checks the timeouts. `Some` means: end the session for this reason.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Reason> {
        let waited = now.saturating_duration_since(self.phase_since);
        match self.phase {
            Phase::Checking if waited >= self.limits.ice => {
                let detail = format!("no valid connectivity check within {} s", self.limits.ice.as_secs());
                self.on_failure(now, Stage::Ice, Reason::NoValidCheck, detail);
                return Some(Reason::NoValidCheck);
            }
            Phase::Handshaking if waited >= self.limits.dtls => {
                let detail = format!("no completed handshake within {} s", self.limits.dtls.as_secs());
                self.on_failure(now, Stage::Dtls, Reason::DtlsTimeout, detail);
                return Some(Reason::DtlsTimeout);
            }
            Phase::Ended => return None,
            _ => {}
        }
        if now.saturating_duration_since(self.last_authentic) >= self.limits.liveness && self.phase != Phase::Checking {
            let stage = if self.phase == Phase::Secured { Stage::Ice } else { Stage::Dtls };
            let detail = format!("nothing authentic from the peer for {} s", self.limits.liveness.as_secs());
            self.on_failure(now, stage, Reason::ConsentLost, detail);
            return Some(Reason::ConsentLost);
        }
        if self.phase == Phase::Secured {
            return self.poll_secured(now, waited);
        }
        None
    }

    fn poll_secured(&mut self, now: Instant, waited: Duration) -> Option<Reason> {
        if let Some(first) = self.first_auth_failure
            && !self.authentic_media
            && self.auth_failures >= AUTH_FAILURES
            && now.saturating_duration_since(first) >= AUTH_FAILURE_TIME
        {
            let detail = format!("{} packets came and none authenticated", self.auth_failures);
            self.on_failure(now, Stage::Srtp, Reason::SrtpAuthentication, detail);
            return Some(Reason::SrtpAuthentication);
        }
        if self.media.done || self.media.failed {
            return None;
        }
        let since_first = self.media.first_rtp.map(|first| now.saturating_duration_since(first));
        let verdict = match (self.role, since_first) {
            (Role::Publisher, None) if self.first_auth_failure.is_none() && waited >= self.limits.media => {
                Some((Reason::NoMedia, format!("no RTP for {} s", self.limits.media.as_secs())))
            }
            (Role::Publisher, Some(since)) if since >= self.limits.keyframe => {
                Some((Reason::NoKeyframe, format!("RTP for {} s without a keyframe", self.limits.keyframe.as_secs())))
            }
            (Role::Viewer, Some(since)) if since >= self.limits.media => {
                Some((Reason::NoReceipt, format!("RTP sent for {} s without a report", self.limits.media.as_secs())))
            }
            _ => None,
        };
        if let Some((reason, detail)) = verdict {
            // The session stays: a keyframe or a report may still arrive.
            self.media.failed = true;
            self.event(now, Stage::Media, StageChange::Failed(reason), detail);
        }
        None
    }

    fn finish_media(&mut self, now: Instant, detail: &str) {
        self.media.done = true;
        self.event(now, Stage::Media, StageChange::Done, detail.to_owned());
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        self.phase = phase;
        self.phase_since = now;
    }

    fn event(&mut self, at: Instant, stage: Stage, change: StageChange, detail: String) {
        self.events.push(StageEvent { at, stage, change, detail });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, StageState};

    struct Case {
        lifecycle: Lifecycle,
        ledger: Ledger,
        start: Instant,
    }

    impl Case {
        fn new(role: Role) -> Case {
            let start = Instant::now();
            let lifecycle = Lifecycle::new(start, role, true, &CoreConfig::default());
            Case { lifecycle, ledger: Ledger::new(start), start }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn secured(role: Role) -> Case {
            let mut case = Case::new(role);
            assert!(case.lifecycle.on_valid_check(case.start, String::new));
            assert!(!case.lifecycle.on_valid_check(case.start, String::new));
            case.lifecycle.on_handshake(case.start, "DTLSv1.2".into(), "AEAD_AES_128_GCM");
            case
        }

        fn states(&mut self) -> [StageState; 6] {
            let events: Vec<StageEvent> = self.lifecycle.take_events().collect();
            for event in &events {
                self.ledger.apply(event);
            }
            std::array::from_fn(|index| self.ledger.stages()[index].state)
        }

        fn reason(&self, stage: Stage) -> Option<Reason> {
            self.ledger.stage(stage).reason
        }
    }

    use StageState::{Done, Failed, Running, Waiting};

    // OPS-01, ICE-08
    #[test]
    fn no_check_at_all_fails_stage_ice_after_the_timeout_and_not_before() {
        let mut case = Case::new(Role::Publisher);
        assert_eq!(case.lifecycle.poll(case.at(39)), None);
        assert_eq!(case.lifecycle.poll(case.at(40)), Some(Reason::NoValidCheck));
        assert_eq!(case.states(), [Waiting, Failed, Waiting, Waiting, Waiting, Waiting]);
        assert_eq!(case.lifecycle.poll(case.at(99)), None);
    }

    #[test]
    fn a_handshake_that_stalls_fails_stage_dtls() {
        let mut case = Case::new(Role::Publisher);
        case.lifecycle.on_valid_check(case.start, String::new);
        for second in 0..30 {
            assert_eq!(case.lifecycle.poll(case.at(second)), None);
            case.lifecycle.on_valid_check(case.at(second), String::new);
        }
        assert_eq!(case.lifecycle.poll(case.at(30)), Some(Reason::DtlsTimeout));
        assert_eq!(case.states(), [Waiting, Done, Failed, Waiting, Waiting, Waiting]);
    }

    // DTLS-08
    #[test]
    fn a_wrong_certificate_fails_stage_fingerprint_and_no_other() {
        let mut case = Case::new(Role::Viewer);
        case.lifecycle.on_valid_check(case.start, String::new);
        case.lifecycle.on_failure(case.at(1), Stage::Fingerprint, Reason::FingerprintMismatch, "a != b".into());
        assert_eq!(case.states(), [Waiting, Done, Done, Failed, Waiting, Waiting]);
        assert_eq!(case.reason(Stage::Fingerprint), Some(Reason::FingerprintMismatch));
        assert_ne!(case.lifecycle.phase, Phase::Secured);
    }

    // OPS-04
    #[test]
    fn packets_of_which_none_authenticates_fail_stage_srtp() {
        let mut case = Case::secured(Role::Publisher);
        for _ in 0..5 {
            case.lifecycle.on_auth_failure(case.start);
        }
        assert_eq!(case.lifecycle.poll(case.at(2)), None);
        assert_eq!(case.lifecycle.poll(case.at(3)), Some(Reason::SrtpAuthentication));
        assert_eq!(case.states(), [Waiting, Done, Done, Done, Failed, Waiting]);
    }

    #[test]
    fn stray_unauthentic_packets_beside_authentic_ones_fail_nothing() {
        let mut case = Case::secured(Role::Publisher);
        case.lifecycle.on_authentic(case.start);
        for _ in 0..500 {
            case.lifecycle.on_auth_failure(case.start);
        }
        assert_eq!(case.lifecycle.poll(case.at(5)), None);
        assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Running]);
    }

    #[test]
    fn video_without_keyframe_fails_stage_media_and_a_late_keyframe_heals_it() {
        let mut case = Case::secured(Role::Publisher);
        for second in 0..=12 {
            case.lifecycle.on_authentic(case.at(second));
            case.lifecycle.on_rtp_received(case.at(second), false);
            assert_eq!(case.lifecycle.poll(case.at(second)), None);
        }
        assert_eq!(case.states()[5], Failed);
        assert_eq!(case.reason(Stage::Media), Some(Reason::NoKeyframe));
        case.lifecycle.on_rtp_received(case.at(20), true);
        assert_eq!(case.states()[5], Done);
    }

    #[test]
    fn a_silent_publisher_fails_with_no_media() {
        let mut case = Case::secured(Role::Publisher);
        assert_eq!(case.lifecycle.poll(case.at(10)), None);
        case.states();
        assert_eq!(case.reason(Stage::Media), Some(Reason::NoMedia));
    }

    #[test]
    fn a_viewer_is_done_when_it_reports_receipt() {
        let mut case = Case::secured(Role::Viewer);
        case.lifecycle.on_receipt(case.start);
        assert_eq!(case.states()[5], Running);
        case.lifecycle.on_rtp_sent(case.at(1));
        case.lifecycle.on_receipt(case.at(2));
        assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Done]);
        assert_eq!(case.lifecycle.poll(case.at(3)), None);
    }

    #[test]
    fn a_viewer_that_never_reports_fails_with_no_receipt() {
        let mut case = Case::secured(Role::Viewer);
        case.lifecycle.on_rtp_sent(case.start);
        assert_eq!(case.lifecycle.poll(case.at(10)), None);
        case.states();
        assert_eq!(case.reason(Stage::Media), Some(Reason::NoReceipt));
    }

    // WHIP-33
    #[test]
    fn a_peer_that_falls_silent_is_given_up_after_the_liveness_time() {
        let mut case = Case::secured(Role::Publisher);
        case.lifecycle.on_authentic(case.at(100));
        assert_eq!(case.lifecycle.poll(case.at(129)), None);
        assert_eq!(case.lifecycle.poll(case.at(130)), Some(Reason::ConsentLost));
    }
}
