//! The rate control of the delay-based half (draft-ietf-rmcat-gcc-02 §5.5): multiplicative increase while the capacity is
//! unknown, additive increase near it, and on over-use a step down to 0.85 of what arrives.
//!
//! Other than an encoder, a forwarding server sends what its publisher sends. Where that is more than the estimate and
//! arrives without over-use, the estimate follows at once; where it is far less, the estimate stops rising (only a
//! probe may lift it further).

use std::time::{Duration, Instant};

use super::delay::Usage;
use super::is_standing;

/// Factor of a decrease (§5.5: beta).
const BETA: f64 = 0.85;
/// Factor a second of the multiplicative increase (§5.5: eta).
const INCREASE: f64 = 1.08;
/// Least increase, bits per second a second.
const MIN_INCREASE: f64 = 4_000.0;
/// Bits of a packet, of which the additive increase adds one every response time.
const PACKET_BITS: f64 = 1_200.0 * 8.0;
/// The detector's part in the response time (§5.5).
const DETECTION_TIME: Duration = Duration::from_millis(100);
/// Without growth of the acknowledged bitrate the estimate rises up to this factor of it …
const UNPROVEN: f64 = 1.5;
/// … and so many bits per second.
const UNPROVEN_MARGIN: f64 = 10_000.0;
/// A queue that is shorter than this, in ms, is soon gone …
const SHORT_QUEUE: f64 = 25.0;
/// … where less than this part of what a probe found is used.
const UNUSED: f64 = 0.5;
/// Up to this factor of it beyond what a probe found to be all.
const BEYOND_PROBED: f64 = 1.15;
/// The acknowledged bitrate counts as capacity when the last over-use is so long ago: until then it may be a queue that
/// drains.
const SETTLED: Duration = Duration::from_secs(1);
/// Weight of a new sample in the capacity (§5.5: an average with 0.95 for the old value).
const CAPACITY_WEIGHT: f64 = 0.05;

/// What arrives at the other end, in bits per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    /// Over half a second.
    pub(super) rate: f64,
    /// Lately.
    pub(super) recent: f64,
    /// How long packets wait at the bottleneck, in ms.
    pub(super) queue: f64,
    /// Application-limited: much less was sent than the estimate, so that the rate is no measure of the bottleneck.
    pub(super) limited: bool,
}

impl Delivered {
    /// A queue has built up that may be draining: its packets say what the bottleneck carries, not what may be sent.
    pub(super) fn is_queued(&self) -> bool {
        is_standing(self.queue)
    }
}

/// The rate at which over-use began, as an average with its relative deviation.
#[derive(Clone, Copy, Debug)]
struct Capacity {
    mean: f64,
    deviation: f64,
}

impl Capacity {
    fn add(&mut self, sample: f64) {
        let error = ((sample - self.mean) / self.mean.max(1.0)).abs();
        self.mean += CAPACITY_WEIGHT * (sample - self.mean);
        self.deviation += CAPACITY_WEIGHT * (error - self.deviation);
    }

    fn spread(&self) -> f64 {
        (3.0 * self.deviation).clamp(0.05, 0.2) * self.mean
    }
}

/// The delay-based estimate.
#[derive(Clone, Debug)]
pub(super) struct RateControl {
    rate: f64,
    min: f64,
    max: f64,
    capacity: Option<Capacity>,
    /// What the last probe found to be all that the path carries.
    probed: Option<f64>,
    increasing: bool,
    changed: Option<Instant>,
    decreased: Option<Instant>,
    overused: Option<Instant>,
}

impl RateControl {
    pub(super) fn new(start: f64, min: f64, max: f64) -> RateControl {
        RateControl {
            rate: start.clamp(min, max),
            min,
            max,
            capacity: None,
            probed: None,
            increasing: false,
            changed: None,
            decreased: None,
            overused: None,
        }
    }

    /// Bits per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// The rate within the limits.
    pub(super) fn clamp(&self, rate: f64) -> f64 {
        rate.clamp(self.min, self.max)
    }

