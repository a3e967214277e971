//! Steady run, storm, narrow paths and knee.

use std::time::{Duration, Instant};

use media_core::media::Codec;

use super::pace::Pace;
use super::stage::{SETTLE, Stage};
use crate::client::ClientError;
use crate::fleet::narrow::NarrowPaths;
use crate::garbage::{Garbage, GarbageFigures};
use crate::measure::figures::Phase;
use crate::measure::roster::Group;
use crate::report::outcome::{KneeFigures, Outcome, StormFigures};

/// The server adapts to narrow paths, and the queue that has formed in them by then drains.
const ADAPT: Duration = Duration::from_secs(3);
/// A storm is over so soon that its shortest phase needs a bound.
const SHORTEST_STORM: Duration = Duration::from_secs(1);

pub(super) async fn steady(stage: &mut Stage<'_>, garbage: Option<u32>, returns_with: Option<Codec>) -> Outcome {
    let mut pace = Pace::new(stage.plan.rate);
    stage.publish(&mut pace).await;
    stage.join(stage.plan.viewers, &mut pace, Group::Standing).await;
    stage.measure("steady".into(), "seconds", stage.plan.duration).await;
    let figures = match garbage {
        Some(per_second) => beside_garbage(stage, per_second).await,
        None => None,
    };
    if let Some(codec) = returns_with {
        stage.fleet.returns_with = Some(codec);
        stage.publish(&mut Pace::new(None)).await;
        stage.measure(format!("returned with {codec}"), "seconds", stage.plan.duration).await;
    }
    Outcome::Run(figures)
}

async fn beside_garbage(stage: &mut Stage<'_>, per_second: u32) -> Option<GarbageFigures> {
    match Garbage::start(stage.fleet.media_addresses(), per_second) {
        Ok(garbage) => {
            stage.measure("garbage".into(), "garbage", stage.plan.duration).await;
            Some(garbage.stop())
        }
        Err(error) => {
            stage.fleet.figures.errors.push(ClientError::Socket(error.to_string()));
            None
        }
    }
}

pub(super) async fn storm(stage: &mut Stage<'_>, joins: usize, calm: Duration, leave: bool) -> Outcome {
    stage.publish(&mut Pace::new(None)).await;
    stage.join(stage.plan.viewers, &mut Pace::new(None), Group::Standing).await;
    stage.pass("settling", SETTLE).await;
    stage.measure("before the storm".into(), "calm", calm).await;

    stage.monitor.begin("storm");
    let (begun, mut pace) = (Instant::now(), Pace::new(stage.plan.rate));
    if leave {
        stage.visits(joins, &mut pace).await;
    } else {
        stage.join(joins, &mut pace, Group::Joining).await;
    }
    let took = begun.elapsed();
    stage.pass("storm", SHORTEST_STORM.saturating_sub(took)).await;
    stage.phases.extend(stage.monitor.end());

    stage.measure("after the storm".into(), "calm", calm).await;
    let p99 = |index: usize| Some(stage.phases.get(index)?.latency_ms?.p99).filter(|p99| *p99 > 0.0);
    let ratio = |to: usize| Some(p99(1)? / p99(to)?);
    Outcome::Storm(StormFigures {
        joins_wanted: joins,
        joined: stage.fleet.figures.viewers_connected.saturating_sub(stage.plan.viewers),
        seconds: took.as_secs_f64(),
        joins_per_second: joins as f64 / took.as_secs_f64().max(0.001),
        p99_ratio: ratio(0),
        p99_ratio_after: ratio(2),
        standing_lost: stage.phases.iter().map(|phase| phase.lost).sum(),
    })
}

