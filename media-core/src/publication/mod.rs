//! What comes in: a publisher's sources, their numbers, their losses, and the reports that go back.

pub mod arrival;
pub mod cache;
pub mod clock;
mod extensions;
mod frames;
pub mod keyframe;
pub mod timeline;
mod track;
mod uplink;

use std::time::{Duration, Instant};

use crate::media::{Extension, Format, MediaKind, MediaSection};
use crate::rtcp::{ReportBlock, SenderReport};
use crate::rtp::nack::NackGenerator;
use crate::rtp::receive::ReceiveStats;
use crate::rtp::rtt::RoundTrip;
use crate::rtp::sequence::SequenceExtender;
use crate::rtp::{RtpHeader, red, rtx};
use crate::srtp::MAX_INBOUND_SSRCS;
use crate::stats::DropReason;

use cache::PacketInfo;
use clock::{ClockPoint, PublicationClock};
use extensions::Elements;
use frames::{Frames, Start};
use timeline::Place;
use uplink::Uplink;

pub use extensions::stored_extensions;
pub use track::Track;

/// SSRCs of one publisher that are told apart, as many as SRTP lets in; media and RTX of two sections are four.
const MAX_SOURCES: usize = MAX_INBOUND_SSRCS;
/// A section takes a new SSRC without MID, or an old one again, only when the present one has been silent this long
/// (RTP-03).
const SOURCE_SILENCE: Duration = Duration::from_millis(200);

/// What a packet led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is in its track's cache under this sequence number: forward it.
    Forward {
        /// Which track.
        kind: MediaKind,
        /// The stream's sequence number.
        sequence: u64,
        /// The first packet of a keyframe.
        keyframe: bool,
        /// The first packet in another payload type than before.
        new_format: Option<u8>,
    },
    /// It served its purpose: a probe, a duplicate.
    Consumed,
    /// Video that no decoder can use before a keyframe: ask for one.
    AwaitingKeyframe,
}

/// A connected publisher.
pub struct Publication {
    sections: [Option<Incoming>; 2],
    sources: Vec<KnownSource>,
    uplink: Uplink,
    clock: PublicationClock,
    round_trip: RoundTrip,
}

#[derive(Clone, Copy)]
struct KnownSource {
    ssrc: u32,
    kind: MediaKind,
    /// It was its section's source before: a MID alone does not bring it back, else two SSRCs that both send would take
    /// the section from each other with every packet.
    was_adopted: bool,
}

/// What a payload type of a section means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PayloadUse {
    Unknown,
    /// Index of the format.
    Media(u8),
    /// Index of the format that is repaired.
    Rtx(u8),
}

/// One m-section of the publisher.
struct Incoming {
    section: MediaSection,
    payload_uses: [PayloadUse; 128],
    /// Payload type of the blocks of each format that is RED.
    redundant: Vec<Option<u8>>,
    source: Option<Source>,
    payload_type: Option<u8>,
    /// Losses of the sources before the present one.
    lost_before: i64,
    frames: Frames,
}

/// The present source of a section.
struct Source {
    ssrc: u32,
    extender: SequenceExtender,
    stats: ReceiveStats,
    nack: Option<NackGenerator>,
    last_packet: Instant,
}

impl Publication {
    /// A publisher whose sections are these.
    pub fn new(now: Instant, sections: &[MediaSection]) -> Publication {
        let mut by_kind = [None, None];
        let mut sources = Vec::with_capacity(MAX_SOURCES);
        for section in sections {
            for &(media, rtx) in &section.declared_ssrcs {
                for ssrc in std::iter::once(media).chain(rtx) {
                    if sources.len() < MAX_SOURCES {
                        sources.push(KnownSource { ssrc, kind: section.kind, was_adopted: false });
                    }
                }
            }
            by_kind[section.kind.index()] = Some(Incoming::new(section.clone()));
        }
        Publication {
            sections: by_kind,
            sources,
            uplink: Uplink::new(now, sections),
            clock: PublicationClock::default(),
            round_trip: RoundTrip::new(),
        }
    }

    /// The formats of a section.
    pub fn formats(&self, kind: MediaKind) -> &[Format] {
        self.sections[kind.index()].as_ref().map_or(&[], |incoming| &incoming.section.formats)
    }

    /// True if there is a video section.
    pub fn has_video(&self) -> bool {
        self.sections[MediaKind::Video.index()].is_some()
    }

