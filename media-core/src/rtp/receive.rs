//! Receive statistics of one source for its report block: loss and jitter (RFC 3550 A.1, A.3, A.8).

use std::time::Instant;

use crate::rtcp::{NtpTime, ReportBlock, ntp::compact_duration};

/// A jump ahead of this many numbers or more is a restart of the source rather than loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3_000;
/// A number at most this far below the highest is late or a duplicate; one further below is a restart. It is more than
/// the 100 of RFC 3550, as a publisher without RTX retransmits under the original number, a round trip later.
const MAX_MISORDER: u16 = 3_000;

/// Receive statistics of one SSRC. Retransmissions on an RTX SSRC are not fed in: they do not undo a loss (RFC 4588 §6.3).
#[derive(Clone, Debug)]
pub struct ReceiveStats {
    ssrc: u32,
    sequence: Option<Sequence>,
    jitter: Jitter,
    sender_report: Option<(Instant, u32)>,
}

/// Counters that are reset when the source restarts.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    base: u64,
    highest: u64,
    received: u64,
    /// Where the next packet of a restarted source would be.
    restart_at: Option<u16>,
    expected_before: u64,
    received_before: u64,
}

/// The effect of a sequence number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Update {
    Counted,
    /// A jump that the next packet must confirm; not counted.
    Doubtful,
    /// The packet before was the first of new numbers.
    Restarted,
}

#[derive(Clone, Debug, Default)]
struct Jitter {
    origin: Option<Instant>,
    /// Arrival minus timestamp of the last packet, and the clock that both are of.
    transit: Option<(u32, u32)>,
    /// In 1/16 ticks.
    scaled: u64,
}

impl ReceiveStats {
    /// Nothing received yet.
    pub fn new(ssrc: u32) -> ReceiveStats {
        ReceiveStats { ssrc, sequence: None, jitter: Jitter::default(), sender_report: None }
    }

    /// Notes an authenticated packet. `clock_rate` in Hz is that of its payload type. Returns true if it confirms that the
    /// source has restarted its sequence numbers.
    #[inline]
    pub fn on_rtp(&mut self, now: Instant, sequence_number: u16, timestamp: u32, clock_rate: u32) -> bool {
        let update = match &mut self.sequence {
            None => {
                self.sequence = Some(Sequence::new(sequence_number));
                Update::Counted
            }
            Some(sequence) => sequence.update(sequence_number),
        };
        if update != Update::Doubtful {
            self.jitter.update(now, timestamp, clock_rate);
        }
        update == Update::Restarted
    }

    /// Notes a retransmission under the original sequence number: it undoes the loss, but its arrival is no sample of
    /// jitter.
    pub fn on_resent(&mut self, sequence_number: u16) {
        if let Some(sequence) = &mut self.sequence {
            sequence.update(sequence_number);
        }
    }

    /// Notes a sender report of this source, for LSR and DLSR.
    pub fn on_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.sender_report = Some((now, ntp.compact()));
    }

    /// The block for a report that leaves now; the share of loss counts from the call before. `None` before the first
    /// packet.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let (lost, jitter) = (self.packets_lost(), self.jitter());
        let sequence = self.sequence.as_mut()?;
        let (last_sr, delay_since_last_sr) = match self.sender_report {
            // Middle bits of 0 would mean that no report was received: one unit off does no harm.
            Some((at, compact)) => (compact.max(1), compact_duration(now.saturating_duration_since(at))),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: sequence.take_fraction_lost(),
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            // The first cycle is 0 on the wire.
            extended_highest_sequence: (sequence.highest - (1 << 16)) as u32,
            jitter,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// Packets lost since the source (re)started; negative when duplicates outnumber losses.
    pub fn packets_lost(&self) -> i64 {
        self.sequence.map_or(0, |sequence| sequence.expected() as i64 - sequence.received as i64)
    }

    /// Interarrival jitter in ticks.
    pub fn jitter(&self) -> u32 {
        u32::try_from(self.jitter.scaled >> 4).unwrap_or(u32::MAX)
    }
}

impl Sequence {
    fn new(sequence_number: u16) -> Sequence {
        // One cycle up, so that the arithmetic never goes below zero.
        let first = (1 << 16) + u64::from(sequence_number);
        Sequence { base: first, highest: first, received: 1, restart_at: None, expected_before: 0, received_before: 0 }
    }

    fn update(&mut self, sequence_number: u16) -> Update {
        let ahead = sequence_number.wrapping_sub(self.highest as u16);
        if ahead < MAX_DROPOUT {
            self.highest += u64::from(ahead);
        } else if ahead <= u16::MAX - MAX_MISORDER {
            if self.restart_at == Some(sequence_number) {
                *self = Sequence::new(sequence_number);
                return Update::Restarted;
            }
            self.restart_at = Some(sequence_number.wrapping_add(1));
            return Update::Doubtful;
        }
        self.restart_at = None;
        self.received += 1;
        Update::Counted
    }

    fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    fn take_fraction_lost(&mut self) -> u8 {
        let expected = self.expected() - self.expected_before;
        let received = self.received - self.received_before;
        self.expected_before = self.expected();
        self.received_before = self.received;
        let lost = expected.saturating_sub(received);
        // Everything lost would be 256, which has no place in the byte.
        (lost << 8).checked_div(expected).map_or(0, |fraction| fraction.min(255) as u8)
    }
}

impl Jitter {
    fn update(&mut self, now: Instant, timestamp: u32, clock_rate: u32) {
        let since = now.saturating_duration_since(*self.origin.get_or_insert(now));
        let micros = since.as_secs().wrapping_mul(1_000_000).wrapping_add(u64::from(since.subsec_micros()));
        let arrival = (micros.wrapping_mul(u64::from(clock_rate)) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        // Times of two clocks cannot be compared: the packet after the change starts the comparison again.
        if let Some((before, rate)) = self.transit.replace((transit, clock_rate))
            && rate == clock_rate
        {
            let difference = u64::from((transit.wrapping_sub(before) as i32).unsigned_abs());
            self.scaled = self.scaled + difference - ((self.scaled + 8) >> 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: u32 = 90_000;

    /// Feeds numbers with timestamps and arrivals 10 ms apart.
    fn feed(stats: &mut ReceiveStats, start: Instant, numbers: impl IntoIterator<Item = u16>) {
        for (index, number) in numbers.into_iter().enumerate() {
            stats.on_rtp(start + Duration::from_millis(10 * index as u64), number, 900 * index as u32, RATE);
        }
    }

    #[test]
    fn nothing_received_reports_nothing() {
        assert_eq!(ReceiveStats::new(1).report(Instant::now()), None);
    }

    #[test]
    fn a_clean_stream_reports_no_loss_and_no_jitter() {
        // RTCP-03
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, 65_530..=65_535);
        let block = stats.report(now).unwrap();
        assert_eq!((block.ssrc, block.fraction_lost, block.cumulative_lost, block.jitter), (7, 0, 0, 0));
        assert_eq!(block.extended_highest_sequence, 65_535);
        feed(&mut stats, now, [0]);
        assert_eq!(stats.report(now).unwrap().extended_highest_sequence, 65_536);
        assert_eq!(stats.sequence.unwrap().received, 7);
    }

    #[test]
    fn the_share_of_loss_counts_from_the_last_report() {
        // RTCP-03
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, (0..100).filter(|number| number % 4 != 1));
        let block = stats.report(now).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 25));
        feed(&mut stats, now, 100..200);
        let block = stats.report(now).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 25));
        assert_eq!(stats.report(now).unwrap().fraction_lost, 0, "nothing expected since");
    }

    #[test]
    fn late_packets_undo_their_loss_and_duplicates_make_it_negative() {
        // RTCP-03
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, [10, 12, 11, 13, 13, 12]);
        let block = stats.report(now).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, -2));
        assert_eq!(block.extended_highest_sequence, 13);
    }

    #[test]
    fn a_jump_counts_as_a_restart_once_a_second_packet_confirms_it() {
        // RTP-03
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, [100, 101]);
        assert!(!stats.on_rtp(now, 30_000, 0, RATE));
        assert_eq!(stats.report(now).unwrap().extended_highest_sequence, 101);
        assert!(stats.on_rtp(now, 30_001, 0, RATE) && !stats.on_rtp(now, 30_002, 0, RATE));
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, [100, 101, 30_000]);
        feed(&mut stats, now, [102, 40_000, 40_001, 40_002]);
        let block = stats.report(now).unwrap();
        assert_eq!((block.extended_highest_sequence, block.cumulative_lost), (40_002, 0));
    }

    #[test]
    fn packets_sent_again_under_their_old_numbers_are_no_restart() {
        // RTCP-09
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, (0..2_000).filter(|number| ![500, 501].contains(number)).chain([500, 501]));
        let block = stats.report(now).unwrap();
        assert_eq!((block.extended_highest_sequence, block.cumulative_lost), (1_999, 0));
    }

    #[test]
    fn jitter_follows_the_formula_of_the_rfc() {
        // RTCP-03: one packet 16 ms late, 1440 ticks, adds a sixteenth of it; then the return adds again.
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        stats.on_rtp(now, 0, 0, RATE);
        stats.on_rtp(now + Duration::from_millis(36), 1, 1_800, RATE);
        assert_eq!(stats.jitter(), 90);
        stats.on_rtp(now + Duration::from_millis(40), 2, 3_600, RATE);
        assert_eq!(stats.jitter(), 90 + 90 - 6);
    }

    /// RFC 3550 A.1, A.3 and A.8 by sets and real numbers.
    #[derive(Default)]
    struct Reference {
        numbers: Vec<u64>,
        highest_at_report: Option<u64>,
        received_at_report: usize,
        jitter: f64,
        transit: Option<f64>,
    }

    impl Reference {
        fn on_rtp(&mut self, at: Duration, number: u64, timestamp: u32) {
            self.numbers.push(number);
            let transit = at.as_secs_f64() * f64::from(RATE) - f64::from(timestamp);
            if let Some(before) = self.transit.replace(transit) {
                self.jitter += ((transit - before).abs() - self.jitter) / 16.0;
            }
        }

        /// Share of loss, losses, highest number.
        fn report(&mut self) -> (u8, i64, u64) {
            let (first, highest) = (self.numbers[0], *self.numbers.iter().max().unwrap());
            let expected = highest - self.highest_at_report.replace(highest).map_or(first - 1, |before| before);
            let received = self.numbers.len() - std::mem::replace(&mut self.received_at_report, self.numbers.len());
            let lost = expected.saturating_sub(received as u64);
            let all = (highest - first + 1) as i64;
            ((lost * 256).checked_div(expected).unwrap_or(0) as u8, all - self.numbers.len() as i64, highest)
        }
    }

    #[test]
    fn a_lossy_reordered_and_doubled_stream_reports_what_the_rfc_says() {
        // RTCP-03: 4 % lost, 4 % late by up to nine packets, 4 % twice, over a wrap.
        let now = Instant::now();
        let (mut stats, mut reference) = (ReceiveStats::new(7), Reference::default());
        let mut random = 7_u64;
        let mut path: Vec<(u64, u64)> = Vec::new();
        for number in 65_000..75_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (fate, delay) = ((random >> 33) % 100, (random >> 50) % 8);
            let at = number * 10_000 + delay * 1_000;
            match fate {
                0..4 if number > 65_000 => {}
                4..8 => path.push((at + 10_000 * ((random >> 40) % 10), number)),
                8..12 => path.extend([(at, number), (at + 15_000, number)]),
                _ => path.push((at, number)),
            }
        }
        path.sort();
        for (index, &(micros, number)) in path.iter().enumerate() {
            let at = Duration::from_micros(micros - 650_000_000);
            let timestamp = (number - 65_000) as u32 * 900;
            stats.on_rtp(now + at, number as u16, timestamp, RATE);
            reference.on_rtp(at, number, timestamp);
            if index % 97 == 96 {
                let block = stats.report(now + at).unwrap();
                let (fraction, lost, highest) = reference.report();
                assert_eq!((block.fraction_lost, i64::from(block.cumulative_lost)), (fraction, lost), "at {index}");
                assert_eq!(u64::from(block.extended_highest_sequence), highest);
                // Whole ticks and sixteenths on one side, real numbers on the other.
                assert!((f64::from(block.jitter) - reference.jitter).abs() <= 4.0, "at {index}");
            }
        }
    }

    #[test]
    fn a_packet_sent_again_undoes_its_loss_and_is_no_jitter() {
        // RTCP-03, RTCP-09
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, (0..100).filter(|number| *number != 50));
        assert_eq!((stats.packets_lost(), stats.jitter()), (1, 0));
        stats.on_resent(50);
        stats.on_rtp(now + Duration::from_millis(990), 100, 900 * 99, RATE);
        assert_eq!((stats.packets_lost(), stats.jitter()), (0, 0));
    }

    #[test]
    fn another_clock_begins_its_own_jitter() {
        // RTCP-03
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        for number in 0..50u16 {
            let at = now + Duration::from_millis(20 * u64::from(number));
            let rate = if number < 25 { 48_000 } else { 8_000 };
            stats.on_rtp(at, number, u32::from(number) * rate / 50, rate);
        }
        assert_eq!(stats.jitter(), 0);
    }

    #[test]
    fn timestamps_that_jump_do_not_overflow() {
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        for number in 0..10_000u16 {
            stats.on_rtp(now, number, if number % 2 == 0 { 0 } else { 1 << 31 }, u32::MAX);
        }
        assert!(stats.report(now).is_some());
    }

    #[test]
    fn the_last_sender_report_is_named_with_its_age() {
        // RTCP-03
        let now = Instant::now();
        let mut stats = ReceiveStats::new(7);
        feed(&mut stats, now, [1]);
        assert_eq!(stats.report(now).map(|block| (block.last_sr, block.delay_since_last_sr)), Some((0, 0)));
        stats.on_sender_report(now, NtpTime(0x0000_b705_2000_0000));
        let block = stats.report(now + Duration::from_millis(5_250)).unwrap();
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0xb705_2000, 0x0005_4000));
    }
}
