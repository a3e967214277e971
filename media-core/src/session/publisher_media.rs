//! Stage `media` of a publisher: done while every medium that it offered is received, and video can be decoded.
//!
//! Sans-IO, a part of the [lifecycle](super::lifecycle).

use std::fmt::Write;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::config::CoreConfig;
use crate::ingest::Reception;
use crate::ledger::{Reason, StageChange};
use crate::media::{MediaKind, TrackId};
use crate::stream::Source;

use super::evidence::Dropped;
use super::standing::Standing;

/// Anything authentic so long after the last packet of a medium proves that the connection outlived it.
const OUTLIVED: Duration = Duration::from_millis(500);

/// A medium from which packets came within this time is well: what was dropped before is no evidence.
const FRESH: Duration = Duration::from_millis(250);

/// What is known of a publisher when its stage is judged.
pub(crate) struct Published<'a> {
    /// Its tracks.
    pub(crate) media: SmallVec<[ReceivedMedium; 2]>,
    /// Keyframe requests sent to it so far.
    pub(crate) keyframe_requests: u64,
    /// RTP packets received so far, with media or without.
    pub(crate) rtp_received: u64,
    /// What was dropped so far.
    pub(crate) dropped: &'a Dropped,
    /// When anything authentic was received last: a check, media, RTCP.
    pub(crate) last_authentic: Instant,
}

/// What is received of one track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedMedium {
    /// The track.
    pub(crate) track: TrackId,
    /// When its packets were received.
    pub(crate) reception: Reception,
    /// The publisher agreed to PLI or FIR.
    pub(crate) takes_requests: bool,
}

/// The stage's progress.
#[derive(Debug)]
pub(super) struct PublisherMedia {
    /// When the session began.
    created: Instant,
    /// When its packets could first be received.
    secured: Instant,
    media: SmallVec<[Medium; 2]>,
    has_rtp: bool,
    standing: Standing<Source>,
    /// What had been dropped when all was well for the last time.
    dropped_before: Dropped,
    limits: Limits,
}

#[derive(Debug)]
struct Medium {
    track: TrackId,
    source: Source,
    takes_requests: bool,
    /// Keyframe requests that had been sent when it could be decoded for the last time.
    requests_before: u64,
}

#[derive(Debug)]
struct Limits {
    media: Duration,
    keyframe: Duration,
    gap: Duration,
}

impl PublisherMedia {
    /// Of a publisher with these tracks, whose packets can be received from now on.
    pub(super) fn new(
        (created, now): (Instant, Instant),
        tracks: impl Iterator<Item = TrackId>,
        config: &CoreConfig,
    ) -> PublisherMedia {
        let medium = |track| Medium { track, source: Source::Awaited, takes_requests: false, requests_before: 0 };
        let (media, keyframe, gap) = (config.media_timeout, config.keyframe_timeout, config.media_gap);
        PublisherMedia {
            created,
            secured: now,
            media: tracks.map(medium).collect(),
            has_rtp: false,
            standing: Standing::new(),
            dropped_before: Dropped::default(),
            limits: Limits { media, keyframe, gap },
        }
    }

    /// What the publisher sends of its tracks.
    pub(super) fn sources(&self) -> impl Iterator<Item = (TrackId, Source)> {
        self.media.iter().map(|medium| (medium.track, medium.source))
    }

    /// A packet of a track was received; not `decodable` before the first keyframe.
    #[inline]
    pub(super) fn on_packet(&mut self, track: TrackId, decodable: bool, emit: impl FnMut(StageChange, String)) {
        if !self.standing.is_done() {
            self.on_packet_while_open(track, decodable, emit);
        }
    }

    fn on_packet_while_open(&mut self, track: TrackId, decodable: bool, mut emit: impl FnMut(StageChange, String)) {
        if !std::mem::replace(&mut self.has_rtp, true) {
            emit(StageChange::Progress, "first RTP received".into());
        }
        let Some(medium) = self.media.iter_mut().find(|medium| medium.track == track) else { return };
        if decodable && medium.source != Source::Flowing {
            medium.source = Source::Flowing;
            self.finish_if_all_flow(emit);
        }
    }

    /// What holds is open again, for a cause that another stage tells.
    pub(super) fn reopen(&mut self, detail: &str, emit: impl FnMut(StageChange, String)) {
        self.standing.reopen(detail, emit);
    }

    /// Judges what was received until now.
    pub(super) fn poll(&mut self, now: Instant, facts: &Published<'_>, mut emit: impl FnMut(StageChange, String)) {
        for received in &facts.media {
            self.look_at(now, received, facts.keyframe_requests);
        }
        let Some(reason) = self.reason() else {
            if self.standing.is_done() && self.all_are_fresh(now, facts) {
                self.dropped_before.clone_from(facts.dropped);
            }
            if !self.standing.is_done() {
                self.finish_if_all_flow(emit);
            }
            return;
        };
        if reason == Reason::MediaStopped && !self.connection_stands(facts) {
            // It may be the network: in time stage `ice` says so.
            return self.reopen("nothing is received any more, connectivity checks neither", emit);
        }
        let faulty = self.media.iter().filter(|medium| medium.source.is_at_fault());
        let faulty: SmallVec<[MediaKind; 2]> = faulty.map(|medium| medium.track.kind).collect();
        let dropped = facts.dropped.media_since(&self.dropped_before, &faulty);
        // Video that is received needs its keyframe, of which what was too long may have been a part.
        let dropped =
            dropped.filter(|dropped| reason != Reason::NoKeyframe || dropped.reason() == Reason::PacketsTooLong);
        let reason = dropped.as_ref().map_or(reason, |dropped| dropped.reason());
        let sources: SmallVec<[Source; 2]> = self.media.iter().map(|medium| medium.source).collect();
        let Some(change) = self.standing.fail(reason, sources) else { return };
        let mut detail = self.describe(facts);
        if let Some(dropped) = dropped {
            // A string takes everything.
            let _ = write!(detail, "; {dropped}");
        }
        emit(change, detail);
    }

