//! What protocol a datagram of the media socket carries, by its first bytes (RFC 7983 §7, RFC 5761 §4).

#![deny(clippy::disallowed_types)]

use crate::stats::DropReason;

/// The longest datagram that is looked at, in bytes: no peer has reason to send more than an Ethernet frame holds.
pub const MAX_DATAGRAM: usize = 1500;

/// A protocol of the media socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// RFC 8489
    Stun,
    /// RFC 6347, RFC 9147
    Dtls,
    /// SRTP (RFC 3711)
    Rtp,
    /// SRTCP (RFC 3711)
    Rtcp,
}

/// Classifies one datagram and checks its smallest size; nothing else of it is read.
///
/// The DTLS version bytes are no criterion: DTLS 1.3 ciphertext has none (RFC 9147 §4). TURN channel data, ZRTP and QUIC
/// have no business on this socket.
///
/// # Errors
/// [`DropReason::TooLong`], [`DropReason::TooShort`] or [`DropReason::UnknownProtocol`].
pub fn classify(datagram: &[u8]) -> Result<PacketKind, DropReason> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(DropReason::TooLong);
    }
    let Some(&first) = datagram.first() else { return Err(DropReason::TooShort) };
    let (kind, smallest) = match first {
        0..=3 => (PacketKind::Stun, 20),
        20..=31 => (PacketKind::Dtls, 13),
        // The unified header of DTLS 1.3 may be as short as two bytes.
        32..=63 => (PacketKind::Dtls, 2),
        128..=191 => match datagram.get(1) {
            Some(192..=223) => (PacketKind::Rtcp, 8),
            _ => (PacketKind::Rtp, 12),
        },
        _ => return Err(DropReason::UnknownProtocol),
    };
    if datagram.len() < smallest { Err(DropReason::TooShort) } else { Ok(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xa5; len];
        bytes[0] = first;
        if len > 1 {
            bytes[1] = second;
        }
        bytes
    }

    #[test]
    fn every_first_byte_has_one_fate() {
        // DMX-01
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Ok(PacketKind::Stun),
                20..=63 => Ok(PacketKind::Dtls),
                128..=191 => Ok(PacketKind::Rtp),
                _ => Err(DropReason::UnknownProtocol),
            };
            assert_eq!(classify(&datagram(first, 0x60, 64)), expected, "first byte {first}");
        }
    }

    #[test]
    fn the_second_byte_tells_rtcp_from_rtp() {
        // DMX-02: payload type 72 with the marker looks like a sender report and is one.
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) { PacketKind::Rtcp } else { PacketKind::Rtp };
            assert_eq!(classify(&datagram(0x80, second, 64)), Ok(expected));
        }
        assert_eq!(classify(&datagram(0x80, 0x80 | 72, 64)), Ok(PacketKind::Rtcp));
    }

    #[test]
    fn packets_below_the_smallest_size_are_dropped() {
        // DMX-03
        assert_eq!(classify(&[]), Err(DropReason::TooShort));
        for (first, second, smallest) in
            [(0, 1, 20), (22, 254, 13), (0x2c, 1, 2), (0x80, 96, 12), (0x80, 200, 8), (0x80, 201, 8)]
        {
            assert_eq!(classify(&datagram(first, second, smallest - 1)), Err(DropReason::TooShort));
            assert!(classify(&datagram(first, second, smallest)).is_ok());
        }
        assert!(classify(&datagram(0x80, 96, 1500)).is_ok());
        assert_eq!(classify(&datagram(0x80, 96, 1501)), Err(DropReason::TooLong));
    }

    #[test]
    fn dtls_needs_no_known_version() {
        // DMX-04: an ACK (26), a connection id (25) and a unified header.
        for first in [25, 26, 0x2f] {
            assert_eq!(classify(&datagram(first, 0, 40)), Ok(PacketKind::Dtls));
        }
    }
}
