//! What a connection may cost that is of no use, over real sockets: HTTP/2 by hand, as no client library would send it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use server::connections::{ConnectionLimits, Times};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::listener::{Served, read_until, serve_router};

/// Far more than any of the deadlines here, and less than those of the server by default.
const SOON: Duration = Duration::from_secs(8);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// GET / of http://a, by the static table of HPACK.
const REQUEST: &[u8] = b"\x82\x84\x86\x41\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST)
}

/// A client of HTTP/2 with its settings.
async fn begin(served: &Served, settings: &[u8]) -> TcpStream {
    let mut stream = served.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
    stream
}

/// The next frame, its pings answered; `None` at the end, a reset among them.
async fn next(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    if head[3] == PING && head[4] & ACK == 0 {
        // The connection may be gone, which the next read tells.
        let _ = stream.write_all(&frame(PING, ACK, 0, &payload)).await;
    }
    Some((head[3], payload))
}

/// Reads to the end and returns the kinds of frames; fails if there is no end soon.
async fn kinds_to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    let all = async {
        while let Some((kind, _)) = next(stream).await {
            kinds.push(kind);
        }
    };
    timeout(SOON, all).await.expect("the connection is still open");
    kinds
}

fn limits(times: Times) -> ConnectionLimits {
    ConnectionLimits { times, ..ConnectionLimits::default() }
}

/// Everything is over in no time.
const SHORT: Times =
    Times { head: Duration::from_millis(400), idle: Duration::from_millis(600), linger: Duration::from_millis(300) };

/// Far apart, as a test's machine pauses: for what has to stay open.
const LENIENT: Times = Times { head: Duration::from_secs(4), idle: Duration::from_secs(5), ..SHORT };

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

// H2
#[tokio::test]
async fn an_http2_connection_that_only_answers_pings_is_told_to_go() {
    let served = serve_router(limits(SHORT), hello()).await;
    let mut stream = begin(&served, &[]).await;
    stream.write_all(&request(1)).await.unwrap();
    let begun = Instant::now();
    let kinds = kinds_to_the_end(&mut stream).await;
    assert!(kinds.contains(&DATA), "{kinds:?}");
    assert_eq!(
        kinds.iter().filter(|kind| **kind == GOAWAY).count(),
        2,
        "the first one says that there is still time: {kinds:?}"
    );
    assert!(begun.elapsed() >= SHORT.idle, "{:?}", begun.elapsed());
    assert_eq!(served.closed("idle"), 1);
}

// H2
#[tokio::test]
async fn a_connection_with_requests_stays_open_beyond_the_idle_time() {
    let served = serve_router(limits(LENIENT), hello()).await;
    let mut http2 = begin(&served, &[]).await;
    let mut http1 = served.connect().await;
    let begun = Instant::now();
    let mut number = 1;
    while begun.elapsed() < 2 * LENIENT.idle {
        http2.write_all(&request(number)).await.unwrap();
        number += 2;
        while timeout(SOON, next(&mut http2)).await.unwrap().expect("the connection is closed").0 != DATA {}
        http1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read_until(&mut http1, "hello").await.ends_with("hello"));
        tokio::time::sleep(LENIENT.head / 10).await;
    }
    assert_eq!(served.closed("idle"), 0);
}

// H2
#[tokio::test]
async fn an_idle_http1_connection_is_closed() {
    let mut served = serve_router(limits(SHORT), hello()).await;
    served.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut served.stream, "hello").await;
    let end = timeout(SOON, served.stream.read(&mut [0; 1])).await;
    assert_eq!(end.expect("the connection is still open").unwrap_or(0), 0);
}

// H2
#[tokio::test]
async fn half_a_preface_and_a_connection_without_any_stream_are_closed() {
    let served = serve_router(limits(SHORT), hello()).await;
    let mut half = served.connect().await;
    half.write_all(&PREFACE[..14]).await.unwrap();
    let mut without_stream = begin(&served, &[]).await;
    let mut half_a_head = begin(&served, &[]).await;
    half_a_head.write_all(&frame(HEADERS, END_STREAM, 1, &REQUEST[..3])).await.unwrap();
    for stream in [&mut half, &mut without_stream, &mut half_a_head] {
        kinds_to_the_end(stream).await;
    }
    assert_eq!(served.closed("no-request"), 4, "and the one that says nothing");
}

