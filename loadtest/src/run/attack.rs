//! Attacks beside honest viewers, and what they cost them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::pace::Pace;
use super::stage::{SETTLE, Stage};
use crate::attack::{Assault, Attack, AttackCounts, AttackError, AttackOptions, Target, Victim, own_stream};
use crate::client::ClientError;
use crate::measure::process::Usage;
use crate::measure::roster::Group;
use crate::measure::scrape::Scrape;
use crate::plan::{Plan, RunError};
use crate::report::attack::{AttackFigures, AttackRow, ServerCost};

/// A newcomer's stream, beyond those of the attackers.
const NEWCOMERS: u64 = 500;

/// What the honest clients have, and the server has used, at one moment.
struct Standing {
    missing: u64,
    alive: BTreeMap<u64, Option<u64>>,
    cpu: Option<Duration>,
    resident: Option<u64>,
}

impl Standing {
    async fn read(stage: &Stage<'_>, admin: Option<&str>) -> Standing {
        let usage = stage.plan.server_pid.and_then(Usage::of);
        let scrape = match (usage, admin) {
            (None, Some(admin)) => Scrape::read(admin).await,
            _ => None,
        };
        let scraped = scrape.as_ref();
        let scraped_cpu = || scraped?.cpu_seconds().map(Duration::from_secs_f64);
        Standing {
            missing: stage.fleet.roster.totals().standing.missing,
            alive: stage.fleet.alive(),
            cpu: usage.map(|usage| usage.cpu()).or_else(scraped_cpu),
            resident: usage.map(|usage| usage.resident).or_else(|| scraped?.resident_bytes()),
        }
    }

    /// Clients whose session was alive here, and there is over or got nothing since `between`.
    fn lost(&self, between: &Standing, after: &Standing) -> BTreeSet<u64> {
        let dead = |(id, delivered): (&u64, &Option<u64>)| {
            let publishes = *delivered == Some(0);
            let now = after.alive.get(id).copied().flatten();
            delivered.is_some()
                && match now {
                    None => true,
                    Some(now) => !publishes && between.alive.get(id).copied().flatten() == Some(now),
                }
        };
        self.alive.iter().filter(|entry| dead(*entry)).map(|(id, _)| *id).collect()
    }

    fn cost(&self, after: &Standing, seconds: f64) -> Option<ServerCost> {
        let (from, to) = (self.resident?, after.resident?);
        let cpu = after.cpu?.saturating_sub(self.cpu?);
        Some(ServerCost {
            cores: cpu.as_secs_f64() / seconds.max(0.001),
            resident_bytes: to,
            grown_bytes: to.cast_signed() - from.cast_signed(),
        })
    }
}

/// Lets viewers stand, measures them in quiet, and then beside each attack.
pub(super) async fn attack(stage: &mut Stage<'_>, options: &AttackOptions) -> Result<AttackFigures, RunError> {
    let plan = stage.plan;
    stage.publish(&mut Pace::new(None)).await;
    stage.join(plan.viewers, &mut Pace::new(plan.rate), Group::Standing).await;
    let target = target(stage, options)?;
    stage.pass("settling", SETTLE).await;

    let admin = options.admin.as_deref();
    let before = Standing::read(stage, admin).await;
    stage.measure("quiet".into(), "quiet", plan.duration).await;
    stage.pass("settling", SETTLE).await;
    let quiet_lost = Standing::read(stage, admin).await.missing.saturating_sub(before.missing);
    let mut figures = AttackFigures::new(stage.phases.last(), quiet_lost, options.max_p99_ratio);

    let turns: Vec<Vec<Attack>> = match options.together {
        true => vec![options.attacks.clone()],
        false => options.attacks.iter().map(|attack| vec![*attack]).collect(),
    };
    let quiet_rate = quiet_lost as f64 / plan.duration.as_secs_f64().max(0.001);
    let mut lost = BTreeSet::new();
    for (number, attacks) in turns.iter().enumerate() {
        if stage.interrupted {
            break;
        }
        let row = beside(stage, options, &target, attacks, number, quiet_rate).await;
        // Who is lost stays so, and is the doing of one attack.
        let fresh = row.1.difference(&lost).count() as u64;
        lost = row.1;
        figures.push(AttackRow { sessions_lost: fresh, ..row.0 });
    }
    Ok(figures)
}

/// What is attacked; refused if the server has named addresses for media that are not ours to attack.
pub(super) fn target(stage: &Stage<'_>, options: &AttackOptions) -> Result<Target, RunError> {
    let Plan { whip, whep, token, publishers, .. } = stage.plan.clone();
    let media = stage.fleet.media_addresses();
    options.permitted_media(&media)?;
    let share = if options.together { options.attacks.len().max(1) } else { 1 };
    Ok(Target {
        whip,
        whep,
        token,
        admin: options.admin.clone(),
        own: publishers.max(1),
        media,
        victims: Arc::new(Mutex::new(victims(stage))),
        identity: stage.fleet.identity().clone(),
        datagrams: (options.datagrams / share as u32).max(1),
        requests: (options.requests / share as u32).max(1),
        connections: options.connections / share,
    })
}

/// The honest viewers, as somebody on their paths knows them.
pub(super) fn victims(stage: &Stage<'_>) -> Vec<Victim> {
    let victims = stage.fleet.viewers.iter().filter_map(|viewer| {
        let viewer = viewer.viewer();
        let answer = viewer.answer();
        let to = answer.candidates.first()?.address;
        Some(Victim { local: viewer.ice().clone(), remote: answer.ice.clone(), to })
    });
    victims.collect()
}

