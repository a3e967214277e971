//! NTP timestamps (RFC 3550 §4).

use std::time::Duration;

/// Seconds from 1900-01-01 to 1970-01-01.
const UNIX_EPOCH: u64 = 2_208_988_800;

/// Seconds since 1900 as a 64-bit number with 32 fractional bits; it wraps in 2036.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The time at this distance from the Unix epoch.
    pub fn from_unix(since_epoch: Duration) -> NtpTime {
        let seconds = since_epoch.as_secs().wrapping_add(UNIX_EPOCH);
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        NtpTime((seconds << 32) | fraction)
    }

    /// The middle 32 bits: 16 of seconds, 16 of fraction, as LSR has them.
    pub fn compact(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// `self - earlier` in nanoseconds, over the wrap; negative if `earlier` is later.
    pub fn nanos_since(self, earlier: NtpTime) -> i64 {
        let difference = i128::from(self.0.wrapping_sub(earlier.0) as i64);
        // 2^63 / 2^32 s is 2.1e18 ns, which fits.
        ((difference * 1_000_000_000) >> 32) as i64
    }
}

/// A duration in units of 1/65536 s, as DLSR has it; saturates at 18 hours.
pub fn compact_duration(duration: Duration) -> u32 {
    let units = (u128::from(duration.as_secs()) << 16) + ((u128::from(duration.subsec_nanos()) << 16) / 1_000_000_000);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// Longer round trips, in units of 1/65536 s, are a clock that went wrong: half an hour.
const MAX_ROUND_TRIP: u32 = 1 << 27;

/// The round-trip time from LSR and DLSR of a report block (RFC 3550 §6.4.1), or LRR and DLRR of an XR block
/// (RFC 3611 §4.5), received at `now`. `None` if the block refers to no report, or if the result is negative, as the
/// rounding of short delays may make it, or longer than half an hour.
pub fn round_trip_time(now: NtpTime, last_report: u32, delay_since_last_report: u32) -> Option<Duration> {
    if last_report == 0 {
        return None;
    }
    let units = now.compact().wrapping_sub(last_report).wrapping_sub(delay_since_last_report);
    (units < MAX_ROUND_TRIP).then(|| Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unix_epoch_is_70_years_after_the_ntp_epoch() {
        assert_eq!(NtpTime::from_unix(Duration::ZERO).0, 2_208_988_800 << 32);
        let half = NtpTime::from_unix(Duration::from_millis(500));
        assert_eq!(half.0 & 0xffff_ffff, 1 << 31);
        assert_eq!(half.compact() & 0xffff, 1 << 15);
    }

    #[test]
    fn the_round_trip_of_the_rfc_comes_out() {
        // RFC 3550 figure 2: A = 0xb710:8000, DLSR = 0x0005:4000, LSR = 0xb705:2000 -> 0x0006:2000 = 6.125 s
        let now = NtpTime(0xb710_8000 << 16);
        assert_eq!(round_trip_time(now, 0xb705_2000, 0x0005_4000), Some(Duration::from_millis(6_125)));
        assert_eq!(round_trip_time(now, 0, 0), None);
        assert_eq!(round_trip_time(now, 0xb710_8000, 1), None);
        assert_eq!(round_trip_time(now, 0xb710_8000, 0xf800_0000), None, "the clock went wrong");
    }

    #[test]
    fn differences_work_over_the_wrap_of_2036() {
        let before = NtpTime(u64::MAX - (1 << 31) + 1);
        let after = NtpTime(1 << 31);
        assert_eq!(after.nanos_since(before), 1_000_000_000);
        assert_eq!(before.nanos_since(after), -1_000_000_000);
        let _ = NtpTime(1 << 63).nanos_since(NtpTime(0));
    }

    #[test]
    fn durations_saturate() {
        assert_eq!(compact_duration(Duration::from_millis(1_500)), 0x0001_8000);
        assert_eq!(compact_duration(Duration::from_secs(1 << 20)), u32::MAX);
    }
}