// H2
#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    // By the window of HTTP/2, and by that of TCP.
    let answer = || "x".repeat(16 << 20);
    let served = serve_router(limits(SHORT), Router::new().route("/", get(async move || answer()))).await;
    let no_window = [&[0, 4][..], &0_u32.to_be_bytes()].concat();
    let mut http2 = begin(&served, &no_window).await;
    http2.write_all(&request(1)).await.unwrap();
    let kinds = kinds_to_the_end(&mut http2).await;
    assert!(kinds.contains(&HEADERS) && !kinds.contains(&DATA), "{kinds:?}");
    let mut http1 = served.connect().await;
    http1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let gone = async {
        // The one that says nothing goes as well.
        while served.closed("idle") < 2 || served.open() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("the connection is still open");
    let mut read = Vec::new();
    // What the system holds can still be read, and not all of the answer.
    let _ = timeout(SOON, http1.read_to_end(&mut read)).await.expect("the connection is still open");
    assert!(read.len() < 16 << 20, "{}", read.len());
}

/// A router whose `/` is a stream of events that beats so often.
fn events(beat: Duration) -> Router {
    let forever = || Sse::new(futures_util::stream::pending::<Result<Event, Infallible>>());
    Router::new().route("/", get(async move || forever().keep_alive(KeepAlive::new().interval(beat))))
}

// EXT-03
#[tokio::test]
async fn a_stream_of_events_goes_on_beyond_the_idle_time_as_long_as_it_is_read() {
    let served = serve_router(limits(LENIENT), events(LENIENT.idle / 30)).await;
    let mut http2 = begin(&served, &[]).await;
    http2.write_all(&request(1)).await.unwrap();
    let mut http1 = served.connect().await;
    http1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < 2 * LENIENT.idle {
        let frame = timeout(SOON, next(&mut http2)).await.unwrap().expect("the connection is closed");
        assert_ne!(frame.0, GOAWAY);
        assert!(timeout(SOON, read_until(&mut http1, ":\n\n\r\n")).await.unwrap().ends_with(":\n\n\r\n"));
    }
    assert_eq!(served.closed("idle"), 0);
}

// EXT-03
#[tokio::test]
async fn a_stream_of_events_that_says_nothing_or_is_not_read_ends() {
    let silent = serve_router(limits(SHORT), events(Duration::from_secs(3600))).await;
    let mut http1 = silent.connect().await;
    http1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    timeout(SOON, read_until(&mut http1, "no such end")).await.expect("the connection is still open");
    let served = serve_router(limits(SHORT), events(SHORT.idle / 4)).await;
    let no_window = [&[0, 4][..], &0_u32.to_be_bytes()].concat();
    let mut http2 = begin(&served, &no_window).await;
    http2.write_all(&request(1)).await.unwrap();
    let kinds = kinds_to_the_end(&mut http2).await;
    assert!(kinds.contains(&HEADERS) && !kinds.contains(&DATA), "{kinds:?}");
}

// H2
#[tokio::test]
async fn streams_of_events_on_all_connections_shut_nobody_out() {
    let router = events(Duration::from_secs(3600)).route("/hello", get(async || "hello"));
    let served =
        serve_router(ConnectionLimits { total: 4, per_address: 4, ..ConnectionLimits::default() }, router).await;
    let mut listening = Vec::new();
    for _ in 0..3 {
        let mut stream = served.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(timeout(SOON, read_until(&mut stream, "\r\n\r\n")).await.unwrap().contains("text/event-stream"));
        listening.push(stream);
    }
    // The server's own first connection is the fourth, and gives place first.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut stream = served.connect().await;
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(timeout(SOON, read_until(&mut stream, "hello")).await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
        listening.push(stream);
    }
    assert_eq!((served.closed("refused"), served.closed("evicted")), (0, 2));
}

