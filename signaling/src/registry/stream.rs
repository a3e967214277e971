//! One stream's record: who publishes it, who watches it, and which formats it has.

use std::collections::HashSet;
use std::time::Instant;

use media_core::media::{Format, MediaKind, MediaSection};
use media_core::session::{SessionId, StreamId};

use crate::view::TrackView;

/// A stream by its name. It keeps its number while it has sessions or is remembered, so that viewers stay with it when the
/// publisher comes back.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) publisher: Option<SessionId>,
    pub(crate) viewers: HashSet<SessionId>,
    /// Somebody published it since the start.
    pub(crate) published: bool,
    /// Sections of the publisher, or of the last one.
    pub(crate) tracks: Vec<MediaSection>,
    /// Payload type in use by kind, as the core last reported.
    in_use: [Option<u8>; 2],
    /// Since when it has no session.
    pub(crate) idle_since: Option<Instant>,
}

/// What a viewer's offer is matched against.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// A publisher holds the stream.
    pub(crate) live: bool,
    pub(crate) tracks: Vec<PublishedTrack>,
}

/// One track of a published stream.
#[derive(Clone, Debug)]
pub(crate) struct PublishedTrack {
    pub(crate) kind: MediaKind,
    /// Formats of the publisher's answer.
    pub(crate) formats: Vec<Format>,
    /// The one that it really sends, once a packet came.
    pub(crate) in_use: Option<u8>,
}

impl Stream {
    pub(crate) fn new(id: StreamId, now: Instant) -> Stream {
        Stream {
            id,
            publisher: None,
            viewers: HashSet::new(),
            published: false,
            tracks: Vec::new(),
            in_use: [None; 2],
            idle_since: Some(now),
        }
    }

    /// A publisher takes the stream; its formats replace the former ones.
    pub(crate) fn publish(&mut self, session: SessionId, tracks: Vec<MediaSection>) {
        self.publisher = Some(session);
        self.published = true;
        self.tracks = tracks;
        self.in_use = [None; 2];
        self.idle_since = None;
    }

    /// A session leaves.
    pub(crate) fn leave(&mut self, session: SessionId, now: Instant) {
        if self.publisher == Some(session) {
            self.publisher = None;
        }
        self.viewers.remove(&session);
        if self.publisher.is_none() && self.viewers.is_empty() && self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
    }

    /// The core saw a format in use.
    pub(crate) fn format_in_use(&mut self, session: SessionId, kind: MediaKind, payload_type: u8) {
        if self.publisher == Some(session) {
            self.in_use[kind.index()] = Some(payload_type);
        }
    }

    pub(crate) fn published(&self) -> Published {
        let tracks = self.tracks.iter().map(|section| PublishedTrack {
            kind: section.kind,
            formats: section.formats.clone(),
            in_use: self.in_use[section.kind.index()],
        });
        Published { live: self.publisher.is_some(), tracks: tracks.collect() }
    }

    pub(crate) fn track_views(&self) -> Vec<TrackView> {
        let view = |section: &MediaSection| {
            let in_use = self.in_use[section.kind.index()];
            let mut offered: Vec<&'static str> = Vec::new();
            for format in &section.formats {
                if !offered.contains(&format.codec.encoding_name()) {
                    offered.push(format.codec.encoding_name());
                }
            }
            let used = section.formats.iter().find(|format| Some(format.payload_type) == in_use);
            TrackView { kind: section.kind, codec: used.map(|format| format.codec), offered }
        };
        self.tracks.iter().map(view).collect()
    }
}
