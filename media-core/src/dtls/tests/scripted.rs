//! A DTLS 1.2 client of its own (RFC 5246, RFC 6347, RFC 7627, RFC 5764), for what no library sends: offers of DTLS 1.3 with all that
//! browsers put into them, fragments cut anywhere and in any order, an MKI. It shares nothing with the code under test but
//! OpenSSL's primitives, and keys and transcript are its own.

use std::collections::BTreeMap;

use openssl::derive::Deriver;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::sha256;
use openssl::sign::{Signer, Verifier};
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use openssl::x509::X509;

use crate::dtls::Certificate;

const VERSION: [u8; 2] = [254, 253];
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const HANDSHAKE: u8 = 22;
/// ECDHE-ECDSA-AES128-GCM-SHA256
const SUITE: u16 = 0xc02b;
const X25519: u16 = 29;
/// ecdsa_secp256r1_sha256
const SIGNATURE: u16 = 0x0403;
const TAG: usize = 16;
const KEY: usize = 16;
const IV: usize = 4;

/// Type and content of each.
pub(super) type Extensions = Vec<(u16, Vec<u8>)>;

/// What a ClientHello holds.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) session_id: Vec<u8>,
    pub(super) suites: Vec<u16>,
    /// In this order.
    pub(super) extensions: Extensions,
}

/// A list with its length in two bytes before it.
pub(super) fn list(items: &[u16]) -> Vec<u8> {
    let mut bytes = ((items.len() * 2) as u16).to_be_bytes().to_vec();
    items.iter().for_each(|item| bytes.extend(item.to_be_bytes()));
    bytes
}

/// The use_srtp extension (RFC 5764 §4.1.1).
pub(super) fn use_srtp(profiles: &[u16], mki: &[u8]) -> (u16, Vec<u8>) {
    (14, [list(profiles), vec![mki.len() as u8], mki.to_vec()].concat())
}

impl Offer {
    /// As little as DTLS 1.2 with SRTP takes.
    pub(super) fn plain() -> Offer {
        let extensions = vec![
            // The second one is the curve of certificates.
            (10, list(&[X25519, 23])),
            (11, vec![1, 0]),
            (13, list(&[SIGNATURE])),
            use_srtp(&[1, 8, 7], &[]),
            (23, Vec::new()),
            (0xff01, vec![0]),
        ];
        Offer { session_id: Vec::new(), suites: vec![SUITE], extensions }
    }
}

/// A fragment of a handshake message, or all of it, with its header (RFC 6347 §4.2.2).
pub(super) fn fragment(message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let body = &message[12..];
    let mut bytes = message[..6].to_vec();
    bytes.extend(&(range.start as u32).to_be_bytes()[1..]);
    bytes.extend(&(range.len() as u32).to_be_bytes()[1..]);
    bytes.extend(&body[range]);
    bytes
}

/// The handshake's secrets, once the server's flight was received.
struct Secrets {
    master: [u8; 48],
    client: ([u8; KEY], [u8; IV]),
    server: ([u8; KEY], [u8; IV]),
}

/// One client.
pub(super) struct Scripted {
    certificate: Certificate,
    key: PKey<Private>,
    random: [u8; 32],
    pub(super) offer: Offer,
    /// What its records of epoch 0 call themselves.
    pub(super) record_version: [u8; 2],
    cookie: Vec<u8>,
    transcript: Vec<u8>,
    next_record: [u64; 2],
    /// The server's messages as far as they were put together: type, body, and which bytes are there.
    inbound: BTreeMap<u16, (u8, Vec<u8>, Vec<bool>)>,
    /// The next message of the server.
    expected: u16,
    /// All of the server's messages, in order.
    pub(super) messages: Vec<(u8, Vec<u8>)>,
    secrets: Option<Secrets>,
    /// Its own Finished, as a message.
    finished: Vec<u8>,
    /// The server's Finished was right.
    pub(super) is_finished: bool,
    /// Alerts in plaintext: level and description.
    pub(super) alerts: Vec<[u8; 2]>,
}

