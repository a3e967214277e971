//! What is kept from OpenSSL before a handshake is complete: nothing of it is authenticated, and OpenSSL ends a handshake over
//! a plaintext alert, a message out of order or a certificate that is not the peer's, whoever sent it.
//!
//! Records in plaintext are read here first. Those that no peer of good will sends at that point are dropped; alerts and
//! certificates that do not match are evidence, on which the endpoint acts only if nothing better comes for a while.

use super::record::{self, ALERT, CHANGE_CIPHER_SPEC, FRAGMENT_HEADER, HANDSHAKE, records};
use crate::spec::DtlsRole;

const CERTIFICATE: u8 = 11;
/// ClientHello, ServerHello, HelloVerifyRequest: the kinds that come before a certificate.
const HELLOS: u8 = 3;
/// The longest message, in bytes: with its header it fits a record. Certificates have some 300 to 900, ClientHellos up to 1,700.
const MAX_MESSAGE: usize = (16 << 10) - FRAGMENT_HEADER;
/// Messages that are put together at a time; a flight has five at most that may come in pieces. OpenSSL gets none but whole ones: it
/// would end the handshake over a forged piece of another length, and drops a message that comes again in one piece where it
/// has another piece of it.
const MAX_MESSAGES: usize = 6;
/// Messages that are held until the certificate before them is there and judged, each as often as it was sent.
const MAX_FOLLOWERS: usize = 64;

/// A plaintext alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alert {
    /// 1 is a warning, 2 is fatal (RFC 5246 §7.2).
    pub(super) level: u8,
    pub(super) description: u8,
}

/// What is left of a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Screened {
    /// Datagrams for OpenSSL, the certificate's first.
    pub(super) datagrams: Vec<Vec<u8>>,
    /// An alert among what was dropped.
    pub(super) alert: Option<Alert>,
    /// The records of a Certificate message that does not match: OpenSSL would end the handshake over it.
    pub(super) suspect: Option<Vec<Vec<u8>>>,
}

/// One association's screen.
#[derive(Debug)]
pub(super) struct Screen {
    role: DtlsRole,
    /// The next record number of epoch 0. OpenSSL drops records whose number it has left behind, and a forged one may be as high
    /// as it likes: so they are numbered as they come. No sum covers these numbers.
    next_record: u64,
    /// Messages that are not whole, the one that grew last at the end.
    messages: Vec<Message>,
    /// Records of those that come after the certificate: OpenSSL would take the first of each, whoever sent it.
    followers: Vec<Vec<u8>>,
    /// The peer's own certificate has passed.
    is_certified: bool,
}

/// A message that is being put together.
#[derive(Debug)]
struct Message {
    kind: u8,
    sequence: u16,
    body: Vec<u8>,
    /// Which of its bytes have come.
    has: Vec<bool>,
}

/// A fragment of a handshake message (RFC 6347 §4.2.2).
struct Fragment<'a> {
    kind: u8,
    length: usize,
    sequence: u16,
    offset: usize,
    body: &'a [u8],
}

impl Screen {
    pub(super) fn new(role: DtlsRole) -> Screen {
        Screen { role, next_record: 0, messages: Vec::new(), followers: Vec::new(), is_certified: false }
    }

