//! What control tells the core about a session, and what the core tells control.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::ledger::{Reason, StageEvent};
use crate::media::{MediaKind, MediaSection, Role};

/// Names a session in logs, metrics and the admin API. It is no secret: the session URL has its own random part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<SessionId, Self::Err> {
        u64::from_str_radix(text, 16).map(SessionId)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Names a stream inside the core. Control gives the numbers; a stream keeps its number over publisher restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Index of a shard, counted from 0; its media port is the configured one plus this.
pub type ShardIndex = usize;

/// Which ICE implementation the server's side of a session runs (RFC 8445 §2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IceMode {
    /// Answers checks; needs an address that every client can reach.
    #[default]
    Lite,
    /// The full agent of `webrtc-ice`.
    Full,
}

/// A username fragment and password (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`, 4..=256 ice-chars.
    pub ufrag: String,
    /// `a=ice-pwd`, 22..=256 ice-chars.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password never reaches a log.
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// ICE as both descriptions agreed it.
#[derive(Clone, Debug)]
pub struct IceParameters {
    /// Which implementation serves this session.
    pub mode: IceMode,
    /// The server's credentials, from [`crate::ice::random_credentials`].
    pub local: IceCredentials,
    /// The client's credentials.
    pub remote: IceCredentials,
    /// The client said `a=ice-lite`.
    pub remote_is_lite: bool,
    /// UDP candidates of the client; may be empty. Only the full agent uses them.
    pub remote_candidates: Vec<RemoteCandidate>,
}

/// A UDP candidate of the client with an address literal, component 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// Transport address.
    pub address: SocketAddr,
    /// RFC 8445 §5.1.2
    pub priority: u32,
    /// RFC 8445 §5.1.1.3
    pub foundation: String,
    /// `host`, `srflx`, `prflx` or `relay`.
    pub kind: CandidateKind,
}

/// Candidate types (RFC 8445 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// `typ host`
    Host,
    /// `typ srflx`
    ServerReflexive,
    /// `typ prflx`
    PeerReflexive,
    /// `typ relay`
    Relay,
}

/// A hash function of `a=fingerprint` that Sluice supports (RFC 8122 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintHash {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

/// One `a=fingerprint` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash function.
    pub hash: FingerprintHash,
    /// The digest: 32, 48 or 64 bytes.
    pub digest: Vec<u8>,
}

/// Who sends the ClientHello (RFC 8842 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// The server's side starts: the answer said `setup:active`.
    Client,
    /// The server's side waits: the answer said `setup:passive`.
    Server,
}

/// DTLS as both descriptions agreed it.
#[derive(Clone, Debug)]
pub struct DtlsParameters {
    /// The role of the server's side.
    pub role: DtlsRole,
    /// What the client's certificate must match, at least one line of it.
    pub fingerprints: Vec<Fingerprint>,
}

/// Everything that a shard needs to run a session.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// The session.
    pub id: SessionId,
    /// The stream that it publishes or watches.
    pub stream: StreamId,
    /// Publisher or viewer.
    pub role: Role,
    /// ICE.
    pub ice: IceParameters,
    /// DTLS.
    pub dtls: DtlsParameters,
    /// The live m-sections, at most one of each kind, in order of the description.
    pub sections: Vec<MediaSection>,
    /// RTCP CNAME of the server in this session (RFC 7022).
    pub cname: String,
}

/// A candidate of the server, for SDP answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// Advertised transport address.
    pub address: SocketAddr,
    /// RFC 8445 §5.1.2
    pub priority: u32,
    /// RFC 8445 §5.1.1.3: equal for candidates of one base address.
    pub foundation: u32,
}

/// What the core tells control.
#[derive(Clone, Debug)]
pub enum CoreEvent {
    /// A stage of a session moved.
    Stage {
        /// The session.
        session: SessionId,
        /// What happened.
        event: StageEvent,
    },
    /// A publisher's section began to send in this format, or changed to it.
    FormatInUse {
        /// The publisher's session.
        session: SessionId,
        /// The section's kind.
        kind: MediaKind,
        /// The payload type of the publisher's answer.
        payload_type: u8,
    },
    /// The session is over and everything of it in the core is freed.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Reason,
        /// Its last figures.
        stats: SessionStats,
    },
}