impl Scripted {
    pub(super) fn new(certificate: &Certificate, offer: Offer) -> Scripted {
        let mut random = [0; 32];
        openssl::rand::rand_bytes(&mut random).unwrap();
        Scripted {
            certificate: certificate.clone(),
            key: PKey::generate_x25519().unwrap(),
            random,
            offer,
            record_version: VERSION,
            cookie: Vec::new(),
            transcript: Vec::new(),
            next_record: [0; 2],
            inbound: BTreeMap::new(),
            expected: 0,
            messages: Vec::new(),
            secrets: None,
            finished: Vec::new(),
            is_finished: false,
            alerts: Vec::new(),
        }
    }

    /// The share of its X25519 key, for a key_share extension.
    pub(super) fn share(&self) -> Vec<u8> {
        self.key.raw_public_key().unwrap()
    }

    /// The ClientHello as one message; after a HelloVerifyRequest that with its cookie.
    pub(super) fn hello(&mut self) -> Vec<u8> {
        let mut body = VERSION.to_vec();
        body.extend(self.random);
        body.push(self.offer.session_id.len() as u8);
        body.extend(&self.offer.session_id);
        body.push(self.cookie.len() as u8);
        body.extend(&self.cookie);
        body.extend(list(&self.offer.suites));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        for (kind, content) in &self.offer.extensions {
            extensions.extend(kind.to_be_bytes());
            extensions.extend((content.len() as u16).to_be_bytes());
            extensions.extend(content);
        }
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        self.transcript.clear();
        let sequence = u16::from(!self.cookie.is_empty());
        self.message(1, sequence, &body)
    }

    fn message(&mut self, kind: u8, sequence: u16, body: &[u8]) -> Vec<u8> {
        let length = &(body.len() as u32).to_be_bytes()[1..];
        let message = [&[kind], length, &sequence.to_be_bytes(), &[0; 3], length, body].concat();
        self.transcript.extend(&message);
        message
    }

    /// A record of epoch 0 with the next number.
    pub(super) fn record(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let number = self.next_record[0];
        self.next_record[0] += 1;
        let [major, minor] = self.record_version;
        let mut record = vec![kind, major, minor, 0, 0];
        record.extend(&number.to_be_bytes()[2..]);
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    }

    /// Takes a datagram of the server.
    pub(super) fn receive(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((header, after)) = rest.split_first_chunk::<13>() {
            let (body, next) = after.split_at(usize::from(u16::from_be_bytes([header[11], header[12]])));
            rest = next;
            match (header[0], header[4]) {
                (HANDSHAKE, 0) => self.take_fragments(body),
                (21, 0) => self.alerts.push([body[0], body[1]]),
                (HANDSHAKE, 1) => self.take_finished(header, body),
                _ => {}
            }
        }
    }

    fn take_fragments(&mut self, mut record: &[u8]) {
        while let Some((header, after)) = record.split_first_chunk::<12>() {
            let number = |at: usize| {
                usize::from(header[at]) << 16 | usize::from(header[at + 1]) << 8 | usize::from(header[at + 2])
            };
            let (length, offset, size) = (number(1), number(6), number(9));
            let (body, next) = after.split_at(size);
            record = next;
            let sequence = u16::from_be_bytes([header[4], header[5]]);
            let (_, bytes, has) =
                self.inbound.entry(sequence).or_insert((header[0], vec![0; length], vec![false; length]));
            bytes[offset..offset + size].copy_from_slice(body);
            has[offset..offset + size].fill(true);
        }
        while let Some((kind, body, has)) = self.inbound.get(&self.expected)
            && has.iter().all(|&has| has)
        {
            let (kind, body, sequence) = (*kind, body.clone(), self.expected);
            self.expected += 1;
            if kind == 3 {
                // HelloVerifyRequest: neither it nor the ClientHello before it counts (RFC 6347 §4.2.1).
                self.cookie = body[3..3 + usize::from(body[2])].to_vec();
            } else {
                self.message(kind, sequence, &body);
            }
            self.messages.push((kind, body));
        }
    }

