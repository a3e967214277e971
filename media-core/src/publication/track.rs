//! One track of a stream inside one shard: its packets in order, and where a decoder can begin.

use std::time::{Duration, Instant};

use crate::media::MediaKind;

use super::cache::{CachedPacket, PacketCache, PacketInfo};
use super::timeline::Timeline;

/// A viewer is started with what came since the last keyframe, if that is not longer ago than this (COD-17).
const MAX_START: Duration = Duration::from_secs(10);
/// The rate of a track is that of about this time.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Over less time a rate says nothing.
const MIN_RATE_SPAN: Duration = Duration::from_millis(100);
/// Packets that came out of order and wait for the next walk over the viewers; more are left to the viewers' NACKs.
const MAX_LATE: usize = 256;

/// A track outlives publishers: numbers go on where the last one ended.
pub struct Track {
    /// The packets since the last keyframe, and of the last seconds.
    pub cache: PacketCache,
    /// On the home shard: the numbers of what comes in.
    pub(super) timeline: Timeline,
    head: u64,
    late: Vec<u64>,
    keyframe: Option<Keyframe>,
    /// Payload bytes that came so far.
    bytes: u64,
    rate: Rate,
}

/// The rate of a track of late.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// When the first packet came to the server.
    begun: Option<Instant>,
    measured: Option<Instant>,
    /// Bytes by then.
    bytes: u64,
    bits_per_second: f64,
}

/// The latest keyframe.
#[derive(Clone, Copy, Debug)]
struct Keyframe {
    /// Its first packet; parameter sets may be packets of their own.
    sequence: u64,
    timestamp: u32,
    arrived: Instant,
    /// Packets from the first one on that came.
    packets: u64,
    /// Payload bytes of the keyframe itself.
    bytes: u64,
}

impl Track {
    /// A track that nothing has come for.
    pub fn new(kind: MediaKind) -> Track {
        Track {
            cache: PacketCache::new(kind),
            timeline: Timeline::new(90_000),
            head: 0,
            late: Vec::with_capacity(MAX_LATE),
            keyframe: None,
            bytes: 0,
            rate: Rate::default(),
        }
    }

    /// Takes a packet into the cache. False if it is there already, or too old.
    pub fn admit(&mut self, info: PacketInfo, extensions: &[u8], payload: &[u8]) -> bool {
        if !self.cache.insert(info, extensions, payload) {
            return false;
        }
        if info.sequence >= self.head {
            self.head = info.sequence + 1;
        } else if self.late.len() < MAX_LATE {
            self.late.push(info.sequence);
        }
        self.rate.begun.get_or_insert(info.arrived);
        self.bytes += payload.len() as u64;
        self.note_keyframe(&info, payload.len() as u64);
        true
    }

