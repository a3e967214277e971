//! A WHIP client that sends synthetic media.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media_core::ice::random_credentials;
use media_core::media::{Codec, MediaKind};
use media_core::rtcp::{MAX_RTCP_LEN, NtpTime, RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo};
use media_core::rtp::packet::{HeaderFields, RtpHeader, write_header};
use media_core::rtp::rtx;

use super::flow::{Flow, Media, Outgoing};
use super::running::{Agreed, Running};
use super::{ClientError, ClientOptions, Endpoint, Identity, PublisherFigures, PublisherOptions};
use crate::clock;
use crate::frames::{Packetizer, Payload};
use crate::sdp::{AnsweredSection, Imitation, Offer, OfferedSection, PayloadTypes, Ssrcs};
use crate::stamp::{Content, STAMP_LEN, Stamp, stream_number};

/// Sent packets that a NACK can still get.
const HISTORY: usize = 1024;
/// Packets of a frame that leave at once; the rest follows every [`PACE`].
const BURST: usize = 16;
const PACE: Duration = Duration::from_millis(1);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A frame that leaves later than this after its time is late: whoever measures latency should know.
const LATE: Duration = Duration::from_millis(10);
/// What an encoder makes of an interframe while it saves the bytes of keyframes that it was asked for.
const SAVING: f64 = 0.7;
pub(crate) const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
pub(crate) const AUDIO_BYTES: usize = 160;

/// A running publisher. Dropping it ends it without a word; [`Publisher::stop`] ends it well.
pub struct Publisher {
    running: Running,
    figures: Arc<Mutex<PublisherFigures>>,
    keyframes: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
}

impl Publisher {
    /// Posts the offer and starts the session in the background, on the current tokio runtime.
    ///
    /// # Errors
    /// What the HTTP exchange or the answer lacks; all later failures show in [`Running::connected`].
    pub async fn start(
        endpoint: &Endpoint,
        identity: &Identity,
        media: PublisherOptions,
        options: ClientOptions,
    ) -> Result<Publisher, ClientError> {
        let begun = Instant::now();
        let local = random_credentials();
        let mut sections = Vec::new();
        let mut ssrcs = Vec::new();
        for codec in media.audio.then_some(Codec::Opus).into_iter().chain(media.video) {
            let pair = Ssrcs { media: random_u32()?, rtx: random_u32()? };
            sections.push(OfferedSection { codecs: vec![codec], sends: Some(pair) });
            ssrcs.push((codec, pair));
        }
        let fingerprint = identity.announced(&options);
        let (setup, imitates) = (options.setup, media.imitates);
        let offer =
            Offer { ice: &local, fingerprint: &fingerprint, setup, imitates, transport_cc: false, sections: &sections };
        let (answer, resource) = endpoint.offer(offer.to_sdp()).await?;

        let figures = Arc::new(Mutex::new(PublisherFigures::default()));
        let stream = stream_number(endpoint.stream());
        let mut tracks = Vec::new();
        for (codec, ssrcs) in ssrcs {
            let accepted = answer.live(codec.kind()).and_then(|section| {
                let types = section.codecs.iter().find(|(other, _)| *other == codec)?.1;
                Some((section.clone(), types))
            });
            let (section, types) =
                accepted.ok_or_else(|| ClientError::Answer(format!("the server does not take {codec}")))?;
            tracks.push(Track::new(codec, ssrcs, &section, types, stream, &media)?);
        }
        let keyframes = Arc::new(AtomicBool::new(media.keyframes));
        let paused = Arc::new(AtomicBool::new(false));
        let sender = Sender {
            tracks,
            media,
            begun,
            next_report: begun,
            reported: false,
            keyframes: Arc::clone(&keyframes),
            paused: Arc::clone(&paused),
            figures: Arc::clone(&figures),
        };
        let running = Running::start(Agreed { resource, answer, local, begun }, identity, options, Flow::new(sender))?;
        Ok(Publisher { running, figures, keyframes, paused })
    }

    /// Lets an encoder that gave none so far make keyframes.
    pub fn allow_keyframes(&self) {
        self.keyframes.store(true, Ordering::Relaxed);
    }

    /// Sends no media for a while, or again; its reports go on, and so does its media's time.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// The figures so far.
    pub fn figures(&self) -> PublisherFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at the figures that outlives the publisher.
    pub fn watch(&self) -> PublisherWatch {
        PublisherWatch(Arc::clone(&self.figures))
    }

