//! ACME against pebble, Debian's test server for it, over real sockets.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use server::tls::make::{self, Names};

use crate::support::{LONG, Sluice, eventually, free_port};
use crate::{A_MONTH, Folder, authority, curled, shown};

const DOMAIN: &str = "media.test";

/// A certificate authority that asks this machine for every name, and whose own certificate the server trusts.
struct Pebble {
    child: Option<Child>,
    /// Resolves every name to loopback.
    names: Child,
    folder: Folder,
    directory: String,
    management: String,
    names_at: String,
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

impl Pebble {
    /// Certificates are valid for so many seconds; challenges are looked for at this port of loopback.
    async fn start(lifetime: u64, tls_port: u16) -> Pebble {
        let folder = Folder::new();
        folder.write_pair(A_MONTH);
        let (listen, management, names_at) = (free(), free(), free());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen.to_string(), "managementListenAddress": management.to_string(),
            "certificate": folder.path("cert.pem"), "privateKey": folder.path("key.pem"),
            "httpPort": free().port(), "tlsPort": tls_port, "certificateValidityPeriod": lifetime,
        }});
        folder.write("pebble.json", config.to_string().as_bytes());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &names_at.to_string(), "-management", &free().to_string()]);
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        let names =
            names.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pebble-challtestsrv of Debian's pebble");
        let (directory, management) = (format!("https://{listen}/dir"), format!("https://{management}"));
        let mut pebble = Pebble { child: None, names, folder, directory, management, names_at: names_at.to_string() };
        pebble.come_back().await;
        pebble
    }

    /// Starts; nothing of a former run is known to it.
    async fn come_back(&mut self) {
        let mut command = Command::new("pebble");
        command.args(["-strict", "-config", &self.folder.path("pebble.json"), "-dnsserver", &self.names_at]);
        command.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")]);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("Debian's pebble"));
        let (ca, url) = (self.folder.path("cert.pem"), format!("{}/roots/0", self.management));
        eventually("pebble answers", LONG, async || {
            let output = crate::curl(&["--cacert", &ca, "-f", &url]).await;
            output.status.success().then_some(())
        })
        .await;
    }

    fn go_away(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The root of what it signs, as a file.
    async fn root(&self) -> String {
        let (ca, url) = (self.folder.path("cert.pem"), format!("{}/roots/0", self.management));
        self.folder.write("root.pem", curled(&["--cacert", &ca, &url]).await.as_bytes())
    }

    /// A server that orders here.
    async fn order(&self, listen: SocketAddr, domain: &str) -> Sluice {
        let (trust, state, listen) = (self.folder.path("cert.pem"), self.folder.path("state"), listen.to_string());
        let args = [
            "--http-listen",
            &listen,
            "--open",
            "--acme-domain",
            domain,
            "--acme-directory",
            &self.directory,
            "--acme-state",
            &state,
        ];
        Sluice::start_in(&[("SSL_CERT_FILE", &trust)], &args).await
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.go_away();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

async fn attempts(server: &Sluice, outcome: &str) -> f64 {
    server.metric("sluice_acme_attempts_total", &[("outcome", outcome)]).await
}

async fn attempted(server: &Sluice, outcome: &str, count: f64) {
    eventually(&format!("attempt {count} ends: {outcome}"), LONG, async || {
        (attempts(server, outcome).await >= count).then_some(())
    })
    .await;
}

fn address(server: &Sluice) -> String {
    format!("127.0.0.1:{}", authority(&server.base).rsplit_once(':').unwrap().1)
}

#[tokio::test]
async fn a_certificate_is_issued_served_and_kept_over_a_restart() {
    let listen = free();
    let mut pebble = Pebble::start(3600, listen.port()).await;
    let server = pebble.order(listen, DOMAIN).await;
    attempted(&server, "success", 1.0).await;
    let root = pebble.root().await;
    let (url, resolve) =
        (format!("https://{DOMAIN}:{}/", listen.port()), format!("{DOMAIN}:{}:127.0.0.1", listen.port()));
    let args = ["--cacert", &root, "--resolve", &resolve, "-o", "/dev/null", "-w", "%{response_code}", &url];
    assert_eq!(curled(&args).await, "200");
    assert!(server.base.starts_with(&format!("https://{DOMAIN}:")), "{}", server.base);
    let issued = shown(&address(&server), &["-servername", DOMAIN]).await;
    drop(server);
    // It needs nobody for what it has.
    pebble.go_away();
    let server = pebble.order(listen, DOMAIN).await;
    assert_eq!(shown(&address(&server), &["-servername", DOMAIN]).await, issued);
    assert_eq!(attempts(&server, "away").await, 0.0);
}

#[tokio::test]
async fn a_certificate_is_renewed_with_a_third_of_its_time_left() {
    let listen = free();
    let pebble = Pebble::start(15, listen.port()).await;
    let server = pebble.order(listen, DOMAIN).await;
    attempted(&server, "success", 1.0).await;
    let first = shown(&address(&server), &[]).await;
    attempted(&server, "success", 2.0).await;
    let second = shown(&address(&server), &[]).await;
    assert_ne!(first, second);
    let expires = server.metric("sluice_tls_certificate_expiry_timestamp_seconds", &[]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(expires > now && expires < now + 16.0, "{expires} {now}");
}

#[tokio::test]
async fn a_refused_challenge_is_counted_and_said_and_https_goes_on() {
    let (listen, elsewhere) = (free(), free());
    // The authority looks for the answer where nobody is.
    let pebble = Pebble::start(3600, elsewhere.port()).await;
    let server = pebble.order(listen, DOMAIN).await;
    attempted(&server, "refused", 1.0).await;
    let said = |entry: &serde_json::Value| entry["error"].as_str().is_some_and(|text| text.contains(DOMAIN));
    eventually("the log says so", LONG, async || server.log().iter().any(said).then_some(())).await;
    assert_eq!(
        curled(&["-k", "-o", "/dev/null", "-w", "%{response_code}", &format!("https://{listen}/")]).await,
        "200"
    );
}

#[tokio::test]
async fn an_authority_that_is_away_is_asked_again_and_one_that_forgot_the_account_too() {
    let listen = free();
    let mut pebble = Pebble::start(3600, listen.port()).await;
    pebble.go_away();
    let server = pebble.order(listen, DOMAIN).await;
    attempted(&server, "away", 1.0).await;
    let before = shown(&address(&server), &[]).await;
    assert_eq!(before.len(), 32 * 3 - 1, "something is shown meanwhile");
    pebble.come_back().await;
    // At once, as the operator says that something has changed.
    server.signal("HUP");
    attempted(&server, "success", 1.0).await;
    assert_ne!(shown(&address(&server), &[]).await, before);
    // It starts anew without any memory, and the certificate is gone: the account that was kept is nobody's.
    drop(server);
    pebble.go_away();
    pebble.come_back().await;
    let kept = std::fs::read_dir(pebble.folder.path("state")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(kept.join("certificate.pem")).unwrap();
    let server = pebble.order(listen, DOMAIN).await;
    attempted(&server, "success", 1.0).await;
}

#[tokio::test]
async fn only_a_challenge_that_is_open_is_answered_and_clients_never_see_the_answer() {
    let folder = Folder::new();
    let names = Names { dns: vec![DOMAIN.to_owned()], ip: Vec::new() };
    let made = make::self_signed(&names, A_MONTH).unwrap();
    folder.write("cert.pem", &made.chain()[0].to_pem().unwrap());
    folder.write("key.pem", &made.key().private_key_to_pem_pkcs8().unwrap());
    let pair = folder.pair();
    let server = Sluice::start(&pair.each_ref().map(String::as_str)).await;
    let address = address(&server);
    assert_eq!(shown(&address, &["-servername", DOMAIN]).await, made.fingerprint());
    let challenged = shown(&address, &["-servername", DOMAIN, "-alpn", "acme-tls/1"]).await;
    assert_eq!(challenged, "", "there is no order, so the handshake is refused");
    tokio::time::timeout(Duration::from_secs(5), crate::curl(&["-k", &format!("https://{address}/")])).await.unwrap();
}
