//! What viewers on links of different rates saw of a stream with layers.

use serde::Serialize;

use crate::client::Pictures;
use crate::fleet::links::LinkClass;
use crate::measure::percentiles::Percentiles;
use crate::media::scalability::{LadderStep, LayerId};

/// Seconds between the points of the plots.
const INTERVAL: f64 = 1.0;
/// Shares are found by looking so often.
const STEP: f64 = 0.05;

/// What one viewer saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its class of links.
    pub(crate) class: usize,
    /// How long it was there, in seconds since its POST.
    pub(crate) stayed: f64,
    pub(crate) pictures: Pictures,
}

/// What the viewers of one class saw.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFigures {
    /// The class.
    pub link: LinkClass,
    /// Of the ladder, the highest step that fits into the link; `None` if none does.
    pub right: Option<usize>,
    /// Viewers that were there beyond the time to settle.
    pub viewers: usize,
    /// Share of the time after it that a viewer saw each step of the ladder, on average.
    pub shares: Vec<f64>,
    /// Share of that time in which nothing was shown, or the picture was frozen.
    pub nothing: f64,
    /// Share of that time at the right step or above, on average; and of the viewer that has least.
    pub at_right: Option<f64>,
    /// The least of any viewer.
    pub at_right_least: Option<f64>,
    /// Switches between encodings or spatial layers a viewer, over all of its time.
    pub switches: f64,
    /// Switches of the temporal layer alone.
    pub temporal_switches: f64,
    /// Freezes a viewer.
    pub freezes: f64,
    /// Seconds of them.
    pub frozen_seconds: f64,
    /// From the POST until the right step, or one above, was shown first, in ms; of those that it was shown to.
    pub time_to_right_ms: Option<Percentiles>,
    /// Viewers that never saw it.
    pub never_right: usize,
    /// Frames that were whole and could not be decoded.
    pub undecodable: u64,
    /// Over the time since the POST.
    pub over_time: Vec<LayersAt>,
}

/// What the viewers of a class saw at a time.
#[derive(Clone, Debug, Serialize)]
pub struct LayersAt {
    /// Seconds since the POST of each.
    pub at: f64,
    /// Share of the viewers at each step of the ladder.
    pub shares: Vec<f64>,
    /// Share of the viewers at the right step or above.
    pub at_right: f64,
}

/// Sums up what the viewers of a class saw, from `settle` seconds after the POST of each on.
pub(crate) fn class_figures(
    ladder: &[LadderStep],
    (link, right): (LinkClass, Option<usize>),
    seen: &[&Seen],
    settle: f64,
) -> ClassFigures {
    let step_of = |layer: LayerId| ladder.iter().position(|step| step.layer == layer);
    let step_at = |viewer: &Seen, at: f64| viewer.pictures.at(at).and_then(step_of);
    let is_right = |step: Option<usize>| right.is_some_and(|right| step.is_some_and(|step| step >= right));
    let settled: Vec<&Seen> = seen.iter().copied().filter(|viewer| viewer.stayed > settle).collect();
    let count = settled.len().max(1) as f64;

    let (mut shares, mut nothing, mut right_shares) = (vec![0.0; ladder.len()], 0.0, Vec::new());
    for viewer in &settled {
        let looks = ((viewer.stayed - settle) / STEP).ceil().max(1.0);
        let mut right_looks = 0.0;
        for look in 0..looks as usize {
            let step = step_at(viewer, settle + STEP * look as f64);
            match step {
                Some(step) => shares[step] += 1.0 / looks / count,
                None => nothing += 1.0 / looks / count,
            }
            right_looks += f64::from(u8::from(is_right(step)));
        }
        right_shares.push(right_looks / looks);
    }
    let times: Vec<f64> = seen.iter().filter_map(|viewer| Some(time_to(viewer, ladder, right?)? * 1000.0)).collect();
    let never_right = if right.is_some() { seen.len() - times.len() } else { 0 };
    let of_each = |value: fn(&Pictures) -> f64| {
        seen.iter().map(|viewer| value(&viewer.pictures)).sum::<f64>() / seen.len().max(1) as f64
    };
    let least = right_shares.iter().copied().reduce(f64::min).filter(|_| right.is_some());
    ClassFigures {
        link,
        right,
        viewers: settled.len(),
        shares,
        nothing,
        at_right: least.map(|_| right_shares.iter().sum::<f64>() / count),
        at_right_least: least,
        switches: of_each(|pictures| {
            switches(pictures, |from, to| (from.encoding, from.spatial) != (to.encoding, to.spatial))
        }),
        temporal_switches: of_each(|pictures| {
            switches(pictures, |from, to| (from.encoding, from.spatial) == (to.encoding, to.spatial))
        }),
        freezes: of_each(|pictures| pictures.freezes.len() as f64),
        frozen_seconds: of_each(|pictures| pictures.freezes.iter().fold(0.0, |sum, (begin, end)| sum + end - begin)),
        time_to_right_ms: Percentiles::of(times),
        never_right,
        undecodable: seen.iter().map(|viewer| viewer.pictures.undecodable).sum(),
        over_time: over_time(ladder.len(), seen, step_at, is_right),
    }
}

