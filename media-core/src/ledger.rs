//! The ledger of a session: which stage began when, how it ended, and if it failed, exactly why.

use std::time::{Duration, Instant};

use serde::Serialize;
use strum::{EnumCount, VariantArray};

use crate::media::MediaKind;

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
    /// It was the oldest half-open session where there was no room for more of them.
    EvictedHalfOpen,
    /// The right expired by which it was opened.
    AccessExpired,
    /// The right was taken back by which it was opened.
    AccessRevoked,
    /// The stream had no publisher for too long.
    PublisherGone,
    /// No connectivity check for the session was received in time.
    NoValidCheck,
    /// Checks were received, and all of them refused: the peer claims the role that is the server's.
    IceRoleConflict,
    /// Checks were received, and all of them refused: user name or password are not those of offer and answer.
    IceCredentials,
    /// Checks were received, and all of them refused for other causes.
    ChecksRefused,
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
    /// The peer does not know the extended master secret.
    NoExtendedMasterSecret,
    /// The certificate's hash is not the one in the SDP.
    FingerprintMismatch,
    /// Packets were received, and none of them authenticated.
    SrtpAuthentication,
    /// Packets go on to be received with sequence numbers that SRTP takes for those of packets received before.
    SrtpReplay,
    /// SRTP keys have protected as many packets as they may.
    SrtpKeyUsedUp,
    /// SRTP is ready, and no RTP was received.
    NoMedia,
    /// One of the media that were offered is received, and another one never was.
    MediumMissing,
    /// Video RTP is received, but no keyframe.
    NoKeyframe,
    /// Media were received, and one of them is not any more.
    MediaStopped,
    /// Packets are received that are too long, and are dropped; media are missing.
    PacketsTooLong,
    /// Packets are received and dropped for other causes; media are missing.
    MediaDropped,
    /// RTP was sent, and the viewer reports no receipt.
    NoReceipt,
    /// The publisher sends a track in a codec or profile that the viewer did not agree to.
    UnsupportedCodec,
    /// The publisher sends a track that the viewer offered to take and was answered without.
    TrackAdded,
    /// The shard that carried the session panicked, and was started again.
    ShardFailed,
    /// The thread that ran the session's DTLS handshake panicked over it, or did not come back.
    HandshakeThreadFailed,
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
            Reason::EvictedHalfOpen => {
                "More sessions were opened than connected: a flood of offers, or clients that the media ports do not reach. The detail names the limit; a client that joins anew gets in."
            }
            Reason::AccessExpired => "The client needs a token that lasts, or a new session with a new one.",
            Reason::AccessRevoked => "Nothing to do: the operator took the right back.",
            Reason::PublisherGone => "Start the publisher again; viewers then join anew.",
            Reason::NoValidCheck => {
                "No check for this session reached the media port: look at --public-ip, the firewall's UDP rule for the media ports, and NAT."
            }
            Reason::IceRoleConflict => {
                "The network is fine, the roles are not: the client has to be the controlling ICE agent, as the side that offers to this server."
            }
            Reason::IceCredentials => {
                "The network is fine, the credentials are not: checks must carry USERNAME server:client and the password of the answer. The client mixes two sessions or applied another answer."
            }
            Reason::ChecksRefused => {
                "The network is fine, but the client's connectivity checks are not as RFC 8445 demands them; the detail counts what is wrong."
            }
            Reason::ConsentLost => {
                "The peer vanished without a word: network loss, a closed lid, or a NAT that forgot the mapping."
            }
            Reason::DtlsTimeout => {
                "Checks pass but the handshake does not end. If the detail counts no DTLS at all, the client never began or cannot send it; else look for a path that drops large UDP datagrams (MTU)."
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
            Reason::NoExtendedMasterSecret => {
                "The client's DTLS library is older than the extended master secret (RFC 7627), which all of today's have: update it."
            }
            Reason::FingerprintMismatch => {
                "The SDP and the certificate disagree: something between client and server altered the SDP, or the client mixed two sessions."
            }
            Reason::SrtpAuthentication => {
                "The keys disagree or packets are altered on the way: suspect the client's SRTP or a middlebox."
            }
            Reason::SrtpReplay => {
                "The client went back with its sequence numbers under the same SSRC: it has to go on with them, or to take a new SSRC."
            }
            Reason::SrtpKeyUsedUp => {
                "Nothing to do: after years the session needs new keys; a client that joins anew gets them."
            }
            Reason::NoMedia => {
                "The secure path stands but the encoder sends nothing: look at the publisher's capture and encoder."
            }
            Reason::MediumMissing => {
                "A medium that was offered was never sent: look at its capture and encoder, or do not offer it."
            }
            Reason::NoKeyframe => {
                "Video is received without a keyframe, and no decoder can start: set a keyframe interval of 1 to 2 seconds. The detail says whether keyframes were requested."
            }
            Reason::MediaStopped => {
                "Media that had been received have stopped: look at the publisher's capture and encoder. A medium that was muted on purpose may show so, too."
            }
            Reason::PacketsTooLong => {
                "RTP packets are longer than the 1500 bytes that a datagram may have here: set the MTU of the encoder or packetizer to 1200 bytes."
            }
            Reason::MediaDropped => {
                "Packets are received and dropped; the detail counts the causes. Compare payload types, SSRCs and MIDs with the answer, and look at the client's packetizer."
            }
            Reason::NoReceipt => {
                "RTP leaves the server and the viewer reports no receipt of it: look at the path from server to viewer."
            }
            Reason::UnsupportedCodec => {
                "The publisher changed to what this viewer cannot decode; a player that joins anew gets the rest. The detail has both sides' codecs."
            }
            Reason::TrackAdded => "Nothing to do: a player that joins anew gets the track as well.",
            Reason::ShardFailed | Reason::HandshakeThreadFailed => {
                "A bug: please report it with the panic's line of the log. Clients that join anew are served."
            }
            Reason::Internal => "A bug: please report it with the log line of this session.",
        }
    }
}

