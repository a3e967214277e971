//! All clients of a test: they join, restart and leave here, and their figures are kept when they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle as Thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherFigures, PublisherOptions, PublisherWatch,
    ReceptionThread, SharedHistogram, Viewer, ViewerFigures, ViewerOptions, ViewerWatch, latency_histogram,
};
use crate::narrow::NarrowPaths;
use crate::run::{Campaign, RunError};
use crate::tally::TrackFigures;

/// The nice value of the threads of a storm's joins: handshakes of clients cost as much as those of the server, and must
/// take no time from the server and from those who measure it.
const JOINS_NICENESS: i32 = 19;
/// How often a viewer that is to leave with its first packet looks for it, and how long.
const LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// Threads, each with a runtime of its own: clients of one thread share nothing with those of another.
struct Workers {
    handles: Vec<Handle>,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<Thread<()>>,
}

impl Workers {
    /// By name and nice value.
    fn start(names: impl IntoIterator<Item = (String, i32)>) -> std::io::Result<Workers> {
        let mut workers = Workers { handles: Vec::new(), stops: Vec::new(), threads: Vec::new() };
        for (name, niceness) in names {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel::<()>();
            workers.handles.push(runtime.handle().clone());
            workers.stops.push(stop);
            let thread = std::thread::Builder::new().name(name);
            workers.threads.push(thread.spawn(move || {
                // Of this thread alone. A refusal leaves it as it is.
                let _ = rustix::process::setpriority_process(None, niceness);
                // The sender's end is the signal, whether it sends or is dropped.
                drop(runtime.block_on(stopped));
            })?);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // A panic in a client's task stays in the task.
            let _ = thread.join();
        }
    }
}

/// Which viewers a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Those whose latency and losses count.
    Standing,
    /// Those of a storm, which only join.
    Joining,
    /// Those on narrow paths.
    Narrow,
}

/// Sums over clients that never fall, also when clients leave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) viewers: usize,
    /// All viewers.
    pub(crate) received: TrackFigures,
    /// The standing viewers alone.
    pub(crate) standing: TrackFigures,
    pub(crate) overflowed: u64,
    pub(crate) frames: u64,
    pub(crate) late_frames: u64,
}

impl Totals {
    fn add_viewer(&mut self, group: Group, figures: &ViewerFigures) {
        let total = figures.total();
        self.received.add(&total);
        if group == Group::Standing {
            self.standing.add(&total);
        }
        self.overflowed += figures.overflowed;
    }

    fn add_publisher(&mut self, figures: &PublisherFigures) {
        self.frames += figures.frames;
        self.late_frames += figures.late_frames;
    }
}

/// The clients that run now, for whoever samples their figures.
#[derive(Default)]
pub(crate) struct Roster(Mutex<Rolls>);

#[derive(Default)]
struct Rolls {
    viewers: BTreeMap<u64, (Group, ViewerWatch)>,
    publishers: BTreeMap<usize, PublisherWatch>,
    gone: Totals,
    next: u64,
}

impl Roster {
    fn rolls(&self) -> MutexGuard<'_, Rolls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn totals(&self) -> Totals {
        let rolls = self.rolls();
        let mut totals = rolls.gone;
        totals.viewers = rolls.viewers.len();
        rolls.viewers.values().for_each(|(group, watch)| totals.add_viewer(*group, &watch.figures()));
        rolls.publishers.values().for_each(|watch| totals.add_publisher(&watch.figures()));
        totals
    }

    fn enter_viewer(&self, group: Group, watch: ViewerWatch) -> u64 {
        let mut rolls = self.rolls();
        rolls.next += 1;
        let id = rolls.next;
        rolls.viewers.insert(id, (group, watch));
        id
    }

    fn retire_viewer(&self, id: u64) {
        let mut rolls = self.rolls();
        if let Some((group, watch)) = rolls.viewers.remove(&id) {
            rolls.gone.add_viewer(group, &watch.figures());
        }
    }

    fn retire_publisher(&self, index: usize) {
        let mut rolls = self.rolls();
        if let Some(watch) = rolls.publishers.remove(&index) {
            rolls.gone.add_publisher(&watch.figures());
        }
    }
}

/// How one viewer's join went. Times are ms since its POST.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Join {
    /// When it began, in seconds since the test's begin.
    pub at: f64,
    /// End of the handshake.
    pub connected_ms: Option<f64>,
    /// First RTP packet.
    pub first_rtp_ms: Option<f64>,
    /// First keyframe.
    pub first_keyframe_ms: Option<f64>,
}

