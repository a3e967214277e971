//! Congestion control: the available bitrate of the path to a viewer, and the REMB for a publisher.
//!
//! The send side ([`SendSideEstimator`], one a viewer) follows Google congestion control: draft-ietf-rmcat-gcc-02 with
//! the changes that libwebrtc made since (arrival feedback by draft-holmer-rmcat-transport-wide-cc-extensions-01, a
//! trendline in place of the Kalman filter, probing). Its estimate is the least of
//!
//! - the delay-based rate (`delay`: does the queue grow? `aimd`: what follows from that),
//! - the loss-based cap (`loss`),
//! - the viewer's REMB, for some seconds after the last one.
//!
//! While a queue of more than 100 ms stands at the bottleneck, the delay-based rate is lowered to drain it within a
//! second or two (the drafts leave that to the step down to 0.85, which takes several).
//!
//! A forwarding server is often application-limited: it sends the stream's rate, or nothing until a keyframe. Over-use at
//! such a time is no measure of the bottleneck, and a path that pauses for a moment is not over-used at all; `aimd` and
//! `delay` tell these cases apart.
//!
//! **Feedback of RFC 8888** has arrival times, too, in units of about a millisecond, and says how the network marked packets:
//! the rate is lowered in proportion to the marks (`marks`), before there is a queue that the delay would show.
//!
//! **Without either** (not negotiated, or the viewer sends none) only REMB and the loss of receiver
//! reports count. The rate then rises by 8 % a second while less than 2 % is lost, at once up to what is sent, and at
//! once up to the viewer's REMB, which is the delay-based estimate of its own side. There are no probes.
//!
//! [`pacer::Pacer`] spreads keyframes by the estimate; [`receive::ReceiveSideEstimator`] makes the REMB for publishers
//! that get no transport-wide feedback.
//!
//! All rates count bytes as the caller hands them in: towards viewers IP and UDP headers too, as libwebrtc does.

#![deny(clippy::disallowed_types)]

mod acknowledged;
mod aimd;
mod delay;
mod history;
mod loss;
mod marks;
pub mod pacer;
mod probe;
pub mod receive;
mod rtp_numbers;
#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, Instant};

use crate::ecn::Ecn;
use crate::rtcp::{CongestionControlFeedback, TransportFeedback};

use acknowledged::{AcknowledgedBitrate, LONG, RateWindow};
use aimd::{Delivered, RateControl};
use delay::{DelayDetector, Usage};
use history::{Reported, SentHistory};
use loss::{Conditions, LossBased, PacketCounts};
use marks::Marks;
use probe::Prober;
use rtp_numbers::RtpNumbers;

/// A REMB counts for so long.
const REMB_LIFETIME: Duration = Duration::from_secs(5);
/// Statuses of one feedback message that are read: as many as packets are remembered.
const MAX_STATUSES: usize = history::MAX_ENTRIES;
/// The estimate decays while packets are sent and no feedback was received for so long …
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(2);
/// … or for so long by a viewer that sends receiver reports only, …
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// … by this factor …
const DECAY: f64 = 0.8;
/// … every so often.
const DECAY_INTERVAL: Duration = Duration::from_secs(1);
/// A queue longer than this, in ms, is standing.
const STANDING_QUEUE: f64 = 50.0;
/// Nothing is probed into a queue that is longer than this, in ms, which …
const LONG_QUEUE: f64 = 100.0;
/// … is drained by a rate that is lower by this for each ms …
const DRAIN: f64 = 1.0 / 1_000.0;
/// … down to this part.
const MIN_DRAIN: f64 = 0.5;
/// Loss of receiver reports that come closer is not counted: over so short a time the rate is unknown.
const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Packets that a receiver report is taken to be about, at most.
const MAX_UNREPORTED: u32 = 1 << 20;
/// Less than this part of the estimate is sent: the application limits the rate, not the path.
const APPLICATION_LIMITED: f64 = 0.65;
/// Longer round-trip times are implausible and ignored.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
/// Until one is measured.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(200);