    fn set(&mut self, rate: f64) {
        self.rate = self.clamp(rate);
    }

    /// Sets the rate from a measurement other than the acknowledged bitrate.
    pub(super) fn set_measured(&mut self, now: Instant, rate: f64) {
        self.set(rate);
        self.changed = Some(now);
    }

    /// A probe found this rate, and that the path carries no more (`saturated`) or perhaps does.
    pub(super) fn on_probe(&mut self, now: Instant, rate: f64, saturated: bool, delivered: f64) {
        self.probed = saturated.then_some(rate);
        if rate > self.rate {
            self.set_measured(now, rate);
        } else if saturated && delivered < self.rate {
            // Nothing proves the present estimate.
            self.set_measured(now, rate.max(delivered));
        }
    }

    /// True for a while after over-use.
    pub(super) fn is_unsettled(&self, now: Instant) -> bool {
        self.overused.is_some_and(|at| now.saturating_duration_since(at) < SETTLED)
    }

    /// Takes the detector's signal, at every feedback.
    pub(super) fn update(&mut self, now: Instant, usage: Usage, delivered: Option<Delivered>, round_trip: Duration) {
        match usage {
            Usage::Overuse => {
                self.overused = Some(now);
                self.decrease(now, delivered, round_trip);
            }
            Usage::Underuse => self.increasing = false,
            Usage::Normal if self.increasing => self.increase(now, delivered, round_trip),
            Usage::Normal => self.increasing = true,
        }
        self.changed = Some(now);
    }

    /// A router marked packets: the rate falls by this factor, and no further than over-use would bring it. The next round
    /// trip will tell whether that was enough.
    pub(super) fn on_marks(&mut self, now: Instant, factor: f64, delivered: Option<Delivered>) {
        (self.increasing, self.changed, self.overused) = (false, Some(now), Some(now));
        let least = delivered.map_or(0.0, |delivered| BETA * delivered.recent);
        if let Some(Delivered { recent, limited: false, .. }) = delivered {
            self.learn_capacity(recent);
        }
        self.set((factor * self.rate).max(least.min(self.rate)));
    }

    /// The bottleneck was full while this rate arrived.
    fn learn_capacity(&mut self, recent: f64) {
        match &mut self.capacity {
            Some(capacity) if (recent - capacity.mean).abs() <= capacity.spread() => capacity.add(recent),
            capacity => *capacity = Some(Capacity { mean: recent, deviation: 0.0 }),
        }
    }

    fn decrease(&mut self, now: Instant, delivered: Option<Delivered>, round_trip: Duration) {
        self.increasing = false;
        // A step takes a round trip to show; only if far less arrives than was estimated, the next one comes sooner.
        let pause = round_trip.clamp(Duration::from_millis(10), Duration::from_millis(200));
        let far_off = delivered.is_some_and(|delivered| !delivered.limited && delivered.recent < 0.5 * self.rate);
        if !far_off && self.decreased.is_some_and(|at| now.saturating_duration_since(at) < pause) {
            return;
        }
        self.decreased = Some(now);
        let Some(delivered) = delivered else {
            return self.set(0.5 * self.rate);
        };
        let Delivered { rate, recent, queue, limited } = delivered;
        // A path that was found to carry much more than arrives is not full: a keyframe or a probe was too fast for it.
        if let Some(probed) = self.probed.filter(|&probed| queue < SHORT_QUEUE && rate < UNUSED * probed) {
            return self.set(self.rate.min(probed));
        }
        // Little was sent, and yet there is no queue to speak of: less than what might be sent is all that is known.
        if limited && !delivered.is_queued() {
            return self.set(BETA * self.rate);
        }
        self.learn_capacity(recent);
        self.set((BETA * recent).min(self.rate));
    }

