//! Reads the configuration again while the server runs: all of it counts from then on, or nothing has changed.

use std::sync::{Arc, PoisonError, RwLock};

use media_core::MediaCore;
use serde::Serialize;
use signaling::Signaling;
use tokio::sync::{Mutex, watch};

use crate::admin_access::Rules;
use crate::config::Settings;
use crate::config::addresses::{AddressSource, Found, Reading};
use crate::config::load::{LoadError, load};
use crate::config::resolve::{Machine, Resolved, resolve};
use crate::follow::Advertised;
use crate::metrics::Metrics;
use crate::service_manager::ServiceManager;
use crate::telemetry::Telemetry;
use crate::tls::Tls;

/// Settings that need a restart: sockets, threads, and what was built into the routes.
pub const NEED_RESTART: &[&str] = &[
    "admin_listen",
    "cache_memory",
    "dscp_audio",
    "dscp_video",
    "handshake_threads",
    "http_listen",
    "http_redirect",
    "ice_tcp",
    "ice_tcp_on_http",
    "l4s",
    "lan",
    "log_format",
    "max_connections",
    "max_connections_per_address",
    "max_ice_tcp_connections",
    "media_ip",
    "media_port",
    "public_url",
    "shards",
    "slash_names",
];

/// Where the public addresses come from, and what they are.
pub(crate) type Addresses = (AddressSource, Reading);

/// What a reload did. Files that settings name, such as the token file, are always read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Settings whose new value counts now.
    pub applied: Vec<&'static str>,
    /// Settings whose new value counts after a restart.
    pub needs_restart: Vec<&'static str>,
    /// Things that are allowed but deserve a word.
    pub warnings: Vec<String>,
}

/// The configuration cannot be read or served; the text names key, value and what is allowed. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Reloads, one at a time.
pub struct Reloader {
    one_at_a_time: Mutex<()>,
    /// As they count now.
    settings: RwLock<Settings>,
    parts: Parts,
}

/// What takes new settings.
pub(crate) struct Parts {
    pub(crate) signaling: Arc<Signaling>,
    pub(crate) core: MediaCore,
    pub(crate) addresses: watch::Sender<Addresses>,
    pub(crate) advertised: Advertised,
    pub(crate) admin_rules: Rules,
    pub(crate) tls: Arc<Tls>,
    /// Tells whoever waits to try something again.
    pub(crate) again: watch::Sender<()>,
    pub(crate) telemetry: Telemetry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) service_manager: Arc<ServiceManager>,
}

impl Reloader {
    /// For a server that runs with these settings.
    pub(crate) fn new(settings: Settings, parts: Parts) -> Reloader {
        Reloader { one_at_a_time: Mutex::default(), settings: RwLock::new(settings), parts }
    }

    /// The settings as they count now.
    pub fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads command line, environment and files as at the start. `cause` is for the log.
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn reload(&self, cause: &'static str) -> Result<Report, Refused> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        if self.parts.signaling.registry().is_draining() {
            return Err(Refused("the server is about to stop".to_owned()));
        }
        self.parts.service_manager.reloading();
        let running = self.settings();
        let known = self.parts.advertised.reading().found;
        // Files are read, names looked up and STUN servers asked.
        let read = tokio::task::spawn_blocking(move || read(&running, known)).await;
        let result = read.unwrap_or_else(|error| Err(Refused(format!("a bug, please report it: {error}"))));
        let result = result.and_then(|Read { settings: new, resolved, report }| {
            // The one part that may still refuse comes first.
            self.parts.tls.set(resolved.tls.clone()).map_err(|error| Refused(error.to_string()))?;
            self.apply(&new, resolved);
            *self.settings.write().unwrap_or_else(PoisonError::into_inner) = new;
            Ok(report)
        });
        self.parts.metrics.reloaded(result.is_ok());
        self.parts.service_manager.ready();
        match &result {
            Ok(Report { applied, needs_restart, warnings }) => {
                let (applied, needs_restart) = (applied.join(" "), needs_restart.join(" "));
                tracing::info!(cause, applied, needs_restart, "configuration read again");
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => tracing::warn!(cause, %error, "the configuration is wrong, and nothing of it counts"),
        }
        result
    }

