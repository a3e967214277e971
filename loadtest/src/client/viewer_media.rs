//! What a viewer does with the packets it receives, and what it sends back.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use media_core::internals::rtcp::{MAX_RTCP_LEN, NtpTime, ReportBlock, RtcpPacket, RtcpPackets, RtcpWriter};
use media_core::internals::rtp::packet::RtpHeader;
use media_core::internals::rtp::rtx;
use media_core::media::{Codec, MediaKind};

use super::fast_start::FastStart;
use super::figures::ViewerFigures;
use super::inbound::{MediaHandler, PacketSender};
use super::latency::SharedHistogram;
use super::options::Verify;
use super::pictures::Pictures;
use super::received_stream::{NACK_DELAY, Placed, Received, ReceivedStream};
use super::transport_feedback::FeedbackSender;
use crate::media::frames;
use crate::sdp::AnsweredSection;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The viewer's own SSRC in RTCP.
const SSRC: u32 = 1;

/// What a viewer expects to receive.
pub(super) struct Expected {
    /// The sections that were accepted.
    pub(super) sections: Vec<AnsweredSection>,
    /// Number of the stream in its stamps.
    pub(super) stream: u32,
    pub(super) verify: Verify,
    /// Its video has layers, of which the server chooses.
    pub(super) has_layers: bool,
}

/// What a payload type stands for.
struct Format {
    codec: Codec,
    /// Of RTX: the payload type of the media, and its SSRC if the answer names it.
    repairs: Option<(u8, Option<u32>)>,
}

impl Expected {
    /// False if the answer names its SSRCs, and this is none of them.
    fn may_be_of(&self, ssrc: u32) -> bool {
        let mut sources = self.sections.iter().flat_map(|section| &section.sources).peekable();
        sources.peek().is_none() || sources.any(|source| *source == ssrc)
    }

    fn format(&self, payload_type: u8) -> Option<Format> {
        for section in &self.sections {
            for (codec, types) in &section.codecs {
                if types.media == payload_type {
                    return Some(Format { codec: *codec, repairs: None });
                }
                if types.rtx == Some(payload_type) {
                    let repairs = Some((types.media, section.ssrcs.map(|ssrcs| ssrcs.media)));
                    return Some(Format { codec: *codec, repairs });
                }
            }
        }
        None
    }
}

/// What a viewer does with its connection.
pub(super) struct ViewerMedia {
    expected: Expected,
    nack: bool,
    /// Transport-wide feedback, if it was negotiated.
    feedback: Option<FeedbackSender>,
    /// Whoever runs it wants a keyframe.
    keyframe_requested: bool,
    histogram: SharedHistogram,
    /// The begin of the viewer, on the clocks of this process and of the stamps, which are the same but for their zero.
    origin: (Instant, u64),
    next: Instant,
    next_report: Instant,
    /// What its latencies do not count.
    start: FastStart,
    /// Not yet in the histogram, in µs.
    latencies: Vec<u64>,
    received: Received,
}

impl ViewerMedia {
    /// Nothing has come. Latencies go to `histogram`.
    pub(super) fn new(
        origin: (Instant, u64),
        expected: Expected,
        nack: bool,
        feedback: Option<FeedbackSender>,
        histogram: SharedHistogram,
    ) -> ViewerMedia {
        ViewerMedia {
            expected,
            nack,
            feedback,
            keyframe_requested: false,
            histogram,
            origin,
            next: origin.0,
            next_report: origin.0,
            start: FastStart::default(),
            latencies: Vec::new(),
            received: Received::default(),
        }
    }

    /// The figures so far.
    pub(super) fn figures(&self) -> ViewerFigures {
        self.received.figures()
    }

    /// What could be shown so far of video with layers.
    pub(super) fn pictures(&self) -> Pictures {
        self.received.pictures()
    }

    /// Sends a PLI with the next packet that comes.
    pub(super) fn request_keyframe(&mut self) {
        self.keyframe_requested = true;
    }

    fn since(&self, now: Instant) -> f64 {
        now.duration_since(self.origin.0).as_secs_f64()
    }

    fn send_report(&mut self, now: Instant, out: &mut PacketSender) {
        let received = &mut self.received;
        let blocks: Vec<ReportBlock> = received.streams.iter_mut().filter_map(|stream| stream.report(now)).collect();
        let video = received.streams.iter().find(|stream| stream.kind == MediaKind::Video);
        let requested = std::mem::take(&mut self.keyframe_requested);
        // Nothing can be decoded before a keyframe.
        let blind = video.filter(|stream| requested || !stream.track.has_keyframe()).map(|stream| stream.ssrc);
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let mut written = writer.receiver_report(SSRC, &blocks);
        written = written.and_then(|()| writer.sdes_cname(SSRC, "loadtest"));
        if let Some(media) = blind {
            written = written.and_then(|()| writer.pli(SSRC, media));
            received.figures.keyframe_requests += 1;
        }
        if written.is_ok() {
            out.rtcp(writer.as_bytes());
        }
    }

