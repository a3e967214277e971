//! A server without media: the real routers over a media plane that only remembers what it was told.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, StatusCode};
use media_core::layers::LayerSelection;
use media_core::ledger::Reason;
use media_core::media::TrackId;
use media_core::stats::ShardSnapshot;
use media_core::{
    Fingerprint, FingerprintHash, IceRestart, LocalCandidate, RemoteCandidate, SessionId, SessionSpec, ShardIndex,
    StreamId,
};
use server::admin::{Admin, Snapshots};
use server::metrics::Metrics;
use server::{admin, pages};
use signaling::{MediaPlane, Signaling, SignalingConfig};
use tower::ServiceExt;

/// The smallest offer of a publisher: Opus only.
pub(crate) const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\n\
a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef01234567\r\na=setup:actpass\r\n\
a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
a=rtpmap:111 opus/48000/2\r\n";

#[derive(Clone, Default)]
pub(crate) struct SilentMediaPlane {
    pub(crate) closed: Arc<Mutex<Vec<(SessionId, Reason)>>>,
}

impl MediaPlane for SilentMediaPlane {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { hash: FingerprintHash::Sha256, digest: vec![7; 32] }
    }
    fn local_candidates(&self, _: ShardIndex) -> Vec<LocalCandidate> {
        let address = "192.0.2.1:50000".parse().unwrap();
        vec![LocalCandidate { protocol: media_core::Protocol::Udp, address, priority: 2_130_706_431, foundation: 1 }]
    }
    fn shard_for(&self, _: StreamId, _: media_core::media::Role) -> ShardIndex {
        0
    }
    fn open(&self, _: ShardIndex, _: SessionSpec) {}
    fn close(&self, _: ShardIndex, session: SessionId, reason: Reason) {
        self.closed.lock().unwrap().push((session, reason));
    }
    fn add_remote_candidates(&self, _: ShardIndex, _: SessionId, _: Vec<RemoteCandidate>) {}
    fn select_layer(&self, _: ShardIndex, _: SessionId, _: TrackId, _: LayerSelection) {}
    fn restart_ice(&self, _: ShardIndex, _: SessionId, _: IceRestart) {}
}

impl Snapshots for SilentMediaPlane {
    fn snapshot(&self) -> Pin<Box<dyn Future<Output = Vec<ShardSnapshot>> + Send + '_>> {
        Box::pin(async { vec![ShardSnapshot::default()] })
    }
}

pub(crate) struct Rig {
    pub(crate) core: SilentMediaPlane,
    pub(crate) signaling: Arc<Signaling>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) operator: Router,
    pub(crate) public: Router,
}

pub(crate) fn rig(config: SignalingConfig) -> Rig {
    let core = SilentMediaPlane::default();
    let metrics = Arc::new(Metrics::new().unwrap());
    let signaling = Arc::new(Signaling::new(config, core.clone(), Arc::<Metrics>::clone(&metrics)));
    let admin = Arc::new(Admin::new(Arc::clone(&signaling), Arc::clone(&metrics), core.clone()));
    Rig {
        core,
        operator: admin::router(Arc::clone(&admin)),
        public: pages::router(Arc::clone(&signaling), metrics),
        admin,
        signaling,
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks the shape of an error reply. // ERR-01
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["code"], code);
        for member in ["type", "title", "detail", "instance", "stage"] {
            assert!(problem[member].is_string(), "{member}");
        }
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub(crate) async fn get(router: &Router, path: &str) -> Reply {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}
