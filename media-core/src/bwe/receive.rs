//! The receive-side estimate for a publisher that negotiated `goog-remb` but no transport-wide feedback (RTCP-13,
//! draft-alvestrand-rmcat-remb-03): the delay detector over arrival times here, against the send times that packets
//! carry (abs-send-time) or else their RTP timestamps.

use std::time::{Duration, Instant};

use super::acknowledged::{LONG, RateWindow, SHORT};
use super::aimd::{Delivered, RateControl};
use super::delay::{DelayDetector, Usage};
use super::{EstimatorLimits, Micros, drain_factor};

/// A REMB at least so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// At most so often.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// The rate control is updated so often.
const UPDATE_INTERVAL: Duration = Duration::from_millis(50);
/// A fall below this part of the last REMB is reported at once.
const URGENT: f64 = 0.97;
/// Clocks that are followed: SSRCs with RTP timestamps.
const MAX_CLOCKS: usize = 4;
/// Assumed until the caller knows better.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(200);

/// When a packet was sent, by the publisher's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendTime {
    /// The abs-send-time header extension: 24 bits, seconds with 18 bits of fraction.
    Absolute(u32),
    /// The RTP timestamp and its clock rate in Hz. It is the time of the frame and not of the packet: coarser.
    RtpTimestamp {
        /// The header's timestamp.
        timestamp: u32,
        /// Ticks a second; 0 is ignored.
        clock_rate: u32,
    },
}

/// A clock that wraps, continued, in ticks.
#[derive(Clone, Copy, Debug)]
struct Unwrapped {
    last: u32,
    ticks: i64,
}

impl Unwrapped {
    /// `bits` wide.
    fn advance(&mut self, value: u32, bits: u32) -> i64 {
        let shift = 32 - bits;
        let step = (value.wrapping_sub(self.last) << shift) as i32 >> shift;
        self.last = value;
        self.ticks = self.ticks.wrapping_add(i64::from(step));
        self.ticks
    }
}

/// One clock by which the publisher stamps packets.
#[derive(Debug)]
struct SendClock {
    /// `None` for abs-send-time, which all SSRCs share.
    ssrc: Option<u32>,
    ticks: Unwrapped,
    last_packet: Instant,
    delay: DelayDetector,
}

/// The estimate of the path from one publisher. Sans-IO; its memory is fixed.
#[derive(Debug)]
pub struct ReceiveSideEstimator {
    epoch: Instant,
    min: f64,
    incoming: RateWindow,
    clocks: Vec<SendClock>,
    control: RateControl,
    round_trip: Duration,
    /// ms.
    queue: f64,
    updated: Instant,
    last_remb: Option<(Instant, u64)>,
}

impl ReceiveSideEstimator {
    /// Begins at `limits.start`.
    pub fn new(now: Instant, limits: EstimatorLimits) -> ReceiveSideEstimator {
        let min = limits.min.max(1) as f64;
        let max = (limits.max as f64).max(min);
        ReceiveSideEstimator {
            epoch: now,
            incoming: RateWindow::default(),
            clocks: Vec::with_capacity(1),
            control: RateControl::new(limits.start as f64, min, max),
            round_trip: INITIAL_ROUND_TRIP,
            min,
            queue: 0.0,
            updated: now,
            last_remb: None,
        }
    }

    /// Takes an RTP packet of any of the publisher's SSRCs, with the bytes of its datagram. Use abs-send-time for all
    /// packets where it is negotiated; otherwise use video only, as discontinuous transmission makes audio's timestamps jump.
    pub fn on_packet(&mut self, now: Instant, ssrc: u32, bytes: usize, sent: SendTime) {
        let at = Micros::at(self.epoch, now);
        self.incoming.add(at, bytes.min(usize::from(u16::MAX)) as u32);
        let (key, value, bits, rate) = match sent {
            SendTime::Absolute(time) => (None, time & 0xff_ffff, 24, 1 << 18),
            SendTime::RtpTimestamp { timestamp, clock_rate } => (Some(ssrc), timestamp, 32, clock_rate),
        };
        if rate == 0 {
            return;
        }
        let Some(clock) = self.clock(now, key, value) else { return };
        clock.last_packet = now;
        let ticks = clock.ticks.advance(value, bits);
        let micros = i128::from(ticks) * 1_000_000 / i128::from(rate);
        clock.delay.on_packet(Micros(micros as u32), at);
        if now.saturating_duration_since(self.updated) >= UPDATE_INTERVAL {
            self.update(now);
        }
    }

