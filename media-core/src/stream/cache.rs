//! The packets of one encoding since its latest keyframe: what fan-out sends, what retransmissions repeat, and what a new
//! viewer's fast start consists of.
//!
//! Stored once per stream and shard, never per viewer (RTP-12).

use std::time::Instant;

use crate::layers::PacketLayer;
use crate::media::{Extension, MediaKind};

use super::cache_budget::CacheBudget;
use super::extensions::stored_extensions;

/// What is known of a cached packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// The stream's own sequence number: continuous over publisher restarts, without padding-only packets.
    pub sequence: u64,
    /// RTP timestamp on the stream's own time line.
    pub timestamp: u32,
    /// When it was received from the publisher.
    pub arrived: Instant,
    /// The publisher's payload type.
    pub payload_type: u8,
    /// The RTP marker bit.
    pub marker: bool,
    /// The packet makes its frame one at which a decoder can start. Parameter sets may stand in front of it, in packets of
    /// their own.
    pub keyframe: bool,
    /// Which layer of its encoding it belongs to.
    pub layer: PacketLayer,
}

/// A packet in the cache.
#[derive(Clone, Copy, Debug)]
pub struct CachedPacket<'a> {
    /// Its numbers.
    pub info: PacketInfo,
    /// Header extension elements to forward: `[Extension as u8, length, bytes…]*`.
    pub extensions: &'a [u8],
    /// The RTP payload without padding.
    pub payload: &'a [u8],
}

impl<'a> CachedPacket<'a> {
    /// The data of its first element of a header extension.
    pub fn extension(&self, extension: Extension) -> Option<&'a [u8]> {
        stored_extensions(self.extensions).find(|(found, _)| *found == extension).map(|(_, data)| data)
    }
}

#[derive(Clone, Copy)]
struct Slot {
    info: PacketInfo,
    extensions_length: u16,
    payload_length: u16,
    /// Absolute position of the first byte; the ring holds the last `ring.len()` positions.
    position: u64,
}

/// How much a cache holds.
#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: usize,
    packets: usize,
}

/// A ring of bytes and a ring of slots; newer packets overwrite older ones. Both double, up to their bounds and as long as the
/// budget of all caches allows, where packets that are to be kept would be overwritten. There is no ring before the first
/// packet: a publisher that sends nothing costs nothing.
pub(super) struct PacketCache {
    ring: Box<[u8]>,
    /// One at least.
    slots: Box<[Option<Slot>]>,
    written: u64,
    /// What is taken whatever the budget says.
    least: Size,
    first: Size,
    max: Size,
    budget: CacheBudget,
    /// The first packet that is to be kept as long as the bounds allow: its number and position.
    kept: Option<(u64, u64)>,
    /// Nobody reads it: it takes no more than `least`.
    is_small: bool,
}

impl PacketCache {
    /// Bounds by kind: 8 MiB and 8192 packets for video (COD-17), of which a stream with short GOPs takes an eighth and a
    /// quarter; 64 KiB and 256 packets for audio (5 s at 50 packets a second). Where the budget is used up, video has 256 KiB
    /// and 512 packets, a second of 2 Mbit/s.
    pub(super) fn new(kind: MediaKind, budget: CacheBudget) -> PacketCache {
        match kind {
            MediaKind::Audio => PacketCache::bounded(64 << 10, 256, 1, 1, budget),
            MediaKind::Video => PacketCache::bounded(1 << 20, 2048, 8, 4, budget),
        }
    }

    /// At first `bytes` and `packets`, powers of two; it may grow by `growth`, the packets by half of that, and shrink by
    /// `reserve`.
    fn bounded(bytes: usize, packets: usize, growth: usize, reserve: usize, budget: CacheBudget) -> PacketCache {
        PacketCache {
            ring: Box::default(),
            slots: Box::new([None]),
            written: 0,
            least: Size { bytes: bytes / reserve, packets: packets / reserve },
            first: Size { bytes, packets },
            max: Size { bytes: bytes * growth, packets: packets * growth.div_ceil(2) },
            budget,
            kept: None,
            is_small: false,
        }
    }

