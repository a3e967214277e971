//! Which encodings of a stream are watched, by shard and track.

use smallvec::SmallVec;

use crate::media::TrackId;
use crate::spec::ShardIndex;

/// One bit for each encoding that a viewer is sent or waits for.
#[derive(Debug, Default)]
pub(super) struct Watched {
    shards: SmallVec<[(ShardIndex, TrackId, u8); 2]>,
}

impl Watched {
    /// The viewers of a shard have these encodings; true if that has changed.
    pub(super) fn set(&mut self, shard: ShardIndex, wanted: impl Iterator<Item = (TrackId, u8)>) -> bool {
        let mut tracks: SmallVec<[(TrackId, u8); 4]> = SmallVec::new();
        for (track, encodings) in wanted {
            match tracks.iter_mut().find(|(known, _)| *known == track) {
                Some((_, all)) => *all |= encodings,
                None => tracks.push((track, encodings)),
            }
        }
        tracks.sort_unstable();
        if self.of(shard).eq(tracks.iter().copied()) {
            return false;
        }
        self.shards.retain(|(known, ..)| *known != shard);
        self.shards.extend(tracks.into_iter().map(|(track, encodings)| (shard, track, encodings)));
        true
    }

    /// What the viewers of a shard have.
    pub(super) fn of(&self, shard: ShardIndex) -> impl Iterator<Item = (TrackId, u8)> {
        self.shards.iter().filter(move |(known, ..)| *known == shard).map(|&(_, track, encodings)| (track, encodings))
    }

    /// What the viewers of all shards have of a track.
    pub(super) fn all(&self, track: TrackId) -> u8 {
        self.shards.iter().filter(|(_, known, _)| *known == track).fold(0, |all, (_, _, encodings)| all | encodings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_viewer_of_any_shard_has_is_watched() {
        let mut watched = Watched::default();
        assert!(!watched.set(0, std::iter::empty()));
        let viewers = [(TrackId::VIDEO, 1), (TrackId::AUDIO, 1), (TrackId::VIDEO, 4)];
        assert!(watched.set(0, viewers.into_iter()) && !watched.set(0, viewers.into_iter().rev()));
        assert!(watched.set(1, [(TrackId::VIDEO, 2)].into_iter()));
        assert_eq!((watched.all(TrackId::VIDEO), watched.all(TrackId::AUDIO)), (7, 1));
        assert_eq!(watched.of(0).collect::<Vec<_>>(), [(TrackId::AUDIO, 1), (TrackId::VIDEO, 5)]);
        assert!(watched.set(0, std::iter::empty()));
        assert_eq!(watched.all(TrackId::VIDEO), 2);
    }
}
