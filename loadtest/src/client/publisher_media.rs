//! What a publisher sends once it is connected, and what it does with the feedback.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media_core::internals::rtcp::{
    MAX_RTCP_LEN, NtpTime, ReportBlock, RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo,
};

use super::encoder::Encoder;
use super::figures::PublisherFigures;
use super::inbound::{MediaHandler, PacketSender};
use super::publisher_options::PublisherOptions;
use super::rtp_sender::RtpSender;
use crate::sdp::Imitation;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// One track of a publisher.
pub(super) struct Track {
    pub(super) encoder: Encoder,
    pub(super) sender: RtpSender,
}

/// What whoever runs a publisher can change.
pub(super) struct Controls {
    pub(super) keyframes: AtomicBool,
    pub(super) paused: AtomicBool,
    pub(super) profile: AtomicU32,
}

/// What a publisher does with its connection.
pub(super) struct PublisherMedia {
    tracks: Vec<Track>,
    media: PublisherOptions,
    begun: Instant,
    /// When the first frames were due.
    connected: Instant,
    next_report: Instant,
    reported: bool,
    controls: Arc<Controls>,
    figures: Arc<Mutex<PublisherFigures>>,
}

impl PublisherMedia {
    /// Nothing was sent yet; the publisher's time begins at `begun`.
    pub(super) fn new(
        begun: Instant,
        tracks: Vec<Track>,
        media: PublisherOptions,
        controls: Arc<Controls>,
        figures: Arc<Mutex<PublisherFigures>>,
    ) -> PublisherMedia {
        PublisherMedia {
            tracks,
            media,
            begun,
            connected: begun,
            next_report: begun,
            reported: false,
            controls,
            figures,
        }
    }

    /// The end of the present stall of the uplink.
    fn stalled_until(&self, now: Instant) -> Option<Instant> {
        self.media.faults.stalled_until(now.saturating_duration_since(self.connected)).map(|end| self.connected + end)
    }

    /// A keyframe of the encoding whose SSRC is asked; of all tracks where there is one encoding, whichever SSRC a server names.
    fn request_keyframe(&mut self, now: Instant, ssrc: u32) {
        if self.media.imitates != Imitation::Browser {
            return;
        }
        let of_all = !self.media.has_layers();
        for track in self.tracks.iter_mut().filter(|track| of_all || track.sender.ssrc() == ssrc) {
            track.encoder.request_keyframe(now);
        }
    }

    fn note_reports(&mut self, blocks: impl Iterator<Item = ReportBlock>) {
        for block in blocks {
            let track = self.tracks.iter_mut().find(|track| track.sender.ssrc() == block.ssrc);
            track.into_iter().for_each(|track| track.sender.note_report());
        }
    }

    fn report(&mut self, out: &mut PacketSender) {
        let mut buffer = [0; MAX_RTCP_LEN];
        let useless = self.media.imitates == Imitation::Obs && !std::mem::replace(&mut self.reported, true);
        for track in &self.tracks {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let (packet_count, octet_count) = track.sender.sent();
            let mut info = SenderInfo {
                ntp: NtpTime::from_unix(since_epoch),
                rtp_timestamp: track.encoder.timestamp(),
                packet_count,
                octet_count,
            };
            if useless {
                info = SenderInfo { rtp_timestamp: u32::MAX, packet_count: 0, octet_count: 0, ..info };
            }
            let mut writer = RtcpWriter::new(&mut buffer);
            let ssrc = track.sender.ssrc();
            if writer.sender_report(ssrc, &info, &[]).and_then(|()| writer.sdes_cname(ssrc, "loadtest")).is_ok() {
                out.rtcp(writer.as_bytes());
            }
        }
    }
}

impl MediaHandler for PublisherMedia {
    fn connected(&mut self, now: Instant) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).connected =
            Some(now.duration_since(self.begun).as_secs_f64());
        for track in &mut self.tracks {
            track.encoder.start(now);
        }
        self.connected = now;
        self.next_report = now + REPORT_INTERVAL / 4;
    }

    fn rtp(&mut self, _: Instant, _: &mut [u8]) {}

    fn rtcp(&mut self, now: Instant, packet: &[u8], out: &mut PacketSender) {
        let figures = Arc::clone(&self.figures);
        let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        for message in RtcpPackets::new(packet).flatten() {
            match message {
                RtcpPacket::Pli(pli) => {
                    figures.keyframe_requests += 1;
                    self.request_keyframe(now, pli.media_ssrc);
                }
                RtcpPacket::Fir(fir) => {
                    figures.keyframe_requests += 1;
                    fir.entries().for_each(|entry| self.request_keyframe(now, entry.ssrc));
                }
                RtcpPacket::ReceiverReport(report) => self.note_reports(report.blocks()),
                RtcpPacket::SenderReport(report) => self.note_reports(report.blocks()),
                RtcpPacket::Nack(nack) if self.media.imitates != Imitation::Ffmpeg => {
                    let track = self.tracks.iter_mut().find(|track| track.sender.ssrc() == nack.media_ssrc);
                    if let Some(track) = track {
                        let resent =
                            nack.sequence_numbers().filter(|&number| track.sender.retransmit(number, out)).count();
                        figures.resent += resent as u64;
                    }
                }
                _ => {}
            }
        }
    }

    fn refused(&mut self, _: u32) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).refused += 1;
    }

    fn tick(&mut self, now: Instant, out: &mut PacketSender) {
        let figures = Arc::clone(&self.figures);
        let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        self.media.keyframes = self.controls.keyframes.load(Ordering::Relaxed);
        let stalled_until = self.stalled_until(now);
        let paused = self.controls.paused.load(Ordering::Relaxed);
        let profile = self.controls.profile.load(Ordering::Relaxed);
        let changes = std::mem::replace(&mut self.media.profile, profile) != profile;
        for track in &mut self.tracks {
            if changes {
                track.encoder.set_profile(now, profile);
            }
            if paused {
                track.encoder.skip(now);
            }
            let Track { encoder, sender } = track;
            encoder.produce(now, &self.media, &mut figures, |payload| sender.push(payload));
            match stalled_until {
                Some(end) => sender.wait_until(end),
                None => sender.send(now, out, &mut figures),
            }
        }
        drop(figures);
        if stalled_until.is_some() {
            self.next_report = self.next_report.max(now + REPORT_INTERVAL / 10);
        } else if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.report(out);
        }
    }

    fn deadline(&self) -> Instant {
        let frames = self.tracks.iter().map(|track| track.encoder.deadline());
        let bursts = self.tracks.iter().filter_map(|track| track.sender.deadline());
        frames.chain(bursts).fold(self.next_report, Instant::min)
    }
}
