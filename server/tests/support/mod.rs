//! What the tests share: the real binary on free ports of this machine, its admin API, its metrics and its log; and clients for it.

// Every test binary uses its own part of it.
#![allow(dead_code)]

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use loadtest::client::{
    ClientError, ClientOptions, Endpoint, Identity, Publisher, PublisherOptions, Viewer, ViewerOptions,
};
use loadtest::run::Plan;
use procfs::process::Process;
use serde_json::Value;

/// Nothing takes this long, not even on a machine that does other things.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Stands in for `--public-ip` among the arguments: the addresses of the interfaces are advertised.
pub(crate) const BY_INTERFACES: &str = "by interfaces";

const BINARY: &str = env!("CARGO_BIN_EXE_sluice");

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// A running server. Dropping it kills it.
pub(crate) struct Sluice {
    child: Child,
    pub(crate) base: String,
    pub(crate) admin: String,
    /// Media addresses, one a shard and advertised address.
    pub(crate) candidates: Vec<std::net::SocketAddr>,
    pub(crate) http: reqwest::Client,
    log: Arc<Mutex<Vec<Value>>>,
    /// The test makes it find faults in itself.
    expects_errors: Cell<bool>,
}

impl Sluice {
    /// Starts the server on loopback with further arguments; they win over its own.
    pub(crate) async fn start(args: &[&str]) -> Sluice {
        Sluice::start_in(&[], args).await
    }

    /// The same with further environment variables.
    pub(crate) async fn start_in(environment: &[(&str, &str)], args: &[&str]) -> Sluice {
        Sluice::start_by(Command::new(BINARY), environment, args).await
    }

