//! The scenario: so many publishers, so many viewers, for so long.

use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::client::{
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, SharedHistogram, Viewer,
    ViewerOptions, latency_histogram,
};
use crate::process::Usage;
use crate::report::{Latency, Report, ServerFigures, Window};
use crate::tally::TrackFigures;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// WHIP endpoint; `{i}` stands for the publisher's number, from 0.
    pub whip: Option<String>,
    /// WHEP endpoint; `{i}` stands for the number of the stream that a viewer watches.
    pub whep: Option<String>,
    /// Bearer token of all requests.
    pub token: Option<String>,
    /// Number of publishers.
    pub publishers: usize,
    /// Number of viewers, dealt out to the streams in turn.
    pub viewers: usize,
    /// From the last join to the first leave.
    pub duration: Duration,
    /// Joins a second; all at once if `None`.
    pub rate: Option<f64>,
    /// What the publishers send.
    pub media: PublisherOptions,
    /// How all clients behave.
    pub client: ClientOptions,
    /// Process of the server, if it runs on this machine.
    pub server_pid: Option<u32>,
    /// Threads of the load test, at least 1.
    pub threads: usize,
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Publishers connect: done, all.
    Publishers(usize, usize),
    /// Viewers join: done, all.
    Viewers(usize, usize),
    /// Media flows: elapsed, all.
    Running(Duration, Duration),
    /// Clients leave.
    Leaving,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan makes no sense.
    #[error("{0}")]
    Plan(&'static str),
    /// The HTTP client, the certificate or a thread could not be had.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Threads, each with a runtime of its own: clients of one thread share nothing with those of another.
struct Workers {
    handles: Vec<Handle>,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(count: usize) -> std::io::Result<Workers> {
        let mut workers = Workers { handles: Vec::new(), stops: Vec::new(), threads: Vec::new() };
        for index in 0..count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel::<()>();
            workers.handles.push(runtime.handle().clone());
            workers.stops.push(stop);
            let thread = std::thread::Builder::new().name(format!("clients-{index}"));
            // The sender's end is the signal, whether it sends or is dropped.
            workers.threads.push(thread.spawn(move || drop(runtime.block_on(stopped)))?);
        }
        Ok(workers)
    }

    fn handle(&self, index: usize) -> &Handle {
        &self.handles[index % self.handles.len()]
    }

    fn stop(self) {
        drop(self.stops);
        for thread in self.threads {
            // A panic in a client's task stays in the task.
            let _ = thread.join();
        }
    }
}

fn url(template: &str, index: usize) -> String {
    template.replace("{i}", &index.to_string())
}

