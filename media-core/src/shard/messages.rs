//! What control and other shards tell a shard.

use std::time::Instant;

use crate::egress::Feed;
use crate::ledger::Reason;
use crate::spec::{ShardIndex, StreamId};
use crate::stats::{SessionSnapshot, ShardSnapshot};
use crate::stream::Tracks;

use super::Shard;
use super::mailbox::{ShardInbox, ShardMessage};
use super::stream::Stream;

/// Messages before the socket gets its turn.
const MESSAGE_ROUNDS: usize = 256;

impl Shard {
    /// Takes messages, `first` and those that wait. Returns whether the shard goes on, and whether there may be more.
    pub(super) fn on_messages(&mut self, inbox: &mut ShardInbox, first: Option<ShardMessage>) -> (bool, bool) {
        let mut goes_on = true;
        let mut next = first;
        for _ in 0..MESSAGE_ROUNDS {
            let Some(message) = next.take().or_else(|| inbox.try_recv()) else { return (goes_on, false) };
            goes_on &= self.on_message(message);
        }
        (goes_on, true)
    }

    /// Returns false when the shard is to stop.
    pub(super) fn on_message(&mut self, message: ShardMessage) -> bool {
        let now = self.now();
        match message {
            ShardMessage::Open(spec, certificate, home) => self.open(now, *spec, certificate, home),
            ShardMessage::Close(session, reason) => {
                if let Some(key) = self.sessions.find(session) {
                    self.end(now, key, reason);
                }
            }
            ShardMessage::Candidates(session, candidates) => {
                if let Some(key) = self.sessions.find(session) {
                    let connectivity = &mut self.sessions.slab[key].connectivity;
                    candidates.into_iter().for_each(|candidate| connectivity.add_remote_candidate(candidate));
                }
            }
            ShardMessage::HandedOver(connection) => self.on_handed_over(now, *connection),
            ShardMessage::RestartIce(session, restart) => self.restart_ice(now, session, *restart),
            ShardMessage::SelectLayer(session, track, selection) => {
                if let Some(key) = self.sessions.find(session) {
                    self.sessions.slab[key].select_layer(track, *selection);
                }
            }
            ShardMessage::Snapshot(reply) => {
                // Nobody waits any more: the scrape was given up.
                let _ = reply.send(self.snapshot());
            }
            ShardMessage::Configure(config) => self.config = config,
            ShardMessage::Restarted(shard) => self.on_restart(now, shard),
            ShardMessage::Standings(id, standings) => self.on_standings(id, &standings),
            #[cfg(feature = "fault-injection")]
            ShardMessage::Fault(fault) => fault.strike(),
            ShardMessage::Shutdown => {
                self.is_stopping = true;
                let keys: Vec<usize> = self.sessions.slab.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.end(now, key, Reason::Shutdown);
                }
                return false;
            }
            ShardMessage::Join(id, shard) => self.on_join(now, id, shard),
            ShardMessage::Leave(id, shard) => {
                if let Some(key) = self.streams.find(id) {
                    self.streams.slab[key].feeder.remove(shard);
                    self.streams.slab[key].watched.set(shard, std::iter::empty());
                    self.streams.remove_if_unused(key);
                }
            }
            ShardMessage::KeyframeRequest(id, track, encoding) => {
                if let Some(key) = self.streams.find(id) {
                    self.request_keyframe(now, key, (track, encoding));
                }
            }
            ShardMessage::Watched(id, shard, encodings) => {
                if let Some(key) = self.streams.find(id) {
                    self.streams.slab[key].watched.set(shard, encodings.into_iter());
                }
            }
            ShardMessage::Publisher(id, published) => {
                if let Some(key) = self.streams.find(id) {
                    self.set_publisher(now, key, published);
                }
            }
            ShardMessage::Sources(id, sources) => {
                if let Some(key) = self.streams.find(id) {
                    let tracks = &mut self.streams.slab[key].tracks;
                    sources.into_iter().for_each(|(track, source)| tracks.get_or_insert(track).source = source);
                }
            }
            ShardMessage::FormatInUse(id, track, in_use) => {
                if let Some(key) = self.streams.find(id) {
                    self.set_format_in_use(now, key, track, in_use);
                }
            }
            ShardMessage::Feed(feed) => self.on_feed(now, &feed),
        }
        true
    }

    /// The key of a stream, which is made if there is none yet.
    pub(super) fn stream(&mut self, now: Instant, id: StreamId, home: ShardIndex) -> usize {
        let interval = self.config.keyframe_request_interval;
        let caches = self.streams.caches.clone();
        self.streams.find_or_insert(id, || Stream::new(now, id, home, Tracks::within(caches, interval)))
    }

    /// Another shard has viewers of a stream whose home is here.
    fn on_join(&mut self, now: Instant, id: StreamId, shard: ShardIndex) {
        let key = self.stream(now, id, self.index);
        let stream = &mut self.streams.slab[key];
        if stream.feeder.shards().contains(&shard) {
            return;
        }
        let link = &self.links[shard];
        if let Some(published) = &stream.published {
            link.send(ShardMessage::Publisher(id, Some(published.clone())));
            link.send(ShardMessage::Sources(id, stream.tracks.sources().collect()));
        }
        stream.feeder.add(now, shard, (id, &stream.tracks), &mut self.streams.feeds, |feed| {
            // The mailbox has room for far more than the backlog of one stream.
            link.feed(feed.clone());
        });
    }

    /// Packets of a stream whose home is another shard.
    fn on_feed(&mut self, now: Instant, feed: &Feed) {
        let Some(key) = self.streams.find(feed.stream) else { return };
        let stream = &mut self.streams.slab[key];
        // Between two publishers nothing of either is for the viewers.
        if stream.published.is_none() {
            return;
        }
        for fed in &feed.tracks {
            let track = stream.tracks.get_or_insert(fed.id);
            track.clock = fed.clock;
            track.set_requests_ignored(fed.keyframe_requests_ignored);
            track.set_described(&fed.described);
        }
        for (track, encoding, packet) in feed.packets(&self.wall) {
            if let Some(encoding) = stream.tracks.get_or_insert(track).get_or_insert_encoding(encoding) {
                encoding.admit(packet.info, packet.extensions, packet.payload);
            }
        }
        self.streams.enqueue(now, key);
    }

    pub(super) fn snapshot(&self) -> ShardSnapshot {
        let mut counters = self.counters.clone();
        let sent = self.outbound.total();
        counters.datagrams_sent += sent.sent;
        counters.bytes_sent += sent.bytes;
        counters.send_calls += sent.calls;
        counters.segmented_runs += sent.segmented;
        counters.send_dropped += sent.dropped;
        counters.tcp += self.outbound.tcp_ref().map(|tcp| tcp.counters()).unwrap_or_default();
        let sessions = self.sessions.slab.iter();
        ShardSnapshot {
            shard: self.index,
            busy: self.load.meter.busy(),
            cache_bytes: self.streams.caches.used(),
            counters,
            sessions: sessions.map(|(_, s)| SessionSnapshot { id: s.id, stats: s.stats() }).collect(),
        }
    }
}
