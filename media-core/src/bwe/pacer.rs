//! Pacing towards one viewer (RTCP-17): how much of a keyframe may leave at once, and when the rest may; and a budget
//! for retransmissions.
//!
//! A leaky bucket that is kept as one moment, the one at which everything sent so far has run off. Asking is a
//! comparison; counting is a multiplication. A packet leaves whole whenever there is any budget left, and the debt that
//! it makes is paid off before the next one.

use std::time::{Duration, Instant};

/// Video leaves at this factor of the estimate where the path carries the stream (libwebrtc's pacing factor).
pub const PACING_FACTOR: f64 = 2.5;
/// What may leave at once after a pause, in time of the rate …
const MAX_BURST: Duration = Duration::from_millis(10);
/// … and where a router marks whatever waits: no more than what has to, as paced viewers are looked at so often.
const SMALL_BURST: Duration = Duration::from_millis(5);
/// Debt beyond this is forgiven: a rate that was very low for a moment must not hold media up for long.
const MAX_DEBT: Duration = Duration::from_secs(1);
/// Fractional bits of ns a byte.
const FRACTION_BITS: u32 = 16;

/// The bucket itself: bytes that run off at a rate.
#[derive(Clone, Copy, Debug)]
struct LeakyBucket {
    /// Everything sent so far has run off at this moment.
    empty_at: Instant,
    /// With [`FRACTION_BITS`] of fraction.
    ns_per_byte: u64,
    burst: Duration,
}

impl LeakyBucket {
    fn new(now: Instant, bits_per_second: u64, burst: Duration) -> LeakyBucket {
        let empty_at = now.checked_sub(burst).unwrap_or(now);
        LeakyBucket { empty_at, ns_per_byte: ns_per_byte(bits_per_second), burst }
    }

    /// Debt in bytes stays what it is at another rate.
    fn set_rate(&mut self, now: Instant, bits_per_second: u64) {
        let before = std::mem::replace(&mut self.ns_per_byte, ns_per_byte(bits_per_second));
        let debt = self.empty_at.saturating_duration_since(now);
        if !debt.is_zero() {
            self.empty_at = now + debt.mul_f64(self.ns_per_byte as f64 / before as f64).min(MAX_DEBT);
        }
    }

    #[inline]
    fn has_budget(&self, now: Instant) -> bool {
        self.empty_at < now
    }

    #[inline]
    fn on_sent(&mut self, now: Instant, bytes: usize) {
        // 2^20 bytes at 10^6 ns each with 16 bits of fraction are below 2^64.
        let time = ((bytes.min(1 << 20) as u64) * self.ns_per_byte) >> FRACTION_BITS;
        let from = now.checked_sub(self.burst).map_or(self.empty_at, |earliest| self.empty_at.max(earliest));
        self.empty_at = (from + Duration::from_nanos(time)).min(now + MAX_DEBT);
    }
}

/// From 8 kbit/s to 8 Gbit/s the fraction is exact enough and stays within 64 bits.
fn ns_per_byte(bits_per_second: u64) -> u64 {
    (1_000_000_000 << FRACTION_BITS) / (bits_per_second / 8).clamp(1_000, 1_000_000_000)
}

/// One viewer's pacing of video.
///
/// Video asks for every packet ([`may_send`](Pacer::may_send)) and counts it ([`on_sent`](Pacer::on_sent)), so that no
/// more than 10 ms of the rate and a packet leave at once; audio and padding only count.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    bucket: LeakyBucket,
}

impl Pacer {
    /// Paces at so many bits per second.
    pub fn new(now: Instant, bits_per_second: u64) -> Pacer {
        Pacer { bucket: LeakyBucket::new(now, bits_per_second, MAX_BURST) }
    }

    /// Changes the rate, in bits per second. Costs divisions: not for every packet.
    pub fn set_rate(&mut self, now: Instant, bits_per_second: u64) {
        self.bucket.set_rate(now, bits_per_second);
    }

    /// From now on less may leave at once after a pause.
    pub fn make_smooth(&mut self) {
        self.bucket.burst = SMALL_BURST;
    }

    /// True if a packet of video may leave now.
    #[inline]
    pub fn may_send(&self, now: Instant) -> bool {
        self.bucket.has_budget(now)
    }

    /// Counts what left: video, and audio too, which never waits.
    #[inline]
    pub fn on_sent(&mut self, now: Instant, bytes: usize) {
        self.bucket.on_sent(now, bytes);
    }
}

/// Retransmissions have this part of the estimate, …
const RETRANSMISSIONS: f64 = 0.25;
/// … and at once what that is in so much time.
const RETRANSMISSION_BURST: Duration = Duration::from_millis(500);

