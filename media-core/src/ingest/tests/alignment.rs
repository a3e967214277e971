//! The encodings of a track on one time line: a viewer that goes from one to another needs no shift of its timestamps, and its
//! lips stay in sync.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::simulcast::with_rids;
use super::*;

const RIDS: [&str; 3] = ["q", "h", "f"];
/// ms between two frames.
const FRAME: u64 = 33;

/// What the sender reports of an encoding are worth.
#[derive(Clone, Copy, PartialEq)]
enum Reports {
    /// They are right.
    Right,
    /// There are none.
    None,
    /// Their RTP time is so many ms off.
    Off(i64),
    /// They name the RTP times of the first encoding.
    OfAnother,
}

/// A publisher of audio and three encodings, whose RTP times begin anywhere.
struct Publisher {
    harness: Harness,
    random: StdRng,
    /// Of audio and of each encoding.
    offsets: [u32; 4],
    /// Its clocks are so much too fast.
    drift: f64,
    /// The time in ms that an encoding's frames take longer than the fastest.
    delays: [u64; 3],
    reports: [Reports; 3],
    sequences: [u16; 4],
    /// When each is sent.
    running: [&'static [Range<u64>]; 3],
    /// Timestamps of the frames by capture, of each encoding.
    frames: [BTreeMap<u64, u32>; 3],
    audio: BTreeMap<u64, u32>,
}

impl Publisher {
    fn new(seed: u64) -> Publisher {
        let mut random = StdRng::seed_from_u64(seed);
        let offsets = std::array::from_fn(|_| random.random());
        Publisher {
            harness: Harness::new(&[audio(), with_rids(&RIDS)]),
            random,
            offsets,
            drift: 0.0,
            delays: [0, 12, 35],
            reports: [Reports::Right; 3],
            sequences: [0; 4],
            running: [&[const { 0..u64::MAX }]; 3],
            frames: Default::default(),
            audio: BTreeMap::new(),
        }
    }

    fn rtp(&self, stream: usize, ms: u64) -> u32 {
        let rate = if stream == 0 { 48.0 } else { 90.0 };
        self.offsets[stream].wrapping_add((ms as f64 * rate * (1.0 + self.drift)) as i64 as u32)
    }

    /// Sends what was captured between two moments, in ms, and reports every second.
    fn run(&mut self, times: Range<u64>) {
        // When it arrives, of which stream it is, when it was captured; reports stand behind what was captured with them.
        let mut arrivals = Vec::new();
        for capture in times {
            if capture % 20 == 0 {
                arrivals.push((capture + self.random.random_range(0..4), 0, capture, false));
            }
            for encoding in 0..3 {
                if !self.running[encoding].iter().any(|running| running.contains(&capture)) {
                    continue;
                }
                if capture % FRAME == 0 {
                    let at = capture + self.delays[encoding] + self.random.random_range(0..4);
                    arrivals.push((at, 1 + encoding, capture, false));
                }
                if capture % 1_000 == 700 + 90 * encoding as u64 {
                    arrivals.push((capture + self.random.random_range(0..4), 1 + encoding, capture, true));
                }
            }
            if capture % 1_000 == 400 {
                arrivals.push((capture + self.random.random_range(0..4), 0, capture, true));
            }
        }
        arrivals.sort();
        for (at, stream, capture, is_report) in arrivals {
            self.harness.ms = at;
            if is_report { self.report(stream, capture) } else { self.send(stream, capture) }
        }
    }

    fn send(&mut self, stream: usize, capture: u64) {
        let sequence = self.sequences[stream];
        self.sequences[stream] += 1;
        let timestamp = self.rtp(stream, capture);
        if stream == 0 {
            let (_, placed) = self.harness.forwarded(&Packet { timestamp, ..Packet::audio(100, sequence) });
            self.audio.insert(capture, placed);
            return;
        }
        let payload = if sequence.is_multiple_of(60) { KEYFRAME } else { DELTA };
        let element = [(RID_ELEMENT, RIDS[stream - 1].as_bytes())];
        let packet = Packet { timestamp, ..Packet::video(stream as u32, sequence, payload) };
        let accepted = self.harness.receive(&packet.with(&element));
        let Ok(Accepted::Forward { encoding, sequence, .. }) = accepted else { panic!("{accepted:?}") };
        assert_eq!(usize::from(encoding), stream - 1);
        let cached = self.harness.tracks.encoding(TrackId::VIDEO, encoding).unwrap().packet(sequence).unwrap();
        let frames = &mut self.frames[stream - 1];
        if let Some((_, before)) = frames.last_key_value() {
            assert!((cached.info.timestamp.wrapping_sub(*before) as i32) > 0, "no frame before the one in front of it");
        }
        frames.insert(capture, cached.info.timestamp);
    }

    fn report(&mut self, stream: usize, capture: u64) {
        let kind = if stream == 0 { Reports::Right } else { self.reports[stream - 1] };
        let rtp_timestamp = match kind {
            Reports::Right => self.rtp(stream, capture),
            Reports::None => return,
            Reports::Off(ms) => self.rtp(stream, capture).wrapping_add((90 * ms) as u32),
            Reports::OfAnother => self.rtp(1, capture),
        };
        // An hour off, as publishers' clocks may be.
        let elapsed = Duration::from_secs_f64(capture as f64 / 1_000.0 * (1.0 + self.drift));
        let ntp = NtpTime::from_unix(START_UNIX - Duration::from_secs(3_600) + elapsed);
        let info = SenderInfo { ntp, rtp_timestamp, packet_count: 9, octet_count: 9 };
        let _ = self.harness.report(if stream == 0 { 100 } else { stream as u32 }, &info);
    }

