//! DTLS 1.2 over datagrams (RFC 6347), by OpenSSL: certificate, handshake, fingerprint check, key export (RFC 5764).
//!
//! [`DtlsEndpoint`] is one association in either role. [`HandshakePool`] runs many of them on threads of their own,
//! since a handshake costs as much CPU as some 300 forwarded packets.

mod agreement;
mod alert;
mod certificate;
mod check;
mod context;
mod endpoint;
mod evidence;
mod failure;
mod ffi;
mod fingerprint;
mod hello;
mod pool;
mod queue;
mod record;
mod screen;
#[cfg(test)]
mod tests;

pub use agreement::Connection;
pub use certificate::{Certificate, CertificateKey};
pub use context::{DATAGRAM_SIZE, DtlsContext, DtlsError};
pub use endpoint::{DtlsEndpoint, DtlsEvent, MAX_RETRANSMISSIONS};
pub use failure::DtlsFailure;
pub use fingerprint::FingerprintError;
pub use hello::Source;
#[cfg(feature = "fuzzing")]
pub(crate) use pool::UnthreadedPool;
pub use pool::{DtlsOutput, DtlsOutputKind, Full, HandshakePool, PoolHandle, QUEUED_DATAGRAMS};
