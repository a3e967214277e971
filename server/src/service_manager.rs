//! What systemd is told: that the server is ready, reloads its configuration, stops, and lives (sd_notify(3)).
//!
//! By hand, since the crate `sd-notify` waits where the manager does not read, and knows no abstract sockets.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager; without one every word is for nobody.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names, with the watchdog that `WATCHDOG_USEC` asks for.
    pub fn of_environment() -> ServiceManager {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = socket.and_then(|name| {
            open(&name).inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET cannot be used")).ok()
        });
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_for_us && *micros > 0).map(Duration::from_micros);
        ServiceManager { socket, watchdog }
    }

    /// Within this time it has to be pinged again.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The server serves, with the configuration as it is now.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration is read again.
    pub fn reloading(&self) {
        // The clock's number tells the manager which of two reloads was announced.
        let now = clock_gettime(ClockId::Monotonic);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
    }

    /// The server ends within this time.
    pub fn stopping(&self, within: Duration) {
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", within.as_micros()));
    }

    /// The server lives.
    pub fn ping(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, words: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not read has troubles of its own.
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
