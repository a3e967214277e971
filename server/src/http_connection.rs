//! One HTTP connection from its first byte to its end, with a deadline for each of its states.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes as Chunk};
use axum::response::Response;
use axum::{BoxError, Router};
use http::header::{CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use signaling::ClientAddress;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::Service;

use crate::connections::{Connection, Listener, RequestInProgress, Times};
use crate::first_bytes::{self, First};
use crate::listener::Service as Served;
use crate::media_connections;
use crate::metrics::Closed;
use crate::socket::{Bytes, Stream};
use crate::tls::Accepted;

/// Largest head of a request in bytes; more gets 431 (HTTP-07).
const MAX_HEAD: usize = 16 * 1024;

/// An HTTP/2 client that does not answer a ping for this long is gone.
const PING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// Requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 64;

/// Bytes of a body that an HTTP/2 client may send before they are read; the largest body has as many.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Bytes of an answer that wait inside the HTTP/2 layer for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// The HTTP server of a listener. What is not set here is bounded by h2 itself: frames of 16 KiB, as many CONTINUATION
/// frames as a head of that size takes, 20 streams that were reset before anybody saw them, 1024 that the server had to reset.
pub(crate) fn builder(times: Times) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(times.head).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_TIMEOUT)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// What a connection has to do until its deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Send the head of a first request.
    Opening,
    /// Send another request.
    Serving,
    /// Take what is left of its answers.
    Ending,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    builder: Arc<Builder<TokioExecutor>>,
    stream: Stream,
    service: Served,
    (connection, client): (Connection, ClientAddress),
    mut stopped: watch::Receiver<bool>,
) {
    let times = connection.times();
    let connection = Arc::new(connection);
    // One deadline for all that comes before the first request.
    let mut deadline = pin!(tokio::time::sleep(times.head));
    let http = tokio::select! {
        biased;
        () = deadline.as_mut() => return connection.closed(Closed::NoRequest),
        () = connection.evicted() => return,
        _ = stopped.wait_for(|stopped| *stopped) => return,
        http = open(stream, service, &connection) => http,
    };
    let Some(Http { bytes, router, hsts }) = http else { return };
    let service = TowerToHyperService::new(Counted { router, hsts, connection: Arc::clone(&connection), client });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(bytes), service));
    let (mut state, mut stopping) = (State::Opening, false);
    loop {
        tokio::select! {
            // In this order: the server library has a time-out of its own, which may be over at the same moment, but it begins
            // to count only once it knows the protocol by the first bytes.
            biased;
            () = deadline.as_mut() => match state {
                State::Opening if !connection.has_requested() => return connection.closed(Closed::NoRequest),
                State::Opening | State::Serving => {
                    let now = Instant::now();
                    let idle_at = connection.quiet_since().unwrap_or(now) + times.idle;
                    if idle_at <= now {
                        state = State::Ending;
                        connection.closed(Closed::Idle);
                        serving.as_mut().graceful_shutdown();
                        deadline.as_mut().reset(now + times.linger);
                    } else {
                        state = State::Serving;
                        deadline.as_mut().reset(idle_at);
                    }
                }
                State::Ending => return,
            },
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

/// HTTP on a connection.
struct Http {
    bytes: Box<dyn Bytes>,
    router: Router,
    /// What every answer says of HTTPS.
    hsts: Option<HeaderValue>,
}

/// Finds HTTP on a connection, perhaps behind TLS; `None` if it has none, and ends. The caller bounds the time.
async fn open(stream: Stream, Served { router, https }: Served, connection: &Arc<Connection>) -> Option<Http> {
    let clear = |bytes: Box<dyn Bytes>, router| Some(Http { bytes, router, hsts: None });
    let stream = match stream {
        Stream::Tcp(stream) if connection.listener() == Listener::Public => stream,
        Stream::Tcp(stream) => return clear(Box::new(Metered::new(stream, connection)), router),
        Stream::Unix(stream) => return clear(Box::new(Metered::new(stream, connection)), router),
    };
    let of_tls = https.and_then(|https| Some((https.tls.current()?, https.redirect)));
    match (first_bytes::look(stream).await, of_tls) {
        (Ok(First::Http(stream)), None) => return clear(Box::new(Metered::new(stream, connection)), router),
        (Ok(First::Http(stream)), Some((_, redirect))) => {
            return clear(Box::new(Metered::new(stream, connection)), redirect);
        }
        // Below TLS the bytes of the handshake count, too.
        (Ok(First::Tls(stream)), Some((tls, _))) => match tls.accept(Metered::new(stream, connection)).await {
            Ok(Accepted::Http(stream)) => return Some(Http { bytes: Box::new(stream), router, hsts: tls.hsts() }),
            Ok(Accepted::Challenge) => tracing::debug!("a certificate authority has seen the answer to its challenge"),
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                connection.closed(Closed::Handshake);
            }
        },
        (Ok(First::Tls(stream)), None) => {
            tracing::debug!(?stream, "TLS is not served here");
            connection.closed(Closed::Protocol);
        }
        (Ok(First::Stun(stream, head)), _) => match connection.media() {
            Some(core) => {
                if let Err(error) = media_connections::hand_over(core, stream, head).await {
                    tracing::debug!(%error, "a connection ended before its first check was whole");
                }
            }
            None => {
                tracing::debug!("ICE over TCP is not served here");
                connection.closed(Closed::Protocol);
            }
        },
        (Err(error), _) if error.kind() == io::ErrorKind::InvalidData => connection.closed(Closed::Protocol),
        // The client went away.
        (Err(error), _) => tracing::debug!(%error, "a connection ended before it was used"),
    }
    None
}

/// The router, and a note of the requests in progress and of whose they are.
#[derive(Clone)]
struct Counted {
    router: Router,
    hsts: Option<HeaderValue>,
    connection: Arc<Connection>,
    client: ClientAddress,
}

impl<B> Service<Request<B>> for Counted
where
    B: HttpBody<Data = Chunk> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Router as Service<Request<Body>>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.client);
        let in_progress = Arc::new(self.connection.request());
        if request.body().is_end_stream() {
            in_progress.received();
        }
        let of_body = Arc::downgrade(&in_progress);
        let answer = self.router.call(request.map(|body| Body::new(Awaited { body, request: of_body })));
        let (hsts, connection) = (self.hsts.clone(), Arc::clone(&self.connection));
        Box::pin(async move {
            let mut answer = answer.await;
            if let (Ok(answer), Some(hsts)) = (&mut answer, hsts) {
                answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            in_progress.answered();
            answer.map(|answer| {
                if is_event_stream(&answer) { answer.map(|body| Streamed::body(body, connection)) } else { answer }
            })
        })
    }
}

