//! A position in an encoding's cache: which packet is next, and when.

use std::time::{Duration, Instant};

use crate::layers::{OperatingPoint, PointSet};
use crate::media::{MediaKind, TrackId};
use crate::stream::{CachedPacket, Encoding, PacketInfo};

use super::fast_start::{Compression, FastStart};
use super::late_drop::{Droppable, LateDrop, Overdue, Waiting};

/// For so long after its fast start a viewer that requests a keyframe has probably lost the one that it was given.
const STARTING: Duration = Duration::from_secs(2);
/// The least time between two restarts from the cache.
const RESTART_INTERVAL: Duration = Duration::from_millis(500);

/// Reads one encoding of a track, from its position on.
///
/// One reader serves all cases: that of a live viewer is at the end of the cache, that of a new viewer at the last keyframe,
/// that of a viewer on a narrow path where the path allows.
#[repr(C)]
pub struct Reader {
    /// The next sequence number to look at.
    position: u64,
    /// What only starts and late drops need.
    start: Box<Start>,
    track: TrackId,
    encoding: u8,
    /// The point at which the packets are needed: the others are passed over.
    points: PointSet,
    /// Packets wait that were not due the last time.
    is_lagging: bool,
    /// No packet is of use before a keyframe.
    awaits_keyframe: bool,
    /// The viewer is to go to other layers.
    is_moving: bool,
    /// `start` has a fast start.
    is_fast_starting: bool,
}

#[derive(Default)]
struct Start {
    fast_start: Option<FastStart>,
    /// When it was started from the cache for the first time.
    started: Option<Instant>,
    /// When it was restarted from the cache.
    restarted: Option<Instant>,
    /// The first packet that a keyframe for which it waits may have.
    awaited_from: u64,
    /// The keyframe with which it began.
    begun_at: u64,
    late_drop: LateDrop,
}

impl Reader {
    /// A reader of an encoding from sequence number `position` on. It hands out whatever comes next; one whose packets go to
    /// a decoder is told so by [`Reader::await_keyframe`].
    pub fn new(track: TrackId, encoding: u8, position: u64) -> Reader {
        Reader {
            position,
            start: Box::default(),
            track,
            encoding,
            points: OperatingPoint::all_of(encoding).bit(),
            is_lagging: false,
            awaits_keyframe: false,
            is_moving: false,
            is_fast_starting: false,
        }
    }

    /// The track that it reads.
    pub fn track(&self) -> TrackId {
        self.track
    }

    /// The encoding that it reads, counted from 0.
    pub fn encoding(&self) -> u8 {
        self.encoding
    }

    /// True if a packet is needed at the point that it reads for.
    #[inline]
    pub(super) fn needs(&self, packet: &CachedPacket<'_>) -> bool {
        packet.info.layer.is_needed_at(self.points)
    }

    /// True if the viewer is to go to other layers.
    #[inline]
    pub(super) fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// The viewer is to go to other layers, or has got there.
    pub(super) fn set_moving(&mut self, is_moving: bool) {
        self.is_moving = is_moving;
    }

    /// Reads for another point of its encoding.
    pub(super) fn set_point(&mut self, point: OperatingPoint) {
        self.points = point.bit();
    }

    /// Goes to a keyframe of another encoding, or of the same one, to hand out what follows at a point.
    pub(super) fn enter(&mut self, point: OperatingPoint, keyframe: u64) {
        (self.encoding, self.is_fast_starting, self.start.fast_start) = (point.encoding, false, None);
        self.set_point(point);
        self.begin_at(keyframe);
    }

    /// No packet is of use before a keyframe that is received from now on.
    pub(super) fn await_next_keyframe(&mut self) {
        self.awaits_keyframe = true;
        self.start.awaited_from = self.position;
    }

    /// The next sequence number to look at.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to the end: what is cached is not read.
    pub fn skip_to_end(&mut self, encoding: &Encoding) {
        self.position = encoding.end();
    }

