//! Streams that span shards: what shards tell each other, and what a stream looks like inside one.
//!
//! A stream has one home shard, where its publisher is. Every other shard with viewers of it gets each batch once, keeps
//! its own copy in its own cache, and serves its viewers like the home shard serves its own.

use std::collections::VecDeque;
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

/// A walk over a stream's viewers whose packets waited longer than this begins late.
const MAX_WAIT: Duration = Duration::from_millis(150);
/// One late walk is a pause of the machine, which passes; so many in a row mean that the shard cannot keep up, and so does
/// a late one that is still under way after [`MAX_WAIT`].
const LATE_WALKS: u32 = 2;

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
/// Feeds that there are as soon as one is needed: as many as may be under way when the other shards keep up.
const SPARE_FEEDS: usize = 16;
/// Feeds whose room is kept for later ones, some megabytes at most.
const MAX_SPARE_FEEDS: usize = 64;

/// The packets of one batch on their way to another shard.
pub(crate) struct Feed {
    pub(crate) head: FeedHead,
    packets: Vec<FeedPacket>,
    bytes: Vec<u8>,
}

/// What another shard is to know of a stream besides its packets.
#[derive(Clone, Copy, Default)]
pub(crate) struct FeedHead {
    pub(crate) stream: StreamId,
    pub(crate) clocks: [Option<ClockPoint>; 2],
    /// The publisher does not answer keyframe requests.
    pub(crate) keyframes_ignored: bool,
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
            head: FeedHead::default(),
            packets: Vec::with_capacity(FEED_PACKETS),
            bytes: Vec::with_capacity(FEED_BYTES),
        }
    }
}

impl Feed {
    /// Empties it for another batch; its room stays.
    fn begin(&mut self, head: FeedHead) {
        self.head = head;
        self.packets.clear();
        self.bytes.clear();
    }

    fn push(&mut self, kind: MediaKind, packet: &CachedPacket<'_>) {
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

/// Feeds that were given away. Those that all other shards have done with serve again.
#[derive(Default)]
pub(crate) struct Feeds {
    given: VecDeque<Arc<Feed>>,
}

/// How many feeds other shards took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HandedOver {
    pub(crate) taken: u64,
    pub(crate) refused: u64,
}

impl Feeds {
    /// Gives each of the shards these packets.
    fn give<'a>(
        &mut self,
        head: FeedHead,
        packets: impl Iterator<Item = (MediaKind, CachedPacket<'a>)>,
        shards: impl Iterator<Item = &'a ShardSender> + Clone,
    ) -> HandedOver {
        let mut handed_over = HandedOver::default();
        let mut packets = packets.peekable();
        while packets.peek().is_some() {
            let mut feed = self.take();
            // Nobody else has it.
            let Some(room) = Arc::get_mut(&mut feed) else { break };
            room.begin(head);
            packets.by_ref().take(FEED_PACKETS).for_each(|(kind, packet)| room.push(kind, &packet));
            for shard in shards.clone() {
                if shard.feed(feed.clone()) {
                    handed_over.taken += 1;
                } else {
                    handed_over.refused += 1;
                }
            }
            self.given.push_back(feed);
        }
        handed_over
    }

    /// One that nobody else has: the oldest, unless a shard is behind. Then a new one is made, and what is too much is
    /// let go.
    fn take(&mut self) -> Arc<Feed> {
        if self.given.is_empty() {
            self.given.extend(std::iter::repeat_with(Arc::default).take(SPARE_FEEDS));
        }
        let Some(mut feed) = self.given.pop_front() else { return Arc::default() };
        if Arc::get_mut(&mut feed).is_some() {
            return feed;
        }
        if self.given.len() < MAX_SPARE_FEEDS {
            self.given.push_back(feed);
        }
        Arc::default()
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
    /// The present walk over the viewers, or the next one.
    pub(crate) walk: Walk,
    /// On the home shard: behind the last packets that the joined shards were given.
    handed_over: [u64; 2],
}

/// A walk over a stream's viewers, which get what came since the last one. It may be interrupted between two viewers.
#[derive(Default)]
pub(crate) struct Walk {
    /// It waits for its turn or is under way.
    queued: bool,
    under_way: bool,
    /// The viewer that is next.
    pub(crate) next: usize,
    /// Packets that came behind later ones since the last walk.
    pub(crate) late: [Vec<u64>; 2],
    /// The viewers let go of what waited too long.
    shedding: bool,
    /// When a late one is taken for one too many.
    too_long: Option<Instant>,
    /// Some viewer has more to come that is not due yet.
    pub(crate) behind: bool,
    /// Since when the packets of the next walk wait.
    waiting_since: Option<Instant>,
    /// Walks in a row that began late.
    late_walks: u32,
    /// Behind the last packets that this walk is about.
    pub(crate) heads: [u64; 2],
}

impl Walk {
    /// True if viewers let go of what waited too long.
    pub(crate) fn sheds(&self, now: Instant) -> bool {
        self.shedding || self.too_long.is_some_and(|too_long| now > too_long)
    }
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
            walk: Walk::default(),
            handed_over: [0; 2],
        }
    }

