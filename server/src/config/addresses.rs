//! The addresses that clients are told to send media to, where none is configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses in an answer: each one is a candidate that clients check, and small clients hold answers of 8 KiB at most.
pub const MAX_PUBLIC_IPS: usize = 8;

/// One address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

/// The addresses to advertise where none is configured: those that a socket on `media_ip` serves, without loopback,
/// link-local, container and tunnel addresses; IPv4 first, since some clients try only the first one. Where the pages are
/// only for this machine, or where nothing else is left, loopback follows.
pub fn advertised_addresses(interfaces: &[InterfaceAddress], media_ip: IpAddr, with_loopback: bool) -> Vec<IpAddr> {
    if !media_ip.is_unspecified() {
        return vec![media_ip];
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut loopback: Vec<IpAddr> = Vec::new();
    for InterfaceAddress { interface, address } in interfaces {
        if !serves(media_ip, *address) || addresses.contains(address) || loopback.contains(address) {
            continue;
        }
        if address.is_loopback() {
            loopback.push(*address);
        } else if !is_link_local(*address) && !is_virtual(interface) {
            addresses.push(*address);
        }
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    loopback.sort_by_key(IpAddr::is_ipv6);
    addresses.truncate(MAX_PUBLIC_IPS - loopback.len().min(2));
    if with_loopback || addresses.is_empty() {
        addresses.extend(loopback.into_iter().take(2));
    }
    if addresses.is_empty() {
        addresses.push(match media_ip {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addresses
}

/// A socket bound to `media_ip` receives what is sent to `address`, perhaps through a NAT.
pub(super) fn serves(media_ip: IpAddr, address: IpAddr) -> bool {
    media_ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || media_ip.is_ipv4() == address.is_ipv4()
}

pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Interfaces of containers, virtual machines and tunnels: clients elsewhere do not reach their addresses.
fn is_virtual(interface: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "docker",
        "br-",
        "veth",
        "cni",
        "virbr",
        "flannel",
        "cali",
        "cilium",
        "podman",
        "lxc",
        "lxdbr",
        "vmnet",
        "vboxnet",
        "tun",
        "tap",
        "utun",
        "wg",
        "tailscale",
        "zt",
        "ipsec",
        "nebula",
        "ppp",
    ];
    PREFIXES.iter().any(|prefix| interface.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(list: &[(&str, &str)]) -> Vec<InterfaceAddress> {
        list.iter()
            .map(|(name, address)| InterfaceAddress { interface: (*name).into(), address: address.parse().unwrap() })
            .collect()
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

    // SDP-31
    #[test]
    fn container_tunnel_link_local_and_loopback_addresses_are_not_advertised() {
        let list = interfaces(&[
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("docker0", "172.17.0.1"),
            ("br-4f2a", "172.18.0.1"),
            ("veth12", "172.19.0.1"),
            ("cni0", "10.42.0.1"),
            ("virbr0", "192.168.122.1"),
            ("tun0", "10.8.0.2"),
            ("wg0", "10.9.0.2"),
            ("tailscale0", "100.64.0.9"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::7"),
            ("eth0", "192.0.2.7"),
            ("eth1", "169.254.3.4"),
        ]);
        assert_eq!(advertised_addresses(&list, ANY6, false), addresses(&["192.0.2.7", "2001:db8::7"]));
        assert_eq!(advertised_addresses(&list, ANY4, false), addresses(&["192.0.2.7"]));
    }

    #[test]
    fn loopback_follows_where_the_pages_are_for_this_machine() {
        let list = interfaces(&[("lo", "127.0.0.1"), ("lo", "::1"), ("eth0", "fd00::2"), ("eth0", "192.0.2.7")]);
        let expected = addresses(&["192.0.2.7", "fd00::2", "127.0.0.1", "::1"]);
        assert_eq!(advertised_addresses(&list, ANY6, true), expected);
    }

    #[test]
    fn a_machine_without_network_advertises_loopback() {
        let list = interfaces(&[("lo", "127.0.0.1"), ("docker0", "172.17.0.1")]);
        assert_eq!(advertised_addresses(&list, ANY6, false), addresses(&["127.0.0.1"]));
        assert_eq!(advertised_addresses(&[], ANY4, false), addresses(&["127.0.0.1"]));
    }

    #[test]
    fn a_given_media_address_is_the_advertised_one() {
        let ip: IpAddr = "192.0.2.9".parse().unwrap();
        assert_eq!(advertised_addresses(&interfaces(&[("lo", "127.0.0.1"), ("eth0", "192.0.2.7")]), ip, true), [ip]);
    }

    #[test]
    fn the_number_of_advertised_addresses_is_bounded() {
        let mut list = interfaces(&[("lo", "127.0.0.1"), ("lo", "::1")]);
        list.extend(
            (1..40).map(|n| InterfaceAddress { interface: "eth0".into(), address: Ipv4Addr::new(192, 0, 2, n).into() }),
        );
        assert_eq!(advertised_addresses(&list, ANY6, true).len(), MAX_PUBLIC_IPS);
    }
}
