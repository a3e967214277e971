//! One encoding of a track inside one shard: its packets in order, and where a decoder can begin.

use std::time::{Duration, Instant};

use crate::layers::{Layer, MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS, OperatingPoint, PacketLayer, PointSet, point_bit};
use crate::media::MediaKind;

use super::cache::{CachedPacket, PacketCache, PacketInfo};
use super::cache_budget::CacheBudget;
use super::keyframe_requests::KeyframeRequests;
use super::layer_rates::LayerRates;
use super::stored_numbers::StoredNumbers;
use super::timeline::Timeline;

/// A viewer is started with the packets since the last keyframe, if that is not longer ago than this (COD-17).
const MAX_START: Duration = Duration::from_secs(10);
/// The rate of a track is that of about this time.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// After so long without a packet it is measured anew.
const PAUSE: Duration = Duration::from_secs(3);
/// Over less time a rate says nothing.
const MIN_RATE_SPAN: Duration = Duration::from_millis(100);
/// Packets of a frame that stand in front of the one that makes it a keyframe, at most: delimiter, parameter sets and SEI.
const MAX_LEAD: u64 = 32;
/// An encoding that nobody was sent for so long counts as one that nobody watches: until then viewers may come back to it, and ask
/// for its packets again.
const UNWATCHED: Duration = Duration::from_secs(5);
/// Packets that are left where nobody reads and memory is short.
const FEW: u64 = 64;
/// Packets received out of order that wait for the next fan-out pass; more are left to the viewers' NACKs.
const MAX_OUT_OF_ORDER: usize = 256;

/// One version of a track's media. It outlives publishers: numbers go on where the last one ended.
pub struct Encoding {
    cache: PacketCache,
    /// On the home shard: the stream's own numbers for the packets received.
    pub timeline: Timeline,
    /// The requests of its viewers for a keyframe.
    pub keyframe_requests: KeyframeRequests,
    /// The numbers under which packets were stored, in the cache or no longer.
    stored: StoredNumbers,
    /// RTP timestamp and arrival of the packet with the highest number, which stay when the cache is cleared.
    newest: Option<(u32, Instant)>,
    /// Packets received out of order since the last fan-out pass began.
    out_of_order: Vec<u64>,
    pass: PassWindow,
    keyframe: Option<Keyframe>,
    /// What came before was given up to save memory.
    given_up: u64,
    /// Since when nobody is sent it.
    unwatched_since: Option<Instant>,
    /// Payload bytes received so far.
    bytes: u64,
    rate: Rate,
    /// Of video.
    layers: Option<LayerRates>,
    /// What the stream says of them.
    pub described: DescribedLayers,
    /// The publisher says that it sends nothing of it at present.
    pub(super) is_off: bool,
}

/// What a stream says of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescribedLayers {
    /// The points that there are; those whose layers are not sent at present are among them.
    pub points: PointSet,
    /// Width and height of pictures by spatial layer, in pixels, as far as they are known.
    pub sizes: [Option<(u16, u16)>; MAX_SPATIAL_LAYERS as usize],
}

impl Default for DescribedLayers {
    /// No layers, of unknown size.
    fn default() -> DescribedLayers {
        DescribedLayers { points: point_bit(0, 0), sizes: Default::default() }
    }
}

/// How far an encoding's numbers have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// One past the highest sequence number received.
    pub end: u64,
    /// RTP timestamp of that packet.
    pub timestamp: u32,
    /// When it was received.
    pub arrived: Instant,
}

/// The packets that the present fan-out pass is about. Those received meanwhile are for the next one: else the last viewers
/// would get ever more, and a pass of a shard that is too slow would never end.
#[derive(Default)]
struct PassWindow {
    /// One past the highest sequence number.
    end: u64,
    out_of_order: Vec<u64>,
}

/// The rate over the last second or so.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// When the server received the first packet, or the first one after a pause, and the bytes before that.
    begun: Option<Instant>,
    before: u64,
    measured: Option<Instant>,
    /// Bytes by then.
    bytes: u64,
    bits_per_second: f64,
    /// Pictures a second by then.
    pictures: f32,
}

