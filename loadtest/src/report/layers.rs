//! What viewers on different links saw of layers, for people.

use serde::Serialize;

use super::outcome::optional;
use super::plot::{Curve, Plot};
use crate::measure::layers::ClassFigures;
use crate::media::scalability::LadderStep;

/// What a test of layers found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayersFigures {
    /// The points of the stream, by bit rate.
    pub ladder: Vec<LadderStep>,
    /// Viewers by their links.
    pub classes: Vec<ClassFigures>,
    /// Seconds from the POST of a viewer until it is judged.
    pub settle: f64,
    /// The share of the time that every viewer is to be at the right layer.
    pub least_share: f64,
    /// The stream with layers by that without, on perfect links.
    pub ratio: Option<LayersRatio>,
    /// Datagrams that the relays' own sockets had no room for.
    pub overflowed: u64,
}

/// Viewers of a stream with layers by as many of one without.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LayersRatio {
    /// CPU time of the server for each packet that a viewer received.
    pub cpu_per_packet: Option<f64>,
    /// Packets that viewers received.
    pub packets: Option<f64>,
    /// The 99th percentile of the latency.
    pub p99: Option<f64>,
}

/// The columns in front of those of the ladder, and behind them.
const FRONT: [&str; 4] = ["link", "viewers", "right layer", "at it, %"];
const BEHIND: [&str; 8] =
    ["nothing", "switches", "temporal", "freezes", "frozen s", "to right p50 ms", "max ms", "undecodable"];

impl LayersFigures {
    /// The first viewer class that was not at the right layer for long enough; `None` if all were.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.classes.iter().all(|class| class.right.is_none()) {
            return Some("no link carries a layer".to_owned());
        }
        self.classes.iter().find_map(|class| {
            let (name, viewers, all) = (link_name(class), class.viewers, class.link.viewers);
            if viewers < all {
                return Some(format!("on {name}: {viewers} of {all} viewers"));
            }
            // Of a link that carries no layer there is nothing to judge.
            class.right?;
            let least = class.at_right_least.unwrap_or(0.0);
            let (share, wanted) = (least * 100.0, self.least_share * 100.0);
            (least < self.least_share)
                .then(|| format!("on {name}: one was at the right layer for {share:.1} %, not {wanted:.0} %"))
        })
    }

    /// The names of the ladder's steps.
    fn steps(&self) -> Vec<String> {
        self.ladder.iter().map(step_name).collect()
    }

    /// The header of the table of links.
    pub(super) fn header(&self) -> Vec<String> {
        let steps = self.steps().into_iter().map(|name| format!("{name}, %"));
        FRONT.iter().map(|name| (*name).to_owned()).chain(steps).chain(BEHIND.map(str::to_owned)).collect()
    }

    /// A row for each class of links.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        let row = |class: &ClassFigures| {
            let right = class.right.and_then(|right| self.ladder.get(right)).map_or("none".to_owned(), step_name);
            let mut row = vec![link_name(class), class.viewers.to_string(), right];
            row.push(class.at_right.map_or("-".to_owned(), percent));
            row.extend(class.shares.iter().map(|share| percent(*share)));
            row.push(percent(class.nothing));
            for value in [class.switches, class.temporal_switches, class.freezes, class.frozen_seconds] {
                row.push(format!("{value:.1}"));
            }
            row.push(optional(class.time_to_right_ms.map(|times| times.p50), 0));
            row.push(optional(class.time_to_right_ms.map(|times| times.max), 0));
            row.push(class.undecodable.to_string());
            row
        };
        self.classes.iter().map(row).collect()
    }

    /// What was found, in sentences.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for class in self.classes.iter().filter(|class| class.right.is_some()) {
            lines.push(format!(
                "layers on {}: at the right one or above for {} % of the time on average, for {} % at least; {} of {} viewers never",
                link_name(class),
                optional(class.at_right.map(|share| share * 100.0), 1),
                optional(class.at_right_least.map(|share| share * 100.0), 1),
                class.never_right,
                class.link.viewers,
            ));
        }
        lines.extend(self.ratio.map(|ratio| {
            format!(
                "the stream with layers by that without, on perfect links: CPU for each packet {} times, packets {}, p99 {}",
                optional(ratio.cpu_per_packet, 2),
                optional(ratio.packets, 2),
                optional(ratio.p99, 2),
            )
        }));
        if self.overflowed > 0 {
            lines.push(format!("the relays' own sockets had no room for {} datagrams", self.overflowed));
        }
        lines.extend(self.failure().map(|failure| format!("NOT RIGHT: {failure}")));
        lines
    }

    /// Over the time since the POST: who is at the right layer, and for each class who is at which.
    pub(super) fn plots(&self) -> Vec<Plot> {
        let plot =
            |title: String, curves| Plot { title, x: "s since the POST", y: "% of viewers", curves, bands: Vec::new() };
        let percent = |share: f64| Some(share * 100.0);
        let right = self.classes.iter().filter(|class| class.right.is_some()).map(|class| Curve {
            name: link_name(class),
            points: class.over_time.iter().map(|point| (point.at, percent(point.at_right))).collect(),
            scattered: false,
        });
        let mut plots = vec![plot("Viewers at the right layer or above".to_owned(), right.collect())];
        for class in &self.classes {
            let curve = |step: usize, name: String| Curve {
                name,
                points: class
                    .over_time
                    .iter()
                    .map(|point| (point.at, point.shares.get(step).copied().and_then(percent)))
                    .collect(),
                scattered: false,
            };
            let curves = self.steps().into_iter().enumerate().map(|(step, name)| curve(step, name)).collect();
            plots.push(plot(format!("Layers on {}", link_name(class)), curves));
        }
        plots
    }
}

fn link_name(class: &ClassFigures) -> String {
    match class.link.kbit_per_second {
        0.0 => "perfect links".to_owned(),
        rate => format!("{rate:.0} kbit/s"),
    }
}

/// A step of the ladder by the height of its picture and its pace.
fn step_name(step: &LadderStep) -> String {
    format!("{}p{:.0}", step.height, step.frame_rate)
}