    /// The wall clock of a track.
    pub fn clock_point(&self, kind: MediaKind) -> Option<ClockPoint> {
        self.clock.point(kind)
    }

    /// Takes a decrypted RTP packet; `unix` is the wall-clock time of `now`.
    ///
    /// # Errors
    /// [`DropReason::MalformedRtp`], or [`DropReason::UnknownRtpStream`] if it belongs to no section.
    pub fn on_rtp(
        &mut self,
        now: Instant,
        unix: Duration,
        packet: &[u8],
        tracks: &mut [Track; 2],
    ) -> Result<Accepted, DropReason> {
        let header = RtpHeader::parse(packet).map_err(|_| DropReason::MalformedRtp)?;
        let known = self.source_of(&header, packet)?;
        let known = &mut self.sources[known];
        let kind = known.kind;
        let incoming = self.sections[kind.index()].as_mut().ok_or(DropReason::UnknownRtpStream)?;
        self.uplink.on_packet(now, &incoming.section, &header, packet);
        match incoming.payload_uses[usize::from(header.payload_type & 0x7f)] {
            PayloadUse::Unknown => Err(DropReason::UnknownRtpStream),
            PayloadUse::Media(format) => {
                let payload = header.payload(packet);
                let mut fresh = incoming.adopt(now, &header, packet, known)?;
                let source = incoming.source.as_mut().ok_or(DropReason::UnknownRtpStream)?;
                let Format { clock_rate, rtx_payload_type, .. } = incoming.section.formats[usize::from(format)];
                source.last_packet = now;
                let mut extended = source.extender.extend(header.sequence_number);
                let answer = source.nack.as_mut().and_then(|nack| nack.on_packet(now, extended));
                match answer {
                    // Without RTX it is the packet sent again; with it, only one that was very late.
                    Some(answer) if rtx_payload_type.is_none() => {
                        source.stats.on_resent(header.sequence_number);
                        if let Some(sample) = answer.round_trip {
                            self.round_trip.on_sample(now, sample);
                        }
                    }
                    _ => {
                        let restarted = source.stats.on_rtp(now, header.sequence_number, header.timestamp, clock_rate);
                        // Numbers that jump ahead go on as they are; those that go back would all be too late (RTP-03).
                        if restarted && source.extender.highest() > Some(extended) {
                            extended = source.restart(header.sequence_number);
                            incoming.frames.on_source(&incoming.section.formats);
                            fresh = true;
                        }
                    }
                }
                if let Some(inner) = incoming.redundant[usize::from(format)].filter(|_| !payload.is_empty()) {
                    red::check(payload, inner).map_err(|_| DropReason::MalformedRtp)?;
                }
                let track = &mut tracks[kind.index()];
                // Another clock on the same source begins a time of its own, too.
                if fresh || track.timeline.clock_rate() != clock_rate {
                    track.timeline.end_source();
                    track.timeline.set_clock_rate(clock_rate);
                }
                let arrived = Arrived { now, unix, kind, format, extended, header: &header, packet, payload };
                Ok(incoming.take(&arrived, track, &mut self.clock))
            }
            PayloadUse::Rtx(format) => {
                let repairs_another = incoming.repairs_another(header.ssrc);
                let Some(source) = incoming.source.as_mut().filter(|_| !repairs_another) else {
                    return Ok(Accepted::Consumed);
                };
                // An RTX packet without a whole OSN is a probe (RTCP-10).
                let Some((original, payload)) = rtx::split_payload(header.payload(packet)) else {
                    return Ok(Accepted::Consumed);
                };
                let extended = source.extender.peek(original);
                let answer = source.nack.as_mut().and_then(|nack| nack.on_packet(now, extended));
                if let Some(sample) = answer.and_then(|answer| answer.round_trip) {
                    self.round_trip.on_sample(now, sample);
                }
                let payload_type = incoming.section.formats[usize::from(format)].payload_type;
                let restored = RtpHeader { sequence_number: original, payload_type, ssrc: source.ssrc, ..header };
                let arrived = Arrived { now, unix, kind, format, extended, header: &restored, packet, payload };
                Ok(incoming.take(&arrived, &mut tracks[kind.index()], &mut self.clock))
            }
        }
    }

