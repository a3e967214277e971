//! What goes out: a viewer's header rewriting, retransmission and sender reports.
//!
//! The stream's time line already runs on over restarts; a viewer adds a constant to its sequence numbers, its own
//! SSRCs, payload types and header-extension ids. What a packet looks like depends on nothing but its sequence number,
//! so that a packet made a second time is the same to the last bit, and no nonce is ever used for two (SRTP-09).

mod congestion;
mod outgoing;
mod replay;
mod resends;

use std::time::{Duration, Instant};

use crate::media::MediaKind;
use crate::net::{SendBatch, TransportTuple};
use crate::publication::Track;
use crate::publication::cache::CachedPacket;
use crate::srtp::{MAX_TRAILER, SrtpSender};

pub use congestion::Congestion;
pub use outgoing::{Outgoing, WriteError};

use outgoing::Exit;
use resends::Verdict;

/// Room that one outgoing packet may need: the largest datagram, a rewritten header and the SRTP trailer.
pub const PACKET_ROOM: usize = 1500 + 64 + MAX_TRAILER;
/// The least time between two retransmissions of one packet to one viewer; the round-trip time if that is longer.
const RESEND_INTERVAL: Duration = Duration::from_millis(20);
/// The round trip as measured includes what the viewer took to report: it asks again up to so much sooner, or a quarter of
/// the time. If that were refused, the next request would come a whole round trip later.
const RESEND_TOLERANCE: Duration = Duration::from_millis(20);
/// Bytes of padding in a packet of a probe.
const PADDING: usize = 224;

/// What a viewer is served from.
#[derive(Clone, Copy)]
pub struct Round<'a> {
    /// The present time.
    pub now: Instant,
    /// The stream's tracks, by kind.
    pub tracks: &'a [Track; 2],
    /// Behind the last packets that this round is about, by kind. What comes while it is under way is for the next one: else
    /// the last viewers got ever more, and a round of a shard that is too slow never ended.
    pub heads: [u64; 2],
    /// Packets that came behind later ones since the last round, by kind.
    pub late: &'a [Vec<u64>; 2],
    /// The shard cannot keep up: what waited too long is let go.
    pub shedding: bool,
}

/// What serving a viewer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// RTP packets written.
    pub packets: u64,
    /// Padding packets written.
    pub padding: u64,
    /// Packets that the header or SRTP did not take.
    pub refused: u64,
    /// Packets that were let go: the shard or the viewer's path could not keep up.
    pub shed: u64,
    /// There is more for it that is not due yet.
    pub behind: bool,
    /// It cannot go on without a keyframe.
    pub needs_keyframe: bool,
}

/// A viewer that is ready for media. What every walk needs stands together.
#[repr(C)]
pub struct Subscription {
    /// Its sections by kind.
    pub outgoing: [Option<Outgoing>; 2],
    /// Where its media goes.
    pub path: TransportTuple,
    /// Its keys.
    pub sender: SrtpSender,
    /// What its path carries. In memory of its own: a viewer that nothing is sent to costs the walk little.
    pub congestion: Box<Congestion>,
    /// What went out so far. It stands here and not in the session, whose memory the fan-out does not touch.
    pub sent: Sent,
    /// The session's key in its shard.
    pub session: usize,
    /// When the next sender reports are due.
    pub next_report: Instant,
    /// Round-trip time that its last receiver report showed.
    pub round_trip_time: Option<Duration>,
}

/// RTP packets and bytes sent to one viewer, retransmissions included, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// SRTP bytes.
    pub bytes: u64,
    /// Packets that were let go.
    pub shed: u64,
}

impl Sent {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What became of a NACKed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resent {
    /// It was written again.
    Yes,
    /// It is not here, it is on its way, or the budget is used up.
    No,
    /// It was sent again as often as makes sense, and no keyframe came since: only another one helps.
    BeyondRepair,
}

/// The way of the packets of one viewer into the batch.
struct Way<'a, F> {
    path: TransportTuple,
    exit: Exit<'a>,
    out: &'a mut SendBatch,
    /// Empties the batch when it is full.
    flush: F,
    sent: &'a mut Sent,
    served: Served,
}

impl<F: FnMut(&mut SendBatch)> Way<'_, F> {
    #[inline]
    fn forward(&mut self, outgoing: &mut Outgoing, packet: &CachedPacket<'_>) {
        let written = self.write(|exit, out| outgoing.forward(packet, exit, out));
        self.served.packets += u64::from(written);
    }

    /// Sends the padding of a probe that is due.
    fn probe(&mut self, video: &mut Outgoing) {
        let mut due = self.exit.congestion.take_probe(self.exit.now);
        while due > 0 {
            let padding = due.min(PADDING);
            if !self.write(|exit, out| video.pad(padding as u8, exit, out)) {
                break;
            }
            self.served.padding += 1;
            due -= padding;
        }
        self.served.behind |= self.exit.congestion.is_probing();
    }

    /// Lets `fill` write one packet; true if it did.
    #[inline]
    fn write(&mut self, fill: impl FnOnce(&mut Exit<'_>, &mut [u8]) -> Result<usize, WriteError>) -> bool {
        if self.out.room() < PACKET_ROOM {
            (self.flush)(self.out);
        }
        match fill(&mut self.exit, self.out.spare()) {
            Ok(length) => {
                self.out.commit(self.path, length);
                self.sent.add(length);
                true
            }
            Err(WriteError::NotForThisViewer) => false,
            Err(WriteError::Refused) => {
                self.served.refused += 1;
                false
            }
        }
    }
}