    /// Sends the NACKs that are due; true if gaps are left.
    fn send_nacks(&mut self, now: Instant, out: &mut PacketSender) -> bool {
        let received = &mut self.received;
        let mut waiting = false;
        let mut nacked = 0;
        for stream in received.streams.iter_mut().filter(|stream| stream.kind == MediaKind::Video) {
            let due = stream.due_nacks(now);
            waiting |= stream.waits_for_gaps();
            let mut rest = &due[..];
            while !rest.is_empty() {
                let mut buffer = [0; MAX_RTCP_LEN];
                let mut writer = RtcpWriter::new(&mut buffer);
                let taken = writer.nack(SSRC, stream.ssrc, rest);
                if taken == 0 {
                    break;
                }
                out.rtcp(writer.as_bytes());
                nacked += taken as u64;
                rest = &rest[taken..];
            }
        }
        received.figures.nacked += nacked;
        waiting
    }

    fn on_gap(&mut self, now: Instant, placed: &Placed) {
        if self.nack && placed.after_gap() {
            self.next = self.next.min(now + NACK_DELAY);
        }
    }

    /// Undoes a retransmission in place. `Ok(None)` for one without a payload, which is a probe; an error if its stream is
    /// not known.
    fn restore<'a>(&self, packet: &'a mut [u8], header: &RtpHeader, format: &Format) -> Result<Option<&'a [u8]>, ()> {
        let Some((payload_type, media_ssrc)) = format.repairs else { return Ok(Some(packet)) };
        let streams = &self.received.streams;
        let known = streams.iter().find(|stream| stream.kind == format.codec.kind()).map(|stream| stream.ssrc);
        let ssrc = media_ssrc.or(known).ok_or(())?;
        Ok(rtx::restore(packet, header, payload_type, ssrc).map(|packet| &*packet))
    }

    /// Counts a packet that was authenticated; `None` if its SSRC or payload type was not negotiated.
    fn take_rtp(&mut self, now: Instant, packet: &mut [u8]) -> Option<()> {
        let header = RtpHeader::parse(packet).ok()?;
        let format = self.expected.format(header.payload_type)?;
        let Some(packet) = self.restore(packet, &header, &format).ok()? else { return Some(()) };
        let Ok(header) = RtpHeader::parse(packet) else { return Some(()) };
        let (codec, recovered) = (format.codec, format.repairs.is_some());
        let arrival = self.origin.1 + now.saturating_duration_since(self.origin.0).as_nanos() as u64;
        let since = self.since(now);
        let stream = self.received.stream(header.ssrc, codec.kind(), self.expected.has_layers)?;
        let payload = header.payload(packet);
        let placed = stream.note_sequence(header.sequence_number, payload.len(), recovered);
        if !placed.is_new || payload.is_empty() {
            return Some(());
        }
        if !recovered {
            stream.note_arrival(arrival as f64 / 1e9, header.timestamp, placed.in_order());
            stream.payload_type = Some(header.payload_type);
        }
        match frames::open(codec, payload) {
            Ok(stamp) if stamp.stream == self.expected.stream => {
                let first_keyframe = stream.note_stamp(&stamp, self.expected.verify, placed.extended);
                if let Some(pictures) = &mut stream.pictures {
                    pictures.note(since, &stamp);
                }
                if first_keyframe {
                    self.received.figures.first_keyframe.get_or_insert(since);
                }
                if placed.before.is_none() {
                    self.start.on_first(arrival, stamp.sent);
                }
                if !recovered && self.start.is_over(stamp.sent) {
                    let latency = arrival.saturating_sub(stamp.sent) / 1000;
                    self.latencies.push(latency.max(1));
                }
            }
            _ => stream.track.note_corrupt(),
        }
        self.on_gap(now, &placed);
        Some(())
    }
}

impl MediaHandler for ViewerMedia {
    fn connected(&mut self, now: Instant) {
        self.received.figures.connected = Some(self.since(now));
        self.next_report = now + REPORT_INTERVAL / 4;
        self.next = self.next_report;
    }

