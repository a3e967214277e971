//! A publisher's RTP sender: numbers and paces the packets of one track, and retransmits them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use media_core::internals::rtp::packet::{HeaderFields, RtpHeader, write_header};
use media_core::internals::rtp::rtx;

use super::encoder::EncodedPayload;
use super::error::ClientError;
use super::figures::PublisherFigures;
use super::inbound::PacketSender;
use super::random::random_u32;
use crate::clock;
use crate::media::stamp::{Content, FramePart, Stamp};
use crate::sdp::{PayloadTypes, Ssrcs};

/// Sent packets that a NACK can still get.
const HISTORY: usize = 1024;
/// Packets of a frame that leave at once; the rest follows every [`PACE`].
const BURST: usize = 16;
const PACE: Duration = Duration::from_millis(1);

/// What was negotiated for a track.
pub(super) struct SendFormat {
    pub(super) ssrcs: Ssrcs,
    pub(super) types: PayloadTypes,
    /// Id and value of `sdes:mid`, if the extension was accepted.
    pub(super) mid: Option<(u8, String)>,
    /// Of an encoding of a simulcast.
    pub(super) rid: Option<Rid>,
}

/// How an encoding's packets are named (RFC 8852).
pub(super) struct Rid {
    pub(super) name: String,
    /// Id of `sdes:rtp-stream-id`.
    pub(super) id: u8,
    /// Id of `sdes:repaired-rtp-stream-id`, if it was accepted.
    pub(super) repaired_id: Option<u8>,
}

/// The packets of one track.
pub(super) struct RtpSender {
    format: SendFormat,
    stamp: Stamp,
    sequence: u16,
    rtx_sequence: u16,
    next_burst: Instant,
    queue: VecDeque<EncodedPayload>,
    history: Vec<Vec<u8>>,
    packets: u32,
    octets: u32,
    /// The server has reported on its SSRC, and so knows whose it is.
    is_known: bool,
}

impl RtpSender {
    /// Of the stream with this number; the first packet has `first_sequence`, or a random number.
    pub(super) fn new(format: SendFormat, stream: u32, first_sequence: Option<u16>) -> Result<RtpSender, ClientError> {
        let random = random_u32()?;
        Ok(RtpSender {
            format,
            stamp: Stamp {
                stream,
                epoch: random_u32()?,
                content: Content::Audio,
                part: FramePart::default(),
                counter: 0,
                sent: 0,
            },
            // SRTP wants to start in the lower half (RFC 3711 §3.3.1).
            sequence: first_sequence.unwrap_or((random & 0x7fff) as u16),
            rtx_sequence: (random >> 16 & 0x7fff) as u16,
            next_burst: Instant::now(),
            queue: VecDeque::new(),
            history: vec![Vec::new(); HISTORY],
            packets: 0,
            octets: 0,
            is_known: false,
        })
    }

    /// SSRC of the media packets.
    pub(super) fn ssrc(&self) -> u32 {
        self.format.ssrcs.media
    }

    /// Packets and payload octets sent, for sender reports.
    pub(super) fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// The server has reported on these packets: as browsers do, their header names their encoding no more.
    pub(super) fn note_report(&mut self) {
        self.is_known = true;
    }

    /// The extension elements of media packets, or of retransmissions; those of a simulcast name its section and encoding until they
    /// are known.
    fn elements(&self, is_retransmission: bool) -> [Option<(u8, &[u8])>; 2] {
        let mid = self.format.mid.as_ref().map(|(id, mid)| (*id, mid.as_bytes()));
        let Some(rid) = &self.format.rid else { return [mid, None] };
        let id = if is_retransmission { rid.repaired_id } else { Some(rid.id) };
        match self.is_known && !is_retransmission {
            true => [None, None],
            false => [mid, id.map(|id| (id, rid.name.as_bytes()))],
        }
    }

    /// Puts a payload into the queue.
    pub(super) fn push(&mut self, payload: EncodedPayload) {
        self.queue.push_back(payload);
    }

    /// When [`RtpSender::send`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.next_burst)
    }

    /// Nothing is sent before this time.
    pub(super) fn wait_until(&mut self, time: Instant) {
        self.next_burst = time;
    }

    /// Sends the next burst of the queue.
    pub(super) fn send(&mut self, now: Instant, out: &mut PacketSender, figures: &mut PublisherFigures) {
        self.next_burst = now + PACE;
        for _ in 0..BURST {
            let Some(EncodedPayload { mut payload, content, part, marker, timestamp }) = self.queue.pop_front() else {
                return;
            };
            self.stamp = Stamp { content, part, sent: clock::nanos(), ..self.stamp };
            self.stamp.seal(&mut payload.bytes[payload.body..]);
            self.stamp.counter += 1;
            let fields = HeaderFields {
                marker,
                padding: false,
                payload_type: self.format.types.media,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.format.ssrcs.media,
            };
            let slot = usize::from(self.sequence) % HISTORY;
            let mut packet = std::mem::take(&mut self.history[slot]);
            if write_packet(&mut packet, &fields, self.elements(false), &payload.bytes) {
                out.rtp(&packet);
                figures.packets += 1;
                self.packets = self.packets.wrapping_add(1);
                self.octets = self.octets.wrapping_add(payload.bytes.len() as u32);
            }
            self.history[slot] = packet;
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Sends a packet again; false if it is no longer known.
    pub(super) fn retransmit(&mut self, sequence: u16, out: &mut PacketSender) -> bool {
        let packet = &self.history[usize::from(sequence) % HISTORY];
        let Some(header) = RtpHeader::parse(packet).ok().filter(|header| header.sequence_number == sequence) else {
            return false;
        };
        let Some(payload_type) = self.format.types.rtx else {
            out.rtp(packet);
            return true;
        };
        let payload = header.payload(packet);
        let mut bytes = vec![0; payload.len() + 2];
        let fields = HeaderFields {
            marker: header.marker,
            padding: false,
            payload_type,
            sequence_number: self.rtx_sequence,
            timestamp: header.timestamp,
            ssrc: self.format.ssrcs.rtx,
        };
        let mut retransmission = Vec::new();
        let written = rtx::write_payload(&mut bytes, sequence, payload).is_some()
            && write_packet(&mut retransmission, &fields, self.elements(true), &bytes);
        if written {
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            out.rtp(&retransmission);
        }
        written
    }
}

/// Writes a whole packet into `packet`; false if its header cannot be expressed.
fn write_packet(
    packet: &mut Vec<u8>,
    fields: &HeaderFields,
    elements: [Option<(u8, &[u8])>; 2],
    payload: &[u8],
) -> bool {
    packet.clear();
    packet.resize(96 + payload.len(), 0);
    let Some(len) = write_header(packet, fields, elements.into_iter().flatten()) else {
        packet.clear();
        return false;
    };
    packet.truncate(len);
    packet.extend_from_slice(payload);
    true
}
