//! How much one viewer's path carries, and what follows from it: pacing, and the budgets of probes and retransmissions.

use std::time::{Duration, Instant};

use crate::bwe::pacer::{PACING_FACTOR, Pacer, RetransmissionBudget};
use crate::bwe::{EstimateSnapshot, EstimatorLimits, SendSideEstimator};
use crate::ecn::Ecn;
use crate::rtcp::{CongestionControlFeedback, TransportFeedback};
use crate::spec::SessionLimits;

use super::selection::Path;

/// Bounds of an estimate in bit/s.
const MIN_ESTIMATE: u64 = 50_000;
const MAX_ESTIMATE: u64 = 100_000_000;
/// A viewer's path is taken to carry this at first, in bit/s …
const START: u64 = 3_000_000;
/// … or this part of the stream, if that is more: there is no smaller stream to begin with.
const HEADROOM: f64 = 1.5;
/// The path carries the stream if the estimate is this part of its rate: keyframes may leave faster than at the
/// estimate. Else nothing does, so that what is too much waits here, where it can be dropped, and not in the path.
const CARRIES: f64 = 1.1;
/// Probes go beyond what the best layer needs by this factor, so that it is climbed with a margin.
const BEYOND_WANTED: f64 = 1.25;
/// A viewer that has agreed to tell of arrivals and does not is not paced, and its packets are not sent as ECN-capable: some
/// network may drop those.
const FEEDBACK_BY: Duration = Duration::from_secs(2);
/// A small packet costs the shard as much as a large one: one datagram full of NACKs must not become thousands of ours.
const LEAST_RETRANSMISSION: usize = 500;
/// What a payload costs the path besides itself, in bytes: IPv4, UDP and RTP header, the transport-wide number, SRTP tag.
/// Probes are made of small packets: without all of it they would find a seventh less than there is.
const OVERHEAD: usize = 20 + 8 + 12 + 8 + 16;

/// One viewer's congestion control. In front, in one line of the processor's cache, stands what a fan-out pass needs of
/// viewers without transport-wide numbers; then the pacer, and last what only feedback and ticks touch.
#[repr(C, align(64))]
pub struct Congestion {
    uncounted: Uncounted,
    begun: Instant,
    /// Bytes of a probe that are due.
    probe: usize,
    feedback: ArrivalFeedback,
    /// Packets are sent as ECT(1), so that routers with L4S mark them instead of letting a queue grow (RFC 9331 §4.1).
    ect1: bool,
    /// The viewer tells what arrives, by feedback or REMB; reports of loss alone are too rare to pace by.
    has_feedback: bool,
    /// It is sent no more than its session may carry, whatever its path carries.
    is_limited: bool,
    pacer: Pacer,
    /// A packet counts at least so many bytes, so that there are no more packets than there may be.
    least_bytes: usize,
    estimator: SendSideEstimator,
    retransmissions: RetransmissionBudget,
    /// What the pacer follows, in bit/s.
    pace: u64,
    carries_stream: bool,
    /// If what it is sent is chosen by the estimate: what that needs at least, in bit/s.
    least_of_layers: Option<u64>,
    /// The most that the viewer is sent, in bit/s.
    max: u64,
    packets_per_second: Option<u64>,
    /// The best that the viewer may be sent, in bit/s, if that is more than it is sent.
    wanted: u64,
    /// Loss of its last receiver report, 0 to 1, and how many reports there were.
    reported: (f64, u64),
}

const _: () = assert!(std::mem::offset_of!(Congestion, pacer) <= 64);

/// How a viewer has agreed to tell of each packet when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalFeedback {
    /// It does not.
    None,
    /// By transport-wide numbers, which the packets carry.
    TransportWide,
    /// By RTP sequence numbers (RFC 8888).
    Ccfb,
}

/// By which number a viewer will tell of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbered {
    /// It will not.
    No,
    /// A transport-wide one.
    TransportWide,
    /// Its SSRC and RTP sequence number.
    Rtp(u32, u16),
}

/// Packets without numbers that the estimator does not know of yet: it is told before it is asked.
#[derive(Clone, Copy, Debug, Default)]
struct Uncounted {
    since: Option<Instant>,
    packets: u32,
    bytes: u32,
}

impl Congestion {
    /// A viewer of a stream of `media` bit/s.
    pub fn new(now: Instant, feedback: ArrivalFeedback, media: u64) -> Congestion {
        let start = START.max((media as f64 * HEADROOM) as u64);
        let pace = (start as f64 * PACING_FACTOR) as u64;
        let limits = EstimatorLimits { start, min: MIN_ESTIMATE, max: MAX_ESTIMATE };
        Congestion {
            uncounted: Uncounted::default(),
            begun: now,
            probe: 0,
            feedback,
            ect1: false,
            has_feedback: false,
            is_limited: false,
            pacer: Pacer::new(now, pace),
            least_bytes: 0,
            estimator: SendSideEstimator::new(now, limits, feedback != ArrivalFeedback::None),
            retransmissions: RetransmissionBudget::new(now, start),
            pace,
            carries_stream: true,
            least_of_layers: None,
            max: MAX_ESTIMATE,
            packets_per_second: None,
            wanted: 0,
            reported: (0.0, 0),
        }
    }

