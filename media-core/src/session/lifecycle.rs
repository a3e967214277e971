//! The session lifecycle: through ICE, DTLS, fingerprint and SRTP to media. The stage machine that writes the ledger.
//!
//! Sans-IO: the shard tells it what happened and when; it answers with [`StageEvent`]s and says when to give up. Its last
//! stage is [`PublisherMedia`] or [`ViewerMedia`].

use std::time::{Duration, Instant};

use crate::config::{CoreConfig, PUBLISHER_SILENCE};
use crate::ice::{CheckRefusal, Refusals};
use crate::ledger::{Reason, Stage, StageChange, StageEvent, WarningKey};
use crate::media::{Role, TrackId};
use crate::stats::DropReason;
use crate::stream::Source;

use super::evidence::{Dropped, RefusedStream};
use super::publisher_media::{Published, PublisherMedia};
use super::viewer_media::{ViewerMedia, Watched};

/// Unauthentic packets that prove wrong keys, if not one authentic packet was received …
const AUTH_FAILURES: u64 = 5;
/// … within this time after the first of them.
const AUTH_FAILURE_TIME: Duration = Duration::from_secs(3);

/// What stage `media` says while SRTP refuses packets.
const REFUSED_BY_SRTP: &str = "waiting for packets that SRTP accepts";

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
    created: Instant,
    phase: Phase,
    phase_since: Instant,
    last_authentic: Instant,
    /// Nothing came for [`PUBLISHER_SILENCE`], and control was told.
    is_silent: bool,
    authentic_media: bool,
    first_auth_failure: Option<Instant>,
    auth_failures: u64,
    /// Stage `srtp` failed, as nothing was authentic so far.
    keys_disagree: bool,
    /// SRTP had been ready and refuses packets now.
    srtp_refuses: bool,
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
}

/// The last stage.
#[derive(Debug)]
enum Media {
    Pending,
    Publisher(Box<PublisherMedia>),
    Viewer(ViewerMedia),
}

/// What is known of a session when its stages are judged.
pub(crate) struct Facts<'a> {
    /// Checks that were refused since the last valid one.
    pub(crate) refusals: &'a Refusals,
    /// DTLS datagrams received.
    pub(crate) dtls_received: u32,
    /// What was dropped.
    pub(crate) dropped: &'a Dropped,
    /// The SSRC whose packets SRTP refuses at present.
    pub(crate) refused_stream: Option<RefusedStream>,
    /// What is received or sent, once there are keys.
    pub(crate) media: MediaFacts<'a>,
}

/// What is received or sent.
pub(crate) enum MediaFacts<'a> {
    /// Nothing can be as yet.
    Pending,
    /// What a publisher sends.
    Publisher(Published<'a>),
    /// What a viewer is sent.
    Viewer(Watched),
}

impl Lifecycle {
    /// A session at its creation: stage `ice` begins.
    pub(crate) fn new(now: Instant, role: Role, config: &CoreConfig) -> Lifecycle {
        let mut lifecycle = Lifecycle {
            role,
            created: now,
            phase: Phase::Checking,
            phase_since: now,
            last_authentic: now,
            is_silent: false,
            authentic_media: false,
            first_auth_failure: None,
            auth_failures: 0,
            keys_disagree: false,
            srtp_refuses: false,
            media: Media::Pending,
            limits: Limits { ice: config.ice_timeout, dtls: config.dtls_timeout, liveness: config.liveness_timeout },
            events: Vec::new(),
        };
        lifecycle.event(now, Stage::Ice, StageChange::Begin, String::new());
        lifecycle
    }

