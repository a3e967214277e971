//! The loss-based half (draft-ietf-rmcat-gcc-02 §6): a cap that falls by half of the lost fraction while more than 10 %
//! is lost, rises by 8 % a second while less than 2 % is, and otherwise stays.
//!
//! Three things differ from the draft, so that a lossy radio link is not taken for a full one:
//!
//! - There is no cap until the first heavy loss, and none again once it has risen above the delay-based estimate.
//! - It never falls below what demonstrably arrives. Where a policer drops what is too much, that is just what fits.
//! - **Inherent loss**: if fewer packets were sent since a decrease, and hardly fewer were lost than a full path would
//!   explain, the loss does not come from our rate. It is then left out of the account for as long as it stays about
//!   the same, for some minutes at most.
//!
//! **Overload**: a queue that drops its tail and is full loses what is too much in every window, and its delay no longer
//! grows. Where two windows in a row lose more than a quarter, the cap falls at once to what arrives (libwebrtc bounds its
//! loss-based estimate at once under heavy loss, too). A burst of loss is over by the second window.
//!
//! Hence up to 20 % of random loss without growing delay leaves a sender that follows the estimate three quarters of the
//! path, and half of it at worst. To one that cannot follow, it leaves what arrives: such a path cannot be told from a
//! policer's.

use std::time::{Duration, Instant};

/// More than this falls.
const HIGH: f64 = 0.10;
/// Less than this rises.
const LOW: f64 = 0.02;
/// Factor a second of the rise.
const INCREASE: f64 = 1.08;
/// A cap so far above the delay-based estimate is none.
const RELEASE: f64 = 1.2;
/// Loss is counted in windows of at least this length …
const WINDOW: Duration = Duration::from_millis(250);
/// … with at least so many packets; the decision looks at …
const MIN_PACKETS: u32 = 10;
/// … so many windows.
const WINDOWS: usize = 4;
/// Packets that a decision to fall needs.
const MIN_DECISION_PACKETS: u32 = 20;
/// A decision to fall shows its effect after a round trip and this time; there is no other one before.
const EFFECT: Duration = Duration::from_millis(1_500);
/// Seconds after a decrease in which the loss is compared with that before it.
const MAX_EVIDENCE: f64 = 60.0;
/// The least difference in loss by which full paths and lossy ones can be told apart …
const MIN_DIFFERENCE: f64 = 0.03;
/// … and the part of it that is left on a lossy one at least. It is small, as loss comes in lumps: before a decrease
/// there was rather more of it than usual.
const SHARE: f64 = 0.3;
/// Most loss that can be inherent.
const MAX_INHERENT: f64 = 0.3;
/// Inherent loss follows the loss below what was found with this time constant, in seconds …
const INHERENT_TRACKING: f64 = 10.0;
/// … and what was found is forgotten by a factor of e in this time, in seconds.
const INHERENT_MEMORY: f64 = 120.0;

/// A window that loses more than this, besides inherent loss, is one of overload; …
const OVERLOAD: f64 = 0.25;
/// … so many in a row bound the cap to what arrives.
const OVERLOAD_WINDOWS: u8 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Below 0 where packets of an earlier window were recovered.
    lost: i32,
    expected: u32,
    seconds: f64,
}

impl Window {
    fn add(&mut self, other: &Window) {
        self.lost += other.lost;
        self.expected += other.expected;
        self.seconds += other.seconds;
    }

    fn fraction(&self) -> f64 {
        (f64::from(self.lost) / f64::from(self.expected.max(1))).clamp(0.0, 1.0)
    }

    /// Standard deviation of the fraction by chance.
    fn deviation(&self) -> f64 {
        (self.fraction() * (1.0 - self.fraction()) / f64::from(self.expected.max(1))).sqrt()
    }

    fn packets_per_second(&self) -> f64 {
        f64::from(self.expected) / self.seconds.max(0.001)
    }
}

/// The state of things when the cap fell, and since.
#[derive(Clone, Copy, Debug)]
struct Decrease {
    at: Instant,
    packets_per_second: f64,
    fraction: f64,
    deviation: f64,
    after: Window,
}

/// What one report newly says about packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PacketCounts {
    /// Newly reported packets, received or lost.
    pub(super) expected: u32,
    /// Lost ones among them.
    pub(super) lost: u32,
    /// Packets received after an earlier report had called them lost.
    pub(super) recovered: u32,
}

