//! Values of `public_ip`: where clients are to send media.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::values::{BadValue, bad, by_text};

by_text!(PublicHost);

/// What a STUN server is asked in place of an address: `auto:stun:HOST[:PORT]`.
const BY_STUN: &str = "auto:stun:";
/// The port of STUN servers (RFC 8489 §18.6).
const STUN_PORT: u16 = 3478;

/// Where clients are to send media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicHost {
    /// At an address or a host name.
    Fixed(FixedHost),
    /// Where a STUN server sees this machine.
    Stun(StunServer),
}

/// An address or a host name, perhaps with the port of shard 0 where ports are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedHost {
    /// The address or name.
    pub host: Host,
    /// The port at which clients reach shard 0.
    pub port: Option<u16>,
}

/// A STUN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// The address or name.
    pub host: Host,
    /// Its UDP port.
    pub port: u16,
}

/// An address, or a name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address; IPv4 is never written as IPv4-mapped IPv6.
    Address(IpAddr),
    /// A host name, in lower case.
    Name(String),
}

impl PublicHost {
    /// The mapped port of shard 0, if one is given.
    pub fn port(&self) -> Option<u16> {
        match self {
            PublicHost::Fixed(fixed) => fixed.port,
            PublicHost::Stun(_) => None,
        }
    }

    /// What it stands for has to be asked of others, and may change.
    pub fn is_asked(&self) -> bool {
        !matches!(self, PublicHost::Fixed(FixedHost { host: Host::Address(_), .. }))
    }
}

impl FromStr for PublicHost {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<PublicHost, BadValue> {
        let text = text.trim();
        match text.get(..BY_STUN.len()).filter(|start| start.eq_ignore_ascii_case(BY_STUN)) {
            Some(_) => {
                let FixedHost { host, port } = text[BY_STUN.len()..].parse()?;
                Ok(PublicHost::Stun(StunServer { host, port: port.unwrap_or(STUN_PORT) }))
            }
            None => text.parse().map(PublicHost::Fixed),
        }
    }
}

impl FromStr for FixedHost {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<FixedHost, BadValue> {
        let text = text.trim();
        let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let (host, port) = if let Ok(ip) = in_brackets.parse::<IpAddr>() {
            (Host::Address(ip.to_canonical()), None)
        } else if let Ok(address) = text.parse::<SocketAddr>() {
            (Host::Address(address.ip().to_canonical()), Some(address.port()))
        } else {
            match text.rsplit_once(':') {
                Some((name, port)) => (host_name(name)?, Some(port.parse().map_err(|_| bad("not a port"))?)),
                None => (host_name(text)?, None),
            }
        };
        if port == Some(0) {
            return Err(bad("clients cannot send to port 0"));
        }
        Ok(FixedHost { host, port })
    }
}

/// A name of DNS (RFC 1123 §2.1). One whose last label is a number would be a misspelt address.
fn host_name(text: &str) -> Result<Host, BadValue> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let ends_in_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > 253 || ends_in_number || !name.split('.').all(is_label) {
        return Err(bad("neither an address nor a host name"));
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

impl fmt::Display for PublicHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublicHost::Fixed(fixed) => fixed.fmt(f),
            PublicHost::Stun(server) => server.fmt(f),
        }
    }
}

impl fmt::Display for FixedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Address(ip), None) => write!(f, "{ip}"),
            (Host::Address(ip), Some(port)) => write!(f, "{}", SocketAddr::new(*ip, port)),
            (Host::Name(name), None) => f.write_str(name),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
        }
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StunServer { host, port } = self;
        write!(f, "{BY_STUN}{}", FixedHost { host: host.clone(), port: Some(*port) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F-14
    #[test]
    fn public_hosts_are_addresses_or_names_with_or_without_a_port() {
        for (text, written) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:31000", "203.0.113.7:31000"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:31000", "[2001:db8::1]:31000"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("Media.Example.org.", "media.example.org"),
            ("media.example.org:31000", "media.example.org:31000"),
            ("localhost", "localhost"),
            ("auto:stun:stun.example.org", "auto:stun:stun.example.org:3478"),
            ("auto:stun:203.0.113.1:19302", "auto:stun:203.0.113.1:19302"),
            ("AUTO:STUN:2001:db8::1", "auto:stun:[2001:db8::1]:3478"),
            ("auto:stun:[2001:db8::1]:1", "auto:stun:[2001:db8::1]:1"),
        ] {
            assert_eq!(text.parse::<PublicHost>().map(|host| host.to_string()), Ok(written.to_owned()), "{text}");
        }
        for text in [
            "",
            "203.0.113",
            "203.0.113.256",
            "203.0.113.7:",
            "203.0.113.7:0",
            "203.0.113.7:65536",
            "a..b",
            "-a",
            "a b",
            "http://a",
            "2001:db8::1:x",
            "auto:stun",
            "auto:stun:",
            "auto:stun:a:0",
            "auto:turn:a",
            "stun:a.example",
            "auto:stun:auto:stun:a",
        ] {
            assert!(text.parse::<PublicHost>().is_err(), "{text}");
        }
    }
}
