//! The HTTP server under both listeners: HTTP/1.1 and HTTP/2, with bounds on what a client may make it hold.
//!
//! By hand, since `axum::serve` bounds neither the time nor the size of a request's head, nor the connections (HTTP-07).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use signaling::ClientAddress;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connections::{Connection, Connections, GRACE, Listener};
use crate::http_connection;
use crate::metrics::Metrics;
use crate::socket::{Socket, Stream};
use crate::tls::Tls;

/// Where no connection can be accepted for want of file descriptors, it is tried again after this time …
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// … doubled each time, up to this.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// The log has it this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What a listener serves.
#[derive(Clone)]
pub struct Service {
    pub(crate) router: Router,
    pub(crate) https: Option<Https>,
}

/// TLS in front of a router, while there is a certificate.
#[derive(Clone)]
pub(crate) struct Https {
    pub(crate) tls: Arc<Tls>,
    /// For requests in clear text.
    pub(crate) redirect: Router,
}

impl From<Router> for Service {
    /// In clear text alone.
    fn from(router: Router) -> Service {
        Service { router, https: None }
    }
}

impl Service {
    /// Over TLS while there is a certificate: then requests in clear text go to `redirect`.
    pub fn secured(router: Router, tls: Arc<Tls>, redirect: Router) -> Service {
        Service { router, https: Some(Https { tls, redirect }) }
    }
}

/// Serves a router in a task of its own until `stopped` says true; the task then ends with the last connection.
pub fn spawn(
    which: Listener,
    socket: impl Into<Socket>,
    service: impl Into<Service>,
    (connections, metrics): (Arc<Connections>, Arc<Metrics>),
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let (socket, service) = (socket.into(), service.into());
    let acceptor = Acceptor { which, socket, connections, metrics, pause: FIRST_PAUSE, reported: None, failures: 0 };
    tokio::spawn(serve(acceptor, service, stopped))
}

async fn serve(mut acceptor: Acceptor, service: Service, mut stopped: watch::Receiver<bool>) {
    let builder = Arc::new(http_connection::builder(acceptor.connections.times()));
    // Each connection holds a receiver.
    let (open, is_open) = watch::channel(());
    loop {
        let (stream, connection) = tokio::select! {
            // An error means that the sender is gone, which is a stop too.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = acceptor.accept() => accepted,
        };
        let task = http_connection::serve(Arc::clone(&builder), stream, service.clone(), connection, stopped.clone());
        let is_open = is_open.clone();
        tokio::spawn(async move {
            task.await;
            drop(is_open);
        });
    }
    drop((acceptor, is_open));
    open.closed().await;
}

/// Accepts connections, whatever the system says.
struct Acceptor {
    which: Listener,
    socket: Socket,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    pause: Duration,
    /// When the log was last told of failures, and how many there were since.
    reported: Option<Instant>,
    failures: u64,
}

impl Acceptor {
    async fn accept(&mut self) -> (Stream, (Connection, ClientAddress)) {
        loop {
            while self.which == Listener::Public && self.connections.admin_waits() {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            match self.socket.accept().await {
                Ok((stream, remote)) => {
                    self.pause = FIRST_PAUSE;
                    self.set_waits(false);
                    let client = ClientAddress(remote);
                    if let Some(connection) = self.admit(client).await {
                        return (stream, (connection, client));
                    }
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => self.on_failure(&error).await,
            }
        }
    }

    /// Takes a connection in. Where all that there may be have only just begun, it waits for the first of them to be quiet for
    /// long enough, as the others wait in the system's queue.
    async fn admit(&self, client: ClientAddress) -> Option<Connection> {
        let patience = Instant::now() + 2 * GRACE;
        loop {
            if let Some(connection) = self.connections.admit(self.which, client) {
                return Some(connection);
            }
            if !self.connections.is_full_for(self.which, client) || Instant::now() >= patience {
                self.connections.refused(self.which);
                return None;
            }
            self.connections.some_ended(FIRST_PAUSE).await;
        }
    }

    /// File descriptors or memory are short. Who waits in the system's queue gets the place of a quiet connection.
    async fn on_failure(&mut self, error: &io::Error) {
        self.metrics.accept_failed(self.which);
        self.set_waits(true);
        self.failures += 1;
        if self.reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL) {
            let (listener, failures) = (self.which.as_str(), self.failures);
            tracing::warn!(listener, %error, failures, "cannot accept connections; is the limit of open files too low?");
            (self.reported, self.failures) = (Some(Instant::now()), 0);
        }
        if self.connections.make_room() {
            self.connections.some_ended(FIRST_PAUSE).await;
        } else {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        }
    }

    /// The public listener leaves the next file to the admin listener while this waits for one.
    fn set_waits(&self, waits: bool) {
        if self.which == Listener::Admin {
            self.connections.set_admin_waits(waits);
        }
    }
}

/// The client went away before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