    /// The body of a message of the server.
    pub(super) fn message_of(&self, kind: u8) -> Option<&[u8]> {
        self.messages.iter().find(|(of, _)| *of == kind).map(|(_, body)| &body[..])
    }

    /// True once the server's first flight is whole.
    pub(super) fn has_flight(&self) -> bool {
        self.message_of(14).is_some()
    }

    /// The session id, cipher suite and extensions of the ServerHello.
    pub(super) fn server_hello(&self) -> (Vec<u8>, u16, Extensions) {
        let hello = self.message_of(2).expect("a ServerHello");
        assert_eq!(hello[..2], VERSION);
        let (id, rest) = hello[35..].split_at(usize::from(hello[34]));
        let suite = u16::from_be_bytes([rest[0], rest[1]]);
        let (mut rest, mut extensions) = (&rest[5..], Vec::new());
        while let [a, b, c, d, after @ ..] = rest {
            let (content, next) = after.split_at(usize::from(u16::from_be_bytes([*c, *d])));
            extensions.push((u16::from_be_bytes([*a, *b]), content.to_vec()));
            rest = next;
        }
        (id.to_vec(), suite, extensions)
    }

    fn server_random(&self) -> &[u8] {
        &self.message_of(2).expect("a ServerHello")[2..34]
    }

    /// The server's key, whose signature is checked.
    fn server_share(&self) -> Vec<u8> {
        let certificates = self.message_of(11).expect("a Certificate");
        let length = usize::from(certificates[4]) << 8 | usize::from(certificates[5]);
        let certificate = X509::from_der(&certificates[6..6 + length]).unwrap();
        let exchange = self.message_of(12).expect("a ServerKeyExchange");
        assert_eq!(exchange[..4], [3, 0, X25519 as u8, 32]);
        let (parameters, signature) = exchange.split_at(36);
        assert_eq!(signature[..2], SIGNATURE.to_be_bytes());
        let key = certificate.public_key().unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
        let signed = [&self.random, self.server_random(), parameters].concat();
        assert!(
            verifier.verify_oneshot(&signature[4..], &signed).unwrap(),
            "the ServerKeyExchange is not the server's"
        );
        parameters[4..].to_vec()
    }

    /// Its second flight as one datagram, in order.
    pub(super) fn second_datagram(&mut self) -> Vec<u8> {
        let (messages, finished) = self.second_flight();
        let mut datagram = messages.map(|message| self.record(HANDSHAKE, &message)).concat();
        datagram.extend(self.record(CHANGE_CIPHER_SPEC, &[1]));
        datagram.extend(finished);
        datagram
    }

    /// The messages and records of its second flight: Certificate, ClientKeyExchange, CertificateVerify as messages, then
    /// Finished as an encrypted record.
    pub(super) fn second_flight(&mut self) -> ([Vec<u8>; 3], Vec<u8>) {
        let der = self.certificate.x509().to_der().unwrap();
        let length = |len: usize| (len as u32).to_be_bytes()[1..].to_vec();
        let first = u16::from(!self.cookie.is_empty()) + 1;
        let chain = [length(der.len() + 3), length(der.len()), der].concat();
        let certificate = self.message(11, first, &chain);
        let share = self.share();
        let exchange = self.message(16, first + 1, &[&[32], &share[..]].concat());
        let secrets = self.derive();
        let master = secrets.master;
        self.secrets = Some(secrets);
        let mut signer = Signer::new(MessageDigest::sha256(), self.certificate.key()).unwrap();
        let signature = signer.sign_oneshot_to_vec(&self.transcript).unwrap();
        let verify = [&SIGNATURE.to_be_bytes()[..], &(signature.len() as u16).to_be_bytes(), &signature].concat();
        let verify = self.message(15, first + 2, &verify);
        let body = prf(&master, b"client finished", &sha256(&self.transcript), 12);
        let finished = self.message(20, first + 3, &body);
        self.finished = finished;
        ([certificate, exchange, verify], self.finished_again())
    }

