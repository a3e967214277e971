//! How the core runs: all its limits and timeouts that an operator can set, with their defaults.

use std::net::IpAddr;
use std::time::Duration;

/// The settings of a core.
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
