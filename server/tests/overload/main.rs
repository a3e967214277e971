//! A real shard that is overloaded: what it drops, what it does not let wait, and how it recovers. A binary of its
//! own: it takes a processor away, which no other test is to feel.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadtest::client::{
    ClientOptions, Identity, Publisher, PublisherOptions, ReceptionThread, SharedHistogram, Verify, Viewer,
    ViewerFigures, ViewerOptions, latency_histogram,
};
use loadtest::tally::TrackFigures;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{LONG, Sluice, eventually, viewer_sees};
use tokio::task::JoinSet;

/// All viewers together get some 65,000 packets a second: even at the 1.5 us that a packet of a large batch costs, that is a
/// tenth of a processor.
const VIEWERS: usize = 100;
const KBIT: u32 = 5000;
/// Of the viewers, those of whom every packet is looked at.
const WITNESSES: usize = 8;
/// So many threads more share the shard's processor with it as long as it keeps up …
const BURNERS: usize = 6;
/// … this long.
const KEEPS_UP: Duration = Duration::from_millis(1500);
/// Beside so many it would have less than a hundredth of the processor.
const MOST_BURNERS: usize = 96;
/// What is asked of a server that has far too much to do is done by then.
const BOUND: Duration = Duration::from_secs(8);
/// A cache of 8 MiB for each track and what a hundred viewers may have waiting; without bounds it were 25 MB a second.
const GROWTH_KIB: f64 = 48.0 * 1024.0;

/// One of the processors that this test may use, the last. There must be another one for the clients.
fn last_processor() -> (usize, CpuSet) {
    let all = sched_getaffinity(None).expect("this test must see on which processors it may run");
    assert!(all.count() > 1, "this test takes a processor away and needs another one: there is one only");
    ((0..CpuSet::MAX_CPU).rev().find(|&cpu| all.is_set(cpu)).unwrap(), all)
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

/// Lets the shard's thread run there and nowhere else.
fn pin_shard(server: &Sluice, to: &CpuSet) {
    let mut threads = server.process().tasks().unwrap().map(Result::unwrap);
    let shard =
        threads.find(|thread| thread.stat().is_ok_and(|stat| stat.comm == "shard-0")).expect("a shard's thread");
    sched_setaffinity(Pid::from_raw(shard.tid), to)
        .expect("this test must be allowed to pin the server to a processor");
}

/// Threads that use up a processor, until they are dropped.
#[derive(Default)]
struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    fn add(&mut self, count: usize, cpu: usize) {
        let (tell, told) = mpsc::channel();
        for _ in 0..count {
            let (stop, tell) = (Arc::clone(&self.stop), tell.clone());
            self.threads.push(std::thread::spawn(move || {
                tell.send(sched_setaffinity(None, &only(cpu))).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }));
            told.recv().unwrap().expect("this test must be allowed to pin a thread to a processor");
        }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that failed has said so.
            let _ = thread.join();
        }
    }
}

fn resident_kib(server: &Sluice) -> f64 {
    server.process().status().unwrap().vmrss.unwrap() as f64
}

async fn dropped(server: &Sluice) -> f64 {
    server.metric("sluice_shard_rtp_shed_packets_total", &[]).await
}

async fn keyframe_requests(server: &Sluice) -> f64 {
    server.metric("sluice_shard_keyframe_requests_received_total", &[]).await
}

async fn join(server: &Sluice, count: usize, media: &ViewerOptions, client: &ClientOptions) -> Vec<Viewer> {
    let identity = Identity::new(client).unwrap();
    let joins = (0..count).map(|_| {
        let (endpoint, identity) = (server.endpoint("whep/s"), identity.clone());
        let (media, client) = (media.clone(), client.clone());
        async move {
            let viewer = Viewer::start(&endpoint, &identity, media, client).await.unwrap();
            viewer.connected().await.unwrap();
            viewer
        }
    });
    joins.collect::<JoinSet<Viewer>>().join_all().await
}

/// So many frames of video and audio are published, 80 a second.
async fn published(publisher: &Publisher, frames: u64) {
    let before = publisher.figures().frames;
    let enough = async || (publisher.figures().frames >= before + frames).then_some(());
    eventually("media is published", LONG, enough).await;
}

