//! The HTTP server itself, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use server::connections::{ConnectionLimits, Connections, Listener};
use server::listener;
use server::metrics::{Metrics, Population};
use signaling::SignalingConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::common::rig;

pub(crate) struct Served {
    address: SocketAddr,
    pub(crate) stream: TcpStream,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Served {
    /// A further connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// How many the server closed for a reason.
    pub(crate) fn closed(&self, reason: &str) -> usize {
        self.metric(&format!("sluice_http_connections_closed_total{{listener=\"public\",reason=\"{reason}\"}} "))
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.metric("sluice_http_connections{listener=\"public\"} ")
    }

    fn metric(&self, series: &str) -> usize {
        let text = self.metrics.render(&Population::default(), Some(&[])).unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)).unwrap().parse().unwrap()
    }
}

/// A server that says `hello` at `/`, and a connection to it.
async fn serve() -> Served {
    serve_within(ConnectionLimits { total: 100, per_address: 100, ..ConnectionLimits::default() }).await
}

async fn serve_within(limits: ConnectionLimits) -> Served {
    serve_router(limits, Router::new().route("/", get(async || "hello"))).await
}

pub(crate) async fn serve_router(limits: ConnectionLimits, router: Router) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let metrics = Arc::new(Metrics::new().unwrap());
    let held = (Connections::new(limits, Arc::clone(&metrics)), Arc::clone(&metrics));
    let task = listener::spawn(Listener::Public, listener, router, held, stopped);
    Served { address, stream: TcpStream::connect(address).await.unwrap(), stop, task, metrics }
}

pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.ends_with(end) {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            length => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    text
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let mut served = serve().await;
    for _ in 0..2 {
        served.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let reply = read_until(&mut served.stream, "hello").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    }
}

// HTTP-10: as curl sends bodies of some size, and clients that try again.
#[tokio::test]
async fn a_body_that_waits_for_leave_is_asked_for_and_an_error_leaves_the_connection() {
    let limits = ConnectionLimits { total: 100, per_address: 100, ..ConnectionLimits::default() };
    let mut served = serve_router(limits, rig(SignalingConfig::default()).public).await;
    let offer = include_str!("../../../signaling/tests/golden/obs.sdp");
    for (body, status) in [("no offer".to_owned(), "HTTP/1.1 400 "), (offer.to_owned(), "HTTP/1.1 201 ")] {
        let head = format!(
            "POST /whip/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        served.stream.write_all(head.as_bytes()).await.unwrap();
        let leave = read_until(&mut served.stream, "\r\n\r\n").await;
        assert_eq!(leave, "HTTP/1.1 100 Continue\r\n\r\n");
        served.stream.write_all(body.as_bytes()).await.unwrap();
        let end = if status.contains("400") { "}" } else { "a=end-of-candidates\r\n" };
        let reply = read_until(&mut served.stream, end).await;
        assert!(reply.starts_with(status), "{reply}");
    }
    // One that is refused for its head alone is not waited for.
    let head = "POST /whip/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    served.stream.write_all(head.as_bytes()).await.unwrap();
    let reply = read_until(&mut served.stream, "}").await;
    assert!(reply.starts_with("HTTP/1.1 415 "), "{reply}");
}

// HTTP-07
#[tokio::test]
async fn a_head_of_more_than_16_kib_is_refused() {
    let mut served = serve().await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}", "x".repeat(17 * 1024));
    served.stream.write_all(head.as_bytes()).await.unwrap();
    let reply = read_until(&mut served.stream, "\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 431 "), "{reply}");
}

// HTTP-07
#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_cut_off() {
    let mut served = serve().await;
    served.stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut rest = Vec::new();
    let over = tokio::time::timeout(Duration::from_secs(11), served.stream.read_to_end(&mut rest)).await;
    assert!(over.is_ok(), "the connection is still open after 11 s");
}

// OPS-06
#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let mut served = serve().await;
    served.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut served.stream, "hello").await;
    served.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), served.task).await.unwrap().unwrap();
    assert_eq!(served.stream.read(&mut [0; 1]).await.unwrap(), 0);
}

// F-09, HTTP-07
#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_whatever_it_began_to_say() {
    let served = serve().await;
    let begun: [&[u8]; 8] = [
        b"",
        b"P",
        b"G",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n",
        // The begin of a frame of RFC 4571.
        b"\0",
        b"\0\x14\0\x01\0\0\x21\x12\xA4",
    ];
    let mut streams = Vec::new();
    for bytes in begun {
        let mut stream = served.connect().await;
        stream.write_all(bytes).await.unwrap();
        streams.push(stream);
    }
    for (mut stream, bytes) in streams.into_iter().zip(begun) {
        // A reset is an end as well.
        let over = tokio::time::timeout(Duration::from_secs(11), stream.read_to_end(&mut Vec::new())).await;
        assert!(over.is_ok(), "{:?}: still open after 11 s", String::from_utf8_lossy(bytes));
    }
    assert!(served.closed("no-request") >= begun.len());
}

#[tokio::test]
async fn a_protocol_that_is_not_served_ends_its_connection() {
    let served = serve().await;
    let check = b"\0\x14\0\x01\0\0\x21\x12\xA4\x42abcdefghijkl";
    let begun: [&[u8]; 3] = [&[22, 3, 1, 0, 5, 1, 0, 0, 1, 3], check, b"\x01\0\0\0\0\0\0\0\0\0"];
    for (count, bytes) in begun.into_iter().enumerate() {
        let mut stream = served.connect().await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "{bytes:?}");
        assert_eq!(served.closed("protocol"), count + 1, "{bytes:?}");
    }
}

// F-09
#[tokio::test]
async fn who_holds_all_connections_of_an_address_shuts_out_nobody_there() {
    let mut served = serve_within(ConnectionLimits { total: 10, per_address: 3, ..ConnectionLimits::default() }).await;
    let mut silent = vec![served.connect().await, served.connect().await];
    served.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut served.stream, "hello").await;
    // One too many while all others may just be beginning: closed at once.
    assert_eq!(served.connect().await.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!((served.closed("refused"), served.closed("evicted")), (1, 0));
    // Each of these takes the place of the one that has been quiet for the longest time.
    for evicted in 1..=2 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut stream = served.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read_until(&mut stream, "hello").await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(silent.remove(0).read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert_eq!(served.closed("evicted"), evicted);
        silent.push(stream);
    }
}