    fn look_at(&mut self, now: Instant, received: &ReceivedMedium, keyframe_requests: u64) {
        let gap = self.gap(received.track.kind);
        let waited = now.saturating_duration_since(self.secured);
        let Some(medium) = self.media.iter_mut().find(|medium| medium.track == received.track) else { return };
        let Reception { last, undecodable_since } = received.reception;
        let since = |at: Instant| now.saturating_duration_since(at);
        medium.takes_requests = received.takes_requests;
        medium.source = match (last, undecodable_since) {
            (None, _) if waited >= self.limits.media => Source::Missing,
            (None, _) => Source::Awaited,
            (Some(last), _) if since(last) >= gap => Source::Stopped(last),
            (Some(_), Some(begun)) if since(begun) >= self.limits.keyframe => Source::NoKeyframe,
            // For a while its viewers have the last frame before.
            (Some(_), Some(_)) if medium.source == Source::Flowing => Source::Flowing,
            (Some(_), Some(_)) => Source::Awaited,
            (Some(_), None) => Source::Flowing,
        };
        if undecodable_since.is_none() {
            medium.requests_before = keyframe_requests;
        }
    }

    /// Audio may pause for longer than video: with discontinuous transmission a packet comes every 400 ms.
    fn gap(&self, kind: MediaKind) -> Duration {
        match kind {
            MediaKind::Audio => 2 * self.limits.gap,
            MediaKind::Video => self.limits.gap,
        }
    }

    fn all_are_fresh(&self, now: Instant, facts: &Published<'_>) -> bool {
        let fresh = |last: Instant| now.saturating_duration_since(last) < FRESH;
        facts.media.iter().all(|received| received.reception.last.is_some_and(fresh))
    }

    /// True if something was received after each medium that stopped.
    fn connection_stands(&self, facts: &Published<'_>) -> bool {
        self.media.iter().all(|medium| match medium.source {
            Source::Stopped(last) => facts.last_authentic >= last + OUTLIVED,
            _ => true,
        })
    }

    fn reason(&self) -> Option<Reason> {
        let any = |what: fn(&Source) -> bool| self.media.iter().any(|medium| what(&medium.source));
        if any(|source| matches!(source, Source::Stopped(_))) {
            Some(Reason::MediaStopped)
        } else if any(|source| *source == Source::NoKeyframe) {
            Some(Reason::NoKeyframe)
        } else if !any(|source| *source == Source::Missing) {
            None
        } else if any(|source| *source != Source::Missing) {
            Some(Reason::MediumMissing)
        } else {
            Some(Reason::NoMedia)
        }
    }

    fn describe(&self, facts: &Published<'_>) -> String {
        if self.media.iter().all(|medium| medium.source == Source::Missing) {
            let seconds = self.limits.media.as_secs_f64();
            return match facts.rtp_received {
                0 => format!("no RTP was received for {seconds} s"),
                count => format!("{count} RTP packets were received in {seconds} s, none of them with media"),
            };
        }
        let mut text = String::new();
        for medium in &self.media {
            let kind = medium.track.kind.as_str();
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}{kind} ");
            let _ = match medium.source {
                Source::Awaited => write!(text, "is awaited"),
                Source::Flowing => write!(text, "is received"),
                Source::Missing => write!(text, "was offered and nothing of it was received"),
                Source::NoKeyframe => medium.describe_keyframes(&self.limits, facts, &mut text),
                Source::Stopped(last) => {
                    let at = last.saturating_duration_since(self.created).as_secs_f64();
                    write!(text, "stopped {at:.1} s after the session began")
                }
            };
        }
        text
    }

    fn finish_if_all_flow(&mut self, emit: impl FnMut(StageChange, String)) {
        if self.media.is_empty() || self.media.iter().any(|medium| medium.source != Source::Flowing) {
            return;
        }
        let has_video = self.media.iter().any(|medium| medium.track.kind == MediaKind::Video);
        let detail = match (self.standing.was_done(), has_video) {
            (true, _) => "received again",
            (false, true) => "first keyframe received",
            (false, false) => "first RTP received",
        };
        self.standing.finish(detail, emit);
    }
}

impl Medium {
    fn describe_keyframes(&self, limits: &Limits, facts: &Published<'_>, text: &mut String) -> std::fmt::Result {
        let requests = facts.keyframe_requests.saturating_sub(self.requests_before);
        write!(text, "is received, for {} s without a keyframe; ", limits.keyframe.as_secs_f64())?;
        match (self.takes_requests, requests) {
            (false, _) => write!(text, "the publisher agreed to no keyframe requests (PLI or FIR)"),
            (true, 0) => write!(text, "none was requested"),
            (true, requests) => write!(text, "{requests} keyframe requests were sent and not answered"),
        }
    }
}

#[cfg(test)]
mod tests;
