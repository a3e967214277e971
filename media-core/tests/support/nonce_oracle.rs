//! An oracle for "no nonce twice" (SRTP-09): it sees every datagram that one peer is sent, decrypts it with keys that it
//! derives itself, and judges whether an index ever stood for two packets.
//!
//! It shares nothing with the code under test: the index is as a receiver estimates it (RFC 3711 §3.3.1), and all else is
//! [`SrtpReference`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::srtp_reference::SrtpReference;

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// An RTP packet under an index that was not used before.
    New,
    /// An RTP packet sent once more, bit for bit.
    Again,
    /// An RTCP datagram.
    Rtcp,
    /// STUN or DTLS.
    Other,
}

/// The packets that one peer was sent under the keys of one direction.
pub(crate) struct NonceOracle {
    keys: SrtpReference,
    /// Highest index of each RTP source.
    highest: HashMap<u32, u64>,
    /// By RTCP or not, SSRC and index.
    seen: HashMap<(bool, u32, u64), u64>,
}

impl NonceOracle {
    /// For what a TLS exporter gave (RFC 5764 §4.2): the packets of the DTLS server, or else of the client.
    pub(crate) fn of_exported(exported: &[u8], of_server: bool) -> NonceOracle {
        let keys = SrtpReference::of_exported(exported, of_server);
        NonceOracle { keys, highest: HashMap::new(), seen: HashMap::new() }
    }

    /// Judges a datagram.
    ///
    /// # Errors
    /// What is wrong: an index that stood for something else before, or a packet that is not encrypted under the index that
    /// its receiver takes it to have.
    pub(crate) fn see(&mut self, datagram: &[u8]) -> Result<Seen, String> {
        match datagram {
            [128..=191, 192..=223, ..] => self.see_rtcp(datagram),
            [128..=191, ..] => self.see_rtp(datagram),
            _ => Ok(Seen::Other),
        }
    }

    fn see_rtp(&mut self, datagram: &[u8]) -> Result<Seen, String> {
        let number = u16::from_be_bytes([datagram[2], datagram[3]]);
        let ssrc = read_u32(datagram, 8);
        let index = self.index(ssrc, number);
        if self.keys.open_rtp(datagram, index).is_none() {
            return Err(format!("SSRC {ssrc:x}: number {number} is not encrypted as index {index:x}"));
        }
        let highest = self.highest.entry(ssrc).or_insert(index);
        *highest = index.max(*highest);
        match self.note((false, ssrc, index), datagram) {
            None => Ok(Seen::New),
            Some(true) => Ok(Seen::Again),
            Some(false) => Err(format!("SSRC {ssrc:x}: index {index:x} stands for two packets")),
        }
    }

    fn see_rtcp(&mut self, datagram: &[u8]) -> Result<Seen, String> {
        let ssrc = read_u32(datagram, 4);
        let Some((index, _)) = self.keys.open_rtcp(datagram) else {
            return Err(format!("RTCP of {ssrc:x} does not authenticate"));
        };
        match self.note((true, ssrc, u64::from(index)), datagram) {
            None => Ok(Seen::Rtcp),
            Some(_) => Err(format!("RTCP of {ssrc:x}: index {index:x} is used twice")),
        }
    }

    /// What a receiver takes the index of a number to be (RFC 3711 §3.3.1).
    fn index(&self, ssrc: u32, number: u16) -> u64 {
        let Some(&highest) = self.highest.get(&ssrc) else { return u64::from(number) };
        let distance = i64::from(number.wrapping_sub(highest as u16) as i16);
        highest.checked_add_signed(distance).unwrap_or(u64::from(number))
    }

    /// Whether the same was seen before under this index, if anything was.
    fn note(&mut self, index: (bool, u32, u64), datagram: &[u8]) -> Option<bool> {
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let fingerprint = hasher.finish();
        match self.seen.entry(index) {
            Entry::Occupied(before) => Some(*before.get() == fingerprint),
            Entry::Vacant(place) => {
                place.insert(fingerprint);
                None
            }
        }
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
