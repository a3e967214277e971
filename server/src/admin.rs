//! The operator's listener: metrics, health, and the admin API. Who may use it is [`admin_access`]'s.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, Uri, header};
use media_core::MediaCore;
use media_core::SessionId;
use media_core::ledger::Reason;
use media_core::stats::ShardSnapshot;
use serde::{Deserialize, Serialize};
use signaling::{LimitUse, Problem, SessionFilter, SessionState, SessionView, Signaling, Slug};

use crate::admin_access::{self, AdminAccess, Rules};
use crate::follow::{self, Advertised, AdvertisedView};
use crate::metrics::{Metrics, Population};
use crate::paging::{self, Part, bad_request};
use crate::reload::{Refused, Reloader, Report};
use crate::supervise::Health;

/// Shards answer within milliseconds; one that does not for this long is stuck, and a scrape must not hang with it.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Figures of the shards on demand.
pub trait Snapshots: Send + Sync + 'static {
    /// A copy of every shard's figures.
    fn snapshot(&self) -> Pin<Box<dyn Future<Output = Vec<ShardSnapshot>> + Send + '_>>;
}

impl Snapshots for MediaCore {
    fn snapshot(&self) -> Pin<Box<dyn Future<Output = Vec<ShardSnapshot>> + Send + '_>> {
        Box::pin(MediaCore::snapshot(self))
    }
}

/// What the admin API shows and steers.
pub struct Admin {
    signaling: Arc<Signaling>,
    metrics: Arc<Metrics>,
    shards: Box<dyn Snapshots>,
    started: Instant,
    serving: AtomicBool,
    rules: Rules,
    health: Health,
    reloader: Option<Arc<Reloader>>,
    told: Option<Told>,
}

/// Where clients are told to send media.
pub struct Told {
    /// The public addresses.
    pub advertised: Advertised,
    /// Who puts them into answers.
    pub core: MediaCore,
}

impl Admin {
    /// An admin API that is not ready yet. It has no token and knows no names; see [`Admin::set_access`].
    pub fn new(signaling: Arc<Signaling>, metrics: Arc<Metrics>, shards: impl Snapshots) -> Admin {
        let serving = AtomicBool::new(false);
        let rules = Arc::new(RwLock::new(AdminAccess::default()));
        let (shards, started) = (Box::new(shards), Instant::now());
        let health = Health::default();
        Admin { signaling, metrics, shards, started, serving, rules, health, reloader: None, told: None }
    }

    /// From now on these rules say who may use it.
    pub fn set_access(&self, access: AdminAccess) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// The rules of [`Admin::set_access`], for whoever changes them.
    pub(crate) fn rules(&self) -> Rules {
        Arc::clone(&self.rules)
    }

    /// With the supervisor's findings, with what reads the configuration again, and with what clients are told.
    #[must_use]
    pub fn with(self, health: Health, reloader: Arc<Reloader>, told: Told) -> Admin {
        Admin { health, reloader: Some(reloader), told: Some(told), ..self }
    }

    /// From now on `/readyz` says yes, until the registry drains.
    pub fn set_serving(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Snapshots of all shards, also handed to the registry; `None` if they do not answer in time.
    async fn refresh(&self) -> Option<Vec<ShardSnapshot>> {
        let shards = tokio::time::timeout(SNAPSHOT_TIMEOUT, self.shards.snapshot()).await.ok()?;
        self.signaling.registry().record_snapshots(&shards);
        Some(shards)
    }

    fn population(&self) -> Population {
        let registry = self.signaling.registry();
        let (mut sessions, mut failing) = (HashMap::new(), HashMap::new());
        for view in registry.sessions().into_iter().filter(|view| view.state != SessionState::Closed) {
            *sessions.entry((view.role, view.state)).or_insert(0) += 1;
            for (stage, reason) in view.stages.iter().filter_map(|stage| Some((stage.stage, stage.reason?))) {
                *failing.entry((view.role, stage, reason)).or_insert(0) += 1;
            }
        }
        let live_streams = registry.streams().iter().filter(|stream| stream.live).count() as u64;
        let event_streams = registry.event_streams() as u64;
        Population { sessions, failing, live_streams, event_streams }
    }
}

/// `/metrics`, `/healthz`, `/readyz` and `/api/v1`.
pub fn router(admin: Arc<Admin>) -> Router {
    let guard = from_fn_with_state(Arc::clone(&admin.rules), admin_access::guard);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/api/v1/version", get(version))
        .route("/api/v1/limits", get(limits))
        .route("/api/v1/addresses", get(addresses))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/streams", get(streams))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/sessions/{id}", get(session).delete(end_session))
        .route("/api/v1/identities/{*identity}", delete(end_sessions))
        .fallback(async || Problem::new(Slug::NotFound, "no such resource"))
        // The router adds `Allow`.
        .method_not_allowed_fallback(async || {
            Problem::new(Slug::MethodNotAllowed, "the Allow header lists the methods of this resource")
        })
        .layer(guard)
        .layer(from_fn(finish))
        .with_state(admin)
}

/// Completes problems, and adds what every reply carries.
async fn finish(uri: Uri, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    Problem::complete(&mut response, None, uri.path());
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let shards = admin.refresh().await;
    match admin.metrics.render(&admin.population(), shards.as_deref()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            Problem::new(Slug::Internal, "a bug; the log says more").into_response()
        }
    }
}