    /// The same, allowed to have so many files open.
    pub(crate) async fn start_with_files(files: usize, args: &[&str]) -> Sluice {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), BINARY]);
        Sluice::start_by(command, &[], args).await
    }

    /// The same on ports chosen here, with a stderr from which nobody learns them.
    pub(crate) async fn start_unheard(stderr: Stdio, args: &[&str]) -> Sluice {
        let [public, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut command = Command::new(BINARY);
        forget_settings(&mut command);
        command.args(["--http-listen", &public, "--admin-listen", &admin, "--media-port", "0", "--shards", "1"]);
        command.args(["--media-ip", "127.0.0.1", "--public-ip", "127.0.0.1"]).args(args);
        let child = command.stderr(stderr).spawn().unwrap();
        let mut server = Sluice::of(child);
        (server.base, server.admin) = (format!("http://{public}"), format!("http://{admin}"));
        eventually("the server is ready", LONG, async || {
            assert_eq!(server.child.try_wait().unwrap(), None);
            let reply = server.http.get(format!("{}/readyz", server.admin)).send().await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
        server
    }

    fn of(child: Child) -> Sluice {
        Sluice {
            child,
            base: String::new(),
            admin: String::new(),
            candidates: Vec::new(),
            // No connection outlives its request: open ones of the server are to be its own.
            http: reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            log: Arc::default(),
            expects_errors: Cell::new(false),
        }
    }

    /// The same without any capability; whoever is not root has none anyway.
    pub(crate) async fn start_unprivileged(args: &[&str]) -> Sluice {
        if !rustix::process::geteuid().is_root() {
            return Sluice::start(args).await;
        }
        let mut command = Command::new("setpriv");
        command.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", BINARY]);
        Sluice::start_by(command, &[], args).await
    }

    async fn start_by(mut command: Command, environment: &[(&str, &str)], args: &[&str]) -> Sluice {
        forget_settings(&mut command);
        command.envs(environment.iter().copied());
        let mut all = vec!["--log-format", "json"];
        let listen = [("--http-listen", "127.0.0.1:0"), ("--admin-listen", "127.0.0.1:0")];
        let media =
            [("--media-port", "0"), ("--media-ip", "127.0.0.1"), ("--public-ip", "127.0.0.1"), ("--shards", "1")];
        let own = listen.into_iter().chain(media);
        let by_interfaces = args.contains(&BY_INTERFACES);
        let is_own = |flag: &str| !args.contains(&flag) && (flag != "--public-ip" || !by_interfaces);
        all.extend(own.filter(|(flag, _)| is_own(flag)).flat_map(|(flag, value)| [flag, value]));
        all.extend(args.iter().filter(|arg| **arg != BY_INTERFACES));
        let mut child = command.args(all).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut server = Sluice::of(child);
        let written = Arc::clone(&server.log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let entry = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().unwrap().push(entry);
            }
        });
        let ready = eventually("the server is ready", LONG, async || {
            assert_eq!(server.child.try_wait().unwrap(), None, "{:?}", server.log());
            server.log().into_iter().find(|entry| entry["message"] == "sluice is ready")
        })
        .await;
        let text = |name: &str| ready[name].as_str().unwrap().trim_end_matches('/').to_owned();
        (server.base, server.admin) = (text("pages"), text("admin"));
        server.candidates = text("candidates").split(' ').map(|address| address.parse().unwrap()).collect();
        server
    }

    /// All lines of the log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A plan of the load test for this server: one publisher of 500 kbit/s with one viewer, for two seconds.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            whip: Some(format!("{}/whip/s{{i}}", self.base)),
            whep: Some(format!("{}/whep/s{{i}}", self.base)),
            token: None,
            publishers: 1,
            viewers: 1,
            duration: Duration::from_secs(2),
            rate: None,
            media: PublisherOptions { bitrate: 500, ..PublisherOptions::default() },
            client: ClientOptions { connect_timeout: LONG, ..ClientOptions::default() },
            transport_cc: false,
            server_pid: None,
            threads: 2,
        }
    }

    /// What the system knows of the process.
    pub(crate) fn process(&self) -> Process {
        Process::new(self.pid() as i32).unwrap()
    }

    pub(crate) fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint { http: self.http.clone(), url: format!("{}/{path}", self.base), token: None }
    }

    /// Posts a publisher's offer.
    pub(crate) async fn post_publisher(
        &self,
        stream: &str,
        media: PublisherOptions,
        options: ClientOptions,
    ) -> Result<Publisher, ClientError> {
        let identity = Identity::new(&options)?;
        Publisher::start(&self.endpoint(&format!("whip/{stream}")), &identity, media, options).await
    }

    /// Posts a viewer's offer.
    pub(crate) async fn post_viewer(&self, stream: &str, options: ClientOptions) -> Result<Viewer, ClientError> {
        self.post_viewer_with(stream, ViewerOptions::default(), options).await
    }

    /// Posts a viewer's offer of these media.
    pub(crate) async fn post_viewer_with(
        &self,
        stream: &str,
        media: ViewerOptions,
        options: ClientOptions,
    ) -> Result<Viewer, ClientError> {
        let identity = Identity::new(&options)?;
        Viewer::start(&self.endpoint(&format!("whep/{stream}")), &identity, media, options).await
    }

    /// A good publisher, whose media flows.
    pub(crate) async fn publisher(&self, stream: &str) -> Publisher {
        self.publisher_with(stream, PublisherOptions::default(), ClientOptions::default()).await
    }

    /// A publisher whose media flows.
    pub(crate) async fn publisher_with(
        &self,
        stream: &str,
        media: PublisherOptions,
        options: ClientOptions,
    ) -> Publisher {
        let publisher = self.post_publisher(stream, media, options).await.unwrap();
        publisher.connected().await.unwrap();
        publisher
    }

    /// A good viewer, connected.
    pub(crate) async fn viewer(&self, stream: &str) -> Viewer {
        let viewer = self.post_viewer(stream, ClientOptions::default()).await.unwrap();
        viewer.connected().await.unwrap();
        viewer
    }

    /// Reads JSON of the admin API.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.http.get(format!("{}{path}", self.admin)).send().await.unwrap();
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        serde_json::from_str(&reply.text().await.unwrap()).unwrap()
    }

    /// The sessions of one stream and role, oldest first.
    pub(crate) async fn sessions(&self, stream: &str, role: &str) -> Vec<Value> {
        let Value::Array(mut sessions) = self.get(&format!("/api/v1/sessions?stream={stream}")).await else {
            panic!("no list");
        };
        sessions.retain(|session| session["role"] == role);
        sessions
    }

    /// The newest session of one stream and role.
    pub(crate) async fn session(&self, stream: &str, role: &str) -> Value {
        let id = self.sessions(stream, role).await.last().unwrap()["id"].as_str().unwrap().to_owned();
        self.get(&format!("/api/v1/sessions/{id}")).await
    }

    /// The sum of all series of a metric that have these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.sum(name, labels)
    }

    /// Waits until the series of a counter sum up to this value, and fails as soon as they are more. What happens is counted
    /// by another thread, right after the API tells it.
    pub(crate) async fn counts(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        eventually(&format!("{name} {labels:?} is {expected}"), LONG, async || {
            let count = self.metric(name, labels).await;
            assert!(count <= expected, "{name} {labels:?}: {count} instead of {expected}");
            (count == expected).then_some(())
        })
        .await;
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let reply = self.http.get(format!("{}/metrics", self.admin)).send().await.unwrap();
        Metrics(reply.text().await.unwrap())
    }

    /// The closing lines of a session in the log.
    pub(crate) fn closing_lines(&self, session: &str) -> Vec<Value> {
        let is_last = |entry: &Value| entry["message"] == "session ended" && entry["session"] == session;
        self.log().into_iter().filter(is_last).collect()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Lets a thread of it fail: `shard/0/panic`, `handshake-thread/0/freeze`.
    pub(crate) async fn fault(&self, fault: &str) {
        let reply = self.http.post(format!("{}/api/v1/faults/{fault}", self.admin)).send().await.unwrap();
        assert_eq!(reply.status(), 204);
    }

    /// Errors in its log are what the test is about.
    pub(crate) fn expects_errors(&self) {
        self.expects_errors.set(true);
    }

    /// Status and body of an admin resource.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let reply = self.http.get(format!("{}{path}", self.admin)).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    /// Waits until the process is gone.
    pub(crate) async fn exited(&mut self, within: Duration) -> ExitStatus {
        eventually("the server exits", within, async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.log().iter().for_each(|entry| eprintln!("{entry}"));
        } else if !self.expects_errors.get() {
            // Whatever a test does to the server: it finds no fault in itself. A panic is no JSON.
            let bad = |entry: &&Value| entry["level"] == "ERROR" || entry.is_string();
            assert_eq!(self.log().iter().filter(bad).collect::<Vec<_>>(), Vec::<&Value>::new());
        }
    }
}

