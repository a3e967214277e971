//! One m-section of a publisher: from received packets to packets of its track.

use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::media::{Extension, Format, MediaKind, MediaSection, TrackId};
use crate::rtp::profile::FormatInUse;
use crate::rtp::{RtpHeader, codec, red, rtx};
use crate::stats::DropReason;
use crate::stream::{ClockSteps, Encoding, PacketInfo, Place, StoredExtensions, Tracks};

use super::clock::IngestClock;
use super::frames::{FrameStart, Frames};
use super::receive_stream::{Numbered, ReceiveStream};
use super::ssrcs::{Heard, KnownSsrc};
use super::{Accepted, Timing};

/// A section takes an SSRC that does not say that it is to be taken only when the present one was silent for this long
/// (RTP-03); one that was silent for so long itself has come back.
const SSRC_SILENCE: Duration = Duration::from_millis(200);

/// What a payload type of a section means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadUse {
    Unknown,
    /// Index of the format.
    Media(u8),
    /// Index of the format that is repaired.
    Rtx(u8),
}

/// When media of a section were received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// The last packet with media.
    pub last: Option<Instant>,
    /// Since when packets are received that no decoder can use before a keyframe.
    pub undecodable_since: Option<Instant>,
}

/// The receiver of one m-section.
pub(super) struct SectionReceiver {
    pub(super) track: TrackId,
    negotiated: MediaSection,
    payload_uses: [PayloadUse; 128],
    /// Payload type of the blocks of each format that is RED.
    redundant: Vec<Option<u8>>,
    /// The RTP stream that the section receives.
    pub(super) stream: Option<ReceiveStream>,
    pub(super) reception: Reception,
    /// Losses of the RTP streams before the present one.
    lost_before: i64,
    /// The payload type in use, and the stream's profile.
    in_use: Option<FormatInUse>,
    /// `in_use` was not reported yet.
    format_changed: bool,
    /// No decoder can go on before a keyframe.
    awaits_keyframe: bool,
    frames: Frames,
}

/// An RTP packet on its way into a track.
#[derive(Clone, Copy)]
pub(super) struct IncomingPacket<'a> {
    /// When it was received.
    pub(super) now: Instant,
    /// The same by the wall clock.
    pub(super) unix: Duration,
    /// Index of its format; for RTX, of the format that is repaired.
    pub(super) format: u8,
    pub(super) header: &'a RtpHeader,
    /// All of it, for its header extensions.
    pub(super) packet: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// A packet with its place in the track.
struct Placed {
    info: PacketInfo,
    /// It is the first packet received of a keyframe.
    is_new_keyframe: bool,
}

impl SectionReceiver {
    pub(super) fn new(track: TrackId, negotiated: MediaSection) -> SectionReceiver {
        let mut payload_uses = [PayloadUse::Unknown; 128];
        for (index, format) in negotiated.formats.iter().enumerate() {
            payload_uses[usize::from(format.payload_type & 0x7f)] = PayloadUse::Media(index as u8);
            if let Some(rtx) = format.rtx_payload_type {
                payload_uses[usize::from(rtx & 0x7f)] = PayloadUse::Rtx(index as u8);
            }
        }
        SectionReceiver {
            track,
            payload_uses,
            redundant: negotiated.formats.iter().map(Format::redundant_payload_type).collect(),
            stream: None,
            reception: Reception::default(),
            lost_before: 0,
            in_use: None,
            format_changed: false,
            awaits_keyframe: false,
            frames: Frames::new(&negotiated.formats),
            negotiated,
        }
    }

    /// What was negotiated for the section.
    pub(super) fn negotiated(&self) -> &MediaSection {
        &self.negotiated
    }

    /// The formats of the section.
    pub(super) fn formats(&self) -> &[Format] {
        &self.negotiated.formats
    }

    /// The format in use, or the first one before any packet.
    pub(super) fn format(&self) -> Option<&Format> {
        let used = self.formats().iter().find(|format| self.is_in_use(format.payload_type));
        used.or(self.formats().first())
    }

    pub(super) fn payload_use(&self, payload_type: u8) -> PayloadUse {
        self.payload_uses[usize::from(payload_type & 0x7f)]
    }

