//! The congestion feedback to a publisher: that of RFC 8888, transport-wide feedback, REMB, or none, as was negotiated.

use std::time::{Duration, Instant};

use crate::bwe::EstimatorLimits;
use crate::bwe::receive::{ReceiveSideEstimator, SendTime};
use crate::ecn::Ecn;
use crate::media::{Extension, MediaKind, MediaSection};
use crate::rtp::{RtpHeader, extension};

use super::arrival::ArrivalLog;
use super::ccfb_log::CcfbLog;

/// Start and bounds of the estimate of a publisher's path, in bit/s.
const LIMITS: EstimatorLimits = EstimatorLimits { start: 2_500_000, min: 100_000, max: 100_000_000 };

/// How often a publisher that makes its own estimate is told its limit, …
const LIMIT_INTERVAL: Duration = Duration::from_secs(1);
/// … if it sends more than this part of it.
const NEAR_LIMIT: f64 = 0.7;

/// What a publisher is told of its path.
pub(super) enum CongestionFeedback {
    /// Arrival times and ECN marks by RTP sequence numbers, from which the publisher makes an estimate (RTCP-15).
    Ccfb(CcfbLog),
    /// Arrival times by transport-wide numbers, likewise (RTCP-14).
    TransportWide(ArrivalLog, Option<RateLimit>),
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
        if has_ccfb(sections) {
            CongestionFeedback::Ccfb(CcfbLog::new(now))
        } else if sections.iter().any(transport_wide) {
            CongestionFeedback::TransportWide(ArrivalLog::new(now), None)
        } else if sections.iter().any(remb) {
            CongestionFeedback::Remb(Box::new(ReceiveSideEstimator::new(now, LIMITS)))
        } else {
            CongestionFeedback::None
        }
    }

    /// The publisher's estimate is never to be above this, in bit/s. One that makes its own takes a REMB for its upper bound,
    /// where that was negotiated as well; in any case it learns from what is dropped.
    pub(super) fn limit(&mut self, now: Instant, sections: &[&MediaSection], bits_per_second: u64) {
        match self {
            CongestionFeedback::TransportWide(_, limit) => {
                let remb = sections.iter().flat_map(|section| &section.formats).any(|format| format.feedback.remb);
                *limit = remb.then_some(RateLimit { bits_per_second, bytes: 0, since: now });
            }
            CongestionFeedback::Remb(estimator) => {
                let max = bits_per_second.min(LIMITS.max);
                let limits = EstimatorLimits { start: LIMITS.start.min(max), min: LIMITS.min.min(max), max };
                **estimator = ReceiveSideEstimator::new(now, limits);
            }
            // What is dropped is all that it learns.
            CongestionFeedback::Ccfb(_) | CongestionFeedback::None => {}
        }
    }

    /// Notes a packet of a section.
    pub(super) fn on_packet(
        &mut self,
        (now, ecn): (Instant, Ecn),
        section: &MediaSection,
        header: &RtpHeader,
        packet: &[u8],
    ) {
        match self {
            CongestionFeedback::Ccfb(log) => log.on_packet(now, header.ssrc, header.sequence_number, ecn),
            CongestionFeedback::TransportWide(arrivals, limit) => {
                if let Some(limit) = limit {
                    limit.bytes += packet.len() as u64;
                }
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

/// True if congestion control feedback of RFC 8888 was agreed, which is one for the whole transport.
pub(crate) fn has_ccfb(sections: &[MediaSection]) -> bool {
    sections.iter().flat_map(|section| &section.formats).any(|format| format.feedback.ccfb)
}

/// The limit of a publisher that makes its own estimate.
pub(super) struct RateLimit {
    bits_per_second: u64,
    /// Received since then.
    bytes: u64,
    since: Instant,
}

impl RateLimit {
    /// The limit in bit/s, if the publisher is to be told.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.since);
        if passed < LIMIT_INTERVAL {
            return None;
        }
        let rate = self.bytes as f64 * 8.0 / passed.as_secs_f64();
        (self.bytes, self.since) = (0, now);
        (rate > NEAR_LIMIT * self.bits_per_second as f64).then_some(self.bits_per_second)
    }
}
