//! Load test for WHIP and WHEP servers: publishers and viewers with real ICE, DTLS and SRTP.
//!
//! [`client::Publisher`] sends synthetic media of which every payload carries a checksum and a send time
//! (`media::stamp`); [`client::Viewer`] counts what arrives ([`tally`]). A [`run::Campaign`] lets many of both loose on a server,
//! the [`monitor`] watches, and a [`report`] says what came of it, as text, as JSON or as a page ([`html`]).
//! Behaviour tests use the clients alone, with [`client::ClientOptions`] that break one stage of a session at a time.

#![forbid(unsafe_code)]

pub mod client;
mod clock;
mod fleet;
pub mod floor;
mod garbage;
pub mod html;
pub mod leak;
mod media;
pub mod monitor;
pub mod narrow;
mod plot;
pub mod process;
pub mod relay;
pub mod report;
pub mod run;
mod scenario;
pub mod sdp;
pub mod tally;
