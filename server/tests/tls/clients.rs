//! Clients of HTTPS: what they may speak, and that WHIP and WHEP work over it.

use loadtest::client::{ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, Viewer, ViewerOptions};

use crate::support::{LONG, Sluice, viewer_sees};
use crate::{A_MONTH, Folder, authority, curl, curled};

const OFFER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../signaling/tests/golden/chromium-publish.sdp");

/// A server with a pair of files, and curl's argument to trust it.
pub(crate) async fn start(folder: &Folder, further: &[&str]) -> Sluice {
    folder.write_pair(A_MONTH);
    let pair = folder.pair();
    let args: Vec<&str> = pair.iter().map(String::as_str).chain(further.iter().copied()).collect();
    Sluice::start(&args).await
}

// HTTP-01, HTTP-02
#[tokio::test]
async fn http_1_1_and_http_2_are_served_over_tls_1_2_and_1_3_and_nothing_older_is() {
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let (url, ca) = (format!("{}/streams.json", server.base), folder.path("cert.pem"));
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let format = "%{http_version} %{ssl_verify_result} %{response_code}";
    for (version, protocol, seen) in
        [("1.2", "--http1.1", "1.1"), ("1.2", "--http2", "2"), ("1.3", "--http1.1", "1.1"), ("1.3", "--http2", "2")]
    {
        let tls = format!("--tlsv{version}");
        let args = ["--cacert", &ca, &tls, "--tls-max", version, protocol, "-o", "/dev/null", "-w", format, &url];
        assert_eq!(curled(&args).await, format!("{seen} 0 200"), "TLS {version}, {protocol}");
    }
    // Without a choice of protocols (ALPN) it is HTTP/1.1.
    let plain = ["--cacert", &ca, "--no-alpn", "-o", "/dev/null", "-w", "%{http_version}", &url];
    assert_eq!(curled(&plain).await, "1.1");
    let old = curl(&["--cacert", &ca, "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "ALL@SECLEVEL=0", &url]).await;
    assert!(!old.status.success());
    assert_eq!(server.metric("sluice_http_connections_closed_total", &[("reason", "handshake")]).await, 1.0);
}

// HTTP-01, HTTP-02
#[tokio::test]
async fn a_stream_is_published_and_watched_over_https() {
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let root = reqwest::Certificate::from_pem(&std::fs::read(folder.path("cert.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().add_root_certificate(root).no_proxy().build().unwrap();
    let endpoint = |path: &str| Endpoint { http: http.clone(), url: format!("{}/{path}", server.base), token: None };
    let options = ClientOptions::default;
    let identity = Identity::new(&options()).unwrap();
    let publisher =
        Publisher::start(&endpoint("whip/s"), &identity, PublisherOptions::default(), options()).await.unwrap();
    publisher.connected().await.unwrap();
    let viewer = Viewer::start(&endpoint("whep/s"), &identity, ViewerOptions::default(), options()).await.unwrap();
    viewer.connected().await.unwrap();
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
}

// HTTP-02
#[tokio::test]
async fn a_session_is_opened_read_and_ended_alike_over_http_1_1_and_http_2() {
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let ca = folder.path("cert.pem");
    for (stream, version) in [("one", "--http1.1"), ("two", "--http2")] {
        let common = ["--cacert", &ca, version, "-o", "/dev/null", "-w", "%{response_code}|%{header_json}"];
        let ask = async |further: &[&str]| {
            let args: Vec<&str> = common.iter().chain(further).copied().collect();
            let said = curled(&args).await;
            let (status, headers) = said.split_once('|').unwrap();
            (status.to_owned(), serde_json::from_str::<serde_json::Value>(headers).unwrap())
        };
        let (body, url) = (format!("@{OFFER}"), format!("{}/whip/{stream}", server.base));
        let (status, headers) = ask(&["-H", "Content-Type: application/sdp", "--data-binary", &body, &url]).await;
        assert_eq!(status, "201", "{version}: {headers}");
        let header = |name: &str| headers[name][0].as_str().unwrap_or_else(|| panic!("{version}: {name}: {headers}"));
        assert_eq!(header("content-type"), "application/sdp");
        assert!(header("etag").starts_with('"'));
        let session = format!("{}{}", server.base, header("location"));
        for (method, expected) in [("GET", "204"), ("DELETE", "200")] {
            assert_eq!(ask(&["-X", method, &session]).await.0, expected, "{version}: {method}");
        }
    }
}

#[tokio::test]
async fn browsers_are_told_to_use_https_by_switch_and_over_https_alone() {
    let folder = Folder::new();
    let server = start(&folder, &["--hsts", "31536000"]).await;
    let ca = folder.path("cert.pem");
    let head = curled(&["--cacert", &ca, "--head", &server.base]).await.to_ascii_lowercase();
    assert!(head.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{head}");
    let missing = curled(&["--cacert", &ca, "-i", &format!("{}/nothing", server.base)]).await.to_ascii_lowercase();
    assert!(missing.contains("\r\nstrict-transport-security: "), "{missing}");
    let clear = curled(&["-i", &format!("http://{}/", authority(&server.base))]).await.to_ascii_lowercase();
    assert!(clear.contains(" 308 ") && !clear.contains("strict-transport-security"), "{clear}");
    let folder = Folder::new();
    let server = start(&folder, &[]).await;
    let head = curled(&["--cacert", &folder.path("cert.pem"), "--head", &server.base]).await.to_ascii_lowercase();
    assert!(!head.contains("strict-transport-security"), "{head}");
}
