//! One stream's record: who publishes it, who watches it, and which formats it has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use media_core::layers::LayerReport;
use media_core::media::{Format, MediaSection, TrackId};
use media_core::negotiation::{FormatInUse, Profile, Sent};
use media_core::{SessionId, StreamId};

use super::layers;
use crate::events::{Event, EventStream, Listeners};
use crate::limits::{STREAM_RETENTION, UNCONNECTED_RETENTION};
use crate::view::TrackView;

/// A stream by its name. It keeps its number while it has sessions or is remembered, so that viewers stay with it when the
/// publisher comes back.
#[derive(Debug)]
pub(crate) struct StreamRecord {
    pub(crate) id: StreamId,
    pub(crate) publisher: Option<SessionId>,
    pub(crate) viewers: HashSet<SessionId>,
    /// Somebody posted an offer to publish it, as far as is remembered.
    pub(crate) ever_published: bool,
    /// One who did connected.
    pub(crate) ever_connected: bool,
    /// Tracks of the publisher, or of the last one.
    tracks: Vec<TrackRecord>,
    /// Who of the viewers wants to know what happens to it.
    pub(crate) listeners: Listeners,
    /// The layers of the video that they were last told of.
    told_layers: Vec<LayerReport>,
    /// Since when it has no session.
    pub(crate) idle_since: Option<Instant>,
}

/// What a viewer's offer is matched against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// A publisher holds the stream.
    pub(crate) live: bool,
    pub(crate) tracks: Vec<TrackRecord>,
}

/// One track of a published stream.
#[derive(Clone, Debug)]
pub(crate) struct TrackRecord {
    pub(crate) id: TrackId,
    /// Formats of the publisher's answer.
    pub(crate) formats: Vec<Format>,
    /// The one that it really sends, as the media core last reported.
    pub(crate) in_use: Option<FormatInUse>,
    /// Names of the encodings that it may send.
    rids: Vec<String>,
    /// The layers that it sends, likewise, the lowest quality first.
    layers: Vec<LayerReport>,
}

impl StreamRecord {
    pub(crate) fn new(id: StreamId, now: Instant) -> StreamRecord {
        StreamRecord {
            id,
            publisher: None,
            viewers: HashSet::new(),
            ever_published: false,
            ever_connected: false,
            tracks: Vec::new(),
            listeners: Listeners::default(),
            told_layers: Vec::new(),
            idle_since: Some(now),
        }
    }

    /// A publisher takes the stream; its formats replace the former ones.
    pub(crate) fn publish(&mut self, session: SessionId, sections: &[MediaSection]) {
        // A publisher that takes another's place goes on with what viewers see.
        if self.publisher.replace(session).is_none() {
            self.listeners.raise(&Event::Active);
        }
        self.ever_published = true;
        let track = |(id, section): (TrackId, &MediaSection)| TrackRecord {
            rids: section.simulcast.iter().filter_map(|encoding| encoding.rid.clone()).collect(),
            ..TrackRecord::new(id, section.formats.clone())
        };
        self.tracks = TrackId::of_sections(sections).map(track).collect();
        if self.video().is_none() && !std::mem::take(&mut self.told_layers).is_empty() {
            self.listeners.raise(&Event::Layers(layers::array(&[]).into()));
        }
        self.idle_since = None;
    }

    /// A session leaves.
    pub(crate) fn leave(&mut self, session: SessionId, now: Instant) {
        if self.publisher == Some(session) {
            self.publisher = None;
            self.tracks.iter_mut().for_each(|track| track.layers = Vec::new());
            self.told_layers = Vec::new();
            self.listeners.raise(&Event::Inactive);
        }
        self.viewers.remove(&session);
        self.listeners.leave(session);
        if self.publisher.is_none() && self.viewers.is_empty() && self.idle_since.is_none() {
            self.idle_since = Some(now);
            // Nobody asks for them, and they are nearly all that a name takes.
            self.tracks = Vec::new();
        }
    }