pub(super) async fn narrow(stage: &mut Stage<'_>, narrow: usize, share: f64, loss: f64) -> Outcome {
    let (plan, whep) = (stage.plan, stage.plan.whep.as_deref().unwrap_or_default());
    stage.publish(&mut Pace::new(None)).await;
    stage.join(plan.viewers, &mut Pace::new(plan.rate), Group::Standing).await;
    stage.pass("settling", SETTLE).await;
    stage.measure("without narrow paths".into(), "without", plan.duration).await;

    match NarrowPaths::open(whep, stage.campaign.media(0), share, loss) {
        Ok(paths) => stage.fleet.narrow_paths = Some(paths),
        Err(error) => stage.fleet.figures.errors.push(ClientError::Socket(error.to_string())),
    }
    stage.join(narrow, &mut Pace::new(None), Group::Narrow).await;
    stage.pass("settling", ADAPT).await;
    stage.measure("beside narrow paths".into(), "with", plan.duration).await;
    stage.fleet.leave_of(Group::Narrow).await;
    stage.pass("settling", SETTLE).await;
    stage.measure("without them again".into(), "without", plan.duration).await;
    let received = stage.fleet.figures.narrow;
    Outcome::Narrow(stage.fleet.narrow_paths.take().map(|paths| paths.close(narrow, received, &stage.phases)))
}

pub(super) async fn knee(
    stage: &mut Stage<'_>,
    step: usize,
    max_viewers: usize,
    max_loss: f64,
    max_p99_ms: f64,
) -> Outcome {
    stage.publish(&mut Pace::new(None)).await;
    let mut pace = Pace::new(stage.plan.rate);
    let mut more = stage.plan.viewers;
    let mut figures = KneeFigures::new(max_loss, max_p99_ms);
    loop {
        stage.join(more, &mut pace, Group::Standing).await;
        let viewers = stage.fleet.viewers.len();
        let mut good = false;
        // Other work on the machine comes and goes: only two bad measurements in a row are a bad step.
        for _ in 0..2 {
            if !stage.pass("settling", SETTLE).await
                || !stage.measure(format!("{viewers} viewers"), "seconds", stage.plan.duration).await
            {
                return Outcome::Knee(Box::new(figures));
            }
            let Some(phase) = stage.phases.last() else { return Outcome::Knee(Box::new(figures)) };
            figures.note(phase);
            figures.reason = bad(phase, max_loss, max_p99_ms);
            good = figures.reason.is_none();
            if good {
                figures.keep(phase);
                break;
            }
        }
        if !good {
            figures.first_bad = stage.phases.last().cloned();
            return Outcome::Knee(Box::new(figures));
        }
        more = step.min(max_viewers.saturating_sub(viewers));
        if more == 0 || !stage.fleet.figures.errors.is_empty() {
            return Outcome::Knee(Box::new(figures));
        }
    }
}

/// Why a step of a knee is bad.
fn bad(phase: &Phase, max_loss: f64, max_p99_ms: f64) -> Option<String> {
    if phase.packets == 0 {
        return Some("nothing was received".into());
    }
    if phase.loss > max_loss {
        return Some(format!("{:.2} % of the packets were lost", phase.loss * 100.0));
    }
    let p99 = phase.latency_ms?.p99;
    (p99 > max_p99_ms).then(|| format!("the latency's p99 was {p99:.1} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::figures::GeneratorFigures;
    use crate::measure::percentiles::Percentiles;

    #[test]
    fn a_step_is_bad_by_loss_or_by_latency() {
        let phase = |packets, loss, p99| Phase {
            name: String::new(),
            from: 0.0,
            seconds: 1.0,
            viewers: 1,
            packets,
            bytes: 1,
            packets_per_second: 1.0,
            lost: 0,
            loss,
            latency_ms: Some(Percentiles { p99, ..Percentiles::default() }),
            server: None,
            generator: GeneratorFigures::default(),
        };
        assert_eq!(bad(&phase(1000, 0.001, 50.0), 0.001, 50.0), None);
        assert!(bad(&phase(1000, 0.002, 1.0), 0.001, 50.0).unwrap().contains("0.20 %"));
        assert!(bad(&phase(1000, 0.0, 50.1), 0.001, 50.0).unwrap().contains("50.1 ms"));
        assert!(bad(&phase(0, 0.0, 0.0), 0.001, 50.0).is_some());
    }
}