/// The settings of whoever runs the tests are not those of the tests, which may let threads fail.
fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLUICE_")) {
        command.env_remove(name);
    }
    command.env("FAULT_INJECTION", "1");
}

/// A port that nobody uses, for UDP and for TCP, below those which the system hands out by itself: nothing else that runs gets it
/// before the server does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let any = (std::net::Ipv4Addr::UNSPECIFIED, port);
        if std::net::TcpListener::bind(any).is_ok() && std::net::UdpSocket::bind(any).is_ok() {
            return port;
        }
    }
}

/// One scrape.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all series of a metric that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |line: &str| labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")));
        let series = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = line.rsplit(' ').next()?.parse::<f64>().ok()?;
            (rest.starts_with(['{', ' ']) && has(rest)).then_some(value)
        });
        series.sum()
    }
}

/// Waits until `look` sees something, and returns it.
pub(crate) async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(GLANCE).await;
    }
}

/// Waits until a viewer's figures satisfy a condition.
pub(crate) async fn viewer_sees(
    what: &str,
    viewer: &Viewer,
    within: Duration,
    mut condition: impl FnMut(&loadtest::client::ViewerFigures) -> bool,
) {
    let begun = Instant::now();
    while !condition(&viewer.figures()) {
        let figures = viewer.figures();
        assert!(viewer.failure().is_none(), "{what}: {:?} {figures:?}", viewer.failure());
        assert!(begun.elapsed() < within, "not within {within:?}: {what}: {figures:?}");
        tokio::time::sleep(GLANCE).await;
    }
}
