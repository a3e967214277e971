//! One RTP stream to a viewer and its retransmissions: SSRCs, counters, SRTP.

use std::time::{Duration, Instant};

use crate::media::{Extension, Format, MediaSection};
use crate::rtcp::{NtpTime, SenderInfo};
use crate::rtp::{HeaderFields, write_header};
use crate::srtp::SrtpSender;
use crate::stream::CachedPacket;

use super::congestion::{ArrivalFeedback, Congestion, Numbered};
use super::retransmissions::Retransmissions;
use super::rewriter::{Placed, Rewriter};

/// What every packet to a viewer passes, whatever its track.
pub(super) struct SendContext<'a> {
    pub(super) now: Instant,
    pub(super) srtp: &'a mut SrtpSender,
    pub(super) congestion: &'a mut Congestion,
}

/// Why a packet was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteError {
    /// The viewer cannot decode it, or it lies before the viewer's first keyframe.
    NotForThisViewer,
    /// Header or SRTP did not take it.
    Refused,
}

/// Sends one section's packets.
#[repr(C)]
pub(super) struct RtpSender {
    pub(super) retransmissions: Retransmissions,
    /// RTP packets sent, RTX not counted, as sender reports count them (RFC 3550 §6.4.1).
    pub(super) packets: u32,
    /// Their payload bytes.
    octets: u32,
    /// Media SSRC.
    pub(super) ssrc: u32,
    /// RTX SSRC.
    rtx_ssrc: u32,
    rtx_sequence: u16,
    /// Id of the element with the transport-wide number. It is another one whenever a packet is sent, so that no packet of
    /// such a section can be written again bit for bit: it needs RTX.
    transport_wide: Option<u8>,
    /// The viewer tells of packets by their RTP sequence numbers (RFC 8888).
    reported_by_rtp: bool,
    /// The viewer's payload type of the packet that was sent last.
    last_payload_type: u8,
}

impl RtpSender {
    /// A sender for a section; `None` for sections without SSRCs to send with.
    pub(super) fn new(section: &MediaSection, rtx_sequence: u16) -> Option<RtpSender> {
        let ssrcs = section.send_ssrcs?;
        Some(RtpSender {
            retransmissions: Retransmissions::default(),
            packets: 0,
            octets: 0,
            ssrc: ssrcs.media,
            rtx_ssrc: ssrcs.rtx,
            rtx_sequence: rtx_sequence & 0x7fff,
            transport_wide: transport_wide(section),
            reported_by_rtp: section.formats.iter().any(|format| format.feedback.ccfb),
            last_payload_type: u8::MAX,
        })
    }

    /// How the viewer tells when its packets arrived.
    pub(super) fn arrival_feedback(&self) -> ArrivalFeedback {
        match (self.reported_by_rtp, self.transport_wide) {
            (true, _) => ArrivalFeedback::Ccfb,
            (false, Some(_)) => ArrivalFeedback::TransportWide,
            (false, None) => ArrivalFeedback::None,
        }
    }

    /// The sender information of its reports at `unix`, whose RTP timestamp is given (RTCP-04).
    pub(super) fn sender_info(&self, unix: Duration, rtp_timestamp: u32) -> SenderInfo {
        SenderInfo {
            ntp: NtpTime::from_unix(unix),
            rtp_timestamp,
            packet_count: self.packets,
            octet_count: self.octets,
        }
    }

    /// Writes a packet for the first time, protected.
    #[inline]
    pub(super) fn send(
        &mut self,
        rewriter: &Rewriter,
        packet: &CachedPacket<'_>,
        placed: Placed,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let number = self.number(context, packet.payload.len(), (self.ssrc, placed.sequence_number));
        let length = self.write(rewriter, packet, (placed, number), context, out)?;
        self.last_payload_type = placed.payload_type;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        Ok(length)
    }

    #[inline]
    fn write(
        &self,
        rewriter: &Rewriter,
        packet: &CachedPacket<'_>,
        (placed, number): (Placed, Option<(u8, [u8; 2])>),
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let length = rewriter.write(out, packet, placed, self.ssrc, number).ok_or(WriteError::Refused)?;
        context.srtp.protect_rtp(out, length).map_err(|_| WriteError::Refused)
    }

