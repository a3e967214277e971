//! The estimator and the pacer over a simulated bottleneck, in virtual time.

mod application_limited;
mod hostile;
mod marks;
mod narrow;
mod reports;
mod sharing;
mod stalls;
mod traces;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::pacer::{PACING_FACTOR, Pacer};
use super::probe::PROBE_INTERVAL;
use super::{EstimatorLimits, SendSideEstimator};
use crate::ecn::Ecn;
use crate::rtcp::ccfb::{CcfbFields, ReceivedPacket, StreamReport};
use crate::rtcp::transport_feedback::FeedbackFields;
use crate::rtcp::{MAX_RTCP_LEN, RtcpPacket, RtcpPackets, RtcpWriter};

const LIMITS: EstimatorLimits = EstimatorLimits { start: 1_000_000, min: 100_000, max: 20_000_000 };
const MTU: usize = 1_150;
const AUDIO_BYTES: usize = 160;
const PADDING_BYTES: usize = 250;
const FRAME_INTERVAL: u64 = 33_333;
const AUDIO_INTERVAL: u64 = 20_000;
const SSRC: u32 = 7;

/// Deterministic numbers in 0..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// A queue that is served at a rate, then a constant delay. Times in µs.
pub(crate) struct Link {
    bits_per_second: f64,
    /// Longer queues drop their tail.
    max_queue: u64,
    /// Packets that find a longer queue are marked, if they are ECN-capable.
    marks_from: Option<u64>,
    pub(crate) one_way: u64,
    /// Added to a packet's delay, evenly distributed; packets stay in order.
    jitter: u64,
    loss: f64,
    /// Everything is lost from the first to the second moment of every period (the third).
    loss_bursts: Option<(u64, u64, u64)>,
    pub(crate) free_at: f64,
    last_arrival: u64,
    random: Random,
}

impl Link {
    pub(crate) fn new(bits_per_second: f64) -> Link {
        Link {
            bits_per_second,
            max_queue: 1_000_000,
            marks_from: None,
            one_way: 25_000,
            jitter: 0,
            loss: 0.0,
            loss_bursts: None,
            free_at: 0.0,
            last_arrival: 0,
            random: Random(1),
        }
    }

    /// With a queue of so many µs.
    pub(crate) fn with_queue(self, max_queue: u64) -> Link {
        Link { max_queue, ..self }
    }

    /// Its rate changes.
    pub(crate) fn set_rate(&mut self, bits_per_second: f64) {
        self.bits_per_second = bits_per_second;
    }

    /// Queueing time of a packet that comes now.
    pub(crate) fn queue(&self, now: u64) -> u64 {
        (self.free_at - now as f64).max(0.0) as u64
    }

    /// When a packet arrives, if it does.
    pub(crate) fn send(&mut self, now: u64, bytes: usize) -> Option<u64> {
        if self.queue(now) > self.max_queue {
            return None;
        }
        self.free_at = self.free_at.max(now as f64) + bytes as f64 * 8e6 / self.bits_per_second;
        let jitter = (self.random.next() * self.jitter as f64) as u64;
        let arrival = (self.free_at as u64 + self.one_way + jitter).max(self.last_arrival);
        let burst = self.loss_bursts.is_some_and(|(from, to, period)| (from..to).contains(&(now % period)));
        if burst || self.random.next() < self.loss {
            return None;
        }
        self.last_arrival = arrival;
        Some(arrival)
    }
}

/// What the publisher sends.
#[derive(Clone, Copy, Debug)]
enum Media {
    /// So many bits per second, whatever the estimate.
    Fixed(f64),
    /// As the estimate allows, up to so many bits per second.
    UpTo(f64),
    /// So many bits per second; what is more than the estimate waits at the sender, up to 200 ms.
    Held(f64),
}

/// Bytes that a viewer's estimator takes, heap included.
fn memory(estimator: &SendSideEstimator) -> usize {
    let numbers = estimator.numbers.as_ref().map_or(0, |numbers| numbers.heap_size());
    size_of::<SendSideEstimator>() + estimator.history.heap_size() + numbers
}

/// What pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// The bottleneck, with what is in its queue.
    Link,
    /// The viewer: it receives everything afterwards at once.
    Viewer,
    /// Nothing, but all media is lost.
    Loss,
    /// The way back.
    Feedback,
    /// The sender.
    Sender,
    /// All of them, as where they are one machine.
    Everything,
}

/// The state of things at one moment.
#[derive(Clone, Copy)]
struct Sample {
    /// ms.
    time: u64,
    estimate: f64,
    /// ms.
    queue: u64,
}

