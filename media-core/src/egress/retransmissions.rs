//! Which packets were retransmitted to a viewer, and how often that may be (RTCP-08).

use std::time::{Duration, Instant};

/// One packet is retransmitted this often; a viewer that lost it four times is better served by a keyframe.
const MAX_TIMES: u8 = 3;
/// Retransmitted packets that are remembered.
const MEMORY: usize = 128;

#[derive(Clone, Copy)]
struct Retransmitted {
    sequence: u64,
    at: Instant,
    times: u8,
}

/// The retransmissions of one section. Its memory is made with the first NACK: most viewers never send one.
#[derive(Default)]
pub(super) struct Retransmissions {
    memory: Option<Box<Memory>>,
}

/// Indexed by the low bits of the sequence number.
type Memory = [Option<Retransmitted>; MEMORY];

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The packet is sent again; this is noted.
    Send,
    /// It is on its way, or the budget is used up.
    NotNow,
    /// It was sent often enough.
    GivenUp,
}

impl Retransmissions {
    /// Whether this packet is sent again now.
    pub(super) fn allow(
        &mut self,
        now: Instant,
        sequence: u64,
        interval: Duration,
        within_budget: impl FnOnce() -> bool,
    ) -> Verdict {
        let memory = self.memory.get_or_insert_with(|| Box::new([None; MEMORY]));
        let slot = &mut memory[(sequence % MEMORY as u64) as usize];
        let times = match slot.filter(|retransmitted| retransmitted.sequence == sequence) {
            Some(retransmitted) if now.saturating_duration_since(retransmitted.at) < interval => {
                return Verdict::NotNow;
            }
            Some(retransmitted) if retransmitted.times == MAX_TIMES => return Verdict::GivenUp,
            Some(retransmitted) => retransmitted.times,
            None => 0,
        };
        if !within_budget() {
            return Verdict::NotNow;
        }
        *slot = Some(Retransmitted { sequence, at: now, times: times + 1 });
        Verdict::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    // RTCP-08
    #[test]
    fn a_packet_is_sent_again_once_per_interval_and_three_times_at_most() {
        let start = Instant::now();
        let mut retransmissions = Retransmissions::default();
        let verdicts: Vec<Verdict> =
            (0..100).map(|ms| retransmissions.allow(start + Duration::from_millis(ms), 7, INTERVAL, || true)).collect();
        for (ms, &verdict) in verdicts.iter().enumerate() {
            let expected = match ms {
                0 | 20 | 40 => Verdict::Send,
                60.. => Verdict::GivenUp,
                _ => Verdict::NotNow,
            };
            assert_eq!(verdict, expected, "{ms} ms");
        }
        assert_eq!(retransmissions.allow(start, 8, INTERVAL, || true), Verdict::Send);
    }

    // OPS-08
    #[test]
    fn what_the_budget_does_not_allow_may_be_asked_for_again() {
        let start = Instant::now();
        let mut retransmissions = Retransmissions::default();
        assert_eq!(retransmissions.allow(start, 7, INTERVAL, || false), Verdict::NotNow);
        assert_eq!(retransmissions.allow(start, 7, INTERVAL, || true), Verdict::Send);
    }
}
