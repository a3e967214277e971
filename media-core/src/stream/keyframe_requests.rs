//! Keyframe requests, all of it: how viewers' requests are limited, which of them the cache answers, how the others become
//! one request to the publisher, and how it is asked (RTCP-11, RTCP-22).

use std::time::{Duration, Instant};

use crate::media::TrackId;
use crate::spec::StreamId;
use crate::token_bucket::TokenBucket;

/// Unanswered requests after which the publisher counts as one that ignores them (OBS does).
const MAX_UNANSWERED: u32 = 3;
/// Interval between requests to such a publisher.
const IGNORED_INTERVAL: Duration = Duration::from_secs(5);

/// After a request the publisher is to send this many times the bytes of a keyframe before the next one: requested
/// keyframes take no more than a third of the stream …
const COST: u64 = 3;
/// … but the next request waits no longer than this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// Requests that one viewer may make at once …
const VIEWER_BURST: f64 = 5.0;
/// … and then a second.
const VIEWER_PER_SECOND: f64 = 0.2;

/// A keyframe request as the publisher understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframeRequest {
    /// RFC 4585 §6.3.1
    Pli {
        /// The media source.
        ssrc: u32,
    },
    /// RFC 5104 §4.3.1
    Fir {
        /// The media source.
        ssrc: u32,
    },
}

/// The rate limit of one viewer's requests.
#[derive(Debug)]
pub struct RequestLimit(TokenBucket);

impl RequestLimit {
    /// A viewer that has requested nothing yet.
    pub fn new() -> RequestLimit {
        RequestLimit(TokenBucket::new(VIEWER_PER_SECOND, VIEWER_BURST))
    }

    /// Counts a request; false if it is one too many.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.0.take(now)
    }
}

impl Default for RequestLimit {
    fn default() -> RequestLimit {
        RequestLimit::new()
    }
}

/// What becomes of a viewer's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframeAnswer {
    /// The viewer requests too often.
    RateLimited,
    /// The viewer restarts from the cached keyframe.
    FromCache,
    /// The publisher is asked.
    FromPublisher,
    /// The publisher is asked, but it takes no requests or ignores them, and the cache has no keyframe to restart from.
    Unavailable,
}

/// Merges the requests of all viewers for one encoding.
#[derive(Debug)]
pub struct KeyframeRequests {
    interval: Duration,
    /// PLI or FIR was negotiated with the publisher.
    negotiated: bool,
    pending: bool,
    unanswered: u32,
    last_request: Option<LastRequest>,
}

#[derive(Clone, Copy, Debug)]
struct LastRequest {
    at: Instant,
    /// Payload bytes that had been received by then.
    received: u64,
}

impl KeyframeRequests {
    /// At most one request to the publisher in `interval`.
    pub fn new(interval: Duration) -> KeyframeRequests {
        KeyframeRequests { interval, negotiated: true, pending: false, unanswered: 0, last_request: None }
    }

    /// A viewer cannot decode without a keyframe.
    pub fn request(&mut self) {
        self.pending = true;
    }

    /// A keyframe was received: it answers every request from before. Parameter sets without one and recovery points do not.
    pub fn on_keyframe(&mut self) {
        self.pending = false;
        self.unanswered = 0;
    }

    /// Nobody needs it any more.
    pub fn cancel(&mut self) {
        self.pending = false;
    }

    /// Another publisher, of which nothing is known but whether PLI or FIR was negotiated.
    pub fn on_publisher(&mut self, negotiated: bool) {
        self.negotiated = negotiated;
        self.unanswered = 0;
        self.last_request = None;
    }

    /// True if the publisher takes no requests or has left several unanswered: viewers restart from the cache, and begin at a
    /// recovery point where it has no keyframe with everything since (the ingest decides). Before, they wait for better.
    pub fn are_ignored(&self) -> bool {
        !self.negotiated || self.unanswered >= MAX_UNANSWERED
    }

    /// Learns from the home shard whether the publisher answers.
    pub fn set_ignored(&mut self, ignored: bool) {
        self.unanswered = if ignored { MAX_UNANSWERED } else { 0 };
    }