/// A sender, a link and a viewer. One flat list of settings, state and record: each test varies what it needs.
struct Simulation {
    estimator: SendSideEstimator,
    pacer: Pacer,
    link: Link,
    media: Media,
    /// Every so many frames one is so many times larger.
    keyframes: Option<(u64, f64)>,
    probes: bool,
    feedback_interval: u64,
    /// Feedback is that of RFC 8888.
    ccfb: bool,
    /// Packets leave at the estimate, as ECT(1).
    ect1: bool,
    /// The viewer's clock against ours.
    drift_ppm: i64,
    start: Instant,
    /// µs.
    time: u64,
    frames: u64,
    next_frame: u64,
    next_audio: u64,
    next_probe: u64,
    next_feedback: u64,
    feedback_count: u8,
    /// When they were produced, and their bytes.
    paced: VecDeque<(u64, usize)>,
    in_flight: VecDeque<(u16, u64, Ecn)>,
    feedback: VecDeque<(u64, Vec<u8>)>,
    samples: Vec<Sample>,
    /// Feedback does not come through in this span.
    silence: Range<u64>,
    stalled: Option<(Stall, Range<u64>)>,
    /// Bytes that left, by ms.
    departures: Vec<usize>,
    /// Longest time that the pacer's queue takes to leave, in ms.
    pacer_wait: u64,
    lost: u64,
    sent: u64,
    marked: u64,
    /// The next RTP sequence number to be reported.
    reported: Option<u16>,
}

impl Simulation {
    fn new(bits_per_second: f64, media: Media) -> Simulation {
        let start = Instant::now();
        Simulation {
            estimator: SendSideEstimator::new(start, LIMITS, true),
            pacer: Pacer::new(start, (PACING_FACTOR * LIMITS.start as f64) as u64),
            link: Link::new(bits_per_second),
            media,
            keyframes: None,
            probes: true,
            feedback_interval: 50_000,
            ccfb: false,
            ect1: false,
            drift_ppm: 0,
            start,
            time: 0,
            frames: 0,
            next_frame: 0,
            next_audio: 0,
            next_probe: 0,
            next_feedback: 0,
            feedback_count: 0,
            paced: VecDeque::new(),
            in_flight: VecDeque::new(),
            feedback: VecDeque::new(),
            samples: vec![],
            silence: 0..0,
            stalled: None,
            departures: vec![],
            pacer_wait: 0,
            lost: 0,
            sent: 0,
            marked: 0,
            reported: None,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.time)
    }

    fn run(&mut self, seconds: f64) -> &mut Simulation {
        let end = self.time + (seconds * 1e6) as u64;
        while self.time < end {
            if !self.is_paused(&[Stall::Viewer, Stall::Everything]) {
                self.report();
            }
            if !self.is_paused(&[Stall::Sender, Stall::Everything]) {
                self.produce();
                // As the shard does it.
                if !self.ect1 || self.time.is_multiple_of(5_000) {
                    self.pace();
                }
                self.probe();
                self.take_feedback();
            }
            if self.time.is_multiple_of(10_000) {
                self.samples.push(Sample {
                    time: self.time / 1_000,
                    estimate: self.estimator.estimate() as f64,
                    queue: self.link.queue(self.time) / 1_000,
                });
            }
            self.time += 1_000;
        }
        self
    }

    /// Something pauses for so many seconds from now on.
    fn stall(&mut self, stall: Stall, seconds: f64) {
        let micros = (seconds * 1e6) as u64;
        let end = self.time + micros;
        self.stalled = Some((stall, self.time..end));
        if matches!(stall, Stall::Link | Stall::Everything) {
            self.link.free_at = self.link.free_at.max(self.time as f64) + micros as f64;
        }
        match stall {
            Stall::Loss => self.link.loss_bursts = Some((self.time, end, u64::MAX)),
            Stall::Everything => self.in_flight.iter_mut().for_each(|(_, arrival, _)| *arrival += micros),
            Stall::Viewer => {
                self.in_flight.iter_mut().for_each(|(_, arrival, _)| *arrival = end.max(*arrival));
                self.link.last_arrival = end;
            }
            _ => {}
        }
    }

    fn is_paused(&self, stalls: &[Stall]) -> bool {
        self.stalled.as_ref().is_some_and(|(stall, span)| stalls.contains(stall) && span.contains(&self.time))
    }

