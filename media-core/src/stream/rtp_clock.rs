//! A publisher's RTP clock, judged by when its frames arrive: one rule of what is a pause, a step and a drift.
//!
//! RTP time of the stream keeps to the wall clock, whatever the publisher's clock says, so that nobody who plays by RTP time
//! falls behind. How late a frame is says what happened, by the fastest frames of late, which are on time:
//!
//! - No network makes a frame early: RTP time that is ahead is taken back. Much of it at once is a step of the clock, little
//!   by little is a clock that runs fast.
//! - A late frame is the network's doing, a stall of the uplink for example, unless RTP time goes back further than video is
//!   reordered (a step), or another track has just stepped by as much, or there was a pause that RTP time does not count
//!   (RTCP-04). Chromium's audio pauses like that while it has no track. If it was a stall after all, the burst that follows
//!   is early, and is taken back.
//! - If even the fastest frames are late, the clock runs slow.
//!
//! Audio says itself how long a packet lasts: where timestamps advance by a little more or less than that, they are of
//! another clock than the samples, and the samples count. Receivers would see a gap or an overlap in each packet.
//!
//! What ordinary crystals drift, receivers follow by themselves.

use std::time::{Duration, Instant};

use crate::media::MediaKind;

/// From here on a jump of RTP time is a step; less is jitter, or drift.
const STEP: Duration = Duration::from_millis(200);
/// Video of a publisher with B-frames goes back by less than this …
const REORDERING: Duration = Duration::from_secs(1);
/// … and by less than this where none was noticed yet.
const UNKNOWN_REORDERING: Duration = Duration::from_millis(120);
/// A stream that paused for so long …
const PAUSE: Duration = Duration::from_secs(2);
/// … and whose RTP time advanced by so much less did not count the pause.
const UNCOUNTED: Duration = Duration::from_secs(1);
/// A frame may be so early: the fastest frames until then may have been slow themselves.
const EARLY: Duration = Duration::from_millis(50);
/// The clock runs slow if the fastest frame of a window is so late …
const LATE: Duration = Duration::from_millis(60);
const WINDOW: Duration = Duration::from_secs(2);
/// … or so, if it was found to run slow a moment ago.
const SLOW_LATE: Duration = Duration::from_millis(50);
const SLOW_WINDOW: Duration = Duration::from_millis(250);
const MOMENT: Duration = Duration::from_secs(10);
/// A window has at least so many frames: any single one may be late.
const MIN_FRAMES: u32 = 4;
/// In the first window the fastest frame is on time at once.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
/// Receivers follow a drift of one part in so many: crystals are five times better.
const FREE_DRIFT: i64 = 2_000;
/// Steps of several tracks within so long are one.
const TOGETHER: Duration = Duration::from_secs(2);
const NANOS: i64 = 1_000_000_000;
/// Timestamps of audio are of another clock than its samples if they differ by at most one part in so many.
const MAX_SKEW: i64 = 4;

/// The last step of a publisher's clock. Its tracks step together: the same step moves them by the same time, to the
/// nanosecond, so that they stay in sync.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockSteps {
    last: Option<(Instant, i64)>,
}

impl ClockSteps {
    /// When the last step began, if it was a moment ago and about so many ticks, and how many it was exactly.
    fn find(&self, now: Instant, ticks: i64, clock_rate: u32) -> Option<(Instant, i64)> {
        let rate = i64::from(clock_rate.max(1));
        let (at, nanos) = self.last.filter(|&(at, _)| now.saturating_duration_since(at) < TOGETHER)?;
        let difference = (ticks * NANOS / rate - nanos).unsigned_abs();
        let is_same = difference < (nanos.unsigned_abs() / 2).min(STEP.as_nanos() as u64);
        is_same.then_some((at, nanos * rate / NANOS))
    }

    /// A track seems to step by so many ticks; when the step began, and by how many ticks it is.
    fn agree(&mut self, now: Instant, ticks: i64, clock_rate: u32) -> (Instant, i64) {
        self.find(now, ticks, clock_rate).unwrap_or_else(|| {
            self.last = Some((now, ticks * NANOS / i64::from(clock_rate.max(1))));
            (now, ticks)
        })
    }
}

/// The RTP clock of one track. All times are ticks of it.
#[derive(Debug)]
pub(super) struct RtpClock {
    kind: MediaKind,
    clock_rate: u32,
    /// The publisher sends frames in another order than they are shown.
    reorders: bool,
    /// When the first frame arrived, and its timestamp.
    first: Option<(Instant, u32)>,
    /// How late the fastest frames are.
    on_time: i64,
    /// Arrival and timestamp of the frame before.
    last: Option<(Instant, u32)>,
    /// How late that was.
    late: i64,
    window: Window,
    /// The first window is over.
    is_settled: bool,
    /// When the step began that it made last.
    stepped: Option<Instant>,
    /// When it was found to run slow.
    slow: Option<Instant>,
}