    /// A viewer wants to know: it is told how things are, but not that nobody publishes (EXT-06). False if it is no viewer.
    pub(crate) fn listen(&mut self, session: SessionId, events: EventStream) -> bool {
        if !self.viewers.contains(&session) {
            return false;
        }
        if self.publisher.is_some() {
            events.raise(Event::Active);
        }
        let viewers = self.viewers.len();
        if let Some(track) = self.video().filter(|track| !track.layers.is_empty()) {
            events.raise(Event::Layers(layers::array(&track.layers).into()));
        }
        events.raise(Event::ViewerCount(viewers));
        self.listeners.add(session, Arc::new(events), viewers);
        true
    }

    /// True for one that nobody has been in for so long that it need not be known any more.
    pub(crate) fn is_forgotten(&self, now: Instant) -> bool {
        let retention = if self.ever_connected { STREAM_RETENTION } else { UNCONNECTED_RETENTION };
        self.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= retention)
    }

    /// The media core saw a format in use.
    pub(crate) fn format_in_use(&mut self, session: SessionId, track: TrackId, in_use: FormatInUse) {
        if self.publisher == Some(session) {
            let used = self.tracks.iter_mut().filter(|known| known.id == track);
            used.for_each(|used| used.in_use = Some(in_use));
        }
    }

    /// The media core saw these layers.
    pub(crate) fn set_layers(&mut self, session: SessionId, track: TrackId, layers: Vec<LayerReport>) {
        if self.publisher != Some(session) {
            return;
        }
        if track == TrackId::VIDEO && self.listeners.len() > 0 && layers::differ(&self.told_layers, &layers) {
            self.listeners.raise(&Event::Layers(layers::array(&layers).into()));
            self.told_layers.clone_from(&layers);
        }
        if let Some(known) = self.tracks.iter_mut().find(|known| known.id == track) {
            known.layers = layers;
        }
    }

    /// The layers of the video, and the names of its encodings.
    pub(crate) fn known_layers(&self) -> (Vec<LayerReport>, Vec<String>) {
        self.video().map(|track| (track.layers.clone(), track.rids.clone())).unwrap_or_default()
    }

    fn video(&self) -> Option<&TrackRecord> {
        self.tracks.iter().find(|track| track.id == TrackId::VIDEO).filter(|_| self.publisher.is_some())
    }

    pub(crate) fn published(&self) -> Published {
        Published { live: self.publisher.is_some(), tracks: self.tracks.clone() }
    }

    pub(crate) fn track_views(&self) -> Vec<TrackView> {
        self.tracks.iter().map(TrackRecord::view).collect()
    }
}

impl TrackRecord {
    /// A track of which nothing was received yet.
    pub(crate) fn new(id: TrackId, formats: Vec<Format>) -> TrackRecord {
        TrackRecord { id, formats, in_use: None, rids: Vec::new(), layers: Vec::new() }
    }

    /// The format that the publisher really sends, once a packet was received, and what its stream says of its profile.
    pub(crate) fn sent(&self) -> Option<Sent<'_>> {
        let FormatInUse { payload_type, profile } = self.in_use?;
        let format = self.formats.iter().find(|format| format.payload_type == payload_type)?;
        Some(Sent { format, profile })
    }

    fn view(&self) -> TrackView {
        let mut offered: Vec<&'static str> = Vec::new();
        for format in &self.formats {
            if !offered.contains(&format.codec.encoding_name()) {
                offered.push(format.codec.encoding_name());
            }
        }
        let described = |sent: Sent<'_>| Profile::described(sent.format).ok().flatten();
        TrackView {
            kind: self.id.kind,
            codec: self.sent().map(|sent| sent.format.codec),
            profile: self.sent().and_then(|sent| sent.profile).map(|profile| profile.to_string()),
            described_profile: self.sent().and_then(described).map(|profile| profile.to_string()),
            offered,
            layers: self.layers.clone(),
        }
    }
}