    /// Takes a datagram before the handshake is complete. `is_the_peers` judges a certificate in DER; `None` is the lack of one.
    pub(super) fn take(&mut self, datagram: &[u8], is_the_peers: impl Fn(Option<&[u8]>) -> bool) -> Screened {
        let mut screened = Screened::default();
        let mut passed = Vec::new();
        for record in records(datagram).take_while(record::Record::is_whole) {
            let record::Record { header, body } = record;
            if !record.is_plain() {
                // Encrypted: OpenSSL drops what does not authenticate.
                passed.extend_from_slice(header);
                passed.extend_from_slice(body);
                continue;
            }
            match (record.kind(), body) {
                (ALERT, &[level, description]) => screened.alert = Some(Alert { level, description }),
                (CHANGE_CIPHER_SPEC, [1]) => passed.extend(self.renumbered(header, body)),
                (HANDSHAKE, _) if is_in_place(self.role, body) => {
                    for fragment in fragments(body).flatten() {
                        let Some(message) = self.put_together(&fragment) else { continue };
                        let record = self.renumbered(header, &message.bytes());
                        match message.kind {
                            // One that comes again, or that somebody puts in the place of what follows it.
                            CERTIFICATE if self.is_certified => {}
                            CERTIFICATE => self.judge(&message, record, &is_the_peers, &mut screened),
                            kind if kind <= HELLOS || self.is_certified => passed.extend(record),
                            _ if self.followers.len() < MAX_FOLLOWERS => self.followers.push(record),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if !passed.is_empty() {
            screened.datagrams.push(passed);
        }
        screened
    }

    /// Lets the peer's certificate pass, and what came after it; another one is suspect, and so is that.
    fn judge(
        &mut self,
        certificate: &Message,
        record: Vec<u8>,
        is_the_peers: impl Fn(Option<&[u8]>) -> bool,
        screened: &mut Screened,
    ) {
        let records = std::iter::once(record).chain(std::mem::take(&mut self.followers));
        if is_the_peers(first_certificate(&certificate.body)) {
            self.is_certified = true;
            screened.datagrams.extend(records);
        } else {
            screened.suspect = Some(records.collect());
        }
    }

    fn renumbered(&mut self, header: &[u8; record::HEADER], body: &[u8]) -> Vec<u8> {
        let mut header = *header;
        header[5..11].copy_from_slice(&self.next_record.to_be_bytes()[2..]);
        // No message is longer than a record.
        header[11..].copy_from_slice(&(body.len() as u16).to_be_bytes());
        self.next_record += 1;
        [&header[..], body].concat()
    }

    /// The message that this fragment makes whole.
    fn put_together(&mut self, fragment: &Fragment<'_>) -> Option<Message> {
        let begun = self.messages.iter().position(|message| message.is_of(fragment));
        let mut message = begun.map_or_else(|| Message::of(fragment), |index| self.messages.remove(index));
        message.add(fragment);
        if message.is_whole() {
            // Those of other lengths are of somebody else.
            self.messages.retain(|other| (other.kind, other.sequence) != (message.kind, message.sequence));
            return Some(message);
        }
        if self.messages.len() >= MAX_MESSAGES {
            self.messages.remove(0);
        }
        self.messages.push(message);
        None
    }
}

impl Message {
    /// One of which nothing has come yet.
    fn of(fragment: &Fragment<'_>) -> Message {
        let &Fragment { kind, sequence, length, .. } = fragment;
        Message { kind, sequence, body: vec![0; length], has: vec![false; length] }
    }

    /// True for its fragments.
    fn is_of(&self, fragment: &Fragment<'_>) -> bool {
        (self.kind, self.sequence, self.body.len()) == (fragment.kind, fragment.sequence, fragment.length)
    }

    fn add(&mut self, fragment: &Fragment<'_>) {
        let range = fragment.offset..fragment.offset + fragment.body.len();
        if let (Some(body), Some(has)) = (self.body.get_mut(range.clone()), self.has.get_mut(range)) {
            body.copy_from_slice(fragment.body);
            has.fill(true);
        }
    }

    fn is_whole(&self) -> bool {
        self.has.iter().all(|&has| has)
    }

    /// All of it, in one fragment.
    fn bytes(&self) -> Vec<u8> {
        // The header counts in three bytes.
        let [_, length @ ..] = (self.body.len() as u32).to_be_bytes();
        [&[self.kind], &length[..], &self.sequence.to_be_bytes(), &[0; 3], &length, &self.body].concat()
    }
}

/// The fragments of a record; `None` for one that is not whole.
fn fragments(record: &[u8]) -> impl Iterator<Item = Option<Fragment<'_>>> {
    let mut rest = record;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let fragment = rest.split_first_chunk::<FRAGMENT_HEADER>().and_then(|(header, after)| {
            let number = |at: usize| {
                usize::from(header[at]) << 16 | usize::from(header[at + 1]) << 8 | usize::from(header[at + 2])
            };
            let (length, offset, size) = (number(1), number(6), number(9));
            let (body, next) = after.split_at_checked(size).filter(|_| offset + size <= length)?;
            rest = next;
            Some(Fragment {
                kind: header[0],
                length,
                sequence: u16::from_be_bytes([header[4], header[5]]),
                offset,
                body,
            })
        });
        if fragment.is_none() {
            rest = &[];
        }
        Some(fragment)
    })
}

/// True if all fragments of a record are whole, of a kind that the other role sends in plaintext, and numbered as its place in
/// the handshake is: a HelloVerifyRequest in front moves all by one (RFC 5246 §7.3, RFC 6347 §4.2.4).
fn is_in_place(role: DtlsRole, record: &[u8]) -> bool {
    let mut fragments = fragments(record).peekable();
    fragments.peek().is_some()
        && fragments.all(|fragment| {
            fragment.is_some_and(|Fragment { kind, length, sequence, .. }| {
                let place = match (role, kind) {
                    // ClientHello, Certificate, ClientKeyExchange, CertificateVerify.
                    (DtlsRole::Server, 1) => 0..=1,
                    (DtlsRole::Server, CERTIFICATE) => 1..=2,
                    (DtlsRole::Server, 16) => 2..=3,
                    (DtlsRole::Server, 15) => 3..=4,
                    // HelloVerifyRequest, ServerHello, Certificate, ServerKeyExchange, CertificateRequest, ServerHelloDone.
                    (DtlsRole::Client, 3) => 0..=0,
                    (DtlsRole::Client, 2) => 0..=1,
                    (DtlsRole::Client, CERTIFICATE) => 1..=2,
                    (DtlsRole::Client, 12) => 2..=3,
                    (DtlsRole::Client, 13) => 3..=4,
                    (DtlsRole::Client, 14) => 3..=5,
                    _ => return false,
                };
                place.contains(&sequence) && length <= MAX_MESSAGE
            })
        })
}

/// The first certificate of a Certificate message's list (RFC 5246 §7.4.2).
fn first_certificate(body: &[u8]) -> Option<&[u8]> {
    let [_, _, _, a, b, c, rest @ ..] = body else { return None };
    rest.get(..usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)).filter(|der| !der.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, number: u64, body: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 254, 253, 0, 0];
        record.extend_from_slice(&number.to_be_bytes()[2..]);
        record.extend_from_slice(&(body.len() as u16).to_be_bytes());
        record.extend_from_slice(body);
        record
    }

