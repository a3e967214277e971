//! A viewer of a test, from its join to its leave.

use std::time::{Duration, Instant};

use crate::client::{ClientError, Pictures, Viewer, ViewerFigures};
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
        let (failure, figures, pictures) = (viewer.failure(), viewer.figures(), viewer.pictures());
        LeftViewer { id, begun, group, stayed: begun.elapsed(), figures, pictures, failure, deleted: None }
    }

    pub(super) async fn leave(self) -> LeftViewer {
        let FleetViewer { id, begun, group, viewer } = self;
        let (failure, watch, stayed) = (viewer.failure(), viewer.watch(), begun.elapsed());
        let deleted = viewer.stop().await.err();
        // What a viewer saw counts also if its DELETE went wrong.
        let (figures, pictures) = (watch.figures(), watch.pictures());
        LeftViewer { id, begun, group, stayed, figures, pictures, failure, deleted }
    }
}

/// What a viewer said when it left.
pub(crate) struct LeftViewer {
    pub(super) id: u64,
    pub(super) begun: Instant,
    pub(super) group: Group,
    /// Until it began to leave.
    pub(super) stayed: Duration,
    pub(super) figures: ViewerFigures,
    /// What it saw of layers.
    pub(super) pictures: Pictures,
    pub(super) failure: Option<ClientError>,
    pub(super) deleted: Option<ClientError>,
}
