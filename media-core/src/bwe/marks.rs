//! ECN marks: a router with L4S marks packets (CE) as soon as a queue of about a millisecond stands, and the sender answers in
//! proportion to how many of them were marked (RFC 9331 §4.3), as DCTCP does (RFC 8257 §3.3): once a round trip in which there
//! were marks, the rate falls by half of the marked part, smoothed.
//!
//! Packets that leave together queue behind each other, and all but the first of them would be marked at any rate. So the mark
//! of the first one, which tells of the queue that they found, counts for all of them.
//!
//! That is all there is to it. Loss and a growing queue are answered as without marks, so that a router that marks by
//! RFC 3168, with a queue as long as others have it, gets no more patience from this sender than without ECN
//! (RFC 9331 §4.3, fall-back).

use std::time::{Duration, Instant};

use crate::ecn::Ecn;

use super::Micros;
use super::history::SentPacket;

/// Weight of the last round trip in the smoothed part (RFC 8257 §3.3: g).
const GAIN: f64 = 1.0 / 16.0;
/// Round trips are taken to last so long at least: feedback comes no more often.
const MIN_ROUND: Duration = Duration::from_millis(25);
/// Packets that leave within so many µs of each other are one burst.
const BURST: i32 = 1_000;
/// After so many packets that were sent as ECT(1) and arrived as something else, and none as it was sent, the path is known to
/// wipe the field out.
const UNMARKED: u32 = 50;

/// What the marks of the packets that arrived say.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// The part of the bytes that were marked, smoothed, 0 to 1.
    part: Option<f64>,
    round: Option<Instant>,
    /// When the last packet left, and whether the first one of its burst was marked.
    burst: Option<(Micros, bool)>,
    /// Bytes that arrived in the present round trip, and the marked ones among them.
    arrived: f64,
    marked: f64,
    /// Packets that arrived as ECT(1) or CE, and others.
    kept: u32,
    lost: u32,
}

impl Marks {
    /// Takes packets that arrived, in the order in which they were sent. Those of probes do not count: they are there to fill the
    /// path.
    pub(super) fn on_packet(&mut self, packet: &SentPacket, ecn: Ecn) {
        match ecn {
            Ecn::Ect1 | Ecn::Ce => self.kept = self.kept.saturating_add(1),
            Ecn::NotEct | Ecn::Ect0 => self.lost = self.lost.saturating_add(1),
        }
        let is_marked = match self.burst {
            Some((last, is_marked)) if packet.sent.since(last) < BURST => is_marked,
            _ => ecn == Ecn::Ce,
        };
        self.burst = Some((packet.sent, is_marked));
        if packet.cluster == 0 {
            self.arrived += f64::from(packet.bytes);
            self.marked += if is_marked { f64::from(packet.bytes) } else { 0.0 };
        }
    }

    /// The factor of the rate, at the end of a round trip in which there were marks.
    pub(super) fn poll(&mut self, now: Instant, round_trip: Duration) -> Option<f64> {
        let began = *self.round.get_or_insert(now);
        if now.saturating_duration_since(began) < round_trip.max(MIN_ROUND) || self.arrived <= 0.0 {
            return None;
        }
        self.round = Some(now);
        let (arrived, marked) = (std::mem::take(&mut self.arrived), std::mem::take(&mut self.marked));
        let fraction = marked / arrived;
        let smoothed = match self.part {
            Some(part) => part + GAIN * (fraction - part),
            None if marked > 0.0 => fraction,
            None => return None,
        };
        self.part = Some(smoothed);
        (marked > 0.0).then_some(1.0 - smoothed / 2.0)
    }

    /// True if the path wipes out that packets were sent as ECT(1): to send them so is of no use.
    pub(super) fn are_wiped_out(&self) -> bool {
        self.kept == 0 && self.lost >= UNMARKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(40);

    /// A sender of 250 packets a second.
    struct Sender {
        marks: Marks,
        start: Instant,
        now: Instant,
    }

    impl Sender {
        fn new() -> Sender {
            let start = Instant::now();
            Sender { marks: Marks::default(), start, now: start }
        }

        fn send(&mut self, ecn: Ecn, cluster: u8) {
            self.now += ROUND_TRIP / 10;
            let packet = SentPacket { sent: Micros::at(self.start, self.now), bytes: 1_000, cluster };
            self.marks.on_packet(&packet, ecn);
        }

        fn poll(&mut self) -> Option<f64> {
            self.marks.poll(self.now, ROUND_TRIP)
        }

        /// So many rounds of ten packets, of which so many are marked; the factor of each.
        fn rounds(&mut self, rounds: usize, marked: usize) -> Vec<Option<f64>> {
            let round = |_| {
                (0..10).for_each(|n| self.send(if n < marked { Ecn::Ce } else { Ecn::Ect1 }, 0));
                self.poll()
            };
            (0..rounds).map(round).collect()
        }
    }

    #[test]
    fn the_rate_falls_by_half_of_the_marked_part_once_a_round_trip() {
        // RTCP-15: RFC 9331 §4.3
        let mut sender = Sender::new();
        assert_eq!(sender.poll(), None);
        assert_eq!(sender.rounds(5, 0), [None; 5]);
        let first = sender.rounds(1, 2)[0].unwrap();
        assert!((first - 0.9).abs() < 1e-9, "{first}");
        sender.send(Ecn::Ce, 0);
        assert_eq!(sender.poll(), None, "once a round trip");
        sender.rounds(1, 0);
        // Steady marking is answered by what it comes to, and rare marks by little.
        let steady = sender.rounds(100, 5).last().unwrap().unwrap();
        assert!((steady - 0.75).abs() < 0.01, "{steady}");
        assert_eq!(sender.rounds(100, 0), [None; 100]);
        let rare = sender.rounds(1, 1)[0].unwrap();
        assert!(rare > 0.99, "{rare}");
    }

    #[test]
    fn marks_of_probes_are_no_reason_to_send_less() {
        // RTCP-15
        let mut sender = Sender::new();
        sender.poll();
        for _ in 0..10 {
            sender.send(Ecn::Ce, 1);
            sender.send(Ecn::Ect1, 0);
        }
        assert_eq!(sender.poll(), None);
    }

    #[test]
    fn packets_that_left_together_count_by_the_first_of_them() {
        // RTCP-15
        for (first, expected) in [(Ecn::Ect1, None), (Ecn::Ce, Some(0.5))] {
            let mut sender = Sender::new();
            sender.poll();
            for _ in 0..10 {
                sender.send(first, 0);
                let packet = SentPacket { sent: Micros::at(sender.start, sender.now), bytes: 1_000, cluster: 0 };
                (0..5).for_each(|n| sender.marks.on_packet(&packet, if n < 4 { Ecn::Ce } else { Ecn::Ect1 }));
            }
            assert_eq!(sender.poll(), expected);
        }
    }

    #[test]
    fn a_path_that_wipes_the_field_out_is_known_by_it() {
        // RTCP-15
        let mut sender = Sender::new();
        for n in 0..UNMARKED {
            assert!(!sender.marks.are_wiped_out(), "after {n}");
            sender.send(Ecn::NotEct, 0);
        }
        assert!(sender.marks.are_wiped_out());
        sender.send(Ecn::Ce, 0);
        assert!(!sender.marks.are_wiped_out(), "packets from before the first one that was sent so prove nothing");
    }
}
