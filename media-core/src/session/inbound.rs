//! What a peer sends, up to its decrypted packets: budgets, datagrams before the keys, SRTP.

use std::time::{Duration, Instant};

use crate::ecn::Ecn;
use crate::media::Role;
use crate::net::TransportTuple;
use crate::spec::SessionLimits;
use crate::srtp::{SrtpError, SrtpReceiver};
use crate::stats::DropReason;
use crate::token_bucket::TokenBucket;

use super::budgets::Budgets;
use super::evidence::{Dropped, RefusedStream};
use super::{Media, Session};

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

/// Packets from unknown ports that are tried with a session's keys, at once and a second.
const STRAYS_BURST: f64 = 20.0;
const STRAYS_PER_SECOND: f64 = 10.0;

/// The receiving side of a peer's transport.
pub(crate) struct Inbound {
    /// What the peer may cost.
    pub(crate) budgets: Budgets,
    /// Bounds what this peer may put into the queue of the handshake threads, which all peers share.
    pub(crate) dtls_limit: TokenBucket,
    /// DTLS datagrams received.
    pub(crate) dtls_received: u32,
    /// The peer's keys.
    pub(crate) srtp: Option<SrtpReceiver>,
    /// Bounds what packets from unknown ports cost.
    strays: TokenBucket,
    /// Media received before the keys were there.
    early: Vec<Early>,
    /// What was dropped.
    pub(super) dropped: Dropped,
    /// The SSRC whose packets SRTP refuses at present.
    pub(super) refused_stream: Option<RefusedStream>,
}

/// A datagram of media that came before the keys.
struct Early {
    at: Instant,
    tuple: TransportTuple,
    ecn: Ecn,
    data: Vec<u8>,
    is_announced: bool,
}

/// RTP or RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secure {
    /// SRTP (RFC 3711 §3.1)
    Rtp,
    /// SRTCP (RFC 3711 §3.4)
    Rtcp,
}

impl Inbound {
    pub(super) fn new(role: Role, limits: SessionLimits) -> Inbound {
        Inbound {
            budgets: Budgets::new(role, limits),
            dtls_limit: TokenBucket::new(DTLS_PER_SECOND, DTLS_BURST),
            dtls_received: 0,
            srtp: None,
            strays: TokenBucket::new(STRAYS_PER_SECOND, STRAYS_BURST),
            early: Vec::new(),
            dropped: Dropped::default(),
            refused_stream: None,
        }
    }

    /// Keeps a datagram until the keys are there; the first ones matter most, as a keyframe is of no use without its start. Those
    /// of an SSRC that the peer's description announced take the place of others, which may be anybody's.
    fn hold(
        &mut self,
        now: Instant,
        (tuple, ecn): (TransportTuple, Ecn),
        data: &[u8],
        is_announced: bool,
    ) -> Result<(), DropReason> {
        if self.early.len() == EARLY_DATAGRAMS {
            let other = self.early.iter().position(|early| !early.is_announced).filter(|_| is_announced);
            drop(self.early.remove(other.ok_or(DropReason::NoKeys)?));
        }
        self.early.push(Early { at: now, tuple, ecn, data: data.to_vec(), is_announced });
        Ok(())
    }

    /// The datagrams that were held, oldest first; each with whether it is fresh, or has waited too long.
    pub(crate) fn take_early(
        &mut self,
        now: Instant,
    ) -> impl Iterator<Item = ((TransportTuple, Ecn), Vec<u8>, bool)> + use<> {
        std::mem::take(&mut self.early).into_iter().map(move |Early { at, tuple, ecn, data, .. }| {
            let is_fresh = now.saturating_duration_since(at) < EARLY_TIME;
            ((tuple, ecn), data, is_fresh)
        })
    }
}

/// An authenticated packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unprotected {
    /// Its length, decrypted.
    pub(crate) length: usize,
    /// It came from an address that has shown that it receives.
    pub(crate) is_proven: bool,
}

impl Session {
    /// Decrypts a packet in place; `None` if it is held until the keys are there.
    ///
    /// # Errors
    /// Why it is dropped. That a viewer's is RTP, or one too many, needs no decryption.
    pub(crate) fn unprotect(
        &mut self,
        now: Instant,
        (tuple, ecn): (TransportTuple, Ecn),
        data: &mut [u8],
        secure: Secure,
    ) -> Result<Option<Unprotected>, DropReason> {
        if secure == Secure::Rtp && self.role == Role::Viewer {
            return Err(DropReason::UnexpectedRtp);
        }
        if !self.inbound.budgets.take_datagram(now, secure == Secure::Rtcp) {
            return Err(DropReason::DatagramRate);
        }
        let Some(srtp) = &mut self.inbound.srtp else {
            let is_announced = ssrc(secure, data).is_some_and(|ssrc| self.negotiated.announces(ssrc));
            return self.inbound.hold(now, (tuple, ecn), data, is_announced).map(|()| None);
        };
        let length = data.len();
        let unprotected = match secure {
            Secure::Rtp => srtp.unprotect_rtp(data, length),
            Secure::Rtcp => srtp.unprotect_rtcp(data, length),
        };
        let length = match unprotected {
            Ok(length) => length,
            Err(error) => return Err(self.on_srtp_error(now, error, secure, data)),
        };
        if self.inbound.refused_stream.is_some() || srtp.has_surplus() {
            self.on_accepted(secure, data);
        }
        let is_selected = self.selected.is_some_and(|selected| selected.remote == tuple.remote);
        let is_proven = is_selected || self.connectivity.is_proven(tuple.remote);
        if is_proven {
            self.lifecycle.on_authentic(now);
        }
        Ok(Some(Unprotected { length, is_proven }))
    }

