//! RTCP to a peer: reports and feedback to a publisher, sender reports to a viewer.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::ecn::Ecn;
use crate::egress::PACKET_ROOM;
use crate::ingest::Ingest;
use crate::media::TrackId;
use crate::net::{Outbound, TrafficClass, TransportTuple};
use crate::rtcp::ccfb::CcfbFields;
use crate::rtcp::fir::FirEntry;
use crate::rtcp::ntp::compact_duration;
use crate::rtcp::transport_feedback::FeedbackFields;
use crate::rtcp::{DelaySinceLastReceiverReport, MAX_REPORT_BLOCKS, NtpTime, ReportBlock, RtcpWriter};
use crate::srtp::SrtpSender;
use crate::stats::{SessionStats, ShardCounters};
use crate::stream::KeyframeRequest;

use super::rtcp_in::RtcpContext;
use super::{Media, Publisher, Session};

/// Receiver and sender reports are sent this often (RTCP-03).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The server's own SSRC in RTCP towards publishers: it sends no media, and nothing refers to it.
pub(super) const FEEDBACK_SSRC: u32 = 1;

/// What is remembered of the RTCP to a publisher.
pub(super) struct PublisherReports {
    /// When the next receiver report is due.
    next: Instant,
    /// Sequence number of the last FIR (RFC 5104 §4.3.1.1).
    fir_sequence: Option<u8>,
    /// Number of the next transport-wide feedback message.
    feedback_count: u8,
    /// Losses of this publisher that the shard's counter has.
    lost_counted: i64,
}

impl PublisherReports {
    pub(super) fn new(now: Instant) -> PublisherReports {
        PublisherReports { next: now, fir_sequence: None, feedback_count: 0, lost_counted: 0 }
    }
}

impl Session {
    /// Sends a publisher what is due: receiver reports, NACKs, congestion feedback. Encodings that need a keyframe,
    /// as they lost packets beyond repair.
    pub(crate) fn send_feedback(&mut self, context: &mut RtcpContext<'_>) -> SmallVec<[(TrackId, u8); 2]> {
        let (Media::Publisher(publisher), Some(tuple)) = (&mut self.media, self.selected) else {
            return SmallVec::new();
        };
        let Publisher { ingest, srtp, reports } = &mut **publisher;
        let cname = &*self.negotiated.cname;
        let leading_report = (!self.negotiated.reduced_size_rtcp).then_some(cname);
        let mut rtcp =
            RtcpSender { tuple, srtp, out: &mut *context.out, counters: &mut *context.counters, leading_report };
        if context.now >= reports.next {
            reports.next = context.now + REPORT_INTERVAL;
            let mut blocks = SmallVec::<[_; 8]>::new();
            ingest.report_blocks(context.now, |block| blocks.push(block));
            let ntp = ingest.wants_round_trip().then(|| NtpTime::from_unix(context.unix));
            rtcp.receiver_reports(&blocks, cname, ntp);
            reports.count(ingest, &mut self.stats, rtcp.counters);
        }
        rtcp.nack(context.now, ingest);
        rtcp.congestion_feedback((context.now, context.unix), ingest, &mut reports.feedback_count);
        ingest.take_keyframes_needed().collect()
    }

    /// Asks a publisher for a keyframe.
    pub(crate) fn request_keyframe(&mut self, request: KeyframeRequest, context: &mut RtcpContext<'_>) {
        let (Media::Publisher(publisher), Some(tuple)) = (&mut self.media, self.selected) else { return };
        let Publisher { srtp, reports, .. } = &mut **publisher;
        let leading_report = (!self.negotiated.reduced_size_rtcp).then_some(&*self.negotiated.cname);
        let mut rtcp =
            RtcpSender { tuple, srtp, out: &mut *context.out, counters: &mut *context.counters, leading_report };
        rtcp.feedback(|writer| {
            // One short message always fits.
            let _ = match request {
                KeyframeRequest::Pli { ssrc } => writer.pli(FEEDBACK_SSRC, ssrc),
                KeyframeRequest::Fir { ssrc } => {
                    let sequence_number = reports.fir_sequence.map_or(0, |last| last.wrapping_add(1));
                    reports.fir_sequence = Some(sequence_number);
                    writer.fir(FEEDBACK_SSRC, FirEntry { ssrc, sequence_number })
                }
            };
        });
        self.stats.keyframe_requests += 1;
        context.counters.keyframe_requests_sent += 1;
    }

