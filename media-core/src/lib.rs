//! The packet-forwarding core of Sluice.
//!
//! It knows nothing of HTTP, SDP or configuration files. Control starts a [`MediaCore`], opens sessions with what both
//! descriptions agreed ([`SessionSpec`]), and feeds control to them by their ids; [`CoreEvent`]s come back, and at a scrape
//! [`stats`] of every shard. See `ARCHITECTURE.md` for the way of a packet and of a session, and `examples/` for a program.
//!
//! ```
//! use std::time::Duration;
//!
//! use media_core::media::{Codec, Format, MediaKind, MediaSection, Role};
//! use media_core::negotiation::random_credentials;
//! use media_core::*;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let config = CoreConfig { media_port: 0, ice_timeout: Duration::from_millis(300), ..CoreConfig::default() };
//! let (core, mut events) = MediaCore::start(config)?;
//!
//! // What an offer and our answer agreed on.
//! let (id, stream) = (SessionId(1), StreamId(7));
//! let shard = core.shard_for(stream, Role::Publisher);
//! let client = IceCredentials { ufrag: "abcd".into(), pwd: "a password of the client".into() };
//! let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, digest: vec![0; 32] };
//! let audio = MediaSection::new("0", MediaKind::Audio, vec![Format::new(111, Codec::Opus)]);
//! core.open(shard, SessionSpec {
//!     id,
//!     stream,
//!     role: Role::Publisher,
//!     ice: IceParameters {
//!         mode: IceMode::Lite,
//!         local: random_credentials(),
//!         remote: client,
//!         remote_is_lite: false,
//!         remote_candidates: Vec::new(),
//!     },
//!     dtls: DtlsParameters { role: DtlsRole::Server, fingerprints: vec![fingerprint] },
//!     sections: vec![audio],
//!     refused: vec![],
//!     certificate: core.fingerprint(),
//!     cname: "sluice".into(),
//!     limits: SessionLimits::default(),
//! });
//!
//! // Nobody answers: the ledger says which stage failed, and the session ends.
//! while let Some(event) = events.recv().await {
//!     if let CoreEvent::Ended { session, reason, .. } = event {
//!         assert_eq!((session, reason), (id, ledger::Reason::NoValidCheck));
//!         break;
//!     }
//! }
//! core.shutdown().await;
//! # Ok::<(), StartError>(())
//! # }).unwrap();
//! ```

#![deny(unsafe_code)]
// Control, handshakes and the full ICE agent share state between threads; the rooms of the packet path deny it again.
#![allow(clippy::disallowed_types)]

mod bwe;
mod clock;
mod config;
mod demux;
mod dtls;
mod ecn;
mod egress;
mod event;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod ice;
mod ingest;
pub mod layers;
pub mod ledger;
mod load;
pub mod media;
mod net;
#[cfg(test)]
#[path = "../tests/support/nonce_oracle.rs"]
mod nonce_oracle;
mod pulse;
mod rtcp;
mod rtp;
mod session;
mod shard;
mod spec;
mod srtp;
#[cfg(test)]
#[path = "../tests/support/srtp_reference.rs"]
mod srtp_reference;
pub mod stats;
mod stream;
mod token_bucket;

pub use config::{CoreConfig, PUBLISHER_SILENCE, PublicAddress};
pub use event::CoreEvent;
pub use handle::{MediaCore, StartError};
pub use net::{Dscp, HeapUse, MediaDscp, NoDscp, Protocol, customer, heap_use, return_free_memory};
#[cfg(feature = "fault-injection")]
pub use pulse::Fault;
pub use pulse::{BEAT, CoreThread, Pulse, Vital};
pub use spec::{
    CandidateKind, DtlsParameters, DtlsRole, Fingerprint, FingerprintHash, IceCredentials, IceMode, IceParameters,
    IceRestart, LocalCandidate, RemoteCandidate, SessionId, SessionLimits, SessionSpec, ShardIndex, StreamId,
};

/// What an offer/answer engine has to know of the core: ICE credentials and candidate lines, and which formats a viewer can
/// be sent.
pub mod negotiation {
    pub use crate::ice::{MAX_REMOTE_CANDIDATES, candidate_line, candidate_ufrag, parse_candidate, random_credentials};
    pub use crate::rtp::compat::{Fmtp, Sent, carrier, compatible};
    pub use crate::rtp::profile::{
        Av1ProfileTierLevel, BadParameter, FormatInUse, H264Profile, H264ProfileLevel, H265ProfileTierLevel, Profile,
        describe, describe_all,
    };
}

/// How a STUN server is asked where it sees this machine.
pub mod reflexive {
    pub use crate::ice::{QUERY_TIME, QueryRefused, QueryStep, ReflexiveQuery};
}

/// The parts that the core is made of, without any promise of stability: for tests, benchmarks and fuzzing, and for the load
/// test, whose clients are built from them.
pub mod internals {
    /// Bandwidth estimation.
    pub mod bwe {
        pub use crate::bwe::*;
    }
    /// Wall-clock time and RTP timestamps.
    pub mod clock {
        pub use crate::clock::*;
    }
    /// Which protocol a datagram is of (RFC 7983).
    pub mod demux {
        pub use crate::demux::*;
    }
    /// DTLS over datagrams, and the handshake threads.
    pub mod dtls {
        pub use crate::dtls::*;
    }
    /// Explicit congestion notification.
    pub mod ecn {
        pub use crate::ecn::*;
    }
    /// What goes out: viewers and feeds.
    pub mod egress {
        pub use crate::egress::*;
    }
    /// ICE: lite, and the full agent.
    pub mod ice {
        pub use crate::ice::*;
    }
    /// What comes in from a publisher.
    pub mod ingest {
        pub use crate::ingest::*;
    }
    /// Sockets and batches.
    pub mod net {
        pub use crate::net::*;
    }
    /// RTCP messages.
    pub mod rtcp {
        pub use crate::rtcp::*;
    }
    /// RTP packets, header extensions, payload formats, receive statistics.
    pub mod rtp {
        pub use crate::rtp::*;
    }
    /// SRTP by libsrtp.
    pub mod srtp {
        pub use crate::srtp::*;
    }
    /// Tracks, encodings, caches, keyframe requests.
    pub mod stream {
        pub use crate::stream::*;
    }
}
