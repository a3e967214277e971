//! When packets of a publisher's RTP streams were received, and how they were marked, until it is told so (RFC 8888).

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::ecn::Ecn;
use crate::rtcp::ccfb::{ReceivedPacket, StreamReport};
use crate::rtp::sequence::sequence_is_newer;

/// How often feedback goes out while many packets are received: marks are to be answered within about a round trip
/// (RFC 9331 §4.3) …
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// … if there are so many of them, so that feedback stays below 5 % of what it is about (RFC 8888 §4).
const MANY_PACKETS: usize = 8;
/// Else it goes out so often.
const SLOW_INTERVAL: Duration = Duration::from_millis(100);
/// RTP streams that are reported: media and RTX of audio and of four encodings, and their successors.
pub(super) const MAX_STREAMS: usize = 16;
/// Packets of one stream that one report may span; at the interval above this is 20,000 packets a second.
const MAX_SPAN: usize = 1024;

/// What was received since the last report.
#[derive(Debug)]
pub(super) struct CcfbLog {
    epoch: Instant,
    streams: Vec<StreamLog>,
    /// Packets received since the last report.
    received: usize,
    last_feedback: Instant,
}

#[derive(Debug)]
struct StreamLog {
    ssrc: u32,
    /// RTP sequence number of the first entry.
    base: u16,
    packets: Vec<Option<ReceivedPacket>>,
    last: Instant,
}

impl CcfbLog {
    /// An empty log.
    pub(super) fn new(now: Instant) -> CcfbLog {
        CcfbLog { epoch: now, streams: Vec::new(), received: 0, last_feedback: now }
    }

    /// A packet was received. Those from before the last report are not reported again.
    pub(super) fn on_packet(&mut self, now: Instant, ssrc: u32, sequence_number: u16, ecn: Ecn) {
        let at = self.micros(now);
        let Some(stream) = self.stream(now, ssrc, sequence_number) else { return };
        stream.last = now;
        if sequence_is_newer(stream.base, sequence_number) {
            if usize::from(stream.base.wrapping_sub(sequence_number)) <= MAX_SPAN {
                return;
            }
            // Nothing is that late: the stream began anew.
            stream.restart(sequence_number);
        } else if usize::from(sequence_number.wrapping_sub(stream.base)) >= MAX_SPAN {
            // More than a report can span: the sender knows what it sent.
            stream.restart(sequence_number);
        }
        let offset = usize::from(sequence_number.wrapping_sub(stream.base));
        if stream.packets.len() <= offset {
            stream.packets.resize(offset + 1, None);
        }
        // Of several copies the first one's time counts, and a mark of any (RFC 8888 §3.1).
        let packet = stream.packets[offset].get_or_insert(ReceivedPacket { at, ecn });
        if ecn == Ecn::Ce {
            packet.ecn = Ecn::Ce;
        }
        self.received += 1;
    }

