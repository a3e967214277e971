//! Steady run, storm, knee and soak.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::ClientError;
use crate::fleet::{Fleet, Group, Left, Standing};
use crate::garbage::Garbage;
use crate::leak::{Footprint, Leaks};
use crate::monitor::{Monitor, Phase};
use crate::narrow::NarrowPaths;
use crate::report::{KneeFigures, Outcome, Report, StormFigures};
use crate::run::{Campaign, Plan, Progress, RunError, Scenario};

/// Viewers that joined just now get their keyframe and fill their caches before a step of a knee is measured.
const SETTLE: Duration = Duration::from_secs(1);
/// More samples than a plot has room for are of no use.
const SAMPLES: u32 = 600;
const SHORTEST_SAMPLE: Duration = Duration::from_millis(200);
/// A server finds out what narrow paths carry, and the queue that stands in them by then drains.
const FIND: Duration = Duration::from_secs(3);
/// A storm is over so soon that its shortest phase needs a bound.
const SHORTEST_STORM: Duration = Duration::from_secs(1);
/// Joins, leaves and restarts of a soak that may be under way; a server that is slower is not hurried.
const MAX_UNDER_WAY: usize = 256;

impl Campaign {
    /// Carries it out and reports. `progress` is called now and then, `interrupt` ends the test early but in order.
    ///
    /// # Errors
    /// [`RunError`]: only what keeps the test from starting; clients that fail are in the report.
    pub async fn run(
        &self,
        mut progress: impl FnMut(Progress),
        interrupt: impl Future<Output = ()>,
    ) -> Result<Report, RunError> {
        let plan = &self.plan;
        if plan.publishers > 0 && plan.whip.is_none() {
            return Err(RunError::Plan("publishers need a WHIP endpoint"));
        }
        if plan.viewers > 0 && plan.whep.is_none() {
            return Err(RunError::Plan("viewers need a WHEP endpoint"));
        }
        let fleet = Fleet::new(self)?;
        let histograms = fleet.latencies.clone();
        let interval = (plan.duration / SAMPLES).max(SHORTEST_SAMPLE);
        let monitor = Monitor::start(fleet.begun(), plan.server_pid, fleet.roster.clone(), histograms, interval);
        let stage = Stage {
            campaign: self,
            plan,
            fleet,
            monitor,
            phases: Vec::new(),
            progress: &mut progress,
            interrupt: std::pin::pin!(interrupt),
            interrupted: false,
        };
        Ok(stage.play().await)
    }
}

/// A test under way.
struct Stage<'a> {
    campaign: &'a Campaign,
    plan: &'a Plan,
    fleet: Fleet<'a>,
    monitor: Monitor,
    phases: Vec<Phase>,
    progress: &'a mut dyn FnMut(Progress),
    interrupt: Pin<&'a mut (dyn Future<Output = ()> + 'a)>,
    interrupted: bool,
}

