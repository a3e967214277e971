//! RTCP from a peer. Nothing of it is relayed (RTCP-02).

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::media::{MediaKind, TrackId};
use crate::net::{Outbound, TransportTuple};
use crate::rtcp::ntp::round_trip_time;
use crate::rtcp::{Nack, NtpTime, ReportBlock, RtcpPacket, RtcpPackets};
use crate::stats::{DropReason, SessionStats, ShardCounters};
use crate::stream::{KeyframeAnswer, Tracks};

use super::budgets::{MAX_RESENDS, cost};
use super::lifecycle::Lifecycle;
use super::rtcp_out::FEEDBACK_SSRC;
use super::{Media, Publisher, Session, Watching};
use crate::egress::Resent;

/// What RTCP of a session works with.
pub(crate) struct RtcpContext<'a> {
    pub(crate) now: Instant,
    /// Wall-clock time of `now`, since the Unix epoch.
    pub(crate) unix: Duration,
    pub(crate) tracks: &'a Tracks,
    pub(crate) out: &'a mut Outbound,
    pub(crate) counters: &'a mut ShardCounters,
}

/// What RTCP of a viewer asks of its stream.
#[derive(Default)]
pub(crate) struct KeyframesNeeded {
    /// The viewer restarted from the cached keyframe: it has packets to be sent.
    pub(crate) restarted: bool,
    /// Encodings of which the publisher is to be asked for a keyframe.
    pub(crate) encodings: SmallVec<[(TrackId, u8); 2]>,
}

impl KeyframesNeeded {
    /// Once for each encoding, however many messages ask.
    fn add(&mut self, track: TrackId, encoding: u8) {
        if !self.encodings.contains(&(track, encoding)) {
            self.encodings.push((track, encoding));
        }
    }
}

/// Reference times of a viewer's receivers that were not answered yet (RFC 3611 §4.4): one for audio and one for video.
#[derive(Debug, Default)]
pub(super) struct ReferenceTimes([Option<ReferenceTime>; 2]);

/// A viewer's receiver asks for its round-trip time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReferenceTime {
    /// The receiver.
    pub(super) ssrc: u32,
    /// Middle 32 bits of its NTP clock.
    pub(super) time: u32,
    /// When that was received.
    pub(super) received: Instant,
}

impl ReferenceTimes {
    /// Notes a reference time; the older one of more than two gives way.
    fn insert(&mut self, reference: ReferenceTime) {
        let ReferenceTimes([first, second]) = self;
        let same = |known: &Option<ReferenceTime>| known.is_none_or(|known| known.ssrc == reference.ssrc);
        if same(first) {
            *first = Some(reference);
        } else {
            if !same(second) {
                *first = *second;
            }
            *second = Some(reference);
        }
    }

    /// Takes those that are to be answered.
    pub(super) fn take(&mut self) -> impl Iterator<Item = ReferenceTime> {
        self.0.iter_mut().filter_map(Option::take)
    }
}

impl Session {
    /// Acts on a decrypted RTCP datagram, message by message, as long as they are within the peer's budget.
    pub(crate) fn on_rtcp(
        &mut self,
        data: &[u8],
        context: &mut RtcpContext<'_>,
    ) -> (Result<(), DropReason>, KeyframesNeeded) {
        let mut result = Ok(());
        let mut needed = KeyframesNeeded::default();
        let mut work = self.inbound.budgets.begin_rtcp(context.now);
        for packet in RtcpPackets::new(data) {
            if !work.take(cost(&packet)) {
                result = Err(DropReason::RtcpRate);
                break;
            }
            match (packet, &mut self.media) {
                (Ok(packet), Media::Publisher(publisher)) => result = publisher.on_rtcp(&packet, context).and(result),
                (Ok(packet), Media::Viewer(_)) => self.on_viewer_rtcp(&packet, context, &mut needed),
                (Ok(_), Media::Pending) => {}
                (Err(_), _) => result = Err(DropReason::MalformedRtp),
            }
        }
        self.inbound.budgets.end_rtcp(context.now, &work, result == Err(DropReason::RtcpRate));
        (result, needed)
    }

