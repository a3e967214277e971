//! The addresses that clients are told to send media to: the configured ones, names looked up, or those of the interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use media_core::PublicAddress;

use super::public_host::{Host, PublicHost};

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

/// What the machine and its network say of addresses.
pub trait Network {
    /// Addresses of all interfaces that are up.
    ///
    /// # Errors
    /// The system's.
    fn interfaces(&self) -> io::Result<Vec<InterfaceAddress>>;
    /// The addresses of a host name.
    ///
    /// # Errors
    /// The resolver's.
    fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Network for System {
    fn interfaces(&self) -> io::Result<Vec<InterfaceAddress>> {
        let up = if_addrs::get_if_addrs()?.into_iter().filter(|found| found.is_oper_up() || found.is_loopback());
        Ok(up.map(|found| InterfaceAddress { address: found.ip(), interface: found.name }).collect())
    }

    fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// Where the advertised addresses come from.
#[derive(Clone, Debug)]
pub struct AddressSource {
    /// `public_ip`; empty for the interfaces.
    pub configured: Vec<PublicHost>,
    /// The address of the media sockets.
    pub media_ip: IpAddr,
    /// Loopback is of use: the pages are for this machine.
    pub with_loopback: bool,
}

/// Why there is no address to advertise; the text names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAddress(pub String);

impl AddressSource {
    /// What it says can change while the server runs.
    pub fn is_followed(&self) -> bool {
        match &self.configured[..] {
            [] => self.media_ip.is_unspecified(),
            configured => configured.iter().any(|public| matches!(public.host, Host::Name(_))),
        }
    }

    /// Names are looked up, in place of interfaces read.
    pub fn has_names(&self) -> bool {
        !self.configured.is_empty()
    }

    /// The addresses of now, the preferred one first.
    ///
    /// # Errors
    /// An address that no client could send to, too many of them, or a name that leads to none.
    pub fn read(&self, network: &impl Network) -> Result<Vec<PublicAddress>, NoAddress> {
        if self.configured.is_empty() {
            let interfaces =
                network.interfaces().map_err(|error| NoAddress(format!("cannot read the interfaces: {error}")))?;
            let addresses = advertised_addresses(&interfaces, self.media_ip, self.with_loopback);
            return Ok(addresses.into_iter().map(PublicAddress::from).collect());
        }
        let mut addresses: Vec<PublicAddress> = Vec::new();
        for public in &self.configured {
            for ip in self.resolve(network, &public.host)? {
                let address = PublicAddress { ip, port: public.port };
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        let literal = self.configured.iter().filter(|public| matches!(public.host, Host::Address(_))).count();
        if literal > MAX_PUBLIC_IPS {
            return Err(NoAddress(format!("public_ip: {literal} addresses\n  allowed: at most {MAX_PUBLIC_IPS}")));
        }
        // A name may have any number of them.
        addresses.truncate(MAX_PUBLIC_IPS);
        Ok(addresses)
    }

    /// The addresses of one host, IPv4 first. Of a name those that are of no use are left out.
    fn resolve(&self, network: &impl Network, host: &Host) -> Result<Vec<IpAddr>, NoAddress> {
        let name = match host {
            Host::Address(ip) => {
                return self.check(*ip).map(|()| vec![*ip]).map_err(|why| NoAddress(format!("public_ip: {ip} {why}")));
            }
            Host::Name(name) => name,
        };
        let found = network
            .lookup(name)
            .map_err(|error| NoAddress(format!("public_ip: {name} cannot be looked up: {error}")))?;
        let mut addresses = Vec::new();
        let mut refused = "has no address".to_owned();
        for ip in found.into_iter().map(|ip| ip.to_canonical()) {
            match self.check(ip) {
                Ok(()) => addresses.push(ip),
                Err(why) => refused = format!("leads to {ip}, which {why}"),
            }
        }
        if addresses.is_empty() {
            return Err(NoAddress(format!("public_ip: {name} {refused}")));
        }
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }

    /// Clients can send to this address, and it would arrive.
    fn check(&self, ip: IpAddr) -> Result<(), String> {
        let reserved = match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
            IpAddr::V6(_) => false,
        };
        if ip.is_unspecified() || ip.is_multicast() || reserved {
            return Err("is no address that a client can send to".to_owned());
        }
        if is_link_local(ip) {
            return Err(
                "is link-local: no client behind a router reaches it, and a candidate cannot name its interface"
                    .to_owned(),
            );
        }
        if !serves(self.media_ip, ip) {
            return Err(format!(
                "and media_ip {} are of different families: nothing would arrive there",
                self.media_ip
            ));
        }
        Ok(())
    }
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
fn serves(media_ip: IpAddr, address: IpAddr) -> bool {
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

    /// A network whose names are given.
    struct Names(&'static [(&'static str, &'static [&'static str])]);

    impl Network for Names {
        fn interfaces(&self) -> io::Result<Vec<InterfaceAddress>> {
            Ok(interfaces(&[("eth0", "192.0.2.7")]))
        }
        fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            let found = self.0.iter().find(|(known, _)| *known == name);
            found.map(|(_, list)| addresses(list)).ok_or_else(|| io::Error::other("no such host"))
        }
    }