    /// Packets came at `now`, or time did for viewers that wait. True if the stream was not in the queue yet.
    pub(crate) fn enqueue(&mut self, now: Instant) -> bool {
        self.walk.waiting_since.get_or_insert(now);
        !std::mem::replace(&mut self.walk.queued, true)
    }

    /// Payload bits per second of all tracks of late.
    pub(crate) fn bitrate(&self) -> u64 {
        self.tracks.iter().map(Track::bitrate).sum()
    }

    /// True if a walk waits for its turn or is under way.
    pub(crate) fn is_queued(&self) -> bool {
        self.walk.queued
    }

    /// Begins a walk over the viewers; false if one is under way.
    pub(crate) fn begin_walk(&mut self, now: Instant) -> bool {
        let walk = &mut self.walk;
        if std::mem::replace(&mut walk.under_way, true) {
            return false;
        }
        let waited = walk.waiting_since.take().map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        walk.late_walks = if waited > MAX_WAIT { walk.late_walks + 1 } else { 0 };
        walk.shedding = walk.late_walks >= LATE_WALKS;
        walk.too_long = (walk.late_walks > 0).then(|| now + MAX_WAIT);
        walk.behind = false;
        for (track, late) in self.tracks.iter_mut().zip(&mut walk.late) {
            track.take_late(late);
        }
        self.walk.heads = self.heads();
        true
    }

    /// Ends a walk. True if more came meanwhile: the stream has to queue again.
    pub(crate) fn end_walk(&mut self) -> bool {
        self.walk.next = 0;
        self.walk.under_way = false;
        self.walk.queued = self.walk.heads != self.heads() || self.tracks.iter().any(Track::has_late);
        self.walk.queued
    }

    /// Takes a viewer out, so that a walk under way misses nobody. Others may have taken its place, and the place of
    /// those: returns both indices.
    pub(crate) fn remove_viewer(&mut self, index: usize) -> [usize; 2] {
        let mut hole = index;
        if index < self.walk.next {
            // Its place goes to one that has been served, too.
            self.walk.next -= 1;
            hole = self.walk.next;
            self.viewers.swap(index, hole);
        }
        self.viewers.swap_remove(hole);
        [index, hole]
    }

    /// Behind the highest sequence number that came, by kind.
    fn heads(&self) -> [u64; 2] {
        self.tracks.each_ref().map(Track::head)
    }

    fn feed_head(&self) -> FeedHead {
        FeedHead { stream: self.id, clocks: self.clocks, keyframes_ignored: self.keyframes.is_ignored() }
    }

    /// Gives the joined shards what they have not been given yet: the packets in order, then those that came behind
    /// later ones. Returns how many feeds were taken and how many refused.
    pub(crate) fn hand_over(&mut self, feeds: &mut Feeds, shards: &[ShardSender]) -> HandedOver {
        let heads = self.heads();
        let handed_over = std::mem::replace(&mut self.handed_over, heads);
        let packets = [MediaKind::Audio, MediaKind::Video].into_iter().flat_map(|kind| {
            let (track, from) = (&self.tracks[kind.index()], handed_over[kind.index()]);
            let late = self.walk.late[kind.index()].iter().copied().filter(move |&late| late < from);
            (from..track.head()).chain(late).filter_map(move |sequence| Some((kind, track.cache.get(sequence)?)))
        });
        feeds.give(self.feed_head(), packets, self.joined.iter().map(|&shard| &shards[shard]))
    }