    fn take_feedback(&mut self) {
        let now = self.now();
        while self.feedback.front().is_some_and(|&(at, _)| at <= self.time) {
            let (_, bytes) = self.feedback.pop_front().unwrap();
            for packet in RtcpPackets::new(&bytes) {
                match packet {
                    Ok(RtcpPacket::TransportFeedback(feedback)) => self.estimator.on_feedback(now, &feedback),
                    Ok(RtcpPacket::CongestionControlFeedback(feedback)) => {
                        self.estimator.on_congestion_control_feedback(now, &feedback);
                    }
                    _ => panic!("no feedback"),
                }
            }
        }
        let estimate = self.estimator.estimate() as f64;
        let pace = match self.media {
            Media::Held(rate) if estimate < 1.1 * rate => estimate,
            _ if self.ect1 => estimate,
            _ => PACING_FACTOR * estimate,
        };
        self.pacer.set_rate(now, pace as u64);
    }

    fn produce(&mut self) {
        let audio = AUDIO_BYTES as f64 * 8e6 / AUDIO_INTERVAL as f64;
        if self.time >= self.next_frame {
            self.next_frame += FRAME_INTERVAL;
            if let Media::UpTo(_) = self.media {
                // An encoder does not make up for frames that it has missed.
                self.next_frame = self.next_frame.max(self.time);
            }
            let rate = match self.media {
                Media::Fixed(rate) | Media::Held(rate) => rate,
                Media::UpTo(rate) => rate.min(0.95 * self.estimator.estimate() as f64),
            };
            let frame = (rate - audio).max(0.0) / 8e6 * FRAME_INTERVAL as f64;
            // The mean over a group of pictures stays.
            let share = match self.keyframes {
                Some((every, factor)) if self.frames.is_multiple_of(every) => factor,
                Some((every, factor)) => (every as f64 - factor) / (every as f64 - 1.0),
                None => 1.0,
            };
            self.frames += 1;
            let bytes = (frame * share) as usize;
            let packets = bytes.div_ceil(MTU).max(1);
            self.paced.extend((0..packets).map(|_| (self.time, bytes / packets)));
        }
        if self.time >= self.next_audio {
            self.next_audio += AUDIO_INTERVAL;
            let now = self.now();
            self.pacer.on_sent(now, AUDIO_BYTES);
            self.send(AUDIO_BYTES);
        }
    }

    fn pace(&mut self) {
        let now = self.now();
        while self.pacer.may_send(now)
            && let Some((_, bytes)) = self.paced.pop_front()
        {
            self.pacer.on_sent(now, bytes);
            self.send(bytes);
        }
        if let Media::Held(_) = self.media {
            while self.paced.front().is_some_and(|&(produced, _)| produced + 200_000 < self.time) {
                self.paced.pop_front();
            }
        }
        let waiting: usize = self.paced.iter().map(|&(_, bytes)| bytes).sum();
        let rate = PACING_FACTOR * self.estimator.estimate() as f64;
        self.pacer_wait = self.pacer_wait.max((waiting as f64 * 8e3 / rate) as u64);
    }

    fn probe(&mut self) {
        if self.time < self.next_probe {
            return;
        }
        let now = self.now();
        self.estimator.poll(now);
        if self.probes
            && let Some(due) = self.estimator.next_probe(now)
        {
            for _ in 0..due.div_ceil(PADDING_BYTES) {
                self.pacer.on_sent(now, PADDING_BYTES);
                self.send(PADDING_BYTES);
            }
        }
        self.next_probe =
            self.time + if self.estimator.is_probing() { PROBE_INTERVAL.as_micros() as u64 } else { 25_000 };
    }

    fn send(&mut self, bytes: usize) {
        self.departures.resize((self.time / 1_000) as usize + 1, 0);
        *self.departures.last_mut().unwrap() += bytes;
        let sequence = if self.ccfb {
            // The number of an RTP stream that has wrapped as often as it has not.
            let number = (self.sent as u16).wrapping_add(60_000);
            self.estimator.on_sent_rtp(self.now(), bytes, SSRC, number);
            number
        } else {
            self.estimator.on_sent(self.now(), bytes)
        };
        self.sent += 1;
        let is_marked = self.link.marks_from.is_some_and(|longest| self.link.queue(self.time) > longest);
        let ecn = match (self.ect1, is_marked) {
            (false, _) => Ecn::NotEct,
            (true, false) => Ecn::Ect1,
            (true, true) => Ecn::Ce,
        };
        self.marked += u64::from(ecn == Ecn::Ce);
        match self.link.send(self.time, bytes) {
            Some(arrival) => self.in_flight.push_back((sequence, arrival, ecn)),
            None => self.lost += 1,
        }
    }

