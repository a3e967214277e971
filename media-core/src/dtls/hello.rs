//! The cookie by which a client shows that it receives where its ClientHello came from (RFC 6347 §4.2.1).

use std::net::SocketAddr;

use openssl::sha::Sha256;

use super::record::{self, FRAGMENT_HEADER, HANDSHAKE, records};

const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// Version and random stand before the session id in a ClientHello.
const VERSION_AND_RANDOM: usize = 34;

/// Where a datagram came from, and what may be sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: SocketAddr,
    /// Bytes that may be sent there before the peer has shown that it receives there; `None` once it has.
    pub room: Option<usize>,
}

/// A cookie.
pub(super) type Cookie = [u8; 16];

/// What one association demands of addresses.
pub(super) struct CookieSecret([u8; 32]);

impl CookieSecret {
    /// A random one.
    pub(super) fn new() -> Result<CookieSecret, openssl::error::ErrorStack> {
        let mut secret = [0; 32];
        openssl::rand::rand_bytes(&mut secret)?;
        Ok(CookieSecret(secret))
    }

    /// The cookie that only who receives at `address` can know.
    pub(super) fn cookie(&self, address: SocketAddr) -> Cookie {
        let mut hash = Sha256::new();
        hash.update(&self.0);
        match address.ip() {
            std::net::IpAddr::V4(ip) => hash.update(&ip.octets()),
            std::net::IpAddr::V6(ip) => hash.update(&ip.octets()),
        }
        hash.update(&address.port().to_be_bytes());
        let mut cookie = Cookie::default();
        cookie.copy_from_slice(&hash.finish()[..16]);
        cookie
    }
}

/// What a datagram says of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown<'a> {
    /// It has no beginning of a ClientHello.
    NoHello,
    /// A ClientHello with this cookie; an empty one is none.
    Cookie(&'a [u8]),
    /// A ClientHello that breaks off before its cookie ends.
    Broken,
}

/// The cookie of the ClientHello that begins in a datagram.
pub(super) fn shown_cookie(datagram: &[u8]) -> Shown<'_> {
    for record in records(datagram).filter(|record| record.kind() == HANDSHAKE && record.is_plain()) {
        if let Some((fragment, body)) = record.body.split_first_chunk::<FRAGMENT_HEADER>()
            && fragment[0] == CLIENT_HELLO
            && fragment[6..9] == [0, 0, 0]
        {
            return cookie_in(body).map_or(Shown::Broken, Shown::Cookie);
        }
    }
    Shown::NoHello
}

fn cookie_in(body: &[u8]) -> Option<&[u8]> {
    let (session_id, rest) = body.get(VERSION_AND_RANDOM..)?.split_first()?;
    let (length, rest) = rest.get(usize::from(*session_id)..)?.split_first()?;
    rest.get(..usize::from(*length))
}

/// True for a datagram of ours that demands a cookie.
pub(super) fn is_hello_verify_request(datagram: &[u8]) -> bool {
    datagram.first() == Some(&HANDSHAKE) && datagram.get(record::HEADER) == Some(&HELLO_VERIFY_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cookie: &[u8]) -> Vec<u8> {
        let mut body = vec![0; VERSION_AND_RANDOM];
        body.extend([3, 7, 7, 7, cookie.len() as u8]);
        body.extend(cookie);
        body.extend([0; 20]);
        let mut datagram = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend(((FRAGMENT_HEADER + body.len()) as u16).to_be_bytes());
        datagram.extend([1, 0, 0, body.len() as u8, 0, 0, 0, 0, 0, 0, 0, body.len() as u8]);
        datagram.extend(body);
        datagram
    }

    // H1
    #[test]
    fn the_cookie_of_a_client_hello_is_found_wherever_its_record_stands() {
        assert_eq!(shown_cookie(&hello(&[])), Shown::Cookie(&[]));
        assert_eq!(shown_cookie(&hello(&[9; 16])), Shown::Cookie(&[9; 16]));
        let behind = [&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0][..], &hello(&[5; 4])].concat();
        assert_eq!(shown_cookie(&behind), Shown::Cookie(&[5; 4]));
        let mut later = hello(&[9; 16]);
        later[record::HEADER + 8] = 1;
        assert_eq!(shown_cookie(&later), Shown::NoHello, "a later fragment");
        assert_eq!(shown_cookie(&[22; 40]), Shown::NoHello);
        for length in 0..hello(&[9; 16]).len() {
            let whole = hello(&[9; 16]);
            let shown = shown_cookie(&whole[..length]);
            assert!(matches!(shown, Shown::NoHello | Shown::Broken | Shown::Cookie([9, ..])), "{length}: {shown:?}");
        }
    }

    // H1
    #[test]
    fn cookies_are_bound_to_the_address_and_to_the_association() {
        let [one, two] = [CookieSecret::new().unwrap(), CookieSecret::new().unwrap()];
        let [here, there] = ["192.0.2.1:5000", "192.0.2.1:5001"].map(|text| text.parse().unwrap());
        assert_eq!(one.cookie(here), one.cookie(here));
        assert_ne!(one.cookie(here), one.cookie(there));
        assert_ne!(one.cookie(here), two.cookie(here));
    }
}
