//! Which wall-clock time belongs to which RTP timestamp, for the sender reports to viewers.

use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::layers::MAX_ENCODINGS;
use crate::media::TrackId;
use crate::rtcp::{NtpTime, SenderInfo};
use crate::rtp::sequence::timestamp_distance;
use crate::stream::ClockSteps;

/// A sender report whose times are further than this from the packets' arrival is not believed (RTCP-06).
const PLAUSIBLE: Duration = Duration::from_secs(10);
/// Two reports may differ by this on top of a tenth: RTP times are those of frames, not of the moment.
const PACE_GRAIN: Duration = Duration::from_millis(20);
/// A track whose times are told by one of its encodings changes to another when that was silent for so long.
const LEADER_SILENCE: Duration = Duration::from_secs(1);
/// Encodings whose reports say that they are further apart than this are left as they arrive: the larger ones take some time
/// to be sent, but not as long.
const MAX_MISALIGNMENT: Duration = Duration::from_millis(400);
/// How far one report may move the offset of the publisher's clock: more than clocks drift in the second between two
/// reports, and too little to notice.
const MAX_SLEW_NANOS: i64 = 200_000;

/// The clocks of one publisher's tracks. Audio and video share one offset to the server's clock, for lip sync; until every
/// running track has a believable sender report, arrival times serve for all of them (RTCP-05).
#[derive(Debug, Default)]
pub(super) struct IngestClock {
    /// Of the tracks of which packets were received.
    tracks: Vec<TrackClock>,
    /// The steps of the publisher's RTP clock.
    pub(super) steps: ClockSteps,
    /// Publisher's NTP clock minus the server's wall clock, in nanoseconds; it follows the drift between the two.
    ntp_offset: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct TrackClock {
    track: TrackId,
    /// By whose arrival and reports its times are told: all encodings are on one time line.
    leader: Leader,
    /// By the arrival of the fastest frames.
    arrival: ClockPoint,
    report: Option<ClockPoint>,
    /// By encoding.
    reports: [Reports; MAX_ENCODINGS],
}

/// One encoding of a track, the first that was received as long as it is.
#[derive(Clone, Copy, Debug)]
struct Leader {
    encoding: u8,
    last_frame: Instant,
}

/// The sender reports of one encoding.
#[derive(Clone, Copy, Debug, Default)]
struct Reports {
    /// NTP time and RTP time on the time line of the last one, believed or not: the next one is measured against it, so that a
    /// clock which was set is believed again soon.
    seen: Option<(NtpTime, u32)>,
    /// NTP time and the sender's own RTP time of the last one that was believed.
    believed: Option<(NtpTime, u32)>,
}

/// A sender report of one encoding.
pub(super) struct Reported<'a> {
    /// Track and position of the encoding.
    pub(super) encoding: (TrackId, u8),
    pub(super) info: &'a SenderInfo,
    /// When it was received, with its RTP time on the track's time line.
    pub(super) point: ClockPoint,
    /// The same of the newest packet.
    pub(super) latest: ClockPoint,
    /// By how much the time line was moved to bring encodings into line, which is no step of the sender's clock.
    pub(super) aligned: u32,
}

impl IngestClock {
    /// The first packet of an RTP stream of an encoding: `arrival` names its RTP time on the track's time line.
    pub(super) fn on_first_packet(&mut self, now: Instant, (track, encoding): (TrackId, u8), arrival: ClockPoint) {
        let leader = Leader { encoding, last_frame: now };
        let fresh = TrackClock { track, leader, arrival, report: None, reports: Default::default() };
        let Some(clock) = self.track_mut(track) else { return self.tracks.push(fresh) };
        if let Some(reports) = clock.reports.get_mut(usize::from(encoding)) {
            *reports = Reports::default();
        }
        if clock.leader.encoding == encoding {
            // What others have reported holds for the whole track.
            let others = clock.reports.iter().any(|reports| reports.believed.is_some());
            (clock.leader, clock.arrival) = (leader, arrival);
            clock.report = clock.report.filter(|_| others);
        }
    }

