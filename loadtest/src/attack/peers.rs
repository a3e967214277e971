//! Several attackers with sessions flood the server with packets that authenticate.

use std::time::Instant;

use media_core::DtlsRole;
use media_core::internals::srtp::MAX_TRAILER;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::flood::{Datagrams, Flood, MAX_LEN, Source};
use super::peer::{Formats, Peer, PeerSender, Role};
use super::{Assault, Attack, AttackError, Target};

/// Attackers of one kind.
const PEERS: usize = 4;
/// Bytes of a packet before it is protected.
pub(super) const MAX_PACKET: usize = 1200;

const _: () = assert!(MAX_PACKET + MAX_TRAILER <= MAX_LEN);

/// What a packet is protected as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rtp,
    Rtcp,
}

/// Makes the packets of an attacker with a session.
pub(super) trait Packets: Send + 'static {
    /// Writes the next packet of this attacker into `packet`, which is empty; at most [`MAX_PACKET`] bytes count.
    fn next(&mut self, peer: &Formats, noise: &mut SmallRng, packet: &mut Vec<u8>) -> Kind;
}

/// Attackers that watch an honest stream.
pub(super) async fn viewers(attack: Attack, target: &Target, packets: impl Packets) -> Result<Assault, AttackError> {
    let mut peers = Vec::new();
    for number in 0..PEERS {
        peers.push((Peer::join(target, Role::Viewer, target.watched()?, number).await?, true));
    }
    start(attack, target, packets, peers)
}

/// Attackers that publish streams of their own, each with a viewer who gets what they send.
pub(super) async fn publishers(attack: Attack, target: &Target, packets: impl Packets) -> Result<Assault, AttackError> {
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let publisher = Peer::join(target, Role::Publisher, target.own_stream(number as u64)?, number).await?;
        peers.push((publisher, true));
        let viewer = Peer::join(target, Role::Viewer, target.own_watched(number as u64)?, number).await?;
        peers.push((viewer, false));
    }
    start(attack, target, packets, peers)
}

