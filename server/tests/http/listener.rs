//! The HTTP server itself, over real sockets.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use server::listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct Served {
    stream: TcpStream,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A server that says `hello` at `/`, and a connection to it.
async fn serve() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = listener::spawn(listener, Router::new().route("/", get(async || "hello")), stopped);
    Served { stream: TcpStream::connect(address).await.unwrap(), stop, task }
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
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