impl Stage<'_> {
    async fn play(mut self) -> Report {
        let outcome = match self.campaign.scenario.clone() {
            Scenario::Run { garbage } => self.steady(garbage).await,
            Scenario::Storm { joins, calm, leave } => self.storm(joins, calm, leave).await,
            Scenario::Narrow { narrow, share, loss } => self.narrow(narrow, share, loss).await,
            Scenario::Knee { step, max_viewers, max_loss, max_p99_ms } => {
                self.knee(step, max_viewers, max_loss, max_p99_ms).await
            }
            Scenario::Soak { churn, restart, settle, sessions_url } => {
                self.soak(churn, restart, settle, sessions_url.as_deref()).await
            }
        };
        self.show("leaving", 1, 1);
        self.fleet.leave().await;
        self.fleet.end().await;
        let series = self.monitor.series();
        Report::new(self.campaign, &self.fleet, self.phases, series, outcome)
    }

    fn show(&mut self, what: &'static str, done: usize, all: usize) {
        (self.progress)(Progress { what, done: done as u64, all: all as u64 });
    }

    /// Lets time pass. False if the user does not want to wait any longer.
    async fn pass(&mut self, what: &'static str, duration: Duration) -> bool {
        let begun = Instant::now();
        while !self.interrupted {
            let elapsed = begun.elapsed();
            self.show(what, elapsed.min(duration).as_secs() as usize, duration.as_secs() as usize);
            if elapsed >= duration {
                return true;
            }
            self.sleep((duration - elapsed).min(SHORTEST_SAMPLE)).await;
        }
        false
    }

    async fn sleep(&mut self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = &mut self.interrupt, if !self.interrupted => self.interrupted = true,
        }
    }

    async fn measure(&mut self, name: String, what: &'static str, duration: Duration) -> bool {
        self.monitor.begin(name);
        let passed = self.pass(what, duration).await;
        self.phases.extend(self.monitor.end());
        passed
    }

    async fn publish(&mut self, pace: &mut Pace) {
        for index in 0..self.plan.publishers {
            self.show("publishers", index, self.plan.publishers);
            if !self.paced(pace).await {
                return;
            }
            let started = self.fleet.start_publisher(index).await.unwrap_or(Err(ClientError::Stopped));
            self.fleet.publisher_started(index, started);
        }
    }

    /// Waits for the next join's turn; false if there shall be no more.
    async fn paced(&mut self, pace: &mut Pace) -> bool {
        if let Some(wait) = pace.next() {
            self.sleep(wait).await;
        }
        !self.interrupted
    }

    /// Lets `count` viewers join.
    async fn join(&mut self, count: usize, pace: &mut Pace, group: Group) {
        let (streams, before) = (self.plan.publishers.max(1), self.fleet.viewers.len());
        let mut joining = Vec::new();
        for index in 0..count {
            self.show("joins", index, count);
            if !self.paced(pace).await {
                break;
            }
            joining.push(self.fleet.start_viewer(before + index, (before + index) % streams, group));
        }
        for (index, task) in joining.into_iter().enumerate() {
            let started = task.await.unwrap_or(Err(ClientError::Stopped));
            self.fleet.viewer_started(started);
            self.show("joined", index + 1, count);
        }
    }

    /// Lets `count` viewers join, each until its first packet.
    async fn visits(&mut self, count: usize, pace: &mut Pace) {
        let (streams, before) = (self.plan.publishers.max(1), self.fleet.viewers.len());
        let mut visits = Vec::new();
        for index in 0..count {
            self.show("joins", index, count);
            if !self.paced(pace).await {
                break;
            }
            visits.push(self.fleet.start_visit(before + index, (before + index) % streams));
        }
        for (index, visit) in visits.into_iter().enumerate() {
            let left = visit.await.unwrap_or(Err(ClientError::Stopped));
            self.fleet.visited(left);
            self.show("left", index + 1, count);
        }
    }

    async fn steady(&mut self, garbage: Option<u32>) -> Outcome {
        let mut pace = Pace::new(self.plan.rate);
        self.publish(&mut pace).await;
        self.join(self.plan.viewers, &mut pace, Group::Standing).await;
        self.measure("steady".into(), "seconds", self.plan.duration).await;
        let Some(per_second) = garbage else { return Outcome::Run(None) };
        match Garbage::start(self.fleet.media_addresses(), per_second) {
            Ok(garbage) => {
                self.measure("garbage".into(), "garbage", self.plan.duration).await;
                Outcome::Run(Some(garbage.stop()))
            }
            Err(error) => {
                self.fleet.errors.push(ClientError::Socket(error.to_string()));
                Outcome::Run(None)
            }
        }
    }

    async fn storm(&mut self, joins: usize, calm: Duration, leave: bool) -> Outcome {
        self.publish(&mut Pace::new(None)).await;
        self.join(self.plan.viewers, &mut Pace::new(None), Group::Standing).await;
        self.pass("settling", SETTLE).await;
        self.measure("before the storm".into(), "calm", calm).await;

        self.monitor.begin("storm");
        let (begun, mut pace) = (Instant::now(), Pace::new(self.plan.rate));
        if leave {
            self.visits(joins, &mut pace).await;
        } else {
            self.join(joins, &mut pace, Group::Joining).await;
        }
        let took = begun.elapsed();
        self.pass("storm", SHORTEST_STORM.saturating_sub(took)).await;
        self.phases.extend(self.monitor.end());

        self.measure("after the storm".into(), "calm", calm).await;
        let p99 = |index: usize| Some(self.phases.get(index)?.latency_ms?.p99).filter(|p99| *p99 > 0.0);
        let ratio = |to: usize| Some(p99(1)? / p99(to)?);
        Outcome::Storm(StormFigures {
            joins_wanted: joins,
            joined: self.fleet.viewers_connected.saturating_sub(self.plan.viewers),
            seconds: took.as_secs_f64(),
            joins_per_second: joins as f64 / took.as_secs_f64().max(0.001),
            p99_ratio: ratio(0),
            p99_ratio_after: ratio(2),
            standing_lost: self.phases.iter().map(|phase| phase.lost).sum(),
        })
    }

    async fn narrow(&mut self, narrow: usize, share: f64, loss: f64) -> Outcome {
        let (plan, whep) = (self.plan, self.plan.whep.as_deref().unwrap_or_default());
        self.publish(&mut Pace::new(None)).await;
        self.join(plan.viewers, &mut Pace::new(plan.rate), Group::Standing).await;
        self.pass("settling", SETTLE).await;
        self.measure("without narrow paths".into(), "without", plan.duration).await;

        match NarrowPaths::open(whep, self.campaign.media(0), share, loss) {
            Ok(paths) => self.fleet.narrow_paths = Some(paths),
            Err(error) => self.fleet.errors.push(ClientError::Socket(error.to_string())),
        }
        self.join(narrow, &mut Pace::new(None), Group::Narrow).await;
        self.pass("settling", FIND).await;
        self.measure("beside narrow paths".into(), "with", plan.duration).await;
        self.fleet.leave_of(Group::Narrow).await;
        self.pass("settling", SETTLE).await;
        self.measure("without them again".into(), "without", plan.duration).await;
        let received = self.fleet.narrow_figures;
        Outcome::Narrow(self.fleet.narrow_paths.take().map(|paths| paths.close(narrow, received, &self.phases)))
    }

    async fn knee(&mut self, step: usize, max_viewers: usize, max_loss: f64, max_p99_ms: f64) -> Outcome {
        self.publish(&mut Pace::new(None)).await;
        let mut pace = Pace::new(self.plan.rate);
        let mut more = self.plan.viewers;
        let mut figures = KneeFigures::new(max_loss, max_p99_ms);
        loop {
            self.join(more, &mut pace, Group::Standing).await;
            let viewers = self.fleet.viewers.len();
            let mut good = false;
            // Other work on the machine comes and goes: only two bad measurements in a row are a bad step.
            for _ in 0..2 {
                if !self.pass("settling", SETTLE).await
                    || !self.measure(format!("{viewers} viewers"), "seconds", self.plan.duration).await
                {
                    return Outcome::Knee(Box::new(figures));
                }
                let Some(phase) = self.phases.last() else { return Outcome::Knee(Box::new(figures)) };
                figures.note(phase);
                figures.reason = bad(phase, max_loss, max_p99_ms);
                good = figures.reason.is_none();
                if good {
                    figures.keep(phase);
                    break;
                }
            }
            if !good {
                figures.first_bad = self.phases.last().cloned();
                return Outcome::Knee(Box::new(figures));
            }
            more = step.min(max_viewers.saturating_sub(viewers));
            if more == 0 || !self.fleet.errors.is_empty() {
                return Outcome::Knee(Box::new(figures));
            }
        }
    }

    async fn soak(
        &mut self,
        churn: f64,
        restart: Option<Duration>,
        settle: Duration,
        sessions_url: Option<&str>,
    ) -> Outcome {
        self.fleet.tolerates_ends = true;
        // Whatever a server allocates once, for its first clients, is no leak.
        self.publish(&mut Pace::new(None)).await;
        self.join(self.plan.viewers, &mut Pace::new(self.plan.rate), Group::Standing).await;
        self.measure("warm-up".into(), "warm-up", SETTLE * 2).await;
        self.fleet.leave().await;
        self.fleet.end().await;
        self.pass("settling", settle).await;
        let before = Footprint::read(self.plan.server_pid, sessions_url).await;

        self.publish(&mut Pace::new(None)).await;
        self.join(self.plan.viewers, &mut Pace::new(self.plan.rate), Group::Standing).await;
        self.monitor.begin("churn");
        let restarts = self.churn(churn, restart).await;
        self.phases.extend(self.monitor.end());
        self.show("leaving", 1, 1);
        self.fleet.leave().await;
        self.fleet.end().await;
        self.pass("settling", settle).await;
        let after = Footprint::read(self.plan.server_pid, sessions_url).await;
        let Fleet { viewers_connected, ended_by_server, refused_in_restarts, .. } = self.fleet;
        let joins = viewers_connected as u64;
        Outcome::Soak(Leaks { before, after, joins, restarts, ended_by_server, refused_in_restarts })
    }

    /// Viewers leave and others join, publishers restart, until the plan's duration is over. Returns how many restarted.
    async fn churn(&mut self, churn: f64, restart: Option<Duration>) -> u64 {
        let (begun, streams) = (Instant::now(), self.plan.publishers.max(1));
        let mut under_way = JoinSet::new();
        let mut joins = Pace::new(Some(churn));
        let mut next_restart = restart.map(|interval| begun + interval);
        let (mut count, mut restarts) = (self.plan.viewers, 0_usize);
        while begun.elapsed() < self.plan.duration && !self.interrupted {
            let all = self.plan.duration.as_secs() as usize;
            self.show("seconds", begun.elapsed().as_secs() as usize, all);
            let wait = joins.next().unwrap_or_default().min(self.plan.duration.saturating_sub(begun.elapsed()));
            self.sleep(wait).await;
            while let Some(event) = under_way.try_join_next() {
                self.happened(event.unwrap_or(Event::Lost));
            }
            if under_way.len() >= MAX_UNDER_WAY {
                continue;
            }
            if !self.fleet.viewers.is_empty() {
                let oldest = self.fleet.viewers.remove(0);
                let task = self.fleet.stop_viewer(oldest);
                under_way.spawn(async { Event::Left(task.await.map_err(|_| ClientError::Stopped).map(Box::new)) });
            }
            // A stream whose publisher restarts may refuse viewers, and rightly.
            let stream = (0..streams)
                .map(|offset| (count + offset) % streams)
                .find(|stream| self.plan.publishers == 0 || self.fleet.publishers.contains_key(stream));
            if let Some(stream) = stream {
                let task = self.fleet.start_viewer(count, stream, Group::Standing);
                let changes = self.fleet.changes(stream);
                under_way.spawn(async move {
                    let started = task.await.unwrap_or(Err(ClientError::Stopped));
                    Event::Joined(stream, changes, started.map(Box::new))
                });
                count += 1;
            }
            if let (Some(due), Some(interval)) = (next_restart, restart)
                && Instant::now() >= due
            {
                next_restart = Some(due + interval);
                let index = restarts % streams;
                if self.fleet.publishers.contains_key(&index) {
                    let task = self.fleet.start_publisher(index);
                    under_way.spawn(async move {
                        let started = task.await.unwrap_or(Err(ClientError::Stopped));
                        Event::Restarted(index, started.map(Box::new))
                    });
                    restarts += 1;
                }
            }
        }
        while let Some(event) = under_way.join_next().await {
            self.happened(event.unwrap_or(Event::Lost));
        }
        restarts as u64
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Joined(stream, changes, started) => {
                self.fleet.viewer_started_beside(stream, changes, started.map(|standing| *standing));
            }
            Event::Left(left) => self.fleet.viewer_left(left.map(|left| *left)),
            Event::Restarted(index, started) => {
                self.fleet.publisher_started(index, started.map(|publisher| *publisher));
            }
            Event::Lost => self.fleet.errors.push(ClientError::Stopped),
        }
    }
}

