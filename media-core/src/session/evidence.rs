//! What the server itself dropped of a peer's packets: evidence for the ledger.

use std::fmt;
use std::time::{Duration, Instant};

use strum::EnumCount;

use crate::ledger::Reason;
use crate::media::MediaKind;
use crate::stats::DropReason;

use super::inbound::Secure;

/// Causes for which media packets are dropped, and what the ledger calls such packets.
const MEDIA_CAUSES: [(DropReason, &str); 9] = [
    (DropReason::TooLong, "too long"),
    (DropReason::UnknownRtpStream, "of a payload type, SSRC or MID that the session does not have"),
    (DropReason::MalformedRtp, "malformed"),
    (DropReason::TooShort, "too short"),
    (DropReason::NoKeys, "received long before the keys"),
    (DropReason::SrtpAuthentication, "not authentic"),
    (DropReason::SrtpReplay, "replayed"),
    (DropReason::MediaRate, "beyond the limits of the session"),
    (DropReason::DatagramRate, "one of too many"),
];
/// Fewer dropped packets than this are strays, and no reason why media are missing.
const STRAYS: u32 = 3;

/// An SSRC whose packets SRTP refuses for this long, without one that it takes, is at fault …
const REFUSED_TIME: Duration = Duration::from_secs(3);
/// … if there are so many of them …
const REFUSED_PACKETS: u32 = 5;
/// … and they go on: a pause of this length ends it. RTCP comes every 7.5 s at the slowest (RFC 3550 §6.2), and a sender or a shard
/// that is short of processor time pauses for seconds. Neither may look like an end, and then like another fault.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// The verdict falls with the first packet after [`REFUSED_TIME`], for which media wait so long.
const VERDICT_GRACE: Duration = Duration::from_secs(3);

/// Packets of one peer that were dropped, by their medium, if the payload type names one, and by cause.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropped {
    counts: [[u32; DropReason::COUNT]; 3],
    /// Length of the longest one that was too long.
    longest: usize,
}

impl Dropped {
    /// Counts one of `length` bytes.
    pub(crate) fn note(&mut self, kind: Option<MediaKind>, reason: DropReason, length: usize) {
        let count = &mut self.counts[row(kind)][reason as usize];
        *count = count.saturating_add(1);
        if reason == DropReason::TooLong {
            self.longest = self.longest.max(length);
        }
    }

    /// Those that were dropped for one cause, whatever their medium.
    pub(crate) fn count(&self, reason: DropReason) -> u32 {
        self.counts.iter().fold(0, |sum, counts| sum.saturating_add(counts[reason as usize]))
    }

    /// Those dropped since `before` that may be of one of the media `kinds`, and are no mere strays.
    pub(super) fn media_since(&self, before: &Dropped, kinds: &[MediaKind]) -> Option<MediaDropped> {
        let mut counts = [0; MEDIA_CAUSES.len()];
        let rows = kinds.iter().map(|&kind| row(Some(kind))).chain([row(None)]);
        for row in rows {
            for (count, (cause, _)) in counts.iter_mut().zip(MEDIA_CAUSES) {
                let cause = cause as usize;
                *count += self.counts[row][cause].saturating_sub(before.counts[row][cause]);
            }
        }
        let dropped = MediaDropped { counts, longest: self.longest };
        (dropped.total() >= STRAYS).then_some(dropped)
    }
}

fn row(kind: Option<MediaKind>) -> usize {
    match kind {
        None => 0,
        Some(MediaKind::Audio) => 1,
        Some(MediaKind::Video) => 2,
    }
}

/// Media packets that were dropped in some time, in the order of [`MEDIA_CAUSES`].
#[derive(Clone, Copy, Debug)]
pub(super) struct MediaDropped {
    counts: [u32; MEDIA_CAUSES.len()],
    longest: usize,
}

impl MediaDropped {
    fn total(&self) -> u32 {
        self.counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The reason that they are for missing media.
    pub(super) fn reason(&self) -> Reason {
        let [too_long, others @ ..] = self.counts;
        if others.iter().all(|&other| other <= too_long) { Reason::PacketsTooLong } else { Reason::MediaDropped }
    }
}

impl fmt::Display for MediaDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets were received and dropped", self.total())?;
        let causes = MEDIA_CAUSES.iter().zip(self.counts).filter(|&(_, count)| count > 0);
        for (index, ((cause, text), count)) in causes.enumerate() {
            write!(f, "{} {count} {text}", if index == 0 { ":" } else { "," })?;
            if *cause == DropReason::TooLong {
                write!(f, " (up to {} bytes of UDP payload)", self.longest)?;
            }
        }
        Ok(())
    }
}

