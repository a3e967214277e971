//! The server from start to end: sockets, core, signalling, listeners, drain.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use media_core::{MediaCore, Protocol, StartError};
use signaling::{Counts, Signaling};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::admin::{self, Admin, Told};
use crate::config::Settings;
use crate::config::addresses::System;
use crate::config::http_values::AdminListen;
use crate::config::resolve::Resolved;
use crate::connections::{ConnectionLimits, Connections, Listener};
use crate::descriptors;
use crate::follow::Advertised;
use crate::listener::Service;
use crate::metrics::Metrics;
use crate::reload::{self, Addresses, Reloader};
use crate::service_manager::ServiceManager;
use crate::socket::{Socket, UnixSocket};
use crate::supervise::{self, Health, Means, Part, Supervisor};
use crate::telemetry::Telemetry;
use crate::tls::redirect::{self, Target};
use crate::tls::{Tls, TlsError, acme};
use crate::{certificate, follow, listener, pages};

/// From one return of free memory to the next.
const MEMORY_INTERVAL: Duration = Duration::from_secs(20);
/// Sessions get this long to receive close_notify; with [`HTTP_STOP_TIME`] a stop takes at most 5 s (OPS-06).
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// A viewer that was asked to open another session keeps this one for so long (EXT-08).
const RECONNECT_TIME: Duration = Duration::from_secs(10);

/// How often the sessions that are left are counted while they may end by themselves.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// TCP connections of media may take one part of so many of the files that the process can open.
const MEDIA_PART: usize = 4;

/// HTTP requests in progress get this long to end.
const HTTP_STOP_TIME: Duration = Duration::from_secs(1);

/// Why the server could not start. The text names the setting to change.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An HTTP listener.
    #[error("cannot listen on {key} {address}: {source}\n  choose another address with {flag}")]
    Http {
        /// The setting.
        key: &'static str,
        /// Its flag.
        flag: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The media core.
    #[error("{0}\n  the media sockets follow --media-ip, --media-port, --shards and --ice-tcp")]
    MediaSocket(StartError),
    /// The media core, otherwise.
    #[error(transparent)]
    Core(StartError),
    /// Signals of the operating system.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// The supervisor's thread.
    #[error("cannot start the supervisor: {0}")]
    Supervisor(std::io::Error),
    /// HTTPS.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// SIGTERM and SIGINT, which stop the server, and SIGHUP, which does not.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Signals, RunError> {
        let open = |kind| signal(kind).map_err(RunError::Signals);
        let (terminate, interrupt) = (open(SignalKind::terminate())?, open(SignalKind::interrupt())?);
        Ok(Signals { terminate, interrupt, hangup: open(SignalKind::hangup())? })
    }

    /// Waits for a signal to stop; calls `hang_up` at each SIGHUP until then.
    async fn stop_or(&mut self, mut hang_up: impl FnMut()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => hang_up(),
            }
        }
    }
}

/// A server that serves.
struct Running {
    core: MediaCore,
    signaling: Arc<Signaling>,
    metrics: Arc<Metrics>,
    registry: JoinHandle<()>,
    reloader: Arc<Reloader>,
    service_manager: Arc<ServiceManager>,
    supervisor: Supervisor,
    /// Tasks that end with the service.
    background: Vec<JoinHandle<()>>,
    servers: Vec<JoinHandle<()>>,
    stop_http: watch::Sender<bool>,
}

/// Runs the server until SIGTERM or SIGINT, then drains it. A second signal ends it at once.
///
/// # Errors
///
/// [`RunError`] if it cannot start.
pub async fn run(settings: &Settings, resolved: Resolved, telemetry: Telemetry) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let running = start(settings, resolved, telemetry).await?;
    let reloader = Arc::clone(&running.reloader);
    let name = signals.stop_or(|| reload_by_signal(&reloader)).await;
    tokio::select! {
        () = running.stop(name) => tracing::info!("stopped"),
        name = signals.stop_or(|| tracing::info!("no reload: the server stops")) => {
            tracing::warn!(signal = name, "stopped before all sessions were closed");
        }
    }
    Ok(())
}