    /// True if packets wait that were not due the last time.
    pub fn is_lagging(&self) -> bool {
        self.is_lagging
    }

    /// Packets wait for something else than their time.
    pub(super) fn wait(&mut self) {
        self.is_lagging = true;
    }

    /// True if the path is too slow for what waits, so that it will soon be dropped as late.
    pub(super) fn nears_late_drop(&self, now: Instant, encoding: &Encoding, droppable: Droppable) -> bool {
        let is_waiting = self.is_lagging && !self.awaits_keyframe;
        is_waiting && self.start.late_drop.is_nearly_late(&self.waiting(now, encoding, droppable))
    }

    /// No packet is of use before the next keyframe.
    pub fn await_keyframe(&mut self) {
        self.awaits_keyframe = true;
    }

    /// True while no packet is of use before a keyframe.
    #[inline]
    pub fn awaits_keyframe(&self) -> bool {
        self.awaits_keyframe
    }

    /// The first packet of the keyframe for which it waits, if that is in the cache: received with what the present pass is
    /// about, or passed over before it was known for one. From that one on it has everything.
    pub(super) fn awaited_keyframe(&self, now: Instant, encoding: &Encoding) -> Option<PacketInfo> {
        let keyframe = encoding.latest_keyframe()?;
        let is_ahead = keyframe >= self.position;
        let is_awaited = if is_ahead { keyframe < encoding.pass_end() } else { keyframe >= self.start.awaited_from };
        // What was received out of order since the pass began is for the next one.
        let first = encoding.in_order(keyframe).filter(|_| is_awaited)?.info;
        (is_ahead || encoding.start(now).is_some()).then_some(first)
    }

    /// Goes to a keyframe, and hands out what follows.
    pub(super) fn begin_at(&mut self, keyframe: u64) {
        (self.position, self.start.begun_at) = (keyframe, keyframe);
        self.awaits_keyframe = false;
    }

    /// True for the timestamp of the keyframe with which it began, last time.
    pub(super) fn has_begun_with(&self, encoding: &Encoding, timestamp: u32) -> bool {
        encoding.info(self.start.begun_at).is_some_and(|first| first.timestamp == timestamp)
    }

    /// Passes over what comes before a keyframe of this fan-out pass. One that begins later, or whose first packets are for
    /// the next pass, is not passed over. One past the last packet that was.
    pub(super) fn pass_over(&mut self, encoding: &Encoding) -> u64 {
        let keyframe = encoding.latest_keyframe().filter(|&keyframe| keyframe >= self.position);
        self.position = self.position.max(keyframe.unwrap_or(u64::MAX).min(encoding.pass_end()));
        self.position
    }

    /// Goes to a keyframe, received some time ago while `live` is the present timestamp, and reads faster than real time from
    /// there. The timestamps are to be compressed accordingly.
    pub(super) fn fast_start(
        &mut self,
        now: Instant,
        keyframe: &PacketInfo,
        clock_rate: u32,
        live: u32,
    ) -> Compression {
        let age = now.saturating_duration_since(keyframe.arrived);
        let fast_start = FastStart::new(now, clock_rate, keyframe.timestamp, live, age);
        self.begin_at(keyframe.sequence);
        self.is_fast_starting = true;
        self.start.fast_start = Some(fast_start);
        self.start.started.get_or_insert(now);
        fast_start.compression
    }

    /// True shortly after it was started from the cache.
    pub fn is_starting(&self, now: Instant) -> bool {
        self.start.started.is_some_and(|started| now.saturating_duration_since(started) < STARTING)
    }

    /// True shortly after a restart from the cache: the same packets would be of no more use.
    pub(super) fn has_just_restarted(&self, now: Instant) -> bool {
        self.start.restarted.is_some_and(|at| now.saturating_duration_since(at) < RESTART_INTERVAL)
    }

