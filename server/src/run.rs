//! The server from start to end: sockets, core, signalling, listeners, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use media_core::{MediaCore, StartError};
use signaling::Signaling;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::config::Settings;
use crate::config::http_values::AdminListen;
use crate::config::resolve::Resolved;
use crate::connections::{Connections, Listener};
use crate::descriptors;
use crate::metrics::Metrics;
use crate::socket::{Socket, UnixSocket};
use crate::telemetry::Telemetry;
use crate::{follow, listener, pages};

/// Sessions get this long to receive close_notify; with [`HTTP_STOP_TIME`] a stop takes at most 5 s (OPS-06).
const CLOSE_TIME: Duration = Duration::from_secs(3);

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
    #[error("{0}\n  the media sockets follow --media-ip, --media-port and --shards")]
    MediaSocket(StartError),
    /// The media core, otherwise.
    #[error(transparent)]
    Core(StartError),
    /// Signals of the operating system.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<StopSignals, RunError> {
        let open = |kind| signal(kind).map_err(RunError::Signals);
        Ok(StopSignals { terminate: open(SignalKind::terminate())?, interrupt: open(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs the server until SIGTERM or SIGINT, then drains it. A second signal ends it at once.
///
/// # Errors
///
/// [`RunError`] if it cannot start.
pub async fn run(settings: &Settings, resolved: Resolved, telemetry: Telemetry) -> Result<(), RunError> {
    let mut stop = StopSignals::new()?;
    let public = listen("http_listen", "--http-listen", settings.http_listen).await?;
    let (operator, operator_address) = listen_admin(&settings.admin_listen).await?;

    let shards = resolved.core.shards;
    let public_addresses = resolved.core.public_addresses.clone();
    let (core, events) = MediaCore::start(resolved.core).map_err(|error| match error {
        StartError::Listen { .. } => RunError::MediaSocket(error),
        other => RunError::Core(other),
    })?;
    let metrics = Arc::new(Metrics::new()?);
    metrics.follow_log(telemetry);
    let signaling = Arc::new(Signaling::new(resolved.signaling, core.clone(), Arc::<Metrics>::clone(&metrics)));
    let registry = tokio::spawn(Arc::clone(signaling.registry()).run(events));

    let admin = Arc::new(Admin::new(Arc::clone(&signaling), Arc::clone(&metrics), core.clone()));
    admin.set_access(resolved.admin_access);
    let (stop_http, stopped) = watch::channel(false);
    let public_address = public.local_addr().unwrap_or(settings.http_listen);
    // All sockets of media and signals are open now: what is left is for connections.
    let limits = resolved.connections.within_files(descriptors::free());
    let of_proxies = Arc::clone(&signaling);
    let is_proxy = move |ip| of_proxies.config().is_trusted_proxy(ip);
    let connections = Connections::behind_proxies(limits, Arc::clone(&metrics), Box::new(is_proxy));
    let held = || (Arc::clone(&connections), Arc::clone(&metrics));
    let pages = pages::router(Arc::clone(&signaling), Arc::clone(&metrics));
    let servers = [
        listener::spawn(Listener::Public, public, pages, held(), stopped.clone()),
        listener::spawn(Listener::Admin, operator, admin::router(Arc::clone(&admin)), held(), stopped),
    ];
    admin.set_serving();
    let candidates = (0..shards).flat_map(|shard| core.local_candidates(shard).to_vec());
    let candidates: Vec<String> = candidates.map(|candidate| candidate.address.to_string()).collect();
    announce(settings, public_address, &operator_address, &candidates, shards);

    let (followed, of_addresses) = (core.clone(), Arc::clone(&metrics));
    let follower = tokio::spawn(async move {
        follow::follow(resolved.addresses, public_addresses, followed, &of_addresses).await;
    });

    let name = stop.recv().await;
    follower.abort();
    let counts = signaling.registry().counts();
    tracing::info!(signal = name, publishers = counts.publishers, viewers = counts.viewers, "shutting down");
    let stopping = async {
        drain(&signaling, &metrics, &core, registry).await;
        stop_listeners(stop_http, servers).await;
    };
    tokio::select! {
        () = stopping => tracing::info!("stopped"),
        name = stop.recv() => tracing::warn!(signal = name, "stopped before all sessions were closed"),
    }
    Ok(())
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

/// Refuses new sessions, closes all others, and lets the registry write their ends down.
async fn drain(signaling: &Signaling, metrics: &Metrics, core: &MediaCore, registry: JoinHandle<()>) {
    signaling.registry().drain();
    metrics.set_draining();
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
async fn stop_listeners(stop: watch::Sender<bool>, servers: [JoinHandle<()>; 2]) {
    stop.send_replace(true);
    let ended = async {
        for server in servers {
            let _ = server.await;
        }
    };
    let _ = tokio::time::timeout(HTTP_STOP_TIME, ended).await;
}

/// The one line that tells what runs where.
fn announce(settings: &Settings, public: SocketAddr, operator: &str, candidates: &[String], shards: usize) {
    let base = settings.public_url.0.clone().unwrap_or_else(|| format!("http://{}", reachable(public)));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pages = %format_args!("{base}/"),
        whip = %format_args!("{base}/whip/{{stream}}"),
        whep = %format_args!("{base}/whep/{{stream}}"),
        admin = operator,
        shards,
        ice = %settings.ice,
        candidates = %candidates.join(" "),
        "sluice is ready"
    );
}

/// A wildcard address is none to open: loopback leads there.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true if address.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        true => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port())),
        false => address,
    }
}
