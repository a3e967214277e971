//! Threads that receive for many clients: one epoll loop each, and nothing in it but reading and counting.
//!
//! A task for each client would be woken for each frame; its timers, channels and connection state are cold by then, and
//! cost more than the packets do.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media_core::internals::net::RunBatch;
use rustix::event::{EventfdFlags, epoll, eventfd};
use tokio::sync::Notify;

/// Sockets that one wake-up serves at most.
const EVENTS: usize = 1024;
/// After each wake-up the thread rests, so that many sockets have something at the next one, and senders seldom find it
/// asleep. What arrives meanwhile bears the system's own time of arrival.
const REST: Duration = Duration::from_millis(2);
/// A time of arrival further back than this is no delay: the wall clock was set.
const OLDEST: Duration = Duration::from_secs(10);
/// The event that wakes the thread to end.
const END: u64 = 0;

/// One moment on both clocks: the system stamps arrivals by the wall clock, everything else goes by the monotonic one.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    now: Instant,
    wall: Duration,
}

impl Moment {
    pub(crate) fn read() -> Moment {
        Moment { now: Instant::now(), wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// When something arrived that the system stamped so; now if it did not.
    pub(crate) fn arrival(&self, received: Option<Duration>) -> Instant {
        let delay = received.map_or(Duration::ZERO, |received| self.wall.saturating_sub(received));
        if delay > OLDEST { self.now } else { self.now.checked_sub(delay).unwrap_or(self.now) }
    }
}

/// Where a socket's datagrams go.
pub(crate) trait DatagramSink: Send {
    /// Takes what one call of the system brought. True if the client's own task has something to do about it.
    fn take_batch(&mut self, moment: Moment, batch: &mut RunBatch) -> bool;
}

/// A socket, and where its datagrams go.
struct Registration {
    socket: UdpSocket,
    sink: Arc<Mutex<dyn DatagramSink>>,
    task: Arc<Notify>,
}

/// What the thread and the handles share.
struct Shared {
    epoll: OwnedFd,
    end: OwnedFd,
    ended: AtomicBool,
    next: AtomicU64,
    registered: Mutex<HashMap<u64, Arc<Registration>>>,
}

/// A thread that receives. Dropping it ends the thread; sockets that it still has are read no more.
pub struct ReceptionThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Gives sockets to a [`ReceptionThread`].
#[derive(Clone)]
pub struct Reception(Arc<Shared>);

/// A socket that a thread reads, until this is dropped.
pub(crate) struct LentSocket {
    shared: Arc<Shared>,
    id: u64,
    registration: Arc<Registration>,
}

impl ReceptionThread {
    /// Starts a thread of this name and nice value.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start(name: String, niceness: i32) -> io::Result<ReceptionThread> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &end, epoll::EventData::new_u64(END), epoll::EventFlags::IN)?;
        let (ended, next, registered) = (AtomicBool::new(false), AtomicU64::new(END + 1), Mutex::default());
        let shared = Arc::new(Shared { epoll, end, ended, next, registered });
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name).spawn(move || {
            // A refusal leaves it as it is.
            let _ = rustix::process::setpriority_process(None, niceness);
            worker.work();
        })?;
        Ok(ReceptionThread { shared, thread: Some(thread) })
    }

    /// A handle for clients.
    pub fn handle(&self) -> Reception {
        Reception(Arc::clone(&self.shared))
    }
}

impl Drop for ReceptionThread {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // It fails only if the thread was woken for it before.
        let _ = rustix::io::write(&self.shared.end, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already said so.
            let _ = thread.join();
        }
    }
}

impl Reception {
    /// Lets the thread read a non-blocking socket; `task` is notified when `sink` says so.
    pub(crate) fn lend(
        &self,
        socket: UdpSocket,
        sink: Arc<Mutex<dyn DatagramSink>>,
        task: Arc<Notify>,
    ) -> io::Result<LentSocket> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let registration = Arc::new(Registration { socket, sink, task });
        self.0.registered().insert(id, Arc::clone(&registration));
        let lent = LentSocket { shared: Arc::clone(&self.0), id, registration };
        // By edges: each read empties the socket, and the system need not look again whether it did.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.0.epoll, &lent.registration.socket, epoll::EventData::new_u64(id), flags)?;
        Ok(lent)
    }
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reception").finish_non_exhaustive()
    }
}

