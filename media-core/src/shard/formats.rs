//! What a publisher really sends, and what becomes of viewers who cannot take it.

use std::time::Instant;

use smallvec::SmallVec;

use crate::event::CoreEvent;
use crate::ledger::{Reason, Stage, WarningCode};
use crate::media::{MediaKind, TrackId};
use crate::rtp::compat::carrier;
use crate::rtp::profile::{FormatInUse, describe, describe_all};
use crate::session::{Media, Session};
use crate::stream::PublishedTrack;

use super::Shard;
use super::mailbox::ShardMessage;

impl Shard {
    /// Tells control and the viewers of formats that a publisher began to use, and of other profiles.
    pub(super) fn take_format_changes(&mut self, now: Instant, publisher: usize) {
        let session = &mut self.sessions.slab[publisher];
        let (id, stream) = (session.id, session.stream);
        let Some(ingest) = session.ingest_mut() else { return };
        for (track, in_use) in ingest.take_format_changes(now) {
            // Control has stopped listening only when the server ends.
            let _ = self.events.send(CoreEvent::FormatInUse { session: id, track, in_use });
            self.set_format_in_use(now, stream, track, in_use);
        }
    }

    /// A track of a stream is sent in this format: each viewer here, and on the shards that it feeds, goes on with it or is
    /// told that it cannot.
    pub(super) fn set_format_in_use(&mut self, now: Instant, key: usize, track: TrackId, in_use: FormatInUse) {
        let stream = &mut self.streams.slab[key];
        for &shard in stream.feeder.shards() {
            self.links[shard].send(ShardMessage::FormatInUse(stream.id, track, in_use));
        }
        let published = stream.published.iter_mut().flatten().find(|published| published.id == track);
        let Some(published) = published else { return };
        published.in_use = Some(in_use);
        for viewer in stream.viewers.clone() {
            self.judge_viewer(now, viewer, track);
        }
    }

    /// Ends a viewer that cannot be sent a track in the format that is in use, or that was answered without the track and
    /// could have it now: a new session is answered as the stream is.
    pub(super) fn judge_viewer(&mut self, now: Instant, viewer: usize, track: TrackId) {
        let session = &mut self.sessions.slab[viewer];
        let published = self.streams.slab[session.stream].published.iter().flatten();
        let Some(published) = published.into_iter().find(|published| published.id == track) else { return };
        let verdict = judge(now, session, published);
        self.publish_events(viewer);
        if let Some((reason, detail)) = verdict {
            self.sessions.slab[viewer].lifecycle.on_failure(now, Stage::Media, reason, detail);
            self.end(now, viewer, reason);
        }
    }

    /// Judges a viewer by all that is published.
    pub(super) fn judge_new_viewer(&mut self, now: Instant, viewer: usize) {
        let session = &self.sessions.slab[viewer];
        let (id, stream) = (session.id, &self.streams.slab[session.stream]);
        let tracks: SmallVec<[TrackId; 2]> = stream.published.iter().flatten().map(|track| track.id).collect();
        for track in tracks {
            // The first verdict may have ended it.
            if self.sessions.find(id) == Some(viewer) {
                self.judge_viewer(now, viewer, track);
            }
        }
    }
}

/// Why a viewer cannot go on now that a track is sent in the format in use; `None` if it can.
fn judge(now: Instant, session: &mut Session, published: &PublishedTrack) -> Option<(Reason, String)> {
    let (sent, kind) = (published.sent()?, published.id.kind);
    let words = describe(sent.format, sent.profile);
    let Media::Viewer(watching) = &mut session.media else { return None };
    let mut tracks = watching.viewer.tracks_mut().iter_mut();
    if let Some(track) = tracks.find(|track| track.id() == published.id) {
        track.set_publisher_formats(&published.formats, published.in_use);
        if track.carries(sent.format.payload_type) {
            session.lifecycle.clear(now, Stage::Media, (WarningCode::TrackMissing, Some(kind)));
            return None;
        }
        let takes = describe_all(track.formats());
        let detail = format!("{}: the publisher sends {words}; the viewer takes {takes}", kind.as_str());
        return Some((Reason::UnsupportedCodec, detail));
    }
    // A description has one track of a kind that may be refused: the first.
    let refused = session.negotiated.refused.iter().filter(|section| section.kind == kind);
    let could_have = published.id.ordinal == 0 && refused.into_iter().any(|one| carrier(sent, &one.formats).is_some());
    could_have.then(|| {
        let detail = format!("{}: the publisher sends {words}, which the viewer was answered without", kind.as_str());
        (Reason::TrackAdded, detail)
    })
}

/// What the ledger says of a viewer whose publisher has come back without a track.
pub(super) fn missing(kind: MediaKind) -> String {
    format!("the publisher has no {}; the session goes on with what there is", kind.as_str())
}
