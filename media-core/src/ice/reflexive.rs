//! The server-reflexive address: where a STUN server sees this machine (RFC 8489 §6, RFC 8445 §5.1.1.2).
//!
//! Sans-IO: whoever asks sends what it is handed from one socket to one server, and hands in what comes from there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun::attributes::{ATTR_ERROR_CODE, ATTR_XORMAPPED_ADDRESS};
use stun::message::{BINDING_REQUEST, Getter, Message};
use stun::xoraddr::XorMappedAddress;

use super::check::{Binding, Kind, UNDERSTOOD};

/// The first answer is waited for this long, that of each further request twice as long as the last (RFC 8489 §6.2.1: RTO).
const RETRANSMISSION: Duration = Duration::from_millis(500);
/// Requests that are sent. The 7 of RFC 8489 §6.2.1 take 39.5 s, and a start waits for the end.
const REQUESTS: u32 = 4;
/// The answer of the last request is waited for this long.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// A query without an answer ends after this: 0.5 s, 1 s and 2 s between the requests, and the last wait.
pub const QUERY_TIME: Duration = Duration::from_millis(5500);

/// The lengths of XOR-MAPPED-ADDRESS for both families, in bytes (RFC 8489 §14.2).
const MAPPED: [usize; 2] = [8, 20];
/// Attributes of RFC 3489 that old servers add; they are reserved today (RFC 8489 §18.3).
const RESERVED: [u16; 6] = [0x0002, 0x0003, 0x0004, 0x0005, 0x0007, 0x000B];

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryStep<'a> {
    /// Send this, and ask again at once.
    Send(&'a [u8]),
    /// Wait for a datagram until then.
    Wait(Instant),
    /// There was no answer in [`QUERY_TIME`].
    GiveUp,
}

/// An answer without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryRefused {
    /// An error response; 300 names another server, which is not followed.
    #[error("it answers with STUN error {0}")]
    Error(u16),
    /// A success response with an attribute that has to be understood and is not (RFC 8489 §6.3.3).
    #[error("it answers with the unknown attribute 0x{0:04x}")]
    UnknownAttribute(u16),
    /// A success response without XOR-MAPPED-ADDRESS, as of servers before RFC 5389, or with a broken one.
    #[error("its answer has no XOR-MAPPED-ADDRESS")]
    NoAddress,
}

/// One Binding transaction with a STUN server, without credentials.
#[derive(Debug)]
pub struct ReflexiveQuery {
    request: Vec<u8>,
    transaction: [u8; 12],
    sent: u32,
    next: Instant,
}

impl ReflexiveQuery {
    /// Begins one. The transaction id has to be random: it is what nobody off the path can answer to.
    pub fn new(now: Instant, transaction: [u8; 12]) -> ReflexiveQuery {
        let mut message = Message::new();
        message.transaction_id.0 = transaction;
        message.write_header();
        message.set_type(BINDING_REQUEST);
        message.write_transaction_id();
        ReflexiveQuery { request: message.raw, transaction, sent: 0, next: now }
    }

    /// What to do at this time.
    pub fn poll(&mut self, now: Instant) -> QueryStep<'_> {
        if now < self.next {
            return QueryStep::Wait(self.next);
        }
        if self.sent == REQUESTS {
            return QueryStep::GiveUp;
        }
        self.sent += 1;
        self.next = now + if self.sent == REQUESTS { LAST_WAIT } else { RETRANSMISSION * 2_u32.pow(self.sent - 1) };
        QueryStep::Send(&self.request)
    }

    /// Reads a datagram of the server: `None` if it is no answer to this query, as a late one to another is none.
    pub fn answer(&self, datagram: &[u8]) -> Option<Result<SocketAddr, QueryRefused>> {
        let binding = Binding::parse(datagram).ok().filter(|binding| binding.transaction() == self.transaction)?;
        match binding.kind {
            Kind::Success => Some(mapped(binding.message())),
            Kind::Error => Some(Err(QueryRefused::Error(error_code(binding.message())))),
            Kind::Request | Kind::Indication => None,
        }
    }
}

fn mapped(message: &Message) -> Result<SocketAddr, QueryRefused> {
    let known = |typ: u16| typ >= 0x8000 || UNDERSTOOD.contains(&typ) || RESERVED.contains(&typ);
    if let Some(unknown) = message.attributes.0.iter().find(|attribute| !known(attribute.typ.0)) {
        return Err(QueryRefused::UnknownAttribute(unknown.typ.0));
    }
    // `stun` takes an address that is too short for one that ends in zeros.
    let found = message.attributes.0.iter().find(|attribute| attribute.typ == ATTR_XORMAPPED_ADDRESS);
    found.filter(|found| MAPPED.contains(&found.value.len())).ok_or(QueryRefused::NoAddress)?;
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(message).map_err(|_| QueryRefused::NoAddress)?;
    Ok(SocketAddr::new(mapped.ip.to_canonical(), mapped.port))
}