impl Subscription {
    /// A viewer whose keys have just been installed, of a stream of `media` bit/s; its first sender reports are due with
    /// its first packets.
    pub fn new(
        now: Instant,
        session: usize,
        path: TransportTuple,
        sender: SrtpSender,
        outgoing: [Option<Outgoing>; 2],
        media: u64,
    ) -> Subscription {
        let transport_wide = outgoing.iter().flatten().any(Outgoing::is_transport_wide);
        let congestion = Box::new(Congestion::new(now, transport_wide, media));
        let sent = Sent::default();
        Subscription { session, path, sender, outgoing, next_report: now, congestion, round_trip_time: None, sent }
    }

    /// Writes everything that is due for this viewer, rewritten and protected, into `out`; where that is full, `flush`
    /// empties it.
    #[inline]
    pub fn serve(&mut self, round: &Round<'_>, out: &mut SendBatch, flush: impl FnMut(&mut SendBatch)) -> Served {
        let Round { now, tracks, heads, late, shedding } = *round;
        let paced = self.congestion.is_paced(now);
        let exit = Exit { now, sender: &mut self.sender, congestion: &mut self.congestion };
        let mut way = Way { path: self.path, exit, out, flush, sent: &mut self.sent, served: Served::default() };
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let Some(outgoing) = self.outgoing[kind.index()].as_mut() else { continue };
            let track = &tracks[kind.index()];
            let reached = outgoing.cursor;
            for packet in late[kind.index()].iter().filter(|&&late| late < reached) {
                if let Some(packet) = track.cache.get(*packet) {
                    way.forward(outgoing, &packet);
                }
            }
            let overdue = if shedding || outgoing.behind {
                let hopeful = !shedding && way.exit.congestion.carries_media();
                outgoing.overdue(now, track, hopeful)
            } else {
                None
            };
            outgoing.behind = false;
            while outgoing.cursor < heads[kind.index()] {
                if let Some(overdue) = overdue.as_ref().filter(|overdue| overdue.from == outgoing.cursor) {
                    way.served.shed += overdue.until - overdue.from;
                    way.sent.shed += overdue.until - overdue.from;
                    way.served.needs_keyframe |= overdue.needs_keyframe;
                    outgoing.skip(overdue);
                    continue;
                }
                if let Some(packet) = track.in_order(outgoing.cursor) {
                    let held = paced && kind == MediaKind::Video && !way.exit.congestion.may_send(now);
                    if held || !outgoing.is_due(now, &packet) {
                        outgoing.behind = true;
                        break;
                    }
                    way.forward(outgoing, &packet);
                }
                outgoing.cursor += 1;
            }
            way.served.behind |= outgoing.behind;
            if !outgoing.behind {
                outgoing.catch_up();
            }
        }
        if let Some(video) = self.outgoing[MediaKind::Video.index()].as_mut().filter(|video| video.can_pad()) {
            way.probe(video);
        }
        way.served
    }

    /// Answers one NACKed sequence number from a track's cache.
    pub fn resend(
        &mut self,
        now: Instant,
        kind: MediaKind,
        sequence_number: u16,
        track: &Track,
        out: &mut SendBatch,
    ) -> Resent {
        let round_trip = self.round_trip_time.unwrap_or_default();
        let interval = (round_trip - RESEND_TOLERANCE.min(round_trip / 4)).max(RESEND_INTERVAL);
        let Some(outgoing) = self.outgoing[kind.index()].as_mut() else { return Resent::No };
        let Some(sequence) = outgoing.stream_sequence(sequence_number) else { return Resent::No };
        let Some(packet) = track.cache.get(sequence) else { return Resent::No };
        let congestion = &mut *self.congestion;
        let within_budget = || congestion.allow_retransmission(now, packet.payload.len());
        match outgoing.resends.allow(now, sequence, interval, within_budget) {
            Verdict::Send => {}
            Verdict::GivenUp if track.latest_keyframe().is_some_and(|keyframe| keyframe <= sequence) => {
                return Resent::BeyondRepair;
            }
            Verdict::GivenUp | Verdict::NotNow => return Resent::No,
        }
        let mut exit = Exit { now, sender: &mut self.sender, congestion };
        let Ok(length) = outgoing.resend(&packet, &mut exit, out.spare()) else { return Resent::No };
        out.commit(self.path, length);
        self.sent.add(length);
        Resent::Yes
    }

    /// True if something can be sent to the viewer besides media, to probe its path.
    pub fn can_pad(&self) -> bool {
        self.outgoing[MediaKind::Video.index()].as_ref().is_some_and(Outgoing::can_pad)
    }

    /// The section that sends with this SSRC.
    pub fn kind_of(&self, ssrc: u32) -> Option<MediaKind> {
        self.outgoing.iter().flatten().find(|outgoing| outgoing.ssrc == ssrc).map(|outgoing| outgoing.kind)
    }
}

#[cfg(test)]
mod tests;