    fn on_viewer_rtcp(&mut self, packet: &RtcpPacket<'_>, context: &mut RtcpContext<'_>, needed: &mut KeyframesNeeded) {
        let accepts_reference_times = self.negotiated.accepts_reference_times();
        let (Media::Viewer(watching), Some(tuple)) = (&mut self.media, self.selected) else { return };
        let (now, media) = (context.now, watching.viewer.media());
        match packet {
            RtcpPacket::ReceiverReport(report) => {
                watching.on_report_blocks(report.blocks(), context, &mut self.lifecycle, &mut self.stats);
            }
            RtcpPacket::SenderReport(report) => {
                watching.on_report_blocks(report.blocks(), context, &mut self.lifecycle, &mut self.stats);
            }
            RtcpPacket::ExtendedReport(report) => {
                if let Some(time) = report.reference_time().filter(|_| accepts_reference_times) {
                    let (ssrc, time) = (report.sender_ssrc, time.compact());
                    watching.reference_times.insert(ReferenceTime { ssrc, time, received: now });
                }
            }
            RtcpPacket::Pli(pli) => {
                if let Some(track) = watching.video_track(pli.media_ssrc) {
                    watching.on_keyframe_request(track, context, &mut self.stats, needed);
                }
            }
            RtcpPacket::Fir(fir) => {
                let entry = fir.entries().find_map(|entry| Some((watching.video_track(entry.ssrc)?, entry)));
                // The same number again is the same request again (RTCP-12).
                if let Some((track, entry)) = entry
                    && watching.fir_sequence.replace(entry.sequence_number) != Some(entry.sequence_number)
                {
                    watching.on_keyframe_request(track, context, &mut self.stats, needed);
                }
            }
            RtcpPacket::TransportFeedback(feedback) => {
                watching.viewer.congestion_mut().on_feedback(now, feedback, media);
            }
            RtcpPacket::CongestionControlFeedback(feedback) => {
                watching.viewer.congestion_mut().on_congestion_control_feedback(now, feedback, media);
            }
            RtcpPacket::Remb(remb) => watching.viewer.congestion_mut().on_remb(now, remb.bitrate, media),
            RtcpPacket::Nack(nack) => {
                if let Some(track) = watching.on_nack(nack, tuple, context, &mut self.stats) {
                    watching.answer_keyframe_request(track, context, needed);
                }
            }
            _ => {}
        }
        if let Media::Viewer(watching) = &self.media
            && watching.viewer.is_overtaxed()
        {
            let chosen = self.choose_layers(now, context.tracks);
            chosen.keyframes.into_iter().for_each(|(track, encoding)| needed.add(track, encoding));
            needed.restarted |= chosen.has_moved;
        }
    }
}

impl super::Negotiated {
    /// True if it was agreed that the peer may ask for its round-trip time (RFC 3611 §5.1).
    fn accepts_reference_times(&self) -> bool {
        self.sections.iter().flat_map(|section| &section.formats).any(|format| format.feedback.receiver_round_trip)
    }
}