// H2
#[tokio::test]
async fn bodies_by_the_byte_on_all_connections_shut_nobody_out() {
    let read = async |body: String| body;
    let router = Router::new().route("/", get(async || "hello").post(read));
    let served =
        serve_router(ConnectionLimits { total: 4, per_address: 4, ..ConnectionLimits::default() }, router).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = served.connect().await;
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nv").await.unwrap();
        slow.push(stream);
    }
    // The server's own first connection makes four.
    let all_open = async {
        while served.open() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, all_open).await.unwrap();
    let mut honest = Vec::new();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        for stream in &mut slow {
            // Those that gave place are gone.
            let _ = stream.write_all(b"0").await;
        }
        let mut stream = served.connect().await;
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        assert!(timeout(SOON, read_until(&mut stream, "hello")).await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
        honest.push(stream);
    }
    // None of these gave place to another one of them.
    for mut stream in honest {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(timeout(SOON, read_until(&mut stream, "hello")).await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(served.closed("refused"), 0);
}

/// Writes until the server closes the connection, or so many times.
async fn write_until_closed(stream: &mut TcpStream, bytes: &[u8], times: usize) -> usize {
    let (mut reader, mut writer) = stream.split();
    let mut written = 0;
    let write = async {
        while written < times && writer.write_all(bytes).await.is_ok() {
            written += 1;
        }
        if written == times {
            // The server may still be reading: only its end counts.
            std::future::pending::<()>().await;
        }
    };
    let read = async {
        let mut buffer = [0; 65_536];
        while reader.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    };
    let over = async {
        tokio::select! { () = write => {}, () = read => {} }
    };
    timeout(SOON, over).await.expect("the connection is still open");
    written
}

// H2
#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_are_cut_off() {
    // No deadline is over before the flood.
    let served = serve_router(ConnectionLimits::default(), hello()).await;
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(1000);
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let priorities = frame(2, 0, 1, &[0, 0, 0, 0, 16]).repeat(1000);
    for (number, flood) in [settings, pings, priorities].into_iter().enumerate() {
        let mut stream = begin(&served, &[]).await;
        stream.write_all(&request(1)).await.unwrap();
        let written = write_until_closed(&mut stream, &flood, 10_000).await;
        assert!(written * flood.len() < 16 << 20, "{number}: {written}");
    }
    assert_eq!(served.closed("flood"), 3);
}

// H2: h2 itself bounds these frames.
#[tokio::test]
async fn a_head_of_continuations_without_end_is_cut_off() {
    let served = serve_router(ConnectionLimits::default(), hello()).await;
    let mut stream = begin(&served, &[]).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, REQUEST)).await.unwrap();
    let written =
        write_until_closed(&mut stream, &frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b").repeat(100), 10_000).await;
    assert!(written < 10_000 && served.closed("flood") == 0, "{written}");
}

// H2
#[tokio::test]
async fn requests_that_are_reset_as_soon_as_they_are_made_end_the_connection() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let slow = async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3600)).await;
    };
    let served = serve_router(ConnectionLimits::default(), Router::new().route("/", get(slow))).await;
    // Each one begins before it is reset: h2 itself counts only those that never do.
    let mut stream = begin(&served, &[]).await;
    let mut number = 1;
    let closed = loop {
        let sent = stream.write_all(&request(number)).await;
        let begun = number as usize / 2 + 1;
        let begins = async {
            while seen.load(Ordering::SeqCst) < begun && served.closed("reset") == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, begins).await.expect("no request begins");
        if sent.is_err() || served.closed("reset") > 0 || number > 2000 {
            break served.closed("reset");
        }
        let _ = stream.write_all(&frame(RST_STREAM, 0, number, &8_u32.to_be_bytes())).await;
        number += 2;
    };
    assert_eq!(closed, 1);
    assert!(seen.load(Ordering::SeqCst) < 200, "{seen:?}");

    // All in one go.
    let mut stream = begin(&served, &[]).await;
    let burst = |number: u32| [request(number), frame(RST_STREAM, 0, number, &8_u32.to_be_bytes())].concat();
    let burst: Vec<u8> = (0..1000).flat_map(|index| burst(2 * index + 1)).collect();
    write_until_closed(&mut stream, &burst, 1).await;
    assert!(seen.load(Ordering::SeqCst) < 400, "{seen:?}");
}
