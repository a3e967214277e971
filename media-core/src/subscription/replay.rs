//! The start of a viewer from the cache: everything since the last keyframe at a multiple of real time, until it has
//! caught up with the live stream (COD-17).
//!
//! The timestamps are drawn together by the same multiple, so that for the receiver the media comes at its natural pace:
//! what was published over four seconds plays in one, and ends exactly where the live stream is by then. A receiver
//! that saw the original timestamps would keep the delay for good.

use std::time::{Duration, Instant};

use crate::rtp::sequence::timestamp_distance;

/// A start takes this part of the time since the keyframe …
const SHARE: u32 = 4;
/// … and at least so long, so that no burst of many frames at once comes out of it, and at most so long.
const SHORTEST: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_millis(1500);
/// Packets that lie further behind the end are in no cache any more; timestamps half a circle later would seem to lie
/// before it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How timestamps of a viewer's first packets are drawn together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    begun: Instant,
    clock_rate: u32,
    /// The timestamp that was live when it began: the first packet gets it.
    live: u32,
    /// Ticks from there to where the viewer will have caught up.
    duration: u32,
    /// Ticks of the original from the first packet to that point.
    span: u32,
    caught_up: bool,
}

impl Replay {
    /// Begins at timestamp `first`, which came `age` ago, while `live` is the newest.
    pub(super) fn new(now: Instant, clock_rate: u32, first: u32, live: u32, age: Duration) -> Replay {
        let duration = (age / SHARE).clamp(SHORTEST, LONGEST);
        let duration = (duration.as_secs_f64() * f64::from(clock_rate)) as u32;
        // A keyframe whose timestamp lies ahead of the newest one would be no keyframe to start from.
        let behind = timestamp_distance(live, first).max(0) as u32;
        Replay { begun: now, clock_rate, live, duration, span: behind + duration, caught_up: false }
    }

    /// The viewer's timestamp for one of the stream's: a function of nothing else, so that a packet made again is the
    /// same (SRTP-09).
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        let end = self.end();
        let left = timestamp_distance(end, timestamp);
        if left <= 0 {
            return timestamp;
        }
        end.wrapping_sub((u64::from(left as u32) * u64::from(self.duration) / u64::from(self.span)) as u32)
    }

    /// The viewer has all that there is: from now on it gets everything as it comes.
    pub(super) fn catch_up(&mut self) {
        self.caught_up = true;
    }

    /// When the packet with this timestamp of the stream is to go out; `None` once the viewer has caught up.
    pub(super) fn due(&self, timestamp: u32) -> Option<Instant> {
        let ticks = timestamp_distance(self.timestamp(timestamp), self.live).max(0);
        let wait = Duration::from_secs_f64(f64::from(ticks) / f64::from(self.clock_rate.max(1)));
        (!self.caught_up).then(|| self.begun + wait)
    }

    /// True once all that is drawn together is long gone.
    pub(super) fn is_over(&self, timestamp: u32) -> bool {
        let forgotten = (FORGOTTEN.as_secs() as u32).saturating_mul(self.clock_rate);
        timestamp_distance(timestamp, self.end()) > forgotten as i32
    }

    fn end(&self) -> u32 {
        self.live.wrapping_add(self.duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 90_000;

    fn is_due(replay: &Replay, now: Instant, timestamp: u32) -> bool {
        replay.due(timestamp).is_none_or(|due| due <= now)
    }

    #[test]
    fn four_seconds_play_in_one_and_end_where_the_live_stream_is() {
        let now = Instant::now();
        // Over the wrap of the timestamps.
        let first = u32::MAX - 2 * RATE;
        let live = first.wrapping_add(4 * RATE);
        let replay = Replay::new(now, RATE, first, live, Duration::from_secs(4));
        assert_eq!(replay.timestamp(first), live);
        assert_eq!(replay.timestamp(live.wrapping_add(RATE)), live.wrapping_add(RATE));
        assert_eq!(replay.timestamp(live.wrapping_add(3 * RATE)), live.wrapping_add(3 * RATE));
        let (mut last, mut frames) = (live, 0);
        for frame in 1..=150 {
            let timestamp = replay.timestamp(first.wrapping_add(frame * RATE / 30));
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
        let replay = Replay::new(now, RATE, 0, 4 * RATE, Duration::from_secs(4));
        assert!(is_due(&replay, now, 0));
        assert!(!is_due(&replay, now, 3_000));
        assert!(is_due(&replay, now + Duration::from_millis(7), 3_000));
        assert!(!is_due(&replay, now + Duration::from_millis(990), 5 * RATE));
        assert!(is_due(&replay, now + Duration::from_millis(1_001), 5 * RATE));
        let mut replay = replay;
        replay.catch_up();
        assert!(is_due(&replay, now, 5 * RATE));
    }

    #[test]
    fn a_keyframe_of_this_moment_is_live_at_once() {
        let now = Instant::now();
        let replay = Replay::new(now, RATE, 500, 500, Duration::ZERO);
        assert_eq!(replay.timestamp(500), 500);
        assert!(is_due(&replay, now, 500));
        assert!(!replay.is_over(500 + 59 * RATE));
        assert!(replay.is_over(500 + 61 * RATE));
    }
}