/// What comes to an end in a soak.
enum Event {
    Joined(usize, u64, Result<Box<Standing>, ClientError>),
    Left(Result<Box<Left>, ClientError>),
    Restarted(usize, Result<Box<crate::client::Publisher>, ClientError>),
    Lost,
}

/// Why a step of a knee is bad.
fn bad(phase: &Phase, max_loss: f64, max_p99_ms: f64) -> Option<String> {
    if phase.packets == 0 {
        return Some("nothing was received".into());
    }
    if phase.loss > max_loss {
        return Some(format!("{:.2} % of the packets were lost", phase.loss * 100.0));
    }
    let p99 = phase.latency_ms?.p99;
    (p99 > max_p99_ms).then(|| format!("the latency's p99 was {p99:.1} ms"))
}

/// Spreads joins over time.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Pace {
        let interval =
            rate.filter(|rate| *rate > 0.0).map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Pace { interval, next: Instant::now() }
    }

    /// How long to wait for the next turn, if at all. Turns that were missed are not made up for.
    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let wait = self.next.saturating_duration_since(now);
        self.next = self.next.max(now) + self.interval;
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{GeneratorFigures, Percentiles};

    #[test]
    fn a_step_is_bad_by_loss_or_by_latency() {
        let phase = |packets, loss, p99| Phase {
            name: String::new(),
            from: 0.0,
            seconds: 1.0,
            viewers: 1,
            packets,
            bytes: 1,
            packets_per_second: 1.0,
            lost: 0,
            loss,
            latency_ms: Some(Percentiles { p99, ..Percentiles::default() }),
            server: None,
            generator: GeneratorFigures::default(),
        };
        assert_eq!(bad(&phase(1000, 0.001, 50.0), 0.001, 50.0), None);
        assert!(bad(&phase(1000, 0.002, 1.0), 0.001, 50.0).unwrap().contains("0.20 %"));
        assert!(bad(&phase(1000, 0.0, 50.1), 0.001, 50.0).unwrap().contains("50.1 ms"));
        assert!(bad(&phase(0, 0.0, 0.0), 0.001, 50.0).is_some());
    }

    #[test]
    fn joins_without_a_rate_do_not_wait() {
        let mut pace = Pace::new(None);
        assert!((0..1000).all(|_| pace.next().is_none()));
        let mut pace = Pace::new(Some(10.0));
        assert_eq!(pace.next(), None);
        assert!(pace.next().unwrap() > Duration::from_millis(50));
    }
}