async fn start(settings: &Settings, resolved: Resolved, telemetry: Telemetry) -> Result<Running, RunError> {
    let service_manager = Arc::new(ServiceManager::of_environment());
    let sockets = HttpSockets::open(settings).await?;
    let (public_address, operator_address) = (sockets.public_address, sockets.operator_address.clone());

    let advertised = Advertised::new(resolved.reading.clone());
    let addresses = watch::Sender::new((resolved.addresses, resolved.reading));
    let mut of_core = resolved.core;
    of_core.ice_tcp_elsewhere = settings.ice_tcp_on_http.then(|| public_port(settings, public_address));
    // The rest is for HTTP, and for what is opened now and then.
    of_core.tcp_connections = of_core.tcp_connections.min(descriptors::free() / MEDIA_PART).max(1);
    let media_files = of_core.tcp_connections;
    let (core, events) = MediaCore::start(of_core).map_err(|error| match error {
        StartError::Listen { .. } => RunError::MediaSocket(error),
        other => RunError::Core(other),
    })?;
    let metrics = Arc::new(Metrics::new()?);
    metrics.follow_log(telemetry.clone());
    let tls = Tls::new(Arc::clone(&metrics));
    tls.set(resolved.tls)?;
    let signaling = Arc::new(Signaling::new(resolved.signaling, core.clone(), Arc::<Metrics>::clone(&metrics)));
    let registry = tokio::spawn(Arc::clone(signaling.registry()).run(events));
    let mut background = follow_the_world(&core, &metrics, addresses.subscribe(), advertised.clone());
    background.push(tokio::spawn(Arc::clone(&signaling).follow_access()));
    background.push(tokio::spawn(return_memory()));
    let (again, read_again) = watch::channel(());
    background.push(tokio::spawn(acme::keep(Arc::clone(&tls), read_again, Arc::clone(&metrics))));

    let admin = Admin::new(Arc::clone(&signaling), Arc::clone(&metrics), core.clone());
    admin.set_access(resolved.admin_access);
    let parts = reload::Parts {
        signaling: Arc::clone(&signaling),
        core: core.clone(),
        addresses,
        advertised: advertised.clone(),
        admin_rules: admin.rules(),
        tls: Arc::clone(&tls),
        again,
        telemetry: telemetry.clone(),
        metrics: Arc::clone(&metrics),
        service_manager: Arc::clone(&service_manager),
    };
    let reloader = Arc::new(Reloader::new(settings.clone(), parts));
    let health = Health::default();
    let told = Told { advertised: advertised.clone(), core: core.clone() };
    let admin = Arc::new(admin.with(health.clone(), Arc::clone(&reloader), told));
    let (stop_http, stopped) = watch::channel(false);
    // All sockets of media and signals are open now: what is left is for connections.
    let limits = resolved.connections.within_files(descriptors::free().saturating_sub(media_files));
    let media = settings.ice_tcp_on_http.then(|| core.clone());
    let operators = admin::router(Arc::clone(&admin));
    #[cfg(feature = "fault-injection")]
    let operators = operators.merge(crate::faults::router(core.clone()));
    let servers = sockets.serve((&signaling, &metrics, &tls), operators, (limits, media), &stopped);

    let (watchdog, of_supervisor) = (Arc::clone(&service_manager), Arc::clone(&metrics));
    let means = Means { core: core.clone(), metrics: of_supervisor, health, service_manager: watchdog, telemetry };
    let (supervisor, beats) = look_after(&signaling, means)?;
    background.push(beats);
    admin.set_serving();
    let base = base(settings, public_address, &tls, &core);
    // First, so that who has read that it is ready has read the certificate's fingerprint as well.
    announce_certificate(&tls);
    announce(settings, &base, &operator_address, &core, &advertised);
    service_manager.ready();
    Ok(Running {
        core,
        signaling,
        metrics,
        registry,
        reloader,
        service_manager,
        supervisor,
        background,
        servers,
        stop_http,
    })
}

/// Gives memory that is free back to the system now and then, on a thread that nobody waits for.
async fn return_memory() {
    let mut interval = tokio::time::interval(MEMORY_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A panic of it would be one of the C library.
        let _ = tokio::task::spawn_blocking(media_core::return_free_memory).await;
    }
}

/// The sockets of all HTTP listeners.
struct HttpSockets {
    public: TcpListener,
    public_address: SocketAddr,
    /// Sends clients to HTTPS.
    redirect: Option<TcpListener>,
    operator: Socket,
    operator_address: String,
}

impl HttpSockets {
    async fn open(settings: &Settings) -> Result<HttpSockets, RunError> {
        let public = listen("http_listen", "--http-listen", settings.http_listen).await?;
        let public_address = public.local_addr().unwrap_or(settings.http_listen);
        let redirect = match settings.http_redirect.0 {
            Some(address) => Some(listen("http_redirect", "--http-redirect", address).await?),
            None => None,
        };
        let (operator, operator_address) = listen_admin(&settings.admin_listen).await?;
        Ok(HttpSockets { public, public_address, redirect, operator, operator_address })
    }

