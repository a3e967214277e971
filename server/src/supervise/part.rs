//! The parts of the process that run by themselves.

use std::sync::Arc;

use media_core::{CoreThread, MediaCore, Pulse, Vital};

/// What helps a part that does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Another thread in its place.
    Replace,
    /// Nothing inside this process.
    None,
}

/// A part and its signs of life.
#[derive(Debug)]
pub struct Part {
    /// As the metrics, the log and the problem documents name it.
    pub(super) name: String,
    pub(super) pulse: Arc<Pulse>,
    /// Its thread, if it is one of the core's.
    pub(super) thread: Option<CoreThread>,
}

impl Part {
    /// All threads of the core.
    pub fn of_core(core: &MediaCore) -> Vec<Part> {
        let part = |Vital { thread, pulse }| {
            let name = match thread {
                CoreThread::Shard(index) => format!("shard-{index}"),
                CoreThread::Handshake(index) => format!("handshake-thread-{index}"),
            };
            Part { name, pulse, thread: Some(thread) }
        };
        core.vitals().into_iter().map(part).collect()
    }

    /// A task of control.
    pub fn task(name: &str, pulse: Arc<Pulse>) -> Part {
        Part { name: name.to_owned(), pulse, thread: None }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self.thread {
            Some(CoreThread::Handshake(_)) => Remedy::Replace,
            Some(CoreThread::Shard(_)) | None => Remedy::None,
        }
    }
}