    /// Behind the highest sequence number that came.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The packet with this number, unless it waits for the next walk over the viewers among the late ones.
    #[inline]
    pub fn in_order(&self, sequence: u64) -> Option<CachedPacket<'_>> {
        if !self.late.is_empty() && self.late.contains(&sequence) {
            return None;
        }
        self.cache.get(sequence)
    }

    /// True if packets wait that came behind later ones.
    pub fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Hands over the packets that came behind later ones; `late` is emptied first.
    pub fn take_late(&mut self, late: &mut Vec<u64>) {
        late.clear();
        std::mem::swap(&mut self.late, late);
    }

    /// The first packet of the latest keyframe, if it is there still.
    pub fn latest_keyframe(&self) -> Option<u64> {
        self.keyframe.map(|keyframe| keyframe.sequence)
    }

    /// Payload bytes that came so far, and those of the latest keyframe: what the publisher's keyframes cost.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes, self.keyframe.map_or(0, |keyframe| keyframe.bytes))
    }

    /// Payload bits per second over the last second or so, as of the last [`Track::measure`].
    pub fn bitrate(&self) -> u64 {
        self.rate.bits_per_second as u64
    }

    /// Measures the rate; to be called several times a second.
    pub fn measure(&mut self, now: Instant) {
        let Rate { begun, measured, bytes, bits_per_second } = self.rate;
        let passed = measured.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)).as_secs_f64();
        let age = begun.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let bits_per_second = if begun.is_some() && (bits_per_second == 0.0 || age < RATE_WINDOW) {
            // What a viewer starts from is not to be far too low, nor too high: at a shard that is new to the stream,
            // everything since the last keyframe comes at once.
            self.bytes as f64 * 8.0 / age.max(MIN_RATE_SPAN).as_secs_f64()
        } else if passed > 0.0 {
            let present = (self.bytes - bytes) as f64 * 8.0 / passed;
            bits_per_second + (present - bits_per_second) * (passed / RATE_WINDOW.as_secs_f64()).min(1.0)
        } else {
            bits_per_second
        };
        self.rate = Rate { begun, measured: Some(now), bytes: self.bytes, bits_per_second };
    }

    /// Where a viewer that joins now can begin: the latest keyframe, if everything since then is here.
    pub fn start(&self, now: Instant) -> Option<PacketInfo> {
        let keyframe = self.keyframe?;
        let whole = keyframe.packets == self.head - keyframe.sequence;
        let recent = now.saturating_duration_since(keyframe.arrived) <= MAX_START;
        self.cache.info(keyframe.sequence).filter(|_| whole && recent)
    }

    /// The numbers of the highest packet.
    pub fn newest(&self) -> Option<PacketInfo> {
        self.cache.info(self.head.checked_sub(1)?)
    }

    /// The publisher is gone. The next one's first packet goes on from here, and nothing of the old one is sent again.
    pub fn end_publication(&mut self) {
        self.timeline.end_source();
        self.cache.clear();
        self.late.clear();
        self.keyframe = None;
    }

    fn note_keyframe(&mut self, info: &PacketInfo, bytes: u64) {
        let begins = self.keyframe.is_none_or(|last| {
            let same = info.timestamp == last.timestamp;
            if same { info.sequence < last.sequence } else { info.sequence > last.sequence }
        });
        if info.keyframe && begins {
            return self.begin_at(info);
        }
        let Some(last) = self.keyframe.as_mut().filter(|last| info.sequence > last.sequence) else { return };
        last.packets += 1;
        if info.timestamp == last.timestamp {
            last.bytes += bytes;
        } else if info.arrived.saturating_duration_since(last.arrived) > MAX_START {
            self.cache.keep_from(None);
        }
    }

    /// The latest keyframe begins with this packet.
    fn begin_at(&mut self, info: &PacketInfo) {
        let &PacketInfo { sequence, timestamp, arrived, .. } = info;
        let mut keyframe = Keyframe { sequence, timestamp, arrived, packets: 0, bytes: 0 };
        // Out of order, some of what is behind it is here already.
        for packet in (sequence..self.head).filter_map(|sequence| self.cache.get(sequence)) {
            keyframe.packets += 1;
            if packet.info.timestamp == timestamp {
                keyframe.bytes += packet.payload.len() as u64;
            }
        }
        self.keyframe = Some(keyframe);
        self.cache.keep_from(Some(sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(arrived: Instant, sequence: u64, timestamp: u32, keyframe: bool) -> PacketInfo {
        PacketInfo { sequence, timestamp, arrived, payload_type: 96, marker: false, keyframe }
    }

    fn start(track: &Track, now: Instant) -> Option<u64> {
        track.start(now).map(|info| info.sequence)
    }

    // COD-17
    #[test]
    fn a_viewer_can_begin_at_the_last_keyframe_if_all_since_then_is_here() {
        let now = Instant::now();
        let mut track = Track::new(MediaKind::Video);
        assert_eq!(start(&track, now), None);
        for (sequence, keyframe) in [(7, false), (8, true), (9, false), (11, false)] {
            assert!(track.admit(info(now, sequence, sequence as u32, keyframe), &[], b"x"));
        }
        assert_eq!(start(&track, now), None, "10 is missing");
        assert!(track.admit(info(now, 10, 10, false), &[], b"x"));
        assert_eq!(start(&track, now), Some(8));
        assert_eq!(start(&track, now + MAX_START), Some(8));
        assert_eq!(start(&track, now + 2 * MAX_START), None);
        track.end_publication();
        assert_eq!(start(&track, now), None);
        assert_eq!(track.head(), 12);
    }

    // COD-10
    #[test]
    fn a_keyframe_in_several_packets_begins_with_the_first_in_whatever_order_they_come() {
        let now = Instant::now();
        for order in [[3, 4, 5], [4, 3, 5], [5, 4, 3]] {
            let mut track = Track::new(MediaKind::Video);
            track.admit(info(now, 2, 0, true), &[], b"x");
            for sequence in order {
                // Parameter sets, a keyframe's picture, and the rest of it.
                track.admit(info(now, sequence, 3_000, sequence < 5), &[], b"x");
            }
            assert_eq!((start(&track, now), track.head()), (Some(3), 6), "{order:?}");
            track.admit(info(now, 6, 6_000, false), &[], b"delta");
            assert_eq!(track.bytes(), (1 + 3 + 5, 3), "{order:?}");
        }
    }

    #[test]
    fn what_comes_behind_later_ones_waits_among_the_late() {
        let now = Instant::now();
        let mut track = Track::new(MediaKind::Video);
        for sequence in [0, 2, 1] {
            track.admit(info(now, sequence, 0, false), &[], b"x");
        }
        assert!(track.has_late() && track.in_order(1).is_none() && track.in_order(2).is_some());
        let mut late = vec![99];
        track.take_late(&mut late);
        assert_eq!(late, [1]);
        assert!(!track.has_late() && track.in_order(1).is_some());
        assert!(!track.admit(info(now, 1, 0, false), &[], b"x"));
    }

    #[test]
    fn what_a_new_shard_gets_at_once_does_not_count_as_a_rate() {
        let start = Instant::now();
        let mut track = Track::new(MediaKind::Video);
        track.measure(start + Duration::from_millis(1_490));
        // A second and a half of 1 Mbit/s.
        for n in 0..150 {
            let arrived = start + Duration::from_millis(10 * n);
            track.admit(info(arrived, n, n as u32, n == 0), &[], &[0; 1_250]);
        }
        for tick in 0..20 {
            track.measure(start + Duration::from_millis(1_500 + 25 * tick));
            assert!(track.bitrate() <= 1_000_000, "{}", track.bitrate());
            assert!(tick > 0 || track.bitrate() == 1_000_000, "{}", track.bitrate());
        }
    }

    #[test]
    fn the_rate_follows_within_some_seconds() {
        let start = Instant::now();
        let mut track = Track::new(MediaKind::Video);
        let mut sequence = 0;
        for tick in 0..100 {
            let now = start + Duration::from_millis(100 * tick);
            track.measure(now);
            // 1 Mbit/s, then 4.
            for _ in 0..if tick < 50 { 10 } else { 40 } {
                track.admit(info(now, sequence, sequence as u32, false), &[], &[0; 1_250]);
                sequence += 1;
            }
            match tick {
                1..50 => assert_eq!(track.bitrate(), 1_000_000),
                90.. => assert!((3_900_000..=4_000_000).contains(&track.bitrate()), "{}", track.bitrate()),
                _ => {}
            }
        }
    }
}
