//! The life of a shard's thread. A shard that panics loses its sessions and starts again, on the same socket and with the same
//! mailbox: other shards go on, and what waits for it is not lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::event::CoreEvent;
use crate::ledger::{Reason, Stage, StageChange, StageEvent};
use crate::media::TrackId;
use crate::session::Media;
use crate::spec::{ShardIndex, StreamId};
use crate::stats::SessionStats;
use crate::stream::Standing;

use super::mailbox::{ShardInbox, ShardMessage};
use super::sessions::{CLOSE_NOTIFY, CloseNotify};
use super::{Shard, ShardSetup};

/// A shard that panicked within this time after its start waits before the next one …
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// … this long, doubled each time …
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// … up to this: less than the time after which the supervisor misses its pulse.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// The runtime of one shard.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Runs a shard until it is told to shut down; it is all that its thread does.
///
/// # Errors
/// The socket cannot be used.
pub(crate) fn run(mut runtime: Runtime, mut setup: ShardSetup, mut inbox: ShardInbox) -> std::io::Result<()> {
    let (dtls_outputs, mut dtls) = mpsc::unbounded_channel();
    let mut close_notify = CloseNotify::default();
    let mut pause = FIRST_PAUSE;
    loop {
        let (agent_outputs, mut agents) = mpsc::channel(1024);
        let started = Instant::now();
        let (mut shard, socket, poller) = {
            let _registers_its_socket = runtime.enter();
            Shard::new(&setup, dtls_outputs.clone(), agent_outputs)?
        };
        shard.sessions.pending_close_notify = std::mem::take(&mut close_notify);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(shard.run((&socket, &poller), &mut inbox, &mut dtls, &mut agents));
        }));
        if ran.is_ok() {
            return Ok(());
        }
        setup.pulse.panicked();
        let (is_stopping, sessions) = (shard.is_stopping, shard.roster.len());
        close_notify = shard.fall(Instant::now());
        setup.config = shard.config.clone();
        setup.counters = catch_unwind(AssertUnwindSafe(|| shard.snapshot().counters)).unwrap_or_default();
        // Whatever state it is in: what cannot be dropped is left.
        let _ = catch_unwind(AssertUnwindSafe(|| drop((shard, socket, poller, runtime))));
        if is_stopping {
            return Ok(());
        }
        tracing::error!(shard = setup.index, sessions, "the shard panicked: its sessions end, and it starts again");
        pause = if started.elapsed() < SHORT_LIFE { (2 * pause).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        std::thread::sleep(pause);
        runtime = self::runtime()?;
    }
}

impl Shard {
    /// Ends all sessions of a shard that panicked, whatever state it is in: control, the handshake threads and the other shards
    /// are told. Returns where to say close_notify.
    fn fall(&mut self, now: Instant) -> CloseNotify {
        let mut close_notify = std::mem::take(&mut self.sessions.pending_close_notify);
        for id in std::mem::take(&mut self.roster) {
            let session = self.sessions.find(id).and_then(|key| self.sessions.slab.get_mut(key));
            if let Some(tuple) = session.as_ref().and_then(|session| session.selected) {
                close_notify.insert(id, (tuple, now + CLOSE_NOTIFY));
            }
            let told = session.and_then(|session| {
                let last_words = AssertUnwindSafe(|| (session.lifecycle.stage(), session.stats()));
                catch_unwind(last_words).ok()
            });
            let (stage, stats) = told.unwrap_or((Stage::Media, SessionStats::default()));
            self.handshakes.pool.close(id);
            self.load.shared.remove_session();
            let change = StageChange::Failed(Reason::ShardFailed);
            let event = StageEvent { at: now, stage, change, detail: format!("shard {} panicked", self.index) };
            // Control has stopped listening only when the server ends.
            let _ = self.events.send(CoreEvent::Stage { session: id, event });
            let _ = self.events.send(CoreEvent::Ended { session: id, reason: Reason::ShardFailed, stats });
        }
        self.load.meter.idle(&self.load.shared);
        for (shard, link) in self.links.iter().enumerate() {
            if shard != self.index {
                link.send(ShardMessage::Restarted(self.index));
            }
        }
        close_notify
    }

    /// Another shard has lost all that it knew: its streams have no publisher, and it does not know who has viewers of them.
    pub(super) fn on_restart(&mut self, now: Instant, shard: ShardIndex) {
        let keys: Vec<usize> = self.streams.slab.iter().map(|(key, _)| key).collect();
        for key in keys {
            let stream = &mut self.streams.slab[key];
            stream.feeder.remove(shard);
            stream.watched.set(shard, std::iter::empty());
            if stream.home == shard {
                let link = &self.links[shard];
                link.send(ShardMessage::Join(stream.id, self.index));
                link.send(ShardMessage::Standings(stream.id, stream.tracks.standings().collect()));
                let watched = stream.watched.of(self.index).collect();
                link.send(ShardMessage::Watched(stream.id, self.index, watched));
                if stream.published.is_some() {
                    self.set_publisher(now, key, None);
                }
            }
            self.streams.remove_if_unused(key);
        }
    }

    /// This shard lost the numbers of a stream whose home it is; another one has them still. What comes next goes on from there.
    pub(super) fn on_standings(&mut self, id: StreamId, standings: &[(TrackId, u8, Standing)]) {
        let Some(key) = self.streams.find(id) else { return };
        self.finish_passes(key);
        self.note_positions(key);
        let stream = &mut self.streams.slab[key];
        for (track, index, standing) in standings {
            let Some(encoding) = stream.tracks.get_or_insert(*track).get_or_insert_encoding(*index) else { continue };
            if !encoding.resume(standing) {
                continue;
            }
            for &viewer in &stream.viewers {
                let Media::Viewer(watching) = &mut self.sessions.slab[viewer].media else { continue };
                for track in watching.viewer.tracks_mut().iter_mut().filter(|sent| sent.id() == *track) {
                    track.end_publication(encoding);
                }
            }
        }
    }
}
