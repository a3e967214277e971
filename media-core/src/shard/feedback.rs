//! RTCP of a shard: what peers report, and the reports that go to them.

use std::time::{Duration, Instant};

use crate::media::{MediaKind, Role};
use crate::net::{MediaSocket, SendBatch, TransportTuple};
use crate::publication::KeyframeRequest;
use crate::rtcp::fir::FirEntry;
use crate::rtcp::ntp::{compact_duration, round_trip_time};
use crate::rtcp::transport_feedback::FeedbackFields;
use crate::rtcp::{DelaySinceLastReceiverReport, NtpTime, ReportBlock, RtcpPacket, RtcpPackets, RtcpWriter};
use crate::session::CoreEvent;
use crate::srtp::SrtpSender;
use crate::stats::{DropReason, ShardCounters};
use crate::subscription::{Outgoing, PACKET_ROOM, Resent};

use super::session::{ReferenceTime, Session};
use super::{Shard, send};

/// Receiver and sender reports go out this often (RTCP-03).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The server's own SSRC in RTCP towards publishers: it sends no media, and nothing refers to it.
const FEEDBACK_SSRC: u32 = 1;
/// NACKed packets that one RTCP datagram may ask for; the rest is asked for again.
const MAX_RESENDS: usize = 256;

impl Shard {
    /// Decrypts RTCP and acts on it; nothing is relayed (RTCP-02).
    pub(super) fn on_rtcp(&mut self, now: Instant, path: TransportTuple, data: &mut [u8]) -> Result<(), DropReason> {
        let key = self.session_at(path)?;
        let session = &mut self.sessions[key];
        let Some(receiver) = &mut session.receiver else { return session.hold(now, path, data) };
        let length = match receiver.unprotect_rtcp(data, data.len()) {
            Ok(length) => length,
            Err(error) => return Err(session.on_srtp_error(now, error)),
        };
        session.transport.on_authentic(now);
        let role = session.role;
        let mut result = Ok(());
        for packet in RtcpPackets::new(&data[..length]) {
            match packet {
                Ok(packet) if role == Role::Publisher => {
                    result = self.on_publisher_rtcp(now, key, &packet).and(result);
                }
                Ok(packet) => self.on_viewer_rtcp(now, key, &packet),
                Err(_) => result = Err(DropReason::MalformedRtp),
            }
        }
        self.publish_events(key);
        result
    }

