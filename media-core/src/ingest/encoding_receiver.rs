//! One encoding of a publisher's section: from received packets to packets of the track.

use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::layers::PacketLayer;
use crate::media::{Extension, Format, MediaKind};
use crate::rtp::layers::LayerReader;
use crate::rtp::profile::FormatInUse;
use crate::rtp::sequence::timestamp_is_newer;
use crate::rtp::video_layers_allocation::VideoLayersAllocation;
use crate::rtp::{RtpHeader, codec, red, rtx};
use crate::stats::DropReason;
use crate::stream::{ClockSteps, Encoding, PacketInfo, Place, StoredExtensions, Track, Tracks};

use super::clock::IngestClock;
use super::frames::{FrameStart, Frames};
use super::receive_stream::{Numbered, ReceiveStream};
use super::section::{IncomingPacket, Section};
use super::ssrcs::{Heard, KnownSsrc};
use super::{Accepted, Timing};

/// An SSRC that does not say that it is to be taken is taken only when the present one was silent for this long (RTP-03); one
/// that was silent for so long itself has come back.
const SSRC_SILENCE: Duration = Duration::from_millis(200);

/// When media were received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// The last packet with media.
    pub last: Option<Instant>,
    /// Since when packets are received that no decoder can use before a keyframe.
    pub undecodable_since: Option<Instant>,
}

/// The receiver of one encoding.
pub(super) struct EncodingReceiver {
    /// Its position among those of the track.
    index: u8,
    /// The RTP stream that it receives.
    pub(super) stream: Option<ReceiveStream>,
    pub(super) reception: Reception,
    /// Losses of the RTP streams before the present one.
    lost_before: i64,
    /// The payload type in use, and the stream's profile.
    pub(super) in_use: Option<FormatInUse>,
    /// `in_use` was not reported yet.
    pub(super) format_changed: bool,
    /// No decoder can go on before a keyframe.
    awaits_keyframe: bool,
    frames: Frames,
    layers: LayerReader,
    /// Ticks by which its time line is to be moved.
    misaligned: Option<i64>,
}

/// A packet with its place in the track.
struct Placed {
    info: PacketInfo,
    /// It is the first packet received of a keyframe.
    is_new_keyframe: bool,
}

impl EncodingReceiver {
    pub(super) fn new(index: u8, formats: &[Format]) -> EncodingReceiver {
        EncodingReceiver {
            index,
            stream: None,
            reception: Reception::default(),
            lost_before: 0,
            in_use: None,
            format_changed: false,
            awaits_keyframe: false,
            frames: Frames::new(formats),
            layers: LayerReader::new(),
            misaligned: None,
        }
    }

