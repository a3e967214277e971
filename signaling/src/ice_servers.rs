//! The STUN and TURN servers that clients are told to use, as `Link` headers (RFC 9725 §4.6).
//!
//! TURN credentials are fixed, or made for each session from a secret that the TURN server shares
//! (draft-uberti-behave-turn-rest): whoever reads one can relay only until it expires.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use media_core::SessionId;
use openssl::base64::encode_block;
use ring::hmac;

/// The servers, and how clients show at those of TURN that they may use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServers {
    /// In the order in which clients are told of them.
    pub urls: Vec<IceServerUrl>,
    /// For all servers of TURN. Without it none of them is told of.
    pub credentials: Option<TurnCredentials>,
}

/// `stun:`, `stuns:` (RFC 7064), `turn:` or `turns:` (RFC 7065), the scheme in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServerUrl(String);

/// How clients show at a TURN server that they may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnCredentials {
    /// The same for everybody.
    Fixed {
        /// Its name.
        username: TurnText,
        /// Its password.
        credential: TurnText,
    },
    /// Made for one session and good for `lifetime`.
    TimeLimited {
        /// What the TURN server makes them of, too.
        secret: TurnSecret,
        /// From the answer on.
        lifetime: Duration,
    },
}

/// A name or password that stands in a header as it is. Its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnText(String);

/// A secret shared with the TURN server (coturn: `static-auth-secret`). Its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnSecret(String);

/// Why a text is none of these; it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIceServer {
    /// Another scheme, no host, or something that does not belong there.
    #[error("not stun:HOST[:PORT], turn:HOST[:PORT][?transport=udp|tcp], stuns: or turns: likewise")]
    Url,
    /// Clients split at commas and read printable ASCII.
    #[error("a TURN name or password has printable ASCII without commas")]
    Text,
    /// Whoever is given one credential can try secrets at home.
    #[error("a secret shared with a TURN server has 16 characters or more")]
    Secret,
}

/// The least length of a shared secret in bytes.
const SHORTEST_SECRET: usize = 16;

impl IceServers {
    /// One header a server (WHIP-23), for a session or for a client that may open one.
    pub(crate) fn links(&self, id: SessionId, now: SystemTime) -> Vec<HeaderValue> {
        let credentials = self.credentials.as_ref().map(|credentials| credentials.attributes(id, now));
        let links = self.urls.iter().filter_map(|url| match (url.needs_credentials(), &credentials) {
            (false, _) => Some(url.link("")),
            (true, Some(credentials)) => Some(url.link(credentials)),
            (true, None) => None,
        });
        links.flatten().collect()
    }

    /// Those that ask for no credentials, for everybody.
    pub(crate) fn open_links(&self) -> Vec<HeaderValue> {
        self.urls.iter().filter(|url| !url.needs_credentials()).filter_map(|url| url.link("")).collect()
    }

    /// Some of them ask for credentials, and there are some.
    pub(crate) fn has_credentials(&self) -> bool {
        self.credentials.is_some() && self.urls.iter().any(IceServerUrl::needs_credentials)
    }
}

impl IceServerUrl {
    /// It is a TURN server.
    pub fn needs_credentials(&self) -> bool {
        self.0.starts_with("turn")
    }

    /// Attributes in the order and with the spaces that deployed parsers want (WHIP-23).
    fn link(&self, credentials: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("<{}>; rel=\"ice-server\"{credentials}", self.0)).ok()?;
        value.set_sensitive(!credentials.is_empty());
        Some(value)
    }
}

impl TurnCredentials {
    /// The attributes of a link.
    fn attributes(&self, id: SessionId, now: SystemTime) -> String {
        let (username, credential) = match self {
            TurnCredentials::Fixed { username, credential } => (username.0.clone(), credential.0.clone()),
            TurnCredentials::TimeLimited { secret, lifetime } => {
                let expires = now.duration_since(UNIX_EPOCH).unwrap_or_default() + *lifetime;
                let username = format!("{}:{id}", expires.as_secs());
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.0.as_bytes());
                let credential = encode_block(hmac::sign(&key, username.as_bytes()).as_ref());
                (username, credential)
            }
        };
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let (username, credential) = (quoted(&username), quoted(&credential));
        format!("; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\"")
    }
}

impl FromStr for IceServerUrl {
    type Err = BadIceServer;

    fn from_str(text: &str) -> Result<IceServerUrl, BadIceServer> {
        let (scheme, rest) = text.trim().split_once(':').ok_or(BadIceServer::Url)?;
        let scheme = scheme.to_ascii_lowercase();
        let (authority, query) =
            rest.split_once('?').map_or((rest, None), |(authority, query)| (authority, Some(query)));
        let relays = match scheme.as_str() {
            "stun" | "stuns" => false,
            "turn" | "turns" => true,
            _ => return Err(BadIceServer::Url),
        };
        let transport_fits = match query {
            None => true,
            Some(query) => relays && matches!(query, "transport=udp" | "transport=tcp"),
        };
        if !transport_fits || !is_host_and_port(authority) {
            return Err(BadIceServer::Url);
        }
        Ok(IceServerUrl(format!("{scheme}:{rest}")))
    }
}

