//! A relay that impairs what passes it: loss, bursts of loss, delay, jitter, reordering, duplicates, a bottleneck with a
//! queue, and NATs that forget. All of it in user space, for machines without `tc netem`.
//!
//! Clients use the relay's URL instead of the server's. Over HTTP everything is handed on, but in descriptions the server's
//! candidates are replaced by UDP ports of the relay ([`sdp`]). Behind these every client has a pair of links of its own
//! ([`link`]), and a port towards the server that can change.

mod command;
mod http;
pub mod link;
pub mod sdp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Url;
use serde::Serialize;
use tokio::sync::oneshot;

pub use command::{RelayArgs, command};
pub use link::{LinkCounts, LinkError, LinkOptions};
use udp::Shared;

/// The way of a datagram.
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
    /// Seed of all dice. The n-th client of every run meets the same fate, as far as it does the same.
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

/// A running relay, on a thread of its own. Dropping it ends it.
pub struct Relay {
    shared: Arc<Shared>,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Opens the HTTP port; UDP ports follow as candidates of the server become known.
    ///
    /// # Errors
    /// Options that make no sense, and sockets or threads that the system refuses.
    pub fn start(options: RelayOptions) -> Result<Relay, RelayError> {
        options.up.check()?;
        options.down.check()?;
        let target = origin(&options.target)?;
        let media_ip = options.media_ip.unwrap_or(options.listen.ip());
        if media_ip.is_unspecified() {
            return Err(RelayError::MediaAddress);
        }
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let host = if address.ip().is_unspecified() { media_ip } else { address.ip() };
        let url = format!("http://{}", SocketAddr::new(host, address.port()));

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::new(&options, media_ip, runtime.handle().clone()));
        let proxy = http::Proxy::new(target, Arc::clone(&shared))?;
        let (stop, stopped) = oneshot::channel();
        let (rebinding, every) = (Arc::clone(&shared), options.rebind_every);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // Its sender is dropped or says so: either ends the relay.
                    _ = stopped => {}
                    () = proxy.serve(listener) => {}
                    () = rebind_forever(&rebinding, every) => {}
                }
            });
            // A name that is being looked up delays nobody.
            runtime.shutdown_background();
        })?;
        Ok(Relay { shared, url, stop: Some(stop), thread: Some(thread) })
    }

    /// The origin that clients use instead of the server's, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A UDP port of the relay that leads to this address of the server, opened if there is none yet.
    ///
    /// # Errors
    /// [`RelayError::Ports`] and [`RelayError::System`].
    pub fn port_to(&self, server: SocketAddr) -> Result<SocketAddr, RelayError> {
        self.shared.port_to(server)
    }

    /// The links of a direction as they are now.
    pub fn link(&self, direction: Direction) -> LinkOptions {
        let (up, down) = self.shared.links();
        match direction {
            Direction::Up => up,
            Direction::Down => down,
        }
    }

    /// Changes the links of all clients, present and coming. What is on its way leaves as planned. The longest wait is
    /// looked for anew.
    ///
    /// # Errors
    /// Values out of range; nothing is changed then.
    pub fn set_link(&self, direction: Direction, options: LinkOptions) -> Result<(), LinkError> {
        options.check()?;
        self.shared.set_links(|up, down| match direction {
            Direction::Up => *up = options,
            Direction::Down => *down = options,
        });
        Ok(())
    }

    /// Gives every client another port towards the server, as a NAT does that forgot them. What the server sends to the
    /// old ports is lost.
    pub fn rebind(&self) {
        self.shared.rebind();
    }

    /// What was done so far.
    pub fn counts(&self) -> RelayCounts {
        self.shared.counts()
    }

    /// Ends the relay and tells what it did.
    pub fn stop(mut self) -> RelayCounts {
        let counts = self.counts();
        self.end();
        counts
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, which the panic's own message tells.
            let _ = thread.join();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end();
    }
}

async fn rebind_forever(shared: &Shared, every: Option<Duration>) {
    let Some(every) = every.filter(|every| !every.is_zero()) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        shared.rebind();
    }
}

fn origin(target: &str) -> Result<Url, RelayError> {
    let wrong = || RelayError::Target(target.to_owned());
    let url = Url::parse(target).map_err(|_| wrong())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && bare { Ok(url) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_origin() {
        for good in ["http://h", "http://h:8080/", "https://[::1]:1"] {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in ["h:8080", "ftp://h", "http://h/whip", "http://h?a", "http://u@h", "http://", ""] {
            assert!(matches!(origin(bad), Err(RelayError::Target(_))), "{bad}");
        }
    }

    #[test]
    fn an_unspecified_address_needs_one_for_media() {
        let options = RelayOptions { listen: "0.0.0.0:0".parse().unwrap(), ..RelayOptions::default() };
        assert!(matches!(Relay::start(options.clone()), Err(RelayError::MediaAddress)));
        let relay = Relay::start(RelayOptions { media_ip: Some(Ipv4Addr::LOCALHOST.into()), ..options }).unwrap();
        assert!(relay.url().starts_with("http://127.0.0.1:"), "{}", relay.url());
    }
}