/// What the loss is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    /// Present estimate, bits per second.
    pub(super) estimate: f64,
    /// Delay-based estimate, bits per second.
    pub(super) delay_based: f64,
    /// What arrives, bits per second; 0 if unknown.
    pub(super) delivered: f64,
    /// There was over-use lately: loss is then no property of the link.
    pub(super) congested: bool,
    pub(super) round_trip: Duration,
}

/// The loss-based cap.
#[derive(Clone, Debug)]
pub(super) struct LossBased {
    cap: Option<f64>,
    current: Window,
    began: Option<Instant>,
    windows: [Window; WINDOWS],
    /// The last whole window, whatever was decided.
    newest: Window,
    /// The last windows in a row that were of overload, as one, and how many.
    overload: (Window, u8),
    /// Lost fraction of about the last second, inherent loss included.
    fraction: f64,
    inherent: f64,
    /// Inherent loss as it was found.
    found: f64,
    decreased: Option<Instant>,
    /// The decrease whose effect is not known yet.
    decrease: Option<Decrease>,
}

impl LossBased {
    pub(super) fn new() -> LossBased {
        LossBased {
            cap: None,
            current: Window::default(),
            began: None,
            windows: [Window::default(); WINDOWS],
            newest: Window::default(),
            overload: (Window::default(), 0),
            fraction: 0.0,
            inherent: 0.0,
            found: 0.0,
            decreased: None,
            decrease: None,
        }
    }

    /// Bits per second.
    pub(super) fn cap(&self) -> Option<f64> {
        self.cap
    }

    /// Lost fraction of about the last second that may come from our rate.
    pub(super) fn excess(&self) -> f64 {
        (self.fraction - self.inherent).max(0.0)
    }

    /// True if much was lost just now, by more than chance, that may come from our rate. Where a queue stands, too, that
    /// is a full one.
    pub(super) fn overflows(&self) -> bool {
        self.newest.fraction() - self.newest.deviation() - self.inherent > HIGH
    }

    /// Counts newly reported packets.
    pub(super) fn on_packets(&mut self, now: Instant, counts: PacketCounts, at: &Conditions) {
        let began = *self.began.get_or_insert(now);
        self.current.lost += counts.lost as i32 - counts.recovered as i32;
        self.current.expected += counts.expected;
        let elapsed = now.saturating_duration_since(began);
        if elapsed < WINDOW || self.current.expected < MIN_PACKETS {
            return;
        }
        self.began = Some(now);
        self.current.seconds = elapsed.as_secs_f64();
        self.windows.rotate_right(1);
        self.windows[0] = std::mem::take(&mut self.current);
        self.newest = self.windows[0];
        self.decide(now, elapsed.as_secs_f64(), at);
    }

    fn decide(&mut self, now: Instant, elapsed: f64, at: &Conditions) {
        let sum = self.sum();
        self.fraction = sum.fraction();
        self.found *= (-elapsed / INHERENT_MEMORY).exp();
        let step = 1.0 - (-elapsed / INHERENT_TRACKING).exp();
        self.inherent += step * (self.fraction.min(self.found) - self.inherent);
        if self.inherent < 0.5 * self.found {
            self.found = self.inherent;
        }
        self.look_for_inherent(now, at);
        if self.is_overload() && at.delivered > 0.0 {
            self.decreased = Some(now);
            self.cap = Some(at.delivered);
            // No path in order loses so much: there is nothing to compare.
            self.decrease = None;
            self.windows = [Window::default(); WINDOWS];
            return;
        }
        let excess = self.excess();
        let effect = at.round_trip + EFFECT;
        let shown = self.decreased.is_none_or(|decreased| now.saturating_duration_since(decreased) >= effect);
        // By chance a window has some more loss than the path.
        if excess - 2.0 * sum.deviation() > HIGH && sum.expected >= MIN_DECISION_PACKETS && shown {
            self.decreased = Some(now);
            let fallen = at.estimate * (1.0 - 0.5 * excess);
            self.cap = Some(fallen.max(at.delivered));
            if !at.congested {
                let fresh = Decrease {
                    at: now,
                    packets_per_second: sum.packets_per_second(),
                    fraction: sum.fraction(),
                    deviation: sum.deviation(),
                    after: Window::default(),
                };
                // Several in a row are compared with the state before the first of them.
                let first = self.decrease.unwrap_or(fresh);
                self.decrease = Some(Decrease { at: now, after: Window::default(), ..first });
            }
            // Every lost packet counts for one decision only.
            self.windows = [Window::default(); WINDOWS];
        } else if excess < LOW
            && let Some(cap) = self.cap
        {
            let risen = cap * INCREASE.powf(elapsed);
            self.cap = Some(risen).filter(|&risen| risen < RELEASE * at.delay_based);
        }
    }