    /// Notes a restart from the cache.
    pub(super) fn on_restart(&mut self, now: Instant) {
        self.start.restarted = Some(now);
    }

    /// The packets of the present fan-out pass that were received out of order and that it has passed already.
    pub fn out_of_order<'a>(&self, encoding: &'a Encoding) -> impl Iterator<Item = CachedPacket<'a>> + use<'a> {
        let position = self.position;
        let passed = encoding.pass_out_of_order().iter().filter(move |&&sequence| sequence < position);
        passed.filter_map(|&sequence| encoding.packet(sequence))
    }

    /// What waited too long and is to be dropped. `path_keeps_up`: what waits will soon have been sent.
    #[inline]
    pub(super) fn overdue(
        &mut self,
        now: Instant,
        encoding: &Encoding,
        droppable: Droppable,
        path_keeps_up: bool,
    ) -> Option<Overdue> {
        if self.awaits_keyframe {
            return None;
        }
        let mut late_drop = self.start.late_drop;
        let overdue = {
            let waiting = self.waiting(now, encoding, droppable);
            match self.track.kind {
                MediaKind::Video => late_drop.video(&waiting, path_keeps_up),
                MediaKind::Audio => late_drop.audio(&waiting),
            }
        };
        self.start.late_drop = late_drop;
        overdue
    }

    /// What waits.
    fn waiting<'a>(
        &'a self,
        now: Instant,
        encoding: &'a Encoding,
        droppable: Droppable,
    ) -> Waiting<'a, impl Fn(&PacketInfo) -> Instant> {
        let fast_start = self.start.fast_start.as_ref();
        let due = move |info: &PacketInfo| {
            let due = fast_start.and_then(|start| start.due(info.timestamp));
            due.map_or(info.arrived, |due| due.max(info.arrived))
        };
        Waiting { now, position: self.position, encoding, droppable, due }
    }

    /// The next packet before `end`; `None` if there is none that is due. `may_pass` holds back a packet that is. One that is not
    /// needed is handed out in any case, to be passed over.
    #[inline]
    pub(super) fn next<'a>(
        &mut self,
        now: Instant,
        encoding: &'a Encoding,
        end: u64,
        may_pass: impl Fn() -> bool,
    ) -> Option<CachedPacket<'a>> {
        while self.position < end {
            let packet = encoding.in_order(self.position);
            if let Some(packet) = &packet {
                self.is_lagging = self.needs(packet) && (!may_pass() || !self.is_due(now, packet));
                if self.is_lagging {
                    return None;
                }
            }
            self.position += 1;
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// The next packet before `end`, whenever it is due: what a feed or a recorder reads.
    pub fn read<'a>(&mut self, encoding: &'a Encoding, end: u64) -> Option<CachedPacket<'a>> {
        while self.position < end {
            let packet = encoding.in_order(self.position);
            self.position += 1;
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Passes over packets that are dropped.
    pub(super) fn skip(&mut self, overdue: &Overdue) {
        self.position = overdue.until;
        if overdue.needs_keyframe {
            self.awaits_keyframe = true;
            self.start.awaited_from = overdue.until;
        }
    }

    /// Nothing waits any more: from now on packets are due at once.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        self.is_lagging = false;
        if self.is_fast_starting
            && let Some(fast_start) = &mut self.start.fast_start
        {
            fast_start.catch_up();
        }
    }

    /// False for a packet of a fast start that would be sent before its time.
    #[inline]
    fn is_due(&mut self, now: Instant, packet: &CachedPacket<'_>) -> bool {
        if !self.is_fast_starting {
            return true;
        }
        let Some(fast_start) = &self.start.fast_start else { return true };
        if fast_start.compression.is_over(packet.info.timestamp) {
            self.start.fast_start = None;
            self.is_fast_starting = false;
            return true;
        }
        fast_start.due(packet.info.timestamp).is_none_or(|due| due <= now)
    }
}
