//! SRTP once more, for tests: keys by RFC 3711 §4.3, AES in counter mode with HMAC-SHA1 (RFC 3711 §4) and AES-GCM (RFC 7714), all by
//! OpenSSL. It shares nothing with the code under test, where libsrtp frames and ring and OpenSSL encrypt; and it takes any
//! index, where libsrtp counts by itself.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead, encrypt, encrypt_aead};

/// The tag of AES-GCM, and that of AES_CM_128_HMAC_SHA1_80.
const GCM_TAG: usize = 16;
const HMAC_TAG: usize = 10;
/// Master salts: that of counter mode has two bytes more.
const GCM_SALT: usize = 12;
const COUNTER_SALT: usize = 14;
/// The flag of an encrypted SRTCP packet, in the word with its index.
const ENCRYPTED: u32 = 0x8000_0000;

/// One direction of a session. The length of the master salt tells the profile's kind.
pub(crate) struct SrtpReference {
    rtp: SessionKeys,
    rtcp: SessionKeys,
}

struct SessionKeys {
    /// For counter mode, `None`.
    gcm: Option<Cipher>,
    key: Vec<u8>,
    salt: Vec<u8>,
    authentication: PKey<Private>,
}

impl SrtpReference {
    /// For what a TLS exporter gave (RFC 5764 §4.2): the packets of the DTLS server, or else of the client.
    pub(crate) fn of_exported(exported: &[u8], of_server: bool) -> SrtpReference {
        let half = exported.len() / 2;
        // 16 and 14 bytes, 16 and 12, 32 and 12.
        let salt_len = if half == 16 + COUNTER_SALT { COUNTER_SALT } else { GCM_SALT };
        let (keys, salts) = exported.split_at(2 * (half - salt_len));
        let side = usize::from(of_server);
        let (key, salt) = (&keys[side * keys.len() / 2..][..keys.len() / 2], &salts[side * salt_len..][..salt_len]);
        SrtpReference { rtp: SessionKeys::derive(key, salt, 0), rtcp: SessionKeys::derive(key, salt, 3) }
    }

    /// The RTP packet in an SRTP packet, if it is authentic under this index.
    pub(crate) fn open_rtp(&self, datagram: &[u8], index: u64) -> Option<Vec<u8>> {
        let (header, body) = datagram.split_at_checked(rtp_header(datagram)?)?;
        let ssrc = read_u32(datagram, 8)?;
        let plaintext = match self.rtp.gcm {
            Some(_) => self.rtp.open_gcm(self.rtp.rtp_nonce(ssrc, index), header, body)?,
            None => {
                let (ciphertext, tag) = body.split_at_checked(body.len().checked_sub(HMAC_TAG)?)?;
                if self.rtp.hmac(&[header, ciphertext, &roc(index)].concat()) != tag {
                    return None;
                }
                self.rtp.counter(ssrc, index, ciphertext)
            }
        };
        Some([header, &plaintext].concat())
    }

    /// The SRTP packet of an RTP packet.
    pub(crate) fn seal_rtp(&self, packet: &[u8], index: u64) -> Vec<u8> {
        let (header, body) = packet.split_at(rtp_header(packet).expect("an RTP packet"));
        let ssrc = read_u32(packet, 8).expect("an RTP packet");
        if self.rtp.gcm.is_some() {
            let sealed = self.rtp.seal_gcm(self.rtp.rtp_nonce(ssrc, index), header, body);
            return [header, &sealed].concat();
        }
        let mut datagram = [header, &self.rtp.counter(ssrc, index, body)].concat();
        datagram.extend(self.rtp.hmac(&[&datagram[..], &roc(index)].concat()));
        datagram
    }

    /// The index of an SRTCP packet and its compound, if it is authentic.
    pub(crate) fn open_rtcp(&self, datagram: &[u8]) -> Option<(u32, Vec<u8>)> {
        let ssrc = read_u32(datagram, 4)?;
        if self.rtcp.gcm.is_some() {
            let (packet, trailer) = datagram.split_at_checked(datagram.len().checked_sub(4)?)?;
            let (header, body) = packet.split_at_checked(8)?;
            let index = encrypted_index(trailer)?;
            let nonce = self.rtcp.rtcp_nonce(ssrc, index);
            let plaintext = self.rtcp.open_gcm(nonce, &[header, trailer].concat(), body)?;
            return Some((index, [header, &plaintext].concat()));
        }
        let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(HMAC_TAG)?)?;
        let (packet, trailer) = signed.split_at_checked(signed.len().checked_sub(4)?)?;
        let (header, body) = packet.split_at_checked(8)?;
        let index = encrypted_index(trailer)?;
        let is_authentic = self.rtcp.hmac(signed) == tag;
        is_authentic.then(|| (index, [header, &self.rtcp.counter(ssrc, u64::from(index), body)].concat()))
    }

    /// The SRTCP packet of a compound.
    pub(crate) fn seal_rtcp(&self, packet: &[u8], index: u32) -> Vec<u8> {
        let (header, body) = packet.split_at(8);
        let (ssrc, trailer) = (read_u32(packet, 4).expect("an RTCP packet"), (index | ENCRYPTED).to_be_bytes());
        if self.rtcp.gcm.is_some() {
            let nonce = self.rtcp.rtcp_nonce(ssrc, index);
            let sealed = self.rtcp.seal_gcm(nonce, &[header, &trailer].concat(), body);
            return [header, &sealed, &trailer].concat();
        }
        let mut datagram = [header, &self.rtcp.counter(ssrc, u64::from(index), body), &trailer].concat();
        datagram.extend(self.rtcp.hmac(&datagram));
        datagram
    }
}