    fn fragment(kind: u8, sequence: u16, message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&(range.start as u16).to_be_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&(range.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&message[range]);
        bytes
    }

    fn certificate(der: &[u8]) -> Vec<u8> {
        let length = der.len() as u8;
        [&[0, 0, length + 3, 0, 0, length], der].concat()
    }

    // M6
    #[test]
    fn alerts_are_told_and_kept_back_and_records_are_numbered_anew() {
        let mut screen = Screen::new(DtlsRole::Server);
        let hello = fragment(1, 0, &[7; 50], 0..50);
        let datagram = [record(ALERT, 9, &[2, 40]), record(HANDSHAKE, u64::MAX >> 16, &hello)].concat();
        let screened = screen.take(&datagram, |_| false);
        assert_eq!(screened.alert, Some(Alert { level: 2, description: 40 }));
        assert_eq!(screened.datagrams, [record(HANDSHAKE, 0, &hello)]);
        assert_eq!(screen.take(&record(HANDSHAKE, 0, &hello), |_| false).datagrams, [record(HANDSHAKE, 1, &hello)]);
        let mut encrypted = record(ALERT, 3, &[5; 40]);
        encrypted[4] = 1;
        assert_eq!(screen.take(&encrypted, |_| false).datagrams, [encrypted]);
    }

    // M6
    #[test]
    fn what_the_peer_does_not_send_there_is_dropped() {
        let message = [1; 20];
        let cases = [
            record(HANDSHAKE, 0, &fragment(2, 0, &message, 0..20)),
            record(HANDSHAKE, 0, &fragment(20, 4, &message, 0..20)),
            record(HANDSHAKE, 0, &fragment(16, 1, &message, 0..20)),
            record(HANDSHAKE, 0, &fragment(1, 2, &message, 0..20)),
            record(HANDSHAKE, 0, &fragment(1, 0, &message, 0..20)[..25]),
            record(HANDSHAKE, 0, &[]),
            record(HANDSHAKE, 0, &[22; 40]),
            record(23, 0, &[1; 30]),
            record(CHANGE_CIPHER_SPEC, 0, &[2]),
            record(ALERT, 0, &[2]),
            record(HANDSHAKE, 0, &fragment(1, 0, &message, 0..20))[..30].to_vec(),
        ];
        for datagram in cases {
            assert_eq!(Screen::new(DtlsRole::Server).take(&datagram, |_| true), Screened::default(), "{datagram:02x?}");
        }
    }