/// The median of the latencies from now on, in ms, over a second of media.
async fn latency(publisher: &Publisher, histogram: &SharedHistogram) -> f64 {
    histogram.lock().unwrap().reset();
    published(publisher, 80).await;
    histogram.lock().unwrap().value_at_quantile(0.5) as f64 / 1e3
}

fn figures(viewers: &[Viewer]) -> Vec<ViewerFigures> {
    viewers.iter().map(Viewer::figures).collect()
}

/// Adds threads to the shard's processor until the shard drops packets; returns them and how many packets it has dropped.
async fn overload(server: &Sluice, cpu: usize) -> (Burners, f64) {
    let before = dropped(server).await;
    pin_shard(server, &only(cpu));
    let mut burners = Burners::default();
    let begun = Instant::now();
    let mut added = None;
    let now = eventually("packets are dropped", LONG, async || {
        if added.is_none_or(|added: Instant| added.elapsed() > KEEPS_UP) && burners.threads.len() < MOST_BURNERS {
            burners.add(BURNERS, cpu);
            added = Some(Instant::now());
        }
        let now = dropped(server).await;
        (now > before + 5_000.0).then_some(now)
    })
    .await;
    let (took, beside) = (begun.elapsed(), burners.threads.len());
    println!("after {took:?}, beside {beside} threads, {} packets are dropped", now - before);
    (burners, now)
}

/// HTTP, checks and a handshake.
async fn newcomers_are_served(server: &Sluice, client: &ClientOptions) {
    for _ in 0..3 {
        let asked = Instant::now();
        let _ = server.get("/api/v1/streams").await;
        let answered = asked.elapsed();
        let newcomer = join(server, 1, &ViewerOptions::default(), client).await.remove(0);
        let connected = newcomer.figures().connected.unwrap();
        newcomer.stop().await.unwrap();
        println!("HTTP {answered:?}, connected after {connected} s, all in {:?}", asked.elapsed());
        assert!(asked.elapsed() < BOUND, "{:?}", asked.elapsed());
    }
}

/// RTCP in both directions.
async fn rtcp_goes_on(server: &Sluice, requester: &Viewer, witnesses: &[Viewer], requests_before: f64) {
    let reports: Vec<u64> = witnesses.iter().map(|viewer| viewer.figures().sender_reports).collect();
    requester.ask_for_keyframe();
    let requested = Instant::now();
    let arrived = async || (keyframe_requests(server).await > requests_before).then_some(());
    eventually("a viewer's keyframe request arrives", BOUND, arrived).await;
    println!("a keyframe request arrived after {:?}", requested.elapsed());
    for (viewer, reports) in witnesses.iter().zip(reports) {
        viewer_sees("sender reports", viewer, BOUND, |figures| figures.sender_reports > reports + 2).await;
    }
}

/// Waits until nothing is dropped any more; returns how many packets were.
async fn recovered(server: &Sluice, publisher: &Publisher) -> f64 {
    let mut last = dropped(server).await;
    eventually("nothing is dropped any more", LONG, async || {
        published(publisher, 80).await;
        let before = std::mem::replace(&mut last, dropped(server).await);
        (before == last).then_some(())
    })
    .await;
    last
}

/// Looks at one witness: its figures before the overload, during it, after it, and at the end.
fn judge([before, busy, resumed, end]: [&ViewerFigures; 4], refused_by_socket: f64) {
    let (video, audio) = (busy.video.missing - before.video.missing, busy.audio.missing - before.audio.missing);
    let delivered = |now: TrackFigures, before: TrackFigures| (now.delivered - before.delivered) as f64;
    let share = |missing: u64, delivered: f64| missing as f64 / (missing as f64 + delivered);
    let (audio_packets, video_packets) = (delivered(busy.audio, before.audio), delivered(busy.video, before.video));
    let (audio, video) = (share(audio, audio_packets), share(video, video_packets));
    println!("missing of the audio {audio:.3}, of the video {video:.3}");
    assert!(
        video_packets > 0.0 && video > 0.02 && audio < video / 2.0,
        "{audio} of the audio, {video} of the video: {busy:?}"
    );
    // Sequence numbers go on where something was dropped: there are no gaps but those of full sockets.
    assert!(end.total().lost as f64 <= end.overflowed as f64 + refused_by_socket, "{end:?}");
    assert_eq!((end.total().corrupt, end.total().duplicated, end.refused, end.unexpected), (0, 0, 0, 0), "{end:?}");
    assert_eq!((end.time_steps_back, end.sources), (0, 2), "{end:?}");
    let held_back = |figures: &ViewerFigures| figures.video.missing - figures.video.lost;
    assert_eq!(held_back(end), held_back(resumed), "it keeps up: {end:?}");
}

