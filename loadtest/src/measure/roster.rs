//! Whose figures are sampled: the clients that run now, and the sums of those that have left.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::client::{PublisherFigures, PublisherWatch, ViewerFigures, ViewerWatch};
use crate::tally::TrackFigures;

/// Which viewers a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Those whose latency and losses count.
    Standing,
    /// Those of a storm, which only join.
    Joining,
    /// Those on narrow paths.
    Narrow,
    /// Those of a class of links, by its number.
    Linked(usize),
}

/// Sums over clients that never fall, also when clients leave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) viewers: usize,
    /// All viewers.
    pub(crate) received: TrackFigures,
    /// The standing viewers alone.
    pub(crate) standing: TrackFigures,
    pub(crate) overflowed: u64,
    pub(crate) frames: u64,
    pub(crate) late_frames: u64,
}

impl Totals {
    fn add_viewer(&mut self, group: Group, figures: &ViewerFigures) {
        let total = figures.total();
        self.received.add(&total);
        if group == Group::Standing {
            self.standing.add(&total);
        }
        self.overflowed += figures.overflowed;
    }

    fn add_publisher(&mut self, figures: &PublisherFigures) {
        self.frames += figures.frames;
        self.late_frames += figures.late_frames;
    }
}

/// The clients that run now, for whoever samples their figures.
#[derive(Default)]
pub(crate) struct Roster(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    viewers: BTreeMap<u64, (Group, ViewerWatch)>,
    publishers: BTreeMap<usize, PublisherWatch>,
    gone: Totals,
    next: u64,
}

impl Roster {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn totals(&self) -> Totals {
        let entries = self.entries();
        let mut totals = entries.gone;
        totals.viewers = entries.viewers.len();
        entries.viewers.values().for_each(|(group, watch)| totals.add_viewer(*group, &watch.figures()));
        entries.publishers.values().for_each(|watch| totals.add_publisher(&watch.figures()));
        totals
    }

    pub(crate) fn enter_publisher(&self, index: usize, watch: PublisherWatch) {
        self.entries().publishers.insert(index, watch);
    }

    pub(crate) fn enter_viewer(&self, group: Group, watch: ViewerWatch) -> u64 {
        let mut entries = self.entries();
        entries.next += 1;
        let id = entries.next;
        entries.viewers.insert(id, (group, watch));
        id
    }

    pub(crate) fn retire_viewer(&self, id: u64) {
        let mut entries = self.entries();
        if let Some((group, watch)) = entries.viewers.remove(&id) {
            entries.gone.add_viewer(group, &watch.figures());
        }
    }

    pub(crate) fn retire_publisher(&self, index: usize) {
        let mut entries = self.entries();
        if let Some(watch) = entries.publishers.remove(&index) {
            entries.gone.add_publisher(&watch.figures());
        }
    }
}
