//! What one peer may cost its shard: datagrams before they are decrypted, RTCP by the work that it makes, a publisher's
//! media by its limits. What is beyond is dropped, so that a flood costs its sender and nobody else.

use std::fmt;
use std::time::{Duration, Instant};

use crate::ledger::WarningCode;
use crate::media::Role;
use crate::rtcp::RtcpPacket;
use crate::spec::SessionLimits;
use crate::token_bucket::TokenBucket;

/// RTP and RTCP datagrams a second that are decrypted for a viewer. One that gets 20 Mbit/s over a path that loses a fifth
/// of it sends some 500: a NACK at each gap, feedback every 50 ms, reports. A datagram that is only refused by SRTP costs a
/// microsecond or two, so that forged ones cost 0.4 % of a shard at most.
const VIEWER_DATAGRAMS: f64 = 2_000.0;
/// For a publisher that many besides twice the packets that it may send: RTX and RTCP.
const PUBLISHER_DATAGRAMS: f64 = 2_000.0;
/// Without a limit of its own a publisher is taken to send so many packets a second.
const UNLIMITED: f64 = 200_000.0;
/// What has queued up in the socket while the machine paused is received at once: the budget of so much time.
const BURST: Duration = Duration::from_millis(1_000);

/// Work on RTCP a second, in units of about 0.1 µs: a number that is looked up, or eight statuses of transport-wide feedback.
/// It is 0.2 % of a shard, and three times as much as a viewer needs for 20 Mbit/s at a fifth lost: a status for every packet,
/// three requests for every lost one.
const WORK_PER_SECOND: f64 = 20_000.0;
/// What may be done at once.
const WORK_BURST: f64 = 10_000.0;
/// What one datagram may ask for: half a second of 20 Mbit/s reported, and all of it lost.
const WORK_PER_DATAGRAM: u32 = 1_000;
/// What every message costs.
const MESSAGE: u32 = 4;
/// Statuses of one message of transport-wide feedback that are read: as many as packets sent are remembered.
const MAX_STATUSES: u32 = 2_048;
/// NACKed packets of one message that are sent again; the viewer asks for the others once more.
pub(super) const MAX_RESENDS: usize = 256;

/// A warning is over when nothing was dropped for so long.
const WARNING_TIME: Duration = Duration::from_secs(10);
/// How often the facts of a warning are brought up to date.
const WARNING_UPDATE: Duration = Duration::from_secs(1);

/// The budgets of one peer.
pub(crate) struct Budgets {
    role: Role,
    datagrams: TokenBucket,
    rtcp: TokenBucket,
    media: MediaBudget,
    /// RTCP beyond its budget, and media beyond theirs.
    surplus: [Surplus; 2],
}

impl Budgets {
    /// For a session with these limits.
    pub(super) fn new(role: Role, limits: SessionLimits) -> Budgets {
        let datagrams = match role {
            Role::Viewer => VIEWER_DATAGRAMS,
            Role::Publisher => {
                2.0 * limits.packets_per_second.map_or(UNLIMITED, |packets| packets as f64) + PUBLISHER_DATAGRAMS
            }
        };
        Budgets {
            role,
            datagrams: TokenBucket::new(datagrams, datagrams * BURST.as_secs_f64()),
            rtcp: TokenBucket::new(WORK_PER_SECOND, WORK_BURST),
            media: MediaBudget::new(limits),
            surplus: [Surplus::default(), Surplus::default()],
        }
    }

    /// Takes a datagram of RTP or RTCP that is to be decrypted; false if it is one too many.
    #[inline]
    pub(crate) fn take_datagram(&mut self, now: Instant, is_rtcp: bool) -> bool {
        let enough = self.datagrams.take(now);
        if !enough {
            self.surplus[usize::from(!is_rtcp)].note(now);
        }
        enough
    }

    /// Takes a publisher's packet of so many bytes; false if it is beyond the limits.
    #[inline]
    pub(crate) fn take_media(&mut self, now: Instant, bytes: usize) -> bool {
        let enough = self.media.take(now, bytes);
        if !enough {
            self.surplus[1].note(now);
        }
        enough
    }

    /// What may be done for a datagram of RTCP.
    pub(super) fn begin_rtcp(&mut self, now: Instant) -> RtcpWork {
        RtcpWork { left: (self.rtcp.available(now) as u32).min(WORK_PER_DATAGRAM), done: 0 }
    }

    /// Pays for what was done; `is_surplus`: there was more to do.
    pub(super) fn end_rtcp(&mut self, now: Instant, work: &RtcpWork, is_surplus: bool) {
        self.rtcp.spend(f64::from(work.done));
        if is_surplus {
            self.surplus[0].note(now);
        }
    }