    /// A viewer asks, or it lost a packet beyond repair. Where the publisher takes no requests or ignores them, the viewer
    /// is to restart from the cached keyframe, and so is one that has only just started and probably lost the keyframe that
    /// it was given. `restart` does so, and says whether the cache has one.
    pub fn answer(
        &self,
        now: Instant,
        limit: &mut RequestLimit,
        is_starting: bool,
        restart: impl FnOnce() -> bool,
    ) -> KeyframeAnswer {
        let ignored = self.are_ignored();
        if !limit.allow(now) {
            KeyframeAnswer::RateLimited
        } else if (ignored || is_starting) && restart() {
            KeyframeAnswer::FromCache
        } else if ignored {
            KeyframeAnswer::Unavailable
        } else {
            KeyframeAnswer::FromPublisher
        }
    }

    /// True if a request is to go to the publisher now; repeated until a keyframe comes. `received` payload bytes so far,
    /// and of these `keyframe` bytes of the latest keyframe.
    pub fn poll(&mut self, now: Instant, received: u64, keyframe: u64) -> bool {
        let due = self.last_request.is_none_or(|last| {
            let passed = now.saturating_duration_since(last.at);
            if self.are_ignored() {
                return passed >= IGNORED_INTERVAL;
            }
            let affordable = received.saturating_sub(last.received) >= COST.saturating_mul(keyframe);
            passed >= self.interval && (affordable || passed >= LONGEST_INTERVAL)
        });
        if !self.pending || !due {
            return false;
        }
        self.last_request = Some(LastRequest { at: now, received });
        self.unanswered += 1;
        true
    }
}

/// Requests that wait for the next tick: those for publishers on other shards, which are told once a tick, however many
/// viewers ask; and those of viewers that have waited for a keyframe for a while.
#[derive(Debug, Default)]
pub struct DeferredRequests {
    encodings: Vec<(StreamId, TrackId, u8)>,
}

impl DeferredRequests {
    /// A viewer of this shard cannot decode an encoding without a keyframe.
    pub fn add(&mut self, stream: StreamId, track: TrackId, encoding: u8) {
        if !self.contains(stream, track, encoding) {
            self.encodings.push((stream, track, encoding));
        }
    }

    /// True if the request waits already.
    pub fn contains(&self, stream: StreamId, track: TrackId, encoding: u8) -> bool {
        self.encodings.contains(&(stream, track, encoding))
    }

    /// Takes all of them.
    pub fn take(&mut self) -> Vec<(StreamId, TrackId, u8)> {
        std::mem::take(&mut self.encodings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A poll while keyframes cost nothing.
    fn poll(requests: &mut KeyframeRequests, now: Instant) -> bool {
        requests.poll(now, 0, 0)
    }

    // RTCP-11
    #[test]
    fn fifty_joins_in_a_second_become_two_requests() {
        let start = Instant::now();
        let mut requests = KeyframeRequests::new(Duration::from_millis(500));
        let mut sent = 0;
        for ms in (0..1000).step_by(20) {
            requests.request();
            if poll(&mut requests, start + Duration::from_millis(ms)) {
                sent += 1;
                requests.on_keyframe();
            }
        }
        assert_eq!(sent, 2);
    }

    #[test]
    fn requests_are_repeated_until_a_keyframe_comes_and_then_stop() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut requests = KeyframeRequests::new(Duration::from_millis(500));
        assert!(!poll(&mut requests, start));
        requests.request();
        assert!(poll(&mut requests, start));
        assert!(!poll(&mut requests, at(499)));
        assert!(poll(&mut requests, at(500)));
        requests.on_keyframe();
        assert!(!poll(&mut requests, at(5_000)));
    }

    // RTCP-22
    #[test]
    fn a_publisher_that_ignores_requests_gets_few() {
        let start = Instant::now();
        let mut requests = KeyframeRequests::new(Duration::from_millis(500));
        requests.request();
        let sent =
            (0..20_000).step_by(100).filter(|&ms| poll(&mut requests, start + Duration::from_millis(ms))).count();
        assert_eq!(sent, 3 + 3);
    }

    #[test]
    fn requested_keyframes_are_at_most_a_third_of_the_stream() {
        let start = Instant::now();
        // 100 bytes a millisecond; keyframes of 30,000 bytes, then of 100,000.
        for (keyframe, least) in [(30_000, 900), (100_000, 2_000)] {
            let mut requests = KeyframeRequests::new(Duration::from_millis(500));
            let mut sent: Vec<u64> = Vec::new();
            for ms in 0..10_000 {
                requests.request();
                if requests.poll(start + Duration::from_millis(ms), 100 * ms, keyframe) {
                    sent.push(ms);
                    requests.on_keyframe();
                }
            }
            assert_eq!(sent[..2], [0, least], "{keyframe}");
            assert!(sent.windows(2).all(|pair| pair[1] - pair[0] == least));
        }
    }
}
