//! Fan-out: what was received is sent to every viewer, in passes over the viewers of a stream.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::egress::FanOutPass;
use crate::media::TrackId;
use crate::spec::ShardIndex;

use super::Shard;

/// A fan-out pass whose packets waited longer than this begins late.
const MAX_WAIT: Duration = Duration::from_millis(150);
/// One late pass is a pause of the machine; so many in a row mean that the shard is overloaded, and so does a late one that
/// is still in progress after [`MAX_WAIT`].
const LATE_PASSES: u32 = 2;
/// Packets to viewers before the socket gets its turn: some 4 ms of work.
const SLICE: u64 = 1024;

/// Where a stream stands between two fan-out passes, or in one. A pass may be interrupted between two viewers.
#[derive(Default)]
pub(super) struct PassState {
    /// It waits for its turn or is in progress.
    queued: bool,
    in_progress: bool,
    /// It was to be queued while it was in progress.
    queue_again: bool,
    /// The position of the next viewer.
    pub(super) next: usize,
    /// The shard is overloaded.
    overloaded: bool,
    /// From when on a pass that began late means that the shard is overloaded.
    too_long: Option<Instant>,
    /// Some viewer has more to be sent that is not due yet.
    is_lagging: bool,
    /// Since when the packets of the next pass wait.
    waiting_since: Option<Instant>,
    /// Passes in a row that began late.
    late_passes: u32,
}

impl PassState {
    /// Packets were received at `now`, or viewers that lag have packets due. True if the stream was not in the queue yet.
    pub(super) fn enqueue(&mut self, now: Instant) -> bool {
        self.waiting_since.get_or_insert(now);
        self.queue_again |= self.in_progress;
        !std::mem::replace(&mut self.queued, true)
    }

    /// True if a pass waits for its turn or is in progress.
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }

    /// Begins a pass; false if one is in progress.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        if std::mem::replace(&mut self.in_progress, true) {
            return false;
        }
        let waited = self.waiting_since.take().map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        self.late_passes = if waited > MAX_WAIT { self.late_passes + 1 } else { 0 };
        self.overloaded = self.late_passes >= LATE_PASSES;
        self.too_long = (self.late_passes > 0).then(|| now + MAX_WAIT);
        self.is_lagging = false;
        true
    }

    /// Ends a pass. True if the stream has to queue again; `more`: packets were received meanwhile.
    pub(super) fn end(&mut self, more: bool) -> bool {
        self.next = 0;
        self.in_progress = false;
        self.queued = std::mem::take(&mut self.queue_again) | more;
        self.queued
    }

    /// A viewer left whose position was `index`.
    pub(super) fn on_viewer_removed(&mut self, index: usize) {
        if index < self.next {
            self.next -= 1;
        }
    }

    /// True if the shard cannot keep up.
    fn is_overloaded(&self, now: Instant) -> bool {
        self.overloaded || self.too_long.is_some_and(|too_long| now > too_long)
    }
}

/// How a pass went on.
struct Progress {
    /// Every viewer was served.
    is_complete: bool,
    /// Encodings that some viewer cannot go on with without a keyframe.
    needs_keyframe: SmallVec<[(TrackId, u8); 2]>,
}

impl Shard {
    /// Sends what was received to every viewer: viewer by viewer over all that is new, so that a viewer's keys stay in the
    /// cache and its packets form runs. Other shards are fed it once. It stops after so much work, between two viewers, so
    /// that checks, handshakes and RTCP never wait for long; what is received meanwhile makes the next pass.
    pub(super) fn fan_out(&mut self) {
        let mut work = 0;
        while let Some(&key) = self.streams.due.front() {
            let now = self.now();
            if self.streams.slab[key].begin_pass(now) {
                self.feed(key);
            }
            let progress = self.serve_viewers(now, key, &mut work);
            if progress.is_complete {
                self.end_pass(key);
            }
            for encoding in progress.needs_keyframe {
                self.request_keyframe(now, key, encoding);
            }
            if !progress.is_complete || work >= SLICE {
                break;
            }
        }
        self.outbound.flush();
    }