    /// Takes a sender report of one of the sources. Its time is named in our reports whatever it says of the media.
    ///
    /// # Errors
    /// [`DropReason::ImplausibleSenderReport`] if its times are not believed.
    pub fn on_sender_report(
        &mut self,
        now: Instant,
        unix: Duration,
        report: &SenderReport<'_>,
        tracks: &[Track; 2],
    ) -> Result<(), DropReason> {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let Some(source) = self.sections[kind.index()].as_mut().and_then(|incoming| incoming.source.as_mut())
            else {
                continue;
            };
            if source.ssrc != report.sender_ssrc {
                continue;
            }
            source.stats.on_sender_report(now, report.info.ntp);
            let timeline = &tracks[kind.index()].timeline;
            let (Some(offset), Some((rtp, arrival))) = (timeline.timestamp_offset(), timeline.newest()) else {
                continue;
            };
            let unix_of_arrival = unix.saturating_sub(now.saturating_duration_since(arrival));
            let latest = ClockPoint { unix: unix_of_arrival, rtp, clock_rate: timeline.clock_rate() };
            let rtp = report.info.rtp_timestamp.wrapping_add(offset);
            if !self.clock.on_sender_report(kind, unix, &report.info, rtp, latest) {
                return Err(DropReason::ImplausibleSenderReport);
            }
        }
        Ok(())
    }

    /// The publisher said BYE for a source: the next packet may be of another one.
    pub fn on_bye(&mut self, ssrc: u32) {
        for incoming in self.sections.iter_mut().flatten() {
            if incoming.source.as_ref().is_some_and(|source| source.ssrc == ssrc) {
                incoming.end_source();
            }
        }
    }

    /// One report block per source that sends, and its share of loss.
    pub fn report_blocks(&mut self, now: Instant, mut write: impl FnMut(ReportBlock)) {
        for source in self.sections.iter_mut().flatten().filter_map(|incoming| incoming.source.as_mut()) {
            if let Some(block) = source.stats.report(now) {
                write(block);
            }
        }
    }

    /// Packets lost so far, over all sources.
    pub fn packets_lost(&self) -> i64 {
        let lost = |incoming: &Incoming| {
            incoming.lost_before + incoming.source.as_ref().map_or(0, |source| source.stats.packets_lost())
        };
        self.sections.iter().flatten().map(lost).sum()
    }

    /// The sequence numbers to ask for again, source by source. Returns true if a gap in the video is too old to be
    /// repaired: only a keyframe helps.
    pub fn poll_nack(&mut self, now: Instant, mut write: impl FnMut(u32, &[u16])) -> bool {
        let mut keyframe = false;
        for incoming in self.sections.iter_mut().flatten() {
            let Some(source) = &mut incoming.source else { continue };
            let Some(nack) = &mut source.nack else { continue };
            let due = nack.poll(now, &mut self.round_trip);
            if !due.is_empty() {
                write(source.ssrc, due);
            }
            keyframe |= nack.take_keyframe_needed() && incoming.section.kind == MediaKind::Video;
        }
        keyframe
    }

    /// True if the round-trip time is of use: packets can be asked for again.
    pub fn wants_round_trip(&self) -> bool {
        let mut sources = self.sections.iter().flatten().filter_map(|incoming| incoming.source.as_ref());
        sources.any(|source| source.nack.is_some())
    }

    /// A round trip that the publisher's extended report showed.
    pub fn on_round_trip(&mut self, now: Instant, sample: Duration) {
        self.round_trip.on_sample(now, sample);
    }

    /// The smoothed round-trip time to the publisher, once it was measured.
    pub fn round_trip_time(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Transport-wide feedback, if it is due: one of the sources, and wide sequence numbers with their arrival in
    /// microseconds.
    pub fn poll_arrivals(&mut self, now: Instant, write: impl FnOnce(u32, &[(u16, Option<u64>)])) {
        let media_ssrc = self.sections.iter().flatten().find_map(|i| Some(i.source.as_ref()?.ssrc)).unwrap_or(0);
        if let Uplink::TransportWide(arrivals) = &mut self.uplink {
            arrivals.poll(now, |arrivals| write(media_ssrc, arrivals));
        }
    }

    /// The estimate of the publisher's path in bit/s, if it is to be told, and the sources that share it (RTCP-13).
    pub fn poll_estimate(&mut self, now: Instant) -> Option<(u64, Vec<u32>)> {
        let Uplink::Estimated(estimator) = &mut self.uplink else { return None };
        if let Some(round_trip) = self.round_trip.smoothed() {
            estimator.set_round_trip(round_trip);
        }
        let estimate = estimator.poll(now)?;
        let sources = self.sections.iter().flatten().filter_map(|incoming| incoming.source.as_ref());
        Some((estimate, sources.map(|source| source.ssrc).collect()))
    }

    /// True if the video has B-frames, which viewers show in the wrong order (RTP-11).
    pub fn has_b_frames(&self) -> bool {
        self.sections.iter().flatten().any(|incoming| incoming.frames.has_b_frames())
    }

    /// How to ask for a keyframe: the video source, and PLI or FIR as negotiated; `None` if the publisher knows neither.
    pub fn keyframe_request(&self) -> Option<KeyframeRequest> {
        let incoming = self.sections[MediaKind::Video.index()].as_ref()?;
        let ssrc = incoming.source.as_ref()?.ssrc;
        let feedback = incoming.format()?.feedback;
        if feedback.pli {
            Some(KeyframeRequest::Pli { ssrc })
        } else if feedback.fir {
            Some(KeyframeRequest::Fir { ssrc })
        } else {
            None
        }
    }

    /// MID, then known SSRC, then payload type (RTP-02).
    ///
    /// Returns the index of the packet's source.
    fn source_of(&mut self, header: &RtpHeader, packet: &[u8]) -> Result<usize, DropReason> {
        if let Some(index) = self.sources.iter().position(|known| known.ssrc == header.ssrc) {
            return Ok(index);
        }
        let by_mid = self.sections.iter().flatten().find(|incoming| incoming.names(header, packet));
        let kind = match by_mid {
            Some(incoming) => incoming.section.kind,
            None => {
                let mut users = self.sections.iter().flatten().filter(|incoming| {
                    incoming.payload_uses[usize::from(header.payload_type & 0x7f)] != PayloadUse::Unknown
                });
                match (users.next(), users.next()) {
                    (Some(incoming), None) => incoming.section.kind,
                    _ => return Err(DropReason::UnknownRtpStream),
                }
            }
        };
        if self.sources.len() == MAX_SOURCES {
            self.sources.remove(0);
        }
        self.sources.push(KnownSource { ssrc: header.ssrc, kind, was_adopted: false });
        Ok(self.sources.len() - 1)
    }
}

