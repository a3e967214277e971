//! What the tests share: a media plane that only records, a client that speaks to the router, and a judge of answers.

// Each test binary uses its own part, and a test may panic.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod sdp;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use media_core::layers::LayerSelection;
use media_core::ledger::Reason;
use media_core::media::{Role, TrackId};
use media_core::{
    Fingerprint, FingerprintHash, IceRestart, LocalCandidate, Protocol, RemoteCandidate, SessionId, SessionSpec,
    ShardIndex, StreamId,
};
use rand::Rng;
use rand::rngs::StdRng;
use signaling::{ClientAddress, MediaPlane, Observer, Signaling, SignalingConfig, StreamView};
use tower::ServiceExt;

pub(crate) use self::sdp::{Sdp, has, lint, media_line, values};

/// A media plane without sockets.
#[derive(Clone, Default)]
pub(crate) struct FakeMediaPlane(Arc<Mutex<Recorded>>);

/// What the fake media plane was told.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) opened: Vec<(ShardIndex, SessionSpec)>,
    pub(crate) closed: Vec<(ShardIndex, SessionId, Reason)>,
    pub(crate) candidates: Vec<RemoteCandidate>,
    pub(crate) restarts: Vec<(SessionId, IceRestart)>,
    pub(crate) selections: Vec<(SessionId, TrackId, LayerSelection)>,
}

impl FakeMediaPlane {
    pub(crate) fn recorded(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.0.lock().unwrap()
    }

    /// The session that was opened last.
    pub(crate) fn last(&self) -> SessionSpec {
        self.recorded().opened.last().unwrap().1.clone()
    }
}

impl MediaPlane for FakeMediaPlane {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { hash: FingerprintHash::Sha256, digest: (0..32).collect() }
    }

    fn local_candidates(&self, shard: ShardIndex) -> Vec<LocalCandidate> {
        let candidate = |address: &str, priority, foundation| LocalCandidate {
            protocol: Protocol::Udp,
            address: format!("{address}:{}", 50_000 + shard).parse().unwrap(),
            priority,
            foundation,
        };
        vec![candidate("[2001:db8::1]", 2_130_706_431, 1), candidate("198.51.100.1", 2_130_706_175, 2)]
    }

    fn shard_for(&self, stream: StreamId, _: Role) -> ShardIndex {
        (stream.0 % 2) as usize
    }

    fn open(&self, shard: ShardIndex, spec: SessionSpec) {
        self.recorded().opened.push((shard, spec));
    }

    fn close(&self, shard: ShardIndex, session: SessionId, reason: Reason) {
        self.recorded().closed.push((shard, session, reason));
    }

    fn add_remote_candidates(&self, _: ShardIndex, _: SessionId, candidates: Vec<RemoteCandidate>) {
        self.recorded().candidates.extend(candidates);
    }

    fn select_layer(&self, _: ShardIndex, session: SessionId, track: TrackId, selection: LayerSelection) {
        self.recorded().selections.push((session, track, selection));
    }

    fn restart_ice(&self, _: ShardIndex, session: SessionId, restart: IceRestart) {
        self.recorded().restarts.push((session, restart));
    }
}

/// Now, by the clock of the code under test, which a test may have paused.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Takes no notice.
pub(crate) struct NoObserver;

impl Observer for NoObserver {}

/// A server under test.
pub(crate) struct App {
    pub(crate) core: FakeMediaPlane,
    pub(crate) signaling: Arc<Signaling>,
    pub(crate) router: Router,
}

/// A reply, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem's code; checks on the way what holds for every problem (ERR-01, ERR-05).
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.header("access-control-allow-origin"), "*");
        assert!(self.header("access-control-expose-headers").contains("Retry-After"));
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["status"], self.status.as_u16());
        for member in ["type", "title", "detail", "instance", "code", "stage"] {
            assert!(json[member].is_string(), "{member} in {json}");
        }
        json["code"].as_str().unwrap().to_owned()
    }
}

impl App {
    pub(crate) fn new(config: SignalingConfig) -> App {
        let core = FakeMediaPlane::default();
        let signaling = Arc::new(Signaling::new(config, core.clone(), Arc::new(NoObserver)));
        App::of(core, signaling)
    }

    /// Around signalling as the test made it.
    pub(crate) fn of(core: FakeMediaPlane, signaling: Arc<Signaling>) -> App {
        App { core, router: signaling::router(Arc::clone(&signaling)), signaling }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        self.send_from("", method, path, headers, body).await
    }

    /// The same from this client address; the empty one is that of a listener that notes none.
    pub(crate) async fn send_from(
        &self,
        client: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !client.is_empty() {
            request = request.extension(ClientAddress(client.parse().unwrap()));
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// A stream that has a session.
    pub(crate) fn stream(&self, name: &str) -> Option<StreamView> {
        self.signaling.registry().streams().into_iter().find(|view| view.stream == name)
    }

    /// POST of an offer.
    pub(crate) async fn post(&self, path: &str, offer: &str) -> Reply {
        self.send("POST", path, &[("content-type", "application/sdp")], offer.to_owned()).await
    }

    /// PATCH of a fragment with If-Match.
    pub(crate) async fn patch(&self, path: &str, if_match: &str, fragment: &str) -> Reply {
        let headers = [("content-type", "application/trickle-ice-sdpfrag"), ("if-match", if_match)];
        self.send("PATCH", path, &headers, fragment.to_owned()).await
    }
}

/// Changes lines of a text in one of the ways that parsers mind.
pub(crate) fn mutate(random: &mut StdRng, text: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..=random.random_range(0..4) {
        let (from, to) = (random.random_range(0..lines.len()), random.random_range(0..lines.len()));
        match random.random_range(0..6) {
            0 => lines.swap(from, to),
            1 => {
                let line = lines[from].clone();
                lines.insert(to, line);
            }
            2 if lines.len() > 1 => drop(lines.remove(from)),
            3 => {
                let line = &mut lines[from];
                let at = random.random_range(0..line.len());
                line.truncate(at.max(1));
            }
            _ => {
                let line = &mut lines[from];
                let at = random.random_range(0..line.len());
                line[at] = b" :/=;,*-0919az\x00\xff\n"[random.random_range(0..17)];
            }
        }
    }
    lines.concat()
}

/// A golden offer.
pub(crate) fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) const PUBLISH_OFFERS: [&str; 22] = [
    "chromium-publish",
    "chromium-publish-max-bundle",
    "chromium-simulcast-data",
    "chromium-simulcast-munged",
    "firefox-publish",
    "firefox-h264-publish",
    "firefox-simulcast",
    "obs",
    "obs-simulcast",
    "libdatachannel-publish",
    "libdatachannel-old",
    "ffmpeg",
    "ffmpeg-video-only",
    "pyav",
    "gstreamer-whipsink",
    "gstreamer-whipsink-h264",
    "gstreamer-simulcast",
    "libwebrtc-publish",
    "werift-publish",
    "aiortc-publish",
    "aiortc-publish-max-bundle",
    "safari-publish",
];

pub(crate) const WATCH_OFFERS: [&str; 8] = [
    "chromium-watch",
    "firefox-watch",
    "firefox-h264-watch",
    "gstreamer-whepsrc",
    "webrtcbin-watch",
    "libdatachannel-watch",
    "aiortc-watch",
    "safari-watch",
];
