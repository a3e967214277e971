//! What of SDP and of trickle fragments (RFC 8840) names addresses. Everything else passes to the last byte.

use std::net::{IpAddr, SocketAddr};

/// An address line of a section that leads nowhere, as with trickled candidates (RFC 8840 §4.1.1).
const NOWHERE: &str = "c=IN IP4 0.0.0.0";
/// The port that stands with it.
const DISCARD: &str = "9";

/// Rewrites what a server says, so that all ways to it lead through a relay.
///
/// `lead` gives the relay's address for one of the server, or `None` if there is no way. Candidates over TCP, those with a
/// name in place of an address, and those without a way are left out.
pub(super) fn through(text: &str, relay: IpAddr, mut lead: impl FnMut(SocketAddr) -> Option<SocketAddr>) -> String {
    let mut out = String::with_capacity(text.len());
    // Of the session, then of the section at hand.
    let mut session_address = None;
    let mut lines = text.split_inclusive('\n').peekable();
    let mut section = Vec::new();
    let mut in_media = false;
    while let Some(line) = lines.next() {
        section.push(line);
        if lines.peek().is_none_or(|next| next.starts_with("m=")) {
            let own_address = section.iter().find_map(|line| connection_address(line));
            if !in_media {
                session_address = own_address;
            }
            let address = own_address.or(session_address);
            for line in section.drain(..) {
                section_line(line, address, relay, &mut lead, &mut out);
            }
            in_media = true;
        }
    }
    out
}

fn section_line(
    line: &str,
    address: Option<IpAddr>,
    relay: IpAddr,
    lead: &mut impl FnMut(SocketAddr) -> Option<SocketAddr>,
    out: &mut String,
) {
    let (text, end) = cut(line);
    if text.starts_with("a=candidate:") {
        if let Some(candidate) = candidate_through(text, lead) {
            push(out, &candidate, end);
        }
    } else if let Some(rest) = text.strip_prefix("m=") {
        let way = |port: u16| {
            // Port 0 says that the section is refused or bundled, port 9 that there is no address yet.
            let server = address.filter(|_| port != 9).map(|ip| SocketAddr::new(ip, port))?;
            lead(server).map(|relay| relay.port().to_string())
        };
        push(out, &media_line(rest, way).unwrap_or_else(|| text.to_owned()), end);
    } else if text.starts_with("c=") {
        // One that says "nowhere" goes on to do so.
        let nowhere = connection_address(text).is_some_and(|address| address.is_unspecified());
        let family = if relay.is_ipv4() { 4 } else { 6 };
        push(out, &if nowhere { text.to_owned() } else { format!("c=IN IP{family} {relay}") }, end);
    } else if !names_rtcp_address(text) {
        push(out, text, end);
    }
}

/// Takes all addresses out of what a client says: the server shall know of none but the relay's, which it learns from the
/// checks that arrive (RFC 8445 §7.3.1.3).
pub(super) fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (text, end) = cut(line);
        if let Some(rest) = text.strip_prefix("m=") {
            push(&mut out, &media_line(rest, |_| None).unwrap_or_else(|| text.to_owned()), end);
        } else if text.starts_with("c=") {
            push(&mut out, NOWHERE, end);
        } else if !text.starts_with("a=candidate:") && text != "a=end-of-candidates" && !names_rtcp_address(text) {
            push(&mut out, text, end);
        }
    }
    out
}

/// A media line with another port; that of a refused or bundled section stays 0.
fn media_line(rest: &str, way: impl FnOnce(u16) -> Option<String>) -> Option<String> {
    let mut words = rest.splitn(3, ' ');
    let (media, port, rest) = (words.next()?, words.next()?, words.next()?);
    let number: u16 = port.split('/').next()?.parse().ok()?;
    let port = if number == 0 { "0".into() } else { way(number).unwrap_or_else(|| DISCARD.into()) };
    Some(format!("m={media} {port} {rest}"))
}

/// A candidate line (RFC 8839 §5.1) that leads to the relay.
fn candidate_through(text: &str, lead: &mut impl FnMut(SocketAddr) -> Option<SocketAddr>) -> Option<String> {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let [foundation, component, transport, priority, ip, port, "typ", kind, extensions @ ..] = words.as_slice() else {
        return None;
    };
    if !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    let relay = lead(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))?;
    let mut line =
        format!("{foundation} {component} {transport} {priority} {} {} typ {kind}", relay.ip(), relay.port());
    for pair in extensions.chunks(2) {
        // The base of a reflexive or relayed candidate must be there, but may say nothing (RFC 8839 §5.1).
        let value = match pair {
            ["raddr", _] => "0.0.0.0",
            ["rport", _] => DISCARD,
            [_, value] => value,
            _ => "",
        };
        line += format!(" {} {value}", pair[0]).trim_end();
    }
    Some(line)
}

/// An address for RTCP beside that of RTP. WebRTC has one for both (RFC 8834 §4.5), and who reads the line shall find none.
fn names_rtcp_address(text: &str) -> bool {
    text.strip_prefix("a=rtcp:").is_some_and(|rest| rest.split(' ').next() != Some(DISCARD))
}