/// What is less than it could be though no stage failed. Every warning of the product is listed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum WarningCode {
    /// A section was rejected for its codecs or profiles, while another lives.
    CodecRefused,
    /// A section of another media type than audio and video was rejected.
    MediaTypeRefused,
    /// A format was left out, as a parameter of it does not parse.
    FormatIgnored,
    /// The bit stream has another profile than the publisher's description says.
    ProfileMismatch,
    /// The publisher has come back without a track that the viewer was answered with.
    TrackMissing,
    /// A publisher sends more than its session may, and the surplus is dropped.
    BitrateExceeded,
    /// A peer sends more RTCP than is acted upon, and the surplus is dropped.
    RtcpExceeded,
    /// A viewer's path does not carry even the lowest layer of video: it is sent audio alone.
    VideoPaused,
}

impl WarningCode {
    /// All of them.
    pub const ALL: &[WarningCode] = WarningCode::VARIANTS;

    /// The code: stable, kebab-case, used in the API, in logs and as a metric label.
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// One line for the operator: what to look at.
    pub fn advice(self) -> &'static str {
        match self {
            WarningCode::CodecRefused => {
                "The peer gets nothing of this section: let the publisher send a codec and profile that its viewers have."
            }
            WarningCode::MediaTypeRefused => "Nothing to do: only audio and video are forwarded.",
            WarningCode::FormatIgnored => {
                "A bug of the client: it names a value that the payload format does not know."
            }
            WarningCode::ProfileMismatch => {
                "Viewers are matched by the stream: set the encoder's profile to what the description says."
            }
            WarningCode::TrackMissing => "The publisher has left a track out; it is forwarded again once it is there.",
            WarningCode::BitrateExceeded => {
                "Packets are missing for all viewers: lower the encoder's bitrate, or raise the limit of publishers."
            }
            WarningCode::VideoPaused => {
                "The viewer's network is too slow for any picture; video goes on by itself once it carries the lowest layer. A publisher that offers a smaller one helps."
            }
            WarningCode::RtcpExceeded => "No honest client sends so much: look at who it is. Nobody else is concerned.",
        }
    }
}

/// Which warning, of which media; `None` for what is neither audio nor video. A stage has one of each at most.
pub type WarningKey = (WarningCode, Option<MediaKind>);

/// One warning of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub key: WarningKey,
    /// The facts of the case, for people: of codecs, those of both sides.
    pub detail: String,
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
    /// A step inside the stage, such as the first RTP packet, or more of its failure; only the detail changes.
    Progress,
    /// It succeeded. A failed stage may still succeed (a keyframe after 20 s).
    Done,
    /// It failed, or fails for another reason. A stage that had succeeded may fail later (media that stop).
    Failed(Reason),
    /// What had succeeded or failed is open again: it waits for something else.
    Reopened,
    /// Its facts are others now, such as after an ICE restart: its state stays, only the detail changes.
    Noted,
    /// Something is less than it could be; its state stays.
    Warned(WarningKey),
    /// That is over.
    Cleared(WarningKey),
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
    /// How often it had succeeded and then did not hold.
    pub reopened: u32,
    /// What is less than it could be.
    pub warnings: Vec<Warning>,
}

impl StageRecord {
    /// Writes a warning down; false if it stands there already, though its detail may be new.
    fn warn(&mut self, key: WarningKey, detail: &str) -> bool {
        let detail = detail.to_owned();
        match self.warnings.iter_mut().find(|known| known.key == key) {
            Some(known) => {
                known.detail = detail;
                false
            }
            None => {
                self.warnings.push(Warning { key, detail });
                true
            }
        }
    }

