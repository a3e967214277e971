//! The congestion feedback to a publisher: transport-wide feedback, REMB, or none, as was negotiated.

use std::time::Instant;

use crate::bwe::EstimatorLimits;
use crate::bwe::receive::{ReceiveSideEstimator, SendTime};
use crate::media::{Extension, MediaKind, MediaSection};
use crate::rtp::{RtpHeader, extension};

use super::arrival::ArrivalLog;

/// Start and bounds of the estimate of a publisher's path, in bit/s.
const LIMITS: EstimatorLimits = EstimatorLimits { start: 2_500_000, min: 100_000, max: 100_000_000 };

/// What a publisher is told of its path.
pub(super) enum CongestionFeedback {
    /// Arrival times, from which the publisher makes an estimate (RTCP-14).
    TransportWide(ArrivalLog),
    /// An estimate made here (RTCP-13).
    Remb(Box<ReceiveSideEstimator>),
    /// Neither was negotiated.
    None,
}

impl CongestionFeedback {
    /// As negotiated for these sections.
    pub(super) fn new(now: Instant, sections: &[MediaSection]) -> CongestionFeedback {
        let transport_wide = |section: &MediaSection| {
            section.extensions.id(Extension::TransportCc).is_some()
                && section.formats.iter().any(|format| format.feedback.transport_cc)
        };
        let remb = |section: &MediaSection| section.formats.iter().any(|format| format.feedback.remb);
        if sections.iter().any(transport_wide) {
            CongestionFeedback::TransportWide(ArrivalLog::new(now))
        } else if sections.iter().any(remb) {
            CongestionFeedback::Remb(Box::new(ReceiveSideEstimator::new(now, LIMITS)))
        } else {
            CongestionFeedback::None
        }
    }

    /// Notes a packet of a section.
    pub(super) fn on_packet(&mut self, now: Instant, section: &MediaSection, header: &RtpHeader, packet: &[u8]) {
        match self {
            CongestionFeedback::TransportWide(arrivals) => {
                let id = section.extensions.id(Extension::TransportCc);
                let wide = id.and_then(|id| header.extension(packet, id)).and_then(extension::transport_cc);
                if let Some(wide) = wide {
                    arrivals.on_packet(now, wide);
                }
            }
            CongestionFeedback::Remb(estimator) => {
                let id = section.extensions.id(Extension::AbsSendTime);
                let absolute = id.and_then(|id| header.extension(packet, id)).and_then(extension::abs_send_time);
                let format = section.formats.iter().find(|format| format.payload_type == header.payload_type);
                let sent = match (absolute, format) {
                    (Some(time), _) => SendTime::Absolute(time),
                    // Audio's timestamps jump over silence.
                    (None, Some(format)) if section.kind == MediaKind::Video => {
                        SendTime::RtpTimestamp { timestamp: header.timestamp, clock_rate: format.clock_rate }
                    }
                    _ => return,
                };
                estimator.on_packet(now, header.ssrc, packet.len(), sent);
            }
            CongestionFeedback::None => {}
        }
    }
}
