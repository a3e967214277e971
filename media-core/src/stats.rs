//! Plain counters of a shard and their snapshot. No atomics: a shard counts for itself and hands out copies.

use std::net::SocketAddr;
use std::ops::AddAssign;

use serde::Serialize;
use strum::{EnumCount, VariantArray};

use crate::layers::Layer;
use crate::spec::{SessionId, ShardIndex};

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumCount, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum DropReason {
    /// First byte outside the ranges of RFC 7983.
    UnknownProtocol,
    /// Shorter than its protocol's smallest packet.
    TooShort,
    /// Longer than 1500 bytes.
    TooLong,
    /// STUN that does not parse, or whose FINGERPRINT is wrong.
    MalformedStun,
    /// STUN request for a username fragment that no session has.
    UnknownUfrag,
    /// STUN request whose MESSAGE-INTEGRITY is missing or wrong.
    StunIntegrity,
    /// More STUN than a session may send.
    StunRate,
    /// STUN of a transaction that had come from another address before.
    StunReplay,
    /// STUN from an address and port that the session has by another transport or connection.
    StunOtherTransport,
    /// DTLS or SRTP from an address without a valid connectivity check.
    UnvalidatedAddress,
    /// More DTLS than a session may send.
    DtlsRate,
    /// DTLS that the handshake pool could not take.
    HandshakeBacklog,
    /// SRTP before keys exist.
    NoKeys,
    /// SRTP or SRTCP whose authentication failed.
    SrtpAuthentication,
    /// SRTP or SRTCP that was received before.
    SrtpReplay,
    /// More RTP or RTCP than a session may send, dropped before decryption.
    DatagramRate,
    /// More RTCP than is acted upon for a session.
    RtcpRate,
    /// RTP of a publisher beyond the bit or packet rate of its session.
    MediaRate,
    /// RTP or RTCP that does not parse.
    MalformedRtp,
    /// RTP that belongs to no section or payload type.
    UnknownRtpStream,
    /// RTP from a viewer.
    UnexpectedRtp,
    /// A sender report with implausible times; the rest of its datagram counts.
    ImplausibleSenderReport,
}

impl DropReason {
    /// All of them, in the order of their discriminants.
    pub const ALL: &[DropReason] = DropReason::VARIANTS;

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a TCP connection of a media port ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumCount, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum ConnectionEnd {
    /// The peer closed it, or its network is gone.
    ByPeer,
    /// No authentic connectivity check came in time.
    NoCheck,
    /// Nothing came for a while.
    Idle,
    /// A frame longer than any packet (RFC 4571 §2).
    Framing,
    /// Packets that were refused, before any authentic check.
    Refused,
    /// It had shown nothing yet, and others waited for its place.
    Displaced,
    /// Its session ended, or has newer addresses.
    Session,
}

impl ConnectionEnd {
    /// All of them, in the order of their discriminants.
    pub const ALL: &[ConnectionEnd] = ConnectionEnd::VARIANTS;

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Counters of a shard's TCP connections since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpCounters {
    /// Open ones, now.
    pub open: usize,
    /// Bytes that wait for slow peers, now.
    pub queued: usize,
    /// Accepted on the shard's own port.
    pub accepted: u64,
    /// Refused as there were too many.
    pub refused: u64,
    /// Accepting one failed.
    pub accept_errors: u64,
    /// Ended, by [`ConnectionEnd`].
    pub closed: [u64; ConnectionEnd::COUNT],
    /// Packets dropped as their peer was too slow.
    pub dropped: u64,
    /// Calls of read that returned something.
    pub reads: u64,
    /// Calls of write that took something.
    pub writes: u64,
}

impl AddAssign for TcpCounters {
    /// What was counted before and what is counted since; what there is now is that of `other`.
    fn add_assign(&mut self, other: TcpCounters) {
        self.open = other.open;
        self.queued = other.queued;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.accept_errors += other.accept_errors;
        self.closed.iter_mut().zip(other.closed).for_each(|(closed, more)| *closed += more);
        self.dropped += other.dropped;
        self.reads += other.reads;
        self.writes += other.writes;
    }
}

/// Counters of one shard since its start. One flat list of many fields: each is a metric of its own.
#[derive(Clone, Debug, Default)]
pub struct ShardCounters {
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Bytes of those (UDP payload).
    pub bytes_received: u64,
    /// Calls of recvmmsg that returned something.
    pub receive_calls: u64,
    /// Calls of recvmmsg that failed.
    pub receive_errors: u64,
    /// Datagrams that the socket took.
    pub datagrams_sent: u64,
    /// Bytes of those (UDP payload).
    pub bytes_sent: u64,
    /// Calls of sendmmsg.
    pub send_calls: u64,
    /// Messages that carried several datagrams by UDP_SEGMENT.
    pub segmented_runs: u64,
    /// Datagrams that the socket refused, which are dropped.
    pub send_dropped: u64,
    /// Dropped datagrams by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// RTP packets from publishers, authenticated.
    pub rtp_received: u64,
    /// RTP packets sent to viewers, without retransmissions.
    pub rtp_forwarded: u64,
    /// RTP packets dropped by overload: the shard could not keep up.
    pub rtp_shed: u64,
    /// RTP packets dropped by congestion of viewers' paths.
    pub rtp_congested: u64,
    /// Padding packets sent to probe viewers' paths.
    pub probe_packets: u64,
    /// RTP packets retransmitted to viewers after a NACK.
    pub rtp_retransmitted: u64,
    /// RTP packets of publishers lost on their way here, by their sequence numbers.
    pub rtp_lost: u64,
    /// NACKed sequence numbers sent to publishers.
    pub nacks_sent: u64,
    /// NACKed sequence numbers received from viewers.
    pub nacks_received: u64,
    /// PLI or FIR sent to publishers.
    pub keyframe_requests_sent: u64,
    /// PLI or FIR received from viewers.
    pub keyframe_requests_received: u64,
    /// Keyframe requests of viewers that fail: the publisher takes or answers none, and the cache lacks packets since the last
    /// keyframe.
    pub keyframes_unavailable: u64,
    /// Valid connectivity checks answered.
    pub stun_checks_answered: u64,
    /// Datagrams that were not sent: their address had not shown yet that it receives, and had sent less than it would have got.
    pub unproven_withheld: u64,
    /// ICE restarts that peers asked for.
    pub ice_restarts: u64,
    /// ICE restarts after which a pair was nominated.
    pub ice_restarts_completed: u64,
    /// Completed handshakes.
    pub handshakes_completed: u64,
    /// Batches handed to other shards.
    pub batches_handed_over: u64,
    /// Batches that another shard's full queue refused.
    pub batches_refused: u64,
    /// Of its TCP connections.
    pub tcp: TcpCounters,
}

impl ShardCounters {
    /// Counts one dropped datagram.
    pub fn drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }
}