impl LentSocket {
    /// For sending.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.registration.socket
    }

    /// Waits until the thread has something for the client's task.
    pub(crate) async fn notified(&self) {
        self.registration.task.notified().await;
    }
}

impl Drop for LentSocket {
    fn drop(&mut self) {
        // It is not there if it could not be added.
        let _ = epoll::delete(&self.shared.epoll, &self.registration.socket);
        self.shared.registered().remove(&self.id);
    }
}

impl Shared {
    fn registered(&self) -> MutexGuard<'_, HashMap<u64, Arc<Registration>>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut batch = RunBatch::new();
        let nothing = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(END) };
        let mut events = vec![nothing; EVENTS];
        let mut ready = Vec::with_capacity(EVENTS);
        while !self.ended.load(Ordering::Relaxed) {
            let count = match epoll::wait(&self.epoll, &mut events[..], None) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            };
            {
                let registered = self.registered();
                ready.extend(events[..count].iter().filter_map(|event| registered.get(&{ event.data }.u64()).cloned()));
            }
            for registration in ready.drain(..) {
                registration.read(&mut batch);
            }
            thread::sleep(REST);
        }
    }
}

impl Registration {
    fn read(&self, batch: &mut RunBatch) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = false;
        while let Ok(more) = batch.receive(&self.socket) {
            busy |= sink.take_batch(Moment::read(), batch);
            if !more {
                break;
            }
        }
        if busy {
            self.task.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_found_on_the_other_clock() {
        let moment = Moment::read();
        let before = |delay| moment.arrival(Some(moment.wall - delay));
        assert_eq!(before(Duration::from_millis(3)), moment.now - Duration::from_millis(3));
        assert_eq!(moment.arrival(None), moment.now);
        assert_eq!(moment.arrival(Some(moment.wall + Duration::from_secs(1))), moment.now, "the clock was set back");
        assert_eq!(before(Duration::from_secs(3600)), moment.now, "the clock was set forward");
    }

    #[derive(Default)]
    struct Counted(Vec<Vec<u8>>);

    impl DatagramSink for Counted {
        fn take_batch(&mut self, _: Moment, batch: &mut RunBatch) -> bool {
            for mut run in batch.iter_mut() {
                self.0.extend(run.datagrams().map(|datagram| datagram.to_vec()));
            }
            self.0.len() >= 20
        }
    }

    #[tokio::test]
    async fn a_thread_reads_the_sockets_that_it_was_lent() {
        let thread = ReceptionThread::start("reception".into(), 0).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (task, mut lent) = (Arc::new(Notify::new()), Vec::new());
        let counted: Vec<_> = (0..2).map(|_| Arc::new(Mutex::new(Counted::default()))).collect();
        for sink in &counted {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            // Packets received before count, too.
            sender.send_to(&[9], socket.local_addr().unwrap()).unwrap();
            lent.push(thread.handle().lend(socket, sink.clone(), task.clone()).unwrap());
        }
        for number in 1..20 {
            sender.send_to(&[number], lent[0].socket().local_addr().unwrap()).unwrap();
        }
        tokio::time::timeout(Duration::from_secs(10), task.notified()).await.unwrap();
        let seen: Vec<u8> = counted[0].lock().unwrap().0.iter().map(|datagram| datagram[0]).collect();
        assert_eq!(seen, [&[9], &(1..20).collect::<Vec<u8>>()[..]].concat());
        // Its end waits for the thread, which has then read the other socket as well.
        drop(thread);
        assert_eq!(counted[1].lock().unwrap().0, [[9]]);
        drop(lent);
    }
}
