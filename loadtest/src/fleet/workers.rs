//! The threads of the clients.

use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Threads, each with a runtime of its own: clients of one thread share nothing with those of another.
pub(super) struct Workers {
    pub(super) handles: Vec<Handle>,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// By name and nice value.
    pub(super) fn start(names: impl IntoIterator<Item = (String, i32)>) -> std::io::Result<Workers> {
        let mut workers = Workers { handles: Vec::new(), stops: Vec::new(), threads: Vec::new() };
        for (name, niceness) in names {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel::<()>();
            workers.handles.push(runtime.handle().clone());
            workers.stops.push(stop);
            let thread = std::thread::Builder::new().name(name);
            workers.threads.push(thread.spawn(move || {
                // Of this thread alone. A refusal leaves it as it is.
                let _ = rustix::process::setpriority_process(None, niceness);
                // The sender's end is the signal, whether it sends or is dropped.
                drop(runtime.block_on(stopped));
            })?);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // A panic in a client's task stays in the task.
            let _ = thread.join();
        }
    }
}