/// A moment in µs modulo 2^32, on any clock: enough to compare moments that are up to 35 minutes apart. The arrival times
/// of transport-wide feedback wrap at a multiple of 2^32 µs, so that they map onto it without a discontinuity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Micros(u32);

impl Micros {
    #[inline]
    fn at(epoch: Instant, now: Instant) -> Micros {
        let since = now.saturating_duration_since(epoch);
        Micros((since.as_secs() as u32).wrapping_mul(1_000_000).wrapping_add(since.subsec_micros()))
    }

    /// µs since `earlier`, negative if that is later.
    #[inline]
    fn since(self, earlier: Micros) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }
}

/// A packet that arrived, as feedback has it.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// On the viewer's clock, if it is told.
    at: Option<Micros>,
    /// How it was marked, if the feedback is of a kind that says so.
    ecn: Option<Ecn>,
}

/// Where an estimate begins and between what it stays, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EstimatorLimits {
    /// Before anything is known.
    pub start: u64,
    /// Never less, whatever the viewer reports.
    pub min: u64,
    /// Never more.
    pub max: u64,
}

/// What is known of the path to a viewer, for statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimateSnapshot {
    /// The estimate in bits per second (`availableOutgoingBitrate` of WebRTC's statistics).
    pub available_outgoing_bitrate: u64,
    /// How much longer packets take than at best in the last half minute, as of the last feedback: the queue at the
    /// bottleneck. While it is long, the estimate is lower than what the bottleneck carries, so that it drains.
    pub queueing_delay: Duration,
}

/// What was sent since a receiver report.
#[derive(Clone, Copy, Debug)]
struct Unreported {
    since: Instant,
    packets: u32,
    bytes: u64,
}

/// What was sent, as a rate.
#[derive(Debug, Default)]
struct SentRate {
    /// Up to the last poll.
    window: RateWindow,
    /// Bytes since then.
    bytes: u32,
}

/// How long no feedback was received.
#[derive(Debug, Default)]
struct Silence {
    /// The last transport-wide feedback.
    feedback: Option<Instant>,
    /// A receiver report was received.
    reported: bool,
    /// The first packet that was sent since the last feedback or report.
    since: Option<Instant>,
    /// The last decay of the estimate.
    decayed: Option<Instant>,
}

impl Silence {
    fn has_feedback(&self, now: Instant) -> bool {
        self.feedback.is_some_and(|at| now.saturating_duration_since(at) < FEEDBACK_TIMEOUT)
    }

    /// Feedback is not overdue.
    fn is_recent(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) < FEEDBACK_TIMEOUT)
    }

    /// True each time that the estimate has to decay, while packets are sent.
    fn take_decay(&mut self, now: Instant) -> bool {
        let timeout =
            if self.feedback.is_some() { Some(FEEDBACK_TIMEOUT) } else { self.reported.then_some(REPORT_TIMEOUT) };
        let (Some(timeout), Some(since)) = (timeout, self.since) else { return false };
        let decayed = self.decayed.filter(|&decayed| decayed > since);
        let due = now >= decayed.map_or(since + timeout, |decayed| decayed + DECAY_INTERVAL);
        if due {
            self.decayed = Some(now);
        }
        due
    }
}

/// The round-trip time to the viewer.
#[derive(Debug, Default)]
struct RoundTripTime {
    /// Of the newest packets in transport-wide feedback, smoothed.
    feedback: Option<Duration>,
    /// Of receiver reports.
    reported: Option<Duration>,
}

impl RoundTripTime {
    fn get(&self) -> Duration {
        self.reported.or(self.feedback).unwrap_or(INITIAL_ROUND_TRIP)
    }

