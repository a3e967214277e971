//! Attacks by turns, and scrapes, in the background of a soak.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::attack::{Assault, Attack, AttackCounts, Target};
use crate::measure::scrape::Scrape;

/// From one scrape to the next.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// What attackers did in a soak.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RotationFigures {
    /// Turns that attacks had.
    pub turns: u64,
    /// What was sent and what came back.
    pub counts: AttackCounts,
    /// Attackers that could not do what everybody may, by what they were told.
    pub refused: BTreeMap<String, u64>,
}

/// Attacks by turns. Dropping it ends them.
pub(super) struct Rotation {
    stop: watch::Sender<bool>,
    task: JoinHandle<RotationFigures>,
}

impl Rotation {
    /// Each attack lasts so long; after the last one the first has its turn again.
    pub(super) fn start(attacks: Vec<Attack>, each: Duration, target: Target) -> Rotation {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut figures = RotationFigures::default();
            for attack in attacks.iter().copied().cycle() {
                if *stopped.borrow() {
                    break;
                }
                let begun = Instant::now();
                let assault = Assault::start(attack, &target).await;
                let rest = each.saturating_sub(begun.elapsed());
                // Either end of the waiting is as good.
                let _ = tokio::time::timeout(rest, stopped.wait_for(|stopped| *stopped)).await;
                match assault {
                    Ok(assault) => {
                        figures.turns += 1;
                        figures.counts.add(&assault.stop().await);
                    }
                    Err(error) => *figures.refused.entry(format!("{attack}: {error}")).or_default() += 1,
                }
            }
            figures
        });
        Rotation { stop, task }
    }

    /// Ends the attack under way and sums up.
    pub(super) async fn end(self) -> RotationFigures {
        self.stop.send_replace(true);
        // It fails only if it panicked, and then nothing is known.
        self.task.await.unwrap_or_default()
    }
}

/// What reading the server's metrics and sessions was like in a soak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ScrapeFigures {
    /// Scrapes that were answered.
    pub answered: u64,
    /// Those that were not.
    pub failed: u64,
    /// The one that took longest, in ms.
    pub slowest_ms: f64,
}

impl ScrapeFigures {
    fn note(&mut self, answered: bool, took: Duration) {
        self.answered += u64::from(answered);
        self.failed += u64::from(!answered);
        self.slowest_ms = self.slowest_ms.max(took.as_secs_f64() * 1000.0);
    }
}

/// What scrapes brought.
#[derive(Clone, Debug, Default)]
pub(super) struct Scraped {
    pub(super) figures: ScrapeFigures,
    /// Bytes of the heap that were in use, if the server says so, and when, in seconds since the test's begin.
    pub(super) heap: Vec<(f64, u64)>,
}

impl Scraped {
    fn note(&mut self, at: f64, took: Duration, scrape: Option<&Scrape>) {
        self.figures.note(scrape.is_some(), took);
        self.heap.extend(scrape.and_then(Scrape::heap_in_use).map(|bytes| (at, bytes)));
    }
}

/// Scrapes once a second until it ends.
pub(super) struct Scrapes {
    scraped: Arc<Mutex<Scraped>>,
    task: JoinHandle<()>,
}

impl Scrapes {
    /// Of an admin listener, in a test that began at this moment.
    pub(super) fn start(admin: String, test: Instant) -> Scrapes {
        let scraped = Arc::<Mutex<Scraped>>::default();
        let noted = Arc::clone(&scraped);
        let task = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                let scrape = Scrape::read(&admin).await;
                let took = begun.elapsed();
                noted.lock().unwrap_or_else(PoisonError::into_inner).note(
                    begun.duration_since(test).as_secs_f64(),
                    took,
                    scrape.as_ref(),
                );
                tokio::time::sleep(SCRAPE_INTERVAL.saturating_sub(took)).await;
            }
        });
        Scrapes { scraped, task }
    }

    pub(super) fn end(self) -> Scraped {
        self.task.abort();
        self.scraped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
