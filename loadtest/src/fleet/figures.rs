//! What all clients of a test did, those that have left included.

use std::time::Instant;

use super::viewer::LeftViewer;
use crate::client::{ClientError, PublisherFigures, ViewerFigures};
use crate::measure::join::Join;
use crate::measure::layers::Seen;
use crate::measure::roster::Group;
use crate::tally::TrackFigures;

/// Figures and errors of all clients.
#[derive(Default)]
pub(crate) struct FleetFigures {
    pub(crate) errors: Vec<ClientError>,
    pub(crate) publishers: Vec<PublisherFigures>,
    pub(crate) viewers: Vec<ViewerFigures>,
    /// What the viewers on narrow paths received.
    pub(crate) narrow: TrackFigures,
    /// What each viewer of a class of links saw.
    pub(crate) seen: Vec<Seen>,
    pub(crate) joins: Vec<(Group, Join)>,
    pub(crate) publishers_connected: usize,
    pub(crate) viewers_connected: usize,
    /// A session that the server ends is no error: publishers restart.
    pub(crate) tolerates_ends: bool,
    /// Sessions that the server ended.
    pub(crate) ended_by_server: u64,
    /// Joins that were refused because the stream's publisher restarted.
    pub(crate) refused_in_restarts: u64,
}

impl FleetFigures {
    /// A viewer has left a test that began at `begun`.
    pub(super) fn add_viewer(&mut self, begun: Instant, left: LeftViewer) {
        let LeftViewer { begun: joined, group, stayed, figures, pictures, failure, deleted, .. } = left;
        match failure {
            Some(ClientError::ClosedByServer) if self.tolerates_ends => self.ended_by_server += 1,
            failure => self.errors.extend(failure.into_iter().chain(deleted)),
        }
        let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
        let join = Join {
            at: joined.duration_since(begun).as_secs_f64(),
            connected_ms: ms(figures.connected),
            first_rtp_ms: ms(figures.first_rtp),
            first_keyframe_ms: ms(figures.first_keyframe),
        };
        self.joins.push((group, join));
        if let Group::Linked(class) = group {
            self.seen.push(Seen { class, stayed: stayed.as_secs_f64(), pictures });
        }
        if group == Group::Narrow {
            self.narrow.add(&figures.total());
        } else {
            self.viewers.push(figures);
        }
    }
}
