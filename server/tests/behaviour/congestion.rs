//! Paths that do not carry the stream, paths that lose, and many viewers that request a keyframe at once: what becomes of the viewer, of
//! the others, and of the publisher.

use std::time::{Duration, Instant};

use loadtest::client::{
    ClientOptions, Identity, Publisher, PublisherOptions, SharedHistogram, Viewer, ViewerFigures, ViewerOptions,
};
use loadtest::relay::{LinkOptions, Relay, RelayOptions};
use loadtest::sdp::Imitation;
use media_core::media::Codec;
use tokio::task::JoinSet;

use crate::impaired::{publisher_with, relay, viewer_with};
use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// A viewer that tells what arrives, as browsers do.
fn browser() -> ViewerOptions {
    ViewerOptions { transport_cc: true, ..ViewerOptions::default() }
}

/// Forgets the latencies so far.
fn begin_window(latency: &SharedHistogram) {
    latency.lock().unwrap().reset();
}

/// A quantile of the latencies of this window, in ms.
fn latency(latency: &SharedHistogram, quantile: f64) -> f64 {
    latency.lock().unwrap().value_at_quantile(quantile) as f64 / 1e3
}

/// What the path of the newest viewer is believed to carry, in bit/s.
async fn estimate(server: &Sluice) -> Option<f64> {
    server.session("s", "viewer").await["stats"]["available_outgoing_bitrate"].as_f64()
}

// RTCP-07, RTCP-14
#[tokio::test]
async fn a_path_that_carries_half_the_stream_gets_what_it_carries_in_time_and_disturbs_nobody() {
    let server = Sluice::start(&[]).await;
    // A frame that has begun is finished: a keyframe takes a tenth of a second of the narrow path, others half of that.
    let media = PublisherOptions { bitrate: 2000, fps: 60, keyframe_factor: 2.5, ..PublisherOptions::default() };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    let near = ViewerOptions::default();
    let bystander = server.post_viewer_with("s", near.clone(), ClientOptions::default()).await.unwrap();
    viewer_sees("its start", &bystander, LONG, |figures| figures.video.delivered > 100).await;
    begin_window(&near.latency);
    viewer_sees("media", &bystander, LONG, |figures| figures.video.delivered > 500).await;
    let before = latency(&near.latency, 0.95);

    let down = LinkOptions { delay: 20.0, rate: 1100.0, queue: 1000.0, ..LinkOptions::default() };
    let options = RelayOptions { target: server.base.clone(), down, ..RelayOptions::default() };
    let relay = Relay::start(options).unwrap();
    let far = browser();
    let viewer = viewer_with(&server, &relay, far.clone()).await;
    let joined = Instant::now();
    eventually("the estimate falls below the stream", LONG, async || {
        estimate(&server).await.filter(|&bitrate| bitrate < 1_500_000.0)
    })
    .await;
    // 50 audio packets a second: five seconds are over, and with them the queue of the beginning.
    viewer_sees("it settles", &viewer, LONG, |figures| figures.audio.delivered > 250).await;
    eventually("five seconds", LONG, async || (joined.elapsed() > Duration::from_secs(5)).then_some(())).await;

    begin_window(&near.latency);
    let (start, asked) = (viewer.figures(), publisher.figures().keyframe_requests);
    // A machine that halts for long makes the estimate too low for some seconds, and a keyframe takes long. A queue that
    // stands in the path would be there in every window.
    let mut windows = Vec::new();
    loop {
        begin_window(&far.latency);
        let before = viewer.figures().audio.delivered;
        viewer_sees("four seconds of audio", &viewer, LONG, |figures| figures.audio.delivered > before + 200).await;
        let (half, worst) = (latency(&far.latency, 0.5), latency(&far.latency, 0.95));
        let found = estimate(&server).await.unwrap_or_default();
        windows.push((half, worst, found));
        // Half of what the path carries is found at the very least.
        if worst < 320.0 && found > 550_000.0 && windows.len() > 1 {
            break;
        }
        assert!(windows.len() < 6, "{windows:?}");
    }
    let (end, requests) = (viewer.figures(), publisher.figures().keyframe_requests - asked);
    let after = latency(&near.latency, 0.95);
    println!("{windows:?}, bystander {before} {after} ms, {requests} requests, {start:?} {end:?}");
    assert_eq!(end.audio.lost, start.audio.lost, "{end:?}");
    // After a keyframe some frames pass; those that wait too long are dropped, and all up to the next one.
    assert!(end.video.keyframes > start.video.keyframes + 1, "{start:?} {end:?}");
    assert!(end.video.delivered > start.video.delivered + 30, "{start:?} {end:?}");
    assert_eq!((end.time_steps_back, end.video.corrupt, end.refused, end.unexpected), (0, 0, 0, 0), "{end:?}");
    assert!(requests <= 2 * windows.len() as u64 + 1, "{requests}");
    assert!(server.metric("sluice_shard_rtp_congested_packets_total", &[]).await > 0.0);
    // Other tests run on the same processors.
    assert!(after < before + 100.0, "{before} {after} ms");
    let figures = bystander.stop().await.unwrap();
    assert!(figures.is_intact() && figures.video.missing == 0, "{figures:?}");
    relay.stop();
}