fn switches(pictures: &Pictures, counts: fn(LayerId, LayerId) -> bool) -> f64 {
    pictures.changes.windows(2).filter(|pair| counts(pair[0].1, pair[1].1)).count() as f64
}

/// When a viewer first saw this step of the ladder, or one above.
fn time_to(viewer: &Seen, ladder: &[LadderStep], right: usize) -> Option<f64> {
    let reached =
        |layer: &LayerId| ladder.iter().position(|step| step.layer == *layer).is_some_and(|step| step >= right);
    viewer.pictures.changes.iter().find(|(_, layer)| reached(layer)).map(|(at, _)| *at)
}

fn over_time(
    steps: usize,
    seen: &[&Seen],
    step_at: impl Fn(&Seen, f64) -> Option<usize>,
    is_right: impl Fn(Option<usize>) -> bool,
) -> Vec<LayersAt> {
    let longest = seen.iter().map(|viewer| viewer.stayed).fold(0.0, f64::max);
    let mut points = Vec::new();
    for point in 0..(longest / INTERVAL) as usize {
        let at = INTERVAL * point as f64;
        let there: Vec<Option<usize>> =
            seen.iter().filter(|viewer| viewer.stayed >= at).map(|viewer| step_at(viewer, at)).collect();
        let count = there.len().max(1) as f64;
        let share = |step: usize| there.iter().filter(|at| **at == Some(step)).count() as f64 / count;
        points.push(LayersAt {
            at,
            shares: (0..steps).map(share).collect(),
            at_right: there.iter().filter(|step| is_right(**step)).count() as f64 / count,
        });
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PublisherOptions;

    fn layer(encoding: u8) -> LayerId {
        LayerId { encoding, ..LayerId::default() }
    }

    fn seen(changes: &[(f64, u8)], freezes: &[(f64, f64)]) -> Seen {
        let changes = changes.iter().map(|(at, encoding)| (*at, layer(*encoding))).collect();
        let pictures = Pictures { changes, freezes: freezes.to_vec(), last: Some(20.0), ..Pictures::default() };
        Seen { class: 0, stayed: 20.0, pictures }
    }

    #[test]
    fn shares_are_of_the_time_after_settling_and_freezes_count_for_nothing() {
        let ladder = PublisherOptions { simulcast: 3, ..PublisherOptions::default() }.ladder();
        let link = LinkClass { kbit_per_second: 600.0, viewers: 2 };
        let viewers = [
            seen(&[(0.5, 0), (2.0, 1)], &[]),
            // Five seconds below, and one second frozen.
            seen(&[(0.5, 0), (1.0, 2), (3.0, 1), (10.0, 0), (15.0, 1)], &[(18.0, 19.15)]),
        ];
        let figures = class_figures(&ladder, (link, Some(1)), &viewers.iter().collect::<Vec<_>>(), 10.0);
        assert!((figures.shares[0] - 0.25).abs() < 0.02, "{:?}", figures.shares);
        assert!((figures.shares[1] - 0.70).abs() < 0.02 && figures.shares[2] == 0.0, "{:?}", figures.shares);
        assert!((figures.nothing - 0.05).abs() < 0.02, "{}", figures.nothing);
        assert!((figures.at_right_least.unwrap() - 0.4).abs() < 0.02, "{:?}", figures.at_right_least);
        assert_eq!((figures.viewers, figures.switches, figures.freezes, figures.never_right), (2, 2.5, 0.5, 0));
        let times = figures.time_to_right_ms.unwrap();
        assert!((times.min - 1000.0).abs() < 10.0 && (times.max - 2000.0).abs() < 10.0, "{times:?}");
        assert_eq!(figures.over_time.len(), 20);
        assert_eq!((figures.over_time[0].at_right, figures.over_time[5].at_right), (0.0, 1.0));
    }

    #[test]
    fn where_no_layer_fits_none_is_right() {
        let ladder = PublisherOptions { simulcast: 2, ..PublisherOptions::default() }.ladder();
        let link = LinkClass { kbit_per_second: 50.0, viewers: 1 };
        let viewer = Seen { class: 0, stayed: 12.0, pictures: Pictures::default() };
        let figures = class_figures(&ladder, (link, None), &[&viewer], 10.0);
        assert_eq!((figures.at_right, figures.at_right_least, figures.never_right), (None, None, 0));
        assert!((figures.nothing - 1.0).abs() < 1e-9);
    }
}
