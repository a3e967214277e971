//! One RTP stream of a publisher.

use std::time::{Duration, Instant};

use crate::media::Format;
use crate::rtp::RtpHeader;
use crate::rtp::nack::NackGenerator;
use crate::rtp::receive::ReceiveStats;
use crate::rtp::rtt::RoundTrip;
use crate::rtp::sequence::SequenceExtender;

/// One RTP stream, by its media SSRC.
pub(super) struct ReceiveStream {
    pub(super) ssrc: u32,
    pub(super) stats: ReceiveStats,
    /// If NACK was negotiated.
    pub(super) nack: Option<NackGenerator>,
    extender: SequenceExtender,
    last_packet: Instant,
}

/// The number of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered {
    /// The extended sequence number.
    pub(super) extended: u64,
    /// It is the first one after the sender restarted with lower sequence numbers.
    pub(super) restarted: bool,
}

impl ReceiveStream {
    /// A stream whose first packet is received now.
    pub(super) fn new(now: Instant, ssrc: u32, has_nack: bool) -> ReceiveStream {
        ReceiveStream {
            ssrc,
            stats: ReceiveStats::new(ssrc),
            nack: has_nack.then(NackGenerator::new),
            extender: SequenceExtender::new(),
            last_packet: now,
        }
    }

    /// Time since the last media packet.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_packet)
    }

    /// True if the packet with this number was requested and has not come since.
    pub(super) fn has_requested(&self, sequence_number: u16) -> bool {
        let extended = self.extender.peek(sequence_number);
        self.nack.as_ref().is_some_and(|nack| nack.has_requested(extended))
    }

    /// Counts a packet of a media format.
    pub(super) fn on_media(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        format: &Format,
        round_trip: &mut RoundTrip,
    ) -> Numbered {
        self.last_packet = now;
        let extended = self.extender.extend(header.sequence_number);
        let answer = self.nack.as_mut().and_then(|nack| nack.on_packet(now, extended));
        // Without RTX it is the packet sent again; with RTX, one received long out of order.
        if let Some(answer) = answer.filter(|_| format.rtx_payload_type.is_none()) {
            self.stats.on_resent(header.sequence_number);
            if let Some(sample) = answer.round_trip {
                round_trip.on_sample(now, sample);
            }
            return Numbered { extended, restarted: false };
        }
        let jumped = self.stats.on_rtp(now, header.sequence_number, header.timestamp, format.clock_rate);
        // After a jump ahead numbers continue as they are; after a jump back all packets would be too old (RTP-03).
        if jumped && self.extender.highest() > Some(extended) {
            return Numbered { extended: self.restart(header.sequence_number), restarted: true };
        }
        Numbered { extended, restarted: false }
    }

    /// Counts a packet that RTX restored; returns its extended sequence number.
    pub(super) fn on_retransmission(&mut self, now: Instant, original: u16, round_trip: &mut RoundTrip) -> u64 {
        let extended = self.extender.peek(original);
        let answer = self.nack.as_mut().and_then(|nack| nack.on_packet(now, extended));
        if let Some(sample) = answer.and_then(|answer| answer.round_trip) {
            round_trip.on_sample(now, sample);
        }
        extended
    }

    /// Notes that a keyframe starts with this packet.
    pub(super) fn on_keyframe(&mut self, extended: u64) {
        if let Some(nack) = &mut self.nack {
            nack.on_keyframe(extended);
        }
    }

    /// The sender's sequence numbers restart; returns the extended one of the first.
    fn restart(&mut self, sequence_number: u16) -> u64 {
        self.extender = SequenceExtender::new();
        let extended = self.extender.extend(sequence_number);
        if let Some(nack) = &mut self.nack {
            nack.reset();
        }
        extended
    }
}