    /// Sends a viewer the sender reports that are due (RTCP-04).
    pub(crate) fn send_sender_reports(&mut self, context: &mut RtcpContext<'_>) {
        let (Media::Viewer(watching), Some(tuple)) = (&mut self.media, self.selected) else { return };
        if context.now < watching.next_report {
            return;
        }
        let dscp = watching.viewer.dscp();
        let (srtp, tracks) = watching.viewer.srtp_and_tracks();
        let mut rtcp =
            RtcpSender { tuple, srtp, out: &mut *context.out, counters: &mut *context.counters, leading_report: None };
        for track in tracks {
            let Some(clock) = context.tracks.get(track.id()).and_then(|track| track.clock) else { continue };
            let Some(info) = track.sender_info(context.unix, clock) else { continue };
            watching.next_report = context.now + REPORT_INTERVAL;
            let ssrc = track.ssrc();
            // As the media that the report is about (RFC 8837 §5).
            let class = TrafficClass::new(dscp.of(track.id().kind), Ecn::NotEct);
            rtcp.write(class, |writer| {
                // A report, a CNAME and two answers always fit.
                let _ = writer.sender_report(ssrc, &info, &[]);
                let _ = writer.sdes_cname(ssrc, &self.negotiated.cname);
                for asked in watching.reference_times.take() {
                    let since = context.now.saturating_duration_since(asked.received);
                    let delay = DelaySinceLastReceiverReport {
                        ssrc: asked.ssrc,
                        last_rr: asked.time,
                        delay_since_last_rr: compact_duration(since),
                    };
                    let _ = writer.delay_since_last_receiver_report(ssrc, &delay);
                }
            });
        }
    }
}

impl PublisherReports {
    /// Brings the figures of a publisher up to date.
    fn count(&mut self, ingest: &Ingest, stats: &mut SessionStats, counters: &mut ShardCounters) {
        stats.round_trip_time = ingest.round_trip_time().map(|time| time.as_secs_f64());
        let lost = ingest.packets_lost();
        // A packet that was only late has been counted by now: the next loss is the one that it was taken for.
        counters.rtp_lost += u64::try_from(lost - self.lost_counted).unwrap_or(0);
        self.lost_counted = self.lost_counted.max(lost);
        stats.packets_lost = lost;
        stats.b_frames = ingest.has_b_frames();
    }
}

/// Writes RTCP to one peer.
struct RtcpSender<'a> {
    tuple: TransportTuple,
    srtp: &'a mut SrtpSender,
    out: &'a mut Outbound,
    counters: &'a mut ShardCounters,
    /// The CNAME, if the peer takes no feedback without a report in front (RFC 3550 §6.1, RFC 5506).
    leading_report: Option<&'a str>,
}