    // DTLS-30
    #[test]
    fn a_client_hello_is_passed_on_once_it_is_whole_whatever_lengths_forged_pieces_have() {
        let (hello, other) = ([7; 50], [9; 40]);
        let mut screen = Screen::new(DtlsRole::Server);
        let pieces = [
            record(HANDSHAKE, 5, &fragment(1, 0, &other, 0..10)),
            record(HANDSHAKE, 6, &fragment(1, 0, &hello, 20..50)),
        ];
        assert_eq!(screen.take(&pieces.concat(), |_| false), Screened::default());
        let screened = screen.take(&record(HANDSHAKE, 7, &fragment(1, 0, &hello, 0..30)), |_| false);
        assert_eq!(screened.datagrams, [record(HANDSHAKE, 0, &fragment(1, 0, &hello, 0..50))]);
        for length in 41..80 {
            let forged = vec![3; length];
            assert_eq!(
                screen.take(&record(HANDSHAKE, 8, &fragment(1, 0, &forged, 1..2)), |_| false),
                Screened::default()
            );
            assert!(screen.messages.len() <= MAX_MESSAGES);
        }
    }

    // DTLS-30, DTLS-36
    #[test]
    fn a_certificate_that_comes_again_takes_nothing_along_that_shares_its_record() {
        let theirs = certificate(&[5; 60]);
        let mut screen = Screen::new(DtlsRole::Server);
        let whole = record(HANDSHAKE, 0, &fragment(11, 1, &theirs, 0..66));
        assert_eq!(screen.take(&whole, |_| true).datagrams.len(), 1);
        let (again, exchange) = (fragment(11, 1, &theirs, 0..20), fragment(16, 2, &[4; 33], 0..33));
        let screened = screen.take(&record(HANDSHAKE, 1, &[again, exchange.clone()].concat()), |_| true);
        assert_eq!(screened.datagrams, [record(HANDSHAKE, 1, &exchange)]);
    }

    // M6
    #[test]
    fn a_certificate_is_judged_when_it_is_whole_in_whatever_order_it_came() {
        let (theirs, forged) = (certificate(&[5; 60]), certificate(&[6; 60]));
        let is_theirs = |der: Option<&[u8]>| der == Some(&[5; 60]);
        for order in [[0..30, 30..66], [30..66, 0..30]] {
            for (message, is_good) in [(&theirs, true), (&forged, false)] {
                let mut screen = Screen::new(DtlsRole::Server);
                let mut last = Screened::default();
                for (index, range) in order.iter().enumerate() {
                    assert_eq!(last, Screened::default());
                    last = screen
                        .take(&record(HANDSHAKE, index as u64, &fragment(11, 1, message, range.clone())), is_theirs);
                }
                let held = if is_good { &last.datagrams } else { last.suspect.as_ref().unwrap() };
                let whole = fragment(11, 1, message, 0..66);
                assert!(held.iter().map(|record| &record[record::HEADER..]).eq([&whole]), "in one piece: {held:?}");
                assert_eq!(last.suspect.is_none(), is_good);
            }
        }
        let mut screen = Screen::new(DtlsRole::Server);
        let empty = record(HANDSHAKE, 0, &fragment(11, 1, &[0, 0, 0], 0..3));
        assert!(screen.take(&empty, is_theirs).suspect.is_some());
    }

    // M6
    #[test]
    fn a_forged_piece_of_a_certificate_spoils_one_round_and_no_more() {
        let theirs = certificate(&[5; 60]);
        let is_theirs = |der: Option<&[u8]>| der == Some(&[5; 60]);
        let mut screen = Screen::new(DtlsRole::Server);
        screen.take(&record(HANDSHAKE, 0, &fragment(11, 1, &[9; 66], 0..40)), is_theirs);
        let whole = record(HANDSHAKE, 1, &fragment(11, 1, &theirs, 40..66));
        assert!(screen.take(&whole, is_theirs).suspect.is_some());
        assert_eq!(screen.take(&record(HANDSHAKE, 2, &fragment(11, 1, &theirs, 0..66)), is_theirs).datagrams.len(), 1);
        for n in 0..200 {
            screen.take(&record(HANDSHAKE, n, &fragment(11, 1, &theirs, 0..1)), is_theirs);
        }
        assert!(screen.messages.len() <= MAX_MESSAGES);
    }
}
