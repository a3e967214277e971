//! Streams by name, sessions by id and by the secret of their URL, each with its ledger.
//!
//! Locks: a stream's entry may be held while a session's is taken, never the other way round. Neither while something is logged or
//! told to the observer: what others do must not hold an entry.

mod events;
mod layers;
mod log_line;
mod page;
mod session_record;
mod stream_record;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use media_core::ledger::{Reason, Stage, StageChange, StageEvent, StageState, Warning, WarningCode};
use media_core::media::{MediaSection, Role, TrackId};
use media_core::negotiation::{FormatInUse, Profile};
use media_core::stats::SessionStats;
use media_core::stats::ShardSnapshot;
use media_core::{BEAT, CoreEvent, Pulse, SessionId, ShardIndex, StreamId};
use tokio::sync::mpsc;

pub(crate) use self::layers::KnownLayers;
pub use self::page::{BadCursor, Page, SessionCursor, SessionFilter};
use self::session_record::{End, unix_ms};
pub(crate) use self::session_record::{NewSession, SessionRecord};
pub(crate) use self::stream_record::Published;
use self::stream_record::StreamRecord;
pub(crate) use self::stream_record::TrackRecord;
use crate::admission::{Admission, Entrant, Evicted, Tally};
use crate::auth::Grant;
use crate::clock;
use crate::limits::{
    BURST, ENDED_RETENTION, Limit, Limits, MAX_ENDED, MAX_IDLE_STREAMS, PRUNE_INTERVAL, VIEWER_COUNT_INTERVAL,
};
use crate::observer::Observer;
use crate::rates::{Rate, TooFast};
use crate::takeover::{PublishConflict, TakeoverRule};
use crate::view::{LimitUse, SessionView, StreamView};

/// All streams and sessions of this process.
pub struct Registry {
    started: Instant,
    streams: DashMap<String, StreamRecord>,
    /// Boxed: a hash table from which as much is removed as is inserted grows to four times what it holds, and a record has 2 KiB.
    sessions: DashMap<SessionId, Box<SessionRecord>>,
    secrets: DashMap<String, SessionId>,
    /// Ended sessions, oldest first.
    ended: Mutex<VecDeque<(Instant, SessionId)>>,
    next_stream: AtomicU64,
    admission: Mutex<Admission>,
    draining: AtomicBool,
    pulse: Arc<Pulse>,
    observer: Arc<dyn Observer>,
}

/// How many sessions are live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live publisher sessions.
    pub publishers: usize,
    /// Live viewer sessions.
    pub viewers: usize,
}

/// What the URL of a session leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A live session.
    Live(SessionId),
    /// One that is ending, or ended a short while ago.
    Tombstone(SessionId),
}

impl Registry {
    /// An empty registry.
    pub fn new(observer: Arc<dyn Observer>) -> Registry {
        Registry {
            started: clock::now(),
            streams: DashMap::new(),
            sessions: DashMap::new(),
            secrets: DashMap::new(),
            ended: Mutex::default(),
            next_stream: AtomicU64::new(1),
            admission: Mutex::default(),
            draining: AtomicBool::new(false),
            pulse: Arc::default(),
            observer,
        }
    }

