//! Clients that open TCP connections and say nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use socket2::{Domain, Socket, Type};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// The time for a request's head, and some for a busy machine.
const HEAD_TIME: Duration = Duration::from_secs(15);

// F-09
#[tokio::test]
async fn silent_connections_neither_shut_others_out_nor_stay_open_when_files_run_out() {
    let server = Sluice::start_with_files(80, &[]).await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let silent: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let begun = Instant::now();
    // Behind all of them in the system's queue: the server has no place left when its turn comes.
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 20).await;
    let metrics = server.metrics().await;
    // H2: what scrapes, look-ups and the admin listener need stays free.
    assert_eq!(metrics.sum("sluice_http_accept_failures_total", &[]), 0.0);
    assert!(metrics.sum("sluice_http_connections_closed_total", &[("reason", "evicted")]) > 0.0);
    assert!(begun.elapsed() < HEAD_TIME, "{:?}", begun.elapsed());

    for mut stream in silent {
        let left = HEAD_TIME.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).unwrap();
        // A reset is an end as well.
        let end = stream.read(&mut [0; 1]).or_else(|error| match error.kind() {
            std::io::ErrorKind::ConnectionReset => Ok(0),
            _ => Err(error),
        });
        assert_eq!(end.unwrap(), 0);
    }
    assert!(viewer.stop().await.unwrap().is_intact());
    publisher.stop().await.unwrap();
}

/// Connections from one address of this machine.
fn connect_from(from: &str, to: &str, count: usize) -> Vec<Socket> {
    let to: SocketAddr = to.trim_start_matches("http://").parse().unwrap();
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        socket
    };
    (0..count).map(|_| connect()).collect()
}

// H2
#[tokio::test]
async fn an_address_that_fills_all_connections_shuts_no_other_one_out() {
    let limits = ["--max-connections", "200", "--max-connections-per-address", "200"];
    let server = Sluice::start(&limits).await;
    // As fast as they come, so that none of them has been quiet for long.
    let silent = connect_from("127.0.0.2", &server.base, 200);
    eventually("all places are taken", LONG, async || {
        (server.metric("sluice_http_connections", &[("listener", "public")]).await >= 200.0).then_some(())
    })
    .await;
    for _ in 0..20 {
        let reply = server.http.get(&server.base).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    }
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("sluice_http_connections_closed_total", &[("reason", "refused")]), 0.0);
    assert!(metrics.sum("sluice_http_connections_closed_total", &[("reason", "evicted")]) >= 1.0);
    drop(silent);
}

// H2
#[tokio::test]
async fn the_admin_listener_answers_while_the_public_one_has_used_up_all_files() {
    let server = Sluice::start(&[]).await;
    let silent = connect_from("127.0.0.2", &server.base, 60);
    eventually("they are open", LONG, async || {
        (server.metric("sluice_http_connections", &[("listener", "public")]).await >= 60.0).then_some(())
    })
    .await;
    // What the server has is all that it may have from now on, and more wait at the public listener.
    let files = eventually("requests are over", LONG, async || {
        let files = server.process().fd_count().unwrap() as u64;
        (server.metric("sluice_http_connections", &[]).await <= 61.0).then_some(files)
    })
    .await;
    let limit = Rlimit { current: Some(files), maximum: Some(files) };
    prlimit(Pid::from_raw(server.pid() as i32), Resource::Nofile, limit).unwrap();
    let waiting = connect_from("127.0.0.3", &server.base, 100);
    for path in ["/healthz", "/readyz", "/api/v1/sessions", "/metrics"] {
        let begun = Instant::now();
        let reply = server.http.get(format!("{}{path}", server.admin)).send().await.unwrap();
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        assert!(begun.elapsed() < Duration::from_secs(5), "{path}: {:?}", begun.elapsed());
    }
    let evicted = |listener| [("reason", "evicted"), ("listener", listener)];
    // They count once they have closed.
    let metrics = eventually("some give place", LONG, async || {
        let metrics = server.metrics().await;
        (metrics.sum("sluice_http_connections_closed_total", &evicted("public")) > 0.0).then_some(metrics)
    })
    .await;
    assert!(metrics.sum("sluice_http_accept_failures_total", &[]) > 0.0);
    assert_eq!(metrics.sum("sluice_http_connections_closed_total", &evicted("admin")), 0.0);
    let lines = server.log().into_iter().filter(|entry| entry["message"].as_str().unwrap_or("").contains("accept"));
    assert!(lines.count() <= 2, "one a listener and minute: {:?}", server.log());
    drop((silent, waiting));
}

// M2
#[tokio::test]
async fn the_admin_listener_may_be_a_unix_socket_that_goes_with_the_server() {
    let directory = std::env::temp_dir().join(format!("sluice-{}-behaviour", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("admin.sock");
    let listen = format!("unix:{}", path.display());
    // As a crash leaves it.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut server = Sluice::start(&["--admin-listen", &listen]).await;
    assert_eq!(server.admin, listen);
    let ask = |host: &str, target: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    assert!(ask("localhost", "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(ask("evil.example", "/api/v1/sessions").contains("host-not-allowed"));
    server.terminate();
    assert_eq!(server.exited(LONG).await.code(), Some(0));
    assert!(!path.exists());
    std::fs::remove_dir(directory).unwrap();
}
