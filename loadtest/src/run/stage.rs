//! What every scenario does: clients join and leave, time passes, phases are measured.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::pace::Pace;
use crate::client::ClientError;
use crate::fleet::clients::{Fleet, Started};
use crate::measure::figures::Phase;
use crate::measure::monitor::Monitor;
use crate::measure::roster::Group;
use crate::plan::{Campaign, Plan, Progress, RunError};

/// Viewers that joined just now get their keyframe and fill their caches before anything is measured.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// More samples than a plot has room for are of no use.
const SAMPLES: u32 = 600;
const SHORTEST_SAMPLE: Duration = Duration::from_millis(200);

/// A test that runs, and what every scenario does with it.
pub(super) struct Stage<'a> {
    pub(super) campaign: &'a Campaign,
    pub(super) plan: &'a Plan,
    pub(super) fleet: Fleet<'a>,
    pub(super) monitor: Monitor,
    pub(super) phases: Vec<Phase>,
    progress: &'a mut dyn FnMut(Progress),
    interrupt: Pin<&'a mut (dyn Future<Output = ()> + 'a)>,
    pub(super) interrupted: bool,
}

impl<'a> Stage<'a> {
    /// Starts the threads and the monitor, but no client yet.
    pub(super) fn new(
        campaign: &'a Campaign,
        progress: &'a mut dyn FnMut(Progress),
        interrupt: Pin<&'a mut (dyn Future<Output = ()> + 'a)>,
    ) -> Result<Stage<'a>, RunError> {
        let plan = &campaign.plan;
        let fleet = Fleet::new(campaign)?;
        let histograms = fleet.latencies.clone();
        let interval = (plan.duration / SAMPLES).max(SHORTEST_SAMPLE);
        let monitor = Monitor::start(fleet.begun(), plan.server_pid, fleet.roster.clone(), histograms, interval);
        Ok(Stage { campaign, plan, fleet, monitor, phases: Vec::new(), progress, interrupt, interrupted: false })
    }

    /// Lets all clients leave.
    pub(super) async fn leave(&mut self) {
        self.show("leaving", 1, 1);
        self.fleet.leave().await;
        self.fleet.end().await;
    }

    /// Lets all clients leave a test that cannot be carried out.
    pub(super) async fn given_up<T>(mut self, error: RunError) -> Result<T, RunError> {
        self.leave().await;
        Err(error)
    }

    /// Tells the user how far it is.
    pub(super) fn show(&mut self, what: &'static str, done: usize, all: usize) {
        (self.progress)(Progress { what, done: done as u64, all: all as u64 });
    }

    /// Lets time pass. False if the user does not want to wait any longer.
    pub(super) async fn pass(&mut self, what: &'static str, duration: Duration) -> bool {
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

    /// Lets time pass, unless the user interrupts.
    pub(super) async fn sleep(&mut self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = &mut self.interrupt, if !self.interrupted => self.interrupted = true,
        }
    }

    /// Lets time pass as a phase; false if the user does not want to wait any longer.
    pub(super) async fn measure(&mut self, name: String, what: &'static str, duration: Duration) -> bool {
        self.monitor.begin(name);
        let passed = self.pass(what, duration).await;
        self.phases.extend(self.monitor.end());
        passed
    }

    /// Starts the publishers, one after the other.
    pub(super) async fn publish(&mut self, pace: &mut Pace) {
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

    /// Starts `count` viewers at this pace; each with its index and its stream's.
    async fn start_all<T>(
        &mut self,
        count: usize,
        pace: &mut Pace,
        mut start: impl FnMut(&Fleet<'_>, usize, usize) -> Started<T>,
    ) -> Vec<Started<T>> {
        let (streams, before) = (self.plan.publishers.max(1), self.fleet.viewers.len());
        let mut started = Vec::new();
        for index in 0..count {
            self.show("joins", index, count);
            if !self.paced(pace).await {
                break;
            }
            started.push(start(&self.fleet, before + index, (before + index) % streams));
        }
        started
    }

    /// Lets `count` viewers join.
    pub(super) async fn join(&mut self, count: usize, pace: &mut Pace, group: Group) {
        let start = |fleet: &Fleet<'_>, index, stream| fleet.start_viewer(index, stream, group);
        for (index, task) in self.start_all(count, pace, start).await.into_iter().enumerate() {
            let started = task.await.unwrap_or(Err(ClientError::Stopped));
            self.fleet.viewer_started(started);
            self.show("joined", index + 1, count);
        }
    }

    /// Lets `count` viewers of one stream join.
    pub(super) async fn join_stream(&mut self, count: usize, stream: usize, group: Group) {
        let mut pace = Pace::new(self.plan.rate);
        let start = |fleet: &Fleet<'_>, index, _| fleet.start_viewer(index, stream, group);
        for task in self.start_all(count, &mut pace, start).await {
            let started = task.await.unwrap_or(Err(ClientError::Stopped));
            self.fleet.viewer_started(started);
        }
    }

    /// Lets `count` viewers join, each until its first packet.
    pub(super) async fn visits(&mut self, count: usize, pace: &mut Pace) {
        let start = |fleet: &Fleet<'_>, index, stream| fleet.start_visit(index, stream);
        for (index, visit) in self.start_all(count, pace, start).await.into_iter().enumerate() {
            let left = visit.await.unwrap_or(Err(ClientError::Stopped));
            self.fleet.visited(left);
            self.show("left", index + 1, count);
        }
    }
}