    /// It takes no more memory than it needs at least, or as much as it may. What it has already it keeps.
    pub(super) fn set_small(&mut self, is_small: bool) {
        if std::mem::replace(&mut self.is_small, is_small) && !is_small {
            // What was overwritten meanwhile is nothing to grow for.
            self.kept = self.kept.filter(|&(first, _)| self.slot(first).is_some());
        }
    }

    /// True if it is to be small.
    pub(super) fn is_small(&self) -> bool {
        self.is_small
    }

    /// True if the packets from `from` to before `end` have room in the smallest cache.
    pub(super) fn fits_least(&self, from: u64, end: u64) -> bool {
        let Size { bytes, packets } = self.least;
        let lengths = (from..end).filter_map(|sequence| self.get(sequence));
        let length = |packet: CachedPacket<'_>| packet.extensions.len() + packet.payload.len();
        end - from <= packets as u64 && lengths.map(length).sum::<usize>() <= bytes / 2
    }

    /// Stores a packet. Returns false if it is there already, is older than what the cache spans, or does not fit.
    pub(super) fn insert(&mut self, info: PacketInfo, extensions: &[u8], payload: &[u8]) -> bool {
        let (Ok(extensions_length), Ok(payload_length)) =
            (u16::try_from(extensions.len()), u16::try_from(payload.len()))
        else {
            return false;
        };
        let length = extensions.len() + payload.len();
        if self.ring.is_empty() {
            self.begin();
        }
        if length > self.ring.len() {
            return false;
        }
        self.make_room(info.sequence, length);
        let index = self.slot_index(info.sequence);
        if self.slots[index].is_some_and(|slot| slot.info.sequence >= info.sequence) {
            return false;
        }
        let position = self.write(extensions, payload);
        self.slots[index] = Some(Slot { info, extensions_length, payload_length, position });
        true
    }

    /// Makes the rings.
    #[cold]
    fn begin(&mut self) {
        let fits = !self.is_small && self.budget.take(memory(self.first));
        if !fits {
            self.budget.take_least(memory(self.least));
        }
        let Size { bytes, packets } = if fits { self.first } else { self.least };
        self.ring = vec![0; bytes].into_boxed_slice();
        self.slots = vec![None; packets].into_boxed_slice();
    }

    /// Writes a packet that is no longer than the ring behind the last one; its position.
    fn write(&mut self, extensions: &[u8], payload: &[u8]) -> u64 {
        let length = extensions.len() + payload.len();
        let mut start = self.offset(self.written);
        if start + length > self.ring.len() {
            // A packet is never split: the rest of the ring stays unused.
            self.written += (self.ring.len() - start) as u64;
            start = 0;
        }
        self.ring[start..start + extensions.len()].copy_from_slice(extensions);
        self.ring[start + extensions.len()..start + length].copy_from_slice(payload);
        let position = self.written;
        self.written += length as u64;
        position
    }

