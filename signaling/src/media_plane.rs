//! The little that signalling, the control plane, asks of the media plane.

use media_core::MediaCore;
use media_core::layers::LayerSelection;
use media_core::ledger::Reason;
use media_core::media::{Role, TrackId};
use media_core::{
    Fingerprint, IceRestart, LocalCandidate, RemoteCandidate, SessionId, SessionSpec, ShardIndex, StreamId,
};

/// The media core as signalling sees it; [`MediaCore`] is the real one. None of these calls waits for a shard.
pub trait MediaPlane: Send + Sync + 'static {
    /// SHA-256 fingerprint of the server's certificate, which changes now and then: one session is told one of them.
    fn fingerprint(&self) -> Fingerprint;
    /// Candidates of a shard, the preferred one first.
    fn local_candidates(&self, shard: ShardIndex) -> Vec<LocalCandidate>;
    /// The shard for a new session of a stream.
    fn shard_for(&self, stream: StreamId, role: Role) -> ShardIndex;
    /// Opens a session on a shard.
    fn open(&self, shard: ShardIndex, spec: SessionSpec);
    /// Ends a session; unknown ones are ignored.
    fn close(&self, shard: ShardIndex, session: SessionId, reason: Reason);
    /// Hands trickled candidates to a session.
    fn add_remote_candidates(&self, shard: ShardIndex, session: SessionId, candidates: Vec<RemoteCandidate>);
    /// Lets a viewer have another layer of a track: the next one that it can be given without a seam.
    fn select_layer(&self, shard: ShardIndex, session: SessionId, track: TrackId, selection: LayerSelection);
    /// Restarts a session's ICE with new credentials at both ends.
    fn restart_ice(&self, shard: ShardIndex, session: SessionId, restart: IceRestart);
}

impl MediaPlane for MediaCore {
    fn fingerprint(&self) -> Fingerprint {
        MediaCore::fingerprint(self)
    }

    fn local_candidates(&self, shard: ShardIndex) -> Vec<LocalCandidate> {
        MediaCore::local_candidates(self, shard).to_vec()
    }

    fn shard_for(&self, stream: StreamId, role: Role) -> ShardIndex {
        MediaCore::shard_for(self, stream, role)
    }

    fn open(&self, shard: ShardIndex, spec: SessionSpec) {
        MediaCore::open(self, shard, spec);
    }

    fn close(&self, shard: ShardIndex, session: SessionId, reason: Reason) {
        MediaCore::close(self, shard, session, reason);
    }

    fn add_remote_candidates(&self, shard: ShardIndex, session: SessionId, candidates: Vec<RemoteCandidate>) {
        MediaCore::add_remote_candidates(self, shard, session, candidates);
    }

    fn select_layer(&self, shard: ShardIndex, session: SessionId, track: TrackId, selection: LayerSelection) {
        MediaCore::select_layer(self, shard, session, track, selection);
    }

    fn restart_ice(&self, shard: ShardIndex, session: SessionId, restart: IceRestart) {
        MediaCore::restart_ice(self, shard, session, restart);
    }
}
