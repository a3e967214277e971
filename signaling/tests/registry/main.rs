//! Streams and sessions over their lives: what the admin API shows, what metrics are told, what is forgotten when.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;
mod survival;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use media_core::ledger::{Reason, Stage, StageChange, StageEvent, StageState};
use media_core::media::{Role, TrackId};
use media_core::negotiation::FormatInUse;
use media_core::stats::ShardSnapshot;
use media_core::stats::{SessionSnapshot, SessionStats};
use media_core::{CoreEvent, SessionId};
use signaling::{Limits, Observer, Resource, SessionFilter, SessionState, Signaling, SignalingConfig, router};
use support::{App, FakeMediaPlane, golden, now};

async fn publish(app: &App) -> SessionId {
    assert_eq!(app.post("/whip/s", &golden("obs")).await.status, 201);
    app.core.last().id
}

async fn watch(app: &App) -> SessionId {
    assert_eq!(app.post("/whep/s", &golden("chromium-watch")).await.status, 201);
    app.core.last().id
}

fn stage(app: &App, session: SessionId, stage: Stage, change: StageChange, detail: &str) {
    let event = StageEvent { at: now(), stage, change, detail: detail.to_owned() };
    app.signaling.registry().apply(now(), CoreEvent::Stage { session, event });
}

fn end(app: &App, session: SessionId, reason: Reason) {
    let stats = SessionStats { rtp_sent: 9, ..SessionStats::default() };
    app.signaling.registry().apply(now(), CoreEvent::Ended { session, reason, stats });
}

// OPS-02, OPS-04
#[tokio::test]
async fn states_follow_the_ledger_in_their_one_order() {
    let app = App::new(SignalingConfig::default());
    let id = publish(&app).await;
    let state = || app.signaling.registry().session(id).unwrap().state;
    let mut seen = vec![state()];
    for (of, change) in [
        (Stage::Ice, StageChange::Begin),
        (Stage::Ice, StageChange::Done),
        (Stage::Dtls, StageChange::Begin),
        (Stage::Fingerprint, StageChange::Begin),
        (Stage::Fingerprint, StageChange::Done),
        (Stage::Dtls, StageChange::Done),
        (Stage::Srtp, StageChange::Begin),
        (Stage::Srtp, StageChange::Done),
        (Stage::Media, StageChange::Begin),
        (Stage::Media, StageChange::Done),
    ] {
        stage(&app, id, of, change, "");
        seen.push(state());
    }
    app.signaling.close(id, Reason::Shutdown);
    seen.push(state());
    end(&app, id, Reason::Shutdown);
    seen.push(state());
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert_eq!(seen, SessionState::ALL);
    for state in SessionState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}