    /// The clock of an SSRC, or the one of abs-send-time; a new one takes the place of those unused for a second.
    fn clock(&mut self, now: Instant, ssrc: Option<u32>, value: u32) -> Option<&mut SendClock> {
        if let Some(index) = self.clocks.iter().position(|clock| clock.ssrc == ssrc) {
            return self.clocks.get_mut(index);
        }
        if self.clocks.len() >= MAX_CLOCKS {
            self.clocks.retain(|clock| now.saturating_duration_since(clock.last_packet) < INTERVAL);
            if self.clocks.len() >= MAX_CLOCKS {
                return None;
            }
        }
        let ticks = Unwrapped { last: value, ticks: 0 };
        self.clocks.push(SendClock { ssrc, ticks, last_packet: now, delay: DelayDetector::default() });
        self.clocks.last_mut()
    }

    fn update(&mut self, now: Instant) {
        self.updated = now;
        // All clocks see the same queue.
        let mut usage = Usage::Normal;
        self.queue = 0.0;
        for clock in &mut self.clocks {
            if now.saturating_duration_since(clock.last_packet) >= INTERVAL {
                continue;
            }
            self.queue = clock.delay.queue().max(self.queue);
            usage = match (usage, clock.delay.take_signal()) {
                (Usage::Overuse, _) | (_, Usage::Overuse) => Usage::Overuse,
                (Usage::Underuse, _) | (_, Usage::Underuse) => Usage::Underuse,
                _ => Usage::Normal,
            };
        }
        let recent = self.incoming.rate(SHORT);
        let delivered = recent.map(|recent| {
            let rate = self.incoming.rate(LONG).unwrap_or(recent);
            Delivered { rate, recent, queue: self.queue, limited: false }
        });
        self.control.update(now, usage, delivered, self.round_trip);
    }

