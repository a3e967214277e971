//! What viewers are told of their stream while they watch it: the server-sent events of WHEP's core extensions.
//!
//! A viewer's session has event streams below its URL. Each takes the events that it was asked for into a queue of its own, from
//! its POST on, and gives them to whoever reads it (HTML standard §9.2).

mod listeners;
mod resource;
mod stream;

use std::sync::Arc;

use axum::response::sse;
use strum::{EnumString, IntoStaticStr, VariantArray};

pub(crate) use self::listeners::Listeners;
#[cfg(feature = "fuzzing")]
pub(crate) use self::resource::read_kinds;
pub(crate) use self::resource::{
    create, create_method_not_allowed, create_options, delete, get, head, method_not_allowed, options,
};
pub(crate) use self::stream::EventStream;

/// A kind of event. `scte35` is missing: no message of it reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum EventKind {
    /// Somebody publishes the stream.
    Active,
    /// Nobody does any more.
    Inactive,
    /// The layers of the video.
    Layers,
    /// The viewer should open another session.
    Reconnect,
    /// How many watch.
    ViewerCount,
}

impl EventKind {
    /// The name in `event:` and in `Link`.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }

    /// The names of all, as the `events` parameter of the `Link` has them.
    pub(crate) fn names() -> String {
        EventKind::VARIANTS.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",")
    }

    /// A later event of the kind says all that an earlier one does.
    fn is_state(self) -> bool {
        matches!(self, EventKind::Layers | EventKind::ViewerCount)
    }
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventKinds(u8);

impl EventKinds {
    /// All of them.
    pub(crate) fn all() -> EventKinds {
        EventKind::VARIANTS.iter().copied().collect()
    }

    fn without(self, kind: EventKind) -> EventKinds {
        EventKinds(self.0 & !(1 << kind as u8))
    }

    fn has(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

impl FromIterator<EventKind> for EventKinds {
    fn from_iter<T: IntoIterator<Item = EventKind>>(kinds: T) -> EventKinds {
        EventKinds(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// See [`EventKind::Active`].
    Active,
    /// See [`EventKind::Inactive`].
    Inactive,
    /// The layers as a JSON array, which all viewers share.
    Layers(Arc<str>),
    /// The WHEP endpoint to go to, if it is another one than before.
    Reconnect(Option<Arc<str>>),
    /// Viewers of the stream.
    ViewerCount(usize),
}

impl Event {
    pub(crate) fn kind(&self) -> EventKind {
        match self {
            Event::Active => EventKind::Active,
            Event::Inactive => EventKind::Inactive,
            Event::Layers(_) => EventKind::Layers,
            Event::Reconnect(_) => EventKind::Reconnect,
            Event::ViewerCount(_) => EventKind::ViewerCount,
        }
    }

    /// The `data:` line. Layers belong to an m-line of the viewer's own description.
    fn data(&self, video_line: usize) -> String {
        match self {
            Event::Active | Event::Inactive | Event::Reconnect(None) => "{}".to_owned(),
            Event::Layers(layers) => format!("{{\"{video_line}\":{layers}}}"),
            Event::Reconnect(Some(url)) => serde_json::json!({ "url": &**url }).to_string(),
            Event::ViewerCount(count) => format!("{{\"viewercount\":{count}}}"),
        }
    }

    fn to_sse(&self, video_line: usize) -> sse::Event {
        sse::Event::default().event(self.kind().as_str()).data(self.data(video_line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // EXT-01
    #[test]
    fn the_kinds_of_events_go_by_the_names_of_the_draft() {
        assert_eq!(EventKind::names(), "active,inactive,layers,reconnect,viewercount");
        for kind in EventKind::VARIANTS {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert!(EventKinds::all().has(*kind) && !EventKinds::default().has(*kind));
        }
        assert!("scte35".parse::<EventKind>().is_err());
    }

    // EXT-03, EXT-07, EXT-08, EXT-09
    #[test]
    fn the_data_of_each_event_is_one_line_of_json() {
        let layers = Event::Layers("[{\"rid\":\"h\"}]".into());
        for (event, data) in [
            (Event::Active, "{}"),
            (Event::Inactive, "{}"),
            (layers, "{\"1\":[{\"rid\":\"h\"}]}"),
            (Event::Reconnect(None), "{}"),
            (Event::Reconnect(Some("https://b.example/whep/s".into())), "{\"url\":\"https://b.example/whep/s\"}"),
            (Event::ViewerCount(3), "{\"viewercount\":3}"),
        ] {
            assert_eq!(event.data(1), data);
            assert!(serde_json::from_str::<serde_json::Value>(data).is_ok(), "{data}");
        }
    }
}