/// The figures of a shard at one moment.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    /// Which shard.
    pub shard: ShardIndex,
    /// The share of a processor core that its thread used in about the last half second, 0 to 1.
    pub busy: f64,
    /// Bytes that its packet caches take.
    pub cache_bytes: usize,
    /// Its counters.
    pub counters: ShardCounters,
    /// Its sessions.
    pub sessions: Vec<SessionSnapshot>,
}

/// The layer of video that a viewer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SentLayer {
    /// The layer itself.
    #[serde(flatten)]
    pub layer: Layer,
    /// How often the viewer has gone to another encoding or spatial layer.
    pub switches: u64,
}

/// Figures of one session since it began. One flat list of many fields: each is a figure of the admin API under this name.
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
    /// RTP packets dropped late for the viewer, by congestion of its path or by overload of the shard.
    pub rtp_shed: u64,
    /// Estimated available bitrate of the path to the viewer, in bit/s; `None` without feedback of the viewer.
    pub available_outgoing_bitrate: Option<u64>,
    /// The layer that the viewer is sent of its first video track, where that has any.
    pub layer: Option<SentLayer>,
    /// Video pauses for the viewer, as its path does not carry even the lowest layer.
    pub video_paused: bool,
    /// Queueing delay of packets to the viewer at the bottleneck, in seconds: their delay above the least one.
    pub queueing_delay: Option<f64>,
    /// RTP packets retransmitted after a NACK.
    pub retransmitted: u64,
    /// SRTP or SRTCP packets whose authentication failed.
    pub srtp_auth_failures: u64,
    /// SRTP or SRTCP packets refused as replayed (RFC 3711 §3.3.2).
    pub srtp_replays: u64,
    /// RTP packets of the publisher lost on the way here, by extended sequence numbers (RFC 3550 §6.4.1; negative if duplicates
    /// outnumber losses).
    pub packets_lost: i64,
    /// Keyframe requests received (viewer) or sent (publisher).
    pub keyframe_requests: u64,
    /// Keyframes received (publisher).
    pub keyframes: u64,
    /// The video has B-frames, which WebRTC receivers show in decoding order (publisher).
    pub b_frames: bool,
    /// Fraction lost of the viewer's last receiver report, 0.0..=1.0 (RFC 3550 §6.4.1).
    pub reported_loss: Option<f64>,
    /// Round-trip time in seconds: to a viewer, of its last receiver report; to a publisher, smoothed.
    pub round_trip_time: Option<f64>,
    /// The remote address of the selected pair (RFC 8445 §8.1.1).
    pub remote_address: Option<SocketAddr>,
    /// The transport protocol of the selected pair, `udp` or `tcp`.
    pub transport: Option<&'static str>,
    /// ICE restarts after which a pair was nominated (RFC 8445 §9).
    pub ice_restarts: u64,
    /// The negotiated SRTP protection profile (RFC 5764 §4.1.2), by its IANA name.
    pub srtp_profile: Option<&'static str>,
}

/// The figures of one session at one moment.
#[derive(Clone, Debug)]
pub struct SessionSnapshot {
    /// The session.
    pub id: SessionId,
    /// Its figures.
    pub stats: SessionStats,
}
