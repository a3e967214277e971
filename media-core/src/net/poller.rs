//! Which of many TCP connections has something to be read, or room to be written to: an epoll of a shard's own, which its runtime
//! sees as one file. A task for each connection would have to share the shard's state with the others.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Events of one look.
const EVENTS: usize = 64;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing but the end of the connection.
    Nothing,
    /// Something to read.
    Input,
    /// The same, and room to write.
    InputAndRoom,
}

impl Wanted {
    fn flags(self) -> EventFlags {
        match self {
            Wanted::Nothing => EventFlags::empty(),
            Wanted::Input => EventFlags::IN,
            Wanted::InputAndRoom => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// One file that is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: u64,
    /// Something, or the end of the connection, is to be read.
    pub(super) input: bool,
    pub(super) room: bool,
}

/// The epoll of one shard.
pub struct Poller {
    epoll: AsyncFd<OwnedFd>,
}

impl Poller {
    /// One without files, in the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor names one file, its own, for as long as it lives; nothing of ours closes it.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Poller { epoll })
    }

    /// Waits until some file is ready.
    pub async fn ready(&self) -> io::Result<()> {
        self.epoll.readable().await.map(|mut ready| ready.retain_ready())
    }

    pub(super) fn add(&self, file: impl AsFd, token: u64, wanted: Wanted) -> io::Result<()> {
        Ok(epoll::add(self.epoll.get_ref(), file, EventData::new_u64(token), wanted.flags())?)
    }

    pub(super) fn modify(&self, file: impl AsFd, token: u64, wanted: Wanted) -> io::Result<()> {
        Ok(epoll::modify(self.epoll.get_ref(), file, EventData::new_u64(token), wanted.flags())?)
    }

    /// Fills `ready` with files that are, in turns where there are many. A file comes again as long as it is ready.
    pub(super) fn look(&self, ready: &mut Vec<Ready>) {
        ready.clear();
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let found = self.epoll.try_io(Interest::READABLE, |epoll| {
            let found = epoll::wait(epoll, &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            // Told to the runtime, so that it waits for the next one.
            if found == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(found) }
        });
        let ends = EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        ready.extend(events[..found.unwrap_or(0)].iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                input: flags.intersects(EventFlags::IN | ends),
                room: flags.contains(EventFlags::OUT),
            }
        }));
    }
}
