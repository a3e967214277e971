//! What the tests share: a media plane that only records, a client that speaks to the router, and a reader of SDP.

// Each test binary uses its own part, and a test may panic.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use media_core::ledger::Reason;
use media_core::media::Role;
use media_core::session::{
    Fingerprint, FingerprintHash, LocalCandidate, RemoteCandidate, SessionId, SessionSpec, ShardIndex, StreamId,
};
use signaling::{MediaPlane, Observer, Signaling, SignalingConfig};
use tower::ServiceExt;

/// A media plane without sockets.
#[derive(Clone, Default)]
pub(crate) struct FakeMediaPlane(Arc<Mutex<Recorded>>);

/// What the fake media plane was told.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) opened: Vec<(ShardIndex, SessionSpec)>,
    pub(crate) closed: Vec<(ShardIndex, SessionId, Reason)>,
    pub(crate) candidates: Vec<RemoteCandidate>,
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
        App { core, router: signaling::router(Arc::clone(&signaling)), signaling }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
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

/// A golden offer.
pub(crate) fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) const PUBLISH_OFFERS: [&str; 11] = [
    "chromium-publish",
    "chromium-publish-max-bundle",
    "chromium-simulcast-data",
    "firefox-publish",
    "obs",
    "libdatachannel-old",
    "ffmpeg",
    "ffmpeg-video-only",
    "gstreamer-whipsink",
    "aiortc-publish",
    "safari-publish",
];

pub(crate) const WATCH_OFFERS: [&str; 5] =
    ["chromium-watch", "firefox-watch", "gstreamer-whepsrc", "aiortc-watch", "safari-watch"];

/// An SDP cut at its m-lines; no more than a client's eye needs.
#[derive(Clone, Debug)]
pub(crate) struct Sdp {
    pub(crate) session: Vec<String>,
    pub(crate) sections: Vec<Vec<String>>,
}

impl Sdp {
    pub(crate) fn read(text: &str) -> Sdp {
        let mut sdp = Sdp { session: Vec::new(), sections: Vec::new() };
        for line in text.lines() {
            if line.starts_with("m=") {
                sdp.sections.push(Vec::new());
            }
            sdp.sections.last_mut().unwrap_or(&mut sdp.session).push(line.to_owned());
        }
        sdp
    }

    /// Values of a session attribute.
    pub(crate) fn of_session(&self, name: &str) -> Vec<&str> {
        values(&self.session, name)
    }
}

/// Values of an attribute; flags have the empty value.
pub(crate) fn values<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let attributes = lines.iter().filter_map(|line| line.strip_prefix("a="));
    attributes
        .filter_map(|attribute| {
            let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            (key == name).then_some(value)
        })
        .collect()
}

pub(crate) fn has(lines: &[String], name: &str) -> bool {
    !values(lines, name).is_empty()
}

/// Media, port, protocol and formats of the m-line.
pub(crate) fn media_line(lines: &[String]) -> (String, u16, String, Vec<String>) {
    let mut words = lines[0].strip_prefix("m=").unwrap().split(' ').map(str::to_owned);
    let (media, port, protocol) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    (media, port.parse().unwrap(), protocol, words.collect())
}

