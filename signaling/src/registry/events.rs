//! What viewers are told of their stream, and when.

use std::sync::Arc;

use media_core::SessionId;

use super::Registry;
use crate::events::{Event, EventKinds, EventStream};

impl Registry {
    /// Makes an event stream of a viewer's session at this URL; false if the session is over.
    pub(crate) fn listen(&self, id: SessionId, secret: String, kinds: EventKinds) -> bool {
        let Some((stream, video_line)) =
            self.with_live(id, |session| (session.new.stream.clone(), session.new.video_line))
        else {
            return false;
        };
        let Some(mut stream) = self.streams.get_mut(&stream) else { return false };
        stream.listen(id, EventStream::new(secret, kinds, video_line))
    }

    /// An event stream of a session.
    pub(crate) fn event_stream(&self, id: SessionId, secret: &str) -> Option<Arc<EventStream>> {
        let stream = self.with_live(id, |session| session.new.stream.clone())?;
        self.streams.get(&stream)?.listeners.find(id, secret)
    }

    /// Ends an event stream; false if there is none.
    pub(crate) fn stop_listening(&self, id: SessionId, secret: &str) -> bool {
        let Some(stream) = self.with_live(id, |session| session.new.stream.clone()) else { return false };
        self.streams.get_mut(&stream).is_some_and(|mut stream| stream.listeners.remove(id, secret))
    }

    /// Tells viewers how many they are, where that changed.
    pub(super) fn tell_viewer_counts(&self) {
        for mut stream in self.streams.iter_mut().filter(|stream| stream.listeners.len() > 0) {
            let viewers = stream.viewers.len();
            stream.listeners.count(viewers);
        }
    }

    /// Asks viewers to open another session, at the node with this public URL or where they are: this part of them, each once.
    pub fn send_viewers_away(&self, part: f64, node: Option<&str>) {
        // Ids are random: each has its place between 0 and 1.
        let is_due = |session: SessionId| session.0 as f64 / u64::MAX as f64 <= part;
        for mut stream in self.streams.iter_mut().filter(|stream| stream.listeners.len() > 0) {
            let endpoint = node.map(|node| format!("{}/whep/{}", node.trim_end_matches('/'), stream.key()).into());
            stream.listeners.send_away(&Event::Reconnect(endpoint), is_due);
        }
    }

    /// How many event streams there are.
    pub fn event_streams(&self) -> usize {
        self.streams.iter().map(|stream| stream.listeners.len()).sum()
    }
}