    /// True if the packet's MID names this section.
    pub(super) fn is_named_by(&self, header: &RtpHeader, packet: &[u8]) -> bool {
        let id = self.negotiated.extensions.id(Extension::Mid);
        id.and_then(|id| header.extension(packet, id)) == Some(self.negotiated.mid.as_bytes())
    }

    /// True if what is in use has changed since it was taken last.
    pub(super) fn has_format_change(&self) -> bool {
        self.format_changed
    }

    /// What is in use, if it has changed since the last call.
    pub(super) fn take_format_change(&mut self) -> Option<FormatInUse> {
        let changed = std::mem::take(&mut self.format_changed);
        self.in_use.filter(|_| changed)
    }

    fn is_in_use(&self, payload_type: u8) -> bool {
        self.in_use.is_some_and(|in_use| in_use.payload_type == payload_type)
    }

    /// Packets lost so far, over all of its RTP streams.
    pub(super) fn packets_lost(&self) -> i64 {
        self.lost_before + self.stream.as_ref().map_or(0, |stream| stream.stats.packets_lost())
    }

    pub(super) fn has_b_frames(&self) -> bool {
        self.frames.has_b_frames()
    }

    /// The next packet may be of another RTP stream.
    pub(super) fn end_stream(&mut self) {
        self.lost_before = self.packets_lost();
        self.stream = None;
    }

    /// Takes a packet of a media format, whose SSRC is `known`.
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if the section receives another SSRC, or [`DropReason::MalformedRtp`].
    pub(super) fn on_media(
        &mut self,
        incoming: &IncomingPacket<'_>,
        known: &mut KnownSsrc,
        tracks: &mut Tracks,
        timing: &mut Timing,
    ) -> Result<Accepted, DropReason> {
        let &IncomingPacket { now, format: index, header, payload, .. } = incoming;
        let adopted = self.adopt(incoming, known)?;
        let Some(stream) = &mut self.stream else { return Err(DropReason::UnknownRtpStream) };
        let format = &self.negotiated.formats[usize::from(index)];
        let clock_rate = format.clock_rate;
        let Numbered { extended, restarted } = stream.on_media(now, header, format, &mut timing.round_trip);
        if restarted {
            self.frames.on_new_stream(&self.negotiated.formats);
        }
        if let Some(inner) = self.redundant[usize::from(index)].filter(|_| !payload.is_empty()) {
            red::check(payload, inner).map_err(|_| DropReason::MalformedRtp)?;
        }
        let (encoding, requests_are_ignored) = destination(tracks, self.track, stream.encoding)?;
        // Another clock on the same SSRC starts RTP times of its own, too.
        if adopted || restarted || encoding.timeline.clock_rate() != clock_rate {
            encoding.timeline.end_segment();
            encoding.timeline.set_clock_rate(clock_rate);
        }
        Ok(self.take(incoming, extended, (encoding, requests_are_ignored), &mut timing.clock))
    }

    /// Takes an RTX packet (RFC 4588).
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if the track is gone.
    pub(super) fn on_retransmission(
        &mut self,
        incoming: &IncomingPacket<'_>,
        tracks: &mut Tracks,
        timing: &mut Timing,
    ) -> Result<Accepted, DropReason> {
        let repairs_another = self.repairs_another(incoming.header.ssrc);
        let Some(stream) = self.stream.as_mut().filter(|_| !repairs_another) else {
            return Ok(Accepted::Consumed);
        };
        // An RTX packet without a whole OSN is a probe (RTCP-10).
        let Some((original, payload)) = rtx::split_payload(incoming.payload) else {
            return Ok(Accepted::Consumed);
        };
        let extended = stream.on_retransmission(incoming.now, original, &mut timing.round_trip);
        let payload_type = self.negotiated.formats[usize::from(incoming.format)].payload_type;
        let restored = RtpHeader { sequence_number: original, payload_type, ssrc: stream.ssrc, ..*incoming.header };
        let destination = destination(tracks, self.track, stream.encoding)?;
        let incoming = IncomingPacket { header: &restored, payload, ..*incoming };
        Ok(self.take(&incoming, extended, destination, &mut timing.clock))
    }

    /// True if the description says that this RTX stream repairs another one than the section receives.
    fn repairs_another(&self, rtx_ssrc: u32) -> bool {
        let present = self.stream.as_ref().map(|stream| stream.ssrc);
        let mut pairs = self.negotiated.declared_ssrcs.iter();
        pairs.any(|&(media, rtx)| rtx == Some(rtx_ssrc) && Some(media) != present)
    }