/// The latest keyframe.
#[derive(Clone, Copy, Debug)]
struct Keyframe {
    /// The first packet of its frame; parameter sets may be packets of their own.
    sequence: u64,
    timestamp: u32,
    arrived: Instant,
    /// Packets received, from the first one on.
    packets: u64,
    /// Payload bytes of the keyframe itself.
    bytes: u64,
    /// Those of them that are needed at each spatial layer.
    needed: BytesBySpatialLayer,
    /// The same of the keyframe before: of this one there may be more to come.
    needed_before: BytesBySpatialLayer,
}

type BytesBySpatialLayer = [u64; MAX_SPATIAL_LAYERS as usize];

impl Keyframe {
    fn add(&mut self, layer: &PacketLayer, bytes: u64) {
        self.bytes += bytes;
        for (spatial, needed) in (0..).zip(&mut self.needed) {
            *needed += if layer.present & point_bit(spatial, 0) != 0 { bytes } else { 0 };
        }
    }
}

impl Encoding {
    /// An encoding of which nothing was received; at most one keyframe request for it goes to the publisher in
    /// `keyframe_request_interval`.
    pub fn new(kind: MediaKind, budget: CacheBudget, keyframe_request_interval: Duration) -> Encoding {
        Encoding {
            cache: PacketCache::new(kind, budget),
            timeline: Timeline::new(kind, 90_000),
            keyframe_requests: KeyframeRequests::new(keyframe_request_interval),
            stored: StoredNumbers::new(),
            newest: None,
            out_of_order: Vec::new(),
            pass: PassWindow::default(),
            keyframe: None,
            given_up: 0,
            unwatched_since: None,
            bytes: 0,
            rate: Rate::default(),
            layers: (kind == MediaKind::Video).then(LayerRates::default),
            described: DescribedLayers::default(),
            is_off: false,
        }
    }

    /// Takes a packet into the cache. False if there was a packet of this number before, or if it is too old.
    pub fn admit(&mut self, info: PacketInfo, extensions: &[u8], payload: &[u8]) -> bool {
        let is_in_order = info.sequence >= self.end();
        if !self.stored.is_free(info.sequence) || !self.cache.insert(info, extensions, payload) {
            return false;
        }
        self.stored.fill(info.sequence);
        if self.out_of_order.capacity() == 0 {
            // Memory comes with media.
            self.out_of_order.reserve_exact(MAX_OUT_OF_ORDER);
            self.pass.out_of_order.reserve_exact(MAX_OUT_OF_ORDER);
        }
        if is_in_order {
            let before = self.newest.replace((info.timestamp, info.arrived));
            if before.is_some_and(|(_, before)| info.arrived.saturating_duration_since(before) > PAUSE) {
                self.resume_measuring(info.arrived);
            }
        } else if self.out_of_order.len() < MAX_OUT_OF_ORDER {
            self.out_of_order.push(info.sequence);
        }
        self.rate.begun.get_or_insert(info.arrived);
        self.bytes += payload.len() as u64;
        self.note_keyframe(&info, payload.len() as u64);
        if let Some(layers) = &mut self.layers {
            layers.on_packet(info.arrived, &info.layer, info.marker, payload.len());
        }
        true
    }

    /// One past the highest sequence number received.
    #[inline]
    pub fn end(&self) -> u64 {
        self.stored.end()
    }