/// A request's body, whose end is noted.
struct Awaited<B> {
    body: B,
    request: Weak<RequestInProgress>,
}

impl<B: HttpBody + Unpin> HttpBody for Awaited<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(request) = self.request.upgrade()
        {
            request.received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether an answer goes on for as long as the client listens (HTML standard §9.2).
fn is_event_stream(answer: &Response) -> bool {
    answer.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// The body of such an answer: each part of it that the client has room for keeps the connection from being idle. It still is
/// quiet, and gives place where others need it.
struct Streamed {
    body: Body,
    connection: Arc<Connection>,
}

impl Streamed {
    fn body(body: Body, connection: Arc<Connection>) -> Body {
        Body::new(Streamed { body, connection })
    }
}

impl HttpBody for Streamed {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_some() {
            self.connection.listened();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's bytes, counted.
struct Metered<B> {
    bytes: B,
    connection: Arc<Connection>,
}

impl<B> Metered<B> {
    fn new(bytes: B, connection: &Arc<Connection>) -> Metered<B> {
        Metered { bytes, connection: Arc::clone(connection) }
    }
}

impl<B: Bytes> AsyncRead for Metered<B> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.bytes).poll_read(cx, buffer))?;
        match self.connection.received(buffer.filled().len() - before) {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::Error::other("far more bytes than a request takes"))),
        }
    }
}

impl<B: Bytes> AsyncWrite for Metered<B> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}
