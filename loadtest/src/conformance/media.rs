//! Media of a publisher whose every packet is at hand.

use std::time::{Duration, Instant};

use media_core::internals::rtp::packet::{HeaderFields, write_header};
use media_core::media::Codec;

use super::case::Session;
use super::link::{Event, Link};
use super::row::Miss;
use crate::media::frames::Packetizer;
use crate::sdp::Ssrcs;

/// One video frame, and two packets of audio for two of them.
const INTERVAL: Duration = Duration::from_millis(40);
const VIDEO_TICKS: u32 = 3600;
const AUDIO_TICKS: u32 = 960;
/// Sequence number of the first packets.
const FIRST: u16 = 1000;
const FRAME: usize = 1500;
/// Every so many frames one is a keyframe.
const GOP: u32 = 25;

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

/// One track.
struct Track {
    ssrc: u32,
    payload_type: u8,
    mid: Option<(u8, String)>,
    transport_cc: Option<u8>,
    sequence: u16,
    timestamp: u32,
    packetizer: Packetizer,
}

/// Opus and VP8 as the answer took them.
pub(super) struct Media {
    audio: Option<Track>,
    video: Option<Track>,
    frames: u32,
    next: Instant,
    transport_sequence: u16,
    /// Video packets with these ordinal numbers are left out.
    pub(super) lose: Vec<u32>,
    video_packets: u32,
    /// Sequence numbers that were left out.
    pub(super) lost: Vec<u16>,
}

impl Media {
    pub(super) fn new(session: &Session) -> Result<Media, Miss> {
        Media::starting_at(session, FIRST)
    }

    /// With this sequence number first.
    pub(super) fn starting_at(session: &Session, sequence: u16) -> Result<Media, Miss> {
        let track = |medium: &str, name: &str, ssrcs: Ssrcs, codec: Codec| {
            let section = session.answer.medium(medium)?;
            let payload_type = section.format_of(name)?.parse().ok()?;
            Some(Track {
                ssrc: ssrcs.media,
                payload_type,
                mid: section.extension(MID).map(|id| (id, section.mid().to_owned())),
                transport_cc: section.extension(TRANSPORT_CC),
                sequence,
                timestamp: 90_000,
                packetizer: Packetizer::new(codec, 1000),
            })
        };
        let [audio, video] = session.offered.ssrcs;
        let (audio, video) = (track("audio", "opus", audio, Codec::Opus), track("video", "VP8", video, Codec::Vp8));
        if audio.is_none() && video.is_none() {
            return Err(Miss::Skip("the answer takes neither Opus nor VP8".into()));
        }
        Ok(Media {
            audio,
            video,
            frames: 0,
            next: Instant::now(),
            transport_sequence: 0,
            lose: Vec::new(),
            video_packets: 0,
            lost: Vec::new(),
        })
    }

    /// Sends for so long, and gives what came back meanwhile to `seen`, until that has enough.
    pub(super) async fn run(&mut self, link: &mut Link, within: Duration, mut seen: impl FnMut(Event) -> bool) -> bool {
        let end = Instant::now() + within;
        loop {
            let now = Instant::now();
            if now >= end {
                return false;
            }
            if now >= self.next {
                self.next = now + INTERVAL;
                for packet in self.next_packets() {
                    link.send_protected(&packet, false).await;
                }
            }
            while let Some(event) = link.next(self.next.min(end)).await {
                if seen(event) {
                    return true;
                }
            }
        }
    }

    /// The packets of one interval.
    pub(super) fn next_packets(&mut self) -> Vec<Vec<u8>> {
        let keyframe = self.frames.is_multiple_of(GOP);
        self.frames += 1;
        let mut packets = Vec::new();
        if let Some(track) = &mut self.video {
            track.timestamp = track.timestamp.wrapping_add(VIDEO_TICKS);
            let payloads = track.packetizer.frame(keyframe, FRAME);
            let last = payloads.len() - 1;
            for (index, payload) in payloads.iter().enumerate() {
                let packet = track.packet(&payload.bytes, index == last, &mut self.transport_sequence);
                if self.lose.contains(&self.video_packets) {
                    self.lost.push(track.sequence.wrapping_sub(1));
                } else {
                    packets.push(packet);
                }
                self.video_packets += 1;
            }
        }
        if let Some(track) = &mut self.audio {
            for _ in 0..2 {
                track.timestamp = track.timestamp.wrapping_add(AUDIO_TICKS);
                for payload in track.packetizer.frame(false, 160) {
                    packets.push(track.packet(&payload.bytes, false, &mut self.transport_sequence));
                }
            }
        }
        packets
    }
}

impl Track {
    fn packet(&mut self, payload: &[u8], marker: bool, transport_sequence: &mut u16) -> Vec<u8> {
        let fields = HeaderFields {
            marker,
            padding: false,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let number = transport_sequence.to_be_bytes();
        *transport_sequence = transport_sequence.wrapping_add(1);
        let mid = self.mid.as_ref().map(|(id, mid)| (*id, mid.as_bytes()));
        let extensions = [mid, self.transport_cc.map(|id| (id, &number[..]))].into_iter().flatten();
        let mut packet = vec![0; 64];
        // Two short elements always fit.
        let length = write_header(&mut packet, &fields, extensions).unwrap_or_default();
        packet.truncate(length);
        packet.extend_from_slice(payload);
        packet
    }
}
