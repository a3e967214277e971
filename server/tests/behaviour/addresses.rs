//! Where clients are told to send media: ports that something in between maps, names, and addresses that change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};

use loadtest::client::{ClientOptions, PublisherOptions};
use tokio::net::UdpSocket;

use crate::support::{BY_INTERFACES, LONG, Sluice, eventually, free_port, viewer_sees};

/// Set inside the network that a test made for itself.
const INSIDE: &str = "TEST_NETWORK";

/// What maps a public address to the server's own, as a NAT does; where to can be changed.
struct Mapping {
    public: SocketAddr,
    inner: Arc<Mutex<SocketAddr>>,
}

impl Mapping {
    async fn start(public: &str, inner: SocketAddr) -> Mapping {
        let socket = Arc::new(UdpSocket::bind(public).await.unwrap());
        let mapping = Mapping { public: socket.local_addr().unwrap(), inner: Arc::new(Mutex::new(inner)) };
        let target = Arc::clone(&mapping.inner);
        tokio::spawn(async move {
            let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut buffer = [0; 2048];
            // The socket is that of a test, and ends with it.
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let towards_server = match clients.entry(client) {
                    Entry::Occupied(known) => Arc::clone(known.get()),
                    Entry::Vacant(vacant) => {
                        let bound = UdpSocket::bind((socket.local_addr().unwrap().ip(), 0)).await.unwrap();
                        let towards_server = Arc::clone(vacant.insert(Arc::new(bound)));
                        let (from_server, back) = (Arc::clone(&towards_server), Arc::clone(&socket));
                        tokio::spawn(async move {
                            let mut buffer = [0; 2048];
                            while let Ok((length, _)) = from_server.recv_from(&mut buffer).await {
                                let _ = back.send_to(&buffer[..length], client).await;
                            }
                        });
                        towards_server
                    }
                };
                let to = *target.lock().unwrap();
                // What nobody takes is lost, as on any way.
                let _ = towards_server.send_to(&buffer[..length], to).await;
            }
        });
        mapping
    }
}

fn candidates(answer: &loadtest::sdp::Answer) -> Vec<SocketAddr> {
    answer.candidates.iter().map(|candidate| candidate.address).collect()
}

// F-14
#[tokio::test]
async fn clients_reach_a_server_whose_port_is_mapped_by_address_and_by_name() {
    for host in ["127.0.0.1", "localhost"] {
        let port = free_port();
        let mapping = Mapping::start("127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], port))).await;
        let public = format!("{host}:{}", mapping.public.port());
        let server = Sluice::start(&["--public-ip", &public, "--media-port", &port.to_string()]).await;
        let publisher = server.publisher("s").await;
        assert_eq!(candidates(publisher.answer()), [mapping.public]);
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 50).await;
        viewer.stop().await.unwrap();
        publisher.stop().await.unwrap();
    }
}

/// A STUN server that sees everybody at the address that it was told last (RFC 8489 §6.3.1).
async fn stun_server(seen: &Arc<Mutex<Ipv4Addr>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (socket.local_addr().unwrap(), Arc::clone(seen));
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            assert_eq!((length, &buffer[..4]), (20, &[0, 1, 0, 0][..]), "a Binding request without attributes");
            let ip = (u32::from(*seen.lock().unwrap()) ^ 0x2112_a442).to_be_bytes();
            let port = (client.port() ^ 0x2112).to_be_bytes();
            let answer = [&[1, 1, 0, 12], &buffer[4..20], &[0, 0x20, 0, 8, 0, 1], &port, &ip].concat();
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    address
}

