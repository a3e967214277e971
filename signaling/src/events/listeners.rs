//! The event streams of one stream's viewers.

use std::collections::HashMap;
use std::sync::Arc;

use media_core::SessionId;

use super::{Event, EventStream};
use crate::limits::MAX_EVENT_STREAMS;

/// The event streams of a viewer's session.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    streams: Vec<Arc<EventStream>>,
    /// What told it to go elsewhere.
    sent_away: Option<Event>,
}

/// The event streams of a stream, by the viewer's session.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    by_session: HashMap<SessionId, Listener>,
    /// How many viewers all of them were last told of; `None` if not all of the same number.
    viewers: Option<usize>,
}

impl Listeners {
    /// Adds an event stream, which has been told of so many viewers. A session that has as many as it may gives its oldest one up.
    pub(crate) fn add(&mut self, session: SessionId, stream: Arc<EventStream>, viewers: usize) {
        let is_told = self.by_session.is_empty() || self.viewers == Some(viewers);
        self.viewers = is_told.then_some(viewers);
        let Listener { streams, sent_away } = self.by_session.entry(session).or_default();
        if let Some(event) = sent_away {
            stream.raise(event.clone());
        }
        if streams.len() >= MAX_EVENT_STREAMS {
            streams.remove(0).end();
        }
        streams.push(stream);
    }

    /// The event stream at a URL.
    pub(crate) fn find(&self, session: SessionId, secret: &str) -> Option<Arc<EventStream>> {
        let streams = &self.by_session.get(&session)?.streams;
        streams.iter().find(|stream| stream.is_at(secret)).cloned()
    }

    /// Ends one; false if there is none.
    pub(crate) fn remove(&mut self, session: SessionId, secret: &str) -> bool {
        let Some(listener) = self.by_session.get_mut(&session) else { return false };
        let Some(place) = listener.streams.iter().position(|stream| stream.is_at(secret)) else { return false };
        listener.streams.remove(place).end();
        if listener.streams.is_empty() {
            self.by_session.remove(&session);
        }
        true
    }

    /// The session is over.
    pub(crate) fn leave(&mut self, session: SessionId) {
        if let Some(listener) = self.by_session.remove(&session) {
            listener.streams.iter().for_each(|stream| stream.end());
        }
    }

    /// Tells all of them.
    pub(crate) fn raise(&self, event: &Event) {
        for stream in self.by_session.values().flat_map(|listener| &listener.streams) {
            stream.raise(event.clone());
        }
    }

    /// Tells them how many watch, if that changed.
    pub(crate) fn count(&mut self, viewers: usize) {
        if self.viewers.replace(viewers) != Some(viewers) {
            self.raise(&Event::ViewerCount(viewers));
        }
    }

    /// Sends those away that `is_due` holds of, each once.
    pub(crate) fn send_away(&mut self, event: &Event, is_due: impl Fn(SessionId) -> bool) {
        let of = self.by_session.iter_mut();
        for (_, listener) in of.filter(|(session, listener)| listener.sent_away.is_none() && is_due(**session)) {
            listener.sent_away = Some(event.clone());
            listener.streams.iter().for_each(|stream| stream.raise(event.clone()));
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_session.values().map(|listener| listener.streams.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventKinds;
    use super::*;

    fn listener(secret: &str) -> Arc<EventStream> {
        Arc::new(EventStream::new(secret.into(), EventKinds::all(), Some(0)))
    }

    // EXT-05
    #[tokio::test]
    async fn a_session_has_a_few_event_streams_and_they_end_with_it() {
        let mut listeners = Listeners::default();
        let all: Vec<_> = (0..=MAX_EVENT_STREAMS).map(|index| listener(&index.to_string())).collect();
        all.iter().for_each(|stream| listeners.add(SessionId(1), Arc::clone(stream), 1));
        assert_eq!(listeners.len(), MAX_EVENT_STREAMS);
        assert!(listeners.find(SessionId(1), "0").is_none(), "the oldest gave place");
        assert_eq!(Arc::clone(&all[0]).read().next().await, None);
        assert!(listeners.find(SessionId(1), "1").is_some() && listeners.find(SessionId(2), "1").is_none());
        assert!(listeners.remove(SessionId(1), "1") && !listeners.remove(SessionId(1), "1"));
        listeners.leave(SessionId(1));
        assert_eq!(Arc::clone(&all[2]).read().next().await, None);
        assert_eq!(listeners.len(), 0);
    }

    // EXT-07: a third viewer comes, and one of the two before leaves.
    #[tokio::test]
    async fn who_listens_later_is_told_a_number_that_is_the_earlier_one_again() {
        let mut listeners = Listeners::default();
        let (early, late) = (listener("a"), listener("b"));
        listeners.add(SessionId(1), Arc::clone(&early), 2);
        listeners.add(SessionId(2), Arc::clone(&late), 3);
        listeners.count(2);
        for stream in [early, late] {
            assert_eq!(stream.read().next().await, Some(Event::ViewerCount(2)));
        }
    }

    // EXT-08
    #[tokio::test]
    async fn each_viewer_is_sent_away_once() {
        let mut listeners = Listeners::default();
        let (one, two) = (listener("a"), listener("b"));
        listeners.add(SessionId(1), Arc::clone(&one), 1);
        listeners.add(SessionId(2), Arc::clone(&two), 2);
        let event = Event::Reconnect(None);
        listeners.send_away(&event, |session| session == SessionId(1));
        listeners.send_away(&event, |_| true);
        listeners.send_away(&event, |_| true);
        for stream in [one, two] {
            let mut reader = Arc::clone(&stream).read();
            assert_eq!(reader.next().await, Some(event.clone()));
            stream.raise(Event::Active);
            assert_eq!(reader.next().await, Some(Event::Active));
        }
        let another = listener("c");
        listeners.add(SessionId(1), Arc::clone(&another), 2);
        assert_eq!(another.read().next().await, Some(event), "on each of its event streams");
    }
}
