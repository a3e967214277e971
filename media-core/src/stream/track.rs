//! The tracks of a stream inside one shard.

use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::media::{Format, TrackId};
use crate::rtp::compat::Sent;
use crate::rtp::profile::FormatInUse;

use super::cache_budget::CacheBudget;
use super::encoding::{Encoding, Standing};
use super::keyframe_requests::KeyframeRequests;

/// A track of the present publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTrack {
    /// Its name.
    pub id: TrackId,
    /// The formats of the publisher's answer.
    pub formats: Vec<Format>,
    /// The one that it really sends, once a packet was received.
    pub in_use: Option<FormatInUse>,
}

impl PublishedTrack {
    /// The format in use, with what its stream says of its profile.
    pub fn sent(&self) -> Option<Sent<'_>> {
        let FormatInUse { payload_type, profile } = self.in_use?;
        let format = self.formats.iter().find(|format| format.payload_type == payload_type)?;
        Some(Sent { format, profile })
    }
}

/// What the publisher sends of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nothing that a decoder could start with, as yet.
    #[default]
    Awaited,
    /// Media.
    Flowing,
    /// It was offered, and nothing was received in all the time that it may take.
    Missing,
    /// Video without a keyframe, for longer than that may take.
    NoKeyframe,
    /// Nothing any more, after the packet received at this time.
    Stopped(Instant),
}

impl Source {
    /// True for what is neither well nor may still become so in time.
    pub fn is_at_fault(&self) -> bool {
        matches!(self, Source::Missing | Source::NoKeyframe | Source::Stopped(_))
    }
}

/// One track: what viewers see as a media track. It outlives publishers: its numbers go on where the last one ended.
pub struct Track {
    /// Its name.
    pub id: TrackId,
    /// Which wall-clock time belongs to its RTP timestamps, while a publisher sends.
    pub clock: Option<ClockPoint>,
    /// What the publisher sends of it.
    pub source: Source,
    /// The requests of its viewers for a keyframe.
    pub keyframe_requests: KeyframeRequests,
    /// The versions of its media of which a viewer is sent one at a time, each with its own numbers: one, without simulcast.
    encodings: Vec<Encoding>,
}

impl Track {
    fn new(id: TrackId, keyframe_request_interval: Duration, caches: CacheBudget) -> Track {
        let keyframe_requests = KeyframeRequests::new(keyframe_request_interval);
        Track {
            id,
            clock: None,
            source: Source::Awaited,
            keyframe_requests,
            encodings: vec![Encoding::new(id.kind, caches)],
        }
    }

    /// An encoding by its position among those of the track, counted from 0.
    #[inline]
    pub fn encoding(&self, index: u8) -> Option<&Encoding> {
        self.encodings.get(usize::from(index))
    }

    /// As [`Track::encoding`].
    #[inline]
    pub fn encoding_mut(&mut self, index: u8) -> Option<&mut Encoding> {
        self.encodings.get_mut(usize::from(index))
    }

    /// All encodings with their positions.
    pub fn encodings(&self) -> impl Iterator<Item = (u8, &Encoding)> {
        (0..).zip(&self.encodings)
    }

    /// Payload bits per second over the last second or so.
    pub fn bitrate(&self) -> u64 {
        self.encodings.iter().map(Encoding::bitrate).sum()
    }

    /// True if the publisher is to be asked for a keyframe now.
    pub fn poll_keyframe_request(&mut self, now: Instant) -> bool {
        let bytes = self.encodings.iter().map(Encoding::bytes);
        let (received, keyframes) = bytes.fold((0, 0), |(all, keyframes), one| (all + one.0, keyframes + one.1));
        self.keyframe_requests.poll(now, received, keyframes)
    }
}

/// The tracks of a stream inside one shard.
pub struct Tracks {
    tracks: Vec<Track>,
    keyframe_request_interval: Duration,
    caches: CacheBudget,
}

impl Tracks {
    /// No tracks yet; at most one keyframe request for each goes to the publisher in `keyframe_request_interval`.
    pub fn new(keyframe_request_interval: Duration) -> Tracks {
        Tracks::within(CacheBudget::unlimited(), keyframe_request_interval)
    }