// OPS-03: the shape that the admin API and the pages read.
#[tokio::test]
async fn a_failed_stage_shows_reason_detail_and_advice() {
    let app = App::new(SignalingConfig::default());
    let id = publish(&app).await;
    stage(&app, id, Stage::Ice, StageChange::Begin, "");
    stage(&app, id, Stage::Ice, StageChange::Failed(Reason::NoValidCheck), "no check on 198.51.100.1:50001 in 40 s");
    end(&app, id, Reason::NoValidCheck);
    let json = serde_json::to_value(app.signaling.registry().session(id).unwrap()).unwrap();
    assert_eq!(json["id"], id.to_string());
    assert_eq!((json["stream"].as_str(), json["role"].as_str()), (Some("s"), Some("publisher")));
    assert_eq!((json["state"].as_str(), json["reason"].as_str()), (Some("closed"), Some("no-valid-check")));
    assert!(json["created"].as_u64() <= json["ended"].as_u64() && json["created"].as_u64() > Some(1_600_000_000_000));
    assert_eq!(json["stats"]["rtp_sent"], 9);
    let stages = json["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["signaling", "ice", "dtls", "fingerprint", "srtp", "media"]);
    assert_eq!(stages[0]["state"], "done");
    assert_eq!((stages[1]["state"].as_str(), stages[1]["reason"].as_str()), (Some("failed"), Some("no-valid-check")));
    assert_eq!(stages[1]["detail"], "no check on 198.51.100.1:50001 in 40 s");
    assert!(stages[1]["advice"].as_str().unwrap().contains("--public-ip"));
    assert!(stages[1]["started_ms"].is_u64() && stages[1]["ended_ms"].is_u64());
    assert_eq!((stages[2]["state"].as_str(), stages[2]["started_ms"].as_u64()), (Some("waiting"), None));
}

// WHEP-13: viewers stay with their stream while its publisher is away.
#[tokio::test]
async fn a_stream_keeps_its_number_and_viewers_over_a_publisher_restart() {
    let app = App::new(SignalingConfig::default());
    let first = publish(&app).await;
    let stream = app.core.last().stream;
    let viewer = watch(&app).await;
    assert_eq!(app.core.last().stream, stream);
    end(&app, first, Reason::PeerClosed);
    let view = app.stream("s").unwrap();
    assert_eq!((view.publisher, view.viewers, view.live), (None, 1, false));
    let second = publish(&app).await;
    assert_eq!(app.core.last().stream, stream);
    assert_eq!(app.stream("s").unwrap().publisher, Some(second));
    // And over a time without any session at all.
    end(&app, viewer, Reason::Deleted);
    end(&app, second, Reason::PeerClosed);
    assert!(app.signaling.registry().streams().is_empty());
    publish(&app).await;
    assert_eq!(app.core.last().stream, stream);
    // Another stream has another number.
    app.post("/whip/t", &golden("obs")).await;
    assert_ne!(app.core.last().stream, stream);
}

#[tokio::test]
async fn a_stream_shows_what_its_publisher_really_sends() {
    let app = App::new(SignalingConfig::default());
    app.post("/whip/s", &golden("chromium-publish")).await;
    let spec = app.core.last();
    let track = || serde_json::to_value(app.stream("s").unwrap()).unwrap()["tracks"][1].clone();
    assert!(track()["codec"].is_null());
    assert_eq!(track()["offered"], serde_json::json!(["VP8", "H264", "AV1", "VP9"]));
    let used = &spec.sections[1].formats[0];
    let event = CoreEvent::FormatInUse {
        session: spec.id,
        track: TrackId::VIDEO,
        in_use: FormatInUse { payload_type: used.payload_type, profile: None },
    };
    app.signaling.registry().apply(now(), event);
    assert_eq!(track()["codec"], used.codec.encoding_name());
    stage(&app, spec.id, Stage::Media, StageChange::Done, "");
    assert!(app.stream("s").unwrap().live);
}

#[tokio::test]
async fn figures_are_those_of_the_last_snapshot_and_then_the_final_ones() {
    let app = App::new(SignalingConfig::default());
    let id = publish(&app).await;
    let snapshot = |rtp_sent| {
        let stats = SessionStats { rtp_sent, ..SessionStats::default() };
        let sessions =
            vec![SessionSnapshot { id, stats }, SessionSnapshot { id: SessionId(1), stats: SessionStats::default() }];
        app.signaling.registry().record_snapshots(&[ShardSnapshot { sessions, ..ShardSnapshot::default() }]);
        app.signaling.registry().session(id).unwrap().stats.rtp_sent
    };
    assert_eq!(snapshot(3), 3);
    end(&app, id, Reason::PeerClosed);
    assert_eq!(snapshot(4), 9);
}

// Low: session lists without pages.
#[tokio::test]
async fn pages_show_each_session_once_while_others_come_and_go() {
    let app = App::new(SignalingConfig::default());
    let registry = app.signaling.registry();
    publish(&app).await;
    for _ in 0..9 {
        watch(&app).await;
    }
    let all: Vec<_> = registry.sessions().iter().map(|view| view.id).collect();
    let filter = SessionFilter::default();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = registry.sessions_page(&filter, after, 3);
        assert!(page.entries.len() <= 3);
        seen.extend(page.entries.iter().map(|view| view.id));
        let Some(next) = page.next else { break };
        after = Some(next.to_string().parse().unwrap());
        if seen.len() == 3 {
            // One that was shown is gone for good, and a new one comes.
            end(&app, seen[1], Reason::PeerClosed);
            watch(&app).await;
        }
    }
    assert_eq!(seen.len(), 11);
    assert_eq!(seen[..10], all);
    let viewers = SessionFilter { stream: Some("s".to_owned()), live: true, ..SessionFilter::default() };
    assert_eq!(registry.sessions_page(&viewers, None, 100).entries.len(), 10, "one has ended");
    assert_eq!(registry.sessions_page(&viewers, None, 10).next, None, "exactly full is the last one");
    let none = SessionFilter { stream: Some("t".to_owned()), ..SessionFilter::default() };
    assert!(registry.sessions_page(&none, None, 10).entries.is_empty());
}