    /// True if a packet's SSRC is one from which authentic packets came.
    pub(crate) fn knows_source(&self, secure: Secure, packet: &[u8]) -> bool {
        let srtp = self.inbound.srtp.as_ref();
        srtp.zip(ssrc(secure, packet)).is_some_and(|(srtp, ssrc)| srtp.knows(ssrc))
    }

    /// True if a packet from an unknown port is an authentic one of this session, not received before; it counts as received
    /// now.
    pub(crate) fn recognises(&mut self, now: Instant, packet: &[u8], secure: Secure) -> bool {
        if !self.inbound.strays.take(now) {
            return false;
        }
        let Some(srtp) = &mut self.inbound.srtp else { return false };
        let mut copy = packet.to_vec();
        let unprotected = match secure {
            Secure::Rtp => srtp.unprotect_rtp(&mut copy, packet.len()),
            Secure::Rtcp => srtp.unprotect_rtcp(&mut copy, packet.len()),
        };
        unprotected.is_ok()
    }

    /// A packet was authentic while SRTP refused others, or it was the first one of an SSRC too many.
    #[cold]
    fn on_accepted(&mut self, secure: Secure, packet: &[u8]) {
        let Session { inbound, media, .. } = self;
        let media = &*media;
        let Some(ssrc) = ssrc(secure, packet) else { return };
        if inbound.refused_stream.is_some_and(|refused| refused.is(secure, ssrc)) {
            inbound.refused_stream = None;
        }
        if let Some(srtp) = inbound.srtp.as_mut().filter(|srtp| srtp.has_surplus()) {
            let is_received =
                |other| matches!(media, Media::Publisher(publisher) if publisher.ingest.is_receiving(other));
            srtp.retire_idle(|other| other == ssrc || is_received(other));
        }
    }

    /// Notes a packet that SRTP refused, and says under which name it is counted.
    #[cold]
    fn on_srtp_error(&mut self, now: Instant, error: SrtpError, secure: Secure, packet: &[u8]) -> DropReason {
        match error {
            SrtpError::Authentication | SrtpError::NotEncrypted => {
                self.stats.srtp_auth_failures += 1;
                self.lifecycle.on_auth_failure(now);
                self.on_refused(now, secure, packet, false);
                DropReason::SrtpAuthentication
            }
            SrtpError::Replay => {
                self.stats.srtp_replays += 1;
                self.on_refused(now, secure, packet, true);
                DropReason::SrtpReplay
            }
            SrtpError::TooShort => DropReason::TooShort,
            _ => DropReason::UnknownRtpStream,
        }
    }

    /// An SSRC that was authentic before is refused. One that never was may be anybody's.
    fn on_refused(&mut self, now: Instant, secure: Secure, packet: &[u8], is_replay: bool) {
        let Some(ssrc) = ssrc(secure, packet) else { return };
        if !self.inbound.srtp.as_ref().is_some_and(|srtp| srtp.knows(ssrc)) {
            return;
        }
        let refused = &mut self.inbound.refused_stream;
        if refused.is_none_or(|refused| refused.is_over(now)) {
            *refused = Some(RefusedStream::new(now, secure, ssrc));
        }
        if let Some(refused) = refused.as_mut().filter(|refused| refused.is(secure, ssrc)) {
            refused.note(now, is_replay);
        }
    }

    /// Counts a datagram of `length` bytes that was dropped, if it is one of media or of the handshake.
    #[cold]
    pub(crate) fn on_dropped(&mut self, reason: DropReason, datagram: &[u8], length: usize) {
        let kind = match (&self.media, datagram) {
            (_, [20..=63, ..]) if reason != DropReason::TooLong => None,
            (_, [128..=191, 192..=223, ..]) => return,
            // The header of RTP is not encrypted.
            (Media::Publisher(publisher), [128..=191, second, ..]) => publisher.ingest.kind_of(second & 0x7f),
            (_, [128..=191, ..]) => None,
            _ => return,
        };
        self.inbound.dropped.note(kind, reason, length);
    }
}

/// The sender's SSRC, which is not encrypted (RFC 3711 §3.1, §3.4).
fn ssrc(secure: Secure, packet: &[u8]) -> Option<u32> {
    let at = if secure == Secure::Rtp { 8 } else { 4 };
    packet.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    // M6
    #[test]
    fn forged_packets_do_not_push_out_those_of_announced_sources_before_the_keys() {
        let now = Instant::now();
        let tuple = (TransportTuple::udp(([192, 0, 2, 1], 5000).into(), None), Ecn::Ce);
        let mut inbound = Inbound::new(Role::Publisher, SessionLimits::default());
        for _ in 0..100 {
            let _ = inbound.hold(now, tuple, b"forged", false);
        }
        for n in 0..10 {
            assert_eq!(inbound.hold(now, tuple, &[n], true), Ok(()));
        }
        assert_eq!(inbound.hold(now, tuple, b"forged", false), Err(DropReason::NoKeys));
        let early: Vec<_> = inbound.take_early(now).collect();
        assert_eq!(early.len(), EARLY_DATAGRAMS);
        let ours: Vec<_> = early.iter().filter(|(_, data, _)| data != b"forged").map(|(_, data, _)| data[0]).collect();
        assert_eq!(ours, (0..10).collect::<Vec<_>>(), "in order");
        assert!(early.iter().all(|(from, ..)| *from == tuple), "with their marks");
    }
}
