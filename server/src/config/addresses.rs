//! The addresses that clients are told to send media to: the configured ones, names looked up, what STUN servers see, or those of
//! the interfaces.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use media_core::PublicAddress;

use super::discovery::{self, AskError, Family, MAX_STUN_SERVERS, Seen, discover};
use super::public_host::{FixedHost, Host, PublicHost, StunServer};

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
pub trait Network: Sync {
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
    /// At which address a STUN server sees a socket that is bound to `source`.
    ///
    /// # Errors
    /// What kept it from saying so.
    fn ask(&self, server: SocketAddr, source: IpAddr) -> Result<IpAddr, AskError>;
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

    fn ask(&self, server: SocketAddr, source: IpAddr) -> Result<IpAddr, AskError> {
        discovery::ask(server, source)
    }
}

/// Who says that clients reach the server at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is that of an interface.
    Interface(String),
    /// It is that of the media sockets, `media_ip`.
    MediaIp,
    /// It stands in `public_ip`.
    PublicIp,
    /// A name in `public_ip` leads there.
    Name(String),
    /// A STUN server of `public_ip` sees the server there.
    Stun(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Interface(name) => write!(f, "interface {name}"),
            Origin::MediaIp => f.write_str("media_ip"),
            Origin::PublicIp => f.write_str("public_ip"),
            Origin::Name(name) => write!(f, "name {name}"),
            Origin::Stun(server) => f.write_str(server),
        }
    }
}

/// An address that clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub address: PublicAddress,
    /// Who says so.
    pub from: Origin,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PublicAddress { ip, port } = self.address;
        match port {
            Some(port) => write!(f, "{} ({})", SocketAddr::new(ip, port), self.from),
            None => write!(f, "{ip} ({})", self.from),
        }
    }
}

/// All addresses that clients are told, the preferred one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The addresses.
    pub found: Vec<Found>,
    /// Why a STUN server did not confirm an address that it gave before, and that is told all the same.
    pub kept: Vec<String>,
    /// Why STUN servers gave no address of a family.
    pub absent: Vec<String>,
}

impl Reading {
    /// As the core wants them.
    pub fn addresses(&self) -> Vec<PublicAddress> {
        self.found.iter().map(|found| found.address).collect()
    }

