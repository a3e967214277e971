//! The ledger of a session: which stage began when, how it ended, and if it failed, exactly why.

use std::time::{Duration, Instant};

use serde::Serialize;
use strum::{EnumCount, VariantArray};

/// The stages of a session, in order. A stage has no output before the previous one succeeded.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    strum::Display,
    EnumCount,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Stage {
    /// HTTP and SDP: the offer was received and answered.
    Signaling,
    /// A connectivity check with the right credentials arrived.
    Ice,
    /// The DTLS handshake.
    Dtls,
    /// The certificate of the handshake is the one that the SDP announced.
    Fingerprint,
    /// Keys are installed and the first packet authenticates.
    Srtp,
    /// Publisher: first RTP, first keyframe. Viewer: first RTP sent, first receipt reported.
    Media,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: &[Stage] = Stage::VARIANTS;

    /// The name in the API, in logs and in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The state of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Not begun.
    Waiting,
    /// Begun, not ended.
    Running,
    /// Succeeded.
    Done,
    /// Failed, for a `reason`.
    Failed,
}

/// Why a stage failed or a session ended. Every reason of the product is listed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Reason {
    /// The peer sent DELETE.
    Deleted,
    /// The peer sent DTLS close_notify.
    PeerClosed,
    /// The server shuts down.
    Shutdown,
    /// A newer session of the same publisher took the stream over.
    Replaced,
    /// The stream had no publisher for too long.
    PublisherGone,
    /// No connectivity check with the right credentials was received in time.
    NoValidCheck,
    /// Nothing authenticated was received from the peer for the liveness time.
    ConsentLost,
    /// The handshake began but did not end in time.
    DtlsTimeout,
    /// The peer sent a fatal alert.
    DtlsAlertReceived,
    /// OpenSSL refused the peer's handshake.
    DtlsProtocolError,
    /// The peer sent no certificate.
    NoClientCertificate,
    /// No SRTP protection profile in common, or no use_srtp extension.
    NoSrtpProfile,
    /// The certificate's hash is not the one in the SDP.
    FingerprintMismatch,
    /// Packets were received, and none of them authenticated.
    SrtpAuthentication,
    /// SRTP is ready, and no RTP was received.
    NoMedia,
    /// RTP is received, but no keyframe.
    NoKeyframe,
    /// RTP was sent, and the viewer reports no receipt.
    NoReceipt,
    /// A bug in the server.
    Internal,
}

impl Reason {
    /// All reasons.
    pub const ALL: &[Reason] = Reason::VARIANTS;

    /// The reason code: stable, kebab-case, used in the API, in logs and as a metric label.
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// One line for the operator: what to look at.
    pub fn advice(self) -> &'static str {
        match self {
            Reason::Deleted | Reason::PeerClosed | Reason::Shutdown | Reason::Replaced => {
                "Nothing to do: an orderly end."
            }
            Reason::PublisherGone => "Start the publisher again; viewers then join anew.",
            Reason::NoValidCheck => {
                "No check reached the media port: look at --public-ip, the firewall's UDP rule for the media ports, and NAT."
            }
            Reason::ConsentLost => {
                "The peer vanished without a word: network loss, a closed lid, or a NAT that forgot the mapping."
            }
            Reason::DtlsTimeout => {
                "Checks pass but the handshake stalls: look for a path that drops large or fragmented UDP datagrams (MTU)."
            }
            Reason::DtlsAlertReceived => {
                "The client refused the handshake; its own log says why (the alert is in the detail)."
            }
            Reason::DtlsProtocolError => "The client's handshake is not DTLS 1.2 as WebRTC demands it; see the detail.",
            Reason::NoClientCertificate => {
                "The client must present a certificate in the handshake (RFC 5763 section 5)."
            }
            Reason::NoSrtpProfile => {
                "The client's DTLS library offers no SRTP profile that the server knows; update or rebuild it with use_srtp."
            }
            Reason::FingerprintMismatch => {
                "The SDP and the certificate disagree: something between client and server altered the SDP, or the client mixed two sessions."
            }
            Reason::SrtpAuthentication => {
                "The keys disagree or packets are altered on the way: suspect the client's SRTP or a middlebox."
            }
            Reason::NoMedia => {
                "The secure path stands but the encoder sends nothing: look at the publisher's capture and encoder."
            }
            Reason::NoKeyframe => {
                "The encoder sends no keyframe and ignores requests: set a keyframe interval of 1 to 2 seconds."
            }
            Reason::NoReceipt => {
                "Packets leave the server and the viewer reports none: look at the path from server to viewer."
            }
            Reason::Internal => "A bug: please report it with the log line of this session.",
        }
    }
}