    /// Receives the packet's SSRC from now on, if it may replace the present one; true if it is another one.
    fn adopt(&mut self, incoming: &IncomingPacket<'_>, known: &mut KnownSsrc) -> Result<bool, DropReason> {
        let &IncomingPacket { now, header, .. } = incoming;
        let heard = known.hear(now, header.sequence_number, SSRC_SILENCE);
        if let Some(present) = &self.stream {
            if present.ssrc == header.ssrc {
                return Ok(false);
            }
            if present.silence(now) < SSRC_SILENCE && !self.takes_over(incoming, known.was_adopted, heard) {
                return Err(DropReason::UnknownRtpStream);
            }
        }
        known.was_adopted = true;
        self.end_stream();
        self.frames.on_new_stream(&self.negotiated.formats);
        let has_nack = self.formats().iter().any(|format| format.feedback.nack);
        self.stream = Some(ReceiveStream::new(now, header.ssrc, has_nack));
        Ok(true)
    }

    /// True if the packet says that its SSRC is to be taken at once. A new one says so by its MID, or by a second packet of
    /// audio in order; a new one, and one that comes back after silence, by a keyframe or the parameter sets in front of it,
    /// which may be the only one for long. Of two that both send, each does so once.
    fn takes_over(&self, incoming: &IncomingPacket<'_>, was_adopted: bool, heard: Heard) -> bool {
        let &IncomingPacket { header, packet, payload, .. } = incoming;
        if !was_adopted && (self.is_named_by(header, packet) || self.track.kind == MediaKind::Audio && heard.in_order) {
            return true;
        }
        let codec = self.negotiated.formats[usize::from(incoming.format)].codec;
        self.track.kind == MediaKind::Video
            && (!was_adopted || heard.came_back)
            && codec::start(codec, payload) != codec::Start::None
    }

    /// Takes a packet into the track, unless it is padding or no decoder can use it.
    fn take(
        &mut self,
        incoming: &IncomingPacket<'_>,
        extended: u64,
        (encoding, requests_are_ignored): (&mut Encoding, bool),
        clock: &mut IngestClock,
    ) -> Accepted {
        let &IncomingPacket { now, unix, header, payload, .. } = incoming;
        if payload.is_empty() {
            encoding.timeline.skip(extended);
            return Accepted::Consumed;
        }
        self.reception.last = Some(now);
        let index = usize::from(incoming.format);
        let Format { codec, payload_type, clock_rate, .. } = self.negotiated.formats[index];
        let mut start = self.frames.inspect(index, codec, payload, header.timestamp);
        if start == FrameStart::RecoveryPoint && !(requests_are_ignored && encoding.start(now).is_none()) {
            // The publisher answers, or viewers have something better to start with.
            start = FrameStart::None;
        }
        let is_first = encoding.timeline.is_between_segments();
        let is_new_format = !self.is_in_use(payload_type);
        // Another RTP stream or codec is of no use to any decoder before its first keyframe and the parameter sets of that.
        let begins = self.track.kind == MediaKind::Video && (is_first || is_new_format);
        self.awaits_keyframe = (self.awaits_keyframe || begins) && !start.is_decodable();
        // Until a keyframe, though viewers may have begun at a recovery point.
        let is_undecodable = (self.reception.undecodable_since.is_some() || begins) && !start.is_keyframe();
        let since = self.reception.undecodable_since.unwrap_or(now);
        self.reception.undecodable_since = is_undecodable.then_some(since);
        if self.awaits_keyframe && start != FrameStart::ParameterSets {
            // Packets that are withheld leave no gap (RTP-05).
            encoding.timeline.skip(extended);
            return Accepted::AwaitingKeyframe { track: self.track };
        }
        let before = encoding.timeline.newest_time();
        let Some(placed) = self.place(incoming, extended, start, encoding, &mut clock.steps) else {
            return Accepted::Consumed;
        };
        if is_first {
            clock.on_first_packet(self.track, ClockPoint { unix, rtp: placed.info.timestamp, clock_rate });
        } else if let Some(arrival) = encoding.timeline.arrival(unix)
            && let Some(before) = before.filter(|&before| Some(before) != encoding.timeline.newest_time())
        {
            clock.on_frame(self.track, arrival);
            if self.frames.on_frame(self.track.kind, header.timestamp, before, clock_rate) {
                encoding.timeline.set_reorders(self.has_b_frames());
            }
        }
        self.admit(incoming, &placed, encoding, start != FrameStart::None)
    }

