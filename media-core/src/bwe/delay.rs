//! Is the queue at the bottleneck growing? The delay-based half of Google congestion control: draft-ietf-rmcat-gcc-02
//! §5.2 (groups of packets), §5.4 (over-use detector, adaptive threshold), with the trendline that libwebrtc uses in
//! place of the draft's Kalman filter: a line through the smoothed one-way delay over the last 20 groups.
//!
//! A path that pauses for a moment (a radio that scans, a machine that is busy) and then delivers as before has a longer
//! queue, but not a growing one. The delay that a pause adds is therefore left out of the line, and counts for the queue
//! alone.
//!
//! It sees differences of times only: neither the clocks' offset nor a drift of some 1000 ppm matters.

use super::Micros;

/// Packets that left within this time of each other are one group (§5.2), in µs.
const GROUP_SPAN: i32 = 5_000;
/// A longer burst of delayed packets is not one group, in µs.
const MAX_BURST: i32 = 100_000;
/// A step of either clock that no queue explains, in µs.
const MAX_STEP: i32 = 3_000_000;
/// Longest pause of a path, in µs; a longer one is a step of the receiver's clock.
const MAX_PAUSE: i32 = 10_000_000;
/// The path paused if nothing arrived for so long, in µs, …
pub(super) const MIN_PAUSE: i32 = 40_000;
/// … and for so many times the usual spacing: on a slow path packets arrive far apart.
const PAUSE_FACTOR: i32 = 3;
/// Groups that may arrive before their predecessor until the clocks are taken to have jumped.
const MAX_REORDERED: u8 = 3;
/// Groups on the line.
const WINDOW: usize = 20;
/// Weight of the old value in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// The slope is scaled by the number of groups up to this one …
const MAX_DELTAS: u8 = 60;
/// … and by this, so that it compares with the threshold in ms.
const GAIN: f64 = 4.0;
/// Over-use has to last so long, in ms (§5.4).
const OVERUSE_TIME: f64 = 10.0;
const INITIAL_THRESHOLD: f64 = 12.5;
/// Speed of the threshold towards a larger and towards a smaller slope (§5.4: K_u, K_d), per ms.
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// A slope so far above the threshold does not move it.
const MAX_ADAPT: f64 = 15.0;
/// The least delay of the last one to two of these spans is the path without a queue, in µs. Drifting clocks move it by
/// some ms only.
const BASE_SPAN: i32 = 15_000_000;

/// What the delay says of the use of the bottleneck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Usage {
    /// The queue stays as it is.
    #[default]
    Normal,
    /// The queue grows.
    Overuse,
    /// The queue drains.
    Underuse,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: Micros,
    last_sent: Micros,
    first_arrival: Micros,
    last_arrival: Micros,
    /// Delay that pauses of the path added to its packets, in µs.
    paused: i32,
}

impl Group {
    fn new(sent: Micros, arrived: Micros, paused: i32) -> Group {
        Group { first_sent: sent, last_sent: sent, first_arrival: arrived, last_arrival: arrived, paused }
    }

    fn takes(&self, sent: Micros, arrived: Micros) -> bool {
        if sent.since(self.first_sent) <= GROUP_SPAN {
            return true;
        }
        let gap = arrived.since(self.last_arrival);
        // A burst: it was queued with its predecessor and delivered together with it.
        gap <= GROUP_SPAN && gap < sent.since(self.last_sent) && arrived.since(self.first_arrival) < MAX_BURST
    }
}

/// The detector for one path.
#[derive(Clone, Debug)]
pub(super) struct DelayDetector {
    current: Option<Group>,
    previous: Option<Group>,
    /// The packet that arrived last: when it was sent, and its arrival.
    last: Option<(Micros, Micros)>,
    /// Usual time between two arrivals, in µs.
    spacing: i32,
    reordered: u8,
    trend: Trend,
    overuse: Overuse,
}

impl Default for DelayDetector {
    fn default() -> DelayDetector {
        DelayDetector {
            current: None,
            previous: None,
            last: None,
            spacing: 0,
            reordered: 0,
            trend: Trend::default(),
            overuse: Overuse::new(),
        }
    }
}

