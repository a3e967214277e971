//! Candidate lines (RFC 8839 §5.1) and priorities (RFC 8445 §5.1.2).

use std::net::{IpAddr, SocketAddr};

use crate::net::Protocol;
use crate::spec::{CandidateKind, LocalCandidate, RemoteCandidate};

/// Candidates of one client that are taken in its whole life, from the offer and trickled: the first usable ones. RFC 8445
/// §6.1.2.5 recommends this bound.
pub const MAX_REMOTE_CANDIDATES: usize = 100;

/// Longest line that is looked at; real ones have about 150 bytes.
const MAX_LINE: usize = 512;

/// Priority of the host candidate at `index` in the order of preference (RFC 8445 §5.1.2.1, component 1).
///
/// The order counts first, and no two candidates get the same number; IPv6 has the better one of a pair
/// (RFC 8421 §4).
pub fn host_priority(index: usize, is_ipv6: bool) -> u32 {
    const HOST: u32 = 126;
    let rank = u32::try_from(index).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(u32::from(!is_ipv6));
    let local_preference = u32::from(u16::MAX).saturating_sub(rank);
    (HOST << 24) | (local_preference << 8) | 255
}

/// Priority of the passive TCP host candidate at `index` in the order of preference (RFC 6544 §4.2): below those of UDP, which lose
/// packets where TCP waits for them.
pub fn tcp_host_priority(index: usize, is_ipv6: bool) -> u32 {
    // That of libwebrtc, above its relayed candidates.
    const HOST_TCP: u32 = 90;
    /// Of host candidates: 6 for active ones, 4 for passive ones, 2 for simultaneous open.
    const PASSIVE: u32 = 4;
    const MAX_OTHER: u32 = (1 << 13) - 1;
    let rank = u32::try_from(index).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(u32::from(!is_ipv6));
    let local_preference = (PASSIVE << 13) + MAX_OTHER.saturating_sub(rank);
    (HOST_TCP << 24) | (local_preference << 8) | 255
}

/// The value of `a=candidate` for an answer, from the word `candidate:` on (RFC 8839 §5.1, RFC 6544 §4.5).
pub fn candidate_line(candidate: &LocalCandidate) -> String {
    let LocalCandidate { protocol, address, priority, foundation } = candidate;
    let suffix = match protocol {
        Protocol::Udp => "",
        Protocol::Tcp => " tcptype passive",
    };
    let protocol = protocol.as_str();
    format!("candidate:{foundation} 1 {protocol} {priority} {} {} typ host{suffix}", address.ip(), address.port())
}

/// Where a candidate line has one connect by TCP; `None` for any other line.
pub fn parse_passive_candidate(line: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = words(line)?.collect();
    let [_, "1", transport, _, ip, port, "typ", _, extensions @ ..] = &words[..] else { return None };
    let is_passive = extensions.chunks_exact(2).any(|pair| pair == ["tcptype", "passive"]);
    let (ip, port): (IpAddr, u16) = (ip.parse().ok()?, port.parse().ok()?);
    (is_passive && transport.eq_ignore_ascii_case("tcp")).then(|| SocketAddr::new(ip, port))
}

/// Reads a client's candidate line, with or without `a=` and `candidate:` in front.
///
/// `None` for everything that this server does not pair with, ignored as in RFC 9725 §4.3.2: other transports,
/// other components than 1, names (mDNS or not), unusable addresses, broken lines.
pub fn parse_candidate(line: &str) -> Option<RemoteCandidate> {
    let mut words = words(line)?;
    let foundation = words.next().filter(|word| word.len() <= 32 && word.bytes().all(is_ice_char))?;
    let component: u16 = words.next()?.parse().ok()?;
    let transport = words.next()?;
    let priority: u32 = words.next()?.parse().ok()?;
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    let typ = words.next()?;
    let kind: CandidateKind = words.next()?.parse().ok()?;
    let ip = ip.to_canonical();
    let usable = component == 1
        && transport.eq_ignore_ascii_case("udp")
        && typ.eq_ignore_ascii_case("typ")
        && port != 0
        && !ip.is_unspecified()
        && !ip.is_multicast();
    usable.then(|| RemoteCandidate {
        address: SocketAddr::new(ip, port),
        priority,
        foundation: foundation.to_owned(),
        kind,
    })
}