    /// The packet with this sequence number, if it is still there.
    #[inline]
    pub(super) fn get(&self, sequence: u64) -> Option<CachedPacket<'_>> {
        let slot = self.slot(sequence)?;
        let start = self.offset(slot.position);
        let middle = start + usize::from(slot.extensions_length);
        let end = middle + usize::from(slot.payload_length);
        Some(CachedPacket { info: slot.info, extensions: &self.ring[start..middle], payload: &self.ring[middle..end] })
    }

    /// The numbers of a packet, if it is still there.
    pub(super) fn info(&self, sequence: u64) -> Option<PacketInfo> {
        self.slot(sequence).map(|slot| slot.info)
    }

    /// Packets from this one on are to be kept; the cache grows for them up to its bounds. `None`: older packets are
    /// overwritten at the present size.
    pub(super) fn keep_from(&mut self, sequence: Option<u64>) {
        self.kept = sequence.and_then(|sequence| Some((sequence, self.slot(sequence)?.position)));
    }

    /// Drops everything. After a restart of the publisher no old packet may be sent again: its payload type may now mean
    /// something else, and the same index under another header would reuse a nonce (RFC 7714 §8). The memory is given back.
    pub(super) fn clear(&mut self) {
        self.budget.give_back(self.bytes());
        self.ring = Box::default();
        self.slots = Box::new([None]);
        self.kept = None;
    }

    /// Bytes of memory that its rings take.
    fn bytes(&self) -> usize {
        if self.ring.is_empty() { 0 } else { memory(self.size()) }
    }

    fn size(&self) -> Size {
        Size { bytes: self.ring.len(), packets: self.slots.len() }
    }

    /// Gives back what is not needed for the packets from `from` to before `end`; older ones are dropped. False if that is
    /// nothing.
    pub(super) fn shrink(&mut self, from: u64, end: u64) -> bool {
        let (mut bytes, mut longest) = (0, 0);
        for packet in (from..end).filter_map(|sequence| self.get(sequence)) {
            let length = packet.extensions.len() + packet.payload.len();
            (bytes, longest) = (bytes + length, longest.max(length));
        }
        let size = Size {
            // The unused rest at the ring's end may be as long as a packet.
            bytes: (bytes + longest).next_power_of_two().max(self.least.bytes).min(self.ring.len()),
            packets: ((end - from) as usize).next_power_of_two().max(self.least.packets).min(self.slots.len()),
        };
        if self.ring.is_empty() || memory(size) >= self.bytes() {
            return false;
        }
        let smaller = PacketCache {
            ring: vec![0; size.bytes].into_boxed_slice(),
            slots: vec![None; size.packets].into_boxed_slice(),
            written: 0,
            kept: None,
            budget: self.budget.clone(),
            ..*self
        };
        self.budget.take_least(memory(size));
        let kept = self.kept.map(|(first, _)| first).filter(|&first| first >= from);
        let larger = std::mem::replace(self, smaller);
        for sequence in from..end {
            let (Some(packet), Some(slot)) = (larger.get(sequence), larger.slot(sequence)) else { continue };
            let position = self.write(packet.extensions, packet.payload);
            let index = self.slot_index(sequence);
            self.slots[index] = Some(Slot { position, ..*slot });
        }
        self.keep_from(kept);
        true
    }

    #[inline]
    fn slot(&self, sequence: u64) -> Option<&Slot> {
        let slot = self.slots[self.slot_index(sequence)].as_ref().filter(|slot| slot.info.sequence == sequence)?;
        (self.written - slot.position <= self.ring.len() as u64).then_some(slot)
    }

    // Both lengths are powers of two.
    fn slot_index(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    fn offset(&self, position: u64) -> usize {
        position as usize & (self.ring.len() - 1)
    }

    /// Grows if this packet would overwrite one that is to be kept.
    fn make_room(&mut self, sequence: u64, length: usize) {
        if self.is_small {
            return;
        }
        // One that began while memory was short.
        if self.ring.len() < self.first.bytes && self.written as usize + length > self.ring.len() {
            self.grow_ring();
        }
        if self.slots.len() < self.first.packets && self.slots[self.slot_index(sequence)].is_some() {
            self.grow_slots();
        }
        let Some((first, position)) = self.kept else { return };
        // The unused rest at the ring's end may be as long as the packet.
        let bytes = (self.written - position) as usize + 2 * length;
        if bytes > self.ring.len() && self.ring.len() < self.max.bytes {
            self.grow_ring();
        }
        let packets = sequence.saturating_sub(first) as usize;
        if packets >= self.slots.len() && self.slots.len() < self.max.packets {
            self.grow_slots();
        }
    }

    /// Doubles the ring. No packet is split: what ended before the old length ends before the new one.
    #[cold]
    fn grow_ring(&mut self) {
        let old = self.ring.len();
        if !self.budget.take(old) {
            return;
        }
        let mut ring = vec![0; 2 * old].into_boxed_slice();
        for slot in self.slots.iter().flatten().filter(|slot| self.written - slot.position <= old as u64) {
            let length = usize::from(slot.extensions_length) + usize::from(slot.payload_length);
            let (from, to) = (slot.position as usize & (old - 1), slot.position as usize & (2 * old - 1));
            ring[to..to + length].copy_from_slice(&self.ring[from..from + length]);
        }
        // Packets that were overwritten must not reappear.
        let oldest = self.written.saturating_sub(old as u64);
        for slot in &mut self.slots {
            slot.take_if(|slot| slot.position < oldest);
        }
        self.ring = ring;
    }

    #[cold]
    fn grow_slots(&mut self) {
        if !self.budget.take(size_of_val(&*self.slots)) {
            return;
        }
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![None; 2 * old.len()].into_boxed_slice();
        for slot in old.into_iter().flatten() {
            let index = self.slot_index(slot.info.sequence);
            self.slots[index] = Some(slot);
        }
    }
}