/// Checks an answer against its offer, line by line (SDP-10 to SDP-32).
pub(crate) fn lint(offer: &str, answer: &str, direction: &str, lite: bool) {
    assert!(answer.starts_with("v=0\r\no=- "), "SDP-30: {answer}");
    assert!(answer.len() < 8192, "SDP-30: {} bytes", answer.len());
    assert!(answer.ends_with("\r\n") && !answer.replace("\r\n", "").contains(['\r', '\n']), "SDP-01: CRLF only");
    let (offer, answer) = (Sdp::read(offer), Sdp::read(answer));
    assert_eq!(offer.sections.len(), answer.sections.len(), "SDP-10");
    assert_eq!(has(&answer.session, "ice-lite"), lite, "SDP-28");
    assert_eq!(answer.of_session("ice-options"), ["trickle ice2"], "SDP-15");
    assert_eq!(has(&answer.session, "extmap-allow-mixed"), has(&offer.session, "extmap-allow-mixed"), "SDP-27");

    let mut live = Vec::new();
    let (mut msids, mut credentials) = (HashSet::new(), HashSet::new());
    for (theirs, ours) in offer.sections.iter().zip(&answer.sections) {
        assert_eq!(values(theirs, "mid"), values(ours, "mid"), "SDP-10");
        let (their_media, their_port, their_protocol, their_formats) = media_line(theirs);
        let (media, port, protocol, formats) = media_line(ours);
        assert_eq!((&media, &protocol), (&their_media, &their_protocol), "SDP-07");
        assert!(formats.iter().all(|format| their_formats.contains(format)), "SDP-20: {formats:?}");
        assert!(!formats.is_empty());
        assert!(!has(ours, "bundle-only") && !has(ours, "simulcast") && !has(ours, "crypto"), "SDP-14, SDP-08");
        if port == 0 {
            assert!(has(ours, "inactive"));
            continue;
        }
        assert!(their_port != 0 || has(theirs, "bundle-only"), "SDP-13");
        assert_eq!((port, ours[1].as_str()), (9, "c=IN IP4 0.0.0.0"), "SDP-14");
        live.extend(values(ours, "mid").into_iter().map(str::to_owned));
        assert!(has(ours, direction), "WHIP-08, WHEP-02");
        assert!(has(ours, "rtcp-mux") && has(ours, "rtcp-mux-only"), "SDP-16, WHIP-28");
        assert!(!has(ours, "rtcp-rsize") || offer.sections.iter().any(|section| has(section, "rtcp-rsize")), "SDP-15");
        let asks = |section| values(section, "rtcp-xr").contains(&"rcvr-rtt=all");
        assert_eq!(asks(theirs), asks(ours), "RTCP-19");
        assert_eq!(values(ours, "fingerprint").len(), 1, "SDP-17, Q-24");
        assert!(values(ours, "fingerprint")[0].starts_with("sha-256 00:01:02:"));
        let setup = values(theirs, "setup").first().or(offer.of_session("setup").first()).copied().unwrap_or("actpass");
        let expected = if setup == "passive" { "active" } else { "passive" };
        assert_eq!(values(ours, "setup"), [expected], "WHIP-27");
        let (ufrag, pwd) = (values(ours, "ice-ufrag")[0].to_owned(), values(ours, "ice-pwd")[0].to_owned());
        assert!(ufrag.len() >= 8 && pwd.len() >= 22, "SDP-19");
        credentials.insert((ufrag, pwd));

        let first = live.len() <= 1;
        let expected: &[&str] = if first { &["198.51.100.1", "2001:db8::1"] } else { &[] };
        let candidates = values(ours, "candidate");
        let addresses: Vec<&str> = candidates.iter().map(|line| line.split(' ').nth(4).unwrap()).collect();
        assert_eq!(addresses, expected, "SDP-29");
        assert!(candidates.iter().all(|line| line.ends_with(" typ host") && line.contains(" 1 udp ")), "Q-15");
        assert_eq!(has(ours, "end-of-candidates"), first, "WHIP-07");

        // Numbers, ids and feedback are those of the offer.
        let wildcard: Vec<&str> =
            values(theirs, "rtcp-fb").into_iter().filter_map(|line| line.strip_prefix("* ")).collect();
        for feedback in values(ours, "rtcp-fb") {
            let (number, what) = feedback.split_once(' ').unwrap();
            assert!(formats.iter().any(|format| format == number), "SDP-20");
            assert!(values(theirs, "rtcp-fb").contains(&feedback) || wildcard.contains(&what), "SDP-21: {feedback}");
            let other = match what {
                "goog-remb" => "transport-cc",
                "transport-cc" => "goog-remb",
                _ => continue,
            };
            assert!(!values(ours, "rtcp-fb").iter().any(|line| line.ends_with(other)), "RTCP-13, RTCP-14: one of them");
        }
        for extmap in values(ours, "extmap") {
            let plain = |line: &str| line.replace("/sendonly", "").replace("/recvonly", "");
            assert!(values(theirs, "extmap").iter().any(|line| plain(line) == plain(extmap)), "SDP-20: {extmap}");
        }
        let mut mapped = HashSet::new();
        for rtpmap in values(ours, "rtpmap") {
            let (number, name) = rtpmap.split_once(' ').unwrap();
            assert!(formats.iter().any(|format| format == number) && mapped.insert(number.to_owned()));
            let theirs = values(theirs, "rtpmap").into_iter().find_map(|line| line.strip_prefix(&format!("{number} ")));
            let theirs = theirs.unwrap_or(name).to_ascii_lowercase();
            assert_eq!(theirs.trim_end_matches("/1"), name.to_ascii_lowercase().trim_end_matches("/1"), "SDP-26");
            assert!(!["ulpfec", "flexfec"].iter().any(|fec| name.starts_with(fec)), "COD-18");
            assert!(!name.starts_with("red") || name == "red/48000/2", "COD-04, COD-18");
        }
        assert_eq!(mapped.len(), formats.len(), "every format has its rtpmap");
        for fmtp in values(ours, "fmtp") {
            let (number, parameters) = fmtp.split_once(' ').unwrap();
            match parameters.strip_prefix("apt=") {
                Some(apt) => assert!(formats.iter().any(|format| format == apt), "SDP-23: orphan RTX {number}"),
                None => assert!(values(theirs, "fmtp").contains(&fmtp), "SDP-20: {fmtp}"),
            }
        }
        msids.extend(values(ours, "msid").into_iter().map(|msid| msid.split(' ').next().unwrap().to_owned()));
        if direction == "sendonly" {
            assert_eq!(values(ours, "msid").len(), 1, "WHEP-03");
            let ssrcs: HashSet<&str> =
                values(ours, "ssrc").into_iter().map(|line| line.split(' ').next().unwrap()).collect();
            let has_rtx = values(ours, "rtpmap").iter().any(|line| line.contains(" rtx/"));
            assert_eq!(ssrcs.len(), if has_rtx { 2 } else { 1 }, "WHEP-17");
            assert_eq!(has(ours, "ssrc-group"), has_rtx, "WHEP-17");
        } else {
            assert!(!has(ours, "ssrc") && !has(ours, "msid"));
        }
    }
    assert!(!live.is_empty());
    assert_eq!(credentials.len(), 1, "SDP-11: one transport");
    assert!(msids.len() <= 1, "WHEP-03: one MediaStream");
    let group = offer.of_session("group").into_iter().any(|group| group.starts_with("BUNDLE"));
    let expected = if group { vec![format!("BUNDLE {}", live.join(" "))] } else { Vec::new() };
    assert_eq!(answer.of_session("group"), expected, "SDP-11");
}
