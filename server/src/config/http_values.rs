//! Types of settings about the HTTP listeners.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use openssl::sha::sha256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::public_host::{FixedHost, Host};
use super::values::{BadValue, bad, by_text};

by_text!(AdminListen, AdminToken, HostName, OptionalListen, ProxyPrefix);

/// Where the admin listener listens: an address and a port, or `unix:` and the path of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for AdminListen {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<AdminListen, BadValue> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(AdminListen::Unix(PathBuf::from(path))),
            Some(_) => Err(bad("a Unix socket has an absolute path")),
            None => {
                text.parse().map(AdminListen::Tcp).map_err(|_| bad("neither an address with a port nor unix:/PATH"))
            }
        }
    }
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminListen::Tcp(address) => write!(f, "{address}"),
            AdminListen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address and a port to listen at, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionalListen(pub Option<SocketAddr>);

impl FromStr for OptionalListen {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<OptionalListen, BadValue> {
        match text.trim() {
            "" => Ok(OptionalListen(None)),
            text => {
                text.parse().map(|address| OptionalListen(Some(address))).map_err(|_| bad("no address with a port"))
            }
        }
    }
}

impl fmt::Display for OptionalListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, "{address}"))
    }
}

/// The token of the admin listener, as its SHA-256 digest, or none. Its text and debug forms hide it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct AdminToken(pub Option<[u8; 32]>);

/// The shortest token: what is shorter can be guessed.
const SHORTEST_TOKEN: usize = 16;

impl FromStr for AdminToken {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<AdminToken, BadValue> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(AdminToken(None));
        }
        // RFC 6750 §2.1 `b64token`.
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err(bad("a token has letters, digits and -._~+/= only"));
        }
        if text.len() < SHORTEST_TOKEN {
            return Err(bad(format!("a token has {SHORTEST_TOKEN} characters or more")));
        }
        Ok(AdminToken(Some(sha256(text.as_bytes()))))
    }
}

impl fmt::Display for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "<redacted>" } else { "" })
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name under which the server is reached, in lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<HostName, BadValue> {
        match text.parse::<FixedHost>()? {
            FixedHost { host: Host::Name(name), port: None } => Ok(HostName(name)),
            FixedHost { port: Some(_), .. } => Err(bad("a name has no port here")),
            FixedHost { host: Host::Address(_), .. } => Err(bad("addresses are allowed anyway")),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses of proxies: one, or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyPrefix(pub IpNet);

impl FromStr for ProxyPrefix {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<ProxyPrefix, BadValue> {
        let text = text.trim();
        let prefix = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        let prefix = prefix.map_err(|_| bad("neither an address nor a prefix"))?.trunc();
        if prefix.prefix_len() == 0 {
            return Err(bad("with every address trusted, anybody could claim to be anybody"));
        }
        Ok(ProxyPrefix(prefix))
    }
}

impl fmt::Display for ProxyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => write!(f, "{}", self.0.addr()),
            false => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_listener_has_an_address_or_a_path() {
        for text in ["127.0.0.1:8081", "[::1]:8081", "unix:/run/sluice/admin.sock"] {
            assert_eq!(text.parse::<AdminListen>().map(|listen| listen.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "localhost:8081", "unix:", "unix:admin.sock", "/run/admin.sock"] {
            assert!(text.parse::<AdminListen>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_to_listen_at_may_be_none() {
        assert_eq!("0.0.0.0:80".parse(), Ok(OptionalListen(Some(SocketAddr::from(([0, 0, 0, 0], 80))))));
        assert_eq!("".parse().map(|none: OptionalListen| none.to_string()), Ok(String::new()));
        for text in ["80", "localhost:80", "[::]"] {
            assert!(text.parse::<OptionalListen>().is_err(), "{text}");
        }
    }

    // M2
    #[test]
    fn the_admin_token_is_long_and_never_shown() {
        let token: AdminToken = "hunter2hunter2hunter2".parse().unwrap();
        assert_eq!(token.0, Some(sha256(b"hunter2hunter2hunter2")));
        assert_eq!(format!("{token} {token:?}"), "<redacted> <redacted>");
        assert_eq!("".parse(), Ok(AdminToken(None)));
        for text in ["hunter2", "hunter2 hunter2 hunter2"] {
            let error = text.parse::<AdminToken>().unwrap_err().to_string();
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn names_have_no_port_and_are_no_addresses() {
        assert_eq!("Sluice.internal.".parse(), Ok(HostName("sluice.internal".to_owned())));
        for text in ["sluice:8081", "127.0.0.1", "::1", "http://sluice", ""] {
            assert!(text.parse::<HostName>().is_err(), "{text}");
        }
    }

    #[test]
    fn proxies_are_addresses_or_prefixes_and_not_everybody() {
        for (text, written) in [("10.0.0.1", "10.0.0.1"), ("10.1.2.3/8", "10.0.0.0/8"), ("fd00::/8", "fd00::/8")] {
            assert_eq!(text.parse::<ProxyPrefix>().map(|prefix| prefix.to_string()), Ok(written.to_owned()));
        }
        for text in ["0.0.0.0/0", "::/0", "proxy", "10.0.0.0/33", ""] {
            assert!(text.parse::<ProxyPrefix>().is_err(), "{text}");
        }
    }
}
