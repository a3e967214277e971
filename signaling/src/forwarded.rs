//! Whose request a proxy passes on: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Whoever sends a request may write anything into these headers; each proxy appends the address that it saw. So the list is
//! read from its end, as far as the addresses are those of trusted proxies: the first other one is the client.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::client_address::ClientAddress;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies in a row that are followed; nobody has more.
const MAX_HOPS: usize = 16;

impl ClientAddress {
    /// The client behind a connection from `peer`. The headers of a peer that is no trusted proxy count for nothing.
    /// `X-Forwarded-For` wins over `Forwarded`: few proxies write the latter, and the others pass it on as the client wrote it.
    pub fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> ClientAddress {
        let is_trusted = |ip: IpAddr| trusted.iter().any(|prefix| prefix.contains(&ip));
        let mut client = peer.to_canonical();
        if !is_trusted(client) {
            return ClientAddress(client);
        }
        let x_forwarded_for = headers.contains_key(X_FORWARDED_FOR);
        let name = if x_forwarded_for { X_FORWARDED_FOR } else { FORWARDED };
        for hop in hops(headers, &name).take(MAX_HOPS) {
            // What the last trusted proxy did not write as an address is nobody's: the proxy itself counts.
            let Some(ip) = (if x_forwarded_for { node(hop) } else { forwarded_for(hop).and_then(node) }) else { break };
            client = ip;
            if !is_trusted(client) {
                break;
            }
        }
        ClientAddress(client)
    }
}

/// Elements of a list header, the last one first. A comma in a quoted string does not occur in addresses.
fn hops<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|line| HeaderValue::to_str(line).unwrap_or("")).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// The value of `for=` of a forwarded-element (RFC 7239 §4), without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// An address with or without port; IPv6 with or without brackets (RFC 7239 §6).
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(IpAddr::to_canonical(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(peer: &str, headers: &[(&'static str, &str)], trusted: &[&str]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|prefix| prefix.parse().unwrap()).collect();
        ClientAddress::behind(peer.parse().unwrap(), &map, &trusted).0.to_string()
    }

    // H2
    #[test]
    fn headers_of_others_than_trusted_proxies_are_ignored() {
        let headers = [("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")];
        assert_eq!(behind("198.51.100.1", &headers, &[]), "198.51.100.1");
        assert_eq!(behind("198.51.100.1", &headers, &["10.0.0.0/8"]), "198.51.100.1");
    }

    // H2
    #[test]
    fn the_last_hop_that_is_no_trusted_proxy_is_the_client() {
        let trusted = ["10.0.0.0/8", "2001:db8:f::/48"];
        let of = |value| behind("::ffff:10.0.0.1", &[("x-forwarded-for", value)], &trusted);
        assert_eq!(of("192.0.2.9"), "192.0.2.9");
        assert_eq!(of("203.0.113.66, 192.0.2.9"), "192.0.2.9", "the client wrote the first one");
        assert_eq!(of("203.0.113.66,192.0.2.9 , 10.0.0.2,2001:db8:f::2"), "192.0.2.9");
        assert_eq!(of("192.0.2.9:4711"), "192.0.2.9");
        assert_eq!(of("[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(of("2001:db8::7"), "2001:db8::7");
        assert_eq!(of("10.0.0.7"), "10.0.0.7", "a client inside");
        assert_eq!(of("192.0.2.9, unknown"), "10.0.0.1", "the proxy did not say");
        assert_eq!(of(""), "10.0.0.1");
        let lines = [("x-forwarded-for", "203.0.113.66"), ("x-forwarded-for", "192.0.2.9")];
        assert_eq!(behind("10.0.0.1", &lines, &trusted), "192.0.2.9");
    }

    // H2
    #[test]
    fn forwarded_counts_where_nothing_else_is_said() {
        let trusted = ["10.0.0.0/8"];
        let of = |value| behind("10.0.0.1", &[("forwarded", value)], &trusted);
        assert_eq!(of("for=203.0.113.66, for=192.0.2.9;proto=https;by=10.0.0.1"), "192.0.2.9");
        assert_eq!(of("proto=https; For=\"[2001:db8::7]:4711\""), "2001:db8::7");
        assert_eq!(of("for=192.0.2.9, for=_hidden"), "10.0.0.1");
        assert_eq!(of("proto=https"), "10.0.0.1");
        let both = [("forwarded", "for=203.0.113.66"), ("x-forwarded-for", "192.0.2.9")];
        assert_eq!(behind("10.0.0.1", &both, &trusted), "192.0.2.9", "the client's own is passed on");
    }

    #[test]
    fn a_row_of_proxies_without_end_is_not_followed() {
        let row = vec!["10.0.0.3"; 2000].join(",");
        assert_eq!(
            behind("10.0.0.1", &[("x-forwarded-for", &format!("192.0.2.9,{row}"))], &["10.0.0.0/8"]),
            "10.0.0.3"
        );
    }
}
