//! The stage machine in virtual time.

use super::*;
use crate::ingest::Reception;
use crate::ledger::{Ledger, StageState};
use crate::session::inbound::Secure;
use crate::session::publisher_media::ReceivedMedium;
use crate::session::viewer_media::SentMedium;

/// A session of audio and video, or of video alone.
struct Case {
    lifecycle: Lifecycle,
    ledger: Ledger,
    start: Instant,
    refusals: Refusals,
    dtls_received: u32,
    dropped: Dropped,
    refused_stream: Option<RefusedStream>,
    /// Of the video.
    reception: Reception,
    sent: u32,
}

impl Case {
    fn new(role: Role) -> Case {
        let start = Instant::now();
        let lifecycle = Lifecycle::new(start, role, &CoreConfig::default());
        Case {
            lifecycle,
            ledger: Ledger::new(start),
            start,
            refusals: Refusals::default(),
            dtls_received: 0,
            dropped: Dropped::default(),
            refused_stream: None,
            reception: Reception::default(),
            sent: 0,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn secured(role: Role) -> Case {
        let mut case = Case::new(role);
        assert!(case.lifecycle.on_valid_check(case.start, String::new));
        assert!(!case.lifecycle.on_valid_check(case.start, String::new));
        case.lifecycle.on_handshake(case.start, "DTLSv1.2".into(), "AEAD_AES_128_GCM");
        let config = CoreConfig::default();
        match role {
            Role::Publisher => case.lifecycle.begin_publishing(case.start, [TrackId::VIDEO].into_iter(), &config),
            Role::Viewer => case.lifecycle.begin_watching(&config),
        }
        case
    }

    fn poll(&mut self, now: Instant) -> Option<Reason> {
        let media = match self.lifecycle.media {
            Media::Pending => MediaFacts::Pending,
            Media::Publisher(_) => MediaFacts::Publisher(Published {
                media: [ReceivedMedium { track: TrackId::VIDEO, reception: self.reception, takes_requests: true }]
                    .into_iter()
                    .collect(),
                keyframe_requests: 0,
                rtp_received: 0,
                dropped: &self.dropped,
                last_authentic: self.lifecycle.last_authentic,
            }),
            Media::Viewer(_) => MediaFacts::Viewer(Watched {
                has_publisher: true,
                last_authentic: self.lifecycle.last_authentic,
                media: [SentMedium {
                    track: TrackId::VIDEO,
                    source: Some(Source::Flowing),
                    is_paused: false,
                    sent: self.sent,
                }]
                .into_iter()
                .collect(),
            }),
        };
        let facts = Facts {
            refusals: &self.refusals,
            dtls_received: self.dtls_received,
            dropped: &self.dropped,
            refused_stream: self.refused_stream,
            media,
        };
        self.lifecycle.poll(now, &facts)
    }

    /// A publisher's packet.
    fn receive(&mut self, now: Instant, decodable: bool) {
        self.reception.last = Some(now);
        if decodable {
            self.reception.undecodable_since = None;
        } else {
            self.reception.undecodable_since.get_or_insert(now);
        }
        self.lifecycle.on_authentic(now);
        self.lifecycle.on_media(now, TrackId::VIDEO, decodable);
    }

    fn states(&mut self) -> [StageState; 6] {
        let events: Vec<StageEvent> = self.lifecycle.take_events().collect();
        for event in &events {
            self.ledger.apply(event);
        }
        std::array::from_fn(|index| self.ledger.stages()[index].state)
    }

    fn reason(&self, stage: Stage) -> Option<Reason> {
        self.ledger.stage(stage).reason
    }

    fn detail(&self, stage: Stage) -> &str {
        &self.ledger.stage(stage).detail
    }
}

use StageState::{Done, Failed, Running, Waiting};

// OPS-01, ICE-08
#[test]
fn no_check_at_all_fails_stage_ice_after_the_timeout_and_not_before() {
    let mut case = Case::new(Role::Publisher);
    assert_eq!(case.poll(case.at(39)), None);
    assert_eq!(case.poll(case.at(40)), Some(Reason::NoValidCheck));
    assert_eq!(case.states(), [Waiting, Failed, Waiting, Waiting, Waiting, Waiting]);
    assert_eq!(case.poll(case.at(99)), None);
}

#[test]
fn a_handshake_that_stalls_fails_stage_dtls() {
    let mut case = Case::new(Role::Publisher);
    case.lifecycle.on_valid_check(case.start, String::new);
    for second in 0..30 {
        assert_eq!(case.poll(case.at(second)), None);
        case.lifecycle.on_alive(case.at(second));
    }
    assert_eq!(case.poll(case.at(30)), Some(Reason::DtlsTimeout));
    assert_eq!(case.states(), [Waiting, Done, Failed, Waiting, Waiting, Waiting]);
}

// DTLS-08
#[test]
fn a_wrong_certificate_fails_stage_fingerprint_and_no_other() {
    let mut case = Case::new(Role::Viewer);
    case.lifecycle.on_valid_check(case.start, String::new);
    case.lifecycle.on_failure(case.at(1), Stage::Fingerprint, Reason::FingerprintMismatch, "a != b".into());
    assert_eq!(case.states(), [Waiting, Done, Done, Failed, Waiting, Waiting]);
    assert_eq!(case.reason(Stage::Fingerprint), Some(Reason::FingerprintMismatch));
    assert_ne!(case.lifecycle.phase, Phase::Secured);
}

// OPS-04
#[test]
fn packets_of_which_none_authenticates_fail_stage_srtp() {
    let mut case = Case::secured(Role::Publisher);
    for _ in 0..5 {
        case.lifecycle.on_auth_failure(case.start);
    }
    assert_eq!(case.poll(case.at(2)), None);
    assert_eq!(case.poll(case.at(3)), None);
    assert_eq!(case.states(), [Waiting, Done, Done, Done, Failed, Waiting]);
    assert_eq!(case.reason(Stage::Srtp), Some(Reason::SrtpAuthentication));
}

// M6: forged packets before the first one of the peer end nothing.
#[test]
fn the_first_authentic_packet_heals_what_forged_ones_before_it_failed() {
    for role in [Role::Publisher, Role::Viewer] {
        let mut case = Case::secured(role);
        (0..500).for_each(|_| case.lifecycle.on_auth_failure(case.start));
        assert_eq!(case.poll(case.at(3)), None);
        assert_eq!(case.states()[4], Failed);
        case.lifecycle.on_authentic(case.at(4));
        assert_eq!(case.poll(case.at(4)), None);
        assert_eq!(case.states()[4], Done);
    }
}

#[test]
fn stray_unauthentic_packets_beside_authentic_ones_fail_nothing() {
    let mut case = Case::secured(Role::Publisher);
    case.lifecycle.on_authentic(case.start);
    for _ in 0..500 {
        case.lifecycle.on_auth_failure(case.start);
    }
    assert_eq!(case.poll(case.at(5)), None);
    assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Running]);
}

