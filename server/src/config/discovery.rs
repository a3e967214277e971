//! Finds out from STUN servers at which addresses the internet sees this machine: `auto:stun:HOST`.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use media_core::reflexive::{QUERY_TIME, QueryStep, ReflexiveQuery};

use super::addresses::{Network, serves};
use super::public_host::{Host, StunServer};

/// Most STUN servers: all are asked at once, so that one is enough and a few are plenty.
pub const MAX_STUN_SERVERS: usize = 4;
/// An answer has some 100 bytes; what is longer than a path carries is none.
const LONGEST_ANSWER: usize = 1500;

/// Why a STUN server said nothing of use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// This machine has no way to servers of that family.
    #[error("{0}")]
    NoRoute(String),
    /// The server, or what is in between.
    #[error("{0}")]
    Failed(String),
}

/// What the servers say of one address family.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The address, and which server said so.
    At(IpAddr, String),
    /// None of them said it, though some should have.
    Failed(Vec<String>),
    /// There is nobody to ask: no server has such an address, or this machine has no way there.
    Nobody(Vec<String>),
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub(super) enum Family {
    #[strum(serialize = "IPv4")]
    V4,
    #[strum(serialize = "IPv6")]
    V6,
}

impl Family {
    pub(super) fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Family::V4)
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Asks all servers at once, over each family that a socket on `media_ip` serves, IPv4 first. Of their answers that of the first
/// server counts: where they differ, the same one is told each time. `check` says why clients could not use an address.
pub(super) fn discover(
    network: &impl Network,
    servers: &[&StunServer],
    media_ip: IpAddr,
    check: impl Fn(IpAddr) -> Result<(), String>,
) -> Vec<(Family, Seen)> {
    let known: Vec<_> = servers.iter().map(|server| addresses_of(network, server)).collect();
    let families = [Family::V4, Family::V6].into_iter().filter(|family| serves(media_ip, family.unspecified()));
    thread::scope(|scope| {
        let asked: Vec<(Family, Vec<_>)> = families
            .map(|family| {
                // A socket of its own on the media sockets' address: what they send has the same way out.
                let source = if media_ip.is_unspecified() { family.unspecified() } else { media_ip };
                let asked = servers.iter().zip(&known).map(|(server, known)| {
                    let known = known.as_ref().map_err(|error| AskError::Failed(error.clone()))?;
                    let ip = known.iter().find(|ip| family.has(**ip));
                    let ip = ip.ok_or_else(|| AskError::NoRoute(format!("it has no {family} address")))?;
                    let address = SocketAddr::new(*ip, server.port);
                    let thread = thread::Builder::new().name("stun".to_owned());
                    let thread = thread.spawn_scoped(scope, move || network.ask(address, source));
                    thread.map(|thread| (address, thread)).map_err(|error| AskError::Failed(error.to_string()))
                });
                (family, asked.collect())
            })
            .collect();
        let mut seen = Vec::new();
        for (family, asked) in asked {
            let answers = servers.iter().zip(asked).map(|(server, asked)| match asked {
                Ok((address, thread)) => {
                    let answer = thread.join().unwrap_or_else(|_| Err(AskError::Failed("a bug".to_owned())));
                    (server.to_string(), Some(address), answer)
                }
                Err(error) => (server.to_string(), None, Err(error)),
            });
            seen.push((family, judge(family, answers, &check)));
        }
        seen
    })
}

fn addresses_of(network: &impl Network, server: &StunServer) -> Result<Vec<IpAddr>, String> {
    match &server.host {
        Host::Name(name) => {
            let found = network.lookup(name).map_err(|error| format!("cannot be looked up: {error}"))?;
            Ok(found.into_iter().map(|ip| ip.to_canonical()).collect())
        }
        Host::Address(ip) => Ok(vec![*ip]),
    }
}

