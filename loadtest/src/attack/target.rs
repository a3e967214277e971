//! What is attacked, and from where.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use media_core::IceCredentials;
use media_core::internals::net::MediaSocket;
use reqwest::Url;

use super::{AttackError, Source};
use crate::client::{ClientError, Endpoint, Identity, local_ip};

/// Addresses that the attackers have where there are as many as one likes: 127.0.0.2 and so on. The honest clients are at
/// 127.0.0.1.
const ADDRESSES: u8 = 16;
/// Sockets of strangers towards each of the server's addresses.
const SOCKETS: usize = 16;

/// The addresses from which a server there is attacked.
pub(super) fn attackers(server: IpAddr) -> Vec<IpAddr> {
    match server {
        IpAddr::V4(ip) if ip.is_loopback() => {
            (0..ADDRESSES).map(|index| IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + index))).collect()
        }
        ip => vec![local_ip(ip)],
    }
}

/// True if all addresses of the URL's host are this machine's own loopback.
pub(crate) fn is_loopback(url: &str) -> bool {
    addresses(url).is_some_and(|found| !found.is_empty() && found.iter().all(|address| address.ip().is_loopback()))
}

fn addresses(url: &str) -> Option<Vec<SocketAddr>> {
    // A template's number is no part of the host.
    let url = Url::parse(url).ok()?;
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port).to_socket_addrs().ok()?.collect())
}

/// An honest viewer, of whom the attackers know what can be seen on its path.
#[derive(Clone)]
pub(crate) struct Victim {
    pub(crate) local: IceCredentials,
    pub(crate) remote: IceCredentials,
    pub(crate) to: SocketAddr,
}

/// What is attacked.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) whip: Option<String>,
    pub(crate) whep: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) admin: Option<String>,
    /// The number of the first stream that is none of the honest publishers'.
    pub(crate) own: usize,
    /// The server's addresses for media.
    pub(crate) media: Vec<SocketAddr>,
    /// Honest viewers that are there now; whoever runs the test keeps it so.
    pub(crate) victims: Arc<Mutex<Vec<Victim>>>,
    pub(crate) identity: Identity,
    /// Datagrams a second.
    pub(crate) datagrams: u32,
    /// Connections or requests a second.
    pub(crate) requests: u32,
    /// Connections that are open at a time at most.
    pub(crate) connections: usize,
}

impl Target {
    /// Honest viewers.
    pub(super) fn victims(&self) -> Vec<Victim> {
        self.victims.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The URL of the honest stream 0, for viewers.
    pub(super) fn watched(&self) -> Result<String, AttackError> {
        let template = self.whep.as_deref().ok_or(AttackError::Needs("--whep"))?;
        Ok(template.replace("{i}", "0"))
    }

    /// The URL to publish stream `number` of the attackers.
    pub(super) fn own_stream(&self, number: u64) -> Result<String, AttackError> {
        Ok(own_stream(self.whip.as_deref().ok_or(AttackError::Needs("--whip"))?, self.own, number))
    }

    /// The URL to watch stream `number` of the attackers.
    pub(super) fn own_watched(&self, number: u64) -> Result<String, AttackError> {
        Ok(own_stream(self.whep.as_deref().ok_or(AttackError::Needs("--whep"))?, self.own, number))
    }

    /// Where the server's HTTP is.
    pub(super) fn http(&self) -> Result<(Url, SocketAddr), AttackError> {
        let url = self.watched().or_else(|_| self.own_stream(0))?;
        let failed = || AttackError::Client(ClientError::Http(format!("{url} leads nowhere")));
        let address = addresses(&url).and_then(|found| found.first().copied()).ok_or_else(failed)?;
        Ok((Url::parse(&url).map_err(|_| failed())?, address))
    }

    /// The same, if what is written to its connections is read as HTTP.
    pub(super) fn plain_http(&self) -> Result<(Url, SocketAddr), AttackError> {
        self.http().and_then(|found| match found.0.scheme() {
            "http" => Ok(found),
            _ => Err(AttackError::Needs("an http:// URL")),
        })
    }

    /// An endpoint, asked from this address.
    pub(super) fn endpoint(&self, url: String, from: IpAddr) -> Result<Endpoint, AttackError> {
        Ok(Endpoint { http: client(from)?, url, token: self.token.clone() })
    }

    /// Sockets that the server knows nothing of.
    pub(super) fn strangers(&self) -> Result<Vec<Source>, AttackError> {
        let open = |to: SocketAddr| {
            let from = attackers(to.ip());
            (0..SOCKETS).map(move |index| {
                Ok(Source { socket: socket(from[index % from.len()])?, to, proven: false, sends: true })
            })
        };
        self.media.iter().flat_map(|to| open(*to)).collect()
    }
}

/// Stream `number` of those that are none of the honest publishers'.
pub(crate) fn own_stream(template: &str, own: usize, number: u64) -> String {
    let number = own as u64 + number;
    if template.contains("{i}") {
        return template.replace("{i}", &number.to_string());
    }
    format!("{template}-{number}")
}

/// A socket at this address.
pub(super) fn socket(ip: IpAddr) -> Result<UdpSocket, AttackError> {
    MediaSocket::bind(ip, 0).map_err(|error| AttackError::Client(ClientError::Socket(error.to_string())))
}

/// An HTTP client at this address.
pub(super) fn client(from: IpAddr) -> Result<reqwest::Client, AttackError> {
    let from = (!from.is_unspecified()).then_some(from);
    let builder = reqwest::Client::builder().http1_only().local_address(from).timeout(Duration::from_secs(10));
    builder.build().map_err(|error| AttackError::Client(ClientError::Http(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for url in
            ["http://127.0.0.1:8080/whip/s{i}", "http://127.9.9.9/", "http://[::1]:1/x", "http://localhost/whep/a"]
        {
            assert!(is_loopback(url), "{url}");
        }
        for url in
            ["http://192.0.2.1/", "http://127.0.0.1.nip.invalid/", "http://0.0.0.0/", "no url", "http://[::]:80/"]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn attackers_have_addresses_and_streams_of_their_own() {
        let addresses = attackers("127.0.0.1".parse().unwrap());
        assert_eq!((addresses.len(), addresses.contains(&"127.0.0.1".parse().unwrap())), (16, false));
        assert_eq!(attackers("192.0.2.1".parse().unwrap()), ["0.0.0.0".parse::<IpAddr>().unwrap()]);
        assert_eq!(own_stream("http://h/whip/s{i}", 2, 5), "http://h/whip/s7");
        assert_eq!(own_stream("http://h/whip/live", 1, 0), "http://h/whip/live-1");
    }
}