/// An SSRC that was authentic before and whose packets SRTP refuses, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedStream {
    secure: Secure,
    ssrc: u32,
    since: Instant,
    last: Instant,
    replayed: u32,
    not_authentic: u32,
}

impl RefusedStream {
    /// The first refused packet of an SSRC.
    pub(super) fn new(now: Instant, secure: Secure, ssrc: u32) -> RefusedStream {
        RefusedStream { secure, ssrc, since: now, last: now, replayed: 0, not_authentic: 0 }
    }

    /// True for the packets of this SSRC.
    pub(super) fn is(&self, secure: Secure, ssrc: u32) -> bool {
        (self.secure, self.ssrc) == (secure, ssrc)
    }

    /// Counts a refused packet.
    pub(super) fn note(&mut self, now: Instant, is_replay: bool) {
        self.last = now;
        *if is_replay { &mut self.replayed } else { &mut self.not_authentic } += 1;
    }

    /// True once no packet is refused any more, though none was taken either.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= REFUSED_PAUSE
    }

    /// True while the verdict is still to be expected.
    pub(super) fn awaits_verdict(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < REFUSED_TIME + VERDICT_GRACE
    }

    /// The reason why stage `srtp` fails, if this has lasted for long enough.
    pub(super) fn verdict(&self, now: Instant) -> Option<Reason> {
        let lasts = self.last.saturating_duration_since(self.since) >= REFUSED_TIME && !self.is_over(now);
        let reason = if self.replayed >= self.not_authentic { Reason::SrtpReplay } else { Reason::SrtpAuthentication };
        (lasts && self.replayed + self.not_authentic >= REFUSED_PACKETS).then_some(reason)
    }
}

impl fmt::Display for RefusedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RefusedStream { ssrc, replayed, not_authentic, .. } = self;
        let kind = if self.secure == Secure::Rtp { "RTP" } else { "RTCP" };
        let seconds = self.last.saturating_duration_since(self.since).as_secs_f64();
        write!(
            f,
            "for {seconds:.1} s no {kind} of SSRC {ssrc} was accepted: {replayed} packets count as received before, \
             {not_authentic} did not authenticate"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F-16
    #[test]
    fn the_largest_cause_is_the_reason_and_strays_are_none() {
        let mut dropped = Dropped::default();
        let before = dropped.clone();
        let video = [MediaKind::Video];
        dropped.note(Some(MediaKind::Video), DropReason::TooLong, 1620);
        dropped.note(None, DropReason::TooLong, 1543);
        assert!(dropped.media_since(&before, &video).is_none());
        dropped.note(None, DropReason::MalformedRtp, 80);
        dropped.note(Some(MediaKind::Audio), DropReason::SrtpReplay, 80);
        let media = dropped.media_since(&before, &video).unwrap();
        assert_eq!(media.reason(), Reason::PacketsTooLong);
        assert_eq!(
            media.to_string(),
            "3 packets were received and dropped: 2 too long (up to 1620 bytes of UDP payload), 1 malformed"
        );
        let between = dropped.clone();
        for _ in 0..4 {
            dropped.note(Some(MediaKind::Video), DropReason::UnknownRtpStream, 1000);
        }
        assert_eq!(dropped.media_since(&between, &video).unwrap().reason(), Reason::MediaDropped);
        assert!(dropped.media_since(&between, &[MediaKind::Audio]).is_none(), "audio is not concerned");
        assert_eq!(dropped.count(DropReason::TooLong), 2);
    }

    // F-18
    #[test]
    fn an_ssrc_is_at_fault_when_all_of_its_packets_are_refused_for_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut refused = RefusedStream::new(start, Secure::Rtp, 7);
        assert!(refused.is(Secure::Rtp, 7) && !refused.is(Secure::Rtcp, 7));
        for ms in (0..3000).step_by(100) {
            refused.note(at(ms), true);
            assert_eq!(refused.verdict(at(ms)), None);
        }
        refused.note(at(3000), false);
        assert_eq!(refused.verdict(at(3000)), Some(Reason::SrtpReplay));
        assert!(refused.to_string().contains("30 packets count as received before, 1 did not authenticate"));
        assert!(!refused.is_over(at(12_999)) && refused.is_over(at(13_000)));
        assert_eq!(refused.verdict(at(13_000)), None);
        let mut forged = RefusedStream::new(start, Secure::Rtp, 7);
        (0..10).for_each(|second| forged.note(at(400 * second), false));
        assert_eq!(forged.verdict(at(3_600)), Some(Reason::SrtpAuthentication));
    }
}