fn connection_address(line: &str) -> Option<IpAddr> {
    // After a slash are TTL and count of multicast addresses.
    let address = cut(line).0.strip_prefix("c=")?.split(' ').nth(2)?;
    address.split('/').next()?.parse().ok()
}

/// A line and its end.
fn cut(line: &str) -> (&str, &str) {
    let text = line.trim_end_matches(['\r', '\n']);
    (text, &line[text.len()..])
}

fn push(out: &mut String, text: &str, end: &str) {
    out.push_str(text);
    out.push_str(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "127.0.0.1";

    /// The n-th distinct server address gets port 5000 + n.
    fn rewritten(text: &str) -> (String, Vec<SocketAddr>) {
        let mut known = Vec::new();
        let out = through(text, RELAY.parse().unwrap(), |server: SocketAddr| {
            if server.ip().is_multicast() {
                return None;
            }
            let index = known.iter().position(|known| *known == server).unwrap_or_else(|| {
                known.push(server);
                known.len() - 1
            });
            Some(format!("{RELAY}:{}", 5000 + index).parse().unwrap())
        });
        (out, known)
    }

    #[test]
    fn candidates_lead_through_the_relay() {
        let (out, known) = rewritten(
            "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 203.0.113.5 40000 typ host\r\n\
             a=candidate:2 1 UDP 2130706175 2001:db8::1 40000 typ host generation 0\r\n\
             a=candidate:3 1 udp 1694498815 198.51.100.7 40001 typ srflx raddr 10.0.0.1 rport 40001\r\n\
             a=end-of-candidates\r\n\
             m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 203.0.113.5 40000 typ host\r\n",
        );
        assert_eq!(
            out,
            "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host\r\n\
             a=candidate:2 1 UDP 2130706175 127.0.0.1 5001 typ host generation 0\r\n\
             a=candidate:3 1 udp 1694498815 127.0.0.1 5002 typ srflx raddr 0.0.0.0 rport 9\r\n\
             a=end-of-candidates\r\n\
             m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host\r\n"
        );
        let expected = ["203.0.113.5:40000", "[2001:db8::1]:40000", "198.51.100.7:40001"];
        assert_eq!(known, expected.map(|address| address.parse().unwrap()));
    }

    #[test]
    fn candidates_that_cannot_lead_through_the_relay_are_left_out() {
        let (out, known) = rewritten(
            "a=candidate:1 1 tcp 2105524479 203.0.113.5 8443 typ host tcptype passive\n\
             a=candidate:2 1 ssltcp 1 203.0.113.5 443 typ host\n\
             a=candidate:3 1 udp 1 server.local 5000 typ host\n\
             a=candidate:4 1 udp 1 224.0.0.1 5000 typ host\n\
             a=candidate:5 1 udp 1 203.0.113.5 99999 typ host\n\
             a=candidate:6 1 udp 1 203.0.113.5\n\
             a=candidate:\n\
             a=mid:0",
        );
        assert_eq!((out.as_str(), known.len()), ("a=mid:0", 0));
    }

    #[test]
    fn default_addresses_lead_through_the_relay() {
        let (out, known) = rewritten(
            "v=0\nc=IN IP4 203.0.113.5\nm=audio 40000 X 1\na=rtcp:40001 IN IP4 203.0.113.5\n\
             m=video 40002/1 X 2\nc=IN IP6 2001:db8::1\nm=video 40004 X 3\nc=IN IP4 224.0.0.1/127\nm=x 0 X 4\nm=bad",
        );
        assert_eq!(
            out,
            "v=0\nc=IN IP4 127.0.0.1\nm=audio 5000 X 1\n\
             m=video 5001 X 2\nc=IN IP4 127.0.0.1\nm=video 9 X 3\nc=IN IP4 127.0.0.1\nm=x 0 X 4\nm=bad"
        );
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn a_clients_addresses_are_hidden() {
        let out = hidden(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\na=ice-options:trickle\r\nm=audio 50000 X 111\r\nc=IN IP4 192.0.2.1\r\n\
             a=rtcp:50001 IN IP4 192.0.2.1\r\na=candidate:1 1 udp 1 192.0.2.1 50000 typ host\r\na=end-of-candidates\r\n\
             a=mid:0\r\nm=video 0 X 96\r\na=bundle-only\r\n",
        );
        assert_eq!(
            out,
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\na=ice-options:trickle\r\nm=audio 9 X 111\r\nc=IN IP4 0.0.0.0\r\n\
             a=mid:0\r\nm=video 0 X 96\r\na=bundle-only\r\n"
        );
    }

    #[test]
    fn what_names_no_address_passes_to_the_last_byte() {
        for text in ["", "\n", "\r\n\r\n", "v=0", "a=ice-ufrag:x\na=ice-pwd:y\r\n\n", "m=", "m=a b c d", "c=", "c=IN"] {
            let expected = if text.starts_with("c=") { "c=IN IP4 127.0.0.1" } else { text };
            assert_eq!(rewritten(text).0, expected);
        }
    }
}
