//! What others do while they are told of something must not cost the registry anything.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use media_core::CoreEvent;
use media_core::ledger::{Reason, Stage, StageChange, StageEvent, WarningCode};
use media_core::media::{MediaKind, Role};
use media_core::stats::SessionStats;
use signaling::{Observer, Registry, Signaling, SignalingConfig};
use tokio::sync::mpsc::unbounded_channel;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{App, FakeMediaPlane, now};
use crate::{end, publish, stage, watch};

/// No entry is held that anybody could want: another thread reads them all meanwhile.
fn is_free(registry: &Arc<Registry>) -> bool {
    let (registry, (read, has_read)) = (Arc::clone(registry), mpsc::channel());
    std::thread::spawn(move || {
        let _ = (registry.sessions(), registry.streams());
        let _ = read.send(());
    });
    has_read.recv_timeout(Duration::from_secs(5)).is_ok()
}

/// A log, or an observer, that looks at the registry whenever it is told something.
#[derive(Clone, Default)]
struct Onlooker {
    registry: Arc<OnceLock<Arc<Registry>>>,
    told: Arc<AtomicUsize>,
    found_it_held: Arc<AtomicBool>,
}

impl Onlooker {
    fn look(&self) {
        if let Some(registry) = self.registry.get() {
            self.told.fetch_add(1, Ordering::Relaxed);
            if !is_free(registry) {
                self.found_it_held.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Subscriber for Onlooker {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("signaling")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.look();
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Observer for Onlooker {
    fn warned(&self, _: Role, _: WarningCode) {
        self.look();
    }
    fn session_ended(&self, _: Role, _: Reason, _: Duration) {
        self.look();
    }
    fn session_opened(&self, _: Role) {
        self.look();
    }
}

// C1
#[tokio::test]
async fn nothing_is_logged_or_told_while_an_entry_is_held() {
    let (log, observer) = (Onlooker::default(), Onlooker::default());
    let core = FakeMediaPlane::default();
    let signaling = Arc::new(Signaling::new(SignalingConfig::default(), core.clone(), Arc::new(observer.clone())));
    let app = App::of(core, signaling);
    for onlooker in [&log, &observer] {
        onlooker.registry.set(Arc::clone(app.signaling.registry())).ok();
    }
    let _logs = tracing::subscriber::set_default(log.clone());
    let publisher = publish(&app).await;
    let viewer = watch(&app).await;
    stage(&app, publisher, Stage::Media, StageChange::Failed(Reason::MediaStopped), "");
    stage(&app, publisher, Stage::Media, StageChange::Done, "");
    let warning = (WarningCode::TrackMissing, Some(MediaKind::Audio));
    stage(&app, viewer, Stage::Media, StageChange::Warned(warning), "no audio");
    end(&app, viewer, Reason::Deleted);
    end(&app, publisher, Reason::Deleted);
    assert!(log.told.load(Ordering::Relaxed) >= 5 && observer.told.load(Ordering::Relaxed) >= 5);
    assert!(!log.found_it_held.load(Ordering::Relaxed) && !observer.found_it_held.load(Ordering::Relaxed));
}

/// Panics whenever a session ends or is warned of.
struct Faulty;

impl Observer for Faulty {
    fn session_ended(&self, _: Role, _: Reason, _: Duration) {
        panic!("injected");
    }
    fn warned(&self, _: Role, _: WarningCode) {
        panic!("injected");
    }
}

// C1, C2
#[tokio::test]
async fn an_event_that_panics_costs_neither_the_others_nor_its_stream() {
    let core = FakeMediaPlane::default();
    let signaling = Arc::new(Signaling::new(SignalingConfig::default(), core.clone(), Arc::new(Faulty)));
    let app = App::of(core, signaling);
    let registry = app.signaling.registry();
    let (events, received) = unbounded_channel();
    let running = tokio::spawn(Arc::clone(registry).run(received));
    let first = publish(&app).await;
    let event = StageEvent {
        at: now(),
        stage: Stage::Media,
        change: StageChange::Warned((WarningCode::TrackMissing, None)),
        detail: String::new(),
    };
    events.send(CoreEvent::Stage { session: first, event }).unwrap();
    let ended = |session| CoreEvent::Ended { session, reason: Reason::PeerClosed, stats: SessionStats::default() };
    events.send(ended(first)).unwrap();
    while registry.session(first).unwrap().ended.is_none() || registry.pulse().panics() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Its stream is free at once, and the next one's end is seen.
    let second = publish(&app).await;
    events.send(ended(second)).unwrap();
    drop(events);
    running.await.unwrap();
    assert!(registry.session(second).unwrap().ended.is_some());
    assert_eq!((registry.pulse().panics(), registry.counts().publishers), (3, 0));
}

// C2
#[tokio::test(start_paused = true)]
async fn the_registry_beats_ten_times_a_second_whether_or_not_it_has_work() {
    let registry = Arc::new(Registry::new(Arc::new(crate::support::NoObserver)));
    let (events, received) = unbounded_channel();
    let running = tokio::spawn(Arc::clone(&registry).run(received));
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(registry.pulse().beats(), 11);
    drop(events);
    running.await.unwrap();
}