#[tokio::test]
async fn pages_of_streams_go_by_name() {
    let app = App::new(SignalingConfig::default());
    for name in ["c", "a", "e", "b", "d"] {
        assert_eq!(app.post(&format!("/whip/{name}"), &golden("chromium-publish")).await.status, 201);
    }
    let registry = app.signaling.registry();
    let names = |after: Option<&str>| {
        let page = registry.streams_page(after, 2);
        (page.entries.into_iter().map(|view| view.stream).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(names(None), (vec!["a".to_owned(), "b".to_owned()], Some("b".to_owned())));
    assert_eq!(names(Some("bb")), (vec!["c".to_owned(), "d".to_owned()], Some("d".to_owned())));
    assert_eq!(names(Some("d")), (vec!["e".to_owned()], None));
}

// OPS-08
#[tokio::test(start_paused = true)]
async fn ended_sessions_are_kept_for_a_while_and_not_too_many() {
    let app = App::new(SignalingConfig { limits: Limits::NONE, ..SignalingConfig::default() });
    let registry = Arc::clone(app.signaling.registry());
    for _ in 0..1005 {
        let id = publish(&app).await;
        end(&app, id, Reason::PeerClosed);
    }
    publish(&app).await;
    watch(&app).await;
    let live = 2;
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let run = tokio::spawn(Arc::clone(&registry).run(events));
    // The registry's own clock prunes every 5 s.
    for (later, kept) in [(5, 1000), (590, 1000), (10, 0)] {
        tokio::time::sleep(Duration::from_secs(later)).await;
        assert_eq!(registry.sessions().len(), kept + live);
    }
    drop(sender);
    run.await.unwrap();
}

// OPS-08: names that clients make up do not fill the memory.
#[tokio::test(start_paused = true)]
async fn streams_without_sessions_are_remembered_for_a_day() {
    let app = App::new(SignalingConfig::default());
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let run = tokio::spawn(Arc::clone(app.signaling.registry()).run(events));
    let id = publish(&app).await;
    // Names to which nobody connected are forgotten sooner (M4).
    stage(&app, id, Stage::Fingerprint, StageChange::Done, "");
    stage(&app, id, Stage::Srtp, StageChange::Begin, "");
    end(&app, id, Reason::PeerClosed);
    let watch = golden("chromium-watch");
    for (hours, code) in [(23, "stream-not-live"), (2, "not-found")] {
        tokio::time::sleep(Duration::from_secs(hours * 3600)).await;
        assert_eq!(app.post("/whep/s", &watch).await.code(), code);
    }
    drop(sender);
    run.await.unwrap();
}

// §16: nothing leaks.
#[tokio::test]
async fn counts_return_to_nought_after_many_joins_and_leaves() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    for round in 0..200 {
        let id = watch(&app).await;
        if round % 2 == 0 {
            app.signaling.close(id, Reason::Deleted);
        }
        end(&app, id, Reason::Deleted);
        end(&app, id, Reason::Deleted);
    }
    let counts = app.signaling.registry().counts();
    let streams = app.signaling.registry().streams().len();
    assert_eq!((streams, counts.publishers, counts.viewers), (1, 1, 0));
    assert_eq!(app.stream("s").unwrap().viewers, 0);
    assert!(!app.signaling.close(SessionId(1), Reason::Deleted));
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn session_opened(&self, role: Role) {
        self.0.lock().unwrap().push(format!("opened {}", role.as_str()));
    }

    fn stage_ended(&self, role: Role, stage: Stage, state: StageState, reason: Option<Reason>, _: Duration) {
        self.0.lock().unwrap().push(format!("{} {stage} {state:?} {reason:?}", role.as_str()));
    }

    fn stage_healed(&self, role: Role, stage: Stage) {
        self.0.lock().unwrap().push(format!("{} {stage} healed", role.as_str()));
    }

    fn session_ended(&self, role: Role, reason: Reason, _: Duration) {
        self.0.lock().unwrap().push(format!("ended {} {reason}", role.as_str()));
    }

    fn http_response(&self, resource: Resource, method: &'static str, status: u16) {
        self.0.lock().unwrap().push(format!("{method} {} {status}", resource.as_str()));
    }
}

// OPS-05
#[tokio::test]
async fn the_observer_hears_of_everything_once() {
    let notes = Arc::new(Notes::default());
    let core = FakeMediaPlane::default();
    let signaling =
        Arc::new(Signaling::new(SignalingConfig::default(), core.clone(), Arc::clone(&notes) as Arc<dyn Observer>));
    let app = App { core, router: router(Arc::clone(&signaling)), signaling };
    let id = publish(&app).await;
    stage(&app, id, Stage::Ice, StageChange::Begin, "");
    stage(&app, id, Stage::Ice, StageChange::Done, "");
    stage(&app, id, Stage::Ice, StageChange::Done, "");
    stage(&app, id, Stage::Dtls, StageChange::Failed(Reason::DtlsTimeout), "");
    end(&app, id, Reason::DtlsTimeout);
    end(&app, id, Reason::DtlsTimeout);
    app.send("BREW", "/whep/s/x", &[], "").await;
    app.send("GET", "/whep/s/x/y/z", &[], "").await;
    let expected = [
        "publisher signaling Done None",
        "opened publisher",
        "POST whip-endpoint 201",
        "publisher ice Done None",
        "publisher dtls Failed Some(DtlsTimeout)",
        "ended publisher dtls-timeout",
        "other whep-session 404",
        "GET unknown 404",
    ];
    assert_eq!(*notes.0.lock().unwrap(), expected);
}

// F-07
#[tokio::test]
async fn a_stage_that_fails_after_it_was_done_is_counted_logged_and_no_stream_is_live_until_it_heals() {
    let notes = Arc::new(Notes::default());
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let core = FakeMediaPlane::default();
    let signaling =
        Arc::new(Signaling::new(SignalingConfig::default(), core.clone(), Arc::clone(&notes) as Arc<dyn Observer>));
    let app = App { core, router: router(Arc::clone(&signaling)), signaling };
    let id = publish(&app).await;
    notes.0.lock().unwrap().clear();
    for earlier in [Stage::Ice, Stage::Dtls, Stage::Fingerprint, Stage::Srtp] {
        stage(&app, id, earlier, StageChange::Begin, "");
    }
    stage(&app, id, Stage::Fingerprint, StageChange::Done, "");
    let view = || app.signaling.registry().session(id).unwrap();
    let live = || app.signaling.registry().streams()[0].live;
    for (change, detail, is_live) in [
        (StageChange::Done, "first keyframe", true),
        (StageChange::Failed(Reason::MediaStopped), "video stopped", false),
        (StageChange::Progress, "audio, too", false),
        (StageChange::Failed(Reason::MediaDropped), "packets come and are dropped", false),
        (StageChange::Done, "received again", true),
        (StageChange::Reopened, "waiting", false),
        (StageChange::Done, "received again", true),
        // It sends what it ever sent.
        (StageChange::Failed(Reason::MediumMissing), "audio is received, video never was", true),
    ] {
        stage(&app, id, Stage::Media, change, detail);
        assert_eq!((view().stages[5].detail.as_str(), live()), (detail, is_live), "{change:?}");
    }
    assert_eq!(view().stages[5].reopened, 3);
    drop(guard);
    let heard: Vec<String> = notes.0.lock().unwrap().iter().filter(|note| note.contains(" media ")).cloned().collect();
    assert_eq!(
        heard,
        [
            "publisher media Done None",
            "publisher media Failed Some(MediaStopped)",
            "publisher media Failed Some(MediaDropped)",
            "publisher media healed",
            "publisher media healed",
            "publisher media Failed Some(MediumMissing)",
        ]
    );
    let lines = log.0.lock().unwrap();
    let lines: Vec<_> = lines.iter().filter(|line| line.contains("session stage ")).collect();
    let expected = [
        ("WARN message=session stage failed", "reason=\"media-stopped\" detail=\"video stopped\""),
        ("WARN message=session stage failed", "reason=\"media-dropped\" detail=\"packets come and are dropped\""),
        ("INFO message=session stage healed", "detail=\"received again\""),
        ("WARN message=session stage failed", "reason=\"medium-missing\""),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (head, tail)) in lines.iter().zip(expected) {
        assert!(line.starts_with(head) && line.contains(tail), "{line}");
        assert!(line.contains(&format!("session={id} stream=\"s\" role=\"publisher\" stage=\"media\"")), "{line}");
    }
}

/// Collects log events as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut fields = Fields(format!("{} ", event.metadata().level()));
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

// OPS-03, OPS-10: one line at the end, with the reason and without secrets.
#[tokio::test]
async fn a_session_leaves_one_line_in_the_log() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let app = App::new(SignalingConfig::default());
    let reply = app.post("/whip/s", &golden("obs")).await;
    let spec = app.core.last();
    stage(&app, spec.id, Stage::Dtls, StageChange::Failed(Reason::DtlsTimeout), "ClientHello seen, no second flight");
    end(&app, spec.id, Reason::DtlsTimeout);
    end(&app, spec.id, Reason::DtlsTimeout);
    drop(guard);
    let lines = log.0.lock().unwrap();
    let ends: Vec<_> = lines.iter().filter(|line| line.contains("session ended")).collect();
    assert_eq!(ends.len(), 1, "{lines:?}");
    for part in [
        "INFO",
        &format!("session={}", spec.id),
        "stream=s ",
        "role=\"publisher\"",
        "stage=\"dtls\"",
        "reason=\"dtls-timeout\"",
        "detail=\"ClientHello seen, no second flight\"",
        "rtp_sent=9",
    ] {
        assert!(ends[0].contains(part), "{part} in {}", ends[0]);
    }
    let secret = reply.header("location").rsplit('/').next().unwrap().to_owned();
    for secret in [secret, spec.ice.local.pwd, spec.ice.remote.pwd] {
        assert!(!lines.iter().any(|line| line.contains(&secret)));
    }
}