    /// The bit rate that a publisher is to be told of, if it comes close to it.
    pub(super) fn bitrate_limit(&self) -> Option<u64> {
        self.media.limits.bits_per_second.filter(|_| self.role == Role::Publisher)
    }

    /// The warnings that begin (with their facts) or are over; to be called several times a second.
    pub(super) fn poll(&mut self, now: Instant, mut warn: impl FnMut(WarningCode, Option<String>)) {
        for (surplus, code) in self.surplus.iter_mut().zip([WarningCode::RtcpExceeded, WarningCode::BitrateExceeded]) {
            match surplus.poll(now) {
                Some(false) => warn(code, None),
                Some(true) if code == WarningCode::BitrateExceeded => {
                    warn(code, Some(format!("{surplus} beyond {}", self.media.limits)));
                }
                Some(true) => warn(code, Some(format!("{surplus} with more RTCP than is acted upon"))),
                None => {}
            }
        }
    }
}

/// What may still be done for one datagram of RTCP.
#[derive(Debug)]
pub(super) struct RtcpWork {
    left: u32,
    done: u32,
}

impl RtcpWork {
    /// Takes what a message costs; false if that is too much.
    pub(super) fn take(&mut self, cost: u32) -> bool {
        let left = self.left.checked_sub(cost);
        if let Some(left) = left {
            self.left = left;
            self.done += cost;
        }
        left.is_some()
    }
}

/// The work that a message makes, in units of [`WORK_PER_SECOND`].
pub(super) fn cost<E>(packet: &Result<RtcpPacket<'_>, E>) -> u32 {
    let count = |entries: usize| u32::try_from(entries).unwrap_or(u32::MAX);
    let more = match packet {
        Ok(RtcpPacket::TransportFeedback(feedback)) => u32::from(feedback.status_count).min(MAX_STATUSES) / 8,
        // Each status is looked up by its number.
        Ok(RtcpPacket::CongestionControlFeedback(feedback)) => {
            feedback.streams().fold(0, |sum, stream| sum + 2 + count(stream.len()) / 4)
        }
        Ok(RtcpPacket::Nack(nack)) => count(nack.sequence_numbers().take(MAX_RESENDS).count()),
        // Each block is looked up among the tracks and judged.
        Ok(RtcpPacket::ReceiverReport(report)) => 4 * count(report.blocks().count()),
        Ok(RtcpPacket::SenderReport(report)) => 4 * count(report.blocks().count()),
        Ok(RtcpPacket::Fir(fir)) => count(fir.entries().count()),
        Ok(RtcpPacket::Bye(bye)) => count(bye.ssrcs().count()),
        Ok(RtcpPacket::ExtendedReport(report)) => count(report.delays().count()),
        Ok(RtcpPacket::Pli(_) | RtcpPacket::Remb(_) | RtcpPacket::Sdes(_)) | Err(_) => 0,
    };
    MESSAGE + more
}

/// How much media a publisher may send.
struct MediaBudget {
    limits: SessionLimits,
    bytes: Option<TokenBucket>,
    packets: Option<TokenBucket>,
}

impl MediaBudget {
    fn new(limits: SessionLimits) -> MediaBudget {
        let bucket = |per_second: f64| TokenBucket::new(per_second, per_second * BURST.as_secs_f64());
        MediaBudget {
            limits,
            bytes: limits.bits_per_second.map(|bits| bucket(bits as f64 / 8.0)),
            packets: limits.packets_per_second.map(|packets| bucket(packets as f64)),
        }
    }

    #[inline]
    fn take(&mut self, now: Instant, bytes: usize) -> bool {
        self.bytes.as_mut().is_none_or(|bucket| bucket.take_many(now, bytes as f64))
            && self.packets.as_mut().is_none_or(|bucket| bucket.take(now))
    }
}

/// Datagrams of one kind that were dropped.
#[derive(Default)]
struct Surplus {
    dropped: u64,
    last: Option<Instant>,
    /// A warning stands, as of this moment and this count.
    warned: Option<(Instant, u64)>,
}

impl Surplus {
    #[cold]
    fn note(&mut self, now: Instant) {
        self.dropped += 1;
        self.last = Some(now);
    }

    /// Whether a warning begins or has other facts, or is over.
    fn poll(&mut self, now: Instant) -> Option<bool> {
        let last = self.last?;
        match self.warned {
            Some(_) if now.saturating_duration_since(last) >= WARNING_TIME => {
                *self = Surplus::default();
                Some(false)
            }
            Some((at, dropped)) if dropped == self.dropped || now.saturating_duration_since(at) < WARNING_UPDATE => {
                None
            }
            _ => {
                self.warned = Some((now, self.dropped));
                Some(true)
            }
        }
    }
}

impl fmt::Display for Surplus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} datagrams were dropped", self.dropped)
    }
}

#[cfg(test)]
mod tests;