    /// Its Finished once more, under a record number of its own.
    pub(super) fn finished_again(&mut self) -> Vec<u8> {
        self.encrypt(HANDSHAKE, &self.finished.clone())
    }

    /// The keys, from a transcript that ends with the ClientKeyExchange (RFC 7627 §4).
    fn derive(&self) -> Secrets {
        let peer = PKey::public_key_from_raw_bytes(&self.server_share(), Id::X25519).unwrap();
        let mut deriver = Deriver::new(&self.key).unwrap();
        deriver.set_peer(&peer).unwrap();
        let shared = deriver.derive_to_vec().unwrap();
        let master: [u8; 48] =
            prf(&shared, b"extended master secret", &sha256(&self.transcript), 48).try_into().unwrap();
        let block = prf(&master, b"key expansion", &[self.server_random(), &self.random].concat(), 2 * (KEY + IV));
        let (keys, ivs) = block.split_at(2 * KEY);
        let half =
            |side: usize| (keys[side * KEY..][..KEY].try_into().unwrap(), ivs[side * IV..][..IV].try_into().unwrap());
        Secrets { master, client: half(0), server: half(1) }
    }

    /// A record of epoch 1 with the next number (RFC 5288).
    fn encrypt(&mut self, kind: u8, plaintext: &[u8]) -> Vec<u8> {
        let number = 1 << 48 | self.next_record[1];
        self.next_record[1] += 1;
        let (key, iv) = self.secrets.as_ref().expect("keys").client;
        let explicit = number.to_be_bytes();
        let mut tag = [0; TAG];
        let additional = additional(explicit, kind, plaintext.len());
        let nonce = [&iv[..], &explicit].concat();
        let sealed = encrypt_aead(Cipher::aes_128_gcm(), &key, Some(&nonce), &additional, plaintext, &mut tag).unwrap();
        let mut record = vec![kind, VERSION[0], VERSION[1]];
        record.extend(explicit);
        record.extend(((8 + sealed.len() + TAG) as u16).to_be_bytes());
        record.extend(explicit);
        record.extend(sealed);
        record.extend(tag);
        record
    }

    fn take_finished(&mut self, header: &[u8; 13], body: &[u8]) {
        let Some(Secrets { master, server: (key, iv), .. }) = &self.secrets else { return };
        let (explicit, sealed) = body.split_at(8);
        let (sealed, tag) = sealed.split_at(sealed.len() - TAG);
        let additional = additional(header[3..11].try_into().unwrap(), HANDSHAKE, sealed.len());
        let nonce = [&iv[..], explicit].concat();
        let opened = decrypt_aead(Cipher::aes_128_gcm(), key, Some(&nonce), &additional, sealed, tag).unwrap();
        let expected = prf(master, b"server finished", &sha256(&self.transcript), 12);
        assert_eq!((opened[0], &opened[12..]), (20, &expected[..]), "the server's Finished");
        self.is_finished = true;
    }

    /// What the exporter gives for SRTP (RFC 5705, RFC 5764 §4.2).
    pub(super) fn exported(&self, length: usize) -> Vec<u8> {
        let master = &self.secrets.as_ref().expect("keys").master;
        prf(master, b"EXTRACTOR-dtls_srtp", &[&self.random, self.server_random()].concat(), length)
    }
}

/// What a record's tag covers beside its content (RFC 5246 §6.2.3.3).
fn additional(number: [u8; 8], kind: u8, length: usize) -> Vec<u8> {
    [&number[..], &[kind, VERSION[0], VERSION[1]], &(length as u16).to_be_bytes()].concat()
}

/// The pseudorandom function (RFC 5246 §5).
fn prf(secret: &[u8], label: &[u8], seed: &[u8], length: usize) -> Vec<u8> {
    let key = PKey::hmac(secret).unwrap();
    let hmac = |data: &[u8]| Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(data).unwrap();
    let seed = [label, seed].concat();
    let (mut a, mut output) = (hmac(&seed), Vec::new());
    while output.len() < length {
        output.extend(hmac(&[&a[..], &seed].concat()));
        a = hmac(&a);
    }
    output.truncate(length);
    output
}
