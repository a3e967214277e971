//! HTTPS as clients meet it: the real binary and real sockets; curl, OpenSSL's own client, and pebble, the test server for ACME.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

mod acme;
mod certificates;
mod clients;
mod handshakes;
mod lan;
mod redirects;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use server::tls::identity::Identity;
use server::tls::make::{self, Names};

/// A folder of one test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.path(name)
    }

    /// Writes a pair for `media.test` and loopback, valid for so long; returns its fingerprint.
    pub(crate) fn write_pair(&self, lifetime: Duration) -> String {
        let names = Names { dns: vec!["media.test".to_owned()], ip: vec!["127.0.0.1".parse().unwrap()] };
        let made = make::self_signed(&names, lifetime).unwrap();
        self.write("cert.pem", &made.chain()[0].to_pem().unwrap());
        self.write("key.pem", &made.key().private_key_to_pem_pkcs8().unwrap());
        made.fingerprint()
    }

    /// The flags of that pair.
    pub(crate) fn pair(&self) -> [String; 4] {
        ["--tls-cert".to_owned(), self.path("cert.pem"), "--tls-key".to_owned(), self.path("key.pem")]
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::read(Path::new(&self.path("cert.pem")), Path::new(&self.path("key.pem"))).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Longer than anything here is valid that is not about time.
pub(crate) const A_MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Host and port of a server's base.
pub(crate) fn authority(base: &str) -> &str {
    base.split_once("://").unwrap().1
}

/// Runs curl, quietly.
pub(crate) async fn curl(args: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]).args(args);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

/// What curl prints, which ends well.
pub(crate) async fn curled(args: &[&str]) -> String {
    let output = curl(args).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The fingerprint of the certificate that a server shows, by OpenSSL's client with further arguments.
pub(crate) async fn shown(address: &str, args: &[&str]) -> String {
    let mut command = Command::new("sh");
    let script = "openssl s_client -connect \"$@\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256";
    command.args(["-c", script, "sh", address]).args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split_once('=').map(|(_, fingerprint)| fingerprint.to_owned()).unwrap_or_default()
}