    /// A frame was received: `arrival` relates RTP time of the track's time line and wall clock by the encoding's fastest frames.
    #[inline]
    pub(super) fn on_frame(&mut self, now: Instant, (track, encoding): (TrackId, u8), arrival: ClockPoint) {
        let Some(clock) = self.track_mut(track) else { return };
        let leader = &mut clock.leader;
        if leader.encoding != encoding {
            if now.saturating_duration_since(leader.last_frame) < LEADER_SILENCE {
                return;
            }
            leader.encoding = encoding;
        }
        leader.last_frame = now;
        clock.arrival = arrival;
    }

    /// Takes a sender report. Returns false if it is not believed (RTCP-06): it names no time, one that is far from the
    /// packets', or one that did not advance as on the other clock since the report before.
    pub(super) fn on_sender_report(&mut self, reported: &Reported<'_>) -> bool {
        let &Reported { encoding: (track, encoding), info, point, latest, aligned } = reported;
        let Some(clock) = self.tracks.iter_mut().find(|clock| clock.track == track) else { return false };
        let Some(reports) = clock.reports.get_mut(usize::from(encoding)) else { return false };
        let ClockPoint { unix, rtp, .. } = point;
        // What OBS reports before its first packet.
        let nothing_sent = info.packet_count == 0 && info.rtp_timestamp == u32::MAX;
        let clock_rate = latest.clock_rate;
        let drift = rtp.wrapping_sub(latest.rtp_at(unix)) as i32;
        let far = u64::from(drift.unsigned_abs()) > PLAUSIBLE.as_secs() * u64::from(clock_rate);
        if nothing_sent || far || info.ntp == NtpTime(0) {
            return false;
        }
        reports.believed = None;
        let seen = (info.ntp, rtp.wrapping_sub(aligned));
        let before = reports.seen.replace(seen);
        if before.is_some_and(|before| !keeps_pace(before, seen, clock_rate)) {
            // Perhaps the publisher's clock was set: the offset no longer applies.
            self.ntp_offset = None;
            return false;
        }
        let ahead = info.ntp.nanos_since(NtpTime::from_unix(unix));
        let offset = self.ntp_offset.get_or_insert(ahead);
        *offset = offset.saturating_add(ahead.saturating_sub(*offset).clamp(-MAX_SLEW_NANOS, MAX_SLEW_NANOS));
        // Sent this long before it arrived, by the publisher's clock.
        let age = i128::from(*offset) - i128::from(ahead);
        if age.unsigned_abs() > PLAUSIBLE.as_nanos() {
            return false;
        }
        let Ok(at) = u64::try_from(unix.as_nanos() as i128 - age) else { return false };
        reports.believed = Some((info.ntp, info.rtp_timestamp));
        if clock.leader.encoding == encoding {
            clock.report = Some(ClockPoint { unix: Duration::from_nanos(at), rtp, clock_rate });
        }
        true
    }

    /// By how many ticks the timestamps of an encoding are too low beside those of the track's leader, by the last reports of
    /// both; `offset` is what is added to the sender's own RTP times, by encoding. `None` where that is not known, or not
    /// believed: what is sent of one moment arrives at about one time.
    pub(super) fn misaligned(
        &self,
        (track, encoding): (TrackId, u8),
        clock_rate: u32,
        offset: impl Fn(u8) -> Option<u32>,
    ) -> Option<i64> {
        let clock = self.tracks.iter().find(|clock| clock.track == track)?;
        let leader = clock.leader.encoding;
        let (leader_ntp, leader_time) = clock.reports.get(usize::from(leader))?.believed?;
        let (ntp, time) = clock.reports.get(usize::from(encoding))?.believed.filter(|_| leader != encoding)?;
        let passed = i128::from(ntp.nanos_since(leader_ntp)) * i128::from(clock_rate) / 1_000_000_000;
        let expected = leader_time.wrapping_add(offset(leader)?).wrapping_add(passed as u32);
        let ticks = i64::from(timestamp_distance(expected, time.wrapping_add(offset(encoding)?)));
        let rate = i64::from(clock_rate);
        (ticks.abs() <= rate * MAX_MISALIGNMENT.as_millis() as i64 / 1_000).then_some(ticks)
    }