/// The code of an error response, 0 without one: class and number (RFC 8489 §14.8).
fn error_code(message: &Message) -> u16 {
    let found = message.attributes.0.iter().find(|attribute| attribute.typ == ATTR_ERROR_CODE);
    match found.map(|found| &found.value[..]) {
        Some([_, _, class, number, ..]) => u16::from(class & 7) * 100 + u16::from(*number),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use stun::attributes::AttrType;
    use stun::error_code::{CODE_UNAUTHORIZED, ErrorCodeAttribute};
    use stun::fingerprint::FINGERPRINT;
    use stun::message::{BINDING_ERROR, BINDING_SUCCESS, MessageType, Setter};

    use super::*;

    const ID: [u8; 12] = *b"transaction1";
    const SEEN: &str = "203.0.113.7:40000";

    fn respond(typ: MessageType, id: [u8; 12], content: &[&dyn Setter]) -> Vec<u8> {
        let mut message = Message::new();
        message.transaction_id.0 = id;
        message.write_header();
        message.set_type(typ);
        message.write_transaction_id();
        for setter in content {
            setter.add_to(&mut message).unwrap();
        }
        message.raw
    }

    fn seen(address: &str) -> XorMappedAddress {
        let address: SocketAddr = address.parse().unwrap();
        XorMappedAddress { ip: address.ip(), port: address.port() }
    }

    /// Any attribute.
    struct Raw(u16, &'static [u8]);
    impl Setter for Raw {
        fn add_to(&self, message: &mut Message) -> Result<(), stun::Error> {
            message.add(AttrType(self.0), self.1);
            Ok(())
        }
    }

    #[test]
    fn a_request_is_repeated_at_growing_times_and_given_up() {
        let start = Instant::now();
        let mut query = ReflexiveQuery::new(start, ID);
        let (mut now, mut sent) = (start, Vec::new());
        loop {
            match query.poll(now) {
                QueryStep::Send(request) => {
                    // A Binding request without attributes, and the same one each time (RFC 8489 §6.2.1).
                    assert_eq!(request, [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &ID[..]].concat());
                    sent.push((now - start).as_millis());
                }
                QueryStep::Wait(until) => now = until,
                QueryStep::GiveUp => break,
            }
        }
        assert_eq!(sent, [0, 500, 1500, 3500]);
        assert_eq!((now - start, query.poll(now)), (QUERY_TIME, QueryStep::GiveUp));
    }

    #[test]
    fn an_answer_names_the_address_of_either_family() {
        let query = ReflexiveQuery::new(Instant::now(), ID);
        for (address, read) in
            [(SEEN, SEEN), ("[2001:db8::7]:40000", "[2001:db8::7]:40000"), ("[::ffff:203.0.113.7]:40000", SEEN)]
        {
            // As old and new servers do: attributes of RFC 3489, SOFTWARE, FINGERPRINT.
            let content: [&dyn Setter; 4] =
                [&Raw(0x0004, &[0; 8]), &seen(address), &Raw(0x8022, b"coturn"), &FINGERPRINT];
            let answer = respond(BINDING_SUCCESS, ID, &content);
            assert_eq!(query.answer(&answer), Some(Ok(read.parse().unwrap())));
        }
    }

    #[test]
    fn what_is_no_answer_to_the_query_does_not_end_it() {
        let query = ReflexiveQuery::new(Instant::now(), ID);
        let good = respond(BINDING_SUCCESS, ID, &[&seen(SEEN), &FINGERPRINT]);
        let mut broken = good.clone();
        *broken.last_mut().unwrap() ^= 1;
        let others = [
            respond(BINDING_SUCCESS, *b"transaction2", &[&seen(SEEN)]),
            respond(BINDING_REQUEST, ID, &[&seen(SEEN)]),
            broken,
            good[..good.len() - 1].to_vec(),
            [&good[..], b"rest"].concat(),
            b"no STUN at all".to_vec(),
            Vec::new(),
        ];
        for other in others {
            assert_eq!(query.answer(&other), None, "{other:02x?}");
        }
    }

    #[test]
    fn an_answer_without_an_address_is_a_refusal() {
        let query = ReflexiveQuery::new(Instant::now(), ID);
        let unauthorized = ErrorCodeAttribute { code: CODE_UNAUTHORIZED, reason: b"who?".to_vec() };
        for (answer, refused) in [
            (respond(BINDING_ERROR, ID, &[&unauthorized]), QueryRefused::Error(401)),
            (respond(BINDING_ERROR, ID, &[]), QueryRefused::Error(0)),
            (respond(BINDING_SUCCESS, ID, &[]), QueryRefused::NoAddress),
            // MAPPED-ADDRESS alone; one of four bytes; an IPv6 address in the room of IPv4.
            (respond(BINDING_SUCCESS, ID, &[&Raw(0x0001, &[0, 1, 0, 9, 1, 2, 3, 4])]), QueryRefused::NoAddress),
            (respond(BINDING_SUCCESS, ID, &[&Raw(0x0020, &[0, 1, 0, 9])]), QueryRefused::NoAddress),
            (respond(BINDING_SUCCESS, ID, &[&Raw(0x0020, &[0, 3, 0, 9, 1, 2, 3, 4])]), QueryRefused::NoAddress),
            (respond(BINDING_SUCCESS, ID, &[&seen(SEEN), &Raw(0x7777, &[])]), QueryRefused::UnknownAttribute(0x7777)),
        ] {
            assert_eq!(query.answer(&answer), Some(Err(refused)));
        }
    }
}
