//! Whose request it is, as far as the network tells: what clients are counted by where they show no token.

use std::net::{IpAddr, Ipv6Addr};

use http::Extensions;

/// The address of a request's client. The HTTP listener puts it into the request's extensions; behind a proxy it is what a
/// trusted proxy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address of a request; the unspecified one where no listener noted any.
    pub fn of(extensions: &Extensions) -> ClientAddress {
        extensions.get().copied().unwrap_or(ClientAddress(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }

    /// What one customer has, and limits count: an IPv4 address, or a /64 of IPv6.
    pub fn customer(self) -> IpAddr {
        media_core::customer(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_an_ipv4_address_or_a_64_of_ipv6() {
        let customer = |text: &str| ClientAddress(text.parse().unwrap()).customer().to_string();
        assert_eq!(customer("192.0.2.1"), "192.0.2.1");
        assert_eq!(customer("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(customer("2001:db8:0:7:1:2:3:4"), "2001:db8:0:7::");
    }
}
