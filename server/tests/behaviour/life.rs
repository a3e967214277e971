//! The life of a stream: publishers come, go and come back, and viewers stay (WHEP-13, RTP-15).

use std::time::{Duration, Instant};

use loadtest::client::{ClientError, ClientOptions, PublisherOptions, Viewer};
use loadtest::run::Plan;
use loadtest::sdp::{Imitation, Offer, OfferedSection, Setup, Ssrcs};
use media_core::media::Codec;

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// Sessions that a shard has more than another when viewers go to that one, at the latest.
const SPILL: usize = 33;

/// A client that posts and then does nothing.
fn idle() -> ClientOptions {
    ClientOptions { send_checks: false, connect_timeout: LONG, ..ClientOptions::default() }
}

/// A viewer on the publisher's shard and, if there are two shards, one on the other.
pub(crate) async fn viewers_everywhere(server: &Sluice, shards: usize) -> (Vec<Viewer>, Vec<Viewer>) {
    let mut viewers = vec![server.viewer("s").await];
    let mut crowd = Vec::new();
    if shards > 1 {
        let home = server.session("s", "publisher").await["shard"].clone();
        assert_eq!(server.session("s", "viewer").await["shard"], home);
        // As soon as one goes there, the shards are even, and the next one of two does.
        while server.session("s", "viewer").await["shard"] == home {
            assert!(crowd.len() < SPILL);
            crowd.push(server.post_viewer("s", idle()).await.unwrap());
        }
        while server.session("s", "viewer").await["shard"] == home || viewers.len() == 1 {
            assert!(viewers.len() < 6);
            viewers.push(server.viewer("s").await);
        }
    }
    (viewers, crowd)
}

// RTP-04, RTP-05, RTP-06, RTP-15, WHEP-13
#[tokio::test]
async fn a_publisher_that_restarts_is_seen_as_one_stream_without_a_discontinuity() {
    for shards in [1, 2] {
        let server = Sluice::start(&["--shards", &shards.to_string()]).await;
        // Without a request no second keyframe would come.
        let media = PublisherOptions { gop: Duration::from_secs(600), ..PublisherOptions::default() };
        let mut publisher = server.publisher_with("s", media.clone(), ClientOptions::default()).await;
        let (viewers, _crowd) = viewers_everywhere(&server, shards).await;
        for restarts in 1..=2 {
            for viewer in &viewers {
                viewer_sees("video and audio", viewer, LONG, |figures| {
                    figures.video.keyframes > 0 && figures.audio.delivered > 0 && figures.audio.restarts + 1 == restarts
                })
                .await;
            }
            let keyframes: Vec<u64> = viewers.iter().map(|viewer| viewer.figures().video.keyframes).collect();
            // By DELETE the first time, by close_notify alone the second.
            publisher.stop().await.unwrap();
            eventually("the stream is free", LONG, async || {
                (server.metric("sluice_publishers", &[]).await == 0.0).then_some(())
            })
            .await;
            let options = ClientOptions { delete: restarts == 2, ..ClientOptions::default() };
            publisher = server.publisher_with("s", media.clone(), options).await;
            let connected = Instant::now();
            for (viewer, before) in viewers.iter().zip(keyframes) {
                viewer_sees("a video frame within a second", viewer, Duration::from_secs(1), |figures| {
                    figures.video.keyframes > before
                })
                .await;
            }
            assert!(connected.elapsed() < Duration::from_secs(1));
        }
        for viewer in viewers {
            let delivered = viewer.figures().video.delivered;
            viewer_sees("more media", &viewer, LONG, |figures| figures.video.delivered > delivered + 150).await;
            viewer_sees("reports", &viewer, LONG, |figures| figures.sender_reports > 0).await;
            let figures = viewer.stop().await.unwrap();
            assert!(figures.is_intact(), "{figures:?}");
            assert_eq!((figures.audio.restarts, figures.video.restarts), (2, 2));
            assert_eq!((figures.sources, figures.time_steps_back), (2, 0), "{figures:?}");
            assert!(figures.longest_time_step < 0.7, "RTP time advances as real time does: {figures:?}");
            assert!(figures.longest_report_step < 1.0, "{figures:?}");
        }
        publisher.stop().await.unwrap();
    }
}

/// Posts a good viewer's offer, whatever the answer.
async fn post_viewer(server: &Sluice, stream: &str) -> reqwest::Response {
    post_offer(server, &format!("whep/{stream}"), None).await
}