/// Figures of one session since it began: plain counters, and a few last values.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SessionStats {
    /// RTP packets received and authenticated.
    pub rtp_received: u64,
    /// Bytes of those, header and payload.
    pub rtp_received_bytes: u64,
    /// RTP packets sent, retransmissions included.
    pub rtp_sent: u64,
    /// Bytes of those: header, payload and SRTP tag.
    pub rtp_sent_bytes: u64,
    /// RTP packets that the viewer did without, as they came too late for it: its path or the shard could not keep up.
    pub rtp_shed: u64,
    /// What the viewer's path is believed to carry, in bit/s, if the viewer tells what arrives.
    pub available_outgoing_bitrate: Option<u64>,
    /// How much longer packets take to the viewer than at best, in seconds: the queue at the bottleneck.
    pub queueing_delay: Option<f64>,
    /// RTP packets sent again after a NACK.
    pub retransmitted: u64,
    /// SRTP or SRTCP packets whose authentication failed.
    pub srtp_auth_failures: u64,
    /// SRTP or SRTCP packets that came a second time.
    pub srtp_replays: u64,
    /// Packets lost on the way in, by extended sequence numbers (negative: duplicates outnumber losses; RFC 3550 §6.4.1).
    pub packets_lost: i64,
    /// Keyframe requests received (viewer) or sent (publisher).
    pub keyframe_requests: u64,
    /// Keyframes received (publisher).
    pub keyframes: u64,
    /// The video has B-frames, which WebRTC receivers show in the order in which they come (publisher).
    pub b_frames: bool,
    /// Loss that the viewer's last receiver report stated, 0.0..=1.0.
    pub reported_loss: Option<f64>,
    /// Round-trip time in seconds: of the viewer's last receiver report; to a publisher, smoothed.
    pub round_trip_time: Option<f64>,
    /// The selected remote address.
    pub remote_address: Option<SocketAddr>,
    /// The negotiated SRTP protection profile.
    pub srtp_profile: Option<&'static str>,
}

/// One session as a snapshot shows it.
#[derive(Clone, Debug)]
pub struct SessionSnapshot {
    /// The session.
    pub id: SessionId,
    /// Its figures.
    pub stats: SessionStats,
}

/// How the core runs. All limits and timeouts of the core stand here, with their defaults.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Number of shards, at least 1.
    pub shards: usize,
    /// Local address of the media sockets; an unspecified IPv6 address serves both families.
    pub media_ip: IpAddr,
    /// Port of shard 0; shard n listens on `media_port + n`. 0 lets the system choose each one.
    pub media_port: u16,
    /// Addresses to advertise in answers, in order of preference; at least one.
    pub public_ips: Vec<IpAddr>,
    /// Threads that run DTLS handshakes.
    pub handshake_threads: usize,
    /// No valid connectivity check for this long after creation ends the session (RFC 8863 §4 wants at least 39.5 s).
    pub ice_timeout: Duration,
    /// From the first valid check to the end of the handshake.
    pub dtls_timeout: Duration,
    /// Nothing authenticated from the peer for this long ends the session (RFC 7675 §5.1: 30 s).
    pub liveness_timeout: Duration,
    /// SRTP is ready and no RTP came for this long: stage `media` fails with `no-media`.
    pub media_timeout: Duration,
    /// RTP comes and no keyframe among it for this long: `no-keyframe`. It is longer than the usual GOP of 10 s.
    pub keyframe_timeout: Duration,
    /// A viewer of a stream without publisher is kept this long.
    pub publisher_wait: Duration,
    /// At most one keyframe request per stream goes upstream in this time.
    pub keyframe_request_interval: Duration,
}

impl Default for CoreConfig {
    fn default() -> CoreConfig {
        CoreConfig {
            shards: 1,
            media_ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            media_port: 50_000,
            public_ips: vec![IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)],
            handshake_threads: 1,
            ice_timeout: Duration::from_secs(40),
            dtls_timeout: Duration::from_secs(30),
            liveness_timeout: Duration::from_secs(30),
            media_timeout: Duration::from_secs(10),
            keyframe_timeout: Duration::from_secs(12),
            publisher_wait: Duration::from_secs(60),
            keyframe_request_interval: Duration::from_millis(500),
        }
    }
}
