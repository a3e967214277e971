//! Load test for WHIP and WHEP servers: publishers and viewers with real ICE, DTLS and SRTP.
//!
//! [`client::Publisher`] sends synthetic media of which every payload carries a checksum and a send time
//! ([`stamp`]); [`client::Viewer`] counts what arrives ([`tally`]). [`run`] lets many of both loose on a server and
//! makes a [`report`] of it. Behaviour tests use the clients alone, with [`client::ClientOptions`] that break one stage
//! of a session at a time.

#![forbid(unsafe_code)]

pub mod client;
pub mod clock;
pub mod floor;
pub mod frames;
pub mod process;
pub mod report;
pub mod run;
pub mod sdp;
pub mod stamp;
pub mod tally;
