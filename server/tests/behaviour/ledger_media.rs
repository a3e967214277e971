//! Media that are missing, stop or are dropped: what the ledger says of them, and of what the server did.

use std::time::Duration;

use loadtest::client::{ClientOptions, ViewerOptions};
use loadtest::sdp::Imitation;

use crate::ledger::{MODES, Then, assert_failed, assert_failed_meanwhile, assert_healed, state, states};
use crate::raw::{Playout, RawClient, Rtp, VIDEO};
use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// Whether the admin API calls the stream live.
async fn is_live(server: &Sluice, stream: &str) -> bool {
    let streams = server.get("/api/v1/streams").await;
    let entry = streams.as_array().unwrap().iter().find(|entry| entry["stream"] == stream).unwrap();
    entry["live"].as_bool().unwrap()
}

/// Waits until all stages of a session are done.
async fn until_done(server: &Sluice, stream: &str, role: &str, mut meanwhile: impl FnMut()) {
    eventually("all stages are done", LONG, async || {
        meanwhile();
        (states(server, stream, role).await == ["done"; 6]).then_some(())
    })
    .await;
}

// F-07
#[tokio::test]
async fn video_that_stops_while_audio_goes_on_reopens_the_stage_of_all_and_its_return_heals_it() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-gap", "1s"]).await;
        let playout = Playout::start(RawClient::publisher(&server, "s", Imitation::Browser).await, (true, true));
        let viewer = server.viewer("s").await;
        until_done(&server, "s", "publisher", || {}).await;
        until_done(&server, "s", "viewer", || {}).await;
        assert!(is_live(&server, "s").await);

        playout.set(true, false);
        let detail = assert_failed(&server, "s", "publisher", "media", "media-stopped", Then::Lives).await;
        assert!(detail.starts_with("audio is received; video stopped "), "{detail}");
        assert!(!is_live(&server, "s").await);
        let detail = assert_failed(&server, "s", "viewer", "media", "media-stopped", Then::Lives).await;
        assert!(detail.contains("the publisher's video stopped "), "{detail}");
        let late = server.viewer("s").await;
        eventually("who joins then is told the same", LONG, async || {
            let session = server.session("s", "viewer").await;
            (state(&session, "media")["reason"] == "media-stopped").then_some(())
        })
        .await;

        playout.set(true, true);
        assert_healed(&server, ("s", "publisher"), "media", || {}).await;
        assert!(is_live(&server, "s").await);
        eventually("both viewers are served and report", LONG, async || {
            let viewers = server.sessions("s", "viewer").await;
            viewers.iter().all(|viewer| viewer["state"] == "media").then_some(())
        })
        .await;
        let session = server.session("s", "publisher").await;
        assert_eq!(state(&session, "media")["reopened"], 1);
        for viewer in [viewer, late] {
            viewer.stop().await.unwrap();
        }
    }
}

// F-07
#[tokio::test]
async fn media_that_stop_altogether_while_checks_go_on_reopen_the_stage_until_they_return() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-gap", "1s"]).await;
        let playout = Playout::start(RawClient::publisher(&server, "s", Imitation::Browser).await, (true, true));
        until_done(&server, "s", "publisher", || {}).await;
        playout.set(false, false);
        assert_failed(&server, "s", "publisher", "media", "media-stopped", Then::Lives).await;
        eventually("both are named", LONG, async || {
            let session = server.session("s", "publisher").await;
            let detail = state(&session, "media")["detail"].as_str().unwrap().to_owned();
            (detail.contains("audio stopped") && detail.contains("video stopped")).then_some(())
        })
        .await;
        assert!(!is_live(&server, "s").await);
        playout.set(true, true);
        assert_healed(&server, ("s", "publisher"), "media", || {}).await;
        assert!(is_live(&server, "s").await);
    }
}

// F-07
#[tokio::test(flavor = "multi_thread")]
async fn rare_packets_have_not_stopped() {
    let server = Sluice::start(&[]).await;
    let mut client = RawClient::publisher(&server, "s", Imitation::Browser).await;
    // Discontinuous transmission, and a camera that is off at one frame a second.
    for tenth in 0..80_u16 {
        if tenth % 4 == 0 {
            client.audio(tenth);
        }
        if tenth % 10 == 0 {
            client.video(tenth, tenth == 0);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(states(&server, "s", "publisher").await, ["done"; 6]);
    assert_eq!(state(&server.session("s", "publisher").await, "media")["reopened"], 0);
}

// F-07
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_reports_no_more_reopens_its_stage_and_heals_it() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-timeout", "1s"]).await;
        let publisher = server.publisher("s").await;
        let mut viewer = RawClient::viewer(&server, "s").await;
        until_done(&server, "s", "viewer", || {
            viewer.receive();
            viewer.report();
        })
        .await;
        let mut packets = 0;
        let detail = assert_failed_meanwhile(&server, ("s", "viewer"), "media", "no-receipt", Then::Lives, || {
            packets += viewer.receive();
            viewer.check();
        })
        .await;
        let (_, since) = detail.split_once("packets were sent in ").unwrap();
        let (seconds, _) = since.split_once(" s without a report").unwrap();
        assert!(packets > 0 && seconds.parse::<u64>().unwrap() >= 2, "{detail}");
        assert_healed(&server, ("s", "viewer"), "media", || {
            viewer.receive();
            viewer.report();
        })
        .await;
        publisher.stop().await.unwrap();
    }
}