/// `host[:port]`, an IPv6 address in brackets.
fn is_host_and_port(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<Ipv6Addr>().is_ok() && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_host = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_host && port.is_none_or(is_port)
}

impl fmt::Display for IceServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TurnText {
    type Err = BadIceServer;

    fn from_str(text: &str) -> Result<TurnText, BadIceServer> {
        let fits = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b',';
        let is_plain = !text.is_empty() && text.len() <= 256 && text.bytes().all(fits);
        if is_plain { Ok(TurnText(text.to_owned())) } else { Err(BadIceServer::Text) }
    }
}

impl fmt::Debug for TurnText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl FromStr for TurnSecret {
    type Err = BadIceServer;

    fn from_str(text: &str) -> Result<TurnSecret, BadIceServer> {
        if text.len() < SHORTEST_SECRET {
            return Err(BadIceServer::Secret);
        }
        Ok(TurnSecret(text.to_owned()))
    }
}

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(urls: &[&str], credentials: Option<TurnCredentials>) -> IceServers {
        IceServers { urls: urls.iter().map(|url| url.parse().unwrap()).collect(), credentials }
    }

    fn texts(links: Vec<HeaderValue>) -> Vec<String> {
        links.iter().map(|link| link.to_str().unwrap().to_owned()).collect()
    }

    // WHIP-22
    #[test]
    fn servers_have_urls_of_stun_and_turn() {
        for (text, written) in [
            ("stun:stun.example.org", "stun:stun.example.org"),
            ("STUN:stun.example.org:3478", "stun:stun.example.org:3478"),
            ("stuns:[2001:db8::1]:5349", "stuns:[2001:db8::1]:5349"),
            ("turn:192.0.2.1?transport=udp", "turn:192.0.2.1?transport=udp"),
            ("turns:turn.example.org:443?transport=tcp", "turns:turn.example.org:443?transport=tcp"),
        ] {
            assert_eq!(text.parse::<IceServerUrl>().map(|url| url.to_string()), Ok(written.to_owned()));
        }
        for text in [
            "",
            "stun:",
            "stun.example.org",
            "http://a.example",
            "stun://a.example",
            "stun:a?transport=udp",
            "turn:a?transport=sctp",
            "turn:a:0",
            "turn:a:65536",
            "turn:me@a.example",
            "turn:[::1",
            "turn:[a.example]",
            "turn:a>; rel=\"x\"",
            "turn:a,turn:b",
        ] {
            assert_eq!(text.parse::<IceServerUrl>(), Err(BadIceServer::Url), "{text:?}");
        }
    }

    // WHIP-22, WHIP-23
    #[test]
    fn a_link_has_its_attributes_in_the_order_that_clients_look_for_them_in() {
        let credentials =
            TurnCredentials::Fixed { username: "user".parse().unwrap(), credential: "pass\\wo\"rd".parse().unwrap() };
        let servers = servers(&["stun:a.example", "turn:b.example?transport=udp"], Some(credentials));
        let links = servers.links(SessionId(7), UNIX_EPOCH);
        assert!(!links[0].is_sensitive() && links[1].is_sensitive());
        assert_eq!(
            texts(links),
            [
                "<stun:a.example>; rel=\"ice-server\"".to_owned(),
                "<turn:b.example?transport=udp>; rel=\"ice-server\"; username=\"user\"; credential=\"pass\\\\wo\\\"rd\"; \
                 credential-type=\"password\""
                    .to_owned()
            ]
        );
        assert_eq!(texts(servers.open_links()), ["<stun:a.example>; rel=\"ice-server\""]);
        for text in ["", "a,b", "a\nb", "gr\u{fc}n"] {
            assert_eq!(text.parse::<TurnText>(), Err(BadIceServer::Text));
        }
    }

    // WHIP-25
    #[test]
    fn time_limited_credentials_are_those_that_a_turn_server_computes() {
        let secret: TurnSecret = "north-of-the-river".parse().unwrap();
        let limited = TurnCredentials::TimeLimited { secret: secret.clone(), lifetime: Duration::from_secs(600) };
        let servers = servers(&["turn:b.example"], Some(limited));
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        // printf 1700000600:0000000000000007 | openssl dgst -sha1 -hmac north-of-the-river -binary | base64
        assert_eq!(
            texts(servers.links(SessionId(7), now)),
            ["<turn:b.example>; rel=\"ice-server\"; username=\"1700000600:0000000000000007\"; \
              credential=\"ruydLNZBQFe1vv2NzImzoBOYsSk=\"; credential-type=\"password\""]
        );
        assert_ne!(servers.links(SessionId(7), now), servers.links(SessionId(8), now));
        assert_eq!(format!("{secret:?}"), "<redacted>");
        assert_eq!("too-short".parse::<TurnSecret>(), Err(BadIceServer::Secret));
    }

    #[test]
    fn a_turn_server_without_credentials_is_not_told_of() {
        let servers = servers(&["turn:b.example"], None);
        assert!(servers.links(SessionId(7), UNIX_EPOCH).is_empty() && !servers.has_credentials());
    }
}
