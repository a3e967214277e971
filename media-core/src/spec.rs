//! A session as control describes it to the core: its names, and ICE, DTLS and media as both descriptions agreed them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use strum::{EnumString, IntoStaticStr};

use crate::media::{MediaSection, Role};
use crate::net::Protocol;

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
    /// The server's credentials, from [`crate::negotiation::random_credentials`].
    pub local: IceCredentials,
    /// The client's credentials.
    pub remote: IceCredentials,
    /// The client is lite, too: its description has `a=ice-lite` (RFC 8839 §5.3).
    pub remote_is_lite: bool,
    /// UDP candidates of the client; may be empty. Only the full agent sends checks to them.
    pub remote_candidates: Vec<RemoteCandidate>,
}

/// New ICE credentials for a session that exists (RFC 8445 §9). Mode and roles stay.
#[derive(Clone, Debug)]
pub struct IceRestart {
    /// The server's new credentials, from [`crate::negotiation::random_credentials`].
    pub local: IceCredentials,
    /// The client's new credentials.
    pub remote: IceCredentials,
    /// The candidates of the client that take the place of the former ones; may be empty.
    pub remote_candidates: Vec<RemoteCandidate>,
}

/// A UDP candidate of the client with an address literal, component 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// Transport address.
    pub address: SocketAddr,
    /// Priority, RFC 8445 §5.1.2: the greater, the better.
    pub priority: u32,
    /// Foundation, RFC 8445 §5.1.1.3.
    pub foundation: String,
    /// How the client learned the address.
    pub kind: CandidateKind,
}

/// Candidate types (RFC 8445 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum CandidateKind {
    /// `typ host`
    Host,
    /// `typ srflx`
    #[strum(serialize = "srflx")]
    ServerReflexive,
    /// `typ prflx`
    #[strum(serialize = "prflx")]
    PeerReflexive,
    /// `typ relay`
    Relay,
}

/// A hash function of `a=fingerprint` that Sluice supports (RFC 8122 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(ascii_case_insensitive)]
pub enum FingerprintHash {
    /// SHA-256
    #[strum(serialize = "sha-256")]
    Sha256,
    /// SHA-384
    #[strum(serialize = "sha-384")]
    Sha384,
    /// SHA-512
    #[strum(serialize = "sha-512")]
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
    /// Fingerprints that the client announced; its certificate must match one of them (RFC 8122 §5).
    pub fingerprints: Vec<Fingerprint>,
}

/// How much media a session may carry: of a publisher what it may send, of a viewer what it is sent at most. `None` is no
/// limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// RTP in bit/s, headers and retransmissions included, over about a second.
    pub bits_per_second: Option<u64>,
    /// RTP packets a second.
    pub packets_per_second: Option<u64>,
}

impl fmt::Display for SessionLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bits_per_second.map(|bits| bits as f64 / 1e6), self.packets_per_second) {
            (Some(megabits), Some(packets)) => write!(f, "{megabits} Mbit/s and {packets} packets a second"),
            (Some(megabits), None) => write!(f, "{megabits} Mbit/s"),
            (None, Some(packets)) => write!(f, "{packets} packets a second"),
            (None, None) => f.write_str("no limit"),
        }
    }
}

/// Everything that a shard needs to run a session.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Its name, which no other session of the process has.
    pub id: SessionId,
    /// The stream that it publishes or watches.
    pub stream: StreamId,
    /// Publisher or viewer.
    pub role: Role,
    /// ICE (RFC 8445).
    pub ice: IceParameters,
    /// DTLS-SRTP (RFC 5764).
    pub dtls: DtlsParameters,
    /// The live m-sections, at most one of each kind, in order of the description.
    pub sections: Vec<MediaSection>,
    /// Sections that the client offered and the answer rejected, with the client's formats: a viewer whose publisher comes back
    /// with what they would take is ended, so that it joins anew.
    pub refused: Vec<MediaSection>,
    /// SHA-256 fingerprint of the server's certificate as the answer announced it, from
    /// [`MediaCore::fingerprint`](crate::MediaCore::fingerprint).
    pub certificate: Fingerprint,
    /// RTCP CNAME of the server in this session (RFC 7022 §4.2).
    pub cname: String,
    /// How much media it may carry.
    pub limits: SessionLimits,
}

/// A candidate of the server, for SDP answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// The transport protocol. That of TCP is passive: the client connects (RFC 6544 §4.5).
    pub protocol: Protocol,
    /// Advertised transport address.
    pub address: SocketAddr,
    /// Priority, RFC 8445 §5.1.2: the greater, the better.
    pub priority: u32,
    /// Foundation, RFC 8445 §5.1.1.3: equal for candidates of one base address and protocol.
    pub foundation: u32,
}
