//! Datagrams that no server should spend time on, as many a second as one likes: noise, and what looks like STUN, DTLS and
//! SRTP, from addresses that never made a valid connectivity check.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use media_core::internals::net::MediaSocket;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use serde::Serialize;

use crate::attack::{Datagrams, Flood, Source};
use crate::client::local_ip;

/// Sockets towards each address, used by turns.
const SOURCES: usize = 16;
/// Datagrams of one kind in a row.
const RUN: usize = 8;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct GarbageFigures {
    /// Datagrams that the sockets took.
    pub sent: u64,
    /// Datagrams that they refused.
    pub refused: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Sent a second.
    pub per_second: f64,
}

/// The flood. Dropping it stops it.
pub(crate) struct Garbage {
    flood: Flood,
    begun: Instant,
}

impl Garbage {
    /// Sends so many datagrams a second, by turns to all of these addresses.
    ///
    /// # Errors
    /// Sockets or a thread that cannot be had.
    pub(crate) fn start(to: Vec<SocketAddr>, per_second: u32) -> io::Result<Garbage> {
        let open = |index: usize| {
            let to = to[index % to.len()];
            Ok(Source { socket: MediaSocket::bind(local_ip(to.ip()), 0)?, to, proven: false, sends: true })
        };
        let sources = (0..SOURCES * to.len()).map(open).collect::<io::Result<Vec<_>>>()?;
        let kinds = Kinds { noise: SmallRng::seed_from_u64(0x9e37_79b9_7f4a_7c15), turn: 0 };
        Ok(Garbage { begun: Instant::now(), flood: Flood::start("garbage", sources, kinds, per_second)? })
    }

    /// Stops it and tells what was sent.
    pub(crate) fn stop(self) -> GarbageFigures {
        let seconds = self.begun.elapsed().as_secs_f64();
        let counts = self.flood.stop();
        let per_second = counts.datagrams as f64 / seconds.max(0.001);
        GarbageFigures { sent: counts.datagrams, refused: counts.refused, seconds, per_second }
    }
}

/// All kinds by turns.
struct Kinds {
    noise: SmallRng,
    turn: usize,
}

impl Datagrams for Kinds {
    fn next(&mut self, _: usize, buffer: &mut [u8]) -> usize {
        let kind = KINDS[self.turn / RUN % KINDS.len()];
        self.turn += 1;
        kind.datagram(&mut self.noise, buffer).len()
    }
}

/// What a datagram pretends to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Noise,
    /// A Binding request with a made-up USERNAME and MESSAGE-INTEGRITY.
    Stun,
    /// A record with a piece of a ClientHello.
    Dtls,
    /// A packet of some stream.
    Rtp,
}

const KINDS: [Kind; 4] = [Kind::Noise, Kind::Stun, Kind::Dtls, Kind::Rtp];

impl Kind {
    /// One more of this kind.
    fn datagram<'a>(self, noise: &mut SmallRng, buffer: &'a mut [u8]) -> &'a [u8] {
        let len = match self {
            Kind::Noise => 64,
            Kind::Stun => 64,
            Kind::Dtls => 200,
            Kind::Rtp => 1150,
        };
        let datagram = &mut buffer[..len];
        noise.fill_bytes(datagram);
        match self {
            Kind::Noise => {}
            Kind::Stun => {
                datagram[..8].copy_from_slice(&[0x00, 0x01, 0x00, 44, 0x21, 0x12, 0xa4, 0x42]);
                // USERNAME of 13 characters, padded, and MESSAGE-INTEGRITY; 12 bytes of transaction id stand before them.
                datagram[20..24].copy_from_slice(&[0x00, 0x06, 0x00, 13]);
                for byte in &mut datagram[24..37] {
                    *byte = b'a' + *byte % 26;
                }
                datagram[32] = b':';
                datagram[40..44].copy_from_slice(&[0x00, 0x08, 0x00, 20]);
            }
            Kind::Dtls => {
                // A handshake record of epoch 0, and in it the only fragment of a ClientHello.
                datagram[..5].copy_from_slice(&[22, 0xfe, 0xfd, 0, 0]);
                datagram[11..17].copy_from_slice(&[0, 187, 1, 0, 0, 175]);
                datagram[17..25].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 175]);
            }
            Kind::Rtp => {
                datagram[0] = 0x80;
                datagram[1] = 96 + datagram[1] % 16;
            }
        }
        datagram
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use media_core::internals::demux::{PacketKind, classify};
    use media_core::internals::rtp::packet::RtpHeader;

    use super::*;

    #[test]
    fn each_kind_looks_like_what_it_pretends_to_be() {
        let (mut noise, mut buffer) = (SmallRng::seed_from_u64(1), [0; 1200]);
        for _ in 0..100 {
            assert_eq!(classify(Kind::Stun.datagram(&mut noise, &mut buffer)), Ok(PacketKind::Stun));
            assert!(media_core::internals::ice::peek_ufrag(&buffer[..64]).is_some(), "it gets as far as a look-up");
            assert_eq!(classify(Kind::Dtls.datagram(&mut noise, &mut buffer)), Ok(PacketKind::Dtls));
            assert_eq!(classify(Kind::Rtp.datagram(&mut noise, &mut buffer)), Ok(PacketKind::Rtp));
            assert!(RtpHeader::parse(&buffer[..1150]).is_ok());
        }
    }

    #[test]
    fn it_keeps_its_pace_and_comes_from_many_addresses() {
        let target = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        target.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let garbage = Garbage::start(vec![target.local_addr().unwrap()], 20_000).unwrap();
        let (mut sources, mut buffer) = (std::collections::BTreeSet::new(), [0; 1200]);
        while sources.len() < SOURCES {
            sources.insert(target.recv_from(&mut buffer).unwrap().1);
        }
        let figures = garbage.stop();
        assert!(figures.sent >= SOURCES as u64 && figures.per_second < 25_000.0, "{figures:?}");
    }
}
