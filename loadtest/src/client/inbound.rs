//! What arrives for a client: media goes straight to who counts it, everything else is set aside for the client's task.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::net::RunBatch;
use media_core::internals::srtp::{SrtpReceiver, SrtpSender};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::reception::{DatagramSink, Moment};

/// Datagrams set aside at most; a server has no reason to send so many at once, and repeats what matters.
const ASIDE: usize = 256;
/// Packets of media that are kept until the keys are there.
const EARLY: usize = 512;
/// The longest packet that a client sends.
pub(super) const MAX_PACKET: usize = 1500;

/// What a client does with its connection.
pub(super) trait MediaHandler: Send + 'static {
    /// Keys are installed.
    fn connected(&mut self, now: Instant);
    /// An RTP packet of the peer as received, `overhead` bytes of its end are SRTP's. True if it is to be authenticated and
    /// decrypted, for [`MediaHandler::rtp`]; false if its header is all that counts.
    fn wants(&mut self, _now: Instant, _packet: &[u8], _overhead: usize) -> bool {
        true
    }
    /// An authenticated RTP packet.
    fn rtp(&mut self, now: Instant, packet: &mut [u8]);
    /// An authenticated compound RTCP packet.
    fn rtcp(&mut self, now: Instant, packet: &[u8], out: &mut PacketSender);
    /// A packet from this SSRC whose authentication failed, or that was received before.
    fn refused(&mut self, ssrc: u32);
    /// The socket has dropped so many datagrams since it was opened.
    fn overflowed(&mut self, _total: u32) {}
    /// All packets of a batch were handed over.
    fn end_of_batch(&mut self) {}
    /// Time passed.
    fn tick(&mut self, now: Instant, out: &mut PacketSender);
    /// When [`MediaHandler::tick`] is to be called at the latest; read after received packets.
    fn deadline(&self) -> Instant;
}

/// Protects packets and queues them for the socket.
pub(super) struct PacketSender {
    pub(super) srtp: SrtpSender,
    pub(super) corrupt: bool,
    pub(super) enabled: bool,
    pub(super) packet: Box<[u8]>,
    pub(super) queue: Vec<Vec<u8>>,
}

impl PacketSender {
    /// Protects an RTP packet and sends it after the current call.
    pub(super) fn rtp(&mut self, packet: &[u8]) {
        self.protect(packet, false);
    }

    /// Protects an RTCP packet and sends it after the current call.
    pub(super) fn rtcp(&mut self, packet: &[u8]) {
        self.protect(packet, true);
    }

    fn protect(&mut self, packet: &[u8], rtcp: bool) {
        let fits = self.enabled && packet.len() <= MAX_PACKET;
        let Some(room) = self.packet.get_mut(..packet.len()).filter(|_| fits) else { return };
        room.copy_from_slice(packet);
        let protected = if rtcp {
            self.srtp.protect_rtcp(&mut self.packet, packet.len())
        } else {
            self.srtp.protect_rtp(&mut self.packet, packet.len())
        };
        let Ok(len) = protected else { return };
        if self.corrupt {
            // The last byte is part of the authentication tag or of the SRTCP index: the packet never authenticates.
            self.packet[len - 1] ^= 0x55;
        }
        self.queue.push(self.packet[..len].to_vec());
    }
}

/// Keys, once the handshake is done.
pub(super) struct Keys {
    pub(super) receiver: SrtpReceiver,
    /// Bytes that SRTP adds to an RTP packet.
    pub(super) overhead: usize,
    pub(super) out: PacketSender,
}

/// Drops a share of the packets at random.
pub(super) struct RandomLoss {
    share: f64,
    random: SmallRng,
}

impl RandomLoss {
    /// `share` is 0.0..=1.0; equal seeds fall equally.
    pub(super) fn new(share: f64, seed: u16) -> RandomLoss {
        RandomLoss { share, random: SmallRng::seed_from_u64(seed.into()) }
    }

