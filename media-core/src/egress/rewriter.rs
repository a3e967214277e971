//! The RTP header that a viewer's packets get: its own sequence numbers, timestamps, payload types and header extensions.
//!
//! The stream's time line already goes on over publisher restarts, so that a viewer mostly adds a constant.

use crate::layers::OperatingPoint;
use crate::media::{Codec, Extension, ExtensionMap, Format, MediaKind, MediaSection};
use crate::rtp::compat::{Sent, carrier, compatible};
use crate::rtp::layers::{
    ActiveTargets, DescriptorOffsets, DescriptorPosition, MAX_DESCRIPTOR, rewrite_descriptor, rewrite_payload,
};
use crate::rtp::profile::FormatInUse;
use crate::rtp::red::{self, Redundancy};
use crate::rtp::{HeaderFields, rtx, write_header};
use crate::stream::{CachedPacket, stored_extensions};

use super::fast_start::Compression;
use super::sequence_map::{Assigned, Changes, Found, SequenceMap, Shape};

/// The payload type tables' mark for "not negotiated".
const NONE: u8 = 0xff;

/// A packet's place towards the viewer.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) timestamp: u32,
    pub(super) sequence_number: u16,
    pub(super) payload_type: u8,
    shape: Shape,
    offsets: DescriptorOffsets,
}

impl Placed {
    /// The marker: also at the end of the highest spatial layer that the viewer is sent (RTP-08).
    #[inline]
    fn marker(&self, packet: &CachedPacket<'_>) -> bool {
        let layer = packet.info.layer;
        packet.info.marker || (layer.frame_end && layer.spatial == self.shape.point.spatial)
    }

    /// The header of the packet as media, from this SSRC.
    #[inline]
    fn fields(&self, packet: &CachedPacket<'_>, ssrc: u32) -> HeaderFields {
        HeaderFields {
            marker: self.marker(packet),
            padding: false,
            payload_type: self.payload_type,
            sequence_number: self.sequence_number,
            timestamp: self.timestamp,
            ssrc,
        }
    }
}

