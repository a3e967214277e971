//! One direction of an impaired link, in the time of its caller.
//!
//! A datagram passes these stations in this order: the queue in front of a bottleneck, the places where it may get lost, the
//! path with its delay, and the place where some are sent twice. What is lost has used the bottleneck before, as on a radio
//! link. The random are seeded: the same datagrams at the same times meet the same fate.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::link_options::{LinkCounts, LinkOptions};

/// What IPv4 and UDP add to a datagram on the link; the rate counts it.
const OVERHEAD: usize = 28;
/// Bytes that one direction holds at most, whatever its delay and rate are.
const MAX_HELD: usize = 8 << 20;
/// One direction of a link.
pub(super) struct Link {
    options: LinkOptions,
    random: StdRng,
    in_burst: bool,
    /// When the bottleneck has sent what is queued.
    busy_until: Option<Instant>,
    /// When the last of those leaves that keep their order.
    last: Option<Instant>,
    /// By time of departure, then of arrival.
    held: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    held_bytes: usize,
    /// Number of the next arrival.
    next: u64,
    /// The highest number that has left.
    highest: u64,
    counts: LinkCounts,
}

impl Link {
    /// An empty link.
    pub(super) fn new(options: LinkOptions, seed: u64) -> Link {
        Link {
            options,
            random: StdRng::seed_from_u64(seed),
            in_burst: false,
            busy_until: None,
            last: None,
            held: BinaryHeap::new(),
            held_bytes: 0,
            next: 0,
            highest: 0,
            counts: LinkCounts::default(),
        }
    }

    /// Changes the link for what comes from now on. What is on its way leaves as planned.
    pub(super) fn set_options(&mut self, options: LinkOptions) {
        self.options = options;
    }

    /// A datagram comes in.
    pub(super) fn push(&mut self, now: Instant, datagram: &[u8]) {
        self.counts.received += 1;
        self.counts.received_bytes += datagram.len() as u64;
        let number = self.next;
        self.next += 1;
        let Some(passed) = self.queue(now, datagram.len() + OVERHEAD) else {
            self.counts.dropped_by_queue += 1;
            return;
        };
        if self.is_lost() {
            return;
        }
        let leave = self.travel(passed);
        let twice = self.chance(self.options.duplicate);
        self.counts.duplicated += u64::from(twice);
        for _ in 0..=u8::from(twice) {
            if self.held_bytes + datagram.len() + OVERHEAD > MAX_HELD {
                self.counts.overflowed += 1;
                return;
            }
            self.held_bytes += datagram.len() + OVERHEAD;
            self.held.push(Reverse((leave, number, datagram.to_vec())));
        }
    }