/// The `ufrag` extension of a candidate line, the ICE generation of the candidate (RFC 8838 §11).
pub fn candidate_ufrag(line: &str) -> Option<&str> {
    let mut extensions = words(line)?.skip(8);
    while let (Some(name), Some(value)) = (extensions.next(), extensions.next()) {
        if name == "ufrag" {
            return Some(value);
        }
    }
    None
}

/// May a full agent send checks to this address that a client merely named? (RFC 8445 §19.5)
///
/// No client shall make the server send to services of its own network: no multicast, no broadcast, no port below 1024,
/// and the server's own loopback only if it listens there itself. Private and link-local addresses only if they are `allowed`.
pub fn is_check_target(target: SocketAddr, local: IpAddr, allowed: bool) -> bool {
    let ip = target.ip().to_canonical();
    let forbidden = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(_) => false,
    };
    let loopback_allowed = !ip.is_loopback() || local.to_canonical().is_loopback();
    !forbidden
        && (allowed || !is_private(ip))
        && !ip.is_multicast()
        && !ip.is_unspecified()
        && target.port() >= 1024
        && loopback_allowed
}

/// Addresses that mean another machine in every network (RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 §2.5.6).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_private() || ip.is_link_local() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn words(line: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    if line.len() > MAX_LINE {
        return None;
    }
    let line = line.trim_ascii_start();
    let line = line.strip_prefix("a=").unwrap_or(line);
    Some(line.strip_prefix("candidate:").unwrap_or(line).split_ascii_whitespace())
}

fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    // ICE-04
    #[test]
    fn host_priorities_follow_the_formula_and_are_distinct() {
        assert_eq!(host_priority(0, true), (126 << 24) + (65_535 << 8) + 255);
        assert_eq!(host_priority(0, false), (126 << 24) + (65_534 << 8) + 255);
        let mut all: Vec<u32> =
            (0..50).flat_map(|index| [host_priority(index, true), host_priority(index, false)]).collect();
        assert!(all.is_sorted_by(|left, right| left > right));
        all.dedup();
        assert_eq!(all.len(), 100);
        assert_eq!(host_priority(usize::MAX, false) >> 24, 126);
    }

    // ICE-04
    #[test]
    fn a_candidate_line_is_written_and_read_back() {
        for address in ["192.0.2.1:50000", "[2001:db8::1]:50001"] {
            let address: SocketAddr = address.parse().unwrap();
            let priority = host_priority(0, address.is_ipv6());
            let local = LocalCandidate { protocol: Protocol::Udp, address, priority, foundation: 7 };
            let line = candidate_line(&local);
            assert_eq!(parse_passive_candidate(&line), None);
            assert!(line.starts_with("candidate:7 1 udp 21"), "{line}");
            assert!(line.ends_with("typ host"));
            let remote = parse_candidate(&line).unwrap();
            assert_eq!((remote.address, remote.priority), (local.address, local.priority));
        }
    }

    // ICE-20
    #[test]
    fn a_passive_candidate_ranks_below_those_of_udp_and_is_written_as_rfc_6544_has_it() {
        // 2^24 * type + 2^8 * (2^13 * direction + other) + 256 - component, RFC 6544 §4.2.
        assert_eq!(tcp_host_priority(0, true), (90 << 24) + ((4 * 8192 + 8191) << 8) + 255);
        assert_eq!(tcp_host_priority(0, false), tcp_host_priority(0, true) - 256);
        assert!(tcp_host_priority(0, true) < host_priority(usize::MAX, false));
        assert_eq!(tcp_host_priority(usize::MAX, false), (90 << 24) + ((4 * 8192) << 8) + 255);
        for address in ["192.0.2.1:50000", "[2001:db8::1]:443"] {
            let address: SocketAddr = address.parse().unwrap();
            let local = LocalCandidate { protocol: Protocol::Tcp, address, priority: 1_518_337_791, foundation: 3 };
            let line = candidate_line(&local);
            let (ip, port) = (address.ip(), address.port());
            assert_eq!(line, format!("candidate:3 1 tcp 1518337791 {ip} {port} typ host tcptype passive"));
            assert_eq!((parse_passive_candidate(&line), parse_candidate(&line)), (Some(address), None));
        }
        assert_eq!(parse_passive_candidate("candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active"), None);
    }

    // ICE-05
    #[test]
    fn candidates_of_real_clients_are_read() {
        let chrome = "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1 network-cost 10";
        let read = parse_candidate(chrome).unwrap();
        assert_eq!(read.address, "192.0.2.1:61764".parse().unwrap());
        assert_eq!(
            (read.priority, read.foundation.as_str(), read.kind),
            (2_122_260_223, "1387637174", CandidateKind::Host)
        );
        assert_eq!(candidate_ufrag(chrome), Some("EsAw"));
        for (line, kind) in [
            ("candidate:1 1 UDP 1 2001:db8::5 9000 typ srflx raddr :: rport 0", CandidateKind::ServerReflexive),
            (
                "candidate:0 1 UDP 2122252543 198.51.100.7 40678 typ relay raddr 0.0.0.0 rport 9\r\n",
                CandidateKind::Relay,
            ),
            ("1 1 Udp 1 ::ffff:192.0.2.9 9000 typ prflx", CandidateKind::PeerReflexive),
        ] {
            assert_eq!(parse_candidate(line).map(|read| read.kind), Some(kind), "{line}");
        }
        assert!(parse_candidate("1 1 udp 1 ::ffff:192.0.2.9 9000 typ host").unwrap().address.is_ipv4());
        assert_eq!(candidate_ufrag("candidate:1 1 udp 1 192.0.2.1 9 typ host"), None);
    }

    // ICE-05, ICE-06, TRK-04
    #[test]
    fn unusable_candidates_are_ignored() {
        for line in [
            "",
            "candidate:",
            "candidate:1 1 udp 1 192.0.2.1 9000 typ",
            "candidate:1 1 tcp 1 192.0.2.1 9000 typ host tcptype active",
            "candidate:1 2 udp 1 192.0.2.1 9000 typ host",
            "candidate:1 1 udp 1 0aa3c5c0-1b8a-4b3e-9d2e-1f0e6f3d5c11.local 9000 typ host",
            "candidate:1 1 udp 1 host.example 9000 typ host",
            "candidate:1 1 udp 1 192.0.2.1 0 typ host",
            "candidate:1 1 udp 1 192.0.2.1 65536 typ host",
            "candidate:1 1 udp 4294967296 192.0.2.1 9000 typ host",
            "candidate:1 1 udp -1 192.0.2.1 9000 typ host",
            "candidate:1 1 udp 1 0.0.0.0 9000 typ host",
            "candidate:1 1 udp 1 224.0.0.1 9000 typ host",
            "candidate:1 1 udp 1 fe80::1%eth0 9000 typ host",
            "candidate:1 1 udp 1 192.0.2.1 9000 typ other",
            "candidate:a-b 1 udp 1 192.0.2.1 9000 typ host",
            "candidate:123456789012345678901234567890123 1 udp 1 192.0.2.1 9000 typ host",
        ] {
            assert_eq!(parse_candidate(line), None, "{line}");
        }
        assert_eq!(parse_candidate(&format!("candidate:1 1 udp 1 192.0.2.1 9000 typ host {}", "x ".repeat(400))), None);
    }

    // ICE-07
    #[test]
    fn forbidden_targets_get_no_checks() {
        let public: IpAddr = "192.0.2.10".parse().unwrap();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        for target in [
            "127.0.0.1:2222",
            "[::1]:2222",
            "[::ffff:127.0.0.1]:2222",
            "198.51.100.1:22",
            "255.255.255.255:9000",
            "239.1.2.3:9000",
            "0.1.2.3:9000",
        ] {
            assert!(!is_check_target(target.parse().unwrap(), public, true), "{target}");
        }
        assert!(is_check_target("198.51.100.1:9000".parse().unwrap(), public, true));
        assert!(is_check_target("10.0.0.4:9000".parse().unwrap(), public, true));
        assert!(is_check_target("127.0.0.1:9000".parse().unwrap(), loopback, true));
        assert!(!is_check_target("127.0.0.1:22".parse().unwrap(), loopback, true));
    }

    // H4
    #[test]
    fn private_and_link_local_targets_are_a_matter_of_choice() {
        let public: IpAddr = "192.0.2.1".parse().unwrap();
        for target in ["10.0.0.4", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "[fd00::1]", "[fe80::1]"] {
            let target: SocketAddr = format!("{target}:9000").parse().unwrap();
            assert!(is_check_target(target, public, true) && !is_check_target(target, public, false), "{target}");
        }
        for target in ["198.51.100.1:9000", "[2001:db8::1]:9000", "100.128.0.1:9000"] {
            assert!(is_check_target(target.parse().unwrap(), public, false), "{target}");
        }
    }
}