    /// Likewise, with caches that share a budget.
    pub fn within(caches: CacheBudget, keyframe_request_interval: Duration) -> Tracks {
        Tracks { tracks: Vec::new(), keyframe_request_interval, caches }
    }

    /// As [`Encoding::save_memory`], of all encodings.
    pub fn save_memory(&mut self, all: bool) -> bool {
        self.encodings_mut().fold(false, |saves, encoding| encoding.save_memory(all) | saves)
    }

    /// A track by its name.
    #[inline]
    pub fn get(&self, id: TrackId) -> Option<&Track> {
        self.tracks.iter().find(|track| track.id == id)
    }

    /// A track by its name, made if there is none yet. Names come from negotiated sections, of which there are few.
    pub fn get_or_insert(&mut self, id: TrackId) -> &mut Track {
        let index = self.tracks.iter().position(|track| track.id == id).unwrap_or_else(|| {
            self.tracks.push(Track::new(id, self.keyframe_request_interval, self.caches.clone()));
            self.tracks.len() - 1
        });
        &mut self.tracks[index]
    }

    /// One encoding of a track.
    #[inline]
    pub fn encoding(&self, id: TrackId, index: u8) -> Option<&Encoding> {
        self.get(id)?.encoding(index)
    }

    /// One encoding of a track.
    #[inline]
    pub fn encoding_mut(&mut self, id: TrackId, index: u8) -> Option<&mut Encoding> {
        self.get_mut(id)?.encoding_mut(index)
    }

    /// As [`Tracks::get`].
    pub fn get_mut(&mut self, id: TrackId) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.id == id)
    }

    /// All tracks, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter()
    }

    /// As [`Tracks::iter`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Track> {
        self.tracks.iter_mut()
    }

    /// What the publisher sends of each track.
    pub fn sources(&self) -> impl Iterator<Item = (TrackId, Source)> {
        self.tracks.iter().map(|track| (track.id, track.source))
    }

    /// Payload bits per second of all tracks that were received recently.
    pub fn bitrate(&self) -> u64 {
        self.tracks.iter().map(Track::bitrate).sum()
    }

    /// A publisher connected with these tracks, or the last one is gone (`None`). Nothing of the one before is sent again.
    pub fn set_publisher(&mut self, published: Option<&[PublishedTrack]>) {
        self.end_publication();
        for track in published.into_iter().flatten() {
            self.get_or_insert(track.id);
        }
        let takes_requests = |format: &Format| format.feedback.pli || format.feedback.fir;
        for track in &mut self.tracks {
            let published = published.and_then(|published| published.iter().find(|known| known.id == track.id));
            let negotiated = published.is_none_or(|published| published.formats.iter().any(takes_requests));
            track.keyframe_requests.on_publisher(negotiated);
            track.source = Source::Awaited;
        }
    }

    /// How far the numbers of all encodings have come.
    pub fn standings(&self) -> impl Iterator<Item = (TrackId, u8, Standing)> {
        let of_track = |track: &Track| {
            let id = track.id;
            let standings =
                track.encodings().filter_map(move |(index, encoding)| Some((id, index, encoding.standing()?)));
            standings.collect::<Vec<_>>()
        };
        self.tracks.iter().flat_map(of_track)
    }

    /// Measures the rates; to be called several times a second.
    pub fn measure(&mut self, now: Instant) {
        self.encodings_mut().for_each(|encoding| encoding.measure(now));
    }

    /// Begins a fan-out pass: it is about the packets received until now.
    pub fn begin_pass(&mut self) {
        self.encodings_mut().for_each(Encoding::begin_pass);
    }

    /// True if packets were received since the fan-out pass began.
    pub fn have_grown_since_pass(&self) -> bool {
        self.tracks.iter().flat_map(|track| &track.encodings).any(Encoding::has_grown_since_pass)
    }

    fn end_publication(&mut self) {
        self.encodings_mut().for_each(Encoding::end_publication);
        self.tracks.iter_mut().for_each(|track| track.clock = None);
    }

    fn encodings_mut(&mut self) -> impl Iterator<Item = &mut Encoding> {
        self.tracks.iter_mut().flat_map(|track| &mut track.encodings)
    }
}
