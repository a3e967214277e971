//! Streams that span shards: what shards tell each other, and what a stream looks like inside one.
//!
//! A stream has one home shard, where its publisher is. Every other shard with viewers of it gets each batch once, keeps
//! its own copy in its own cache, and serves its viewers like the home shard serves its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::ledger::Reason;
use crate::media::{Format, MediaKind};
use crate::publication::cache::{CachedPacket, PacketInfo};
use crate::publication::clock::ClockPoint;
use crate::publication::keyframe::KeyframeRequester;
use crate::publication::{Publication, Track};
use crate::session::{RemoteCandidate, SessionId, SessionSpec, ShardIndex, StreamId};
use crate::stats::ShardSnapshot;
use crate::subscription::Subscription;

/// Batches that may wait for a shard before further ones are refused: about two seconds of a busy stream.
const MAX_FEEDS: usize = 512;

/// The formats that a publisher negotiated, audio and video.
pub(crate) type PublisherFormats = [Vec<Format>; 2];

/// What reaches a shard besides datagrams.
pub(crate) enum ShardMessage {
    /// A new session; the stream's home shard.
    Open(Box<SessionSpec>, ShardIndex),
    /// End a session.
    Close(SessionId, Reason),
    /// Trickled candidates.
    Candidates(SessionId, Vec<RemoteCandidate>),
    /// Show yourself.
    Snapshot(oneshot::Sender<ShardSnapshot>),
    /// End all sessions and stop.
    Shutdown,
    /// To the home shard: this shard has viewers of the stream now.
    Join(StreamId, ShardIndex),
    /// To the home shard: this shard has none any more.
    Leave(StreamId, ShardIndex),
    /// To the home shard: a viewer cannot decode without a keyframe.
    KeyframeWanted(StreamId),
    /// From the home shard: the publisher's formats; `None` when it is gone.
    Publisher(StreamId, Option<Arc<PublisherFormats>>),
    /// From the home shard: packets.
    Feed(Arc<Feed>),
}

/// Room of a feed: what one full batch from the socket brings, at usual packet sizes.
const FEED_PACKETS: usize = 64;
const FEED_BYTES: usize = FEED_PACKETS * 1200;

/// The packets of one batch on their way to another shard.
pub(crate) struct Feed {
    pub(crate) stream: StreamId,
    pub(crate) clocks: [Option<ClockPoint>; 2],
    packets: Vec<FeedPacket>,
    bytes: Vec<u8>,
}

struct FeedPacket {
    kind: MediaKind,
    info: PacketInfo,
    extensions: usize,
    payload: usize,
}

impl Default for Feed {
    /// An empty feed with room for a batch.
    fn default() -> Feed {
        Feed {
            stream: StreamId::default(),
            clocks: [None; 2],
            packets: Vec::with_capacity(FEED_PACKETS),
            bytes: Vec::with_capacity(FEED_BYTES),
        }
    }
}

impl Feed {
    /// Empties it for another batch; its room stays.
    pub(crate) fn begin(&mut self, stream: StreamId, clocks: [Option<ClockPoint>; 2]) {
        self.stream = stream;
        self.clocks = clocks;
        self.packets.clear();
        self.bytes.clear();
    }

    pub(crate) fn push(&mut self, kind: MediaKind, packet: &CachedPacket<'_>) {
        self.packets.push(FeedPacket {
            kind,
            info: packet.info,
            extensions: packet.extensions.len(),
            payload: packet.payload.len(),
        });
        self.bytes.extend_from_slice(packet.extensions);
        self.bytes.extend_from_slice(packet.payload);
    }

    pub(crate) fn packets(&self) -> impl Iterator<Item = (MediaKind, CachedPacket<'_>)> {
        let mut rest = &self.bytes[..];
        self.packets.iter().map(move |packet| {
            let (extensions, behind) = rest.split_at(packet.extensions);
            let (payload, behind) = behind.split_at(packet.payload);
            rest = behind;
            (packet.kind, CachedPacket { info: packet.info, extensions, payload })
        })
    }
}

/// The way to a shard. Control messages always pass; feeds only while the shard keeps up.
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

pub(crate) fn channel() -> (ShardSender, ShardInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let feeds = Arc::new(AtomicUsize::new(0));
    (ShardSender { messages: sender, feeds: feeds.clone() }, ShardInbox { messages: receiver, feeds })
}

impl ShardSender {
    /// Sends a control message; a shard that has stopped needs none.
    pub(crate) fn send(&self, message: ShardMessage) {
        let _ = self.messages.send(message);
    }

