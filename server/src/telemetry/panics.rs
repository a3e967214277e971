//! Panics go to the log, and are counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

/// Panics since the start. The hook is the process's, and so is this.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics there were.
pub fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// From now on a panic is a line of the log: the hook of the standard library would wait for whoever reads stderr.
pub(super) fn report() {
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(thread = thread.name(), place, trace, "a bug, please report it: panic: {}", message(info));
    }));
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}
