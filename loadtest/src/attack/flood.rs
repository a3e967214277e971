//! A thread that sends datagrams from many sockets at a steady rate, and counts what comes back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use media_core::internals::net::{MediaSocket, ReceiveBatch, SendBatch, TransportTuple};
use tokio::time::MissedTickBehavior;

use super::AttackCounts;

/// Datagrams leave this often.
const INTERVAL: Duration = Duration::from_millis(1);
/// What could not leave in time is made up for up to this much of it.
const MAX_DEBT: Duration = Duration::from_millis(20);
/// Datagrams of one source in a row: so many share a system call.
const RUN: usize = 16;
/// Calls of recvmmsg on one socket before the next one's turn.
const RECEIVES: usize = 4;
/// Answers that are still under way when the flood ends are waited for so long.
const LATE: Duration = Duration::from_millis(200);
/// The longest datagram.
pub(super) const MAX_LEN: usize = 1500;

/// Makes the datagrams of a flood.
pub(crate) trait Datagrams: Send + 'static {
    /// Writes the next datagram of a source to the front of `buffer`, which has room for the longest; returns its length, 0
    /// for none.
    fn next(&mut self, source: usize, buffer: &mut [u8]) -> usize;
}

/// A socket and where its datagrams go.
pub(crate) struct Source {
    /// The socket; it is made non-blocking.
    pub(crate) socket: UdpSocket,
    /// The server's address.
    pub(crate) to: SocketAddr,
    /// The server has reason to send there: an authenticated session.
    pub(crate) proven: bool,
    /// It sends; others only receive.
    pub(crate) sends: bool,
}

/// A flood under way. Dropping it stops it.
pub(crate) struct Flood {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<AttackCounts>>,
}

impl Flood {
    /// Sends so many datagrams a second, from the sources by turns.
    ///
    /// # Errors
    /// A thread that cannot be had, or a socket that the runtime refuses.
    pub(crate) fn start(
        name: &str,
        sources: Vec<Source>,
        datagrams: impl Datagrams,
        per_second: u32,
    ) -> io::Result<Flood> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sockets = {
            let _inside = runtime.enter();
            sources.into_iter().map(Emitter::new).collect::<io::Result<Vec<_>>>()?
        };
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let name: String = name.chars().take(15).collect();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || runtime.block_on(flood(sockets, datagrams, per_second, &stop)))?;
        Ok(Flood { stopped, thread: Some(thread) })
    }

    /// Stops it and tells what happened.
    pub(crate) fn stop(mut self) -> AttackCounts {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<AttackCounts> {
        self.stopped.store(true, Ordering::Relaxed);
        // A thread that panicked has already said so.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// One socket of a flood and its counts.
struct Emitter {
    socket: MediaSocket,
    tuple: TransportTuple,
    proven: bool,
    sends: bool,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
}

impl Emitter {
    fn new(source: Source) -> io::Result<Emitter> {
        let Source { socket, to, proven, sends } = source;
        socket.set_nonblocking(true)?;
        let socket = MediaSocket::register(socket)?;
        let tuple = TransportTuple::udp(to, None);
        Ok(Emitter { socket, tuple, proven, sends, sent_bytes: 0, received: 0, received_bytes: 0 })
    }

    /// Counts what has come.
    fn receive(&mut self, received: &mut ReceiveBatch) {
        for _ in 0..RECEIVES {
            if self.socket.receive(received).is_err() {
                return;
            }
            for datagram in received.iter_mut() {
                self.received += 1;
                self.received_bytes += datagram.length as u64;
            }
        }
    }
}

async fn flood(
    mut emitters: Vec<Emitter>,
    mut datagrams: impl Datagrams,
    per_second: u32,
    stopped: &AtomicBool,
) -> AttackCounts {
    let (mut counts, mut received) = (AttackCounts::default(), ReceiveBatch::new());
    let mut batches: Vec<SendBatch> = emitters.iter().map(|emitter| SendBatch::new(emitter.socket.is_ipv6())).collect();
    let senders: Vec<usize> = (0..emitters.len()).filter(|index| emitters[*index].sends).collect();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut owed, mut turn) = (Instant::now(), 0.0, 0_usize);
    while !stopped.load(Ordering::Relaxed) && !senders.is_empty() {
        ticks.tick().await;
        let now = Instant::now();
        owed += (now - last).min(MAX_DEBT).as_secs_f64() * f64::from(per_second);
        last = now;
        while owed >= 1.0 {
            let index = senders[turn % senders.len()];
            turn += 1;
            let (Emitter { socket, tuple, sent_bytes, .. }, batch) = (&mut emitters[index], &mut batches[index]);
            for _ in 0..RUN.min(owed as usize) {
                owed -= 1.0;
                if batch.room() < MAX_LEN {
                    break;
                }
                let length = datagrams.next(index, batch.spare());
                batch.commit(*tuple, length);
            }
            let report = socket.send(batch);
            *sent_bytes += report.bytes;
            counts.datagrams += report.sent;
            counts.datagram_bytes += report.bytes;
            counts.refused += report.dropped;
        }
        emitters.iter_mut().for_each(|emitter| emitter.receive(&mut received));
    }
    let end = Instant::now() + LATE;
    while Instant::now() < end {
        ticks.tick().await;
        emitters.iter_mut().for_each(|emitter| emitter.receive(&mut received));
    }
    for emitter in &emitters {
        if emitter.proven {
            counts.received += emitter.received;
        } else {
            counts.note_unproven(emitter.sent_bytes, emitter.received, emitter.received_bytes);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers(u8);

    impl Datagrams for Numbers {
        fn next(&mut self, source: usize, buffer: &mut [u8]) -> usize {
            self.0 = self.0.wrapping_add(1);
            buffer[..2].copy_from_slice(&[source as u8, self.0]);
            100
        }
    }

    fn source(to: SocketAddr, proven: bool, sends: bool) -> Source {
        Source { socket: MediaSocket::bind(to.ip(), 0).unwrap(), to, proven, sends }
    }

    #[test]
    fn a_flood_keeps_its_rate_and_counts_what_comes_back() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = server.local_addr().unwrap();
        let sources = vec![source(to, false, true), source(to, true, true), source(to, false, false)];
        let flood = Flood::start("test", sources, Numbers(0), 5_000).unwrap();
        let begun = Instant::now();
        let (mut buffer, mut echoed, mut seen) = ([0; 2048], 0_u64, [0_u64; 3]);
        while begun.elapsed() < Duration::from_millis(400) {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(length, 100);
            seen[usize::from(buffer[0])] += 1;
            // Twice as much for the first stranger as it sent.
            if buffer[0] == 0 && echoed < 50 {
                echoed += 1;
                server.send_to(&buffer[..100], from).unwrap();
                server.send_to(&buffer[..100], from).unwrap();
            }
        }
        let counts = flood.stop();
        assert!(seen[0] > 0 && seen[1] > 0 && seen[2] == 0, "{seen:?}");
        let per_second = counts.datagrams as f64 / begun.elapsed().as_secs_f64();
        assert!((500.0..6_000.0).contains(&per_second), "{per_second}: {counts:?}");
        assert_eq!((counts.datagram_bytes, counts.returned, counts.received), (counts.datagrams * 100, 2 * echoed, 0));
        assert!(counts.amplification > 0.0 && counts.amplification <= 2.0, "{counts:?}");
    }
}
