//! Stage `media` of a viewer: done while it reports receipt of every medium that it was answered with and that the publisher
//! sends.
//!
//! Sans-IO, a part of the [lifecycle](super::lifecycle).

use std::fmt::Write;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::config::CoreConfig;
use crate::ledger::{Reason, StageChange};
use crate::media::TrackId;
use crate::stream::Source;

use super::standing::Standing;

/// What is known of a viewer when its stage is judged.
pub(crate) struct Watched {
    /// The stream has a publisher.
    pub(crate) has_publisher: bool,
    /// The viewer's tracks.
    pub(crate) media: SmallVec<[SentMedium; 2]>,
    /// When anything authentic was received from it last.
    pub(crate) last_authentic: Instant,
}

/// What is sent of one track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentMedium {
    /// The track.
    pub(crate) track: TrackId,
    /// What the publisher sends of it; `None` if it did not offer it, or in no format that the viewer takes.
    pub(crate) source: Option<Source>,
    /// The viewer's path does not carry it.
    pub(crate) is_paused: bool,
    /// Packets sent to the viewer so far.
    pub(crate) sent: u32,
}

/// The stage's progress.
#[derive(Debug)]
pub(super) struct ViewerMedia {
    receipts: SmallVec<[Receipts; 2]>,
    has_rtp: bool,
    standing: Standing<State>,
    /// Without a report of what was sent for so long the stage fails.
    limit: Duration,
}

/// What a viewer reported of one track.
#[derive(Debug)]
struct Receipts {
    track: TrackId,
    /// It reported receipt since the publisher sends.
    is_reported: bool,
    /// Extended highest sequence number that it reported last.
    highest: Option<u32>,
    /// Packets that had been sent by the last receipt.
    sent: u32,
    /// Since when packets sent are without receipt.
    outstanding_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is nothing that could be sent.
    NotSent,
    /// Nothing is sent on purpose.
    Paused,
    /// Not to be judged yet.
    Awaited,
    Reported,
    Unreported,
    SourceStopped(Instant),
    NoKeyframe,
}

impl Receipts {
    /// The state of the track now. `limit` is the longest time without receipt, of a viewer that said something of its own
    /// at `last_authentic`.
    fn state(&mut self, (now, last_authentic): (Instant, Instant), medium: &SentMedium, limit: Duration) -> State {
        let state = match medium.source {
            None | Some(Source::Missing) => State::NotSent,
            Some(Source::Flowing) if medium.is_paused => State::Paused,
            Some(Source::Awaited) => State::Awaited,
            Some(Source::Stopped(last)) => State::SourceStopped(last),
            Some(Source::NoKeyframe) => State::NoKeyframe,
            Some(Source::Flowing) => {
                if medium.sent != self.sent {
                    let since = *self.outstanding_since.get_or_insert(now);
                    if now.saturating_duration_since(since) >= limit {
                        // One that has vanished reports nothing: in time stage `ice` says so.
                        return if last_authentic > since { State::Unreported } else { State::Awaited };
                    }
                }
                return if self.is_reported { State::Reported } else { State::Awaited };
            }
        };
        // What comes next is to be reported anew.
        (self.is_reported, self.outstanding_since, self.sent) = (false, None, medium.sent);
        state
    }
}

impl ViewerMedia {
    /// Of a viewer that is sent its first packets from now on.
    pub(super) fn new(config: &CoreConfig) -> ViewerMedia {
        ViewerMedia {
            receipts: SmallVec::new(),
            has_rtp: false,
            standing: Standing::new(),
            limit: config.media_timeout,
        }
    }

    /// An RTP packet was sent.
    pub(super) fn on_sent(&mut self, mut emit: impl FnMut(StageChange, String)) {
        if !std::mem::replace(&mut self.has_rtp, true) {
            emit(StageChange::Progress, "first RTP sent".into());
        }
    }