    /// The mapping of a track, once packets were received.
    pub(super) fn point(&self, track: TrackId) -> Option<ClockPoint> {
        let clock = self.tracks.iter().find(|clock| clock.track == track)?;
        let all_reported = self.tracks.iter().all(|clock| clock.report.is_some());
        Some(clock.report.filter(|_| all_reported).unwrap_or(clock.arrival))
    }

    fn track_mut(&mut self, track: TrackId) -> Option<&mut TrackClock> {
        self.tracks.iter_mut().find(|clock| clock.track == track)
    }
}

/// True if between two reports both clocks advanced, and by the same time to a tenth.
fn keeps_pace(before: (NtpTime, u32), after: (NtpTime, u32), clock_rate: u32) -> bool {
    let ntp = i128::from(after.0.nanos_since(before.0));
    let ticks = i128::from(after.1.wrapping_sub(before.1) as i32);
    let rtp = ticks * 1_000_000_000 / i128::from(clock_rate.max(1));
    ntp > 0 && rtp >= 0 && (rtp - ntp).abs() <= ntp / 10 + PACE_GRAIN.as_nanos() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_800_000_000);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn info(ntp: Duration, rtp_timestamp: u32) -> SenderInfo {
        SenderInfo { ntp: NtpTime::from_unix(ntp), rtp_timestamp, packet_count: 9, octet_count: 900 }
    }

    impl IngestClock {
        /// Of a track with one encoding.
        fn first(&mut self, track: TrackId, arrival: ClockPoint) {
            self.on_first_packet(Instant::now(), (track, 0), arrival);
        }

        fn report(&mut self, track: TrackId, info: &SenderInfo, point: ClockPoint, latest: ClockPoint) -> bool {
            self.on_sender_report(&Reported { encoding: (track, 0), info, point, latest, aligned: 0 })
        }
    }

    /// A video sender that started at START with RTP time 0 and reports, by a clock that is `ahead` seconds ahead of ours.
    struct Reporter {
        clock: IngestClock,
        ahead: f64,
    }

    impl Reporter {
        fn new() -> Reporter {
            let mut clock = IngestClock::default();
            clock.first(TrackId::VIDEO, ClockPoint { unix: START, rtp: 0, clock_rate: 90_000 });
            Reporter { clock, ahead: 0.0 }
        }

        /// A report at `at` seconds that names `rtp` seconds.
        fn report(&mut self, at: f64, rtp: f64) -> bool {
            let rtp = (rtp * 90_000.0) as i64 as u32;
            let unix = START + seconds(at);
            let latest = ClockPoint { unix, rtp: (at * 90_000.0) as i64 as u32, clock_rate: 90_000 };
            let info = info(seconds(START.as_secs_f64() + at + self.ahead), rtp);
            self.clock.report(TrackId::VIDEO, &info, ClockPoint { unix, rtp, clock_rate: 90_000 }, latest)
        }

        /// Milliseconds by which the mapping is off at `at` seconds.
        fn error(&self, at: f64) -> i32 {
            let rtp = self.clock.point(TrackId::VIDEO).unwrap().rtp_at(START + seconds(at));
            rtp.wrapping_sub((at * 90_000.0) as i64 as u32) as i32 / 90
        }
    }

    // RTCP-05
    #[test]
    fn arrival_times_serve_until_both_tracks_have_reported() {
        let mut clock = IngestClock::default();
        let point = |unix, rtp, clock_rate| ClockPoint { unix, rtp, clock_rate };
        clock.first(TrackId::AUDIO, ClockPoint { unix: START, rtp: 1_000, clock_rate: 48_000 });
        clock.first(TrackId::VIDEO, ClockPoint { unix: START + seconds(0.2), rtp: 50_000, clock_rate: 90_000 });
        assert_eq!(clock.point(TrackId::AUDIO).unwrap().rtp_at(START + seconds(1.0)), 49_000);
        // The publisher's clock is an hour slow; its video was captured at the same time as the audio.
        let publisher = START - seconds(3600.0);
        let audio = (info(publisher, 1_000), point(START, 1_000, 48_000));
        assert!(clock.report(TrackId::AUDIO, &audio.0, audio.1, audio.1));
        assert_eq!(clock.point(TrackId::AUDIO).unwrap().unix, START);
        let late = START + seconds(0.2);
        let video = (info(publisher, 50_000), point(late, 50_000, 90_000));
        assert!(clock.report(TrackId::VIDEO, &video.0, video.1, video.1));
        let (audio, video) = (clock.point(TrackId::AUDIO).unwrap(), clock.point(TrackId::VIDEO).unwrap());
        assert_eq!(audio.rtp_at(START + seconds(2.0)), 97_000);
        // The offset has moved by its share of the later arrival, a fifth of a millisecond.
        assert!(video.rtp_at(START + seconds(2.0)).abs_diff(230_000) <= 20);
    }

    // RTCP-06, Q-08
    #[test]
    fn an_impossible_first_report_is_ignored() {
        let mut clock = IngestClock::default();
        // The time line is just where 0xffffffff would be believable.
        clock.first(TrackId::VIDEO, ClockPoint { unix: START, rtp: 50_000, clock_rate: 90_000 });
        let latest = ClockPoint { unix: START, rtp: 50_000, clock_rate: 90_000 };
        let at = |rtp| ClockPoint { rtp, ..latest };
        let mut first = SenderInfo { packet_count: 0, ..info(START, u32::MAX) };
        assert!(!clock.report(TrackId::VIDEO, &first, at(50_000), latest));
        let far = 50_000_u32.wrapping_sub(11 * 90_000);
        assert!(!clock.report(TrackId::VIDEO, &info(START, far), at(far), latest));
        first = SenderInfo { ntp: NtpTime(0), ..info(START, 50_000) };
        assert!(!clock.report(TrackId::VIDEO, &first, at(50_000), latest));
        assert_eq!(clock.point(TrackId::VIDEO).unwrap().rtp, 50_000);
        assert!(clock.report(TrackId::VIDEO, &info(START, 50_900), at(50_900), latest));
    }

    // RTCP-06
    #[test]
    fn a_report_that_goes_back_or_at_another_pace_is_ignored() {
        let mut reporter = Reporter::new();
        assert!(reporter.report(1.0, 1.0) && reporter.report(2.0, 2.08));
        assert!(!reporter.report(3.0, 3.3), "122 of 100");
        assert!(!reporter.report(4.0, 4.1), "80 of 100");
        assert!(reporter.report(5.0, 5.1) && reporter.report(6.0, 6.0));
        assert!(!reporter.report(7.0, 5.9), "RTP time goes back");
        assert!(reporter.error(7.0).abs() <= 1, "the last believed one applies");
        reporter.report(8.0, 8.0);
        assert!(reporter.report(9.0, 9.0));
        reporter.ahead = -2.0;
        assert!(!reporter.report(10.0, 10.0), "NTP time goes back");
    }

    // RTCP-05, RTCP-06
    #[test]
    fn a_publisher_that_sets_its_clock_is_believed_again_without_a_jump() {
        let mut reporter = Reporter::new();
        for second in 1..10 {
            assert!(reporter.report(f64::from(second), f64::from(second)));
        }
        for ahead in [5.0, -3600.0] {
            reporter.ahead = ahead;
            assert!(!reporter.report(10.0, 10.0));
            assert!(reporter.report(11.0, 11.0) && reporter.report(12.0, 12.0));
            assert!(reporter.error(13.0).abs() <= 1);
            assert!(!reporter.report(10.0, 10.0));
            assert!(reporter.report(10.1, 10.1));
        }
    }

    // RTCP-05: 100 ppm over two days.
    #[test]
    fn a_clock_that_drifts_stays_believed() {
        let mut reporter = Reporter::new();
        for second in 1..172_800 {
            let at = f64::from(second);
            reporter.ahead = at * 1e-4;
            assert!(reporter.report(at, at), "{at}");
        }
        assert!(reporter.error(172_800.0).abs() <= 1);
    }
}
