//! What a relay stands in front of, what it is asked for, and what it counts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::link_options::{LinkCounts, LinkError, LinkOptions};

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From clients to the server.
    Up,
    /// From the server to clients.
    Down,
}

/// What a relay stands in front of, and what it does.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Where clients reach the relay over HTTP; its UDP ports are opened on the same address. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `http://host[:port]` or `https://host[:port]` of the server.
    pub target: String,
    /// Address that stands in candidates; that of `listen` if `None`.
    pub media_ip: Option<IpAddr>,
    /// The links from clients to the server.
    pub up: LinkOptions,
    /// The links from the server to clients.
    pub down: LinkOptions,
    /// How often every client gets another port towards the server; never if `None`.
    pub rebind_every: Option<Duration>,
    /// Seed of all random numbers: the n-th client of every run meets the same impairments, as far as it does the same.
    pub seed: u64,
    /// Clients at one time; those of others are refused.
    pub max_flows: usize,
}

impl Default for RelayOptions {
    fn default() -> RelayOptions {
        RelayOptions {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            target: "http://127.0.0.1:8080".into(),
            media_ip: None,
            up: LinkOptions::default(),
            down: LinkOptions::default(),
            rebind_every: None,
            seed: 1,
            max_flows: 1024,
        }
    }
}

/// Why a relay cannot do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The target is no origin.
    #[error("the target must be http:// or https:// with a host, and no path: {0}")]
    Target(String),
    /// Candidates need an address that clients can reach.
    #[error("the address to listen on says not where clients find it; give the address for media too")]
    MediaAddress,
    /// The links' options are wrong.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A socket or a thread that the system refuses.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The HTTP client does not start.
    #[error("HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// More server candidates than the relay has ports for.
    #[error("there are relay ports for {0} server candidates already")]
    Ports(usize),
}

/// What a relay did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RelayCounts {
    /// From clients to the server.
    pub up: LinkCounts,
    /// From the server to clients.
    pub down: LinkCounts,
    /// UDP ports now, one a server candidate.
    pub ports: usize,
    /// Client addresses now.
    pub flows: usize,
    /// Client addresses so far.
    pub flows_opened: u64,
    /// Datagrams of clients beyond the limit, or for which the system gave no socket.
    pub refused: u64,
    /// Times that a flow got another port towards the server.
    pub rebound: u64,
    /// Datagrams that the relay's own sockets had no room for: the machine was too slow. No impairment was meant by it.
    pub overflowed: u64,
    /// Datagrams that the system did not take, or whose port nobody listens on.
    pub unsent: u64,
}