#[test]
fn video_without_keyframe_fails_stage_media_and_a_late_keyframe_heals_it() {
    let mut case = Case::secured(Role::Publisher);
    for second in 0..=12 {
        case.receive(case.at(second), false);
        assert_eq!(case.poll(case.at(second)), None);
    }
    assert_eq!(case.states()[5], Failed);
    assert_eq!(case.reason(Stage::Media), Some(Reason::NoKeyframe));
    case.receive(case.at(20), true);
    assert_eq!(case.states()[5], Done);
}

#[test]
fn a_silent_publisher_fails_with_no_media() {
    let mut case = Case::secured(Role::Publisher);
    assert_eq!(case.poll(case.at(10)), None);
    case.states();
    assert_eq!(case.reason(Stage::Media), Some(Reason::NoMedia));
}

#[test]
fn a_viewer_is_done_when_it_reports_receipt() {
    let mut case = Case::secured(Role::Viewer);
    assert_eq!(case.poll(case.start), None);
    assert_eq!(case.states()[5], Running);
    case.lifecycle.on_rtp_sent(case.at(1));
    case.sent = 5;
    case.lifecycle.on_report(TrackId::VIDEO, 4, 5);
    assert_eq!(case.poll(case.at(2)), None);
    assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Done]);
    assert_eq!(case.poll(case.at(3)), None);
}