/// The first good answer, else all reasons.
fn judge(
    family: Family,
    answers: impl Iterator<Item = (String, Option<SocketAddr>, Result<IpAddr, AskError>)>,
    check: impl Fn(IpAddr) -> Result<(), String>,
) -> Seen {
    let (mut reasons, mut failed, mut seen) = (Vec::new(), false, None);
    // To the end: every thread is waited for.
    for (server, address, answer) in answers {
        let answer = answer.and_then(|ip| match check(ip) {
            Ok(()) if family.has(ip) => Ok(ip),
            Ok(()) => Err(AskError::Failed(format!("it sees {ip}, of another address family"))),
            Err(why) => Err(AskError::Failed(format!("it sees {ip}, which {why}"))),
        });
        match answer {
            Ok(ip) => seen = seen.or(Some(Seen::At(ip, server))),
            Err(error) => {
                failed |= matches!(error, AskError::Failed(_));
                let asked = address.map_or_else(String::new, |address| format!(" ({address})"));
                reasons.push(format!("{server}{asked}: {error}"));
            }
        }
    }
    seen.unwrap_or(if failed { Seen::Failed(reasons) } else { Seen::Nobody(reasons) })
}

/// Asks one server from an address of this machine; takes [`QUERY_TIME`] at most.
pub(super) fn ask(server: SocketAddr, source: IpAddr) -> Result<IpAddr, AskError> {
    // Connected: what others send to the socket is not received, and refusals are.
    let socket = UdpSocket::bind((source, 0)).map_err(|error| no_way(&error))?;
    socket.connect(server).map_err(|error| no_way(&error))?;
    let mut transaction = [0; 12];
    openssl::rand::rand_bytes(&mut transaction).map_err(|error| AskError::Failed(error.to_string()))?;
    let mut query = ReflexiveQuery::new(Instant::now(), transaction);
    let mut buffer = [0; LONGEST_ANSWER];
    loop {
        let now = Instant::now();
        match query.poll(now) {
            QueryStep::Send(request) => {
                socket.send(request).map_err(|error| no_way(&error))?;
            }
            QueryStep::Wait(until) => {
                // A timeout of zero would be none.
                let time = until.saturating_duration_since(now).max(Duration::from_millis(1));
                match socket.set_read_timeout(Some(time)).and_then(|()| socket.recv(&mut buffer)) {
                    Ok(length) => {
                        if let Some(answer) = query.answer(&buffer[..length]) {
                            return answer
                                .map(|seen| seen.ip())
                                .map_err(|refused| AskError::Failed(refused.to_string()));
                        }
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return Err(no_way(&error)),
                }
            }
            QueryStep::GiveUp => {
                return Err(AskError::Failed(format!("no answer in {} s", QUERY_TIME.as_secs_f64())));
            }
        }
    }
}

fn no_way(error: &io::Error) -> AskError {
    match error.kind() {
        ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {
            AskError::NoRoute(error.to_string())
        }
        ErrorKind::ConnectionRefused => AskError::Failed("its port is closed".to_owned()),
        _ => AskError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::addresses::{AddressSource, InterfaceAddress, NoAddress, Reading};

    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const SILENT: &str = "no answer in 5.5 s";

    /// STUN servers by address, and what they say: an address, nothing to `-`, or a failure.
    struct Servers(HashMap<&'static str, &'static str>);

    impl Network for Servers {
        fn interfaces(&self) -> io::Result<Vec<InterfaceAddress>> {
            Ok(Vec::new())
        }
        fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            match name {
                "both.example" => Ok(vec!["2001:db8::53".parse().unwrap(), "192.0.2.53".parse().unwrap()]),
                "four.example" => Ok(vec!["192.0.2.54".parse().unwrap()]),
                _ => Err(io::Error::other("no such host")),
            }
        }
        fn ask(&self, server: SocketAddr, source: IpAddr) -> Result<IpAddr, AskError> {
            assert_eq!(source.is_ipv4(), server.is_ipv4());
            match self.0.get(server.to_string().as_str()) {
                Some(&"-") => Err(AskError::NoRoute("no way".to_owned())),
                Some(seen) => seen.parse().map_err(|_| AskError::Failed((*seen).to_owned())),
                None => Err(AskError::Failed(SILENT.to_owned())),
            }
        }
    }

    fn read(configured: &[&str], media_ip: IpAddr, says: &[(&'static str, &'static str)]) -> Result<Reading, String> {
        again(configured, media_ip, says, &Reading::default())
    }

    fn again(
        configured: &[&str],
        media_ip: IpAddr,
        says: &[(&'static str, &'static str)],
        before: &Reading,
    ) -> Result<Reading, String> {
        let configured = configured.iter().map(|text| text.parse().unwrap()).collect();
        let source = AddressSource { configured, media_ip, with_loopback: false };
        assert!(source.is_followed() && source.asks_others());
        let servers = Servers(says.iter().copied().collect());
        source.read(&servers, &before.found).map_err(|NoAddress(text)| text)
    }

    // F-14
    #[test]
    fn a_stun_server_says_the_address_of_each_family() {
        let says = &[("192.0.2.53:3478", "203.0.113.7"), ("[2001:db8::53]:3478", "2001:db8::7")];
        let found = read(&["auto:stun:both.example"], ANY6, says).unwrap();
        let from = "auto:stun:both.example:3478";
        assert_eq!(found.to_string(), format!("203.0.113.7 ({from}), 2001:db8::7 ({from})"));
        // Only families that the media sockets serve are asked for.
        let found = read(&["auto:stun:both.example"], "192.0.2.9".parse().unwrap(), says).unwrap();
        assert_eq!(found.to_string(), format!("203.0.113.7 ({from})"));
        // A machine without IPv6 misses nothing.
        let says = &[("192.0.2.53:3478", "203.0.113.7"), ("[2001:db8::53]:3478", "-")];
        let found = read(&["192.168.1.5", "auto:stun:both.example"], ANY6, says).unwrap();
        assert_eq!(found.to_string(), format!("192.168.1.5 (public_ip), 203.0.113.7 ({from})"));
        assert_eq!((found.kept, found.absent), (vec![], vec![]));
    }

    #[test]
    fn of_several_stun_servers_the_first_that_answers_counts() {
        let servers = ["auto:stun:192.0.2.1:9", "auto:stun:four.example"];
        let both = &[("192.0.2.1:9", "203.0.113.7"), ("192.0.2.54:3478", "203.0.113.8")];
        let found = read(&servers, ANY4, both).unwrap();
        assert_eq!(found.to_string(), "203.0.113.7 (auto:stun:192.0.2.1:9)");
        let found = read(&servers, ANY4, &both[1..]).unwrap();
        assert_eq!(found.to_string(), "203.0.113.8 (auto:stun:four.example:3478)");
        assert_eq!((found.kept, found.absent), (vec![], vec![]), "one is enough");
        let five = ["auto:stun:a", "auto:stun:b", "auto:stun:c", "auto:stun:d", "auto:stun:e"];
        assert!(read(&five, ANY4, &[]).unwrap_err().contains("5 STUN servers\n  allowed: at most 4"));
    }

    #[test]
    fn servers_that_say_nothing_are_named_with_their_reasons() {
        let servers = ["auto:stun:gone.example", "auto:stun:192.0.2.1", "auto:stun:192.0.2.2"];
        let says = &[("192.0.2.2:3478", "it answers with STUN error 401")];
        let reasons = "no IPv4 address from auto:stun:gone.example:3478: cannot be looked up: no such host, \
             auto:stun:192.0.2.1:3478 (192.0.2.1:3478): no answer in 5.5 s, \
             auto:stun:192.0.2.2:3478 (192.0.2.2:3478): it answers with STUN error 401";
        assert_eq!(read(&servers, ANY4, says).unwrap_err(), format!("public_ip: {reasons}"));
        // With another address there is one to tell.
        let found = read(&[&servers[..], &["192.168.1.5"]].concat(), ANY4, says).unwrap();
        assert_eq!((found.to_string().as_str(), found.absent), ("192.168.1.5 (public_ip)", vec![reasons.to_owned()]));
        // Nobody to ask is a reason only where there is nothing else.
        let error = read(&["auto:stun:[2001:db8::1]"], ANY4, &[]).unwrap_err();
        assert!(error.contains("auto:stun:[2001:db8::1]:3478: it has no IPv4 address"), "{error}");
    }

    // F-23
    #[test]
    fn what_a_server_said_before_counts_until_one_says_something_else() {
        let servers = ["auto:stun:both.example"];
        let (four, six) = (("192.0.2.53:3478", "203.0.113.7"), ("[2001:db8::53]:3478", "2001:db8::7"));
        let before = read(&servers, ANY6, &[four, six]).unwrap();
        // One family is followed while the other is silent.
        let after = again(&servers, ANY6, &[("192.0.2.53:3478", "203.0.113.8")], &before).unwrap();
        let ips =
            |reading: &Reading| reading.found.iter().map(|found| found.address.ip.to_string()).collect::<Vec<_>>();
        assert_eq!((ips(&after), after.kept.len()), (vec!["203.0.113.8".to_owned(), "2001:db8::7".to_owned()], 1));
        // All of it is silent, or the way there has gone.
        for says in [&[][..], &[("192.0.2.53:3478", "-"), ("[2001:db8::53]:3478", "-")]] {
            let after = again(&servers, ANY6, says, &before).unwrap();
            assert_eq!((after.found, after.kept.len()), (before.found.clone(), 2));
        }
        // What other servers said is forgotten with them.
        assert!(again(&["auto:stun:four.example"], ANY6, &[], &before).is_err());
    }

    #[test]
    fn an_address_that_clients_could_not_use_is_no_answer() {
        for (seen, why) in [
            ("169.254.1.1", "it sees 169.254.1.1, which is link-local"),
            ("0.0.0.0", "which is no address that a client can send to"),
            ("2001:db8::7", "it sees 2001:db8::7, of another address family"),
        ] {
            let error =
                read(&["auto:stun:192.0.2.1", "auto:stun:9.9.9.9"], ANY6, &[("192.0.2.1:3478", seen)]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    /// A success response that names an address, by hand: `stun` is not what this crate speaks.
    fn success(request: &[u8], seen: Ipv4Addr) -> Vec<u8> {
        let port = (40_000_u16 ^ 0x2112).to_be_bytes();
        let ip = (u32::from(seen) ^ 0x2112_a442).to_be_bytes();
        [&[1, 1, 0, 12], &request[4..20], &[0, 0x20, 0, 8, 0, 1], &port, &ip].concat()
    }

    fn server() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn a_lost_request_is_sent_again_and_what_is_forged_is_no_answer() {
        let (socket, address) = server();
        let server = thread::spawn(move || {
            let mut buffer = [0; 100];
            let (length, client) = socket.recv_from(&mut buffer).unwrap();
            let lost = buffer[..length].to_vec();
            // Whoever does not see the request cannot name its transaction, and whoever is not the server is not heard.
            let mut guessed = lost.clone();
            guessed[19] ^= 1;
            socket.send_to(&success(&guessed, Ipv4Addr::new(203, 0, 113, 66)), client).unwrap();
            let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            stranger.send_to(&success(&lost, Ipv4Addr::new(203, 0, 113, 66)), client).unwrap();
            let (length, client) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..length], lost);
            socket.send_to(&success(&lost, Ipv4Addr::new(203, 0, 113, 7)), client).unwrap();
        });
        assert_eq!(ask(address, ANY4), Ok("203.0.113.7".parse().unwrap()));
        server.join().unwrap();
    }

    #[test]
    fn a_closed_port_is_known_at_once() {
        let (socket, address) = server();
        drop(socket);
        assert_eq!(ask(address, ANY4), Err(AskError::Failed("its port is closed".to_owned())));
    }
}
