//! The feed of a stream from its home shard to the shards with further viewers of it: every batch once, as plain data.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{ClockPoint, WallClock};
use crate::layers::{MAX_ENCODINGS, PacketLayer};
use crate::media::TrackId;
use crate::spec::{ShardIndex, StreamId};
use crate::stream::{CachedPacket, DescribedLayers, PacketInfo, Tracks};

use super::reader::Reader;

/// Packets of one feed: what one full batch from the socket brings.
const FEED_PACKETS: usize = 64;
/// Their bytes, at usual packet sizes.
const FEED_BYTES: usize = FEED_PACKETS * 1200;
/// Feeds that are made as soon as one is needed: as many as are in transit when the other shards keep up.
const SPARE_FEEDS: usize = 16;
/// Feeds whose memory is kept for later ones, some megabytes at most.
const MAX_SPARE_FEEDS: usize = 64;

/// Packets of one stream on their way to another shard, and what it is to know besides.
pub struct Feed {
    /// The stream.
    pub stream: StreamId,
    /// What is to be known of its tracks.
    pub tracks: Vec<FeedTrack>,
    packets: Vec<FeedPacket>,
    bytes: Vec<u8>,
}

/// What another shard is to know of a track besides its packets.
#[derive(Clone, Copy, Debug)]
pub struct FeedTrack {
    /// The track.
    pub id: TrackId,
    /// Which wall-clock time belongs to its RTP timestamps.
    pub clock: Option<ClockPoint>,
    /// The encodings of which the publisher does not answer keyframe requests, one bit each.
    pub keyframe_requests_ignored: u8,
    /// What its stream says of its layers, by encoding.
    pub described: [DescribedLayers; MAX_ENCODINGS],
}

struct FeedPacket {
    track: TrackId,
    encoding: u8,
    payload_type: u8,
    marker: bool,
    keyframe: bool,
    layer: PacketLayer,
    timestamp: u32,
    sequence: u64,
    /// When it was received, since the Unix epoch.
    arrived: Duration,
    /// Bytes of stored header extensions and of payload.
    lengths: (usize, usize),
}

impl Default for Feed {
    /// An empty feed with room for a batch.
    fn default() -> Feed {
        Feed {
            stream: StreamId::default(),
            tracks: Vec::new(),
            packets: Vec::with_capacity(FEED_PACKETS),
            bytes: Vec::with_capacity(FEED_BYTES),
        }
    }
}

impl Feed {
    /// Empties it for another batch; its memory stays.
    fn begin(&mut self, stream: StreamId, tracks: &Tracks) {
        self.stream = stream;
        self.tracks.clear();
        self.tracks.extend(tracks.iter().map(|track| FeedTrack {
            id: track.id,
            clock: track.clock,
            keyframe_requests_ignored: track.requests_ignored(),
            described: track.described(),
        }));
        self.packets.clear();
        self.bytes.clear();
    }

    fn push(&mut self, wall: &WallClock, (track, encoding): (TrackId, u8), packet: &CachedPacket<'_>) {
        let PacketInfo { sequence, timestamp, arrived, payload_type, marker, keyframe, layer } = packet.info;
        self.packets.push(FeedPacket {
            track,
            encoding,
            payload_type,
            marker,
            keyframe,
            layer,
            timestamp,
            sequence,
            arrived: wall.unix(arrived),
            lengths: (packet.extensions.len(), packet.payload.len()),
        });
        self.bytes.extend_from_slice(packet.extensions);
        self.bytes.extend_from_slice(packet.payload);
    }

    /// The packets, with the track and the position of the encoding that each belongs to.
    pub fn packets<'a>(&'a self, wall: &'a WallClock) -> impl Iterator<Item = (TrackId, u8, CachedPacket<'a>)> {
        let mut rest = &self.bytes[..];
        self.packets.iter().map(move |packet| {
            let &FeedPacket { sequence, timestamp, payload_type, marker, keyframe, layer, .. } = packet;
            let (extensions, after) = rest.split_at(packet.lengths.0);
            let (payload, after) = after.split_at(packet.lengths.1);
            rest = after;
            let arrived = wall.instant(packet.arrived);
            let info = PacketInfo { sequence, timestamp, arrived, payload_type, marker, keyframe, layer };
            (packet.track, packet.encoding, CachedPacket { info, extensions, payload })
        })
    }
}

/// Feeds that were sent. Those that all other shards have read are filled again.
pub struct FeedPool {
    wall: WallClock,
    sent: VecDeque<Arc<Feed>>,
}

impl FeedPool {
    /// A pool without feeds.
    pub fn new(wall: WallClock) -> FeedPool {
        FeedPool { wall, sent: VecDeque::new() }
    }