    /// A shard has viewers of this stream now. It is given everything since the last keyframe for their start.
    pub(crate) fn join(&mut self, now: Instant, shard: ShardIndex, feeds: &mut Feeds, shards: &[ShardSender]) {
        if self.joined.contains(&shard) {
            return;
        }
        if self.joined.is_empty() {
            self.handed_over = self.heads();
        }
        self.joined.push(shard);
        let Some(formats) = &self.formats else { return };
        shards[shard].send(ShardMessage::Publisher(self.id, Some(formats.clone())));
        let track = &self.tracks[MediaKind::Video.index()];
        let end = self.handed_over[MediaKind::Video.index()];
        let start = track.start(now).map_or(end, |info| info.sequence);
        let packets = (start..end).filter_map(|sequence| Some((MediaKind::Video, track.cache.get(sequence)?)));
        feeds.give(self.feed_head(), packets, std::iter::once(&shards[shard]));
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
        for late in &mut self.walk.late {
            late.clear();
        }
        self.clocks = [None; 2];
        let takes_requests = |format: &Format| format.feedback.pli || format.feedback.fir;
        let video = formats.as_ref().map(|formats| &formats[MediaKind::Video.index()]);
        self.keyframes.on_publisher(video.is_none_or(|formats| formats.iter().any(takes_requests)));
        self.without_publisher_since = formats.is_none().then_some(now);
        for outgoing in self.viewers.iter_mut().flat_map(|viewer| viewer.outgoing.iter_mut().flatten()) {
            outgoing.end_publication(&self.tracks[outgoing.kind.index()]);
            if let Some(formats) = &formats {
                outgoing.set_publisher_formats(&formats[outgoing.kind.index()]);
            }
        }
        self.formats = formats;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::DtlsRole;
    use crate::srtp::{KeyingMaterial, SrtpProfile};

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
    fn viewers_that_leave_during_a_walk_make_it_miss_nobody() {
        let path = crate::net::TransportTuple::udp(([127, 0, 0, 1], 9).into(), None);
        let keying = KeyingMaterial::new(SrtpProfile::AeadAes128Gcm, &[7; 56]).unwrap();
        let viewer = |session| {
            let sender = keying.contexts(DtlsRole::Server).unwrap().1;
            Subscription::new(Instant::now(), session, path, sender, [None, None], 0)
        };
        let sessions = |viewers: &[Subscription]| viewers.iter().map(|viewer| viewer.session).collect::<Vec<_>>();
        for leaving in 0..5 {
            let mut stream = Stream::new(Instant::now(), StreamId(1), 0, Duration::from_millis(500));
            stream.viewers = (0..5).map(viewer).collect();
            assert!(stream.begin_walk(Instant::now()));
            stream.walk.next = 2;
            let moved = stream.remove_viewer(leaving);
            assert!(!stream.begin_walk(Instant::now()), "still under way");
            let (served, waiting) = stream.viewers.split_at(stream.walk.next);
            let (mut served, mut waiting) = (sessions(served), sessions(waiting));
            served.sort_unstable();
            waiting.sort_unstable();
            assert_eq!(served, (0..2).filter(|&session| session != leaving).collect::<Vec<_>>());
            assert_eq!(waiting, (2..5).filter(|&session| session != leaving).collect::<Vec<_>>());
            for (index, viewer) in stream.viewers.iter().enumerate() {
                assert!(viewer.session == index || moved.contains(&index), "viewer {} unnoticed", viewer.session);
            }
        }
    }

    #[test]
    fn only_walks_that_begin_late_in_a_row_let_go_of_packets() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut stream = Stream::new(start, StreamId(1), 0, Duration::from_millis(500));
        // When packets come, when their walk begins, and whether it sheds.
        for (came, begins, sheds) in [
            (0, 0, false),
            // A pause of the machine.
            (10, 500, false),
            (495, 505, false),
            // Too much work.
            (600, 800, false),
            (650, 1_000, true),
            (850, 1_200, true),
            (1_150, 1_210, false),
        ] {
            assert!(stream.enqueue(at(came)));
            assert!(!stream.enqueue(at(came + 1)), "it is in the queue already");
            assert!(stream.begin_walk(at(begins)));
            assert_eq!(stream.walk.sheds(at(begins)), sheds, "{came}");
            // Of a walk that takes long, only what comes after a late begin.
            let late = begins - came > 150;
            assert_eq!(stream.walk.sheds(at(begins + 151)), sheds || late, "{came}");
            assert!(!stream.end_walk());
        }
    }

    #[test]
    fn packets_cross_over_as_they_were() {
        let mut feed = Feed::default();
        feed.begin(FeedHead::default());
        let now = Instant::now();
        let info =
            PacketInfo { sequence: 7, timestamp: 9, arrived: now, payload_type: 96, marker: true, keyframe: false };
        let first = CachedPacket { info, extensions: &[1, 1, 5], payload: b"video" };
        let second = CachedPacket { info: PacketInfo { sequence: 8, ..info }, extensions: &[], payload: b"audio" };
        feed.push(MediaKind::Video, &first);
        feed.push(MediaKind::Audio, &second);
        let got: Vec<_> =
            feed.packets().map(|(kind, p)| (kind, p.info, p.extensions.to_vec(), p.payload.to_vec())).collect();
        assert_eq!(got[0], (MediaKind::Video, first.info, vec![1, 1, 5], b"video".to_vec()));
        assert_eq!(got[1], (MediaKind::Audio, second.info, vec![], b"audio".to_vec()));
        feed.begin(FeedHead::default());
        assert_eq!(feed.packets().count(), 0);
    }
}