    fn on_publisher_rtcp(&mut self, now: Instant, key: usize, packet: &RtcpPacket<'_>) -> Result<(), DropReason> {
        let stream = &mut self.streams[self.sessions[key].stream];
        let publisher = stream.publisher.as_mut().filter(|(publisher, _)| *publisher == key);
        let Some((_, publication)) = publisher else { return Ok(()) };
        match packet {
            RtcpPacket::SenderReport(report) => {
                return publication.on_sender_report(now, self.wall.unix(now), report, &stream.tracks);
            }
            RtcpPacket::Bye(bye) => bye.ssrcs().for_each(|ssrc| publication.on_bye(ssrc)),
            RtcpPacket::ExtendedReport(report) => {
                let ntp = NtpTime::from_unix(self.wall.unix(now));
                for delay in report.delays().filter(|delay| delay.ssrc == FEEDBACK_SSRC) {
                    if let Some(sample) = round_trip_time(ntp, delay.last_rr, delay.delay_since_last_rr) {
                        publication.on_round_trip(now, sample);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_viewer_rtcp(&mut self, now: Instant, key: usize, packet: &RtcpPacket<'_>) {
        let session = &mut self.sessions[key];
        let Some(index) = session.viewer else { return };
        match packet {
            RtcpPacket::ReceiverReport(report) => self.on_report_blocks(now, key, report.blocks()),
            RtcpPacket::SenderReport(report) => self.on_report_blocks(now, key, report.blocks()),
            RtcpPacket::ExtendedReport(report) => {
                if let Some(time) = report.reference_time() {
                    let (ssrc, time) = (report.sender_ssrc, time.compact());
                    session.on_reference_time(ReferenceTime { ssrc, time, came: now });
                }
            }
            RtcpPacket::Pli(pli)
                if self.streams[session.stream].viewers[index].kind_of(pli.media_ssrc) == Some(MediaKind::Video) =>
            {
                self.on_keyframe_request(now, key);
            }
            RtcpPacket::Fir(fir) => {
                let viewer = &self.streams[session.stream].viewers[index];
                let entry = fir.entries().find(|entry| viewer.kind_of(entry.ssrc) == Some(MediaKind::Video));
                // The same number again is the same request again (RTCP-12).
                if let Some(entry) = entry
                    && session.fir_sequence.replace(entry.sequence_number) != Some(entry.sequence_number)
                {
                    self.on_keyframe_request(now, key);
                }
            }
            RtcpPacket::TransportFeedback(feedback) => {
                let stream = &mut self.streams[session.stream];
                let media = stream.bitrate();
                stream.viewers[index].congestion.on_feedback(now, feedback, media);
            }
            RtcpPacket::Remb(remb) => {
                let stream = &mut self.streams[session.stream];
                let media = stream.bitrate();
                stream.viewers[index].congestion.on_remb(now, remb.bitrate, media);
            }
            RtcpPacket::Nack(nack) => {
                let stream = &mut self.streams[session.stream];
                let viewer = &mut stream.viewers[index];
                let Some(kind) = viewer.kind_of(nack.media_ssrc) else { return };
                let track = &stream.tracks[kind.index()];
                let mut beyond_repair = false;
                for sequence_number in nack.sequence_numbers().take(MAX_RESENDS) {
                    self.counters.nacks_received += 1;
                    if self.outbox.room() < PACKET_ROOM {
                        send(&self.socket, &mut self.outbox, &mut self.counters);
                    }
                    match viewer.resend(now, kind, sequence_number, track, &mut self.outbox) {
                        Resent::Yes => {
                            self.counters.rtp_retransmitted += 1;
                            session.stats.retransmitted += 1;
                        }
                        Resent::No => {}
                        Resent::BeyondRepair => beyond_repair = true,
                    }
                }
                if beyond_repair {
                    self.on_keyframe_wish(now, key);
                }
            }
            _ => {}
        }
    }

    /// A viewer asks for a keyframe.
    fn on_keyframe_request(&mut self, now: Instant, key: usize) {
        self.counters.keyframe_requests_received += 1;
        self.sessions[key].stats.keyframe_requests += 1;
        self.on_keyframe_wish(now, key);
    }

    /// A viewer cannot decode without a keyframe. One that wishes without end is not heard each time; where the publisher
    /// takes no requests or ignores them, the viewer begins anew with the last keyframe (RTCP-11, RTCP-22), and so does
    /// one that lost its start.
    fn on_keyframe_wish(&mut self, now: Instant, key: usize) {
        let session = &mut self.sessions[key];
        if !session.keyframe_wishes.take(now) {
            return;
        }
        let (stream_key, viewer) = (session.stream, session.viewer);
        let stream = &mut self.streams[stream_key];
        let track = &stream.tracks[MediaKind::Video.index()];
        let ignored = stream.keyframes.is_ignored();
        if let Some(outgoing) =
            viewer.and_then(|index| stream.viewers[index].outgoing[MediaKind::Video.index()].as_mut())
            && (ignored || outgoing.is_starting(now))
            && outgoing.restart(now, track)
        {
            self.enqueue(now, stream_key);
            return;
        }
        self.counters.keyframes_unavailable += u64::from(ignored);
        self.want_keyframe(now, stream_key);
    }

    fn on_report_blocks(&mut self, now: Instant, key: usize, blocks: impl Iterator<Item = ReportBlock>) {
        let session = &mut self.sessions[key];
        let Some(index) = session.viewer else { return };
        let stream = &mut self.streams[session.stream];
        let media = stream.bitrate();
        let viewer = &mut stream.viewers[index];
        let ntp_now = NtpTime::from_unix(self.wall.unix(now));
        let (mut lost, mut packets) = (0.0, 0);
        for block in blocks {
            let Some(kind) = viewer.kind_of(block.ssrc) else { continue };
            let Some(outgoing) = viewer.outgoing[kind.index()].as_mut() else { continue };
            if !outgoing.has_sent() {
                continue;
            }
            outgoing.on_receipt();
            session.transport.on_receipt(now);
            let fraction = f64::from(block.fraction_lost) / 256.0;
            lost += fraction * outgoing.packets as f64;
            packets += outgoing.packets;
            session.stats.reported_loss = Some(fraction);
            if let Some(round_trip) = round_trip_time(ntp_now, block.last_sr, block.delay_since_last_sr) {
                session.stats.round_trip_time = Some(round_trip.as_secs_f64());
                viewer.round_trip_time = Some(round_trip);
            }
        }
        if packets > 0 {
            let round_trip = viewer.round_trip_time;
            viewer.congestion.on_receiver_report(now, lost / packets as f64, round_trip, media);
        }
    }

    /// NACKs, transport-wide feedback, keyframe requests and receiver reports to the publishers of this shard.
    pub(super) fn tick_publishers(&mut self, now: Instant) {
        for index in 0..self.publishing.len() {
            let key = self.publishing[index];
            self.tick_publisher(now, key);
            self.request_keyframe(now, key);
        }
    }

    fn tick_publisher(&mut self, now: Instant, key: usize) {
        let stream = &mut self.streams[key];
        let Some((session_key, publication)) = &mut stream.publisher else { return };
        let session = &mut self.sessions[*session_key];
        for kind in [MediaKind::Audio, MediaKind::Video] {
            if let Some(payload_type) = session.new_formats[kind.index()].take() {
                // Control has stopped listening only when the server ends.
                let _ = self.events.send(CoreEvent::FormatInUse { session: session.id, kind, payload_type });
            }
        }
        let (Some(path), Some(sender)) = (session.path, &mut session.sender) else { return };
        stream.clocks = [MediaKind::Audio, MediaKind::Video].map(|kind| publication.clock_point(kind));
        let report_in_front = (!session.reduced_size_rtcp).then_some(&*session.cname);
        let mut outlet = Outlet { path, sender, socket: &self.socket, outbox: &mut self.outbox, report_in_front };
        let counters = &mut self.counters;
        if now >= session.next_report {
            session.next_report = now + REPORT_INTERVAL;
            let mut blocks = [None; 2];
            let mut count = 0;
            publication.report_blocks(now, |block| {
                blocks[count] = Some(block);
                count += 1;
            });
            let ntp = publication.wants_round_trip().then(|| NtpTime::from_unix(self.wall.unix(now)));
            outlet.write(counters, |writer| {
                // Two blocks, a CNAME and a time always fit.
                let _ = match blocks {
                    [Some(first), Some(second)] => writer.receiver_report(FEEDBACK_SSRC, &[first, second]),
                    [Some(only), None] => writer.receiver_report(FEEDBACK_SSRC, &[only]),
                    _ => writer.receiver_report(FEEDBACK_SSRC, &[]),
                };
                let _ = writer.sdes_cname(FEEDBACK_SSRC, &session.cname);
                // Not negotiated: libwebrtc answers to everybody, and who does not know it passes over it (RFC 3550 §6.1).
                let _ = ntp.map(|ntp| writer.receiver_reference_time(FEEDBACK_SSRC, ntp));
            });
            session.stats.round_trip_time = publication.round_trip_time().map(|time| time.as_secs_f64());
            let lost = publication.packets_lost();
            // A packet that was only late has been counted by now: the next loss is the one that it was taken for.
            counters.rtp_lost += u64::try_from(lost - session.lost_counted).unwrap_or(0);
            session.lost_counted = session.lost_counted.max(lost);
            session.stats.packets_lost = lost;
            session.stats.b_frames = publication.has_b_frames();
        }
        let keyframe = publication.poll_nack(now, |ssrc, mut sequence_numbers| {
            while !sequence_numbers.is_empty() {
                let mut taken = 0;
                outlet.feedback(counters, |writer| taken = writer.nack(FEEDBACK_SSRC, ssrc, sequence_numbers));
                counters.nacks_sent += taken as u64;
                // An empty datagram takes at least one.
                sequence_numbers = &sequence_numbers[taken.max(1)..];
            }
        });
        if keyframe {
            stream.keyframes.want();
        }
        publication.poll_arrivals(now, |media_ssrc, mut packets| {
            while !packets.is_empty() {
                let mut taken = 0;
                outlet.feedback(counters, |writer| {
                    let before = writer.len();
                    let fields = FeedbackFields {
                        sender_ssrc: FEEDBACK_SSRC,
                        media_ssrc,
                        feedback_count: session.feedback_count,
                    };
                    taken = writer.transport_feedback(&fields, packets).unwrap_or(packets.len());
                    session.feedback_count = session.feedback_count.wrapping_add(u8::from(writer.len() > before));
                });
                packets = &packets[taken.max(1)..];
            }
        });
        if let Some((estimate, sources)) = publication.poll_estimate(now) {
            outlet.feedback(counters, |writer| {
                // A publisher's few sources always fit.
                let _ = writer.remb(FEEDBACK_SSRC, estimate, &sources);
            });
        }
    }

    /// Asks the publisher for a keyframe, if somebody wants one and it is time to ask.
    pub(super) fn request_keyframe(&mut self, now: Instant, key: usize) {
        let stream = &mut self.streams[key];
        let Some((session_key, publication)) = &stream.publisher else { return };
        let Some(request) = publication.keyframe_request() else { return };
        let session = &mut self.sessions[*session_key];
        let (Some(path), Some(sender)) = (session.path, &mut session.sender) else { return };
        if !stream.keyframes.poll(now, stream.tracks[MediaKind::Video.index()].bytes()) {
            return;
        }
        let report_in_front = (!session.reduced_size_rtcp).then_some(&*session.cname);
        let mut outlet = Outlet { path, sender, socket: &self.socket, outbox: &mut self.outbox, report_in_front };
        outlet.feedback(&mut self.counters, |writer| {
            // One short message always fits.
            let _ = match request {
                KeyframeRequest::Pli { ssrc } => writer.pli(FEEDBACK_SSRC, ssrc),
                KeyframeRequest::Fir { ssrc } => {
                    let sequence_number = session.fir_sequence.map_or(0, |last| last.wrapping_add(1));
                    session.fir_sequence = Some(sequence_number);
                    writer.fir(FEEDBACK_SSRC, FirEntry { ssrc, sequence_number })
                }
            };
        });
        session.stats.keyframe_requests += 1;
        self.counters.keyframe_requests_sent += 1;
    }

    /// Sender reports to the viewers of this shard (RTCP-04).
    pub(super) fn tick_viewers(&mut self, now: Instant) {
        let unix = self.wall.unix(now);
        for (key, stream) in &mut self.streams {
            stream.tracks.iter_mut().for_each(|track| track.measure(now));
            let media = stream.bitrate();
            let mut probes = false;
            for viewer in &mut stream.viewers {
                let can_pad = viewer.can_pad();
                probes |= viewer.congestion.poll(now, media, can_pad);
                let video = viewer.outgoing[MediaKind::Video.index()].as_ref();
                // The keyframe that it waited for may have been lost on the way.
                if video.is_some_and(Outgoing::lacks_keyframe)
                    && !self.wishes.contains(&stream.id)
                    && self.sessions[viewer.session].keyframe_wishes.take(now)
                {
                    self.wishes.push(stream.id);
                }
                if now < viewer.next_report {
                    continue;
                }
                let Session { cname, reference_times, .. } = &mut self.sessions[viewer.session];
                let mut outlet = Outlet {
                    path: viewer.path,
                    sender: &mut viewer.sender,
                    socket: &self.socket,
                    outbox: &mut self.outbox,
                    report_in_front: None,
                };
                for outgoing in viewer.outgoing.iter().flatten() {
                    let Some(clock) = stream.clocks[outgoing.kind.index()] else { continue };
                    let Some(info) = outgoing.sender_report(unix, clock) else { continue };
                    viewer.next_report = now + REPORT_INTERVAL;
                    outlet.write(&mut self.counters, |writer| {
                        // A report, a CNAME and two answers always fit.
                        let _ = writer.sender_report(outgoing.ssrc, &info, &[]);
                        let _ = writer.sdes_cname(outgoing.ssrc, cname);
                        for asked in reference_times.iter_mut().filter_map(Option::take) {
                            let delay = DelaySinceLastReceiverReport {
                                ssrc: asked.ssrc,
                                last_rr: asked.time,
                                delay_since_last_rr: compact_duration(now.saturating_duration_since(asked.came)),
                            };
                            let _ = writer.delay_since_last_receiver_report(outgoing.ssrc, &delay);
                        }
                    });
                }
            }
            if probes {
                self.behind.push(key);
            }
        }
    }
}

/// The way of RTCP to one peer.
struct Outlet<'a> {
    path: TransportTuple,
    sender: &'a mut SrtpSender,
    socket: &'a MediaSocket,
    outbox: &'a mut SendBatch,
    /// The CNAME, if the peer takes no feedback without a report in front (RFC 3550 §6.1, RFC 5506).
    report_in_front: Option<&'a str>,
}

impl Outlet<'_> {
    /// Writes one datagram of feedback messages.
    fn feedback(&mut self, counters: &mut ShardCounters, fill: impl FnOnce(&mut RtcpWriter<'_>)) {
        let report_in_front = self.report_in_front;
        self.write(counters, |writer| {
            if let Some(cname) = report_in_front {
                // Both fit into an empty datagram.
                let _ = writer.receiver_report(FEEDBACK_SSRC, &[]);
                let _ = writer.sdes_cname(FEEDBACK_SSRC, cname);
            }
            fill(writer);
        });
    }

    /// Writes one datagram and encrypts it; an empty one is not sent.
    fn write(&mut self, counters: &mut ShardCounters, fill: impl FnOnce(&mut RtcpWriter<'_>)) {
        if self.outbox.room() < PACKET_ROOM {
            send(self.socket, self.outbox, counters);
        }
        let spare = self.outbox.spare();
        let mut writer = RtcpWriter::new(spare);
        fill(&mut writer);
        let length = writer.len();
        if length == 0 {
            return;
        }
        match self.sender.protect_rtcp(spare, length) {
            Ok(length) => self.outbox.commit(self.path, length),
            Err(_) => counters.send_dropped += 1,
        }
    }
}
