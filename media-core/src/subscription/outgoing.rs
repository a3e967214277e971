//! One section of a viewer: its numbers, its headers, and what is let go of.

use std::time::{Duration, Instant};

use crate::media::{Codec, Extension, ExtensionMap, Format, MediaKind, MediaSection};
use crate::publication::cache::{CachedPacket, PacketInfo};
use crate::publication::clock::ClockPoint;
use crate::publication::{Track, stored_extensions};
use crate::rtcp::{NtpTime, SenderInfo};
use crate::rtp::compat::carrier;
use crate::rtp::red::{self, Redundancy};
use crate::rtp::sequence::timestamp_is_newer;
use crate::rtp::{HeaderFields, rtx, write_header};
use crate::srtp::SrtpSender;

use super::congestion::Congestion;
use super::replay::Replay;
use super::resends::Resends;

/// The payload type table's mark for "not negotiated".
const NONE: u8 = 0xff;
/// After a longer gap the viewer's numbers go on without it: a receiver could take a step of half the circle for a step
/// back, and so could our own SRTP, which would then use an index twice (SRTP-08, SRTP-09).
const MAX_GAP: u64 = 1 << 14;
/// Video that a viewer should have had this long ago is of no use to it any more.
const MAX_WAIT: Duration = Duration::from_millis(200);
/// Behind a keyframe that took long it may be older, and also where the path carries the stream, so that it was the machine
/// that paused; up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// For so long a viewer is at its start.
const STARTING: Duration = Duration::from_secs(2);
/// The least time between two beginnings anew.
const RESTART_INTERVAL: Duration = Duration::from_millis(500);
/// Audio is let go last.
const MAX_AUDIO_WAIT: Duration = Duration::from_secs(1);

/// One section of a viewer. What every walk needs stands in front, in two lines of the processor's cache and one of the
/// payload type table: with many viewers each line is a miss.
#[repr(C, align(64))]
pub struct Outgoing {
    /// The next of the stream's packets to look at.
    pub(super) cursor: u64,
    /// Stream sequence number where the present run began; nothing below it is sent any more.
    first: Option<u64>,
    /// Behind the highest stream sequence number that was sent.
    pub(super) next: u64,
    /// Packets from this one on carry no MID: the viewer has reported receipt (EXT-H03).
    mid_until: u64,
    /// RTP packets sent, RTX not counted.
    pub packets: u64,
    /// Their payload bytes.
    pub octets: u64,
    /// Media SSRC.
    pub ssrc: u32,
    /// Stream timestamp of the packet that was sent last.
    last_timestamp: u32,
    /// How it was started from the cache.
    replay: Option<Replay>,
    /// The viewer's number of `first`. The first of all is random and below 2^15, so that loss of the first packets
    /// cannot mislead the receiver's rollover count (SRTP-07).
    initial_sequence: u16,
    rtx_sequence: u16,
    /// The section's kind.
    pub kind: MediaKind,
    /// The viewer's payload type of the packet that was sent last.
    last_payload_type: u8,
    /// Id of the element with the transport-wide number. It is another one whenever a packet is sent, so that no packet
    /// of such a section can be made again bit for bit: it needs RTX.
    transport_wide: Option<u8>,
    /// The publisher's payload type of RED, and what becomes of it here.
    red: Option<(u8, Redundancy)>,
    /// Packets were withheld since `next`, as the viewer has no format for them or as they came too late: the next one
    /// begins a new run.
    withheld: bool,
    /// No packet is of use before a keyframe.
    awaiting_keyframe: bool,
    /// Packets wait that were not due.
    pub(super) behind: bool,
    extensions: ExtensionMap,
    /// Publisher's payload type → the viewer's.
    payload_types: [u8; 128],
    /// The viewer's payload type → its RTX payload type.
    rtx_payload_types: [u8; 128],
    /// RTX SSRC.
    pub rtx_ssrc: u32,
    formats: Vec<Format>,
    mid: Box<[u8]>,
    /// When it was started from the cache.
    started: Option<Instant>,
    /// When it began anew.
    restarted: Option<Instant>,
    /// How long a keyframe waited until it was through, by the number of its first packet: that of the last one.
    keyframe_wait: (u64, Duration),
    /// Boxed inside: most viewers ask for nothing again.
    pub(super) resends: Resends,
}

const _: () = assert!(std::mem::offset_of!(Outgoing, payload_types) <= 128);

/// What every packet to a viewer passes on its way.
pub(super) struct Exit<'a> {
    pub(super) now: Instant,
    pub(super) sender: &'a mut SrtpSender,
    pub(super) congestion: &'a mut Congestion,
}