    /// Gives a packet its place on the time line, after the parameter sets that its keyframe lacks. `None` if it is too old.
    fn place(
        &mut self,
        incoming: &IncomingPacket<'_>,
        extended: u64,
        start: FrameStart,
        encoding: &mut Encoding,
        steps: &mut ClockSteps,
    ) -> Option<Placed> {
        let &IncomingPacket { now, header, .. } = incoming;
        let index = usize::from(incoming.format);
        // Where earlier packets may still be received, the sets may be among them, and newer than those that are known.
        let lacks_sets = start == FrameStart::KeyframeWithoutSets && encoding.timeline.can_insert_before(extended);
        let sets = || lacks_sets.then(|| self.frames.sets(index)).into_iter().flatten();
        let inserted = sets().count();
        let duration = codec::duration(self.negotiated.formats[index].codec, incoming.payload);
        let packet = (extended, header.timestamp, duration);
        let place = encoding.timeline.place_after_inserted(now, packet, inserted as u8, steps)?;
        let mut info = PacketInfo {
            sequence: place.sequence,
            timestamp: place.timestamp,
            arrived: now,
            payload_type: self.negotiated.formats[index].payload_type,
            marker: header.marker,
            keyframe: false,
        };
        let first = place.sequence - inserted as u64;
        for (sequence, set) in (first..).zip(sets()) {
            encoding.admit(PacketInfo { sequence, marker: false, keyframe: sequence == first, ..info }, &[], set);
        }
        let mut is_new_keyframe = false;
        if start.is_keyframe() {
            (info.keyframe, is_new_keyframe) = self.frames.on_keyframe(Place { sequence: first, ..place });
            // After inserted parameter sets, these are where decoders start.
            info.keyframe &= inserted == 0;
            if let Some(stream) = &mut self.stream {
                stream.on_keyframe(extended);
            }
        } else if start == FrameStart::RecoveryPoint {
            info.keyframe = true;
            self.frames.on_recovery_point(place.timestamp);
        }
        Some(Placed { info, is_new_keyframe })
    }

    /// Puts a packet into the cache, with the header extensions that viewers may get. Only where a decoder can start the
    /// profile may have changed.
    fn admit(
        &mut self,
        incoming: &IncomingPacket<'_>,
        placed: &Placed,
        encoding: &mut Encoding,
        starts: bool,
    ) -> Accepted {
        let &IncomingPacket { header, packet, payload, .. } = incoming;
        let &Placed { info, is_new_keyframe } = placed;
        if starts || !self.is_in_use(info.payload_type) {
            let profile = self.frames.profile(usize::from(incoming.format));
            let in_use = Some(FormatInUse { payload_type: info.payload_type, profile });
            self.format_changed |= self.in_use != in_use;
            self.in_use = in_use;
        }
        let mut extensions = StoredExtensions::of(&self.negotiated.extensions, header, packet);
        if self.track.kind == MediaKind::Video {
            let ends_start = header.marker && self.frames.is_start(info.timestamp);
            self.frames.repeat_orientation(&mut extensions, ends_start);
        }
        if !encoding.admit(info, extensions.as_bytes(), payload) {
            return Accepted::Consumed;
        }
        let decodable = self.reception.undecodable_since.is_none();
        Accepted::Forward { track: self.track, sequence: info.sequence, keyframe: is_new_keyframe, decodable }
    }
}

/// The encoding that a packet goes to, and whether the publisher takes no requests for keyframes of it or ignores them.
fn destination(tracks: &mut Tracks, id: TrackId, encoding: u8) -> Result<(&mut Encoding, bool), DropReason> {
    let track = tracks.get_mut(id).ok_or(DropReason::UnknownRtpStream)?;
    let requests_are_ignored = track.keyframe_requests.are_ignored();
    Ok((track.encoding_mut(encoding).ok_or(DropReason::UnknownRtpStream)?, requests_are_ignored))
}