    /// Serves on all of them, each in a task of its own. Where connections may carry media, they go to `media`.
    fn serve(
        self,
        (signaling, metrics, tls): (&Arc<Signaling>, &Arc<Metrics>, &Arc<Tls>),
        operators: Router,
        (limits, media): (ConnectionLimits, Option<MediaCore>),
        stopped: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let of_proxies = Arc::clone(signaling);
        let is_proxy = move |ip| of_proxies.config().is_trusted_proxy(ip);
        let connections = Connections::behind_proxies(limits, Arc::clone(metrics), Box::new(is_proxy));
        if let Some(core) = media {
            connections.take_media(core);
        }
        let held = || (Arc::clone(&connections), Arc::clone(metrics));
        let to_https = |target| redirect::router(Arc::clone(signaling), target);
        let pages = pages::router(Arc::clone(signaling), Arc::clone(metrics));
        let pages = Service::secured(pages, Arc::clone(tls), to_https(Target::SamePort));
        let mut servers = vec![
            listener::spawn(Listener::Public, self.public, pages, held(), stopped.clone()),
            listener::spawn(Listener::Admin, self.operator, operators, held(), stopped.clone()),
        ];
        if let Some(socket) = self.redirect {
            let router = to_https(Target::Port(self.public_address.port()));
            servers.push(listener::spawn(Listener::Public, socket, router, held(), stopped.clone()));
        }
        servers
    }
}

impl Running {
    /// Lets sessions end, closes those that are left, and ends all threads and tasks.
    async fn stop(self, signal: &'static str) {
        let drain_timeout = self.reloader.settings().drain_timeout.0;
        self.service_manager.stopping(drain_timeout + CLOSE_TIME + HTTP_STOP_TIME);
        drain(&self.signaling, &self.metrics, signal, drain_timeout).await;
        // From here on threads end by intent.
        drop(self.supervisor);
        self.background.iter().for_each(JoinHandle::abort);
        close(&self.core, self.registry).await;
        stop_listeners(self.stop_http, self.servers).await;
    }
}

/// Begins to look after all parts of the process; control's beats are a task of its own.
fn look_after(signaling: &Signaling, means: Means) -> Result<(Supervisor, JoinHandle<()>), RunError> {
    let control = Arc::default();
    let beats = tokio::spawn(supervise::beat(Arc::clone(&control)));
    let mut parts = Part::of_core(&means.core);
    parts.push(Part::task("registry", Arc::clone(signaling.registry().pulse())));
    parts.push(Part::task("control", control));
    Ok((Supervisor::start(parts, means).map_err(RunError::Supervisor)?, beats))
}

/// Tasks that follow the world outside for as long as the server serves.
fn follow_the_world(
    core: &MediaCore,
    metrics: &Arc<Metrics>,
    addresses: watch::Receiver<Addresses>,
    advertised: Advertised,
) -> Vec<JoinHandle<()>> {
    let (followed, of_addresses) = (core.clone(), Arc::clone(metrics));
    let (renewed, of_certificate) = (core.clone(), Arc::clone(metrics));
    vec![
        tokio::spawn(async move { follow::follow(addresses, advertised, followed, &of_addresses, System).await }),
        tokio::spawn(async move { certificate::renew(renewed, &of_certificate, SystemTime::now).await }),
    ]
}

/// SIGHUP. A stop does not wait for it.
fn reload_by_signal(reloader: &Arc<Reloader>) {
    let reloader = Arc::clone(reloader);
    tokio::spawn(async move { reloader.reload("SIGHUP").await });
}

async fn listen(key: &'static str, flag: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    let wrong = |source| RunError::Http { key, flag, address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(wrong)
}

/// The admin listener, and where it is.
async fn listen_admin(listen: &AdminListen) -> Result<(Socket, String), RunError> {
    let (key, flag) = ("admin_listen", "--admin-listen");
    match listen {
        AdminListen::Tcp(address) => {
            let listener = self::listen(key, flag, *address).await?;
            let address = listener.local_addr().unwrap_or(*address);
            Ok((listener.into(), format!("http://{}/", reachable(address))))
        }
        AdminListen::Unix(path) => match UnixSocket::bind(path) {
            Ok(socket) => Ok((socket.into(), listen.to_string())),
            Err(source) => Err(RunError::Http { key, flag, address: listen.to_string(), source }),
        },
    }
}