/// One viewer's budget for retransmissions: a quarter of the estimate, and half a second of that at once. Even 15 % of
/// loss is repaired within it; a viewer that asks for everything again does not double its rate.
#[derive(Clone, Copy, Debug)]
pub struct RetransmissionBudget {
    bucket: LeakyBucket,
}

impl RetransmissionBudget {
    /// For an estimate in bits per second.
    pub fn new(now: Instant, estimate: u64) -> RetransmissionBudget {
        RetransmissionBudget { bucket: LeakyBucket::new(now, retransmission_rate(estimate), RETRANSMISSION_BURST) }
    }

    /// Follows the estimate in bits per second.
    pub fn set_estimate(&mut self, now: Instant, estimate: u64) {
        self.bucket.set_rate(now, retransmission_rate(estimate));
    }

    /// Takes a packet's bytes; false if the budget is used up. The packet that uses it up may still be sent.
    #[inline]
    pub fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let enough = self.bucket.has_budget(now);
        if enough {
            self.bucket.on_sent(now, bytes);
        }
        enough
    }
}

fn retransmission_rate(estimate: u64) -> u64 {
    (estimate as f64 * RETRANSMISSIONS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: usize = 1_200;

    /// Sends `bytes` of video in packets; what left after every ms.
    fn send(pacer: &mut Pacer, start: Instant, bytes: usize) -> Vec<usize> {
        let (mut left, mut now, mut sent) = (bytes, start, vec![]);
        while left > 0 {
            let mut at_once = 0;
            while left > 0 && pacer.may_send(now) {
                let bytes = PACKET.min(left);
                pacer.on_sent(now, bytes);
                (left, at_once) = (left - bytes, at_once + bytes);
            }
            sent.push(at_once);
            now += MS;
        }
        sent
    }

    /// How long video has to wait, in ms.
    fn wait(pacer: &Pacer, now: Instant) -> u32 {
        (0..).find(|&ms| pacer.may_send(now + ms * MS)).unwrap()
    }

    #[test]
    fn a_keyframe_leaves_at_the_rate() {
        // RTCP-17
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 5_000_000);
        let sent = send(&mut pacer, now, 100_000);
        assert!((148..=152).contains(&sent.len()), "100 kB at 5 Mbit/s, less the burst: {} ms", sent.len());
        let ten_ms = 6_250;
        assert!(sent[0] <= ten_ms + PACKET, "{}", sent[0]);
        for window in sent.windows(10) {
            assert!(window.iter().sum::<usize>() <= 2 * ten_ms + PACKET);
        }
    }

    #[test]
    fn a_debt_is_paid_off() {
        // RTCP-17
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 1_000_000);
        assert!(pacer.may_send(now));
        pacer.on_sent(now, 11_250);
        assert_eq!(wait(&pacer, now), 81, "90 ms at 1 Mbit/s, less the burst");
    }

    #[test]
    fn audio_passes_and_counts() {
        // RTCP-17
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 1_000_000);
        for _ in 0..20 {
            pacer.on_sent(now, 100);
        }
        assert_eq!(wait(&pacer, now), 7, "16 ms of the rate are used");
    }

    #[test]
    fn a_pause_saves_no_more_than_the_burst() {
        // RTCP-17
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 10_000_000);
        pacer.on_sent(now, 1_000);
        let sent = send(&mut pacer, now + Duration::from_secs(3_600), 100_000);
        assert!((12_500..=12_500 + PACKET).contains(&sent[0]), "{}", sent[0]);
    }

    #[test]
    fn debt_in_bytes_outlives_a_change_of_rate() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 1_000_000);
        pacer.on_sent(now, 13_750);
        pacer.set_rate(now, 10_000_000);
        assert_eq!(wait(&pacer, now), 11, "12.5 kB at 10 Mbit/s");
        pacer.set_rate(now, 1);
        assert!(pacer.may_send(now + MAX_DEBT + MS), "bounded");
    }

    #[test]
    fn rates_and_sizes_out_of_range_are_bounded() {
        let now = Instant::now();
        for rate in [0, 1, 10_000_000_000, u64::MAX] {
            let mut pacer = Pacer::new(now, rate);
            pacer.on_sent(now, usize::MAX);
            assert!(pacer.may_send(now + MAX_DEBT + MS));
        }
    }

    #[test]
    fn retransmissions_have_a_quarter_of_the_estimate() {
        // RTCP-17
        let now = Instant::now();
        let mut budget = RetransmissionBudget::new(now, 2_000_000);
        let mut bytes = 0;
        for n in 0..10_000 {
            bytes += if budget.take(now + n * MS, 1_200) { 1_200 } else { 0 };
        }
        let expected = 10 * 62_500 + 31_250;
        assert!((expected - 2_000..expected + 2_000).contains(&bytes), "{bytes}");
    }
}