/// Posts the offer of a client that sends or only receives, whatever the answer.
async fn post_offer(server: &Sluice, path: &str, sends: Option<Ssrcs>) -> reqwest::Response {
    let ice = media_core::internals::ice::random_credentials();
    let certificate = media_core::internals::dtls::Certificate::generate().unwrap();
    let sections = [OfferedSection { codecs: vec![Codec::Vp8], sends, rids: Vec::new() }];
    let (fingerprint, setup, imitates) = (certificate.fingerprint(), Setup::ActPass, Imitation::Browser);
    let offer = Offer {
        ice: &ice,
        fingerprint,
        setup,
        imitates,
        transport_cc: false,
        profiles: &[],
        shift: 0,
        sections: &sections,
    };
    let request = server.http.post(format!("{}/{path}", server.base));
    request.header("Content-Type", "application/sdp").body(offer.to_sdp()).send().await.unwrap()
}

// WHEP-05, WHEP-06
#[tokio::test]
async fn a_viewer_before_its_publisher_is_told_whether_to_wait() {
    let server = Sluice::start(&["--token", "named=secret"]).await;
    let reply = post_viewer(&server, "unheard-of").await;
    assert_eq!(reply.status(), 404);
    assert!(reply.text().await.unwrap().contains("\"not-found\""));
    let reply = post_viewer(&server, "named").await;
    assert_eq!(reply.status(), 409);
    assert!(reply.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    assert!(reply.text().await.unwrap().contains("\"stream-not-live\""));

    let server = Sluice::start(&[]).await;
    assert_eq!(post_viewer(&server, "s").await.status(), 404);
    let publisher = server.publisher("s").await;
    assert_eq!(post_viewer(&server, "s").await.status(), 201);
    publisher.stop().await.unwrap();
    assert_eq!(post_viewer(&server, "s").await.status(), 409, "it is known now");
}

// WHIP-31
#[tokio::test]
async fn a_second_publisher_is_refused_and_disturbs_nobody() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    let refused = server.post_publisher("s", PublisherOptions::default(), ClientOptions::default()).await;
    match refused.err().unwrap() {
        ClientError::Refused { status: 409, body } => assert!(body.contains("\"publish-conflict\""), "{body}"),
        error => panic!("{error}"),
    }
    let delivered = viewer.figures().video.delivered;
    viewer_sees("media goes on", &viewer, LONG, |figures| figures.video.delivered > delivered + 50).await;
    let figures = viewer.stop().await.unwrap();
    assert!(figures.is_intact() && figures.video.restarts == 0, "{figures:?}");
    publisher.stop().await.unwrap();
}

// WHIP-32
#[tokio::test]
async fn a_publisher_that_never_connected_gives_way_to_its_next_attempt() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let _lost = server.post_publisher("s", PublisherOptions::default(), idle()).await.unwrap();
        // It may watch what is only announced, and stays for who comes instead.
        let viewer = server.viewer("s").await;
        let publisher = server.publisher("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        let first = eventually("the first attempt is over", LONG, async || {
            server.sessions("s", "publisher").await.into_iter().find(|session| session["state"] == "closed")
        })
        .await;
        assert_eq!(first["reason"], "replaced");
        assert_eq!(server.metric("sluice_publishers", &[]).await, 1.0);
        publisher.stop().await.unwrap();
    }
}

// WHEP-13, OPS-01
#[tokio::test]
async fn viewers_of_a_stream_whose_publisher_stays_away_are_closed() {
    let server = Sluice::start(&["--shards", "2", "--publisher-wait", "1s"]).await;
    let publisher = server.publisher("s").await;
    let (viewers, crowd) = viewers_everywhere(&server, 2).await;
    for viewer in &viewers {
        viewer_sees("media", viewer, LONG, |figures| figures.video.keyframes > 0).await;
    }
    publisher.stop().await.unwrap();
    let gone = Instant::now();
    for viewer in &viewers {
        let end = tokio::time::timeout(LONG, viewer.ended()).await.unwrap();
        assert!(matches!(end, ClientError::ClosedByServer), "{end}");
    }
    assert!(gone.elapsed() >= Duration::from_millis(900), "they are kept for the wait");
    let count = (viewers.len() + crowd.len()) as f64;
    eventually("all are closed under this reason", LONG, async || {
        let labels = [("role", "viewer"), ("reason", "publisher-gone")];
        (server.metric("sluice_sessions_ended_total", &labels).await == count).then_some(())
    })
    .await;
    assert_eq!(server.metric("sluice_shard_sessions", &[]).await, 0.0);
}