/// A log that takes its time, and says when it is being written.
struct SlowLog(std::sync::mpsc::Sender<()>);

impl tracing::Subscriber for SlowLog {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        // Nobody listens once the other thread has gone on.
        let _ = self.0.send(());
        std::thread::sleep(Duration::from_millis(100));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

// WHIP-32, OPS-08: the POST comes while the old session is half ended.
#[tokio::test]
async fn a_publisher_that_gives_way_while_it_ends_is_counted_out_once() {
    let app = App::new(SignalingConfig::default());
    let first = publish(&app).await;
    let registry = Arc::clone(app.signaling.registry());
    let (writing, written) = std::sync::mpsc::channel();
    let ending = std::thread::spawn(move || {
        tracing::subscriber::with_default(SlowLog(writing), || {
            let (reason, stats) = (Reason::ConsentLost, SessionStats::default());
            registry.apply(now(), CoreEvent::Ended { session: first, reason, stats });
        });
    });
    written.recv().unwrap();
    let second = publish(&app).await;
    ending.join().unwrap();
    let registry = app.signaling.registry();
    assert_eq!(registry.counts().publishers, 1);
    assert_eq!(app.stream("s").unwrap().publisher, Some(second));
    assert_eq!(registry.session(first).unwrap().reason, Some("consent-lost"));
    end(&app, second, Reason::PeerClosed);
    assert_eq!(registry.counts().publishers, 0);
    assert_eq!(publish(&app).await, app.core.last().id, "the stream is free again");
}