    /// True, once, if each of the last windows lost more than chance or a burst explains.
    fn is_overload(&mut self) -> bool {
        let least = OVERLOAD + self.inherent;
        if self.newest.fraction() <= least {
            self.overload = (Window::default(), 0);
            return false;
        }
        let (sum, windows) = &mut self.overload;
        sum.add(&self.newest);
        *windows = windows.saturating_add(1);
        let is_overload = *windows >= OVERLOAD_WINDOWS && sum.fraction() - 2.0 * sum.deviation() > least;
        if is_overload {
            self.overload = (Window::default(), 0);
        }
        is_overload
    }

    /// The newest windows, about a second of them.
    fn sum(&self) -> Window {
        let mut sum = Window::default();
        for window in &self.windows {
            if sum.seconds >= 1.0 {
                break;
            }
            sum.add(window);
        }
        sum
    }

    /// Compares the loss before a decrease with that of some seconds after it.
    fn look_for_inherent(&mut self, now: Instant, at: &Conditions) {
        let newest = self.windows[0];
        let Some(before) = self.decrease.as_mut().filter(|_| !at.congested) else {
            self.decrease = None;
            return;
        };
        if now.saturating_duration_since(before.at) < at.round_trip + 2 * WINDOW {
            return;
        }
        before.after.add(&newest);
        // If the path carried so many packets and no more, that is what would be lost now.
        let carried = before.packets_per_second * (1.0 - before.fraction);
        let explained = (1.0 - carried / before.after.packets_per_second().max(1.0)).max(0.0);
        let difference = before.fraction - explained;
        let (after, spread) = (before.after.fraction(), 2.0 * before.after.deviation().hypot(before.deviation));
        if difference >= MIN_DIFFERENCE && after - spread > explained + SHARE * difference {
            self.found = after.min(MAX_INHERENT);
            self.inherent = self.found;
            self.decrease = None;
        } else if after + spread < explained + 0.5 * difference || before.after.seconds > MAX_EVIDENCE {
            self.decrease = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(expected: u32, lost: u32, recovered: u32) -> PacketCounts {
        PacketCounts { expected, lost, recovered }
    }

    /// Packets of 10,000 bits by a sender whose rate follows the cap, up to 3 Mbit/s.
    struct Sender {
        loss: LossBased,
        now: Instant,
        rate: f64,
        delivered: f64,
        seed: u32,
    }

    impl Sender {
        fn new() -> Sender {
            Sender { loss: LossBased::new(), now: Instant::now(), rate: 3e6, delivered: 0.0, seed: 7 }
        }

        /// Runs for so many seconds; the lowest rate.
        fn run(&mut self, seconds: u32, follows: bool, lost: impl Fn(f64, f64) -> bool) -> f64 {
            self.steps(seconds * 20, follows, lost)
        }

        /// Runs for so many times 50 ms; the lowest rate.
        fn steps(&mut self, steps: u32, follows: bool, lost: impl Fn(f64, f64) -> bool) -> f64 {
            let mut lowest = self.rate;
            for _ in 0..steps {
                self.now += Duration::from_millis(50);
                let packets = (self.rate / 10_000.0 / 20.0) as u32;
                let mut missing = 0;
                for _ in 0..packets {
                    self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    missing += u32::from(lost(f64::from(self.seed >> 8) / f64::from(1 << 24), self.rate));
                }
                self.delivered += 0.1 * (f64::from(packets - missing) * 200_000.0 - self.delivered);
                let estimate = self.loss.cap().unwrap_or(3e6).min(3e6);
                let conditions = Conditions {
                    estimate,
                    delay_based: 3e6,
                    delivered: self.delivered,
                    congested: false,
                    round_trip: Duration::from_millis(100),
                };
                self.loss.on_packets(self.now, counts(packets, missing, 0), &conditions);
                if follows {
                    self.rate = self.loss.cap().unwrap_or(3e6).min(3e6);
                }
                lowest = lowest.min(self.rate);
            }
            lowest
        }
    }

    #[test]
    fn little_loss_caps_nothing() {
        // RTCP-16
        let mut sender = Sender::new();
        sender.run(60, true, |chance, _| chance < 0.05);
        assert_eq!(sender.loss.cap(), None);
        assert!((sender.loss.fraction - 0.05).abs() < 0.03);
    }

    #[test]
    fn random_loss_is_found_to_be_inherent() {
        // RTCP-16
        for percent in [10.0, 15.0, 20.0] {
            let mut sender = Sender::new();
            let lowest = sender.run(120, true, |chance, _| chance < percent / 100.0);
            assert!(lowest > 2e6, "{percent} %: {lowest}");
        }
    }

    #[test]
    fn a_policer_is_obeyed() {
        // RTCP-16: 1 Mbit/s pass, the rest is dropped without delay.
        let mut sender = Sender::new();
        sender.run(20, true, |chance, rate| chance < 1.0 - 1e6 / rate);
        for _ in 0..20 {
            sender.run(1, true, |chance, rate| chance < 1.0 - 1e6 / rate);
            assert!((0.7e6..1.35e6).contains(&sender.rate), "{}", sender.rate);
        }
        let mut stubborn = Sender::new();
        stubborn.run(20, false, |chance, rate| chance < 1.0 - 1e6 / rate);
        let cap = stubborn.loss.cap().unwrap();
        assert!((0.8e6..1.3e6).contains(&cap), "a sender that cannot follow: {cap}");
    }

    #[test]
    fn a_path_that_loses_half_in_every_window_bounds_the_cap_at_once() {
        // RTCP-16: 1 of 3 Mbit/s pass. The second window is over after half a second and what the 50 ms add.
        let mut sender = Sender::new();
        let passes = |chance: f64, rate: f64| chance < 1.0 - 1e6 / rate;
        sender.delivered = 1e6;
        sender.steps(12, true, passes);
        assert!(sender.loss.cap().is_some_and(|cap| (0.8e6..1.2e6).contains(&cap)), "{:?}", sender.loss.cap());
        sender.run(60, true, |chance, rate| chance < 1.0 - 1e6 / rate);
        assert!((0.7e6..1.35e6).contains(&sender.rate), "it does not fall by itself: {}", sender.rate);
    }

    #[test]
    fn a_burst_of_loss_is_no_overload() {
        // RTCP-16: nothing arrives for 300 ms, all of which one message tells.
        let mut sender = Sender::new();
        sender.run(5, true, |_, _| false);
        sender.steps(1, true, |_, _| false);
        let at = Conditions {
            estimate: 3e6,
            delay_based: 3e6,
            delivered: 0.5e6,
            congested: false,
            round_trip: Duration::from_millis(100),
        };
        sender.now += Duration::from_millis(300);
        sender.loss.on_packets(sender.now, counts(100, 90, 0), &at);
        assert!(sender.loss.overflows());
        let lowest = sender.run(5, true, |_, _| false);
        assert!(lowest > 1.5e6, "{lowest}");
    }

    #[test]
    fn the_cap_rises_and_goes_when_the_loss_has_gone() {
        // RTCP-16
        let mut sender = Sender::new();
        sender.run(5, true, |chance, rate| chance < 1.0 - 1e6 / rate);
        let low = sender.rate;
        sender.run(5, true, |_, _| false);
        assert!((1.35..1.55).contains(&(sender.rate / low)), "{} from {low}", sender.rate);
        sender.run(20, true, |_, _| false);
        assert_eq!(sender.loss.cap(), None);
    }

    #[test]
    fn recovered_packets_are_not_lost() {
        let mut loss = LossBased::new();
        let mut now = Instant::now();
        let at = Conditions {
            estimate: 1e6,
            delay_based: 1e6,
            delivered: 1e6,
            congested: false,
            round_trip: Duration::from_millis(50),
        };
        for _ in 0..100 {
            loss.on_packets(now, counts(40, 20, 0), &at);
            loss.on_packets(now, counts(0, 0, 20), &at);
            now += Duration::from_millis(50);
        }
        assert_eq!(loss.cap(), None);
        assert!(loss.fraction < 0.1, "all but the last ones: {}", loss.fraction);
    }
}
