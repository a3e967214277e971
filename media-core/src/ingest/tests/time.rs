//! Steps and drift of a publisher's RTP clock, and stalls of its uplink, over traces in virtual time: what a receiver that plays
//! by RTP time makes of the stream.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// ms.
const RUN: u64 = 45_000;
/// When the clock steps or the uplink stalls.
const EVENT: u64 = 18_000;
/// A clock that drifts is known for what it is by then.
const KNOWN: u64 = 6_000;
/// A receiver holds packets for as long as the latest one of this time needed it.
const MEMORY: u64 = 10_000;
/// A receiver holds no packet for longer, ms: 100, the jitter, and how long a packet is.
const BOUND: f64 = 130.0;
const JITTER: u64 = 20;

/// A publisher of audio and video, and its uplink.
#[derive(Clone, Copy, Debug, Default)]
struct Trace {
    seed: u64,
    /// Its RTP clock is so much too fast.
    drift: f64,
    /// By so many ms both RTP clocks step.
    step: f64,
    /// For so many ms the uplink carries nothing.
    stall: u64,
    /// It sends sender reports.
    reports: bool,
}

/// What arrives.
struct Arrival {
    at: u64,
    track: TrackId,
    sequence: u16,
    timestamp: u32,
    keyframe: bool,
}

fn clock_rate(track: TrackId) -> f64 {
    if track.kind == MediaKind::Audio { 48.0 } else { 90.0 }
}

impl Trace {
    /// RTP time, in ms.
    fn time(&self, ms: u64) -> f64 {
        let step = if ms >= EVENT { self.step } else { 0.0 };
        50_000_000.0 + ms as f64 * (1.0 + self.drift) + step
    }

    fn timestamp(&self, track: TrackId, ms: u64) -> u32 {
        (self.time(ms) * clock_rate(track)) as i64 as u32
    }

    /// Audio of 20 ms, or of an unknown duration.
    fn audio(&self) -> &'static [u8] {
        if self.seed.is_multiple_of(2) { b"opus" } else { &[0xfc, 1, 2] }
    }

    /// 50 packets of audio and 25 video frames a second, with up to 20 ms of jitter; one in a hundred is lost.
    fn arrivals(&self) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut all = Vec::new();
        for (track, interval) in [(TrackId::AUDIO, 20), (TrackId::VIDEO, 40)] {
            let mut before = 0;
            for (sequence, sent) in (0..RUN).step_by(interval).enumerate() {
                let stalls = (EVENT..EVENT + self.stall).contains(&sent);
                let at = if stalls { EVENT + self.stall } else { sent + random.random_range(0..JITTER) };
                before = at.max(before);
                if !random.random_bool(0.01) || sequence == 0 {
                    let (timestamp, keyframe) = (self.timestamp(track, sent), sent % 1_000 == 0);
                    all.push(Arrival { at: before, track, sequence: sequence as u16, timestamp, keyframe });
                }
            }
        }
        all.sort_by_key(|arrival| arrival.at);
        all
    }
}

/// A receiver that plays audio and video by the RTP time of packets and sender reports, in sync, each as early as the latest
/// packet of its memory allowed.
#[derive(Default)]
struct Receiver {
    reports: Vec<(TrackId, ClockPoint)>,
    /// Time and lateness of packets that are later than all after them.
    latest: VecDeque<(u64, f64)>,
}

impl Receiver {
    fn on_report(&mut self, track: TrackId, report: ClockPoint) {
        self.reports.retain(|&(known, _)| known != track);
        self.reports.push((track, report));
    }

    /// For how many ms it holds a packet.
    fn hold(&mut self, at: u64, track: TrackId, timestamp: u32) -> Option<f64> {
        let (_, report) = self.reports.iter().find(|&&(known, _)| known == track)?;
        let due = report.rtp_at(START_UNIX + Duration::from_millis(at));
        let late = f64::from(due.wrapping_sub(timestamp) as i32) / clock_rate(track);
        self.latest.retain(|&(then, other)| then + MEMORY > at && other > late);
        self.latest.push_back((at, late));
        Some(self.latest[0].1 - late)
    }
}

/// What became of a trace.
#[derive(Debug, Default)]
struct Outcome {
    /// The longest time for which a receiver held a packet, ms: in all, and when it has forgotten begin and event.
    longest: f64,
    settled: f64,
    /// The largest step back of a track's RTP time, ms.
    back: f64,
    /// How far RTP time was from real time at most, ms.
    off: f64,
}