    fn apply(&self, settings: &Settings, Resolved { core, addresses, reading, signaling, admin_access, .. }: Resolved) {
        let parts = &self.parts;
        parts.core.set_timeouts(&core);
        parts.core.set_public_addresses(&core.public_addresses);
        parts.addresses.send_replace((addresses, reading));
        parts.signaling.reconfigure(signaling);
        *parts.admin_rules.write().unwrap_or_else(PoisonError::into_inner) = admin_access;
        parts.telemetry.set_filter(&settings.log);
        parts.again.send_replace(());
    }
}

/// A configuration that can be served as it stands.
struct Read {
    settings: Settings,
    resolved: Resolved,
    report: Report,
}

fn read(running: &Settings, known: Vec<Found>) -> Result<Read, Refused> {
    let loaded = load(std::env::args_os(), std::env::vars_os());
    let (LoadError::Information(text) | LoadError::Wrong(text)) = match loaded {
        Ok(loaded) => return judge(running, loaded.settings, known),
        Err(error) => error,
    };
    Err(Refused(text))
}

/// What is read must be good for a restart, and what counts now, with the old values where a restart is needed, must be good too:
/// without tokens the server may serve loopback, but not the address that it still listens on.
fn judge(running: &Settings, read: Settings, known: Vec<Found>) -> Result<Read, Refused> {
    let machine = Machine { known, ..Machine::look() };
    let check = |settings: &Settings| resolve(settings, &machine).map_err(|error| Refused(error.to_string()));
    let resolved = check(&read)?;
    let changed = running.changed(&read);
    let (needs_restart, applied): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| NEED_RESTART.contains(key));
    let mut settings = read;
    settings.keep(running, &needs_restart);
    // Others are asked once.
    let resolved = if needs_restart.is_empty() { resolved } else { check(&settings)? };
    let report = Report { applied, needs_restart, warnings: resolved.warnings.clone() };
    Ok(Read { settings, resolved, report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    /// Of sockets and threads most settings need a restart; these do not. Of everything else none does, unless it is named.
    const APPLIED: &[&str] = &[
        "admin_hosts",
        "admin_token",
        "admin_token_file",
        "cors_origins",
        "http_hosts",
        "ice",
        "ice_private_candidates",
        "public_ip",
        "publisher_bitrate",
        "publisher_packet_rate",
        "trusted_proxies",
        "viewer_bitrate",
        "viewer_packet_rate",
    ];

    #[test]
    fn of_every_setting_of_a_socket_or_thread_it_is_known_whether_it_needs_a_restart() {
        for key in NEED_RESTART.iter().chain(APPLIED) {
            assert!(SETTINGS.iter().any(|info| info.key == *key), "{key}");
        }
        for info in SETTINGS.iter().filter(|info| matches!(info.heading, "HTTP" | "Media")) {
            assert!(NEED_RESTART.contains(&info.key) != APPLIED.contains(&info.key), "{}", info.key);
        }
    }

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_is_named_and_the_rest_counts() {
        let running = Settings { public_ip: vec!["203.0.113.7".parse().unwrap()], ..Settings::default() };
        let read = Settings { max_sessions: 7, http_listen: "127.0.0.1:9".parse().unwrap(), ..running.clone() };
        let read = judge(&running, read, Vec::new()).unwrap();
        assert_eq!((read.report.applied, read.report.needs_restart), (vec!["max_sessions"], vec!["http_listen"]));
        assert_eq!((read.settings.max_sessions, read.settings.http_listen), (7, running.http_listen));
        assert_eq!(read.resolved.signaling.limits.max_sessions, 7);
    }

    #[test]
    fn a_reload_never_opens_an_address_that_the_new_configuration_would_not_listen_on() {
        let running = Settings {
            http_listen: "0.0.0.0:8080".parse().unwrap(),
            token: vec!["*=x".parse().unwrap()],
            public_ip: vec!["203.0.113.7".parse().unwrap()],
            ..Settings::default()
        };
        // By itself it is good: loopback needs no token.
        let read = Settings { http_listen: Settings::default().http_listen, token: Vec::new(), ..running.clone() };
        assert!(resolve(&read, &Machine::look()).is_ok());
        let refused = judge(&running, read, Vec::new()).err().unwrap();
        assert!(refused.0.starts_with("http_listen: 0.0.0.0:8080 can be reached by others"), "{refused}");
    }
}
