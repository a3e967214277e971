//! STUN messages (RFC 8489), right ones and wrong ones.

use std::net::{IpAddr, SocketAddr};

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const FINGERPRINT_MASK: u32 = 0x5354_554e;

pub(super) const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(super) const PRIORITY: u16 = 0x0024;
pub(super) const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
pub(super) const ICE_CONTROLLED: u16 = 0x8029;
pub(super) const ICE_CONTROLLING: u16 = 0x802a;

/// Classes of Binding messages, by their first two bytes.
pub(super) const REQUEST: u16 = 0x0001;
pub(super) const INDICATION: u16 = 0x0011;
pub(super) const SUCCESS: u16 = 0x0101;
pub(super) const ERROR: u16 = 0x0111;

/// A message to write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) kind: u16,
    pub(super) transaction: [u8; 12],
    pub(super) attributes: Vec<(u16, Vec<u8>)>,
    /// The key of MESSAGE-INTEGRITY; none for no such attribute.
    pub(super) password: Option<String>,
    /// FINGERPRINT; none for no such attribute, false for a wrong one.
    pub(super) fingerprint: Option<bool>,
}

impl Write {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut message = self.kind.to_be_bytes().to_vec();
        message.extend([0, 0]);
        message.extend(COOKIE);
        message.extend(self.transaction);
        for (kind, value) in &self.attributes {
            attribute(&mut message, *kind, value);
        }
        if let Some(password) = &self.password {
            set_length(&mut message, 24);
            // Without OpenSSL's HMAC no session could have been opened.
            let sum = hmac(password, &message).unwrap_or([0; 20]);
            attribute(&mut message, MESSAGE_INTEGRITY, &sum);
        }
        if let Some(right) = self.fingerprint {
            set_length(&mut message, 8);
            let sum = crc32fast::hash(&message) ^ FINGERPRINT_MASK ^ u32::from(!right);
            attribute(&mut message, FINGERPRINT, &sum.to_be_bytes());
        }
        set_length(&mut message, 0);
        message
    }
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - HEADER + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn hmac(password: &str, message: &[u8]) -> Option<[u8; 20]> {
    let key = PKey::hmac(password.as_bytes()).ok()?;
    let mut sum = [0; 20];
    let length = Signer::new(MessageDigest::sha1(), &key).ok()?.sign_oneshot(&mut sum, message).ok()?;
    (length == sum.len()).then_some(sum)
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) transaction: [u8; 12],
    /// Type, value and where it begins.
    pub(super) attributes: Vec<(u16, Vec<u8>, usize)>,
    bytes: Vec<u8>,
}

impl Message {
    /// `None` for what is no well-formed STUN (RFC 8489 §5).
    pub(super) fn read(datagram: &[u8]) -> Option<Message> {
        let (header, mut rest) = datagram.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] & 0xc0 != 0 || header[4..8] != COOKIE || length != rest.len() || length % 4 != 0 {
            return None;
        }
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            let at = datagram.len() - rest.len();
            let (head, after) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = after.get(..length)?;
            attributes.push((u16::from_be_bytes([head[0], head[1]]), value.to_vec(), at));
            rest = after.get(length.next_multiple_of(4)..)?;
        }
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&header[8..]);
        let kind = u16::from_be_bytes([header[0], header[1]]);
        Some(Message { kind, transaction, attributes, bytes: datagram.to_vec() })
    }

    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(known, ..)| *known == kind).map(|(_, value, _)| value.as_slice())
    }

    /// The length of the whole message, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// MESSAGE-INTEGRITY, if there is one, is made with this password.
    pub(super) fn integrity(&self, password: &str) -> Option<bool> {
        let (_, sum, at) = self.attributes.iter().find(|(kind, ..)| *kind == MESSAGE_INTEGRITY)?;
        let mut covered = self.bytes[..*at].to_vec();
        set_length(&mut covered, 24);
        Some(hmac(password, &covered).is_some_and(|right| right[..] == sum[..]))
    }

    /// FINGERPRINT, if there is one, is right and the last attribute.
    pub(super) fn fingerprint(&self) -> Option<bool> {
        let (index, (_, sum, at)) = self.attributes.iter().enumerate().find(|(_, (kind, ..))| *kind == FINGERPRINT)?;
        let mut covered = self.bytes[..*at].to_vec();
        set_length(&mut covered, 8);
        let right = (crc32fast::hash(&covered) ^ FINGERPRINT_MASK).to_be_bytes();
        Some(index + 1 == self.attributes.len() && right[..] == sum[..])
    }

    /// The address of XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        let value = self.attribute(XOR_MAPPED_ADDRESS)?;
        let mask: Vec<u8> = COOKIE.iter().chain(&self.transaction).copied().collect();
        let port = u16::from_be_bytes([value.get(2)? ^ mask[0], value.get(3)? ^ mask[1]]);
        let bytes: Vec<u8> = value.get(4..)?.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
        let ip = match (value.get(1)?, bytes.len()) {
            (1, 4) => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
            (2, 16) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The code of an error response (RFC 8489 §14.8).
    pub(super) fn error_code(&self) -> Option<u16> {
        let value = self.attribute(ERROR_CODE)?;
        Some(u16::from(value.get(2)? & 7) * 100 + u16::from(*value.get(3)?))
    }

    /// In a few words.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            SUCCESS => "success".to_owned(),
            ERROR => format!("error {}", self.error_code().unwrap_or_default()),
            kind => format!("STUN of type {kind:#06x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The sample request of RFC 5769 §2.1 has this password and these attributes.
    #[test]
    fn what_is_written_is_read_and_its_sums_are_right() {
        let write = Write {
            kind: REQUEST,
            transaction: [7; 12],
            attributes: vec![(USERNAME, b"evtj:h6vY".to_vec()), (PRIORITY, vec![0x6e, 0, 1, 0xff])],
            password: Some("VOkJxbRl1RmTxUk/WvJxBt".into()),
            fingerprint: Some(true),
        };
        let read = Message::read(&write.to_bytes()).unwrap();
        assert_eq!((read.kind, read.attribute(USERNAME)), (REQUEST, Some(&b"evtj:h6vY"[..])));
        assert_eq!(read.integrity("VOkJxbRl1RmTxUk/WvJxBt"), Some(true));
        assert_eq!((read.integrity("another"), read.fingerprint()), (Some(false), Some(true)));
        let wrong = Write { fingerprint: Some(false), password: None, ..write };
        let read = Message::read(&wrong.to_bytes()).unwrap();
        assert_eq!((read.integrity("x"), read.fingerprint()), (None, Some(false)));
        assert_eq!(Message::read(&wrong.to_bytes()[..30]), None);
    }

    #[test]
    fn the_sample_response_of_rfc_5769_is_read() {
        let bytes = [
            0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
            0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
            0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00, 0x14, 0x2b, 0x91,
            0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7,
            0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
        ];
        let read = Message::read(&bytes).unwrap();
        assert_eq!(read.mapped(), Some("192.0.2.1:32853".parse().unwrap()));
        assert_eq!(read.integrity("VOkJxbRl1RmTxUk/WvJxBt"), Some(true));
        assert_eq!(read.fingerprint(), Some(true));
    }
}