/// One thing that happened to one stage; the only way by which a [`Ledger`] changes.
#[derive(Clone, Debug)]
pub struct StageEvent {
    /// When.
    pub at: Instant,
    /// Which stage.
    pub stage: Stage,
    /// What happened.
    pub change: StageChange,
    /// The facts of the case, for people; may be empty. Never keys, passwords or tokens.
    pub detail: String,
}

/// What happened to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageChange {
    /// It began.
    Begin,
    /// A step inside the stage, such as the first RTP packet; only the detail changes.
    Progress,
    /// It succeeded. A failed stage may still succeed (a keyframe after 20 s).
    Done,
    /// It failed.
    Failed(Reason),
}

/// One stage's record.
#[derive(Clone, Debug)]
pub struct StageRecord {
    /// Which stage.
    pub stage: Stage,
    /// Its state.
    pub state: StageState,
    /// Begin, since the session's creation.
    pub started: Option<Duration>,
    /// End, since the session's creation.
    pub ended: Option<Duration>,
    /// Set when the stage failed.
    pub reason: Option<Reason>,
    /// The facts of the case.
    pub detail: String,
}

/// All stages of one session.
#[derive(Clone, Debug)]
pub struct Ledger {
    created: Instant,
    stages: [StageRecord; Stage::COUNT],
}

impl Ledger {
    /// A ledger whose stages all wait.
    pub fn new(created: Instant) -> Ledger {
        let stages = std::array::from_fn(|index| StageRecord {
            stage: Stage::ALL[index],
            state: StageState::Waiting,
            started: None,
            ended: None,
            reason: None,
            detail: String::new(),
        });
        Ledger { created, stages }
    }

    /// Writes one event down. Returns false if it changes nothing (a stage that is already done stays done).
    pub fn apply(&mut self, event: &StageEvent) -> bool {
        let since = event.at.saturating_duration_since(self.created);
        let record = &mut self.stages[event.stage as usize];
        match event.change {
            StageChange::Begin if record.state == StageState::Waiting => {
                record.state = StageState::Running;
                record.started = Some(since);
            }
            StageChange::Progress if record.state == StageState::Running => {}
            StageChange::Done if record.state != StageState::Done => {
                record.started.get_or_insert(since);
                record.ended = Some(since);
                record.state = StageState::Done;
                record.reason = None;
            }
            StageChange::Failed(reason) if record.state != StageState::Failed => {
                record.started.get_or_insert(since);
                record.ended = Some(since);
                record.state = StageState::Failed;
                record.reason = Some(reason);
            }
            _ => return false,
        }
        if !event.detail.is_empty() {
            record.detail.clone_from(&event.detail);
        }
        true
    }

    /// The records, in order of the stages.
    pub fn stages(&self) -> &[StageRecord] {
        &self.stages
    }

    /// One stage's record.
    pub fn stage(&self, stage: Stage) -> &StageRecord {
        &self.stages[stage as usize]
    }

    /// The first stage that failed, if any.
    pub fn failure(&self) -> Option<&StageRecord> {
        self.stages.iter().find(|record| record.state == StageState::Failed)
    }

    /// The current stage: the first that is neither done nor failed; `None` when all ended.
    pub fn current(&self) -> Option<Stage> {
        self.stages
            .iter()
            .find(|record| matches!(record.state, StageState::Waiting | StageState::Running))
            .map(|record| record.stage)
    }

    /// When the session was created.
    pub fn created(&self) -> Instant {
        self.created
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: Instant, stage: Stage, change: StageChange) -> StageEvent {
        StageEvent { at, stage, change, detail: String::new() }
    }

    #[test]
    fn stages_record_their_times_since_creation() {
        let created = Instant::now();
        let mut ledger = Ledger::new(created);
        let at = |ms| created + Duration::from_millis(ms);
        assert!(ledger.apply(&event(at(5), Stage::Ice, StageChange::Begin)));
        assert!(ledger.apply(&event(at(25), Stage::Ice, StageChange::Done)));
        let ice = ledger.stage(Stage::Ice);
        assert_eq!(ice.state, StageState::Done);
        assert_eq!((ice.started, ice.ended), (Some(Duration::from_millis(5)), Some(Duration::from_millis(25))));
        assert_eq!(ledger.current(), Some(Stage::Signaling));
    }

    #[test]
    fn a_stage_that_failed_without_a_keyframe_may_still_end_well() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.apply(&event(now, Stage::Media, StageChange::Begin));
        assert!(ledger.apply(&event(now, Stage::Media, StageChange::Failed(Reason::NoKeyframe))));
        assert_eq!(ledger.failure().and_then(|record| record.reason), Some(Reason::NoKeyframe));
        assert!(ledger.apply(&event(now, Stage::Media, StageChange::Done)));
        assert!(ledger.failure().is_none());
        assert!(!ledger.apply(&event(now, Stage::Media, StageChange::Done)));
    }

    #[test]
    fn reason_codes_are_unique_and_complete() {
        let codes: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