    fn clear(&mut self, key: WarningKey) -> bool {
        let before = self.warnings.len();
        self.warnings.retain(|known| known.key != key);
        self.warnings.len() != before
    }
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
            reopened: 0,
            warnings: Vec::new(),
        });
        Ledger { created, stages }
    }

    /// Writes one event down. Returns false if it changes nothing.
    pub fn apply(&mut self, event: &StageEvent) -> bool {
        let since = event.at.saturating_duration_since(self.created);
        let record = &mut self.stages[event.stage as usize];
        let was_done = record.state == StageState::Done;
        match event.change {
            StageChange::Begin if record.state == StageState::Waiting => {
                record.state = StageState::Running;
                record.started = Some(since);
            }
            StageChange::Noted if record.state != StageState::Waiting => {}
            StageChange::Progress if matches!(record.state, StageState::Running | StageState::Failed) => {}
            StageChange::Done if record.state != StageState::Done => {
                record.started.get_or_insert(since);
                record.ended = Some(since);
                record.state = StageState::Done;
                record.reason = None;
            }
            StageChange::Failed(reason) if record.reason != Some(reason) => {
                record.started.get_or_insert(since);
                record.ended = Some(since);
                record.state = StageState::Failed;
                record.reason = Some(reason);
            }
            StageChange::Reopened if matches!(record.state, StageState::Done | StageState::Failed) => {
                record.ended = None;
                record.state = StageState::Running;
                record.reason = None;
            }
            StageChange::Warned(key) => return record.warn(key, &event.detail),
            StageChange::Cleared(key) => return record.clear(key),
            _ => return false,
        }
        record.reopened += u32::from(was_done && record.state != StageState::Done);
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

    // F-07
    #[test]
    fn a_stage_that_was_done_may_fail_for_one_reason_and_another_and_end_well_again() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        let fact = |change, detail: &str| StageEvent { detail: detail.into(), ..event(now, Stage::Media, change) };
        assert!(ledger.apply(&fact(StageChange::Done, "first keyframe")));
        assert!(ledger.apply(&fact(StageChange::Failed(Reason::MediaStopped), "video stopped")));
        assert!(!ledger.apply(&fact(StageChange::Failed(Reason::MediaStopped), "once more")));
        assert!(ledger.apply(&fact(StageChange::Progress, "audio stopped, too")));
        let media = ledger.stage(Stage::Media);
        assert_eq!((media.state, media.reason, media.reopened), (StageState::Failed, Some(Reason::MediaStopped), 1));
        assert_eq!(media.detail, "audio stopped, too");
        assert!(ledger.apply(&fact(StageChange::Failed(Reason::MediaDropped), "packets come and are dropped")));
        assert!(ledger.apply(&fact(StageChange::Reopened, "waiting for the publisher")));
        let media = ledger.stage(Stage::Media);
        assert_eq!((media.state, media.reason, media.ended), (StageState::Running, None, None));
        assert!(ledger.apply(&fact(StageChange::Done, "received again")));
        assert_eq!((ledger.stage(Stage::Media).reopened, ledger.failure().is_none()), (1, true));
        assert!(ledger.apply(&fact(StageChange::Reopened, "")));
        assert_eq!(ledger.stage(Stage::Media).reopened, 2);
    }

    // F-26
    #[test]
    fn warnings_stand_beside_the_state_once_each_until_they_are_over() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.apply(&event(now, Stage::Signaling, StageChange::Done));
        let video = (WarningCode::CodecRefused, Some(MediaKind::Video));
        let warned = |detail: &str, key| StageEvent {
            detail: detail.to_owned(),
            ..event(now, Stage::Signaling, StageChange::Warned(key))
        };
        assert!(ledger.apply(&warned("H264 High", video)));
        assert!(!ledger.apply(&warned("H264 Main", video)), "it is no other warning");
        assert!(ledger.apply(&warned("PCMU", (WarningCode::CodecRefused, Some(MediaKind::Audio)))));
        let record = ledger.stage(Stage::Signaling);
        assert_eq!((record.state, record.warnings.len()), (StageState::Done, 2));
        assert_eq!((record.warnings[0].detail.as_str(), record.detail.as_str()), ("H264 Main", ""));
        assert!(ledger.apply(&event(now, Stage::Signaling, StageChange::Cleared(video))));
        assert!(!ledger.apply(&event(now, Stage::Signaling, StageChange::Cleared(video))));
        assert_eq!(ledger.stage(Stage::Signaling).warnings.len(), 1);
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