impl RtcpSender<'_> {
    /// Writes receiver reports with these blocks, as many datagrams as they take (RFC 3550 §6.1); one without blocks tells that the
    /// server is there. The first one carries the time to which the peer is to answer.
    fn receiver_reports(&mut self, blocks: &[ReportBlock], cname: &str, mut ntp: Option<NtpTime>) {
        let mut rest = blocks;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_REPORT_BLOCKS));
            self.write(TrafficClass::DEFAULT, |writer| {
                // So many blocks, a CNAME and a time always fit.
                let _ = writer.receiver_report(FEEDBACK_SSRC, now);
                let _ = writer.sdes_cname(FEEDBACK_SSRC, cname);
                // Not negotiated: libwebrtc answers to everybody, and who does not know it passes over it (RFC 3550 §6.1).
                let _ = ntp.take().map(|ntp| writer.receiver_reference_time(FEEDBACK_SSRC, ntp));
            });
            if later.is_empty() {
                return;
            }
            rest = later;
        }
    }

    fn nack(&mut self, now: Instant, ingest: &mut Ingest) {
        ingest.poll_nack(now, |ssrc, mut sequence_numbers| {
            while !sequence_numbers.is_empty() {
                let mut taken = 0;
                self.feedback(|writer| taken = writer.nack(FEEDBACK_SSRC, ssrc, sequence_numbers));
                self.counters.nacks_sent += taken as u64;
                // An empty datagram takes at least one.
                sequence_numbers = &sequence_numbers[taken.max(1)..];
            }
        });
    }

    /// Congestion control feedback, transport-wide feedback or REMB, whichever was negotiated.
    fn congestion_feedback(&mut self, (now, unix): (Instant, Duration), ingest: &mut Ingest, feedback_count: &mut u8) {
        ingest.poll_ccfb(now, |micros, streams| {
            let report_timestamp = NtpTime::from_unix(unix).compact();
            let fields = CcfbFields { sender_ssrc: FEEDBACK_SSRC, report_timestamp, now: micros };
            while streams.iter().any(|stream| !stream.packets.is_empty()) {
                let mut written = Ok(());
                self.feedback(|writer| written = writer.congestion_control_feedback(&fields, streams));
                if written.is_err() {
                    return;
                }
            }
        });
        ingest.poll_arrivals(now, |media_ssrc, mut packets| {
            while !packets.is_empty() {
                let mut taken = 0;
                self.feedback(|writer| {
                    let before = writer.len();
                    let fields =
                        FeedbackFields { sender_ssrc: FEEDBACK_SSRC, media_ssrc, feedback_count: *feedback_count };
                    taken = writer.transport_feedback(&fields, packets).unwrap_or(packets.len());
                    *feedback_count = feedback_count.wrapping_add(u8::from(writer.len() > before));
                });
                packets = &packets[taken.max(1)..];
            }
        });
        if let Some((estimate, sources)) = ingest.poll_estimate(now) {
            self.feedback(|writer| {
                // A publisher's few sources always fit.
                let _ = writer.remb(FEEDBACK_SSRC, estimate, &sources);
            });
        }
    }

    /// Writes one datagram of feedback messages.
    fn feedback(&mut self, fill: impl FnOnce(&mut RtcpWriter<'_>)) {
        let leading_report = self.leading_report;
        self.write(TrafficClass::DEFAULT, |writer| {
            if let Some(cname) = leading_report {
                // Both fit into an empty datagram.
                let _ = writer.receiver_report(FEEDBACK_SSRC, &[]);
                let _ = writer.sdes_cname(FEEDBACK_SSRC, cname);
            }
            fill(writer);
        });
    }

    /// Writes one datagram and encrypts it; an empty one is not sent.
    fn write(&mut self, class: TrafficClass, fill: impl FnOnce(&mut RtcpWriter<'_>)) {
        let room = self.out.reserve(PACKET_ROOM);
        let mut writer = RtcpWriter::new(room);
        fill(&mut writer);
        let length = writer.len();
        if length == 0 {
            return;
        }
        match self.srtp.protect_rtcp(room, length) {
            Ok(length) => self.out.commit_marked(self.tuple, length, class),
            Err(_) => self.counters.send_dropped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};
    use crate::spec::DtlsRole;
    use crate::srtp::{KeyingMaterial, SrtpProfile};

    // RTCP-03: a publisher with more encodings than one report has room for.
    #[test]
    fn every_block_is_reported_however_many_there_are() {
        let profile = SrtpProfile::AeadAes128Gcm;
        let contexts = |role| KeyingMaterial::new(profile, &[7; 56]).unwrap().contexts(role).unwrap();
        let (_, mut srtp) = contexts(DtlsRole::Server);
        let (mut receiver, _) = contexts(DtlsRole::Client);
        for (count, datagrams) in [(0, 1), (1, 1), (31, 1), (32, 2), (62, 2), (124, 4)] {
            let (mut out, mut counters) = (Outbound::disconnected(), ShardCounters::default());
            let tuple = TransportTuple::udp("192.0.2.1:9".parse().unwrap(), None);
            let mut sender =
                RtcpSender { tuple, srtp: &mut srtp, out: &mut out, counters: &mut counters, leading_report: None };
            let blocks: Vec<_> = (0..count).map(|ssrc| ReportBlock { ssrc, ..ReportBlock::default() }).collect();
            sender.receiver_reports(&blocks, "c", Some(NtpTime::from_unix(Duration::from_secs(1))));
            let (mut reported, mut times, mut names) = (Vec::new(), 0, 0);
            for datagram in out.batch().datagrams() {
                assert!(datagram.len() < 1_200);
                let mut datagram = datagram.to_vec();
                let sealed = datagram.len();
                datagram.resize(PACKET_ROOM, 0);
                let length = receiver.unprotect_rtcp(&mut datagram, sealed).unwrap();
                for packet in RtcpPackets::new(&datagram[..length]) {
                    match packet.unwrap() {
                        RtcpPacket::ReceiverReport(report) => reported.extend(report.blocks()),
                        RtcpPacket::Sdes(_) => names += 1,
                        _ => times += 1,
                    }
                }
            }
            assert_eq!(reported, blocks);
            assert_eq!((out.batch().datagrams().count(), names, times), (datagrams, datagrams, 1));
        }
    }
}
