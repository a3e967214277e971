//! Why a packet was not protected or unprotected.

use super::ffi;

/// Why SRTP refuses a packet. The packet is dropped and counted; nothing else changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The tag is wrong: altered on the way, or made with other keys.
    #[error("the authentication tag is wrong")]
    Authentication,
    /// The packet was received before, or is older than the replay window.
    #[error("the packet was received before or is too old")]
    Replay,
    /// Shorter than its own headers, trailer and tag; or plainly no RTP or RTCP version 2.
    #[error("the packet is shorter than its headers and tag")]
    TooShort,
    /// The buffer has no room for the trailer, or the packet is longer than its buffer.
    #[error("the buffer has no room for the trailer")]
    NoRoom,
    /// SRTCP without its encryption flag: WebRTC always encrypts RTCP (RFC 8827 §6.5).
    #[error("the RTCP packet is not encrypted")]
    NotEncrypted,
    /// An authenticated peer uses more SSRCs than a session may have.
    #[error("too many SSRCs in this session")]
    TooManySources,
    /// The key has protected as many packets as it may (RFC 3711 §9.2): the session has to end.
    #[error("the key is used up")]
    KeyExpired,
    /// The exported keying material has another length than its profile demands.
    #[error("the keying material has the wrong length")]
    KeyingMaterial,
    /// Any other status of libsrtp, as its number.
    #[error("libsrtp status {0}")]
    Other(u32),
}

/// Reads a status of libsrtp.
pub(super) fn check(status: ffi::Status) -> Result<(), SrtpError> {
    match status {
        ffi::OK => Ok(()),
        ffi::AUTHENTICATION_FAILED => Err(SrtpError::Authentication),
        ffi::REPLAYED | ffi::REPLAYED_OLD | ffi::INDEX_OLD => Err(SrtpError::Replay),
        // The header names more CSRCs or extension words than the packet has.
        ffi::BAD_PARAMETER | ffi::PARSE_ERROR => Err(SrtpError::TooShort),
        ffi::KEY_EXPIRED => Err(SrtpError::KeyExpired),
        status => Err(SrtpError::Other(status)),
    }
}