impl DelayDetector {
    /// The signal for the rate control: over-use once each time that it is detected. While the slope falls, but is still that
    /// of over-use, nothing is to be done but wait; that is `Underuse`.
    pub(super) fn take_signal(&mut self) -> Usage {
        match (std::mem::take(&mut self.overuse.signal), self.overuse.usage) {
            (true, _) => Usage::Overuse,
            (false, Usage::Normal) => Usage::Normal,
            (false, _) => Usage::Underuse,
        }
    }

    /// True while the delay rises: over-use is detected as soon as that has lasted.
    pub(super) fn is_rising(&self) -> bool {
        self.overuse.over.is_some()
    }

    /// How much longer packets wait now than at best in the last half minute, in ms, smoothed.
    pub(super) fn queue(&self) -> f64 {
        (self.trend.smoothed - self.trend.base.previous.min(self.trend.base.current)).max(0.0)
    }

    /// Takes packets in the order in which they were sent; one that was sent before the present group is ignored.
    pub(super) fn on_packet(&mut self, sent: Micros, arrived: Micros) {
        let paused = self.pause(sent, arrived);
        let Some(group) = &mut self.current else {
            self.current = Some(Group::new(sent, arrived, paused));
            return;
        };
        if sent.since(group.first_sent) < 0 {
            return self.restart_after_step(sent, arrived);
        }
        if group.takes(sent, arrived) {
            if sent.since(group.last_sent) > 0 {
                group.last_sent = sent;
            }
            if arrived.since(group.last_arrival) > 0 {
                group.last_arrival = arrived;
            }
            group.paused = group.paused.saturating_add(paused);
            return;
        }
        let group = *group;
        if let Some(previous) = self.previous {
            let (sent_delta, arrival_delta) =
                (group.last_sent.since(previous.last_sent), group.last_arrival.since(previous.last_arrival));
            if sent_delta > MAX_STEP || !(-MAX_STEP..=MAX_PAUSE).contains(&arrival_delta) {
                return self.restart(sent, arrived);
            }
            if arrival_delta < 0 {
                self.reordered += 1;
                if self.reordered >= MAX_REORDERED {
                    return self.restart(sent, arrived);
                }
            } else {
                self.reordered = 0;
                let (sent_ms, arrival_ms) = (f64::from(sent_delta) / 1e3, f64::from(arrival_delta) / 1e3);
                let paused_ms = f64::from(group.paused) / 1e3;
                if let Some(slope) = self.trend.add(group.last_arrival, arrival_ms - sent_ms, paused_ms) {
                    self.overuse.detect(slope, self.trend.deltas, sent_ms, group.last_arrival);
                }
            }
        }
        if self.previous.is_none() {
            self.trend.begin(&group);
        }
        self.previous = Some(group);
        self.current = Some(Group::new(sent, arrived, paused));
    }

    /// The pause of the path before this arrival, beyond the spacing of the packets as sent, in µs; 0 if there was none.
    fn pause(&mut self, sent: Micros, arrived: Micros) -> i32 {
        let Some((last_sent, last_arrived)) = self.last else {
            self.last = Some((sent, arrived));
            return 0;
        };
        let gap = arrived.since(last_arrived);
        if gap < 0 {
            return 0;
        }
        self.last = Some((sent, arrived));
        let held = gap.saturating_sub(sent.since(last_sent).max(0));
        let paused = held >= MIN_PAUSE && held > PAUSE_FACTOR * self.spacing;
        self.spacing += (gap.min(MAX_STEP) - self.spacing) / 8;
        if paused { held.min(MAX_PAUSE) } else { 0 }
    }

    /// A packet from long before the present group means that the sender's clock was reset.
    fn restart_after_step(&mut self, sent: Micros, arrived: Micros) {
        if self.current.is_some_and(|group| sent.since(group.first_sent) < -MAX_STEP) {
            self.restart(sent, arrived);
        }
    }

    fn restart(&mut self, sent: Micros, arrived: Micros) {
        *self = DelayDetector { current: Some(Group::new(sent, arrived, 0)), ..DelayDetector::default() };
    }
}

