//! A viewer: its tracks, its keys, and what its path carries.

use std::time::{Duration, Instant};

use crate::media::{MediaKind, TrackId};
use crate::net::{MediaDscp, Outbound, Protocol, TrafficClass, TransportTuple};
use crate::srtp::SrtpSender;
use crate::stream::{CachedPacket, Encoding, Tracks};

use super::PACKET_ROOM;
use super::congestion::{ArrivalFeedback, Congestion};
use super::egress_track::EgressTrack;
use super::late_drop::Overdue;
use super::moves::RestOfFrame;
use super::retransmissions::Verdict;
use super::rtp_sender::{SendContext, WriteError};
use super::viewer_layers::ViewerLayers;

/// The least time between two retransmissions of one packet to one viewer; the round-trip time if that is longer.
const RETRANSMISSION_INTERVAL: Duration = Duration::from_millis(20);
/// The round trip as measured includes what the viewer took to report: it asks again up to so much sooner, or a quarter of
/// the time. If that were refused, the next request would come a whole round trip later.
const ROUND_TRIP_TOLERANCE: Duration = Duration::from_millis(20);
/// Where the path breaks, a frame that was begun is finished if that takes the path so long at most.
const REST_OF_FRAME: Duration = Duration::from_millis(200);
/// Bytes of padding in a packet of a probe.
const PADDING: usize = 224;

/// A fan-out pass over a stream's viewers: each is sent the packets that were received since the last pass.
#[derive(Clone, Copy)]
pub struct FanOutPass<'a> {
    /// The present time.
    pub now: Instant,
    /// The stream's tracks; each encoding knows which of its packets the pass is about.
    pub tracks: &'a Tracks,
    /// The shard cannot keep up: what waited too long is dropped.
    pub overloaded: bool,
}

/// What was sent to a viewer in one fan-out pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// RTP packets written.
    pub packets: u64,
    /// Padding packets written.
    pub padding: u64,
    /// Packets that the header or SRTP did not take.
    pub refused: u64,
    /// Packets dropped because the shard is overloaded or the viewer's path congested.
    pub dropped: u64,
    /// There is more for it that is not due yet.
    pub is_lagging: bool,
    /// The track that cannot go on without a keyframe, and the position of its encoding.
    pub needs_keyframe: Option<(TrackId, u8)>,
}

/// A viewer that is ready for media. What every fan-out pass needs stands together.
#[repr(C)]
pub struct Viewer {
    /// Its tracks, audio first. In memory of their own, which starts with a line of the processor's cache.
    tracks: Box<[EgressTrack]>,
    /// Its keys.
    srtp: SrtpSender,
    /// What its path carries.
    congestion: Box<Congestion>,
    /// How routers are asked to treat its packets.
    dscp: MediaDscp,
    /// What was sent so far.
    sent: SentCounters,
    /// Round-trip time that its last receiver report showed.
    round_trip_time: Option<Duration>,
    /// Which layers it is sent.
    pub(super) layers: Box<ViewerLayers>,
}

/// RTP packets and bytes sent to one viewer, retransmissions included, and packets that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentCounters {
    /// Packets.
    pub packets: u64,
    /// SRTP bytes.
    pub bytes: u64,
    /// Packets dropped because the shard was overloaded or the path congested.
    pub dropped: u64,
}

impl SentCounters {
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
    /// It is not in the cache, it is on its way, or the budget is used up.
    No,
    /// It was sent again as often as makes sense, and no keyframe was received since: only another one helps.
    BeyondRepair,
}

/// Writes the packets of one viewer into the send batch.
struct PacketWriter<'a> {
    tuple: TransportTuple,
    context: SendContext<'a>,
    out: &'a mut Outbound,
    dscp: MediaDscp,
    sent: &'a mut SentCounters,
    served: Served,
}

