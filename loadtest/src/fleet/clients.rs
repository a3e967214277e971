//! All clients of a test: they join, restart and leave here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::media::Codec;
use tokio::task::JoinHandle;

use super::figures::FleetFigures;
use super::links::Links;
use super::narrow::NarrowPaths;
use super::viewer::{FleetViewer, LeftViewer};
use super::workers::Workers;
use crate::client::{
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, ReceptionThread, SharedHistogram,
    Verify, Viewer, ViewerOptions, latency_histogram,
};
use crate::measure::roster::{Group, Roster};
use crate::plan::{Campaign, RunError, Scenario};

/// The nice value of the threads of a storm's joins: handshakes of clients cost as much as those of the server, and must
/// take no time from the server and from those who measure it.
const JOINS_NICENESS: i32 = 19;

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
    pub(crate) viewers: Vec<FleetViewer>,
    pub(crate) figures: FleetFigures,
    /// The paths of the viewers on narrow paths, while there are such.
    pub(crate) narrow_paths: Option<NarrowPaths>,
    /// The links of the viewers of each class, while there are such.
    pub(crate) links: Vec<Links>,
    /// Publishers that are started from now on send this video codec instead.
    pub(crate) returns_with: Option<Codec>,
    /// How often each publisher was started or connected: if that changes between a join's begin and its end, the stream was away.
    changes: BTreeMap<usize, u64>,
}

/// What becomes of a start on a worker.
pub(crate) type Started<T> = JoinHandle<Result<T, ClientError>>;