/// One turn: its attacks at once, and honest newcomers in the middle of it. Also the clients that it left without a session.
async fn beside(
    stage: &mut Stage<'_>,
    options: &AttackOptions,
    target: &Target,
    attacks: &[Attack],
    number: usize,
    quiet_rate: f64,
) -> (AttackRow, BTreeSet<u64>) {
    let admin = options.admin.as_deref();
    let name = match attacks {
        [attack] => attack.to_string(),
        _ => "all at once".to_owned(),
    };
    let before = Standing::read(stage, admin).await;
    let (mut assaults, mut not_done, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for attack in attacks {
        match Assault::start(*attack, target).await {
            Ok(assault) => assaults.push(assault),
            Err(error) => {
                let reasons = if matches!(error, AttackError::Needs(_)) { &mut not_done } else { &mut failed };
                reasons.push(if attacks.len() == 1 { error.to_string() } else { format!("{attack}: {error}") });
            }
        }
    }
    let mut counts = AttackCounts::default();
    let (mut newcomer_ms, mut refused, mut seconds) = (None, Vec::new(), 0.0);
    if !assaults.is_empty() {
        let begun = std::time::Instant::now();
        stage.monitor.begin(name.clone());
        stage.pass("attack", options.each / 4).await;
        let newcomers = Newcomers::start(stage, number);
        stage.pass("attack", options.each - options.each / 4).await;
        stage.phases.extend(stage.monitor.end());
        (newcomer_ms, refused) = newcomers.end(stage).await;
        seconds = begun.elapsed().as_secs_f64();
    }
    for assault in assaults {
        counts.add(&assault.stop().await);
    }
    let between = Standing::read(stage, admin).await;
    stage.pass("settling", SETTLE).await;
    let after = Standing::read(stage, admin).await;

    let whole = seconds + SETTLE.as_secs_f64();
    let missing = after.missing.saturating_sub(before.missing);
    let latency = stage.phases.last().filter(|phase| phase.name == name).and_then(|phase| phase.latency_ms);
    let row = AttackRow {
        attack: name,
        not_done: (!not_done.is_empty()).then(|| not_done.join("; ")),
        failed: (!failed.is_empty()).then(|| failed.join("; ")),
        seconds,
        counts,
        packets_lost: missing.saturating_sub((quiet_rate * whole).ceil() as u64),
        sessions_lost: 0,
        p50_ms: latency.map(|latency| latency.p50),
        p99_ms: latency.map(|latency| latency.p99),
        p99_ratio: None,
        newcomer_ms,
        refused,
        server: before.cost(&after, whole),
        broken: Vec::new(),
    };
    (row, before.lost(&between, &after))
}

/// An honest viewer and an honest publisher that join in an attack.
struct Newcomers {
    viewer: crate::fleet::clients::Started<crate::fleet::viewer::LeftViewer>,
    publisher: Option<crate::fleet::clients::Started<()>>,
}

impl Newcomers {
    fn start(stage: &Stage<'_>, number: usize) -> Newcomers {
        let viewer = stage.fleet.start_visit(stage.plan.viewers + number, 0);
        let own = stage.plan.publishers.max(1);
        let url = stage.plan.whip.as_deref().map(|whip| own_stream(whip, own, NEWCOMERS + number as u64));
        Newcomers { viewer, publisher: url.map(|url| stage.fleet.start_publisher_visit(url)) }
    }

    /// How long the viewer waited for its first packet, in ms, and who could not join for what reason.
    async fn end(self, stage: &mut Stage<'_>) -> (Option<f64>, Vec<String>) {
        let mut refused = Vec::new();
        let left = self.viewer.await.unwrap_or(Err(ClientError::Stopped));
        let joined = stage.fleet.newcomer_left(left).map_err(|error| refused.push(format!("a viewer: {error}")));
        if let Some(publisher) = self.publisher {
            let left = publisher.await.unwrap_or(Err(ClientError::Stopped));
            refused.extend(left.err().map(|error| format!("a publisher: {error}")));
        }
        (joined.ok(), refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(alive: &[(u64, Option<u64>)]) -> Standing {
        Standing { missing: 0, alive: alive.iter().copied().collect(), cpu: None, resident: None }
    }

    #[test]
    fn a_session_is_lost_if_it_ended_or_gets_nothing_any_more() {
        // Publishers receive nothing, and who was gone before is not lost again.
        let before = standing(&[(1, Some(10)), (2, Some(10)), (3, Some(10)), (4, None), (5, Some(0))]);
        let between = standing(&[(1, Some(20)), (2, Some(20)), (3, None), (4, None), (5, Some(0))]);
        let after = standing(&[(1, Some(30)), (2, Some(20)), (3, None), (4, None), (5, Some(0))]);
        assert_eq!(before.lost(&between, &after), BTreeSet::from([2, 3]));
        let after = standing(&[(1, Some(30)), (2, Some(21)), (3, Some(11)), (5, None)]);
        assert_eq!(before.lost(&between, &after), BTreeSet::from([5]));
    }

    #[test]
    fn the_server_is_charged_for_what_it_used_more() {
        let at = |seconds, resident| Standing {
            cpu: Some(Duration::from_secs(seconds)),
            resident: Some(resident),
            ..standing(&[])
        };
        let cost = at(10, 5_000).cost(&at(14, 4_000), 2.0).unwrap();
        assert_eq!((cost.cores, cost.resident_bytes, cost.grown_bytes), (2.0, 4_000, -1_000));
        assert_eq!(standing(&[]).cost(&at(1, 1), 1.0), None);
    }
}