/// A running viewer.
pub(crate) struct Standing {
    id: u64,
    begun: Instant,
    group: Group,
    viewer: Viewer,
}

impl Standing {
    /// Waits for the first packet, or until it is clear that none will come.
    async fn first_packet(&self) {
        let (begun, watch) = (Instant::now(), self.viewer.watch());
        while watch.figures().first_rtp.is_none() && self.viewer.failure().is_none() && begun.elapsed() < LONGEST_LOOK {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn leave(self) -> Left {
        let Standing { id, begun, group, viewer } = self;
        let (failure, watch) = (viewer.failure(), viewer.watch());
        let deleted = viewer.stop().await.err();
        // What a viewer saw counts also if its DELETE went wrong.
        Left { standing: (id, begun, group), figures: watch.figures(), failure, deleted }
    }
}

/// What a viewer said when it left.
pub(crate) struct Left {
    pub(crate) standing: (u64, Instant, Group),
    figures: ViewerFigures,
    failure: Option<ClientError>,
    deleted: Option<ClientError>,
}

/// All clients.
pub(crate) struct Fleet<'a> {
    campaign: &'a Campaign,
    http: reqwest::Client,
    identity: Identity,
    workers: Workers,
    /// Those of the standing viewers, then those of the joining ones.
    receptions: Vec<ReceptionThread>,
    begun: Instant,
    pub(crate) roster: Arc<Roster>,
    pub(crate) latencies: Vec<SharedHistogram>,
    elsewhere: SharedHistogram,
    pub(crate) publishers: BTreeMap<usize, Publisher>,
    pub(crate) viewers: Vec<Standing>,
    pub(crate) errors: Vec<ClientError>,
    pub(crate) publisher_figures: Vec<PublisherFigures>,
    pub(crate) viewer_figures: Vec<ViewerFigures>,
    /// Where the viewers on narrow paths go by, while there are such.
    pub(crate) narrow_paths: Option<NarrowPaths>,
    /// What those received who have left.
    pub(crate) narrow_figures: TrackFigures,
    pub(crate) joins: Vec<(Group, Join)>,
    pub(crate) publishers_connected: usize,
    pub(crate) viewers_connected: usize,
    /// Sessions that the server ended.
    pub(crate) ended_by_server: u64,
    pub(crate) tolerates_ends: bool,
    /// How often each publisher was started or came up: if it differs from a join's begin to its end, the stream was away.
    changes: BTreeMap<usize, u64>,
    /// Joins that were refused because of that.
    pub(crate) refused_in_restarts: u64,
}

/// What becomes of a start on a worker.
pub(crate) type Started<T> = JoinHandle<Result<T, ClientError>>;

impl<'a> Fleet<'a> {
    pub(crate) fn new(campaign: &'a Campaign) -> Result<Fleet<'a>, RunError> {
        let plan = &campaign.plan;
        let start = |error: String| RunError::Start(error);
        // Clients are strangers to each other: no connection serves two of them, and none is left when all are gone.
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| start(error.to_string()))?;
        let identity = Identity::new(&plan.client).map_err(|error| start(error.to_string()))?;
        let threads = plan.threads.max(1);
        // Publishers keep their pace on a thread of their own, and joins do not hold up those who measure latency.
        let of = |name: &'static str, niceness| (0..threads).map(move |index| (format!("{name}-{index}"), niceness));
        let storms = campaign.scenario.storms();
        let joins = of("joins", JOINS_NICENESS).filter(|_| storms);
        let names = std::iter::once(("publishers".to_owned(), 0)).chain(of("viewers", 0)).chain(joins);
        let workers = Workers::start(names).map_err(|error| start(error.to_string()))?;
        let receptions = of("receivers", 0).chain(of("joined", JOINS_NICENESS).filter(|_| storms));
        let receptions: std::io::Result<_> =
            receptions.map(|(name, niceness)| ReceptionThread::start(name, niceness)).collect();
        let receptions = receptions.map_err(|error| start(error.to_string()))?;
        Ok(Fleet {
            campaign,
            http,
            identity,
            workers,
            receptions,
            begun: Instant::now(),
            roster: Arc::default(),
            latencies: (0..threads).map(|_| latency_histogram()).collect(),
            elsewhere: latency_histogram(),
            publishers: BTreeMap::new(),
            viewers: Vec::new(),
            errors: Vec::new(),
            publisher_figures: Vec::new(),
            viewer_figures: Vec::new(),
            narrow_paths: None,
            narrow_figures: TrackFigures::default(),
            joins: Vec::new(),
            publishers_connected: 0,
            viewers_connected: 0,
            ended_by_server: 0,
            tolerates_ends: false,
            changes: BTreeMap::new(),
            refused_in_restarts: 0,
        })
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The server's addresses for media, as it named them to the viewers.
    pub(crate) fn media_addresses(&self) -> Vec<SocketAddr> {
        let answers = self.viewers.iter().map(|standing| standing.viewer.answer());
        let addresses: BTreeSet<SocketAddr> =
            answers.flat_map(|answer| answer.candidates.iter().map(|candidate| candidate.address)).collect();
        addresses.into_iter().collect()
    }

    fn endpoint(&self, template: Option<&str>, index: usize) -> Endpoint {
        let url = url(template.unwrap_or_default(), index);
        Endpoint { http: self.http.clone(), url, token: self.campaign.plan.token.clone() }
    }

    /// Starts publisher `index` after its predecessor, if there is one, has left.
    pub(crate) fn start_publisher(&mut self, index: usize) -> Started<Publisher> {
        let endpoint = self.endpoint(self.campaign.plan.whip.as_deref(), index);
        let (identity, client) = (self.identity.clone(), self.campaign.plan.client.clone());
        let media = self.campaign.media(index).clone();
        *self.changes.entry(index).or_default() += 1;
        let before = self.publishers.remove(&index);
        if let Some(before) = &before {
            self.publisher_figures.push(before.figures());
        }
        self.roster.retire_publisher(index);
        self.workers.handles[0].spawn(async move {
            if let Some(before) = before {
                before.stop().await?;
            }
            let publisher = Publisher::start(&endpoint, &identity, media, client).await?;
            publisher.connected().await?;
            Ok(publisher)
        })
    }

    pub(crate) fn publisher_started(&mut self, index: usize, started: Result<Publisher, ClientError>) {
        *self.changes.entry(index).or_default() += 1;
        match started {
            Ok(publisher) => {
                self.publishers_connected += 1;
                self.roster.rolls().publishers.insert(index, publisher.watch());
                self.publishers.insert(index, publisher);
            }
            Err(error) => self.errors.push(error),
        }
    }

    /// Starts viewer `index` of a stream.
    pub(crate) fn start_viewer(&self, index: usize, stream: usize, group: Group) -> Started<Standing> {
        let plan = &self.campaign.plan;
        let mut endpoint = self.endpoint(plan.whep.as_deref(), stream);
        if let Some(paths) = self.narrow_paths.as_ref().filter(|_| group == Group::Narrow) {
            endpoint.url = paths.detour(&endpoint.url);
        }
        let threads = self.latencies.len();
        let place = index % threads;
        let (thread, latency) = match group {
            Group::Standing => (place, &self.latencies[place]),
            Group::Joining => (threads + place, &self.elsewhere),
            Group::Narrow => (place, &self.elsewhere),
        };
        let PublisherOptions { audio, video, .. } = *self.campaign.media(stream);
        // Without feedback a server cannot know that a path is narrow.
        let (latency, transport_cc) = (latency.clone(), plan.transport_cc || group == Group::Narrow);
        let mut media = ViewerOptions { latency, audio, transport_cc, ..ViewerOptions::default() };
        if video.is_none() {
            media.video.clear();
        }
        let reception = Some(self.receptions[thread].handle());
        let mut client = ClientOptions { reception, ..plan.client.clone() };
        if self.campaign.scenario.compares() && group == Group::Standing {
            // A phase is short, and a few viewers' latencies are all there is to judge it by.
            client = ClientOptions { verify: crate::client::Verify::All, ..client };
        }
        let (identity, roster) = (self.identity.clone(), Arc::clone(&self.roster));
        self.workers.handles[1 + thread].spawn(async move {
            let begun = Instant::now();
            let viewer = Viewer::start(&endpoint, &identity, media, client).await?;
            viewer.connected().await?;
            let id = roster.enter_viewer(group, viewer.watch());
            Ok(Standing { id, begun, group, viewer })
        })
    }

    /// Starts a viewer of a storm that leaves with its first packet.
    pub(crate) fn start_visit(&self, index: usize, stream: usize) -> Started<Left> {
        let start = self.start_viewer(index, stream, Group::Joining);
        self.workers.handles[1 + self.latencies.len()].spawn(async move {
            let standing = start.await.unwrap_or(Err(ClientError::Stopped))?;
            standing.first_packet().await;
            Ok(standing.leave().await)
        })
    }

    pub(crate) fn visited(&mut self, left: Result<Left, ClientError>) {
        self.viewers_connected += usize::from(left.is_ok());
        self.viewer_left(left);
    }

    pub(crate) fn viewer_started(&mut self, started: Result<Standing, ClientError>) {
        match started {
            Ok(standing) => {
                self.viewers_connected += usize::from(standing.group != Group::Narrow);
                self.viewers.push(standing);
            }
            Err(error) => self.errors.push(error),
        }
    }

    /// A number that changes with the publisher of a stream.
    pub(crate) fn changes(&self, stream: usize) -> u64 {
        self.changes.get(&stream).copied().unwrap_or_default()
    }

    /// [`Fleet::viewer_started`] while publishers restart: a stream that is away refuses viewers, and rightly.
    pub(crate) fn viewer_started_beside(
        &mut self,
        stream: usize,
        changes: u64,
        started: Result<Standing, ClientError>,
    ) {
        match started {
            Err(ClientError::Refused { .. }) if self.changes(stream) != changes => self.refused_in_restarts += 1,
            started => self.viewer_started(started),
        }
    }

    /// Lets a viewer leave.
    pub(crate) fn stop_viewer(&self, standing: Standing) -> JoinHandle<Left> {
        self.workers.handles[1].spawn(standing.leave())
    }

    pub(crate) fn viewer_left(&mut self, left: Result<Left, ClientError>) {
        let Left { standing: (id, begun, group), figures, failure, deleted } = match left {
            Ok(left) => left,
            Err(error) => return self.errors.push(error),
        };
        self.roster.retire_viewer(id);
        match failure {
            Some(ClientError::ClosedByServer) if self.tolerates_ends => self.ended_by_server += 1,
            failure => self.errors.extend(failure.into_iter().chain(deleted)),
        }
        let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
        let join = Join {
            at: begun.duration_since(self.begun).as_secs_f64(),
            connected_ms: ms(figures.connected),
            first_rtp_ms: ms(figures.first_rtp),
            first_keyframe_ms: ms(figures.first_keyframe),
        };
        self.joins.push((group, join));
        if group == Group::Narrow {
            self.narrow_figures.add(&figures.total());
        } else {
            self.viewer_figures.push(figures);
        }
    }

    /// Lets all viewers leave, and with them their histograms.
    pub(crate) async fn leave(&mut self) {
        let viewers = std::mem::take(&mut self.viewers);
        self.let_go(viewers).await;
    }

    /// Lets the viewers of a group leave.
    pub(crate) async fn leave_of(&mut self, group: Group) {
        let viewers = self.viewers.extract_if(.., |standing| standing.group == group).collect();
        self.let_go(viewers).await;
    }

    async fn let_go(&mut self, viewers: Vec<Standing>) {
        let leaving: Vec<_> = viewers.into_iter().map(|standing| self.stop_viewer(standing)).collect();
        for task in leaving {
            let left = task.await.map_err(|_| ClientError::Stopped);
            self.viewer_left(left);
        }
    }

    /// Lets all publishers leave. Viewers leave first, so that nobody sees the end of a stream as loss.
    pub(crate) async fn end(&mut self) {
        for (index, publisher) in std::mem::take(&mut self.publishers) {
            self.errors.extend(publisher.failure());
            let watch = publisher.watch();
            let stopped = self.workers.handles[0].spawn(publisher.stop()).await.unwrap_or(Err(ClientError::Stopped));
            self.roster.retire_publisher(index);
            self.errors.extend(stopped.err());
            self.publisher_figures.push(watch.figures());
        }
    }
}

fn url(template: &str, index: usize) -> String {
    template.replace("{i}", &index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_many_streams() {
        assert_eq!(url("http://h/whip/s{i}", 3), "http://h/whip/s3");
        assert_eq!(url("http://h/whip/s", 3), "http://h/whip/s");
    }
}
