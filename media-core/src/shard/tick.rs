//! What a shard does as time passes: feedback, reports, timeouts, keyframe requests.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::event::CoreEvent;
use crate::ledger::Reason;
use crate::media::{Role, TrackId};
use crate::pulse::BEAT;
use crate::session::{Media, RtcpContext};
use crate::stream::Track;

use super::Shard;
use super::mailbox::ShardMessage;

/// Timeouts and reports are looked at at this grain, and the shard gives its sign of life.
const SLOW_TICK: Duration = BEAT;
/// A shard that goes on dropping packets says so this often.
const OVERLOAD_REPORT: Duration = Duration::from_secs(10);

/// When the log was told that viewers did without packets, and how many of them there were by then.
#[derive(Default)]
pub(super) struct OverloadReport {
    last: Option<Instant>,
    dropped: u64,
}

impl Shard {
    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) {
        for index in 0..self.streams.publishing.len() {
            let key = self.streams.publishing[index];
            self.tick_publisher(now, key);
        }
        for (id, track) in self.streams.keyframe_requests.take() {
            let Some(key) = self.streams.find(id) else { continue };
            match self.streams.slab[key].home {
                home if home == self.index => self.request_keyframe(now, key, track),
                home => self.links[home].send(ShardMessage::KeyframeRequest(id, track)),
            }
        }
        if now < self.next_slow_tick {
            return;
        }
        self.next_slow_tick = now + SLOW_TICK;
        self.pulse.beat();
        self.load.meter.poll(now, &self.load.shared);
        self.report_overload(now);
        self.tick_viewers(now);
        self.streams.save_memory();
        self.sessions.expire(now);
        self.tick_connections(now);
        for key in 0..self.sessions.slab.capacity() {
            if self.sessions.slab.contains(key) {
                self.tick_session(now, key);
            }
        }
    }

    /// Feedback to a publisher, and news of it for control and the stream.
    fn tick_publisher(&mut self, now: Instant, key: usize) {
        if let Some(publisher) = self.streams.slab[key].publisher {
            self.take_format_changes(now, publisher);
        }
        let stream = &mut self.streams.slab[key];
        let Some(session) = stream.publisher.and_then(|publisher| self.sessions.slab.get_mut(publisher)) else {
            return;
        };
        let Some(ingest) = session.ingest_mut() else { return };
        for track in stream.tracks.iter_mut() {
            track.clock = ingest.clock_point(track.id);
        }
        let mut context = RtcpContext {
            now,
            unix: self.wall.unix(now),
            tracks: &stream.tracks,
            out: &mut self.outbound,
            counters: &mut self.counters,
        };
        for track in session.send_feedback(&mut context) {
            if let Some(track) = stream.tracks.get_mut(track) {
                track.keyframe_requests.request();
            }
        }
        self.poll_keyframe_requests(now, key);
    }

    /// A viewer of the stream cannot decode a track without a keyframe; the home shard asks the publisher.
    pub(super) fn request_keyframe(&mut self, now: Instant, key: usize, track: TrackId) {
        let stream = &mut self.streams.slab[key];
        if stream.home != self.index {
            self.streams.keyframe_requests.add(stream.id, track);
            return;
        }
        stream.tracks.get_or_insert(track).keyframe_requests.request();
        self.poll_keyframe_requests(now, key);
    }

    /// Asks the publisher for keyframes that are requested, if it is time to.
    fn poll_keyframe_requests(&mut self, now: Instant, key: usize) {
        let stream = &mut self.streams.slab[key];
        let Some(session) = stream.publisher.and_then(|publisher| self.sessions.slab.get_mut(publisher)) else {
            return;
        };
        if session.selected.is_none() {
            return;
        }
        let Some(ingest) = session.ingest_mut() else { return };
        let due = |track: &mut Track| {
            let request = ingest.keyframe_request(track.id)?;
            track.poll_keyframe_request(now).then_some(request)
        };
        let requests: SmallVec<[_; 2]> = stream.tracks.iter_mut().filter_map(due).collect();
        let mut context = RtcpContext {
            now,
            unix: self.wall.unix(now),
            tracks: &stream.tracks,
            out: &mut self.outbound,
            counters: &mut self.counters,
        };
        for request in requests {
            session.request_keyframe(request, &mut context);
        }
    }

    /// Congestion control and sender reports of the viewers of this shard.
    fn tick_viewers(&mut self, now: Instant) {
        let unix = self.wall.unix(now);
        for (key, stream) in &mut self.streams.slab {
            stream.tracks.measure(now);
            let media = stream.tracks.bitrate();
            let mut probes = false;
            for &viewer in &stream.viewers {
                let session = &mut self.sessions.slab[viewer];
                let Media::Viewer(watching) = &mut session.media else { continue };
                let can_pad = watching.viewer.can_pad();
                probes |= watching.viewer.congestion_mut().poll(now, media, can_pad);
                // The keyframe that it waits for may have been lost on the way.
                for track in watching.viewer.tracks().iter().filter(|track| track.lacks_keyframe()) {
                    if !self.streams.keyframe_requests.contains(stream.id, track.id())
                        && watching.keyframe_requests.allow(now)
                    {
                        self.streams.keyframe_requests.add(stream.id, track.id());
                    }
                }
                session.send_sender_reports(&mut RtcpContext {
                    now,
                    unix,
                    tracks: &stream.tracks,
                    out: &mut self.outbound,
                    counters: &mut self.counters,
                });
            }
            if probes {
                self.streams.lagging.push(key);
            }
        }
    }

    fn tick_session(&mut self, now: Instant, key: usize) {
        self.tick_ice(now, key);
        let session = &mut self.sessions.slab[key];
        if let Some(since) = session.lifecycle.poll_silence(now) {
            let _ = self.events.send(CoreEvent::PublisherSilence { session: session.id, since });
        }
        let stream = &self.streams.slab[session.stream];
        let mut reason = session.poll(now, &stream.tracks, stream.published.as_deref());
        if session.role == Role::Viewer
            && let Some(since) = stream.without_publisher_since
            && now.saturating_duration_since(since.max(session.lifecycle.created())) >= self.config.publisher_wait
        {
            reason = reason.or(Some(Reason::PublisherGone));
        }
        self.publish_events(key);
        if let Some(reason) = reason {
            self.end(now, key, reason);
        } else if self.sessions.slab[key].role == Role::Publisher {
            self.update_sources(key);
        }
    }

    /// Tells the viewers' stages what their publisher sends, here and on the shards that the stream feeds.
    fn update_sources(&mut self, publisher: usize) {
        let session = &self.sessions.slab[publisher];
        let stream = &mut self.streams.slab[session.stream];
        if stream.publisher != Some(publisher) {
            return;
        }
        let mut has_changed = false;
        for (id, source) in session.lifecycle.sources() {
            let track = stream.tracks.get_or_insert(id);
            has_changed |= std::mem::replace(&mut track.source, source) != source;
        }
        if has_changed {
            for &shard in stream.feeder.shards() {
                self.links[shard].send(ShardMessage::Sources(stream.id, stream.tracks.sources().collect()));
            }
        }
    }

    /// Says that viewers did without packets, once in a while as long as it goes on.
    fn report_overload(&mut self, now: Instant) {
        let report = &mut self.load.report;
        let dropped = self.counters.rtp_shed - report.dropped;
        if dropped == 0 || report.last.is_some_and(|last| now.saturating_duration_since(last) < OVERLOAD_REPORT) {
            return;
        }
        tracing::warn!(
            shard = self.index,
            packets = dropped,
            busy = format!("{:.2}", self.load.meter.busy()),
            "the shard cannot keep up: packets that waited too long for viewers were dropped"
        );
        *report = OverloadReport { last: Some(now), dropped: self.counters.rtp_shed };
    }
}