    pub(super) fn drops(&mut self) -> bool {
        self.share > 0.0 && self.random.random_bool(self.share.min(1.0))
    }
}

/// The receiving half of a client; the client's own task or a reception thread fills it.
pub(super) struct Inbound<M> {
    pub(super) media: M,
    pub(super) keys: Option<Keys>,
    /// Where the server is, once a path is validated.
    pub(super) peer: Option<SocketAddr>,
    pub(super) loss: RandomLoss,
    aside: Vec<(SocketAddr, Vec<u8>)>,
    /// Media received before the keys: a server may send right after its last flight.
    early: Vec<(Instant, PacketKind, Vec<u8>)>,
}

pub(super) type SharedInbound<M> = Arc<Mutex<Inbound<M>>>;

pub(super) fn lock<M>(inbound: &Mutex<Inbound<M>>) -> MutexGuard<'_, Inbound<M>> {
    inbound.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: MediaHandler> Inbound<M> {
    pub(super) fn new(media: M) -> SharedInbound<M> {
        let loss = RandomLoss::new(0.0, 0);
        Arc::new(Mutex::new(Inbound { media, keys: None, peer: None, loss, aside: Vec::new(), early: Vec::new() }))
    }

    /// What is not media of the known peer.
    pub(super) fn take_aside(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.aside)
    }

    /// Takes the keys, and the packets received before them.
    pub(super) fn take_keys(&mut self, now: Instant, keys: Keys) {
        self.keys = Some(keys);
        self.media.connected(now);
        for (arrival, kind, mut datagram) in std::mem::take(&mut self.early) {
            self.take_media(arrival, kind, &mut datagram);
        }
    }

    /// Takes whatever was received.
    pub(super) fn take_datagram(&mut self, arrival: Instant, remote: SocketAddr, datagram: &mut [u8]) {
        if self.loss.drops() {
            return;
        }
        match classify(datagram) {
            Ok(kind @ (PacketKind::Rtp | PacketKind::Rtcp)) if self.peer == Some(remote) => {
                self.take_media(arrival, kind, datagram);
            }
            Ok(_) if self.aside.len() < ASIDE => self.aside.push((remote, datagram.to_vec())),
            _ => {}
        }
    }

    /// Takes an RTP or RTCP packet of the peer.
    pub(super) fn take_media(&mut self, arrival: Instant, kind: PacketKind, datagram: &mut [u8]) {
        let Some(Keys { receiver, overhead, out }) = &mut self.keys else {
            if self.early.len() < EARLY {
                self.early.push((arrival, kind, datagram.to_vec()));
            }
            return;
        };
        let len = datagram.len();
        match kind {
            PacketKind::Rtp if self.media.wants(arrival, datagram, *overhead) => {
                match receiver.unprotect_rtp(datagram, len) {
                    Ok(len) => self.media.rtp(arrival, &mut datagram[..len]),
                    Err(_) => self.media.refused(ssrc(datagram, 8)),
                }
            }
            PacketKind::Rtcp => match receiver.unprotect_rtcp(datagram, len) {
                Ok(len) => self.media.rtcp(arrival, &datagram[..len], out),
                Err(_) => self.media.refused(ssrc(datagram, 4)),
            },
            _ => {}
        }
    }
}

/// The sender's SSRC, which stands in clear at this place; 0 of a packet that is too short to have one.
fn ssrc(packet: &[u8], at: usize) -> u32 {
    packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

impl<M: MediaHandler> DatagramSink for Inbound<M> {
    fn take_batch(&mut self, moment: Moment, batch: &mut RunBatch) -> bool {
        let deadline = self.media.deadline();
        for mut run in batch.iter_mut() {
            let (remote, arrival) = (run.remote, moment.arrival(run.received));
            if let Some(total) = run.overflowed {
                self.media.overflowed(total);
            }
            for datagram in run.datagrams() {
                self.take_datagram(arrival, remote, datagram);
            }
        }
        self.media.end_of_batch();
        !self.aside.is_empty() || self.media.deadline() < deadline
    }
}