/// Rewrites the packets of one section. What every packet needs stands in front.
#[repr(C)]
pub(super) struct Rewriter {
    map: SequenceMap,
    /// The stream's timestamp of the packet that was sent last.
    last_timestamp: u32,
    /// That packet was the last one of its frame.
    ended_frame: bool,
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
    /// The stream's timestamp of the frame that was left out last.
    last_left_out: Option<u32>,
    /// The viewer can tell the spatial layers of what is published apart.
    takes_spatial_layers: bool,
    /// Where the running numbers were when a publication ended.
    ended: Option<DescriptorPosition>,
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
            last_timestamp: 0,
            ended_frame: false,
            red: None,
            payload_types: [NONE; 128],
            extensions: section.extensions,
            is_video: section.kind == MediaKind::Video,
            rtx_payload_types,
            formats: section.formats.clone(),
            mid: section.mid.as_bytes().into(),
            last_left_out: None,
            takes_spatial_layers: true,
            ended: None,
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
        let format =
            in_use.and_then(|in_use| publisher.iter().find(|theirs| theirs.payload_type == in_use.payload_type));
        let is_av1 = format.is_some_and(|format| format.codec == Codec::Av1);
        self.takes_spatial_layers = !is_av1 || self.extensions.id(Extension::DependencyDescriptor).is_some();
        if (payload_types, red) != (self.payload_types, self.red) {
            // What was sent cannot be made again bit for bit (SRTP-09).
            self.map.begin_new_run();
        }
    }

    /// False for a viewer that would take the frames of one picture for several pictures: only the dependency descriptor says
    /// which spatial layer of AV1 a packet belongs to.
    pub(super) fn takes_spatial_layers(&self) -> bool {
        self.takes_spatial_layers
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

    /// The packet that was sent last, by number.
    pub(super) fn last_sent(&self) -> Option<Found> {
        self.map.last_sent()
    }

    /// The viewer's timestamp of the packet that was sent last.
    pub(super) fn last_sent_timestamp(&self) -> u32 {
        self.map.timestamp(self.last_timestamp)
    }

    /// True if the frame of the packet that was sent last is not complete yet.
    pub(super) fn is_in_frame(&self) -> bool {
        self.map.has_started() && !self.ended_frame
    }

    /// The layers that the viewer is sent.
    pub(super) fn point(&self) -> OperatingPoint {
        self.map.shape().point
    }

    /// From the next packet on it is sent other layers of the encoding, and told of these decode targets.
    pub(super) fn move_to(&mut self, point: OperatingPoint, targets: Option<ActiveTargets>) {
        self.map.move_to(point);
        let changes = self.map.changes();
        self.map.change(Changes { offsets: changes.offsets.with_targets(targets), ..changes });
    }

    /// The viewer goes on with this packet of another encoding, with these timestamps. `last` is the packet that it was sent
    /// last, if the cache still has it.
    pub(super) fn switch_to(
        &mut self,
        packet: &CachedPacket<'_>,
        last: Option<&CachedPacket<'_>>,
        (point, targets): (OperatingPoint, Option<ActiveTargets>),
        compression: Option<Compression>,
    ) {
        let present = self.map.changes().offsets;
        let follows = last.and_then(|last| {
            Some(DescriptorOffsets::after_switch(self.sent_position(last)?, self.position_of(packet)?))
        });
        let offsets = follows.unwrap_or(present).with_targets(targets);
        self.map.switch_to(packet.info.sequence, point, Changes { compression, offsets });
        // Frames of the same time count anew, in this encoding.
        self.last_left_out = None;
    }

    /// The next packet begins a keyframe, whose structure has these decode targets. Where its numbers lie before those of `last`, which
    /// the viewer was sent last, they go on from there: of another publication or RTP stream, or after a restart from the cache. A
    /// receiver drops structures of before the one that it has.
    pub(super) fn begin_keyframe(
        &mut self,
        packet: &CachedPacket<'_>,
        last: Option<&CachedPacket<'_>>,
        targets: Option<ActiveTargets>,
    ) {
        let changes = self.map.changes();
        let ended = self.ended.take();
        let sent = last.and_then(|last| self.sent_position(last)).or(ended);
        let follows =
            sent.zip(self.position_of(packet)).filter(|(sent, next)| sent.is_past(&next.shifted(&changes.offsets)));
        let offsets = follows.map_or(changes.offsets, |(sent, next)| DescriptorOffsets::after_switch(sent, next));
        self.map.change(Changes { offsets: offsets.with_targets(targets), ..changes });
    }

    /// The packet that was sent last will not be there when a keyframe has to follow on it.
    pub(super) fn note_position(&mut self, last: &CachedPacket<'_>) {
        self.ended = self.sent_position(last);
    }

    /// The running numbers of the packet that was sent last, as it was sent: frames that were left out since have moved the present
    /// offsets.
    fn sent_position(&self, last: &CachedPacket<'_>) -> Option<DescriptorPosition> {
        let offsets = self.map.last_sent()?.assigned.changes.offsets;
        Some(self.position_of(last)?.shifted(&offsets))
    }

    /// The running numbers of a packet's descriptors.
    fn position_of(&self, packet: &CachedPacket<'_>) -> Option<DescriptorPosition> {
        let codec = self.codec(self.payload_type(packet.info.payload_type)?)?;
        Some(DescriptorPosition::of(codec, packet.payload, packet.extension(Extension::DependencyDescriptor)))
    }

    /// The codec of one of the viewer's payload types.
    fn codec(&self, payload_type: u8) -> Option<Codec> {
        self.formats.iter().find(|format| format.payload_type == payload_type).map(|format| format.codec)
    }

    /// A packet is not needed at the viewer's point.
    pub(super) fn leave_out(&mut self, packet: &CachedPacket<'_>) {
        self.map.thin(packet.info.sequence);
        let timestamp = packet.info.timestamp;
        if self.last_left_out.replace(timestamp) == Some(timestamp) || !self.map.has_started() {
            return;
        }
        let codec = self.payload_type(packet.info.payload_type).and_then(|payload_type| self.codec(payload_type));
        if let Some(codec) = codec {
            let changes = self.map.changes();
            self.map.change(Changes { offsets: changes.offsets.after_dropped_frame(codec), ..changes });
        }
    }

    /// The viewer goes on with this packet, which may lie before those that it was sent, and with these timestamps.
    pub(super) fn restart_at(&mut self, sequence: u64, compression: Option<Compression>) {
        self.map.restart_at(sequence, compression);
        // Frames that come once more count once more.
        self.last_left_out = None;
    }

    /// The viewer reported receipt: from the next packet on it needs no MID.
    pub(super) fn on_receipt(&mut self) {
        if self.map.has_started() {
            self.map.omit_mid();
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
        let timestamp = self.map.timestamp(packet.info.timestamp);
        let (shape, offsets) = (self.map.shape(), self.map.offsets());
        Some(Placed { timestamp, sequence_number, payload_type, shape, offsets })
    }

    /// A packet went out.
    #[inline]
    pub(super) fn on_sent(&mut self, packet: &CachedPacket<'_>, placed: &Placed) {
        self.map.sent(packet.info.sequence);
        self.last_timestamp = packet.info.timestamp;
        self.ended_frame = placed.marker(packet);
    }

    /// The place of a packet that was received out of order, and which the viewer has passed already; `None` if it has none.
    /// With it whether the viewer needs the packet: if not, only its place is to be filled.
    pub(super) fn place_late(&self, packet: &CachedPacket<'_>) -> Option<(Placed, bool)> {
        let payload_type = self.payload_type(packet.info.payload_type)?;
        let assigned = self.map.place_late(packet.info.sequence)?;
        let is_needed = packet.info.layer.is_needed_at(assigned.shape.point.bit());
        Some((placed(packet, payload_type, &assigned), is_needed))
    }

    /// A packet went out that was received out of order.
    pub(super) fn on_sent_late(&mut self, packet: &CachedPacket<'_>, placed: &Placed) {
        self.map.sent_late(packet.info.sequence, placed.sequence_number);
    }

    /// The packet that the viewer names, if the record of what was sent has it.
    pub(super) fn find(&self, sequence_number: u16) -> Option<Found> {
        self.map.find(sequence_number)
    }

    /// The place of a packet that was sent before; `None` if the viewer has no format for it any more, or was sent padding in
    /// its place.
    pub(super) fn place_again(&self, packet: &CachedPacket<'_>, found: &Found) -> Option<Placed> {
        let payload_type = self.payload_type(packet.info.payload_type)?;
        let is_needed = packet.info.layer.is_needed_at(found.assigned.shape.point.bit());
        is_needed.then(|| placed(packet, payload_type, &found.assigned))
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
        if !placed.offsets.is_identity() {
            return self.write_changed(out, packet, placed, ssrc, transport_wide);
        }
        let fields = placed.fields(packet, ssrc);
        let header = write_header(out, &fields, self.elements(packet, (&placed, None), &transport_wide))?;
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

    /// The same for a packet with other numbers in its descriptors.
    #[inline(never)]
    fn write_changed(
        &self,
        out: &mut [u8],
        packet: &CachedPacket<'_>,
        placed: Placed,
        ssrc: u32,
        transport_wide: Option<(u8, [u8; 2])>,
    ) -> Option<usize> {
        let fields = placed.fields(packet, ssrc);
        let mut room = [0; MAX_DESCRIPTOR];
        let descriptor = changed_descriptor(packet, &placed, &mut room);
        let header = write_header(out, &fields, self.elements(packet, (&placed, descriptor), &transport_wide))?;
        let body = out.get_mut(header..header + packet.payload.len())?;
        body.copy_from_slice(packet.payload);
        self.change_payload(body, &placed);
        Some(header + packet.payload.len())
    }

    fn change_payload(&self, payload: &mut [u8], placed: &Placed) {
        if let Some(codec) = self.codec(placed.payload_type) {
            rewrite_payload(codec, payload, &placed.offsets);
        }
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
        let fields = HeaderFields { payload_type, sequence_number, ..placed.fields(packet, ssrc) };
        let mut room = [0; MAX_DESCRIPTOR];
        let descriptor = changed_descriptor(packet, &placed, &mut room);
        let header = write_header(out, &fields, self.elements(packet, (&placed, descriptor), &transport_wide))?;
        let length = rtx::write_payload(&mut out[header..], placed.sequence_number, packet.payload)?;
        if !placed.offsets.is_identity() {
            let payload = header + length - packet.payload.len();
            self.change_payload(&mut out[payload..header + length], &placed);
        }
        Some(header + length)
    }

    fn elements<'a>(
        &'a self,
        packet: &CachedPacket<'a>,
        (placed, descriptor): (&Placed, Option<&'a [u8]>),
        transport_wide: &'a Option<(u8, [u8; 2])>,
    ) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
        let with_mid = (packet.info.keyframe && self.is_video) || placed.shape.with_mid;
        let mid = if with_mid { self.mid_element() } else { None };
        let wide = transport_wide.as_ref().map(|(id, number)| (*id, &number[..]));
        let map = &self.extensions;
        let forwarded = stored_extensions(packet.extensions);
        let forwarded = forwarded.filter_map(move |(extension, data)| {
            let changed = descriptor.filter(|_| extension == Extension::DependencyDescriptor);
            Some((map.id(extension)?, changed.unwrap_or(data)))
        });
        mid.into_iter().chain(wide).chain(forwarded)
    }

    /// Cold, so that the compiler does not read the MID, far from the rest, for packets without it.
    #[cold]
    fn mid_element(&self) -> Option<(u8, &[u8])> {
        Some((self.extensions.id(Extension::Mid)?, &self.mid))
    }
}

fn placed(packet: &CachedPacket<'_>, payload_type: u8, assigned: &Assigned) -> Placed {
    Placed {
        timestamp: assigned.timestamp(packet.info.timestamp),
        sequence_number: assigned.number,
        payload_type,
        shape: assigned.shape,
        offsets: assigned.changes.offsets,
    }
}

/// A packet's dependency descriptor as the viewer gets it, if it has one and that changes.
fn changed_descriptor<'a>(
    packet: &CachedPacket<'_>,
    placed: &Placed,
    room: &'a mut [u8; MAX_DESCRIPTOR],
) -> Option<&'a [u8]> {
    let descriptor = packet.extension(Extension::DependencyDescriptor).filter(|_| !placed.offsets.is_identity())?;
    Some(rewrite_descriptor(descriptor, &placed.offsets, room))
}