/// A failed attempt to write a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The viewer cannot decode it, or it lies before the viewer's first keyframe.
    NotForThisViewer,
    /// Header or SRTP did not take it.
    Refused,
}

impl Exit<'_> {
    /// Counts a packet that is sent; the bytes of its transport-wide number.
    #[inline]
    fn number(&mut self, payload: usize, transport_wide: Option<u8>) -> [u8; 2] {
        self.congestion.on_sent(self.now, payload, transport_wide.is_some()).to_be_bytes()
    }
}

impl Outgoing {
    /// A viewer's section; `None` for sections without SSRCs to send with.
    pub fn new(section: &MediaSection, random: u32) -> Option<Outgoing> {
        let ssrcs = section.send_ssrcs?;
        let mut rtx_payload_types = [NONE; 128];
        for format in &section.formats {
            if let Some(rtx) = format.rtx_payload_type {
                rtx_payload_types[usize::from(format.payload_type & 0x7f)] = rtx;
            }
        }
        Some(Outgoing {
            kind: section.kind,
            ssrc: ssrcs.media,
            rtx_ssrc: ssrcs.rtx,
            formats: section.formats.clone(),
            extensions: section.extensions,
            mid: section.mid.as_bytes().into(),
            payload_types: [NONE; 128],
            red: None,
            rtx_payload_types,
            initial_sequence: (random & 0x7fff) as u16,
            rtx_sequence: ((random >> 16) & 0x7fff) as u16,
            cursor: 0,
            first: None,
            next: 0,
            withheld: false,
            awaiting_keyframe: section.kind == MediaKind::Video,
            keyframe_wait: (0, Duration::ZERO),
            last_timestamp: 0,
            last_payload_type: NONE,
            replay: None,
            started: None,
            restarted: None,
            mid_until: u64::MAX,
            packets: 0,
            octets: 0,
            resends: Resends::default(),
            transport_wide: transport_wide(section),
            behind: false,
        })
    }

    /// Learns the publisher's formats: which of its payload types becomes which of the viewer's.
    pub fn set_publisher_formats(&mut self, publisher: &[Format]) {
        self.payload_types = [NONE; 128];
        self.red = None;
        for theirs in publisher {
            if let Some(ours) = carrier(theirs, &self.formats) {
                self.payload_types[usize::from(theirs.payload_type & 0x7f)] = ours.payload_type;
                if theirs.codec == Codec::Red {
                    let redundancy = ours.redundant_payload_type().map_or(Redundancy::Dropped, Redundancy::Kept);
                    self.red = Some((theirs.payload_type, redundancy));
                }
            }
        }
    }

    /// Joins a track: where it has everything since a keyframe, the viewer begins there, else with what comes next.
    /// False if it has to wait for a keyframe.
    pub fn join(&mut self, now: Instant, track: &Track) -> bool {
        self.cursor = track.head();
        if self.kind == MediaKind::Audio {
            return true;
        }
        let (Some(start), Some(newest)) = (track.start(now), track.newest()) else { return false };
        let payload_type = self.payload_types[usize::from(start.payload_type & 0x7f)];
        let Some(format) = self.formats.iter().find(|format| format.payload_type == payload_type) else { return true };
        let age = now.saturating_duration_since(start.arrived);
        // Behind what it has been sent already, if it begins anew.
        let next = self.first.map(|_| self.timestamp(self.last_timestamp).wrapping_add(1));
        let live = next.filter(|&next| timestamp_is_newer(next, newest.timestamp)).unwrap_or(newest.timestamp);
        self.replay = Some(Replay::new(now, format.clock_rate, start.timestamp, live, age));
        self.cursor = start.sequence;
        self.started.get_or_insert(now);
        true
    }

    /// True shortly after it was started from the cache: a viewer that asks for a keyframe then has probably lost the one
    /// that it was given.
    pub fn is_starting(&self, now: Instant) -> bool {
        self.started.is_some_and(|started| now.saturating_duration_since(started) < STARTING)
    }

    /// Begins anew with the last keyframe and everything since, under new numbers; false if the track does not have
    /// that. One that did so a moment ago is not served the same once more.
    pub fn restart(&mut self, now: Instant, track: &Track) -> bool {
        let Some(first) = self.first else { return self.join(now, track) };
        if self.restarted.is_some_and(|at| now.saturating_duration_since(at) < RESTART_INTERVAL) {
            return true;
        }
        if track.start(now).is_none() || !self.join(now, track) {
            return false;
        }
        self.restarted = Some(now);
        self.initial_sequence = self.sequence_number(first, self.next);
        self.first = Some(self.cursor);
        self.next = self.cursor;
        self.withheld = false;
        true
    }

