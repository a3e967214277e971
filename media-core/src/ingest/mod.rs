//! The receiving side of a publisher: its RTP streams, their sequence numbers and losses, and the reports that go back.
//!
//! A packet finds its m-section ([`SectionReceiver`]) by MID, SSRC or payload type, and in that its
//! [`EncodingReceiver`](encoding_receiver::EncodingReceiver), by rid or SSRC where there are several. It is counted in the
//! [`ReceiveStream`] of that, and goes into the same encoding of the section's track.

#![deny(clippy::disallowed_types)]

pub mod arrival;
mod ccfb_log;
mod clock;
mod congestion_feedback;
mod encoding_receiver;
mod frames;
mod receive_stream;
mod section;
mod ssrcs;

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::clock::ClockPoint;
use crate::ecn::Ecn;
use crate::layers::MAX_ENCODINGS;
use crate::media::{MediaKind, MediaSection, TrackId};
use crate::rtcp::ccfb::StreamReport;
use crate::rtcp::{ReportBlock, SenderReport};
use crate::rtp::RtpHeader;
use crate::rtp::profile::FormatInUse;
use crate::rtp::rtt::RoundTrip;
use crate::stats::DropReason;
use crate::stream::{KeyframeRequest, Tracks};
use crate::token_bucket::TokenBucket;

use clock::{IngestClock, Reported};
use congestion_feedback::CongestionFeedback;
use encoding_receiver::EncodingReceiver;
use receive_stream::ReceiveStream;
use section::{IncomingPacket, PayloadUse, SectionReceiver};
use ssrcs::KnownSsrcs;

pub(crate) use congestion_feedback::has_ccfb;
pub use encoding_receiver::Reception;

/// Reports of formats in use: so many at once, and so many a second.
const FORMAT_REPORT_BURST: f64 = 8.0;
const FORMAT_REPORTS_PER_SECOND: f64 = 4.0;

/// How a packet was received.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When.
    pub now: Instant,
    /// The wall-clock time of that, since the Unix epoch.
    pub unix: Duration,
    /// The mark of its datagram.
    pub ecn: Ecn,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is in its track's cache: forward it.
    Forward {
        /// Its track.
        track: TrackId,
        /// The encoding of that, by its position.
        encoding: u8,
        /// The encoding's sequence number.
        sequence: u64,
        /// The first packet of a keyframe.
        keyframe: bool,
        /// A decoder that began with the last keyframe can use it: false before the first one, though viewers may have begun
        /// at a recovery point.
        decodable: bool,
    },
    /// Nothing is to be forwarded: padding, a probe, a duplicate.
    Consumed,
    /// Video that no decoder can use before a keyframe: request one.
    AwaitingKeyframe {
        /// Its track.
        track: TrackId,
        /// The encoding of that, by its position.
        encoding: u8,
    },
}

/// The receiving side of one connected publisher.
pub struct Ingest {
    /// In the order of their tracks, as are report blocks.
    sections: Vec<SectionReceiver>,
    known_ssrcs: KnownSsrcs,
    congestion_feedback: CongestionFeedback,
    timing: Timing,
    /// How often formats in use are reported: each report concerns all viewers.
    format_reports: TokenBucket,
}

/// The clocks of the publisher's tracks, and the round-trip time to it.
struct Timing {
    clock: IngestClock,
    round_trip: RoundTrip,
}

impl Ingest {
    /// A publisher with these sections; their tracks are made if the stream has none yet.
    pub fn new(now: Instant, sections: &[MediaSection], tracks: &mut Tracks) -> Ingest {
        let mut receivers: Vec<_> = TrackId::of_sections(sections)
            .map(|(track, section)| {
                tracks.get_or_insert(track).make_encodings(section.simulcast.len());
                SectionReceiver::new(track, section.clone())
            })
            .collect();
        receivers.sort_by_key(SectionReceiver::track);
        Ingest {
            known_ssrcs: KnownSsrcs::declared(now, &receivers),
            sections: receivers,
            congestion_feedback: CongestionFeedback::new(now, sections),
            timing: Timing { clock: IngestClock::default(), round_trip: RoundTrip::new() },
            format_reports: TokenBucket::new(FORMAT_REPORTS_PER_SECOND, FORMAT_REPORT_BURST),
        }
    }

