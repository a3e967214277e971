//! One event stream: a queue between what happens and who reads of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Event, EventKind, EventKinds};
use crate::limits::MAX_EVENTS;

/// An event stream. It goes on without a reader; what happens meanwhile waits.
#[derive(Debug)]
pub(crate) struct EventStream {
    /// The unguessable part of its URL.
    secret: String,
    kinds: EventKinds,
    /// M-line of the viewer's video, to which layers belong.
    video_line: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    /// What was last said of whether somebody publishes, of the layers, of the viewers, and of where to go.
    latest: [Option<Event>; 4],
    /// Counts the readers: only the last one reads.
    readers: u64,
    is_over: bool,
}

impl EventStream {
    /// A stream of events of these kinds, without layers for a viewer without video.
    pub(crate) fn new(secret: String, kinds: EventKinds, video_line: Option<usize>) -> EventStream {
        let kinds = if video_line.is_some() { kinds } else { kinds.without(EventKind::Layers) };
        let (state, changed) = (Mutex::default(), Notify::new());
        EventStream { secret, kinds, video_line: video_line.unwrap_or_default(), state, changed }
    }

    /// The m-line of the viewer's video.
    pub(crate) fn video_line(&self) -> usize {
        self.video_line
    }

    /// Whether its URL ends so.
    pub(crate) fn is_at(&self, secret: &str) -> bool {
        self.secret == secret
    }

    /// Queues an event, if the stream takes its kind. Where too many wait, the oldest is dropped.
    pub(crate) fn raise(&self, event: Event) {
        if !self.kinds.has(event.kind()) {
            return;
        }
        self.state().push(event);
        self.changed.notify_waiters();
    }

    /// Drops what waits, and ends the reader.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.queue.clear();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Begins to read, in the place of any earlier reader. What that one took may not have reached the client: the state of things
    /// is said again.
    pub(crate) fn read(self: Arc<EventStream>) -> Reader {
        let mut state = self.state();
        state.readers += 1;
        if state.readers > 1 {
            state.say_again();
        }
        let reader = state.readers;
        drop(state);
        self.changed.notify_waiters();
        Reader { stream: self, reader }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: Event) {
        let kind = event.kind();
        let place = match kind {
            EventKind::Active | EventKind::Inactive => 0,
            EventKind::Layers => 1,
            EventKind::ViewerCount => 2,
            EventKind::Reconnect => 3,
        };
        self.latest[place] = Some(event.clone());
        if kind == EventKind::Inactive {
            // They went with who published them.
            self.latest[1] = None;
        }
        if kind.is_state() {
            self.queue.retain(|queued| queued.kind() != kind);
        }
        if self.queue.len() >= MAX_EVENTS {
            self.queue.pop_front();
        }
        self.queue.push_back(event);
    }

    fn say_again(&mut self) {
        for event in self.latest.clone().into_iter().flatten().rev() {
            let is_queued = match event.kind() {
                EventKind::Active | EventKind::Inactive => {
                    self.queue.iter().any(|queued| matches!(queued, Event::Active | Event::Inactive))
                }
                kind => self.queue.iter().any(|queued| queued.kind() == kind),
            };
            if !is_queued && self.queue.len() < MAX_EVENTS {
                self.queue.push_front(event);
            }
        }
    }
}

/// Who reads an event stream.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Arc<EventStream>,
    reader: u64,
}

impl Reader {
    /// The next event; `None` once the stream is over or has a newer reader.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            // Before the look: what happens after it is noticed.
            let mut changed = std::pin::pin!(self.stream.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.stream.state();
                if state.is_over || state.readers != self.reader {
                    return None;
                }
                if let Some(event) = state.queue.pop_front() {
                    return Some(event);
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(kinds: EventKinds) -> Arc<EventStream> {
        Arc::new(EventStream::new("x".into(), kinds, Some(0)))
    }

    /// What can be read at once.
    async fn read(reader: &mut Reader) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(std::time::Duration::ZERO, reader.next()).await {
            events.push(event);
        }
        events
    }

    // EXT-04
    #[tokio::test]
    async fn what_happens_before_the_first_reader_waits_for_it() {
        let stream = stream([EventKind::Active, EventKind::Inactive, EventKind::ViewerCount].into_iter().collect());
        for event in [
            Event::ViewerCount(1),
            Event::Active,
            Event::Layers("[]".into()),
            Event::ViewerCount(2),
            Event::Inactive,
            Event::Active,
        ] {
            stream.raise(event);
        }
        let mut reader = Arc::clone(&stream).read();
        let expected = [Event::Active, Event::ViewerCount(2), Event::Inactive, Event::Active];
        assert_eq!(read(&mut reader).await, expected, "counts are coalesced, and layers were not asked for");
        stream.raise(Event::Inactive);
        assert_eq!(reader.next().await, Some(Event::Inactive));
    }

    // EXT-04
    #[tokio::test]
    async fn sixty_four_events_wait_and_the_oldest_are_dropped() {
        let stream = stream(EventKinds::all());
        stream.raise(Event::Reconnect(None));
        for _ in 0..1000 {
            stream.raise(Event::Active);
            stream.raise(Event::Layers("[]".into()));
            stream.raise(Event::Inactive);
        }
        let events = read(&mut Arc::clone(&stream).read()).await;
        assert_eq!(events.len(), 64);
        assert!(!events.contains(&Event::Reconnect(None)));
        assert_eq!(events.iter().filter(|event| event.kind() == EventKind::Layers).count(), 1);
        assert_eq!(events.last(), Some(&Event::Inactive));
    }

    // EXT-05
    #[tokio::test]
    async fn the_end_of_a_stream_ends_its_reader_and_drops_what_waits() {
        let stream = stream(EventKinds::all());
        let mut reader = Arc::clone(&stream).read();
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        stream.raise(Event::Active);
        assert_eq!(waiting.await.unwrap(), Some(Event::Active));
        stream.raise(Event::Inactive);
        stream.end();
        assert_eq!(Arc::clone(&stream).read().next().await, None);
    }

    // EXT-03: an EventSource comes back after its connection broke, perhaps before the server knows.
    #[tokio::test]
    async fn a_new_reader_takes_the_place_of_the_old_one_and_is_told_how_things_are() {
        let stream = stream(EventKinds::all());
        for event in [Event::Active, Event::Layers("[1]".into()), Event::ViewerCount(4), Event::Reconnect(None)] {
            stream.raise(event);
        }
        let mut first = Arc::clone(&stream).read();
        assert_eq!(read(&mut first).await.len(), 4);
        stream.raise(Event::ViewerCount(5));
        let mut second = Arc::clone(&stream).read();
        assert_eq!(first.next().await, None);
        let expected = [Event::Active, Event::Layers("[1]".into()), Event::Reconnect(None), Event::ViewerCount(5)];
        assert_eq!(read(&mut second).await, expected);
        stream.raise(Event::Inactive);
        let expected = [Event::ViewerCount(5), Event::Reconnect(None), Event::Inactive];
        assert_eq!(read(&mut Arc::clone(&stream).read()).await, expected, "without layers");
    }
}