impl<'a> Fleet<'a> {
    pub(crate) fn new(campaign: &'a Campaign) -> Result<Fleet<'a>, RunError> {
        let plan = &campaign.plan;
        let start = |error: String| RunError::Start(error);
        // Clients are strangers to each other: no connection serves two of them, and none is left when all are gone.
        let http = reqwest::Client::builder()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| start(error.to_string()))?;
        let identity = Identity::new(&plan.client).map_err(|error| start(error.to_string()))?;
        let threads = plan.threads.max(1);
        // Publishers keep their pace on a thread of their own, and joins do not hold up those who measure latency.
        let of = |name: &'static str, niceness| (0..threads).map(move |index| (format!("{name}-{index}"), niceness));
        let has_joins = campaign.scenario.has_joins();
        // Newcomers in an attack tell how it is to join in it, and there are few.
        let niceness = if matches!(campaign.scenario, Scenario::Storm { .. }) { JOINS_NICENESS } else { 0 };
        let joins = of("joins", niceness).filter(|_| has_joins);
        let names = std::iter::once(("publishers".to_owned(), 0)).chain(of("viewers", 0)).chain(joins);
        let workers = Workers::start(names).map_err(|error| start(error.to_string()))?;
        let receptions = of("receivers", 0).chain(of("joined", niceness).filter(|_| has_joins));
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
            figures: FleetFigures::default(),
            narrow_paths: None,
            links: Vec::new(),
            returns_with: None,
            changes: BTreeMap::new(),
        })
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The server's addresses for media, as it named them to the viewers.
    pub(crate) fn media_addresses(&self) -> Vec<SocketAddr> {
        let answers = self.viewers.iter().map(|viewer| viewer.viewer.answer());
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
        let mut media = self.campaign.media(index).clone();
        media.video = media.video.map(|video| self.returns_with.unwrap_or(video));
        *self.changes.entry(index).or_default() += 1;
        let before = self.publishers.remove(&index);
        if let Some(before) = &before {
            self.figures.publishers.push(before.figures());
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
                self.figures.publishers_connected += 1;
                self.roster.enter_publisher(index, publisher.watch());
                self.publishers.insert(index, publisher);
            }
            Err(error) => self.figures.errors.push(error),
        }
    }

    /// Starts viewer `index` of a stream.
    pub(crate) fn start_viewer(&self, index: usize, stream: usize, group: Group) -> Started<FleetViewer> {
        let plan = &self.campaign.plan;
        let mut endpoint = self.endpoint(plan.whep.as_deref(), stream);
        if let Some(paths) = self.narrow_paths.as_ref().filter(|_| group == Group::Narrow) {
            endpoint.url = paths.detour(&endpoint.url);
        }
        let is_linked = matches!(group, Group::Linked(_));
        if let Group::Linked(class) = group
            && let Some(links) = self.links.get(class)
        {
            endpoint.url = links.detour(&endpoint.url);
        }
        let threads = self.latencies.len();
        let place = index % threads;
        let (thread, latency) = match group {
            Group::Standing => (place, &self.latencies[place]),
            Group::Joining => (threads + place, &self.elsewhere),
            Group::Narrow | Group::Linked(_) => (place, &self.elsewhere),
        };
        let published = self.campaign.media(stream);
        let PublisherOptions { audio, video, .. } = *published;
        // Without feedback a server cannot know that a path is narrow.
        let (latency, transport_cc) = (latency.clone(), plan.transport_cc || group == Group::Narrow || is_linked);
        let has_layers = published.has_layers();
        // A server may name its streams in the query, and then the URLs' last segments differ.
        let expected_stream = plan.whip.as_deref().map(|whip| self.endpoint(Some(whip), stream).stream().to_owned());
        let mut media =
            ViewerOptions { latency, audio, transport_cc, has_layers, expected_stream, ..ViewerOptions::default() };
        match video {
            None => media.video.clear(),
            Some(codec) if !media.video.contains(&codec) => media.video.insert(0, codec),
            Some(_) => {}
        }
        let reception = Some(self.receptions[thread].handle());
        let mut client = ClientOptions { reception, ..plan.client.clone() };
        if self.campaign.scenario.compares() && group == Group::Standing || is_linked {
            // A phase is short, and a few viewers' latencies are all there is to judge it by; and which layer a packet is of stands
            // in its payload.
            client = ClientOptions { verify: Verify::All, ..client };
        }
        let (identity, roster) = (self.identity.clone(), Arc::clone(&self.roster));
        self.workers.handles[1 + thread].spawn(async move {
            let begun = Instant::now();
            let viewer = Viewer::start(&endpoint, &identity, media, client).await?;
            viewer.connected().await?;
            let id = roster.enter_viewer(group, viewer.watch());
            Ok(FleetViewer { id, begun, group, viewer })
        })
    }

    /// Starts a viewer of a storm that leaves with its first packet.
    pub(crate) fn start_visit(&self, index: usize, stream: usize) -> Started<LeftViewer> {
        let start = self.start_viewer(index, stream, Group::Joining);
        self.workers.handles[1 + self.latencies.len()].spawn(async move {
            let viewer = start.await.unwrap_or(Err(ClientError::Stopped))?;
            viewer.first_packet().await;
            Ok(viewer.leave().await)
        })
    }

    /// What became of a viewer that joined in an attack: how long it took to its first packet, in ms.
    pub(crate) fn newcomer_left(&mut self, left: Result<LeftViewer, ClientError>) -> Result<f64, String> {
        let left = left.map_err(|error| error.to_string())?;
        self.roster.retire_viewer(left.id);
        self.figures.viewers_connected += 1;
        let first = left.figures.first_rtp.map(|seconds| seconds * 1000.0);
        self.figures.add_viewer(self.begun, left);
        first.ok_or_else(|| "no media".to_owned())
    }

    /// Starts a publisher of a stream of its own, which leaves as soon as it is connected.
    pub(crate) fn start_publisher_visit(&self, url: String) -> Started<()> {
        let endpoint = Endpoint { http: self.http.clone(), url, token: self.campaign.plan.token.clone() };
        let (identity, client) = (self.identity.clone(), self.campaign.plan.client.clone());
        let media = self.campaign.media(0).clone();
        self.workers.handles[1 + self.latencies.len()].spawn(async move {
            let publisher = Publisher::start(&endpoint, &identity, media, client).await?;
            publisher.connected().await?;
            publisher.stop().await.map(drop)
        })
    }

    /// The certificate that all clients share.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Of each client, by a number of its own: packets received so far, 0 of publishers; `None` if its session is over.
    pub(crate) fn alive(&self) -> BTreeMap<u64, Option<u64>> {
        let viewers = self.viewers.iter().map(|FleetViewer { id, viewer, .. }| {
            (*id, viewer.failure().is_none().then(|| viewer.figures().total().delivered))
        });
        let publishers = self
            .publishers
            .iter()
            .map(|(index, publisher)| (u64::MAX - *index as u64, publisher.failure().is_none().then_some(0)));
        viewers.chain(publishers).collect()
    }

    pub(crate) fn visited(&mut self, left: Result<LeftViewer, ClientError>) {
        self.figures.viewers_connected += usize::from(left.is_ok());
        self.viewer_left(left);
    }

    pub(crate) fn viewer_started(&mut self, started: Result<FleetViewer, ClientError>) {
        match started {
            Ok(viewer) => {
                self.figures.viewers_connected += usize::from(viewer.group != Group::Narrow);
                self.viewers.push(viewer);
            }
            Err(error) => self.figures.errors.push(error),
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
        started: Result<FleetViewer, ClientError>,
    ) {
        match started {
            Err(ClientError::Refused { .. }) if self.changes(stream) != changes => {
                self.figures.refused_in_restarts += 1
            }
            started => self.viewer_started(started),
        }
    }

    /// Lets a viewer leave.
    pub(crate) fn stop_viewer(&self, viewer: FleetViewer) -> JoinHandle<LeftViewer> {
        self.workers.handles[1].spawn(viewer.leave())
    }

    /// Lets a viewer vanish without a word.
    pub(crate) fn lose_viewer(&self, viewer: FleetViewer) -> JoinHandle<LeftViewer> {
        self.workers.handles[1].spawn(async { viewer.vanish() })
    }

    pub(crate) fn viewer_left(&mut self, left: Result<LeftViewer, ClientError>) {
        match left {
            Ok(left) => {
                self.roster.retire_viewer(left.id);
                self.figures.add_viewer(self.begun, left);
            }
            Err(error) => self.figures.errors.push(error),
        }
    }

    /// Lets all viewers leave, and with them their histograms.
    pub(crate) async fn leave(&mut self) {
        let viewers = std::mem::take(&mut self.viewers);
        self.stop_viewers(viewers).await;
    }

    /// Lets the viewers of a group leave.
    pub(crate) async fn leave_of(&mut self, group: Group) {
        let viewers = self.viewers.extract_if(.., |viewer| viewer.group == group).collect();
        self.stop_viewers(viewers).await;
    }

    async fn stop_viewers(&mut self, viewers: Vec<FleetViewer>) {
        let leaving: Vec<_> = viewers.into_iter().map(|viewer| self.stop_viewer(viewer)).collect();
        for task in leaving {
            let left = task.await.map_err(|_| ClientError::Stopped);
            self.viewer_left(left);
        }
    }

    /// Lets all publishers leave. Viewers leave first, so that nobody sees the end of a stream as loss.
    pub(crate) async fn end(&mut self) {
        for (index, publisher) in std::mem::take(&mut self.publishers) {
            self.figures.errors.extend(publisher.failure());
            let watch = publisher.watch();
            let stopped = self.workers.handles[0].spawn(publisher.stop()).await.unwrap_or(Err(ClientError::Stopped));
            self.roster.retire_publisher(index);
            self.figures.errors.extend(stopped.err());
            self.figures.publishers.push(watch.figures());
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