// F-19
#[tokio::test(flavor = "multi_thread")]
async fn a_medium_that_never_comes_is_said_as_it_is_and_viewers_have_the_other() {
    for mode in MODES {
        for has_audio in [true, false] {
            let server = Sluice::start(&["--ice", mode, "--media-timeout", "4s"]).await;
            let client = RawClient::publisher(&server, "s", Imitation::Browser).await;
            let playout = Playout::start(client, (has_audio, !has_audio));
            let viewer = server.viewer("s").await;
            let detail = assert_failed(&server, "s", "publisher", "media", "medium-missing", Then::Lives).await;
            let (there, missing) = if has_audio { ("audio", "video") } else { ("video", "audio") };
            assert!(detail.contains(&format!("{missing} was offered and nothing of it was received")), "{detail}");
            assert!(detail.contains(&format!("{there} is received")), "{detail}");
            until_done(&server, "s", "viewer", || {}).await;
            assert!(is_live(&server, "s").await, "there is something to watch");
            playout.set(true, true);
            assert_healed(&server, ("s", "publisher"), "media", || {}).await;
            until_done(&server, "s", "viewer", || {}).await;
            viewer.stop().await.unwrap();
        }
    }
}

// F-19
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_takes_no_requests_is_not_said_to_ignore_them() {
    let server = Sluice::start(&["--keyframe-timeout", "1s"]).await;
    let mut client = RawClient::publisher(&server, "s", Imitation::Ffmpeg).await;
    let mut sequence = 0;
    let detail = assert_failed_meanwhile(&server, ("s", "publisher"), "media", "no-keyframe", Then::Lives, || {
        sequence += 1;
        client.audio(sequence);
        client.video(sequence, false);
    })
    .await;
    assert!(detail.ends_with("the publisher agreed to no keyframe requests (PLI or FIR)"), "{detail}");
    assert_eq!(server.metric("sluice_shard_keyframe_requests_sent_total", &[]).await, 0.0);
}

// F-16
#[tokio::test(flavor = "multi_thread")]
async fn packets_over_the_limit_are_said_to_be_too_long() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-timeout", "4s"]).await;
        let mut client = RawClient::publisher(&server, "s", Imitation::Browser).await;
        let mut sequence = 0;
        let mut long_video = |client: &mut RawClient| {
            sequence += 1;
            let rtp = Rtp { ssrc: VIDEO, payload_type: 96, sequence, timestamp: u32::from(sequence) * 3_000 };
            client.rtp(rtp, false, &vec![0x10; if sequence % 2 == 0 { 1_600 } else { 3_000 }]);
        };
        // Something has to authenticate, and nothing of media arrives.
        client.report();
        let mut sent = 0;
        let detail =
            assert_failed_meanwhile(&server, ("s", "publisher"), "media", "packets-too-long", Then::Lives, || {
                long_video(&mut client);
                sent += 1;
            })
            .await;
        // RTP header and the tag of SRTP.
        assert!(detail.contains("too long (up to 3028 bytes of UDP payload)"), "{detail}");
        let counted: u32 = detail.rsplit_once(": ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        assert!(counted >= 3 && counted <= sent, "{detail}: {sent}");
        let dropped = server.metric("sluice_shard_dropped_datagrams_total", &[("reason", "too-long")]).await;
        assert!(dropped >= f64::from(counted), "{dropped}");
        let _playout = Playout::start(client, (true, true));
        assert_healed(&server, ("s", "publisher"), "media", || {}).await;
    }
}

// F-16, F-19
#[tokio::test(flavor = "multi_thread")]
async fn media_that_the_server_drops_are_named_with_the_causes() {
    type Send = fn(&mut RawClient, u16);
    let unknown: Send = |client, sequence| {
        client.rtp(Rtp { ssrc: 5, payload_type: 117, sequence, timestamp: 0 }, false, b"what is this");
    };
    let malformed: Send = |client, sequence| client.malformed_video(sequence);
    for mode in MODES {
        for (send, cause) in [(unknown, "of a payload type, SSRC or MID"), (malformed, "malformed")] {
            let server = Sluice::start(&["--ice", mode, "--media-timeout", "4s"]).await;
            let mut client = RawClient::publisher(&server, "s", Imitation::Browser).await;
            let mut sequence = 0;
            let detail =
                assert_failed_meanwhile(&server, ("s", "publisher"), "media", "media-dropped", Then::Lives, || {
                    sequence += 1;
                    client.audio(sequence);
                    send(&mut client, sequence);
                })
                .await;
            assert!(detail.contains("audio is received; video was offered and nothing of it"), "{detail}");
            assert!(detail.contains("packets were received and dropped: ") && detail.contains(cause), "{detail}");
            let mut last = (sequence, 0);
            assert_healed(&server, ("s", "publisher"), "media", || {
                last = (last.0 + 1, last.1 + 1);
                client.audio(last.0);
                client.video(10_000 + last.1, true);
            })
            .await;
        }
    }
}