    /// The packet with this number, if the cache still has it.
    #[inline]
    pub fn packet(&self, sequence: u64) -> Option<CachedPacket<'_>> {
        self.cache.get(sequence)
    }

    /// What is known of the packet with this number, if the cache still has it.
    pub fn info(&self, sequence: u64) -> Option<PacketInfo> {
        self.cache.info(sequence)
    }

    /// The packet with this number, unless it was received out of order and waits for the next fan-out pass.
    #[inline]
    pub fn in_order(&self, sequence: u64) -> Option<CachedPacket<'_>> {
        if !self.out_of_order.is_empty() && self.out_of_order.contains(&sequence) {
            return None;
        }
        self.cache.get(sequence)
    }

    /// Begins a fan-out pass over the packets received until now.
    pub fn begin_pass(&mut self) {
        self.pass.end = self.end();
        self.pass.out_of_order.clear();
        std::mem::swap(&mut self.pass.out_of_order, &mut self.out_of_order);
    }

    /// One past the highest sequence number of the present fan-out pass.
    #[inline]
    pub fn pass_end(&self) -> u64 {
        self.pass.end
    }

    /// The packets of the present fan-out pass that were received out of order.
    #[inline]
    pub fn pass_out_of_order(&self) -> &[u64] {
        &self.pass.out_of_order
    }

    /// True if packets were received since the fan-out pass began.
    pub fn has_grown_since_pass(&self) -> bool {
        self.pass.end != self.end() || !self.out_of_order.is_empty()
    }

    /// Where decoders start: the first packet of the latest keyframe's frame, parameter sets included.
    pub fn latest_keyframe(&self) -> Option<u64> {
        self.keyframe.map(|keyframe| keyframe.sequence)
    }

    /// True for the timestamp of the latest keyframe.
    pub(crate) fn is_of_latest_keyframe(&self, timestamp: u32) -> bool {
        self.keyframe.is_some_and(|keyframe| keyframe.timestamp == timestamp)
    }

    /// Payload bytes received so far, and those of the latest keyframe: what the publisher's keyframes cost.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes, self.keyframe.map_or(0, |keyframe| keyframe.bytes))
    }

    /// True if the publisher is to be asked for a keyframe now.
    pub fn poll_keyframe_request(&mut self, now: Instant) -> bool {
        let (received, keyframe) = self.bytes();
        self.keyframe_requests.poll(now, received, keyframe)
    }

    /// Payload bits per second over the last second or so, as of the last [`Encoding::measure`].
    pub fn bitrate(&self) -> u64 {
        self.rate.bits_per_second as u64
    }

    /// Measures the rate; to be called several times a second.
    pub fn measure(&mut self, now: Instant) {
        let Rate { begun, before, measured, bytes, bits_per_second, mut pictures } = self.rate;
        let passed = measured.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)).as_secs_f64();
        let age = begun.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let bits_per_second = if begun.is_some() && (bits_per_second == 0.0 || age < RATE_WINDOW) {
            // A viewer's estimate starts from it, so it must not be far off: a shard that is new to the stream receives
            // everything since the last keyframe at once.
            (self.bytes - before) as f64 * 8.0 / age.max(MIN_RATE_SPAN).as_secs_f64()
        } else if passed > 0.0 {
            let present = (self.bytes - bytes) as f64 * 8.0 / passed;
            bits_per_second + (present - bits_per_second) * (passed / RATE_WINDOW.as_secs_f64()).min(1.0)
        } else {
            bits_per_second
        };
        if let Some(layers) = &mut self.layers {
            layers.measure(now);
            if self.bytes > bytes {
                pictures = layers.frame_rate(MAX_TEMPORAL_LAYERS);
            }
        }
        let measured = Some(now);
        self.rate = Rate { begun, before, measured, bytes: self.bytes, bits_per_second, pictures };
    }

    /// A packet after a pause: what a layer carries now is not that of the pause.
    #[cold]
    fn resume_measuring(&mut self, now: Instant) {
        (self.rate.begun, self.rate.before, self.rate.bits_per_second) = (Some(now), self.bytes, 0.0);
        if let Some(layers) = &mut self.layers {
            layers.clear();
        }
    }

    /// When the newest packet of the present publisher arrived, if it has sent a keyframe.
    pub(super) fn last_arrival(&self) -> Option<Instant> {
        self.keyframe.and(self.newest).map(|(_, arrived)| arrived)
    }

    /// What a viewer is sent at each point inside of it, of those whose layers were received of late. `index` is its position
    /// among those of the track.
    pub(super) fn layers(&self, index: u8) -> impl Iterator<Item = Layer> {
        let rates = self.layers.iter();
        rates.flat_map(move |rates| {
            let (highest_spatial, highest_temporal) = rates.highest();
            let points = (0..=highest_spatial).flat_map(move |s| (0..=highest_temporal).map(move |t| (s, t)));
            let points = points.filter(|&(s, t)| self.described.points & point_bit(s, t) != 0);
            points.map(move |(spatial, temporal)| {
                let (width, height) = self.described.sizes[usize::from(spatial)].unwrap_or_default();
                Layer {
                    point: OperatingPoint { encoding: index, spatial, temporal },
                    bitrate: (self.rate.bits_per_second * f64::from(rates.share(spatial, temporal))) as u64,
                    width,
                    height,
                    frame_rate: rates.frame_rate(temporal),
                    keyframe_bytes: self.keyframe.map_or(0, |keyframe| {
                        keyframe.needed[usize::from(spatial)].max(keyframe.needed_before[usize::from(spatial)])
                    }),
                }
            })
        })
    }

    /// The time from one picture to the next when it was received last, if that is known.
    pub(super) fn picture_interval(&self) -> Option<Duration> {
        (self.rate.pictures > 0.01).then(|| Duration::from_secs_f32(1.0 / self.rate.pictures))
    }

    /// Where a viewer that joins now can begin: the latest keyframe, if everything since then is here.
    pub fn start(&self, now: Instant) -> Option<PacketInfo> {
        let keyframe = self.keyframe?;
        let whole = keyframe.packets == self.end() - keyframe.sequence;
        let recent = now.saturating_duration_since(keyframe.arrived) <= MAX_START;
        self.cache.info(keyframe.sequence).filter(|_| whole && recent)
    }

    /// What is known of the packet with the highest number.
    pub fn newest(&self) -> Option<PacketInfo> {
        self.cache.info(self.end().checked_sub(1)?)
    }

    /// Gives memory back: what is older than the latest keyframe, or where nobody reads (`all`) all but the newest packets.
    /// False if there is nothing to give. Not during a fan-out pass.
    pub fn save_memory(&mut self, all: bool) -> bool {
        let keyframe = self.keyframe.map(|keyframe| keyframe.sequence).filter(|_| !all);
        let from = keyframe.unwrap_or_else(|| self.end().saturating_sub(FEW)).max(self.given_up);
        let saves = self.cache.shrink(from, self.end());
        if saves {
            self.given_up = from;
        }
        saves
    }

    /// Learns whether somebody watches it. If nobody does for a while, its cache is made small: it keeps what has come since the
    /// last keyframe only if that fits. `may_copy`: no fan-out pass is about its packets.
    pub(super) fn set_watched(&mut self, now: Instant, is_watched: bool, may_copy: bool) {
        if is_watched {
            self.unwatched_since = None;
            return self.cache.set_small(false);
        }
        let since = *self.unwatched_since.get_or_insert(now);
        if self.cache.is_small() || !may_copy || now.saturating_duration_since(since) < UNWATCHED {
            return;
        }
        self.cache.set_small(true);
        self.keyframe_requests.cancel();
        let fits = |keyframe: Keyframe| self.cache.fits_least(keyframe.sequence, self.end());
        self.save_memory(!self.keyframe.is_some_and(fits));
    }

    /// What came before this number was given up to save memory.
    #[inline]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Another RTP stream begins: that the one before was not sent is nothing to it.
    pub fn forget_allocation(&mut self) {
        self.is_off = false;
    }

    /// The publisher is gone. The next one's first packet goes on from here, and nothing of the old one is sent again.
    pub fn end_publication(&mut self) {
        self.timeline.end_segment();
        self.stored.close();
        self.cache.clear();
        self.out_of_order.clear();
        self.pass.out_of_order.clear();
        self.keyframe = None;
        self.described = DescribedLayers::default();
        self.forget_allocation();
        if let Some(layers) = &mut self.layers {
            layers.clear();
        }
    }

    /// How far its numbers have come; `None` if nothing was received.
    pub fn standing(&self) -> Option<Standing> {
        let (timestamp, arrived) = self.newest?;
        Some(Standing { end: self.end(), timestamp, arrived })
    }

    /// On a home shard that lost its numbers: goes on from where another shard is. False if it is past that.
    pub fn resume(&mut self, standing: &Standing) -> bool {
        if standing.end <= self.end() {
            return false;
        }
        self.end_publication();
        self.stored.skip_to(standing.end);
        self.pass.end = standing.end;
        self.newest = Some((standing.timestamp, standing.arrived));
        self.timeline.resume(standing);
        true
    }

    fn note_keyframe(&mut self, info: &PacketInfo, bytes: u64) {
        let begins = match self.keyframe {
            None => info.keyframe,
            // Received out of order: it was in front of the packet that makes the frame a keyframe.
            Some(last) if info.timestamp == last.timestamp && info.sequence < last.sequence => {
                info.keyframe || last.sequence - info.sequence <= MAX_LEAD
            }
            Some(last) => info.keyframe && info.timestamp != last.timestamp && info.sequence > last.sequence,
        };
        if begins {
            return self.begin_at(&self.first_of_frame(info));
        }
        let Some(last) = self.keyframe.as_mut().filter(|last| info.sequence > last.sequence) else { return };
        last.packets += 1;
        if info.timestamp == last.timestamp {
            last.add(&info.layer, bytes);
        } else if info.arrived.saturating_duration_since(last.arrived) > MAX_START {
            self.cache.keep_from(None);
        }
    }

    /// The first packet of the frame to which this one belongs. Receivers take packets of one RTP time for one frame, too.
    fn first_of_frame(&self, info: &PacketInfo) -> PacketInfo {
        let before = (info.sequence.saturating_sub(MAX_LEAD)..info.sequence).rev();
        let known = before.filter_map(|sequence| self.cache.info(sequence));
        known.take_while(|packet| packet.timestamp == info.timestamp).last().unwrap_or(*info)
    }

    /// The latest keyframe begins with this packet.
    fn begin_at(&mut self, info: &PacketInfo) {
        let &PacketInfo { sequence, timestamp, arrived, .. } = info;
        let needed_before = self.keyframe.map_or([0; _], |last| {
            // The same one, as a packet that was received out of order shows, has no other before it.
            if last.timestamp == timestamp { last.needed_before } else { last.needed }
        });
        let mut keyframe =
            Keyframe { sequence, timestamp, arrived, packets: 0, bytes: 0, needed: [0; _], needed_before };
        // Received out of order, it follows some of its own successors.
        for packet in (sequence..self.end()).filter_map(|sequence| self.cache.get(sequence)) {
            keyframe.packets += 1;
            if packet.info.timestamp == timestamp {
                keyframe.add(&packet.info.layer, packet.payload.len() as u64);
            }
        }
        self.keyframe = Some(keyframe);
        self.cache.keep_from(Some(sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::PacketLayer;

    fn info(arrived: Instant, sequence: u64, timestamp: u32, keyframe: bool) -> PacketInfo {
        PacketInfo { sequence, timestamp, arrived, payload_type: 96, marker: false, keyframe, layer: PacketLayer::ONLY }
    }

    fn encoding(budget: CacheBudget) -> Encoding {
        Encoding::new(MediaKind::Video, budget, Duration::from_millis(500))
    }

    fn start(encoding: &Encoding, now: Instant) -> Option<u64> {
        encoding.start(now).map(|info| info.sequence)
    }

    // COD-17
    #[test]
    fn a_viewer_can_start_at_the_last_keyframe_if_all_packets_since_then_are_cached() {
        let now = Instant::now();
        let mut encoding = encoding(CacheBudget::unlimited());
        assert_eq!(start(&encoding, now), None);
        for (sequence, keyframe) in [(7, false), (8, true), (9, false), (11, false)] {
            assert!(encoding.admit(info(now, sequence, sequence as u32, keyframe), &[], b"x"));
        }
        assert_eq!(start(&encoding, now), None, "10 is missing");
        assert!(encoding.admit(info(now, 10, 10, false), &[], b"x"));
        assert_eq!(start(&encoding, now), Some(8));
        assert_eq!(start(&encoding, now + MAX_START), Some(8));
        assert_eq!(start(&encoding, now + 2 * MAX_START), None);
        encoding.end_publication();
        assert_eq!(start(&encoding, now), None);
        assert_eq!(encoding.end(), 12);
    }

    // COD-10
    #[test]
    fn a_keyframe_in_several_packets_begins_with_the_first_in_whatever_order_they_come() {
        let now = Instant::now();
        for order in [[3, 4, 5], [4, 3, 5], [5, 4, 3]] {
            let mut encoding = encoding(CacheBudget::unlimited());
            encoding.admit(info(now, 2, 0, true), &[], b"x");
            for sequence in order {
                // Parameter sets, a keyframe's slice, and the rest of it.
                encoding.admit(info(now, sequence, 3_000, sequence == 4), &[], b"x");
            }
            assert_eq!((start(&encoding, now), encoding.end()), (Some(3), 6), "{order:?}");
            encoding.admit(info(now, 6, 6_000, false), &[], b"delta");
            assert_eq!(encoding.bytes(), (1 + 3 + 5, 3), "{order:?}");
        }
    }

    #[test]
    fn packets_received_out_of_order_wait_for_the_next_pass() {
        let now = Instant::now();
        let budget = CacheBudget::unlimited();
        let mut encoding = encoding(budget.clone());
        assert_eq!((budget.used(), encoding.out_of_order.capacity()), (0, 0), "M4: memory comes with media");
        for sequence in [0, 2, 1] {
            encoding.admit(info(now, sequence, 0, false), &[], b"x");
        }
        assert!(encoding.has_grown_since_pass() && encoding.in_order(1).is_none() && encoding.in_order(2).is_some());
        encoding.begin_pass();
        assert_eq!((encoding.pass_end(), encoding.pass_out_of_order()), (3, &[1][..]));
        assert!(!encoding.has_grown_since_pass() && encoding.in_order(1).is_some());
        encoding.begin_pass();
        assert!(encoding.pass_out_of_order().is_empty());
        assert!(!encoding.admit(info(now, 1, 0, false), &[], b"x"));
    }

    #[test]
    fn the_backlog_that_a_new_shard_is_given_does_not_count_as_a_rate() {
        let start = Instant::now();
        let mut encoding = encoding(CacheBudget::unlimited());
        encoding.measure(start + Duration::from_millis(1_490));
        // A second and a half of 1 Mbit/s.
        for n in 0..150 {
            let arrived = start + Duration::from_millis(10 * n);
            encoding.admit(info(arrived, n, n as u32, n == 0), &[], &[0; 1_250]);
        }
        for tick in 0..20 {
            encoding.measure(start + Duration::from_millis(1_500 + 25 * tick));
            assert!(encoding.bitrate() <= 1_000_000, "{}", encoding.bitrate());
            assert!(tick > 0 || encoding.bitrate() == 1_000_000, "{}", encoding.bitrate());
        }
    }

    #[test]
    fn the_rate_follows_within_some_seconds() {
        let start = Instant::now();
        let mut encoding = encoding(CacheBudget::unlimited());
        let mut sequence = 0;
        for tick in 0..100 {
            let now = start + Duration::from_millis(100 * tick);
            encoding.measure(now);
            // 1 Mbit/s, then 4.
            for _ in 0..if tick < 50 { 10 } else { 40 } {
                encoding.admit(info(now, sequence, sequence as u32, false), &[], &[0; 1_250]);
                sequence += 1;
            }
            match tick {
                1..50 => assert_eq!(encoding.bitrate(), 1_000_000),
                90.. => assert!((3_900_000..=4_000_000).contains(&encoding.bitrate()), "{}", encoding.bitrate()),
                _ => {}
            }
        }
    }
}