/// Frames received since a moment.
#[derive(Clone, Copy, Debug)]
struct Window {
    begun: Option<Instant>,
    frames: u32,
    /// How late the fastest was.
    least: i64,
}

impl Window {
    const EMPTY: Window = Window { begun: None, frames: 0, least: i64::MAX };
}

impl RtpClock {
    /// The clock of a track of which nothing was received.
    pub(super) fn new(kind: MediaKind, clock_rate: u32) -> RtpClock {
        RtpClock {
            kind,
            clock_rate,
            reorders: false,
            first: None,
            on_time: 0,
            last: None,
            late: 0,
            window: Window::EMPTY,
            is_settled: false,
            stepped: None,
            slow: None,
        }
    }

    /// The publisher sends frames in another order than they are shown: RTP time goes back for a moment.
    pub(super) fn set_reorders(&mut self, reorders: bool) {
        self.reorders = reorders;
    }

    /// A frame from which on nothing is known of the clock: that of another RTP stream.
    pub(super) fn begin(&mut self, now: Instant, timestamp: u32, clock_rate: u32) {
        let reorders = self.reorders;
        *self = RtpClock { reorders, ..RtpClock::new(self.kind, clock_rate) };
        (self.first, self.last) = (Some((now, timestamp)), Some((now, timestamp)));
        self.window = Window { begun: Some(now), frames: 1, least: 0 };
    }

    /// RTP time of a frame that arrives with the newest one and is on time.
    pub(super) fn present(&self) -> Option<u32> {
        self.last.map(|(_, timestamp)| timestamp.wrapping_add((self.late - self.on_time) as u32))
    }

    /// RTP time of a frame that arrives now and is on time.
    pub(super) fn present_at(&self, now: Instant) -> Option<u32> {
        let (arrived, _) = self.last?;
        let passed = now.saturating_duration_since(arrived).as_secs_f64() * f64::from(self.clock_rate);
        Some(self.present()?.wrapping_add(passed as u64 as u32))
    }

    /// The frame before and all that follow are to be moved by so many ticks, which brings them into line with the track's
    /// other encodings and says nothing of the clock. `advance` is that of the sender's timestamps with this frame: no frame
    /// is moved before the one in front of it. By how many they are moved now.
    #[cold]
    pub(super) fn align(&mut self, ticks: i64, advance: i32) -> i64 {
        let ticks = ticks.max((1 - i64::from(advance)).min(0));
        self.late -= ticks;
        self.on_time -= ticks;
        self.window.least = self.window.least.saturating_sub(ticks);
        self.last = self.last.map(|(arrived, timestamp)| (arrived, timestamp.wrapping_add(ticks as u32)));
        ticks
    }

    /// A frame in the order of sequence numbers, by its timestamp on the time line; `duration` is that of the audio from the
    /// frame before on, in ticks, if it is known. Returns by how many ticks this timestamp, and all that follow, are to be
    /// moved.
    #[inline]
    pub(super) fn on_frame(
        &mut self,
        now: Instant,
        timestamp: u32,
        duration: Option<u32>,
        steps: &mut ClockSteps,
    ) -> i64 {
        let (Some((begun, first)), Some(last)) = (self.first, self.last) else { return 0 };
        let passed = now.saturating_duration_since(begun);
        let rate = u64::from(self.clock_rate);
        let ticks = passed.as_secs() * rate + u64::from(passed.subsec_nanos()) * rate / 1_000_000_000;
        let late = i64::from(first.wrapping_add(ticks as u32).wrapping_sub(timestamp) as i32);
        let advance = i64::from(timestamp.wrapping_sub(last.1) as i32);
        let of_samples = duration.map_or(0, |duration| by_samples(advance, duration.into()));
        let advance = advance + of_samples;
        let shift = of_samples + self.shift(now, late - of_samples, advance, last.0, steps);
        self.late = late - shift;
        self.last = Some((now, timestamp.wrapping_add(shift as u32)));
        self.window.frames += 1;
        self.window.least = self.window.least.min(self.late);
        shift
    }