impl PacketWriter<'_> {
    /// Sends what the present pass has for one track.
    #[inline]
    fn serve(&mut self, track: &mut EgressTrack, tracks: &Tracks, overloaded: bool, is_paced: bool) {
        let has_sent_late = track.is_moving() && self.change_encoding(track, tracks);
        let Some(encoding) = track.encoding(tracks) else { return };
        let now = self.context.now;
        if let Some(given_up) = track.given_up(encoding) {
            self.drop_overdue(track, &given_up);
        }
        if track.awaits_keyframe() && !track.seek_keyframe(now, encoding) {
            return;
        }
        if !has_sent_late {
            self.forward_out_of_order(track, encoding);
        }
        let overdue = if overloaded || track.reader.is_lagging() {
            let path_keeps_up =
                !overloaded && self.context.congestion.carries_stream() && self.out.has_room(self.tuple, false);
            track.overdue(now, encoding, path_keeps_up)
        } else {
            None
        };
        let is_paced = is_paced && track.id().kind == MediaKind::Video;
        let end = if track.is_moving() { track.end_of_pass(now, encoding) } else { encoding.pass_end() };
        let overdue = overdue.filter(|overdue| overdue.from < end);
        self.forward_until(track, encoding, overdue.map_or(end, |overdue| overdue.from), is_paced);
        if let Some(overdue) = overdue.filter(|overdue| overdue.from == track.reader.position()) {
            self.drop_overdue(track, &overdue);
            self.forward_until(track, encoding, end, is_paced);
        }
        if track.reader.position() >= encoding.pass_end() {
            track.reader.catch_up();
        } else if track.reader.position() >= end {
            track.reader.wait();
        }
        self.served.is_lagging |= track.reader.is_lagging();
    }

    /// Sends the packets before `end` that are due.
    #[inline]
    fn forward_until(&mut self, track: &mut EgressTrack, encoding: &Encoding, end: u64, is_paced: bool) {
        let now = self.context.now;
        loop {
            let (congestion, out, tuple) = (&*self.context.congestion, &*self.out, self.tuple);
            // A connection that is full takes the rest of a frame that was begun, so that none is cut.
            let is_begun = is_paced && tuple.protocol == Protocol::Tcp && track.is_in_frame(encoding);
            let may_pass = || !is_paced || may_send(now, congestion, out, (tuple, is_begun));
            let Some(packet) = track.reader.next(now, encoding, end, may_pass) else { return };
            self.forward(track, encoding, &packet);
        }
    }

    /// Goes to the encoding to which the viewer is to move, if that has a keyframe to begin with. The frame that was begun is
    /// finished, unless what is left of it would stand in front of the keyframe for long. The keyframe with which it began there is,
    /// in any case: a viewer whose path changes all the time would see none. True if the pass's packets that were received out of
    /// order were sent.
    #[cold]
    fn change_encoding(&mut self, track: &mut EgressTrack, tracks: &Tracks) -> bool {
        let now = self.context.now;
        let Some(entry) = track.entry(now, tracks) else { return false };
        let encoding = track.encoding(tracks).filter(|_| !track.awaits_keyframe());
        if let Some(encoding) = encoding {
            self.forward_out_of_order(track, encoding);
        }
        if let Some(encoding) = encoding
            && let Some(RestOfFrame { end, bytes, is_first }) = track.rest_of_frame(encoding)
            && (is_first || !track.has_to_leave_picture() || self.context.congestion.takes(bytes) <= REST_OF_FRAME)
        {
            self.forward_until(track, encoding, end, false);
            if track.waits_for_rest_of_frame(now, &entry) {
                return true;
            }
        }
        track.enter(now, tracks, &entry);
        encoding.is_some()
    }

    /// Sends the pass's packets that were received out of order and that the viewer has passed already.
    fn forward_out_of_order(&mut self, track: &mut EgressTrack, encoding: &Encoding) {
        for packet in track.reader.out_of_order(encoding) {
            self.forward_late(track, &packet);
        }
    }

    #[cold]
    fn drop_overdue(&mut self, track: &mut EgressTrack, overdue: &Overdue) {
        let packets = overdue.until - overdue.from;
        self.served.dropped += packets;
        self.sent.dropped += packets;
        track.skip(overdue);
        if overdue.needs_keyframe {
            self.served.needs_keyframe = track.lacks_keyframe().map(|encoding| (track.id(), encoding));
        }
    }

    #[inline]
    fn forward(&mut self, track: &mut EgressTrack, encoding: &Encoding, packet: &CachedPacket<'_>) {
        let written = self.write(track.id().kind, |context, out| track.forward(packet, encoding, context, out));
        self.served.packets += u64::from(written);
    }

    fn forward_late(&mut self, track: &mut EgressTrack, packet: &CachedPacket<'_>) {
        let written = self.write(track.id().kind, |context, out| track.forward_late(packet, context, out));
        self.served.packets += u64::from(written);
    }

    /// Sends the padding of a probe that is due.
    fn probe(&mut self, video: &mut EgressTrack) {
        let mut due = self.context.congestion.take_probe(self.context.now);
        while due > 0 {
            let padding = due.min(PADDING);
            if !self.write(MediaKind::Video, |context, out| video.pad(padding as u8, context, out)) {
                break;
            }
            self.served.padding += 1;
            due -= padding;
        }
        self.served.is_lagging |= self.context.congestion.is_probing();
    }

    /// Lets `fill` write one packet; true if it did.
    #[inline]
    fn write(
        &mut self,
        kind: MediaKind,
        fill: impl FnOnce(&mut SendContext<'_>, &mut [u8]) -> Result<usize, WriteError>,
    ) -> bool {
        match fill(&mut self.context, self.out.reserve(PACKET_ROOM)) {
            Ok(length) => {
                let class = TrafficClass::new(self.dscp.of(kind), self.context.congestion.ecn());
                self.out.commit_marked(self.tuple, length, class);
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

impl Viewer {
    /// A viewer whose keys have just been installed, of a stream of `media` bit/s.
    pub fn new(now: Instant, srtp: SrtpSender, mut tracks: Vec<EgressTrack>, media: u64) -> Viewer {
        // Audio is served first: it is small and never waits for video.
        tracks.sort_by_key(EgressTrack::id);
        // Transport-wide feedback may have been agreed for some of them only.
        let mut feedbacks = tracks.iter().map(EgressTrack::arrival_feedback);
        let feedback = feedbacks.find(|&feedback| feedback != ArrivalFeedback::None).unwrap_or(ArrivalFeedback::None);
        let congestion = Box::new(Congestion::new(now, feedback, media));
        let (sent, dscp) = (SentCounters::default(), MediaDscp::default());
        let layers = Box::new(ViewerLayers::new(tracks.len(), media));
        Viewer { tracks: tracks.into_boxed_slice(), srtp, congestion, dscp, sent, round_trip_time: None, layers }
    }

    /// Asks routers to treat its packets so (RFC 8837).
    pub fn set_dscp(&mut self, dscp: MediaDscp) {
        self.dscp = dscp;
    }

    /// How routers are asked to treat its packets.
    pub fn dscp(&self) -> MediaDscp {
        self.dscp
    }

    /// Its tracks, audio first.
    pub fn tracks(&self) -> &[EgressTrack] {
        &self.tracks
    }

    /// The caches are about to lose what the publisher sent.
    pub fn note_positions(&mut self, tracks: &Tracks) {
        for track in &mut self.tracks {
            if let Some(encoding) = track.encoding(tracks) {
                track.note_position(encoding);
            }
        }
    }

    /// Its tracks, audio first.
    pub fn tracks_mut(&mut self) -> &mut [EgressTrack] {
        &mut self.tracks
    }

    /// Its keys.
    pub fn srtp(&self) -> &SrtpSender {
        &self.srtp
    }

    /// One of its tracks, and its layers.
    pub(super) fn track_and_layers(&mut self, index: usize) -> (&mut EgressTrack, &mut ViewerLayers) {
        (&mut self.tracks[index], &mut self.layers)
    }

    /// Its keys and its tracks.
    pub fn srtp_and_tracks(&mut self) -> (&mut SrtpSender, &[EgressTrack]) {
        (&mut self.srtp, &self.tracks)
    }

    /// The track that is sent with this SSRC.
    pub fn track_by_ssrc(&mut self, ssrc: u32) -> Option<&mut EgressTrack> {
        self.tracks.iter_mut().find(|track| track.ssrc() == ssrc)
    }

    /// What its path carries.
    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// What its path carries.
    pub fn congestion_mut(&mut self) -> &mut Congestion {
        &mut self.congestion
    }

    /// What was sent so far.
    pub fn sent(&self) -> SentCounters {
        self.sent
    }

    /// Round-trip time that its last receiver report showed.
    pub fn round_trip_time(&self) -> Option<Duration> {
        self.round_trip_time
    }

    /// A receiver report showed this round-trip time.
    pub fn set_round_trip_time(&mut self, round_trip_time: Duration) {
        self.round_trip_time = Some(round_trip_time);
    }

    /// Writes everything that is due for this viewer, rewritten and protected, into `out`.
    #[inline]
    pub fn serve(&mut self, pass: &FanOutPass<'_>, tuple: TransportTuple, out: &mut Outbound) -> Served {
        let is_paced = tuple.protocol == Protocol::Tcp || self.congestion.is_paced(pass.now);
        let context = SendContext { now: pass.now, srtp: &mut self.srtp, congestion: &mut self.congestion };
        let (dscp, sent) = (self.dscp, &mut self.sent);
        let mut writer = PacketWriter { tuple, context, out, dscp, sent, served: Served::default() };
        for track in &mut self.tracks {
            writer.serve(track, pass.tracks, pass.overloaded, is_paced);
        }
        if let Some(video) = self.tracks.iter_mut().find(|track| is_padded(track)) {
            writer.probe(video);
        }
        writer.served
    }

    /// Retransmits the packet that was sent under a NACKed number, by the SSRC of its track.
    pub fn resend(
        &mut self,
        now: Instant,
        (ssrc, sequence_number): (u32, u16),
        tracks: &Tracks,
        tuple: TransportTuple,
        out: &mut Outbound,
    ) -> Resent {
        let round_trip = self.round_trip_time.unwrap_or_default();
        let interval = (round_trip - ROUND_TRIP_TOLERANCE.min(round_trip / 4)).max(RETRANSMISSION_INTERVAL);
        let Some(track) = self.tracks.iter_mut().find(|track| track.ssrc() == ssrc) else { return Resent::No };
        let dscp = self.dscp.of(track.id().kind);
        let Some(found) = track.find(sequence_number) else { return Resent::No };
        let Some(encoding) = tracks.encoding(track.id(), found.encoding()) else { return Resent::No };
        let Some(packet) = encoding.packet(found.sequence) else { return Resent::No };
        let congestion = &mut *self.congestion;
        let within_budget = || congestion.allow_retransmission(now, packet.payload.len());
        match track.sender.retransmissions.allow(now, found.sequence, interval, within_budget) {
            Verdict::Send => {}
            Verdict::GivenUp if encoding.latest_keyframe().is_some_and(|keyframe| keyframe <= found.sequence) => {
                return Resent::BeyondRepair;
            }
            Verdict::GivenUp | Verdict::NotNow => return Resent::No,
        }
        let mut context = SendContext { now, srtp: &mut self.srtp, congestion };
        let room = out.reserve(PACKET_ROOM);
        let Ok(length) = track.forward_again(&packet, &found, &mut context, room) else { return Resent::No };
        out.commit_marked(tuple, length, TrafficClass::new(dscp, self.congestion.ecn()));
        self.sent.add(length);
        Resent::Yes
    }

    /// True if something can be sent to the viewer besides media, to probe its path.
    pub fn can_pad(&self) -> bool {
        self.tracks.iter().any(is_padded)
    }
}

/// Whether video may leave for a viewer that is paced: as its path is estimated, and over TCP as far as its connection takes more.
#[inline]
fn may_send(now: Instant, congestion: &Congestion, out: &Outbound, (tuple, is_begun): (TransportTuple, bool)) -> bool {
    match tuple.protocol {
        Protocol::Udp => congestion.may_send(now),
        Protocol::Tcp => out.has_room(tuple, is_begun) && (!congestion.is_paced(now) || congestion.may_send(now)),
    }
}

/// Probes are sent beside video: audio alone fills no path.
fn is_padded(track: &EgressTrack) -> bool {
    track.id().kind == MediaKind::Video && track.can_pad()
}
