//! Which wall-clock time belongs to which RTP timestamp, for the sender reports that viewers get.

use std::time::{Duration, Instant, SystemTime};

use crate::media::MediaKind;
use crate::rtcp::NtpTime;

/// A sender report that lies further than this from the packets' arrival is not believed (RTCP-06).
const PLAUSIBLE: Duration = Duration::from_secs(10);

/// Turns the monotonic clock into wall-clock time, read once at start, so that a step of the system's clock moves no stream.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    instant: Instant,
    unix: Duration,
}

impl WallClock {
    /// Reads both clocks.
    pub fn now() -> WallClock {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        WallClock { instant: Instant::now(), unix }
    }

    /// Time since 1970 at `instant`.
    pub fn unix(&self, instant: Instant) -> Duration {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.unix + later,
            None => self.unix.saturating_sub(self.instant - instant),
        }
    }
}

/// At `unix` the stream's RTP time line showed `rtp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPoint {
    /// Server wall-clock time since 1970.
    pub unix: Duration,
    /// RTP timestamp on the stream's time line.
    pub rtp: u32,
    /// RTP clock in Hz.
    pub clock_rate: u32,
}

impl ClockPoint {
    /// The RTP timestamp at another time.
    pub fn rtp_at(&self, unix: Duration) -> u32 {
        let ticks = signed_nanos(unix, self.unix) * i128::from(self.clock_rate) / 1_000_000_000;
        self.rtp.wrapping_add(ticks as u32)
    }
}

/// The clocks of one publication's tracks. Audio and video share one offset to the server's clock, so that lips stay in
/// sync; until every running track has a believable sender report, arrival times serve for all of them (RTCP-05).
#[derive(Debug, Default)]
pub struct PublicationClock {
    tracks: [Option<TrackClock>; 2],
    /// Publisher's NTP clock minus the server's wall clock, in nanoseconds; fixed by the first believable report.
    ntp_offset: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct TrackClock {
    arrival: ClockPoint,
    report: Option<ClockPoint>,
}

impl PublicationClock {
    /// The first packet of a source: `rtp` is on the stream's time line.
    pub fn on_source(&mut self, kind: MediaKind, unix: Duration, rtp: u32, clock_rate: u32) {
        let arrival = ClockPoint { unix, rtp, clock_rate };
        self.tracks[kind.index()] = Some(TrackClock { arrival, report: None });
    }

    /// A sender report: `rtp` is already on the stream's time line. Returns false if it is not believed.
    pub fn on_sender_report(&mut self, kind: MediaKind, unix: Duration, ntp: NtpTime, rtp: u32) -> bool {
        let Some(track) = &mut self.tracks[kind.index()] else { return false };
        let drift = rtp.wrapping_sub(track.arrival.rtp_at(unix)) as i32;
        if u64::from(drift.unsigned_abs()) > PLAUSIBLE.as_secs() * u64::from(track.arrival.clock_rate) {
            return false;
        }
        let ahead = ntp.nanos_since(NtpTime::from_unix(unix));
        let offset = *self.ntp_offset.get_or_insert(ahead);
        // Sent this long before it arrived, by the publisher's clock and the first report's offset.
        let age = i128::from(offset) - i128::from(ahead);
        // A report whose NTP clock jumped against the first one cannot be placed.
        if age.unsigned_abs() > PLAUSIBLE.as_nanos() {
            return false;
        }
        let Ok(at) = u64::try_from(unix.as_nanos() as i128 - age) else { return false };
        let point = ClockPoint { unix: Duration::from_nanos(at), rtp, clock_rate: track.arrival.clock_rate };
        track.report = Some(point);
        true
    }

    /// The mapping of a track, if it has begun.
    pub fn point(&self, kind: MediaKind) -> Option<ClockPoint> {
        let track = self.tracks[kind.index()]?;
        let all_reported = self.tracks.iter().flatten().all(|track| track.report.is_some());
        match track.report {
            Some(report) if all_reported => Some(report),
            _ => Some(track.arrival),
        }
    }
}

fn signed_nanos(later: Duration, earlier: Duration) -> i128 {
    later.as_nanos() as i128 - earlier.as_nanos() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_800_000_000);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    // RTCP-05
    #[test]
    fn arrival_times_serve_until_both_tracks_have_reported() {
        let mut clock = PublicationClock::default();
        clock.on_source(MediaKind::Audio, START, 1_000, 48_000);
        clock.on_source(MediaKind::Video, START + seconds(0.2), 50_000, 90_000);
        assert_eq!(clock.point(MediaKind::Audio).unwrap().rtp_at(START + seconds(1.0)), 49_000);
        // The publisher's clock is an hour behind; its video was captured at the same time as the audio.
        let publisher = NtpTime::from_unix(START - seconds(3600.0));
        assert!(clock.on_sender_report(MediaKind::Audio, START, publisher, 1_000));
        assert_eq!(clock.point(MediaKind::Audio).unwrap().unix, START);
        assert!(clock.on_sender_report(MediaKind::Video, START + seconds(0.2), publisher, 50_000));
        let (audio, video) = (clock.point(MediaKind::Audio).unwrap(), clock.point(MediaKind::Video).unwrap());
        assert_eq!(audio.rtp_at(START + seconds(2.0)), 97_000);
        // NTP fractions of 2^-32 s round to within one tick.
        assert!(video.rtp_at(START + seconds(2.0)).abs_diff(230_000) <= 1);
    }

    // RTCP-06, Q-08
    #[test]
    fn an_impossible_first_report_is_ignored() {
        let mut clock = PublicationClock::default();
        clock.on_source(MediaKind::Video, START, 50_000, 90_000);
        assert!(!clock.on_sender_report(MediaKind::Video, START, NtpTime::from_unix(START), 0xffff_ffff - 2_000_000));
        assert_eq!(clock.point(MediaKind::Video).unwrap().rtp, 50_000);
        assert!(clock.on_sender_report(MediaKind::Video, START, NtpTime::from_unix(START), 50_900));
    }

    #[test]
    fn time_before_the_point_maps_backwards() {
        let point = ClockPoint { unix: START, rtp: 100, clock_rate: 90_000 };
        assert_eq!(point.rtp_at(START - seconds(1.0)), 100u32.wrapping_sub(90_000));
    }
}
