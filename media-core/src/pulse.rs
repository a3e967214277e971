//! Signs of life: what a supervisor sees of a thread or task that runs by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::spec::ShardIndex;

/// A part that lives beats this often, whether or not it has work.
pub const BEAT: Duration = Duration::from_millis(100);

/// The signs of life of one part. Plain counters: whether too much time has passed is for the supervisor to say.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    panics: AtomicU64,
}

impl Pulse {
    /// The part is there.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// The part panicked, and goes on.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has beaten.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// How often it has panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// A thread of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CoreThread {
    /// A shard, which carries the sessions that are placed on it.
    Shard(ShardIndex),
    /// A handshake thread, by its number.
    Handshake(usize),
}

/// A thread of the core and its signs of life.
#[derive(Clone, Debug)]
pub struct Vital {
    /// Which.
    pub thread: CoreThread,
    /// Its signs of life, which a thread in its place goes on with.
    pub pulse: Arc<Pulse>,
}

/// What a test does to a thread or task.
#[cfg(feature = "fault-injection")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Fault {
    /// It panics.
    Panic,
    /// It never comes back.
    Freeze,
}

#[cfg(feature = "fault-injection")]
impl Fault {
    /// Strikes the calling thread.
    ///
    /// # Panics
    /// That is one of its faults.
    pub fn strike(self) {
        match self {
            Fault::Panic => panic!("injected"),
            Fault::Freeze => loop {
                std::thread::park();
            },
        }
    }
}