    /// The track's packets are gone: the viewer does without those that it has not been sent.
    pub fn end_publication(&mut self, track: &Track) {
        self.withheld |= self.cursor < track.head();
        self.cursor = track.head();
    }

    /// True while no packet is of use before a keyframe.
    pub fn awaits_keyframe(&self) -> bool {
        self.awaiting_keyframe
    }

    /// True if it waits for a keyframe of a publisher whose formats it knows.
    pub fn lacks_keyframe(&self) -> bool {
        self.awaiting_keyframe && self.payload_types.iter().any(|&payload_type| payload_type != NONE)
    }

    /// The viewer reported receipt: from the next packet on it needs no MID.
    pub fn on_receipt(&mut self) {
        if self.mid_until == u64::MAX && self.first.is_some() {
            self.mid_until = self.next;
        }
    }

    /// True if its packets carry transport-wide numbers.
    pub fn is_transport_wide(&self) -> bool {
        self.transport_wide.is_some()
    }

    /// True if an extended sequence number of a report block shows that something arrived.
    pub fn has_sent(&self) -> bool {
        self.packets > 0
    }

    /// The sender report of this section at `unix`, if it has sent anything (RTCP-04).
    pub fn sender_report(&self, unix: Duration, clock: ClockPoint) -> Option<SenderInfo> {
        self.first?;
        Some(SenderInfo {
            ntp: NtpTime::from_unix(unix),
            rtp_timestamp: clock.rtp_at(unix),
            packet_count: self.packets as u32,
            octet_count: self.octets as u32,
        })
    }

    /// Writes a packet for the first time.
    pub(super) fn forward(
        &mut self,
        packet: &CachedPacket<'_>,
        exit: &mut Exit<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let sequence = packet.info.sequence;
        let payload_type = self.payload_types[usize::from(packet.info.payload_type & 0x7f)];
        // Video begins where a decoder can begin.
        if payload_type == NONE || (self.awaiting_keyframe && !packet.info.keyframe) {
            self.withheld |= sequence >= self.next;
            return Err(WriteError::NotForThisViewer);
        }
        let first = match self.first {
            Some(first) if sequence < first => return Err(WriteError::NotForThisViewer),
            Some(first) if !self.withheld && sequence <= self.next + MAX_GAP => first,
            // A late packet from before the withheld ones: behind it the numbers go on.
            Some(_) if sequence < self.next => return Err(WriteError::NotForThisViewer),
            Some(first) => {
                self.initial_sequence = self.sequence_number(first, self.next);
                self.next = sequence;
                sequence
            }
            None => {
                self.next = sequence;
                sequence
            }
        };
        self.first = Some(first);
        self.withheld = false;
        self.awaiting_keyframe = false;
        let length = self.write(packet, payload_type, first, exit, out)?;
        self.next = self.next.max(sequence + 1);
        self.last_timestamp = packet.info.timestamp;
        self.last_payload_type = payload_type;
        self.packets += 1;
        self.octets += packet.payload.len() as u64;
        Ok(length)
    }

    fn write(
        &self,
        packet: &CachedPacket<'_>,
        payload_type: u8,
        first: u64,
        exit: &mut Exit<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let fields = HeaderFields {
            marker: packet.info.marker,
            padding: false,
            payload_type,
            sequence_number: self.sequence_number(first, packet.info.sequence),
            timestamp: self.timestamp(packet.info.timestamp),
            ssrc: self.ssrc,
        };
        let wide = exit.number(packet.payload.len(), self.transport_wide);
        let header = write_header(out, &fields, self.elements(packet, &wide)).ok_or(WriteError::Refused)?;
        let body = &mut out[header..];
        let length = match self.red {
            Some((red, redundancy)) if red == packet.info.payload_type => {
                red::write_payload(body, packet.payload, redundancy).ok_or(WriteError::Refused)?
            }
            _ => {
                body.get_mut(..packet.payload.len()).ok_or(WriteError::Refused)?.copy_from_slice(packet.payload);
                packet.payload.len()
            }
        };
        exit.sender.protect_rtp(out, header + length).map_err(|_| WriteError::Refused)
    }