    /// Feeds the packets of the pass to the other shards with viewers.
    fn feed(&mut self, key: usize) {
        let stream = &mut self.streams.slab[key];
        if stream.feeder.shards().is_empty() {
            return;
        }
        let fed: SmallVec<[ShardIndex; 16]> = stream.feeder.shards().into();
        let (links, counters) = (&self.links, &mut self.counters);
        stream.feeder.feed((stream.id, &stream.tracks), &mut self.streams.feeds, |feed| {
            for &shard in &fed {
                match links[shard].feed(feed.clone()) {
                    true => counters.batches_handed_over += 1,
                    false => counters.batches_refused += 1,
                }
            }
        });
    }

    /// Serves viewers from where the pass stands, until `work` is too much.
    fn serve_viewers(&mut self, now: Instant, key: usize, work: &mut u64) -> Progress {
        let stream = &mut self.streams.slab[key];
        let overloaded = stream.pass.is_overloaded(now);
        let fan_out = FanOutPass { now, tracks: &stream.tracks, overloaded };
        let pass = &mut stream.pass;
        let mut needs_keyframe = SmallVec::new();
        for &viewer in &stream.viewers[pass.next..] {
            if *work >= SLICE {
                break;
            }
            let session = &mut self.sessions.slab[viewer];
            let served = session.serve(&fan_out, &mut self.outbound);
            self.counters.rtp_forwarded += served.packets;
            self.counters.probe_packets += served.padding;
            self.counters.send_dropped += served.refused;
            if overloaded {
                self.counters.rtp_shed += served.dropped;
            } else {
                self.counters.rtp_congested += served.dropped;
            }
            // One viewer on a bad path must not cost the others' video its quality.
            if let Some(encoding) = served.needs_keyframe
                && (overloaded || session.allows_keyframe_request(now))
                && !needs_keyframe.contains(&encoding)
            {
                needs_keyframe.push(encoding);
            }
            pass.is_lagging |= served.is_lagging;
            pass.next += 1;
            *work += 1 + served.packets;
        }
        Progress { is_complete: pass.next >= stream.viewers.len(), needs_keyframe }
    }

    fn end_pass(&mut self, key: usize) {
        let stream = &mut self.streams.slab[key];
        if stream.pass.is_lagging {
            self.streams.lagging.push(key);
        }
        self.streams.due.pop_front();
        if stream.end_pass() {
            self.streams.due.push_back(key);
        }
    }

    /// Viewers that lag have their next packets due.
    pub(super) fn resume(&mut self, now: Instant) {
        while let Some(key) = self.streams.lagging.pop() {
            self.streams.enqueue(now, key);
        }
        self.fan_out();
    }

    /// Sends what was received of a stream, before its cache is cleared.
    pub(super) fn finish_passes(&mut self, key: usize) {
        while self.streams.slab[key].pass.is_queued() {
            self.fan_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passes_that_begin_late_in_a_row_drop_packets() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pass = PassState::default();
        // When packets are received, when their pass begins, and whether the shard is overloaded.
        for (received, begins, overloaded) in [
            (0, 0, false),
            // A pause of the machine.
            (10, 500, false),
            (495, 505, false),
            // Too much work.
            (600, 800, false),
            (650, 1_000, true),
            (850, 1_200, true),
            (1_150, 1_210, false),
        ] {
            assert!(pass.enqueue(at(received)));
            assert!(!pass.enqueue(at(received + 1)), "it is in the queue already");
            assert!(pass.begin(at(begins)));
            assert_eq!(pass.is_overloaded(at(begins)), overloaded, "{received}");
            // Of a pass that takes long, only what is served after a late begin.
            let late = begins - received > 150;
            assert_eq!(pass.is_overloaded(at(begins + 151)), overloaded || late, "{received}");
            assert!(!pass.end(false));
        }
    }

    #[test]
    fn what_is_queued_during_a_pass_makes_another_one() {
        let now = Instant::now();
        let mut pass = PassState::default();
        assert!(pass.enqueue(now) && pass.begin(now));
        assert!(!pass.enqueue(now), "it is in the queue already");
        assert!(pass.end(false) && pass.begin(now));
        assert!(!pass.end(false) && !pass.is_queued());
    }
}