    fn wants(&mut self, arrival: Instant, packet: &[u8], overhead: usize) -> bool {
        if let Some(feedback) = &mut self.feedback {
            feedback.note(arrival, packet);
        }
        if self.keyframe_requested {
            self.next_report = self.next_report.min(arrival);
            self.next = self.next.min(arrival);
        }
        let Verify::Sample(one_in) = self.expected.verify else { return true };
        let Ok(header) = RtpHeader::parse_encrypted(packet) else { return true };
        if header.sequence_number.is_multiple_of(one_in.max(1)) {
            return true;
        }
        // Only packets of a kind that was verified before.
        let known = |stream: &&mut ReceivedStream| {
            stream.ssrc == header.ssrc && stream.payload_type == Some(header.payload_type)
        };
        let Some(stream) = self.received.streams.iter_mut().find(known) else { return true };
        if stream.kind == MediaKind::Video && !stream.track.has_keyframe() {
            return true;
        }
        let payload_len = header.payload(packet).len().saturating_sub(overhead);
        let placed = stream.note_sequence(header.sequence_number, payload_len, false);
        if placed.is_new {
            self.on_gap(arrival, &placed);
        }
        false
    }

    fn overflowed(&mut self, total: u32) {
        self.received.figures.overflowed = total.into();
    }

    fn end_of_batch(&mut self) {
        if !self.latencies.is_empty() {
            let mut histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
            self.latencies.drain(..).for_each(|latency| histogram.saturating_record(latency));
        }
    }

    fn rtp(&mut self, now: Instant, packet: &mut [u8]) {
        let since = self.since(now);
        self.received.figures.first_rtp.get_or_insert(since);
        if self.take_rtp(now, packet).is_none() {
            self.received.figures.unexpected += 1;
        }
    }

    fn rtcp(&mut self, now: Instant, packet: &[u8], _: &mut PacketSender) {
        let received = &mut self.received;
        for message in RtcpPackets::new(packet).flatten() {
            if let RtcpPacket::SenderReport(report) = message {
                received.figures.sender_reports += 1;
                let stream = received.streams.iter_mut().find(|stream| stream.ssrc == report.sender_ssrc);
                let mut step = 0.0;
                if let Some(stream) = stream {
                    stream.last_report = Some((NtpTime::compact(report.info.ntp), now));
                    if let Some(last) = stream.last_timestamp {
                        step =
                            f64::from(report.info.rtp_timestamp.wrapping_sub(last).cast_signed()) / stream.clock_rate;
                    }
                }
                received.figures.longest_report_step = received.figures.longest_report_step.max(step.abs());
            }
        }
    }

    fn refused(&mut self, ssrc: u32) {
        let figures = &mut self.received.figures;
        let count = if self.expected.may_be_of(ssrc) { &mut figures.refused } else { &mut figures.strays };
        *count += 1;
    }

    fn tick(&mut self, now: Instant, out: &mut PacketSender) {
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.send_report(now, out);
        }
        let waiting = self.nack && self.send_nacks(now, out);
        self.next = if waiting { self.next_report.min(now + NACK_DELAY) } else { self.next_report };
        if let Some(feedback) = &mut self.feedback {
            let media_ssrc = self.received.streams.first().map_or(0, |stream| stream.ssrc);
            feedback.report(now, SSRC, media_ssrc, |message| out.rtcp(message));
            self.next = self.next.min(feedback.deadline());
        }
    }

    fn deadline(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::latency::latency_histogram;
    use crate::sdp::Answer;

    /// A viewer whose answer has this line in the section of its video.
    fn viewer(line: &str) -> ViewerMedia {
        let fingerprint = ["AB"; 32].join(":");
        let answer = Answer::parse(&format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n\
             a=sendonly\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {fingerprint}\r\n\
             a=setup:passive\r\na=rtpmap:96 VP8/90000\r\na=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\n{line}"
        ));
        let sections = answer.unwrap().sections;
        let expected = Expected { sections, stream: 1, verify: Verify::All, has_layers: false };
        ViewerMedia::new((Instant::now(), 0), expected, false, None, latency_histogram())
    }

    // A viewer that vanishes leaves its port to the next one, and the server goes on sending there until consent expires.
    #[test]
    fn what_was_sent_to_the_port_s_last_viewer_is_no_fault() {
        let mut named = viewer("a=ssrc:11 cname:x\r\n");
        named.refused(12);
        assert_eq!((named.figures().refused, named.figures().strays), (0, 1));
        named.refused(11);
        assert_eq!((named.figures().refused, named.figures().strays), (1, 1));
        let mut unnamed = viewer("");
        unnamed.refused(12);
        assert_eq!((unnamed.figures().refused, unnamed.figures().strays), (1, 0));
    }
}