// RTCP-14
#[tokio::test]
async fn a_path_without_limits_gets_everything_and_is_found_to_carry_more() {
    let server = Sluice::start(&[]).await;
    let media = PublisherOptions {
        video: Some(Codec::H264),
        bitrate: 2500,
        keyframe_factor: 10.0,
        ..PublisherOptions::default()
    };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    let viewer = server.post_viewer_with("s", browser(), ClientOptions::default()).await.unwrap();
    viewer_sees("keyframes", &viewer, LONG, |figures| figures.video.keyframes >= 4).await;
    let bitrate = eventually("more than the stream", LONG, async || {
        estimate(&server).await.filter(|&bitrate| bitrate > 4_500_000.0)
    })
    .await;
    let figures = viewer.stop().await.unwrap();
    println!("{bitrate} {figures:?}");
    assert!(figures.is_intact(), "{figures:?}");
    assert_eq!((figures.total().missing, figures.video.recovered, figures.overflowed), (0, 0, 0), "{figures:?}");
    assert_eq!(server.metric("sluice_shard_rtp_congested_packets_total", &[]).await, 0.0);
    publisher.stop().await.unwrap();
}

/// Viewers of a crowd.
const CROWD: usize = 200;

async fn join_crowd(server: &Sluice) -> Vec<Viewer> {
    let options = ClientOptions { connect_timeout: LONG, ..ClientOptions::default() };
    let identity = Identity::new(&options).unwrap();
    let joins = (0..CROWD).map(|_| {
        let (endpoint, identity, options) = (server.endpoint("whep/s"), identity.clone(), options.clone());
        async move {
            let media = ViewerOptions { audio: false, ..browser() };
            let viewer = Viewer::start(&endpoint, &identity, media, options).await.unwrap();
            viewer.connected().await.unwrap();
            viewer
        }
    });
    joins.collect::<JoinSet<Viewer>>().join_all().await
}

/// Two requests a second at most since `begun`, when there had been so many.
fn assert_few(publisher: &Publisher, begun: Instant, before: u64) -> u64 {
    let requests = publisher.figures().keyframe_requests - before;
    let most = 2.0 * begun.elapsed().as_secs_f64() + 1.0;
    assert!(requests as f64 <= most, "{requests} requests in {:?}", begun.elapsed());
    requests
}

// RTCP-11, RTCP-22
#[tokio::test]
async fn keyframe_requests_of_a_crowd_are_few_at_the_publisher() {
    // The one answers, the other does not, and has no keyframe at all when the crowd comes.
    for imitates in [Imitation::Browser, Imitation::Obs] {
        let server = Sluice::start(&[]).await;
        let media = PublisherOptions {
            video: Some(Codec::H264),
            audio: false,
            bitrate: 250,
            fps: 15,
            gop: Duration::from_secs(4),
            keyframes: imitates == Imitation::Browser,
            imitates,
            ..PublisherOptions::default()
        };
        let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
        eventually("a stream", LONG, async || (publisher.figures().frames > 30).then_some(())).await;

        let (begun, before) = (Instant::now(), publisher.figures().keyframe_requests);
        let viewers = join_crowd(&server).await;
        let took = begun.elapsed();
        let frames = publisher.figures().frames;
        eventually("a second", LONG, async || (publisher.figures().frames > frames + 15).then_some(())).await;
        publisher.allow_keyframes();
        for viewer in &viewers {
            viewer_sees("a video frame", viewer, LONG, |figures| figures.video.keyframes > 0).await;
        }
        let joining = assert_few(&publisher, begun, before);

        // Whoever asks in the first two seconds has probably lost its start, and is given it again.
        for viewer in &viewers {
            viewer_sees("three seconds", viewer, LONG, |figures| figures.video.delivered > 100).await;
        }
        let (begun, before) = (Instant::now(), publisher.figures().keyframe_requests);
        for _ in 0..3 {
            viewers.iter().for_each(Viewer::ask_for_keyframe);
            let frames = publisher.figures().frames;
            eventually("a second", LONG, async || (publisher.figures().frames > frames + 15).then_some(())).await;
        }
        let asking = assert_few(&publisher, begun, before);
        println!("{imitates:?}: joined in {took:?}, {joining} requests; {asking} requests in {:?}", begun.elapsed());
        assert!(asking > 0, "they reach the publisher");
        for figures in viewers.into_iter().map(Viewer::stop).collect::<JoinSet<_>>().join_all().await {
            let figures = figures.unwrap();
            assert_eq!((figures.video.lost, figures.video.corrupt, figures.unexpected), (0, 0, 0), "{figures:?}");
        }
    }
}