    /// When the session was created.
    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// The stage that it has come to.
    pub(crate) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Checking => Stage::Ice,
            Phase::Handshaking => Stage::Dtls,
            Phase::Secured | Phase::Ended => Stage::Media,
        }
    }

    /// When the peer proved itself last.
    pub(crate) fn last_authentic(&self) -> Instant {
        self.last_authentic
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

    /// The peer showed by STUN, at an address where it receives, that it lives.
    pub(crate) fn on_alive(&mut self, now: Instant) {
        self.last_authentic = now;
    }

    /// A connectivity check was valid. Returns true at the first one: DTLS may begin.
    pub(crate) fn on_valid_check(&mut self, now: Instant, detail: impl FnOnce() -> String) -> bool {
        if self.phase != Phase::Checking {
            return false;
        }
        self.last_authentic = now;
        self.enter(now, Phase::Handshaking);
        self.event(now, Stage::Ice, StageChange::Done, detail());
        self.event(now, Stage::Dtls, StageChange::Begin, String::new());
        true
    }

    /// An ICE restart began or is over. The pair before serves meanwhile, so that the stage stands as it did.
    pub(crate) fn on_ice_restart(&mut self, now: Instant, detail: String) {
        if self.phase != Phase::Ended {
            self.event(now, Stage::Ice, StageChange::Noted, detail);
        }
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

    /// Something is less than it could be.
    pub(crate) fn warn(&mut self, now: Instant, stage: Stage, key: WarningKey, detail: String) {
        self.event(now, stage, StageChange::Warned(key), detail);
    }

    /// A warning is over, if there was one.
    pub(crate) fn clear(&mut self, now: Instant, stage: Stage, key: WarningKey) {
        self.event(now, stage, StageChange::Cleared(key), String::new());
    }

    /// An SRTP or SRTCP packet was authentic.
    pub(crate) fn on_authentic(&mut self, now: Instant) {
        self.last_authentic = now;
        if !self.authentic_media {
            self.authentic_media = true;
            if self.role == Role::Publisher {
                self.event(now, Stage::Srtp, StageChange::Done, String::new());
                self.event(now, Stage::Media, StageChange::Begin, String::new());
            } else if self.keys_disagree {
                self.event(now, Stage::Srtp, StageChange::Done, "a packet authenticated".into());
            }
        }
    }

    /// An SRTP or SRTCP packet did not authenticate.
    pub(crate) fn on_auth_failure(&mut self, now: Instant) {
        self.auth_failures += 1;
        self.first_auth_failure.get_or_insert(now);
    }

    /// The keys are installed: a publisher's packets of these tracks can be received.
    pub(crate) fn begin_publishing(
        &mut self,
        now: Instant,
        tracks: impl Iterator<Item = TrackId>,
        config: &CoreConfig,
    ) {
        self.media = Media::Publisher(Box::new(PublisherMedia::new((self.created, now), tracks, config)));
    }

    /// The keys are installed: a viewer can be sent media.
    pub(crate) fn begin_watching(&mut self, config: &CoreConfig) {
        self.media = Media::Viewer(ViewerMedia::new(config));
    }

    /// A publisher's packet of a track was received; not `decodable` before the first keyframe.
    #[inline]
    pub(crate) fn on_media(&mut self, now: Instant, track: TrackId, decodable: bool) {
        if let Media::Publisher(publisher) = &mut self.media
            && !self.srtp_refuses
        {
            publisher.on_packet(track, decodable, media_events(now, &mut self.events));
        }
    }

    /// What a publisher sends of its tracks.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (TrackId, Source)> {
        let publisher = match &self.media {
            Media::Publisher(publisher) => Some(publisher),
            _ => None,
        };
        publisher.into_iter().flat_map(|publisher| publisher.sources())
    }

    /// A viewer's RTP packet was sent.
    pub(crate) fn on_rtp_sent(&mut self, now: Instant) {
        if let Media::Viewer(viewer) = &mut self.media {
            viewer.on_sent(media_events(now, &mut self.events));
        }
    }

    /// A viewer reported this extended highest sequence number of a track of which `sent` packets had been sent.
    pub(crate) fn on_report(&mut self, track: TrackId, highest: u32, sent: u32) {
        if let Media::Viewer(viewer) = &mut self.media {
            viewer.on_report(track, highest, sent);
        }
    }

    /// Whether the peer fell silent since the last call (since when), or is heard again (`None`); for a connected publisher,
    /// whose stream another session of it may want.
    pub(crate) fn poll_silence(&mut self, now: Instant) -> Option<Option<Instant>> {
        let is_connected = matches!(self.phase, Phase::Handshaking | Phase::Secured);
        let is_silent = is_connected && self.role == Role::Publisher && !self.is_alive(now, PUBLISHER_SILENCE);
        if is_silent == std::mem::replace(&mut self.is_silent, is_silent) {
            return None;
        }
        Some(is_silent.then_some(self.last_authentic))
    }

    /// Judges the stages by what is known now. `Some` means: end the session for this reason.
    pub(crate) fn poll(&mut self, now: Instant, facts: &Facts<'_>) -> Option<Reason> {
        let waited = now.saturating_duration_since(self.phase_since);
        match self.phase {
            Phase::Checking if waited >= self.limits.ice => return Some(self.fail_ice(now, facts)),
            Phase::Handshaking if waited >= self.limits.dtls => {
                let detail =
                    format!("no completed handshake within {} s; {}", self.limits.dtls.as_secs_f64(), dtls(facts));
                self.on_failure(now, Stage::Dtls, Reason::DtlsTimeout, detail);
                return Some(Reason::DtlsTimeout);
            }
            Phase::Ended => return None,
            _ => {}
        }
        if now.saturating_duration_since(self.last_authentic) >= self.limits.liveness && self.phase != Phase::Checking {
            let stage = if self.phase == Phase::Secured { Stage::Ice } else { Stage::Dtls };
            let mut detail = format!("nothing authentic from the peer for {} s", self.limits.liveness.as_secs_f64());
            if facts.refusals.most_frequent().is_some() {
                detail = format!("{detail}; {}", facts.refusals);
            }
            self.on_failure(now, stage, Reason::ConsentLost, detail);
            return Some(Reason::ConsentLost);
        }
        if self.phase == Phase::Secured { self.poll_secured(now, facts) } else { None }
    }

    /// No check was valid in time: what was refused tells why, if anything was received.
    fn fail_ice(&mut self, now: Instant, facts: &Facts<'_>) -> Reason {
        let detail = format!("no valid connectivity check within {} s", self.limits.ice.as_secs_f64());
        let (reason, detail) = match facts.refusals.most_frequent() {
            None => (Reason::NoValidCheck, detail),
            Some(refusal) => {
                let reason = match refusal {
                    CheckRefusal::RoleConflict => Reason::IceRoleConflict,
                    CheckRefusal::Username | CheckRefusal::Password => Reason::IceCredentials,
                    CheckRefusal::UnknownAttribute | CheckRefusal::Malformed | CheckRefusal::Rate => {
                        Reason::ChecksRefused
                    }
                };
                (reason, format!("{detail}; {}", facts.refusals))
            }
        };
        self.on_failure(now, Stage::Ice, reason, detail);
        reason
    }

    fn poll_secured(&mut self, now: Instant, facts: &Facts<'_>) -> Option<Reason> {
        // It ends nothing: anybody may forge packets, and the peer's own first one heals the stage.
        if let Some(first) = self.first_auth_failure
            && !self.authentic_media
            && !self.keys_disagree
            && self.auth_failures >= AUTH_FAILURES
            && now.saturating_duration_since(first) >= AUTH_FAILURE_TIME
        {
            self.keys_disagree = true;
            let detail = format!("{} packets came and none authenticated", self.auth_failures);
            self.event(now, Stage::Srtp, StageChange::Failed(Reason::SrtpAuthentication), detail);
        }
        self.judge_srtp(now, facts);
        let keys_disagree = !self.authentic_media && self.auth_failures >= AUTH_FAILURES;
        // What SRTP refuses is missing in stage `media`, too, and its last packet came before the first refused one: whether `srtp`
        // fails is told first.
        let awaits_verdict = facts.refused_stream.is_some_and(|refused| refused.awaits_verdict(now));
        if self.srtp_refuses || keys_disagree || awaits_verdict {
            return None;
        }
        let emit = media_events(now, &mut self.events);
        match (&mut self.media, &facts.media) {
            (Media::Publisher(publisher), MediaFacts::Publisher(facts)) => publisher.poll(now, facts, emit),
            (Media::Viewer(viewer), MediaFacts::Viewer(facts)) => viewer.poll(now, facts, emit),
            _ => {}
        }
        None
    }

    /// Packets of an SSRC that were authentic and are refused one after the other fail stage `srtp`; the session lives on.
    fn judge_srtp(&mut self, now: Instant, facts: &Facts<'_>) {
        let refused = facts.refused_stream;
        if let (false, Some(refused), Some(reason)) =
            (self.srtp_refuses, refused, refused.and_then(|refused| refused.verdict(now)))
        {
            self.srtp_refuses = true;
            self.event(now, Stage::Srtp, StageChange::Failed(reason), refused.to_string());
            let emit = media_events(now, &mut self.events);
            match &mut self.media {
                Media::Publisher(publisher) => publisher.reopen(REFUSED_BY_SRTP, emit),
                Media::Viewer(viewer) => viewer.reopen(REFUSED_BY_SRTP, emit),
                Media::Pending => {}
            }
        } else if self.srtp_refuses && refused.is_none_or(|refused| refused.is_over(now)) {
            self.srtp_refuses = false;
            let detail = if refused.is_none() { "packets authenticate again" } else { "no packet is refused any more" };
            self.event(now, Stage::Srtp, StageChange::Done, detail.into());
        }
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        self.phase = phase;
        self.phase_since = now;
    }

    fn event(&mut self, at: Instant, stage: Stage, change: StageChange, detail: String) {
        self.events.push(StageEvent { at, stage, change, detail });
    }
}

/// Writes events of stage `media`.
fn media_events(at: Instant, events: &mut Vec<StageEvent>) -> impl FnMut(StageChange, String) {
    move |change, detail| events.push(StageEvent { at, stage: Stage::Media, change, detail })
}

/// What was received of the handshake.
fn dtls(facts: &Facts<'_>) -> String {
    let received = match facts.dtls_received {
        0 => "no DTLS was received".to_owned(),
        count => format!("{count} DTLS datagrams were received"),
    };
    let count = |reason| facts.dropped.count(reason);
    match (count(DropReason::DtlsRate), count(DropReason::HandshakeBacklog)) {
        (0, 0) => received,
        (rate, backlog) => format!("{received}, of which {rate} were too many and {backlog} found the threads busy"),
    }
}

#[cfg(test)]
mod tests;
