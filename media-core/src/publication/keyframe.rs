//! When to ask the publisher for a keyframe: the wishes of all viewers as one request (RTCP-11, RTCP-22).

use std::time::{Duration, Instant};

/// Unanswered requests after which the publisher counts as one that ignores them (OBS does).
const PATIENCE: u32 = 3;
/// Interval between requests to such a publisher.
const SLOW_INTERVAL: Duration = Duration::from_secs(5);

/// Merges keyframe wishes.
#[derive(Debug)]
pub struct KeyframeRequester {
    interval: Duration,
    wanted: bool,
    unanswered: u32,
    last_request: Option<Instant>,
}

impl KeyframeRequester {
    /// At most one request in `interval`.
    pub fn new(interval: Duration) -> KeyframeRequester {
        KeyframeRequester { interval, wanted: false, unanswered: 0, last_request: None }
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

    /// Another publisher: nothing is known of its manners.
    pub fn on_publisher(&mut self) {
        self.unanswered = 0;
        self.last_request = None;
    }

    /// True if a request is to go out now; repeated until a keyframe comes.
    pub fn poll(&mut self, now: Instant) -> bool {
        let interval = if self.unanswered >= PATIENCE { SLOW_INTERVAL } else { self.interval };
        let due = self.last_request.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if !self.wanted || !due {
            return false;
        }
        self.last_request = Some(now);
        self.unanswered += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RTCP-11
    #[test]
    fn fifty_joins_in_a_second_become_two_requests() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        let mut sent = 0;
        for ms in (0..1000).step_by(20) {
            requester.want();
            if requester.poll(start + Duration::from_millis(ms)) {
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
        assert!(!requester.poll(start));
        requester.want();
        assert!(requester.poll(start));
        assert!(!requester.poll(at(499)));
        assert!(requester.poll(at(500)));
        requester.on_keyframe();
        assert!(!requester.poll(at(5_000)));
    }

    // RTCP-22
    #[test]
    fn a_publisher_that_ignores_requests_gets_few() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        requester.want();
        let sent = (0..20_000).step_by(100).filter(|&ms| requester.poll(start + Duration::from_millis(ms))).count();
        assert_eq!(sent, 3 + 3);
    }
}