/// Waits until a viewer has much media, and of all losses so far no more than this share is left.
async fn sees_little_loss(viewer: &Viewer, share: f64, left: fn(&ViewerFigures) -> u64) -> ViewerFigures {
    viewer_sees("little loss is left", viewer, LONG, |figures| {
        let video = figures.video;
        video.delivered > 4000 && left(figures) as f64 <= share * (video.delivered + video.lost) as f64
    })
    .await;
    viewer.figures()
}

// RTCP-07, RTCP-08, RTCP-09, RTCP-10
#[tokio::test]
async fn retransmissions_leave_next_to_nothing_of_random_loss_on_either_side() {
    let lossy = |loss| LinkOptions { loss, delay: 25.0, ..LinkOptions::default() };
    let (light, heavy) = ((5.0, 0.001), (10.0, 0.005));
    let media = || PublisherOptions { bitrate: 3000, audio: false, ..PublisherOptions::default() };
    let downstream = async |(loss, share): (f64, f64)| {
        let server = Sluice::start(&[]).await;
        let publisher = server.publisher_with("s", media(), ClientOptions::default()).await;
        let relay = relay(&server, lossy(loss));
        let plain = viewer_with(&server, &relay, ViewerOptions::default()).await;
        let browser = viewer_with(&server, &relay, browser()).await;
        let lost = |figures: &ViewerFigures| figures.video.lost;
        let (plain, browser) =
            tokio::join!(sees_little_loss(&plain, share, lost), sees_little_loss(&browser, share, lost));
        let congested = server.metric("sluice_shard_rtp_congested_packets_total", &[]).await;
        for figures in [plain, browser] {
            println!("{loss} % downstream: {figures:?}");
            let video = figures.video;
            assert!(video.recovered as f64 > 0.5 * loss / 100.0 * video.delivered as f64, "{figures:?}");
            assert_eq!((video.corrupt, figures.refused, figures.unexpected), (0, 0, 0), "{figures:?}");
        }
        println!("{loss} %: {congested} congested, estimate {:?}", estimate(&server).await);
        assert_eq!(publisher.stop().await.unwrap().resent, 0, "the cache answers, not the publisher");
        relay.stop();
    };
    let upstream = async |(loss, share): (f64, f64)| {
        let server = Sluice::start(&[]).await;
        let relay = relay(&server, lossy(loss));
        let publisher = publisher_with(&server, &relay, media()).await;
        let near = ViewerOptions { nack: false, ..ViewerOptions::default() };
        let viewer = server.post_viewer_with("s", near, ClientOptions::default()).await.unwrap();
        let figures = sees_little_loss(&viewer, share, |figures| figures.video.missing).await;
        println!("{loss} % upstream: {figures:?}");
        assert_eq!((figures.video.corrupt, figures.refused, figures.unexpected), (0, 0, 0), "{figures:?}");
        assert!(publisher.stop().await.unwrap().resent > 100);
        relay.stop();
    };
    tokio::join!(downstream(light), downstream(heavy), upstream(light), upstream(heavy));
}

// RTP-05, RTP-06
#[tokio::test]
async fn numbers_go_on_over_wraps_and_a_long_pause() {
    let server = Sluice::start(&[]).await;
    // Two seconds before the timestamp wraps at 90 kHz, less than four at 48 kHz; the pause of eight begins before.
    let wraps = [(Some(65_500), None), (None, Some(u32::MAX - 180_000)), (None, None)];
    let run = async |stream: &str, (first_sequence, first_timestamp): (Option<u16>, Option<u32>)| {
        let media = PublisherOptions { first_sequence, first_timestamp, ..PublisherOptions::default() };
        let publisher = server.publisher_with(stream, media, ClientOptions::default()).await;
        let mut viewers = Vec::new();
        for media in [ViewerOptions::default(), browser()] {
            viewers.push(server.post_viewer_with(stream, media, ClientOptions::default()).await.unwrap());
        }
        for viewer in &viewers {
            viewer_sees("media", viewer, LONG, |figures| figures.video.delivered > 100 && figures.audio.delivered > 40)
                .await;
        }
        publisher.pause(true);
        tokio::time::sleep(Duration::from_secs(8)).await;
        let before: Vec<ViewerFigures> = viewers.iter().map(Viewer::figures).collect();
        publisher.pause(false);
        for (viewer, before) in viewers.into_iter().zip(before) {
            viewer_sees("media goes on", &viewer, LONG, |figures| {
                figures.video.delivered > before.video.delivered + 300
                    && figures.audio.delivered > before.audio.delivered + 100
            })
            .await;
            let figures = viewer.stop().await.unwrap();
            println!("{stream}: {figures:?}");
            assert!(figures.is_intact(), "{figures:?}");
            assert_eq!((figures.time_steps_back, figures.sources, figures.total().missing), (0, 2, 0), "{figures:?}");
            assert!(figures.longest_time_step < 1.0, "{figures:?}");
        }
        publisher.stop().await.unwrap();
    };
    tokio::join!(run("sequence", wraps[0]), run("time", wraps[1]), run("neither", wraps[2]));
}
