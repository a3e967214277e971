//! A running relay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Url;
use tokio::sync::oneshot;

use super::link_options::{LinkError, LinkOptions};
use super::options::{Direction, RelayCounts, RelayError, RelayOptions};
use super::proxy::Proxy;
use super::udp::RelayState;

/// A running relay, on a thread of its own. Dropping it ends it.
pub struct Relay {
    shared: Arc<RelayState>,
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
        let shared = Arc::new(RelayState::new(&options, media_ip, runtime.handle().clone()));
        let proxy = Proxy::new(target, Arc::clone(&shared))?;
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

    /// Changes the links of all clients, present and later ones. What is on its way leaves as planned. The longest wait is
    /// counted from 0 again.
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

async fn rebind_forever(shared: &RelayState, every: Option<Duration>) {
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
    use std::net::Ipv4Addr;

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
