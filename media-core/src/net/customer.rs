//! Whose address it is, as far as that tells.

use std::net::{IpAddr, Ipv6Addr};

/// What one customer has, and limits count: an IPv4 address, or a /64 of IPv6.
pub fn customer(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}