    /// Writes a packet again: as RTX (RFC 4588) where that was negotiated, else bit for bit as the first time.
    pub(super) fn resend(
        &mut self,
        packet: &CachedPacket<'_>,
        exit: &mut Exit<'_>,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let first = self.first.ok_or(WriteError::NotForThisViewer)?;
        let payload_type = self.payload_types[usize::from(packet.info.payload_type & 0x7f)];
        if payload_type == NONE {
            return Err(WriteError::NotForThisViewer);
        }
        let Some(rtx_payload_type) = self.rtx_of(payload_type) else {
            if self.transport_wide.is_some() {
                return Err(WriteError::NotForThisViewer);
            }
            return self.write(packet, payload_type, first, exit, out);
        };
        let fields = HeaderFields {
            marker: packet.info.marker,
            padding: false,
            payload_type: rtx_payload_type,
            sequence_number: self.rtx_sequence,
            timestamp: self.timestamp(packet.info.timestamp),
            ssrc: self.rtx_ssrc,
        };
        let wide = exit.number(packet.payload.len(), self.transport_wide);
        let header = write_header(out, &fields, self.elements(packet, &wide)).ok_or(WriteError::Refused)?;
        let original = self.sequence_number(first, packet.info.sequence);
        let body = rtx::write_payload(&mut out[header..], original, packet.payload).ok_or(WriteError::Refused)?;
        let length = exit.sender.protect_rtp(out, header + body).map_err(|_| WriteError::Refused)?;
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        Ok(length)
    }

    /// True if padding can be sent: by RTX, whose numbers are nobody else's.
    pub(super) fn can_pad(&self) -> bool {
        self.transport_wide.is_some() && self.rtx_of(self.last_payload_type).is_some()
    }

    /// Writes a packet of nothing but padding, of which `padding` bytes, 1 to 255.
    pub(super) fn pad(&mut self, padding: u8, exit: &mut Exit<'_>, out: &mut [u8]) -> Result<usize, WriteError> {
        let fields = HeaderFields {
            marker: false,
            padding: true,
            payload_type: self.rtx_of(self.last_payload_type).ok_or(WriteError::NotForThisViewer)?,
            sequence_number: self.rtx_sequence,
            timestamp: self.timestamp(self.last_timestamp),
            ssrc: self.rtx_ssrc,
        };
        let wide = exit.number(usize::from(padding), self.transport_wide);
        let elements = self.transport_wide.map(|id| (id, &wide[..]));
        let header = write_header(out, &fields, elements).ok_or(WriteError::Refused)?;
        let length = header + usize::from(padding);
        let body = out.get_mut(header..length).ok_or(WriteError::Refused)?;
        body.fill(0);
        body[usize::from(padding) - 1] = padding;
        let length = exit.sender.protect_rtp(out, length).map_err(|_| WriteError::Refused)?;
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        Ok(length)
    }

    fn rtx_of(&self, payload_type: u8) -> Option<u8> {
        let rtx = *self.rtx_payload_types.get(usize::from(payload_type))?;
        (rtx != NONE).then_some(rtx)
    }

