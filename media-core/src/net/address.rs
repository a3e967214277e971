//! `SocketAddr` to and from the system's `sockaddr`.

use std::mem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or IPv6 socket address.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

pub(super) const RAW_ADDRESS_LEN: libc::socklen_t = mem::size_of::<RawAddress>() as libc::socklen_t;

impl RawAddress {
    pub(super) fn zeroed() -> RawAddress {
        // SAFETY: all-zero bytes are a valid value of both plain-data members.
        unsafe { mem::zeroed() }
    }

    /// Writes `address` in the form that a socket of the given family takes, and returns its length.
    pub(super) fn set(&mut self, address: SocketAddr, ipv6_socket: bool) -> libc::socklen_t {
        match (address, ipv6_socket) {
            (SocketAddr::V4(v4), false) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            (SocketAddr::V4(v4), true) => self.set_v6(v4.ip().to_ipv6_mapped(), v4.port(), 0),
            (SocketAddr::V6(v6), _) => self.set_v6(*v6.ip(), v6.port(), v6.scope_id()),
        }
    }

    fn set_v6(&mut self, ip: Ipv6Addr, port: u16, scope_id: u32) -> libc::socklen_t {
        self.v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
            sin6_scope_id: scope_id,
        };
        mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
    }

    /// Reads what the system wrote; IPv4-mapped addresses become IPv4.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: both members begin with the family; it says which one the system wrote.
        unsafe {
            match libc::c_int::from(self.v4.sin_family) {
                libc::AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(
                    self.v4.sin_addr.s_addr.to_ne_bytes().into(),
                    u16::from_be(self.v4.sin_port),
                ))),
                libc::AF_INET6 => {
                    let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                    let port = u16::from_be(self.v6.sin6_port);
                    Some(match ip.to_ipv4_mapped() {
                        Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
                        None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, self.v6.sin6_scope_id)),
                    })
                }
                _ => None,
            }
        }
    }
}

/// The control message with a datagram's local address.
pub(super) fn pktinfo_v6(local: IpAddr) -> libc::in6_pktinfo {
    let ip = match local {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip_and_ipv4_is_never_left_mapped() {
        let mut raw = RawAddress::zeroed();
        for (text, ipv6_socket) in [("192.0.2.1:5000", false), ("192.0.2.1:5000", true), ("[2001:db8::1]:443", true)] {
            let address: SocketAddr = text.parse().unwrap();
            raw.set(address, ipv6_socket);
            assert_eq!(raw.get(), Some(address));
        }
    }
}
