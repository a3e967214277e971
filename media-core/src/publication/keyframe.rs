//! When to ask the publisher for a keyframe: the wishes of all viewers as one request (RTCP-11, RTCP-22).

use std::time::{Duration, Instant};

/// Unanswered requests after which the publisher counts as one that ignores them (OBS does).
const PATIENCE: u32 = 3;
/// Interval between requests to such a publisher.
const SLOW_INTERVAL: Duration = Duration::from_secs(5);

/// After a request the stream is to bring this many times the bytes of a keyframe before the next one: keyframes on
/// request shall be no more than a third of it …
const COST: u64 = 3;
/// … but nobody waits longer than this for the next request.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// Merges keyframe wishes.
#[derive(Debug)]
pub struct KeyframeRequester {
    interval: Duration,
    /// The publisher has agreed to be asked.
    can_ask: bool,
    wanted: bool,
    unanswered: u32,
    last_request: Option<Request>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    at: Instant,
    /// Bytes that the stream had brought by then.
    brought: u64,
}

impl KeyframeRequester {
    /// At most one request in `interval`.
    pub fn new(interval: Duration) -> KeyframeRequester {
        KeyframeRequester { interval, can_ask: true, wanted: false, unanswered: 0, last_request: None }
    }

    /// Somebody cannot decode without a keyframe.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// A keyframe came: every wish from before it is fulfilled.
    pub fn on_keyframe(&mut self) {
        self.wanted = false;
        self.unanswered = 0;
    }

    /// Another publisher: nothing is known of its manners but whether it takes requests at all.
    pub fn on_publisher(&mut self, can_ask: bool) {
        self.can_ask = can_ask;
        self.unanswered = 0;
        self.last_request = None;
    }

    /// True if the publisher takes no requests or has left several unanswered: the cache is what viewers have.
    pub fn is_ignored(&self) -> bool {
        !self.can_ask || self.unanswered >= PATIENCE
    }

    /// Learns from the home shard whether the publisher answers.
    pub fn set_ignored(&mut self, ignored: bool) {
        self.unanswered = if ignored { PATIENCE } else { 0 };
    }

    /// True if a request is to go out now; repeated until a keyframe comes. `bytes`: what the stream has brought so far,
    /// and its last keyframe (see [`Track::bytes`](super::Track::bytes)).
    pub fn poll(&mut self, now: Instant, bytes: (u64, u64)) -> bool {
        let (brought, keyframe) = bytes;
        let due = self.last_request.is_none_or(|last| {
            let passed = now.saturating_duration_since(last.at);
            if self.is_ignored() {
                return passed >= SLOW_INTERVAL;
            }
            let affordable = brought - last.brought >= COST * keyframe;
            passed >= self.interval && (affordable || passed >= LONGEST_INTERVAL)
        });
        if !self.wanted || !due {
            return false;
        }
        self.last_request = Some(Request { at: now, brought });
        self.unanswered += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keyframes that cost nothing.
    const CHEAP: (u64, u64) = (0, 0);

    // RTCP-11
    #[test]
    fn fifty_joins_in_a_second_become_two_requests() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        let mut sent = 0;
        for ms in (0..1000).step_by(20) {
            requester.want();
            if requester.poll(start + Duration::from_millis(ms), CHEAP) {
                sent += 1;
                requester.on_keyframe();
            }
        }
        assert_eq!(sent, 2);
    }

    #[test]
    fn requests_are_repeated_until_a_keyframe_comes_and_then_stop() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        assert!(!requester.poll(start, CHEAP));
        requester.want();
        assert!(requester.poll(start, CHEAP));
        assert!(!requester.poll(at(499), CHEAP));
        assert!(requester.poll(at(500), CHEAP));
        requester.on_keyframe();
        assert!(!requester.poll(at(5_000), CHEAP));
    }

    // RTCP-22
    #[test]
    fn a_publisher_that_ignores_requests_gets_few() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        requester.want();
        let sent =
            (0..20_000).step_by(100).filter(|&ms| requester.poll(start + Duration::from_millis(ms), CHEAP)).count();
        assert_eq!(sent, 3 + 3);
    }

    #[test]
    fn requested_keyframes_are_at_most_a_third_of_the_stream() {
        let start = Instant::now();
        // 100 bytes a millisecond; keyframes of 30,000 bytes, then of 100,000.
        for (keyframe, least) in [(30_000, 900), (100_000, 2_000)] {
            let mut requester = KeyframeRequester::new(Duration::from_millis(500));
            let mut sent: Vec<u64> = Vec::new();
            for ms in 0..10_000 {
                requester.want();
                if requester.poll(start + Duration::from_millis(ms), (100 * ms, keyframe)) {
                    sent.push(ms);
                    requester.on_keyframe();
                }
            }
            assert_eq!(sent[..2], [0, least], "{keyframe}");
            assert!(sent.windows(2).all(|pair| pair[1] - pair[0] == least));
        }
    }
}
