//! How sessions end in good order, and that every reason code has a test.

use loadtest::client::{ClientOptions, PublisherOptions};
use media_core::ledger::Reason;

use crate::ledger::{MODES, assert_ended, state};
use crate::support::{LONG, Sluice, eventually};

/// Waits until the first session of this stream and role has ended for this reason, without any stage that failed.
async fn assert_ends_well(server: &Sluice, stream: &str, role: &str, reason: &str) {
    let session = eventually(reason, LONG, async || {
        let session = server.sessions(stream, role).await.into_iter().next()?;
        (session["state"] == "closed").then_some(session)
    })
    .await;
    assert_eq!(session["reason"], reason, "{session:#}");
    let stages = session["stages"].as_array().unwrap();
    assert!(stages.iter().all(|stage| stage["state"] != "failed" && stage["reason"].is_null()), "{session:#}");
    assert_eq!(server.metric("sluice_session_stage_failures_total", &[("role", role)]).await, 0.0);
    assert_ended(server, session["id"].as_str().unwrap(), role, reason).await;
}

#[tokio::test]
async fn a_session_that_is_deleted_ends_so() {
    let server = Sluice::start(&[]).await;
    server.publisher("s").await.stop().await.unwrap();
    assert_ends_well(&server, "s", "publisher", "deleted").await;
}

#[tokio::test]
async fn a_peer_that_closes_its_connection_ends_the_session() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode]).await;
        let options = ClientOptions { delete: false, ..ClientOptions::default() };
        let publisher = server.publisher_with("s", PublisherOptions::default(), options).await;
        publisher.stop().await.unwrap();
        assert_ends_well(&server, "s", "publisher", "peer-closed").await;
    }
}

