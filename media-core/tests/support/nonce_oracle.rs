//! An oracle for "no nonce twice" (SRTP-09): it sees every datagram that one peer is sent, decrypts it with keys that it
//! derives itself, and judges whether an index ever stood for two packets.
//!
//! It shares nothing with the code under test: keys by RFC 3711 §4.3, the index as a receiver estimates it (§3.3.1), and
//! AES-GCM (RFC 7714) by OpenSSL, where the packet path has libsrtp and ring.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};

use openssl::symm::{Cipher, decrypt_aead, encrypt};

const TAG: usize = 16;
const SALT: usize = 12;

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
    rtp: SessionKey,
    rtcp: SessionKey,
    /// Highest index of each RTP source.
    highest: HashMap<u32, u64>,
    /// By RTCP or not, SSRC and index.
    seen: HashMap<(bool, u32, u64), u64>,
}

struct SessionKey {
    cipher: Cipher,
    key: Vec<u8>,
    salt: [u8; SALT],
}

impl NonceOracle {
    /// For the master key (16 or 32 bytes) and salt (12 bytes) of an AES-GCM profile.
    pub(crate) fn new(master_key: &[u8], master_salt: &[u8]) -> NonceOracle {
        NonceOracle {
            rtp: SessionKey::derive(master_key, master_salt, 0),
            rtcp: SessionKey::derive(master_key, master_salt, 3),
            highest: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    /// For what a TLS exporter gave (RFC 5764 §4.2): the packets of the DTLS server, or else of the client.
    pub(crate) fn of_exported(exported: &[u8], of_server: bool) -> NonceOracle {
        let key_len = exported.len() / 2 - SALT;
        let (keys, salts) = exported.split_at(2 * key_len);
        let side = usize::from(of_server);
        NonceOracle::new(&keys[side * key_len..][..key_len], &salts[side * SALT..][..SALT])
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
        let contributing = usize::from(datagram[0] & 0x0f);
        let mut header = 12 + 4 * contributing;
        if datagram[0] & 0x10 != 0 {
            header += 4 + 4 * usize::from(u16::from_be_bytes([datagram[header + 2], datagram[header + 3]]));
        }
        let mut nonce = [0; SALT];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
        let (aad, body) = datagram.split_at(header);
        if !self.rtp.opens(nonce, aad, body) {
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
        let (packet, trailer) = datagram.split_at(datagram.len() - 4);
        let (ssrc, word) = (read_u32(packet, 4), read_u32(trailer, 0));
        let mut nonce = [0; SALT];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[8..].copy_from_slice(&(word & 0x7fff_ffff).to_be_bytes());
        let (header, body) = packet.split_at(8);
        if !self.rtcp.opens(nonce, &[header, trailer].concat(), body) {
            return Err(format!("RTCP of {ssrc:x} does not authenticate"));
        }
        match self.note((true, ssrc, u64::from(word)), datagram) {
            None => Ok(Seen::Rtcp),
            Some(_) => Err(format!("RTCP of {ssrc:x}: index {word:x} is used twice")),
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

impl SessionKey {
    /// The key and salt with these labels: `label` and `label` + 2 (RFC 3711 §4.3.2).
    fn derive(master_key: &[u8], master_salt: &[u8], label: u8) -> SessionKey {
        let (cipher, counter) = match master_key.len() {
            16 => (Cipher::aes_128_gcm(), Cipher::aes_128_ctr()),
            _ => (Cipher::aes_256_gcm(), Cipher::aes_256_ctr()),
        };
        let keystream = |label: u8, length: usize| {
            let mut block = [0; 16];
            block[..SALT].copy_from_slice(master_salt);
            block[7] ^= label;
            encrypt(counter, master_key, Some(&block), &vec![0; length]).expect("a key and a block of their sizes")
        };
        let salt = keystream(label + 2, SALT).try_into().expect("as long as a salt");
        SessionKey { cipher, key: keystream(label, master_key.len()), salt }
    }

    fn opens(&self, mut nonce: [u8; SALT], aad: &[u8], body: &[u8]) -> bool {
        nonce.iter_mut().zip(self.salt).for_each(|(byte, salt)| *byte ^= salt);
        let Some((ciphertext, tag)) = body.len().checked_sub(TAG).map(|end| body.split_at(end)) else { return false };
        decrypt_aead(self.cipher, &self.key, Some(&nonce), aad, ciphertext, tag).is_ok()
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
