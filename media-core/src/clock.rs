//! Wall-clock time of the server, and its relation to RTP timestamps.

use std::time::{Duration, Instant, SystemTime};

/// Turns the monotonic clock into wall-clock time, read once at start, so that a step of the system's clock moves no stream.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    instant: Instant,
    unix: Duration,
}

impl WallClock {
    /// Reads both clocks.
    pub fn now() -> WallClock {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        WallClock { instant: Instant::now(), unix }
    }

    /// Time since the Unix epoch at `instant`.
    pub fn unix(&self, instant: Instant) -> Duration {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.unix + later,
            None => self.unix.saturating_sub(self.instant - instant),
        }
    }

    /// The monotonic time at `unix`, as [`WallClock::unix`] gave it; a time before this host's monotonic clock began is when
    /// both clocks were read.
    pub fn instant(&self, unix: Duration) -> Instant {
        let instant = match unix.checked_sub(self.unix) {
            Some(later) => self.instant.checked_add(later),
            None => self.instant.checked_sub(self.unix - unix),
        };
        instant.unwrap_or(self.instant)
    }
}

/// At `unix` the stream's RTP time line showed `rtp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPoint {
    /// Server wall-clock time since 1970.
    pub unix: Duration,
    /// RTP timestamp on the stream's time line.
    pub rtp: u32,
    /// RTP clock in Hz.
    pub clock_rate: u32,
}

impl ClockPoint {
    /// The RTP timestamp at another time.
    pub fn rtp_at(&self, unix: Duration) -> u32 {
        let ticks = signed_nanos(unix, self.unix) * i128::from(self.clock_rate) / 1_000_000_000;
        self.rtp.wrapping_add(ticks as u32)
    }
}

/// `later - earlier` in nanoseconds.
fn signed_nanos(later: Duration, earlier: Duration) -> i128 {
    later.as_nanos() as i128 - earlier.as_nanos() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn time_before_the_point_maps_backwards() {
        let point = ClockPoint { unix: START, rtp: 100, clock_rate: 90_000 };
        assert_eq!(point.rtp_at(START - Duration::from_secs(1)), 100u32.wrapping_sub(90_000));
    }

    #[test]
    fn monotonic_time_survives_the_way_over_the_wall_clock() {
        let clock = WallClock::now();
        let now = Instant::now();
        for instant in [now, now + Duration::from_nanos(1_234_567_891), now - Duration::from_millis(7)] {
            assert_eq!(clock.instant(clock.unix(instant)), instant);
        }
    }
}