    /// Hands a batch over; false if the shard is too far behind.
    pub(crate) fn feed(&self, feed: Arc<Feed>) -> bool {
        if self.feeds.fetch_add(1, Ordering::Relaxed) >= MAX_FEEDS {
            self.feeds.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.messages.send(ShardMessage::Feed(feed)).is_ok()
    }
}

impl ShardInbox {
    pub(crate) async fn recv(&mut self) -> Option<ShardMessage> {
        let message = self.messages.recv().await;
        self.note(message)
    }

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

/// A stream inside one shard.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) home: ShardIndex,
    pub(crate) tracks: [Track; 2],
    pub(crate) clocks: [Option<ClockPoint>; 2],
    pub(crate) formats: Option<Arc<PublisherFormats>>,
    /// On the home shard: the connected publisher and its session's key.
    pub(crate) publisher: Option<(usize, Publication)>,
    pub(crate) viewers: Vec<Subscription>,
    /// On the home shard: the other shards with viewers.
    pub(crate) joined: Vec<ShardIndex>,
    pub(crate) keyframes: KeyframeRequester,
    /// Sessions of this shard, connected or not.
    pub(crate) sessions: usize,
    pub(crate) without_publisher_since: Option<Instant>,
    /// Sequence numbers that came in the present batch and wait for their fan-out.
    pub(crate) fresh: [Vec<u64>; 2],
}

impl Stream {
    pub(crate) fn new(now: Instant, id: StreamId, home: ShardIndex, keyframe_interval: Duration) -> Stream {
        Stream {
            id,
            home,
            tracks: [Track::new(MediaKind::Audio), Track::new(MediaKind::Video)],
            clocks: [None; 2],
            formats: None,
            publisher: None,
            viewers: Vec::new(),
            joined: Vec::new(),
            keyframes: KeyframeRequester::new(keyframe_interval),
            sessions: 0,
            without_publisher_since: Some(now),
            fresh: [Vec::with_capacity(64), Vec::with_capacity(64)],
        }
    }

    /// True if nobody needs it here any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.sessions == 0 && self.joined.is_empty()
    }

    /// A publisher came (`Some`) or went. What the old one sent is never sent again.
    pub(crate) fn set_publisher(&mut self, now: Instant, formats: Option<Arc<PublisherFormats>>) {
        for track in &mut self.tracks {
            track.end_publication();
        }
        for fresh in &mut self.fresh {
            fresh.clear();
        }
        self.clocks = [None; 2];
        self.keyframes.on_publisher();
        self.without_publisher_since = formats.is_none().then_some(now);
        if let Some(formats) = &formats {
            for outgoing in self.viewers.iter_mut().flat_map(|viewer| viewer.outgoing.iter_mut().flatten()) {
                outgoing.set_publisher_formats(&formats[outgoing.kind.index()]);
            }
        }
        self.formats = formats;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Arc<Feed> {
        Arc::default()
    }

    #[test]
    fn a_shard_that_is_behind_refuses_feeds_but_never_control() {
        let (sender, mut inbox) = channel();
        for _ in 0..MAX_FEEDS {
            assert!(sender.feed(feed()));
        }
        assert!(!sender.feed(feed()));
        sender.send(ShardMessage::KeyframeWanted(StreamId(1)));
        assert!(matches!(inbox.try_recv(), Some(ShardMessage::Feed(_))));
        assert!(sender.feed(feed()));
        let rest: Vec<ShardMessage> = std::iter::from_fn(|| inbox.try_recv()).collect();
        assert_eq!(rest.len(), MAX_FEEDS + 1);
    }

    #[test]
    fn packets_cross_over_as_they_were() {
        let mut feed = Feed::default();
        feed.begin(StreamId(1), [None; 2]);
        let info = PacketInfo { sequence: 7, timestamp: 9, payload_type: 96, marker: true, keyframe: false };
        let first = CachedPacket { info, extensions: &[1, 1, 5], payload: b"video" };
        let second = CachedPacket { info: PacketInfo { sequence: 8, ..info }, extensions: &[], payload: b"audio" };
        feed.push(MediaKind::Video, &first);
        feed.push(MediaKind::Audio, &second);
        let got: Vec<_> =
            feed.packets().map(|(kind, p)| (kind, p.info, p.extensions.to_vec(), p.payload.to_vec())).collect();
        assert_eq!(got[0], (MediaKind::Video, first.info, vec![1, 1, 5], b"video".to_vec()));
        assert_eq!(got[1], (MediaKind::Audio, second.info, vec![], b"audio".to_vec()));
        feed.begin(StreamId(2), [None; 2]);
        assert_eq!(feed.packets().count(), 0);
    }
}