    fn on_feedback(&mut self, micros: i32) {
        let Ok(micros) = u64::try_from(micros) else { return };
        let sample = Duration::from_micros(micros);
        if sample <= MAX_ROUND_TRIP {
            self.feedback = Some(self.feedback.map_or(sample, |old| (old * 7 + sample) / 8));
        }
    }

    fn on_report(&mut self, sample: Option<Duration>) {
        self.reported = sample.filter(|&sample| sample <= MAX_ROUND_TRIP).or(self.reported);
    }
}

/// The estimate of the path to one viewer. Sans-IO; nothing is allocated besides the history of packets in flight
/// (1 KiB at first, 16 KiB at most).
#[derive(Debug)]
pub struct SendSideEstimator {
    epoch: Instant,
    demand: f64,
    estimate: f64,
    /// The same, if no queue were to be drained.
    carries: f64,
    /// The viewer tells of each packet when it arrived.
    tells_arrivals: bool,
    history: SentHistory,
    /// For feedback that names packets by their RTP sequence numbers, from the first such packet on.
    numbers: Option<Box<RtpNumbers>>,
    marks: Marks,
    sent: SentRate,
    unreported: Unreported,
    delay: DelayDetector,
    acknowledged: AcknowledgedBitrate,
    control: RateControl,
    loss: LossBased,
    prober: Prober,
    remb: Option<(Instant, f64)>,
    silence: Silence,
    round_trip: RoundTripTime,
}

impl SendSideEstimator {
    /// For a viewer that negotiated to tell of each packet when it arrived, by transport-wide feedback or that of RFC 8888
    /// (`tells_arrivals`), or not. Limits that contradict each other
    /// are bent: `min` is at least 1, `max` at least `min`, `start` between them.
    pub fn new(now: Instant, limits: EstimatorLimits, tells_arrivals: bool) -> SendSideEstimator {
        let min = limits.min.max(1) as f64;
        let max = (limits.max as f64).max(min);
        let start = (limits.start as f64).clamp(min, max);
        SendSideEstimator {
            epoch: now,
            demand: max,
            estimate: start,
            carries: start,
            tells_arrivals,
            history: SentHistory::default(),
            numbers: None,
            marks: Marks::default(),
            sent: SentRate::default(),
            unreported: Unreported { since: now, packets: 0, bytes: 0 },
            delay: DelayDetector::default(),
            acknowledged: AcknowledgedBitrate::default(),
            control: RateControl::new(start, min, max),
            loss: LossBased::new(),
            prober: Prober::new(),
            remb: None,
            silence: Silence::default(),
            round_trip: RoundTripTime::default(),
        }
    }

    /// Bits per second that may be sent.
    pub fn estimate(&self) -> u64 {
        self.estimate as u64
    }

    /// Bits per second that the path is believed to carry. While a queue stands at the bottleneck the estimate is less, so that
    /// it drains.
    pub fn carries(&self) -> u64 {
        self.carries as u64
    }

    /// True while a queue stands at the bottleneck, or has grown within the last second.
    pub fn is_congested(&self, now: Instant) -> bool {
        self.control.is_unsettled(now) || is_standing(self.delay.queue())
    }

    /// The most that would be of use, in bits per second: say, the rate of the stream's best layer with its
    /// retransmissions. Nothing is probed above it. At first it is the upper limit.
    pub fn set_demand(&mut self, bits_per_second: u64) {
        self.demand = self.control.clamp(bits_per_second as f64);
    }

    /// There is a better layer that needs more than the estimate: whether the path carries it is tried more often.
    pub fn set_eager(&mut self, is_eager: bool) {
        self.prober.set_eager(is_eager);
    }

    /// Counts a packet that is sent to the viewer (media of all SSRCs, retransmissions, padding) and hands out its
    /// transport-wide number; for a viewer that tells of no arrivals always 0. During a probe cluster every packet is
    /// part of it.
    #[inline]
    pub fn on_sent(&mut self, now: Instant, bytes: usize) -> u16 {
        let counted = bytes.min(usize::from(u16::MAX)) as u32;
        self.count_sent(now, 1, counted);
        if !self.tells_arrivals {
            return 0;
        }
        let at = Micros::at(self.epoch, now);
        let cluster = self.prober.on_sent(at, counted);
        self.history.push(at, bytes, cluster)
    }