    /// Bits per second that the path is believed to carry.
    pub fn estimate(&self) -> u64 {
        self.estimator.estimate()
    }

    /// What is known of the path.
    pub(super) fn path(&self, now: Instant) -> Path {
        let awaits_feedback = now.saturating_duration_since(self.begun) < FEEDBACK_BY;
        match (self.tells_arrivals(), self.has_feedback) {
            (true, has_feedback) if has_feedback || awaits_feedback => Path::Probed(self.estimate()),
            (_, true) => Path::Estimated(self.estimate()),
            _ => {
                let (lost, reports) = self.reported;
                Path::Unknown { lost, reports, most: if self.is_limited { self.max as f64 } else { f64::INFINITY } }
            }
        }
    }

    /// Learns the best that the viewer may be sent, in bit/s: probes are for that. `least`, if what it is sent is chosen by the
    /// estimate, is what that needs at least. A queue then drains by the choice alone: if the pacer held back what was chosen, a
    /// keyframe would have to wait for the end of the queue before it could stand there itself. If it held back the least, frames
    /// would be dropped as late, and keyframes be needed that are larger still.
    pub(super) fn set_wanted(&mut self, bits_per_second: u64, least: Option<u64>) {
        (self.wanted, self.least_of_layers) = (bits_per_second, least);
    }

    /// Bits per second that the path carries. While a queue is to drain, the estimate is less.
    pub(super) fn carries(&self) -> u64 {
        self.estimator.carries()
    }

    /// Bounds what the viewer is sent, before anything was.
    pub fn limit(&mut self, now: Instant, limits: SessionLimits, media: u64) {
        self.is_limited = limits != SessionLimits::default();
        self.max = limits.bits_per_second.map_or(MAX_ESTIMATE, |bits| bits.clamp(1, MAX_ESTIMATE));
        self.packets_per_second = limits.packets_per_second;
        let start = self.estimator.estimate().min(self.max);
        let limits = EstimatorLimits { start, min: MIN_ESTIMATE.min(self.max), max: self.max };
        self.estimator = SendSideEstimator::new(now, limits, self.tells_arrivals());
        self.follow(now, media);
    }

    /// Sends packets as ECT(1) to a viewer whose feedback says what becomes of that.
    pub fn set_ect1(&mut self, now: Instant, media: u64) {
        if self.feedback == ArrivalFeedback::Ccfb {
            self.ect1 = true;
            self.pacer.make_smooth();
            self.follow(now, media);
        }
    }

    /// The ECN field of what is sent.
    #[inline]
    pub(super) fn ecn(&self) -> Ecn {
        if self.ect1 { Ecn::Ect1 } else { Ecn::NotEct }
    }

    #[inline]
    fn tells_arrivals(&self) -> bool {
        self.feedback != ArrivalFeedback::None
    }

    /// Counts a packet that is sent now; its transport-wide number, if it carries one. Where only some sections carry
    /// them, the others' packets count for the pacer alone: a number that the viewer never saw would look lost.
    #[inline]
    pub(super) fn on_sent(&mut self, now: Instant, payload: usize, numbered: Numbered) -> u16 {
        let bytes = payload + OVERHEAD;
        // A viewer that is not paced yet starts with a whole burst.
        if self.has_feedback || self.tells_arrivals() || self.is_limited {
            self.pacer.on_sent(now, bytes.max(self.least_bytes));
        }
        match (self.feedback, numbered) {
            (ArrivalFeedback::TransportWide, Numbered::TransportWide) => return self.estimator.on_sent(now, bytes),
            (ArrivalFeedback::Ccfb, Numbered::Rtp(ssrc, number)) => {
                self.estimator.on_sent_rtp(now, bytes, ssrc, number);
                return 0;
            }
            (ArrivalFeedback::None, _) => {}
            _ => return 0,
        }
        if self.uncounted.packets == 0 {
            self.uncounted.since = Some(now);
        }
        self.uncounted.packets += 1;
        self.uncounted.bytes = self.uncounted.bytes.saturating_add(bytes as u32);
        0
    }

    /// Tells the estimator what was sent.
    fn count(&mut self) {
        let Uncounted { since, packets, bytes } = std::mem::take(&mut self.uncounted);
        if let Some(since) = since {
            self.estimator.count_sent(since, packets, bytes);
        }
    }

    /// True if video waits for its time.
    pub fn is_paced(&self, now: Instant) -> bool {
        self.has_feedback
            || self.is_limited
            || (self.tells_arrivals() && now.saturating_duration_since(self.begun) < FEEDBACK_BY)
    }