/// The line through the last groups' delays.
#[derive(Clone, Debug, Default)]
struct Trend {
    points: [(Micros, f32); WINDOW],
    next: u8,
    filled: bool,
    deltas: u8,
    /// Sum of all delay differences, in ms: the delay, from where it began.
    accumulated: f64,
    smoothed: f64,
    /// The same without what pauses of the path added.
    accumulated_unpaused: f64,
    smoothed_unpaused: f64,
    base: Base,
}

/// The least smoothed delay of the present and of the last span, in ms.
#[derive(Clone, Debug, Default)]
struct Base {
    since: Option<Micros>,
    current: f64,
    previous: f64,
}

impl Base {
    fn begin(&mut self, arrival: Micros) {
        *self = Base { since: Some(arrival), current: 0.0, previous: 0.0 };
    }

    fn add(&mut self, arrival: Micros, delay: f64) {
        match self.since {
            Some(since) if (0..BASE_SPAN).contains(&arrival.since(since)) => self.current = self.current.min(delay),
            since => {
                self.previous = if since.is_some() { self.current } else { delay };
                (self.since, self.current) = (Some(arrival), delay);
            }
        }
    }
}

impl Trend {
    /// Begins with the first group. On a slow path a burst at the beginning fills the queue by itself: only its first
    /// packet tells how long packets take without one.
    fn begin(&mut self, group: &Group) {
        let arrival_span = group.last_arrival.since(group.first_arrival).saturating_sub(group.paused);
        let grown = f64::from(arrival_span.saturating_sub(group.last_sent.since(group.first_sent)).max(0)) / 1e3;
        (self.accumulated, self.smoothed) = (grown, grown);
        (self.accumulated_unpaused, self.smoothed_unpaused) = (grown, grown);
        self.base.begin(group.first_arrival);
    }

    /// Adds a group's delay difference in ms, to which pauses added so much; the slope in ms per ms once there are enough
    /// groups.
    fn add(&mut self, arrival: Micros, difference: f64, paused: f64) -> Option<f64> {
        self.deltas = (self.deltas + 1).min(MAX_DELTAS);
        self.accumulated += difference;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        self.base.add(arrival, self.smoothed);
        self.accumulated_unpaused += if difference > 0.0 { (difference - paused).max(0.0) } else { difference };
        self.smoothed_unpaused = SMOOTHING * self.smoothed_unpaused + (1.0 - SMOOTHING) * self.accumulated_unpaused;
        self.points[usize::from(self.next)] = (arrival, self.smoothed_unpaused as f32);
        self.next = (self.next + 1) % WINDOW as u8;
        self.filled |= self.next == 0;
        if !self.filled {
            return None;
        }
        let oldest = self.points[usize::from(self.next)];
        let relative =
            |point: &(Micros, f32)| (f64::from(point.0.since(oldest.0)) / 1e3, f64::from(point.1 - oldest.1));
        let (sum_x, sum_y) = self.points.iter().map(relative).fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
        let (mean_x, mean_y) = (sum_x / WINDOW as f64, sum_y / WINDOW as f64);
        let (numerator, denominator) = self
            .points
            .iter()
            .map(relative)
            .fold((0.0, 0.0), |(n, d), (x, y)| (n + (x - mean_x) * (y - mean_y), d + (x - mean_x) * (x - mean_x)));
        (denominator > 0.0).then(|| numerator / denominator)
    }
}

/// Compares the slope with the threshold that adapts to it (§5.4).
#[derive(Clone, Debug)]
struct Overuse {
    usage: Usage,
    threshold: f64,
    adapted: Option<Micros>,
    last_slope: f64,
    /// How long the slope has been above the threshold, in ms of the sender.
    over: Option<f64>,
    count: u32,
    /// Over-use was detected since the last time that somebody asked.
    signal: bool,
}

impl Overuse {
    fn new() -> Overuse {
        Overuse {
            usage: Usage::Normal,
            threshold: INITIAL_THRESHOLD,
            adapted: None,
            last_slope: 0.0,
            over: None,
            count: 0,
            signal: false,
        }
    }