/// Refuses new sessions, and gives those that are there time to end by themselves. Viewers are asked to go where there is another
/// node, one after the other: all at once they would be a join storm.
async fn drain(signaling: &Signaling, metrics: &Metrics, signal: &'static str, timeout: Duration) {
    let registry = signaling.registry();
    registry.drain();
    metrics.set_draining();
    let counts = registry.counts();
    let seconds = timeout.as_secs_f64();
    tracing::info!(signal, publishers = counts.publishers, viewers = counts.viewers, seconds, "shutting down");
    let began = Instant::now();
    let ended = async {
        let mut look = tokio::time::interval(DRAIN_LOOK);
        while registry.counts() != Counts::default() {
            look.tick().await;
            if let Some(part) = part_to_send_away(began.elapsed(), timeout) {
                registry.send_viewers_away(part, signaling.config().reconnect_url.as_deref());
            }
        }
    };
    let _ = tokio::time::timeout(timeout, ended).await;
}

/// The part of the viewers that were asked to go by now: the last ones so long before the end that they keep their sessions for
/// [`RECONNECT_TIME`]. `None` where there is not that much time.
fn part_to_send_away(elapsed: Duration, timeout: Duration) -> Option<f64> {
    let window = timeout.checked_sub(RECONNECT_TIME)?;
    Some(if window.is_zero() { 1.0 } else { elapsed.div_duration_f64(window) })
}

/// Closes all sessions, and lets the registry write their ends down.
async fn close(core: &MediaCore, registry: JoinHandle<()>) {
    let close = async {
        core.shutdown().await;
        // The core's events end with it; after the last one the registry returns.
        let _ = registry.await;
    };
    if tokio::time::timeout(CLOSE_TIME, close).await.is_err() {
        tracing::warn!("some sessions did not close in time");
    }
}

/// Stops the listeners. Connections that a client keeps open without a request end with the process.
async fn stop_listeners(stop: watch::Sender<bool>, servers: Vec<JoinHandle<()>>) {
    stop.send_replace(true);
    let ended = async {
        for server in servers {
            let _ = server.await;
        }
    };
    let _ = tokio::time::timeout(HTTP_STOP_TIME, ended).await;
}

/// The one line that tells what runs where.
fn announce(settings: &Settings, base: &str, operator: &str, core: &MediaCore, advertised: &Advertised) {
    let candidates = follow::candidates(core);
    let of = |protocol| {
        let those = candidates.iter().filter(|candidate| candidate.protocol == protocol);
        those.map(|candidate| candidate.address.to_string()).collect::<Vec<_>>().join(" ")
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pages = %format_args!("{base}/"),
        whip = %format_args!("{base}/whip/{{stream}}"),
        whep = %format_args!("{base}/whep/{{stream}}"),
        admin = operator,
        shards = core.shards(),
        ice = %settings.ice,
        addresses = %advertised.reading(),
        candidates = %of(Protocol::Udp),
        tcp_candidates = %of(Protocol::Tcp),
        "sluice is ready"
    );
}

/// The port at which clients reach the public listener.
fn public_port(settings: &Settings, listener: SocketAddr) -> u16 {
    let url = settings.public_url.0.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let of_scheme = |url: &http::Uri| if url.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
    url.map_or(listener.port(), |url| url.port_u16().unwrap_or_else(|| of_scheme(&url)))
}

/// Where the pages are.
fn base(settings: &Settings, public: SocketAddr, tls: &Tls, core: &MediaCore) -> String {
    if let Some(base) = &settings.public_url.0 {
        return base.clone();
    }
    if tls.identity().is_none() {
        return format!("http://{}", reachable(public));
    }
    if let Some(name) = settings.acme_domain.first() {
        let port = if public.port() == 443 { String::new() } else { format!(":{}", public.port()) };
        return format!("https://{}{port}", name.0);
    }
    // Other machines can open pages over HTTPS, by the address to which they send media.
    let of_media = core.local_candidates(0).first().map(|candidate| candidate.address.ip());
    let is_ours = |ip: &IpAddr| settings.public_ip.is_empty() && (public.is_ipv6() || ip.is_ipv4());
    match of_media.filter(|ip| public.ip().is_unspecified() && is_ours(ip)) {
        Some(ip) => format!("https://{}", SocketAddr::new(ip, public.port())),
        None => format!("https://{}", reachable(public)),
    }
}

/// What there is to compare with where a browser warns of the certificate.
fn announce_certificate(tls: &Tls) {
    if let Some(identity) = tls.identity() {
        let (names, fingerprint) = (identity.names().join(" "), identity.fingerprint());
        tracing::info!(names, fingerprint, "https has this certificate (SHA-256)");
    }
}

/// A wildcard address is none to open: loopback leads there.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true if address.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        true => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port())),
        false => address,
    }
}
