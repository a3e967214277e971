//! How a viewer moves between the layers of a track (RTP-06, RTP-07): inside an encoding where a decoder can follow, to
//! another one at a keyframe of that. Until then it goes on with what it has.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use crate::layers::OperatingPoint;
use crate::media::Extension;
use crate::rtp::layers::{ActiveTargets, DecodablePoints, DecodeTargets};
use crate::rtp::sequence::timestamp_is_newer;
use crate::stream::{CachedPacket, Encoding, PacketInfo, Tracks};

use super::egress_track::EgressTrack;
use super::fast_start::Compression;

/// A viewer goes to a keyframe that was received so long ago, so that it need not be asked for another one; what has come since
/// is sent faster than real time.
const RECENT: Duration = Duration::from_millis(300);
/// Where the path breaks, waiting costs more.
const RECENT_ENOUGH: Duration = Duration::from_secs(1);
/// A keyframe that was received so long ago, and what follows it, need no faster pace to catch up.
const LIVE: Duration = Duration::from_millis(60);
/// For so long after a keyframe of the present encoding was received that of the target is to come, once it was requested.
const OTHER_KEYFRAME_BY: Duration = Duration::from_millis(250);
/// The rest of a frame that was begun is waited for so long.
const MAX_FRAME_WAIT: Duration = Duration::from_millis(60);
/// A keyframe is requested again after this time.
const REQUEST_AGAIN: Duration = Duration::from_secs(2);
/// Lower spatial layers on which the present one builds can be gone down to with the next picture. Where not, a keyframe is
/// requested after this time.
const NEXT_PICTURE_BY: Duration = Duration::from_millis(150);
/// Temporal layers can be gone up to after a few frames. Where not, a keyframe is requested after this time.
const SWITCHING_POINT_BY: Duration = Duration::from_secs(2);

/// The structure of an encoding's layers stands in one of the first packets of a keyframe.
const STRUCTURE_WITHIN: u64 = 4;

/// Where a viewer is going.
#[derive(Debug)]
pub(super) struct Moves {
    /// Where it is to be, if it is not there.
    target: Option<OperatingPoint>,
    /// What of the present encoding it is to be sent until then, if that is not what it is sent.
    interim: Option<OperatingPoint>,
    since: Option<Instant>,
    /// See [`Choice::urgent`](super::selection::Choice::urgent).
    urgent: Option<u64>,
    /// A picture began since then, and was no way there.
    has_missed: bool,
    /// When a keyframe was requested to get there.
    requested: Option<Instant>,
    decodable: DecodablePoints,
    /// While it is moving: timestamp of the packet before, and whether it ended its frame.
    before: Option<(u32, bool)>,
    /// Its path does not carry even the lowest layer.
    is_paused: bool,
    /// How often it has got to another encoding or spatial layer.
    switches: u64,
}

impl Default for Moves {
    fn default() -> Moves {
        Moves {
            target: None,
            interim: None,
            since: None,
            urgent: None,
            has_missed: false,
            requested: None,
            decodable: DecodablePoints::NONE,
            before: None,
            is_paused: false,
            switches: 0,
        }
    }
}

impl Moves {
    /// The next packet begins a keyframe.
    pub(super) fn on_keyframe(&mut self) {
        self.decodable = DecodablePoints::AT_KEYFRAME;
    }

    /// A packet is not sent, on purpose.
    pub(super) fn leave_out(&mut self, packet: &CachedPacket<'_>) {
        self.decodable.leave_out(&packet.info.layer);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Where the viewer is to be, if it is not there.
    pub(super) fn target(&self) -> Option<OperatingPoint> {
        self.target
    }
}

/// Packets of a frame that was begun.
pub(super) struct RestOfFrame {
    /// One past the last.
    pub(super) end: u64,
    /// In their payloads.
    pub(super) bytes: usize,
    /// It is the keyframe with which the viewer came to the encoding.
    pub(super) is_first: bool,
}

impl EgressTrack {
    /// The layers that it is sent.
    pub fn point(&self) -> OperatingPoint {
        self.rewriter.point()
    }

    /// How often it has gone to another encoding or spatial layer.
    pub fn switches(&self) -> u64 {
        self.moves.switches
    }

    /// True while its path does not carry even the lowest layer.
    pub fn is_paused(&self) -> bool {
        self.moves.is_paused
    }

