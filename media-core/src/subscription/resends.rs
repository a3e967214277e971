//! Which packets were sent to a viewer again, and how much that may be (RTCP-08).

use std::time::{Duration, Instant};

use crate::rate::TokenBucket;

/// One packet is sent again this often; who lost it four times is better served by a keyframe.
const MAX_TIMES: u8 = 3;
/// Resent packets that are remembered.
const MEMORY: usize = 128;
/// Packets a second that a section resends, and how many at once. A tenth of a stream of 20 Mbit/s fits; a viewer that
/// asks for everything again and again does not turn one datagram of its own into a thousand of ours.
const PER_SECOND: f64 = 500.0;
const BURST: f64 = 500.0;

#[derive(Clone, Copy)]
struct Resent {
    sequence: u64,
    at: Instant,
    times: u8,
}

/// Answers to one section's NACKs. Its memory begins with the first of them: most viewers never send one.
#[derive(Default)]
pub(super) struct Resends {
    memory: Option<Box<Memory>>,
}

struct Memory {
    /// Indexed by the low bits of the sequence number.
    recent: [Option<Resent>; MEMORY],
    budget: TokenBucket,
}

impl Resends {
    /// True if this packet may be sent again now; notes that it is.
    pub(super) fn allow(&mut self, now: Instant, sequence: u64, interval: Duration) -> bool {
        let memory = self.memory.get_or_insert_with(|| {
            Box::new(Memory { recent: [None; MEMORY], budget: TokenBucket::new(PER_SECOND, BURST) })
        });
        let slot = &mut memory.recent[(sequence % MEMORY as u64) as usize];
        let times = match slot.filter(|resent| resent.sequence == sequence) {
            Some(resent) if resent.times == MAX_TIMES => return false,
            Some(resent) if now.saturating_duration_since(resent.at) < interval => return false,
            Some(resent) => resent.times,
            None => 0,
        };
        if !memory.budget.take(now) {
            return false;
        }
        *slot = Some(Resent { sequence, at: now, times: times + 1 });
        true
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
        let mut resends = Resends::default();
        let times: Vec<u64> =
            (0..1000).filter(|&ms| resends.allow(start + Duration::from_millis(ms), 7, INTERVAL)).collect();
        assert_eq!(times, [0, 20, 40]);
        assert!(resends.allow(start, 8, INTERVAL));
    }

    // OPS-08
    #[test]
    fn a_viewer_that_asks_for_everything_gets_a_bounded_rate() {
        let start = Instant::now();
        let mut resends = Resends::default();
        let mut sent = 0;
        for ms in 0..1000 {
            let now = start + Duration::from_millis(ms);
            sent += (0..1500).filter(|&sequence| resends.allow(now, sequence, INTERVAL)).count();
        }
        assert!((900..=1_000).contains(&sent), "{sent}");
    }
}