#[test]
fn a_viewer_that_never_reports_fails_with_no_receipt() {
    let mut case = Case::secured(Role::Viewer);
    case.lifecycle.on_rtp_sent(case.start);
    case.sent = 5;
    assert_eq!(case.poll(case.start), None);
    case.lifecycle.on_alive(case.at(9));
    assert_eq!(case.poll(case.at(10)), None);
    case.states();
    assert_eq!(case.reason(Stage::Media), Some(Reason::NoReceipt));
}

// F-10
#[test]
fn a_publisher_that_falls_silent_and_is_heard_again_is_reported_once_each() {
    let mut case = Case::new(Role::Publisher);
    let at = |case: &Case, millis| case.start + Duration::from_millis(millis);
    assert_eq!(case.lifecycle.poll_silence(at(&case, 9_000)), None, "it never connected");
    case.lifecycle.on_valid_check(at(&case, 10_000), String::new);
    let begun = at(&case, 10_000);
    assert_eq!(case.lifecycle.poll_silence(at(&case, 12_499)), None);
    assert_eq!(case.lifecycle.poll_silence(at(&case, 12_500)), Some(Some(begun)));
    assert_eq!(case.lifecycle.poll_silence(at(&case, 12_600)), None);
    case.lifecycle.on_alive(at(&case, 13_000));
    assert_eq!(case.lifecycle.poll_silence(at(&case, 13_000)), Some(None));
    assert_eq!(case.lifecycle.poll_silence(at(&case, 13_100)), None);
    let mut viewer = Case::secured(Role::Viewer);
    assert_eq!(viewer.lifecycle.poll_silence(viewer.at(9)), None);
}

// WHIP-33
#[test]
fn a_peer_that_falls_silent_is_given_up_after_the_liveness_time() {
    let mut case = Case::secured(Role::Publisher);
    case.lifecycle.on_authentic(case.at(100));
    assert_eq!(case.poll(case.at(129)), None);
    assert_eq!(case.poll(case.at(130)), Some(Reason::ConsentLost));
}

// F-15
#[test]
fn refused_checks_fail_stage_ice_with_the_cause_of_most_of_them_and_all_numbers() {
    let cases = [
        (CheckRefusal::RoleConflict, Reason::IceRoleConflict, "40 claimed the server's role (answered 487)"),
        (CheckRefusal::Password, Reason::IceCredentials, "40 had no or a wrong MESSAGE-INTEGRITY"),
        (CheckRefusal::Username, Reason::IceCredentials, "40 had a wrong USERNAME"),
        (CheckRefusal::UnknownAttribute, Reason::ChecksRefused, "40 had unknown mandatory attributes"),
        (CheckRefusal::Malformed, Reason::ChecksRefused, "40 were malformed"),
        (CheckRefusal::Rate, Reason::ChecksRefused, "40 were more than a session may send"),
    ];
    for (refusal, reason, what) in cases {
        let mut case = Case::new(Role::Viewer);
        let source = "192.0.2.7:4000".parse().unwrap();
        (0..40).for_each(|_| case.refusals.note(refusal, source));
        case.refusals.note(CheckRefusal::Malformed, source);
        assert_eq!(case.poll(case.at(40)), Some(reason));
        assert_eq!(case.states()[1], Failed);
        assert_eq!(case.reason(Stage::Ice), Some(reason));
        let detail = case.detail(Stage::Ice);
        let what = if refusal == CheckRefusal::Malformed { "41 were malformed" } else { what };
        assert!(detail.contains(what) && detail.contains("192.0.2.7:4000"), "{detail}");
    }
}

#[test]
fn a_peer_that_falls_silent_behind_refused_checks_is_told_so() {
    let mut case = Case::secured(Role::Viewer);
    case.refusals.note(CheckRefusal::Password, "192.0.2.7:4000".parse().unwrap());
    assert_eq!(case.poll(case.at(30)), Some(Reason::ConsentLost));
    case.states();
    assert!(case.detail(Stage::Ice).contains("1 had no or a wrong MESSAGE-INTEGRITY"));
}

#[test]
fn a_stalled_handshake_counts_what_was_received_of_it() {
    for (received, too_many, what) in [
        (0, 0, "; no DTLS was received"),
        (3, 0, "; 3 DTLS datagrams were received"),
        (9, 4, "; 9 DTLS datagrams were received, of which 4 were too many"),
    ] {
        let mut case = Case::new(Role::Publisher);
        case.lifecycle.on_valid_check(case.start, String::new);
        case.lifecycle.on_alive(case.at(29));
        case.dtls_received = received;
        (0..too_many).for_each(|_| case.dropped.note(None, DropReason::DtlsRate, 100));
        assert_eq!(case.poll(case.at(30)), Some(Reason::DtlsTimeout));
        case.states();
        assert!(case.detail(Stage::Dtls).contains(what), "{}", case.detail(Stage::Dtls));
    }
}

