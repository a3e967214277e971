//! The settings of the core: addresses, threads and timeouts that an operator can set, with their defaults.

use std::net::IpAddr;
use std::time::Duration;

use crate::net::MediaDscp;

/// An address at which clients reach the media sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// The address.
    pub ip: IpAddr,
    /// The port of shard 0 as clients see it, where something in between maps ports; shard n is at this plus n. `None`: each
    /// shard is at the port of its socket.
    pub port: Option<u16>,
}

impl From<IpAddr> for PublicAddress {
    fn from(ip: IpAddr) -> PublicAddress {
        PublicAddress { ip, port: None }
    }
}

/// A connected publisher from which nothing authentic came for this long is silent. Media or RTCP come many times a second,
/// and checks at least every 2.5 s from libwebrtc even where nothing is sent; a dead network is to be noticed soon.
pub const PUBLISHER_SILENCE: Duration = Duration::from_millis(2500);

/// The settings of a core. The defaults serve one shard on loopback.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Number of shards; 0 counts as 1.
    pub shards: usize,
    /// Local address of the media sockets; an unspecified IPv6 address serves both families.
    pub media_ip: IpAddr,
    /// Port of shard 0; shard n listens on `media_port + n`. 0 lets the system choose each one.
    pub media_port: u16,
    /// What the host candidates in answers say, in order of preference; at least one.
    /// [`MediaCore::set_public_addresses`](crate::MediaCore::set_public_addresses) replaces it.
    pub public_addresses: Vec<PublicAddress>,
    /// Clients may connect by TCP, too (RFC 6544), at the ports of the media sockets.
    pub ice_tcp: bool,
    /// The port, as clients see it, of another listener that hands such connections over
    /// ([`MediaCore::adopt_tcp`](crate::MediaCore::adopt_tcp)): each public address has a candidate there.
    pub ice_tcp_elsewhere: Option<u16>,
    /// TCP connections at a time; every shard has the same share.
    pub tcp_connections: usize,
    /// Number of threads that run DTLS handshakes; 0 counts as 1.
    pub handshake_threads: usize,
    /// A full ICE agent sends checks to private and link-local candidates, too. They are other machines for the server than for the
    /// client that names them, unless both are in one network; there they are the only ones that work.
    pub ice_private_candidates: bool,
    /// A session without a valid connectivity check ends after this time (RFC 8863 §4: 39.5 s at least).
    pub ice_timeout: Duration,
    /// The longest time from the first valid check to the end of the DTLS handshake.
    pub dtls_timeout: Duration,
    /// A session that receives nothing authentic for this time ends (consent freshness, RFC 7675 §5.1: 30 s).
    pub liveness_timeout: Duration,
    /// Stage `media` fails if a publisher sends no RTP (`no-media`, `medium-missing`), or a viewer reports none
    /// (`no-receipt`), for this time.
    pub media_timeout: Duration,
    /// Stage `media` fails with `media-stopped` if no video was received for this time, or no audio for twice this time, from a
    /// publisher that sent it before.
    pub media_gap: Duration,
    /// Stage `media` fails with `no-keyframe` if a publisher's video has none for this time, longer than the usual GOP of
    /// 10 s.
    pub keyframe_timeout: Duration,
    /// The longest time that a viewer of a stream without publisher is kept.
    pub publisher_wait: Duration,
    /// Bytes that the packet caches of all streams may take together; every shard has the same share.
    pub cache_bytes: usize,
    /// The least time between two keyframe requests to a publisher for one track.
    pub keyframe_request_interval: Duration,
    /// Viewers that agreed to feedback of RFC 8888 are sent packets as ECT(1), so that routers with L4S mark them instead of
    /// letting a queue grow (RFC 9331).
    pub l4s: bool,
    /// How routers are asked to treat the packets of viewers (RFC 8837).
    pub dscp: MediaDscp,
}

impl CoreConfig {
    /// A shard's part of the TCP connections.
    pub(crate) fn tcp_connections_of_shard(&self) -> usize {
        (self.tcp_connections / self.shards.max(1)).max(1)
    }
}

impl Default for CoreConfig {
    fn default() -> CoreConfig {
        CoreConfig {
            shards: 1,
            media_ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            media_port: 50_000,
            public_addresses: vec![IpAddr::V4(std::net::Ipv4Addr::LOCALHOST).into()],
            ice_tcp: true,
            ice_tcp_elsewhere: None,
            tcp_connections: 4096,
            handshake_threads: 1,
            ice_private_candidates: true,
            ice_timeout: Duration::from_secs(40),
            dtls_timeout: Duration::from_secs(30),
            liveness_timeout: Duration::from_secs(30),
            media_timeout: Duration::from_secs(10),
            media_gap: Duration::from_secs(3),
            keyframe_timeout: Duration::from_secs(12),
            publisher_wait: Duration::from_secs(60),
            cache_bytes: 512 << 20,
            keyframe_request_interval: Duration::from_millis(500),
            l4s: false,
            dscp: MediaDscp::default(),
        }
    }
}
