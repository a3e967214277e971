//! The mailbox of a shard: what control and other shards tell it.

// A counter of the feeds in a mailbox bounds it; shards touch it once a batch, not once a packet.
#![allow(clippy::disallowed_types)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::config::CoreConfig;
use crate::dtls::DtlsContext;
use crate::egress::Feed;
use crate::layers::LayerSelection;
use crate::ledger::Reason;
use crate::media::TrackId;
use crate::rtp::profile::FormatInUse;
use crate::spec::{IceRestart, RemoteCandidate, SessionId, SessionSpec, ShardIndex, StreamId};
use crate::stats::ShardSnapshot;
use crate::stream::{PublishedTrack, Source, Standing};

use super::tcp::HandedOver;

/// Feeds that may wait for a shard before further ones are refused: about two seconds of a busy stream.
const MAX_FEEDS: usize = 512;

/// What reaches a shard besides datagrams.
pub(crate) enum ShardMessage {
    /// A new session; the certificate that its answer announced; the stream's home shard.
    Open(Box<SessionSpec>, DtlsContext, ShardIndex),
    /// End a session.
    Close(SessionId, Reason),
    /// Trickled candidates.
    Candidates(SessionId, Vec<RemoteCandidate>),
    /// A TCP connection that another listener accepted, for a session that may be here.
    HandedOver(Box<HandedOver>),
    /// ICE restarts with new credentials.
    RestartIce(SessionId, Box<IceRestart>),
    /// What a viewer wants of a track.
    SelectLayer(SessionId, TrackId, Box<LayerSelection>),
    /// Send a copy of the figures.
    Snapshot(oneshot::Sender<ShardSnapshot>),
    /// From now on these timeouts count for new sessions, and `publisher_wait` for all.
    Configure(Arc<CoreConfig>),
    /// End all sessions and stop.
    Shutdown,
    /// To all others: this shard has lost all that it knew.
    Restarted(ShardIndex),
    /// To a home shard that has: how far the numbers of a stream have come.
    Standings(StreamId, Vec<(TrackId, u8, Standing)>),
    /// From a test.
    #[cfg(feature = "fault-injection")]
    Fault(crate::pulse::Fault),
    /// To the home shard: this shard has viewers of the stream now.
    Join(StreamId, ShardIndex),
    /// To the home shard: this shard has no viewers any more.
    Leave(StreamId, ShardIndex),
    /// To the home shard: a viewer cannot decode this encoding of a track, by its position, without a keyframe.
    KeyframeRequest(StreamId, TrackId, u8),
    /// To the home shard: which encodings of its tracks the viewers of a shard are sent or wait for, one bit each.
    Watched(StreamId, ShardIndex, Vec<(TrackId, u8)>),
    /// From the home shard: the publisher's tracks; `None` when it is gone.
    Publisher(StreamId, Option<Vec<PublishedTrack>>),
    /// From the home shard: what the publisher sends of its tracks.
    Sources(StreamId, Vec<(TrackId, Source)>),
    /// From the home shard: a track is sent in this format now.
    FormatInUse(StreamId, TrackId, FormatInUse),
    /// From the home shard: packets.
    Feed(Arc<Feed>),
}

/// Sends to a shard. Control messages always pass; feeds only while the shard keeps up.
#[derive(Clone)]
pub(crate) struct ShardSender {
    messages: mpsc::UnboundedSender<ShardMessage>,
    feeds: Arc<AtomicUsize>,
}

/// The shard's end.
pub(crate) struct ShardInbox {
    messages: mpsc::UnboundedReceiver<ShardMessage>,
    feeds: Arc<AtomicUsize>,
}

/// The mailbox of one shard.
pub(crate) fn mailbox() -> (ShardSender, ShardInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let feeds = Arc::new(AtomicUsize::new(0));
    (ShardSender { messages: sender, feeds: feeds.clone() }, ShardInbox { messages: receiver, feeds })
}

impl ShardSender {
    /// Sends a control message; a shard that has stopped needs none.
    pub(crate) fn send(&self, message: ShardMessage) {
        let _ = self.messages.send(message);
    }

    /// Sends packets; false if the shard lags too far.
    pub(crate) fn feed(&self, feed: Arc<Feed>) -> bool {
        if self.feeds.fetch_add(1, Ordering::Relaxed) >= MAX_FEEDS {
            self.feeds.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.messages.send(ShardMessage::Feed(feed)).is_ok()
    }
}

impl ShardInbox {
    /// Waits for a message; `None` once nobody can send any more.
    pub(crate) async fn recv(&mut self) -> Option<ShardMessage> {
        let message = self.messages.recv().await;
        self.note(message)
    }

    /// A message that waits.
    pub(crate) fn try_recv(&mut self) -> Option<ShardMessage> {
        let message = self.messages.try_recv().ok();
        self.note(message)
    }

    fn note(&self, message: Option<ShardMessage>) -> Option<ShardMessage> {
        if let Some(ShardMessage::Feed(_)) = message {
            self.feeds.fetch_sub(1, Ordering::Relaxed);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Arc<Feed> {
        Arc::default()
    }

    #[test]
    fn a_shard_that_lags_refuses_feeds_but_never_control() {
        let (sender, mut inbox) = mailbox();
        for _ in 0..MAX_FEEDS {
            assert!(sender.feed(feed()));
        }
        assert!(!sender.feed(feed()));
        sender.send(ShardMessage::KeyframeRequest(StreamId(1), TrackId::VIDEO, 0));
        assert!(matches!(inbox.try_recv(), Some(ShardMessage::Feed(_))));
        assert!(sender.feed(feed()));
        let rest: Vec<ShardMessage> = std::iter::from_fn(|| inbox.try_recv()).collect();
        assert_eq!(rest.len(), MAX_FEEDS + 1);
    }
}