fn start(
    attack: Attack,
    target: &Target,
    packets: impl Packets,
    peers: Vec<(Peer, bool)>,
) -> Result<Assault, AttackError> {
    let (mut sources, mut senders, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for (Peer { socket, to, session, sender }, sends) in peers {
        sources.push(Source { socket, to, proven: true, sends });
        senders.push(sender);
        sessions.push(session);
    }
    let noise = SmallRng::seed_from_u64(attack as u64);
    let protected = Protected { senders, packets, noise, packet: Vec::with_capacity(MAX_LEN) };
    let flood = Flood::start(attack.name(), sources, protected, target.datagrams)?;
    Ok(Assault::Peers(flood, sessions))
}

/// Packets, protected with the keys of their senders.
struct Protected<P> {
    senders: Vec<PeerSender>,
    packets: P,
    noise: SmallRng,
    packet: Vec<u8>,
}

impl<P: Packets> Datagrams for Protected<P> {
    fn next(&mut self, source: usize, buffer: &mut [u8]) -> usize {
        let sender = &mut self.senders[source];
        if let Some(check) = sender.check(Instant::now()) {
            buffer[..check.len()].copy_from_slice(&check);
            return check.len();
        }
        self.packet.clear();
        let kind = self.packets.next(&sender.formats, &mut self.noise, &mut self.packet);
        let length = self.packet.len().min(MAX_PACKET);
        buffer[..length].copy_from_slice(&self.packet[..length]);
        if let Ok(length) = protect(sender, kind, buffer, length) {
            return length;
        }
        // libsrtp refuses numbers far behind; a context that has sent nothing takes any.
        if let Ok((_, srtp)) = sender.keys.contexts(DtlsRole::Client) {
            sender.srtp = srtp;
        }
        buffer[..length].copy_from_slice(&self.packet[..length]);
        protect(sender, kind, buffer, length).unwrap_or(0)
    }
}

fn protect(
    sender: &mut PeerSender,
    kind: Kind,
    buffer: &mut [u8],
    length: usize,
) -> Result<usize, media_core::internals::srtp::SrtpError> {
    match kind {
        Kind::Rtp => sender.srtp.protect_rtp(buffer, length),
        Kind::Rtcp => sender.srtp.protect_rtcp(buffer, length),
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};
    use media_core::internals::rtp::packet::RtpHeader;

    use super::super::{feedback, keyframe_requests, nack, publisher_rtp, reports, ssrcs, viewer_rtp};
    use super::*;
    use crate::sdp::{PayloadTypes, Ssrcs};

    const FORMATS: Formats = Formats {
        audio: Ssrcs { media: 1, rtx: 2 },
        video: Ssrcs { media: 3, rtx: 4 },
        types: PayloadTypes { media: 96, rtx: Some(97) },
        audio_type: 111,
    };

    /// So many packets, and as what they are protected.
    fn made(mut packets: impl Packets, count: usize) -> Vec<(Kind, Vec<u8>)> {
        let mut noise = SmallRng::seed_from_u64(1);
        let one = |_| {
            let mut packet = Vec::new();
            let kind = packets.next(&FORMATS, &mut noise, &mut packet);
            assert!(packet.len() <= MAX_PACKET, "{}", packet.len());
            (kind, packet)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn feedback_of_viewers_is_well_formed_and_as_big_as_fits() {
        for (kind, packet) in made(feedback::Feedback::default(), 20).into_iter().chain(made(nack::Nacks::default(), 1))
        {
            assert!(kind == Kind::Rtcp && packet.len() > 1000, "{}", packet.len());
            assert!(RtcpPackets::new(&packet).all(|message| message.is_ok()));
        }
        let (_, requests) = made(keyframe_requests::KeyframeRequests::default(), 1).remove(0);
        let is_request = |message| matches!(message, Ok(RtcpPacket::Pli(_) | RtcpPacket::Fir(_)));
        assert!(RtcpPackets::new(&requests).filter(|message| is_request(*message)).count() > 60);
        let (_, nacks) = made(nack::Nacks::default(), 1).remove(0);
        let Some(Ok(RtcpPacket::Nack(nack))) = RtcpPackets::new(&nacks).next() else { panic!("no NACK") };
        assert!(nack.media_ssrc == 3 && nack.sequence_numbers().count() > 4000);
        assert!(made(reports::Reports, 20).iter().all(|(kind, packet)| *kind == Kind::Rtcp && packet.len() > 1000));
    }

    #[test]
    fn rtp_of_attackers_is_well_formed() {
        let headers = |packets: Vec<(Kind, Vec<u8>)>| -> Vec<RtpHeader> {
            packets.iter().map(|(_, packet)| RtpHeader::parse(packet).unwrap()).collect()
        };
        let garbage = headers(made(publisher_rtp::Garbage::default(), 500));
        assert!(garbage.iter().all(|header| [1, 3].contains(&header.ssrc)));
        let jumps = garbage
            .windows(2)
            .filter(|pair| pair[0].ssrc == pair[1].ssrc && pair[1].timestamp.wrapping_sub(pair[0].timestamp) > 1 << 20);
        assert!(jumps.count() > 0, "timestamps jump");
        let rtx = headers(made(publisher_rtp::Rtx::default(), 100));
        assert_eq!(rtx.iter().filter(|header| header.payload_type == 97 && header.ssrc == 4).count(), 75);
        let own = headers(made(viewer_rtp::ViewerRtp::default(), 100));
        assert!(own.iter().all(|header| header.payload_type == 96 && header.ssrc != 3));
        let many: std::collections::BTreeSet<u32> =
            headers(made(ssrcs::Ssrcs, 100)).iter().map(|header| header.ssrc).collect();
        assert_eq!(many.len(), 100);
    }
}
