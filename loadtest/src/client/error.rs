//! A client's state, and why it failed.

use std::time::Duration;

use media_core::internals::dtls::DtlsFailure;
use media_core::internals::srtp::SrtpProfile;
use media_core::ledger::Stage;

use crate::sdp::AnswerError;

/// Why a client failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No HTTP answer was received.
    #[error("HTTP: {0}")]
    Http(String),
    /// The server refused the offer.
    #[error("the server answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Body of the answer, at most some hundred bytes of it.
        body: String,
    },
    /// The answer cannot be used.
    #[error("{0}")]
    Answer(String),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(String),
    /// OpenSSL or libsrtp refused.
    #[error("cryptography: {0}")]
    Crypto(String),
    /// ICE found no path, or the handshake did not end in time.
    #[error("no connection after {0:?}, stage {1}")]
    Timeout(Duration, Stage),
    /// The handshake failed.
    #[error("DTLS: {} ({})", .0.reason, .0.detail)]
    Dtls(DtlsFailure),
    /// The server said close_notify.
    #[error("the server closed the session")]
    ClosedByServer,
    /// The client's task is gone.
    #[error("the client stopped")]
    Stopped,
}

impl From<AnswerError> for ClientError {
    fn from(error: AnswerError) -> ClientError {
        ClientError::Answer(error.to_string())
    }
}

/// A client's state.
#[derive(Clone, Debug)]
pub enum ClientState {
    /// The answer is there, connectivity checks are in progress.
    Connecting,
    /// A path is validated, the handshake is in progress.
    Handshaking,
    /// Media flows, under this profile.
    Connected(SrtpProfile),
    /// It is over, for this reason.
    Ended(ClientError),
}
