//! The streams of a shard: who publishes, who watches, and which of them have packets to send.

use std::collections::VecDeque;
use std::time::Instant;

use ahash::RandomState;
use slab::Slab;

use crate::clock::WallClock;
use crate::egress::{FeedPool, Feeder};
use crate::spec::{ShardIndex, StreamId};
use crate::stream::{CacheBudget, DeferredRequests, PublishedTrack, Tracks};

use super::fan_out::PassState;
use super::watched::Watched;

/// Streams for which lists have room from the start.
const ROOM: usize = 64;
/// Streams whose caches are copied into smaller ones at a time, at a millisecond or two each.
const MAX_COPIED: usize = 8;

/// A stream inside one shard.
///
/// It has one home shard, where its publisher is. Every other shard with viewers of it is fed each batch once, keeps it in a
/// cache of its own, and serves its viewers as the home shard serves its own.
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) home: ShardIndex,
    pub(super) tracks: Tracks,
    /// The tracks of the connected publisher.
    pub(super) published: Option<Vec<PublishedTrack>>,
    /// On the home shard: the publisher's session.
    pub(super) publisher: Option<usize>,
    /// The sessions of connected viewers, in the order in which a fan-out pass serves them.
    pub(super) viewers: Vec<usize>,
    /// On the home shard: the other shards with viewers.
    pub(super) feeder: Feeder,
    /// Which encodings the viewers of each shard are sent or wait for; elsewhere than on the home shard, those of this shard.
    pub(super) watched: Watched,
    /// When control is told next what its layers carry.
    pub(super) next_layer_report: Instant,
    /// Sessions of this shard, connected or not.
    pub(super) sessions: usize,
    pub(super) without_publisher_since: Option<Instant>,
    /// The present fan-out pass, or the next one.
    pub(super) pass: PassState,
}

impl Stream {
    pub(super) fn new(now: Instant, id: StreamId, home: ShardIndex, tracks: Tracks) -> Stream {
        Stream {
            id,
            home,
            tracks,
            published: None,
            publisher: None,
            viewers: Vec::new(),
            feeder: Feeder::default(),
            watched: Watched::default(),
            next_layer_report: now,
            sessions: 0,
            without_publisher_since: Some(now),
            pass: PassState::default(),
        }
    }

    /// Begins a fan-out pass; false if one is in progress.
    pub(super) fn begin_pass(&mut self, now: Instant) -> bool {
        let begins = self.pass.begin(now);
        if begins {
            self.tracks.begin_pass();
        }
        begins
    }

    /// Ends a fan-out pass. True if more was received meanwhile: the stream has to queue again.
    pub(super) fn end_pass(&mut self) -> bool {
        self.pass.end(self.tracks.have_grown_since_pass())
    }

    /// Takes a viewer out, so that a pass in progress misses nobody.
    pub(super) fn remove_viewer(&mut self, session: usize) {
        if let Some(index) = self.viewers.iter().position(|&viewer| viewer == session) {
            self.viewers.remove(index);
            self.pass.on_viewer_removed(index);
        }
    }

    /// True if nobody reads its caches.
    fn is_unwatched(&self) -> bool {
        self.viewers.is_empty() && self.feeder.shards().is_empty()
    }

    /// True if nobody needs it here any more.
    fn is_unused(&self) -> bool {
        self.sessions == 0 && self.feeder.shards().is_empty()
    }
}

/// All streams of a shard, by keys that stay.
pub(super) struct Streams {
    pub(super) slab: Slab<Stream>,
    by_id: std::collections::HashMap<StreamId, usize, RandomState>,
    /// Streams whose publisher is connected here.
    pub(super) publishing: Vec<usize>,
    /// Streams whose viewers have packets to be sent, the first one's perhaps half done.
    pub(super) due: VecDeque<usize>,
    /// Streams with viewers whose next packets are not due yet.
    pub(super) lagging: Vec<usize>,
    pub(super) keyframe_requests: DeferredRequests,
    /// Feeds on their way to other shards.
    pub(super) feeds: FeedPool,
    /// What the caches of all streams may take.
    pub(super) caches: CacheBudget,
}

impl Streams {
    pub(super) fn new(wall: WallClock, caches: CacheBudget) -> Streams {
        Streams {
            slab: Slab::new(),
            by_id: std::collections::HashMap::default(),
            publishing: Vec::new(),
            due: VecDeque::with_capacity(ROOM),
            lagging: Vec::with_capacity(ROOM),
            keyframe_requests: DeferredRequests::default(),
            feeds: FeedPool::new(wall),
            caches,
        }
    }