    fn shift(&mut self, now: Instant, late: i64, advance: i64, arrived: Instant, steps: &mut ClockSteps) -> i64 {
        let error = late - self.on_time;
        if error < 0 && !self.is_settled && -error <= self.ticks(STEP) {
            self.on_time = late;
        } else if -error > self.ticks(EARLY) {
            return -self.take_back(now, -error, advance, steps);
        } else if error > self.ticks(EARLY) {
            let is_uncounted = error > self.ticks(UNCOUNTED) && now.saturating_duration_since(arrived) >= PAUSE;
            let steps_too = || steps.find(now, error, self.clock_rate).is_some_and(|(at, _)| Some(at) != self.stepped);
            if is_uncounted || advance < -self.ticks(self.reordering()) || steps_too() {
                return self.step(now, error, steps);
            }
        }
        if self.window.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= self.window_length(now)) {
            return self.end_window(now);
        }
        0
    }

    fn step(&mut self, now: Instant, ticks: i64, steps: &mut ClockSteps) -> i64 {
        let (at, ticks) = steps.agree(now, ticks, self.clock_rate);
        self.stepped = Some(at);
        ticks
    }

    /// How far RTP time may go back from one frame to the next.
    fn reordering(&self) -> Duration {
        match (self.kind, self.reorders) {
            (MediaKind::Audio, _) => Duration::ZERO,
            (MediaKind::Video, true) => REORDERING,
            (MediaKind::Video, false) => UNKNOWN_REORDERING,
        }
    }

    /// RTP time is ahead. No frame is moved before the one in front of it. Video frames stay apart; audio is moved by whole
    /// packets where it can, since receivers discard a packet that overlaps with the one before.
    #[cold]
    fn take_back(&mut self, now: Instant, ahead: i64, advance: i64, steps: &mut ClockSteps) -> i64 {
        self.slow = None;
        let is_video = self.kind == MediaKind::Video;
        let room = (advance - i64::from(is_video)).max(0);
        let step = self.ticks(STEP);
        if ahead > step && advance > step {
            return (-self.step(now, -ahead, steps)).clamp(0, room);
        }
        ahead.min(if is_video && ahead <= step { advance / 2 } else { room }).max(0)
    }

    /// Judges the fastest frame of a window.
    fn end_window(&mut self, now: Instant) -> i64 {
        let Window { begun, frames, least } = self.window;
        if frames < MIN_FRAMES && begun.is_some() {
            return 0;
        }
        self.window = Window { begun: Some(now), ..Window::EMPTY };
        let late = least.saturating_sub(self.on_time);
        let is_slow = self.is_slow(now);
        if self.is_settled && late > self.ticks(if is_slow { SLOW_LATE } else { LATE }) {
            self.slow = Some(now);
            return late;
        }
        let passed = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let most = self.ticks(passed) / FREE_DRIFT;
        self.on_time += late.clamp(-most, most);
        self.is_settled = true;
        0
    }

    fn window_length(&self, now: Instant) -> Duration {
        match self.is_settled {
            false => FIRST_WINDOW,
            true if self.is_slow(now) => SLOW_WINDOW,
            true => WINDOW,
        }
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.slow.is_some_and(|found| now.saturating_duration_since(found) < MOMENT)
    }

    fn ticks(&self, time: Duration) -> i64 {
        time.as_millis() as i64 * i64::from(self.clock_rate) / 1_000
    }
}