impl Publisher {
    fn on_rtcp(&mut self, packet: &RtcpPacket<'_>, context: &RtcpContext<'_>) -> Result<(), DropReason> {
        match packet {
            RtcpPacket::SenderReport(report) => {
                return self.ingest.on_sender_report(context.now, context.unix, report, context.tracks);
            }
            RtcpPacket::Bye(bye) => bye.ssrcs().for_each(|ssrc| self.ingest.on_bye(ssrc)),
            RtcpPacket::ExtendedReport(report) => {
                let ntp = NtpTime::from_unix(context.unix);
                for delay in report.delays().filter(|delay| delay.ssrc == FEEDBACK_SSRC) {
                    if let Some(sample) = round_trip_time(ntp, delay.last_rr, delay.delay_since_last_rr) {
                        self.ingest.on_round_trip(context.now, sample);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Watching {
    /// The video track that is sent with this SSRC.
    fn video_track(&self, ssrc: u32) -> Option<TrackId> {
        let track = self.viewer.tracks().iter().find(|track| track.ssrc() == ssrc)?;
        (track.id().kind == MediaKind::Video).then_some(track.id())
    }

    /// The viewer requests a keyframe by PLI or FIR.
    fn on_keyframe_request(
        &mut self,
        track: TrackId,
        context: &mut RtcpContext<'_>,
        stats: &mut SessionStats,
        needed: &mut KeyframesNeeded,
    ) {
        context.counters.keyframe_requests_received += 1;
        stats.keyframe_requests += 1;
        self.answer_keyframe_request(track, context, needed);
    }

    /// The viewer cannot decode a track without a keyframe.
    fn answer_keyframe_request(&mut self, track: TrackId, context: &mut RtcpContext<'_>, needed: &mut KeyframesNeeded) {
        let now = context.now;
        let Some(egress) = self.viewer.tracks_mut().iter_mut().find(|egress| egress.id() == track) else { return };
        let index = egress.encoding_index();
        let Some(encoding) = egress.encoding(context.tracks) else { return needed.add(track, index) };
        let is_starting = egress.is_starting(now);
        let restart = || egress.restart(now, encoding);
        match encoding.keyframe_requests.answer(now, &mut self.keyframe_requests, is_starting, restart) {
            KeyframeAnswer::RateLimited => {}
            KeyframeAnswer::FromCache => needed.restarted = true,
            KeyframeAnswer::FromPublisher => needed.add(track, index),
            KeyframeAnswer::Unavailable => {
                context.counters.keyframes_unavailable += 1;
                needed.add(track, index);
            }
        }
    }

    /// Sends NACKed packets again. The track of which one is beyond repair, if there is one.
    fn on_nack(
        &mut self,
        nack: &Nack<'_>,
        tuple: TransportTuple,
        context: &mut RtcpContext<'_>,
        stats: &mut SessionStats,
    ) -> Option<TrackId> {
        let ssrc = nack.media_ssrc;
        let track = self.viewer.track_by_ssrc(ssrc)?.id();
        let mut beyond_repair = None;
        for sequence_number in nack.sequence_numbers().take(MAX_RESENDS) {
            context.counters.nacks_received += 1;
            match self.viewer.resend(context.now, (ssrc, sequence_number), context.tracks, tuple, context.out) {
                Resent::Yes => {
                    context.counters.rtp_retransmitted += 1;
                    stats.retransmitted += 1;
                }
                Resent::No => {}
                Resent::BeyondRepair => beyond_repair = Some(track),
            }
        }
        beyond_repair
    }

    fn on_report_blocks(
        &mut self,
        blocks: impl Iterator<Item = ReportBlock>,
        context: &RtcpContext<'_>,
        lifecycle: &mut Lifecycle,
        stats: &mut SessionStats,
    ) {
        let ntp = NtpTime::from_unix(context.unix);
        let (mut lost, mut packets) = (0.0, 0);
        for block in blocks {
            let Some(track) = self.viewer.track_by_ssrc(block.ssrc).filter(|track| track.has_sent()) else { continue };
            track.on_receipt();
            lifecycle.on_report(track.id(), block.extended_highest_sequence, track.packets_sent());
            let fraction = f64::from(block.fraction_lost) / 256.0;
            let sent = u64::from(track.packets_sent());
            lost += fraction * sent as f64;
            packets += sent;
            stats.reported_loss = Some(fraction);
            if let Some(round_trip) = round_trip_time(ntp, block.last_sr, block.delay_since_last_sr) {
                stats.round_trip_time = Some(round_trip.as_secs_f64());
                self.viewer.set_round_trip_time(round_trip);
            }
        }
        if packets > 0 {
            let (lost, round_trip) = (lost / packets as f64, self.viewer.round_trip_time());
            let media = self.viewer.media();
            self.viewer.congestion_mut().on_receiver_report(context.now, lost, round_trip, media);
        }
    }
}