    fn add(&mut self, address: PublicAddress, from: Origin) {
        if !self.found.iter().any(|found| found.address == address) {
            self.found.push(Found { address, from });
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.found.iter().enumerate() {
            write!(f, "{}{found}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
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
        if self.configured.is_empty() { self.media_ip.is_unspecified() } else { self.asks_others() }
    }

    /// Names are looked up, or STUN servers asked, in place of interfaces read.
    pub fn asks_others(&self) -> bool {
        self.configured.iter().any(PublicHost::is_asked)
    }

    /// The addresses of now, the preferred one first. `known` are those of before: what STUN servers said then counts until they
    /// say something else.
    ///
    /// # Errors
    /// An address that no client could send to, too many of them, a name that leads to none, or STUN servers of which none
    /// says anything where there is no other address.
    pub fn read(&self, network: &impl Network, known: &[Found]) -> Result<Reading, NoAddress> {
        let mut reading = Reading::default();
        if self.configured.is_empty() {
            let interfaces =
                network.interfaces().map_err(|error| NoAddress(format!("cannot read the interfaces: {error}")))?;
            for ip in advertised_addresses(&interfaces, self.media_ip, self.with_loopback) {
                reading.add(ip.into(), self.origin(&interfaces, ip));
            }
            return Ok(reading);
        }
        let literal = self.configured.iter().filter(|public| !public.is_asked()).count();
        if literal > MAX_PUBLIC_IPS {
            return Err(NoAddress(format!("public_ip: {literal} addresses\n  allowed: at most {MAX_PUBLIC_IPS}")));
        }
        let servers: Vec<&StunServer> = self.configured.iter().filter_map(stun_server).collect();
        if servers.len() > MAX_STUN_SERVERS {
            let count = servers.len();
            return Err(NoAddress(format!("public_ip: {count} STUN servers\n  allowed: at most {MAX_STUN_SERVERS}")));
        }
        let mut is_discovered = false;
        for public in &self.configured {
            match public {
                PublicHost::Fixed(FixedHost { host, port }) => {
                    let from = match host {
                        Host::Address(_) => Origin::PublicIp,
                        Host::Name(name) => Origin::Name(name.clone()),
                    };
                    for ip in self.resolve(network, host)? {
                        reading.add(PublicAddress { ip, port: *port }, from.clone());
                    }
                }
                // All servers are one source, which stands where the first of them does.
                PublicHost::Stun(_) if is_discovered => {}
                PublicHost::Stun(_) => {
                    is_discovered = true;
                    let seen = discover(network, &servers, self.media_ip, |ip| self.check(ip));
                    take_discovered(&mut reading, seen, &servers, known);
                }
            }
        }
        if reading.found.is_empty() {
            return Err(NoAddress(format!("public_ip: {}", reading.absent.join("; "))));
        }
        // A name may have any number of them.
        reading.found.truncate(MAX_PUBLIC_IPS);
        Ok(reading)
    }

    fn origin(&self, interfaces: &[InterfaceAddress], ip: IpAddr) -> Origin {
        if !self.media_ip.is_unspecified() {
            return Origin::MediaIp;
        }
        let interface = interfaces.iter().find(|interface| interface.address == ip);
        Origin::Interface(interface.map_or("lo", |found| found.interface.as_str()).to_owned())
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

fn stun_server(public: &PublicHost) -> Option<&StunServer> {
    match public {
        PublicHost::Stun(server) => Some(server),
        PublicHost::Fixed(_) => None,
    }
}

/// Takes what STUN servers said of each family. Where they are silent, what they said before counts.
fn take_discovered(reading: &mut Reading, seen: Vec<(Family, Seen)>, servers: &[&StunServer], known: &[Found]) {
    let mut nobody = Vec::new();
    for (family, seen) in seen {
        let (reasons, is_fault) = match seen {
            Seen::At(ip, server) => {
                reading.add(ip.into(), Origin::Stun(server));
                continue;
            }
            Seen::Failed(reasons) => (reasons, true),
            Seen::Nobody(reasons) => (reasons, false),
        };
        let reasons = format!("no {family} address from {}", reasons.join(", "));
        let is_of_these = |from: &Origin| matches!(from, Origin::Stun(name) if servers.iter().any(|server| server.to_string() == *name));
        let last = known.iter().find(|known| family.has(known.address.ip) && is_of_these(&known.from));
        if let Some(last) = last {
            reading.add(last.address, last.from.clone());
            reading.kept.push(reasons);
        } else if is_fault {
            reading.absent.push(reasons);
        } else {
            nobody.push(reasons);
        }
    }
    // A machine without IPv6 is none to speak of, unless there is nothing else.
    if reading.found.is_empty() {
        reading.absent.append(&mut nobody);
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
        fn ask(&self, _: SocketAddr, _: IpAddr) -> Result<IpAddr, AskError> {
            panic!("no STUN server is configured")
        }
    }

    fn source(configured: &[&str], media_ip: IpAddr) -> AddressSource {
        let configured = configured.iter().map(|text| text.parse().unwrap()).collect();
        AddressSource { configured, media_ip, with_loopback: false }
    }

    fn read(configured: &[&str], media_ip: IpAddr, names: &Names) -> Result<Vec<String>, String> {
        let written = |found: &Found| found.to_string();
        let reading = source(configured, media_ip).read(names, &[]);
        reading.map(|reading| reading.found.iter().map(written).collect()).map_err(|error| error.to_string())
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
            [
                "192.0.2.1 (public_ip)",
                "203.0.113.7:31000 (name media.example.org)",
                "[2001:db8::1]:31000 (name media.example.org)"
            ]
        );
        let found = read(&["media.example.org"], ANY4, &names).unwrap();
        assert_eq!(found, ["203.0.113.7 (name media.example.org)"], "of the sockets' family");
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

    #[test]
    fn an_address_of_an_interface_is_told_with_its_name() {
        assert_eq!(read(&[], ANY4, &Names(&[])).unwrap(), ["192.0.2.7 (interface eth0)"]);
        assert_eq!(read(&[], "192.0.2.9".parse().unwrap(), &Names(&[])).unwrap(), ["192.0.2.9 (media_ip)"]);
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