/// By how many ticks a timestamp is to be moved that advances by about as much as the samples do. Discontinuous transmission
/// advances by much more.
fn by_samples(advance: i64, duration: i64) -> i64 {
    let missing = duration - advance;
    if missing.abs() <= duration / MAX_SKEW { missing } else { 0 }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// A track whose frames go to the clock, at times in ms.
    struct Source {
        clock: RtpClock,
        steps: ClockSteps,
        start: Instant,
        rate: f64,
        offset: i64,
        begun: bool,
        duration: Option<u32>,
    }

    impl Source {
        fn new(kind: MediaKind) -> Source {
            let clock_rate = if kind == MediaKind::Video { 90_000 } else { 48_000 };
            Source {
                clock: RtpClock::new(kind, clock_rate),
                steps: ClockSteps::default(),
                start: Instant::now(),
                rate: f64::from(clock_rate) / 1_000.0,
                offset: 0,
                begun: false,
                duration: None,
            }
        }

        /// A frame that arrives `at` ms after the start; its publisher's clock says `time` ms. What the stream's says.
        fn frame(&mut self, at: f64, time: f64) -> f64 {
            let now = self.start + Duration::from_secs_f64(at / 1_000.0);
            let timestamp = ((time * self.rate).round() as i64 + self.offset) as u32;
            if !std::mem::replace(&mut self.begun, true) {
                self.clock.begin(now, timestamp, self.clock.clock_rate);
            } else {
                self.offset += self.clock.on_frame(now, timestamp, self.duration, &mut self.steps);
            }
            ((time * self.rate).round() as i64 + self.offset) as f64 / self.rate
        }

        /// ms by which a time on time at `at` is off, as arrival tells it.
        fn error(&self, at: f64, time: f64) -> f64 {
            let passed = at - self.clock.last.unwrap().0.duration_since(self.start).as_secs_f64() * 1_000.0;
            f64::from(self.clock.present().unwrap()) / self.rate + passed - time
        }
    }

    // RTCP-05: a publisher without sender reports whose clock drifts by 100 ppm, with up to 40 ms of jitter.
    #[test]
    fn arrival_times_follow_clock_drift_and_not_jitter() {
        let mut source = Source::new(MediaKind::Audio);
        let (mut random, mut worst) = (StdRng::seed_from_u64(1), 0.0_f64);
        for packet in 0..180_000_u32 {
            let jitter = if packet == 0 { 40.0 } else { random.random_range(0.0..40.0) };
            let sent = f64::from(packet) * 20.0 * (1.0 + 1e-4);
            let time = source.frame(sent + jitter, f64::from(packet) * 20.0);
            assert_eq!(time, f64::from(packet) * 20.0);
            if packet > 500 {
                worst = worst.max(source.error(sent, time).abs());
            }
        }
        assert!(worst <= 3.0, "{worst} ms");
    }

    // RTCP-05: the encoder paused for half a minute, and so did its RTP time.
    #[test]
    fn a_pause_that_rtp_time_does_not_count_is_detected() {
        let mut source = Source::new(MediaKind::Video);
        for frame in 1..3_000 {
            let time = f64::from(frame) * 1_000.0 / 30.0;
            let at = if frame >= 600 { time + 30_000.0 } else { time };
            let shown = source.frame(at, time);
            assert!(source.error(at, shown).abs() <= 2.0);
            let passed = shown - if frame >= 600 { 30_000.0 } else { 0.0 };
            assert!((passed - time).abs() < 0.1, "frame {frame}: {passed} of {time}");
        }
    }

    // RTP-11: B-frames, of 30 and of 8 frames a second.
    #[test]
    fn frames_that_are_sent_in_another_order_keep_their_times() {
        for interval in [1_000.0 / 30.0, 125.0] {
            let mut source = Source::new(MediaKind::Video);
            source.clock.set_reorders(true);
            for group in 0..200 {
                for (index, shown) in [(0, 3), (1, 1), (2, 2)] {
                    let (at, time) = (interval * f64::from(3 * group + index), interval * f64::from(3 * group + shown));
                    assert!((source.frame(at, time) - time).abs() < 0.1, "{group} {index}");
                }
            }
        }
    }

    // F-06: packets of 20 ms whose timestamps advance by 16 to 24 ms; one in ten is lost.
    #[test]
    fn audio_whose_timestamps_drift_from_its_samples_has_neither_gaps_nor_overlaps() {
        for drift in [-0.2, -0.03, -0.01, 0.01, 0.03, 0.2] {
            let mut source = Source::new(MediaKind::Audio);
            let mut before = (0, 0.0);
            for packet in (0..3_000_u32).filter(|packet| packet % 10 != 7) {
                let at = 20.0 * f64::from(packet);
                source.duration = Some(960 * (packet - before.0));
                let shown = source.frame(at, at * (1.0 + drift));
                let expected = before.1 + 20.0 * f64::from(packet - before.0);
                assert!((shown - expected).abs() < 0.1, "{drift}: {packet} at {shown} after {expected}");
                before = (packet, shown);
            }
        }
    }

    // F-04: the tracks of a publisher step together, each at its next packet, with jitter.
    #[test]
    fn a_step_moves_audio_and_video_by_the_same_time() {
        let mut random = StdRng::seed_from_u64(2);
        for step in [-3_600_000.0, -20_000.0, -5_000.0, -300.0, 300.0, 5_000.0, 30_000.0, 3_600_000.0] {
            let (mut audio, mut video) = (Source::new(MediaKind::Audio), Source::new(MediaKind::Video));
            for packet in 0..1_000 {
                let sent = 20.0 * f64::from(packet);
                let time = if packet >= 500 { sent + step } else { sent };
                let mut jitter = || random.random_range(0.0..30.0);
                audio.frame(sent + jitter(), time);
                video.steps = audio.steps;
                if packet % 2 == 0 {
                    video.frame(sent + jitter(), time);
                    audio.steps = video.steps;
                }
            }
            let (audio, video) = (audio.offset as f64 / 48.0, video.offset as f64 / 90.0);
            assert!((audio - video).abs() < 0.1, "step of {step} ms: {audio} and {video}");
            assert!((audio + step).abs() < 60.0, "step of {step} ms: {audio}");
        }
    }
}