    /// Sends these packets of a stream, in as many feeds as they need.
    fn send<'a>(
        &mut self,
        (stream, tracks): (StreamId, &'a Tracks),
        packets: impl Iterator<Item = ((TrackId, u8), CachedPacket<'a>)>,
        mut send: impl FnMut(&Arc<Feed>),
    ) {
        let mut packets = packets.peekable();
        while packets.peek().is_some() {
            let mut feed = self.take();
            // Nobody else has it.
            let Some(writer) = Arc::get_mut(&mut feed) else { break };
            writer.begin(stream, tracks);
            let wall = &self.wall;
            packets.by_ref().take(FEED_PACKETS).for_each(|(encoding, packet)| writer.push(wall, encoding, &packet));
            send(&feed);
            self.sent.push_back(feed);
        }
    }

    /// A feed that nobody else has: the oldest, unless a shard lags. Then a new one is made, and memory beyond the bound is
    /// freed; the rest of it once the shard keeps up again.
    fn take(&mut self) -> Arc<Feed> {
        if self.sent.is_empty() {
            self.sent.extend(std::iter::repeat_with(Arc::default).take(SPARE_FEEDS));
        }
        let Some(mut feed) = self.sent.pop_front() else { return Arc::default() };
        if Arc::get_mut(&mut feed).is_some() {
            // No shard lags any more: what was made while one did goes, one with each that is sent.
            if self.sent.len() >= SPARE_FEEDS && self.sent.front_mut().is_some_and(|next| Arc::get_mut(next).is_some())
            {
                self.sent.pop_front();
            }
            return feed;
        }
        if self.sent.len() < MAX_SPARE_FEEDS {
            self.sent.push_back(feed);
        }
        Arc::default()
    }
}

/// The shards that a stream is fed to, and what they were sent.
#[derive(Default)]
pub struct Feeder {
    shards: Vec<ShardIndex>,
    /// One for each encoding.
    readers: Vec<Reader>,
}

impl Feeder {
    /// The shards that are fed.
    pub fn shards(&self) -> &[ShardIndex] {
        &self.shards
    }

    /// A shard has no viewers any more.
    pub fn remove(&mut self, shard: ShardIndex) {
        self.shards.retain(|&fed| fed != shard);
    }

    /// A shard has viewers now; false if it is fed already. It is sent everything since the last keyframe of each video track
    /// for their start.
    pub fn add(
        &mut self,
        now: Instant,
        shard: ShardIndex,
        (stream, tracks): (StreamId, &Tracks),
        pool: &mut FeedPool,
        send: impl FnMut(&Arc<Feed>),
    ) {
        if self.shards.is_empty() {
            let encodings = tracks.iter().flat_map(|track| track.encodings().map(|(index, e)| (track.id, index, e)));
            self.readers.clear();
            self.readers.extend(encodings.map(|(track, index, encoding)| Reader::new(track, index, encoding.end())));
        }
        self.shards.push(shard);
        let backlog = self.readers.iter().filter_map(|reader| {
            let encoding = tracks.encoding(reader.track(), reader.encoding())?;
            let keyframe = encoding.start(now)?.sequence;
            let name = (reader.track(), reader.encoding());
            let packets = (keyframe..reader.position()).filter_map(|sequence| encoding.packet(sequence));
            Some(packets.map(move |packet| (name, packet)))
        });
        pool.send((stream, tracks), backlog.flatten(), send);
    }

