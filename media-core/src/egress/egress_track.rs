//! One track of a viewer: reader, rewriter and RTP sender of one m-section.

use std::time::{Duration, Instant};

use crate::clock::ClockPoint;
use crate::media::{Format, MediaKind, MediaSection, TrackId};
use crate::rtcp::SenderInfo;
use crate::rtp::profile::FormatInUse;
use crate::rtp::sequence::timestamp_is_newer;
use crate::stream::{CachedPacket, Encoding, PacketInfo, Tracks};

use super::congestion::ArrivalFeedback;
use super::fast_start::Compression;
use super::late_drop::{Droppable, Overdue};
use super::moves::{Moves, active_targets};
use super::reader::Reader;
use super::rewriter::Rewriter;
use super::rtp_sender::{RtpSender, SendContext, WriteError};
use super::sequence_map::Found;

/// One m-section of a viewer. What every fan-out pass needs stands in front, in two lines of the processor's cache and one of
/// the payload type table: with many viewers each line is a miss.
#[repr(C, align(64))]
pub struct EgressTrack {
    pub(super) reader: Reader,
    pub(super) sender: RtpSender,
    pub(super) rewriter: Rewriter,
    pub(super) moves: Moves,
}

const _: () = assert!(
    std::mem::offset_of!(EgressTrack, rewriter) + std::mem::offset_of!(Rewriter, payload_types) <= 128,
    "what every pass needs takes more than two lines of the processor's cache"
);

impl EgressTrack {
    /// The track of a viewer's section; `None` for sections without SSRCs to send with. `random` gives the first sequence
    /// numbers.
    pub fn new(track: TrackId, section: &MediaSection, random: u32) -> Option<EgressTrack> {
        let sender = RtpSender::new(section, (random >> 16) as u16)?;
        let mut reader = Reader::new(track, 0, 0);
        if track.kind == MediaKind::Video {
            reader.await_keyframe();
        }
        let rewriter = Rewriter::new(section, random as u16);
        Some(EgressTrack { reader, sender, rewriter, moves: Moves::default() })
    }

    /// The track of the stream that it is sent.
    pub fn id(&self) -> TrackId {
        self.reader.track()
    }

    /// The position of the encoding that it is sent, or waits for.
    pub fn encoding_index(&self) -> u8 {
        self.reader.encoding()
    }

    /// The encodings that it is sent or waits for, one bit each.
    pub fn encodings_wanted(&self) -> u8 {
        let target = self.moves.target().map_or(0, |target| 1 << target.encoding);
        1 << self.encoding_index() | target
    }

