//! A viewer's transport-wide feedback: when each numbered packet arrived (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::time::Instant;

use media_core::internals::ingest::arrival::{ArrivalLog, FEEDBACK_INTERVAL};
use media_core::internals::rtcp::transport_feedback::FeedbackFields;
use media_core::internals::rtcp::{MAX_RTCP_LEN, RtcpWriter};
use media_core::internals::rtp::extension;
use media_core::internals::rtp::packet::RtpHeader;

/// The arrivals that no feedback has reported yet, and when the next feedback is due.
pub(super) struct FeedbackSender {
    /// Id of the header extension with the number.
    extension: u8,
    log: ArrivalLog,
    /// Messages so far, modulo 256.
    count: u8,
    next: Instant,
}

impl FeedbackSender {
    /// Nothing has come; `extension` is the id that was agreed on.
    pub(super) fn new(now: Instant, extension: u8) -> FeedbackSender {
        FeedbackSender { extension, log: ArrivalLog::new(now), count: 0, next: now + FEEDBACK_INTERVAL }
    }

    /// Notes an SRTP packet: its header is clear.
    pub(super) fn note(&mut self, arrival: Instant, packet: &[u8]) {
        let Ok(header) = RtpHeader::parse_encrypted(packet) else { return };
        if let Some(wide) = header.extension(packet, self.extension).and_then(extension::transport_cc) {
            self.log.on_packet(arrival, wide);
        }
    }

    /// When [`FeedbackSender::report`] has something to do.
    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// Hands feedback to `send` if it is due, from `sender_ssrc` about the transport of `media_ssrc`.
    pub(super) fn report(&mut self, now: Instant, sender_ssrc: u32, media_ssrc: u32, mut send: impl FnMut(&[u8])) {
        if now < self.next {
            return;
        }
        self.next = now + FEEDBACK_INTERVAL;
        let count = &mut self.count;
        self.log.poll(now, |mut packets| {
            while !packets.is_empty() {
                let mut buffer = [0; MAX_RTCP_LEN];
                let mut writer = RtcpWriter::new(&mut buffer);
                let fields = FeedbackFields { sender_ssrc, media_ssrc, feedback_count: *count };
                let taken = writer.transport_feedback(&fields, packets).unwrap_or(packets.len());
                if !writer.is_empty() {
                    *count = count.wrapping_add(1);
                    send(writer.as_bytes());
                }
                packets = packets.get(taken.max(1)..).unwrap_or_default();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};
    use media_core::internals::rtp::packet::{HeaderFields, write_header};

    use super::*;

    fn packet(number: u16) -> Vec<u8> {
        let mut packet = vec![0; 64];
        let fields =
            HeaderFields { marker: false, padding: false, payload_type: 96, sequence_number: 1, timestamp: 1, ssrc: 1 };
        let len = write_header(&mut packet, &fields, [(3, &number.to_be_bytes()[..])]).unwrap();
        packet.truncate(len);
        packet
    }

    /// The packets of which a message tells, and whether they arrived.
    fn told(message: &[u8]) -> Vec<(u16, bool)> {
        let Some(Ok(RtcpPacket::TransportFeedback(feedback))) = RtcpPackets::new(message).next() else {
            panic!("no feedback: {message:?}");
        };
        feedback.packets().map(|(number, arrival)| (number, arrival.is_some())).collect()
    }

    // RTCP-14
    #[test]
    fn encrypted_padding_arrives_whatever_its_last_byte_is() {
        let start = Instant::now();
        let mut feedback_sender = FeedbackSender::new(start, 3);
        for number in 0..256 {
            let mut probe = packet(number);
            probe[0] |= 0x20;
            probe.extend([0x5c, number as u8]);
            feedback_sender.note(start, &probe);
        }
        let mut arrived = 0;
        feedback_sender.report(feedback_sender.deadline(), 1, 2, |message| {
            arrived += told(message).iter().filter(|(_, has_arrived)| *has_arrived).count();
        });
        assert_eq!(arrived, 256);
    }

    // RTCP-14
    #[test]
    fn feedback_reports_arrivals_and_losses() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut feedback_sender = FeedbackSender::new(start, 3);
        for (ms, number) in [(1, 65_535), (5, 0), (6, 2)] {
            feedback_sender.note(at(ms), &packet(number));
        }
        feedback_sender.report(at(99), 1, 2, |_| panic!("too early"));
        let mut sent = Vec::new();
        feedback_sender.report(feedback_sender.deadline(), 1, 2, |message| sent.push(message.to_vec()));
        assert_eq!(sent.len(), 1);
        assert_eq!(told(&sent[0]), [(65_535, true), (0, true), (1, false), (2, true)]);
        feedback_sender.report(at(250), 1, 2, |_| panic!("all was reported"));
    }
}