    fn source(configured: &[&str], media_ip: IpAddr) -> AddressSource {
        let configured = configured.iter().map(|text| text.parse().unwrap()).collect();
        AddressSource { configured, media_ip, with_loopback: false }
    }

    fn read(configured: &[&str], media_ip: IpAddr, names: &Names) -> Result<Vec<String>, String> {
        let written = |address: PublicAddress| match address.port {
            Some(port) => std::net::SocketAddr::new(address.ip, port).to_string(),
            None => address.ip.to_string(),
        };
        let found = source(configured, media_ip).read(names);
        found.map(|found| found.into_iter().map(written).collect()).map_err(|error| error.to_string())
    }

    // F-14
    #[test]
    fn names_are_looked_up_and_keep_their_port() {
        let names = Names(&[
            ("media.example.org", &["2001:db8::1", "fe80::1", "203.0.113.7", "203.0.113.7"]),
            ("inner.example.org", &["169.254.1.1"]),
            (
                "many.example.org",
                &[
                    "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8",
                    "10.0.0.9",
                ],
            ),
            ("none.example.org", &[]),
        ]);
        assert_eq!(
            read(&["192.0.2.1", "media.example.org:31000"], ANY6, &names).unwrap(),
            ["192.0.2.1", "203.0.113.7:31000", "[2001:db8::1]:31000"]
        );
        assert_eq!(read(&["media.example.org"], ANY4, &names).unwrap(), ["203.0.113.7"], "of the sockets' family");
        assert_eq!(read(&["many.example.org"], ANY4, &names).unwrap().len(), MAX_PUBLIC_IPS);
        for (name, why) in [
            ("inner.example.org", "leads to 169.254.1.1, which is link-local"),
            ("none.example.org", "has no address"),
            ("gone.example.org", "cannot be looked up: no such host"),
        ] {
            let error = read(&["192.0.2.1", name], ANY6, &names).unwrap_err();
            assert!(error.starts_with(&format!("public_ip: {name} {why}")), "{error}");
        }
    }

    // F-14
    #[test]
    fn addresses_that_no_client_reaches_are_refused_with_the_reason() {
        for (text, why) in [
            ("fe80::1", "link-local"),
            ("169.254.7.7:31000", "link-local"),
            ("0.0.0.0", "no address that a client can send to"),
            ("0.1.2.3", "no address that a client can send to"),
            ("::", "no address that a client can send to"),
            ("224.0.0.1", "no address that a client can send to"),
            ("ff02::1", "no address that a client can send to"),
            ("255.255.255.255", "no address that a client can send to"),
        ] {
            let error = read(&[text], ANY6, &Names(&[])).unwrap_err();
            assert!(error.starts_with("public_ip: ") && error.contains(why), "{text}: {error}");
        }
        assert!(read(&["2001:db8::1"], ANY4, &Names(&[])).unwrap_err().contains("different families"));
        let nine: Vec<String> = (1..=9).map(|n| format!("192.0.2.{n}")).collect();
        let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
        assert!(read(&nine, ANY6, &Names(&[])).unwrap_err().contains("at most 8"));
    }

    // F-14, F-23
    #[test]
    fn what_can_change_is_followed() {
        assert!(source(&[], ANY6).is_followed() && source(&["a.example", "192.0.2.1"], ANY6).is_followed());
        assert!(
            !source(&[], "192.0.2.1".parse().unwrap()).is_followed() && !source(&["192.0.2.1:9"], ANY6).is_followed()
        );
    }

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