    fn elements<'a>(
        &'a self,
        packet: &CachedPacket<'a>,
        wide: &'a [u8; 2],
    ) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
        let with_mid = (packet.info.keyframe && self.kind == MediaKind::Video) || packet.info.sequence < self.mid_until;
        let mid = if with_mid { self.mid_element() } else { None };
        let wide = self.transport_wide.map(|id| (id, &wide[..]));
        let map = &self.extensions;
        let forwarded = stored_extensions(packet.extensions);
        mid.into_iter().chain(wide).chain(forwarded.filter_map(|(extension, data)| Some((map.id(extension)?, data))))
    }

    /// Cold, so that the compiler does not read the MID, far behind, for packets without it.
    #[cold]
    fn mid_element(&self) -> Option<(u8, &[u8])> {
        Some((self.extensions.id(Extension::Mid)?, &self.mid))
    }

    /// The viewer's timestamp for one of the stream's.
    fn timestamp(&self, timestamp: u32) -> u32 {
        self.replay.map_or(timestamp, |replay| replay.timestamp(timestamp))
    }

    /// False for a packet of the viewer's start that would come before its time.
    #[inline]
    pub(super) fn is_due(&mut self, now: Instant, packet: &CachedPacket<'_>) -> bool {
        let Some(replay) = &self.replay else { return true };
        if replay.is_over(packet.info.timestamp) {
            self.replay = None;
            return true;
        }
        replay.due(packet.info.timestamp).is_none_or(|due| due <= now)
    }

    /// The viewer has all that there is.
    pub(super) fn catch_up(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.catch_up();
        }
    }

    /// Lets go of what is overdue; the viewer's numbers go on behind it.
    pub(super) fn skip(&mut self, overdue: &Overdue) {
        self.cursor = overdue.until;
        self.withheld = true;
        self.awaiting_keyframe |= overdue.needs_keyframe;
    }

    /// What has waited too long and is let go, as stream sequence numbers: whole frames, the oldest first, up to the
    /// next keyframe; without one everything, since no frame can be decoded without those before it. A frame that has
    /// begun is finished. Audio goes packet by packet, and only what is very old.
    ///
    /// A keyframe may take as long as a frame may wait. If all that came meanwhile were let go, a viewer on a narrow path
    /// would see keyframes and little else, while its path is idle most of the time. So what follows a keyframe may wait
    /// 100 ms longer than that did, and up to 200 ms longer the later the keyframe was itself; pictures come that late
    /// anyway by then. Where there is a newer keyframe to go on with, the ordinary limit holds. `hopeful`: what waits will
    /// soon be gone, since shard and path are fast enough.
    pub(super) fn overdue(&mut self, now: Instant, track: &Track, hopeful: bool) -> Option<Overdue> {
        let replay = self.replay;
        let wait = |info: &PacketInfo| {
            let due = replay.and_then(|replay| replay.due(info.timestamp));
            now.saturating_duration_since(due.map_or(info.arrived, |due| due.max(info.arrived)))
        };
        let cursor = self.cursor;
        let waiting = || (cursor..track.head()).filter_map(|sequence| track.cache.info(sequence));
        let next = waiting().next()?;
        let limit = match (self.kind, track.latest_keyframe()) {
            (MediaKind::Audio, _) => MAX_AUDIO_WAIT,
            (MediaKind::Video, _) if hopeful => LONGEST_WAIT,
            (MediaKind::Video, Some(keyframe)) if keyframe < cursor => {
                if self.keyframe_wait.0 != keyframe {
                    self.keyframe_wait = (keyframe, Duration::ZERO);
                }
                if track.cache.info(keyframe).is_some_and(|begun| begun.timestamp == next.timestamp) {
                    self.keyframe_wait.1 = wait(&next);
                }
                let (_, waited) = self.keyframe_wait;
                let more = waited.saturating_sub(MAX_WAIT / 2).clamp(MAX_WAIT / 2, MAX_WAIT);
                (waited + more).clamp(MAX_WAIT, LONGEST_WAIT)
            }
            (MediaKind::Video, _) => MAX_WAIT,
        };
        let is_old = |info: &PacketInfo| wait(info) > limit;
        if self.awaiting_keyframe || !is_old(&next) {
            return None;
        }
        if self.kind == MediaKind::Audio {
            let until = waiting().find(|info| !is_old(info)).map_or(track.head(), |info| info.sequence);
            return Some(Overdue { from: self.cursor, until, needs_keyframe: false });
        }
        let begun = |info: &PacketInfo| self.first.is_some() && info.timestamp == self.last_timestamp;
        let from = waiting().find(|info| !begun(info))?.sequence;
        match track.latest_keyframe() {
            Some(keyframe) if keyframe > from => Some(Overdue { from, until: keyframe, needs_keyframe: false }),
            Some(keyframe) if keyframe == from => None,
            _ => Some(Overdue { from, until: track.head(), needs_keyframe: true }),
        }
    }

    fn sequence_number(&self, first: u64, sequence: u64) -> u16 {
        self.initial_sequence.wrapping_add(sequence.wrapping_sub(first) as u16)
    }

    /// The stream's sequence number behind one that the viewer names, if it was sent.
    pub(super) fn stream_sequence(&self, sequence_number: u16) -> Option<u64> {
        let first = self.first?;
        let highest = self.next.checked_sub(1)?;
        let behind = self.sequence_number(first, highest).wrapping_sub(sequence_number);
        highest.checked_sub(u64::from(behind)).filter(|&sequence| sequence >= first)
    }
}

/// The id under which a section's packets carry transport-wide numbers, if that was agreed and every packet that may be
/// asked for again can be sent by RTX.
fn transport_wide(section: &MediaSection) -> Option<u8> {
    let wanted = section.formats.iter().any(|format| format.feedback.transport_cc);
    let repaired = |format: &Format| !format.feedback.nack || format.rtx_payload_type.is_some();
    let fits = wanted && section.formats.iter().all(repaired);
    section.extensions.id(Extension::TransportCc).filter(|_| fits)
}

/// A range of stream sequence numbers that a viewer does without.
pub(super) struct Overdue {
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) needs_keyframe: bool,
}