impl SessionKeys {
    /// The keys with these labels: `label` to `label` + 2 (RFC 3711 §4.3.2, RFC 7714 §11).
    fn derive(master_key: &[u8], master_salt: &[u8], label: u8) -> SessionKeys {
        let counter = if master_key.len() == 16 { Cipher::aes_128_ctr() } else { Cipher::aes_256_ctr() };
        let keystream = |label: u8, length: usize| {
            let mut block = [0; 16];
            block[..master_salt.len()].copy_from_slice(master_salt);
            block[7] ^= label;
            encrypt(counter, master_key, Some(&block), &vec![0; length]).expect("a key and a block of their sizes")
        };
        let gcm = match (master_salt.len(), master_key.len()) {
            (COUNTER_SALT, _) => None,
            (_, 16) => Some(Cipher::aes_128_gcm()),
            _ => Some(Cipher::aes_256_gcm()),
        };
        SessionKeys {
            gcm,
            key: keystream(label, master_key.len()),
            salt: keystream(label + 2, master_salt.len()),
            authentication: PKey::hmac(&keystream(label + 1, 20)).expect("a key"),
        }
    }

    /// RFC 7714 §8.1
    fn rtp_nonce(&self, ssrc: u32, index: u64) -> [u8; GCM_SALT] {
        let mut nonce = [0; GCM_SALT];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
        self.salted(nonce)
    }

    /// RFC 7714 §9.1
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> [u8; GCM_SALT] {
        let mut nonce = [0; GCM_SALT];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[8..].copy_from_slice(&index.to_be_bytes());
        self.salted(nonce)
    }

    fn salted<const N: usize>(&self, mut nonce: [u8; N]) -> [u8; N] {
        nonce.iter_mut().zip(&self.salt).for_each(|(byte, salt)| *byte ^= salt);
        nonce
    }

    fn open_gcm(&self, nonce: [u8; GCM_SALT], additional: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let (ciphertext, tag) = body.split_at_checked(body.len().checked_sub(GCM_TAG)?)?;
        decrypt_aead(self.gcm?, &self.key, Some(&nonce), additional, ciphertext, tag).ok()
    }

    fn seal_gcm(&self, nonce: [u8; GCM_SALT], additional: &[u8], body: &[u8]) -> Vec<u8> {
        let (cipher, mut tag) = (self.gcm.expect("a profile with GCM"), [0; GCM_TAG]);
        let mut sealed =
            encrypt_aead(cipher, &self.key, Some(&nonce), additional, body, &mut tag).expect("a key of its size");
        sealed.extend(tag);
        sealed
    }

    /// Encrypts, or decrypts, in counter mode (RFC 3711 §4.1.1).
    fn counter(&self, ssrc: u32, index: u64, bytes: &[u8]) -> Vec<u8> {
        let mut block = [0; 16];
        block[4..8].copy_from_slice(&ssrc.to_be_bytes());
        block[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
        encrypt(Cipher::aes_128_ctr(), &self.key, Some(&self.salted(block)), bytes).expect("a key of its size")
    }

    /// RFC 3711 §4.2.1
    fn hmac(&self, bytes: &[u8]) -> Vec<u8> {
        let mut signer = Signer::new(MessageDigest::sha1(), &self.authentication).expect("SHA-1");
        let mut tag = signer.sign_oneshot_to_vec(bytes).expect("a tag");
        tag.truncate(HMAC_TAG);
        tag
    }
}

/// The index of an SRTCP packet that says that it is encrypted.
fn encrypted_index(trailer: &[u8]) -> Option<u32> {
    read_u32(trailer, 0).filter(|word| word & ENCRYPTED != 0).map(|word| word & !ENCRYPTED)
}

/// The rollover counter, as an RTP packet's tag covers it.
fn roc(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// The length of an RTP header with its contributing sources and extension.
fn rtp_header(packet: &[u8]) -> Option<usize> {
    let first = packet.first()?;
    let fixed = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 == 0 {
        return Some(fixed);
    }
    let words = packet.get(fixed + 2..fixed + 4)?;
    Some(fixed + 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]])))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