    /// The round-trip time to the publisher, where something shows it.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip.min(Duration::from_secs(10));
    }

    /// Bits per second.
    pub fn estimate(&self) -> u64 {
        (self.control.rate() * drain_factor(self.queue)).max(self.min) as u64
    }

    /// The bitrate of a REMB that is due: every second, and at once (but no more than five times a second) when the
    /// estimate has fallen. `None` before the first packet.
    pub fn poll(&mut self, now: Instant) -> Option<u64> {
        if self.clocks.is_empty() {
            return None;
        }
        let rate = self.estimate();
        let due = self.last_remb.is_none_or(|(at, last)| {
            let since = now.saturating_duration_since(at);
            since >= INTERVAL || (since >= MIN_INTERVAL && (rate as f64) < URGENT * last as f64)
        });
        due.then(|| {
            self.last_remb = Some((now, rate));
            rate
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const LIMITS: EstimatorLimits = EstimatorLimits { start: 1_000_000, min: 50_000, max: 10_000_000 };

    #[derive(Clone, Copy)]
    enum Clock {
        AbsSendTime,
        Rtp,
    }

    /// A publisher of 30 frames a second that follows REMB up to 4 Mbit/s, over a link.
    struct Publisher {
        estimator: ReceiveSideEstimator,
        start: Instant,
        /// µs.
        time: u64,
        free_at: u64,
        rate: u64,
        queue: Vec<(u64, u64, usize)>,
        rembs: Vec<(u64, u64)>,
    }

    impl Publisher {
        fn new() -> Publisher {
            let start = Instant::now();
            Publisher {
                estimator: ReceiveSideEstimator::new(start, LIMITS),
                start,
                time: 0,
                free_at: 0,
                rate: 300_000,
                queue: vec![],
                rembs: vec![],
            }
        }

        fn run(&mut self, seconds: u64, capacity: u64, clock: Clock) {
            let end = self.time + seconds * 1_000_000;
            while self.time < end {
                let packets = (self.rate / 30 / 8).div_ceil(1_000);
                let bytes = self.rate / 30 / 8 / packets;
                for n in 0..packets {
                    // An encoder's own pacer spreads the frame over half its interval.
                    let sent = self.time + n * 16_000 / packets;
                    self.free_at = self.free_at.max(sent) + bytes * 8 * 1_000_000 / capacity;
                    self.queue.push((self.free_at + 20_000, sent, bytes as usize));
                }
                self.time += 33_333;
                while self.queue.first().is_some_and(|&(arrival, ..)| arrival <= self.time) {
                    let (arrival, sent, bytes) = self.queue.remove(0);
                    // Both clocks begin shortly before they wrap.
                    let stamp = match clock {
                        Clock::AbsSendTime => {
                            SendTime::Absolute((((sent + 62_000_000) << 18) / 1_000_000) as u32 & 0xff_ffff)
                        }
                        Clock::Rtp => {
                            let frame = sent / 33_333 * 33_333;
                            let timestamp = (frame * 9 / 100) as u32;
                            SendTime::RtpTimestamp { timestamp: timestamp.wrapping_sub(90_000), clock_rate: 90_000 }
                        }
                    };
                    let now = self.start + Duration::from_micros(arrival);
                    self.estimator.on_packet(now, 7, bytes, stamp);
                    if let Some(remb) = self.estimator.poll(now) {
                        self.rembs.push((arrival, remb));
                        self.rate = remb.clamp(300_000, 4_000_000);
                    }
                }
            }
        }

        fn queue_delay(&self) -> u64 {
            self.free_at.saturating_sub(self.time) / 1_000
        }
    }

    #[test]
    fn the_estimate_follows_the_link() {
        // RTCP-13
        for clock in [Clock::AbsSendTime, Clock::Rtp] {
            let mut publisher = Publisher::new();
            publisher.run(30, 2_000_000, clock);
            assert!((1_300_000..2_500_000).contains(&publisher.rate), "{}", publisher.rate);
            publisher.run(3, 700_000, clock);
            assert!(publisher.rate < 800_000, "three seconds after the drop: {}", publisher.rate);
            publisher.run(10, 700_000, clock);
            assert!((350_000..900_000).contains(&publisher.rate), "{}", publisher.rate);
            assert!(publisher.queue_delay() < 300, "{} ms", publisher.queue_delay());
        }
    }

    #[test]
    fn a_remb_is_due_every_second_and_sooner_after_a_fall() {
        // RTCP-13
        let mut publisher = Publisher::new();
        publisher.run(10, 100_000_000, Clock::AbsSendTime);
        for pair in publisher.rembs.windows(2) {
            assert!((990_000..1_100_000).contains(&(pair[1].0 - pair[0].0)), "{pair:?}");
        }
        let steady = publisher.rembs.len();
        publisher.run(2, 300_000, Clock::AbsSendTime);
        assert!(publisher.rembs.len() > steady + 2, "{:?}", &publisher.rembs[steady..]);
    }

    #[test]
    fn no_remb_is_due_before_the_first_packet() {
        // RTCP-13
        let now = Instant::now();
        let mut estimator = ReceiveSideEstimator::new(now, LIMITS);
        assert_eq!(estimator.poll(now + Duration::from_secs(5)), None);
        estimator.on_packet(now, 1, 1_000, SendTime::Absolute(0));
        assert_eq!(estimator.poll(now), Some(1_000_000));
        assert_eq!(estimator.poll(now), None);
    }

    #[test]
    fn hostile_stamps_and_ssrcs_are_bounded() {
        // RTCP-13
        let start = Instant::now();
        let mut estimator = ReceiveSideEstimator::new(start, LIMITS);
        let mut random = StdRng::seed_from_u64(1);
        for n in 0..100_000u64 {
            let seed: u32 = random.random();
            let stamp = match seed >> 30 {
                0 => SendTime::Absolute(seed),
                1 => SendTime::RtpTimestamp { timestamp: seed.rotate_left(9), clock_rate: seed & 1 },
                _ => SendTime::RtpTimestamp { timestamp: seed.rotate_left(5), clock_rate: u32::MAX },
            };
            estimator.on_packet(start + Duration::from_millis(n), seed, 65_000, stamp);
            assert!(estimator.clocks.len() <= MAX_CLOCKS);
            assert!((LIMITS.min..=LIMITS.max).contains(&estimator.estimate()));
        }
    }
}
