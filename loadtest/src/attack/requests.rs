//! A thread that makes connections and requests at a steady rate, and counts what is answered.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reqwest::RequestBuilder;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use super::target::{attackers, client};
use super::{AttackCounts, AttackError, Target};

/// Turns come this often.
const INTERVAL: Duration = Duration::from_millis(10);
/// What could not be done in time is made up for up to this much of it.
const MAX_DEBT: Duration = Duration::from_millis(200);
/// Requests that wait for their answers; more are not made.
const IN_FLIGHT: usize = 256;

/// Connections or requests under way. Dropping it stops them.
pub(crate) struct Requests {
    stop: watch::Sender<bool>,
    tally: Tally,
    thread: Option<JoinHandle<()>>,
}

impl Requests {
    /// Runs `attack` on a thread of its own until it ends, which it does when it has no more turns.
    pub(super) fn start<F: Future<Output = ()>>(
        name: &str,
        per_second: u32,
        attack: impl FnOnce(Turns, Tally) -> F + Send + 'static,
    ) -> Result<Requests, AttackError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let tally = Tally::default();
        let counted = tally.clone();
        let name: String = name.chars().take(15).collect();
        let thread = thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async {
                let mut ticks = tokio::time::interval(INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                attack(Turns { ticks, per_second, owed: 0.0, last: Instant::now(), stopped }, counted).await;
            });
            // Connections and requests that are left end here.
            runtime.shutdown_background();
        })?;
        Ok(Requests { stop, tally, thread: Some(thread) })
    }

    /// Stops it and tells what happened.
    pub(crate) fn stop(mut self) -> AttackCounts {
        self.end();
        self.tally.counts().clone()
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.end();
    }
}

/// When something is due.
pub(super) struct Turns {
    ticks: tokio::time::Interval,
    per_second: u32,
    owed: f64,
    last: Instant,
    stopped: watch::Receiver<bool>,
}

impl Turns {
    /// How many connections or requests are due now; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<usize> {
        tokio::select! {
            _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            _ = self.ticks.tick() => {}
        }
        let now = Instant::now();
        self.owed += (now - self.last).min(MAX_DEBT).as_secs_f64() * f64::from(self.per_second);
        self.last = now;
        let due = self.owed as usize;
        self.owed -= due as f64;
        Some(due)
    }
}

/// What was done, counted from any task.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<AttackCounts>>);

impl Tally {
    pub(super) fn counts(&self) -> MutexGuard<'_, AttackCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request and counts it and its answer; `bytes` is the length of its body. The answer's `Location`, if it has one.
    pub(super) async fn request(&self, request: RequestBuilder, bytes: usize) -> Option<String> {
        {
            let mut counts = self.counts();
            counts.requests += 1;
            counts.request_bytes += bytes as u64;
        }
        let (status, location) = match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16().to_string();
                let location =
                    answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
                // Read to its end, so that the connection serves again.
                let _ = answer.bytes().await;
                (status, location)
            }
            Err(_) => ("none".to_owned(), None),
        };
        *self.counts().answers.entry(status).or_default() += 1;
        location
    }
}

/// HTTP clients at all addresses of the attackers, used by turns.
pub(super) struct Clients {
    clients: Vec<reqwest::Client>,
    turn: usize,
    in_flight: Arc<Semaphore>,
}

impl Clients {
    pub(super) fn new(server: IpAddr) -> Result<Clients, AttackError> {
        let clients = attackers(server).into_iter().map(client).collect::<Result<_, _>>()?;
        Ok(Clients { clients, turn: 0, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) })
    }

    pub(super) fn next(&mut self) -> &reqwest::Client {
        self.turn += 1;
        &self.clients[self.turn % self.clients.len()]
    }

    /// Makes a request in the background, unless too many wait already.
    pub(super) fn spawn(&self, tally: &Tally, request: RequestBuilder, bytes: usize) {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else { return };
        let tally = tally.clone();
        tokio::spawn(async move {
            tally.request(request, bytes).await;
            drop(permit);
        });
    }
}

/// Makes the requests of an attack at its rate: `make` gets a client and gives a request and the length of its body.
pub(super) fn repeated(
    name: &str,
    target: &Target,
    mut make: impl FnMut(&reqwest::Client) -> Option<(RequestBuilder, usize)> + Send + 'static,
) -> Result<Requests, AttackError> {
    let (_, server) = target.http()?;
    let mut clients = Clients::new(server.ip())?;
    Requests::start(name, target.requests, move |mut turns, tally| async move {
        while let Some(due) = turns.next().await {
            for _ in 0..due {
                let Some((request, bytes)) = make(clients.next()) else { continue };
                clients.spawn(&tally, request, bytes);
            }
        }
    })
}

/// An address of an attacker, and a connection from there.
pub(super) async fn connect(from: IpAddr, to: std::net::SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = if to.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    if !from.is_unspecified() {
        socket.bind(std::net::SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_at_the_rate_and_end_when_it_is_stopped() {
        let requests = Requests::start("test", 1000, |mut turns, tally| async move {
            while let Some(due) = turns.next().await {
                tally.counts().requests += due as u64;
            }
            tally.counts().closed = 1;
        });
        let (requests, begun) = (requests.unwrap(), Instant::now());
        thread::sleep(Duration::from_millis(300));
        let counts = requests.stop();
        let most = begun.elapsed().as_secs_f64() * 1000.0 + 1.0;
        assert!(counts.requests > 0 && counts.requests as f64 <= most, "{counts:?}");
        assert_eq!(counts.closed, 1, "it ends in order");
    }
}
