//! Sessions and streams by pages: a page begins after the last entry of the one before, so that what comes and goes meanwhile
//! neither repeats nor hides another entry.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use media_core::SessionId;

use super::Registry;
use super::session_record::SessionRecord;
use crate::view::{SessionState, SessionView, StreamView};

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// Its entries.
    pub entries: Vec<T>,
    /// Where the next part begins; `None` if this is the last one.
    pub next: Option<C>,
}

/// A place in the list of sessions: behind the one that was created then. Its text form is of hexadecimal digits and a dash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionCursor {
    /// Creation, in nanoseconds since the registry's.
    created: u64,
    session: SessionId,
}

impl fmt::Display for SessionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.created, self.session.0)
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cursor of this list")]
pub struct BadCursor;

impl FromStr for SessionCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<SessionCursor, BadCursor> {
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => u64::from_str_radix(text, 16).map_err(|_| BadCursor),
            false => Err(BadCursor),
        };
        let (created, session) = text.split_once('-').ok_or(BadCursor)?;
        Ok(SessionCursor { created: number(created)?, session: SessionId(number(session)?) })
    }
}

/// Which sessions are listed.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    /// Those of this stream.
    pub stream: Option<String>,
    /// Those of this holder, by its name.
    pub identity: Option<String>,
    /// Those in this state.
    pub state: Option<SessionState>,
    /// All but closed ones.
    pub live: bool,
}

impl SessionFilter {
    fn selects(&self, session: &SessionRecord) -> bool {
        self.stream.as_ref().is_none_or(|stream| *stream == session.new.stream)
            && self.identity.as_deref().is_none_or(|name| session.new.grant.identity.name() == Some(name))
            && self.state.is_none_or(|state| state == session.state())
            && !(self.live && session.state() == SessionState::Closed)
    }
}

impl Registry {
    /// At most `limit` sessions, live and recently ended, oldest first: those after a place in the list.
    pub fn sessions_page(
        &self,
        filter: &SessionFilter,
        after: Option<SessionCursor>,
        limit: usize,
    ) -> Page<SessionView, SessionCursor> {
        // Only what is shown is copied; of the others the place alone.
        let selected = self.sessions.iter().filter(|session| filter.selects(session));
        let places = selected.map(|session| self.place(session.new.created, session.new.id));
        let (places, more) = first(places.filter(|place| after.is_none_or(|after| *place > after)).collect(), limit);
        let entries = places.iter().filter_map(|place| self.session(place.session)).collect();
        Page { entries, next: places.last().copied().filter(|_| more) }
    }

    /// At most `limit` streams that have a session, by name: those after a name.
    pub fn streams_page(&self, after: Option<&str>, limit: usize) -> Page<StreamView, String> {
        let busy = self.streams.iter().filter(|stream| stream.idle_since.is_none());
        let names = busy.map(|stream| stream.key().clone());
        let (names, more) =
            first(names.filter(|name| after.is_none_or(|after| name.as_str() > after)).collect(), limit);
        let view = |name: &String| self.streams.get(name).map(|stream| self.stream_view(name, &stream));
        let entries = names.iter().filter_map(view).collect();
        Page { entries, next: names.last().cloned().filter(|_| more) }
    }

    fn place(&self, created: Instant, session: SessionId) -> SessionCursor {
        let since = created.saturating_duration_since(self.started).as_nanos();
        SessionCursor { created: u64::try_from(since).unwrap_or(u64::MAX), session }
    }
}

/// The `limit` smallest ones in order, and whether there are more.
fn first<T: Ord>(mut all: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = all.len() > limit;
    if more {
        all.select_nth_unstable(limit);
        all.truncate(limit);
    }
    all.sort_unstable();
    (all, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_written_as_they_are_read_and_nothing_else_is_one() {
        let cursor = SessionCursor { created: 0x12ab, session: SessionId(u64::MAX) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "-", "1", "1-", "+1-2", "1-2-3", "x-1", "1-10000000000000000"] {
            assert_eq!(text.parse::<SessionCursor>(), Err(BadCursor), "{text}");
        }
    }

    #[test]
    fn the_first_ones_are_in_order() {
        assert_eq!(first(vec![5, 3, 9, 1], 2), (vec![1, 3], true));
        assert_eq!(first(vec![5, 3, 9, 1], 4), (vec![1, 3, 5, 9], false));
        assert_eq!(first(vec![2], 0), (vec![], true));
    }
}