    /// The next datagram that is to leave by now.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let Reverse((_, number, datagram)) = self.held.pop()?;
        self.held_bytes -= datagram.len() + OVERHEAD;
        self.counts.forwarded += 1;
        self.counts.forwarded_bytes += datagram.len() as u64;
        self.counts.reordered += u64::from(number < self.highest);
        self.highest = self.highest.max(number);
        Some(datagram)
    }

    /// When the next datagram leaves.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse((leave, ..))| *leave)
    }

    /// What was done since the last call.
    pub(super) fn take_counts(&mut self) -> LinkCounts {
        std::mem::take(&mut self.counts)
    }

    /// The bottleneck: when it has sent these bytes, or `None` if the queue in front of it is full.
    fn queue(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let LinkOptions { rate, queue, queue_bytes, .. } = self.options;
        if rate <= 0.0 {
            return Some(now);
        }
        let bytes_per_second = rate * 1000.0 / 8.0;
        let begin = self.busy_until.map_or(now, |busy| busy.max(now));
        let wait = begin - now;
        let full = wait > millis(queue)
            || queue_bytes > 0 && wait.as_secs_f64() * bytes_per_second + bytes as f64 > f64::from(queue_bytes);
        // An idle bottleneck takes everything, be it bigger than the queue.
        if full && !wait.is_zero() {
            return None;
        }
        let wait_us = wait.as_micros() as u64;
        self.counts.queued_us += wait_us;
        self.counts.longest_queue_us = self.counts.longest_queue_us.max(wait_us);
        let passed = begin + Duration::from_secs_f64(bytes as f64 / bytes_per_second);
        self.busy_until = Some(passed);
        Some(passed)
    }

    fn is_lost(&mut self) -> bool {
        let LinkOptions { loss, burst_enter, burst_leave, burst_loss, .. } = self.options;
        self.in_burst = if self.in_burst { !self.chance(burst_leave) } else { self.chance(burst_enter) };
        if self.in_burst && self.chance(burst_loss) {
            self.counts.lost_in_bursts += 1;
            return true;
        }
        let lost = self.chance(loss);
        self.counts.lost += u64::from(lost);
        lost
    }

    /// When a datagram leaves that begins its way now.
    fn travel(&mut self, begin: Instant) -> Instant {
        let LinkOptions { delay, jitter, keep_order, reorder, reorder_delay, .. } = self.options;
        let jitter = if jitter > 0.0 { jitter * self.random.random::<f64>() } else { 0.0 };
        let leave = begin + millis(delay + jitter);
        if self.chance(reorder) {
            // The others do not wait for it.
            return leave + millis(reorder_delay);
        }
        let last = self.last.unwrap_or(leave);
        self.last = Some(last.max(leave));
        if keep_order { last.max(leave) } else { leave }
    }

    fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.random::<f64>() * 100.0 < percent
    }
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// With its headers 1000 bytes: at 8000 kbit/s it takes a millisecond.
    const SIZE: usize = 1000 - OVERHEAD;

    /// A datagram that says its number.
    fn numbered(number: u32) -> Vec<u8> {
        let mut datagram = vec![0; SIZE];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        datagram
    }

    /// Sends so many datagrams, one every `interval`; returns number and time of travel of what comes out, in its order.
    fn run(link: &mut Link, begun: Instant, count: u32, interval: Duration) -> Vec<(u32, Duration)> {
        let mut out = Vec::new();
        let mut drain = |link: &mut Link, until: Option<Instant>| {
            while let Some(due) = link.next_due().filter(|due| until.is_none_or(|until| *due <= until)) {
                assert!(link.poll(due - Duration::from_nanos(1)).is_none(), "nothing leaves early");
                let datagram = link.poll(due).unwrap();
                assert_eq!(datagram.len(), SIZE);
                let number = u32::from_be_bytes(datagram[..4].try_into().unwrap());
                out.push((number, due - (begun + interval * number)));
            }
        };
        for number in 0..count {
            let now = begun + interval * number;
            drain(link, Some(now));
            link.push(now, &numbered(number));
        }
        drain(link, None);
        out
    }

    fn through(options: LinkOptions, count: u32, interval: Duration) -> (Vec<(u32, Duration)>, LinkCounts) {
        let mut link = Link::new(options, 7);
        let out = run(&mut link, Instant::now(), count, interval);
        (out, link.take_counts())
    }

    fn numbers(out: &[(u32, Duration)]) -> Vec<u32> {
        out.iter().map(|(number, _)| *number).collect()
    }

    /// Its standard deviation at the counts below is a tenth of what is allowed, or less.
    fn assert_near(what: &str, value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{what}: {value} instead of {expected}");
    }

    #[test]
    fn a_perfect_link_hands_on_everything_at_once_and_in_order() {
        let (out, counts) = through(LinkOptions::default(), 100, MS);
        assert_eq!(out, (0..100).map(|number| (number, Duration::ZERO)).collect::<Vec<_>>());
        let bytes = 100 * SIZE as u64;
        let expected = LinkCounts {
            received: 100,
            received_bytes: bytes,
            forwarded: 100,
            forwarded_bytes: bytes,
            ..LinkCounts::default()
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn random_losses_are_as_many_as_said_and_independent() {
        let (out, counts) = through(LinkOptions { loss: 5.0, ..LinkOptions::default() }, 100_000, MS);
        assert_eq!(counts.lost + counts.forwarded, 100_000);
        assert_near("share", counts.lost as f64 / 100_000.0, 0.05, 0.007);
        let follow = numbers(&out).windows(2).filter(|pair| pair[1] - pair[0] > 2).count();
        assert_near("losses in a row", follow as f64 / counts.lost as f64, 0.05, 0.03);
        assert_eq!(through(LinkOptions { loss: 100.0, ..LinkOptions::default() }, 100, MS).1.lost, 100);
    }

    #[test]
    fn bursts_have_the_length_and_the_share_of_the_gilbert_elliott_model() {
        let options = LinkOptions { burst_enter: 1.0, burst_leave: 20.0, ..LinkOptions::default() };
        let (out, counts) = through(options, 200_000, MS);
        assert_eq!((counts.lost, counts.lost_in_bursts + counts.forwarded), (0, 200_000));
        assert_near("share", counts.lost_in_bursts as f64 / 200_000.0, 1.0 / 21.0, 0.006);
        let bursts = numbers(&out).windows(2).filter(|pair| pair[1] - pair[0] > 1).count();
        assert_near("length", counts.lost_in_bursts as f64 / bursts as f64, 5.0, 0.6);

        let (_, counts) = through(LinkOptions { burst_loss: 50.0, ..options }, 200_000, MS);
        assert_near("half of it", counts.lost_in_bursts as f64 / 200_000.0, 0.5 / 21.0, 0.005);
    }

    #[test]
    fn delay_is_exact() {
        let (out, _) = through(LinkOptions { delay: 25.5, ..LinkOptions::default() }, 50, MS);
        assert!(out.iter().all(|(_, travelled)| *travelled == Duration::from_micros(25_500)), "{out:?}");
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_keeps_the_order_if_asked_to() {
        let jittery = LinkOptions { delay: 20.0, jitter: 10.0, keep_order: false, ..LinkOptions::default() };
        let (out, counts) = through(jittery, 20_000, MS);
        assert!(out.iter().all(|(_, travelled)| (20 * MS..=30 * MS).contains(travelled)));
        let mean = out.iter().map(|(_, travelled)| travelled.as_secs_f64()).sum::<f64>() / out.len() as f64;
        assert_near("mean", mean, 0.025, 0.0003);
        assert!(counts.reordered > 5000 && !numbers(&out).is_sorted(), "{counts:?}");

        let (out, counts) = through(LinkOptions { keep_order: true, ..jittery }, 20_000, MS);
        assert!(out.iter().all(|(_, travelled)| (20 * MS..=30 * MS).contains(travelled)));
        assert!(counts.reordered == 0 && numbers(&out).is_sorted(), "{counts:?}");
        assert!(out.iter().any(|(_, travelled)| *travelled < 22 * MS) && out.iter().any(|(_, t)| *t > 28 * MS));
    }

    #[test]
    fn a_delayed_datagram_is_overtaken_by_later_ones() {
        let options = LinkOptions { delay: 5.0, reorder: 10.0, reorder_delay: 3.5, ..LinkOptions::default() };
        let (out, counts) = through(options, 10_000, MS);
        let late = out.iter().filter(|(_, travelled)| *travelled == Duration::from_micros(8500)).count();
        assert!(out.iter().all(|(_, travelled)| *travelled == 5 * MS || *travelled == Duration::from_micros(8500)));
        assert_near("share", late as f64 / 10_000.0, 0.1, 0.03);
        // One that is followed by three more of its kind, or ends the run, is overtaken by nobody.
        assert!(counts.reordered <= late as u64 && counts.reordered * 100 >= late as u64 * 98, "{late} {counts:?}");
    }

    #[test]
    fn duplicates_leave_together_with_the_first() {
        let (out, counts) = through(LinkOptions { duplicate: 20.0, delay: 1.0, ..LinkOptions::default() }, 10_000, MS);
        assert_near("share", counts.duplicated as f64 / 10_000.0, 0.2, 0.04);
        assert_eq!((counts.forwarded, counts.reordered), (10_000 + counts.duplicated, 0));
        let twice = out.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!(twice as u64, counts.duplicated);
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_adds_up_their_waits() {
        let (out, counts) = through(LinkOptions { rate: 8000.0, ..LinkOptions::default() }, 10, Duration::ZERO);
        let expected: Vec<_> = (0..10).map(|number| (number, MS * (number + 1))).collect();
        assert_eq!(out, expected);
        assert_eq!((counts.queued_us, counts.longest_queue_us), (45_000, 9000));
        let (out, counts) = through(LinkOptions { rate: 8000.0, ..LinkOptions::default() }, 10, 2 * MS);
        assert!(out.iter().all(|(_, travelled)| *travelled == MS), "an idle bottleneck has no queue");
        assert_eq!(counts.queued_us, 0);
    }

    #[test]
    fn a_queue_bounded_in_time_drops_who_would_wait_longer() {
        let options = LinkOptions { rate: 8000.0, queue: 20.0, ..LinkOptions::default() };
        let (out, counts) = through(options, 4000, MS / 2);
        assert_eq!(counts.dropped_by_queue + counts.forwarded, 4000);
        assert_near("twice the rate: half is dropped", counts.dropped_by_queue as f64, 2000.0, 25.0);
        assert!(counts.longest_queue_us <= 20_000 && counts.longest_queue_us > 19_000, "{counts:?}");
        assert!(out.iter().all(|(_, travelled)| *travelled <= 21 * MS));
        assert!(numbers(&out).is_sorted());
    }

    #[test]
    fn a_queue_bounded_in_bytes_drops_what_has_no_room() {
        let options = LinkOptions { rate: 8000.0, queue_bytes: 4000, ..LinkOptions::default() };
        let (out, counts) = through(options, 100, Duration::ZERO);
        // The bottleneck counts what it is sending as waiting.
        assert_eq!((numbers(&out), counts.dropped_by_queue), (vec![0, 1, 2, 3], 96));
        let tiny = LinkOptions { queue_bytes: 10, ..options };
        let (out, _) = through(tiny, 10, 2 * MS);
        assert_eq!(out.len(), 10, "who need not wait needs no queue");
    }

    #[test]
    fn what_is_lost_after_the_bottleneck_has_used_it() {
        let options = LinkOptions { rate: 8000.0, loss: 50.0, queue: 60_000.0, ..LinkOptions::default() };
        let (out, counts) = through(options, 1000, Duration::ZERO);
        assert!(counts.lost > 400);
        assert!(out.iter().all(|(number, travelled)| *travelled == MS * (number + 1)));
    }

    #[test]
    fn a_change_holds_for_later_datagrams_and_overtakes_nothing() {
        let begun = Instant::now();
        let mut link = Link::new(LinkOptions { delay: 100.0, ..LinkOptions::default() }, 1);
        link.push(begun, &numbered(0));
        link.set_options(LinkOptions { delay: 10.0, ..LinkOptions::default() });
        link.push(begun + MS, &numbered(1));
        assert_eq!(link.next_due(), Some(begun + 100 * MS));
        let out: Vec<u8> = std::iter::from_fn(|| link.poll(begun + 100 * MS)).map(|datagram| datagram[3]).collect();
        assert_eq!(out, [0, 1]);
        link.push(begun + 100 * MS, &numbered(2));
        assert_eq!(link.next_due(), Some(begun + 110 * MS));
        link.set_options(LinkOptions { loss: 100.0, ..LinkOptions::default() });
        link.push(begun + 101 * MS, &numbered(3));
        assert!(link.poll(begun + 110 * MS).is_some() && link.next_due().is_none());
    }

    #[test]
    fn the_seed_alone_decides_the_fate() {
        let options = LinkOptions {
            loss: 5.0,
            burst_enter: 1.0,
            jitter: 10.0,
            keep_order: false,
            reorder: 5.0,
            duplicate: 5.0,
            rate: 16_000.0,
            ..LinkOptions::default()
        };
        let begun = Instant::now();
        let fate = |seed| run(&mut Link::new(options, seed), begun, 2000, MS);
        assert_eq!(fate(1), fate(1));
        assert_ne!(fate(1), fate(2));
    }

    #[test]
    fn a_link_holds_no_more_than_its_bound() {
        let count = (2 * MAX_HELD / 1000) as u32;
        let (out, counts) = through(LinkOptions { delay: 60_000.0, ..LinkOptions::default() }, count, Duration::ZERO);
        assert_eq!(out.len(), MAX_HELD / 1000);
        assert_eq!(counts.overflowed, u64::from(count) - out.len() as u64);
    }
}