    /// Writes a packet that was sent before: by RTX (RFC 4588) where that was negotiated, else bit for bit as the first time,
    /// if the record of what was sent shows that it would be the same (`is_reproducible`; SRTP-09).
    pub(super) fn send_again(
        &mut self,
        rewriter: &Rewriter,
        packet: &CachedPacket<'_>,
        (placed, is_reproducible): (Placed, bool),
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let Some(rtx_payload_type) = rewriter.rtx_payload_type(placed.payload_type) else {
            if self.transport_wide.is_some() || !is_reproducible {
                return Err(WriteError::NotForThisViewer);
            }
            // Under the number of the first copy, which is the one that the viewer tells of (RFC 8888 §3.1).
            context.congestion.on_sent(context.now, packet.payload.len(), Numbered::No);
            return self.write(rewriter, packet, (placed, None), context, out);
        };
        let number = self.number(context, packet.payload.len(), (self.rtx_ssrc, self.rtx_sequence));
        let rtx = (self.rtx_ssrc, rtx_payload_type, self.rtx_sequence);
        let length = rewriter.write_rtx(out, packet, placed, rtx, number).ok_or(WriteError::Refused)?;
        let length = context.srtp.protect_rtp(out, length).map_err(|_| WriteError::Refused)?;
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        Ok(length)
    }

    /// Fills the place of a packet that the viewer does without with padding under its number (RFC 3550 §5.1), so that the
    /// viewer does not wait for it.
    pub(super) fn fill(
        &mut self,
        placed: Placed,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let fields = HeaderFields {
            marker: false,
            padding: true,
            payload_type: placed.payload_type,
            sequence_number: placed.sequence_number,
            timestamp: placed.timestamp,
            ssrc: self.ssrc,
        };
        let length = self.write_padding(&fields, 1, context, out)?;
        self.packets = self.packets.wrapping_add(1);
        Ok(length)
    }

    /// True if padding can be sent: by RTX, whose numbers are nobody else's.
    pub(super) fn can_pad(&self, rewriter: &Rewriter) -> bool {
        self.arrival_feedback() != ArrivalFeedback::None && rewriter.rtx_payload_type(self.last_payload_type).is_some()
    }

    /// Writes a packet of nothing but padding, of which `padding` bytes, 1 to 255.
    pub(super) fn pad(
        &mut self,
        rewriter: &Rewriter,
        padding: u8,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let fields = HeaderFields {
            marker: false,
            padding: true,
            payload_type: rewriter.rtx_payload_type(self.last_payload_type).ok_or(WriteError::NotForThisViewer)?,
            sequence_number: self.rtx_sequence,
            timestamp: rewriter.last_sent_timestamp(),
            ssrc: self.rtx_ssrc,
        };
        let length = self.write_padding(&fields, padding, context, out)?;
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        Ok(length)
    }

    fn write_padding(
        &self,
        fields: &HeaderFields,
        padding: u8,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let number = self.number(context, usize::from(padding), (fields.ssrc, fields.sequence_number));
        let elements = number.as_ref().map(|(id, number)| (*id, &number[..]));
        let header = write_header(out, fields, elements).ok_or(WriteError::Refused)?;
        let length = header + usize::from(padding);
        let body = out.get_mut(header..length).ok_or(WriteError::Refused)?;
        body.fill(0);
        // RFC 3550 §5.1: the last byte counts the padding, itself included.
        *body.last_mut().ok_or(WriteError::Refused)? = padding;
        context.srtp.protect_rtp(out, length).map_err(|_| WriteError::Refused)
    }

    /// Counts a packet that is sent; its transport-wide number, if it carries one, with the element's id.
    #[inline]
    fn number(
        &self,
        context: &mut SendContext<'_>,
        payload: usize,
        (ssrc, sequence_number): (u32, u16),
    ) -> Option<(u8, [u8; 2])> {
        let numbered = match self.arrival_feedback() {
            ArrivalFeedback::None => Numbered::No,
            ArrivalFeedback::TransportWide => Numbered::TransportWide,
            ArrivalFeedback::Ccfb => Numbered::Rtp(ssrc, sequence_number),
        };
        let number = context.congestion.on_sent(context.now, payload, numbered);
        self.transport_wide.map(|id| (id, number.to_be_bytes()))
    }
}

/// The id under which a section's packets carry transport-wide numbers, if that was agreed and every packet that may be
/// asked for again can be sent by RTX.
fn transport_wide(section: &MediaSection) -> Option<u8> {
    let wanted = section.formats.iter().any(|format| format.feedback.transport_cc && !format.feedback.ccfb);
    let repaired = |format: &Format| !format.feedback.nack || format.rtx_payload_type.is_some();
    let fits = wanted && section.formats.iter().all(repaired);
    section.extensions.id(Extension::TransportCc).filter(|_| fits)
}