    /// The log of an SSRC; a new one takes the place of the one that was silent for longest.
    fn stream(&mut self, now: Instant, ssrc: u32, sequence_number: u16) -> Option<&mut StreamLog> {
        if let Some(index) = self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            return self.streams.get_mut(index);
        }
        if self.streams.len() == MAX_STREAMS {
            let stream = self.streams.iter_mut().min_by_key(|stream| stream.last)?;
            stream.ssrc = ssrc;
            stream.restart(sequence_number);
            return Some(stream);
        }
        self.streams.push(StreamLog { ssrc, base: sequence_number, packets: Vec::new(), last: now });
        self.streams.last_mut()
    }

    /// If feedback is due, hands everything since the last one to `write`, with the present moment on the clock of the packets
    /// in µs, and empties the log.
    pub(super) fn poll(&mut self, now: Instant, write: impl FnOnce(u64, &mut [StreamReport<'_>])) {
        let interval = if self.received >= MANY_PACKETS { FEEDBACK_INTERVAL } else { SLOW_INTERVAL };
        if self.received == 0 || now.saturating_duration_since(self.last_feedback) < interval {
            return;
        }
        (self.last_feedback, self.received) = (now, 0);
        let mut reports: SmallVec<[_; MAX_STREAMS]> = self.streams.iter().map(StreamLog::report).collect();
        write(self.micros(now), &mut reports);
        drop(reports);
        for stream in &mut self.streams {
            stream.base = stream.base.wrapping_add(stream.packets.len() as u16);
            stream.packets.clear();
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_micros() as u64
    }
}

impl StreamLog {
    fn report(&self) -> StreamReport<'_> {
        StreamReport { ssrc: self.ssrc, begin_sequence: self.base, packets: &self.packets }
    }

    fn restart(&mut self, sequence_number: u16) {
        self.packets.clear();
        self.base = sequence_number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Reported = Vec<(u32, u16, Option<(u64, Ecn)>)>;

    struct Log {
        log: CcfbLog,
        start: Instant,
    }

    impl Log {
        fn new() -> Log {
            let start = Instant::now();
            Log { log: CcfbLog::new(start), start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn receive(&mut self, ms: u64, ssrc: u32, sequence_number: u16, ecn: Ecn) {
            self.log.on_packet(self.at(ms), ssrc, sequence_number, ecn);
        }

        fn report(&mut self, ms: u64) -> Option<Reported> {
            let mut found = None;
            self.log.poll(self.at(ms), |now, streams| {
                assert_eq!(now, 1_000 * ms);
                let mut reported = Reported::new();
                for stream in streams {
                    for (index, packet) in (0u16..).zip(stream.packets) {
                        let number = stream.begin_sequence.wrapping_add(index);
                        reported.push((stream.ssrc, number, packet.map(|packet| (packet.at / 1_000, packet.ecn))));
                    }
                }
                found = Some(reported);
            });
            found
        }
    }

    #[test]
    fn each_stream_is_reported_with_its_losses_and_each_number_once() {
        // RTCP-15
        let mut log = Log::new();
        log.receive(1, 7, 65_535, Ecn::Ect1);
        log.receive(2, 8, 100, Ecn::NotEct);
        log.receive(3, 7, 1, Ecn::Ce);
        assert_eq!(log.report(99), None);
        let expected = vec![
            (7, 65_535, Some((1, Ecn::Ect1))),
            (7, 0, None),
            (7, 1, Some((3, Ecn::Ce))),
            (8, 100, Some((2, Ecn::NotEct))),
        ];
        assert_eq!(log.report(100), Some(expected));
        log.receive(110, 7, 0, Ecn::Ect1);
        log.receive(120, 7, 3, Ecn::Ect1);
        assert_eq!(log.report(200), Some(vec![(7, 2, None), (7, 3, Some((120, Ecn::Ect1)))]), "0 came too late");
        assert_eq!(log.report(300), None, "nothing is to be told");
    }

    #[test]
    fn many_packets_are_reported_twice_as_often() {
        // RTCP-15
        let mut log = Log::new();
        for n in 0..MANY_PACKETS as u16 {
            assert_eq!(log.report(50), None);
            log.receive(n.into(), 7, n, Ecn::NotEct);
        }
        assert_eq!(log.report(49), None);
        assert_eq!(log.report(50).map(|report| report.len()), Some(MANY_PACKETS));
    }

    #[test]
    fn of_copies_the_first_time_counts_and_any_mark() {
        // RTCP-15: RFC 8888 §3.1
        let mut log = Log::new();
        log.receive(1, 7, 5, Ecn::Ect1);
        log.receive(2, 7, 5, Ecn::Ce);
        log.receive(3, 7, 5, Ecn::Ect0);
        assert_eq!(log.report(100), Some(vec![(7, 5, Some((1, Ecn::Ce)))]));
    }

    #[test]
    fn a_stream_that_jumps_is_reported_from_where_it_goes_on() {
        // RTCP-15
        let mut log = Log::new();
        for jump in [MAX_SPAN as u16, 20_000, 40_000, 65_535 - MAX_SPAN as u16] {
            log.receive(0, 7, 1_000, Ecn::NotEct);
            log.receive(0, 7, jump.wrapping_add(1_000), Ecn::NotEct);
            let at = 200 + u64::from(jump);
            let expected = vec![(7, jump.wrapping_add(1_000), Some((0, Ecn::NotEct)))];
            assert_eq!(log.report(at), Some(expected), "by {jump}");
            log = Log::new();
        }
    }

    #[test]
    fn streams_and_memory_are_bounded() {
        // RTCP-15
        let mut log = Log::new();
        for n in 0..10_000u32 {
            log.receive(u64::from(n), n % 100, (n.wrapping_mul(7_919)) as u16, Ecn::NotEct);
            assert!(log.log.streams.len() <= MAX_STREAMS);
            assert!(log.log.streams.iter().all(|stream| stream.packets.capacity() <= MAX_SPAN));
        }
        assert!(log.report(20_000).is_some());
    }
}
