//! The tracks of a stream inside one shard.

use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::layers::{Layer, LayerReport, MAX_ENCODINGS, OperatingPoint};
use crate::media::{Format, MediaSection, TrackId};
use crate::rtp::compat::Sent;
use crate::rtp::profile::FormatInUse;
use crate::rtp::video_layers_allocation::VideoLayersAllocation;

use super::cache_budget::CacheBudget;
use super::encoding::{DescribedLayers, Encoding, Standing};

/// An encoding of which nothing came for so long, and for the time of three of its pictures, while others of its track were
/// received, is paused by its publisher.
const PAUSED: Duration = Duration::from_millis(500);

/// One of which the publisher says so is after this time, in which its last packets come.
const SAID_PAUSED: Duration = Duration::from_millis(100);

/// All encodings of a track, one bit each.
const ALL_ENCODINGS: u8 = (1 << MAX_ENCODINGS) - 1;

/// A track of the present publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTrack {
    /// Its name.
    pub id: TrackId,
    /// The formats of the publisher's answer.
    pub formats: Vec<Format>,
    /// The one that it really sends, once a packet was received.
    pub in_use: Option<FormatInUse>,
    /// `a=rid` of its encodings, by their position (RFC 8851 §10); empty without simulcast.
    pub rids: Vec<Option<String>>,
}

impl PublishedTrack {
    /// A track of which nothing was received.
    pub fn new(id: TrackId, section: &MediaSection) -> PublishedTrack {
        let rids = section.simulcast.iter().map(|encoding| encoding.rid.clone()).collect();
        PublishedTrack { id, formats: section.formats.clone(), in_use: None, rids }
    }

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
    /// The versions of its media of which a viewer is sent one at a time, each with its own numbers: one, without simulcast.
    /// All are on one time line.
    encodings: Vec<Encoding>,
    /// `a=rid` of the present publisher's encodings, by their position.
    rids: Vec<Option<String>>,
    /// What a viewer can be sent of it: at present, and as it was before.
    layers: Vec<Layer>,
    layers_before: Vec<Layer>,
    layers_changed: bool,
    /// The encodings that somebody reads or wants to, one bit each.
    watched: u8,
    keyframe_request_interval: Duration,
    caches: CacheBudget,
}

impl Track {
    fn new(id: TrackId, keyframe_request_interval: Duration, caches: CacheBudget) -> Track {
        let mut track = Track {
            id,
            clock: None,
            source: Source::Awaited,
            encodings: Vec::new(),
            rids: Vec::new(),
            layers: Vec::new(),
            layers_before: Vec::new(),
            layers_changed: false,
            watched: ALL_ENCODINGS,
            keyframe_request_interval,
            caches,
        };
        track.make_encodings(1);
        track
    }

    /// It has at least so many encodings, up to the bound. They outlive publishers, as the track does.
    pub fn make_encodings(&mut self, count: usize) {
        let count = count.min(MAX_ENCODINGS);
        while self.encodings.len() < count {
            let encoding = Encoding::new(self.id.kind, self.caches.clone(), self.keyframe_request_interval);
            self.encodings.push(encoding);
        }
    }

