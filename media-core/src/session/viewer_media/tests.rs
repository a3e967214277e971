//! The viewer's stage in virtual time.

use super::*;

struct Harness {
    start: Instant,
    media: ViewerMedia,
    facts: Watched,
    events: Vec<(StageChange, String)>,
}

const AUDIO: usize = 0;
const VIDEO: usize = 1;

impl Harness {
    /// Of a stream whose audio and video flow.
    fn new() -> Harness {
        let medium = |track| SentMedium { track, source: Some(Source::Flowing), is_paused: false, sent: 0 };
        let media = [TrackId::AUDIO, TrackId::VIDEO].map(medium).into_iter().collect();
        let start = Instant::now();
        Harness {
            start,
            media: ViewerMedia::new(&CoreConfig::default()),
            facts: Watched { has_publisher: true, media, last_authentic: start },
            events: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn poll(&mut self, ms: u64) {
        let (now, events) = (self.at(ms), &mut self.events);
        self.media.poll(now, &self.facts, |change, detail| events.push((change, detail)));
    }

    fn report(&mut self, index: usize, highest: u32) {
        let SentMedium { track, sent, .. } = self.facts.media[index];
        self.media.on_report(track, highest, sent);
    }

    fn source(&mut self, index: usize, source: Option<Source>) {
        self.facts.media[index].source = source;
    }

    /// Sends both media all the time; the viewer checks once a second, and reports those that are named.
    fn run(&mut self, ms: std::ops::Range<u64>, reports: &[usize]) {
        for ms in ms.step_by(100) {
            if ms % 1_000 == 0 {
                self.facts.last_authentic = self.at(ms);
            }
            for index in [AUDIO, VIDEO] {
                if self.facts.media[index].source == Some(Source::Flowing) && !self.facts.media[index].is_paused {
                    self.facts.media[index].sent += 3;
                }
                if ms % 1_000 == 0 && reports.contains(&index) {
                    self.report(index, self.facts.media[index].sent);
                }
            }
            self.poll(ms);
        }
    }

    fn changes(&mut self) -> Vec<StageChange> {
        self.events.drain(..).map(|(change, _)| change).collect()
    }

    fn only(&mut self) -> (StageChange, String) {
        assert_eq!(self.events.len(), 1, "{:?}", self.events);
        self.events.remove(0)
    }
}

// RTCP-16: packets before the pause are lost, and nothing is sent that could be reported.
#[test]
fn video_that_pauses_as_its_path_does_not_carry_it_is_not_missed() {
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    assert_eq!(harness.only().0, StageChange::Done);
    harness.run(3_000..4_000, &[AUDIO]);
    harness.facts.media[VIDEO].is_paused = true;
    harness.run(4_000..60_000, &[AUDIO]);
    assert_eq!(harness.changes(), [], "audio is reported");
    harness.facts.media[VIDEO].is_paused = false;
    harness.run(60_000..63_000, &[AUDIO, VIDEO]);
    assert_eq!(harness.changes(), [], "it is reported again");
}

// F-07
#[test]
fn it_is_done_when_receipt_of_every_medium_that_the_publisher_sends_is_reported() {
    let mut harness = Harness::new();
    harness.run(0..500, &[]);
    harness.report(AUDIO, 5);
    harness.run(500..900, &[]);
    assert_eq!(harness.changes(), [], "video is not reported");
    harness.report(VIDEO, 5);
    harness.poll(900);
    assert_eq!(harness.only(), (StageChange::Done, "first receipt reported".into()));

    for nothing in [None, Some(Source::Missing)] {
        let mut harness = Harness::new();
        harness.source(VIDEO, nothing);
        harness.run(0..2_000, &[AUDIO]);
        assert_eq!(harness.changes(), [StageChange::Done], "there is no video");
    }
    let mut harness = Harness::new();
    harness.source(VIDEO, Some(Source::Awaited));
    harness.run(0..5_000, &[AUDIO]);
    assert_eq!(harness.changes(), [], "there may yet be video");
    harness.source(VIDEO, Some(Source::Flowing));
    harness.run(5_000..7_000, &[AUDIO, VIDEO]);
    assert_eq!(harness.changes(), [StageChange::Done]);
}

// F-07
#[test]
fn a_medium_of_the_publisher_that_stopped_is_said_to_those_who_watch_and_to_those_who_join() {
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    harness.changes();
    let stopped = Source::Stopped(harness.at(2_900));
    harness.source(VIDEO, Some(stopped));
    harness.run(6_000..20_000, &[AUDIO]);
    let (change, detail) = harness.only();
    assert_eq!(change, StageChange::Failed(Reason::MediaStopped));
    assert_eq!(detail, "receipt of audio is reported; the publisher's video stopped 3.1 s ago");
    harness.source(VIDEO, Some(Source::Flowing));
    harness.poll(20_000);
    assert_eq!(harness.changes(), [], "it has to be reported again");
    harness.run(20_100..22_000, &[AUDIO, VIDEO]);
    assert_eq!(harness.only(), (StageChange::Done, "receipt is reported again".into()));

    let mut joins = Harness::new();
    joins.source(VIDEO, Some(stopped));
    // It is sent the frames that the cache still has, and reports them.
    joins.facts.media[VIDEO].sent = 40;
    joins.report(VIDEO, 40);
    joins.run(0..3_000, &[AUDIO]);
    assert_eq!(joins.changes(), [StageChange::Failed(Reason::MediaStopped)]);
}

// F-07
#[test]
fn a_viewer_that_reports_no_more_while_it_is_sent_media_fails_and_heals() {
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    harness.changes();
    harness.run(3_000..21_000, &[]);
    assert_eq!(harness.changes(), [], "reports may be rare and may be lost");
    harness.run(21_000..30_000, &[]);
    let (change, detail) = harness.events.remove(0);
    assert_eq!(change, StageChange::Failed(Reason::NoReceipt));
    assert!(detail.contains("audio packets were sent in 20 s without a report"), "{detail}");
    assert!(detail.contains("video packets were sent in 20 s without a report"), "{detail}");
    assert!(harness.changes().iter().all(|change| *change == StageChange::Progress));
    harness.run(30_000..32_000, &[AUDIO, VIDEO]);
    assert!(harness.changes().ends_with(&[StageChange::Done]));
}

// WHEP-13
#[test]
fn a_viewer_that_vanishes_is_not_said_to_report_nothing() {
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    harness.changes();
    for ms in (3_000..40_000).step_by(100) {
        harness.facts.media[AUDIO].sent += 3;
        harness.facts.media[VIDEO].sent += 3;
        harness.poll(ms);
    }
    assert_eq!(harness.changes(), [StageChange::Reopened]);
}

#[test]
fn a_viewer_that_never_reports_fails_and_one_that_reports_on_one_medium_gets_more_time() {
    let mut harness = Harness::new();
    harness.run(0..9_900, &[]);
    assert_eq!(harness.changes(), []);
    harness.run(9_900..10_200, &[]);
    assert_eq!(harness.changes(), [StageChange::Failed(Reason::NoReceipt)]);

    let mut harness = Harness::new();
    harness.run(0..19_900, &[VIDEO]);
    assert_eq!(harness.changes(), []);
    harness.run(19_900..20_200, &[VIDEO]);
    let (change, detail) = harness.only();
    assert_eq!(change, StageChange::Failed(Reason::NoReceipt));
    assert!(detail.contains("receipt of video is reported"), "{detail}");
}

#[test]
fn a_report_whose_number_stands_still_is_no_receipt() {
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    harness.changes();
    let (audio, video) = (harness.facts.media[AUDIO].sent, harness.facts.media[VIDEO].sent);
    harness.report(AUDIO, audio);
    harness.report(VIDEO, video);
    for second in 3..30 {
        harness.run(1_000 * second..1_000 * second + 1_000, &[]);
        harness.report(AUDIO, audio);
        harness.report(VIDEO, video);
    }
    assert_eq!(harness.changes()[0], StageChange::Failed(Reason::NoReceipt));
}

#[test]
fn a_stream_that_sends_nothing_leaves_nothing_to_report() {
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    harness.changes();
    for index in [AUDIO, VIDEO] {
        harness.report(index, 1_000);
    }
    (3_000..60_000).step_by(100).for_each(|ms| harness.poll(ms));
    assert_eq!(harness.changes(), []);
}

#[test]
fn without_a_publisher_the_stage_waits_and_its_return_heals_it() {
    let mut harness = Harness::new();
    harness.facts.has_publisher = false;
    [AUDIO, VIDEO].into_iter().for_each(|index| harness.source(index, None));
    harness.run(0..30_000, &[]);
    assert_eq!(harness.changes(), []);
    let mut harness = Harness::new();
    harness.run(0..3_000, &[AUDIO, VIDEO]);
    harness.changes();
    harness.facts.has_publisher = false;
    [AUDIO, VIDEO].into_iter().for_each(|index| harness.source(index, None));
    harness.run(3_000..30_000, &[]);
    assert_eq!(harness.only(), (StageChange::Reopened, "waiting for the publisher".into()));
    harness.facts.has_publisher = true;
    [AUDIO, VIDEO].into_iter().for_each(|index| harness.source(index, Some(Source::Flowing)));
    harness.run(30_100..32_000, &[AUDIO, VIDEO]);
    assert_eq!(harness.changes(), [StageChange::Done]);
}

#[test]
fn a_publisher_without_a_keyframe_is_said_to_its_viewers() {
    let mut harness = Harness::new();
    harness.source(VIDEO, Some(Source::NoKeyframe));
    harness.run(0..3_000, &[AUDIO]);
    assert_eq!(harness.changes(), [StageChange::Failed(Reason::NoKeyframe)]);
}
