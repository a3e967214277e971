//! What a shard does as time passes: feedback, reports, timeouts, keyframe requests.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::event::CoreEvent;
use crate::layers::MAX_ENCODINGS;
use crate::ledger::Reason;
use crate::media::{Role, TrackId};
use crate::pulse::BEAT;
use crate::session::{Media, RtcpContext};
use crate::stream::Track;

use super::Shard;
use super::mailbox::ShardMessage;

/// Timeouts and reports are looked at at this grain, and the shard gives its sign of life.
const SLOW_TICK: Duration = BEAT;
/// A tick that is later than this was held up.
const LONGEST_DELAY: Duration = Duration::from_millis(500);
/// Control is told this often what layers carry.
const LAYER_REPORTS: Duration = Duration::from_secs(2);
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
        for (id, track, encoding) in self.streams.keyframe_requests.take() {
            let Some(key) = self.streams.find(id) else { continue };
            match self.streams.slab[key].home {
                home if home == self.index => self.request_keyframe(now, key, (track, encoding)),
                home => self.links[home].send(ShardMessage::KeyframeRequest(id, track, encoding)),
            }
        }
        let Some(late) = now.checked_duration_since(self.next_slow_tick) else { return };
        self.next_slow_tick = now + SLOW_TICK;
        self.pulse.beat();
        // What was received while the process paused waits in the sockets, and counts before anybody is judged by it.
        let has_paused = late > LONGEST_DELAY;
        let had_paused = std::mem::replace(&mut self.has_paused, has_paused);
        if has_paused && !had_paused {
            return;
        }
        self.load.meter.poll(now, &self.load.shared);
        self.report_overload(now);
        self.tick_viewers(now);
        self.update_watched(now);
        self.report_layers(now);
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
        for (track, encoding) in session.send_feedback(&mut context) {
            if let Some(track) = stream.tracks.get_mut(track) {
                track.lacks_keyframe(encoding);
            }
        }
        self.poll_keyframe_requests(now, key);
    }

    /// A viewer of the stream cannot decode an encoding, by track and position, without a keyframe; the home shard asks the
    /// publisher.
    pub(super) fn request_keyframe(&mut self, now: Instant, key: usize, (track, encoding): (TrackId, u8)) {
        let stream = &mut self.streams.slab[key];
        if stream.home != self.index {
            self.streams.keyframe_requests.add(stream.id, track, encoding);
            return;
        }
        if let Some(encoding) = stream.tracks.get_or_insert(track).get_or_insert_encoding(encoding) {
            encoding.keyframe_requests.request();
        }
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
            let id = track.id;
            let due = track.encodings_mut().filter_map(|(index, encoding)| {
                let request = ingest.keyframe_request(id, index)?;
                encoding.poll_keyframe_request(now).then_some(request)
            });
            due.collect::<SmallVec<[_; MAX_ENCODINGS]>>()
        };
        let requests: SmallVec<[_; MAX_ENCODINGS]> = stream.tracks.iter_mut().flat_map(due).collect();
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
            let mut probes = false;
            for &viewer in &stream.viewers {
                let session = &mut self.sessions.slab[viewer];
                let chosen = session.choose_layers(now, &stream.tracks);
                probes |= chosen.has_moved;
                for (track, encoding) in chosen.keyframes {
                    self.streams.keyframe_requests.add(stream.id, track, encoding);
                }
                let Media::Viewer(watching) = &mut session.media else { continue };
                let (can_pad, media) = (watching.viewer.can_pad(), watching.viewer.media());
                probes |= watching.viewer.congestion_mut().poll(now, media, can_pad);
                // The keyframe that it waits for may have been lost on the way.
                let lacking = watching.viewer.tracks().iter();
                for (id, encoding) in lacking.filter_map(|track| Some((track.id(), track.lacks_keyframe()?))) {
                    if !self.streams.keyframe_requests.contains(stream.id, id, encoding)
                        && watching.keyframe_requests.allow(now)
                    {
                        self.streams.keyframe_requests.add(stream.id, id, encoding);
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

    /// Finds out which encodings of simulcast streams are watched; the home shard is told what this one's viewers do.
    fn update_watched(&mut self, now: Instant) {
        let index = self.index;
        for (_, stream) in self.streams.slab.iter_mut().filter(|(_, stream)| stream.tracks.have_simulcast()) {
            let viewers = stream.viewers.iter().filter_map(|&viewer| match &self.sessions.slab[viewer].media {
                Media::Viewer(watching) => Some(watching.viewer.tracks()),
                _ => None,
            });
            let wanted = viewers.flatten().map(|track| (track.id(), track.encodings_wanted()));
            let has_changed = stream.watched.set(index, wanted);
            if has_changed && stream.home != index {
                let watched = stream.watched.of(index).collect();
                self.links[stream.home].send(ShardMessage::Watched(stream.id, index, watched));
            }
            let may_copy = !stream.pass.is_queued();
            for track in stream.tracks.iter_mut() {
                track.set_watched(now, stream.watched.all(track.id), may_copy);
            }
        }
    }

    /// Tells control which layers publishers send: when that has changed, and now and then with new figures.
    fn report_layers(&mut self, now: Instant) {
        for &key in &self.streams.publishing {
            let stream = &mut self.streams.slab[key];
            let Some(publisher) = stream.publisher else { continue };
            let session = self.sessions.slab[publisher].id;
            let is_due = now >= stream.next_layer_report;
            if is_due {
                stream.next_layer_report = now + LAYER_REPORTS;
            }
            for track in stream.tracks.iter_mut() {
                if track.take_layers_changed() || is_due && !track.layers().is_empty() {
                    let (track, layers) = (track.id, track.layer_reports());
                    // Control has stopped listening only when the server ends.
                    let _ = self.events.send(CoreEvent::Layers { session, track, layers });
                }
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