    fn detect(&mut self, slope: f64, deltas: u8, sent_ms: f64, arrival: Micros) {
        let scaled = f64::from(deltas) * slope * GAIN;
        if scaled > self.threshold {
            let over = self.over.map_or(sent_ms / 2.0, |over| over + sent_ms);
            self.over = Some(over);
            self.count += 1;
            if over > OVERUSE_TIME && self.count > 1 && slope >= self.last_slope {
                (self.usage, self.signal) = (Usage::Overuse, true);
                (self.over, self.count) = (Some(0.0), 0);
            }
        } else {
            self.usage = if scaled < -self.threshold { Usage::Underuse } else { Usage::Normal };
            (self.over, self.count, self.signal) = (None, 0, false);
        }
        self.last_slope = slope;
        self.adapt(scaled.abs(), arrival);
    }

    fn adapt(&mut self, scaled: f64, arrival: Micros) {
        let elapsed = self.adapted.map_or(0, |adapted| arrival.since(adapted)).clamp(0, 100_000);
        self.adapted = Some(arrival);
        if scaled > self.threshold + MAX_ADAPT {
            return;
        }
        let speed = if scaled < self.threshold { THRESHOLD_DOWN } else { THRESHOLD_UP };
        let moved = self.threshold + (speed * f64::from(elapsed) / 1e3).min(1.0) * (scaled - self.threshold);
        self.threshold = moved.clamp(6.0, 600.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 packets, one every 10 ms; `delay` in µs by packet. The usages that occurred.
    fn run(delay: impl Fn(u32) -> i64) -> Vec<Usage> {
        let mut detector = DelayDetector::default();
        let mut seen = vec![];
        for n in 0..1_000u32 {
            let sent = n * 10_000;
            detector.on_packet(Micros(sent), Micros((i64::from(sent) + 70_000_000 + delay(n)) as u32));
            if !seen.contains(&detector.overuse.usage) {
                seen.push(detector.overuse.usage);
            }
        }
        seen
    }

    #[test]
    fn a_constant_delay_is_normal_use() {
        assert_eq!(run(|_| 50_000), [Usage::Normal]);
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_underuse() {
        assert_eq!(
            run(|n| if n < 500 { i64::from(n) * 1_000 } else { i64::from(1_000 - n) * 1_000 }),
            [Usage::Normal, Usage::Overuse, Usage::Underuse]
        );
    }

    /// A queue that grows for half a second to 250 ms, then drains as fast: the signals by packets, and the highest
    /// threshold.
    fn burst() -> (DelayDetector, Vec<Usage>, f64) {
        let (mut detector, mut threshold) = (DelayDetector::default(), 0.0f64);
        let signals = (0..300u32).map(|n| {
            let delay =
                [0, n.saturating_sub(100), 200u32.saturating_sub(n)][usize::from(n > 100) + usize::from(n > 150)];
            detector.on_packet(Micros(n * 10_000), Micros(n * 10_000 + delay * 5_000));
            threshold = threshold.max(detector.overuse.threshold);
            detector.take_signal()
        });
        let signals = signals.collect();
        (detector, signals, threshold)
    }

    #[test]
    fn overuse_is_acted_upon_while_the_queue_grows_and_not_while_it_drains() {
        let (detector, signals, _) = burst();
        assert!(signals[100..152].contains(&Usage::Overuse));
        assert!(!signals[155..].contains(&Usage::Overuse));
        assert!(signals[155..165].iter().all(|&signal| signal == Usage::Underuse), "but nothing rises either");
        assert!(detector.queue() < 1.0);
    }

    #[test]
    fn a_queue_that_a_burst_at_the_beginning_fills_is_seen_for_what_it_is() {
        // 12 packets at once, 20 ms each at the bottleneck, then one every 20 ms: the delay stays as it is.
        let mut detector = DelayDetector::default();
        for n in 0..12 {
            detector.on_packet(Micros(0), Micros(50_000 + n * 20_000));
        }
        for n in 1..100 {
            detector.on_packet(Micros(n * 20_000), Micros(50_000 + 11 * 20_000 + n * 20_000));
        }
        assert!((detector.queue() - 220.0).abs() < 1.0, "{}", detector.queue());
        assert_eq!(detector.overuse.usage, Usage::Normal, "the slope tells nothing");
    }

    #[test]
    fn a_steep_slope_does_not_blunt_the_detector() {
        let (.., threshold) = burst();
        assert!(threshold < 20.0, "{threshold}");
    }

    /// Feeds packets that leave every `step` µs and take `service` µs each at the bottleneck, which pauses for
    /// `pause` µs at the 500th of 1000; was there over-use from that one on?
    fn overuses_after_a_pause(step: u32, service: u32, pause: u32) -> bool {
        let (mut detector, mut free_at, mut overuse) = (DelayDetector::default(), 0, false);
        for n in 0..1_000u32 {
            let sent = n * step;
            free_at = sent.max(free_at) + service + if n == 500 { pause } else { 0 };
            detector.on_packet(Micros(sent), Micros(free_at));
            overuse |= n >= 500 && detector.take_signal() == Usage::Overuse;
        }
        overuse
    }

    #[test]
    fn a_path_that_pauses_for_a_moment_is_not_overused() {
        for pause in [50_000, 100_000, 300_000, 1_000_000, 4_000_000] {
            assert!(!overuses_after_a_pause(10_000, 1_000, pause), "{pause} µs, empty");
            assert!(!overuses_after_a_pause(10_000, 9_500, pause), "{pause} µs, full");
        }
        assert!(overuses_after_a_pause(10_000, 10_500, 100_000), "too much is too much, with pauses or without");
        let mut detector = DelayDetector::default();
        for n in 0..200u32 {
            let held = if n < 100 { 0 } else { 100_000 };
            detector.on_packet(Micros(n * 10_000), Micros(n * 10_000 + held));
        }
        assert!((95.0..=100.0).contains(&detector.queue()), "the queue that it leaves is seen: {}", detector.queue());
    }

    #[test]
    fn a_slow_path_is_not_a_paused_one() {
        // 100 kbit/s: a packet takes 96 ms, and three of them come every 250 ms.
        let (mut detector, mut free_at) = (DelayDetector::default(), 0);
        let overuse = (0..90u32).any(|n| {
            let sent = n / 3 * 250_000;
            free_at = sent.max(free_at) + 96_000;
            detector.on_packet(Micros(sent), Micros(free_at));
            detector.take_signal() == Usage::Overuse
        });
        assert!(overuse);
    }

    #[test]
    fn the_queue_is_measured_against_the_best_delay() {
        let mut detector = DelayDetector::default();
        for n in 0..2_000u32 {
            let delay = if n < 1_000 { 30_000 } else { 130_000 };
            detector.on_packet(Micros(n * 10_000), Micros(n * 10_000 + delay));
        }
        assert!((detector.queue() - 100.0).abs() < 1.0, "{}", detector.queue());
        for n in 2_000..6_000u32 {
            detector.on_packet(Micros(n * 10_000), Micros(n * 10_000 + 130_000));
        }
        assert!(detector.queue() < 1.0, "a longer path in the end is no queue: {}", detector.queue());
    }

    #[test]
    fn drifting_clocks_are_not_a_queue() {
        for ppm in [100, -100, 1_000, -1_000] {
            assert_eq!(run(|n| i64::from(n) * 10_000 * ppm / 1_000_000), [Usage::Normal], "{ppm} ppm");
        }
    }

    #[test]
    fn jitter_is_not_a_queue() {
        let noise = |n: u32| i64::from(n.wrapping_mul(2_654_435_761) >> 16) % 5_000;
        assert_eq!(run(noise), [Usage::Normal]);
    }

    #[test]
    fn wild_times_neither_panic_nor_stick() {
        // RTCP-14
        let mut detector = DelayDetector::default();
        let mut seed = 1u32;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            detector.on_packet(Micros(seed.rotate_left(7)), Micros(seed.rotate_left(16)));
            assert!(detector.overuse.threshold.is_finite() && detector.trend.smoothed.is_finite());
        }
        for n in 0..2_000u32 {
            detector.on_packet(Micros(n * 10_000), Micros(n * 10_000));
        }
        assert_eq!(detector.overuse.usage, Usage::Normal);
    }
}