// Checks, RTCP and HTTP do not wait; video is dropped in whole frames, audio hardly; nothing of it shows as loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_shard_drops_frames_answers_everybody_and_recovers() {
    let (cpu, all) = last_processor();
    let server = Sluice::start(&[]).await;
    let media = PublisherOptions { bitrate: KBIT, ..PublisherOptions::default() };
    let publisher = server.publisher_with("s", media, ClientOptions::default()).await;
    let receiver = ReceptionThread::start("receivers".into(), 0).unwrap();
    let client =
        ClientOptions { reception: Some(receiver.handle()), connect_timeout: LONG, ..ClientOptions::default() };
    // They ask for nothing again: what they miss is what the server did not send.
    let seen = ViewerOptions { nack: false, latency: latency_histogram(), ..ViewerOptions::default() };
    let crowd = ViewerOptions { nack: false, ..ViewerOptions::default() };
    let sampled = ClientOptions { verify: Verify::Sample(64), ..client.clone() };
    let crowd = join(&server, VIEWERS - WITNESSES, &crowd, &sampled).await;
    // The first of a fan-out pass may get everything while the last go short: these are the last.
    let witnesses = join(&server, WITNESSES, &seen, &client).await;
    for viewer in witnesses.iter().chain(&crowd) {
        viewer_sees("a keyframe", viewer, LONG, |figures| figures.video.keyframes > 0).await;
    }
    let quiet = latency(&publisher, &seen.latency).await;
    let resident = resident_kib(&server);
    let (before, requests) = (figures(&witnesses), keyframe_requests(&server).await);

    let begun = Instant::now();
    let (burners, gone) = overload(&server, cpu).await;
    newcomers_are_served(&server, &client).await;
    rtcp_goes_on(&server, &crowd[0], &witnesses, requests).await;
    eventually("dropping goes on", LONG, async || (dropped(&server).await > gone + 20_000.0).then_some(())).await;
    let grown = resident_kib(&server) - resident;
    println!("resident {resident} KiB and {grown} KiB more; busy for {:?}", begun.elapsed());
    assert!(grown < GROWTH_KIB, "{resident} KiB and {grown} KiB more");
    let busy = figures(&witnesses);

    drop(burners);
    pin_shard(&server, &all);
    let freed = Instant::now();
    let last = recovered(&server, &publisher).await;
    let after = latency(&publisher, &seen.latency).await;
    println!("recovered within {:?}: latency {quiet} ms before, {after} ms after", freed.elapsed());
    assert!(after < (10.0 * quiet).max(100.0), "{quiet} ms before, {after} ms after");
    let resumed = figures(&witnesses);
    for (viewer, resumed) in witnesses.iter().zip(&resumed) {
        viewer_sees("a keyframe", viewer, LONG, |now| now.video.keyframes > resumed.video.keyframes).await;
        viewer_sees("video frames", viewer, LONG, |now| now.video.delivered > resumed.video.delivered + 500).await;
    }
    assert_eq!(dropped(&server).await, last, "it keeps up");

    assert!(crowd.iter().all(|viewer| viewer.failure().is_none()));
    let refused_by_socket = server.metric("sluice_shard_send_dropped_datagrams_total", &[]).await;
    for (((viewer, before), busy), resumed) in witnesses.into_iter().zip(&before).zip(&busy).zip(&resumed) {
        let end = viewer.stop().await.unwrap();
        judge([before, busy, resumed, &end], refused_by_socket);
    }
    let said = |entry: &serde_json::Value| entry["message"].as_str().is_some_and(|text| text.contains("keep up"));
    assert!(server.log().iter().any(said), "the log tells");
}