    /// The viewer reported on a track of which `sent` packets had been sent. Only a number that moves on is a receipt.
    pub(super) fn on_report(&mut self, track: TrackId, highest: u32, sent: u32) {
        let receipts = self.receipts(track);
        if receipts.highest.replace(highest) != Some(highest) {
            (receipts.is_reported, receipts.outstanding_since, receipts.sent) = (true, None, sent);
        }
    }

    /// What holds is open again, for a cause that another stage tells, or as there is no publisher.
    pub(super) fn reopen(&mut self, detail: &str, emit: impl FnMut(StageChange, String)) {
        self.standing.reopen(detail, emit);
    }

    /// Judges what was sent and reported until now.
    pub(super) fn poll(&mut self, now: Instant, facts: &Watched, mut emit: impl FnMut(StageChange, String)) {
        // One that reports on one medium may report more seldom on another.
        let reports = self.receipts.iter().any(|receipts| receipts.is_reported);
        let limit = if reports { 2 * self.limit } else { self.limit };
        let state = |medium: &SentMedium| self.receipts(medium.track).state((now, facts.last_authentic), medium, limit);
        let states: SmallVec<[State; 2]> = facts.media.iter().map(state).collect();
        if !facts.has_publisher {
            return self.reopen("waiting for the publisher", emit);
        }
        if let Some(reason) = reason(&states) {
            if let Some(change) = self.standing.fail(reason, states.clone()) {
                emit(change, self.describe(now, facts, &states));
            }
            return;
        }
        let holds = states.contains(&State::Reported) && !states.contains(&State::Awaited);
        match (holds, self.standing.is_done()) {
            (true, false) => {
                let detail =
                    if self.standing.was_done() { "receipt is reported again" } else { "first receipt reported" };
                self.standing.finish(detail, emit);
            }
            (false, true) => self.reopen("waiting for media and for a report of their receipt", emit),
            _ => {}
        }
    }

    fn receipts(&mut self, track: TrackId) -> &mut Receipts {
        let index = self.receipts.iter().position(|receipts| receipts.track == track).unwrap_or_else(|| {
            self.receipts.push(Receipts { track, is_reported: false, highest: None, sent: 0, outstanding_since: None });
            self.receipts.len() - 1
        });
        &mut self.receipts[index]
    }

    fn describe(&self, now: Instant, facts: &Watched, states: &[State]) -> String {
        let mut text = String::new();
        for (medium, state) in facts.media.iter().zip(states) {
            let kind = medium.track.kind.as_str();
            let separator = if text.is_empty() { "" } else { "; " };
            let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
            let receipts = self.receipts.iter().find(|receipts| receipts.track == medium.track);
            let _ = match state {
                State::NotSent => write!(text, "{separator}the publisher sends no {kind} that could be forwarded"),
                State::Paused => write!(text, "{separator}{kind} pauses, as the path does not carry it"),
                State::Awaited => write!(text, "{separator}{kind} is awaited"),
                State::Reported => write!(text, "{separator}receipt of {kind} is reported"),
                State::Unreported => {
                    let since = receipts.and_then(|receipts| receipts.outstanding_since).unwrap_or(now);
                    let sent = medium.sent.wrapping_sub(receipts.map_or(0, |receipts| receipts.sent));
                    write!(
                        text,
                        "{separator}{sent} {kind} packets were sent in {:.0} s without a report",
                        seconds(since)
                    )
                }
                State::SourceStopped(last) => {
                    write!(text, "{separator}the publisher's {kind} stopped {:.1} s ago", seconds(*last))
                }
                State::NoKeyframe => write!(text, "{separator}the publisher's {kind} has no keyframe"),
            };
        }
        text
    }
}

fn reason(states: &[State]) -> Option<Reason> {
    if states.iter().any(|state| matches!(state, State::SourceStopped(_))) {
        Some(Reason::MediaStopped)
    } else if states.contains(&State::NoKeyframe) {
        Some(Reason::NoKeyframe)
    } else {
        states.contains(&State::Unreported).then_some(Reason::NoReceipt)
    }
}

#[cfg(test)]
mod tests;
