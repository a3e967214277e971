//! Feedback of RFC 8888 names packets by SSRC and RTP sequence number; here is which of the numbers of the history each of them
//! has, so that it can be told in the order in which the packets were sent.

use crate::rtcp::CongestionControlFeedback;
use crate::rtcp::ccfb::PacketReport;

use super::history::MAX_ENTRIES;
use super::{Arrival, Micros};

/// RTP streams towards one viewer: media and RTX of two sections.
const MAX_STREAMS: usize = 4;
/// Entries of a stream at first; it grows with the history.
const MIN_ENTRIES: usize = 128;
/// µs of the unit of a report timestamp, and of an offset: 1/65536 and 1/1024 s.
const SECOND: i64 = 1_000_000;

/// A packet: its RTP sequence number, and its number in the history.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rtp: u16,
    wide: u16,
}

/// The packets of one RTP stream, by the lower bits of their RTP sequence numbers.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    /// A power of two.
    entries: Box<[Option<Entry>]>,
}

impl Stream {
    fn new(ssrc: u32, len: usize) -> Stream {
        Stream { ssrc, entries: vec![None; len].into_boxed_slice() }
    }

    fn find(&self, rtp: u16) -> Option<u16> {
        let entry = self.entries[usize::from(rtp) & (self.entries.len() - 1)]?;
        (entry.rtp == rtp).then_some(entry.wide)
    }

    fn insert(&mut self, entry: Entry) {
        let index = usize::from(entry.rtp) & (self.entries.len() - 1);
        self.entries[index] = Some(entry);
    }

    /// Makes room for as many packets as the history has.
    #[cold]
    fn grow(&mut self, len: usize) {
        let mut grown = Stream::new(self.ssrc, len);
        self.entries.iter().flatten().for_each(|&entry| grown.insert(entry));
        *self = grown;
    }
}

/// What was sent to one viewer, by SSRC and RTP sequence number. Sans-IO; 1 KiB a stream at first, 12 KiB at most.
#[derive(Debug, Default)]
pub(super) struct RtpNumbers {
    streams: Vec<Stream>,
    clock: ReportClock,
    /// Reports of the present message by their numbers in the history; empty between calls.
    reported: Vec<(u16, Option<PacketReport>)>,
}

impl RtpNumbers {
    /// Notes a packet that has this number in a history with room for `entries`.
    #[inline]
    pub(super) fn insert(&mut self, ssrc: u32, rtp: u16, wide: u16, entries: usize) {
        let entry = Entry { rtp, wide };
        let Some(stream) = self.stream(ssrc) else { return };
        if stream.entries.len() < entries {
            stream.grow(entries.min(MAX_ENTRIES).next_power_of_two());
        }
        stream.insert(entry);
    }

    /// The stream with this SSRC, a new one if there is room.
    fn stream(&mut self, ssrc: u32) -> Option<&mut Stream> {
        let known = self.streams.iter().position(|stream| stream.ssrc == ssrc);
        let index = match known {
            Some(index) => index,
            None if self.streams.len() < MAX_STREAMS => {
                self.streams.push(Stream::new(ssrc, MIN_ENTRIES));
                self.streams.len() - 1
            }
            None => return None,
        };
        self.streams.get_mut(index)
    }

