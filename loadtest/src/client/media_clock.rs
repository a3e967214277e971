//! What is wrong with a publisher's clock, or its uplink: RTP time that runs fast or slow, steps of it, and stalls.

use std::fmt;
use std::time::Duration;

/// Faults of a publisher; by default it has none. Steps and stalls come again and again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockFaults {
    /// RTP time of all tracks runs faster than real time by this share, 0.03 for 3 %; negative: slower.
    pub drift: f64,
    /// RTP time of all tracks steps by so many seconds each time; sequence numbers and SSRCs go on.
    pub step: f64,
    /// For so long the uplink carries nothing each time; then what waited leaves at once.
    pub stall: Duration,
    /// From one step or stall to the next, and from the publisher's begin to the first.
    pub every: Duration,
}

impl Default for ClockFaults {
    fn default() -> ClockFaults {
        ClockFaults { drift: 0.0, step: 0.0, stall: Duration::ZERO, every: Duration::from_secs(5) }
    }
}

impl ClockFaults {
    /// RTP time in seconds after so much media, from 0 on.
    pub(super) fn rtp_time(&self, passed: Duration) -> f64 {
        passed.as_secs_f64() * (1.0 + self.drift) + self.step * f64::from(self.times(passed))
    }

    /// When the stall ends, if there is one so long after the begin.
    pub(super) fn stalled_until(&self, passed: Duration) -> Option<Duration> {
        let begun = self.every * self.times(passed);
        (!begun.is_zero() && passed < begun + self.stall).then_some(begun + self.stall)
    }

    /// Steps and stalls that have begun by then.
    fn times(&self, passed: Duration) -> u32 {
        (passed.as_nanos() / self.every.as_nanos().max(1)).try_into().unwrap_or(u32::MAX)
    }
}

impl fmt::Display for ClockFaults {
    /// The faults that there are, comma separated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (drift, step, every) = (self.drift * 100.0, self.step, self.every.as_secs_f64());
        let drift = (drift != 0.0).then(|| format!("RTP time {drift:+.3} % fast"));
        let step = (step != 0.0).then(|| format!("RTP time steps by {step:+} s every {every} s"));
        let stall = self.stall.as_secs_f64();
        let stall = (stall != 0.0).then(|| format!("the uplink stalls for {stall} s every {every} s"));
        let all: Vec<String> = [drift, step, stall].into_iter().flatten().collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_drifts_and_steps_and_an_uplink_stalls_at_its_times() {
        let seconds = Duration::from_secs_f64;
        let none = ClockFaults::default();
        assert_eq!(
            (none.rtp_time(seconds(7.5)), none.stalled_until(seconds(5.1)), none.to_string()),
            (7.5, None, "".into())
        );
        let faults = ClockFaults { drift: 0.5, step: -5.0, stall: seconds(0.2), every: seconds(2.0) };
        assert_eq!(faults.rtp_time(seconds(1.0)), 1.5);
        assert_eq!(faults.rtp_time(seconds(2.0)), 3.0 - 5.0);
        assert_eq!(faults.rtp_time(seconds(4.0)), 6.0 - 10.0);
        for (passed, until) in
            [(0.1, None), (1.99, None), (2.0, Some(2.2)), (2.19, Some(2.2)), (2.2, None), (4.1, Some(4.2))]
        {
            assert_eq!(faults.stalled_until(seconds(passed)), until.map(seconds), "{passed}");
        }
        let text = "RTP time +50.000 % fast, RTP time steps by -5 s every 2 s, the uplink stalls for 0.2 s every 2 s";
        assert_eq!(faults.to_string(), text);
    }
}
