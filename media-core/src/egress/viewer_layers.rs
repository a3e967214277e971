//! The layers of a viewer: what it is sent now, what its path would carry, and what follows from both.

use std::time::Instant;

use smallvec::SmallVec;

use crate::layers::LayerSelection;
use crate::media::{MediaKind, TrackId};
use crate::stats::SentLayer;
use crate::stream::{Track, Tracks};

use super::egress_track::EgressTrack;
use super::selection::{AUDIO_OVERHEAD, BROKEN, Choice, NEED, Selector, Situation, sent_at};
use super::viewer::Viewer;

/// What follows from a choice of layers.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Encodings, by track and position, that need a keyframe so that the viewer gets where it goes.
    pub keyframes: SmallVec<[(TrackId, u8); 2]>,
    /// Something can be sent that could not be before: a fan-out pass is due.
    pub has_moved: bool,
}

/// The layers of all tracks of a viewer.
#[derive(Debug)]
pub(super) struct ViewerLayers {
    /// Of each of its tracks.
    selectors: Box<[Selector]>,
    /// Payload bits per second of what it is sent.
    media: u64,
    /// Some track could be sent less.
    can_descend: bool,
    /// What it is sent of its first video track.
    sent: Option<SentLayer>,
    /// Bits per second of the best that it may be sent.
    wanted: u64,
}

impl ViewerLayers {
    pub(super) fn new(tracks: usize, media: u64) -> ViewerLayers {
        let selectors = (0..tracks).map(|_| Selector::default()).collect();
        ViewerLayers { selectors, media, can_descend: false, sent: None, wanted: 0 }
    }
}

impl Viewer {
    /// Payload bits per second of what it is sent, at the points where it is.
    pub fn media(&self) -> u64 {
        self.layers.media
    }

    /// What it is sent of its first video track, where that has layers.
    pub fn sent_layer(&self) -> Option<SentLayer> {
        self.layers.sent
    }

    /// True while video pauses, as its path does not carry even the lowest layer.
    pub fn is_video_paused(&self) -> bool {
        self.tracks().iter().any(EgressTrack::is_paused)
    }

    /// What the viewer wants of a track from now on.
    pub fn select_layer(&mut self, track: TrackId, selection: LayerSelection) {
        if let Some(index) = self.tracks().iter().position(|known| known.id() == track) {
            self.layers.selectors[index].set_selection(selection);
        }
    }

    /// Begins to send the viewer what the cache has. Encodings, by track and position, that need a keyframe for that.
    pub fn start(&mut self, now: Instant, tracks: &Tracks) -> SmallVec<[(TrackId, u8); 2]> {
        // What choosing would ask for the cache may have.
        self.choose(now, tracks);
        let mut needed = SmallVec::new();
        for track in self.tracks_mut() {
            match track.entry(now, tracks) {
                Some(entry) => track.enter(now, tracks, &entry),
                None => track.begin(now, tracks),
            }
            needed.extend(track.take_keyframe_request(now, tracks, || true).map(|encoding| (track.id(), encoding)));
        }
        self.measure(tracks);
        needed
    }

    /// True if the viewer's path has become far too narrow for what it is sent, and there is less that it could be sent: it is
    /// not to wait for the next tick.
    pub fn is_overtaxed(&self) -> bool {
        self.layers.can_descend && self.congestion().estimate() as f64 <= BROKEN * NEED * self.layers.media as f64
    }

    /// Chooses its layers; to be called several times a second. `may_request` is asked before a keyframe is requested.
    pub fn choose_layers(&mut self, now: Instant, tracks: &Tracks, mut may_request: impl FnMut() -> bool) -> Chosen {
        self.choose(now, tracks);
        let mut chosen = Chosen::default();
        for track in self.tracks_mut().iter_mut().filter(|track| track.id().kind == MediaKind::Video) {
            chosen.has_moved |= track.is_moving();
            let needed = track.take_keyframe_request(now, tracks, &mut may_request);
            chosen.keyframes.extend(needed.map(|encoding| (track.id(), encoding)));
        }
        chosen
    }