// F-18
#[test]
fn an_ssrc_that_goes_back_fails_stage_srtp_until_its_packets_are_accepted_again() {
    for heals in [true, false] {
        let mut case = Case::secured(Role::Publisher);
        case.receive(case.start, true);
        assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Done]);
        let mut refused = RefusedStream::new(case.at(1), Secure::Rtp, 7);
        for ms in (0..=3_000).step_by(30) {
            let now = case.at(1) + Duration::from_millis(ms);
            refused.note(now, true);
            case.refused_stream = Some(refused);
            assert_eq!(case.poll(now), None);
        }
        assert_eq!(case.states(), [Waiting, Done, Done, Done, Failed, Running], "what waits for it is not done");
        assert_eq!(case.reason(Stage::Srtp), Some(Reason::SrtpReplay));
        assert!(case.detail(Stage::Srtp).contains("101 packets count as received before"));
        if heals {
            case.refused_stream = None;
            case.receive(case.at(5), true);
            assert_eq!(case.poll(case.at(5)), None);
            assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Done]);
        } else {
            // It sends nothing any more but checks: that is what stage `media` says.
            case.lifecycle.on_alive(case.at(13));
            assert_eq!(case.poll(case.at(14)), None);
            assert_eq!(case.states(), [Waiting, Done, Done, Done, Done, Failed]);
            assert_eq!(case.reason(Stage::Media), Some(Reason::MediaStopped));
        }
    }
}

// F-18: audio goes on; the last accepted packet of the video is older than the first refused one.
#[test]
fn media_that_srtp_refuses_are_not_told_by_stage_media_before_stage_srtp_tells_it() {
    for refused_for in [10_000, 1_000] {
        let mut case = Case::secured(Role::Publisher);
        case.receive(case.start, true);
        let mut failures = Vec::new();
        let refused_since = case.start + Duration::from_millis(400);
        let mut refused = RefusedStream::new(refused_since, Secure::Rtp, 7);
        for ms in (0..8_000).step_by(20) {
            let now = refused_since + Duration::from_millis(ms);
            case.lifecycle.on_authentic(now);
            if ms < refused_for {
                refused.note(now, true);
            }
            case.refused_stream = Some(refused);
            case.poll(now);
            failures.extend(case.lifecycle.take_events().filter_map(|event| match event.change {
                StageChange::Failed(reason) => Some((event.stage, reason, ms / 1000)),
                _ => None,
            }));
        }
        let told = if refused_for > 3_000 {
            (Stage::Srtp, Reason::SrtpReplay, 3)
        } else {
            // They came to an end before they were a fault of their own.
            (Stage::Media, Reason::MediaStopped, 6)
        };
        assert_eq!(failures, [told]);
    }
}

// F-18, SRTP-10: a report every few seconds, and media of a sender that is short of processor time.
#[test]
fn packets_that_are_refused_with_pauses_between_them_fail_stage_srtp_once() {
    for (secure, pause) in [(Secure::Rtcp, 7_400), (Secure::Rtp, 2_500), (Secure::Rtp, 30)] {
        let mut case = Case::secured(Role::Publisher);
        case.receive(case.start, true);
        case.lifecycle.take_events();
        let (mut refused, mut srtp) = (RefusedStream::new(case.start, secure, 7), Vec::new());
        for ms in (0..120_000).step_by(10) {
            let now = case.start + Duration::from_millis(ms);
            case.receive(now, true);
            if ms % pause == 0 {
                refused.note(now, true);
            }
            case.refused_stream = Some(refused);
            if ms % 100 == 0 {
                assert_eq!(case.poll(now), None);
            }
            let events = case.lifecycle.take_events().filter(|event| event.stage == Stage::Srtp);
            srtp.extend(events.map(|event| event.change));
        }
        assert_eq!(srtp, [StageChange::Failed(Reason::SrtpReplay)], "{secure:?} every {pause} ms");
    }
}
