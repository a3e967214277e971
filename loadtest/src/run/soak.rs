//! Soak: viewers and publishers come and go, and then nothing may be left of them.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::pace::Pace;
use super::stage::{SETTLE, Stage};
use crate::client::{ClientError, Publisher};
use crate::fleet::viewer::{FleetViewer, LeftViewer};
use crate::measure::leak::{Footprint, Leaks};
use crate::measure::roster::Group;
use crate::report::outcome::Outcome;

/// Joins, leaves and restarts in progress at one time; a server that is slower is not hurried.
const MAX_IN_PROGRESS: usize = 256;

/// The settings of `Scenario::Soak`.
pub(super) struct Soak {
    pub(super) churn: f64,
    pub(super) restart: Option<Duration>,
    pub(super) settle: Duration,
    pub(super) sessions_url: Option<String>,
}

pub(super) async fn soak(stage: &mut Stage<'_>, soak: Soak) -> Outcome {
    let (pid, sessions_url) = (stage.plan.server_pid, soak.sessions_url.as_deref());
    stage.fleet.figures.tolerates_ends = true;
    // Whatever a server allocates once, for its first clients, is no leak.
    join_all(stage).await;
    stage.measure("warm-up".into(), "warm-up", SETTLE * 2).await;
    stage.leave().await;
    stage.pass("settling", soak.settle).await;
    let before = Footprint::read(pid, sessions_url).await;

    join_all(stage).await;
    stage.monitor.begin("churn");
    let restarts = Churn::new(stage, &soak).run(stage).await;
    stage.phases.extend(stage.monitor.end());
    stage.leave().await;
    stage.pass("settling", soak.settle).await;
    let after = Footprint::read(pid, sessions_url).await;
    let figures = &stage.fleet.figures;
    Outcome::Soak(Leaks {
        before,
        after,
        joins: figures.viewers_connected as u64,
        restarts,
        ended_by_server: figures.ended_by_server,
        refused_in_restarts: figures.refused_in_restarts,
    })
}

async fn join_all(stage: &mut Stage<'_>) {
    stage.publish(&mut Pace::new(None)).await;
    stage.join(stage.plan.viewers, &mut Pace::new(stage.plan.rate), Group::Standing).await;
}

/// Viewers leave and others join, publishers restart, until the plan's duration is over.
struct Churn {
    begun: Instant,
    joins: Pace,
    restart: Option<Duration>,
    next_restart: Option<Instant>,
    /// Viewers that were started.
    viewers: usize,
    /// Publishers that restarted.
    restarts: usize,
    in_progress: JoinSet<Event>,
}

/// What comes to an end in a soak.
enum Event {
    Joined {
        stream: usize,
        changes: u64,
        started: Result<Box<FleetViewer>, ClientError>,
    },
    Left(Result<Box<LeftViewer>, ClientError>),
    Restarted(usize, Result<Box<Publisher>, ClientError>),
    /// The task panicked.
    Lost,
}

impl Churn {
    fn new(stage: &Stage<'_>, soak: &Soak) -> Churn {
        let begun = Instant::now();
        Churn {
            begun,
            joins: Pace::new(Some(soak.churn)),
            restart: soak.restart,
            next_restart: soak.restart.map(|interval| begun + interval),
            viewers: stage.plan.viewers,
            restarts: 0,
            in_progress: JoinSet::new(),
        }
    }

    /// Returns how many publishers restarted.
    async fn run(mut self, stage: &mut Stage<'_>) -> u64 {
        let duration = stage.plan.duration;
        while self.begun.elapsed() < duration && !stage.interrupted {
            stage.show("seconds", self.begun.elapsed().as_secs() as usize, duration.as_secs() as usize);
            let wait = self.joins.next().unwrap_or_default().min(duration.saturating_sub(self.begun.elapsed()));
            stage.sleep(wait).await;
            while let Some(event) = self.in_progress.try_join_next() {
                take(stage, event.unwrap_or(Event::Lost));
            }
            if self.in_progress.len() >= MAX_IN_PROGRESS {
                continue;
            }
            self.replace_viewer(stage);
            self.restart_publisher(stage);
        }
        while let Some(event) = self.in_progress.join_next().await {
            take(stage, event.unwrap_or(Event::Lost));
        }
        self.restarts as u64
    }

    /// The oldest viewer leaves, and another joins.
    fn replace_viewer(&mut self, stage: &mut Stage<'_>) {
        if !stage.fleet.viewers.is_empty() {
            let oldest = stage.fleet.viewers.remove(0);
            let task = stage.fleet.stop_viewer(oldest);
            self.in_progress.spawn(async { Event::Left(task.await.map_err(|_| ClientError::Stopped).map(Box::new)) });
        }
        let streams = stage.plan.publishers.max(1);
        // A stream whose publisher restarts may refuse viewers, and rightly.
        let stream = (0..streams)
            .map(|offset| (self.viewers + offset) % streams)
            .find(|stream| stage.plan.publishers == 0 || stage.fleet.publishers.contains_key(stream));
        if let Some(stream) = stream {
            let task = stage.fleet.start_viewer(self.viewers, stream, Group::Standing);
            let changes = stage.fleet.changes(stream);
            self.in_progress.spawn(async move {
                let started = task.await.unwrap_or(Err(ClientError::Stopped)).map(Box::new);
                Event::Joined { stream, changes, started }
            });
            self.viewers += 1;
        }
    }

    /// Restarts the next publisher if that is due.
    fn restart_publisher(&mut self, stage: &mut Stage<'_>) {
        let (Some(due), Some(interval)) = (self.next_restart, self.restart) else { return };
        if Instant::now() < due {
            return;
        }
        self.next_restart = Some(due + interval);
        let index = self.restarts % stage.plan.publishers.max(1);
        if stage.fleet.publishers.contains_key(&index) {
            let task = stage.fleet.start_publisher(index);
            self.in_progress.spawn(async move {
                let started = task.await.unwrap_or(Err(ClientError::Stopped));
                Event::Restarted(index, started.map(Box::new))
            });
            self.restarts += 1;
        }
    }
}

fn take(stage: &mut Stage<'_>, event: Event) {
    match event {
        Event::Joined { stream, changes, started } => {
            stage.fleet.viewer_started_beside(stream, changes, started.map(|viewer| *viewer));
        }
        Event::Left(left) => stage.fleet.viewer_left(left.map(|left| *left)),
        Event::Restarted(index, started) => {
            stage.fleet.publisher_started(index, started.map(|publisher| *publisher));
        }
        Event::Lost => stage.fleet.figures.errors.push(ClientError::Stopped),
    }
}
