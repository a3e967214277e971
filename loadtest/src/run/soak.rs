//! Soak: viewers and publishers come and go, and then nothing may be left of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::attack::{target, victims};
use super::pace::Pace;
use super::rotation::{Rotation, Scrapes};
use super::stage::{SETTLE, Stage};
use crate::attack::Victim;
use crate::client::{ClientError, Publisher};
use crate::fleet::narrow::NarrowPaths;
use crate::fleet::viewer::{FleetViewer, LeftViewer};
use crate::measure::leak::{Footprint, Leaks, MemoryTrend};
use crate::measure::roster::Group;
use crate::plan::{RunError, SoakOptions};
use crate::report::outcome::Outcome;

/// Joins, leaves and restarts in progress at one time; a server that is slower is not hurried.
const MAX_IN_PROGRESS: usize = 256;

/// The memory at a moment is the mean of so many seconds, or of all attacks' turns, as each of them leaves its own for a while: of as
/// many turns as fit into this part of the time in which it is to be flat. The means of single turns differ by 1.5 %.
const MEMORY_WINDOW: f64 = 60.0;
const WINDOW_SHARE: f64 = 0.2;
/// Attackers know those viewers that were there so long ago.
const VICTIMS_INTERVAL: Duration = Duration::from_secs(1);
/// Of the stream's bit rate an impaired path carries this part, and it loses so many of 100 datagrams.
const IMPAIRED_SHARE: f64 = 0.7;
const IMPAIRED_LOSS: f64 = 2.0;

pub(super) async fn soak(stage: &mut Stage<'_>, options: &SoakOptions) -> Result<Outcome, RunError> {
    let (pid, sessions_url) = (stage.plan.server_pid, options.sessions_url.as_deref());
    let admin = options.attack.as_ref().and_then(|attack| attack.admin.as_deref());
    stage.fleet.figures.tolerates_ends = true;
    // Whatever a server allocates once, for its first clients, is no leak.
    join_all(stage).await;
    let target = match &options.attack {
        Some(attack) => Some(target(stage, attack)?),
        None => None,
    };
    stage.measure("warm-up".into(), "warm-up", SETTLE * 2).await;
    stage.leave().await;
    stage.pass("settling", options.settle).await;
    let before = Footprint::read(pid, sessions_url, admin).await;

    if options.impaired > 0.0 {
        let (whep, media) = (stage.plan.whep.as_deref().unwrap_or_default(), stage.campaign.media(0));
        match NarrowPaths::open(whep, media, IMPAIRED_SHARE, IMPAIRED_LOSS) {
            Ok(paths) => stage.fleet.narrow_paths = Some(paths),
            Err(error) => stage.fleet.figures.errors.push(ClientError::Socket(error.to_string())),
        }
    }
    join_all(stage).await;
    let victims = target.as_ref().map(|target| Arc::clone(&target.victims));
    let rotation = options
        .attack
        .as_ref()
        .zip(target)
        .map(|(attack, target)| Rotation::start(attack.attacks.clone(), attack.each, target));
    let scrapes = admin.map(|admin| Scrapes::start(admin.to_owned(), stage.fleet.begun()));
    let turns = options.attack.as_ref().map_or(0.0, |attack| attack.each.as_secs_f64() * attack.attacks.len() as f64);
    stage.monitor.begin("churn");
    let from = stage.fleet.begun().elapsed().as_secs_f64();
    let churn = Churn::new(stage, options, victims).run(stage).await;
    let until = stage.fleet.begun().elapsed().as_secs_f64();
    stage.phases.extend(stage.monitor.end());
    let attacks = match rotation {
        Some(rotation) => Some(rotation.end().await),
        None => None,
    };
    let scraped = scrapes.map(Scrapes::end);
    let heap = scraped.as_ref().map_or(&[][..], |scraped| &scraped.heap);
    let flat = (from + options.flat_after.as_secs_f64(), until);
    let window = memory_window(turns, flat.1 - flat.0);
    let memory = MemoryTrend::of(&stage.monitor.series(), heap, flat, window);
    stage.leave().await;
    stage.pass("settling", options.settle).await;
    let after = Footprint::read(pid, sessions_url, admin).await;
    let figures = &stage.fleet.figures;
    Ok(Outcome::Soak(Box::new(Leaks {
        before,
        after,
        joins: figures.viewers_connected as u64,
        restarts: churn.restarts as u64,
        vanished: churn.vanished,
        impaired: churn.impaired,
        ended_by_server: figures.ended_by_server,
        refused_in_restarts: figures.refused_in_restarts,
        memory,
        attacks,
        scrapes: scraped.map(|scraped| scraped.figures),
    })))
}