    /// Follows the media core's events and forgets what is old; returns when the media core is gone. What one event's panic leaves
    /// undone is that event's alone.
    pub async fn run(self: Arc<Self>, mut events: mpsc::UnboundedReceiver<CoreEvent>) {
        let mut prune = tokio::time::interval(PRUNE_INTERVAL);
        prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = tokio::time::interval(VIEWER_COUNT_INTERVAL);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.survive(|| self.apply(clock::now(), event)),
                    None => return,
                },
                _ = prune.tick() => self.survive(|| self.prune(clock::now())),
                _ = count.tick() => self.survive(|| self.tell_viewer_counts()),
                _ = beat.tick() => self.pulse.beat(),
            }
        }
    }

    /// Lets a panic end nothing but what panicked: entries that it held are free again, and changes come before what is told of
    /// them.
    fn survive(&self, act: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(act)).is_err() {
            self.pulse.panicked();
        }
    }

    /// The signs of life of [`Registry::run`].
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Writes one event of the media core down. Events of unknown sessions change nothing.
    pub fn apply(&self, now: Instant, event: CoreEvent) {
        match event {
            CoreEvent::Stage { session, event } => self.stage(session, &event),
            CoreEvent::FormatInUse { session, track, in_use } => self.format_in_use(now, session, track, in_use),
            CoreEvent::Layers { session, track, layers } => self.layers(session, track, layers),
            CoreEvent::PublisherSilence { session, since } => {
                if let Some(mut session) = self.sessions.get_mut(&session) {
                    session.silent_since = since;
                }
            }
            CoreEvent::IceRestartOver { session, local_ufrag, completed } => {
                if let Some(mut session) = self.sessions.get_mut(&session) {
                    session.new.ice.over(&local_ufrag, completed);
                }
            }
            CoreEvent::Ended { session, reason, stats } => self.end(now, session, reason, stats),
        }
    }

    /// Takes over the figures of live sessions from the shards' snapshots.
    pub fn record_snapshots(&self, snapshots: &[ShardSnapshot]) {
        for snapshot in snapshots.iter().flat_map(|shard| &shard.sessions) {
            if let Some(mut session) = self.sessions.get_mut(&snapshot.id)
                && session.ended.is_none()
            {
                session.stats.clone_from(&snapshot.stats);
            }
        }
    }

    /// Live and recently ended sessions, oldest first.
    pub fn sessions(&self) -> Vec<SessionView> {
        let mut views: Vec<(Instant, SessionView)> =
            self.sessions.iter().map(|session| (session.new.created, session.view())).collect();
        views.sort_by_key(|(created, view)| (*created, view.id));
        views.into_iter().map(|(_, view)| view).collect()
    }

    /// One session, live or recently ended.
    pub fn session(&self, id: SessionId) -> Option<SessionView> {
        self.sessions.get(&id).map(|session| session.view())
    }

    /// Streams that have a session, by name.
    pub fn streams(&self) -> Vec<StreamView> {
        let busy = self.streams.iter().filter(|stream| stream.idle_since.is_none());
        let mut views: Vec<StreamView> = busy.map(|stream| self.stream_view(stream.key(), &stream)).collect();
        views.sort_by(|a, b| a.stream.cmp(&b.stream));
        views
    }

    /// How many streams are known by their names, with sessions or without.
    pub fn known_streams(&self) -> usize {
        self.streams.len()
    }

    /// How full the room is, by each of the limits on numbers.
    pub(crate) fn usage(&self, limits: &Limits) -> Vec<LimitUse> {
        self.admission().usage(limits)
    }

    /// How many sessions are live.
    pub fn counts(&self) -> Counts {
        let Tally { publishers, viewers, .. } = self.admission().all();
        Counts { publishers, viewers }
    }

    /// From now on POST gets 503 (OPS-06); sessions go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Registry::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Makes room for a session that is about to open. Returns the half-open ones that give place to it, for the media plane to
    /// close, or the limit that is in the way.
    pub(crate) fn enter(
        &self,
        now: Instant,
        limits: &Limits,
        entrant: Entrant,
    ) -> Result<Vec<(ShardIndex, SessionId)>, Limit> {
        let evicted = self.admission().enter(now, limits, entrant)?;
        let close = |Evicted { id, limit }| {
            self.with_live(id, |session| session.evicted_for = Some(limit));
            Some((self.closing(now, id, Reason::EvictedHalfOpen)?, id))
        };
        Ok(evicted.into_iter().filter_map(close).collect())
    }

    /// A session that was let in did not open.
    pub(crate) fn give_place_back(&self, id: SessionId) {
        self.admission().leave(id);
    }

    /// Counts a PATCH or DELETE of a session, or refuses it for coming too fast.
    pub(crate) fn take_request(&self, now: Instant, limits: &Limits, id: SessionId) -> Result<(), TooFast> {
        let Some(mut session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let taken = session.requests.try_take(now, Rate::new(limits.request_rate_per_session, BURST));
        taken.map_err(|wait| TooFast { limit: Limit::RequestRatePerSession, wait })
    }

    /// The number of a stream, given now if it has none yet.
    pub(crate) fn stream_id(&self, now: Instant, name: &str) -> StreamId {
        if let Some(stream) = self.streams.get(name) {
            return stream.id;
        }
        let id = || StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        self.streams.entry(name.to_owned()).or_insert_with(|| StreamRecord::new(id(), now)).id
    }

    /// What is published under a name, now or formerly; `None` if nobody published it since the start.
    pub(crate) fn published(&self, name: &str) -> Option<Published> {
        let stream = self.streams.get(name)?;
        stream.ever_published.then(|| stream.published())
    }

    /// Whether a publisher holds a stream.
    pub(crate) fn has_publisher(&self, name: &str) -> bool {
        self.streams.get(name).is_some_and(|stream| stream.publisher.is_some())
    }

    /// Enters a session. A publisher takes the stream, unless another one holds it and does not give way by the rule; one
    /// that does is returned, for the media plane to close.
    pub(crate) fn open(
        &self,
        now: Instant,
        new: NewSession,
        rule: &TakeoverRule,
    ) -> Result<Option<(ShardIndex, SessionId)>, PublishConflict> {
        let mut replaced = None;
        let mut warned = Vec::new();
        let (id, role) = (new.id, new.role);
        let answered_in = now.saturating_duration_since(new.created);
        {
            let mut stream =
                self.streams.entry(new.stream.clone()).or_insert_with(|| StreamRecord::new(new.stream_id, now));
            match role {
                Role::Publisher => {
                    // One that is just ending waits for this entry, to leave the stream; it is counted out by its end.
                    if let Some(holder) = stream.publisher
                        && let Some(mut holder) = self.sessions.get_mut(&holder).filter(|holder| holder.is_live())
                    {
                        rule.judge(now, &holder, &new.grant.identity)?;
                        holder.closing = Some(Reason::Replaced);
                        replaced = Some((holder.new.shard, holder.new.id));
                    }
                    stream.publish(id, &new.sections);
                }
                Role::Viewer => {
                    stream.viewers.insert(id);
                    stream.idle_since = None;
                }
            }
            self.secrets.insert(new.secret.clone(), id);
            let session = SessionRecord::new(new, now);
            for warning in &session.ledger.stage(Stage::Signaling).warnings {
                warned.push((warning.key.0, session.warning_line(Stage::Signaling, warning.clone())));
            }
            self.sessions.insert(id, Box::new(session));
        }
        {
            let mut admission = self.admission();
            if let Some((_, replaced)) = replaced {
                admission.leave(replaced);
            }
            admission.opened(id);
        }
        for (code, line) in warned {
            line.write();
            self.observer.warned(role, code);
        }
        self.observer.stage_ended(role, Stage::Signaling, StageState::Done, None, answered_in);
        self.observer.session_opened(role);
        Ok(replaced)
    }

    /// The session of a URL, for as long after its end as its `tombstone` lasts; role and stream must be those of the session.
    pub(crate) fn find(
        &self,
        now: Instant,
        (role, stream, secret): (Role, &str, &str),
        tombstone: Duration,
    ) -> Option<Found> {
        let id = *self.secrets.get(secret)?;
        let session = self.sessions.get(&id)?;
        if session.new.role != role || session.new.stream != stream {
            return None;
        }
        match session.ended {
            _ if session.is_live() => Some(Found::Live(id)),
            Some(end) if now.saturating_duration_since(end.at) >= tombstone => None,
            _ => Some(Found::Tombstone(id)),
        }
    }

    /// The right that a session was opened by.
    pub(crate) fn grant(&self, id: SessionId) -> Option<Grant> {
        self.sessions.get(&id).map(|session| session.new.grant.clone())
    }

    /// The live sessions of which this holds.
    pub(crate) fn live_where(&self, holds: impl Fn(&NewSession) -> bool) -> Vec<SessionId> {
        let live = self.sessions.iter().filter(|session| session.is_live() && holds(&session.new));
        live.map(|session| session.new.id).collect()
    }

    /// Reads a session that is live.
    pub(crate) fn with_live<R>(&self, id: SessionId, read: impl FnOnce(&mut SessionRecord) -> R) -> Option<R> {
        let mut session = self.sessions.get_mut(&id).filter(|session| session.is_live())?;
        Some(read(&mut session))
    }

    /// Notes that a session shall end: its URL is gone and its stream is free at once. Returns its shard if it was live.
    pub(crate) fn closing(&self, now: Instant, id: SessionId, reason: Reason) -> Option<ShardIndex> {
        let (shard, stream) = {
            let mut session = self.sessions.get_mut(&id).filter(|session| session.is_live())?;
            session.closing = Some(reason);
            (session.new.shard, session.new.stream.clone())
        };
        self.admission().leave(id);
        self.leave(&stream, id, now);
        Some(shard)
    }

    /// Forgets what is old.
    pub(crate) fn prune(&self, now: Instant) {
        let mut gone = Vec::new();
        {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(&(at, id)) = ended.front() {
                let expired = now.saturating_duration_since(at) >= ENDED_RETENTION;
                if !expired && ended.len() <= MAX_ENDED {
                    break;
                }
                ended.pop_front();
                gone.push(id);
            }
        }
        for id in gone {
            if let Some((_, session)) = self.sessions.remove(&id) {
                self.secrets.remove(&session.new.secret);
            }
        }
        self.streams.retain(|_, stream| !stream.is_forgotten(now));
        let mut idle: Vec<Instant> = self.streams.iter().filter_map(|stream| stream.idle_since).collect();
        if idle.len() > MAX_IDLE_STREAMS {
            idle.sort();
            let keep_since = idle.get(idle.len() - MAX_IDLE_STREAMS).copied();
            self.streams.retain(|_, stream| stream.idle_since.is_none_or(|since| Some(since) >= keep_since));
        }
    }

    fn stream_view(&self, name: &str, stream: &StreamRecord) -> StreamView {
        let publisher = stream.publisher.and_then(|id| self.sessions.get(&id));
        StreamView {
            stream: name.to_owned(),
            live: publisher.is_some_and(|session| session.sends_media()),
            publisher: stream.publisher,
            viewers: stream.viewers.len(),
            tracks: stream.track_views(),
        }
    }

    /// A publisher's track is sent in this format: viewers to come are matched with it, and it is compared with what the
    /// description says.
    fn format_in_use(&self, now: Instant, id: SessionId, track: TrackId, in_use: FormatInUse) {
        let Some((stream, sections)) =
            self.sessions.get(&id).map(|session| (session.new.stream.clone(), session.new.sections.clone()))
        else {
            return;
        };
        if let Some(mut stream) = self.streams.get_mut(&stream) {
            stream.format_in_use(id, track, in_use);
        }
        let section = TrackId::of_sections(&sections).find(|(id, _)| *id == track).map(|(_, section)| section);
        let disagreement = section.and_then(|section| disagreement(section, in_use));
        let key = (WarningCode::ProfileMismatch, Some(track.kind));
        let change = if disagreement.is_some() { StageChange::Warned(key) } else { StageChange::Cleared(key) };
        let event = StageEvent { at: now, stage: Stage::Media, change, detail: disagreement.unwrap_or_default() };
        self.stage(id, &event);
    }

    fn stage(&self, id: SessionId, event: &StageEvent) {
        let Some(mut session) = self.sessions.get_mut(&id) else { return };
        let record = session.ledger.stage(event.stage);
        let before = (record.state, record.reason);
        let was_secured = session.is_secured();
        if !session.ledger.apply(event) {
            return;
        }
        let line = session.stage_line(event, before);
        let secured_stream = (!was_secured && session.is_secured()).then(|| session.new.stream.clone());
        let role = session.new.role;
        if let StageChange::Warned(key) = event.change {
            let line = session.warning_line(event.stage, Warning { key, detail: event.detail.clone() });
            drop(session);
            line.write();
            return self.observer.warned(role, key.0);
        }
        let record = session.ledger.stage(event.stage);
        let lasted = record.ended.unwrap_or_default().saturating_sub(record.started.unwrap_or_default());
        let (state, reason) = (record.state, record.reason);
        let was_done = record.reopened > 0;
        drop(session);
        if let Some(stream) = secured_stream {
            self.secured(id, &stream, role);
        }
        if let Some(line) = line {
            line.write();
        }
        match event.change {
            // How long the stage took says nothing of how long it lasted until it held again.
            StageChange::Done if was_done => {}
            StageChange::Done | StageChange::Failed(_) => {
                self.observer.stage_ended(role, event.stage, state, reason, lasted);
            }
            _ => {}
        }
        if event.change == StageChange::Done && (was_done || before.0 == StageState::Failed) {
            self.observer.stage_healed(role, event.stage);
        }
    }

    fn end(&self, now: Instant, id: SessionId, reason: Reason, stats: SessionStats) {
        let (role, stream, was_live, lasted, line) = {
            let Some(mut session) = self.sessions.get_mut(&id) else { return };
            if session.ended.is_some() {
                return;
            }
            let was_live = session.is_live();
            session.stats = stats;
            session.ended = Some(End { at: now, unix_ms: unix_ms(), reason });
            session.fail_as_evicted(now);
            let lasted = now.saturating_duration_since(session.new.created);
            let line = session.end_line(reason, lasted);
            session.forget_agreement();
            (session.new.role, session.new.stream.clone(), was_live, lasted, line)
        };
        if was_live {
            self.admission().leave(id);
            self.leave(&stream, id, now);
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push_back((now, id));
        line.write();
        self.observer.session_ended(role, reason, lasted);
    }

    /// A session is not half-open any more.
    fn secured(&self, id: SessionId, stream: &str, role: Role) {
        self.admission().secured(id);
        if let Some(mut stream) = self.streams.get_mut(stream).filter(|_| role == Role::Publisher) {
            stream.ever_connected = true;
        }
    }

    fn leave(&self, stream: &str, session: SessionId, now: Instant) {
        if let Some(mut stream) = self.streams.get_mut(stream) {
            stream.leave(session, now);
        }
    }

    /// Held for a moment, and nothing else is taken meanwhile.
    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the bit stream of a section contradicts its description; `None` if both name one profile.
fn disagreement(section: &MediaSection, in_use: FormatInUse) -> Option<String> {
    let format = section.formats.iter().find(|format| format.payload_type == in_use.payload_type)?;
    let (described, stream) = (Profile::described(format).ok()??, in_use.profile?);
    let codec = format.codec;
    (!described.is_same(stream)).then(|| format!("the description says {codec} {described}, the stream is {stream}"))
}

#[cfg(test)]
mod tests {
    use media_core::{IceCredentials, StreamId};

    use super::*;
    use crate::auth::Grant;
    use crate::ice_generations::{Generation, IceGenerations};
    use crate::observer::Observer;

    struct Nobody;

    impl Observer for Nobody {}

    fn record(number: u64, now: Instant) -> Box<SessionRecord> {
        let credentials = || IceCredentials { ufrag: "ufrag".to_owned(), pwd: "password-of-24-characters".to_owned() };
        let first = Generation { etag: "\"1\"".to_owned(), local: credentials(), remote: credentials() };
        let new = NewSession {
            id: SessionId(number),
            secret: number.to_string(),
            stream: "s".to_owned(),
            stream_id: StreamId(1),
            role: Role::Viewer,
            grant: Grant::open(),
            shard: 0,
            ice: IceGenerations::new(first, String::new(), 0),
            mids: Vec::new(),
            video_line: None,
            sections: Vec::new(),
            created: now,
            answer_digest: None,
            detail: String::new(),
            warnings: Vec::new(),
        };
        Box::new(SessionRecord::new(new, now))
    }

    /// Bytes that the entries of a map take, those without content included.
    fn entries_size<K: Eq + std::hash::Hash, V>(map: &DashMap<K, V>) -> usize {
        map.capacity() * std::mem::size_of::<(K, V)>()
    }

    #[test]
    fn of_a_session_that_ended_no_credentials_are_kept() {
        let (registry, now) = (Registry::new(Arc::new(Nobody)), clock::now());
        let id = SessionId(1);
        registry.sessions.insert(id, record(1, now));
        registry.end(now, id, Reason::Deleted, SessionStats::default());
        let session = registry.sessions.get(&id).unwrap();
        let Generation { local, remote, .. } = session.new.ice.current();
        assert!([local, remote].iter().all(|kept| kept.ufrag.is_empty() && kept.pwd.is_empty()));
    }

    // The finding of the soak "memory grows for half an hour, and stays so".
    #[test]
    fn the_table_of_sessions_stays_small_however_many_came_and_went() {
        let (registry, now) = (Registry::new(Arc::new(Nobody)), clock::now());
        for number in 0..20_000u64 {
            registry.sessions.insert(SessionId(number), record(number, now));
            if let Some(old) = number.checked_sub(MAX_ENDED as u64) {
                registry.sessions.remove(&SessionId(old));
            }
        }
        assert_eq!(registry.sessions.len(), MAX_ENDED);
        let size = entries_size(&registry.sessions);
        assert!(size < 128 << 10, "{size} bytes besides the records of {MAX_ENDED} sessions");
    }
}
