//! The HTTP server under both listeners: HTTP/1.1 and HTTP/2, with bounds on what a client may make it hold.
//!
//! By hand, since `axum::serve` bounds neither the time nor the size of a request's head, nor the connections (HTTP-07).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use signaling::ClientAddress;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::Service;

use crate::connections::{Connection, Connections, Listener};
use crate::metrics::Metrics;

/// A request's head must be complete in this time, counted from the connection's begin or from the end of the request before
/// (HTTP-07).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request in bytes; more gets 431 (HTTP-07).
const MAX_HEAD: usize = 16 * 1024;

/// An HTTP/2 client that does not answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A client that acknowledges nothing of an answer for this long, or reads nothing of it, is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where no connection can be accepted for want of file descriptors, it is tried again after this time …
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// … doubled each time, up to this.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// The log has it this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Serves a router in a task of its own until `stopped` says true; the task then ends with the last connection.
pub fn spawn(
    which: Listener,
    listener: TcpListener,
    router: Router,
    (connections, metrics): (Arc<Connections>, Arc<Metrics>),
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let acceptor = Acceptor { which, listener, connections, metrics, pause: FIRST_PAUSE, reported: None, failures: 0 };
    tokio::spawn(serve(acceptor, router, stopped))
}

async fn serve(mut acceptor: Acceptor, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(64)
        .keep_alive_interval(PING_TIMEOUT)
        .keep_alive_timeout(PING_TIMEOUT);
    let builder = Arc::new(builder);
    // Each connection holds a receiver.
    let (open, is_open) = watch::channel(());
    loop {
        let (stream, connection) = tokio::select! {
            // An error means that the sender is gone, which is a stop too.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = acceptor.accept() => accepted,
        };
        let task = serve_connection(Arc::clone(&builder), stream, router.clone(), connection, stopped.clone());
        let is_open = is_open.clone();
        tokio::spawn(async move {
            task.await;
            drop(is_open);
        });
    }
    drop((acceptor, is_open));
    open.closed().await;
}

/// Serves one connection to its end.
async fn serve_connection(
    builder: Arc<Builder<TokioExecutor>>,
    stream: TcpStream,
    router: Router,
    (connection, client): (Connection, ClientAddress),
    mut stopped: watch::Receiver<bool>,
) {
    let connection = Arc::new(connection);
    let service = TowerToHyperService::new(Counted { router, connection: Arc::clone(&connection), client });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut first_head = pin!(tokio::time::sleep(HEAD_TIMEOUT));
    let (mut is_first, mut stopping) = (true, false);
    loop {
        tokio::select! {
            // In this order: the server library has a time-out of its own, which may be over at the same moment, but it begins
            // to count only once it knows the protocol by the first bytes.
            biased;
            () = first_head.as_mut(), if is_first => {
                if !connection.has_requested() {
                    return connection.closed_without_request();
                }
                is_first = false;
            }
            result = serving.as_mut() => {
                // What a client does to its own connection concerns nobody else.
                if let Err(error) = result {
                    tracing::debug!(error, "a connection failed");
                }
                return;
            }
            () = connection.evicted() => return,
            _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The router, and a note of the requests in progress and of whose they are.
#[derive(Clone)]
struct Counted {
    router: Router,
    connection: Arc<Connection>,
    client: ClientAddress,
}

impl<B> Service<Request<B>> for Counted
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
    <Router as Service<Request<B>>>::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Router as Service<Request<B>>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.client);
        let in_progress = self.connection.request();
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(in_progress);
            answer
        })
    }
}

/// Accepts connections, whatever the system says.
struct Acceptor {
    which: Listener,
    listener: TcpListener,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    pause: Duration,
    /// When the log was last told of failures, and how many there were since.
    reported: Option<Instant>,
    failures: u64,
}

impl Acceptor {
    async fn accept(&mut self) -> (TcpStream, (Connection, ClientAddress)) {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    self.pause = FIRST_PAUSE;
                    let client = ClientAddress(remote.ip());
                    if let Some(connection) = self.connections.admit(self.which, client) {
                        set_options(&stream);
                        return (stream, (connection, client));
                    }
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => self.on_failure(&error).await,
            }
        }
    }

    /// File descriptors or memory are short. Who waits in the system's queue gets the place of a quiet connection.
    async fn on_failure(&mut self, error: &io::Error) {
        self.metrics.accept_failed(self.which);
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
}

/// None of these decides anything: without them a connection is only slower, or its end is noticed later.
fn set_options(stream: &TcpStream) {
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(WRITE_TIMEOUT));
}

/// The client went away before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The address that a listener really has; the configured one may have port 0.
pub fn address(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}