    fn report(&mut self) {
        if self.time < self.next_feedback {
            return;
        }
        self.next_feedback = self.time + self.feedback_interval;
        let mut packets = vec![];
        while let Some(&(sequence, arrival, ecn)) = self.in_flight.front()
            && arrival <= self.time
        {
            self.in_flight.pop_front();
            let arrival = arrival as i64;
            let there = 5_000_000_000 + arrival + arrival * self.drift_ppm / 1_000_000;
            packets.push((sequence, there as u64, ecn));
        }
        let messages = if self.ccfb {
            let there = 5_000_000_000 + self.time as i64 + self.time as i64 * self.drift_ppm / 1_000_000;
            self.ccfb_messages(&packets, there as u64)
        } else {
            let packets: Vec<_> = packets.iter().map(|&(sequence, at, _)| (sequence, Some(at))).collect();
            feedback_messages(&packets, &mut self.feedback_count)
        };
        if self.silence.contains(&self.time) {
            return;
        }
        let mut arrival = self.time + self.link.one_way;
        if self.is_paused(&[Stall::Feedback]) {
            arrival += self.stalled.as_ref().map_or(0, |(_, span)| span.end - self.time);
        }
        self.feedback.extend(messages.into_iter().map(|message| (arrival, message)));
    }

    /// Feedback of RFC 8888 for these packets, which arrived in order, on the viewer's clock in µs.
    fn ccfb_messages(&mut self, packets: &[(u16, u64, Ecn)], now: u64) -> Vec<Vec<u8>> {
        let Some(&(first, ..)) = packets.first() else { return vec![] };
        let begin = *self.reported.get_or_insert(first);
        let mut received = vec![];
        for &(sequence, at, ecn) in packets {
            received.resize(usize::from(sequence.wrapping_sub(begin)), None);
            received.push(Some(ReceivedPacket { at, ecn }));
        }
        self.reported = Some(begin.wrapping_add(received.len() as u16));
        let mut streams = [StreamReport { ssrc: SSRC, begin_sequence: begin, packets: &received }];
        let report_timestamp = (u128::from(now) * 65_536 / 1_000_000) as u32;
        let fields = CcfbFields { sender_ssrc: 1, report_timestamp, now };
        let mut messages = vec![];
        while !streams[0].packets.is_empty() {
            let mut buffer = [0; MAX_RTCP_LEN];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.congestion_control_feedback(&fields, &mut streams).unwrap();
            messages.push(writer.as_bytes().to_vec());
        }
        messages
    }

    /// Samples from so many seconds on.
    fn since(&self, seconds: f64) -> impl Iterator<Item = &Sample> + Clone {
        let from = (seconds * 1e3) as u64;
        self.samples.iter().filter(move |sample| sample.time >= from)
    }

    fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &Sample> + Clone {
        let to = (to * 1e3) as u64;
        self.since(from).filter(move |sample| sample.time < to)
    }

    /// Seconds, from `from` on, after which the estimate first was in a range.
    fn reaches(&self, from: f64, range: std::ops::Range<f64>) -> f64 {
        let at = self.since(from).find(|sample| range.contains(&sample.estimate));
        at.map_or(f64::INFINITY, |sample| sample.time as f64 / 1e3 - from)
    }
}

/// The transport-wide feedback for these packets: their numbers, and when they arrived in µs. `count` is that of the next
/// message.
pub(crate) fn feedback_messages(packets: &[(u16, Option<u64>)], count: &mut u8) -> Vec<Vec<u8>> {
    let (mut messages, mut rest) = (vec![], packets);
    while !rest.is_empty() {
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let fields = FeedbackFields { sender_ssrc: 1, media_ssrc: 2, feedback_count: *count };
        let taken = writer.transport_feedback(&fields, rest).unwrap();
        *count = count.wrapping_add(1);
        messages.push(writer.as_bytes().to_vec());
        rest = &rest[taken..];
    }
    messages
}

/// The value below which so many percent of the samples are.
fn percentile<'a>(samples: impl Iterator<Item = &'a Sample>, percent: usize, value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.map(value).collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// Lowest, median and highest estimate.
fn estimates<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> (f64, f64, f64) {
    let at = |percent| percentile(samples.clone(), percent, |sample| sample.estimate);
    (at(0), at(50), at(100))
}

fn queue<'a>(samples: impl Iterator<Item = &'a Sample>, percent: usize) -> f64 {
    percentile(samples, percent, |sample| sample.queue as f64)
}
