//! One row at work: its requests and what it saw, as evidence, and the sessions that it leaves behind.

use std::cell::RefCell;
use std::time::Duration;

use media_core::IceCredentials;
use media_core::internals::ice::random_credentials;
use media_core::media::Codec;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Url, Version};

use super::description::Description;
use super::probe::{Probe, Role};
use super::reply::Reply;
use super::row::{Miss, demand, fail};
use crate::client::random_u32;
use crate::sdp::{Answer, CONSTRAINED_BASELINE, Imitation, Offer, OfferedSection, Setup, Ssrcs};

/// So often a server may ask to come back later, and so long it is waited for each time.
const RETRIES: usize = 3;
const LONGEST_RETRY: Duration = Duration::from_secs(10);

pub(super) const SDP: &str = "application/sdp";
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// One row at work.
pub(crate) struct Case<'p> {
    pub(super) probe: &'p Probe,
    /// The number of its stream.
    number: usize,
    log: RefCell<Vec<String>>,
    opened: RefCell<Vec<Url>>,
}

/// An offer, and what answers it needs to be known again.
#[derive(Clone)]
pub(super) struct Offered {
    pub(super) sdp: String,
    pub(super) local: IceCredentials,
    /// Audio and video.
    pub(super) ssrcs: [Ssrcs; 2],
}

/// A session that was opened.
pub(super) struct Session {
    pub(super) offered: Offered,
    pub(super) reply: Reply,
    pub(super) url: Url,
    pub(super) etag: Option<String>,
    pub(super) answer: Description,
    /// The same, as a client reads it.
    pub(super) read: Answer,
}

