//! Who lives: the judge of beats and panics. It has no clock and reads nothing by itself.

use std::time::{Duration, Instant};

use super::part::Remedy;

/// How often it looks.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A look that comes later than this stands for no more than this: it was the machine or the whole process that paused, and the
/// parts with it.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// A part that did not beat for this long has failed: ten beats, more than a busy machine makes it wait.
const MISSED: Duration = Duration::from_secs(1);

/// A thread that can be replaced is, after this time without a beat.
const REPLACED_AFTER: Duration = Duration::from_secs(3);

/// A part that cannot be replaced and did not beat for this long does not come back: the process ends.
pub(super) const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);

/// Threads that did not come back, and were replaced, at most: each holds a core or a lock for ever.
const MAX_REPLACED: u32 = 8;

/// A part that panicked and goes on counts as failed for this long, so that somebody sees it.
const PANIC_SHOWN: Duration = Duration::from_secs(5);

/// What a part showed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) beats: u64,
    pub(super) panics: u64,
}

/// What there is to do or to say about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It did not beat for [`MISSED`].
    Missed,
    /// It beats again.
    Returned,
    /// It panicked this often since the last look.
    Panicked(u64),
    /// Its thread is to be replaced.
    Replace,
    /// It does not come back, and nothing can take its place.
    Lost,
}

/// What is wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No beat for so long.
    Silent(Duration),
    /// It panicked so long ago, and goes on.
    Panicked(Duration),
}

/// One part, as it was at the last look.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    remedy: Remedy,
    looked: Instant,
    sign: Sign,
    silent: Duration,
    is_missed: bool,
    panicked: Option<Instant>,
    replaced: u32,
}

impl Watch {
    pub(super) fn new(now: Instant, remedy: Remedy) -> Watch {
        Watch {
            remedy,
            looked: now,
            sign: Sign::default(),
            silent: Duration::ZERO,
            is_missed: false,
            panicked: None,
            replaced: 0,
        }
    }

    /// Looks at the part.
    pub(super) fn look(&mut self, now: Instant, sign: Sign) -> Vec<Finding> {
        let mut findings = Vec::new();
        let passed = now.saturating_duration_since(self.looked).min(LONGEST_LOOK);
        let before = std::mem::replace(&mut self.sign, sign);
        self.looked = now;
        if sign.panics > before.panics {
            self.panicked = Some(now);
            findings.push(Finding::Panicked(sign.panics - before.panics));
        }
        if sign.beats != before.beats {
            self.silent = Duration::ZERO;
            if std::mem::take(&mut self.is_missed) {
                findings.push(Finding::Returned);
            }
            return findings;
        }
        self.silent += passed;
        if self.silent >= MISSED && !self.is_missed {
            self.is_missed = true;
            findings.push(Finding::Missed);
        }
        match self.remedy {
            Remedy::Replace if self.silent >= REPLACED_AFTER && self.replaced < MAX_REPLACED => {
                self.replaced += 1;
                // The next one has as long.
                self.silent = MISSED;
                findings.push(Finding::Replace);
            }
            _ if self.silent >= GIVEN_UP_AFTER => findings.push(Finding::Lost),
            _ => {}
        }
        findings
    }

    /// It did not beat for too long.
    pub(super) fn is_missed(&self) -> bool {
        self.is_missed
    }

    /// What is wrong with it, if anything is.
    pub(super) fn fault(&self, now: Instant) -> Option<Fault> {
        if self.is_missed {
            return Some(Fault::Silent(self.silent));
        }
        let since = self.panicked.map(|panicked| now.saturating_duration_since(panicked));
        since.filter(|since| *since < PANIC_SHOWN).map(Fault::Panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part and a clock.
    struct Scene {
        now: Instant,
        watch: Watch,
        sign: Sign,
    }

    impl Scene {
        fn new(remedy: Remedy) -> Scene {
            let now = Instant::now();
            Scene { now, watch: Watch::new(now, remedy), sign: Sign::default() }
        }

        /// Looks every 100 ms for so long; the findings and when they came.
        fn pass(&mut self, time: Duration, beats: bool) -> Vec<(Duration, Finding)> {
            let (begun, mut findings) = (self.now, Vec::new());
            while self.now < begun + time {
                self.now += LOOK;
                self.sign.beats += u64::from(beats);
                let found = self.watch.look(self.now, self.sign);
                findings.extend(found.into_iter().map(|finding| (self.now - begun, finding)));
            }
            findings
        }
    }

    // C2
    #[test]
    fn a_part_that_falls_silent_is_missed_within_2_s_and_given_up_after_10() {
        let mut scene = Scene::new(Remedy::None);
        assert_eq!(scene.pass(Duration::from_secs(60), true), []);
        let findings = scene.pass(Duration::from_secs(10), false);
        assert_eq!(findings, [(MISSED, Finding::Missed), (GIVEN_UP_AFTER, Finding::Lost)]);
        assert!(MISSED + LONGEST_LOOK < Duration::from_secs(2));
        assert!(scene.watch.is_missed());
        assert_eq!(scene.watch.fault(scene.now), Some(Fault::Silent(GIVEN_UP_AFTER)));
    }

    // C2
    #[test]
    fn a_part_that_returns_in_time_is_well_again() {
        let mut scene = Scene::new(Remedy::None);
        assert_eq!(scene.pass(Duration::from_secs(9), false), [(MISSED, Finding::Missed)]);
        assert_eq!(scene.pass(LOOK, true), [(LOOK, Finding::Returned)]);
        assert_eq!(scene.watch.fault(scene.now), None);
        assert_eq!(scene.pass(Duration::from_millis(900), false), []);
    }

    // C2
    #[test]
    fn a_thread_that_can_be_replaced_is_until_there_are_too_many_that_did_not_come_back() {
        let mut scene = Scene::new(Remedy::Replace);
        let findings = scene.pass(Duration::from_secs(60), false);
        let replaced = findings.iter().filter(|(_, finding)| *finding == Finding::Replace).count();
        assert_eq!((findings[0], findings[1]), ((MISSED, Finding::Missed), (REPLACED_AFTER, Finding::Replace)));
        assert_eq!(replaced, MAX_REPLACED as usize);
        assert_eq!(
            findings.iter().find(|(_, finding)| *finding == Finding::Lost).map(|(at, _)| at.as_secs()),
            Some(26)
        );
    }

    // C2
    #[test]
    fn a_panic_is_seen_at_once_and_shown_for_5_s() {
        let mut scene = Scene::new(Remedy::None);
        scene.pass(Duration::from_secs(1), true);
        scene.sign.panics = 2;
        assert_eq!(scene.pass(LOOK, true), [(LOOK, Finding::Panicked(2))]);
        assert_eq!(scene.watch.fault(scene.now), Some(Fault::Panicked(Duration::ZERO)));
        assert_eq!(scene.pass(PANIC_SHOWN, true), []);
        assert_eq!(scene.watch.fault(scene.now), None);
    }

    // C2: SIGSTOP and SIGCONT, a virtual machine that was moved.
    #[test]
    fn a_pause_of_the_whole_process_is_nobodys_silence() {
        let mut scene = Scene::new(Remedy::None);
        scene.pass(Duration::from_secs(1), true);
        scene.now += Duration::from_secs(3600);
        assert_eq!(scene.watch.look(scene.now, scene.sign), []);
        assert_eq!(scene.pass(LOOK, true), []);
    }
}