    /// Sends the packets of the present fan-out pass.
    pub fn feed(&mut self, (stream, tracks): (StreamId, &Tracks), pool: &mut FeedPool, send: impl FnMut(&Arc<Feed>)) {
        for track in tracks.iter() {
            for (index, _) in track.encodings() {
                let is_read = |reader: &Reader| reader.track() == track.id && reader.encoding() == index;
                if !self.readers.iter().any(is_read) {
                    self.readers.push(Reader::new(track.id, index, 0));
                }
            }
        }
        let packets = self.readers.iter_mut().filter_map(|reader| {
            let encoding = tracks.encoding(reader.track(), reader.encoding())?;
            let name = (reader.track(), reader.encoding());
            let out_of_order = reader.out_of_order(encoding);
            let in_order = std::iter::from_fn(move || reader.read(encoding, encoding.pass_end()));
            Some(out_of_order.chain(in_order).map(move |packet| (name, packet)))
        });
        pool.send((stream, tracks), packets.flatten(), send);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(sequence: u64, keyframe: bool) -> PacketInfo {
        let timestamp = sequence as u32 * 3_000;
        PacketInfo {
            sequence,
            timestamp,
            arrived: Instant::now(),
            payload_type: 96,
            marker: true,
            keyframe,
            layer: PacketLayer::ONLY,
        }
    }

    fn admit(tracks: &mut Tracks, track: TrackId, info: PacketInfo, extensions: &[u8], payload: &[u8]) {
        tracks.get_or_insert(track);
        assert!(tracks.encoding_mut(track, 0).unwrap().admit(info, extensions, payload));
    }

    fn sequences(feeds: &[Arc<Feed>], track: TrackId) -> Vec<u64> {
        let wall = WallClock::now();
        let all = feeds.iter().flat_map(|feed| feed.packets(&wall).collect::<Vec<_>>());
        all.filter(|(of, ..)| *of == track).map(|(.., packet)| packet.info.sequence).collect()
    }

    #[test]
    fn packets_cross_over_as_they_were() {
        let wall = WallClock::now();
        let mut tracks = Tracks::new(Duration::ZERO);
        let (video, audio) = (info(7, true), info(8, false));
        admit(&mut tracks, TrackId::VIDEO, video, &[1, 1, 5], b"video");
        admit(&mut tracks, TrackId::AUDIO, audio, &[], b"audio");
        tracks.begin_pass();
        let (mut feeder, mut pool, mut feeds) = (Feeder::default(), FeedPool::new(wall), Vec::new());
        feeder.feed((StreamId(3), &tracks), &mut pool, |feed| feeds.push(feed.clone()));
        assert_eq!((feeds.len(), feeds[0].stream, feeds[0].tracks.len()), (1, StreamId(3), 2));
        let got: Vec<_> = feeds[0].packets(&wall).collect();
        let (track, encoding, first) = got[0];
        assert_eq!((track, encoding, first.info), (TrackId::VIDEO, 0, video));
        assert_eq!((first.extensions, first.payload), (&[1, 1, 5][..], &b"video"[..]));
        let (track, encoding, second) = got[1];
        assert_eq!((track, encoding, second.info), (TrackId::AUDIO, 0, audio));
        assert_eq!((second.extensions, second.payload), (&[][..], &b"audio"[..]));
        feeds.clear();
        tracks.begin_pass();
        feeder.feed((StreamId(3), &tracks), &mut pool, |feed| feeds.push(feed.clone()));
        assert!(feeds.is_empty(), "nothing is sent twice");
    }

    #[test]
    fn a_new_shard_is_sent_everything_since_the_keyframe_and_then_every_packet_once() {
        let mut tracks = Tracks::new(Duration::ZERO);
        for sequence in 0..100 {
            admit(&mut tracks, TrackId::VIDEO, info(sequence, sequence == 20), &[], b"x");
            admit(&mut tracks, TrackId::AUDIO, info(sequence, false), &[], b"x");
        }
        tracks.begin_pass();
        let (mut feeder, mut pool) = (Feeder::default(), FeedPool::new(WallClock::now()));
        let mut feeds = Vec::new();
        feeder.add(Instant::now(), 1, (StreamId(0), &tracks), &mut pool, |feed| feeds.push(feed.clone()));
        assert_eq!(feeder.shards(), [1]);
        assert_eq!(sequences(&feeds, TrackId::VIDEO), (20..100).collect::<Vec<_>>());
        assert_eq!(sequences(&feeds, TrackId::AUDIO), [0; 0]);
        feeds.clear();
        for sequence in [100, 102] {
            admit(&mut tracks, TrackId::VIDEO, info(sequence, false), &[], b"x");
        }
        tracks.begin_pass();
        feeder.feed((StreamId(0), &tracks), &mut pool, |feed| feeds.push(feed.clone()));
        admit(&mut tracks, TrackId::VIDEO, info(101, false), &[], b"x");
        tracks.begin_pass();
        feeder.feed((StreamId(0), &tracks), &mut pool, |feed| feeds.push(feed.clone()));
        assert_eq!(sequences(&feeds, TrackId::VIDEO), [100, 102, 101]);
        feeder.remove(1);
        assert!(feeder.shards().is_empty());
    }

    #[test]
    fn feeds_that_were_read_are_filled_again() {
        let tracks = Tracks::new(Duration::ZERO);
        let mut pool = FeedPool::new(WallClock::now());
        let packet = CachedPacket { info: info(0, false), extensions: &[], payload: b"x" };
        let mut send = |keep: &mut Vec<Arc<Feed>>| {
            let packets = std::iter::once(((TrackId::AUDIO, 0), packet));
            pool.send((StreamId(0), &tracks), packets, |feed| keep.push(feed.clone()));
            pool.sent.len()
        };
        for _ in 0..100 {
            assert_eq!(send(&mut Vec::new()), SPARE_FEEDS);
        }
        // A shard that lags keeps them.
        let mut kept = Vec::new();
        for _ in 0..3 * MAX_SPARE_FEEDS {
            assert!(send(&mut kept) <= MAX_SPARE_FEEDS + 1);
        }
        // Once it keeps up, their memory goes.
        kept.clear();
        let lengths: Vec<usize> = (0..MAX_SPARE_FEEDS).map(|_| send(&mut Vec::new())).collect();
        assert!(lengths.is_sorted_by(|before, after| before >= after), "{lengths:?}");
        assert_eq!(lengths.last(), Some(&SPARE_FEEDS));
    }
}
