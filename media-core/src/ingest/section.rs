//! One m-section of a publisher: which of its encodings a packet belongs to.

use std::time::{Duration, Instant};

use crate::media::{Extension, Format, MediaSection, TrackId};
use crate::rtp::RtpHeader;
use crate::rtp::profile::FormatInUse;
use crate::rtp::rtx;
use crate::stats::DropReason;
use crate::stream::Tracks;

use super::encoding_receiver::{EncodingReceiver, Reception};
use super::ssrcs::KnownSsrc;
use super::{Accepted, Timing};

/// Encodings of which nothing was received for so much longer than of another one are not counted: their layers are paused.
const PAUSED: Duration = Duration::from_secs(1);

/// What a payload type of a section means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadUse {
    Unknown,
    /// Index of the format.
    Media(u8),
    /// Index of the format that is repaired.
    Rtx(u8),
}

/// What was negotiated for an m-section.
pub(super) struct Section {
    pub(super) track: TrackId,
    pub(super) negotiated: MediaSection,
    payload_uses: [PayloadUse; 128],
    /// Payload type of the blocks of each format that is RED.
    pub(super) redundant: Vec<Option<u8>>,
}

/// The receiver of one m-section.
pub(super) struct SectionReceiver {
    section: Section,
    /// By their positions among those of the track; one, without simulcast.
    encodings: Vec<EncodingReceiver>,
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

impl Section {
    fn new(track: TrackId, negotiated: MediaSection) -> Section {
        let mut payload_uses = [PayloadUse::Unknown; 128];
        for (index, format) in negotiated.formats.iter().enumerate() {
            payload_uses[usize::from(format.payload_type & 0x7f)] = PayloadUse::Media(index as u8);
            if let Some(rtx) = format.rtx_payload_type {
                payload_uses[usize::from(rtx & 0x7f)] = PayloadUse::Rtx(index as u8);
            }
        }
        let redundant = negotiated.formats.iter().map(Format::redundant_payload_type).collect();
        Section { track, negotiated, payload_uses, redundant }
    }

    /// The formats of the section.
    pub(super) fn formats(&self) -> &[Format] {
        &self.negotiated.formats
    }

    /// True if the packet's MID names this section.
    pub(super) fn is_named_by(&self, header: &RtpHeader, packet: &[u8]) -> bool {
        self.element(Extension::Mid, header, packet) == Some(self.negotiated.mid.as_bytes())
    }

    /// The data of a header extension's first element.
    pub(super) fn element<'a>(&self, extension: Extension, header: &RtpHeader, packet: &'a [u8]) -> Option<&'a [u8]> {
        header.extension(packet, self.negotiated.extensions.id(extension)?)
    }

    /// The encoding that a packet names by its rid.
    fn encoding_named(&self, extension: Extension, header: &RtpHeader, packet: &[u8]) -> Option<u8> {
        let named = self.element(extension, header, packet)?;
        let is_named = |rid: &Option<String>| rid.as_ref().is_some_and(|rid| rid.as_bytes() == named);
        let index = self.negotiated.simulcast.iter().position(|encoding| is_named(&encoding.rid))?;
        u8::try_from(index).ok()
    }

    /// True if the encoding takes a format: `pt=` of its rid may restrict it (RFC 8851 §5).
    fn takes(&self, encoding: u8, format: u8) -> bool {
        let Some(restricted) = self.negotiated.simulcast.get(usize::from(encoding)) else { return true };
        let types = &restricted.payload_types;
        types.is_empty() || types.contains(&self.formats()[usize::from(format)].payload_type)
    }
}

impl SectionReceiver {
    pub(super) fn new(track: TrackId, negotiated: MediaSection) -> SectionReceiver {
        let count = negotiated.simulcast.len().clamp(1, crate::layers::MAX_ENCODINGS) as u8;
        let encodings = (0..count).map(|index| EncodingReceiver::new(index, &negotiated.formats)).collect();
        SectionReceiver { section: Section::new(track, negotiated), encodings }
    }

    /// The track that it fills.
    pub(super) fn track(&self) -> TrackId {
        self.section.track
    }

    /// What was negotiated for the section.
    pub(super) fn negotiated(&self) -> &MediaSection {
        &self.section.negotiated
    }

    /// The formats of the section.
    pub(super) fn formats(&self) -> &[Format] {
        self.section.formats()
    }

    /// Its encodings, by their positions.
    pub(super) fn encodings(&self) -> &[EncodingReceiver] {
        &self.encodings
    }

    /// As [`SectionReceiver::encodings`].
    pub(super) fn encodings_mut(&mut self) -> &mut [EncodingReceiver] {
        &mut self.encodings
    }

    /// The format that an encoding uses, or the first one before any packet.
    pub(super) fn format(&self, encoding: u8) -> Option<&Format> {
        self.encodings.get(usize::from(encoding))?.format(self.formats())
    }

    pub(super) fn payload_use(&self, payload_type: u8) -> PayloadUse {
        self.section.payload_uses[usize::from(payload_type & 0x7f)]
    }