    /// The encoding that it is sent, once the stream has the track.
    #[inline]
    pub fn encoding<'a>(&self, tracks: &'a Tracks) -> Option<&'a Encoding> {
        tracks.encoding(self.reader.track(), self.reader.encoding())
    }

    /// Media SSRC.
    pub fn ssrc(&self) -> u32 {
        self.sender.ssrc
    }

    /// RTP packets sent, RTX not counted.
    pub fn packets_sent(&self) -> u32 {
        self.sender.packets
    }

    /// Learns the publisher's formats: which of its payload types becomes which of the viewer's. Of the one in use the stream
    /// itself may have said its profile.
    pub fn set_publisher_formats(&mut self, publisher: &[Format], in_use: Option<FormatInUse>) {
        self.rewriter.set_publisher_formats(publisher, in_use);
    }

    /// True if the viewer has a format for this payload type of the publisher's.
    pub fn carries(&self, payload_type: u8) -> bool {
        self.rewriter.payload_type(payload_type).is_some()
    }

    /// False for a viewer to which only the lowest spatial layer of what is published can be sent.
    pub(super) fn takes_spatial_layers(&self) -> bool {
        self.rewriter.takes_spatial_layers()
    }

    /// The formats that the viewer agreed to.
    pub fn formats(&self) -> &[Format] {
        self.rewriter.formats()
    }

    /// Joins an encoding: where it has everything since a keyframe, the viewer starts there, else with what is received next.
    /// False if it has to wait for a keyframe.
    pub fn join(&mut self, now: Instant, encoding: &Encoding) -> bool {
        self.reader.skip_to_end(encoding);
        if self.id().kind == MediaKind::Audio {
            return true;
        }
        encoding.start(now).is_some_and(|keyframe| self.start_at(now, encoding, &keyframe))
    }

    /// Joins the encoding at which it stands. One that waits for another encoding takes this one if that has the next keyframe.
    pub(super) fn begin(&mut self, now: Instant, tracks: &Tracks) {
        let Some(encoding) = self.encoding(tracks) else { return };
        if self.is_moving() {
            self.reader.skip_to_end(encoding);
        } else {
            self.join(now, encoding);
        }
    }

    /// Starts at a keyframe in the cache, after which everything is there.
    fn start_at(&mut self, now: Instant, encoding: &Encoding, keyframe: &PacketInfo) -> bool {
        if encoding.newest().is_none() {
            return false;
        }
        let compression = self.catch_up_from(now, encoding, keyframe);
        self.rewriter.restart_at(self.reader.position(), compression);
        self.moves.on_keyframe();
        true
    }

    /// Goes to a keyframe and reads faster than real time from there; how timestamps are to be compressed for that.
    pub(super) fn catch_up_from(
        &mut self,
        now: Instant,
        encoding: &Encoding,
        keyframe: &PacketInfo,
    ) -> Option<Compression> {
        let (newest, clock_rate) = (encoding.newest()?, self.rewriter.clock_rate(keyframe.payload_type)?);
        // The time since the newest packet counts: else all that follows would seem early.
        let age = now.saturating_duration_since(newest.arrived).as_secs_f64();
        let live = newest.timestamp.wrapping_add((age * f64::from(clock_rate)) as u32);
        // Past what it was sent already, if it restarts.
        let next = self.rewriter.next_timestamp().filter(|&next| timestamp_is_newer(next, live));
        Some(self.reader.fast_start(now, keyframe, clock_rate, next.unwrap_or(live)))
    }

    /// Where the viewer waits for a keyframe: goes to it, or over what the present pass has before it. False if the viewer
    /// goes on waiting.
    #[cold]
    pub(super) fn seek_keyframe(&mut self, now: Instant, encoding: &Encoding) -> bool {
        let keyframe = self.reader.awaited_keyframe(now, encoding).filter(|_| !self.moves.is_paused());
        let keyframe = keyframe.filter(|keyframe| self.rewriter.payload_type(keyframe.payload_type).is_some());
        match keyframe {
            Some(keyframe) if keyframe.sequence >= self.reader.position() => {
                if keyframe.sequence > self.reader.position() {
                    self.rewriter.withhold(keyframe.sequence - 1);
                }
                self.reader.begin_at(keyframe.sequence);
                self.moves.on_keyframe();
                true
            }
            Some(keyframe) => self.start_at(now, encoding, &keyframe),
            None => {
                let before = self.reader.position();
                let end = self.reader.pass_over(encoding);
                if end > before {
                    self.rewriter.withhold(end - 1);
                }
                self.reader.catch_up();
                false
            }
        }
    }

    /// Restarts from the cached keyframe, with everything since, under new numbers; false if the encoding does not have that.
    /// A viewer that did so a moment ago is not sent the same once more.
    pub fn restart(&mut self, now: Instant, encoding: &Encoding) -> bool {
        if !self.rewriter.has_started() {
            return self.join(now, encoding);
        }
        if self.reader.has_just_restarted(now) {
            return true;
        }
        if encoding.start(now).is_none() || !self.join(now, encoding) {
            return false;
        }
        self.reader.on_restart(now);
        true
    }

    /// True shortly after it was started from the cache: a viewer that requests a keyframe then has probably lost the one
    /// that it was given.
    pub fn is_starting(&self, now: Instant) -> bool {
        self.reader.is_starting(now)
    }

    /// The packets of the publisher are gone: the viewer does without those that it was not sent.
    pub fn end_publication(&mut self, encoding: &Encoding) {
        if self.reader.position() < encoding.end() {
            self.rewriter.withhold(encoding.end() - 1);
        }
        self.reader.skip_to_end(encoding);
    }

    /// True while no packet is of use before a keyframe.
    pub fn awaits_keyframe(&self) -> bool {
        self.reader.awaits_keyframe()
    }

    /// True if the publisher has a format that the viewer takes.
    pub fn has_formats(&self) -> bool {
        self.rewriter.has_formats()
    }

    /// The encoding of which it waits for a keyframe, of a publisher whose formats it knows: that to which it is going, if it is.
    pub fn lacks_keyframe(&self) -> Option<u8> {
        let lacks = self.reader.awaits_keyframe() && self.rewriter.has_formats() && !self.moves.is_paused();
        lacks.then(|| self.moves.target().map_or(self.encoding_index(), |target| target.encoding))
    }

    /// The viewer reported receipt: from the next packet on it needs no MID.
    pub fn on_receipt(&mut self) {
        self.rewriter.on_receipt();
    }

    /// How the viewer tells when its packets arrived.
    pub fn arrival_feedback(&self) -> ArrivalFeedback {
        self.sender.arrival_feedback()
    }

    /// True once it was sent something, so that a report block can show that it arrived.
    pub fn has_sent(&self) -> bool {
        self.sender.packets > 0
    }

    /// The sender information of its reports at `unix`, if it was sent anything (RTCP-04).
    pub fn sender_info(&self, unix: Duration, clock: ClockPoint) -> Option<SenderInfo> {
        self.rewriter.has_started().then(|| self.sender.sender_info(unix, clock.rtp_at(unix)))
    }

    /// True if padding can be sent.
    pub(super) fn can_pad(&self) -> bool {
        self.sender.can_pad(&self.rewriter)
    }

    /// What waited too long and is to be dropped.
    pub(super) fn overdue(&mut self, now: Instant, encoding: &Encoding, path_keeps_up: bool) -> Option<Overdue> {
        self.reader.overdue(now, encoding, self.droppable(), path_keeps_up)
    }

    /// True if what waits is about to be dropped, as the path is too slow for it.
    pub(super) fn nears_late_drop(&self, now: Instant, encoding: &Encoding) -> bool {
        self.reader.nears_late_drop(now, encoding, self.droppable())
    }

    /// What may be dropped as late. A keyframe is needed in any case where the path breaks, and the rest of a large frame would stand in
    /// front of it.
    fn droppable(&self) -> Droppable {
        let in_frame = self.rewriter.last_timestamp().filter(|_| !self.has_to_leave_picture());
        Droppable { in_frame, points: self.least_of_picture().bit() }
    }

    /// True if the next packet belongs to the frame whose packets were sent last.
    pub(super) fn is_in_frame(&self, encoding: &Encoding) -> bool {
        let next = encoding.info(self.reader.position());
        next.is_some_and(|next| self.rewriter.last_timestamp() == Some(next.timestamp))
    }

    /// What it has not read yet and was given up to save memory, if there is some.
    #[inline]
    pub(super) fn given_up(&self, encoding: &Encoding) -> Option<Overdue> {
        let (from, until) = (self.reader.position(), encoding.given_up());
        (from < until).then(|| {
            let needs_keyframe = self.id().kind == MediaKind::Video && encoding.latest_keyframe() != Some(until);
            Overdue { from, until, needs_keyframe }
        })
    }

    /// Passes over packets that are dropped; the viewer's numbers go on as if they had not been.
    pub(super) fn skip(&mut self, overdue: &Overdue) {
        self.reader.skip(overdue);
        self.rewriter.withhold(overdue.until.saturating_sub(1));
    }

    /// Writes a packet for the first time.
    #[inline]
    pub(super) fn forward(
        &mut self,
        packet: &CachedPacket<'_>,
        encoding: &Encoding,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        if self.reader.is_moving() {
            self.follow_layers(packet, encoding);
        }
        if !self.reader.needs(packet) {
            self.leave_out(packet);
            return Err(WriteError::NotForThisViewer);
        }
        if packet.info.keyframe && self.id().kind == MediaKind::Video {
            self.begin_keyframe(packet, encoding);
        }
        let placed = self.rewriter.place(packet).ok_or(WriteError::NotForThisViewer)?;
        let length = self.sender.send(&self.rewriter, packet, placed, context, out)?;
        self.rewriter.on_sent(packet, &placed);
        Ok(length)
    }

    /// The next packet begins a keyframe: its structure counts from now on, and running numbers do not go back.
    #[cold]
    fn begin_keyframe(&mut self, packet: &CachedPacket<'_>, encoding: &Encoding) {
        let last = self.last_sent(encoding);
        let is_of_frame = |last: &CachedPacket<'_>| {
            last.info.timestamp == packet.info.timestamp && last.info.sequence < packet.info.sequence
        };
        if last.as_ref().is_some_and(is_of_frame) {
            // Parameter sets before it have begun the frame.
            return;
        }
        let targets = active_targets(encoding, packet.info.sequence, self.point()).filter(|targets| !targets.are_all());
        self.rewriter.begin_keyframe(packet, last.as_ref(), targets);
    }

    /// The packet that was sent last, if it is one of this encoding and still in the cache.
    fn last_sent<'a>(&self, encoding: &'a Encoding) -> Option<CachedPacket<'a>> {
        let last = self.rewriter.last_sent().filter(|last| last.encoding() == self.encoding_index())?;
        encoding.packet(last.sequence)
    }

    /// The cache is about to lose the packets of the publication: where the numbers of their descriptors are, what comes next has to
    /// know.
    pub fn note_position(&mut self, encoding: &Encoding) {
        if let Some(last) = self.last_sent(encoding) {
            self.rewriter.note_position(&last);
        }
    }

    /// A packet that comes next is not needed at the viewer's point.
    fn leave_out(&mut self, packet: &CachedPacket<'_>) {
        self.rewriter.leave_out(packet);
        self.moves.leave_out(packet);
    }

    /// Writes a packet for the first time that was received out of order, and which the viewer has passed already. If it needs
    /// the packet no more, but its number waits for it, padding takes its place.
    #[cold]
    pub(super) fn forward_late(
        &mut self,
        packet: &CachedPacket<'_>,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let (placed, is_needed) = self.rewriter.place_late(packet).ok_or(WriteError::NotForThisViewer)?;
        let length = match is_needed {
            true => self.sender.send(&self.rewriter, packet, placed, context, out)?,
            false => self.sender.fill(placed, context, out)?,
        };
        self.rewriter.on_sent_late(packet, &placed);
        Ok(length)
    }

    /// The packet that the viewer names by its number, if the record of what was sent has it.
    pub(super) fn find(&self, sequence_number: u16) -> Option<Found> {
        self.rewriter.find(sequence_number)
    }

    /// Writes a packet again that was found in the record.
    pub(super) fn forward_again(
        &mut self,
        packet: &CachedPacket<'_>,
        found: &Found,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let placed = self.rewriter.place_again(packet, found).ok_or(WriteError::NotForThisViewer)?;
        self.sender.send_again(&self.rewriter, packet, (placed, found.is_reproducible), context, out)
    }

    /// Writes a packet of `padding` bytes of padding, 1 to 255.
    pub(super) fn pad(
        &mut self,
        padding: u8,
        context: &mut SendContext<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        self.sender.pad(&self.rewriter, padding, context, out)
    }
}