// F-10
#[tokio::test]
async fn a_publisher_whose_network_died_takes_its_stream_over_when_it_was_told_to_come_back() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        // Neither DELETE nor close_notify: the packets just end.
        drop(publisher);
        let refused = post_offer(&server, "whip/s", Some(Ssrcs { media: 1, rtx: 2 })).await;
        assert_eq!(refused.status(), 409, "it was heard a moment ago");
        let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert_eq!(seconds, 3);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let publisher = server.publisher("s").await;
        viewer_sees("its media", &viewer, LONG, |figures| figures.video.restarts == 1).await;
        let sessions = server.sessions("s", "publisher").await;
        let reasons: Vec<_> = sessions.iter().map(|session| session["reason"].as_str()).collect();
        assert_eq!(reasons, [Some("replaced"), None]);
        assert_eq!(server.metric("sluice_publishers", &[]).await, 1.0);
        let figures = viewer.stop().await.unwrap();
        assert!(figures.is_intact(), "{figures:?}");
        publisher.stop().await.unwrap();
    }
}

// F-10: silence is what the server hears, not what a session's age or its media say.
#[tokio::test]
async fn a_publisher_that_sends_checks_and_reports_but_no_media_keeps_its_stream() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher("s").await;
    publisher.pause(true);
    // Longer than silence takes to count.
    for _ in 0..40 {
        let begun = Instant::now();
        assert_eq!(post_offer(&server, "whip/s", Some(Ssrcs { media: 1, rtx: 2 })).await.status(), 409);
        tokio::time::sleep(Duration::from_millis(100)).await;
        // After a pause of the machine the publisher has to be heard again before the next POST.
        if begun.elapsed() > Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    publisher.stop().await.unwrap();
}

// F-10
#[tokio::test]
async fn the_policy_of_takeover_is_a_setting() {
    let server = Sluice::start(&["--publish-takeover", "always"]).await;
    let first = server.publisher("s").await;
    let second = server.publisher("s").await;
    let end = tokio::time::timeout(LONG, first.ended()).await.unwrap();
    assert!(matches!(end, ClientError::ClosedByServer), "{end}");
    second.stop().await.unwrap();

    let server = Sluice::start(&["--publish-takeover", "never", "--liveness-timeout", "5s"]).await;
    drop(server.publisher("s").await);
    let died = Instant::now();
    let refused = post_offer(&server, "whip/s", Some(Ssrcs { media: 1, rtx: 2 })).await;
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((5..=6).contains(&seconds), "{seconds}");
    while died.elapsed() < Duration::from_secs(4) {
        assert_eq!(post_offer(&server, "whip/s", Some(Ssrcs { media: 1, rtx: 2 })).await.status(), 409);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(died.elapsed())).await;
    server.publisher("s").await.stop().await.unwrap();
}