    fn choose(&mut self, now: Instant, tracks: &Tracks) {
        let path = self.congestion().path(now);
        (self.layers.wanted, self.layers.can_descend) = (0, false);
        let carries = path.carries().max(self.congestion().carries() as f64);
        let mut least = None;
        for index in 0..self.tracks().len() {
            let id = self.tracks()[index].id();
            let Some(stream_track) = tracks.get(id).filter(|_| id.kind == MediaKind::Video) else { continue };
            let others = self.need_of_others(index, tracks);
            let (egress, layers) = self.track_and_layers(index);
            let situation = Situation {
                now,
                path,
                carries,
                others,
                layers: stream_track.layers(),
                takes_spatial_layers: egress.takes_spatial_layers(),
                rid: layers.selectors[index].rid().and_then(|rid| stream_track.encoding_named(rid)),
                present: egress.point(),
                ready: if egress.awaits_keyframe() { ready(now, stream_track) } else { 0 },
                waits: egress.awaits_keyframe() && !egress.is_paused(),
                nears_late_drop: stream_track
                    .encoding(egress.encoding_index())
                    .is_some_and(|encoding| egress.nears_late_drop(now, encoding)),
            };
            match layers.selectors[index].choose(&situation) {
                Some(Choice { target, interim, urgent, is_paused, least: lowest, wanted }) => {
                    least = least.max(lowest);
                    egress.set_paused(is_paused);
                    egress.go_to(now, target, interim, urgent);
                    layers.wanted = layers.wanted.max(wanted);
                    layers.can_descend |= situation.layers.first().is_some_and(|lowest| lowest.point != target);
                }
                None => {
                    egress.set_paused(false);
                    egress.stay();
                }
            }
        }
        self.measure(tracks);
        let wanted = self.layers.wanted;
        self.congestion_mut().set_wanted(wanted, least);
    }

    /// What its other tracks need of the path, in bit/s.
    fn need_of_others(&self, index: usize, tracks: &Tracks) -> u64 {
        let others = self.tracks().iter().enumerate().filter(|&(other, _)| other != index);
        others.map(|(_, other)| rate(other, tracks) + if is_audible(other, tracks) { AUDIO_OVERHEAD } else { 0 }).sum()
    }

    /// Learns what it is sent now.
    fn measure(&mut self, tracks: &Tracks) {
        self.layers.media = self.tracks().iter().map(|track| rate(track, tracks)).sum();
        let video = self.tracks().iter().find(|track| track.id().kind == MediaKind::Video);
        self.layers.sent = video.and_then(|video| {
            let track = tracks.get(video.id())?;
            Some(SentLayer { layer: *sent_at(track.layers(), video.point())?, switches: video.switches() })
        });
    }
}

/// Payload bits per second of what a viewer is sent of a track.
fn rate(egress: &EgressTrack, tracks: &Tracks) -> u64 {
    let Some(track) = tracks.get(egress.id()).filter(|_| !egress.is_paused()) else { return 0 };
    let encoding = track.encoding(egress.encoding_index());
    sent_at(track.layers(), egress.point())
        .map_or_else(|| encoding.map_or(0, |encoding| encoding.bitrate()), |layer| layer.bitrate)
}

fn is_audible(egress: &EgressTrack, tracks: &Tracks) -> bool {
    egress.id().kind == MediaKind::Audio && rate(egress, tracks) > 0
}

/// The encodings, one bit each, of which the cache has everything since a keyframe.
fn ready(now: Instant, track: &Track) -> u8 {
    let is_ready = |(index, encoding): (u8, &crate::stream::Encoding)| u8::from(encoding.start(now).is_some()) << index;
    track.encodings().map(is_ready).fold(0, |all, bit| all | bit)
}