fn run(trace: &Trace) -> Outcome {
    let mut harness = Harness::new(&[audio(), video()]);
    let (mut receiver, mut outcome) = (Receiver::default(), Outcome::default());
    let mut before: [Option<(u64, u32, u32)>; 2] = [None; 2];
    let mut next_report = 0;
    for Arrival { at, track, sequence, timestamp, keyframe } in trace.arrivals() {
        while next_report <= at {
            harness.ms = next_report;
            if trace.reports {
                report(&mut harness, trace);
            }
            for track in [TrackId::AUDIO, TrackId::VIDEO] {
                let Some(clock) = harness.ingest.clock_point(track) else { continue };
                let unix = harness.unix();
                receiver.on_report(track, ClockPoint { unix, rtp: clock.rtp_at(unix), ..clock });
            }
            next_report += 1_000;
        }
        harness.ms = at;
        let packet = match track.kind {
            MediaKind::Audio => Packet { timestamp, payload: trace.audio(), ..Packet::audio(2, sequence) },
            MediaKind::Video => {
                Packet { timestamp, ..Packet::video(1, sequence, if keyframe { KEYFRAME } else { DELTA }) }
            }
        };
        let (_, shown) = harness.forwarded(&packet);
        let rate = clock_rate(track);
        let (first_at, first, last) = before[usize::from(track == TrackId::VIDEO)].unwrap_or((at, shown, shown));
        before[usize::from(track == TrackId::VIDEO)] = Some((first_at, first, shown));
        outcome.back = outcome.back.max(f64::from(last.wrapping_sub(shown) as i32) / rate);
        let passed = f64::from(shown.wrapping_sub(first) as i32) / rate;
        outcome.off = outcome.off.max((passed - (at - first_at) as f64).abs());
        let Some(hold) = receiver.hold(at, track, shown) else { continue };
        outcome.longest = outcome.longest.max(hold);
        let quiet = (KNOWN + MEMORY..EVENT).contains(&at) || at > EVENT + trace.stall + MEMORY;
        if quiet {
            outcome.settled = outcome.settled.max(hold);
        }
    }
    outcome
}

/// The publisher reports the time of its RTP clock.
fn report(harness: &mut Harness, trace: &Trace) {
    for (track, ssrc) in [(TrackId::AUDIO, 2), (TrackId::VIDEO, 1)] {
        let rtp_timestamp = trace.timestamp(track, harness.ms);
        let info =
            SenderInfo { ntp: NtpTime::from_unix(harness.unix()), rtp_timestamp, packet_count: 9, octet_count: 900 };
        let mut bytes = [0; 64];
        let mut writer = RtcpWriter::new(&mut bytes);
        writer.sender_report(ssrc, &info, &[]).unwrap();
        let Some(Ok(RtcpPacket::SenderReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else { panic!() };
        let (now, unix) = (harness.now(), harness.unix());
        // One that comes with a step is not believed.
        let _ = harness.ingest.on_sender_report(now, unix, &report, &harness.tracks);
    }
}

/// Runs traces; `is_good` says which outcomes are.
fn check(traces: impl Iterator<Item = Trace>, is_good: impl Fn(&Trace, &Outcome) -> bool) {
    let outcomes = traces.map(|trace| (trace, run(&trace)));
    let bad: Vec<String> =
        outcomes.filter(|(trace, outcome)| !is_good(trace, outcome)).map(|bad| format!("{bad:?}")).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn traces() -> impl Iterator<Item = Trace> + Clone {
    (0..4).flat_map(|seed| [true, false].map(|reports| Trace { seed, reports, ..Trace::default() }))
}

// F-04
#[test]
fn a_step_of_the_publisher_s_clock_costs_no_latency_and_moves_no_time() {
    let magnitudes = [1.0, 10.0, 100.0, 200.0, 500.0, 1_000.0, 5_000.0, 30_000.0, 600_000.0, 3_600_000.0];
    let steps = magnitudes.into_iter().flat_map(|magnitude| [magnitude, -magnitude]);
    check(steps.flat_map(|step| traces().map(move |trace| Trace { step, ..trace })), |trace, outcome| {
        // What is less than a step may be jitter at first.
        let small = if trace.step.abs() <= 200.0 { trace.step.abs() } else { 0.0 };
        let limit = BOUND + small;
        outcome.settled <= BOUND && outcome.longest <= limit && outcome.back <= small && outcome.off <= limit
    });
}

// F-06
#[test]
fn a_clock_that_drifts_costs_bounded_latency() {
    let magnitudes = [0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2];
    let drifts = magnitudes.into_iter().flat_map(|magnitude| [magnitude, -magnitude]);
    check(drifts.flat_map(|drift| traces().map(move |trace| Trace { drift, ..trace })), |trace, outcome| {
        // A slow clock is corrected now and then, of audio and video at different times: in 0.4 s it departs by so much.
        let between = 400.0 * (-trace.drift).max(0.0);
        outcome.settled <= BOUND + between && outcome.back <= 0.0
    });
}

// F-05, F-06
#[test]
fn a_stall_of_the_uplink_costs_no_latency_that_stays() {
    let stalls = [50, 200, 500, 1_000, 1_900, 2_100, 5_000, 10_000];
    check(
        stalls.into_iter().flat_map(|stall| traces().map(move |trace| Trace { stall, ..trace })),
        |trace, outcome| {
            outcome.settled <= BOUND && outcome.longest <= trace.stall as f64 + BOUND && outcome.back <= 0.0
        },
    );
}
