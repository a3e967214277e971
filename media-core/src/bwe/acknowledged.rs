//! Bit rates over a sliding window, and the acknowledged bitrate: what demonstrably arrives.

use super::Micros;

/// A bucket is 2^15 µs = 32.8 ms: a power of two, so that bucket numbers go on where the clock wraps.
const BUCKET_BITS: u32 = 15;
const BUCKET: i32 = 1 << BUCKET_BITS;
const BUCKETS: usize = 16;
/// Buckets of the whole window: about half a second, 15 frames.
pub(super) const LONG: usize = BUCKETS;
/// Buckets of the window for fresh figures: about 180 ms.
pub(super) const SHORT: usize = 6;

/// Bytes by time.
#[derive(Clone, Debug, Default)]
pub(super) struct RateWindow {
    buckets: [u32; BUCKETS],
    first: Option<Micros>,
    last: Micros,
    /// There has been traffic for longer than the window.
    full: bool,
}

impl RateWindow {
    /// Moves the window's end to `at`; an earlier moment does nothing. A gap as long as the window empties it.
    #[inline]
    pub(super) fn advance(&mut self, at: Micros) {
        let ahead = bucket(at, self.last);
        if ahead > 0 {
            self.step(at, ahead);
        } else if self.first.is_some() && at.since(self.last) > 0 {
            self.last = at;
        }
    }

    fn step(&mut self, at: Micros, ahead: i32) {
        let Some(first) = self.first else { return };
        if ahead >= BUCKETS as i32 {
            *self = RateWindow::default();
            return;
        }
        for n in 0..ahead as u32 {
            self.buckets[index(at).wrapping_sub(n as usize) % BUCKETS] = 0;
        }
        self.last = at;
        self.full |= at.since(first) > BUCKET * BUCKETS as i32;
    }

    /// Counts bytes; those from before the window are ignored.
    #[inline]
    pub(super) fn add(&mut self, at: Micros, bytes: u32) {
        self.advance(at);
        if self.first.is_none() {
            (self.first, self.last) = (Some(at), at);
        }
        if bucket(at, self.last) > -(BUCKETS as i32) {
            let sum = &mut self.buckets[index(at)];
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Bits per second over the last `buckets` buckets, the present one included. `None` while that is less than half
    /// covered.
    pub(super) fn rate(&self, buckets: usize) -> Option<f64> {
        let whole = (buckets as i32 - 1) * BUCKET + (self.last.0 & (BUCKET as u32 - 1)) as i32;
        let covered = if self.full { whole } else { whole.min(self.last.since(self.first?)) };
        if covered < buckets as i32 * BUCKET / 2 {
            return None;
        }
        let newest = index(self.last);
        let sum: u64 = (0..buckets).map(|n| u64::from(self.buckets[newest.wrapping_sub(n) % BUCKETS])).sum();
        Some(sum as f64 * 8e6 / f64::from(covered))
    }
}

fn index(at: Micros) -> usize {
    (at.0 >> BUCKET_BITS) as usize % BUCKETS
}

/// How many buckets `at` lies ahead of `other`.
fn bucket(at: Micros, other: Micros) -> i32 {
    let difference = (at.0 >> BUCKET_BITS).wrapping_sub(other.0 >> BUCKET_BITS);
    ((difference << BUCKET_BITS) as i32) >> BUCKET_BITS
}

/// The bitrate of packets that feedback reports as received.
#[derive(Clone, Debug, Default)]
pub(super) struct AcknowledgedBitrate {
    arrived: RateWindow,
    sent: RateWindow,
}

impl AcknowledgedBitrate {
    pub(super) fn on_packet(&mut self, sent: Micros, arrived: Micros, bytes: u16) {
        self.arrived.add(arrived, u32::from(bytes));
        self.sent.add(sent, u32::from(bytes));
    }

    /// Bits per second over half a second. Never more than the same packets were sent with, whatever the arrival times
    /// claim: a burst of packets that were queued on the path proves nothing.
    pub(super) fn rate(&self) -> Option<f64> {
        let over = |buckets| Some(self.arrived.rate(buckets)?.min(self.sent.rate(buckets)?));
        over(LONG).or_else(|| over(SHORT))
    }

    /// Bits per second that arrived lately: in over-use, what the bottleneck carries.
    pub(super) fn recent(&self) -> Option<f64> {
        self.arrived.rate(SHORT)
    }

    /// Bits per second that the newest of these packets were sent with.
    pub(super) fn recently_sent(&self) -> Option<f64> {
        self.sent.rate(SHORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate_over_the_clocks_wrap_too() {
        let mut window = RateWindow::default();
        let start = u32::MAX - 2_000_000;
        for n in 0..4_000u32 {
            let at = Micros(start.wrapping_add(n * 1_000));
            window.add(at, 125);
            for (rate, from) in [(window.rate(LONG), 300), (window.rate(SHORT), 150)] {
                assert!(n < from || (rate.unwrap() / 1e6 - 1.0).abs() < 0.02, "{n}: {rate:?}");
            }
        }
        window.advance(Micros(start.wrapping_add(4_250_000)));
        assert!((window.rate(LONG).unwrap() / 1e6 - 0.5).abs() < 0.05);
        window.advance(Micros(start.wrapping_add(10_000_000)));
        assert_eq!(window.rate(LONG), None, "silence empties the window");
    }

    #[test]
    fn a_burst_says_nothing_before_time_passed() {
        let mut window = RateWindow::default();
        window.add(Micros(5), 1_000_000);
        assert_eq!(window.rate(LONG), None);
        window.add(Micros(5), 1_000_000);
        assert_eq!(window.rate(SHORT), None);
    }

    #[test]
    fn packets_from_before_the_window_are_ignored() {
        let mut window = RateWindow::default();
        for n in 0..1_000 {
            window.add(Micros(10_000_000 + n * 1_000), 125);
        }
        let rate = window.rate(LONG);
        window.add(Micros(9_000_000), 1_000_000);
        assert_eq!(window.rate(LONG), rate);
    }

    #[test]
    fn packets_that_arrive_all_at_once_are_not_faster_than_they_were_sent() {
        // RTCP-16
        let mut acknowledged = AcknowledgedBitrate::default();
        for n in 0..1_000u32 {
            acknowledged.on_packet(Micros(n * 1_000), Micros(n * 1_000), 125);
        }
        for n in 1_000..2_000u32 {
            acknowledged.on_packet(Micros(n * 1_000), Micros(1_000_000 + n), 125);
        }
        assert!(acknowledged.rate().unwrap() < 1.1e6);
    }
}
