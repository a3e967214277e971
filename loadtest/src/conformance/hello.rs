//! The first flights of DTLS 1.2, byte by byte: a ClientHello of any content and fragmentation, and what the server says to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::link::{Event, Link, random};

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;

pub(super) const DTLS_1_0: u16 = 0xfeff;
pub(super) const DTLS_1_2: u16 = 0xfefd;
pub(super) const DTLS_1_3: u16 = 0xfefc;
/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
pub(super) const ECDHE_ECDSA_AES_128_GCM: u16 = 0xc02b;
pub(super) const P256: u16 = 23;
pub(super) const X25519: u16 = 29;
pub(super) const USE_SRTP: u16 = 14;
pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;

/// The flight is sent again after this, as DTLS demands of clients.
const REPEAT: Duration = Duration::from_secs(1);

/// A ClientHello.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) ciphers: Vec<u16>,
    pub(super) groups: Vec<u16>,
    /// Profiles of use_srtp; none for no such extension.
    pub(super) profiles: Vec<u16>,
    pub(super) mki: Vec<u8>,
    /// Further extensions.
    pub(super) further: Vec<(u16, Vec<u8>)>,
    /// Handshake messages are cut into fragments of so many bytes.
    pub(super) fragment: usize,
    /// Fragments are sent in reverse.
    pub(super) reversed: bool,
}

impl Default for Hello {
    fn default() -> Hello {
        Hello {
            version: DTLS_1_2,
            ciphers: vec![ECDHE_ECDSA_AES_128_GCM, 0xc02f, 0xc02c, 0xcca9],
            groups: vec![X25519, P256],
            profiles: vec![0x0007, 0x0008, 0x0001],
            mki: Vec::new(),
            further: Vec::new(),
            fragment: 1100,
            reversed: false,
        }
    }
}

/// What the server said.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    pub(super) version: Option<u16>,
    pub(super) cipher: u16,
    pub(super) extensions: BTreeMap<u16, Vec<u8>>,
    /// The leaf certificate.
    pub(super) certificate: Option<Vec<u8>>,
    /// The group of ServerKeyExchange.
    pub(super) group: Option<u16>,
    pub(super) asks_for_certificate: bool,
    pub(super) done: bool,
    /// A fatal alert's number.
    pub(super) alert: Option<u8>,
    /// Bytes of its datagrams.
    pub(super) datagrams: Vec<usize>,
}

impl Hello {
    /// The handshake message's body.
    fn body(&self, cookie: &[u8]) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend(random::<32>());
        body.push(0);
        body.push(cookie.len() as u8);
        body.extend(cookie);
        vector16(&mut body, &words(&self.ciphers));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        let mut extension = |kind: u16, data: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            vector16(&mut extensions, data);
        };
        let listed = |numbers: &[u16]| {
            let mut list = Vec::new();
            vector16(&mut list, &words(numbers));
            list
        };
        extension(10, &listed(&self.groups));
        extension(11, &[1, 0]);
        // ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, rsa_pkcs1_sha256, and their SHA-384
        extension(13, &listed(&[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501]));
        extension(EXTENDED_MASTER_SECRET, &[]);
        extension(0xff01, &[0]);
        if !self.profiles.is_empty() {
            let mut data = listed(&self.profiles);
            data.push(self.mki.len() as u8);
            data.extend(&self.mki);
            extension(USE_SRTP, &data);
        }
        for (kind, data) in &self.further {
            extension(*kind, data);
        }
        vector16(&mut body, &extensions);
        body
    }

    /// The datagrams: one record with one fragment each.
    fn datagrams(&self, cookie: &[u8], message: u16, record: &mut u64) -> Vec<Vec<u8>> {
        let body = self.body(cookie);
        let whole = (body.len() as u32).to_be_bytes();
        let mut fragments: Vec<Vec<u8>> = Vec::new();
        for (index, part) in body.chunks(self.fragment.max(1)).enumerate() {
            let offset = ((index * self.fragment) as u32).to_be_bytes();
            let length = (part.len() as u32).to_be_bytes();
            let mut fragment = vec![CLIENT_HELLO];
            fragment.extend(&whole[1..]);
            fragment.extend(message.to_be_bytes());
            fragment.extend(&offset[1..]);
            fragment.extend(&length[1..]);
            fragment.extend(part);
            fragments.push(fragment);
        }
        if self.reversed {
            fragments.reverse();
        }
        let wrap = |fragment: &Vec<u8>| {
            let mut datagram = vec![HANDSHAKE];
            // A first ClientHello's records have the lowest version (RFC 6347 §4.2.1).
            datagram.extend(DTLS_1_0.to_be_bytes());
            datagram.extend(record.to_be_bytes());
            *record += 1;
            vector16(&mut datagram, fragment);
            datagram
        };
        fragments.iter().map(wrap).collect()
    }

    /// Its datagrams, if no cookie was asked for.
    pub(super) fn first_flight(&self) -> Vec<Vec<u8>> {
        self.datagrams(&[], 0, &mut 0)
    }

    /// Sends it and reads the server's flight until it is whole, an alert came, or nothing more comes.
    pub(super) async fn exchange(&self, link: &mut Link, within: Duration) -> Flight {
        let end = Instant::now() + within;
        let (mut cookie, mut message, mut record) = (Vec::new(), 0, 0);
        let mut reader = Reader::default();
        while Instant::now() < end && !reader.is_over() {
            for datagram in self.datagrams(&cookie, message, &mut record) {
                link.send(&datagram).await;
            }
            let again = (Instant::now() + REPEAT).min(end);
            while let Some(event) = link.next(again).await {
                let Event::Dtls(datagram) = event else { continue };
                reader.take(&datagram);
                if let Some(given) = reader.cookie.take().filter(|_| message == 0) {
                    (cookie, message) = (given, 1);
                    break;
                }
                if reader.is_over() {
                    break;
                }
            }
        }
        reader.flight
    }
}