    fn increase(&mut self, now: Instant, delivered: Option<Delivered>, round_trip: Duration) {
        let Some(delivered) = delivered else { return };
        if self.capacity.is_some_and(|capacity| delivered.rate > capacity.mean + capacity.spread()) {
            self.capacity = None;
        }
        let elapsed = self.changed.map_or(Duration::ZERO, |changed| now.saturating_duration_since(changed));
        let elapsed = elapsed.min(Duration::from_secs(1)).as_secs_f64();
        let grown = if self.capacity.is_some() {
            let response = (round_trip + DETECTION_TIME).as_secs_f64();
            self.rate + (PACKET_BITS / response).max(MIN_INCREASE) * elapsed
        } else {
            (self.rate * INCREASE.powf(elapsed)).max(self.rate + MIN_INCREASE * elapsed)
        };
        let mut limit = UNPROVEN * delivered.rate + UNPROVEN_MARGIN;
        if let Some(probed) = self.probed {
            limit = limit.min(probed.max(BEYOND_PROBED * delivered.rate + UNPROVEN_MARGIN));
        }
        let mut rate = grown.min(limit.max(self.rate));
        if !delivered.is_queued() && !self.is_unsettled(now) {
            rate = rate.max(delivered.rate);
        }
        self.set(rate);
    }