#[tokio::test]
async fn an_attempt_that_never_connected_is_replaced_by_the_next_one() {
    let server = Sluice::start(&[]).await;
    let options = ClientOptions { send_checks: false, ..ClientOptions::default() };
    let _first = server.post_publisher("s", PublisherOptions::default(), options).await.unwrap();
    let second = server.publisher("s").await;
    assert_ends_well(&server, "s", "publisher", "replaced").await;
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_viewer_whose_publisher_does_not_return_is_ended_and_its_stage_waits_until_then() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--publisher-wait", "2s"]).await;
        let publisher = server.publisher("s").await;
        let _viewer = server.viewer("s").await;
        eventually("media flow", LONG, async || {
            (server.session("s", "viewer").await["state"] == "media").then_some(())
        })
        .await;
        publisher.stop().await.unwrap();
        // F-07
        let session = eventually("the stage waits", LONG, async || {
            let session = server.session("s", "viewer").await;
            (state(&session, "media")["state"] == "running").then_some(session)
        })
        .await;
        assert_eq!(state(&session, "media")["detail"], "waiting for the publisher");
        assert_ends_well(&server, "s", "viewer", "publisher-gone").await;
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_its_sessions() {
    let mut server = Sluice::start(&[]).await;
    let _publisher = server.publisher("s").await;
    let id = server.session("s", "publisher").await["id"].as_str().unwrap().to_owned();
    server.terminate();
    assert!(server.exited(LONG).await.success());
    // The API and the metrics end with the server; the log stays.
    let lines = eventually("the closing line", LONG, async || {
        Some(server.closing_lines(&id)).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!((lines.len(), &lines[0]["reason"]), (1, &"shutdown".into()));
}

/// Where a reason is provoked over real sockets, and found in the API, the metrics and the log.
fn provoked_by(reason: Reason) -> (&'static str, &'static str) {
    let (connection, media, ends) =
        (include_str!("ledger.rs"), include_str!("ledger_media.rs"), include_str!("ledger_ends.rs"));
    let (codecs, supervision) = (include_str!("codecs.rs"), include_str!("supervision.rs"));
    let access = include_str!("access.rs");
    match reason {
        Reason::Deleted => (ends, "a_session_that_is_deleted_ends_so"),
        Reason::PeerClosed => (ends, "a_peer_that_closes_its_connection_ends_the_session"),
        Reason::Shutdown => (ends, "a_server_that_stops_ends_its_sessions"),
        Reason::Replaced => (ends, "an_attempt_that_never_connected_is_replaced_by_the_next_one"),
        Reason::EvictedHalfOpen => (include_str!("limits.rs"), "the_oldest_half_open_session_gives_place_and_says_so"),
        Reason::AccessExpired => (access, "a_session_ends_with_its_right_where_that_is_enforced"),
        Reason::AccessRevoked => (access, "an_operator_ends_the_sessions_of_a_holder"),
        Reason::PublisherGone => {
            (ends, "a_viewer_whose_publisher_does_not_return_is_ended_and_its_stage_waits_until_then")
        }
        Reason::NoValidCheck => (connection, "a_client_that_never_checks_fails_in_ice"),
        Reason::IceRoleConflict | Reason::IceCredentials | Reason::ChecksRefused => {
            (connection, "checks_that_are_refused_fail_in_ice_with_what_the_server_answered")
        }
        Reason::ConsentLost => (connection, "a_peer_that_falls_silent_is_given_up"),
        Reason::DtlsTimeout => (connection, "a_handshake_that_never_begins_fails_in_dtls"),
        Reason::DtlsAlertReceived => (connection, "a_client_that_refuses_the_servers_certificate_fails_in_dtls"),
        Reason::DtlsProtocolError => (connection, "a_client_without_a_cipher_in_common_fails_in_dtls"),
        Reason::NoClientCertificate => (connection, "a_client_without_certificate_fails_in_dtls"),
        Reason::NoSrtpProfile => (connection, "a_client_without_srtp_profile_fails_in_dtls"),
        Reason::NoExtendedMasterSecret => (
            include_str!("../../../media-core/src/dtls/tests/refusal.rs"),
            "a_client_without_the_extended_master_secret_is_refused",
        ),
        Reason::FingerprintMismatch => (connection, "a_certificate_other_than_announced_fails_in_fingerprint"),
        Reason::SrtpAuthentication => (connection, "packets_that_never_authenticate_fail_in_srtp"),
        Reason::SrtpReplay => (media, "sequence_numbers_that_go_back_fail_in_srtp_until_packets_are_accepted_again"),
        // Over real sockets it takes years.
        Reason::SrtpKeyUsedUp => (
            include_str!("../../../media-core/src/fuzzing/session.rs"),
            "sessions_end_before_their_keys_have_protected_all_that_they_may",
        ),
        Reason::NoMedia => (media, "a_publisher_that_connects_and_sends_nothing_is_said_to_send_nothing"),
        Reason::MediumMissing => (media, "a_medium_that_never_comes_is_said_as_it_is_and_viewers_have_the_other"),
        Reason::NoKeyframe => (connection, "a_publisher_without_keyframe_fails_in_media_and_a_late_keyframe_heals_it"),
        Reason::MediaStopped => {
            (media, "video_that_stops_while_audio_goes_on_reopens_the_stage_of_all_and_its_return_heals_it")
        }
        Reason::PacketsTooLong => (media, "packets_over_the_limit_are_said_to_be_too_long"),
        Reason::MediaDropped => (media, "media_that_the_server_drops_are_named_with_the_causes"),
        Reason::UnsupportedCodec => {
            (codecs, "a_viewer_that_cannot_take_what_a_publisher_returns_with_is_told_and_joins_anew")
        }
        Reason::TrackAdded => (codecs, "a_track_more_makes_viewers_join_anew_and_a_track_less_is_in_the_ledger"),
        Reason::NoReceipt => (connection, "a_viewer_that_never_reports_fails_in_media"),
        Reason::ShardFailed => (supervision, "a_shard_that_panics_is_seen_ends_its_sessions_so_and_serves_again"),
        Reason::HandshakeThreadFailed => (
            supervision,
            "a_handshake_thread_that_panics_or_does_not_come_back_ends_its_handshakes_and_the_next_ones_succeed",
        ),
        // A bug, which no client can provoke as long as none is known.
        Reason::Internal => (ends, "provoked_by"),
    }
}

#[test]
fn every_reason_is_provoked_by_a_test() {
    for &reason in Reason::ALL {
        let (source, test) = provoked_by(reason);
        assert!(source.contains(&format!("fn {test}(")), "{reason}: {test}");
        assert!(reason == Reason::Internal || source.contains(&format!("\"{reason}\"")), "{test} asserts {reason}");
    }
}
