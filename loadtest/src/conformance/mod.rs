//! Which rows of WHIP, WHEP, ICE, DTLS, SRTP and RTCP a server keeps, as seen from outside, whosever server it is.
//!
//! A row is an id, a level, a text and a small async function (`checks/`). What only deployed clients or safety ask for is a
//! SHOULD; nothing is a MUST that no standard demands.

mod case;
mod checks;
mod description;
mod hello;
mod link;
mod media;
mod probe;
mod reply;
mod report;
mod row;
mod stun;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use case::Case;
use probe::Probe;
use row::Miss;

pub use probe::Options;
pub use report::{Report, RowResult};
pub use row::{Level, Outcome, Row};

/// No row takes longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Of what was sent and came back, so much is shown: entries, and characters in all.
const SHOWN: (usize, usize) = (6, 700);

/// All rows, in their order.
pub fn rows() -> Vec<&'static Row> {
    checks::all()
}

/// Checks a server; each result is told in the order of the table, as soon as it is there.
///
/// # Errors
/// Why it cannot begin.
pub async fn run(options: Options, mut told: impl FnMut(&RowResult)) -> Result<Report, String> {
    if options.whip.is_none() && options.whep.is_none() {
        return Err("nothing to do: give --whip, --whep or both".into());
    }
    let wanted: Vec<&Row> = rows().into_iter().filter(|row| options.wants(row.id, row.level)).collect();
    if wanted.is_empty() {
        return Err("--only, --skip and --level leave no row".into());
    }
    let probe = Rc::new(Probe::new(options.clone())?);
    // Rows that share a stream would be in each other's way.
    let jobs = if options.has_streams() { options.jobs.max(1) } else { 1 };
    let mut results = Vec::with_capacity(wanted.len());
    let all = async {
        // Permits are given in the order in which they are asked for.
        let permits = Rc::new(Semaphore::new(jobs));
        let mut running = VecDeque::new();
        for (index, row) in wanted.into_iter().enumerate() {
            let (probe, permits) = (Rc::clone(&probe), Rc::clone(&permits));
            running.push_back(tokio::task::spawn_local(async move {
                // Nobody closes the semaphore.
                let _permit = permits.acquire().await;
                // Stream 0 is what viewers watch.
                check(&probe, row, index + 1).await
            }));
        }
        while let Some(task) = running.pop_front() {
            let result = task.await.map_err(|error| format!("a row ended early: {error}"))?;
            told(&result);
            results.push(result);
        }
        Ok::<(), String>(())
    };
    tokio::task::LocalSet::new().run_until(all).await?;
    probe.free().await;
    Ok(Report::new(options.whip, options.whep, results))
}

async fn check(probe: &Probe, row: &Row, number: usize) -> RowResult {
    let (case, begun) = (Case::new(probe, number), Instant::now());
    let verdict = tokio::time::timeout(LONGEST, (row.check)(&case)).await;
    let ms = begun.elapsed().as_millis() as u64;
    case.clean_up().await;
    let (result, said) = match verdict {
        Ok(Ok(seen)) => (Outcome::Pass, seen),
        Ok(Err(Miss::Fail(why))) => (Outcome::Fail, why),
        Ok(Err(Miss::Skip(why))) => (Outcome::Skip, why),
        Ok(Err(Miss::NotApplicable(why))) => (Outcome::NotApplicable, why),
        Err(_) => (Outcome::Fail, format!("no end after {LONGEST:?}")),
    };
    let evidence = evidence(&said, &case.notes());
    RowResult { id: row.id, level: row.level, from: row.from, text: row.text, result, evidence, ms }
}

/// The verdict, and the last of what was sent and came back, in one line.
fn evidence(said: &str, notes: &[String]) -> String {
    let (entries, characters) = SHOWN;
    let shown = &notes[notes.len().saturating_sub(entries)..];
    let line = if shown.is_empty() { said.to_owned() } else { format!("{said} [{}]", shown.join("; ")) };
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= characters {
        return line;
    }
    line.chars().take(characters).collect::<String>() + "…"
}
