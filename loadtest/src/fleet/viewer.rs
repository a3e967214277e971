//! A viewer of a test, from its join to its leave.

use std::time::{Duration, Instant};

use crate::client::{ClientError, Viewer, ViewerFigures};
use crate::measure::roster::Group;

/// How often a viewer that is to leave with its first packet looks for it, and how long.
const POLL: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A running viewer of a test.
pub(crate) struct FleetViewer {
    pub(super) id: u64,
    pub(super) begun: Instant,
    pub(super) group: Group,
    pub(super) viewer: Viewer,
}

impl FleetViewer {
    /// The client.
    pub(crate) fn viewer(&self) -> &Viewer {
        &self.viewer
    }

    /// Waits for the first packet, or until it is clear that none will come.
    pub(super) async fn first_packet(&self) {
        let (begun, watch) = (Instant::now(), self.viewer.watch());
        while watch.figures().first_rtp.is_none() && self.viewer.failure().is_none() && begun.elapsed() < LONGEST_WAIT {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends no more, neither DELETE nor close_notify.
    pub(super) fn vanish(self) -> LeftViewer {
        let FleetViewer { id, begun, group, viewer } = self;
        let (failure, figures) = (viewer.failure(), viewer.figures());
        LeftViewer { id, begun, group, figures, failure, deleted: None }
    }

    pub(super) async fn leave(self) -> LeftViewer {
        let FleetViewer { id, begun, group, viewer } = self;
        let (failure, watch) = (viewer.failure(), viewer.watch());
        let deleted = viewer.stop().await.err();
        // What a viewer saw counts also if its DELETE went wrong.
        LeftViewer { id, begun, group, figures: watch.figures(), failure, deleted }
    }
}

/// What a viewer said when it left.
pub(crate) struct LeftViewer {
    pub(super) id: u64,
    pub(super) begun: Instant,
    pub(super) group: Group,
    pub(super) figures: ViewerFigures,
    pub(super) failure: Option<ClientError>,
    pub(super) deleted: Option<ClientError>,
}