/// A list with its length in front.
fn vector16(out: &mut Vec<u8>, data: &[u8]) {
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

fn words(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A handshake message of which parts may be missing.
struct Partial {
    kind: u8,
    body: Vec<u8>,
    /// Where its parts begin, and their lengths.
    parts: BTreeMap<usize, usize>,
}

impl Partial {
    fn is_whole(&self) -> bool {
        self.parts.values().sum::<usize>() >= self.body.len()
    }
}

/// Puts the fragments of the server's messages together.
#[derive(Default)]
struct Reader {
    /// By message number.
    messages: BTreeMap<u16, Partial>,
    flight: Flight,
    cookie: Option<Vec<u8>>,
}

impl Reader {
    fn is_over(&self) -> bool {
        self.flight.done || self.flight.alert.is_some()
    }

    fn take(&mut self, datagram: &[u8]) {
        self.flight.datagrams.push(datagram.len());
        let mut rest = datagram;
        while let Some((header, after)) = rest.split_first_chunk::<13>() {
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let Some(body) = after.get(..length) else { return };
            rest = &after[length..];
            match header[0] {
                HANDSHAKE => self.fragments(body),
                ALERT => self.flight.alert = body.get(1).copied().filter(|_| body[0] == 2).or(self.flight.alert),
                _ => {}
            }
        }
    }

    fn fragments(&mut self, mut rest: &[u8]) {
        let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        while let Some((header, after)) = rest.split_first_chunk::<12>() {
            let (whole, offset, length) = (number(&header[1..4]), number(&header[6..9]), number(&header[9..12]));
            let Some(part) = after.get(..length) else { return };
            rest = &after[length..];
            // No message of a server is so long.
            if whole > 1 << 16 || offset + length > whole {
                return;
            }
            let sequence = u16::from_be_bytes([header[4], header[5]]);
            let fresh = || Partial { kind: header[0], body: vec![0; whole], parts: BTreeMap::new() };
            let message = self.messages.entry(sequence).or_insert_with(fresh);
            if let Some(place) = message.body.get_mut(offset..offset + length) {
                place.copy_from_slice(part);
                message.parts.insert(offset, length);
            }
        }
        for message in self.messages.values().filter(|message| message.is_whole()) {
            read_message(message.kind, &message.body, &mut self.flight, &mut self.cookie);
        }
    }
}

fn read_message(kind: u8, body: &[u8], flight: &mut Flight, cookie: &mut Option<Vec<u8>>) {
    let word = |at: usize| body.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match kind {
        HELLO_VERIFY_REQUEST => *cookie = body.get(3..).map(<[u8]>::to_vec),
        SERVER_HELLO => {
            flight.version = word(0);
            let session = usize::from(body.get(34).copied().unwrap_or_default());
            let after = 35 + session;
            flight.cipher = word(after).unwrap_or_default();
            let mut at = after + 5;
            while let (Some(kind), Some(length)) = (word(at), word(at + 2)) {
                let data = body.get(at + 4..at + 4 + usize::from(length)).unwrap_or_default();
                flight.extensions.insert(kind, data.to_vec());
                at += 4 + usize::from(length);
            }
        }
        CERTIFICATE => {
            let length = body.get(3..6).map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
            flight.certificate = length.and_then(|length| body.get(6..6 + length)).map(<[u8]>::to_vec);
        }
        // named_curve (RFC 8422 §5.4)
        SERVER_KEY_EXCHANGE if body.first() == Some(&3) => flight.group = word(1),
        CERTIFICATE_REQUEST => flight.asks_for_certificate = true,
        SERVER_HELLO_DONE => flight.done = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use media_core::internals::dtls::{Certificate, DtlsContext, DtlsEndpoint};
    use media_core::{DtlsParameters, DtlsRole};

    use super::*;

    /// What an endpoint of ours says to it.
    fn flight_of(hello: &Hello) -> Flight {
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate).unwrap();
        let parameters =
            DtlsParameters { role: DtlsRole::Server, fingerprints: vec![certificate.fingerprint().clone()] };
        let mut server = DtlsEndpoint::new(&context, parameters).unwrap();
        let mut reader = Reader::default();
        let mut record = 0;
        for datagram in hello.datagrams(&[], 0, &mut record) {
            server.handle_datagram(Instant::now(), &datagram);
        }
        while let Some(datagram) = server.poll_transmit() {
            reader.take(&datagram);
        }
        let mut flight = reader.flight;
        if let Some(der) = &flight.certificate {
            assert!(certificate.fingerprint().matches(der));
        }
        flight.datagrams.sort_unstable();
        flight
    }

    #[test]
    fn a_servers_flight_is_read_whatever_the_fragmentation() {
        for hello in [
            Hello::default(),
            Hello { fragment: 50, ..Hello::default() },
            Hello { fragment: 50, reversed: true, ..Hello::default() },
        ] {
            let flight = flight_of(&hello);
            assert_eq!((flight.version, flight.done, flight.alert), (Some(DTLS_1_2), true, None), "{flight:?}");
            assert!(flight.asks_for_certificate && flight.certificate.is_some());
            assert_eq!(flight.cipher, ECDHE_ECDSA_AES_128_GCM);
            assert!([Some(P256), Some(X25519)].contains(&flight.group), "{flight:?}");
            assert_eq!(flight.extensions.get(&USE_SRTP).map(Vec::as_slice), Some(&[0, 2, 0, 7, 0][..]));
        }
    }
}