// WHIP-33
#[tokio::test]
async fn a_stream_whose_publisher_died_is_free_after_the_liveness_time() {
    // Else it would be taken over before.
    let server = Sluice::start(&["--liveness-timeout", "6s", "--publish-takeover", "never"]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    drop(publisher);
    let publisher = eventually("another one may publish", LONG, async || {
        let posted = server.post_publisher("s", PublisherOptions::default(), ClientOptions::default()).await;
        match posted {
            Ok(publisher) => Some(publisher),
            Err(ClientError::Refused { status: 409, .. }) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    viewer_sees("its media", &viewer, LONG, |figures| figures.video.restarts == 1).await;
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}

// WHEP-15
#[tokio::test]
async fn a_restart_in_a_codec_that_a_viewer_did_not_agree_to_leaves_it_the_audio() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0 && figures.audio.delivered > 0).await;
    publisher.stop().await.unwrap();
    let media = PublisherOptions { video: Some(Codec::H264), ..PublisherOptions::default() };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    viewer_sees("audio of the new publisher", &viewer, LONG, |figures| figures.audio.restarts == 1).await;
    let before = viewer.figures().audio.delivered;
    viewer_sees("more of it", &viewer, LONG, |figures| figures.audio.delivered > before + 30).await;
    let agreed: Vec<Codec> = viewer.answer().sections.iter().flat_map(|section| &section.codecs).map(|c| c.0).collect();
    let figures = viewer.stop().await.unwrap();
    assert!(figures.is_intact(), "{figures:?}");
    assert_eq!(figures.video.restarts > 0, agreed.contains(&Codec::H264), "{agreed:?} {figures:?}");
    let viewer = server.viewer("s").await;
    viewer_sees("a new viewer sees it", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}

// WHIP-14, WHIP-15, ICE-17
#[tokio::test]
async fn delete_ends_a_session_at_once_with_close_notify_and_may_be_repeated() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode]).await;
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        for url in [viewer.session_url(), publisher.session_url()] {
            assert_eq!(server.http.delete(url).send().await.unwrap().status(), 200);
            let ended =
                async { if url == viewer.session_url() { viewer.ended().await } else { publisher.ended().await } };
            let end = tokio::time::timeout(LONG, ended).await.unwrap();
            assert!(matches!(end, ClientError::ClosedByServer), "{end}");
            assert_eq!(server.http.delete(url).send().await.unwrap().status(), 200, "the tombstone");
            assert_eq!(server.http.get(url).send().await.unwrap().status(), 404);
        }
        assert_eq!(server.metric("sluice_shard_sessions", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn the_operator_may_end_a_session() {
    let server = Sluice::start(&[]).await;
    let publisher = server.publisher("s").await;
    let id = server.session("s", "publisher").await["id"].as_str().unwrap().to_owned();
    let reply = server.http.delete(format!("{}/api/v1/sessions/{id}", server.admin)).send().await.unwrap();
    assert_eq!(reply.status(), 204);
    let end = tokio::time::timeout(LONG, publisher.ended()).await.unwrap();
    assert!(matches!(end, ClientError::ClosedByServer), "{end}");
}

/// Comings and goings of both sides at once, on two shards; the same in every run as far as the machine allows.
#[tokio::test]
async fn churn_on_both_sides_breaks_nothing() {
    for mode in ["lite", "full"] {
        let server = Sluice::start(&["--ice", mode, "--shards", "2", "--liveness-timeout", "6s"]).await;
        let first = server.publisher("s").await;
        let (_viewers, _crowd) = viewers_everywhere(&server, 2).await;
        first.stop().await.unwrap();
        let mut waiting: Vec<Viewer> = Vec::new();
        for round in 0..12 {
            let options = ClientOptions { delete: round % 2 == 0, ..ClientOptions::default() };
            let publisher = eventually("the stream is free", LONG, async || {
                server.post_publisher("s", PublisherOptions::default(), options.clone()).await.ok()
            })
            .await;
            for _ in 0..4 {
                waiting.push(server.post_viewer("s", options.clone()).await.unwrap());
            }
            if round % 3 == 0 {
                publisher.connected().await.unwrap();
            }
            // Some leave before they are connected, some after, some without a word; some stay for later publishers.
            for index in 0..3 {
                let viewer = waiting.remove((round * 7 + index * 5) % waiting.len());
                match index {
                    0 => drop(viewer),
                    1 => drop(viewer.stop().await.unwrap()),
                    _ => {
                        viewer.connected().await.unwrap();
                        viewer.change_address();
                        waiting.push(viewer);
                    }
                }
            }
            match round % 4 {
                3 => drop(publisher),
                _ => drop(publisher.stop().await.unwrap()),
            }
        }
        let publisher = eventually("the stream is free", LONG, async || {
            server.post_publisher("s", PublisherOptions::default(), ClientOptions::default()).await.ok()
        })
        .await;
        let before: Vec<u64> = waiting.iter().map(|viewer| viewer.figures().video.keyframes).collect();
        for (viewer, before) in waiting.iter().zip(before) {
            viewer_sees("the last publisher", viewer, LONG, |figures| figures.video.keyframes > before).await;
        }
        for viewer in waiting {
            let figures = viewer.stop().await.unwrap();
            assert_eq!((figures.video.corrupt, figures.unexpected), (0, 0), "{figures:?}");
            // Only who cannot decode what it has, having lost its keyframe to the address that it left, gets it once more behind
            // that keyframe, under new numbers.
            assert!(figures.video.duplicated == 0 || figures.keyframe_requests > 0, "{figures:?}");
        }
        publisher.stop().await.unwrap();
    }
}

// ICE-01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_do_not_mix() {
    let server = Sluice::start(&["--shards", "2"]).await;
    let plan = Plan { publishers: 5, viewers: 20, ..server.plan() };
    // A packet of another stream would count as corrupt.
    let report = loadtest::run::run(&plan, |_| {}, std::future::pending()).await.unwrap();
    assert!(report.integrity, "{}", report.to_table());
}
