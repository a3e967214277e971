//! SRTP and SRTCP (RFC 3711, RFC 7714): one small safe wrapper over libsrtp, and the ciphers that libsrtp uses.
//!
//! A DTLS handshake ends with [`KeyingMaterial`]; [`KeyingMaterial::contexts`] turns it into the two halves of a
//! session, an [`SrtpReceiver`] and an [`SrtpSender`]. Both work in place and allocate nothing per packet, except that
//! the first packet of a new SSRC costs one small allocation inside libsrtp. Lengths are checked here, before libsrtp
//! sees a packet. No MKI, no encrypted header extensions (RFC 6904), no key change inside a session.

#![deny(clippy::disallowed_types)]
#![allow(unsafe_code)]

mod context;
mod counter_mode;
mod error;
mod ffi;
mod gcm;
mod hmac;
mod keying;
mod library;
mod profile;
#[cfg(test)]
mod tests;

pub use context::{ALIGNMENT, MAX_INBOUND_SSRCS, MAX_TRAILER, REPLAY_WINDOW, SrtpReceiver, SrtpSender};
pub use error::SrtpError;
pub use keying::KeyingMaterial;
pub use profile::SrtpProfile;