    /// The publisher is to send no more than this, in bit/s, and is told so by its congestion feedback.
    pub fn limit_bitrate(&mut self, now: Instant, bits_per_second: u64) {
        let sections: SmallVec<[_; 4]> = self.sections.iter().map(SectionReceiver::negotiated).collect();
        self.congestion_feedback.limit(now, &sections, bits_per_second);
    }

    /// What is published: the tracks with what was negotiated for their sections.
    pub fn tracks(&self) -> impl Iterator<Item = (TrackId, &MediaSection)> {
        self.sections.iter().map(|section| (section.track(), section.negotiated()))
    }

    /// Which wall-clock time belongs to the RTP timestamps of a track.
    pub fn clock_point(&self, track: TrackId) -> Option<ClockPoint> {
        self.timing.clock.point(track)
    }

    /// Takes a decrypted RTP packet.
    ///
    /// # Errors
    /// [`DropReason::MalformedRtp`], or [`DropReason::UnknownRtpStream`] if it belongs to no section.
    pub fn on_rtp(
        &mut self,
        &Arrival { now, unix, ecn }: &Arrival,
        packet: &[u8],
        tracks: &mut Tracks,
    ) -> Result<Accepted, DropReason> {
        let header = RtpHeader::parse(packet).map_err(|_| DropReason::MalformedRtp)?;
        let known = self.known_ssrcs.find(now, &header, packet, &self.sections)?;
        let mut sections = self.sections.iter_mut();
        let section = sections.find(|section| section.track() == known.track).ok_or(DropReason::UnknownRtpStream)?;
        self.congestion_feedback.on_packet((now, ecn), section.negotiated(), &header, packet);
        let payload = header.payload(packet);
        let incoming = |format| IncomingPacket { now, unix, format, header: &header, packet, payload };
        match section.payload_use(header.payload_type) {
            PayloadUse::Unknown => Err(DropReason::UnknownRtpStream),
            PayloadUse::Media(format) => section.on_media(&incoming(format), known, tracks, &mut self.timing),
            PayloadUse::Rtx(format) => section.on_retransmission(&incoming(format), known, tracks, &mut self.timing),
        }
    }

    /// The formats that came into use since the last call, or whose stream has another profile now. A publisher that changes
    /// them all the time is reported now and then.
    pub fn take_format_changes(&mut self, now: Instant) -> SmallVec<[(TrackId, FormatInUse); 2]> {
        if !self.sections.iter().any(SectionReceiver::has_format_change) || !self.format_reports.take(now) {
            return SmallVec::new();
        }
        self.sections.iter_mut().filter_map(|section| Some((section.track(), section.take_format_change()?))).collect()
    }

    /// Takes a sender report of one of the RTP streams. Our reports name its time even where it is not believed.
    ///
    /// # Errors
    /// [`DropReason::ImplausibleSenderReport`] if its times are not believed.
    pub fn on_sender_report(
        &mut self,
        now: Instant,
        unix: Duration,
        report: &SenderReport<'_>,
        tracks: &Tracks,
    ) -> Result<(), DropReason> {
        let mut streams = streams_mut(&mut self.sections);
        let Some((name, stream)) = streams.find(|(_, stream)| stream.ssrc == report.sender_ssrc) else { return Ok(()) };
        stream.stats.on_sender_report(now, report.info.ntp);
        let Some(timeline) = tracks.encoding(name.0, name.1).map(|encoding| &encoding.timeline) else { return Ok(()) };
        let (Some(offset), Some((newest, arrival))) = (timeline.timestamp_offset(), timeline.newest()) else {
            return Ok(());
        };
        let clock_rate = timeline.clock_rate();
        let unix_of_arrival = unix.saturating_sub(now.saturating_duration_since(arrival));
        let latest = ClockPoint { unix: unix_of_arrival, rtp: newest, clock_rate };
        let rtp = report.info.rtp_timestamp.wrapping_add(offset);
        let point = ClockPoint { unix, rtp, clock_rate };
        let (info, aligned) = (&report.info, timeline.aligned());
        if !self.timing.clock.on_sender_report(&Reported { encoding: name, info, point, latest, aligned }) {
            return Err(DropReason::ImplausibleSenderReport);
        }
        drop(streams);
        self.align(name.0, tracks);
        Ok(())
    }

