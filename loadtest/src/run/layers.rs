//! Layers: viewers on links of different rates watch one stream, and each is to see as much of it as its link carries.

use super::pace::Pace;
use super::stage::{SETTLE, Stage};
use crate::client::ClientError;
use crate::fleet::links::{Links, right_step};
use crate::measure::figures::Phase;
use crate::measure::layers::{Seen, class_figures};
use crate::measure::roster::Group;
use crate::plan::LayersOptions;
use crate::report::layers::{LayersFigures, LayersRatio};
use crate::report::outcome::Outcome;

/// The publisher with layers, and the one without that it is compared with.
const LAYERED: usize = 0;
const SINGLE: usize = 1;

pub(super) async fn layers(stage: &mut Stage<'_>, options: &LayersOptions) -> Outcome {
    stage.publish(&mut Pace::new(None)).await;
    let viewers = options.links.iter().map(|class| class.viewers).sum();
    let ratio = if options.compare { compare(stage, viewers).await } else { None };

    let whep = stage.plan.whep.as_deref().unwrap_or_default();
    for class in &options.links {
        match Links::open(whep, class.kbit_per_second, options.loss) {
            Ok(links) => stage.fleet.links.push(links),
            Err(error) => {
                stage.fleet.figures.errors.push(ClientError::Socket(error.to_string()));
                return Outcome::Layers(Box::default());
            }
        }
    }
    for (class, link) in options.links.iter().enumerate() {
        stage.join_stream(link.viewers, LAYERED, Group::Linked(class)).await;
    }
    stage.pass("settling", options.settle).await;
    stage.measure("on their links".into(), "seconds", stage.plan.duration).await;
    stage.fleet.leave().await;
    Outcome::Layers(Box::new(figures(stage, options, ratio)))
}

/// Viewers on perfect links, of the stream without layers and of the one with them.
async fn compare(stage: &mut Stage<'_>, viewers: usize) -> Option<LayersRatio> {
    let first = stage.phases.len();
    for (name, stream) in [("without layers", SINGLE), ("with layers", LAYERED)] {
        stage.join_stream(viewers, stream, Group::Standing).await;
        // The top layer is reached by then.
        stage.pass("settling", 8 * SETTLE).await;
        stage.measure(name.into(), name, stage.plan.duration).await;
        stage.fleet.leave_of(Group::Standing).await;
        stage.pass("settling", SETTLE).await;
    }
    let phases = stage.phases.get(first..first + 2)?;
    let ratio =
        |value: fn(&Phase) -> Option<f64>| Some(value(&phases[1])? / value(&phases[0]).filter(|value| *value > 0.0)?);
    Some(LayersRatio {
        cpu_per_packet: ratio(|phase| phase.server?.cpu_us_per_packet),
        packets: ratio(|phase| Some(phase.packets as f64)),
        p99: ratio(|phase| Some(phase.latency_ms?.p99)),
    })
}

fn figures(stage: &Stage<'_>, options: &LayersOptions, ratio: Option<LayersRatio>) -> LayersFigures {
    let media = stage.campaign.media(LAYERED);
    let (ladder, settle) = (media.ladder(), options.settle.as_secs_f64());
    let classes = options.links.iter().enumerate().map(|(class, link)| {
        let seen: Vec<&Seen> = stage.fleet.figures.seen.iter().filter(|viewer| viewer.class == class).collect();
        let right = right_step(&ladder, link.kbit_per_second, media);
        class_figures(&ladder, (*link, right), &seen, settle)
    });
    let classes = classes.collect();
    let overflowed = stage.fleet.links.iter().map(Links::overflowed).sum();
    LayersFigures { ladder, classes, settle, least_share: options.least_share, ratio, overflowed }
}
