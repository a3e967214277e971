//! Clear text where HTTPS is served.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::start;
use crate::support::{Sluice, free_port};
use crate::{Folder, authority, curled};

const SHOW: &str = "%{response_code} %{redirect_url}";

fn port(authority: &str) -> &str {
    authority.rsplit_once(':').unwrap().1
}

// HTTP-01
#[tokio::test]
async fn clear_text_on_the_https_port_is_sent_to_https_without_its_body() {
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let address = authority(&server.base);
    let url = format!("http://{address}/whip/s?x=1");
    let got = curled(&["-o", "/dev/null", "-w", SHOW, &url]).await;
    assert_eq!(got, format!("308 https://{address}/whip/s?x=1"));
    // The body never comes.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /whip/s HTTP/1.1\r\nHost: {address}\r\nContent-Length: 60000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = vec![0; 12];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply, b"HTTP/1.1 308");
    assert_eq!(server.get("/api/v1/sessions").await, Value::Array(Vec::new()));
    // Nobody can be sent anywhere without a host.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.0 400 ") && reply.contains("\"code\":\"bad-request\""), "{reply}");
}

// HTTP-01
#[tokio::test]
async fn a_listener_of_its_own_sends_clients_to_the_port_of_https() {
    let folder = Folder::new();
    let free = format!("127.0.0.1:{}", free_port());
    let server = start(&folder, &["--http-redirect", &free]).await;
    let got = curled(&["-o", "/dev/null", "-w", SHOW, &format!("http://{free}/watch/s")]).await;
    assert_eq!(got, format!("308 https://127.0.0.1:{}/watch/s", port(authority(&server.base))));
    let names = ["-o", "/dev/null", "-w", "%{response_code}", "-H", "Host: evil.test", &format!("http://{free}/")];
    assert_eq!(curled(&names).await, "403", "a name that is not this server's");
}

#[tokio::test]
async fn without_a_certificate_clear_text_is_served_and_tls_is_not() {
    let server = Sluice::start(&[]).await;
    assert_eq!(curled(&["-o", "/dev/null", "-w", "%{response_code}", &server.base]).await, "200");
    let tls = crate::curl(&["-k", &server.base.replace("http:", "https:")]).await;
    assert!(!tls.status.success());
    assert_eq!(server.metric("sluice_http_connections_closed_total", &[("reason", "protocol")]).await, 1.0);
}