/// A keyframe request as the publisher understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframeRequest {
    /// RFC 4585 §6.3.1
    Pli {
        /// The media source.
        ssrc: u32,
    },
    /// RFC 5104 §4.3.1
    Fir {
        /// The media source.
        ssrc: u32,
    },
}

/// A packet on its way into a track.
struct Arrived<'a> {
    now: Instant,
    unix: Duration,
    kind: MediaKind,
    format: u8,
    extended: u64,
    header: &'a RtpHeader,
    packet: &'a [u8],
    payload: &'a [u8],
}

impl Source {
    /// Its numbers begin anew; returns the extended one of the first.
    fn restart(&mut self, sequence_number: u16) -> u64 {
        self.extender = SequenceExtender::new();
        let extended = self.extender.extend(sequence_number);
        if let Some(nack) = &mut self.nack {
            nack.reset();
        }
        extended
    }
}

impl Incoming {
    fn new(section: MediaSection) -> Incoming {
        let mut payload_uses = [PayloadUse::Unknown; 128];
        for (index, format) in section.formats.iter().enumerate() {
            payload_uses[usize::from(format.payload_type & 0x7f)] = PayloadUse::Media(index as u8);
            if let Some(rtx) = format.rtx_payload_type {
                payload_uses[usize::from(rtx & 0x7f)] = PayloadUse::Rtx(index as u8);
            }
        }
        let frames = Frames::new(&section.formats);
        let redundant = section.formats.iter().map(Format::redundant_payload_type).collect();
        Incoming { section, payload_uses, redundant, source: None, payload_type: None, lost_before: 0, frames }
    }

    /// The format in use, or the first one before anything came.
    fn format(&self) -> Option<&Format> {
        let used = self.section.formats.iter().find(|format| Some(format.payload_type) == self.payload_type);
        used.or(self.section.formats.first())
    }

    /// True if the packet's MID names this section.
    fn names(&self, header: &RtpHeader, packet: &[u8]) -> bool {
        let id = self.section.extensions.id(Extension::Mid);
        id.and_then(|id| header.extension(packet, id)) == Some(self.section.mid.as_bytes())
    }

    /// True if the description says that this RTX source repairs another source than the present one.
    fn repairs_another(&self, rtx_ssrc: u32) -> bool {
        let present = self.source.as_ref().map(|source| source.ssrc);
        let mut pairs = self.section.declared_ssrcs.iter();
        pairs.any(|&(media, rtx)| rtx == Some(rtx_ssrc) && Some(media) != present)
    }

