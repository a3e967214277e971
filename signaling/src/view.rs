//! Sessions and streams as the admin API shows them. Addresses of clients appear; secrets never do.

use media_core::SessionId;
use media_core::layers::LayerReport;
use media_core::ledger::{Ledger, Stage, StageRecord, StageState, Warning};
use media_core::media::{Codec, MediaKind, Role};
use media_core::stats::SessionStats;
use serde::Serialize;
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Where a session stands, derived from its ledger. The order is the only order in which a session can pass them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum SessionState {
    /// Answered; the shard has not begun.
    New,
    /// Waits for the first valid connectivity check.
    IceChecking,
    /// A check was valid; no handshake yet.
    IceConnected,
    /// The handshake runs.
    DtlsHandshaking,
    /// The certificate is the announced one and keys are installed.
    Secured,
    /// Stage `media` is done: media flows now.
    Media,
    /// Told to end; the media core has not yet confirmed it.
    Closing,
    /// Over.
    Closed,
}

impl SessionState {
    /// All of them, in order.
    pub const ALL: &'static [SessionState] = Self::VARIANTS;

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The state of a session that nobody has told to end.
    pub fn of(ledger: &Ledger) -> SessionState {
        let done = |stage| ledger.stage(stage).state == StageState::Done;
        let begun = |stage| ledger.stage(stage).state != StageState::Waiting;
        if done(Stage::Media) {
            SessionState::Media
        } else if done(Stage::Fingerprint) && begun(Stage::Srtp) {
            SessionState::Secured
        } else if begun(Stage::Dtls) {
            SessionState::DtlsHandshaking
        } else if done(Stage::Ice) {
            SessionState::IceConnected
        } else if begun(Stage::Ice) {
            SessionState::IceChecking
        } else {
            SessionState::New
        }
    }
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionView {
    /// The session; no secret.
    pub id: SessionId,
    /// Name of its stream.
    pub stream: String,
    /// Publisher or viewer.
    pub role: Role,
    /// Whose it is, such as `token:studio`; nobody's in particular where nothing had to be shown.
    pub identity: Option<String>,
    /// Where it stands.
    pub state: SessionState,
    /// The POST, in milliseconds since 1970.
    pub created: u64,
    /// Its end, likewise.
    pub ended: Option<u64>,
    /// Reason code of its end.
    pub reason: Option<&'static str>,
    /// Shard that carries it.
    pub shard: usize,
    /// All stages, in order.
    pub stages: Vec<StageView>,
    /// Figures as last seen: of the last snapshot while it lives, final once it ended.
    pub stats: SessionStats,
}

/// One stage of a session's ledger.
#[derive(Clone, Debug, Serialize)]
pub struct StageView {
    /// Which stage.
    pub stage: Stage,
    /// Where it stands.
    pub state: StageState,
    /// Begin, in milliseconds since the session's creation.
    pub started_ms: Option<u64>,
    /// End, likewise.
    pub ended_ms: Option<u64>,
    /// Reason code, if it failed.
    pub reason: Option<&'static str>,
    /// The facts of the case; may be empty.
    pub detail: String,
    /// What to look at, if it failed.
    pub advice: Option<&'static str>,
    /// How often it had been done and then did not hold.
    pub reopened: u32,
    /// What is less than it could be, though nothing failed.
    pub warnings: Vec<WarningView>,
}

/// One warning of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct WarningView {
    /// Its code.
    pub code: &'static str,
    /// Audio or video, if it is about either.
    pub kind: Option<MediaKind>,
    /// The facts of the case; of codecs, those of both sides.
    pub detail: String,
    /// What to look at.
    pub advice: &'static str,
}

impl From<&Warning> for WarningView {
    fn from(warning: &Warning) -> WarningView {
        let (code, kind) = warning.key;
        WarningView { code: code.code(), kind, detail: warning.detail.clone(), advice: code.advice() }
    }
}

impl From<&StageRecord> for StageView {
    fn from(record: &StageRecord) -> StageView {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        StageView {
            stage: record.stage,
            state: record.state,
            started_ms: record.started.map(millis),
            ended_ms: record.ended.map(millis),
            reason: record.reason.map(|reason| reason.code()),
            detail: record.detail.clone(),
            advice: record.reason.map(|reason| reason.advice()),
            reopened: record.reopened,
            warnings: record.warnings.iter().map(WarningView::from).collect(),
        }
    }
}

/// How full the room is by one limit.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct LimitUse {
    /// The limit.
    pub limit: &'static str,
    /// How many there are; of a limit per address, token or stream those of the fullest one.
    pub used: usize,
    /// How many there may be; `None` if there is no limit.
    pub max: Option<usize>,
}

/// One stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamView {
    /// Its name.
    pub stream: String,
    /// A publisher holds it and its media flow: all that it offered, or all but a medium that it never sent.
    pub live: bool,
    /// The publisher's session.
    pub publisher: Option<SessionId>,
    /// Number of viewers.
    pub viewers: usize,
    /// What the publisher (the last one, if there is none now) agreed to send.
    pub tracks: Vec<TrackView>,
}

/// One track of a stream.
#[derive(Clone, Debug, Serialize)]
pub struct TrackView {
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec that the publisher really sends, once a packet was received.
    #[serde(serialize_with = "codec_name")]
    pub codec: Option<Codec>,
    /// What the bit stream says of its profile.
    pub profile: Option<String>,
    /// What the publisher's description says of it.
    pub described_profile: Option<String>,
    /// Codecs of its answer, each once, in order.
    pub offered: Vec<&'static str>,
    /// The layers that are received of it, the lowest quality first; audio has none.
    pub layers: Vec<LayerReport>,
}

fn codec_name<S: serde::Serializer>(codec: &Option<Codec>, serializer: S) -> Result<S::Ok, S::Error> {
    codec.map(Codec::encoding_name).serialize(serializer)
}