    /// Goes to other layers as soon as a decoder can follow. Until then it is sent `interim` of the present encoding, if that is
    /// given. `urgent`: a keyframe of some age will do, if a path of so many bits per second is soon done with what has come since.
    pub(super) fn go_to(
        &mut self,
        now: Instant,
        target: OperatingPoint,
        interim: Option<OperatingPoint>,
        urgent: Option<u64>,
    ) {
        let (present, awaits_keyframe) = (self.point(), self.awaits_keyframe());
        let moves = &mut self.moves;
        moves.urgent = urgent;
        let (target, interim) = (Some(target), interim.filter(|&interim| interim != present));
        let target = target.filter(|&target| target != present);
        if target != moves.target {
            (moves.since, moves.requested, moves.has_missed) = (Some(now), None, false);
        }
        if !self.reader.is_moving() {
            moves.before = None;
        }
        (moves.target, moves.interim) = (target, interim);
        if awaits_keyframe {
            // With a keyframe it can begin at any point of its encoding.
            moves.interim = None;
            if let Some(target) = target.filter(|target| target.encoding == present.encoding) {
                moves.target = None;
                self.rewriter.move_to(target, None);
                self.reader.set_point(target);
            }
        }
        self.follow_moves();
    }

    /// Goes nowhere: there is nothing to choose.
    pub(super) fn stay(&mut self) {
        (self.moves.target, self.moves.interim) = (None, None);
        self.follow_moves();
    }

    /// Sends no video from the next frame on, or begins again with the next keyframe.
    pub(super) fn set_paused(&mut self, is_paused: bool) {
        if self.moves.is_paused != is_paused {
            self.moves.is_paused = is_paused;
            self.moves.requested = None;
            self.reader.await_next_keyframe();
        }
    }

    /// The encoding of which it needs a keyframe to go on or to get where it goes, if it is time to request one and it may.
    pub(super) fn take_keyframe_request(
        &mut self,
        now: Instant,
        tracks: &Tracks,
        may_request: impl FnOnce() -> bool,
    ) -> Option<u8> {
        let needed = self.needed_keyframe(now)?;
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REQUEST_AGAIN;
        if !self.moves.requested.is_none_or(is_due) || self.entry(now, tracks).is_some() || !may_request() {
            return None;
        }
        self.moves.requested = Some(now);
        Some(needed)
    }

    fn needed_keyframe(&self, now: Instant) -> Option<u8> {
        let (moves, present) = (&self.moves, self.point());
        if moves.is_paused || !self.has_formats() {
            return None;
        }
        let Some(target) = moves.target else { return self.awaits_keyframe().then_some(present.encoding) };
        let waits = match target.spatial.cmp(&present.spatial) {
            _ if target.encoding != present.encoding || self.awaits_keyframe() => Duration::ZERO,
            Ordering::Greater => Duration::ZERO,
            // Layers that each stand for themselves between keyframes.
            Ordering::Less if !moves.decodable.has_picture(target) => Duration::ZERO,
            // Pictures may be rarer than that; but not where those that came already have to wait.
            Ordering::Less if !moves.has_missed && !self.reader.is_lagging() => return None,
            Ordering::Less => NEXT_PICTURE_BY,
            Ordering::Equal => SWITCHING_POINT_BY,
        };
        let is_due = moves.since.is_some_and(|since| now.saturating_duration_since(since) >= waits);
        is_due.then_some(target.encoding)
    }

    /// True if it is to go to another encoding or to other layers of this one.
    #[inline]
    pub(super) fn is_moving(&self) -> bool {
        self.reader.is_moving()
    }

    /// True while it is to go to another picture since its path does not carry the present one.
    pub(super) fn has_to_leave_picture(&self) -> bool {
        let present = self.point().picture();
        self.moves.urgent.is_some() && self.moves.target.is_some_and(|target| target.picture() != present)
    }

    /// Of the picture that it is sent, the least that it is about to go down to.
    pub(super) fn least_of_picture(&self) -> OperatingPoint {
        let present = self.point();
        let goals = [self.moves.target, self.moves.interim].into_iter().flatten();
        let goals = goals.filter(|goal| goal.picture() == present.picture());
        goals.chain([present]).min_by_key(|goal| goal.temporal).unwrap_or(present)
    }

