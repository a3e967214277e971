//! The publisher's stage in virtual time.

use super::*;
use crate::stats::DropReason;

struct Harness {
    start: Instant,
    media: PublisherMedia,
    received: SmallVec<[ReceivedMedium; 2]>,
    dropped: Dropped,
    keyframe_requests: u64,
    rtp_received: u64,
    /// The last check; packets count besides.
    last_check: Instant,
    events: Vec<(StageChange, String)>,
}

impl Harness {
    fn new(tracks: &[TrackId]) -> Harness {
        let start = Instant::now();
        let config = CoreConfig::default();
        let received =
            tracks.iter().map(|&track| ReceivedMedium { track, reception: Reception::default(), takes_requests: true });
        Harness {
            start,
            media: PublisherMedia::new((start, start), tracks.iter().copied(), &config),
            received: received.collect(),
            dropped: Dropped::default(),
            keyframe_requests: 0,
            rtp_received: 0,
            last_check: start,
            events: Vec::new(),
        }
    }

    fn both() -> Harness {
        Harness::new(&[TrackId::AUDIO, TrackId::VIDEO])
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// A packet that a decoder can use, or cannot before a keyframe.
    fn packet(&mut self, ms: u64, track: TrackId, decodable: bool) {
        let now = self.at(ms);
        let received = self.received.iter_mut().find(|received| received.track == track).unwrap();
        received.reception.last = Some(now);
        if decodable {
            received.reception.undecodable_since = None;
        } else {
            received.reception.undecodable_since.get_or_insert(now);
        }
        self.rtp_received += 1;
        let events = &mut self.events;
        self.media.on_packet(track, decodable, |change, detail| events.push((change, detail)));
    }

    fn poll(&mut self, ms: u64) {
        let last = self.received.iter().filter_map(|received| received.reception.last).max();
        let facts = Published {
            last_authentic: self.last_check.max(last.unwrap_or(self.start)),
            media: self.received.clone(),
            keyframe_requests: self.keyframe_requests,
            rtp_received: self.rtp_received,
            dropped: &self.dropped,
        };
        let (now, events) = (self.at(ms), &mut self.events);
        self.media.poll(now, &facts, |change, detail| events.push((change, detail)));
    }

    /// Lets time pass from one moment to another, with a check each second and a packet every so many milliseconds of the tracks that are named.
    fn run(&mut self, ms: std::ops::Range<u64>, audio: Option<u64>, video: Option<u64>) {
        for ms in ms {
            if audio.is_some_and(|every| ms % every == 0) {
                self.packet(ms, TrackId::AUDIO, true);
            }
            if video.is_some_and(|every| ms % every == 0) {
                self.packet(ms, TrackId::VIDEO, true);
            }
            if ms % 1_000 == 0 {
                self.last_check = self.at(ms);
            }
            if ms % 100 == 0 {
                self.poll(ms);
            }
        }
    }

    /// What happened since the last call, without the details of progress.
    fn changes(&mut self) -> Vec<StageChange> {
        self.events.drain(..).map(|(change, _)| change).collect()
    }

    /// The only event since the last call.
    fn only(&mut self) -> (StageChange, String) {
        assert_eq!(self.events.len(), 1, "{:?}", self.events);
        self.events.remove(0)
    }
}

#[test]
fn it_is_done_when_every_medium_is_received_and_video_can_be_decoded() {
    let mut harness = Harness::both();
    harness.packet(10, TrackId::VIDEO, false);
    harness.packet(20, TrackId::VIDEO, true);
    harness.poll(100);
    assert_eq!(harness.changes(), [StageChange::Progress], "audio is awaited");
    harness.packet(150, TrackId::AUDIO, true);
    assert_eq!(harness.only(), (StageChange::Done, "first keyframe received".into()));
}

// F-07
#[test]
fn a_medium_that_stops_fails_the_stage_within_its_gap_and_its_return_heals_it() {
    for (stops, gap) in [(TrackId::VIDEO, 3_000), (TrackId::AUDIO, 6_000)] {
        let mut harness = Harness::both();
        harness.run(0..2_500, Some(20), Some(33));
        assert_eq!(harness.changes(), [StageChange::Progress, StageChange::Done]);
        let (audio, video) = if stops == TrackId::VIDEO { (Some(20), None) } else { (None, Some(33)) };
        harness.run(2_500..2_500 + gap - 100, audio, video);
        assert_eq!(harness.changes(), [], "{stops:?}: not before its time");
        harness.run(2_500 + gap - 100..2_700 + gap, audio, video);
        let (change, detail) = harness.only();
        assert_eq!(change, StageChange::Failed(Reason::MediaStopped));
        let (kind, other) = if stops == TrackId::VIDEO { ("video", "audio") } else { ("audio", "video") };
        assert!(detail.contains(&format!("{kind} stopped 2.5 s after the session began")), "{detail}");
        assert!(detail.contains(&format!("{other} is received")), "{detail}");
        let source = harness.media.sources().find(|&(track, _)| track == stops).unwrap().1;
        assert!(matches!(source, Source::Stopped(last) if last < harness.at(2_500)));
        harness.run(2_700 + gap..18_000, audio, video);
        assert_eq!(harness.changes(), [], "it is said once");
        harness.packet(18_000, stops, true);
        assert_eq!(harness.only(), (StageChange::Done, "received again".into()));
        harness.run(18_000..30_000, Some(20), Some(33));
        assert_eq!(harness.changes(), []);
    }
}

// F-07
#[test]
fn everything_that_stops_is_named_one_after_the_other() {
    let mut harness = Harness::both();
    harness.run(0..2_500, Some(20), Some(33));
    harness.changes();
    harness.run(2_500..20_000, None, None);
    let (change, detail) = harness.events.remove(0);
    assert_eq!(change, StageChange::Failed(Reason::MediaStopped));
    assert!(detail.contains("video stopped") && detail.contains("audio is received"), "{detail}");
    let (change, detail) = harness.only();
    assert_eq!(change, StageChange::Progress, "the same failure, and more of it");
    assert!(detail.contains("video stopped") && detail.contains("audio stopped"), "{detail}");
    harness.packet(20_000, TrackId::AUDIO, true);
    harness.poll(20_100);
    assert_eq!(harness.changes(), [StageChange::Progress], "video is still missing");
}

// F-07, WHIP-33
#[test]
fn a_publisher_that_vanishes_is_not_said_to_stop_its_media_while_the_connection_stands() {
    let mut harness = Harness::both();
    harness.run(0..2_500, Some(20), Some(33));
    harness.changes();
    (2_500..30_000).step_by(100).for_each(|ms| harness.poll(ms));
    let (change, detail) = harness.only();
    assert_eq!(change, StageChange::Reopened, "it is not done either: {detail}");
    harness.last_check = harness.at(30_000);
    harness.poll(30_000);
    assert_eq!(harness.changes(), [StageChange::Failed(Reason::MediaStopped)], "it is there after all");
}

// F-07: discontinuous transmission of Opus, a disabled camera at one black frame a second, a screen that hardly changes.
#[test]
fn media_that_are_only_rare_have_not_stopped() {
    let mut harness = Harness::both();
    harness.run(0..2_500, Some(20), Some(33));
    harness.changes();
    harness.run(2_500..60_000, Some(400), Some(1_000));
    harness.run(60_000..90_000, Some(2_000), Some(2_500));
    assert_eq!(harness.changes(), []);
}

// F-19
#[test]
fn a_medium_that_never_comes_is_said_as_it_is() {
    for (sends, missing, what) in [
        (TrackId::AUDIO, TrackId::VIDEO, "video was offered and nothing of it was received"),
        (TrackId::VIDEO, TrackId::AUDIO, "audio was offered and nothing of it was received"),
    ] {
        let mut harness = Harness::both();
        let (audio, video) = if sends == TrackId::AUDIO { (Some(20), None) } else { (None, Some(33)) };
        harness.run(0..9_900, audio, video);
        assert_eq!(harness.changes(), [StageChange::Progress]);
        harness.run(9_900..30_000, audio, video);
        let (change, detail) = harness.only();
        assert_eq!(change, StageChange::Failed(Reason::MediumMissing));
        assert!(detail.contains(what) && detail.contains("is received"), "{detail}");
        harness.packet(30_000, missing, true);
        assert_eq!(harness.changes(), [StageChange::Done], "better late than never");
    }
}

#[test]
fn a_silent_publisher_sends_no_media_and_packets_without_media_are_said_to_be_such() {
    let mut harness = Harness::both();
    harness.run(0..20_000, None, None);
    assert_eq!(harness.only(), (StageChange::Failed(Reason::NoMedia), "no RTP was received for 10 s".into()));
    let mut harness = Harness::both();
    harness.rtp_received = 7;
    harness.run(0..20_000, None, None);
    let (change, detail) = harness.only();
    assert_eq!(change, StageChange::Failed(Reason::NoMedia));
    assert_eq!(detail, "7 RTP packets were received in 10 s, none of them with media");
}

// F-19
#[test]
fn a_missing_keyframe_is_one_only_where_video_is_received_and_requests_are_counted() {
    let cases = [
        (true, 5, "5 keyframe requests were sent and not answered"),
        (true, 0, "none was requested"),
        (false, 0, "the publisher agreed to no keyframe requests"),
    ];
    for (takes_requests, requests, what) in cases {
        let mut harness = Harness::new(&[TrackId::VIDEO]);
        harness.received[0].takes_requests = takes_requests;
        for ms in (0..=12_000).step_by(50) {
            harness.packet(ms, TrackId::VIDEO, false);
            harness.keyframe_requests = requests * ms / 12_000;
            harness.poll(ms);
        }
        assert_eq!(harness.events.remove(0).0, StageChange::Progress);
        let (change, detail) = harness.only();
        assert_eq!(change, StageChange::Failed(Reason::NoKeyframe));
        assert!(
            detail.starts_with("video is received, for 12 s without a keyframe") && detail.contains(what),
            "{detail}"
        );
        harness.packet(12_050, TrackId::VIDEO, true);
        assert_eq!(harness.changes(), [StageChange::Done]);
    }
}

#[test]
fn another_stream_without_a_keyframe_reopens_what_was_done() {
    let mut harness = Harness::new(&[TrackId::VIDEO]);
    harness.run(0..2_500, None, Some(33));
    harness.keyframe_requests = 3;
    harness.poll(2_500);
    harness.changes();
    for ms in (2_500..14_600).step_by(20) {
        harness.packet(ms, TrackId::VIDEO, false);
        harness.keyframe_requests = 5;
        harness.poll(ms);
    }
    let (change, detail) = harness.only();
    assert_eq!(change, StageChange::Failed(Reason::NoKeyframe));
    assert!(detail.contains("2 keyframe requests"), "those before were answered: {detail}");
}

// F-16
#[test]
fn what_the_server_dropped_is_the_reason_for_what_is_missing() {
    let video = Some(MediaKind::Video);
    for (cause, reason, what) in [
        (DropReason::TooLong, Reason::PacketsTooLong, "50 too long (up to 1620 bytes of UDP payload)"),
        (DropReason::UnknownRtpStream, Reason::MediaDropped, "50 of a payload type, SSRC or MID"),
        (DropReason::MalformedRtp, Reason::MediaDropped, "50 malformed"),
    ] {
        // Never received, received no more, and with no keyframe.
        let mut never = Harness::both();
        (0..50).for_each(|_| never.dropped.note(video, cause, 1620));
        never.run(0..11_000, None, None);
        let mut sound_only = Harness::both();
        (0..50).for_each(|_| sound_only.dropped.note(video, cause, 1620));
        sound_only.run(0..11_000, Some(20), None);
        let mut stopped = Harness::both();
        (0..500).for_each(|_| stopped.dropped.note(video, cause, 1620));
        stopped.run(0..2_500, Some(20), Some(33));
        stopped.run(2_500..3_000, Some(20), None);
        (0..50).for_each(|_| stopped.dropped.note(video, cause, 1620));
        stopped.run(3_000..11_000, Some(20), None);
        for mut harness in [never, sound_only, stopped] {
            let (change, detail) = harness.events.pop().unwrap();
            assert_eq!(change, StageChange::Failed(reason));
            assert!(detail.contains(what), "{detail}");
        }
    }
    // Audio that is sent twice does not explain why video stopped.
    let mut harness = Harness::both();
    harness.run(0..2_500, Some(20), Some(33));
    harness.changes();
    harness.run(2_500..3_000, Some(20), None);
    (0..50).for_each(|_| harness.dropped.note(Some(MediaKind::Audio), DropReason::SrtpReplay, 100));
    harness.run(3_000..11_000, Some(20), None);
    assert_eq!(harness.changes(), [StageChange::Failed(Reason::MediaStopped)]);
}

#[test]
fn a_stage_that_another_one_reopened_is_done_again_when_media_are_there() {
    let mut harness = Harness::new(&[TrackId::AUDIO]);
    harness.run(0..1_000, Some(20), None);
    harness.changes();
    let events = &mut harness.events;
    harness.media.reopen("SRTP", |change, detail| events.push((change, detail)));
    assert_eq!(harness.only(), (StageChange::Reopened, "SRTP".into()));
    let events = &mut harness.events;
    harness.media.reopen("SRTP", |change, detail| events.push((change, detail)));
    assert_eq!(harness.changes(), []);
    harness.run(1_000..1_200, Some(20), None);
    assert_eq!(harness.only(), (StageChange::Done, "received again".into()));
}
