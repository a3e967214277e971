//! A socket that fails whenever it is read.

use std::io;
use std::time::{Duration, Instant};

/// The first pause after an error, doubled with each further one in a row …
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// … up to this: media waits no longer for a device that comes back.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Errors that go on are logged this often.
const REPORT: Duration = Duration::from_secs(10);

/// When the socket is read again. Without pauses a socket that stays readable and fails would keep the shard busy for ever.
#[derive(Debug, Default)]
pub(super) struct ReceiveErrors {
    /// In a row.
    count: u32,
    until: Option<Instant>,
    reported: Option<Instant>,
}

impl ReceiveErrors {
    /// The socket was read.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Reading failed. True if the log is to be told.
    #[cold]
    pub(super) fn note(&mut self, now: Instant) -> bool {
        self.until = Some(now + LONGEST_PAUSE.min(FIRST_PAUSE * (1 << self.count.min(16))));
        self.count = self.count.saturating_add(1);
        let is_due = self.reported.is_none_or(|reported| now.saturating_duration_since(reported) >= REPORT);
        if is_due {
            self.reported = Some(now);
        }
        is_due
    }

    /// When the socket is to be read again, while it is not.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.until
    }

    /// The pause is over.
    pub(super) fn resume(&mut self) {
        self.until = None;
    }
}

/// True for errors that say nothing of the socket: it is empty, or a signal came.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The finding "a persistent receive error spins a shard".
    #[test]
    fn errors_in_a_row_make_longer_pauses_and_are_logged_once_in_a_while() {
        let start = Instant::now();
        let (mut errors, mut now) = (ReceiveErrors::default(), start);
        let (mut reads, mut logged) = (0, 0);
        while now < start + Duration::from_secs(25) {
            logged += usize::from(errors.note(now));
            reads += 1;
            now = errors.pause().unwrap();
            errors.resume();
            assert_eq!(errors.pause(), None);
        }
        assert!((200..300).contains(&reads), "{reads}");
        assert_eq!(logged, 3);
        errors.clear();
        errors.note(now);
        assert_eq!(errors.pause(), Some(now + FIRST_PAUSE));
    }
}