    /// Where the present pass ends for it: before a keyframe of an encoding that it has to leave, or what is left of one, as long as
    /// that of the target may still come. Encoders answer a request with keyframes of all encodings, and the larger one would stand
    /// in front of the other.
    #[cold]
    pub(super) fn end_of_pass(&self, now: Instant, encoding: &Encoding) -> u64 {
        let (end, position, moves) = (encoding.pass_end(), self.reader.position(), &self.moves);
        let leaves =
            moves.urgent.is_some() && moves.target.is_some_and(|target| target.encoding != self.reader.encoding());
        if !leaves || moves.requested.is_none() {
            return end;
        }
        let is_fresh = |info: &PacketInfo| now.saturating_duration_since(info.arrived) < OTHER_KEYFRAME_BY;
        let is_first = |info: &PacketInfo| self.reader.has_begun_with(encoding, info.timestamp);
        let keyframe = encoding.latest_keyframe().and_then(|keyframe| encoding.info(keyframe));
        let Some(keyframe) = keyframe.filter(|info| is_fresh(info) && !is_first(info)) else { return end };
        let is_ahead = (position..end).contains(&keyframe.sequence);
        let is_begun = || encoding.info(position).is_some_and(|next| next.timestamp == keyframe.timestamp);
        if is_ahead || is_begun() { keyframe.sequence.max(position) } else { end }
    }

    fn follow_moves(&mut self) {
        let is_moving = self.moves.target.is_some() || self.moves.interim.is_some();
        self.reader.set_moving(is_moving);
    }

    /// The keyframe of the encoding to which it is going, if it can begin there now.
    #[cold]
    pub(super) fn entry(&self, now: Instant, tracks: &Tracks) -> Option<PacketInfo> {
        let moves = &self.moves;
        let target = moves.target.filter(|target| target.encoding != self.reader.encoding() && !moves.is_paused)?;
        let encoding = tracks.encoding(self.id(), target.encoding)?;
        let keyframe = encoding.latest_keyframe().filter(|&keyframe| keyframe < encoding.pass_end())?;
        // What was received out of order since the pass began is for the next one.
        encoding.in_order(keyframe)?;
        let first = encoding.start(now).filter(|first| self.carries(first.payload_type))?;
        let age = now.saturating_duration_since(first.arrived);
        let catches_up = |carries| takes_no_longer(encoding, &first, target, carries);
        let is_recent = age <= RECENT || age <= RECENT_ENOUGH && moves.urgent.is_some_and(catches_up);
        let is_ignored = moves.urgent.is_some() && encoding.keyframe_requests.are_ignored();
        (is_recent || is_ignored || !self.rewriter.has_started()).then_some(first)
    }

    /// If some packets of a frame were sent and others were not: what the present pass has of it.
    pub(super) fn rest_of_frame(&self, encoding: &Encoding) -> Option<RestOfFrame> {
        if !self.rewriter.is_in_frame() || self.awaits_keyframe() {
            return None;
        }
        let position = self.reader.position();
        let timestamp = self.rewriter.last_timestamp();
        let is_other = |sequence: &u64| encoding.info(*sequence).is_some_and(|info| timestamp != Some(info.timestamp));
        let end = (position..encoding.pass_end()).find(is_other).unwrap_or(encoding.pass_end());
        let packets = (position..end).filter_map(|sequence| encoding.packet(sequence));
        let needed = packets.filter(|packet| self.reader.needs(packet));
        Some(RestOfFrame {
            end,
            bytes: needed.map(|packet| packet.payload.len()).sum(),
            is_first: timestamp.is_some_and(|timestamp| self.reader.has_begun_with(encoding, timestamp)),
        })
    }

    /// True if the frame that was begun is still not complete, and that does not last too long already.
    pub(super) fn waits_for_rest_of_frame(&self, now: Instant, entry: &PacketInfo) -> bool {
        self.rewriter.is_in_frame() && now.saturating_duration_since(entry.arrived) < MAX_FRAME_WAIT
    }