impl<'p> Case<'p> {
    pub(super) fn new(probe: &'p Probe, number: usize) -> Case<'p> {
        Case { probe, number, log: RefCell::default(), opened: RefCell::default() }
    }

    /// Notes what was sent and what came back.
    pub(super) fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    /// All notes.
    pub(super) fn notes(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// Remembers a session that is to be ended with the row.
    pub(super) fn remember(&self, url: Url) {
        self.opened.borrow_mut().push(url);
    }

    /// Ends all sessions of the row.
    pub(super) async fn clean_up(&self) {
        let opened = self.opened.take();
        for url in opened {
            // A server that has forgotten it already is as good.
            let _ = self.authorized(self.probe.http.delete(url)).send().await;
        }
    }

    /// The WHIP or WHEP endpoint for this row; that of WHEP has something to watch.
    pub(super) async fn endpoint(&self, role: Role) -> Result<Url, Miss> {
        let url = match role {
            Role::Publisher => {
                if !self.probe.options.has_streams() {
                    self.probe.free().await;
                }
                self.probe.options.url(Role::Publisher, self.number)?
            }
            Role::Viewer => self.probe.watched().await?,
        };
        parse(&url)
    }

    /// Endpoints for what needs no stream.
    pub(super) fn endpoints(&self) -> Result<Vec<(Role, Url)>, Miss> {
        let known = |role| Some((role, parse(&self.probe.options.url(role, self.number).ok()?)));
        let all = [Role::Publisher, Role::Viewer].into_iter().filter_map(known);
        all.map(|(role, url)| Ok((role, url?))).collect()
    }

    /// The roles that can be tried.
    pub(super) fn roles(&self) -> Vec<Role> {
        let tried = |role: &Role| self.probe.options.url(*role, self.number).is_ok();
        [Role::Publisher, Role::Viewer].into_iter().filter(tried).collect()
    }

    /// The WHEP endpoint of a stream that nobody publishes, and that somebody has published before if this program can.
    pub(super) async fn idle_endpoint(&self) -> Result<Url, Miss> {
        let url = self.probe.options.url(Role::Viewer, self.number)?;
        if !self.probe.options.has_streams() {
            return Err(Miss::NotApplicable("the URL has no {i}, so no stream is known to be idle".into()));
        }
        if self.probe.options.whip.is_some() {
            let session = self.open_plain(Role::Publisher).await?;
            self.end(&session).await?;
        }
        parse(&url)
    }

    /// The WHIP URL of a stream that is this row's alone, and its WHEP endpoint.
    pub(super) fn own_stream(&self) -> Result<(String, Url), Miss> {
        let options = &self.probe.options;
        let (whip, whep) = (options.url(Role::Publisher, self.number)?, options.url(Role::Viewer, self.number)?);
        if !options.has_streams() {
            return Err(Miss::NotApplicable("the URL has no {i}, so the row has no stream of its own".into()));
        }
        Ok((whip, parse(&whep)?))
    }

    /// Opens a session at this endpoint.
    pub(super) async fn open_at(&self, url: &Url, role: Role) -> Result<Session, Miss> {
        let offered = self.offer(role)?;
        let reply = self.send("POST", url, &[("content-type", SDP)], &offered.sdp).await?;
        session(offered, reply)
    }

    pub(super) fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.probe.options.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Makes a request with the token and notes it and its reply.
    pub(super) async fn send(
        &self,
        method: &str,
        url: &Url,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, Miss> {
        self.send_as(true, method, url, headers, body).await
    }

    /// The same, with or without the token.
    pub(super) async fn send_as(
        &self,
        with_token: bool,
        method: &str,
        url: &Url,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, Miss> {
        self.send_by(&self.probe.http, with_token, method, url, headers, body).await
    }

    /// The same over HTTP/2, if the server has it.
    pub(super) async fn send_by_http2(
        &self,
        method: &str,
        url: &Url,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, Miss> {
        let in_clear_text = url.scheme() != "https";
        let http = self.probe.http2(in_clear_text)?;
        if !in_clear_text {
            let reply = self.send_by(&http, true, method, url, headers, body).await?;
            return match reply.version {
                Version::HTTP_2 => Ok(reply),
                _ => Err(Miss::NotApplicable("ALPN chose HTTP/1.1".into())),
            };
        }
        let sent = self.send_by(&http, true, method, url, headers, body).await;
        sent.map_err(|_| Miss::NotApplicable("there is no HTTP/2 in clear text".into()))
    }

    async fn send_by(
        &self,
        http: &reqwest::Client,
        with_token: bool,
        method: &str,
        url: &Url,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, Miss> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| Miss::Skip(error.to_string()))?;
        for attempt in 0.. {
            let mut request = http.request(method.clone(), url.clone());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if with_token {
                request = self.authorized(request);
            }
            if !body.is_empty() {
                request = request.body(body.to_owned());
            }
            let reply = self.receive(&method, url, request).await?;
            let typed = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ");
            self.note(format!("{method} {} [{typed}] {} B → {}", url.path(), body.len(), reply.shown()));
            match reply.code() {
                429 | 503 if attempt < RETRIES => tokio::time::sleep(retry_after(&reply.headers)).await,
                _ => {
                    self.keep(&method, &reply);
                    return Ok(reply);
                }
            }
        }
        fail("the server asks to come back again and again")
    }

    async fn receive(&self, method: &Method, url: &Url, request: RequestBuilder) -> Result<Reply, Miss> {
        let failed = |error: reqwest::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Miss::Fail(format!("{method} {} got no HTTP reply: {error} {cause}", url.path()))
        };
        let response = request.send().await.map_err(failed)?;
        let (status, version) = (response.status(), response.version());
        let (headers, url) = (response.headers().clone(), response.url().clone());
        let body = response.bytes().await.map_err(failed)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Reply { url, status, version, headers, body })
    }

    /// A session that came about is ended with the row, whether it was wanted or not.
    fn keep(&self, method: &Method, reply: &Reply) {
        if *method == Method::POST
            && matches!(reply.code(), 201 | 406)
            && let Some(location) = reply.location()
        {
            self.remember(location);
        }
    }

    /// An offer of Opus and VP8 (of viewers H264, too) as a browser makes it.
    pub(super) fn offer(&self, role: Role) -> Result<Offered, Miss> {
        self.offer_with(role, Setup::ActPass, Imitation::Browser)
    }

    /// The same with another DTLS role, and another client's manners.
    pub(super) fn offer_with(&self, role: Role, setup: Setup, imitates: Imitation) -> Result<Offered, Miss> {
        let random = || random_u32().map_err(|error| Miss::Skip(error.to_string()));
        let pair = || Ok::<_, Miss>(Ssrcs { media: random()?, rtx: random()? });
        let (local, ssrcs) = (random_credentials(), [pair()?, pair()?]);
        let sends = |index: usize| (role == Role::Publisher).then_some(ssrcs[index]);
        let video = match role {
            Role::Publisher => vec![Codec::Vp8],
            Role::Viewer => vec![Codec::Vp8, Codec::H264],
        };
        let sections = [
            OfferedSection { codecs: vec![Codec::Opus], sends: sends(0), rids: Vec::new() },
            OfferedSection { codecs: video, sends: sends(1), rids: Vec::new() },
        ];
        let offer = Offer {
            ice: &local,
            fingerprint: self.probe.identity.fingerprint(),
            setup,
            imitates,
            transport_cc: imitates == Imitation::Browser,
            profiles: &[CONSTRAINED_BASELINE.to_owned()],
            shift: 0,
            sections: &sections,
        };
        let sdp = offer.to_sdp();
        Ok(Offered { sdp, local, ssrcs })
    }

    /// Posts an offer after a change to it.
    pub(super) async fn post(&self, role: Role, change: impl Fn(String) -> String) -> Result<(Offered, Reply), Miss> {
        let mut offered = self.offer(role)?;
        offered.sdp = change(offered.sdp);
        let reply = self.post_offer(role, &offered).await?;
        Ok((offered, reply))
    }

    pub(super) async fn post_offer(&self, role: Role, offered: &Offered) -> Result<Reply, Miss> {
        let url = self.endpoint(role).await?;
        self.send("POST", &url, &[("content-type", SDP)], &offered.sdp).await
    }

    /// Opens a session with an offer after a change to it.
    pub(super) async fn open(&self, role: Role, change: impl Fn(String) -> String) -> Result<Session, Miss> {
        let (offered, reply) = self.post(role, change).await?;
        session(offered, reply)
    }

    /// Opens a session.
    pub(super) async fn open_plain(&self, role: Role) -> Result<Session, Miss> {
        self.open(role, |sdp| sdp).await
    }

    /// Opens a session with this offer.
    pub(super) async fn open_offer(&self, role: Role, offered: Offered) -> Result<Session, Miss> {
        let reply = self.post_offer(role, &offered).await?;
        session(offered, reply)
    }

    /// Ends a session, so that its stream is free.
    pub(super) async fn end(&self, session: &Session) -> Result<Reply, Miss> {
        self.send("DELETE", &session.url, &[], "").await
    }

    /// An offer that the server must refuse; and it must do so by a client error.
    pub(super) async fn refused(
        &self,
        what: &str,
        role: Role,
        change: impl Fn(String) -> String,
    ) -> Result<Reply, Miss> {
        let (_, reply) = self.post(role, change).await?;
        demand(reply.is_client_error(), || format!("{what} was answered with {}", reply.code()))?;
        Ok(reply)
    }

    /// An offer that the server must take. Its session is ended again.
    pub(super) async fn accepted(
        &self,
        what: &str,
        role: Role,
        change: impl Fn(String) -> String,
    ) -> Result<Session, Miss> {
        let session = self.open(role, change).await.map_err(|miss| match miss {
            Miss::Fail(why) => Miss::Fail(format!("{what}: {why}")),
            other => other,
        })?;
        self.end(&session).await?;
        Ok(session)
    }
}

fn session(offered: Offered, reply: Reply) -> Result<Session, Miss> {
    demand(reply.code() == 201, || format!("the offer was answered with {}", reply.shown()))?;
    let url = reply.location().ok_or_else(|| Miss::Fail("the 201 has no usable Location".into()))?;
    let answer = Description::read(&reply.body);
    let read = Answer::parse(&reply.body).map_err(|error| Miss::Fail(error.to_string()))?;
    let etag = reply.header("etag").map(str::to_owned);
    Ok(Session { offered, reply, url, etag, answer, read })
}

fn parse(url: &str) -> Result<Url, Miss> {
    Url::parse(url).map_err(|error| Miss::Skip(format!("{url}: {error}")))
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_RETRY)
}