    /// Lowers the rate after a long time without feedback.
    pub(super) fn decay(&mut self, factor: f64) {
        self.set(self.rate * factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn delivered(rate: f64) -> Option<Delivered> {
        Some(Delivered { rate, recent: rate, queue: 0.0, limited: false })
    }

    struct Run {
        control: RateControl,
        now: Instant,
    }

    impl Run {
        fn new(start: f64) -> Run {
            Run { control: RateControl::new(start, 30e3, 20e6), now: Instant::now() }
        }

        fn seconds(&mut self, seconds: u32, usage: Usage, delivered: impl Fn(f64) -> Option<Delivered>) -> f64 {
            for _ in 0..seconds * 20 {
                self.now += Duration::from_millis(50);
                self.control.update(self.now, usage, delivered(self.control.rate()), RTT);
            }
            self.control.rate()
        }
    }

    #[test]
    fn far_from_capacity_it_grows_by_eight_percent_a_second() {
        // RTCP-16
        let rate = Run::new(1e6).seconds(10, Usage::Normal, |rate| delivered(0.9 * rate));
        assert!((rate / 1e6 - 1.08f64.powi(10)).abs() < 0.02, "{rate}");
    }

    #[test]
    fn overuse_steps_down_to_what_arrives_and_then_it_grows_by_packets() {
        // RTCP-16
        let mut run = Run::new(2.5e6);
        run.seconds(1, Usage::Normal, |_| delivered(2e6));
        run.now += Duration::from_millis(50);
        run.control.update(run.now, Usage::Overuse, delivered(2e6), RTT);
        assert!((run.control.rate() - 1.7e6).abs() < 1.0, "{}", run.control.rate());
        let rate = run.seconds(5, Usage::Normal, |rate| delivered(0.9 * rate));
        assert!((1.9e6..1.96e6).contains(&rate), "{rate}");
    }

    #[test]
    fn one_step_a_round_trip() {
        let mut run = Run::new(2e6);
        for _ in 0..3 {
            run.now += Duration::from_millis(20);
            run.control.update(run.now, Usage::Overuse, delivered(1.9e6), RTT);
        }
        assert!((run.control.rate() / 1e6 - 1.9 * 0.85).abs() < 0.01);
        run.control.update(run.now, Usage::Overuse, delivered(0.5e6), RTT);
        assert!((run.control.rate() / 1e6 - 0.5 * 0.85).abs() < 0.01, "far off: at once");
    }

    #[test]
    fn overuse_by_little_media_proves_no_more_than_a_step() {
        // RTCP-16
        let mut run = Run::new(2e6);
        let little = Delivered { rate: 64e3, recent: 64e3, queue: 0.0, limited: true };
        run.control.update(run.now, Usage::Overuse, Some(little), RTT);
        assert!((run.control.rate() / 1e6 - 2.0 * 0.85).abs() < 0.01);
        run.now += Duration::from_millis(20);
        run.control.update(run.now, Usage::Overuse, Some(little), RTT);
        assert!((run.control.rate() / 1e6 - 2.0 * 0.85).abs() < 0.01, "one a round trip");
        run.now += Duration::from_millis(100);
        run.control.update(run.now, Usage::Overuse, Some(Delivered { queue: 60.0, ..little }), RTT);
        assert!((run.control.rate() / 64e3 - 0.85).abs() < 0.01, "unless it makes a queue");
    }

    #[test]
    fn little_media_does_not_prove_a_large_estimate_nor_take_it_back() {
        // RTCP-16
        let mut run = Run::new(1e6);
        let rate = run.seconds(60, Usage::Normal, |_| delivered(1e6));
        assert!((rate - 1.51e6).abs() < 1.0, "{rate}");
        assert_eq!(run.seconds(10, Usage::Normal, |_| delivered(0.1e6)), rate);
    }

    #[test]
    fn media_that_arrives_without_overuse_is_its_own_proof() {
        // RTCP-16
        let mut run = Run::new(0.5e6);
        assert!(run.seconds(1, Usage::Normal, |_| delivered(2e6)) >= 2e6);
        run.control.update(run.now, Usage::Overuse, delivered(1e6), RTT);
        run.now += Duration::from_millis(500);
        run.control.update(run.now, Usage::Normal, delivered(1e6), RTT);
        run.control.update(run.now, Usage::Normal, delivered(1e6), RTT);
        assert!(run.control.rate() < 0.9e6, "but not while a queue may be draining");
    }

    #[test]
    fn a_full_path_found_by_a_probe_ends_the_rise_of_unproven_rates() {
        // RTCP-16
        let mut run = Run::new(2.9e6);
        run.seconds(1, Usage::Normal, |_| delivered(2e6));
        run.control.on_probe(run.now, 2.4e6, true, 2e6);
        assert_eq!(run.seconds(20, Usage::Normal, |_| delivered(2e6)), 2.4e6);
        assert!(run.seconds(5, Usage::Normal, |_| delivered(2.4e6)) > 2.5e6, "media near it tries for itself");
        run.control.on_probe(run.now, 5e6, false, 2e6);
        assert_eq!(run.control.rate(), 5e6);
    }

    #[test]
    fn a_burst_on_a_path_that_a_probe_found_to_be_mostly_free_lowers_nothing() {
        // RTCP-16
        let mut run = Run::new(1e6);
        run.control.on_probe(run.now, 0.95e6, true, 0.3e6);
        let burst = Delivered { rate: 0.4e6, recent: 0.65e6, queue: 20.0, limited: false };
        let mut overuse = |delivered| {
            run.now += Duration::from_millis(300);
            run.control.update(run.now, Usage::Overuse, Some(delivered), RTT);
            run.control.rate()
        };
        assert_eq!(overuse(burst), 0.95e6);
        assert!((overuse(Delivered { rate: 0.6e6, ..burst }) - 0.85 * 0.65e6).abs() < 1.0, "unless most of it is used");
        let mut run = Run::new(1e6);
        run.control.on_probe(run.now, 0.95e6, true, 0.3e6);
        run.control.update(run.now, Usage::Overuse, Some(Delivered { queue: 30.0, ..burst }), RTT);
        assert!((run.control.rate() - 0.85 * 0.65e6).abs() < 1.0, "or its queue is a long one");
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut run = Run::new(1e6);
        assert_eq!(run.seconds(100, Usage::Normal, |_| delivered(1e12)), 20e6);
        assert_eq!(run.seconds(100, Usage::Overuse, |_| delivered(0.0)), 30e3);
        assert_eq!(Run::new(1e6).seconds(100, Usage::Overuse, |_| None), 30e3);
    }
}