    /// Goes on with a keyframe of another encoding.
    #[cold]
    pub(super) fn enter(&mut self, now: Instant, tracks: &Tracks, keyframe: &PacketInfo) {
        let Some(target) = self.moves.target.take() else { return };
        let Some(encoding) = tracks.encoding(self.id(), target.encoding) else { return };
        let age = now.saturating_duration_since(keyframe.arrived);
        let goes_on = self.rewriter.next_timestamp().is_none_or(|next| !timestamp_is_newer(next, keyframe.timestamp));
        // It may have been of another encoding than the one at which the viewer stands.
        let last = self.rewriter.last_sent();
        let last = last.and_then(|last| tracks.encoding(self.id(), last.encoding())?.packet(last.sequence));
        let Some(packet) = encoding.packet(keyframe.sequence) else { return };
        let targets = active_targets(encoding, keyframe.sequence, target);
        let had_started = self.rewriter.has_started();
        self.reader.enter(target, keyframe.sequence);
        let compression: Option<Compression> =
            if goes_on && age <= LIVE { None } else { self.catch_up_from(now, encoding, keyframe) };
        self.rewriter.switch_to(&packet, last.as_ref(), (target, targets), compression);
        self.moves.interim = None;
        self.moves.switches += u64::from(had_started);
        self.moves.on_keyframe();
        self.follow_moves();
    }

    /// While it is to go to other layers of its encoding: does so where a decoder can follow, with this packet, which is next.
    #[cold]
    pub(super) fn follow_layers(&mut self, packet: &CachedPacket<'_>, encoding: &Encoding) {
        let (info, present) = (&packet.info, self.reader.encoding());
        let before = self.moves.before.replace((info.timestamp, info.layer.frame_end || info.marker));
        let (begins_picture, begins_frame) = match before {
            Some((timestamp, ended)) => (timestamp != info.timestamp, timestamp != info.timestamp || ended),
            None => (info.keyframe && self.rewriter.last_timestamp() != Some(info.timestamp), info.keyframe),
        };
        // What the viewer takes for a whole picture gets nothing more.
        let is_complete = self.rewriter.last_timestamp() == Some(info.timestamp) && !self.rewriter.is_in_frame();
        if !begins_frame || (!begins_picture && is_complete) {
            return;
        }
        let goals = [self.moves.target, self.moves.interim];
        for goal in goals.into_iter().flatten().filter(|goal| goal.encoding == present) {
            let from = self.point();
            if goal.spatial < from.spatial && !begins_picture {
                continue;
            }
            let reached = self.moves.decodable.go(&info.layer, from, goal);
            if reached != from {
                let keyframe = encoding.latest_keyframe();
                let targets = keyframe.and_then(|keyframe| active_targets(encoding, keyframe, reached));
                self.rewriter.move_to(reached, targets);
                self.reader.set_point(reached);
                self.moves.switches += u64::from(reached.spatial != from.spatial);
            }
            if reached == goal {
                self.moves.interim = None;
                break;
            }
        }
        if self.moves.target == Some(self.point()) {
            self.moves.target = None;
        }
        self.moves.has_missed |= begins_picture;
        self.follow_moves();
    }
}

/// True if what has come since a keyframe takes the path, which carries so many bits per second, no longer than another keyframe
/// would be waited for.
fn takes_no_longer(encoding: &Encoding, keyframe: &PacketInfo, target: OperatingPoint, carries: u64) -> bool {
    let packets = (keyframe.sequence..encoding.pass_end()).filter_map(|sequence| encoding.packet(sequence));
    let is_needed = |packet: &CachedPacket<'_>| packet.info.layer.is_needed_at(target.bit());
    let since = packets.filter(|packet| is_needed(packet) && packet.info.timestamp != keyframe.timestamp);
    let bytes: usize = since.map(|packet| packet.payload.len()).sum();
    bytes as f64 * 8.0 <= carries as f64 * OTHER_KEYFRAME_BY.as_secs_f64()
}

/// The decode targets that a viewer at a point is sent, by the structure of a keyframe.
pub(super) fn active_targets(encoding: &Encoding, keyframe: u64, point: OperatingPoint) -> Option<ActiveTargets> {
    let packets = (keyframe..keyframe + STRUCTURE_WITHIN).filter_map(|sequence| encoding.packet(sequence));
    let structure = |packet: CachedPacket<'_>| DecodeTargets::of(packet.extension(Extension::DependencyDescriptor)?);
    packets.into_iter().find_map(structure).map(|targets| targets.at(point))
}
