//! When packets with transport-wide sequence numbers arrived, until the publisher is told (RTCP-14).

use std::time::{Duration, Instant};

use crate::rtp::sequence::sequence_is_newer;

/// How often feedback goes out; draft-holmer-01 §3 leaves it open, clients expect 50 to 100 ms.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
/// Packets that one report may span; at the interval above this is 40,000 packets a second.
const MAX_SPAN: usize = 4096;

/// Arrival times since the last report.
#[derive(Debug)]
pub struct ArrivalLog {
    epoch: Instant,
    /// Transport-wide sequence number of the first entry.
    base: Option<u16>,
    /// Transport-wide sequence number and arrival in microseconds since the epoch; `None` for packets not received.
    arrivals: Vec<(u16, Option<u64>)>,
    next_feedback: Instant,
}

impl ArrivalLog {
    /// An empty log.
    pub fn new(now: Instant) -> ArrivalLog {
        ArrivalLog { epoch: now, base: None, arrivals: Vec::new(), next_feedback: now + FEEDBACK_INTERVAL }
    }

    /// A packet with this transport-wide sequence number arrived. Packets older than the last report are not reported.
    pub fn on_packet(&mut self, now: Instant, wide_sequence: u16) {
        let mut base = *self.base.get_or_insert(wide_sequence);
        if sequence_is_newer(base, wide_sequence) {
            return;
        }
        if usize::from(wide_sequence.wrapping_sub(base)) >= MAX_SPAN {
            // An outage spans more than one report can. The sender knows what it lost; the log restarts here.
            self.arrivals.clear();
            base = wide_sequence;
            self.base = Some(base);
        }
        if self.arrivals.capacity() == 0 {
            // Memory comes with media.
            self.arrivals.reserve_exact(MAX_SPAN);
        }
        let offset = usize::from(wide_sequence.wrapping_sub(base));
        while self.arrivals.len() <= offset {
            self.arrivals.push((base.wrapping_add(self.arrivals.len() as u16), None));
        }
        let micros = now.saturating_duration_since(self.epoch).as_micros() as u64;
        self.arrivals[offset].1.get_or_insert(micros);
    }

    /// If feedback is due, hands everything since the last one to `write` and empties the log.
    pub fn poll(&mut self, now: Instant, write: impl FnOnce(&[(u16, Option<u64>)])) {
        if now < self.next_feedback {
            return;
        }
        self.next_feedback = now + FEEDBACK_INTERVAL;
        let Some(&(last, _)) = self.arrivals.last() else { return };
        write(&self.arrivals);
        self.base = Some(last.wrapping_add(1));
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(log: &mut ArrivalLog, now: Instant) -> Option<Vec<(u16, Option<u64>)>> {
        let mut got = None;
        log.poll(now, |arrivals| got = Some(arrivals.to_vec()));
        got
    }

    #[test]
    fn losses_are_gaps_and_each_number_is_reported_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut log = ArrivalLog::new(start);
        assert_eq!(log.arrivals.capacity(), 0, "M4: memory comes with media");
        log.on_packet(at(1), 65_535);
        log.on_packet(at(3), 1);
        log.on_packet(at(9), 1);
        assert_eq!(report(&mut log, at(99)), None);
        assert_eq!(report(&mut log, at(100)), Some(vec![(65_535, Some(1_000)), (0, None), (1, Some(3_000))]));
        log.on_packet(at(110), 0);
        log.on_packet(at(120), 3);
        assert_eq!(report(&mut log, at(200)), Some(vec![(2, None), (3, Some(120_000))]));
        assert_eq!(report(&mut log, at(300)), None);
    }

    // RTCP-14
    #[test]
    fn feedback_continues_after_an_outage_longer_than_a_report_can_span() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut log = ArrivalLog::new(start);
        log.on_packet(at(1), 10);
        assert!(report(&mut log, at(100)).is_some());
        log.on_packet(at(150), 11 + MAX_SPAN as u16);
        log.on_packet(at(151), 9);
        assert_eq!(report(&mut log, at(200)), Some(vec![(11 + MAX_SPAN as u16, Some(150_000))]));
        log.on_packet(at(250), 12 + MAX_SPAN as u16);
        assert_eq!(report(&mut log, at(300)).map(|arrivals| arrivals.len()), Some(1));
    }
}