    /// The key of a stream.
    pub(super) fn find(&self, id: StreamId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The key of a stream, which `make` makes if there is none yet.
    pub(super) fn find_or_insert(&mut self, id: StreamId, make: impl FnOnce() -> Stream) -> usize {
        *self.by_id.entry(id).or_insert_with(|| self.slab.insert(make()))
    }

    /// Frees a stream that nobody needs any more.
    pub(super) fn remove_if_unused(&mut self, key: usize) {
        if self.slab[key].is_unused() {
            let stream = self.slab.remove(key);
            self.by_id.remove(&stream.id);
            self.due.retain(|&due| due != key);
            self.lagging.retain(|&lagging| lagging != key);
        }
    }

    /// Where a cache did without memory that it wanted, others give back what is needed least: of streams that nobody watches
    /// what is older than the latest keyframe, then of these all but the newest packets, then of the others what is older than the
    /// latest keyframe. Not more than some milliseconds of copying at a time.
    pub(super) fn save_memory(&mut self) {
        if !self.caches.take_shortage() {
            return;
        }
        let mut copied = 0;
        for (unwatched, all) in [(true, false), (true, true), (false, false)] {
            let candidates = self.slab.iter_mut().filter(|(_, stream)| stream.is_unwatched() == unwatched);
            // The viewers of a pass in progress are to find what it is about.
            for (_, stream) in candidates.filter(|(_, stream)| !stream.pass.is_queued()) {
                if !self.caches.is_tight() || copied == MAX_COPIED {
                    return;
                }
                copied += usize::from(stream.tracks.save_memory(all));
            }
        }
    }

    /// A stream has packets for its viewers.
    pub(super) fn enqueue(&mut self, now: Instant, key: usize) {
        if self.slab[key].pass.enqueue(now) {
            self.due.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layers::PacketLayer;
    use crate::media::TrackId;
    use crate::stream::PacketInfo;

    fn stream(id: u64, caches: CacheBudget) -> Stream {
        Stream::new(Instant::now(), StreamId(id), 0, Tracks::within(caches, Duration::from_millis(500)))
    }

    /// Two groups of pictures of this many packets.
    fn fill(stream: &mut Stream, packets: u64) {
        let arrived = Instant::now();
        let encoding = stream.tracks.get_or_insert(TrackId::VIDEO).encoding_mut(0).unwrap();
        for sequence in 0..2 * packets {
            let (timestamp, keyframe) = (sequence as u32 * 3_000, sequence % packets == 0);
            let info = PacketInfo {
                sequence,
                timestamp,
                arrived,
                payload_type: 96,
                marker: true,
                keyframe,
                layer: PacketLayer::ONLY,
            };
            assert!(encoding.admit(info, &[], &[0; 1_000]));
        }
    }

    // M4
    #[test]
    fn streams_that_nobody_watches_give_their_memory_first() {
        let caches = CacheBudget::new(8 << 20);
        let mut streams = Streams::new(WallClock::now(), caches.clone());
        for id in 0..3 {
            let key = streams.find_or_insert(StreamId(id), || stream(id, caches.clone()));
            fill(&mut streams.slab[key], 1_600);
        }
        streams.slab[0].viewers.push(7);
        let starts = |streams: &Streams| {
            let start =
                |key: usize| streams.slab[key].tracks.encoding(TrackId::VIDEO, 0).unwrap().start(Instant::now());
            [0, 1, 2].map(|key| start(key).is_some())
        };
        let before = caches.used();
        streams.save_memory();
        assert_eq!(caches.used(), before, "nobody does without");
        // Another one wants more than is left.
        let key = streams.find_or_insert(StreamId(3), || stream(3, caches.clone()));
        fill(&mut streams.slab[key], 1_600);
        streams.slab[key].viewers.push(8);
        assert!(caches.used() <= 8 << 20);
        streams.slab[0].pass.enqueue(Instant::now());
        streams.save_memory();
        assert!(!caches.is_tight(), "{} bytes", caches.used());
        assert!(starts(&streams)[0], "it is watched");
        assert!(starts(&streams).contains(&false), "others were not");
    }

    #[test]
    fn viewers_that_leave_during_a_pass_make_it_miss_nobody() {
        for leaving in 0..5 {
            let mut stream = stream(1, CacheBudget::unlimited());
            stream.viewers = (0..5).collect();
            assert!(stream.begin_pass(Instant::now()));
            stream.pass.next = 2;
            stream.remove_viewer(leaving);
            assert!(!stream.begin_pass(Instant::now()), "still in progress");
            let (served, waiting) = stream.viewers.split_at(stream.pass.next);
            assert_eq!(served, (0..2).filter(|&session| session != leaving).collect::<Vec<_>>());
            assert_eq!(waiting, (2..5).filter(|&session| session != leaving).collect::<Vec<_>>());
        }
    }
}