// F-18
#[tokio::test(flavor = "multi_thread")]
async fn sequence_numbers_that_go_back_fail_in_srtp_until_packets_are_accepted_again() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode]).await;
        let mut client = RawClient::publisher(&server, "s", Imitation::Browser).await;
        let viewer = server.viewer("s").await;
        let (mut sound, mut frame) = (0, 20_000);
        let mut advance = |client: &mut RawClient| {
            (sound, frame) = (sound + 1, frame + 1);
            client.audio(sound);
            client.video(frame, frame % 10 == 1);
            frame
        };
        until_done(&server, "s", "viewer", || {
            advance(&mut client);
        })
        .await;
        let last = advance(&mut client);
        client.forget_sent();
        let (mut back, mut sound) = (last - 10_000, 10_000);
        let detail = assert_failed_meanwhile(&server, ("s", "publisher"), "srtp", "srtp-replay", Then::Lives, || {
            (back, sound) = (back + 1, sound + 1);
            client.audio(sound);
            client.video(back, back % 10 == 1);
            assert!(back < last, "it would be new again");
        })
        .await;
        assert!(detail.contains(&format!("no RTP of SSRC {VIDEO} was accepted")), "{detail}");
        assert_eq!(states(&server, "s", "publisher").await[4..], ["failed", "running"]);
        assert!(!is_live(&server, "s").await);
        let replays = server.session("s", "publisher").await["stats"]["srtp_replays"].as_u64().unwrap();
        let counted: u64 = detail.rsplit_once(": ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        assert!(counted >= 5 && counted <= replays, "{detail}: {replays}");
        // Where it had been, it is new.
        let mut ahead = last;
        assert_healed(&server, ("s", "publisher"), "srtp", || {
            (ahead, sound) = (ahead + 1, sound + 1);
            client.audio(sound);
            client.video(ahead, true);
        })
        .await;
        viewer.stop().await.unwrap();
    }
}

// F-18
#[tokio::test(flavor = "multi_thread")]
async fn the_70th_ssrc_of_a_session_is_forwarded_as_the_first_was() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode]).await;
        let mut client = RawClient::publisher(&server, "s", Imitation::Browser).await;
        let mut viewer = RawClient::viewer(&server, "s").await;
        for number in 0..70_u16 {
            let mut sequence = 0;
            eventually("the viewer is sent its video", LONG, async || {
                sequence += 1;
                client.audio(number * 100 + sequence);
                client.keyframe_of(
                    100 + u32::from(number),
                    sequence,
                    u32::from(number) * 90_000 + u32::from(sequence) * 3_000,
                );
                // Audio and video of one turn.
                (viewer.receive() >= 2).then_some(())
            })
            .await;
        }
        let session = server.session("s", "publisher").await;
        assert_eq!(session["state"], "media", "{session:#}");
        let refused = server.metric("sluice_shard_dropped_datagrams_total", &[("reason", "unknown-rtp-stream")]).await;
        assert_eq!(refused, 0.0);
        assert_eq!(session["stats"]["srtp_replays"], 0);
    }
}

// F-07: a viewer that asked for audio alone is not told of video.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_is_judged_by_the_media_that_it_was_answered_with() {
    let server = Sluice::start(&["--media-gap", "1s"]).await;
    let playout = Playout::start(RawClient::publisher(&server, "s", Imitation::Browser).await, (true, true));
    let listener = ViewerOptions { video: Vec::new(), ..ViewerOptions::default() };
    let listener = server.post_viewer_with("s", listener, ClientOptions::default()).await.unwrap();
    until_done(&server, "s", "viewer", || {}).await;
    playout.set(true, false);
    assert_failed(&server, "s", "publisher", "media", "media-stopped", Then::Lives).await;
    viewer_sees("audio goes on", &listener, LONG, |figures| figures.audio.delivered > 50).await;
    assert_eq!(states(&server, "s", "viewer").await, ["done"; 6]);
    listener.stop().await.unwrap();
}

#[tokio::test]
async fn a_publisher_that_connects_and_sends_nothing_is_said_to_send_nothing() {
    for mode in MODES {
        let server = Sluice::start(&["--ice", mode, "--media-timeout", "1s"]).await;
        let mut client = RawClient::publisher(&server, "s", Imitation::Browser).await;
        client.check();
        let detail = assert_failed(&server, "s", "publisher", "media", "no-media", Then::Lives).await;
        assert_eq!(detail, "no RTP was received for 1 s");
    }
}