    /// The first packet of another RTP stream of an encoding is received now: its time goes on from that of the track.
    pub fn align(&mut self, now: Instant, index: u8) {
        if self.encodings.len() == 1 {
            return;
        }
        let present = self.encodings.iter().filter_map(|encoding| encoding.timeline.present(now));
        let present = present.max_by_key(|&(_, arrived)| arrived).map(|(timestamp, _)| timestamp);
        if let Some(encoding) = self.encoding_mut(index) {
            encoding.timeline.begin_at(present);
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

    /// As [`Track::encoding_mut`], of one that another shard has: it is made if there is none yet.
    pub fn get_or_insert_encoding(&mut self, index: u8) -> Option<&mut Encoding> {
        self.make_encodings(usize::from(index) + 1);
        self.encoding_mut(index)
    }

    /// All encodings with their positions.
    pub fn encodings(&self) -> impl Iterator<Item = (u8, &Encoding)> {
        (0..).zip(&self.encodings)
    }

    /// All encodings with their positions.
    pub fn encodings_mut(&mut self) -> impl Iterator<Item = (u8, &mut Encoding)> {
        (0..).zip(&mut self.encodings)
    }

    /// Learns which encodings viewers are sent or wait for, one bit each. Those that nobody watches for a while get no keyframe
    /// requests of the server's own, and a small cache. Where nobody watches at all the lowest quality is kept for the next
    /// viewer. `may_copy`: no fan-out pass is about its packets.
    pub fn set_watched(&mut self, now: Instant, watched: u8, may_copy: bool) {
        self.watched = match (watched, self.layers.first()) {
            (0, None) => ALL_ENCODINGS,
            (0, Some(lowest)) => 1 << lowest.point.encoding,
            _ => watched,
        };
        for (index, encoding) in (0..).zip(&mut self.encodings) {
            encoding.set_watched(now, self.watched & (1 << index) != 0, may_copy);
        }
    }

    /// The publisher sends what no decoder can use without a keyframe. It is requested if somebody watches the encoding, or
    /// if nothing of the track can be decoded.
    pub fn lacks_keyframe(&mut self, index: u8) {
        let is_watched = self.watched & (1 << index) != 0;
        let is_decodable = self.encodings.iter().any(|encoding| encoding.last_arrival().is_some());
        if (is_watched || !is_decodable)
            && let Some(encoding) = self.encoding_mut(index)
        {
            encoding.keyframe_requests.request();
        }
    }

    /// The encoding that the present publisher names so.
    pub fn encoding_named(&self, rid: &str) -> Option<u8> {
        let index = self.rids.iter().position(|known| known.as_deref() == Some(rid))?;
        u8::try_from(index).ok()
    }

    /// What a viewer can be sent of it at present, from the lowest quality to the highest; none of audio. A layer that the
    /// publisher has paused is none of them.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// True if there are other layers than at the last call, or they have other sizes.
    pub fn take_layers_changed(&mut self) -> bool {
        std::mem::take(&mut self.layers_changed)
    }

    /// The layers for control: after those that are sent the encodings that are paused.
    pub fn layer_reports(&self) -> Vec<LayerReport> {
        let rid = |encoding: u8| self.rids.get(usize::from(encoding)).cloned().flatten();
        let sent = self.layers.iter().map(|&layer| LayerReport { rid: rid(layer.point.encoding), layer });
        let is_sent = |encoding| self.layers.iter().any(|layer| layer.point.encoding == encoding);
        let paused = (0..self.rids.len() as u8).filter(|&encoding| !is_sent(encoding)).map(|encoding| {
            let sizes = self.encoding(encoding).map(|encoding| encoding.described.sizes).unwrap_or_default();
            let (width, height) = sizes.into_iter().rev().flatten().next().unwrap_or_default();
            let point = OperatingPoint { encoding, spatial: 0, temporal: 0 };
            LayerReport {
                rid: rid(encoding),
                layer: Layer { point, bitrate: 0, width, height, frame_rate: 0.0, keyframe_bytes: 0 },
            }
        });
        sent.chain(paused).collect()
    }

    /// Measures rates and finds out which layers are sent; to be called several times a second.
    fn measure(&mut self, now: Instant) {
        self.encodings.iter_mut().for_each(|encoding| encoding.measure(now));
        std::mem::swap(&mut self.layers, &mut self.layers_before);
        self.layers.clear();
        let newest = self.encodings.iter().filter_map(Encoding::last_arrival).max();
        for (index, encoding) in (0..).zip(&self.encodings) {
            let (Some(last), Some(newest)) = (encoding.last_arrival(), newest) else { continue };
            // All of a track pause together where nothing moves, or the network stalls. One that does so alone is paused.
            let longest = match encoding.picture_interval() {
                _ if encoding.is_off => SAID_PAUSED,
                Some(interval) => PAUSED.max(3 * interval),
                None => PAUSED,
            };
            if newest.saturating_duration_since(last) < longest {
                self.layers.extend(encoding.layers(index));
            }
        }
        let sizes_are_known = self.layers.iter().all(|layer| layer.width > 0);
        self.layers.sort_unstable_by_key(|layer| {
            let area = u32::from(layer.width) * u32::from(layer.height);
            (if sizes_are_known { area } else { 0 }, layer.bitrate, layer.point)
        });
        let is_same =
            |one: &Layer, other: &Layer| (one.point, one.width, one.height) == (other.point, other.width, other.height);
        // Rates may have changed their order.
        let is_known = |layer: &Layer| self.layers_before.iter().any(|before| is_same(before, layer));
        self.layers_changed |= self.layers.len() != self.layers_before.len() || !self.layers.iter().all(is_known);
    }

    /// Of which encodings the publisher takes or answers no keyframe requests, one bit each.
    pub fn requests_ignored(&self) -> u8 {
        let are_ignored =
            |(index, encoding): (u8, &Encoding)| u8::from(encoding.keyframe_requests.are_ignored()) << index;
        self.encodings().map(are_ignored).sum()
    }

    /// Learns from the home shard what [`Track::requests_ignored`] says there.
    pub fn set_requests_ignored(&mut self, ignored: u8) {
        self.make_encodings((u8::BITS - ignored.leading_zeros()) as usize);
        for (index, encoding) in self.encodings_mut() {
            encoding.keyframe_requests.set_ignored(ignored & (1 << index) != 0);
        }
    }

    /// What its stream says of its layers, by encoding.
    pub fn described(&self) -> [DescribedLayers; MAX_ENCODINGS] {
        std::array::from_fn(|index| self.encodings.get(index).map(|encoding| encoding.described).unwrap_or_default())
    }

    /// Learns from the home shard what [`Track::described`] says there.
    pub fn set_described(&mut self, described: &[DescribedLayers; MAX_ENCODINGS]) {
        self.encodings.iter_mut().zip(described).for_each(|(encoding, described)| encoding.described = *described);
    }

    /// The publisher says which layers it means to send, and how large.
    pub fn on_allocation(&mut self, allocation: &VideoLayersAllocation) {
        for (index, encoding) in (0..).zip(&mut self.encodings) {
            let mut layers = allocation.layers.iter().filter(|layer| layer.encoding == index).peekable();
            encoding.is_off = layers.peek().is_none();
            for layer in layers {
                let size = encoding.described.sizes.get_mut(usize::from(layer.spatial));
                if let (Some(size), Some((width, height, _))) = (size, layer.size) {
                    *size = Some((width, height));
                }
            }
        }
    }

    /// Payload bits per second over the last second or so.
    pub fn bitrate(&self) -> u64 {
        self.encodings.iter().map(Encoding::bitrate).sum()
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

    /// The same with the lowest of each track's layers, where it has some.
    pub fn least_bitrate(&self) -> u64 {
        let least = |track: &Track| track.layers.first().map_or_else(|| track.bitrate(), |lowest| lowest.bitrate);
        self.tracks.iter().map(least).sum()
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
            track.encodings.iter_mut().for_each(|encoding| encoding.keyframe_requests.on_publisher(negotiated));
            track.source = Source::Awaited;
            track.rids = published.map_or_else(Vec::new, |published| published.rids.clone());
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
        self.tracks.iter_mut().for_each(|track| track.measure(now));
    }

    /// Begins a fan-out pass: it is about the packets received until now.
    pub fn begin_pass(&mut self) {
        self.encodings_mut().for_each(Encoding::begin_pass);
    }

    /// True if some track has several encodings.
    pub fn have_simulcast(&self) -> bool {
        self.tracks.iter().any(|track| track.encodings.len() > 1)
    }

    /// True if packets were received since the fan-out pass began.
    pub fn have_grown_since_pass(&self) -> bool {
        self.tracks.iter().flat_map(|track| &track.encodings).any(Encoding::has_grown_since_pass)
    }

    fn end_publication(&mut self) {
        self.encodings_mut().for_each(Encoding::end_publication);
        for track in &mut self.tracks {
            track.clock = None;
            (track.layers_changed, track.watched) = (false, ALL_ENCODINGS);
            track.layers.clear();
        }
    }

    fn encodings_mut(&mut self) -> impl Iterator<Item = &mut Encoding> {
        self.tracks.iter_mut().flat_map(|track| &mut track.encodings)
    }
}