    /// Makes the packet's SSRC the section's source if it may be; true if it is a new one.
    fn adopt(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        packet: &[u8],
        known: &mut KnownSource,
    ) -> Result<bool, DropReason> {
        if let Some(source) = &self.source {
            if source.ssrc == header.ssrc {
                return Ok(false);
            }
            let silent = now.saturating_duration_since(source.last_packet) >= SOURCE_SILENCE;
            if !silent && (known.was_adopted || !self.names(header, packet)) {
                return Err(DropReason::UnknownRtpStream);
            }
        }
        known.was_adopted = true;
        self.end_source();
        self.frames.on_source(&self.section.formats);
        let nack = self.section.formats.iter().any(|format| format.feedback.nack);
        self.source = Some(Source {
            ssrc: header.ssrc,
            extender: SequenceExtender::new(),
            stats: ReceiveStats::new(header.ssrc),
            nack: nack.then(NackGenerator::new),
            last_packet: now,
        });
        Ok(true)
    }

    fn end_source(&mut self) {
        if let Some(source) = self.source.take() {
            self.lost_before += source.stats.packets_lost();
        }
    }

    fn take(&mut self, arrived: &Arrived<'_>, track: &mut Track, clock: &mut PublicationClock) -> Accepted {
        let &Arrived { now, unix, kind, format, extended, header, packet, payload } = arrived;
        if payload.is_empty() {
            track.timeline.skip(extended);
            return Accepted::Consumed;
        }
        let index = usize::from(format);
        let format = &self.section.formats[index];
        let start = self.frames.inspect(index, format.codec, payload, header.timestamp);
        let new_format = (self.payload_type != Some(format.payload_type)).then_some(format.payload_type);
        let begins = track.timeline.is_between_sources();
        // A new source or another codec is of no use to any decoder before its first keyframe.
        if kind == MediaKind::Video && start == Start::None && (begins || new_format.is_some()) {
            // What is withheld on purpose leaves no gap (RTP-05).
            track.timeline.skip(extended);
            return Accepted::AwaitingKeyframe;
        }
        // Where packets before this one may still come, the sets may be among them, and newer than those that are known.
        let without_sets = start == Start::KeyframeWithoutSets && track.timeline.has_room_before(extended);
        let sets = || without_sets.then(|| self.frames.sets(index)).into_iter().flatten();
        let before = track.timeline.newest();
        let place = track.timeline.place_behind(now, extended, header.timestamp, sets().count() as u8);
        let Some(place) = place else { return Accepted::Consumed };
        let mut info = PacketInfo {
            sequence: place.sequence,
            timestamp: place.timestamp,
            arrived: now,
            payload_type: format.payload_type,
            marker: header.marker,
            keyframe: false,
        };
        let first = place.sequence - sets().count() as u64;
        for (sequence, set) in (first..).zip(sets()) {
            let info = PacketInfo { sequence, marker: false, keyframe: sequence == first, ..info };
            track.admit(info, &[], set);
        }
        let mut begins_keyframe = false;
        if start != Start::None {
            (info.keyframe, begins_keyframe) = self.frames.on_start(Place { sequence: first, ..place });
            // With parameter sets in front, these are the start.
            info.keyframe &= first == place.sequence;
            if let Some(nack) = self.source.as_mut().and_then(|source| source.nack.as_mut()) {
                nack.on_keyframe(extended);
            }
        }
        if begins {
            clock.on_source(kind, unix, place.timestamp, format.clock_rate);
        } else if track.timeline.newest() == Some((place.timestamp, now)) {
            clock.on_packet(kind, unix, place.timestamp);
            if let Some((before, _)) = before {
                self.frames.on_newest(kind, place.timestamp, before, format.clock_rate);
            }
        }
        self.payload_type = Some(format.payload_type);
        let mut elements = Elements::of(&self.section.extensions, header, packet);
        if kind == MediaKind::Video {
            let ends_keyframe = header.marker && self.frames.is_keyframe(place.timestamp);
            self.frames.repeat_orientation(&mut elements, ends_keyframe);
        }
        if !track.admit(info, elements.as_bytes(), payload) {
            return Accepted::Consumed;
        }
        Accepted::Forward { kind, sequence: place.sequence, keyframe: begins_keyframe, new_format }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_continuity;
#[cfg(test)]
mod tests_loss;
