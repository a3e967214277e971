//! Supervision: a thread of its own that looks after all others. What can be mended is; what cannot ends the process, so that
//! systemd or Kubernetes starts it again.

mod health;
mod part;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use media_core::{BEAT, MediaCore, Pulse};

pub use self::health::{Failing, Health};
pub use self::part::Part;
use self::watch::{Fault, Finding, GIVEN_UP_AFTER, LOOK, Sign, Watch};
use crate::metrics::Metrics;
use crate::service_manager::ServiceManager;
use crate::telemetry::Telemetry;

/// The exit code where a part does not come back (EX_SOFTWARE of sysexits).
const GIVEN_UP: i32 = 70;

/// The log gets this long to be written before that.
const LAST_LINES: Duration = Duration::from_millis(500);

/// An orderly exit gets this long: what does not come back may hold what it needs.
const EXIT: Duration = Duration::from_secs(1);

/// A running supervisor. Dropping it ends it.
pub struct Supervisor {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Whom the supervisor tells, and by what it mends.
pub struct Means {
    /// Its threads can be replaced.
    pub core: MediaCore,
    /// For alerts.
    pub metrics: Arc<Metrics>,
    /// For `/healthz` and `/readyz`.
    pub health: Health,
    /// Its watchdog.
    pub service_manager: Arc<ServiceManager>,
    /// To be written before the process is given up.
    pub telemetry: Telemetry,
}

impl Supervisor {
    /// Begins to look after these parts, each of which has to beat every [`BEAT`].
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(parts: Vec<Part>, means: Means) -> std::io::Result<Supervisor> {
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let now = Instant::now();
        let watches = parts.iter().map(|part| Watch::new(now, part.remedy())).collect();
        let mut rounds = Rounds { parts, watches, means, pinged: None };
        let thread = std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                rounds.look(Instant::now());
                std::thread::park_timeout(LOOK);
            }
        })?;
        Ok(Supervisor { is_over, thread: Some(thread) })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ended = thread.join();
        }
    }
}

/// What the supervisor's thread owns.
struct Rounds {
    parts: Vec<Part>,
    watches: Vec<Watch>,
    means: Means,
    pinged: Option<Instant>,
}

impl Rounds {
    fn look(&mut self, now: Instant) {
        let mut failing = Vec::new();
        for (part, watch) in self.parts.iter().zip(&mut self.watches) {
            let sign = Sign { beats: part.pulse.beats(), panics: part.pulse.panics() };
            for finding in watch.look(now, sign) {
                act(part, finding, &self.means);
            }
            let fault = watch.fault(now);
            self.means.metrics.set_part(&part.name, fault.is_none(), sign.panics);
            failing.extend(fault.map(|fault| Failing { part: part.name.clone(), fault: describe(fault) }));
        }
        self.means.health.set(failing);
        // Of a part that panicked and goes on nobody has to restart the process.
        let is_well = !self.watches.iter().any(Watch::is_missed);
        if let Some(interval) = self.means.service_manager.watchdog()
            && is_well
            && self.pinged.is_none_or(|pinged| now.saturating_duration_since(pinged) >= interval / 3)
        {
            self.means.service_manager.ping();
            self.pinged = Some(now);
        }
    }
}

fn describe(fault: Fault) -> String {
    match fault {
        Fault::Silent(time) => format!("no sign of life for {:.1} s", time.as_secs_f64()),
        Fault::Panicked(ago) => format!("panicked {:.1} s ago and goes on", ago.as_secs_f64()),
    }
}

/// Does what is to be done about a part.
fn act(part: &Part, finding: Finding, means: &Means) {
    let name = part.name.as_str();
    match finding {
        Finding::Missed => tracing::warn!(part = name, "no sign of life: it is stuck, or the machine is overloaded"),
        Finding::Returned => tracing::info!(part = name, "lives again"),
        Finding::Panicked(times) => {
            tracing::error!(part = name, times, "panicked and goes on; the panic's line says where")
        }
        Finding::Replace => {
            let replaced = part.thread.is_some_and(|thread| means.core.replace_thread(thread));
            if replaced {
                means.metrics.thread_replaced();
            }
            tracing::error!(part = name, replaced, "does not come back: another thread takes its place");
        }
        Finding::Lost => give_up(name, &means.telemetry),
    }
}

/// Ends the process: whoever started it is to start it again.
fn give_up(part: &str, telemetry: &Telemetry) -> ! {
    let seconds = GIVEN_UP_AFTER.as_secs();
    tracing::error!(part, seconds, "does not come back: the process ends, to be started again");
    telemetry.flush(LAST_LINES);
    // What runs at an orderly exit may wait for what does not come back.
    let _ = std::thread::Builder::new().name("exit".to_owned()).spawn(|| std::process::exit(GIVEN_UP));
    std::thread::sleep(EXIT);
    std::process::abort()
}

/// Beats for control: as long as its threads have time for a task.
pub async fn beat(pulse: Arc<Pulse>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        pulse.beat();
    }
}
