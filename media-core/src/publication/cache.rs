//! The packets of one track since about two seconds: the source of every fan-out and of every retransmission.
//!
//! Stored once per stream and shard, never per viewer (RTP-12).

use crate::media::MediaKind;

/// What is known of a cached packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// The stream's own sequence number: continuous over publisher restarts, without padding-only packets.
    pub sequence: u64,
    /// RTP timestamp on the stream's own time line.
    pub timestamp: u32,
    /// The publisher's payload type.
    pub payload_type: u8,
    /// The RTP marker bit.
    pub marker: bool,
    /// A decoder can start here.
    pub keyframe: bool,
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

#[derive(Clone, Copy)]
struct Slot {
    info: PacketInfo,
    extensions_length: u16,
    payload_length: u16,
    /// Absolute position of the first byte; the ring holds the last `ring.len()` positions.
    position: u64,
}

/// A ring of bytes and a ring of slots; the older packets give way to the newer ones.
pub struct PacketCache {
    ring: Box<[u8]>,
    slots: Box<[Option<Slot>]>,
    written: u64,
}

impl PacketCache {
    /// Bounds by kind: 2 MiB and 2048 packets for video, 64 KiB and 256 packets for audio (5 s at 50 packets a second).
    pub fn new(kind: MediaKind) -> PacketCache {
        match kind {
            MediaKind::Audio => PacketCache::with_capacity(64 << 10, 256),
            MediaKind::Video => PacketCache::with_capacity(2 << 20, 2048),
        }
    }

    /// `bytes` must hold the largest packet.
    fn with_capacity(bytes: usize, packets: usize) -> PacketCache {
        PacketCache {
            ring: vec![0; bytes].into_boxed_slice(),
            slots: vec![None; packets].into_boxed_slice(),
            written: 0,
        }
    }

    /// Keeps a packet. Returns false if it is there already, is older than what the cache spans, or does not fit.
    pub fn insert(&mut self, info: PacketInfo, extensions: &[u8], payload: &[u8]) -> bool {
        let (Ok(extensions_length), Ok(payload_length)) =
            (u16::try_from(extensions.len()), u16::try_from(payload.len()))
        else {
            return false;
        };
        let length = extensions.len() + payload.len();
        let capacity = self.ring.len();
        if length > capacity {
            return false;
        }
        let index = self.slot_index(info.sequence);
        if self.slots[index].is_some_and(|slot| slot.info.sequence >= info.sequence) {
            return false;
        }
        let mut start = (self.written % capacity as u64) as usize;
        if start + length > capacity {
            // A packet is never cut: the rest of the ring stays empty.
            self.written += (capacity - start) as u64;
            start = 0;
        }
        self.ring[start..start + extensions.len()].copy_from_slice(extensions);
        self.ring[start + extensions.len()..start + length].copy_from_slice(payload);
        self.slots[index] = Some(Slot { info, extensions_length, payload_length, position: self.written });
        self.written += length as u64;
        true
    }

    /// The packet with this sequence number, if it is still there.
    pub fn get(&self, sequence: u64) -> Option<CachedPacket<'_>> {
        let slot = self.slots[self.slot_index(sequence)].filter(|slot| slot.info.sequence == sequence)?;
        let capacity = self.ring.len() as u64;
        if self.written - slot.position > capacity {
            return None;
        }
        let start = (slot.position % capacity) as usize;
        let middle = start + usize::from(slot.extensions_length);
        let end = middle + usize::from(slot.payload_length);
        Some(CachedPacket { info: slot.info, extensions: &self.ring[start..middle], payload: &self.ring[middle..end] })
    }

    /// Forgets everything. After a publisher restart no old packet may be sent again: its payload type may now mean
    /// something else, and the same index under another header would reuse a nonce (RFC 7714 §8).
    pub fn clear(&mut self) {
        self.slots.fill(None);
    }

    fn slot_index(&self, sequence: u64) -> usize {
        (sequence % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(sequence: u64) -> PacketInfo {
        PacketInfo { sequence, timestamp: sequence as u32 * 3000, payload_type: 96, marker: false, keyframe: false }
    }

    #[test]
    fn packets_come_back_as_they_went_in_until_the_ring_overwrites_them() {
        let mut cache = PacketCache::with_capacity(1000, 64);
        for sequence in 0..30u64 {
            let payload = vec![sequence as u8; 90 + (sequence as usize * 7) % 20];
            assert!(cache.insert(info(sequence), &[1, 1, 9], &payload));
            let got = cache.get(sequence).unwrap();
            assert_eq!((got.info, got.extensions, got.payload), (info(sequence), &[1u8, 1, 9][..], &payload[..]));
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
        let mut cache = PacketCache::with_capacity(10_000, 8);
        assert!(cache.insert(info(10), &[], &[1]));
        assert!(!cache.insert(info(10), &[], &[2]));
        assert_eq!(cache.get(10).unwrap().payload, [1]);
        assert!(cache.insert(info(18), &[], &[3]));
        assert!(!cache.insert(info(10), &[], &[1]));
        assert!(cache.get(10).is_none());
    }

    #[test]
    fn nothing_is_found_after_clear() {
        let mut cache = PacketCache::new(MediaKind::Audio);
        cache.insert(info(5), &[], &[1, 2, 3]);
        cache.clear();
        assert!(cache.get(5).is_none());
        assert!(cache.insert(info(5), &[], &[4]));
    }
}
