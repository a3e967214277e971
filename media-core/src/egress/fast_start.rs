//! Fast start: a viewer is sent everything since the cached keyframe at a multiple of real time, until it has caught up with
//! the live stream (COD-17).
//!
//! The timestamps are compressed by the same multiple, so that for the receiver the media comes at its natural pace: what was
//! published over four seconds plays in one, and ends exactly where the live stream is by then. With the original timestamps
//! a receiver would keep the delay.

use std::time::{Duration, Instant};

use crate::rtp::sequence::timestamp_distance;

/// A fast start takes this part of the time since the keyframe …
const SHARE: u32 = 4;
/// … and at least so long, so that it is no burst of many frames at once, and at most so long.
const SHORTEST: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_millis(1500);
/// So long after its end it may be forgotten; timestamps half a circle later would seem to lie before it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How the timestamps of a fast start are compressed: a function of the timestamp alone, so that a packet that is written
/// again is the same (SRTP-09). All values are ticks of the RTP clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compression {
    /// RTP clock in Hz.
    clock_rate: u32,
    /// The timestamp that was live at the start: the first packet gets it.
    live: u32,
    /// From there to where the viewer will have caught up.
    duration: u32,
    /// From the first packet's original timestamp to that point.
    span: u32,
}

impl Compression {
    /// Compresses from timestamp `first` on, which was received `age` ago, while `live` is the present one.
    fn new(clock_rate: u32, first: u32, live: u32, age: Duration) -> Compression {
        let duration = (age / SHARE).clamp(SHORTEST, LONGEST);
        let duration = (duration.as_secs_f64() * f64::from(clock_rate)) as u32;
        // No viewer starts from a keyframe whose timestamp lies ahead of the newest one.
        let lag = timestamp_distance(live, first).max(0) as u32;
        Compression { clock_rate, live, duration, span: lag.saturating_add(duration) }
    }

    /// The viewer's timestamp for one of the stream's.
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        let end = self.end();
        let left = timestamp_distance(end, timestamp);
        if left <= 0 {
            return timestamp;
        }
        end.wrapping_sub((u64::from(left as u32) * u64::from(self.duration) / u64::from(self.span.max(1))) as u32)
    }

    /// True for timestamps long after its end.
    pub(super) fn is_over(&self, timestamp: u32) -> bool {
        let forgotten = (FORGOTTEN.as_secs() as u32).saturating_mul(self.clock_rate);
        timestamp_distance(timestamp, self.end()) > forgotten as i32
    }

    fn end(&self) -> u32 {
        self.live.wrapping_add(self.duration)
    }
}

/// The pace of a fast start.
#[derive(Clone, Copy, Debug)]
pub(super) struct FastStart {
    started: Instant,
    pub(super) compression: Compression,
    caught_up: bool,
}

impl FastStart {
    /// Starts at timestamp `first`, which was received `age` ago, while `live` is the present one.
    pub(super) fn new(now: Instant, clock_rate: u32, first: u32, live: u32, age: Duration) -> FastStart {
        FastStart { started: now, compression: Compression::new(clock_rate, first, live, age), caught_up: false }
    }

    /// The viewer was sent everything in the cache: from now on it is sent everything at once.
    pub(super) fn catch_up(&mut self) {
        self.caught_up = true;
    }

    /// When the packet with this timestamp of the stream is to be sent; `None` once the viewer has caught up. What comes after
    /// the end is due at the end: if the newest packet was late, as before a burst, all that follows is earlier than its
    /// timestamp says, and a viewer that held it back until then would do so for good.
    pub(super) fn due(&self, timestamp: u32) -> Option<Instant> {
        let Compression { clock_rate, live, duration, .. } = self.compression;
        let ticks = timestamp_distance(self.compression.timestamp(timestamp), live).clamp(0, duration as i32);
        let wait = Duration::from_secs_f64(f64::from(ticks) / f64::from(clock_rate.max(1)));
        (!self.caught_up).then(|| self.started + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 90_000;

    fn is_due(start: &FastStart, now: Instant, timestamp: u32) -> bool {
        start.due(timestamp).is_none_or(|due| due <= now)
    }

    #[test]
    fn four_seconds_play_in_one_and_end_where_the_live_stream_is() {
        let now = Instant::now();
        // Over the wrap of the timestamps.
        let first = u32::MAX - 2 * RATE;
        let live = first.wrapping_add(4 * RATE);
        let start = FastStart::new(now, RATE, first, live, Duration::from_secs(4));
        assert_eq!(start.compression.timestamp(first), live);
        assert_eq!(start.compression.timestamp(live.wrapping_add(RATE)), live.wrapping_add(RATE));
        assert_eq!(start.compression.timestamp(live.wrapping_add(3 * RATE)), live.wrapping_add(3 * RATE));
        let (mut last, mut frames) = (live, 0);
        for frame in 1..=150 {
            let timestamp = start.compression.timestamp(first.wrapping_add(frame * RATE / 30));
            let step = timestamp_distance(timestamp, last);
            assert!((599..=601).contains(&step), "{step}");
            (last, frames) = (timestamp, frames + 1);
        }
        assert_eq!(frames, 150);
        assert_eq!(last, live.wrapping_add(RATE));
    }

    #[test]
    fn packets_are_due_at_the_pace_of_their_new_timestamps() {
        let now = Instant::now();
        let start = FastStart::new(now, RATE, 0, 4 * RATE, Duration::from_secs(4));
        assert!(is_due(&start, now, 0));
        assert!(!is_due(&start, now, 3_000));
        assert!(is_due(&start, now + Duration::from_millis(7), 3_000));
        assert!(!is_due(&start, now + Duration::from_millis(990), 5 * RATE));
        assert!(is_due(&start, now + Duration::from_millis(1_001), 5 * RATE));
        let mut start = start;
        start.catch_up();
        assert!(is_due(&start, now, 5 * RATE));
    }

    #[test]
    fn a_keyframe_of_this_moment_is_live_at_once() {
        let now = Instant::now();
        let start = FastStart::new(now, RATE, 500, 500, Duration::ZERO);
        assert_eq!(start.compression.timestamp(500), 500);
        assert!(is_due(&start, now, 500));
        assert!(!start.compression.is_over(500 + 59 * RATE));
        assert!(start.compression.is_over(500 + 61 * RATE));
    }
}