    /// What a message says, in the order of the numbers in the history, of which `oldest` is the first.
    pub(super) fn take(
        &mut self,
        feedback: &CongestionControlFeedback<'_>,
        oldest: u16,
    ) -> impl Iterator<Item = (u16, Option<Arrival>)> {
        let at = self.clock.advance(feedback.report_timestamp);
        self.reported.clear();
        for told in feedback.streams() {
            let Some(stream) = self.streams.iter().find(|stream| stream.ssrc == told.ssrc) else { continue };
            let reports = told.packets().filter_map(|(rtp, report)| Some((stream.find(rtp)?, report)));
            self.reported.extend(reports.take(MAX_ENTRIES.saturating_sub(self.reported.len())));
        }
        self.reported.sort_unstable_by_key(|(wide, _)| wide.wrapping_sub(oldest));
        self.reported.drain(..).map(move |(wide, report)| {
            let arrival = |report: PacketReport| Arrival {
                at: report.offset.map(|offset| Micros((at - i64::from(offset) * SECOND / 1_024) as u32)),
                ecn: Some(report.ecn),
            };
            (wide, report.map(arrival))
        })
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_size(&self) -> usize {
        let entries: usize = self.streams.iter().map(|stream| size_of_val(&*stream.entries)).sum();
        entries + self.reported.capacity() * size_of::<(u16, Option<PacketReport>)>()
    }
}

/// The reporter's clock, continued over its wrap every 18 hours.
#[derive(Debug, Default)]
struct ReportClock {
    last: Option<u32>,
    ticks: i64,
}

impl ReportClock {
    /// µs since the first message, of a report timestamp.
    fn advance(&mut self, timestamp: u32) -> i64 {
        let last = self.last.replace(timestamp).unwrap_or(timestamp);
        self.ticks = self.ticks.wrapping_add(i64::from(timestamp.wrapping_sub(last) as i32));
        // The product stays far from its bounds for as long as anybody watches.
        self.ticks.wrapping_mul(SECOND) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecn::Ecn;
    use crate::rtcp::ccfb::{CcfbFields, ReceivedPacket, StreamReport};
    use crate::rtcp::{MAX_RTCP_LEN, RtcpPacket, RtcpPackets, RtcpWriter};

    fn received(at: u64) -> Option<ReceivedPacket> {
        Some(ReceivedPacket { at, ecn: Ecn::Ect1 })
    }

    fn take(
        numbers: &mut RtpNumbers,
        timestamp: u32,
        mut streams: Vec<StreamReport<'_>>,
    ) -> Vec<(u16, Option<Arrival>)> {
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let fields = CcfbFields { sender_ssrc: 1, report_timestamp: timestamp, now: 1_000_000 };
        writer.congestion_control_feedback(&fields, &mut streams).unwrap();
        let Some(Ok(RtcpPacket::CongestionControlFeedback(feedback))) = RtcpPackets::new(writer.as_bytes()).next()
        else {
            panic!("it was feedback")
        };
        numbers.take(&feedback, 65_000).collect()
    }

    #[test]
    fn what_two_streams_report_comes_in_the_order_in_which_it_was_sent() {
        // RTCP-15
        let mut numbers = RtpNumbers::default();
        for n in 0..6u16 {
            // Audio and video by turns, over the wrap of the history's numbers and of video's.
            let (ssrc, rtp) = if n % 2 == 0 { (7, 65_534u16.wrapping_add(n / 2)) } else { (8, 100 + n / 2) };
            numbers.insert(ssrc, rtp, 65_533u16.wrapping_add(n), MIN_ENTRIES);
        }
        let video = [received(900_000), None, received(990_000), received(995_000)];
        let audio = [received(950_000), received(960_000), received(970_000)];
        let streams = vec![
            StreamReport { ssrc: 8, begin_sequence: 100, packets: &audio },
            StreamReport { ssrc: 9, begin_sequence: 0, packets: &audio },
            // The last one was never sent.
            StreamReport { ssrc: 7, begin_sequence: 65_534, packets: &video },
        ];
        let told = take(&mut numbers, 65_536, streams);
        assert_eq!(told.iter().map(|(wide, _)| *wide).collect::<Vec<_>>(), [65_533, 65_534, 65_535, 0, 1, 2]);
        let times: Vec<_> = told.iter().map(|(_, arrival)| arrival.map(|arrival| arrival.at.unwrap())).collect();
        let expected = [Some(900), Some(950), None, Some(960), Some(990), Some(970)];
        for (time, expected) in times.iter().zip(expected) {
            assert_eq!(time.is_some(), expected.is_some());
            // The first message is the zero of its clock, and a unit has a millisecond.
            let late = time.zip(expected).map(|(time, expected)| time.since(Micros(0)) - (expected - 1_000) * 1_000);
            assert!(late.is_none_or(|late| (0..=1_000).contains(&late)), "{late:?}");
        }
    }

    #[test]
    fn the_reporters_clock_goes_on_over_its_wrap() {
        // RTCP-15
        let mut clock = ReportClock::default();
        assert_eq!(clock.advance(u32::MAX - 65_535), 0);
        assert_eq!(clock.advance(32_768), 1_500_000);
        assert_eq!(clock.advance(0), 1_000_000, "an older message");
        assert_eq!(clock.advance(65_536 * 20_000), 20_001_000_000);
    }

    #[test]
    fn numbers_that_come_again_are_those_of_the_last_packet_and_memory_is_bounded() {
        // RTCP-15
        let mut numbers = RtpNumbers::default();
        for n in 0..200_000u32 {
            for ssrc in 0..6 {
                numbers.insert(ssrc, n as u16, n as u16, if n < 100_000 { 64 } else { MAX_ENTRIES });
            }
        }
        assert_eq!(numbers.streams.len(), MAX_STREAMS);
        let size = MAX_STREAMS * MAX_ENTRIES * size_of::<Option<Entry>>();
        assert_eq!(numbers.heap_size(), size);
        let packets = vec![received(1_000_000); 500];
        let stream = |ssrc| StreamReport { ssrc, begin_sequence: (200_000u32 - 250) as u16, packets: &packets };
        assert_eq!(take(&mut numbers, 0, vec![stream(3)]).len(), 250, "the other half was not sent yet");
        assert_eq!(take(&mut numbers, 0, vec![stream(5)]).len(), 0, "one stream too many");
    }
}