    /// Brings the encodings of a track into line, as far as their sender reports say how.
    fn align(&mut self, track: TrackId, tracks: &Tracks) {
        let (Some(track), Some(section)) =
            (tracks.get(track), self.sections.iter_mut().find(|section| section.track() == track))
        else {
            return;
        };
        let clock = &self.timing.clock;
        for (index, encoding) in (0..).zip(section.encodings_mut()) {
            let Some(timeline) = track.encoding(index).map(|encoding| &encoding.timeline) else { continue };
            let offset = |index| track.encoding(index)?.timeline.timestamp_offset();
            encoding.set_misaligned(clock.misaligned((track.id, index), timeline.clock_rate(), offset));
        }
    }

    /// The publisher sent BYE for an RTP stream: the next packet may be of another one.
    pub fn on_bye(&mut self, ssrc: u32) {
        let encodings = self.sections.iter_mut().flat_map(SectionReceiver::encodings_mut);
        encodings.filter(|encoding| encoding.receives(ssrc)).for_each(EncodingReceiver::end_stream);
    }

    /// One report block for each RTP stream that sends.
    pub fn report_blocks(&mut self, now: Instant, mut write: impl FnMut(ReportBlock)) {
        for (_, stream) in streams_mut(&mut self.sections) {
            if let Some(block) = stream.stats.report(now) {
                write(block);
            }
        }
    }

    /// Packets lost so far, over all RTP streams.
    pub fn packets_lost(&self) -> i64 {
        self.sections.iter().map(SectionReceiver::packets_lost).sum()
    }

    /// The sequence numbers to request again, by SSRC.
    pub fn poll_nack(&mut self, now: Instant, mut write: impl FnMut(u32, &[u16])) {
        for (_, stream) in streams_mut(&mut self.sections) {
            let Some(nack) = &mut stream.nack else { continue };
            let due = nack.poll(now, &mut self.timing.round_trip);
            if !due.is_empty() {
                write(stream.ssrc, due);
            }
        }
    }

    /// The encodings of video that lost packets beyond repair since the last call, so that only a keyframe helps; to be called
    /// after every [`Ingest::poll_nack`].
    pub fn take_keyframes_needed(&mut self) -> impl Iterator<Item = (TrackId, u8)> {
        streams_mut(&mut self.sections).filter_map(|(name, stream)| {
            let needed = stream.nack.as_mut()?.take_keyframe_needed();
            (needed && name.0.kind == MediaKind::Video).then_some(name)
        })
    }

    /// True if the round-trip time is of use: packets can be requested again.
    pub fn wants_round_trip(&self) -> bool {
        self.streams().any(|stream| stream.nack.is_some())
    }

    /// A round trip that the publisher's extended report showed.
    pub fn on_round_trip(&mut self, now: Instant, sample: Duration) {
        self.timing.round_trip.on_sample(now, sample);
    }

    /// The smoothed round-trip time to the publisher, once it was measured.
    pub fn round_trip_time(&self) -> Option<Duration> {
        self.timing.round_trip.smoothed()
    }

    /// Transport-wide feedback, if it is due: one of the media SSRCs, and transport-wide sequence numbers with their arrival
    /// in microseconds.
    pub fn poll_arrivals(&mut self, now: Instant, write: impl FnOnce(u32, &[(u16, Option<u64>)])) {
        let media_ssrc = self.streams().map(|stream| stream.ssrc).next().unwrap_or(0);
        if let CongestionFeedback::TransportWide(arrivals, _) = &mut self.congestion_feedback {
            arrivals.poll(now, |arrivals| write(media_ssrc, arrivals));
        }
    }

