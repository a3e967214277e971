//! The RTP header that a viewer's packets get: its own sequence numbers, timestamps, payload types and header extensions.
//!
//! The stream's time line already goes on over publisher restarts, so that a viewer mostly adds a constant.

use crate::media::{Codec, Extension, ExtensionMap, Format, MediaKind, MediaSection};
use crate::rtp::compat::{Sent, carrier, compatible};
use crate::rtp::profile::FormatInUse;
use crate::rtp::red::{self, Redundancy};
use crate::rtp::{HeaderFields, rtx, write_header};
use crate::stream::{CachedPacket, stored_extensions};

use super::fast_start::Compression;
use super::sequence_map::{Found, SequenceMap};

/// The payload type tables' mark for "not negotiated".
const NONE: u8 = 0xff;

/// A packet's place towards the viewer.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    timestamp: u32,
    pub(super) sequence_number: u16,
    pub(super) payload_type: u8,
}

/// Rewrites the packets of one section. What every packet needs stands in front.
#[repr(C)]
pub(super) struct Rewriter {
    map: SequenceMap,
    /// Packets from this one on carry no MID: the viewer has reported receipt (EXT-H03).
    mid_until: u64,
    /// The stream's timestamp of the packet that was sent last.
    last_timestamp: u32,
    /// The publisher's payload type of RED, and what becomes of it here.
    red: Option<(u8, Redundancy)>,
    /// Publisher's payload type → the viewer's.
    pub(super) payload_types: [u8; 128],
    extensions: ExtensionMap,
    is_video: bool,
    /// The viewer's payload type → its RTX payload type.
    rtx_payload_types: [u8; 128],
    formats: Vec<Format>,
    mid: Box<[u8]>,
}

impl Rewriter {
    /// A rewriter for one section; the first packet gets `number`, or the like.
    pub(super) fn new(section: &MediaSection, number: u16) -> Rewriter {
        let mut rtx_payload_types = [NONE; 128];
        for format in &section.formats {
            if let Some(rtx) = format.rtx_payload_type {
                rtx_payload_types[usize::from(format.payload_type & 0x7f)] = rtx;
            }
        }
        Rewriter {
            map: SequenceMap::new(number),
            mid_until: u64::MAX,
            last_timestamp: 0,
            red: None,
            payload_types: [NONE; 128],
            extensions: section.extensions,
            is_video: section.kind == MediaKind::Video,
            rtx_payload_types,
            formats: section.formats.clone(),
            mid: section.mid.as_bytes().into(),
        }
    }

    /// Learns the publisher's formats: which of its payload types becomes which of the viewer's. Of the one in use the stream
    /// itself may have said its profile.
    pub(super) fn set_publisher_formats(&mut self, publisher: &[Format], in_use: Option<FormatInUse>) {
        let (payload_types, red) = (self.payload_types, self.red);
        self.payload_types = [NONE; 128];
        self.red = None;
        for theirs in publisher {
            let profile = in_use.filter(|in_use| in_use.payload_type == theirs.payload_type);
            let sent = Sent { format: theirs, profile: profile.and_then(|in_use| in_use.profile) };
            let index = usize::from(theirs.payload_type & 0x7f);
            // A format that still carries the stream stays: the viewer's decoder need not change.
            let present = self.formats.iter().find(|format| format.payload_type == payload_types[index]);
            let present = present.filter(|ours| ours.codec == theirs.codec && compatible(sent, ours));
            if let Some(ours) = present.or_else(|| carrier(sent, &self.formats)) {
                self.payload_types[index] = ours.payload_type;
                if theirs.codec == Codec::Red {
                    let redundancy = ours.redundant_payload_type().map_or(Redundancy::Dropped, Redundancy::Kept);
                    self.red = Some((theirs.payload_type, redundancy));
                }
            }
        }
        if (payload_types, red) != (self.payload_types, self.red) {
            // What was sent cannot be made again bit for bit (SRTP-09).
            self.map.begin_new_run();
        }
    }

    /// The formats that the viewer agreed to.
    pub(super) fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// True if the viewer has a format for some of the publisher's.
    pub(super) fn has_formats(&self) -> bool {
        self.payload_types.iter().any(|&payload_type| payload_type != NONE)
    }

    /// RTP clock in Hz of the viewer's format for a payload type of the publisher's.
    pub(super) fn clock_rate(&self, payload_type: u8) -> Option<u32> {
        let payload_type = self.payload_type(payload_type)?;
        self.formats.iter().find(|format| format.payload_type == payload_type).map(|format| format.clock_rate)
    }

    /// The viewer's payload type for one of the publisher's.
    #[inline]
    pub(super) fn payload_type(&self, payload_type: u8) -> Option<u8> {
        let payload_type = self.payload_types[usize::from(payload_type & 0x7f)];
        (payload_type != NONE).then_some(payload_type)
    }

    /// The viewer's RTX payload type for one of its payload types.
    pub(super) fn rtx_payload_type(&self, payload_type: u8) -> Option<u8> {
        let rtx = *self.rtx_payload_types.get(usize::from(payload_type))?;
        (rtx != NONE).then_some(rtx)
    }

    /// True once a packet was sent.
    pub(super) fn has_started(&self) -> bool {
        self.map.has_started()
    }

    /// The stream's timestamp of the packet that was sent last.
    pub(super) fn last_timestamp(&self) -> Option<u32> {
        self.map.has_started().then_some(self.last_timestamp)
    }

