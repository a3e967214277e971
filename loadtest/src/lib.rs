//! Load test for WHIP and WHEP servers: publishers and viewers with real ICE, DTLS and SRTP.
//!
//! [`client::Publisher`] sends synthetic `media` of which every payload carries a checksum and a send time;
//! [`client::Viewer`] counts what arrives ([`tally`]). A [`run::Campaign`] lets many of both, the `fleet`, loose on a server,
//! and measures what they do; a [`report`] presents the figures as text, as JSON or as a page.
//! [`conformance`] checks any server row by row against what the standards demand.
//! Behaviour tests use the clients alone, with [`client::ClientOptions`] that break one stage of a session at a time, and the
//! [`relay`] for impaired links.

#![forbid(unsafe_code)]

mod attack;
pub mod client;
mod clock;
pub mod conformance;
mod fleet;
pub mod floor;
mod garbage;
mod measure;
mod media;
mod plan;
pub mod relay;
pub mod report;
pub mod run;
pub mod sdp;
pub mod seconds;
pub mod tally;

pub use fleet::links::LinkClass;
pub use measure::process;
pub use media::scalability::{LayerId, Scalability};
