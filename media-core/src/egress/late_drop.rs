//! What a viewer that lags is not sent any more: packets that waited too long, because the shard is overloaded or the path
//! too narrow (RTCP-17).
//!
//! Whole frames are dropped, the oldest first, up to the next keyframe; without one everything, since no frame can be decoded
//! without those before it. A frame that was begun is finished. Audio is dropped packet by packet, and only when very late.

use std::time::{Duration, Instant};

use crate::layers::PointSet;
use crate::stream::{Encoding, PacketInfo};

/// Video that a viewer should have been sent this long ago is dropped.
const MAX_WAIT: Duration = Duration::from_millis(200);
/// After a keyframe that took long it may be older, and also where path and shard keep up, so that it was the machine that
/// paused; up to this.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Audio is dropped last.
const MAX_AUDIO_WAIT: Duration = Duration::from_secs(1);

/// A range of sequence numbers that a viewer is not sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overdue {
    pub(super) from: u64,
    /// One past the last.
    pub(super) until: u64,
    /// No packet is of use before the next keyframe.
    pub(super) needs_keyframe: bool,
}

/// Which of the packets that wait may be late: what is sent in any case, or in no case, is no reason to drop what comes after it.
#[derive(Clone, Copy)]
pub(super) struct Droppable {
    /// None of the frame with this timestamp, which was begun and is finished.
    pub(super) in_frame: Option<u32>,
    /// Those that are needed at one of these points.
    pub(super) points: PointSet,
}

/// The packets that wait for a viewer.
pub(super) struct Waiting<'a, D> {
    pub(super) now: Instant,
    /// The first of them.
    pub(super) position: u64,
    pub(super) encoding: &'a Encoding,
    pub(super) droppable: Droppable,
    /// When a packet was due.
    pub(super) due: D,
}

impl<D: Fn(&PacketInfo) -> Instant> Waiting<'_, D> {
    fn packets(&self) -> impl Iterator<Item = PacketInfo> {
        (self.position..self.encoding.end()).filter_map(|sequence| self.encoding.info(sequence))
    }

    /// The first packet that may be dropped.
    fn first_droppable(&self) -> Option<PacketInfo> {
        let Droppable { in_frame, points } = self.droppable;
        self.packets().find(|info| info.layer.is_needed_at(points) && in_frame != Some(info.timestamp))
    }

    /// The latest keyframe, if some of it was sent already.
    fn keyframe_before(&self) -> Option<u64> {
        self.encoding.latest_keyframe().filter(|&keyframe| keyframe < self.position)
    }

    /// How long a packet has waited.
    fn wait(&self, info: &PacketInfo) -> Duration {
        self.now.saturating_duration_since((self.due)(info))
    }
}

/// What is remembered for the limit.
#[derive(Clone, Copy, Default)]
pub(super) struct LateDrop {
    /// How long the last keyframe waited until all of it was sent, by the number of its first packet.
    keyframe_wait: (u64, Duration),
}

impl LateDrop {
    /// The overdue packets of an audio track.
    pub(super) fn audio<D: Fn(&PacketInfo) -> Instant>(&self, waiting: &Waiting<'_, D>) -> Option<Overdue> {
        let is_old = |info: &PacketInfo| waiting.wait(info) > MAX_AUDIO_WAIT;
        let mut packets = waiting.packets();
        if !is_old(&packets.next()?) {
            return None;
        }
        let until = packets.find(|info| !is_old(info)).map_or(waiting.encoding.end(), |info| info.sequence);
        Some(Overdue { from: waiting.position, until, needs_keyframe: false })
    }

    /// The overdue packets of a video track. `path_keeps_up`: what waits will soon have been sent, since shard and path are fast
    /// enough.
    pub(super) fn video<D: Fn(&PacketInfo) -> Instant>(
        &mut self,
        waiting: &Waiting<'_, D>,
        path_keeps_up: bool,
    ) -> Option<Overdue> {
        let next = waiting.packets().next()?;
        // In any case: the path may be too narrow only for what comes after the keyframe.
        self.note_keyframe(waiting, &next);
        let limit = if path_keeps_up { LONGEST_WAIT } else { self.limit(waiting) };
        let first = waiting.first_droppable().filter(|first| waiting.wait(first) > limit)?;
        let from = first.sequence;
        match waiting.encoding.latest_keyframe() {
            Some(keyframe) if keyframe > from => Some(Overdue { from, until: keyframe, needs_keyframe: false }),
            Some(keyframe) if keyframe == from => None,
            _ => Some(Overdue { from, until: waiting.encoding.end(), needs_keyframe: true }),
        }
    }

    /// True if video has waited for half of the time that it may, keyframes and the time that they take aside.
    pub(super) fn is_nearly_late<D: Fn(&PacketInfo) -> Instant>(&self, waiting: &Waiting<'_, D>) -> bool {
        let is_later = |info: &PacketInfo| !waiting.encoding.is_of_latest_keyframe(info.timestamp);
        waiting.first_droppable().filter(is_later).is_some_and(|first| {
            let waited = self.keyframe_wait(waiting).unwrap_or_default();
            waiting.wait(&first) >= (waited + grace(waited) / 2).max(MAX_WAIT / 2)
        })
    }

    fn note_keyframe<D: Fn(&PacketInfo) -> Instant>(&mut self, waiting: &Waiting<'_, D>, next: &PacketInfo) {
        let Some(keyframe) = waiting.keyframe_before() else { return };
        if self.keyframe_wait.0 != keyframe {
            self.keyframe_wait = (keyframe, Duration::ZERO);
        }
        if waiting.encoding.is_of_latest_keyframe(next.timestamp) {
            self.keyframe_wait.1 = waiting.wait(next);
        }
    }

    /// How long video may wait. A keyframe may take as long as a frame may wait. If all frames since were dropped, a viewer
    /// on a narrow path would see keyframes and little else, while its path is idle most of the time. So the frames after a
    /// keyframe may wait 100 ms longer than that did, and up to 200 ms longer the later the keyframe was itself; frames are
    /// that late anyway by then. Where there is a newer keyframe to go on with, the ordinary limit holds.
    fn limit<D: Fn(&PacketInfo) -> Instant>(&self, waiting: &Waiting<'_, D>) -> Duration {
        let waited = self.keyframe_wait(waiting);
        waited.map_or(MAX_WAIT, |waited| (waited + grace(waited)).clamp(MAX_WAIT, LONGEST_WAIT))
    }

    /// How long the latest keyframe waited, if some of it was sent already.
    fn keyframe_wait<D: Fn(&PacketInfo) -> Instant>(&self, waiting: &Waiting<'_, D>) -> Option<Duration> {
        let (keyframe, waited) = self.keyframe_wait;
        (waiting.keyframe_before() == Some(keyframe)).then_some(waited)
    }
}

/// By how much the frames after a keyframe may wait longer than that.
fn grace(keyframe: Duration) -> Duration {
    keyframe.saturating_sub(MAX_WAIT / 2).clamp(MAX_WAIT / 2, MAX_WAIT)
}