/// Carries out a plan and reports. `progress` is called now and then, `interrupt` ends the run early but in order.
///
/// # Errors
/// [`RunError`]: only what keeps the run from starting; clients that fail are in the report.
pub async fn run(
    plan: &Plan,
    mut progress: impl FnMut(Progress),
    interrupt: impl Future<Output = ()>,
) -> Result<Report, RunError> {
    if plan.publishers > 0 && plan.whip.is_none() {
        return Err(RunError::Plan("publishers need a WHIP endpoint"));
    }
    if plan.viewers > 0 && plan.whep.is_none() {
        return Err(RunError::Plan("viewers need a WHEP endpoint"));
    }
    let start = |error: String| RunError::Start(error);
    // Plain HTTP/1 without a pool that would outlive the servers' idle time-outs.
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|error| start(error.to_string()))?;
    let identity = Identity::new(&plan.client).map_err(|error| start(error.to_string()))?;
    let workers = Workers::start(plan.threads).map_err(|error| start(error.to_string()))?;
    let mut errors: Vec<ClientError> = Vec::new();
    let mut interrupt = std::pin::pin!(interrupt);
    let mut pace = Pace::new(plan.rate);

    let mut publishers = Vec::new();
    for index in 0..plan.publishers {
        progress(Progress::Publishers(index, plan.publishers));
        pace.wait().await;
        let whip = plan.whip.as_deref().unwrap_or_default();
        let endpoint = Endpoint { http: http.clone(), url: url(whip, index), token: plan.token.clone() };
        let (identity, media, client) = (identity.clone(), plan.media.clone(), plan.client.clone());
        let started = workers.handle(index).spawn(async move {
            let publisher = Publisher::start(&endpoint, &identity, media, client).await?;
            publisher.connected().await?;
            Ok(publisher)
        });
        match started.await.unwrap_or(Err(ClientError::Stopped)) {
            Ok(publisher) => publishers.push(publisher),
            Err(error) => errors.push(error),
        }
    }

    let latencies: Vec<SharedHistogram> = workers.handles.iter().map(|_| latency_histogram()).collect();
    let mut joining = Vec::new();
    for index in 0..plan.viewers {
        progress(Progress::Viewers(index, plan.viewers));
        pace.wait().await;
        let whep = plan.whep.as_deref().unwrap_or_default();
        let stream = url(whep, index % plan.publishers.max(1));
        let endpoint = Endpoint { http: http.clone(), url: stream, token: plan.token.clone() };
        let media = ViewerOptions {
            latency: latencies[index % latencies.len()].clone(),
            audio: plan.media.audio,
            verify: crate::client::Verify::Sample(16),
            ..ViewerOptions::default()
        };
        let (identity, client) = (identity.clone(), plan.client.clone());
        let video = plan.media.video.is_some();
        joining.push(workers.handle(index).spawn(async move {
            let media = if video { media } else { ViewerOptions { video: Vec::new(), ..media } };
            let viewer = Viewer::start(&endpoint, &identity, media, client).await?;
            viewer.connected().await?;
            Ok(viewer)
        }));
    }
    let mut viewers = Vec::new();
    for task in joining {
        match task.await.unwrap_or(Err(ClientError::Stopped)) {
            Ok(viewer) => viewers.push(viewer),
            Err(error) => errors.push(error),
        }
        progress(Progress::Viewers(viewers.len(), plan.viewers));
    }

    let received = |viewers: &[Viewer]| {
        let mut all = TrackFigures::default();
        viewers.iter().for_each(|viewer| all.add(&viewer.figures().total()));
        all
    };
    let measured = Instant::now();
    let before = (plan.server_pid.and_then(Usage::of), received(&viewers));
    loop {
        let elapsed = measured.elapsed();
        progress(Progress::Running(elapsed.min(plan.duration), plan.duration));
        if elapsed >= plan.duration {
            break;
        }
        let step = (plan.duration - elapsed).min(Duration::from_millis(200));
        tokio::select! {
            () = tokio::time::sleep(step) => {}
            () = &mut interrupt => break,
        }
    }
    let elapsed = measured.elapsed();
    let after = (plan.server_pid.and_then(Usage::of), received(&viewers));
    let window =
        Window { elapsed, packets: after.1.delivered - before.1.delivered, bytes: after.1.bytes - before.1.bytes };
    let server = before.0.zip(after.0).map(|(from, to)| ServerFigures::new(from, to, window));

    progress(Progress::Leaving);
    // Viewers leave first, so that nobody sees the end of a stream as loss.
    let mut viewer_figures = Vec::new();
    let leaving: Vec<_> = viewers
        .into_iter()
        .enumerate()
        .map(|(index, viewer)| {
            let broken = viewer.failure();
            errors.extend(broken);
            let seen = viewer.figures();
            (seen, workers.handle(index).spawn(viewer.stop()))
        })
        .collect();
    for (seen, task) in leaving {
        // What a viewer saw counts also if its DELETE went wrong.
        match task.await.unwrap_or(Err(ClientError::Stopped)) {
            Ok(figures) => viewer_figures.push(figures),
            Err(error) => {
                errors.push(error);
                viewer_figures.push(seen);
            }
        }
    }
    let mut publisher_figures = Vec::new();
    for (index, publisher) in publishers.into_iter().enumerate() {
        errors.extend(publisher.failure());
        let sent = publisher.figures();
        match workers.handle(index).spawn(publisher.stop()).await.unwrap_or(Err(ClientError::Stopped)) {
            Ok(figures) => publisher_figures.push(figures),
            Err(error) => {
                errors.push(error);
                publisher_figures.push(sent);
            }
        }
    }
    workers.stop();

    let mut latency = Latency::default();
    for histogram in &latencies {
        latency.add(&histogram.lock().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(Report::new(plan, window, &publisher_figures, &viewer_figures, &latency, server, &errors))
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

    async fn wait(&mut self) {
        tokio::time::sleep_until(self.next.into()).await;
        self.next = self.next.max(Instant::now()) + self.interval;
    }
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
