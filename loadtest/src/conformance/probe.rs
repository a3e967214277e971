//! Whom the rows are checked against, and with what.

use std::time::Duration;

use reqwest::redirect::Policy;
use tokio::sync::Mutex;

use super::row::{Level, Miss};
use crate::client::{ClientOptions, Endpoint, Identity, Publisher, PublisherOptions};

/// A reply is waited for so long.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Which side of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// WHIP: the client publishes.
    Publisher,
    /// WHEP: the client watches.
    Viewer,
}

/// How a server is checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// WHIP endpoint of a stream; `{i}` stands for a number, by which each row has a stream of its own.
    pub whip: Option<String>,
    /// WHEP endpoint of the same streams.
    pub whep: Option<String>,
    /// Bearer token for both.
    pub token: Option<String>,
    /// Takes any TLS certificate.
    pub insecure: bool,
    /// Only rows whose id is, or begins with, one of these; all if there is none.
    pub only: Vec<String>,
    /// No rows whose id is, or begins with, one of these.
    pub skip: Vec<String>,
    /// Only rows of this level or a stronger one.
    pub level: Level,
    /// So many rows at a time, if each has a stream of its own.
    pub jobs: usize,
}

impl Default for Options {
    fn default() -> Options {
        let (only, skip) = (Vec::new(), Vec::new());
        Options { whip: None, whep: None, token: None, insecure: false, only, skip, level: Level::May, jobs: 1 }
    }
}

impl Options {
    /// The endpoint of a row's stream.
    pub(super) fn url(&self, role: Role, number: usize) -> Result<String, Miss> {
        let (template, flag) = match role {
            Role::Publisher => (&self.whip, "--whip"),
            Role::Viewer => (&self.whep, "--whep"),
        };
        let template = template.as_deref().ok_or_else(|| Miss::NotApplicable(format!("{flag} is not given")))?;
        Ok(template.replace("{i}", &number.to_string()))
    }

    pub(super) fn wants(&self, id: &str, level: Level) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| id.starts_with(name.as_str()));
        level >= self.level && (self.only.is_empty() || listed(&self.only)) && !listed(&self.skip)
    }

    /// True if every row can have a stream that nobody else uses.
    pub(super) fn has_streams(&self) -> bool {
        [&self.whip, &self.whep].into_iter().flatten().all(|template| template.contains("{i}"))
    }
}

/// A server under examination.
pub(crate) struct Probe {
    pub(super) options: Options,
    pub(super) http: reqwest::Client,
    pub(super) identity: Identity,
    /// What viewers watch.
    standing: Mutex<Option<Publisher>>,
}

impl Probe {
    pub(super) fn new(options: Options) -> Result<Probe, String> {
        let identity = Identity::new(&ClientOptions::default()).map_err(|error| error.to_string())?;
        let http = builder(&options).http1_only().build().map_err(|error| error.to_string())?;
        Ok(Probe { options, http, identity, standing: Mutex::new(None) })
    }

    /// A client that asks for HTTP/2 by ALPN, or uses it in clear text without asking.
    pub(super) fn http2(&self, in_clear_text: bool) -> Result<reqwest::Client, Miss> {
        let builder = builder(&self.options);
        let builder = if in_clear_text { builder.http2_prior_knowledge() } else { builder };
        builder.build().map_err(|error| Miss::Skip(error.to_string()))
    }

    /// The WHEP endpoint of a stream that is being published: by this program if it can, else by whoever does.
    pub(super) async fn watched(&self) -> Result<String, Miss> {
        let watched = self.options.url(Role::Viewer, 0)?;
        let Ok(url) = self.options.url(Role::Publisher, 0) else { return Ok(watched) };
        let mut standing = self.standing.lock().await;
        if standing.as_ref().is_some_and(|publisher| publisher.failure().is_none()) {
            return Ok(watched);
        }
        *standing = Some(self.publish(url).await?);
        Ok(watched)
    }

    /// A connected publisher of Opus and VP8.
    pub(super) async fn publish(&self, url: String) -> Result<Publisher, Miss> {
        let endpoint = Endpoint { http: self.http.clone(), url, token: self.options.token.clone() };
        let media = PublisherOptions { bitrate: 300, gop: Duration::from_secs(1), ..PublisherOptions::default() };
        let skip = |error| Miss::Skip(format!("there is nothing to watch: publishing failed: {error}"));
        let publisher = Publisher::start(&endpoint, &self.identity, media, ClientOptions::default()).await;
        let publisher = publisher.map_err(skip)?;
        publisher.connected().await.map_err(skip)?;
        Ok(publisher)
    }

    /// Ends what viewers watch, so that its stream is free.
    pub(super) async fn free(&self) {
        if let Some(publisher) = self.standing.lock().await.take() {
            // A server that has ended it already is as good.
            let _ = publisher.stop().await;
        }
    }
}

fn builder(options: &Options) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().redirect(Policy::none()).timeout(HTTP_TIMEOUT);
    builder.danger_accept_invalid_certs(options.insecure)
}
