//! Structured logs to stderr, which neither fail nor delay whoever writes them.

mod panics;
mod queue;

use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

pub use self::panics::count as panics;
pub use self::queue::LogQueue;
use crate::config::values::{LogFilter, LogFormat};

/// The ICE library reports every step of every session as information; a filter that names it gets that back.
const QUIET: &str = "webrtc_ice=warn";

/// The log of this process.
#[derive(Clone, Debug)]
pub struct Telemetry {
    queue: LogQueue,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Telemetry {
    /// Begins logging, of panics as well. A second call in one process changes nothing.
    pub fn start(queue: LogQueue, filter: &LogFilter, format: LogFormat) -> Telemetry {
        let (filter, handle) = reload::Layer::new(env_filter(filter));
        // What cannot be formatted is lost: the library would print its complaint to stderr, which may fail.
        let lines = fmt::layer().with_writer(queue.clone()).log_internal_errors(false);
        let lines = match format {
            LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        // An error here means that a subscriber already stands, as in tests.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        panics::report();
        Telemetry { queue, filter: handle }
    }

    /// From now on this is logged.
    pub fn set_filter(&self, filter: &LogFilter) {
        // It fails only where the subscriber is gone, which is never.
        let _ = self.filter.reload(env_filter(filter));
    }

    /// Waits until all lines are written, but not longer than that.
    pub fn flush(&self, within: Duration) {
        self.queue.flush(within);
    }

    /// How many lines nobody will read.
    pub fn lost_lines(&self) -> u64 {
        self.queue.lost()
    }
}

fn env_filter(filter: &LogFilter) -> EnvFilter {
    // It was checked when the configuration was read.
    EnvFilter::try_new(format!("{QUIET},{filter}")).unwrap_or_else(|_| EnvFilter::new("info"))
}