    /// True if the path carries the whole stream, as far as is known.
    pub(super) fn carries_stream(&self) -> bool {
        self.carries_stream
    }

    /// True if video may leave now.
    #[inline]
    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.pacer.may_send(now)
    }

    /// How long it takes to send so many bytes, as far as is known.
    pub(super) fn takes(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.pace.max(1) as f64)
    }

    /// True if a retransmission of so many bytes is within its budget; counts it.
    pub(super) fn allow_retransmission(&mut self, now: Instant, bytes: usize) -> bool {
        self.retransmissions.take(now, bytes.max(LEAST_RETRANSMISSION))
    }

    /// Takes transport-wide feedback; `media` is the stream's rate in bit/s.
    pub fn on_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>, media: u64) {
        if self.feedback == ArrivalFeedback::TransportWide {
            self.estimator.on_feedback(now, feedback);
            self.has_feedback = true;
            self.follow(now, media);
        }
    }

    /// Takes feedback of RFC 8888, likewise.
    pub fn on_congestion_control_feedback(
        &mut self,
        now: Instant,
        feedback: &CongestionControlFeedback<'_>,
        media: u64,
    ) {
        if self.feedback == ArrivalFeedback::Ccfb {
            self.estimator.on_congestion_control_feedback(now, feedback);
            self.has_feedback = true;
            self.ect1 &= !self.estimator.wipes_marks_out();
            self.follow(now, media);
        }
    }

    /// Takes a REMB in bit/s.
    pub fn on_remb(&mut self, now: Instant, bits_per_second: u64, media: u64) {
        self.estimator.on_remb(now, bits_per_second);
        self.has_feedback = true;
        self.follow(now, media);
    }

    /// Takes the loss, 0 to 1, and the round-trip time of a receiver report.
    pub fn on_receiver_report(&mut self, now: Instant, lost: f64, round_trip: Option<Duration>, media: u64) {
        self.count();
        self.reported = (lost, self.reported.1 + 1);
        self.estimator.on_receiver_report(now, lost, round_trip);
        self.follow(now, media);
    }

    /// Lets time pass. True if a probe is due, to be sent with the next fan-out pass; only viewers to
    /// whom padding can be sent are probed.
    pub fn poll(&mut self, now: Instant, media: u64, can_probe: bool) -> bool {
        self.count();
        let wanted = (self.wanted as f64 * BEYOND_WANTED) as u64;
        self.estimator.set_eager(wanted > self.estimate());
        self.estimator.set_demand(wanted.max((media as f64 * 2.0 * HEADROOM) as u64));
        self.estimator.poll(now);
        self.ect1 &= self.has_feedback || now.saturating_duration_since(self.begun) < FEEDBACK_BY;
        self.follow(now, media);
        if can_probe && self.has_feedback && self.probe == 0 {
            self.ask_probe(now);
        }
        self.probe > 0
    }

    /// Bytes of padding that are due now as part of a probe.
    #[inline]
    pub(super) fn take_probe(&mut self, now: Instant) -> usize {
        if self.probe == 0 && self.estimator.is_probing() {
            self.ask_probe(now);
        }
        std::mem::take(&mut self.probe)
    }

    /// A probe is in progress: there will be more to send soon.
    pub(super) fn is_probing(&self) -> bool {
        self.estimator.is_probing()
    }

    /// True if the viewer tells what arrives.
    pub fn has_feedback(&self) -> bool {
        self.has_feedback
    }

    /// What is known of the path.
    pub fn snapshot(&self) -> EstimateSnapshot {
        self.estimator.snapshot()
    }

    fn ask_probe(&mut self, now: Instant) {
        self.probe = self.estimator.next_probe(now).unwrap_or(0);
    }

    fn follow(&mut self, now: Instant, media: u64) {
        let estimate = self.estimator.estimate();
        // Of a viewer that tells nothing nothing is known but its limit.
        let tells = self.has_feedback || self.tells_arrivals();
        let carried = if self.is_limited && !tells { self.max } else { estimate };
        self.carries_stream = carried as f64 >= CARRIES * media as f64;
        // Packets are not to come faster than they leave where a queue stands, or where one of a millisecond is marked.
        let may_burst = self.carries_stream && !self.ect1 && !self.estimator.is_congested(now);
        let pace = match self.least_of_layers {
            _ if may_burst => (carried as f64 * PACING_FACTOR) as u64,
            Some(least) => self.carries().max(least).min(self.max).max(carried),
            None => carried,
        };
        self.least_bytes = self.packets_per_second.map_or(0, |packets| (pace / 8 / packets.max(1)) as usize);
        if pace != self.pace {
            self.pace = pace;
            self.pacer.set_rate(now, pace);
            self.retransmissions.set_estimate(now, estimate);
        }
    }
}