impl Drop for PacketCache {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes());
    }
}

/// Bytes of both rings.
fn memory(size: Size) -> usize {
    size.bytes + size.packets * size_of::<Option<Slot>>()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn bounded(bytes: usize, packets: usize, growth: usize) -> PacketCache {
        PacketCache::bounded(bytes, packets, growth, 1, CacheBudget::unlimited())
    }

    fn new(kind: MediaKind) -> PacketCache {
        PacketCache::new(kind, CacheBudget::unlimited())
    }

    fn info(sequence: u64) -> PacketInfo {
        let timestamp = sequence as u32 * 3000;
        PacketInfo {
            sequence,
            timestamp,
            arrived: Instant::now(),
            payload_type: 96,
            marker: false,
            keyframe: false,
            layer: PacketLayer::ONLY,
        }
    }

    // RTP-12
    #[test]
    fn packets_are_returned_unchanged_until_the_ring_overwrites_them() {
        let mut cache = bounded(1024, 64, 1);
        for sequence in 0..30u64 {
            let payload = vec![sequence as u8; 90 + (sequence as usize * 7) % 20];
            let info = info(sequence);
            assert!(cache.insert(info, &[1, 1, 9], &payload));
            let got = cache.get(sequence).unwrap();
            assert_eq!((got.info, got.extensions, got.payload), (info, &[1u8, 1, 9][..], &payload[..]));
        }
        assert!(cache.get(0).is_none());
        let kept: Vec<u64> = (0..30).filter(|&sequence| cache.get(sequence).is_some()).collect();
        assert!(kept.len() >= 7, "{kept:?}");
        for sequence in kept {
            assert!(cache.get(sequence).unwrap().payload.iter().all(|&byte| byte == sequence as u8));
        }
    }

    #[test]
    fn a_duplicate_and_a_packet_older_than_the_span_are_refused() {
        let mut cache = bounded(16_384, 8, 1);
        assert!(cache.insert(info(10), &[], &[1]));
        assert!(!cache.insert(info(10), &[], &[2]));
        assert_eq!(cache.get(10).unwrap().payload, [1]);
        assert!(cache.insert(info(18), &[], &[3]));
        assert!(!cache.insert(info(10), &[], &[1]));
        assert!(cache.get(10).is_none());
    }

    // F-11
    #[test]
    fn a_cache_without_packets_takes_no_memory() {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let mut cache = new(kind);
            assert!(cache.bytes() < 100);
            assert!(cache.get(0).is_none() && cache.info(7).is_none());
            cache.keep_from(Some(0));
            assert!(cache.insert(info(5), &[], &[1, 2, 3]));
            assert!(cache.bytes() > 64 << 10);
            cache.clear();
            assert!(cache.bytes() < 100);
        }
    }

    #[test]
    fn nothing_is_found_after_clear() {
        let mut cache = new(MediaKind::Audio);
        cache.insert(info(5), &[], &[1, 2, 3]);
        cache.clear();
        assert!(cache.get(5).is_none());
        assert!(cache.insert(info(5), &[], &[4]));
    }

    // COD-17
    #[test]
    fn packets_to_be_kept_are_kept_up_to_the_bound_and_then_overwritten() {
        let mut cache = bounded(1024, 8, 8);
        let payload = |sequence: u64| vec![sequence as u8; 100 + (sequence as usize * 13) % 50];
        let whole = |cache: &PacketCache, range: std::ops::Range<u64>| {
            range.into_iter().all(|sequence| cache.get(sequence).is_some_and(|got| got.payload == payload(sequence)))
        };
        for sequence in 0..20 {
            assert!(cache.insert(info(sequence), &[], &payload(sequence)));
        }
        assert!(cache.get(12).is_none());
        assert!(cache.insert(info(20), &[], &payload(20)));
        cache.keep_from(Some(20));
        for sequence in 21..50 {
            assert!(cache.insert(info(sequence), &[], &payload(sequence)));
            assert!(whole(&cache, 20..sequence + 1), "{sequence}");
        }
        assert!(cache.get(12).is_none(), "a packet that was overwritten does not reappear");
        for sequence in 50..500 {
            assert!(cache.insert(info(sequence), &[], &payload(sequence)));
        }
        assert!(cache.get(20).is_none());
        assert!(whole(&cache, 470..500));
        assert_eq!((cache.ring.len(), cache.slots.len()), (8192, 32));
        cache.keep_from(None);
        assert!(cache.insert(info(500), &[], &payload(500)));
    }

    // M4
    #[test]
    fn caches_together_take_no_more_than_their_budget_and_each_has_what_it_needs_at_least() {
        let budget = CacheBudget::new(20_000);
        let mut caches: Vec<PacketCache> =
            (0..4).map(|_| PacketCache::bounded(2_048, 16, 8, 4, budget.clone())).collect();
        assert_eq!(budget.used(), 0);
        for sequence in 0..400 {
            for cache in &mut caches {
                assert!(cache.insert(info(sequence), &[], &[sequence as u8; 100]));
                if sequence == 0 {
                    cache.keep_from(Some(0));
                }
                assert!(cache.get(sequence).is_some());
            }
            assert!(budget.used() <= 20_000, "{}", budget.used());
        }
        assert!(budget.used() > 15_000 && budget.take_shortage() && !budget.take_shortage());
        let least = memory(Size { bytes: 512, packets: 4 });
        let mut late: Vec<PacketCache> =
            (0..4).map(|_| PacketCache::bounded(8_192, 16, 8, 16, budget.clone())).collect();
        let before = budget.used();
        for cache in &mut late {
            assert!(cache.insert(info(7), &[], &[7; 100]));
        }
        assert!(budget.used() - before <= 4 * least);
        caches[0].clear();
        caches[0].clear();
        drop((caches, late));
        assert_eq!(budget.used(), 0);
    }

    // M4
    #[test]
    fn what_is_in_a_cache_is_right_however_it_grows_and_shrinks() {
        let payload = |sequence: u64| vec![sequence as u8; 1 + (sequence as usize * 37) % 300];
        for seed in 0..30 {
            let mut random = StdRng::seed_from_u64(seed);
            let budget = CacheBudget::new(30_000);
            let mut cache = PacketCache::bounded(4_096, 32, 8, 4, budget.clone());
            let (mut end, mut first) = (0_u64, 0_u64);
            for _ in 0..5_000 {
                match random.random_range(0..200) {
                    0 => {
                        let from = random.random_range(first..=end);
                        let before: Vec<u64> = (from..end).filter(|&sequence| cache.get(sequence).is_some()).collect();
                        let bytes = budget.used();
                        if cache.shrink(from, end) {
                            assert!(budget.used() < bytes);
                            assert!(before.iter().all(|&sequence| cache.get(sequence).is_some()), "{seed}");
                            first = from;
                        }
                    }
                    1 => cache.keep_from(end.checked_sub(1)),
                    2 => {
                        cache.clear();
                        first = end;
                    }
                    3..10 => end += 2,
                    10..20 => {
                        let late = random.random_range(first..=end);
                        if cache.get(late).is_none() && late < end {
                            cache.insert(info(late), &[1], &payload(late));
                        }
                    }
                    _ => {
                        assert!(cache.insert(info(end), &[1], &payload(end)));
                        end += 1;
                    }
                }
                assert_eq!(budget.used(), cache.bytes());
                for sequence in end.saturating_sub(50)..end {
                    let got = cache.get(sequence);
                    assert!(got.is_none_or(|got| got.payload == payload(sequence) && got.extensions == [1]), "{seed}");
                }
            }
        }
    }
}
