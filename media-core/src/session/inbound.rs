//! What a peer sends, up to its decrypted packets: budgets, datagrams before the keys, SRTP.

use std::time::{Duration, Instant};

use crate::net::TransportTuple;
use crate::srtp::{SrtpError, SrtpReceiver};
use crate::stats::DropReason;
use crate::token_bucket::TokenBucket;

use super::Session;

/// DTLS datagrams that one peer may send: a handshake takes some five, a hello in many fragments and every flight three
/// times over some sixty.
const DTLS_BURST: f64 = 100.0;
/// … and then so many a second.
const DTLS_PER_SECOND: f64 = 25.0;

/// Datagrams of media that are held while the handshake threads derive the keys (DMX-06): a peer may send media right after
/// its last flight, a keyframe first, and some know no way to send another.
const EARLY_DATAGRAMS: usize = 64;
/// Datagrams that were held longer are dropped.
const EARLY_TIME: Duration = Duration::from_millis(200);

/// The receiving side of a peer's transport.
pub(crate) struct Inbound {
    /// Bounds what this peer may put into the queue of the handshake threads, which all peers share.
    pub(crate) dtls_limit: TokenBucket,
    /// The peer's keys.
    pub(crate) srtp: Option<SrtpReceiver>,
    /// Media received before the keys were there.
    early: Vec<(Instant, TransportTuple, Vec<u8>)>,
}

/// RTP or RTCP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secure {
    /// SRTP (RFC 3711 §3.1)
    Rtp,
    /// SRTCP (RFC 3711 §3.4)
    Rtcp,
}

impl Inbound {
    pub(super) fn new() -> Inbound {
        Inbound { dtls_limit: TokenBucket::new(DTLS_PER_SECOND, DTLS_BURST), srtp: None, early: Vec::new() }
    }

    /// Keeps a datagram until the keys are there; the first ones matter most, as a keyframe is of no use without its start.
    fn hold(&mut self, now: Instant, tuple: TransportTuple, data: &[u8]) -> Result<(), DropReason> {
        if self.early.len() == EARLY_DATAGRAMS {
            return Err(DropReason::NoKeys);
        }
        self.early.push((now, tuple, data.to_vec()));
        Ok(())
    }

    /// The datagrams that were held, oldest first; an error stands for one that waited too long.
    pub(crate) fn take_early(
        &mut self,
        now: Instant,
    ) -> impl Iterator<Item = Result<(TransportTuple, Vec<u8>), DropReason>> + use<> {
        std::mem::take(&mut self.early).into_iter().map(move |(at, tuple, data)| {
            let fresh = now.saturating_duration_since(at) < EARLY_TIME;
            if fresh { Ok((tuple, data)) } else { Err(DropReason::NoKeys) }
        })
    }
}

impl Session {
    /// Decrypts a packet in place; its length, or `None` if it is held until the keys are there.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn unprotect(
        &mut self,
        now: Instant,
        tuple: TransportTuple,
        data: &mut [u8],
        secure: Secure,
    ) -> Result<Option<usize>, DropReason> {
        let Some(srtp) = &mut self.inbound.srtp else { return self.inbound.hold(now, tuple, data).map(|()| None) };
        let length = data.len();
        let unprotected = match secure {
            Secure::Rtp => srtp.unprotect_rtp(data, length),
            Secure::Rtcp => srtp.unprotect_rtcp(data, length),
        };
        let length = unprotected.map_err(|error| self.on_srtp_error(now, error))?;
        self.lifecycle.on_authentic(now);
        Ok(Some(length))
    }

    /// Notes a packet that SRTP refused, and says under which name it is counted.
    fn on_srtp_error(&mut self, now: Instant, error: SrtpError) -> DropReason {
        match error {
            SrtpError::Authentication | SrtpError::NotEncrypted => {
                self.stats.srtp_auth_failures += 1;
                self.lifecycle.on_auth_failure(now);
                DropReason::SrtpAuthentication
            }
            SrtpError::Replay => {
                self.stats.srtp_replays += 1;
                DropReason::SrtpReplay
            }
            SrtpError::TooShort => DropReason::TooShort,
            _ => DropReason::UnknownRtpStream,
        }
    }
}