/// Of how many seconds the memory's mean is taken: whole turns of all attacks, of `turn` seconds each.
fn memory_window(turn: f64, time: f64) -> f64 {
    let turn = turn.max(MEMORY_WINDOW);
    turn * (time * WINDOW_SHARE / turn).floor().max(1.0)
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
    /// Of them those that are not there yet.
    joining: usize,
    /// Publishers that restarted.
    restarts: usize,
    /// Shares of those that leave, and of those that join.
    shares: (f64, f64),
    /// Viewers that vanished, and viewers on impaired paths.
    vanished: u64,
    impaired: u64,
    random: SmallRng,
    /// What attackers know of the viewers, and when it was brought up to date.
    victims: Option<Arc<Mutex<Vec<Victim>>>>,
    victims_at: Instant,
    in_progress: JoinSet<Event>,
}

/// What came of the churn.
struct Churned {
    restarts: usize,
    vanished: u64,
    impaired: u64,
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
    fn new(stage: &Stage<'_>, soak: &SoakOptions, victims: Option<Arc<Mutex<Vec<Victim>>>>) -> Churn {
        let begun = Instant::now();
        Churn {
            begun,
            joins: Pace::new(Some(soak.churn)),
            restart: soak.restart,
            next_restart: soak.restart.map(|interval| begun + interval),
            viewers: stage.plan.viewers,
            joining: 0,
            restarts: 0,
            shares: (soak.vanish, soak.impaired),
            vanished: 0,
            impaired: 0,
            random: SmallRng::seed_from_u64(0x736f_616b),
            victims,
            victims_at: begun,
            in_progress: JoinSet::new(),
        }
    }

    async fn run(mut self, stage: &mut Stage<'_>) -> Churned {
        let duration = stage.plan.duration;
        while self.begun.elapsed() < duration && !stage.interrupted {
            stage.show("seconds", self.begun.elapsed().as_secs() as usize, duration.as_secs() as usize);
            let wait = self.joins.next().unwrap_or_default().min(duration.saturating_sub(self.begun.elapsed()));
            stage.sleep(wait).await;
            while let Some(event) = self.in_progress.try_join_next() {
                let event = event.unwrap_or(Event::Lost);
                self.joining -= usize::from(matches!(event, Event::Joined { .. }));
                take(stage, event);
            }
            if self.in_progress.len() >= MAX_IN_PROGRESS {
                continue;
            }
            self.show_victims(stage);
            self.replace_viewer(stage);
            self.restart_publisher(stage);
        }
        while let Some(event) = self.in_progress.join_next().await {
            take(stage, event.unwrap_or(Event::Lost));
        }
        Churned { restarts: self.restarts, vanished: self.vanished, impaired: self.impaired }
    }

    /// Lets attackers know the viewers that are there now.
    fn show_victims(&mut self, stage: &Stage<'_>) {
        if let Some(known) = &self.victims
            && self.victims_at.elapsed() >= VICTIMS_INTERVAL
        {
            self.victims_at = Instant::now();
            // Those who joined last stay for longest.
            let now = victims(stage).into_iter().rev().collect();
            *known.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }

    /// The oldest viewer leaves, and another joins. Nobody leaves where some are missing: their joins were refused, as while a
    /// publisher restarts, or the server ended them.
    fn replace_viewer(&mut self, stage: &mut Stage<'_>) {
        if !stage.fleet.viewers.is_empty() && stage.fleet.viewers.len() + self.joining >= stage.plan.viewers {
            let oldest = stage.fleet.viewers.remove(0);
            let vanishes = self.random.random_bool(self.shares.0);
            self.vanished += u64::from(vanishes);
            let task = if vanishes { stage.fleet.lose_viewer(oldest) } else { stage.fleet.stop_viewer(oldest) };
            self.in_progress.spawn(async { Event::Left(task.await.map_err(|_| ClientError::Stopped).map(Box::new)) });
        }
        let streams = stage.plan.publishers.max(1);
        // A stream whose publisher restarts may refuse viewers, and rightly.
        let stream = (0..streams)
            .map(|offset| (self.viewers + offset) % streams)
            .find(|stream| stage.plan.publishers == 0 || stage.fleet.publishers.contains_key(stream));
        if let Some(stream) = stream {
            let impaired = stage.fleet.narrow_paths.is_some() && self.random.random_bool(self.shares.1);
            self.impaired += u64::from(impaired);
            let group = if impaired { Group::Narrow } else { Group::Standing };
            let task = stage.fleet.start_viewer(self.viewers, stream, group);
            let changes = stage.fleet.changes(stream);
            self.in_progress.spawn(async move {
                let started = task.await.unwrap_or(Err(ClientError::Stopped)).map(Box::new);
                Event::Joined { stream, changes, started }
            });
            self.viewers += 1;
            self.joining += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_mean_of_whole_turns() {
        assert_eq!(memory_window(130.0, 3_000.0), 4.0 * 130.0);
        assert_eq!(memory_window(130.0, 600.0), 130.0, "one at least");
        assert_eq!(memory_window(0.0, 3_000.0), 600.0, "without attacks, whole minutes");
    }
}
