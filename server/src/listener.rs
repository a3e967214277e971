//! The HTTP server under both listeners: HTTP/1.1 and HTTP/2, with bounds on what a client may make it hold.
//!
//! By hand, since `axum::serve` bounds neither the time nor the size of a request's head, nor the connections (HTTP-07).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// A request's head must be complete in this time, counted from the end of the request before (HTTP-07).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request in bytes; more gets 431 (HTTP-07).
const MAX_HEAD: usize = 16 * 1024;

/// Connections of one listener at a time; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 8192;

/// An HTTP/2 client that does not answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Where no connection can be accepted for want of file descriptors, some end within this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves a router in a task of its own until `stopped` says true; the task then ends with the last connection.
pub fn spawn(listener: TcpListener, router: Router, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(serve(listener, router, stopped))
}

async fn serve(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(64)
        .keep_alive_interval(PING_TIMEOUT)
        .keep_alive_timeout(PING_TIMEOUT);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, slot) = tokio::select! {
            // An error means that the sender is gone, which is a stop too.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // What a client does to its own connection concerns nobody else.
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection failed");
            }
            drop(slot);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // Nobody closes the semaphore, so there is always a slot in the end.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for the client's acknowledgement; without it they are only slower.
                let _ = stream.set_nodelay(true);
                return (stream, slot);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
