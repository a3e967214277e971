//! The packet-forwarding core of Sluice.
//!
//! It knows nothing of HTTP, SDP or configuration files. Control reaches it through [`core::MediaCore`];
//! events and snapshots come back. See `ARCHITECTURE.md` for the way of a packet and of a session.

#![deny(unsafe_code)]

pub mod bwe;
pub mod core;
pub mod demux;
pub mod dtls;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod ice;
pub mod ledger;
mod load;
pub mod media;
pub mod net;
pub mod publication;
mod rate;
mod router;
pub mod rtcp;
pub mod rtp;
pub mod session;
mod shard;
pub mod srtp;
pub mod stats;
pub mod subscription;
pub mod transport;