    /// A timestamp of the viewer's that lies past all that it was sent.
    pub(super) fn next_timestamp(&self) -> Option<u32> {
        self.map.has_started().then(|| self.map.timestamp(self.last_timestamp).wrapping_add(1))
    }

    /// The viewer's timestamp of the packet that was sent last.
    pub(super) fn last_sent_timestamp(&self) -> u32 {
        self.map.timestamp(self.last_timestamp)
    }

    /// The viewer goes on with this packet, which may lie before those that it was sent, and with these timestamps.
    pub(super) fn restart_at(&mut self, sequence: u64, compression: Option<Compression>) {
        self.map.restart_at(sequence, compression);
    }

    /// The viewer reported receipt: from the next packet on it needs no MID.
    pub(super) fn on_receipt(&mut self) {
        if self.mid_until == u64::MAX && self.map.has_started() {
            self.mid_until = self.map.end();
        }
    }

    /// A packet is not sent on purpose.
    pub(super) fn withhold(&mut self, sequence: u64) {
        self.map.withhold(sequence);
    }

    /// Gives a packet its place; `None` if it is not sent to this viewer: it has no format for it, or its place has passed.
    #[inline]
    pub(super) fn place(&mut self, packet: &CachedPacket<'_>) -> Option<Placed> {
        let Some(payload_type) = self.payload_type(packet.info.payload_type) else {
            self.map.withhold(packet.info.sequence);
            return None;
        };
        self.map.expire_compression(packet.info.sequence, packet.info.timestamp);
        let sequence_number = self.map.place(packet.info.sequence)?;
        Some(Placed { timestamp: self.map.timestamp(packet.info.timestamp), sequence_number, payload_type })
    }

    /// A packet went out.
    #[inline]
    pub(super) fn on_sent(&mut self, packet: &CachedPacket<'_>) {
        self.map.sent(packet.info.sequence);
        self.last_timestamp = packet.info.timestamp;
    }

    /// The packet that the viewer names, if the record of what was sent has it.
    pub(super) fn find(&self, sequence_number: u16) -> Option<Found> {
        self.map.find(sequence_number)
    }

    /// The place of a packet that was sent before; `None` if the viewer has no format for it any more.
    pub(super) fn place_again(&self, packet: &CachedPacket<'_>, found: &Found) -> Option<Placed> {
        let payload_type = self.payload_type(packet.info.payload_type)?;
        Some(Placed { timestamp: found.timestamp(packet.info.timestamp), sequence_number: found.number, payload_type })
    }

    /// Writes header and payload of a media packet; returns the length.
    #[inline]
    pub(super) fn write(
        &self,
        out: &mut [u8],
        packet: &CachedPacket<'_>,
        placed: Placed,
        ssrc: u32,
        transport_wide: Option<(u8, [u8; 2])>,
    ) -> Option<usize> {
        let fields = HeaderFields {
            marker: packet.info.marker,
            padding: false,
            payload_type: placed.payload_type,
            sequence_number: placed.sequence_number,
            timestamp: placed.timestamp,
            ssrc,
        };
        let header = write_header(out, &fields, self.elements(packet, &transport_wide))?;
        let body = &mut out[header..];
        let length = match self.red {
            Some((red, redundancy)) if red == packet.info.payload_type => {
                red::write_payload(body, packet.payload, redundancy)?
            }
            _ => {
                body.get_mut(..packet.payload.len())?.copy_from_slice(packet.payload);
                packet.payload.len()
            }
        };
        Some(header + length)
    }

    /// Writes a packet that was sent before as a retransmission (RFC 4588); `rtx` are SSRC, payload type and number of that
    /// stream.
    pub(super) fn write_rtx(
        &self,
        out: &mut [u8],
        packet: &CachedPacket<'_>,
        placed: Placed,
        rtx: (u32, u8, u16),
        transport_wide: Option<(u8, [u8; 2])>,
    ) -> Option<usize> {
        let (ssrc, payload_type, sequence_number) = rtx;
        let fields = HeaderFields {
            marker: packet.info.marker,
            padding: false,
            payload_type,
            sequence_number,
            timestamp: placed.timestamp,
            ssrc,
        };
        let header = write_header(out, &fields, self.elements(packet, &transport_wide))?;
        let body = rtx::write_payload(&mut out[header..], placed.sequence_number, packet.payload)?;
        Some(header + body)
    }

    fn elements<'a>(
        &'a self,
        packet: &CachedPacket<'a>,
        transport_wide: &'a Option<(u8, [u8; 2])>,
    ) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
        let with_mid = (packet.info.keyframe && self.is_video) || packet.info.sequence < self.mid_until;
        let mid = if with_mid { self.mid_element() } else { None };
        let wide = transport_wide.as_ref().map(|(id, number)| (*id, &number[..]));
        let map = &self.extensions;
        let forwarded = stored_extensions(packet.extensions);
        mid.into_iter().chain(wide).chain(forwarded.filter_map(|(extension, data)| Some((map.id(extension)?, data))))
    }

    /// Cold, so that the compiler does not read the MID, far from the rest, for packets without it.
    #[cold]
    fn mid_element(&self) -> Option<(u8, &[u8])> {
        Some((self.extensions.id(Extension::Mid)?, &self.mid))
    }
}
