//! Structured logs to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::values::{LogFilter, LogFormat};

/// The ICE library reports every step of every session as information; a filter that names it gets that back.
const QUIET: &str = "webrtc_ice=warn";

/// Begins logging. A second call in one process changes nothing.
pub fn start(filter: &LogFilter, format: LogFormat) {
    // The filter was checked when the configuration was read.
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error here means that a subscriber already stands, as in tests.
    let _ = match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
