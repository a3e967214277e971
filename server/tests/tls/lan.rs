//! A try-out in one's own network.

use std::net::SocketAddr;

use crate::support::{BY_INTERFACES, LONG, Sluice, eventually};
use crate::{authority, curled, shown};

fn lan_address() -> Option<std::net::IpAddr> {
    // No packet is sent: the system only chooses the interface.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_for_this_machine_and_its_fingerprint_is_in_the_log() {
    let server = Sluice::start(&["--tls-self-signed"]).await;
    let entry = eventually("the line of the certificate", LONG, async || {
        server.log().into_iter().find(|entry| entry["fingerprint"].is_string())
    })
    .await;
    let address = authority(&server.base).to_owned();
    assert_eq!(shown(&address, &[]).await, entry["fingerprint"].as_str().unwrap());
    assert!(entry["names"].as_str().unwrap().split(' ').any(|name| name == "localhost"), "{entry}");
    // It is for localhost and for loopback, and each start has its own.
    let pem = std::env::temp_dir().join(format!("sluice-{}-self-signed.pem", std::process::id()));
    let script =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 > {}", pem.display());
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let port = address.rsplit_once(':').unwrap().1;
    for host in ["localhost", "127.0.0.1"] {
        let resolve = format!("localhost:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}/");
        let args = [
            "--cacert",
            pem.to_str().unwrap(),
            "--resolve",
            &resolve,
            "-o",
            "/dev/null",
            "-w",
            "%{response_code}",
            &url,
        ];
        assert_eq!(curled(&args).await, "200", "{host}");
    }
    std::fs::remove_file(pem).unwrap();
    let other = Sluice::start(&["--tls-self-signed"]).await;
    assert_ne!(shown(authority(&other.base), &[]).await, entry["fingerprint"].as_str().unwrap());
}

#[tokio::test]
async fn lan_serves_https_and_media_on_the_addresses_of_the_network() {
    let args = ["--lan", "--http-listen", "0.0.0.0:0", "--media-ip", "0.0.0.0", BY_INTERFACES];
    let server = Sluice::start(&args).await;
    assert_eq!(curled(&["-k", "-o", "/dev/null", "-w", "%{response_code}", &server.base]).await, "200");
    let page: SocketAddr = authority(&server.base).parse().unwrap();
    assert_eq!(page.ip(), server.candidates[0].ip(), "pages and media are at one address");
    if let Some(ip) = lan_address() {
        assert!(server.candidates.iter().any(|candidate| candidate.ip() == ip), "{:?}", server.candidates);
        let cross = format!("https://{ip}:{}/streams.json", page.port());
        assert_eq!(curled(&["-k", &cross]).await, "[]", "whoever is in the network may");
    }
    let warned =
        |text: &str| server.log().iter().any(|entry| entry["message"].as_str().is_some_and(|m| m.contains(text)));
    eventually("the warning", LONG, async || warned("everybody in this network may publish and watch").then_some(()))
        .await;
    assert!(!warned("speaks clear text"));
}