    /// True if the packet's MID names this section.
    pub(super) fn is_named_by(&self, header: &RtpHeader, packet: &[u8]) -> bool {
        self.section.is_named_by(header, packet)
    }

    /// The encoding of a new SSRC, where it needs no name: the only one, or that with which the description declares it, as
    /// media or, by `a=ssrc-group:FID`, as RTX.
    pub(super) fn encoding_of(&self, ssrc: u32) -> Option<u8> {
        let MediaSection { simulcast, declared_ssrcs, .. } = &self.section.negotiated;
        if simulcast.is_empty() {
            return Some(0);
        }
        let repaired = declared_ssrcs.iter().find(|(_, rtx)| *rtx == Some(ssrc));
        let media = repaired.map_or(ssrc, |(media, _)| *media);
        let index = simulcast.iter().position(|encoding| encoding.ssrc == Some(media))?;
        u8::try_from(index).ok()
    }

    /// True if what is in use has changed since it was taken last. Encodings may differ in their profiles' levels: the first one
    /// that is received stands for all.
    pub(super) fn has_format_change(&self) -> bool {
        self.encodings.iter().find(|encoding| encoding.in_use.is_some()).is_some_and(|first| first.format_changed)
    }

    /// What is in use, if it has changed since the last call.
    pub(super) fn take_format_change(&mut self) -> Option<FormatInUse> {
        let first = self.encodings.iter_mut().find(|encoding| encoding.in_use.is_some())?;
        let changed = std::mem::take(&mut first.format_changed);
        first.in_use.filter(|_| changed)
    }

    /// Packets lost so far, over all of its RTP streams.
    pub(super) fn packets_lost(&self) -> i64 {
        self.encodings.iter().map(EncodingReceiver::packets_lost).sum()
    }

    pub(super) fn has_b_frames(&self) -> bool {
        self.encodings.iter().any(EncodingReceiver::has_b_frames)
    }

    /// When media of the track were received: one encoding that can be decoded is enough for all.
    pub(super) fn reception(&self) -> Reception {
        let receptions = || self.encodings.iter().map(|encoding| encoding.reception);
        let last = receptions().filter_map(|reception| reception.last).max();
        let is_running = |reception: &Reception| {
            last.zip(reception.last).is_some_and(|(newest, last)| newest.saturating_duration_since(last) < PAUSED)
        };
        let undecodable = || receptions().filter(is_running).map(|reception| reception.undecodable_since);
        let is_decodable = undecodable().any(|since| since.is_none());
        Reception { last, undecodable_since: undecodable().flatten().min().filter(|_| !is_decodable) }
    }

    /// Takes a packet of a media format, whose SSRC is `known`.
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if its encoding is not known or receives another SSRC, or [`DropReason::MalformedRtp`].
    pub(super) fn on_media(
        &mut self,
        incoming: &IncomingPacket<'_>,
        known: &mut KnownSsrc,
        tracks: &mut Tracks,
        timing: &mut Timing,
    ) -> Result<Accepted, DropReason> {
        let index = match known.encoding {
            Some(index) => index,
            None => {
                let &IncomingPacket { header, packet, format, .. } = incoming;
                let named = self.section.encoding_named(Extension::RtpStreamId, header, packet);
                named.filter(|&index| self.section.takes(index, format)).ok_or(DropReason::UnknownRtpStream)?
            }
        };
        let encoding = self.encodings.get_mut(usize::from(index)).ok_or(DropReason::UnknownRtpStream)?;
        // Learnt once: rids come with the first packets only (RFC 8852 §3).
        let is_named = known.encoding.replace(index).is_none();
        encoding.on_media(&self.section, incoming, (known, is_named), tracks, timing)
    }

    /// Takes an RTX packet (RFC 4588), whose SSRC is `known`.
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if the track is gone.
    pub(super) fn on_retransmission(
        &mut self,
        incoming: &IncomingPacket<'_>,
        known: &mut KnownSsrc,
        tracks: &mut Tracks,
        timing: &mut Timing,
    ) -> Result<Accepted, DropReason> {
        let Some(index) = known.encoding.or_else(|| self.encoding_repaired(incoming)) else {
            return Ok(Accepted::Consumed);
        };
        known.encoding = Some(index);
        let Some(encoding) = self.encodings.get_mut(usize::from(index)) else { return Ok(Accepted::Consumed) };
        encoding.on_retransmission(&self.section, incoming, tracks, timing)
    }

    /// The encoding that an RTX stream repairs, by its name, or because no other one lacks the packet (RFC 4588 §5.3).
    fn encoding_repaired(&self, incoming: &IncomingPacket<'_>) -> Option<u8> {
        let &IncomingPacket { header, packet, payload, .. } = incoming;
        if let Some(index) = self.section.encoding_named(Extension::RepairedRtpStreamId, header, packet) {
            return Some(index);
        }
        let (original, _) = rtx::split_payload(payload)?;
        let mut lacking = (0..).zip(&self.encodings).filter(|(_, encoding)| encoding.has_requested(original));
        let (index, _) = lacking.next()?;
        lacking.next().is_none().then_some(index)
    }
}