    /// Of the formats of its section the one in use, or the first one before any packet.
    pub(super) fn format<'a>(&self, formats: &'a [Format]) -> Option<&'a Format> {
        let used = formats.iter().find(|format| self.is_in_use(format.payload_type));
        used.or(formats.first())
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

    /// True if it receives this SSRC.
    pub(super) fn receives(&self, ssrc: u32) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ssrc == ssrc)
    }

    /// True if the packet with this number was requested and has not come since.
    pub(super) fn has_requested(&self, sequence_number: u16) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.has_requested(sequence_number))
    }

    /// Its timestamps are so many ticks too low, beside those of the track's other encodings.
    pub(super) fn set_misaligned(&mut self, ticks: Option<i64>) {
        self.misaligned = ticks.or(self.misaligned);
    }

    /// Another encoder may be behind what comes next.
    fn on_new_stream(&mut self, section: &Section) {
        self.frames.on_new_stream(section.formats());
        self.layers.on_new_stream();
    }

    /// The next packet may be of another RTP stream.
    pub(super) fn end_stream(&mut self) {
        self.lost_before = self.packets_lost();
        self.stream = None;
    }

    /// Takes a packet of a media format, whose SSRC is known, from now on if it `is_named` by the packet.
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if it receives another SSRC, or [`DropReason::MalformedRtp`].
    pub(super) fn on_media(
        &mut self,
        section: &Section,
        incoming: &IncomingPacket<'_>,
        (known, is_named): (&mut KnownSsrc, bool),
        tracks: &mut Tracks,
        timing: &mut Timing,
    ) -> Result<Accepted, DropReason> {
        let &IncomingPacket { now, format: index, header, payload, .. } = incoming;
        let adopted = self.adopt(section, incoming, (known, is_named))?;
        let Some(stream) = &mut self.stream else { return Err(DropReason::UnknownRtpStream) };
        let format = &section.formats()[usize::from(index)];
        let clock_rate = format.clock_rate;
        let Numbered { extended, restarted } = stream.on_media(now, header, format, &mut timing.round_trip);
        if restarted {
            self.on_new_stream(section);
        }
        if let Some(inner) = section.redundant[usize::from(index)].filter(|_| !payload.is_empty()) {
            red::check(payload, inner).map_err(|_| DropReason::MalformedRtp)?;
        }
        let track = tracks.get_mut(section.track).ok_or(DropReason::UnknownRtpStream)?;
        let encoding = track.encoding_mut(self.index).ok_or(DropReason::UnknownRtpStream)?;
        // Another clock on the same SSRC starts RTP times of its own, too.
        if adopted || restarted || encoding.timeline.clock_rate() != clock_rate {
            encoding.timeline.end_segment();
            encoding.forget_allocation();
            encoding.timeline.set_clock_rate(clock_rate);
        }
        self.take(section, incoming, extended, track, &mut timing.clock)
    }

    /// Takes an RTX packet (RFC 4588).
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if the track is gone.
    pub(super) fn on_retransmission(
        &mut self,
        section: &Section,
        incoming: &IncomingPacket<'_>,
        tracks: &mut Tracks,
        timing: &mut Timing,
    ) -> Result<Accepted, DropReason> {
        let repairs_another = self.repairs_another(section, incoming.header.ssrc);
        let Some(stream) = self.stream.as_mut().filter(|_| !repairs_another) else {
            return Ok(Accepted::Consumed);
        };
        // An RTX packet without a whole OSN is a probe (RTCP-10).
        let Some((original, payload)) = rtx::split_payload(incoming.payload) else {
            return Ok(Accepted::Consumed);
        };
        let extended = stream.on_retransmission(incoming.now, original, &mut timing.round_trip);
        let payload_type = section.formats()[usize::from(incoming.format)].payload_type;
        let restored = RtpHeader { sequence_number: original, payload_type, ssrc: stream.ssrc, ..*incoming.header };
        let track = tracks.get_mut(section.track).ok_or(DropReason::UnknownRtpStream)?;
        let incoming = IncomingPacket { header: &restored, payload, ..*incoming };
        self.take(section, &incoming, extended, track, &mut timing.clock)
    }

    /// True if the description says that this RTX stream repairs another one than is received.
    fn repairs_another(&self, section: &Section, rtx_ssrc: u32) -> bool {
        let present = self.stream.as_ref().map(|stream| stream.ssrc);
        let mut pairs = section.negotiated.declared_ssrcs.iter();
        pairs.any(|&(media, rtx)| rtx == Some(rtx_ssrc) && Some(media) != present)
    }

    /// Receives the packet's SSRC from now on, if it may replace the present one; true if it is another one.
    fn adopt(
        &mut self,
        section: &Section,
        incoming: &IncomingPacket<'_>,
        (known, is_named): (&mut KnownSsrc, bool),
    ) -> Result<bool, DropReason> {
        let &IncomingPacket { now, header, .. } = incoming;
        let heard = known.hear(now, header.sequence_number, SSRC_SILENCE);
        if let Some(present) = &self.stream {
            if present.ssrc == header.ssrc {
                return Ok(false);
            }
            let takes_over = || is_named || takes_over(section, incoming, known.was_adopted, heard);
            if present.silence(now) < SSRC_SILENCE && !takes_over() {
                return Err(DropReason::UnknownRtpStream);
            }
        }
        known.was_adopted = true;
        self.end_stream();
        self.on_new_stream(section);
        let has_nack = section.formats().iter().any(|format| format.feedback.nack);
        self.stream = Some(ReceiveStream::new(now, header.ssrc, has_nack));
        Ok(true)
    }

    /// Takes a packet into the track, unless it is padding or no decoder can use it.
    fn take(
        &mut self,
        section: &Section,
        incoming: &IncomingPacket<'_>,
        extended: u64,
        track: &mut Track,
        clock: &mut IngestClock,
    ) -> Result<Accepted, DropReason> {
        let &IncomingPacket { now, unix, header, payload, .. } = incoming;
        let encoding = track.encoding_mut(self.index).ok_or(DropReason::UnknownRtpStream)?;
        if payload.is_empty() {
            encoding.timeline.skip(extended);
            return Ok(Accepted::Consumed);
        }
        self.reception.last = Some(now);
        let index = usize::from(incoming.format);
        let Format { codec, payload_type, clock_rate, .. } = section.formats()[index];
        let kind = section.track.kind;
        let is_first = encoding.timeline.is_between_segments();
        let is_new_format = !self.is_in_use(payload_type);
        if kind == MediaKind::Video && is_new_format && self.in_use.is_some() {
            // What another codec said of sizes and layers is nothing to this one.
            self.on_new_stream(section);
        }
        let mut start = self.frames.inspect(index, codec, payload, header.timestamp);
        if start == FrameStart::RecoveryPoint
            && !(encoding.keyframe_requests.are_ignored() && encoding.start(now).is_none())
        {
            // The publisher answers, or viewers have something better to start with.
            start = FrameStart::None;
        }
        // Another RTP stream or codec is of no use to any decoder before its first keyframe and the parameter sets of that.
        let begins = kind == MediaKind::Video && (is_first || is_new_format);
        self.awaits_keyframe = (self.awaits_keyframe || begins) && !start.is_decodable();
        // Until a keyframe, though viewers may have begun at a recovery point.
        let is_undecodable = (self.reception.undecodable_since.is_some() || begins) && !start.is_keyframe();
        let since = self.reception.undecodable_since.unwrap_or(now);
        self.reception.undecodable_since = is_undecodable.then_some(since);
        if self.awaits_keyframe && start != FrameStart::ParameterSets {
            // Packets that are withheld leave no gap (RTP-05).
            encoding.timeline.skip(extended);
            return Ok(Accepted::AwaitingKeyframe { track: section.track, encoding: self.index });
        }
        if is_first {
            track.align(now, self.index);
        }
        let before = track.encoding(self.index).and_then(|encoding| encoding.timeline.newest_time());
        // One that was sent again is older than what is known.
        let is_newest = before.is_none_or(|newest| !timestamp_is_newer(newest, header.timestamp));
        if kind == MediaKind::Video
            && is_newest
            && let Some(allocation) = section.element(Extension::VideoLayersAllocation, header, incoming.packet)
            && let Ok(allocation) = VideoLayersAllocation::parse(allocation)
        {
            track.on_allocation(&allocation);
        }
        let encoding = track.encoding_mut(self.index).ok_or(DropReason::UnknownRtpStream)?;
        if let Some(ticks) = self.misaligned.take().filter(|_| !is_first) {
            encoding.timeline.set_misaligned(ticks);
        }
        let Some(placed) = self.place(section, incoming, (extended, start), encoding, &mut clock.steps) else {
            return Ok(Accepted::Consumed);
        };
        let name = (section.track, self.index);
        if is_first {
            clock.on_first_packet(now, name, ClockPoint { unix, rtp: placed.info.timestamp, clock_rate });
        } else if let Some(arrival) = encoding.timeline.arrival(unix)
            && let Some(before) = before.filter(|&before| Some(before) != encoding.timeline.newest_time())
        {
            clock.on_frame(now, name, arrival);
            if self.frames.on_frame(kind, header.timestamp, before, clock_rate) {
                encoding.timeline.set_reorders(self.has_b_frames());
            }
        }
        Ok(self.admit(section, incoming, &placed, encoding, start != FrameStart::None))
    }

    /// Gives a packet its place on the time line, after the parameter sets that its keyframe lacks. `None` if it is too old.
    fn place(
        &mut self,
        section: &Section,
        incoming: &IncomingPacket<'_>,
        (extended, start): (u64, FrameStart),
        encoding: &mut Encoding,
        steps: &mut ClockSteps,
    ) -> Option<Placed> {
        let &IncomingPacket { now, header, .. } = incoming;
        let index = usize::from(incoming.format);
        let format = &section.formats()[index];
        // Where earlier packets may still be received, the sets may be among them, and newer than those that are known.
        let lacks_sets = start == FrameStart::KeyframeWithoutSets && encoding.timeline.can_insert_before(extended);
        let sets = || lacks_sets.then(|| self.frames.sets(index)).into_iter().flatten();
        let inserted = sets().count();
        let duration = codec::duration(format.codec, incoming.payload);
        let packet = (extended, header.timestamp, duration);
        let place = encoding.timeline.place_after_inserted(now, packet, inserted as u8, steps)?;
        let mut info = PacketInfo {
            sequence: place.sequence,
            timestamp: place.timestamp,
            arrived: now,
            payload_type: format.payload_type,
            marker: header.marker,
            keyframe: false,
            layer: PacketLayer::ONLY,
        };
        let first = place.sequence - inserted as u64;
        for (sequence, set) in (first..).zip(sets()) {
            encoding.admit(PacketInfo { sequence, marker: false, keyframe: sequence == first, ..info }, &[], set);
        }
        if section.track.kind == MediaKind::Video {
            info.layer = self.read_layer(section, incoming, start, encoding);
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

    /// The layer of a packet of video. Sizes and points are looked at where decoders start and where a descriptor says them.
    #[inline]
    fn read_layer(
        &mut self,
        section: &Section,
        incoming: &IncomingPacket<'_>,
        start: FrameStart,
        encoding: &mut Encoding,
    ) -> PacketLayer {
        let &IncomingPacket { header, packet, payload, .. } = incoming;
        let codec = section.formats()[usize::from(incoming.format)].codec;
        let descriptor = section.element(Extension::DependencyDescriptor, header, packet);
        let mut layer = self.layers.read(codec, payload, descriptor);
        layer.frame_end |= header.marker;
        let points = self.layers.points();
        if start != FrameStart::None || points != encoding.described.points {
            encoding.described.points = points;
            for (spatial, size) in (0..).zip(&mut encoding.described.sizes) {
                *size = self.layers.size(spatial).or(*size);
            }
            encoding.described.sizes[0] = self.frames.size().or(encoding.described.sizes[0]);
        }
        layer
    }

    /// Puts a packet into the cache, with the header extensions that viewers may get. Only where a decoder can start the
    /// profile may have changed.
    fn admit(
        &mut self,
        section: &Section,
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
        let mut extensions = StoredExtensions::of(&section.negotiated.extensions, header, packet);
        if section.track.kind == MediaKind::Video {
            let ends_start = header.marker && self.frames.is_start(info.timestamp);
            self.frames.repeat_orientation(&mut extensions, ends_start);
        }
        if !encoding.admit(info, extensions.as_bytes(), payload) {
            return Accepted::Consumed;
        }
        Accepted::Forward {
            track: section.track,
            encoding: self.index,
            sequence: info.sequence,
            keyframe: is_new_keyframe,
            decodable: self.reception.undecodable_since.is_none(),
        }
    }
}

/// True if the packet says that its SSRC is to be taken at once. A new one says so by its MID, or by a second packet of
/// audio in order; a new one, and one that comes back after silence, by a keyframe or the parameter sets in front of it,
/// which may be the only one for long. Of two that both send, each does so once.
fn takes_over(section: &Section, incoming: &IncomingPacket<'_>, was_adopted: bool, heard: Heard) -> bool {
    let &IncomingPacket { header, packet, payload, .. } = incoming;
    let kind = section.track.kind;
    if !was_adopted && (section.is_named_by(header, packet) || kind == MediaKind::Audio && heard.in_order) {
        return true;
    }
    let codec = section.formats()[usize::from(incoming.format)].codec;
    kind == MediaKind::Video && (!was_adopted || heard.came_back) && codec::start(codec, payload) != codec::Start::None
}