    /// The same for a packet that feedback of RFC 8888 will name by its SSRC and RTP sequence number.
    #[inline]
    pub fn on_sent_rtp(&mut self, now: Instant, bytes: usize, ssrc: u32, sequence_number: u16) {
        let number = self.on_sent(now, bytes);
        if self.tells_arrivals {
            let numbers = self.numbers.get_or_insert_default();
            numbers.insert(ssrc, sequence_number, number, self.history.capacity());
        }
    }

    /// Counts packets without transport-wide numbers that were sent since the last call of any kind, the first of them
    /// at `since`.
    #[inline]
    pub fn count_sent(&mut self, since: Instant, packets: u32, bytes: u32) {
        self.sent.bytes = self.sent.bytes.saturating_add(bytes);
        self.unreported.packets = self.unreported.packets.saturating_add(packets).min(MAX_UNREPORTED);
        self.unreported.bytes += u64::from(bytes);
        if self.silence.since.is_none() {
            self.silence.since = Some(since);
        }
    }

    /// Takes the viewer's transport-wide feedback. What it says of packets that were never sent, are long gone or were
    /// reported before is ignored.
    pub fn on_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) {
        if !self.tells_arrivals {
            return;
        }
        self.history.settle(feedback.base_sequence);
        let statuses = self.history.sent_from(feedback.base_sequence).min(MAX_STATUSES);
        let arrival = |at: i64| Arrival { at: Some(Micros(at as u32)), ecn: None };
        self.on_statuses(now, feedback.packets().take(statuses).map(|(number, at)| (number, at.map(arrival))));
    }

    /// Takes the viewer's feedback of RFC 8888, likewise.
    pub fn on_congestion_control_feedback(&mut self, now: Instant, feedback: &CongestionControlFeedback<'_>) {
        // Nothing was sent yet.
        let Some(mut numbers) = self.numbers.take() else { return };
        let mut statuses = numbers.take(feedback, self.history.oldest()).peekable();
        if let Some(&(first, _)) = statuses.peek() {
            self.history.settle(first);
        }
        self.on_statuses(now, statuses);
        self.numbers = Some(numbers);
    }

    /// Takes what became of packets, in the order in which they were sent.
    fn on_statuses(&mut self, now: Instant, statuses: impl Iterator<Item = (u16, Option<Arrival>)>) {
        let at = Micros::at(self.epoch, now);
        let mut counts = PacketCounts::default();
        let mut newest: Option<Micros> = None;
        for (sequence, arrival) in statuses {
            let packet = match self.history.report(sequence, arrival.is_some()) {
                Some(Reported::Received(packet)) => {
                    counts.expected += 1;
                    packet
                }
                Some(Reported::Recovered(packet)) => {
                    counts.recovered += 1;
                    packet
                }
                Some(Reported::Lost) => {
                    counts.expected += 1;
                    counts.lost += 1;
                    continue;
                }
                None => continue,
            };
            let Some(Arrival { at: arrived, ecn }) = arrival else { continue };
            if let Some(ecn) = ecn {
                self.marks.on_packet(&packet, ecn);
            }
            if newest.is_none_or(|newest| packet.sent.since(newest) > 0) {
                newest = Some(packet.sent);
            }
            let Some(arrived) = arrived else { continue };
            self.delay.on_packet(packet.sent, arrived);
            self.acknowledged.on_packet(packet.sent, arrived, packet.bytes);
            if packet.cluster != 0 {
                self.prober.on_received(&packet, arrived);
            }
        }
        if counts.expected + counts.recovered == 0 {
            return;
        }
        (self.silence.since, self.silence.feedback) = (None, Some(now));
        if let Some(newest) = newest {
            self.round_trip.on_feedback(at.since(newest));
        }
        let delivered = self.delivered();
        // A full queue grows no more: it drops the excess.
        let overflows = self.loss.overflows() && delivered.is_some_and(|delivered| delivered.is_queued());
        let usage = if overflows { Usage::Overuse } else { self.delay.take_signal() };
        self.control.update(now, usage, delivered, self.round_trip.get());
        if let Some(factor) = self.marks.poll(now, self.round_trip.get()) {
            self.control.on_marks(now, factor, delivered);
        }
        self.count_loss(now, counts, delivered.map_or(0.0, |delivered| delivered.rate));
        self.apply_probes(now, delivered);
        self.settle(now);
    }

    /// Takes a receiver report's fraction lost, 0 to 1, over all report blocks of the viewer's media (weighted by their
    /// packets), and the round-trip time that it shows. The loss counts only without transport-wide
    /// feedback, and not more than five times a second. While the first feedback is awaited, nothing counts: all that
    /// was sent may stand in a queue, which the report does not show.
    pub fn on_receiver_report(&mut self, now: Instant, fraction_lost: f64, round_trip: Option<Duration>) {
        (self.silence.since, self.silence.reported) = (None, true);
        self.round_trip.on_report(round_trip);
        let elapsed = now.saturating_duration_since(self.unreported.since);
        if elapsed < MIN_REPORT_INTERVAL {
            return;
        }
        let fresh = Unreported { since: now, packets: 0, bytes: 0 };
        let sent = std::mem::replace(&mut self.unreported, fresh);
        if self.silence.has_feedback(now) || self.awaits_feedback(now) || sent.packets == 0 {
            return;
        }
        let fraction = if fraction_lost.is_finite() { fraction_lost.clamp(0.0, 1.0) } else { 0.0 };
        let rate = sent.bytes as f64 * 8.0 / elapsed.as_secs_f64() * (1.0 - fraction);
        let lost = (f64::from(sent.packets) * fraction).round() as u32;
        self.count_loss(now, PacketCounts { expected: sent.packets, lost, recovered: 0 }, rate);
        // Without arrival times a path is in good use while little is lost.
        let usage = if self.loss.excess() < 0.02 { Usage::Normal } else { Usage::Underuse };
        let delivered = Delivered { rate, recent: rate, queue: 0.0, limited: false };
        self.control.update(now, usage, Some(delivered), self.round_trip.get());
        self.follow_remb(now);
        self.settle(now);
    }

    /// Takes the viewer's REMB in bits per second: a cap for some seconds.
    pub fn on_remb(&mut self, now: Instant, bits_per_second: u64) {
        self.remb = Some((now, bits_per_second as f64));
        self.follow_remb(now);
        self.settle(now);
    }

    /// Lets time pass: missing feedback, probes that end, a REMB that expires. Every 25 to 100 ms is enough.
    pub fn poll(&mut self, now: Instant) {
        let at = Micros::at(self.epoch, now);
        self.prober.poll(now, at);
        self.sent.window.add(at, std::mem::take(&mut self.sent.bytes));
        let sending = self.sent.window.rate(LONG).is_some_and(|rate| rate > 0.0);
        if sending && self.silence.take_decay(now) {
            self.control.decay(DECAY);
        }
        self.settle(now);
    }

    /// Bytes of a probe that are due now, to be sent as padding or retransmissions, in several packets. While
    /// [`is_probing`](Self::is_probing), ask again every 5 ms; otherwise with [`poll`](Self::poll). A viewer to which
    /// nothing can be sent for that purpose need not be asked.
    pub fn next_probe(&mut self, now: Instant) -> Option<usize> {
        if !self.tells_arrivals || self.history.heap_size() == 0 {
            return None;
        }
        let allowed = !self.delay.is_rising()
            && !self.control.is_unsettled(now)
            && self.delay.queue() < LONG_QUEUE
            && self.loss.excess() < 0.1
            && self.silence.is_recent(now);
        self.prober.next(now, Micros::at(self.epoch, now), self.estimate, allowed.then_some(self.demand))
    }

    /// A probe cluster is being sent.
    pub fn is_probing(&self) -> bool {
        self.prober.is_probing()
    }

    /// True if the path wipes out that packets were sent as ECT(1).
    pub fn wipes_marks_out(&self) -> bool {
        self.marks.are_wiped_out()
    }

    /// The estimate and the queue, for statistics.
    pub fn snapshot(&self) -> EstimateSnapshot {
        EstimateSnapshot {
            available_outgoing_bitrate: self.estimate(),
            queueing_delay: Duration::from_micros((self.delay.queue() * 1e3) as u64),
        }
    }

    fn awaits_feedback(&self, now: Instant) -> bool {
        let begun = now.saturating_duration_since(self.epoch) < FEEDBACK_TIMEOUT;
        self.tells_arrivals && self.silence.feedback.is_none() && begun
    }

    fn delivered(&self) -> Option<Delivered> {
        let (rate, recent) = (self.acknowledged.rate()?, self.acknowledged.recent()?);
        let limited = self.acknowledged.recently_sent()? < APPLICATION_LIMITED * self.estimate;
        Some(Delivered { rate, recent, queue: self.delay.queue(), limited })
    }

    fn count_loss(&mut self, now: Instant, counts: PacketCounts, delivered: f64) {
        let conditions = Conditions {
            estimate: self.control.rate().min(self.loss.cap().unwrap_or(f64::INFINITY)),
            delay_based: self.control.rate(),
            delivered,
            congested: self.control.is_unsettled(now),
            round_trip: self.round_trip.get(),
        };
        self.loss.on_packets(now, counts, &conditions);
    }

    fn apply_probes(&mut self, now: Instant, delivered: Option<Delivered>) {
        let congested = self.control.is_unsettled(now);
        let Some(result) = self.prober.results(now, self.demand, congested) else { return };
        if congested {
            return;
        }
        let proven = delivered.map_or(0.0, |delivered| delivered.rate);
        self.control.on_probe(now, result.rate, result.saturated, proven);
    }

    /// Without transport-wide feedback the viewer's REMB replaces the delay-based estimate.
    fn follow_remb(&mut self, now: Instant) {
        if let Some((_, remb)) = self.remb
            && !self.silence.has_feedback(now)
            && self.loss.excess() < 0.02
            && remb > self.control.rate()
        {
            self.control.set_measured(now, remb);
        }
    }

    /// Combines the parts into the estimate.
    fn settle(&mut self, now: Instant) {
        self.remb = self.remb.filter(|(at, _)| now.saturating_duration_since(*at) < REMB_LIFETIME);
        let remb = self.remb.map_or(f64::INFINITY, |(_, remb)| remb);
        let cap = self.loss.cap().unwrap_or(f64::INFINITY);
        self.carries = self.control.clamp(self.control.rate().min(cap).min(remb));
        let drained = self.control.rate() * drain_factor(self.delay.queue());
        let estimate = self.control.clamp(drained.min(self.carries));
        if estimate < 0.97 * self.estimate {
            self.prober.on_decrease(now, self.estimate, estimate);
        }
        self.estimate = estimate;
    }
}

/// True if a queue of so many ms is a standing one.
fn is_standing(queue: f64) -> bool {
    queue > STANDING_QUEUE
}

/// The part of the bottleneck's rate that may be used, so that a queue of so many ms is gone after a second or two: a
/// step down to 0.85 alone would take several.
fn drain_factor(queue: f64) -> f64 {
    (1.0 - (queue - LONG_QUEUE).max(0.0) * DRAIN).max(MIN_DRAIN)
}