    /// Ends the session: DELETE unless the options say no, then close_notify.
    ///
    /// # Errors
    /// What the DELETE said; the client is gone all the same.
    pub async fn stop(self) -> Result<PublisherFigures, ClientError> {
        let Publisher { running, figures, .. } = self;
        running.stop().await?;
        Ok(*figures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The figures of a publisher that runs elsewhere.
#[derive(Clone)]
pub struct PublisherWatch(Arc<Mutex<PublisherFigures>>);

impl PublisherWatch {
    /// The figures so far.
    pub fn figures(&self) -> PublisherFigures {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Publisher {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

fn random_u32() -> Result<u32, ClientError> {
    let mut bytes = [0; 4];
    openssl::rand::rand_bytes(&mut bytes).map_err(|error| ClientError::Crypto(error.to_string()))?;
    Ok(u32::from_be_bytes(bytes).max(1))
}

struct Waiting {
    payload: Payload,
    content: Content,
    marker: bool,
    timestamp: u32,
}

struct Track {
    codec: Codec,
    ssrcs: Ssrcs,
    types: PayloadTypes,
    mid: Option<(u8, String)>,
    packetizer: Packetizer,
    stamp: Stamp,
    interval: Duration,
    /// Bytes of an interframe and of a keyframe.
    sizes: (usize, usize),
    /// Bytes that were sent beyond the average.
    debt: f64,
    sequence: u16,
    rtx_sequence: u16,
    first_timestamp: u32,
    frames: u64,
    next_frame: Instant,
    next_keyframe: Instant,
    next_burst: Instant,
    waiting: VecDeque<Waiting>,
    history: Vec<Vec<u8>>,
    packets: u32,
    octets: u32,
}

impl Track {
    fn new(
        codec: Codec,
        ssrcs: Ssrcs,
        section: &AnsweredSection,
        types: PayloadTypes,
        stream: u32,
        media: &PublisherOptions,
    ) -> Result<Track, ClientError> {
        let video = codec.kind() == MediaKind::Video;
        let fps = media.fps.max(1);
        let now = Instant::now();
        let random = random_u32()?;
        Ok(Track {
            codec,
            ssrcs,
            types,
            mid: section.mid_extension.map(|id| (id, section.mid.clone())),
            packetizer: Packetizer::new(codec, media.packet_size),
            stamp: Stamp { stream, epoch: random_u32()?, content: Content::Audio, counter: 0, sent: 0 },
            interval: if video { Duration::from_secs(1) / fps } else { AUDIO_INTERVAL },
            sizes: if video { media.frame_sizes() } else { (AUDIO_BYTES, AUDIO_BYTES) },
            debt: 0.0,
            // SRTP wants to start in the lower half (RFC 3711 §3.3.1).
            sequence: media.first_sequence.unwrap_or((random & 0x7fff) as u16),
            rtx_sequence: (random >> 16 & 0x7fff) as u16,
            first_timestamp: media.first_timestamp.unwrap_or(random.rotate_left(8)),
            frames: 0,
            next_frame: now,
            next_keyframe: now,
            next_burst: now,
            waiting: VecDeque::new(),
            history: vec![Vec::new(); HISTORY],
            packets: 0,
            octets: 0,
        })
    }

    fn clock_rate(&self) -> u32 {
        if self.codec.kind() == MediaKind::Video { 90_000 } else { 48_000 }
    }

    fn timestamp(&self) -> u32 {
        let ticks = self.interval.as_nanos() * u128::from(self.frames) * u128::from(self.clock_rate()) / 1_000_000_000;
        self.first_timestamp.wrapping_add(ticks as u32)
    }

    /// Bytes of the next frame. Keyframes in their cadence are part of the plan; those beyond it, for which viewers asked,
    /// are saved again in the frames that follow.
    fn video_size(&mut self, keyframe: bool, media: &PublisherOptions) -> usize {
        let size = match self.sizes {
            (_, size) if keyframe => size,
            (size, largest) if self.debt > largest as f64 => (size as f64 * SAVING) as usize,
            (size, _) => size,
        };
        let average = f64::from(media.bitrate) * 125.0 / f64::from(media.fps.max(1));
        self.debt = (self.debt + size as f64 - average).max(0.0);
        size
    }

    /// Puts the frames that are due into the queue.
    fn produce(&mut self, now: Instant, media: &PublisherOptions, figures: &mut PublisherFigures) {
        if now > self.next_frame + Duration::from_secs(1) {
            // The machine slept or is overloaded: go on from here instead of catching up in a burst.
            self.next_frame = now;
        }
        while now >= self.next_frame {
            let late = now - self.next_frame;
            figures.frames += 1;
            figures.late_frames += u64::from(late > LATE);
            figures.latest = figures.latest.max(late.as_secs_f64());
            let video = self.codec.kind() == MediaKind::Video;
            let keyframe = video && media.keyframes && now >= self.next_keyframe;
            if keyframe {
                self.next_keyframe = now + media.gop;
                figures.keyframes += 1;
            }
            let size = if video { self.video_size(keyframe, media) } else { self.sizes.0 };
            let timestamp = self.timestamp();
            let payloads = self.packetizer.frame(keyframe, size);
            let last = payloads.len() - 1;
            for (index, payload) in payloads.into_iter().enumerate() {
                let content = match (video, keyframe && index == 0) {
                    (false, _) => Content::Audio,
                    (true, true) => Content::KeyframeStart,
                    (true, false) => Content::Video,
                };
                // The marker ends a video frame; audio has it on the first packet of a talkspurt.
                let marker = if video { index == last } else { self.frames == 0 };
                self.waiting.push_back(Waiting { payload, content, marker, timestamp });
            }
            self.frames += 1;
            self.next_frame += self.interval;
        }
    }

    /// Lets time pass without frames; the next one is a keyframe.
    fn rest(&mut self, now: Instant) {
        while now >= self.next_frame {
            self.frames += 1;
            self.next_frame += self.interval;
        }
        self.next_keyframe = now;
    }

    fn send(&mut self, now: Instant, out: &mut Outgoing, figures: &mut PublisherFigures) {
        self.next_burst = now + PACE;
        for _ in 0..BURST {
            let Some(Waiting { mut payload, content, marker, timestamp }) = self.waiting.pop_front() else { return };
            self.stamp = Stamp { content, sent: clock::nanos(), ..self.stamp };
            self.stamp.seal(&mut payload.bytes[payload.body..]);
            self.stamp.counter += 1;
            let fields = HeaderFields {
                marker,
                padding: false,
                payload_type: self.types.media,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.ssrcs.media,
            };
            let slot = usize::from(self.sequence) % HISTORY;
            let mut packet = std::mem::take(&mut self.history[slot]);
            if write_packet(&mut packet, &fields, &self.mid, &payload.bytes) {
                out.rtp(&packet);
                figures.packets += 1;
                figures.bytes += payload.bytes.len() as u64;
                self.packets = self.packets.wrapping_add(1);
                self.octets = self.octets.wrapping_add(payload.bytes.len() as u32);
            }
            self.history[slot] = packet;
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    fn resend(&mut self, sequence: u16, out: &mut Outgoing) -> bool {
        let packet = &self.history[usize::from(sequence) % HISTORY];
        let Some(header) = RtpHeader::parse(packet).ok().filter(|header| header.sequence_number == sequence) else {
            return false;
        };
        let Some(payload_type) = self.types.rtx else {
            out.rtp(packet);
            return true;
        };
        let payload = header.payload(packet);
        let mut bytes = vec![0; payload.len() + 2];
        let fields = HeaderFields {
            marker: header.marker,
            padding: false,
            payload_type,
            sequence_number: self.rtx_sequence,
            timestamp: header.timestamp,
            ssrc: self.ssrcs.rtx,
        };
        let mut retransmission = Vec::new();
        let written = rtx::write_payload(&mut bytes, sequence, payload).is_some()
            && write_packet(&mut retransmission, &fields, &self.mid, &bytes);
        if written {
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            out.rtp(&retransmission);
        }
        written
    }

    fn deadline(&self) -> Instant {
        if self.waiting.is_empty() { self.next_frame } else { self.next_frame.min(self.next_burst) }
    }
}

/// Writes a whole packet into `packet`; false if its header cannot be expressed.
fn write_packet(packet: &mut Vec<u8>, fields: &HeaderFields, mid: &Option<(u8, String)>, payload: &[u8]) -> bool {
    packet.clear();
    packet.resize(64 + payload.len(), 0);
    let extension = mid.as_ref().map(|(id, mid)| (*id, mid.as_bytes()));
    let Some(len) = write_header(packet, fields, extension) else {
        packet.clear();
        return false;
    };
    packet.truncate(len);
    packet.extend_from_slice(payload);
    true
}

struct Sender {
    tracks: Vec<Track>,
    media: PublisherOptions,
    begun: Instant,
    next_report: Instant,
    reported: bool,
    keyframes: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    figures: Arc<Mutex<PublisherFigures>>,
}

impl Sender {
    fn report(&mut self, out: &mut Outgoing) {
        let mut buffer = [0; MAX_RTCP_LEN];
        let useless = self.media.imitates == Imitation::Obs && !std::mem::replace(&mut self.reported, true);
        for track in &self.tracks {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut info = SenderInfo {
                ntp: NtpTime::from_unix(since_epoch),
                rtp_timestamp: track.timestamp(),
                packet_count: track.packets,
                octet_count: track.octets,
            };
            if useless {
                info = SenderInfo { rtp_timestamp: u32::MAX, packet_count: 0, octet_count: 0, ..info };
            }
            let mut writer = RtcpWriter::new(&mut buffer);
            let ssrc = track.ssrcs.media;
            if writer.sender_report(ssrc, &info, &[]).and_then(|()| writer.sdes_cname(ssrc, "loadtest")).is_ok() {
                out.rtcp(writer.as_bytes());
            }
        }
    }
}

impl Media for Sender {
    fn connected(&mut self, now: Instant) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).connected =
            Some(now.duration_since(self.begun).as_secs_f64());
        for track in &mut self.tracks {
            track.next_frame = now;
            track.next_keyframe = now;
        }
        self.next_report = now + REPORT_INTERVAL / 4;
    }

    fn rtp(&mut self, _: Instant, _: &mut [u8]) {}

    fn rtcp(&mut self, now: Instant, packet: &[u8], out: &mut Outgoing) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        for message in RtcpPackets::new(packet).flatten() {
            match message {
                RtcpPacket::Pli(_) | RtcpPacket::Fir(_) => {
                    figures.keyframe_requests += 1;
                    if self.media.imitates != Imitation::Browser {
                        continue;
                    }
                    for track in &mut self.tracks {
                        track.next_keyframe = now;
                    }
                }
                RtcpPacket::Nack(nack) if self.media.imitates != Imitation::Ffmpeg => {
                    let track = self.tracks.iter_mut().find(|track| track.ssrcs.media == nack.media_ssrc);
                    if let Some(track) = track {
                        let resent = nack.sequence_numbers().filter(|&number| track.resend(number, out)).count();
                        figures.resent += resent as u64;
                    }
                }
                _ => {}
            }
        }
    }

    fn refused(&mut self) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).refused += 1;
    }

    fn tick(&mut self, now: Instant, out: &mut Outgoing) -> Instant {
        let figures = Arc::clone(&self.figures);
        let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        self.media.keyframes = self.keyframes.load(Ordering::Relaxed);
        let paused = self.paused.load(Ordering::Relaxed);
        for track in &mut self.tracks {
            if paused {
                track.rest(now);
            }
            track.produce(now, &self.media, &mut figures);
            track.send(now, out, &mut figures);
        }
        drop(figures);
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.report(out);
        }
        self.deadline()
    }

    fn deadline(&self) -> Instant {
        let frames = self.tracks.iter().map(Track::deadline).min();
        frames.map_or(self.next_report, |frame| frame.min(self.next_report))
    }
}

const _: () = assert!(STAMP_LEN < AUDIO_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_on_request_are_saved_again() {
        let media = PublisherOptions::default();
        let types = PayloadTypes { media: 96, rtx: None };
        let section = AnsweredSection {
            kind: MediaKind::Video,
            mid: "0".into(),
            rejected: false,
            codecs: vec![(Codec::Vp8, types)],
            mid_extension: None,
            transport_cc_extension: None,
            ssrcs: None,
        };
        let ssrcs = Ssrcs { media: 1, rtx: 2 };
        let mut track = Track::new(Codec::Vp8, ssrcs, &section, types, 1, &media).unwrap();
        let bytes: usize = (0..600).map(|frame| track.video_size(frame % 10 == 0, &media)).sum();
        let planned = 20.0 * f64::from(media.bitrate) * 125.0;
        assert!((bytes as f64 / planned - 1.0).abs() < 0.1, "{bytes} of {planned}");
    }
}
