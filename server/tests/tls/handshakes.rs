//! What a TLS connection may cost: the bounds and deadlines of clear text hold for it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use openssl::ssl::{Ssl, SslContext, SslMethod};
use server::connections::{ConnectionLimits, Connections, Listener, Times};
use server::listener::{self, Service};
use server::metrics::{Metrics, Population};
use server::tls::make::Names;
use server::tls::{Tls, TlsSettings, TlsSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use crate::support::LONG;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A listener of the server's own, so that its deadlines can be short.
struct Served {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    _stop: watch::Sender<bool>,
}

impl Served {
    async fn with(limits: ConnectionLimits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let tls = Tls::new(Arc::clone(&metrics));
        let names = Names { dns: vec!["localhost".to_owned()], ip: Vec::new() };
        tls.set(Some(TlsSettings { source: TlsSource::SelfSigned(names), hsts: 0 })).unwrap();
        let router = Router::new().route("/", get(async || "hello"));
        let service = Service::secured(router, tls, Router::new());
        let (stop, stopped) = watch::channel(false);
        let held = (Connections::new(limits, Arc::clone(&metrics)), Arc::clone(&metrics));
        listener::spawn(Listener::Public, listener, service, held, stopped);
        Served { address, metrics, _stop: stop }
    }

    fn closed(&self, reason: &str) -> usize {
        let text = self.metrics.render(&Population::default(), Some(&[])).unwrap();
        let series = format!("sluice_http_connections_closed_total{{listener=\"public\",reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client after its handshake.
    async fn tls(&self) -> SslStream<TcpStream> {
        let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
        let mut stream = SslStream::new(Ssl::new(&context).unwrap(), self.tcp().await).unwrap();
        Pin::new(&mut stream).connect().await.unwrap();
        stream
    }
}

async fn is_answered(stream: &mut SslStream<TcpStream>) -> bool {
    if stream.write_all(REQUEST).await.is_err() {
        return false;
    }
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while !text.ends_with(b"hello") {
        match stream.read(&mut buffer).await {
            Ok(length @ 1..) => text.extend_from_slice(&buffer[..length]),
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

fn limits(times: Times) -> ConnectionLimits {
    ConnectionLimits { total: 10, per_address: 10, times, ..ConnectionLimits::default() }
}

/// The first flight of a client, as OpenSSL writes it.
fn client_hello() -> Vec<u8> {
    let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
    let wire = Wire(Vec::new());
    let refused = Ssl::new(&context).unwrap().connect(wire).err().unwrap();
    let openssl::ssl::HandshakeError::WouldBlock(half) = refused else { panic!("{refused:?}") };
    half.get_ref().0.clone()
}

/// Keeps what is written, and has nothing to read.
#[derive(Debug)]
struct Wire(Vec<u8>);

impl std::io::Read for Wire {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl std::io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// F-09, HTTP-07
#[tokio::test]
async fn a_handshake_and_the_first_request_have_one_deadline() {
    let served = Served::with(limits(Times { head: Duration::from_millis(600), ..Times::default() })).await;
    let hello = client_hello();
    let mut silent = Vec::new();
    for bytes in [&hello[..1], &hello[..hello.len() / 2], &hello[..]] {
        let mut stream = served.tcp().await;
        stream.write_all(bytes).await.unwrap();
        silent.push(stream);
    }
    let mut secure = served.tls().await;
    for mut stream in silent {
        // What the server said until then does not matter; an end is an end, whether orderly or not.
        let mut all = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut all)).await.expect("still open");
    }
    let _ = timeout(LONG, secure.read_to_end(&mut Vec::new())).await.expect("still open");
    assert_eq!(served.closed("no-request"), 4);
}

// F-09
#[tokio::test]
async fn a_handshake_that_fails_ends_its_connection_and_is_counted() {
    let served = Served::with(limits(Times::default())).await;
    let begun: [&[u8]; 3] = [&[22, 3, 1, 0, 4, 1, 0, 0, 0], &[22, 9, 9, 0, 1, 0], &[22, 3, 3, 255, 255]];
    for (count, bytes) in begun.into_iter().enumerate() {
        let mut stream = served.tcp().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("still open");
        assert_eq!(served.closed("handshake"), count + 1, "{bytes:?}");
    }
    assert!(is_answered(&mut served.tls().await).await);
}

// F-09
#[tokio::test]
async fn the_connections_of_an_address_are_bounded_over_tls_too() {
    let served = Served::with(ConnectionLimits { per_address: 2, ..limits(Times::default()) }).await;
    let (mut first, _half) = (served.tls().await, served.tcp().await);
    assert!(is_answered(&mut first).await);
    // One too many, as all others may just be beginning.
    let _ = timeout(LONG, served.tcp().await.read_to_end(&mut Vec::new())).await.expect("still open");
    assert_eq!(served.closed("refused"), 1);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    // Now the one that has been quiet for the longest time gives place: the one without a handshake.
    assert!(is_answered(&mut served.tls().await).await);
    assert_eq!(served.closed("evicted"), 1);
    assert!(is_answered(&mut first).await, "it was used since, and stays");
}

// F-09
#[tokio::test]
async fn a_tls_connection_without_requests_ends() {
    let times = Times { head: Duration::from_secs(20), idle: Duration::from_millis(500), linger: LONG };
    let served = Served::with(limits(times)).await;
    let mut stream = served.tls().await;
    assert!(is_answered(&mut stream).await);
    timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("still open").unwrap();
}

#[tokio::test]
async fn bytes_without_end_that_ask_for_nothing_end_a_tls_connection() {
    let served = Served::with(limits(Times::default())).await;
    let mut stream = served.tls().await;
    let flood = async {
        let empty_lines = [b'\n'; 16 * 1024];
        while stream.write_all(&empty_lines).await.is_ok() {}
    };
    timeout(LONG, flood).await.expect("the server reads on");
}