async fn health(State(admin): State<Arc<Admin>>) -> Result<&'static str, Problem> {
    admin.health.check()?;
    Ok("ok\n")
}

async fn reload(State(admin): State<Arc<Admin>>) -> Result<Json<Report>, Problem> {
    let reloader = admin.reloader.as_ref().ok_or_else(|| Problem::new(Slug::NotFound, "no such resource"))?;
    let report = reloader.reload("the admin API").await;
    report.map(Json).map_err(|Refused(text)| Problem::new(Slug::InvalidConfiguration, text))
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if let Err(problem) = admin.health.check() {
        problem.into_response()
    } else if admin.signaling.registry().is_draining() {
        Problem::retry_later(Slug::Overloaded, "the server is shutting down").into_response()
    } else if !admin.serving.load(Ordering::Relaxed) {
        Problem::retry_later(Slug::Overloaded, "the server is starting").into_response()
    } else {
        let candidates = admin.told.as_ref().map(|told| follow::candidates(&told.core)).unwrap_or_default();
        // Load balancers look at the status, people at what clients are told.
        let lines = candidates
            .into_iter()
            .map(|candidate| format!("candidate {} {}\n", candidate.protocol.as_str(), candidate.address));
        std::iter::once("ready\n".to_owned()).chain(lines).collect::<String>().into_response()
    }
}

/// Where clients are told to send media, and who says so.
async fn addresses(State(admin): State<Arc<Admin>>) -> Result<Json<AdvertisedView>, Problem> {
    let told = admin.told.as_ref().ok_or_else(|| Problem::new(Slug::NotFound, "no such resource"))?;
    Ok(Json(told.advertised.view(&told.core)))
}

/// `/api/v1/version`
#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    uptime_seconds: u64,
}

async fn version(State(admin): State<Arc<Admin>>) -> Json<Version> {
    Json(Version {
        name: "sluice",
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().as_secs(),
    })
}

/// How full the room is by each limit, and how many streams are known by name.
async fn limits(State(admin): State<Arc<Admin>>) -> Json<LimitsView> {
    let known_streams = admin.signaling.registry().known_streams();
    Json(LimitsView { limits: admin.signaling.usage(), known_streams })
}

/// `/api/v1/limits`
#[derive(Serialize)]
struct LimitsView {
    limits: Vec<LimitUse>,
    known_streams: usize,
}

async fn streams(
    State(admin): State<Arc<Admin>>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, Problem> {
    let part = paging::read(part)?;
    let page = admin.signaling.registry().streams_page(part.cursor.as_deref(), part.limit());
    Ok((part.next(page.next, &[]), Json(page.entries)).into_response())
}

/// `?stream=NAME&state=STATE&identity=HOLDER&limit=N&cursor=C`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    stream: Option<String>,
    state: Option<String>,
    identity: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

impl SessionsQuery {
    /// What `state` selects: one state, or `live` for all but `closed`.
    fn filter(&self) -> Result<SessionFilter, Problem> {
        let live = self.state.as_deref() == Some("live");
        let one = self.state.as_deref().filter(|_| !live).map(|name| {
            name.parse::<SessionState>().map_err(|_| {
                let names: Vec<_> = SessionState::ALL.iter().map(|state| state.as_str()).collect();
                bad_request(format!("state: unknown value; allowed: live, {}", names.join(", ")))
            })
        });
        Ok(SessionFilter {
            stream: self.stream.clone(),
            identity: self.identity.clone(),
            state: one.transpose()?,
            live,
        })
    }
}

async fn sessions(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<SessionsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = paging::read(query)?;
    let filter = query.filter()?;
    let part = Part { limit: query.limit, cursor: query.cursor };
    let after = part.cursor.as_deref().map(str::parse).transpose();
    let after =
        after.map_err(|_| bad_request("cursor: none of this list; the Link header of the page before has it"))?;
    admin.refresh().await;
    let page = admin.signaling.registry().sessions_page(&filter, after, part.limit());
    let same = [
        ("stream", query.stream.as_deref()),
        ("state", query.state.as_deref()),
        ("identity", query.identity.as_deref()),
    ];
    Ok((part.next(page.next, &same), Json(page.entries)).into_response())
}

async fn session(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<SessionView>, Problem> {
    let id = id.parse::<SessionId>().map_err(|_| no_such_session())?;
    admin.refresh().await;
    admin.signaling.registry().session(id).map(Json).ok_or_else(no_such_session)
}

async fn end_session(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = id.parse::<SessionId>().map_err(|_| no_such_session())?;
    if !admin.signaling.close(id, Reason::Deleted) {
        return Err(no_such_session());
    }
    tracing::info!(session = %id, "ended by the operator");
    Ok(StatusCode::NO_CONTENT)
}

/// How many sessions were ended.
#[derive(Serialize)]
struct Ended {
    ended: usize,
}

async fn end_sessions(State(admin): State<Arc<Admin>>, Path(identity): Path<String>) -> Json<Ended> {
    let ended = admin.signaling.end_sessions_of(&identity);
    tracing::info!(identity, ended, "the sessions of a holder were ended by the operator");
    Json(Ended { ended })
}

fn no_such_session() -> Problem {
    Problem::new(Slug::NotFound, "no live or recently ended session has this id")
}