    /// By how many ms frames of an encoding are later on the time line than those of another with the same capture time, at
    /// most, of those captured in `times`.
    fn apart(&self, one: usize, other: usize, times: Range<u64>) -> f64 {
        let frames = self.frames[one].range(times);
        let both = frames.filter_map(|(capture, time)| Some((time, self.frames[other].get(capture)?)));
        let apart = both.map(|(one, other)| (one.wrapping_sub(*other) as i32).unsigned_abs());
        f64::from(apart.max().expect("they were sent together")) / 90.0
    }

    /// By how many ms the video of an encoding is shown off its audio at most, by the times that viewers are told.
    fn off_audio(&self, encoding: usize, times: Range<u64>) -> f64 {
        let (audio, video): (ClockPoint, ClockPoint) =
            [TrackId::AUDIO, TrackId::VIDEO].map(|id| self.harness.ingest.clock_point(id).unwrap()).into();
        let shown = |point: ClockPoint, time: u32, rate: f64| {
            let point_ms = (point.unix - START_UNIX).as_secs_f64() * 1_000.0;
            point_ms + f64::from(time.wrapping_sub(point.rtp) as i32) / rate
        };
        let off = self.frames[encoding].range(times.clone()).map(|(capture, time)| {
            let sound = self.audio.range(..=capture).next_back().unwrap();
            let sound = shown(audio, *sound.1, 48.0) + (capture - sound.0) as f64;
            (shown(video, *time, 90.0) - sound).abs()
        });
        off.fold(0.0, f64::max)
    }
}

const RID_ELEMENT: u8 = 6;

// RTCP-04
#[test]
fn by_sender_reports_all_encodings_are_on_one_time_line_within_5_ms() {
    for seed in 0..6 {
        let mut publisher = Publisher::new(seed);
        publisher.run(0..10_000);
        for encoding in [1, 2] {
            // By arrival at first: as far apart as their frames arrive.
            let begins = publisher.apart(encoding, 0, 0..600);
            let delay = publisher.delays[encoding] as f64;
            assert!((delay - 8.0..delay + 8.0).contains(&begins), "{seed}: {begins}");
            let settled = publisher.apart(encoding, 0, 2_100..10_000);
            assert!(settled <= 5.0, "{seed}: {settled}");
        }
        for encoding in 0..3 {
            let off = publisher.off_audio(encoding, 2_100..10_000);
            assert!(off <= 10.0, "{seed}, encoding {encoding}: {off}");
        }
    }
}

// RTCP-04, RTCP-06: lips stay in sync whatever reports say, within the 45 ms that are not noticed.
#[test]
fn absent_and_wrong_reports_leave_encodings_as_they_arrive() {
    for (seed, reports) in [
        [Reports::None; 3],
        [Reports::Right, Reports::None, Reports::Right],
        [Reports::None, Reports::Right, Reports::Right],
        [Reports::Right, Reports::Off(3_000), Reports::OfAnother],
        [Reports::Right, Reports::Off(-700), Reports::Off(60_000)],
    ]
    .into_iter()
    .enumerate()
    {
        let mut publisher = Publisher::new(seed as u64);
        publisher.reports = reports;
        publisher.run(0..12_000);
        for encoding in 0..3 {
            let apart = publisher.apart(encoding, 0, 2_100..12_000);
            assert!(apart <= 45.0, "{seed}, encoding {encoding}: {apart}");
            let off = publisher.off_audio(encoding, 2_100..12_000);
            assert!(off <= 45.0, "{seed}, encoding {encoding}: {off}");
        }
    }
}

// RTCP-04, RTP-06
#[test]
fn encodings_that_start_late_pause_and_return_are_on_the_time_line_of_the_others() {
    for seed in 0..4 {
        let mut publisher = Publisher::new(seed);
        publisher.running = [&[0..20_000, 40_000..60_000], &[const { 0..60_000 }], &[5_000..12_000, 30_000..60_000]];
        publisher.run(0..60_000);
        let times = [(2, 1, 7_100..12_000), (0, 1, 2_100..20_000), (2, 1, 30_000..60_000), (0, 2, 40_000..60_000)];
        for (one, other, times) in times {
            let apart = publisher.apart(one, other, times.clone());
            assert!(apart <= 5.0, "{seed}: {one} and {other} in {times:?}: {apart}");
        }
        for encoding in 0..3 {
            let off = publisher.off_audio(encoding, 50_000..60_000);
            assert!(off <= 10.0, "{seed}, encoding {encoding}: {off}");
        }
    }
}

// RTCP-05: clocks that are off by more than any crystal is.
#[test]
fn encodings_stay_together_while_the_publisher_s_clock_drifts() {
    for (seed, drift) in [1e-4, -1e-4, 1e-3, -1e-3].into_iter().enumerate() {
        let mut publisher = Publisher::new(seed as u64);
        publisher.drift = drift;
        publisher.run(0..90_000);
        for encoding in [1, 2] {
            // A correction by arrival is followed by the other encodings with their next report.
            let apart = publisher.apart(encoding, 0, 2_100..90_000);
            assert!(apart <= if drift.abs() < 5e-4 { 5.0 } else { 100.0 }, "{drift}, encoding {encoding}: {apart}");
            let settled = publisher.apart(encoding, 0, 88_000..90_000);
            assert!(settled <= 100.0, "{drift}: {settled}");
        }
    }
}