// F-14, F-23
#[tokio::test]
async fn what_a_stun_server_sees_is_told_to_clients_and_shown_to_operators() {
    let seen = Arc::new(Mutex::new(Ipv4Addr::LOCALHOST));
    let host = format!("auto:stun:{}", stun_server(&seen).await);
    let server = Sluice::start(&["--public-ip", &host]).await;
    let publisher = server.publisher("s").await;
    let told = candidates(publisher.answer())[0];
    assert_eq!(told.ip(), Ipv4Addr::LOCALHOST);
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 50).await;
    let first = server.log().into_iter().find(|line| line["message"] == "sluice is ready").unwrap();
    assert_eq!(first["addresses"], format!("127.0.0.1 ({host})"));
    let (status, ready) = server.ask("/readyz").await;
    assert!(status == 200 && ready.starts_with(&format!("ready\ncandidate udp {told}\n")), "{ready}");
    let view: serde_json::Value = serde_json::from_str(&server.ask("/api/v1/addresses").await.1).unwrap();
    assert_eq!(view["addresses"], serde_json::json!([{"address": "127.0.0.1", "port": null, "from": host}]));
    assert_eq!(view["candidates"][0], serde_json::json!({"protocol": "udp", "address": told}));
    assert_eq!(view["faults"], serde_json::json!([]));
    assert!(view["read"].is_u64() && view["changed"].is_null(), "{view}");

    *seen.lock().unwrap() = Ipv4Addr::new(203, 0, 113, 8);
    let reply = server.http.post(format!("{}/api/v1/reload", server.admin)).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    eventually("the new address", LONG, async || {
        let view: serde_json::Value = serde_json::from_str(&server.ask("/api/v1/addresses").await.1).unwrap();
        (view["addresses"][0]["address"] == "203.0.113.8" && view["changed"].is_u64()).then_some(())
    })
    .await;
    let later = server.post_publisher("t", PublisherOptions::default(), ClientOptions::default()).await.unwrap();
    assert_eq!(candidates(later.answer())[0].ip(), Ipv4Addr::new(203, 0, 113, 8));
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Runs a test of this file once more, in a network namespace of its own; true inside.
fn is_in_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return true;
    }
    // Whoever is not root becomes so in a user namespace.
    let mut command = Command::new("unshare");
    command.args(if rustix::process::geteuid().is_root() { &["--net"][..] } else { &["--net", "--map-root-user"] });
    command.arg(std::env::current_exe().unwrap()).args(["--exact", &format!("addresses::{test}"), "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

// F-23
#[tokio::test]
async fn new_sessions_are_told_the_addresses_that_the_machine_has_now() {
    if !is_in_own_network("new_sessions_are_told_the_addresses_that_the_machine_has_now") {
        return;
    }
    ip("address add 192.0.2.10/32 dev lo");
    let server = Sluice::start(&[BY_INTERFACES, "--media-ip", "0.0.0.0"]).await;
    let ips = |answer: &loadtest::sdp::Answer| -> Vec<String> {
        candidates(answer).iter().map(|address| address.ip().to_string()).collect()
    };
    let publisher = server.publisher("before").await;
    assert_eq!(ips(publisher.answer()), ["192.0.2.10", "127.0.0.1"]);
    ip("address add 192.0.2.11/32 dev lo");
    ip("address del 192.0.2.10/32 dev lo");
    let changes = async || {
        server.log().into_iter().filter(|line| line["message"].as_str().unwrap_or("").contains("addresses changed"))
    };
    eventually("the old address is gone", LONG, async || {
        changes().await.any(|line| line["removed"] == "192.0.2.10").then_some(())
    })
    .await;
    let publisher = server.publisher("after").await;
    assert_eq!(ips(publisher.answer()), ["192.0.2.11", "127.0.0.1"]);
    let viewer = server.viewer("after").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 50).await;
    // Twice if it was looked at in between.
    let changed = server.metric("sluice_public_address_changes_total", &[]).await;
    assert!((1.0..=2.0).contains(&changed), "{changed}");
    assert_eq!(changes().await.count(), changed as usize);
    assert_eq!(server.metric("sluice_public_address_failures_total", &[]).await, 0.0);
}

// F-23
#[tokio::test]
async fn sessions_go_on_when_the_address_behind_a_nat_changes() {
    if !is_in_own_network("sessions_go_on_when_the_address_behind_a_nat_changes") {
        return;
    }
    ip("address add 192.0.2.10/32 dev lo");
    ip("address add 203.0.113.7/32 dev lo");
    let port = free_port();
    let mapping = Mapping::start("203.0.113.7:0", SocketAddr::from(([192, 0, 2, 10], port))).await;
    let (public, port) = (mapping.public.to_string(), port.to_string());
    let server = Sluice::start(&["--media-ip", "0.0.0.0", "--public-ip", &public, "--media-port", &port]).await;
    let options = ClientOptions { bind: Some([127, 0, 0, 1].into()), ..ClientOptions::default() };
    let publisher = server.publisher_with("s", PublisherOptions::default(), options.clone()).await;
    let viewer = server.post_viewer("s", options).await.unwrap();
    viewer_sees("media", &viewer, LONG, |figures| figures.video.delivered > 50).await;

    ip("address add 192.0.2.11/32 dev lo");
    mapping.inner.lock().unwrap().set_ip([192, 0, 2, 11].into());
    ip("address del 192.0.2.10/32 dev lo");
    let delivered = viewer.figures().video.delivered;
    viewer_sees("media from the new address", &viewer, LONG, |figures| figures.video.delivered > delivered + 300).await;
    publisher.stop().await.unwrap();
}