    /// Congestion control feedback of RFC 8888, if it is due: the present moment in µs and what was received.
    pub fn poll_ccfb(&mut self, now: Instant, write: impl FnOnce(u64, &mut [StreamReport<'_>])) {
        if let CongestionFeedback::Ccfb(log) = &mut self.congestion_feedback {
            log.poll(now, write);
        }
    }

    /// The estimate of the publisher's path in bit/s, if it is to be sent, and the SSRCs that share it (RTCP-13).
    pub fn poll_estimate(&mut self, now: Instant) -> Option<(u64, Vec<u32>)> {
        let estimate = match &mut self.congestion_feedback {
            CongestionFeedback::Remb(estimator) => {
                if let Some(round_trip) = self.timing.round_trip.smoothed() {
                    estimator.set_round_trip(round_trip);
                }
                estimator.poll(now)?
            }
            CongestionFeedback::TransportWide(_, limit) => limit.as_mut()?.poll(now)?,
            CongestionFeedback::Ccfb(_) | CongestionFeedback::None => return None,
        };
        Some((estimate, self.streams().map(|stream| stream.ssrc).collect()))
    }

    /// True if the video has B-frames, which viewers show in the wrong order (RTP-11).
    pub fn has_b_frames(&self) -> bool {
        self.sections.iter().any(SectionReceiver::has_b_frames)
    }

    /// How to request a keyframe of an encoding of video: its media SSRC, and PLI or FIR as negotiated; `None` if neither was,
    /// or if nothing is received of it.
    pub fn keyframe_request(&self, track: TrackId, encoding: u8) -> Option<KeyframeRequest> {
        let section = self.section(track).filter(|_| track.kind == MediaKind::Video)?;
        let ssrc = section.encodings().get(usize::from(encoding))?.stream.as_ref()?.ssrc;
        let feedback = section.format(encoding)?.feedback;
        if feedback.pli {
            Some(KeyframeRequest::Pli { ssrc })
        } else if feedback.fir {
            Some(KeyframeRequest::Fir { ssrc })
        } else {
            None
        }
    }

    /// True if a keyframe of some encoding of a track can be requested.
    pub fn takes_keyframe_requests(&self, track: TrackId) -> bool {
        (0..MAX_ENCODINGS as u8).any(|encoding| self.keyframe_request(track, encoding).is_some())
    }

    /// When media of each track were received.
    pub fn receptions(&self) -> impl Iterator<Item = (TrackId, Reception)> {
        self.sections.iter().map(|section| (section.track(), section.reception()))
    }

    /// Whether a payload type is one of audio or video, as far as the sections agree.
    pub fn kind_of(&self, payload_type: u8) -> Option<MediaKind> {
        let users = self.sections.iter().filter(|section| section.payload_use(payload_type) != PayloadUse::Unknown);
        let mut kinds = users.map(|section| section.track().kind);
        let kind = kinds.next()?;
        kinds.all(|other| other == kind).then_some(kind)
    }

    /// True if a section receives this SSRC.
    pub fn is_receiving(&self, ssrc: u32) -> bool {
        self.streams().any(|stream| stream.ssrc == ssrc)
    }

    fn section(&self, track: TrackId) -> Option<&SectionReceiver> {
        self.sections.iter().find(|section| section.track() == track)
    }

    /// The RTP streams that are being received.
    fn streams(&self) -> impl Iterator<Item = &ReceiveStream> {
        self.sections.iter().flat_map(SectionReceiver::encodings).filter_map(|encoding| encoding.stream.as_ref())
    }
}

/// The RTP streams that are being received, with track and position of the encodings that they fill.
fn streams_mut(sections: &mut [SectionReceiver]) -> impl Iterator<Item = ((TrackId, u8), &mut ReceiveStream)> {
    sections.iter_mut().flat_map(|section| {
        let track = section.track();
        let encodings = (0..).zip(section.encodings_mut());
        encodings.filter_map(move |(index, encoding)| Some(((track, index), encoding.stream.as_mut()?)))
    })
}

#[cfg(test)]
mod tests;
